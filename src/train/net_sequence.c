// SPDX-License-Identifier: Apache-2.0
/* Networks over sequences, [batch, time, width]: recurrent ones and transformers. */
#include "train/net.h"

#include <math.h>

static int64_t time_of(const struct net *n, int x)
{
    return x >= 0 && value_at(n->g, x)->shape.rank == 3 ? value_at(n->g, x)->shape.d[1] : 1;
}

/* One number a row: [batch, time, width] → [batch, width]. */
static int pooled(struct net *n, enum pool pool, int x)
{
    if (pool == POOL_MEAN) {
        int axes = graph_i64s(n->g, (const int64_t[]){ 1 }, 1);
        return NN_WITH(n, "ReduceMean", ATTRS({ "keepdims", ATTR_INT, .i = 0 }), x, axes);
    }
    int64_t at = pool == POOL_FIRST ? 0 : time_of(n, x) - 1;
    return NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 1 }), x,
                   graph_const(n->g, TENSOR_I64, SCALAR, &at));
}

/* ---- recurrent ---- */

/* ONNX wants time first; rows are cut along the first axis, so training keeps them there (layout 1). */
static int recurrent(struct net *n, const char *name, enum cell cell, int x, int64_t width)
{
    int64_t in = net_last(n, x), gates = cell == CELL_LSTM ? 4 : 3;
    double std = 1 / sqrt(3 * (double)width); /* as wide as ±1/√width */
    int w = net_param(n, str_of(net_name(n, "%s.input", name)), SHAPE(1, gates * width, in), std),
        r = net_param(n, str_of(net_name(n, "%s.state", name)), SHAPE(1, gates * width, width), std),
        b = net_param(n, str_of(net_name(n, "%s.bias", name)), SHAPE(1, 2 * gates * width), 0);
    bool rows_first = n->mode != NET_EXPORT;
    struct attr attrs[4] = { { "hidden_size", ATTR_INT, .i = width },
                             { "layout", ATTR_INT, .i = rows_first } };
    if (cell == CELL_GRU)
        attrs[2] = (struct attr){ "linear_before_reset", ATTR_INT, .i = 1 };
    if (!rows_first) {
        attrs[1] = cell == CELL_GRU ? attrs[2] : (struct attr){ 0 };
        attrs[2] = (struct attr){ 0 };
        x = NN_WITH(n, "Transpose", ATTRS({ "perm", ATTR_INTS, .is = (const int64_t[]){ 1, 0, 2 }, .n = 3 }),
                    x);
    }
    int y = net_op(n, cell == CELL_LSTM ? "LSTM" : "GRU", attrs, 1, GRAPH_IDS(x, w, r, b));
    if (rows_first) /* [batch, time, 1, width] */
        return NN(n, "Squeeze", y, graph_i64s(n->g, (const int64_t[]){ 2 }, 1));
    y = NN(n, "Squeeze", y, graph_i64s(n->g, (const int64_t[]){ 1 }, 1)); /* [time, 1, batch, width] */
    return NN_WITH(n, "Transpose", ATTRS({ "perm", ATTR_INTS, .is = (const int64_t[]){ 1, 0, 2 }, .n = 3 }),
                   y);
}

int net_lstm(struct net *n, const void *with)
{
    const struct lstm_with *w = with;
    int x = net_sequence(n, w->embedding, 0.1);
    for (int64_t i = 1; i <= w->layers; i++) {
        x = recurrent(n, net_name(n, "layer%lld", (long long)i), w->cell, x, w->width);
        x = net_dropout(n, i < w->layers ? w->dropout : 0, x);
    }
    return net_dropout(n, w->dropout, pooled(n, w->pool, x));
}

/* ---- transformers ---- */

struct block {
    int64_t width, heads, inside;
    double dropout, std, std_out; /* std_out: of what is added to the stream, GPT-2's 0.02 / √(2 layers) */
    int mask;                     /* to be added to the scores; −1: none */
};

static int part_of(struct net *n, int qkv, int which, const struct block *b, int64_t time,
                   const int64_t *perm)
{
    int64_t at = which;
    int x = NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 2 }), qkv,
                    graph_const(n->g, TENSOR_I64, SCALAR, &at));
    (void)b;
    (void)time;
    return NN_WITH(n, "Transpose", ATTRS({ "perm", ATTR_INTS, .is = perm, .n = 4 }), x);
}

