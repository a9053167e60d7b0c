// SPDX-License-Identifier: Apache-2.0
#define SUITE base_sys
#include "test.h"
#include <sched.h>

static struct str time_again(struct arena *a, struct str s)
{
    int64_t us;
    return time_parse(s, &us) ? time_text(a, us) : S("refused");
}

TEST(times_are_read_and_written)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(time_text(a, 0), "1970-01-01T00:00:00Z");
    CHECK_STR(time_text(a, -1), "1969-12-31T23:59:59.999999Z");
    CHECK_STR(time_text(a, 1500000), "1970-01-01T00:00:01.500Z");
    CHECK_STR(time_again(a, S("2001-05-01")), "2001-05-01T00:00:00Z");
    CHECK_STR(time_again(a, S("2001-05-01T10:00")), "2001-05-01T10:00:00Z");
    CHECK_STR(time_again(a, S("2001-05-01 10:00:07")), "2001-05-01T10:00:07Z");
    CHECK_STR(time_again(a, S("2001-05-01t10:00:07.25z")), "2001-05-01T10:00:07.250Z");
    CHECK_STR(time_again(a, S("2001-05-01T10:00:07.000001Z")), "2001-05-01T10:00:07.000001Z");
    CHECK_STR(time_again(a, S("2001-05-01T00:30+02:30")), "2001-04-30T22:00:00Z");
    CHECK_STR(time_again(a, S("2000-02-29T23:59:59-00:01")), "2000-03-01T00:00:59Z");
    CHECK_STR(time_again(a, S("0001-01-01")), "0001-01-01T00:00:00Z");
    CHECK_STR(time_again(a, S("9999-12-31T23:59:59.999999Z")), "9999-12-31T23:59:59.999999Z");
}

TEST(times_that_are_not_are_refused)
{
    static const struct str bad[] = {
        S_INIT(""),
        S_INIT("2001"),
        S_INIT("2001-02-30"),
        S_INIT("2001-02-29"),
        S_INIT("1900-02-29"),
        S_INIT("2001-13-01"),
        S_INIT("2001-00-01"),
        S_INIT("2001-01-00"),
        S_INIT("0000-01-01"),
        S_INIT("2001-5-1"),
        S_INIT("2001-05-01T"),
        S_INIT("2001-05-01T24:00"),
        S_INIT("2001-05-01T10:60"),
        S_INIT("2001-05-01T10:00:60Z"),
        S_INIT("2001-05-01T10:00:00."),
        S_INIT("2001-05-01T10:00:00.1234567"),
        S_INIT("2001-05-01T10:00Zx"),
        S_INIT("2001-05-01Z"),
        S_INIT("2001-05-01T10:00+2"),
        S_INIT("2001-05-01T10:00+24:00"),
        S_INIT("0001-01-01T00:00+01:00"),
        S_INIT("9999-12-31T23:59-00:01"),
        S_INIT("2001-05-01x10:00"),
        S_INIT(" 2001-05-01"),
        S_INIT("2001-05-01\0"),
        S_INIT("2001-05-01T10:00\0Z"),
    };
    int64_t us = 42;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!time_parse(bad[i], &us));
    CHECK(us == 42);
}

TEST(every_day_of_the_calendar_comes_back)
{
    static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    int64_t us;
    int weekday = 0; /* 0001-01-01 was a Monday */
    CHECK(time_parse(S("0001-01-01"), &us));
    for (int y = 1; y <= 9999; y++)
        for (int m = 1; m <= 12; m++)
            for (int d = 1; d <= days[m - 1] + (m == 2 && y % 4 == 0 && (y % 100 || y % 400 == 0)); d++) {
                struct civil c = civil_of(us);
                CHECK(c.year == y && c.month == m && c.day == d && c.weekday == weekday && !c.second);
                us += INT64_C(86400) * 1000000;
                weekday = (weekday + 1) % 7;
            }
}

TEST(civil_parts)
{
    int64_t us;
    CHECK(time_parse(S("2026-11-21T11:22:33.9Z"), &us));
    struct civil c = civil_of(us);
    CHECK(c.hour == 11 && c.minute == 22 && c.second == 33 && c.weekday == 5);
    CHECK(civil_of(-1).second == 59 && civil_of(-1).year == 1969);
}

static struct str duration_again(struct arena *a, struct str s)
{
    int64_t ms;
    return duration_parse(s, &ms) ? duration_text(a, ms) : S("refused");
}

