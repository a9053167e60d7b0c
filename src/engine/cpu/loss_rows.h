// SPDX-License-Identifier: Apache-2.0
// The losses on rows, for one REAL: included by loss.c once with float, once with double. N(name) is name_f32 or name_f64.

/* One row of `classes` scores, label y among them, weight a for −log p[y] and b·w[c] for each −log p[c] (label smoothing).
 * Gives the loss; if d is there, its gradient times `times` in d, which may be x itself. */
static REAL N(class_row)(REAL *d, const REAL *x, int64_t classes, int64_t y, REAL a, REAL b, const REAL *w,
                         REAL w_sum, REAL times)
{
    REAL max = N(rows_max)(x, classes), at = x[y], all = a + b * w_sum;
    REAL spread = b == 0 ? 0 : w ? N(rows_dot)(x, w, classes) : N(rows_sum)(x, classes);
    REAL sum = d ? N(rows_exp_sum)(d, x, classes, max) : N(rows_sum_exp)(x, classes, max);
    REAL loss = (max + (REAL)log((double)sum)) * all - a * at - b * spread;
    if (!d)
        return loss;
    REAL f = times * all / sum, even = times * b;
    if (b == 0)
        for (int64_t c = 0; c < classes; c++)
            d[c] *= f;
    else
        for (int64_t c = 0; c < classes; c++)
            d[c] = d[c] * f - even * (w ? w[c] : 1);
    d[y] -= times * a;
    return loss;
}

static void N(softmax_xent)(const struct step *s, struct rank *r)
{
    const struct class_loss *k = s->state;
    const struct tensor *x = s->in[k->at], *labels = s->in[k->at + 1], *cw = optional(s, k->at + 2),
                        *sw = optional(s, k->at + 3);
    struct tensor *dx = k->at ? s->out[0] : NULL,
                  *loss = k->at ? (s->n_out > 1 ? s->out[1] : NULL) : s->out[0];
    REAL *buf = r->scratch, *w = cw ? buf + k->classes : NULL;
    double total = 0, norm = 0, dy = k->at ? rows_one(s->in[0], 0) : 0;
    REAL w_sum = (REAL)k->classes;
    if (w) {
        N(rows_copy)(w, cw, k->classes);
        w_sum = N(rows_sum)(w, k->classes);
    }
    const int64_t back = (r->row - r->first) * k->labels_per_row;
    for (int64_t i = 0; i < k->rank_rows; i++) {
        int64_t y = class_label(k, r, labels, i - back);
        norm += y < 0 ? 0
                      : (sw ? rows_one(sw, i / k->per_row - back / k->per_row) : 1) * (w ? (double)w[y] : 1);
    }
    team_sum(r, &norm, 1);
    double mean = norm == 0 ? 0 : 1 / norm;
    for (int64_t i = 0; i < k->rows; i++) {
        int64_t y = class_label(k, r, labels, i), at = i * k->classes;
        REAL *d = dx ? N(rows_at)(dx, at, buf) : NULL;
        if (y < 0) {
            if (dx) {
                memset(d, 0, (size_t)k->classes * sizeof *d);
                N(rows_put)(dx, at, k->classes, d);
            }
            continue;
        }
        const REAL *v = N(rows_get)(x, at, k->classes, buf);
        double share = mean * (sw ? rows_one(sw, i / k->per_row) : 1);
        REAL a = (REAL)(1 - k->smoothing) * (w ? w[y] : 1), b = (REAL)(k->smoothing / (double)k->classes);
        total += share * (double)N(class_row)(d, v, k->classes, y, a, b, w, w_sum, (REAL)(share * dy));
        if (dx)
            N(rows_put)(dx, at, k->classes, d);
    }
    scalar_put(loss, total);
}

/* ---- element by element ---- */

static inline REAL N(point_loss)(enum point_kind kind, REAL x, REAL t, REAL w, REAL delta, REAL *slope)
{
    REAL e = x - t, size = e < 0 ? -e : e;
    switch (kind) {
    case POINT_SIGMOID: {
        /* −t w log σ(x) − (1 − t) log σ(−x), from q = exp(−|x|): no overflow. */
        REAL ax = x < 0 ? -x : x, q = N(rows_exp)(-ax), l = N(rows_log1p)(q), up = x > 0 ? x : 0,
             down = x < 0 ? -x : 0;
        REAL inv = 1 / (1 + q), p = x < 0 ? q * inv : inv, not_p = x < 0 ? inv : q * inv;
        *slope = (1 - t) * p - t * w * not_p;
        return t * w * (l + down) + (1 - t) * (l + up);
    }
    case POINT_SQUARED:
        *slope = 2 * e * w;
        return e * e * w;
    case POINT_ABSOLUTE:
        *slope = e > 0 ? w : e < 0 ? -w : 0;
        return size * w;
    default:
        *slope = w * (size <= delta ? e : e < 0 ? -delta : delta);
        return w * (size <= delta ? e * e / 2 : delta * (size - delta / 2));
    }
}

