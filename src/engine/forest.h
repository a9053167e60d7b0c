/* forest: trees laid out for scoring without a branch. A processor loses most of its time in trees on branches that it guesses
 * wrongly; here are none. Two ways give the same bits, those of trees_predict(), as leaves are added in the order of trees:
 * Steps    a row walks down: children lie side by side, a comparison is the offset, a leaf steps onto itself, and eight trees
 *          are walked at a time so that their loads overlap. For a row alone, and for deep trees.
 * Folds    rows side by side in vectors ask all splits of a tree, and leaves are chosen from below: each split chooses between
 *          what its two sides gave, by a comparison and a blend. A tree of depth 6 asks 63 splits instead of 6, and yet takes
 *          a fifth of the time with AVX-512; it doubles with each level more.
 * Owns     nothing of the trees it was made of; its memory is the arena's.
 * Threads  a forest is only read. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/trees.h"

enum {
    FOREST_ROWS = 32,      /* of a block */
    FOREST_FOLD_DEPTH = 8, /* of trees that have folds, at most; fewer where vectors are short */
    FOREST_FEATURES = 256, /* of rows that blocks are made of on the way */
};

struct forest_step {
    float value;      /* NaN in a leaf: no comparison is true */
    uint32_t feature; /* × 2, and 1 where a missing value goes to the first child */
    uint32_t first;   /* child, the second lies behind it; of a leaf, its own place − 1 */
    float leaf;
};
struct forest_split {
    float value;
    uint32_t column;  /* where the feature begins in a block */
    uint32_t missing; /* all ones: a missing value goes to yes */
};
/* A tree filled up to its depth d ≥ 3. splits: the upper 2^(d−3) − 1 level by level, then for each of the subtrees below its seven
 * level by level. leaves: all 2^d, from yes to no. */
struct forest_fold {
    uint32_t subtrees; /* 2^(d−3) */
    const struct forest_split *splits;
    const float *leaves;
};
struct forest {
    const struct forest_step *steps;
    const uint32_t *roots, *depths;  /* of each tree */
    const struct forest_fold *folds; /* of each tree; NULL: one is too deep */
    size_t fold_rows;                /* so many rows are quicker by folds than by steps */
    size_t trees, features, outputs;
    float base;
    enum trees_link link;
};

/* Of trees that trees_check() takes. */
void forest_make(struct arena *a, const struct trees *, struct forest *out);
uint32_t forest_depth(const struct forest *); /* of the deepest tree */

/* x: n rows of `features` floats, row-major, NaN for null; out: n × outputs. What trees_predict() gives. */
void forest_predict(const struct forest *, const float *x, size_t n, float *out);
/* What the link makes of sums, n × outputs; out may be sums. */
void forest_link(const struct forest *, const float *sums, size_t n, float *out);

/* Rows that are asked often, FOREST_ROWS in a block, which has them column by column; the last is filled up with zeros. */
struct forest_rows {
    size_t n, features;
    float *x;
    bool *missing; /* of each block: a NaN is in it */
};
void forest_rows_make(struct arena *a, const float *x, size_t n, size_t features, struct forest_rows *out);
/* sums (n × outputs) += the leaves of its trees, without base and link. The forest's features are as many as the rows'. */
void forest_add(const struct forest *, const struct forest_rows *, float *sums);
