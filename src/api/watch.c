// SPDX-License-Identifier: Apache-2.0
/* watch: the event log as server-sent events. One thread reads the log and feeds every client; a client
 * that comes with an old seq is first brought up to date by the worker that took its request. */
#include "api/internal.h"
#include <stdlib.h>

struct watcher {
    struct watcher *next;
    struct stream *stream;
    int64_t expires;                          /* of the token, µs */
    int64_t sent_ns;                          /* when something was sent last */
    int64_t seen;                             /* events up to here were sent before it joined */
    struct str kind, project, name, token_id; /* filters: "" matches all */
    char text[];
};

struct hub {
    struct api *api;
    pthread_t thread;
    bool runs;
    _Atomic bool stop;
    pthread_mutex_t m; /* of what follows */
    struct watcher *list;
    size_t n;
    int64_t seen; /* every watcher has been sent what came until here */
};

/* ---- what is sent ---- */

static void event_json(struct json *j, const struct event *ev)
{
    json_obj(j);
    json_ki64(j, "seq", ev->seq);
    json_kstr(j, "time", time_text(j->b.a, ev->time));
    json_kstr(j, "type", ev->type);
    json_kstr(j, "kind", ev->kind);
    json_kstr(j, "project", ev->project);
    json_kstr(j, "name", ev->name);
    json_kstr(j, "who", ev->who);
    json_kraw(j, "data", ev->data.n ? ev->data : S("{}"));
    json_obj_end(j);
}

static struct str event_text(struct arena *a, const struct event *ev)
{
    struct json j = json_new(a);
    event_json(&j, ev);
    return fmt(a, "id: %lld\nevent: %.*s\ndata: %.*s\n\n", (long long)ev->seq, STR(ev->type),
               STR(json_get(&j)));
}

static bool wants(const struct watcher *w, const struct event *ev)
{
    return (w->kind.n == 0 || str_eq(w->kind, ev->kind)) &&
           (w->project.n == 0 || str_eq(w->project, ev->project)) &&
           (w->name.n == 0 || str_eq(w->name, ev->name));
}

static bool send(struct watcher *w, struct str text)
{
    w->sent_ns = mono_ns();
    return stream_send(w->stream, text);
}

/* ---- the clients ---- */

static char *put(char *at, struct str from, struct str *to)
{
    memcpy(at, from.p ? from.p : "", from.n);
    *to = (struct str){ at, from.n };
    return at + from.n;
}

static struct watcher *watcher_new(struct str kind, struct str project, struct str name,
                                   const struct principal *who)
{
    struct watcher *w = calloc(1, sizeof *w + kind.n + project.n + name.n + who->token_id.n + 1);
    if (!w)
        abort();
    put(put(put(put(w->text, kind, &w->kind), project, &w->project), name, &w->name), who->token_id,
        &w->token_id);
    w->expires = who->expires;
    return w;
}

static void watcher_free(struct watcher *w)
{
    if (w->stream)
        stream_close(w->stream);
    free(w);
}

/* Drops those for which gone says so. */
static void hub_drop(struct hub *h, bool (*gone)(struct watcher *, void *arg), void *arg)
{
    for (struct watcher **at = &h->list; *at;) {
        struct watcher *w = *at;
        if (!gone(w, arg)) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        h->n--;
        watcher_free(w);
    }
}

struct sending {
    struct arena *a;
    const struct event *ev;
    struct str text; /* made once, for the first who wants it */
};

/* A token that is revoked takes its streams along. */
static bool send_gone(struct watcher *w, void *arg)
{
    struct sending *s = arg;
    if (str_is(s->ev->kind, "Token") && str_is(s->ev->type, "token.revoked") &&
        str_eq(s->ev->name, w->token_id))
        return true;
    if (s->ev->seq <= w->seen || !wants(w, s->ev))
        return false;
    if (s->text.n == 0)
        s->text = event_text(s->a, s->ev);
    return !send(w, s->text);
}

static bool idle_gone(struct watcher *w, void *arg)
{
    int64_t now = *(int64_t *)arg;
    if (!stream_open(w->stream) || now_us() >= w->expires)
        return true;
    return now - w->sent_ns >= HEARTBEAT_MS * 1000000ll && !send(w, S(": still here\n\n"));
}

/* ---- the thread ---- */

static err hub_feed(struct hub *h, struct arena *a)
{
    struct events news;
    TRY(event_list(h->api->store, a, h->seen, S(""), S(""), S(""), WATCH_BATCH, &news));
    LOCKED(&h->m);
    for (size_t i = 0; i < news.n; i++) {
        struct sending s = { .a = a, .ev = &news.v[i] };
        hub_drop(h, send_gone, &s);
        h->seen = news.v[i].seq;
    }
    return NULL;
}

static void hub_tend(struct hub *h)
{
    int64_t now = mono_ns();
    LOCKED(&h->m);
    hub_drop(h, idle_gone, &now);
}

static void *hub_main(void *arg)
{
    enum { TEND_MS = 1000 };
    struct hub *h = arg;
    auto_arena struct arena *a = arena_new(0);
    while (!atomic_load(&h->stop)) {
        int64_t seen = h->seen; /* only this thread writes it */
        if (event_wait(h->api->store, seen, TEND_MS) > seen) {
            err e = hub_feed(h, a);
            if (e)
                log_err("watch.failed", e);
        }
        hub_tend(h);
        health_tend(h->api);
        arena_reset(a);
        err_reset();
    }
    return NULL;
}

