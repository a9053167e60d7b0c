// SPDX-License-Identifier: Apache-2.0
// LSTM and GRU. Inputs of all steps meet their weights in one large product; each step then adds its small product with the
// state, and one pass over the gates makes the next state. Backward the same in reverse: slopes of all gates are made step by
// step, in the place of the gates that the forward pass kept, and weights get theirs in one large product.
#include "engine/cpu/gemm.h"
#include "engine/cpu/group.h"
#include "engine/cpu/rows.h"

struct recurrent {
    bool lstm, layout, reverse, linear, halves;
    enum tensor_type type; /* of what products read */
    size_t size;           /* of an element of it */
    int dirs;
    int64_t gates, steps, batch, input, hidden;
    struct gemm all, step, reset; /* forward: X Wᵀ, h Rᵀ, and a GRU's (r h) Rᵀ of the new state */
    struct gemm back, left, dx, dw, dr,
        dr_new; /* backward: slopes R (and of a GRU's new state), slopes W, Xᵀ slopes, hᵀ slopes */
    size_t at_x, at_rt, at_gates, at_cells, at_h, at_half, at_state, at_bias, at_gemm; /* in scratch */
    size_t at_on, at_hs, at_gate_half, at_rhs, at_dx, at_turned;
};

static const struct tensor *input_of(const struct step *s, int i)
{
    return i < s->n_in ? s->in[i] : NULL;
}
static struct tensor *output_of(const struct step *s, int i)
{
    return i < s->n_out ? s->out[i] : NULL;
}

/* The first element of row b of a state, of step t and row b of Y. */
static int64_t place_state(const struct recurrent *k, int64_t d, int64_t b)
{
    return (k->layout ? b * k->dirs + d : d * k->batch + b) * k->hidden;
}
static int64_t place_out(const struct recurrent *k, int64_t d, int64_t t, int64_t b)
{
    return (k->layout ? (b * k->steps + t) * k->dirs + d : (t * k->dirs + d) * k->batch + b) * k->hidden;
}

/* X as [steps, batch, input]. */
static const char *steps_first(const struct recurrent *k, const struct tensor *x, char *scratch)
{
    size_t row = (size_t)k->input * k->size;
    char *to = scratch + k->at_x;
    if (!k->layout)
        return x->p;
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t t = 0; t < k->steps; t++)
            memcpy(to + (size_t)(t * k->batch + b) * row,
                   (const char *)x->p + (size_t)(b * k->steps + t) * row, row);
    return to;
}

/* dX from [steps, batch, input] in F32 or F64 to where and what it is. */
static void steps_back(const struct recurrent *k, const struct tensor *dx, const char *from)
{
    for (int64_t t = 0; t < k->steps; t++)
        for (int64_t b = 0; b < k->batch; b++) {
            int64_t at = (t * k->batch + b) * k->input, to = k->layout ? (b * k->steps + t) * k->input : at;
            if (k->type == TENSOR_F64)
                rows_put_f64(dx, to, k->input, (const double *)from + at);
            else
                rows_put_f32(dx, to, k->input, (const float *)from + at);
        }
}

/* R [gates·hidden, hidden] as [hidden, gates·hidden]: products of each step read it along its rows. */
static void state_across(const struct recurrent *k, const char *r, char *to)
{
    int64_t rows = k->gates * k->hidden, n = k->hidden;
    enum { TILE = 16 };
    for (int64_t i0 = 0; i0 < rows; i0 += TILE)
        for (int64_t j0 = 0; j0 < n; j0 += TILE)
            for (int64_t j = j0; j < j0 + TILE && j < n; j++)
                for (int64_t i = i0; i < i0 + TILE && i < rows; i++)
                    switch (k->size) {
                    case 2:
                        ((uint16_t *)to)[j * rows + i] = ((const uint16_t *)r)[i * n + j];
                        break;
                    case 4:
                        ((uint32_t *)to)[j * rows + i] = ((const uint32_t *)r)[i * n + j];
                        break;
                    default:
                        ((uint64_t *)to)[j * rows + i] = ((const uint64_t *)r)[i * n + j];
                    }
}

#define REAL float
#define N(name) name##_f32
#include "engine/cpu/recurrent_rows.h"
#undef REAL
#undef N
#define REAL double
#define N(name) name##_f64
#include "engine/cpu/recurrent_rows.h"
#undef REAL
#undef N

/* ---- binding ---- */

struct product {
    int64_t m, n, k, lda, ldb, ldc;
    bool ta, tb;
    float beta;
};
static struct gemm planned(struct product p, enum tensor_type in, enum tensor_type out, size_t *scratch)
{
    struct gemm g = gemm_of(in, out, p.m, p.n, p.k, p.ta, p.tb);
    g.lda = p.lda, g.ldb = p.ldb, g.ldc = p.ldc, g.beta = p.beta;
    gemm_plan(&g);
    *scratch = g.scratch > *scratch ? g.scratch : *scratch;
    return g;
}

static size_t reserve(size_t *scratch, int64_t n, size_t size)
{
    size_t at = *scratch;
    *scratch += ((size_t)n * size + 63) / 64 * 64;
    return at;
}

/* What an attribute may say and this does not do. */
static bool plain(const struct node *n)
{
    return !attr_find(n, "clip") && !attr_find(n, "activations") && !attr_find(n, "activation_alpha") &&
           !attr_find(n, "activation_beta") && !attr_i(n, "input_forget", 0);
}

