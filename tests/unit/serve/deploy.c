// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_deploy
#include "help.h"

TEST(the_first_version_answers_at_once)
{
    struct world *w = world_new();
    struct str out;
    deployment_make(w, DEPLOYMENT(""));
    while (ask(w, M_GET, "/v2/models/late", S("")).status == 404)
        nap();
    CHECK(!w->serve->runtimes[RUNTIME_ONNX]); /* no library before the first model */
    want(w, M_POST, "/v2/models/late/infer", "{\"inputs\":[]}", 503);
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    CHECK_STR(out, "{\"version\":\"late.1\",\"requests\":0}");
    struct http_reply r = want(
        w, M_POST, "/v2/models/late/infer",
        "{\"id\":\"x\",\"inputs\":[{\"name\":\"features\",\"shape\":[2,2],\"datatype\":\"FP32\","
        "\"data\":[[0,0],[1,null]]}]}",
        200);
    CHECK_STR(
        r.body,
        "{\"model_name\":\"late\",\"model_version\":\"1\",\"id\":\"x\",\"outputs\":[{\"name\":\"probability\","
        "\"datatype\":\"FP32\",\"shape\":[2,1],\"data\":[0.26894143,0.7310586]}]}");
    struct deployment_status s = deployment_now(w);
    CHECK(s.phase == DEPLOYMENT_SERVING && s.rollout.state == ROLLOUT_DONE);
    CHECK_STR(s.version, "late.1");
    world_free(w);
}

TEST(only_versions_that_passed_are_deployed)
{
    struct world *w = world_new();
    struct str out;
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), false);
    CHECK_ERR(deploy(w, "late-1", "late.1", &out), CONFLICT);
    CHECK_ERR(deploy(w, "late-1", "late.9", &out), NOT_FOUND);
    world_free(w);
}

/* Requests with ids 0 … n − 1: how many of them `version` answered. */
static int asked(struct world *w, int n, const char *version, int *failed)
{
    int hits = 0, status;
    for (int i = 0; i < n; i++) {
        hits += str_eq(answered_by(w, fmtz(w->l.a, "flight-%d", i), 0.3, &status), str_of(version));
        *failed += status != 200;
    }
    return hits;
}

static bool step_done(struct world *w, const char *run, const char *version)
{
    struct str out;
    bool done;
    CHECK_OK(step_call(&w->l, &serve_deploy, run,
                       fmtz(w->l.a, "{\"deployment\":\"late\",\"version\":\"%s\"}", version), &out, &done));
    return done;
}

static void wait_canary(struct world *w)
{
    for (int i = 0; i < 2000 && deployment_now(w).phase != DEPLOYMENT_CANARY; i++)
        nap();
    CHECK(deployment_now(w).phase == DEPLOYMENT_CANARY);
}

static void two_versions(struct world *w, struct str second)
{
    struct str out;
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    version_made(&w->l, 2, second, true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    CHECK(!step_done(w, "late-2", "late.2"));
}

TEST(a_challenger_earns_its_place)
{
    struct world *w = world_new();
    struct str out;
    int failed = 0;
    two_versions(w, step_model(w->l.a, 0.5f, -2, 2));
    wait_canary(w);
    int hits = asked(w, 200, "2", &failed);
    CHECK(hits > 25 && hits < 75);              /* a quarter of 200 */
    CHECK(asked(w, 200, "2", &failed) == hits); /* the same ids meet the same version */
    CHECK(!step_done(w, "late-2", "late.2"));
    for (int i = 0; i < 20 && !step_done(w, "late-2", "late.2"); i++)
        asked(w, 200, "2", &failed);
    CHECK_OK(deploy(w, "late-2", "late.2", &out));
    CHECK(failed == 0);
    struct model_status m = model_now(&w->l);
    CHECK_STR(m.aliases.champion, "late.2");
    CHECK(m.aliases.challenger.n == 0);
    CHECK(asked(w, 50, "2", &failed) == 50);
    want(w, M_POST, "/v2/models/late/versions/1/infer",
         "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[0,0]}]}", 200);
    world_free(w);
}

/* Three features instead of two: it refuses what the champion answers. */
static struct str wide_model(struct arena *a)
{
    struct tree_node nodes[] = { { .feature = -1, .value = 0.1f } };
    struct trees t = { .features = 3,
                       .link = LINK_LOGISTIC,
                       .nodes = nodes,
                       .n_nodes = 1,
                       .roots = (uint32_t[]){ 0 },
                       .n_trees = 1 };
    struct str onnx;
    CHECK_OK(trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, &onnx));
    return onnx;
}

