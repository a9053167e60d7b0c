// SPDX-License-Identifier: Apache-2.0
#define SUITE columns
#include "data/data.h"
#include "schema/schema.h"
#include "test.h"
#include <math.h>

static const struct column_def defs[] = { { { "id", 2 }, COL_I64 },
                                          { { "origin", 6 }, COL_STR },
                                          { { "ts", 2 }, COL_TIME },
                                          { { "x", 1 }, COL_F64 },
                                          { { "late", 4 }, COL_BOOL } };

static err read_text(struct arena *a, const char *text, unsigned flags, struct columns *out)
{
    yyjson_val *v;
    TRY(json_parse(a, str_of(text), &v));
    return columns_read(a, S("rows"), v, defs, 5, 3, flags, out);
}

TEST(reads_every_type_and_null)
{
    auto_arena struct arena *a = arena_new(0);
    struct columns c;
    CHECK_OK(read_text(
        a,
        "{\"id\":[1,null,3.0],\"origin\":[\"ATL\",\"ORD\",\"ATL\"],\"ts\":[\"2001-05-01T10:00:00\",5,null],"
        "\"x\":[1,2.5,null],\"late\":[true,0,null]}",
        0, &c));
    CHECK(c.n == 5 && c.rows == 3);
    CHECK(c.v[0].i[0] == 1 && c.v[0].i[2] == 3 && column_null(&c.v[0], 1) && !column_null(&c.v[0], 0));
    CHECK(c.v[1].dict_n == 2 && c.v[1].code[0] == c.v[1].code[2]);
    CHECK_STR(column_str(&c.v[1], 1), "ORD");
    CHECK(c.v[2].i[0] == 988711200000000 && c.v[2].i[1] == 5);
    CHECK(c.v[3].f[1] == 2.5 && isnan(column_f64(&c.v[3], 2)));
    CHECK(c.v[4].i[0] == 1 && c.v[4].i[1] == 0 && column_null(&c.v[4], 2));
    struct json j = json_new(a);
    columns_write(&j, &c);
    struct columns again;
    struct str text = json_get(&j);
    CHECK_OK(read_text(a, str_z(a, text), 0, &again));
    struct json k = json_new(a);
    columns_write(&k, &again);
    CHECK_STR(json_get(&k), text);
}

TEST(says_what_is_wrong)
{
    static const struct {
        const char *text;
        unsigned flags;
        enum err_code code;
        const char *says;
    } rows[] = {
        { "[]", 0, INVALID, "rows is not an object" },
        { "{\"id\":1}", 0, INVALID, "rows.id is not a list" },
        { "{\"orign\":[\"ATL\"]}", 0, INVALID, "is it 'origin'" },
        { "{\"id\":[1],\"x\":[1,2]}", 0, INVALID, "rows.x has 2 values" },
        { "{\"id\":[1,2,3,4]}", 0, TOO_LARGE, "at most 3" },
        { "{\"id\":[1.5]}", 0, INVALID, "rows.id[0] is not a whole number" },
        { "{\"id\":[9223372036854775808]}", 0, INVALID, "rows.id[0]" },
        { "{\"origin\":[1]}", 0, INVALID, "rows.origin[0] is not text" },
        { "{\"ts\":[\"soon\"]}", 0, INVALID, "rows.ts[0] is not a time" },
        { "{\"late\":[2]}", 0, INVALID, "rows.late[0] is not true or false" },
        { "{\"x\":[\"1\"]}", 0, INVALID, "rows.x[0] is not a number" },
        { "{\"id\":[1]}", COLUMNS_ALL, INVALID, "rows.origin is missing" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct columns c;
        err e = read_text(a, rows[i].text, rows[i].flags, &c);
        if (!e || e->code != rows[i].code || !strstr(str_z(a, e->text), rows[i].says))
            cr_assert_fail("%s: %.*s", rows[i].text, e ? (int)e->text.n : 2, e ? e->text.p : "ok");
    }
    auto_arena struct arena *a = arena_new(0);
    struct columns c;
    CHECK_OK(read_text(a, "{\"id\":[1],\"more\":[2]}", COLUMNS_IGNORE, &c));
    CHECK(c.n == 1);
    CHECK_OK(read_text(a, "{}", 0, &c));
    CHECK(c.rows == 0);
}

TEST(finds_and_suggests)
{
    auto_arena struct arena *a = arena_new(0);
    struct columns c = { .rows = 2 };
    const struct column *col;
    columns_add(a, &c, S("origin"), COL_STR);
    columns_add(a, &c, S("delay"), COL_I64);
    CHECK_OK(columns_need(&c, S("delay"), &col));
    CHECK(col == &c.v[1]);
    err e = columns_need(&c, S("dealy"), &col);
    CHECK(e && strstr(str_z(a, e->text), "is it 'delay'"));
}

TEST(sql_types)
{
    enum column_type t;
    CHECK(column_type_of(S("INTEGER"), &t) && t == COL_I64);
    CHECK(column_type_of(S("DECIMAL(18,3)"), &t) && t == COL_F64);
    CHECK(column_type_of(S("TIMESTAMP WITH TIME ZONE"), &t) && t == COL_TIME);
    CHECK(column_type_of(S("ENUM('a', 'b')"), &t) && t == COL_STR);
    CHECK(!column_type_of(S("VARCHAR[]"), &t));
    CHECK(!column_type_of(S("BLOB"), &t));
}
