/* train: the job that turns a training set into a model, and the runtimes that run models.
 * Flow     DatasetVersion --train_worker--> model.onnx, native model, baseline.json (blobs) + result --> registry
 * Owns     the kind Sweep (train/sweep.h); worker type `train`; runtimes (train/runtime.h).
 * Threads  the worker is its own process and uses as many threads as the job has cores.
 * Errors   INVALID (a row set that cannot be learned from), UNAVAILABLE (libxgboost is missing), CANCELLED.
 * The split is by time: the end is the version's `until`, or else just after the newest row; the split is `holdout`
 * before the end. A row is held out if its event time is at or after the split; an older row is learned from only if
 * its label was known before the split, as a model made at that moment could not have seen it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/feature.h"
#include "train/loader.h"
#include "train/runtime.h"
#include "train/spec.h"
#include "train/sweep.h"
#include "train/trainer.h"

extern const struct worker_type train_worker;

/* ---- labelled rows in memory: what train learns from and evaluate judges on ---- */
struct rows {
    size_t n, features;
    struct str *names; /* of the features, in the model's order */
    float *x;          /* n × features, row-major; NaN for null */
    size_t texts;
    struct str *text_names; /* of features that are texts: categories, which trees do without */
    struct str *text;       /* n × texts, row-major; empty for null */
    float *y;               /* labels; NaN: none */
    int64_t *at,
        *known; /* event time and when the label became known (may be the same array), µs since 1970; INT64_MIN: none */
    int64_t until;       /* the version's end (exclusive), else just after the newest row */
    struct arena **x_in; /* what x alone lies in, for rows_forget(); NULL: it lasts as long as the rest */
};
/* Gives the memory of x back, which is most of all, once it has been binned. */
void rows_forget(struct rows *);
/* Adds key "rows" (the version: blob hashes, columns and their roles) to the open object; in prepare, in the daemon. */
err rows_prepare(struct job_context *, struct str project, struct str dataset_version, struct json *spec);
/* Reads them in the worker, into w->a. INVALID if the version has no label or no features or a label that is no number;
 * TOO_LARGE if they would not fit into bytes_max (0: no bound). Infinite features become NaN. */
err rows_read(struct worker *w, int64_t bytes_max, struct rows *out);
/* Moments of the split (µs): held out are rows with split ≤ at < until. */
struct rows_split {
    int64_t from, split, until;   /* from: the oldest row that is learned from */
    size_t train, valid, unknown; /* rows; unknown: older, but the label came later or never */
    size_t test;                  /* rows behind those held out, that are looked at only at the end */
};
/* INVALID if one side is empty or has one label only. Moves rows in place: first those to learn from, then those held out,
 * then the rest; each part in order of event time, then of place. */
err rows_split(struct rows *, int64_t holdout_ms, struct rows_split *out);

/* ---- parity: does the exported model say what the trained one says? ---- */
struct parity {
    double
        max_abs; /* largest |native − ONNX| of the probabilities; of values above 1 relative to the first */
    double mean_abs;
    size_t rows, worst; /* rows compared; the row of max_abs */
};
/* native: the XGBoost model's bytes as train wrote them; x: n rows of `features` floats, row-major. UNAVAILABLE
 * without libxgboost. */
err parity_check(struct arena *a, struct str native, struct session *onnx, const float *x, size_t n,
                 size_t features, int threads, struct parity *out);
/* Version of libxgboost ("1.7.4"), or UNAVAILABLE with a hint; for `dhow doctor`. */
err xgb_version(struct arena *a, struct str *out);
