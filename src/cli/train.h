/* cli/train: what the verb train and its sweeps share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "cli/cli.h"
#include "train/train.h"

/* The points of each measure over the steps, for a plot. */
struct curve {
    struct str name;
    VEC(double) step, value;
};
struct curves {
    VEC(struct curve) v;
};
void curves_add(struct arena *a, struct curves *, const char *name, int64_t step, double value);
/* The loss in training and on the rows held out, as lines of text; empty with fewer than two points. */
struct str curves_text(struct arena *a, const struct curves *);

struct train_form {
    struct str name, base;  /* base: the folder that paths start in, with its slash */
    struct str text, sweep; /* JSON */
    yyjson_mut_doc *doc;
    struct train_with with;
    const struct field *chosen;
    const char *dir;
    bool quiet;
};
/* A YAML (or .json) file with one document. */
err form_load(struct arena *a, const char *path, yyjson_mut_doc **out);
/* "optimizer.rate=0.01": the value as YAML. */
err form_set(struct arena *a, yyjson_mut_doc *, struct str assignment);
/* Reads doc into with, chosen and text. */
err form_check(struct arena *a, yyjson_mut_doc *doc, struct train_form *);
bool train_on_server(const struct cli *);
/* From now on the first SIGINT or SIGTERM is asked to come to an end: stop_asked(). */
void stop_watch(void);
bool stop_asked(void);
err sweep_run(struct cli *, struct train_form *);
