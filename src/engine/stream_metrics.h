/* stream_metrics: how good predictions are, batch by batch, in memory that does not grow with the rows (but for what is kept
 * to be exact); counts of several ranks or processes are merged. By the names that engine/metrics.h has for arrays.
 * Flow     meter_new(task) --meter_add, meter_merge--> counts --meter_value--> numbers.
 * Owns     its counts, until the arena given ends.
 * Threads  one at a time for each; merged by one.
 * NaN      is the value of what has no meaning: no rows, one class only for AUC; and of all once a prediction was NaN.
 * Formulas accuracy, logLoss, calibrationError, auc, averagePrecision, rmse: engine/metrics.h. Of more than two classes:
 *          logLoss −mean ln p[label]; calibrationError of the greatest probability against whether it is right.
 *          precision tp / (tp + fp), recall tp / (tp + fn), f1 2 tp / (2 tp + fp + fn), 0 for 0 / 0: of the class 1 where p ≥ 0.5; of
 *          many classes the mean over those that come among labels or predictions ("macro").
 *          topK share of rows whose label has one of the K greatest scores (of equal ones the first counts).
 *          pairAccuracy share of the pairs of one group, of unlike relevance, whose scores are in that order; equal scores are half right.
 *          ndcg mean over groups of Σ rᵢ / log2(1 + place by score) over the same by relevance; equal scores share their places;
 *          groups without relevance are left out; a relevance below 0 makes it NaN.
 *          recallAtK share of rows among whose K nearest others (Euclid) is one of its label, of rows whose label comes twice.
 *          mae mean |p − y|; r2 1 − Σ(p − y)² / Σ(y − mean y)², over all outputs together; perplexity exp(logLoss).
 * Exact    auc and averagePrecision are those of engine/metrics.h up to exact_max rows. Beyond, scores are counted in
 *          2^18 bins (9 bits behind the point of their logarithm), and meter_error() bounds the distance from the truth: for auc the
 *          pairs that share a bin, Σ pos_b neg_b / (2 n₊ n₋); for averagePrecision the best or worst order within each bin.
 * Sample   of more than 2^20 rows pairAccuracy and ndcg, of more than 2,048 recallAtK are of a part: of groups, of rows, chosen by
 *          hash, whole groups together, so that it is the same in each run and in any order of ranks. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

enum meter_task {
    METER_BINARY = 1,   /* p: probabilities of 1 (or logits); y: float, 0 or 1 */
    METER_CLASSES = 2,  /* p: rows × classes, probabilities (or logits); y: int64_t */
    METER_NUMBERS = 4,  /* p, y: float */
    METER_TOKENS = 8,   /* p: rows × classes, logits; y: int64_t, those < 0 are not counted */
    METER_RANKING = 16, /* p: scores; y: struct meter_ranked */
    METER_POINTS = 32,  /* p: rows × classes, places in a space; y: int64_t, labels */
};
struct meter_ranked {
    float relevance;
    int64_t group;
};
struct meter_spec {
    enum meter_task task;
    int64_t classes;  /* CLASSES, TOKENS, POINTS: numbers of a row */
    int64_t k;        /* of topK; 0: 5 */
    bool logits;      /* BINARY, CLASSES */
    size_t exact_max; /* 0: 2^22 rows */
};
struct meter;
err meter_new(struct arena *a, const struct meter_spec *, struct meter **out);
void meter_reset(struct meter *);
/* INVALID, naming the row of this call: a label that is no class. */
err meter_add(struct meter *, const float *p, const void *y, size_t rows);
/* Adds what `from` has counted; both of the same spec. The same calls in the same order give the same bits. */
void meter_merge(struct meter *to, const struct meter *from);
int64_t meter_rows(const struct meter *);

struct meter_metric {
    struct str name;
    unsigned tasks; /* for which it has a meaning */
    bool more_is_better;
    double (*of)(const struct meter *);
    const char *doc;
};
extern const struct meter_metric meter_table[];
extern const size_t meter_table_n;
/* NULL if there is none of that name. */
const struct meter_metric *meter_find(struct str name);
/* NaN if the task does not have it. */
double meter_value(const struct meter *, struct str name);
/* A bound of |value − true value|: 0 while it is exact. */
double meter_error(const struct meter *, struct str name);
/* Rows of label i that were predicted as j at [i × classes + j]; NULL beyond 512 classes. BINARY: 2 × 2. */
const int64_t *meter_confusion(const struct meter *, int64_t *classes);
/* {"accuracy":0.91,"auc":0.97,"aucError":0.0001,…} of its task. */
void meter_write(const struct meter *, struct json *);
