// SPDX-License-Identifier: Apache-2.0
/* Pushes: the rows of a batch become events of every view over their dataset. */
#include "feature/internal.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { OBSERVERS_MAX = 8, RINGS_BYTES = 256 << 20, VIEWS_LISTED = 1000, PLANS_MAX = 64 };
static const int64_t ahead_us = (int64_t)86400 * 1000000; /* a known time this far from now is a mistake */

/* Views over one dataset as they were defined at a time: immutable, shared by the pushes that began then. */
struct views {
    struct views *next;
    struct arena *a;
    _Atomic int refs;
    struct str project, dataset;
    struct view *v;
    size_t n;
};
struct cached_plan {
    struct str project, service;
    struct feature_plan *plan;
};
struct features {
    struct store *store;
    struct rings *rings;
    pthread_mutex_t lock; /* of the definitions below; never held while writing */
    struct arena *defs_a;
    struct views *views;
    int64_t defs_seq; /* event after which they were read */
    struct cached_plan plans[PLANS_MAX];
    size_t plans_n;
    struct push_observer observers[OBSERVERS_MAX];
    size_t observers_n;
    _Atomic int64_t pushes, rows, events, known, late;
};

err features_open(struct store *s, struct features **out)
{
    struct features *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->store = s;
    f->rings = rings_new(store_kv(s), RINGS_BYTES);
    pthread_mutex_init(&f->lock, NULL);
    f->defs_a = arena_new(0);
    *out = f;
    return NULL;
}

static void views_unref(struct views *w)
{
    if (w && atomic_fetch_sub(&w->refs, 1) == 1)
        arena_free(w->a); /* it lives in there itself */
}

static void defs_forget(struct features *f)
{
    for (size_t i = 0; i < f->plans_n; i++)
        feature_plan_free(f->plans[i].plan);
    f->plans_n = 0;
    for (struct views *w = f->views, *next; w; w = next) {
        next = w->next;
        views_unref(w);
    }
    f->views = NULL;
    arena_reset(f->defs_a);
}

