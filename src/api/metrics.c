// SPDX-License-Identifier: Apache-2.0
/* metrics: requests by route, method and status, and how long they took, in Prometheus' text format.
 * Counting is a few relaxed additions in the part of the table that belongs to the core. */
#include "api/internal.h"
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#ifndef DHOW_VERSION
#define DHOW_VERSION "unknown"
#endif

enum { SHARDS = 8, BUCKETS = 14, STATUSES = 24 };
static const double bounds[BUCKETS] = { 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01,
                                        0.025,  0.05,    0.1,    0.25,  0.5,    1,     10 };
/* The last counts all others. */
static const int statuses[STATUSES] = { 200, 201, 202, 204, 206, 301, 302, 304, 400, 401, 403, 404,
                                        405, 408, 409, 413, 415, 422, 429, 499, 500, 501, 503, 0 };

struct counts {
    _Atomic uint64_t status[STATUSES], bucket[BUCKETS + 1], ns;
};
struct known {
    const struct route *route; /* NULL: no route has the path */
    size_t at;
};
struct metrics {
    size_t n;              /* routes, and one for none */
    struct known *known;   /* sorted by address */
    struct counts *counts; /* SHARDS times n */
};

static int known_cmp(const void *x, const void *y)
{
    uintptr_t a = (uintptr_t)((const struct known *)x)->route,
              b = (uintptr_t)((const struct known *)y)->route;
    return (a > b) - (a < b);
}

static void *zeroed(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        abort();
    return p;
}

struct metrics *metrics_new(const struct route *const *tables, size_t tables_n)
{
    struct metrics *m = zeroed(1, sizeof *m);
    m->n = 1;
    for (size_t i = 0; i < tables_n; i++)
        for (const struct route *r = tables[i]; r->path; r++)
            m->n++;
    m->known = zeroed(m->n, sizeof *m->known);
    m->counts = zeroed(m->n * SHARDS, sizeof *m->counts);
    size_t n = 1;
    for (size_t i = 0; i < tables_n; i++)
        for (const struct route *r = tables[i]; r->path; r++)
            m->known[n++].route = r;
    qsort(m->known, m->n, sizeof *m->known, known_cmp);
    for (size_t i = 0; i < m->n; i++)
        m->known[i].at = i;
    return m;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    free(m->known);
    free(m->counts);
    free(m);
}

static size_t status_at(int status)
{
    size_t i = 0;
    while (i < STATUSES - 1 && statuses[i] != status)
        i++;
    return i;
}

