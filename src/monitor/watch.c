// SPDX-License-Identifier: Apache-2.0
/* One Monitor: follows its spec and the version that it watches, judges closed windows, writes the status. */
#include "monitor/internal.h"
#include <stdlib.h>

enum { WRITE_MS = 2000, WAIT_MS = 5000, STATUS_BYTES_MAX = 64 << 20 };

struct watch *watch_new(struct str project, struct str name)
{
    struct arena *a = arena_new(0);
    struct watch *w = NEW(a, struct watch);
    *w = (struct watch){ .a = a, .project = str_dup(a, project), .name = str_dup(a, name) };
    pthread_mutex_init(&w->m, NULL);
    w->status_a = arena_new(STATUS_BYTES_MAX);
    schema_defaults(&monitor_status_schema, w->status_a, &w->status);
    return w;
}

static void waiting_free(struct watch *w)
{
    for (struct closed *c; (c = w->waiting); closed_free(c))
        w->waiting = c->next;
}

void watch_free(struct watch *w)
{
    waiting_free(w);
    lens_free(w->lens);
    outcomes_free(w->outcomes);
    arena_free(w->spec_a);
    arena_free(w->status_a);
    pthread_mutex_destroy(&w->m);
    arena_free(w->a);
}

/* ---- the status ---- */

/* With room for one more. */
static void list_copy(struct arena *a, const struct list *from, size_t size, struct list *to)
{
    *to = (struct list){ arena_alloc(a, arena_mul(from->n + 1, size), 16), from->n };
    if (to->n)
        memcpy(to->v, from->v, to->n * size);
}

static void drift_copy(struct arena *a, const struct list *from, struct list *to)
{
    list_copy(a, from, sizeof(struct monitor_drift), to);
    for (size_t i = 0; i < to->n; i++) {
        struct monitor_drift *d = (struct monitor_drift *)to->v + i;
        d->name = str_dup(a, d->name);
    }
}

static void status_copy(const struct monitor_status *st, struct arena *a, struct monitor_status *out)
{
    *out = *st;
    out->version = str_dup(a, st->version);
    out->message = str_dup(a, st->message);
    out->judged.version = str_dup(a, st->judged.version);
    out->last_alarm.version = str_dup(a, st->last_alarm.version);
    out->last_alarm.reason = str_dup(a, st->last_alarm.reason);
    drift_copy(a, &st->drift, &out->drift);
    drift_copy(a, &st->last_alarm.features, &out->last_alarm.features);
    list_copy(a, &st->history, sizeof(struct monitor_past), &out->history);
    for (size_t i = 0; i < out->history.n; i++) {
        struct monitor_past *p = (struct monitor_past *)out->history.v + i;
        p->version = str_dup(a, p->version);
    }
    out->versions = (struct list){ 0 }; /* made anew when it is shown */
}

/* The status becomes st (made in a); event: data to be told with it, empty for none. */
static void status_set(struct watch *w, struct arena *a, const struct monitor_status *st, struct str event)
{
    LOCKED(&w->m);
    struct str untold = w->event.n && !event.n ? str_dup(a, w->event) : event;
    arena_free(w->status_a);
    w->status_a = a;
    w->status = *st;
    w->event = untold;
}

static void message_set(struct watch *w, struct str message)
{
    if (str_eq(w->status.message, message))
        return;
    struct arena *a = arena_new(STATUS_BYTES_MAX);
    struct monitor_status st;
    status_copy(&w->status, a, &st);
    st.message = str_dup(a, str_sub(message, 0, 2000));
    status_set(w, a, &st, S(""));
}

/* Another version is watched: its alarm starts anew. What was judged stays, unless it is of another deployment. */
static void status_anew(struct watch *w, struct str version, bool keep)
{
    struct arena *a = arena_new(STATUS_BYTES_MAX);
    struct monitor_status st;
    status_copy(&w->status, a, &st);
    st.version = str_dup(a, version);
    st.alarm = ALARM_NONE;
    st.since = st.drifted_at = st.streak = 0;
    st.auc = st.share = NAN;
    if (!keep) {
        schema_defaults(&monitor_judged_schema, a, &st.judged);
        schema_defaults(&monitor_told_schema, a, &st.last_alarm);
        st.drift = (struct list){ 0 };
    }
    status_set(w, a, &st, S(""));
}

