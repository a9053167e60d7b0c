// SPDX-License-Identifier: Apache-2.0
#include "engine/baseline.h"

#include <math.h>

void sketch_init(struct sketch *s, const struct baseline_column *ref)
{
    *s = (struct sketch){ .ref = ref, .min = INFINITY, .max = -INFINITY };
}

/* The last edge ≤ v; the first one if there is none. */
static inline size_t edge_of(const float *edges, size_t n, float v)
{
    const float *base = edges;
    while (n > 1) {
        size_t half = n / 2;
        base += base[half] <= v ? half : 0;
        n -= half;
    }
    return (size_t)(base - edges);
}

static void place_add(struct sketch *s, float v)
{
    const struct baseline_column *ref = s->ref;
    size_t n = ref->edges_n;
    if (n == 0)
        return;
    if (v < ref->edges[0]) {
        s->below++;
        s->below_sum += (double)ref->edges[0] - v;
    } else if (v > ref->edges[n - 1]) {
        s->above++;
        s->above_sum += (double)v - ref->edges[n - 1];
    } else {
        size_t edge = edge_of(ref->edges, n, v);
        s->cells[2 * edge + (v != ref->edges[edge])]++;
    }
}

void sketch_add(struct sketch *s, float v)
{
    if (!isfinite(v)) {
        s->nulls++;
        return;
    }
    double d = s->ref->n ? v - s->ref->mean : v;
    s->n++;
    s->sum += d;
    s->sum_squares += d * d;
    s->min = v < s->min ? v : s->min;
    s->max = v > s->max ? v : s->max;
    place_add(s, v);
}

void sketch_merge(struct sketch *into, const struct sketch *from)
{
    into->n += from->n;
    into->nulls += from->nulls;
    into->sum += from->sum;
    into->sum_squares += from->sum_squares;
    into->min = from->min < into->min ? from->min : into->min;
    into->max = from->max > into->max ? from->max : into->max;
    into->below += from->below;
    into->above += from->above;
    into->below_sum += from->below_sum;
    into->above_sum += from->above_sum;
    for (size_t i = 0; i < BASELINE_CELLS_MAX; i++)
        into->cells[i] += from->cells[i];
}

double sketch_mean(const struct sketch *s)
{
    return s->n ? (s->ref->n ? s->ref->mean : 0) + s->sum / (double)s->n : NAN;
}

double sketch_std(const struct sketch *s)
{
    if (s->n == 0)
        return NAN;
    double n = (double)s->n, squares = s->sum_squares - s->sum * s->sum / n;
    return s->n > 1 && squares > 0 ? sqrt(squares / (n - 1)) : 0;
}

/* ∫ |d| over a stretch where d goes in a line from a to b. */
static double area(double a, double b, double width)
{
    if ((a < 0) == (b < 0))
        return (fabs(a) + fabs(b)) / 2 * width;
    double sum = fabs(a) + fabs(b);
    return sum > 0 ? (a * a + b * b) / (2 * sum) * width : 0;
}

double sketch_wasserstein(const struct sketch *s)
{
    const struct baseline_column *ref = s->ref;
    if (s->n == 0 || ref->n == 0)
        return NAN;
    double now = 1 / (double)s->n, then = 1 / (double)ref->n;
    double sum = (s->below_sum + s->above_sum) * now;
    int64_t count = s->below, count_ref = 0; /* up to here */
    for (size_t i = 0; i + 1 < ref->edges_n; i++) {
        count += s->cells[2 * i];
        count_ref += ref->cells[2 * i];
        double left = (double)count * now - (double)count_ref * then;
        count += s->cells[2 * i + 1];
        count_ref += ref->cells[2 * i + 1];
        double right = (double)count * now - (double)count_ref * then;
        sum += area(left, right, (double)ref->edges[i + 1] - ref->edges[i]);
    }
    double scale = ref->std > 0 ? ref->std : fmax(fabs(ref->mean), 1);
    return sum / scale;
}

/* One bin's part of the index. */
static double psi_term(int64_t now, int64_t then, double rows, double rows_ref)
{
    const double least = 0.0001;
    double c = fmax((double)now / rows, least), r = fmax((double)then / rows_ref, least);
    return (c - r) * log(c / r);
}

double sketch_psi(const struct sketch *s)
{
    const struct baseline_column *ref = s->ref;
    double rows = (double)(s->n + s->nulls), rows_ref = (double)(ref->n + ref->nulls), sum = 0;
    if (rows == 0 || rows_ref == 0)
        return NAN;
    size_t cells = ref->edges_n ? 2 * ref->edges_n - 1 : 0;
    bool constant = ref->edges_n == 1;
    int64_t now = constant ? 0 : s->below, then = 0, left = ref->n;
    for (size_t i = 0; i < cells; i++) {
        now += s->cells[i];
        then += ref->cells[i];
        if (left == then) { /* the last bin: all that is left */
            for (i++; i < cells; i++)
                now += s->cells[i];
            now += constant ? 0 : s->above;
        } else if (then * 10 < ref->n)
            continue;
        sum += psi_term(now, then, rows, rows_ref);
        left -= then;
        now = then = 0;
    }
    if (constant)
        sum += psi_term(s->below, 0, rows, rows_ref) + psi_term(s->above, 0, rows, rows_ref);
    if (cells == 0)
        sum += psi_term(s->n, 0, rows, rows_ref);
    if (s->nulls > 0 || ref->nulls > 0)
        sum += psi_term(s->nulls, ref->nulls, rows, rows_ref);
    return sum;
}
