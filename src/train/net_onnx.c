// SPDX-License-Identifier: Apache-2.0
/* A model that is there, to go on from: its inputs and its body as they are, a new last layer if one is asked for. */
#include "train/net.h"

#include <fnmatch.h>
#include <math.h>

/* Rows are what the first size of an input says, whatever its name. */
static err batch_name(struct graph *g)
{
    for (size_t i = 0; i < g->inputs.n; i++) {
        const struct value *v = value_at(g, g->inputs.v[i]);
        if (v->shape.rank < 1 || v->shape.d[0] >= 0)
            FAIL(INVALID, "input '%.*s' of the model has no open number of rows", STR(v->name));
        g->symbols.v[-1 - v->shape.d[0]] = S("batch");
    }
    return NULL;
}

/* The model's inputs in the order of the data's. */
static err inputs_order(struct net *n)
{
    struct graph *g = n->g;
    int *order = NEW_N(g->a, int, n->n_inputs + 1);
    if (g->inputs.n != n->n_inputs)
        FAIL(INVALID, "the model has %zu inputs, the form gives %zu", g->inputs.n, n->n_inputs);
    for (size_t i = 0; i < n->n_inputs; i++) {
        order[i] = -1;
        for (size_t k = 0; k < g->inputs.n; k++)
            if (n->n_inputs == 1 || str_eq(value_at(g, g->inputs.v[k])->name, n->inputs[i].name))
                order[i] = g->inputs.v[k];
        if (order[i] < 0)
            FAIL(INVALID, "the model has no input '%.*s'", STR(n->inputs[i].name));
        struct shape s = value_at(g, order[i])->shape;
        bool same = s.rank == n->inputs[i].rank + 1;
        for (int k = 1; same && k < s.rank; k++)
            same = s.d[k] < 0 || s.d[k] == n->inputs[i].shape[k - 1];
        if (!same)
            FAIL(INVALID, "input '%.*s' of the model is %.*s, a row of the data does not fit",
                 STR(n->inputs[i].name), STR(shape_text(g, g->a, &s)));
    }
    n->x = order;
    for (size_t i = 0; i < n->n_inputs; i++)
        g->inputs.v[i] = order[i];
    return NULL;
}

/* What stands before a last Softmax or Sigmoid, as the loss has its own. */
static int logits_of(const struct graph *g, int y)
{
    int at = value_at(g, y)->node;
    const struct node *n = at >= 0 ? &g->nodes.v[at] : NULL;
    return n && (strcmp(n->op->name, "Softmax") == 0 || strcmp(n->op->name, "Sigmoid") == 0) ? n->in[0] : y;
}

static err body_take(struct net *n, const struct onnx_with *w)
{
    struct graph *g = n->g;
    if (!g->outputs.n)
        FAIL(INVALID, "the model has no output");
    bool classes = n->task->kind == TASK_CLASSIFICATION;
    n->output = classes ? logits_of(g, g->outputs.v[0]) : g->outputs.v[0];
    if (w->head.n) {
        n->output = graph_find(g, w->head);
        if (n->output < 0)
            FAIL(INVALID, "the model has no value '%.*s' to put a last layer on", STR(w->head));
    }
    g->outputs.n = 0;
    g->metadata.n = 0;
    if (w->head.n)
        n->output = net_dense(n, "head", n->output, n->task->outputs,
                              1 / sqrt((double)net_last(n, n->output)));
    TRY(graph_error(g));
    if (net_last(n, n->output) != n->task->outputs)
        return err_hint(err_new(INVALID, "the model gives %lld numbers a row, the task wants %lld",
                                (long long)net_last(n, n->output), (long long)n->task->outputs),
                        "head: NAME puts a new last layer on that value");
    return NULL;
}

static bool is_frozen(const struct onnx_with *w, struct str name)
{
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < w->freeze.n; i++)
        if (!fnmatch(str_z(a, w->freeze.v[i]), str_z(a, name), 0))
            return true;
    return false;
}

/* A file has them as they are served; those whose scale is not frozen learn on. */
static err norms_train(struct net *n, const struct onnx_with *w)
{
    struct graph *g = n->g;
    for (size_t i = 0; n->mode == NET_TRAIN && i < g->nodes.n; i++) {
        const struct node *node = &g->nodes.v[i];
        if (node->op->id == OP_BatchNormalization && value_at(g, node->in[1])->kind == VALUE_PARAM &&
            !is_frozen(w, value_at(g, node->in[1])->name))
            TRY(batch_norm_train(g, (int)i));
    }
    return NULL;
}

static err model_take(struct net *n, const struct onnx_with *w)
{
    struct graph *g;
    if (!n->task->onnx.n)
        FAIL(INVALID, "model.onnx names neither file nor blob");
    TRY(graph_read(n->g->a, n->task->onnx, &(struct onnx_limits){ .texts = true }, &g));
    n->g = g;
    TRY(batch_name(g));
    TRY(inputs_order(n));
    TRY(net_texts_take(n));
    TRY(norms_train(n, w));
    return body_take(n, w);
}

void net_onnx(struct net *n, const struct onnx_with *w)
{
    net_fail(n, model_take(n, w));
}

void net_freeze(const struct train_model *model, const struct field *chosen, struct params *p)
{
    for (size_t i = 0; str_is(chosen->name, "onnx") && i < p->count; i++)
        p->v[i].frozen = p->v[i].frozen || is_frozen(&model->onnx, p->v[i].name);
}
