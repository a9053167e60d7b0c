/* rows: arithmetic on rows of numbers, written so that a compiler makes vectors of it: lanes instead of one sum, no branches.
 * F32 and halves are worked on as floats, F64 as doubles: a file that serves both includes its text twice, REAL being one, then the other.
 * Sums over lanes are always made in the same order: equal input, equal bits. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/cpu.h"
#include <math.h>
#include <string.h>

enum { LANES = 32 };

/* ---- numbers of other types ---- */

static inline float rows_of_bf16(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
/* To the nearest, ties to even; a NaN stays one. */
static inline uint16_t rows_to_bf16(float f)
{
    uint32_t u, up;
    memcpy(&u, &f, 4);
    up = (u + 0x7fffu + ((u >> 16) & 1)) >> 16;
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : up);
}
static inline float rows_of_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    uint32_t big = rest >= 0x0f800000u ? 0x7f800000u | rest : rest + 0x38000000u, u;
    float small = (float)(h & 0x3ff) * 0x1p-24f, f;
    memcpy(&u, &small, 4);
    u = sign | ((h & 0x7c00) == 0 ? u : big);
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t rows_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    u &= 0x7fffffffu;
    if (u >= 0x7f800000u)
        return sign | (uint16_t)(u > 0x7f800000u ? 0x7e00 : 0x7c00);
    if (u >= 0x477ff000u) /* rounds to more than 65504 */
        return sign | 0x7c00;
    if (u < 0x38800000u) { /* below 2^-14: a multiple of 2^-24, rounded by the addition */
        float x;
        memcpy(&x, &u, 4);
        x += 0.5f;
        memcpy(&u, &x, 4);
        return sign | (uint16_t)(u - 0x3f000000u);
    }
    u += 0xfffu + (u >> 13 & 1);
    return sign | (uint16_t)((u - 0x38000000u) >> 13);
}

/* n numbers of t from element `at`, as floats: where they stand if they are floats, else in buf. */
static inline const float *rows_get_f32(const struct tensor *t, int64_t at, int64_t n, float *buf)
{
    if (t->type == TENSOR_F32)
        return (const float *)t->p + at;
    if (t->type == TENSOR_BF16)
        for (int64_t i = 0; i < n; i++)
            buf[i] = rows_of_bf16(((const uint16_t *)t->p)[at + i]);
    else if (t->type == TENSOR_F16)
        for (int64_t i = 0; i < n; i++)
            buf[i] = rows_of_f16(((const uint16_t *)t->p)[at + i]);
    else
        for (int64_t i = 0; i < n; i++)
            buf[i] = (float)((const double *)t->p)[at + i];
    return buf;
}
static inline const double *rows_get_f64(const struct tensor *t, int64_t at, int64_t n, double *buf)
{
    if (t->type == TENSOR_F64)
        return (const double *)t->p + at;
    for (int64_t i = 0; i < n; i++) {
        float one;
        buf[i] = (double)*rows_get_f32(t, at + i, 1, &one);
    }
    return buf;
}
/* All of them, into buf whatever they are. */
static inline void rows_copy_f32(float *buf, const struct tensor *t, int64_t n)
{
    const float *v = rows_get_f32(t, 0, n, buf);
    if (v != buf)
        memcpy(buf, v, (size_t)n * sizeof *buf);
}
static inline void rows_copy_f64(double *buf, const struct tensor *t, int64_t n)
{
    const double *v = rows_get_f64(t, 0, n, buf);
    if (v != buf)
        memcpy(buf, v, (size_t)n * sizeof *buf);
}
/* Where n numbers for t may be made, and how they get there. */
static inline float *rows_at_f32(const struct tensor *t, int64_t at, float *buf)
{
    return t->type == TENSOR_F32 ? (float *)t->p + at : buf;
}
static inline double *rows_at_f64(const struct tensor *t, int64_t at, double *buf)
{
    return t->type == TENSOR_F64 ? (double *)t->p + at : buf;
}
static inline void rows_put_f32(const struct tensor *t, int64_t at, int64_t n, const float *v)
{
    if (t->type == TENSOR_F32) {
        if ((const float *)t->p + at != v)
            memmove((float *)t->p + at, v, (size_t)n * sizeof *v);
    } else if (t->type == TENSOR_BF16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)t->p)[at + i] = rows_to_bf16(v[i]);
    else if (t->type == TENSOR_F16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)t->p)[at + i] = rows_to_f16(v[i]);
    else
        for (int64_t i = 0; i < n; i++)
            ((double *)t->p)[at + i] = (double)v[i];
}
static inline void rows_put_f64(const struct tensor *t, int64_t at, int64_t n, const double *v)
{
    if (t->type == TENSOR_F64) {
        if ((const double *)t->p + at != v)
            memmove((double *)t->p + at, v, (size_t)n * sizeof *v);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float one = (float)v[i];
        rows_put_f32(t, at + i, 1, &one);
    }
}
static inline double rows_one(const struct tensor *t, int64_t at)
{
    double one;
    return *rows_get_f64(t, at, 1, &one);
}
static inline int64_t rows_whole(const struct tensor *t, int64_t at)
{
    switch (t->type) {
    case TENSOR_I64:
        return ((const int64_t *)t->p)[at];
    case TENSOR_I32:
        return ((const int32_t *)t->p)[at];
    case TENSOR_I16:
        return ((const int16_t *)t->p)[at];
    case TENSOR_U16:
        return ((const uint16_t *)t->p)[at];
    case TENSOR_I8:
        return ((const int8_t *)t->p)[at];
    default:
        return ((const uint8_t *)t->p)[at];
    }
}

