// SPDX-License-Identifier: Apache-2.0
#include "engine/fold.h"
#include "engine/ops.h"

#include <limits.h>

/* Limits of one graph, whoever builds it. */
enum { VALUES_MAX = 1000000, SYMBOLS_MAX = 64 };
static const int64_t elements_max = (int64_t)1 << 40;

/* ---- errors ---- */

struct graph_private {
    struct graph g;
    err error;
};
_Static_assert(offsetof(struct graph_private, g) == 0, "a graph is found at its own address");

err graph_error(const struct graph *g)
{
    return ((const struct graph_private *)g)->error;
}

void graph_fail(struct graph *g, err e)
{
    struct graph_private *p = (struct graph_private *)g;
    if (e && !p->error)
        p->error = err_copy(e, g->a);
}

struct graph *graph_new(struct arena *a)
{
    struct graph_private *p = NEW(a, struct graph_private);
    p->g.a = a;
    return &p->g;
}

/* ---- shapes ---- */

int64_t shape_count(const struct shape *s)
{
    int64_t n = 1;
    if (s->rank < 0)
        return -1;
    for (int i = 0; i < s->rank; i++)
        if (s->d[i] < 0 || __builtin_mul_overflow(n, s->d[i], &n) || n > elements_max)
            return -1;
    return n;
}

bool shape_same(const struct shape *x, const struct shape *y)
{
    return x->rank == y->rank && (x->rank <= 0 || memcmp(x->d, y->d, (size_t)x->rank * sizeof x->d[0]) == 0);
}

struct str shape_text(const struct graph *g, struct arena *a, const struct shape *s)
{
    struct buf b = buf_new(a);
    if (s->rank < 0)
        return S("[?]");
    buf_str(&b, S("["));
    for (int i = 0; i < s->rank; i++) {
        if (i > 0)
            buf_str(&b, S(", "));
        if (s->d[i] >= 0)
            buf_fmt(&b, "%lld", (long long)s->d[i]);
        else
            buf_str(&b, g->symbols.v[-1 - s->d[i]]);
    }
    buf_str(&b, S("]"));
    return buf_get(&b);
}

int64_t graph_symbol(struct graph *g, const char *name)
{
    struct str s = str_of(name);
    for (size_t i = 0; i < g->symbols.n; i++)
        if (str_eq(g->symbols.v[i], s))
            return -1 - (int64_t)i;
    push(g->a, &g->symbols, str_dup(g->a, s));
    return -(int64_t)g->symbols.n;
}

/* ---- values ---- */

static int value_new(struct graph *g, const struct value *v)
{
    if (graph_error(g))
        return -1;
    if (g->values.n >= VALUES_MAX) {
        graph_fail(g, err_new(TOO_LARGE, "the graph has more than %d values", VALUES_MAX));
        return -1;
    }
    push(g->a, &g->values, *v);
    return (int)g->values.n - 1;
}

static int initial(struct graph *g, enum value_kind kind, struct str name, enum tensor_type type,
                   struct shape shape, const void *data)
{
    if (!graph_error(g) && shape_count(&shape) < 0)
        graph_fail(g, err_new(INVALID, "initialiser '%.*s' has no size", STR(name)));
    return value_new(
        g, &(struct value){
               .name = name, .kind = kind, .type = type, .shape = shape, .data = data, .node = -1 });
}

int graph_input(struct graph *g, const char *name, enum tensor_type type, struct shape shape)
{
    int id = value_new(g, &(struct value){ .name = str_dup(g->a, str_of(name)),
                                           .kind = VALUE_INPUT,
                                           .type = type,
                                           .shape = shape,
                                           .node = -1 });
    if (id >= 0)
        push(g->a, &g->inputs, id);
    return id;
}

int graph_param(struct graph *g, struct str name, struct shape shape, const float *data)
{
    return initial(g, VALUE_PARAM, str_dup(g->a, name), TENSOR_F32, shape, data);
}

int graph_state(struct graph *g, struct str name, struct shape shape, const float *data)
{
    return initial(g, VALUE_STATE, str_dup(g->a, name), TENSOR_F32, shape, data);
}

int graph_const(struct graph *g, enum tensor_type type, struct shape shape, const void *data)
{
    int64_t n = shape_count(&shape);
    size_t bytes = n < 0 ? 0 : arena_mul((size_t)n, tensor_size(type));
    void *copy = arena_alloc(g->a, bytes ? bytes : 1, 64);
    if (bytes > 0)
        memcpy(copy, data, bytes);
    return initial(g, VALUE_CONST, fmt(g->a, "const_%zu", g->values.n), type, shape, copy);
}

