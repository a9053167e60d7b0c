// SPDX-License-Identifier: Apache-2.0
/* The observers, which find the Monitors of a deployment or a dataset; the reconciler; the lines of /metrics. */
#include "monitor/internal.h"
#include <stdlib.h>

/* ---- life ---- */

err monitors_open(const struct monitors_config *cfg, struct monitors **out)
{
    struct monitors *m = monitor_alloc(1, sizeof *m);
    pthread_rwlockattr_t fair; /* a busy deployment must not keep the reconciler out */
    m->cfg = *cfg;
    pthread_rwlockattr_init(&fair);
    pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&m->lock, &fair);
    pthread_rwlockattr_destroy(&fair);
    pthread_mutex_init(&m->step, NULL);
    if (cfg->serve)
        serve_observe(cfg->serve, (struct serve_observer){ m, monitors_predicted });
    if (cfg->features)
        feature_observe(cfg->features, (struct push_observer){ m, monitors_pushed });
    *out = m;
    return NULL;
}

void monitors_close(struct monitors *m)
{
    if (!m)
        return;
    for (struct watch *w; (w = m->first);) {
        m->first = w->next;
        watch_free(w);
    }
    pthread_rwlock_destroy(&m->lock);
    pthread_mutex_destroy(&m->step);
    free(m);
}

void monitors_set_control(struct monitors *m, struct control *control)
{
    m->control = control;
}

/* ---- the observers ---- */

static void watch_poke(struct monitors *m, const struct watch *w)
{
    if (m->control)
        control_poke(m->control, S("Monitor"), w->project, w->name);
}

static void watch_predicted(struct monitors *m, struct watch *w, const struct prediction *p)
{
    if (w->outcomes)
        outcomes_predicted(w->outcomes, p);
    if (w->lens && str_eq(lens_version(w->lens), p->version) && lens_add(w->lens, p))
        watch_poke(m, w);
}

void monitors_predicted(void *monitors, const struct prediction *p)
{
    struct monitors *m = monitors;
    uint64_t key = watch_key(p->project, p->deployment);
    pthread_rwlock_rdlock(&m->lock);
    for (struct watch *w = m->first; w; w = w->next)
        if (w->key == key && str_eq(w->spec.deployment, p->deployment) && str_eq(w->project, p->project))
            watch_predicted(m, w, p);
    pthread_rwlock_unlock(&m->lock);
}

/* The deployment's A/B test learns the same. */
static void outcomes_tell(const struct monitors *m, const struct watch *w, const struct column *id,
                          const struct column *label, size_t rows)
{
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; m->cfg.serve && i < rows; i++) {
        double y = column_f64(label, i);
        if (column_null(id, i) || !isfinite(y))
            continue;
        struct str text = id->type == COL_STR ? column_str(id, i) : column_text(a, id, i);
        if (!serve_outcome(m->cfg.serve, w->project, w->spec.deployment, text, y))
            return; /* there is none */
    }
}

/* First the rows are joined, then the clock moves: a window that the same push closes has them. */
static void watch_pushed(struct monitors *m, struct watch *w, const struct columns *batch)
{
    const struct column *id = columns_find(batch, w->id_column);
    const struct column *label = columns_find(batch, w->spec.outcome.label);
    const struct column *known = columns_find(batch, w->known_column);
    if (!id || !label || label->type == COL_STR)
        return;
    int64_t now = outcomes_pushed(w->outcomes, id, label, known && known->type == COL_TIME ? known : NULL,
                                  batch->rows);
    if (w->lens && lens_time(w->lens, now))
        watch_poke(m, w);
    outcomes_tell(m, w, id, label, batch->rows);
}

void monitors_pushed(void *monitors, struct str project, struct str dataset, const struct columns *batch)
{
    struct monitors *m = monitors;
    pthread_rwlock_rdlock(&m->lock);
    for (struct watch *w = m->first; w; w = w->next) {
        if (w->outcomes && str_eq(w->spec.outcome.dataset, dataset) && str_eq(w->project, project))
            watch_pushed(m, w, batch);
    }
    pthread_rwlock_unlock(&m->lock);
}

