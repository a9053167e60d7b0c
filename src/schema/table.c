/* table: descriptors and what they say of themselves; those made at run time. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include <assert.h>

// clang-format off
const struct type_info type_table[] = {
    [F_BOOL]     = { "boolean",      "true or false",                                 sizeof(bool) },
    [F_I64]      = { "whole number", "a whole number",                                sizeof(int64_t) },
    [F_F64]      = { "number",       "a number",                                      sizeof(double) },
    [F_STR]      = { "text",         "text",                                          sizeof(struct str) },
    [F_ENUM]     = { "choice",       "text",                                          sizeof(int) },
    [F_TIME]     = { "time",         "a time, as in \"2001-05-01T00:00:00Z\"",        sizeof(int64_t) },
    [F_DURATION] = { "duration",     "a duration, as in \"30s\" or \"1h30m\"",        sizeof(int64_t) },
    [F_SIZE]     = { "size",         "a size, as in \"512Mi\" or \"2G\"",             sizeof(int64_t) },
    [F_REF]      = { "name",         "a name",                                        sizeof(struct str) },
    [F_JSON]     = { "JSON",         "JSON",                                          sizeof(struct str) },
    [F_STRS]     = { "list of text", "a list of texts",                               sizeof(struct strs) },
    [F_OBJ]      = { "object",       "an object",                                     0 },
    [F_LIST]     = { "list",         "a list",                                        sizeof(struct list) },
    [F_MAP]      = { "map",          "an object of texts",                            sizeof(struct pairs) },
};
// clang-format on

size_t field_size(const struct field *f)
{
    size_t n = type_table[f->type].size;
    return n ? n : f->sub->size;
}

int64_t len_max_of(const struct field *f)
{
    if (f->len_max > 0)
        return f->len_max;
    if (f->max > 0 && f->type != F_ENUM)
        return (int64_t)f->max;
    switch (f->type) {
    case F_STRS:
    case F_LIST:
    case F_MAP:
        return ITEMS_MAX;
    case F_JSON:
        return JSON_MAX;
    default:
        return TEXT_MAX;
    }
}

bool has_max(const struct field *f)
{
    return f->max >= f->min && (f->max != 0 || f->min != 0) && !isinf(f->max);
}

struct str number_text(struct arena *a, const struct field *f, double v)
{
    int64_t i = v >= 9.2e18 ? INT64_MAX : v <= -9.2e18 ? INT64_MIN : (int64_t)v;
    switch (f->type) {
    case F_TIME:
        return time_text(a, i);
    case F_DURATION:
        return duration_text(a, i);
    case F_SIZE:
        return size_text(a, i);
    default:
        break;
    }
    char t[32];
    return str_dup(a, (struct str){ t, f64_text(v, t) });
}

struct str key_of(const struct field *f, char tmp[KEY_MAX])
{
    if (f->verbatim)
        return f->name;
    assert(f->name.n < KEY_MAX);
    size_t n = 0;
    for (size_t i = 0; i < f->name.n; i++) {
        char c = f->name.p[i];
        if (c == '_' && i > 0 && i + 1 < f->name.n) {
            c = f->name.p[++i];
            if (c >= 'a' && c <= 'z')
                c = (char)(c - 'a' + 'A');
        }
        tmp[n++] = c;
    }
    return (struct str){ tmp, n };
}

struct str field_key(struct arena *a, const struct field *f)
{
    char tmp[KEY_MAX];
    struct str k = key_of(f, tmp);
    return f->verbatim ? k : str_dup(a, k);
}

bool key_is(const struct field *f, struct str json_key)
{
    if (json_key.n > f->name.n)
        return false;
    char tmp[KEY_MAX];
    return str_eq(key_of(f, tmp), json_key);
}

const struct field *schema_field(const struct schema *s, struct str json_key)
{
    for (size_t i = 0; i < s->n; i++)
        if (key_is(&s->fields[i], json_key))
            return &s->fields[i];
    return NULL;
}

bool name_ok(struct str s)
{
    if (s.n == 0 || s.n > 63)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        bool inner = i > 0 && i + 1 < s.n && (c == '-' || c == '_' || c == '.');
        if (!alnum && !inner)
            return false;
    }
    return true;
}

/* ---- made at run time ---- */

struct grown {
    struct schema s; /* first: a struct schema * of ours is one of these */
    struct field *v;
    size_t cap;
};

struct schema *schema_new(struct arena *a, struct str name, const char *doc)
{
    struct grown *g = NEW(a, struct grown);
    g->s.name = str_dup(a, name);
    g->s.doc = doc;
    return &g->s;
}

void schema_add(struct arena *a, struct schema *s, struct field f)
{
    struct grown *g = (struct grown *)s;
    if (s->n == g->cap)
        g->v = vec_grow(a, g->v, &g->cap, s->n + 1, sizeof *g->v);
    f.name = str_dup(a, f.name);
    f.verbatim = true;
    f.offset = s->size;
    g->v[s->n++] = f;
    s->fields = g->v;
    s->size += (field_size(&f) + 7) & ~(size_t)7;
}

/* ---- errors with paths ---- */

struct str clip(struct arena *a, struct str s)
{
    if (s.n <= 60)
        return s;
    size_t n = 57;
    while (n > 0 && ((unsigned char)s.p[n] & 0xC0) == 0x80)
        n--;
    return fmt(a, "%.*s...", (int)n, s.p);
}

static void at_put(struct arena *t, const struct at *at, struct buf *b)
{
    if (at->up)
        at_put(t, at->up, b);
    if (at->index >= 0) {
        buf_fmt(b, "[%lld]", (long long)at->index);
        return;
    }
    char tmp[KEY_MAX];
    struct str key = at->field && !at->key.n ? key_of(at->field, tmp) : at->up ? clip(t, at->key) : at->key;
    if (b->n && key.n)
        buf_put(b, ".", 1);
    buf_str(b, key);
}

err at_fail(const struct at *at, enum err_code code, const char *f, ...)
{
    auto_arena struct arena *t = arena_new(0);
    struct buf path = buf_new(t);
    at_put(t, at, &path);
    va_list ap;
    va_start(ap, f);
    struct str text = vfmt(t, f, ap);
    va_end(ap);
    if (path.n == 0)
        return err_new(code, "%.*s", STR(text));
    struct str p = buf_get(&path);
    return err_field(err_new(code, "%.*s: %.*s", STR(p), STR(text)), p);
}
