// SPDX-License-Identifier: Apache-2.0
#include "sched/internal.h"
#include <stdlib.h>
#include <unistd.h>

enum { POLL_MS = 100, PROGRESS_MS = 1000, HOOK_THREADS = 2, HOOKS_MAX = 256, ERROR_BYTES_MAX = 65536 };

const char *const job_phases[] = { "queued",    "starting", "running",   "finishing",
                                   "succeeded", "failed",   "cancelled", NULL };
SCHEMA_TABLE(job_spec, JOB_SPEC, "Work that runs once in a process of its own.");
SCHEMA_TABLE(job_status, JOB_STATUS, "How it went.");
SCHEMA_TABLE(command_with, COMMAND_WITH,
             "What a program is run with as a step; a Job of its own says it in its spec.");

/* ---- what is queued and at work ---- */

static struct entry *entry_find(struct sched *s, struct str project, struct str name)
{
    for (struct entry *e = s->entries; e; e = e->next)
        if (str_eq(str_of(e->project), project) && str_eq(str_of(e->name), name))
            return e;
    return NULL;
}

static struct entry *entry_add(struct sched *s, const struct meta *m, const struct job_spec *spec)
{
    struct entry *e = entry_find(s, m->project, m->name);
    if (!e) {
        e = calloc(1, sizeof *e);
        e->project = strndup(m->project.p, m->project.n);
        e->name = strndup(m->name.p, m->name.n);
        e->next = s->entries;
        s->entries = e;
    }
    e->id = m->id;
    e->cpu = spec->cpu;
    e->memory = spec->memory;
    e->priority = spec->priority;
    return e;
}

static void entry_drop(struct sched *s, struct str project, struct str name)
{
    for (struct entry **p = &s->entries; *p; p = &(*p)->next) {
        struct entry *e = *p;
        if (!str_eq(str_of(e->project), project) || !str_eq(str_of(e->name), name))
            continue;
        *p = e->next;
        free(e->project);
        free(e->name);
        free(e);
        return;
    }
}

/* Empty if the job may start now, else why it waits. A job larger than the machine is let in alone, so that
 * it runs as well as it can rather than never. */
static struct str why_wait(struct sched *s, struct arena *a, const struct entry *me)
{
    int64_t cpu = s->cfg.cpu, memory = s->cfg.memory;
    bool alone = true;
    for (const struct entry *e = s->entries; e; e = e->next) {
        if (e == me)
            continue;
        if (e->active) {
            cpu -= e->cpu;
            memory -= e->memory;
            alone = false;
        } else if (e->priority > me->priority || (e->priority == me->priority && e->id < me->id)) {
            return fmt(a, "behind job %s", e->name);
        }
    }
    if (!alone && me->cpu > cpu)
        return fmt(a, "waits for %lld of %lld cores", (long long)me->cpu, (long long)s->cfg.cpu);
    if (!alone && me->memory > memory)
        return fmt(a, "waits for %.*s of memory", STR(size_text(a, me->memory)));
    return S("");
}

static void poke_queued(struct sched *s)
{
    for (const struct entry *e = s->entries; e && s->control; e = e->next)
        if (!e->active)
            control_poke(s->control, S("Job"), str_of(e->project), str_of(e->name));
}

/* ---- one attempt ---- */

struct str job_attempt_id(struct arena *a, int64_t id, int64_t attempt)
{
    return fmt(a, "%lld-%lld", (long long)id, (long long)attempt);
}

const char *job_attempt_dir(struct sched *s, struct arena *a, int64_t id, int64_t attempt)
{
    return exec_dir(a, store_dir(s->cfg.store), job_attempt_id(a, id, attempt));
}

const struct worker_type *sched_type(struct sched *s, struct str name)
{
    for (const struct worker_type *const *t = s->cfg.types; *t; t++)
        if (str_eq(str_of((*t)->name), name))
            return *t;
    return NULL;
}

/* Everything a step or a hook needs of one job. */
struct view {
    struct sched *s;
    struct arena *a;
    struct meta meta;
    struct job job;
    struct job_status status;
    const struct worker_type *type;
};

