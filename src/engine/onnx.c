// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <stdlib.h>

/* ---- messages: one row per field that matters here ---- */
// clang-format off
#define RULES(list, what) static const struct pb_rules list##_rules = { what, list, sizeof list / sizeof *list }
#define VARINT(number, name) { number, PB_VARINT, PB_ONE, name }
#define BYTES(number, name)  { number, PB_BYTES, PB_ONE, name }
#define LIST(number, name)   { number, PB_BYTES, PB_MANY, name }

enum { MODEL_IR = 1, MODEL_PRODUCER, MODEL_PRODUCER_VERSION, MODEL_DOC = 6, MODEL_GRAPH = 7, MODEL_OPSET = 8,
       MODEL_METADATA = 14, MODEL_TRAINING = 20, MODEL_FUNCTION = 25 };
static const struct pb_rule model[] = {
    VARINT(MODEL_IR, "ir_version"), BYTES(MODEL_PRODUCER, "producer_name"),
    BYTES(MODEL_PRODUCER_VERSION, "producer_version"), BYTES(MODEL_DOC, "doc_string"), BYTES(MODEL_GRAPH, "graph"),
    LIST(MODEL_OPSET, "opset_import"), LIST(MODEL_METADATA, "metadata_props"), LIST(MODEL_TRAINING, "training_info"),
    LIST(MODEL_FUNCTION, "functions"),
};
RULES(model, "model");

enum { GRAPH_NODE = 1, GRAPH_NAME = 2, GRAPH_TENSOR = 5, GRAPH_INPUT = 11, GRAPH_OUTPUT = 12, GRAPH_SPARSE = 15 };
static const struct pb_rule graph[] = {
    LIST(GRAPH_NODE, "node"), BYTES(GRAPH_NAME, "name"), LIST(GRAPH_TENSOR, "initializer"),
    LIST(GRAPH_INPUT, "input"), LIST(GRAPH_OUTPUT, "output"), LIST(GRAPH_SPARSE, "sparse_initializer"),
};
RULES(graph, "graph");

enum { NODE_NAME = 3, NODE_OP = 4, NODE_ATTRIBUTE = 5, NODE_DOMAIN = 7 };
static const struct pb_rule node[] = {
    BYTES(NODE_NAME, "name"), BYTES(NODE_OP, "op_type"), LIST(NODE_ATTRIBUTE, "attribute"), BYTES(NODE_DOMAIN, "domain"),
};
RULES(node, "node");

enum { ATTRIBUTE_NAME = 1, ATTRIBUTE_TENSOR = 5, ATTRIBUTE_GRAPH = 6, ATTRIBUTE_FLOATS = 7, ATTRIBUTE_INTS = 8, ATTRIBUTE_TENSORS = 10,
       ATTRIBUTE_GRAPHS = 11, ATTRIBUTE_SPARSE = 22, ATTRIBUTE_SPARSES = 23 };
static const struct pb_rule attribute[] = {
    BYTES(ATTRIBUTE_NAME, "name"), BYTES(ATTRIBUTE_TENSOR, "t"), BYTES(ATTRIBUTE_GRAPH, "g"),
    { ATTRIBUTE_FLOATS, PB_I32, PB_FLOATS, "floats" }, { ATTRIBUTE_INTS, PB_VARINT, PB_VARINTS, "ints" },
    LIST(ATTRIBUTE_TENSORS, "tensors"), LIST(ATTRIBUTE_GRAPHS, "graphs"), BYTES(ATTRIBUTE_SPARSE, "sparse_tensor"),
    LIST(ATTRIBUTE_SPARSES, "sparse_tensors"),
};
RULES(attribute, "attribute");

enum { TENSOR_DIMS = 1, TENSOR_TYPE, TENSOR_SEGMENT, TENSOR_FLOATS, TENSOR_INT32S, TENSOR_STRINGS, TENSOR_INT64S,
       TENSOR_NAME, TENSOR_RAW, TENSOR_DOUBLES, TENSOR_UINT64S, TENSOR_EXTERNAL = 13, TENSOR_LOCATION = 14 };
