// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_rest_read
#include "rest_help.h"

#define ONE(more) "{\"inputs\":[{\"name\":\"x\"," more "}]}"

static struct tensor tensor_from(struct arena *a, const char *type, const char *shape, const char *data)
{
    struct infer *c;
    CHECK_OK(
        rest_json(a, fmtz(a, ONE("\"datatype\":\"%s\",\"shape\":%s,\"data\":%s"), type, shape, data), &c));
    CHECK(c->inputs_n == 1);
    return c->inputs[0].t;
}

TEST(numbers_of_all_types_stay_in_range)
{
    static const struct {
        const char *type, *data;
        bool ok;
    } rows[] = {
        { "INT8", "[127,-128]", true },
        { "INT8", "[128,0]", false },
        { "INT8", "[0,-129]", false },
        { "INT8", "[-0,0]", true },
        { "UINT8", "[255,0]", true },
        { "UINT8", "[256,0]", false },
        { "UINT8", "[-1,0]", false },
        { "UINT16", "[65535,65536]", false },
        { "INT16", "[32767,-32768]", true },
        { "UINT32", "[4294967295,0]", true },
        { "UINT32", "[4294967296,0]", false },
        { "INT64", "[9223372036854775807,-9223372036854775808]", true },
        { "INT64", "[9223372036854775808,0]", false },
        { "INT64", "[0,-9223372036854775809]", false },
        { "UINT64", "[18446744073709551615,0]", true },
        { "UINT64", "[18446744073709551616,0]", false },
        { "UINT64", "[99999999999999999999999999,0]", false },
        { "INT32", "[1.0,0]", false },
        { "INT32", "[1e2,0]", false },
        { "INT32", "[01,0]", false },
        { "INT32", "[\"1\",0]", false },
        { "INT32", "[null,0]", false },
        { "BOOL", "[true,false]", true },
        { "BOOL", "[1,0]", false },
        { "BOOL", "[truefalse]", false },
        { "BYTES", "[\"a\",\"\"]", true },
        { "BYTES", "[1,2]", false },
        { "BYTES", "[\"a\"\"b\"]", false },
        { "FP32", "[1e39,2]", false },
        { "FP32", "[3.4028235e38,null]", true },
        { "FP32", "[1e400,2]", false },
        { "FP32", "[1,2,]", false },
        { "FP32", "[,1]", false },
        { "FP32", "[1 2]", false },
        { "FP32", "[1,2", false },
        { "FP32", "[true,2]", false },
        { "FP64", "[1e308,null]", true },
        { "FP64", "[NaN,-Infinity]", true },
        { "FP64", "[1e309,1]", false },
        { "FP16", "[1,2]", false },
        { "BF16", "[1,2]", false },
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int late = 0; late < 2; late++) { /* the data behind its type, and before it */
            struct infer *c;
            const char *form = late ? ONE("\"data\":%2$s,\"shape\":[2],\"datatype\":\"%1$s\"")
                                    : ONE("\"shape\":[2],\"datatype\":\"%1$s\",\"data\":%2$s");
            char text[400];
            snprintf(text, sizeof text, form, rows[i].type, rows[i].data);
            err e = rest_json(a, text, &c);
            cr_assert(!e == rows[i].ok, "%s: %.*s", text, STR(e ? e->text : S("is taken")));
            CHECK(!e || e->code == INVALID);
            struct buf b = buf_new(a);
            if (e)
                continue;
            CHECK_OK(tensor_write(&b, S("x"), &c->inputs[0].t));
            if (strchr("IUB", rows[i].type[0]) && !strstr(rows[i].data, "-0"))
                CHECK(memmem(b.p, b.n, rows[i].data, strlen(rows[i].data)));
        }
}

