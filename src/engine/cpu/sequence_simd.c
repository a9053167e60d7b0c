// SPDX-License-Identifier: Apache-2.0
// Softmax, norms and what else works on rows of a sequence.
#include "engine/cpu/group.h"
#include "engine/cpu/rows.h"

/* A tensor as [outer, n, inner], n along the axis. */
struct axis {
    int64_t outer, n, inner;
    bool logs;
};

/* Rows of n numbers that are normalised together. */
struct norm {
    int64_t rows, n, groups, channels,
        inner; /* of group norm: n = channels · inner, a sample's rows are its groups */
    bool centre;
    double epsilon;
};
enum { NORM_BLOCK = 64 };

#define REAL float
#define N(name) name##_f32
#include "engine/cpu/softmax_rows.h"
#include "engine/cpu/norm_rows.h"
#undef REAL
#undef N
#define REAL double
#define N(name) name##_f64
#include "engine/cpu/softmax_rows.h"
#include "engine/cpu/norm_rows.h"
#undef REAL
#undef N

static bool is_float(const struct tensor *t)
{
    return t->type == TENSOR_F32 || t->type == TENSOR_F64 || t->type == TENSOR_BF16 || t->type == TENSOR_F16;
}

static err bind_softmax_any(struct bind *b, bool logs, bool grad)
{
    const struct tensor *x = bind_in(b, 0);
    struct axis *k = NEW(b->a, struct axis);
    int axis;
    if (!is_float(x))
        return cpu_no_kernel(b);
    TRY(attr_axis(b->n, "axis", -1, x->rank, &axis));
    *k = (struct axis){ 1, x->rank > 0 ? x->d[axis] : 1, 1, logs };
    for (int i = 0; i < x->rank; i++)
        *(i < axis ? &k->outer : i > axis ? &k->inner : &(int64_t){ 1 }) *= x->d[i];
    if (x->n == 0)
        k->outer = 0;
    b->step->state = k;
    b->step->scratch = 3 * (size_t)k->n * sizeof(double);
    if (grad)
        b->step->run = x->type == TENSOR_F64 ? softmax_grad_f64 : softmax_grad_f32;
    else
        b->step->run = x->type == TENSOR_F64 ? softmax_f64 : softmax_f32;
    return NULL;
}
static err bind_softmax(struct bind *b)
{
    return bind_softmax_any(b, false, false);
}
static err bind_log_softmax(struct bind *b)
{
    return bind_softmax_any(b, true, false);
}
static err bind_softmax_grad(struct bind *b)
{
    return bind_softmax_any(b, false, true);
}
static err bind_log_softmax_grad(struct bind *b)
{
    return bind_softmax_any(b, true, true);
}

/* ---- norms ---- */

static err bind_norm(struct bind *b, int at, bool centre)
{
    const struct tensor *x = bind_in(b, at);
    struct norm *k = NEW(b->a, struct norm);
    int axis;
    if (!is_float(x))
        return cpu_no_kernel(b);
    TRY(attr_axis(b->n, "axis", -1, x->rank, &axis));
    *k = (struct norm){
        .rows = 1, .n = 1, .centre = centre, .epsilon = (double)attr_f(b->n, "epsilon", 1e-5f)
    };
    for (int i = 0; i < x->rank; i++)
        *(i < axis ? &k->rows : &k->n) *= x->d[i];
    b->step->state = k;
    b->step->scratch = 8 * (size_t)k->n * sizeof(double);
    if (at == 0)
        b->step->run = x->type == TENSOR_F64 ? layer_norm_f64 : layer_norm_f32;
    else
        b->step->run = x->type == TENSOR_F64 ? layer_norm_grad_f64 : layer_norm_grad_f32;
    return NULL;
}
static err bind_layer_norm(struct bind *b)
{
    return bind_norm(b, 0, true);
}
static err bind_layer_norm_grad(struct bind *b)
{
    return bind_norm(b, 1, true);
}
static err bind_rms_norm(struct bind *b)
{
    return bind_norm(b, 0, false);
}
static err bind_rms_norm_grad(struct bind *b)
{
    return bind_norm(b, 1, false);
}

