// SPDX-License-Identifier: Apache-2.0
/* Snapshots: requests read one without a lock; what replaces it waits until no request reads it any more.
 * Each request at work holds a slot with the pointer it reads (a hazard pointer, Michael 2004): it writes the pointer
 * and looks again whether it is still the current one. A retired snapshot goes when no slot holds it: a thread of its own
 * looks after that, since a request may take long. */
#include "serve/internal.h"
#include <sched.h>
#include <stdlib.h>
#include <time.h>

static unsigned slot_hint(void)
{
    uint64_t x = (uint64_t)(uintptr_t)pthread_self();
    return (unsigned)((x * 0x9e3779b97f4a7c15u) >> 40) % SLOTS;
}

struct snap *snap_enter(struct serve *s, unsigned *slot)
{
    unsigned i = slot_hint();
    struct snap *snap = atomic_load(&s->now), *none = NULL;
    for (unsigned tries = 1; !atomic_compare_exchange_strong(&s->slots[i].snap, &none, snap); tries++) {
        none = NULL;
        i = (i + 1) % SLOTS;
        if (tries % SLOTS == 0)
            sched_yield();
    }
    for (struct snap *again; (again = atomic_load(&s->now)) != snap; snap = again)
        atomic_store(&s->slots[i].snap, again);
    *slot = i;
    return snap;
}

void snap_leave(struct serve *s, unsigned slot)
{
    atomic_store(&s->slots[slot].snap, NULL);
}

void snap_keep(const struct snap *snap)
{
    atomic_fetch_add(&((struct snap *)(uintptr_t)snap)->refs, 1);
}

void snap_ref(struct serve *s, const struct snap *snap, unsigned slot)
{
    snap_keep(snap);
    snap_leave(s, slot);
}

void snap_unref(const struct snap *snap)
{
    atomic_fetch_sub(&((struct snap *)(uintptr_t)snap)->refs, 1);
}

static uint64_t key_hash(struct str project, struct str name)
{
    return hash64(project) * 31 + hash64(name);
}

const struct entry *snap_find(const struct snap *snap, struct str project, struct str name)
{
    for (uint32_t i = (uint32_t)key_hash(project, name);; i++) {
        uint32_t at = snap->table[i & snap->mask];
        if (!at)
            return NULL;
        const struct entry *e = &snap->v[at - 1];
        if (str_eq(e->name, name) && str_eq(e->project, project))
            return e;
    }
}

/* ---- making one ---- */

static void entry_copy(struct arena *a, const struct entry *from, struct entry *to)
{
    *to = *from;
    to->project = str_dup(a, from->project);
    to->name = str_dup(a, from->name);
    to->header = str_dup(a, from->header);
    to->cookie = str_dup(a, from->cookie);
    to->mirror = mirror_ref(from->mirror);
    to->contest = contest_ref(from->contest);
    for (size_t i = 0; i < to->n; i++) {
        to->v[i].unfit = str_dup(a, from->v[i].unfit);
        to->v[i].model->refs++;
        to->v[i].tally->refs++;
    }
    if (to->plan)
        to->plan->refs++;
    policy_ref(to->policy);
}

static struct snap *snap_make(struct serve *s)
{
    struct arena *a = arena_new(0);
    struct snap *snap = NEW(a, struct snap);
    snap->a = a;
    for (struct depl *d = s->depls; d; d = d->next)
        snap->n++;
    snap->v = NEW_N(a, struct entry, snap->n + 1);
    snap->mask = 1;
    while (snap->mask + 1 < 2 * snap->n + 2)
        snap->mask = 2 * snap->mask + 1;
    snap->table = NEW_N(a, uint32_t, (size_t)snap->mask + 1);
    uint32_t n = 0;
    for (struct depl *d = s->depls; d; d = d->next) {
        entry_copy(a, &d->now, &snap->v[n++]);
        uint32_t i = (uint32_t)key_hash(d->project, d->name);
        while (snap->table[i & snap->mask])
            i++;
        snap->table[i & snap->mask] = n;
    }
    return snap;
}

void snap_publish(struct serve *s)
{
    struct snap *old = atomic_exchange(&s->now, snap_make(s));
    if (!old)
        return;
    old->next = s->retired;
    s->retired = old;
    if (s->reaping)
        pthread_cond_signal(&s->retiring);
}

/* ---- letting go ---- */

static bool snap_read(struct serve *s, const struct snap *snap)
{
    for (unsigned i = 0; i < SLOTS; i++)
        if (atomic_load(&s->slots[i].snap) == snap)
            return true;
    return atomic_load(&snap->refs) > 0; /* after the slots: from a slot it goes to refs, never back */
}

static void snap_free(struct serve *s, struct snap *snap)
{
    for (size_t i = 0; i < snap->n; i++) {
        for (size_t k = 0; k < snap->v[i].n; k++) {
            model_unref(s, snap->v[i].v[k].model);
            tally_unref(snap->v[i].v[k].tally);
        }
        plan_unref(snap->v[i].plan);
        policy_unref(snap->v[i].policy);
        mirror_unref(snap->v[i].mirror);
        contest_unref(snap->v[i].contest);
    }
    arena_free(snap->a);
}

/* Those without references leave the list; the caller frees them without the lock. */
static struct model *models_unused(struct serve *s)
{
    struct model *out = NULL;
    for (struct model **p = &s->models; *p;) {
        struct model *m = *p;
        if (m->refs) {
            p = &m->next;
            continue;
        }
        *p = m->next;
        m->next = out;
        out = m;
    }
    return out;
}

bool retire(struct serve *s)
{
    pthread_mutex_lock(&s->m);
    for (struct snap **p = &s->retired; *p;) {
        struct snap *snap = *p;
        if (snap_read(s, snap)) {
            p = &snap->next;
            continue;
        }
        *p = snap->next;
        snap_free(s, snap);
    }
    bool left = s->retired != NULL;
    struct model *unused = models_unused(s);
    pthread_mutex_unlock(&s->m);
    while (unused) {
        struct model *next = unused->next;
        model_free(unused);
        unused = next;
    }
    return left;
}

static void pause_for(int64_t ns)
{
    nanosleep(&(struct timespec){ .tv_nsec = ns }, NULL);
}

enum { LOOK_MIN_NS = 1000000, LOOK_MAX_NS = 50000000 };

static bool reaper_wait(struct serve *s)
{
    LOCKED(&s->m);
    while (!s->retired && !s->stop)
        pthread_cond_wait(&s->retiring, &s->m);
    return !s->stop;
}

static void *reaper_run(void *arg)
{
    struct serve *s = arg;
    while (reaper_wait(s))
        for (int64_t ns = LOOK_MIN_NS; retire(s) && ns <= LOOK_MAX_NS; ns *= 2)
            pause_for(ns);
    return NULL;
}

err reaper_start(struct serve *s)
{
    TRY(thread_start("reaper", reaper_run, s, &s->reaper));
    LOCKED(&s->m);
    s->reaping = true;
    return NULL;
}

void reaper_stop(struct serve *s)
{
    pthread_mutex_lock(&s->m);
    s->stop = true;
    pthread_cond_signal(&s->retiring);
    pthread_mutex_unlock(&s->m);
    if (s->reaping)
        pthread_join(s->reaper, NULL);
    while (retire(s))
        pause_for(LOOK_MIN_NS);
}
