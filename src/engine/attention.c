// SPDX-License-Identifier: Apache-2.0
#include "engine/attention.h"
#include "engine/ops.h"

#include <math.h>

/* By value: how many nodes and outputs read it. */
struct finder {
    struct graph *g;
    int *uses;
};

/* The node of that op which makes v and whose output nobody else reads; NULL. */
static struct node *maker(const struct finder *f, int v, enum op_id op)
{
    int at = v < 0 ? -1 : value_at(f->g, v)->node;
    struct node *n = at < 0 ? NULL : &f->g->nodes.v[at];
    return n && n->op->id == (int)op ? n : NULL;
}
static struct node *only_maker(const struct finder *f, int v, enum op_id op)
{
    return v >= 0 && f->uses[v] == 1 ? maker(f, v, op) : NULL;
}

static int reader(const struct graph *g, int v)
{
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            if (g->nodes.v[i].in[k] == v)
                return (int)i;
    return -1;
}

/* A constant of one number. */
static bool scalar(const struct graph *g, int v, double *out)
{
    const struct value *c = value_at(g, v);
    if (c->kind != VALUE_CONST || !c->data || shape_count(&c->shape) != 1)
        return false;
    if (c->type == TENSOR_F32)
        *out = (double)*(const float *)c->data;
    else if (c->type == TENSOR_F64)
        *out = *(const double *)c->data;
    else
        return false;
    return true;
}

static bool turned(const struct node *n, const int64_t *perm)
{
    const struct attr *p = n ? attr_find(n, "perm") : NULL;
    return p && p->n == 4 && memcmp(p->is, perm, 4 * sizeof *perm) == 0;
}

/* What the search found. */
struct found {
    int q, k, v, y, mask; /* q: [b, h, t, d]; k: [b, h, d, s]; v: [b, h, s, d]; y: what is replaced */
    int at;               /* the node that makes y */
    bool causal;
    double scale;
};

enum mask_kind { MASK_NONE, MASK_CAUSAL, MASK_ANY, MASK_NOT };
/* Below this a score is as good as −∞ after the softmax. */
static const float far_below = -1e4f;

static enum mask_kind mask_of(const struct graph *g, int v, int64_t t, int64_t s)
{
    const struct value *m = value_at(g, v);
    const struct shape *d = &m->shape;
    if ((m->kind != VALUE_CONST && m->kind != VALUE_INPUT) || d->rank < 1 || d->rank > 4 ||
        d->d[d->rank - 1] != s)
        return MASK_NOT;
    if (m->kind != VALUE_CONST || m->type != TENSOR_F32 || !m->data || shape_count(d) != t * s || t != s)
        return MASK_ANY;
    for (int64_t i = 0; i < t; i++)
        for (int64_t j = 0; j < s; j++) {
            float x = ((const float *)m->data)[i * s + j];
            if (j <= i ? x != 0 : !(x <= far_below))
                return MASK_ANY;
        }
    return MASK_CAUSAL;
}

static bool find(const struct finder *f, const struct node *softmax, struct found *out)
{
    const struct graph *g = f->g;
    int axis, x = softmax->in[0], rank = value_at(g, x)->shape.rank, y = softmax->out[0];
    *out = (struct found){ .mask = -1, .scale = 1 };
    if (rank != 4 || attr_axis(softmax, "axis", -1, rank, &axis) || axis != 3 || f->uses[y] != 1)
        return false;
    int64_t t = value_at(g, x)->shape.d[2], s = value_at(g, x)->shape.d[3];
    struct node *add = only_maker(f, x, OP_Add);
    if (add) {
        int which = only_maker(f, add->in[0], OP_MatMul) || only_maker(f, add->in[0], OP_Mul) ||
                    only_maker(f, add->in[0], OP_Div);
        enum mask_kind kind = mask_of(g, add->in[which], t, s);
        if (kind == MASK_NOT)
            return false;
        out->causal = kind == MASK_CAUSAL;
        out->mask = kind == MASK_ANY ? add->in[which] : -1;
        x = add->in[!which];
    }
    struct node *mul = only_maker(f, x, OP_Mul), *div = only_maker(f, x, OP_Div);
    if (mul && scalar(g, mul->in[1], &out->scale))
        x = mul->in[0];
    else if (mul && scalar(g, mul->in[0], &out->scale))
        x = mul->in[1];
    else if (div && scalar(g, div->in[1], &out->scale)) {
        out->scale = 1 / out->scale;
        x = div->in[0];
    }
    const struct node *scores = only_maker(f, x, OP_MatMul);
    out->at = reader(g, y);
    const struct node *values = out->at < 0 ? NULL : &g->nodes.v[out->at];
    if (!scores || !values || values->op->id != OP_MatMul || values->in[0] != y || !isfinite(out->scale))
        return false;
    out->q = scores->in[0], out->k = scores->in[1], out->v = values->in[1], out->y = values->out[0];
    const struct shape *q = &value_at(g, out->q)->shape, *k = &value_at(g, out->k)->shape,
                       *v = &value_at(g, out->v)->shape;
    return q->rank == 4 && k->rank == 4 && v->rank == 4 && q->d[0] == k->d[0] && q->d[1] == k->d[1] &&
           q->d[0] == v->d[0] && q->d[1] == v->d[1] && value_at(g, out->q)->type == value_at(g, out->v)->type;
}

