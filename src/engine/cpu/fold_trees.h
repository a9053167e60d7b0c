/* fold_trees: the kernel of engine/forest's folds, for each instruction set. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/simd.h"
#include "engine/forest.h"

struct fold_trees {
    /* A block through all trees of a forest that has folds: the sums of its first n rows grow. missing: a NaN may be in it. */
    void (*add)(const struct forest *, const float *block, bool missing, size_t n, float *sums);
    uint32_t deepest; /* tree that it is quicker for than steps */
};
SIMD_DECLARE(struct fold_trees, fold_trees);
