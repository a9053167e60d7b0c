// SPDX-License-Identifier: Apache-2.0
/* The step `gate`: every bound is looked at, all that fail are named. */
#include "registry/internal.h"

struct gating {
    struct arena *a;
    struct str project, version, model, metrics; /* metrics: the JSON object */
    yyjson_val *measured, *champion;             /* champion: NULL without one */
    VEC(struct gate_result) results;
    struct strs failed; /* one sentence each */
};

static double number_at(yyjson_val *obj, struct str key)
{
    yyjson_val *v = obj ? yyjson_obj_getn(obj, key.p, key.n) : NULL;
    return yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
}

/* The metrics may come as an object or as the text of one. */
static err metrics_parse(struct gating *g, struct str json)
{
    yyjson_val *v;
    TRY_AS(json_parse(g->a, json, &v), "with.metrics");
    g->metrics = json;
    if (yyjson_is_str(v)) {
        g->metrics = json_text(v);
        TRY_AS(json_parse(g->a, g->metrics, &v), "with.metrics");
    }
    if (!yyjson_is_obj(v))
        return err_field(err_new(INVALID, "with.metrics is no object of numbers"), S("with.metrics"));
    g->measured = v;
    g->champion = yyjson_obj_get(v, "champion");
    if (!yyjson_is_obj(g->champion))
        g->champion = NULL;
    return NULL;
}

static void judged(struct gating *g, struct str metric, struct str bound, double value, double champion,
                   bool ok, struct str why)
{
    push(g->a, &g->results, (struct gate_result){ metric, bound, value, champion, ok });
    if (!ok)
        push(g->a, &g->failed, why);
}

static struct str short_number(struct arena *a, double v)
{
    return isnan(v) ? S("not measured") : fmt(a, "%.6g", v);
}

static void judge_min(struct gating *g, const struct gate_bound *b, double v, double champion)
{
    struct str why = fmt(g->a, "%.*s is %.*s, below its bound %g", STR(b->metric), STR(short_number(g->a, v)),
                         b->min);
    judged(g, b->metric, fmt(g->a, "min %g", b->min), v, champion, v >= b->min, why);
}

static void judge_max(struct gating *g, const struct gate_bound *b, double v, double champion)
{
    struct str why = fmt(g->a, "%.*s is %.*s, above its bound %g", STR(b->metric), STR(short_number(g->a, v)),
                         b->max);
    judged(g, b->metric, fmt(g->a, "max %g", b->max), v, champion, v <= b->max, why);
}

/* Worse than the champion by at most so much, in the direction of the metric. Without a champion it holds. */
static void judge_champion(struct gating *g, const struct gate_bound *b, double v, double champion)
{
    const struct meter_metric *m = meter_find(b->metric);
    double worse = m && m->more_is_better ? champion - v : v - champion;
    bool ok = !g->champion || (isfinite(worse) && worse <= b->champion_within);
    struct str why = fmt(g->a, "%.*s is %.*s, worse than the champion's %.*s by more than %g", STR(b->metric),
                         STR(short_number(g->a, v)), STR(short_number(g->a, champion)), b->champion_within);
    judged(g, b->metric, fmt(g->a, "championWithin %g", b->champion_within), v, champion, ok, why);
}

static err bound_judge(struct gating *g, const struct gate_bound *b, size_t i)
{
    double v = number_at(g->measured, b->metric), champion = number_at(g->champion, b->metric);
    if (isnan(b->min) && isnan(b->max) && isnan(b->champion_within))
        return err_field(err_new(INVALID, "with.bounds[%zu]: %.*s has neither min, max nor championWithin", i,
                                 STR(b->metric)),
                         fmt(g->a, "with.bounds[%zu]", i));
    if (!isnan(b->champion_within) && !meter_find(b->metric) && !str_is(b->metric, "parityMaxAbs"))
        return err_field(err_new(INVALID,
                                 "with.bounds[%zu]: it is not known whether more or less of '%.*s' is better",
                                 i, STR(b->metric)),
                         fmt(g->a, "with.bounds[%zu].metric", i));
    if (!isnan(b->min))
        judge_min(g, b, v, champion);
    if (!isnan(b->max))
        judge_max(g, b, v, champion);
    if (!isnan(b->champion_within))
        judge_champion(g, b, v, champion);
    return NULL;
}

static bool same_results(const struct gating *g, const struct model_version_status *s)
{
    const struct gate_result *was = s->gates.v;
    bool same = s->gates.n == g->results.n && s->state == (g->failed.n ? VERSION_REFUSED : VERSION_PASSED);
    for (size_t i = 0; same && i < g->results.n; i++) {
        const struct gate_result *is = &g->results.v[i];
        same = str_eq(was[i].metric, is->metric) && str_eq(was[i].bound, is->bound) && was[i].ok == is->ok &&
               (was[i].value == is->value || (isnan(was[i].value) && isnan(is->value)));
    }
    return same;
}

static err gate_tx(struct tx *tx, void *arg)
{
    struct gating *g = arg;
    struct arena *a = tx_arena(tx);
    struct model_version_spec spec;
    struct model_version_status status;
    TRY(resource_get_tx(tx, a, &model_version_resource, g->project, g->version, NULL, &spec, &status));
    if (same_results(g, &status)) /* said already, before a crash or a retry */
        return NULL;
    struct str why = str_join(a, g->failed.v, g->failed.n, S("; "));
    status.state = g->failed.n ? VERSION_REFUSED : VERSION_PASSED;
    status.message = why;
    status.gates = (struct list){ g->results.v, g->results.n };
    status.evaluation = g->metrics;
    status.judged_at = tx_now(tx);
    TRY(resource_status_tx(tx, a, &model_version_resource, g->project, g->version, -1, &status));
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "model", g->model);
    json_kstr(&j, "message", why);
    json_obj_end(&j);
    return registry_event(tx, S("gate"), &model_version_resource, g->project, g->version,
                          g->failed.n ? "modelversion.refused" : "modelversion.passed", json_get(&j));
}

static err gate_step(struct job_context *c, struct str project, struct str run, const void *with,
                     struct json *outputs, bool *done)
{
    (void)run;
    const struct gate_with *w = with;
    const struct gate_bound *b = w->bounds.v;
    struct model_version_spec spec;
    struct gating g = { .a = c->a, .project = project, .version = w->version, .model = w->model };
    TRY(version_load(c->store, c->a, project, w->model, w->version, NULL, &spec, NULL));
    TRY(metrics_parse(&g, w->metrics));
    for (size_t i = 0; i < w->bounds.n; i++)
        TRY(bound_judge(&g, &b[i], i));
    TRY(store_write(c->store, gate_tx, &g));
    if (g.failed.n)
        FAIL(GATE, "%.*s: %.*s", STR(w->version), STR(str_join(c->a, g.failed.v, g.failed.n, S("; "))));
    json_kbool(outputs, "passed", true);
    *done = true;
    return NULL;
}

const struct step_type registry_gate = {
    .name = "gate",
    .doc = "Lets a version pass only if every bound on its metrics holds.",
    .outputs = "passed: true (a version that does not pass ends the run with exit code 3)",
    .with = &gate_with_schema,
    .step = gate_step,
};
