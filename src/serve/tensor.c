// SPDX-License-Identifier: Apache-2.0
#include "serve/tensor.h"
#include "serve/number.h"

/* ---- in: JSON ---- */

struct fill {
    struct json_in *in;
    struct str name;
    const struct tensor *t;
    char *at;    /* where the next element goes */
    size_t size; /* of an element in memory */
    size_t n;    /* elements so far */
};

static size_t element_size(enum tensor_type type)
{
    return type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(type);
}

static err wrong_shape(struct str name)
{
    FAIL(INVALID, "Unable to parse 'data': Shape does not match true shape of 'data' field of input '%.*s'",
         STR(str_sub(name, 0, 64)));
}

static err wrong_value(const struct fill *f)
{
    FAIL(INVALID, "Unable to parse 'data': element %zu of input '%.*s' is no %.*s, or out of its range", f->n,
         STR(str_sub(f->name, 0, 64)), STR(tensor_protocol_name(f->t->type)));
}

/* Digits of a whole number, none in front that says nothing. NULL: there are none, or they pass 2^64. */
static const char *whole_read(const char *p, const char *end, uint64_t *out)
{
    const char *from = p;
    for (*out = 0; p < end && (unsigned char)(*p - '0') < 10; p++)
        if (__builtin_mul_overflow(*out, 10, out) || __builtin_add_overflow(*out, (uint64_t)(*p - '0'), out))
            return NULL;
    return p == from || (*from == '0' && p - from > 1) ? NULL : p;
}

static err put_whole(struct fill *f)
{
    enum tensor_type type = f->t->type;
    bool is_signed = type == TENSOR_I8 || type == TENSOR_I16 || type == TENSOR_I32 || type == TENSOR_I64;
    int bits = 8 * (int)f->size - is_signed;
    struct json_in *in = f->in;
    uint64_t v, most = UINT64_MAX >> (64 - bits);
    bool minus = is_signed && in->p < in->end && *in->p == '-';
    const char *end = whole_read(in->p + minus, in->end, &v);
    if (!end || v > most + minus)
        return wrong_value(f);
    if (minus)
        v = 0 - v;
    memcpy(f->at, &v, f->size); /* little-endian, as is every machine that this runs on */
    in->p = end;
    return NULL;
}

static err put_bool(struct fill *f)
{
    struct str rest = { f->in->p, (size_t)(f->in->end - f->in->p) };
    bool yes = str_starts(rest, S("true"));
    if (!yes && !str_starts(rest, S("false")))
        return wrong_value(f);
    *f->at = yes;
    f->in->p += yes ? 4 : 5;
    return NULL;
}

static err put_text(struct fill *f)
{
    struct str text;
    if (f->in->p < f->in->end && *f->in->p != '"')
        return wrong_value(f);
    TRY(json_in_text(f->in, &text));
    memcpy(f->at, &text, sizeof text);
    return NULL;
}

static err put_each(struct fill *f, size_t n)
{
    err (*put)(struct fill *) = f->t->type == TENSOR_BOOL   ? put_bool
                                : f->t->type == TENSOR_TEXT ? put_text
                                                            : put_whole;
    for (size_t i = 0;; f->in->p++) {
        (void)json_in_peek(f->in);
        TRY(put(f));
        f->n++;
        f->at += f->size;
        if (json_in_peek(f->in) != ',' || ++i == n)
            return NULL;
    }
}

static err put_reals(struct fill *f, size_t n)
{
    struct json_in *in = f->in;
    size_t done;
    (void)json_in_peek(in);
    const char *p = f->t->type == TENSOR_F32 ? f32s_read(in->p, in->end, (float *)(void *)f->at, n, &done)
                                             : f64s_read(in->p, in->end, (double *)(void *)f->at, n, &done);
    f->n += done;
    if (!p)
        return wrong_value(f);
    f->at += done * f->size;
    in->p = p;
    return NULL;
}

