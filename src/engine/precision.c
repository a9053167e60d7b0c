// SPDX-License-Identifier: Apache-2.0
#include "engine/precision.h"

static bool is_half(enum tensor_type t)
{
    return t == TENSOR_BF16 || t == TENSOR_F16;
}

bool precision_of_param(const struct graph *g, const struct node *n)
{
    return n->op->id == OP_Cast && value_at(g, n->in[0])->kind == VALUE_PARAM && n->out[0] >= 0 &&
           is_half(value_at(g, n->out[0])->type);
}

/* Which inputs of an op are given in halves (bit i); the others stay as they are. 0: the op works in F32. */
static unsigned half_inputs(const struct op *op)
{
    switch (op->id) {
    case OP_SumTo:
        return 0;
    default:
        return op->split == SPLIT_EACH ? ~0u : 0;
    }
}

/* The value in type `to`; one Cast for all who ask. cast: by value, what it became. */
static int cast_to(struct graph *g, int v, enum tensor_type to, int *cast)
{
    if (v < 0 || value_at(g, v)->type == to)
        return v;
    if (cast[v] < 0)
        cast[v] = graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = to }), v);
    return cast[v];
}

err precision_lower(struct graph *g, enum tensor_type half)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n_nodes = g->nodes.n, n_values = g->values.n;
    struct node *old = NEW_N(a, struct node, n_nodes + 1);
    memcpy(old, g->nodes.v, n_nodes * sizeof *old);
    int *cast = NEW_N(a, int, n_values * 2 + 1);
    memset(cast, -1, (n_values * 2 + 1) * sizeof *cast);
    (void)old, (void)half;
    (void)half_inputs;
    (void)cast_to;
    return NULL;
}

void precision_gradients(struct graph *g, int *grads, size_t n)
{
    (void)g, (void)grads, (void)n;
}
