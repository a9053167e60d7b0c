// SPDX-License-Identifier: Apache-2.0
#include "engine/graph_onnx.h"

struct attr *draft_attr(struct draft *d, const char *name)
{
    for (size_t i = 0; i < d->attrs.n; i++)
        if (strcmp(d->attrs.v[i].name, name) == 0)
            return &d->attrs.v[i];
    return NULL;
}

void draft_drop(struct draft *d, const char *name)
{
    struct attr *at = draft_attr(d, name);
    if (at)
        *at = d->attrs.v[--d->attrs.n];
}

void draft_set(struct draft *d, struct attr at)
{
    draft_drop(d, at.name);
    push(d->g->a, &d->attrs, at);
}

static void input_set(struct draft *d, size_t i, int id)
{
    while (d->in.n <= i)
        push(d->g->a, &d->in, -1);
    d->in.v[i] = id;
}

/* A list of whole numbers as an input. */
static err ints_to_input(struct draft *d, const char *name, size_t i)
{
    const struct attr *at = draft_attr(d, name);
    if (!at)
        return NULL;
    if (at->type != ATTR_INTS)
        FAIL(INVALID, "%.*s '%.*s': its attribute %s is no list of whole numbers", STR(d->op), STR(d->name),
             name);
    input_set(d, i, graph_i64s(d->g, at->is, at->n));
    draft_drop(d, name);
    return NULL;
}

static enum tensor_type type_in(const struct draft *d)
{
    return d->in.n > 0 && d->in.v[0] >= 0 ? value_at(d->g, d->in.v[0])->type : TENSOR_F32;
}

/* A number as a scalar input of input 0's type. */
static void float_to_input(struct draft *d, const char *name, size_t i)
{
    const struct attr *at = draft_attr(d, name);
    if (!at || at->type != ATTR_FLOAT)
        return;
    double wide = at->f;
    input_set(d, i,
              type_in(d) == TENSOR_F64 ? graph_const(d->g, TENSOR_F64, SCALAR, &wide)
                                       : graph_f32(d->g, at->f));
    draft_drop(d, name);
}

static err lift_axes(struct draft *d)
{
    return ints_to_input(d, "axes", 1);
}

static err lift_split(struct draft *d)
{
    return ints_to_input(d, "split", 1);
}

static err lift_slice(struct draft *d)
{
    TRY(ints_to_input(d, "starts", 1));
    TRY(ints_to_input(d, "ends", 2));
    return ints_to_input(d, "axes", 3);
}

static err lift_pad(struct draft *d)
{
    TRY(ints_to_input(d, "pads", 1));
    float_to_input(d, "value", 2);
    return NULL;
}

static err lift_clip(struct draft *d)
{
    float_to_input(d, "min", 1);
    float_to_input(d, "max", 2);
    return NULL;
}

static err lift_dropout(struct draft *d)
{
    const struct attr *at = draft_attr(d, "ratio");
    if (at && at->type == ATTR_FLOAT)
        input_set(d, 1, graph_f32(d->g, at->f));
    draft_drop(d, "ratio");
    return NULL;
}

static err lift_top_k(struct draft *d)
{
    const struct attr *at = draft_attr(d, "k");
    if (at && at->type == ATTR_INT)
        input_set(d, 1, graph_i64s(d->g, &at->i, 1));
    draft_drop(d, "k");
    return NULL;
}

/* How Upsample, and Resize 10, found their places. */
static void resize_as_before(struct draft *d)
{
    d->op = S("Resize");
    draft_set(d, (struct attr){ "coordinate_transformation_mode", ATTR_TEXT, .s = S("asymmetric") });
    draft_set(d, (struct attr){ "nearest_mode", ATTR_TEXT, .s = S("floor") });
}
static err lift_resize(struct draft *d)
{
    int scales = d->in.n > 1 ? d->in.v[1] : -1;
    input_set(d, 1, -1);
    input_set(d, 2, scales);
    resize_as_before(d);
    return NULL;
}
static err lift_upsample(struct draft *d)
{
    const struct attr *at = draft_attr(d, "scales");
    if (at && at->type == ATTR_FLOATS) {
        input_set(d, 1, graph_const(d->g, TENSOR_F32, SHAPE((int64_t)at->n), at->fs));
        draft_drop(d, "scales");
    }
    return lift_resize(d);
}

