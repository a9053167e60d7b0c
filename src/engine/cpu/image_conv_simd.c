// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/image_conv.h"

enum { F = SIMD_FLOATS, PIXELS = CONV_PIXELS };
#define ALWAYS static inline __attribute__((always_inline))

/* Where a block's windows lie: at p the first place of the first one, and how far it is to the next row of the window, pixel
 * of a row, and channel of the input. */
struct view {
    const float *p;
    int64_t row, pixel, plane;
};

ALWAYS void begin(const int n, const float *bias, vf *s)
{
#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
        s[i] = bias ? vf_load(bias) : (vf){ 0 };
}

ALWAYS void finish(const int n, const struct conv_of_own *p, const vf *s, float *y)
{
    const vf low = vf_all(p->low), high = vf_all(p->high);
#pragma GCC unroll 8
    for (int i = 0; i < n; i++)
        vf_store(y + i * p->v.y.ss[1], vf_min(high, vf_max(low, s[i])));
}

/* n outputs of a row, F channels of each. */
ALWAYS void each_block(const int n, const struct conv_of_own *p, struct view x, struct reach rows,
                       const float *w, const float *bias, float *y)
{
    const struct window *q = &p->v.w;
    const int64_t channels = p->v.y.c;
    vf s[PIXELS];
    begin(n, bias, s);
    for (int64_t k0 = rows.from; k0 < rows.to; k0++)
#pragma GCC unroll 1
        for (int64_t k1 = 0; k1 < q->kernel[1]; k1++) {
            const vf b = vf_load(w + (k0 * q->kernel[1] + k1) * channels);
#pragma GCC unroll 8
            for (int i = 0; i < n; i++)
                s[i] += vf_load(x.p + k0 * x.row + (i * q->stride[1] + k1 * q->dilation[1]) * x.pixel) * b;
        }
    finish(n, p, s, y);
}

/* The same for windows that are three wide and near, by 1 or 2: a pixel is read once for all outputs that see it. left, right: the
 * first one and the last one are there. */
ALWAYS void three_block(const int n, const int by, const struct conv_of_own *p, struct view x,
                        struct reach rows, bool left, bool right, const float *w, const float *bias, float *y)
{
    const int64_t channels = p->v.y.c;
    const int columns = (n - 1) * by + 3;
    vf s[PIXELS], v[2 * PIXELS + 1];
    begin(n, bias, s);
    for (int64_t k0 = rows.from; k0 < rows.to; k0++) {
        const float *from = x.p + k0 * x.row, *u = w + 3 * k0 * channels;
        const vf w0 = vf_load(u), w1 = vf_load(u + channels), w2 = vf_load(u + 2 * channels);
        v[0] = left ? vf_load(from) : (vf){ 0 };
#pragma GCC unroll 17
        for (int i = 1; i < columns - 1; i++)
            v[i] = vf_load(from + i * x.pixel);
        v[columns - 1] = right ? vf_load(from + (columns - 1) * x.pixel) : (vf){ 0 };
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            s[i] += v[i * by] * w0;
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            s[i] += v[i * by + 1] * w1;
#pragma GCC unroll 8
        for (int i = 0; i < n; i++)
            s[i] += v[i * by + 2] * w2;
    }
    finish(n, p, s, y);
}

/* Channels of x lie apart, so that its pixels lie side by side. */
ALWAYS void thin_block(const int n, const int by, const struct conv_of_own *p, struct view x,
                       struct reach rows, const float *w, const float *bias, float *y)
{
    const struct window *q = &p->v.w;
    const int64_t channels = p->v.y.c;
    vf s[PIXELS];
    begin(n, bias, s);
    for (int64_t in = 0; in < p->v.x.c; in++)
        for (int64_t k0 = rows.from; k0 < rows.to; k0++) {
            const float *from = x.p + in * x.plane + k0 * x.row,
                        *u = w + (in * q->kernel[0] + k0) * q->kernel[1] * channels;
#pragma GCC unroll 1
            for (int64_t k1 = 0; k1 < q->kernel[1]; k1++, from += q->dilation[1], u += channels) {
                const vf b = vf_load(u);
#pragma GCC unroll 8
                for (int i = 0; i < n; i++)
                    s[i] += b * from[i * by];
            }
        }
    finish(n, p, s, y);
}

/* A block's windows with zeros where they reach over the ends of rows, in `pad`. x: the picture's first place, at the
 * block's channel; at0, at1: where the first window begins. */
ALWAYS struct view padded(const bool thin, const struct conv_of_own *p, int64_t columns, const float *x,
                          int64_t at0, int64_t at1, struct reach rows, float *pad)
{
    const struct window *q = &p->v.w;
    const int64_t plane = q->kernel[0] * columns, before = at1 < 0 ? -at1 : 0, end = q->in[1] - at1,
                  first = before < columns ? before : columns, until = end < columns ? end : columns,
                  last = until > first ? until : first;
    for (int64_t in = 0; in < (thin ? p->v.x.c : 1); in++)
        for (int64_t k0 = rows.from; k0 < rows.to; k0++) {
            const float *row = x + in * p->v.x.sc + (at0 + k0 * q->dilation[0]) * p->v.x.ss[0];
            float *to = pad + in * plane + k0 * columns * (thin ? 1 : F);
            memset(to, 0, (size_t)(columns * (thin ? 1 : F)) * sizeof *to);
            if (thin)
                memcpy(to + first, row + at1 + first, (size_t)(last - first) * sizeof *to);
            for (int64_t i = first; i < last && !thin; i++)
                vf_store(to + i * F, vf_load(row + (at1 + i) * p->v.x.ss[1]));
        }
    return thin ? (struct view){ pad, columns, 1, plane } : (struct view){ pad, columns * F, F, 0 };
}

