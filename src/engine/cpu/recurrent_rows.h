// SPDX-License-Identifier: Apache-2.0
// LSTM and GRU, for one REAL: included by recurrent_simd.c once with float, once with double.
// Kept by LSTM: the gates i o f c after their functions, and the cells; by GRU: z r h and, as a fourth, R h of the new state.

static inline REAL N(sigmoid)(REAL x)
{
    return 1 / (1 + N(rows_exp)(-x));
}
static inline REAL N(tangent)(REAL x)
{
    return 2 / (1 + N(rows_exp)(-2 * x)) - 1;
}

static void N(put_rows)(const struct tensor *t, int64_t at, int64_t n, const REAL *v)
{
    if (t)
        N(rows_put)(t, at, n, v);
}

/* What a direction of a run works on. */
struct N(way) {
    int d;         /* direction */
    bool back;     /* from the last step to the first */
    const char *x; /* [steps, batch, input] */
    REAL *gates;   /* [steps, batch, 4·hidden] */
    REAL *cells;   /* LSTM: [steps, batch, hidden] */
    REAL *h, *c;   /* [batch, hidden]: now */
    char *h_half;  /* the same as h, in the type of products */
};

/* The bias that each step adds: of input and state together, but for a GRU's new state with linear_before_reset. */
static void N(bias)(const struct recurrent *k, const struct tensor *t, int d, REAL *out, REAL *apart)
{
    int64_t n = k->gates * k->hidden;
    memset(out, 0, (size_t)n * sizeof *out);
    memset(apart, 0, (size_t)k->hidden * sizeof *apart);
    for (int64_t i = 0; i < n && t; i++) {
        bool of_state = k->linear && i >= 2 * k->hidden;
        REAL r = (REAL)rows_one(t, 2 * n * d + n + i);
        out[i] = (REAL)rows_one(t, 2 * n * d + i) + (of_state ? 0 : r);
        if (of_state)
            apart[i - 2 * k->hidden] = r;
    }
}

static void N(lstm_cell)(int64_t n, REAL *restrict g, const REAL *restrict before, REAL *restrict cell,
                         REAL *restrict h)
{
    REAL *gi = g, *go = g + n, *gf = g + 2 * n, *gc = g + 3 * n;
#pragma GCC ivdep
    for (int64_t e = 0; e < n; e++) {
        REAL i = N(sigmoid)(gi[e]), o = N(sigmoid)(go[e]), f = N(sigmoid)(gf[e]), c = N(tangent)(gc[e]);
        REAL now = f * before[e] + i * c;
        gi[e] = i, go[e] = o, gf[e] = f, gc[e] = c;
        cell[e] = now;
        h[e] = o * N(tangent)(now);
    }
}
/* Peepholes p: of i, o and f. */
static void N(lstm_cell_peep)(int64_t n, REAL *g, const REAL *before, REAL *cell, REAL *h, const REAL *p)
{
    for (int64_t e = 0; e < n; e++) {
        REAL i = N(sigmoid)(g[e] + p[e] * before[e]), f = N(sigmoid)(g[2 * n + e] + p[2 * n + e] * before[e]);
        REAL c = N(tangent)(g[3 * n + e]), now = f * before[e] + i * c,
             o = N(sigmoid)(g[n + e] + p[n + e] * now);
        g[e] = i, g[n + e] = o, g[2 * n + e] = f, g[3 * n + e] = c;
        cell[e] = now;
        h[e] = o * N(tangent)(now);
    }
}

/* r: R h of the three gates. The fourth part of g keeps what the reset gate multiplies. */
static void N(gru_linear)(int64_t n, REAL *restrict g, const REAL *restrict r, const REAL *restrict apart,
                          REAL *restrict h)
{
    REAL *gz = g, *gr = g + n, *gh = g + 2 * n, *kept = g + 3 * n;
#pragma GCC ivdep
    for (int64_t e = 0; e < n; e++) {
        REAL z = N(sigmoid)(gz[e] + r[e]), reset = N(sigmoid)(gr[e] + r[n + e]),
             lin = r[2 * n + e] + apart[e];
        REAL now = N(tangent)(gh[e] + reset * lin);
        gz[e] = z, gr[e] = reset, gh[e] = now, kept[e] = lin;
        h[e] = (1 - z) * now + z * h[e];
    }
}

