// SPDX-License-Identifier: Apache-2.0
#include "cli/request.h"
#include "base/pb.h"
#include "engine/engine.h"

enum kind { KIND_REAL, KIND_HALF, KIND_BRAIN, KIND_INT, KIND_BOOL, KIND_TEXT };
static const struct type {
    struct str name;
    enum kind kind;
    size_t width; /* bytes of an element; 0: they differ */
    int64_t min, max;
} types[] = {
    { S_INIT("FP32"), KIND_REAL, 4 },
    { S_INIT("FP64"), KIND_REAL, 8 },
    { S_INIT("FP16"), KIND_HALF, 2 },
    { S_INIT("BF16"), KIND_BRAIN, 2 },
    { S_INIT("INT8"), KIND_INT, 1, INT8_MIN, INT8_MAX },
    { S_INIT("INT16"), KIND_INT, 2, INT16_MIN, INT16_MAX },
    { S_INIT("INT32"), KIND_INT, 4, INT32_MIN, INT32_MAX },
    { S_INIT("INT64"), KIND_INT, 8, INT64_MIN, INT64_MAX },
    { S_INIT("UINT8"), KIND_INT, 1, 0, UINT8_MAX },
    { S_INIT("UINT16"), KIND_INT, 2, 0, UINT16_MAX },
    { S_INIT("UINT32"), KIND_INT, 4, 0, UINT32_MAX },
    { S_INIT("UINT64"), KIND_INT, 8, 0, INT64_MAX },
    { S_INIT("BOOL"), KIND_BOOL, 1 },
    { S_INIT("BYTES"), KIND_TEXT, 0 },
};

struct scalar {
    double f;
    int64_t i;
    struct str s;
};

/* ---- what the model takes ---- */

struct str model_path(struct arena *a, struct str name, const char *version)
{
    struct str path = fmt(a, "/v2/models/%.*s", STR(url_encode(a, name)));
    return version ? fmt(a, "%.*s/versions/%.*s", STR(path), STR(url_encode(a, str_of(version)))) : path;
}

static err input_read(struct cli *c, yyjson_val *v, struct input *out)
{
    size_t i, n;
    yyjson_val *d;
    *out = (struct input){ .name = json_text_at(c->a, v, "name"),
                           .datatype = json_text_at(c->a, v, "datatype") };
    yyjson_arr_foreach (yyjson_obj_get(v, "shape"), i, n, d) {
        if (out->rank == INPUT_RANK_MAX)
            FAIL(UNSUPPORTED, "input '%.*s' has too many dimensions", STR(out->name));
        out->dims[out->rank++] = yyjson_get_sint(d);
    }
    return NULL;
}

err inputs_get(struct cli *c, struct str path, struct inputs *out)
{
    yyjson_val *metadata, *list, *one;
    size_t i, n;
    TRY(cli_call(c, M_GET, path, S(""), &metadata));
    list = yyjson_obj_get(metadata, "inputs");
    *out = (struct inputs){ .v = NEW_N(c->a, struct input, yyjson_arr_size(list) + 1),
                            .entities = yyjson_obj_get(metadata, "entities") };
    yyjson_arr_foreach (list, i, n, one)
        TRY(input_read(c, one, &out->v[out->n++]));
    return NULL;
}

struct str inputs_text(struct arena *a, const struct inputs *in)
{
    struct buf b = buf_new(a);
    size_t i, n;
    yyjson_val *e;
    for (i = 0; i < in->n; i++) {
        buf_fmt(&b, "%s%.*s %.*s[", i ? ", " : "", STR(in->v[i].name), STR(in->v[i].datatype));
        for (size_t d = 0; d < in->v[i].rank; d++)
            buf_fmt(&b, "%s%lld", d ? "," : "", (long long)in->v[i].dims[d]);
        buf_str(&b, S("]"));
    }
    yyjson_arr_foreach (in->entities, i, n, e)
        buf_fmt(&b, "%s%.*s%s", i ? ", " : "; or by key: ", STR(json_text_at(a, e, "name")),
                yyjson_is_true(json_at(e, "optional")) ? " (if you like)" : "");
    return buf_get(&b);
}

