// SPDX-License-Identifier: Apache-2.0
/* The kind Deployment, its action `rollback`, and the step `deploy` that starts a rollout and waits for its end. */
#include "serve/internal.h"

const char *const deployment_phases[] = { "waiting", "loading", "serving", "canary", "failed", NULL };
const char *const traffic_states[] = { "loading", "ready", "failed", NULL };
const char *const redactions[] = { "null", "hash", NULL };
SCHEMA_TABLE(request_log_spec, REQUEST_LOG, "What is kept of requests.");
SCHEMA_TABLE(canary, CANARY, "How a new version is tried.");
SCHEMA_TABLE(batching, BATCHING, "How requests wait, and run together.");
SCHEMA_TABLE(limits, LIMITS, "What one token may ask.");
SCHEMA_TABLE(sequence_control, SEQUENCE_CONTROL, "An input that tells of the sequence.");
SCHEMA_TABLE(sequence_state, SEQUENCE_STATE, "An input and the output that is its next value.");
SCHEMA_TABLE(sequencing, SEQUENCING, "Requests that belong together.");
SCHEMA_TABLE(caching, CACHING, "Answers that are kept.");
SCHEMA_TABLE(ensemble_step, ENSEMBLE_STEP, "A step of an ensemble.");
SCHEMA_TABLE(ensemble, ENSEMBLE, "A graph of deployments and look-ups.");
SCHEMA_TABLE(deployment_spec, DEPLOYMENT_SPEC, "A model that answers.");
SCHEMA_TABLE(traffic, TRAFFIC, "One version of a deployment.");
SCHEMA_TABLE(rollout, ROLLOUT, "The way of a version to all of the traffic.");
SCHEMA_TABLE(deployment_status, DEPLOYMENT_STATUS, "Who answers.");
SCHEMA_TABLE(deploy_with, DEPLOY_WITH, "What the step deploy is given.");

/* ---- rollback ---- */

struct rolling_back {
    struct str who, project, name, request_id;
    struct arena *a;
    struct str version;
};

static err rollback_tx(struct tx *tx, void *arg)
{
    struct rolling_back *b = arg;
    struct deployment_spec spec;
    struct str version;
    TRY(resource_get_tx(tx, tx_arena(tx), &deployment_resource, b->project, b->name, NULL, &spec, NULL));
    if (spec.version.n)
        FAIL(CONFLICT, "deployment '%.*s' names version %.*s; change its spec", STR(b->name),
             STR(spec.version));
    TRY(registry_rollback(tx, b->who, b->project, spec.model, &version));
    b->version = str_dup(b->a, version);
    return audit_append(tx, &(struct audit_entry){ .who = b->who,
                                                   .action = S("deployments.rollback"),
                                                   .project = b->project,
                                                   .kind = S("Deployment"),
                                                   .name = b->name,
                                                   .outcome = S("ok"),
                                                   .request_id = b->request_id });
}

static err rollback_action(struct api *api, struct req *r, struct str project, struct str name,
                           const void *in, struct json *out)
{
    (void)in;
    struct rolling_back b = {
        .who = req_who(r)->name, .project = project, .name = name, .request_id = r->id, .a = r->a
    };
    TRY(store_write(api_store(api), rollback_tx, &b));
    json_obj(out);
    json_kstr(out, "version", b.version);
    json_obj_end(out);
    return NULL;
}

static const struct action deployment_actions[] = {
    { "rollback", rollback_action, NULL, "rollback",
      "Ends the trial of a new version; without one, the champion before the present one answers again." },
    { 0 },
};
const struct resource serve_resources[] = {
    { .kind = "Deployment",
      .plural = "deployments",
      .one = "deploy",
      .doc = "A model that answers requests: its champion, and a share for its challenger.",
      .spec = &deployment_spec_schema,
      .status = &deployment_status_schema,
      .verbs = V_ALL,
      .check = policy_check,
      .actions = deployment_actions },
    { 0 },
};

/* ---- deploy ---- */

struct deploying {
    struct str project, run;
    const struct deploy_with *with;
    struct arena *a;
    struct rollout rollout; /* out: as it stands */
};

/* Later runs have greater ids; 0 outside of a pipeline. */
static err run_id(struct tx *tx, struct str project, struct str run, int64_t *out)
{
    struct object o = { 0 };
    err e = object_get_tx(tx, tx_arena(tx), S("PipelineRun"), project, run, &o);
    *out = e ? 0 : o.id;
    return e && e->code != NOT_FOUND ? e : NULL;
}

