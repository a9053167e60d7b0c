// SPDX-License-Identifier: Apache-2.0
/* What a request's headers ask for beside the answer: a trace to go on with, a report of the load. And the times of
 * the last traced requests. */
#include "serve/infer.h"
#include <stdlib.h>

enum { KEPT = 256, NAME_BYTES = 128, OWN_MAX = 4096 };

struct kept {
    char trace[TRACE_TEXT]; /* id, our span, flags */
    uint8_t parent[8];
    char project[NAME_BYTES], deployment[NAME_BYTES], version[NAME_BYTES];
    enum err_code error;
    int64_t arrived_us, ready, started, ran, ended; /* ns after arrival; 0: it did not come to that */
};
struct sampler {
    struct sampler *next;
    struct str project, name;
    _Atomic enum trace_level level;
    _Atomic int64_t rate, left;
    _Atomic uint64_t seen; /* requests without a trace, while it is on */
};
struct trace_log {
    struct sampler of_server;
    struct sampler *own; /* of deployments, in a; they stay. With serve.m held */
    size_t own_n;
    struct arena *a;
    pthread_mutex_t m;
    size_t n; /* kept so far; the newest is at (n - 1) % KEPT */
    struct kept v[KEPT];
};

const struct trace_setting trace_at_start = { TRACE_OFF, TRACE_RATE, TRACE_COUNT_ANY },
                           trace_inherited = { TRACE_INHERIT, 0, TRACE_COUNT_INHERIT };

static void sampler_set(struct sampler *x, struct trace_setting to)
{
    atomic_store(&x->level, to.level);
    atomic_store(&x->rate, to.rate);
    atomic_store(&x->left, to.count);
}

static struct trace_setting sampler_get(const struct sampler *x)
{
    return (struct trace_setting){ atomic_load(&x->level), atomic_load(&x->rate), atomic_load(&x->left) };
}

struct trace_log *trace_log_new(void)
{
    struct trace_log *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    pthread_mutex_init(&l->m, NULL);
    l->a = arena_new(0);
    sampler_set(&l->of_server, trace_at_start);
    return l;
}

void trace_log_free(struct trace_log *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->m);
    arena_free(l->a);
    free(l);
}

/* ---- settings ---- */

/* One that was of a deployment of that name before begins anew. */
static err sampler_new(struct trace_log *l, struct str project, struct str name, struct sampler **out)
{
    struct sampler *x = l->own;
    while (x && !(str_eq(x->project, project) && str_eq(x->name, name)))
        x = x->next;
    if (!x && l->own_n == OWN_MAX)
        FAIL(LIMIT, "%d deployments have trace settings of their own already", OWN_MAX);
    if (!x) {
        x = NEW(l->a, struct sampler);
        x->project = str_dup(l->a, project);
        x->name = str_dup(l->a, name);
        x->next = l->own;
        l->own = x;
        l->own_n++;
    }
    *out = x;
    return NULL;
}

err trace_setting_put(struct serve *s, struct str project, struct str name, struct trace_setting to)
{
    struct trace_log *l = s->traces;
    struct sampler *x = &l->of_server;
    LOCKED(&s->m);
    struct depl *d = name.n ? depl_find(s, project, name) : NULL;
    if (name.n && !d)
        return model_unknown(name);
    if (d && !d->now.sampler)
        TRY(sampler_new(l, project, name, &x));
    sampler_set(d && d->now.sampler ? d->now.sampler : x, to);
    if (d && !d->now.sampler) {
        d->now.sampler = x;
        snap_publish(s);
    }
    return NULL;
}

struct trace_setting trace_setting_own(struct serve *s, struct str project, struct str name)
{
    LOCKED(&s->m);
    const struct depl *d = name.n ? depl_find(s, project, name) : NULL;
    const struct sampler *x = name.n ? d ? d->now.sampler : NULL : &s->traces->of_server;
    return x ? sampler_get(x) : trace_inherited;
}

struct trace_setting trace_setting_now(struct serve *s, struct str project, struct str name)
{
    struct trace_setting all = sampler_get(&s->traces->of_server), own = trace_setting_own(s, project, name);
    return (struct trace_setting){ own.level ? own.level : all.level, own.rate ? own.rate : all.rate,
                                   own.count == TRACE_COUNT_INHERIT ? all.count : own.count };
}

/* ---- taking ---- */

struct asked_headers {
    struct str parent, state, load;
    size_t parents;
};

/* One look at the headers, by length first: requests have many, and few have these. */
static void headers_find(const struct req *r, struct asked_headers *out)
{
    for (size_t i = 0; i < r->headers_n; i++) {
        const struct header *h = &r->headers[i];
        if (h->name.n == 11 && str_is(h->name, "traceparent")) {
            out->parent = h->value;
            out->parents++;
        } else if (h->name.n == 10 && str_is(h->name, "tracestate")) {
            out->state = out->state.n ? fmt(r->a, "%.*s,%.*s", STR(out->state), STR(h->value)) : h->value;
        } else if (h->name.n == 28 && str_is(h->name, "endpoint-load-metrics-format")) {
            out->load = h->value;
        }
    }
}

