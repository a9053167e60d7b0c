// SPDX-License-Identifier: Apache-2.0
/* control: one thread that calls reconcilers. What is to be done is a set of tasks, at most one per
 * reconciler and object (and one more per event that tells something else than a change), ordered by
 * when they are due; a task that fails is due again after a growing pause. */
#include "api/internal.h"
#include <stdlib.h>

enum {
    PAUSE_MIN_MS = 100,
    PAUSE_MAX_MS = 30000,
    WAIT_MAX_MS = 500, /* a poke between the look at the tasks and the wait is late by this much at most */
    EVENTS_MAX = 1000,
    GONE_TRIES = 5, /* steps that fail for an object that is not there any more */
    STEP_BYTES_MAX = 1 << 30,
    LISTED = 1000,
};

struct task {
    struct task *next; /* of the same hash */
    size_t heap_at;
    const struct reconciler *rec;
    struct str kind, project, name;
    int64_t seq; /* of an event that is no change; 0: the object as such */
    int64_t due_ns;
    int64_t pause_ms; /* before the next try; 0: no failure yet */
    int tries;
    bool has_ev;
    bool running, again; /* poked or woken while its step runs */
    struct arena *ev_a;  /* holds ev's texts; NULL without one */
    struct event ev;
    char text[];
};

struct control {
    struct store *store;
    struct reconciler *list;
    size_t n;
    pthread_t thread;
    _Atomic bool stop;
    int64_t seen;      /* events up to here are tasks already; the thread's, once it runs */
    pthread_mutex_t m; /* of the tasks */
    struct task **slots;
    size_t slots_n;
    struct task **heap; /* the first is due first */
    size_t heap_n, heap_cap;
};

/* ---- the heap ---- */

static void heap_set(struct control *c, size_t i, struct task *t)
{
    c->heap[i] = t;
    t->heap_at = i;
}

static void heap_up(struct control *c, size_t i)
{
    struct task *t = c->heap[i];
    for (; i > 0 && c->heap[(i - 1) / 2]->due_ns > t->due_ns; i = (i - 1) / 2)
        heap_set(c, i, c->heap[(i - 1) / 2]);
    heap_set(c, i, t);
}

static void heap_down(struct control *c, size_t i)
{
    struct task *t = c->heap[i];
    for (size_t child; (child = 2 * i + 1) < c->heap_n; i = child) {
        if (child + 1 < c->heap_n && c->heap[child + 1]->due_ns < c->heap[child]->due_ns)
            child++;
        if (c->heap[child]->due_ns >= t->due_ns)
            break;
        heap_set(c, i, c->heap[child]);
    }
    heap_set(c, i, t);
}

static void *grown(void *p, size_t n, size_t size)
{
    void *q = reallocarray(p, n, size);
    if (!q)
        abort();
    return q;
}

static void heap_add(struct control *c, struct task *t)
{
    if (c->heap_n == c->heap_cap) {
        c->heap_cap = c->heap_cap ? c->heap_cap * 2 : 64;
        c->heap = grown(c->heap, c->heap_cap, sizeof(struct task *));
    }
    heap_set(c, c->heap_n++, t);
    heap_up(c, c->heap_n - 1);
}

static void heap_remove(struct control *c, struct task *t)
{
    size_t i = t->heap_at;
    struct task *last = c->heap[--c->heap_n];
    if (last == t)
        return;
    heap_set(c, i, last);
    heap_up(c, i);
    heap_down(c, last->heap_at);
}

static void task_due(struct control *c, struct task *t, int64_t due_ns)
{
    t->due_ns = due_ns;
    heap_up(c, t->heap_at);
    heap_down(c, t->heap_at);
}

/* ---- the set ---- */

static size_t task_slot(const struct control *c, const struct reconciler *rec, struct str kind,
                        struct str project, struct str name, int64_t seq)
{
    uint64_t h = hash64(kind) * 3 ^ hash64(project) * 5 ^ hash64(name) * 7 ^ (uint64_t)(rec - c->list) * 11 ^
                 (uint64_t)seq * 0x9e3779b97f4a7c15ull;
    return (h ^ h >> 29) & (c->slots_n - 1);
}

