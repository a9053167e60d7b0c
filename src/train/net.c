// SPDX-License-Identifier: Apache-2.0
#include "train/net.h"

#include <math.h>

// clang-format off
static const struct net_family families[] = {
    { "mlp",                 WANTS_TABLE,    0,    net_mlp },
    { "tabular-resnet",      WANTS_TABLE,    0,    net_tabular_resnet },
    { "cnn",                 WANTS_IMAGE,    0,    net_cnn },
    { "resnet",              WANTS_IMAGE,    0,    net_resnet },
    { "mobilenet",           WANTS_IMAGE,    0,    net_mobilenet },
    { "lstm",                WANTS_SEQUENCE, 0,    net_lstm },
    { "transformer-encoder", WANTS_SEQUENCE, 5e-4, net_transformer_encoder },
    { "gpt",                 WANTS_STREAM,   6e-4, net_gpt, .whole = true },
    { "autoencoder",         WANTS_TABLE,    0,    net_autoencoder, .whole = true },
    { 0 },
};
// clang-format on

static const struct net_family *family_of(const struct field *chosen)
{
    auto_arena struct arena *a = arena_new(0);
    struct str key = field_key(a, chosen);
    for (const struct net_family *f = families; f->key; f++)
        if (str_eq(str_of(f->key), key))
            return f;
    return NULL;
}

enum net_wants net_wants(const struct field *chosen)
{
    const struct net_family *f = family_of(chosen);
    return f ? f->wants : WANTS_ANY;
}

double net_rate(const struct field *chosen)
{
    const struct net_family *f = family_of(chosen);
    return f ? f->rate : 0;
}

/* ---- nodes ---- */

void net_fail(struct net *n, err e)
{
    graph_fail(n->g, e);
}

int net_op(struct net *n, const char *name, const struct attr *attrs, int n_out, const int *in, int n_in)
{
    const struct op *op = op_find(S(""), str_of(name));
    if (!op)
        op = op_find(S(OWN), str_of(name));
    if (!op) {
        net_fail(n, err_new(UNSUPPORTED, "this build has no operator %s", name));
        return -1;
    }
    return graph_add(n->g, op, in, n_in, n_out, attrs);
}

const char *net_name(struct net *n, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    struct str s = vfmt(n->g->a, f, ap);
    va_end(ap);
    return str_z(n->g->a, s);
}

int net_param(struct net *n, struct str name, struct shape shape, double std)
{
    int64_t count = shape_count(&shape);
    if (count < 0 || count > INT32_MAX) {
        net_fail(n, err_new(TOO_LARGE, "parameter '%.*s' %.*s is too large", STR(name),
                            STR(shape_text(n->g, n->g->a, &shape))));
        return -1;
    }
    int v = graph_param(n->g, name, shape, NULL);
    if (v >= 0)
        value_at(n->g, v)->spread = std < 0 ? 0 : std > 0 ? std : -1;
    return v;
}

static struct shape shape_of(const struct net *n, int x)
{
    return x < 0 ? (struct shape){ .rank = -1 } : value_at(n->g, x)->shape;
}

int64_t net_last(const struct net *n, int x)
{
    struct shape s = shape_of(n, x);
    return s.rank < 1 || s.d[s.rank - 1] < 0 ? 1 : s.d[s.rank - 1];
}

int net_dense(struct net *n, const char *name, int x, int64_t width, double std)
{
    struct shape s = shape_of(n, x);
    int w = net_param(n, str_of(net_name(n, "%s.weight", name)), SHAPE(net_last(n, x), width), std),
        b = net_param(n, str_of(net_name(n, "%s.bias", name)), SHAPE(width), -1);
    if (s.rank == 2)
        return NN(n, "Gemm", x, w, b);
    return NN(n, "Add", NN(n, "MatMul", x, w), b);
}

