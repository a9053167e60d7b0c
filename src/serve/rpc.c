// SPDX-License-Identifier: Apache-2.0
/* ModelInfer and ModelStreamInfer: a message in, a message out, read and written by hand. A tensor's raw bytes stay
 * where they came in, if they stand there as a machine reads numbers. */
#include "serve/ext.h"
#include "serve/tensor.h"

enum { RANK_MAX = TENSOR_RANK_MAX };
#define RULES(list, what) \
    static const struct pb_rules list##_rules = { what, list, sizeof list / sizeof *list }

/* What a message says beside what struct infer keeps. */
struct message {
    struct infer *c;
    VEC(struct wire_tensor) in;
    VEC(struct asked) asked;
    struct strs raw;
    bool final; /* the client wants to be told which response is the last */
};
struct wire_tensor {
    struct str name, contents;
    enum tensor_type type;
    size_t rank;
    int64_t dims[RANK_MAX];
    bool typed; /* contents is there */
};

/* ---- parameters ---- */

struct parameter {
    struct str key, text;
    enum { NO_VALUE, BOOL_VALUE, WHOLE_VALUE, TEXT_VALUE, REAL_VALUE } type;
    int64_t whole; /* BOOL too */
};

static const struct pb_rule value_fields[] = { { 1, PB_VARINT, PB_ONE, "bool_param" },
                                               { 2, PB_VARINT, PB_ONE, "int64_param" },
                                               { 3, PB_BYTES, PB_ONE, "string_param" },
                                               { 4, PB_I64, PB_ONE, "double_param" },
                                               { 5, PB_VARINT, PB_ONE, "uint64_param" } };
RULES(value_fields, "InferParameter");

static err value_on(void *arg, const struct pb_field *f)
{
    struct parameter *p = arg;
    if (p->type != NO_VALUE)
        FAIL(INVALID, "a parameter has two values");
    p->type = f->number == 1   ? BOOL_VALUE
              : f->number == 3 ? TEXT_VALUE
              : f->number == 4 ? REAL_VALUE
                               : WHOLE_VALUE;
    p->text = f->bytes;
    p->whole = f->value > INT64_MAX ? INT64_MAX : (int64_t)f->value;
    return NULL;
}

static const struct pb_rule entry_fields[] = { { 1, PB_BYTES, PB_ONE, "key" },
                                               { 2, PB_BYTES, PB_ONE, "value" } };
RULES(entry_fields, "parameters");

static err entry_on(void *arg, const struct pb_field *f)
{
    struct parameter *p = arg;
    if (f->number == 2)
        return pb_walk(&value_fields_rules, f->bytes, value_on, p);
    p->key = f->bytes;
    return NULL;
}

static err parameter_read(struct str bytes, struct parameter *out)
{
    *out = (struct parameter){ 0 };
    TRY(pb_walk(&entry_fields_rules, bytes, entry_on, out));
    if (!str_utf8_ok(out->key) || !str_utf8_ok(out->text))
        FAIL(INVALID, "a parameter is not UTF-8");
    if (out->type == NO_VALUE)
        FAIL(INVALID, "parameter '%.*s' has no value", STR(str_sub(out->key, 0, 64)));
    return NULL;
}

static err parameter_is(const struct parameter *p, bool right, const char *what)
{
    if (!right)
        FAIL(INVALID, "parameter '%.*s' is %s", STR(str_sub(p->key, 0, 64)), what);
    return NULL;
}

static err parameter_flag(const struct parameter *p, bool *out)
{
    *out = p->whole != 0;
    return parameter_is(p, p->type == BOOL_VALUE, "true or false");
}

static err parameter_whole(const struct parameter *p, int64_t max, int64_t *out)
{
    *out = p->whole;
    return parameter_is(p, p->type == WHOLE_VALUE && p->whole >= 0 && p->whole <= max,
                        "a whole number from 0");
}

