/* What a table says of itself. */
// SPDX-License-Identifier: Apache-2.0
#define SUITE schema_docs
#include "test.h"
#include "every_type.h"

static struct arena *a;

static void start(void)
{
    a = arena_new(0);
}

static void stop(void)
{
    arena_free(a);
    err_reset();
}

#define STORY(name) TEST(name, .init = start, .fini = stop)

static yyjson_val *json_schema(void)
{
    struct json j = json_new(a);
    schema_json_schema(&every_schema, &j);
    yyjson_val *v = NULL;
    CHECK_OK(json_parse(a, json_get(&j), &v));
    return v;
}

static struct str at(const char *pointer)
{
    yyjson_val *v = yyjson_ptr_get(json_schema(), pointer);
    size_t n = 0;
    char *text = v ? yyjson_val_write(v, 0, &n) : NULL;
    struct str out = str_dup(a, (struct str){ text, n });
    free(text);
    return out;
}

STORY(json_schema_says_what_reading_checks)
{
    CHECK_STR(at("/type"), "\"object\"");
    CHECK_STR(at("/required"), "[\"name\"]");
    CHECK_STR(at("/additionalProperties"), "false");
    CHECK_STR(at("/properties/eventTime/format"), "\"date-time\"");
    CHECK_STR(at("/properties/seed/minimum"), "-5");
    CHECK_STR(at("/properties/seed/maximum"), "1000000");
    CHECK_STR(at("/properties/anyNumber"), "{\"type\":\"integer\",\"description\":\"No bounds.\"}");
    CHECK_STR(at("/properties/every/default"), "\"2h\"");
    CHECK_STR(at("/properties/colour/enum"), "[\"red\",\"green\",\"dark-blue\"]");
    CHECK_STR(at("/properties/columns/default"), "[\"x\",\"y\"]");
    CHECK_STR(at("/properties/rules/items/required"), "[\"column\"]");
    CHECK_STR(at("/properties/mainRule/properties/atLeast/maximum"), "10");
    CHECK_STR(at("/properties/password/writeOnly"), "true");
    CHECK_STR(at("/properties/extra"), "{\"description\":\"Anything.\",\"default\":{\"a\":[1]}}");
}

STORY(markdown_has_a_row_per_field)
{
    struct buf b = buf_new(a);
    schema_markdown(&every_schema, &b, S("spec"));
    const char *text = str_z(a, buf_get(&b));
    CHECK(strstr(text, "| `every` | duration, at least 1s | `2h` | How often. |\n"));
    CHECK(strstr(text, "Any text \\| with a bar."));
    CHECK(strstr(text, "| `name` | name | required | Unique. Set at creation. |\n"));
    CHECK(strstr(text, "### `spec.rules[]`\n"));
    CHECK(strstr(text, "### `spec.mainRule`\n"));
}

STORY(views_put_defaults_back)
{
    struct buf b = buf_new(a);
    schema_sql_columns(&rule_schema, SQL_SQLITE, S("spec"), &b);
    CHECK_STR(buf_get(&b), "json_extract(spec,'$.column') as \"column\",\n"
                           "  json_extract(spec,'$.max') as \"max\",\n"
                           "  coalesce(json_extract(spec,'$.atLeast'),0.5) as \"at_least\",\n"
                           "  coalesce(json_extract(spec,'$.colour'),'red') as \"colour\",\n"
                           "  json_extract(spec,'$.tags') as \"tags\"");
    b = buf_new(a);
    schema_sql_columns(&every_schema, SQL_POSTGRES, S("spec"), &b);
    const char *text = str_z(a, buf_get(&b));
    CHECK(strstr(text, "coalesce((spec::jsonb #>> '{on}')::boolean,true) as \"on\""));
    CHECK(strstr(text, "(spec::jsonb #>> '{mainRule,max}')::double precision as \"main_rule_max\""));
    CHECK(!strstr(text, "password"));
}

struct tree {
    struct list below;
};
extern const struct schema tree_schema;
static const struct field tree_fields[] = {
    { .name = S_INIT("below"), .type = F_LIST, .sub = &tree_schema, .doc = "Those below." },
};
const struct schema tree_schema = {
    .name = S_INIT("tree"), .size = sizeof(struct tree), .fields = tree_fields, .n = 1
};

STORY(a_table_may_hold_itself)
{
    struct json j = json_new(a);
    schema_json_schema(&tree_schema, &j);
    yyjson_val *v;
    CHECK_OK(json_parse(a, json_get(&j), &v));
    struct buf b = buf_new(a);
    schema_markdown(&tree_schema, &b, S("tree"));
    struct tree t;
    CHECK_OK(schema_read_text(&tree_schema, a, S(""), S("{\"below\":[{\"below\":[{}]}]}"), 0, &t));
    CHECK_STR(schema_text(&tree_schema, a, &t, 0), "{\"below\":[{\"below\":[{}]}]}");
}

STORY(keys_are_camel_case)
{
    const struct field f = { .name = S_INIT("event_time_2"), .type = F_STR };
    CHECK_STR(field_key(a, &f), "eventTime2");
}