err input_settle(struct input *in)
{
    in->elements = 1;
    for (size_t d = 0; d < in->rank; d++) {
        if (in->dims[d] < 0)
            FAIL(INVALID, "the shape of input '%.*s' is open", STR(in->name));
        if (__builtin_mul_overflow(in->elements, (size_t)in->dims[d], &in->elements) ||
            in->elements > INPUT_ELEMENTS_MAX)
            FAIL(TOO_LARGE, "input '%.*s' has more than %d elements", STR(in->name), INPUT_ELEMENTS_MAX);
    }
    return NULL;
}

/* ---- values ---- */

static err type_find(const struct input *in, const struct type **out)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(types[i].name, in->datatype)) {
            *out = &types[i];
            return NULL;
        }
    FAIL(UNSUPPORTED, "input '%.*s' is %.*s, for which there is no text", STR(in->name), STR(in->datatype));
}

static bool real_read(struct str s, double *out)
{
    *out = (double)NAN;
    return !s.n || str_is(s, "NaN") || str_is(s, "nan") || str_f64(s, out);
}

static bool bool_read(struct str s, int64_t *out)
{
    *out = str_is(s, "true") || str_is(s, "True") || str_is(s, "1");
    return *out || str_is(s, "false") || str_is(s, "False") || str_is(s, "0");
}

static bool is_real(const struct type *t)
{
    return t->kind == KIND_REAL || t->kind == KIND_HALF || t->kind == KIND_BRAIN;
}

/* A real number that is missing (an empty cell) is NaN, as trees take it. */
static err value_read(const struct input *in, const struct type *t, struct str s, struct scalar *out)
{
    struct str bare = t->kind == KIND_TEXT ? s : str_trim(s);
    bool ok = true;
    out->s = s;
    if (is_real(t))
        ok = real_read(bare, &out->f);
    else if (t->kind == KIND_BOOL)
        ok = bool_read(bare, &out->i);
    else if (t->kind == KIND_INT)
        ok = str_i64(bare, &out->i) && out->i >= t->min && out->i <= t->max;
    if (!ok)
        FAIL(INVALID, "input '%.*s' is %.*s, which '%.*s' is not", STR(in->name), STR(in->datatype),
             STR(str_sub(s, 0, 40)));
    return NULL;
}

static void value_json(struct json *j, const struct type *t, const struct scalar *v)
{
    if (t->kind == KIND_TEXT)
        json_str(j, v->s);
    else if (t->kind == KIND_BOOL)
        json_bool(j, v->i);
    else if (t->kind == KIND_INT)
        json_i64(j, v->i);
    else if (isnan(v->f))
        json_raw(j, S("NaN"));
    else
        json_f64(j, v->f);
}

static void value_bytes(struct buf *b, const struct type *t, const struct scalar *v)
{
    float f = (float)v->f;
    uint16_t half;
    params_half_range(&f, &half, t->kind == KIND_BRAIN ? TENSOR_BF16 : TENSOR_F16, 0, 1);
    uint32_t n = (uint32_t)v->s.n;
    if (t->kind == KIND_TEXT)
        buf_put(b, &n, sizeof n);
    if (t->kind == KIND_TEXT)
        buf_str(b, v->s);
    else if (t->kind == KIND_REAL && t->width == sizeof f)
        buf_put(b, &f, sizeof f);
    else if (t->kind == KIND_REAL)
        buf_put(b, &v->f, sizeof v->f);
    else if (t->kind == KIND_HALF || t->kind == KIND_BRAIN)
        buf_put(b, &half, sizeof half);
    else
        buf_put(b, &v->i, t->width); /* the low bytes come first */
}

