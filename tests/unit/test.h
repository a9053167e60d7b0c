/* test: how a unit test is written here; Criterion runs each in a process of its own, with a time limit.
 * Use      #define SUITE arena          (before the include; "unit" if it is left out)
 *          #include "test.h"
 *          TEST(defer_runs_in_reverse) { CHECK(x); CHECK_OK(call()); CHECK_STR(text, "ba"); }
 * More     TEST(limit_aborts, .signal = SIGABRT) takes Criterion's settings. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include <criterion/criterion.h>
#include <signal.h>

#ifndef SUITE
#define SUITE unit
#endif

#define TEST_IN_(suite, name, ...) Test(suite, name, __VA_ARGS__)
#define TEST(name, ...) TEST_IN_(SUITE, name, .timeout = 60, ##__VA_ARGS__)

#define TEST_FAIL_(...) cr_assert_fail(__VA_ARGS__)

static inline struct str test_str_(struct str s)
{
    return s;
}
/* Any C string or struct str. */
#define TEST_STR_(s) _Generic((s), struct str : test_str_, char * : str_of, const char * : str_of)(s)

#define CHECK(x)                       \
    do {                               \
        if (!(x))                      \
            TEST_FAIL_("not so: " #x); \
    } while (0)
/* The call succeeds; its error is printed if not. */
#define CHECK_OK(call)                                                                                 \
    do {                                                                                               \
        err check_ = (call);                                                                           \
        if (check_)                                                                                    \
            TEST_FAIL_("%s: %.*s (%s) %.*s", #call, STR(check_->text), err_table[check_->code].name.p, \
                       STR(check_->field));                                                            \
    } while (0)
/* The call fails with that code. */
#define CHECK_ERR(call, want)                                                                         \
    do {                                                                                              \
        err check_ = (call);                                                                          \
        if (!check_)                                                                                  \
            TEST_FAIL_("%s: succeeded, %s expected", #call, #want);                                   \
        else if (check_->code != (want))                                                              \
            TEST_FAIL_("%s: %s expected, got %s: %.*s", #call, #want, err_table[check_->code].name.p, \
                       STR(check_->text));                                                            \
    } while (0)
#define CHECK_STR(text, lit)                                                                     \
    do {                                                                                         \
        struct str check_ = TEST_STR_(text);                                                     \
        if (!str_eq(check_, TEST_STR_(lit)))                                                     \
            TEST_FAIL_("%s is \"%.*s\", not \"%.*s\"", #text, STR(check_), STR(TEST_STR_(lit))); \
    } while (0)
