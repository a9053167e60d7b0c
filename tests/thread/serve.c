// SPDX-License-Identifier: Apache-2.0
/* Readers of snapshots while they are replaced: nobody reads one that was freed, and counts add up. */
#include "serve/internal.h"
#include <stdlib.h>

enum { READERS = 3, ROUNDS = 2000, DEPLOYMENTS = 8 };

struct reader {
    struct serve *s;
    _Atomic bool *stop;
    int64_t counted;
};

static void *reader_run(void *arg)
{
    struct reader *r = arg;
    char name[2] = "a";
    for (int i = 0; !atomic_load(r->stop); i++) {
        unsigned slot;
        const struct snap *snap = snap_enter(r->s, &slot);
        name[0] = (char)('a' + i % DEPLOYMENTS);
        const struct entry *e = snap_find(snap, S("p"), str_of(name));
        if (!e || e->n != 1 || e->v[0].share != 1)
            abort();
        atomic_fetch_add_explicit(&e->v[0].tally->stripe[slot % STRIPES].requests, 1, memory_order_relaxed);
        snap_leave(r->s, slot);
        r->counted++;
    }
    return NULL;
}

static int64_t requests_of(const struct tally *t)
{
    struct totals sum;
    tally_sum(t, &sum);
    return sum.requests;
}

int main(void)
{
    struct serve *s = aligned_alloc(64, sizeof *s);
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->m, NULL);
    pthread_mutex_init(&s->loading, NULL);
    pthread_cond_init(&s->retiring, NULL);
    if (lane_new("models", 2, 64, &s->lane) || reaper_start(s))
        return 1;
    struct model *model = calloc(1, sizeof *model);
    model->a = arena_new(0);
    model->refs = DEPLOYMENTS;
    model->name = S("m.1");
    s->models = model;
    struct tally *tally = aligned_alloc(64, sizeof *tally);
    memset(tally, 0, sizeof *tally);
    tally->refs = DEPLOYMENTS + 1;
    static char names[DEPLOYMENTS][2];
    for (int i = 0; i < DEPLOYMENTS; i++) {
        struct depl *d = calloc(1, sizeof *d);
        names[i][0] = (char)('a' + i);
        d->project = (struct str){ strdup("p"), 1 };
        d->name = (struct str){ strdup(names[i]), 1 };
        d->now = (struct entry){ .project = d->project,
                                 .name = d->name,
                                 .n = 1,
                                 .v = { { .model = model, .tally = tally, .share = 1 } } };
        d->next = s->depls;
        s->depls = d;
    }
    pthread_mutex_lock(&s->m);
    snap_publish(s);
    pthread_mutex_unlock(&s->m);
    _Atomic bool stop = false;
    struct reader r[READERS];
    pthread_t t[READERS];
    for (int i = 0; i < READERS; i++) {
        r[i] = (struct reader){ s, &stop, 0 };
        if (thread_start("reader", reader_run, &r[i], &t[i]))
            return 1;
    }
    for (int i = 0; i < ROUNDS || requests_of(tally) < ROUNDS; i++) {
        pthread_mutex_lock(&s->m);
        snap_publish(s);
        pthread_mutex_unlock(&s->m);
    }
    atomic_store(&stop, true);
    int64_t counted = 0;
    for (int i = 0; i < READERS; i++) {
        pthread_join(t[i], NULL);
        counted += r[i].counted;
    }
    bool right = requests_of(tally) == counted;
    serve_close(s);
    right = right && tally->refs == 1;
    free(tally);
    return right ? 0 : 1;
}