static int64_t N(active)(const struct recurrent *k, const struct tensor *lengths, int64_t b)
{
    int64_t n = lengths ? rows_whole(lengths, b) : k->steps;
    return n < 0 ? 0 : n > k->steps ? k->steps : n;
}

/* The first state of a direction. */
static void N(first)(const struct recurrent *k, const struct tensor *t, int d, REAL *out)
{
    for (int64_t b = 0; b < k->batch; b++) {
        if (!t) {
            memset(out + b * k->hidden, 0, (size_t)k->hidden * sizeof *out);
            continue;
        }
        const REAL *v = N(rows_get)(t, place_state(k, d, b), k->hidden, out + b * k->hidden);
        memmove(out + b * k->hidden, v, (size_t)k->hidden * sizeof *out);
    }
}

static void N(halve)(const struct recurrent *k, struct N(way) * w)
{
    if (k->halves)
        floats_to(k->type, (const float *)w->h, k->batch * k->hidden, w->h_half);
}

static void N(lstm_step)(const struct recurrent *k, struct N(way) * w, int64_t t,
                         const struct tensor *lengths, const REAL *peep, char *scratch)
{
    int64_t n = k->hidden;
    REAL *g = w->gates + t * k->batch * 4 * n, *cell = w->cells + t * k->batch * n;
    gemm_run(&k->step, w->h_half, scratch + k->at_rt, g, NULL, scratch + k->at_gemm);
    for (int64_t b = 0; b < k->batch; b++) {
        if (lengths && t >= N(active)(k, lengths, b)) {
            memcpy(cell + b * n, w->c + b * n, (size_t)n * sizeof *cell);
            continue;
        }
        if (peep)
            N(lstm_cell_peep)
        (n, g + 4 * n * b, w->c + b * n, cell + b * n, w->h + b * n, peep + 3 * n * w->d);
        else N(lstm_cell)(n, g + 4 * n * b, w->c + b * n, cell + b * n, w->h + b * n);
    }
    w->c = cell;
}

static void N(gru_step)(const struct recurrent *k, struct N(way) * w, int64_t t, const struct tensor *lengths,
                        const REAL *apart, char *scratch)
{
    int64_t n = k->hidden;
    REAL *g = w->gates + t * k->batch * 4 * n, *rh = (REAL *)(scratch + k->at_state);
    gemm_run(&k->step, w->h_half, scratch + k->at_rt, rh, NULL, scratch + k->at_gemm);
    if (!k->linear) { /* the reset gates first, then R of what they leave of h */
        REAL *left = rh + 3 * k->batch * n;
        for (int64_t b = 0; b < k->batch; b++)
            for (int64_t e = 0; e < n; e++)
                left[b * n + e] = N(sigmoid)(g[4 * n * b + n + e] + rh[3 * n * b + n + e]) * w->h[b * n + e];
        char *half = scratch + k->at_half;
        if (k->halves)
            floats_to(k->type, (const float *)left, k->batch * n, half);
        gemm_run(&k->reset, k->halves ? half : (char *)left, scratch + k->at_rt + (size_t)(2 * n) * k->size,
                 rh + 2 * n, NULL, scratch + k->at_gemm);
    }
    for (int64_t b = 0; b < k->batch; b++) {
        if (lengths && t >= N(active)(k, lengths, b))
            continue;
        REAL *h = w->h + b * n, *gb = g + 4 * n * b, *r = rh + 3 * n * b;
        if (k->linear) {
            N(gru_linear)(n, gb, r, apart, h);
            continue;
        }
        for (int64_t e = 0; e < n; e++) {
            REAL z = N(sigmoid)(gb[e] + r[e]), reset = N(sigmoid)(gb[n + e] + r[n + e]),
                 now = N(tangent)(gb[2 * n + e] + r[2 * n + e]);
            gb[e] = z, gb[n + e] = reset, gb[2 * n + e] = now, gb[3 * n + e] = 0;
            h[e] = (1 - z) * now + z * h[e];
        }
    }
}