static err bind_groups(struct bind *b, int at, bool instances)
{
    const struct tensor *x = bind_in(b, at);
    struct norm *k = NEW(b->a, struct norm);
    if (!is_float(x) || x->nhwc)
        return cpu_no_kernel(b);
    *k = (struct norm){ .groups = instances ? x->d[1] : attr_i(b->n, "num_groups", 1), .inner = 1 };
    k->epsilon = (double)attr_f(b->n, "epsilon", 1e-5f);
    for (int i = 2; i < x->rank; i++)
        k->inner *= x->d[i];
    k->channels = k->groups ? x->d[1] / k->groups : 0;
    k->rows = x->d[0] * k->groups;
    k->n = k->channels * k->inner;
    if (x->n == 0)
        k->rows = 0;
    b->step->state = k;
    b->step->scratch = (3 * (size_t)k->n + 3 * (size_t)x->d[1]) * sizeof(double);
    if (at == 0)
        b->step->run = x->type == TENSOR_F64 ? group_norm_f64 : group_norm_f32;
    else
        b->step->run = x->type == TENSOR_F64 ? group_norm_grad_f64 : group_norm_grad_f32;
    return NULL;
}
static err bind_group_norm(struct bind *b)
{
    return bind_groups(b, 0, b->step->op->id == OP_InstanceNormalization);
}
static err bind_group_norm_grad(struct bind *b)
{
    return bind_groups(b, 1, attr_i(b->n, "instances", 0) != 0);
}

/* ---- random numbers by place ---- */

/* Philox4x32-10 (Salmon et al. 2011): four words for each block of four elements. The counter is the block in the whole batch,
 * the node and the run; the key is the seed: what is drawn does not depend on how the batch is cut. */
enum { DRAW_BLOCKS = 16, DRAW = 4 * DRAW_BLOCKS };
struct draw {
    uint32_t stream;
    int64_t per_row; /* elements of one row of the batch; 0: the tensor is not cut */
    double low, high;
};

static void philox(const struct rank *r, const struct draw *k, uint64_t block, uint32_t out[DRAW])
{
    uint32_t c0[DRAW_BLOCKS], c1[DRAW_BLOCKS], c2[DRAW_BLOCKS], c3[DRAW_BLOCKS];
    uint32_t k0 = (uint32_t)r->seed, k1 = (uint32_t)(r->seed >> 32);
    for (int i = 0; i < DRAW_BLOCKS; i++) {
        c0[i] = (uint32_t)(block + (uint64_t)i);
        c1[i] = (uint32_t)((block + (uint64_t)i) >> 32) ^ (uint32_t)(r->draw >> 32) << 16;
        c2[i] = k->stream;
        c3[i] = (uint32_t)r->draw;
    }
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int i = 0; i < DRAW_BLOCKS; i++) {
            uint64_t p = (uint64_t)0xD2511F53u * c0[i], q = (uint64_t)0xCD9E8D57u * c2[i];
            uint32_t n0 = (uint32_t)(q >> 32) ^ c1[i] ^ k0, n2 = (uint32_t)(p >> 32) ^ c3[i] ^ k1;
            c1[i] = (uint32_t)q;
            c3[i] = (uint32_t)p;
            c0[i] = n0;
            c2[i] = n2;
        }
    for (int i = 0; i < DRAW_BLOCKS; i++) {
        out[4 * i] = c0[i], out[4 * i + 1] = c1[i];
        out[4 * i + 2] = c2[i], out[4 * i + 3] = c3[i];
    }
}

/* Words for n ≤ DRAW elements from element `at` of the whole tensor on; at most this many at once. */
static int64_t draw_words(const struct rank *r, const struct draw *k, int64_t at, int64_t n, uint32_t *out)
{
    uint32_t words[DRAW];
    int64_t skip = at & 3, take = n < DRAW - skip ? n : DRAW - skip;
    philox(r, k, (uint64_t)at >> 2, words);
    memcpy(out, words + skip, (size_t)take * sizeof *out);
    return take;
}

