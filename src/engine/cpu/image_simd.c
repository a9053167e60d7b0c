// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/image_rows.h"

#include <math.h>

/* A group of NV vectors of channels stays in registers while rows pass; what is left at the end goes element by element. */
enum { BLOCK = 256 /* rows that are added up in F32 */, F = SIMD_FLOATS };
typedef uint16_t vh __attribute__((vector_size(SIMD_BYTES / 2), aligned(2), may_alias));
typedef uint32_t vw __attribute__((vector_size(SIMD_BYTES)));
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS vf get(bool half, const void *p, int64_t at)
{
    if (!half)
        return vf_load((const float *)p + at);
    return (vf)(__builtin_convertvector(*(const vh *)((const uint16_t *)p + at), vw) << 16);
}

ALWAYS void put(bool half, void *p, int64_t at, vf x)
{
    if (!half) {
        vf_store((float *)p + at, x);
        return;
    }
    vw w = (vw)x;
    w += 0x7fff + (w >> 16 & 1);
    w = w >> 16 | ((vw)(x != x) & 0x7fc0);
    *(vh *)((uint16_t *)p + at) = __builtin_convertvector(w, vh);
}

ALWAYS float get1(bool half, const void *p, int64_t at)
{
    if (!half)
        return ((const float *)p)[at];
    uint32_t w = (uint32_t)((const uint16_t *)p)[at] << 16;
    float x;
    memcpy(&x, &w, 4);
    return x;
}

ALWAYS void put1(bool half, void *p, int64_t at, float x)
{
    if (!half) {
        ((float *)p)[at] = x;
        return;
    }
    uint32_t w;
    memcpy(&w, &x, 4);
    w += 0x7fff + (w >> 16 & 1);
    ((uint16_t *)p)[at] = (uint16_t)(x != x ? 0x7fc0 : w >> 16);
}

/* The first n of a vector, 0 < n ≤ F; the rest is zero. */
ALWAYS vf get_some(bool half, const void *p, int64_t at, int n)
{
    if (n == F)
        return get(half, p, at);
#if SIMD_LEVEL == 2
    if (!half)
        return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), (const float *)p + at);
#endif
    float v[F] = { 0 };
    for (int i = 0; i < n; i++)
        v[i] = get1(half, p, at + i);
    return vf_load(v);
}

ALWAYS void put_some(bool half, void *p, int64_t at, int n, vf x)
{
    if (n == F) {
        put(half, p, at, x);
        return;
    }
#if SIMD_LEVEL == 2
    if (!half) {
        _mm512_mask_storeu_ps((float *)p + at, (__mmask16)((1u << n) - 1), (__m512)x);
        return;
    }
#endif
    for (int i = 0; i < n; i++)
        put1(half, p, at + i, x[i]);
}

ALWAYS vf positive(vf y, vf x)
{
    return (vf)((vi)x & (y > 0));
}

ALWAYS void add_up(double *sums, int64_t c, vf s, vf q)
{
    for (int i = 0; i < F; i++) {
        sums[2 * (c + i)] += (double)s[i];
        sums[2 * (c + i) + 1] += (double)q[i];
    }
}

/* ---- forward ---- */

/* Narrow rows take turns in several sums, or each row would wait for the one before. */
#define TURNS(nv) ((nv) == 1 ? 4 : (nv) == 2 ? 2 : 1)

ALWAYS void moments_group(const int nv, bool half, int64_t rows, int64_t c_n, int64_t c, const void *x,
                          const float *pivot, double *sums)
{
    const int turns = TURNS(nv);
    for (int64_t from = 0; from < rows; from += BLOCK) {
        const int64_t to = rows - from < BLOCK ? rows : from + BLOCK;
        vf s[4], q[4], k[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            s[i] = q[i] = (vf){ 0 };
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            k[j] = vf_load(pivot + c + j * F);
        int64_t r = from;
        for (; r + turns <= to; r += turns)
#pragma GCC unroll 4
            for (int t = 0; t < turns; t++)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) {
                    vf v = get(half, x, (r + t) * c_n + c + j * F) - k[j];
                    s[t * nv + j] += v;
                    q[t * nv + j] += v * v;
                }
        for (; r < to; r++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                vf v = get(half, x, r * c_n + c + j * F) - k[j];
                s[j] += v;
                q[j] += v * v;
            }
#pragma GCC unroll 4
        for (int i = 0; i < turns * nv; i++)
            add_up(sums, c + i % nv * F, s[i], q[i]);
    }
}