/* Number 0 and the empty text are no sequence. */
static err sequence_read(struct infer *c, const struct parameter *p)
{
    TRY(parameter_is(p, p->type == TEXT_VALUE || p->type == WHOLE_VALUE, "a number or a text"));
    c->p.sequence = p->type == TEXT_VALUE ? p->text
                    : p->whole            ? fmt(c->a, "%llu", (unsigned long long)p->whole)
                                          : S("");
    return NULL;
}

static err request_parameter(struct message *m, struct str bytes)
{
    struct infer_params *to = &m->c->p;
    struct parameter p;
    int64_t n;
    TRY(parameter_read(bytes, &p));
    if (str_is(p.key, "sequence_id"))
        return sequence_read(m->c, &p);
    if (str_is(p.key, "sequence_start"))
        return parameter_flag(&p, &to->sequence_start);
    if (str_is(p.key, "sequence_end"))
        return parameter_flag(&p, &to->sequence_end);
    if (str_is(p.key, "triton_enable_empty_final_response"))
        return parameter_flag(&p, &m->final);
    if (str_is(p.key, "timeout"))
        return parameter_whole(&p, INT64_MAX / 1000, &to->timeout_us);
    if (str_is(p.key, "priority")) {
        TRY(parameter_whole(&p, UINT32_MAX, &n));
        to->priority = (uint32_t)n;
        return NULL;
    }
    if (str_is(p.key, "entities")) {
        TRY(parameter_is(&p, p.type == TEXT_VALUE, "a text: an object of JSON with the columns of keys"));
        return json_parse(m->c->a, p.text, &m->c->entities);
    }
    if (str_starts(p.key, S("triton_")))
        FAIL(INVALID, "parameter '%.*s': names that begin with triton_ are kept", STR(str_sub(p.key, 0, 64)));
    return NULL; /* others are a model's own, as in REST */
}

static err shared_memory_none(const struct parameter *p)
{
    if (str_starts(p->key, S("shared_memory_")))
        FAIL(UNSUPPORTED, "shared memory of clients is off; tensors come in the request");
    return NULL;
}

/* ---- tensors of the request ---- */

static const struct pb_rule input_fields[] = { { 1, PB_BYTES, PB_ONE, "name" },
                                               { 2, PB_BYTES, PB_ONE, "datatype" },
                                               { 3, PB_VARINT, PB_VARINTS, "shape" },
                                               { 4, PB_BYTES, PB_MANY, "parameters" },
                                               { 5, PB_BYTES, PB_ONE, "contents" } };
RULES(input_fields, "InferInputTensor");

static err dim_add(struct wire_tensor *t, uint64_t v)
{
    if (t->rank == RANK_MAX)
        FAIL(INVALID, "an input's shape has more than %d sizes", RANK_MAX);
    if (v < 1 || v > INT32_MAX)
        FAIL(INVALID, "an input's shape has a size that is not from 1 to %d", INT32_MAX);
    t->dims[t->rank++] = (int64_t)v;
    return NULL;
}

static err dims_read(struct wire_tensor *t, const struct pb_field *f)
{
    uint64_t v;
    int64_t n;
    if (f->wire == PB_VARINT)
        return dim_add(t, f->value);
    TRY(pb_count(f, PB_VARINTS, &n));
    for (struct str rest = f->bytes; pb_next_varint(&rest, &v);)
        TRY(dim_add(t, v));
    return NULL;
}

static err input_on(void *arg, const struct pb_field *f)
{
    struct wire_tensor *t = arg;
    struct parameter p;
    switch (f->number) {
    case 1:
        t->name = f->bytes;
        return NULL;
    case 2:
        t->type = tensor_of_protocol(f->bytes);
        return NULL;
    case 3:
        return dims_read(t, f);
    case 4:
        TRY(parameter_read(f->bytes, &p));
        return shared_memory_none(&p);
    default:
        t->contents = f->bytes;
        t->typed = true;
        return NULL;
    }
}

