// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/fuse.h"
#include "engine/cpu/elements.h"

#include <stdlib.h>

/* More inputs than this leave too little of the cache to each. */
enum { GROUP_INPUTS_MAX = 12, GROUP_NODES_MAX = 32 };

struct fusing {
    struct graph *g;
    struct arena *a;
    int *group;     /* by node: the root of its group; −1: none */
    bool *read;     /* by value: from outside of the graph */
    int **users;    /* by value: nodes that take it, ended by −1 */
    bool *possible; /* by node */
};
struct group {
    int root, n;
    int nodes[GROUP_NODES_MAX];
};

static bool float_type(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_BF16 || t == TENSOR_F16;
}

/* Element-wise, of floats, and no copy of a parameter's (those are kept by the optimiser). */
static bool can_fuse(const struct graph *g, const struct node *n)
{
    int16_t in[ELEMENTS_INPUTS] = { 0 }, result;
    if (n->op->id == OP_Fused || n->n_out != 1 || n->out[0] < 0 || n->n_in < 1 || n->n_in > GROUP_INPUTS_MAX)
        return false;
    if (n->op->id == OP_Cast && value_at(g, n->in[0])->kind == VALUE_PARAM)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        const struct value *v = node_in(g, n, i);
        if (v && !float_type(v->type) && v->type != TENSOR_BOOL)
            return false;
    }
    const struct value *y = value_at(g, n->out[0]);
    struct elements e = { 0 };
    return (float_type(y->type) || y->type == TENSOR_BOOL) && shape_count(&y->shape) > 1 &&
           elements_add(&e, g, n, in, &result);
}

static void users_find(struct fusing *f)
{
    const struct graph *g = f->g;
    int *count = NEW_N(f->a, int, g->values.n + 1);
    f->users = NEW_N(f->a, int *, g->values.n + 1);
    f->read = NEW_N(f->a, bool, g->values.n + 1);
    for (size_t i = 0; i < g->outputs.n; i++)
        f->read[g->outputs.v[i]] = true;
    for (size_t i = 0; i < g->updates.n; i++)
        f->read[g->updates.v[i].from] = true;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < g->nodes.n; i++)
            for (int k = 0; k < g->nodes.v[i].n_in; k++) {
                int v = g->nodes.v[i].in[k];
                if (v >= 0 && pass == 1)
                    f->users[v][--count[v]] = (int)i;
                else if (v >= 0)
                    count[v]++;
            }
        for (size_t v = 0; v < g->values.n && pass == 0; v++) {
            f->users[v] = NEW_N(f->a, int, count[v] + 1);
            f->users[v][count[v]] = -1;
        }
    }
}

/* Gradients of broadcasts ask another value for its shape; the output has it by now, and the value need not wait for them. */
static void likes_drop(struct graph *g)
{
    for (size_t i = 0; i < g->nodes.n; i++) {
        struct node *n = &g->nodes.v[i];
        if (n->op->id != OP_SumTo && n->op->id != OP_BroadcastTo && n->op->id != OP_CastLike)
            continue;
        int *in = NEW_N(g->a, int, 2);
        in[0] = n->in[0];
        in[1] = -1;
        n->in = in;
    }
}

static bool same_place(const struct graph *g, const struct node *x, const struct node *y)
{
    const struct value *a = value_at(g, x->out[0]), *b = value_at(g, y->out[0]);
    return shape_same(&a->shape, &b->shape) && a->nhwc == b->nhwc;
}

/* May node p move to the group's root? All who read it are in the group, or behind the root. */
static bool may_join(const struct fusing *f, const struct group *t, int p)
{
    const struct graph *g = f->g;
    int v = g->nodes.v[p].out[0];
    if (!f->possible[p] || f->group[p] >= 0 || t->n == GROUP_NODES_MAX ||
        !same_place(g, &g->nodes.v[p], &g->nodes.v[t->root]))
        return false;
    for (const int *u = f->users[v]; *u >= 0; u++)
        if (f->group[*u] != t->root && *u < t->root)
            return false;
    return true;
}

