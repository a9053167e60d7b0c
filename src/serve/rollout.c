// SPDX-License-Identifier: Apache-2.0
/* A rollout: the challenger answers a share of the requests until it is known well enough, then it is champion or it
 * goes. Decisions follow from the aliases, the counts and the status alone, so they can be made again after a crash. */
#include "serve/internal.h"
#include <stdlib.h>

enum { JUDGED_MIN = 20 };             /* requests before a challenger can fail */
static const double worse_max = 0.01; /* share of failures above the champion's */

const char *const rollout_states[] = { "none", "loading", "canary", "done", "failed", NULL };

static struct tally *tally_of(const struct depl *d, struct str version)
{
    for (size_t i = 0; i < d->counted_n; i++)
        if (str_eq(d->counted[i].version, version))
            return d->counted[i].tally;
    return NULL;
}

/* Requests that a version refused count as failed here: a challenger that takes other inputs refuses what the champion
 * answers, and clients who send nonsense send it to both. */
static struct totals totals_of(const struct depl *d, struct str version)
{
    struct totals t = { 0 };
    const struct tally *tally = tally_of(d, version);
    if (tally)
        tally_sum(tally, &t);
    t.failed += t.refused;
    return t;
}

/* What was counted since the rollout began, over restarts: what is in status plus what came since it was first seen. */
static void counts_take(struct rolling *r)
{
    struct rollout *o = &r->status->rollout;
    struct depl *d = r->d;
    struct totals new = totals_of(d, o->version), old = totals_of(d, r->model->aliases.champion);
    struct str key = fmt(r->a, "%.*s %.*s", STR(o->run), STR(o->version));
    if (!str_eq(key, d->rollout_key)) {
        free((char *)(uintptr_t)d->rollout_key.p);
        d->rollout_key = (struct str){ strndup(key.p, key.n), key.n };
        d->base_requests = new.requests - o->requests;
        d->base_failed = new.failed - o->failed;
        d->base_champion_requests = old.requests - o->champion_requests;
        d->base_champion_failed = old.failed - o->champion_failed;
    }
    o->requests = new.requests - d->base_requests;
    o->failed = new.failed - d->base_failed;
    o->champion_requests = old.requests - d->base_champion_requests;
    o->champion_failed = old.failed - d->base_champion_failed;
}

struct decision {
    const struct rolling *r;
    bool promote, refuse;
    struct str why;
};

static err decide_tx(struct tx *tx, void *arg)
{
    const struct decision *d = arg;
    const struct rolling *r = d->r;
    struct str version = r->status->rollout.version, who = S("serve");
    if (d->promote)
        return registry_alias_set(tx, who, r->project, r->spec->model, ALIAS_CHAMPION, version);
    TRY(registry_withdraw(tx, who, r->project, r->spec->model, version));
    if (d->refuse)
        TRY(registry_refuse(tx, who, r->project, version, d->why));
    struct json j = json_new(tx_arena(tx));
    json_obj(&j);
    json_kstr(&j, "version", version);
    json_kstr(&j, "message", d->why);
    json_obj_end(&j);
    struct event ev = { .type = S("deployment.rolledback"),
                        .kind = S("Deployment"),
                        .project = r->project,
                        .name = r->name,
                        .who = who,
                        .data = json_get(&j) };
    return event_append(tx, &ev, NULL);
}

static err take_back(struct rolling *r, struct str why, bool refuse)
{
    struct decision d = { .r = r, .refuse = refuse, .why = why };
    TRY(store_write(r->s->store, decide_tx, &d));
    r->status->rollout.state = ROLLOUT_FAILED;
    r->status->rollout.message = why;
    r->status->rollout.unloadable = !refuse;
    r->moved = true;
    return NULL;
}

static double share(int64_t part, int64_t whole)
{
    return whole > 0 ? (double)part / (double)whole : 0;
}

static err challenger_judge(struct rolling *r)
{
    struct rollout *o = &r->status->rollout;
    counts_take(r);
    o->state = ROLLOUT_CANARY;
    int64_t enough = r->spec->canary.requests, least = enough < JUDGED_MIN ? enough : JUDGED_MIN;
    double mine = share(o->failed, o->requests), theirs = share(o->champion_failed, o->champion_requests);
    if (o->requests < least)
        return NULL;
    /* three standard deviations of the champion's share, were it the challenger's */
    double chance = 3 * sqrt(theirs * (1 - theirs) / (double)(o->requests > 0 ? o->requests : 1));
    if (mine > theirs + worse_max + chance)
        return take_back(
            r,
            fmt(r->a, "%.*s failed %lld of %lld requests (%.3g %%), the champion %.*s %lld of %lld (%.3g %%)",
                STR(o->version), (long long)o->failed, (long long)o->requests, 100 * mine,
                STR(r->model->aliases.champion), (long long)o->champion_failed,
                (long long)o->champion_requests, 100 * theirs),
            true);
    if (o->requests < enough)
        return NULL;
    TRY(store_write(r->s->store, decide_tx, &(struct decision){ .r = r, .promote = true }));
    r->moved = true;
    return NULL;
}

/* It is champion: done once it answers everything. */
static void champion_wait(struct rolling *r, const struct model *m)
{
    struct rollout *o = &r->status->rollout;
    for (size_t i = 0; i < r->d->now.n; i++)
        if (r->d->now.v[i].model == m && r->d->now.v[i].share > 0.9999)
            o->state = ROLLOUT_DONE;
}

err rollout_move(struct rolling *r)
{
    struct rollout *o = &r->status->rollout;
    if (o->state != ROLLOUT_LOADING && o->state != ROLLOUT_CANARY)
        return NULL;
    const struct model *m = model_find(r->s, r->project, o->version);
    bool champion = str_eq(r->model->aliases.champion, o->version);
    bool challenger = str_eq(r->model->aliases.challenger, o->version);
    if (r->spec->version.n || (!champion && !challenger)) {
        o->state = ROLLOUT_FAILED;
        o->message = fmt(r->a, "version %.*s was taken back", STR(o->version));
        return NULL;
    }
    if (m && m->state == MODEL_FAILED)
        return take_back(
            r, fmt(r->a, "version %.*s cannot be loaded: %.*s", STR(o->version), STR(m->message)), false);
    if (!m || m->state == MODEL_LOADING)
        return NULL;
    if (challenger)
        return challenger_judge(r);
    champion_wait(r, m);
    return NULL;
}
