// SPDX-License-Identifier: Apache-2.0
#include "engine/graph_onnx.h"

#include <stdlib.h>

/* ---- names: of values, to their ids ---- */

struct entry {
    struct str name;
    int id; /* of the value; −1: some node will make it */
    int by; /* that node of the file; −1: none */
};
struct names {
    struct entry *v;
    size_t n, mask;
};
struct file_node {
    struct str bytes, name, op, domain;
    struct strs in, out;
    int waits; /* for so many of its inputs */
};
struct reader {
    struct arena *a, *scratch;
    struct graph *g;
    struct onnx_facts facts;
    struct names names;
    VEC(struct file_node) nodes;
    VEC(struct str) tensors, inputs, outputs;
    bool texts; /* are taken */
};

static err names_new(struct reader *r, size_t n)
{
    size_t size = 64;
    while (size < 2 * n)
        size *= 2;
    r->names = (struct names){ NEW_N(r->scratch, struct entry, size), 0, size - 1 };
    return NULL;
}

/* The entry of that name, or the free one where it belongs. */
static struct entry *name_at(struct reader *r, struct str name)
{
    size_t i = hash64(name) & r->names.mask;
    while (r->names.v[i].name.n > 0 && !str_eq(r->names.v[i].name, name))
        i = (i + 1) & r->names.mask;
    return &r->names.v[i];
}

/* A foreign name, fit for a message and to be kept. */
static struct str shown(struct reader *r, struct str s)
{
    struct buf b = buf_new(r->a);
    for (size_t i = 0; i < s.n && i < 80; i++) {
        char ch = s.p[i];
        buf_put(&b, ch >= ' ' && ch < 0x7f ? &ch : "?", 1);
    }
    return buf_get(&b);
}

static err name_add(struct reader *r, struct str name, int id, int by)
{
    struct entry *e = name_at(r, name);
    if (name.n == 0 || !str_utf8_ok(name) || str_has_nul(name))
        FAIL(INVALID, "a value's name is empty or no text: '%.*s'", STR(shown(r, name)));
    if (e->name.n > 0)
        FAIL(INVALID, "two values are called '%.*s'", STR(shown(r, name)));
    *e = (struct entry){ name, id, by };
    return NULL;
}

static int value_add(struct graph *g, struct value v)
{
    push(g->a, &g->values, v);
    return (int)g->values.n - 1;
}

/* ---- fields ---- */

/* Calls on for each field of a message; what cannot be read was refused by onnx_check. */
static err each(struct str bytes, err (*on)(void *, const struct pb_field *), void *arg)
{
    struct pb_field f;
    const char *wrong;
    while (pb_next(&bytes, &f, &wrong))
        TRY(on(arg, &f));
    if (wrong)
        FAIL(INVALID, "%s", wrong);
    return NULL;
}

struct node_into {
    struct reader *r;
    struct file_node *n;
};
static err on_node_field(void *arg, const struct pb_field *f)
{
    struct node_into *to = arg;
    if (f->wire != PB_BYTES)
        return NULL;
    switch (f->number) {
    case F_NODE_IN:
        push(to->r->scratch, &to->n->in, f->bytes);
        return NULL;
    case F_NODE_OUT:
        push(to->r->scratch, &to->n->out, f->bytes);
        return NULL;
    case F_NODE_NAME:
        to->n->name = f->bytes;
        return NULL;
    case F_NODE_OP:
        to->n->op = f->bytes;
        return NULL;
    case F_NODE_DOMAIN:
        to->n->domain = f->bytes;
        return NULL;
    default:
        return NULL;
    }
}

static err on_graph_field(void *arg, const struct pb_field *f)
{
    struct reader *r = arg;
    switch (f->number) {
    case F_GRAPH_NODE: {
        struct file_node n = { .bytes = f->bytes };
        TRY(each(f->bytes, on_node_field, &(struct node_into){ r, &n }));
        if (n.out.n > 10000 || n.in.n > 10000)
            FAIL(TOO_LARGE, "%.*s '%.*s' has more than 10000 inputs or outputs", STR(shown(r, n.op)),
                 STR(shown(r, n.name)));
        if (n.name.n == 0 || !str_utf8_ok(n.name) || str_has_nul(n.name))
            n.name = n.out.n > 0 ? shown(r, n.out.v[0]) : S("?");
        push(r->scratch, &r->nodes, n);
        return NULL;
    }
    case F_GRAPH_TENSOR:
        push(r->scratch, &r->tensors, f->bytes);
        return NULL;
    case F_GRAPH_SPARSE:
        FAIL(UNSUPPORTED, "the model has sparse initialisers");
    case F_GRAPH_INPUT:
        push(r->scratch, &r->inputs, f->bytes);
        return NULL;
    case F_GRAPH_OUTPUT:
        push(r->scratch, &r->outputs, f->bytes);
        return NULL;
    default:
        return NULL;
    }
}

