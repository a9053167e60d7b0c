/* train: the job that turns a training set into a model, and the runtimes that run models.
 * Flow     DatasetVersion --train_worker--> model.onnx, native model, baseline.json (blobs) + result --> registry
 * Owns     no kind; worker type `train`; runtimes (train/runtime.h).
 * Threads  the worker is its own process and uses as many threads as the job has cores.
 * Errors   INVALID (a row set that cannot be learned from), UNAVAILABLE (libxgboost is missing), CANCELLED.
 * The split is by time: the end is the version's `until`, or else just after the newest row; the split is `holdout`
 * before the end. A row is held out if its event time is at or after the split; an older row is learned from only if
 * its label was known before the split, as a model made at that moment could not have seen it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/feature.h"
#include "train/runtime.h"

// clang-format off
#define TREES_WITH(F, O, L, T)                                                                                            \
    F(T, I64, rounds,           0, "Trees at most.", .def = "100", .min = 1, .max = 10000)                                \
    F(T, I64, depth,            0, "Depth of a tree.", .def = "6", .min = 1, .max = 16)                                   \
    F(T, F64, learning_rate,    0, "Weight of each new tree.", .def = "0.1", .min = 1e-4, .max = 1)                       \
    F(T, F64, subsample,        0, "Share of the rows that each tree sees.", .def = "1", .min = 0.01, .max = 1)           \
    F(T, F64, columns,          0, "Share of the features that each tree sees.", .def = "1", .min = 0.01, .max = 1)       \
    F(T, F64, min_child_weight, 0, "Least sum of second derivatives in a leaf.", .def = "1", .min = 0, .max = 1e9)        \
    F(T, F64, l2,               0, "L2 penalty on leaves (XGBoost's lambda).", .def = "1", .min = 0, .max = 1e9)          \
    F(T, I64, stop_after,       0, "Rounds without a better valid.logloss before it stops; 0: never.", .def = "0", .min = 0, .max = 10000) \
    F(T, I64, bins,             0, "Bins of a feature's histogram.", .def = "256", .min = 2, .max = 1024)                 \
    F(T, I64, seed,             0, "Seed of the samples; the same seed gives the same model.", .def = "1", .min = 0, .max = 2147483647)
#define TRAIN_MODEL(F, O, L, T)                                                                                           \
    O(T, trees_with, trees, REQUIRED, "Gradient-boosted trees (XGBoost, histograms), logistic loss.")
#define TRAIN_RESOURCES(F, O, L, T)                                                                                       \
    F(T, I64,  cpu,    0, "Cores of the job that a pipeline makes of this step; a Job says it in its own spec.", .def = "0", .min = 0, .max = 4096) \
    F(T, SIZE, memory, 0, "Memory of that job.", .def = "0", .min = 0, .max = 1e15)
#define TRAIN_WITH(F, O, L, T)                                                                                            \
    F(T, REF,      rows,    REQUIRED, "The training set's version to learn from.", .ref = "DatasetVersion")               \
    F(T, DURATION, holdout, REQUIRED, "The last part of it, by event time, that is held out for validation.", .min = 1000, .max = 1e12) \
    O(T, train_model, model, REQUIRED, "What to train.")                                                                  \
    O(T, train_resources, resources, 0, "What it may use.")
/* What a run gives, in Job.status.result: texts, some of them JSON. */
#define TRAIN_OUTPUTS(F, O, L, T)                                                                                         \
    F(T, STR, rows,      REQUIRED, "The training set's version it learned from.")                                         \
    F(T, STR, onnx,      REQUIRED, "Blob: the model as ONNX.", .len_max = 64)                                             \
    F(T, STR, native,    REQUIRED, "Blob: the model as XGBoost's JSON.", .len_max = 64)                                   \
    F(T, STR, baseline,  REQUIRED, "Blob: baseline.json of the training rows (engine/baseline.h).", .len_max = 64)        \
    F(T, STR, signature, REQUIRED, "JSON: {inputs, outputs: [{name, type, shape}], features: [names in order]}.", .len_max = 1048576) \
    F(T, STR, params,    REQUIRED, "JSON: parameters of the model, defaults included.", .len_max = 65536)                 \
    F(T, STR, metrics,   REQUIRED, "JSON: auc, logLoss, calibrationError, … on the rows held out; trainLogLoss.", .len_max = 65536) \
    F(T, STR, facts,     REQUIRED, "JSON: rounds, bestRound, trainSeconds, trainRows, validRows, notYetKnownRows, from, split, until, xgboost.", .len_max = 65536)
// clang-format on
SCHEMA(trees_with, TREES_WITH);
SCHEMA(train_model, TRAIN_MODEL);
SCHEMA(train_resources, TRAIN_RESOURCES);
SCHEMA(train_with, TRAIN_WITH);
SCHEMA(train_outputs, TRAIN_OUTPUTS);
extern const struct worker_type train_worker;

/* ---- labelled rows in memory: what train learns from and evaluate judges on ---- */
struct rows {
    size_t n, features;
    struct str *names;   /* of the features, in the model's order */
    float *x;            /* n × features, row-major; NaN for null */
    float *y;            /* labels, 0 or 1; NaN: none */
    int64_t *at, *known; /* event time and when the label became known, µs since 1970; INT64_MIN: none */
    int64_t until;       /* the version's end (exclusive), else just after the newest row */
};
/* Adds key "rows" (the version: blob hashes, columns and their roles) to the open object; in prepare, in the daemon. */
err rows_prepare(struct job_context *, struct str project, struct str dataset_version, struct json *spec);
/* Reads them in the worker, into w->a. INVALID if the version has no label or no features or a label that is neither
 * 0 nor 1; TOO_LARGE if they would not fit into bytes_max (0: no bound). Infinities become NaN. */
err rows_read(struct worker *w, int64_t bytes_max, struct rows *out);
/* Moments of the split (µs): held out are rows with split ≤ at < until. */
struct rows_split {
    int64_t from, split, until;   /* from: the oldest row that is learned from */
    size_t train, valid, unknown; /* rows; unknown: older, but the label came later or never */
};
/* INVALID if one side is empty or has one class only. Moves rows (new arrays in a): first those to learn from, then
 * those held out, then the rest; each part in order of event time, then of place. */
err rows_split(struct rows *, int64_t holdout_ms, struct arena *a, struct rows_split *out);

/* ---- parity: does the exported model say what the trained one says? ---- */
struct parity {
    double max_abs; /* largest |native − ONNX| of the probabilities */
    double mean_abs;
    size_t rows, worst; /* rows compared; the row of max_abs */
};
/* native: the XGBoost model's bytes as train wrote them; x: n rows of `features` floats, row-major. UNAVAILABLE
 * without libxgboost. */
err parity_check(struct arena *a, struct str native, struct session *onnx, const float *x, size_t n,
                 size_t features, int threads, struct parity *out);
/* Version of libxgboost ("1.7.4"), or UNAVAILABLE with a hint; for `dhow doctor`. */
err xgb_version(struct arena *a, struct str *out);
