// SPDX-License-Identifier: Apache-2.0
/* The reconciler of Sweeps: looks at the jobs of the trials at work, and begins those that may begin. */
#include "train/train.h"

enum {
    LOOK_MS = 1000
}; /* jobs that end wake it; what else happens (one is deleted, the budget is spent) is seen by then */

struct begin {
    struct sweep_trial *trial;
    struct job_spec job;
};
struct sweep {
    struct store *store;
    struct arena *a;
    struct meta meta;
    struct sweep_spec spec;
    struct sweep_status status;
    struct sweep_plan plan; /* its trials are the status's */
    VEC(struct begin) begins;
    struct str owner;
    bool changed;
};

static void trial_end(struct sweep *s, struct sweep_trial *t, enum trial_phase phase, struct str why)
{
    t->phase = phase;
    t->measure = NAN;
    t->message = str_sub(why, 0, 300);
    s->changed = true;
}

/* ---- jobs ---- */

static err trial_begin(struct sweep *s, struct sweep_trial *t)
{
    struct begin b = { .trial = t };
    schema_defaults(&job_spec_schema, s->a, &b.job);
    b.job.type = S("train");
    b.job.owner = s->owner;
    b.job.cpu = s->spec.cpu;
    b.job.memory = s->spec.memory;
    b.job.timeout = s->spec.timeout;
    b.job.retries = s->spec.retries;
    TRY(sweep_form(s->a, &s->plan, t, &b.job.with, NULL));
    t->job = fmt(s->a, "%.*s-t%zu", STR(s->meta.name), t - s->plan.trials + 1);
    if (t->rung > 1)
        t->job = fmt(s->a, "%.*s-r%lld", STR(t->job), (long long)t->rung);
    t->phase = TRIAL_RUNNING;
    push(s->a, &s->begins, b);
    s->changed = true;
    return NULL;
}

/* The measures, as the job's result has them: JSON as text. */
static yyjson_val *metrics_of(struct arena *a, struct str result)
{
    yyjson_val *v, *metrics;
    const char *text = result.n && !json_parse(a, result, &v) ? yyjson_get_str(yyjson_obj_get(v, "metrics"))
                                                              : NULL;
    return text && !json_parse(a, str_of(text), &metrics) ? metrics : NULL;
}

static err trial_look(struct sweep *s, struct sweep_trial *t)
{
    struct job_spec spec;
    struct job_status job;
    err e = resource_get(s->store, s->a, &job_resource, s->meta.project, t->job, NULL, &spec, &job);
    if (e && e->code == NOT_FOUND) {
        trial_end(s, t, TRIAL_FAILED, S("its job was deleted"));
        return NULL;
    }
    TRY(e);
    if (job.phase < JOB_SUCCEEDED)
        return s->spec.cancel && !spec.cancel
                   ? job_cancel_request(s->store, s->owner, s->meta.project, t->job)
                   : NULL;
    t->seconds = job.started_at ? (double)(job.finished_at - job.started_at) / 1e6 : NAN;
    if (job.phase != JOB_SUCCEEDED)
        trial_end(s, t, job.phase == JOB_CANCELLED ? TRIAL_CANCELLED : TRIAL_FAILED, job.reason);
    else
        sweep_judge(s->a, &s->plan, t, metrics_of(s->a, job.result));
    s->changed = true;
    return NULL;
}

/* ---- the sweep ---- */

static err sweep_load(struct store *store, struct arena *a, struct str project, struct str name,
                      struct sweep *s)
{
    *s = (struct sweep){ .store = store, .a = a };
    TRY(resource_get(store, a, &sweep_resource, project, name, &s->meta, &s->spec, &s->status));
    s->owner = fmt(a, "Sweep/%.*s", STR(s->meta.name));
    s->plan = sweep_plan_of(&s->spec);
    return sweep_resume(a, &s->plan, &s->status.trials);
}

static err sweep_begin(struct sweep *s)
{
    s->status.phase = SWEEP_RUNNING;
    s->status.started = now_us();
    s->changed = true;
    err e = sweep_draw(s->a, &s->plan);
    if (!e || (e->code != INVALID && e->code != TOO_LARGE))
        return e;
    s->status.phase = SWEEP_FAILED; /* put by another version of this program, which knew other fields */
    s->status.message = str_dup(s->a, e->text);
    s->status.finished = now_us();
    return NULL;
}

static void counts_set(struct sweep *s)
{
    struct sweep_status *st = &s->status;
    const struct sweep_plan *p = &s->plan;
    const struct sweep_trial *best = sweep_best(p);
    st->trials = (struct list){ p->trials, p->n };
    st->total = (int64_t)p->n;
    st->running = (int64_t)sweep_count(p, TRIAL_RUNNING);
    st->done = (int64_t)sweep_count(p, TRIAL_DONE);
    st->failed = (int64_t)(sweep_count(p, TRIAL_FAILED) + sweep_count(p, TRIAL_NOT_MEASURED));
    st->best = best ? best - p->trials + 1 : 0;
    st->best_measure = best ? best->measure : NAN;
    st->best_job = best ? best->job : S("");
    st->best_set = best ? best->set : S("");
}

