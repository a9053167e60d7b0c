// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/image.h"
#include "engine/cpu/gemm.h"
#include "engine/cpu/image_conv.h"
#include "engine/cpu/image_rows.h"
#include "engine/cpu/onednn.h"

#include <math.h>

struct picture picture_of(const struct tensor *t)
{
    struct picture p = { .n = t->d[0], .c = t->rank > 1 ? t->d[1] : 1, .s = { 1, 1, 1 } };
    for (int i = 2; i < t->rank && i < 2 + WINDOW_AXES; i++)
        p.s[i - 2] = t->d[i];
    const int64_t pixels = p.s[0] * p.s[1] * p.s[2], step = t->nhwc ? p.c : 1;
    p.sn = p.c * pixels;
    p.sc = t->nhwc || p.c == 1 ? 1 : pixels;
    p.ss[2] = step;
    p.ss[1] = step * p.s[2];
    p.ss[0] = step * p.s[2] * p.s[1];
    return p;
}

/* ---- reference loops ---- */

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
#define PLACE(a) (o##a * q->stride[a] - q->lo[a] + k##a * q->dilation[a])
#define OUTSIDE (i0 < 0 || i0 >= q->in[0] || i1 < 0 || i1 >= q->in[1] || i2 < 0 || i2 >= q->in[2])
#define AT(p, n, c, i0, i1, i2) \
    ((n) * (p).sn + (c) * (p).sc + (i0) * (p).ss[0] + (i1) * (p).ss[1] + (i2) * (p).ss[2])
#define T float
#define NAME(x) x##_f32
#include "engine/cpu/image_text.h"
#define T double
#define NAME(x) x##_f64
#include "engine/cpu/image_text.h"

const struct image_kernels *image_reference(enum tensor_type t)
{
    return t == TENSOR_F32 ? &kernels_f32 : t == TENSOR_F64 ? &kernels_f64 : NULL;
}

/* ---- halves by way of F32 ---- */

struct widened {
    struct step inner;
    struct tensor *tensors; /* inputs, then outputs, as the inner step sees them */
    size_t *at;             /* where in scratch each stands; the inner step's own scratch comes first */
};

static bool is_half(enum tensor_type t)
{
    return t == TENSOR_BF16 || t == TENSOR_F16;
}

bool any_half(const struct bind *b)
{
    for (int i = 0; i < b->step->n_in; i++)
        if (bind_in(b, i) && is_half(bind_in(b, i)->type))
            return true;
    return bind_out(b, 0) && is_half(bind_out(b, 0)->type);
}

static struct tensor *outer(const struct step *s, int i)
{
    return i < s->n_in ? s->in[i] : s->out[i - s->n_in];
}

static void run_widened(const struct step *s, struct rank *r)
{
    const struct widened *w = s->state;
    for (int i = 0; i < s->n_in + s->n_out; i++) {
        const struct tensor *t = outer(s, i);
        if (!t)
            continue;
        w->tensors[i].p = is_half(t->type) ? (char *)r->scratch + w->at[i] : t->p;
        if (is_half(t->type) && i < s->n_in)
            floats_of(t->type, t->p, t->n, w->tensors[i].p);
    }
    w->inner.run(&w->inner, r);
    for (int i = s->n_in; i < s->n_in + s->n_out; i++)
        if (outer(s, i) && is_half(outer(s, i)->type))
            floats_to(outer(s, i)->type, w->tensors[i].p, outer(s, i)->n, outer(s, i)->p);
}

err bind_widened(struct bind *b, err (*bind)(struct bind *))
{
    struct step *s = b->step;
    const int n = s->n_in + s->n_out;
    struct widened *w = NEW(b->a, struct widened);
    w->tensors = NEW_N(b->a, struct tensor, (size_t)n);
    w->at = NEW_N(b->a, size_t, (size_t)n);
    w->inner = *s;
    w->inner.in = NEW_N(b->a, struct tensor *, (size_t)n);
    w->inner.out = w->inner.in + s->n_in;
    for (int i = 0; i < n; i++) {
        struct tensor *t = outer(s, i);
        if (!t)
            continue;
        w->tensors[i] = *t;
        if (is_half(t->type)) {
            w->tensors[i].type = TENSOR_F32;
            w->tensors[i].p = NULL;
        }
        w->inner.in[i] = &w->tensors[i];
    }
    struct bind inner = *b;
    inner.step = &w->inner;
    TRY(bind(&inner));
    size_t scratch = (w->inner.scratch + 63) & ~(size_t)63;
    for (int i = 0; i < n; i++)
        if (outer(s, i) && is_half(outer(s, i)->type)) {
            w->at[i] = scratch;
            scratch += ((size_t)outer(s, i)->n * 4 + 63) & ~(size_t)63;
        }
    s->run = run_widened;
    s->state = w;
    s->scratch = scratch;
    s->flops = w->inner.flops;
    return NULL;
}