ALWAYS void moments_of(bool half, int64_t rows, int64_t c_n, const void *x, const float *pivot, double *sums)
{
    int64_t c = 0;
    memset(sums, 0, (size_t)c_n * 2 * sizeof *sums);
    for (; c + 4 * F <= c_n; c += 4 * F)
        moments_group(4, half, rows, c_n, c, x, pivot, sums);
    for (; c + 2 * F <= c_n; c += 2 * F)
        moments_group(2, half, rows, c_n, c, x, pivot, sums);
    for (; c + F <= c_n; c += F)
        moments_group(1, half, rows, c_n, c, x, pivot, sums);
    for (; c < c_n; c++)
        for (int64_t r = 0; r < rows; r++) {
            float v = get1(half, x, r * c_n + c) - pivot[c];
            sums[2 * c] += (double)v;
            sums[2 * c + 1] += (double)v * (double)v;
        }
}

static void moments(bool half, int64_t rows, int64_t c_n, const void *x, const float *pivot, double *sums)
{
    if (half)
        moments_of(true, rows, c_n, x, pivot, sums);
    else
        moments_of(false, rows, c_n, x, pivot, sums);
}

ALWAYS void norm_group(const int nv, bool half, int64_t rows, int64_t c_n, int64_t c, const void *x,
                       const float *by, const float *plus, const void *addend, bool relu, void *y)
{
    vf b[4], p[4];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        b[j] = vf_load(by + c + j * F);
        p[j] = vf_load(plus + c + j * F);
    }
    for (int64_t r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            const int64_t at = r * c_n + c + j * F;
            vf v = get(half, x, at) * b[j] + p[j];
            if (addend)
                v += get(half, addend, at);
            if (relu)
                v = (vf)((vi)v & ~(v <= 0));
            put(half, y, at, v);
        }
}

ALWAYS void norm_of(bool half, int64_t rows, int64_t c_n, const void *x, const float *by, const float *plus,
                    const void *addend, bool relu, void *y)
{
    int64_t c = 0;
    for (; c + 4 * F <= c_n; c += 4 * F)
        norm_group(4, half, rows, c_n, c, x, by, plus, addend, relu, y);
    for (; c + 2 * F <= c_n; c += 2 * F)
        norm_group(2, half, rows, c_n, c, x, by, plus, addend, relu, y);
    for (; c + F <= c_n; c += F)
        norm_group(1, half, rows, c_n, c, x, by, plus, addend, relu, y);
    for (; c < c_n; c++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = r * c_n + c;
            float v = get1(half, x, at) * by[c] + plus[c];
            if (addend)
                v += get1(half, addend, at);
            put1(half, y, at, relu && v <= 0 ? 0 : v);
        }
}

static void norm(bool half, int64_t rows, int64_t c_n, const void *x, const float *by, const float *plus,
                 const void *addend, bool relu, void *y)
{
    if (half)
        norm_of(true, rows, c_n, x, by, plus, addend, relu, y);
    else
        norm_of(false, rows, c_n, x, by, plus, addend, relu, y);
}

/* ---- backward ---- */

