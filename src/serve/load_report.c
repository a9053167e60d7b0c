// SPDX-License-Identifier: Apache-2.0
/* How busy the machine and the models are, for /metrics and for balancers that ask by header (ORCA). */
#include "serve/internal.h"
#include <stdlib.h>

enum { REFRESH_NS = 1000000000 };

struct load_meter {
    pthread_mutex_t m;
    int64_t at_ns; /* when it was measured; 0: not yet */
    int64_t busy, all, requests, failed;
    struct load_report last;
};

struct load_meter *load_meter_new(void)
{
    struct load_meter *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    pthread_mutex_init(&l->m, NULL);
    return l;
}

void load_meter_free(struct load_meter *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->m);
    free(l);
}

/* ---- measuring ---- */

/* /proc/stat, "cpu  user nice system idle iowait irq softirq steal …": ticks of all processors since the boot. */
static void cpu_read(struct arena *a, int64_t *busy, int64_t *all)
{
    struct str text, line, word;
    *busy = *all = 0;
    if (file_read(a, "/proc/stat", 1 << 20, &text) || !str_cut(&text, '\n', &line))
        return;
    for (int i = -1; i < 8 && str_cut(&line, ' ', &word);) {
        int64_t v;
        if (!word.n)
            continue;
        if (i >= 0 && str_i64(word, &v)) {
            *all += v;
            *busy += i == 3 || i == 4 ? 0 : v;
        }
        i++;
    }
}

/* "MemTotal:       24689764 kB" */
static int64_t memory_of(struct str text, struct str key)
{
    for (struct str line; str_cut(&text, '\n', &line);) {
        int64_t kib;
        if (str_starts(line, key) && str_ends(line, S(" kB")) &&
            str_i64(str_trim(str_sub(line, key.n, line.n - 3)), &kib))
            return kib * 1024;
    }
    return 0;
}

static void memory_read(struct arena *a, struct load_report *out)
{
    struct str text;
    if (file_read(a, "/proc/meminfo", 1 << 20, &text))
        return;
    out->memory_total = memory_of(text, S("MemTotal:"));
    out->memory_used = out->memory_total - memory_of(text, S("MemAvailable:"));
    out->memory = out->memory_total ? (double)out->memory_used / (double)out->memory_total : 0;
}

static void requests_read(const struct snap *snap, int64_t *requests, int64_t *failed, int64_t *in_flight)
{
    *requests = *failed = *in_flight = 0;
    for (size_t i = 0; i < snap->n; i++)
        for (size_t k = 0; k < snap->v[i].n; k++) {
            struct totals t;
            tally_sum(snap->v[i].v[k].tally, &t);
            *requests += t.requests;
            *failed += t.failed;
            *in_flight += t.in_flight;
        }
}

/* A version that was unloaded took its counts along: then nothing is said for a second. */
static double rate(int64_t now, int64_t before, int64_t ns)
{
    return now > before && ns > 0 ? (double)(now - before) * 1e9 / (double)ns : 0;
}

static void measure(struct load_meter *l, const struct snap *snap, int64_t now)
{
    auto_arena struct arena *a = arena_new(0);
    struct load_meter next = { .at_ns = now };
    struct load_report *r = &l->last;
    cpu_read(a, &next.busy, &next.all);
    requests_read(snap, &next.requests, &next.failed, &r->in_flight);
    memory_read(a, r);
    if (next.all > l->all)
        r->cpu = (double)(next.busy - l->busy) / (double)(next.all - l->all);
    r->rps = l->at_ns ? rate(next.requests, l->requests, now - l->at_ns) : 0;
    r->eps = l->at_ns ? rate(next.failed, l->failed, now - l->at_ns) : 0;
    l->at_ns = now;
    l->busy = next.busy;
    l->all = next.all;
    l->requests = next.requests;
    l->failed = next.failed;
}

void load_report_read(struct serve *s, const struct snap *snap, struct load_report *out)
{
    struct load_meter *l = s->meter;
    int64_t now = mono_ns();
    LOCKED(&l->m);
    if (!l->at_ns || now - l->at_ns >= REFRESH_NS)
        measure(l, snap, now);
    *out = l->last;
}

/* ---- telling ---- */

struct str load_report_text(struct arena *a, const struct load_report *r, struct str format)
{
    if (str_is(format, "text"))
        return fmt(a,
                   "TEXT cpu_utilization=%.4f, mem_utilization=%.4f, rps_fractional=%.2f, eps=%.2f, "
                   "named_metrics.in_flight=%lld",
                   r->cpu, r->memory, r->rps, r->eps, (long long)r->in_flight);
    if (str_is(format, "json"))
        return fmt(a,
                   "JSON {\"cpu_utilization\": %.4f, \"mem_utilization\": %.4f, \"rps_fractional\": %.2f, "
                   "\"eps\": %.2f, \"named_metrics\": {\"in_flight\": %lld}}",
                   r->cpu, r->memory, r->rps, r->eps, (long long)r->in_flight);
    return S("");
}
