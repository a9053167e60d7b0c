/* read: JSON → struct, every rule of the table checked on the way. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include <assert.h>
#include <stdlib.h>

struct reader {
    struct arena *a;
    unsigned flags;
    int depth;
};
typedef err value_reader(struct reader *, const struct at *, const struct field *, yyjson_val *, void *dst);
static value_reader read_value;
static err read_object(struct reader *r, const struct at *at, const struct schema *s, yyjson_val *in,
                       void *out);

/* An arena that would overflow aborts: what the user's text makes us allocate is asked for first. */
static err room(struct arena *a, const struct at *at, size_t n)
{
    size_t left = arena_left(a);
    if (left < 1024 || n > (left - 1024) / 2)
        return at_fail(at, TOO_LARGE, "too large for the memory of one request");
    return NULL;
}

/* ---- what came, in words ---- */

static struct str came(struct arena *t, yyjson_val *v)
{
    char n[32];
    switch (yyjson_get_type(v)) {
    case YYJSON_TYPE_NULL:
        return S("null");
    case YYJSON_TYPE_BOOL:
        return yyjson_get_bool(v) ? S("true") : S("false");
    case YYJSON_TYPE_ARR:
        return S("a list");
    case YYJSON_TYPE_OBJ:
        return S("an object");
    case YYJSON_TYPE_STR: {
        struct str c = clip(t, json_text(v));
        return fmt(t, "'%.*s'", STR(c));
    }
    default:
        break;
    }
    if (yyjson_is_uint(v))
        return fmt(t, "%llu", (unsigned long long)yyjson_get_uint(v));
    if (yyjson_is_sint(v))
        return fmt(t, "%lld", (long long)yyjson_get_sint(v));
    return str_dup(t, (struct str){ n, f64_text(yyjson_get_real(v), n) });
}

static bool hidden(const struct at *at)
{
    for (; at; at = at->up)
        if (at->field && at->field->flags & (SECRET | PERSONAL))
            return true;
    return false;
}

static err wrong_type(const struct at *at, yyjson_val *in, const char *want)
{
    auto_arena struct arena *t = arena_new(0);
    struct str c = hidden(at) ? S("the value") : came(t, in);
    return at_fail(at, INVALID, "%.*s is not %s", STR(c), want);
}

static err wrong_text(const struct at *at, struct str in, const char *want)
{
    auto_arena struct arena *t = arena_new(0);
    struct str c = hidden(at) ? S("the value") : fmt(t, "'%.*s'", STR(clip(t, in)));
    return at_fail(at, INVALID, "%.*s is not %s", STR(c), want);
}

/* ---- numbers ---- */

static err out_of_range(const struct at *at, const struct field *f, double v, const char *what, double bound)
{
    auto_arena struct arena *t = arena_new(0);
    struct str was = hidden(at) ? S("the value") : number_text(t, f, v), is = number_text(t, f, bound);
    return at_fail(at, INVALID, "%.*s is %s of %.*s", STR(was), what, STR(is));
}

static err in_range(const struct at *at, const struct field *f, double v)
{
    if (f->min == 0 && f->max == 0)
        return NULL;
    if (v < f->min)
        return out_of_range(at, f, v, "under the minimum", f->min);
    if (has_max(f) && v > f->max)
        return out_of_range(at, f, v, "over the maximum", f->max);
    return NULL;
}

static err set_i64(const struct at *at, const struct field *f, int64_t v, void *dst)
{
    TRY(in_range(at, f, (double)v));
    *(int64_t *)dst = v;
    return NULL;
}

static err set_f64(const struct at *at, const struct field *f, double v, void *dst)
{
    TRY(in_range(at, f, v));
    *(double *)dst = v;
    return NULL;
}