static void versions_show(const struct outcome_figures *f, int64_t min, struct arena *a,
                          struct monitor_status *st)
{
    struct monitor_version *v = NEW_N(a, struct monitor_version, f->versions_n + 1);
    for (size_t i = 0; i < f->versions_n; i++) {
        bool enough = f->versions[i].n >= min;
        v[i] = (struct monitor_version){ .version = f->versions[i].version,
                                         .outcomes = f->versions[i].n,
                                         .auc = enough ? f->versions[i].auc : NAN,
                                         .auc_error = enough ? f->versions[i].error : NAN };
        if (str_eq(v[i].version, st->version)) {
            st->auc_total = v[i].auc;
            st->auc_error = v[i].auc_error;
        }
    }
    st->versions = (struct list){ v, f->versions_n };
}

void watch_status(struct watch *w, struct arena *a, struct monitor_status *out)
{
    struct lens_figures open = { 0 };
    struct outcome_figures joined = { 0 };
    pthread_mutex_lock(&w->m);
    status_copy(&w->status, a, out);
    pthread_mutex_unlock(&w->m);
    if (w->lens)
        lens_figures(w->lens, &open);
    out->late = open.late;
    out->auc_total = out->auc_error = NAN;
    if (w->outcomes)
        outcomes_figures(w->outcomes, a, &joined);
    out->window = (struct monitor_window){ .from = open.from,
                                           .until = open.until,
                                           .predictions = open.predictions,
                                           .outcomes = joined.window_n,
                                           .auc = joined.window_n >= w->spec.outcome.min ? joined.window_auc
                                                                                         : NAN };
    out->outcomes = joined.outcomes;
    out->unmatched = joined.outcomes - joined.matched;
    versions_show(&joined, w->spec.outcome.min, a, out);
}

struct writing {
    const struct watch *w;
    const struct monitor_status *status;
};

/* The alarm and its event stand or fall together: a crash between them can neither lose nor double it. */
static err status_tx(struct tx *tx, void *arg)
{
    const struct writing *x = arg;
    const struct watch *w = x->w;
    struct event ev = { .type = S("monitor.drifted"),
                        .kind = S("Monitor"),
                        .project = w->project,
                        .name = w->name,
                        .who = S("dhow"),
                        .data = w->event };
    if (w->event.n)
        TRY(event_append(tx, &ev, NULL));
    return resource_status_tx(tx, tx_arena(tx), &monitor_resource, w->project, w->name, -1, x->status);
}

static err status_write(struct monitors *m, struct watch *w, struct arena *a)
{
    struct monitor_status st;
    watch_status(w, a, &st);
    uint64_t h = hash64(schema_text(&monitor_status_schema, a, &st, 0));
    if (h != w->wrote_hash || w->event.n)
        TRY(store_write(m->cfg.store, status_tx, &(struct writing){ w, &st }));
    w->wrote_hash = h;
    w->wrote_ns = mono_ns();
    w->event = S("");
    return NULL;
}

/* ---- the spec ---- */

static bool outcome_same(const struct monitor_outcome *x, const struct monitor_outcome *y)
{
    return str_eq(x->dataset, y->dataset) && str_eq(x->id, y->id) && str_eq(x->label, y->label);
}

static void spec_take(struct monitors *m, struct watch *w, struct arena *a, const struct monitor_spec *spec)
{
    struct arena *old_a = w->spec_a;
    struct lens *lens = w->lens;
    struct outcomes *outcomes = NULL;
    pthread_rwlock_wrlock(&m->lock);
    if (!outcome_same(&w->spec.outcome, &spec->outcome)) {
        outcomes = w->outcomes;
        w->outcomes = NULL;
    }
    w->id_column = str_dup(a, w->outcomes ? w->id_column : S(""));
    w->known_column = str_dup(a, w->outcomes ? w->known_column : S(""));
    w->model = S("");
    w->spec = *spec;
    w->spec_a = a;
    w->key = watch_key(w->project, spec->deployment);
    w->lens = NULL;
    pthread_rwlock_unlock(&m->lock);
    waiting_free(w);
    lens_free(lens);
    outcomes_free(outcomes);
    arena_free(old_a);
}

static err status_first(struct watch *w, struct str text)
{
    struct arena *a = arena_new(STATUS_BYTES_MAX);
    struct monitor_status st;
    err e = schema_read_text(&monitor_status_schema, a, S("status"), text, READ_LENIENT, &st);
    if (e) {
        arena_free(a);
        return e;
    }
    status_set(w, a, &st, S(""));
    return NULL;
}