int net_conv(struct net *n, const char *name, int x, int64_t channels, int64_t kernel, int64_t stride,
             int64_t groups, bool bias)
{
    struct shape s = shape_of(n, x);
    int64_t in = s.rank == 4 ? s.d[1] : 1, pad = (kernel - 1) / 2, pads[4] = { pad, pad, pad, pad },
            kernels[2] = { kernel, kernel }, strides[2] = { stride, stride };
    int w = net_param(n, str_of(net_name(n, "%s.weight", name)), SHAPE(channels, in / groups, kernel, kernel),
                      -1),
        b = bias ? net_param(n, str_of(net_name(n, "%s.bias", name)), SHAPE(channels), -1) : -1;
    const struct attr attrs[] = { { "kernel_shape", ATTR_INTS, .is = kernels, .n = 2 },
                                  { "strides", ATTR_INTS, .is = strides, .n = 2 },
                                  { "pads", ATTR_INTS, .is = pads, .n = 4 },
                                  { "group", ATTR_INT, .i = groups },
                                  { 0 } };
    return net_op(n, "Conv", attrs, 1, (const int[]){ x, w, b }, bias ? 3 : 2);
}

int net_batch_norm(struct net *n, const char *name, int x)
{
    struct shape s = shape_of(n, x);
    int64_t c = s.rank >= 2 ? s.d[1] : 1;
    bool train = n->mode == NET_TRAIN;
    int scale = net_param(n, str_of(net_name(n, "%s.scale", name)), SHAPE(c), -1),
        bias = net_param(n, str_of(net_name(n, "%s.bias", name)), SHAPE(c), -1),
        mean = graph_state(n->g, str_of(net_name(n, "%s.mean", name)), SHAPE(c), NULL),
        var = graph_state(n->g, str_of(net_name(n, "%s.var", name)), SHAPE(c), NULL);
    const struct attr *attrs = ATTRS({ "epsilon", ATTR_FLOAT, .f = 1e-5f },
                                     { "momentum", ATTR_FLOAT, .f = (float)NET_MOMENTUM },
                                     { "training_mode", ATTR_INT, .i = train });
    int y = net_op(n, "BatchNormalization", attrs, train ? 3 : 1, GRAPH_IDS(x, scale, bias, mean, var));
    if (train && y >= 0) {
        push(n->g->a, &n->g->updates, ((struct graph_update){ mean, y + 1 }));
        push(n->g->a, &n->g->updates, ((struct graph_update){ var, y + 2 }));
    }
    return y;
}

int net_layer_norm(struct net *n, const char *name, int x)
{
    int64_t c = net_last(n, x);
    int scale = net_param(n, str_of(net_name(n, "%s.scale", name)), SHAPE(c), -1),
        bias = net_param(n, str_of(net_name(n, "%s.bias", name)), SHAPE(c), -1);
    return NN_WITH(n, "LayerNormalization",
                   ATTRS({ "axis", ATTR_INT, .i = -1 }, { "epsilon", ATTR_FLOAT, .f = 1e-5f }), x, scale,
                   bias);
}

int net_norm(struct net *n, enum layer_norm norm, const char *name, int x)
{
    return norm == LAYER_NORM_BATCH   ? net_batch_norm(n, name, x)
           : norm == LAYER_NORM_LAYER ? net_layer_norm(n, name, x)
                                      : x;
}

int net_activate(struct net *n, enum activation act, int x)
{
    switch (act) {
    case ACT_RELU:
        return NN(n, "Relu", x);
    case ACT_GELU:
        return NN_WITH(n, "Gelu", ATTRS({ "approximate", ATTR_TEXT, .s = S("none") }), x);
    case ACT_TANH:
        return NN(n, "Tanh", x);
    case ACT_SIGMOID:
        return NN(n, "Sigmoid", x);
    case ACT_SILU:
        return NN(n, "Mul", x, NN(n, "Sigmoid", x));
    case ACT_LEAKY_RELU:
        return NN_WITH(n, "LeakyRelu", ATTRS({ "alpha", ATTR_FLOAT, .f = 0.01f }), x);
    case ACT_ELU:
        return NN_WITH(n, "Elu", ATTRS({ "alpha", ATTR_FLOAT, .f = 1 }), x);
    case ACT_NONE:
        break;
    }
    return x;
}

