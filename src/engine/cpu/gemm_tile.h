// SPDX-License-Identifier: Apache-2.0
// The inner loops of gemm.c, one text for each instruction set. The includer defines
//   VL            lanes of 32 bits in a vector
//   TARGET        the function attribute that turns the instruction set on (may be empty)
//   NAME(x)       x with the set's own ending
//   WIDE          1 if there are 32 vector registers, else 0
//   MADD(c, a, b) c + a · b, a one lane in all places: floats, or pairs of bfloat16
// A lane is a float, or two neighbours along k of bfloat16; strides are bytes, k counts lanes.

typedef float NAME(v) __attribute__((vector_size(VL * 4)));
typedef float NAME(vu) __attribute__((vector_size(VL * 4), aligned(2), may_alias));
typedef int32_t NAME(vi) __attribute__((vector_size(VL * 4)));
typedef uint32_t NAME(vw) __attribute__((vector_size(VL * 4)));
typedef uint16_t NAME(vh) __attribute__((vector_size(VL * 2), aligned(2), may_alias));

/* `lanes` floats at p, or as many bfloat16. */
static inline __attribute__((always_inline)) TARGET void NAME(load)(NAME(v) * out, const void *p, bool half,
                                                                    int lanes)
{
    NAME(v) x = { 0 };
    if (!half && lanes == VL) {
        x = *(const NAME(vu) *)p;
    } else if (half && lanes == VL) {
        NAME(vw) w = __builtin_convertvector(*(const NAME(vh) *)p, NAME(vw)) << 16;
        memcpy(&x, &w, sizeof x);
    } else {
        float part[VL] = { 0 };
        for (int i = 0; i < lanes; i++) {
            uint32_t w;
            memcpy(&w, (const char *)p + (size_t)i * (half ? 2 : 4), half ? 2 : 4);
            w = half ? (w & 0xffff) << 16 : w;
            memcpy(&part[i], &w, 4);
        }
        memcpy(&x, part, sizeof x);
    }
    *out = x;
}

static inline __attribute__((always_inline)) TARGET void NAME(store)(NAME(v) x, void *p, bool half, int lanes)
{
    if (!half && lanes == VL) {
        *(NAME(vu) *)p = x;
        return;
    }
    if (!half) {
        float part[VL];
        memcpy(part, &x, sizeof x);
        memcpy(p, part, (size_t)lanes * 4);
        return;
    }
    NAME(vw) w;
    memcpy(&w, &x, sizeof w);
    w += 0x7fff + (w >> 16 & 1); /* to the nearest, ties to even */
    w >>= 16;
    NAME(vi) is_nan = x != x;
    w |= (NAME(vw))is_nan & 0x7fc0; /* rounding must not make infinity of it */
    NAME(vh) h = __builtin_convertvector(w, NAME(vh));
    if (lanes == VL)
        *(NAME(vh) *)p = h;
    else
        memcpy(p, &h, (size_t)lanes * 2);
}

/* The end of a tile that is not plain: scaled, added to what stands there, masked, in halves, or cut off at the right. */
static __attribute__((noinline)) TARGET void NAME(finish)(int mr, int nv, const NAME(v) * sums,
                                                          const struct gemm_tile_out *o, int last)
{
    const int size = o->half ? 2 : 4;
    for (int i = 0; i < mr; i++)
        for (int j = 0; j < nv; j++) {
            int lanes = j == nv - 1 ? last : VL;
            size_t at = (size_t)(i * o->ldc + j * VL) * (size_t)size;
            NAME(v) x = sums[i * nv + j] * o->alpha, y;
            if (o->beta != 0) {
                NAME(load)(&y, (char *)o->c + at, o->half, lanes);
                x += y * o->beta;
            }
            if (o->bias) {
                NAME(load)(&y, o->bias + j * VL, false, lanes);
                x += y;
            }
            if (o->act == GEMM_RELU) {
                x = (NAME(v))((NAME(vi))x & ~(x <= 0));
            } else if (o->act == GEMM_MASK) {
                NAME(load)(&y, (const char *)o->mask + at, o->half, lanes);
                x = (NAME(v))((NAME(vi))x & (y > 0));
            }
            NAME(store)(x, (char *)o->c + at, o->half, lanes);
        }
}

/* mr × (nv · VL) of C. a_row, a_k: from lane to lane of A; one of them is 4 (`rows`: a_k is). b: nv vectors at each k. */
static inline __attribute__((always_inline)) TARGET void NAME(tile)(const int mr, const int nv,
                                                                    const bool rows, int64_t k, const char *a,
                                                                    int64_t a_stride, const char *b,
                                                                    int64_t b_k,
                                                                    const struct gemm_tile_out *o, int last)
{
    NAME(v) acc[14][4];
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            acc[i][j] = (NAME(v)){ 0 };
    /* Rows of A by few pointers: every third, and the two after it by the stride. */
    const char *row[5];
    if (rows)
#pragma GCC unroll 5
        for (int i = 0; i < (mr + 2) / 3; i++)
            row[i] = a + 3 * i * a_stride;
    for (int64_t kk = 0; kk < k; kk++) {
        NAME(v) bv[4];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            bv[j] = *(const NAME(vu) *)(b + (size_t)j * VL * 4);
        b += b_k;
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++) {
            float x;
            memcpy(&x, rows ? row[i / 3] + kk * 4 + (i % 3) * a_stride : a + i * 4, 4);
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++)
                acc[i][j] = MADD(acc[i][j], x, bv[j]);
        }
        if (!rows)
            a += a_stride;
    }
    if (o->plain && last == VL && o->act == GEMM_MASK) {
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                const size_t at = (size_t)(i * o->ldc + j * VL) * (o->half ? 2 : 4);
                NAME(v) y;
                NAME(load)(&y, (const char *)o->mask + at, o->half, VL);
                NAME(store)((NAME(v))((NAME(vi))acc[i][j] & (y > 0)), (char *)o->c + at, o->half, VL);
            }
        return;
    }
    if (o->plain && last == VL) {
        NAME(v) bias[4];
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            if (o->bias)
                bias[j] = *(const NAME(vu) *)(o->bias + j * VL);
            else
                bias[j] = (NAME(v)){ 0 };
        const NAME(vi) keep = (NAME(vi)){ 0 } - (o->act == GEMM_LINEAR);
#pragma GCC unroll 14
        for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
            for (int j = 0; j < nv; j++) {
                const int64_t at = i * o->ldc + j * VL;
                NAME(v) x = acc[i][j] + bias[j];
                if (o->beta != 0)
                    x += *(const NAME(vu) *)((const float *)o->c + at);
                x = (NAME(v))((NAME(vi))x & (~(x <= 0) | keep)); /* a Relu that lets NaN pass */
                if (o->half)
                    NAME(store)(x, (uint16_t *)o->c + at, true, VL);
                else
                    *(NAME(vu) *)((float *)o->c + at) = x;
            }
        return;
    }
    NAME(v) sums[14 * 4];
