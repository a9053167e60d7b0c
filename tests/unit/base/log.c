// SPDX-License-Identifier: Apache-2.0
#define SUITE base_log
#include "test.h"
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* fd 2 goes to memory between the two, so a line can be looked at. */
static int kept_fd, memory_fd;

static void catch_begin(void)
{
    memory_fd = memfd_create("log", 0);
    kept_fd = dup(2);
    CHECK(memory_fd >= 0 && kept_fd >= 0 && dup2(memory_fd, 2) == 2);
}

static struct str catch_end(struct arena *a)
{
    CHECK(dup2(kept_fd, 2) == 2);
    close(kept_fd);
    off_t n = lseek(memory_fd, 0, SEEK_END);
    char *p = arena_alloc(a, (size_t)n + 1, 1);
    CHECK(pread(memory_fd, p, (size_t)n, 0) == n);
    close(memory_fd);
    return (struct str){ p, (size_t)n };
}

/* The line without its time, which has 24 characters. */
static struct str after_time(struct str line)
{
    CHECK(line.n > 25 && line.p[10] == 'T' && line.p[23] == 'Z' && line.p[24] == ' ');
    return str_sub(line, 25, line.n);
}

TEST(text_lines)
{
    auto_arena struct arena *a = arena_new(0);
    catch_begin();
    log_context(S("req-1"));
    log_info("run.stepped", KV("run", S("r1")), KV("step", 3), KV("loss", 0.25), KV("ok", (bool)true),
             KV("why", "two words"), KV("none", ""), KV("nan", NAN));
    log_context(S(""));
    struct str line = catch_end(a);
    CHECK_STR(after_time(line),
              "info run.stepped ctx=req-1 run=r1 step=3 loss=0.25 ok=true why=\"two words\" none=\"\" "
              "nan=nan\n");
}

TEST(a_value_cannot_forge_a_line)
{
    auto_arena struct arena *a = arena_new(0);
    catch_begin();
    log_info("x.happened",
             KV("v", S("a\n2026-01-01 \x1b[2J\"=\\ \xff \xc2\x9b \xe2\x80\xa8 \xe2\x80\xae \x7f")));
    struct str line = catch_end(a);
    CHECK_STR(after_time(line),
              "info x.happened v=\"a\\n2026-01-01 \\u001b[2J\\\"=\\\\ \xef\xbf\xbd \\u009b \\u2028 \\u202e "
              "\\u007f\"\n");
}

TEST(json_lines)
{
    auto_arena struct arena *a = arena_new(0);
    log_setup(LOG_DEBUG, true);
    catch_begin();
    log_debug("x.happened", KV("v", S("a\"\n")), KV("n", INT64_MIN), KV("f", INFINITY), KV("b", (bool)false));
    struct str line = catch_end(a);
    CHECK(str_starts(line, S("{\"time\":\"2")));
    CHECK_STR(str_sub(line, 34, line.n), ",\"level\":\"debug\",\"event\":\"x.happened\",\"v\":\"a\\\"\\n\","
                                         "\"n\":-9223372036854775808,\"f\":null,\"b\":false}\n");
}

TEST(levels_below_the_lowest_are_dropped)
{
    auto_arena struct arena *a = arena_new(0);
    log_setup(LOG_WARN, false);
    catch_begin();
    log_info("x.dropped");
    log_warn("x.kept");
    struct str line = catch_end(a);
    CHECK_STR(after_time(line), "warn x.kept\n");
}

TEST(errors_have_their_fields)
{
    auto_arena struct arena *a = arena_new(0);
    catch_begin();
    log_err("job.failed", NULL);
    log_err("job.failed", err_hint(err_new(FULL, "no room"), "make room"));
    struct str line = catch_end(a);
    CHECK_STR(after_time(line), "error job.failed code=FULL text=\"no room\" hint=\"make room\"\n");
}

TEST(long_values_are_cut)
{
    auto_arena struct arena *a = arena_new(0);
    catch_begin();
    log_info("x.happened", KV("v", fmt(a, "%*d", 100000, 1)));
    log_context(fmt(a, "%0*d", 200, 0));
    struct str line = catch_end(a);
    CHECK(line.n > 8000 && line.n < 9000 && str_ends(line, S("...\"\n")));
}
