// SPDX-License-Identifier: Apache-2.0
#define SUITE train_forest
#include "samples.h"
#include "train/forest.h"

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

static struct trees grown(struct arena *a, size_t trees, size_t outputs, enum trees_link link)
{
    uint64_t state = 11;
    struct trees t = { .features = FEATURES, .outputs = outputs, .base = 0.25f, .link = link };
    t.nodes = NEW_N(a, struct tree_node, trees << 8);
    t.roots = NEW_N(a, uint32_t, trees);
    for (; t.n_trees < trees; t.n_trees++)
        t.roots[t.n_trees] = grow(&t, &state, (int)(t.n_trees % 8)); /* the first is a leaf */
    return t;
}

/* By trees side by side, and by rows side by side tree after tree: the bits of the plain walk. */
TEST(each_way_of_walking_gives_the_same_bits)
{
    auto_arena struct arena *a = arena_new(0);
    const struct {
        size_t trees, outputs;
        enum trees_link link;
    } cases[] = { { 30, 1, LINK_LOGISTIC }, { 3, 1, LINK_NONE }, { 21, 3, LINK_SOFTMAX } };
    uint64_t state = 3;
    float *x = NEW_N(a, float, ROWS *FEATURES);
    for (size_t i = 0; i < ROWS * FEATURES; i++)
        x[i] = uniform(&state) < 0.1f ? NAN : uniform(&state);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct trees t = grown(a, cases[c].trees, cases[c].outputs, cases[c].link);
        const size_t n = ROWS * cases[c].outputs;
        float *want = NEW_N(a, float, n), *got = NEW_N(a, float, n), *sums = NEW_N(a, float, n);
        struct forest all;
        CHECK_OK(trees_check(&t));
        trees_predict(&t, x, ROWS, FEATURES, want);
        forest_make(a, &t, &all);
        CHECK(forest_depth(&all) == (cases[c].trees > 7 ? 7 : cases[c].trees - 1));
        forest_predict(&all, x, ROWS, got);
        CHECK(!memcmp(got, want, n * sizeof *got));
        for (size_t i = 0; i < n; i++)
            sums[i] = t.base;
        for (size_t i = 0; i < t.n_trees; i += cases[c].outputs) { /* round by round, as training goes */
            struct trees some = t;
            struct forest round;
            some.roots += i;
            some.n_trees = cases[c].outputs;
            size_t end = i + some.n_trees;
            some.n_nodes = end < t.n_trees ? t.roots[end] : t.n_nodes;
            forest_make(a, &some, &round);
            forest_add(&round, x, ROWS, sums);
        }
        forest_link(&all, sums, ROWS, got);
        CHECK(!memcmp(got, want, n * sizeof *got));
        forest_link(&all, sums, ROWS, sums);
        CHECK(!memcmp(sums, want, n * sizeof *got));
    }
}