static size_t bucket_at(int64_t ns)
{
    size_t i = 0;
    while (i < BUCKETS && (double)ns > bounds[i] * 1e9)
        i++;
    return i;
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
    atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

void metrics_count(struct metrics *m, const struct route *route, int status, int64_t took_ns)
{
    const struct known *k = bsearch(&(struct known){ .route = route }, m->known, m->n, sizeof *k, known_cmp);
    int core = sched_getcpu();
    struct counts *c = &m->counts[(size_t)(core < 0 ? 0 : core % SHARDS) * m->n + (k ? k->at : 0)];
    add(&c->status[status_at(status)], 1);
    add(&c->bucket[bucket_at(took_ns)], 1);
    add(&c->ns, took_ns > 0 ? (uint64_t)took_ns : 0);
}

/* ---- writing ---- */

struct sum {
    uint64_t status[STATUSES], bucket[BUCKETS + 1], ns, n;
};

static struct sum sum_of(const struct metrics *m, size_t at)
{
    struct sum s = { 0 };
    for (size_t shard = 0; shard < SHARDS; shard++) {
        struct counts *c = &m->counts[shard * m->n + at];
        for (size_t i = 0; i < STATUSES; i++)
            s.status[i] += atomic_load_explicit(&c->status[i], memory_order_relaxed);
        for (size_t i = 0; i <= BUCKETS; i++)
            s.bucket[i] += atomic_load_explicit(&c->bucket[i], memory_order_relaxed);
        s.ns += atomic_load_explicit(&c->ns, memory_order_relaxed);
    }
    for (size_t i = 0; i <= BUCKETS; i++)
        s.n += s.bucket[i];
    return s;
}

static void labels(struct buf *out, const struct route *r)
{
    if (r)
        buf_fmt(out, "route=\"%s\",method=\"%.*s\"", r->path, STR(method_names[r->method]));
    else
        buf_fmt(out, "route=\"none\",method=\"any\"");
}

static void write_totals(const struct metrics *m, struct buf *out)
{
    buf_fmt(out,
            "# HELP dhow_http_requests_total Requests answered.\n# TYPE dhow_http_requests_total counter\n");
    for (size_t i = 0; i < m->n; i++) {
        struct sum s = sum_of(m, i);
        for (size_t k = 0; k < STATUSES; k++) {
            if (s.status[k] == 0)
                continue;
            buf_fmt(out, "dhow_http_requests_total{");
            labels(out, m->known[i].route);
            if (statuses[k])
                buf_fmt(out, ",status=\"%d\"} %llu\n", statuses[k], (unsigned long long)s.status[k]);
            else
                buf_fmt(out, ",status=\"other\"} %llu\n", (unsigned long long)s.status[k]);
        }
    }
}

static void write_histogram(const struct route *r, const struct sum *s, struct buf *out)
{
    static const char name[] = "dhow_http_request_duration_seconds";
    uint64_t below = 0;
    for (size_t i = 0; i <= BUCKETS; i++) {
        below += s->bucket[i];
        buf_fmt(out, "%s_bucket{", name);
        labels(out, r);
        if (i < BUCKETS)
            buf_fmt(out, ",le=\"%g\"} %llu\n", bounds[i], (unsigned long long)below);
        else
            buf_fmt(out, ",le=\"+Inf\"} %llu\n", (unsigned long long)below);
    }
    buf_fmt(out, "%s_sum{", name);
    labels(out, r);
    buf_fmt(out, "} %.9f\n%s_count{", (double)s->ns * 1e-9, name);
    labels(out, r);
    buf_fmt(out, "} %llu\n", (unsigned long long)s->n);
}

void metrics_write(struct metrics *m, struct buf *out)
{
    write_totals(m, out);
    buf_fmt(out, "# HELP dhow_http_request_duration_seconds Time from the request to its reply.\n"
                 "# TYPE dhow_http_request_duration_seconds histogram\n");
    for (size_t i = 0; i < m->n; i++) {
        struct sum s = sum_of(m, i);
        if (s.n)
            write_histogram(m->known[i].route, &s, out);
    }
}

static void figure(struct buf *out, const char *name, const char *type, const char *help, double v)
{
    buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n%s %.17g\n", name, help, name, type, name, v);
}

/* Without the lines that are about a project other than this one: their first label is project="…". */
static struct str lines_of(struct arena *a, struct str all, struct str project)
{
    const struct str start = S("{project=\""), mine = fmt(a, "{project=\"%.*s\"", STR(project));
    struct buf out = buf_new(a);
    for (struct str line; str_cut(&all, '\n', &line);) {
        struct str labels = str_sub(line, str_find(line, '{'), line.n);
        if (line.n && (!str_starts(labels, start) || str_starts(labels, mine)))
            buf_fmt(&out, "%.*s\n", STR(line));
    }
    return buf_get(&out);
}

/* ---- OpenMetrics ----
 * Collectors write the older text form, and behind a bucket an exemplar as OpenMetrics has it: " # {trace_id=…".
 * The older form leaves exemplars out. In OpenMetrics a counter's family is named without the _total of its
 * samples; one whose samples end otherwise (Triton's) is of the type `unknown`. */

static struct str without_exemplar(struct str line)
{
    const char *at = line.p[0] == '#' ? NULL : memmem(line.p, line.n, S(" # {").p, S(" # {").n);
    return at ? str_sub(line, 0, (size_t)(at - line.p)) : line;
}

static void comment_put(struct buf *out, struct str line)
{
    struct str hash, word, name;
    str_cut(&line, ' ', &hash);
    str_cut(&line, ' ', &word);
    str_cut(&line, ' ', &name);
    bool total = str_ends(name, S("_total"));
    if (str_is(word, "TYPE") && str_is(line, "counter") && !total)
        line = S("unknown");
    buf_fmt(out, "# %.*s %.*s %.*s\n", STR(word), STR(str_sub(name, 0, name.n - (total ? 6 : 0))), STR(line));
}

static struct str in_form(struct arena *a, struct str all, bool open)
{
    struct buf out = buf_new(a);
    (void)buf_room(&out, all.n + 16);
    for (struct str line; str_cut(&all, '\n', &line);) {
        if (line.n && open && line.p[0] == '#')
            comment_put(&out, line);
        else if (line.n)
            buf_fmt(&out, "%.*s\n", STR(open ? line : without_exemplar(line)));
    }
    buf_str(&out, open ? S("# EOF\n") : S(""));
    return buf_get(&out);
}

static bool wants_open(const struct req *r)
{
    struct str accept = req_header(r, S("accept")), name = S("application/openmetrics-text");
    return memmem(accept.p, accept.n, name.p, name.n) != NULL;
}

err metrics_get(struct req *r)
{
    struct api *api = place_of(r)->api;
    struct buf out = buf_new(r->a);
    struct collector list[COLLECTORS_MAX];
    pthread_mutex_lock(&api->m);
    size_t n = api->collectors_n;
    memcpy(list, api->collectors, n * sizeof *list);
    pthread_mutex_unlock(&api->m);
    metrics_write(api->metrics, &out);
    buf_fmt(&out, "# HELP dhow_build_info The build, always 1.\n# TYPE dhow_build_info gauge\n"
                  "dhow_build_info{version=\"" DHOW_VERSION "\"} 1\n");
    figure(&out, "dhow_uptime_seconds", "gauge", "Time since the start.",
           (double)(now_us() - api->started_us) * 1e-6);
    figure(&out, "process_start_time_seconds", "gauge", "When the process started.",
           (double)api->started_us * 1e-6);
    figure(&out, "process_resident_memory_bytes", "gauge", "Memory in use.", (double)rss_bytes());
    figure(&out, "process_cpu_seconds_total", "counter", "Processor time, user and system.",
           (double)clock() / CLOCKS_PER_SEC);
    figure(&out, "dhow_watchers", "gauge", "Clients that watch events.", (double)hub_watchers(api->hub));
    figure(&out, "dhow_events_total", "counter", "The newest event's seq.", (double)event_last(api->store));
    for (size_t i = 0; i < n; i++)
        list[i].collect(list[i].arg, &out);
    struct str text = buf_get(&out), project = req_who(r)->project;
    if (!str_is(project, "*"))
        text = lines_of(r->a, text, project);
    bool open = wants_open(r);
    return req_reply(r, 200,
                     open ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
                          : "text/plain; version=0.0.4; charset=utf-8",
                     in_form(r->a, text, open));
}