TEST(data_is_flat_or_nested_as_the_shape_says)
{
    auto_arena struct arena *a = arena_new(0);
    static const char *const same[] = { "[1,2,3,4,5,6,7,8,9,10,11,12]",
                                        "[[[1,2],[3,4],[5,6]],[[7,8],[9,10],[11,12]]]",
                                        " [ [[1 , 2],\n[3,4],[5,6] ] ,[[7,8],[9,10],[11,12]\t]\r] " };
    for (size_t i = 0; i < 3; i++) {
        struct tensor t = tensor_from(a, "FP32", "[2,3,2]", same[i]),
                      u = tensor_from(a, "INT16", "[2,3,2]", same[i]);
        CHECK(t.rank == 3 && t.dims[1] == 3 && t.bytes == 48 && u.bytes == 24);
        for (int k = 0; k < 12; k++)
            CHECK(((float *)t.data)[k] == (float)(k + 1) && ((int16_t *)u.data)[k] == k + 1);
    }
    CHECK(*(float *)tensor_from(a, "FP32", "[]", "[7.5]").data == 7.5f);
    CHECK(*(float *)tensor_from(a, "FP32", "[1,1,1,1,1,1,1,1]", "[[[[[[[[7.5]]]]]]]]").data == 7.5f);
    static const char *const wrong[] = { "[[1,2],[3,4],[5,6],[7,8],[9,10],[11,12]]",
                                         "[[[1,2],[3,4],[5,6]]]",
                                         "[[[1,2],[3,4],[5,6]],[[7,8],[9,10],[11]]]",
                                         "[[[1,2],[3,4],[5,6]],7]",
                                         "[1,2,3,4,5,6,7,8,9,10,11]",
                                         "[1,2,3,4,5,6,7,8,9,10,11,12,13]",
                                         "[]",
                                         "[[]]",
                                         "[[[1,2],[3,4],[5,6]] [[7,8],[9,10],[11,12]]]",
                                         "{}",
                                         "7",
                                         "null",
                                         "\"\"",
                                         "[[[1,2],[3,4],[5,6]],[[7,8],[9,10],[11,12]]" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct infer *c;
        CHECK_ERR(
            rest_json(a, fmtz(a, ONE("\"datatype\":\"FP32\",\"shape\":[2,3,2],\"data\":%s"), wrong[i]), &c),
            INVALID);
    }
}

TEST(texts_are_views_until_they_have_escapes)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *c;
    CHECK_OK(rest_json(
        a,
        ONE("\"datatype\":\"BYTES\",\"shape\":[5],\"data\":[\"plain\",\"\\\"\\\\\\/\\b\\f\\n\\r\\t\","
            "\"\\u0041\\u00e9\\u20AC\\ud83d\\ude00\",\"\303\251\",\"a\\u0000b\"]"),
        &c));
    const struct str *v = c->inputs[0].t.data;
    CHECK_STR(v[0], "plain");
    CHECK(v[0].p >= c->r->body.p && v[0].p < c->r->body.p + c->r->body.n);
    CHECK_STR(v[1], "\"\\/\b\f\n\r\t");
    CHECK_STR(v[2], "A\303\251\342\202\254\360\237\230\200");
    CHECK_STR(v[3], "\303\251");
    CHECK(v[4].n == 3 && v[4].p[1] == 0);
    static const char *const wrong[] = {
        "\"\\x\"", "\"\\u12g4\"",  "\"\\ud83d\"",      "\"\\ude00\"", "\"\\ud83d\\u0041\"",
        "\"\n\"",  "\"\377\"",     "\"\303\"",         "\"open",      "\"\\",
        "\"\\u12", "\"\300\200\"", "\"\355\240\200\"", "'a'"
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_ERR(
            rest_json(a, fmtz(a, ONE("\"datatype\":\"BYTES\",\"shape\":[1],\"data\":[%s]"), wrong[i]), &c),
            INVALID);
}

#define X "\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]"