/* ---- tensors ---- */

struct tensor_seen {
    struct arena *a;
    struct str name, raw;
    bool has_raw;
    int64_t type;
    struct shape shape;
    VEC(struct pb_field) data; /* of typed lists, packed or not */
};

static err dims_add(struct tensor_seen *t, const struct pb_field *f)
{
    struct str packed = f->bytes;
    uint64_t v = f->value;
    while (f->wire == PB_VARINT || pb_next_varint(&packed, &v)) {
        if (t->shape.rank == TENSOR_RANK_MAX)
            FAIL(UNSUPPORTED, "a tensor has more than %d axes", TENSOR_RANK_MAX);
        t->shape.d[t->shape.rank++] = (int64_t)v;
        if (f->wire == PB_VARINT)
            break;
    }
    return NULL;
}

static err on_tensor_field(void *arg, const struct pb_field *f)
{
    struct tensor_seen *t = arg;
    switch (f->number) {
    case F_TENSOR_DIMS:
        return dims_add(t, f);
    case F_TENSOR_TYPE:
        t->type = (int64_t)f->value;
        return NULL;
    case F_TENSOR_NAME:
        t->name = f->bytes;
        return NULL;
    case F_TENSOR_RAW:
        t->raw = f->bytes;
        t->has_raw = true;
        return NULL;
    case F_TENSOR_FLOATS:
    case F_TENSOR_INT32S:
    case F_TENSOR_INT64S:
    case F_TENSOR_DOUBLES:
    case F_TENSOR_UINT64S:
        push(t->a, &t->data, *f);
        return NULL;
    default:
        return NULL;
    }
}

static void number_put(char *to, size_t size, uint64_t v)
{
    memcpy(to, &v,
           size); /* little-endian, as ONNX's raw data: the low bytes of a number are its narrower form */
}

/* Lists of numbers, each field packed or one number; onnx_check has counted them. */
static err typed_read(const struct tensor_seen *t, char *to, int64_t count, size_t size)
{
    int64_t n = 0;
    for (size_t i = 0; i < t->data.n; i++) {
        const struct pb_field *f = &t->data.v[i];
        bool fixed = f->number == F_TENSOR_FLOATS || f->number == F_TENSOR_DOUBLES;
        struct str rest = f->bytes;
        uint64_t v = f->value;
        if (f->wire == PB_BYTES && fixed) {
            int64_t here = (int64_t)(rest.n / size);
            if (here > count - n)
                FAIL(INVALID, "tensor '%.*s' has too many numbers", STR(t->name));
            memcpy(to + (size_t)n * size, rest.p, (size_t)here * size);
            n += here;
            continue;
        }
        while (f->wire != PB_BYTES || pb_next_varint(&rest, &v)) {
            if (n == count)
                FAIL(INVALID, "tensor '%.*s' has too many numbers", STR(t->name));
            number_put(to + (size_t)n++ * size, size, v);
            if (f->wire != PB_BYTES)
                break;
        }
    }
    if (n != count)
        FAIL(INVALID, "tensor '%.*s' has %lld numbers, its shape claims %lld", STR(t->name), (long long)n,
             (long long)count);
    return NULL;
}

/* Data that lies on its type's alignment stays where it is, other is copied. */
static err tensor_data(struct reader *r, const struct tensor_seen *t, const void **out)
{
    size_t size = tensor_size((enum tensor_type)t->type);
    int64_t count = shape_count(&t->shape);
    if (t->has_raw && (int64_t)t->raw.n != count * (int64_t)size)
        FAIL(INVALID, "tensor '%.*s' has %zu bytes, its shape claims %lld", STR(t->name), t->raw.n,
             (long long)(count * (int64_t)size));
    if (t->has_raw && (uintptr_t)t->raw.p % size == 0 && count > 0) {
        *out = t->raw.p;
        return NULL;
    }
    char *to = arena_alloc(r->a, (size_t)count * size + 1, 64);
    *out = to;
    if (t->has_raw) {
        memcpy(to, t->raw.p, t->raw.n);
        return NULL;
    }
    return typed_read(t, to, count, size);
}

