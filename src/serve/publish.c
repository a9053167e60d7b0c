// SPDX-License-Identifier: Apache-2.0
/* From what is wanted to what answers: a version that is not loaded yet, or cannot be, leaves those before it where they
 * are. */
#include "serve/reconcile.h"

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
                   STR(feature_plan_name(p->plan)), n);
    if (m->texts) {
        size_t texts = feature_plan_texts(p->plan, &names);
        bool same = m->text_names && texts == m->texts;
        for (size_t i = 0; same && i < texts; i++)
            same = str_eq(names[i], m->text_names[i]);
        if (!same)
            return fmt(a, "version %.*s takes other categories than service %.*s gives", STR(m->name),
                       STR(feature_plan_name(p->plan)));
        n = feature_plan_features(p->plan, &names);
    }
    for (size_t i = 0; m->names && i < n; i++)
        if (!str_eq(names[i], m->names[i]))
            return fmt(a, "feature %zu of version %.*s is %.*s, service %.*s gives %.*s", i, STR(m->name),
                       STR(m->names[i]), STR(feature_plan_name(p->plan)), STR(names[i]));
    if (m->definition.n && !same_json(a, m->definition, feature_plan_definition(p->plan)))
        return fmt(a, "version %.*s was trained on other definitions of the features of service %.*s",
                   STR(m->name), STR(feature_plan_name(p->plan)));
    return S("");
}

static void served_add(struct serve *s, struct arena *a, struct depl *d, struct entry *e, struct model *m,
                       double share, struct str *trouble)
{
    struct str why = unfit(a, e->plan, m);
    m->refs++;
    struct tally *tally = tally_need(d, m->name);
    tally->refs++;
    e->v[e->n++] = (struct served){ m, tally, share, text_own(why) };
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
struct model *depl_main(const struct depl *d)
{
    const struct served *most = NULL;
    for (size_t i = 0; i < d->now.n; i++)
        if (!most || d->now.v[i].share > most->share)
            most = &d->now.v[i];
    return most && most->share > 0 ? most->model : NULL;
}

static struct model *stand_in_of(const struct depl *d)
{
    struct model *m = depl_main(d);
    for (size_t i = 0; m && i < d->wanted_n; i++)
        if (d->wanted[i].refused && str_eq(d->wanted[i].version, m->name))
            return NULL;
    return m;
}

struct lacking lacking_of(struct arena *a, const struct depl *d, struct str *trouble)
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

/* Ensembles that ask it are looked at: their faces are those of its versions. */
static void ensembles_poke(struct serve *s, const struct depl *asked)
{
    for (struct depl *d = s->depls; d && s->control; d = d->next) {
        const struct ensemble_step *step = d->spec.ensemble.steps.v;
        for (size_t i = 0; i < d->spec.ensemble.steps.n; i++)
            if (str_eq(step[i].deployment, asked->name) && str_eq(d->project, asked->project)) {
                control_poke(s->control, S("Deployment"), d->project, d->name);
                break;
            }
    }
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
    if (!same) {
        snap_publish(s);
        ensembles_poke(s, d);
    }
    return next.state == ENTRY_IDLE ? NULL : waiters_take(d);
}
