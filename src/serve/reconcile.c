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
    for (size_t i = 0; i < d->wanted_n; i++) {
        model_unref(s, d->wanted[i].model);
        disown(&d->wanted[i].version);
    }
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
    mirror_unref(d->now.mirror);
    contest_unref(d->now.contest);
    arena_free(d->spec_a);
    disown(&d->now.header);
    disown(&d->now.cookie);
    disown(&d->project);
    disown(&d->name);
    disown(&d->model);
    disown(&d->rollout_key);
    free(d);
}

/* Result: who waited for it. */
static struct infer *depl_remove(struct serve *s, struct str project, struct str name)
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
    bool refused;
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
    struct infer *go;   /* who waited and need no longer */
    bool stepped;       /* the trial's next step began */
};

static void want(struct step *t, struct str version, double share, bool refused)
{
    for (size_t i = 0; i < t->wants_n; i++)
        if (str_eq(t->wants[i].version, version))
            return;
    if (version.n && t->wants_n < VERSIONS_MAX)
        t->wants[t->wants_n++] = (struct want){ version, share, refused };
}

/* One that the spec names: it has to be of the model, and not refused. */
static err want_named(struct step *t, struct str version, double share)
{
    struct model_version_spec spec;
    struct model_version_status status;
    if (!version.n)
        return NULL;
    err e = resource_get(t->s->store, t->a, &model_version_resource, t->meta.project, version, NULL, &spec,
                         &status);
    if (e && e->code != NOT_FOUND)
        return e;
    bool refused = e || !str_eq(spec.model, t->spec.model) || status.state == VERSION_REFUSED;
    if (refused)
        t->trouble = e ? e->text
                       : fmt(t->a, "version %.*s is refused or not of model %.*s", STR(version),
                             STR(t->spec.model));
    want(t, version, share, refused);
    return NULL;
}

/* Each gets its share by the sum of all. */
static err wants_listed(struct step *t)
{
    const struct traffic_share *v = t->spec.traffic.v;
    double sum = 0;
    for (size_t i = 0; i < t->spec.traffic.n; i++)
        sum += v[i].share;
    for (size_t i = 0; i < t->spec.traffic.n; i++)
        TRY(want_named(t, v[i].version, v[i].share / sum));
    return NULL;
}

/* The champion of before is kept while it is in memory, so that a rollback takes no time. */
static void want_former(struct step *t)
{
    if (t->model.former.n && model_find(t->s, t->meta.project, t->model.former.v[0], &t->spec))
        want(t, t->model.former.v[0], 0, false);
}

/* The challenger's, at the step where its trial is. */
static double challenger_share(const struct step *t)
{
    struct canary_step one;
    const struct canary_step *v;
    const struct rollout *r = &t->status.rollout;
    size_t n = canary_steps(&t->spec.canary, &one, &v);
    size_t at = str_eq(r->version, t->model.aliases.challenger) && r->step > 0 ? (size_t)r->step - 1 : 0;
    return n ? v[at < n ? at : n - 1].share : t->spec.canary.share;
}

static err wants_aliased(struct step *t)
{
    struct model_spec model;
    TRY(resource_get(t->s->store, t->a, &model_resource, t->meta.project, t->spec.model, NULL, &model,
                     &t->model));
    const struct model_alias_names *alias = &t->model.aliases;
    double share = alias->challenger.n && alias->champion.n ? challenger_share(t) : 0;
    want(t, alias->challenger, share, false);
    want(t, alias->champion, 1 - share, false);
    if (!alias->champion.n)
        t->trouble = fmt(t->a, "model '%.*s' has no champion yet", STR(t->spec.model));
    want_former(t);
    return NULL;
}

/* The version that won and is to answer everything; empty: there is none (yet). */
static struct str winner_of(const struct step *t, const struct ab_status *st)
{
    const struct ab_test *ab = &t->spec.ab_test;
    enum ab_decision decision = ab->promote ? contest_decided(t->a, ab, st) : AB_OPEN;
    return decision == AB_A ? ab->a : decision == AB_B ? ab->b : S("");
}

static err wants_find(struct step *t)
{
    const struct ab_test *ab = &t->spec.ab_test;
    if (t->spec.suspended)
        return NULL;
    if (t->spec.ensemble.steps.n) {
        want(t, t->meta.name, 1, false);
    } else if (t->spec.version.n) {
        TRY(want_named(t, t->spec.version, 1));
    } else if (t->spec.traffic.n) {
        TRY(wants_listed(t));
    } else if (ab->a.n && winner_of(t, &t->before.ab_test).n) {
        TRY(want_named(t, winner_of(t, &t->before.ab_test), 1));
    } else if (ab->a.n) {
        TRY(want_named(t, ab->b, ab->share));
        TRY(want_named(t, ab->a, 1 - ab->share));
    } else {
        TRY(wants_aliased(t));
    }
    return want_named(t, t->spec.shadow.version, 0);
}

