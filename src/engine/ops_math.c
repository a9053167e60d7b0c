// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

/* ---- types and shapes ---- */

static err out_set(const struct graph *g, const struct node *n, enum tensor_type type, const struct shape *s)
{
    struct value *y = node_out(g, n, 0);
    if (y) {
        y->type = type;
        y->shape = *s;
    }
    return NULL;
}

err shape_same_as(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    return out_set(g, n, x->type, &x->shape);
}

err shape_truth(struct graph *g, struct node *n)
{
    return out_set(g, n, TENSOR_BOOL, &node_in(g, n, 0)->shape);
}

err shape_cast(struct graph *g, struct node *n)
{
    int64_t to = attr_i(n, "to", 0);
    if (to < 0 || to > TENSOR_BF16 || tensor_size((enum tensor_type)to) == 0)
        return node_err(g, n, "'to' is %lld, which is no type of fixed size", (long long)to);
    return out_set(g, n, (enum tensor_type)to, &node_in(g, n, 0)->shape);
}

err shape_cast_like(struct graph *g, struct node *n)
{
    return out_set(g, n, node_in(g, n, 1)->type, &node_in(g, n, 0)->shape);
}

/* Sizes of inputs from `first` on, fitted to each other. */
static err fitted(const struct graph *g, const struct node *n, struct shape *out)
{
    *out = node_in(g, n, 0)->shape;
    for (int i = 1; i < n->n_in; i++)
        if (node_in(g, n, i))
            TRY(shape_broadcast(g, n, out, &node_in(g, n, i)->shape, out));
    return NULL;
}

static err same_types(const struct graph *g, const struct node *n, int first)
{
    for (int i = first + 1; i < n->n_in; i++) {
        const struct value *x = node_in(g, n, first), *y = node_in(g, n, i);
        if (y && x->type != y->type && x->type != TENSOR_NONE && y->type != TENSOR_NONE)
            return node_err(g, n, "inputs are %.*s and %.*s", STR(tensor_onnx_name(x->type)),
                            STR(tensor_onnx_name(y->type)));
    }
    return NULL;
}

err shape_fitted(struct graph *g, struct node *n)
{
    struct shape s;
    TRY(same_types(g, n, 0));
    TRY(fitted(g, n, &s));
    return out_set(g, n, node_in(g, n, 0)->type, &s);
}

err shape_pow(struct graph *g, struct node *n)
{
    struct shape s;
    TRY(fitted(g, n, &s));
    return out_set(g, n, node_in(g, n, 0)->type, &s);
}

err shape_compared(struct graph *g, struct node *n)
{
    struct shape s;
    TRY(same_types(g, n, 0));
    TRY(fitted(g, n, &s));
    return out_set(g, n, TENSOR_BOOL, &s);
}

err shape_where(struct graph *g, struct node *n)
{
    struct shape s;
    TRY(same_types(g, n, 1));
    TRY(fitted(g, n, &s));
    return out_set(g, n, node_in(g, n, 1)->type, &s);
}

err shape_like(struct graph *g, struct node *n)
{
    return out_set(g, n, node_in(g, n, 0)->type, &node_in(g, n, 1)->shape);
}

/* A device makes these, and sets the outputs itself. */
err shape_fused(struct graph *g, struct node *n)
{
    (void)g, (void)n;
    return NULL;
}

err reduce_axes(const struct graph *g, const struct node *n, unsigned *axes, bool *known)
{
    auto_arena struct arena *a = arena_new(0);
    int rank = node_in(g, n, 0)->shape.rank;
    const struct attr *at = attr_find(n, "axes");
    const int64_t *v = at && at->type == ATTR_INTS ? at->is : NULL;
    size_t count = v ? at->n : 0;
    *known = true;
    *axes = 0;
    if (node_in(g, n, 1) && !value_i64s(g, a, n->in[1], &v, &count)) {
        *known = false;
        return NULL;
    }
    if (count == 0 && !attr_i(n, "noop_with_empty_axes", 0))
        *axes = (1u << rank) - 1;
    for (size_t i = 0; i < count; i++) {
        if (v[i] < -rank || v[i] >= rank)
            return node_err(g, n, "axis %lld is outside of rank %d", (long long)v[i], rank);
        *axes |= 1u << (v[i] < 0 ? v[i] + rank : v[i]);
    }
    return NULL;
}

