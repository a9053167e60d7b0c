// SPDX-License-Identifier: Apache-2.0
// Norms, for one REAL: included by sequence_simd.c once with float, once with double.

/* A tensor's numbers as REAL: where they stand, or in buf; NULL if it is not there. */
static const REAL *N(all_of)(const struct tensor *t, REAL *buf)
{
    return t ? N(rows_get)(t, 0, t->n, buf) : NULL;
}

/* Mean and 1 / deviation of n numbers; without centre the mean is 0. */
static void N(moments)(const REAL *x, int64_t n, bool centre, double epsilon, REAL *mean, REAL *inverse)
{
    REAL lane[LANES] = { 0 }, m = centre ? N(rows_sum)(x, n) / (REAL)n : 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lane[k] += (x[i + k] - m) * (x[i + k] - m);
    for (int k = 0; i < n; i++, k++)
        lane[k] += (x[i] - m) * (x[i] - m);
    *mean = m;
    *inverse = (REAL)(1 / sqrt((double)(N(rows_sum)(lane, LANES) / (REAL)n) + epsilon));
}

static void N(layer_norm)(const struct step *s, struct rank *r)
{
    const struct norm *k = s->state;
    const struct tensor *x = s->in[0];
    int64_t n = k->n;
    REAL *xs = r->scratch, *ys = xs + n, mean, inverse;
    const REAL *scale = N(all_of)(s->in[1], ys + n),
               *bias = N(all_of)(s->n_in > 2 ? s->in[2] : NULL, ys + 2 * n);
    for (int64_t i = 0; i < k->rows; i++) {
        const REAL *v = N(rows_get)(x, i * n, n, xs);
        REAL *y = N(rows_at)(s->out[0], i * n, ys);
        N(moments)(v, n, k->centre, k->epsilon, &mean, &inverse);
        if (bias) {
#pragma GCC ivdep
            for (int64_t c = 0; c < n; c++)
                y[c] = (v[c] - mean) * inverse * scale[c] + bias[c];
        } else {
#pragma GCC ivdep
            for (int64_t c = 0; c < n; c++)
                y[c] = (v[c] - mean) * inverse * scale[c];
        }
        N(rows_put)(s->out[0], i * n, n, y);
        if (s->n_out > 1 && s->out[1])
            N(rows_put)(s->out[1], i, 1, &mean);
        if (s->n_out > 2 && s->out[2])
            N(rows_put)(s->out[2], i, 1, &inverse);
    }
}

/* dx = inverse (g − mean(g) − x̂ mean(g x̂)), g = dy scale; without centre no mean(g). Sums for scale and bias are made of
 * NORM_BLOCK rows at a time, so that long batches lose no digits. */
static void N(layer_norm_grad)(const struct step *s, struct rank *r)
{
    const struct norm *k = s->state;
    const struct tensor *dy = s->in[0], *x = s->in[1];
    int64_t n = k->n;
    REAL *xs = r->scratch, *gs = xs + n, *ds = gs + n, *sums = ds + n, *part = sums + 2 * n, mean, inverse;
    const REAL *scale = N(all_of)(s->in[2], part + 2 * n);
    memset(sums, 0, 4 * (size_t)n * sizeof *sums);
    for (int64_t i = 0; i < k->rows; i++) {
        const REAL *v = N(rows_get)(x, i * n, n, xs), *g = N(rows_get)(dy, i * n, n, gs);
        REAL *d = N(rows_at)(s->out[0], i * n, ds), sum[LANES] = { 0 }, dot[LANES] = { 0 };
        int64_t c = 0;
        N(moments)(v, n, k->centre, k->epsilon, &mean, &inverse);
        for (; c + LANES <= n; c += LANES)
            for (int l = 0; l < LANES; l++) {
                REAL xh = (v[c + l] - mean) * inverse, gw = g[c + l] * scale[c + l];
                sum[l] += gw;
                dot[l] += gw * xh;
                part[c + l] += g[c + l] * xh;
                part[n + c + l] += g[c + l];
            }
        for (int l = 0; c < n; c++, l++) {
            REAL xh = (v[c] - mean) * inverse, gw = g[c] * scale[c];
            sum[l] += gw;
            dot[l] += gw * xh;
            part[c] += g[c] * xh;
            part[n + c] += g[c];
        }
        REAL m1 = k->centre ? N(rows_sum)(sum, LANES) / (REAL)n : 0,
             m2 = N(rows_sum)(dot, LANES) / (REAL)n * inverse;
#pragma GCC ivdep
        for (c = 0; c < n; c++)
            d[c] = inverse * (g[c] * scale[c] - m1 - (v[c] - mean) * m2);
        N(rows_put)(s->out[0], i * n, n, d);
        if ((i + 1) % NORM_BLOCK == 0 || i + 1 == k->rows)
            for (c = 0; c < 2 * n; c++) {
                sums[c] += part[c];
                part[c] = 0;
            }
    }
    for (int o = 1; o < s->n_out; o++)
        if (s->out[o])
            N(rows_put)(s->out[o], 0, n, sums + (o - 1) * n);
}

