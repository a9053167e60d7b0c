// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/gemm.h"
#include "engine/cpu/elements.h"

#include <string.h>
#if defined __x86_64__
#include <immintrin.h>
#endif

/* Where a tile goes; pointers stand at its first element. */
struct gemm_tile_out {
    void *c;
    int64_t ldc;
    float alpha, beta;
    const float *bias;
    const void *mask;
    enum gemm_act act;
    bool half;  /* C and mask are BF16, else F32 */
    bool plain; /* alpha 1, and beta 0 (with a mask: no bias either) or, in F32, 1 */
};
typedef void gemm_tile(bool rows, int64_t k, const char *a, int64_t a_stride, const char *b, int64_t b_k,
                       const struct gemm_tile_out *, int last);
struct gemm_loops {
    int vl, nv_max;
    int mr[4][6]; /* heights by nv - 1, falling to 1 */
    gemm_tile *tile[4][6];
    void (*transpose)(const char *src, int64_t stride, int64_t k, char *out, int64_t out_k);
    void (*dot)(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *out);
};

#define VL 4
#define TARGET
#define NAME(x) x##_portable
#define WIDE 0
#define MADD(c, a, b) ((c) + (a) * (b))
#include "engine/cpu/gemm_tile.h"

#if defined __x86_64__
#define VL 8
#define TARGET __attribute__((target("avx2,fma")))
#define NAME(x) x##_avx2
#define WIDE 0
#define MADD(c, a, b) ((c) + (a) * (b))
#include "engine/cpu/gemm_tile.h"

#define AVX512 "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
static inline __attribute__((always_inline, target(AVX512))) void transpose16(const char *src, int64_t stride,
                                                                              char *out, int64_t out_k)
{
    __m512 r[16], s[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_ps(src + i * stride);
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            __m512d lo = _mm512_castps_pd(s[i + j]), hi = _mm512_castps_pd(s[i + j + 2]);
            r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
            r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
        }
        /* r[4q + c] holds column c of each quarter for rows 4q … 4q + 3. */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512 lo = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88),
               hi = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
        __m512 lo2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88),
               hi2 = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
        _mm512_storeu_ps(out + c * out_k, _mm512_shuffle_f32x4(lo, lo2, 0x88));
        _mm512_storeu_ps(out + (8 + c) * out_k, _mm512_shuffle_f32x4(lo, lo2, 0xdd));
        _mm512_storeu_ps(out + (4 + c) * out_k, _mm512_shuffle_f32x4(hi, hi2, 0x88));
        _mm512_storeu_ps(out + (12 + c) * out_k, _mm512_shuffle_f32x4(hi, hi2, 0xdd));
    }
}

#define VL 16
#define TARGET __attribute__((target(AVX512)))
#define NAME(x) x##_avx512
#define WIDE 1
#define MADD(c, a, b) ((c) + (a) * (b))
#define TRANSPOSE transpose16
#include "engine/cpu/gemm_tile.h"

#define VL 16
#define TARGET __attribute__((target(AVX512 ",avx512bf16")))
#define NAME(x) x##_bf16
#define WIDE 1
#define MADD(c, a, b) ((v_bf16)_mm512_dpbf16_ps((__m512)(c), (__m512bh)_mm512_set1_ps(a), (__m512bh)(b)))
#define TRANSPOSE transpose16
#include "engine/cpu/gemm_tile.h"
#endif

enum gemm_isa gemm_isa_best(void)
{
    return simd_bf16_fast()              ? GEMM_AVX512_BF16
           : simd_level() == SIMD_AVX512 ? GEMM_AVX512
           : simd_level() == SIMD_AVX2   ? GEMM_AVX2
                                         : GEMM_PORTABLE;
}

/* Native pairs of bfloat16, or floats. */
static bool pairs(const struct gemm *g)
{
    return g->in == TENSOR_BF16 && !g->widen;
}

static const struct gemm_loops *loops_of(const struct gemm *g)
{
#if defined __x86_64__
    if (pairs(g))
        return &loops_bf16;
    if (g->isa >= GEMM_AVX512)
        return &loops_avx512;
    if (g->isa == GEMM_AVX2)
        return &loops_avx2;
#endif
    (void)g;
    return &loops_portable;
}

struct gemm gemm_of(enum tensor_type in, enum tensor_type out, int64_t m, int64_t n, int64_t k, bool ta,
                    bool tb)
{
    return (struct gemm){
        .m = m, .n = n, .k = k, .ta = ta, .tb = tb, .alpha = 1, .in = in, .out = out, .isa = gemm_isa_best()
    };
}