static struct shape without(const struct shape *x, unsigned axes, bool keep)
{
    struct shape s = { 0 };
    for (int i = 0; i < x->rank; i++)
        if (!(axes >> i & 1))
            s.d[s.rank++] = x->d[i];
        else if (keep)
            s.d[s.rank++] = 1;
    return s;
}

err shape_reduce(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct shape s = { .rank = -1 };
    unsigned axes;
    bool known = false;
    if (x->shape.rank >= 0)
        TRY(reduce_axes(g, n, &axes, &known));
    if (known)
        s = without(&x->shape, axes, attr_i(n, "keepdims", 1));
    return out_set(g, n, x->type, &s);
}

err shape_arg(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    struct shape s = { .rank = -1 };
    int axis;
    if (x->shape.rank >= 0) {
        TRY(attr_axis(n, "axis", 0, x->shape.rank, &axis));
        s = without(&x->shape, 1u << axis, attr_i(n, "keepdims", 1));
    }
    return out_set(g, n, TENSOR_I64, &s);
}

/* ---- gradients: helpers ---- */

int graph_scalar_like(struct graph *g, int x, double v)
{
    if (x < 0)
        return -1;
    enum tensor_type t = value_at(g, x)->type;
    if (t == TENSOR_F64)
        return graph_const(g, t, SCALAR, &v);
    int c = graph_f32(g, (float)v);
    return t == TENSOR_F32 ? c : graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = t }), c);
}

static int times(struct graph *g, int x, int y)
{
    return x < 0 || y < 0 ? -1 : graph_node(g, OP_Mul, x, y);
}

static int scaled(struct graph *g, int x, double k)
{
    return times(g, x, graph_scalar_like(g, x, k));
}

/* dx of the only input: an own op of dy and of the input or the output, with the op's attributes. */
static err by_own(struct grad *r, int op, int with)
{
    const int in[] = { r->dy[0], with };
    struct attr attrs[8] = { 0 };
    for (size_t i = 0; i < r->n.n_attrs && i < 7; i++)
        attrs[i] = r->n.attrs[i];
    r->dx[0] = graph_add(r->g, &op_table[op], in, 2, 1, attrs);
    return NULL;
}

/* dx of the only input: dy times something of the input or the output. */
static err by_factor(struct grad *r, int factor)
{
    r->dx[0] = times(r->g, r->dy[0], factor);
    return NULL;
}

/* ---- gradients of one input ---- */
#define X r->n.in[0]
#define Y r->n.out[0]
#define DY r->dy[0]