/* A JSON number without a fraction; 3.0 and 1e3 count as whole. */
static err whole(const struct at *at, const struct field *f, yyjson_val *in, int64_t *out)
{
    if (yyjson_is_sint(in) || (yyjson_is_uint(in) && yyjson_get_uint(in) <= INT64_MAX)) {
        *out = yyjson_get_sint(in);
        return NULL;
    }
    if (!yyjson_is_num(in))
        return wrong_type(at, in, type_table[f->type].want);
    if (yyjson_is_uint(in))
        return wrong_type(at, in, "a whole number of 64 bits");
    double v = yyjson_get_real(in);
    if (v != floor(v))
        return wrong_type(at, in, "a whole number");
    if (fabs(v) > 9007199254740992.0)
        return wrong_type(at, in, "a whole number of 64 bits");
    *out = (int64_t)v;
    return NULL;
}

static err read_bool(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    (void)r;
    if (!yyjson_is_bool(in))
        return wrong_type(at, in, type_table[f->type].want);
    *(bool *)dst = yyjson_get_bool(in);
    return NULL;
}

static err read_i64(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    (void)r;
    int64_t v;
    TRY(whole(at, f, in, &v));
    return set_i64(at, f, v, dst);
}

static err read_f64(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    (void)r;
    if (!yyjson_is_num(in))
        return wrong_type(at, in, type_table[f->type].want);
    return set_f64(at, f, yyjson_get_num(in), dst);
}

/* ---- text ---- */

static err text_ok(const struct at *at, struct str s)
{
    if (!str_utf8_ok(s))
        return at_fail(at, INVALID, "the text is not valid UTF-8");
    if (str_has_nul(s))
        return at_fail(at, INVALID, "the text has a NUL character in it");
    return NULL;
}

static err length_ok(const struct at *at, const struct field *f, size_t n, const char *unit)
{
    if ((int64_t)n > len_max_of(f))
        return at_fail(at, TOO_LARGE, "%zu %s, over the limit of %lld", n, unit, (long long)len_max_of(f));
    if ((double)n < f->min)
        return at_fail(at, INVALID, "%zu %s, under the minimum of %.0f", n, unit, f->min);
    return NULL;
}

static err name_check(const struct at *at, struct str s)
{
    if (name_ok(s))
        return NULL;
    return err_hint(wrong_text(at, s, "a name"),
                    "a name is up to 63 of a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends");
}

static bool is_name(const struct field *f)
{
    return f->is_name || f->type == F_REF || (f->type == F_STRS && f->ref);
}

static err set_str(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    TRY(text_ok(at, in));
    TRY(length_ok(at, f, in.n, "bytes"));
    if (is_name(f) && (in.n || f->flags & REQUIRED)) /* "" is: not given */
        TRY(name_check(at, in));
    TRY(room(a, at, in.n));
    *(struct str *)dst = str_dup(a, in);
    return NULL;
}

static err not_a_choice(const struct at *at, const struct field *f, struct str in)
{
    auto_arena struct arena *t = arena_new(0);
    VEC(struct str) names = { 0 };
    for (int i = 0; f->values[i]; i++)
        if (f->values[i][0])
            push(t, &names, str_of(f->values[i]));
    struct str list = str_join(t, names.v, names.n, S(", "));
    err e = wrong_text(at, in, fmtz(t, "one of %.*s", STR(list)));
    struct str near = in.n <= 64 ? str_nearest(in, names.v, names.n) : S("");
    return near.n ? err_hint(e, "did you mean '%.*s'?", STR(near)) : e;
}

static err choice(const struct at *at, const struct field *f, struct str in, int *out)
{
    for (int i = 0; f->values[i]; i++) {
        if (!str_eq(str_of(f->values[i]), in))
            continue;
        *out = i;
        return NULL;
    }
    return not_a_choice(at, f, in);
}

static err set_enum(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    return choice(at, f, in, dst);
}

static err set_time(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    int64_t us;
    if (!time_parse(in, &us))
        return wrong_text(at, in, type_table[f->type].want);
    return set_i64(at, f, us, dst);
}

