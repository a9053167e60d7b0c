// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

static bool is_float(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_F16 || t == TENSOR_BF16;
}
static bool is_whole(enum tensor_type t)
{
    return t == TENSOR_I64 || t == TENSOR_I32 || t == TENSOR_I16 || t == TENSOR_U16 || t == TENSOR_I8 ||
           t == TENSOR_U8;
}
/* Both are known and differ. */
static bool differ(int64_t x, int64_t y)
{
    return x >= 0 && y >= 0 && x != y;
}

/* The loss of halves is told in F32. */
static enum tensor_type loss_type(enum tensor_type t)
{
    return t == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32;
}

static void set(struct value *v, enum tensor_type type, struct shape shape)
{
    if (v)
        v->type = type, v->shape = shape;
}

err shape_as_input_1(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 1);
    set(node_out(g, n, 0), x->type, x->shape);
    return NULL;
}

/* One weight, or one for each of n. */
static err weights_check(struct graph *g, struct node *n, int i, int64_t count, bool one_is_fine,
                         const char *of)
{
    const struct value *w = node_in(g, n, i);
    if (!w)
        return NULL;
    if (w->type != TENSOR_F32 && w->type != TENSOR_F64 && w->type != node_in(g, n, 0)->type)
        return node_err(g, n, "its weights (input %d) are no floats", i);
    int64_t have = shape_count(&w->shape);
    if (have >= 0 && count >= 0 && have != count && !(one_is_fine && have == 1))
        return node_err(g, n, "input %d has %lld weights, its %s are %lld", i, (long long)have, of,
                        (long long)count);
    return NULL;
}

/* Labels have the shape of the scores without its axis `axis`. */
static err labels_check(struct graph *g, struct node *n, const struct value *x, const struct value *labels,
                        int axis)
{
    if (!is_float(x->type))
        return node_err(g, n, "its scores are no floats");
    if (!is_whole(labels->type))
        return node_err(g, n, "its labels are no whole numbers");
    if (x->shape.rank < 0 || labels->shape.rank < 0)
        return NULL;
    bool fits = labels->shape.rank == x->shape.rank - 1;
    for (int i = 0, k = 0; i < x->shape.rank && fits; i++)
        if (i != axis)
            fits = !differ(x->shape.d[i], labels->shape.d[k++]);
    if (!fits) {
        auto_arena struct arena *a = arena_new(0);
        return node_err(g, n, "labels of shape %.*s do not fit scores of shape %.*s",
                        STR(shape_text(g, a, &labels->shape)), STR(shape_text(g, a, &x->shape)));
    }
    return NULL;
}

/* ---- ONNX's two ---- */

err shape_onnx_loss(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0), *labels = node_in(g, n, 1);
    struct str reduction = attr_s(n, "reduction", S("mean"));
    if (!str_is(reduction, "mean") && !str_is(reduction, "sum") && !str_is(reduction, "none"))
        return node_err(g, n, "there is no reduction '%.*s': mean, sum or none", STR(reduction));
    if (x->shape.rank >= 0 && x->shape.rank < 2)
        return node_err(g, n, "its scores have rank %d, at least 2 is needed", x->shape.rank);
    TRY(labels_check(g, n, x, labels, 1));
    TRY(weights_check(g, n, 2, x->shape.rank < 0 ? -1 : x->shape.d[1], false, "classes"));
    set(node_out(g, n, 0), x->type, str_is(reduction, "none") ? labels->shape : SCALAR);
    set(node_out(g, n, 1), x->type, x->shape);
    return NULL;
}

err grad_softmax_loss(struct grad *r)
{
    const struct node *n = &r->n;
    bool softmax = n->op->id == OP_SoftmaxCrossEntropyLoss;
    const struct attr *ignore = attr_find(n, "ignore_index");
    const struct attr attrs[] = {
        { "softmax", ATTR_INT, .i = softmax },
        { "reduction", ATTR_TEXT, .s = attr_s(n, "reduction", S("mean")) },
        ignore ? *ignore : (struct attr){ 0 },
        { 0 },
    };
    if (!r->need[0])
        return NULL;
    if (r->dy[0] >= 0)
        r->dx[0] = graph_add(r->g, &op_table[OP_OnnxLossGrad],
                             GRAPH_IDS(r->dy[0], n->in[0], n->in[1], n->n_in > 2 ? n->in[2] : -1), 1, attrs);
    if (n->n_out > 1 && r->dy[1] >= 0) {
        int more = graph_node_with(r->g, OP_LogSoftmaxGrad, ATTRS({ "axis", ATTR_INT, .i = 1 }), r->dy[1],
                                   n->out[1]);
        r->dx[0] = r->dx[0] < 0 ? more : graph_node(r->g, OP_Add, r->dx[0], more);
    }
    return NULL;
}