int graph_f32(struct graph *g, float v)
{
    return graph_const(g, TENSOR_F32, SCALAR, &v);
}

int graph_i64s(struct graph *g, const int64_t *v, size_t n)
{
    return graph_const(g, TENSOR_I64, SHAPE((int64_t)n), v);
}

void graph_output(struct graph *g, int value, struct str name)
{
    if (value < 0 || graph_error(g))
        return;
    if (name.n > 0)
        value_at(g, value)->name = str_dup(g->a, name);
    push(g->a, &g->outputs, value);
}

int graph_find(const struct graph *g, struct str name)
{
    for (size_t i = 0; i < g->values.n; i++)
        if (str_eq(g->values.v[i].name, name))
            return (int)i;
    return -1;
}

/* ---- nodes ---- */

static struct attr *attrs_copy(struct graph *g, const struct attr *attrs, size_t *n)
{
    *n = 0;
    while (attrs && attrs[*n].name)
        ++*n;
    struct attr *to = NEW_N(g->a, struct attr, *n + 1);
    for (size_t i = 0; i < *n; i++) {
        to[i] = attrs[i];
        to[i].name = str_z(g->a, str_of(attrs[i].name));
        to[i].s = str_dup(g->a, attrs[i].s);
        if (attrs[i].type == ATTR_INTS) {
            int64_t *is = NEW_N(g->a, int64_t, attrs[i].n + 1);
            memcpy(is, attrs[i].is, attrs[i].n * sizeof *is);
            to[i].is = is;
        }
        if (attrs[i].type == ATTR_FLOATS) {
            float *fs = NEW_N(g->a, float, attrs[i].n + 1);
            memcpy(fs, attrs[i].fs, attrs[i].n * sizeof *fs);
            to[i].fs = fs;
        }
    }
    return to;
}

static err arity_check(const struct graph *g, const struct node *n)
{
    const struct op *op = n->op;
    if (n->n_in < op->in_min || (op->in_max >= 0 && n->n_in > op->in_max))
        return node_err(g, n, "it has %d inputs", n->n_in);
    if (n->n_out < op->out_min || (op->out_max >= 0 && n->n_out > op->out_max))
        return node_err(g, n, "it has %d outputs", n->n_out);
    for (int i = 0; i < op->in_min; i++)
        if (n->in[i] < 0)
            return node_err(g, n, "input %d is missing", i);
    return NULL;
}

int graph_add(struct graph *g, const struct op *op, const int *in, int n_in, int n_out,
              const struct attr *attrs)
{
    if (graph_error(g))
        return -1;
    struct node n = { .op = op, .n_in = n_in, .n_out = n_out, .ordinal = (int)g->nodes.n };
    n.name = fmt(g->a, "%s_%zu", op->name, g->nodes.n);
    n.in = NEW_N(g->a, int, n_in > 0 ? n_in : 1);
    n.out = NEW_N(g->a, int, n_out > 0 ? n_out : 1);
    for (int i = 0; i < n_in; i++)
        n.in[i] = in[i] < (int)g->values.n ? in[i] : -1;
    n.attrs = attrs_copy(g, attrs, &n.n_attrs);
    int first = (int)g->values.n;
    for (int i = 0; i < n_out; i++)
        n.out[i] = value_new(
            g, &(struct value){ .name = n_out == 1 ? n.name : fmt(g->a, "%.*s_%d", STR(n.name), i),
                                .kind = VALUE_NODE,
                                .shape.rank = -1,
                                .node = (int)g->nodes.n });
    err e = graph_error(g);
    if (!e)
        e = arity_check(g, &n);
    if (!e) {
        push(g->a, &g->nodes, n);
        e = graph_infer(g, (int)g->nodes.n - 1);
    }
    graph_fail(g, e);
    return e ? -1 : first;
}

const struct attr *attr_find(const struct node *n, const char *name)
{
    for (size_t i = 0; i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, name) == 0)
            return &n->attrs[i];
    return NULL;
}

int64_t attr_i(const struct node *n, const char *name, int64_t def)
{
    const struct attr *at = attr_find(n, name);
    return at && at->type == ATTR_INT ? at->i : def;
}

float attr_f(const struct node *n, const char *name, float def)
{
    const struct attr *at = attr_find(n, name);
    return at && at->type == ATTR_FLOAT ? at->f : def;
}

struct str attr_s(const struct node *n, const char *name, struct str def)
{
    const struct attr *at = attr_find(n, name);
    return at && at->type == ATTR_TEXT ? at->s : def;
}