TEST(durations)
{
    auto_arena struct arena *a = arena_new(0);
    static const struct {
        struct str in, out;
    } rows[] = {
        { S_INIT("2h"), S_INIT("2h") },
        { S_INIT("90m"), S_INIT("1h30m") },
        { S_INIT("1h30m"), S_INIT("1h30m") },
        { S_INIT("250ms"), S_INIT("250ms") },
        { S_INIT("0"), S_INIT("0s") },
        { S_INIT("0ms"), S_INIT("0s") },
        { S_INIT("30d"), S_INIT("30d") },
        { S_INIT("14d"), S_INIT("2w") },
        { S_INIT("1m500ms"), S_INIT("1m500ms") },
        { S_INIT("5"), S_INIT("refused") },
        { S_INIT(""), S_INIT("refused") },
        { S_INIT("-5s"), S_INIT("refused") },
        { S_INIT("1y"), S_INIT("refused") },
        { S_INIT("1m1h"), S_INIT("refused") },
        { S_INIT("1s1s"), S_INIT("refused") },
        { S_INIT("1.5h"), S_INIT("refused") },
        { S_INIT("1h 5m"), S_INIT("refused") },
        { S_INIT("h"), S_INIT("refused") },
        { S_INIT("9223372036854775807ms"), S_INIT("106751991167d7h12m55s807ms") },
        { S_INIT("9223372036854775807s"), S_INIT("refused") },
        { S_INIT("1s9223372036854775807ms"), S_INIT("refused") },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_STR(duration_again(a, rows[i].in), rows[i].out);
    CHECK_STR(duration_text(a, -1500), "-1s500ms");
}

static struct str size_again(struct arena *a, struct str s)
{
    int64_t bytes;
    return size_parse(s, &bytes) ? size_text(a, bytes) : S("refused");
}

TEST(sizes)
{
    auto_arena struct arena *a = arena_new(0);
    static const struct {
        struct str in, out;
    } rows[] = {
        { S_INIT("512"), S_INIT("512") },
        { S_INIT("64Ki"), S_INIT("64Ki") },
        { S_INIT("16384Mi"), S_INIT("16Gi") },
        { S_INIT("1Ti"), S_INIT("1Ti") },
        { S_INIT("64k"), S_INIT("64k") },
        { S_INIT("2G"), S_INIT("2G") },
        { S_INIT("0"), S_INIT("0") },
        { S_INIT("0Gi"), S_INIT("0") },
        { S_INIT("1536"), S_INIT("1536") },
        { S_INIT("1025"), S_INIT("1025") },
        { S_INIT(""), S_INIT("refused") },
        { S_INIT("1Xi"), S_INIT("refused") },
        { S_INIT("-1"), S_INIT("refused") },
        { S_INIT("1.5Gi"), S_INIT("refused") },
        { S_INIT("1Gi1"), S_INIT("refused") },
        { S_INIT("8388608Ti"), S_INIT("refused") },
        { S_INIT("9223372036854775808"), S_INIT("refused") },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        CHECK_STR(size_again(a, rows[i].in), rows[i].out);
}

TEST(sizes_are_exact)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t seed = 3;
    for (int i = 0; i < 2000; i++, arena_reset(a)) {
        int64_t bytes = (int64_t)(splitmix(&seed) >> (1 + i % 62)), back;
        CHECK(size_parse(size_text(a, bytes), &back) && back == bytes);
        CHECK(duration_parse(duration_text(a, bytes), &back) && back == bytes);
    }
}

TEST(ids_sort_by_time_and_differ)
{
    auto_arena struct arena *a = arena_new(0);
    struct str first = id_new(a), second = id_new(a);
    CHECK(first.n == 26 && !str_eq(first, second));
    int64_t until = now_us() + 2000;
    while (now_us() < until)
        ;
    CHECK(str_cmp(first, id_new(a)) < 0);
    for (size_t i = 0; i < first.n; i++)
        CHECK(strchr("0123456789abcdefghjkmnpqrstvwxyz", first.p[i]));
}

TEST(figures_of_the_process)
{
    CHECK(rss_bytes() > 100000 && rss_peak_bytes() >= rss_bytes() / 2);
    CHECK(cpu_count() >= 1);
    int64_t before = mono_ns();
    CHECK(mono_ns() >= before && now_us() > INT64_C(1600000000000000));
}

TEST(one_core_where_one_is_allowed)
{
    cpu_set_t mine, one;
    CHECK(!sched_getaffinity(0, sizeof mine, &mine));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &mine))
            CPU_SET(i, &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one));
    CHECK(cpu_count() == 1);
}

TEST(hashes_are_stable)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_STR(hex(a, "\x00\xff\x1a", 3), "00ff1a");
    CHECK(hash64(S("dhow")) == hash64(str_dup(a, S("dhow"))));
    CHECK(hash64(S("dhow")) != hash64(S("dhox")) && hash64(S("")) != hash64(S("\0")));
    uint64_t seed = 1234567;
    CHECK(splitmix(&seed) == UINT64_C(6457827717110365317)); /* the published sequence */
    CHECK(splitmix(&seed) == UINT64_C(3203168211198807973));
}
