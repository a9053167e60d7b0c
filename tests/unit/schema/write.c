/* What is written reads back the same; what is secret is not written. */
// SPDX-License-Identifier: Apache-2.0
#define SUITE schema_write
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

static struct every read_ok(const char *json)
{
    struct every v;
    CHECK_OK(schema_read_text(&every_schema, a, S(""), str_of(json), 0, &v));
    return v;
}

STORY(defaults_are_left_out_unless_asked_for)
{
    struct every v = read_ok(
        "{\"name\":\"a\",\"note\":\"none\",\"every\":\"120m\",\"columns\":[\"x\",\"y\"]}");
    CHECK_STR(schema_text(&every_schema, a, &v, 0), "{\"name\":\"a\"}");
    CHECK_STR(
        schema_text(&every_schema, a, &v, WRITE_DEFAULTS),
        "{\"name\":\"a\",\"on\":true,\"seed\":0,\"anyNumber\":0,\"note\":\"none\",\"colour\":\"green\","
        "\"every\":\"2h\",\"memory\":\"0\",\"extra\":{\"a\":[1]},\"columns\":[\"x\",\"y\"],\"shades\":[],"
        "\"labels\":{},\"rules\":[]}");
    struct every again = read_ok(str_z(a, schema_text(&every_schema, a, &v, WRITE_DEFAULTS)));
    CHECK_STR(schema_text(&every_schema, a, &again, 0), "{\"name\":\"a\"}");
}

STORY(secrets_and_persons)
{
    struct every v = read_ok("{\"name\":\"a\",\"ownerMail\":\"x@y\",\"password\":\"p\"}");
    CHECK_STR(schema_text(&every_schema, a, &v, 0), "{\"name\":\"a\",\"ownerMail\":\"***\"}");
    CHECK_STR(schema_text(&every_schema, a, &v, WRITE_PERSONAL), "{\"name\":\"a\",\"ownerMail\":\"x@y\"}");
    CHECK_STR(schema_text(&every_schema, a, &v, WRITE_SECRETS | WRITE_PERSONAL),
              "{\"name\":\"a\",\"ownerMail\":\"x@y\",\"password\":\"p\"}");
}

STORY(cells_are_short)
{
    struct every v = read_ok(
        "{\"name\":\"a\",\"rate\":0.5,\"password\":\"p\",\"labels\":{\"k\":\"v\",\"l\":2},\"every\":\"90m\","
        "\"rules\":[{\"column\":\"c\"}]}");
    const char *const cells[][2] = { { "name", "a" },         { "on", "true" },
                                     { "rate", "0.5" },       { "password", "***" },
                                     { "colour", "green" },   { "eventTime", "" },
                                     { "every", "1h30m" },    { "columns", "x,y" },
                                     { "labels", "k=v,l=2" }, { "rules", "1" },
                                     { "seed", "0" },         { "mainRule", "{\"column\":\"\"}" } };
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        CHECK_STR(field_text(a, schema_field(&every_schema, str_of(cells[i][0])), &v), cells[i][1]);
}

STORY(frozen_fields_stay)
{
    struct every before = read_ok("{\"name\":\"a\",\"dataset\":\"d1\",\"seed\":1}");
    struct every after = read_ok("{\"name\":\"a\",\"dataset\":\"d1\",\"seed\":2}");
    CHECK_OK(schema_frozen_same(&every_schema, a, S("spec"), &before, &after));
    after.dataset = S("d2");
    err e = schema_frozen_same(&every_schema, a, S("spec"), &before, &after);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->field, "spec.dataset");
    CHECK_STR(e->text, "spec.dataset: set at creation to 'd1', cannot be changed to 'd2'");
}

/* ---- write, then read: the same ---- */

static uint64_t seed = 42;

static uint64_t draw(uint64_t below)
{
    return splitmix(&seed) % below;
}

static struct str text_drawn(void)
{
    static const char *const parts[] = { "a",    "Z", "\n", "\"", "\\", "é", "\t",
                                         "\x01", " ", "0",  "漢", "😀",  ":", "\x7f" };
    struct buf b = buf_new(a);
    for (uint64_t n = draw(6); n-- > 0;)
        buf_str(&b, str_of(parts[draw(sizeof parts / sizeof *parts)]));
    return buf_get(&b);
}

