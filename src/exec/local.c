// SPDX-License-Identifier: Apache-2.0
/* The local executor: children of a shim that outlives the daemon. */
#include "exec/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct local {
    struct exec base;
    char *dir, *program;
};

const char *exec_dir(struct arena *a, const char *store_dir, struct str id)
{
    return fmtz(a, "%s/jobs/%.*s", store_dir, STR(id));
}

static err local_open(const char *dir, const char *program, struct exec **out)
{
    auto_arena struct arena *a = arena_new(0);
    TRY(dir_make(fmtz(a, "%s/jobs", dir)));
    struct local *l = malloc(sizeof *l);
    *l = (struct local){ .base.ops = &exec_local, .dir = strdup(dir), .program = strdup(program) };
    *out = &l->base;
    return NULL;
}

static void local_close(struct exec *e)
{
    struct local *l = (struct local *)e;
    if (!l)
        return;
    free(l->dir);
    free(l->program);
    free(l);
}

static void strs_from(struct arena *a, const char *const *z, struct strs *out)
{
    for (; z && *z; z++)
        push(a, out, str_of(*z));
}

static err launch_write(struct arena *a, const char *dir, const struct exec_job *j)
{
    struct exec_launch launch = { .memory = j->memory_bytes,
                                  .cpu = j->cpu_cores,
                                  .timeout = j->timeout_ms,
                                  .log_max = j->log_bytes_max ? j->log_bytes_max : 64 << 20 };
    strs_from(a, j->argv, &launch.argv);
    strs_from(a, j->env, &launch.env);
    TRY(file_write(fmtz(a, "%s/spec.json", dir), j->spec));
    return file_write(fmtz(a, "%s/launch.json", dir),
                      schema_text(&exec_launch_schema, a, &launch, WRITE_SECRETS | WRITE_PERSONAL));
}

/* The shim in a session of its own, its output to shim.log, one end of the handshake pipe as its fd 3. */
static err shim_spawn(const struct local *l, struct arena *a, const char *dir, int ready)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    const char *log = fmtz(a, "%s/shim.log", dir);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    posix_spawn_file_actions_adddup2(&files, ready, 3);
    posix_spawn_file_actions_addclosefrom_np(&files, 4);
    char *argv[] = { l->program, (char[]){ "shim" }, (char *)dir, NULL };
    char *env[] = { (char[]){ "PATH=/usr/local/bin:/usr/bin:/bin" }, NULL };
    pid_t pid;
    int bad = posix_spawn(&pid, l->program, &files, &attr, argv, env);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (bad)
        return err_errno(bad, "cannot start %s", l->program);
    return NULL;
}

static err local_start(struct exec *e, const struct exec_job *j)
{
    struct local *l = (struct local *)e;
    auto_arena struct arena *a = arena_new(0);
    const char *dir = exec_dir(a, l->dir, j->id);
    TRY(dir_make(dir));
    TRY(launch_write(a, dir, j));
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return err_errno(errno, "cannot make a pipe");
    auto_close int ours = fd[0];
    int theirs = fcntl(fd[1], F_DUPFD_CLOEXEC, 10); /* never 3 itself, so that dup2 clears CLOEXEC */
    close(fd[1]);
    err failed = shim_spawn(l, a, dir, theirs);
    close(theirs);
    TRY(failed);
    char byte;
    struct pollfd p = { .fd = ours, .events = POLLIN };
    if (poll(&p, 1, 10000) <= 0 || read(ours, &byte, 1) != 1)
        FAIL(UNAVAILABLE, "job %.*s did not start: see %s/shim.log", STR(j->id), dir);
    return NULL;
}

/* "PID TICKS" as the shim wrote it; 0 if it never did. */
static int64_t shim_pid(struct arena *a, const char *dir, int64_t *ticks)
{
    struct str text;
    if (file_read(a, fmtz(a, "%s/pid", dir), 256, &text))
        return 0;
    struct str pid, rest = str_trim(text);
    int64_t n = 0;
    str_cut(&rest, ' ', &pid);
    if (!str_i64(pid, &n) || !str_i64(rest, ticks))
        return 0;
    return n;
}

static bool shim_alive(struct arena *a, const char *dir, int64_t *pid)
{
    int64_t ticks = -2;
    *pid = shim_pid(a, dir, &ticks);
    return *pid > 0 && process_start_ticks(*pid) == ticks;
}

static err exit_read(struct arena *a, const char *dir, struct exec_state *out)
{
    struct str text;
    struct exec_exit end;
    TRY(file_read(a, fmtz(a, "%s/exit.json", dir), 1 << 16, &text));
    TRY(schema_read_text(&exec_exit_schema, a, S("exit"), text, READ_LENIENT, &end));
    *out = (struct exec_state){ .phase = EXEC_DONE,
                                .exit_code = (int)end.exit_code,
                                .signal = (int)end.signal,
                                .reason = end.reason,
                                .cpu_seconds = end.cpu_seconds,
                                .memory_peak = end.memory_peak,
                                .started = end.started,
                                .finished = end.finished };
    return NULL;
}

static err local_poll(struct exec *e, struct arena *a, struct str id, struct exec_state *out)
{
    const char *dir = exec_dir(a, ((struct local *)e)->dir, id);
    while (waitpid(-1, NULL, WNOHANG) > 0) /* shims of ours that ended; their word is in exit.json */
        ;
    *out = (struct exec_state){ 0 };
    if (!file_exists(dir))
        FAIL(NOT_FOUND, "there is no job folder %s", dir);
    for (int try = 0; try < 2; try++) { /* the shim may end between the two looks */
        const char *end = fmtz(a, "%s/exit.json", dir);
        if (file_exists(end))
            return exit_read(a, dir, out);
        if (shim_alive(a, dir, &out->pid)) {
            out->phase = EXEC_RUNNING;
            return NULL;
        }
    }
    out->phase = EXEC_LOST;
    out->reason = S("its process is gone and left no word");
    return NULL;
}

static err local_cancel(struct exec *e, struct str id)
{
    auto_arena struct arena *a = arena_new(0);
    int64_t pid;
    if (shim_alive(a, exec_dir(a, ((struct local *)e)->dir, id), &pid) && kill((pid_t)pid, SIGTERM) &&
        errno != ESRCH)
        return err_errno(errno, "cannot stop job %.*s", STR(id));
    return NULL;
}

static err local_remove(struct exec *e, struct str id)
{
    auto_arena struct arena *a = arena_new(0);
    return dir_remove(exec_dir(a, ((struct local *)e)->dir, id));
}

const struct exec_ops exec_local = {
    .name = "local",
    .open = local_open,
    .start = local_start,
    .poll = local_poll,
    .cancel = local_cancel,
    .remove = local_remove,
    .close = local_close,
};
const struct exec_ops *const exec_backends[] = { &exec_local, NULL };