int net_dropout(struct net *n, double share, int x)
{
    if (share <= 0 || n->mode != NET_TRAIN)
        return x;
    int ratio = graph_f32(n->g, (float)share),
        train = graph_const(n->g, TENSOR_BOOL, SCALAR, &(bool){ true });
    return NN(n, "Dropout", x, ratio, train);
}

int net_reshape(struct net *n, int x, const int64_t *sizes, size_t count)
{
    return NN(n, "Reshape", x, graph_i64s(n->g, sizes, count));
}

int net_embed(struct net *n, const char *name, int ids, int64_t rows, int64_t width, double std)
{
    int w = net_param(n, str_of(net_name(n, "%s.weight", name)), SHAPE(rows, width), std);
    return NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 0 }), w, ids);
}

/* ---- what stands before the body ---- */

/* 1.6 n^0.56, at most 50: the rule of thumb of fastai. */
static int64_t embedding_width(int64_t rows, int64_t given)
{
    int64_t w = (int64_t)(1.6 * pow((double)rows, 0.56) + 0.5);
    return given > 0 ? given : w < 1 ? 1 : w > 50 ? 50 : w;
}

/* Column `at` of a matrix, [batch]. */
static int column_of(struct net *n, int x, int64_t at)
{
    return NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 1 }), x,
                   graph_const(n->g, TENSOR_I64, SCALAR, &at));
}

static int categories(struct net *n, const struct net_tensor *t, int x, int64_t embedding)
{
    int64_t columns = t->rank > 0 ? t->shape[0] : 1;
    int *parts = NEW_N(n->g->a, int, columns + 1);
    for (int64_t i = 0; i < columns; i++) {
        parts[i] = net_embed(n, net_name(n, "%.*s.%lld.embedding", STR(t->name), (long long)i),
                             column_of(n, x, i), t->sizes[i], embedding_width(t->sizes[i], embedding), 0.1);
    }
    return net_op(n, "Concat", ATTRS({ "axis", ATTR_INT, .i = 1 }), 1, parts, (int)columns);
}

int net_table(struct net *n, int64_t embedding)
{
    int *parts = NEW_N(n->g->a, int, n->n_inputs + 1), count = 0;
    for (size_t i = 0; i < n->n_inputs; i++) {
        const struct net_tensor *t = &n->inputs[i];
        if (t->kind == NET_CATEGORIES)
            parts[count++] = categories(n, t, n->x[i], embedding);
        else if (t->kind == NET_IDS)
            net_fail(n, err_new(INVALID, "input '%.*s' is a sequence of ids, which this model does not take",
                                STR(t->name)));
        else if (t->rank == 0)
            parts[count++] = net_reshape(n, n->x[i], (const int64_t[]){ 0, 1 }, 2);
        else
            parts[count++] = t->rank == 1 ? n->x[i] : net_reshape(n, n->x[i], (const int64_t[]){ 0, -1 }, 2);
    }
    return count == 1 ? parts[0] : net_op(n, "Concat", ATTRS({ "axis", ATTR_INT, .i = 1 }), 1, parts, count);
}

int net_image(struct net *n)
{
    const struct net_tensor *t = &n->inputs[0];
    if (n->n_inputs != 1 || t->kind != NET_ARRAY || t->rank < 2 || t->rank > 3) {
        net_fail(n, err_hint(err_new(INVALID, "the model wants one input of images"),
                             "inputs: [{name: image, kind: array, columns: [image], shape: [1, 28, 28]}]"));
        return -1;
    }
    if (t->rank == 3)
        return n->x[0];
    return net_reshape(n, n->x[0], (const int64_t[]){ 0, 1, t->shape[0], t->shape[1] }, 4);
}