static const struct pb_rule tensor[] = {
    { TENSOR_DIMS, PB_VARINT, PB_VARINTS, "dims" }, VARINT(TENSOR_TYPE, "data_type"), BYTES(TENSOR_SEGMENT, "segment"),
    { TENSOR_FLOATS, PB_I32, PB_FLOATS, "float_data" }, { TENSOR_INT32S, PB_VARINT, PB_VARINTS, "int32_data" },
    LIST(TENSOR_STRINGS, "string_data"), { TENSOR_INT64S, PB_VARINT, PB_VARINTS, "int64_data" },
    BYTES(TENSOR_NAME, "name"), BYTES(TENSOR_RAW, "raw_data"), { TENSOR_DOUBLES, PB_I64, PB_DOUBLES, "double_data" },
    { TENSOR_UINT64S, PB_VARINT, PB_VARINTS, "uint64_data" }, LIST(TENSOR_EXTERNAL, "external_data"),
    VARINT(TENSOR_LOCATION, "data_location"),
};
RULES(tensor, "tensor");

enum { SPARSE_VALUES = 1, SPARSE_INDICES, SPARSE_DIMS };
static const struct pb_rule sparse[] = {
    BYTES(SPARSE_VALUES, "values"), BYTES(SPARSE_INDICES, "indices"), { SPARSE_DIMS, PB_VARINT, PB_VARINTS, "dims" },
};
RULES(sparse, "sparse tensor");

enum { VALUE_NAME = 1, VALUE_TYPE = 2, TYPE_TENSOR = 1, TENSOR_TYPE_ELEM = 1, TENSOR_TYPE_SHAPE = 2, SHAPE_DIM = 1,
       DIM_VALUE = 1, DIM_PARAM = 2 };
static const struct pb_rule value[] = { BYTES(VALUE_NAME, "name"), BYTES(VALUE_TYPE, "type") };
RULES(value, "value");
static const struct pb_rule type[] = { BYTES(TYPE_TENSOR, "tensor_type") };
RULES(type, "type");
static const struct pb_rule tensor_type[] = { VARINT(TENSOR_TYPE_ELEM, "elem_type"), BYTES(TENSOR_TYPE_SHAPE, "shape") };
RULES(tensor_type, "type");
static const struct pb_rule shape[] = { LIST(SHAPE_DIM, "dim") };
RULES(shape, "shape");
static const struct pb_rule dim[] = { VARINT(DIM_VALUE, "dim_value"), BYTES(DIM_PARAM, "dim_param") };
RULES(dim, "dimension");

enum { OPSET_DOMAIN = 1, OPSET_VERSION = 2, ENTRY_KEY = 1, ENTRY_VALUE = 2 };
static const struct pb_rule opset[] = { BYTES(OPSET_DOMAIN, "domain"), VARINT(OPSET_VERSION, "version") };
RULES(opset, "opset_import");
static const struct pb_rule entry[] = { BYTES(ENTRY_KEY, "key"), BYTES(ENTRY_VALUE, "value") };
RULES(entry, "metadata_props");

enum { FUNCTION_NAME = 1, FUNCTION_NODE = 7, FUNCTION_DOMAIN = 10, FUNCTION_ATTRIBUTE = 11 };
static const struct pb_rule function[] = {
    BYTES(FUNCTION_NAME, "name"), LIST(FUNCTION_NODE, "node"), BYTES(FUNCTION_DOMAIN, "domain"),
    LIST(FUNCTION_ATTRIBUTE, "attribute_proto"),
};
RULES(function, "function");
enum { TRAINING_FIRST = 1, TRAINING_ALGORITHM = 2 };
static const struct pb_rule training[] = { BYTES(TRAINING_FIRST, "initialization"), BYTES(TRAINING_ALGORITHM, "algorithm") };
RULES(training, "training_info");
// clang-format on

/* ---- the state of one check ---- */

struct check {
    struct arena *a;
    struct onnx_limits limits;
    struct onnx_facts *facts;
    struct strs given;  /* names of the main graph's initialisers */
    struct strs inputs; /* bytes of its inputs, until it is known which of them are given */
    int64_t depth;      /* of graphs; 1: the main one */
};

/* A foreign name, fit for a message. */
static struct str shown(struct check *c, struct str s)
{
    struct buf b = buf_new(c->a);
    for (size_t i = 0; i < s.n && i < 80; i++) {
        char ch = s.p[i];
        buf_put(&b, ch >= ' ' && ch < 0x7f ? &ch : "?", 1);
    }
    if (s.n > 80)
        buf_str(&b, S("…"));
    return buf_get(&b);
}

static err text_ok(struct check *c, struct str s, const char *what)
{
    if (!str_utf8_ok(s) || str_has_nul(s))
        FAIL(INVALID, "%s '%.*s' is not text (UTF-8)", what, STR(shown(c, s)));
    return NULL;
}

