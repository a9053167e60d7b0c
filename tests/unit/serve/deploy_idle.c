// SPDX-License-Identifier: Apache-2.0
/* Deployments that are unloaded: asleep and suspended; and versions that come and go under load. */
#define SUITE serve_idle
#include "deploy.h"

#define PATH "/api/v1/projects/default/deployments/late"

static bool empty(struct world *w)
{
    LOCKED(&w->serve->m);
    return !w->serve->models;
}

static void wait_empty(struct world *w)
{
    for (int i = 0; i < 4000 && !empty(w); i++)
        nap();
    CHECK(empty(w));
}

static struct world *sleeping(void)
{
    struct world *w = versions(1);
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\",\"idle\":\"50ms\"}", 201);
    wait_phase(w, DEPLOYMENT_IDLE);
    wait_empty(w);
    return w;
}

static int answer(struct world *w)
{
    int status;
    (void)answered_by(w, "x", 0, &status);
    return status;
}

/* ---- many at once ---- */

struct client {
    struct world *w;
    atomic_bool *stop; /* NULL: one request */
    int asked, failed, status;
    pthread_t thread;
};

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct http *http;
    struct str body = S(
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[0,0]}]}");
    CHECK_OK(http_open(c->w->url, c->w->admin, 20000, &http));
    do {
        auto_arena struct arena *a = arena_new(0);
        struct http_reply r = { 0 };
        err e = http_do(http, a, M_POST, S("/v2/models/late/infer"), S("application/json"), body, &r);
        c->asked++;
        c->status = r.status;
        c->failed += e || r.status != 200;
        err_reset();
    } while (c->stop && !atomic_load(c->stop));
    http_close(http);
    return NULL;
}

static void clients_start(struct world *w, struct client *c, int n, atomic_bool *stop)
{
    for (int i = 0; i < n; i++) {
        c[i] = (struct client){ .w = w, .stop = stop };
        CHECK_OK(thread_start("client", client_run, &c[i], &c[i].thread));
    }
}

static int clients_end(struct client *c, int n)
{
    int failed = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(c[i].thread, NULL);
        failed += c[i].failed;
        CHECK(c[i].asked > 0);
    }
    return failed;
}

/* ---- sleep ---- */

TEST(who_is_not_asked_sleeps_and_the_next_request_wakes_it)
{
    struct world *w = sleeping();
    want(w, M_GET, "/v2/models/late/ready", "", 200);
    CHECK(answer(w) == 200);
    for (int i = 0; i < 2000 && !deployment_now(w).cold_starts; i++)
        nap();
    struct deployment_status s = deployment_now(w);
    CHECK(s.cold_starts == 1 && s.cold_start_ms > 0);
    wait_phase(w, DEPLOYMENT_IDLE);
    wait_empty(w);
    CHECK(answer(w) == 200);
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\"}", 200);
    wait_phase(w, DEPLOYMENT_SERVING);
    /* Two at least: on a slow machine it may have dozed off once more before it was told to stay awake. */
    for (int i = 0; i < 2000 && (s = deployment_now(w)).cold_starts < 2; i++)
        nap();
    CHECK(s.cold_starts >= 2);
    CHECK(counted(w, "dhow_inference_cold_starts_total", "1",
                  fmtz(w->l.a, "%llu", (unsigned long long)s.cold_starts)));
    CHECK(!counted(w, "dhow_inference_cold_start_seconds_total", "1", "0"));
    world_free(w);
}

/* The loaders do something else until they are let go. */
struct gate {
    pthread_mutex_t m;
    pthread_cond_t c;
    bool open;
};

static void gate_wait(void *arg)
{
    struct gate *g = arg;
    LOCKED(&g->m);
    while (!g->open)
        pthread_cond_wait(&g->c, &g->m);
}

static void gate_open(struct gate *g)
{
    LOCKED(&g->m);
    g->open = true;
    pthread_cond_broadcast(&g->c);
}

#define GATE                                                       \
    {                                                              \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false \
    }

static void wait_waiters(struct world *w, size_t n)
{
    size_t there = 0;
    for (int i = 0; i < 4000 && there != n; i++, nap()) {
        LOCKED(&w->serve->m);
        there = depl_find(w->serve, S("default"), S("late"))->waiters_n;
    }
    CHECK(there == n);
}

TEST(those_who_wait_share_one_load)
{
    enum { N = 12 }; /* more than there are workers: who waits holds none */
    struct world *w = sleeping();
    struct gate gate = GATE;
    struct client c[N];
    for (int i = 0; i < LOADERS; i++)
        CHECK(lane_push(w->serve->lane, gate_wait, &gate));
    clients_start(w, c, N, NULL);
    wait_waiters(w, N);
    {
        LOCKED(&w->serve->m);
        CHECK(w->serve->models && !w->serve->models->next);
        depl_find(w->serve, S("default"), S("late"))->waiters_n = WAITERS_MAX;
    }
    CHECK(answer(w) == 503);
    gate_open(&gate);
    CHECK(clients_end(c, N) == 0);
    for (int i = 0; i < 2000 && !deployment_now(w).cold_starts; i++)
        nap();
    CHECK(deployment_now(w).cold_starts == 1);
    world_free(w);
}

