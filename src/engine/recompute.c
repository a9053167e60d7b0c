// SPDX-License-Identifier: Apache-2.0
#include "engine/recompute.h"

struct redo {
    struct graph *g;
    struct arena *a; /* of the pass */
    bool cheap;      /* only what costs next to nothing is computed again, each node by itself */
    const struct node *old;
    size_t n_forward, n;
    int *segment; /* by forward node */
    bool *kept;   /* by value */
    bool *wanted; /* by forward node: its outputs are to be computed again */
    int *again;   /* by value: its copy; −1: none */
    bool *done;   /* by segment */
};

/* Segments of equal bytes of activations. */
static void segments_cut(struct redo *r, int segments)
{
    double all = 0, sum = 0;
    double *bytes = NEW_N(r->a, double, r->n_forward + 1);
    for (size_t i = 0; i < r->n_forward; i++) {
        for (int k = 0; k < r->old[i].n_out; k++)
            if (r->old[i].out[k] >= 0) {
                const struct value *v = value_at(r->g, r->old[i].out[k]);
                bytes[i] += (double)shape_count(&v->shape) * (double)tensor_size(v->type);
            }
        all += bytes[i];
    }
    for (size_t i = 0; i < r->n_forward; i++) {
        r->segment[i] = all > 0 ? (int)(sum / all * segments) : 0;
        if (r->segment[i] >= segments)
            r->segment[i] = segments - 1;
        sum += bytes[i];
    }
}

/* One pass over memory, and the gradient wants its input anyway. */
static bool is_cheap(const struct node *n)
{
    return n->op->id == OP_Gelu || n->op->id == OP_LayerNormalization;
}

/* Of two such in a row the first is, so that one is never computed again for another's sake. */
static void cheap_drop(struct redo *r)
{
    for (size_t i = 0; i < r->n_forward; i++) {
        const struct node *n = &r->old[i];
        bool all_kept = is_cheap(n);
        for (int k = 0; k < n->n_in; k++)
            all_kept = all_kept && (n->in[k] < 0 || r->kept[n->in[k]]);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] >= 0)
                r->kept[n->out[k]] = !all_kept;
    }
}

static void keep(struct redo *r)
{
    const struct graph *g = r->g;
    for (size_t i = 0; i < g->values.n; i++)
        r->kept[i] = g->values.v[i].node < 0 || (size_t)g->values.v[i].node >= r->n_forward;
    if (r->cheap)
        cheap_drop(r);
    for (size_t i = 0; i < r->n_forward && !r->cheap; i++)
        for (int k = 0; k < r->old[i].n_in; k++) {
            int v = r->old[i].in[k];
            if (v >= 0 && !r->kept[v] && r->segment[g->values.v[v].node] != r->segment[i])
                r->kept[v] = true;
        }
    for (size_t i = 0; i < g->outputs.n; i++)
        r->kept[g->outputs.v[i]] = true;
    for (size_t i = 0; i < g->updates.n; i++)
        r->kept[g->updates.v[i].from] = true;
}

/* What the gradients read, and what that needs, within its segment. */
static void want(struct redo *r)
{
    for (size_t i = r->n; i-- > 0;) {
        if (i < r->n_forward && !r->wanted[i])
            continue;
        for (int k = 0; k < r->old[i].n_in; k++) {
            int v = r->old[i].in[k];
            if (v >= 0 && !r->kept[v])
                r->wanted[r->g->values.v[v].node] = true;
        }
    }
}

static int *ids_again(struct redo *r, const int *ids, int n)
{
    int *to = NEW_N(r->g->a, int, n + 1);
    for (int i = 0; i < n; i++)
        to[i] = ids[i] >= 0 && r->again[ids[i]] >= 0 ? r->again[ids[i]] : ids[i];
    return to;
}

static void segment_again(struct redo *r, int segment)
{
    struct graph *g = r->g;
    r->done[segment] = true;
    for (size_t i = 0; i < r->n_forward; i++) {
        if (r->segment[i] != segment || !r->wanted[i])
            continue;
        struct node n = r->old[i];
        n.name = fmt(g->a, "%.*s_again", STR(n.name));
        n.in = ids_again(r, n.in, n.n_in);
        int *out = NEW_N(g->a, int, n.n_out + 1);
        for (int k = 0; k < n.n_out; k++) {
            out[k] = n.out[k];
            if (n.out[k] < 0 || r->kept[n.out[k]]) {
                out[k] = -1; /* it is there still; a kernel leaves out what nobody takes */
                if (n.out[k] < 0 || k > 0)
                    continue;
            }
            struct value v = *value_at(g, n.out[k]);
            v.name = fmt(g->a, "%.*s_again", STR(v.name));
            push(g->a, &g->values, v);
            out[k] = (int)g->values.n - 1;
            if (!r->kept[n.out[k]])
                r->again[n.out[k]] = out[k];
        }
        n.out = out;
        push(g->a, &g->nodes, n);
    }
}

err graph_recompute(struct graph *g, size_t n_forward, int segments)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = g->nodes.n, n_values = g->values.n;
    struct node *old = NEW_N(a, struct node, n + 1);
    memcpy(old, g->nodes.v, n * sizeof *old);
    struct redo r = { .g = g, .a = a, .cheap = segments < 2, .old = old, .n_forward = n_forward, .n = n };
    r.segment = NEW_N(a, int, n_forward + 1);
    r.kept = NEW_N(a, bool, g->values.n + 1);
    r.wanted = NEW_N(a, bool, n_forward + 1);
    r.again = NEW_N(a, int, g->values.n + 1);
    r.done = NEW_N(a, bool, (r.cheap ? n_forward : (size_t)segments) + 1);
    memset(r.again, -1, g->values.n * sizeof *r.again);
    if (r.cheap)
        for (size_t i = 0; i < n_forward; i++)
            r.segment[i] = (int)i;
    else
        segments_cut(&r, segments);
    keep(&r);
    want(&r);
    g->nodes.n = n_forward;
    for (size_t i = n_forward; i < n; i++) {
        for (int k = 0; k < old[i].n_in; k++) {
            int v = old[i].in[k];
            if (v >= 0 && (size_t)v < n_values && !r.kept[v] && !r.done[r.segment[value_at(g, v)->node]])
                segment_again(&r, r.segment[value_at(g, v)->node]);
        }
        old[i].in = ids_again(&r, old[i].in, old[i].n_in);
        push(g->a, &g->nodes, old[i]);
    }
    graph_renumber(g);
    return graph_error(g);
}
