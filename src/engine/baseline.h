/* baseline: what each feature and the score looked like in training; sketch: what they look like now.
 * Flow     train --baseline_make--> baseline.json --baseline_read--> monitor --sketch_init, sketch_add per request-->
 *          sketch_wasserstein, sketch_psi at the end of a window.
 * Values   are the floats that the model was given; NaN is a null and counted apart.
 * Edges    the distinct values among the percentiles 0, 0.1, 0.5, 1, 2, … 99, 99.5, 99.9, 100 (percentile p of
 *          n sorted values: the ⌈p·n/100⌉-th, the first for 0): the first and the last are the least and the
 *          greatest. Cell 2i holds the values equal to edge i, cell 2i + 1 those between edges i and i + 1.
 *          Counts are exact, so features with few values (hours, flags, many zeros) lose nothing.
 * Threads  a baseline may be read by any; a sketch is filled by one thread and merged by another when it stopped. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

enum {
    BASELINE_EDGES_MAX = 105,
    BASELINE_CELLS_MAX = 2 * BASELINE_EDGES_MAX - 1,
    BASELINE_DECILES = 11,
    BASELINE_COLUMNS_MAX = 10000
};

struct baseline_column {
    struct str name;
    int64_t n, nulls;                  /* rows with a value, rows without */
    double mean, std, min, max;        /* of the values; std with n − 1; NaN without values */
    float deciles[BASELINE_DECILES];   /* percentiles 0, 10, … 100 */
    size_t edges_n;                    /* 0 without values, 1 if all are the same */
    float edges[BASELINE_EDGES_MAX];   /* strictly ascending; first is min, last is max */
    int64_t cells[BASELINE_CELLS_MAX]; /* 2 edges_n − 1 counts */
};
struct baseline {
    int64_t rows;
    struct baseline_column *features;
    size_t n;
    struct baseline_column score; /* of the model on the same rows */
};
/* Statistics of n values, `stride` floats apart; sorts a copy in a. name is borrowed. */
void baseline_column_make(struct arena *a, struct str name, const float *v, size_t n, size_t stride,
                          struct baseline_column *out);
/* The JSON object {"format":"dhow-baseline 1","rows":…,"features":[…],"score":{…}}. */
struct str baseline_write(struct arena *a, const struct baseline *);
/* INVALID unless it is one, with ascending edges and counts that sum to n. */
err baseline_read(struct arena *a, struct str json, struct baseline *out);

/* A histogram over a baseline column's edges, with what fell below and above, and moments. */
struct sketch {
    const struct baseline_column *ref; /* must outlive it */
    int64_t n, nulls;                  /* values, NaNs */
    double sum, sum_squares;           /* of value − ref->mean */
    float min, max;                    /* of the values; +inf and −inf without any */
    int64_t below, above;              /* values under the first edge, over the last */
    double below_sum, above_sum;       /* how far: Σ (first − x), Σ (x − last) */
    int64_t cells[BASELINE_CELLS_MAX];
};
void sketch_init(struct sketch *, const struct baseline_column *ref);
/* One value, about 10 ns; NaN counts as null, infinities as null too. */
void sketch_add(struct sketch *, float v);
void sketch_merge(struct sketch *into, const struct sketch *from); /* of the same ref */
double sketch_mean(const struct sketch *);                         /* NaN without values */
double sketch_std(const struct sketch *);

/* Wasserstein-1 distance between the two distributions, in standard deviations of the reference: the area
 * between the two distribution functions (Vallender 1974) over ref->std. Each function jumps at an edge by the
 * share of the cell on it and is taken linear between two edges; values outside the edges count by their exact
 * distance to the edge. The same data gives exactly 0, and data that lies on the edges is exact; otherwise the
 * error is at most Σ over the cells between edges of the cell's width times the sum of its two shares (measured:
 * below 2 % on normal and mixed samples; up to 5.4 % where a heavy tail such as a log-normal's is shifted, as its
 * last cells are wide).
 * A constant reference (std 0) divides by max(|mean|, 1) instead. NaN if either has no values. */
double sketch_wasserstein(const struct sketch *);
/* Population stability index Σ (c − r) ln(c/r), c and r the shares of rows now and in the reference (Siddiqi
 * 2006: below 0.1 stable, above 0.25 moved). Bins are the reference's tenths: cells in order, a bin ends once
 * it holds a tenth of the values, what is left is the last bin; so there are at most ten, and a value that alone
 * has more than a tenth keeps a bin of its own. Values outside the edges belong to the first and the last bin
 * (a constant reference has bins of its own for them); one more bin holds the nulls if either side has some.
 * A share below 0.0001 counts as 0.0001, an empty bin too. NaN if either has no rows. */
double sketch_psi(const struct sketch *);
/* A sketch's state as JSON, to keep over a restart, and back (for the same baseline column). */
struct str sketch_write(struct arena *a, const struct sketch *);
err sketch_read(struct arena *a, struct str json, const struct baseline_column *ref, struct sketch *out);
