// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/group.h"

static bool is_loss(const struct op *op)
{
    return op->id == OP_SoftmaxCrossEntropy || op->id == OP_SigmoidCrossEntropy ||
           op->id == OP_MeanSquaredError || op->id == OP_MeanAbsoluteError || op->id == OP_HuberLoss;
}

/* The node is the gradient of that loss: (dy, the same inputs). */
static bool is_grad_of(const struct node *n, const struct node *loss)
{
    enum op_id want = loss->op->id == OP_SoftmaxCrossEntropy ? OP_SoftmaxCrossEntropyGrad
                                                             : OP_PointwiseLossGrad;
    if (n->op->id != (int)want || n->n_out != 1 || n->n_in != loss->n_in + 1 ||
        (want == OP_PointwiseLossGrad && !str_eq(attr_s(n, "of", S("")), str_of(loss->op->name))))
        return false;
    for (int i = 0; i < loss->n_in; i++)
        if (n->in[i + 1] != loss->in[i])
            return false;
    return true;
}

/* Nothing between the two reads the loss: it may come to be later. */
static bool waits(const struct graph *g, size_t from, size_t to, int loss)
{
    for (size_t i = from + 1; i <= to; i++)
        for (int k = 0; k < g->nodes.v[i].n_in; k++)
            if (g->nodes.v[i].in[k] == loss)
                return false;
    return true;
}

/* The gradient tells the loss, too; the loss's own node goes. */
static void losses(struct graph *g)
{
    size_t to = 0;
    for (size_t i = 0; i < g->nodes.n; i++) {
        struct node n = g->nodes.v[i];
        bool gone = false;
        for (size_t k = i + 1; k < g->nodes.n && is_loss(n.op) && !gone; k++) {
            struct node *grad = &g->nodes.v[k];
            if (!is_grad_of(grad, &n) || !waits(g, i, k, n.out[0]))
                continue;
            int *out = NEW_N(g->a, int, 2);
            out[0] = grad->out[0], out[1] = n.out[0];
            grad->out = out, grad->n_out = 2;
            gone = true;
        }
        if (!gone)
            g->nodes.v[to++] = n;
    }
    g->nodes.n = to;
    graph_renumber(g);
}

/* The mask is not made where it is not read; nobody reads it of a Dropout that does nothing. */
static void dropouts(struct graph *g)
{
    for (size_t i = 0; i < g->nodes.n; i++) {
        struct node *n = &g->nodes.v[i];
        bool mask = false;
        for (size_t k = 0; k < g->nodes.n && n->op->id == OP_Dropout && n->n_out > 1; k++)
            for (int j = 0; j < g->nodes.v[k].n_in; j++)
                mask |= n->out[1] >= 0 && g->nodes.v[k].in[j] == n->out[1];
        for (size_t k = 0; k < g->outputs.n && n->n_out > 1; k++)
            mask |= g->outputs.v[k] == n->out[1];
        if (n->op->id == OP_Dropout && !mask)
            n->op = &op_table[OP_Identity], n->n_in = n->n_out = 1;
    }
}

void sequence_lower(struct graph *g, bool train)
{
    if (train)
        losses(g);
    else
        dropouts(g);
}
