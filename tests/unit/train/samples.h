/* samples: data and models that the tests of train share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "train/internal.h"
#include "test.h"

/* n rows of `features` numbers with a rule to be learned; every 11th value is missing, and that says something too. */
static inline void sample_rows(struct arena *a, size_t n, size_t features, uint64_t seed, struct rows *out)
{
    *out = (struct rows){ .n = n, .features = features, .names = NEW_N(a, struct str, features) };
    out->x = NEW_N(a, float, n *features);
    out->y = NEW_N(a, float, n);
    out->at = NEW_N(a, int64_t, n);
    out->known = NEW_N(a, int64_t, n);
    for (size_t f = 0; f < features; f++)
        out->names[f] = fmt(a, "f%zu", f);
    for (size_t i = 0; i < n; i++) {
        float *x = out->x + i * features;
        for (size_t f = 0; f < features; f++)
            x[f] = splitmix(&seed) % 11 == 0
                       ? NAN
                       : (float)(splitmix(&seed) >> 40) / 16777216 * (float)(1 + f % 3) - 0.5f;
        double z = 2 * (isnan(x[0]) ? 0.4 : x[0]) + (isnan(x[1]) ? 0 : x[1] > 0.2f) -
                   (isnan(x[2]) ? 0.5 : x[2] * x[0]);
        double noise = (double)(splitmix(&seed) >> 11) / 9007199254740992.0 - 0.5;
        out->y[i] = z + 1.5 * noise > 0.6;
        out->at[i] = (int64_t)i * 1000000; /* one a second */
        out->known[i] = out->at[i] + 5000000;
    }
    out->until = (int64_t)n * 1000000;
}

/* Rows held out are worth their log loss. */
struct sample_held {
    const float *y;
    size_t n;
};
static inline bool sample_round(void *arg, int round, double train_loss, const float *p, double *worth)
{
    auto_arena struct arena *a = arena_new(0);
    const struct sample_held *held = arg;
    (void)round;
    (void)train_loss;
    *worth = metric_log_loss(a, p, held->y, held->n);
    return true;
}

/* Each round is better than the one before. */
static inline bool sample_last(void *arg, int round, double train_loss, const float *p, double *worth)
{
    (void)arg;
    (void)train_loss;
    (void)p;
    *worth = -round;
    return true;
}

static inline struct trees_with sample_params(struct arena *a, int64_t rounds)
{
    struct trees_with w;
    schema_defaults(&trees_with_schema, a, &w);
    w.rounds = rounds;
    return w;
}

/* Trains on the first four fifths. */
static inline err sample_fit(struct arena *a, struct rows *rows, const struct trees_with *with,
                             struct rows_split *split, struct fit *out)
{
    TRY(rows_split(rows, (int64_t)rows->n * 1000 / 5, split));
    struct sample_held held = { rows->y + split->train, split->valid };
    return fit_trees(a, rows, split, with,
                     &(struct fit_goal){ .task = METER_BINARY, .patience = with->stop_after }, 2,
                     &(struct fit_watch){ sample_round, &held }, out);
}

/* The same rows in three classes, as 20 rounds of trees tell them apart. */
static inline err sample_classes(struct arena *a, struct rows *rows, struct rows_split *split,
                                 struct fit *out)
{
    struct trees_with with = sample_params(a, 20);
    *split = (struct rows_split){ .train = rows->n * 4 / 5, .valid = rows->n - rows->n * 4 / 5 };
    for (size_t i = 0; i < rows->n; i++)
        rows->y[i] += rows->x[i * rows->features + 1] > 0.5f;
    return fit_trees(a, rows, split, &with, &(struct fit_goal){ .task = METER_CLASSES, .classes = 3 }, 2,
                     &(struct fit_watch){ sample_last }, out);
}

/* A leak checker's view of libraries that keep what they allocate is not of interest here. */
#define NEED_XGBOOST()                                   \
    do {                                                 \
        struct str need_;                                \
        auto_arena struct arena *need_a_ = arena_new(0); \
        if (xgb_version(need_a_, &need_))                \
            cr_skip_test("libxgboost is not here");      \
    } while (0)
#define NEED_ORT(rt)                                    \
    do {                                                \
        if (runtime_open(NULL, (rt)))                   \
            cr_skip_test("libonnxruntime is not here"); \
    } while (0)