err grad_none(struct grad *r)
{
    (void)r; /* flat almost everywhere */
    return NULL;
}
err grad_relu(struct grad *r)
{
    return by_own(r, OP_ReluGrad, Y);
}
err grad_leaky_relu(struct grad *r)
{
    return by_own(r, OP_LeakyReluGrad, X);
}
err grad_elu(struct grad *r)
{
    return by_own(r, OP_EluGrad, X);
}
err grad_celu(struct grad *r)
{
    return by_own(r, OP_CeluGrad, X);
}
err grad_selu(struct grad *r)
{
    return by_own(r, OP_SeluGrad, X);
}
err grad_sigmoid(struct grad *r)
{
    return by_own(r, OP_SigmoidGrad, Y);
}
err grad_hard_sigmoid(struct grad *r)
{
    return by_own(r, OP_HardSigmoidGrad, Y);
}
err grad_hard_swish(struct grad *r)
{
    return by_own(r, OP_HardSwishGrad, X);
}
err grad_tanh(struct grad *r)
{
    return by_own(r, OP_TanhGrad, Y);
}
err grad_gelu(struct grad *r)
{
    return by_own(r, OP_GeluGrad, X);
}
err grad_swish(struct grad *r)
{
    return by_own(r, OP_SwishGrad, X);
}
err grad_mish(struct grad *r)
{
    return by_own(r, OP_MishGrad, X);
}
err grad_softplus(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Sigmoid, X));
}
err grad_exp(struct grad *r)
{
    return by_factor(r, Y);
}
err grad_neg(struct grad *r)
{
    r->dx[0] = graph_node(r->g, OP_Neg, DY);
    return NULL;
}
err grad_abs(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Sign, X));
}
err grad_log(struct grad *r)
{
    r->dx[0] = graph_node(r->g, OP_Div, DY, X);
    return NULL;
}
err grad_sqrt(struct grad *r)
{
    r->dx[0] = scaled(r->g, graph_node(r->g, OP_Div, DY, Y), 0.5);
    return NULL;
}
err grad_reciprocal(struct grad *r) /* −dy y² */
{
    return by_factor(r, graph_node(r->g, OP_Neg, times(r->g, Y, Y)));
}
err grad_sin(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Cos, X));
}
err grad_cos(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Neg, graph_node(r->g, OP_Sin, X)));
}
/* 1 + sign v². */
static int one_and_square(struct graph *g, int v, double sign)
{
    return graph_node(g, sign > 0 ? OP_Add : OP_Sub, graph_scalar_like(g, v, 1), times(g, v, v));
}
err grad_tan(struct grad *r) /* dy (1 + y²) */
{
    return by_factor(r, one_and_square(r->g, Y, 1));
}
err grad_asin(struct grad *r) /* dy / √(1 − x²) */
{
    r->dx[0] = graph_node(r->g, OP_Div, DY, graph_node(r->g, OP_Sqrt, one_and_square(r->g, X, -1)));
    return NULL;
}
err grad_acos(struct grad *r)
{
    TRY(grad_asin(r));
    r->dx[0] = graph_node(r->g, OP_Neg, r->dx[0]);
    return NULL;
}
err grad_atan(struct grad *r) /* dy / (1 + x²) */
{
    r->dx[0] = graph_node(r->g, OP_Div, DY, one_and_square(r->g, X, 1));
    return NULL;
}
err grad_sinh(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Cosh, X));
}
err grad_cosh(struct grad *r)
{
    return by_factor(r, graph_node(r->g, OP_Sinh, X));
}
err grad_asinh(struct grad *r) /* dy / √(1 + x²) */
{
    r->dx[0] = graph_node(r->g, OP_Div, DY, graph_node(r->g, OP_Sqrt, one_and_square(r->g, X, 1)));
    return NULL;
}
err grad_acosh(struct grad *r) /* dy / √(x² − 1) */
{
    int below = graph_node(r->g, OP_Neg, one_and_square(r->g, X, -1));
    r->dx[0] = graph_node(r->g, OP_Div, DY, graph_node(r->g, OP_Sqrt, below));
    return NULL;
}
err grad_atanh(struct grad *r) /* dy / (1 − x²) */
{
    r->dx[0] = graph_node(r->g, OP_Div, DY, one_and_square(r->g, X, -1));
    return NULL;
}
err grad_erf(struct grad *r) /* dy 2/√π e^(−x²) */
{
    int bell = graph_node(r->g, OP_Exp, graph_node(r->g, OP_Neg, times(r->g, X, X)));
    return by_factor(r, scaled(r->g, bell, 1.1283791670955126));
}
err grad_softsign(struct grad *r) /* dy / (1 + |x|)² */
{
    int one = graph_scalar_like(r->g, X, 1);
    int d = graph_node(r->g, OP_Add, graph_node(r->g, OP_Abs, X), one);
    r->dx[0] = graph_node(r->g, OP_Div, DY, times(r->g, d, d));
    return NULL;
}

/* dy where the condition holds, else 0. */
static int where(struct graph *g, int condition, int dy)
{
    return graph_node(g, OP_Where, condition, dy, graph_scalar_like(g, dy, 0));
}

err grad_thresholded(struct grad *r)
{
    int alpha = graph_scalar_like(r->g, X, attr_f(&r->n, "alpha", 1));
    r->dx[0] = where(r->g, graph_node(r->g, OP_Greater, X, alpha), DY);
    return NULL;
}
err grad_shrink(struct grad *r)
{
    int lambd = graph_scalar_like(r->g, X, attr_f(&r->n, "lambd", 0.5f));
    r->dx[0] = where(r->g, graph_node(r->g, OP_Greater, graph_node(r->g, OP_Abs, X), lambd), DY);
    return NULL;
}
err grad_clip(struct grad *r)
{
    const int in[] = { DY, X, r->n.n_in > 1 ? r->n.in[1] : -1, r->n.n_in > 2 ? r->n.in[2] : -1 };
    r->dx[0] = graph_add(r->g, &op_table[OP_ClipGrad], in, 4, 1, NULL);
    return NULL;
}
err grad_cast(struct grad *r)
{
    enum tensor_type t = value_at(r->g, X)->type;
    r->dx[0] = value_at(r->g, DY)->type == t
                   ? DY
                   : graph_node_with(r->g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = t }), DY);
    return NULL;
}

/* ---- gradients of several inputs ---- */

/* Input i was broadcast: its gradient is summed back. */
static void give(struct grad *r, int i, int d)
{
    r->dx[i] = grad_sum_to(r->g, d, r->n.in[i]);
}

