// SPDX-License-Identifier: Apache-2.0
/* Composition: which verbs, kinds, work and routes there are, and how the modules are joined to one daemon. */
#include "cli/app.h"
#include "cli/cli.h"
#include "cli/version.h"
#include "data/data.h"
#include "feature/feature.h"
#include "monitor/monitor.h"
#include "pipeline/pipeline.h"
#include "registry/registry.h"
#include "serve/serve.h"
#include "train/train.h"
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

const struct cli_verb *const verbs[] = {
    &verb_serve,   &verb_apply,      &verb_diff,  &verb_get,      &verb_describe, &verb_delete,  &verb_run,
    &verb_cancel,  &verb_resume,     &verb_logs,  &verb_output,   &verb_train,    &verb_predict, &verb_model,
    &verb_replay,  &verb_lineage,    &verb_drift, &verb_rollback, &verb_doctor,   &verb_audit,   &verb_token,
    &verb_explain, &verb_completion, &verb_gen,   &verb_version,  &verb_worker,   &verb_shim,    NULL,
};

/* ---- kinds ---- */

enum { KINDS_MAX = 64 };
static const struct resource *const module_kinds[] = { data_resources, feature_resources, registry_resources,
                                                       serve_resources, monitor_resources };

const struct resource *const *cli_resources(void)
{
    static const struct resource *list[KINDS_MAX]; /* the same for ever, whoever fills it first */
    size_t n = 0;
    list[n++] = &project_resource;
    for (size_t m = 0; m < sizeof module_kinds / sizeof *module_kinds; m++)
        for (const struct resource *r = module_kinds[m]; r->kind; r++)
            list[n++] = r;
    list[n++] = &job_resource;
    list[n++] = &sweep_resource;
    list[n++] = &pipeline_resource;
    list[n++] = &pipelinerun_resource;
    return list;
}

/* ---- work ---- */

static const struct worker_type command_type = {
    .name = "command",
    .doc = "Any program of the machine, with its arguments.",
    .with = &command_with_schema,
};
static const struct step_type *const step_types[] = { &registry_register, &registry_gate, &serve_deploy,
                                                      NULL };

const struct step_type *const *cli_step_types(void)
{
    return step_types;
}

/* features: NULL in the child, which only runs. */
static const struct worker_type *const *worker_types(struct features *features, struct arena *a)
{
    const struct worker_type **t = NEW_N(a, const struct worker_type *, 8);
    size_t n = 0;
    t[n++] = &command_type;
    t[n++] = &data_ingest;
    t[n++] = feature_build(features, a);
    t[n++] = feature_materialize(features, a);
    t[n++] = &train_worker;
    t[n++] = &registry_evaluate;
    t[n] = NULL;
    return t;
}

const struct worker_type *const *cli_worker_types(struct arena *a)
{
    return worker_types(NULL, a);
}

/* ---- the daemon ---- */

struct app {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct exec *exec;
    struct sched *sched;
    struct features *features;
    struct trainings *trainings;
    struct serve *serve;
    struct monitors *monitors;
    struct pipelines *pipelines;
    struct control *control;
    struct net *net;
    const struct route **routes;
    size_t routes_n;
    struct str first_token;
};

static const char *program_path(struct arena *a)
{
    char path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    return str_z(a, (struct str){ path, n > 0 ? (size_t)n : 0 });
}

static err open_stores(struct app *app, const struct app_config *cfg)
{
    TRY(dir_make(str_z(app->a, cfg->data)));
    char *real = realpath(str_z(app->a, cfg->data), NULL);
    struct store_config sc = { .dir = str_dup(app->a, str_of(real ? real : ".")) };
    free(real);
    TRY(store_open(&sc, &app->store));
    TRY(auth_open(app->store, &app->auth));
    TRY(auth_first_token(app->auth, app->a, &app->first_token));
    TRY(data_open(app->store));
    TRY(registry_open(app->store));
    app->trainings = trainings_new(app->a, app->store);
    return exec_local.open(store_dir(app->store), program_path(app->a), &app->exec);
}

static err open_stages(struct app *app, const struct app_config *cfg)
{
    const char *commit = getenv("DHOW_CODE_COMMIT");
    struct job_context context = { .store = app->store,
                                   .app = app,
                                   .code_commit = str_of(commit ? commit : DHOW_COMMIT),
                                   .sources_dir = cfg->sources };
    TRY(features_open(app->store, &app->features));
    TRY(serve_open(&(struct serve_config){ .store = app->store, .body_bytes_max = cfg->infer_bytes_max },
                   &app->serve));
    TRY(monitors_open(&(struct monitors_config){ app->store, app->serve, app->features }, &app->monitors));
    struct sched_config sc = { .store = app->store,
                               .exec = app->exec,
                               .types = worker_types(app->features, app->a),
                               .context = context,
                               .program = program_path(app->a) };
    TRY(sched_open(&sc, &app->sched));
    struct pipelines_config pc = { app->store, app->sched, step_types, context };
    return pipelines_open(&pc, &app->pipelines);
}

/* A view per kind, so that SQL reads resources column by column. */
static err make_views(struct app *app)
{
    for (const struct resource *const *r = cli_resources(); *r; r++)
        TRY(store_view(app->store, str_of((*r)->plural), str_of((*r)->kind), (*r)->spec));
    return NULL;
}