err attr_axis(const struct node *n, const char *name, int64_t def, int rank, int *out)
{
    int64_t axis = attr_i(n, name, def);
    if (axis < -rank || axis >= (rank > 0 ? rank : 1))
        FAIL(INVALID, "%s '%.*s': %s %lld is outside of rank %d", n->op->name, STR(n->name), name,
             (long long)axis, rank);
    *out = (int)(axis < 0 ? axis + rank : axis);
    return NULL;
}

bool value_i64s(const struct graph *g, struct arena *a, int id, const int64_t **v, size_t *n)
{
    if (id < 0 || value_at(g, id)->kind != VALUE_CONST || !value_at(g, id)->data)
        return false;
    const struct value *c = value_at(g, id);
    int64_t count = shape_count(&c->shape);
    if (count < 0 || (c->type != TENSOR_I64 && c->type != TENSOR_I32))
        return false;
    int64_t *to = NEW_N(a, int64_t, count + 1);
    for (int64_t i = 0; i < count; i++)
        if (c->type == TENSOR_I64)
            memcpy(&to[i], (const char *)c->data + i * 8, 8);
        else {
            int32_t x;
            memcpy(&x, (const char *)c->data + i * 4, 4);
            to[i] = x;
        }
    *v = to;
    *n = (size_t)count;
    return true;
}

/* ---- inference and binding ---- */

/* All sizes are numbers, and their product is none. */
static bool absurd(const struct shape *s)
{
    for (int i = 0; i < s->rank; i++)
        if (s->d[i] < 0)
            return false;
    return s->rank >= 0 && shape_count(s) < 0;
}

err graph_infer(struct graph *g, int i)
{
    struct node *n = &g->nodes.v[i];
    TRY(n->op->shape(g, n));
    for (int k = 0; k < n->n_out; k++)
        if (n->out[k] >= 0 && absurd(&value_at(g, n->out[k])->shape))
            return node_err(g, n, "the size of its output %d is absurd", k);
    return fold_node(g, i);
}

static struct shape bound(const struct shape *s, const int64_t *sizes)
{
    struct shape to = *s;
    for (int i = 0; i < to.rank; i++)
        if (to.d[i] < 0)
            to.d[i] = sizes[-1 - to.d[i]];
    return to;
}

/* Nodes whose outputs reach an output or an update. */
static bool *live_nodes(const struct graph *g, struct arena *a)
{
    bool *value = NEW_N(a, bool, g->values.n + 1), *node = NEW_N(a, bool, g->nodes.n + 1);
    for (size_t i = 0; i < g->outputs.n; i++)
        value[g->outputs.v[i]] = true;
    for (size_t i = 0; i < g->updates.n; i++)
        value[g->updates.v[i].from] = true;
    for (size_t i = g->nodes.n; i-- > 0;) {
        const struct node *n = &g->nodes.v[i];
        for (int k = 0; k < n->n_out; k++) /* what was folded needs no node */
            node[i] |= n->out[k] >= 0 && value[n->out[k]] && value_at(g, n->out[k])->kind != VALUE_CONST;
        for (int k = 0; k < n->n_in && node[i]; k++)
            if (n->in[k] >= 0)
                value[n->in[k]] = true;
    }
    return node;
}

/* Gemm's B as kernels read it, in place of the other way round, as many exporters keep it. turned: by value, what was made of it. */
static void gemm_turn(struct graph *g, struct node *n, int *turned)
{
    const struct value *b = n->n_in > 1 && n->in[1] >= 0 ? value_at(g, n->in[1]) : NULL;
    struct attr *across = NULL;
    for (size_t i = 0; i < n->n_attrs; i++)
        if (strcmp(n->attrs[i].name, "transB") == 0)
            across = &n->attrs[i];
    if (n->op->id != OP_Gemm || !across || across->i == 0 || !b || b->kind != VALUE_CONST || !b->data ||
        b->type != TENSOR_F32 || b->shape.rank != 2)
        return;
    across->i = 0;
    int *made = &turned[n->in[1]];
    if (!*made) {
        const int64_t rows = b->shape.d[0], columns = b->shape.d[1];
        const float *from = b->data;
        struct value to = *b;
        float *v = arena_alloc(g->a, (size_t)(rows * columns + 1) * sizeof *v, 64);
        for (int64_t k = 0; k < columns; k++)
            for (int64_t i = 0; i < rows; i++)
                v[k * rows + i] = from[i * columns + k];
        to.name = fmt(g->a, "%.*s_turned_%zu", STR(b->name), g->values.n);
        to.shape = SHAPE(columns, rows);
        to.data = v;
        push(g->a, &g->values, to);
        *made = (int)g->values.n - 1;
    }
    n->in[1] = *made;
}

