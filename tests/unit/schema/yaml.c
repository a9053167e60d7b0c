/* YAML both ways. */
// SPDX-License-Identifier: Apache-2.0
#define SUITE yaml
#include "test.h"
#include "schema/schema.h"

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

/* The documents as JSON with a blank between, or the error. */
static struct str json_of(struct str yaml)
{
    struct strs docs;
    err e = yaml_to_json(a, yaml, &docs);
    return e ? e->text : str_join(a, docs.v, docs.n, S(" "));
}

#define CHECK_YAML(yaml, json) CHECK_STR(json_of(S(yaml)), json)

STORY(scalars_have_the_core_types_of_1_2)
{
    CHECK_YAML("[yes, no, on, off, y, n]", "[\"yes\",\"no\",\"on\",\"off\",\"y\",\"n\"]");
    CHECK_YAML("[true, True, FALSE, null, ~, Null, '', \"\"]", "[true,true,false,null,null,null,\"\",\"\"]");
    CHECK_YAML("[1, -2, +3, 007, 0o17, 0x1F, -0, 99999999999999999999]",
               "[1,-2,3,7,15,31,0,99999999999999999999]");
    CHECK_YAML("[1.5, .5, 1., 1e3, -1.25e-2, 0b11, 1_000, 1:30]",
               "[1.5,0.5,1,1000,-0.0125,\"0b11\",\"1_000\",\"1:30\"]");
    CHECK_YAML("['1', \"true\", 2001-05-01, 2h, 16Gi, 1.2.3]",
               "[\"1\",\"true\",\"2001-05-01\",\"2h\",\"16Gi\",\"1.2.3\"]");
    CHECK_YAML("[!!str 1, !!int \"2\", !!float 3, ! 4]", "[\"1\",2,3,\"4\"]");
    CHECK_YAML("1: a\ntrue: b\n", "{\"1\":\"a\",\"true\":\"b\"}");
}

STORY(documents_are_a_list)
{
    CHECK_YAML("", "");
    CHECK_YAML("# nothing\n---\n---\n", "");
    CHECK_YAML("a: 1\n---\n---\nb: 2\n...\n", "{\"a\":1} {\"b\":2}");
    CHECK_YAML("%YAML 1.2\n---\na: 1", "{\"a\":1}");
    CHECK_YAML("a: |\n  x\n  y\nb: >-\n  p\n  q\n", "{\"a\":\"x\\ny\\n\",\"b\":\"p q\"}");
    CHECK_YAML("{a: [1, {b: c}]}", "{\"a\":[1,{\"b\":\"c\"}]}");
}

STORY(aliases_are_copies)
{
    CHECK_YAML("a: &x {q: [1]}\nb: *x\nc: [*x, *x]",
               "{\"a\":{\"q\":[1]},\"b\":{\"q\":[1]},\"c\":[{\"q\":[1]},{\"q\":[1]}]}");
    CHECK_YAML("[&x 1, *x, &x 2, *x]", "[1,1,2,2]");
    CHECK_YAML("a: *b", "not YAML: there is no anchor 'b' before this alias at line 1, column 4");
    CHECK_YAML("a: &b [*b]", "not YAML: the alias 'b' stands inside its own anchor at line 1, column 8");
}

STORY(alias_bombs_are_counted)
{
    struct buf b = buf_new(a);
    buf_str(&b, S("a0: &a0 [x,x,x,x,x,x,x,x,x]\n"));
    for (int i = 1; i < 10; i++) {
        buf_fmt(&b, "a%d: &a%d [", i, i);
        for (int k = 0; k < 9; k++)
            buf_fmt(&b, "%s*a%d", k ? "," : "", i - 1);
        buf_str(&b, S("]\n"));
    }
    struct strs docs;
    CHECK_ERR(yaml_to_json(a, buf_get(&b), &docs), TOO_LARGE);
    struct buf deep = buf_new(a);
    buf_str(&deep, S("- &a0 [x]\n"));
    for (int i = 1; i < 70; i++)
        buf_fmt(&deep, "- &a%d [*a%d]\n", i, i - 1);
    CHECK_ERR(yaml_to_json(a, buf_get(&deep), &docs), TOO_LARGE);
}

STORY(depth_is_bounded)
{
    struct strs docs;
    struct buf b = buf_new(a);
    for (int i = 0; i < 64; i++)
        buf_str(&b, S("["));
    for (int i = 0; i < 64; i++)
        buf_str(&b, S("]"));
    CHECK_OK(yaml_to_json(a, buf_get(&b), &docs));
    CHECK_ERR(yaml_to_json(a, fmt(a, "[%.*s]", STR(buf_get(&b))), &docs), TOO_LARGE);
    for (int i = 0; i < 100000; i++)
        buf_str(&b, S("{"));
    CHECK(yaml_to_json(a, str_sub(buf_get(&b), 128, b.n), &docs));
}

