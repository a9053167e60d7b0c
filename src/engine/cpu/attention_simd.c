// SPDX-License-Identifier: Apache-2.0
// Attention. For a block of queries the scores of all keys that they may see are one product; softmax works on its rows while
// they are in the cache, and a second product gives the outputs. Heads are read where they lie in [batch, length, heads·size]
// or [batch, heads, length, size]: nothing is transposed.
#include "engine/cpu/gemm.h"
#include "engine/cpu/group.h"
#include "engine/cpu/rows.h"

/* Elements between batches, heads and positions, and before the first. */
struct stride {
    int64_t batch, head, row, from;
};
/* Queries from..from + rows see the first `keys` keys at most. */
struct block {
    int64_t from, rows, keys;
    struct gemm scores, values;     /* s = scale q kᵀ; y = p v */
    struct gemm slopes, dq, dk, dv; /* dp = dy vᵀ; dq = ds k; dk += dsᵀ q; dv += pᵀ dy */
};
struct attention {
    int64_t batch, heads, group, length, keys, past, new_keys, q_size, v_size;
    struct stride q, k, v, y;
    size_t size; /* of an element */
    bool causal, halves, packed;
    int mask_in; /* which input the mask is */
    double scale, softcap;
    int64_t left, right; /* the window around a query; −1: no bound */
    int mode;
    int64_t mask_step[3], mask_length;
    int64_t row_max, n_blocks;
    struct block *blocks;
    size_t at_scores, at_slopes, at_half, at_half_d, at_sums, at_told, at_keys, at_values,
        at_gemm; /* in scratch */
};
struct rotary {
    int64_t batch, heads, length, size, turned;
    struct stride x;
    bool interleaved, back;
};

static const struct tensor *input_of(const struct step *s, int i)
{
    return i < s->n_in ? s->in[i] : NULL;
}
static struct tensor *output_of(const struct step *s, int i)
{
    return i < s->n_out ? s->out[i] : NULL;
}

static int64_t place(const struct stride *s, int64_t b, int64_t h, int64_t i)
{
    return s->from + b * s->batch + h * s->head + i * s->row;
}
static char *at_head(const struct tensor *t, const struct stride *s, size_t size, int64_t b, int64_t h,
                     int64_t i)
{
    return (char *)t->p + (size_t)place(s, b, h, i) * size;
}

/* Keys from..to, of the first cols, are those that query i sees, whatever its mask says. lengths: of keys that are no padding,
 * by batch; then the queries are the last of them. */
struct span {
    int64_t from, to;
};
static struct span keys_seen(const struct attention *k, const struct tensor *lengths, int64_t b, int64_t i,
                             int64_t cols)
{
    int64_t filled = lengths ? rows_whole(lengths, b) : k->keys;
    int64_t at = i + (lengths ? filled - k->length : k->past), from = k->left >= 0 ? at - k->left : 0,
            to = cols;
    to = filled < to ? filled : to;
    to = k->causal && at + 1 < to ? at + 1 : to;
    to = k->right >= 0 && at + k->right + 1 < to ? at + k->right + 1 : to;
    to = to < 0 ? 0 : to;
    from = from < 0 ? 0 : from;
    return (struct span){ from < to ? from : to, to };
}

static double mask_at(const struct tensor *mask, int64_t at)
{
    if (mask->type == TENSOR_BOOL)
        return ((const uint8_t *)mask->p)[at] ? 0 : -(double)INFINITY;
    return mask->type == TENSOR_F32 ? (double)((const float *)mask->p)[at] : rows_one(mask, at);
}

/* New rows behind the past ones, as [batch, heads, length, size]. */
static void cache_fill(const struct attention *k, const struct tensor *past, const struct tensor *now,
                       const struct stride *from, int64_t heads, int64_t size, char *to)
{
    size_t row = (size_t)size * k->size;
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            char *p = to + (size_t)((b * heads + h) * k->keys) * row;
            if (past)
                memcpy(p, (char *)past->p + (size_t)((b * heads + h) * k->past) * row, (size_t)k->past * row);
            for (int64_t j = 0; j < k->new_keys; j++)
                memcpy(p + (size_t)(k->past + j) * row, at_head(now, from, k->size, b, h, j), row);
        }
}

