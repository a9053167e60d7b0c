// SPDX-License-Identifier: Apache-2.0
/* POST /v2/models/{name}[/versions/{v}]/infer: the Open Inference Protocol over REST, with Triton's extensions for
 * binary tensors, classification, sequences and schedule policy. */
#include "serve/rest.h"
#include "serve/inflate.h"

enum { DEFLATE_BYTES_MIN = 1024 }; /* of a reply; a smaller one is sent as it is */

/* ---- parameters ---- */

enum { OF_REQUEST = 1, OF_INPUT = 2, OF_OUTPUT = 4 };
enum param_kind { PARAM_BOOL, PARAM_WHOLE, PARAM_NAME, PARAM_REFUSED };

// clang-format off
#define PARAMS(P) /* whose, what it is, C type, name */  \
    P(OF_REQUEST, NAME,  struct str, version)            \
    P(OF_REQUEST, NAME,  struct str, sequence_id)        \
    P(OF_REQUEST, WHOLE, int64_t,    priority)           \
    P(OF_REQUEST, WHOLE, int64_t,    timeout)            \
    P(OF_INPUT,   WHOLE, int64_t,    binary_data_size)   \
    P(OF_OUTPUT,  WHOLE, int64_t,    classification)     \
    P(OF_REQUEST, BOOL,  bool,       return_features)    \
    P(OF_REQUEST, BOOL,  bool,       sequence_start)     \
    P(OF_REQUEST, BOOL,  bool,       sequence_end)       \
    P(OF_REQUEST, BOOL,  bool,       binary_data_output) \
    P(OF_OUTPUT,  BOOL,  bool,       binary_data)        \
    P(OF_INPUT | OF_OUTPUT, REFUSED, bool, shared_memory_region)
// clang-format on

