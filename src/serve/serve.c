// SPDX-License-Identifier: Apache-2.0
/* Opening and closing, observers, and what /metrics and /readyz say. */
#include "serve/internal.h"
#include <stdlib.h>

const int64_t bucket_us[BUCKETS] = { 50,    100,   250,    500,    1000,   2500,    5000,    10000,
                                     25000, 50000, 100000, 250000, 500000, 1000000, 2500000, INT64_MAX };

void tally_time(struct stripe *s, int64_t ns)
{
    size_t i = 0;
    while (i + 1 < BUCKETS && ns > bucket_us[i] * 1000)
        i++;
    atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&s->took_ns, ns, memory_order_relaxed);
}

void tally_sum(const struct tally *t, struct totals *out)
{
    *out = (struct totals){ 0 };
    for (size_t i = 0; i < STRIPES; i++) {
        const struct stripe *s = &t->stripe[i];
#define ADD(member) out->member += atomic_load_explicit(&s->member, memory_order_relaxed)
        ADD(requests);
        ADD(failed);
        ADD(refused);
        ADD(rows);
        ADD(missing);
        ADD(took_ns);
        for (size_t k = 0; k < BUCKETS; k++)
            ADD(buckets[k]);
#undef ADD
    }
}

/* ---- life ---- */

/* Not ready before each stored deployment was looked at. */
static err depls_list(struct serve *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct objects all;
    int64_t again;
    TRY(object_list(s->store, a, S("Deployment"), S(""), S(""), 10000, &all));
    for (size_t i = 0; i < all.n; i++) {
        err e = serve_step(s, a, &all.v[i], NULL, &again);
        if (e) /* the control loop will try it again */
            log_err("deployment.unreadable", e);
    }
    s->listed = true;
    return NULL;
}

err serve_open(const struct serve_config *config, struct serve **out)
{
    struct serve *s = aligned_alloc(_Alignof(struct serve), sizeof *s);
    if (!s)
        abort();
    memset(s, 0, sizeof *s);
    s->store = config->store;
    s->library = config->library;
    pthread_mutex_init(&s->m, NULL);
    pthread_mutex_init(&s->loading, NULL);
    setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* here, while there is one thread: the library comes later */
    err e = lane_new("models", LOADERS, 1024, &s->lane);
    pthread_mutex_lock(&s->m);
    if (!e)
        snap_publish(s);
    pthread_mutex_unlock(&s->m);
    if (!e)
        e = depls_list(s);
    if (e) {
        serve_close(s);
        return e;
    }
    *out = s;
    return NULL;
}

void serve_close(struct serve *s)
{
    if (!s)
        return;
    lane_free(s->lane); /* what is being loaded is loaded to its end */
    while (s->depls) {
        struct depl *d = s->depls;
        s->depls = d->next;
        depl_free(s, d);
    }
    struct snap *last = atomic_exchange(&s->now, NULL);
    if (last) {
        last->next = s->retired;
        s->retired = last;
    }
    retire(s);
    runtime_close(s->runtime);
    pthread_mutex_destroy(&s->m);
    pthread_mutex_destroy(&s->loading);
    free(s);
}

struct reconciler serve_reconciler(struct serve *s)
{
    static const char *const kinds[] = { "Deployment",     "Model",       "ModelVersion",
                                         "FeatureService", "FeatureView", NULL };
    return (struct reconciler){ .name = "serve", .kinds = kinds, .step = serve_step, .self = s };
}

void serve_set_control(struct serve *s, struct control *c)
{
    LOCKED(&s->m);
    s->control = c;
}

void serve_observe(struct serve *s, struct serve_observer o)
{
    if (s->observers_n < OBSERVERS_MAX)
        s->observers[s->observers_n++] = o;
}

bool serve_ready(void *arg)
{
    struct serve *s = arg;
    LOCKED(&s->m);
    bool ready = s->listed;
    for (const struct depl *d = s->depls; d; d = d->next)
        ready = ready && d->settled;
    return ready;
}

/* ---- /metrics ---- */

struct counter {
    const char *name, *doc;
    size_t offset; /* in struct totals */
};
static const struct counter counters[] = {
    { "dhow_inference_requests_total", "Requests that reached a version.",
      offsetof(struct totals, requests) },
    { "dhow_inference_failures_total", "Requests that a version failed.", offsetof(struct totals, failed) },
    { "dhow_inference_refused_total", "Requests refused for what was in them.",
      offsetof(struct totals, refused) },
    { "dhow_inference_rows_total", "Rows answered.", offsetof(struct totals, rows) },
    { "dhow_inference_missing_features_total", "Features without a value.",
      offsetof(struct totals, missing) },
};

static void labels_put(struct buf *out, const struct entry *e, const struct served *v)
{
    buf_fmt(out, "project=\"%.*s\",deployment=\"%.*s\",version=\"%.*s\"", STR(e->project), STR(e->name),
            STR(v->model->number));
}

static void counter_put(struct buf *out, const struct snap *snap, const struct counter *c)
{
    buf_fmt(out, "# HELP %s %s\n# TYPE %s counter\n", c->name, c->doc, c->name);
    for (size_t i = 0; i < snap->n; i++)
        for (size_t k = 0; k < snap->v[i].n; k++) {
            struct totals t;
            tally_sum(snap->v[i].v[k].tally, &t);
            buf_fmt(out, "%s{", c->name);
            labels_put(out, &snap->v[i], &snap->v[i].v[k]);
            buf_fmt(out, "} %lld\n", (long long)*(const int64_t *)((const char *)&t + c->offset));
        }
}

static void times_put(struct buf *out, const struct entry *e, const struct served *v)
{
    struct totals t;
    int64_t n = 0;
    tally_sum(v->tally, &t);
    for (size_t i = 0; i < BUCKETS; i++) {
        n += t.buckets[i];
        buf_str(out, S("dhow_inference_seconds_bucket{"));
        labels_put(out, e, v);
        if (i + 1 < BUCKETS)
            buf_fmt(out, ",le=\"%g\"} %lld\n", (double)bucket_us[i] / 1e6, (long long)n);
        else
            buf_fmt(out, ",le=\"+Inf\"} %lld\n", (long long)n);
    }
    buf_str(out, S("dhow_inference_seconds_sum{"));
    labels_put(out, e, v);
    buf_fmt(out, "} %.9g\ndhow_inference_seconds_count{", (double)t.took_ns / 1e9);
    labels_put(out, e, v);
    buf_fmt(out, "} %lld\n", (long long)n);
}

void serve_metrics(void *arg, struct buf *out)
{
    struct serve *s = arg;
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        counter_put(out, snap, &counters[i]);
    buf_str(out, S("# HELP dhow_inference_seconds Time from the body to the reply, in the worker.\n"
                   "# TYPE dhow_inference_seconds histogram\n"));
    for (size_t i = 0; i < snap->n; i++)
        for (size_t k = 0; k < snap->v[i].n; k++)
            times_put(out, &snap->v[i], &snap->v[i].v[k]);
    buf_str(out, S("# HELP dhow_models_loaded Versions in memory that answer or stand by.\n"
                   "# TYPE dhow_models_loaded gauge\n"));
    size_t loaded = 0;
    for (size_t i = 0; i < snap->n; i++)
        loaded += snap->v[i].n;
    buf_fmt(out, "dhow_models_loaded %zu\n", loaded);
    snap_leave(s, slot);
}
