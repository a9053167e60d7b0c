// SPDX-License-Identifier: Apache-2.0
/* What a request's headers ask for beside the answer: a trace to go on with, a report of the load. And the times of
 * the last traced requests. */
#include "serve/infer.h"
#include <stdlib.h>

enum { KEPT = 256, NAME_BYTES = 128 };

struct kept {
    char trace[TRACE_TEXT]; /* id, our span, flags */
    uint8_t parent[8];
    char project[NAME_BYTES], deployment[NAME_BYTES], version[NAME_BYTES];
    enum err_code error;
    int64_t arrived_us, ready, started, ran, ended; /* ns after arrival; 0: it did not come to that */
};
struct trace_log {
    _Atomic int64_t every; /* of the setting: its rate; while it is off, less than 0 */
    _Atomic uint64_t seen; /* requests without a trace, while it is on */
    pthread_mutex_t m;
    size_t n; /* kept so far; the newest is at (n - 1) % KEPT */
    struct kept v[KEPT];
};

struct trace_log *trace_log_new(void)
{
    struct trace_log *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    pthread_mutex_init(&l->m, NULL);
    l->every = -TRACE_RATE;
    return l;
}

void trace_log_free(struct trace_log *l)
{
    if (!l)
        return;
    pthread_mutex_destroy(&l->m);
    free(l);
}

void trace_setting_put(struct serve *s, struct trace_setting to)
{
    atomic_store(&s->traces->every, to.on ? to.rate : -to.rate);
}

struct trace_setting trace_setting_get(const struct serve *s)
{
    int64_t every = atomic_load(&s->traces->every);
    return (struct trace_setting){ every > 0, every > 0 ? every : -every };
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

static bool chosen(struct trace_log *l)
{
    int64_t every = atomic_load_explicit(&l->every, memory_order_relaxed);
    return every > 0 && atomic_fetch_add_explicit(&l->seen, 1, memory_order_relaxed) % (uint64_t)every == 0;
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
        if (!chosen(c->s->traces))
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
