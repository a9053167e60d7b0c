// SPDX-License-Identifier: Apache-2.0
/* Counts of each version, and what /metrics says of them. */
#include "serve/infer.h"

const int64_t bucket_us[BUCKETS] = { 50,    100,   250,    500,    1000,   2500,    5000,    10000,
                                     25000, 50000, 100000, 250000, 500000, 1000000, 2500000, INT64_MAX };

void tally_sum(const struct tally *t, struct totals *out)
{
    *out = (struct totals){ 0 };
    for (size_t i = 0; i < STRIPES; i++) {
        const struct stripe *s = &t->stripe[i];
#define T(name) out->name += atomic_load_explicit(&s->name, memory_order_relaxed);
        TALLY(T)
#undef T
        int64_t last = atomic_load_explicit(&s->last_us, memory_order_relaxed);
        out->last_us = last > out->last_us ? last : out->last_us;
        for (size_t k = 0; k < BUCKETS; k++)
            out->buckets[k] += atomic_load_explicit(&s->buckets[k], memory_order_relaxed);
    }
}

/* ---- counting ---- */

static void add(_Atomic int64_t *to, int64_t v)
{
    if (v)
        atomic_fetch_add_explicit(to, v, memory_order_relaxed);
}

static int64_t missing_of(const struct infer *c)
{
    int64_t n = 0;
    for (size_t i = 0; c->x && i < c->n * c->features; i++)
        n += isnan(c->x[i]);
    return n;
}

static size_t bucket_of(int64_t ns)
{
    size_t i = 0;
    while (i + 1 < BUCKETS && ns > bucket_us[i] * 1000)
        i++;
    return i;
}

static void times_count(struct stripe *to, const struct infer_times *at, int64_t now)
{
    add(&to->took_ns, now - at->arrived);
    add(&to->input_ns, at->ready - at->arrived);
    add(&to->queue_ns, at->started - at->ready);
    add(&to->infer_ns, at->ran - at->started);
    add(&to->output_ns, now - at->ran);
    add(&to->buckets[bucket_of(now - at->arrived)], 1);
}

/* What a request asks for wrongly is the client's fault, but for what we made ourselves of its keys. */
void infer_count(struct infer *c, err e, bool made_by_us)
{
    int64_t now = mono_ns();
    add(&c->count->requests, 1);
    atomic_store_explicit(&c->count->last_us, c->now, memory_order_relaxed);
    if (e) {
        bool theirs = !made_by_us && (e->code == INVALID || e->code == TOO_LARGE || e->code == NOT_FOUND);
        add(theirs ? &c->count->refused : &c->count->failed, 1);
        add(&c->count->fail_ns, now - c->at.arrived);
        return;
    }
    add(&c->count->rows, (int64_t)c->n);
    add(&c->count->missing, missing_of(c));
    times_count(c->count, &c->at, now);
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
