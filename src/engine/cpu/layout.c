// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/layout.h"
#include "engine/cpu/gemm.h"
#include "engine/cpu/image_conv.h"

#include <math.h>

/* ---- who uses what ---- */

struct uses {
    struct graph *g;
    int n;       /* values that were there; what a rewrite adds has one reader */
    int *count;  /* by value: inputs of nodes, outputs and updates of the graph */
    bool *fixed; /* read from outside */
    bool *gone;  /* by node */
};

static struct uses uses_of(struct graph *g, struct arena *a)
{
    struct uses u = { g, (int)g->values.n, NEW_N(a, int, g->values.n + 1), NEW_N(a, bool, g->values.n + 1),
                      NEW_N(a, bool, g->nodes.n + 1) };
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            if (g->nodes.v[i].in[k] >= 0)
                u.count[g->nodes.v[i].in[k]]++;
    for (size_t i = 0; i < g->outputs.n; i++)
        u.fixed[g->outputs.v[i]] = true;
    for (size_t i = 0; i < g->updates.n; i++)
        u.fixed[g->updates.v[i].from] = true;
    return u;
}

/* The node that makes v for one reader alone; NULL: there is none of this op. */
static struct node *sole_maker(const struct uses *u, int v, int op)
{
    if (v < 0 || u->fixed[v] || u->count[v] != 1 || value_at(u->g, v)->node < 0)
        return NULL;
    struct node *n = &u->g->nodes.v[value_at(u->g, v)->node];
    return n->op->id == op && n->out[0] == v && !u->gone[n - u->g->nodes.v] ? n : NULL;
}

static int *ids(struct graph *g, const int *from, int n, int room)
{
    int *to = NEW_N(g->a, int, (size_t)room);
    for (int i = 0; i < room; i++)
        to[i] = i < n ? from[i] : -1;
    return to;
}

static void attr_add(struct graph *g, struct node *n, struct attr one)
{
    struct attr *at = NEW_N(g->a, struct attr, n->n_attrs + 1);
    if (n->n_attrs > 0)
        memcpy(at, n->attrs, n->n_attrs * sizeof *at);
    at[n->n_attrs++] = one;
    n->attrs = at;
}

static void set_attr_i(struct graph *g, struct node *n, const char *name, int64_t i)
{
    attr_add(g, n, (struct attr){ name, ATTR_INT, .i = i });
}

/* The node stands at place `at` from now on, where another one was. */
static void move_node(struct uses *u, struct node *from, size_t at)
{
    struct node n = *from;
    u->gone[from - u->g->nodes.v] = true;
    u->gone[at] = false;
    u->g->nodes.v[at] = n;
    for (int i = 0; i < n.n_out; i++)
        if (n.out[i] >= 0)
            value_at(u->g, n.out[i])->node = (int)at;
}

/* p, which has one output, makes that of the node at place `at` and stands there. */
static void stand_for(struct uses *u, struct node *p, size_t at)
{
    p->out = ids(u->g, u->g->nodes.v[at].out, 1, 1);
    move_node(u, p, at);
}

static bool same_kind(const struct graph *g, int x, int y)
{
    const struct value *a = value_at(g, x), *b = value_at(g, y);
    return a->type == b->type && shape_same(&a->shape, &b->shape);
}

/* ---- batch normalisation, Add and Relu ---- */

/* y = Relu or Add at node `at`; its input v comes from a norm that nobody else reads. */
static bool into_norm(struct uses *u, size_t at, int v, int addend, bool relu)
{
    struct graph *g = u->g;
    struct node *end = &g->nodes.v[at], *norm = sole_maker(u, v, OP_BatchNormalization);
    if (!norm)
        norm = addend < 0 ? sole_maker(u, v, OP_BatchNormAct) : NULL;
    if (!norm || attr_i(norm, "act", 0) != 0)
        return false;
    const int out = end->out[0];
    norm->op = &op_table[OP_BatchNormAct];
    norm->in = ids(g, norm->in, norm->n_in, 6);
    norm->n_in = 6;
    if (addend >= 0)
        norm->in[5] = addend;
    norm->out = ids(g, norm->out, norm->n_out, norm->n_out);
    norm->out[0] = out;
    if (relu)
        set_attr_i(g, norm, "act", 1);
    move_node(u, norm, at);
    return true;
}

