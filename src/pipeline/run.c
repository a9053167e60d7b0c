// SPDX-License-Identifier: Apache-2.0
/* The reconciler of PipelineRuns: looks at the graph as it stands and moves each step that can move. */
#include "pipeline/internal.h"
#include <stdlib.h>

enum { POLL_MS = 100 };

struct run {
    struct pipelines *p;
    struct arena *a;
    struct meta meta;
    struct pipelinerun_spec spec;
    struct pipelinerun_status status;
    struct run_step *steps; /* of the status, one per step of the spec, same order */
    const struct pipeline_step *plan;
    bool changed;
};

/* ---- ${…} ---- */

static bool json_member(struct arena *a, struct str json, struct str key, struct str *out)
{
    yyjson_val *v;
    if (!json.n || json_parse(a, json, &v))
        return false;
    yyjson_val *m = yyjson_obj_getn(v, key.p, key.n);
    if (!m)
        return false;
    size_t n;
    char *text = yyjson_val_write(m, 0, &n);
    if (!text)
        return false;
    *out = str_dup(a, (struct str){ text, n });
    free(text);
    return true;
}

static struct str quoted(struct arena *a, struct str s)
{
    struct json j = json_new(a);
    json_str(&j, s);
    return json_get(&j);
}

static bool run_lookup(void *arg, struct arena *a, struct str name, struct str *out)
{
    struct run *r = arg;
    struct str scope, rest = name, step;
    if (!str_cut(&rest, '.', &scope))
        return false;
    if (str_is(scope, "params")) {
        for (size_t i = 0; i < r->spec.params.n; i++)
            if (str_eq(r->spec.params.v[i].key, rest)) {
                *out = quoted(a, r->spec.params.v[i].value);
                return true;
            }
    } else if (str_is(scope, "event")) {
        return json_member(a, r->spec.event, rest, out);
    } else if (str_is(scope, "run") && str_is(rest, "name")) {
        *out = quoted(a, r->meta.name);
        return true;
    } else if (str_is(scope, "steps") && str_cut(&rest, '.', &step)) {
        int i = step_index(&r->spec.steps, step);
        if (i >= 0 && str_is(rest, "job") && r->steps[i].job.n) {
            *out = quoted(a, r->steps[i].job);
            return true;
        }
        return i >= 0 && json_member(a, r->steps[i].outputs, rest, out);
    }
    return false;
}

/* ---- one step ---- */

static void step_end(struct run *r, struct run_step *s, enum step_phase phase, struct str why)
{
    s->phase = phase;
    s->error = why;
    s->finished = now_us();
    r->changed = true;
}

static const struct step_type *step_type_find(const struct pipelines *p, struct str name)
{
    for (const struct step_type *const *t = p->cfg.steps; *t; t++)
        if (str_eq(str_of((*t)->name), name))
            return *t;
    return NULL;
}

/* cpu and memory of a job come from `with.resources`, if its type has that. */
static void resources_take(struct arena *a, struct str with, struct job_spec *job)
{
    struct str res, cpu, memory;
    int64_t v;
    yyjson_val *t;
    if (!json_member(a, with, S("resources"), &res))
        return;
    if (json_member(a, res, S("cpu"), &cpu) && str_i64(cpu, &v) && v > 0)
        job->cpu = v;
    if (json_member(a, res, S("memory"), &memory) && !json_parse(a, memory, &t) && yyjson_is_str(t) &&
        size_parse(str_of(yyjson_get_str(t)), &v))
        job->memory = v;
}

/* A command's `with` is what a Job of its own says in its spec. */
static err command_take(struct arena *a, const struct pipeline_step *plan, struct str with,
                        struct job_spec *job)
{
    struct command_with c;
    TRY(schema_read_text(&command_with_schema, a, S("with"), with, 0, &c));
    if (!c.command.n)
        FAIL(INVALID, "steps.%.*s.with.command is missing: the program and its arguments", STR(plan->name));
    job->command = c.command;
    job->env = c.env;
    return NULL;
}

