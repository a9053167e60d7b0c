// SPDX-License-Identifier: Apache-2.0
/* AUC of a stream: counts per class in bins of the score. The bins ascend with the score, so that all pairs of
 * different bins are ordered right; pairs of one bin count half. */
#include "monitor/internal.h"

/* [0, 1] in equal bins; what is below and above in bins that grow towards infinity. */
static size_t bin_of(float score)
{
    if (score < 0) {
        size_t i = (size_t)(AUC_SIDE / (1 - (double)score));
        return i < AUC_SIDE ? i : AUC_SIDE - 1;
    }
    if (score > 1) {
        size_t i = (size_t)(AUC_SIDE * (1 - 1 / (double)score));
        return AUC_SIDE + AUC_BINS + (i < AUC_SIDE ? i : AUC_SIDE - 1);
    }
    size_t i = (size_t)((double)score * AUC_BINS);
    return AUC_SIDE + (i < AUC_BINS ? i : AUC_BINS - 1);
}

void auc_add(struct auc *x, float score, bool positive)
{
    if (!isfinite(score))
        return;
    x->n[positive]++;
    x->bins[bin_of(score)][positive]++;
}

double auc_value(const struct auc *x)
{
    double pairs = 0, below = 0; /* negatives in the bins so far */
    if (!x || !x->n[0] || !x->n[1])
        return NAN;
    for (size_t i = 0; i < AUC_ALL; i++) {
        pairs += x->bins[i][1] * (below + 0.5 * x->bins[i][0]);
        below += x->bins[i][0];
    }
    return pairs / ((double)x->n[0] * (double)x->n[1]);
}

double auc_error(const struct auc *x)
{
    double pairs = 0;
    if (!x || !x->n[0] || !x->n[1])
        return NAN;
    for (size_t i = 0; i < AUC_ALL; i++)
        pairs += 0.5 * x->bins[i][0] * x->bins[i][1];
    return pairs / ((double)x->n[0] * (double)x->n[1]);
}