err watch_read(struct monitors *m, struct watch *w, struct arena *a, const struct object *o)
{
    struct arena *spec_a = arena_new(1 << 20);
    struct monitor_spec spec;
    (void)a;
    err e = schema_read_text(&monitor_spec_schema, spec_a, S("spec"), str_dup(spec_a, o->spec), READ_LENIENT,
                             &spec);
    if (!e && w->generation == 0 && o->status.n)
        e = status_first(w, o->status);
    if (e) {
        arena_free(spec_a);
        return e;
    }
    if (w->generation != 0)
        status_anew(w, w->status.version, str_eq(w->spec.deployment, spec.deployment));
    spec_take(m, w, spec_a, &spec);
    w->generation = o->generation;
    return NULL;
}

/* ---- the version that is watched ---- */

/* What the deployment names itself; empty: the model's aliases say it. */
static struct str named_by(const struct deployment_spec *d, enum monitor_watched which)
{
    if (which == WATCH_CHALLENGER)
        return d->ab_test.b;
    return d->version.n ? d->version : d->ab_test.a;
}

/* Empty with a message if there is none. */
static err watched_find(struct monitors *m, struct watch *w, struct arena *a, struct str *version,
                        struct str *message)
{
    struct deployment_spec d;
    enum monitor_watched which = w->spec.watch;
    *version = S("");
    err e = resource_get(m->cfg.store, a, &deployment_resource, w->project, w->spec.deployment, NULL, &d,
                         NULL);
    if (!e) {
        if (!str_eq(w->model, d.model))
            w->model = str_dup(w->spec_a, d.model);
        *version = named_by(&d, which);
        if (!version->n)
            e = registry_alias_get(m->cfg.store, a, w->project, d.model,
                                   which == WATCH_CHALLENGER ? ALIAS_CHALLENGER : ALIAS_CHAMPION, version);
    }
    if (e && e->code != NOT_FOUND)
        return e;
    *message = e            ? str_dup(a, e->text)
               : version->n ? S("")
                            : fmt(a, "model '%.*s' has no %s %s", STR(d.model), monitor_watches[which],
                                  which == WATCH_CHALLENGER ? "now" : "yet");
    if (e)
        *version = S("");
    return NULL;
}

/* The version's baseline; an empty one with a message if it has none that can be read. */
static err baseline_find(struct monitors *m, struct watch *w, struct arena *a, struct str version,
                         struct arena *to, struct baseline *out, struct str *message)
{
    struct model_version_spec v;
    struct str bytes;
    *out = (struct baseline){ 0 };
    err e = resource_get(m->cfg.store, a, &model_version_resource, w->project, version, NULL, &v, NULL);
    if (!e && !v.baseline.n) {
        *message = fmt(a, "version '%.*s' has no baseline: its drift cannot be measured", STR(version));
        return NULL;
    }
    if (!e)
        e = blob_get(store_blobs(m->cfg.store), a, v.baseline, &bytes);
    if (!e)
        e = baseline_read(to, bytes, out);
    if (e && e->code != NOT_FOUND && e->code != INVALID)
        return e;
    if (e) {
        *message = fmt(a, "baseline of '%.*s': %.*s", STR(version), STR(e->text));
        *out = (struct baseline){ 0 };
    }
    return NULL;
}

/* Where outcomes come from, once its dataset is there. */
static err outcomes_follow(struct monitors *m, struct watch *w, struct arena *a, struct str *message)
{
    const struct monitor_outcome *want = &w->spec.outcome;
    struct dataset_spec d = { 0 };
    if (w->outcomes || !want->dataset.n)
        return NULL;
    err e = resource_get(m->cfg.store, a, &dataset_resource, w->project, want->dataset, NULL, &d, NULL);
    if (e && e->code != NOT_FOUND)
        return e;
    if (!e)
        e = dataset_events(&d, want->dataset);
    if (e) {
        *message = str_dup(a, e->text);
        return NULL;
    }
    struct outcomes *o = outcomes_new(m->cfg.predictions_max);
    pthread_rwlock_wrlock(&m->lock);
    w->id_column = str_dup(w->spec_a, want->id.n ? want->id : d.id);
    w->known_column = str_dup(w->spec_a, d.known_at.n ? d.known_at : d.event_time);
    w->outcomes = o;
    pthread_rwlock_unlock(&m->lock);
    return NULL;
}

static void lens_replace(struct monitors *m, struct watch *w, struct lens *next)
{
    struct lens *before = w->lens;
    pthread_rwlock_wrlock(&m->lock);
    w->lens = next;
    pthread_rwlock_unlock(&m->lock);
    waiting_free(w);
    lens_free(before);
}

