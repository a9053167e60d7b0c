// SPDX-License-Identifier: Apache-2.0
/* Everything of a deployment that threads share, at once: clients ask and tell outcomes while it falls asleep and wakes, is
 * suspended and resumed; two versions answer, a third one is the shadow. Each request is answered, or refused while the
 * deployment is suspended. */
#include "serve/infer.h"
#include <stdlib.h>
#include <unistd.h>

enum { CLIENTS = 6, CYCLES = 100 };
#define MUST(call)                                               \
    do {                                                         \
        err e_ = (call);                                         \
        if (e_) {                                                \
            fprintf(stderr, "%s: %.*s\n", #call, STR(e_->text)); \
            abort();                                             \
        }                                                        \
    } while (0)

/* ONNX Runtime is not built for ThreadSanitizer, which so cannot see what guards its own first use. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:libonnxruntime.so\n";
}

static struct principal ann = { .name = S_INIT("ann"), .project = S_INIT("default") };

static err before(struct req *r)
{
    r->who = &ann;
    return NULL;
}

/* ---- what is there ---- */

static void version_make(struct store *s, struct arena *a, int n)
{
    struct tree_node nodes[] = { { .feature = -1, .value = (float)n } };
    struct trees t = { .features = 2,
                       .link = LINK_LOGISTIC,
                       .nodes = nodes,
                       .n_nodes = 1,
                       .roots = (uint32_t[]){ 0 },
                       .n_trees = 1 };
    struct str onnx, name = fmt(a, "late.%d", n);
    struct model_version_spec spec = { .model = S("late"), .number = n, .signature = S("{}") };
    struct model_version_status passed = { .state = VERSION_PASSED };
    MUST(trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, &onnx));
    MUST(blob_put(store_blobs(s), a, onnx, &spec.onnx));
    MUST(resource_create(s, a, &model_version_resource, S("t"), S("default"), name, &spec));
    MUST(resource_status(s, a, &model_version_resource, S("default"), name, -1, &passed));
}

static void things_make(struct store *s, struct arena *a)
{
    void *project = arena_alloc(a, project_resource.spec->size, 16);
    struct model_spec model = { .doc = S("") };
    struct deployment_spec spec;
    schema_defaults(project_resource.spec, a, project);
    err e = resource_create(s, a, &project_resource, S("t"), S(""), S("default"), project);
    if (e && e->code != CONFLICT)
        abort();
    MUST(resource_create(s, a, &model_resource, S("t"), S("default"), S("late"), &model));
    for (int i = 1; i <= 3; i++)
        version_make(s, a, i);
    MUST(schema_read_text(&deployment_spec_schema, a, S("spec"),
                          S("{\"model\":\"late\",\"abTest\":{\"a\":\"late.1\",\"b\":\"late.2\"},"
                            "\"shadow\":{\"version\":\"late.3\"},\"idle\":\"3ms\"}"),
                          0, &spec));
    MUST(resource_create(s, a, &deployment_resource, S("t"), S("default"), S("late"), &spec));
}

/* ---- clients ---- */

struct client {
    struct serve *serve;
    const char *url;
    atomic_bool *stop;
    int number, answered, refused, other;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct http *http;
    uint64_t seed = (uint64_t)c->number;
    MUST(http_open(str_of(c->url), S(""), 60000, &http));
    for (int i = 0; !atomic_load(c->stop); i++) {
        auto_arena struct arena *a = arena_new(0);
        struct http_reply r = { 0 };
        struct str id = fmt(a, "%d-%d", c->number, i);
        MUST(http_do(http, a, M_POST, S("/v2/models/late/infer"), S("application/json"),
                     fmt(a,
                         "{\"id\":\"%.*s\",\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],"
                         "\"datatype\":\"FP32\",\"data\":[0,0]}]}",
                         STR(id)),
                     &r));
        c->answered += r.status == 200;
        c->refused += r.status == 503;
        c->other += r.status != 200 && r.status != 503;
        (void)serve_outcome(c->serve, S("default"), S("late"), id, (double)(splitmix(&seed) % 2));
        if (splitmix(&seed) % 8 == 0)
            usleep(8000);
    }
    http_close(http);
    return NULL;
}

/* ---- the play ---- */

struct play {
    struct store *store;
    struct serve *serve;
    struct control *control;
    struct net *net;
    struct arena *a;
    const char *url;
};

static void play_open(struct play *p, const char *dir)
{
    static const struct route *tables[2];
    MUST(store_open(&(struct store_config){ .dir = str_of(dir) }, &p->store));
    MUST(data_open(p->store));
    MUST(registry_open(p->store));
    struct auth *auth; /* for the audit's table */
    MUST(auth_open(p->store, &auth));
    auth_close(auth);
    things_make(p->store, p->a);
    MUST(serve_open(&(struct serve_config){ .store = p->store }, &p->serve));
    struct reconciler list[] = { serve_reconciler(p->serve) };
    MUST(control_start(p->store, list, 1, &p->control));
    serve_set_control(p->serve, p->control);
    tables[0] = serve_routes(p->serve, p->a);
    MUST(net_start(
        &(struct net_config){
            .listen = S("127.0.0.1:0"), .loops = 2, .workers = 3, .routes = tables, .before = before },
        &p->net));
    p->url = fmtz(p->a, "http://%.*s", STR(net_address(p->net)));
}

static void play_close(struct play *p)
{
    net_stop(p->net);
    serve_set_control(p->serve, NULL);
    control_stop(p->control);
    serve_close(p->serve);
    store_close(p->store);
}

/* True: each request was answered or refused, and after it all it answers. */
static bool play(struct play *p)
{
    struct client c[CLIENTS];
    pthread_t t[CLIENTS];
    atomic_bool stop = false;
    struct req r = { .who = &ann, .id = S("r") };
    bool right = true;
    int answered = 0;
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = (struct client){ p->serve, p->url, &stop, i, 0, 0, 0 };
        MUST(thread_start("client", client_run, &c[i], &t[i]));
    }
    for (int i = 0; i < CYCLES; i++) {
        MUST(deployment_suspend(p->serve, &r, S("default"), S("late"), i % 2 == 0));
        usleep(i % 10 * 2000);
    }
    usleep(100000);
    atomic_store(&stop, true);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(t[i], NULL);
        right = right && !c[i].other;
        answered += c[i].answered;
    }
    return right && answered > CLIENTS;
}

int main(void)
{
    struct runtime *rt;
    struct play p = { .a = arena_new(0) };
    char dir[] = "/tmp/dhow-deploy-XXXXXX";
    log_setup(LOG_ERROR, false);
    if (runtime_open(NULL, &rt))
        return 0; /* without the library there is nothing to load */
    runtime_close(rt);
    if (!mkdtemp(dir))
        return 1;
    play_open(&p, dir);
    bool right = play(&p);
    play_close(&p);
    MUST(dir_remove(dir));
    arena_free(p.a);
    return right ? 0 : 1;
}