/* ---- the reconciler ---- */

static struct watch **watch_find(struct monitors *m, struct str project, struct str name)
{
    struct watch **at = &m->first;
    while (*at && !(str_eq((*at)->project, project) && str_eq((*at)->name, name)))
        at = &(*at)->next;
    return at;
}

static void watch_drop(struct monitors *m, struct watch **at)
{
    struct watch *w = *at;
    if (!w)
        return;
    pthread_rwlock_wrlock(&m->lock);
    *at = w->next;
    pthread_rwlock_unlock(&m->lock);
    watch_free(w);
}

static err monitor_step(struct monitors *m, struct arena *a, const struct object *o, int64_t *again_ms)
{
    struct watch **at = watch_find(m, o->project, o->name), *w = *at;
    if (o->id == 0) {
        watch_drop(m, at);
        return NULL;
    }
    if (!w) {
        w = watch_new(o->project, o->name);
        pthread_rwlock_wrlock(&m->lock);
        *at = w;
        pthread_rwlock_unlock(&m->lock);
    }
    if (w->generation != o->generation)
        TRY(watch_read(m, w, a, o));
    return watch_turn(m, w, a, false, again_ms);
}

/* A deployment or a model changed: whoever watches it looks again. */
static err others_step(struct monitors *m, struct arena *a, const struct object *o)
{
    bool model = str_is(o->kind, "Model");
    int64_t again_ms;
    for (struct watch *w = m->first; w; w = w->next)
        if (w->generation && str_eq(w->project, o->project) &&
            str_eq(model ? w->model : w->spec.deployment, o->name))
            TRY(watch_turn(m, w, a, true, &again_ms));
    return NULL;
}

static err step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                int64_t *again_ms)
{
    struct monitors *m = self;
    (void)ev;
    LOCKED(&m->step);
    return str_is(o->kind, "Monitor") ? monitor_step(m, a, o, again_ms) : others_step(m, a, o);
}

struct reconciler monitors_reconciler(struct monitors *m)
{
    static const char *const kinds[] = { "Monitor", "Deployment", "Model", NULL };
    return (struct reconciler){ .name = "monitor", .kinds = kinds, .step = step, .self = m };
}

/* ---- /metrics ---- */

struct shown {
    const struct watch *w;
    struct monitor_status st;
    int64_t predictions;
};
struct metric {
    const char *name, *type, *help;
    double (*of)(const struct shown *); /* NULL: many lines */
    void (*lines)(const struct shown *, const char *name, struct buf *out);
};

static void label_put(struct buf *out, struct str value)
{
    for (size_t i = 0; i < value.n; i++) {
        if (value.p[i] == '"' || value.p[i] == '\\')
            buf_str(out, S("\\"));
        buf_put(out, value.p[i] == '\n' ? " " : &value.p[i], 1);
    }
}

static void line_put(struct buf *out, const char *name, const struct shown *s, const char *label,
                     struct str value, double v)
{
    char number[32];
    if (isnan(v))
        return;
    buf_fmt(out, "%s{project=\"%.*s\",monitor=\"%.*s\",deployment=\"%.*s\"", name, STR(s->w->project),
            STR(s->w->name), STR(s->w->spec.deployment));
    if (label) {
        buf_fmt(out, ",%s=\"", label);
        label_put(out, value);
        buf_str(out, S("\""));
    }
    buf_fmt(out, "} %.*s\n", (int)f64_text(v, number), number);
}

/* Features of the version that is watched now; a gauge of the one before would keep its alert alive. */
static size_t drift_shown(const struct shown *s)
{
    return str_eq(s->st.judged.version, s->st.version) ? s->st.drift.n : 0;
}

static void wasserstein_lines(const struct shown *s, const char *name, struct buf *out)
{
    const struct monitor_drift *d = s->st.drift.v;
    for (size_t i = 0; i < drift_shown(s); i++)
        line_put(out, name, s, "feature", d[i].name, d[i].wasserstein);
}

