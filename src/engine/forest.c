// SPDX-License-Identifier: Apache-2.0
#include "engine/forest.h"
#include "engine/cpu/fold_trees.h"

#include <math.h>

enum { AT_ONCE = 8 };

/* ---- walking ---- */

/* v: what the row has in the step's feature. */
static inline uint32_t step_on(const struct forest_step *s, float v)
{
    uint32_t yes = (uint32_t)(v < s->value) | ((uint32_t)(v != v) & s->feature & 1);
    return s->first + 1 - yes;
}

/* A row's ends in n trees from t on, side by side; each goes as many steps as the deepest of them. */
static inline __attribute__((always_inline)) void walk(const struct forest *f, const float *x, size_t t,
                                                       size_t n, uint32_t *at)
{
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        at[i] = f->roots[t + i];
        depth = f->depths[t + i] > depth ? f->depths[t + i] : depth;
    }
    for (; depth > 0; depth--)
#pragma GCC unroll 8
        for (size_t i = 0; i < n; i++)
            at[i] = step_on(&f->steps[at[i]], x[f->steps[at[i]].feature >> 1]);
}

/* ---- sums ---- */

/* The leaves of all trees on one row. */
static void row_add_one(const struct forest *f, const float *x, float *sums)
{
    uint32_t at[AT_ONCE];
    float sum = *sums;
    size_t t = 0;
    for (; t + AT_ONCE <= f->trees; t += AT_ONCE) {
        walk(f, x, t, AT_ONCE, at);
        for (int i = 0; i < AT_ONCE; i++)
            sum += f->steps[at[i]].leaf;
    }
    for (; t < f->trees; t++) {
        walk(f, x, t, 1, at);
        sum += f->steps[*at].leaf;
    }
    *sums = sum;
}

/* Trees take turns at a row's numbers. */
static void row_add_many(const struct forest *f, const float *x, float *sums)
{
    uint32_t at[AT_ONCE];
    for (size_t t = 0, turn = 0, n; t < f->trees; t += n) {
        n = f->trees - t < AT_ONCE ? 1 : AT_ONCE;
        if (n == 1)
            walk(f, x, t, 1, at);
        else
            walk(f, x, t, AT_ONCE, at);
        for (size_t i = 0; i < n; i++, turn = turn + 1 < f->outputs ? turn + 1 : 0)
            sums[turn] += f->steps[at[i]].leaf;
    }
}

static void row_add(const struct forest *f, const float *x, float *sums)
{
    (f->outputs == 1 ? row_add_one : row_add_many)(f, x, sums);
}

/* ---- blocks ---- */

/* n rows, column by column; is a NaN among them? */
static bool block_make(const float *x, size_t n, size_t features, float *block)
{
    bool missing = false;
    for (size_t c = 0; c < features; c++, block += FOREST_ROWS) {
        for (size_t i = 0; i < n; i++) {
            block[i] = x[i * features + c];
            missing |= block[i] != block[i];
        }
        for (size_t i = n; i < FOREST_ROWS; i++)
            block[i] = 0;
    }
    return missing;
}

static size_t block_rows(size_t n, size_t from)
{
    return n - from < FOREST_ROWS ? n - from : FOREST_ROWS;
}

void forest_rows_make(struct arena *a, const float *x, size_t n, size_t features, struct forest_rows *out)
{
    const size_t blocks = n / FOREST_ROWS + 1;
    *out = (struct forest_rows){ .n = n, .features = features };
    out->x = arena_alloc(a, arena_mul(arena_mul(blocks, FOREST_ROWS * sizeof(float)), features) + 1, 64);
    out->missing = NEW_N(a, bool, blocks);
    for (size_t i = 0; i < n; i += FOREST_ROWS)
        out->missing[i / FOREST_ROWS] = block_make(x + i * features, block_rows(n, i), features,
                                                   out->x + i * features);
}

