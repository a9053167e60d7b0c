// SPDX-License-Identifier: Apache-2.0
/* serve, worker, shim: the processes of dhow. */
#include "cli/app.h"
#include "cli/cli.h"
#include "exec/exec.h"
#include <malloc.h>
#include <signal.h>
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
        (void)malloc_trim(0);
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
                              .allow_public = cli_has(c, "allow-public") };
    struct app *app;
    sigset_t stop;
    TRY(number_option(c, "loops", &cfg.loops));
    TRY(number_option(c, "workers", &cfg.workers));
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