static err tensor_read(struct reader *r, struct str bytes, struct tensor_seen *t, const void **data)
{
    *t = (struct tensor_seen){ .a = r->scratch };
    TRY(each(bytes, on_tensor_field, t));
    struct str name = t->name;
    t->name = shown(r, name);
    if (t->type <= 0 || t->type > 64 || tensor_size((enum tensor_type)t->type) == 0)
        FAIL(UNSUPPORTED, "tensor '%.*s' has elements of a type that is not known here (ONNX's number %lld)",
             STR(t->name), (long long)t->type);
    if (shape_count(&t->shape) < 0)
        FAIL(TOO_LARGE, "tensor '%.*s' has an absurd size", STR(t->name));
    TRY(tensor_data(r, t, data));
    t->name = name;
    return NULL;
}

/* What learns is decided when it is known who reads it (kinds_settle). */
static err initialiser(struct reader *r, struct str bytes)
{
    struct tensor_seen t;
    struct value v = { .node = -1 };
    TRY(tensor_read(r, bytes, &t, &v.data));
    v.name = t.name;
    v.type = (enum tensor_type)t.type;
    v.shape = t.shape;
    v.kind = v.type == TENSOR_F32 && v.shape.rank > 0 && shape_count(&v.shape) > 0 ? VALUE_PARAM
                                                                                   : VALUE_CONST;
    return name_add(r, t.name, value_add(r->g, v), -1);
}

/* ---- inputs ---- */

/* The first open dimension of the first input is the batch, whatever the file calls it. */
static int64_t dimension(struct reader *r, const struct tensor_spec *s, size_t axis)
{
    if (s->dims[axis] >= 0)
        return s->dims[axis];
    if (axis == 0 && r->g->inputs.n == 0)
        return graph_symbol(r->g, "batch");
    const struct tensor_spec *first = r->facts.inputs.v;
    if (s->symbols[axis].n > 0 && first->rank > 0 && first->dims[0] < 0 &&
        str_eq(s->symbols[axis], first->symbols[0]))
        return graph_symbol(r->g, "batch");
    if (s->symbols[axis].n > 0)
        return graph_symbol(r->g, str_z(r->a, s->symbols[axis]));
    return graph_symbol(r->g, axis == 0 ? "batch" : fmtz(r->a, "%.*s.%zu", STR(s->name), axis));
}

static err input(struct reader *r, const struct tensor_spec *s)
{
    struct value v = {
        .name = s->name, .kind = VALUE_INPUT, .type = s->type, .shape.rank = (int)s->rank, .node = -1
    };
    if (tensor_size(s->type) == 0 && !(r->texts && s->type == TENSOR_TEXT))
        FAIL(UNSUPPORTED, "input '%.*s' is no tensor of numbers", STR(s->name));
    if (!s->shaped)
        FAIL(UNSUPPORTED, "input '%.*s' has no shape", STR(s->name));
    for (size_t i = 0; i < s->rank; i++)
        v.shape.d[i] = dimension(r, s, i);
    if (r->g->symbols.n > 32)
        FAIL(UNSUPPORTED, "the model has more than 32 open dimensions");
    int id = value_add(r->g, v);
    push(r->g->a, &r->g->inputs, id);
    return name_add(r, s->name, id, -1);
}

/* ---- nodes ---- */

static err floats_read(struct reader *r, const struct pb_field *f, struct attr *at, size_t *cap)
{
    size_t n = f->wire == PB_BYTES ? f->bytes.n / 4 : 1;
    if (n == 0)
        return NULL;
    if (at->n + n > *cap) {
        *cap = 2 * (at->n + n);
        float *more = NEW_N(r->a, float, *cap);
        if (at->n > 0)
            memcpy(more, at->fs, at->n * sizeof *more);
        at->fs = more;
    }
    float *to = (float *)at->fs + at->n;
    uint32_t bits = (uint32_t)f->value;
    memcpy(to, f->wire == PB_BYTES ? (const void *)f->bytes.p : &bits, n * sizeof *to);
    at->n += n;
    return NULL;
}

static err ints_read(struct reader *r, const struct pb_field *f, struct attr *at, size_t *cap)
{
    struct str rest = f->bytes;
    uint64_t v = f->value;
    while (f->wire != PB_BYTES || pb_next_varint(&rest, &v)) {
        if (at->n == *cap) {
            *cap = *cap ? 2 * *cap : 8;
            int64_t *more = NEW_N(r->a, int64_t, *cap);
            if (at->n > 0)
                memcpy(more, at->is, at->n * sizeof *more);
            at->is = more;
        }
        ((int64_t *)at->is)[at->n++] = (int64_t)v;
        if (f->wire != PB_BYTES)
            break;
    }
    return NULL;
}

