// SPDX-License-Identifier: Apache-2.0
/* Tensors as JSON: "data" flat or nested, strictly as the shape says; numbers in range; null is NaN. */
#include "serve/infer.h"
#include <float.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- in ---- */

/* One input of a request, as it came. */
struct tensor_in {
    struct str name;
    enum tensor_type type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    yyjson_val *data;
};

static err shape_read(struct str path, yyjson_val *shape, struct tensor_in *out)
{
    size_t i, max;
    yyjson_val *v;
    int64_t n;
    if (!yyjson_is_arr(shape) || yyjson_arr_size(shape) > TENSOR_RANK_MAX)
        FAIL(INVALID, "%.*s.shape is a list of at most %d sizes", STR(path), TENSOR_RANK_MAX);
    yyjson_arr_foreach (shape, i, max, v) {
        if (!yyjson_is_int(v) || yyjson_get_sint(v) < 1 ||
            (yyjson_is_uint(v) && yyjson_get_uint(v) > INT32_MAX))
            FAIL(INVALID, "%.*s.shape[%zu] is a whole number from 1 to %d", STR(path), i, INT32_MAX);
        out->dims[i] = yyjson_get_sint(v);
    }
    out->rank = max;
    if (!tensor_count(out->dims, out->rank, INT32_MAX, &n))
        FAIL(INVALID, "%.*s.shape has more elements than a request can hold", STR(path));
    return NULL;
}

static struct str text_of(yyjson_val *v)
{
    return (struct str){ yyjson_get_str(v), yyjson_get_len(v) };
}

static err form_read(struct str path, yyjson_val *in, struct tensor_in *out)
{
    static const struct str known[] = { S_INIT("name"), S_INIT("shape"), S_INIT("datatype"), S_INIT("data"),
                                        S_INIT("parameters") };
    size_t i, max;
    yyjson_val *k, *v;
    if (!yyjson_is_obj(in))
        FAIL(INVALID, "%.*s is an object with name, shape, datatype and data", STR(path));
    *out = (struct tensor_in){ 0 };
    yyjson_obj_foreach (in, i, max, k, v) {
        size_t which = 0;
        while (which < 5 && !str_eq(known[which], text_of(k)))
            which++;
        if (which == 5)
            FAIL(INVALID, "%.*s: '%.*s' is not known", STR(path), STR(str_sub(text_of(k), 0, 64)));
        if ((which == 0 || which == 2) && !yyjson_is_str(v))
            FAIL(INVALID, "%.*s.%.*s is a text", STR(path), STR(known[which]));
        if (which == 0)
            out->name = text_of(v);
        else if (which == 1)
            TRY(shape_read(path, v, out));
        else if (which == 2)
            out->type = tensor_of_protocol(text_of(v));
        else if (which == 3)
            out->data = v;
    }
    if (!out->name.n || !yyjson_obj_get(in, "shape"))
        FAIL(INVALID, "%.*s has no name or no shape", STR(path));
    if (out->type == TENSOR_NONE)
        FAIL(INVALID, "%.*s.datatype is none of BOOL, INT8 … UINT64, FP32, FP64, BYTES", STR(path));
    return NULL;
}

struct fill {
    struct str path;
    const struct tensor_in *in;
    struct tensor *out;
    size_t n, count; /* elements written, wanted */
};

static err wrong_value(const struct fill *f)
{
    FAIL(INVALID, "%.*s.data: element %zu is no %.*s, or out of its range", STR(f->path), f->n,
         STR(tensor_protocol_name(f->in->type)));
}

static err put_real(struct fill *f, yyjson_val *v)
{
    double x = yyjson_is_null(v) ? NAN : yyjson_get_num(v);
    if ((!yyjson_is_num(v) && !yyjson_is_null(v)) || (f->in->type == TENSOR_F32 && fabs(x) > (double)FLT_MAX))
        return wrong_value(f);
    if (f->in->type == TENSOR_F32)
        ((float *)f->out->data)[f->n] = (float)x;
    else
        ((double *)f->out->data)[f->n] = x;
    return NULL;
}

