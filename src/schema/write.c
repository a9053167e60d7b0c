/* write: struct → JSON, cells of tables, and comparison of two structs. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include <assert.h>

/* ---- the same? ---- */

static bool objects_same(const struct schema *s, const void *x, const void *y)
{
    for (size_t i = 0; i < s->n; i++) {
        size_t at = s->fields[i].offset;
        if (!value_same(&s->fields[i], (const char *)x + at, (const char *)y + at))
            return false;
    }
    return true;
}

static bool strs_same(const struct strs *x, const struct strs *y)
{
    if (x->n != y->n)
        return false;
    for (size_t i = 0; i < x->n; i++)
        if (!str_eq(x->v[i], y->v[i]))
            return false;
    return true;
}

static bool pairs_same(const struct pairs *x, const struct pairs *y)
{
    if (x->n != y->n)
        return false;
    for (size_t i = 0; i < x->n; i++)
        if (!str_eq(x->v[i].key, y->v[i].key) || !str_eq(x->v[i].value, y->v[i].value))
            return false;
    return true;
}

static bool lists_same(const struct schema *s, const struct list *x, const struct list *y)
{
    if (x->n != y->n)
        return false;
    for (size_t i = 0; i < x->n; i++)
        if (!objects_same(s, (const char *)x->v + i * s->size, (const char *)y->v + i * s->size))
            return false;
    return true;
}

bool value_same(const struct field *f, const void *x, const void *y)
{
    switch (f->type) {
    case F_STR:
    case F_REF:
    case F_JSON:
        return str_eq(*(const struct str *)x, *(const struct str *)y);
    case F_STRS:
        return strs_same(x, y);
    case F_MAP:
        return pairs_same(x, y);
    case F_OBJ:
        return objects_same(f->sub, x, y);
    case F_LIST:
        return lists_same(f->sub, x, y);
    case F_F64:
        if (isnan(*(const double *)x) && isnan(*(const double *)y))
            return true; /* else bit for bit: -0 is not 0 */
        break;
    default:
        break;
    }
    return memcmp(x, y, field_size(f)) == 0;
}

bool value_empty(const struct field *f, const void *v)
{
    switch (f->type) {
    case F_F64:
        return isnan(*(const double *)v);
    case F_TIME:
        return *(const int64_t *)v == 0;
    case F_ENUM:
        return !f->values[*(const int *)v][0];
    case F_STR:
    case F_REF:
    case F_JSON:
        return ((const struct str *)v)->n == 0;
    default:
        return false;
    }
}

/* An object left out by the user cannot be written as one: its required fields have no values. */
static bool needs_user(const struct field *f)
{
    for (size_t i = 0; f->type == F_OBJ && i < f->sub->n; i++)
        if (f->sub->fields[i].flags & REQUIRED)
            return true;
    return false;
}

bool value_is_default(const struct field *f, struct arena *a, const void *v)
{
    if (f->type == F_OBJ && !f->def) {
        for (size_t i = 0; i < f->sub->n; i++)
            if (!value_is_default(&f->sub->fields[i], a, (const char *)v + f->sub->fields[i].offset))
                return false;
        return true;
    }
    _Alignas(16) char few[64];
    size_t n = field_size(f);
    void *def = n <= sizeof few ? few : arena_alloc(a, n, 16);
    default_set(f, a, def);
    return value_same(f, def, v);
}

/* ---- JSON ---- */

static void write_bool(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    json_bool(j, *(const bool *)v);
}

static void write_i64(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    json_i64(j, *(const int64_t *)v);
}

static void write_f64(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    json_f64(j, *(const double *)v);
}

static void write_str(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    json_str(j, *(const struct str *)v);
}

static struct str enum_name(const struct field *f, int i)
{
    int n = 0;
    while (f->values[n])
        n++;
    assert(i >= 0 && i < n);
    return str_of(f->values[i]);
}

static void write_enum(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)flags;
    json_str(j, enum_name(f, *(const int *)v));
}

/* Times, durations, sizes: as people write them. */
static struct str unit_text(const struct field *f, struct arena *a, int64_t v)
{
    if (f->type == F_TIME)
        return time_text(a, v);
    if (f->type == F_SIZE)
        return size_text(a, v);
    return duration_text(a, v);
}

static void write_unit(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)flags;
    json_str(j, unit_text(f, j->b.a, *(const int64_t *)v));
}

static void write_raw(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    json_raw(j, *(const struct str *)v);
}

static void write_strs(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    const struct strs *list = v;
    json_arr(j);
    for (size_t i = 0; i < list->n; i++)
        json_str(j, list->v[i]);
    json_arr_end(j);
}

static void write_map(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    (void)f, (void)flags;
    const struct pairs *map = v;
    json_obj(j);
    for (size_t i = 0; i < map->n; i++) {
        json_key(j, map->v[i].key);
        json_str(j, map->v[i].value);
    }
    json_obj_end(j);
}

static void write_sub(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    schema_write(f->sub, j, v, flags);
}

static void write_list(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    const struct list *list = v;
    json_arr(j);
    for (size_t i = 0; i < list->n; i++)
        schema_write(f->sub, j, (const char *)list->v + i * f->sub->size, flags);
    json_arr_end(j);
}

