// SPDX-License-Identifier: Apache-2.0
/* Counts of each version, and what /metrics says of them. */
#include "serve/infer.h"

const int64_t bucket_us[BUCKETS] = { 5,      10,     25,      50,      100,      250,      500,
                                     1000,   2500,   5000,    10000,   25000,    50000,    100000,
                                     250000, 500000, 1000000, 2500000, 10000000, INT64_MAX };

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
        for (size_t p = 0; p < PHASES; p++)
            for (size_t k = 0; k < BUCKETS; k++)
                out->buckets[p][k] += atomic_load_explicit(&s->buckets[p][k], memory_order_relaxed);
    }
}

/* ---- counting ---- */

static void add(_Atomic int64_t *to, int64_t v)
{
    if (v)
        atomic_fetch_add_explicit(to, v, memory_order_relaxed);
}

static size_t bucket_of(int64_t ns)
{
    size_t i = 0;
    while (i + 1 < BUCKETS && ns > bucket_us[i] * 1000)
        i++;
    return i;
}

/* A phase that a request did not pass has no end, and took nothing. */
static void time_count(struct stripe *to, enum phase phase, _Atomic int64_t *sum, int64_t from, int64_t till)
{
    int64_t ns = till > from ? till - from : 0;
    add(sum, ns);
    add(&to->buckets[phase][bucket_of(ns)], 1);
}

static void times_count(struct stripe *to, const struct infer_times *at, int64_t now)
{
    time_count(to, PHASE_ALL, &to->took_ns, at->arrived, now);
    time_count(to, PHASE_INPUT, &to->input_ns, at->arrived, at->ready);
    time_count(to, PHASE_QUEUE, &to->queue_ns, at->ready, at->started);
    time_count(to, PHASE_INFER, &to->infer_ns, at->started, at->ran);
    time_count(to, PHASE_OUTPUT, &to->output_ns, at->ran ? at->ran : at->ready, now);
}

/* Whoever finds it busy leaves it to the other. */
static void exemplar_set(struct infer *c, int64_t took_ns)
{
    struct exemplar *x = &c->to->tally->exemplars[bucket_of(took_ns)];
    if (atomic_flag_test_and_set_explicit(&x->busy, memory_order_acquire))
        return;
    trace_id_text(c->trace, x->id);
    x->took_ns = took_ns;
    x->at_us = c->now;
    atomic_flag_clear_explicit(&x->busy, memory_order_release);
}

static _Atomic int64_t *reason_of(struct infer *c, err e)
{
    switch (e->code) {
    case LIMIT:
    case BUSY:
    case TIMEOUT:
    case UNAVAILABLE:
        return &c->count->rejected;
    case CANCELLED:
        return &c->count->canceled;
    default:
        return c->at.started ? &c->count->backend : &c->count->other;
    }
}

/* What a request asks for wrongly is the client's fault, but for what we made ourselves of its keys. */
static void failure_count(struct infer *c, err e, bool made_by_us, int64_t now)
{
    bool theirs = e->code == LIMIT ||
                  (!made_by_us && (e->code == INVALID || e->code == TOO_LARGE || e->code == NOT_FOUND));
    add(theirs ? &c->count->refused : &c->count->failed, 1);
    add(reason_of(c, e), 1);
    add(&c->count->fail_ns, now - c->at.arrived);
}

void infer_arrive(struct infer *c)
{
    c->count = &c->to->tally->stripe[c->slot % STRIPES];
    add(&c->count->in_flight, 1);
}

void infer_count(struct infer *c, err e, bool made_by_us)
{
    int64_t now = mono_ns();
    add(&c->count->requests, 1);
    add(&c->count->in_flight, -1);
    atomic_store_explicit(&c->count->last_us, c->now, memory_order_relaxed);
    if (e) {
        failure_count(c, e, made_by_us, now);
    } else {
        add(&c->count->rows, (int64_t)c->n);
        add(&c->count->missing, c->missing);
        times_count(c->count, &c->at, now);
    }
    if (c->trace && c->trace->sampled) {
        if (!e)
            exemplar_set(c, now - c->at.arrived);
        trace_keep(c, e, now);
    }
    struct request_sink *sink = atomic_load_explicit(&c->to->tally->sink, memory_order_acquire);
    if (sink)
        request_log_take(c, sink, e, now);
}

