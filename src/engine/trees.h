/* trees: an ensemble of binary decision trees over float features, and its ONNX form.
 * Rule of a split: x < threshold (both float32) goes to yes; NaN goes to yes if missing_yes, else to no.
 * Score    base + the sum of one leaf of each tree, summed in float32 in order of the trees; LINK_LOGISTIC
 *          turns it into a probability 1 / (1 + exp(−score)).
 * XGBoost's hist splits are the same rule; its base_score is a probability and enters here as its logit. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

struct tree_node {
    int32_t feature;  /* -1: a leaf */
    float value;      /* threshold, or the leaf's score */
    uint32_t yes, no; /* places in trees.nodes, both behind this node */
    bool missing_yes;
};
enum trees_link { LINK_NONE, LINK_LOGISTIC };
struct trees {
    size_t features; /* columns of a row */
    float base;      /* added to every score */
    enum trees_link link;
    struct tree_node *nodes; /* all trees, one after the other, each in preorder or breadth-first */
    size_t n_nodes;
    uint32_t *roots; /* place of each tree's first node, ascending */
    size_t n_trees;
};
/* INVALID unless every child lies behind its parent inside its tree, is reached once, features are in range
 * and numbers are finite. */
err trees_check(const struct trees *);
/* The score of each of n rows (row-major, stride floats apart) by walking; the reference for every other way. */
void trees_predict(const struct trees *, const float *x, size_t n, size_t stride, float *out);

struct trees_doc {
    struct str producer_version, doc; /* of the file; may be empty */
    const struct str
        *features; /* trees.features names, kept as metadata "dhow.features" (JSON); may be NULL */
};
/* ONNX bytes: input "features" float [N, features], output "probability" float [N, 1] ("score" without a
 * link); TreeEnsembleRegressor (ai.onnx.ml 3), then Sigmoid (ai.onnx 13); IR version 8. */
err trees_to_onnx(const struct trees *, struct arena *a, const struct trees_doc *, struct str *out);