static err view_load(struct sched *s, struct arena *a, struct str project, struct str name, struct view *v)
{
    *v = (struct view){ .s = s, .a = a };
    TRY(resource_get(s->cfg.store, a, &job_resource, project, name, &v->meta, &v->job.spec, &v->status));
    v->job.project = v->meta.project;
    v->job.name = v->meta.name;
    v->type = sched_type(s, v->job.spec.type);
    if (!v->type)
        FAIL(INVALID, "job '%.*s' has type '%.*s', which this dhow does not know", STR(name),
             STR(v->job.spec.type));
    if (!v->type->with)
        return NULL;
    v->job.with = arena_alloc(a, v->type->with->size, 16);
    return schema_read_text(v->type->with, a, S("spec.with"), v->job.spec.with.n ? v->job.spec.with : S("{}"),
                            0, v->job.with);
}

static err status_save(struct view *v)
{
    return resource_status(v->s->cfg.store, v->a, &job_resource, v->meta.project, v->meta.name, -1,
                           &v->status);
}

static struct job_context context_of(struct view *v)
{
    struct job_context c = v->s->cfg.context;
    c.a = v->a;
    c.self = v->type->self;
    return c;
}

static const char *const passed_on[] = {
    "DHOW_ORT_LIB", "DHOW_DUCKDB_LIB", "DHOW_XGBOOST_LIB", "TZ", "LANG", NULL
};

static const char *const *job_env(struct view *v, const char *dir)
{
    VEC(const char *) env = { 0 };
    int64_t cores = v->job.spec.cpu < v->s->cfg.cpu ? v->job.spec.cpu : v->s->cfg.cpu;
    push(v->a, &env, "PATH=/usr/local/bin:/usr/bin:/bin");
    push(v->a, &env, fmtz(v->a, "HOME=%s", dir));
    push(v->a, &env, fmtz(v->a, "TMPDIR=%s", dir));
    push(v->a, &env, fmtz(v->a, "OMP_NUM_THREADS=%lld", (long long)cores));
    push(v->a, &env, fmtz(v->a, "DHOW_JOB=%.*s", STR(v->meta.name)));
    push(v->a, &env, fmtz(v->a, "DHOW_PROJECT=%.*s", STR(v->meta.project)));
    for (size_t i = 0; passed_on[i]; i++)
        if (getenv(passed_on[i]))
            push(v->a, &env, fmtz(v->a, "%s=%s", passed_on[i], getenv(passed_on[i])));
    for (size_t i = 0; i < v->job.spec.env.n; i++)
        push(v->a, &env,
             fmtz(v->a, "%.*s=%.*s", STR(v->job.spec.env.v[i].key), STR(v->job.spec.env.v[i].value)));
    push(v->a, &env, NULL);
    return env.v;
}

static const char *const *job_argv(struct view *v, const char *dir)
{
    VEC(const char *) argv = { 0 };
    if (v->type->run) {
        push(v->a, &argv, v->s->cfg.program);
        push(v->a, &argv, "worker");
        push(v->a, &argv, "--dir");
        push(v->a, &argv, dir);
    } else {
        for (size_t i = 0; i < v->job.spec.command.n; i++)
            push(v->a, &argv, str_z(v->a, v->job.spec.command.v[i]));
    }
    push(v->a, &argv, NULL);
    return argv.v;
}

/* queued → running, on the lane: prepare may read files and hash them. */
static err attempt_start(struct view *v)
{
    struct json spec = json_new(v->a);
    json_obj(&spec);
    json_kstr(&spec, "type", v->job.spec.type);
    json_kstr(&spec, "project", v->meta.project);
    json_kstr(&spec, "job", v->meta.name);
    json_ki64(&spec, "cpu", v->job.spec.cpu < v->s->cfg.cpu ? v->job.spec.cpu : v->s->cfg.cpu);
    json_kraw(&spec, "with", v->job.spec.with.n ? v->job.spec.with : S("{}"));
    struct job_context c = context_of(v);
    if (v->type->prepare)
        TRY_AS(v->type->prepare(&c, &v->job, &spec), "preparing job '%.*s'", STR(v->meta.name));
    json_obj_end(&spec);
    const char *dir = job_attempt_dir(v->s, v->a, v->meta.id, v->status.attempts);
    struct exec_job job = { .id = job_attempt_id(v->a, v->meta.id, v->status.attempts),
                            .argv = job_argv(v, dir),
                            .env = job_env(v, dir),
                            .spec = json_get(&spec),
                            .memory_bytes = v->job.spec.memory,
                            .cpu_cores = v->job.spec.cpu,
                            .timeout_ms = v->job.spec.timeout };
    TRY(v->s->cfg.exec->ops->start(v->s->cfg.exec, &job));
    v->status.phase = JOB_RUNNING;
    v->status.reason = S("");
    v->status.started_at = now_us();
    return status_save(v);
}

