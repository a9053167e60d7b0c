/* What reading accepts and refuses; each refusal names its place. */
// SPDX-License-Identifier: Apache-2.0
#define SUITE schema_read
#include "test.h"
#include "every_type.h"

static struct arena *a;

static void start(void)
{
    a = arena_new(64 << 20);
}

static void stop(void)
{
    arena_free(a);
    err_reset();
}

#define STORY(name) TEST(name, .init = start, .fini = stop)

static struct every read_ok(const char *json)
{
    struct every v;
    CHECK_OK(schema_read_text(&every_schema, a, S("spec"), str_of(json), 0, &v));
    return v;
}

/* The error's text, with " | hint" if there is one. */
static struct str refused(const char *json)
{
    struct every v;
    err e = schema_read_text(&every_schema, a, S("spec"), str_of(json), 0, &v);
    if (!e)
        return S("accepted");
    if (!e->hint.n)
        return e->text;
    return fmt(a, "%.*s | %.*s", STR(e->text), STR(e->hint));
}

STORY(every_type_is_read)
{
    struct every v = read_ok(
        "{\"name\":\"a-1\",\"on\":false,\"seed\":7,\"anyNumber\":-9223372036854775808,"
        "\"rate\":1,\"ownerMail\":\"x@y\",\"password\":\"p\",\"note\":\"\",\"colour\":\"dark-blue\","
        "\"eventTime\":\"2001-05-01T00:00:01Z\",\"every\":\"1h30m\",\"memory\":\"16Mi\","
        "\"dataset\":\"d\",\"extra\":{\"b\" : [1, null]},\"columns\":[\"u\",\"v\"],"
        "\"shades\":[\"red\"],\"labels\":{\"k\":1.5,\"l\":true,\"m\":\"t\"},"
        "\"mainRule\":{\"column\":\"c\",\"max\":3},\"rules\":[{\"column\":\"d\",\"tags\":[\"q\"]}]}");
    CHECK_STR(v.name, "a-1");
    CHECK(!v.on && v.seed == 7 && v.any_number == INT64_MIN && v.rate == 1);
    CHECK_STR(v.note, "");
    CHECK(v.colour == 2 && v.event_time == 988675201000000 && v.every == 5400000 && v.memory == 16 << 20);
    CHECK_STR(v.extra, "{\"b\":[1,null]}");
    CHECK(v.columns.n == 2 && v.shades.n == 1 && v.labels.n == 3);
    CHECK_STR(v.labels.v[0].value, "1.5");
    CHECK_STR(v.labels.v[1].value, "true");
    CHECK_STR(v.main_rule.column, "c");
    CHECK(v.main_rule.max == 3 && v.main_rule.at_least == 0.5);
    const struct rule *r = v.rules.v;
    CHECK(v.rules.n == 1 && isnan(r->max) && r->at_least == 0.5 && r->tags.n == 1);
}

STORY(defaults_come_from_text)
{
    struct every v = read_ok("{\"name\":\"a\",\"every\":null}");
    CHECK(v.on && v.seed == 0 && isnan(v.rate) && v.colour == 1 && v.event_time == 0 && v.every == 7200000);
    CHECK_STR(v.note, "none");
    CHECK_STR(v.extra, "{\"a\":[1]}");
    CHECK(v.columns.n == 2);
    CHECK_STR(v.columns.v[1], "y");
    CHECK(v.main_rule.at_least == 0.5 && v.rules.n == 0);
}

STORY(unknown_fields_get_a_hint)
{
    CHECK_STR(refused("{\"nmae\":1}"), "spec.nmae: there is no such field | did you mean 'name'?");
    CHECK_STR(refused("{\"name\":\"a\",\"event_time\":1}"),
              "spec.event_time: there is no such field | did you mean 'eventTime'?");
    CHECK_STR(
        refused("{\"name\":\"a\",\"mainRule\":{\"zzz\":1}}"),
        "spec.mainRule.zzz: there is no such field | the fields are column, max, atLeast, colour, tags");
}

