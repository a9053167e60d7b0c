// SPDX-License-Identifier: Apache-2.0
/* The conformance test of executors: every backend starts, watches, limits and stops a job the same way. The
 * local one's shim is this program itself. */
#define SUITE exec
#include "test.h"
#include "exec/exec.h"
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* Before main: the copy of this program that is the shim never becomes a test runner. */
__attribute__((constructor)) static void shim_entry(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "shim") == 0)
        _exit(exec_shim(argv[2]));
}

struct ground {
    struct arena *a;
    struct exec *exec;
    char dir[64];
};

static void ground_open(struct ground *g, const struct exec_ops *ops)
{
    char self[PATH_MAX] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    g->a = arena_new(0);
    snprintf(g->dir, sizeof g->dir, "/tmp/dhow-exec-XXXXXX");
    CHECK(mkdtemp(g->dir) != NULL);
    CHECK_OK(ops->open(g->dir, self, &g->exec));
}

static void ground_close(struct ground *g)
{
    g->exec->ops->close(g->exec);
    CHECK_OK(dir_remove(g->dir));
    arena_free(g->a);
}

static void start(struct ground *g, const char *id, const char *script, int64_t memory, int64_t timeout,
                  int64_t log)
{
    const char *argv[] = { "/bin/sh", "-c", script, NULL };
    const char *env[] = { "PATH=/usr/bin:/bin", "GREETING=salaam", NULL };
    struct exec_job job = { .id = str_of(id),
                            .argv = argv,
                            .env = env,
                            .spec = S("{}"),
                            .memory_bytes = memory,
                            .timeout_ms = timeout,
                            .log_bytes_max = log };
    CHECK_OK(g->exec->ops->start(g->exec, &job));
}

static struct exec_state end_of(struct ground *g, const char *id)
{
    struct exec_state s;
    for (int i = 0; i < 1000; i++) {
        CHECK_OK(g->exec->ops->poll(g->exec, g->a, str_of(id), &s));
        if (s.phase != EXEC_RUNNING)
            return s;
        usleep(20000);
    }
    TEST_FAIL_("job %s does not end", id);
    return s;
}

static struct str output_of(struct ground *g, const char *id)
{
    struct str text;
    CHECK_OK(file_read(g->a, fmtz(g->a, "%s/out.log", exec_dir(g->a, g->dir, str_of(id))), 1 << 20, &text));
    return text;
}

#define EACH_BACKEND(g)                                                     \
    for (const struct exec_ops *const *ops_ = exec_backends; *ops_; ops_++) \
        for (struct ground g, *once_ = (ground_open(&g, *ops_), &g); once_; once_ = (ground_close(&g), NULL))

TEST(output_and_exit_code_are_kept)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "echo $GREETING; echo oops >&2; exit 7", 0, 0, 0);
        struct exec_state s = end_of(&g, "1-1");
        CHECK(s.phase == EXEC_DONE && s.exit_code == 7 && s.signal == 0);
        CHECK_STR(s.reason, "exit 7");
        CHECK_STR(output_of(&g, "1-1"), "salaam\noops\n");
        CHECK(s.finished >= s.started && s.started > 0);
    }
}

TEST(nothing_of_the_daemons_environment_is_passed_on)
{
    setenv("DHOW_SECRET", "x", 1);
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "test -z \"$DHOW_SECRET\"", 0, 0, 0);
        CHECK(end_of(&g, "1-1").exit_code == 0);
    }
}

TEST(a_job_over_its_memory_is_stopped_and_says_so)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "head -c 200000000 /dev/zero | tail -c 200000000 | (sleep 5; cat >/dev/null)",
              64 << 20, 0, 0);
        struct exec_state s = end_of(&g, "1-1");
        CHECK(s.exit_code != 0);
        CHECK_STR(s.reason, "out of memory");
        CHECK(s.memory_peak > 64 << 20);
    }
}

TEST(a_job_over_its_time_is_stopped_with_all_its_children)
{
    EACH_BACKEND(g)
    {
        int64_t begin = mono_ns();
        start(&g, "1-1", "sleep 30 & sleep 30", 0, 300, 0);
        struct exec_state s = end_of(&g, "1-1");
        CHECK_STR(s.reason, "timeout");
        CHECK(mono_ns() - begin < 8000000000LL);
    }
}