static err domain_ok(struct check *c, struct str domain, const char *what)
{
    if (domain.n == 0 || str_is(domain, "ai.onnx") || str_is(domain, "ai.onnx.ml"))
        return NULL;
    return err_hint(err_new(INVALID, "%s of domain '%.*s': only ai.onnx and ai.onnx.ml are run here", what,
                            STR(shown(c, domain))),
                    "export the model without custom operators");
}

static err count_up(int64_t *n, int64_t max, const char *what)
{
    if (++*n > max)
        FAIL(TOO_LARGE, "more than %lld %s", (long long)max, what);
    return NULL;
}

static err check_graph(struct check *c, struct str bytes);

/* ---- tensors ---- */

enum { RANK_MAX = 64 };
struct tensor_seen {
    struct check *c;
    int64_t type, dims[RANK_MAX];
    size_t rank;
    int64_t floats, int32s, int64s, doubles, uint64s, strings, raw;
    bool has_raw;
};

static err dims_add(const struct pb_field *f, int64_t *dims, size_t *rank)
{
    int64_t n;
    TRY(pb_count(f, PB_VARINTS, &n));
    if (n > RANK_MAX || *rank + (size_t)n > RANK_MAX)
        FAIL(TOO_LARGE, "more than %d dimensions", RANK_MAX);
    uint64_t v = f->value;
    struct str rest = f->bytes;
    if (f->wire == PB_VARINT)
        dims[(*rank)++] = (int64_t)v;
    else
        while (pb_next_varint(&rest, &v))
            dims[(*rank)++] = (int64_t)v;
    return NULL;
}

static err count_add(const struct pb_field *f, enum pb_kind kind, int64_t *sum)
{
    int64_t n;
    TRY(pb_count(f, kind, &n));
    *sum += n; /* both at most the bytes of the model */
    return NULL;
}

static err on_tensor(void *arg, const struct pb_field *f)
{
    struct tensor_seen *t = arg;
    switch (f->number) {
    case TENSOR_DIMS:
        return dims_add(f, t->dims, &t->rank);
    case TENSOR_TYPE:
        t->type = (int64_t)f->value;
        return NULL;
    case TENSOR_SEGMENT:
        FAIL(INVALID, "it is in segments");
    case TENSOR_FLOATS:
        return count_add(f, PB_FLOATS, &t->floats);
    case TENSOR_INT32S:
        return count_add(f, PB_VARINTS, &t->int32s);
    case TENSOR_INT64S:
        return count_add(f, PB_VARINTS, &t->int64s);
    case TENSOR_DOUBLES:
        return count_add(f, PB_DOUBLES, &t->doubles);
    case TENSOR_UINT64S:
        return count_add(f, PB_VARINTS, &t->uint64s);
    case TENSOR_STRINGS:
        t->strings++;
        return NULL;
    case TENSOR_RAW:
        t->raw = (int64_t)f->bytes.n;
        t->has_raw = true;
        return NULL;
    case TENSOR_EXTERNAL:
        FAIL(INVALID, "its data is in another file (external_data)");
    case TENSOR_LOCATION:
        if (f->value != 0)
            FAIL(INVALID, "its data is in another file (data_location)");
        return NULL;
    default:
        return NULL;
    }
}

/* How each type is kept: bits of an element, the list that holds it, elements (or halves) per entry. */
enum held_in { IN_FLOATS, IN_INT32S, IN_INT64S, IN_DOUBLES, IN_UINT64S, IN_STRINGS };
struct type_row {
    int bits;
    enum held_in in;
    int per_entry; /* elements in one entry; -2: two entries an element (complex) */
};
static const struct type_row type_rows[] = {
    [1] = { 32, IN_FLOATS, 1 },   [2] = { 8, IN_INT32S, 1 },    [3] = { 8, IN_INT32S, 1 },
    [4] = { 16, IN_INT32S, 1 },   [5] = { 16, IN_INT32S, 1 },   [6] = { 32, IN_INT32S, 1 },
    [7] = { 64, IN_INT64S, 1 },   [8] = { 0, IN_STRINGS, 1 },   [9] = { 8, IN_INT32S, 1 },
    [10] = { 16, IN_INT32S, 1 },  [11] = { 64, IN_DOUBLES, 1 }, [12] = { 32, IN_UINT64S, 1 },
    [13] = { 64, IN_UINT64S, 1 }, [14] = { 64, IN_FLOATS, -2 }, [15] = { 128, IN_DOUBLES, -2 },
    [16] = { 16, IN_INT32S, 1 },  [17] = { 8, IN_INT32S, 1 },   [18] = { 8, IN_INT32S, 1 },
    [19] = { 8, IN_INT32S, 1 },   [20] = { 8, IN_INT32S, 1 },   [21] = { 4, IN_INT32S, 2 },
    [22] = { 4, IN_INT32S, 2 },   [23] = { 4, IN_INT32S, 2 },   [24] = { 8, IN_INT32S, 1 },
    [25] = { 2, IN_INT32S, 4 },   [26] = { 2, IN_INT32S, 4 },
};

