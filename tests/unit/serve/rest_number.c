// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_rest_number
#include "serve/number.h"
#include "test.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>

/* text read as both types, in a block that ends one byte behind it; equal to the C library's to the bit. */
static void check_number(const char *text)
{
    size_t n = strlen(text), done = 7;
    char *copy = malloc(n + 1);
    memcpy(copy, text, n);
    copy[n] = ']';
    double v = 0, want = strtod(text, NULL);
    float f = 0, want_f = strtof(text, NULL);
    const char *end = f64s_read(copy, copy + n + 1, &v, 1, &done);
    cr_assert(isinf(want) ? !end && done == 0 : end == copy + n && !memcmp(&v, &want, sizeof v),
              "%s is read as %.17g", text, v);
    end = f32s_read(copy, copy + n + 1, &f, 1, &done);
    cr_assert(isinf(want_f) ? !end && done == 0 : end == copy + n && !memcmp(&f, &want_f, sizeof f),
              "%s is read as the float %.9g", text, (double)f);
    free(copy);
}

TEST(hard_numbers_are_read_to_the_bit)
{
    static const char *const texts[] = {
        "0",
        "-0",
        "0.0",
        "-0.0",
        "0e999",
        "0e-999999999999",
        "1e400",
        "-1e400",
        "1E5",
        "1e+5",
        "3.4028235e38",
        "3.4028235677973366e38",
        "3.40282356779733661637539395458142568447e38",
        "3.40282356779733661637539395458142568448e38",
        "9007199254740993",
        "9007199254740992.5",
        "9007199254740993.0000000000000000001",
        "1e22",
        "1e23",
        "8.5e22",
        "4.9e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "2.2250738585072011e-308",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "1.7976931348623158e308",
        "16777217",
        "16777217.0000001",
        "16777216.9999999999999999999999",
        "16777219.0",
        "1.401298464324817e-45",
        "0.7006492321624085e-45",
        "7.006492321624085e-46",
        "7.006492321624086e-46",
        "1.1754943508222875e-38",
        "1.1754942807573643e-38",
        "123456789012345678901234567890",
        "0.000000000000000000000000000000123456789012345678901234567890",
        "18446744073709551615",
        "18446744073709551616",
        "9999999999999999999",
        "10000000000000000000",
        "99999999999999999999",
        "0.00000000000000000001234",
        "1.00000000000000011102230246251565404236316680908203125",
        "1.00000000000000011102230246251565404236316680908203124",
        "1.00000000000000011102230246251565404236316680908203126",
        "1.00000005960464477539062500000000000000000001",
        "1.000000059604644775390625",
        "12345678.12345678",
        "1234567.12345678901",
        "0.1234567890123456789",
        "0.123456789012345678",
        "0.00000000",
        "0.1e-30",
        "0.5e99",
        "0.5e100",
        "5e-9",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        check_number(texts[i]);
    char noughts[100100] = "0.";
    memset(noughts + 2, '0', 99998);
    memcpy(noughts + 100000, "7e99999", 8);
    check_number(noughts);
    memset(noughts, '9', 400);
    noughts[400] = 0;
    check_number(noughts);
}

TEST(random_numbers_are_read_to_the_bit)
{
    uint64_t seed = 3, bits;
    char t[400];
    for (int i = 0; i < 150000; i++) {
        double v, one = (double)(float)((double)(splitmix(&seed) >> 40) / 16777216);
        float f;
        bits = splitmix(&seed);
        memcpy(&v, &bits, sizeof v);
        memcpy(&f, &bits, sizeof f);
        if (isfinite(v)) {
            snprintf(t, sizeof t, "%.17g", v);
            check_number(t);
        }
        if (isfinite(f) && fabsf(f) < FLT_MAX) {
            snprintf(t, sizeof t, "%.*g", (int)(splitmix(&seed) % 18) + 1, (double)f);
            check_number(t);
            double half = ((double)f + (double)nextafterf(f, INFINITY)) / 2;
            snprintf(t, sizeof t, "%.*g", (int)(splitmix(&seed) % 10) + 12, half);
            check_number(t);
        }
        snprintf(t, sizeof t, "%.17g", one);
        check_number(t);
        snprintf(t, sizeof t, "%.*f", (int)(splitmix(&seed) % 25),
                 one * pow(10, (int)(splitmix(&seed) % 20) - 10));
        check_number(t);
        snprintf(t, sizeof t, "%s%llue%d", splitmix(&seed) % 2 ? "-" : "",
                 (unsigned long long)(splitmix(&seed) >> splitmix(&seed) % 64),
                 (int)(splitmix(&seed) % 80) - 40);
        check_number(t);
    }
}

TEST(what_is_no_number_is_refused)
{
    static const char *const texts[] = { "",    "-",    "+1",   ".5",       "1.",    "01",
                                         "-01", "00.5", "1e",   "1e+",      "1.e5",  "nul",
                                         "nan", "inf",  "-NaN", "infinity", "0x10",  "--1",
                                         "1_0", "1,5",  "true", "-Infinit", "\"1\"", "1 2" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        for (int long_ = 0; long_ < 2; long_++) { /* near the end, and far from it */
            char text[80], *end;
            double v;
            size_t done;
            memset(text, ' ', sizeof text);
            memcpy(text, texts[i], strlen(texts[i]));
            end = text + strlen(texts[i]);
            *end++ = ']';
            const char *at = f64s_read(text, long_ ? text + sizeof text : end, &v, 1, &done);
            cr_assert(!at || *at != ']', "'%s' is read as %g", texts[i], v);
        }
}

TEST(words_and_blanks_between_numbers)
{
    static const char text[] = "1.5 ,\n null,NaN , -Infinity,\tInfinity,  -2.25 ] and more text that is long";
    float v[6];
    size_t done;
    const char *end = f32s_read(text, text + sizeof text - 1, v, 6, &done);
    CHECK(end && *end == ']' && done == 6);
    CHECK(v[0] == 1.5f && isnan(v[1]) && isnan(v[2]) && isinf(v[3]) && v[3] < 0 && isinf(v[4]) &&
          v[5] == -2.25f);
    end = f32s_read(text, text + sizeof text - 1, v, 2, &done);
    CHECK(end && *end == ',' && done == 2);
    end = f32s_read("1,2,x,4", "1,2,x,4" + 7, v, 4, &done);
    CHECK(!end && done == 2);
}

/* Numbers one after the other, each read by itself: what a list is compared with. */
static const char *read_each(const char *p, const char *end, float *out, size_t n, size_t *done)
{
    size_t one;
    for (*done = 0;; p++) {
        while (p < end && *p == ' ')
            p++;
        p = f32s_read(p, end, out + *done, 1, &one);
        *done += one;
        if (!p || *done == n || p == end || *p != ',')
            return p;
    }
}

/* A value as lists have them; a few are wrong, or stand wrongly. */
static int value_put(char *to, size_t room, uint64_t *seed, unsigned odd)
{
    static const char *const wrong[] = { "",    "-",   "01", "1.",  ".5", "1.2.3", "--1",  "1-2", "1 2",
                                         "  3", "4  ", "x",  "1.-", "+1", "-.1",   "00.0", "- 1", "-01" },
                             *const others[] = {
                                 "null", "NaN", "1e5", "-2.5e-3", "Infinity", "1e-46", "1e38"
                             };
    uint64_t kind = splitmix(seed) % 1000;
    double v = (double)(splitmix(seed) >> 11) / 0x1p53, size = pow(10, (int)(splitmix(seed) % 12) - 8);
    const char *sign = splitmix(seed) % 2 ? "-" : "";
    if (kind < odd)
        return snprintf(to, room, "%s", wrong[splitmix(seed) % (sizeof wrong / sizeof *wrong)]);
    if (kind < 20)
        return snprintf(to, room, "%s", others[splitmix(seed) % (sizeof others / sizeof *others)]);
    if (kind < 40) { /* the middle between two floats, or as near to it as digits can be */
        float f = (float)(v * 1000);
        return snprintf(to, room, "%s%.*f", sign, (int)(splitmix(seed) % 4) + 10,
                        ((double)f + (double)nextafterf(f, INFINITY)) / 2);
    }
    if (kind < 400)
        return snprintf(to, room, "%s%.*f", sign, (int)(splitmix(seed) % 7), v * 300);
    if (kind < 700)
        return snprintf(to, room, "%s%.*f", sign, (int)(splitmix(seed) % 20), v * size);
    return snprintf(to, room, "%s%.17g", sign, (double)(float)v);
}

TEST(lists_are_read_as_each_of_their_numbers)
{
    enum { N = 100 };
    static char text[N * 64];
    uint64_t seed = 5;
    for (int i = 0; i < 20000; i++) {
        size_t n = splitmix(&seed) % N + 1, len = 0, done, want_done;
        unsigned odd = i % 2 ? 10 : 0;
        const char *comma = splitmix(&seed) % 2 ? "," : ", ";
        for (size_t k = 0; k < n; k++) {
            len += (size_t)snprintf(text + len, sizeof text - len, "%s", k ? comma : "");
            len += (size_t)value_put(text + len, sizeof text - len, &seed, odd);
        }
        text[len++] = ']';
        char *copy = malloc(len); /* so that a byte too many is seen */
        memcpy(copy, text, len);
        float got[N], want[N];
        size_t asked = splitmix(&seed) % 4 ? n : splitmix(&seed) % n + 1;
        const char *end = f32s_read(copy, copy + len, got, asked, &done),
                   *want_end = read_each(copy, copy + len, want, asked, &want_done);
        cr_assert(end == want_end && done == want_done, "of %.*s %zu are read, not %zu", (int)len, text, done,
                  want_done);
        cr_assert(!memcmp(got, want, done * sizeof *got), "%.*s is not read as its numbers", (int)len, text);
        free(copy);
    }
}

TEST(floats_are_written_as_short_as_can_be)
{
    static const struct {
        float v;
        const char *text;
    } some[] = { { 0, "0" },
                 { -0.0f, "-0.0" },
                 { 1, "1" },
                 { 10, "10" },
                 { 0.1f, "0.1" },
                 { 0.3f, "0.3" },
                 { -2.5f, "-2.5" },
                 { 123456.7f, "123456.7" },
                 { 16777216, "16777216" },
                 { 1e-4f, "0.0001" },
                 { 1e-5f, "1e-05" },
                 { 1.5e-7f, "1.5e-07" },
                 { 1e9f, "1e+09" },
                 { FLT_MAX, "3.4028235e+38" },
                 { FLT_MIN, "1.1754944e-38" },
                 { 1e-45f, "1e-45" },
                 { 0.73105860f, "0.7310586" },
                 { NAN, "null" },
                 { -INFINITY, "null" } };
    char text[32];
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct str got = { text, f32_text(some[i].v, text) };
        CHECK_STR(got, str_of(some[i].text));
    }
    for (uint32_t bits = 1; bits < 0x7f800000; bits += 10007) {
        float v;
        memcpy(&v, &bits, sizeof v);
        size_t n = f32_text(v, text);
        text[n] = 0;
        cr_assert(n <= 16 && strtof(text, NULL) == v && (float)strtod(text, NULL) == v, "%.9g is written %s",
                  (double)v, text);
    }
}