/* A block is worth making if it has the rows, and a tree is asked for each few of its columns. */
static bool worth_block(const struct forest *f, size_t n)
{
    return f->folds && n >= f->fold_rows && f->features <= FOREST_FEATURES && f->features <= 8 * f->trees;
}

void forest_predict(const struct forest *f, const float *x, size_t n, float *out)
{
    const struct fold_trees *folds = SIMD_PICK(fold_trees);
    _Alignas(64) float block[FOREST_FEATURES * FOREST_ROWS];
    size_t i = 0, now;
    for (size_t k = 0; k < n * f->outputs; k++)
        out[k] = f->base;
    for (; worth_block(f, n - i); i += now) {
        now = block_rows(n, i);
        bool missing = block_make(x + i * f->features, now, f->features, block);
        folds->add(f, block, missing, now, out + i * f->outputs);
    }
    for (; i < n; i++)
        row_add(f, x + i * f->features, out + i * f->outputs);
    forest_link(f, out, n, out);
}

/* A block through trees that have no folds: its first n rows, all of them side by side in each tree. */
static void block_walk(const struct forest *f, const float *block, size_t n, float *sums)
{
    uint32_t at[FOREST_ROWS];
    for (size_t t = 0, turn = 0; t < f->trees; t++, turn = turn + 1 < f->outputs ? turn + 1 : 0) {
        for (size_t i = 0; i < FOREST_ROWS; i++)
            at[i] = f->roots[t];
        for (uint32_t depth = f->depths[t]; depth > 0; depth--)
#pragma GCC unroll 16
            for (size_t i = 0; i < FOREST_ROWS; i++) {
                const struct forest_step *s = &f->steps[at[i]];
                at[i] = step_on(s, block[(size_t)(s->feature >> 1) * FOREST_ROWS + i]);
            }
        for (size_t i = 0; i < n; i++)
            sums[i * f->outputs + turn] += f->steps[at[i]].leaf;
    }
}

void forest_add(const struct forest *f, const struct forest_rows *r, float *sums)
{
    const struct fold_trees *folds = SIMD_PICK(fold_trees);
    for (size_t i = 0; i < r->n; i += FOREST_ROWS) {
        const float *block = r->x + i * r->features;
        const size_t now = block_rows(r->n, i);
        for (size_t c = 0; now < r->n - i && c < r->features; c++)
            __builtin_prefetch(block + (r->features + c) * FOREST_ROWS);
        if (f->folds)
            folds->add(f, block, r->missing[i / FOREST_ROWS], now, sums + i * f->outputs);
        else
            block_walk(f, block, now, sums + i * f->outputs);
    }
}

void forest_link(const struct forest *f, const float *sums, size_t n, float *out)
{
    if (out != sums)
        memcpy(out, sums, n * f->outputs * sizeof *out);
    for (size_t i = 0; i < n && f->link == LINK_LOGISTIC; i++)
        out[i] = 1.0f / (1.0f + expf(-out[i]));
    for (size_t i = 0; i < n && f->link == LINK_SOFTMAX; i++)
        trees_softmax(out + i * f->outputs, f->outputs);
}

/* ---- trees → steps ---- */

/* Where each node of the trees went, and how deep it lies. */
struct place {
    uint32_t at, depth;
};

/* One tree, whose nodes are [from, to) and lie behind their parents. Returns its depth. */
static uint32_t tree_place(const struct trees *t, size_t from, size_t to, struct forest_step *steps,
                           uint32_t *used, struct place *places)
{
    uint32_t deepest = 0;
    for (size_t i = from; i < to; i++) {
        const struct tree_node *n = &t->nodes[i];
        struct place p = places[i];
        struct forest_step *s = &steps[p.at];
        if (n->feature < 0) {
            *s = (struct forest_step){ .value = NAN, .first = p.at - 1, .leaf = n->value };
            deepest = p.depth > deepest ? p.depth : deepest;
            continue;
        }
        *s = (struct forest_step){ n->value, (uint32_t)n->feature << 1 | n->missing_yes, *used, 0 };
        places[n->yes] = (struct place){ *used, p.depth + 1 };
        places[n->no] = (struct place){ *used + 1, p.depth + 1 };
        *used += 2;
    }
    return deepest;
}