/* finishing → succeeded, on the lane. */
static err attempt_finish(struct view *v)
{
    const char *dir = job_attempt_dir(v->s, v->a, v->meta.id, v->status.attempts);
    struct json outputs = json_new(v->a);
    json_obj(&outputs);
    if (v->type->finish) {
        struct str text;
        yyjson_val *result = NULL;
        if (v->type->run) {
            TRY_AS(file_read(v->a, fmtz(v->a, "%s/result.json", dir), 64 << 20, &text),
                   "job '%.*s' left no result", STR(v->meta.name));
            TRY(json_parse(v->a, text, &result));
        }
        struct job_context c = context_of(v);
        TRY_AS(v->type->finish(&c, &v->job, result, &outputs), "finishing job '%.*s'", STR(v->meta.name));
    }
    json_obj_end(&outputs);
    v->status.result = json_get(&outputs);
    v->status.phase = JOB_SUCCEEDED;
    v->status.reason = S("");
    return status_save(v);
}

struct hook {
    struct sched *s;
    err (*run)(struct view *);
    char *project, *name;
};

static void job_failed(struct view *v, struct str why, bool may_retry)
{
    bool again = may_retry && v->status.attempts <= v->job.spec.retries && !v->job.spec.cancel;
    v->status.phase = again ? JOB_QUEUED : v->job.spec.cancel ? JOB_CANCELLED : JOB_FAILED;
    v->status.reason = again ? fmt(v->a, "attempt %lld failed: %.*s", (long long)v->status.attempts, STR(why))
                             : why;
    v->status.finished_at = now_us();
}

static bool worth_retrying(enum err_code code)
{
    return code != INVALID && code != NOT_FOUND && code != GATE && code != TOO_LARGE && code != UNSUPPORTED;
}

static void hook_run(void *arg)
{
    struct hook *h = arg;
    auto_arena struct arena *a = arena_new(0);
    struct view v;
    err e = view_load(h->s, a, str_of(h->project), str_of(h->name), &v);
    if (!e && (e = h->run(&v))) {
        log_err("job.hook_failed", e);
        job_failed(&v, e->text, worth_retrying(e->code));
        e = status_save(&v);
    }
    if (e)
        log_err("job.status_lost", e);
    pthread_mutex_lock(&h->s->lock);
    struct entry *entry = entry_find(h->s, str_of(h->project), str_of(h->name));
    if (entry)
        entry->hook = false;
    if (h->s->control)
        control_poke(h->s->control, S("Job"), str_of(h->project), str_of(h->name));
    pthread_mutex_unlock(&h->s->lock);
    free(h->project);
    free(h->name);
    free(h);
    err_reset();
}

static err hook_start(struct view *v, struct entry *entry, err (*run)(struct view *))
{
    struct hook *h = malloc(sizeof *h);
    *h = (struct hook){ .s = v->s,
                        .run = run,
                        .project = strndup(v->meta.project.p, v->meta.project.n),
                        .name = strndup(v->meta.name.p, v->meta.name.n) };
    entry->hook = true;
    if (lane_push(v->s->hooks, hook_run, h))
        return NULL;
    entry->hook = false;
    free(h->project);
    free(h->name);
    free(h);
    FAIL(LIMIT, "too many jobs start or finish at once");
}

/* ---- the reconciler: one step per phase ---- */

