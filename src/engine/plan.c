// SPDX-License-Identifier: Apache-2.0
#include "engine/plan.h"

#include <stdlib.h>

/* ---- rows ---- */

/* ONNX's ops that work along axis 0 if no attribute says another one. */
static bool axis_is_0_by_default(const struct op *op)
{
    static const char *const names[] = { "ArgMax",         "ArgMin",          "Compress", "Gather",
                                         "GatherElements", "ScatterElements", "Split" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(op->name, names[i]) == 0)
            return true;
    return false;
}

/* An op that is fed rows on input 0 and works along axis 0 mixes them. */
static bool along_rows(const struct graph *g, const struct node *n, bool first_split)
{
    if (first_split && shape_mixes_rows(g, n))
        return true;
    int axis, rank = n->n_in > 0 && n->in[0] >= 0 ? value_at(g, n->in[0])->shape.rank : 0;
    if (!first_split || !attr_find(n, "axis"))
        return first_split && axis_is_0_by_default(n->op);
    return !attr_axis(n, "axis", 0, rank, &axis) && axis == 0;
}

static bool grows(const struct value *x, const struct value *y)
{
    if (x->shape.rank < 1 || x->shape.rank != y->shape.rank || y->shape.d[0] != 2 * x->shape.d[0])
        return false;
    for (int i = 1; i < x->shape.rank; i++)
        if (x->shape.d[i] != y->shape.d[i])
            return false;
    return true;
}

/* The output i of node n, given which of its inputs are cut. */
static bool output_ok(const struct graph *g, const struct node *n, const struct value *x,
                      const struct value *y, const bool *split, bool *out)
{
    bool any = false, first = n->n_in > 0 && n->in[0] >= 0 && split[n->in[0]];
    for (int i = 0; i < n->n_in; i++)
        any |= n->in[i] >= 0 && split[n->in[i]];
    if (!any) {
        *out = false;
        return shape_same(&x->shape, &y->shape);
    }
    *out = grows(x, y);
    if (n->op->split == SPLIT_TEAM)
        return *out || shape_same(&x->shape, &y->shape);
    return *out && n->op->split != SPLIT_NONE && !along_rows(g, n, first);
}

/* A kernel that sums over the batch, and at inference as well. */
static bool sums_rows(const struct node *n)
{
    return n->op->split == SPLIT_TEAM &&
           (n->op->id != OP_BatchNormalization || attr_i(n, "training_mode", 0));
}

static bool all_split(const int *v, size_t n, const bool *split)
{
    for (size_t i = 0; i < n; i++)
        if (!split[v[i]])
            return false;
    return true;
}

err plan_rows(const struct graph *from, struct arena *a, const int64_t *sizes, int batch,
              struct rows_plan *out)
{
    struct graph *one, *two;
    *out = (struct rows_plan){ .split = NEW_N(a, bool, from->values.n + 1), .why = "batch" };
    if (batch < 0)
        return NULL;
    int64_t *more = NEW_N(a, int64_t, from->symbols.n + 1);
    memcpy(more, sizes, from->symbols.n * sizeof *more);
    more[batch] = 2 * sizes[batch];
    TRY(graph_bind(from, a, sizes, &one));
    if (graph_bind(from, a, more, &two) || one->nodes.n != two->nodes.n)
        return NULL; /* a size is written into the graph: it takes this one only */
    bool *split = out->split;
    for (size_t i = 0; i < from->inputs.n; i++) {
        int v = from->inputs.v[i];
        split[v] = grows(value_at(one, v), value_at(two, v));
        if (!split[v] && !shape_same(&value_at(one, v)->shape, &value_at(two, v)->shape))
            return NULL;
    }
    bool sums = false;
    for (size_t i = 0; i < one->nodes.n; i++) {
        const struct node *n = &one->nodes.v[i];
        sums |= sums_rows(n);
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] >= 0 && !output_ok(one, n, value_at(one, n->out[k]), value_at(two, n->out[k]),
                                             split, &split[n->out[k]])) {
                out->why = n->op->name;
                return NULL;
            }
    }
    out->ranks_ok = true;
    out->apart = !sums && all_split(from->inputs.v, from->inputs.n, split) &&
                 all_split(from->outputs.v, from->outputs.n, split);
    out->why = NULL;
    return NULL;
}

/* ---- memory ---- */

enum { ALIGN = 64 };
struct life {
    int root, first, last; /* nodes */
    size_t bytes, offset;
};

static size_t value_bytes(const struct value *v)
{
    return ((size_t)shape_count(&v->shape) * tensor_size(v->type) + ALIGN - 1) / ALIGN * ALIGN;
}

static int larger_first(const void *x, const void *y)
{
    const struct life *a = x, *b = y;
    if (a->bytes != b->bytes)
        return a->bytes > b->bytes ? -1 : 1;
    return a->first != b->first ? (a->first > b->first) - (a->first < b->first)
                                : (a->root > b->root) - (a->root < b->root);
}