err hub_open(struct api *api, struct hub **out)
{
    struct hub *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->api = api;
    h->seen = event_last(api->store);
    pthread_mutex_init(&h->m, NULL);
    *out = h;
    TRY(thread_start("watch", hub_main, h, &h->thread));
    h->runs = true;
    return NULL;
}

static bool all_gone(struct watcher *w, void *arg)
{
    (void)w, (void)arg;
    return true;
}

void hub_close(struct hub *h)
{
    if (!h)
        return;
    atomic_store(&h->stop, true);
    store_wake(h->api->store);
    if (h->runs)
        pthread_join(h->thread, NULL);
    hub_drop(h, all_gone, NULL);
    pthread_mutex_destroy(&h->m);
    free(h);
}

size_t hub_watchers(struct hub *h)
{
    LOCKED(&h->m);
    return h->n;
}

/* ---- the requests ---- */

struct filter {
    struct str kind, project, name;
    int64_t after;
};

static err filter_read(struct req *r, struct api *api, struct filter *f)
{
    const struct principal *who = req_who(r);
    struct str text;
    *f = (struct filter){ .after = event_last(api->store) };
    if (req_query(r, S("kind"), &text) && text.n) {
        const struct resource *res = api_resource(api, text);
        f->kind = res ? str_of(res->kind) : text;
    }
    if (!str_is(who->project, "*"))
        f->project = who->project;
    if (req_query(r, S("project"), &text) && text.n) {
        TRY(auth_may(who, S("events.read"), text));
        TRY(project_exists(api->store, r->a, text));
        f->project = text;
    }
    if (req_query(r, S("name"), &text))
        f->name = text;
    TRY(query_i64(r, S("after"), 0, INT64_MAX, &f->after));
    text = req_header(r, S("last-event-id"));
    if (text.n && (!str_i64(text, &f->after) || f->after < 0))
        FAIL(INVALID, "Last-Event-ID is the seq of an event");
    if (f->after > event_last(api->store))
        f->after = event_last(api->store);
    return NULL;
}

/* Sends what came after f->after; up to where in *seen. */
static err catch_up(struct api *api, struct watcher *w, const struct filter *f, int64_t *seen, bool *behind)
{
    auto_arena struct arena *a = arena_new(0);
    struct events old;
    int64_t last = event_last(api->store);
    TRY(event_list(api->store, a, *seen, f->kind, f->project, f->name, WATCH_BATCH, &old));
    for (size_t i = 0; i < old.n; i++) {
        if (!send(w, event_text(a, &old.v[i])))
            FAIL(CANCELLED, "the client left");
        *seen = old.v[i].seq;
    }
    *behind = old.n == WATCH_BATCH;
    if (!*behind && last > *seen)
        *seen = last;
    return NULL;
}

/* Joins the others once it has been sent exactly what they have. */
static err join(struct hub *h, struct watcher *w, const struct filter *f)
{
    int64_t seen = f->after;
    for (bool behind = true; behind;)
        TRY(catch_up(h->api, w, f, &seen, &behind));
    LOCKED(&h->m);
    while (seen < h->seen) {
        bool behind;
        TRY(catch_up(h->api, w, f, &seen, &behind));
    }
    if (h->n >= WATCHERS_MAX)
        FAIL(LIMIT, "there are %d watchers already", WATCHERS_MAX);
    w->seen = seen;
    w->next = h->list;
    h->list = w;
    h->n++;
    return NULL;
}

err watch_get(struct req *r)
{
    struct api *api = place_of(r)->api;
    struct filter f;
    TRY(filter_read(r, api, &f));
    if (hub_watchers(api->hub) >= WATCHERS_MAX)
        FAIL(LIMIT, "there are %d watchers already", WATCHERS_MAX);
    struct watcher *w = watcher_new(f.kind, f.project, f.name, req_who(r));
    req_reply_header(r, "Cache-Control", S("no-store"));
    err e = req_stream(r, 200, "text/event-stream", &w->stream);
    if (e) {
        w->stream = NULL;
        watcher_free(w);
        return e;
    }
    send(w, S(": watching\nretry: 1000\n\n"));
    if (join(api->hub, w, &(struct filter){ w->kind, w->project, w->name, f.after }))
        watcher_free(w); /* the reply has begun: all that is left is to end it */
    return NULL;
}

err events_get(struct req *r)
{
    struct api *api = place_of(r)->api;
    struct filter f;
    struct events list;
    int64_t limit = LIST_DEFAULT, after = 0;
    TRY(filter_read(r, api, &f));
    TRY(query_i64(r, S("limit"), 1, LIST_MAX, &limit));
    TRY(query_i64(r, S("after"), 0, INT64_MAX, &after));
    TRY(event_list(api->store, r->a, after, f.kind, f.project, f.name, (size_t)limit, &list));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_key(&j, S("items"));
    json_arr(&j);
    for (size_t i = 0; i < list.n; i++)
        event_json(&j, &list.v[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}
