// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

#define O(name_, domain_, since_, in0, in1, out0, out1, split_, shape_, grad_, tolerance_, doc_) \
    [OP_##name_] = { #name_, domain_, OP_##name_, since_, in0,        in1, out0,                 \
                     out1,   split_,  shape_,     grad_,  tolerance_, doc_ },
const struct op op_table[OP_COUNT] = { OPS(O) };
#undef O

static err shape_label_encoder(struct graph *g, struct node *n)
{
    struct value *y = node_out(g, n, 0);
    const struct attr *keys = attr_find(n, "keys_strings"), *values = attr_find(n, "values_int64s");
    if (node_in(g, n, 0)->type != TENSOR_TEXT || !keys || !values || keys->type != ATTR_TEXTS ||
        values->type != ATTR_INTS || keys->n != values->n)
        return node_err(g, n, "only keys_strings and as many values_int64s are known here");
    y->type = TENSOR_I64;
    y->shape = node_in(g, n, 0)->shape;
    return NULL;
}

const struct op op_label_encoder = {
    "LabelEncoder", ONNX_ML, OP_COUNT,       2, 1, 1, 1, 1, SPLIT_EACH, shape_label_encoder,
    NULL,           0,       "Ids of texts."
};

const struct op *op_find(struct str domain, struct str name)
{
    if (str_is(domain, "ai.onnx"))
        domain = S("");
    if (str_is(domain, ONNX_ML))
        return str_eq(name, str_of(op_label_encoder.name)) ? &op_label_encoder : NULL;
    for (int i = 0; i < OP_COUNT; i++)
        if (str_eq(str_of(op_table[i].name), name) && str_eq(str_of(op_table[i].domain), domain))
            return &op_table[i];
    return NULL;
}

struct value *node_in(const struct graph *g, const struct node *n, int i)
{
    return i < n->n_in && n->in[i] >= 0 ? value_at(g, n->in[i]) : NULL;
}

struct value *node_out(const struct graph *g, const struct node *n, int i)
{
    return i < n->n_out && n->out[i] >= 0 ? value_at(g, n->out[i]) : NULL;
}

err node_err(const struct graph *g, const struct node *n, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    auto_arena struct arena *a = arena_new(0);
    struct str what = vfmt(a, f, ap);
    va_end(ap);
    (void)g;
    return err_new(INVALID, "%s '%.*s': %.*s", n->op->name, STR(n->name), STR(what));
}

err shape_broadcast(const struct graph *g, const struct node *n, const struct shape *x, const struct shape *y,
                    struct shape *out)
{
    if (x->rank < 0 || y->rank < 0) {
        *out = (struct shape){ .rank = -1 };
        return NULL;
    }
    int rank = x->rank > y->rank ? x->rank : y->rank;
    struct shape s = { .rank = rank };
    for (int i = 0; i < rank; i++) {
        int xi = i - (rank - x->rank), yi = i - (rank - y->rank);
        int64_t dx = xi < 0 ? 1 : x->d[xi], dy = yi < 0 ? 1 : y->d[yi];
        if (dx != dy && dx != 1 && dy != 1 && dx >= 0 && dy >= 0) {
            auto_arena struct arena *a = arena_new(0);
            return node_err(g, n, "shapes %.*s and %.*s do not fit together", STR(shape_text(g, a, x)),
                            STR(shape_text(g, a, y)));
        }
        /* A symbol beside a number that is not 1 must be that number. */
        s.d[i] = dx == 1 ? dy : dy == 1 ? dx : dx >= 0 ? dx : dy;
    }
    *out = s;
    return NULL;
}

int grad_sum_to(struct graph *g, int dy, int x)
{
    if (dy < 0 || x < 0 || shape_same(&value_at(g, dy)->shape, &value_at(g, x)->shape))
        return dy;
    return graph_node(g, OP_SumTo, dy, x);
}
