/* sequential: is one mean greater than another, asked as often as one likes.
 *
 * A test of fixed size may be looked at once; a look after each outcome finds "a difference" in nearly every A/A test, in
 * time. What is here holds at all times at once (always valid): P(ever p ≤ α with no difference) ≤ α, and the interval
 * covers the difference at all times with 1 − α.
 *
 * With d̂ = mean b − mean a, V = s²a/na + s²b/nb its estimated variance, and differences d ~ N(0, τ²) mixed in:
 *   ratio     Λ(d) = √(V/(V+τ²)) exp(τ² (d̂−d)² / (2V(V+τ²)))   Robbins 1970 (normal mixture); as a test of two streams:
 *                                                              Johari, Koomen, Pekelis, Walsh 2022, "Always Valid
 *                                                              Inference", Operations Research 70(3), eq. 10 ff.
 *   p         min(1, 1/Λ(0)); the least over time holds, too    the same, by Ville's inequality (1939)
 *   interval  d̂ ± √(V(V+τ²)/τ² · (ln((V+τ²)/V) − 2 ln α))       all d with Λ(d) < 1/α
 *   needed    the least n with half width + z₀.₈ √V ≤ effect    then a true difference of `effect` has been found with at
 *                                                              least 0.8: the interval leaves 0 out at that n, if not before
 * Variances are estimated, so the promise is asymptotic (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas 2024, "Time-uniform
 * central limit theory and asymptotic confidence sequences", Annals of Statistics 52(6)): nothing is said before
 * SEQUENTIAL_MIN outcomes in each arm, and a share's variance is that of (s+1)/(n+2) (Agresti & Coull 1998 in spirit), so
 * that no success at all is not certainty. tests/unit/engine/sequential.c measures the false alarms. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

enum { SEQUENTIAL_MIN = 100 };

/* Mean and squared deviations of what was added (Welford 1962). */
struct moments {
    int64_t n;
    double mean, m2;
};
void moments_add(struct moments *, double x);
/* Of one outcome: unbiased, or of a share (outcomes 0 and 1) as above. NaN below two outcomes. */
double moments_variance(const struct moments *, bool proportion);

struct sequential {
    double alpha;    /* the chance of a false alarm, over all time */
    double scale;    /* τ: differences of about this size are found soonest */
    bool proportion; /* outcomes are 0 or 1 */
};
struct interval {
    double low, high; /* −∞ and ∞ as long as nothing can be said */
};
/* Of the mean of one arm. */
struct interval sequential_mean(const struct sequential *, const struct moments *);
/* Of mean b − mean a; *p may be NULL. */
struct interval sequential_difference(const struct sequential *, const struct moments *a,
                                      const struct moments *b, double *p);
/* Outcomes of both arms together, share_b (inside 0 … 1) of them of b, after which a difference of `effect` is found with
 * 0.8; variances are of one outcome. INT64_MAX if there is no such number. */
int64_t sequential_needed(const struct sequential *, double variance_a, double variance_b, double share_b,
                          double effect);