static int64_t entries_of(const struct tensor_seen *t, enum held_in in)
{
    switch (in) {
    case IN_FLOATS:
        return t->floats;
    case IN_INT32S:
        return t->int32s;
    case IN_INT64S:
        return t->int64s;
    case IN_DOUBLES:
        return t->doubles;
    case IN_UINT64S:
        return t->uint64s;
    default:
        return t->strings;
    }
}

/* The bytes that its type and dimensions claim are there, once and in the right list. */
static err tensor_data_ok(const struct tensor_seen *t, int64_t n)
{
    if (t->type < 1 || t->type >= (int64_t)(sizeof type_rows / sizeof *type_rows))
        FAIL(INVALID, "it has the unknown element type %lld", (long long)t->type);
    struct type_row row = type_rows[t->type];
    int64_t all = t->floats + t->int32s + t->int64s + t->doubles + t->uint64s + t->strings;
    if (t->has_raw) {
        if (row.bits == 0)
            FAIL(INVALID, "it holds text as raw bytes");
        int64_t want = (n * row.bits + 7) / 8; /* n < 2^31 by default, bits ≤ 128 */
        if (t->raw != want || all > 0)
            FAIL(INVALID, "its shape claims %lld bytes, %lld are there", (long long)want, (long long)t->raw);
        return NULL;
    }
    int64_t have = entries_of(t, row.in);
    int64_t want = row.per_entry < 0 ? n * 2 : (n + row.per_entry - 1) / row.per_entry;
    if (have != want || all != have)
        FAIL(INVALID, "its shape claims %lld values, %lld are there", (long long)want, (long long)all);
    return NULL;
}

static err tensor_read(struct check *c, struct str bytes, int64_t *count)
{
    struct tensor_seen t = { .c = c };
    TRY(pb_walk(&tensor_rules, bytes, on_tensor, &t));
    if (!tensor_count(t.dims, t.rank, c->limits.elements_max, count))
        FAIL(TOO_LARGE, "its shape is negative or has more than %lld elements",
             (long long)c->limits.elements_max);
    return tensor_data_ok(&t, *count);
}

static err check_tensor(struct check *c, struct str bytes, int64_t *count)
{
    TRY(count_up(&c->facts->tensors, c->limits.tensors_max, "tensors"));
    TRY_AS(tensor_read(c, bytes, count), "tensor '%.*s'", STR(shown(c, pb_find(bytes, TENSOR_NAME))));
    return NULL;
}

struct sparse_seen {
    struct check *c;
    int64_t dims[RANK_MAX];
    size_t rank;
};

static err on_sparse(void *arg, const struct pb_field *f)
{
    struct sparse_seen *s = arg;
    int64_t count;
    if (f->number == SPARSE_DIMS)
        return dims_add(f, s->dims, &s->rank);
    return check_tensor(s->c, f->bytes, &count);
}

static err check_sparse(struct check *c, struct str bytes)
{
    struct sparse_seen s = { .c = c };
    int64_t count;
    TRY(pb_walk(&sparse_rules, bytes, on_sparse, &s));
    if (!tensor_count(s.dims, s.rank, c->limits.elements_max, &count))
        FAIL(TOO_LARGE, "sparse tensor '%.*s': its shape is negative or has more than %lld elements",
             STR(shown(c, pb_find(pb_find(bytes, SPARSE_VALUES), TENSOR_NAME))),
             (long long)c->limits.elements_max);
    return NULL;
}

/* ---- nodes ---- */

