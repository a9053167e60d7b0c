// SPDX-License-Identifier: Apache-2.0
#include "engine/graph_onnx.h"

#include <stdlib.h>

struct writer {
    const struct graph *g;
    struct arena *scratch;
    const void *const *data;
    struct buf *b;
    int64_t opset;
    bool ml;   /* an op of ONNX_ML is among them */
    int *same; /* by value: the value that it is in an inference model (Dropout's output is its input) */
    bool *live, *used;    /* by node; by value */
    struct str *names;    /* by value; unique */
    struct shape *shapes; /* by output, where the graph leaves one open */
    struct strs extra;    /* initialisers that the older form of a node needs, written already */
};

/* ---- what an inference model has ---- */

static bool goes(const struct node *n)
{
    return strcmp(n->op->name, "Dropout") == 0;
}

static bool is_ml(const struct node *n)
{
    return strcmp(n->op->domain, ONNX_ML) == 0;
}

static int final(const struct writer *w, int v)
{
    while (v >= 0 && w->same[v] != v)
        v = w->same[v];
    return v;
}

static err live_find(struct writer *w)
{
    const struct graph *g = w->g;
    for (size_t i = 0; i < g->values.n; i++)
        w->same[i] = (int)i;
    for (size_t i = 0; i < g->nodes.n; i++)
        if (goes(&g->nodes.v[i]) && g->nodes.v[i].out[0] >= 0)
            w->same[g->nodes.v[i].out[0]] = g->nodes.v[i].in[0];
    for (size_t i = 0; i < g->outputs.n; i++)
        w->used[final(w, g->outputs.v[i])] = true;
    for (size_t i = g->nodes.n; i-- > 0;) {
        const struct node *n = &g->nodes.v[i];
        for (int k = 0; k < n->n_out; k++)
            w->live[i] |= n->out[k] >= 0 && w->used[n->out[k]] && value_at(g, n->out[k])->kind == VALUE_NODE;
        if (!w->live[i])
            continue;
        if (goes(n))
            FAIL(UNSUPPORTED, "%s '%.*s': what it dropped is asked for, which no inference model knows",
                 n->op->name, STR(n->name));
        w->ml |= is_ml(n);
        if (n->op->domain[0] && !is_ml(n))
            FAIL(UNSUPPORTED, "%s '%.*s': the op is dhow's own and cannot be written as ONNX", n->op->name,
                 STR(n->name));
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0)
                w->used[final(w, n->in[k])] = true;
    }
    return NULL;
}

/* ---- the opset: 17, or the least that says all nodes ---- */

static const int64_t *axes_of(const struct writer *w, const struct node *n, int i, size_t *count)
{
    const int64_t *v;
    return i < n->n_in && value_i64s(w->g, w->scratch, n->in[i], &v, count) ? v : NULL;
}

static bool is_reduce(const struct node *n)
{
    return n->op->since >= 18 && str_starts(str_of(n->op->name), S("Reduce"));
}

/* Sizes of a Split's pieces; false if one is not known. */
static bool pieces_of(const struct writer *w, const struct node *n, int64_t *v)
{
    int axis;
    for (int i = 0; i < n->n_out; i++) {
        const struct value *out = n->out[i] >= 0 ? value_at(w->g, n->out[i]) : NULL;
        if (!out || out->shape.rank < 1 || attr_axis(n, "axis", 0, out->shape.rank, &axis) ||
            out->shape.d[axis] < 0)
            return false;
        v[i] = out->shape.d[axis];
    }
    return true;
}