static double number_drawn(void)
{
    static const double odd[] = { 0, -0.0, 1, -1, 0.1, 1e300, 5e-324, 1.0 / 3, 123456789.125, NAN };
    if (draw(2))
        return odd[draw(sizeof odd / sizeof *odd)];
    union {
        uint64_t bits;
        double v;
    } any = { .bits = splitmix(&seed) };
    return isfinite(any.v) ? any.v : 7;
}

static struct strs strs_drawn(size_t n)
{
    struct strs s = { 0 };
    while (n-- > 0)
        push(a, &s, text_drawn());
    return s;
}

static struct rule rule_drawn(void)
{
    return (struct rule){ .column = str_sub(text_drawn(), 0, 0),
                          .max = number_drawn(),
                          .at_least = (double)draw(41) / 4,
                          .colour = (int)draw(3),
                          .tags = strs_drawn(draw(4)) };
}

static struct every drawn(void)
{
    static const char *const json[] = { "null", "1",  "\"x\"",
                                        "[]",   "{}", "{\"k\":[1,2.5,null,{\"m\":\"\\n\"}]}",
                                        "-1e-7" };
    struct every v = {
        .name = S("n"),
        .on = draw(2),
        .seed = (int64_t)draw(1000005) - 5,
        .any_number = (int64_t)splitmix(&seed),
        .rate = draw(3) ? (double)draw(1000) / 999 : NAN,
        .owner_mail = text_drawn(),
        .password = text_drawn(),
        .note = text_drawn(),
        .colour = (int)draw(3),
        .event_time = (int64_t)draw(4000000000000000),
        .every = 1000 + (int64_t)draw(1000000000),
        .memory = (int64_t)draw((1 << 30) + 1),
        .dataset = draw(2) ? S("d.x") : S(""),
        .extra = str_of(json[1 + draw(sizeof json / sizeof *json - 1)]),
        .columns = strs_drawn(draw(6)),
        .main_rule = draw(2) ? rule_drawn() : (struct rule){ .max = NAN, .at_least = 0.5 },
    };
    for (uint64_t n = draw(4); n-- > 0;)
        push(a, &v.shades, str_of(colours[draw(3)]));
    for (uint64_t n = draw(4); n-- > 0;)
        push(a, &v.labels, (struct pair){ fmt(a, "k%d\"%c", (int)n, 'a' + (int)draw(20)), text_drawn() });
    v.rules.n = draw(4);
    struct rule *rules = NEW_N(a, struct rule, v.rules.n);
    for (size_t i = 0; i < v.rules.n; i++)
        rules[i] = rule_drawn();
    v.rules.v = rules;
    return v;
}

/* extra is kept as compact text, and "-1e-7" is not the shortest: compare what a second writing gives. */
STORY(writing_then_reading_is_the_identity)
{
    for (int i = 0; i < 3000; i++) {
        struct every v = drawn(), back;
        for (unsigned flags = WRITE_SECRETS | WRITE_PERSONAL;
             flags <= (WRITE_SECRETS | WRITE_PERSONAL | WRITE_DEFAULTS); flags += WRITE_DEFAULTS) {
            struct str text = schema_text(&every_schema, a, &v, flags);
            CHECK_OK(schema_read_text(&every_schema, a, S(""), text, 0, &back));
            if (str_is(v.extra, "-1e-7"))
                back.extra = v.extra;
            CHECK_STR(schema_text(&every_schema, a, &back, flags), text);
            v.name.n = 1;
            CHECK_OK(schema_frozen_same(&every_schema, a, S(""), &v, &back));
            CHECK(memcmp(&v.rate, &back.rate, sizeof v.rate) == 0 || (isnan(v.rate) && isnan(back.rate)));
            CHECK(v.event_time == back.event_time && v.every == back.every && v.memory == back.memory);
            CHECK(v.any_number == back.any_number && v.on == back.on && v.colour == back.colour);
            CHECK_STR(back.note, v.note);
            CHECK_STR(back.password, v.password);
            CHECK(back.rules.n == v.rules.n && back.labels.n == v.labels.n && back.columns.n == v.columns.n);
        }
        if (i % 100 == 0)
            arena_reset(a);
    }
}
