// SPDX-License-Identifier: Apache-2.0
/* Sequential tests by the normal mixture: the formulas are in the header. */
#include "engine/sequential.h"
#include <math.h>

static const double z_power = 0.84162123357291442; /* the 0.8 quantile of the normal distribution */

void moments_add(struct moments *m, double x)
{
    double d = x - m->mean;
    m->n++;
    m->mean += d / (double)m->n;
    m->m2 += d * (x - m->mean);
}

double moments_variance(const struct moments *m, bool proportion)
{
    if (m->n < 2)
        return NAN;
    double n = (double)m->n, p = (m->mean * n + 1) / (n + 2);
    return proportion ? p * (1 - p) : m->m2 / (n - 1);
}

static double half_width(const struct sequential *t, double v)
{
    double u = v + t->scale * t->scale;
    return sqrt(v * u * (log(u / v) - 2 * log(t->alpha))) / t->scale;
}

static struct interval around(const struct sequential *t, double middle, double v)
{
    if (!(v > 0))
        return (struct interval){ -INFINITY, INFINITY };
    double r = half_width(t, v);
    return (struct interval){ middle - r, middle + r };
}

struct interval sequential_mean(const struct sequential *t, const struct moments *m)
{
    double v = m->n < SEQUENTIAL_MIN ? 0 : moments_variance(m, t->proportion) / (double)m->n;
    return around(t, m->mean, v);
}

struct interval sequential_difference(const struct sequential *t, const struct moments *a,
                                      const struct moments *b, double *p)
{
    double d = b->mean - a->mean, v = 0, u;
    if (a->n >= SEQUENTIAL_MIN && b->n >= SEQUENTIAL_MIN)
        v = moments_variance(a, t->proportion) / (double)a->n +
            moments_variance(b, t->proportion) / (double)b->n;
    u = v + t->scale * t->scale;
    if (p)
        *p = v > 0 ? fmin(1, sqrt(u / v) * exp(-t->scale * t->scale * d * d / (2 * v * u))) : 1;
    return around(t, d, v);
}

int64_t sequential_needed(const struct sequential *t, double variance_a, double variance_b, double share_b,
                          double effect)
{
    double one = variance_a / (1 - share_b) + variance_b / share_b; /* variance of the difference, times n */
    double low = 0, high = 60;                                      /* of log2 n: the width falls with n */
    if (!(one > 0) || !isfinite(one) || !(effect > 0))
        return INT64_MAX;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2, v = one / exp2(middle);
        *(half_width(t, v) + z_power * sqrt(v) <= effect ? &high : &low) = middle;
    }
    return high > 59 ? INT64_MAX : (int64_t)ceil(exp2(high));
}