enum {
    /* Lanes of k that a panel of B holds: 64 × 512 floats are an eighth of a second-level cache, and leave the rest of it to A and C.
     * Sums that end in halves must be kept in floats between blocks: those are worth having only where k is very long. */
    K_BLOCK = 512,
    K_BLOCK_HALVES = 2048,
    DIRECT_B = 32,  /* rows of C from which packing B costs less than reading it far apart */
    DIRECT_K = 256, /* columns of A that are read in place across */
    FEW_COLUMNS = 512,
    STRIDE_NEAR = 2048, /* bytes from row to row that the hardware's prefetch follows well */
};

static size_t round64(size_t n)
{
    return (n + 63) & ~(size_t)63;
}

/* Sizes of the parts of scratch, in their order. */
struct parts {
    size_t wide_a, wide_b, wide_c, a, b, sum;
};

static struct parts parts_of(const struct gemm *g)
{
    const struct gemm_loops *l = loops_of(g);
    struct parts p = { 0 };
    int64_t lanes = pairs(g) ? (g->k + 1) / 2 : g->k, block = lanes < g->k_block ? lanes : g->k_block;
    if (g->widen) {
        p.wide_a = round64((size_t)(g->m * g->k) * 4);
        p.wide_b = round64((size_t)(g->k * g->n) * 4);
        if (g->out == TENSOR_F16)
            p.wide_c = round64((size_t)(g->m * g->n) * 4);
    }
    if (g->pack_a)
        p.a = round64((size_t)(g->m * block) * 4);
    p.b = round64((size_t)(block * l->vl * l->nv_max) * 4);
    if (lanes > block && g->out == TENSOR_BF16)
        p.sum = round64((size_t)(g->m * l->vl * l->nv_max) * 4);
    return p;
}

void gemm_plan(struct gemm *g)
{
    if (g->lda == 0)
        g->lda = g->ta ? g->m : g->k;
    if (g->ldb == 0)
        g->ldb = g->tb ? g->k : g->n;
    if (g->ldc == 0)
        g->ldc = g->n;
    g->scratch = 0;
    if (g->in == TENSOR_F64)
        return;
    g->widen = g->in != TENSOR_F32 && !(g->in == TENSOR_BF16 && g->isa >= GEMM_AVX512_BF16);
    g->k_block = pairs(g) || g->out == TENSOR_BF16 ? K_BLOCK_HALVES : K_BLOCK;
    /* A product with one column is the transposed one with one row where that reads A along its rows. */
    g->swap = g->in == TENSOR_F32 && g->n == 1 && g->ldc == 1 && g->ta;
    g->column = g->in == TENSOR_F32 && g->n == 1 && !g->ta && (g->tb || g->ldb == 1);
    int64_t size = pairs(g) ? 2 : 4, lda = g->widen ? (g->ta ? g->m : g->k) : g->lda,
            ldb = g->widen ? (g->tb ? g->k : g->n) : g->ldb;
    bool far_a = g->ta && g->k > 32 && (g->k > DIRECT_K || lda * size % 4096 == 0);
    /* With few columns packing A costs more than it brings: shorter blocks of k keep its lines near instead. */
    if (g->k_block == K_BLOCK && far_a && g->n <= FEW_COLUMNS && lda * size <= STRIDE_NEAR) {
        far_a = false;
        g->k_block = DIRECT_K;
    }
    g->pack_a = pairs(g) ? g->ta || g->k % 2 != 0 : far_a && g->n > 16;
    g->pack_b = pairs(g) || g->tb || (g->m >= DIRECT_B && g->k > 64 && ldb * size > STRIDE_NEAR);
    struct parts p = parts_of(g);
    if (g->column)
        p.a = round64((size_t)g->m * 4); /* of the sums, which the ends of a product have not seen */
    g->scratch = p.wide_a + p.wide_b + p.wide_c + p.a + p.b + p.sum;
}

/* ---- packing ---- */

static uint32_t pair_of(const char *lo, const char *hi)
{
    uint16_t x = 0, y = 0;
    if (lo)
        memcpy(&x, lo, 2);
    if (hi)
        memcpy(&y, hi, 2);
    return (uint32_t)y << 16 | x;
}

