// SPDX-License-Identifier: Apache-2.0
/* Rows of the request log: which columns a model has, and a request's rows as lines of JSON, {"c0":…,"c1":…}, by the
 * columns' places. Personal values do not get past here. */
#include "serve/request_log.h"
#include <strings.h>

/* ---- columns ---- */

static const struct {
    struct str name, sql;
} meta[META_COUNT] = {
#define C(name, sql) { S_INIT(#name), S_INIT(#sql) },
    META(C)
#undef C
};

static const char *sql_of(enum tensor_type type)
{
    static const char *const names[] = {
        [TENSOR_F32] = "FLOAT",     [TENSOR_U8] = "UTINYINT",  [TENSOR_I8] = "TINYINT",
        [TENSOR_U16] = "USMALLINT", [TENSOR_I16] = "SMALLINT", [TENSOR_I32] = "INTEGER",
        [TENSOR_I64] = "BIGINT",    [TENSOR_TEXT] = "VARCHAR", [TENSOR_BOOL] = "BOOLEAN",
        [TENSOR_F16] = "FLOAT",     [TENSOR_F64] = "DOUBLE",   [TENSOR_U32] = "UINTEGER",
        [TENSOR_U64] = "UBIGINT",   [TENSOR_BF16] = "FLOAT",
    };
    const char *name = (size_t)type < sizeof names / sizeof *names ? names[type] : NULL;
    return name ? name : "VARCHAR";
}

/* DuckDB does not tell names apart by case. */
static bool name_taken(const struct request_sink *k, struct str name)
{
    for (size_t i = 0; i < k->columns_n; i++)
        if (k->columns[i].name.n == name.n && strncasecmp(k->columns[i].name.p, name.p, name.n) == 0)
            return true;
    return false;
}

static struct str name_free(struct request_sink *k, struct str name)
{
    struct str s = name.n ? name : S("value");
    for (int i = 2; name_taken(k, s); i++)
        s = fmt(k->a, "%.*s_%d", STR(name), i);
    return str_dup(k->a, s);
}

static bool listed(const struct str *v, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(v[i], name))
            return true;
    return false;
}

/* given: its name in the signature, by which it is personal. */
static void column_add(struct request_sink *k, const struct model *m, const struct request_log_spec *spec,
                       struct str given, struct log_column c)
{
    c.personal = listed(m->personal, m->personal_n, given) ||
                 listed(spec->personal.v, spec->personal.n, given);
    c.name = name_free(k, given);
    bool text = c.personal && spec->redact == REDACT_HASH;
    c.sql = text ? S("VARCHAR") : fmt(k->a, "%s%s", sql_of(c.type), c.list ? "[]" : "");
    c.key = fmt(k->a, ",\"c%zu\":", k->columns_n);
    k->columns[k->columns_n++] = c;
}

/* One value a row: [N] or [N, 1]. */
static bool is_scalar(const struct request_sink *k, const struct tensor_spec *t)
{
    return k->batched && t->shaped && t->rank >= 1 && t->rank <= 2 && t->dims[0] < 0 &&
           (t->rank == 1 || t->dims[1] == 1);
}

static bool counts_rows(const struct tensor_spec *v, size_t n)
{
    bool all = n > 0;
    for (size_t i = 0; i < n; i++)
        all = all && v[i].shaped && v[i].rank > 0 && v[i].dims[0] < 0;
    return all;
}

static void tensor_columns(struct request_sink *k, const struct model *m, const struct request_log_spec *spec,
                           bool output)
{
    const struct session_info *info = m->info;
    const struct tensor_spec *v = output ? info->outputs : info->inputs;
    for (size_t i = 0; i < (output ? info->n_outputs : info->n_inputs); i++)
        column_add(k, m, spec, v[i].name,
                   (struct log_column){
                       .output = output, .slot = i, .type = v[i].type, .list = !is_scalar(k, &v[i]) });
}

