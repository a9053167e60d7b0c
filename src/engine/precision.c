// SPDX-License-Identifier: Apache-2.0
#include "engine/precision.h"

static bool is_half(enum tensor_type t)
{
    return t == TENSOR_BF16 || t == TENSOR_F16;
}

static bool is_float(enum tensor_type t)
{
    return t == TENSOR_F32 || is_half(t);
}

bool precision_of_param(const struct graph *g, const struct node *n)
{
    return n->op->id == OP_Cast && value_at(g, n->in[0])->kind == VALUE_PARAM && n->out[0] >= 0 &&
           is_half(value_at(g, n->out[0])->type);
}

/* How an op takes halves: products ask for them; others follow what they are given on these inputs (bits); the rest of
 * their inputs (scales of norms, masks) and all inputs of an op that is in no list stay F32. */
enum { ASKS = 1, FOLLOWS = 2 };
static const struct half_rule {
    const char *op;
    int how;
    unsigned inputs;
} half_rules[] = {
    { "MatMul", ASKS, 3 },
    { "MatMulT", ASKS, 3 },
    { "Gemm", ASKS, 7 },
    { "Conv", ASKS, 3 },
    { "ConvTranspose", ASKS, 3 },
    { "Attention", ASKS, 7 },
    { "PackedAttention", ASKS, 1 },
    { "SoftmaxCrossEntropy", FOLLOWS, 1 },
    { "Gather", ASKS, 1 },
    { "LSTM", ASKS, 7 },
    { "GRU", ASKS, 7 },
    { "BatchNormalization", FOLLOWS, 1 },
    { "LayerNormalization", FOLLOWS, 1 },
    { "RMSNormalization", FOLLOWS, 1 },
    { "GroupNormalization", FOLLOWS, 1 },
    { "InstanceNormalization", FOLLOWS, 1 },
    { "RotaryEmbedding", FOLLOWS, 1 },
    { "Dropout", FOLLOWS, 1 },
    { "Softmax", FOLLOWS, 1 },
    { "MaxPool", FOLLOWS, 1 },
    { "AveragePool", FOLLOWS, 1 },
    { "GlobalAveragePool", FOLLOWS, 1 },
    { "Resize", FOLLOWS, 1 },
    { "Reshape", FOLLOWS, 1 },
    { "Flatten", FOLLOWS, 1 },
    { "Squeeze", FOLLOWS, 1 },
    { "Unsqueeze", FOLLOWS, 1 },
    { "Transpose", FOLLOWS, 1 },
    { "Split", FOLLOWS, 1 },
    { "Slice", FOLLOWS, 1 },
    { "Pad", FOLLOWS, 1 },
    { "Expand", FOLLOWS, 1 },
    { "Tile", FOLLOWS, 1 },
};

static struct half_rule rule_of(const struct op *op)
{
    for (size_t i = 0; i < sizeof half_rules / sizeof *half_rules; i++)
        if (strcmp(half_rules[i].op, op->name) == 0)
            return half_rules[i];
    return (struct half_rule){ op->name, op->split == SPLIT_EACH && op->id != OP_Cast ? FOLLOWS : 0, ~0u };
}

/* ---- forward ---- */

struct lowering {
    struct graph *g;
    enum tensor_type half;
    int *cast; /* by value: its Cast to the other side; −1: none yet */
    size_t n_cast;
};

/* The value in type `to`; one Cast for all who ask. */
static int cast_to(struct lowering *l, int v, enum tensor_type to)
{
    if (v < 0 || value_at(l->g, v)->type == to || !is_float(value_at(l->g, v)->type))
        return v;
    if ((size_t)v >= l->n_cast)
        return graph_node_with(l->g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = to }), v);
    if (l->cast[v] < 0)
        l->cast[v] = graph_node_with(l->g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = to }), v);
    return l->cast[v];
}

static bool wants_half(const struct lowering *l, const struct node *n, const struct half_rule *r)
{
    if (r->how != FOLLOWS)
        return r->how == ASKS;
    for (int i = 0; i < n->n_in && i < 32; i++)
        if (n->in[i] >= 0 && (r->inputs >> i & 1) && is_half(value_at(l->g, n->in[i])->type))
            return true;
    return false;
}

