// SPDX-License-Identifier: Apache-2.0
/* The reconciler of Deployments: which versions should answer how much, and which do. A version that is not loaded
 * yet, or cannot be, leaves those before it where they are. */
#include "serve/internal.h"
#include <stdlib.h>

enum { LOADING_MS = 1000 };

static struct str own(struct str s)
{
    char *p = malloc(s.n + 1);
    if (!p)
        abort();
    memcpy(p, s.n ? s.p : "", s.n);
    p[s.n] = 0;
    return (struct str){ p, s.n };
}

static void disown(struct str *s)
{
    free((char *)(uintptr_t)s->p);
    *s = (struct str){ 0 };
}

/* ---- struct depl ---- */

struct depl *depl_find(struct serve *s, struct str project, struct str name)
{
    for (struct depl *d = s->depls; d; d = d->next)
        if (str_eq(d->name, name) && str_eq(d->project, project))
            return d;
    return NULL;
}

static struct depl *depl_need(struct serve *s, struct str project, struct str name)
{
    struct depl *d = depl_find(s, project, name);
    if (d)
        return d;
    d = calloc(1, sizeof *d);
    if (!d)
        abort();
    d->project = own(project);
    d->name = own(name);
    d->now.project = d->project;
    d->now.name = d->name;
    d->next = s->depls;
    s->depls = d;
    return d;
}

static void entry_drop(struct serve *s, struct entry *e)
{
    for (size_t i = 0; i < e->n; i++) {
        model_unref(s, e->v[i].model);
        tally_unref(e->v[i].tally);
        disown(&e->v[i].unfit);
    }
    plan_unref(e->plan);
    policy_unref(e->policy);
    e->n = 0;
    e->plan = NULL;
    e->policy = NULL;
}

static void wanted_drop(struct serve *s, struct depl *d)
{
    for (size_t i = 0; i < d->wanted_n; i++)
        model_unref(s, d->wanted[i]);
    d->wanted_n = 0;
}

void depl_free(struct serve *s, struct depl *d)
{
    entry_drop(s, &d->now);
    wanted_drop(s, d);
    for (size_t i = 0; i < d->counted_n; i++) {
        tally_unref(d->counted[i].tally);
        disown(&d->counted[i].version);
    }
    disown(&d->project);
    disown(&d->name);
    disown(&d->model);
    disown(&d->rollout_key);
    free(d);
}

