// SPDX-License-Identifier: Apache-2.0
/* The kinds Pipeline and PipelineRun: what may be written, and the actions run, cancel and resume. */
#include "pipeline/internal.h"

const char *const run_phases[] = { "waiting", "running", "succeeded", "failed", "cancelled", NULL };
const char *const step_phases[] = {
    "waiting", "running", "succeeded", "failed", "skipped", "cancelled", NULL
};
SCHEMA_TABLE(pipeline_trigger, PIPELINE_TRIGGER, "An event that starts a run.");
SCHEMA_TABLE(pipeline_step, PIPELINE_STEP, "One node of the graph.");
SCHEMA_TABLE(pipeline_spec, PIPELINE_SPEC, "Steps, what starts them, and their parameters.");
SCHEMA_TABLE(pipeline_status, PIPELINE_STATUS, "Its runs.");
SCHEMA_TABLE(pipelinerun_spec, PIPELINERUN_SPEC, "One run: what it was asked to do.");
SCHEMA_TABLE(run_step, RUN_STEP, "How one step went.");
SCHEMA_TABLE(pipelinerun_status, PIPELINERUN_STATUS, "How the run went.");

static const struct pipeline_step *steps_of(const struct list *l)
{
    return l->v;
}

int step_index(const struct list *steps, struct str name)
{
    for (size_t i = 0; i < steps->n; i++)
        if (str_eq(steps_of(steps)[i].name, name))
            return (int)i;
    return -1;
}

/* Every step can be ordered after those it needs: repeatedly takes steps whose needs are all taken. */
static err cycle_check(struct arena *a, const struct list *steps)
{
    bool *taken = NEW_N(a, bool, steps->n);
    size_t left = steps->n;
    for (bool moved = true; moved && left;) {
        moved = false;
        for (size_t i = 0; i < steps->n; i++) {
            const struct pipeline_step *s = &steps_of(steps)[i];
            bool ready = !taken[i];
            for (size_t k = 0; ready && k < s->needs.n; k++)
                ready = taken[step_index(steps, s->needs.v[k])];
            if (ready) {
                taken[i] = moved = true;
                left--;
            }
        }
    }
    for (size_t i = 0; left && i < steps->n; i++)
        if (!taken[i])
            return err_field(err_new(INVALID, "spec.steps[%zu].needs: '%.*s' waits for itself in a circle", i,
                                     STR(steps_of(steps)[i].name)),
                             fmt(a, "spec.steps[%zu].needs", i));
    return NULL;
}

static err pipeline_check(const struct resource_check *c)
{
    const struct pipeline_spec *s = c->spec;
    if (!s->steps.n)
        return err_field(err_new(INVALID, "spec.steps: a pipeline has at least one step"), S("spec.steps"));
    for (size_t i = 0; i < s->steps.n; i++) {
        const struct pipeline_step *step = &steps_of(&s->steps)[i];
        if (step_index(&s->steps, step->name) != (int)i)
            return err_field(
                err_new(INVALID, "spec.steps[%zu].name: '%.*s' is there twice", i, STR(step->name)),
                fmt(c->a, "spec.steps[%zu].name", i));
        for (size_t k = 0; k < step->needs.n; k++)
            if (step_index(&s->steps, step->needs.v[k]) < 0)
                return err_field(err_new(INVALID, "spec.steps[%zu].needs: there is no step '%.*s'", i,
                                         STR(step->needs.v[k])),
                                 fmt(c->a, "spec.steps[%zu].needs", i));
    }
    return cycle_check(c->a, &s->steps);
}

/* ---- starting a run ---- */

struct run_start {
    struct str who, project, pipeline, name, event;
    const struct pairs *params;
    struct arena *a;
};

static struct pair *pair_find(struct pairs *p, struct str key)
{
    for (size_t i = 0; i < p->n; i++)
        if (str_eq(p->v[i].key, key))
            return &p->v[i];
    return NULL;
}

static err params_merge(struct arena *a, const struct pairs *defaults, const struct pairs *given,
                        struct pairs *out)
{
    *out = (struct pairs){ 0 };
    for (size_t i = 0; i < defaults->n; i++)
        push(a, out, defaults->v[i]);
    for (size_t i = 0; given && i < given->n; i++) {
        struct pair *p = pair_find(out, given->v[i].key);
        if (!p) {
            struct strs names = { 0 };
            for (size_t k = 0; k < out->n; k++)
                push(a, &names, out->v[k].key);
            return err_hint(err_new(INVALID, "the pipeline has no parameter '%.*s'", STR(given->v[i].key)),
                            "it has: %.*s", STR(str_join(a, names.v, names.n, S(", "))));
        }
        p->value = given->v[i].value;
    }
    return NULL;
}