/* ---- convolutions ---- */

struct conv_step {
    struct conv v;
    const struct image_kernels *k;
    const struct image_rows *rows; /* channels lie last, in F32 or BF16; else NULL */
    bool half;
};

/* Axes that are not there are one wide. */
static void three_axes(struct window *w)
{
    for (int i = w->axes; i < WINDOW_AXES; i++) {
        w->in[i] = w->out[i] = w->kernel[i] = w->stride[i] = w->dilation[i] = w->end[i] = 1;
        w->lo[i] = w->hi[i] = 0;
    }
}

static err conv_of(const struct bind *b, const struct tensor *x, const struct tensor *y,
                   const int64_t *kernel, bool transposed, struct conv *v)
{
    bool known;
    struct shape s = { .rank = x->rank };
    memcpy(s.d, x->d, sizeof s.d);
    if (transposed) {
        s.rank = y->rank;
        memcpy(s.d, y->d, sizeof s.d);
        TRY(window_transposed(b->g, b->n, &s, kernel, &v->w, &known));
    } else {
        TRY(window_of(b->g, b->n, &s, kernel, &v->w, &known));
    }
    for (int i = 0; i < v->w.axes; i++)
        v->w.out[i] = y->d[i + 2], v->w.in[i] = x->d[i + 2];
    three_axes(&v->w);
    v->x = picture_of(x);
    v->y = picture_of(y);
    v->kernels = v->w.kernel[0] * v->w.kernel[1] * v->w.kernel[2];
    return NULL;
}

static double conv_flops(const struct conv *v)
{
    return 2.0 * (double)picture_pixels(&v->y) * (double)v->y.c * (double)(v->x.c / v->w.group) *
           (double)v->kernels;
}

static void run_conv(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    c->k->conv(&c->v, s->in[0]->p, s->in[1]->p, s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL, s->out[0]->p);
}

static void run_conv_back(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    c->k->conv_back(&c->v, s->in[0]->p, s->in[1]->p, s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL,
                    s->out[0]->p);
}

static void run_conv_weights(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    c->k->conv_weights(&c->v, s->in[0]->p, s->in[1]->p, s->out[0]->p);
}

static err bind_any_conv(struct bind *b)
{
    const int op = b->step->op->id;
    const struct tensor *in = bind_in(b, 0), *other = bind_in(b, 1), *out = bind_out(b, 0);
    struct conv_step *c = NEW(b->a, struct conv_step);
    c->k = image_reference(in->type);
    if (!c->k || out->type != in->type || other->type != in->type)
        return cpu_no_kernel(b);
    if (op == OP_Conv)
        TRY(conv_of(b, in, out, other->d + 2, false, &c->v));
    else if (op == OP_ConvTranspose)
        TRY(conv_of(b, out, in, other->d + 2, true, &c->v));
    else if (op == OP_ConvGradX)
        TRY(conv_of(b, out, in, other->d + 2, false, &c->v));
    else
        TRY(conv_of(b, in, other, out->d + 2, false, &c->v));
    b->step->run = op == OP_Conv ? run_conv : op == OP_ConvGradW ? run_conv_weights : run_conv_back;
    b->step->state = c;
    b->step->flops = conv_flops(&c->v);
    return NULL;
}

/* What Conv took in of a Relu or Clip behind it (layout.c). */
static bool conv_clip(const struct node *n, float *low, float *high)
{
    const struct attr *at = attr_find(n, "clip");
    *low = at ? at->fs[0] : -INFINITY;
    *high = at ? at->fs[1] : INFINITY;
    return at;
}

struct clipped {
    struct step inner;
    float low, high;
};