/* Before 14 the form of training was said by the number of outputs. */
static err lift_batch_norm(struct draft *d)
{
    const struct attr *spatial = draft_attr(d, "spatial");
    if (spatial && spatial->i != 1)
        FAIL(UNSUPPORTED,
             "BatchNormalization '%.*s': statistics for each place (spatial 0) are not known here",
             STR(d->name));
    draft_drop(d, "spatial");
    if (d->out.n > 1)
        d->out.n = 1;
    return NULL;
}

/* Before 13: over all axes from `axis` on, as one. */
static err lift_softmax(struct draft *d)
{
    const struct attr *at = draft_attr(d, "axis");
    int64_t axis = at && at->type == ATTR_INT ? at->i : 1;
    int x = d->in.n > 0 ? d->in.v[0] : -1;
    int rank = x >= 0 ? value_at(d->g, x)->shape.rank : -1;
    if (rank < 0)
        FAIL(UNSUPPORTED, "%.*s '%.*s': its input's rank is not known", STR(d->op), STR(d->name));
    axis += axis < 0 ? rank : 0;
    if (axis != rank - 1) {
        const struct op *op = op_find(S(""), d->op);
        if (!op)
            return NULL; /* refused by the caller */
        int shape = graph_node(d->g, OP_Shape, x);
        int y = graph_node_with(d->g, OP_Flatten, ATTRS({ "axis", ATTR_INT, .i = axis }), x);
        y = graph_add(d->g, op, &y, 1, 1, ATTRS({ "axis", ATTR_INT, .i = -1 }));
        d->op = S("Reshape");
        d->attrs.n = d->in.n = 0;
        push(d->g->a, &d->in, y);
        push(d->g->a, &d->in, shape);
        return graph_error(d->g);
    }
    draft_set(d, (struct attr){ "axis", ATTR_INT, .i = -1 });
    return NULL;
}

static err lift_scatter(struct draft *d)
{
    d->op = S("ScatterElements");
    return NULL;
}

/* 18: a scale for each group; 21: for each channel. */
static err lift_group_norm(struct draft *d)
{
    const struct attr *at = draft_attr(d, "num_groups");
    const struct shape *x = d->in.n == 3 && d->in.v[0] >= 0 ? &value_at(d->g, d->in.v[0])->shape : NULL;
    if (!at || at->type != ATTR_INT || at->i < 1 || !x || x->rank < 2 || x->d[1] < 0)
        FAIL(UNSUPPORTED, "GroupNormalization '%.*s': its groups or channels are not known", STR(d->name));
    int64_t each[] = { at->i, x->d[1] / at->i }, all = x->d[1], one = 1;
    for (size_t i = 1; i < 3; i++) {
        int v = graph_node(d->g, OP_Unsqueeze, d->in.v[i], graph_i64s(d->g, &one, 1));
        v = graph_node(d->g, OP_Expand, v, graph_i64s(d->g, each, 2));
        d->in.v[i] = graph_node(d->g, OP_Reshape, v, graph_i64s(d->g, &all, 1));
    }
    return graph_error(d->g);
}

static const struct {
    const char *op;
    int64_t before; /* the first opset that says it as we do */
    err (*lift)(struct draft *);
} lifts[] = {
    { "Squeeze", 13, lift_axes },
    { "Unsqueeze", 13, lift_axes },
    { "ReduceSum", 13, lift_axes },
    { "ReduceL1", 18, lift_axes },
    { "ReduceL2", 18, lift_axes },
    { "ReduceLogSum", 18, lift_axes },
    { "ReduceLogSumExp", 18, lift_axes },
    { "ReduceMax", 18, lift_axes },
    { "ReduceMean", 18, lift_axes },
    { "ReduceMin", 18, lift_axes },
    { "ReduceProd", 18, lift_axes },
    { "ReduceSumSquare", 18, lift_axes },
    { "Split", 13, lift_split },
    { "Slice", 10, lift_slice },
    { "Pad", 11, lift_pad },
    { "Clip", 11, lift_clip },
    { "Dropout", 12, lift_dropout },
    { "TopK", 10, lift_top_k },
    { "Resize", 11, lift_resize },
    { "Upsample", 10, lift_upsample },
    { "BatchNormalization", 14, lift_batch_norm },
    { "Softmax", 13, lift_softmax },
    { "LogSoftmax", 13, lift_softmax },
    { "Scatter", 11, lift_scatter },
    { "GroupNormalization", 21, lift_group_norm },
};

err graph_lift(struct draft *d)
{
    for (size_t i = 0; i < sizeof lifts / sizeof *lifts; i++)
        if (d->opset < lifts[i].before && str_eq(d->op, str_of(lifts[i].op)))
            return lifts[i].lift(d);
    return NULL;
}