static void set_grow(struct control *c)
{
    struct task **old = c->slots;
    size_t old_n = c->slots_n;
    c->slots_n = old_n ? old_n * 2 : 256;
    c->slots = grown(NULL, c->slots_n, sizeof(struct task *));
    memset(c->slots, 0, c->slots_n * sizeof(struct task *));
    for (size_t i = 0; i < old_n; i++)
        for (struct task *t = old[i], *next; t; t = next) {
            next = t->next;
            size_t at = task_slot(c, t->rec, t->kind, t->project, t->name, t->seq);
            t->next = c->slots[at];
            c->slots[at] = t;
        }
    free(old);
}

static char *put(char *at, struct str from, struct str *to)
{
    memcpy(at, from.p ? from.p : "", from.n);
    *to = (struct str){ at, from.n };
    return at + from.n;
}

static struct task *task_get(struct control *c, const struct reconciler *rec, struct str kind,
                             struct str project, struct str name, int64_t seq)
{
    if (c->heap_n >= c->slots_n)
        set_grow(c);
    size_t at = task_slot(c, rec, kind, project, name, seq);
    for (struct task *t = c->slots[at]; t; t = t->next)
        if (t->rec == rec && t->seq == seq && str_eq(t->name, name) && str_eq(t->kind, kind) &&
            str_eq(t->project, project))
            return t;
    struct task *t = calloc(1, sizeof *t + kind.n + project.n + name.n + 1);
    if (!t)
        abort();
    t->rec = rec;
    t->seq = seq;
    put(put(put(t->text, kind, &t->kind), project, &t->project), name, &t->name);
    t->due_ns = INT64_MAX;
    t->next = c->slots[at];
    c->slots[at] = t;
    heap_add(c, t);
    return t;
}

static void task_event(struct task *t, const struct event *ev)
{
    arena_free(t->ev_a);
    t->ev_a = NULL;
    t->has_ev = ev != NULL;
    if (!ev)
        return;
    t->ev_a = arena_new(0);
    t->ev = *ev;
    struct str *texts[] = { &t->ev.type, &t->ev.kind, &t->ev.project, &t->ev.name, &t->ev.who, &t->ev.data };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        *texts[i] = str_dup(t->ev_a, *texts[i]);
}

static void task_free(struct control *c, struct task *t)
{
    struct task **at = &c->slots[task_slot(c, t->rec, t->kind, t->project, t->name, t->seq)];
    while (*at != t)
        at = &(*at)->next;
    *at = t->next;
    heap_remove(c, t);
    arena_free(t->ev_a);
    free(t);
}

/* ---- what makes tasks ---- */

static bool watches(const struct reconciler *rec, struct str kind)
{
    for (const char *const *k = rec->kinds; *k; k++)
        if (str_eq(str_of(*k), kind))
            return true;
    return false;
}

static bool is_change(struct str type)
{
    return str_is(type, "created") || str_is(type, "updated") || str_is(type, "status") ||
           str_is(type, "deleted");
}

/* Now, whatever pause it was in: its world changed. But a status is no reason to hurry after a failure: the
 * step that failed may have written it itself. */
static void task_wake(struct control *c, struct task *t, const struct event *ev)
{
    if (ev)
        task_event(t, ev);
    if (t->tries > 0 && !t->running && ev && str_is(ev->type, "status"))
        return;
    t->pause_ms = 0;
    t->tries = 0;
    if (t->running)
        t->again = true;
    else
        task_due(c, t, mono_ns());
}

static void on_event(struct control *c, const struct event *ev)
{
    int64_t seq = is_change(ev->type) ? 0 : ev->seq;
    LOCKED(&c->m);
    for (size_t i = 0; i < c->n; i++)
        if (watches(&c->list[i], ev->kind))
            task_wake(c, task_get(c, &c->list[i], ev->kind, ev->project, ev->name, seq), ev);
}