/* ---- heads side by side ---- */

static const int64_t heads_first[] = { 0, 2, 1, 3 }, keys_across[] = { 0, 2, 3, 1 },
                     last_two[] = { 0, 1, 3, 2 };

/* [b, t, h, d] of which v is the transpose to [b, h, t, d]; −1. */
static int rows_of(const struct finder *f, int v)
{
    const struct node *n = maker(f, v, OP_Transpose);
    return turned(n, heads_first) ? n->in[0] : -1;
}
/* The same of keys, [b, h, d, s]. */
static int key_rows_of(const struct finder *f, int k)
{
    const struct node *n = maker(f, k, OP_Transpose);
    if (turned(n, keys_across))
        return n->in[0];
    return turned(n, last_two) ? rows_of(f, n->in[0]) : -1;
}

/* x [b, t, h, d] is part `which` of three equal ones of a value [b, t, 3·h·d]: that value; −1. */
static int third_of(const struct finder *f, int x, int which)
{
    const struct graph *g = f->g;
    const struct shape *s = &value_at(g, x)->shape;
    const struct node *gather = maker(f, x, OP_Gather), *reshape = maker(f, x, OP_Reshape);
    int64_t width = s->d[2] * s->d[3];
    if (gather) {
        const struct value *index = value_at(g, gather->in[1]);
        const struct node *five = maker(f, gather->in[0], OP_Reshape);
        int axis;
        bool right = index->kind == VALUE_CONST && index->type == TENSOR_I64 && index->data &&
                     index->shape.rank == 0 && *(const int64_t *)index->data == which;
        if (!five || !right || attr_axis(gather, "axis", 0, 5, &axis) || axis != 2)
            return -1;
        const struct shape *from = &value_at(g, five->in[0])->shape,
                           *parts = &value_at(g, five->out[0])->shape;
        bool fits = parts->rank == 5 && parts->d[2] == 3 && from->rank == 3 && from->d[1] == s->d[1] &&
                    from->d[2] == 3 * width;
        return fits ? five->in[0] : -1;
    }
    int part = reshape ? reshape->in[0] : -1;
    const struct node *split = maker(f, part, OP_Split);
    int axis;
    if (!split || split->n_out != 3 || split->out[which] != part || value_at(g, part)->shape.rank != 3 ||
        attr_axis(split, "axis", 0, 3, &axis) || axis != 2 || value_at(g, part)->shape.d[1] != s->d[1])
        return -1;
    for (int i = 0; i < 3; i++)
        if (value_at(g, split->out[i])->shape.d[2] != width)
            return -1;
    return split->in[0];
}

/* [b, t, h, d] as [b, t, h·d]. */
static int flat(struct graph *g, int x)
{
    const struct shape *s = &value_at(g, x)->shape;
    int64_t to[] = { s->d[0], s->d[1], s->d[2] * s->d[3] };
    return graph_node(g, OP_Reshape, x, graph_i64s(g, to, 3));
}

