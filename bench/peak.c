// SPDX-License-Identifier: Apache-2.0
/* What the machine can do at most: bench/peak [THREADS]. Fused multiply-adds on registers alone, in float and (where the processor
 * has it) as dot products of bf16 pairs; memory read, and triad (a = b + 3 c, stores that pass by the cache; three times its
 * size moves). All threads at once, the best of a few rounds. Shares of peak that other benchmarks tell are of these. */
#include "base/base.h"

#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS_MAX = 256, ROUNDS = 7, REGISTERS = 12 };
#define FLOATS ((size_t)1 << 25) /* of each array: 128 MB, more than caches hold */
#define LOOPS 8000000L

struct probe {
    pthread_barrier_t *all;
    int index, threads;
    long loops;
    double (*run)(const struct probe *); /* the operations, or bytes, that it made */
    float *a, *b, *c;
    double rate;
};

/* Results must not be computed before, nor thrown away. */
#define KEEP(v) __asm__ volatile("" : "+v"(v))

#define EACH(D) D(0) D(1) D(2) D(3) D(4) D(5) D(6) D(7) D(8) D(9) D(10) D(11)
#define ZERO(i) x[i] = one;
#define KEPT(i) KEEP(x[i]);
#define PROBE(name, isa, type, zero, op, ops_each)                         \
    __attribute__((target(isa))) static double name(const struct probe *p) \
    {                                                                      \
        type x[REGISTERS], one = zero;                                     \
        EACH(ZERO)                                                         \
        for (long n = p->loops; n > 0; n--) {                              \
            KEEP(one);                                                     \
            EACH(op)                                                       \
        }                                                                  \
        EACH(KEPT)                                                         \
        return (double)p->loops * REGISTERS * (ops_each);                  \
    }
#define FMA_512(i) __asm__("vfmadd231ps %1, %1, %0" : "+v"(x[i]) : "v"(one));
#define FMA_256(i) __asm__("vfmadd231ps %1, %1, %0" : "+x"(x[i]) : "x"(one));
#define DOT_BF16(i) __asm__("vdpbf16ps %1, %1, %0" : "+v"(x[i]) : "v"(one));
PROBE(fma_512, "avx512f", __m512, _mm512_setzero_ps(), FMA_512, 32)
PROBE(fma_256, "avx2,fma", __m256, _mm256_setzero_ps(), FMA_256, 16)
PROBE(dot_bf16, "avx512f,avx512bf16", __m512, _mm512_setzero_ps(), DOT_BF16, 64)

__attribute__((target("avx2"))) static double memory_read(const struct probe *p)
{
    size_t n = FLOATS / (size_t)p->threads, from = n * (size_t)p->index;
    __m256 sum[4] = { 0 };
    for (size_t i = from; i + 32 <= from + n; i += 32)
        for (size_t k = 0; k < 4; k++)
            sum[k] = _mm256_add_ps(sum[k], _mm256_load_ps(p->a + i + 8 * k));
    for (int k = 0; k < 4; k++)
        KEEP(sum[k]);
    return (double)n * sizeof(float);
}

__attribute__((target("avx2,fma"))) static double memory_triad(const struct probe *p)
{
    size_t n = FLOATS / (size_t)p->threads, from = n * (size_t)p->index;
    const __m256 three = _mm256_set1_ps(3);
    for (size_t i = from; i + 8 <= from + n; i += 8)
        _mm256_stream_ps(p->c + i,
                         _mm256_fmadd_ps(_mm256_load_ps(p->a + i), three, _mm256_load_ps(p->b + i)));
    return (double)n * sizeof(float) * 3;
}

/* By the processor's time of this thread, so that a neighbour on the machine costs less of the figure. */
static int64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000 + t.tv_nsec;
}

static void *probe_run(void *arg)
{
    struct probe *p = arg;
    pthread_barrier_wait(p->all);
    int64_t start = thread_ns();
    double work = p->run(p);
    p->rate = work / (double)(thread_ns() - start);
    return NULL;
}

/* Billions a second of all threads together. */
static double measure(struct probe like, int threads)
{
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct probe p[THREADS_MAX];
        pthread_t id[THREADS_MAX];
        pthread_barrier_t all;
        double rate = 0;
        pthread_barrier_init(&all, NULL, (unsigned)threads);
        like.all = &all;
        like.threads = threads;
        for (like.index = 0; like.index < threads; like.index++) {
            p[like.index] = like;
            if (pthread_create(&id[like.index], NULL, probe_run, &p[like.index]))
                abort();
        }
        for (int i = 0; i < threads; i++) {
            pthread_join(id[i], NULL);
            rate += p[i].rate;
        }
        pthread_barrier_destroy(&all);
        best = rate > best ? rate : best;
    }
    return best;
}

static void line(const char *name, double value, const char *unit)
{
    printf(
        "{\"name\": \"peak.%s\", \"value\": %.4g, \"unit\": \"%s\", \"peer\": null, \"peer_value\": null, \"ratio\": null}\n",
        name, value, unit);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    int threads = argc > 1 ? atoi(argv[1]) : cpu_count();
    threads = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
    bool wide = __builtin_cpu_supports("avx512f"),
         narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (!narrow) {
        fprintf(stderr, "peak: this processor has no AVX2\n");
        return 1;
    }
    struct probe p = { .loops = LOOPS, .run = wide ? fma_512 : fma_256 };
    line("fp32", measure(p, threads), "GFLOP/s");
    p.run = dot_bf16;
    if (__builtin_cpu_supports("avx512bf16"))
        line("bf16", measure(p, threads), "GFLOP/s");
    p.a = aligned_alloc(64, FLOATS * sizeof(float));
    p.b = aligned_alloc(64, FLOATS * sizeof(float));
    p.c = aligned_alloc(64, FLOATS * sizeof(float));
    if (!p.a || !p.b || !p.c)
        return 1;
    for (size_t i = 0; i < FLOATS; i++)
        p.a[i] = p.b[i] = p.c[i] = 1;
    p.run = memory_read;
    line("read", measure(p, threads), "GB/s");
    p.run = memory_triad;
    line("triad", measure(p, threads), "GB/s");
    return 0;
}