enum form { EACH, EACH_THREE, EACH_THREE_BY_2, THIN, THIN_BY_1, THIN_BY_2 };

/* All outputs of all images, in blocks of n. The last block of a row, and the last vector of channels, may make again what
 * the one before it made. */
ALWAYS void walk(const int n, const enum form form, const struct conv_of_own *p, const float *x,
                 const float *w, const float *bias, float *y, float *pad)
{
    const struct window *q = &p->v.w;
    const struct picture *in = &p->v.x, *out = &p->v.y;
    const bool thin = form >= THIN;
    const int by = form == THIN_BY_1 ? 1 : form == THIN_BY_2 ? 2 : (int)q->stride[1];
    const int64_t columns = (n - 1) * q->stride[1] + (q->kernel[1] - 1) * q->dilation[1] +
                            1; /* that a block sees */
    for (int64_t image = 0; image < in->n; image++, x += in->sn, y += out->sn)
        for (int64_t o0 = 0; o0 < q->out[0]; o0++) {
            const struct reach rows = window_reach(q, 0, o0);
            const int64_t at0 = o0 * q->stride[0] - q->lo[0];
            for (int64_t next = 0; next < out->c; next += F)
                for (int64_t o = 0; o < q->out[1]; o += n) {
                    const int64_t c = next + F <= out->c ? next : out->c - F, from = thin ? 0 : c;
                    const int64_t o1 = o + n <= q->out[1] ? o : q->out[1] - n,
                                  at1 = o1 * q->stride[1] - q->lo[1];
                    const bool left = at1 >= 0, right = at1 + columns <= q->in[1];
                    const float *plus = bias ? bias + c : NULL;
                    struct view v = { x + at0 * in->ss[0] + at1 * in->ss[1] + from,
                                      q->dilation[0] * in->ss[0], in->ss[1], in->sc };
                    float *to = y + o0 * out->ss[0] + o1 * out->ss[1] + c;
                    if (form == EACH_THREE || form == EACH_THREE_BY_2) {
                        three_block(n, form == EACH_THREE ? 1 : 2, p, v, rows, left, right, w + c, plus, to);
                        continue;
                    }
                    if (!left || !right)
                        v = padded(thin, p, columns, x + from, at0, at1, rows, pad);
                    if (thin)
                        thin_block(n, by, p, v, rows, w + c, plus, to);
                    else
                        each_block(n, p, v, rows, w + c, plus, to);
                }
        }
}

/* The number of a row's outputs in a block: rows of 12 are cut in sixes. */
static int block_size(int64_t width)
{
    int best = 1;
    for (int n = 2; n <= PIXELS && n <= width; n++)
        if ((width + n - 1) / n < (width + best - 1) / best)
            best = n;
    return best;
}

ALWAYS void by_size(const enum form form, const struct conv_of_own *p, const float *x, const float *w,
                    const float *bias, float *y, float *pad)
{
#define SIZE(n)                               \
    case n:                                   \
        walk(n, form, p, x, w, bias, y, pad); \
        break;
    switch (block_size(p->v.w.out[1])) {
        SIZE(1) SIZE(2) SIZE(3) SIZE(4) SIZE(5) SIZE(6) SIZE(7) SIZE(8)
    }
#undef SIZE
}

static void each(const struct conv_of_own *p, const float *x, const float *w, const float *bias, float *y,
                 float *pad)
{
    const struct window *q = &p->v.w;
    const int64_t by = q->stride[1], end = (q->out[1] - 1) * by - q->lo[1] + 3; /* of the last window */
    const bool three = q->kernel[1] == 3 && q->dilation[1] == 1 && q->lo[1] <= 1 && end <= q->in[1] + 1;
    if (three && by == 1)
        by_size(EACH_THREE, p, x, w, bias, y, pad);
    else if (three && by == 2)
        by_size(EACH_THREE_BY_2, p, x, w, bias, y, pad);
    else
        by_size(EACH, p, x, w, bias, y, pad);
}

static void thin(const struct conv_of_own *p, const float *x, const float *w, const float *bias, float *y,
                 float *pad)
{
    if (p->v.w.stride[1] == 1)
        by_size(THIN_BY_1, p, x, w, bias, y, pad);
    else if (p->v.w.stride[1] == 2)
        by_size(THIN_BY_2, p, x, w, bias, y, pad);
    else
        by_size(THIN, p, x, w, bias, y, pad);
}

static void clip(float *y, int64_t n, float low, float high)
{
    const vf l = vf_all(low), h = vf_all(high);
    int64_t i = 0;
    for (; i + F <= n; i += F)
        vf_store(y + i, vf_min(h, vf_max(l, vf_load(y + i))));
    for (; i < n; i++)
        y[i] = y[i] < low ? low : y[i] > high ? high : y[i];
}

const struct image_convs SIMD(image_convs) = { F, each, thin, clip };