static void run_clipped(const struct step *s, struct rank *r)
{
    const struct clipped *c = s->state;
    c->inner.run(&c->inner, r);
    SIMD_PICK(image_convs)->clip(s->out[0]->p, s->out[0]->n, c->low, c->high);
}

/* For kernels that do not do it themselves; oneDNN's own would make numbers of what is none. */
static void bind_clipped(struct bind *b)
{
    struct clipped *c = NEW(b->a, struct clipped);
    if (!conv_clip(b->n, &c->low, &c->high))
        return;
    c->inner = *b->step;
    b->step->run = run_clipped;
    b->step->state = c;
}

/* The node's weights have their numbers, and keep them. If others read them, too, a form of its own for each could be much more
 * than the model's file has. */
static bool weights_stay(const struct bind *b)
{
    const int w = b->n->in[1];
    int readers = 0;
    for (size_t i = 0; i < b->g->nodes.n; i++)
        for (int k = 0; k < b->g->nodes.v[i].n_in; k++)
            readers += b->g->nodes.v[i].in[k] == w;
    return value_at(b->g, w)->kind == VALUE_CONST && bind_in(b, 1)->p && readers == 1;
}

static bool bind_own(struct bind *b, const struct conv *v)
{
    float low, high;
    (void)conv_clip(b->n, &low, &high);
    return bind_own_conv(b, v, weights_stay(b), low, high);
}

/* ---- convolutions by oneDNN ---- */

struct dnn_step {
    struct onednn_conv *conv;
    bool bias_after; /* a transposed convolution's */
};

static void add_bias(const struct tensor *y, const float *bias)
{
    const struct picture p = picture_of(y);
    const int64_t pixels = p.s[0] * p.s[1] * p.s[2];
    for (int64_t n = 0; n < p.n; n++)
        for (int64_t i = 0; i < (y->nhwc ? pixels : p.c); i++) {
            const int64_t count = y->nhwc ? p.c : pixels;
            float row[64];
            for (int64_t from = 0; from < count; from += 64) {
                const int64_t m = count - from < 64 ? count - from : 64;
                char *at = (char *)y->p + (size_t)(n * p.sn + i * count + from) * tensor_size(y->type);
                floats_of(y->type, at, m, row);
                for (int64_t k = 0; k < m; k++)
                    row[k] += bias[y->nhwc ? from + k : i];
                floats_to(y->type, row, m, at);
            }
        }
}

static void run_dnn(const struct step *s, struct rank *r)
{
    const struct dnn_step *d = s->state;
    void *bias = s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL;
    switch (s->op->id) {
    case OP_Conv:
        onednn_conv_run(d->conv, s->in[0]->p, s->in[1]->p, bias, s->out[0]->p, r->scratch);
        break;
    case OP_ConvGradW:
        onednn_conv_run(d->conv, s->in[0]->p, s->out[0]->p, NULL, s->in[1]->p, r->scratch);
        break;
    default:
        onednn_conv_run(d->conv, s->out[0]->p, s->in[1]->p, NULL, s->in[0]->p, r->scratch);
        if (d->bias_after)
            add_bias(s->out[0], bias);
    }
}

/* A picture of one axis is one of height 1: the walk is the same. */
static void flat_axis(struct onednn_conv_spec *s, const struct window *w)
{
    s->axes = w->axes == 1 ? 2 : w->axes;
    const int skip = w->axes == 1 ? 1 : 0;
    for (int i = 0; i < s->axes; i++) {
        const int k = i - skip;
        s->in[i] = k < 0 ? 1 : w->in[k];
        s->out[i] = k < 0 ? 1 : w->out[k];
        s->kernel[i] = k < 0 ? 1 : w->kernel[k];
        s->stride[i] = k < 0 ? 1 : w->stride[k];
        s->dilation[i] = k < 0 ? 1 : w->dilation[k];
        s->lo[i] = k < 0 ? 0 : w->lo[k];
        s->hi[i] = k < 0 ? 0 : w->hi[k];
    }
}