void graph_freeze(struct graph *g)
{
    for (size_t i = 0; i < g->values.n; i++)
        if ((g->values.v[i].kind == VALUE_PARAM || g->values.v[i].kind == VALUE_STATE) && g->values.v[i].data)
            g->values.v[i].kind = VALUE_CONST;
    auto_arena struct arena *a = arena_new(0);
    int *turned = NEW_N(a, int,
                        g->values.n + 1); /* of those that are here now: nobody turns what was turned */
    for (size_t i = 0; i < g->nodes.n; i++) {
        struct node *n = &g->nodes.v[i];
        gemm_turn(g, n, turned);
        for (int k = 0; k < n->n_in; k++) {
            struct value *v = n->in[k] < 0 ? NULL : value_at(g, n->in[k]);
            if (!v || v->kind != VALUE_CONST || !v->data || (uintptr_t)v->data % 64 == 0)
                continue;
            const size_t bytes = (size_t)shape_count(&v->shape) * tensor_size(v->type);
            v->data = memcpy(arena_alloc(g->a, bytes + 1, 64), v->data, bytes);
        }
    }
}

void graph_prune(struct graph *g)
{
    auto_arena struct arena *a = arena_new(0);
    bool *live = live_nodes(g, a);
    size_t to = 0;
    for (size_t i = 0; i < g->nodes.n; i++)
        if (live[i])
            g->nodes.v[to++] = g->nodes.v[i];
    g->nodes.n = to;
    graph_renumber(g);
}

void graph_renumber(struct graph *g)
{
    for (size_t i = 0; i < g->values.n; i++)
        g->values.v[i].node = -1;
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_out; k++)
            if (g->nodes.v[i].out[k] >= 0)
                g->values.v[g->nodes.v[i].out[k]].node = (int)i;
}

err graph_resize(struct graph *g, const int64_t *dims)
{
    for (size_t i = 0; i < g->values.n; i++) {
        struct value *v = value_at(g, (int)i);
        if (v->kind == VALUE_NODE)
            v->shape.rank = -1;
        else
            v->shape = bound(&v->shape, dims);
    }
    for (size_t i = 0; i < g->nodes.n; i++)
        TRY(graph_infer(g, (int)i));
    return graph_error(g);
}

err graph_bind(const struct graph *from, struct arena *a, const int64_t *sizes, struct graph **out)
{
    TRY(graph_error(from));
    struct graph *g = graph_new(a);
    auto_arena struct arena *scratch = arena_new(0);
    bool *live = live_nodes(from, scratch);
    g->name = from->name;
    for (size_t i = 0; i < from->values.n; i++) {
        struct value v = from->values.v[i];
        if (v.kind == VALUE_NODE)
            v.shape.rank = -1;
        else
            v.shape = bound(&v.shape, sizes);
        v.node = -1;
        if (v.kind != VALUE_NODE && shape_count(&v.shape) < 0)
            FAIL(UNSUPPORTED, "'%.*s' has no size for each dimension", STR(v.name));
        push(a, &g->values, v);
    }
    for (size_t i = 0; i < from->inputs.n; i++)
        push(a, &g->inputs, from->inputs.v[i]);
    for (size_t i = 0; i < from->outputs.n; i++)
        push(a, &g->outputs, from->outputs.v[i]);
    for (size_t i = 0; i < from->updates.n; i++)
        push(a, &g->updates, from->updates.v[i]);
    for (size_t i = 0; i < from->nodes.n; i++) {
        if (!live[i])
            continue;
        struct node n = from->nodes.v[i];
        int *in = NEW_N(a, int, n.n_in + 1), *to = NEW_N(a, int, n.n_out + 1);
        memcpy(in, n.in, (size_t)n.n_in * sizeof *in);
        memcpy(to, n.out, (size_t)n.n_out * sizeof *to);
        n.in = in, n.out = to;
        for (int k = 0; k < n.n_out; k++)
            if (to[k] >= 0)
                g->values.v[to[k]].node = (int)g->nodes.n;
        push(a, &g->nodes, n);
        TRY(graph_infer(g, (int)g->nodes.n - 1));
        TRY(graph_error(g));
        for (int k = 0; k < n.n_out; k++)
            if (to[k] >= 0 && shape_count(&g->values.v[to[k]].shape) < 0)
                return node_err(g, &n,
                                "the shape of its output %d depends on the data, which cannot be planned", k);
    }
    graph_prune(g);
    *out = g;
    return NULL;
}
