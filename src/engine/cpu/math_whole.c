// SPDX-License-Identifier: Apache-2.0
// Element-wise work on whole numbers and truth values, in int64; what does not fit wraps around.
#include "engine/cpu/elements.h"
#include "engine/cpu/simd_math.h"

#define R int64_t
#define TEXT(name) name##_i64

static inline int64_t quotient(int64_t x, int64_t y) /* by 0: 0 */
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}
static inline int64_t rest(int64_t x, int64_t y)
{
    return y == 0 || y == -1 ? 0 : x % y;
}
static inline int64_t modulo(int64_t x, int64_t y)
{
    int64_t m = rest(x, y);
    return m != 0 && (m < 0) != (y < 0) ? m + y : m;
}
static inline int64_t power(int64_t x, int64_t y)
{
    uint64_t p = 1, b = (uint64_t)x;
    if (y < 0)
        return x == 1 ? 1 : x == -1 ? (y & 1 ? -1 : 1) : 0;
    for (; y > 0; y >>= 1, b *= b)
        p *= y & 1 ? b : 1;
    return (int64_t)p;
}
#define PLUS(x, y) ((int64_t)((uint64_t)(x) + (uint64_t)(y)))
#define MINUS(x, y) ((int64_t)((uint64_t)(x) - (uint64_t)(y)))
#define NEGATE(x) MINUS(0, x)
#define ABS(x) ((x) < 0 ? NEGATE(x) : (x))
#define TIMES(x, y) ((int64_t)((uint64_t)(x) * (uint64_t)(y)))
#define DIVIDE quotient
#define POWER power
#define MODULO modulo
#define FMODULO rest
#define THE_ELEMENTS(E1, E2, E3) ELEMENTS_ANY(E1, E2, E3)
#include "engine/cpu/elements_text.h"

static inline int64_t to_i64(double x)
{
    return x >= 0x1p63 ? INT64_MAX : x > -0x1p63 ? (int64_t)x : x <= -0x1p63 ? INT64_MIN : 0;
}
LOAD_STORE(f32, float, to_i64(x), (float)x)
LOAD_STORE(bf16, uint16_t, to_i64(bf16_float(x)), float_bf16((float)x))
LOAD_STORE(f16, uint16_t, to_i64(f16_float(x)), float_f16((float)x))
LOAD_STORE(f64, double, to_i64(x), (double)x)
LOAD_STORE(bool, uint8_t, x != 0, x != 0)
LOAD_STORE(u8, uint8_t, x, (uint8_t)x)
LOAD_STORE(i8, int8_t, x, (int8_t)x)
LOAD_STORE(u16, uint16_t, x, (uint16_t)x)
LOAD_STORE(i16, int16_t, x, (int16_t)x)
LOAD_STORE(i32, int32_t, x, (int32_t)x)
LOAD_STORE(u32, uint32_t, x, (uint32_t)x)
LOAD_STORE(i64, int64_t, x, x)
LOAD_STORE(u64, uint64_t, (int64_t)x, (uint64_t)x)

#define FOLD(name, start, expression)                       \
    static long double name##_i64(const void *s_, size_t n) \
    {                                                       \
        const int64_t *s = s_;                              \
        int64_t y = start;                                  \
        for (size_t i = 0; i < n; i++) {                    \
            const int64_t x = s[i];                         \
            y = expression;                                 \
        }                                                   \
        return y;                                           \
    }
FOLD(fold_sum, 0, PLUS(y, x))
FOLD(fold_prod, 1, TIMES(y, x))
FOLD(fold_max, s[0], x > y ? x : y)
FOLD(fold_min, s[0], x < y ? x : y)

#define E(name, expression) [ELEMENT_##name] = name##_i64,
const struct element_table elements_i64 = {
    .size = sizeof(int64_t),
    .fn = { ELEMENTS_ANY(E, E, E) },
#define T(NAME, name) [TENSOR_##NAME] = load_##name##_i64
    .load = { T(F32, f32), T(BF16, bf16), T(F16, f16), T(BOOL, bool), T(U8, u8), T(I8, i8), T(U16, u16),
              T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
#define T(NAME, name) [TENSOR_##NAME] = store_##name##_i64
    .store = { T(F32, f32), T(BF16, bf16), T(F16, f16), T(BOOL, bool), T(U8, u8), T(I8, i8), T(U16, u16),
               T(I16, i16), T(I32, i32), T(U32, u32), T(I64, i64), T(U64, u64), T(F64, f64) },
#undef T
    .fold = { fold_sum_i64, fold_prod_i64, fold_max_i64, fold_min_i64 },
};