/* n elements and the bracket that ends them; the one before them is read already. */
static err put_row(struct fill *f, size_t n)
{
    bool real = f->t->type == TENSOR_F32 || f->t->type == TENSOR_F64;
    size_t before = f->n;
    if (json_in_peek(f->in) == ']' || json_in_peek(f->in) == '[')
        return wrong_shape(f->name);
    TRY(real ? put_reals(f, n) : put_each(f, n));
    char c = json_in_peek(f->in);
    if (c != ',' && c != ']')
        return json_in_wrong(f->in, "Missing a comma or ] after an array element");
    if (c == ',' || f->n - before != n)
        return wrong_shape(f->name);
    f->in->p++;
    return NULL;
}

/* Recurses by the shape, which has eight dimensions at most; not by what came. */
static err put_nested(struct fill *f, size_t depth)
{
    const struct tensor *t = f->t;
    if (json_in_peek(f->in) != '[')
        return wrong_shape(f->name);
    f->in->p++;
    if (depth + 1 == t->rank)
        return put_row(f, (size_t)t->dims[depth]);
    for (int64_t i = 0; i < t->dims[depth]; i++) {
        if (i && json_in_peek(f->in) != ',')
            return wrong_shape(f->name);
        f->in->p += i > 0;
        TRY(put_nested(f, depth + 1));
    }
    if (json_in_peek(f->in) != ']')
        return wrong_shape(f->name);
    f->in->p++;
    return NULL;
}

err tensor_of_json(struct json_in *in, struct str name, struct tensor *t)
{
    int64_t count;
    if (t->type == TENSOR_F16 || t->type == TENSOR_BF16)
        FAIL(
            INVALID,
            "receiving %.*s data via JSON is not supported. Please use the binary data format for input %.*s",
            STR(tensor_protocol_name(t->type)), STR(str_sub(name, 0, 64)));
    if (json_in_peek(in) != '[')
        FAIL(INVALID, "Unable to parse 'data': it is not a list, in input '%.*s'", STR(str_sub(name, 0, 64)));
    /* An element and what separates it take two bytes of the body: a shape alone reserves nothing. */
    if (!tensor_count(t->dims, t->rank, (in->end - in->p) / 2, &count))
        return wrong_shape(name);
    t->bytes = (size_t)count * element_size(t->type);
    t->data = arena_alloc(in->a, t->bytes, 16);
    struct fill f = { .in = in, .name = name, .t = t, .at = t->data, .size = element_size(t->type) };
    const char *from = in->p++;
    if (json_in_peek(in) != '[' || t->rank < 2)
        return put_row(&f, (size_t)count);
    in->p = from;
    return put_nested(&f, 0);
}

/* ---- in: bytes ---- */

static err wrong_size(struct str name, size_t want, size_t got)
{
    FAIL(INVALID, "input byte size mismatch for input '%.*s'. Expected %zu, got %zu",
         STR(str_sub(name, 0, 64)), want, got);
}

static err texts_of_bytes(struct arena *a, struct str name, struct str bytes, struct tensor *t)
{
    int64_t count, i = 0;
    uint32_t n;
    if (!tensor_count(t->dims, t->rank, (int64_t)(bytes.n / sizeof n), &count))
        FAIL(INVALID, "input '%.*s' has %zu bytes, too few for the texts of its shape",
             STR(str_sub(name, 0, 64)), bytes.n);
    struct str *v = NEW_N(a, struct str, (size_t)count + 1), rest = bytes;
    for (; i < count && rest.n >= sizeof n; i++) {
        memcpy(&n, rest.p, sizeof n);
        if (n > rest.n - sizeof n)
            FAIL(INVALID, "incomplete string data for inference input '%.*s', expecting string of length %u",
                 STR(str_sub(name, 0, 64)), n);
        v[i] = str_sub(rest, sizeof n, sizeof n + n);
        rest = str_sub(rest, sizeof n + n, rest.n);
    }
    if (i < count || rest.n)
        FAIL(INVALID, "unexpected number of string elements for inference input '%.*s', expecting %lld",
             STR(str_sub(name, 0, 64)), (long long)count);
    t->data = v;
    t->bytes = (size_t)count * sizeof *v;
    return NULL;
}

