// SPDX-License-Identifier: Apache-2.0
#include "engine/trees.h"
#include "engine/onnx.h"

#include <math.h>

static size_t tree_end(const struct trees *t, size_t tree)
{
    return tree + 1 < t->n_trees ? t->roots[tree + 1] : t->n_nodes;
}

static err node_check(const struct trees *t, size_t i, size_t end, uint8_t *reached)
{
    const struct tree_node *n = &t->nodes[i];
    if (!isfinite(n->value))
        FAIL(INVALID, "node %zu of the trees is not a number", i);
    if (n->feature < 0)
        return NULL;
    if ((size_t)n->feature >= t->features)
        FAIL(INVALID, "node %zu of the trees splits on feature %d of %zu", i, n->feature, t->features);
    if (n->yes <= i || n->no <= i || n->yes >= end || n->no >= end || n->yes == n->no || reached[n->yes] ||
        reached[n->no])
        FAIL(INVALID, "node %zu of the trees has children out of place", i);
    reached[n->yes] = reached[n->no] = 1;
    return NULL;
}

static err shape_check(const struct trees *t)
{
    if (t->n_trees == 0 || t->n_nodes > INT32_MAX || t->features == 0 || t->features > INT32_MAX ||
        !isfinite(t->base))
        FAIL(INVALID, "trees without nodes or features, or too many");
    if (t->outputs > t->n_trees || (t->link == LINK_LOGISTIC && t->outputs > 1))
        FAIL(INVALID, "%zu trees do not give %zu numbers a row", t->n_trees, t->outputs);
    for (size_t tree = 0; tree < t->n_trees; tree++)
        if (t->roots[tree] >= tree_end(t, tree) || tree_end(t, tree) > t->n_nodes)
            FAIL(INVALID, "tree %zu has no place", tree);
    if (t->roots[0] != 0)
        FAIL(INVALID, "the first tree does not start at the first node");
    return NULL;
}

err trees_check(const struct trees *t)
{
    TRY(shape_check(t));
    auto_arena struct arena *a = arena_new(0);
    uint8_t *reached = NEW_N(a, uint8_t, t->n_nodes);
    for (size_t tree = 0; tree < t->n_trees; tree++) {
        size_t end = tree_end(t, tree);
        reached[t->roots[tree]] = 1;
        for (size_t i = t->roots[tree]; i < end; i++) {
            if (!reached[i])
                FAIL(INVALID, "node %zu of the trees cannot be reached", i);
            TRY(node_check(t, i, end, reached));
        }
    }
    return NULL;
}

static float leaf_of(const struct trees *t, uint32_t i, const float *x)
{
    const struct tree_node *n = &t->nodes[i];
    while (n->feature >= 0) {
        float v = x[n->feature];
        bool yes = isnan(v) ? n->missing_yes : v < n->value;
        n = &t->nodes[yes ? n->yes : n->no];
    }
    return n->value;
}

struct str trees_output_name(const struct trees *t)
{
    return t->link == LINK_NONE ? S("value") : S("probability");
}

void trees_softmax(float *scores, size_t n)
{
    float most = scores[0], sum = 0;
    for (size_t i = 1; i < n; i++)
        most = scores[i] > most ? scores[i] : most;
    for (size_t i = 0; i < n; i++)
        sum += scores[i] = expf(scores[i] - most);
    for (size_t i = 0; i < n; i++)
        scores[i] /= sum;
}

void trees_predict(const struct trees *t, const float *x, size_t n, size_t stride, float *out)
{
    const size_t k = trees_outputs(t);
    for (size_t row = 0; row < n; row++, out += k) {
        for (size_t i = 0; i < k; i++)
            out[i] = t->base;
        for (size_t tree = 0; tree < t->n_trees; tree++)
            out[tree % k] += leaf_of(t, t->roots[tree], x + row * stride);
        if (t->link == LINK_LOGISTIC)
            *out = 1.0f / (1.0f + expf(-*out));
        else if (t->link == LINK_SOFTMAX)
            trees_softmax(out, k);
    }
}

/* ---- ONNX ---- */
/* Field numbers of onnx.proto used below:
 * Model 1 ir_version, 2 producer_name, 3 producer_version, 6 doc_string, 7 graph, 8 opset_import, 14 metadata_props;
 * Graph 1 node, 2 name, 11 input, 12 output; Node 1 input, 2 output, 3 name, 4 op_type, 5 attribute, 7 domain;
 * Attribute 1 name, 3 i, 4 s, 7 floats, 8 ints, 9 strings, 20 type (2 int, 3 string, 6 floats, 7 ints, 8 strings). */

