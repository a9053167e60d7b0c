/* sql: the columns of a view over JSON text. A field at its default is not written, so the view puts
 * the default back; objects in objects become columns of their own, "split_method". */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"

struct view {
    struct buf *b;
    enum sql_dialect dialect;
    struct str column;
    bool comma;
};

/* One step of the way to a value. */
struct step {
    const struct step *up;
    const struct field *field;
};

/* The text with each quote c doubled. */
static void put_doubled(struct buf *b, struct str s, char c)
{
    for (size_t i = 0; i < s.n; i++) {
        buf_put(b, s.p + i, 1);
        if (s.p[i] == c)
            buf_put(b, s.p + i, 1);
    }
}

static bool simple(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (i && c >= '0' && c <= '9')))
            return false;
    }
    return s.n > 0;
}

/* A key in quotes, for both SQLite's paths and PostgreSQL's arrays of text, inside an SQL string. */
static void put_quoted_key(struct buf *b, struct str key)
{
    buf_str(b, S("\""));
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] == '"' || key.p[i] == '\\')
            buf_str(b, S("\\"));
        put_doubled(b, str_sub(key, i, i + 1), '\'');
    }
    buf_str(b, S("\""));
}

static void put_path(const struct view *v, const struct step *at)
{
    if (at->up)
        put_path(v, at->up);
    char tmp[KEY_MAX];
    struct str key = key_of(at->field, tmp);
    if (v->dialect == SQL_SQLITE)
        buf_str(v->b, S("."));
    else if (at->up)
        buf_str(v->b, S(","));
    if (simple(key))
        buf_str(v->b, key);
    else
        put_quoted_key(v->b, key);
}

static void put_name(const struct view *v, const struct step *at)
{
    if (at->up) {
        put_name(v, at->up);
        buf_str(v->b, S("_"));
    }
    put_doubled(v->b, at->field->name, '"');
}

static const char *cast(const struct field *f)
{
    switch (f->type) {
    case F_BOOL:
        return "::boolean";
    case F_I64:
        return "::bigint";
    case F_F64:
        return "::double precision";
    default:
        return "";
    }
}

static void put_accessor(const struct view *v, const struct step *at)
{
    if (v->dialect == SQL_SQLITE) {
        buf_fmt(v->b, "json_extract(%.*s,'$", STR(v->column));
        put_path(v, at);
        buf_str(v->b, S("')"));
        return;
    }
    buf_fmt(v->b, "(%.*s::jsonb #>> '{", STR(v->column));
    put_path(v, at);
    buf_fmt(v->b, "}')%s", cast(at->field));
}

/* The default as SQL; empty: the column is null where nothing was given. */
static struct str default_sql(const struct view *v, const struct field *f)
{
    if (f->flags & REQUIRED || f->type == F_OBJ || f->type == F_LIST)
        return S("");
    if (!f->def && f->type != F_BOOL && f->type != F_I64 && f->type != F_ENUM)
        return S("");
    struct arena *a = v->b->a;
    void *value = arena_alloc(a, field_size(f), 16);
    default_set(f, a, value);
    if (f->type == F_BOOL && v->dialect == SQL_SQLITE)
        return *(bool *)value ? S("1") : S("0");
    struct json j = json_new(a);
    value_write(f, &j, value, 0);
    struct str text = json_get(&j);
    if (f->type == F_BOOL || f->type == F_I64 || f->type == F_F64)
        return text;
    struct field bare = *f;
    bare.offset = 0;
    bare.flags = 0;
    if (f->type != F_STRS && f->type != F_MAP)
        text = field_text(a, &bare, value);
    struct buf quoted = buf_new(a);
    buf_str(&quoted, S("'"));
    put_doubled(&quoted, text, '\'');
    buf_str(&quoted, S("'"));
    return buf_get(&quoted);
}

static void put_column(struct view *v, const struct step *at)
{
    if (v->comma)
        buf_str(v->b, S(",\n  "));
    v->comma = true;
    struct str def = default_sql(v, at->field);
    if (def.n)
        buf_str(v->b, S("coalesce("));
    put_accessor(v, at);
    if (def.n)
        buf_fmt(v->b, ",%.*s)", STR(def));
    buf_str(v->b, S(" as \""));
    put_name(v, at);
    buf_str(v->b, S("\""));
}

static void columns(struct view *v, const struct step *up, const struct schema *s)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct field *f = &s->fields[i];
        struct step here = { up, f };
        if (f->flags & SECRET)
            continue;
        if (f->type == F_OBJ)
            columns(v, &here, f->sub);
        else
            put_column(v, &here);
    }
}

void schema_sql_columns(const struct schema *s, enum sql_dialect dialect, struct str json_column,
                        struct buf *b)
{
    struct view v = { .b = b, .dialect = dialect, .column = json_column };
    columns(&v, NULL, s);
}
