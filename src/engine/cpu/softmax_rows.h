// SPDX-License-Identifier: Apache-2.0
// Softmax along an axis, for one REAL: included by sequence_simd.c once with float, once with double.

static void N(softmax_row)(REAL *y, const REAL *x, int64_t n, bool logs)
{
    REAL max = N(rows_max)(x, n);
    if (logs) {
        REAL lse = max + (REAL)log((double)N(rows_sum_exp)(x, n, max));
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] - lse;
        return;
    }
    REAL f = 1 / N(rows_exp_sum)(y, x, n, max);
    for (int64_t i = 0; i < n; i++)
        y[i] *= f;
}

static void N(softmax_grad_row)(REAL *dx, const REAL *dy, const REAL *y, int64_t n, bool logs)
{
    if (logs) {
        REAL sum = N(rows_sum)(dy, n);
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++)
            dx[i] = dy[i] - N(rows_exp)(y[i]) * sum;
        return;
    }
    REAL dot = N(rows_dot)(dy, y, n);
#pragma GCC ivdep
    for (int64_t i = 0; i < n; i++)
        dx[i] = y[i] * (dy[i] - dot);
}

/* One column of [n, inner] from element `at`, as a row: where it stands, or in buf. */
static const REAL *N(column_get)(const struct axis *k, const struct tensor *t, int64_t at, REAL *buf)
{
    if (k->inner == 1)
        return N(rows_get)(t, at, k->n, buf);
    for (int64_t i = 0; i < k->n; i++) {
        REAL one;
        buf[i] = *N(rows_get)(t, at + i * k->inner, 1, &one);
    }
    return buf;
}
static void N(column_put)(const struct axis *k, const struct tensor *t, int64_t at, const REAL *v)
{
    if (k->inner == 1)
        N(rows_put)(t, at, k->n, v);
    for (int64_t i = 0; i < k->n && k->inner != 1; i++)
        N(rows_put)(t, at + i * k->inner, 1, &v[i]);
}

static void N(softmax)(const struct step *s, struct rank *r)
{
    const struct axis *k = s->state;
    REAL *x = r->scratch, *y = x + k->n;
    for (int64_t o = 0; o < k->outer; o++)
        for (int64_t i = 0; i < k->inner; i++) {
            int64_t at = o * k->n * k->inner + i;
            REAL *to = k->inner == 1 ? N(rows_at)(s->out[0], at, y) : y;
            N(softmax_row)(to, N(column_get)(k, s->in[0], at, x), k->n, k->logs);
            N(column_put)(k, s->out[0], at, to);
        }
}

static void N(softmax_grad)(const struct step *s, struct rank *r)
{
    const struct axis *k = s->state;
    REAL *dy = r->scratch, *y = dy + k->n, *dx = y + k->n;
    for (int64_t o = 0; o < k->outer; o++)
        for (int64_t i = 0; i < k->inner; i++) {
            int64_t at = o * k->n * k->inner + i;
            REAL *to = k->inner == 1 ? N(rows_at)(s->out[0], at, dx) : dx;
            N(softmax_grad_row)
            (to, N(column_get)(k, s->in[0], at, dy), N(column_get)(k, s->in[1], at, y), k->n, k->logs);
            N(column_put)(k, s->out[0], at, to);
        }
}
