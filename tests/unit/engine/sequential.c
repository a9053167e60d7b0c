// SPDX-License-Identifier: Apache-2.0
/* The promise of a sequential test is about all times at once, so it is simulated: a look after each outcome. */
#define SUITE engine_sequential
#include "engine/engine.h"
#include "test.h"
#include <math.h>

static double uniform(uint64_t *seed)
{
    return (double)(splitmix(seed) >> 11) * 0x1p-53;
}
static double share_of(uint64_t *seed, double p)
{
    return uniform(seed) < p;
}
/* Mean m, skewed to the right: the hard case for what trusts the central limit. */
static double exponential(uint64_t *seed, double m)
{
    return -m * log1p(-uniform(seed));
}

struct trial {
    struct sequential t;
    double (*draw)(uint64_t *seed, double mean);
    double a, b;
    int64_t most; /* outcomes of each arm */
};
struct tried {
    int rejected, uncovered; /* runs in which it ever was so */
};

/* `runs` tests of their own, each looked at after every outcome of both arms. */
static struct tried tries(const struct trial *x, int runs)
{
    struct tried out = { 0 };
    uint64_t seed = 42;
    for (int r = 0; r < runs; r++) {
        struct moments a = { 0 }, b = { 0 };
        bool rejected = false, uncovered = false;
        for (int64_t i = 0; i < x->most; i++) {
            double p;
            moments_add(&a, x->draw(&seed, x->a));
            moments_add(&b, x->draw(&seed, x->b));
            struct interval d = sequential_difference(&x->t, &a, &b, &p);
            rejected = rejected || p <= x->t.alpha;
            uncovered = uncovered || x->b - x->a < d.low || x->b - x->a > d.high;
            CHECK((p <= x->t.alpha) == (d.low > 0 || d.high < 0)); /* one and the same test */
        }
        out.rejected += rejected;
        out.uncovered += uncovered;
    }
    return out;
}

TEST(peeking_raises_no_false_alarms)
{
    const struct trial equal[] = {
        { { 0.05, 0.05, true }, share_of, 0.5, 0.5, 4000 },
        { { 0.05, 0.02, true }, share_of, 0.05, 0.05, 4000 },
        { { 0.05, 0.3, false }, exponential, 1, 1, 4000 },
    };
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
        struct tried got = tries(&equal[i], 1000);
        cr_assert(got.rejected <= 50, "case %zu: %d of 1000 with no difference", i, got.rejected);
        cr_assert(got.uncovered <= 50, "case %zu: %d of 1000 not covered", i, got.uncovered);
    }
}

TEST(a_difference_is_found_by_the_size_that_was_told)
{
    const struct trial told[] = {
        { { 0.05, 0.05, true }, share_of, 0.5, 0.55, 0 },
        { { 0.05, 0.02, true }, share_of, 0.05, 0.07, 0 },
        { { 0.05, 0.3, false }, exponential, 1, 1.3, 0 },
    };
    for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
        struct trial x = told[i];
        double va = x.t.proportion ? x.a * (1 - x.a) : x.a * x.a,
               vb = x.t.proportion ? x.b * (1 - x.b) : x.b * x.b;
        x.most = (sequential_needed(&x.t, va, vb, 0.5, x.b - x.a) + 1) / 2;
        CHECK(x.most > SEQUENTIAL_MIN && x.most < 20000);
        struct tried got = tries(&x, 300);
        cr_assert(got.rejected >= 240, "case %zu: %d of 300 found with %lld each", i, got.rejected,
                  (long long)x.most);
        cr_assert(got.uncovered <= 15, "case %zu: %d of 300 not covered", i, got.uncovered);
    }
}

/* By an independent computation: the mixture integrated by the trapezium rule, not the closed form. */
static double ratio_integrated(double d, double v, double scale)
{
    double sum = 0, step = scale / 2000;
    for (int i = -20000; i <= 20000; i++) {
        double x = i * step;
        sum += step * exp(-x * x / (2 * scale * scale)) / (scale * sqrt(2 * M_PI)) *
               exp((2 * d * x - x * x) / (2 * v));
    }
    return sum;
}

TEST(the_closed_form_is_the_mixture)
{
    struct sequential t = { 0.05, 0.04, true };
    struct moments a = { 1000, 0.30, 0 }, b = { 1500, 0.36, 0 };
    double pa = 301.0 / 1002, pb = 541.0 / 1502, p;
    double v = pa * (1 - pa) / 1000 + pb * (1 - pb) / 1500;
    struct interval d = sequential_difference(&t, &a, &b, &p);
    CHECK(fabs(p * ratio_integrated(0.06, v, 0.04) - 1) < 1e-6);
    CHECK(fabs(0.05 * ratio_integrated(0.06 - d.low, v, 0.04) - 1) < 1e-6);
    CHECK(fabs((d.low + d.high) / 2 - 0.06) < 1e-12);
}

TEST(little_is_known_of_little)
{
    struct sequential t = { 0.05, 0.05, true };
    struct moments a = { 0 }, b = { 0 };
    double p;
    for (int i = 0; i < SEQUENTIAL_MIN; i++) {
        CHECK(isinf(sequential_difference(&t, &a, &b, &p).high) && p == 1);
        moments_add(&a, 0);
        moments_add(&b, 0);
    }
    struct interval d = sequential_difference(&t, &a, &b, &p);
    CHECK(p == 1 && d.low < -0.01 && d.high > 0.01); /* none of a hundred is not certainty */
    t.proportion = false;
    CHECK(isinf(sequential_difference(&t, &a, &b, &p).high) && p == 1);
    CHECK(isnan(moments_variance(&(struct moments){ 1, 3, 0 }, false)));
    CHECK(sequential_needed(&t, 0, 0, 0.5, 1) == INT64_MAX);
}

TEST(moments_are_those_of_the_outcomes)
{
    struct moments m = { 0 };
    for (int i = 1; i <= 5; i++)
        moments_add(&m, 1e9 + i);
    CHECK(m.n == 5 && m.mean == 1e9 + 3 && fabs(moments_variance(&m, false) - 2.5) < 1e-9);
}
