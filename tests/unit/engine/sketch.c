// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_sketch
#include "engine/engine.h"
#include "test.h"
#include <math.h>
#include <stdlib.h>

enum { N = 20000 };

static double uniform(uint64_t *seed)
{
    return (double)(splitmix(seed) >> 11) / 9007199254740992.0;
}

static float normal(uint64_t *seed)
{
    return (float)(sqrt(-2 * log(1 - uniform(seed))) * cos(2 * 3.14159265358979 * uniform(seed)));
}

/* Shapes of features: continuous, heavy tail, whole hours, a rare flag, mostly zero. */
static float draw(int shape, uint64_t *seed)
{
    switch (shape) {
    case 0:
        return normal(seed);
    case 1:
        return expf(normal(seed));
    case 2:
        return (float)(splitmix(seed) % 24);
    case 3:
        return (float)(uniform(seed) < 0.05);
    default:
        return uniform(seed) < 0.7 ? 0 : normal(seed);
    }
}

static int by_value(const void *x, const void *y)
{
    float a = *(const float *)x, b = *(const float *)y;
    return (a > b) - (a < b);
}

/* Wasserstein-1 of two samples by walking both sorted: ∫ |F − G|. */
static double wasserstein_slow(const float *x, const float *y, size_t n)
{
    float *v = malloc(2 * n * sizeof *v), *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    memcpy(a, x, n * sizeof *a);
    memcpy(b, y, n * sizeof *b);
    qsort(a, n, sizeof *a, by_value);
    qsort(b, n, sizeof *b, by_value);
    memcpy(v, a, n * sizeof *v);
    memcpy(v + n, b, n * sizeof *v);
    qsort(v, 2 * n, sizeof *v, by_value);
    double sum = 0;
    for (size_t k = 0, i = 0, j = 0; k + 1 < 2 * n; k++) {
        while (i < n && a[i] <= v[k])
            i++;
        while (j < n && b[j] <= v[k])
            j++;
        sum += fabs((double)i - (double)j) / (double)n * ((double)v[k + 1] - v[k]);
    }
    free(v);
    free(a);
    free(b);
    return sum;
}

static struct baseline_column reference(struct arena *a, int shape, float *x, uint64_t seed)
{
    struct baseline_column ref;
    for (size_t i = 0; i < N; i++)
        x[i] = draw(shape, &seed);
    baseline_column_make(a, S("x"), x, N, 1, &ref);
    return ref;
}

TEST(column_statistics_by_hand)
{
    auto_arena struct arena *a = arena_new(0);
    const float v[] = { 4, 9, NAN, 9, 1, 9, 3, 9, INFINITY, 9 }; /* column 0 of two */
    struct baseline_column c;
    baseline_column_make(a, S("x"), v, 5, 2, &c);
    CHECK(c.n == 3 && c.nulls == 2 && c.min == 1 && c.max == 4);
    CHECK(fabs(c.mean - 8.0 / 3) < 1e-12 && fabs(c.std - sqrt(7.0 / 3)) < 1e-12);
    CHECK(c.edges_n == 3 && c.edges[0] == 1 && c.edges[1] == 3 && c.edges[2] == 4);
    const int64_t cells[] = { 1, 0, 1, 0, 1 };
    CHECK(!memcmp(c.cells, cells, sizeof cells));
    CHECK(c.deciles[0] == 1 && c.deciles[3] == 1 && c.deciles[4] == 3 && c.deciles[6] == 3 &&
          c.deciles[7] == 4);
}

TEST(percentiles_of_a_hundred)
{
    auto_arena struct arena *a = arena_new(0);
    float v[100];
    for (int i = 0; i < 100; i++)
        v[i] = (float)(100 - i);
    struct baseline_column c;
    baseline_column_make(a, S("x"), v, 100, 1, &c);
    CHECK(c.edges_n == 100 && c.deciles[1] == 10 && c.deciles[5] == 50 && c.deciles[10] == 100);
}

TEST(same_data_has_no_distance)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N);
    for (int shape = 0; shape < 5; shape++) {
        struct baseline_column ref = reference(a, shape, x, 1);
        struct sketch s;
        sketch_init(&s, &ref);
        for (size_t i = 0; i < N; i++)
            sketch_add(&s, x[i]);
        CHECK(sketch_wasserstein(&s) == 0 && sketch_psi(&s) == 0);
        CHECK(fabs(sketch_mean(&s) - ref.mean) < 1e-9 && fabs(sketch_std(&s) - ref.std) < 1e-9);
    }
}