TEST(a_challenger_that_fails_is_taken_back)
{
    struct world *w = world_new();
    struct model_version_spec spec;
    struct str out;
    int failed = 0;
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    struct model_version_spec wide = { .model = S("late"), .number = 2, .signature = S("{}") };
    CHECK_OK(blob_put(store_blobs(w->l.store), w->l.a, wide_model(w->l.a), &wide.onnx));
    CHECK_OK(resource_create(w->l.store, w->l.a, &model_version_resource, S("t"), S("default"), S("late.2"),
                             &wide));
    struct model_version_status passed = { .state = VERSION_PASSED };
    CHECK_OK(
        resource_status(w->l.store, w->l.a, &model_version_resource, S("default"), S("late.2"), -1, &passed));
    CHECK(!step_done(w, "late-2", "late.2"));
    wait_canary(w);
    asked(w, 200, "1", &failed);
    CHECK(failed > 20);
    err e = deploy(w, "late-2", "late.2", &out);
    CHECK_ERR(e, GATE);
    CHECK(has(e->text, "late.2 failed ") && has(e->text, "the champion late.1 0 of "));
    CHECK(version_now(&w->l, "late.2", &spec).state == VERSION_REFUSED);
    CHECK_STR(model_now(&w->l).aliases.champion, "late.1");
    failed = 0;
    CHECK(asked(w, 100, "1", &failed) == 100);
    CHECK_ERR(deploy(w, "late-2", "late.2", &out), GATE); /* asked again, the same answer */
    world_free(w);
}

/* An operator that nobody has: our checks pass it, ONNX Runtime does not. */
static struct str strange_model(struct arena *a)
{
    struct str m = str_dup(a, step_model(a, 0.5f, -1, 1)), op = S("TreeEnsembleRegressor");
    char *at = memmem(m.p, m.n, op.p, op.n);
    CHECK(at);
    memcpy(at, "TreeEnsembleRegretter", op.n);
    return m;
}

TEST(a_version_that_cannot_be_loaded_leaves_the_old_one)
{
    struct world *w = world_new();
    struct str out;
    int failed = 0;
    two_versions(w, strange_model(w->l.a));
    CHECK_ERR(deploy(w, "late-2", "late.2", &out), UNAVAILABLE);
    CHECK(asked(w, 20, "1", &failed) == 20);
    CHECK_STR(model_now(&w->l).aliases.challenger, "");
    world_free(w);
}

TEST(a_rollback_takes_less_than_a_second)
{
    struct world *w = world_new();
    struct str out;
    int status, failed = 0;
    deployment_make(w, "kind: Deployment\nmetadata: {name: late}\nspec: {model: late, canary: {share: 0}}\n");
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    CHECK_OK(deploy(w, "late-2", "late.2", &out));
    CHECK(asked(w, 10, "2", &failed) == 10);
    int64_t start = mono_ns();
    want(w, M_POST, "/api/v1/projects/default/deployments/late/rollback", "{}", 200);
    while (!str_is(answered_by(w, "x", 0, &status), "1"))
        CHECK(mono_ns() - start < 1000000000);
    want(w, M_POST, "/api/v1/projects/default/deployments/late/rollback", "{}", 409);
    world_free(w);
}