static err rollout_begin(struct tx *tx, const struct deploying *d, const struct deployment_spec *spec,
                         struct deployment_status *status, int64_t id)
{
    struct model_spec model;
    struct model_status m;
    TRY(resource_get_tx(tx, tx_arena(tx), &model_resource, d->project, spec->model, NULL, &model, &m));
    bool at_once = !m.aliases.champion.n || spec->canary.share <= 0 || spec->canary.requests == 0;
    bool is_champion = str_eq(m.aliases.champion, d->with->version);
    if (!is_champion)
        TRY(registry_alias_set(tx, S("deploy"), d->project, spec->model,
                               at_once ? ALIAS_CHAMPION : ALIAS_CHALLENGER, d->with->version));
    status->rollout = (struct rollout){
        .version = d->with->version, .run = d->run, .run_id = id, .state = ROLLOUT_LOADING
    };
    return resource_status_tx(tx, tx_arena(tx), &deployment_resource, d->project, d->with->deployment, -1,
                              status);
}

static bool rollout_mine(const struct deploying *d, const struct rollout *r)
{
    return str_eq(r->run, d->run) && str_eq(r->version, d->with->version);
}

static err deploy_tx(struct tx *tx, void *arg)
{
    struct deploying *d = arg;
    struct arena *a = tx_arena(tx);
    struct deployment_spec spec;
    struct deployment_status status;
    int64_t id;
    TRY(resource_get_tx(tx, a, &deployment_resource, d->project, d->with->deployment, NULL, &spec, &status));
    TRY(run_id(tx, d->project, d->run, &id));
    struct rollout *r = &status.rollout;
    bool mine = rollout_mine(d, r);
    if (!mine && r->state != ROLLOUT_NONE && r->run_id > id)
        FAIL(CONFLICT, "a later run, %.*s, deployed %.*s meanwhile", STR(r->run), STR(r->version));
    if (!mine && spec.version.n)
        FAIL(CONFLICT, "deployment '%.*s' names version %.*s in its spec", STR(d->with->deployment),
             STR(spec.version));
    if (!mine)
        TRY(rollout_begin(tx, d, &spec, &status, id));
    d->rollout = *r;
    d->rollout.message = str_dup(d->a, r->message);
    return NULL;
}

static err deploy_step(struct job_context *c, struct str project, struct str run, const void *with,
                       struct json *outputs, bool *done)
{
    struct deploying d = { .project = project, .run = run, .with = with, .a = c->a };
    struct deployment_spec spec;
    struct deployment_status status;
    TRY(resource_get(c->store, c->a, &deployment_resource, project, d.with->deployment, NULL, &spec,
                     &status));
    d.rollout = status.rollout;
    if (!rollout_mine(&d, &status.rollout)) /* asked many times a second: only the first time writes */
        TRY(store_write(c->store, deploy_tx, &d));
    if (d.rollout.state == ROLLOUT_FAILED && d.rollout.unloadable)
        FAIL(UNAVAILABLE, "%.*s", STR(d.rollout.message));
    if (d.rollout.state == ROLLOUT_FAILED)
        FAIL(GATE, "%.*s", STR(d.rollout.message));
    if (d.rollout.state != ROLLOUT_DONE)
        return NULL;
    json_kstr(outputs, "version", d.with->version);
    json_ki64(outputs, "requests", d.rollout.requests);
    *done = true;
    return NULL;
}

/* A version on trial goes; one that is champion already stays. */
static err deploy_stop_tx(struct tx *tx, void *arg)
{
    struct deploying *d = arg;
    struct deployment_spec spec;
    struct deployment_status status;
    struct model_spec model;
    struct model_status m;
    TRY(resource_get_tx(tx, tx_arena(tx), &deployment_resource, d->project, d->with->deployment, NULL, &spec,
                        &status));
    TRY(resource_get_tx(tx, tx_arena(tx), &model_resource, d->project, spec.model, NULL, &model, &m));
    if (!rollout_mine(d, &status.rollout) || !str_eq(m.aliases.challenger, d->with->version))
        return NULL;
    return registry_withdraw(tx, S("deploy"), d->project, spec.model, d->with->version);
}

static err deploy_stop(struct job_context *c, struct str project, struct str run, const void *with)
{
    err e = store_write(c->store, deploy_stop_tx,
                        &(struct deploying){ .project = project, .run = run, .with = with, .a = c->a });
    return e && e->code == NOT_FOUND ? NULL : e; /* its deployment or model was deleted */
}

const struct step_type serve_deploy = {
    .name = "deploy",
    .doc = "Lets a version answer a share of a deployment's requests, then all of them.",
    .outputs = "version: the version that answers now; requests: those it answered on trial",
    .with = &deploy_with_schema,
    .step = deploy_step,
    .stop = deploy_stop,
};