void control_poke(struct control *c, struct str kind, struct str project, struct str name)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->m);
    for (size_t i = 0; i < c->n; i++)
        if (watches(&c->list[i], kind))
            task_wake(c, task_get(c, &c->list[i], kind, project, name, 0), NULL);
    pthread_mutex_unlock(&c->m);
    store_wake(c->store);
}

/* Every object of the first kind of each reconciler, once. */
static err first_tasks_of(struct control *c, const struct reconciler *rec)
{
    auto_arena struct arena *a = arena_new(0);
    struct str kind = str_of(rec->kinds[0]), after = S("");
    char room[256];
    for (struct objects page = { .n = LISTED }; page.n == LISTED;) {
        TRY(object_list(c->store, a, kind, S(""), after, LISTED, &page));
        for (size_t i = 0; i < page.n; i++) {
            const struct object *o = &page.v[i];
            LOCKED(&c->m);
            task_wake(c, task_get(c, rec, o->kind, o->project, o->name, 0), NULL);
        }
        if (page.n) {
            const struct object *o = &page.v[page.n - 1];
            int n = snprintf(room, sizeof room, "%.*s/%.*s", STR(o->project), STR(o->name));
            after = (struct str){ room, (size_t)n };
            if (o->project.n == 0)
                after = str_sub(after, 1, after.n);
        }
        arena_reset(a);
    }
    return NULL;
}

/* ---- steps ---- */

static err step(struct control *c, struct arena *a, struct task *t, int64_t *again_ms, bool *gone)
{
    struct object o;
    err e = object_get(c->store, a, t->kind, t->project, t->name, &o);
    *gone = e && e->code == NOT_FOUND;
    if (e && !*gone)
        return e;
    if (*gone)
        o = (struct object){ .kind = str_dup(a, t->kind),
                             .project = str_dup(a, t->project),
                             .name = str_dup(a, t->name) };
    struct event *ev = NULL;
    struct arena *ev_a = NULL;
    struct event copy;
    pthread_mutex_lock(&c->m); /* an event that comes while the step runs replaces the task's */
    if (t->has_ev) {
        copy = t->ev;
        ev = &copy;
        ev_a = t->ev_a;
        t->ev_a = NULL;
        t->has_ev = false;
    }
    pthread_mutex_unlock(&c->m);
    e = t->rec->step(t->rec->self, a, &o, ev, again_ms);
    pthread_mutex_lock(&c->m);
    if (e && ev && !t->has_ev) { /* it is tried again with what woke it */
        t->ev = copy;
        t->ev_a = ev_a;
        t->has_ev = true;
        ev_a = NULL;
    }
    pthread_mutex_unlock(&c->m);
    arena_free(ev_a);
    return e;
}

static void step_failed(const struct task *t, err e)
{
    enum log_level level = e->code == CONFLICT ? LOG_DEBUG : LOG_WARN;
    struct kv_field f[] = { KV("reconciler", t->rec->name),
                            KV("kind", t->kind),
                            KV("project", t->project),
                            KV("name", t->name),
                            KV("try", (int64_t)t->tries),
                            KV("code", err_table[e->code].name),
                            KV("error", e->text) };
    log_write(level, "reconcile.failed", f, sizeof f / sizeof *f);
}

/* When it is due again; false: it is done. */
static bool task_next(struct task *t, err e, bool gone, int64_t again_ms, int64_t *wait_ms)
{
    if (!e) {
        t->pause_ms = 0;
        t->tries = 0;
        *wait_ms = t->again ? 0 : again_ms;
        return t->again || again_ms > 0;
    }
    t->tries++;
    t->pause_ms = t->pause_ms == 0                 ? PAUSE_MIN_MS
                  : t->pause_ms * 2 < PAUSE_MAX_MS ? t->pause_ms * 2
                                                   : PAUSE_MAX_MS;
    *wait_ms = t->again ? 0 : t->pause_ms;
    return t->again || !gone || t->tries < GONE_TRIES;
}

