// SPDX-License-Identifier: Apache-2.0
#define SUITE base_trace
#include "test.h"

#define ID "0af7651916cd43dd8448eb211c80319c"
#define PARENT "b7ad6b7169203331"

static struct str written(const struct trace *t)
{
    static char text[TRACE_TEXT];
    trace_text(t, text);
    return (struct str){ text, sizeof text };
}

TEST(a_trace_goes_on_under_a_span_of_its_own)
{
    struct trace t, u;
    CHECK(trace_parse(S("00-" ID "-" PARENT "-01"), S("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"), &t));
    CHECK(t.sampled);
    CHECK_STR(t.state, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
    CHECK(t.id[0] == 0x0a && t.id[15] == 0x9c && t.parent[0] == 0xb7 && t.parent[7] == 0x31);
    struct str text = written(&t);
    CHECK(str_starts(text, S("00-" ID "-")) && str_ends(text, S("-01")));
    CHECK(trace_parse(text, S(""), &u));
    CHECK(memcmp(u.parent, t.span, 8) == 0 && memcmp(t.span, t.parent, 8) != 0);
    CHECK(memcmp(u.span, t.span, 8) != 0);
}

TEST(only_the_sampled_flag_has_a_meaning)
{
    struct trace t;
    CHECK(trace_parse(S("00-" ID "-" PARENT "-fe"), S(""), &t));
    CHECK(!t.sampled);
    CHECK(str_ends(written(&t), S("-00")));
    CHECK(trace_parse(S("00-" ID "-" PARENT "-ff"), S(""), &t));
    CHECK(t.sampled);
    CHECK(str_ends(written(&t), S("-01")));
}

TEST(later_versions_are_read_as_far_as_they_are_known)
{
    struct trace t;
    CHECK(trace_parse(S("cc-" ID "-" PARENT "-01"), S(""), &t));
    CHECK(trace_parse(S("cc-" ID "-" PARENT "-01-what-comes"), S(""), &t));
    CHECK(str_starts(written(&t), S("00-")));
    CHECK(!trace_parse(S("cc-" ID "-" PARENT "-01.what"), S(""), &t));
}

TEST(what_breaks_a_rule_counts_as_not_sent)
{
    static const char *const broken[] = {
        "",
        "00",
        "00-" ID "-" PARENT,
        "00-" ID "-" PARENT "-1",
        "00-" ID "-" PARENT "-01-",
        "00-" ID "-" PARENT "-01-more",
        "ff-" ID "-" PARENT "-01",
        "0-0" ID "-" PARENT "-01",
        "00_" ID "-" PARENT "-01",
        "00-" ID "_" PARENT "-01",
        "00-" ID "-" PARENT "_01",
        "0g-" ID "-" PARENT "-01",
        "00-00000000000000000000000000000000-" PARENT "-01",
        "00-" ID "-0000000000000000-01",
        "00-0AF7651916CD43DD8448EB211C80319C-" PARENT "-01",
        "00-" ID "-B7AD6B7169203331-01",
        "00-" ID "-" PARENT "-0A",
        " 0-" ID "-" PARENT "-01",
        "00-0af7651916cd43dd8448eb211c80319.-" PARENT "-01",
    };
    struct trace t = { .sampled = true };
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
        cr_assert(!trace_parse(str_of(broken[i]), S("a=1"), &t), "%s", broken[i]);
    CHECK(t.sampled && t.id[0] == 0); /* untouched */
}

TEST(a_broken_tracestate_is_dropped_alone)
{
    static const char *const broken[] = { "a",     "=1",    "a=",   "A=1",   "a=1,a=2", "a=b=c",
                                          "1a=1",  "a@1=2", "@a=1", "a@=1",  "a=\x7f",  "a=\t1",
                                          "a b=1", " , ",   "",     "a=1,b", "a=é",     "a@b@c=1" };
    struct trace t;
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        CHECK(trace_parse(S("00-" ID "-" PARENT "-01"), str_of(broken[i]), &t));
        cr_assert(t.state.n == 0, "%s", broken[i]);
    }
    static const char *const good[] = { "a=1", "1a@b=1", "a=1, b=2 ,", "a*/_-0= x", "a=1,,b=2" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        CHECK(trace_parse(S("00-" ID "-" PARENT "-01"), str_of(good[i]), &t));
        cr_assert(str_eq(t.state, str_of(good[i])), "%s", good[i]);
    }
}

TEST(a_tracestate_has_at_most_32_members)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    struct trace t;
    for (int i = 0; i < 32; i++)
        buf_fmt(&b, "k%d=v,", i);
    CHECK(trace_parse(S("00-" ID "-" PARENT "-01"), buf_get(&b), &t));
    CHECK(t.state.n == b.n);
    buf_str(&b, S("more=1"));
    CHECK(trace_parse(S("00-" ID "-" PARENT "-01"), buf_get(&b), &t));
    CHECK(t.state.n == 0);
}

TEST(a_trace_that_begins_here_is_sampled_and_its_own)
{
    struct trace t, u;
    trace_begin(&t);
    trace_begin(&u);
    CHECK(t.sampled && memcmp(t.id, u.id, 16) != 0);
    CHECK(trace_parse(written(&t), S(""), &u));
}
