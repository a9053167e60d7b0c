// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_gemm
#include "engine/cpu/gemm.h"
#include "engine/cpu/simd.h"
#include "test.h"
#include <math.h>

static float number(uint64_t *seed)
{
    return (float)((double)(splitmix(seed) >> 40) / (double)(1 << 24) - 0.5);
}

static double at(enum tensor_type t, const void *p, int64_t i)
{
    if (t == TENSOR_F64)
        return ((const double *)p)[i];
    float x;
    floats_of(t, (const char *)p + i * (int64_t)tensor_size(t), 1, &x);
    return (double)x;
}

static void put(enum tensor_type t, void *p, int64_t i, double x)
{
    float f = (float)x;
    if (t == TENSOR_F64)
        ((double *)p)[i] = x;
    else
        floats_to(t, &f, 1, (char *)p + i * (int64_t)tensor_size(t));
}

static void *filled(struct arena *a, enum tensor_type t, int64_t n, uint64_t *seed)
{
    char *p = arena_alloc(a, (size_t)n * tensor_size(t) + 64, 64);
    for (int64_t i = 0; i < n; i++)
        put(t, p, i, (double)number(seed));
    return p;
}

/* The product of g against loops in double, element by element. */
static void check_product(struct gemm g, bool bias, uint64_t *seed)
{
    auto_arena struct arena *a = arena_new(0);
    gemm_plan(&g);
    void *x = filled(a, g.in, (g.ta ? g.k : g.m) * g.lda + 1, seed),
         *y = filled(a, g.in, (g.tb ? g.n : g.k) * g.ldb + 1, seed);
    void *c = filled(a, g.out, g.m * g.ldc + 1, seed), *mask = filled(a, g.out, g.m * g.ldc + 1, seed);
    void *b = filled(a, g.in == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32, g.n + 1, seed);
    double *want = NEW_N(a, double, (size_t)(g.m * g.ldc + 1)),
           *size = NEW_N(a, double, (size_t)(g.m * g.ldc + 1));
    for (int64_t i = 0; i < g.m * g.ldc + 1; i++)
        want[i] = at(g.out, c, i);
    int64_t nx = (g.ta ? g.k : g.m) * g.lda, ny = (g.tb ? g.n : g.k) * g.ldb;
    double *dx = NEW_N(a, double, (size_t)nx + 1), *dy = NEW_N(a, double, (size_t)ny + 1);
    for (int64_t i = 0; i < nx; i++)
        dx[i] = at(g.in, x, i);
    for (int64_t i = 0; i < ny; i++)
        dy[i] = at(g.in, y, i);
    for (int64_t i = 0; i < g.m; i++)
        for (int64_t j = 0; j < g.n; j++) {
            double s = 0, all = 0;
            for (int64_t k = 0; k < g.k; k++) {
                double p = dx[g.ta ? k * g.lda + i : i * g.lda + k] *
                           dy[g.tb ? j * g.ldb + k : k * g.ldb + j];
                s += p;
                all += fabs(p);
            }
            double *w = &want[i * g.ldc + j];
            s = (double)g.alpha * s + (g.beta != 0 ? (double)g.beta * *w : 0) +
                (bias ? at(g.in == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32, b, j) : 0);
            if (g.act == GEMM_RELU)
                s = s > 0 ? s : 0;
            else if (g.act == GEMM_MASK)
                s = at(g.out, mask, i * g.ldc + j) > 0 ? s : 0;
            *w = s;
            size[i * g.ldc + j] = all + fabs(s) + 1;
        }
    char *scratch = arena_alloc(a, g.scratch + 64, 64);
    memset(scratch, 0xff, g.scratch + 64);
    gemm_run(&g, x, y, c, &(struct gemm_more){ .bias = bias ? b : NULL, .mask = mask }, scratch);
    for (size_t i = 0; i < 64; i++)
        CHECK((unsigned char)scratch[g.scratch + i] == 0xff); /* it stays within what it asked for */
    double e = g.out == TENSOR_F64 ? 1e-14 : g.out == TENSOR_F32 ? 3e-7 : g.out == TENSOR_F16 ? 1e-3 : 8e-3;
    for (int64_t i = 0; i < g.m * g.ldc + 1; i++)
        if (!(fabs(at(g.out, c, i) - want[i]) <= e * (size[i] + 1e-30)))
            TEST_FAIL_("%d·%lld×%lld×%lld ta %d tb %d isa %d act %d: at %lld %g, not %g", g.in,
                       (long long)g.m, (long long)g.n, (long long)g.k, g.ta, g.tb, g.isa, g.act, (long long)i,
                       at(g.out, c, i), want[i]);
}

