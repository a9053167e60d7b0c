/* trees: an ensemble of binary decision trees over float features, and its ONNX form.
 * Rule of a split: x < threshold (both float32) goes to yes; NaN goes to yes if missing_yes, else to no.
 * Score    base + the sum of one leaf of each tree, summed in float32 in order of the trees; LINK_LOGISTIC
 *          turns it into a probability 1 / (1 + exp(−score)). Where a row has several scores, tree i adds to number
 *          i mod outputs; LINK_SOFTMAX makes probabilities of them, exp(score − greatest) / their sum.
 * XGBoost's hist splits are the same rule; its base_score of two classes is a probability and enters here as its logit. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

struct tree_node {
    int32_t feature;  /* -1: a leaf */
    float value;      /* threshold, or the leaf's score */
    uint32_t yes, no; /* places in trees.nodes, both behind this node */
    bool missing_yes;
};
enum trees_link { LINK_NONE, LINK_LOGISTIC, LINK_SOFTMAX };
struct trees {
    size_t features; /* columns of a row */
    size_t outputs;  /* scores of a row; 0: one */
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
static inline size_t trees_outputs(const struct trees *t)
{
    return t->outputs > 1 ? t->outputs : 1;
}
/* What a row is given is named after what it is: "probability", or "value" without a link. */
struct str trees_output_name(const struct trees *);
/* Scores → what LINK_SOFTMAX makes of them, in place; for every way of walking. */
void trees_softmax(float *scores, size_t n);
/* The scores of each of n rows (row-major, stride floats apart) by walking; the reference for every other way. */
void trees_predict(const struct trees *, const float *x, size_t n, size_t stride, float *out);

struct trees_doc {
    struct str producer_version, doc; /* of the file; may be empty */
    const struct str
        *features; /* trees.features names, kept as metadata "dhow.features" (JSON); may be NULL */
    const struct str *classes; /* trees.outputs names, as "dhow.classes"; may be NULL */
};
/* ONNX bytes: input "features" float [N, features], output trees_output_name() float [N, outputs]; TreeEnsembleRegressor
 * (ai.onnx.ml 3), then Sigmoid or Softmax (ai.onnx 13); IR version 8. */
err trees_to_onnx(const struct trees *, struct arena *a, const struct trees_doc *, struct str *out);