static err input_read(struct message *m, struct str bytes)
{
    struct wire_tensor t = { 0 };
    if (m->in.n == TENSORS_MAX)
        FAIL(INVALID, "a request has at most %d inputs", TENSORS_MAX);
    TRY(pb_walk(&input_fields_rules, bytes, input_on, &t));
    if (!str_utf8_ok(t.name))
        FAIL(INVALID, "an input's name is not UTF-8");
    if (t.type == TENSOR_NONE)
        FAIL(INVALID,
             "input '%.*s': its datatype is none of BOOL, INT8 … UINT64, FP16, BF16, FP32, FP64, BYTES",
             STR(str_sub(t.name, 0, 64)));
    push(m->c->a, &m->in, t);
    return NULL;
}

static const struct pb_rule output_fields[] = { { 1, PB_BYTES, PB_ONE, "name" },
                                                { 2, PB_BYTES, PB_MANY, "parameters" } };
RULES(output_fields, "InferRequestedOutputTensor");

static err output_on(void *arg, const struct pb_field *f)
{
    struct asked *to = arg;
    struct parameter p;
    if (f->number == 1) {
        to->name = f->bytes;
        return NULL;
    }
    TRY(parameter_read(f->bytes, &p));
    if (str_is(p.key, "classification"))
        return parameter_whole(&p, INT32_MAX, &to->classes);
    return shared_memory_none(&p);
}

static err output_read(struct message *m, struct str bytes)
{
    struct asked out = { .binary = true };
    if (m->asked.n == TENSORS_MAX)
        FAIL(INVALID, "a request asks for at most %d outputs", TENSORS_MAX);
    TRY(pb_walk(&output_fields_rules, bytes, output_on, &out));
    push(m->c->a, &m->asked, out);
    return NULL;
}

/* ---- data: contents ---- */

enum { BOOLS = 1, INTS, INT64S, UINTS, UINT64S, FP32S, FP64S, TEXTS };
static const struct pb_rule content_fields[] = {
    { BOOLS, PB_VARINT, PB_VARINTS, "bool_contents" },     { INTS, PB_VARINT, PB_VARINTS, "int_contents" },
    { INT64S, PB_VARINT, PB_VARINTS, "int64_contents" },   { UINTS, PB_VARINT, PB_VARINTS, "uint_contents" },
    { UINT64S, PB_VARINT, PB_VARINTS, "uint64_contents" }, { FP32S, PB_I32, PB_FLOATS, "fp32_contents" },
    { FP64S, PB_I64, PB_DOUBLES, "fp64_contents" },        { TEXTS, PB_BYTES, PB_MANY, "bytes_contents" },
};
RULES(content_fields, "InferTensorContents");

/* The field whose elements are of the type; 0: only raw. */
static int content_of(enum tensor_type t)
{
    switch (t) {
    case TENSOR_BOOL:
        return BOOLS;
    case TENSOR_I8:
    case TENSOR_I16:
    case TENSOR_I32:
        return INTS;
    case TENSOR_I64:
        return INT64S;
    case TENSOR_U8:
    case TENSOR_U16:
    case TENSOR_U32:
        return UINTS;
    case TENSOR_U64:
        return UINT64S;
    case TENSOR_F32:
        return FP32S;
    case TENSOR_F64:
        return FP64S;
    case TENSOR_TEXT:
        return TEXTS;
    default:
        return 0;
    }
}

struct fill {
    struct named *to;
    size_t n, count; /* elements written, wanted */
};

static bool whole_fits(enum tensor_type t, uint64_t v)
{
    int bits = 8 * (int)tensor_size(t);
    int64_t i = (int64_t)v;
    switch (content_of(t)) {
    case BOOLS:
        return v <= 1;
    case INTS:
        return i >= -((int64_t)1 << (bits - 1)) && i < (int64_t)1 << (bits - 1);
    case UINTS:
        return v < (uint64_t)1 << bits;
    default:
        return true;
    }
}