void value_write(const struct field *f, struct json *j, const void *v, unsigned flags)
{
    static void (*const write[])(const struct field *, struct json *, const void *, unsigned) = {
        [F_BOOL] = write_bool, [F_I64] = write_i64,   [F_F64] = write_f64,       [F_STR] = write_str,
        [F_ENUM] = write_enum, [F_TIME] = write_unit, [F_DURATION] = write_unit, [F_SIZE] = write_unit,
        [F_REF] = write_str,   [F_JSON] = write_raw,  [F_STRS] = write_strs,     [F_OBJ] = write_sub,
        [F_LIST] = write_list, [F_MAP] = write_map,
    };
    write[f->type](f, j, v, flags);
}

/* Whether a field is written at all. */
static bool wanted(const struct field *f, struct arena *a, const void *v, unsigned flags)
{
    if (f->flags & SECRET && !(flags & WRITE_SECRETS))
        return false;
    if (f->flags & REQUIRED)
        return true;
    if (flags & WRITE_DEFAULTS && !value_empty(f, v) && !needs_user(f))
        return true;
    return !value_is_default(f, a, v);
}

void schema_write(const struct schema *s, struct json *j, const void *obj, unsigned flags)
{
    json_obj(j);
    for (size_t i = 0; i < s->n; i++) {
        const struct field *f = &s->fields[i];
        const void *v = (const char *)obj + f->offset;
        if (!wanted(f, j->b.a, v, flags))
            continue;
        char tmp[KEY_MAX];
        json_key(j, key_of(f, tmp));
        bool text = f->type == F_STR || (f->type == F_TIME && f->def) || f->type == F_ENUM;
        if (f->flags & PERSONAL && !(flags & WRITE_PERSONAL))
            json_str(j, S("***"));
        else if (value_empty(f, v) && !text)
            json_null(j);
        else
            value_write(f, j, v, flags);
    }
    json_obj_end(j);
}

struct str schema_text(const struct schema *s, struct arena *a, const void *obj, unsigned flags)
{
    struct json j = json_new(a);
    schema_write(s, &j, obj, flags);
    return json_get(&j);
}

/* ---- cells ---- */

static struct str map_text(struct arena *a, const struct pairs *map)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < map->n; i++)
        buf_fmt(&b, "%s%.*s=%.*s", i ? "," : "", STR(map->v[i].key), STR(map->v[i].value));
    return buf_get(&b);
}

struct str field_text(struct arena *a, const struct field *f, const void *obj)
{
    const void *v = (const char *)obj + f->offset;
    if (value_empty(f, v))
        return S("");
    if (f->flags & SECRET)
        return S("***");
    char n[32];
    switch (f->type) {
    case F_BOOL:
        return *(const bool *)v ? S("true") : S("false");
    case F_I64:
        return fmt(a, "%lld", (long long)*(const int64_t *)v);
    case F_F64:
        return str_dup(a, (struct str){ n, f64_text(*(const double *)v, n) });
    case F_ENUM:
        return enum_name(f, *(const int *)v);
    case F_TIME:
    case F_DURATION:
    case F_SIZE:
        return unit_text(f, a, *(const int64_t *)v);
    case F_STR:
    case F_REF:
    case F_JSON:
        return *(const struct str *)v;
    case F_STRS:
        return str_join(a, ((const struct strs *)v)->v, ((const struct strs *)v)->n, S(","));
    case F_OBJ:
        return schema_text(f->sub, a, v, WRITE_PERSONAL);
    case F_LIST:
        return fmt(a, "%zu", ((const struct list *)v)->n);
    case F_MAP:
        return map_text(a, v);
    }
    return S("");
}

/* ---- frozen ---- */

static err frozen_differ(const struct at *at, const struct field *f, const void *before, const void *after)
{
    bool shown = !(f->flags & (SECRET | PERSONAL)) && f->type != F_OBJ && f->type != F_LIST;
    if (!shown)
        return at_fail(at, INVALID, "set at creation, cannot be changed");
    auto_arena struct arena *t = arena_new(0);
    struct field here = *f;
    here.offset = 0;
    struct str was = clip(t, field_text(t, &here, before)), now = clip(t, field_text(t, &here, after));
    return at_fail(at, INVALID, "set at creation to '%.*s', cannot be changed to '%.*s'", STR(was), STR(now));
}

static err frozen_check(const struct at *at, const struct schema *s, const void *before, const void *after)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct field *f = &s->fields[i];
        const void *x = (const char *)before + f->offset, *y = (const char *)after + f->offset;
        struct at here = AT_FIELD(at, f);
        if (f->flags & FROZEN && !value_same(f, x, y))
            return frozen_differ(&here, f, x, y);
        if (f->type == F_OBJ)
            TRY(frozen_check(&here, f->sub, x, y));
    }
    return NULL;
}

err schema_frozen_same(const struct schema *s, struct arena *a, struct str path, const void *before,
                       const void *after)
{
    (void)a;
    struct at root = AT_ROOT(path);
    return frozen_check(&root, s, before, after);
}