/* Two rows of n bfloat16 become n pairs; hi may be NULL: zeros. */
static void interleave(const char *lo, const char *hi, int64_t n, uint32_t *out)
{
    if (hi) {
        const uint16_t *restrict x = (const void *)lo, *restrict y = (const void *)hi;
        for (int64_t i = 0; i < n; i++)
            out[i] = (uint32_t)y[i] << 16 | x[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            out[i] = pair_of(lo + 2 * i, NULL);
    }
}

/* Lanes [k0, k0 + kn) of columns [j0, j0 + n) of op(B), as rows of `width` lanes, zeros behind n. */
static void pack_b(const struct gemm *g, const struct gemm_loops *l, const char *b, int64_t j0, int64_t n,
                   int64_t k0, int64_t kn, int64_t width, char *out)
{
    const int64_t size = pairs(g) ? 2 : 4, per = 4 / size, row = width * 4;
    if (!g->tb) {
        for (int64_t kk = 0; kk < kn; kk++) {
            const char *p = b + ((k0 + kk) * per * g->ldb + j0) * size;
            if (per == 1)
                memcpy(out + kk * row, p, (size_t)n * 4);
            else
                interleave(p, (k0 + kk) * 2 + 1 < g->k ? p + g->ldb * 2 : NULL, n,
                           (uint32_t *)(void *)(out + kk * row));
            if (n < width)
                memset(out + kk * row + n * 4, 0, (size_t)(width - n) * 4);
        }
        return;
    }
    int64_t whole = per == 2 && (k0 + kn) * 2 > g->k ? kn - 1 : kn; /* an odd k ends in half a pair */
    for (int64_t j = 0; j < width; j += l->vl) {
        const char *p = b + ((j0 + j) * g->ldb + k0 * per) * size;
        if (j + l->vl <= n) {
            l->transpose(p, g->ldb * size, whole, out + j * 4, row);
        } else {
            for (int64_t kk = 0; kk < whole; kk++)
                for (int64_t i = 0; i < l->vl; i++)
                    if (j + i < n)
                        memcpy(out + kk * row + (j + i) * 4, p + i * g->ldb * size + kk * 4, 4);
                    else
                        memset(out + kk * row + (j + i) * 4, 0, 4);
        }
        for (int64_t kk = whole; kk < kn; kk++)
            for (int64_t i = 0; i < l->vl; i++) {
                uint32_t x = j + i < n ? pair_of(p + i * g->ldb * size + kk * 4, NULL) : 0;
                memcpy(out + kk * row + (j + i) * 4, &x, 4);
            }
    }
}

/* Lanes [k0, k0 + kn) of rows [i0, i0 + n) of op(A), as columns of n lanes. */
static void pack_a(const struct gemm *g, const char *a, int64_t i0, int64_t n, int64_t k0, int64_t kn,
                   char *out)
{
    const int64_t size = pairs(g) ? 2 : 4, per = 4 / size;
    for (int64_t kk = 0; kk < kn; kk++, out += n * 4) {
        if (g->ta) {
            const char *p = a + ((k0 + kk) * per * g->lda + i0) * size;
            if (per == 1)
                memcpy(out, p, (size_t)n * 4);
            else
                interleave(p, (k0 + kk) * 2 + 1 < g->k ? p + g->lda * 2 : NULL, n, (uint32_t *)(void *)out);
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            const char *p = a + ((i0 + i) * g->lda + (k0 + kk) * per) * size;
            uint32_t x;
            if (per == 2)
                x = pair_of(p, (k0 + kk) * 2 + 1 < g->k ? p + 2 : NULL);
            else
                memcpy(&x, p, 4);
            memcpy(out + i * 4, &x, 4);
        }
    }
}

/* ---- the product ---- */

static int height(const struct gemm_loops *l, int nv, int64_t rows, gemm_tile **tile)
{
    int i = 0;
    while (l->mr[nv - 1][i] > rows)
        i++;
    *tile = l->tile[nv - 1][i];
    return l->mr[nv - 1][i];
}

/* One panel of columns [j0, j0 + n) over lanes [k0, k0 + kn), from b (rows of b_k bytes) into o (its first row). */
static void panel(const struct gemm *g, const struct gemm_loops *l, int nv, int64_t k0, int64_t kn,
                  const char *a, const char *packed_a, const char *b, int64_t b_k, struct gemm_tile_out o,
                  int last)
{
    const int64_t size = pairs(g) ? 2 : 4, per = 4 / size;
    for (int64_t i = 0; i < g->m;) {
        gemm_tile *tile;
        int mr = height(l, nv, g->m - i, &tile);
        if (packed_a)
            tile(false, kn, packed_a + i * kn * 4, mr * 4, b, b_k, &o, last);
        else if (g->ta)
            tile(false, kn, a + (k0 * g->lda + i) * size, g->lda * size, b, b_k, &o, last);
        else
            tile(true, kn, a + (i * g->lda + k0 * per) * size, g->lda * size, b, b_k, &o, last);
        i += mr;
        o.c = (char *)o.c + (int64_t)mr * o.ldc * (o.half ? 2 : 4);
        if (o.mask)
            o.mask = (const char *)o.mask + (int64_t)mr * g->ldc * (o.half ? 2 : 4);
    }
}

static inline __attribute__((always_inline)) void copy_lanes(char *to, const char *from, int n)
{
    switch (n) { /* sizes that the compiler knows are moves, not calls */
    case 14:
        memcpy(to, from, 56);
        break;
    case 12:
        memcpy(to, from, 48);
        break;
    case 8:
        memcpy(to, from, 32);
        break;
    case 6:
        memcpy(to, from, 24);
        break;
    default:
        memcpy(to, from, (size_t)n * 4);
    }
}

enum { PANELS = 32, PANEL_ROWS = 14 };

/* Rows [i0, i0 + Σ heights) of a transposed A: line by line, each cut into the panels that it passes. */
static void pack_across(const struct gemm *g, const char *a, int64_t i0, const int *heights, int panels,
                        int64_t k0, int64_t kn, char *out)
{
    const int64_t size = pairs(g) ? 2 : 4, per = 4 / size;
    uint32_t line[PANELS * PANEL_ROWS];
    int64_t n = 0;
    for (int p = 0; p < panels; p++)
        n += heights[p];
    for (int64_t kk = 0; kk < kn; kk++) {
        const char *from = a + ((k0 + kk) * per * g->lda + i0) * size;
        if (per == 2) {
            interleave(from, (k0 + kk) * 2 + 1 < g->k ? from + g->lda * 2 : NULL, n, line);
            from = (const char *)line;
        }
        char *to = out;
        for (int p = 0; p < panels; p++) {
            copy_lanes(to + kk * heights[p] * 4, from, heights[p]);
            from += heights[p] * 4;
            to += kn * heights[p] * 4;
        }
    }
}

/* The heights of tiles depend on a panel's width, so packed columns of A do, too. */
static void pack_all_a(const struct gemm *g, const struct gemm_loops *l, int nv, const char *a, int64_t k0,
                       int64_t kn, char *out)
{
    for (int64_t i = 0; i < g->m;) {
        int heights[PANELS], panels = 0;
        int64_t from = i;
        while (i < g->m && panels < PANELS) {
            gemm_tile *tile;
            heights[panels] = height(l, nv, g->m - i, &tile);
            if (!g->ta)
                pack_a(g, a, i, heights[panels], k0, kn, out + i * kn * 4);
            i += heights[panels++];
        }
        if (g->ta)
            pack_across(g, a, from, heights, panels, k0, kn, out + from * kn * 4);
    }
}

struct product_run {
    const struct gemm *g;
    const struct gemm_loops *l;
    const char *a, *b;
    char *c;
    const struct gemm_more *more;
    char *a_pack, *b_pack;
    float *sum; /* of a panel in halves whose k comes in blocks; else NULL */
    int64_t lanes, width;
    int packed_nv; /* for panels of this width, at packed_k, A is packed */
    int64_t packed_k;
};

/* Columns from j on, lanes from k0 on. */
static void block(struct product_run *r, int64_t j, int64_t k0)
{
    const struct gemm *g = r->g;
    const struct gemm_loops *l = r->l;
    const bool half = g->out == TENSOR_BF16;
    const int64_t n = g->n - j < r->width ? g->n - j : r->width, size = half ? 2 : 4;
    const int nv = (int)((n + l->vl - 1) / l->vl), last = (int)(n - (nv - 1) * l->vl);
    const int64_t kn = r->lanes - k0 < g->k_block ? r->lanes - k0 : g->k_block;
    const bool first = k0 == 0, end = k0 + kn >= r->lanes;
    if (g->pack_a && (r->packed_nv != nv || r->packed_k != k0)) {
        pack_all_a(g, l, nv, r->a, k0, kn, r->a_pack);
        r->packed_nv = nv;
        r->packed_k = k0;
    }
    const char *rows = r->b + (k0 * g->ldb + j) * 4;
    int64_t b_k = g->ldb * 4;
    if (g->pack_b || last != l->vl) {
        pack_b(g, l, r->b, j, n, k0, kn, (int64_t)nv * l->vl, r->b_pack);
        rows = r->b_pack;
        b_k = (int64_t)nv * l->vl * 4;
    }
    struct gemm_tile_out o = {
        .c = r->c + j * size, .ldc = g->ldc, .alpha = g->alpha, .beta = first ? g->beta : 1, .half = half
    };
    if (r->sum) {
        o = (struct gemm_tile_out){ .c = r->sum, .ldc = r->width, .alpha = g->alpha, .beta = first ? 0 : 1 };
    } else if (end) {
        o.bias = r->more && r->more->bias ? (const float *)r->more->bias + j : NULL;
        o.act = g->act;
        o.mask = r->more && r->more->mask ? (const char *)r->more->mask + j * size : NULL;
    }
    o.plain = o.alpha == 1 &&
              (o.act == GEMM_MASK ? o.beta == 0 && !o.bias : o.beta == 0 || (o.beta == 1 && !o.half));
    panel(g, l, nv, k0, kn, r->a, g->pack_a ? r->a_pack : NULL, rows, b_k, o, last);
}

/* A panel's sums become what they are to be, in halves. */
static void sums_out(const struct product_run *r, int64_t j)
{
    const struct gemm *g = r->g;
    const int64_t n = g->n - j < r->width ? g->n - j : r->width;
    for (int64_t i = 0; i < g->m; i++) {
        char *row = r->c + (i * g->ldc + j) * 2;
        float old[64] = { 0 }, mask[64];
        if (g->beta != 0)
            floats_of(g->out, row, n, old);
        if (g->act == GEMM_MASK)
            floats_of(g->out, (const char *)r->more->mask + (i * g->ldc + j) * 2, n, mask);
        for (int64_t x = 0; x < n; x++) {
            float y = r->sum[i * r->width + x] + g->beta * old[x];
            if (r->more && r->more->bias)
                y += ((const float *)r->more->bias)[j + x];
            if (g->act == GEMM_RELU)
                y = y <= 0 ? 0 : y;
            else if (g->act == GEMM_MASK)
                y = mask[x] > 0 ? y : 0;
            old[x] = y;
        }
        floats_to(g->out, old, n, row);
    }
}

static void run_lanes(const struct gemm *g, const char *a, const char *b, void *c,
                      const struct gemm_more *more, char *scratch)
{
    const struct parts p = parts_of(g);
    struct product_run r = { g, loops_of(g), a, b, c, more, scratch, scratch + p.a };
    r.sum = p.sum ? (float *)(void *)(scratch + p.a + p.b) : NULL;
    r.lanes = pairs(g) ? (g->k + 1) / 2 : g->k;
    r.width = (int64_t)r.l->vl * r.l->nv_max;
    if (r.sum) {
        for (int64_t j = 0; j < g->n; j += r.width) {
            for (int64_t k0 = 0; k0 < r.lanes; k0 += g->k_block)
                block(&r, j, k0);
            sums_out(&r, j);
        }
        return;
    }
    for (int64_t k0 = 0; k0 < r.lanes || k0 == 0; k0 += g->k_block)
        for (int64_t j = 0; j < g->n; j += r.width)
            block(&r, j, k0);
}

/* One column: a dot product for each row. */
static void run_column(const struct gemm *g, const float *a, const float *b, float *c,
                       const struct gemm_more *more, float *sum)
{
    loops_of(g)->dot(g->m, g->k, a, g->lda, b, sum);
    const float bias = more && more->bias ? *(const float *)more->bias : 0;
    for (int64_t i = 0; i < g->m; i++) {
        float *y = c + i * g->ldc, x = g->alpha * sum[i] + (g->beta != 0 ? g->beta * *y : 0) + bias;
        if (g->act == GEMM_RELU)
            x = x <= 0 ? 0 : x;
        else if (g->act == GEMM_MASK)
            x = ((const float *)more->mask)[i * g->ldc] > 0 ? x : 0;
        *y = x;
    }
}

enum { WIDE_PIECE = 256 };

/* Types without loops of their own: A and B become floats first. */
static void run_wide(const struct gemm *g, const char *a, const char *b, void *c,
                     const struct gemm_more *more, char *scratch)
{
    struct parts p = parts_of(g);
    float *wa = (float *)(void *)scratch, *wb = (float *)(void *)(scratch + p.wide_a),
          *wc = (float *)(void *)(scratch + p.wide_a + p.wide_b);
    int64_t ar = g->ta ? g->k : g->m, ac = g->ta ? g->m : g->k, br = g->tb ? g->n : g->k,
            bc = g->tb ? g->k : g->n;
    for (int64_t i = 0; i < ar; i++)
        floats_of(g->in, a + i * g->lda * 2, ac, wa + i * ac);
    for (int64_t i = 0; i < br; i++)
        floats_of(g->in, b + i * g->ldb * 2, bc, wb + i * bc);
    struct gemm w = *g;
    w.in = TENSOR_F32;
    w.widen = w.swap = w.column = false;
    w.lda = ac;
    w.ldb = bc;
    char *rest = scratch + p.wide_a + p.wide_b + p.wide_c;
    if (g->out != TENSOR_F16) { /* a tile's end makes these by itself */
        run_lanes(&w, (const char *)wa, (const char *)wb, c, more, rest);
        return;
    }
    w.out = TENSOR_F32;
    w.ldc = g->n;
    w.act = GEMM_LINEAR;
    if (g->beta != 0)
        for (int64_t i = 0; i < g->m; i++)
            floats_of(g->out, (const char *)c + i * g->ldc * 2, g->n, wc + i * g->n);
    run_lanes(&w, (const char *)wa, (const char *)wb, wc,
              more && more->bias ? &(struct gemm_more){ .bias = more->bias } : NULL, rest);
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j0 = 0; j0 < g->n; j0 += WIDE_PIECE) {
            const int64_t n = g->n - j0 < WIDE_PIECE ? g->n - j0 : WIDE_PIECE, at = (i * g->ldc + j0) * 2;
            float *piece = wc + i * g->n + j0, mask[WIDE_PIECE];
            if (g->act == GEMM_MASK)
                floats_of(g->out, (const char *)more->mask + at, n, mask);
            for (int64_t j = 0; j < n && g->act != GEMM_LINEAR; j++)
                if (g->act == GEMM_RELU ? piece[j] <= 0 : !(mask[j] > 0))
                    piece[j] = 0;
            floats_to(g->out, piece, n, (char *)c + at);
        }
}

