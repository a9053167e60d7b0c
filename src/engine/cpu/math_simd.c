// SPDX-License-Identifier: Apache-2.0
// Element-wise work and folds in float, once for each instruction set (engine/cpu/simd.h).
#include "engine/cpu/elements.h"
#include "engine/cpu/simd_math.h"

#include <float.h>
#ifdef __F16C__
#include <immintrin.h>
#endif

#define R float
#define TEXT(name) SIMD(name)
#define EXP fast_exp
#define LOG fast_log
#define TANH fast_tanh
#define SIGMOID fast_sigmoid
#define ERF fast_erf
#define SOFTPLUS fast_softplus
#define NORMAL fast_normal
#define BELL fast_bell
#define SQRT sqrtf
#define ABS fabsf
#define FLOOR floorf
#define CEIL ceilf
#define RINT rintf
#define SIN sinf
#define COS cosf
#define TAN tanf
#define ASIN asinf
#define ACOS acosf
#define ATAN atanf
#define SINH sinhf
#define COSH coshf
#define ASINH asinhf
#define ACOSH acoshf
#define ATANH atanhf
#define MOST FLT_MAX
#define CUT01(x) ((x) < 0 ? 0 : (x) > 1 ? 1 : (x))
#define PLUS(x, y) ((x) + (y))
#define MINUS(x, y) ((x) - (y))
#define NEGATE(x) (-(x))
#define TIMES(x, y) ((x) * (y))
#define DIVIDE(x, y) ((x) / (y))
#define POWER powf
#define FMODULO fmodf
#define MODULO modulo

static inline float modulo(float x, float y)
{
    float m = fmodf(x, y);
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}
#include "engine/cpu/slopes.h"
#define THE_ELEMENTS(E1, E2, E3) ELEMENTS(E1, E2, E3)
#include "engine/cpu/elements_text.h"

/* Beyond the type: the nearest that it has; NaN: 0. */
static inline int64_t to_i64(float x)
{
    return x >= 0x1p63f ? INT64_MAX : x > -0x1p63f ? (int64_t)x : x <= -0x1p63f ? INT64_MIN : 0;
}
static inline int32_t to_i32(float x)
{
    return x >= 0x1p31f ? INT32_MAX : x > -0x1p31f ? (int32_t)x : x <= -0x1p31f ? INT32_MIN : 0;
}
LOAD_STORE(f32, float, x, x)
LOAD_STORE(bf16, uint16_t, bf16_float(x), float_bf16(x))
LOAD_STORE(f16, uint16_t, f16_float(x), float_f16(x))
LOAD_STORE(bool, uint8_t, x != 0, x != 0)
LOAD_STORE(u8, uint8_t, x, (uint8_t)to_i32(x))
LOAD_STORE(i8, int8_t, x, (int8_t)to_i32(x))
LOAD_STORE(u16, uint16_t, x, (uint16_t)to_i32(x))
LOAD_STORE(i16, int16_t, x, (int16_t)to_i32(x))
LOAD_STORE(i32, int32_t, (float)x, to_i32(x))
LOAD_STORE(u32, uint32_t, (float)x, (uint32_t)to_i64(x))
LOAD_STORE(i64, int64_t, (float)x, to_i64(x))
LOAD_STORE(u64, uint64_t, (float)x, (uint64_t)to_i64(x))
LOAD_STORE(f64, double, (float)x, x)

#ifdef __F16C__
/* The machine's own conversion, eight at a time; the rest as above. */
static void SIMD(load_f16c)(void *d_, const void *s_, int64_t stride, size_t n)
{
    float *d = d_;
    const uint16_t *s = s_;
    size_t i = 0;
    for (; stride == 1 && i + 8 <= n; i += 8)
        _mm256_storeu_ps(d + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(s + i))));
    SIMD(load_f16)(d + i, s + (int64_t)i * stride, stride, n - i);
}
static void SIMD(store_f16c)(void *d_, const void *s_, size_t n)
{
    uint16_t *d = d_;
    const float *s = s_;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(void *)(d + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(s + i), _MM_FROUND_TO_NEAREST_INT));
    SIMD(store_f16)(d + i, s + i, n - i);
}
#define F16(what) SIMD(what##_f16c)
#else
#define F16(what) SIMD(what##_f16)
#endif

/* ---- folds ---- */