err grad_sum(struct grad *r)
{
    for (int i = 0; i < r->n.n_in; i++)
        if (r->need[i])
            give(r, i, DY);
    return NULL;
}
err grad_mean(struct grad *r)
{
    int d = scaled(r->g, DY, 1.0 / r->n.n_in);
    for (int i = 0; i < r->n.n_in; i++)
        if (r->need[i])
            give(r, i, d);
    return NULL;
}
err grad_sub(struct grad *r)
{
    if (r->need[0])
        give(r, 0, DY);
    if (r->need[1])
        give(r, 1, graph_node(r->g, OP_Neg, DY));
    return NULL;
}
err grad_mul(struct grad *r)
{
    for (int i = 0; i < 2; i++)
        if (r->need[i])
            give(r, i, times(r->g, DY, r->n.in[1 - i]));
    return NULL;
}
err grad_div(struct grad *r) /* dx = dy / b, db = −dx y */
{
    int d = graph_node(r->g, OP_Div, DY, r->n.in[1]);
    if (r->need[0])
        give(r, 0, d);
    if (r->need[1])
        give(r, 1, graph_node(r->g, OP_Neg, times(r->g, d, Y)));
    return NULL;
}

/* The value's only number, if it is a constant scalar of floats. */
static bool scalar_of(const struct graph *g, int id, double *out)
{
    const struct value *v = value_at(g, id);
    if (v->kind != VALUE_CONST || !v->data || shape_count(&v->shape) != 1)
        return false;
    if (v->type == TENSOR_F32)
        *out = *(const float *)v->data;
    else if (v->type == TENSOR_F64)
        *out = *(const double *)v->data;
    else
        return false;
    return true;
}

/* dx = dy b x^(b−1); db = dy y log x, and 0 where x is not above 0 (as the limit at 0 is). */
err grad_pow(struct grad *r)
{
    struct graph *g = r->g;
    int x = X, b = r->n.in[1];
    double k;
    if (r->need[0] && scalar_of(g, b, &k)) {
        int p = k == 2 ? x : graph_node(g, OP_Pow, x, graph_scalar_like(g, x, k - 1));
        give(r, 0, times(g, DY, scaled(g, p, k)));
    } else if (r->need[0]) {
        if (value_at(g, b)->type != value_at(g, x)->type)
            b = graph_node(g, OP_CastLike, b, x);
        int p = graph_node(g, OP_Pow, x, graph_node(g, OP_Sub, b, graph_scalar_like(g, b, 1)));
        give(r, 0, times(g, DY, times(g, b, p)));
    }
    if (r->need[1]) {
        int above = graph_node(g, OP_Greater, x, graph_scalar_like(g, x, 0));
        int log = graph_node(g, OP_Log, graph_node(g, OP_Where, above, x, graph_scalar_like(g, x, 1)));
        give(r, 1, times(g, DY, times(g, Y, log)));
    }
    return NULL;
}

/* 1 where x equals y, which is broadcast, else 0. */
static int equal_mask(struct graph *g, int x, int y)
{
    return graph_node(g, OP_Where, graph_node(g, OP_Equal, x, y), graph_scalar_like(g, y, 1),
                      graph_scalar_like(g, y, 0));
}

/* Min and Max: dy goes to the inputs that were picked, in equal shares where several were. */
err grad_pick(struct grad *r)
{
    struct graph *g = r->g;
    int count = -1, *mask = NEW_N(g->a, int, r->n.n_in);
    for (int i = 0; i < r->n.n_in; i++) {
        mask[i] = equal_mask(g, r->n.in[i], Y);
        count = count < 0 ? mask[i] : graph_node(g, OP_Add, count, mask[i]);
    }
    int share = graph_node(g, OP_Div, DY, count);
    for (int i = 0; i < r->n.n_in; i++)
        if (r->need[i])
            give(r, i, times(g, share, mask[i]));
    return NULL;
}
err grad_prelu(struct grad *r)
{
    struct graph *g = r->g;
    int below = graph_node(g, OP_Less, X, graph_scalar_like(g, X, 0));
    if (r->need[0])
        give(r, 0, graph_node(g, OP_Where, below, times(g, DY, r->n.in[1]), DY));
    if (r->need[1])
        give(r, 1, where(g, below, times(g, DY, X)));
    return NULL;
}
err grad_where(struct grad *r)
{
    int zero = graph_scalar_like(r->g, DY, 0);
    if (r->need[1])
        give(r, 1, graph_node(r->g, OP_Where, X, DY, zero));
    if (r->need[2])
        give(r, 2, graph_node(r->g, OP_Where, X, zero, DY));
    return NULL;
}