static bool bind_dnn(struct bind *b, const struct conv *v, const struct tensor *x, const struct tensor *w,
                     const struct tensor *y, enum onednn_way way)
{
    const struct tensor *bias = bind_in(b, 2);
    const enum tensor_type t = x->type;
    if ((t != TENSOR_F32 && t != TENSOR_BF16) || y->type != t ||
        (w->type != t && !(way == ONEDNN_BACK_WEIGHTS && w->type == TENSOR_F32)))
        return false;
    if (bias && bias->type != TENSOR_F32)
        return false;
    struct onednn_conv_spec s = {
        .way = way,
        .n = v->x.n,
        .x_channels = v->x.c,
        .y_channels = v->y.c,
        .group = v->w.group,
        .x = t,
        .w = w->type,
        .y = t,
        /* Of one channel both are the same bytes, and oneDNN likes them named alike. */
        .x_last = x->nhwc || (v->x.c == 1 && y->nhwc),
        .y_last = y->nhwc || (v->y.c == 1 && x->nhwc),
        .bias = bias && way == ONEDNN_FORWARD
    };
    if (way == ONEDNN_FORWARD)
        s.weights = weights_stay(b) ? w->p : NULL;
    flat_axis(&s, &v->w);
    struct dnn_step *d = NEW(b->a, struct dnn_step);
    if (!onednn_conv_new(b->a, &s, &d->conv, &b->step->scratch))
        return false;
    d->bias_after = bias && way == ONEDNN_BACK_DATA;
    b->step->run = run_dnn;
    b->step->state = d;
    return true;
}

static err bind_conv(struct bind *b)
{
    const int op = b->step->op->id;
    const struct tensor *in = bind_in(b, 0), *other = bind_in(b, 1), *out = bind_out(b, 0);
    struct conv v = { 0 };
    bool done, clips = false;
    if (any_half(b) && !simd_bf16_fast() && !simd_tiles()) /* the faster way here, by far */
        return bind_widened(b, bind_conv);
    if (op == OP_Conv) {
        TRY(conv_of(b, in, out, other->d + 2, false, &v));
        clips = bind_own(b, &v);
        done = clips || bind_dnn(b, &v, in, other, out, ONEDNN_FORWARD) ||
               bind_windows(b, &v, in, other, out, 0);
    } else if (op == OP_ConvGradW) {
        TRY(conv_of(b, in, other, out->d + 2, false, &v));
        done = bind_dnn(b, &v, in, out, other, ONEDNN_BACK_WEIGHTS) || bind_windows(b, &v, in, out, other, 2);
    } else {
        TRY(conv_of(b, out, in, other->d + 2, op == OP_ConvTranspose, &v));
        done = bind_dnn(b, &v, out, other, in, ONEDNN_BACK_DATA) || bind_windows(b, &v, out, other, in, 1);
    }
    if (done)
        b->step->flops = conv_flops(&v);
    else
        TRY(any_half(b) ? bind_widened(b, bind_conv) : bind_any_conv(b));
    if (!clips) /* by itself */
        bind_clipped(b);
    return NULL;
}

static void run_channel_sum(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    c->k->channel_sum(&c->v.x, s->in[0]->p, s->out[0]->p);
}

/* The sums are those that a norm takes, about 0. */
static void run_channel_sum_rows(const struct step *s, struct rank *r)
{
    const struct conv_step *c = s->state;
    const int64_t n = c->v.x.c;
    double *sums = r->scratch;
    float *pivot = (float *)(void *)(sums + 2 * n);
    memset(pivot, 0, (size_t)n * sizeof *pivot);
    c->rows->moments(c->half, picture_pixels(&c->v.x), n, s->in[0]->p, pivot, sums);
    for (int64_t i = 0; i < n; i++)
        pivot[i] = (float)sums[2 * i];
    floats_to(s->out[0]->type, pivot, n, s->out[0]->p);
}

static bool rows_type(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_BF16;
}

static err bind_channel_sum(struct bind *b)
{
    const struct tensor *x = bind_in(b, 0);
    if (x->nhwc && rows_type(x->type) && rows_type(bind_out(b, 0)->type)) {
        struct conv_step *rows = NEW(b->a, struct conv_step);
        *rows = (struct conv_step){ .v.x = picture_of(x),
                                    .rows = SIMD_PICK(image_rows),
                                    .half = x->type == TENSOR_BF16 };
        b->step->run = run_channel_sum_rows;
        b->step->state = rows;
        b->step->scratch = (size_t)rows->v.x.c * (2 * sizeof(double) + sizeof(float));
        return NULL;
    }
    if (any_half(b))
        return bind_widened(b, bind_channel_sum);
    struct conv_step *c = NEW(b->a, struct conv_step);
    c->k = image_reference(bind_in(b, 0)->type);
    if (!c->k || bind_out(b, 0)->type != bind_in(b, 0)->type)
        return cpu_no_kernel(b);
    c->v.x = picture_of(bind_in(b, 0));
    b->step->run = run_channel_sum;
    b->step->state = c;
    return NULL;
}