/* Values that a group takes from outside, and that outside takes from it. */
static void count_ends(const struct fusing *f, const struct group *t, int *n_in, int *n_out)
{
    const struct graph *g = f->g;
    int seen[GROUP_NODES_MAX * GROUP_INPUTS_MAX], n = 0;
    *n_out = 0;
    for (int i = 0; i < t->n; i++) {
        const struct node *m = &g->nodes.v[t->nodes[i]];
        bool out = f->read[m->out[0]];
        for (const int *u = f->users[m->out[0]]; *u >= 0; u++)
            out |= f->group[*u] != t->root;
        *n_out += out;
        for (int k = 0; k < m->n_in; k++) {
            int v = m->in[k], j = 0;
            if (v < 0 || (value_at(g, v)->node >= 0 && f->group[value_at(g, v)->node] == t->root))
                continue;
            while (j < n && seen[j] != v)
                j++;
            if (j == n)
                seen[n++] = v;
        }
    }
    *n_in = n;
}

static bool join(struct fusing *f, struct group *t, int p)
{
    int n_in, n_out;
    if (!may_join(f, t, p))
        return false;
    f->group[p] = t->root;
    t->nodes[t->n++] = p;
    count_ends(f, t, &n_in, &n_out);
    if (n_in <= GROUP_INPUTS_MAX && n_out <= ELEMENTS_OUTPUTS)
        return true;
    f->group[p] = -1;
    t->n--;
    return false;
}

static void grow(struct fusing *f, struct group *t)
{
    const struct graph *g = f->g;
    for (bool more = true; more;) {
        more = false;
        for (int i = 0; i < t->n; i++) {
            const struct node *m = &g->nodes.v[t->nodes[i]];
            for (int k = 0; k < m->n_in; k++) {
                int p = m->in[k] < 0 ? -1 : value_at(g, m->in[k])->node;
                more |= p >= 0 && join(f, t, p);
            }
        }
    }
}

/* ---- the group's program ---- */

struct building {
    struct elements e;
    int in[ELEMENTS_INPUTS];
    int16_t *ref; /* by value of the group */
};

/* The shape under which BroadcastTo sees its input: sizes of 1 where axes were taken away. rank −1: its own. */
static struct shape view_of(const struct graph *g, const struct node *n)
{
    const struct attr *axes = n->op->id == OP_BroadcastTo ? attr_find(n, "axes") : NULL;
    struct shape s = { .rank = -1 };
    const struct shape *x = &value_at(g, n->in[0])->shape, *y = &value_at(g, n->out[0])->shape;
    if (!axes || axes->n == 0)
        return s;
    s.rank = y->rank;
    for (int i = 0, from = 0; i < y->rank; i++) {
        bool gone = false;
        for (size_t k = 0; k < axes->n; k++)
            gone |= axes->is[k] == i;
        s.d[i] = gone || from >= x->rank ? 1 : x->d[from++];
    }
    return s;
}

static int input_ref(struct building *b, int v, struct shape view)
{
    for (int i = 0; i < b->e.n_in; i++)
        if (b->in[i] == v && shape_same(&b->e.view[i], &view))
            return i;
    if (b->e.n_in == ELEMENTS_INPUTS)
        return -1;
    b->in[b->e.n_in] = v;
    b->e.view[b->e.n_in] = view;
    return b->e.n_in++;
}

static bool outside_reads(const struct fusing *f, int root, int v)
{
    bool out = f->read[v];
    for (const int *u = f->users[v]; *u >= 0; u++)
        out |= f->group[*u] != root;
    return out;
}