struct attr_seen {
    struct reader *r;
    struct attr at;
    struct str name, tensor;
    int64_t type;
    size_t floats_cap, ints_cap;
    struct attr floats, ints;
    VEC(struct str) texts;
    bool other;
};

static err on_attr_field(void *arg, const struct pb_field *f)
{
    struct attr_seen *s = arg;
    uint32_t bits = (uint32_t)f->value;
    switch (f->number) {
    case F_ATTR_NAME:
        s->name = f->bytes;
        return NULL;
    case F_ATTR_TYPE:
        s->type = f->wire == PB_VARINT ? (int64_t)f->value : 0;
        return NULL;
    case F_ATTR_FLOAT:
        if (f->wire == PB_I32)
            memcpy(&s->at.f, &bits, 4);
        return NULL;
    case F_ATTR_INT:
        if (f->wire == PB_VARINT)
            s->at.i = (int64_t)f->value;
        return NULL;
    case F_ATTR_TEXT:
        if (f->wire == PB_BYTES)
            s->at.s = f->bytes;
        return NULL;
    case F_ATTR_TENSOR:
        s->tensor = f->bytes;
        return NULL;
    case F_ATTR_FLOATS:
        return floats_read(s->r, f, &s->floats, &s->floats_cap);
    case F_ATTR_INTS:
        return ints_read(s->r, f, &s->ints, &s->ints_cap);
    case F_ATTR_TEXTS:
        if (f->wire == PB_BYTES)
            push(s->r->a, &s->texts, f->bytes);
        return NULL;
    case F_ATTR_REF:
        s->other = true;
        return NULL;
    default:
        return NULL;
    }
}

/* An attribute's tensor as a constant of the graph. */
static err tensor_value(struct reader *r, struct str bytes, int *out)
{
    struct tensor_seen t;
    struct value v = { .node = -1, .kind = VALUE_CONST };
    TRY(tensor_read(r, bytes, &t, &v.data));
    v.name = fmt(r->a, "const_%zu", r->g->values.n);
    v.type = (enum tensor_type)t.type;
    v.shape = t.shape;
    *out = value_add(r->g, v);
    return NULL;
}

static err attr_of(struct reader *r, const struct draft *d, struct str bytes, struct attr *out)
{
    struct attr_seen s = { .r = r };
    TRY(each(bytes, on_attr_field, &s));
    *out = s.at;
    out->name = str_z(r->a, s.name);
    switch (s.other ? -1 : s.type) {
    case ATTR_TYPE_FLOAT:
        out->type = ATTR_FLOAT;
        return NULL;
    case ATTR_TYPE_INT:
        out->type = ATTR_INT;
        return NULL;
    case ATTR_TYPE_TEXT:
        out->type = ATTR_TEXT;
        return NULL;
    case ATTR_TYPE_FLOATS:
        *out = (struct attr){ out->name, ATTR_FLOATS, .fs = s.floats.fs, .n = s.floats.n };
        return NULL;
    case ATTR_TYPE_INTS:
        *out = (struct attr){ out->name, ATTR_INTS, .is = s.ints.is, .n = s.ints.n };
        return NULL;
    case ATTR_TYPE_TEXTS:
        *out = (struct attr){ out->name, ATTR_TEXTS, .ss = s.texts.v, .n = s.texts.n };
        return NULL;
    case ATTR_TYPE_TENSOR: {
        int id;
        TRY(tensor_value(r, s.tensor, &id));
        *out = (struct attr){ out->name, ATTR_VALUE, .i = id };
        return NULL;
    }
    default:
        FAIL(UNSUPPORTED, "%.*s '%.*s': its attribute '%.*s' is of a kind that is not known here", STR(d->op),
             STR(d->name), STR(shown(r, s.name)));
    }
}

struct attrs_into {
    struct reader *r;
    struct draft *d;
};
static err on_attr(void *arg, const struct pb_field *f)
{
    struct attrs_into *to = arg;
    struct attr at;
    if (f->number != F_NODE_ATTR)
        return NULL;
    TRY(attr_of(to->r, to->d, f->bytes, &at));
    if (draft_attr(to->d, at.name))
        FAIL(INVALID, "%.*s '%.*s' has two attributes '%.80s'", STR(to->d->op), STR(to->d->name), at.name);
    push(to->r->a, &to->d->attrs, at);
    return NULL;
}

