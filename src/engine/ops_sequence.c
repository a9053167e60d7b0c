// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

static bool is_float(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_F16 || t == TENSOR_BF16;
}

static void set(struct value *v, enum tensor_type type, struct shape shape)
{
    if (v)
        v->type = type, v->shape = shape;
}

/* ---- softmax ---- */

err shape_softmax(struct graph *g, struct node *n)
{
    const struct value *x = node_in(g, n, 0);
    int axis;
    if (!is_float(x->type))
        return node_err(g, n, "its input is no float");
    if (x->shape.rank >= 0)
        TRY(attr_axis(n, "axis", -1, x->shape.rank, &axis));
    set(node_out(g, n, 0), x->type, x->shape);
    return NULL;
}

err grad_softmax(struct grad *r)
{
    enum op_id op = r->n.op->id == OP_Softmax ? OP_SoftmaxGrad : OP_LogSoftmaxGrad;
    if (r->need[0])
        r->dx[0] = graph_node_with(r->g, op, ATTRS({ "axis", ATTR_INT, .i = attr_i(&r->n, "axis", -1) }),
                                   r->dy[0], r->n.out[0]);
    return NULL;
}
