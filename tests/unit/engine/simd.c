// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_simd
#include "engine/cpu/elements.h"
#include "test.h"
#include <math.h>

/* The largest error of an element over floats from low to high, in places of the exact answer: every `step`-th float. */
static double worst(enum element f, double (*exact)(double), float low, float high)
{
    enum { STEP = 2048 };
    static float x[STEP], y[STEP];
    static const double none[2];
    double most = 0;
    for (int part = 0; part < 200; part++) {
        for (int i = 0; i < STEP; i++)
            x[i] = low + (high - low) * (float)((part * STEP + i) / (200.0 * STEP));
        SIMD_PICK(elements_f32)->fn[f](y, x, NULL, NULL, STEP, none);
        for (int i = 0; i < STEP; i++) {
            double want = exact(x[i]), ulp = ldexp(1, ilogb(want == 0 ? 1e-30 : want) - 23);
            most = fmax(most, fabs(y[i] - want) / ulp);
        }
    }
    return most;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}
static double softplus(double x)
{
    return fmax(x, 0) + log1p(exp(-fabs(x)));
}

TEST(functions_keep_their_bounds)
{
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        const struct {
            enum element f;
            double (*exact)(double);
            float low, high;
            double bound;
        } rows[] = {
            { ELEMENT_Exp, exp, -87, 88.7f, 1.5 },      { ELEMENT_Exp, exp, -1, 1, 1.5 },
            { ELEMENT_Log, log, 1e-30f, 10, 1.5 },      { ELEMENT_Log, log, 0.5f, 2, 1.5 },
            { ELEMENT_Log, log, 1, 1e30f, 1.5 },        { ELEMENT_Tanh, tanh, -10, 10, 2 },
            { ELEMENT_Tanh, tanh, -0.7f, 0.7f, 2 },     { ELEMENT_Sigmoid, sigmoid, -80, 20, 3 },
            { ELEMENT_Erf, erf, -4.5f, 4.5f, 2.5 },     { ELEMENT_Erf, erf, -1, 1, 2.5 },
            { ELEMENT_Softplus, softplus, -80, 80, 3 }, { ELEMENT_Softplus, softplus, -3, 3, 3 },
        };
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            double error = worst(rows[i].f, rows[i].exact, rows[i].low, rows[i].high);
            if (!(error <= rows[i].bound))
                TEST_FAIL_("%s: row %zu is off by %.2f places", simd_name(level), i, error);
        }
    }
}

TEST(ends_of_the_line)
{
    static const double none[2];
    const float x[] = { INFINITY, -INFINITY, NAN, 0, -0.0f, 1e-40f, -1, 3e38f, 1e-45f };
    enum { N = sizeof x / sizeof *x };
    float y[N];
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        const struct element_table *t = SIMD_PICK(elements_f32);
        t->fn[ELEMENT_Exp](y, x, NULL, NULL, N, none);
        CHECK(y[0] == INFINITY && y[1] == 0 && isnan(y[2]) && y[3] == 1 && y[4] == 1 && y[5] == 1 &&
              y[7] == INFINITY);
        t->fn[ELEMENT_Log](y, x, NULL, NULL, N, none);
        CHECK(y[0] == INFINITY && isnan(y[1]) && isnan(y[2]) && y[3] == -INFINITY && y[4] == -INFINITY &&
              isnan(y[6]));
        CHECK(fabsf(y[5] - logf(1e-40f)) < 1e-4f && fabsf(y[8] - logf(1e-45f)) < 1e-4f);
        t->fn[ELEMENT_Tanh](y, x, NULL, NULL, N, none);
        CHECK(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0 && y[7] == 1);
        t->fn[ELEMENT_Sigmoid](y, x, NULL, NULL, N, none);
        CHECK(y[0] == 1 && y[1] == 0 && isnan(y[2]) && y[3] == 0.5f);
        t->fn[ELEMENT_Erf](y, x, NULL, NULL, N, none);
        CHECK(y[0] == 1 && y[1] == -1 && isnan(y[2]) && y[3] == 0);
        t->fn[ELEMENT_Softplus](y, x, NULL, NULL, N, none);
        CHECK(y[0] == INFINITY && y[1] == 0 && isnan(y[2]) && y[7] == 3e38f);
        t->fn[ELEMENT_Relu](y, x, NULL, NULL, N, none);
        CHECK(isnan(y[2]) && y[6] == 0); /* what is no number stays none, and is seen at the loss */
    }
}

/* All halves there and back, and halfway cases to even, whole and in odd lengths. */
TEST(halves)
{
    static uint16_t h[65536], back[65536];
    static float f[65536];
    for (int i = 0; i < 65536; i++)
        h[i] = (uint16_t)i;
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        const struct element_table *t = SIMD_PICK(elements_f32);
        for (int type = 0; type < 2; type++) {
            enum tensor_type half = type ? TENSOR_F16 : TENSOR_BF16;
            t->load[half](f, h, 1, 65536);
            t->store[half](back, f, 65536);
            for (int i = 0; i < 65536; i++)
                CHECK(isnan(f[i]) || back[i] == h[i]);
            uint16_t end = type ? 0x7c00 : 0x7f80; /* infinity: what is below it is a number */
            for (int i = 0; i < end; i++) {
                float next = i + 1 < end ? f[i + 1] : type ? 65536.0f : INFINITY;
                float middle = isinf(next) ? 3.4e38f : f[i] + (next - f[i]) / 2;
                t->store[half](back, &middle, 1);
                CHECK(isinf(next) || back[0] == (i & 1 ? i + 1 : i));
            }
        }
        const float far[] = { 65519, 65520, -1e9f, 1e-9f, NAN };
        t->store[TENSOR_F16](back, far, 5);
        CHECK(back[0] == 0x7bff && back[1] == 0x7c00 && back[2] == 0xfc00 && back[3] == 0 &&
              (back[4] & 0x7fff) > 0x7c00);
    }
}

TEST(folds_in_a_fixed_order)
{
    static float x[20000];
    uint64_t random = 5;
    double sum = 0, most = -9;
    for (int i = 0; i < 20000; i++) {
        x[i] = (float)((double)(splitmix(&random) >> 40) * 0x1p-23 - 1);
        sum += x[i];
        most = fmax(most, x[i]);
    }
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        const struct element_table *t = SIMD_PICK(elements_f32);
        long double once = t->fold[FOLD_SUM](x, 20000);
        CHECK(fabs((double)once - sum) < 1e-3 && once == t->fold[FOLD_SUM](x, 20000));
        CHECK((double)t->fold[FOLD_MAX](x, 20000) == most);
        CHECK((double)t->fold[FOLD_SUM](x, 3) == (double)(x[0] + x[1] + x[2]));
    }
}