/* n ≤ POINTS elements: their losses' sum; their slopes times `times` in d. ws: a weight for each, or NULL: w for all. */
static inline REAL N(points)(enum point_kind kind, int64_t n, const REAL *x, const REAL *t, const REAL *ws,
                             REAL w, REAL delta, REAL low, REAL keep, REAL times, REAL *d)
{
    REAL loss[POINTS];
    if (ws) {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            REAL slope, target = t[i] * keep + low;
            loss[i] = N(point_loss)(kind, x[i], target, ws[i], delta, &slope);
            d[i] = slope * times;
        }
    } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < n; i++) {
            REAL slope, target = t[i] * keep + low;
            loss[i] = N(point_loss)(kind, x[i], target, w, delta, &slope);
            d[i] = slope * times;
        }
    }
    return N(rows_sum)(loss, n);
}

static REAL N(points_of)(const struct point_loss *k, int64_t n, const REAL *x, const REAL *t, const REAL *ws,
                         REAL w, REAL times, REAL *d)
{
    REAL delta = (REAL)k->delta, low = (REAL)(k->smoothing / 2), keep = (REAL)(1 - k->smoothing);
    switch (k->kind) {
    case POINT_SIGMOID:
        return N(points)(POINT_SIGMOID, n, x, t, ws, w, delta, low, keep, times, d);
    case POINT_SQUARED:
        return N(points)(POINT_SQUARED, n, x, t, ws, w, delta, 0, 1, times, d);
    case POINT_ABSOLUTE:
        return N(points)(POINT_ABSOLUTE, n, x, t, ws, w, delta, 0, 1, times, d);
    default:
        return N(points)(POINT_HUBER, n, x, t, ws, w, delta, 0, 1, times, d);
    }
}

static void N(pointwise)(const struct step *s, struct rank *r)
{
    const struct point_loss *k = s->state;
    const struct tensor *x = s->in[k->at], *t = s->in[k->at + 1], *cw = optional(s, k->at + 2),
                        *sw = optional(s, k->at + 3);
    struct tensor *dx = k->at ? s->out[0] : NULL,
                  *loss = k->at ? (s->n_out > 1 ? s->out[1] : NULL) : s->out[0];
    REAL *w = r->scratch, xs[POINTS], ts[POINTS], ds[POINTS];
    bool many = cw && cw->n > 1;
    REAL w1 = cw && !many ? (REAL)rows_one(cw, 0) : 1;
    if (many)
        N(rows_copy)(w, cw, cw->n);
    double norm = (double)(k->all ? k->all : x->n), total = 0, dy = k->at ? rows_one(s->in[0], 0) : 0;
    if (sw) {
        const int64_t back = (r->row - r->first) * k->labels_per_row / k->per_row;
        norm = 0;
        for (int64_t i = 0; i < k->rank_rows; i++)
            norm += rows_one(sw, i - back);
        norm *= (double)k->per_row;
    }
    if (sw || !k->all)
        team_sum(r, &norm, 1);
    double mean = norm == 0 ? 0 : 1 / norm;
    /* A run is what one weight of a sample, and the columns' weights in their order, are good for. */
    int64_t run = many ? k->columns : sw ? k->per_row : x->n;
    for (int64_t from = 0; from < x->n; from += run) {
        double share = mean * (sw ? rows_one(sw, from / k->per_row) : 1);
        for (int64_t i = 0; i < run; i += POINTS) {
            int64_t at = from + i, n = run - i < POINTS ? run - i : POINTS;
            const REAL *target = N(rows_get)(t, at, n, ts);
            REAL *d = dx ? N(rows_at)(dx, at, ds) : ds;
            for (int64_t e = 0; k->kind == POINT_SIGMOID && e < n; e++)
                if (!(target[e] >= 0 && target[e] <= 1)) {
                    bad_label(r, k->labels_per_row, at + e);
                    break;
                }
            total += share * (double)N(points_of)(k, n, N(rows_get)(x, at, n, xs), target,
                                                  many ? w + i : NULL, w1, (REAL)(share * dy), d);
            if (dx)
                N(rows_put)(dx, at, n, d);
        }
    }
    scalar_put(loss, total);
}