/* ---- functions ---- */

/* exp: 2^n · p(r), |r| ≤ ln 2 / 2; p is the Taylor polynomial of degree 7 (below 1e-8 there). 0 below −87.3. */
static inline float rows_exp_f32(float x)
{
    const float magic = 12582912.0f; /* 1.5 · 2^23: adding it rounds to a whole number */
    float y = x < -87.3f ? -87.3f : x;
    y = y > 88.7f ? 88.7f : y;
    float k = y * 1.44269504f + magic, n = k - magic, r = y - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    uint32_t bits, half;
    memcpy(&bits, &k, 4);
    /* 2^n as two factors, since n = 128 has no float of its own. */
    uint32_t n1 = (uint32_t)((int32_t)(bits - 0x4b400000u) >> 1);
    half = bits - 0x4b400000u - n1;
    n1 = (n1 + 127) << 23;
    half = (half + 127) << 23;
    float a, b;
    memcpy(&a, &n1, 4);
    memcpy(&b, &half, 4);
    float e = p * a * b;
    e = x < -87.3f ? 0 : e;
    e = x > 88.7f ? INFINITY : e;
    return x != x ? x : e;
}
static inline double rows_exp_f64(double x)
{
    return exp(x);
}
/* log(1 + e) for e in [0, 1]: 2 artanh(e / (2 + e)). */
static inline float rows_log1p_f32(float e)
{
    float s = e / (2 + e), t = s * s, p = 1.0f / 15;
    p = p * t + 1.0f / 13;
    p = p * t + 1.0f / 11;
    p = p * t + 1.0f / 9;
    p = p * t + 1.0f / 7;
    p = p * t + 1.0f / 5;
    p = p * t + 1.0f / 3;
    p = p * t + 1;
    return 2 * s * p;
}
static inline double rows_log1p_f64(double e)
{
    return log1p(e);
}

/* ---- rows, for REAL of float and double ---- */

#define ROWS_OF(real, x)                                                                      \
    static inline real rows_sum_##x(const real *v, int64_t n)                                 \
    {                                                                                         \
        real lane[LANES] = { 0 }, sum = 0;                                                    \
        int64_t i = 0;                                                                        \
        for (; i + LANES <= n; i += LANES)                                                    \
            for (int k = 0; k < LANES; k++)                                                   \
                lane[k] += v[i + k];                                                          \
        for (int k = 0; i < n; i++, k++)                                                      \
            lane[k] += v[i];                                                                  \
        for (int w = LANES / 2; w > 0; w /= 2)                                                \
            for (int k = 0; k < w; k++)                                                       \
                lane[k] += lane[k + w];                                                       \
        sum = lane[0];                                                                        \
        return sum;                                                                           \
    }                                                                                         \
    static inline real rows_dot_##x(const real *v, const real *u, int64_t n)                  \
    {                                                                                         \
        real lane[LANES] = { 0 };                                                             \
        int64_t i = 0;                                                                        \
        for (; i + LANES <= n; i += LANES)                                                    \
            for (int k = 0; k < LANES; k++)                                                   \
                lane[k] += v[i + k] * u[i + k];                                               \
        for (int k = 0; i < n; i++, k++)                                                      \
            lane[k] += v[i] * u[i];                                                           \
        for (int w = LANES / 2; w > 0; w /= 2)                                                \
            for (int k = 0; k < w; k++)                                                       \
                lane[k] += lane[k + w];                                                       \
        return lane[0];                                                                       \
    }                                                                                         \
    static inline real rows_max_##x(const real *v, int64_t n)                                 \
    {                                                                                         \
        real lane[LANES];                                                                     \
        int64_t i = 0;                                                                        \
        for (int k = 0; k < LANES; k++)                                                       \
            lane[k] = -(real)INFINITY;                                                        \
        for (; i + LANES <= n; i += LANES)                                                    \
            for (int k = 0; k < LANES; k++)                                                   \
                lane[k] = v[i + k] > lane[k] ? v[i + k] : lane[k];                            \
        for (int k = 0; i < n; i++, k++)                                                      \
            lane[k] = v[i] > lane[k] ? v[i] : lane[k];                                        \
        for (int w = LANES / 2; w > 0; w /= 2)                                                \
            for (int k = 0; k < w; k++)                                                       \
                lane[k] = lane[k + w] > lane[k] ? lane[k + w] : lane[k];                      \
        return lane[0];                                                                       \
    }                                                                                         \
    /* y = exp(v − max), in place if y is v; their sum. */                                  \
    static inline real rows_exp_sum_##x(real *y, const real *v, int64_t n, real max)          \
    {                                                                                         \
        _Pragma("GCC ivdep") for (int64_t i = 0; i < n; i++) y[i] = rows_exp_##x(v[i] - max); \
        return rows_sum_##x(y, n);                                                            \
    }                                                                                         \
    /* Σ exp(v − max) */                                                                   \
    static inline real rows_sum_exp_##x(const real *v, int64_t n, real max)                   \
    {                                                                                         \
        real part[256], sum = 0;                                                              \
        for (int64_t i = 0; i < n; i += 256)                                                  \
            sum += rows_exp_sum_##x(part, v + i, n - i < 256 ? n - i : 256, max);             \
        return sum;                                                                           \
    }
ROWS_OF(float, f32)
ROWS_OF(double, f64)