static void psi_lines(const struct shown *s, const char *name, struct buf *out)
{
    const struct monitor_drift *d = s->st.drift.v;
    for (size_t i = 0; i < drift_shown(s); i++)
        line_put(out, name, s, "feature", d[i].name, d[i].psi);
}

static void auc_lines(const struct shown *s, const char *name, struct buf *out)
{
    const struct monitor_version *v = s->st.versions.v;
    for (size_t i = 0; i < s->st.versions.n; i++)
        line_put(out, name, s, "version", v[i].version, v[i].auc);
}

static double predictions_of(const struct shown *s)
{
    return (double)s->predictions;
}
static double late_of(const struct shown *s)
{
    return (double)s->st.late;
}
static double outcomes_of(const struct shown *s)
{
    return (double)s->st.outcomes;
}
static double unmatched_of(const struct shown *s)
{
    return (double)s->st.unmatched;
}
static double windows_of(const struct shown *s)
{
    return (double)s->st.windows_closed;
}
static double events_of(const struct shown *s)
{
    return (double)s->st.events;
}
static double alarm_of(const struct shown *s)
{
    return s->st.alarm;
}
static double share_of(const struct shown *s)
{
    return s->st.share;
}
static double window_auc_of(const struct shown *s)
{
    return s->st.auc;
}

// clang-format off
static const struct metric metrics[] = {
    { "dhow_monitor_predictions_total", "counter", "Predictions sketched for the version watched.", predictions_of, NULL },
    { "dhow_monitor_late_total", "counter", "Predictions left out for their time.", late_of, NULL },
    { "dhow_monitor_outcomes_total", "counter", "Outcomes that came in.", outcomes_of, NULL },
    { "dhow_monitor_outcomes_unmatched", "gauge", "Outcomes that no known prediction belongs to.", unmatched_of, NULL },
    { "dhow_monitor_windows_closed_total", "counter", "Windows closed.", windows_of, NULL },
    { "dhow_monitor_drifted_total", "counter", "Times that a drift was told.", events_of, NULL },
    { "dhow_monitor_alarm", "gauge", "0 none, 1 watching, 2 drifted.", alarm_of, NULL },
    { "dhow_monitor_drift_share", "gauge", "Share of the features over a bound in the last closed window.", share_of, NULL },
    { "dhow_monitor_drift_wasserstein", "gauge", "Normed Wasserstein distance in the last closed window.", NULL, wasserstein_lines },
    { "dhow_monitor_drift_psi", "gauge", "Population stability index in the last closed window.", NULL, psi_lines },
    { "dhow_monitor_window_auc", "gauge", "Realised AUC over the last closed window.", window_auc_of, NULL },
    { "dhow_monitor_auc", "gauge", "Realised AUC of a version since it was deployed.", NULL, auc_lines },
};
// clang-format on

static void shown_make(struct watch *w, struct arena *a, struct shown *out)
{
    struct lens_figures f = { 0 };
    *out = (struct shown){ .w = w };
    watch_status(w, a, &out->st);
    if (w->lens)
        lens_figures(w->lens, &f);
    out->predictions = f.total;
}

void monitors_metrics(void *monitors, struct buf *out)
{
    struct monitors *m = monitors;
    auto_arena struct arena *a = arena_new(0);
    struct {
        struct shown *v;
        size_t n, cap;
    } all = { 0 };
    pthread_rwlock_rdlock(&m->lock);
    for (struct watch *w = m->first; w; w = w->next) {
        struct shown s;
        shown_make(w, a, &s);
        push(a, &all, s);
    }
    for (size_t i = 0; all.n && i < sizeof metrics / sizeof *metrics; i++) {
        const struct metric *x = &metrics[i];
        buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n", x->name, x->help, x->name, x->type);
        for (size_t k = 0; k < all.n; k++)
            if (x->lines)
                x->lines(&all.v[k], x->name, out);
            else
                line_put(out, x->name, &all.v[k], NULL, S(""), x->of(&all.v[k]));
    }
    pthread_rwlock_unlock(&m->lock);
}