STORY(paths_reach_into_lists)
{
    struct every v;
    const char *json =
        "{\"name\":\"a\",\"rules\":[{\"column\":\"x\"},{\"column\":\"y\"},{\"column\":\"z\",\"max\":\"abc\"}]}";
    err e = schema_read_text(&every_schema, a, S("spec"), str_of(json), 0, &v);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->field, "spec.rules[2].max");
    CHECK_STR(e->text, "spec.rules[2].max: 'abc' is not a number");
    CHECK_STR(refused("{\"name\":\"a\",\"rules\":[{\"max\":1}]}"),
              "spec.rules[0].column: this field is required");
    CHECK_STR(refused("{\"name\":\"a\",\"columns\":[\"x\",4]}"), "spec.columns[1]: 4 is not text");
    CHECK_STR(refused("{\"name\":\"a\",\"labels\":{\"k\":[]}}"), "spec.labels.k: a list is not text");
    CHECK_STR(refused("{\"name\":\"a\",\"rules\":[null]}"), "spec.rules[0]: null is not an object");
}

STORY(required_fields_are_missed)
{
    struct every v;
    CHECK_STR(refused("{}"), "spec.name: this field is required");
    CHECK_STR(refused("{\"name\":null}"), "spec.name: this field is required");
    CHECK_ERR(schema_read(&every_schema, a, S(""), NULL, 0, &v), INVALID);
    CHECK_OK(schema_read(&every_schema, a, S(""), NULL, READ_PARTIAL, &v));
    CHECK(v.every == 7200000);
}

STORY(numbers_keep_to_their_bounds)
{
    CHECK_STR(refused("{\"name\":\"a\",\"seed\":1.5}"), "spec.seed: 1.5 is not a whole number");
    CHECK_STR(refused("{\"name\":\"a\",\"seed\":\"1\"}"), "spec.seed: '1' is not a whole number");
    CHECK_STR(refused("{\"name\":\"a\",\"seed\":-6}"), "spec.seed: -6 is under the minimum of -5");
    CHECK_STR(refused("{\"name\":\"a\",\"rate\":1.25}"), "spec.rate: 1.25 is over the maximum of 1");
    CHECK_STR(refused("{\"name\":\"a\",\"anyNumber\":9223372036854775808}"),
              "spec.anyNumber: 9223372036854775808 is not a whole number of 64 bits");
    CHECK_STR(refused("{\"name\":\"a\",\"anyNumber\":1e30}"),
              "spec.anyNumber: 1e+30 is not a whole number of 64 bits");
    CHECK(read_ok("{\"name\":\"a\",\"seed\":1e3}").seed == 1000);
    CHECK(read_ok("{\"name\":\"a\",\"anyNumber\":9223372036854775807}").any_number == INT64_MAX);
    CHECK_STR(refused("{\"name\":\"a\",\"on\":1}"), "spec.on: 1 is not true or false");
}

STORY(units_are_read_as_people_write_them)
{
    CHECK_STR(refused("{\"name\":\"a\",\"every\":\"10ms\"}"), "spec.every: 10ms is under the minimum of 1s");
    CHECK_STR(refused("{\"name\":\"a\",\"every\":5}"),
              "spec.every: 5 is not a duration, as in \"30s\" or \"1h30m\"");
    CHECK_STR(refused("{\"name\":\"a\",\"memory\":\"2Gi\"}"), "spec.memory: 2Gi is over the maximum of 1Gi");
    CHECK_STR(refused("{\"name\":\"a\",\"memory\":-1}"),
              "spec.memory: -1 is not a size, as in \"512Mi\" or \"2G\"");
    CHECK(read_ok("{\"name\":\"a\",\"memory\":512}").memory == 512);
    CHECK_STR(refused("{\"name\":\"a\",\"eventTime\":988675200}"),
              "spec.eventTime: 988675200 is not a time, as in \"2001-05-01T00:00:00Z\"");
    CHECK(read_ok("{\"name\":\"a\",\"eventTime\":\"2001-05-01\"}").event_time == 988675200000000);
}