static void attribute_ints(struct buf *node, const char *name, const int64_t *v, size_t n)
{
    struct buf b = buf_new(node->a);
    pb_bytes(&b, 1, str_of(name));
    pb_varints(&b, 8, v, n);
    pb_varint(&b, 20, 7);
    pb_bytes(node, 5, buf_get(&b));
}

static void attribute_floats(struct buf *node, const char *name, const float *v, size_t n)
{
    struct buf b = buf_new(node->a);
    pb_bytes(&b, 1, str_of(name));
    pb_floats(&b, 7, v, n);
    pb_varint(&b, 20, 6);
    pb_bytes(node, 5, buf_get(&b));
}

static void attribute_int(struct buf *node, const char *name, int64_t v)
{
    struct buf b = buf_new(node->a);
    pb_bytes(&b, 1, str_of(name));
    pb_varint(&b, 3, v);
    pb_varint(&b, 20, 2);
    pb_bytes(node, 5, buf_get(&b));
}

static void attribute_text(struct buf *node, const char *name, struct str v)
{
    struct buf b = buf_new(node->a);
    pb_bytes(&b, 1, str_of(name));
    pb_bytes(&b, 4, v);
    pb_varint(&b, 20, 3);
    pb_bytes(node, 5, buf_get(&b));
}

static void attribute_modes(struct buf *node, const struct trees *t)
{
    struct buf b = buf_new(node->a);
    pb_bytes(&b, 1, S("nodes_modes"));
    for (size_t i = 0; i < t->n_nodes; i++)
        pb_bytes(&b, 9, t->nodes[i].feature < 0 ? S("LEAF") : S("BRANCH_LT"));
    pb_varint(&b, 20, 8);
    pb_bytes(node, 5, buf_get(&b));
}

/* One int of each node: what the lists nodes_* hold. */
enum node_int { NODE_TREE, NODE_TARGET, NODE_ID, NODE_FEATURE, NODE_YES, NODE_NO, NODE_MISSING };

static int64_t node_int(const struct trees *t, size_t tree, size_t i, enum node_int which)
{
    const struct tree_node *n = &t->nodes[i];
    bool split = n->feature >= 0;
    switch (which) {
    case NODE_TREE:
        return (int64_t)tree;
    case NODE_TARGET:
        return (int64_t)(tree % trees_outputs(t));
    case NODE_ID:
        return (int64_t)(i - t->roots[tree]);
    case NODE_FEATURE:
        return split ? n->feature : 0;
    case NODE_YES:
        return split ? (int64_t)n->yes - t->roots[tree] : 0;
    case NODE_NO:
        return split ? (int64_t)n->no - t->roots[tree] : 0;
    default:
        return split && n->missing_yes;
    }
}

/* That int of all nodes, or of the leaves alone, into v; how many. */
static size_t node_ints(const struct trees *t, enum node_int which, bool leaves, int64_t *v)
{
    size_t n = 0;
    for (size_t tree = 0; tree < t->n_trees; tree++)
        for (size_t i = t->roots[tree]; i < tree_end(t, tree); i++)
            if (!leaves || t->nodes[i].feature < 0)
                v[n++] = node_int(t, tree, i, which);
    return n;
}

static size_t node_values(const struct trees *t, bool leaves, float *v)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n_nodes; i++) {
        bool leaf = t->nodes[i].feature < 0;
        if (!leaves || leaf)
            v[n++] = leaves || !leaf ? t->nodes[i].value : 0;
    }
    return n;
}

static void attributes_of_nodes(struct buf *node, const struct trees *t)
{
    static const struct {
        const char *name;
        enum node_int which;
        bool leaves;
    } lists[] = {
        { "nodes_treeids", NODE_TREE, false },
        { "nodes_nodeids", NODE_ID, false },
        { "nodes_featureids", NODE_FEATURE, false },
        { "nodes_truenodeids", NODE_YES, false },
        { "nodes_falsenodeids", NODE_NO, false },
        { "nodes_missing_value_tracks_true", NODE_MISSING, false },
        { "target_treeids", NODE_TREE, true },
        { "target_nodeids", NODE_ID, true },
        { "target_ids", NODE_TARGET, true },
    };
    int64_t *ints = NEW_N(node->a, int64_t, t->n_nodes);
    float *floats = NEW_N(node->a, float, t->n_nodes);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        attribute_ints(node, lists[i].name, ints, node_ints(t, lists[i].which, lists[i].leaves, ints));
    attribute_modes(node, t);
    attribute_floats(node, "nodes_values", floats, node_values(t, false, floats));
    size_t leaves = node_values(t, true, floats);
    attribute_floats(node, "target_weights", floats, leaves);
}

