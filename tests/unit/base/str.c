// SPDX-License-Identifier: Apache-2.0
#define SUITE base_str
#include "test.h"
#include <math.h>

TEST(compare)
{
    CHECK(str_cmp(S("a"), S("b")) < 0 && str_cmp(S("b"), S("a")) > 0);
    CHECK(str_cmp(S("a"), S("ab")) < 0 && str_cmp(S(""), (struct str){ 0 }) == 0);
    CHECK(str_cmp(S("\xff"), S("a")) > 0);
    CHECK(str_eq(S(""), (struct str){ 0 }) && !str_eq(S("a"), S("b")));
    CHECK(str_is(S("live"), "live"));
}

TEST(starts_ends_find_sub_trim)
{
    CHECK(str_starts(S("model/x"), S("model/")) && !str_starts(S("mo"), S("model")));
    CHECK(str_ends(S("a.onnx"), S(".onnx")) && !str_ends(S("x"), S("xx")));
    CHECK(str_starts(S("a"), S("")) && str_ends((struct str){ 0 }, S("")));
    CHECK(str_find(S("a=b"), '=') == 1 && str_find(S("ab"), '=') == 2);
    CHECK_STR(str_sub(S("hello"), 1, 3), "el");
    CHECK_STR(str_sub(S("hello"), 3, 99), "lo");
    CHECK_STR(str_sub(S("hello"), 9, 2), "");
    CHECK_STR(str_trim(S(" \t a b\r\n")), "a b");
    CHECK_STR(str_trim(S(" \n ")), "");
}

static struct str cut_and_join(struct arena *a, struct str s)
{
    struct strs parts = { 0 };
    for (struct str part; str_cut(&s, ',', &part);)
        push(a, &parts, part);
    return fmt(a, "%zu:%.*s", parts.n, STR(str_join(a, parts.v, parts.n, S("|"))));
}

TEST(cut)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(cut_and_join(a, S("")), "0:");
    CHECK_STR(cut_and_join(a, (struct str){ 0 }), "0:");
    CHECK_STR(cut_and_join(a, S("a")), "1:a");
    CHECK_STR(cut_and_join(a, S("a,")), "2:a|");
    CHECK_STR(cut_and_join(a, S(",")), "2:|");
    CHECK_STR(cut_and_join(a, S(",,b,c,")), "5:||b|c|");
}

TEST(copies_are_terminated)
{
    auto_arena struct arena *a = arena_new(0);
    struct str d = str_dup(a, str_sub(S("hello"), 0, 4));
    CHECK(d.n == 4 && d.p[4] == 0);
    CHECK_STR(str_z(a, (struct str){ 0 }), "");
    CHECK(str_has_nul(S("a\0b")) && !str_has_nul(S("ab")) && !str_has_nul((struct str){ 0 }));
}

TEST(utf8)
{
    CHECK(str_utf8_ok(S("")) && str_utf8_ok(S("plain text, long enough for eight")));
    CHECK(str_utf8_ok(S("gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x9a\xa2")));
    CHECK(str_utf8_ok(S("\xf4\x8f\xbf\xbf")) && str_utf8_ok(S("\xed\x9f\xbf")));
    static const struct str bad[] = { S_INIT("\x80"),
                                      S_INIT("\xc0\x80"),
                                      S_INIT("\xc1\xbf"),
                                      S_INIT("\xe0\x9f\xbf"),
                                      S_INIT("\xed\xa0\x80"),
                                      S_INIT("\xf0\x8f\xbf\xbf"),
                                      S_INIT("\xf4\x90\x80\x80"),
                                      S_INIT("\xf5\x80\x80\x80"),
                                      S_INIT("\xe2\x82"),
                                      S_INIT("\xc3"),
                                      S_INIT("\xff"),
                                      S_INIT("12345678\xc3(") };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!str_utf8_ok(bad[i]));
}