static int by_offset(const void *x, const void *y)
{
    const struct life *a = *(struct life *const *)x, *b = *(struct life *const *)y;
    return (a->offset > b->offset) - (a->offset < b->offset);
}

/* The lowest gap among those placed before that live at the same time. */
static void place_one(struct life *l, struct life *v, size_t n, struct life **busy)
{
    size_t n_busy = 0, at = 0;
    for (size_t i = 0; i < n; i++)
        if (v[i].first <= l->last && l->first <= v[i].last)
            busy[n_busy++] = &v[i];
    qsort(busy, n_busy, sizeof *busy, by_offset);
    for (size_t i = 0; i < n_busy; i++) {
        if (at + l->bytes <= busy[i]->offset)
            break;
        if (busy[i]->offset + busy[i]->bytes > at)
            at = busy[i]->offset + busy[i]->bytes;
    }
    l->offset = at;
}

static int root_of(const struct memory_plan *m, int v)
{
    while (m->at[v].root != v)
        v = m->at[v].root;
    return v;
}

/* Output 0 of node at takes the place of an input: a view always, else one that dies here. */
static void share_place(const struct graph *g, const struct device_ops *device, int at, const int *last,
                        struct memory_plan *m)
{
    const struct node *n = &g->nodes.v[at];
    int out = n->n_out > 0 ? n->out[0] : -1;
    if (out < 0)
        return;
    bool view = device->view(n->op);
    if (m->at[out].home == HOME_FIXED && !view)
        return;
    unsigned may = view ? 1 : device->in_place(g, n);
    for (int i = 0; i < n->n_in && i < 32; i++) {
        int in = n->in[i];
        if (in < 0 || !(may >> i & 1))
            continue;
        int root = root_of(m, in);
        if (view ? m->at[out].home == HOME_FIXED : m->at[root].home == HOME_FIXED || last[root] > at)
            continue;
        if (value_bytes(value_at(g, root)) != value_bytes(value_at(g, out)))
            continue;
        m->at[out].root = root;
        m->at[out].home = m->at[root].home;
        return;
    }
}

err plan_memory(const struct graph *g, const struct device_ops *device, struct arena *a, const bool *fixed,
                struct memory_plan *out)
{
    struct memory_plan m = { .at = NEW_N(a, struct place, g->values.n + 1) };
    auto_arena struct arena *scratch = arena_new(0);
    int *last = NEW_N(scratch, int, g->values.n + 1), *first = NEW_N(scratch, int, g->values.n + 1);
    for (size_t i = 0; i < g->values.n; i++) {
        m.at[i] = (struct place){ fixed[i] ? HOME_FIXED : HOME_ARENA, (int)i, 0 };
        last[i] = -1;
    }
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            if (g->nodes.v[i].in[k] >= 0)
                last[g->nodes.v[i].in[k]] = (int)i;
    /* Views first lengthen the life of what they look at; `last` of a root is that of all who share it. */
    for (size_t i = g->nodes.n; i-- > 0;) {
        const struct node *n = &g->nodes.v[i];
        if (!device->view(n->op) || n->out[0] < 0 || n->in[0] < 0 || m.at[n->out[0]].home == HOME_FIXED)
            continue;
        if (last[n->out[0]] > last[n->in[0]])
            last[n->in[0]] = last[n->out[0]];
    }
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] >= 0) {
                first[n->out[k]] = (int)i;
                if (last[n->out[k]] < (int)i)
                    last[n->out[k]] = (int)i;
            }
        share_place(g, device, (int)i, last, &m);
        if (n->n_out > 0 && n->out[0] >= 0) {
            int root = root_of(&m, n->out[0]);
            if (last[n->out[0]] > last[root])
                last[root] = last[n->out[0]];
        }
    }
    struct life *lives = NEW_N(scratch, struct life, g->values.n + 1),
                **busy = NEW_N(scratch, struct life *, g->values.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_out; k++) {
            int v = g->nodes.v[i].out[k];
            if (v >= 0 && m.at[v].home == HOME_ARENA && m.at[v].root == v)
                lives[n++] = (struct life){ v, first[v], last[v], value_bytes(value_at(g, v)), 0 };
        }
    qsort(lives, n, sizeof *lives, larger_first);
    for (size_t i = 0; i < n; i++) {
        place_one(&lives[i], lives, i, busy);
        m.at[lives[i].root].offset = lives[i].offset;
        if (lives[i].offset + lives[i].bytes > m.bytes)
            m.bytes = lives[i].offset + lives[i].bytes;
    }
    for (size_t i = 0; i < g->values.n; i++) {
        m.at[i].root = root_of(&m, (int)i);
        m.at[i].offset = m.at[m.at[i].root].offset;
        m.at[i].home = m.at[m.at[i].root].home;
    }
    *out = m;
    return NULL;
}
