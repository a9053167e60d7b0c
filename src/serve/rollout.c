// SPDX-License-Identifier: Apache-2.0
/* A rollout: the challenger answers a share of the requests until it is known well enough, then it is champion or it
 * goes. Decisions follow from the aliases, the counts and the status alone, so they can be made again after a crash. */
#include "serve/internal.h"
#include <stdlib.h>

enum {
    JUDGED_MIN = 20, /* requests before a challenger can fail */
    TIMED_MIN = 100, /* answers of each before their times are compared */
};

const char *const rollout_states[] = { "none", "loading", "canary", "done", "failed", NULL };

bool spec_pins(const struct deployment_spec *spec)
{
    return spec->version.n || spec->traffic.n || spec->ab_test.a.n;
}

size_t canary_steps(const struct canary *c, struct canary_step *one, const struct canary_step **v)
{
    *v = c->steps.n ? c->steps.v : one;
    *one = (struct canary_step){ .share = c->share, .requests = c->requests };
    return c->steps.n ? c->steps.n : c->share > 0 && c->requests > 0;
}

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
        memcpy(d->base_buckets, new.buckets[PHASE_ALL], sizeof d->base_buckets);
        memcpy(d->base_champion_buckets, old.buckets[PHASE_ALL], sizeof d->base_buckets);
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

/* Three standard deviations of the champion's share, were it the challenger's, are chance. */
static bool fails_more(const struct rolling *r)
{
    const struct rollout *o = &r->status->rollout;
    double mine = share(o->failed, o->requests), theirs = share(o->champion_failed, o->champion_requests);
    double chance = 3 * sqrt(theirs * (1 - theirs) / (double)(o->requests > 0 ? o->requests : 1));
    return mine > theirs + r->spec->canary.abort.failures + chance;
}

/* Milliseconds in which 99 of 100 were answered since the rollout was first seen, as exact as the histogram is. NaN below
 * TIMED_MIN. */
static double p99_ms(const struct rolling *r, struct str version, const int64_t *base)
{
    struct totals now = totals_of(r->d, version);
    int64_t n = 0, upto = 0;
    for (size_t i = 0; i < BUCKETS; i++)
        n += now.buckets[PHASE_ALL][i] - base[i];
    if (n < TIMED_MIN)
        return NAN;
    for (size_t i = 0;; i++) {
        int64_t in = now.buckets[PHASE_ALL][i] - base[i];
        double low = i ? (double)bucket_us[i - 1] : 0, want = 0.99 * (double)n;
        if (i + 1 == BUCKETS)
            return low / 1000;
        if ((double)(upto + in) >= want)
            return (low + ((double)bucket_us[i] - low) * (want - (double)upto) / (double)in) / 1000;
        upto += in;
    }
}

/* What the Monitor says; it is a resource of a later stage, so its status is read as data. */
static bool monitor_alarms_it(const struct rolling *r)
{
    struct object o;
    yyjson_val *v;
    struct str monitor = r->spec->canary.abort.monitor;
    if (!monitor.n || object_get(r->s->store, r->a, S("Monitor"), r->project, monitor, &o) ||
        json_parse(r->a, o.status, &v))
        return false;
    yyjson_val *alarm = yyjson_obj_get(v, "alarm"), *version = yyjson_obj_get(v, "version");
    return yyjson_equals_str(alarm, "drifted") &&
           yyjson_equals_strn(version, r->status->rollout.version.p, r->status->rollout.version.n);
}

/* Why the challenger has to go; empty if it has not. */
static struct str fault_of(const struct rolling *r, int64_t least)
{
    const struct rollout *o = &r->status->rollout;
    const struct canary_abort *abort = &r->spec->canary.abort;
    struct str champion = r->model->aliases.champion;
    double mine = p99_ms(r, o->version, r->d->base_buckets),
           theirs = p99_ms(r, champion, r->d->base_champion_buckets);
    if (o->requests >= least && fails_more(r))
        return fmt(r->a,
                   "%.*s failed %lld of %lld requests (%.3g %%), the champion %.*s %lld of %lld (%.3g %%)",
                   STR(o->version), (long long)o->failed, (long long)o->requests,
                   100 * share(o->failed, o->requests), STR(champion), (long long)o->champion_failed,
                   (long long)o->champion_requests, 100 * share(o->champion_failed, o->champion_requests));
    if (abort->p99 && mine > (double)abort->p99)
        return fmt(r->a, "%.*s answers 99 of 100 requests in %.3g ms, not %lld ms", STR(o->version), mine,
                   (long long)abort->p99);
    if (abort->latency_ratio > 0 && mine > theirs * abort->latency_ratio)
        return fmt(r->a, "%.*s answers 99 of 100 requests in %.3g ms, the champion %.*s in %.3g ms",
                   STR(o->version), mine, STR(champion), theirs);
    if (monitor_alarms_it(r))
        return fmt(r->a, "monitor %.*s says that %.*s drifted", STR(abort->monitor), STR(o->version));
    return S("");
}

static void step_begin(struct rolling *r, int64_t step)
{
    struct rollout *o = &r->status->rollout;
    o->step = step;
    o->since = now_us();
    o->step_requests = o->requests;
    r->stepped = true;
}

static err challenger_judge(struct rolling *r)
{
    struct rollout *o = &r->status->rollout;
    struct canary_step one;
    const struct canary_step *v;
    size_t n = canary_steps(&r->spec->canary, &one, &v);
    counts_take(r);
    o->state = ROLLOUT_CANARY;
    if (!o->step)
        step_begin(r, 1);
    if (o->step > (int64_t)n) /* the spec has fewer now */
        o->step = n ? (int64_t)n : 1;
    const struct canary_step *at = n ? &v[o->step - 1] : &one;
    bool one_form = !r->spec->canary.steps.n;
    struct str why = fault_of(r, one_form && at->requests < JUDGED_MIN ? at->requests : JUDGED_MIN);
    if (why.n)
        return take_back(r, why, true);
    if (o->requests - o->step_requests < at->requests || now_us() - o->since < at->time * 1000)
        return NULL;
    if (o->step < (int64_t)n)
        step_begin(r, o->step + 1);
    else
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
    const struct model *m = model_find(r->s, r->project, o->version, r->spec);
    bool champion = str_eq(r->model->aliases.champion, o->version);
    bool challenger = str_eq(r->model->aliases.challenger, o->version);
    if (spec_pins(r->spec) || (!champion && !challenger)) {
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
