// SPDX-License-Identifier: Apache-2.0
/* The kinds, and services with every name resolved: what workers, pushes and plans all compute from. */
#include "feature/internal.h"

const char *const aggregate_functions[] = { "count", "sum", "mean", NULL };
const char *const feature_statuses[] = { "PRESENT", "NOT_FOUND", "OUTSIDE_MAX_AGE", NULL };

const char *const absences[] = { "null", "default", "refuse", NULL };

SCHEMA_TABLE(entity_spec, ENTITY_SPEC, "Something that features are about.");
SCHEMA_TABLE(view_aggregate, VIEW_AGGREGATE, "One aggregate over each window.");
SCHEMA_TABLE(feature_view_spec, FEATURE_VIEW_SPEC, "Rolling aggregates of a dataset's events, per entity.");
SCHEMA_TABLE(request_feature, REQUEST_FEATURE, "A feature computed from the request itself.");
SCHEMA_TABLE(feature_service_spec, FEATURE_SERVICE_SPEC, "The features that a model gets, in order.");
SCHEMA_TABLE(service_online, SERVICE_ONLINE, "What the online rows were last filled from.");
SCHEMA_TABLE(feature_service_status, FEATURE_SERVICE_STATUS, "How its online rows are.");
SCHEMA_TABLE(training_set_spec, TRAINING_SET_SPEC, "Label rows and the features they had at their time.");
SCHEMA_TABLE(build_with, BUILD_WITH, "Makes a version of a training set.");
SCHEMA_TABLE(materialize_with, MATERIALIZE_WITH, "Fills the online rows of a feature service.");
SCHEMA_TABLE(resolved_view, RESOLVED_VIEW, "A view with its names resolved.");
SCHEMA_TABLE(resolved_service, RESOLVED_SERVICE, "A service with its names resolved.");

/* ---- compiling ---- */

static int column_index(struct arena *a, struct strs *columns, struct str name)
{
    for (size_t i = 0; i < columns->n; i++)
        if (str_eq(columns->v[i], name))
            return (int)i;
    push(a, columns, name);
    return (int)columns->n - 1;
}

static err windows_compile(const struct resolved_view *def, struct view *v)
{
    for (size_t i = 0; i < def->windows.n && i < WINDOWS_MAX; i++) {
        int64_t ms;
        if (!duration_parse(def->windows.v[i], &ms) || ms <= 0 || ms > (int64_t)3650 * 86400000)
            FAIL(INVALID, "window '%.*s' is not a duration, as in 1h or 7d (at most 3650d)",
                 STR(def->windows.v[i]));
        v->window_us[i] = ms * 1000;
        v->longest_us = ms * 1000 > v->longest_us ? ms * 1000 : v->longest_us;
        for (size_t k = 0; k < i; k++)
            if (v->window_us[k] == v->window_us[i])
                FAIL(INVALID, "window '%.*s' is there twice", STR(def->windows.v[i]));
    }
    v->windows_n = def->windows.n;
    return NULL;
}

/* Whatever changes this hash makes rows and events kept online unreadable: they are skipped from then on. */
static uint64_t view_hash(const struct view *v)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    buf_fmt(&b, "view 1 %.*s %.*s", STR(v->def.dataset), STR(v->def.known_at));
    for (size_t i = 0; i < v->def.keys.n; i++)
        buf_fmt(&b, " k %.*s", STR(v->def.keys.v[i]));
    for (size_t i = 0; i < v->windows_n; i++)
        buf_fmt(&b, " w %lld", (long long)v->window_us[i]);
    for (size_t i = 0; i < v->aggregates_n; i++)
        buf_fmt(&b, " a %d %d", (int)v->aggregates[i].function, v->aggregates[i].column);
    for (size_t i = 0; i < v->columns.n; i++)
        buf_fmt(&b, " c %.*s", STR(v->columns.v[i]));
    return hash64(buf_get(&b));
}

