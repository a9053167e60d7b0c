// SPDX-License-Identifier: Apache-2.0
/* The reconciler of Deployments: what a step is made of, and in which order. */
#include "serve/reconcile.h"
#include <stdlib.h>

enum { LOADING_MS = 1000 };

/* ---- what requests are to know of the spec ---- */

/* Keeps the plan that is there unless the service's features may have changed. */
static void plan_find(struct step *t)
{
    struct depl *d = t->d;
    struct plan *old = d->now.plan, *new;
    if (!t->spec.service.n) {
        d->changed = d->changed || old;
        d->now.plan = NULL;
        plan_unref(old);
        return;
    }
    bool same = old && str_eq(feature_plan_name(old->plan), t->spec.service);
    if (same && !d->plan_stale)
        return;
    err e = plan_new(t->s, t->meta.project, t->spec.service, &new);
    if (e) {
        t->trouble = e->text;
        return;
    }
    d->plan_stale = false;
    if (same && feature_plan_same(old->plan, new->plan)) {
        plan_unref(new);
        return;
    }
    d->now.plan = new;
    d->changed = true;
    plan_unref(old);
}

static struct str lower(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1, 1);
    for (size_t i = 0; i < s.n; i++)
        p[i] = (char)(s.p[i] >= 'A' && s.p[i] <= 'Z' ? s.p[i] + 32 : s.p[i]);
    return (struct str){ p, s.n };
}

static void text_move(struct depl *d, struct str *to, struct str text)
{
    if (str_eq(*to, text))
        return;
    text_disown(to);
    *to = text_own(text);
    d->changed = true;
}

/* What else requests are to know of the spec. */
static void policies_find(struct step *t)
{
    struct depl *d = t->d;
    const struct deployment_spec *spec = &t->spec;
    struct policy *p = policy_want(t->s, spec, d->now.policy);
    struct mirror *m = spec->shadow.version.n ? mirror_need(d->now.mirror, t->a, &spec->shadow) : NULL;
    struct contest *c = spec->ab_test.a.n
                            ? contest_need(d->now.contest, t->a, &spec->ab_test, &t->before.ab_test)
                            : NULL;
    text_move(d, &d->now.header, lower(t->a, spec->sticky.header));
    text_move(d, &d->now.cookie, spec->sticky.cookie);
    d->changed = d->changed || m != d->now.mirror || c != d->now.contest || p != d->now.policy;
    policy_unref(d->now.policy);
    d->now.policy = p;
    if (m != d->now.mirror)
        mirror_unref(d->now.mirror);
    if (c != d->now.contest)
        contest_unref(d->now.contest);
    d->now.mirror = m;
    d->now.contest = c;
}
/* Takes references on what is wanted, and lets go of what was. */
static void models_want(struct step *t)
{
    struct wanted v[VERSIONS_MAX];
    for (size_t i = 0; i < t->wants_n; i++) {
        const struct want *w = &t->wants[i];
        struct model *m = NULL;
        if (t->spec.ensemble.steps.n)
            m = ensemble_want(t->s, t->a, t->meta.project, t->meta.name, &t->spec);
        else if (!t->d->asleep && !w->refused)
            m = model_want(t->s, t->meta.project, w->version, &t->spec);
        v[i] = (struct wanted){ text_own(w->version), w->share, m, w->refused };
    }
    wanted_drop(t->s, t->d);
    memcpy(t->d->wanted, v, sizeof *v * t->wants_n);
    t->d->wanted_n = t->wants_n;
}
/* ---- sleep ---- */

static bool step_rolling(const struct step *t)
{
    return t->status.rollout.state == ROLLOUT_CANARY || t->status.rollout.state == ROLLOUT_LOADING;
}

/* Milliseconds until it may sleep; ≤ 0: now. Not before a trial has ended. */
static int64_t sleep_in(const struct step *t)
{
    const struct depl *d = t->d;
    int64_t last = d->awake_us;
    if (!t->spec.idle || d->asleep || d->waking || d->waiters_n || !d->now.n || step_rolling(t))
        return INT64_MAX;
    for (size_t i = 0; i < d->now.n; i++) {
        struct totals sum;
        tally_sum(d->now.v[i].tally, &sum);
        last = sum.last_us > last ? sum.last_us : last;
    }
    return t->spec.idle - (now_us() - last) / 1000;
}

/* What the spec says of being loaded, before anything is wanted. */
static void states_find(struct step *t)
{
    struct depl *d = t->d;
    bool first = !d->awake_us, may = t->spec.idle && !t->spec.suspended && !step_rolling(t);
    if (first && t->before.phase == DEPLOYMENT_IDLE)
        d->asleep = true; /* as before the restart */
    if (first && d->asleep)
        (void)lane_push(t->s->lane, runtime_bring, t->s);
    if (first || t->spec.suspended || (d->asleep && !may))
        d->awake_us = now_us();
    d->asleep = d->asleep && may;
    d->suspended = t->spec.suspended;
    d->waking = d->waking && !d->suspended;
}

