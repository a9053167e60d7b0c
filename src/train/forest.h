/* forest: trees laid out for walking without a branch. A processor loses most of its time in trees on branches that it guesses
 * wrongly. Here a step has none: children lie side by side, a comparison is the offset, a leaf steps onto itself, and eight
 * walks go on at a time so that their loads overlap. Leaves are added in the order of trees: the same bits as trees_predict().
 * Owns     nothing of the trees it was made of; its memory is the arena's.
 * Threads  a forest is only read. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

struct forest_step {
    float value;      /* NaN in a leaf: no comparison is true */
    uint32_t feature; /* × 2, and 1 where a missing value goes to the first child */
    uint32_t first;   /* child, the second lies behind it; of a leaf, its own place − 1 */
    float leaf;
};
struct forest {
    const struct forest_step *steps;
    const uint32_t *roots, *depths; /* of each tree */
    size_t trees, features, outputs;
    float base;
    enum trees_link link;
};

/* Of trees that trees_check() takes. */
void forest_make(struct arena *a, const struct trees *, struct forest *out);
uint32_t forest_depth(const struct forest *); /* of the deepest tree */

/* x: n rows of `features` floats, row-major, NaN for null; out, sums: n × outputs.
 * What trees_predict() gives; eight trees at a time, so that a single row is quick. */
void forest_predict(const struct forest *, const float *x, size_t n, float *out);
/* sums += the leaves of its trees, without base and link; eight rows at a time, so that a single tree is quick. */
void forest_add(const struct forest *, const float *x, size_t n, float *sums);
/* What the link makes of sums; out may be sums. */
void forest_link(const struct forest *, const float *sums, size_t n, float *out);