/* Ops whose row says a newer opset than 17, while the form that their attributes ask for is older. */
static int64_t opset_of(const struct writer *w, const struct node *n)
{
    static const struct {
        const char *op;
        int64_t since;
        const char *attrs[3]; /* that came with the row's opset */
    } older[] = {
        { "ScatterElements", 16, { NULL } },
        { "ScatterND", 16, { NULL } },
        { "AveragePool", 11, { "dilations" } },
        { "Resize", 13, { "antialias", "axes", "keep_aspect_ratio_policy" } },
        { "Conv", 11, { NULL } },
        { "ConvTranspose", 11, { NULL } },
        { "MaxPool", 12, { NULL } },
        { "GlobalAveragePool", 1, { NULL } },
        { "LSTM", 14, { NULL } },
        { "GRU", 14, { NULL } },
        { "Dropout", 13, { NULL } },
        { "BatchNormalization", 15, { NULL } },
        { "InstanceNormalization", 6, { NULL } },
        { "Elu", 6, { NULL } },
        { "HardSigmoid", 6, { NULL } },
        { "HardSwish", 14, { NULL } },
        { "Softplus", 1, { NULL } },
        { "Selu", 6, { NULL } },
        { "Equal", 13, { NULL } },
        { "Cast", 13, { "saturate" } },
    };
    struct str how = attr_s(n, "reduction", S("none")), mode = attr_s(n, "mode", S(""));
    size_t count;
    if (is_ml(n))
        return 0; /* counted apart */
    if (is_reduce(n))
        return (n->n_in > 1 && !axes_of(w, n, 1, &count)) || attr_i(n, "noop_with_empty_axes", 0) ? 18 : 17;
    if (n->op->id == OP_Split)
        return n->n_in > 1 || pieces_of(w, n, NEW_N(w->scratch, int64_t, n->n_out)) ? 13 : 18;
    if (n->op->id == OP_Pad)
        return str_is(mode, "wrap") ? 19 : n->n_in > 3 && n->in[3] >= 0 ? 18 : 13;
    if (str_is(how, "max") || str_is(how, "min"))
        return 18;
    if (n->op->id == OP_SpaceToDepth)
        return str_is(mode, "CRD") ? 28 : 13;
    for (size_t i = 0; i < sizeof older / sizeof *older; i++) {
        if (strcmp(n->op->name, older[i].op) != 0)
            continue;
        bool newer = false;
        for (size_t k = 0; k < 3 && older[i].attrs[k]; k++)
            newer |= attr_find(n, older[i].attrs[k]) != NULL;
        return newer ? n->op->since : older[i].since;
    }
    return n->op->since;
}

static int64_t ir_of(int64_t opset)
{
    return opset < 19 ? 8 : opset < 21 ? 9 : opset < 23 ? 10 : opset < 24 ? 11 : 12;
}

/* ---- names ---- */

struct named {
    struct str name;
    int value, rank; /* who keeps the name: outputs and inputs before others */
};
static int by_name(const void *x, const void *y)
{
    const struct named *a = x, *b = y;
    int c = str_cmp(a->name, b->name);
    return c ? c : a->rank != b->rank ? a->rank - b->rank : a->value - b->value;
}

/* A name that two values have, or none, becomes one with the value's number behind it. */
static void names_find(struct writer *w)
{
    const struct graph *g = w->g;
    struct named *v = NEW_N(w->scratch, struct named, g->values.n + 1);
    for (size_t i = 0; i < g->values.n; i++)
        v[i] = (struct named){ g->values.v[i].name, (int)i, g->values.v[i].kind == VALUE_INPUT ? 1 : 2 };
    for (size_t i = 0; i < g->outputs.n; i++)
        v[g->outputs.v[i]].rank = 0;
    qsort(v, g->values.n, sizeof *v, by_name);
    for (size_t i = 0; i < g->values.n; i++) {
        bool taken = v[i].name.n == 0 || (i > 0 && str_eq(v[i].name, v[i - 1].name));
        w->names[v[i].value] = taken ? fmt(w->scratch, "%.*s#%d", STR(v[i].name), v[i].value) : v[i].name;
    }
}

/* ---- messages ---- */

static void tensor_put(struct writer *w, int field, struct str name, enum tensor_type type,
                       const struct shape *s, const void *data)
{
    size_t at = pb_open(w->b, field), bytes = (size_t)shape_count(s) * tensor_size(type);
    if (s->rank > 0)
        pb_varints(w->b, F_TENSOR_DIMS, s->d, (size_t)s->rank);
    pb_varint(w->b, F_TENSOR_TYPE, type);
    if (name.n > 0)
        pb_bytes(w->b, F_TENSOR_NAME, name);
    char *to = pb_room(w->b, F_TENSOR_RAW, bytes);
    if (data && bytes > 0)
        memcpy(to, data, bytes);
    else
        memset(to, 0, bytes);
    pb_close(w->b, at);
}