int net_sequence(struct net *n, int64_t embedding, double std)
{
    const struct net_tensor *t = &n->inputs[0];
    if (n->n_inputs == 1 && t->kind == NET_IDS && t->rank == 1)
        return net_embed(n, "tokens", n->x[0], t->ids, embedding, std);
    if (n->n_inputs == 1 && t->kind == NET_ARRAY && t->rank == 2)
        return n->x[0];
    if (n->n_inputs == 1 && t->kind == NET_ARRAY && t->rank == 1)
        return net_reshape(n, n->x[0], (const int64_t[]){ 0, t->shape[0], 1 }, 3);
    net_fail(n, err_hint(err_new(INVALID,
                                 "the model wants one input of sequences: tokens, or arrays [time, width]"),
                         "inputs: [{name: series, kind: array, columns: [series], shape: [96, 3]}]"));
    return -1;
}

/* Raw numbers → what training saw: what is missing is filled, then shifted and scaled; then where it was missing. */
static int numbers_prepare(struct net *n, const struct net_tensor *t, int x)
{
    struct graph *g = n->g;
    int64_t count = 1, each = t->each > 0 ? t->each : 1;
    struct shape row = { .rank = t->rank };
    for (int i = 0; i < t->rank; i++)
        count *= row.d[i] = t->shape[i];
    if (t->indicator)
        count /= 2, row.d[0] /= 2;
    int there = -1, y = x;
    if (t->fill || t->indicator)
        there = NN(n, "Equal", x, x); /* NaN is not equal to itself */
    const float *lists[] = { t->fill, t->shift, t->scale };
    int values[3] = { -1, -1, -1 };
    for (int k = 0; k < 3; k++) {
        if (!lists[k])
            continue;
        float *all = NEW_N(g->a, float, count + 1);
        for (int64_t i = 0; i < count; i++)
            all[i] = lists[k][i / each];
        values[k] = graph_const(g, TENSOR_F32, row, all);
    }
    if (t->fill)
        y = NN(n, "Where", there, y, values[0]);
    if (t->shift)
        y = NN(n, "Sub", y, values[1]);
    if (t->scale)
        y = NN(n, "Mul", y, values[2]);
    if (t->indicator) {
        int gone = NN_WITH(n, "Cast", ATTRS({ "to", ATTR_INT, .i = TENSOR_F32 }), NN(n, "Not", there));
        y = NN_WITH(n, "Concat", ATTRS({ "axis", ATTR_INT, .i = 1 }), y, gone);
    }
    return y;
}

/* ---- categories of an exported model: what a client knows them by → ids ---- */

enum { ID_UNKNOWN = 0, ID_MISSING = 1, ID_FIRST = 2 };

/* The empty text is one that is missing. */
static int text_ids(struct net *n, const struct strs *vocabulary, int x)
{
    struct arena *a = n->g->a;
    struct str *keys = NEW_N(a, struct str, vocabulary->n + 1);
    int64_t *ids = NEW_N(a, int64_t, vocabulary->n + 1);
    size_t count = vocabulary->n + 1;
    for (size_t i = 0; i < vocabulary->n; i++) {
        keys[i + 1] = vocabulary->v[i];
        ids[i + 1] = ID_FIRST + (int64_t)i;
    }
    ids[0] = ID_MISSING;
    const struct attr *attrs = ATTRS({ "keys_strings", ATTR_TEXTS, .ss = keys, .n = count },
                                     { "values_int64s", ATTR_INTS, .is = ids, .n = count },
                                     { "default_int64", ATTR_INT, .i = ID_UNKNOWN });
    return graph_add(n->g, &op_label_encoder, GRAPH_IDS(x), 1, attrs);
}

