// SPDX-License-Identifier: Apache-2.0
#include "engine/safetensors.h"

#include <stdlib.h>
#include <yyjson.h>

// clang-format off
static const struct {
    const char *name;
    enum tensor_type type;
} dtypes[] = {
    { "F32", TENSOR_F32 }, { "F64", TENSOR_F64 }, { "F16", TENSOR_F16 }, { "BF16", TENSOR_BF16 },
    { "I64", TENSOR_I64 }, { "I32", TENSOR_I32 }, { "I16", TENSOR_I16 }, { "I8", TENSOR_I8 },
    { "U64", TENSOR_U64 }, { "U32", TENSOR_U32 }, { "U16", TENSOR_U16 }, { "U8", TENSOR_U8 }, { "BOOL", TENSOR_BOOL },
};
// clang-format on
enum { DTYPES = sizeof dtypes / sizeof *dtypes, SHOWN = 200 };

static struct str shown(struct str name)
{
    return str_sub(name, 0, SHOWN);
}

static enum tensor_type dtype_of(struct str name)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (str_eq(name, str_of(dtypes[i].name)))
            return dtypes[i].type;
    return TENSOR_NONE;
}

static const char *dtype_name(enum tensor_type type)
{
    for (size_t i = 0; i < DTYPES; i++)
        if (dtypes[i].type == type)
            return dtypes[i].name;
    return NULL;
}

/* Bytes of type and dims; false if they do not fit. */
static bool bytes_of(const struct safetensor *t, uint64_t *out)
{
    uint64_t n = tensor_size(t->type);
    for (size_t i = 0; i < t->rank; i++)
        if (t->dims[i] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dims[i], &n))
            return false;
    *out = n;
    return true;
}

/* ---- reading ---- */

static err shape_read(yyjson_val *v, struct safetensor *t)
{
    yyjson_val *d;
    size_t i, n;
    if (!yyjson_is_arr(v) || yyjson_arr_size(v) > TENSOR_RANK_MAX)
        FAIL(INVALID, "tensor '%.*s': its shape is no list of at most %d sizes", STR(shown(t->name)),
             TENSOR_RANK_MAX);
    t->rank = yyjson_arr_size(v);
    yyjson_arr_foreach (v, i, n, d) {
        if (!yyjson_is_uint(d) || yyjson_get_uint(d) > INT64_MAX)
            FAIL(INVALID, "tensor '%.*s': a size of its shape is no whole number", STR(shown(t->name)));
        t->dims[i] = (int64_t)yyjson_get_uint(d);
    }
    return NULL;
}

static err offsets_read(yyjson_val *v, struct safetensor *t)
{
    yyjson_val *from = yyjson_arr_get(v, 0), *to = yyjson_arr_get(v, 1);
    uint64_t bytes;
    if (yyjson_arr_size(v) != 2 || !yyjson_is_uint(from) || !yyjson_is_uint(to))
        FAIL(INVALID, "tensor '%.*s': data_offsets are not two whole numbers", STR(shown(t->name)));
    t->from = yyjson_get_uint(from);
    t->to = yyjson_get_uint(to);
    if (!bytes_of(t, &bytes))
        FAIL(TOO_LARGE, "tensor '%.*s': its shape is too large", STR(shown(t->name)));
    if (t->to < t->from || t->to - t->from != bytes)
        FAIL(INVALID, "tensor '%.*s': its data is not of the length that its type and shape say",
             STR(shown(t->name)));
    return NULL;
}

static err tensor_read(yyjson_val *v, struct safetensor *t)
{
    yyjson_val *key, *one, *shape = NULL, *offsets = NULL;
    size_t i, n;
    if (!yyjson_is_obj(v))
        FAIL(INVALID, "tensor '%.*s' is no object", STR(shown(t->name)));
    yyjson_obj_foreach (v, i, n, key, one) {
        if (yyjson_equals_str(key, "dtype") && t->type == TENSOR_NONE)
            t->type = dtype_of(json_text(one));
        else if (yyjson_equals_str(key, "shape") && !shape)
            shape = one;
        else if (yyjson_equals_str(key, "data_offsets") && !offsets)
            offsets = one;
        else
            FAIL(INVALID, "tensor '%.*s': '%.*s' is unknown or there twice", STR(shown(t->name)),
                 STR(shown(json_text(key))));
    }
    if (t->type == TENSOR_NONE)
        FAIL(INVALID, "tensor '%.*s' is of no type that is known here", STR(shown(t->name)));
    TRY(shape_read(shape, t));
    return offsets_read(offsets, t);
}