STORY(names_and_choices)
{
    CHECK_STR(refused("{\"name\":\"a\",\"colour\":\"grene\"}"),
              "spec.colour: 'grene' is not one of red, green, dark-blue | did you mean 'green'?");
    CHECK_STR(refused("{\"name\":\"a\",\"shades\":[\"blue\"]}"),
              "spec.shades[0]: 'blue' is not one of red, green, dark-blue");
    struct every v;
    CHECK_ERR(schema_read_text(&every_schema, a, S(""), S("{\"name\":\"\"}"), 0, &v), INVALID);
    CHECK_ERR(schema_read_text(&every_schema, a, S(""), S("{\"name\":\"a\",\"dataset\":\"A b\"}"), 0, &v),
              INVALID);
    CHECK_OK(schema_read_text(&every_schema, a, S(""), S("{\"name\":\"a\",\"dataset\":\"\"}"), 0, &v));
    CHECK(name_ok(S("a")) && name_ok(S("a.b_c-9")) && !name_ok(S("")) && !name_ok(S("-a")) &&
          !name_ok(S("a-")));
    CHECK(!name_ok(S("A")) && !name_ok(fmt(a, "%064d", 1)) && name_ok(fmt(a, "%063d", 1)));
}

STORY(text_is_bounded_and_clean)
{
    struct every v;
    CHECK_ERR(
        schema_read_text(&every_schema, a, S(""), fmt(a, "{\"name\":\"a\",\"note\":\"%05000d\"}", 1), 0, &v),
        TOO_LARGE);
    CHECK_STR(refused("{\"name\":\"a\",\"note\":\"x\\u0000y\"}"),
              "spec.note: the text has a NUL character in it");
    CHECK_ERR(schema_read_text(&every_schema, a, S(""), S("{\"name\":\"a\",\"note\":\"\xff\"}"), 0, &v),
              INVALID);
    CHECK_STR(refused("{\"name\":\"a\",\"columns\":[\"a\",\"b\",\"c\",\"d\",\"e\",\"f\"]}"),
              "spec.columns: 6 items, over the limit of 5");
}

STORY(secrets_stay_out_of_messages)
{
    CHECK_STR(refused("{\"name\":\"a\",\"password\":12345}"), "spec.password: the value is not text");
    CHECK_STR(refused("{\"name\":\"a\",\"ownerMail\":[1]}"), "spec.ownerMail: the value is not text");
}

STORY(not_json_says_where)
{
    CHECK_STR(refused(""), "not JSON: there is no text");
    CHECK_STR(refused("[]"), "spec: a list is not an object");
    CHECK(str_ends(refused("{\n  \"a\":}"), S("line 2, column 7")));
    CHECK_STR(refused("{\"name\":\"a\",\"name\":\"b\"}"),
              "not JSON: the key 'name' is given twice in one object");
    CHECK_STR(refused("{\"name\":\"a\",\"extra\":{\"x\":1,\"y\":{\"z\":1,\"z\":2}}}"),
              "not JSON: the key 'z' is given twice in one object");
}

static struct str nested(int depth)
{
    struct buf b = buf_new(a);
    for (int i = 0; i < depth; i++)
        buf_put(&b, "[", 1);
    for (int i = 0; i < depth; i++)
        buf_put(&b, "]", 1);
    return buf_get(&b);
}

STORY(depth_is_bounded)
{
    yyjson_val *v;
    CHECK_OK(json_parse(a, nested(64), &v));
    CHECK_ERR(json_parse(a, nested(65), &v), TOO_LARGE);
    CHECK_ERR(json_parse(a, nested(500000), &v), TOO_LARGE);
}

STORY(many_keys_cost_little)
{
    struct buf b = buf_new(a);
    for (int i = 0; i < 200000; i++)
        buf_fmt(&b, "%s\"key%d\":1", i ? "," : "{", i);
    struct str open = buf_get(&b);
    yyjson_val *v;
    int64_t from = mono_ns();
    CHECK_OK(json_parse(a, fmt(a, "%.*s}", STR(open)), &v));
    CHECK_ERR(json_parse(a, fmt(a, "%.*s,\"key77\":2}", STR(open)), &v), INVALID);
    CHECK(mono_ns() - from < 10000000000);
}