/* A table from the least to the greatest number of the vocabulary, with a place before, one behind, and one for NaN. */
static int number_ids(struct net *n, const struct strs *vocabulary, int x)
{
    struct graph *g = n->g;
    double least = INFINITY, most = -INFINITY;
    for (size_t i = 0; i < vocabulary->n; i++) {
        double v = net_category_number(vocabulary->v[i]);
        least = fmin(least, v);
        most = fmax(most, v);
    }
    int64_t range = vocabulary->n ? (int64_t)(most - least) + 1 : 0;
    int64_t *table = NEW_N(g->a, int64_t, range + 3);
    for (size_t i = 0; i < vocabulary->n; i++)
        table[1 + (int64_t)(net_category_number(vocabulary->v[i]) - least)] = ID_FIRST + (int64_t)i;
    table[range + 2] = ID_MISSING;
    int first = graph_f32(g, (float)(vocabulary->n ? least - 1 : 0)), zero = graph_f32(g, 0),
        behind = graph_f32(g, (float)(range + 1)), missing = graph_f32(g, (float)(range + 2));
    int at = NN(n, "Clip", NN(n, "Sub", x, first), zero, behind);
    at = NN(n, "Where", NN(n, "Equal", NN(n, "Floor", x), x), at, zero);
    at = NN(n, "Where", NN(n, "Equal", x, x), at, missing); /* NaN is not equal to itself */
    at = NN_WITH(n, "Cast", ATTRS({ "to", ATTR_INT, .i = TENSOR_I64 }), at);
    return NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 0 }),
                   graph_const(g, TENSOR_I64, SHAPE(range + 3), table), at);
}

double net_category_number(struct str text)
{
    double v;
    return str_f64(text, &v) ? v : (double)NAN;
}

bool net_category_numbers(const struct strs *vocabulary)
{
    enum { EXACT = 1 << 24 /* as a float */, RANGE = 1 << 20 };
    double least = 0, most = 0;
    for (size_t i = 0; i < vocabulary->n; i++) {
        double v = net_category_number(vocabulary->v[i]);
        if (!(fabs(v) <= EXACT && v == floor(v)))
            return false;
        least = i ? fmin(least, v) : v;
        most = i ? fmax(most, v) : v;
    }
    return most - least < RANGE;
}

/* The tensor as training saw it, [batch, columns], of the two matrices. */
static int table_take(struct net *n, const struct net_tensor *t, int numbers, int texts)
{
    int64_t columns = t->shape[0] / (t->indicator ? 2 : 1);
    int64_t *at = NEW_N(n->g->a, int64_t, columns + 1);
    int *parts = NEW_N(n->g->a, int, columns + 1);
    for (int64_t i = 0; i < columns; i++) {
        at[i] = t->from[i];
        if (t->kind != NET_CATEGORIES)
            continue;
        int x = t->from[i] >= 0 ? number_ids(n, &t->vocabulary[i], column_of(n, numbers, t->from[i]))
                                : text_ids(n, &t->vocabulary[i], column_of(n, texts, -1 - t->from[i]));
        parts[i] = net_reshape(n, x, (const int64_t[]){ -1, 1 }, 2);
    }
    if (t->kind == NET_CATEGORIES)
        return columns == 1
                   ? parts[0]
                   : net_op(n, "Concat", ATTRS({ "axis", ATTR_INT, .i = 1 }), 1, parts, (int)columns);
    bool all = columns == (int64_t)n->task->given.numbers.n;
    for (int64_t i = 0; i < columns; i++)
        all = all && at[i] == i;
    return all ? numbers
               : NN_WITH(n, "Gather", ATTRS({ "axis", ATTR_INT, .i = 1 }), numbers,
                         graph_i64s(n->g, at, (size_t)columns));
}

static int matrix_make(struct net *n, int64_t batch, struct str name, enum tensor_type type, size_t columns)
{
    return columns ? graph_input(n->g, str_z(n->g->a, name), type, SHAPE(batch, (int64_t)columns)) : -1;
}

