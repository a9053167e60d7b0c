// SPDX-License-Identifier: Apache-2.0
/* One Monitor under many threads at once, for ThreadSanitizer: predictions whose time goes on (so that windows close
 * all the while), pushes of outcomes, steps of the reconciler, a champion that changes, looks at the metrics. 0 is a
 * pass: no row is lost, every outcome is joined. */
#include "monitor/internal.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { PREDICTERS = 4, CALLS = 400, BATCH = 16, FEATURES = 5, ALL = PREDICTERS * CALLS * BATCH };
#define HOUR ((int64_t)3600 * 1000000)

static struct store *store;
static struct monitors *monitors;
static atomic_int failed, working;
static atomic_llong now;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    atomic_fetch_add(&failed, 1);
}
#define CHECK(x) check((x), #x)

struct put {
    const char *kind, *name;
    struct str spec, status;
};

static err put_run(struct tx *tx, void *arg)
{
    const struct put *p = arg;
    struct object o = { .kind = str_of(p->kind),
                        .project = S("p"),
                        .name = str_of(p->name),
                        .labels = S("{}"),
                        .spec = p->spec };
    TRY(object_put(tx, S("ann"), &o, -1, NULL, NULL));
    return p->status.n ? object_status(tx, o.kind, o.project, o.name, -1, p->status) : NULL;
}

static void put(const char *kind, const char *name, struct str spec, struct str status)
{
    CHECK(!store_write(store, put_run, &(struct put){ kind, name, spec, status }));
    err_reset();
}

static struct str baseline_put(struct arena *a)
{
    enum { ROWS = 2000 };
    static const struct str names[FEATURES] = { S_INIT("a"), S_INIT("b"), S_INIT("c"), S_INIT("d"),
                                                S_INIT("e") };
    struct baseline b = { .rows = ROWS,
                          .features = NEW_N(a, struct baseline_column, FEATURES),
                          .n = FEATURES };
    float *v = NEW_N(a, float, ROWS);
    struct str sha = S("");
    for (size_t i = 0; i < ROWS; i++)
        v[i] = (float)i / ROWS;
    for (size_t k = 0; k < FEATURES; k++)
        baseline_column_make(a, names[k], v, ROWS, 1, &b.features[k]);
    baseline_column_make(a, S("score"), v, ROWS, 1, &b.score);
    CHECK(!blob_put(store_blobs(store), a, baseline_write(a, &b), &sha));
    return sha;
}

static void resources_put(struct arena *a)
{
    struct str sha = baseline_put(a);
    put("ModelVersion", "late.1", fmt(a, "{\"model\":\"late\",\"number\":1,\"baseline\":\"%.*s\"}", STR(sha)),
        S(""));
    put("ModelVersion", "late.2", fmt(a, "{\"model\":\"late\",\"number\":2,\"baseline\":\"%.*s\"}", STR(sha)),
        S(""));
    put("Model", "late", S("{}"), S("{\"aliases\":{\"champion\":\"late.1\"}}"));
    put("Deployment", "late", S("{\"model\":\"late\"}"), S(""));
    put("Dataset", "flights", S("{\"sources\":[\"raw\"],\"query\":\"q\",\"id\":\"id\",\"eventTime\":\"ts\"}"),
        S(""));
    put("Monitor", "drift",
        S("{\"deployment\":\"late\",\"window\":\"1h\",\"outcome\":{\"dataset\":\"flights\",\"label\":\"late\"}}"),
        S(""));
}

static err step(struct arena *a, const char *kind, const char *name)
{
    struct object o;
    int64_t again_ms;
    struct reconciler r = monitors_reconciler(monitors);
    TRY(object_get(store, a, str_of(kind), S("p"), str_of(name), &o));
    return r.step(r.self, a, &o, NULL, &again_ms);
}

/* ---- the threads ---- */

