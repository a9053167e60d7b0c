// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/onednn.h"

#include <pthread.h>
#include <stdatomic.h>
#if __has_include(<oneapi/dnnl/dnnl.h>)
#include <oneapi/dnnl/dnnl.h>
#define HAVE_ONEDNN 1
#endif

static _Atomic bool unwanted;
void onednn_use(bool use)
{
    atomic_store(&unwanted, !use);
}

#ifndef HAVE_ONEDNN
err onednn_version(struct arena *a, struct str *out)
{
    (void)a, (void)out;
    FAIL(UNAVAILABLE, "oneDNN was not there when this program was built");
}
bool onednn_there(void)
{
    return false;
}
bool onednn_conv_new(struct arena *a, const struct onednn_conv_spec *s, struct onednn_conv **out,
                     size_t *scratch)
{
    (void)a, (void)s, (void)out, (void)scratch;
    return false;
}
void onednn_conv_run(const struct onednn_conv *c, void *x, void *w, void *bias, void *y, void *scratch)
{
    (void)c, (void)x, (void)w, (void)bias, (void)y, (void)scratch;
}
#else

/* ---- the library ---- */

// clang-format off
#define CALLS(C) C(dnnl_version) C(dnnl_engine_create) C(dnnl_stream_create) C(dnnl_stream_destroy) C(dnnl_memory_create) \
    C(dnnl_memory_destroy) C(dnnl_memory_set_data_handle) C(dnnl_primitive_create) C(dnnl_primitive_execute)              \
    C(dnnl_primitive_destroy) C(dnnl_primitive_desc_destroy) C(dnnl_primitive_desc_query_md) C(dnnl_memory_desc_get_size) \
    C(dnnl_memory_desc_equal) C(dnnl_reorder_primitive_desc_create) C(dnnl_primitive_attr_create)                         \
    C(dnnl_primitive_attr_destroy) C(dnnl_primitive_attr_set_scratchpad_mode) C(dnnl_primitive_desc_query)
/* Version 3 makes primitive descriptors at once, and hides what a memory descriptor is. */
#if DNNL_VERSION_MAJOR >= 3
#define CALLS_OF_VERSION(C) C(dnnl_memory_desc_create_with_tag) C(dnnl_memory_desc_destroy)                               \
    C(dnnl_convolution_forward_primitive_desc_create) C(dnnl_convolution_backward_data_primitive_desc_create)             \
    C(dnnl_convolution_backward_weights_primitive_desc_create)
typedef const_dnnl_memory_desc_t md_ref;
#else
#define CALLS_OF_VERSION(C) C(dnnl_memory_desc_init_by_tag) C(dnnl_primitive_desc_create)                                 \
    C(dnnl_dilated_convolution_forward_desc_init) C(dnnl_dilated_convolution_backward_data_desc_init)                     \
    C(dnnl_dilated_convolution_backward_weights_desc_init)
typedef const dnnl_memory_desc_t *md_ref;
#endif
// clang-format on

struct onednn {
#define C(name) __typeof__(name) *name;
    CALLS(C)
    CALLS_OF_VERSION(C)
#undef C
    void (*omp_set_num_threads)(int);
    dnnl_engine_t engine;
    const struct err *why; /* it cannot be used */
};

static const struct library library = {
    "oneDNN",
    "DHOW_ONEDNN_LIB",
#if DNNL_VERSION_MAJOR >= 3
    (const char *const[]){ "libdnnl.so.3", "libdnnl.so", NULL },
#else
    (const char *const[]){ "libdnnl.so.2", "libdnnl.so", NULL },
#endif
    "install Debian's libdnnl-dev, or set DHOW_ONEDNN_LIB to the path of libdnnl.so",
};
static const struct library_function functions[] = {
#define C(name) { #name, offsetof(struct onednn, name) },
    CALLS(C) CALLS_OF_VERSION(C)
#undef C
        { "omp_set_num_threads", offsetof(struct onednn, omp_set_num_threads) },
};

