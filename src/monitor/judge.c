// SPDX-License-Identifier: Apache-2.0
/* A closed window against its baseline, and what follows for the alarm. */
#include "monitor/internal.h"
#include <stdlib.h>

static struct monitor_drift drift_of(const struct monitor_features *bounds, const struct closed *c, size_t k,
                                     const struct baseline_column *ref, struct str name)
{
    struct sketch all;
    sketch_init(&all, ref);
    for (size_t i = 0; i < STRIPES_MAX; i++)
        if (c->parts[i])
            sketch_merge(&all, &c->parts[i][k]);
    struct monitor_drift d = { .name = name,
                               .wasserstein = sketch_wasserstein(&all),
                               .psi = sketch_psi(&all) };
    d.ratio = fmax(d.wasserstein / bounds->wasserstein, d.psi / bounds->psi); /* the number, if one is none */
    d.over = d.wasserstein >= bounds->wasserstein || d.psi >= bounds->psi;    /* NaN is not */
    return d;
}

/* The worst first, what could not be measured last; else by name. */
static int worse_first(const void *x, const void *y)
{
    const struct monitor_drift *a = x, *b = y;
    double p = isnan(a->ratio) ? -1 : a->ratio, q = isnan(b->ratio) ? -1 : b->ratio;
    return p != q ? (p < q) - (p > q) : str_cmp(a->name, b->name);
}

void judge(struct arena *a, const struct monitor_features *bounds, const struct baseline *base,
           const struct closed *c, struct verdict *out)
{
    size_t measured = 0;
    *out = (struct verdict){ .features = base->n,
                             .drift = NEW_N(a, struct monitor_drift, base->n + 1),
                             .share = NAN,
                             .wasserstein_max = NAN };
    for (size_t k = 0; k < base->n; k++) {
        struct monitor_drift d = drift_of(bounds, c, k, &base->features[k], base->features[k].name);
        out->features_over += d.over;
        measured += !isnan(d.psi) || !isnan(d.wasserstein);
        out->wasserstein_max = fmax(out->wasserstein_max, d.wasserstein); /* the number, if one is none */
        out->drift[out->n++] = d;
    }
    struct monitor_drift score = drift_of(bounds, c, base->n, &base->score, S("score"));
    if (!isnan(score.psi) || !isnan(score.wasserstein))
        out->drift[out->n++] = score;
    out->judged = measured > 0 && c->predictions >= bounds->min;
    if (out->judged)
        out->share = (double)out->features_over / (double)base->n;
    out->over = out->judged && out->share >= bounds->share;
    qsort(out->drift, out->n, sizeof *out->drift, worse_first);
}

static void alarm_set(struct monitor_status *st, enum monitor_alarm alarm, int64_t since)
{
    if (st->alarm == (int)alarm)
        return;
    st->alarm = alarm;
    st->since = since;
}

bool alarm_step(const struct monitor_spec *spec, const struct verdict *v, int64_t until,
                struct monitor_status *st)
{
    if (!v->judged)
        return false;
    st->streak = v->over ? (st->streak > 0 ? st->streak : 0) + 1 : (st->streak < 0 ? st->streak : 0) - 1;
    if (st->streak >= spec->sustain)
        alarm_set(st, ALARM_DRIFTED, until);
    else if (st->alarm != ALARM_DRIFTED)
        alarm_set(st, v->over ? ALARM_WATCHING : ALARM_NONE, until);
    else if (st->streak <= -spec->sustain)
        alarm_set(st, ALARM_NONE, until);
    bool told = st->drifted_at && until - st->drifted_at < spec->cooldown * 1000;
    if (st->streak < spec->sustain || told || (st->drifted_at && spec->cooldown == 0))
        return false;
    st->drifted_at = until;
    st->events++;
    return true;
}

static void features_over(struct arena *a, const struct verdict *v, struct list *out)
{
    struct monitor_drift *worst = NEW_N(a, struct monitor_drift, MONITOR_WORST);
    *out = (struct list){ worst, 0 };
    for (size_t i = 0; i < v->n && out->n < MONITOR_WORST; i++)
        if (v->drift[i].over && !str_is(v->drift[i].name, "score"))
            worst[out->n++] = v->drift[i];
}

static struct str reason_text(struct arena *a, const struct monitor_status *st, const struct verdict *v,
                              const struct list *over)
{
    const struct monitor_drift *d = over->v;
    struct str text = fmt(a, "%zu of %zu features over a bound", v->features_over, v->features);
    if (st->streak > 1)
        text = fmt(a, "%.*s, in %lld windows running", STR(text), (long long)st->streak);
    return over->n ? fmt(a, "%.*s; the worst: %.*s (Wasserstein %.3f, PSI %.3f)", STR(text), STR(d->name),
                         d->wasserstein, d->psi)
                   : text;
}

void alarm_tell(struct arena *a, const struct verdict *v, int64_t until, struct monitor_status *st)
{
    struct list over;
    features_over(a, v, &over);
    st->last_alarm = (struct monitor_told){ .time = until,
                                            .at = now_us(),
                                            .version = st->version,
                                            .reason = reason_text(a, st, v, &over),
                                            .share = v->share,
                                            .features = over };
}

static void features_write(struct json *j, const struct list *over)
{
    const struct monitor_drift *d = over->v;
    json_obj(j);
    for (size_t i = 0; i < over->n; i++) {
        json_key(j, d[i].name);
        json_obj(j);
        json_kf64(j, "wasserstein", d[i].wasserstein);
        json_kf64(j, "psi", d[i].psi);
        json_obj_end(j);
    }
    json_obj_end(j);
}

struct str drifted_data(struct arena *a, const struct monitor_spec *spec, const struct monitor_told *told,
                        const struct closed *c)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "time", time_text(a, told->time));
    json_kstr(&j, "deployment", spec->deployment);
    json_kstr(&j, "version", told->version);
    json_kf64(&j, "share", told->share);
    json_kstr(&j, "reason", told->reason);
    json_key(&j, S("window"));
    json_obj(&j);
    json_kstr(&j, "from", time_text(a, c->from));
    json_kstr(&j, "until", time_text(a, c->until));
    json_ki64(&j, "predictions", c->predictions);
    json_obj_end(&j);
    json_key(&j, S("features"));
    features_write(&j, &told->features);
    json_obj_end(&j);
    return json_get(&j);
}
