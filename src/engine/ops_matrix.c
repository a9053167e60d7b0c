// SPDX-License-Identifier: Apache-2.0
#include "engine/ops.h"

/* Two sizes that must be one: the known one. */
static err same_size(const struct graph *g, const struct node *n, int64_t x, int64_t y, const char *what)
{
    if (x >= 0 && y >= 0 && x != y)
        return node_err(g, n, "%s: %lld and %lld must be equal", what, (long long)x, (long long)y);
    return NULL;
}

static err product_shape(struct graph *g, struct node *n, bool ta, bool tb, bool sum)
{
    const struct value *va = node_in(g, n, 0), *vb = node_in(g, n, 1);
    struct value *out = node_out(g, n, 0);
    if (!va || !vb || !out)
        return node_err(g, n, "takes two matrices");
    if (va->type != vb->type)
        return node_err(g, n, "both matrices must be of one type");
    out->type = va->type;
    struct shape x = va->shape, y = vb->shape;
    out->shape = (struct shape){ .rank = -1 };
    if (x.rank < 0 || y.rank < 0)
        return NULL;
    if (x.rank == 0 || y.rank == 0)
        return node_err(g, n, "takes no scalars");
    bool row = x.rank == 1, column = y.rank == 1;
    if (row)
        x = SHAPE(1, x.d[0]);
    if (column)
        y = SHAPE(y.d[0], 1);
    int64_t m = x.d[x.rank - (ta ? 1 : 2)], k = x.d[x.rank - (ta ? 2 : 1)];
    int64_t k2 = y.d[y.rank - (tb ? 1 : 2)], cols = y.d[y.rank - (tb ? 2 : 1)];
    TRY(same_size(g, n, k, k2, "columns of the first and rows of the second matrix"));
    struct shape bx = x, by = y, batch;
    bx.rank -= 2;
    by.rank -= 2;
    TRY(shape_broadcast(g, n, &bx, &by, &batch));
    if (sum)
        batch.rank = 0;
    if (batch.rank + 2 > TENSOR_RANK_MAX)
        return node_err(g, n, "has more than %d axes", TENSOR_RANK_MAX);
    if (!row)
        batch.d[batch.rank++] = m;
    if (!column)
        batch.d[batch.rank++] = cols;
    out->shape = batch;
    return NULL;
}

err shape_matmul(struct graph *g, struct node *n)
{
    return product_shape(g, n, false, false, false);
}

err shape_matmul_t(struct graph *g, struct node *n)
{
    return product_shape(g, n, attr_i(n, "transA", 0) != 0, attr_i(n, "transB", 0) != 0,
                         attr_i(n, "sum", 0) != 0);
}

err shape_gemm(struct graph *g, struct node *n)
{
    const struct value *va = node_in(g, n, 0), *vb = node_in(g, n, 1), *vc = node_in(g, n, 2);
    struct value *out = node_out(g, n, 0);
    if (va && vb &&
        ((va->shape.rank >= 0 && va->shape.rank != 2) || (vb->shape.rank >= 0 && vb->shape.rank != 2)))
        return node_err(g, n, "takes matrices of two axes");
    TRY(product_shape(g, n, attr_i(n, "transA", 0) != 0, attr_i(n, "transB", 0) != 0, false));
    if (vc && vc->type != va->type)
        return node_err(g, n, "C must be of the type of A and B");
    if (!vc || vc->shape.rank < 0 || out->shape.rank < 0)
        return NULL;
    if (vc->shape.rank > 2)
        return node_err(g, n, "C has more than two axes");
    for (int i = 0; i < vc->shape.rank; i++) {
        int64_t d = vc->shape.d[vc->shape.rank - 1 - i];
        if (d != 1)
            TRY(same_size(g, n, d, out->shape.d[1 - i], "C and the product"));
    }
    return NULL;
}

/* ---- gradients ---- */

static int product(struct graph *g, int x, int y, bool ta, bool tb, bool sum, float alpha)
{
    return graph_node_with(g, OP_MatMulT,
                           ATTRS({ "transA", ATTR_INT, .i = ta }, { "transB", ATTR_INT, .i = tb },
                                 { "sum", ATTR_INT, .i = sum }, { "alpha", ATTR_FLOAT, .f = alpha }),
                           x, y);
}

static int reshaped(struct graph *g, int x, const struct shape *s)
{
    if (x < 0 || shape_same(&value_at(g, x)->shape, s))
        return x;
    return graph_node(g, OP_Reshape, x, graph_i64s(g, s->d, (size_t)s->rank));
}

err grad_matmul(struct grad *d)
{
    struct graph *g = d->g;
    int a = d->n.in[0], b = d->n.in[1], dy = d->dy[0];
    const struct shape sa = value_at(g, a)->shape, sb = value_at(g, b)->shape;
    struct shape ma = sa.rank == 1 ? SHAPE(1, sa.d[0]) : sa, mb = sb.rank == 1 ? SHAPE(sb.d[0], 1) : sb;
    struct shape sy = value_at(g, dy)->shape;
    if (sb.rank == 1)
        sy.d[sy.rank++] = 1;
    if (sa.rank == 1) {
        sy.d[sy.rank] = sy.d[sy.rank - 1];
        sy.d[sy.rank - 1] = 1;
        sy.rank++;
    }
    a = reshaped(g, a, &ma);
    b = reshaped(g, b, &mb);
    dy = reshaped(g, dy, &sy);
    if (d->need[0])
        d->dx[0] = reshaped(g, grad_sum_to(g, product(g, dy, b, false, true, false, 1), a), &sa);
    if (d->need[1]) {
        /* A matrix that all batches share: its gradient is one product over all their rows. */
        int db = product(g, a, dy, true, false, mb.rank == 2, 1);
        d->dx[1] = reshaped(g, grad_sum_to(g, db, b), &sb);
    }
    return NULL;
}

err grad_gemm(struct grad *d)
{
    struct graph *g = d->g;
    const struct node *n = &d->n;
    const bool ta = attr_i(n, "transA", 0) != 0, tb = attr_i(n, "transB", 0) != 0;
    const float alpha = attr_f(n, "alpha", 1), beta = attr_f(n, "beta", 1);
    const int a = n->in[0], b = n->in[1], dy = d->dy[0];
    if (d->need[0])
        d->dx[0] = ta ? product(g, b, dy, tb, true, false, alpha)
                      : product(g, dy, b, false, !tb, false, alpha);
    if (d->need[1])
        d->dx[1] = tb ? product(g, dy, a, true, ta, false, alpha)
                      : product(g, a, dy, !ta, false, false, alpha);
    if (n->n_in > 2 && n->in[2] >= 0 && d->need[2]) {
        int dc = grad_sum_to(g, dy, n->in[2]);
        if (beta != 1) {
            int c = graph_f32(g, beta);
            if (value_at(g, dc)->type != TENSOR_F32)
                c = graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = value_at(g, dc)->type }), c);
            dc = graph_node(g, OP_Mul, dc, c);
        }
        d->dx[2] = dc;
    }
    return NULL;
}