static void depl_remove(struct serve *s, struct str project, struct str name)
{
    for (struct depl **p = &s->depls; *p; p = &(*p)->next) {
        struct depl *d = *p;
        if (!str_eq(d->name, name) || !str_eq(d->project, project))
            continue;
        *p = d->next;
        depl_free(s, d);
        snap_publish(s);
        return;
    }
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
static struct tally *tally_need(struct depl *d, struct str version)
{
    for (size_t i = 0; i < d->counted_n; i++)
        if (str_eq(d->counted[i].version, version))
            return d->counted[i].tally;
    if (d->counted_n == VERSIONS_MAX) {
        tally_unref(d->counted[0].tally);
        disown(&d->counted[0].version);
        memmove(d->counted, d->counted + 1, sizeof *d->counted * --d->counted_n);
    }
    d->counted[d->counted_n] = (struct counted){ own(version), tally_new() };
    return d->counted[d->counted_n++].tally;
}

/* ---- one step ---- */

struct want {
    struct str version;
    double share;
};
struct step {
    struct serve *s;
    struct arena *a;
    struct meta meta;
    struct deployment_spec spec;
    struct deployment_status status, before; /* before: as it was stored */
    struct model_status model;
    struct depl *d;
    struct want wants[VERSIONS_MAX];
    size_t wants_n;
    struct str trouble; /* what stands in the way */
    bool waits;         /* something is being loaded */
};

static void want(struct step *t, struct str version, double share)
{
    for (size_t i = 0; i < t->wants_n; i++)
        if (str_eq(t->wants[i].version, version))
            return;
    if (version.n && t->wants_n < VERSIONS_MAX)
        t->wants[t->wants_n++] = (struct want){ version, share };
}

/* The champion of before is kept while it is in memory, so that a rollback takes no time. */
static void want_former(struct step *t)
{
    if (t->model.former.n && model_find(t->s, t->meta.project, t->model.former.v[0]))
        want(t, t->model.former.v[0], 0);
}

static err wants_find(struct step *t)
{
    struct model_spec model;
    if (t->spec.ensemble.steps.n) {
        want(t, t->meta.name, 1);
        return NULL;
    }
    if (t->spec.version.n) {
        struct model_version_spec spec;
        struct model_version_status status;
        TRY(resource_get(t->s->store, t->a, &model_version_resource, t->meta.project, t->spec.version, NULL,
                         &spec, &status));
        if (!str_eq(spec.model, t->spec.model) || status.state == VERSION_REFUSED)
            FAIL(INVALID, "version %.*s is refused or not of model %.*s", STR(t->spec.version),
                 STR(t->spec.model));
        want(t, t->spec.version, 1);
        return NULL;
    }
    TRY(resource_get(t->s->store, t->a, &model_resource, t->meta.project, t->spec.model, NULL, &model,
                     &t->model));
    const struct model_alias_names *alias = &t->model.aliases;
    double share = alias->challenger.n && alias->champion.n ? t->spec.canary.share : 0;
    want(t, alias->challenger, alias->champion.n ? share : 0);
    want(t, alias->champion, 1 - share);
    if (!alias->champion.n)
        t->trouble = fmt(t->a, "model '%.*s' has no champion yet", STR(t->spec.model));
    want_former(t);
    return NULL;
}

/* Keeps the plan that is there unless the service's features may have changed. */
static void plan_find(struct step *t)
{
    struct depl *d = t->d;
    struct plan *old = d->now.plan;
    struct feature_plan *p;
    if (!t->spec.service.n) {
        d->now.plan = NULL;
        plan_unref(old);
        return;
    }
    if (old && !d->plan_stale && str_eq(old->service, t->spec.service))
        return;
    err e = feature_plan_new(t->s->store, t->meta.project, t->spec.service, &p);
    if (e) {
        t->trouble = e->text;
        return;
    }
    d->plan_stale = false;
    if (old && str_eq(old->service, t->spec.service) &&
        str_eq(feature_plan_definition(old->plan), feature_plan_definition(p))) {
        feature_plan_free(p);
        return;
    }
    struct plan *new = calloc(1, sizeof *new);
    if (!new)
        abort();
    *new = (struct plan){ .refs = 1, .plan = p, .service = own(t->spec.service) };
    d->now.plan = new;
    plan_unref(old);
}

static bool same_json(struct arena *a, struct str x, struct str y)
{
    yyjson_val *u, *v;
    return str_eq(x, y) || (!json_parse(a, x, &u) && !json_parse(a, y, &v) && yyjson_equals(u, v));
}

/* Why the model cannot answer requests by key with the plan; empty if it can. */
static struct str unfit(struct step *t, const struct plan *p, const struct model *m)
{
    const struct str *names;
    if (!p)
        return fmt(t->a, "the deployment names no feature service");
    size_t n = feature_plan_features(p->plan, &names);
    if (!m->by_rows)
        return fmt(t->a, "version %.*s does not take one float matrix", STR(m->name));
    if (m->features && m->features != n)
        return fmt(t->a, "version %.*s takes %zu features, service %.*s gives %zu", STR(m->name), m->features,
                   STR(p->service), n);
    for (size_t i = 0; m->names && i < n; i++)
        if (!str_eq(names[i], m->names[i]))
            return fmt(t->a, "feature %zu of version %.*s is %.*s, service %.*s gives %.*s", i, STR(m->name),
                       STR(m->names[i]), STR(p->service), STR(names[i]));
    if (m->definition.n && !same_json(t->a, m->definition, feature_plan_definition(p->plan)))
        return fmt(t->a, "version %.*s was trained on other definitions of the features of service %.*s",
                   STR(m->name), STR(p->service));
    return S("");
}

static void served_add(struct step *t, struct entry *e, struct model *m, double share)
{
    struct str why = unfit(t, e->plan, m);
    m->refs++;
    struct tally *tally = tally_need(t->d, m->name);
    tally->refs++;
    e->v[e->n++] = (struct served){ m, tally, share, own(why) };
    request_log_set(t->s, t->d, tally, m, &t->spec.request_log);
    if (share > 0 && why.n && t->spec.service.n)
        t->trouble = why;
    why = policy_unfit(e->policy, t->a, m);
    if (share > 0 && why.n)
        t->trouble = why;
}

static bool entry_same(const struct entry *a, const struct entry *b)
{
    bool same = a->n == b->n && a->plan == b->plan && a->policy == b->policy;
    for (size_t i = 0; same && i < a->n; i++)
        same = a->v[i].model == b->v[i].model && a->v[i].share == b->v[i].share &&
               str_eq(a->v[i].unfit, b->v[i].unfit);
    return same;
}

/* Takes references on what is wanted, and lets go of what was. */
static void models_want(struct step *t)
{
    struct model *v[VERSIONS_MAX];
    for (size_t i = 0; i < t->wants_n; i++)
        v[i] = t->spec.ensemble.steps.n ? ensemble_want(t->s, t->a, t->meta.project, t->meta.name, &t->spec)
                                        : model_want(t->s, t->meta.project, t->wants[i].version);
    wanted_drop(t->s, t->d);
    for (size_t i = 0; i < t->wants_n; i++)
        t->d->wanted[i] = v[i];
    t->d->wanted_n = t->wants_n;
}

/* The version that answered most until now, for as long as what should replace it is not ready. */
static struct model *main_now(const struct depl *d)
{
    const struct served *most = NULL;
    for (size_t i = 0; i < d->now.n; i++)
        if (!most || d->now.v[i].share > most->share)
            most = &d->now.v[i];
    return most && most->share > 0 ? most->model : NULL;
}

static void entry_make(struct step *t, struct entry *out)
{
    struct depl *d = t->d;
    double left = 0; /* shares of what is not ready */
    struct model *stand_in = main_now(d);
    *out = (struct entry){ .project = d->project, .name = d->name, .plan = d->now.plan };
    if (out->plan)
        out->plan->refs++;
    out->policy = policy_want(t->s, &t->spec, d->now.policy);
    for (size_t i = 0; i < t->wants_n; i++) {
        struct model *m = d->wanted[i];
        t->waits = t->waits || m->state == MODEL_LOADING;
        if (m->state == MODEL_FAILED)
            t->trouble = fmt(t->a, "version %.*s cannot be loaded: %.*s", STR(t->wants[i].version),
                             STR(m->message));
        if (m->state != MODEL_READY)
            left += t->wants[i].share;
    }
    for (size_t i = 0; i < t->wants_n; i++) {
        struct model *m = d->wanted[i];
        double share = t->wants[i].share;
        if (m->state != MODEL_READY)
            continue;
        if (m == stand_in || (!stand_in && share > 0 && !t->waits)) {
            share += left;
            left = 0;
        } else if (!stand_in &&
                   left > share) { /* a challenger does not answer for a champion that is coming */
            share = 0;
        }
        served_add(t, out, m, share);
    }
    if (left > 0 && stand_in && out->n < VERSIONS_MAX)
        served_add(t, out, stand_in, left);
}

static void publish(struct step *t)
{
    struct entry next;
    entry_make(t, &next);
    bool same = entry_same(&next, &t->d->now) && t->d->settled;
    entry_drop(t->s, &t->d->now);
    t->d->now = next;
    t->d->settled = t->d->settled || !t->waits;
    if (!same)
        snap_publish(t->s);
}

/* ---- status ---- */

static void traffic_write(struct step *t)
{
    struct traffic *v = NEW_N(t->a, struct traffic, 2 * VERSIONS_MAX);
    size_t n = 0;
    for (size_t i = 0; i < t->d->now.n; i++) {
        const struct served *e = &t->d->now.v[i];
        struct totals sum;
        tally_sum(e->tally, &sum);
        v[n++] = (struct traffic){
            str_dup(t->a, e->model->name), e->share, sum.requests, sum.failed, TRAFFIC_READY, S("")
        };
    }
    for (size_t i = 0; i < t->wants_n; i++) {
        const struct model *m = t->d->wanted[i];
        if (m->state != MODEL_READY)
            v[n++] = (struct traffic){ t->wants[i].version,
                                       0,
                                       0,
                                       0,
                                       m->state == MODEL_FAILED ? TRAFFIC_FAILED : TRAFFIC_LOADING,
                                       str_dup(t->a, m->message) };
    }
    t->status.traffic = (struct list){ v, n };
    const struct model *most = main_now(t->d);
    t->status.version = most ? str_dup(t->a, most->name) : S("");
    t->status.message = t->trouble;
    bool canary = t->status.rollout.state == ROLLOUT_CANARY;
    t->status.phase = most         ? canary ? DEPLOYMENT_CANARY : DEPLOYMENT_SERVING
                      : t->waits   ? DEPLOYMENT_LOADING
                      : t->wants_n ? DEPLOYMENT_FAILED
                                   : DEPLOYMENT_WAITING;
}

/* Counts alone are not worth an event each time. */
static bool only_counts_differ(const struct step *t)
{
    const struct deployment_status *x = &t->before, *y = &t->status;
    const struct traffic *v = x->traffic.v, *w = y->traffic.v;
    const struct rollout *r = &x->rollout, *q = &y->rollout;
    bool same = x->phase == y->phase && str_eq(x->version, y->version) && str_eq(x->message, y->message) &&
                x->traffic.n == y->traffic.n && r->state == q->state && r->requests == q->requests &&
                r->failed == q->failed && str_eq(r->version, q->version) && str_eq(r->message, q->message);
    for (size_t i = 0; same && i < x->traffic.n; i++)
        same = str_eq(v[i].version, w[i].version) && v[i].share == w[i].share && v[i].state == w[i].state &&
               str_eq(v[i].message, w[i].message);
    return same;
}

static err status_tx(struct tx *tx, void *arg)
{
    struct step *t = arg;
    struct deployment_spec spec;
    struct deployment_status stored;
    TRY(resource_get_tx(tx, tx_arena(tx), &deployment_resource, t->meta.project, t->meta.name, NULL, &spec,
                        &stored));
    const struct rollout *r = &stored.rollout, *mine = &t->before.rollout;
    if (!str_eq(r->run, mine->run) || !str_eq(r->version, mine->version) || r->state != mine->state)
        return NULL; /* a deploy step came between; its event brings us back */
    return resource_status_tx(tx, tx_arena(tx), &deployment_resource, t->meta.project, t->meta.name, -1,
                              &t->status);
}

static err status_save(struct step *t)
{
    int64_t now = mono_ns();
    if (only_counts_differ(t) && now - t->d->mirrored_ns < MIRROR_MS * (int64_t)1000000)
        return NULL;
    t->d->mirrored_ns = now;
    return store_write(t->s->store, status_tx, t);
}

/* ---- the step ---- */

/* What should answer, as far as it can. */
static err traffic_move(struct step *t)
{
    t->wants_n = 0;
    t->waits = false;
    t->trouble = S("");
    err e = wants_find(t);
    if (e && e->code != NOT_FOUND && e->code != INVALID)
        return e;
    if (e)
        t->trouble = e->text;
    plan_find(t);
    models_want(t);
    publish(t);
    return NULL;
}

static err depl_step(struct step *t, int64_t *again_ms)
{
    t->d = depl_need(t->s, t->meta.project, t->meta.name);
    if (!str_eq(t->d->model, t->spec.model)) {
        disown(&t->d->model);
        t->d->model = own(t->spec.model);
    }
    struct rolling r = { .s = t->s,
                         .a = t->a,
                         .project = t->meta.project,
                         .name = t->meta.name,
                         .spec = &t->spec,
                         .model = &t->model,
                         .status = &t->status,
                         .d = t->d };
    TRY(traffic_move(t));
    TRY(rollout_move(&r));
    if (r.moved) { /* aliases are other ones now: who sees the status meets the traffic that it tells of */
        TRY(traffic_move(t));
        TRY(rollout_move(&r));
    }
    traffic_write(t);
    TRY(status_save(t));
    bool failed = false;
    for (size_t i = 0; i < t->d->wanted_n; i++)
        failed = failed || t->d->wanted[i]->state == MODEL_FAILED;
    bool rolling = t->status.rollout.state == ROLLOUT_CANARY || t->status.rollout.state == ROLLOUT_LOADING;
    *again_ms = rolling ? ROLLOUT_MS : t->waits ? LOADING_MS : failed ? RETRY_MS : MIRROR_MS;
    return NULL;
}

static err deployment_step(struct serve *s, struct arena *a, const struct object *o, int64_t *again_ms)
{
    struct step t = { .s = s, .a = a };
    err e = resource_get(s->store, a, &deployment_resource, o->project, o->name, &t.meta, &t.spec, &t.status);
    LOCKED(&s->m);
    if (e && e->code == NOT_FOUND) {
        depl_remove(s, o->project, o->name);
        return NULL;
    }
    TRY(e);
    t.before = t.status;
    return depl_step(&t, again_ms);
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
