/* docs: what a table says of itself: JSON Schema for machines, Markdown for readers. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"

enum { NEST_MAX = 8 }; /* a schema may hold lists of itself; beyond this it is "an object" */

#define NAME_PATTERN "^[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?$"
#define DURATION_PATTERN "^(0|([0-9]+(ms|s|m|h|d|w))+)$"
#define SIZE_PATTERN "^[0-9]+(Ki|Mi|Gi|Ti|k|M|G|T)?$"

static bool has_default(const struct field *f)
{
    if (f->flags & (REQUIRED | SECRET))
        return false;
    return f->def || f->type == F_BOOL || (f->type == F_ENUM && f->values[0][0]);
}

static struct str default_text(const struct field *f, struct arena *a)
{
    void *v = arena_alloc(a, field_size(f), 16);
    default_set(f, a, v);
    struct json j = json_new(a);
    value_write(f, &j, v, 0);
    return json_get(&j);
}

/* ---- JSON Schema ---- */

static void object_json(const struct schema *s, struct json *j, int depth);

static void put_pattern(struct json *j, const char *type, const char *pattern)
{
    json_kstr(j, "type", str_of(type));
    json_kstr(j, "pattern", str_of(pattern));
}

static void put_enum(const struct field *f, struct json *j)
{
    json_kstr(j, "type", S("string"));
    json_key(j, S("enum"));
    json_arr(j);
    for (int i = 0; f->values[i]; i++)
        json_str(j, str_of(f->values[i]));
    json_arr_end(j);
}

/* NAME_PATTERN, or nothing at all where the name may be left empty. */
static void put_name(const struct field *f, struct json *j)
{
    put_pattern(j, "string",
                f->flags & REQUIRED ? NAME_PATTERN : "^([a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?)?$");
    if (f->ref)
        json_kstr(j, "x-kind", str_of(f->ref));
}

static void put_text(const struct field *f, struct json *j)
{
    if (f->is_name || f->type == F_REF) {
        put_name(f, j);
        return;
    }
    json_kstr(j, "type", S("string"));
    if (f->min > 0)
        json_ki64(j, "minLength", f->min > 1 ? 1 : (int64_t)f->min); /* bytes there, characters here */
    json_ki64(j, "maxLength", len_max_of(f));
}

static void put_number(const struct field *f, struct json *j)
{
    json_kstr(j, "type", f->type == F_F64 ? S("number") : S("integer"));
    if ((f->min != 0 || f->max != 0) && !isinf(f->min))
        json_kf64(j, "minimum", f->min);
    if (has_max(f))
        json_kf64(j, "maximum", f->max);
}

static void put_count(const struct field *f, struct json *j, const char *least, const char *most)
{
    if (f->min > 0)
        json_ki64(j, least, (int64_t)f->min);
    json_ki64(j, most, len_max_of(f));
}

static void put_list(const struct field *f, struct json *j, int depth)
{
    json_kstr(j, "type", S("array"));
    json_key(j, S("items"));
    if (f->type == F_LIST) {
        object_json(f->sub, j, depth + 1);
    } else {
        const struct field item = {
            .type = F_STR, .flags = REQUIRED, .is_name = f->is_name || f->ref, .ref = f->ref
        };
        json_obj(j);
        if (f->values)
            put_enum(f, j);
        else
            put_text(&item, j);
        json_obj_end(j);
    }
    put_count(f, j, "minItems", "maxItems");
}

static void put_map(const struct field *f, struct json *j)
{
    json_kstr(j, "type", S("object"));
    json_kraw(j, "additionalProperties", S("{\"type\":[\"string\",\"number\",\"boolean\"]}"));
    put_count(f, j, "minProperties", "maxProperties");
}

static void put_size(struct json *j)
{
    json_kraw(j, "type", S("[\"string\",\"integer\"]"));
    json_kstr(j, "pattern", S(SIZE_PATTERN));
    json_ki64(j, "minimum", 0);
}

static void put_type(const struct field *f, struct json *j, int depth)
{
    switch (f->type) {
    case F_BOOL:
        json_kstr(j, "type", S("boolean"));
        break;
    case F_I64:
    case F_F64:
        put_number(f, j);
        break;
    case F_STR:
    case F_REF:
        put_text(f, j);
        break;
    case F_ENUM:
        put_enum(f, j);
        break;
    case F_TIME:
        json_kstr(j, "type", S("string"));
        json_kstr(j, "format", S("date-time"));
        break;
    case F_DURATION:
        put_pattern(j, "string", DURATION_PATTERN);
        break;
    case F_SIZE:
        put_size(j);
        break;
    case F_JSON:
        break; /* any */
    case F_STRS:
    case F_LIST:
        put_list(f, j, depth);
        break;
    case F_OBJ:
        break; /* the object itself, see field_json */
    case F_MAP:
        put_map(f, j);
        break;
    }
}

static void object_body(const struct schema *s, struct json *j, int depth);

static void field_json(const struct field *f, struct json *j, int depth)
{
    json_obj(j);
    if (f->type == F_OBJ)
        object_body(f->sub, j, depth + 1);
    else
        put_type(f, j, depth);
    if (f->doc)
        json_kstr(j, "description", str_of(f->doc));
    if (has_default(f))
        json_kraw(j, "default", default_text(f, j->b.a));
    if (f->flags & SECRET)
        json_kbool(j, "writeOnly", true);
    if (f->flags & FROZEN)
        json_kbool(j, "x-frozen", true);
    json_obj_end(j);
}

static void required_json(const struct schema *s, struct json *j)
{
    bool any = false;
    for (size_t i = 0; i < s->n; i++) {
        if (!(s->fields[i].flags & REQUIRED))
            continue;
        if (!any) {
            json_key(j, S("required"));
            json_arr(j);
        }
        any = true;
        char tmp[KEY_MAX];
        json_str(j, key_of(&s->fields[i], tmp));
    }
    if (any)
        json_arr_end(j);
}