TEST(fmt_short_and_long)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(fmt(a, "%s-%d", "x", 7), "x-7");
    CHECK_STR(fmtz(a, "%.*s", STR(S("abc"))), "abc");
    for (int n = 250; n < 262; n++) {
        struct str s = fmt(a, "%*d", n, 1);
        CHECK(s.n == (size_t)n && s.p[n - 1] == '1' && s.p[n] == 0);
    }
}

TEST(integers)
{
    int64_t v = 5;
    CHECK(str_i64(S("9223372036854775807"), &v) && v == INT64_MAX);
    CHECK(str_i64(S("-9223372036854775808"), &v) && v == INT64_MIN);
    CHECK(str_i64(S("+007"), &v) && v == 7);
    static const struct str bad[] = { S_INIT(""),    S_INIT("-"),
                                      S_INIT("1 "),  S_INIT(" 1"),
                                      S_INIT("1x"),  S_INIT("1.0"),
                                      S_INIT("0x1"), S_INIT("9223372036854775808"),
                                      S_INIT("--1"), S_INIT("-9223372036854775809"),
                                      S_INIT("1\0") };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!str_i64(bad[i], &v));
    CHECK(v == 7); /* written on success only */
}

TEST(reals)
{
    static const struct {
        struct str text;
        double v;
    } good[] = {
        { S_INIT("0"), 0 },
        { S_INIT("1.5"), 1.5 },
        { S_INIT(".5"), .5 },
        { S_INIT("5."), 5 },
        { S_INIT("-2e3"), -2000 },
        { S_INIT("1E-2"), 0.01 },
        { S_INIT("1e+22"), 1e22 },
        { S_INIT("1e23"), 1e23 },
        { S_INIT("0.1"), 0.1 },
        { S_INIT("123456789012345678901234567890"), 123456789012345678901234567890.0 },
        { S_INIT("0.30000000000000004"), 0.30000000000000004 },
        { S_INIT("5e-324"), 5e-324 },
        { S_INIT("1.7976931348623157e308"), 1.7976931348623157e308 },
        { S_INIT("1e-400"), 0 },
    };
    double v = 5;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(str_f64(good[i].text, &v) && v == good[i].v);
    CHECK(str_f64(S("-0"), &v) && v == 0 && signbit(v));
    static const struct str bad[] = { S_INIT(""),      S_INIT("."),   S_INIT("e1"),    S_INIT("1e"),
                                      S_INIT("nan"),   S_INIT("inf"), S_INIT("0x1p3"), S_INIT("1 "),
                                      S_INIT("1e999"), S_INIT("1,5"), S_INIT("- 1"),   S_INIT("1e1.5"),
                                      S_INIT("1\0") };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!str_f64(bad[i], &v));
}

TEST(distance_and_nearest)
{
    CHECK(str_distance(S("kitten"), S("sitting")) == 3);
    CHECK(str_distance(S(""), S("abc")) == 3 && str_distance(S("abc"), S("abc")) == 0);
    static const struct str names[] = { S_INIT("train"), S_INIT("serve"), S_INIT("registry"), S_INIT("") };
    CHECK_STR(str_nearest(S("trian"), names, 4), "train");
    CHECK_STR(str_nearest(S("registyr"), names, 4), "registry");
    CHECK_STR(str_nearest(S("banana"), names, 4), "");
    CHECK_STR(str_nearest(S("x"), names, 4), "");
}

TEST(buffers_grow)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    buf_put(&b, NULL, 0);
    CHECK(buf_get(&b).n == 0);
    for (int i = 0; i < 1000; i++) {
        buf_str(&b, S("<"));
        buf_fmt(&b, "%0*d", i % 130 + 1, i % 10);
    }
    struct str s = buf_get(&b);
    for (int i = 0; i < 1000; i++) {
        size_t n = (size_t)(i % 130 + 2);
        CHECK(s.p[0] == '<' && s.p[n - 1] == '0' + i % 10);
        s = str_sub(s, n, s.n);
    }
    CHECK(s.n == 0);
}
