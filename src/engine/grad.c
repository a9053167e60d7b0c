// SPDX-License-Identifier: Apache-2.0
#include "engine/grad.h"

static bool differentiable(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_BF16 || t == TENSOR_F16;
}

/* Values whose gradient is wanted: those of wrt, and what depends on them. */
static bool *needed(const struct graph *g, struct arena *a, const int *wrt, size_t n)
{
    bool *need = NEW_N(a, bool, g->values.n + 1);
    for (size_t i = 0; i < n; i++)
        need[wrt[i]] = true;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *node = &g->nodes.v[i];
        bool any = false;
        for (int k = 0; k < node->n_in; k++)
            any |= node->in[k] >= 0 && need[node->in[k]];
        for (int k = 0; k < node->n_out && any; k++)
            if (node->out[k] >= 0 && differentiable(value_at(g, node->out[k])->type))
                need[node->out[k]] = true;
    }
    return need;
}

static err one(struct graph *g, int at, bool *need, int *grad)
{
    auto_arena struct arena *a = arena_new(0);
    struct grad r = { .g = g, .n = g->nodes.v[at] };
    int *dy = NEW_N(a, int, r.n.n_out + 1);
    bool *wanted = NEW_N(a, bool, r.n.n_in + 1), flows = false, any = false;
    r.dx = NEW_N(a, int, r.n.n_in + 1);
    for (int i = 0; i < r.n.n_out; i++) {
        dy[i] = r.n.out[i] >= 0 ? grad[r.n.out[i]] : -1;
        flows |= dy[i] >= 0;
    }
    for (int i = 0; i < r.n.n_in; i++) {
        r.dx[i] = -1;
        wanted[i] = r.n.in[i] >= 0 && need[r.n.in[i]];
        any |= wanted[i];
    }
    if (!flows || !any)
        return NULL;
    r.dy = dy;
    r.need = wanted;
    if (!r.n.op->grad)
        FAIL(UNSUPPORTED, "no gradient passes %s '%.*s'", r.n.op->name, STR(r.n.name));
    TRY(r.n.op->grad(&r));
    TRY(graph_error(g));
    for (int i = 0; i < r.n.n_in; i++) {
        int v = r.n.in[i];
        if (!wanted[i] || r.dx[i] < 0)
            continue;
        if (!shape_same(&value_at(g, v)->shape, &value_at(g, r.dx[i])->shape))
            FAIL(INTERNAL, "the gradient of %s '%.*s' for input %d has another shape than the input",
                 r.n.op->name, STR(r.n.name), i);
        if (value_at(g, v)->type != value_at(g, r.dx[i])->type) /* a float bias beside inputs in halves */
            r.dx[i] = graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = value_at(g, v)->type }),
                                      r.dx[i]);
        grad[v] = grad[v] < 0 ? r.dx[i] : graph_node(g, OP_Add, grad[v], r.dx[i]);
    }
    return graph_error(g);
}

err grad_build(struct graph *g, int loss, const int *wrt, size_t n, int *grads, int *seed)
{
    auto_arena struct arena *a = arena_new(0);
    if (shape_count(&value_at(g, loss)->shape) != 1)
        FAIL(INVALID, "the loss '%.*s' is no scalar", STR(value_at(g, loss)->name));
    bool *need = needed(g, a, wrt, n);
    size_t values = g->values.n, nodes = g->nodes.n;
    int *grad = NEW_N(a, int, values + 1);
    memset(grad, -1, values * sizeof *grad);
    struct value open = *value_at(g, loss);
    open.name = S("gradient of the loss");
    open.kind = VALUE_INPUT;
    open.node = -1;
    open.data = NULL;
    push(g->a, &g->values, open);
    *seed = grad[loss] = (int)g->values.n - 1;
    for (size_t i = nodes; i-- > 0;)
        TRY(one(g, (int)i, need, grad));
    for (size_t i = 0; i < n; i++)
        grads[i] = grad[wrt[i]];
    return graph_error(g);
}