/* Once for a process, as the library itself is. */
static struct onednn one;
static struct arena *one_arena;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static err open_it(struct arena *a)
{
    void *so;
    TRY(library_open(a, &library, NULL, &so));
    TRY(library_bind(&library, so, functions, sizeof functions / sizeof *functions, &one));
    if (one.dnnl_version()->major != DNNL_VERSION_MAJOR)
        FAIL(UNAVAILABLE, "oneDNN is version %d, and this program was built for %d",
             one.dnnl_version()->major, DNNL_VERSION_MAJOR);
    if (one.dnnl_engine_create(&one.engine, dnnl_cpu, 0) != dnnl_success)
        FAIL(UNAVAILABLE, "oneDNN has no engine for this processor");
    return NULL;
}

static void open_once(void)
{
    one_arena = arena_new(0);
    err e = open_it(one_arena);
    one.why = e ? err_copy(e, one_arena) : NULL;
}

static const struct onednn *library_get(void)
{
    pthread_once(&once, open_once);
    return one.why || atomic_load(&unwanted) ? NULL : &one;
}

bool onednn_there(void)
{
    return library_get();
}

err onednn_version(struct arena *a, struct str *out)
{
    pthread_once(&once, open_once);
    if (one.why)
        return err_new(one.why->code, "%.*s", STR(one.why->text));
    const dnnl_version_t *v = one.dnnl_version();
    *out = fmt(a, "%d.%d.%d", v->major, v->minor, v->patch);
    return NULL;
}

/* Its threads would be a second pool beside ours. */
static void one_thread(const struct onednn *d)
{
    static _Thread_local bool done;
    if (!done)
        d->omp_set_num_threads(1);
    done = true;
}

/* ---- descriptors, in one form for both versions ---- */

struct desc {
#if DNNL_VERSION_MAJOR >= 3
    dnnl_memory_desc_t d;
#else
    dnnl_memory_desc_t d[1];
#endif
};

static bool desc_make(const struct onednn *o, struct desc *d, int n, const dnnl_dim_t *dims,
                      dnnl_data_type_t type, dnnl_format_tag_t tag)
{
#if DNNL_VERSION_MAJOR >= 3
    return o->dnnl_memory_desc_create_with_tag(&d->d, n, dims, type, tag) == dnnl_success;
#else
    return o->dnnl_memory_desc_init_by_tag(d->d, n, dims, type, tag) == dnnl_success;
#endif
}

static void desc_drop(const struct onednn *o, struct desc *d)
{
#if DNNL_VERSION_MAJOR >= 3
    if (d->d)
        o->dnnl_memory_desc_destroy(d->d);
#else
    (void)o, (void)d;
#endif
}

/* The geometry as oneDNN takes it: dilation 0 is none. */
struct geometry {
    dnnl_dims_t stride, dilation, lo, hi;
};

static bool conv_desc(const struct onednn *o, enum onednn_way way, struct desc *x, struct desc *w,
                      struct desc *b, struct desc *y, const struct geometry *q, dnnl_primitive_attr_t attr,
                      dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *out)
{
#if DNNL_VERSION_MAJOR >= 3
    dnnl_status_t s;
    if (way == ONEDNN_FORWARD)
        s = o->dnnl_convolution_forward_primitive_desc_create(
            out, o->engine, dnnl_forward_training, dnnl_convolution_direct, x->d, w->d, b ? b->d : NULL, y->d,
            q->stride, q->dilation, q->lo, q->hi, attr);
    else if (way == ONEDNN_BACK_DATA)
        s = o->dnnl_convolution_backward_data_primitive_desc_create(out, o->engine, dnnl_convolution_direct,
                                                                    x->d, w->d, y->d, q->stride, q->dilation,
                                                                    q->lo, q->hi, hint, attr);
    else
        s = o->dnnl_convolution_backward_weights_primitive_desc_create(
            out, o->engine, dnnl_convolution_direct, x->d, w->d, NULL, y->d, q->stride, q->dilation, q->lo,
            q->hi, hint, attr);
    return s == dnnl_success;
#else
    dnnl_convolution_desc_t c;
    dnnl_status_t s;
    if (way == ONEDNN_FORWARD)
        s = o->dnnl_dilated_convolution_forward_desc_init(&c, dnnl_forward_training, dnnl_convolution_direct,
                                                          x->d, w->d, b ? b->d : NULL, y->d, q->stride,
                                                          q->dilation, q->lo, q->hi);
    else if (way == ONEDNN_BACK_DATA)
        s = o->dnnl_dilated_convolution_backward_data_desc_init(&c, dnnl_convolution_direct, x->d, w->d, y->d,
                                                                q->stride, q->dilation, q->lo, q->hi);
    else
        s = o->dnnl_dilated_convolution_backward_weights_desc_init(
            &c, dnnl_convolution_direct, x->d, w->d, NULL, y->d, q->stride, q->dilation, q->lo, q->hi);
    return s == dnnl_success && o->dnnl_primitive_desc_create(out, &c, attr, o->engine, hint) == dnnl_success;
#endif
}