/* at: of X. */
static err bind_recurrent(struct bind *b, bool lstm, bool grad, int at)
{
    const struct tensor *x = bind_in(b, at), *w = bind_in(b, at + 1), *r = bind_in(b, at + 2);
    struct recurrent *k = NEW(b->a, struct recurrent);
    bool f64 = x->type == TENSOR_F64;
    if ((x->type != TENSOR_F32 && !f64 && x->type != TENSOR_BF16 && x->type != TENSOR_F16) ||
        w->type != x->type || r->type != x->type || !plain(b->n))
        return cpu_no_kernel(b);
    *k = (struct recurrent){ .lstm = lstm,
                             .type = x->type,
                             .size = tensor_size(x->type),
                             .gates = lstm ? 4 : 3,
                             .dirs = (int)w->d[0] };
    k->halves = k->size == 2;
    k->layout = attr_i(b->n, "layout", 0) != 0;
    k->reverse = str_is(attr_s(b->n, "direction", S("forward")), "reverse");
    k->linear = !lstm && attr_i(b->n, "linear_before_reset", 0) != 0;
    k->steps = x->d[k->layout ? 1 : 0], k->batch = x->d[k->layout ? 0 : 1];
    k->input = x->d[2], k->hidden = r->d[2];

    int64_t n = k->hidden, g = k->gates * n, rows = k->steps * k->batch, state = k->batch * n;
    enum tensor_type t = x->type, real = f64 ? TENSOR_F64 : TENSOR_F32;
    size_t need = 0, real_size = f64 ? 8 : 4, products = 0;
    k->at_x = reserve(&need, k->layout ? rows * k->input : 0, k->size);
    k->at_bias = reserve(&need, 12 * n, real_size);
    k->at_h = reserve(&need, 6 * state, real_size);
    k->at_half = reserve(&need, state, 2);
    k->at_state = reserve(&need, 4 * state, real_size);
    if (!grad) {
        k->at_rt = reserve(&need, g * n, k->size);
        k->at_gates = reserve(&need, bind_out(b, lstm ? 3 : 2) ? 0 : rows * 4 * n, real_size);
        k->at_cells = reserve(&need, !lstm || bind_out(b, 4) ? 0 : rows * n, real_size);
        k->all = planned((struct product){ rows, g, k->input, k->input, k->input, 4 * n, false, true, 0 }, t,
                         real, &products);
        k->step = planned(
            lstm ? (struct product){ k->batch, g, n, n, g, g, false, false, 1 }
                 : (struct product){ k->batch, k->linear ? g : 2 * n, n, n, g, g, false, false, 0 },
            t, real, &products);
        k->reset = planned((struct product){ k->batch, n, n, n, g, g, false, false, 0 }, t, real, &products);
        b->step->flops = 2.0 * (double)(rows * g) * (double)(k->input + n) * k->dirs;
        b->step->run = f64 ? recurrent_f64 : recurrent_f32;
    } else {
        int64_t some = lstm ? g : 2 * n; /* gates whose R is multiplied with h itself */
        bool own = k->layout || k->dirs > 1;
        k->at_on = reserve(&need, k->batch, 1);
        k->at_hs = reserve(&need, rows * n, k->size);
        k->at_gate_half = reserve(&need, k->halves ? rows * 4 * n : 0, 2);
        k->at_rhs = reserve(&need, lstm || k->linear ? 0 : rows * n, k->size);
        k->at_dx = reserve(&need, own ? rows * k->input : 0, real_size);
        k->back = planned((struct product){ k->batch, n, some, 4 * n, n, n, false, false, 1 }, t, real,
                          &products);
        k->left = planned((struct product){ k->batch, n, n, 4 * n, n, n, false, false, k->linear }, t, real,
                          &products);
        k->dx = planned((struct product){ rows, k->input, g, 4 * n, k->input, k->input, false, false, 0 }, t,
                        own ? real : t, &products);
        k->at_turned = reserve(&need, g * (n > k->input ? n : k->input), real_size);
        k->dw = planned((struct product){ k->input, g, rows, k->input, 4 * n, g, true, false, 0 }, t, real,
                        &products);
        k->dr = planned((struct product){ n, some, rows, n, 4 * n, g, true, false, 0 }, t, real, &products);
        k->dr_new = planned((struct product){ n, n, rows, n, 4 * n, g, true, false, 0 }, t, real, &products);
        b->step->flops = 4.0 * (double)(rows * g) * (double)(k->input + n) * k->dirs;
        b->step->run = f64 ? recurrent_grad_f64 : recurrent_grad_f32;
    }
    k->at_gemm = need;
    b->step->whole =
        true; /* each step in time is a product of as many rows, and fills no more than a tile with few */
    b->step->scratch = need + products;
    b->step->state = k;
    return NULL;
}
static err bind_lstm(struct bind *b)
{
    return bind_recurrent(b, true, false, 0);
}
static err bind_gru(struct bind *b)
{
    return bind_recurrent(b, false, false, 0);
}
static err bind_lstm_grad(struct bind *b)
{
    return bind_recurrent(b, true, true, 3);
}
static err bind_gru_grad(struct bind *b)
{
    return bind_recurrent(b, false, true, 2);
}

#define K(op, fn, in_place) { OP_##op, fn, in_place },
const struct cpu_group SIMD(recurrent_group) = { { RECURRENT_KERNELS(K){ 0 } } };
#undef K