/* ---- own losses: the gradient's node is (dy, the loss' inputs) with its attributes ---- */

static void grad_node(struct grad *r, enum op_id op, int n_out, const struct attr *more)
{
    const struct node *n = &r->n;
    int in[8] = { r->dy[0] };
    struct attr attrs[8] = { 0 };
    size_t at = 0;
    for (int i = 0; i < n->n_in; i++)
        in[i + 1] = n->in[i];
    for (; more && more[at].name; at++)
        attrs[at] = more[at];
    for (size_t i = 0; i < n->n_attrs && at < 7; i++)
        attrs[at++] = n->attrs[i];
    int first = graph_add(r->g, &op_table[op], in, n->n_in + 1, n_out, attrs);
    for (int i = 0; i < n_out; i++)
        if (r->need[i])
            r->dx[i] = first < 0 ? -1 : first + i;
}

static err class_loss_check(struct graph *g, struct node *n, int at)
{
    const struct value *x = node_in(g, n, at);
    int rank = x->shape.rank;
    float smoothing = attr_f(n, "label_smoothing", 0);
    if (rank >= 0 && rank < 2)
        return node_err(g, n, "its scores have rank %d, at least 2 is needed", rank);
    if (!(smoothing >= 0 && smoothing < 1))
        return node_err(g, n, "label_smoothing %g is outside of [0, 1)", (double)smoothing);
    TRY(labels_check(g, n, x, node_in(g, n, at + 1), rank - 1));
    TRY(weights_check(g, n, at + 2, rank < 0 ? -1 : x->shape.d[rank - 1], false, "classes"));
    return weights_check(g, n, at + 3, rank < 0 ? -1 : x->shape.d[0], false, "rows");
}

err shape_class_loss(struct graph *g, struct node *n)
{
    TRY(class_loss_check(g, n, 0));
    set(node_out(g, n, 0), loss_type(node_in(g, n, 0)->type), SCALAR);
    return NULL;
}

err shape_class_loss_grad(struct graph *g, struct node *n)
{
    TRY(class_loss_check(g, n, 1));
    TRY(shape_as_input_1(g, n));
    set(node_out(g, n, 1), loss_type(node_in(g, n, 1)->type), SCALAR);
    return NULL;
}

err grad_class_loss(struct grad *r)
{
    if (r->need[0])
        grad_node(r, OP_SoftmaxCrossEntropyGrad, 1, NULL);
    return NULL;
}

static err pointwise_check(struct graph *g, struct node *n, int at)
{
    const struct value *x = node_in(g, n, at), *t = node_in(g, n, at + 1);
    float smoothing = attr_f(n, "label_smoothing", 0), delta = attr_f(n, "delta", 1);
    int rank = x->shape.rank;
    if (!is_float(x->type) || !is_float(t->type) || (x->type == TENSOR_F64) != (t->type == TENSOR_F64))
        return node_err(g, n, "predictions and targets are not floats of one kind");
    if (!(smoothing >= 0 && smoothing < 1))
        return node_err(g, n, "label_smoothing %g is outside of [0, 1)", (double)smoothing);
    if (!(delta > 0))
        return node_err(g, n, "delta %g is not above 0", (double)delta);
    if (rank < 0 || t->shape.rank < 0)
        return NULL;
    if (rank == 0)
        return node_err(g, n, "predictions without an axis of rows");
    int64_t nx = shape_count(&x->shape), nt = shape_count(&t->shape);
    if (differ(nx, nt) || differ(x->shape.d[0], t->shape.rank > 0 ? t->shape.d[0] : 1)) {
        auto_arena struct arena *a = arena_new(0);
        return node_err(g, n, "targets of shape %.*s do not fit predictions of shape %.*s",
                        STR(shape_text(g, a, &t->shape)), STR(shape_text(g, a, &x->shape)));
    }
    TRY(weights_check(g, n, at + 2, rank > 1 ? x->shape.d[rank - 1] : 1, true, "columns"));
    return weights_check(g, n, at + 3, x->shape.d[0], false, "rows");
}

