// SPDX-License-Identifier: Apache-2.0
/* What a deployment's status says, when it is written, and what of it becomes an event. */
#include "serve/reconcile.h"

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

void status_make(struct step *t)
{
    const struct depl *d = t->d;
    const struct model *most = depl_main(d);
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

err status_tx(struct tx *tx, void *arg)
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

bool status_due(struct step *t)
{
    int64_t now = mono_ns();
    if (only_counts_differ(t) && !t->stepped && now - t->d->mirrored_ns < MIRROR_MS * (int64_t)1000000)
        return false;
    t->d->mirrored_ns = now;
    return true;
}
