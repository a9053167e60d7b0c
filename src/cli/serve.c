// SPDX-License-Identifier: Apache-2.0
/* serve, worker, shim: the processes of dhow. */
#include "cli/app.h"
#include "cli/cli.h"
#include "exec/exec.h"
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static err token_show(struct cli *c, struct app *app, const char *file)
{
    struct str token = app_first_token(app);
    if (!token.n)
        return NULL;
    if (file) {
        TRY_AS(file_write(file, token), "writing the admin token");
        (void)chmod(file, 0600);
        fprintf(stderr, "first start: the admin token is in %s\n", file);
        return NULL;
    }
    fprintf(stderr, "first start: the admin token, shown once:\n\n  export DHOW_TOKEN=%.*s\n\n", STR(token));
    (void)c;
    return NULL;
}

static err number_option(struct cli *c, const char *name, int *out)
{
    int64_t v = 0;
    const char *text = cli_option(c, name);
    if (text && (!str_i64(str_of(text), &v) || v < 0 || v > 4096))
        FAIL(INVALID, "--%s: '%s' is not a number from 0 to 4096", name, text);
    *out = (int)v;
    return NULL;
}

/* ---- limits ---- */

enum { HELD_BODIES = 4 }; /* the largest ones, that there is room for at least */
enum unit { NUMBER, SIZE, TIME };
/* One option per row; min to max is what makes sense of it. */
static const struct limit {
    const char *name;
    enum unit unit;
    int64_t min, max;
    size_t at; /* in struct app_config, which has a size_t there, or for a TIME an int64_t */
} limits[] = {
#define AT(member) offsetof(struct app_config, member)
    { "max-body", SIZE, 1 << 10, 2ll << 30, AT(infer_bytes_max) },
    { "max-held", SIZE, 16 << 20, 1ll << 50, AT(limits.held_bytes_max) },
    { "max-connections", NUMBER, 1, 1 << 20, AT(limits.connections_max) },
    { "max-waiting", NUMBER, 1, 1 << 20, AT(waiting_max) },
    { "head-timeout", TIME, 100, 3600 * 1000, AT(limits.header_ms_max) },
    { "body-timeout", TIME, 100, 24 * 3600 * 1000, AT(limits.body_ms_max) },
    { "idle-timeout", TIME, 100, 24 * 3600 * 1000, AT(limits.idle_ms_max) },
    { "write-timeout", TIME, 100, 24 * 3600 * 1000, AT(limits.write_ms_max) },
    { "stop-timeout", TIME, 100, 24 * 3600 * 1000, AT(limits.drain_ms_max) },
#undef AT
};
_Static_assert(sizeof(size_t) == sizeof(int64_t), "a limit is read as either");

static bool limit_parse(enum unit unit, struct str text, int64_t *out)
{
    switch (unit) {
    case NUMBER:
        return str_i64(text, out);
    case SIZE:
        return size_parse(text, out);
    case TIME:
        return duration_parse(text, out);
    }
    return false;
}

static struct str limit_text(struct arena *a, enum unit unit, int64_t v)
{
    return unit == NUMBER ? fmt(a, "%lld", (long long)v)
           : unit == SIZE ? size_text(a, v)
                          : duration_text(a, v);
}