/* ---- /metrics ---- */

/* Both families of names say the same: ours with the deployment, Triton's with `model`. Project comes first: by it
 * the lines are told apart for those who may see one project alone. */
struct counter {
    const char *name, *type, *doc;
    size_t offset; /* in struct totals */
    int64_t
        unit; /* what the count is divided by; of nanoseconds that are to be seconds, NS: with their fractions */
    const char *more; /* a further label; may be NULL */
};
enum { NS = 1000000000 };
#define AT(member) offsetof(struct totals, member)
// clang-format off
static const struct counter counters[] = {
    { "dhow_inference_requests_total", "counter", "Requests that reached a version.", AT(requests), 1, NULL },
    { "dhow_inference_failures_total", "counter", "Requests that a version failed.", AT(failed), 1, NULL },
    { "dhow_inference_refused_total", "counter", "Requests refused for what was in them.", AT(refused), 1, NULL },
    { "dhow_inference_rows_total", "counter", "Rows answered.", AT(rows), 1, NULL },
    { "dhow_inference_missing_features_total", "counter", "Features looked up by key that have no value.", AT(missing), 1, NULL },
    { "dhow_inference_executions_total", "counter", "Runs of the model.", AT(executions), 1, NULL },
    { "dhow_inference_in_flight", "gauge", "Requests at work now.", AT(in_flight), 1, NULL },
    { "dhow_inference_shed_total", "counter", "Requests refused because the queue was full.", AT(shed), 1, NULL },
    { "dhow_inference_expired_total", "counter", "Requests given up because their time in the queue was over.", AT(expired), 1, NULL },
    { "dhow_inference_gone_total", "counter", "Requests given up because their client had left.", AT(gone), 1, NULL },
    { "dhow_inference_cold_starts_total", "counter", "Requests that woke a deployment.", AT(cold_starts), 1, NULL },
    { "dhow_inference_cold_start_seconds_total", "counter", "Time until these were answered.", AT(cold_ns), NS, NULL },
    { "dhow_inference_logged_total", "counter", "Requests taken for the request log.", AT(logged), 1, NULL },
    { "dhow_inference_unlogged_total", "counter", "Requests that the request log had no room for.", AT(unlogged), 1, NULL },
    { "nv_inference_request_success", "counter", "Requests answered.", 0, 1, NULL },
    { "nv_inference_request_failure", "counter", "Requests not answered, by reason.", AT(rejected), 1, "reason=\"REJECTED\"" },
    { "nv_inference_request_failure", "counter", "", AT(canceled), 1, "reason=\"CANCELED\"" },
    { "nv_inference_request_failure", "counter", "", AT(backend), 1, "reason=\"BACKEND\"" },
    { "nv_inference_request_failure", "counter", "", AT(other), 1, "reason=\"OTHER\"" },
    { "nv_inference_count", "counter", "Rows answered.", AT(rows), 1, NULL },
    { "nv_inference_exec_count", "counter", "Runs of the model.", AT(executions), 1, NULL },
    { "nv_inference_pending_request_count", "gauge", "Requests that wait for their turn.", AT(pending), 1, NULL },
    { "nv_inference_request_duration_us", "counter", "Time of requests.", AT(took_ns), 1000, NULL },
    { "nv_inference_queue_duration_us", "counter", "Time of requests in the queue.", AT(queue_ns), 1000, NULL },
    { "nv_inference_compute_input_duration_us", "counter", "Time for inputs.", AT(input_ns), 1000, NULL },
    { "nv_inference_compute_infer_duration_us", "counter", "Time of runs.", AT(infer_ns), 1000, NULL },
    { "nv_inference_compute_output_duration_us", "counter", "Time for outputs.", AT(output_ns), 1000, NULL },
    { "nv_cache_num_hits_per_model", "counter", "Requests answered from the cache.", AT(cache_hits), 1, NULL },
    { "nv_cache_num_misses_per_model", "counter", "Requests looked for in the cache in vain.", AT(cache_misses), 1, NULL },
    { "nv_cache_hit_duration_per_model", "counter", "Time of answers from the cache, us.", AT(hit_ns), 1000, NULL },
    { "nv_cache_miss_duration_per_model", "counter", "Time of looking and keeping, us.", AT(miss_ns), 1000, NULL },
};
static const struct histogram {
    enum phase phase;
    size_t sum; /* in struct totals */
    const char *name, *doc, *summary;
} histograms[] = {
    { PHASE_ALL, AT(took_ns), "dhow_inference_seconds", "Time from the parsed request to its reply.", "nv_inference_request_summary_us" },
    { PHASE_QUEUE, AT(queue_ns), "dhow_inference_queue_seconds", "The part of it in the queue.", "nv_inference_queue_summary_us" },
    { PHASE_INPUT, AT(input_ns), "dhow_inference_input_seconds", "The part of it for inputs.", "nv_inference_compute_input_summary_us" },
    { PHASE_INFER, AT(infer_ns), "dhow_inference_compute_seconds", "The part of it that the model ran.", "nv_inference_compute_infer_summary_us" },
    { PHASE_OUTPUT, AT(output_ns), "dhow_inference_output_seconds", "The part of it for outputs.", "nv_inference_compute_output_summary_us" },
};
// clang-format on
enum { HISTOGRAMS = sizeof histograms / sizeof *histograms };