/* The promise of baseline.h. */
static double error_bound(const struct sketch *s)
{
    double sum = 0;
    for (size_t i = 0; i + 1 < s->ref->edges_n; i++)
        sum += ((double)s->ref->edges[i + 1] - s->ref->edges[i]) *
               ((double)s->cells[2 * i + 1] / (double)s->n +
                (double)s->ref->cells[2 * i + 1] / (double)s->ref->n);
    return sum / s->ref->std;
}

TEST(wasserstein_is_near_the_samples_own)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N), *y = NEW_N(a, float, N);
    for (int shape = 0; shape < 5; shape++) {
        struct baseline_column ref = reference(a, shape, x, 1);
        for (int shift = 0; shift < 4; shift++) {
            uint64_t seed = 99;
            struct sketch s;
            sketch_init(&s, &ref);
            for (size_t i = 0; i < N; i++) {
                y[i] = draw(shape, &seed) + (float)shift * (shape >= 2 ? 1 : 0.4f);
                sketch_add(&s, y[i]);
            }
            double slow = wasserstein_slow(x, y, N) / ref.std, fast = sketch_wasserstein(&s);
            /* Whole numbers lie on edges: exact. */
            double most = shape == 2 || shape == 3 ? 1e-6 : fmin(error_bound(&s), 0.01 + 0.02 * slow);
            if (fabs(fast - slow) > most)
                TEST_FAIL_("shape %d shift %d: %g, by hand %g", shape, shift, fast, slow);
        }
    }
}

TEST(a_moved_constant_is_seen)
{
    auto_arena struct arena *a = arena_new(0);
    const float v[] = { 5, 5, 5, 5 };
    struct baseline_column ref;
    baseline_column_make(a, S("x"), v, 4, 1, &ref);
    struct sketch s;
    sketch_init(&s, &ref);
    for (int i = 0; i < 10; i++)
        sketch_add(&s, 7);
    CHECK(fabs(sketch_wasserstein(&s) - 2.0 / 5) < 1e-12);
    CHECK(sketch_psi(&s) > 1);
}

TEST(psi_by_hand)
{
    auto_arena struct arena *a = arena_new(0);
    float v[10] = { 0, 0, 0, 0, 0, 0, 0, 0, 1, 1 }; /* two bins: 0.8 and 0.2 */
    struct baseline_column ref;
    baseline_column_make(a, S("x"), v, 10, 1, &ref);
    struct sketch s;
    sketch_init(&s, &ref);
    for (int i = 0; i < 10; i++)
        sketch_add(&s, i < 5 ? 0 : 1);
    CHECK(fabs(sketch_psi(&s) - ((0.5 - 0.8) * log(0.5 / 0.8) + (0.5 - 0.2) * log(0.5 / 0.2))) < 1e-12);
    for (int i = 0; i < 10; i++) /* half of the rows lose their value */
        sketch_add(&s, NAN);
    double want = (0.25 - 0.8) * log(0.25 / 0.8) + (0.25 - 0.2) * log(0.25 / 0.2) +
                  (0.5 - 1e-4) * log(0.5 / 1e-4);
    CHECK(fabs(sketch_psi(&s) - want) < 1e-12);
}

/* The bin of each cell, then every value looked up edge by edge. */
static double psi_slow(const struct baseline_column *ref, const float *y, size_t n)
{
    int bin_of[BASELINE_CELLS_MAX], bin = 0;
    double then[12] = { 0 }, now[12] = { 0 }, sum = 0;
    size_t cells = 2 * ref->edges_n - 1;
    for (size_t i = 0; i < cells; i++) {
        bin_of[i] = bin;
        then[bin] += (double)ref->cells[i];
        bin += then[bin] * 10 >= (double)ref->n;
    }
    for (size_t k = 0; k < n; k++) {
        size_t cell = 0;
        for (size_t e = 0; e < ref->edges_n; e++)
            cell = y[k] > ref->edges[e] ? 2 * e + 1 : y[k] == ref->edges[e] ? 2 * e : cell;
        now[bin_of[cell < cells ? cell : cells - 1]]++;
    }
    for (int b = 0; b < 12 && then[b] > 0; b++) {
        double c = fmax(now[b] / (double)n, 0.0001), r = fmax(then[b] / (double)ref->n, 0.0001);
        sum += (c - r) * log(c / r);
    }
    return sum;
}