STORY(errors_say_where)
{
    CHECK_YAML("a: 1\nb: 2\na: 3\n", "not YAML: the key 'a' of line 1 is given again at line 3, column 1");
    CHECK_YAML("x:\n  - b: {q: 1,\n     q: 2}\n",
               "not YAML: the key 'q' of line 2 is given again at line 3, column 6");
    CHECK_YAML("a: b: c", "not YAML: mapping values are not allowed in this context at line 1, column 5");
    CHECK_YAML(
        "<<: 1",
        "not YAML: merge keys ('<<') are not part of YAML 1.2; write the fields out at line 1, column 1");
    CHECK_YAML("a: .inf", "not YAML: '.inf' has no form in JSON at line 1, column 4");
    CHECK_YAML("? [a]\n: 1", "not YAML: a key must be text at line 1, column 3");
    CHECK_YAML("a: !foo 1", "not YAML: the tag '!foo' is not understood at line 1, column 4");
    CHECK_YAML("a: !!int x",
               "not YAML: the value is not what its tag 'tag:yaml.org,2002:int' says at line 1, column 4");
    struct strs docs;
    CHECK_ERR(yaml_to_json(a, S("a: \xff"), &docs), INVALID);
    CHECK_ERR(yaml_to_json(a, S("a: [1"), &docs), INVALID);
    CHECK_ERR(yaml_to_json(a, fmt(a, "1%0400d", 0), &docs), INVALID);
    CHECK_ERR(yaml_to_json(a, S("1e999"), &docs), INVALID);
}

static struct str yaml_of(const char *json)
{
    struct str out = S("");
    CHECK_OK(json_to_yaml(a, str_of(json), &out));
    return out;
}

STORY(written_in_blocks)
{
    CHECK_STR(
        yaml_of(
            "{\"name\":\"fares\",\"every\":\"2h\",\"on\":true,\"tags\":[\"yes\",\"1\",\"a b\",null],\"none\":{},"
            "\"rules\":[{\"column\":\"x\",\"max\":1.5},[1,[2]]],\"sql\":\"select 1\\nfrom t\\n\","
            "\"image\":\"python:3.11\",\"when\":\"2001-05-01\"}"),
        "name: fares\nevery: 2h\n\"on\": true\ntags:\n  - \"yes\"\n  - \"1\"\n  - a b\n  - null\nnone: {}\n"
        "rules:\n  - column: x\n    max: 1.5\n  - - 1\n    - - 2\nsql: |\n  select 1\n  from t\n"
        "image: python:3.11\nwhen: \"2001-05-01\"\n");
    CHECK_STR(yaml_of("\"x\""), "x\n");
    CHECK_STR(yaml_of("[]"), "[]\n");
    struct str out;
    CHECK_ERR(json_to_yaml(a, S("{"), &out), INVALID);
}

/* ---- JSON → YAML → JSON ---- */

static uint64_t seed = 7;

static uint64_t draw(uint64_t below)
{
    return splitmix(&seed) % below;
}

static struct str text_drawn(void)
{
    static const char *const parts[] = { "a",
                                         "yes",
                                         "\n",
                                         "\n\n",
                                         "\"",
                                         "\\",
                                         "é",
                                         "\t",
                                         "\x01",
                                         " ",
                                         "0",
                                         "漢",
                                         "😀",
                                         ": ",
                                         " #",
                                         "- ",
                                         "'",
                                         "null",
                                         "1e3",
                                         "\xc2\x85",
                                         "\xe2\x80\xa8",
                                         "\xef\xbb\xbf",
                                         "\xef\xbf\xbe",
                                         "\r",
                                         "\x7f",
                                         "?",
                                         "|",
                                         ">",
                                         "%",
                                         "@",
                                         "`",
                                         "{",
                                         "]",
                                         ",",
                                         "&",
                                         "*",
                                         "!",
                                         "...",
                                         "---",
                                         "0x1",
                                         "2001-05-01",
                                         "~",
                                         "<<",
                                         "=" };
    struct buf b = buf_new(a);
    for (uint64_t n = draw(5); n-- > 0;)
        buf_str(&b, str_of(parts[draw(sizeof parts / sizeof *parts)]));
    if (draw(200) == 0)
        for (int i = 0; i < 1500; i++)
            buf_put(&b, i % 7 ? "x" : "\x01", 1);
    return buf_get(&b);
}

static void value_drawn(struct json *j, int depth)
{
    switch (draw(depth > 4 ? 5 : 7)) {
    case 0:
        json_null(j);
        return;
    case 1:
        json_bool(j, draw(2));
        return;
    case 2:
        json_i64(j, (int64_t)splitmix(&seed));
        return;
    case 3:
        json_f64(j, (double)draw(1000000) / 64 - 1000);
        return;
    case 4:
        json_str(j, text_drawn());
        return;
    case 5:
        json_arr(j);
        for (uint64_t n = draw(4); n-- > 0;)
            value_drawn(j, depth + 1);
        json_arr_end(j);
        return;
    default:
        json_obj(j);
        for (uint64_t n = draw(4); n-- > 0;) {
            json_key(j, fmt(a, "%.*s%d", STR(text_drawn()), (int)n));
            value_drawn(j, depth + 1);
        }
        json_obj_end(j);
    }
}

STORY(there_and_back)
{
    for (int i = 0; i < 20000; i++) {
        struct json j = json_new(a);
        json_arr(&j); /* a lone null would be an empty document */
        value_drawn(&j, 0);
        json_arr_end(&j);
        struct str yaml;
        struct strs docs;
        CHECK_OK(json_to_yaml(a, json_get(&j), &yaml));
        err e = yaml_to_json(a, yaml, &docs);
        if (e)
            cr_assert_fail("%.*s\n%.*s", STR(e->text), STR(yaml));
        CHECK(docs.n == 1);
        CHECK_STR(docs.v[0], json_get(&j));
        arena_reset(a);
    }
}