/* An output's shape that inference leaves open, as it depends on open sizes in more than a name: bound to 2 and to 3 of
 * everything, what stays is a number, and what grows with them is the batch if it comes first, else open. */
static void shapes_find(struct writer *w)
{
    const struct graph *g = w->g, *at[2] = { 0 };
    int64_t *sizes = NEW_N(w->scratch, int64_t, g->symbols.n + 1);
    bool open = false;
    for (size_t i = 0; i < g->outputs.n; i++)
        open |= value_at(g, g->outputs.v[i])->shape.rank < 0;
    for (int k = 0; k < 2 && open; k++) {
        struct graph *bound;
        for (size_t i = 0; i < g->symbols.n; i++)
            sizes[i] = k + 2;
        if (graph_bind(g, w->scratch, sizes, &bound))
            return; /* it takes other sizes only: the shape stays open */
        at[k] = bound;
    }
    for (size_t i = 0; i < g->outputs.n && open; i++) {
        int v = g->outputs.v[i];
        struct shape s = value_at(at[0], v)->shape, more = value_at(at[1], v)->shape;
        for (int k = 0; k < s.rank && s.rank == more.rank; k++)
            if (s.d[k] != more.d[k])
                s.d[k] = k == 0 && s.d[k] == 2 && g->symbols.n > 0 && str_is(g->symbols.v[0], "batch")
                             ? -1
                             : INT64_MIN;
        w->shapes[i] = s.rank == more.rank ? s : (struct shape){ .rank = -1 };
    }
}

static void value_put(struct writer *w, int field, struct str name, const struct value *v,
                      const struct shape *s)
{
    size_t at = pb_open(w->b, field);
    pb_bytes(w->b, F_VALUE_NAME, name);
    size_t type = pb_open(w->b, F_VALUE_TYPE), tensor = pb_open(w->b, F_TYPE_TENSOR);
    pb_varint(w->b, F_TENSOR_TYPE_ELEM, v->type);
    if (s->rank >= 0) {
        size_t shape = pb_open(w->b, F_TENSOR_TYPE_SHAPE);
        for (int i = 0; i < s->rank; i++) {
            size_t dim = pb_open(w->b, F_SHAPE_DIM);
            if (s->d[i] >= 0)
                pb_varint(w->b, F_DIM_VALUE, s->d[i]);
            else if (s->d[i] >= -(int64_t)w->g->symbols.n)
                pb_bytes(w->b, F_DIM_PARAM, w->g->symbols.v[-1 - s->d[i]]);
            pb_close(w->b, dim);
        }
        pb_close(w->b, shape);
    }
    pb_close(w->b, tensor);
    pb_close(w->b, type);
    pb_close(w->b, at);
}

static void attr_put(struct writer *w, const struct attr *a)
{
    size_t at = pb_open(w->b, F_NODE_ATTR);
    pb_bytes(w->b, F_ATTR_NAME, str_of(a->name));
    switch (a->type) {
    case ATTR_INT:
        pb_varint(w->b, F_ATTR_INT, a->i);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_INT);
        break;
    case ATTR_FLOAT:
        pb_float(w->b, F_ATTR_FLOAT, a->f);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_FLOAT);
        break;
    case ATTR_TEXT:
        pb_bytes(w->b, F_ATTR_TEXT, a->s);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_TEXT);
        break;
    case ATTR_INTS:
        pb_varints(w->b, F_ATTR_INTS, a->is, a->n);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_INTS);
        break;
    case ATTR_FLOATS:
        pb_floats(w->b, F_ATTR_FLOATS, a->fs, a->n);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_FLOATS);
        break;
    case ATTR_TEXTS:
        for (size_t i = 0; i < a->n; i++)
            pb_bytes(w->b, F_ATTR_TEXTS, a->ss[i]);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_TEXTS);
        break;
    case ATTR_VALUE: {
        const struct value *v = value_at(w->g, (int)a->i);
        tensor_put(w, F_ATTR_TENSOR, S(""), v->type, &v->shape, v->data);
        pb_varint(w->b, F_ATTR_TYPE, ATTR_TYPE_TENSOR);
        break;
    }
    }
    pb_close(w->b, at);
}

