// SPDX-License-Identifier: Apache-2.0
/* api: life of the module: which kinds there are, the first project, what every table must hold. */
#include "api/internal.h"
#include <stdlib.h>

const struct resource project_resource = {
    .kind = "Project",
    .plural = "projects",
    .doc = "A space of its own for names, tokens and data.",
    .spec = &project_spec_schema,
    .verbs = V_ALL,
    .global = true,
};

/* ---- kinds ---- */

static err resource_sane(const struct api *api, const struct resource *res)
{
    if (!res->plural || !res->spec || !res->doc || !name_ok(str_of(res->plural)))
        FAIL(INTERNAL, "kind %s lacks a plural, a spec or a doc", res->kind);
    for (size_t i = 0; i < api->res_n; i++)
        if (strcmp(api->res[i]->kind, res->kind) == 0 || strcmp(api->res[i]->plural, res->plural) == 0)
            FAIL(INTERNAL, "kind %s is there twice", res->kind);
    for (const struct action *a = res->actions; a && a->name; a++)
        if (!a->run || !a->verb || !a->doc)
            FAIL(INTERNAL, "action %s of kind %s lacks a function, a verb or a doc", a->name, res->kind);
    return NULL;
}

static err resources_take(struct api *api, const struct resource *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    api->res = NEW_N(api->a, const struct resource *, n + 2);
    api->res[api->res_n++] = &project_resource;
    for (size_t i = 0; i < n; i++) {
        if (list[i] == &project_resource)
            continue;
        TRY(resource_sane(api, list[i]));
        api->res[api->res_n++] = list[i];
    }
    return NULL;
}

static void tables_take(struct api *api, const struct route *const *list)
{
    size_t n = 0;
    while (list && list[n])
        n++;
    api->tables = NEW_N(api->a, const struct route *, n + 2);
    api->tables[api->tables_n++] = api->routes;
    for (size_t i = 0; i < n; i++)
        if (list[i] != api->routes)
            api->tables[api->tables_n++] = list[i];
}

const struct resource *api_resource(struct api *api, struct str name)
{
    for (size_t i = 0; i < api->res_n; i++) {
        const struct resource *r = api->res[i];
        if (str_eq(name, str_of(r->kind)) || str_eq(name, str_of(r->plural)) ||
            (r->one && str_eq(name, str_of(r->one))))
            return r;
    }
    return NULL;
}

/* ---- the first project ---- */

static err default_project_run(struct tx *tx, void *arg)
{
    (void)arg;
    struct project_spec spec = { .doc = S("Where things go that name no project.") };
    return resource_create_tx(tx, tx_arena(tx), &project_resource, S("dhow"), S(""), S("default"), &spec);
}

static err default_project(struct store *store)
{
    auto_arena struct arena *a = arena_new(0);
    struct objects any;
    TRY(object_list(store, a, S("Project"), S(""), S(""), 1, &any));
    return any.n ? NULL : store_write(store, default_project_run, NULL);
}

/* ---- life ---- */

static err api_start(struct api *api, const struct api_config *cfg)
{
    TRY(resources_take(api, cfg->resources));
    TRY(routes_make(api));
    tables_take(api, cfg->routes);
    TRY(auth_check_routes(api->tables));
    TRY_AS(default_project(api->store), "making the project default");
    api->metrics = metrics_new(api->tables, api->tables_n);
    api->openapi = openapi_text(api, api->a);
    api->schema_file = schema_file_text(api, api->a);
    return hub_open(api, &api->hub);
}

err api_open(const struct api_config *cfg, struct api **out)
{
    struct api *api = calloc(1, sizeof *api);
    if (!api)
        abort();
    api->a = arena_new(0);
    api->store = cfg->store;
    api->auth = cfg->auth;
    api->app = cfg->app;
    api->started_us = now_us();
    pthread_mutex_init(&api->m, NULL);
    err e = api_start(api, cfg);
    if (e) {
        api_close(api);
        return err_wrap(e, "starting the API");
    }
    *out = api;
    return NULL;
}

void api_close(struct api *api)
{
    if (!api)
        return;
    hub_close(api->hub);
    metrics_free(api->metrics);
    pthread_mutex_destroy(&api->m);
    arena_free(api->a);
    free(api);
}

void *api_app(struct api *api)
{
    return api->app;
}

struct store *api_store(struct api *api)
{
    return api->store;
}

const struct route *api_routes(struct api *api)
{
    return api->routes;
}

struct str api_openapi(struct api *api, struct arena *a)
{
    return str_dup(a, api->openapi);
}

void api_after(struct api *api, const struct req *r, int status, int64_t took_ns)
{
    metrics_count(api->metrics, r->route, status, took_ns);
    log_debug("request.answered", KV("method", r->method), KV("path", r->path), KV("status", (int64_t)status),
              KV("took_us", took_ns / 1000), KV("peer", r->peer), KV("request", r->id));
}

void api_metrics_add(struct api *api, void (*collect)(void *arg, struct buf *out), void *arg)
{
    LOCKED(&api->m);
    if (api->collectors_n < COLLECTORS_MAX)
        api->collectors[api->collectors_n++] = (struct collector){ collect, arg };
}

void api_ready_add(struct api *api, bool (*ready)(void *arg), void *arg)
{
    LOCKED(&api->m);
    if (api->readies_n < COLLECTORS_MAX)
        api->readies[api->readies_n++] = (struct ready){ ready, arg };
}