static void *predicter(void *arg)
{
    int number = *(int *)arg;
    uint64_t seed = (uint64_t)number;
    auto_arena struct arena *a = arena_new(0);
    for (int i = 0; i < CALLS; i++, arena_reset(a)) {
        float x[BATCH * FEATURES], scores[BATCH];
        struct str ids[BATCH];
        int64_t at[BATCH];
        for (size_t k = 0; k < BATCH * FEATURES; k++)
            x[k] = (float)(splitmix(&seed) >> 40) / (1 << 24);
        for (int k = 0; k < BATCH; k++) {
            scores[k] = x[k * FEATURES];
            ids[k] = fmt(a, "%d", (number * CALLS + i) * BATCH + k);
            at[k] = atomic_fetch_add(&now, HOUR / 500);
        }
        struct prediction p = { .project = S("p"),
                                .deployment = S("late"),
                                .version = i % 10 ? S("late.1") : S("late.2"),
                                .n = BATCH,
                                .n_features = FEATURES,
                                .features = x,
                                .scores = scores,
                                .ids = ids,
                                .at = at };
        monitors_predicted(monitors, &p);
    }
    atomic_fetch_sub(&working, 1);
    return NULL;
}

static void *pusher(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    int first = *(int *)arg;
    for (int i = first; i < ALL; i += 2 * 100, arena_reset(a)) {
        struct columns b = { .rows = 100 };
        struct column *id = columns_add(a, &b, S("id"), COL_I64);
        for (int k = 0; k < 100; k++)
            id->i[k] = i + k;
        struct column *late = columns_add(a, &b, S("late"), COL_I64);
        for (int k = 0; k < 100; k++)
            late->i[k] = (i + k) % 3 == 0;
        monitors_pushed(monitors, S("p"), S("flights"), &b);
    }
    atomic_fetch_sub(&working, 1);
    return NULL;
}

static void *stepper(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    (void)arg;
    while (atomic_load(&working)) {
        CHECK(!step(a, "Monitor", "drift"));
        err_reset();
        arena_reset(a);
    }
    return NULL;
}

static void *looker(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    (void)arg;
    for (int i = 0; atomic_load(&working); i++) {
        struct buf out = buf_new(a);
        monitors_metrics(monitors, &out);
        if (i % 50 == 49) { /* the champion changes back and forth */
            put("Model", "late", S("{}"),
                i % 100 == 99 ? S("{\"aliases\":{\"champion\":\"late.1\"}}")
                              : S("{\"aliases\":{\"champion\":\"late.2\"}}"));
            CHECK(!step(a, "Model", "late"));
        }
        err_reset();
        arena_reset(a);
    }
    return NULL;
}

static void threads_run(void)
{
    static int numbers[PREDICTERS + 2] = { 0, 1, 2, 3, 0, 100 };
    pthread_t t[PREDICTERS + 4];
    atomic_store(&working, PREDICTERS + 2);
    for (int i = 0; i < PREDICTERS + 4; i++) {
        void *(*fn)(void *) = i < PREDICTERS        ? predicter
                              : i < PREDICTERS + 2  ? pusher
                              : i == PREDICTERS + 2 ? stepper
                                                    : looker;
        if (thread_start("monitor", fn, i < PREDICTERS + 2 ? &numbers[i] : NULL, &t[i]))
            exit(1);
    }
    for (int i = 0; i < PREDICTERS + 4; i++)
        pthread_join(t[i], NULL);
}

int main(void)
{
    char name[] = "/tmp/dhow-monitor-XXXXXX";
    auto_arena struct arena *a = arena_new(0);
    struct monitor_status st;
    if (!mkdtemp(name) ||
        store_open(&(struct store_config){ .dir = str_of(name), .kv_bytes_max = 1 << 20 }, &store))
        return 1;
    resources_put(a);
    if (monitors_open(&(struct monitors_config){ .store = store, .predictions_max = 16 * ALL }, &monitors))
        return 1;
    atomic_store(&now, 988675200000000);
    CHECK(!step(a, "Monitor", "drift"));
    threads_run();
    CHECK(!step(a, "Monitor", "drift"));
    CHECK(monitors->first && !monitors->first->next);
    watch_status(monitors->first, a, &st);
    CHECK(st.outcomes == ALL && st.unmatched == 0);
    CHECK(st.windows_closed > 10 && st.versions.n == 2);
    const struct monitor_version *v = st.versions.v;
    CHECK(v[0].outcomes + v[1].outcomes == ALL);
    monitors_close(monitors);
    store_close(store);
    dir_remove(name);
    return atomic_load(&failed) != 0;
}
