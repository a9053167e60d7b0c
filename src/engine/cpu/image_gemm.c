// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/gemm.h"
#include "engine/cpu/image.h"

/* Convolutions as products, image by image and group by group, where oneDNN is not there. Channels lie last; the windows of
 * an image are copied side by side: a row for each output, with kernel × channels of a group in it. Weights are turned to
 * (out, kernel, in) at each run, as the rows are. */
struct windows {
    struct conv v;
    enum tensor_type type;
    struct gemm product; /* forward: y = rows · wᵀ; by data: rows = dy · w; by weights: dw = dyᵀ · rows */
    struct gemm add;     /* by weights: images after the first */
    int64_t cg, mg, k, outs;
    size_t w_at, sum_at, gemm_at; /* in scratch, behind the rows */
};

static int64_t size_of(const struct windows *c)
{
    return (int64_t)tensor_size(c->type);
}

/* One image's windows of group g, or the other way, added up in floats. */
// clang-format off
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define PLACE(a) (o##a * q->stride[a] - q->lo[a] + k##a * q->dilation[a])
#define WALK                                                                              \
    EACH(o0, q->out[0])                                                                   \
    EACH(o1, q->out[1]) EACH(o2, q->out[2]) EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1]) \
        EACH(k2, q->kernel[2])
#define INSIDE                                                                                        \
    (PLACE(0) >= 0 && PLACE(0) < q->in[0] && PLACE(1) >= 0 && PLACE(1) < q->in[1] && PLACE(2) >= 0 && \
     PLACE(2) < q->in[2])
#define PIXEL (PLACE(0) * c->v.x.ss[0] + PLACE(1) * c->v.x.ss[1] + PLACE(2) * c->v.x.ss[2])
// clang-format on

static void rows_from(const struct windows *c, const char *x, char *rows)
{
    const struct window *q = &c->v.w;
    const size_t bytes = (size_t)(c->cg * size_of(c));
    if (c->cg == c->v.x.c && q->dilation[2] == 1) { /* a row of the window is one piece, where it is inside */
        const size_t row = bytes * (size_t)q->kernel[2];
        const int64_t k2 = 0;
        EACH(o0, q->out[0])
        EACH(o1, q->out[1]) EACH(o2, q->out[2]) EACH(k0, q->kernel[0]) EACH(k1, q->kernel[1])
        {
            const int64_t from = PLACE(2), before = from < 0 ? -from : 0,
                          after = from + q->kernel[2] > q->in[2] ? from + q->kernel[2] - q->in[2] : 0;
            const bool outside = PLACE(0) < 0 || PLACE(0) >= q->in[0] || PLACE(1) < 0 || PLACE(1) >= q->in[1];
            if (outside || before + after > 0)
                memset(rows, 0, row);
            if (!outside && before + after < q->kernel[2])
                memcpy(rows + (size_t)before * bytes, x + (PIXEL + before * c->v.x.ss[2]) * size_of(c),
                       row - (size_t)(before + after) * bytes);
            rows += row;
        }
        return;
    }
    WALK
    {
        if (INSIDE)
            memcpy(rows, x + PIXEL * size_of(c), bytes);
        else
            memset(rows, 0, bytes);
        rows += bytes;
    }
}

static void rows_back(const struct windows *c, const float *rows, float *x)
{
    const struct window *q = &c->v.w;
    WALK
    {
        if (INSIDE) {
            float *to = x + PIXEL;
            for (int64_t i = 0; i < c->cg; i++)
                to[i] += rows[i];
        }
        rows += c->cg;
    }
}

/* (out, in, kernel) to (out, kernel, in). */
static void turn_weights(const struct windows *c, const char *w, char *to)
{
    const int64_t size = size_of(c), kernels = c->v.kernels;
    EACH(m, c->v.y.c) EACH(k, kernels) EACH(i, c->cg)
    {
        memcpy(to, w + ((m * c->cg + i) * kernels + k) * size, (size_t)size);
        to += size;
    }
}

static void run_forward(const struct step *s, struct rank *r)
{
    const struct windows *c = s->state;
    char *rows = r->scratch, *w = rows + c->w_at;
    const char *x = s->in[0]->p;
    char *y = s->out[0]->p;
    const int64_t size = size_of(c);
    const float *bias = s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL;
    turn_weights(c, s->in[1]->p, w);
    EACH(n, c->v.x.n) EACH(g, c->v.w.group)
    {
        rows_from(c, x + (n * c->v.x.sn + g * c->cg) * size, rows);
        gemm_run(&c->product, rows, w + g * c->mg * c->k * size, y + (n * c->v.y.sn + g * c->mg) * size,
                 bias ? &(struct gemm_more){ .bias = bias + g * c->mg } : NULL, rows + c->gemm_at);
    }
}

