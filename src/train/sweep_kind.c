// SPDX-License-Identifier: Apache-2.0
/* The kind Sweep: what may be written, and the action cancel. */
#include "train/internal.h"

struct sweep_plan sweep_plan_of(const struct sweep_spec *s)
{
    return (struct sweep_plan){ .with = { .kind = s->kind,
                                          .over = s->over,
                                          .trials = s->trials,
                                          .metric = s->metric,
                                          .budget = s->budget,
                                          .at_once = s->at_once,
                                          .factor = s->factor,
                                          .seed = s->seed },
                                .form = s->with,
                                .jobs = true };
}

/* The rows of each trial are there, and have what its form names. */
static err rows_check(const struct resource_check *c, const struct sweep_plan *plan)
{
    struct dataset_version_spec v;
    struct str text, known = { 0 };
    for (size_t i = 0; i < plan->n; i++) {
        struct train_with with;
        TRY(sweep_form(c->a, plan, &plan->trials[i], &text, &with));
        err e = str_eq(with.rows, known) ? NULL
                                         : resource_get(c->store, c->a, &dataset_version_resource, c->project,
                                                        with.rows, NULL, &v, NULL);
        if (e && e->code == NOT_FOUND)
            return err_field(
                err_new(INVALID, "spec.with.rows: there is no DatasetVersion '%.*s'", STR(with.rows)),
                S("spec.with.rows"));
        TRY(e);
        known = with.rows;
        TRY(version_check(c->a, &with, &v, S("spec.with.")));
    }
    return NULL;
}

/* No job of an earlier sweep would be taken for its own. */
static err first_check(const struct resource_check *c)
{
    struct object o;
    struct str job = fmt(c->a, "%.*s-t1", STR(c->name));
    err e = object_get(c->store, c->a, S("Job"), c->project, job, &o);
    if (!e)
        return err_hint(err_new(CONFLICT,
                                "there is a job '%.*s' already, as the sweep's first would be called",
                                STR(job)),
                        "a name that no sweep had before");
    return e->code == NOT_FOUND ? NULL : e;
}

/* What is wrong is said here, before a job is made. All that is checked is frozen. */
static err sweep_check(const struct resource_check *c)
{
    const struct sweep_spec *spec = c->spec;
    struct sweep_plan plan = sweep_plan_of(spec);
    if (c->before)
        return NULL;
    if (c->name.n > SWEEP_NAME_MAX)
        return err_field(
            err_new(
                INVALID,
                "metadata.name: a sweep's name has at most %d letters, as those of its jobs begin with it",
                SWEEP_NAME_MAX),
            S("metadata.name"));
    TRY(sweep_draw(c->a, &plan));
    TRY(rows_check(c, &plan));
    return first_check(c);
}

struct cancel {
    struct str who, project, name;
};

static err cancel_tx(struct tx *tx, void *arg)
{
    const struct cancel *c = arg;
    struct arena *a = tx_arena(tx);
    struct object o;
    struct sweep_spec spec;
    struct sweep_status status;
    TRY(resource_get_tx(tx, a, &sweep_resource, c->project, c->name, NULL, &spec, &status));
    if (status.phase >= SWEEP_SUCCEEDED)
        FAIL(CONFLICT, "sweep '%.*s' has %s already", STR(c->name), sweep_phases[status.phase]);
    TRY(object_get_tx(tx, a, S("Sweep"), c->project, c->name, &o));
    spec.cancel = true;
    o.spec = schema_text(&sweep_spec_schema, a, &spec, WRITE_SECRETS | WRITE_PERSONAL);
    TRY(object_put(tx, c->who, &o, -1, NULL, NULL));
    return audit_append(tx, &(struct audit_entry){ .who = c->who,
                                                   .action = S("sweeps.cancel"),
                                                   .project = c->project,
                                                   .kind = S("Sweep"),
                                                   .name = c->name,
                                                   .outcome = S("ok") });
}

static err action_cancel(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                         struct json *out)
{
    struct cancel c = { req_who(r)->name, project, name };
    (void)in;
    TRY(store_write(api_store(api), cancel_tx, &c));
    json_obj(out);
    json_kstr(out, "cancelled", name);
    json_obj_end(out);
    return NULL;
}

static const struct action sweep_actions[] = {
    { "cancel", action_cancel, NULL, "cancel", "Stops a sweep and the jobs it has at work." },
    { 0 },
};
const struct resource sweep_resource = {
    .kind = "Sweep",
    .plural = "sweeps",
    .one = "sweep",
    .doc =
        "Many trainings of one form with other values, each a job of type train, of which the best is found.",
    .spec = &sweep_spec_schema,
    .status = &sweep_status_schema,
    .verbs = V_ALL,
    .check = sweep_check,
    .actions = sweep_actions,
};
