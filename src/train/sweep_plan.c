// SPDX-License-Identifier: Apache-2.0
/* The rules of a sweep: what is tried, which trial is next, which is best. Nothing is read, written or begun here. */
#include "train/train.h"
#include <stdlib.h>

const char *const sweep_kinds[] = { "grid", "random", "halving", NULL };
const char *const sweep_phases[] = { "waiting", "running", "succeeded", "failed", "cancelled", NULL };
const char *const trial_phases[] = { "waiting",      "running", "done",      "failed",
                                     "not measured", "no time", "cancelled", NULL };
SCHEMA_TABLE(sweep_with, SWEEP_WITH, "Many trainings, of which the best is kept.");
SCHEMA_TABLE(sweep_spec, SWEEP_SPEC, "A form, what is tried in it, and what its jobs may use.");
SCHEMA_TABLE(sweep_trial, SWEEP_TRIAL, "One training.");
SCHEMA_TABLE(sweep_status, SWEEP_STATUS, "How far it is, and the best.");

/* ---- what is tried ---- */

struct axis {
    struct str path;
    struct strs values; /* JSON; none: a range */
    double min, max;
    bool logarithmic, whole;
};
struct axes {
    VEC(struct axis) list;
};

static struct str over_at(const struct sweep_plan *p)
{
    return p->jobs ? S("spec.over") : S("sweep.over");
}

static struct str value_text(struct arena *a, yyjson_val *v)
{
    char *text = yyjson_val_write(v, 0, NULL);
    struct str s = str_dup(a, str_of(text ? text : "null"));
    free(text);
    return s;
}

static err range_read(const struct sweep_plan *p, struct str at, yyjson_val *v, struct axis *x)
{
    yyjson_val *min = yyjson_obj_get(v, "min"), *max = yyjson_obj_get(v, "max");
    x->min = yyjson_get_num(min);
    x->max = yyjson_get_num(max);
    x->logarithmic = yyjson_equals_str(yyjson_obj_get(v, "scale"), "log");
    x->whole = yyjson_is_int(min) && yyjson_is_int(max);
    if (!yyjson_is_num(min) || !yyjson_is_num(max) || !(x->max > x->min) || (x->logarithmic && !(x->min > 0)))
        FAIL(INVALID, "%.*s: '%.*s' wants min below max (above 0 for scale: log)", STR(at), STR(x->path));
    if (p->with.kind == SWEEP_GRID)
        FAIL(INVALID, "%.*s: '%.*s' is a range, and a grid wants lists", STR(at), STR(x->path));
    return NULL;
}

static err axis_read(struct arena *a, const struct sweep_plan *p, yyjson_val *key, yyjson_val *v,
                     struct axes *out)
{
    struct axis x = { .path = json_text(key) };
    struct str at = over_at(p);
    yyjson_val *one;
    size_t i, n;
    if (!x.path.n)
        FAIL(INVALID, "%.*s has a key without a name", STR(at));
    if (p->with.kind == SWEEP_HALVING && str_is(x.path, "epochs"))
        FAIL(INVALID, "%.*s: 'epochs' is what halving sets itself", STR(at));
    yyjson_arr_foreach (v, i, n, one)
        push(a, &x.values, value_text(a, one));
    if (yyjson_is_obj(v))
        TRY(range_read(p, at, v, &x));
    else if (!x.values.n)
        return err_hint(err_new(INVALID, "%.*s: '%.*s' is neither a list nor a range", STR(at), STR(x.path)),
                        "[0.1, 0.01] or {min: 0.0001, max: 0.1, scale: log}");
    if (out->list.n == SWEEP_AXES_MAX)
        FAIL(TOO_LARGE, "%.*s has more than %d keys", STR(at), SWEEP_AXES_MAX);
    push(a, &out->list, x);
    return NULL;
}

static err axes_read(struct arena *a, const struct sweep_plan *p, struct axes *out)
{
    yyjson_val *v, *key, *one;
    size_t i, n;
    TRY(json_parse(a, p->with.over, &v));
    if (!yyjson_is_obj(v) || !yyjson_obj_size(v))
        FAIL(INVALID, "%.*s names no key of the form", STR(over_at(p)));
    yyjson_obj_foreach (v, i, n, key, one)
        TRY(axis_read(a, p, key, one, out));
    return NULL;
}

