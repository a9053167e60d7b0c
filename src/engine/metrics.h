/* metrics: how good scores are, over arrays of float scores p and labels y (0 or 1; any number for RMSE).
 * NaN where a metric has no meaning (no rows, or one class only for AUC and average precision).
 * Sums are doubles in order of the rows, so the same rows give the same bits.
 *
 * auc       P(score of a positive > score of a negative), ties count half: (R₊ − n₊(n₊+1)/2) / (n₊n₋), R₊ the
 *           positives' rank sum with average ranks for ties. Mann & Whitney 1947; Hanley & McNeil 1982.
 * logLoss   −mean(y ln p + (1−y) ln(1−p)), p clipped to [1e-7, 1 − 1e-7].
 * calibrationError  expected calibration error, Σ_b (n_b/n) |mean p in b − mean y in b| over ten equal bins of
 *           p, bin b = (b/10, (b+1)/10], 0 in the first. Naeini, Cooper & Hauskrecht 2015; Guo et al. 2017.
 * rmse      sqrt(mean((p − y)²)). For probabilities its square is the Brier score.
 * accuracy  share of rows where (p ≥ 0.5) = (y ≥ 0.5).
 * averagePrecision  Σ_k (recall_k − recall_{k−1}) precision_k over descending distinct scores. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

double metric_auc(struct arena *a, const float *p, const float *y, size_t n);
double metric_log_loss(struct arena *a, const float *p, const float *y, size_t n);
double metric_calibration_error(struct arena *a, const float *p, const float *y, size_t n);
double metric_rmse(struct arena *a, const float *p, const float *y, size_t n);
double metric_accuracy(struct arena *a, const float *p, const float *y, size_t n);
double metric_average_precision(struct arena *a, const float *p, const float *y, size_t n);

struct metric_info {
    struct str name; /* "auc", as in gates and results */
    double (*of)(struct arena *scratch, const float *p, const float *y, size_t n);
    const char *doc;
};
extern const struct metric_info metric_table[];
extern const size_t metric_table_n;
/* NULL if there is none of that name. */
const struct metric_info *metric_find(struct str name);

/* Sorts keys ascending, NaN last, and carries along tags (may be NULL); scratch comes from a. Radix sort:
 * about 10 ns a value. −0 sorts before 0. */
void sort_floats(struct arena *a, float *keys, uint32_t *tags, size_t n);
