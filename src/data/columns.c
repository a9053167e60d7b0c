// SPDX-License-Identifier: Apache-2.0
#include "data/columns.h"

#include "data/dict.h"
#include <math.h>

const char *const column_type_names[] = { [COL_I64] = "BIGINT",
                                          [COL_F64] = "DOUBLE",
                                          [COL_BOOL] = "BOOLEAN",
                                          [COL_TIME] = "TIMESTAMP",
                                          [COL_STR] = "VARCHAR" };

/* ---- dict ---- */

static void dict_room(struct dict *d)
{
    if (d->slots && d->n * 2 <= d->mask)
        return;
    size_t size = d->slots ? (d->mask + 1) * 4 : 64;
    d->slots = NEW_N(d->a, uint32_t, size);
    d->mask = size - 1;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = dict_hash(d->v[i]) & d->mask;
        while (d->slots[at])
            at = (at + 1) & d->mask;
        d->slots[at] = (uint32_t)i + 1;
    }
}

uint32_t dict_code(struct dict *d, struct str s)
{
    dict_room(d);
    size_t at = dict_hash(s) & d->mask;
    for (; d->slots[at]; at = (at + 1) & d->mask)
        if (str_eq(d->v[d->slots[at] - 1], s))
            return d->slots[at] - 1;
    push(d->a, d, str_dup(d->a, s));
    d->slots[at] = (uint32_t)d->n;
    return (uint32_t)d->n - 1;
}

/* ---- columns ---- */

const struct column *columns_find(const struct columns *c, struct str name)
{
    for (size_t i = 0; i < c->n; i++)
        if (str_eq(c->v[i].name, name))
            return &c->v[i];
    return NULL;
}

err columns_need(const struct columns *c, struct str name, const struct column **out)
{
    *out = columns_find(c, name);
    if (*out)
        return NULL;
    auto_arena struct arena *a = arena_new(0);
    struct str *names = NEW_N(a, struct str, c->n + 1);
    for (size_t i = 0; i < c->n; i++)
        names[i] = c->v[i].name;
    struct str near = str_nearest(name, names, c->n);
    if (near.n)
        FAIL(INVALID, "there is no column '%.*s'; is it '%.*s'?", STR(name), STR(near));
    FAIL(INVALID, "there is no column '%.*s'", STR(name));
}

static void column_room(struct arena *a, struct column *c, size_t rows)
{
    if (c->type == COL_F64)
        c->f = NEW_N(a, double, rows);
    else if (c->type == COL_STR)
        c->code = NEW_N(a, uint32_t, rows);
    else
        c->i = NEW_N(a, int64_t, rows);
}

struct column *columns_add(struct arena *a, struct columns *c, struct str name, enum column_type type)
{
    push(a, c, (struct column){ .name = name, .type = type });
    column_room(a, &c->v[c->n - 1], c->rows);
    return &c->v[c->n - 1];
}

struct str column_text(struct arena *a, const struct column *c, size_t row)
{
    if (column_null(c, row))
        return S("");
    if (c->type == COL_STR)
        return column_str(c, row);
    if (c->type == COL_F64) {
        char *p = arena_alloc(a, 32, 1);
        return (struct str){ p, f64_text(c->f[row], p) };
    }
    return fmt(a, "%lld", (long long)c->i[row]);
}