static err job_start(struct run *r, const struct pipeline_step *plan, struct run_step *s, struct str with)
{
    struct job_spec job;
    schema_defaults(&job_spec_schema, r->a, &job);
    job.type = plan->uses;
    job.with = with;
    job.retries = plan->retries;
    job.timeout = plan->timeout;
    job.owner = fmt(r->a, "PipelineRun/%.*s", STR(r->meta.name));
    job.cpu = 2;
    resources_take(r->a, with, &job);
    if (!sched_type(r->p->cfg.sched, plan->uses)->run)
        TRY(command_take(r->a, plan, with, &job));
    s->job = s->attempts > 0
                 ? fmt(r->a, "%.*s-%.*s-r%lld", STR(r->meta.name), STR(plan->name), (long long)s->attempts)
                 : fmt(r->a, "%.*s-%.*s", STR(r->meta.name), STR(plan->name));
    err e = resource_create(r->p->cfg.store, r->a, &job_resource, job.owner, r->meta.project, s->job, &job);
    return e && e->code == CONFLICT ? NULL : e; /* made before a crash: go on with it */
}

static err step_start(struct run *r, size_t i)
{
    const struct pipeline_step *plan = &r->plan[i];
    struct run_step *s = &r->steps[i];
    struct str with;
    TRY(pipeline_fill(r->a, plan->with, run_lookup, r, &with));
    const struct worker_type *type = sched_type(r->p->cfg.sched, plan->uses);
    if (type) {
        if (type->with) { /* say what is wrong here, before a job is made */
            void *out = arena_alloc(r->a, type->with->size, 16);
            TRY(schema_read_text(type->with, r->a, fmt(r->a, "steps.%.*s.with", STR(plan->name)), with, 0,
                                 out));
        }
        TRY(job_start(r, plan, s, with));
    } else if (!step_type_find(r->p, plan->uses)) {
        FAIL(INVALID, "step '%.*s' uses '%.*s', which this dhow does not know", STR(plan->name),
             STR(plan->uses));
    }
    s->phase = STEP_RUNNING;
    s->started = now_us();
    r->changed = true;
    return NULL;
}

static err job_look(struct run *r, size_t i)
{
    struct run_step *s = &r->steps[i];
    struct job_status job;
    struct job_spec spec;
    err e = resource_get(r->p->cfg.store, r->a, &job_resource, r->meta.project, s->job, NULL, &spec, &job);
    if (e && e->code == NOT_FOUND) {
        step_end(r, s, STEP_FAILED, fmt(r->a, "its job '%.*s' was deleted", STR(s->job)));
        return NULL;
    }
    TRY(e);
    if (r->spec.cancel && job.phase < JOB_SUCCEEDED && !spec.cancel)
        TRY(job_cancel_request(r->p->cfg.store, S("pipeline"), r->meta.project, s->job));
    if (!str_eq(s->progress, job.progress)) {
        s->progress = job.progress;
        r->changed = true;
    }
    if (job.phase == JOB_SUCCEEDED) {
        s->outputs = job.result;
        step_end(r, s, STEP_SUCCEEDED, S(""));
    } else if (job.phase == JOB_FAILED) {
        step_end(r, s, STEP_FAILED, job.reason);
    } else if (job.phase == JOB_CANCELLED) {
        step_end(r, s, STEP_CANCELLED, job.reason);
    }
    return NULL;
}