static bool fuse_norm(struct uses *u, size_t at)
{
    const struct node *n = &u->g->nodes.v[at];
    if (n->op->id == OP_Relu)
        return into_norm(u, at, n->in[0], -1, true);
    if (n->op->id != OP_Add || !same_kind(u->g, n->in[0], n->in[1]) || n->in[0] == n->in[1])
        return false;
    return into_norm(u, at, n->in[1], n->in[0], false) || into_norm(u, at, n->in[0], n->in[1], false);
}

/* g = ReluGrad(dy, y) at node `at`, read by the gradient of a norm (and perhaps by others): the norm's gradient masks dy itself. */
static bool fuse_norm_grad(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node mask = g->nodes.v[at];
    if (mask.op->id != OP_ReluGrad || u->fixed[mask.out[0]] || !same_kind(g, mask.in[0], mask.in[1]))
        return false;
    struct node *norm = NULL;
    for (size_t i = at + 1; i < g->nodes.n && !norm; i++) {
        struct node *n = &g->nodes.v[i];
        if (!u->gone[i] && n->op->id == OP_BatchNormGrad && n->in[0] == mask.out[0] && n->n_in == 5)
            norm = n;
    }
    if (!norm || !same_kind(g, norm->in[1], mask.in[1]))
        return false;
    /* Everything else that it reads must be there already. */
    for (int i = 1; i < norm->n_in; i++)
        if (value_at(g, norm->in[i])->node >= (int)at)
            return false;
    norm->in = ids(g, norm->in, norm->n_in, 6);
    norm->n_in = 6;
    norm->in[0] = mask.in[0];
    norm->in[5] = mask.in[1];
    norm->out = ids(g, norm->out, norm->n_out, 4);
    norm->n_out = 4;
    if (u->count[mask.out[0]] > 1)
        norm->out[3] = mask.out[0];
    move_node(u, norm, at);
    return true;
}

/* ---- products ---- */

static bool half_or_float(const struct graph *g, int v)
{
    enum tensor_type t = value_at(g, v)->type;
    return t == TENSOR_F32 || t == TENSOR_BF16;
}

/* Relu after a product. */
static bool fuse_product_relu(struct uses *u, size_t at)
{
    const struct node *n = &u->g->nodes.v[at];
    static const int ops[] = { OP_Gemm, OP_MatMulT };
    if (n->op->id != OP_Relu || !half_or_float(u->g, n->in[0]))
        return false;
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct node *p = sole_maker(u, n->in[0], ops[i]);
        if (!p || attr_i(p, "act", 0) != 0 || (p->op->id == OP_MatMulT && attr_i(p, "sum", 0) != 0))
            continue;
        set_attr_i(u->g, p, "act", GEMM_RELU);
        stand_for(u, p, at);
        return true;
    }
    return false;
}

/* Relu's gradient after a product that made dy. */
static bool fuse_product_mask(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node n = g->nodes.v[at];
    if (n.op->id != OP_ReluGrad || !same_kind(g, n.in[0], n.in[1]) || !half_or_float(g, n.in[0]))
        return false;
    struct node *p = sole_maker(u, n.in[0], OP_MatMulT);
    if (!p || attr_i(p, "act", 0) != 0 || attr_i(p, "sum", 0) != 0 || p->n_in > 2)
        return false;
    set_attr_i(g, p, "act", GEMM_MASK);
    p->in = ids(g, p->in, p->n_in, 4);
    p->n_in = 4;
    p->in[3] = n.in[1];
    stand_for(u, p, at);
    return true;
}

/* MatMul with one matrix on the right, and the Add of a bias for its columns. */
static bool fuse_bias(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node n = g->nodes.v[at];
    if (n.op->id != OP_Add)
        return false;
    for (int side = 0; side < 2; side++) {
        struct node *p = sole_maker(u, n.in[side], OP_MatMul);
        const int bias = n.in[1 - side];
        const struct shape *s = &value_at(g, n.in[side])->shape, *sb = &value_at(g, bias)->shape;
        if (!p || sb->rank != 1 || s->rank < 2 || sb->d[0] != s->d[s->rank - 1] ||
            value_at(g, p->in[1])->shape.rank != 2 || value_at(g, p->in[0])->shape.rank < 2 ||
            !half_or_float(g, n.in[side]) || !half_or_float(g, bias) ||
            value_at(g, n.out[0])->type != value_at(g, n.in[side])->type)
            continue;
        p->op = &op_table[OP_MatMulT];
        p->in = ids(g, p->in, 2, 3);
        p->n_in = 3;
        p->in[2] = bias;
        stand_for(u, p, at);
        return true;
    }
    return false;
}