/* ---- nodes, in the form of the opset ---- */

/* Attributes that say how to train, or came after opset 17, where the file has that. */
static bool attr_goes(const struct writer *w, const struct node *n, const char *name)
{
    if (strcmp(n->op->name, "BatchNormalization") == 0)
        return strcmp(name, "training_mode") == 0;
    if (n->op->id == OP_Split)
        return strcmp(name, "num_outputs") == 0 && w->opset < 18;
    return is_reduce(n) && w->opset < 18 && strcmp(name, "noop_with_empty_axes") == 0;
}

/* The name of an initialiser that holds these numbers, for the older form of node n. */
static struct str extra_put(struct writer *w, const struct node *n, const char *what, const int64_t *v,
                            size_t count)
{
    struct str name = fmt(w->scratch, "%.*s#%s%zu", STR(n->name), what, w->extra.n);
    push(w->scratch, &w->extra, name);
    tensor_put(w, F_GRAPH_TENSOR, name, TENSOR_I64, &SHAPE((int64_t)count), v);
    return name;
}

static void node_put(struct writer *w, const struct node *n)
{
    size_t count = 0;
    const int64_t *axes = is_reduce(n) && w->opset < 18 ? axes_of(w, n, 1, &count) : NULL;
    struct str pieces = { 0 };
    if (n->op->id == OP_Split && n->n_in < 2 && w->opset < 18) {
        int64_t *v = NEW_N(w->scratch, int64_t, n->n_out);
        if (pieces_of(w, n, v))
            pieces = extra_put(w, n, "split", v, (size_t)n->n_out);
    }
    bool norm = strcmp(n->op->name, "BatchNormalization") == 0;
    size_t at = pb_open(w->b, F_GRAPH_NODE);
    for (int i = 0; i < (axes ? 1 : n->n_in); i++)
        pb_bytes(w->b, F_NODE_IN, n->in[i] >= 0 ? w->names[final(w, n->in[i])] : S(""));
    if (pieces.n > 0)
        pb_bytes(w->b, F_NODE_IN, pieces);
    for (int i = 0; i < (norm ? 1 : n->n_out); i++)
        pb_bytes(w->b, F_NODE_OUT, n->out[i] >= 0 ? w->names[n->out[i]] : S(""));
    pb_bytes(w->b, F_NODE_NAME, n->name);
    pb_bytes(w->b, F_NODE_OP, str_of(n->op->name));
    if (is_ml(n))
        pb_bytes(w->b, F_NODE_DOMAIN, S(ONNX_ML));
    for (size_t i = 0; i < n->n_attrs; i++)
        if (!attr_goes(w, n, n->attrs[i].name))
            attr_put(w, &n->attrs[i]);
    if (axes)
        attr_put(w, &(struct attr){ "axes", ATTR_INTS, .is = axes, .n = count });
    if (n->op->id == OP_Split && n->n_in < 2 && w->opset >= 18 && !attr_find(n, "num_outputs"))
        attr_put(w, &(struct attr){ "num_outputs", ATTR_INT, .i = n->n_out });
    pb_close(w->b, at);
}

/* An output that another value stands for: an Identity gives it its name. */
static void identity_put(struct writer *w, int from, int to)
{
    size_t at = pb_open(w->b, F_GRAPH_NODE);
    pb_bytes(w->b, F_NODE_IN, w->names[from]);
    pb_bytes(w->b, F_NODE_OUT, w->names[to]);
    pb_bytes(w->b, F_NODE_OP, S("Identity"));
    pb_close(w->b, at);
}

