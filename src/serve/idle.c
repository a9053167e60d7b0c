// SPDX-License-Identifier: Apache-2.0
/* Unloaded deployments: those that slept in wake for the next request, suspended ones when they are told to. Waking does
 * not ask the control loop: the request has the versions loaded that were wanted last, the loader lets it go on. */
#include "serve/infer.h"

/* ---- those that wait ---- */

void waiters_join(struct infer **to, struct infer *more)
{
    while (*to)
        to = &(*to)->next;
    *to = more;
}

struct infer *waiters_take(struct depl *d)
{
    struct infer *all = d->waiters;
    d->waiters = d->waiters_last = NULL;
    d->waiters_n = 0;
    return all;
}

/* The first one's time is what a client meets when it wakes the deployment. */
static void cold_start_note(struct serve *s, struct str project, struct str name, int64_t took_ns)
{
    LOCKED(&s->m);
    struct depl *d = depl_find(s, project, name);
    if (!d || !d->now.n)
        return;
    d->cold_starts++;
    d->cold_ns = took_ns;
    struct stripe *count = &d->now.v[0].tally->stripe[0];
    atomic_fetch_add_explicit(&count->cold_starts, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&count->cold_ns, took_ns, memory_order_relaxed);
}

static void woke_go(struct serve *s, struct infer *c)
{
    auto_arena struct arena *a = arena_new(0); /* c's is gone with its answer */
    struct str project = str_dup(a, c->project), name = str_dup(a, c->wakes);
    int64_t arrived = c->at.arrived;
    infer_again(c);
    cold_start_note(s, project, name, mono_ns() - arrived);
}

void waiters_go(struct serve *s, struct infer *c)
{
    for (struct infer *next; c; c = next) {
        next = c->next;
        if (c->woke)
            woke_go(s, c);
        else
            infer_again(c);
        err_reset();
    }
}

struct going {
    struct serve *s;
    struct infer *all;
};

static void going_run(void *arg)
{
    struct going *g = arg;
    waiters_go(g->s, g->all); /* g is in the arena of one of them */
}

void waiters_push(struct serve *s, struct infer *all)
{
    if (!all)
        return;
    struct going *g = NEW(all->a, struct going);
    *g = (struct going){ s, all };
    if (!lane_push(s->lane, going_run, g))
        waiters_go(s, all);
}

/* ---- waking ---- */

static bool loading(const struct depl *d)
{
    for (size_t i = 0; i < d->wanted_n; i++)
        if (d->wanted[i].model && d->wanted[i].model->state == MODEL_LOADING)
            return true;
    return false;
}

struct infer *depl_wake(struct serve *s, struct depl *d)
{
    auto_arena struct arena *a = arena_new(0);
    d->asleep = false;
    d->waking = true;
    d->awake_us = now_us();
    for (size_t i = 0; i < d->wanted_n; i++)
        if (!d->wanted[i].refused && !d->wanted[i].model)
            d->wanted[i].model = model_want(s, d->project, d->wanted[i].version, &d->spec);
    control_poke(s->control, S("Deployment"), d->project, d->name);
    return loading(d) ? NULL : depl_publish(s, a, d, NULL); /* it may be in memory for another deployment */
}

static err wait_in(struct serve *s, struct infer *c, struct infer **go)
{
    LOCKED(&s->m);
    struct depl *d = depl_find(s, c->project, c->wakes);
    bool open = !d || (!d->asleep && !d->waking);
    if (!open && d->waiters_n == WAITERS_MAX)
        return err_hint(err_new(UNAVAILABLE, "'%.*s' is being loaded, and %d requests wait for it",
                                STR(str_sub(c->wakes, 0, 64)), WAITERS_MAX),
                        "try again in a second");
    c->next = NULL;
    if (!c->waits)
        req_later(c->r);
    c->waits = true;
    if (open) {
        *go = c;
        return NULL;
    }
    c->woke = d->asleep;
    *(d->waiters_last ? &d->waiters_last->next : &d->waiters) = c;
    d->waiters_last = c;
    d->waiters_n++;
    *go = d->asleep ? depl_wake(s, d) : NULL;
    return NULL;
}

err wake_wait(struct infer *c)
{
    struct serve *s = c->s;
    struct infer *go = NULL;
    err e = wait_in(s, c, &go);
    if (e && c->waits) {
        req_done(c->r, e);
        return NULL;
    }
    waiters_go(s, go);
    return e;
}

/* ---- suspending ---- */

struct suspending {
    struct str who, project, name, request_id;
    bool suspended;
};

static err suspend_tx(struct tx *tx, void *arg)
{
    const struct suspending *b = arg;
    struct arena *a = tx_arena(tx);
    struct deployment_spec spec;
    struct object o;
    bool changed;
    TRY(resource_get_tx(tx, a, &deployment_resource, b->project, b->name, NULL, &spec, NULL));
    TRY(object_get_tx(tx, a, S("Deployment"), b->project, b->name, &o));
    spec.suspended = b->suspended;
    o.spec = schema_text(&deployment_spec_schema, a, &spec, WRITE_SECRETS | WRITE_PERSONAL);
    TRY(object_put(tx, b->who, &o, -1, NULL, &changed));
    return audit_append(tx, &(struct audit_entry){ .who = b->who,
                                                   .action = b->suspended ? S("deployments.suspend")
                                                                          : S("deployments.resume"),
                                                   .project = b->project,
                                                   .kind = S("Deployment"),
                                                   .name = b->name,
                                                   .outcome = S("ok"),
                                                   .request_id = b->request_id });
}

/* *done: it is as it was told to be, or cannot be. */
static err suspended_look(struct serve *s, struct str project, struct str name, bool suspended, bool *done)
{
    LOCKED(&s->m);
    const struct depl *d = depl_find(s, project, name);
    *done = d && d->suspended == suspended && d->settled && !loading(d);
    for (size_t i = 0; *done && i < d->wanted_n; i++)
        if (d->wanted[i].model && d->wanted[i].model->state == MODEL_FAILED)
            FAIL(UNAVAILABLE, "version %.*s cannot be loaded: %.*s", STR(d->wanted[i].version),
                 STR(d->wanted[i].model->message));
    if (*done && d->now.state == ENTRY_OPEN && !d->now.n)
        FAIL(UNAVAILABLE, "'%.*s' has no version to load", STR(name));
    return NULL;
}

err deployment_suspend(struct serve *s, struct req *r, struct str project, struct str name, bool suspended)
{
    struct suspending b = { req_who(r)->name, project, name, r->id, suspended };
    int64_t until = mono_ns() + SUSPEND_MS * (int64_t)1000000;
    bool done = false;
    TRY(store_write(s->store, suspend_tx, &b));
    for (;;) {
        TRY(suspended_look(s, project, name, suspended, &done));
        if (done)
            return NULL;
        if (mono_ns() > until)
            FAIL(TIMEOUT, "'%.*s' is not %s yet", STR(name), suspended ? "unloaded" : "loaded");
        nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
    }
}
