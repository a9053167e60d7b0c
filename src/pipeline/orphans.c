// SPDX-License-Identifier: Apache-2.0
/* The reconciler of jobs whose run or sweep was deleted: they are cancelled. */
#include "pipeline/internal.h"

enum { JOBS_LISTED = 10000 };

/* "PipelineRun/late-3": kind and name; false for another owner. */
static bool owner_of(struct str owner, struct str *kind, struct str *name)
{
    *name = owner;
    return str_cut(name, '/', kind) && name->n && (str_is(*kind, "PipelineRun") || str_is(*kind, "Sweep"));
}

static err job_look(struct store *s, struct arena *a, const struct object *o)
{
    struct job_spec spec;
    struct job_status status;
    struct object owner;
    struct str kind, name;
    TRY(schema_read_text(&job_spec_schema, a, S("spec"), o->spec, READ_LENIENT, &spec));
    TRY(schema_read_text(&job_status_schema, a, S("status"), o->status.n ? o->status : S("{}"),
                         READ_LENIENT | READ_PARTIAL, &status));
    if (!owner_of(spec.owner, &kind, &name) || status.phase >= JOB_SUCCEEDED || spec.cancel)
        return NULL;
    err e = object_get(s, a, kind, o->project, name, &owner);
    if (!e || e->code != NOT_FOUND)
        return e;
    e = job_cancel_request(s, S("pipeline"), o->project, o->name);
    return e && e->code == NOT_FOUND ? NULL : e;
}

/* A run or a sweep that is gone wakes it. Jobs do, too, and each is looked at on start: a daemon can die between the deletion and
 * this. */
static err orphans_step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                        int64_t *again_ms)
{
    struct store *s = ((struct pipelines *)self)->cfg.store;
    struct objects jobs;
    (void)ev;
    (void)again_ms;
    if (str_is(o->kind, "Job"))
        return o->id ? job_look(s, a, o) : NULL;
    if (o->id)
        return NULL;
    TRY(object_list(s, a, S("Job"), o->project, S(""), JOBS_LISTED, &jobs));
    for (size_t i = 0; i < jobs.n; i++)
        TRY(job_look(s, a, &jobs.v[i]));
    return NULL;
}

struct reconciler pipelines_orphans_reconciler(struct pipelines *p)
{
    static const char *const kinds[] = { "Job", "PipelineRun", "Sweep", NULL };
    return (struct reconciler){ .name = "pipeline-orphans", .kinds = kinds, .step = orphans_step, .self = p };
}