/* Axis 0 holds the batch's rows, or so many of them for each. */
static int64_t elements_per_row(const struct bind *b, const struct tensor *x)
{
    return b->rows > 0 && x->n % b->rows == 0 ? x->n / b->rows : 0;
}

static bool dropout_on(const struct step *s, double *ratio)
{
    const struct tensor *t = s->n_in > 1 ? s->in[1] : NULL, *mode = s->n_in > 2 ? s->in[2] : NULL;
    *ratio = t ? rows_one(t, 0) : 0.5;
    return mode && *(const uint8_t *)mode->p && *ratio > 0;
}

static void dropout(const struct step *s, struct rank *r)
{
    const struct tensor *x = s->in[0];
    struct tensor *y = s->out[0], *mask = s->n_out > 1 ? s->out[1] : NULL;
    const struct draw *k = s->state;
    double ratio;
    bool on = dropout_on(s, &ratio);
    uint32_t words[DRAW], below = ratio >= 1 ? UINT32_MAX : (uint32_t)(ratio * 4294967296.0);
    float buf[DRAW], f = ratio >= 1 ? 0 : (float)(1 / (1 - ratio));
    for (int64_t i = 0, n; i < x->n; i += n) {
        n = x->n - i < DRAW ? x->n - i : DRAW;
        if (on)
            n = draw_words(r, k, r->row * k->per_row + i, n, words);
        if (mask)
            for (int64_t e = 0; e < n; e++)
                ((uint8_t *)mask->p)[i + e] = !on || words[e] >= below;
        if (x->type == TENSOR_F64) {
            for (int64_t e = 0; e < n; e++)
                ((double *)y->p)[i + e] = ((const double *)x->p)[i + e] * (!on ? 1
                                                                           : words[e] >= below
                                                                               ? 1 / (1 - ratio)
                                                                               : 0);
            continue;
        }
        const float *v = rows_get_f32(x, i, n, buf);
        float *to = rows_at_f32(y, i, buf);
        if (!on)
            memmove(to, v, (size_t)n * sizeof *to);
        else {
#pragma GCC ivdep
            for (int64_t e = 0; e < n; e++)
                to[e] = words[e] >= below ? v[e] * f : 0;
        }
        rows_put_f32(y, i, n, to);
    }
}

static void random_uniform(const struct step *s, struct rank *r)
{
    const struct draw *k = s->state;
    struct tensor *y = s->out[0];
    uint32_t words[DRAW];
    for (int64_t i = 0, n; i < y->n; i += n) {
        n = draw_words(r, k, r->row * k->per_row + i, y->n - i < DRAW ? y->n - i : DRAW, words);
        for (int64_t e = 0; e < n; e++) /* 24 bits: a float below 1 */
            rows_put_f64(y, i + e, 1,
                         &(double){ k->low + (double)(words[e] >> 8) * 0x1p-24 * (k->high - k->low) });
    }
}

static err bind_draw(struct bind *b, void (*run)(const struct step *, struct rank *))
{
    struct draw *k = NEW(b->a, struct draw);
    if (!is_float(bind_out(b, 0)))
        return cpu_no_kernel(b);
    k->stream = (uint32_t)attr_i(b->n, "stream", b->n->ordinal);
    k->per_row = elements_per_row(b, bind_out(b, 0));
    k->low = (double)attr_f(b->n, "low", 0);
    k->high = (double)attr_f(b->n, "high", 1);
    b->step->state = k;
    b->step->run = run;
    return NULL;
}
static err bind_dropout(struct bind *b)
{
    return is_float(bind_in(b, 0)) ? bind_draw(b, dropout) : cpu_no_kernel(b);
}
static err bind_random_uniform(struct bind *b)
{
    return bind_draw(b, random_uniform);
}

#define K(op, fn, in_place) { OP_##op, fn, in_place },
const struct cpu_group SIMD(sequence_group) = { { SEQUENCE_KERNELS(K){ 0 } } };
#undef K