err view_compile(struct arena *a, const struct resolved_view *def, struct view *out)
{
    struct view v = { .def = *def, .ttl_us = def->ttl * 1000, .aggregates_n = def->aggregates.n };
    const struct view_aggregate *g = def->aggregates.v;
    if (!def->keys.n || def->keys.n > KEYS_MAX || !def->windows.n || def->windows.n > WINDOWS_MAX)
        FAIL(INVALID, "view '%.*s': it has too few or too many keys or windows", STR(def->name));
    TRY_AS(windows_compile(def, &v), "view '%.*s'", STR(def->name));
    v.aggregates = NEW_N(a, struct aggregate, v.aggregates_n + 1);
    v.features = NEW_N(a, struct str, v.aggregates_n * v.windows_n + 1);
    for (size_t i = 0; i < v.aggregates_n; i++) {
        if (g[i].function != AGG_COUNT && !g[i].column.n)
            FAIL(INVALID, "view '%.*s': aggregate '%.*s' needs a column", STR(def->name), STR(g[i].name));
        v.aggregates[i].function = (enum aggregate_function)g[i].function;
        v.aggregates[i].column = g[i].column.n ? column_index(a, &v.columns, g[i].column) : -1;
    }
    for (size_t w = 0; w < v.windows_n; w++)
        for (size_t i = 0; i < v.aggregates_n; i++)
            v.features[v.features_n++] = fmt(a, "%.*s_%.*s_%.*s", STR(def->name), STR(g[i].name),
                                             STR(def->windows.v[w]));
    v.hash = view_hash(&v);
    *out = v;
    return NULL;
}

static err names_differ(const struct str *names, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < i; k++)
            if (str_eq(names[i], names[k]))
                FAIL(INVALID, "feature '%.*s' is there twice", STR(names[i]));
    return NULL;
}

err service_compile(struct arena *a, const struct resolved_service *def, struct service *out)
{
    struct service s = { .def = *def, .views_n = def->views.n };
    const struct request_feature *r = def->request.v;
    size_t n = def->request.n;
    s.views = NEW_N(a, struct view, s.views_n + 1);
    for (size_t i = 0; i < s.views_n; i++) {
        TRY(view_compile(a, (const struct resolved_view *)def->views.v + i, &s.views[i]));
        n += s.views[i].features_n;
    }
    if (!n || n > FEATURES_MAX)
        FAIL(INVALID, "service '%.*s' has %zu features; it may have 1 to %d", STR(def->service), n,
             FEATURES_MAX);
    s.features = NEW_N(a, struct str, n);
    for (size_t i = 0; i < s.views_n; i++)
        for (size_t k = 0; k < s.views[i].features_n; k++)
            s.features[s.features_n++] = s.views[i].features[k];
    for (int texts = 0; texts < 2; texts++)
        for (size_t i = 0; i < def->request.n; i++)
            if (request_is_text(&r[i]) == texts)
                s.features[s.features_n++] = r[i].name;
    TRY_AS(names_differ(s.features, s.features_n), "service '%.*s'", STR(def->service));
    for (size_t i = 0; i < def->request.n; i++)
        if (request_is_text(&r[i]))
            push(a, &s.texts, r[i].name);
    s.features_n -= s.texts.n;
    if (!s.features_n)
        FAIL(INVALID, "service '%.*s' has texts alone; a model wants a number, too", STR(def->service));
    s.text = schema_text(&resolved_service_schema, a, &s.def, WRITE_DEFAULTS);
    *out = s;
    return NULL;
}

err service_parse(struct arena *a, struct str text, struct service *out)
{
    struct resolved_service def;
    TRY(schema_read_text(&resolved_service_schema, a, S("definition"), text, READ_LENIENT, &def));
    return service_compile(a, &def, out);
}

/* ---- from the store ---- */

static err view_resolve(struct store *s, struct arena *a, struct str project, struct str name,
                        const struct feature_view_spec *spec, struct resolved_view *out)
{
    struct entity_spec entity;
    struct dataset_spec dataset;
    TRY(resource_get(s, a, &entity_resource, project, spec->entity, NULL, &entity, NULL));
    TRY(resource_get(s, a, &dataset_resource, project, spec->dataset, NULL, &dataset, NULL));
    TRY(dataset_events(&dataset, spec->dataset));
    *out = (struct resolved_view){ .name = name,
                                   .dataset = spec->dataset,
                                   .keys = entity.keys,
                                   .id = dataset.id,
                                   .event_time = dataset.event_time,
                                   .known_at = dataset.known_at.n ? dataset.known_at : dataset.event_time,
                                   .windows = spec->windows,
                                   .ttl = spec->ttl,
                                   .aggregates = spec->aggregates };
    return NULL;
}

err view_load(struct store *s, struct arena *a, struct str project, struct str name,
              struct resolved_view *out)
{
    struct feature_view_spec spec;
    TRY(resource_get(s, a, &feature_view_resource, project, name, NULL, &spec, NULL));
    TRY_AS(view_resolve(s, a, project, name, &spec, out), "FeatureView '%.*s'", STR(name));
    return NULL;
}

