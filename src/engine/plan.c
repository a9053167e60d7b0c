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

enum { NO_ROWS = -1, NO_AXIS = -2 /* the value grows, but not along one axis */ };

/* The axis along which x, of so many rows, becomes y, of twice as many. */
static int rows_axis(const struct value *x, const struct value *y)
{
    int axis = NO_ROWS;
    if (x->shape.rank != y->shape.rank)
        return NO_AXIS;
    for (int i = 0; i < x->shape.rank; i++) {
        if (x->shape.d[i] == y->shape.d[i])
            continue;
        if (axis >= 0 || y->shape.d[i] != 2 * x->shape.d[i])
            return NO_AXIS;
        axis = i;
    }
    return axis;
}

/* Between steps in time, which are ONNX's axis 0 here unless `layout` says another order, rows do not meet. */
static bool recurrent_apart(const struct node *n, const int *axis)
{
    const int batch = attr_i(n, "layout", 0) ? 0 : 1;
    for (int i = 0; i < n->n_in; i++) {
        const bool lengths = i == 4;
        if (n->in[i] >= 0 && axis[n->in[i]] >= 0 && axis[n->in[i]] != (lengths ? 0 : batch))
            return false;
    }
    return n->in[0] >= 0 && axis[n->in[0]] == batch;
}

static int64_t places_before(const struct value *v, int axis)
{
    int64_t n = 1;
    for (int i = 0; i < axis; i++)
        n *= v->shape.d[i];
    return n;
}

/* Rows that lie along another axis than 0, or are to do so, as `to` says: these ops leave each of them to itself. */
static bool elsewhere_apart(const struct graph *g, const struct node *n, const int *axis, int to)
{
    const int first = n->in[0] >= 0 ? axis[n->in[0]] : NO_ROWS, rank = value_at(g, n->out[0])->shape.rank;
    int along = NO_AXIS;
    if (n->op->split != SPLIT_EACH && first < 0)
        return false;
    switch (n->op->id) {
    case OP_Transpose:
    case OP_Squeeze:
    case OP_Unsqueeze:
        return true;
    case OP_Reshape:
        return places_before(value_at(g, n->in[0]), first) == places_before(value_at(g, n->out[0]), to);
    case OP_Gather:
        return axis[n->in[1]] < 0 && !attr_axis(n, "axis", 0, value_at(g, n->in[0])->shape.rank, &along) &&
               along != first;
    case OP_Concat:
        if (attr_axis(n, "axis", 0, rank, &along) || along == to)
            return false;
        break;
    default:
        break;
    }
    for (int i = 0; i < n->n_in && n->op->split == SPLIT_EACH; i++)
        if (n->in[i] >= 0 && axis[n->in[i]] >= 0 &&
            axis[n->in[i]] + rank - value_at(g, n->in[i])->shape.rank != to)
            return false;
    return n->op->split == SPLIT_EACH;
}

/* The output of node n that x and y are, given where its inputs' rows lie. */
static bool output_ok(const struct graph *g, const struct node *n, const struct value *x,
                      const struct value *y, const int *axis, int *out)
{
    bool any = false, elsewhere = false, first = n->n_in > 0 && n->in[0] >= 0 && axis[n->in[0]] == 0;
    for (int i = 0; i < n->n_in; i++) {
        any |= n->in[i] >= 0 && axis[n->in[i]] >= 0;
        elsewhere |= n->in[i] >= 0 && axis[n->in[i]] > 0;
    }
    *out = rows_axis(x, y);
    if (*out == NO_AXIS || !any)
        return *out == NO_ROWS;
    if (n->op->id == OP_LSTM || n->op->id == OP_GRU)
        return *out >= 0 && recurrent_apart(n, axis);
    if (n->op->split == SPLIT_TEAM)
        return !elsewhere && *out <= 0;
    if (elsewhere || *out > 0)
        return *out >= 0 && elsewhere_apart(g, n, axis, *out);
    return *out == 0 && n->op->split != SPLIT_NONE && !along_rows(g, n, first);
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
    int *axis = NEW_N(a, int, from->values.n + 1);
    for (size_t i = 0; i < from->values.n; i++)
        axis[i] = NO_ROWS;
    for (size_t i = 0; i < from->inputs.n; i++) {
        int v = from->inputs.v[i];
        axis[v] = rows_axis(value_at(one, v), value_at(two, v));
        if (axis[v] > 0 || axis[v] == NO_AXIS)
            return NULL;
        split[v] = axis[v] == 0;
    }
    bool sums = false;
    for (size_t i = 0; i < one->nodes.n; i++) {
        const struct node *n = &one->nodes.v[i];
        sums |= sums_rows(n);
        for (int k = 0; k < n->n_out; k++) {
            const int v = n->out[k];
            if (v < 0)
                continue;
            if (!output_ok(one, n, value_at(one, v), value_at(two, v), axis, &axis[v])) {
                out->why = n->op->name;
                return NULL;
            }
            split[v] = axis[v] == 0;
        }
    }
    for (size_t i = 0; i < from->outputs.n; i++)
        if (axis[from->outputs.v[i]] > 0)
            return NULL;
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