static err metadata_read(struct arena *a, yyjson_val *v, struct safetensors *out)
{
    yyjson_val *key, *one;
    size_t i, n;
    if (!yyjson_is_obj(v))
        FAIL(INVALID, "__metadata__ is no object");
    yyjson_obj_foreach (v, i, n, key, one) {
        if (!yyjson_is_str(one))
            FAIL(INVALID, "__metadata__: '%.*s' is no text", STR(shown(json_text(key))));
        push(a, &out->metadata, ((struct safetensors_text){ json_text(key), json_text(one) }));
    }
    return NULL;
}

static int by_place(const void *x, const void *y)
{
    const struct safetensor *const *a = x, *const *b = y;
    if ((*a)->from != (*b)->from)
        return (*a)->from < (*b)->from ? -1 : 1;
    return ((*a)->to > (*b)->to) - ((*a)->to < (*b)->to);
}

static int by_name(const void *x, const void *y)
{
    const struct safetensor *const *a = x, *const *b = y;
    return str_cmp((*a)->name, (*b)->name);
}

static const struct safetensor **sorted(struct arena *a, const struct safetensors *s,
                                        int (*by)(const void *, const void *))
{
    const struct safetensor **v = NEW_N(a, const struct safetensor *, s->v.n + 1);
    for (size_t i = 0; i < s->v.n; i++)
        v[i] = &s->v.v[i];
    if (s->v.n)
        qsort(v, s->v.n, sizeof *v, by);
    return v;
}

static err names_check(struct arena *a, const struct safetensors *s)
{
    const struct safetensor **v = sorted(a, s, by_name);
    for (size_t i = 1; i < s->v.n; i++)
        if (str_eq(v[i]->name, v[i - 1]->name))
            FAIL(INVALID, "tensor '%.*s' is there twice", STR(shown(v[i]->name)));
    return NULL;
}

/* Each begins where the one before ends, and the last ends with the file. */
static err places_check(struct arena *a, const struct safetensors *s)
{
    const struct safetensor **v = sorted(a, s, by_place);
    uint64_t at = 0;
    for (size_t i = 0; i < s->v.n; i++) {
        if (v[i]->from != at)
            FAIL(INVALID, "tensor '%.*s': %s before its data", STR(shown(v[i]->name)),
                 v[i]->from < at ? "another's overlaps" : "there is a hole");
        at = v[i]->to;
    }
    if (at != s->bytes)
        FAIL(INVALID, "the tensors take %llu bytes, the file has %llu", (unsigned long long)at,
             (unsigned long long)s->bytes);
    return NULL;
}

static void document_free(void *doc)
{
    yyjson_doc_free(doc);
}

static err header_read(struct arena *a, struct str text, struct safetensors *out)
{
    yyjson_read_err why;
    if (!text.n || text.p[0] != '{')
        FAIL(INVALID, "the header is no JSON object");
    yyjson_doc *doc = yyjson_read_opts((char *)(uintptr_t)text.p, text.n, 0, NULL, &why);
    if (!doc)
        FAIL(INVALID, "the header is no JSON: %s at byte %zu", why.msg, why.pos);
    arena_defer(a, document_free, doc);
    yyjson_val *root = yyjson_doc_get_root(doc), *key, *v;
    size_t i, n, metadata = 0;
    if (!yyjson_is_obj(root))
        FAIL(INVALID, "the header is no JSON object");
    if (yyjson_obj_size(root) > SAFETENSORS_TENSORS_MAX)
        FAIL(TOO_LARGE, "the file has more than %d tensors", SAFETENSORS_TENSORS_MAX);
    yyjson_obj_foreach (root, i, n, key, v) {
        struct safetensor t = { .name = json_text(key) };
        if (str_is(t.name, "__metadata__")) {
            if (metadata++)
                FAIL(INVALID, "__metadata__ is there twice");
            TRY(metadata_read(a, v, out));
            continue;
        }
        TRY(tensor_read(v, &t));
        push(a, &out->v, t);
    }
    return NULL;
}

