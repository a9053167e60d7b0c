// SPDX-License-Identifier: Apache-2.0
/* What control keeps of a deployment, and the counts of its versions: made, found, freed. */
#include "serve/reconcile.h"
#include <stdlib.h>

struct str text_own(struct str s)
{
    char *p = malloc(s.n + 1);
    if (!p)
        abort();
    memcpy(p, s.n ? s.p : "", s.n);
    p[s.n] = 0;
    return (struct str){ p, s.n };
}

void text_disown(struct str *s)
{
    free((char *)(uintptr_t)s->p);
    *s = (struct str){ 0 };
}

struct depl *depl_find(struct serve *s, struct str project, struct str name)
{
    for (struct depl *d = s->depls; d; d = d->next)
        if (str_eq(d->name, name) && str_eq(d->project, project))
            return d;
    return NULL;
}

struct depl *depl_need(struct serve *s, struct str project, struct str name)
{
    struct depl *d = depl_find(s, project, name);
    if (d)
        return d;
    d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->project = text_own(project);
    d->name = text_own(name);
    d->now.project = d->project;
    d->now.name = d->name;
    d->next = s->depls;
    s->depls = d;
    return d;
}

void entry_drop(struct serve *s, struct entry *e)
{
    for (size_t i = 0; i < e->n; i++) {
        model_unref(s, e->v[i].model);
        tally_unref(e->v[i].tally);
        text_disown(&e->v[i].unfit);
    }
    plan_unref(e->plan);
    policy_unref(e->policy);
    e->n = 0;
    e->plan = NULL;
    e->policy = NULL;
}

void wanted_drop(struct serve *s, struct depl *d)
{
    for (size_t i = 0; i < d->wanted_n; i++) {
        model_unref(s, d->wanted[i].model);
        text_disown(&d->wanted[i].version);
    }
    d->wanted_n = 0;
}

void depl_free(struct serve *s, struct depl *d)
{
    entry_drop(s, &d->now);
    wanted_drop(s, d);
    for (size_t i = 0; i < d->counted_n; i++) {
        tally_unref(d->counted[i].tally);
        text_disown(&d->counted[i].version);
    }
    mirror_unref(d->now.mirror);
    contest_unref(d->now.contest);
    arena_free(d->spec_a);
    text_disown(&d->now.header);
    text_disown(&d->now.cookie);
    text_disown(&d->project);
    text_disown(&d->name);
    text_disown(&d->model);
    text_disown(&d->rollout_key);
    free(d);
}

struct infer *depl_remove(struct serve *s, struct str project, struct str name)
{
    for (struct depl **p = &s->depls; *p; p = &(*p)->next) {
        struct depl *d = *p;
        if (!str_eq(d->name, name) || !str_eq(d->project, project))
            continue;
        *p = d->next;
        struct infer *waiters = waiters_take(d);
        depl_free(s, d);
        snap_publish(s);
        return waiters;
    }
    return NULL;
}

static struct tally *tally_new(void)
{
    struct tally *t = aligned_alloc(_Alignof(struct tally), sizeof *t);
    if (!t)
        abort();
    memset(t, 0, sizeof *t);
    t->refs = 1;
    return t;
}

/* The counts of a version go on while it is one of the last VERSIONS_MAX that this deployment had. */
struct tally *tally_need(struct depl *d, struct str version)
{
    for (size_t i = 0; i < d->counted_n; i++)
        if (str_eq(d->counted[i].version, version))
            return d->counted[i].tally;
    if (d->counted_n == VERSIONS_MAX) {
        tally_unref(d->counted[0].tally);
        text_disown(&d->counted[0].version);
        memmove(d->counted, d->counted + 1, sizeof *d->counted * --d->counted_n);
    }
    d->counted[d->counted_n] = (struct counted){ text_own(version), tally_new() };
    return d->counted[d->counted_n++].tally;
}
