// SPDX-License-Identifier: Apache-2.0
/* A model that is there, to go on from: its inputs and its body as they are, a new last layer if one is asked for. */
#include "train/net.h"

#include <fnmatch.h>
#include <math.h>

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
    }
    n->x = order;
    for (size_t i = 0; i < n->n_inputs; i++)
        g->inputs.v[i] = order[i];
    return NULL;
}

/* ---- sizes that the model leaves open ---- */

/* What each symbol stands for: rows are what the first size of an input says, whatever its name. */
static err rows_name(const struct net *n, int64_t batch, int64_t *dims)
{
    for (size_t i = 0; i < n->n_inputs; i++) {
        const struct value *v = value_at(n->g, n->x[i]);
        if (v->shape.rank < 1 || v->shape.d[0] >= 0)
            FAIL(INVALID, "input '%.*s' of the model has no open number of rows", STR(v->name));
        dims[-1 - v->shape.d[0]] = batch;
    }
    return NULL;
}

/* Axis k of an input is as long as it is in a row of the data. */
static err axis_take(const struct net *n, const struct value *v, int k, int64_t size, int64_t batch,
                     int64_t *dims)
{
    const int64_t at = -1 - v->shape.d[k];
    const struct str name = n->g->symbols.v[at];
    if (dims[at] == batch)
        FAIL(INVALID, "input '%.*s' of the model: axis %d is '%.*s', as its number of rows is", STR(v->name),
             k, STR(name));
    if (dims[at] >= 0 && dims[at] != size)
        FAIL(INVALID,
             "input '%.*s' of the model: axis %d is '%.*s', which is %lld elsewhere, and %lld in the data",
             STR(v->name), k, STR(name), (long long)dims[at], (long long)size);
    dims[at] = size;
    return NULL;
}

static err rows_take(const struct net *n, int64_t batch, int64_t *dims)
{
    for (size_t i = 0; i < n->n_inputs; i++) {
        const struct net_tensor *t = &n->inputs[i];
        const struct value *v = value_at(n->g, n->x[i]);
        bool same = v->shape.rank == t->rank + 1;
        for (int k = 1; same && k < v->shape.rank; k++)
            same = v->shape.d[k] < 0 || v->shape.d[k] == t->shape[k - 1];
        if (!same)
            FAIL(INVALID, "input '%.*s' of the model is %.*s, a row of the data does not fit", STR(t->name),
                 STR(shape_text(n->g, n->g->a, &v->shape)));
        for (int k = 1; k < v->shape.rank; k++)
            if (v->shape.d[k] < 0)
                TRY(axis_take(n, v, k, t->shape[k - 1], batch, dims));
    }
    return NULL;
}

/* What is learned and measured has the sizes of the data. What is exported leaves open what the model does, so that it is served
 * for as much as before, unless the width of what it gives would not be known then. */
static err sizes_take(struct net *n)
{
    struct graph *g = n->g;
    const int64_t batch = graph_symbol(g, "batch");
    int64_t *dims = NEW_N(g->a, int64_t, g->symbols.n + 1);
    for (size_t i = 0; i < g->symbols.n; i++)
        dims[i] = -1 - (int64_t)i;
    TRY(rows_name(n, batch, dims));
    const struct shape *y = &value_at(g, n->output)->shape;
    if (n->mode != NET_EXPORT || y->rank < 1 || y->d[y->rank - 1] < 0)
        TRY(rows_take(n, batch, dims));
    return graph_resize(g, dims);
}

/* ---- the body ---- */

/* What stands before a last Softmax or Sigmoid, as the loss has its own. */
static int logits_of(const struct graph *g, int y)
{
    int at = value_at(g, y)->node;
    const struct node *n = at >= 0 ? &g->nodes.v[at] : NULL;
    return n && (strcmp(n->op->name, "Softmax") == 0 || strcmp(n->op->name, "Sigmoid") == 0) ? n->in[0] : y;
}

static err output_find(struct net *n, const struct onnx_with *w)
{
    const struct graph *g = n->g;
    if (!g->outputs.n)
        FAIL(INVALID, "the model has no output");
    bool classes = n->task->kind == TASK_CLASSIFICATION;
    n->output = classes ? logits_of(g, g->outputs.v[0]) : g->outputs.v[0];
    if (w->head.n)
        n->output = graph_find(g, w->head);
    if (n->output < 0)
        FAIL(INVALID, "the model has no value '%.*s' to put a last layer on", STR(w->head));
    return NULL;
}

static err body_take(struct net *n, const struct onnx_with *w)
{
    struct graph *g = n->g;
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

static bool matches(const struct strs *patterns, struct str name)
{
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < patterns->n; i++)
        if (!fnmatch(str_z(a, patterns->v[i]), str_z(a, name), 0))
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
            !matches(&w->freeze, value_at(g, node->in[1])->name))
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
    TRY(inputs_order(n));
    TRY(net_texts_take(n));
    TRY(output_find(n, w));
    TRY(sizes_take(n));
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
        p->v[i].frozen = p->v[i].frozen || matches(&model->onnx.freeze, p->v[i].name);
}

err net_no_decay(const struct strs *patterns, struct params *p)
{
    for (size_t i = 0; i < patterns->n; i++) {
        const struct strs one = { .v = &patterns->v[i], .n = 1 };
        bool any = false;
        for (size_t k = 0; k < p->count; k++)
            if (matches(&one, p->v[k].name)) {
                p->v[k].decay = 0;
                any = true;
            }
        if (!any)
            FAIL(INVALID, "optimizer.noDecay: no parameter of the model is called '%.*s'",
                 STR(patterns->v[i]));
    }
    return NULL;
}