/* One less to take, if there is a number of them. */
static bool count_down(struct sampler *x)
{
    int64_t left = atomic_load_explicit(&x->left, memory_order_relaxed);
    while (left > 0 && !atomic_compare_exchange_weak(&x->left, &left, left - 1))
        ;
    return left != 0;
}

static bool chosen(const struct infer *c)
{
    struct sampler *all = &c->s->traces->of_server, *own = c->entry->sampler;
    enum trace_level level = own ? atomic_load_explicit(&own->level, memory_order_relaxed) : TRACE_INHERIT;
    level = level ? level : atomic_load_explicit(&all->level, memory_order_relaxed);
    if (level != TRACE_ON)
        return false;
    int64_t rate = own ? atomic_load_explicit(&own->rate, memory_order_relaxed) : 0;
    bool rated = rate > 0, counted = own && atomic_load(&own->left) != TRACE_COUNT_INHERIT;
    rate = rated ? rate : atomic_load_explicit(&all->rate, memory_order_relaxed);
    uint64_t turn = atomic_fetch_add_explicit(&(rated ? own : all)->seen, 1, memory_order_relaxed);
    return turn % (uint64_t)rate == 0 && count_down(counted ? own : all);
}

void trace_take(struct infer *c)
{
    struct asked_headers h = { 0 };
    struct trace t;
    if (c->r)
        headers_find(c->r, &h);
    if (h.load.n) {
        struct load_report now;
        load_report_read(c->s, c->snap, &now);
        struct str text = load_report_text(c->a, &now, h.load);
        if (text.n)
            req_reply_header(c->r, "endpoint-load-metrics", text);
    }
    if (h.parents != 1 || !trace_parse(h.parent, h.state, &t)) {
        if (!chosen(c))
            return;
        trace_begin(&t);
    }
    struct trace *kept = NEW(c->a, struct trace);
    char *text = arena_alloc(c->a, TRACE_TEXT, 1);
    *kept = t;
    c->trace = kept;
    trace_text(kept, text);
    log_trace((struct str){ text + 3, TRACE_ID_TEXT });
    if (c->r)
        req_reply_header(c->r, "traceparent", (struct str){ text, TRACE_TEXT });
}

/* ---- keeping ---- */

static void name_copy(char to[NAME_BYTES], struct str s)
{
    size_t n = s.n < NAME_BYTES - 1 ? s.n : NAME_BYTES - 1;
    memcpy(to, s.p, n);
    to[n] = 0;
}

static int64_t after(const struct infer *c, int64_t ns)
{
    return ns ? ns - c->at.arrived : 0;
}

void trace_keep(const struct infer *c, err e, int64_t now)
{
    struct trace_log *l = c->s->traces;
    LOCKED(&l->m);
    struct kept *k = &l->v[l->n++ % KEPT];
    trace_text(c->trace, k->trace);
    memcpy(k->parent, c->trace->parent, sizeof k->parent);
    name_copy(k->project, c->entry->project);
    name_copy(k->deployment, c->entry->name);
    name_copy(k->version, c->to->model->name);
    k->error = e ? e->code : ERR_NONE;
    k->arrived_us = c->now;
    k->ready = after(c, c->at.ready);
    k->started = after(c, c->at.started);
    k->ran = after(c, c->at.ran);
    k->ended = after(c, now);
}

static void kept_write(struct json *j, const struct kept *k)
{
    static const uint8_t none[8];
    struct str text = { k->trace, TRACE_TEXT };
    json_obj(j);
    json_kstr(j, "trace", str_sub(text, 3, 35));
    json_kstr(j, "span", str_sub(text, 36, 52));
    if (memcmp(k->parent, none, sizeof none) != 0)
        json_kstr(j, "parent", hex(j->b.a, k->parent, sizeof k->parent));
    json_kstr(j, "project", str_of(k->project));
    json_kstr(j, "deployment", str_of(k->deployment));
    json_kstr(j, "version", str_of(k->version));
    if (k->error)
        json_kstr(j, "error", err_table[k->error].name);
    json_ki64(j, "arrived", k->arrived_us);
    json_ki64(j, "ready", k->ready);
    json_ki64(j, "started", k->started);
    json_ki64(j, "ran", k->ran);
    json_ki64(j, "ended", k->ended);
    json_obj_end(j);
}

void trace_recent(struct serve *s, struct str project, struct json *j)
{
    struct trace_log *l = s->traces;
    LOCKED(&l->m);
    json_arr(j);
    for (size_t i = 0; i < KEPT && i < l->n; i++) {
        const struct kept *k = &l->v[(l->n - 1 - i) % KEPT];
        if (project.n == 0 || str_eq(project, str_of(k->project)))
            kept_write(j, k);
    }
    json_arr_end(j);
}