/* For checks of gradients: exactness matters here, speed does not. */
static void run_f64(const struct gemm *g, const double *a, const double *b, double *c,
                    const struct gemm_more *more)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double s = 0;
            for (int64_t kk = 0; kk < g->k; kk++)
                s += (g->ta ? a[kk * g->lda + i] : a[i * g->lda + kk]) *
                     (g->tb ? b[j * g->ldb + kk] : b[kk * g->ldb + j]);
            double *y = &c[i * g->ldc + j];
            s = (double)g->alpha * s + (g->beta != 0 ? (double)g->beta * *y : 0);
            if (more && more->bias)
                s += ((const double *)more->bias)[j];
            if (g->act == GEMM_RELU)
                s = s > 0 ? s : s != s ? s : 0;
            else if (g->act == GEMM_MASK)
                s = ((const double *)more->mask)[i * g->ldc + j] > 0 ? s : 0;
            *y = s;
        }
}

void gemm_run(const struct gemm *g, const void *a, const void *b, void *c, const struct gemm_more *more,
              void *scratch)
{
    if (g->in == TENSOR_F64) {
        run_f64(g, a, b, c, more);
    } else if (g->widen) {
        run_wide(g, a, b, c, more, scratch);
    } else if (g->column) {
        run_column(g, a, b, c, more, scratch);
    } else if (g->swap && !(more && more->bias)) {
        /* op(B) is k × 1; as A of the swapped product it is read as stored: 1 × k, or k × 1 across. */
        struct gemm t = *g;
        t.m = 1;
        t.n = g->m;
        t.ta = !g->tb;
        t.tb = false;
        t.lda = g->ldb;
        t.ldb = g->lda;
        t.ldc = g->m;
        t.pack_a = t.pack_b = false;
        run_lanes(&t, b, a, c, more, scratch);
    } else {
        run_lanes(g, a, b, c, more, scratch);
    }
}

/* ---- halves ---- */

void floats_of(enum tensor_type type, const void *p, int64_t n, float *out)
{
    SIMD_PICK(elements_f32)->load[type](out, p, 1, (size_t)n);
}

void floats_to(enum tensor_type type, const float *v, int64_t n, void *out)
{
    SIMD_PICK(elements_f32)->store[type](out, v, (size_t)n);
}