/* Keeps the plan that is there unless the service's features may have changed. */
static void plan_find(struct step *t)
{
    struct depl *d = t->d;
    struct plan *old = d->now.plan;
    struct feature_plan *p;
    if (!t->spec.service.n) {
        d->changed = d->changed || old;
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
    disown(to);
    *to = own(text);
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

static bool same_json(struct arena *a, struct str x, struct str y)
{
    yyjson_val *u, *v;
    return str_eq(x, y) || (!json_parse(a, x, &u) && !json_parse(a, y, &v) && yyjson_equals(u, v));
}

/* Why the model cannot answer requests by key with the plan; empty if it can. */
static struct str unfit(struct arena *a, const struct plan *p, const struct model *m)
{
    const struct str *names;
    if (!p)
        return fmt(a, "the deployment names no feature service");
    size_t n = feature_plan_features(p->plan, &names);
    if (!m->by_rows)
        return fmt(a, "version %.*s does not take one float matrix", STR(m->name));
    if (m->features && m->features != n)
        return fmt(a, "version %.*s takes %zu features, service %.*s gives %zu", STR(m->name), m->features,
                   STR(p->service), n);
    for (size_t i = 0; m->names && i < n; i++)
        if (!str_eq(names[i], m->names[i]))
            return fmt(a, "feature %zu of version %.*s is %.*s, service %.*s gives %.*s", i, STR(m->name),
                       STR(m->names[i]), STR(p->service), STR(names[i]));
    if (m->definition.n && !same_json(a, m->definition, feature_plan_definition(p->plan)))
        return fmt(a, "version %.*s was trained on other definitions of the features of service %.*s",
                   STR(m->name), STR(p->service));
    return S("");
}

static void served_add(struct serve *s, struct arena *a, struct depl *d, struct entry *e, struct model *m,
                       double share, struct str *trouble)
{
    struct str why = unfit(a, e->plan, m);
    m->refs++;
    struct tally *tally = tally_need(d, m->name);
    tally->refs++;
    e->v[e->n++] = (struct served){ m, tally, share, own(why) };
    request_log_set(s, d, tally, m, &d->spec.request_log);
    if (share > 0 && why.n && e->plan && trouble)
        *trouble = why;
    why = policy_unfit(e->policy, a, m);
    if (share > 0 && why.n && trouble)
        *trouble = why;
}

static bool entry_same(const struct entry *a, const struct entry *b)
{
    bool same = a->n == b->n && a->state == b->state;
    for (size_t i = 0; same && i < a->n; i++)
        same = a->v[i].model == b->v[i].model && a->v[i].share == b->v[i].share &&
               str_eq(a->v[i].unfit, b->v[i].unfit);
    return same;
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
        v[i] = (struct wanted){ own(w->version), w->share, m, w->refused };
    }
    wanted_drop(t->s, t->d);
    memcpy(t->d->wanted, v, sizeof *v * t->wants_n);
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

static struct model *stand_in_of(const struct depl *d)
{
    struct model *m = main_now(d);
    for (size_t i = 0; m && i < d->wanted_n; i++)
        if (d->wanted[i].refused && str_eq(d->wanted[i].version, m->name))
            return NULL;
    return m;
}

/* What is wanted and not there. */
struct lacking {
    double share;
    bool loading, coming; /* anything; something that would answer */
};

static struct lacking lacking_of(struct arena *a, const struct depl *d, struct str *trouble)
{
    struct lacking l = { 0 };
    for (size_t i = 0; i < d->wanted_n; i++) {
        const struct wanted *w = &d->wanted[i];
        bool loading = w->model && w->model->state == MODEL_LOADING;
        l.loading = l.loading || loading;
        l.coming = l.coming || (loading && w->share > 0);
        if (!w->model || w->model->state != MODEL_READY)
            l.share += w->share;
        if (w->model && w->model->state == MODEL_FAILED && trouble)
            *trouble = fmt(a, "version %.*s cannot be loaded: %.*s", STR(w->version), STR(w->model->message));
    }
    return l;
}

/* The versions that are there, and their shares: what is lacking is answered by the stand-in; without one, by the first
 * that is there when nothing else comes. */
static void versions_put(struct serve *s, struct arena *a, struct depl *d, struct lacking lacking,
                         struct entry *out, struct str *trouble)
{
    struct model *stand_in = stand_in_of(d);
    double left = lacking.share;
    for (size_t i = 0; i < d->wanted_n; i++) {
        struct model *m = d->wanted[i].model;
        double share = d->wanted[i].share;
        if (!m || m->state != MODEL_READY)
            continue;
        if (m == stand_in || (!stand_in && share > 0 && !lacking.loading)) {
            share += left;
            left = 0;
        } else if (!stand_in &&
                   left > share) { /* a challenger does not answer for a champion that is coming */
            share = 0;
        }
        served_add(s, a, d, out, m, share, trouble);
    }
    if (left > 0 && stand_in && out->n < VERSIONS_MAX)
        served_add(s, a, d, out, stand_in, left, trouble);
}

struct infer *depl_publish(struct serve *s, struct arena *a, struct depl *d, struct str *trouble)
{
    struct lacking lacking = lacking_of(a, d, trouble);
    struct entry next = d->now;
    d->waking = d->waking && lacking.coming;
    next.n = 0;
    next.state = d->suspended ? ENTRY_SUSPENDED : d->asleep || d->waking ? ENTRY_IDLE : ENTRY_OPEN;
    if (next.plan)
        next.plan->refs++;
    policy_ref(next.policy);
    if (!d->asleep && !d->suspended)
        versions_put(s, a, d, lacking, &next, trouble);
    bool same = entry_same(&next, &d->now) && d->settled && !d->changed;
    entry_drop(s, &d->now);
    d->now = next;
    d->settled = d->settled || !lacking.loading;
    d->changed = false;
    if (!same)
        snap_publish(s);
    return next.state == ENTRY_IDLE ? NULL : waiters_take(d);
}

/* ---- sleep ---- */

static bool rolling(const struct step *t)
{
    return t->status.rollout.state == ROLLOUT_CANARY || t->status.rollout.state == ROLLOUT_LOADING;
}

/* Milliseconds until it may sleep; ≤ 0: now. Not before a trial has ended. */
static int64_t sleep_in(const struct step *t)
{
    const struct depl *d = t->d;
    int64_t last = d->awake_us;
    if (!t->spec.idle || d->asleep || d->waking || d->waiters_n || !d->now.n || rolling(t))
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
    bool first = !d->awake_us, may = t->spec.idle && !t->spec.suspended && !rolling(t);
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

/* ---- status ---- */

static struct traffic unready_traffic(struct step *t, const struct wanted *w)
{
    struct traffic out = { .version = str_dup(t->a, w->version) };
    out.message = out.runtime = out.device = out.why = S("");
    out.state = w->refused || w->model->state == MODEL_FAILED ? TRAFFIC_FAILED : TRAFFIC_LOADING;
    if (w->model)
        out.message = str_dup(t->a, w->model->message);
    return out;
}

static void traffic_write(struct step *t)
{
    const struct depl *d = t->d;
    struct traffic *v = NEW_N(t->a, struct traffic, 2 * VERSIONS_MAX);
    size_t n = 0;
    for (size_t i = 0; i < d->now.n; i++) {
        const struct served *e = &d->now.v[i];
        struct totals sum;
        tally_sum(e->tally, &sum);
        v[n++] = (struct traffic){ .version = str_dup(t->a, e->model->name),
                                   .share = e->share,
                                   .requests = sum.requests,
                                   .failed = sum.failed,
                                   .state = TRAFFIC_READY,
                                   .message = S(""),
                                   .runtime = str_of(e->model->by ? e->model->by : "ensemble"),
                                   .device = str_dup(t->a,
                                                     str_of(e->model->by ? e->model->info->device : "")),
                                   .why = str_dup(t->a, e->model->why) };
    }
    for (size_t i = 0; i < d->wanted_n; i++) {
        const struct wanted *w = &d->wanted[i];
        if (w->refused || (w->model && w->model->state != MODEL_READY))
            v[n++] = unready_traffic(t, w);
    }
    t->status.traffic = (struct list){ v, n };
}

static enum deployment_phase phase_of(const struct step *t, const struct model *most)
{
    const struct depl *d = t->d;
    if (d->suspended)
        return DEPLOYMENT_SUSPENDED;
    if (d->asleep)
        return DEPLOYMENT_IDLE;
    if (most)
        return t->status.rollout.state == ROLLOUT_CANARY ? DEPLOYMENT_CANARY : DEPLOYMENT_SERVING;
    struct lacking lacking = lacking_of(t->a, d, NULL);
    return lacking.loading ? DEPLOYMENT_LOADING : d->wanted_n ? DEPLOYMENT_FAILED : DEPLOYMENT_WAITING;
}

static void status_make(struct step *t)
{
    const struct depl *d = t->d;
    const struct model *most = main_now(d);
    traffic_write(t);
    t->status.version = most ? str_dup(t->a, most->name) : S("");
    t->status.message = t->trouble;
    t->status.phase = phase_of(t, most);
    t->status.cold_starts = d->cold_starts;
    t->status.cold_start_ms = d->cold_starts ? (double)d->cold_ns / 1e6 : NAN;
    schema_defaults(&ab_status_schema, t->a, &t->status.ab_test);
    schema_defaults(&shadow_status_schema, t->a, &t->status.shadow);
    if (d->now.contest)
        contest_status(d->now.contest, t->a, &t->status.ab_test);
    if (d->now.mirror)
        mirror_status(d->now.mirror, t->a, &t->status.shadow);
}

/* Counts alone are not worth an event each time. */
static bool only_counts_differ(const struct step *t)
{
    const struct deployment_status *x = &t->before, *y = &t->status;
    const struct traffic *v = x->traffic.v, *w = y->traffic.v;
    const struct rollout *r = &x->rollout, *q = &y->rollout;
    bool same = x->phase == y->phase && str_eq(x->version, y->version) && str_eq(x->message, y->message) &&
                x->traffic.n == y->traffic.n && r->state == q->state && r->requests == q->requests &&
                r->failed == q->failed && r->step == q->step && str_eq(r->version, q->version) &&
                str_eq(r->message, q->message) && x->cold_starts == y->cold_starts &&
                x->ab_test.decision == y->ab_test.decision;
    for (size_t i = 0; same && i < x->traffic.n; i++)
        same = str_eq(v[i].version, w[i].version) && v[i].share == w[i].share && v[i].state == w[i].state &&
               str_eq(v[i].message, w[i].message) && str_eq(v[i].runtime, w[i].runtime) &&
               str_eq(v[i].device, w[i].device);
    return same;
}

static err tell(struct tx *tx, const struct step *t, const char *type, struct str data)
{
    struct event ev = { .type = str_of(type),
                        .kind = S("Deployment"),
                        .project = t->meta.project,
                        .name = t->meta.name,
                        .who = S("serve"),
                        .data = data };
    return event_append(tx, &ev, NULL);
}

/* A version that may not be champion (it was refused meanwhile, say) stays what it is. */
static err winner_promote(struct tx *tx, const struct step *t)
{
    struct str winner = winner_of(t, &t->status.ab_test);
    if (!winner.n)
        return NULL;
    err e = registry_alias_set(tx, S("serve"), t->meta.project, t->spec.model, ALIAS_CHAMPION, winner);
    if (e && e->code != INTERNAL && e->code != FULL) {
        log_err("abtest.unpromoted", e);
        return NULL;
    }
    return e;
}

/* What others may wait for goes into the event log with the status that says it. */
static err told(struct tx *tx, const struct step *t)
{
    struct arena *a = tx_arena(tx);
    const struct rollout *r = &t->status.rollout;
    if (t->stepped)
        TRY(tell(tx, t, "canary.stepped",
                 fmt(a, "{\"version\":\"%.*s\",\"step\":%lld,\"share\":%.17g}", STR(r->version),
                     (long long)r->step, challenger_share(t))));
    if (t->status.ab_test.decision == t->before.ab_test.decision || t->status.ab_test.decision == AB_OPEN)
        return NULL;
    TRY(tell(tx, t, "abtest.decided",
             fmt(a, "{\"decision\":\"%s\",\"a\":\"%.*s\",\"b\":\"%.*s\"}",
                 ab_decisions[t->status.ab_test.decision], STR(t->spec.ab_test.a), STR(t->spec.ab_test.b))));
    return winner_promote(tx, t);
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
    TRY(resource_status_tx(tx, tx_arena(tx), &deployment_resource, t->meta.project, t->meta.name, -1,
                           &t->status));
    return told(tx, t);
}

/* With m held: is it time to write? */
static bool status_due(struct step *t)
{
    int64_t now = mono_ns();
    if (only_counts_differ(t) && !t->stepped && now - t->d->mirrored_ns < MIRROR_MS * (int64_t)1000000)
        return false;
    t->d->mirrored_ns = now;
    return true;
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
    ms = rolling(t) ? ROLLOUT_MS : ms;
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