static err put_whole(struct fill *f, yyjson_val *v)
{
    int bits = 8 * (int)tensor_size(f->in->type);
    bool is_signed = f->in->type == TENSOR_I8 || f->in->type == TENSOR_I16 || f->in->type == TENSOR_I32 ||
                     f->in->type == TENSOR_I64;
    char *at = (char *)f->out->data + f->n * tensor_size(f->in->type);
    if (!yyjson_is_int(v))
        return wrong_value(f);
    uint64_t u = yyjson_get_uint(v);
    int64_t i = yyjson_get_sint(v);
    if (is_signed) {
        bool big = yyjson_is_uint(v) && u > INT64_MAX;
        int64_t most = INT64_MAX >> (64 - bits);
        if (big || i > most || i < -most - 1)
            return wrong_value(f);
        memcpy(at, &i, tensor_size(f->in->type)); /* little-endian, as is every machine that this runs on */
    } else {
        if (!yyjson_is_uint(v) || u > UINT64_MAX >> (64 - bits))
            return wrong_value(f);
        memcpy(at, &u, tensor_size(f->in->type));
    }
    return NULL;
}

static err put_value(struct fill *f, yyjson_val *v)
{
    if (f->n == f->count)
        FAIL(INVALID, "%.*s.data has more elements than its shape", STR(f->path));
    switch (f->in->type) {
    case TENSOR_F32:
    case TENSOR_F64:
        TRY(put_real(f, v));
        break;
    case TENSOR_BOOL:
        if (!yyjson_is_bool(v))
            return wrong_value(f);
        ((uint8_t *)f->out->data)[f->n] = yyjson_get_bool(v);
        break;
    case TENSOR_TEXT:
        if (!yyjson_is_str(v))
            return wrong_value(f);
        ((struct str *)f->out->data)[f->n] = text_of(v);
        break;
    default:
        TRY(put_whole(f, v));
    }
    f->n++;
    return NULL;
}

/* Level `depth` of nested data: as many items as the shape says. The depth of the document is bounded already. */
static err put_nested(struct fill *f, yyjson_val *v, size_t depth)
{
    size_t i, max;
    yyjson_val *item;
    bool leaf = depth + 1 == f->in->rank;
    if (!yyjson_is_arr(v) || (int64_t)yyjson_arr_size(v) != f->in->dims[depth])
        FAIL(INVALID, "%.*s.data: level %zu of nesting is not as the shape says", STR(f->path), depth);
    yyjson_arr_foreach (v, i, max, item)
        TRY(leaf ? put_value(f, item) : put_nested(f, item, depth + 1));
    return NULL;
}

static err data_read(struct arena *a, struct str path, const struct tensor_in *in, size_t body_bytes,
                     struct tensor *out)
{
    size_t size = in->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(in->type), i, max;
    int64_t count;
    yyjson_val *v;
    if (in->type == TENSOR_F16 || in->type == TENSOR_BF16)
        FAIL(INVALID, "%.*s: %.*s cannot be sent as JSON", STR(path), STR(tensor_protocol_name(in->type)));
    if (!yyjson_is_arr(in->data))
        FAIL(INVALID, "%.*s.data is a list", STR(path));
    /* Each element takes a byte of the body at least: a shape alone reserves nothing. */
    if (!tensor_count(in->dims, in->rank, (int64_t)body_bytes, &count))
        FAIL(INVALID, "%.*s: its shape has more elements than the body", STR(path));
    *out = (struct tensor){ .type = in->type, .rank = in->rank, .bytes = (size_t)count * size };
    memcpy(out->dims, in->dims, sizeof out->dims);
    out->data = arena_alloc(a, out->bytes, 16);
    struct fill f = { .path = path, .in = in, .out = out, .count = (size_t)count };
    if (yyjson_is_arr(yyjson_arr_get_first(in->data))) {
        if (in->rank == 0)
            FAIL(INVALID, "%.*s.data is nested, its shape is not", STR(path));
        TRY(put_nested(&f, in->data, 0));
    } else {
        yyjson_arr_foreach (in->data, i, max, v)
            TRY(put_value(&f, v));
    }
    if (f.n != f.count)
        FAIL(INVALID, "%.*s.data has %zu elements, its shape %lld", STR(path), f.n, (long long)count);
    return NULL;
}

err tensor_read(struct arena *a, struct str path, yyjson_val *v, size_t body_bytes, struct named *out)
{
    struct tensor_in in;
    TRY(form_read(path, v, &in));
    out->name = in.name;
    return data_read(a, path, &in, body_bytes, &out->t);
}

/* ---- out ---- */

static char *put_u64(char *end, uint64_t v)
{
    do
        *--end = (char)('0' + v % 10);
    while (v /= 10);
    return end;
}

