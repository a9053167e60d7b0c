/* help: a whole server on 127.0.0.1 with registry and serve, a control loop, and clients that talk to it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "registry/help.h"
#include "serve/internal.h"
#include <time.h>

struct world {
    struct lab l;
    struct str admin, url;
    struct api *api;
    struct net *net;
    struct serve *serve;
    struct control *control;
    const struct route *tables[5];
    struct http *http;
};

static inline err world_before(struct req *r)
{
    return auth_before(((struct world *)r->app)->l.auth, r);
}

/* What belongs to one start of the daemon. */
static inline void world_start(struct world *w)
{
    static const struct resource *const kinds[] = { &job_resource,          &dataset_version_resource,
                                                    &registry_resources[0], &registry_resources[1],
                                                    &registry_resources[2], &serve_resources[0],
                                                    &feature_view_resource, NULL };
    struct arena *a = w->l.a;
    CHECK_OK(serve_open(&(struct serve_config){ .store = w->l.store }, &w->serve));
    w->tables[0] = auth_routes(w->l.auth, a);
    w->tables[1] = registry_routes(w->l.store, a);
    w->tables[2] = serve_routes(w->serve, a);
    w->tables[3] = NULL;
    CHECK_OK(api_open(
        &(struct api_config){
            .store = w->l.store, .auth = w->l.auth, .resources = kinds, .routes = w->tables, .app = w },
        &w->api));
    w->tables[3] = api_routes(w->api);
    w->tables[4] = NULL;
    struct reconciler list[] = { serve_reconciler(w->serve),
                                 registry_reconciler(trainings_new(w->l.a, w->l.store)) };
    CHECK_OK(control_start(w->l.store, list, 2, &w->control));
    serve_set_control(w->serve, w->control);
    CHECK_OK(net_start(&(struct net_config){ .listen = S("127.0.0.1:0"),
                                             .loops = 1,
                                             .workers = 4,
                                             .routes = w->tables,
                                             .app = w,
                                             .before = world_before,
                                             .fail = api_fail },
                       &w->net));
    w->url = fmt(a, "http://%.*s", STR(net_address(w->net)));
    CHECK_OK(http_open(w->url, w->admin, 20000, &w->http));
}

static inline void world_stop(struct world *w)
{
    http_close(w->http);
    net_stop(w->net);
    serve_set_control(w->serve, NULL);
    control_stop(w->control);
    serve_close(w->serve);
    api_close(w->api);
}

static inline struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);
    struct runtime *rt;
    if (runtime_open(NULL, &rt))
        cr_skip_test("libonnxruntime is not here");
    runtime_close(rt);
    log_setup(LOG_ERROR, false);
    w->l = shop_open();
    CHECK_OK(auth_first_token(w->l.auth, w->l.a, &w->admin));
    world_start(w);
    return w;
}

static inline void world_free(struct world *w)
{
    world_stop(w);
    lab_close(&w->l);
    free(w);
}

static inline struct http_reply ask(struct world *w, enum method m, const char *path, struct str body)
{
    struct http_reply r;
    CHECK_OK(http_do(w->http, w->l.a, m, str_of(path), body.n ? S("application/json") : S(""), body, &r));
    return r;
}

static inline struct http_reply want(struct world *w, enum method m, const char *path, const char *body,
                                     int status)
{
    struct http_reply r = ask(w, m, path, str_of(body));
    cr_assert(r.status == status, "%s %s %.200s: %d, not %d: %.*s", method_names[m].p, path, body, r.status,
              status, STR(r.body));
    return r;
}

static inline bool has(struct str text, const char *part)
{
    return memmem(text.p, text.n, part, strlen(part)) != NULL;
}

static inline void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
}

static inline struct deployment_status deployment_now(struct world *w)
{
    struct deployment_spec spec;
    struct deployment_status status;
    CHECK_OK(resource_get(w->l.store, w->l.a, &deployment_resource, S("default"), S("late"), NULL, &spec,
                          &status));
    return status;
}

#define DEPLOYMENT(more)                                                                                      \
    "kind: Deployment\nmetadata: {name: late}\nspec: {model: late, canary: {share: 0.25, requests: 100}" more \
    "}\n"

static inline void deployment_make(struct world *w, const char *yaml)
{
    CHECK_OK(lab_apply(&w->l, serve_resources, yaml));
}

/* Calls the step until it is done or fails. */
static inline err deploy(struct world *w, const char *run, const char *version, struct str *out)
{
    bool done = false;
    const char *with = fmtz(w->l.a, "{\"deployment\":\"late\",\"version\":\"%s\"}", version);
    for (int i = 0; i < 4000 && !done; i++) {
        TRY(step_call(&w->l, &serve_deploy, run, with, out, &done));
        if (!done)
            nap();
    }
    CHECK(done);
    return NULL;
}

/* The version that answers a row with a = x and id; "" if none does. */
static inline struct str answered_by(struct world *w, const char *id, double x, int *status)
{
    struct str body = fmt(
        w->l.a,
        "{\"id\":\"%s\",\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\","
        "\"data\":[%g,0]}]}",
        id, x);
    struct http_reply r = ask(w, M_POST, "/v2/models/late/infer", body);
    yyjson_val *v;
    *status = r.status;
    if (r.status != 200)
        return S("");
    CHECK_OK(json_parse(w->l.a, r.body, &v));
    return json_at(v, "model_version");
}

static inline void wait_version(struct world *w, const char *version)
{
    int status;
    for (int i = 0; i < 2000; i++) {
        if (str_eq(answered_by(w, "wait", 0, &status), str_of(version)))
            return;
        nap();
    }
    cr_assert_fail("version %s never answers: %.*s", version, STR(deployment_now(w).message));
}
