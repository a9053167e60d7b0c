/* train/internal: what the parts of this module share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "train/train.h"
#include "train/xgb.h"

/* A version's table → rows, by the roles of its columns. Names are borrowed from spec. */
err rows_from(struct arena *a, const struct columns *in, const struct dataset_version_spec *spec,
              struct rows *out);
/* The same of Parquet files with spec->rows rows at most, each thread of the machine reading some of the columns straight into
 * place. */
err rows_load(struct arena *a, const struct strs *paths, const struct dataset_version_spec *spec,
              struct rows *out);

/* Room for x of n rows, which rows_forget() gives back. */
void rows_x_new(struct arena *a, size_t n, struct rows *);
/* What the distribution of a column is asked of, for the bins of trees and the baselines of all models: so many rows, and at
 * most twice as many, tell as well as all do. */
enum { SAMPLE_ROWS = 100000 };
/* Of n rows one by chance in each stretch of so many, the same each time; x itself if they are no more than that. */
const float *rows_sample(struct arena *a, const float *x, size_t n, size_t width, size_t *out_n);
/* fn for each of n columns, by some of so many threads at once. */
err columns_each(size_t n, int threads, void (*fn)(void *arg, size_t column), void *arg);

/* What trees are to learn from rows, of which those to learn from come first, then those held out, then those of the test. */
struct fit_goal {
    enum meter_task task;
    enum loss_kind loss;  /* of NUMBERS: mse, mae or huber */
    double delta;         /* of huber: where squares become straight */
    size_t classes;       /* of CLASSES */
    const float *weight;  /* of the rows; NULL: all alike */
    const int64_t *group; /* of RANKING: of the rows, those of one group one after the other */
    int64_t patience;     /* rounds without a better one before it stops; 0: never */
    double min_delta;     /* what counts as better */
};
/* What one training gave. */
struct fit {
    struct str native;  /* XGBoost's JSON, up to the best round */
    struct trees trees; /* the same */
    int rounds, best;   /* rounds run; rounds kept */
    double seconds;     /* from binning to the last round */
    double bin_seconds, learn_seconds,
        look_seconds;   /* of them: until the first round; trees; looks at how good they are */
    float *score;       /* of all rows, trees_outputs() of each, by the rounds kept */
    struct str version; /* of XGBoost */
};
/* Hears of each round. p: the scores of the rows held out; gives what they are worth, less being better; false ends the training
 * (CANCELLED). train_loss: mean loss of at most 32,768 of the rows learned from, in each tenth round; else NaN. */
struct fit_watch {
    bool (*round)(void *arg, int round, double train_loss, const float *p, double *worth);
    void *arg;
    void (*binned)(void *arg); /* from here on rows->x is not read any more; may be NULL */
};
/* Trains on the first split->train rows and watches the next split->valid, with 1 thread or more. */
err fit_trees(struct arena *a, const struct rows *, const struct rows_split *, const struct trees_with *,
              const struct fit_goal *, int threads, const struct fit_watch *, struct fit *out);
struct train_listener;
struct train_result;
/* Whether a version says itself what its label and times are, as those of training sets do. */
bool version_labelled(const struct dataset_version_spec *);
/* What a form says of the version that it is to learn from: INVALID names the field, as train_job_check() does. */
err version_check(struct arena *a, const struct train_with *, const struct dataset_version_spec *,
                  struct str at);
/* The job, in the worker; chosen: of with->model. */
err train_version_run(struct worker *, const struct version_in *, const struct field *chosen, int threads,
                      int64_t memory, const struct train_listener *, struct train_result *out);