/* A gradient of a weight that is added to what stands in its place. */
static bool fuse_sum(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node n = g->nodes.v[at];
    if (n.op->id != OP_Add || value_at(g, n.in[0])->kind != VALUE_INPUT)
        return false;
    struct node *p = sole_maker(u, n.in[1], OP_MatMulT);
    if (!p || p->n_in > 2 || !same_kind(g, n.in[0], n.in[1]))
        return false;
    p->in = ids(g, p->in, 2, 5);
    p->n_in = 5;
    p->in[2] = p->in[3] = -1;
    p->in[4] = n.in[0];
    stand_for(u, p, at);
    return true;
}

/* ---- convolutions ---- */

/* n numbers that nothing changes; NULL: it is no such value. */
static const float *known_floats(const struct graph *g, int v, int64_t n)
{
    const struct value *x = v < 0 ? NULL : value_at(g, v);
    return x && x->kind == VALUE_CONST && x->type == TENSOR_F32 && shape_count(&x->shape) == n ? x->data
                                                                                               : NULL;
}

/* Batch normalisation by known statistics after a convolution with known weights of its own: a convolution with other weights. */
static bool fuse_conv_norm(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node n = g->nodes.v[at];
    if (n.op->id != OP_BatchNormalization || attr_i(&n, "training_mode", 0))
        return false;
    for (int i = 1; i < n.n_out; i++)
        if (n.out[i] >= 0)
            return false;
    struct node *p = sole_maker(u, n.in[0], OP_Conv);
    if (!p || attr_find(p, "clip") || value_at(g, p->in[1])->shape.rank < 3 ||
        (p->in[1] < u->n && u->count[p->in[1]] != 1))
        return false;
    const struct shape shape = value_at(g, p->in[1])->shape;
    const int64_t channels = shape.d[0], each = channels > 0 ? shape_count(&shape) / channels : 0;
    const float *scale = known_floats(g, n.in[1], channels), *shift = known_floats(g, n.in[2], channels),
                *mean = known_floats(g, n.in[3], channels), *variance = known_floats(g, n.in[4], channels),
                *w = known_floats(g, p->in[1], channels * each),
                *bias = p->n_in > 2 ? known_floats(g, p->in[2], channels) : NULL;
    if (each < 1 || !w || !scale || !shift || !mean || !variance || (p->n_in > 2 && p->in[2] >= 0 && !bias))
        return false;
    float *to = NEW_N(g->a, float, (size_t)(channels * each)), *plus = NEW_N(g->a, float, (size_t)channels);
    const double epsilon = (double)attr_f(&n, "epsilon", 1e-5f);
    for (int64_t c = 0; c < channels; c++) {
        const double by = (double)scale[c] / sqrt((double)variance[c] + epsilon);
        for (int64_t i = 0; i < each; i++)
            to[c * each + i] = (float)((double)w[c * each + i] * by);
        plus[c] = (float)((double)shift[c] + ((bias ? (double)bias[c] : 0) - (double)mean[c]) * by);
    }
    p->in = ids(g, p->in, 2, 3);
    p->n_in = 3;
    p->in[1] = graph_const(g, TENSOR_F32, shape, to);
    p->in[2] = graph_const(g, TENSOR_F32, SHAPE(channels), plus);
    stand_for(u, p, at);
    return true;
}

/* Relu, or Clip between two numbers, after a convolution. */
static bool fuse_conv_clip(struct uses *u, size_t at)
{
    struct graph *g = u->g;
    const struct node n = g->nodes.v[at];
    float bounds[] = { n.op->id == OP_Relu ? 0 : -INFINITY, INFINITY };
    if ((n.op->id != OP_Relu && n.op->id != OP_Clip) || value_at(g, n.out[0])->type != TENSOR_F32)
        return false;
    for (int i = 1; n.op->id == OP_Clip && i < n.n_in; i++) {
        if (n.in[i] < 0)
            continue;
        const float *bound = known_floats(g, n.in[i], 1);
        if (!bound)
            return false;
        bounds[i - 1] = *bound;
    }
    struct node *p = sole_maker(u, n.in[0], OP_Conv);
    if (!p || attr_find(p, "clip") || !(bounds[0] <= bounds[1]))
        return false;
    float *kept = memcpy(NEW_N(g->a, float, 2), bounds, sizeof bounds);
    attr_add(g, p, (struct attr){ "clip", ATTR_FLOATS, .fs = kept, .n = 2 });
    stand_for(u, p, at);
    return true;
}