static void inputs_make(struct net *n, int64_t batch)
{
    const struct net_given *given = &n->task->given;
    int numbers = -1, texts = -1;
    n->x = NEW_N(n->g->a, int, n->n_inputs + 1);
    if (n->mode == NET_EXPORT) {
        numbers = matrix_make(n, batch, given->number, TENSOR_F32, given->numbers.n);
        texts = matrix_make(n, batch, given->text, TENSOR_TEXT, given->texts.n);
    }
    for (size_t i = 0; i < n->n_inputs; i++) {
        const struct net_tensor *t = &n->inputs[i];
        bool real = t->kind == NET_NUMBERS || t->kind == NET_ARRAY;
        struct shape s = { .rank = t->rank + 1, .d = { batch } };
        for (int k = 0; k < t->rank; k++)
            s.d[k + 1] = t->shape[k];
        if (n->mode == NET_EXPORT && t->indicator)
            s.d[1] /= 2;
        if (n->mode == NET_EXPORT && t->from)
            n->x[i] = table_take(n, t, numbers, texts);
        else
            n->x[i] = graph_input(n->g, str_z(n->g->a, t->name), real ? TENSOR_F32 : TENSOR_I64, s);
    }
    for (size_t i = 0; i < n->n_inputs && n->mode == NET_EXPORT; i++)
        if (n->inputs[i].kind == NET_NUMBERS || n->inputs[i].kind == NET_ARRAY)
            n->x[i] = numbers_prepare(n, &n->inputs[i], n->x[i]);
}

/* ---- what stands behind it ---- */

double net_unit(const struct net_task *t)
{
    return t->mean ? t->deviation : 1;
}

double net_loss_unit(const struct net_task *t)
{
    return t->loss == LOSS_MAE ? net_unit(t) : net_unit(t) * net_unit(t);
}

void net_label(const struct net_task *t, const float *label, int64_t rows, float *out)
{
    const float by = (float)(1 / t->deviation);
    for (int64_t i = 0; i < rows; i++, label += t->outputs, out += t->outputs)
        for (int64_t k = 0; k < t->outputs; k++)
            out[k] = (label[k] - t->mean[k]) * by;
}

/* What the body says, as a label. */
static int value(struct net *n)
{
    const struct net_task *t = n->task;
    if (!t->mean)
        return n->output;
    return NN(n, "Add", NN(n, "Mul", n->output, graph_f32(n->g, (float)t->deviation)),
              graph_const(n->g, TENSOR_F32, SHAPE(t->outputs), t->mean));
}

static int loss_add(struct net *n, const char *op, int y, int label, int classes, int weight)
{
    struct attr attrs[2] = { 0 };
    if (n->task->label_smoothing > 0)
        attrs[0] = (struct attr){ "label_smoothing", ATTR_FLOAT, .f = (float)n->task->label_smoothing };
    if (n->task->loss == LOSS_HUBER)
        attrs[0] = (struct attr){ "delta", ATTR_FLOAT, .f = (float)(n->task->delta / net_unit(n->task)) };
    return net_op(n, op, attrs, 1, (const int[]){ y, label, classes, weight },
                  weight >= 0    ? 4
                  : classes >= 0 ? 3
                                 : 2);
}

/* On the unit sphere: what is near is so by angle, too. */
static int point(struct net *n, int x)
{
    int square = NN(n, "ReduceSumSquare", x, graph_i64s(n->g, (const int64_t[]){ -1 }, 1));
    return NN(n, "Div", x, NN(n, "Sqrt", NN(n, "Add", square, graph_f32(n->g, 1e-12f))));
}

/* Losses that compare rows with each other. */
static int rows_compared(struct net *n, int label, int64_t batch)
{
    const double margin = n->task->margin;
    if (n->task->kind == TASK_EMBEDDING)
        return NN_WITH(n, "TripletLoss",
                       ATTRS({ "margin", ATTR_FLOAT, .f = margin > 0 ? (float)margin : 0.2f }),
                       point(n, n->output), label);
    return NN_WITH(
        n, "PairwiseRankingLoss",
        ATTRS({ "hinge", ATTR_INT, .i = margin > 0 }, { "margin", ATTR_FLOAT, .f = (float)margin }),
        n->output, label, graph_input(n->g, "group", TENSOR_I64, SHAPE(batch)));
}