static void graph_put(struct writer *w)
{
    const struct graph *g = w->g;
    size_t at = pb_open(w->b, F_MODEL_GRAPH);
    pb_bytes(w->b, F_GRAPH_NAME, g->name.n > 0 ? g->name : S("dhow"));
    for (size_t i = 0; i < g->inputs.n; i++)
        if (w->used[g->inputs.v[i]])
            value_put(w, F_GRAPH_INPUT, w->names[g->inputs.v[i]], value_at(g, g->inputs.v[i]),
                      &value_at(g, g->inputs.v[i])->shape);
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = &g->values.v[i];
        if (w->used[i] && v->kind >= VALUE_PARAM)
            tensor_put(w, F_GRAPH_TENSOR, w->names[i], v->type, &v->shape,
                       w->data && w->data[i] ? w->data[i] : v->data);
    }
    for (size_t i = 0; i < g->nodes.n; i++)
        if (w->live[i])
            node_put(w, &g->nodes.v[i]);
    for (size_t i = 0; i < g->outputs.n; i++) {
        int v = g->outputs.v[i];
        if (final(w, v) != v)
            identity_put(w, final(w, v), v);
        const struct shape *shape = &value_at(g, v)->shape;
        value_put(w, F_GRAPH_OUTPUT, w->names[v], value_at(g, v), shape->rank < 0 ? &w->shapes[i] : shape);
    }
    pb_close(w->b, at);
}

static void opset_put(struct writer *w, struct str domain, int64_t version)
{
    size_t at = pb_open(w->b, F_MODEL_OPSET);
    pb_bytes(w->b, F_OPSET_DOMAIN, domain);
    pb_varint(w->b, F_OPSET_VERSION, version);
    pb_close(w->b, at);
}

static void model_put(struct writer *w)
{
    pb_varint(w->b, F_MODEL_IR, ir_of(w->opset));
    pb_bytes(w->b, F_MODEL_PRODUCER, S("dhow"));
    pb_bytes(w->b, F_MODEL_PRODUCER_VERSION, S(DHOW_VERSION));
    graph_put(w);
    opset_put(w, S(""), w->opset);
    if (w->ml)
        opset_put(w, S(ONNX_ML), op_label_encoder.since);
    for (size_t i = 0; i < w->g->metadata.n; i++) {
        size_t at = pb_open(w->b, F_MODEL_METADATA);
        pb_bytes(w->b, F_ENTRY_KEY, w->g->metadata.v[i].key);
        pb_bytes(w->b, F_ENTRY_VALUE, w->g->metadata.v[i].value);
        pb_close(w->b, at);
    }
}

/* Bytes of the weights; protobuf's limit is 2 GiB for all. */
static err size_ok(const struct writer *w, size_t *out)
{
    *out = 0;
    for (size_t i = 0; i < w->g->values.n; i++) {
        const struct value *v = &w->g->values.v[i];
        if (!w->used[i] || v->kind < VALUE_PARAM)
            continue;
        if (shape_count(&v->shape) < 0)
            FAIL(INVALID, "'%.*s' has no size", STR(v->name));
        *out += (size_t)shape_count(&v->shape) * tensor_size(v->type);
        if (*out > (size_t)INT32_MAX - (64 << 20))
            FAIL(TOO_LARGE, "the weights have more than 2 GiB, which one ONNX file cannot hold");
    }
    return NULL;
}

err graph_write(const struct graph *g, struct arena *a, const void *const *data, struct str *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct buf b = buf_new(a);
    struct writer w = { .g = g, .scratch = scratch, .data = data, .b = &b, .opset = 17 };
    size_t weights;
    struct onnx_facts facts;
    TRY(graph_error(g));
    w.same = NEW_N(scratch, int, g->values.n + 1);
    w.used = NEW_N(scratch, bool, g->values.n + 1);
    w.live = NEW_N(scratch, bool, g->nodes.n + 1);
    w.names = NEW_N(scratch, struct str, g->values.n + 1);
    TRY(live_find(&w));
    TRY(size_ok(&w, &weights));
    w.shapes = NEW_N(scratch, struct shape, g->outputs.n + 1);
    for (size_t i = 0; i < g->outputs.n; i++)
        w.shapes[i].rank = -1;
    shapes_find(&w);
    names_find(&w);
    for (size_t i = 0; i < g->nodes.n; i++)
        if (w.live[i] && opset_of(&w, &g->nodes.v[i]) > w.opset)
            w.opset = opset_of(&w, &g->nodes.v[i]);
    (void)buf_room(&b, weights + weights / 16 + 4096); /* at once: growing would copy the weights */
    model_put(&w);
    struct str bytes = buf_get(&b);
    TRY_AS(onnx_check(scratch, bytes, NULL, &facts), "the model as it was written");
    *out = bytes;
    return NULL;
}