err tensor_of_bytes(struct arena *a, struct str name, struct str bytes, struct tensor *t)
{
    int64_t count;
    size_t size = tensor_size(t->type);
    if (t->type == TENSOR_TEXT)
        return texts_of_bytes(a, name, bytes, t);
    if (!tensor_count(t->dims, t->rank, INT64_MAX / 16, &count))
        FAIL(INVALID, "the shape of input '%.*s' has too many elements", STR(str_sub(name, 0, 64)));
    if ((size_t)count * size != bytes.n)
        return wrong_size(name, (size_t)count * size, bytes.n);
    for (size_t i = 0; t->type == TENSOR_BOOL && i < bytes.n; i++)
        if ((unsigned char)bytes.p[i] > 1)
            FAIL(INVALID, "element %zu of input '%.*s' is no BOOL", i, STR(str_sub(name, 0, 64)));
    t->bytes = bytes.n;
    t->data = (void *)(uintptr_t)bytes.p; /* a run only reads it */
    if ((uintptr_t)bytes.p % size == 0)
        return NULL;
    t->data = arena_alloc(a, bytes.n, 16);
    memcpy(t->data, bytes.p, bytes.n);
    return NULL;
}

/* ---- out: bytes ---- */

size_t tensor_bytes(const struct tensor *t)
{
    const struct str *texts = t->data;
    size_t n = t->bytes / sizeof *texts, all = 0;
    if (t->type != TENSOR_TEXT)
        return t->bytes;
    for (size_t i = 0; i < n; i++)
        all += sizeof(uint32_t) + texts[i].n;
    return all;
}

void tensor_put(struct buf *b, const struct tensor *t)
{
    const struct str *texts = t->data;
    if (t->type != TENSOR_TEXT) {
        buf_put(b, t->data, t->bytes);
        return;
    }
    for (size_t i = 0; i < t->bytes / sizeof *texts; i++) {
        uint32_t n = (uint32_t)texts[i].n;
        buf_put(b, &n, sizeof n);
        buf_str(b, texts[i]);
    }
}

/* ---- out: JSON ---- */

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

void write_f32(struct buf *b, float v)
{
    b->n += f32_text(v, buf_room(b, 32));
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

void text_put(struct buf *b, struct str s)
{
    struct json j = { .b = *b };
    json_str(&j, s);
    *b = j.b;
}

static void put_f32s(struct buf *b, const float *v, size_t n)
{
    enum { AT_ONCE = 64, LONGEST = 16 };
    for (size_t i = 0; i < n;) {
        char *p = buf_room(b, AT_ONCE * (LONGEST + 1)), *from = p;
        for (size_t end = i + AT_ONCE; i < end && i < n; i++) {
            if (i)
                *p++ = ',';
            p += f32_text(v[i], p);
        }
        b->n += (size_t)(p - from);
    }
}

static void value_put(struct buf *b, const struct tensor *t, size_t i)
{
    char text[24];
    switch (t->type) {
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

void tensor_head(struct buf *b, struct str name, const struct tensor *t)
{
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
    buf_str(b, S("]"));
}

err tensor_write(struct buf *b, struct str name, const struct tensor *t)
{
    int64_t n;
    if (t->type == TENSOR_F16 || t->type == TENSOR_BF16 || t->type == TENSOR_NONE)
        FAIL(INVALID,
             "sending %.*s data via JSON is not supported. Please use the binary data format for output %.*s",
             STR(tensor_protocol_name(t->type)), STR(name));
    if (!tensor_count(t->dims, t->rank, INT32_MAX, &n))
        FAIL(TOO_LARGE, "output '%.*s' has too many elements for JSON", STR(name));
    tensor_head(b, name, t);
    buf_str(b, S(",\"data\":["));
    if (t->type == TENSOR_F32)
        put_f32s(b, t->data, (size_t)n);
    for (int64_t i = 0; t->type != TENSOR_F32 && i < n; i++) {
        if (i)
            buf_str(b, S(","));
        value_put(b, t, (size_t)i);
    }
    buf_str(b, S("]}"));
    return NULL;
}