/* Where keys and values lie: as given, or behind those of the past. */
static void caches(const struct attention *k, const struct step *s, char *scratch, const char **key,
                   const char **value)
{
    if (k->packed) {
        *key = *value = s->in[0]->p;
        return;
    }
    const struct tensor *past[2] = { input_of(s, 4), input_of(s, 5) }, *now[2] = { s->in[1], s->in[2] };
    int64_t size[2] = { k->q_size, k->v_size }, heads = k->heads / k->group;
    char *at[2] = { scratch + k->at_keys, scratch + k->at_values };
    const char **out[2] = { key, value };
    for (int i = 0; i < 2; i++) {
        struct tensor *present = output_of(s, 1 + i);
        struct stride from = now[i]->rank == 4
                                 ? (struct stride){ heads * k->new_keys * size[i], k->new_keys * size[i],
                                                    size[i] }
                                 : (struct stride){ k->new_keys * heads * size[i], size[i], heads * size[i] };
        char *to = present ? present->p : past[i] ? at[i] : NULL;
        if (to)
            cache_fill(k, past[i], now[i], &from, heads, size[i], to);
        *out[i] = past[i] ? to : now[i]->p;
    }
}

#define REAL float
#define N(name) name##_f32
#include "engine/cpu/attention_rows.h"
#undef REAL
#undef N
#define REAL double
#define N(name) name##_f64
#include "engine/cpu/attention_rows.h"
#undef REAL
#undef N

/* ---- binding ---- */

/* A block's scores should stay in the second-level cache. */
enum { QUERIES = 64, SCORES_MAX = 1 << 16 };

static bool is_float(const struct tensor *t)
{
    return t->type == TENSOR_F32 || t->type == TENSOR_F64 || t->type == TENSOR_BF16 || t->type == TENSOR_F16;
}

/* heads: of this tensor. */
static struct stride stride_of(const struct tensor *t, int64_t heads, int64_t *length, int64_t *size)
{
    if (t->rank == 4) {
        *length = t->d[2], *size = t->d[3];
        return (struct stride){ t->d[1] * t->d[2] * t->d[3], t->d[2] * t->d[3], t->d[3] };
    }
    *length = t->d[1], *size = t->d[2] / heads;
    return (struct stride){ t->d[1] * t->d[2], *size, t->d[2] };
}

static struct gemm product(struct attention *k, size_t *scratch, enum tensor_type in, enum tensor_type out,
                           int64_t m, int64_t n, int64_t depth, bool ta, bool tb, int64_t lda, int64_t ldb,
                           int64_t ldc, double alpha, float beta)
{
    struct gemm g = gemm_of(in, out, m, n, depth, ta, tb);
    (void)k;
    g.lda = lda, g.ldb = ldb, g.ldc = ldc;
    g.alpha = (float)alpha, g.beta = beta;
    gemm_plan(&g);
    *scratch = g.scratch > *scratch ? g.scratch : *scratch;
    return g;
}

static size_t reserve(size_t *scratch, size_t bytes)
{
    size_t at = *scratch;
    *scratch += (bytes + 63) / 64 * 64;
    return at;
}

/* all: scores of keys that are not seen are wanted, too. */
static double blocks_new(struct bind *b, struct attention *k, enum tensor_type type, bool grad, bool all,
                         size_t *gemm_scratch)
{
    enum tensor_type real = type == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32;
    int64_t rows = SCORES_MAX / (k->keys > 0 ? k->keys : 1);
    double flops = 0;
    rows = rows < 8 ? 8 : rows > QUERIES ? QUERIES : rows;
    k->row_max = k->keys;
    k->n_blocks = (k->length + rows - 1) / rows;
    k->blocks = NEW_N(b->a, struct block, k->n_blocks + 1);
    for (int64_t i = 0; i < k->n_blocks; i++) {
        struct block *p = &k->blocks[i];
        int64_t from = i * rows, m = k->length - from < rows ? k->length - from : rows;
        int64_t n = all ? k->keys : keys_seen(k, NULL, 0, from + m - 1, k->keys).to, ld = k->row_max;
        *p = (struct block){ .from = from, .rows = m, .keys = n };
        p->scores = product(k, gemm_scratch, type, real, m, n, k->q_size, false, true, k->q.row, k->k.row, ld,
                            k->scale, 0);
        flops += 2 * (double)m * (double)n * (double)(k->q_size + k->v_size) * (grad ? 2.5 : 1);
        if (!grad) {
            p->values = product(k, gemm_scratch, type, type, m, k->v_size, n, false, false, ld, k->v.row,
                                k->y.row, 1, 0);
            continue;
        }
        p->slopes = product(k, gemm_scratch, type, real, m, n, k->v_size, false, true, k->y.row, k->v.row, ld,
                            1, 0);
        p->dq = product(k, gemm_scratch, type, type, m, k->q_size, n, false, false, ld, k->k.row, k->q.row, 1,
                        0);
        p->dk = product(k, gemm_scratch, type, real, n, k->q_size, m, true, false, ld, k->q.row, k->q_size, 1,
                        1);
        p->dv = product(k, gemm_scratch, type, real, n, k->v_size, m, true, false, ld, k->y.row, k->v_size, 1,
                        1);
    }
    return flops * (double)k->batch * (double)k->heads;
}

