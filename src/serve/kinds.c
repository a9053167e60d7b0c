// SPDX-License-Identifier: Apache-2.0
/* The kind Deployment, its action `rollback`, and the step `deploy` that starts a rollout and waits for its end. */
#include "serve/internal.h"

const char *const deployment_phases[] = { "waiting", "loading", "serving",   "canary",
                                          "failed",  "idle",    "suspended", NULL };
const char *const ab_metrics[] = { "share", "mean", "hit", "error", NULL };
const char *const ab_betters[] = { "more", "less", NULL };
const char *const ab_decisions[] = { "open", "a", "b", "equal", "neither", NULL };
const char *const traffic_states[] = { "loading", "ready", "failed", NULL };
const char *const redactions[] = { "null", "hash", NULL };
SCHEMA_TABLE(request_log_spec, REQUEST_LOG, "What is kept of requests.");
SCHEMA_TABLE(canary_step, CANARY_STEP, "One step of a trial.");
SCHEMA_TABLE(canary_abort, CANARY_ABORT, "When a new version is taken back.");
SCHEMA_TABLE(canary, CANARY, "How a new version is tried.");
SCHEMA_TABLE(batching, BATCHING, "How requests wait, and run together.");
SCHEMA_TABLE(limits_of_all, LIMITS_OF_ALL, "What all tokens may ask of a deployment together.");
SCHEMA_TABLE(limits, LIMITS, "What one token may ask.");
SCHEMA_TABLE(sequence_control, SEQUENCE_CONTROL, "An input that tells of the sequence.");
SCHEMA_TABLE(sequence_state, SEQUENCE_STATE, "An input and the output that is its next value.");
SCHEMA_TABLE(sequencing, SEQUENCING, "Requests that belong together.");
SCHEMA_TABLE(caching, CACHING, "Answers that are kept.");
SCHEMA_TABLE(ensemble_step, ENSEMBLE_STEP, "A step of an ensemble.");
SCHEMA_TABLE(ensemble, ENSEMBLE, "A graph of deployments and look-ups.");
SCHEMA_TABLE(traffic_share, TRAFFIC_SHARE, "A version and its part of the requests.");
SCHEMA_TABLE(sticky, STICKY, "What makes a client meet the same version again.");
SCHEMA_TABLE(shadow, SHADOW, "A version that is asked the same, but never answers.");
SCHEMA_TABLE(ab_test, AB_TEST, "Two versions whose outcomes are compared.");
SCHEMA_TABLE(deployment_spec, DEPLOYMENT_SPEC, "A model that answers.");
SCHEMA_TABLE(traffic, TRAFFIC, "One version of a deployment.");
SCHEMA_TABLE(rollout, ROLLOUT, "The way of a version to all of the traffic.");
SCHEMA_TABLE(shadow_status, SHADOW_STATUS, "What a shadow's answers are like.");
SCHEMA_TABLE(ab_arm, AB_ARM, "One version of an A/B test.");
SCHEMA_TABLE(ab_status, AB_STATUS, "What an A/B test knows.");
SCHEMA_TABLE(deployment_status, DEPLOYMENT_STATUS, "Who answers.");
SCHEMA_TABLE(deploy_with, DEPLOY_WITH, "What the step deploy is given.");

/* ---- what a field cannot say ---- */

static err traffic_check(const struct deployment_spec *spec)
{
    const struct traffic_share *v = spec->traffic.v;
    double sum = 0;
    for (size_t i = 0; i < spec->traffic.n; i++) {
        sum += v[i].share;
        for (size_t k = 0; k < i; k++)
            if (str_eq(v[i].version, v[k].version))
                return err_field(err_new(INVALID, "spec.traffic: %.*s is there twice", STR(v[i].version)),
                                 S("spec.traffic"));
    }
    if (spec->traffic.n && sum <= 0)
        return err_field(err_new(INVALID, "spec.traffic: all shares are 0"), S("spec.traffic"));
    return NULL;
}

/* A header's name or a cookie's: a token of HTTP. */
static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_'))
            return false;
    }
    return true;
}

static err deployment_check(const struct resource_check *c)
{
    const struct deployment_spec *spec = c->spec;
    const struct ab_test *ab = &spec->ab_test;
    TRY(policy_check(c));
    if (spec->ensemble.steps.n &&
        (spec->version.n || spec->traffic.n || ab->a.n || spec->shadow.version.n || spec->idle))
        return err_hint(err_new(INVALID, "spec: an ensemble has no versions of its own, and does not sleep"),
                        "its steps' deployments have; leave version, traffic, abTest, shadow and idle out");
    if ((spec->version.n > 0) + (spec->traffic.n > 0) + (ab->a.n > 0) > 1)
        return err_hint(err_new(INVALID, "spec: only one of version, traffic and abTest says who answers"),
                        "leave the others out");
    if (!ab->a.n != !ab->b.n || (ab->a.n && str_eq(ab->a, ab->b)))
        return err_field(err_new(INVALID, "spec.abTest: it needs two versions, a and b"), S("spec.abTest"));
    if (!is_token(spec->sticky.header) || !is_token(spec->sticky.cookie))
        return err_field(err_new(INVALID, "spec.sticky: names have letters, digits, - and _"),
                         S("spec.sticky"));
    return traffic_check(spec);
}

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
    if (spec_pins(&spec))
        FAIL(CONFLICT, "deployment '%.*s' names its versions; change its spec", STR(b->name));
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
      .check = deployment_check,
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
    struct canary_step one;
    const struct canary_step *steps;
    bool at_once = !m.aliases.champion.n || !canary_steps(&spec->canary, &one, &steps);
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
    if (!mine && spec_pins(&spec))
        FAIL(CONFLICT, "deployment '%.*s' names its versions in its spec", STR(d->with->deployment));
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