static err set_duration(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    int64_t ms = 0;
    if (!str_is(in, "0") && (!duration_parse(in, &ms) || ms < 0))
        return wrong_text(at, in, type_table[f->type].want);
    return set_i64(at, f, ms, dst);
}

static err set_size(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    int64_t bytes;
    if (!size_parse(in, &bytes) || bytes < 0)
        return wrong_text(at, in, type_table[f->type].want);
    return set_i64(at, f, bytes, dst);
}

static err set_bool(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    if (!str_is(in, "true") && !str_is(in, "false"))
        return wrong_text(at, in, type_table[f->type].want);
    *(bool *)dst = str_is(in, "true");
    return NULL;
}

static err set_i64_text(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    int64_t v;
    if (!str_i64(in, &v))
        return wrong_text(at, in, type_table[f->type].want);
    return set_i64(at, f, v, dst);
}

static err set_f64_text(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    (void)a;
    double v;
    if (!str_f64(in, &v) || !isfinite(v))
        return wrong_text(at, in, type_table[f->type].want);
    return set_f64(at, f, v, dst);
}

typedef err text_setter(struct arena *, const struct at *, const struct field *, struct str, void *dst);

static err read_text(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    static text_setter *const set[] = {
        [F_STR] = set_str,   [F_REF] = set_str,           [F_ENUM] = set_enum,
        [F_TIME] = set_time, [F_DURATION] = set_duration, [F_SIZE] = set_size
    };
    if (!yyjson_is_str(in))
        return wrong_type(at, in, type_table[f->type].want);
    return set[f->type](r->a, at, f, json_text(in), dst);
}

static err read_duration(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in,
                         void *dst)
{
    if (yyjson_is_num(in) && yyjson_get_num(in) == 0)
        return set_i64(at, f, 0, dst);
    return read_text(r, at, f, in, dst);
}

static err read_size(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    if (!yyjson_is_num(in))
        return read_text(r, at, f, in, dst);
    int64_t v;
    TRY(whole(at, f, in, &v));
    if (v < 0)
        return wrong_type(at, in, type_table[f->type].want);
    return set_i64(at, f, v, dst);
}

/* ---- containers ---- */

static err read_json(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    size_t n = 0;
    char *text = yyjson_val_write(in, YYJSON_WRITE_NOFLAG, &n);
    if (!text)
        return at_fail(at, INVALID, "the value cannot be kept as JSON text");
    err e = length_ok(at, f, n, "bytes");
    if (!e)
        e = room(r->a, at, n);
    if (!e)
        *(struct str *)dst = str_dup(r->a, (struct str){ text, n });
    free(text);
    return e;
}

/* Items of STRS have the bounds of a text of their own; len_max, min and max are the list's. */
static err set_item(struct reader *r, const struct at *at, const struct field *f, struct str in,
                    struct str *out)
{
    if (f->values) {
        int i;
        TRY(choice(at, f, in, &i));
        *out = str_of(f->values[i]);
        return NULL;
    }
    const struct field item = { .type = F_STR };
    if (is_name(f))
        TRY(name_check(at, in));
    return set_str(r->a, at, &item, in, out);
}

static err read_strs(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    if (!yyjson_is_arr(in))
        return wrong_type(at, in, type_table[f->type].want);
    size_t n = yyjson_arr_size(in), i, max;
    TRY(length_ok(at, f, n, "items"));
    TRY(room(r->a, at, n * sizeof(struct str)));
    struct strs list = { .v = NEW_N(r->a, struct str, n), .cap = n };
    yyjson_val *item;
    yyjson_arr_foreach (in, i, max, item) {
        struct at here = AT_ITEM(at, i);
        if (!yyjson_is_str(item))
            return wrong_type(&here, item, "text");
        TRY(set_item(r, &here, f, json_text(item), &list.v[list.n]));
        list.n++;
    }
    *(struct strs *)dst = list;
    return NULL;
}

