// SPDX-License-Identifier: Apache-2.0
#include "engine/metrics.h"

#include <math.h>

/* ---- sorting ---- */

/* Bits that sort as the numbers do: negatives turned over, positives above them, every NaN last. */
static uint32_t key_of(float v)
{
    uint32_t bits;
    if (isnan(v))
        return UINT32_MAX;
    memcpy(&bits, &v, 4);
    return bits ^ (bits >> 31 ? UINT32_MAX : (uint32_t)1 << 31);
}

static float of_key(uint32_t key)
{
    float v;
    if (key == UINT32_MAX)
        return NAN;
    uint32_t bits = key ^ (key >> 31 ? (uint32_t)1 << 31 : UINT32_MAX);
    memcpy(&v, &bits, 4);
    return v;
}

enum { DIGIT = 11, DIGITS = 1 << DIGIT };

/* One pass of the radix sort by the digit at shift; false if all values share it. */
static bool radix_pass(const uint64_t *from, uint64_t *to, size_t n, int shift)
{
    size_t start[DIGITS] = { 0 };
    for (size_t i = 0; i < n; i++)
        start[from[i] >> shift & (DIGITS - 1)]++;
    if (start[from[0] >> shift & (DIGITS - 1)] == n)
        return false;
    size_t at = 0;
    for (size_t d = 0; d < DIGITS; d++) {
        size_t count = start[d];
        start[d] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++)
        to[start[from[i] >> shift & (DIGITS - 1)]++] = from[i];
    return true;
}

void sort_floats(struct arena *a, float *keys, uint32_t *tags, size_t n)
{
    if (n < 2)
        return;
    uint64_t *v = NEW_N(a, uint64_t, n), *other = NEW_N(a, uint64_t, n);
    for (size_t i = 0; i < n; i++)
        v[i] = (uint64_t)key_of(keys[i]) << 32 | (tags ? tags[i] : 0);
    for (int shift = 32; shift < 64; shift += DIGIT)
        if (radix_pass(v, other, n, shift)) {
            uint64_t *swap = v;
            v = other;
            other = swap;
        }
    for (size_t i = 0; i < n; i++) {
        keys[i] = of_key((uint32_t)(v[i] >> 32));
        if (tags)
            tags[i] = (uint32_t)v[i];
    }
}

/* sign × scores ascending, with the label (0 or 1) of each. */
struct ranked {
    float *p;
    uint32_t *y;
    size_t n;
    double positives;
};

static struct ranked rank(struct arena *a, float sign, const float *p, const float *y, size_t n)
{
    struct ranked r = { NEW_N(a, float, n + 1), NEW_N(a, uint32_t, n + 1), n, 0 };
    for (size_t i = 0; i < n; i++) {
        r.p[i] = sign * p[i];
        r.y[i] = y[i] > 0.5f;
        r.positives += r.y[i];
    }
    sort_floats(a, r.p, r.y, n);
    return r;
}

/* First place behind i whose score differs. */
static size_t tie_end(const struct ranked *r, size_t i)
{
    size_t end = i + 1;
    while (end < r->n && r->p[end] == r->p[i])
        end++;
    return end;
}

/* ---- metrics ---- */

double metric_auc(struct arena *a, const float *p, const float *y, size_t n)
{
    struct ranked r = rank(a, 1, p, y, n);
    double negatives = (double)n - r.positives, sum = 0;
    if (r.positives == 0 || negatives == 0 || isnan(r.p[n - 1]))
        return NAN;
    for (size_t i = 0, end; i < n; i = end) {
        end = tie_end(&r, i);
        double mean_rank = (double)(i + 1 + end) / 2, hits = 0;
        for (size_t k = i; k < end; k++)
            hits += r.y[k];
        sum += hits * mean_rank;
    }
    return (sum - r.positives * (r.positives + 1) / 2) / (r.positives * negatives);
}

enum { FACTORS = 32 };

