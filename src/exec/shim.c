// SPDX-License-Identifier: Apache-2.0
/* The shim: one small process between the daemon and a job. It outlives the daemon, keeps the job's limits,
 * its output and its last word, so that a restarted daemon finds everything in the job's folder. */
#include "exec/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_MS = 50, GRACE_MS = 10000 };

SCHEMA_TABLE(exec_launch, EXEC_LAUNCH, "What the shim starts.");
SCHEMA_TABLE(exec_exit, EXEC_EXIT, "How it ended.");

static volatile sig_atomic_t told_to_stop;

static void on_term(int sig)
{
    (void)sig;
    told_to_stop = 1;
}

/* Fields of /proc/PID/stat after the name in brackets, which may hold anything. */
static bool stat_fields(int64_t pid, char *text, size_t n, const char **fields)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
    auto_close int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = fd < 0 ? -1 : read(fd, text, n - 1);
    if (got <= 0)
        return false;
    text[got] = 0;
    *fields = strrchr(text, ')');
    return *fields != NULL;
}

int64_t process_start_ticks(int64_t pid)
{
    char text[1024];
    const char *f;
    unsigned long long ticks = 0;
    char state;
    if (!stat_fields(pid, text, sizeof text, &f))
        return -1;
    if (sscanf(f, ") %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state,
               &ticks) != 2 ||
        state == 'Z')
        return -1;
    return (int64_t)ticks;
}

int64_t session_rss(int64_t session)
{
    DIR *d = opendir("/proc");
    int64_t pages = 0;
    for (struct dirent *e; d && (e = readdir(d));) {
        char text[1024];
        const char *f;
        long sid = 0, rss = 0;
        if (e->d_name[0] < '1' || e->d_name[0] > '9' || !stat_fields(atoll(e->d_name), text, sizeof text, &f))
            continue;
        if (sscanf(
                f,
                ") %*c %*d %*d %ld %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %*u %*u %ld",
                &sid, &rss) == 2 &&
            sid == session)
            pages += rss;
    }
    if (d)
        closedir(d);
    return pages * sysconf(_SC_PAGESIZE);
}

static int64_t machine_oom_kills(void)
{
    auto_arena struct arena *a = arena_new(0);
    auto_fclose FILE *f = fopen("/proc/vmstat", "re");
    char line[128];
    long long n = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "oom_kill %lld", &n) == 1)
            return n;
    return 0;
}

struct shim {
    struct arena *a;
    const char *dir;
    struct exec_launch launch;
    pid_t child;
    int output; /* read end of the job's stdout and stderr */
    int log;
    int64_t log_n;
    int64_t start_ns, stop_ns; /* stop_ns: when SIGTERM was sent */
    int64_t memory_peak;
    const char *reason;
};

static const char **strs_z(struct arena *a, const struct strs *s)
{
    const char **z = NEW_N(a, const char *, s->n + 1);
    for (size_t i = 0; i < s->n; i++)
        z[i] = str_z(a, s->v[i]);
    return z;
}

static void cores_limit(int64_t cores)
{
    cpu_set_t have, take;
    if (cores <= 0 || sched_getaffinity(0, sizeof have, &have) || cores >= CPU_COUNT(&have))
        return;
    CPU_ZERO(&take);
    int skip = (int)(getpid() % CPU_COUNT(&have)); /* spread small jobs over the cores */
    for (int round = 0; round < 2; round++)
        for (int c = 0; c < CPU_SETSIZE && CPU_COUNT(&take) < cores; c++)
            if (CPU_ISSET(c, &have) && !CPU_ISSET(c, &take) && skip-- <= 0)
                CPU_SET(c, &take);
    (void)sched_setaffinity(0, sizeof take, &take);
}

static err child_start(struct shim *s)
{
    int fd[2];
    if (pipe2(fd, O_CLOEXEC))
        return err_errno(errno, "cannot make a pipe");
    s->output = fd[0];
    (void)fcntl(s->output, F_SETFL, O_NONBLOCK);
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&files, fd[1], 1);
    posix_spawn_file_actions_adddup2(&files, fd[1], 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP);
    const char **argv = strs_z(s->a, &s->launch.argv), **env = strs_z(s->a, &s->launch.env);
    if (!argv[0])
        FAIL(INVALID, "the job has no program");
    struct rlimit no_core = { 0 };
    (void)setrlimit(RLIMIT_CORE, &no_core);
    cores_limit(s->launch.cpu);
    int bad = posix_spawnp(&s->child, argv[0], &files, &attr, (char **)argv, (char **)env);
    close(fd[1]);
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&attr);
    if (bad)
        return err_errno(bad, "cannot start %s", argv[0]);
    return NULL;
}

static void log_put(struct shim *s, const char *p, size_t n)
{
    int64_t room = s->launch.log_max - s->log_n;
    bool cut = room < (int64_t)n;
    size_t keep = cut ? (room > 0 ? (size_t)room : 0) : n;
    if (keep && write(s->log, p, keep) < 0)
        return; /* a full disk costs output, never the job */
    if (cut && room >= 0) {
        static const char note[] = "\n[the rest of the output was cut: it is over the job's limit]\n";
        (void)!write(s->log, note, sizeof note - 1);
        s->log_n = s->launch.log_max + 1;
        return;
    }
    s->log_n += (int64_t)keep;
}