static void check_all(enum tensor_type in, enum tensor_type out, enum gemm_isa isa)
{
    static const int64_t sizes[] = { 1, 2, 3, 5, 7, 13, 16, 17, 29, 31, 33, 48, 64, 65, 70, 129 };
    uint64_t seed = 1;
    for (int round = 0; round < 120; round++) {
        int64_t m = sizes[splitmix(&seed) % 16], n = sizes[splitmix(&seed) % 16],
                k = sizes[splitmix(&seed) % 16];
        struct gemm g = gemm_of(in, out, m, n, k, splitmix(&seed) % 2, splitmix(&seed) % 2);
        g.isa = isa;
        if (round % 3 == 1) {
            g.lda = (g.ta ? m : k) + (int64_t)(splitmix(&seed) % 5);
            g.ldb = (g.tb ? k : n) + (int64_t)(splitmix(&seed) % 5);
            g.ldc = n + (int64_t)(splitmix(&seed) % 5);
        }
        g.alpha = round % 4 == 1 ? 0.5f : 1;
        g.beta = round % 5 == 1 ? 1 : round % 5 == 2 ? -0.5f : 0;
        g.act = (enum gemm_act)(round % 7 % 3);
        check_product(g, round % 2, &seed);
    }
}

/* All that the machine has, also what is not the fastest here. */
static enum gemm_isa most(void)
{
    return simd_bf16() ? GEMM_AVX512_BF16 : gemm_isa_best();
}

TEST(products_of_all_sizes_equal_plain_loops)
{
    for (int isa = GEMM_PORTABLE; isa <= (int)most(); isa++) {
        check_all(TENSOR_F32, TENSOR_F32, (enum gemm_isa)isa);
        check_all(TENSOR_BF16, TENSOR_BF16, (enum gemm_isa)isa);
        check_all(TENSOR_BF16, TENSOR_F32, (enum gemm_isa)isa);
    }
    check_all(TENSOR_F16, TENSOR_F16, gemm_isa_best());
    check_all(TENSOR_F16, TENSOR_F32, gemm_isa_best());
    check_all(TENSOR_F64, TENSOR_F64, gemm_isa_best());
}

TEST(long_sums_are_made_in_blocks)
{
    uint64_t seed = 2;
    static const struct {
        enum tensor_type in, out;
    } types[] = { { TENSOR_F32, TENSOR_F32 }, { TENSOR_BF16, TENSOR_BF16 }, { TENSOR_BF16, TENSOR_F32 } };
    for (int isa = GEMM_PORTABLE; isa <= (int)most(); isa++)
        for (int t = 0; t < 3; t++)
            for (int way = 0; way < 4; way++) {
                struct gemm g = gemm_of(types[t].in, types[t].out, 35, 70, 8211, way & 1, way & 2);
                g.isa = (enum gemm_isa)isa;
                g.act = way == 3 ? GEMM_MASK : GEMM_RELU;
                g.beta = way == 2 ? 1 : 0;
                check_product(g, way == 1, &seed);
            }
}

TEST(not_a_number_passes_through)
{
    float a[4] = { NAN, 1, 1, 1 }, b[4] = { 1, 0, 0, 1 }, c[4];
    struct gemm g = gemm_of(TENSOR_F32, TENSOR_F32, 2, 2, 2, false, false);
    g.act = GEMM_RELU;
    gemm_plan(&g);
    char scratch[65536] __attribute__((aligned(64)));
    CHECK(g.scratch <= sizeof scratch);
    gemm_run(&g, a, b, c, NULL, scratch);
    CHECK(isnan(c[0]) && isnan(c[1]) && c[2] == 1);
    uint16_t h;
    floats_to(TENSOR_BF16, a, 1, &h);
    float back;
    floats_of(TENSOR_BF16, &h, 1, &back);
    CHECK(isnan(back));
}