static void run_back(const struct step *s, struct rank *r)
{
    const struct windows *c = s->state;
    char *rows = r->scratch, *w = rows + c->w_at;
    float *image = (float *)(void *)(rows + c->sum_at);
    const char *dy = s->in[0]->p;
    char *dx = s->out[0]->p;
    const int64_t size = size_of(c), per = c->v.x.sn;
    const float *bias = s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL;
    turn_weights(c, s->in[1]->p, w);
    EACH(n, c->v.x.n)
    {
        EACH(i, per) image[i] = bias ? bias[i % c->v.x.c] : 0;
        EACH(g, c->v.w.group)
        {
            gemm_run(&c->product, dy + (n * c->v.y.sn + g * c->mg) * size, w + g * c->mg * c->k * size, rows,
                     NULL, rows + c->gemm_at);
            rows_back(c, (const float *)(const void *)rows, image + g * c->cg);
        }
        floats_to(c->type, image, per, dx + n * per * size);
    }
}

static void run_weights(const struct step *s, struct rank *r)
{
    const struct windows *c = s->state;
    char *rows = r->scratch;
    float *sum = (float *)(void *)(rows + c->w_at);
    const char *x = s->in[0]->p, *dy = s->in[1]->p;
    const int64_t size = size_of(c), kernels = c->v.kernels;
    EACH(n, c->v.x.n) EACH(g, c->v.w.group)
    {
        rows_from(c, x + (n * c->v.x.sn + g * c->cg) * size, rows);
        gemm_run(n == 0 ? &c->product : &c->add, dy + (n * c->v.y.sn + g * c->mg) * size, rows,
                 sum + g * c->mg * c->k, NULL, rows + c->gemm_at);
    }
    EACH(m, c->v.y.c) EACH(i, c->cg) EACH(k, kernels)
    {
        const float *v = &sum[(m * kernels + k) * c->cg + i];
        floats_to(s->out[0]->type, v, 1,
                  (char *)s->out[0]->p +
                      ((m * c->cg + i) * kernels + k) * (int64_t)tensor_size(s->out[0]->type));
    }
}

static size_t round64(int64_t n)
{
    return ((size_t)n + 63) & ~(size_t)63;
}

/* way: 0 forward, 1 by data, 2 by weights; x, y: on the input's and the output's side. */
bool bind_windows(struct bind *b, const struct conv *v, const struct tensor *x, const struct tensor *w,
                  const struct tensor *y, int way)
{
    const enum tensor_type t = x->type;
    const struct tensor *bias = bind_in(b, 2);
    if ((t != TENSOR_F32 && t != TENSOR_BF16) || y->type != t || (way < 2 && w->type != t) || v->x.sc != 1 ||
        v->y.sc != 1 || (bias && bias->type != TENSOR_F32))
        return false;
    struct windows *c = NEW(b->a, struct windows);
    *c = (struct windows){ .v = *v, .type = t, .cg = v->x.c / v->w.group, .mg = v->y.c / v->w.group };
    c->k = c->cg * v->kernels;
    c->outs = v->w.out[0] * v->w.out[1] * v->w.out[2];
    if (way == 0) {
        c->product = gemm_of(t, t, c->outs, c->mg, c->k, false, true);
        c->product.ldc = v->y.c;
    } else if (way == 1) {
        c->product = gemm_of(t, TENSOR_F32, c->outs, c->k, c->mg, false, false);
        c->product.lda = v->y.c;
    } else {
        c->product = gemm_of(t, TENSOR_F32, c->mg, c->k, c->outs, true, false);
        c->product.lda = v->y.c;
    }
    gemm_plan(&c->product);
    c->add = c->product;
    c->add.beta = 1;
    gemm_plan(&c->add);
    c->w_at = round64(c->outs * c->k * 4);
    c->sum_at = c->w_at + round64(v->y.c * c->k * 4);
    c->gemm_at = c->sum_at + (way == 1 ? round64(v->x.sn * 4) : 0);
    b->step->scratch = c->gemm_at +
                       (c->add.scratch > c->product.scratch ? c->add.scratch : c->product.scratch);
    b->step->state = c;
    b->step->run = way == 0 ? run_forward : way == 1 ? run_back : run_weights;
    return true;
}
