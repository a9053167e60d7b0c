// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/cpu.h"
#include "engine/cpu/gemm.h"

#include <string.h>

/* A product, once for each batch. Offsets are elements. */
struct product {
    struct gemm g;
    int64_t batches, *a_at, *b_at;
    int64_t c_step;       /* 0: all batches are added up in one place */
    struct gemm first;    /* of several that are added up: writes, the others add */
    bool addend;          /* input 2 is C of Gemm, laid into Y before */
    int64_t c_row, c_col; /* its strides in elements; 0: broadcast */
    float c_scale;
    size_t bias_at; /* in scratch, where the bias becomes floats; gemm's own part lies before */
};

/* ---- whole numbers, which folding may need ---- */

#define WHOLE(name, T)                                                                       \
    static void whole_##name(const struct gemm *g, const void *a_, const void *b_, void *c_) \
    {                                                                                        \
        const T *a = a_, *b = b_;                                                            \
        T *c = c_;                                                                           \
        for (int64_t i = 0; i < g->m; i++)                                                   \
            for (int64_t j = 0; j < g->n; j++) {                                             \
                T s = g->beta != 0 ? c[i * g->ldc + j] : 0;                                  \
                for (int64_t k = 0; k < g->k; k++)                                           \
                    s += (g->ta ? a[k * g->lda + i] : a[i * g->lda + k]) *                   \
                         (g->tb ? b[j * g->ldb + k] : b[k * g->ldb + j]);                    \
                c[i * g->ldc + j] = s;                                                       \
            }                                                                                \
    }
WHOLE(u32, uint32_t)
WHOLE(u64, uint64_t)

static void run_one(const struct product *p, const struct gemm *g, const char *a, const char *b, char *c,
                    const struct gemm_more *more, void *scratch)
{
    (void)p;
    /* Signed and unsigned wrap alike. */
    if (g->in == TENSOR_I32 || g->in == TENSOR_U32)
        whole_u32(g, a, b, c);
    else if (g->in == TENSOR_I64 || g->in == TENSOR_U64)
        whole_u64(g, a, b, c);
    else
        gemm_run(g, a, b, c, more, scratch);
}

/* C of Gemm, broadcast into Y, so that the product is added to it. */
static void lay_addend(const struct product *p, const struct tensor *c, const struct tensor *y)
{
    const size_t size = tensor_size(y->type);
    for (int64_t i = 0; i < p->g.m; i++)
        for (int64_t j = 0; j < p->g.n; j++)
            memcpy((char *)y->p + (size_t)(i * p->g.n + j) * size,
                   (const char *)c->p + (size_t)(i * p->c_row + j * p->c_col) * size, size);
}

static void run_product(const struct step *s, struct rank *r)
{
    const struct product *p = s->state;
    const struct tensor *a = s->in[0], *b = s->in[1], *y = s->out[0], *bias = s->n_in > 2 ? s->in[2] : NULL;
    const int64_t in_size = (int64_t)tensor_size(a->type), out_size = (int64_t)tensor_size(y->type);
    struct gemm_more more = { 0 };
    if (p->addend) {
        lay_addend(p, bias, y);
    } else if (bias) {
        more.bias = bias->p;
        if (p->bias_at) {
            float *wide = (float *)(void *)((char *)r->scratch + p->bias_at);
            floats_of(bias->type, bias->p, bias->n, wide);
            more.bias = wide;
        }
    }
    const char *mask = s->n_in > 3 && s->in[3] ? s->in[3]->p : NULL;
    if (s->n_in > 4 && s->in[4]->p != y->p)
        memcpy(y->p, s->in[4]->p, (size_t)y->n * tensor_size(y->type));
    for (int64_t i = 0; i < p->batches; i++) {
        if (mask)
            more.mask = mask + i * p->c_step * out_size;
        const struct gemm *g = p->c_step == 0 && i == 0 ? &p->first : &p->g;
        run_one(p, g, (const char *)a->p + p->a_at[i] * in_size, (const char *)b->p + p->b_at[i] * in_size,
                (char *)y->p + i * p->c_step * out_size, &more, r->scratch);
    }
}

static int64_t batch_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->rank - 2; i++)
        n *= t->d[i];
    return n;
}

/* Where batch i of the broadcast batches lies in a tensor of its own batches. */
static void batch_offsets(const struct tensor *t, const int64_t *d, int rank, int64_t n, int64_t *at)
{
    int64_t step[TENSOR_RANK_MAX] = { 0 }, size = t->rank >= 2 ? t->d[t->rank - 1] * t->d[t->rank - 2] : t->n;
    for (int i = rank - 1, k = t->rank - 3; i >= 0 && k >= 0; i--, k--) {
        step[i] = t->d[k] == 1 ? 0 : size;
        size *= t->d[k];
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t left = i, x = 0;
        for (int k = rank - 1; k >= 0; k--) {
            x += left % d[k] * step[k];
            left /= d[k];
        }
        at[i] = x;
    }
}

static bool is_float(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_BF16 || t == TENSOR_F16;
}

static err check_types(const struct bind *b)
{
    enum tensor_type in = bind_in(b, 0)->type, out = bind_out(b, 0)->type;
    bool whole = in == TENSOR_I32 || in == TENSOR_I64 || in == TENSOR_U32 || in == TENSOR_U64;
    bool half = in == TENSOR_BF16 || in == TENSOR_F16;
    if (bind_in(b, 1)->type != in || (out != in && !(half && out == TENSOR_F32)) || !(whole || is_float(in)))
        return cpu_no_kernel(b);
    return NULL;
}