struct line {
    const struct entry *e;
    const struct served *v;
    struct totals t;
};

/* "name{project=…,version=…" without the end. */
static void labels_put(struct buf *out, const char *name, const struct entry *e, struct str number)
{
    buf_fmt(out, "%s{project=\"%.*s\",%s=\"%.*s\",version=\"%.*s\"", name, STR(e->project),
            name[0] == 'n' ? "model" : "deployment", STR(e->name), STR(number));
}

static void line_begin(struct buf *out, const char *name, const struct line *l)
{
    labels_put(out, name, l->e, l->v->model->number);
}

static void head_put(struct buf *out, const char *name, const char *type, const char *doc)
{
    buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", name, doc, name, type);
}

static int64_t member(const struct line *l, size_t offset)
{
    return *(const int64_t *)((const char *)&l->t + offset);
}

static void counter_put(struct buf *out, const struct line *v, size_t n, const struct counter *c)
{
    bool success = strcmp(c->name, "nv_inference_request_success") == 0;
    if (*c->doc)
        head_put(out, c->name, c->type, c->doc);
    for (size_t i = 0; i < n; i++) {
        int64_t x = success ? v[i].t.requests - v[i].t.failed - v[i].t.refused : member(&v[i], c->offset);
        line_begin(out, c->name, &v[i]);
        buf_fmt(out, "%s%s} ", c->more ? "," : "", c->more ? c->more : "");
        if (c->unit == NS)
            buf_fmt(out, "%.9g\n", (double)x / NS);
        else
            buf_fmt(out, "%lld\n", (long long)(x / c->unit));
    }
}

/* As OpenMetrics writes it; who serves the text in the older form leaves it out (api). */
static void exemplar_put(struct buf *out, struct exemplar *x)
{
    while (atomic_flag_test_and_set_explicit(&x->busy, memory_order_acquire))
        ;
    struct exemplar it = { .took_ns = x->took_ns, .at_us = x->at_us };
    memcpy(it.id, x->id, sizeof it.id);
    atomic_flag_clear_explicit(&x->busy, memory_order_release);
    if (it.at_us)
        buf_fmt(out, " # {trace_id=\"%.*s\"} %.9g %.6f", TRACE_ID_TEXT, it.id, (double)it.took_ns / 1e9,
                (double)it.at_us / 1e6);
}