static err limits_read(struct cli *c, struct app_config *cfg)
{
    static const char *const like[] = { "a number", "a size, as in 64Mi", "a time, as in 30s" };
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        const struct limit *l = &limits[i];
        const char *text = cli_option(c, l->name);
        int64_t v;
        if (!text)
            continue;
        if (!limit_parse(l->unit, str_of(text), &v))
            FAIL(INVALID, "--%s: '%s' is not %s", l->name, text, like[l->unit]);
        if (v < l->min || v > l->max)
            FAIL(INVALID, "--%s: %s is not from %.*s to %.*s", l->name, text,
                 STR(limit_text(c->a, l->unit, l->min)), STR(limit_text(c->a, l->unit, l->max)));
        memcpy((char *)cfg + l->at, &v, sizeof v);
    }
    size_t least = HELD_BODIES * cfg->infer_bytes_max, *held = &cfg->limits.held_bytes_max;
    size_t quarter = (size_t)sysconf(_SC_PHYS_PAGES) / 4 * (size_t)sysconf(_SC_PAGESIZE);
    if (*held && *held < least)
        FAIL(INVALID, "--max-held: %.*s are fewer than %d bodies of --max-body",
             STR(size_text(c->a, (int64_t)*held)), HELD_BODIES);
    if (!*held)
        *held = quarter > least ? quarter : least;
    return NULL;
}

enum { LOOK_S = 2, GROWN_MAX = 16 << 20, HEAP_MAX = 32 << 20, TOP_MAX = 4 << 20 };

/* Until a signal comes, memory that requests left behind goes back to the system: the allocator keeps up to 64 MiB of it
 * for each thread. After 400 stalled calls of 384 KB 296 MB were held, and 54 five seconds later. Lower limits of the
 * allocator's own would have each large request pay for its pages: 0.4 ms became 0.9 for one of 0.9 MB. */
static int wait_for(const sigset_t *stop)
{
    const struct timespec look = { .tv_sec = LOOK_S };
    int64_t least = rss_bytes();
    size_t most = 0;
    int sig;
    while ((sig = sigtimedwait(stop, NULL, &look)) < 0) {
        int64_t held = rss_bytes();
        size_t used = mallinfo2().uordblks;
        least = held < least ? held : least;
        most = used > most ? used : most;
        if (held < least + GROWN_MAX && used + GROWN_MAX > most)
            continue;
        heap_trim();
        least = rss_bytes();
        most = used;
    }
    return sig;
}

static err serve_run(struct cli *c)
{
    int64_t start = mono_ns();
    struct app_config cfg = { .listen = str_of(cli_option(c, "listen")),
                              .data = str_of(cli_option(c, "data")),
                              .sources = str_of(cli_option(c, "sources")),
                              .tls_cert = str_of(cli_option(c, "tls-cert")),
                              .tls_key = str_of(cli_option(c, "tls-key")),
                              .tls_client_ca = str_of(cli_option(c, "tls-client-ca")),
                              .allow_public = cli_has(c, "allow-public"),
                              .grpc_gzip = cli_has(c, "grpc-gzip") };
    struct app *app;
    sigset_t stop;
    TRY(number_option(c, "loops", &cfg.loops));
    TRY(number_option(c, "workers", &cfg.workers));
    TRY(limits_read(c, &cfg));
    (void)mallopt(M_MMAP_THRESHOLD, HEAP_MAX); /* it would get there by itself … */
    (void)mallopt(M_TRIM_THRESHOLD, TOP_MAX); /* … with 64 MiB for this, which malloc_trim() does not touch */
    log_setup(cli_has(c, "verbose") ? LOG_DEBUG : LOG_INFO, cli_has(c, "json-log"));
    setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* before any thread, so before ONNX Runtime can be loaded */
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, NULL); /* the threads inherit it; this one waits for them */
    TRY(app_start(&cfg, &app));
    err e = token_show(c, app, cli_option(c, "first-token"));
    if (e) {
        app_stop(app);
        return e;
    }
    fprintf(stderr, "dhow %s listens on http%s://%.*s, data in %.*s\n", DHOW_VERSION,
            cfg.tls_cert.n ? "s" : "", STR(app_address(app)), STR(cfg.data));
    log_info("dhow.started", KV("address", app_address(app)),
             KV("took_ms", (double)(mono_ns() - start) / 1e6), KV("pid", (int64_t)getpid()));
    int sig = wait_for(&stop);
    log_info("dhow.stopping", KV("signal", (int64_t)sig));
    pthread_sigmask(SIG_UNBLOCK, &stop, NULL); /* a second one ends it at once */
    app_stop(app);
    log_info("dhow.stopped", KV("pid", (int64_t)getpid()));
    return NULL;
}