/* Constant: its attribute becomes a value, and there is no node. */
static err constant(struct reader *r, const struct draft *d, struct str name)
{
    const struct attr *at = d->attrs.n == 1 ? &d->attrs.v[0] : NULL;
    int id = -1;
    if (!at || d->out.n != 1)
        FAIL(INVALID, "Constant '%.*s' has not one value and one output", STR(d->name));
    if (at->type == ATTR_VALUE && strcmp(at->name, "value") == 0)
        id = (int)at->i;
    else if (at->type == ATTR_FLOAT && strcmp(at->name, "value_float") == 0)
        id = graph_f32(r->g, at->f);
    else if (at->type == ATTR_FLOATS && strcmp(at->name, "value_floats") == 0)
        id = graph_const(r->g, TENSOR_F32, SHAPE((int64_t)at->n), at->fs);
    else if (at->type == ATTR_INT && strcmp(at->name, "value_int") == 0)
        id = graph_const(r->g, TENSOR_I64, SCALAR, &at->i);
    else if (at->type == ATTR_INTS && strcmp(at->name, "value_ints") == 0)
        id = graph_i64s(r->g, at->is, at->n);
    else
        FAIL(UNSUPPORTED, "Constant '%.*s': a value of the kind '%.80s' is not known here", STR(d->name),
             at->name);
    TRY(graph_error(r->g));
    value_at(r->g, id)->name = name;
    name_at(r, name)->id = id;
    return NULL;
}

static err node_build(struct reader *r, struct draft *d)
{
    const struct op *op = op_find(d->domain, d->op);
    if (!op)
        FAIL(UNSUPPORTED, "node '%.*s': the op %.*s is not known here", STR(d->name), STR(d->op));
    if (d->opset < OPSET_NUMPY && op->since > d->opset)
        return err_hint(err_new(UNSUPPORTED, "node '%.*s': %.*s of opset %lld is not known here",
                                STR(d->name), STR(d->op), (long long)d->opset),
                        "convert the model by onnx.version_converter, or export it anew");
    struct node n = { .op = op, .name = d->name, .n_in = (int)d->in.n, .n_out = (int)d->out.n };
    while (n.n_in > 0 && d->in.v[n.n_in - 1] < 0) /* named, but empty */
        n.n_in--;
    n.in = d->in.v;
    n.attrs = d->attrs.v;
    n.n_attrs = d->attrs.n;
    if (n.n_in < op->in_min || (op->in_max >= 0 && n.n_in > op->in_max))
        return node_err(r->g, &n, "it has %d inputs", n.n_in);
    if (n.n_out < op->out_min || (op->out_max >= 0 && n.n_out > op->out_max))
        return node_err(r->g, &n, "it has %d outputs", n.n_out);
    for (int i = 0; i < op->in_min; i++)
        if (n.in[i] < 0)
            return node_err(r->g, &n, "input %d is missing", i);
    n.out = NEW_N(r->a, int, n.n_out + 1);
    for (int i = 0; i < n.n_out; i++) {
        n.out[i] = -1;
        if (d->out.v[i].n == 0)
            continue;
        n.out[i] = value_add(
            r->g, (struct value){ .name = d->out.v[i], .shape.rank = -1, .node = (int)r->g->nodes.n });
        name_at(r, d->out.v[i])->id = n.out[i];
    }
    push(r->a, &r->g->nodes, n);
    TRY(graph_infer(r->g, (int)r->g->nodes.n - 1));
    return graph_error(r->g);
}

static err node_read(struct reader *r, const struct file_node *f)
{
    struct draft d = { .g = r->g, .op = f->op, .name = f->name, .opset = r->facts.opset, .out = f->out };
    if (r->texts && str_is(f->domain, ONNX_ML))
        d.domain = f->domain;
    else if (f->domain.n > 0 && !str_is(f->domain, "ai.onnx"))
        FAIL(UNSUPPORTED, "node '%.*s': %.*s of the domain '%.*s' cannot be trained or run here", STR(d.name),
             STR(shown(r, d.op)), STR(shown(r, f->domain)));
    d.op = shown(r, d.op);
    for (size_t i = 0; i < f->in.n; i++)
        push(r->a, &d.in, f->in.v[i].n > 0 ? name_at(r, f->in.v[i])->id : -1);
    TRY(each(f->bytes, on_attr, &(struct attrs_into){ r, &d }));
    if (str_is(d.op, "Constant"))
        return constant(r, &d, f->out.n > 0 ? f->out.v[0] : S(""));
    if (!d.domain.n)
        TRY(graph_lift(&d));
    TRY(graph_error(r->g));
    return node_build(r, &d);
}

/* ---- the order of nodes: each after those that it needs ---- */

struct edge {
    int to, next;
};
/* Kahn's: nodes that wait for nothing are taken, those that wait for them wait for one less. Of several the first in the
 * file comes first, so that a file in order stays in it. */
