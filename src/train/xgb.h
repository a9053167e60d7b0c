/* train/xgb: XGBoost behind a few calls, by its C API; the library is found at run time (1.7, 2.x and 3.x).
 * Owns     what is made is freed when its arena ends.
 * Threads  a model and its data belong to one thread; XGBoost runs its own workers.
 * Errors   UNAVAILABLE (no library), INVALID (a model that is none, values XGBoost refuses), INTERNAL; its own words. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

struct xgb;
struct xgb_data;
struct xgb_model;

/* Before the first xgb_open(): others want the cores too, so threads that wait are soon to sleep. */
void xgb_share_cores(void);
err xgb_open(struct arena *a, struct xgb **out);
struct str xgb_version_text(const struct xgb *, struct arena *a); /* "1.7.4" */
/* n rows of `features` floats, row-major, NaN for null; y may be NULL. Both are copied. */
err xgb_data_new(struct xgb *, struct arena *a, const float *x, size_t n, size_t features, const float *y,
                 int threads, struct xgb_data **out);
/* The same binned, to train on: nothing but bins and labels is copied.
 * like: has the bins' edges (may be NULL: its own are found); may go afterwards. */
struct xgb_table {
    const float *x, *y; /* y may be NULL */
    size_t n, features;
    const float *weight;    /* of the rows; NULL: all alike */
    const unsigned *groups; /* rows of each group, one after the other; NULL: there are none */
    size_t n_groups;
};
err xgb_bins_new(struct xgb *, struct arena *a, const struct xgb_table *, int bins, int threads,
                 const struct xgb_data *like, struct xgb_data **out);
/* A new model; predictions on data[i] are kept up to date round by round. */
err xgb_model_new(struct xgb *, struct arena *a, struct xgb_data *const *data, size_t n,
                  struct xgb_model **out);
err xgb_model_set(struct xgb_model *, const char *name, const char *value);
/* One more tree, learned from data; round counts from 0. */
err xgb_model_round(struct xgb_model *, int round, struct xgb_data *data);
/* Probabilities or values of data's rows, `width` of each (UNSUPPORTED if it has another number); valid until the next call on
 * this thread. */
err xgb_model_predict(struct xgb_model *, struct xgb_data *data, size_t width, const float **out);
/* Rounds [from, to) (to 0: all) as XGBoost's JSON. */
err xgb_model_save(struct xgb_model *, struct arena *a, int from, int to, struct str *json);
err xgb_model_load(struct xgb *, struct arena *a, struct str bytes, struct xgb_model **out);
enum { XGB_CLASSES_MAX = 1 << 16 };
/* XGBoost's JSON (1.7 to 3.x) → trees. INVALID; UNSUPPORTED for categorical splits and other objectives than those that
 * trees are trained with here. */
err xgb_trees(struct arena *a, struct str json, struct trees *out);
