// SPDX-License-Identifier: Apache-2.0
/* Which versions a deployment's spec asks for, and which share of the requests each should get. */
#include "serve/reconcile.h"

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

double challenger_share(const struct step *t)
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

struct str winner_of(const struct step *t, const struct ab_status *st)
{
    const struct ab_test *ab = &t->spec.ab_test;
    enum ab_decision decision = ab->promote ? contest_decided(t->a, ab, st) : AB_OPEN;
    return decision == AB_A ? ab->a : decision == AB_B ? ab->b : S("");
}

err wants_find(struct step *t)
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