static void histogram_put(struct buf *out, const struct line *l, const struct histogram *h)
{
    int64_t n = 0;
    char name[64];
    for (size_t i = 0; i < BUCKETS; i++) {
        n += l->t.buckets[h->phase][i];
        snprintf(name, sizeof name, "%s_bucket", h->name);
        line_begin(out, name, l);
        if (i + 1 < BUCKETS)
            buf_fmt(out, ",le=\"%g\"} %lld", (double)bucket_us[i] / 1e6, (long long)n);
        else
            buf_fmt(out, ",le=\"+Inf\"} %lld", (long long)n);
        if (h->phase == PHASE_ALL)
            exemplar_put(out, &l->v->tally->exemplars[i]);
        buf_str(out, S("\n"));
    }
    snprintf(name, sizeof name, "%s_sum", h->name);
    line_begin(out, name, l);
    buf_fmt(out, "} %.9g\n", (double)member(l, h->sum) / 1e9);
    snprintf(name, sizeof name, "%s_count", h->name);
    line_begin(out, name, l);
    buf_fmt(out, "} %lld\n", (long long)n);
}

/* In its bucket a quantile lies as if the times in there were spread evenly; the last bucket gives its lower end. */
static double quantile_us(const int64_t *buckets, int64_t n, double q)
{
    double left = q * (double)n;
    for (size_t i = 0; n && i < BUCKETS; i++) {
        double low = i ? (double)bucket_us[i - 1] : 0;
        if (left <= (double)buckets[i] && buckets[i])
            return i + 1 < BUCKETS ? low + ((double)bucket_us[i] - low) * left / (double)buckets[i] : low;
        left -= (double)buckets[i];
    }
    return NAN;
}

static void summary_put(struct buf *out, const struct line *l, const struct histogram *h)
{
    static const double at[] = { .5, .9, .95, .99, .999 };
    int64_t n = 0;
    char name[64];
    for (size_t i = 0; i < BUCKETS; i++)
        n += l->t.buckets[h->phase][i];
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        double us = quantile_us(l->t.buckets[h->phase], n, at[i]);
        line_begin(out, h->summary, l);
        if (isnan(us))
            buf_fmt(out, ",quantile=\"%g\"} NaN\n", at[i]);
        else
            buf_fmt(out, ",quantile=\"%g\"} %.1f\n", at[i], us);
    }
    snprintf(name, sizeof name, "%s_sum", h->summary);
    line_begin(out, name, l);
    buf_fmt(out, "} %lld\n", (long long)(member(l, h->sum) / 1000));
    snprintf(name, sizeof name, "%s_count", h->summary);
    line_begin(out, name, l);
    buf_fmt(out, "} %lld\n", (long long)n);
}

/* ---- shadows and A/B tests: a line for a deployment that has one ---- */

static const struct {
    const char *name, *doc;
    size_t offset; /* in struct shadow_status */
} of_shadows[] = {
    { "dhow_shadow_requests_total", "Copies that the shadow answered.",
      offsetof(struct shadow_status, requests) },
    { "dhow_shadow_failures_total", "Copies that it could not answer.",
      offsetof(struct shadow_status, failed) },
    { "dhow_shadow_dropped_total", "Copies left out because too many waited.",
      offsetof(struct shadow_status, dropped) },
    { "dhow_shadow_rows_total", "Rows compared.", offsetof(struct shadow_status, rows) },
    { "dhow_shadow_rows_different_total", "Those of them that differ by more than the tolerance.",
      offsetof(struct shadow_status, differ) },
};
enum { OF_SHADOWS = sizeof of_shadows / sizeof *of_shadows };

static struct str number_of(const struct entry *e, struct str version)
{
    for (size_t i = 0; i < e->n; i++)
        if (str_eq(e->v[i].model->name, version))
            return e->v[i].model->number;
    return version;
}