static err order(struct reader *r, int *out)
{
    size_t n = r->nodes.n, n_edges = 0, done = 0;
    int *first = NEW_N(r->scratch, int, n + 1), *heap = NEW_N(r->scratch, int, n + 1);
    VEC(struct edge) edges = { 0 };
    memset(first, -1, (n + 1) * sizeof *first);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < r->nodes.v[i].in.n; k++) {
            struct str name = r->nodes.v[i].in.v[k];
            if (name.n == 0)
                continue;
            const struct entry *e = name_at(r, name);
            if (e->name.n == 0)
                FAIL(INVALID, "node '%.*s' (%.*s): nobody makes its input '%.*s'", STR(r->nodes.v[i].name),
                     STR(shown(r, r->nodes.v[i].op)), STR(shown(r, name)));
            if (e->by < 0)
                continue;
            push(r->scratch, &edges, (struct edge){ (int)i, first[e->by] });
            first[e->by] = (int)n_edges++;
            r->nodes.v[i].waits++;
        }
    size_t heap_n = 0;
#define HEAP_UP(x)                                                        \
    do {                                                                  \
        size_t at_ = heap_n++;                                            \
        for (; at_ > 0 && heap[(at_ - 1) / 2] > (x); at_ = (at_ - 1) / 2) \
            heap[at_] = heap[(at_ - 1) / 2];                              \
        heap[at_] = (x);                                                  \
    } while (0)
    for (size_t i = 0; i < n; i++)
        if (r->nodes.v[i].waits == 0)
            HEAP_UP((int)i);
    while (heap_n > 0) {
        int least = heap[0], moved = heap[--heap_n];
        size_t at = 0;
        for (size_t child; (child = 2 * at + 1) < heap_n; at = child) {
            child += child + 1 < heap_n && heap[child + 1] < heap[child];
            if (heap[child] >= moved)
                break;
            heap[at] = heap[child];
        }
        heap[at] = moved;
        out[done++] = least;
        for (int e = first[least]; e >= 0; e = edges.v[e].next)
            if (--r->nodes.v[edges.v[e].to].waits == 0)
                HEAP_UP(edges.v[e].to);
    }
#undef HEAP_UP
    for (size_t i = 0; done < n && i < n; i++)
        if (r->nodes.v[i].waits > 0)
            FAIL(INVALID, "node '%.*s' (%.*s) is in a cycle, or behind one", STR(r->nodes.v[i].name),
                 STR(shown(r, r->nodes.v[i].op)));
    return NULL;
}

/* ---- what learns ---- */

/* Inputs that are numbers for the op, not weights. */
static bool is_setting(const struct node *n, int i)
{
    static const struct {
        int op, from, to;
    } rows[] = { { OP_Pad, 1, 3 }, { OP_OneHot, 1, 2 }, { OP_Range, 0, 2 } };
    static const struct {
        const char *op;
        int from, to;
    } others[] = { { "Resize", 1, 3 }, { "Clip", 1, 2 }, { "Dropout", 1, 2 } };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        if (n->op->id == rows[k].op && i >= rows[k].from && i <= rows[k].to)
            return true;
    for (size_t k = 0; k < sizeof others / sizeof *others; k++)
        if (strcmp(n->op->name, others[k].op) == 0 && i >= others[k].from && i <= others[k].to)
            return true;
    return false;
}

/* Parameters that no node learns from become constants; running statistics become state. */
static void kinds_settle(struct graph *g, struct arena *scratch)
{
    bool *learns = NEW_N(scratch, bool, g->values.n + 1);
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        bool batch_norm = strcmp(n->op->name, "BatchNormalization") == 0;
        for (int k = 0; k < n->n_in; k++) {
            if (n->in[k] < 0)
                continue;
            if (batch_norm && k >= 3 && value_at(g, n->in[k])->kind == VALUE_PARAM)
                value_at(g, n->in[k])->kind = VALUE_STATE;
            else if (!is_setting(n, k))
                learns[n->in[k]] = true;
        }
    }
    for (size_t i = 0; i < g->outputs.n; i++)
        learns[g->outputs.v[i]] = true;
    for (size_t i = 0; i < g->values.n; i++)
        if (g->values.v[i].kind == VALUE_PARAM && !learns[i])
            g->values.v[i].kind = VALUE_CONST;
}