/* Four vectors of sums hide the adder's delay; a piece is short enough for float, pieces are added in double. */
enum { PIECE = 4096, STEP = 4 * SIMD_FLOATS };

static long double SIMD(fold_sum)(const void *s_, size_t n)
{
    const float *s = s_;
    double total = 0;
    for (size_t from = 0; from < n; from += PIECE) {
        size_t to = n - from < PIECE ? n : from + PIECE, i = from;
        vf a = { 0 }, b = { 0 }, c = { 0 }, d = { 0 };
        for (; i + STEP <= to; i += STEP) {
            a += vf_load(s + i);
            b += vf_load(s + i + SIMD_FLOATS);
            c += vf_load(s + i + 2 * SIMD_FLOATS);
            d += vf_load(s + i + 3 * SIMD_FLOATS);
        }
        float rest = 0;
        for (; i + SIMD_FLOATS <= to; i += SIMD_FLOATS)
            a += vf_load(s + i);
        for (; i < to; i++)
            rest += s[i];
        total += vf_sum((a + b) + (c + d)) + rest;
    }
    return total;
}
static void SIMD(sum_rows)(void *d_, const void *s_, size_t rows, size_t n)
{
    float *d = d_;
    const float *s = s_;
    for (size_t r = 0; r < rows; r++, s += n) {
        vf a = { 0 }, b = { 0 };
        size_t i = 0;
        for (; i + 2 * SIMD_FLOATS <= n; i += 2 * SIMD_FLOATS) {
            a += vf_load(s + i);
            b += vf_load(s + i + SIMD_FLOATS);
        }
        for (; i + SIMD_FLOATS <= n; i += SIMD_FLOATS)
            a += vf_load(s + i);
        float even = 0, odd = 0;
        for (; i + 2 <= n; i += 2) {
            even += s[i];
            odd += s[i + 1];
        }
        even += i < n ? s[i] : 0;
        d[r] = n < SIMD_FLOATS ? even + odd : vf_sum(a + b) + (even + odd);
    }
}
static long double SIMD(fold_prod)(const void *s_, size_t n)
{
    const float *s = s_;
    double p = 1;
    for (size_t i = 0; i < n; i++)
        p *= s[i];
    return p;
}
/* As the instruction: a NaN stays. */
#define FOLD_PICK(name, compare)                                                                       \
    static long double SIMD(name)(const void *s_, size_t n)                                            \
    {                                                                                                  \
        const float *s = s_;                                                                           \
        float best[STEP], one = s[0];                                                                  \
        size_t i = 0;                                                                                  \
        if (n >= STEP) {                                                                               \
            memcpy(best, s, sizeof best);                                                              \
            for (i = STEP; i + STEP <= n; i += STEP)                                                   \
                for (int k = 0; k < STEP; k++)                                                         \
                    best[k] = s[i + (size_t)k] compare best[k] || s[i + (size_t)k] != s[i + (size_t)k] \
                                  ? s[i + (size_t)k]                                                   \
                                  : best[k];                                                           \
            for (int k = 0; k < STEP; k++)                                                             \
                one = best[k] compare one || best[k] != best[k] ? best[k] : one;                       \
        }                                                                                              \
        for (; i < n; i++)                                                                             \
            one = s[i] compare one || s[i] != s[i] ? s[i] : one;                                       \
        return one;                                                                                    \
    }
FOLD_PICK(fold_max, >)
FOLD_PICK(fold_min, <)

#define E(name, expression) SIMD(name),
const struct element_table SIMD(elements_f32) = {
    .size = sizeof(float),
    .fn = { ELEMENTS(E, E, E) },
#define T(NAME, name) [TENSOR_##NAME] = SIMD(load_##name)
    .load = { T(F32, f32), T(BF16, bf16), [TENSOR_F16] = F16(load), T(BOOL, bool), T(U8, u8), T(I8, i8),
              T(U16, u16), T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
#define T(NAME, name) [TENSOR_##NAME] = SIMD(store_##name)
    .store = { T(F32, f32), T(BF16, bf16), [TENSOR_F16] = F16(store), T(BOOL, bool), T(U8, u8), T(I8, i8),
               T(U16, u16), T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
    .fold = { SIMD(fold_sum), SIMD(fold_prod), SIMD(fold_max), SIMD(fold_min) },
    .sum_rows = SIMD(sum_rows),
};
