// SPDX-License-Identifier: Apache-2.0
/* routes: the rows of every kind, made from its table, and the few that belong to none. */
#include "api/internal.h"

struct table {
    VEC(struct route) rows;
};

static struct route row(struct api *api, enum method m, struct str path, err (*run)(struct req *),
                        const struct resource *res, const char *verb, const char *doc)
{
    struct place *p = NEW(api->a, struct place);
    *p = (struct place){ .api = api, .res = res };
    return (struct route){
        .method = m,
        .path = str_z(api->a, path),
        .run = run,
        .may = str_z(api->a, permission_of(api->a, res, verb)),
        .doc = str_z(api->a, fmt(api->a, doc, res->kind)),
        .self = p,
        .tag = res->plural,
        .body_bytes_max = m == M_PUT || m == M_POST ? BODY_MAX : 0,
    };
}

static void action_rows(struct api *api, struct table *t, const struct resource *res, struct str one)
{
    for (const struct action *act = res->actions; act && act->name; act++) {
        struct place *p = NEW(api->a, struct place);
        *p = (struct place){ .api = api, .res = res, .action = act };
        push(api->a, &t->rows,
             (struct route){
                 .method = M_POST,
                 .path = fmtz(api->a, "%.*s/%s", STR(one), act->name),
                 .run = handle_action,
                 .may = str_z(api->a, permission_of(api->a, res, act->verb ? act->verb : "")),
                 .doc = act->doc,
                 .self = p,
                 .in = act->in,
                 .tag = res->plural,
             });
    }
}

static void resource_rows(struct api *api, struct table *t, const struct resource *res)
{
    struct arena *a = api->a;
    struct str all = res->global ? fmt(a, "/api/v1/%s", res->plural)
                                 : fmt(a, "/api/v1/projects/{project}/%s", res->plural);
    struct str one = res == &project_resource ? S("/api/v1/projects/{project}")
                                              : fmt(a, "%.*s/{name}", STR(all));
    if (res->verbs & V_READ) {
        push(a, &t->rows, row(api, M_GET, all, handle_list, res, "read", "Lists each %s, in order of name."));
        push(a, &t->rows, row(api, M_GET, one, handle_get, res, "read", "One %s."));
    }
    if (res->verbs & V_CREATE)
        push(a, &t->rows,
             row(api, M_POST, all, handle_post, res, "create", "Makes a %s that is not there yet."));
    if (res->verbs & (V_CREATE | V_UPDATE))
        push(a, &t->rows,
             row(api, M_PUT, one, handle_put, res, res->verbs & V_UPDATE ? "update" : "create",
                 "Makes or changes a %s."));
    if (res->verbs & V_DELETE)
        push(a, &t->rows,
             row(api, M_DELETE, one, handle_delete, res, "delete", "Deletes a %s that nothing refers to."));
    action_rows(api, t, res, one);
}

/* ---- the rest ---- */

static err healthz(struct req *r)
{
    return req_reply(r, 200, "text/plain; charset=utf-8", S("ok\n"));
}

bool api_ready(struct api *api)
{
    struct ready list[COLLECTORS_MAX];
    pthread_mutex_lock(&api->m);
    size_t n = api->readies_n;
    memcpy(list, api->readies, n * sizeof *list);
    pthread_mutex_unlock(&api->m);
    for (size_t i = 0; i < n; i++)
        if (!list[i].ready(list[i].arg))
            return false;
    return true;
}

static err readyz(struct req *r)
{
    if (!api_ready(place_of(r)->api))
        FAIL(UNAVAILABLE, "not ready yet");
    return req_reply(r, 200, "text/plain; charset=utf-8", S("ready\n"));
}

static err openapi_get(struct req *r)
{
    return req_reply(r, 200, "application/json", place_of(r)->api->openapi);
}

static err schema_get(struct req *r)
{
    return req_reply(r, 200, "application/schema+json", place_of(r)->api->schema_file);
}

static const struct route fixed[] = {
    { M_GET, "/api/v1/watch", watch_get, .may = "events.watch", .tag = "events",
      .doc = "Events as they come, as server-sent events; Last-Event-ID or after goes on from there." },
    { M_GET, "/api/v1/events", events_get, .may = "events.read", .tag = "events",
      .doc = "Past events, the oldest first." },
    { M_GET, "/metrics", metrics_get, .may = "metrics.read", .tag = "system",
      .doc = "Figures in Prometheus' text format." },
    { M_GET, "/healthz", healthz, .may = "public", .tag = "system", .on_loop = true,
      .doc = "200 while the process lives." },
    { M_GET, "/readyz", readyz, .may = "public", .tag = "system", .doc = "200 once everything is loaded." },
    { M_GET, "/openapi.json", openapi_get, .may = "public", .tag = "system", .on_loop = true,
      .doc = "This description (OpenAPI 3.1)." },
    { M_GET, "/schema/v1.json", schema_get, .may = "public", .tag = "system", .on_loop = true,
      .doc = "The JSON Schema of a document of dhow.yaml." },
    { M_POST, "/grpc.health.v1.Health/Check", health_check, .may = "public", .tag = "system",
      .grpc = GRPC_UNARY, .doc = "As /readyz, for the server or one of its services." },
    { M_POST, "/grpc.health.v1.Health/Watch", health_watch, .may = "public", .tag = "system",
      .grpc = GRPC_STREAM, .doc = "The same, and again when it changes." },
    { M_POST, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", reflect, .may = "model.read",
      .tag = "system", .grpc = GRPC_STREAM, .doc = "Which gRPC services there are, and their types." },
    { M_POST, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", reflect, .may = "model.read",
      .tag = "system", .grpc = GRPC_STREAM, .doc = "The same, as older clients ask for it." },
};

err routes_make(struct api *api)
{
    struct table t = { 0 };
    for (size_t i = 0; i < api->res_n; i++)
        resource_rows(api, &t, api->res[i]);
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
        struct place *p = NEW(api->a, struct place);
        struct route r = fixed[i];
        p->api = api;
        r.self = p;
        push(api->a, &t.rows, r);
    }
    push(api->a, &t.rows, (struct route){ 0 });
    api->routes = t.rows.v;
    return NULL;
}