static err read_sub(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    return read_object(r, at, f->sub, in, dst);
}

static err read_list(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    if (!yyjson_is_arr(in))
        return wrong_type(at, in, type_table[f->type].want);
    size_t n = yyjson_arr_size(in), i, max;
    TRY(length_ok(at, f, n, "items"));
    TRY(room(r->a, at, arena_mul(n, f->sub->size)));
    char *v = arena_alloc(r->a, arena_mul(n, f->sub->size), 16);
    yyjson_val *item;
    yyjson_arr_foreach (in, i, max, item) {
        struct at here = AT_ITEM(at, i);
        if (!yyjson_is_obj(item))
            return wrong_type(&here, item, "an object");
        TRY(read_object(r, &here, f->sub, item, v + i * f->sub->size));
    }
    *(struct list *)dst = (struct list){ v, n };
    return NULL;
}

static err pair_value(struct reader *r, const struct at *at, yyjson_val *in, struct str *out)
{
    const struct field text = { .type = F_STR };
    if (yyjson_is_str(in))
        return set_str(r->a, at, &text, json_text(in), out);
    if (!yyjson_is_num(in) && !yyjson_is_bool(in))
        return wrong_type(at, in, "text");
    auto_arena struct arena *t = arena_new(0);
    return set_str(r->a, at, &text, came(t, in), out);
}

static err pair_key(struct reader *r, const struct at *at, struct str in, struct str *out)
{
    const struct field key = { .type = F_STR, .min = 1, .len_max = 256 };
    return set_str(r->a, at, &key, in, out);
}

static err read_map(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    if (!yyjson_is_obj(in))
        return wrong_type(at, in, type_table[f->type].want);
    size_t n = yyjson_obj_size(in), i, max;
    TRY(length_ok(at, f, n, "keys"));
    TRY(room(r->a, at, n * sizeof(struct pair)));
    struct pairs map = { .v = NEW_N(r->a, struct pair, n), .cap = n };
    yyjson_val *k, *v;
    yyjson_obj_foreach (in, i, max, k, v) {
        struct at here = AT_KEY(at, json_text(k));
        TRY(pair_key(r, &here, here.key, &map.v[map.n].key));
        TRY(pair_value(r, &here, v, &map.v[map.n].value));
        map.n++;
    }
    *(struct pairs *)dst = map;
    return NULL;
}

static err read_value(struct reader *r, const struct at *at, const struct field *f, yyjson_val *in, void *dst)
{
    static value_reader *const read[] = {
        [F_BOOL] = read_bool, [F_I64] = read_i64,   [F_F64] = read_f64,           [F_STR] = read_text,
        [F_ENUM] = read_text, [F_TIME] = read_text, [F_DURATION] = read_duration, [F_SIZE] = read_size,
        [F_REF] = read_text,  [F_JSON] = read_json, [F_STRS] = read_strs,         [F_OBJ] = read_sub,
        [F_LIST] = read_list, [F_MAP] = read_map,
    };
    return read[f->type](r, at, f, in, dst);
}

/* ---- objects ---- */

static err unknown(const struct at *at, const struct schema *s)
{
    auto_arena struct arena *t = arena_new(0);
    VEC(struct str) names = { 0 };
    for (size_t i = 0; i < s->n; i++)
        push(t, &names, field_key(t, &s->fields[i]));
    err e = at_fail(at, INVALID, "there is no such field");
    struct str near = at->key.n <= 64 ? str_nearest(at->key, names.v, names.n) : S("");
    if (near.n)
        return err_hint(e, "did you mean '%.*s'?", STR(near));
    struct str list = str_join(t, names.v, names.n < 20 ? names.n : 20, S(", "));
    return err_hint(e, "the fields are %.*s%s", STR(list), names.n > 20 ? ", ..." : "");
}