/* ---- pools ---- */

static void run_max_pool(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    int32_t *where = s->n_out > 2 && s->out[2] ? s->out[2]->p : NULL;
    if (c->rows)
        return c->rows->max_pool(c->half, &c->v, s->in[0]->p, s->out[0]->p, where);
    c->k->max_pool(&c->v, s->in[0]->p, s->out[0]->p, s->n_out > 1 && s->out[1] ? s->out[1]->p : NULL, where);
}

static void run_max_pool_back(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    if (c->rows)
        return c->rows->max_pool_back(c->half, &c->v, s->in[0]->p, s->in[1]->p, s->out[0]->p);
    c->k->max_pool_back(&c->v, s->in[0]->p, s->in[1]->p, s->out[0]->p);
}

static void run_average_pool(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    if (c->rows)
        return c->rows->average_pool(c->half, &c->v, s->in[0]->p, s->out[0]->p);
    c->k->average_pool(&c->v, s->in[0]->p, s->out[0]->p);
}

static void run_average_pool_back(const struct step *s, struct rank *r)
{
    (void)r;
    const struct conv_step *c = s->state;
    if (c->rows)
        return c->rows->average_pool_back(c->half, &c->v, s->in[0]->p, s->out[0]->p);
    c->k->average_pool_back(&c->v, s->in[0]->p, s->out[0]->p);
}

/* One form of rows fits: channels last on both sides, no indices of ONNX's order asked. */
static bool pool_rows(const struct bind *b, const struct tensor *x, const struct tensor *y)
{
    return rows_type(x->type) && y->type == x->type && x->nhwc && picture_of(y).sc == 1 && !bind_out(b, 1);
}

static err bind_pool(struct bind *b)
{
    const int op = b->step->op->id;
    const bool back = op == OP_MaxPoolGrad || op == OP_AveragePoolGrad,
               global = op == OP_GlobalAveragePool || op == OP_GlobalMaxPool;
    const struct tensor *x = back ? bind_out(b, 0) : bind_in(b, 0),
                        *y = back ? bind_in(b, 0) : bind_out(b, 0);
    struct conv_step *c = NEW(b->a, struct conv_step);
    c->rows = pool_rows(b, x, y) ? SIMD_PICK(image_rows) : NULL;
    c->half = x->type == TENSOR_BF16;
    if (!c->rows && any_half(b))
        return bind_widened(b, bind_pool);
    c->k = image_reference(x->type);
    if (!c->rows && (!c->k || y->type != x->type))
        return cpu_no_kernel(b);
    if (global) {
        c->v = (struct conv){ .x = picture_of(x), .y = picture_of(y) };
        for (int i = 0; i < WINDOW_AXES; i++) {
            c->v.w.in[i] = c->v.w.kernel[i] = c->v.w.end[i] = c->v.x.s[i];
            c->v.w.out[i] = c->v.w.stride[i] = c->v.w.dilation[i] = 1;
        }
    } else {
        TRY(conv_of(b, x, y, NULL, false, &c->v));
    }
    c->v.count_padding = attr_i(b->n, "count_include_pad", 0) != 0;
    c->v.column_major = attr_i(b->n, "storage_order", 0) != 0;
    b->step->run = op == OP_MaxPoolGrad                         ? run_max_pool_back
                   : op == OP_AveragePoolGrad                   ? run_average_pool_back
                   : op == OP_MaxPool || op == OP_GlobalMaxPool ? run_max_pool
                                                                : run_average_pool;
    b->step->state = c;
    return NULL;
}

/* ---- Resize ---- */

static void run_resize(const struct step *s, struct rank *r)
{
    (void)r;
    const struct resized *z = s->state;
    const bool back = s->op->id == OP_ResizeGrad;
    struct tensor *x = back ? s->out[0] : s->in[0], *y = back ? s->in[0] : s->out[0];
    memset(s->out[0]->p, 0, (size_t)s->out[0]->n * tensor_size(s->out[0]->type));
    image_reference(x->type)->resize(z, 0, 0, 0, 1, x->p, y->p, back);
}