bool column_type_of(struct str sql, enum column_type *out)
{
    static const struct {
        const char *sql;
        enum column_type type;
    } types[] = {
        { "BIGINT", COL_I64 },        { "INTEGER", COL_I64 },      { "DOUBLE", COL_F64 },
        { "VARCHAR", COL_STR },       { "TIMESTAMP", COL_TIME },   { "BOOLEAN", COL_BOOL },
        { "FLOAT", COL_F64 },         { "SMALLINT", COL_I64 },     { "TINYINT", COL_I64 },
        { "UTINYINT", COL_I64 },      { "USMALLINT", COL_I64 },    { "UINTEGER", COL_I64 },
        { "UBIGINT", COL_I64 },       { "HUGEINT", COL_F64 },      { "UHUGEINT", COL_F64 },
        { "DATE", COL_TIME },         { "TIMESTAMP_S", COL_TIME }, { "TIMESTAMP_MS", COL_TIME },
        { "TIMESTAMP_NS", COL_TIME }, { "UUID", COL_STR },         { "TIMESTAMP WITH TIME ZONE", COL_TIME },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(sql, str_of(types[i].sql))) {
            *out = types[i].type;
            return true;
        }
    if (!str_ends(sql, S("]")) && (str_starts(sql, S("DECIMAL(")) || str_starts(sql, S("ENUM(")))) {
        *out = sql.p[0] == 'D' ? COL_F64 : COL_STR;
        return true;
    }
    return false;
}

struct str column_item(struct str sql)
{
    if (!str_ends(sql, S("]")))
        return S("");
    size_t n = sql.n - 1;
    while (n && sql.p[n - 1] >= '0' && sql.p[n - 1] <= '9')
        n--;
    return n && sql.p[n - 1] == '[' ? str_sub(sql, 0, n - 1) : S("");
}

bool column_is_list(struct str sql)
{
    enum column_type type;
    return column_type_of(column_item(sql), &type) &&
           (type == COL_I64 || type == COL_F64 || type == COL_BOOL);
}

/* ---- JSON ---- */

static const char *const wanted[] = { [COL_I64] = "a whole number",
                                      [COL_F64] = "a number",
                                      [COL_BOOL] = "true or false",
                                      [COL_TIME] = "a time or microseconds",
                                      [COL_STR] = "text" };

static bool value_i64(enum column_type type, yyjson_val *v, int64_t *out)
{
    if (type == COL_TIME && yyjson_is_str(v))
        return time_parse(json_text(v), out);
    if (type == COL_BOOL && yyjson_is_bool(v)) {
        *out = yyjson_get_bool(v);
        return true;
    }
    if (yyjson_is_uint(v) && yyjson_get_uint(v) > INT64_MAX)
        return false;
    if (yyjson_is_real(v)) { /* clients write 3.0 for 3 */
        double f = yyjson_get_real(v);
        if (!(f > -9.2e18 && f < 9.2e18) || f != (double)(int64_t)f)
            return false;
        *out = (int64_t)f;
    } else if (yyjson_is_int(v)) {
        *out = yyjson_get_sint(v);
    } else {
        return false;
    }
    return type != COL_BOOL || *out == 0 || *out == 1;
}

static bool value_read(struct column *c, struct dict *d, size_t row, yyjson_val *v)
{
    if (c->type == COL_F64) {
        if (!yyjson_is_num(v))
            return false;
        c->f[row] = yyjson_get_num(v);
        return true;
    }
    if (c->type != COL_STR)
        return value_i64(c->type, v, &c->i[row]);
    if (!yyjson_is_str(v))
        return false;
    c->code[row] = dict_code(d, json_text(v));
    return true;
}

static void value_null(struct arena *a, struct column *c, size_t row, size_t rows)
{
    if (!c->null)
        c->null = NEW_N(a, uint8_t, rows);
    c->null[row] = 1;
    if (c->type == COL_F64)
        c->f[row] = NAN;
}

static err column_read(struct arena *a, struct str path, yyjson_val *in, size_t rows, struct column *c)
{
    struct dict d = { .a = a };
    yyjson_val *v;
    size_t i, n;
    column_room(a, c, rows);
    yyjson_arr_foreach (in, i, n, v) {
        if (yyjson_is_null(v))
            value_null(a, c, i, rows);
        else if (!value_read(c, &d, i, v))
            return err_field(
                err_new(INVALID, "%.*s.%.*s[%zu] is not %s", STR(path), STR(c->name), i, wanted[c->type]),
                fmt(a, "%.*s.%.*s[%zu]", STR(path), STR(c->name), i));
    }
    if (c->type == COL_STR && !d.n)
        dict_code(&d, S("")); /* code 0 of nulls stands for something */
    c->dict = d.v;
    c->dict_n = d.n;
    return NULL;
}