static void mask_bind(struct attention *k, const struct tensor *mask)
{
    int64_t step = 1;
    for (int i = 0; mask && i < mask->rank; i++) {
        int axis = mask->rank - 1 - i; /* from the last one on */
        if (i == 0)
            k->mask_length = mask->d[axis];
        else
            k->mask_step[3 - i] = mask->d[axis] == 1 ? 0 : step;
        step *= mask->d[axis];
    }
}

/* What is left once it is known how heads lie. */
static err attention_ready(struct bind *b, struct attention *k, const struct tensor *q, bool grad)
{
    const struct tensor *past = grad || k->packed ? NULL : bind_in(b, 4);
    int64_t kv_heads = k->heads / k->group;
    k->size = tensor_size(q->type);
    k->halves = k->size == 2;
    k->causal = attr_i(b->n, "is_causal", 0) != 0;
    k->scale = (double)attr_f(b->n, "scale", 0);
    if (!attr_find(b->n, "scale"))
        k->scale = 1 / sqrt((double)k->q_size);
    k->scale = (double)(float)k->scale; /* as products take it */
    k->left = attr_i(b->n, "left_window_size", -1);
    k->right = attr_i(b->n, "right_window_size", -1);
    k->softcap = (double)attr_f(b->n, "softcap", 0);
    k->mode = (int)attr_i(b->n, "qk_matmul_output_mode", 0);
    mask_bind(k, bind_in(b, k->mask_in));
    if (q->n == 0 || k->keys == 0)
        k->batch = 0;

    size_t real = q->type == TENSOR_F64 ? 8 : 4, need = 0, gemm_scratch = 0;
    b->step->flops = blocks_new(b, k, q->type, grad, !grad && !k->packed && (bind_out(b, 3) || bind_in(b, 6)),
                                &gemm_scratch);
    size_t scores = (size_t)(QUERIES * k->row_max);
    k->at_scores = reserve(&need, scores * real);
    k->at_slopes = grad ? reserve(&need, scores * real) : 0;
    k->at_half = k->halves ? reserve(&need, scores * 2) : 0;
    k->at_half_d = grad && k->halves ? reserve(&need, scores * 2) : 0;
    k->at_sums = grad ? reserve(&need, (size_t)(k->keys * (k->q_size + k->v_size)) * real) : 0;
    k->at_told = reserve(&need, (size_t)(k->keys + 2 * k->v_size) * real);
    k->at_keys = past ? reserve(&need, (size_t)(k->batch * kv_heads * k->keys * k->q_size) * k->size) : 0;
    k->at_values = past ? reserve(&need, (size_t)(k->batch * kv_heads * k->keys * k->v_size) * k->size) : 0;
    k->at_gemm = need;
    b->step->scratch = need + gemm_scratch;
    b->step->state = k;
    if (grad)
        b->step->run = q->type == TENSOR_F64 ? attention_grad_f64 : attention_grad_f32;
    else
        b->step->run = q->type == TENSOR_F64 ? attention_f64 : attention_f32;
    return NULL;
}
static err bind_attention_at(struct bind *b, bool grad)
{
    const struct tensor *q = bind_in(b, grad), *key = bind_in(b, grad + 1), *value = bind_in(b, grad + 2);
    const struct tensor *past = grad ? NULL : bind_in(b, 4);
    struct attention *k = NEW(b->a, struct attention);
    int64_t kv_heads = key->rank == 4 ? key->d[1] : attr_i(b->n, "kv_num_heads", 1), length;
    if (!is_float(q))
        return cpu_no_kernel(b);
    k->batch = q->d[0];
    k->heads = q->rank == 4 ? q->d[1] : attr_i(b->n, "q_num_heads", 1);
    k->group = k->heads / kv_heads;
    k->q = stride_of(q, k->heads, &k->length, &k->q_size);
    k->k = stride_of(key, kv_heads, &k->new_keys, &k->q_size);
    k->v = stride_of(value, kv_heads, &length, &k->v_size);
    k->y = q->rank == 4
               ? (struct stride){ k->heads * k->length * k->v_size, k->length * k->v_size, k->v_size }
               : (struct stride){ k->heads * k->length * k->v_size, k->v_size, k->heads * k->v_size };
    k->past = past ? past->d[2] : 0;
    k->keys = k->past + k->new_keys;
    if (past) {
        k->k = (struct stride){ kv_heads * k->keys * k->q_size, k->keys * k->q_size, k->q_size };
        k->v = (struct stride){ kv_heads * k->keys * k->v_size, k->keys * k->v_size, k->v_size };
    }
    k->mask_in = grad ? 6 : 3;
    return attention_ready(b, k, q, grad);
}
/* Queries, keys and values of a position side by side: [batch, length, (heads + 2 kv_heads)·size]. */
static err bind_packed_at(struct bind *b, bool grad)
{
    const struct tensor *x = bind_in(b, grad);
    struct attention *k = NEW(b->a, struct attention);
    int64_t kv_heads = attr_i(b->n, "kv_num_heads", 1);
    if (!is_float(x))
        return cpu_no_kernel(b);
    k->packed = true;
    k->batch = x->d[0], k->length = k->keys = k->new_keys = x->d[1];
    k->heads = attr_i(b->n, "q_num_heads", 1);
    k->group = k->heads / kv_heads;
    int64_t size = k->q_size = k->v_size = x->d[2] / (k->heads + 2 * kv_heads);
    k->q = (struct stride){ x->d[1] * x->d[2], size, x->d[2], 0 };
    k->k = k->v = k->q;
    k->k.from = k->heads * size;
    k->v.from = (k->heads + kv_heads) * size;
    k->y = (struct stride){ k->heads * k->length * size, size, k->heads * size, 0 };
    k->mask_in = grad ? 4 : 1;
    return attention_ready(b, k, x, grad);
}
static err bind_packed(struct bind *b)
{
    return bind_packed_at(b, false);
}
static err bind_packed_grad(struct bind *b)
{
    return bind_packed_at(b, true);
}
static err bind_attention(struct bind *b)
{
    return bind_attention_at(b, false);
}
static err bind_attention_grad(struct bind *b)
{
    return bind_attention_at(b, true);
}

static err bind_rotary(struct bind *b)
{
    const struct tensor *x = bind_in(b, 0);
    struct rotary *k = NEW(b->a, struct rotary);
    if (!is_float(x))
        return cpu_no_kernel(b);
    k->batch = x->n > 0 ? x->d[0] : 0;
    k->heads = x->rank == 4 ? x->d[1] : attr_i(b->n, "num_heads", 1);
    k->x = stride_of(x, k->heads, &k->length, &k->size);
    k->turned = attr_i(b->n, "rotary_embedding_dim", 0);
    k->turned = k->turned > 0 ? k->turned : k->size;
    k->interleaved = attr_i(b->n, "interleaved", 0) != 0;
    k->back = attr_i(b->n, "back", 0) != 0;
    b->step->state = k;
    b->step->scratch = 4 * (size_t)k->size * sizeof(double);
    b->step->run = x->type == TENSOR_F64 ? rotary_f64 : rotary_f32;
    return NULL;
}

#define K(op, fn, in_place) { OP_##op, fn, in_place },
const struct cpu_group SIMD(attention_group) = { { ATTENTION_KERNELS(K){ 0 } } };
#undef K