static err step_queued(struct view *v, struct entry *entry)
{
    if (v->job.spec.cancel) {
        v->status.phase = JOB_CANCELLED;
        v->status.finished_at = now_us();
        return status_save(v);
    }
    struct str wait = why_wait(v->s, v->a, entry);
    if (wait.n) {
        v->status.reason = wait;
        return status_save(v);
    }
    entry->active = true;
    v->status.phase = JOB_STARTING;
    v->status.reason = S("");
    v->status.attempts++;
    TRY(status_save(v));
    return hook_start(v, entry, attempt_start);
}

/* The daemon died between the decision and the start: the shim may or may not run. */
static err step_starting(struct view *v, struct entry *entry)
{
    struct exec_state st;
    struct str id = job_attempt_id(v->a, v->meta.id, v->status.attempts);
    err e = v->s->cfg.exec->ops->poll(v->s->cfg.exec, v->a, id, &st);
    if (e || st.phase == EXEC_LOST)
        return hook_start(v, entry, attempt_start);
    v->status.phase = JOB_RUNNING;
    return status_save(v);
}

/* What the worker said of its failure: error.json {code, text, hint, final}. */
static struct str failure_text(struct view *v, const struct exec_state *st, bool *may_retry)
{
    const char *dir = job_attempt_dir(v->s, v->a, v->meta.id, v->status.attempts);
    struct str text;
    yyjson_val *said;
    *may_retry = true;
    if (!str_starts(st->reason, S("exit "))) /* it was ended: what it said of that is not why */
        return st->reason;
    if (file_read(v->a, fmtz(v->a, "%s/error.json", dir), ERROR_BYTES_MAX, &text) ||
        json_parse(v->a, text, &said))
        return st->reason;
    const char *what = yyjson_get_str(yyjson_obj_get(said, "text")),
               *hint = yyjson_get_str(yyjson_obj_get(said, "hint"));
    *may_retry = !yyjson_get_bool(yyjson_obj_get(said, "final"));
    if (!what)
        return st->reason;
    return hint && *hint ? fmt(v->a, "%s (%s)", what, hint) : fmt(v->a, "%s", what);
}

static void log_keep(struct view *v)
{
    const char *path = fmtz(v->a, "%s/out.log", job_attempt_dir(v->s, v->a, v->meta.id, v->status.attempts));
    struct str text;
    if (!file_map(v->a, path, &text))
        (void)blob_put(store_blobs(v->s->cfg.store), v->a, text,
                       &v->status.log); /* the log is not worth a failure */
}

static err step_ended(struct view *v, struct entry *entry, const struct exec_state *st)
{
    v->status.exit_code = st->exit_code;
    v->status.cpu_seconds = st->cpu_seconds;
    v->status.memory_peak = st->memory_peak;
    v->status.finished_at = st->finished ? st->finished : now_us();
    log_keep(v);
    if (st->phase == EXEC_DONE && st->exit_code == 0) {
        v->status.phase = JOB_FINISHING;
        TRY(status_save(v));
        return hook_start(v, entry, attempt_finish);
    }
    bool may_retry;
    struct str why = failure_text(v, st, &may_retry);
    job_failed(v, why, may_retry);
    return status_save(v);
}

static err step_running(struct view *v, struct entry *entry, int64_t *again_ms)
{
    struct exec_state st;
    struct str id = job_attempt_id(v->a, v->meta.id, v->status.attempts), text;
    TRY(v->s->cfg.exec->ops->poll(v->s->cfg.exec, v->a, id, &st));
    if (st.phase != EXEC_RUNNING)
        return step_ended(v, entry, &st);
    if (v->job.spec.cancel)
        TRY(v->s->cfg.exec->ops->cancel(v->s->cfg.exec, id));
    const char *dir = job_attempt_dir(v->s, v->a, v->meta.id, v->status.attempts);
    yyjson_val *progress;
    if (!file_read(v->a, fmtz(v->a, "%s/progress.json", dir), 4096, &text) &&
        !json_parse(v->a, text, &progress) && !str_eq(text, v->status.progress)) {
        v->status.progress = text;
        TRY(status_save(v));
    }
    *again_ms = POLL_MS;
    return NULL;
}