/* All values of an input, as JSON (b NULL) or as bytes. */
static err values_put(const struct request *r, const struct input *in, struct json *j, struct buf *b)
{
    const struct type *t;
    struct scalar v = { 0 };
    struct str text;
    TRY(type_find(in, &t));
    if (!b && (t->kind == KIND_HALF || t->kind == KIND_BRAIN))
        return err_hint(err_new(UNSUPPORTED, "input '%.*s' is %.*s, which JSON does not carry", STR(in->name),
                                STR(in->datatype)),
                        "--protocol binary or grpc");
    for (size_t i = 0; i < in->elements; i++) {
        TRY(r->value(r->arg, in, i, &text));
        TRY(value_read(in, t, text, &v));
        if (b)
            value_bytes(b, t, &v);
        else
            value_json(j, t, &v);
        if ((b ? b : &j->b)->n > REQUEST_BYTES_MAX)
            FAIL(TOO_LARGE, "the request is over %d bytes", REQUEST_BYTES_MAX);
    }
    return NULL;
}

/* ---- forms ---- */

static void head_json(struct json *j, const struct input *in)
{
    json_kstr(j, "name", in->name);
    json_kstr(j, "datatype", in->datatype);
    json_key(j, S("shape"));
    json_arr(j);
    for (size_t i = 0; i < in->rank; i++)
        json_i64(j, in->dims[i]);
    json_arr_end(j);
}

static err rest_make(struct arena *a, const struct request *r, bool binary, struct str *out, size_t *json_n)
{
    struct json j = json_new(a);
    struct buf raw = buf_new(a);
    json_obj(&j);
    if (binary && r->binary_out)
        json_kraw(&j, "parameters", S("{\"binary_data_output\":true}"));
    json_key(&j, S("inputs"));
    json_arr(&j);
    for (size_t i = 0; i < r->n; i++) {
        size_t before = raw.n;
        json_obj(&j);
        head_json(&j, &r->v[i]);
        if (!binary) {
            json_key(&j, S("data"));
            json_arr(&j);
        }
        TRY(values_put(r, &r->v[i], &j, binary ? &raw : NULL));
        if (binary)
            json_kraw(&j, "parameters", fmt(a, "{\"binary_data_size\":%zu}", raw.n - before));
        else
            json_arr_end(&j);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    *json_n = binary ? json_get(&j).n : 0;
    buf_str(&j.b, buf_get(&raw));
    *out = buf_get(&j.b);
    return NULL;
}

/* Field numbers of inference.ModelInferRequest and its InferInputTensor. */
enum { PB_MODEL = 1, PB_VERSION = 2, PB_INPUTS = 5, PB_RAW = 7, PB_NAME = 1, PB_DATATYPE = 2, PB_SHAPE = 3 };

static err grpc_make(struct arena *a, const struct request *r, struct str *out)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, PB_MODEL, r->model);
    if (r->version.n)
        pb_bytes(&b, PB_VERSION, r->version);
    for (size_t i = 0; i < r->n; i++) {
        size_t at = pb_open(&b, PB_INPUTS);
        pb_bytes(&b, PB_NAME, r->v[i].name);
        pb_bytes(&b, PB_DATATYPE, r->v[i].datatype);
        pb_varints(&b, PB_SHAPE, r->v[i].dims, r->v[i].rank);
        pb_close(&b, at);
    }
    for (size_t i = 0; i < r->n; i++) {
        size_t at = pb_open(&b, PB_RAW);
        TRY(values_put(r, &r->v[i], NULL, &b));
        pb_close(&b, at);
    }
    *out = buf_get(&b);
    return NULL;
}

err request_make(struct arena *a, const struct request *r, enum request_form form, struct str *out,
                 size_t *json_n)
{
    *json_n = 0;
    return form == REQUEST_GRPC ? grpc_make(a, r, out) : rest_make(a, r, form == REQUEST_BINARY, out, json_n);
}