/* Looks from where the last one was found: keys mostly come in the table's order. */
static const struct field *find(const struct schema *s, struct str key, size_t *next)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = *next + i < s->n ? *next + i : *next + i - s->n;
        if (key_is(&s->fields[at], key)) {
            *next = at + 1 < s->n ? at + 1 : 0;
            return &s->fields[at];
        }
    }
    return NULL;
}

struct seen {
    uint64_t few[4], *bits;
};
static bool seen_get(const struct seen *seen, size_t i)
{
    return seen->bits[i / 64] >> (i % 64) & 1;
}

static err read_key(struct reader *r, const struct at *at, const struct schema *s, yyjson_val *k,
                    yyjson_val *v, size_t *next, struct seen *seen, void *out)
{
    const struct field *f = find(s, json_text(k), next);
    if (!f) {
        struct at bad = AT_KEY(at, json_text(k));
        return r->flags & READ_LENIENT ? NULL : unknown(&bad, s);
    }
    if (yyjson_is_null(v))
        return NULL;
    struct at here = AT_FIELD(at, f);
    size_t i = (size_t)(f - s->fields);
    if (seen_get(seen, i))
        return at_fail(&here, INVALID, "given twice");
    seen->bits[i / 64] |= 1ULL << (i % 64);
    return read_value(r, &here, f, v, (char *)out + f->offset);
}

static err read_keys(struct reader *r, const struct at *at, const struct schema *s, yyjson_val *in, void *out)
{
    struct seen seen = { .bits = seen.few };
    if (s->n > 256)
        seen.bits = NEW_N(r->a, uint64_t, s->n / 64 + 1);
    size_t i, max, next = 0;
    yyjson_val *k, *v;
    if (in) /* yyjson_obj_foreach steps on from NULL */
        yyjson_obj_foreach (in, i, max, k, v)
            TRY(read_key(r, at, s, k, v, &next, &seen, out));
    for (i = 0; i < s->n && !(r->flags & READ_PARTIAL); i++) {
        if (!(s->fields[i].flags & REQUIRED) || seen_get(&seen, i))
            continue;
        struct at here = AT_FIELD(at, &s->fields[i]);
        return at_fail(&here, INVALID, "this field is required");
    }
    return NULL;
}

static err read_object(struct reader *r, const struct at *at, const struct schema *s, yyjson_val *in,
                       void *out)
{
    if (in && !yyjson_is_null(in) && !yyjson_is_obj(in))
        return wrong_type(at, in, "an object");
    if (r->depth >= DEPTH_MAX)
        return at_fail(at, TOO_LARGE, "nested more than %d deep", DEPTH_MAX);
    TRY(room(r->a, at, 4096)); /* what defaults take at most */
    schema_defaults(s, r->a, out);
    r->depth++;
    err e = read_keys(r, at, s, yyjson_is_obj(in) ? in : NULL, out);
    r->depth--;
    return e;
}

err schema_read(const struct schema *s, struct arena *a, struct str path, yyjson_val *in, unsigned flags,
                void *out)
{
    struct reader r = { .a = a, .flags = flags };
    struct at root = AT_ROOT(path);
    return read_object(&r, &root, s, in, out);
}

err schema_read_text(const struct schema *s, struct arena *a, struct str path, struct str text,
                     unsigned flags, void *out)
{
    yyjson_doc *d;
    TRY(json_doc(text, &d));
    err e = schema_read(s, a, path, yyjson_doc_get_root(d), flags, out); /* copies what it keeps */
    yyjson_doc_free(d);
    return e;
}

/* ---- from text, and defaults ---- */

static err set_json_text(struct arena *a, const struct at *at, const struct field *f, struct str in,
                         void *dst)
{
    yyjson_doc *d;
    err e = json_doc(in, &d);
    if (e)
        return at_fail(at, e->code, "%.*s", STR(e->text));
    struct reader r = { .a = a };
    e = read_value(&r, at, f, yyjson_doc_get_root(d), dst);
    yyjson_doc_free(d);
    return e;
}