static struct str why_no_best(struct sweep *s)
{
    for (size_t i = 0; i < s->plan.n; i++)
        if (s->plan.trials[i].message.n)
            return fmt(s->a, "no trial came to an end with a measure; trial %zu: %.*s", i + 1,
                       STR(s->plan.trials[i].message));
    return S("no trial came to an end with a measure");
}

static void sweep_end(struct sweep *s)
{
    size_t late = sweep_count(&s->plan, TRIAL_NO_TIME);
    bool best = sweep_best(&s->plan) != NULL;
    s->status.phase = s->spec.cancel ? SWEEP_CANCELLED : best ? SWEEP_SUCCEEDED : SWEEP_FAILED;
    s->status.message = s->status.phase == SWEEP_FAILED ? why_no_best(s)
                        : late                          ? fmt(s->a, "no time for %zu trials", late)
                                                        : S("");
    s->status.finished = now_us();
    s->changed = true;
}

static err ended_event(struct tx *tx, const struct sweep *s)
{
    struct json j = json_new(tx_arena(tx));
    json_obj(&j);
    json_kstr(&j, "phase", str_of(sweep_phases[s->status.phase]));
    json_kstr(&j, "message", s->status.message);
    json_kstr(&j, "job", s->status.best_job);
    json_kf64(&j, "measure", s->status.best_measure);
    json_obj_end(&j);
    return event_append(tx,
                        &(struct event){ .type = S("sweep.ended"),
                                         .kind = S("Sweep"),
                                         .project = s->meta.project,
                                         .name = s->meta.name,
                                         .who = S("sweep"),
                                         .data = json_get(&j) },
                        NULL);
}

/* Jobs and the status that knows of them are made together or not at all, so none is ever made twice or forgotten. */
static err save_tx(struct tx *tx, void *arg)
{
    struct sweep *s = arg;
    struct arena *a = tx_arena(tx);
    for (size_t i = 0; i < s->begins.n; i++) {
        struct begin *b = &s->begins.v[i];
        err e = resource_create_tx(tx, a, &job_resource, s->owner, s->meta.project, b->trial->job, &b->job);
        if (e && e->code == CONFLICT)
            trial_end(s, b->trial, TRIAL_FAILED, S("there is another job of its name already"));
        else
            TRY(e);
    }
    counts_set(s);
    TRY(resource_status_tx(tx, a, &sweep_resource, s->meta.project, s->meta.name, -1, &s->status));
    return s->status.phase >= SWEEP_SUCCEEDED ? ended_event(tx, s) : NULL;
}

static err trials_move(struct sweep *s)
{
    struct sweep_trial *t;
    for (size_t i = 0; i < s->plan.n; i++) {
        t = &s->plan.trials[i];
        if (t->phase == TRIAL_RUNNING)
            TRY(trial_look(s, t));
        else if (t->phase == TRIAL_WAITING && s->spec.cancel)
            t->phase = TRIAL_CANCELLED;
    }
    while (!s->spec.cancel && (t = sweep_next(&s->plan, (now_us() - s->status.started) / 1000)))
        TRY(trial_begin(s, t));
    if (!sweep_count(&s->plan, TRIAL_RUNNING))
        sweep_end(s);
    return NULL;
}

static err sweep_move(struct store *store, struct arena *a, struct str project, struct str name,
                      int64_t *again_ms)
{
    struct sweep s;
    err e = sweep_load(store, a, project, name, &s);
    if (e && e->code == NOT_FOUND)
        return NULL;
    TRY(e);
    if (s.status.phase == SWEEP_WAITING)
        TRY(sweep_begin(&s));
    if (s.status.phase == SWEEP_RUNNING)
        TRY(trials_move(&s));
    *again_ms = s.status.phase == SWEEP_RUNNING ? LOOK_MS : 0;
    return s.changed ? store_write(store, save_tx, &s) : NULL;
}

/* The sweep that a job which ended is of; empty: none. */
static err ended_of(struct arena *a, const struct object *job, struct str *out)
{
    struct job_spec spec;
    struct job_status status;
    *out = S("");
    if (!job->id)
        return NULL;
    TRY(schema_read_text(&job_spec_schema, a, S("spec"), job->spec, READ_LENIENT, &spec));
    if (!str_starts(spec.owner, S("Sweep/")))
        return NULL;
    TRY(schema_read_text(&job_status_schema, a, S("status"), job->status.n ? job->status : S("{}"),
                         READ_LENIENT | READ_PARTIAL, &status));
    if (status.phase >= JOB_SUCCEEDED)
        *out = str_sub(spec.owner, sizeof "Sweep/" - 1, spec.owner.n);
    return NULL;
}

static err step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                int64_t *again_ms)
{
    int64_t no_matter;
    struct str name;
    (void)ev;
    if (str_is(o->kind, "Sweep"))
        return sweep_move(self, a, o->project, o->name, again_ms);
    TRY(ended_of(a, o, &name));
    return name.n ? sweep_move(self, a, o->project, name, &no_matter) : NULL;
}

struct reconciler sweep_reconciler(struct store *store)
{
    static const char *const kinds[] = { "Sweep", "Job", NULL };
    return (struct reconciler){ .name = "sweeps", .kinds = kinds, .step = step, .self = store };
}