static struct str drawn(struct arena *a, const struct axis *x, uint64_t *random)
{
    double u = (double)(splitmix(random) >> 11) * 0x1p-53;
    if (x->values.n)
        return x->values.v[(size_t)(u * (double)x->values.n)];
    double v = x->logarithmic ? exp(log(x->min) + u * (log(x->max) - log(x->min)))
                              : x->min + u * (x->max - x->min);
    return x->whole ? fmt(a, "%lld", (long long)(v + 0.5)) : fmt(a, "%.6g", v);
}

static err trials_number(const struct sweep_plan *p, const struct axes *axes, int64_t *out)
{
    int64_t n = p->with.kind == SWEEP_GRID ? 1 : p->with.trials,
            max = p->jobs ? SWEEP_JOBS_MAX : SWEEP_TRIALS_MAX;
    for (size_t i = 0; p->with.kind == SWEEP_GRID && i < axes->list.n; i++)
        if (__builtin_mul_overflow(n, (int64_t)axes->list.v[i].values.n, &n) || n > max)
            FAIL(TOO_LARGE, "%.*s: the grid has more than %lld points", STR(over_at(p)), (long long)max);
    if (n > max)
        return err_field(err_new(TOO_LARGE, "spec.trials: a server's sweep has at most %lld", (long long)max),
                         S("spec.trials"));
    *out = n;
    return NULL;
}

/* {"optimizer.rate":0.01,…} of trial k: the k-th point of the grid, the first key's values changing first, or the next draw. */
static struct str trial_set(struct arena *a, const struct sweep_plan *p, const struct axes *axes, int64_t k,
                            uint64_t *random)
{
    struct json j = json_new(a);
    json_obj(&j);
    for (size_t i = 0; i < axes->list.n; i++) {
        const struct axis *x = &axes->list.v[i];
        json_key(&j, x->path);
        if (p->with.kind == SWEEP_GRID) {
            json_raw(&j, x->values.v[k % (int64_t)x->values.n]);
            k /= (int64_t)x->values.n;
        } else {
            json_raw(&j, drawn(a, x, random));
        }
    }
    json_obj_end(&j);
    return json_get(&j);
}

/* ---- rungs ---- */

/* Successive halving (Jamieson & Talwalkar 2016): each rung one of `factor` goes on, with `factor` times the epochs; the last has
 * those of the form. Each rung trains from the start, as the schedule of the rate spans it. */
static int64_t rungs_of(const struct sweep_plan *p)
{
    int64_t rungs = 1;
    for (int64_t n = (int64_t)p->n; p->with.kind == SWEEP_HALVING && n >= p->with.factor; n /= p->with.factor)
        rungs++;
    return rungs;
}

static void rung_enter(const struct sweep_plan *p, struct sweep_trial *t, int64_t rung)
{
    t->rung = rung;
    if (p->with.kind != SWEEP_HALVING)
        return;
    t->epochs = p->epochs;
    for (int64_t r = rung; r < rungs_of(p); r++)
        t->epochs /= p->with.factor;
    t->epochs = t->epochs < 1 ? 1 : t->epochs;
}

static bool more_is_better(struct str metric)
{
    const struct meter_metric *m = meter_find(metric);
    return m && m->more_is_better;
}

/* The rung that the measure is of; 0: there is none. */
static int64_t rung_measured(const struct sweep_trial *t)
{
    return isnan(t->measure) ? 0 : t->rung - (t->phase != TRIAL_DONE);
}

static bool better(const struct sweep_plan *p, const struct sweep_trial *a, const struct sweep_trial *b)
{
    int64_t ra = rung_measured(a), rb = rung_measured(b);
    if (ra != rb)
        return ra > rb;
    return more_is_better(p->with.metric) ? a->measure > b->measure : a->measure < b->measure;
}

const struct sweep_trial *sweep_best(const struct sweep_plan *p)
{
    const struct sweep_trial *best = NULL;
    for (size_t i = 0; i < p->n; i++) {
        const struct sweep_trial *t = &p->trials[i];
        if (t->phase != TRIAL_RUNNING && rung_measured(t) && (!best || better(p, t, best)))
            best = t;
    }
    return best;
}

