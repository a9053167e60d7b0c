// SPDX-License-Identifier: Apache-2.0
/* A closed window against its baseline, and what follows for the alarm. */
#include "monitor/internal.h"
#include <stdlib.h>

enum { WORST = 5 };

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
    d.over = d.wasserstein >= bounds->wasserstein || d.psi >= bounds->psi; /* NaN is not */
    return d;
}

void judge(struct arena *a, const struct monitor_features *bounds, const struct baseline *base,
           const struct closed *c, struct verdict *out)
{
    size_t over = 0, measured = 0;
    *out = (struct verdict){ .drift = NEW_N(a, struct monitor_drift, base->n + 1),
                             .share = NAN,
                             .wasserstein_max = NAN };
    for (size_t k = 0; k < base->n; k++) {
        struct monitor_drift d = drift_of(bounds, c, k, &base->features[k], base->features[k].name);
        over += d.over;
        measured += !isnan(d.psi) || !isnan(d.wasserstein);
        out->wasserstein_max = fmax(out->wasserstein_max, d.wasserstein); /* the number, if one is none */
        out->drift[out->n++] = d;
    }
    struct monitor_drift score = drift_of(bounds, c, base->n, &base->score, S("score"));
    if (!isnan(score.psi) || !isnan(score.wasserstein))
        out->drift[out->n++] = score;
    out->judged = measured > 0 && c->predictions >= bounds->min;
    if (out->judged)
        out->share = (double)over / (double)base->n;
    out->over = out->judged && out->share >= bounds->share;
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

/* How far over its bounds a feature is, as a factor. */
static double excess(const struct monitor_features *bounds, const struct monitor_drift *d)
{
    return fmax(fmax(d->wasserstein / bounds->wasserstein, d->psi / bounds->psi), 0);
}

static const struct monitor_drift *worst_after(const struct monitor_features *bounds, const struct verdict *v,
                                               const struct monitor_drift *last)
{
    const struct monitor_drift *worst = NULL;
    double below = last ? excess(bounds, last) : INFINITY;
    for (const struct monitor_drift *d = v->drift; d < v->drift + v->n; d++) {
        double x = excess(bounds, d);
        bool after = x < below || (x == below && (!last || d > last));
        if (d->over && !str_is(d->name, "score") && after && (!worst || x > excess(bounds, worst)))
            worst = d;
    }
    return worst;
}

struct str drifted_data(struct arena *a, const struct monitor_spec *spec, const struct monitor_status *st,
                        const struct verdict *v, int64_t until)
{
    struct json j = json_new(a);
    const struct monitor_drift *d = NULL;
    json_obj(&j);
    json_kstr(&j, "time", time_text(a, until));
    json_kstr(&j, "deployment", spec->deployment);
    json_kstr(&j, "version", st->version);
    json_kf64(&j, "share", v->share);
    json_key(&j, S("features"));
    json_obj(&j);
    for (int i = 0; i < WORST && (d = worst_after(&spec->features, v, d)); i++) {
        json_key(&j, d->name);
        json_obj(&j);
        json_kf64(&j, "wasserstein", d->wasserstein);
        json_kf64(&j, "psi", d->psi);
        json_obj_end(&j);
    }
    json_obj_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}