static err lens_load(struct monitors *m, struct watch *w, struct arena *a, struct str version,
                     struct str *message)
{
    struct arena *to = arena_new(0);
    struct baseline *base = NEW(to, struct baseline);
    err e = baseline_find(m, w, a, version, to, base, message);
    if (e) {
        arena_free(to);
        return e;
    }
    lens_replace(m, w, lens_new(to, base, version, w->spec.window * 1000, w->outcomes));
    if (!str_eq(w->status.version, version))
        status_anew(w, version, true);
    return NULL;
}

static err watched_follow(struct monitors *m, struct watch *w, struct arena *a)
{
    struct str version, message;
    bool had_outcomes = w->outcomes != NULL;
    TRY(watched_find(m, w, a, &version, &message));
    if (!version.n) {
        if (w->lens)
            lens_replace(m, w, NULL);
        message_set(w, message);
        return NULL;
    }
    TRY(outcomes_follow(m, w, a, &message));
    if (w->lens && str_eq(lens_version(w->lens), version) && had_outcomes == (w->outcomes != NULL))
        return NULL;
    TRY(lens_load(m, w, a, version, &message));
    message_set(w, message);
    return NULL;
}

/* ---- closed windows ---- */

static void history_add(struct list *history, const struct monitor_past *p)
{
    struct monitor_past *v = history->v;
    if (history->n >= MONITOR_HISTORY)
        memmove(v, v + 1, --history->n * sizeof *v);
    v[history->n++] = *p;
}

/* What is shown of it, until the next one is judged. */
static void judged_set(struct arena *a, const struct closed *c, const struct verdict *v,
                       struct monitor_status *st)
{
    for (size_t i = 0; i < v->n; i++)
        v->drift[i].name = str_dup(a, v->drift[i].name); /* the baseline's */
    st->drift = (struct list){ v->drift, v->n };
    st->judged = (struct monitor_judged){ .version = st->version,
                                          .from = c->from,
                                          .until = c->until,
                                          .at = now_us(),
                                          .predictions = c->predictions,
                                          .features = (int64_t)v->features,
                                          .over = (int64_t)v->features_over,
                                          .share = v->share,
                                          .outcomes = auc_count(c->auc),
                                          .auc = st->auc,
                                          .auc_error = isnan(st->auc) ? NAN : auc_error(c->auc) };
}

static void window_judge(struct watch *w, const struct closed *c)
{
    struct arena *a = arena_new(STATUS_BYTES_MAX);
    struct monitor_status st;
    struct verdict v;
    bool tell;
    status_copy(&w->status, a, &st);
    judge(a, &w->spec.features, lens_baseline(w->lens), c, &v);
    st.windows_closed++;
    st.share = v.share;
    st.auc = auc_count(c->auc) >= w->spec.outcome.min ? auc_value(c->auc) : NAN;
    history_add(&st.history, &(struct monitor_past){ .from = c->from,
                                                     .until = c->until,
                                                     .version = st.version,
                                                     .predictions = c->predictions,
                                                     .outcomes = auc_count(c->auc),
                                                     .share = v.share,
                                                     .auc = st.auc,
                                                     .wasserstein_max = v.wasserstein_max });
    if (v.judged)
        judged_set(a, c, &v, &st);
    tell = alarm_step(&w->spec, &v, c->until, &st);
    if (tell)
        alarm_tell(a, &v, c->until, &st);
    status_set(w, a, &st, tell ? drifted_data(a, &w->spec, &st.last_alarm, c) : S(""));
}

/* What could not be written stays: the event in w->event, further windows in w->waiting. */
static err windows_judge(struct monitors *m, struct watch *w, struct arena *a)
{
    if (w->event.n)
        TRY(status_write(m, w, a));
    struct closed **end = &w->waiting;
    while (*end)
        end = &(*end)->next;
    *end = w->lens ? lens_take(w->lens) : NULL;
    for (struct closed *c; (c = w->waiting);) {
        w->waiting = c->next;
        window_judge(w, c);
        closed_free(c);
        TRY(status_write(m, w, a));
    }
    return NULL;
}

err watch_turn(struct monitors *m, struct watch *w, struct arena *a, bool resolve, int64_t *again_ms)
{
    TRY(windows_judge(m, w, a));
    if (resolve || !w->lens || (w->spec.outcome.dataset.n && !w->outcomes))
        TRY(watched_follow(m, w, a));
    int64_t age_ms = (mono_ns() - w->wrote_ns) / 1000000;
    if (w->wrote_ns && age_ms < WRITE_MS) {
        *again_ms = WRITE_MS - age_ms;
        return NULL;
    }
    TRY(status_write(m, w, a));
    *again_ms = w->lens ? WRITE_MS : WAIT_MS;
    return NULL;
}