TEST(bodies_that_are_not_the_protocols)
{
    static const char *const bodies[] = {
        "",
        " ",
        "null",
        "{" X "} x",
        "{" X "}}",
        "{" X ",}",
        "{" X "," X "}",
        "{\"id\":\"a\",\"id\":\"a\"," X "}",
        "{" X ",\"parameters\":{\"a\":1,\"a\":2}}",
        "{" X ",\"parameters\":{\"priority\":1,\"priority\":1}}",
        "{" X ",\"parameters\":[]}",
        "{" X ",\"parameters\":{\"a\":{]}}",
        "{" X ",\"parameters\":{\"a\":[1,]}}",
        "{" X ",\"parameters\":{\"triton_x\":[1]}}",
        "{" X ",\"parameters\":{\"priority\":[1]}}",
        "{" X ",\"what\":tru}",
        "{" X ",\"what\":{\"a\" 1}}",
        "{" X ",\"what\":1,\"what\":1}",
        "{" X ",\"id\":7}",
        "{" X ",\"parameters\":{\"triton_final_response\":true}}",
        "{" X ",\"parameters\":{\"priority\":-1}}",
        "{" X ",\"parameters\":{\"priority\":\"1\"}}",
        "{" X ",\"parameters\":{\"priority\":4294967296}}",
        "{" X ",\"parameters\":{\"timeout\":1.5}}",
        "{" X ",\"parameters\":{\"timeout\":99999999999999999999}}",
        "{" X ",\"parameters\":{\"sequence_start\":1}}",
        "{" X ",\"parameters\":{\"sequence_id\":-1}}",
        "{" X ",\"parameters\":{\"sequence_id\":1.5}}",
        "{" X ",\"parameters\":{\"sequence_id\":true}}",
        "{" X ",\"parameters\":{\"binary_data_output\":1}}",
        "{" X ",\"outputs\":[1]}",
        "{" X ",\"outputs\":[{}]}",
        "{" X ",\"outputs\":[{\"name\":\"\"}]}",
        "{" X ",\"outputs\":[{\"name\":\"y\",\"name\":\"y\"}]}",
        "{" X ",\"outputs\":[{\"name\":\"y\",\"shape\":[01]}]}",
        "{" X ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":-1}}]}",
        "{" X ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"binary_data\":1}}]}",
        "{" X ",\"outputs\":[{\"name\":\"y\",\"parameters\":{\"shared_memory_region\":\"r\"}}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1],\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\"}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":4}}]}",
        "{\"inputs\":[{\"name\":\"\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"fp32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[1e0],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[-9223372036854775808],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"shape\":[2147483647,2147483647],\"datatype\":\"FP32\",\"data\":[1]}]}",
        "{\"inputs\":[{\"name\":\"x\",\"data\":[1]x,\"shape\":[1],\"datatype\":\"FP32\"}]}",
        "{\"inputs\":[{\"name\":\"x\",\"data\":[1}],\"shape\":[1],\"datatype\":\"FP32\"}]}",
        "{\"inputs\":[{\"name\":\"x\",\"data\":1],\"shape\":[1],\"datatype\":\"FP32\"}]}",
        "{" X ",\"ids\":[1.5]}",
        "{" X ",\"ids\":[null]}",
        "{" X ",\"ids\":7}",
        "{\"entities\":7,\"inputs\":[]}",
        "{\"entities\":{\"a\":[1],\"a\":[2]}}",
        "{\"entities\":{\"a\":[01]}}",
        "{\"entities\":}",
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct infer *c;
        err e = rest_json(a, bodies[i], &c);
        cr_assert(e && e->code == INVALID, "%s", bodies[i]);
    }
}

TEST(parameters_say_what_the_protocol_says)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *c;
    CHECK_OK(rest_json(
        a,
        "{\"parameters\":{\"version\":3,\"sequence_id\":18446744073709551615,\"sequence_start\":true,"
        "\"sequence_end\":false,\"priority\":2,\"timeout\":1500,\"binary_data_output\":true,"
        "\"other\":\"is passed over\",\"more\":1.5},\"id\":\"r\\n1\"," X ",\"ids\":[\"a\",77,-1],"
        "\"outputs\":[{\"name\":\"y\"},{\"name\":\"z\",\"parameters\":{\"binary_data\":false,"
        "\"classification\":3}}],\"model_name\":\"m\",\"model_version\":\"\"}",
        &c));
    CHECK_STR(c->p.version, "3");
    CHECK_STR(c->p.sequence, "18446744073709551615");
    CHECK(c->p.sequence_start && !c->p.sequence_end && c->p.priority == 2 && c->p.timeout_us == 1500);
    CHECK_STR(c->id, "r\n1");
    CHECK(c->row_ids_n == 3);
    CHECK_STR(c->row_ids[1], "77");
    CHECK(c->asked_n == 2 && c->asked[0].binary && !c->asked[0].classes);
    CHECK(!c->asked[1].binary && c->asked[1].classes == 3);
    CHECK_OK(rest_json(a, "{" X ",\"parameters\":{\"sequence_id\":0}}", &c));
    CHECK(!c->p.sequence.n && !c->row_ids && !c->asked_n);
    CHECK_OK(rest_json(a, "{" X ",\"parameters\":null,\"ids\":null,\"outputs\":null}", &c));
}