static struct str trees_node(struct arena *a, const struct trees *t, struct str output)
{
    struct buf b = buf_new(a);
    size_t outputs = trees_outputs(t);
    float *base = NEW_N(a, float, outputs);
    for (size_t i = 0; i < outputs; i++)
        base[i] = t->base;
    pb_bytes(&b, 1, S("features"));
    pb_bytes(&b, 2, output);
    pb_bytes(&b, 3, S("trees"));
    pb_bytes(&b, 4, S("TreeEnsembleRegressor"));
    attribute_int(&b, "n_targets", (int64_t)outputs);
    attribute_text(&b, "aggregate_function", S("SUM"));
    attribute_text(&b, "post_transform", S("NONE"));
    attribute_floats(&b, "base_values", base, outputs);
    attributes_of_nodes(&b, t);
    pb_bytes(&b, 7, S("ai.onnx.ml"));
    return buf_get(&b);
}

/* Sigmoid, or Softmax over the last axis, which is its default. */
static struct str link_node(struct arena *a, const struct trees *t)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, S("score"));
    pb_bytes(&b, 2, trees_output_name(t));
    pb_bytes(&b, 3, S("link"));
    pb_bytes(&b, 4, t->link == LINK_LOGISTIC ? S("Sigmoid") : S("Softmax"));
    return buf_get(&b);
}

/* A float tensor [N, columns]. */
static struct str value_info(struct arena *a, struct str name, size_t columns)
{
    struct buf open = buf_new(a), fixed = buf_new(a), shape = buf_new(a), tensor = buf_new(a),
               type = buf_new(a);
    struct buf value = buf_new(a);
    pb_bytes(&open, 2, S("N"));
    pb_varint(&fixed, 1, (int64_t)columns);
    pb_bytes(&shape, 1, buf_get(&open));
    pb_bytes(&shape, 1, buf_get(&fixed));
    pb_varint(&tensor, 1, TENSOR_F32);
    pb_bytes(&tensor, 2, buf_get(&shape));
    pb_bytes(&type, 1, buf_get(&tensor));
    pb_bytes(&value, 1, name);
    pb_bytes(&value, 2, buf_get(&type));
    return buf_get(&value);
}

static struct str graph_bytes(const struct trees *t, struct arena *a)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, trees_node(a, t, t->link == LINK_NONE ? trees_output_name(t) : S("score")));
    if (t->link != LINK_NONE)
        pb_bytes(&b, 1, link_node(a, t));
    pb_bytes(&b, 2, S("trees"));
    pb_bytes(&b, 11, value_info(a, S("features"), t->features));
    pb_bytes(&b, 12, value_info(a, trees_output_name(t), trees_outputs(t)));
    return buf_get(&b);
}

static void opset(struct buf *model, struct str domain, int64_t version)
{
    struct buf b = buf_new(model->a);
    pb_bytes(&b, 1, domain);
    pb_varint(&b, 2, version);
    pb_bytes(model, 8, buf_get(&b));
}

static void names_put(struct buf *model, struct str key, const struct str *names, size_t n)
{
    struct json j = json_new(model->a);
    json_arr(&j);
    for (size_t i = 0; i < n; i++)
        json_str(&j, names[i]);
    json_arr_end(&j);
    struct buf b = buf_new(model->a);
    pb_bytes(&b, 1, key);
    pb_bytes(&b, 2, json_get(&j));
    pb_bytes(model, 14, buf_get(&b));
}

err trees_to_onnx(const struct trees *t, struct arena *a, const struct trees_doc *doc, struct str *out)
{
    TRY(trees_check(t));
    auto_arena struct arena *scratch = arena_new(0);
    struct buf b = buf_new(scratch);
    pb_varint(&b, 1, 8);
    pb_bytes(&b, 2, S("dhow"));
    if (doc->producer_version.n > 0)
        pb_bytes(&b, 3, doc->producer_version);
    if (doc->doc.n > 0)
        pb_bytes(&b, 6, doc->doc);
    pb_bytes(&b, 7, graph_bytes(t, scratch));
    opset(&b, S(""), 13);
    opset(&b, S("ai.onnx.ml"), 3);
    if (doc->features)
        names_put(&b, S("dhow.features"), doc->features, t->features);
    if (doc->classes)
        names_put(&b, S("dhow.classes"), doc->classes, trees_outputs(t));
    *out = str_dup(a, buf_get(&b));
    return NULL;
}