/* ---- the step ---- */

/* What should answer, as far as it can. */
static err traffic_move(struct step *t)
{
    t->wants_n = 0;
    t->trouble = S("");
    err e = wants_find(t);
    if (e && e->code != NOT_FOUND && e->code != INVALID)
        return e;
    if (e)
        t->trouble = e->text;
    plan_find(t);
    policies_find(t);
    models_want(t);
    waiters_join(&t->go, depl_publish(t->s, t->a, t->d, &t->trouble));
    return NULL;
}

static int64_t look_again(const struct step *t)
{
    const struct depl *d = t->d;
    int64_t idle = sleep_in(t), ms = MIRROR_MS;
    for (size_t i = 0; i < d->wanted_n; i++) {
        const struct model *m = d->wanted[i].model;
        if (m && m->state == MODEL_FAILED && ms > RETRY_MS)
            ms = RETRY_MS;
        if (m && m->state == MODEL_LOADING)
            ms = LOADING_MS;
    }
    ms = step_rolling(t) ? ROLLOUT_MS : ms;
    return idle >= ms ? ms : idle > 0 ? idle : 1;
}

static err sleep_if_idle(struct step *t)
{
    if (sleep_in(t) > 0)
        return NULL;
    t->d->asleep = true;
    log_info("deployment.slept", KV("project", t->meta.project), KV("deployment", t->meta.name));
    return traffic_move(t);
}

/* What publishing needs of the spec when the step is over. */
static err spec_keep(struct depl *d, struct step *t)
{
    struct str text = schema_text(&deployment_spec_schema, t->a, &t->spec, WRITE_SECRETS | WRITE_PERSONAL);
    if (d->generation == t->meta.generation)
        return NULL;
    arena_free(d->spec_a);
    d->spec_a = arena_new(0);
    d->generation = t->meta.generation;
    return schema_read_text(&deployment_spec_schema, d->spec_a, S("spec"), text, READ_LENIENT, &d->spec);
}

static err depl_step(struct step *t)
{
    t->d = depl_need(t->s, t->meta.project, t->meta.name);
    TRY(spec_keep(t->d, t));
    if (!str_eq(t->d->model, t->spec.model)) {
        text_disown(&t->d->model);
        t->d->model = text_own(t->spec.model);
    }
    struct rolling r = { .s = t->s,
                         .a = t->a,
                         .project = t->meta.project,
                         .name = t->meta.name,
                         .spec = &t->spec,
                         .model = &t->model,
                         .status = &t->status,
                         .d = t->d };
    states_find(t);
    TRY(traffic_move(t));
    TRY(rollout_move(&r));
    if (r.moved) { /* aliases are other ones now: who sees the status meets the traffic that it tells of */
        TRY(traffic_move(t));
        TRY(rollout_move(&r));
    }
    t->stepped = r.stepped;
    TRY(sleep_if_idle(t));
    status_make(t);
    return NULL;
}

/* *due: the status is to be written, which is not done under the lock. */
static err locked_step(struct step *t, const struct object *o, err found, bool *due, int64_t *again_ms)
{
    LOCKED(&t->s->m);
    if (found && found->code == NOT_FOUND) {
        t->go = depl_remove(t->s, o->project, o->name);
        return NULL;
    }
    TRY(found);
    TRY(depl_step(t));
    *due = status_due(t);
    *again_ms = look_again(t);
    return NULL;
}

static err deployment_step(struct serve *s, struct arena *a, const struct object *o, int64_t *again_ms)
{
    struct step t = { .s = s, .a = a };
    bool due = false;
    err e = resource_get(s->store, a, &deployment_resource, o->project, o->name, &t.meta, &t.spec, &t.status);
    t.before = t.status;
    e = locked_step(&t, o, e, &due, again_ms);
    waiters_push(s, t.go);
    TRY(e);
    return due ? store_write(s->store, status_tx, &t) : NULL;
}

/* Another kind has changed: its deployments are looked at. */
static void others_poke(struct serve *s, const struct object *o)
{
    LOCKED(&s->m);
    bool model = str_is(o->kind, "Model"), version = str_is(o->kind, "ModelVersion");
    for (struct depl *d = s->depls; d && s->control; d = d->next) {
        bool any = !d->model.n; /* an ensemble: of whatever models */
        if (!str_eq(d->project, o->project) || (model && !any && !str_eq(d->model, o->name)) ||
            (version && !any &&
             !(str_starts(o->name, d->model) && o->name.n > d->model.n && o->name.p[d->model.n] == '.')))
            continue;
        d->plan_stale = d->plan_stale || (!model && !version);
        control_poke(s->control, S("Deployment"), d->project, d->name);
    }
}

err serve_step(void *self, struct arena *a, const struct object *o, const struct event *ev, int64_t *again_ms)
{
    struct serve *s = self;
    if (str_is(o->kind, "Deployment"))
        return deployment_step(s, a, o, again_ms);
    (void)ev;
    others_poke(s, o);
    return NULL;
}