void write_i64(struct buf *b, int64_t v)
{
    char text[24], *end = text + sizeof text;
    char *p = put_u64(end, v < 0 ? 0 - (uint64_t)v : (uint64_t)v);
    if (v < 0)
        *--p = '-';
    buf_put(b, p, (size_t)(end - p));
}

void write_f64(struct buf *b, double v)
{
    if (!isfinite(v)) {
        buf_str(b, S("null"));
        return;
    }
    char text[32];
    buf_put(b, text, f64_text(v, text));
}

/* m / 10^places with the fewest places that read back as v. The decimal is within a quarter of the distance to the
 * next float, so that it reads back the same whether a reader goes by way of a double or not. */
void write_f32(struct buf *b, float v)
{
    static const double tens[] = { 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12 };
    double x = fabs((double)v), near = (x - (double)nextafterf((float)x, 0)) / 4;
    char text[32], *end = text + sizeof text, *p = end;
    if (!isfinite(v)) {
        buf_str(b, S("null"));
        return;
    }
    if (x != 0 && (x < 1e-4 || x >= 1e9)) {
        buf_fmt(b, "%.9g", (double)v);
        return;
    }
    int places = 0;
    while (places < 12 && fabs(rint(x * tens[places]) / tens[places] - x) > near)
        places++;
    uint64_t m = (uint64_t)rint(x * tens[places]);
    for (int i = 0; i < places; i++, m /= 10)
        *--p = (char)('0' + m % 10);
    if (places)
        *--p = '.';
    p = put_u64(p, m);
    if (signbit(v))
        *--p = '-';
    buf_put(b, p, (size_t)(end - p));
    if (x == 0 && signbit(v))
        buf_str(b, S(".0"));
}

static int64_t whole_at(const struct tensor *t, size_t i)
{
    switch (t->type) {
    case TENSOR_I8:
        return ((const int8_t *)t->data)[i];
    case TENSOR_U8:
        return ((const uint8_t *)t->data)[i];
    case TENSOR_I16:
        return ((const int16_t *)t->data)[i];
    case TENSOR_U16:
        return ((const uint16_t *)t->data)[i];
    case TENSOR_I32:
        return ((const int32_t *)t->data)[i];
    case TENSOR_U32:
        return ((const uint32_t *)t->data)[i];
    default:
        return ((const int64_t *)t->data)[i];
    }
}

static void text_put(struct buf *b, struct str s)
{
    struct json j = { .b = *b };
    json_str(&j, s);
    *b = j.b;
}

static void value_put(struct buf *b, const struct tensor *t, size_t i)
{
    char text[24];
    switch (t->type) {
    case TENSOR_F32:
        write_f32(b, ((const float *)t->data)[i]);
        break;
    case TENSOR_F64:
        write_f64(b, ((const double *)t->data)[i]);
        break;
    case TENSOR_BOOL:
        buf_str(b, ((const uint8_t *)t->data)[i] ? S("true") : S("false"));
        break;
    case TENSOR_TEXT:
        text_put(b, ((const struct str *)t->data)[i]);
        break;
    case TENSOR_U64: {
        char *p = put_u64(text + sizeof text, ((const uint64_t *)t->data)[i]);
        buf_put(b, p, (size_t)(text + sizeof text - p));
        break;
    }
    default:
        write_i64(b, whole_at(t, i));
    }
}

err tensor_write(struct buf *b, struct str name, const struct tensor *t)
{
    int64_t n;
    if (t->type == TENSOR_F16 || t->type == TENSOR_BF16 || t->type == TENSOR_NONE)
        FAIL(UNSUPPORTED, "output '%.*s' is of a type that JSON does not carry", STR(name));
    if (!tensor_count(t->dims, t->rank, INT32_MAX, &n))
        FAIL(TOO_LARGE, "output '%.*s' has too many elements for JSON", STR(name));
    buf_str(b, S("{\"name\":"));
    text_put(b, name);
    buf_str(b, S(",\"datatype\":\""));
    buf_str(b, tensor_protocol_name(t->type));
    buf_str(b, S("\",\"shape\":["));
    for (size_t i = 0; i < t->rank; i++) {
        if (i)
            buf_str(b, S(","));
        write_i64(b, t->dims[i]);
    }
    buf_str(b, S("],\"data\":["));
    for (int64_t i = 0; i < n; i++) {
        if (i)
            buf_str(b, S(","));
        value_put(b, t, (size_t)i);
    }
    buf_str(b, S("]}"));
    return NULL;
}