/* Clients of other servers send more than the protocol has. */
TEST(what_nobody_knows_is_passed_over)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *c;
    CHECK_OK(rest_json(
        a,
        "{\"id\":null,\"more\":{\"a\":[1,{\"b\":null}]},\"parameters\":{\"content_type\":{\"of\":[\"np\"]},\"headers\":[],"
        "\"priority\":null,\"timeout\":7},\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"FP32\",\"tags\":[\"a\"],"
        "\"parameters\":{\"content_type\":\"np\",\"n\":{}},\"data\":[1]}],"
        "\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"k\":[]}}]}",
        &c));
    CHECK(!c->id.n && !c->p.priority && c->p.timeout_us == 7 && c->inputs_n == 1);
    CHECK(c->asked_n == 1 && !c->asked[0].binary);
}

TEST(depth_and_number_of_things_have_limits)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *c;
    static const char *const before[] = { "{\"inputs\":[{\"data\":", "{\"entities\":", "{\"id\":",
                                          "{\"parameters\":",
                                          "{\"inputs\":[{\"shape\":[2],\"datatype\":\"FP32\",\"data\":" };
    for (size_t i = 0; i < 5; i++)
        for (int k = 0; k < 2; k++) {
            struct buf b = buf_new(a);
            buf_str(&b, str_of(before[i]));
            for (int n = 0; n < 200000; n++)
                buf_str(&b, k ? S("{\"a\":") : S("["));
            buf_put(&b, "", 1);
            CHECK_ERR(rest_json(a, b.p, &c), INVALID);
        }
    struct buf b = buf_new(a), p = buf_new(a);
    buf_str(&b, S("{" X ",\"outputs\":["));
    buf_str(&p, S("{" X ",\"parameters\":{"));
    for (int i = 0; i < 100000; i++) {
        buf_fmt(&b, "%s{\"name\":\"y\"}", i ? "," : "");
        buf_fmt(&p, "%s\"k%d\":1", i ? "," : "", i);
    }
    buf_put(&b, "]}", 3);
    buf_put(&p, "}}", 3);
    CHECK_ERR(rest_json(a, b.p, &c), INVALID);
    CHECK_ERR(rest_json(a, p.p, &c), INVALID);
}

/* ---- binary ---- */

#define BIN(type, shape, size)                                   \
    "{\"name\":\"x\",\"datatype\":\"" type "\",\"shape\":" shape \
    ",\"parameters\":{\"binary_data_size\":" size "}}"

