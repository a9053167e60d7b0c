/* help: samples with a known shape, a baseline of them, predictions at a time. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "monitor/internal.h"
#include "test.h"

#define HOUR ((int64_t)3600 * 1000000)
#define DAY (24 * HOUR)
#define MAY ((int64_t)988675200 * 1000000) /* 2001-05-01 */

static inline double uniform(uint64_t *seed)
{
    return (double)(splitmix(seed) >> 11) * 0x1p-53;
}

static inline double normal(uint64_t *seed)
{
    double u = uniform(seed) + 1e-300, v = uniform(seed);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

/* Three features and a score: normal, log-normal, an hour of the day; shift moves the first two. */
enum { FEATURES = 3 };
static inline void row_make(uint64_t *seed, double shift, float *out)
{
    out[0] = (float)(10 + 2 * normal(seed) + shift);
    out[1] = (float)exp(normal(seed) + shift / 2);
    out[2] = (float)(splitmix(seed) % 24);
}

static inline float *rows_make(struct arena *a, uint64_t seed, size_t n, double shift)
{
    float *rows = NEW_N(a, float, n *FEATURES);
    for (size_t i = 0; i < n; i++)
        row_make(&seed, shift, rows + i * FEATURES);
    return rows;
}

static inline float *scores_make(struct arena *a, uint64_t seed, size_t n)
{
    float *scores = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++)
        scores[i] = (float)uniform(&seed);
    return scores;
}

static inline struct baseline *baseline_of(struct arena *a, const float *rows, const float *scores, size_t n)
{
    static const struct str names[FEATURES] = { S_INIT("delay"), S_INIT("flights"), S_INIT("hour") };
    struct baseline *b = NEW(a, struct baseline);
    *b = (struct baseline){ .rows = (int64_t)n,
                            .features = NEW_N(a, struct baseline_column, FEATURES),
                            .n = FEATURES };
    for (size_t k = 0; k < FEATURES; k++)
        baseline_column_make(a, names[k], rows + k, n, FEATURES, &b->features[k]);
    baseline_column_make(a, S("score"), scores, n, 1, &b->score);
    return b;
}

/* n predictions of version late.1 from `from` on, evenly over span. */
static inline struct prediction prediction_of(struct arena *a, uint64_t seed, size_t n, double shift,
                                              int64_t from, int64_t span)
{
    int64_t *at = NEW_N(a, int64_t, n);
    for (size_t i = 0; i < n; i++)
        at[i] = from + (int64_t)i * span / (int64_t)n;
    return (struct prediction){ .project = S("p"),
                                .deployment = S("late"),
                                .version = S("late.1"),
                                .n = n,
                                .n_features = FEATURES,
                                .features = rows_make(a, seed, n, shift),
                                .scores = scores_make(a, seed + 1, n),
                                .at = at,
                                .time = from };
}

static inline struct str *ids_make(struct arena *a, size_t n, size_t first)
{
    struct str *ids = NEW_N(a, struct str, n);
    for (size_t i = 0; i < n; i++)
        ids[i] = fmt(a, "%zu", first + i);
    return ids;
}

static inline const struct monitor_drift *drift_named(const void *list, size_t n, const char *name)
{
    const struct monitor_drift *d = list;
    for (size_t i = 0; i < n; i++)
        if (str_eq(d[i].name, str_of(name)))
            return &d[i];
    cr_assert(false, "no drift of %s", name);
    return NULL;
}