static err whole_put(struct fill *f, uint64_t v)
{
    size_t size = tensor_size(f->to->t.type);
    if (!whole_fits(f->to->t.type, v))
        FAIL(INVALID, "input '%.*s': element %zu is out of range", STR(f->to->name), f->n);
    memcpy((char *)f->to->t.data + f->n++ * size, &v,
           size); /* little-endian, as every machine that this runs on */
    return NULL;
}

static err wholes_put(struct fill *f, const struct pb_field *from)
{
    uint64_t v;
    if (from->wire == PB_VARINT)
        return whole_put(f, from->value);
    for (struct str rest = from->bytes; pb_next_varint(&rest, &v);)
        TRY(whole_put(f, v));
    return NULL;
}

static void reals_put(struct fill *f, const struct pb_field *from, size_t n)
{
    size_t size = tensor_size(f->to->t.type);
    char *at = (char *)f->to->t.data + f->n * size;
    if (from->wire == PB_BYTES && n)
        memcpy(at, from->bytes.p, n * size);
    else if (from->wire != PB_BYTES)
        memcpy(at, &from->value, size);
    f->n += n;
}

static err content_on(void *arg, const struct pb_field *from)
{
    struct fill *f = arg;
    int64_t n;
    const struct pb_rule *rule = &content_fields[from->number - 1];
    if (from->number != content_of(f->to->t.type))
        FAIL(INVALID, "input '%.*s' is %.*s, its contents are %s", STR(f->to->name),
             STR(tensor_protocol_name(f->to->t.type)), rule->name);
    TRY(from->number == TEXTS ? NULL : pb_count(from, rule->kind, &n));
    if (from->number == TEXTS)
        n = 1;
    if ((size_t)n > f->count - f->n)
        FAIL(INVALID, "input '%.*s' has more elements than its shape", STR(f->to->name));
    if (from->number == TEXTS)
        ((struct str *)f->to->t.data)[f->n++] = from->bytes;
    else if (rule->kind == PB_VARINTS)
        return wholes_put(f, from);
    else
        reals_put(f, from, (size_t)n);
    return NULL;
}

/* Each element takes a byte of the contents at least: a shape alone reserves nothing. */
static err contents_take(struct infer *c, struct str bytes, struct named *to, size_t n)
{
    size_t size = to->t.type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(to->t.type);
    struct fill f = { to, 0, n };
    if (!content_of(to->t.type))
        FAIL(INVALID, "input '%.*s': %.*s comes in raw_input_contents only", STR(to->name),
             STR(tensor_protocol_name(to->t.type)));
    if (n > bytes.n)
        FAIL(INVALID, "input '%.*s': its shape has more elements than its contents", STR(to->name));
    to->t.bytes = n * size;
    to->t.data = arena_alloc(c->a, to->t.bytes, 64);
    TRY(pb_walk(&content_fields_rules, bytes, content_on, &f));
    if (f.n != n)
        FAIL(INVALID, "input '%.*s' has %zu elements, its shape %zu", STR(to->name), f.n, n);
    return NULL;
}

/* ---- the message ---- */

static const struct pb_rule request_fields[] = {
    { 1, PB_BYTES, PB_ONE, "model_name" },
    { 2, PB_BYTES, PB_ONE, "model_version" },
    { 3, PB_BYTES, PB_ONE, "id" },
    { 4, PB_BYTES, PB_MANY, "parameters" },
    { 5, PB_BYTES, PB_MANY, "inputs" },
    { 6, PB_BYTES, PB_MANY, "outputs" },
    { 7, PB_BYTES, PB_MANY, "raw_input_contents" },
};
RULES(request_fields, "ModelInferRequest");