/* The best of a rung go on, and what has no measure does not. */
static void rung_close(struct sweep_plan *p)
{
    int64_t rung = 1, stay = (int64_t)p->n;
    for (size_t i = 0; i < p->n; i++)
        rung = p->trials[i].rung > rung ? p->trials[i].rung : rung;
    if (rung >= rungs_of(p))
        return;
    for (int64_t r = 0; r < rung; r++)
        stay /= p->with.factor;
    for (stay = stay < 1 ? 1 : stay; stay > 0; stay--) {
        struct sweep_trial *best = NULL;
        for (size_t i = 0; i < p->n; i++) {
            struct sweep_trial *t = &p->trials[i];
            if (t->rung == rung && t->phase == TRIAL_DONE && (!best || better(p, t, best)))
                best = t;
        }
        if (!best)
            return;
        rung_enter(p, best, rung + 1);
        best->phase = TRIAL_WAITING;
    }
}

/* ---- what is next ---- */

size_t sweep_count(const struct sweep_plan *p, enum trial_phase phase)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++)
        n += p->trials[i].phase == (int)phase;
    return n;
}

static struct sweep_trial *first_waiting(struct sweep_plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->trials[i].phase == TRIAL_WAITING)
            return &p->trials[i];
    return NULL;
}

/* One that was to go on to another rung stays where it got to. */
static void time_over(struct sweep_plan *p)
{
    for (struct sweep_trial *t; (t = first_waiting(p));) {
        t->phase = t->rung > 1 ? TRIAL_DONE : TRIAL_NO_TIME;
        rung_enter(p, t, t->rung > 1 ? t->rung - 1 : 1);
    }
}

struct sweep_trial *sweep_next(struct sweep_plan *p, int64_t elapsed_ms)
{
    size_t running = sweep_count(p, TRIAL_RUNNING);
    if (p->with.budget && elapsed_ms >= p->with.budget)
        time_over(p);
    else if (!running && !first_waiting(p))
        rung_close(p);
    return running < (size_t)p->with.at_once ? first_waiting(p) : NULL;
}

/* Its measure: the sweep's, or the loss, which is the first of a network's and called logLoss or rmse. */
void sweep_judge(struct arena *a, const struct sweep_plan *p, struct sweep_trial *t, yyjson_val *metrics)
{
    struct str name = p->with.metric;
    yyjson_val *v = yyjson_obj_getn(metrics, name.p, name.n);
    if (!name.n)
        v = yyjson_obj_get(metrics, "logLoss") ? yyjson_obj_get(metrics, "logLoss")
                                               : yyjson_obj_get(metrics, "rmse");
    t->measure = yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
    t->phase = !metrics ? TRIAL_FAILED : isnan(t->measure) ? TRIAL_NOT_MEASURED : TRIAL_DONE;
    t->message = t->phase == TRIAL_NOT_MEASURED
                     ? fmt(a, "it was measured, but not by '%.*s'", STR(name.n ? name : S("logLoss")))
                     : S("");
}

/* ---- forms ---- */

/* What the best is by is measured, whether the form says so or not. */
static void metric_put(yyjson_mut_doc *doc, struct str name)
{
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc), *list = yyjson_mut_obj_get(root, "metrics");
    if (!yyjson_mut_is_arr(list)) {
        list = yyjson_mut_arr(doc);
        yyjson_mut_obj_put(root, yyjson_mut_str(doc, "metrics"), list);
    }
    yyjson_mut_arr_add_strncpy(doc, list, name.p, name.n);
}

static err form_read(struct arena *a, struct str at, struct str text, struct train_with *out,
                     const struct field **chosen)
{
    yyjson_val *v;
    TRY(json_parse(a, text, &v));
    TRY(schema_read(&train_with_schema, a, at, v, 0, out));
    return train_form_chosen(a, at, v, out, chosen);
}