void columns_make(struct request_sink *k, const struct model *m, const struct request_log_spec *spec)
{
    const struct session_info *info = m->info;
    k->by_rows = m->by_rows && m->features > 0;
    k->batched = counts_rows(info->inputs, info->n_inputs);
    k->columns = NEW_N(k->a, struct log_column,
                       META_COUNT + (k->by_rows ? m->features + m->texts : 0) + info->n_inputs +
                           info->n_outputs);
    for (size_t i = 0; i < META_COUNT; i++)
        k->columns[k->columns_n++] = (struct log_column){ .name = meta[i].name, .sql = meta[i].sql };
    for (size_t i = 0; k->by_rows && i < m->features; i++)
        column_add(k, m, spec, m->names ? m->names[i] : fmt(k->a, "f%zu", i),
                   (struct log_column){ .at = i, .type = TENSOR_F32 });
    for (size_t i = 0; k->by_rows && i < m->texts; i++)
        column_add(k, m, spec, m->text_names ? m->text_names[i] : fmt(k->a, "t%zu", i),
                   (struct log_column){ .slot = 1, .at = i, .type = TENSOR_TEXT });
    if (!k->by_rows)
        tensor_columns(k, m, spec, false);
    tensor_columns(k, m, spec, true);
}

/* ---- values as JSON ---- */

static float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31)
        return float_of_bits(sign | 0x7f800000 | m << 13);
    if (e)
        return float_of_bits(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return sign ? -f : f;
}

/* What JSON has no number for: a missing value, and text that DuckDB reads as a number. */
static bool odd_put(struct buf *b, double v)
{
    if (isfinite(v))
        return false;
    buf_str(b, isnan(v) ? S("null") : v > 0 ? S("\"inf\"") : S("\"-inf\""));
    return true;
}

static void f32_put(struct buf *b, float v)
{
    if (!odd_put(b, v))
        write_f32(b, v);
}

static void text_put(struct buf *b, struct str s)
{
    struct json j = { .b = *b };
    json_str(&j, s);
    *b = j.b;
}

static void element_put(struct buf *b, const struct tensor *t, size_t i)
{
    switch (t->type) {
#define INTEGER(NAME, ctype)                                \
    case TENSOR_##NAME:                                     \
        write_i64(b, (int64_t)((const ctype *)t->data)[i]); \
        return;
        INTEGER(U8, uint8_t)
        INTEGER(I8, int8_t)
        INTEGER(U16, uint16_t)
        INTEGER(I16, int16_t)
        INTEGER(U32, uint32_t)
        INTEGER(I32, int32_t)
        INTEGER(I64, int64_t)
#undef INTEGER
    case TENSOR_U64:
        buf_fmt(b, "%llu", (unsigned long long)((const uint64_t *)t->data)[i]);
        return;
    case TENSOR_BOOL:
        buf_str(b, ((const uint8_t *)t->data)[i] ? S("true") : S("false"));
        return;
    case TENSOR_F32:
        f32_put(b, ((const float *)t->data)[i]);
        return;
    case TENSOR_F16:
        f32_put(b, half(((const uint16_t *)t->data)[i]));
        return;
    case TENSOR_BF16:
        f32_put(b, float_of_bits((uint32_t)((const uint16_t *)t->data)[i] << 16));
        return;
    case TENSOR_F64:
        if (!odd_put(b, ((const double *)t->data)[i]))
            write_f64(b, ((const double *)t->data)[i]);
        return;
    case TENSOR_TEXT:
        text_put(b, ((const struct str *)t->data)[i]);
        return;
    default:
        buf_str(b, S("null"));
    }
}

static void list_put(struct buf *b, const struct tensor *t, size_t from, size_t n)
{
    buf_str(b, S("["));
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_str(b, S(","));
        element_put(b, t, from + i);
    }
    buf_str(b, S("]"));
}

/* The row's part of the tensor; a tensor that has no part for each row is the first row's. */
static void part_put(struct buf *b, const struct taken *t, const struct log_column *c, const struct tensor *x,
                     size_t row)
{
    int64_t n;
    bool parts = x->rank > 0 && x->dims[0] > 0 && (size_t)x->dims[0] == t->r.rows;
    if (!tensor_count(x->dims, x->rank, INT32_MAX, &n) || (!parts && row)) {
        buf_str(b, S("null"));
        return;
    }
    size_t each = parts ? (size_t)n / t->r.rows : (size_t)n;
    if (c->list)
        list_put(b, x, parts ? row * each : 0, each);
    else if (each == 1)
        element_put(b, x, parts ? row : 0);
    else
        buf_str(b, S("null"));
}

static const struct tensor *tensor_of(const struct taken *t, const struct log_column *c)
{
    const struct tensor *v = c->output ? t->out : t->in;
    for (size_t i = 0; i < (c->output ? t->r.outputs : t->r.inputs); i++)
        if (v[i].slot == c->slot)
            return &v[i];
    return NULL;
}