static err daemon_step(struct run *r, size_t i)
{
    const struct pipeline_step *plan = &r->plan[i];
    struct run_step *s = &r->steps[i];
    const struct step_type *type = step_type_find(r->p, plan->uses);
    struct job_context c = r->p->cfg.context;
    struct json outputs = json_new(r->a);
    struct str text;
    bool done = false, late = now_us() - s->started > plan->timeout * 1000;
    c.a = r->a;
    TRY(pipeline_fill(r->a, plan->with, run_lookup, r, &text));
    void *with = arena_alloc(r->a, type->with->size, 16);
    TRY(schema_read_text(type->with, r->a, fmt(r->a, "steps.%.*s.with", STR(plan->name)), text, 0, with));
    if ((r->spec.cancel || late) && type->stop)
        TRY(type->stop(&c, r->meta.project, r->meta.name, with));
    if (r->spec.cancel) {
        step_end(r, s, STEP_CANCELLED, S("cancelled"));
        return NULL;
    }
    if (late) {
        step_end(r, s, STEP_FAILED,
                 fmt(r->a, "took longer than %.*s", STR(duration_text(r->a, plan->timeout))));
        return NULL;
    }
    json_obj(&outputs);
    TRY(type->step(&c, r->meta.project, r->meta.name, with, &outputs, &done));
    json_obj_end(&outputs);
    if (done) {
        s->outputs = json_get(&outputs);
        step_end(r, s, STEP_SUCCEEDED, S(""));
    }
    return NULL;
}

/* Whether all that it needs has succeeded; *never if one of them cannot any more. */
static bool needs_met(const struct run *r, size_t i, bool *never)
{
    bool met = true;
    for (size_t k = 0; k < r->plan[i].needs.n; k++) {
        int phase = r->steps[step_index(&r->spec.steps, r->plan[i].needs.v[k])].phase;
        met = met && phase == STEP_SUCCEEDED;
        *never = *never || phase > STEP_SUCCEEDED;
    }
    return met;
}

static err step_move(struct run *r, size_t i)
{
    struct run_step *s = &r->steps[i];
    bool never = r->spec.cancel;
    err e = NULL;
    if (s->phase == STEP_WAITING) {
        bool met = needs_met(r, i, &never);
        if (never)
            step_end(r, s, STEP_SKIPPED, S(""));
        else if (met)
            e = step_start(r, i);
    } else if (s->phase == STEP_RUNNING) {
        e = s->job.n ? job_look(r, i) : daemon_step(r, i);
    }
    if (!e)
        return NULL;
    if (e->code == UNAVAILABLE || e->code == CONFLICT || e->code == LIMIT || e->code == FULL) {
        if (s->attempts++ < r->plan[i].retries) { /* worth another try; the step stays where it is */
            r->changed = true;
            return NULL;
        }
    }
    if (e->code == GATE)
        r->status.exit_code = err_table[GATE].exit;
    step_end(r, s, STEP_FAILED, e->text);
    return NULL;
}

/* ---- the run ---- */

static err run_load(struct pipelines *p, struct arena *a, const struct object *o, struct run *r)
{
    *r = (struct run){ .p = p, .a = a };
    TRY(resource_get(p->cfg.store, a, &pipelinerun_resource, o->project, o->name, &r->meta, &r->spec,
                     &r->status));
    r->plan = r->spec.steps.v;
    r->steps = r->status.steps.v;
    if (r->status.steps.n == r->spec.steps.n)
        return NULL;
    r->steps = NEW_N(a, struct run_step, r->spec.steps.n);
    for (size_t i = 0; i < r->spec.steps.n; i++)
        r->steps[i].name = r->plan[i].name;
    r->status.steps = (struct list){ r->steps, r->spec.steps.n };
    r->changed = true;
    return NULL;
}

static err run_save(struct run *r)
{
    if (!r->changed)
        return NULL;
    return resource_status(r->p->cfg.store, r->a, &pipelinerun_resource, r->meta.project, r->meta.name, -1,
                           &r->status);
}

/* Runs of the same pipeline that are older and not over yet: at most concurrency − 1 may be. */
static err may_begin(struct run *r, bool *out)
{
    struct objects all;
    struct pipeline_spec spec;
    int64_t before = 0;
    TRY(object_list(r->p->cfg.store, r->a, S("PipelineRun"), r->meta.project, S(""), 10000, &all));
    for (size_t i = 0; i < all.n; i++) {
        struct pipelinerun_spec other;
        struct pipelinerun_status status;
        if (all.v[i].id >= r->meta.id)
            continue;
        TRY(schema_read_text(&pipelinerun_spec_schema, r->a, S("spec"), all.v[i].spec, READ_LENIENT, &other));
        TRY(schema_read_text(&pipelinerun_status_schema, r->a, S("status"),
                             all.v[i].status.n ? all.v[i].status : S("{}"), READ_LENIENT | READ_PARTIAL,
                             &status));
        before += str_eq(other.pipeline, r->spec.pipeline) && status.phase < RUN_SUCCEEDED;
    }
    err e = resource_get(r->p->cfg.store, r->a, &pipeline_resource, r->meta.project, r->spec.pipeline, NULL,
                         &spec, NULL);
    *out = before < (e ? 1 : spec.concurrency);
    return e && e->code != NOT_FOUND ? e : NULL;
}