static err on_attribute(void *arg, const struct pb_field *f)
{
    struct check *c = arg;
    int64_t count;
    switch (f->number) {
    case ATTRIBUTE_TENSOR:
    case ATTRIBUTE_TENSORS:
        return check_tensor(c, f->bytes, &count);
    case ATTRIBUTE_SPARSE:
    case ATTRIBUTE_SPARSES:
        return check_sparse(c, f->bytes);
    case ATTRIBUTE_GRAPH:
    case ATTRIBUTE_GRAPHS:
        return check_graph(c, f->bytes);
    case ATTRIBUTE_FLOATS:
        return pb_count(f, PB_FLOATS, &count);
    case ATTRIBUTE_INTS:
        return pb_count(f, PB_VARINTS, &count);
    default:
        return NULL;
    }
}

static err check_attribute(struct check *c, struct str bytes)
{
    TRY_AS(pb_walk(&attribute_rules, bytes, on_attribute, c), "attribute '%.*s'",
           STR(shown(c, pb_find(bytes, ATTRIBUTE_NAME))));
    return NULL;
}

static err on_node(void *arg, const struct pb_field *f)
{
    struct check *c = arg;
    switch (f->number) {
    case NODE_ATTRIBUTE:
        return check_attribute(c, f->bytes);
    case NODE_DOMAIN:
        return domain_ok(c, f->bytes, "an operator");
    default:
        return NULL;
    }
}

static err check_node(struct check *c, struct str bytes)
{
    TRY(count_up(&c->facts->nodes, c->limits.nodes_max, "nodes"));
    TRY_AS(pb_walk(&node_rules, bytes, on_node, c), "node '%.*s' (%.*s)",
           STR(shown(c, pb_find(bytes, NODE_NAME))), STR(shown(c, pb_find(bytes, NODE_OP))));
    return NULL;
}

/* ---- inputs and outputs ---- */

static err on_dim(void *arg, const struct pb_field *f)
{
    struct tensor_spec *spec = arg;
    size_t i = spec->rank - 1;
    if (f->number == DIM_VALUE)
        spec->dims[i] = (int64_t)f->value < 0 ? -1 : (int64_t)f->value;
    else
        spec->symbols[i] = f->bytes;
    return NULL;
}

static err on_shape(void *arg, const struct pb_field *f)
{
    struct tensor_spec *spec = arg;
    if (spec->rank == TENSOR_RANK_MAX)
        FAIL(TOO_LARGE, "more than %d dimensions", TENSOR_RANK_MAX);
    spec->dims[spec->rank++] = -1;
    return pb_walk(&dim_rules, f->bytes, on_dim, spec);
}

static err on_tensor_type(void *arg, const struct pb_field *f)
{
    struct tensor_spec *spec = arg;
    if (f->number == TENSOR_TYPE_ELEM) {
        spec->type = f->value < 64 && tensor_onnx_name((enum tensor_type)f->value).n > 0
                         ? (enum tensor_type)f->value
                         : TENSOR_NONE;
        return NULL;
    }
    spec->shaped = true;
    return pb_walk(&shape_rules, f->bytes, on_shape, spec);
}

static err on_type(void *arg, const struct pb_field *f)
{
    return pb_walk(&tensor_type_rules, f->bytes, on_tensor_type, arg);
}

static err on_value(void *arg, const struct pb_field *f)
{
    struct tensor_spec *spec = arg;
    if (f->number == VALUE_TYPE)
        return pb_walk(&type_rules, f->bytes, on_type, spec);
    spec->name = f->bytes;
    return NULL;
}

static err value_read(struct check *c, struct str bytes, const char *what, struct tensor_spec *out)
{
    *out = (struct tensor_spec){ 0 };
    TRY_AS(pb_walk(&value_rules, bytes, on_value, out), "%s '%.*s'", what,
           STR(shown(c, pb_find(bytes, VALUE_NAME))));
    TRY(text_ok(c, out->name, what));
    if (out->name.n == 0)
        FAIL(INVALID, "an %s has no name", what);
    for (size_t i = 0; i < out->rank; i++)
        TRY(text_ok(c, out->symbols[i], "the dimension"));
    return NULL;
}

/* ---- graphs, functions, the model ---- */