static void output_copy(struct shim *s)
{
    char block[65536];
    for (ssize_t n; (n = read(s->output, block, sizeof block)) > 0;)
        log_put(s, block, (size_t)n);
}

static void child_stop(struct shim *s, const char *reason)
{
    if (!s->reason)
        s->reason = reason;
    if (!s->stop_ns) {
        s->stop_ns = mono_ns();
        kill(-s->child, SIGTERM);
    } else if (mono_ns() - s->stop_ns > (int64_t)GRACE_MS * 1000000) {
        kill(-s->child, SIGKILL);
    }
}

static void limits_keep(struct shim *s)
{
    int64_t rss = session_rss(getsid(0));
    if (rss > s->memory_peak)
        s->memory_peak = rss;
    if (s->launch.memory > 0 && rss > s->launch.memory) {
        s->reason = "out of memory";
        kill(-s->child, SIGKILL);
    } else if (told_to_stop) {
        child_stop(s, "cancelled");
    } else if (s->launch.timeout > 0 && mono_ns() - s->start_ns > s->launch.timeout * 1000000) {
        child_stop(s, "timeout");
    }
}

static void end_write(struct shim *s, int status, const struct rusage *used, int64_t started, int64_t ooms)
{
    struct exec_exit end = { .started = started, .finished = now_us() };
    end.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    end.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + end.signal;
    end.cpu_seconds = (double)(used->ru_utime.tv_sec + used->ru_stime.tv_sec) +
                      (double)(used->ru_utime.tv_usec + used->ru_stime.tv_usec) / 1e6;
    end.memory_peak = s->memory_peak > used->ru_maxrss * 1024 ? s->memory_peak : used->ru_maxrss * 1024;
    if (s->reason && (end.exit_code || end.signal))
        end.reason = str_of(s->reason);
    else if (end.signal == SIGKILL && machine_oom_kills() > ooms)
        end.reason = S("out of memory");
    else if (end.signal)
        end.reason = fmt(s->a, "signal %lld", (long long)end.signal);
    else if (end.exit_code)
        end.reason = fmt(s->a, "exit %lld", (long long)end.exit_code);
    err e = file_write(fmtz(s->a, "%s/exit.json", s->dir),
                       schema_text(&exec_exit_schema, s->a, &end, WRITE_DEFAULTS));
    if (e)
        log_err("shim.end_lost", e);
}

static err shim_run(struct shim *s)
{
    int64_t started = now_us(), ooms = machine_oom_kills();
    struct str text;
    TRY(file_read(s->a, fmtz(s->a, "%s/launch.json", s->dir), 4 << 20, &text));
    TRY(schema_read_text(&exec_launch_schema, s->a, S("launch"), text, 0, &s->launch));
    s->log = open(fmtz(s->a, "%s/out.log", s->dir), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log < 0)
        return err_errno(errno, "cannot write %s/out.log", s->dir);
    s->start_ns = mono_ns();
    int status = 127 << 8;
    struct rusage used = { 0 };
    err e = child_start(s);
    (void)!write(3, "!", 1); /* the daemon's exec_start returns; a child that cannot start is a failed job */
    close(3);
    if (e) {
        log_put(s, e->text.p, e->text.n);
        s->reason = str_z(s->a, e->text);
    }
    while (!e && wait4(s->child, &status, WNOHANG, &used) == 0) {
        struct pollfd p = { .fd = s->output, .events = POLLIN };
        int64_t until = mono_ns() + LOOK_MS * 1000000LL;
        (void)poll(&p, 1, LOOK_MS);
        output_copy(s);
        limits_keep(s);
        if (p.revents & POLLHUP && mono_ns() < until)
            (void)usleep(5000); /* output closed, process not yet gone */
    }
    if (!e) {
        output_copy(s);
        kill(-s->child, SIGKILL); /* what the job left behind in its group */
    }
    end_write(s, status, &used, started, ooms);
    return NULL;
}

int exec_shim(const char *job_dir)
{
    auto_arena struct arena *a = arena_new(0);
    struct shim s = { .a = a, .dir = job_dir };
    auto_close int lock = open(fmtz(a, "%s/lock", job_dir), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB)) /* another shim has this job already */
        return 1;
    if (file_exists(fmtz(a, "%s/exit.json", job_dir)))
        return 1;
    struct sigaction term = { .sa_handler = on_term };
    sigaction(SIGTERM, &term, NULL);
    sigaction(SIGINT, &term, NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    err e = file_write(fmtz(a, "%s/pid", job_dir),
                       fmt(a, "%d %lld\n", (int)getpid(), (long long)process_start_ticks(getpid())));
    if (!e)
        e = shim_run(&s);
    if (e)
        log_err("shim.failed", e);
    return e ? 1 : 0;
}