static void N(recurrent)(const struct step *s, struct rank *r)
{
    const struct recurrent *k = s->state;
    const struct tensor *lengths = input_of(s, 4), *b = input_of(s, 3), *p = input_of(s, 7);
    struct tensor *kept = output_of(s, k->lstm ? 3 : 2), *kept_c = output_of(s, 4),
                  *last_c = k->lstm ? output_of(s, 2) : NULL;
    char *scratch = r->scratch;
    int64_t n = k->hidden, sizes = k->steps * k->batch;
    REAL *bias = (REAL *)(scratch + k->at_bias), *apart = bias + 4 * n, *peep = apart + n,
         *zero = peep + 6 * n;
    memset(zero, 0, (size_t)n * sizeof *zero);
    if (p)
        N(rows_copy)(peep, p, p->n);
    for (int d = 0; d < k->dirs; d++) {
        struct N(way) w = { .d = d, .back = k->reverse || d == 1, .x = steps_first(k, s->in[0], scratch) };
        w.gates = kept ? (REAL *)kept->p + d * sizes * 4 * n : (REAL *)(scratch + k->at_gates);
        w.cells = kept_c ? (REAL *)kept_c->p + d * sizes * n : (REAL *)(scratch + k->at_cells);
        w.h = (REAL *)(scratch + k->at_h), w.c = w.h + k->batch * n;
        w.h_half = k->halves ? scratch + k->at_half : (char *)w.h;
        N(first)(k, input_of(s, 5), d, w.h);
        N(first)(k, k->lstm ? input_of(s, 6) : NULL, d, w.c);
        N(bias)(k, b, d, bias, apart);
        state_across(k, (const char *)s->in[2]->p + (size_t)(d * k->gates * n * n) * k->size,
                     scratch + k->at_rt);
        gemm_run(&k->all, w.x, (const char *)s->in[1]->p + (size_t)(d * k->gates * n * k->input) * k->size,
                 w.gates, &(struct gemm_more){ .bias = bias }, scratch + k->at_gemm);
        for (int64_t i = 0; i < k->steps; i++) {
            int64_t t = w.back ? k->steps - 1 - i : i;
            N(halve)(k, &w);
            if (k->lstm)
                N(lstm_step)(k, &w, t, lengths, p ? peep : NULL, scratch);
            else
                N(gru_step)(k, &w, t, lengths, apart, scratch);
            for (int64_t e = 0; e < k->batch && output_of(s, 0); e++) {
                bool on = !lengths || t < N(active)(k, lengths, e);
                N(rows_put)(s->out[0], place_out(k, d, t, e), n, on ? w.h + e * n : zero);
            }
        }
        for (int64_t e = 0; e < k->batch; e++) {
            N(put_rows)(output_of(s, 1), place_state(k, d, e), n, w.h + e * n);
            N(put_rows)(last_c, place_state(k, d, e), n, w.c + e * n);
        }
    }
}

/* ---- back ---- */

/* The gates become the slopes before their functions; dh holds what flows into h, dc into the cell, and out of it after. */
static void N(lstm_cell_grad)(int64_t n, REAL *restrict g, const REAL *restrict before,
                              const REAL *restrict cell, const REAL *restrict dh, REAL *restrict dc)
{
    REAL *gi = g, *go = g + n, *gf = g + 2 * n, *gc = g + 3 * n;
#pragma GCC ivdep
    for (int64_t e = 0; e < n; e++) {
        REAL i = gi[e], o = go[e], f = gf[e], c = gc[e], tc = N(tangent)(cell[e]),
             flow = dc[e] + dh[e] * o * (1 - tc * tc);
        gi[e] = flow * c * i * (1 - i);
        go[e] = dh[e] * tc * o * (1 - o);
        gf[e] = flow * before[e] * f * (1 - f);
        gc[e] = flow * i * (1 - c * c);
        dc[e] = flow * f;
    }
}