static err run_start_tx(struct tx *tx, void *arg)
{
    struct run_start *r = arg;
    struct arena *a = tx_arena(tx);
    struct pipeline_spec spec;
    struct pipeline_status status;
    struct pipelinerun_spec run = { .pipeline = r->pipeline, .event = r->event };
    TRY(resource_get_tx(tx, a, &pipeline_resource, r->project, r->pipeline, NULL, &spec, &status));
    TRY(params_merge(a, &spec.params, r->params, &run.params));
    run.steps = spec.steps;
    status.runs++;
    if (!r->name.n)
        r->name = fmt(r->a, "%.*s-%lld", STR(r->pipeline), (long long)status.runs);
    status.latest = r->name;
    TRY(resource_create_tx(tx, a, &pipelinerun_resource, r->who, r->project, r->name, &run));
    return resource_status_tx(tx, a, &pipeline_resource, r->project, r->pipeline, -1, &status);
}

err run_start(struct store *s, struct arena *a, struct str who, struct str project, struct str pipeline,
              struct str name, struct str event, const struct pairs *params, struct str *run)
{
    struct run_start r = { who, project, pipeline, name, event, params, a };
    TRY(store_write(s, run_start_tx, &r));
    *run = r.name;
    return NULL;
}

err pipeline_run(struct store *s, struct arena *a, struct str who, struct str project, struct str pipeline,
                 const struct pairs *params, struct str *run)
{
    return run_start(s, a, who, project, pipeline, S(""), S(""), params, run);
}

/* ---- actions ---- */

#define RUN_REQUEST(F, O, L, T) F(T, MAP, params, 0, "Values for the pipeline's parameters.")
SCHEMA(run_request, RUN_REQUEST);
SCHEMA_TABLE(run_request, RUN_REQUEST, "What a run is given.");

static err action_run(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                      struct json *out)
{
    struct str run;
    TRY(pipeline_run(api_store(api), r->a, req_who(r)->name, project, name,
                     &((const struct run_request *)in)->params, &run));
    json_obj(out);
    json_kstr(out, "run", run);
    json_obj_end(out);
    return NULL;
}

struct run_change {
    struct str who, project, name;
    bool cancel;
};

static err run_change_tx(struct tx *tx, void *arg)
{
    const struct run_change *c = arg;
    struct arena *a = tx_arena(tx);
    struct object o, after;
    struct pipelinerun_spec spec;
    struct pipelinerun_status status;
    bool changed;
    TRY(resource_get_tx(tx, a, &pipelinerun_resource, c->project, c->name, NULL, &spec, &status));
    TRY(object_get_tx(tx, a, S("PipelineRun"), c->project, c->name, &o));
    bool ended = status.phase >= RUN_SUCCEEDED;
    if (c->cancel && ended)
        FAIL(CONFLICT, "run '%.*s' has %s already", STR(c->name), run_phases[status.phase]);
    if (!c->cancel && (status.phase == RUN_SUCCEEDED || !ended))
        FAIL(CONFLICT, "run '%.*s' is %s: only a failed or cancelled one can go on", STR(c->name),
             run_phases[status.phase]);
    spec.cancel = c->cancel;
    spec.resumes += !c->cancel;
    o.spec = schema_text(&pipelinerun_spec_schema, a, &spec, WRITE_SECRETS | WRITE_PERSONAL);
    TRY(object_put(tx, c->who, &o, -1, &after, &changed));
    return audit_append(
        tx, &(struct audit_entry){ .who = c->who,
                                   .action = c->cancel ? S("pipelineruns.cancel") : S("pipelineruns.resume"),
                                   .project = c->project,
                                   .kind = S("PipelineRun"),
                                   .name = c->name,
                                   .outcome = S("ok") });
}

static err run_change(struct api *api, struct req *r, struct str project, struct str name, bool cancel,
                      struct json *out)
{
    struct run_change c = { req_who(r)->name, project, name, cancel };
    TRY(store_write(api_store(api), run_change_tx, &c));
    json_obj(out);
    json_kstr(out, "run", name);
    json_obj_end(out);
    return NULL;
}

static err action_cancel(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                         struct json *out)
{
    (void)in;
    return run_change(api, r, project, name, true, out);
}

static err action_resume(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                         struct json *out)
{
    (void)in;
    return run_change(api, r, project, name, false, out);
}

static const struct action pipeline_actions[] = {
    { "run", action_run, &run_request_schema, "run", "Starts a run; answers its name." },
    { 0 },
};
static const struct action run_actions[] = {
    { "cancel", action_cancel, NULL, "cancel", "Stops a run and the jobs it has at work." },
    { "resume", action_resume, NULL, "run", "Goes on from the steps that failed; what succeeded is kept." },
    { 0 },
};
const struct resource pipeline_resource = {
    .kind = "Pipeline",
    .plural = "pipelines",
    .one = "pipeline",
    .doc = "Steps from data to a served model, with what starts them.",
    .spec = &pipeline_spec_schema,
    .status = &pipeline_status_schema,
    .verbs = V_ALL,
    .check = pipeline_check,
    .actions = pipeline_actions,
};
const struct resource pipelinerun_resource = {
    .kind = "PipelineRun",
    .plural = "pipelineruns",
    .one = "pr",
    .doc = "One run of a pipeline.",
    .spec = &pipelinerun_spec_schema,
    .status = &pipelinerun_status_schema,
    .verbs = V_READ | V_DELETE,
    .actions = run_actions,
};