/* The members of the object's schema but for its description, which a field may give. */
static void object_body(const struct schema *s, struct json *j, int depth)
{
    json_kstr(j, "type", S("object"));
    if (depth > NEST_MAX)
        return;
    json_key(j, S("properties"));
    json_obj(j);
    for (size_t i = 0; i < s->n; i++) {
        char tmp[KEY_MAX];
        json_key(j, key_of(&s->fields[i], tmp));
        field_json(&s->fields[i], j, depth);
    }
    json_obj_end(j);
    required_json(s, j);
    json_kbool(j, "additionalProperties", false);
}

static void object_json(const struct schema *s, struct json *j, int depth)
{
    json_obj(j);
    object_body(s, j, depth);
    if (s->doc)
        json_kstr(j, "description", str_of(s->doc));
    json_obj_end(j);
}

void schema_json_schema(const struct schema *s, struct json *j)
{
    object_json(s, j, 0);
}

/* ---- Markdown ---- */

/* Text in a cell: bars escaped, no breaks of lines. */
static void put_cell(struct buf *b, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == '|')
            buf_str(b, S("\\|"));
        else
            buf_put(b, s.p[i] == '\n' ? " " : s.p + i, 1);
    }
}

static void put_bounds(const struct field *f, struct buf *b)
{
    if (f->min == 0 && f->max == 0)
        return;
    struct str least = number_text(b->a, f, f->min), most = number_text(b->a, f, f->max);
    if (has_max(f))
        buf_fmt(b, ", %.*s to %.*s", STR(least), STR(most));
    else
        buf_fmt(b, ", at least %.*s", STR(least));
}

static void put_choices(const struct field *f, struct buf *b)
{
    const char *comma = "";
    for (int i = 0; f->values[i]; i++) {
        if (f->values[i][0]) {
            buf_fmt(b, "%s`%s`", comma, f->values[i]);
            comma = ", ";
        }
    }
}

static void put_type_cell(const struct field *f, struct buf *b)
{
    switch (f->type) {
    case F_ENUM:
        buf_str(b, S("one of "));
        put_choices(f, b);
        return;
    case F_REF:
        buf_fmt(b, "name of %s %s", f->ref && strchr("AEIOU", f->ref[0]) ? "an" : "a",
                f->ref ? f->ref : "resource");
        return;
    case F_STR:
        buf_str(b, f->is_name ? S("name") : S("text"));
        if (!f->is_name)
            buf_fmt(b, ", at most %lld bytes", (long long)len_max_of(f));
        return;
    case F_STRS:
        if (f->values) {
            buf_str(b, S("list of "));
            put_choices(f, b);
        } else {
            buf_str(b, f->ref || f->is_name ? S("list of names") : S("list of texts"));
        }
        break;
    case F_LIST:
        buf_str(b, S("list of objects"));
        break;
    case F_MAP:
        buf_str(b, S("map of texts"));
        break;
    default:
        buf_str(b, str_of(type_table[f->type].name));
        if (f->type != F_BOOL && f->type != F_JSON && f->type != F_OBJ)
            put_bounds(f, b);
        return;
    }
    buf_fmt(b, ", at most %lld", (long long)len_max_of(f));
}

static void put_notes(const struct field *f, struct buf *b)
{
    if (f->doc)
        put_cell(b, str_of(f->doc));
    if (f->flags & FROZEN)
        buf_str(b, S(" Set at creation."));
    if (f->flags & SECRET)
        buf_str(b, S(" Never read back."));
    if (f->flags & PERSONAL)
        buf_str(b, S(" Personal: masked for those who may not see it."));
}

static void put_default_cell(const struct field *f, struct buf *b)
{
    if (f->flags & REQUIRED) {
        buf_str(b, S("required"));
    } else if (has_default(f)) {
        struct str text = default_text(f, b->a);
        bool quoted = text.n > 2 && text.p[0] == '"';
        buf_str(b, S("`"));
        put_cell(b, quoted ? str_sub(text, 1, text.n - 1) : text);
        buf_str(b, S("`"));
    }
}

static void put_row(const struct field *f, struct buf *b)
{
    char tmp[KEY_MAX];
    buf_str(b, S("| `"));
    put_cell(b, key_of(f, tmp));
    buf_str(b, S("` | "));
    put_type_cell(f, b);
    buf_str(b, S(" | "));
    put_default_cell(f, b);
    buf_str(b, S(" | "));
    put_notes(f, b);
    buf_str(b, S(" |\n"));
}

static void markdown(const struct schema *s, struct buf *b, struct str title, const char *doc, int depth)
{
    buf_fmt(b, "### `%.*s`\n\n", STR(title));
    if (doc)
        buf_fmt(b, "%s\n\n", doc);
    buf_str(b, S("| Field | Type | Default | |\n|---|---|---|---|\n"));
    for (size_t i = 0; i < s->n; i++)
        put_row(&s->fields[i], b);
    buf_str(b, S("\n"));
    for (size_t i = 0; i < s->n && depth < NEST_MAX; i++) {
        const struct field *f = &s->fields[i];
        if (!f->sub || f->sub == s) /* a list of itself is in this table already */
            continue;
        char tmp[KEY_MAX];
        struct str below = fmt(b->a, "%.*s.%.*s%s", STR(title), STR(key_of(f, tmp)),
                               f->type == F_LIST ? "[]" : "");
        markdown(f->sub, b, below, f->sub->doc, depth + 1);
    }
}

void schema_markdown(const struct schema *s, struct buf *b, struct str title)
{
    markdown(s, b, title, s->doc, 0);
}