/* z r h and R h become dz, dr, dh, and d(R h); dh becomes what flows past the gates. */
static void N(gru_cell_grad)(int64_t n, REAL *restrict g, const REAL *restrict before, REAL *restrict dh)
{
    REAL *gz = g, *gr = g + n, *gh = g + 2 * n, *kept = g + 3 * n;
#pragma GCC ivdep
    for (int64_t e = 0; e < n; e++) {
        REAL z = gz[e], reset = gr[e], now = gh[e], lin = kept[e], flow = dh[e] * (1 - z) * (1 - now * now);
        gz[e] = dh[e] * (before[e] - now) * z * (1 - z);
        gr[e] = flow * lin * reset * (1 - reset);
        gh[e] = flow;
        kept[e] = flow * reset;
        dh[e] *= z;
    }
}

/* What of the products reads: slopes of a step or of all, in the type of products. */
static const void *N(slopes)(const struct recurrent *k, const REAL *g, int64_t from, int64_t n, char *half)
{
    if (!k->halves)
        return g + from;
    floats_to(k->type, (const float *)g + from, n, half + (size_t)from * 2);
    return half + (size_t)from * 2;
}

static void N(lstm_back)(const struct recurrent *k, REAL *g, const REAL *cells, const REAL *c_before,
                         const REAL *dh, REAL *dc, const bool *on)
{
    for (int64_t b = 0; b < k->batch; b++)
        if (on[b])
            N(lstm_cell_grad)
    (k->hidden, g + 4 * k->hidden * b, c_before + b * k->hidden, cells + b * k->hidden, dh + b * k->hidden,
     dc + b * k->hidden);
    else memset(g + 4 * k->hidden * b, 0, (size_t)(4 * k->hidden) * sizeof *g);
}

/* GRU without linear_before_reset: the reset gate stands before R, so d(r h) = dh R of the new state comes first. */
static void N(gru_back_reset)(const struct recurrent *k, REAL *gates, int64_t t, const REAL *before, REAL *dh,
                              const bool *on, const char *rw, char *scratch)
{
    int64_t n = k->hidden, from = t * k->batch * 4 * n;
    REAL *g = gates + from;
    REAL *left = (REAL *)(scratch + k->at_state);
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t e = 0; e < n; e++) {
            REAL *gb = g + 4 * n * b, z = gb[e], now = gb[2 * n + e], d = on[b] ? dh[b * n + e] : 0;
            gb[2 * n + e] = gb[3 * n + e] = d * (1 - z) * (1 - now * now);
            gb[e] = d * (before[b * n + e] - now) * z * (1 - z);
        }
    const char *half = N(slopes)(k, gates, from, k->batch * 4 * n, scratch + k->at_gate_half);
    gemm_run(&k->left, half + (size_t)(3 * n) * k->size, rw + (size_t)(2 * n * n) * k->size, left, NULL,
             scratch + k->at_gemm);
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t e = 0; e < n; e++) {
            REAL *gb = g + 4 * n * b, reset = gb[n + e];
            gb[n + e] = on[b] ? left[b * n + e] * before[b * n + e] * reset * (1 - reset) : 0;
            dh[b * n + e] = on[b] ? left[b * n + e] * reset : 0;
        }
}

/* Direction d of t [gates·hidden, width] from v, which lies across. */
static void N(turn_back)(const struct recurrent *k, const struct tensor *t, int d, int64_t width,
                         const REAL *v)
{
    int64_t rows = k->gates * k->hidden;
    enum { TILE = 16 };
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j0 = 0; j0 < width; j0 += TILE) {
            REAL part[TILE];
            int64_t n = width - j0 < TILE ? width - j0 : TILE;
            for (int64_t j = 0; j < n; j++)
                part[j] = v[(j0 + j) * rows + i];
            N(rows_put)(t, (d * rows + i) * width + j0, n, part);
        }
}

