// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/simd.h"

#include <stdatomic.h>

/* Clang before 16 does not know all names of features: it makes the portable code, which is what fuzzing runs. */
#if defined __x86_64__ && !(defined __clang__ && __clang_major__ < 16)
#define KNOWS_FEATURES
#endif

static const char *const names[] = { "portable", "avx2", "avx512" };
static _Atomic int limit = SIMD_AVX512;

static enum simd machine(void)
{
#ifdef KNOWS_FEATURES
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return SIMD_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return SIMD_AVX2;
#endif
    return SIMD_PORTABLE;
}

enum simd simd_level(void)
{
    static _Atomic int known = -1;
    int level = atomic_load_explicit(&known, memory_order_relaxed);
    if (level < 0) {
        level = machine();
        atomic_store_explicit(&known, level, memory_order_relaxed);
    }
    int most = atomic_load_explicit(&limit, memory_order_relaxed);
    return level < most ? level : most;
}

bool simd_bf16(void)
{
#ifdef KNOWS_FEATURES
    return simd_level() == SIMD_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

bool simd_bf16_fast(void)
{
#ifdef KNOWS_FEATURES
    return simd_bf16() && !__builtin_cpu_is("intel");
#else
    return false;
#endif
}

bool simd_tiles(void)
{
#ifdef KNOWS_FEATURES
    return simd_bf16() && __builtin_cpu_supports("amx-bf16");
#else
    return false;
#endif
}

void simd_limit(enum simd most)
{
    atomic_store_explicit(&limit, most, memory_order_relaxed);
}

bool simd_named(const char *name, enum simd *out)
{
    for (int i = SIMD_PORTABLE; i <= SIMD_AVX512; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

const char *simd_name(enum simd level)
{
    return names[level];
}