/* Its process is stopped; called again until the last attempt has ended. */
static err job_deleted(struct sched *s, struct arena *a, const struct object *o, int64_t *again_ms)
{
    const struct exec_ops *ops = s->cfg.exec->ops;
    struct entry *entry = entry_find(s, o->project, o->name);
    if (!entry || entry->hook)
        return NULL;
    for (int64_t attempt = 1;; attempt++) {
        struct str id = job_attempt_id(a, entry->id, attempt);
        struct exec_state st;
        if (ops->poll(s->cfg.exec, a, id, &st)) /* no such folder: that was the last one */
            break;
        if (st.phase == EXEC_RUNNING) {
            *again_ms = POLL_MS;
            return ops->cancel(s->cfg.exec, id);
        }
    }
    entry_drop(s, o->project, o->name);
    poke_queued(s);
    return NULL;
}

static err sched_step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                      int64_t *again_ms)
{
    struct sched *s = self;
    struct view v;
    LOCKED(&s->lock);
    (void)ev;
    err e = view_load(s, a, o->project, o->name, &v);
    if (e && e->code == NOT_FOUND)
        return job_deleted(s, a, o, again_ms);
    if (e && v.meta.id && v.status.phase == JOB_QUEUED) { /* a bad spec that slipped in: say so once */
        job_failed(&v, e->text, false);
        return status_save(&v);
    }
    TRY(e);
    if (v.status.phase >= JOB_SUCCEEDED) {
        if (entry_find(s, o->project, o->name)) {
            entry_drop(s, o->project, o->name);
            poke_queued(s);
        }
        return NULL;
    }
    struct entry *entry = entry_add(s, &v.meta, &v.job.spec);
    entry->active = v.status.phase != JOB_QUEUED;
    if (entry->hook)
        return NULL; /* its end pokes us */
    switch ((enum job_phase)v.status.phase) {
    case JOB_QUEUED:
        return step_queued(&v, entry);
    case JOB_STARTING:
        return step_starting(&v, entry);
    case JOB_RUNNING:
        return step_running(&v, entry, again_ms);
    case JOB_FINISHING:
        return hook_start(&v, entry, attempt_finish);
    default:
        return NULL;
    }
}

struct reconciler sched_reconciler(struct sched *s)
{
    static const char *const kinds[] = { "Job", NULL };
    return (struct reconciler){ .name = "sched", .kinds = kinds, .step = sched_step, .self = s };
}

void sched_set_control(struct sched *s, struct control *c)
{
    LOCKED(&s->lock);
    s->control = c;
}

/* ---- open and close ---- */

/* Jobs at work before the restart take their place before any queued one is looked at. */
static err entries_load(struct sched *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct objects all;
    TRY(object_list(s->cfg.store, a, S("Job"), S(""), S(""), 10000, &all));
    for (size_t i = 0; i < all.n; i++) {
        struct meta m = { .id = all.v[i].id, .project = all.v[i].project, .name = all.v[i].name };
        struct job_spec spec;
        struct job_status status;
        TRY(schema_read_text(&job_spec_schema, a, S("spec"), all.v[i].spec, READ_LENIENT, &spec));
        TRY(schema_read_text(&job_status_schema, a, S("status"),
                             all.v[i].status.n ? all.v[i].status : S("{}"), READ_LENIENT | READ_PARTIAL,
                             &status));
        if (status.phase < JOB_SUCCEEDED)
            entry_add(s, &m, &spec)->active = status.phase != JOB_QUEUED;
    }
    return NULL;
}

err sched_open(const struct sched_config *cfg, struct sched **out)
{
    struct sched *s = calloc(1, sizeof *s);
    s->cfg = *cfg;
    if (!s->cfg.cpu)
        s->cfg.cpu = cpu_count();
    if (!s->cfg.memory)
        s->cfg.memory = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE) / 10 * 8;
    pthread_mutex_init(&s->lock, NULL);
    err e = lane_new("jobs", HOOK_THREADS, HOOKS_MAX, &s->hooks);
    if (!e)
        e = entries_load(s);
    if (e) {
        sched_close(s);
        return e;
    }
    *out = s;
    return NULL;
}

void sched_close(struct sched *s)
{
    if (!s)
        return;
    lane_free(s->hooks);
    while (s->entries)
        entry_drop(s, str_of(s->entries->project), str_of(s->entries->name));
    pthread_mutex_destroy(&s->lock);
    free(s);
}