#pragma GCC unroll 14
    for (int i = 0; i < mr; i++)
#pragma GCC unroll 4
        for (int j = 0; j < nv; j++)
            sums[i * nv + j] = acc[i][j];
    NAME(finish)(mr, nv, sums, o, last);
}

#define TILE(mr, nv)                                                                                     \
    static TARGET void NAME(tile_##mr##_##nv)(bool rows, int64_t k, const char *a, int64_t a_stride,     \
                                              const char *b, int64_t b_k, const struct gemm_tile_out *o, \
                                              int last)                                                  \
    {                                                                                                    \
        if (rows)                                                                                        \
            NAME(tile)(mr, nv, true, k, a, a_stride, b, b_k, o, last);                                   \
        else                                                                                             \
            NAME(tile)(mr, nv, false, k, a, a_stride, b, b_k, o, last);                                  \
    }
// clang-format off
TILE(1, 1) TILE(2, 1) TILE(4, 1)
TILE(1, 2) TILE(2, 2) TILE(4, 2)
#if WIDE
TILE(8, 1) TILE(14, 1) TILE(8, 2) TILE(12, 2)
TILE(1, 3) TILE(2, 3) TILE(4, 3) TILE(8, 3)
TILE(1, 4) TILE(2, 4) TILE(4, 4) TILE(6, 4)
#else
TILE(6, 1) TILE(6, 2)
#endif
// clang-format on
#undef TILE

    /* out[i] = the product of row i of A and b. */
    static TARGET
    void NAME(dot)(int64_t m, int64_t k, const float *a, int64_t lda, const float *b, float *out)
{
    for (int64_t i = 0; i < m; i += 4) {
        const int64_t n = m - i < 4 ? m - i : 4;
        const float *row[4];
        for (int64_t r = 0; r < 4; r++)
            row[r] = a + (i + (r < n ? r : n - 1)) * lda;
        NAME(v) s[4] = { 0 };
        int64_t kk = 0;
        for (; kk + VL <= k; kk += VL)
            for (int r = 0; r < 4; r++)
                s[r] += *(const NAME(vu) *)(row[r] + kk) * *(const NAME(vu) *)(b + kk);
        for (int64_t r = 0; r < n; r++) {
            float sum = 0;
            for (int j = 0; j < VL; j++)
                sum += s[r][j];
            for (int64_t j = kk; j < k; j++)
                sum += row[r][j] * b[j];
            out[i + r] = sum;
        }
    }
}

/* out[k][VL] = the k lanes of VL rows that lie `stride` bytes apart. */
static TARGET void NAME(transpose)(const char *src, int64_t stride, int64_t k, char *out, int64_t out_k)
{
    int64_t kk = 0;
#ifdef TRANSPOSE
    for (; kk + VL <= k; kk += VL)
        TRANSPOSE(src + kk * 4, stride, out + kk * out_k, out_k);
#endif
    for (; kk < k; kk++)
        for (int j = 0; j < VL; j++)
            memcpy(out + kk * out_k + j * 4, src + j * stride + kk * 4, 4);
}

static const struct gemm_loops NAME(loops) = {
    .vl = VL,
    .transpose = NAME(transpose),
    .dot = NAME(dot),
#if WIDE
    .nv_max = 4,
    .mr = { { 14, 8, 4, 2, 1 }, { 12, 8, 4, 2, 1 }, { 8, 4, 2, 1 }, { 6, 4, 2, 1 } },
    .tile = {
        { NAME(tile_14_1), NAME(tile_8_1), NAME(tile_4_1), NAME(tile_2_1), NAME(tile_1_1) },
        { NAME(tile_12_2), NAME(tile_8_2), NAME(tile_4_2), NAME(tile_2_2), NAME(tile_1_2) },
        { NAME(tile_8_3), NAME(tile_4_3), NAME(tile_2_3), NAME(tile_1_3) },
        { NAME(tile_6_4), NAME(tile_4_4), NAME(tile_2_4), NAME(tile_1_4) },
    },
#else
    .nv_max = 2,
    .mr = { { 6, 4, 2, 1 }, { 6, 4, 2, 1 } },
    .tile = {
        { NAME(tile_6_1), NAME(tile_4_1), NAME(tile_2_1), NAME(tile_1_1) },
        { NAME(tile_6_2), NAME(tile_4_2), NAME(tile_2_2), NAME(tile_1_2) },
    },
#endif
};
#undef VL
#undef TARGET
#undef NAME
#undef WIDE
#undef MADD
#undef TRANSPOSE