TEST(cancel_stops_a_job_and_a_second_one_is_fine)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "sleep 30", 0, 0, 0);
        CHECK_OK(g.exec->ops->cancel(g.exec, S("1-1")));
        CHECK_STR(end_of(&g, "1-1").reason, "cancelled");
        CHECK_OK(g.exec->ops->cancel(g.exec, S("1-1")));
    }
}

TEST(a_job_that_ends_well_despite_sigterm_counts_as_done)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done", 0, 0, 0);
        while (!file_exists(fmtz(g.a, "%s/out.log", exec_dir(g.a, g.dir, S("1-1")))) ||
               !output_of(&g, "1-1").n)
            usleep(10000);
        CHECK_OK(g.exec->ops->cancel(g.exec, S("1-1")));
        CHECK(end_of(&g, "1-1").exit_code == 0);
    }
}

TEST(a_crash_is_told_by_its_signal)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "kill -SEGV $$", 0, 0, 0);
        struct exec_state s = end_of(&g, "1-1");
        CHECK(s.signal == SIGSEGV);
        CHECK_STR(s.reason, "signal 11");
    }
}

TEST(output_over_its_limit_is_cut_with_a_note)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo end", 0, 0, 1000);
        CHECK(end_of(&g, "1-1").exit_code == 0);
        struct str log = output_of(&g, "1-1");
        CHECK(log.n < 1200 && str_ends(log, S("over the job's limit]\n")));
    }
}

TEST(a_program_that_is_not_there_is_a_failed_job)
{
    EACH_BACKEND(g)
    {
        const char *argv[] = { "/no/such/program", NULL };
        struct exec_job job = {
            .id = S("1-1"), .argv = argv, .env = (const char *[]){ NULL }, .spec = S("{}")
        };
        CHECK_OK(g.exec->ops->start(g.exec, &job));
        struct exec_state s = end_of(&g, "1-1");
        CHECK(s.phase == EXEC_DONE && s.exit_code == 127);
        CHECK(s.reason.n > 0);
    }
}

TEST(another_daemon_finds_a_running_job_again)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "sleep 1; echo after", 0, 0, 0);
        char self[PATH_MAX] = "";
        CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
        const struct exec_ops *ops = g.exec->ops;
        ops->close(g.exec);
        CHECK_OK(ops->open(g.dir, self, &g.exec));
        struct exec_state s;
        CHECK_OK(ops->poll(g.exec, g.a, S("1-1"), &s));
        CHECK(s.phase == EXEC_RUNNING && s.pid > 0);
        CHECK(end_of(&g, "1-1").exit_code == 0);
        CHECK_STR(output_of(&g, "1-1"), "after\n");
    }
}

TEST(a_killed_shim_leaves_a_lost_job_not_a_running_one)
{
    EACH_BACKEND(g)
    {
        struct exec_state s;
        start(&g, "1-1", "sleep 1", 0, 0, 0);
        CHECK_OK(g.exec->ops->poll(g.exec, g.a, S("1-1"), &s));
        kill((pid_t)s.pid, SIGKILL);
        CHECK(end_of(&g, "1-1").phase == EXEC_LOST);
    }
}

TEST(a_job_is_never_started_twice)
{
    EACH_BACKEND(g)
    {
        start(&g, "1-1", "echo once; sleep 0.5", 0, 0, 0);
        const char *argv[] = { "/bin/echo", "twice", NULL };
        struct exec_job job = {
            .id = S("1-1"), .argv = argv, .env = (const char *[]){ NULL }, .spec = S("{}")
        };
        (void)g.exec->ops->start(g.exec, &job);
        end_of(&g, "1-1");
        CHECK_STR(output_of(&g, "1-1"), "once\n");
    }
}

TEST(removed_jobs_are_not_found)
{
    EACH_BACKEND(g)
    {
        struct exec_state s;
        start(&g, "1-1", "true", 0, 0, 0);
        end_of(&g, "1-1");
        CHECK_OK(g.exec->ops->remove(g.exec, S("1-1")));
        CHECK_ERR(g.exec->ops->poll(g.exec, g.a, S("1-1"), &s), NOT_FOUND);
    }
}