ALWAYS void back_sums_group(const int nv, bool half, int64_t rows, int64_t c_n, int64_t c, const void *dy,
                            const void *x, const void *y, const float *mean, double *sums)
{
    const int turns = TURNS(nv);
    for (int64_t from = 0; from < rows; from += BLOCK) {
        const int64_t to = rows - from < BLOCK ? rows : from + BLOCK;
        vf s[4], q[4], m[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            s[i] = q[i] = (vf){ 0 };
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            m[j] = vf_load(mean + c + j * F);
        int64_t r = from;
        for (; r + turns <= to; r += turns)
#pragma GCC unroll 4
            for (int t = 0; t < turns; t++)
#pragma GCC unroll 4
                for (int j = 0; j < nv; j++) {
                    const int64_t at = (r + t) * c_n + c + j * F;
                    vf g = get(half, dy, at);
                    if (y)
                        g = positive(get(half, y, at), g);
                    s[t * nv + j] += g;
                    q[t * nv + j] += g * (get(half, x, at) - m[j]);
                }
        for (; r < to; r++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                const int64_t at = r * c_n + c + j * F;
                vf g = get(half, dy, at);
                if (y)
                    g = positive(get(half, y, at), g);
                s[j] += g;
                q[j] += g * (get(half, x, at) - m[j]);
            }
#pragma GCC unroll 4
        for (int i = 0; i < turns * nv; i++)
            add_up(sums, c + i % nv * F, s[i], q[i]);
    }
}

ALWAYS void back_sums_of(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                         const float *mean, double *sums)
{
    int64_t c = 0;
    memset(sums, 0, (size_t)c_n * 2 * sizeof *sums);
    for (; c + 4 * F <= c_n; c += 4 * F)
        back_sums_group(4, half, rows, c_n, c, dy, x, y, mean, sums);
    for (; c + 2 * F <= c_n; c += 2 * F)
        back_sums_group(2, half, rows, c_n, c, dy, x, y, mean, sums);
    for (; c + F <= c_n; c += F)
        back_sums_group(1, half, rows, c_n, c, dy, x, y, mean, sums);
    for (; c < c_n; c++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = r * c_n + c;
            double g = y && !(get1(half, y, at) > 0) ? 0 : (double)get1(half, dy, at);
            sums[2 * c] += g;
            sums[2 * c + 1] += g * (double)(get1(half, x, at) - mean[c]);
        }
}

static void back_sums(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                      const float *mean, double *sums)
{
    if (half)
        back_sums_of(true, rows, c_n, dy, x, y, mean, sums);
    else
        back_sums_of(false, rows, c_n, dy, x, y, mean, sums);
}

ALWAYS void back_group(const int nv, bool half, int64_t rows, int64_t c_n, int64_t c, const void *dy,
                       const void *x, const void *y, const float *by_g, const float *by_x, const float *plus,
                       void *dx, void *dz)
{
    vf a[4], b[4], p[4];
#pragma GCC unroll 4
    for (int j = 0; j < nv; j++) {
        a[j] = vf_load(by_g + c + j * F);
        b[j] = vf_load(by_x + c + j * F);
        p[j] = vf_load(plus + c + j * F);
    }
    for (int64_t r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++) {
            const int64_t at = r * c_n + c + j * F;
            vf g = get(half, dy, at);
            if (y)
                g = positive(get(half, y, at), g);
            vf v = a[j] * g + (b[j] * get(half, x, at) + p[j]);
            if (dz)
                put(half, dz, at, g);
            put(half, dx, at, v);
        }
}

ALWAYS void back_of(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                    const float *by_g, const float *by_x, const float *plus, void *dx, void *dz)
{
    int64_t c = 0;
    for (; c + 4 * F <= c_n; c += 4 * F)
        back_group(4, half, rows, c_n, c, dy, x, y, by_g, by_x, plus, dx, dz);
    for (; c + 2 * F <= c_n; c += 2 * F)
        back_group(2, half, rows, c_n, c, dy, x, y, by_g, by_x, plus, dx, dz);
    for (; c + F <= c_n; c += F)
        back_group(1, half, rows, c_n, c, dy, x, y, by_g, by_x, plus, dx, dz);
    for (; c < c_n; c++)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t at = r * c_n + c;
            float g = y && !(get1(half, y, at) > 0) ? 0 : get1(half, dy, at);
            float v = by_g[c] * g + (by_x[c] * get1(half, x, at) + plus[c]);
            if (dz)
                put1(half, dz, at, g);
            put1(half, dx, at, v);
        }
}

static void back(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                 const float *by_g, const float *by_x, const float *plus, void *dx, void *dz)
{
    if (half)
        back_of(true, rows, c_n, dy, x, y, by_g, by_x, plus, dx, dz);
    else
        back_of(false, rows, c_n, dy, x, y, by_g, by_x, plus, dx, dz);
}

/* ---- pools ---- */

#define EACH(i, n) for (int64_t i = 0; i < (n); i++)
/* The window around an output: those of its places that are inside of the picture, and where its first place lies in x. */
struct around {
    struct reach r[WINDOW_AXES];
    int64_t at, step[WINDOW_AXES];
};
ALWAYS struct around around_of(const struct conv *v, int64_t n, const int64_t *o)
{
    const struct window *q = &v->w;
    struct around a = { .at = n * v->x.sn };
#pragma GCC unroll 3
    for (int i = 0; i < WINDOW_AXES; i++) {
        a.r[i] = window_reach(q, i, o[i]);
        a.step[i] = q->dilation[i] * v->x.ss[i];
        a.at += (o[i] * q->stride[i] - q->lo[i]) * v->x.ss[i];
    }
    return a;
}
/* For each output: a, and where it stands in y. */
#define OUTPUTS(...)                                                                          \
    EACH(n, v->y.n) EACH(o0, q->out[0]) EACH(o1, q->out[1]) EACH(o2, q->out[2])               \
    {                                                                                         \
        const struct around a = around_of(v, n, (const int64_t[]){ o0, o1, o2 });             \
        const int64_t to = n * v->y.sn + o0 * v->y.ss[0] + o1 * v->y.ss[1] + o2 * v->y.ss[2]; \
        __VA_ARGS__                                                                           \
    }
/* For each place of it that is inside: k counts all of them, from is its row of x. */
#define AROUND(...)                                                                           \
    for (int64_t k0 = a.r[0].from; k0 < a.r[0].to; k0++)                                      \
        for (int64_t k1 = a.r[1].from; k1 < a.r[1].to; k1++)                                  \
            for (int64_t k2 = a.r[2].from; k2 < a.r[2].to; k2++) {                            \
                const int64_t from = a.at + k0 * a.step[0] + k1 * a.step[1] + k2 * a.step[2]; \
                const int32_t k = (int32_t)((k0 * q->kernel[1] + k1) * q->kernel[2] + k2);    \
                (void)k;                                                                      \
                __VA_ARGS__;                                                                  \
            }