static err set_strs(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    struct reader r = { .a = a };
    struct strs list = { 0 };
    for (struct str part; str_cut(&in, ',', &part);) {
        struct at here = AT_ITEM(at, list.n);
        struct str item;
        TRY(set_item(&r, &here, f, str_trim(part), &item));
        push(a, &list, item);
        if ((int64_t)list.n > len_max_of(f))
            break;
    }
    TRY(length_ok(at, f, list.n, "items"));
    *(struct strs *)dst = list;
    return NULL;
}

static bool map_has(const struct pairs *map, struct str key)
{
    for (size_t i = 0; i < map->n; i++)
        if (str_eq(map->v[i].key, key))
            return true;
    return false;
}

static err set_map(struct arena *a, const struct at *at, const struct field *f, struct str in, void *dst)
{
    struct reader r = { .a = a };
    const struct field text = { .type = F_STR };
    struct pairs map = { 0 };
    for (struct str part; str_cut(&in, ',', &part);) {
        size_t eq = str_find(part, '=');
        if (eq == part.n)
            return wrong_text(at, part, "key=value");
        struct pair p;
        struct at here = AT_KEY(at, str_trim(str_sub(part, 0, eq)));
        TRY(pair_key(&r, &here, here.key, &p.key));
        if (map_has(&map, p.key))
            return at_fail(&here, INVALID, "given twice");
        TRY(set_str(a, &here, &text, str_trim(str_sub(part, eq + 1, part.n)), &p.value));
        push(a, &map, p);
        if ((int64_t)map.n > len_max_of(f))
            break;
    }
    TRY(length_ok(at, f, map.n, "keys"));
    *(struct pairs *)dst = map;
    return NULL;
}

err value_set_text(const struct field *f, struct arena *a, const struct at *at, struct str text, void *dst)
{
    static text_setter *const set[] = {
        [F_BOOL] = set_bool,         [F_I64] = set_i64_text, [F_F64] = set_f64_text,
        [F_STR] = set_str,           [F_ENUM] = set_enum,    [F_TIME] = set_time,
        [F_DURATION] = set_duration, [F_SIZE] = set_size,    [F_REF] = set_str,
        [F_JSON] = set_json_text,    [F_STRS] = set_strs,    [F_OBJ] = set_json_text,
        [F_LIST] = set_json_text,    [F_MAP] = set_map,
    };
    return set[f->type](a, at, f, text, dst);
}

err field_set_text(const struct field *f, struct arena *a, struct str path, struct str text, void *obj)
{
    struct at at = { .field = f, .key = path, .index = -1 };
    return value_set_text(f, a, &at, text, (char *)obj + f->offset);
}

static void def_set(const struct field *f, struct arena *a, void *dst)
{
    if (f->type == F_STR || f->type == F_REF) { /* borrowed: a default is as old as its table */
        *(struct str *)dst = str_of(f->def);
        return;
    }
    struct at at = AT_FIELD(NULL, f);
    err e = value_set_text(f, a, &at, str_of(f->def), dst);
    if (e && e->code == INVALID &&
        !f->verbatim) { /* a mistake in a table; the first test that reads it ends here */
        log_err("schema.default-wrong", e);
        abort();
    }
}

void default_set(const struct field *f, struct arena *a, void *dst)
{
    memset(dst, 0, field_size(f));
    if (f->def)
        def_set(f, a, dst);
    else if (f->type == F_F64)
        *(double *)dst = NAN;
    else if (f->type == F_OBJ)
        schema_defaults(f->sub, a, dst);
}

void schema_defaults(const struct schema *s, struct arena *a, void *out)
{
    memset(out, 0, s->size);
    for (size_t i = 0; i < s->n; i++)
        default_set(&s->fields[i], a, (char *)out + s->fields[i].offset);
}
