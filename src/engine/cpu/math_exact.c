// SPDX-License-Identifier: Apache-2.0
// Element-wise work in double: the word against which the fast kernels are held.
#include "engine/cpu/elements.h"
#include "engine/cpu/simd_math.h"

#include <float.h>

#define R double
#define TEXT(name) name##_f64
#define EXP exp
#define LOG log
#define TANH tanh
#define SIGMOID(x) (1 / (1 + exp(-(x))))
#define ERF erf
#define SOFTPLUS(x) (fmax(x, 0) + log1p(exp(-fabs(x))))
#define NORMAL(x) (0.5 * erfc(-(x)*M_SQRT1_2))
#define BELL(x) (exp(-0.5 * (x) * (x)) * 0.3989422804014327)
#define SQRT sqrt
#define ABS fabs
#define FLOOR floor
#define CEIL ceil
#define RINT rint
#define SIN sin
#define COS cos
#define TAN tan
#define ASIN asin
#define ACOS acos
#define ATAN atan
#define SINH sinh
#define COSH cosh
#define ASINH asinh
#define ACOSH acosh
#define ATANH atanh
#define MOST DBL_MAX
#define CUT01(x) ((x) < 0 ? 0 : (x) > 1 ? 1 : (x))
#define PLUS(x, y) ((x) + (y))
#define MINUS(x, y) ((x) - (y))
#define NEGATE(x) (-(x))
#define TIMES(x, y) ((x) * (y))
#define DIVIDE(x, y) ((x) / (y))
#define POWER pow
#define FMODULO fmod
#define MODULO modulo

static inline double modulo(double x, double y)
{
    double m = fmod(x, y);
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}
#include "engine/cpu/slopes.h"
#define THE_ELEMENTS(E1, E2, E3) ELEMENTS(E1, E2, E3)
#include "engine/cpu/elements_text.h"

/* Beyond the type: the nearest that it has; NaN: 0. */
static inline int64_t to_i64(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x > -0x1p63 ? (int64_t)x : x <= -0x1p63 ? INT64_MIN : 0;
}
static inline uint64_t to_u64(double x)
{
    return x >= 0x1p64 ? UINT64_MAX : x > 0 ? (uint64_t)x : 0;
}
static inline int32_t to_i32(double x)
{
    return x >= 0x1p31 ? INT32_MAX : x > -0x1p31 ? (int32_t)x : x <= -0x1p31 ? INT32_MIN : 0;
}
LOAD_STORE(f32, float, x, (float)x)
LOAD_STORE(bf16, uint16_t, bf16_float(x), float_bf16((float)x))
LOAD_STORE(f16, uint16_t, f16_float(x), float_f16((float)x))
LOAD_STORE(bool, uint8_t, x != 0, x != 0)
LOAD_STORE(u8, uint8_t, x, (uint8_t)to_i32(x))
LOAD_STORE(i8, int8_t, x, (int8_t)to_i32(x))
LOAD_STORE(u16, uint16_t, x, (uint16_t)to_i32(x))
LOAD_STORE(i16, int16_t, x, (int16_t)to_i32(x))
LOAD_STORE(i32, int32_t, x, to_i32(x))
LOAD_STORE(u32, uint32_t, x, (uint32_t)to_i64(x))
LOAD_STORE(i64, int64_t, (double)x, to_i64(x))
LOAD_STORE(u64, uint64_t, (double)x, to_u64(x))
LOAD_STORE(f64, double, x, x)

#define FOLD(name, start, expression)                       \
    static long double name##_f64(const void *s_, size_t n) \
    {                                                       \
        const double *s = s_;                               \
        double y = start;                                   \
        for (size_t i = 0; i < n; i++) {                    \
            const double x = s[i];                          \
            y = expression;                                 \
        }                                                   \
        return y;                                           \
    }
FOLD(fold_sum, 0, y + x)
FOLD(fold_prod, 1, y *x)
FOLD(fold_max, s[0], x > y || x != x ? x : y)
FOLD(fold_min, s[0], x < y || x != x ? x : y)

#define E(name, expression) name##_f64,
const struct element_table elements_f64 = {
    .size = sizeof(double),
    .fn = { ELEMENTS(E, E, E) },
#define T(NAME, name) [TENSOR_##NAME] = load_##name##_f64
    .load = { T(F32, f32), T(BF16, bf16), T(F16, f16), T(BOOL, bool), T(U8, u8), T(I8, i8), T(U16, u16),
              T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
#define T(NAME, name) [TENSOR_##NAME] = store_##name##_f64
    .store = { T(F32, f32), T(BF16, bf16), T(F16, f16), T(BOOL, bool), T(U8, u8), T(I8, i8), T(U16, u16),
               T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
    .fold = { fold_sum_f64, fold_prod_f64, fold_max_f64, fold_min_f64 },
};