err shape_pointwise_loss(struct graph *g, struct node *n)
{
    TRY(pointwise_check(g, n, 0));
    set(node_out(g, n, 0), loss_type(node_in(g, n, 0)->type), SCALAR);
    return NULL;
}

err shape_pointwise_loss_grad(struct graph *g, struct node *n)
{
    TRY(pointwise_check(g, n, 1));
    TRY(shape_as_input_1(g, n));
    set(node_out(g, n, 1), loss_type(node_in(g, n, 1)->type), SCALAR);
    return NULL;
}

err grad_pointwise_loss(struct grad *r)
{
    const struct value *x = value_at(r->g, r->n.in[0]), *t = value_at(r->g, r->n.in[1]);
    if (!r->need[0] && !r->need[1])
        return NULL;
    if (r->need[1] &&
        (r->n.op->id == OP_SigmoidCrossEntropy || x->type != t->type || !shape_same(&x->shape, &t->shape)))
        FAIL(UNSUPPORTED, "%s '%.*s' has no gradient for its targets", r->n.op->name, STR(r->n.name));
    const struct attr of[] = { { "of", ATTR_TEXT, .s = str_of(r->n.op->name) }, { 0 } };
    if (r->need[0])
        grad_node(r, OP_PointwiseLossGrad, 1, of);
    if (!r->need[1])
        return NULL;
    /* What is left is symmetric: targets are predictions of the predictions. */
    struct grad other = *r;
    int dx = -1,
        in[4] = { r->n.in[1], r->n.in[0], r->n.n_in > 2 ? r->n.in[2] : -1, r->n.n_in > 3 ? r->n.in[3] : -1 };
    other.n.in = in;
    other.need = (const bool[]){ true };
    other.dx = &dx;
    grad_node(&other, OP_PointwiseLossGrad, 1, of);
    r->dx[1] = dx;
    return NULL;
}

err shape_ranking_loss(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    if (!is_float(x->type) || !is_float(node_in(g, n, 1)->type) || !is_whole(node_in(g, n, 2)->type))
        return node_err(g, n, "it takes scores and relevances (floats) and groups (whole numbers)");
    int64_t rows = x->shape.rank > 0 ? x->shape.d[0] : -1;
    for (int i = 0; i < 3; i++) {
        const struct value *v = node_in(g, n, i);
        int64_t count = shape_count(&v->shape);
        if (v->shape.rank == 0 || v->shape.rank > 2 || differ(count, rows) ||
            (v->shape.rank > 0 && differ(v->shape.d[0], rows)))
            return node_err(g, n, "input %d is not one number for each row", i);
    }
    set(node_out(g, n, 0), loss_type(x->type), SCALAR);
    return NULL;
}

err grad_ranking_loss(struct grad *r)
{
    if (r->need[0])
        grad_node(r, OP_PairwiseRankingLossGrad, 1, NULL);
    return NULL;
}

err shape_triplet_loss(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0), *labels = node_in(g, n, 1);
    if (!is_float(x->type) || !is_whole(labels->type))
        return node_err(g, n, "it takes points (floats) and labels (whole numbers)");
    if ((x->shape.rank >= 0 && x->shape.rank != 2) || (labels->shape.rank >= 0 && labels->shape.rank != 1) ||
        (x->shape.rank == 2 && labels->shape.rank == 1 && differ(x->shape.d[0], labels->shape.d[0])))
        return node_err(g, n, "points and labels are not [rows, D] and [rows]");
    set(node_out(g, n, 0), loss_type(x->type), SCALAR);
    return NULL;
}

err grad_triplet_loss(struct grad *r)
{
    if (r->need[0])
        grad_node(r, OP_TripletLossGrad, 1, NULL);
    return NULL;
}