static bool is_output(const struct graph *g, int v)
{
    for (size_t i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i] == v)
            return true;
    for (size_t i = 0; i < g->updates.n; i++)
        if (g->updates.v[i].from == v)
            return true;
    return false;
}

/* What is read from outside stays F32 under its own id: the node makes a half of another id, and a Cast this one. */
static void outputs_back(struct lowering *l, struct node *n)
{
    struct graph *g = l->g;
    for (int i = 0; i < n->n_out; i++) {
        int v = n->out[i];
        if (v < 0 || !is_half(value_at(g, v)->type) || !is_output(g, v))
            continue;
        struct value half = *value_at(g, v);
        half.name = fmt(g->a, "%.*s_half", STR(half.name));
        push(g->a, &g->values, half);
        int h = n->out[i] = (int)g->values.n - 1;
        struct node cast = {
            .op = &op_table[OP_Cast], .name = fmt(g->a, "%.*s_cast", STR(half.name)), .n_in = 1, .n_out = 1
        };
        int *ids = NEW_N(g->a, int, 2);
        ids[0] = h, ids[1] = v;
        cast.in = &ids[0], cast.out = &ids[1];
        struct attr *to = NEW(g->a, struct attr);
        *to = (struct attr){ .name = "to", .type = ATTR_INT, .i = TENSOR_F32 };
        cast.attrs = to, cast.n_attrs = 1;
        value_at(g, v)->type = TENSOR_F32;
        push(g->a, &g->nodes, cast);
        l->cast[v] = h; /* who wants it in halves takes it before the Cast */
    }
}

err precision_lower(struct graph *g, enum tensor_type half)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = g->nodes.n;
    struct node *old = NEW_N(a, struct node, n + 1);
    struct lowering l = { g, half, NEW_N(a, int, g->values.n + 1), g->values.n };
    memcpy(old, g->nodes.v, n * sizeof *old);
    memset(l.cast, -1, g->values.n * sizeof *l.cast);
    g->nodes.n = 0;
    for (size_t i = 0; i < n; i++) {
        struct half_rule rule = rule_of(old[i].op);
        bool to_half = wants_half(&l, &old[i], &rule);
        for (int k = 0; k < old[i].n_in; k++)
            if (!to_half)
                old[i].in[k] = cast_to(&l, old[i].in[k], TENSOR_F32);
            else if (k < 32 && (rule.inputs >> k & 1))
                old[i].in[k] = cast_to(&l, old[i].in[k], half);
        push(g->a, &g->nodes, old[i]);
        size_t at = g->nodes.n - 1;
        TRY(graph_infer(g, (int)at));
        outputs_back(&l, &g->nodes.v[at]);
        TRY(graph_error(g));
    }
    graph_renumber(g);
    return NULL;
}

/* ---- gradients of parameters ---- */

static const char *const wide_results[] = { "MatMul",     "MatMulT", "Gemm",     "ConvGradW",
                                            "GatherGrad", "SumTo",   "ReduceSum" };

static int uses(const struct graph *g, int v)
{
    int n = 0;
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            n += g->nodes.v[i].in[k] == v;
    return n + is_output(g, v);
}

/* Whether v, a half, can be made in F32 by its node; do: it is. */
static bool widen(struct graph *g, int v, bool set)
{
    int at = value_at(g, v)->node;
    if (at < 0 || uses(g, v) != 1)
        return false;
    struct node *n = &g->nodes.v[at];
    bool can = false;
    if (n->op->id == OP_Add)
        can = widen(g, n->in[0], false) && widen(g, n->in[1], false) &&
              (!set || (widen(g, n->in[0], true) && widen(g, n->in[1], true)));
    for (size_t i = 0; i < sizeof wide_results / sizeof *wide_results && !can; i++)
        can = strcmp(n->op->name, wide_results[i]) == 0;
    if (can && set)
        value_at(g, v)->type = TENSOR_F32;
    return can;
}

void precision_gradients(struct graph *g, int *grads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int at = grads[i] < 0 ? -1 : value_at(g, grads[i])->node;
        if (at < 0 || g->nodes.v[at].op->id != OP_Cast)
            continue;
        int from = g->nodes.v[at].in[0];
        if (is_half(value_at(g, from)->type) && widen(g, from, true))
            grads[i] = from; /* the Cast is left to pruning */
    }
}