static err main_graph_field(struct check *c, const struct pb_field *f)
{
    struct onnx_facts *facts = c->facts;
    struct tensor_spec spec;
    switch (f->number) {
    case GRAPH_NAME:
        facts->graph = f->bytes;
        return text_ok(c, f->bytes, "the graph's name");
    case GRAPH_INPUT:
        push(c->a, &c->inputs, f->bytes);
        if ((int64_t)c->inputs.n > c->limits.values_max + c->limits.tensors_max)
            FAIL(TOO_LARGE, "more than %lld inputs", (long long)c->limits.values_max);
        return NULL;
    case GRAPH_OUTPUT:
        TRY(value_read(c, f->bytes, "output", &spec));
        push(c->a, &facts->outputs, spec);
        if ((int64_t)facts->outputs.n > c->limits.values_max)
            FAIL(TOO_LARGE, "more than %lld outputs", (long long)c->limits.values_max);
        return NULL;
    case GRAPH_TENSOR:
        push(c->a, &c->given, pb_find(f->bytes, TENSOR_NAME));
        return NULL;
    case GRAPH_SPARSE:
        push(c->a, &c->given, pb_find(pb_find(f->bytes, SPARSE_VALUES), TENSOR_NAME));
        return NULL;
    default:
        return NULL;
    }
}

static err on_graph(void *arg, const struct pb_field *f)
{
    struct check *c = arg;
    int64_t count = 0;
    switch (f->number) {
    case GRAPH_NODE:
        return check_node(c, f->bytes);
    case GRAPH_SPARSE:
        TRY(check_sparse(c, f->bytes));
        break;
    case GRAPH_TENSOR:
        TRY(check_tensor(c, f->bytes, &count));
        if (c->depth == 1)
            c->facts->parameters += count;
        break;
    default:
        break;
    }
    return c->depth == 1 ? main_graph_field(c, f) : NULL;
}

static err check_graph(struct check *c, struct str bytes)
{
    if (c->depth >= c->limits.depth_max + 1)
        FAIL(TOO_LARGE, "subgraphs are nested deeper than %lld", (long long)c->limits.depth_max);
    c->depth++;
    err e = pb_walk(&graph_rules, bytes, on_graph, c);
    c->depth--;
    return e;
}

/* A graph that is not the model's own: its inputs are no facts. */
static err check_other_graph(struct check *c, struct str bytes)
{
    c->depth++;
    err e = check_graph(c, bytes);
    c->depth--;
    return e;
}

static err on_function(void *arg, const struct pb_field *f)
{
    struct check *c = arg;
    switch (f->number) {
    case FUNCTION_DOMAIN:
        return domain_ok(c, f->bytes, "a function");
    case FUNCTION_NODE:
        c->depth++;
        err e = check_node(c, f->bytes);
        c->depth--;
        return e;
    case FUNCTION_ATTRIBUTE:
        return check_attribute(c, f->bytes);
    default:
        return NULL;
    }
}

static err on_training(void *arg, const struct pb_field *f)
{
    return check_other_graph(arg, f->bytes);
}

struct opset_seen {
    struct str domain;
    int64_t version;
};

static err on_opset(void *arg, const struct pb_field *f)
{
    struct opset_seen *o = arg;
    if (f->number == OPSET_DOMAIN)
        o->domain = f->bytes;
    else
        o->version = (int64_t)f->value;
    return NULL;
}

/* Domains that no node uses may be imported: exporters do. */
static err opset_read(struct check *c, struct str bytes)
{
    struct opset_seen o = { 0 };
    TRY(pb_walk(&opset_rules, bytes, on_opset, &o));
    if (o.domain.n == 0 || str_is(o.domain, "ai.onnx"))
        c->facts->opset = o.version;
    else if (str_is(o.domain, "ai.onnx.ml"))
        c->facts->opset_ml = o.version;
    return NULL;
}

static err on_entry(void *arg, const struct pb_field *f)
{
    struct onnx_text *t = arg;
    *(f->number == ENTRY_KEY ? &t->key : &t->value) = f->bytes;
    return NULL;
}

static err metadata_read(struct check *c, struct str bytes)
{
    struct onnx_text t = { 0 };
    TRY(pb_walk(&entry_rules, bytes, on_entry, &t));
    TRY(text_ok(c, t.key, "the metadata key"));
    TRY(text_ok(c, t.value, "the metadata value"));
    if (c->facts->metadata.n == 1000)
        FAIL(TOO_LARGE, "more than 1000 metadata_props");
    push(c->a, &c->facts->metadata, t);
    return NULL;
}

