// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_forest
#include "engine/cpu/simd.h"
#include "engine/engine.h"
#include "test.h"
#include <math.h>

enum { FEATURES = 5, ROWS = 1003 };

static float uniform(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / (float)(1 << 24);
}

/* A tree of some depth, whose branches end where chance will have it. Returns its place. */
static uint32_t grow(struct trees *t, uint64_t *state, int depth)
{
    uint32_t at = (uint32_t)t->n_nodes++;
    struct tree_node *n = &t->nodes[at];
    if (depth == 0 || uniform(state) < 0.15f) {
        *n = (struct tree_node){ .feature = -1, .value = uniform(state) - 0.5f };
        return at;
    }
    *n = (struct tree_node){ .feature = (int32_t)(uniform(state) * FEATURES),
                             .value = uniform(state),
                             .missing_yes = uniform(state) < 0.5f };
    n->yes = grow(t, state, depth - 1);
    n->no = grow(t, state, depth - 1);
    return at;
}

/* Trees of up to `deepest` levels of splits; the first is a leaf. */
static struct trees grown(struct arena *a, size_t trees, size_t outputs, enum trees_link link, size_t deepest)
{
    uint64_t state = 11;
    struct trees t = { .features = FEATURES, .outputs = outputs, .base = 0.25f, .link = link };
    t.nodes = NEW_N(a, struct tree_node, trees << (deepest + 1));
    t.roots = NEW_N(a, uint32_t, trees);
    for (; t.n_trees < trees; t.n_trees++)
        t.roots[t.n_trees] = grow(&t, &state, (int)(t.n_trees % (deepest + 1)));
    return t;
}

static void same(const struct forest *f, const struct trees *t, const float *x, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    const size_t k = trees_outputs(t);
    float *want = NEW_N(a, float, n *k + 1), *got = NEW_N(a, float, n *k + 1),
          *sums = NEW_N(a, float, n *k + 1);
    struct forest_rows rows;
    trees_predict(t, x, n, FEATURES, want);
    forest_predict(f, x, n, got);
    CHECK(!memcmp(got, want, n * k * sizeof *got));

    for (size_t i = 0; i < n * k; i++)
        sums[i] = t->base;
    forest_rows_make(a, x, n, FEATURES, &rows);
    for (size_t i = 0; i < t->n_trees; i += k) { /* round by round, as training goes */
        struct trees some = *t;
        struct forest round;
        some.roots += i;
        some.n_trees = k;
        some.n_nodes = i + k < t->n_trees ? t->roots[i + k] : t->n_nodes;
        forest_make(a, &some, &round);
        forest_add(&round, &rows, sums);
    }
    forest_link(f, sums, n, got);
    CHECK(!memcmp(got, want, n * k * sizeof *got));
    forest_link(f, sums, n, sums);
    CHECK(!memcmp(sums, want, n * k * sizeof *got));
}

/* By steps and by folds, row by row and in blocks, on each instruction set: the bits of the plain walk. */
TEST(each_way_of_scoring_gives_the_same_bits)
{
    auto_arena struct arena *a = arena_new(0);
    const struct {
        size_t trees, outputs, deepest;
        enum trees_link link;
    } cases[] = {
        { 30, 1, 8, LINK_LOGISTIC }, { 3, 1, 8, LINK_NONE },  { 21, 3, 8, LINK_SOFTMAX },
        { 20, 1, 4, LINK_LOGISTIC }, { 21, 3, 6, LINK_NONE }, { 24, 1, 11, LINK_NONE },
        { 24, 3, 11, LINK_SOFTMAX },
    };
    const uint32_t deepest[] = {
        [SIMD_PORTABLE] = 4, [SIMD_AVX2] = 6, [SIMD_AVX512] = 8
    }; /* that has folds */
    const size_t rows[] = { 0, 1, 3, 4, 15, 16, 17, ROWS };
    uint64_t state = 3;
    float *x = NEW_N(a, float, ROWS *FEATURES);
    for (size_t i = 0; i < ROWS * FEATURES; i++) /* the last blocks miss nothing */
        x[i] = i < ROWS * FEATURES / 2 && uniform(&state) < 0.1f ? NAN : uniform(&state);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct trees t = grown(a, cases[c].trees, cases[c].outputs, cases[c].link, cases[c].deepest);
        CHECK_OK(trees_check(&t));
        for (enum simd level = SIMD_PORTABLE; level <= SIMD_AVX512; level++) {
            struct forest f;
            simd_limit(level);
            forest_make(a, &t, &f);
            CHECK(forest_depth(&f) == (t.n_trees > cases[c].deepest ? cases[c].deepest : t.n_trees - 1));
            CHECK((f.folds != NULL) == (forest_depth(&f) <= deepest[simd_level()]));
            for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                same(&f, &t, x + (ROWS - rows[i]) / 2 * FEATURES, rows[i]);
        }
    }
}

/* More columns than a block on the way has room for, or than so few trees are worth: row by row. */
TEST(wide_rows_are_scored_too)
{
    auto_arena struct arena *a = arena_new(0);
    enum { WIDE = 1000, N = 40 };
    struct tree_node nodes[] = { { .feature = WIDE - 1, .value = 0.5f, .yes = 1, .no = 2 },
                                 { .feature = -1, .value = 1 },
                                 { .feature = -1, .value = 2 } };
    uint32_t root = 0;
    struct trees t = { .features = WIDE, .nodes = nodes, .n_nodes = 3, .roots = &root, .n_trees = 1 };
    struct forest f;
    float *x = NEW_N(a, float, WIDE *N), got[N];
    for (size_t i = 0; i < N; i++)
        x[i * WIDE + WIDE - 1] = (float)(i % 2);
    forest_make(a, &t, &f);
    forest_predict(&f, x, N, got);
    for (size_t i = 0; i < N; i++)
        CHECK(got[i] == (i % 2 ? 2.0f : 1.0f));
}