static void sweep(struct uses *u)
{
    struct graph *g = u->g;
    size_t to = 0;
    for (size_t i = 0; i < g->nodes.n; i++)
        if (!u->gone[i])
            g->nodes.v[to++] = g->nodes.v[i];
    g->nodes.n = to;
    graph_renumber(g);
}

static void fuse(struct graph *g)
{
    auto_arena struct arena *a = arena_new(0);
    struct uses u = uses_of(g, a);
    for (size_t i = 0; i < g->nodes.n; i++)
        if (!u.gone[i] && !fuse_conv_norm(&u, i) && !fuse_conv_clip(&u, i) && !fuse_norm(&u, i) &&
            !fuse_product_relu(&u, i) && !fuse_bias(&u, i) && !fuse_product_mask(&u, i) && !fuse_sum(&u, i))
            fuse_norm_grad(&u, i);
    sweep(&u);
}

/* ---- channels last ---- */

/* Inputs and outputs that are pictures, as bits. */
static const struct picture_op {
    int op;
    unsigned in, out;
} picture_ops[] = {
    { OP_Conv, 1, 1 },
    { OP_ConvTranspose, 1, 1 },
    { OP_ConvGradX, 1, 1 },
    { OP_ConvGradW, 3, 0 },
    { OP_ChannelSum, 1, 0 },
    { OP_MaxPool, 1, 5 },
    { OP_MaxPoolGrad, 3, 1 },
    { OP_AveragePool, 1, 1 },
    { OP_AveragePoolGrad, 1, 1 },
    { OP_GlobalAveragePool, 1, 1 },
    { OP_GlobalMaxPool, 1, 5 },
    { OP_BatchNormalization, 1, 1 },
    { OP_BatchNormAct, 1 | 1 << 5, 1 },
    { OP_BatchNormGrad, 1 | 2 | 1 << 5, 1 | 1 << 3 },
    { OP_Resize, 1, 1 },
    { OP_ResizeGrad, 1, 1 },
};

struct turning {
    struct graph *g;
    struct arena *a;
    VEC(struct node) nodes; /* the new order */
    int *turned;            /* by old value: the same in the other layout; −1: none yet */
    bool train;
    const bool *fixed;
    size_t n_values;
};

static bool is_picture(const struct graph *g, int v)
{
    return v >= 0 && value_at(g, v)->shape.rank == 4;
}

/* Both layouts are the same bytes. */
static bool either(const struct graph *g, int v)
{
    const struct shape *s = &value_at(g, v)->shape;
    return s->d[1] == 1 || s->d[2] * s->d[3] == 1;
}

static void layout_node(struct turning *t, int from, int to)
{
    struct graph *g = t->g;
    struct node n = { .op = &op_table[OP_Layout], .n_in = 1, .n_out = 1, .n_attrs = 1 };
    n.name = fmt(g->a, "%.*s_%s", STR(value_at(g, from)->name), value_at(g, to)->nhwc ? "last" : "first");
    n.in = ids(g, &from, 1, 1);
    n.out = ids(g, &to, 1, 1);
    struct attr *at = NEW_N(g->a, struct attr, 1);
    *at = (struct attr){ "nhwc", ATTR_INT, .i = value_at(g, to)->nhwc };
    n.attrs = at;
    push(t->a, &t->nodes, n);
}

static int value_like(struct graph *g, int v, bool nhwc)
{
    struct value x = *value_at(g, v);
    x.name = fmt(g->a, "%.*s_%s", STR(x.name), nhwc ? "nhwc" : "nchw");
    x.kind = VALUE_NODE;
    x.data = NULL;
    x.nhwc = nhwc;
    push(g->a, &g->values, x);
    return (int)g->values.n - 1;
}

/* v in that layout, by a conversion if it must be. */
static int in_layout(struct turning *t, int v, bool nhwc)
{
    if (!is_picture(t->g, v) || value_at(t->g, v)->nhwc == nhwc || either(t->g, v))
        return v;
    if (t->turned[v] < 0) {
        t->turned[v] = value_like(t->g, v, nhwc);
        layout_node(t, v, t->turned[v]);
    }
    return t->turned[v];
}

/* The node's output i is made with channels last; what is read from outside is turned back. */
static void output_last(struct turning *t, struct node *n, int i)
{
    const int v = n->out[i];
    if (!is_picture(t->g, v))
        return;
    if (!t->fixed[v]) {
        value_at(t->g, v)->nhwc = true;
        return;
    }
    n->out = ids(t->g, n->out, n->n_out, n->n_out);
    n->out[i] = t->turned[v] = value_like(t->g, v, true);
}

