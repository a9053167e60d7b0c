/* image: what the kernels of pictures share: sizes and strides of a picture in either layout, and the reference loops.
 * A picture lies as N, C, … or, where its tensor is nhwc, as N, H, W, C; both are strides here. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/cpu.h"
#include "engine/resize.h"
#include "engine/window.h"

struct picture {
    int64_t n, c, s[WINDOW_AXES];    /* sizes; axes of the picture that are not there: 1 */
    int64_t sn, sc, ss[WINDOW_AXES]; /* strides, in elements */
};
struct picture picture_of(const struct tensor *);
/* Elements of one channel. */
static inline int64_t picture_pixels(const struct picture *p)
{
    return p->n * p->s[0] * p->s[1] * p->s[2];
}

/* A convolution or a pool: x is on the side of the input, y on that of the output, whatever is computed. */
struct conv {
    struct window w; /* always WINDOW_AXES axes; those that are not there are 1 wide */
    struct picture x, y;
    int64_t kernels; /* places in a window */
    bool count_padding, column_major;
};
/* Of the places of the window at output o of an axis, those that are inside of the picture: from … to. */
struct reach {
    int64_t from, to;
};
static inline struct reach window_reach(const struct window *q, int axis, int64_t o)
{
    const int64_t at = o * q->stride[axis] - q->lo[axis], left = q->in[axis] - at, step = q->dilation[axis];
    struct reach r = { at < 0 ? -at : 0, left };
    if (step > 1) {
        r.from = (r.from + step - 1) / step;
        r.to = left <= 0 ? 0 : (left + step - 1) / step;
    }
    r.to = r.to < q->kernel[axis] ? r.to : q->kernel[axis];
    return r;
}
/* What an average divides by at an output. */
static inline int64_t pool_count(const struct conv *v, const int64_t *o)
{
    const struct window *q = &v->w;
    int64_t all = 1;
    for (int i = 0; i < WINDOW_AXES; i++) {
        int64_t n = 0;
        for (int64_t k = 0; k < q->kernel[i]; k++) {
            int64_t at = o[i] * q->stride[i] - q->lo[i] + k * q->dilation[i];
            n += v->count_padding ? at < q->end[i] : at >= 0 && at < q->in[i];
        }
        all *= n;
    }
    return all > 0 ? all : 1;
}
struct resized {
    struct resize r;
    struct resize_tap *taps[TENSOR_RANK_MAX];
    int64_t x_step[TENSOR_RANK_MAX], y_step[TENSOR_RANK_MAX];
};

struct image_kernels {
    void (*conv)(const struct conv *, const void *x, const void *w, const void *bias, void *y);
    void (*conv_back)(const struct conv *, const void *dy, const void *w, const void *bias, void *dx);
    void (*conv_weights)(const struct conv *, const void *x, const void *dy, void *dw);
    void (*channel_sum)(const struct picture *, const void *x, void *sum);
    void (*max_pool)(const struct conv *, const void *x, void *y, int64_t *index, int32_t *where);
    void (*max_pool_back)(const struct conv *, const void *dy, const int32_t *where, void *dx);
    void (*average_pool)(const struct conv *, const void *x, void *y);
    void (*average_pool_back)(const struct conv *, const void *dy, void *dx);
    void (*moments)(const struct picture *, const void *x, const double *pivot, double *sums);
    void (*norm)(const struct picture *, const void *x, const double *by, const double *plus,
                 const void *addend, bool relu, void *y);
    void (*norm_back_sums)(const struct picture *, const void *dy, const void *x, const void *y,
                           const double *mean, double *sums);
    void (*norm_back)(const struct picture *, const void *dy, const void *x, const void *y,
                      const double *by_g, const double *by_x, const double *plus, void *dx, void *dz);
    void (*resize)(const struct resized *, int axis, int64_t x_at, int64_t y_at, double weight, void *x,
                   void *y, bool back);
};
/* NULL: there are none for this type. */
const struct image_kernels *image_reference(enum tensor_type);

/* Binds a node whose tensors are halves as if they were F32, between conversions: for kernels without a form for halves. */
err bind_widened(struct bind *, err (*bind)(struct bind *));
bool any_half(const struct bind *);
err bind_batch_norm(struct bind *), bind_batch_norm_grad(struct bind *); /* image_norm.c */
/* image_gemm.c; false: not for these types and layouts. way: 0 forward, 1 by data, 2 by weights. */
bool bind_windows(struct bind *, const struct conv *, const struct tensor *x, const struct tensor *w,
                  const struct tensor *y, int way);
