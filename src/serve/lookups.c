// SPDX-License-Identifier: Apache-2.0
/* Rows of features by key, for requests and for the look-ups of ensembles: read, refused where a view says so, and counted
 * by view. */
#include "serve/infer.h"
#include <stdlib.h>

enum { SIGHTS_MAX = 4096 /* views of services that are counted apart; further ones are not */ };

/* What became of the look-ups of a view, for one service. Lives as long as the daemon. */
struct sight {
    struct sight *next;
    struct str project, service, view;
    _Atomic int64_t n[FEATURE_STATUSES];
};

static struct sight *sight_need(struct serve *s, struct str project, struct str service, struct str view)
{
    size_t n = 0;
    for (struct sight *x = s->sights; x; x = x->next, n++)
        if (str_eq(x->view, view) && str_eq(x->service, service) && str_eq(x->project, project))
            return x;
    if (n >= SIGHTS_MAX)
        return NULL;
    s->sights_a = s->sights_a ? s->sights_a : arena_new(0);
    struct sight *x = NEW(s->sights_a, struct sight);
    x->project = str_dup(s->sights_a, project);
    x->service = str_dup(s->sights_a, service);
    x->view = str_dup(s->sights_a, view);
    x->next = s->sights;
    return s->sights = x;
}

/* ---- plans ---- */

err plan_new(struct serve *s, struct str project, struct str service, struct plan **out)
{
    const struct str *views;
    struct feature_plan *p;
    TRY(feature_plan_new(s->store, project, service, &p));
    size_t n = feature_plan_views(p, &views);
    struct plan *plan = calloc(1, sizeof *plan + n * sizeof *plan->sights);
    if (!plan)
        abort();
    plan->refs = 1;
    plan->plan = p;
    for (size_t i = 0; i < n; i++)
        plan->sights[i] = sight_need(s, project, service, views[i]);
    *out = plan;
    return NULL;
}

void plan_unref(struct plan *p)
{
    if (!p || --p->refs)
        return;
    feature_plan_free(p->plan);
    free(p);
}

/* ---- rows ---- */

static err refuse(const struct feature_plan *p, size_t view, size_t row, enum feature_status why)
{
    const struct str *views;
    feature_plan_views(p, &views);
    if (why == FEATURE_NOT_FOUND)
        FAIL(NOT_FOUND, "view '%.*s' has no row for the keys of row %zu", STR(views[view]), row);
    FAIL(UNAVAILABLE, "view '%.*s': the row for the keys of row %zu is older than its ttl", STR(views[view]),
         row);
}

/* n: of one request, by view and status. */
static void sights_count(const struct plan *p, size_t views, const size_t (*n)[FEATURE_STATUSES])
{
    for (size_t v = 0; v < views; v++)
        for (size_t i = 0; p->sights[v] && i < FEATURE_STATUSES; i++)
            if (n[v][i])
                atomic_fetch_add_explicit(&p->sights[v]->n[i], (int64_t)n[v][i], memory_order_relaxed);
}

err plan_read(struct serve *s, const struct plan *plan, const struct columns *cols,
              const struct plan_binding *binding, int64_t now, struct plan_row *rows, bool each, float *x,
              int64_t *missing)
{
    const struct feature_plan *p = plan->plan;
    const struct str *names;
    size_t width = feature_plan_features(p, &names), views = feature_plan_views(p, &names);
    size_t n[VIEWS_MAX][FEATURE_STATUSES] = { 0 };
    err e = NULL;
    struct kv_snap *kv;
    TRY(kv_snap_begin(store_kv(s->store), &kv));
    for (size_t r = 0; r < cols->rows; r++) {
        const struct plan_row *row = &rows[each ? r : 0];
        feature_plan_row(p, kv, cols, binding, r, now, row);
        for (size_t v = 0; v < views; v++) {
            enum feature_status status = row->status[v];
            n[v][status]++;
            if (status != FEATURE_PRESENT && !e && feature_plan_refuses(p, v, status))
                e = refuse(p, v, r, status);
        }
        for (size_t f = 0; f < width; f++) {
            x[r * width + f] = (float)row->features[f];
            *missing += isnan(row->features[f]);
        }
    }
    kv_snap_end(kv);
    sights_count(plan, views, n);
    return e;
}

/* ---- /metrics ---- */

void lookups_put(struct serve *s, struct buf *out)
{
    static const char *const names[] = { "present", "missing", "stale" };
    LOCKED(&s->m);
    buf_str(out, S("# HELP dhow_inference_lookups_total Rows of views that requests looked up by key.\n"
                   "# TYPE dhow_inference_lookups_total counter\n"));
    for (const struct sight *x = s->sights; x; x = x->next)
        for (size_t i = 0; i < FEATURE_STATUSES; i++)
            buf_fmt(
                out,
                "dhow_inference_lookups_total{project=\"%.*s\",service=\"%.*s\",view=\"%.*s\",status=\"%s\"} %lld\n",
                STR(x->project), STR(x->service), STR(x->view), names[i],
                (long long)atomic_load_explicit(&x->n[i], memory_order_relaxed));
}