static void column_put(struct buf *b, const struct request_sink *k, const struct taken *t,
                       const struct log_column *c, size_t row)
{
    const struct tensor *x = tensor_of(t, c);
    bool feature = k->by_rows && !c->output;
    if (!x)
        buf_str(b, S("null"));
    else if (feature)
        element_put(b, x, row * (size_t)x->dims[1] + c->at);
    else
        part_put(b, t, c, x, row);
}

/* ---- redaction ---- */

/* HMAC-SHA-256 (RFC 2104) of the value's JSON text, half of it in hex: equal values stay equal, and who has not the
 * key can not try values out. */
static void hash_put(struct buf *b, struct str text, const uint8_t key[32])
{
    auto_arena struct arena *a = arena_new(0);
    uint8_t inner[32], outer[64 + 32], *m = arena_alloc(a, 64 + text.n, 1);
    for (size_t i = 0; i < 64; i++) {
        uint8_t k = i < 32 ? key[i] : 0;
        m[i] = k ^ 0x36;
        outer[i] = k ^ 0x5c;
    }
    memcpy(m + 64, text.p, text.n);
    sha256((struct str){ (const char *)m, 64 + text.n }, inner);
    memcpy(outer + 64, inner, sizeof inner);
    sha256((struct str){ (const char *)outer, sizeof outer }, inner);
    buf_fmt(b, "\"%.*s\"", STR(hex(a, inner, 16)));
}

static void personal_put(struct buf *b, const struct request_sink *k, const struct taken *t,
                         const struct log_column *c, size_t row, const uint8_t key[32])
{
    auto_arena struct arena *a = arena_new(0);
    struct buf text = buf_new(a);
    if (k->redact == REDACT_HASH)
        column_put(&text, k, t, c, row);
    if (!text.n || str_is(buf_get(&text), "null"))
        buf_str(b, S("null"));
    else
        hash_put(b, buf_get(&text), key);
}

/* ---- rows ---- */

/* A key that is not there is NULL. */
static void meta_text(struct buf *b, enum meta_column column, struct str s)
{
    if (!s.n)
        return;
    buf_fmt(b, ",\"c%d\":", column);
    text_put(b, s);
}

static void meta_us(struct buf *b, enum meta_column column, int64_t ns)
{
    buf_fmt(b, ",\"c%d\":", column);
    write_f64(b, (double)ns / 1e3);
}

/* What all rows of a request have in common. */
static void common_put(struct buf *b, const struct request_sink *k, const struct record *r)
{
    meta_text(b, META_request_id, r->request_id);
    meta_text(b, META_id, r->id);
    buf_fmt(b, ",\"c%d\":%lld", META_time, (long long)r->now);
    meta_text(b, META_deployment, k->deployment);
    meta_text(b, META_version, k->version);
    meta_text(b, META_token, r->token);
    if (r->trace[0])
        meta_text(b, META_trace, (struct str){ r->trace, TRACE_ID_TEXT });
    if (r->error)
        meta_text(b, META_error, err_table[r->error].name);
    meta_us(b, META_took_us, r->took_ns);
    meta_us(b, META_input_us, r->input_ns);
    meta_us(b, META_queue_us, r->queue_ns);
    meta_us(b, META_infer_us, r->infer_ns);
    meta_us(b, META_output_us, r->output_ns);
}

static void row_put(struct buf *b, const struct request_sink *k, const struct taken *t, size_t row,
                    const uint8_t key[32])
{
    if (t->row_ids)
        meta_text(b, META_row_id, t->row_ids[row]);
    if (t->event_at)
        buf_fmt(b, ",\"c%d\":%lld", META_event_time, (long long)t->event_at[row]);
    for (size_t i = META_COUNT; i < k->columns_n; i++) {
        const struct log_column *c = &k->columns[i];
        buf_str(b, c->key);
        if (c->personal)
            personal_put(b, k, t, c, row, key);
        else
            column_put(b, k, t, c, row);
    }
}

void rows_write(struct request_sink *k, const struct taken *t, struct str boot, const uint8_t key[32])
{
    struct buf *b = &k->text, common = buf_new(k->text.a);
    common_put(&common, k, &t->r);
    for (size_t row = 0; row < t->r.rows; row++) {
        buf_fmt(b, "{\"c0\":\"%.*s-%llu-%zu\"", STR(boot), (unsigned long long)t->number, row);
        buf_str(b, buf_get(&common));
        row_put(b, k, t, row, key);
        buf_str(b, S("}\n"));
    }
}