/* ---- a convolution ---- */

struct onednn_conv {
    const struct onednn *o;
    enum onednn_way way;
    dnnl_stream_t stream;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t conv,
        reorder; /* reorder: weights on their way in or out; NULL: they are as it likes them */
    dnnl_memory_t x, w, w_plain, bias, y, pad;
    void *kept; /* weights that stay, in its own form */
    size_t w_bytes, pad_bytes;
    struct desc descs[8];
    int n_descs;
};

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

static void conv_free(void *arg)
{
    struct onednn_conv *c = arg;
    const struct onednn *o = c->o;
    dnnl_memory_t memories[] = { c->x, c->w, c->w_plain, c->bias, c->y, c->pad };
    for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
        if (memories[i])
            o->dnnl_memory_destroy(memories[i]);
    if (c->conv)
        o->dnnl_primitive_destroy(c->conv);
    if (c->reorder)
        o->dnnl_primitive_destroy(c->reorder);
    if (c->pd)
        o->dnnl_primitive_desc_destroy(c->pd);
    if (c->stream)
        o->dnnl_stream_destroy(c->stream);
    for (int i = 0; i < c->n_descs; i++)
        desc_drop(o, &c->descs[i]);
}

static struct desc *desc_new(struct onednn_conv *c, int n, const dnnl_dim_t *dims, enum tensor_type type,
                             dnnl_format_tag_t tag)
{
    struct desc *d = &c->descs[c->n_descs];
    if (!desc_make(c->o, d, n, dims, type == TENSOR_BF16 ? dnnl_bf16 : dnnl_f32, tag))
        return NULL;
    c->n_descs++;
    return d;
}

static bool memory_new(const struct onednn_conv *c, md_ref d, dnnl_memory_t *out)
{
    return c->o->dnnl_memory_create(out, d, c->o->engine, DNNL_MEMORY_NONE) == dnnl_success;
}

static bool reorder_new(struct onednn_conv *c, md_ref from, md_ref to)
{
    dnnl_primitive_desc_t pd;
    if (c->o->dnnl_reorder_primitive_desc_create(&pd, from, c->o->engine, to, c->o->engine, NULL) !=
        dnnl_success)
        return false;
    bool ok = c->o->dnnl_primitive_create(&c->reorder, pd) == dnnl_success;
    c->o->dnnl_primitive_desc_destroy(pd);
    return ok;
}

static dnnl_query_t query_x(enum onednn_way way)
{
    return way == ONEDNN_BACK_DATA ? dnnl_query_diff_src_md : dnnl_query_src_md;
}