static err request_on(void *arg, const struct pb_field *f)
{
    struct message *m = arg;
    switch (f->number) {
    case 1:
        m->c->deployment = f->bytes;
        return NULL;
    case 2:
        m->c->p.version = f->bytes;
        return NULL;
    case 3:
        m->c->id = f->bytes;
        return NULL;
    case 4:
        return request_parameter(m, f->bytes);
    case 5:
        return input_read(m, f->bytes);
    case 6:
        return output_read(m, f->bytes);
    default:
        if (m->raw.n == TENSORS_MAX)
            FAIL(INVALID, "a request has at most %d raw inputs", TENSORS_MAX);
        push(m->c->a, &m->raw, f->bytes);
        return NULL;
    }
}

static err data_take(struct message *m, size_t i)
{
    const struct wire_tensor *from = &m->in.v[i];
    struct named *to = &m->c->inputs[i];
    int64_t n;
    to->name = from->name;
    to->t.type = from->type;
    to->t.rank = from->rank;
    memcpy(to->t.dims, from->dims, sizeof to->t.dims);
    if (!tensor_count(from->dims, from->rank, INT32_MAX, &n))
        FAIL(INVALID, "input '%.*s': its shape has more elements than a request can hold", STR(from->name));
    if (m->raw.n && from->typed)
        FAIL(INVALID, "input '%.*s' has contents, and the request has raw_input_contents", STR(from->name));
    if (m->raw.n)
        return tensor_of_bytes(m->c->a, to->name, m->raw.v[i], &to->t);
    return contents_take(m->c, from->contents, to, (size_t)n);
}

err rpc_read(struct infer *c, struct str bytes, bool *final)
{
    struct message m = { .c = c };
    TRY(pb_walk(&request_fields_rules, bytes, request_on, &m));
    if (!str_utf8_ok(c->deployment) || !str_utf8_ok(c->id) || !str_utf8_ok(c->p.version))
        FAIL(INVALID, "model_name, model_version or id is not UTF-8");
    if (m.raw.n && m.raw.n != m.in.n)
        FAIL(INVALID, "there are %zu raw_input_contents for %zu inputs", m.raw.n, m.in.n);
    if (c->entities && m.in.n)
        FAIL(INVALID, "the request has either inputs (tensors) or the parameter 'entities' (keys)");
    c->inputs = NEW_N(c->a, struct named, m.in.n + 1);
    c->inputs_n = m.in.n;
    for (size_t i = 0; i < m.in.n; i++)
        TRY(data_take(&m, i));
    c->asked = m.asked.v;
    c->asked_n = m.asked.n;
    *final = m.final;
    return NULL;
}

/* ---- the reply ---- */

static void shape_write(struct buf *b, struct str name, const struct tensor *t)
{
    struct buf part = buf_new(b->a);
    pb_bytes(&part, 1, name);
    pb_bytes(&part, 2, tensor_protocol_name(t->type));
    if (t->rank)
        pb_varints(&part, 3, t->dims, t->rank);
    pb_bytes(b, 5, buf_get(&part));
}

static void final_write(struct buf *b)
{
    struct buf value = buf_new(b->a), entry = buf_new(b->a);
    pb_varint(&value, 1, 1);
    pb_bytes(&entry, 1, S("triton_final_response"));
    pb_bytes(&entry, 2, buf_get(&value));
    pb_bytes(b, 4, buf_get(&entry));
}

static err output_write(struct buf *b, const struct infer *c, size_t i, struct tensor *out)
{
    struct str name = c->to->model->info->outputs[c->out[i].slot].name;
    *out = c->out[i];
    if (c->asked_n && c->asked[i].classes)
        TRY(classes_of(c->a, c->to->model->info, &c->out[i], c->asked[i].classes, out));
    if (!tensor_protocol_name(out->type).n)
        FAIL(UNSUPPORTED, "output '%.*s' is of a type that the protocol does not have", STR(name));
    shape_write(b, name, out);
    return NULL;
}