TEST(who_waits_for_what_is_deleted_is_told)
{
    struct world *w = sleeping();
    struct gate gate = GATE;
    struct client c[3];
    for (int i = 0; i < LOADERS; i++)
        CHECK(lane_push(w->serve->lane, gate_wait, &gate));
    clients_start(w, c, 3, NULL);
    wait_waiters(w, 3);
    want(w, M_DELETE, PATH, "", 204);
    for (int i = 0; ask(w, M_GET, "/v2/models/late", S("")).status != 404; i++, nap())
        CHECK(i < 2000);
    gate_open(&gate);
    CHECK(clients_end(c, 3) == 3 && c[0].status == 404 && c[2].status == 404);
    world_free(w);
}

TEST(what_cannot_be_loaded_any_more_fails_those_who_wait)
{
    struct world *w = sleeping();
    struct model_version_spec spec;
    const char *path;
    (void)version_now(&w->l, "late.1", &spec);
    CHECK_OK(blob_path(store_blobs(w->l.store), w->l.a, spec.onnx, &path));
    CHECK(unlink(path) == 0);
    CHECK(answer(w) == 503);
    world_free(w);
}

TEST(it_sleeps_on_after_a_restart)
{
    struct world *w = sleeping();
    world_stop(w);
    world_start(w);
    want(w, M_GET, "/v2/health/ready", "", 200);
    CHECK(empty(w));
    CHECK(answer(w) == 200);
    world_free(w);
}

/* ---- suspending ---- */

TEST(a_suspended_one_refuses_and_comes_back)
{
    struct world *w = versions(1);
    struct principal ann = { .name = S("ann") };
    struct req r = { .who = &ann, .id = S("r-1") };
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\"}", 201);
    wait_version(w, "1");
    CHECK_OK(deployment_suspend(w->serve, &r, S("default"), S("late"), true));
    struct http_reply got = ask(w, M_POST, "/v2/models/late/infer", S("{\"inputs\":[]}"));
    CHECK(got.status == 503 && has(got.body, "'late' has no available versions"));
    want(w, M_GET, "/v2/models/late/ready", "", 503);
    wait_phase(w, DEPLOYMENT_SUSPENDED);
    wait_empty(w);
    CHECK_OK(deployment_suspend(w->serve, &r, S("default"), S("late"), false));
    CHECK(answer(w) == 200);
    CHECK(has(want(w, M_GET, "/api/v1/audit", "", 200).body, "deployments.suspend"));
    CHECK_ERR(deployment_suspend(w->serve, &r, S("default"), S("none"), true), NOT_FOUND);
    world_free(w);
}

/* ---- under load ---- */

static void pin(struct world *w, int n)
{
    spec_put(w, fmtz(w->l.a, "{\"model\":\"late\",\"version\":\"late.%d\"}", n), 200);
    wait_version(w, fmtz(w->l.a, "%d", n));
}

TEST(twenty_changes_under_sixty_four_clients_fail_nobody)
{
    enum { N = 64 };
    struct world *w = versions(2);
    struct client c[N];
    atomic_bool stop = false;
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\"}", 201);
    wait_version(w, "1");
    clients_start(w, c, N, &stop);
    for (int i = 1; i <= 20; i++)
        pin(w, 1 + i % 2);
    atomic_store(&stop, true);
    CHECK(clients_end(c, N) == 0);
    world_free(w);
}

TEST(a_hundred_unloads_under_load_leave_nothing_behind)
{
    enum { N = 4 };
    struct world *w = versions(1);
    struct client c[N];
    struct principal ann = { .name = S("ann") };
    struct req r = { .who = &ann, .id = S("r-1") };
    atomic_bool stop = false;
    spec_put(w, "{\"model\":\"late\",\"version\":\"late.1\"}", 201);
    wait_version(w, "1");
    clients_start(w, c, N, &stop);
    for (int i = 0; i < 100; i++)
        CHECK_OK(deployment_suspend(w->serve, &r, S("default"), S("late"), i % 2 == 0));
    atomic_store(&stop, true);
    (void)clients_end(c, N); /* refused while it was suspended */
    CHECK(answer(w) == 200);
    CHECK_OK(deployment_suspend(w->serve, &r, S("default"), S("late"), true));
    wait_empty(w);
    for (int i = 0; i < 2000 && w->serve->retired; i++)
        nap();
    CHECK(!w->serve->retired);
    world_free(w);
}

TEST(a_rollback_under_load_takes_less_than_a_second)
{
    enum { N = 16 };
    struct world *w = versions(2);
    struct client c[N];
    struct str out;
    int status;
    atomic_bool stop = false;
    spec_put(w, "{\"model\":\"late\",\"canary\":{\"share\":0}}", 201);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    CHECK_OK(deploy(w, "late-2", "late.2", &out));
    clients_start(w, c, N, &stop);
    wait_version(w, "2");
    int64_t start = mono_ns();
    want(w, M_POST, PATH "/rollback", "{}", 200);
    while (!str_is(answered_by(w, "x", 0, &status), "1"))
        CHECK(mono_ns() - start < 1000000000);
    atomic_store(&stop, true);
    CHECK(clients_end(c, N) == 0);
    world_free(w);
}