static err worker_run(struct cli *c)
{
    const char *dir = cli_option(c, "dir");
    if (!dir)
        FAIL(INVALID, "worker needs --dir: jobs start it, not people");
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    c->exit = sched_worker_main(cli_worker_types(c->a), dir);
    return NULL;
}

static err shim_run(struct cli *c)
{
    c->exit = exec_shim(c->args[0]);
    return NULL;
}

static const struct option serve_options[] = {
    { "listen", 0, "ADDRESS:PORT", "Where to listen; only loopback unless --allow-public.", "127.0.0.1:7300",
      false },
    { "data", 0, "DIR", "Folder for everything it keeps.", "./dhow_data", false },
    { "sources", 0, "DIR", "Folder that the paths of Sources start in.", ".", false },
    { "first-token", 0, "FILE", "Write the first admin token there instead of showing it.", NULL, false },
    { "tls-cert", 0, "FILE",
      "Speak TLS 1.3 with this certificate (PEM, its chain after it); read again when it changes.", NULL,
      false },
    { "tls-key", 0, "FILE", "The certificate's key.", NULL, false },
    { "tls-client-ca", 0, "FILE", "Let in only clients with a certificate that this one signed.", NULL,
      false },
    { "allow-public", 0, NULL, "Listen on other addresses too; with TLS, or with TLS in front.", NULL,
      false },
    { "loops", 0, "N", "Event loops; 0: one per core.", "0", false },
    { "workers", 0, "N", "Threads for requests that may block; 0: two per core, at least 4.", "0", false },
    { "max-body", 0, "SIZE", "Largest body or message of a prediction.", "64Mi", false },
    { "max-held", 0, "SIZE",
      "Memory of all requests and unsent replies together; beyond, a body is refused with 503. A quarter of the "
      "machine's, unless told.",
      NULL, false },
    { "max-connections", 0, "N", "Connections of one event loop.", "16384", false },
    { "max-waiting", 0, "N", "Requests that wait for a thread; beyond, 503.", "1024", false },
    { "head-timeout", 0, "TIME", "For a request's line and headers to come, and for a TLS handshake.", "10s",
      false },
    { "body-timeout", 0, "TIME", "For a body to come after them.", "60s", false },
    { "idle-timeout", 0, "TIME", "How long a connection without a request is kept.", "75s", false },
    { "write-timeout", 0, "TIME", "How long a client may read nothing of its reply.", "30s", false },
    { "stop-timeout", 0, "TIME", "How long requests under way may take to end when it stops.", "10s", false },
    { "grpc-gzip", 0, NULL, "Compress replies over 1 KiB for gRPC clients that take it.", NULL, false },
    { "json-log", 0, NULL, "Log as JSON lines.", NULL, false },
    { "verbose", 'v', NULL, "Log more.", NULL, false },
    { 0 },
};
static const struct option worker_options[] = { { "dir", 0, "DIR", "The job's folder.", NULL, false },
                                                { 0 } };
const struct cli_verb verb_serve = {
    .name = "serve",
    .args = "",
    .doc = "Start the daemon: API, scheduler, model server, monitor.",
    .examples = "  dhow serve\n  dhow serve --data /srv/dhow --sources /srv/lake --listen 127.0.0.1:7400",
    .options = serve_options,
    .run = serve_run,
};
const struct cli_verb verb_worker = {
    .name = "worker",
    .args = "--dir DIR",
    .doc = "The child process of a job.",
    .options = worker_options,
    .run = worker_run,
    .hidden = true,
};
const struct cli_verb verb_shim = {
    .name = "shim",
    .args = "DIR",
    .doc = "What stands between the daemon and a job.",
    .args_min = 1,
    .args_max = 1,
    .run = shim_run,
    .hidden = true,
};