/* ---- trees → folds ---- */

/* Where the split lies that is number `at` of level `level` in a fold of `depth` levels. */
static size_t split_place(uint32_t depth, uint32_t level, size_t at)
{
    const uint32_t upper = depth - 3;
    if (level < upper)
        return ((size_t)1 << level) - 1 + at;
    const uint32_t below = level - upper;
    return ((size_t)1 << upper) - 1 + 7 * (at >> below) + ((size_t)1 << below) - 1 +
           (at & (((size_t)1 << below) - 1));
}

/* What lies from a node down fills its part of the fold; a leaf all of it, whatever the splits above say (they ask feature 0). */
static void fold_fill(const struct trees *t, uint32_t node, uint32_t depth, uint32_t level, size_t at,
                      struct forest_split *splits, float *leaves)
{
    const struct tree_node *n = &t->nodes[node];
    const bool leaf = n->feature < 0;
    if (level == depth) {
        leaves[at] = n->value;
        return;
    }
    if (!leaf)
        splits[split_place(depth, level, at)] = (struct forest_split){ n->value,
                                                                       (uint32_t)n->feature * FOREST_ROWS,
                                                                       n->missing_yes ? ~0U : 0 };
    fold_fill(t, leaf ? node : n->yes, depth, level + 1, 2 * at, splits, leaves);
    fold_fill(t, leaf ? node : n->no, depth, level + 1, 2 * at + 1, splits, leaves);
}

static const struct forest_fold *folds_make(struct arena *a, const struct trees *t, const uint32_t *depths)
{
    struct forest_fold *folds = NEW_N(a, struct forest_fold, t->n_trees + 1);
    for (size_t i = 0; i < t->n_trees; i++) {
        const uint32_t depth = depths[i] > 3 ? depths[i] : 3;
        struct forest_split *splits = NEW_N(a, struct forest_split, (size_t)1 << depth);
        float *leaves = NEW_N(a, float, (size_t)1 << depth);
        fold_fill(t, t->roots[i], depth, 0, 0, splits, leaves);
        folds[i] = (struct forest_fold){ 1U << (depth - 3), splits, leaves };
    }
    return folds;
}

void forest_make(struct arena *a, const struct trees *t, struct forest *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct place *places = NEW_N(scratch, struct place, t->n_nodes);
    struct forest_step *steps = NEW_N(a, struct forest_step, t->n_nodes + 1);
    uint32_t *roots = NEW_N(a, uint32_t, t->n_trees + 1), *depths = NEW_N(a, uint32_t, t->n_trees + 1);
    uint32_t used = 1; /* place 0 is free, so that a leaf at 1 has one before it */
    for (size_t i = 0; i < t->n_trees; i++) {
        size_t from = t->roots[i], to = i + 1 < t->n_trees ? t->roots[i + 1] : t->n_nodes;
        roots[i] = places[from].at = used++;
        depths[i] = tree_place(t, from, to, steps, &used, places);
    }
    *out = (struct forest){ .steps = steps,
                            .roots = roots,
                            .depths = depths,
                            .trees = t->n_trees,
                            .features = t->features,
                            .outputs = trees_outputs(t),
                            .base = t->base,
                            .link = t->link };
    const uint32_t deepest = forest_depth(out);
    if (deepest > SIMD_PICK(fold_trees)->deepest || t->features > UINT32_MAX / FOREST_ROWS)
        return;
    out->folds = folds_make(a, t, depths);
    out->fold_rows = deepest > 3 ? ((size_t)1 << deepest) / (2 * deepest) + 1 : 2;
}

uint32_t forest_depth(const struct forest *f)
{
    uint32_t most = 0;
    for (size_t i = 0; i < f->trees; i++)
        most = f->depths[i] > most ? f->depths[i] : most;
    return most;
}