static bool add_member(const struct fusing *f, struct building *b, int root, const struct node *n)
{
    const struct graph *g = f->g;
    int16_t in[ELEMENTS_INPUTS] = { 0 }, result;
    for (int k = 0; k < n->n_in; k++) {
        int v = n->in[k], made = v < 0 ? -1 : value_at(g, v)->node;
        if (v < 0)
            continue;
        int i = made >= 0 && f->group[made] == root
                    ? b->ref[v]
                    : input_ref(b, v, k == 0 ? view_of(g, n) : (struct shape){ -1 });
        if (i == -1 && !(made >= 0 && f->group[made] == root))
            return false;
        in[k] = (int16_t)i;
    }
    int before = b->e.n;
    if (!elements_add(&b->e, g, n, in, &result))
        return false;
    /* A copy (Cast, BroadcastTo) is what it copies, unless it must be written and is an input. */
    const struct instruction *last = &b->e.v[b->e.n - 1];
    if (b->e.n == before + 1 && last->f == ELEMENT_Copy &&
        (last->in[0] < 0 || !outside_reads(f, root, n->out[0]))) {
        result = last->in[0];
        b->e.n--;
    }
    b->ref[n->out[0]] = result;
    return true;
}

static int ascending(const void *x, const void *y)
{
    return *(const int *)x - *(const int *)y;
}

static struct str name_of(const struct fusing *f, const struct group *t)
{
    struct buf b = buf_new(f->g->a);
    for (int i = 0; i < t->n && i < 6; i++)
        buf_fmt(&b, i ? "+%s" : "%s", f->g->nodes.v[t->nodes[i]].op->name);
    if (t->n > 6)
        buf_fmt(&b, "+%d", t->n - 6);
    buf_fmt(&b, "_%d", t->root);
    return buf_get(&b);
}

/* The Fused node in place of the group's root; false: it does not fit after all. */
static bool build(const struct fusing *f, struct group *t, struct node *out)
{
    struct graph *g = f->g;
    struct building *b = NEW(f->a, struct building);
    b->ref = NEW_N(f->a, int16_t, g->values.n + 1);
    qsort(t->nodes, (size_t)t->n, sizeof *t->nodes, ascending);
    struct node n = { .op = &op_table[OP_Fused], .name = name_of(f, t) };
    n.out = NEW_N(g->a, int, t->n);
    for (int i = 0; i < t->n; i++) {
        const struct node *m = &g->nodes.v[t->nodes[i]];
        if (!add_member(f, b, t->root, m))
            return false;
        if (!outside_reads(f, t->root, m->out[0]))
            continue;
        if (b->e.n_out == ELEMENTS_OUTPUTS)
            return false;
        b->e.out[b->e.n_out++] = -1 - b->ref[m->out[0]];
        n.out[n.n_out++] = m->out[0];
    }
    n.n_in = b->e.n_in;
    n.in = NEW_N(g->a, int, n.n_in + 1);
    memcpy(n.in, b->in, (size_t)n.n_in * sizeof *n.in);
    n.attrs = elements_write(&b->e, g->a, &n.n_attrs);
    *out = n;
    return n.n_out > 0 && n.n_in > 0;
}

err fuse_elements(struct graph *g)
{
    auto_arena struct arena *a = arena_new(0);
    likes_drop(g);
    graph_renumber(g);
    size_t n = g->nodes.n;
    struct fusing f = { .g = g, .a = a };
    users_find(&f);
    f.group = NEW_N(a, int, n + 1);
    f.possible = NEW_N(a, bool, n + 1);
    struct node *made = NEW_N(a, struct node, n + 1); /* by root; op NULL: none */
    for (size_t i = 0; i < n; i++) {
        f.group[i] = -1;
        f.possible[i] = can_fuse(g, &g->nodes.v[i]);
    }
    for (size_t i = n; i-- > 0;) {
        if (!f.possible[i] || f.group[i] >= 0)
            continue;
        struct group t = { .root = (int)i, .n = 1, .nodes = { (int)i } };
        f.group[i] = (int)i;
        grow(&f, &t);
        if (t.n > 1 && build(&f, &t, &made[i]))
            continue;
        made[i].op = NULL;
        for (int k = 0; k < t.n; k++)
            f.group[t.nodes[k]] = -1;
        f.possible[i] = false; /* it stays alone */
    }
    size_t to = 0;
    for (size_t i = 0; i < n; i++)
        if (f.group[i] < 0)
            g->nodes.v[to++] = g->nodes.v[i];
        else if (f.group[i] == (int)i)
            g->nodes.v[to++] = made[i];
    g->nodes.n = to;
    graph_renumber(g);
    return graph_error(g);
}
