// SPDX-License-Identifier: Apache-2.0
/* What a prediction costs: bench/predict [serve SECONDS].
 * One round of predict.bare is session_run of one row, in a loop, on one thread. One round of predict.http is a POST
 * of one row as a tensor over loopback, by clients of this same process, so their share of the CPU is in it.
 * `serve SECONDS` waits with the same server instead, for another load generator: it prints address, token and body. */
#include "serve/serve.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { FEATURES = 24, TREES = 200, DEPTH = 6, NODES = (2 << DEPTH) - 1, CLIENTS_MAX = 64 };
static const int64_t round_ns = 3000000000;

#define MUST(call)                                                  \
    do {                                                            \
        err must_ = (call);                                         \
        if (must_) {                                                \
            fprintf(stderr, "%s: %.*s\n", #call, STR(must_->text)); \
            exit(1);                                                \
        }                                                           \
    } while (0)

struct bench {
    struct arena *a;
    struct str dir, url, token, body, onnx;
    struct store *store;
    struct auth *auth;
    struct api *api;
    struct serve *serve;
    struct control *control;
    struct net *net;
    const struct route *tables[4];
};

static void line(const char *name, double value, const char *unit)
{
    printf("{\"name\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"}\n", name, value, unit);
    fflush(stdout);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* Complete trees of random splits: the size of a real model, not its meaning. */
static struct str model_make(struct arena *a)
{
    struct tree_node *nodes = NEW_N(a, struct tree_node, TREES * NODES);
    uint32_t *roots = NEW_N(a, uint32_t, TREES);
    struct trees t = { .features = FEATURES,
                       .link = LINK_LOGISTIC,
                       .nodes = nodes,
                       .n_nodes = TREES * NODES,
                       .roots = roots,
                       .n_trees = TREES };
    struct str onnx;
    uint64_t seed = 1;
    for (uint32_t k = 0; k < TREES; k++) {
        roots[k] = k * NODES;
        for (uint32_t i = 0; i < NODES; i++) {
            struct tree_node *n = &nodes[k * NODES + i];
            bool leaf = 2 * i + 2 >= NODES;
            double u = (double)(splitmix(&seed) >> 11) * 0x1p-53;
            *n = leaf ? (struct tree_node){ .feature = -1, .value = (float)(u - 0.5) / 10 }
                      : (struct tree_node){ .feature = (int32_t)(splitmix(&seed) % FEATURES),
                                            .value = (float)u,
                                            .yes = k * NODES + 2 * i + 1,
                                            .no = k * NODES + 2 * i + 2,
                                            .missing_yes = true };
        }
    }
    MUST(trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, &onnx));
    return onnx;
}

static struct str body_make(struct arena *a)
{
    struct buf b = buf_new(a);
    uint64_t seed = 2;
    buf_fmt(&b, "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,%d],\"datatype\":\"FP32\",\"data\":[",
            FEATURES);
    for (int i = 0; i < FEATURES; i++)
        buf_fmt(&b, "%s%.6f", i ? "," : "", (double)(splitmix(&seed) >> 11) * 0x1p-53);
    buf_str(&b, S("]}]}"));
    return buf_get(&b);
}

/* ---- without anything around it ---- */

static void bare(struct bench *b)
{
    struct runtime *rt;
    struct session *s;
    float x[FEATURES] = { 0.5f }, p[1];
    struct tensor in = {
        .type = TENSOR_F32, .rank = 2, .dims = { 1, FEATURES }, .data = x, .bytes = sizeof x
    };
    struct tensor out = { .type = TENSOR_F32, .rank = 2, .dims = { 1, 1 }, .data = p, .bytes = sizeof p };
    MUST(runtime_open(NULL, &rt));
    MUST(session_load(rt, b->onnx, &(struct session_config){ .threads = 1 }, &s));
    int64_t n = 0, start = mono_ns(), end;
    double cpu = cpu_seconds();
    for (end = start; end - start < round_ns; end = mono_ns())
        for (int i = 0; i < 1000; i++, n++)
            MUST(session_run(s, NULL, &in, 1, &out, 1));
    line("predict.bare", (double)n / ((double)(end - start) / 1e9), "rows/s");
    line("predict.bare.cpu", (cpu_seconds() - cpu) * 1e6 / (double)n, "us");
    session_unload(s);
    runtime_close(rt);
}

/* ---- the server ---- */

static err before(struct req *r)
{
    return auth_before(((struct bench *)r->app)->auth, r);
}

static void resources_make(struct bench *b)
{
    struct arena *a = b->a;
    struct model_spec model = { .doc = S("") };
    struct model_version_spec version = { .model = S("m"), .number = 1 };
    struct model_version_status passed = { .state = VERSION_PASSED };
    struct deployment_spec deployment;
    schema_defaults(&deployment_spec_schema, a, &deployment);
    deployment.model = S("m");
    deployment.version = S("m.1");
    MUST(blob_put(store_blobs(b->store), a, b->onnx, &version.onnx));
    MUST(resource_create(b->store, a, &model_resource, S("bench"), S("default"), S("m"), &model));
    MUST(resource_create(b->store, a, &model_version_resource, S("bench"), S("default"), S("m.1"), &version));
    MUST(resource_status(b->store, a, &model_version_resource, S("default"), S("m.1"), -1, &passed));
    MUST(resource_create(b->store, a, &deployment_resource, S("bench"), S("default"), S("m"), &deployment));
}

static void server_start(struct bench *b)
{
    static const struct resource *const kinds[] = { &registry_resources[1], &registry_resources[2],
                                                    &serve_resources[0], NULL };
    MUST(store_open(&(struct store_config){ .dir = b->dir }, &b->store));
    MUST(auth_open(b->store, &b->auth));
    MUST(auth_first_token(b->auth, b->a, &b->token));
    MUST(registry_open(b->store));
    MUST(serve_open(&(struct serve_config){ .store = b->store }, &b->serve));
    b->tables[0] = serve_routes(b->serve, b->a);
    MUST(api_open(
        &(struct api_config){ .store = b->store, .auth = b->auth, .resources = kinds, .routes = b->tables },
        &b->api));
    b->tables[1] = api_routes(b->api);
    resources_make(b);
    struct reconciler r = serve_reconciler(b->serve);
    MUST(control_start(b->store, &r, 1, &b->control));
    serve_set_control(b->serve, b->control);
    MUST(net_start(
        &(struct net_config){
            .listen = S("127.0.0.1:0"), .routes = b->tables, .app = b, .before = before, .fail = api_fail },
        &b->net));
    b->url = fmt(b->a, "http://%.*s", STR(net_address(b->net)));
}

static void server_stop(struct bench *b)
{
    net_stop(b->net);
    serve_set_control(b->serve, NULL);
    control_stop(b->control);
    serve_close(b->serve);
    api_close(b->api);
    auth_close(b->auth);
    store_close(b->store);
    MUST(dir_remove(str_z(b->a, b->dir)));
}

struct client {
    struct bench *b;
    int64_t end_ns, done;
    double worst_us;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct http *h;
    struct arena *a = arena_new(0);
    MUST(http_open(c->b->url, c->b->token, 10000, &h));
    while (mono_ns() < c->end_ns) {
        struct http_reply r;
        MUST(http_do(h, a, M_POST, S("/v2/models/m/infer"), S("application/json"), c->b->body, &r));
        if (r.status == 200)
            c->done++;
        else if (r.status != 503) { /* 503: not loaded yet */
            fprintf(stderr, "status %d: %.*s\n", r.status, STR(r.body));
            exit(1);
        }
        arena_reset(a);
    }
    http_close(h);
    arena_free(a);
    return NULL;
}

static void http_round(struct bench *b, int clients, bool tell)
{
    struct client c[CLIENTS_MAX];
    pthread_t t[CLIENTS_MAX];
    int64_t start = mono_ns(), n = 0;
    double cpu = cpu_seconds();
    for (int i = 0; i < clients; i++) {
        c[i] = (struct client){ .b = b, .end_ns = start + (tell ? round_ns : round_ns / 6) };
        MUST(thread_start("client", client_run, &c[i], &t[i]));
    }
    for (int i = 0; i < clients; i++) {
        pthread_join(t[i], NULL);
        n += c[i].done;
    }
    if (!tell)
        return;
    char name[64];
    snprintf(name, sizeof name, "predict.http.c%d", clients);
    line(name, (double)n / ((double)(mono_ns() - start) / 1e9), "req/s");
    snprintf(name, sizeof name, "predict.http.c%d.cpu", clients);
    line(name, (cpu_seconds() - cpu) * 1e6 / (double)n, "us");
}

int main(int argc, char **argv)
{
    char dir[] = "/tmp/dhow-predict-XXXXXX";
    struct bench b = { .a = arena_new(0) };
    int64_t seconds = 0;
    if (argc == 3 && !strcmp(argv[1], "serve"))
        (void)str_i64(str_of(argv[2]), &seconds);
    if (!mkdtemp(dir))
        return 1;
    log_setup(LOG_ERROR, false);
    b.dir = str_of(dir);
    b.onnx = model_make(b.a);
    b.body = body_make(b.a);
    if (!seconds)
        bare(&b);
    server_start(&b);
    if (seconds) {
        printf("%.*s\n%.*s\n%.*s\n", STR(b.url), STR(b.token), STR(b.body));
        fflush(stdout);
        sleep((unsigned)seconds);
    } else {
        http_round(&b, 2, false);
        http_round(&b, 1, true);
        http_round(&b, 16, true);
        line("predict.rss", (double)rss_bytes() / 1e6, "MB");
    }
    server_stop(&b);
    arena_free(b.a);
    return 0;
}