/* What BatchNormalization's training form leaves behind is the state of the next run. */
static void updates_add(struct graph *g)
{
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        if (strcmp(n->op->name, "BatchNormalization") != 0 || !attr_i(n, "training_mode", 0))
            continue;
        for (int k = 1; k < 3 && k < n->n_out; k++)
            if (n->out[k] >= 0 && n->in[k + 2] >= 0 && value_at(g, n->in[k + 2])->kind == VALUE_STATE)
                push(g->a, &g->updates, (struct graph_update){ n->in[k + 2], n->out[k] });
    }
}

/* ---- weights that an exporter keeps in another order than their op wants them ---- */

static bool only_moves(const struct op *op)
{
    switch (op->id) {
    case OP_Reshape:
    case OP_Flatten:
    case OP_Squeeze:
    case OP_Unsqueeze:
    case OP_Identity:
    case OP_Transpose:
    case OP_Concat:
    case OP_Split:
    case OP_Slice:
        return true;
    default:
        return false;
    }
}

/* Parameters and what is made of them by moving alone, joined into groups (a forest by value). A group that the rest of
 * the graph reads at one value only is that value: a parameter of its own. Where it reads two, as with tied weights, the
 * nodes stay, so that there is one parameter and its gradient comes from both. */
struct groups {
    int *up;     /* −1: in no group */
    int *read;   /* by root: the value that is read from outside; −1: none, −2: several */
    bool *inner; /* by node */
};

static int root_of(const struct groups *s, int v)
{
    while (s->up[v] != v)
        v = s->up[v] = s->up[s->up[v]];
    return v;
}

static bool node_moves(const struct graph *g, const struct groups *s, const struct node *n)
{
    bool any = false;
    if (!only_moves(n->op))
        return false;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] < 0)
            continue;
        any |= s->up[n->in[i]] >= 0;
        if (s->up[n->in[i]] < 0 && value_at(g, n->in[i])->kind != VALUE_CONST)
            return false;
    }
    return any;
}

static void groups_join(const struct graph *g, struct groups *s)
{
    for (size_t i = 0; i < g->values.n; i++)
        s->up[i] = g->values.v[i].kind == VALUE_PARAM ? (int)i : -1;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        int root = -1;
        s->inner[i] = node_moves(g, s, n);
        for (int k = 0; k < n->n_in && s->inner[i]; k++)
            if (n->in[k] >= 0 && s->up[n->in[k]] >= 0) {
                if (root >= 0)
                    s->up[root_of(s, n->in[k])] = root;
                else
                    root = root_of(s, n->in[k]);
            }
        for (int k = 0; k < n->n_out && s->inner[i]; k++)
            if (n->out[k] >= 0)
                s->up[n->out[k]] = root;
    }
}

static void read_at(struct groups *s, int v)
{
    if (v < 0 || s->up[v] < 0)
        return;
    int *read = &s->read[root_of(s, v)];
    *read = *read == -1 || *read == v ? v : -2;
}

/* Runs the nodes of a group on its numbers; all or nothing. */
static err group_fold(struct graph *g, struct groups *s, int root)
{
    int v = s->read[root];
    for (size_t i = 0; i < g->values.n; i++)
        if (s->up[i] >= 0 && root_of(s, (int)i) == root && g->values.v[i].kind == VALUE_PARAM)
            g->values.v[i].kind = VALUE_CONST;
    for (size_t i = 0; i < g->nodes.n; i++)
        if (s->inner[i] && g->nodes.v[i].out[0] >= 0 && root_of(s, g->nodes.v[i].out[0]) == root)
            TRY(graph_infer(g, (int)i));
    if (value_at(g, v)->kind == VALUE_CONST) {
        value_at(g, v)->kind = VALUE_PARAM;
        for (size_t i = 0; i < g->nodes.n; i++)
            if (s->inner[i] && g->nodes.v[i].out[0] >= 0 && root_of(s, g->nodes.v[i].out[0]) == root)
                memset(g->nodes.v[i].out, -1, (size_t)g->nodes.v[i].n_out * sizeof *g->nodes.v[i].out);
        return NULL;
    }
    /* Too large to be folded: as it was. */
    for (size_t i = 0; i < g->values.n; i++)
        if (s->up[i] >= 0 && root_of(s, (int)i) == root)
            g->values.v[i].kind = g->values.v[i].node < 0 ? VALUE_PARAM : VALUE_NODE;
    return NULL;
}

