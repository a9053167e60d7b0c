/* simd_math: functions of one float without branches, for loops that the compiler turns into vectors.
 * Bounds   largest error in units of the last place, measured against libm's double functions over all floats of the range
 *          (tests/unit/engine/simd.c): exp 1.5 (2.5 where the result is subnormal), log 1.5, tanh 2, sigmoid 3, erf 2.5, softplus 3. Infinities,
 *          zeros and NaN give what libm gives.
 * Source   own least-maximum fits (Lawson's weights on Chebyshev points) after the usual reductions: x = n ln 2 + r for exp,
 *          x = 2^n (1 + f), f from √½ − 1 to √2 − 1, for log; erf is x P(x²) up to 0.93 and 1 − e^(−Q(x)) beyond.
 * Needs    -fno-trapping-math -fno-math-errno, or the loops stay scalar (and right). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

static inline int32_t float_bits(float x)
{
    int32_t i;
    memcpy(&i, &x, sizeof i);
    return i;
}
static inline float bits_float(int32_t i)
{
    float x;
    memcpy(&x, &i, sizeof x);
    return x;
}

/* x rounded to a whole number, halves to even, for |x| < 2^22. */
#define SIMD_ROUNDER 12582912.0f /* 1.5 × 2^23: the last place is 1 */

/* 2^n for −126 ≤ n ≤ 127; anything else where x was no number. */
static inline float power_of_two(int32_t n)
{
    return bits_float((int32_t)(((uint32_t)n + 127u) << 23));
}

/* e^(x − k ln 2) */
static inline float exp_rest(float x, float k)
{
    float r = x - k * 0.693359375f; /* ln 2 in two pieces, the first with few bits */
    r = r + k * 2.12194440e-4f;
    float p = 1.381460184607837e-3f;
    p = p * r + 8.368715219009542e-3f;
    p = p * r + 4.1668387888279076e-2f;
    p = p * r + 0.16666520645344896f;
    p = p * r + 0.4999999344869892f;
    return p * (r * r) + r + 1.0f;
}
static inline float fast_exp(float x)
{
    x = x > 89.0f ? 89.0f : x;
    x = x < -104.0f ? -104.0f : x;
    float z = x * 1.44269504089f + SIMD_ROUNDER;
    int32_t n = float_bits(z) - 0x4b400000,
            half = n >> 1; /* two steps, as 2^n may have no exponent of its own */
    float p = exp_rest(x, z - SIMD_ROUNDER);
    return p * power_of_two(half) * power_of_two(n - half);
}
/* The same for |x| ≤ 87. */
static inline float exp_within(float x)
{
    float z = x * 1.44269504089f + SIMD_ROUNDER;
    return exp_rest(x, z - SIMD_ROUNDER) * power_of_two(float_bits(z) - 0x4b400000);
}

/* log(1 + f) for f from √½ − 1 to √2 − 1. */
static inline float log_near_one(float f)
{
    float p = 6.746638267574831e-2f;
    p = p * f - 0.11675651220310942f;
    p = p * f + 0.11888162972651346f;
    p = p * f - 0.12405589061983144f;
    p = p * f + 0.1421955227836743f;
    p = p * f - 0.16667995843378663f;
    p = p * f + 0.20002118662929141f;
    p = p * f - 0.2500000959963819f;
    p = p * f + 0.33333312603992343f;
    return f * f * (f * p - 0.5f);
}

static inline float fast_log(float x)
{
    float tiny = x < 1.17549435e-38f ? 8388608.0f : 1.0f; /* subnormals are lifted by 2^23 */
    float lifted = x * tiny;
    int32_t i = (int32_t)((uint32_t)float_bits(lifted) - 0x3f3504f3u); /* √½ */
    float n = (float)(i >> 23) - (x < 1.17549435e-38f ? 23.0f : 0.0f);
    float f = bits_float((i & 0x7fffff) + 0x3f3504f3) - 1.0f;
    float y = log_near_one(f);
    y = y - n * 2.12194440e-4f;
    y = y + f;
    y = y + n * 0.693359375f;
    y = x > 3.40282347e38f ? x : y;
    y = x == 0.0f ? -INFINITY : y;
    return x >= 0.0f ? y : NAN;
}

/* log(1 + u), exact for small u, u ≥ 0. */
static inline float fast_log1p(float u)
{
    float w = 1.0f + u;
    float rest = (u - (w - 1.0f)) / w;
    return w == 1.0f ? u : fast_log(w) + rest;
}