err rpc_write(const struct infer *c, bool final, struct buf *b)
{
    struct tensor *out = NEW_N(c->a, struct tensor, c->out_n + 1);
    size_t room = 256;
    for (size_t i = 0; i < c->out_n; i++)
        room += c->out[i].bytes + 128;
    (void)buf_room(b, room);
    pb_bytes(b, 1, c->entry->name);
    pb_bytes(b, 2, c->to->model->number);
    if (c->id.n)
        pb_bytes(b, 3, c->id);
    if (final)
        final_write(b);
    for (size_t i = 0; i < c->out_n; i++)
        TRY(output_write(b, c, i, &out[i]));
    for (size_t i = 0; i < c->out_n; i++) {
        if (out[i].type != TENSOR_TEXT) {
            pb_bytes(b, 6, (struct str){ out[i].data, out[i].bytes });
            continue;
        }
        size_t at = pb_open(b, 6);
        tensor_put(b, &out[i]);
        pb_close(b, at);
    }
    return NULL;
}

/* ---- the two methods ---- */

/* Classes are of numbers; found before the run, as it is the client's mistake and not the model's. */
static err rpc_fit(struct infer *c)
{
    const struct session_info *info = c->to->model->info;
    for (size_t k = 0; k < c->asked_n; k++)
        for (size_t i = 0; c->asked[k].classes && i < info->n_outputs; i++) {
            enum tensor_type t = info->outputs[i].type;
            if (str_eq(info->outputs[i].name, c->asked[k].name) &&
                (t == TENSOR_TEXT || t == TENSOR_F16 || t == TENSOR_BF16))
                FAIL(INVALID, "class result not available for output '%.*s' due to its type %.*s",
                     STR(info->outputs[i].name), STR(tensor_protocol_name(t)));
        }
    return NULL;
}

/* What cannot be read is the lesser fault where its model is not there. */
static err message_read(struct infer *c, bool *final)
{
    err e = rpc_read(c, c->r->body, final);
    return e && c->deployment.n && str_utf8_ok(c->deployment) ? infer_unread(c, e) : e;
}

static struct infer *infer_new(struct req *r)
{
    struct infer *c = NEW(r->a, struct infer);
    c->s = (struct serve *)(uintptr_t)r->route->self;
    c->r = r;
    c->a = r->a;
    c->project = req_project(r);
    c->fit = rpc_fit;
    return c;
}

static err unary_reply(struct infer *c)
{
    struct buf b = buf_new(c->a);
    TRY(rpc_write(c, false, &b));
    return req_reply(c->r, 200, NULL, buf_get(&b));
}

err rpc_infer(struct req *r)
{
    struct infer *c = infer_new(r);
    bool final;
    c->reply = unary_reply;
    TRY(message_read(c, &final));
    return infer_start(c);
}

static err stream_reply(struct infer *c)
{
    const bool *final = c->adapter;
    struct buf b = buf_new(c->a);
    size_t at = pb_open(&b, 2);
    TRY(rpc_write(c, *final, &b));
    pb_close(&b, at);
    return req_send(c->r, buf_get(&b));
}

/* One request failed; the stream lives. */
static err stream_failed(struct infer *c, err e)
{
    struct buf b = buf_new(c->a);
    pb_bytes(&b, 1, e->text);
    size_t at = pb_open(&b, 2);
    if (c->id.n && str_utf8_ok(c->id))
        pb_bytes(&b, 3, c->id);
    pb_close(&b, at);
    return req_send(c->r, buf_get(&b));
}

static err stream_message(struct infer *c)
{
    bool *final = NEW(c->a, bool);
    c->adapter = final;
    TRY(message_read(c, final));
    return infer_start(c);
}

err rpc_stream(struct req *r)
{
    if (r->last)
        return NULL;
    struct infer *c = infer_new(r);
    bool ends = str_is(req_header(r, S("triton_grpc_error")), "true");
    c->reply = stream_reply;
    c->failed = ends ? NULL : stream_failed;
    err e = stream_message(c);
    return e && !ends ? stream_failed(c, e) : e;
}

bool rpc_light(struct req *r)
{
    return infer_light_named((struct serve *)(uintptr_t)r->route->self, r, pb_find(r->body, 1), r->body.n);
}