#define P(whose, kind, T, name) ROW_##name,
enum request_param { PARAMS(P) };
#undef P
struct request_params {
#define P(whose, kind, T, name) T name;
    PARAMS(P)
#undef P
    unsigned whose;
    uint32_t given; /* bits of enum request_param */
};
static const struct param_row {
    struct str name;
    unsigned whose;
    enum param_kind kind;
    size_t offset;
} param_rows[] = {
#define P(whose, kind, T, name) \
    { { #name, sizeof #name - 1 }, whose, PARAM_##kind, offsetof(struct request_params, name) },
    PARAMS(P)
#undef P
};
enum { PARAM_ROWS = sizeof param_rows / sizeof *param_rows };

static bool is_given(const struct request_params *p, enum request_param which)
{
    return p->given >> which & 1;
}

static err param_set(void *at, enum param_kind kind, struct str name, const struct scalar *v)
{
    switch (kind) {
    case PARAM_BOOL:
        if (v->kind != SCALAR_BOOL)
            FAIL(INVALID, "Unable to parse '%.*s': it is true or false", STR(name));
        *(bool *)at = v->yes;
        return NULL;
    case PARAM_WHOLE:
        if (!scalar_is_whole(v) || !str_i64(v->text, at) || *(int64_t *)at < 0)
            FAIL(INVALID, "Unable to parse '%.*s': it is a whole number from 0", STR(name));
        return NULL;
    case PARAM_NAME:
        if (v->kind != SCALAR_TEXT && !(scalar_is_whole(v) && *v->text.p != '-'))
            FAIL(INVALID, "Unable to parse '%.*s': it is a text or a whole number from 0", STR(name));
        *(struct str *)at = v->text;
        return NULL;
    case PARAM_REFUSED:
        break;
    }
    FAIL(INVALID, "'%.*s': shared memory is not served here", STR(name));
}

static err param_read(void *self, struct json_in *in, struct str key)
{
    struct request_params *p = self;
    struct scalar v;
    size_t i = 0;
    while (i < PARAM_ROWS && !(param_rows[i].whose & p->whose && str_eq(param_rows[i].name, key)))
        i++;
    if (i < PARAM_ROWS) {
        TRY(json_in_scalar(in, &v));
        if (v.kind == SCALAR_NULL)
            return NULL;
        p->given |= (uint32_t)1 << i;
        return param_set((char *)p + param_rows[i].offset, param_rows[i].kind, key, &v);
    }
    if (str_starts(key, S("triton_")))
        FAIL(INVALID,
             "parameter keys starting with 'triton_' are reserved for Triton usage and should not be "
             "specified.");
    return json_in_pass(p, in, key);
}

static err params_read(struct json_in *in, unsigned whose, struct request_params *out)
{
    uint32_t seen;
    struct scalar v;
    *out = (struct request_params){ .whose = whose };
    if (json_in_peek(in) == 'n')
        return json_in_scalar(in, &v);
    return json_in_object(in, S("parameters"), NULL, 0, out, param_read, &seen);
}

static err parameters_read(void *self, struct json_in *in)
{
    struct infer *c = self;
    struct rest *x = c->adapter;
    struct request_params p;
    TRY(params_read(in, OF_REQUEST, &p));
    bool none = str_is(p.sequence_id, "0");
    if (p.priority > UINT32_MAX)
        FAIL(INVALID, "Unable to parse 'priority': it is at most %u", UINT32_MAX);
    c->p = (struct infer_params){ .version = c->p.version.n ? c->p.version : p.version,
                                  .sequence = none ? S("") : p.sequence_id,
                                  .sequence_start = p.sequence_start,
                                  .sequence_end = p.sequence_end,
                                  .return_features = p.return_features,
                                  .priority = (uint32_t)p.priority,
                                  .timeout_us = p.timeout };
    x->binary = p.binary_data_output;
    return NULL;
}

/* ---- inputs ---- */

struct input {
    struct infer *c;
    size_t i;
    struct named *to;
    struct str data; /* where it came before its type and shape */
    bool shaped, filled;
    struct request_params p;
};

static err input_name(void *self, struct json_in *in)
{
    return json_in_text(in, &((struct input *)self)->to->name);
}

static err input_type(void *self, struct json_in *in)
{
    struct input *x = self;
    struct str name;
    TRY(json_in_text(in, &name));
    x->to->t.type = tensor_of_protocol(name);
    if (x->to->t.type == TENSOR_NONE)
        FAIL(INVALID, "invalid datatype '%.*s' for inputs[%zu]", STR(str_sub(name, 0, 64)), x->i);
    return NULL;
}

static err input_dim(void *self, struct json_in *in, size_t i)
{
    struct input *x = self;
    struct scalar v;
    int64_t n;
    if (i == TENSOR_RANK_MAX)
        FAIL(INVALID, "inputs[%zu].shape has more than %d sizes", x->i, TENSOR_RANK_MAX);
    TRY(json_in_scalar(in, &v));
    if (!scalar_is_whole(&v) || !str_i64(v.text, &n) || n < 1 || n > INT32_MAX)
        FAIL(INVALID, "inputs[%zu].shape[%zu] is a whole number from 1 to %d", x->i, i, INT32_MAX);
    x->to->t.dims[i] = n;
    return NULL;
}

static err input_shape(void *self, struct json_in *in)
{
    struct input *x = self;
    struct tensor *t = &x->to->t;
    int64_t n;
    TRY(json_in_array(in, S("shape"), input_dim, x, &t->rank));
    if (!tensor_count(t->dims, t->rank, INT32_MAX, &n))
        FAIL(INVALID, "inputs[%zu].shape has more elements than a request can hold", x->i);
    x->shaped = true;
    return NULL;
}

static err input_parameters(void *self, struct json_in *in)
{
    return params_read(in, OF_INPUT, &((struct input *)self)->p);
}

static err input_data(void *self, struct json_in *in)
{
    struct input *x = self;
    if (!x->shaped || !x->to->t.type)
        return json_in_skip(in, &x->data);
    x->filled = true;
    const char *from = in->p;
    TRY(tensor_of_json(in, x->to->name, &x->to->t));
    form_cut(x->c->adapter, x->i, (struct str){ from, (size_t)(in->p - from) });
    return NULL;
}

static const struct member input_members[] = { { S_INIT("name"), input_name },
                                               { S_INIT("shape"), input_shape },
                                               { S_INIT("datatype"), input_type },
                                               { S_INIT("parameters"), input_parameters },
                                               { S_INIT("data"), input_data } };

/* The next of the bytes behind the JSON. */
static err input_binary(struct input *x)
{
    struct rest *rest = x->c->adapter;
    struct str name = str_sub(x->to->name, 0, 64);
    if (x->filled || x->data.n)
        FAIL(INVALID, "input '%.*s' has data and binary_data_size", STR(name));
    if ((uint64_t)x->p.binary_data_size > rest->raw.n)
        FAIL(INVALID, "unexpected size for input '%.*s', expecting %lld additional bytes", STR(name),
             (long long)x->p.binary_data_size - (long long)rest->raw.n);
    size_t n = (size_t)x->p.binary_data_size;
    TRY(tensor_of_bytes(x->c->a, name, str_sub(rest->raw, 0, n), &x->to->t));
    rest->raw = str_sub(rest->raw, n, rest->raw.n);
    rest->odd = rest->odd || x->to->t.bytes != n;
    return NULL;
}

/* What the object left to be done. */
static err input_end(struct input *x, const struct json_in *in)
{
    if (!x->to->name.n || !x->shaped || !x->to->t.type)
        FAIL(INVALID, "inputs[%zu] has no name, no shape or no datatype", x->i);
    if (is_given(&x->p, ROW_binary_data_size))
        return input_binary(x);
    if (x->filled)
        return NULL;
    if (!x->data.n)
        FAIL(INVALID, "input '%.*s' has no data", STR(str_sub(x->to->name, 0, 64)));
    struct rest *rest = x->c->adapter;
    struct json_in again = *in;
    rest->odd = true;
    again.p = x->data.p;
    again.end = x->data.p + x->data.n;
    TRY(tensor_of_json(&again, x->to->name, &x->to->t));
    return json_in_end(&again);
}

static err input_read(void *self, struct json_in *in, size_t i)
{
    struct infer *c = self;
    uint32_t seen;
    if (i == TENSORS_MAX)
        FAIL(INVALID, "inputs is a list of at most %d tensors", TENSORS_MAX);
    c->inputs = arena_grow(c->a, c->inputs, i * sizeof *c->inputs, (i + 1) * sizeof *c->inputs, 16);
    struct input x = { .c = c, .i = i, .to = &c->inputs[i] };
    *x.to = (struct named){ 0 };
    TRY(json_in_object(in, S("an element of inputs"), input_members,
                       sizeof input_members / sizeof *input_members, &x, json_in_pass, &seen));
    return input_end(&x, in);
}

static err inputs_read(void *self, struct json_in *in)
{
    struct infer *c = self;
    return json_in_array(in, S("inputs"), input_read, c, &c->inputs_n);
}

/* ---- outputs ---- */

struct output {
    struct str name;
    struct request_params p;
};

static err output_name(void *self, struct json_in *in)
{
    return json_in_text(in, &((struct output *)self)->name);
}

static err output_parameters(void *self, struct json_in *in)
{
    return params_read(in, OF_OUTPUT, &((struct output *)self)->p);
}

static const struct member output_members[] = { { S_INIT("name"), output_name },
                                                { S_INIT("parameters"), output_parameters } };

static err output_read(void *self, struct json_in *in, size_t i)
{
    struct infer *c = self;
    struct rest *rest = c->adapter;
    struct output x = { 0 };
    uint32_t seen;
    if (i == TENSORS_MAX)
        FAIL(INVALID, "outputs is a list of at most %d objects", TENSORS_MAX);
    TRY(json_in_object(in, S("an element of outputs"), output_members, 2, &x, json_in_pass, &seen));
    if (!x.name.n)
        FAIL(INVALID, "outputs[%zu] is an object with a name", i);
    c->asked = arena_grow(c->a, c->asked, i * sizeof *c->asked, (i + 1) * sizeof *c->asked, 16);
    c->asked[i] = (struct asked){ x.name, x.p.binary_data, x.p.classification };
    if (is_given(&x.p, ROW_binary_data))
        rest->choice |= (uint64_t)1 << i;
    return NULL;
}

static err outputs_read(void *self, struct json_in *in)
{
    struct infer *c = self;
    struct scalar v;
    if (json_in_peek(in) == 'n')
        return json_in_scalar(in, &v);
    return json_in_array(in, S("outputs"), output_read, c, &c->asked_n);
}

/* ---- the body ---- */

static err id_read(void *self, struct json_in *in)
{
    struct scalar v;
    TRY(json_in_scalar(in, &v));
    if (v.kind != SCALAR_TEXT && v.kind != SCALAR_NULL)
        FAIL(INVALID, "Unable to parse 'id': it is a text");
    ((struct infer *)self)->id = v.text; /* null: empty */
    return NULL;
}

static err entities_read(void *self, struct json_in *in)
{
    return json_in_tree(in, &((struct infer *)self)->entities);
}

static err row_id_read(void *self, struct json_in *in, size_t i)
{
    struct infer *c = self;
    struct strs *ids = c->adapter;
    struct scalar v;
    TRY(json_in_scalar(in, &v));
    if (v.kind != SCALAR_TEXT && !scalar_is_whole(&v))
        FAIL(INVALID, "ids[%zu] is no text and no whole number", i);
    push(c->a, ids, v.text);
    return NULL;
}

static err ids_read(void *self, struct json_in *in)
{
    struct infer *c = self, reader = { .a = c->a };
    struct strs ids = { 0 };
    struct scalar v;
    if (json_in_peek(in) == 'n')
        return json_in_scalar(in, &v);
    reader.adapter = &ids;
    TRY(json_in_array(in, S("ids"), row_id_read, &reader, &c->row_ids_n));
    c->row_ids = ids.v ? ids.v : NEW(c->a, struct str);
    return NULL;
}

static const struct member body_members[] = {
    { S_INIT("id"), id_read },           { S_INIT("inputs"), inputs_read },
    { S_INIT("outputs"), outputs_read }, { S_INIT("entities"), entities_read },
    { S_INIT("ids"), ids_read },         { S_INIT("parameters"), parameters_read },
};
enum { BODY_INPUTS = 1, BODY_MEMBERS = sizeof body_members / sizeof *body_members };

static err body_read(struct infer *c, struct str text)
{
    struct rest *rest = c->adapter;
    struct json_in in = json_in_new(c->a, text);
    uint32_t seen;
    if (form_take(c, text))
        return NULL;
    TRY(json_in_object(&in, S("the body"), body_members, BODY_MEMBERS, c, json_in_pass, &seen));
    TRY(json_in_end(&in));
    if (!c->entities == !(seen >> BODY_INPUTS & 1))
        FAIL(INVALID, "the body has either inputs (tensors) or entities (keys)");
    if (rest->raw.n)
        FAIL(INVALID, "unexpected additional input data: %zu bytes that no input has", rest->raw.n);
    for (size_t i = 0; i < c->asked_n; i++)
        if (!(rest->choice >> i & 1))
            c->asked[i].binary = rest->binary;
    form_keep(c, text);
    return NULL;
}

err rest_read(struct infer *c)
{
    struct rest *rest = c->adapter;
    struct str body, length = req_header(c->r, S("inference-header-content-length"));
    int64_t n;
    TRY(body_inflate(c->a, req_header(c->r, S("content-encoding")), c->r->body, c->r->route->body_bytes_max,
                     &body));
    if (body.p != c->r->body.p)
        TRY(req_weigh(c->r));
    c->p.version = req_param(c->r, S("version"));
    if (!length.n)
        return body_read(c, body);
    if (length.p[0] < '0' || length.p[0] > '9' || !str_i64(length, &n) || (uint64_t)n > body.n)
        FAIL(INVALID, "Unable to parse Inference-Header-Content-Length, got: %.*s (the body has %zu bytes)",
             STR(str_sub(length, 0, 64)), body.n);
    rest->raw = str_sub(body, (size_t)n, body.n);
    rest->raw_only = n == 0;
    rest->binary = rest->raw_only;
    return rest->raw_only ? NULL : body_read(c, str_sub(body, 0, (size_t)n));
}

/* ---- what the model has to say ---- */

/* A body that is nothing but the one input: what its shape leaves open follows from its length. */
static err raw_take(struct infer *c, struct str raw)
{
    const struct session_info *info = c->to->model->info;
    const struct tensor_spec *spec = info->inputs;
    size_t open = 0, at = 0;
    int64_t known;
    if (info->n_inputs != 1 || !spec->shaped || !spec->type)
        FAIL(INVALID, "a raw request needs a model with one input of a known shape");
    c->inputs = NEW(c->a, struct named);
    c->inputs_n = 1;
    c->inputs->name = spec->name;
    struct tensor *t = &c->inputs->t;
    t->type = spec->type;
    t->rank = spec->rank;
    for (size_t i = 0; i < t->rank; i++) {
        t->dims[i] = spec->dims[i] < 0 ? 1 : spec->dims[i];
        open += spec->dims[i] < 0 && i > 0;
        at = spec->dims[i] < 0 ? i : at;
    }
    if (open > 1 || !tensor_count(t->dims, t->rank, INT32_MAX, &known) || !known)
        FAIL(INVALID, "a raw request cannot tell the shape of input '%.*s'", STR(spec->name));
    if (t->type == TENSOR_TEXT) {
        t->data = NEW(c->a, struct str);
        *(struct str *)t->data = raw;
        t->bytes = sizeof raw;
        if (known != 1)
            FAIL(INVALID, "a raw request has one text, input '%.*s' takes %lld", STR(spec->name),
                 (long long)known);
        return NULL;
    }
    size_t size = (size_t)known * tensor_size(t->type);
    if (t->rank && spec->dims[at] < 0)
        t->dims[at] = raw.n < size ? 1 : (int64_t)(raw.n / size);
    return tensor_of_bytes(c->a, spec->name, raw, t);
}

/* Found before the run, as it is the client's mistake and not the model's. */
static err output_fits(const struct tensor_spec *spec, bool binary, int64_t classes)
{
    bool half = spec->type == TENSOR_F16 || spec->type == TENSOR_BF16;
    if (classes && (half || spec->type == TENSOR_TEXT))
        FAIL(INVALID, "class result not available for output '%.*s' due to its type %.*s", STR(spec->name),
             STR(tensor_protocol_name(spec->type)));
    if (half && !binary)
        FAIL(INVALID,
             "sending %.*s data via JSON is not supported. Please use the binary data format for output %.*s",
             STR(tensor_protocol_name(spec->type)), STR(spec->name));
    return NULL;
}

err rest_fit(struct infer *c)
{
    const struct rest *rest = c->adapter;
    const struct session_info *info = c->to->model->info;
    if (rest->raw_only)
        TRY(raw_take(c, rest->raw));
    for (size_t i = 0; i < info->n_outputs; i++) {
        const struct tensor_spec *spec = &info->outputs[i];
        if (!c->asked_n)
            TRY(output_fits(spec, rest->binary, 0));
        for (size_t k = 0; k < c->asked_n; k++)
            if (str_eq(c->asked[k].name, spec->name))
                TRY(output_fits(spec, c->asked[k].binary, c->asked[k].classes));
    }
    return NULL;
}

/* ---- the reply ---- */

static void features_write(struct buf *b, const struct infer *c)
{
    const struct str *names;
    size_t views = feature_plan_views(c->entry->plan->plan, &names);
    buf_fmt(b, ",{\"name\":\"features\",\"datatype\":\"FP64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            c->features);
    for (size_t i = 0; i < c->n * c->features; i++) {
        if (i)
            buf_str(b, S(","));
        write_f64(b, c->rows[0].features[i]);
    }
    buf_fmt(b, "]},{\"name\":\"known_at\",\"datatype\":\"INT64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            views);
    for (size_t i = 0; i < c->n * views; i++) {
        if (i)
            buf_str(b, S(","));
        write_i64(b, c->rows[0].known_at[i]);
    }
    buf_str(b, S("]}"));
}

static void names_write(struct buf *b, const char *key, const struct str *names, size_t n)
{
    buf_fmt(b, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_str(b, S(","));
        text_put(b, names[i]);
    }
    buf_str(b, S("]"));
}

/* What the columns of `features` and `known_at` are. */
static void parameters_write(struct buf *b, const struct infer *c)
{
    const struct feature_plan *plan = c->entry->plan->plan;
    const struct str *features, *views;
    size_t n = feature_plan_features(plan, &features), m = feature_plan_views(plan, &views);
    buf_str(b, S(",\"parameters\":{"));
    names_write(b, "features", features, n);
    buf_str(b, S(","));
    names_write(b, "views", views, m);
    buf_str(b, S("}"));
}

static bool is_binary(const struct infer *c, size_t i)
{
    const struct rest *rest = c->adapter;
    return c->asked_n ? c->asked[i].binary : rest->binary;
}

/* The outputs as they are sent: classes in place of scores where these are wanted. *bytes: about what they take. */
static err outputs_of(struct infer *c, struct tensor **out, size_t *bytes)
{
    const struct session_info *info = c->to->model->info;
    *out = NEW_N(c->a, struct tensor, c->out_n + 1);
    for (size_t i = 0; i < c->out_n; i++) {
        struct tensor *t = &(*out)[i];
        *t = c->out[i];
        if (c->asked_n && c->asked[i].classes)
            TRY(classes_of(c->a, info, &c->out[i], c->asked[i].classes, t));
        *bytes += 128 + (is_binary(c, i) ? tensor_bytes(t) : 3 * t->bytes);
    }
    return NULL;
}

static err outputs_write(struct infer *c, struct buf *b, const struct tensor *v)
{
    const struct session_info *info = c->to->model->info;
    for (size_t i = 0; i < c->out_n; i++) {
        struct str name = info->outputs[v[i].slot].name;
        if (i)
            buf_str(b, S(","));
        if (!is_binary(c, i)) {
            TRY(tensor_write(b, name, &v[i]));
            continue;
        }
        tensor_head(b, name, &v[i]);
        buf_str(b, S(",\"parameters\":{\"binary_data_size\":"));
        write_i64(b, (int64_t)tensor_bytes(&v[i]));
        buf_str(b, S("}}"));
    }
    return NULL;
}

static err reply_send(struct infer *c, const char *type, struct str body)
{
    struct str coding = S("");
    if (body.n > DEFLATE_BYTES_MIN)
        coding = coding_choose(req_header(c->r, S("accept-encoding")));
    if (coding.n) {
        TRY(body_deflate(c->a, coding, body, &body));
        req_reply_header(c->r, "Content-Encoding", coding);
    }
    return req_reply(c->r, 200, type, body);
}

static err rest_reply(struct infer *c)
{
    struct buf b = buf_new(c->a);
    struct tensor *out;
    size_t room = 256 + (c->rows ? 20 * c->n * c->features : 0), json;
    bool binary = false;
    TRY(outputs_of(c, &out, &room));
    (void)buf_room(&b, room);
    buf_str(&b, S("{\"model_name\":\""));
    buf_str(&b, c->entry->name); /* the grammar of names needs no escapes */
    buf_str(&b, S("\",\"model_version\":\""));
    buf_str(&b, c->to->model->number);
    buf_str(&b, S("\""));
    if (c->id.n) {
        buf_str(&b, S(",\"id\":"));
        text_put(&b, c->id);
    }
    buf_str(&b, S(",\"outputs\":["));
    TRY(outputs_write(c, &b, out));
    if (c->rows)
        features_write(&b, c);
    buf_str(&b, S("]"));
    if (c->rows)
        parameters_write(&b, c);
    buf_str(&b, S("}"));
    json = b.n;
    for (size_t i = 0; i < c->out_n; i++) {
        binary = binary || is_binary(c, i);
        if (is_binary(c, i))
            tensor_put(&b, &out[i]);
    }
    struct buf length = buf_new(c->a);
    if (binary) {
        write_i64(&length, (int64_t)json);
        req_reply_header(c->r, "Inference-Header-Content-Length", buf_get(&length));
    }
    return reply_send(c, binary ? "application/octet-stream" : "application/json", buf_get(&b));
}

err infer_post(struct req *r)
{
    struct infer *c = NEW(r->a, struct infer);
    c->s = (struct serve *)(uintptr_t)r->route->self;
    c->r = r;
    c->a = r->a;
    c->project = req_project(r);
    c->deployment = req_param(r, S("name"));
    c->fit = rest_fit;
    c->reply = rest_reply;
    c->adapter = NEW(r->a, struct rest);
    err e = rest_read(c);
    if (e && e->code == MEDIA)
        req_reply_header(r, "Accept-Encoding", S(CODINGS));
    return e ? infer_unread(c, e) : infer_start(c);
}