static bool memories_new(struct onednn_conv *c, struct desc *w_plain, struct desc *b)
{
    const struct onednn *o = c->o;
    md_ref x = o->dnnl_primitive_desc_query_md(c->pd, query_x(c->way), 0);
    md_ref w = o->dnnl_primitive_desc_query_md(
        c->pd, c->way == ONEDNN_BACK_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
    md_ref y = o->dnnl_primitive_desc_query_md(
        c->pd, c->way == ONEDNN_FORWARD ? dnnl_query_dst_md : dnnl_query_diff_dst_md, 0);
    md_ref pad = o->dnnl_primitive_desc_query_md(c->pd, dnnl_query_scratchpad_md, 0);
    if (!x || !w || !y || !memory_new(c, x, &c->x) || !memory_new(c, w, &c->w) || !memory_new(c, y, &c->y))
        return false;
    if (b && !memory_new(c, b->d, &c->bias))
        return false;
    c->pad_bytes = pad ? round64(o->dnnl_memory_desc_get_size(pad)) : 0;
    if (c->pad_bytes > 0 && !memory_new(c, pad, &c->pad))
        return false;
    if (o->dnnl_memory_desc_equal(w, w_plain->d))
        return true;
    c->w_bytes = round64(o->dnnl_memory_desc_get_size(w));
    return memory_new(c, w_plain->d, &c->w_plain) &&
           (c->way == ONEDNN_BACK_WEIGHTS ? reorder_new(c, w, w_plain->d) : reorder_new(c, w_plain->d, w));
}

/* oneDNN has an answer to everything; where it is a plain loop, "ref:any" or "gemm:ref", our own are hundreds of times as fast. */
static bool by_reference(const struct onednn *o, const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    return o->dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) != dnnl_success || !name ||
           strstr(name, "ref");
}

static bool conv_make(struct onednn_conv *c, const struct onednn_conv_spec *s)
{
    const struct onednn *o = c->o;
    const bool deep = s->axes == 3, grouped = s->group > 1;
    dnnl_dims_t x = { s->n, s->x_channels }, y = { s->n, s->y_channels }, w = { 0 },
                channels = { s->y_channels };
    int n = 2 + s->axes, wn = 0;
    if (grouped)
        w[wn++] = s->group;
    w[wn++] = s->y_channels / s->group;
    w[wn++] = s->x_channels / s->group;
    struct geometry q = { 0 };
    for (int i = 0; i < s->axes; i++) {
        x[2 + i] = s->in[i];
        y[2 + i] = s->out[i];
        w[wn++] = s->kernel[i];
        q.stride[i] = s->stride[i];
        q.dilation[i] = s->dilation[i] - 1;
        q.lo[i] = s->lo[i];
        q.hi[i] = s->hi[i];
    }
    const dnnl_format_tag_t first = deep ? dnnl_ncdhw : dnnl_nchw, last = deep ? dnnl_ndhwc : dnnl_nhwc;
    const dnnl_format_tag_t plain = deep      ? (grouped ? dnnl_goidhw : dnnl_oidhw)
                                    : grouped ? dnnl_goihw
                                              : dnnl_oihw;
    struct desc *dx = desc_new(c, n, x, s->x, s->x_last ? last : first),
                *dy = desc_new(c, n, y, s->y, s->y_last ? last : first);
    struct desc *dw = desc_new(c, wn, w, s->w, dnnl_format_tag_any), *dp = desc_new(c, wn, w, s->w, plain);
    struct desc *db = s->bias ? desc_new(c, 1, channels, TENSOR_F32, dnnl_x) : NULL;
    if (!dx || !dy || !dw || !dp || (s->bias && !db))
        return false;
    dnnl_primitive_attr_t attr;
    if (o->dnnl_primitive_attr_create(&attr) != dnnl_success)
        return false;
    o->dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    dnnl_primitive_desc_t hint = NULL;
    bool ok = true;
    if (s->way != ONEDNN_FORWARD) {
        /* The forward primitive that it belongs to; its weights are of the pictures' type. */
        struct desc *dh = desc_new(c, wn, w, s->x, dnnl_format_tag_any);
        ok = dh && conv_desc(o, ONEDNN_FORWARD, dx, dh, NULL, dy, &q, NULL, NULL, &hint);
    }
    ok = ok && conv_desc(o, s->way, dx, dw, db, dy, &q, attr, hint, &c->pd);
    if (hint)
        o->dnnl_primitive_desc_destroy(hint);
    o->dnnl_primitive_attr_destroy(attr);
    return ok && !by_reference(o, c->pd) && o->dnnl_primitive_create(&c->conv, c->pd) == dnnl_success &&
           o->dnnl_stream_create(&c->stream, o->engine, dnnl_stream_default_flags) == dnnl_success &&
           memories_new(c, dp, db);
}