static void shadows_put(const struct snap *snap, struct buf *out)
{
    struct shadow_status *v = NEW_N(out->a, struct shadow_status, snap->n + 1);
    for (size_t i = 0; i < snap->n; i++)
        if (snap->v[i].mirror)
            mirror_status(snap->v[i].mirror, out->a, &v[i]);
    for (size_t k = 0; k < OF_SHADOWS; k++) {
        head_put(out, of_shadows[k].name, "counter", of_shadows[k].doc);
        for (size_t i = 0; i < snap->n; i++) {
            if (!snap->v[i].mirror)
                continue;
            labels_put(out, of_shadows[k].name, &snap->v[i], number_of(&snap->v[i], v[i].version));
            buf_fmt(out, "} %lld\n",
                    (long long)*(const int64_t *)((const char *)&v[i] + of_shadows[k].offset));
        }
    }
}

static void contests_put(const struct snap *snap, struct buf *out)
{
    static const char name[] = "dhow_ab_outcomes_total";
    head_put(out, name, "counter", "Outcomes that the A/B test knows of a version.");
    for (size_t i = 0; i < snap->n; i++) {
        const struct entry *e = &snap->v[i];
        struct ab_status s = { 0 };
        if (!e->contest)
            continue;
        contest_status(e->contest, out->a, &s);
        labels_put(out, name, e, number_of(e, s.a.version));
        buf_fmt(out, "} %lld\n", (long long)s.a.n);
        labels_put(out, name, e, number_of(e, s.b.version));
        buf_fmt(out, "} %lld\n", (long long)s.b.n);
    }
}

static void machine_put(struct serve *s, const struct snap *snap, struct buf *out)
{
    struct load_report now;
    load_report_read(s, snap, &now);
    head_put(out, "nv_cpu_utilization", "gauge", "Share of the machine's processors at work, 0 to 1.");
    buf_fmt(out, "nv_cpu_utilization %.4f\n", now.cpu);
    head_put(out, "nv_cpu_memory_total_bytes", "gauge", "Memory of the machine.");
    buf_fmt(out, "nv_cpu_memory_total_bytes %lld\n", (long long)now.memory_total);
    head_put(out, "nv_cpu_memory_used_bytes", "gauge", "Memory of the machine that is in use.");
    buf_fmt(out, "nv_cpu_memory_used_bytes %lld\n", (long long)now.memory_used);
}

static size_t lines_make(struct arena *a, const struct snap *snap, struct line **out)
{
    size_t n = 0, at = 0;
    for (size_t i = 0; i < snap->n; i++)
        n += snap->v[i].n;
    struct line *v = NEW_N(a, struct line, n + 1);
    for (size_t i = 0; i < snap->n; i++)
        for (size_t k = 0; k < snap->v[i].n; k++, at++) {
            v[at].e = &snap->v[i];
            v[at].v = &snap->v[i].v[k];
            tally_sum(v[at].v->tally, &v[at].t);
        }
    *out = v;
    return n;
}

void serve_metrics(void *arg, struct buf *out)
{
    struct serve *s = arg;
    unsigned slot;
    struct line *v;
    const struct snap *snap = snap_enter(s, &slot);
    size_t n = lines_make(out->a, snap, &v);
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        counter_put(out, v, n, &counters[i]);
    for (size_t h = 0; h < HISTOGRAMS; h++) {
        head_put(out, histograms[h].name, "histogram", histograms[h].doc);
        for (size_t i = 0; i < n; i++)
            histogram_put(out, &v[i], &histograms[h]);
    }
    for (size_t h = 0; h < HISTOGRAMS; h++) {
        head_put(out, histograms[h].summary, "summary", "Quantiles since the start.");
        for (size_t i = 0; i < n; i++)
            summary_put(out, &v[i], &histograms[h]);
    }
    head_put(out, "dhow_models_loaded", "gauge", "Versions in memory that answer or stand by.");
    buf_fmt(out, "dhow_models_loaded %zu\n", n);
    shadows_put(snap, out);
    contests_put(snap, out);
    machine_put(s, snap, out);
    snap_leave(s, slot);
    lookups_put(s, out);
}