TEST(bytes_become_tensors_where_they_lie)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *c;
    static const char raw[] = "\x01\0\0\0\x02\0\0\0\x05\0\0\0hello\0\0\0\0\0\x3c\0\x40";
    for (int pad = 0; pad < 4; pad++) { /* so that the bytes begin at each remainder */
        struct str json = fmt(a,
                              "{\"inputs\":[" BIN("INT32", "[2]", "8") "," BIN(
                                  "BYTES", "[2]", "13") ",%.*s" BIN("FP16", "[2,1]", "3") "]}",
                              pad, "    ");
        struct str good = fmt(a, "%.*s", STR(json));
        ((char *)(uintptr_t)good.p)[good.n - 5] = '4';
        CHECK_OK(rest_binary(a, good, (struct str){ raw, sizeof raw - 1 }, &c));
        const int32_t *v = c->inputs[0].t.data;
        CHECK(v[0] == 1 && v[1] == 2 && (uintptr_t)v % 4 == 0);
        const char *from = c->r->body.p + good.n;
        CHECK((uintptr_t)from % 4 ? (const char *)v != from : (const char *)v == from);
        const struct str *texts = c->inputs[1].t.data;
        CHECK_STR(texts[0], "hello");
        CHECK(texts[1].n == 0 && texts[0].p == from + 12);
        CHECK(c->inputs[2].t.type == TENSOR_F16 && c->inputs[2].t.bytes == 4);
        CHECK(((const uint16_t *)c->inputs[2].t.data)[1] == 0x4000);
        CHECK_ERR(rest_binary(a, json, (struct str){ raw, sizeof raw - 1 }, &c), INVALID);
    }
}

TEST(bytes_that_do_not_fit_are_refused)
{
    static const struct {
        const char *inputs;
        size_t bytes;
    } rows[] = {
        { BIN("FP32", "[2]", "8"), 7 },
        { BIN("FP32", "[2]", "8"), 9 },
        { BIN("FP32", "[2]", "8"), 0 },
        { BIN("FP32", "[2]", "4"), 4 },
        { BIN("FP32", "[2]", "-8"), 8 },
        { BIN("FP32", "[2]", "\"8\""), 8 },
        { BIN("FP32", "[2]", "8.0"), 8 },
        { BIN("FP32", "[2]", "99999999999999999999"), 8 },
        { BIN("FP32", "[2]", "9223372036854775807"), 8 },
        { BIN("FP32", "[1152921504606846976,16]", "0"), 0 },
        { BIN("FP32", "[4611686018427387904,16]", "0"), 0 },
        { BIN("FP32", "[65536,65536]", "0"), 0 },
        { BIN("FP32", "[0]", "0"), 0 },
        { BIN("FP32", "[2]", "8") "," BIN("FP32", "[2]", "8"), 8 },
        { BIN("BYTES", "[1]", "8"), 8 }, /* lengths of 0x78787878 */
        { BIN("BYTES", "[1]", "3"), 3 },
        { BIN("BYTES", "[1]", "0"), 0 },
        { BIN("BYTES", "[2147483647]", "8"), 8 },
        { BIN("BOOL", "[2]", "2"), 2 },
        { "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1],\"parameters\":{\"binary_data_size\":4}}",
          4 },
        { "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"data\":[1]}", 4 },
        { "{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1],\"parameters\":{\"shared_memory_region\":\"r\"}}",
          0 },
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct infer *c;
        err e = rest_binary(a, fmt(a, "{\"inputs\":[%s]}", rows[i].inputs),
                            (struct str){ "xxxxxxxxxxxxxxxx", rows[i].bytes }, &c);
        cr_assert(e && e->code == INVALID, "%s", rows[i].inputs);
    }
    struct infer *c;
    CHECK_ERR(rest_binary(a, S("{\"inputs\":[" BIN("BYTES", "[2]", "9") "]}"),
                          (struct str){ "\x01\0\0\0a\0\0\0\0", 9 - 1 }, &c),
              INVALID);
    CHECK_ERR(rest_binary(a, S("{\"inputs\":[" BIN("BYTES", "[1]", "9") "]}"),
                          (struct str){ "\x01\0\0\0a\0\0\0\0", 9 }, &c),
              INVALID);
}

TEST(the_length_of_the_json_is_a_number_within_the_body)
{
    auto_arena struct arena *a = arena_new(0);
    static const char *const lengths[] = { "-5",   "+5",  "12x", "", "99999", "100000000000000000000",
                                           "0x10", "1e1", "79" };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct header h = { S("inference-header-content-length"), str_of(lengths[i]) };
        struct infer *c = rest_new(a, S("{" X "}"), &h, 1);
        if (!*lengths[i]) {
            CHECK_OK(rest_read(c)); /* as if it were not there */
            continue;
        }
        CHECK_ERR(rest_read(c), INVALID);
    }
}