/* Rows are groups of one sample: `channels` of `inner` numbers each. Rows of BF16 and F16 are widened in scratch. */
static void N(group_norm)(const struct step *s, struct rank *r)
{
    const struct norm *k = s->state;
    int64_t n = k->n;
    REAL *xs = r->scratch, *ys = xs + n, mean, inverse;
    const REAL *scale = N(all_of)(s->in[1], ys + n),
               *bias = N(all_of)(s->in[2], ys + n + k->channels * k->groups);
    for (int64_t i = 0; i < k->rows; i++) {
        const REAL *v = N(rows_get)(s->in[0], i * n, n, xs);
        REAL *y = N(rows_at)(s->out[0], i * n, ys);
        int64_t first = i % k->groups * k->channels;
        N(moments)(v, n, true, k->epsilon, &mean, &inverse);
        for (int64_t c = 0; c < k->channels; c++) {
            REAL f = inverse * scale[first + c], b = bias[first + c] - mean * f;
#pragma GCC ivdep
            for (int64_t e = c * k->inner; e < (c + 1) * k->inner; e++)
                y[e] = v[e] * f + b;
        }
        N(rows_put)(s->out[0], i * n, n, y);
    }
}

static void N(group_norm_grad)(const struct step *s, struct rank *r)
{
    const struct norm *k = s->state;
    int64_t n = k->n, all = k->channels * k->groups;
    REAL *xs = r->scratch, *gs = xs + n, *ds = gs + n, *sums = ds + n, mean, inverse;
    const REAL *scale = N(all_of)(s->in[2], sums + 2 * all);
    memset(sums, 0, 2 * (size_t)all * sizeof *sums);
    for (int64_t i = 0; i < k->rows; i++) {
        const REAL *v = N(rows_get)(s->in[1], i * n, n, xs), *g = N(rows_get)(s->in[0], i * n, n, gs);
        REAL *d = N(rows_at)(s->out[0], i * n, ds), m1 = 0, m2 = 0;
        int64_t first = i % k->groups * k->channels;
        N(moments)(v, n, true, k->epsilon, &mean, &inverse);
        for (int64_t c = 0; c < k->channels; c++) {
            REAL sum = N(rows_sum)(g + c * k->inner, k->inner),
                 dot = N(rows_dot)(g + c * k->inner, v + c * k->inner, k->inner);
            REAL hat = (dot - mean * sum) * inverse;
            sums[first + c] += hat;
            sums[all + first + c] += sum;
            m1 += scale[first + c] * sum;
            m2 += scale[first + c] * hat;
        }
        m1 /= (REAL)n;
        m2 = m2 / (REAL)n * inverse;
        for (int64_t c = 0; c < k->channels; c++) {
            REAL f = scale[first + c];
#pragma GCC ivdep
            for (int64_t e = c * k->inner; e < (c + 1) * k->inner; e++)
                d[e] = inverse * (g[e] * f - m1 - (v[e] - mean) * m2);
        }
        N(rows_put)(s->out[0], i * n, n, d);
    }
    for (int o = 1; o < s->n_out; o++)
        if (s->out[o])
            N(rows_put)(s->out[o], 0, all, sums + (o - 1) * all);
}