static err column_unknown(struct str path, struct str name, const struct column_def *defs, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    struct str *names = NEW_N(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++)
        names[i] = defs[i].name;
    struct str near = str_nearest(name, names, n), field = fmt(a, "%.*s.%.*s", STR(path), STR(name));
    if (near.n)
        return err_field(err_new(INVALID, "%.*s is not a column; is it '%.*s'?", STR(field), STR(near)),
                         field);
    return err_field(err_new(INVALID, "%.*s is not a column", STR(field)), field);
}

static const struct column_def *def_find(const struct column_def *defs, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(defs[i].name, name))
            return &defs[i];
    return NULL;
}

static err names_check(struct str path, yyjson_val *in, const struct column_def *defs, size_t n,
                       unsigned flags)
{
    yyjson_val *key, *v;
    size_t i, max;
    yyjson_obj_foreach (in, i, max, key, v) {
        struct str name = json_text(key);
        if (!(flags & COLUMNS_IGNORE) && !def_find(defs, n, name))
            return column_unknown(path, name, defs, n);
    }
    return NULL;
}

err columns_read(struct arena *a, struct str path, yyjson_val *in, const struct column_def *defs, size_t n,
                 size_t rows_max, unsigned flags, struct columns *out)
{
    if (!yyjson_is_obj(in))
        FAIL(INVALID, "%.*s is not an object of columns", STR(path));
    TRY(names_check(path, in, defs, n, flags));
    struct columns c = { .v = NEW_N(a, struct column, n + 1) };
    for (size_t i = 0; i < n; i++) {
        yyjson_val *v = yyjson_obj_getn(in, defs[i].name.p, defs[i].name.n);
        if (!v && (flags & COLUMNS_ALL))
            return err_field(err_new(INVALID, "%.*s.%.*s is missing", STR(path), STR(defs[i].name)),
                             fmt(a, "%.*s.%.*s", STR(path), STR(defs[i].name)));
        if (!v)
            continue;
        if (!yyjson_is_arr(v))
            FAIL(INVALID, "%.*s.%.*s is not a list of values, one a row", STR(path), STR(defs[i].name));
        size_t rows = yyjson_arr_size(v);
        if (rows > rows_max)
            FAIL(TOO_LARGE, "%.*s has %zu rows; at most %zu are taken at once", STR(path), rows, rows_max);
        if (c.n && rows != c.rows)
            FAIL(INVALID, "%.*s.%.*s has %zu values, the columns before it have %zu", STR(path),
                 STR(defs[i].name), rows, c.rows);
        c.rows = rows;
        struct column *col = &c.v[c.n++];
        *col = (struct column){ .name = defs[i].name, .type = defs[i].type };
        TRY(column_read(a, path, v, rows, col));
    }
    *out = c;
    return NULL;
}

static void value_write(struct json *j, const struct column *c, size_t row)
{
    if (column_null(c, row))
        json_null(j);
    else if (c->type == COL_STR)
        json_str(j, column_str(c, row));
    else if (c->type == COL_F64)
        json_f64(j, c->f[row]);
    else if (c->type == COL_BOOL)
        json_bool(j, c->i[row]);
    else
        json_i64(j, c->i[row]);
}

void columns_write(struct json *j, const struct columns *c)
{
    json_obj(j);
    for (size_t i = 0; i < c->n; i++) {
        json_key(j, c->v[i].name);
        json_arr(j);
        for (size_t row = 0; row < c->rows; row++)
            value_write(j, &c->v[i], row);
        json_arr_end(j);
    }
    json_obj_end(j);
}