static int attention(struct net *n, const char *name, int x, const struct block *b)
{
    static const int64_t heads_first[] = { 0, 2, 1, 3 }, turned[] = { 0, 2, 3, 1 };
    int64_t time = time_of(n, x), each = b->width / b->heads;
    int qkv = net_dense(n, net_name(n, "%s.qkv", name), x, 3 * b->width, b->std);
    qkv = net_reshape(n, qkv, (const int64_t[]){ 0, time, 3, b->heads, each }, 5);
    int q = part_of(n, qkv, 0, b, time, heads_first), k = part_of(n, qkv, 1, b, time, turned),
        v = part_of(n, qkv, 2, b, time, heads_first);
    int scores = NN(n, "Mul", NN(n, "MatMul", q, k), graph_f32(n->g, (float)(1 / sqrt((double)each))));
    if (b->mask >= 0)
        scores = NN(n, "Add", scores, b->mask);
    int y = NN(n, "MatMul", NN_WITH(n, "Softmax", ATTRS({ "axis", ATTR_INT, .i = -1 }), scores), v);
    y = NN_WITH(n, "Transpose", ATTRS({ "perm", ATTR_INTS, .is = heads_first, .n = 4 }), y);
    y = net_reshape(n, y, (const int64_t[]){ 0, time, b->width }, 3);
    return net_dense(n, net_name(n, "%s.out", name), y, b->width, b->std_out);
}

static int block_add(struct net *n, const char *name, int x, const struct block *b)
{
    int y = attention(n, name, net_layer_norm(n, net_name(n, "%s.norm1", name), x), b);
    x = NN(n, "Add", x, net_dropout(n, b->dropout, y));
    y = net_layer_norm(n, net_name(n, "%s.norm2", name), x);
    y = net_activate(n, ACT_GELU, net_dense(n, net_name(n, "%s.up", name), y, b->inside, b->std));
    y = net_dense(n, net_name(n, "%s.down", name), y, b->width, b->std_out);
    return NN(n, "Add", x, net_dropout(n, b->dropout, y));
}

static int stack(struct net *n, int x, int64_t layers, struct block *b)
{
    int64_t time = time_of(n, x);
    if (b->width % b->heads) {
        net_fail(n, err_new(INVALID, "%lld heads do not share a width of %lld", (long long)b->heads,
                            (long long)b->width));
        return -1;
    }
    b->std = 0.02;
    b->std_out = 0.02 / sqrt(2 * (double)layers);
    int places = net_param(n, S("places.weight"), SHAPE(time, b->width), b->std);
    x = net_dropout(n, b->dropout, NN(n, "Add", x, places));
    for (int64_t i = 1; i <= layers; i++)
        x = block_add(n, net_name(n, "block%lld", (long long)i), x, b);
    return net_layer_norm(n, "norm", x);
}

int net_transformer_encoder(struct net *n, const void *with)
{
    const struct transformer_encoder_with *w = with;
    struct block b = { .width = w->width,
                       .heads = w->heads,
                       .inside = w->feedforward > 0 ? w->feedforward : 4 * w->width,
                       .dropout = w->dropout,
                       .mask = -1 };
    int x = net_sequence(n, w->width, 0.02);
    if (n->inputs[0].kind != NET_IDS)
        x = net_dense(n, "embed", x, w->width, 1 / sqrt((double)net_last(n, x)));
    return pooled(n, w->pool, stack(n, x, w->layers, &b));
}

/* 0 where a place may look, −∞ as good as where it would look ahead. */
static int causal(struct net *n, int64_t time)
{
    if (time > 16384) {
        net_fail(n, err_new(TOO_LARGE, "a window of %lld tokens", (long long)time));
        return -1;
    }
    float *v = NEW_N(n->g->a, float, time *time + 1);
    for (int64_t i = 0; i < time; i++)
        for (int64_t k = i + 1; k < time; k++)
            v[i * time + k] = -1e9f;
    return graph_const(n->g, TENSOR_F32, SHAPE(time, time), v);
}

int net_gpt(struct net *n, const void *with)
{
    const struct gpt_with *w = with;
    const struct net_tensor *t = &n->inputs[0];
    struct block b = { .width = w->width, .heads = w->heads, .inside = 4 * w->width, .dropout = w->dropout };
    if (n->n_inputs != 1 || t->kind != NET_IDS || t->rank != 1 || n->task->kind != TASK_LANGUAGE) {
        net_fail(n, err_hint(err_new(INVALID, "model.gpt wants one input of tokens"),
                             "inputs: [{name: tokens, kind: tokens, columns: [text], length: 128}]"));
        return -1;
    }
    int64_t rows = w->vocabulary > t->ids ? w->vocabulary : t->ids;
    int table = net_param(n, S("tokens.weight"), SHAPE(rows, w->width), 0.02);
    int x = NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 0 }), table, n->x[0]);
    b.mask = causal(n, t->shape[0]);
    x = stack(n, x, w->layers, &b);
    if (!w->tied)
        table = net_param(n, S("head.weight"), SHAPE(rows, w->width), 0.02);
    return NN(n, "MatMul", x,
              NN_WITH(n, "Transpose", ATTRS({ "perm", ATTR_INTS, .is = (const int64_t[]){ 1, 0 }, .n = 2 }),
                      table));
}
