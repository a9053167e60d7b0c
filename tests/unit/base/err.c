// SPDX-License-Identifier: Apache-2.0
#define SUITE base_err
#include "test.h"
#include <errno.h>

static err fails(void)
{
    FAIL(CONFLICT, "run '%s' is %s, not queued", "x", "done");
}

static err passes_on(void)
{
    TRY(NULL);
    TRY_AS(fails(), "placing run '%s'", "x");
    return NULL;
}

TEST(layers_say_what_they_were_doing)
{
    err e = err_hint(err_field(passes_on(), S("spec.run")), "see 'dhow run get %s'", "x");
    CHECK_ERR(e, CONFLICT);
    CHECK_STR(e->text, "placing run 'x': run 'x' is done, not queued");
    CHECK_STR(e->field, "spec.run");
    e = err_wrap(e, "job");
    CHECK_STR(e->text, "job: placing run 'x': run 'x' is done, not queued");
    CHECK_STR(e->hint, "see 'dhow run get x'");
    CHECK_STR(e->field, "spec.run");
}

TEST(success_stays_success)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_OK(err_wrap(NULL, "x"));
    CHECK_OK(err_hint(NULL, "x"));
    CHECK_OK(err_field(NULL, S("x")));
    CHECK_OK(err_copy(NULL, a));
}

TEST(codes_of_errno)
{
    CHECK_ERR(err_errno(ENOSPC, "x"), FULL);
    CHECK_ERR(err_errno(EDQUOT, "x"), FULL);
    CHECK_ERR(err_errno(ENOENT, "x"), NOT_FOUND);
    CHECK_ERR(err_errno(EACCES, "x"), INTERNAL);
    CHECK_ERR(err_errno(EPERM, "x"), INTERNAL);
    CHECK_ERR(err_errno(ETIMEDOUT, "x"), TIMEOUT);
    CHECK_STR(err_errno(ENOSPC, "cannot write %s", "f")->text, "cannot write f: No space left on device");
}

TEST(a_copy_outlives_reset)
{
    auto_arena struct arena *a = arena_new(0);
    err kept = err_copy(err_hint(fails(), "wait"), a);
    err_reset();
    err_new(INTERNAL, "something else, long enough to lie over the first");
    CHECK_ERR(kept, CONFLICT);
    CHECK_STR(kept->text, "run 'x' is done, not queued");
    CHECK_STR(kept->hint, "wait");
}

TEST(long_texts_are_cut_between_characters)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    buf_str(&b, S("x"));
    for (int i = 0; i < 5000; i++)
        buf_str(&b, S("\xc3\xbc"));
    err e = err_new(INVALID, "%.*s", STR(buf_get(&b)));
    CHECK(e->text.n > 4000 && e->text.n <= 4096 && str_utf8_ok(e->text));
}

TEST(every_code_has_its_row)
{
    for (int i = 0; i < ERR_COUNT; i++)
        CHECK(err_table[i].name.n && err_table[i].doc.n && err_table[i].http >= 200);
    CHECK(err_table[GATE].exit == 3 && err_table[FULL].http == 507);
}

static void *other_thread(void *arg)
{
    for (int i = 0; i < 100; i++)
        err_wrap(fails(), "other");
    return arg;
}

TEST(a_thread_frees_its_errors)
{
    pthread_t t;
    err mine = fails();
    CHECK_OK(thread_start("other", other_thread, NULL, &t));
    pthread_join(t, NULL);
    CHECK_STR(mine->text, "run 'x' is done, not queued");
}