static void loss_make(struct net *n, int64_t batch)
{
    const struct net_task *t = n->task;
    struct graph *g = n->g;
    struct shape s = shape_of(n, n->output), label_shape = { 1, { batch } };
    int label, weight = -1, classes = -1;
    bool ids = t->kind == TASK_CLASSIFICATION || t->kind == TASK_LANGUAGE || t->kind == TASK_EMBEDDING;
    if (t->kind == TASK_LANGUAGE)
        label_shape = SHAPE(batch, s.rank > 2 ? s.d[1] : 1);
    else if (!ids && t->outputs > 1)
        label_shape = SHAPE(batch, t->outputs);
    label = t->kind == TASK_AUTOENCODER ? net_table(n, 1)
                                        : graph_input(g, "label", ids ? TENSOR_I64 : TENSOR_F32, label_shape);
    if (t->weighted)
        weight = graph_input(g, "weight", TENSOR_F32, SHAPE(batch));
    if (t->class_weights)
        classes = graph_const(g, TENSOR_F32, SHAPE(t->binary ? 1 : t->outputs), t->class_weights);
    if (t->kind == TASK_RANKING || t->kind == TASK_EMBEDDING) {
        n->loss = rows_compared(n, label, batch);
        return;
    }
    if (ids && !t->binary) {
        n->loss = loss_add(n, "SoftmaxCrossEntropy", n->output, label, classes, weight);
        return;
    }
    if (t->binary)
        label = NN_WITH(n, "Cast", ATTRS({ "to", ATTR_INT, .i = TENSOR_F32 }), label);
    if (t->kind != TASK_AUTOENCODER && t->outputs == 1)
        label = net_reshape(n, label, (const int64_t[]){ 0, 1 }, 2);
    const char *op = t->binary               ? "SigmoidCrossEntropy"
                     : t->loss == LOSS_MAE   ? "MeanAbsoluteError"
                     : t->loss == LOSS_HUBER ? "HuberLoss"
                                             : "MeanSquaredError";
    n->loss = loss_add(n, op, n->output, label, classes, weight);
}

static void outputs_make(struct net *n)
{
    const struct net_task *t = n->task;
    if (t->kind == TASK_CLASSIFICATION) {
        int p = t->binary ? NN(n, "Sigmoid", n->output)
                          : NN_WITH(n, "Softmax", ATTRS({ "axis", ATTR_INT, .i = -1 }), n->output);
        graph_output(n->g, p, S("probability"));
    } else if (t->kind == TASK_EMBEDDING) {
        graph_output(n->g, point(n, n->output), S("embedding"));
    } else {
        graph_output(n->g, value(n), t->kind == TASK_LANGUAGE ? S("logits") : S("value"));
    }
}

err net_build(struct arena *a, const struct train_model *model, const struct field *chosen,
              const struct net_tensor *inputs, size_t count, const struct net_task *task, enum net_mode mode,
              struct net *out)
{
    const struct net_family *f = family_of(chosen);
    bool onnx = str_is(chosen->name, "onnx");
    if (!f && !onnx)
        FAIL(INVALID, "model '%.*s' is no network", STR(chosen->name));
    struct net n = { .g = graph_new(a),
                     .mode = mode,
                     .inputs = inputs,
                     .n_inputs = count,
                     .task = task,
                     .model = model,
                     .loss = -1,
                     .output = -1 };
    if (onnx) {
        net_onnx(&n, &model->onnx);
    } else {
        n.g->name = str_of(f->key);
        inputs_make(&n, graph_symbol(n.g, "batch"));
        n.output = f->build(&n, (const char *)model + chosen->offset);
        if (!f->whole)
            n.output = net_dense(&n, "head", n.output, task->outputs,
                                 1 / sqrt((double)net_last(&n, n.output)));
    }
    int64_t batch = graph_symbol(n.g, "batch");
    if (mode == NET_TRAIN) {
        loss_make(&n, batch);
        graph_output(n.g, n.loss, S("loss"));
    } else {
        outputs_make(&n);
    }
    TRY_AS(graph_error(n.g), "model %.*s", STR(chosen->name));
    *out = n;
    return NULL;
}