static void task_run(struct control *c, struct arena *a, struct task *t)
{
    int64_t again_ms = 0, wait_ms;
    bool gone;
    err e = step(c, a, t, &again_ms, &gone);
    if (e)
        step_failed(t, e);
    pthread_mutex_lock(&c->m);
    t->running = false;
    if (task_next(t, e, gone, again_ms, &wait_ms))
        task_due(c, t, mono_ns() + wait_ms * 1000000);
    else
        task_free(c, t);
    pthread_mutex_unlock(&c->m);
    arena_reset(a);
    err_reset();
}

/* The task that is due first, if now; how long until it is. */
static struct task *task_take(struct control *c, int64_t *wait_ms)
{
    LOCKED(&c->m);
    *wait_ms = WAIT_MAX_MS;
    if (c->heap_n == 0)
        return NULL;
    struct task *t = c->heap[0];
    int64_t left = t->due_ns - mono_ns();
    if (left > 0) {
        if (left / 1000000 + 1 < WAIT_MAX_MS)
            *wait_ms = left / 1000000 + 1;
        return NULL;
    }
    t->running = true;
    t->again = false;
    task_due(c, t, INT64_MAX);
    return t;
}

static err events_read(struct control *c, struct arena *a)
{
    int64_t last = event_last(c->store);
    if (last == c->seen)
        return NULL;
    struct events news;
    TRY(event_list(c->store, a, c->seen, S(""), S(""), S(""), EVENTS_MAX, &news));
    for (size_t i = 0; i < news.n; i++)
        on_event(c, &news.v[i]);
    c->seen = news.n ? news.v[news.n - 1].seq : last;
    arena_reset(a);
    return NULL;
}

static void control_turn(struct control *c, struct arena *a)
{
    int64_t wait_ms;
    err e = events_read(c, a);
    if (e) {
        log_err("events.unread", e);
        err_reset();
        event_wait(c->store, INT64_MAX - 1, PAUSE_MIN_MS);
    }
    struct task *t = task_take(c, &wait_ms);
    if (t)
        task_run(c, a, t);
    else
        event_wait(c->store, c->seen, wait_ms);
}

static void *control_main(void *arg)
{
    struct control *c = arg;
    auto_arena struct arena *a = arena_new(STEP_BYTES_MAX);
    for (size_t i = 0; i < c->n && !atomic_load(&c->stop); i++)
        for (err e; (e = first_tasks_of(c, &c->list[i])) && !atomic_load(&c->stop);) {
            log_err("objects.unread", e);
            err_reset();
            event_wait(c->store, INT64_MAX - 1, PAUSE_MIN_MS);
        }
    while (!atomic_load(&c->stop))
        control_turn(c, a);
    return NULL;
}

err control_start(struct store *store, const struct reconciler *list, size_t n, struct control **out)
{
    struct control *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->store = store;
    c->n = n;
    c->list = grown(NULL, n ? n : 1, sizeof *list);
    if (n)
        memcpy(c->list, list, n * sizeof *list);
    pthread_mutex_init(&c->m, NULL);
    c->seen = event_last(store); /* here: nothing that comes after the return is missed */
    *out = c;
    err e = thread_start("control", control_main, c, &c->thread);
    if (!e)
        return NULL;
    *out = NULL;
    pthread_mutex_destroy(&c->m);
    free(c->list);
    free(c);
    return e;
}

void control_stop(struct control *c)
{
    if (!c)
        return;
    atomic_store(&c->stop, true);
    store_wake(c->store);
    pthread_join(c->thread, NULL);
    while (c->heap_n)
        task_free(c, c->heap[0]);
    pthread_mutex_destroy(&c->m);
    free(c->slots);
    free(c->heap);
    free(c->list);
    free(c);
}