void features_close(struct features *f)
{
    if (!f)
        return;
    defs_forget(f);
    arena_free(f->defs_a);
    rings_free(f->rings);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

struct rings *features_rings(struct features *f)
{
    return f->rings;
}

struct store *features_store(struct features *f)
{
    return f->store;
}

void feature_observe(struct features *f, struct push_observer o)
{
    if (f->observers_n < OBSERVERS_MAX)
        f->observers[f->observers_n++] = o;
}

void feature_metrics(void *features, struct buf *out)
{
    struct features *f = features;
    const struct {
        const char *name, *type, *doc;
        int64_t v;
    } m[] = {
        { "dhow_feature_pushes_total", "counter", "Pushes taken.", f->pushes },
        { "dhow_feature_push_rows_total", "counter", "Rows pushed.", f->rows },
        { "dhow_feature_push_events_total", "counter", "Events taken up, over all views.", f->events },
        { "dhow_feature_push_known_total", "counter", "Events that were there already.", f->known },
        { "dhow_feature_push_late_total", "counter", "Events older than every window.", f->late },
        { "dhow_feature_cache_bytes", "gauge", "Memory of recent events.", (int64_t)rings_bytes(f->rings) },
    };
    for (size_t i = 0; i < sizeof m / sizeof *m; i++)
        buf_fmt(out, "# HELP %s %s\n# TYPE %s %s\n%s %lld\n", m[i].name, m[i].doc, m[i].name, m[i].type,
                m[i].name, (long long)m[i].v);
}

/* ---- definitions ---- */

static err views_read(struct store *s, struct views *w)
{
    struct objects list = { 0 };
    TRY(object_list(s, w->a, S("FeatureView"), w->project, S(""), VIEWS_LISTED, &list));
    w->v = NEW_N(w->a, struct view, list.n + 1);
    for (size_t i = 0; i < list.n; i++) {
        struct feature_view_spec spec;
        struct resolved_view def;
        TRY(schema_read_text(&feature_view_spec_schema, w->a, S("spec"), list.v[i].spec, READ_LENIENT,
                             &spec));
        if (!str_eq(spec.dataset, w->dataset))
            continue;
        TRY(view_load(s, w->a, w->project, list.v[i].name, &def));
        TRY(view_compile(w->a, &def, &w->v[w->n++]));
    }
    return NULL;
}

static err views_new(struct store *s, struct str project, struct str dataset, struct views **out)
{
    struct arena *a = arena_new(0);
    struct views *w = NEW(a, struct views);
    w->a = a;
    w->refs = 1;
    w->project = str_dup(a, project);
    w->dataset = str_dup(a, dataset);
    err e = views_read(s, w);
    if (e) {
        arena_free(a);
        return e;
    }
    *out = w;
    return NULL;
}

/* Any event may have changed a definition: then they are read again (some 100 µs). */
static void defs_refresh(struct features *f)
{
    int64_t seq = event_last(f->store);
    if (seq == f->defs_seq)
        return;
    defs_forget(f);
    f->defs_seq = seq;
}

/* views_unref() them. */
static err views_get(struct features *f, struct str project, struct str dataset, struct views **out)
{
    LOCKED(&f->lock);
    defs_refresh(f);
    struct views *w = f->views;
    while (w && !(str_eq(w->project, project) && str_eq(w->dataset, dataset)))
        w = w->next;
    if (!w) {
        TRY(views_new(f->store, project, dataset, &w));
        w->next = f->views;
        f->views = w;
    }
    atomic_fetch_add(&w->refs, 1);
    *out = w;
    return NULL;
}

err features_plan(struct features *f, struct str project, struct str service, struct feature_plan **out)
{
    LOCKED(&f->lock);
    defs_refresh(f);
    for (size_t i = 0; i < f->plans_n; i++)
        if (str_eq(f->plans[i].project, project) && str_eq(f->plans[i].service, service)) {
            *out = feature_plan_ref(f->plans[i].plan);
            return NULL;
        }
    TRY(feature_plan_new(f->store, project, service, out));
    if (f->plans_n < PLANS_MAX)
        f->plans[f->plans_n++] = (struct cached_plan){ str_dup(f->defs_a, project),
                                                       str_dup(f->defs_a, service), feature_plan_ref(*out) };
    return NULL;
}

/* ---- pushing ---- */

static err known_check(const struct column *known, size_t rows)
{
    int64_t latest = now_us() + ahead_us;
    for (size_t i = 0; i < rows; i++) {
        if (column_null(known, i))
            FAIL(INVALID, "rows.%.*s[%zu] is missing: when the row was known", STR(known->name), i);
        if (known->i[i] > latest)
            FAIL(INVALID, "rows.%.*s[%zu] is more than a day from now", STR(known->name), i);
    }
    return NULL;
}

/* Without an id a row is told apart by what it holds. */
static uint64_t row_hash(const struct columns *batch, size_t row)
{
    uint64_t h = 0;
    for (size_t i = 0; i < batch->n; i++) {
        uint64_t two[2] = { h, column_null(&batch->v[i], row) ? 0x6e756c6c : event_id(&batch->v[i], row) };
        h = hash64((struct str){ (const char *)two, sizeof two });
    }
    return h;
}

static err view_push(struct apply *p, struct arena *a, struct str project, const struct view *v,
                     const struct columns *batch, struct push_result *out)
{
    struct view_columns c;
    uint8_t key[KEY_BYTES];
    fixed values[AGGREGATES_MAX];
    size_t key_n;
    TRY(view_bind(a, v, batch, &c));
    TRY(known_check(c.known, batch->rows));
    for (size_t i = 0; i < batch->rows; i++) {
        if (!key_encode(c.keys, v->def.keys.n, i, key, &key_n))
            continue; /* of no key, so in no row */
        for (size_t k = 0; k < v->columns.n; k++)
            values[k] = value_fixed(c.values[k], i);
        struct online_event e = { .known = c.known->i[i],
                                  .values = values,
                                  .id = c.id && !column_null(c.id, i) ? event_id(c.id, i)
                                                                      : row_hash(batch, i) };
        TRY(apply_events(p, project, v, (struct str){ (const char *)key, key_n }, &e, 1, out));
    }
    out->views++;
    return NULL;
}

static err views_push(struct features *f, struct arena *a, const struct views *w, const struct columns *batch,
                      struct push_result *out)
{
    struct apply *p;
    TRY(apply_begin(f->rings, a, &p));
    err e = NULL;
    for (size_t i = 0; i < w->n && !e; i++)
        e = view_push(p, a, w->project, &w->v[i], batch, out);
    if (!e)
        e = apply_flush(p);
    apply_end(p);
    return e;
}

err feature_push(struct features *f, struct arena *a, struct str project, struct str dataset,
                 const struct columns *batch, struct push_result *out)
{
    struct push_result r = { .rows = (int64_t)batch->rows };
    struct views *w;
    if (batch->rows > COLUMNS_ROWS_MAX)
        FAIL(TOO_LARGE, "%zu rows; at most %d are pushed at once", batch->rows, COLUMNS_ROWS_MAX);
    TRY(views_get(f, project, dataset, &w));
    err e = w->n && batch->rows ? views_push(f, a, w, batch, &r) : NULL;
    views_unref(w);
    TRY_AS(e, "pushing to dataset '%.*s'", STR(dataset));
    f->pushes++;
    f->rows += r.rows;
    f->events += r.events;
    f->known += r.known;
    f->late += r.late;
    for (size_t i = 0; i < f->observers_n; i++)
        f->observers[i].pushed(f->observers[i].self, project, dataset, batch);
    *out = r;
    return NULL;
}