static void resume(struct run *r)
{
    for (size_t i = 0; i < r->spec.steps.n; i++) {
        if (r->steps[i].phase <= STEP_SUCCEEDED)
            continue;
        r->steps[i] = (struct run_step){ .name = r->plan[i].name, .attempts = r->spec.resumes };
    }
    r->status.resumed = r->spec.resumes;
    r->status.phase = RUN_WAITING;
    r->status.message = S("");
    r->status.exit_code = 0;
    r->status.finished = 0;
    r->changed = true;
}

/* Over once no step can move any more. */
static err run_end(struct run *r, bool *over)
{
    const struct run_step *failed = NULL;
    bool cancelled = false;
    for (size_t i = 0; i < r->spec.steps.n; i++) {
        if (r->steps[i].phase <= STEP_RUNNING)
            return NULL;
        if (!failed && r->steps[i].phase == STEP_FAILED)
            failed = &r->steps[i];
        cancelled = cancelled || r->steps[i].phase == STEP_CANCELLED;
    }
    *over = true;
    r->status.phase = failed ? RUN_FAILED : cancelled || r->spec.cancel ? RUN_CANCELLED : RUN_SUCCEEDED;
    r->status.message = failed ? fmt(r->a, "step %.*s: %.*s", STR(failed->name), STR(failed->error)) : S("");
    if (r->status.phase != RUN_SUCCEEDED && !r->status.exit_code)
        r->status.exit_code = 1;
    r->status.finished = now_us();
    r->changed = true;
    TRY(run_save(r));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "pipeline", r->spec.pipeline);
    json_kstr(&j, "phase", str_of(run_phases[r->status.phase]));
    json_kstr(&j, "message", r->status.message);
    json_obj_end(&j);
    return resource_event(r->p->cfg.store, &pipelinerun_resource, S("pipeline"), r->meta.project,
                          r->meta.name, "pipelinerun.ended", json_get(&j));
}

static err run_step_all(void *self, struct arena *a, const struct object *o, const struct event *ev,
                        int64_t *again_ms)
{
    struct run r;
    bool over = false, begin = true;
    if (ev && str_is(ev->type, "deleted"))
        return NULL;
    err e = run_load(self, a, o, &r);
    if (e && e->code == NOT_FOUND)
        return NULL;
    TRY(e);
    if (r.status.phase >= RUN_FAILED && r.spec.resumes > r.status.resumed)
        resume(&r);
    if (r.status.phase >= RUN_SUCCEEDED)
        return NULL;
    *again_ms = POLL_MS;
    if (r.status.phase == RUN_WAITING) {
        TRY(may_begin(&r, &begin));
        if (!begin && !r.spec.cancel) {
            *again_ms = 10 * POLL_MS;
            r.changed = r.changed || !r.status.message.n;
            r.status.message = S("waits for an earlier run of the same pipeline");
            return run_save(&r);
        }
        r.status.phase = RUN_RUNNING;
        r.status.message = S("");
        r.status.started = now_us();
        r.changed = true;
    }
    for (size_t i = 0; i < r.spec.steps.n; i++)
        TRY(step_move(&r, i));
    TRY(run_end(&r, &over));
    if (over)
        *again_ms = 0;
    return over ? NULL : run_save(&r);
}

struct reconciler pipelines_run_reconciler(struct pipelines *p)
{
    static const char *const kinds[] = { "PipelineRun", NULL };
    return (struct reconciler){ .name = "pipeline-runs", .kinds = kinds, .step = run_step_all, .self = p };
}