err sweep_form(struct arena *a, const struct sweep_plan *p, const struct sweep_trial *t, struct str *text,
               struct train_with *with)
{
    struct train_with room;
    yyjson_val *form, *set, *key, *value;
    size_t i, n;
    TRY(json_parse(a, p->form, &form));
    TRY(json_parse(a, t->set, &set));
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, yyjson_val_mut_copy(doc, form));
    yyjson_obj_foreach (set, i, n, key, value)
        form_put(doc, json_text(key), value);
    if (p->with.kind == SWEEP_HALVING)
        yyjson_mut_obj_put(yyjson_mut_doc_get_root(doc), yyjson_mut_str(doc, "epochs"),
                           yyjson_mut_sint(doc, t->epochs));
    if (p->with.metric.n)
        metric_put(doc, p->with.metric);
    char *made = yyjson_mut_write(doc, 0, NULL);
    *text = str_dup(a, str_of(made ? made : "{}"));
    free(made);
    yyjson_mut_doc_free(doc);
    const struct field *chosen;
    return form_read(a, S(""), *text, with ? with : &room, &chosen);
}

/* A wrong key ends it before anything is trained. */
static err trial_check(struct arena *a, const struct sweep_plan *p, struct sweep_trial *t)
{
    struct str text;
    struct train_with with;
    err e = sweep_form(a, p, t, &text, &with);
    if (e)
        return err_field(err_wrap(e, "%.*s: a trial with %.*s", STR(over_at(p)), STR(t->set)), over_at(p));
    t->epochs = with.epochs;
    return p->jobs ? train_job_check(a, &with, S("spec.with.")) : NULL;
}

/* More epochs are what the better ones are given. */
static err halving_check(const struct sweep_plan *p, const struct train_with *form,
                         const struct field *chosen)
{
    const char *what = form->steps                     ? "a form that says its steps"
                       : str_is(chosen->name, "trees") ? "trees"
                                                       : NULL;
    if (p->with.kind != SWEEP_HALVING || !what)
        return NULL;
    return err_field(err_new(INVALID, "%skind: halving goes by epochs, which mean nothing to %s",
                             p->jobs ? "spec." : "sweep.", what),
                     p->jobs ? S("spec.kind") : S("sweep.kind"));
}

err sweep_draw(struct arena *a, struct sweep_plan *p)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct train_with base;
    struct axes axes = { 0 };
    uint64_t random = (uint64_t)p->with.seed;
    int64_t n = 0;
    size_t bytes = 0;
    const struct field *chosen;
    TRY(form_read(scratch, p->jobs ? S("spec.with") : S(""), p->form, &base, &chosen));
    p->epochs = base.epochs;
    if (p->with.metric.n && !meter_find(p->with.metric))
        return err_field(err_new(INVALID, "%smetric: '%.*s' is no measure", p->jobs ? "spec." : "sweep.",
                                 STR(p->with.metric)),
                         p->jobs ? S("spec.metric") : S("sweep.metric"));
    TRY(halving_check(p, &base, chosen));
    err e = axes_read(a, p, &axes);
    if (!e)
        e = trials_number(p, &axes, &n);
    if (e)
        return e->field.n ? e : err_field(e, over_at(p));
    p->trials = NEW_N(a, struct sweep_trial, n);
    p->n = (size_t)n;
    for (size_t k = 0; k < p->n; k++) {
        struct sweep_trial *t = &p->trials[k];
        *t = (struct sweep_trial){ .measure = NAN, .seconds = NAN };
        t->set = trial_set(a, p, &axes, (int64_t)k, &random);
        rung_enter(p, t, 1);
        if ((bytes += t->set.n) > SWEEP_SETS_MAX && p->jobs)
            return err_field(
                err_new(TOO_LARGE, "spec.over: what the trials set takes more than 1 MiB together"),
                S("spec.over"));
        arena_reset(scratch);
        TRY(trial_check(scratch, p, t));
    }
    return NULL;
}

err sweep_resume(struct arena *a, struct sweep_plan *p, const struct list *trials)
{
    struct train_with base;
    TRY(schema_read_text(&train_with_schema, a, S("spec.with"), p->form, READ_LENIENT, &base));
    p->epochs = base.epochs;
    p->trials = trials->v;
    p->n = trials->n;
    return NULL;
}
