/* simd: kernels from one text for several instruction sets, and which of them runs.
 * Flow     a source in `engine_simd` (src/engine/meson.build) is compiled for the baseline, for AVX2 + FMA + F16C and for
 *          AVX-512 (F, BW, DQ, VL); SIMD(name) gives each its own symbol, SIMD_PICK(name) the one to use here and now.
 *          Other machines than x86-64 have the baseline only.
 * Text     plain loops without branches, which the compiler turns into vectors; or vectors of SIMD_BYTES (vf, vi); or
 *          intrinsics under #if SIMD_LEVEL == 2, with a plain form beside them, which is the reference.
 * Threads  simd_limit: before others look; the rest any.
 * Numbers  reductions add in an order that the text fixes, so equal input gives equal bits on one instruction set; between
 *          two of them the last bits differ (fused multiply-add). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum simd { SIMD_PORTABLE, SIMD_AVX2, SIMD_AVX512 };
/* The best that this machine has, or the limit. */
enum simd simd_level(void);
/* The machine multiplies pairs of bf16 (AVX512_BF16), and the limit lets it; */
bool simd_bf16(void);
/* and is faster so than by floats: AMD's do twice as many, Intel's half as many. By maker, not by a clock: equal bits from run to run. */
bool simd_bf16_fast(void);
/* It has Intel's tiles for bf16 (AMX), which oneDNN knows. */
bool simd_tiles(void);
/* No more than this from now on: for tests, and DHOW_CPU=portable|avx2|avx512 (simd_named). */
void simd_limit(enum simd);
/* By name; false: there is none of that name. */
bool simd_named(const char *name, enum simd *out);
const char *simd_name(enum simd);

/* The build says SIMD_LEVEL and SIMD_SUFFIX for the sources that it compiles several times. */
#ifndef SIMD_LEVEL
#define SIMD_LEVEL 0
#define SIMD_SUFFIX portable
#endif
#define SIMD_JOIN_(a, b) a##_##b
#define SIMD_JOIN(a, b) SIMD_JOIN_(a, b)
/* SIMD(dot) is dot_portable, dot_avx2, dot_avx512. */
#define SIMD(name) SIMD_JOIN(name, SIMD_SUFFIX)
#ifdef __x86_64__
/* Declares a constant of that type in each form; picks the address of the one to use. */
#define SIMD_DECLARE(type, name) extern const type name##_portable, name##_avx2, name##_avx512
#define SIMD_PICK(name)                           \
    (simd_level() == SIMD_AVX512 ? &name##_avx512 \
     : simd_level() == SIMD_AVX2 ? &name##_avx2   \
                                 : &name##_portable)
#else
#define SIMD_DECLARE(type, name) extern const type name##_portable
#define SIMD_PICK(name) (&name##_portable)
#endif
#if SIMD_LEVEL > 0
#include <immintrin.h>
#endif
#if SIMD_LEVEL == 2
#define SIMD_BYTES 64
#elif SIMD_LEVEL == 1
#define SIMD_BYTES 32
#else
#define SIMD_BYTES 16
#endif
enum { SIMD_FLOATS = SIMD_BYTES / 4 };
typedef float vf __attribute__((vector_size(SIMD_BYTES)));
typedef int32_t vi __attribute__((vector_size(SIMD_BYTES)));
typedef float vf_loose __attribute__((vector_size(SIMD_BYTES), aligned(4), may_alias));

static inline vf vf_load(const float *p)
{
    return *(const vf_loose *)p;
}
static inline void vf_store(float *p, vf v)
{
    *(vf_loose *)p = v;
}
static inline vf vf_all(float x)
{
    return x - (vf){ 0 };
}
/* Where m is all ones a, where it is zero b. */
static inline vf vf_pick(vi m, vf a, vf b)
{
    return (vf)((m & (vi)a) | (~m & (vi)b));
}
/* a > b ? a : b, and a < b ? a : b: where one is no number, b. One instruction each, which the compiler does not see. */
static inline vf vf_max(vf a, vf b)
{
#if SIMD_LEVEL == 2
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif SIMD_LEVEL == 1
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vf_pick(a > b, a, b);
#endif
}
static inline vf vf_min(vf a, vf b)
{
#if SIMD_LEVEL == 2
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif SIMD_LEVEL == 1
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vf_pick(a < b, a, b);
#endif
}
/* Lanes are added by halves: the order depends on SIMD_BYTES alone. */
static inline float vf_sum(vf v)
{
#if SIMD_BYTES == 64
    typedef float v8 __attribute__((vector_size(32)));
    v8 h = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
           __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#else
    vf h = v;
#endif
    typedef float v4 __attribute__((vector_size(16)));
#if SIMD_BYTES >= 32
    v4 q = __builtin_shufflevector(h, h, 0, 1, 2, 3) + __builtin_shufflevector(h, h, 4, 5, 6, 7);
#else
    v4 q = h;
#endif
    return (q[0] + q[2]) + (q[1] + q[3]);
}
static inline float vf_greatest(vf v)
{
    float lane[SIMD_FLOATS];
    memcpy(lane, &v, sizeof lane);
    for (int i = 1; i < SIMD_FLOATS; i++)
        lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    return lane[0];
}