static void N(recurrent_grad)(const struct step *s, struct rank *r)
{
    const struct recurrent *k = s->state;
    const int at = k->lstm ? 3 : 2; /* of X */
    const struct tensor *dy = input_of(s, 0), *dyh = input_of(s, 1), *dyc = k->lstm ? input_of(s, 2) : NULL;
    const struct tensor *x = s->in[at], *w = s->in[at + 1], *rw = s->in[at + 2],
                        *lengths = input_of(s, at + 3), *h0 = input_of(s, at + 4);
    const struct tensor *c0 = k->lstm ? input_of(s, at + 5) : NULL, *y = s->in[at + (k->lstm ? 6 : 5)],
                        *kept = s->in[at + (k->lstm ? 7 : 6)];
    const struct tensor *kept_c = k->lstm ? s->in[at + 8] : NULL;
    char *scratch = r->scratch;
    int64_t n = k->hidden, sizes = k->steps * k->batch;
    REAL *dh = (REAL *)(scratch + k->at_h), *dc = dh + k->batch * n, *wide = dc + k->batch * n,
         *cell0 = wide + k->batch * n;
    REAL *flow = cell0 + k->batch * n, *buf = flow + k->batch * n;
    bool *on = (bool *)(scratch + k->at_on);
    for (int d = 0; d < k->dirs; d++) {
        bool back = k->reverse || d == 1;
        const char *xs = steps_first(k, x, scratch),
                   *rd = (const char *)rw->p + (size_t)(d * k->gates * n * n) * k->size;
        REAL *gates = (REAL *)kept->p + d * sizes * 4 * n,
             *cells = k->lstm ? (REAL *)kept_c->p + d * sizes * n : NULL;
        char *hs = scratch + k->at_hs, *half = scratch + k->at_gate_half, *rhs = scratch + k->at_rhs;
        N(first)(k, dyh, d, dh);
        N(first)(k, dyc, d, dc);
        N(first)(k, c0, d, cell0);
        for (int64_t i = k->steps; i-- > 0;) {
            int64_t t = back ? k->steps - 1 - i : i, last = back ? t + 1 : t - 1;
            bool start = i == 0;
            REAL *g = gates + t * k->batch * 4 * n;
            /* The state before, where the product for dR will read it. */
            REAL *past = k->halves ? wide : (REAL *)hs + t * k->batch * n;
            for (int64_t b = 0; b < k->batch; b++) {
                int64_t length = N(active)(k, lengths, b);
                on[b] = t < length;
                /* A row of a reversed direction starts at its own last step. */
                bool first = start || (back && last >= length);
                REAL *row = past + b * n;
                if (!first)
                    memmove(row, N(rows_get)(y, place_out(k, d, last, b), n, row), (size_t)n * sizeof *row);
                else if (h0)
                    memmove(row, N(rows_get)(h0, place_state(k, d, b), n, row), (size_t)n * sizeof *row);
                else
                    memset(row, 0, (size_t)n * sizeof *row);
                if (dy && on[b]) {
                    const REAL *v = N(rows_get)(dy, place_out(k, d, t, b), n, buf);
                    for (int64_t e = 0; e < n; e++)
                        dh[b * n + e] += v[e];
                }
            }
            if (k->halves)
                floats_to(k->type, (const float *)past, k->batch * n, hs + (size_t)(t * k->batch * n) * 2);
            if (k->lstm) {
                const REAL *c_before = start ? cell0 : cells + last * k->batch * n;
                N(lstm_back)(k, g, cells + t * k->batch * n, c_before, dh, dc, on);
            } else if (k->linear) {
                for (int64_t b = 0; b < k->batch; b++)
                    if (on[b])
                        N(gru_cell_grad)(n, g + 4 * n * b, past + b * n, dh + b * n);
                    else
                        memset(g + 4 * n * b, 0, (size_t)(4 * n) * sizeof *g);
            } else {
                /* What the new state's R was multiplied with, for dR; z for what flows past. */
                REAL *rh = buf;
                for (int64_t b = 0; b < k->batch; b++) {
                    for (int64_t e = 0; e < n; e++) {
                        rh[e] = g[4 * n * b + n + e] * past[b * n + e];
                        flow[b * n + e] = on[b] ? dh[b * n + e] * g[4 * n * b + e] : dh[b * n + e];
                    }
                    int64_t to = (t * k->batch + b) * n;
                    if (k->halves)
                        floats_to(k->type, (const float *)rh, n, rhs + (size_t)to * 2);
                    else
                        memcpy(rhs + (size_t)to * sizeof(REAL), rh, (size_t)n * sizeof *rh);
                }
                N(gru_back_reset)(k, gates, t, past, dh, on, rd, scratch);
                for (int64_t e = 0; e < k->batch * n; e++)
                    dh[e] += flow[e];
            }
            /* dh of the step before: through R, and for a GRU what went past the gates. */
            const char *gh = N(slopes)(k, gates, t * k->batch * 4 * n, k->batch * 4 * n, half);
            for (int64_t b = 0; b < k->batch && k->lstm; b++)
                if (on[b])
                    memset(dh + b * n, 0, (size_t)n * sizeof *dh);
            gemm_run(&k->back, gh, rd, dh, NULL, scratch + k->at_gemm);
            if (k->linear)
                gemm_run(&k->left, gh + (size_t)(3 * n) * k->size, rd + (size_t)(2 * n * n) * k->size, dh,
                         NULL, scratch + k->at_gemm);
        }
        const char *all = k->halves ? half : (const char *)gates;
        if (output_of(s, 0)) {
            char *dx = k->layout || k->dirs > 1 ? scratch + k->at_dx : s->out[0]->p;
            struct gemm p = k->dx;
            p.beta = d > 0 ? 1 : 0;
            gemm_run(&p, all, (const char *)w->p + (size_t)(d * k->gates * n * k->input) * k->size, dx, NULL,
                     scratch + k->at_gemm);
            if (d + 1 == k->dirs && dx != (char *)s->out[0]->p)
                steps_back(k, s->out[0], dx);
        }
        /* Xᵀ slopes and hᵀ slopes: the narrow side is the one that the product has to pack. */
        REAL *turned = (REAL *)(scratch + k->at_turned);
        if (output_of(s, 1)) {
            gemm_run(&k->dw, xs, all, turned, NULL, scratch + k->at_gemm);
            N(turn_back)(k, s->out[1], d, k->input, turned);
        }
        if (output_of(s, 2)) {
            gemm_run(&k->dr, hs, all, turned, NULL, scratch + k->at_gemm);
            if (!k->lstm)
                gemm_run(&k->dr_new, k->linear ? hs : rhs, all + (size_t)(3 * n) * k->size, turned + 2 * n,
                         NULL, scratch + k->at_gemm);
            N(turn_back)(k, s->out[2], d, n, turned);
        }
        if (output_of(s, 3)) {
            REAL *sum = (REAL *)(scratch + k->at_bias);
            memset(sum, 0, (size_t)(4 * n) * sizeof *sum);
            for (int64_t i = 0; i < sizes; i++)
                for (int64_t e = 0; e < 4 * n; e++)
                    sum[e] += gates[i * 4 * n + e];
            int64_t g = k->gates * n;
            N(rows_put)(s->out[3], 2 * g * d, g, sum);
            if (!k->lstm)
                memcpy(sum + 2 * n, sum + 3 * n, (size_t)n * sizeof *sum);
            N(rows_put)(s->out[3], 2 * g * d + g, g, sum);
        }
        for (int64_t b = 0; b < k->batch; b++) {
            N(put_rows)(output_of(s, 4), place_state(k, d, b), n, dh + b * n);
            N(put_rows)(k->lstm ? output_of(s, 5) : NULL, place_state(k, d, b), n, dc + b * n);
        }
    }
}