static err bind_product(struct bind *b, bool ta, bool tb, bool sum, struct product **out)
{
    TRY(check_types(b));
    const struct tensor *x = bind_in(b, 0), *y = bind_in(b, 1), *z = bind_out(b, 0);
    struct product *p = NEW(b->a, struct product);
    int64_t m = x->rank == 1 ? 1 : x->d[x->rank - (ta ? 1 : 2)],
            k = x->rank == 1 ? x->d[0] : x->d[x->rank - (ta ? 2 : 1)];
    int64_t n = y->rank == 1 ? 1 : y->d[y->rank - (tb ? 2 : 1)];
    int64_t bx = batch_count(x), by = batch_count(y), d[TENSOR_RANK_MAX], batches = 1;
    int rank = (x->rank > y->rank ? x->rank : y->rank) - 2;
    rank = rank < 0 ? 0 : rank;
    for (int i = 0; i < rank; i++) {
        int kx = i - rank + x->rank - 2, ky = i - rank + y->rank - 2;
        int64_t dx = kx >= 0 ? x->d[kx] : 1, dy = ky >= 0 ? y->d[ky] : 1;
        d[i] = dx == 1 ? dy : dx;
        batches *= d[i];
    }
    if (by == 1 && !ta && !sum) { /* all rows of all batches in one product */
        m *= bx;
        batches = 1;
    } else if (sum && ta && !tb && bx == batches && by == batches) { /* as one long sum */
        k *= batches;
        batches = 1;
    }
    p->batches = batches;
    p->a_at = NEW_N(b->a, int64_t, (size_t)batches + 1);
    p->b_at = NEW_N(b->a, int64_t, (size_t)batches + 1);
    if (batches > 1) {
        batch_offsets(x, d, rank, batches, p->a_at);
        batch_offsets(y, d, rank, batches, p->b_at);
    }
    p->c_step = sum ? 0 : m * n;
    p->g = gemm_of(x->type, z->type, m, n, k, ta, tb);
    *out = p;
    return NULL;
}

static void bind_done(struct bind *b, struct product *p)
{
    if (bind_in(b, 4))
        p->g.beta = 1;
    gemm_plan(&p->g);
    p->first = p->g;
    if (p->c_step == 0 && p->batches > 1) {
        p->g.beta = 1;
        gemm_plan(&p->g);
    }
    size_t scratch = p->g.scratch > p->first.scratch ? p->g.scratch : p->first.scratch;
    const struct tensor *bias = bind_in(b, 2);
    if (bias && !p->addend && bias->type != TENSOR_F32 && bias->type != TENSOR_F64) {
        p->bias_at = scratch + 64;
        scratch = p->bias_at + (size_t)bias->n * 4;
    }
    b->step->state = p;
    b->step->run = run_product;
    b->step->scratch = scratch;
    b->step->flops = 2.0 * (double)p->g.m * (double)p->g.n * (double)p->g.k * (double)p->batches;
}

static err bind_matmul(struct bind *b)
{
    struct product *p;
    TRY(bind_product(b, false, false, false, &p));
    bind_done(b, p);
    return NULL;
}

static err bind_matmul_t(struct bind *b)
{
    struct product *p;
    TRY(bind_product(b, attr_i(b->n, "transA", 0) != 0, attr_i(b->n, "transB", 0) != 0,
                     attr_i(b->n, "sum", 0) != 0, &p));
    p->g.alpha = attr_f(b->n, "alpha", 1);
    p->g.act = (enum gemm_act)attr_i(b->n, "act", GEMM_LINEAR);
    bind_done(b, p);
    return NULL;
}

static err bind_gemm(struct bind *b)
{
    struct product *p;
    TRY(bind_product(b, attr_i(b->n, "transA", 0) != 0, attr_i(b->n, "transB", 0) != 0, false, &p));
    p->g.alpha = attr_f(b->n, "alpha", 1);
    p->g.act = (enum gemm_act)attr_i(b->n, "act", GEMM_LINEAR);
    const struct tensor *c = bind_in(b, 2);
    float beta = attr_f(b->n, "beta", 1);
    if (c) {
        bool by_column = c->n == p->g.n && c->rank >= 1 && c->d[c->rank - 1] == p->g.n && is_float(c->type);
        if (!(by_column && beta == 1)) {
            p->addend = true;
            p->g.beta = beta;
            p->c_col = c->rank >= 1 && c->d[c->rank - 1] != 1 ? 1 : 0;
            p->c_row = c->rank == 2 && c->d[0] != 1 ? c->d[1] : 0;
            if (c->type != bind_out(b, 0)->type)
                return cpu_no_kernel(b);
        }
    }
    if (!is_float(p->g.in) && (p->g.alpha != 1 || (c && beta != 1)))
        return cpu_no_kernel(b);
    bind_done(b, p);
    return NULL;
}

const struct cpu_kernel cpu_matrix[] = {
    { OP_MatMul, bind_matmul },
    { OP_MatMulT, bind_matmul_t },
    { OP_Gemm, bind_gemm },
    { 0 },
};