err safetensors_read(struct arena *a, struct str bytes, struct safetensors *out)
{
    uint64_t n = 0;
    struct safetensors s = { 0 };
    if (bytes.n < 8)
        FAIL(INVALID, "the file is too short for safetensors");
    for (int i = 7; i >= 0; i--)
        n = n << 8 | (uint8_t)bytes.p[i];
    if (n > SAFETENSORS_HEADER_MAX)
        FAIL(TOO_LARGE, "the header is longer than %d bytes", SAFETENSORS_HEADER_MAX);
    if (n > bytes.n - 8)
        FAIL(INVALID, "the header is longer than the file");
    s.data_at = 8 + (size_t)n;
    s.bytes = bytes.n - s.data_at;
    TRY(header_read(a, (struct str){ bytes.p + 8, (size_t)n }, &s));
    auto_arena struct arena *scratch = arena_new(0);
    TRY(names_check(scratch, &s));
    TRY(places_check(scratch, &s));
    for (size_t i = 0; i < s.v.n; i++)
        s.v.v[i].data = bytes.p + s.data_at + s.v.v[i].from;
    *out = s;
    return NULL;
}

const struct safetensor *safetensors_find(const struct safetensors *s, struct str name)
{
    for (size_t i = 0; i < s->v.n; i++)
        if (str_eq(s->v.v[i].name, name))
            return &s->v.v[i];
    return NULL;
}

/* ---- writing ---- */

static void tensor_write(struct json *j, const struct safetensor *t)
{
    json_key(j, t->name);
    json_obj(j);
    json_kstr(j, "dtype", str_of(dtype_name(t->type)));
    json_key(j, S("shape"));
    json_arr(j);
    for (size_t i = 0; i < t->rank; i++)
        json_i64(j, t->dims[i]);
    json_arr_end(j);
    json_key(j, S("data_offsets"));
    json_arr(j);
    json_i64(j, (int64_t)t->from);
    json_i64(j, (int64_t)t->to);
    json_arr_end(j);
    json_obj_end(j);
}

static err places_make(struct safetensors *s)
{
    s->bytes = 0;
    for (size_t i = 0; i < s->v.n; i++) {
        struct safetensor *t = &s->v.v[i];
        uint64_t n;
        if (!dtype_name(t->type) || t->rank > TENSOR_RANK_MAX || !bytes_of(t, &n))
            FAIL(INVALID, "tensor '%.*s' is of a type or shape that cannot be written", STR(shown(t->name)));
        t->from = s->bytes;
        if (__builtin_add_overflow(s->bytes, n, &s->bytes) || s->bytes > INT64_MAX)
            FAIL(TOO_LARGE, "the tensors are too large for one file");
        t->to = s->bytes;
    }
    return NULL;
}

err safetensors_layout(struct arena *a, struct safetensors *s, struct str *header)
{
    struct json j = json_new(a);
    auto_arena struct arena *scratch = arena_new(0);
    TRY(names_check(scratch, s));
    TRY(places_make(s));
    buf_put(&j.b, (char[8]){ 0 }, 8);
    json_obj(&j);
    if (s->metadata.n) {
        json_key(&j, S("__metadata__"));
        json_obj(&j);
        for (size_t i = 0; i < s->metadata.n; i++) {
            json_key(&j, s->metadata.v[i].key);
            json_str(&j, s->metadata.v[i].value);
        }
        json_obj_end(&j);
    }
    for (size_t i = 0; i < s->v.n; i++)
        tensor_write(&j, &s->v.v[i]);
    json_obj_end(&j);
    while (j.b.n % SAFETENSORS_ALIGN)
        buf_str(&j.b, S(" "));
    uint64_t n = j.b.n - 8;
    if (n > SAFETENSORS_HEADER_MAX)
        FAIL(TOO_LARGE, "there are too many tensors for one file");
    for (int i = 0; i < 8; i++)
        j.b.p[i] = (char)(n >> (8 * i));
    s->data_at = j.b.n;
    *header = json_get(&j);
    return NULL;
}