/* ---- gradients of reductions ---- */

/* What a reduction gave (or its gradient), repeated to the shape of x again. */
static int spread(struct grad *r, int v)
{
    unsigned axes;
    bool known;
    err e = reduce_axes(r->g, &r->n, &axes, &known);
    graph_fail(r->g, e);
    int64_t list[TENSOR_RANK_MAX];
    size_t n = 0;
    for (int i = 0; !e && i < TENSOR_RANK_MAX && !attr_i(&r->n, "keepdims", 1); i++)
        if (axes >> i & 1)
            list[n++] = i;
    return graph_node_with(r->g, OP_BroadcastTo, ATTRS({ "axes", ATTR_INTS, .is = list, .n = n }), v, X);
}

err grad_reduce_sum(struct grad *r)
{
    r->dx[0] = spread(r, DY);
    return NULL;
}
err grad_reduce_mean(struct grad *r)
{
    double many = (double)shape_count(&value_at(r->g, X)->shape),
           few = (double)shape_count(&value_at(r->g, Y)->shape);
    r->dx[0] = spread(r, scaled(r->g, DY, few / many));
    return NULL;
}
err grad_reduce_pick(struct grad *r) /* in equal shares where several are greatest */
{
    struct graph *g = r->g;
    int mask = equal_mask(g, X, spread(r, Y));
    struct attr attrs[8] = { 0 };
    for (size_t i = 0; i < r->n.n_attrs && i < 7; i++)
        attrs[i] = r->n.attrs[i];
    const int in[] = { mask, r->n.n_in > 1 ? r->n.in[1] : -1 };
    int count = graph_add(g, &op_table[OP_ReduceSum], in, 2, 1, attrs);
    r->dx[0] = times(g, mask, spread(r, graph_node(g, OP_Div, DY, count)));
    return NULL;
}
err grad_reduce_prod(struct grad *r) /* x is not 0 */
{
    r->dx[0] = graph_node(r->g, OP_Div, spread(r, times(r->g, DY, Y)), X);
    return NULL;
}
err grad_reduce_l1(struct grad *r)
{
    r->dx[0] = times(r->g, spread(r, DY), graph_node(r->g, OP_Sign, X));
    return NULL;
}
err grad_reduce_l2(struct grad *r)
{
    r->dx[0] = times(r->g, X, spread(r, graph_node(r->g, OP_Div, DY, Y)));
    return NULL;
}
err grad_reduce_square(struct grad *r)
{
    r->dx[0] = times(r->g, X, spread(r, scaled(r->g, DY, 2)));
    return NULL;
}
err grad_reduce_logsum(struct grad *r)
{
    r->dx[0] = spread(r, graph_node(r->g, OP_Div, DY, graph_node(r->g, OP_Exp, Y)));
    return NULL;
}
err grad_reduce_logsumexp(struct grad *r)
{
    int share = graph_node(r->g, OP_Exp, graph_node(r->g, OP_Sub, X, spread(r, Y)));
    r->dx[0] = times(r->g, spread(r, DY), share);
    return NULL;
}
err grad_cumsum(struct grad *r) /* the same from the other end */
{
    const struct attr *attrs = ATTRS({ "exclusive", ATTR_INT, .i = attr_i(&r->n, "exclusive", 0) },
                                     { "reverse", ATTR_INT, .i = !attr_i(&r->n, "reverse", 0) });
    r->dx[0] = graph_node_with(r->g, OP_CumSum, attrs, DY, r->n.in[1]);
    return NULL;
}
err grad_sum_like(struct grad *r)
{
    if (r->need[0])
        r->dx[0] = graph_node(r->g, OP_BroadcastTo, DY, X);
    return NULL;
}
err grad_broadcast(struct grad *r)
{
    const struct attr *axes = attr_find(&r->n, "axes");
    if (r->need[0] && axes && axes->n > 0)
        r->dx[0] = graph_node_with(
            r->g, OP_ReduceSum,
            ATTRS({ "axes", ATTR_INTS, .is = axes->is, .n = axes->n }, { "keepdims", ATTR_INT, .i = 0 }), DY);
    if (r->need[0])
        r->dx[0] = grad_sum_to(r->g, r->dx[0] < 0 ? DY : r->dx[0], X);
    return NULL;
}