static void reorder_run(const struct onednn_conv *c, dnnl_memory_t from, dnnl_memory_t to)
{
    dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };
    c->o->dnnl_primitive_execute(c->reorder, c->stream, 2, args);
}

static void weights_keep(struct onednn_conv *c, struct arena *a, void *w)
{
    c->kept = w;
    if (!c->reorder)
        return;
    c->kept = arena_alloc(a, c->w_bytes, 64);
    c->o->dnnl_memory_set_data_handle(c->w_plain, w);
    c->o->dnnl_memory_set_data_handle(c->w, c->kept);
    reorder_run(c, c->w_plain, c->w);
    c->o->dnnl_primitive_destroy(c->reorder);
    c->reorder = NULL;
    c->w_bytes = 0;
}

bool onednn_conv_new(struct arena *a, const struct onednn_conv_spec *s, struct onednn_conv **out,
                     size_t *scratch)
{
    const struct onednn *o = library_get();
    if (!o)
        return false;
    one_thread(o);
    struct onednn_conv *c = NEW(a, struct onednn_conv);
    *c = (struct onednn_conv){ .o = o, .way = s->way };
    if (!conv_make(c, s)) {
        conv_free(c);
        return false;
    }
    arena_defer(a, conv_free, c);
    if (s->weights)
        weights_keep(c, a, (void *)s->weights);
    *scratch = c->w_bytes + c->pad_bytes;
    *out = c;
    return true;
}

void onednn_conv_run(const struct onednn_conv *c, void *x, void *w, void *bias, void *y, void *scratch)
{
    const struct onednn *o = c->o;
    one_thread(o);
    char *blocked = scratch, *pad = blocked + c->w_bytes;
    o->dnnl_memory_set_data_handle(c->x, x);
    o->dnnl_memory_set_data_handle(c->y, y);
    o->dnnl_memory_set_data_handle(c->w, c->reorder ? blocked : c->kept ? c->kept : w);
    if (c->reorder)
        o->dnnl_memory_set_data_handle(c->w_plain, w);
    if (c->reorder && c->way != ONEDNN_BACK_WEIGHTS)
        reorder_run(c, c->w_plain, c->w);
    dnnl_exec_arg_t args[5];
    int n = 0;
    args[n++] = (dnnl_exec_arg_t){ c->way == ONEDNN_BACK_DATA ? DNNL_ARG_DIFF_SRC : DNNL_ARG_SRC, c->x };
    args[n++] = (dnnl_exec_arg_t){ c->way == ONEDNN_BACK_WEIGHTS ? DNNL_ARG_DIFF_WEIGHTS : DNNL_ARG_WEIGHTS,
                                   c->w };
    args[n++] = (dnnl_exec_arg_t){ c->way == ONEDNN_FORWARD ? DNNL_ARG_DST : DNNL_ARG_DIFF_DST, c->y };
    if (c->bias) {
        o->dnnl_memory_set_data_handle(c->bias, bias);
        args[n++] = (dnnl_exec_arg_t){ DNNL_ARG_BIAS, c->bias };
    }
    if (c->pad) {
        o->dnnl_memory_set_data_handle(c->pad, pad);
        args[n++] = (dnnl_exec_arg_t){ DNNL_ARG_SCRATCHPAD, c->pad };
    }
    o->dnnl_primitive_execute(c->conv, c->stream, n, args);
    if (c->reorder && c->way == ONEDNN_BACK_WEIGHTS)
        reorder_run(c, c->w, c->w_plain);
}
#endif