/* The modules' tables, the busiest first; net and api get the same ones. */
static void make_routes(struct app *app)
{
    size_t n = 0;
    app->routes = NEW_N(app->a, const struct route *, 16);
    app->routes[n++] = serve_routes(app->serve, app->a);
    app->routes[n++] = feature_routes(app->features, app->a);
    app->routes[n++] = auth_routes(app->auth, app->a);
    app->routes[n++] = sched_routes(app->sched, app->a);
    app->routes[n++] = data_routes(app->store, app->a);
    app->routes[n++] = registry_routes(app->store, app->a);
    app->routes_n = n;
}

static void net_metrics(void *arg, struct buf *out)
{
    const struct net *net = ((const struct app *)arg)->net;
    int64_t connections = 0, requests;
    if (net)
        net_figures(net, &connections, &requests);
    buf_fmt(out,
            "# HELP dhow_http_connections Connections open now.\n# TYPE dhow_http_connections gauge\n"
            "dhow_http_connections %lld\n",
            (long long)connections);
    buf_fmt(out,
            "# HELP dhow_http_held_bytes Memory of requests and unsent replies (--max-held).\n"
            "# TYPE dhow_http_held_bytes gauge\ndhow_http_held_bytes %lld\n",
            (long long)(net ? net_held(net) : 0));
}

static err open_api(struct app *app)
{
    make_routes(app);
    struct api_config ac = { app->store, app->auth, cli_resources(), app->routes, app };
    TRY(api_open(&ac, &app->api));
    app->routes[app->routes_n] = api_routes(app->api);
    TRY(make_views(app));
    api_metrics_add(app->api, net_metrics, app);
    api_metrics_add(app->api, feature_metrics, app->features);
    api_metrics_add(app->api, serve_metrics, app->serve);
    api_metrics_add(app->api, trainings_metrics, app->trainings);
    serve_describe(app->api);
    api_metrics_add(app->api, monitors_metrics, app->monitors);
    api_ready_add(app->api, serve_ready, app->serve);
    return NULL;
}

static err start_control(struct app *app)
{
    struct reconciler list[] = {
        sched_reconciler(app->sched),
        sweep_reconciler(app->store),
        registry_reconciler(app->trainings),
        serve_reconciler(app->serve),
        monitors_reconciler(app->monitors),
        pipelines_run_reconciler(app->pipelines),
        pipelines_trigger_reconciler(app->pipelines),
        pipelines_orphans_reconciler(app->pipelines),
    };
    TRY(control_start(app->store, list, sizeof list / sizeof *list, &app->control));
    sched_set_control(app->sched, app->control);
    serve_set_control(app->serve, app->control);
    monitors_set_control(app->monitors, app->control);
    pipelines_set_control(app->pipelines, app->control);
    return NULL;
}

static err before(struct req *r)
{
    return auth_before(((struct app *)r->app)->auth, r);
}

static void after(const struct req *r, int status, int64_t took_ns)
{
    api_after(((struct app *)r->app)->api, r, status, took_ns);
}

static err start_net(struct app *app, const struct app_config *cfg)
{
    struct net_config nc = { .listen = cfg->listen,
                             .allow_public = cfg->allow_public,
                             .tls_cert = cfg->tls_cert,
                             .tls_key = cfg->tls_key,
                             .tls_client_ca = cfg->tls_client_ca,
                             .loops = cfg->loops,
                             .workers = cfg->workers,
                             .queue_max = cfg->waiting_max,
                             .limits = cfg->limits,
                             .grpc_gzip = cfg->grpc_gzip,
                             .routes = app->routes,
                             .app = app,
                             .before = before,
                             .fail = api_fail,
                             .report = log_err,
                             .after = after };
    /* What an uploaded model may have, or a prediction, if that is more. */
    if (cfg->infer_bytes_max > net_limits_default.body_bytes_max)
        nc.limits.body_bytes_max = cfg->infer_bytes_max;
    return net_start(&nc, &app->net);
}

err app_start(const struct app_config *cfg, struct app **out)
{
    struct arena *a = arena_new(0);
    struct app *app = NEW(a, struct app);
    app->a = a;
    err e = open_stores(app, cfg);
    if (!e)
        e = open_stages(app, cfg);
    if (!e)
        e = open_api(app);
    if (!e)
        e = start_control(app);
    if (!e)
        e = start_net(app, cfg);
    if (e) {
        app_stop(app);
        return e;
    }
    *out = app;
    return NULL;
}

struct str app_address(const struct app *app)
{
    return net_address(app->net);
}

struct str app_first_token(const struct app *app)
{
    return app->first_token;
}

struct str app_openapi(const struct app *app, struct arena *a)
{
    return api_openapi(app->api, a);
}

void app_stop(struct app *app)
{
    if (!app)
        return;
    if (app->store)
        store_wake(app->store);
    net_stop(app->net);
    if (app->serve)
        serve_set_control(app->serve, NULL); /* versions that are still being loaded poke nobody */
    if (app->sched)
        sched_set_control(app->sched, NULL); /* nor do jobs that start or finish just now */
    control_stop(app->control);
    api_close(app->api);
    sched_close(app->sched);
    pipelines_close(app->pipelines);
    monitors_close(app->monitors);
    serve_close(app->serve);
    features_close(app->features);
    if (app->exec)
        app->exec->ops->close(app->exec);
    auth_close(app->auth);
    store_close(app->store);
    arena_free(app->a);
}