STORY(a_small_arena_is_an_error_not_an_end)
{
    struct arena *small = arena_new(32 << 10);
    struct every v;
    struct buf b = buf_new(a);
    for (int i = 0; i < 50; i++)
        buf_fmt(&b, "%s{\"column\":\"c\",\"tags\":[\"%04000d\"]}", i ? "," : "{\"name\":\"a\",\"rules\":[",
                i);
    buf_str(&b, S("]}"));
    CHECK_ERR(schema_read_text(&every_schema, small, S(""), buf_get(&b), 0, &v), TOO_LARGE);
    arena_free(small);
}

STORY(what_we_wrote_may_have_more_fields)
{
    struct every v;
    CHECK_OK(schema_read_text(&every_schema, a, S(""), S("{\"name\":\"a\",\"later\":{\"x\":1}}"),
                              READ_LENIENT, &v));
    CHECK_STR(v.name, "a");
}

STORY(fields_are_set_from_text)
{
    struct every v;
    schema_defaults(&every_schema, a, &v);
    const struct {
        const char *key, *text;
    } sets[] = { { "on", "false" },     { "seed", "12" },
                 { "rate", "0.25" },    { "colour", "red" },
                 { "every", "5m" },     { "memory", "1Ki" },
                 { "columns", "p, q" }, { "labels", "k=v, l=w=x" },
                 { "extra", "[ 1 ]" },  { "mainRule", "{\"column\":\"z\"}" } };
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        const struct field *f = schema_field(&every_schema, str_of(sets[i].key));
        CHECK(f);
        CHECK_OK(field_set_text(f, a, S(""), str_of(sets[i].text), &v));
    }
    CHECK(!v.on && v.seed == 12 && v.rate == 0.25 && v.colour == 0 && v.every == 300000 && v.memory == 1024);
    CHECK(v.columns.n == 2 && v.labels.n == 2);
    CHECK_STR(v.columns.v[1], "q");
    CHECK_STR(v.labels.v[1].value, "w=x");
    CHECK_STR(v.extra, "[1]");
    CHECK_STR(v.main_rule.column, "z");
    err e = field_set_text(schema_field(&every_schema, S("rate")), a, S("--rate"), S("fast"), &v);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->text, "--rate: 'fast' is not a number");
    CHECK_ERR(field_set_text(schema_field(&every_schema, S("labels")), a, S(""), S("k=1,k=2"), &v), INVALID);
    CHECK_ERR(field_set_text(schema_field(&every_schema, S("extra")), a, S(""), S("{"), &v), INVALID);
}

STORY(users_make_tables_too)
{
    struct schema *s = schema_new(a, S("row"), "A row.");
    schema_add(a, s, (struct field){ .name = S_INIT("fare_amount"), .type = F_F64, .flags = REQUIRED });
    const struct field *first = schema_field(s, S("fare_amount"));
    for (int i = 0; i < 300; i++)
        schema_add(a, s,
                   (struct field){ .name = fmt(a, "c_%d", i),
                                   .type = i % 2 ? F_BOOL : F_STR,
                                   .def = i % 2 ? "true" : NULL });
    CHECK(first && first->offset == 0 && schema_field(s, S("fareAmount")) == NULL);
    char *row = arena_alloc(a, s->size, 16);
    CHECK_OK(schema_read_text(s, a, S(""), S("{\"c_298\":\"x\",\"fare_amount\":2.5}"), 0, row));
    CHECK(*(double *)row == 2.5 && *(bool *)(row + schema_field(s, S("c_299"))->offset));
    CHECK_STR(schema_text(s, a, row, 0), "{\"fare_amount\":2.5,\"c_298\":\"x\"}");
    CHECK_ERR(schema_read_text(s, a, S(""), S("{\"fareAmount\":2.5}"), 0, row), INVALID);
}