static void steps_of(const struct tensor *t, int64_t *step)
{
    int64_t n = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        step[i] = n;
        n *= t->d[i];
    }
    if (t->nhwc) {
        step[1] = 1;
        step[3] = t->d[1];
        step[2] = t->d[1] * t->d[3];
    }
}

static err bind_resize(struct bind *b)
{
    if (any_half(b))
        return bind_widened(b, bind_resize);
    const bool back = b->step->op->id == OP_ResizeGrad;
    const struct tensor *x = back ? bind_out(b, 0) : bind_in(b, 0),
                        *y = back ? bind_in(b, 0) : bind_out(b, 0);
    if (!image_reference(x->type) || y->type != x->type)
        return cpu_no_kernel(b);
    struct resized *z = NEW(b->a, struct resized);
    bool known = true;
    if (back) {
        resize_from_attrs(b->n, &z->r);
    } else {
        struct shape s = { .rank = x->rank };
        memcpy(s.d, x->d, sizeof s.d);
        TRY(resize_of(b->g, b->n, &s, &z->r, &known));
        if (!known)
            return err_new(UNSUPPORTED, "Resize '%.*s': its sizes are no constants", STR(b->n->name));
    }
    memcpy(z->r.in, x->d, sizeof z->r.in);
    memcpy(z->r.out, y->d, sizeof z->r.out);
    for (int i = 0; i < x->rank; i++)
        z->taps[i] = resize_taps(b->a, &z->r, i);
    steps_of(x, z->x_step);
    steps_of(y, z->y_step);
    b->step->run = run_resize;
    b->step->state = z;
    return NULL;
}

/* ---- layouts ---- */

static void run_layout(const struct step *s, struct rank *r)
{
    (void)r;
    const struct tensor *x = s->in[0], *y = s->out[0];
    const struct picture from = picture_of(x), to = picture_of(y);
    const size_t size = tensor_size(x->type);
    if (x->nhwc == y->nhwc || from.c == 1 || from.s[0] * from.s[1] * from.s[2] == 1) {
        if (x->p != y->p)
            memcpy(y->p, x->p, (size_t)x->n * size);
        return;
    }
    const int64_t pixels = from.s[0] * from.s[1] * from.s[2], step_from = from.ss[2], step_to = to.ss[2];
    for (int64_t n = 0; n < from.n; n++)
        for (int64_t c = 0; c < from.c; c++) {
            const char *f = (const char *)x->p + (size_t)(n * from.sn + c * from.sc) * size;
            char *t = (char *)y->p + (size_t)(n * to.sn + c * to.sc) * size;
            for (int64_t i = 0; i < pixels; i++)
                if (size == 4)
                    memcpy(t + i * step_to * 4, f + i * step_from * 4, 4);
                else if (size == 2)
                    memcpy(t + i * step_to * 2, f + i * step_from * 2, 2);
                else
                    memcpy(t + (size_t)(i * step_to) * size, f + (size_t)(i * step_from) * size, size);
        }
}

static err bind_layout(struct bind *b)
{
    if (bind_in(b, 0)->rank != 4)
        return cpu_no_kernel(b);
    b->step->run = run_layout;
    return NULL;
}

const struct cpu_kernel cpu_image[] = {
    { OP_Conv, bind_conv },
    { OP_ConvTranspose, bind_conv },
    { OP_ConvGradX, bind_conv },
    { OP_ConvGradW, bind_conv },
    { OP_ChannelSum, bind_channel_sum },
    { OP_MaxPool, bind_pool },
    { OP_MaxPoolGrad, bind_pool },
    { OP_AveragePool, bind_pool },
    { OP_AveragePoolGrad, bind_pool },
    { OP_GlobalAveragePool, bind_pool },
    { OP_GlobalMaxPool, bind_pool },
    { OP_BatchNormalization, bind_batch_norm },
    { OP_BatchNormAct, bind_batch_norm },
    { OP_BatchNormGrad, bind_batch_norm_grad, .in_place = 1 },
    { OP_Resize, bind_resize },
    { OP_ResizeGrad, bind_resize },
    { OP_Layout, bind_layout },
    { 0 },
};