static err service_resolve(struct store *s, struct arena *a, struct str project, struct str name,
                           const struct feature_service_spec *spec, struct service *out)
{
    struct resolved_service def = { .service = name, .request = spec->request };
    struct resolved_view *views = NEW_N(a, struct resolved_view, spec->views.n + 1);
    for (size_t i = 0; i < spec->views.n; i++)
        TRY(view_load(s, a, project, spec->views.v[i], &views[i]));
    def.views = (struct list){ views, spec->views.n };
    return service_compile(a, &def, out);
}

err service_load(struct store *s, struct arena *a, struct str project, struct str name, struct service *out)
{
    struct feature_service_spec spec;
    TRY(resource_get(s, a, &feature_service_resource, project, name, NULL, &spec, NULL));
    TRY_AS(service_resolve(s, a, project, name, &spec, out), "FeatureService '%.*s'", STR(name));
    return NULL;
}

/* ---- checks ---- */

err view_default(const struct feature_view_spec *s, struct str aggregate, double *out)
{
    *out = 0;
    for (size_t i = 0; i < s->defaults.n; i++)
        if (str_eq(s->defaults.v[i].key, aggregate) && !str_f64(s->defaults.v[i].value, out))
            FAIL(INVALID, "spec.defaults.%.*s is no number", STR(aggregate));
    return NULL;
}

static err defaults_check(const struct feature_view_spec *s)
{
    const struct view_aggregate *g = s->aggregates.v;
    for (size_t i = 0; i < s->defaults.n; i++) {
        double x;
        size_t k = 0;
        while (k < s->aggregates.n && !str_eq(g[k].name, s->defaults.v[i].key))
            k++;
        if (k == s->aggregates.n)
            FAIL(INVALID, "spec.defaults: there is no aggregate '%.*s'", STR(s->defaults.v[i].key));
        TRY(view_default(s, g[k].name, &x));
    }
    return NULL;
}

static err view_check(const struct resource_check *c)
{
    const struct feature_view_spec *s = c->spec;
    struct resolved_view def = {
        .name = c->name, .windows = s->windows, .ttl = s->ttl, .aggregates = s->aggregates
    };
    struct view v;
    struct str key = S("key");
    push(c->a, &def.keys, key);
    TRY(view_compile(c->a, &def, &v));
    err e = names_differ(v.features, v.features_n);
    if (e)
        return err_field(e, S("spec.aggregates"));
    e = defaults_check(s);
    return e ? err_field(e, S("spec.defaults")) : NULL;
}

static err service_check(const struct resource_check *c)
{
    const struct feature_service_spec *s = c->spec;
    for (size_t i = 0; i < s->views.n; i++)
        for (size_t k = 0; k < i; k++)
            if (str_eq(s->views.v[i], s->views.v[k]))
                return err_field(err_new(INVALID, "spec.views: '%.*s' is there twice", STR(s->views.v[i])),
                                 S("spec.views"));
    if (!s->views.n && !s->request.n)
        return err_field(err_new(INVALID, "spec.views: a service needs a view or a request feature"),
                         S("spec.views"));
    return NULL;
}

static err training_set_check(const struct resource_check *c)
{
    struct object o;
    if (c->name.n > 55)
        FAIL(
            INVALID,
            "metadata.name: names of training sets have at most 55 characters, as versions are named after them");
    if (c->store && !object_get(c->store, c->a, S("Dataset"), c->project, c->name, &o))
        FAIL(CONFLICT, "there is a Dataset '%.*s'; versions of both would have the same names", STR(c->name));
    return NULL;
}

const struct resource feature_resources[] = {
    { .kind = "Entity",
      .plural = "entities",
      .one = "en",
      .doc = "Something that features are about, named by key columns.",
      .spec = &entity_spec_schema,
      .verbs = V_ALL },
    { .kind = "FeatureView",
      .plural = "featureviews",
      .one = "fv",
      .doc = "Rolling aggregates of a dataset's events, per entity.",
      .spec = &feature_view_spec_schema,
      .verbs = V_ALL,
      .check = view_check },
    { .kind = "FeatureService",
      .plural = "featureservices",
      .one = "fs",
      .doc = "The features that a model gets, in order.",
      .spec = &feature_service_spec_schema,
      .status = &feature_service_status_schema,
      .verbs = V_ALL,
      .check = service_check },
    { .kind = "TrainingSet",
      .plural = "trainingsets",
      .one = "ts",
      .doc = "Label rows and the features they had at their time.",
      .spec = &training_set_spec_schema,
      .status = &dataset_status_schema,
      .verbs = V_ALL,
      .check = training_set_check },
    { 0 },
};
