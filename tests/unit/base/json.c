// SPDX-License-Identifier: Apache-2.0
#define SUITE base_json
#include "test.h"
#include <math.h>

TEST(commas_and_nesting)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "name", S("x"));
    json_ki64(&j, "n", INT64_MIN);
    json_kf64(&j, "loss", 0.25);
    json_kbool(&j, "ok", true);
    json_kraw(&j, "raw", S("[1]"));
    json_key(&j, S("list"));
    json_arr(&j);
    json_obj(&j);
    json_obj_end(&j);
    json_arr(&j);
    json_arr_end(&j);
    json_null(&j);
    json_str(&j, S(""));
    json_arr_end(&j);
    json_obj_end(&j);
    CHECK_STR(json_get(&j),
              "{\"name\":\"x\",\"n\":-9223372036854775808,\"loss\":0.25,\"ok\":true,\"raw\":[1],"
              "\"list\":[{},[],null,\"\"]}");
}

static struct str quoted(struct arena *a, struct str s)
{
    struct json j = json_new(a);
    json_str(&j, s);
    return json_get(&j);
}

TEST(text_is_escaped)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(quoted(a, S("a\"b\\c/")), "\"a\\\"b\\\\c/\"");
    CHECK_STR(quoted(a, S("\n\r\t\b\f\x01\x1f\x7f")), "\"\\n\\r\\t\\b\\f\\u0001\\u001f\\u007f\"");
    CHECK_STR(quoted(a, S("a\0b")), "\"a\\u0000b\"");
    CHECK_STR(quoted(a, S("\xe2\x82\xac")), "\"\xe2\x82\xac\"");
    CHECK_STR(quoted(a, (struct str){ 0 }), "\"\"");
}

TEST(broken_utf8_is_replaced)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(quoted(a, S("a\xffz")), "\"a\xef\xbf\xbdz\"");
    CHECK_STR(quoted(a, S("\xc3")), "\"\xef\xbf\xbd\"");
    CHECK_STR(quoted(a, S("\xc3\"")), "\"\xef\xbf\xbd\\\"\"");
    CHECK_STR(quoted(a, S("\xe2\x82")), "\"\xef\xbf\xbd\xef\xbf\xbd\"");
}

static struct str number(struct arena *a, double v)
{
    struct json j = json_new(a);
    json_f64(&j, v);
    return json_get(&j);
}

TEST(numbers_are_short)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(number(a, 0), "0");
    CHECK_STR(number(a, -0.0), "-0.0");
    CHECK_STR(number(a, 100), "100");
    CHECK_STR(number(a, -2.5), "-2.5");
    CHECK_STR(number(a, 0.1), "0.1");
    CHECK_STR(number(a, 0.1 + 0.2), "0.30000000000000004");
    CHECK_STR(number(a, 123456.789), "123456.789");
    CHECK_STR(number(a, 1e21), "1e+21");
    CHECK_STR(number(a, 9007199254740991), "9007199254740991");
    CHECK_STR(number(a, 5e-324), "5e-324");
    CHECK_STR(number(a, NAN), "null");
    CHECK_STR(number(a, -INFINITY), "null");
}

/* Bits at random, and decimals as people write them. */
static double any_double(uint64_t *seed)
{
    static const double tens[] = { 1, 10, 100, 1e3, 1e6, 1e9, 1e12, 1e-9 };
    uint64_t bits = splitmix(seed);
    double v;
    memcpy(&v, &bits, sizeof v);
    return bits & 1 ? v : (double)((int64_t)bits >> (bits >> 8 & 63)) / tens[bits >> 1 & 7];
}

TEST(numbers_read_back_bit_for_bit)
{
    uint64_t seed = 7;
    for (int i = 0; i < 200000; i++) {
        double v = any_double(&seed), back;
        if (!isfinite(v))
            continue;
        char text[32];
        size_t n = f64_text(v, text);
        CHECK(n > 0 && n < sizeof text);
        CHECK(str_f64((struct str){ text, n }, &back));
        CHECK(!memcmp(&v, &back, sizeof v));
    }
}