static inline float fast_tanh(float x)
{
    float s = x * x, a = fabsf(x);
    float p = -5.6669773620884566e-3f;
    p = p * s + 2.0606176867033775e-2f;
    p = p * s - 5.373000720668883e-2f;
    p = p * s + 0.1333133100279389f;
    p = p * s - 0.3333327805858701f;
    float near = x + x * s * p;
    float far = 1.0f - 2.0f / (exp_within(a > 15.0f ? 30.0f : 2.0f * a) + 1.0f);
    far = x < 0.0f ? -far : far;
    return a < 0.625f ? near : far;
}

static inline float fast_sigmoid(float x)
{
    return 1.0f / (1.0f + fast_exp(-x));
}

static inline float fast_erf(float x)
{
    float s = x * x, a = fabsf(x);
    float p = -5.953773396606565e-4f;
    p = p * s + 4.9859482052700774e-3f;
    p = p * s - 2.6761726519074814e-2f;
    p = p * s + 0.11281682796158703f;
    p = p * s - 0.3761248114014458f;
    p = p * s + 0.12837914770860998f;
    float near = x + x * p;
    float t = a > 4.0f ? 4.0f : a;
    float q = 1.1231275881808515e-5f;
    q = q * t - 3.2280357587593e-4f;
    q = q * t + 3.642457973357462e-3f;
    q = q * t - 2.376206087288877e-2f;
    q = q * t + 0.10623687547959271f;
    q = q * t + 0.6351513176151894f;
    q = q * t + 1.128648489973456f;
    float far = 1.0f - exp_within(-t * q);
    far = x < 0.0f ? -far : far;
    return a < 0.93f ? near : far;
}

/* log(1 + e^x) */
static inline float fast_softplus(float x)
{
    float top = x > 0.0f ? x : 0.0f;
    return x != x ? x : top + fast_log1p(fast_exp(-fabsf(x)));
}

/* The normal distribution's density, and its share below x: beyond |x| it is the density times Mills' ratio, here a polynomial
 * in 1 / (1 + 0.29 |x|). Relative error of the share: 4e-7 for |x| < 1, growing with x² in the lower tail as e^(−x²/2) does. */
static inline float fast_bell(float x)
{
    float e = -0.5f * x * x;
    float y = 0.39894228f * exp_within(e < -87.0f ? -87.0f : e);
    return e < -87.0f ? 0.0f : y;
}
static inline float fast_normal(float x)
{
    float t = 1.0f / (1.0f + 0.29f * fabsf(x));
    float p = 0.1005339227200813f;
    p = p * t - 0.4929472425641411f;
    p = p * t + 0.787581896029386f;
    p = p * t - 0.4030559378218352f;
    p = p * t + 0.4830696672700709f;
    p = p * t + 0.18442839127067204f;
    p = p * t + 0.3052304281268316f;
    p = p * t + 0.28840151273670994f;
    p = p * t + 7.151175336689297e-5f;
    float tail = p * fast_bell(x);
    return x < 0.0f ? tail : 1.0f - tail;
}

/* ---- halves, rounded to the nearest, ties to even ---- */
static inline float bf16_float(uint16_t h)
{
    return bits_float((int32_t)((uint32_t)h << 16));
}
static inline uint16_t float_bf16(float x)
{
    uint32_t u = (uint32_t)float_bits(x);
    uint32_t r = (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    return (uint16_t)(x != x ? (u >> 16 | 0x40u) : r); /* a NaN stays one */
}
static inline float f16_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = (uint32_t)(h & 0x7fffu) << 13;
    float normal = bits_float((int32_t)(rest + 0x38000000u));           /* exponent 15 → 127 */
    float tiny = (float)(int32_t)(h & 0x3ffu) * 5.9604644775390625e-8f; /* 2^−24 */
    float wide = bits_float((int32_t)(rest | 0x7f800000u));             /* infinity, NaN */
    float y = (h & 0x7c00u) == 0 ? tiny : (h & 0x7c00u) == 0x7c00u ? wide : normal;
    return bits_float((int32_t)((uint32_t)float_bits(y) | sign));
}
static inline uint16_t float_f16(float x)
{
    uint32_t u = (uint32_t)float_bits(x), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
    uint32_t normal = (a - 0x38000000u + 0xfffu + (a >> 13 & 1u)) >> 13;
    /* Below 2^−14 the last place is 2^−24: adding ½ lets the adder round there. */
    uint32_t tiny = (uint32_t)float_bits(bits_float((int32_t)a) + 0.5f) - 0x3f000000u;
    uint32_t r = a < 0x38800000u ? tiny : normal;
    r = a >= 0x477ff000u ? 0x7c00u : r; /* 65,520 and more round to infinity */
    r = a > 0x7f800000u ? 0x7e00u : r;
    return (uint16_t)(r | sign);
}