static err on_model(void *arg, const struct pb_field *f)
{
    struct check *c = arg;
    struct onnx_facts *facts = c->facts;
    switch (f->number) {
    case MODEL_IR:
        facts->ir_version = (int64_t)f->value;
        return NULL;
    case MODEL_PRODUCER:
        facts->producer = f->bytes;
        return text_ok(c, f->bytes, "the producer");
    case MODEL_PRODUCER_VERSION:
        facts->producer_version = f->bytes;
        return text_ok(c, f->bytes, "the producer's version");
    case MODEL_DOC:
        facts->doc = f->bytes;
        return text_ok(c, f->bytes, "the description");
    case MODEL_GRAPH:
        return check_graph(c, f->bytes);
    case MODEL_OPSET:
        return opset_read(c, f->bytes);
    case MODEL_METADATA:
        return metadata_read(c, f->bytes);
    case MODEL_TRAINING:
        return pb_walk(&training_rules, f->bytes, on_training, c);
    case MODEL_FUNCTION:
        TRY_AS(pb_walk(&function_rules, f->bytes, on_function, c), "function '%.*s'",
               STR(shown(c, pb_find(f->bytes, FUNCTION_NAME))));
        return NULL;
    default:
        return NULL;
    }
}

static int by_text(const void *x, const void *y)
{
    return str_cmp(*(const struct str *)x, *(const struct str *)y);
}

/* The inputs that no initialiser gives. */
static err inputs_read(struct check *c)
{
    if (c->given.n > 0)
        qsort(c->given.v, c->given.n, sizeof *c->given.v, by_text);
    for (size_t i = 0; i < c->inputs.n; i++) {
        struct tensor_spec spec;
        struct str name = pb_find(c->inputs.v[i], VALUE_NAME);
        if (c->given.n > 0 && bsearch(&name, c->given.v, c->given.n, sizeof name, by_text))
            continue;
        if ((int64_t)c->facts->inputs.n == c->limits.values_max)
            FAIL(TOO_LARGE, "more than %lld inputs", (long long)c->limits.values_max);
        TRY(value_read(c, c->inputs.v[i], "input", &spec));
        push(c->a, &c->facts->inputs, spec);
    }
    return NULL;
}

static err names_differ(struct check *c, const struct tensor_spec *v, size_t n, const char *what)
{
    struct str *names = NEW_N(c->a, struct str, n + 1);
    for (size_t i = 0; i < n; i++)
        names[i] = v[i].name;
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 1; i < n; i++)
        if (str_eq(names[i - 1], names[i]))
            FAIL(INVALID, "two %s are called '%.*s'", what, STR(shown(c, names[i])));
    return NULL;
}

/* The largest limit keeps sums and products of a few of them inside 64 bits. */
static int64_t or_default(int64_t v, int64_t by_default)
{
    const int64_t most = (int64_t)1 << 48;
    return v <= 0 ? by_default : v < most ? v : most;
}

static struct onnx_limits limits_of(const struct onnx_limits *given)
{
    struct onnx_limits l = given ? *given : (struct onnx_limits){ 0 };
    return (struct onnx_limits){
        .bytes_max = or_default(l.bytes_max, INT32_MAX),
        .nodes_max = or_default(l.nodes_max, 100000),
        .tensors_max = or_default(l.tensors_max, 100000),
        .elements_max = or_default(l.elements_max, INT32_MAX),
        .values_max = or_default(l.values_max, 1000),
        .depth_max = or_default(l.depth_max, 8),
    };
}

err onnx_check(struct arena *a, struct str bytes, const struct onnx_limits *limits, struct onnx_facts *out)
{
    struct onnx_facts facts = { 0 };
    struct check c = { .a = a, .limits = limits_of(limits), .facts = &facts };
    if ((uint64_t)bytes.n > (uint64_t)c.limits.bytes_max)
        FAIL(TOO_LARGE, "the model has %zu bytes, at most %lld are allowed", bytes.n,
             (long long)c.limits.bytes_max);
    TRY(pb_walk(&model_rules, bytes, on_model, &c));
    if (facts.opset == 0 && facts.opset_ml == 0)
        FAIL(INVALID, "the model imports no operator set; is it ONNX?");
    if (facts.outputs.n == 0)
        FAIL(INVALID, "the model has no outputs; is it ONNX?");
    TRY(inputs_read(&c));
    TRY(names_differ(&c, facts.inputs.v, facts.inputs.n, "inputs"));
    TRY(names_differ(&c, facts.outputs.v, facts.outputs.n, "outputs"));
    *out = facts;
    return NULL;
}