static const struct picture_op *picture_op(const struct node *n)
{
    for (size_t i = 0; i < sizeof picture_ops / sizeof *picture_ops; i++)
        if (picture_ops[i].op == n->op->id)
            return &picture_ops[i];
    return NULL;
}

/* The kernel walks its output's axes in the order in which they lie, whatever is spread along them. */
static bool spreads(const struct op *op)
{
    return op->id == OP_Add || op->id == OP_Sub || op->id == OP_Mul || op->id == OP_Div;
}

/* Element by element over pictures of one shape, and what is spread over them, or channels behind channels: any layout will do
 * if all have the same. */
static bool any_layout(const struct turning *t, const struct node *n)
{
    if (n->op->split != SPLIT_EACH || n->n_out != 1 || !is_picture(t->g, n->out[0]))
        return false;
    const int64_t axis = attr_i(n, "axis", 0);
    const bool joins = n->op->id == OP_Concat && (axis == 1 || axis == -3); /* channels behind channels */
    bool some = false;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0)
            continue;
        const struct value *v = value_at(t->g, n->in[i]);
        if (joins || (is_picture(t->g, n->in[i]) && shape_same(&v->shape, &value_at(t->g, n->out[0])->shape)))
            some |= v->nhwc;
        else if (shape_count(&v->shape) != 1 && !spreads(n->op))
            return false;
    }
    return some;
}

/* A picture of few channels that comes from outside is read as it lies; the gradients' kernels would have it turned. */
static bool stays_first(const struct turning *t, const struct node *n)
{
    const struct value *x = value_at(t->g, n->in[0]);
    return n->op->id == OP_Conv && !t->train && !x->nhwc && x->type == TENSOR_F32 &&
           x->shape.d[1] <= THIN_CHANNELS && attr_i(n, "group", 1) == 1 &&
           value_at(t->g, n->out[0])->shape.d[1] >= SIMD_PICK(image_convs)->floats;
}

static void turn_node(struct turning *t, struct node n)
{
    struct graph *g = t->g;
    const struct picture_op *p = picture_op(&n);
    const bool floats = n.n_in > 0 && n.in[0] >= 0 && value_at(g, n.in[0])->type != TENSOR_F64;
    const bool last = floats && ((p && is_picture(g, n.in[0])) || (!p && any_layout(t, &n)));
    const unsigned ins = last && p ? p->in : last ? ~0u : 0, outs = last && p ? p->out : last ? 1 : 0;
    n.in = ids(g, n.in, n.n_in, n.n_in > 0 ? n.n_in : 1);
    for (int i = 0; i < n.n_in; i++) {
        if (n.in[i] < 0 || !is_picture(g, n.in[i]))
            continue;
        if (i == 0 && last && p && stays_first(t, &n))
            continue;
        if (i < 32 && (ins >> i & 1))
            n.in[i] = in_layout(t, n.in[i], shape_count(&value_at(g, n.in[i])->shape) != 1 || p);
        else if (!either(g, n.in[i]))
            n.in[i] = in_layout(t, n.in[i], false);
    }
    const int *before = n.out;
    for (int i = 0; i < n.n_out && i < 32; i++)
        if (outs >> i & 1)
            output_last(t, &n, i);
    push(t->a, &t->nodes, n);
    for (int i = 0; i < n.n_out; i++)
        if (n.out[i] != before[i])
            layout_node(t, n.out[i], before[i]);
}

static void channels_last(struct graph *g, bool train)
{
    bool any = false;
    for (size_t i = 0; i < g->nodes.n; i++)
        any |= picture_op(&g->nodes.v[i]) != NULL;
    if (!any)
        return;
    auto_arena struct arena *a = arena_new(0);
    struct uses u = uses_of(g, a);
    /* Values that come while nodes are turned are asked for, too: each old one brings one at most. */
    struct turning t = { .g = g, .a = a, .fixed = u.fixed, .train = train, .n_values = g->values.n };
    t.turned = NEW_N(a, int, 2 * g->values.n + 1);
    memset(t.turned, -1, (2 * g->values.n + 1) * sizeof *t.turned);
    for (size_t i = 0; i < g->nodes.n; i++)
        turn_node(&t, g->nodes.v[i]);
    g->nodes.n = 0;
    for (size_t i = 0; i < t.nodes.n; i++)
        push(g->a, &g->nodes, t.nodes.v[i]);
    graph_renumber(g);
}

err cpu_layout(struct graph *g, bool train)
{
    fuse(g);
    channels_last(g, train);
    return graph_error(g);
}