/* Channels c to c + m of an output, m ≤ F. */
ALWAYS void max_pool_at(bool half, const struct window *q, const struct around *at, const void *x, int64_t c,
                        int m, void *y, int64_t to, int32_t *where)
{
    const struct around a = *at;
    vf best = { 0 };
    vi place = (vi){ 0 } - 1;
    if (where) {
        /* The first is taken as it is; later ones if they are greater or no number, but a NaN stays. */
        AROUND(vf t = get_some(half, x, from + c, m);
               vi is = ((t > best) | (t != t) | (place < 0)) & ~(best != best); best = vf_pick(is, t, best);
               place = (is & k) | (~is & place))
        memcpy(where + to + c, &place, (size_t)m * sizeof *where);
    } else {
        best = a.r[0].from < a.r[0].to && a.r[1].from < a.r[1].to && a.r[2].from < a.r[2].to
                   ? vf_all(-INFINITY)
                   : best;
        AROUND(vf t = get_some(half, x, from + c, m); best = vf_pick((t > best) | (t != t), t, best))
    }
    put_some(half, y, to + c, m, best);
}

ALWAYS void max_pool_of(bool half, const struct conv *v, const void *x, void *y, int32_t *where)
{
    const struct window *q = &v->w;
    OUTPUTS({
        int64_t c = 0;
        for (; c + F <= v->y.c; c += F)
            max_pool_at(half, q, &a, x, c, F, y, to, where);
        if (c < v->y.c)
            max_pool_at(half, q, &a, x, c, (int)(v->y.c - c), y, to, where);
    })
}

ALWAYS void max_back_of(bool half, const struct conv *v, const void *dy, const int32_t *where, void *dx)
{
    const struct window *q = &v->w;
    OUTPUTS({
        for (int64_t c = 0; c < v->y.c; c += F) {
            const int m = v->y.c - c < F ? (int)(v->y.c - c) : F;
            const vf g = get_some(half, dy, to + c, m);
            vi at = { 0 };
            memcpy(&at, where + to + c, (size_t)m * sizeof *where);
            AROUND(put_some(half, dx, from + c, m, get_some(half, dx, from + c, m) + (vf)((vi)g & (at == k))))
        }
    })
}

ALWAYS void average_of(bool half, const struct conv *v, const void *x, void *y)
{
    const struct window *q = &v->w;
    OUTPUTS({
        const float by = 1 / (float)pool_count(v, (const int64_t[]){ o0, o1, o2 });
        for (int64_t c = 0; c < v->y.c; c += F) {
            const int m = v->y.c - c < F ? (int)(v->y.c - c) : F;
            vf s = { 0 };
            AROUND(s += get_some(half, x, from + c, m))
            put_some(half, y, to + c, m, s * by);
        }
    })
}

ALWAYS void average_back_of(bool half, const struct conv *v, const void *dy, void *dx)
{
    const struct window *q = &v->w;
    OUTPUTS({
        const float by = 1 / (float)pool_count(v, (const int64_t[]){ o0, o1, o2 });
        for (int64_t c = 0; c < v->y.c; c += F) {
            const int m = v->y.c - c < F ? (int)(v->y.c - c) : F;
            const vf g = get_some(half, dy, to + c, m) * by;
            AROUND(put_some(half, dx, from + c, m, get_some(half, dx, from + c, m) + g))
        }
    })
}

static void max_pool(bool half, const struct conv *v, const void *x, void *y, int32_t *where)
{
    if (half)
        max_pool_of(true, v, x, y, where);
    else
        max_pool_of(false, v, x, y, where);
}

static size_t x_bytes(bool half, const struct conv *v)
{
    return (size_t)(v->x.n * v->x.sn) * (half ? 2 : 4);
}

static void max_pool_back(bool half, const struct conv *v, const void *dy, const int32_t *where, void *dx)
{
    memset(dx, 0, x_bytes(half, v));
    if (half)
        max_back_of(true, v, dy, where, dx);
    else
        max_back_of(false, v, dy, where, dx);
}

static void average_pool(bool half, const struct conv *v, const void *x, void *y)
{
    if (half)
        average_of(true, v, x, y);
    else
        average_of(false, v, x, y);
}

static void average_pool_back(bool half, const struct conv *v, const void *dy, void *dx)
{
    memset(dx, 0, x_bytes(half, v));
    if (half)
        average_back_of(true, v, dy, dx);
    else
        average_back_of(false, v, dy, dx);
}

const struct image_rows SIMD(image_rows) = { moments,  norm,          back_sums,    back,
                                             max_pool, max_pool_back, average_pool, average_pool_back };
