// SPDX-License-Identifier: Apache-2.0
/* The child's side of a job: `dhow worker --dir DIR/jobs/ID`. */
#include "sched/sched.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { PROGRESS_NS = 200000000 };

static volatile sig_atomic_t term_came;

static void on_term(int sig)
{
    (void)sig;
    term_came = 1;
}

bool worker_stopped(const struct worker *w)
{
    (void)w;
    return term_came;
}

void worker_progress(struct worker *w, int64_t done, int64_t total, const char *what)
{
    static int64_t last; /* one worker a process */
    int64_t now = mono_ns();
    if (done < total && last && now - last < PROGRESS_NS)
        return;
    last = now;
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "done", done);
    json_ki64(&j, "total", total);
    json_kstr(&j, "what", str_of(what));
    json_obj_end(&j);
    const char *path = fmtz(a, "%s/progress.json", w->dir), *tmp = fmtz(a, "%s.tmp", path);
    auto_fclose FILE *f = fopen(tmp, "we"); /* no fsync: it is only a figure to look at */
    if (f && fwrite(json_get(&j).p, 1, json_get(&j).n, f) == json_get(&j).n && !fflush(f))
        (void)rename(tmp, path);
}

void worker_metric(struct worker *w, const char *name, int64_t step, double value)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "name", str_of(name));
    json_ki64(&j, "step", step);
    json_kf64(&j, "value", value);
    json_ki64(&j, "time", now_us());
    json_obj_end(&j);
    struct str line = fmt(a, "%.*s\n", STR(json_get(&j)));
    auto_close int fd = open(fmtz(a, "%s/metrics.jsonl", w->dir), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                             0600);
    if (fd >= 0)
        (void)!write(fd, line.p, line.n);
}

void worker_say(struct worker *w, const char *f, ...)
{
    auto_arena struct arena *a = arena_new(0);
    va_list ap;
    va_start(ap, f);
    struct str text = vfmt(a, f, ap);
    va_end(ap);
    (void)w;
    struct str line = fmt(a, "%.*s\n", STR(text));
    (void)!write(STDOUT_FILENO, line.p, line.n);
}

err worker_result(struct worker *w, struct str text)
{
    return file_write(fmtz(w->a, "%s/result.json", w->dir), text);
}

static const struct worker_type *type_find(const struct worker_type *const *types, const char *name)
{
    for (; name && *types; types++)
        if (str_eq(str_of((*types)->name), str_of(name)) && (*types)->run)
            return *types;
    return NULL;
}

static struct str spec_text(const struct worker *w, const char *key)
{
    const char *z = yyjson_get_str(yyjson_obj_get(w->spec, key));
    return str_of(z ? z : "");
}

static err worker_run(const struct worker_type *const *types, struct worker *w)
{
    struct str text;
    TRY(file_read(w->a, fmtz(w->a, "%s/spec.json", w->dir), 64 << 20, &text));
    TRY(json_parse(w->a, text, &w->spec));
    w->project = spec_text(w, "project");
    w->job = spec_text(w, "job");
    const char *name = yyjson_get_str(yyjson_obj_get(w->spec, "type"));
    const struct worker_type *t = type_find(types, name);
    if (!t)
        FAIL(INVALID, "there is no worker type '%s'", name ? name : "");
    if (t->with) {
        w->with = arena_alloc(w->a, t->with->size, 16);
        TRY(schema_read(t->with, w->a, S("with"), yyjson_obj_get(w->spec, "with"), 0, w->with));
    }
    TRY(blobs_open(str_of(fmtz(w->a, "%s/../..", w->dir)), &w->blobs));
    err e = t->run(w);
    blobs_close(w->blobs);
    if (!e && term_came)
        FAIL(CANCELLED, "stopped");
    return e;
}

/* The daemon reads it to say why the job failed and whether another attempt may help. */
static void error_write(struct worker *w, err e)
{
    bool final = e->code == INVALID || e->code == NOT_FOUND || e->code == GATE || e->code == TOO_LARGE ||
                 e->code == UNSUPPORTED || e->code == CANCELLED;
    struct json j = json_new(w->a);
    json_obj(&j);
    json_kstr(&j, "code", err_table[e->code].name);
    json_kstr(&j, "text", e->text);
    json_kstr(&j, "hint", e->hint);
    json_kbool(&j, "final", final);
    json_obj_end(&j);
    (void)file_write(fmtz(w->a, "%s/error.json", w->dir), json_get(&j));
    worker_say(w, "error: %.*s", STR(e->text));
    if (e->hint.n)
        worker_say(w, "hint: %.*s", STR(e->hint));
}

int sched_worker_main(const struct worker_type *const *types, const char *dir)
{
    auto_arena struct arena *a = arena_new(0);
    struct worker w = { .a = a, .dir = dir };
    struct sigaction term = { .sa_handler = on_term };
    sigaction(SIGTERM, &term, NULL);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* without its shim nobody would keep its limits */
    err e = worker_run(types, &w);
    if (!e)
        return 0;
    error_write(&w, e);
    return err_table[e->code].exit ? err_table[e->code].exit : 1;
}