TEST(a_rollout_goes_on_after_a_restart)
{
    struct world *w = world_new();
    struct str out;
    int failed = 0;
    two_versions(w, step_model(w->l.a, 0.5f, -2, 2));
    wait_canary(w);
    asked(w, 200, "2", &failed);
    for (int i = 0; i < 400 && deployment_now(w).rollout.requests < 20; i++)
        nap();
    int64_t before = deployment_now(w).rollout.requests;
    CHECK(before >= 20);
    world_stop(w);
    world_start(w);
    for (int i = 0; ask(w, M_GET, "/v2/health/ready", S("")).status != 200; i++, nap())
        CHECK(i < 2000);
    asked(w, 1, "1", &failed); /* ready means that it answers */
    wait_canary(w);
    for (int i = 0; i < 20 && !step_done(w, "late-2", "late.2"); i++) {
        asked(w, 200, "2", &failed);
        CHECK(deployment_now(w).rollout.requests >= before);
    }
    CHECK_OK(deploy(w, "late-2", "late.2", &out));
    CHECK(failed == 0);
    world_free(w);
}

TEST(a_pinned_version_answers_whatever_is_champion)
{
    struct world *w = world_new();
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), false);
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    CHECK_OK(alias_set(&w->l, ALIAS_CHAMPION, "late.2"));
    deployment_make(w, DEPLOYMENT(", version: late.1"));
    wait_version(w, "1");
    want(w, M_POST, "/api/v1/projects/default/deployments/late/rollback", "{}", 409);
    want(w, M_DELETE, "/api/v1/projects/default/deployments/late", "", 204);
    for (int i = 0; ask(w, M_GET, "/v2/models/late", S("")).status != 404; i++, nap())
        CHECK(i < 400);
    world_free(w);
}

/* ---- memory ---- */

static void pin(struct world *w, int n)
{
    struct meta m;
    struct deployment_spec spec;
    CHECK_OK(
        resource_get(w->l.store, w->l.a, &deployment_resource, S("default"), S("late"), &m, &spec, NULL));
    want(w, M_PUT, "/api/v1/projects/default/deployments/late",
         fmtz(w->l.a,
              "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"late\"},"
              "\"spec\":{\"model\":\"late\",\"version\":\"late.%d\"}}",
              n),
         200);
    wait_version(w, n == 1 ? "1" : "2");
}

TEST(sixty_loads_and_unloads_leave_no_memory)
{
    struct world *w = world_new();
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    deployment_make(w, DEPLOYMENT(", version: late.1"));
    wait_version(w, "1");
    int64_t early = 0;
    for (int i = 1; i <= 60; i++) {
        pin(w, 1 + i % 2);
        if (i == 20)
            early = rss_bytes();
    }
    for (int i = 0; i < 400 && w->serve->models && w->serve->models->next; i++)
        nap();
    CHECK(w->serve->models && !w->serve->models->next); /* one version is left in memory */
    int64_t grown = rss_bytes() - early;
#ifdef __SANITIZE_ADDRESS__ /* which keeps what is freed */
    grown = 0;
#endif
    cr_assert(grown < 6 << 20, "40 loads grew %lld bytes", (long long)grown);
    world_free(w);
}

struct hammer {
    struct world *w;
    atomic_bool stop;
    int asked, failed;
};

static void *hammer_run(void *arg)
{
    struct hammer *h = arg;
    struct http *http;
    struct str body = S(
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[0,0]}]}");
    CHECK_OK(http_open(h->w->url, h->w->admin, 20000, &http));
    while (!atomic_load(&h->stop)) {
        auto_arena struct arena *a = arena_new(0);
        struct http_reply r;
        err e = http_do(http, a, M_POST, S("/v2/models/late/infer"), S("application/json"), body, &r);
        h->asked++;
        h->failed += e || r.status != 200;
        err_reset();
    }
    http_close(http);
    return NULL;
}

TEST(versions_change_under_load_without_a_failed_request)
{
    struct world *w = world_new();
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    deployment_make(w, DEPLOYMENT(", version: late.1"));
    wait_version(w, "1");
    struct hammer h[3];
    pthread_t t[3];
    for (int i = 0; i < 3; i++) {
        h[i] = (struct hammer){ .w = w };
        CHECK_OK(thread_start("hammer", hammer_run, &h[i], &t[i]));
    }
    for (int i = 1; i <= 30; i++)
        pin(w, 1 + i % 2);
    for (int i = 0; i < 3; i++) {
        atomic_store(&h[i].stop, true);
        pthread_join(t[i], NULL);
        cr_assert(h[i].failed == 0 && h[i].asked > 10, "%d of %d failed", h[i].failed, h[i].asked);
    }
    world_free(w);
}