TEST(json_and_bytes_of_the_same_numbers_are_the_same_tensor)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t seed = 9;
    float v[500];
    struct buf b = buf_new(a);
    struct infer *c, *d;
    for (int i = 0; i < 500; i++) {
        uint32_t bits = (uint32_t)splitmix(&seed);
        memcpy(&v[i], &bits, sizeof bits);
        v[i] = isfinite(v[i]) ? v[i] : 0.1f;
    }
    struct tensor t = { .type = TENSOR_F32, .rank = 2, .dims = { 50, 10 }, .data = v, .bytes = sizeof v };
    buf_str(&b, S("{\"inputs\":["));
    CHECK_OK(tensor_write(&b, S("x"), &t));
    buf_put(&b, "]}", 3);
    CHECK_OK(rest_json(a, b.p, &c));
    CHECK_OK(rest_binary(a, S("{\"inputs\":[" BIN("FP32", "[50,10]", "2000") "]}"),
                         (struct str){ (char *)v, sizeof v }, &d));
    CHECK(!memcmp(c->inputs[0].t.data, v, sizeof v) && !memcmp(d->inputs[0].t.data, v, sizeof v));
}

/* ---- classes ---- */

TEST(classes_are_the_best_first)
{
    auto_arena struct arena *a = arena_new(0);
    float v[] = { 0.1f, 0.7f, NAN, 0.2f, 5, 5, -1, INFINITY };
    struct tensor_spec y = { .name = S("y") };
    struct session_info one = { .outputs = &y, .n_outputs = 1 };
    struct tensor out, t = { .type = TENSOR_F32, .rank = 2, .dims = { 2, 4 }, .data = v, .bytes = sizeof v };
    CHECK_OK(classes_of(a, &one, &t, 3, &out));
    const struct str *s = out.data;
    CHECK(out.type == TENSOR_TEXT && out.rank == 2 && out.dims[0] == 2 && out.dims[1] == 3 &&
          out.bytes == 6 * sizeof *s);
    static const char *const want[] = { "0.700000:1", "0.200000:3", "0.100000:0",
                                        "inf:3",      "5.000000:0", "5.000000:1" };
    for (int i = 0; i < 6; i++)
        CHECK_STR(s[i], str_of(want[i]));
    t.rank = 1;
    t.dims[0] = 8;
    CHECK_OK(classes_of(a, &one, &t, 1000000, &out));
    s = out.data;
    CHECK(out.rank == 1 && out.dims[0] == 8);
    CHECK_STR(s[7], "nan:2");
    int64_t whole[] = { -9223372036854775807, 4, 9007199254740993 };
    t = (struct tensor){ .type = TENSOR_I64, .rank = 1, .dims = { 3 }, .data = whole, .bytes = sizeof whole };
    CHECK_OK(classes_of(a, &one, &t, 1, &out));
    CHECK_STR(*(struct str *)out.data, "9007199254740993:2");
    t.type = TENSOR_TEXT;
    CHECK_ERR(classes_of(a, &one, &t, 1, &out), INVALID);
}

TEST(classes_have_the_names_that_the_model_knows)
{
    auto_arena struct arena *a = arena_new(0);
    float v[] = { 0.25f, 0.75f, 1, 0 };
    struct tensor_spec y = { .name = S("y") };
    struct str names[] = { S("Ulm"), S("K\xc3\xb6ln") };
    struct strs labels = { names, 2, 2 };
    struct session_info info = { .outputs = &y, .n_outputs = 1, .labels = &labels };
    struct tensor out, t = { .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = v, .bytes = sizeof v };
    CHECK_OK(classes_of(a, &info, &t, 1, &out));
    const struct str *s = out.data;
    CHECK_STR(s[0], "0.750000:1:K\xc3\xb6ln");
    CHECK_STR(s[1], "1.000000:0:Ulm");
    t.dims[0] = 1, t.dims[1] = 4; /* columns that the names are not of */
    CHECK_OK(classes_of(a, &info, &t, 1, &out));
    CHECK_STR(((const struct str *)out.data)[0], "1.000000:2");
}