static err weights_fold(struct graph *g, struct arena *scratch)
{
    size_t n = g->values.n;
    struct groups s = { NEW_N(scratch, int, n + 1), NEW_N(scratch, int, n + 1),
                        NEW_N(scratch, bool, g->nodes.n + 1) };
    memset(s.read, -1, (n + 1) * sizeof *s.read);
    groups_join(g, &s);
    for (size_t i = 0; i < g->nodes.n; i++)
        for (int k = 0; k < g->nodes.v[i].n_in && !s.inner[i]; k++)
            read_at(&s, g->nodes.v[i].in[k]);
    for (size_t i = 0; i < g->outputs.n; i++)
        read_at(&s, g->outputs.v[i]);
    for (size_t i = 0, folded = 0; i < n; i++)
        if (s.up[i] == (int)i && s.read[i] >= 0 && value_at(g, s.read[i])->kind == VALUE_NODE &&
            folded++ < 10000)
            TRY(group_fold(g, &s, (int)i));
    graph_prune(g);
    return NULL;
}

/* ---- notes ---- */

static void notes_add(struct graph *g)
{
    int convolutions = 0, norms = 0;
    for (size_t i = 0; i < g->nodes.n; i++) {
        struct str op = str_of(g->nodes.v[i].op->name);
        convolutions += str_is(op, "Conv");
        norms += str_ends(op, S("Normalization"));
    }
    if (convolutions >= 2 && norms == 0)
        push(
            g->a, &g->notes,
            fmt(g->a,
                "%d convolutions and no normalisation between them: the exporter may have folded BatchNormalization into "
                "the weights, and training goes on without it (PyTorch's torch.onnx.export(…, optimize=False) keeps it)",
                convolutions));
}

/* ---- all ---- */

static err opset_ok(const struct reader *r)
{
    if (r->facts.opset == 0)
        FAIL(UNSUPPORTED,
             "the model has no operators of ai.onnx: trees are not trained or run by this engine");
    if (r->facts.opset < OPSET_LEAST || r->facts.opset > OPSET_MOST)
        return err_hint(err_new(UNSUPPORTED, "the model has opset %lld; %d to %d are known here",
                                (long long)r->facts.opset, OPSET_LEAST, OPSET_MOST),
                        "convert it by onnx.version_converter, or export it anew");
    return NULL;
}

static err names_read(struct reader *r)
{
    size_t n = r->tensors.n + r->facts.inputs.n;
    for (size_t i = 0; i < r->nodes.n; i++)
        n += r->nodes.v[i].out.n;
    TRY(names_new(r, n));
    for (size_t i = 0; i < r->tensors.n; i++)
        TRY(initialiser(r, r->tensors.v[i]));
    for (size_t i = 0; i < r->facts.inputs.n; i++)
        TRY(input(r, &r->facts.inputs.v[i]));
    for (size_t i = 0; i < r->nodes.n; i++)
        for (size_t k = 0; k < r->nodes.v[i].out.n; k++)
            if (r->nodes.v[i].out.v[k].n > 0)
                TRY_AS(name_add(r, r->nodes.v[i].out.v[k], -1, (int)i), "node '%.*s'",
                       STR(r->nodes.v[i].name));
    return NULL;
}

static err outputs_read(struct reader *r)
{
    for (size_t i = 0; i < r->facts.outputs.n; i++) {
        struct str name = r->facts.outputs.v[i].name;
        const struct entry *e = name_at(r, name);
        if (e->name.n == 0)
            FAIL(INVALID, "nobody makes the output '%.*s'", STR(name));
        push(r->g->a, &r->g->outputs, e->id);
    }
    return NULL;
}

static err model_read(struct reader *r, struct str bytes, const struct onnx_limits *limits)
{
    TRY(onnx_check(r->a, bytes, limits, &r->facts));
    TRY(opset_ok(r));
    r->g->name = r->facts.graph;
    for (size_t i = 0; i < r->facts.metadata.n; i++)
        push(r->a, &r->g->metadata, r->facts.metadata.v[i]);
    TRY(each(pb_find(bytes, F_MODEL_GRAPH), on_graph_field, r));
    TRY(names_read(r));
    int *at = NEW_N(r->scratch, int, r->nodes.n + 1);
    TRY(order(r, at));
    for (size_t i = 0; i < r->nodes.n; i++)
        TRY(node_read(r, &r->nodes.v[at[i]]));
    TRY(outputs_read(r));
    TRY(weights_fold(r->g, r->scratch));
    kinds_settle(r->g, r->scratch);
    updates_add(r->g);
    notes_add(r->g);
    return NULL;
}

err graph_read(struct arena *a, struct str bytes, const struct onnx_limits *limits, struct graph **out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct reader r = { .a = a, .scratch = scratch, .g = graph_new(a), .texts = limits && limits->texts };
    TRY(model_read(&r, bytes, limits));
    TRY(graph_error(r.g));
    *out = r.g;
    return NULL;
}