TEST(psi_equals_every_value_looked_up)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N), *y = NEW_N(a, float, N);
    for (int shape = 0; shape < 5; shape++) {
        struct baseline_column ref = reference(a, shape, x, 1);
        struct sketch s;
        sketch_init(&s, &ref);
        uint64_t seed = 17;
        for (size_t i = 0; i < N; i++) {
            y[i] = draw(shape, &seed) * 1.2f;
            sketch_add(&s, y[i]);
        }
        CHECK(fabs(sketch_psi(&s) - psi_slow(&ref, y, N)) < 1e-9);
    }
}

TEST(psi_of_a_shifted_normal)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N);
    struct baseline_column ref = reference(a, 0, x, 1);
    struct sketch s, moved;
    sketch_init(&s, &ref);
    sketch_init(&moved, &ref);
    uint64_t seed = 5;
    for (size_t i = 0; i < N; i++) {
        float v = normal(&seed);
        sketch_add(&s, v);
        sketch_add(&moved, v + 0.5f);
    }
    CHECK(sketch_psi(&s) < 0.005);
    CHECK(sketch_psi(&moved) > 0.2 && sketch_psi(&moved) < 0.3); /* about shift² */
}

TEST(merging_equals_adding_all)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N);
    struct baseline_column ref = reference(a, 1, x, 1);
    struct sketch all, half[2];
    sketch_init(&all, &ref);
    sketch_init(&half[0], &ref);
    sketch_init(&half[1], &ref);
    uint64_t seed = 3;
    for (size_t i = 0; i < N; i++) {
        float v = i % 50 ? 2 * draw(1, &seed) - 1 : NAN;
        sketch_add(&all, v);
        sketch_add(&half[i % 2], v);
    }
    sketch_merge(&half[0], &half[1]);
    CHECK(half[0].n == all.n && half[0].nulls == all.nulls && half[0].below == all.below);
    CHECK(!memcmp(half[0].cells, all.cells, sizeof all.cells));
    CHECK(fabs(sketch_wasserstein(&half[0]) - sketch_wasserstein(&all)) < 1e-12);
    struct sketch back;
    CHECK_OK(sketch_read(a, sketch_write(a, &all), &ref, &back));
    CHECK(sketch_wasserstein(&back) == sketch_wasserstein(&all) && sketch_psi(&back) == sketch_psi(&all));
    CHECK(back.min == all.min && back.max == all.max);
}

TEST(baseline_reads_back_and_refuses_nonsense)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N);
    struct baseline b = { .rows = N, .features = NEW_N(a, struct baseline_column, 2), .n = 2 }, back;
    b.features[0] = reference(a, 4, x, 1);
    baseline_column_make(a, S("none"), (const float[]){ NAN, NAN }, 2, 1, &b.features[1]);
    b.score = reference(a, 0, x, 2);
    struct str text = baseline_write(a, &b);
    CHECK_OK(baseline_read(a, text, &back));
    CHECK_STR(baseline_write(a, &back), text);
    CHECK(back.features[0].edges_n == b.features[0].edges_n && back.score.mean == b.score.mean);
    CHECK(back.features[1].n == 0 && isnan(back.features[1].mean));
    CHECK_ERR(baseline_read(a, S("{}"), &back), INVALID);
    CHECK_ERR(baseline_read(a, str_sub(text, 0, text.n - 1), &back), INVALID);
    struct str bad = S(
        "{\"format\":\"dhow-baseline 1\",\"rows\":1,\"features\":[],\"score\":{\"name\":\"s\",\"n\":2,\"nulls\":0,"
        "\"mean\":1,\"std\":0,\"deciles\":[],\"edges\":[1],\"cells\":[1]}}");
    CHECK_ERR(baseline_read(a, bad, &back), INVALID);
}

TEST(adding_takes_nanoseconds)
{
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N);
    struct baseline_column ref = reference(a, 0, x, 1);
    struct sketch s;
    sketch_init(&s, &ref);
    int64_t start = mono_ns();
    for (int round = 0; round < 100; round++)
        for (size_t i = 0; i < N; i++)
            sketch_add(&s, x[i]);
    double ns = (double)(mono_ns() - start) / (100.0 * N);
    cr_log_info("sketch_add: %.1f ns\n", ns);
    CHECK(s.n == 100 * N && ns < 500); /* loose: sanitizers run this too */
}