/* Neither 0 nor 1, so that its logarithm is a number; NaN stays. */
static inline double inside(double p)
{
    const double least = 1e-7, most = 1 - 1e-7;
    p = least > p ? least : p;
    return most < p ? most : p;
}

/* The chances that were given to n labels, 0 or 1, multiplied; without a branch on the label, which nothing foretells. */
static double chances(const float *p, const float *y, size_t n)
{
    double product = 1;
    for (size_t i = 0; i < n; i++) {
        double yes = y[i];
        product *= (1 - yes) + (2 * yes - 1) * inside(p[i]);
    }
    return product;
}

/* The logarithm of a product is the sum of its factors': of so many factors of 1e-7 and more there is no underflow. */
double metric_log_loss(struct arena *a, const float *p, const float *y, size_t n)
{
    (void)a;
    double sum = 0;
    for (size_t from = 0, now; from < n; from += now) {
        now = n - from < FACTORS ? n - from : FACTORS;
        bool hard = true;
        for (size_t i = from; i < from + now; i++)
            hard &= (y[i] == 0) | (y[i] == 1);
        if (hard) {
            sum -= log(chances(p + from, y + from, now));
            continue;
        }
        for (size_t i = from; i < from + now; i++) {
            double q = inside(p[i]);
            sum -= y[i] * log(q) + (1 - y[i]) * log1p(-q);
        }
    }
    return n ? sum / (double)n : NAN;
}

double metric_calibration_error(struct arena *a, const float *p, const float *y, size_t n)
{
    (void)a;
    double scores[10] = { 0 }, labels[10] = { 0 }, error = 0;
    for (size_t i = 0; i < n; i++) {
        if (isnan(p[i]))
            return NAN;
        double place = ceil((double)p[i] * 10) - 1;
        int b = place < 0 ? 0 : place > 9 ? 9 : (int)place;
        scores[b] += p[i];
        labels[b] += y[i];
    }
    for (int b = 0; b < 10; b++)
        error += fabs(scores[b] - labels[b]);
    return n ? error / (double)n : NAN;
}

double metric_rmse(struct arena *a, const float *p, const float *y, size_t n)
{
    (void)a;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((double)p[i] - y[i]) * ((double)p[i] - y[i]);
    return n ? sqrt(sum / (double)n) : NAN;
}

double metric_accuracy(struct arena *a, const float *p, const float *y, size_t n)
{
    (void)a;
    size_t right = 0;
    for (size_t i = 0; i < n; i++)
        right += (p[i] >= 0.5f) == (y[i] >= 0.5f);
    return n ? (double)right / (double)n : NAN;
}

double metric_average_precision(struct arena *a, const float *p, const float *y, size_t n)
{
    struct ranked r = rank(a, -1, p, y, n); /* descending */
    if (r.positives == 0 || isnan(r.p[n - 1]))
        return NAN;
    double hits = 0, sum = 0;
    for (size_t i = 0, end; i < n; i = end) {
        double before = hits;
        end = tie_end(&r, i);
        for (size_t k = i; k < end; k++)
            hits += r.y[k];
        sum += (hits - before) / r.positives * (hits / (double)end);
    }
    return sum;
}

const struct metric_info metric_table[] = {
    { S_INIT("auc"), metric_auc, "Chance that a positive scores above a negative." },
    { S_INIT("logLoss"), metric_log_loss, "Mean negative log-likelihood of the labels." },
    { S_INIT("calibrationError"), metric_calibration_error, "Expected calibration error, ten equal bins." },
    { S_INIT("rmse"), metric_rmse, "Root of the mean squared error." },
    { S_INIT("accuracy"), metric_accuracy, "Share of rows on the right side of one half." },
    { S_INIT("averagePrecision"), metric_average_precision, "Area under the precision-recall steps." },
};
const size_t metric_table_n = sizeof metric_table / sizeof *metric_table;

const struct metric_info *metric_find(struct str name)
{
    for (size_t i = 0; i < metric_table_n; i++)
        if (str_eq(metric_table[i].name, name))
            return &metric_table[i];
    return NULL;
}