/* The last nodes of the graph, from `from` on, move to where node `at` stands; who read `old` reads `new`. */
static void splice(struct graph *g, size_t from, size_t at, int old, int new)
{
    size_t n = g->nodes.n - from;
    struct node *moved = NEW_N(g->a, struct node, n + 1);
    memcpy(moved, g->nodes.v + from, n * sizeof *moved);
    memmove(g->nodes.v + at + n, g->nodes.v + at, (from - at) * sizeof *moved);
    memcpy(g->nodes.v + at, moved, n * sizeof *moved);
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            if (g->nodes.v[i].in[k] == old)
                g->nodes.v[i].in[k] = new;
    graph_renumber(g);
}

static bool is_output(const struct graph *g, int v)
{
    for (size_t i = 0; i < g->outputs.n; i++)
        if (g->outputs.v[i] == v)
            return true;
    return false;
}

/* One node for what was found; if y is only transposed to [b, t, h, d], that goes as well. */
static void replace(const struct finder *f, const struct found *o)
{
    struct graph *g = f->g;
    size_t from = g->nodes.n;
    int q = rows_of(f, o->q), k = key_rows_of(f, o->k), v = rows_of(f, o->v), old = o->y, at = o->at, y;
    int after = f->uses[o->y] == 1 ? reader(g, o->y) : -1;
    bool side = q >= 0 && k >= 0 && v >= 0 && after >= 0 && g->nodes.v[after].op->id == OP_Transpose &&
                turned(&g->nodes.v[after], heads_first) && !is_output(g, g->nodes.v[after].out[0]);
    const struct shape qs = value_at(g, o->q)->shape, vs = value_at(g, o->v)->shape;
    struct attr attrs[] = { { "is_causal", ATTR_INT, .i = o->causal },
                            { "scale", ATTR_FLOAT, .f = (float)o->scale },
                            { side ? "q_num_heads" : NULL, ATTR_INT, .i = qs.d[1] },
                            { "kv_num_heads", ATTR_INT, .i = qs.d[1] },
                            { 0 } };
    if (side) {
        at = after;
        old = g->nodes.v[after].out[0];
        int packed = third_of(f, q, 0), n_in = o->mask >= 0;
        if (packed >= 0 && packed == third_of(f, k, 1) && packed == third_of(f, v, 2))
            y = graph_add(g, &op_table[OP_PackedAttention], (const int[]){ packed, o->mask }, 1 + n_in, 1,
                          attrs);
        else
            y = graph_add(g, &op_table[OP_Attention],
                          (const int[]){ flat(g, q), flat(g, k), flat(g, v), o->mask }, 3 + n_in, 1, attrs);
        int64_t four[] = { qs.d[0], qs.d[2], qs.d[1], vs.d[3] };
        y = graph_node(g, OP_Reshape, y, graph_i64s(g, four, 4));
    } else {
        int across = graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = last_two, .n = 4 }),
                                     o->k);
        y = graph_add(g, &op_table[OP_Attention], (const int[]){ o->q, across, o->v, o->mask },
                      o->mask >= 0 ? 4 : 3, 1, attrs);
    }
    if (y >= 0)
        splice(g, from, (size_t)at, old, y);
}

err attention_fuse(struct graph *g)
{
    TRY(graph_error(g));
    auto_arena struct arena *a = arena_new(0);
    VEC(int) rows = { 0 }; /* what Softmax made: nodes move */
    for (size_t i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].op->id == OP_Softmax)
            push(a, &rows, g->nodes.v[i].out[0]);
    for (size_t i = 0; i < rows.n; i++) {
        struct found o;
        struct finder f = { g, NEW_N(a, int, g->values.n + 1) };
        for (size_t k = 0; k < g->nodes.n; k++)
            for (int j = 0; j < g->nodes.v[k].n_in; j++)
                if (g->nodes.v[k].in[j] >= 0)
                    f.uses[g->nodes.v[k].in[j]]++;
        for (size_t k = 0; k < g->outputs.n; k++)
            f.uses[g->outputs.v[k]] += 2; /* read from outside: it stays */
        if (find(&f, &g->nodes.v[value_at(g, rows.v[i])->node], &o) && !is_output(g, o.y))
            replace(&f, &o);
        TRY(graph_error(g));
    }
    return NULL;
}
