// SPDX-License-Identifier: Apache-2.0
#include "feature/internal.h"

enum { PUSH_BYTES = 16 << 20, ONLINE_BYTES = 4 << 20 };

static err body_member(struct req *r, const char *key, yyjson_val **out)
{
    yyjson_val *body;
    TRY(json_parse(r->a, r->body, &body));
    *out = yyjson_obj_get(body, key);
    if (!yyjson_is_obj(*out))
        return err_field(err_new(INVALID, "the body has no object \"%s\" of columns", key), str_of(key));
    return NULL;
}

static err push_run(struct req *r)
{
    struct features *f = (struct features *)r->route->self;
    struct str project = req_param(r, S("project")), dataset = req_param(r, S("name"));
    struct column_def *defs;
    struct columns batch;
    struct push_result done;
    yyjson_val *rows;
    size_t n;
    TRY(body_member(r, "rows", &rows));
    TRY(dataset_columns(features_store(f), r->a, project, dataset, &defs, &n));
    TRY(columns_read(r->a, S("rows"), rows, defs, n, COLUMNS_ROWS_MAX, 0, &batch));
    TRY(feature_push(f, r->a, project, dataset, &batch, &done));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_ki64(&j, "rows", done.rows);
    json_ki64(&j, "events", done.events);
    json_ki64(&j, "known", done.known);
    json_ki64(&j, "late", done.late);
    json_ki64(&j, "views", done.views);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

/* Rows of one request, computed: [row * n + i]. */
struct online_rows {
    double *features;
    uint8_t *status;
    int64_t *known;
    size_t rows, features_n, views_n;
};

static err rows_compute(struct req *r, struct features *f, const struct feature_plan *p,
                        const struct columns *in, struct online_rows *out)
{
    struct plan_binding *b = NEW(r->a, struct plan_binding);
    const struct str *names;
    struct kv_snap *snap;
    int64_t now = now_us();
    TRY(feature_plan_bind(p, in, b));
    *out = (struct online_rows){ .rows = in->rows,
                                 .features_n = feature_plan_features(p, &names),
                                 .views_n = feature_plan_views(p, &names) };
    if (in->rows > ((size_t)64 << 20) / (out->features_n * sizeof(double)))
        FAIL(TOO_LARGE, "%zu rows of %zu features are too many for one answer", in->rows, out->features_n);
    out->features = NEW_N(r->a, double, in->rows * out->features_n + 1);
    out->status = NEW_N(r->a, uint8_t, in->rows * out->views_n + 1);
    out->known = NEW_N(r->a, int64_t, in->rows * out->views_n + 1);
    TRY(kv_snap_begin(store_kv(features_store(f)), &snap));
    for (size_t i = 0; i < in->rows; i++)
        feature_plan_row(p, snap, in, b, i, now,
                         &(struct plan_row){ .features = out->features + i * out->features_n,
                                             .status = out->status + i * out->views_n,
                                             .known_at = out->known + i * out->views_n });
    kv_snap_end(snap);
    return NULL;
}

static void rows_write(struct arena *a, const struct feature_plan *p, const struct online_rows *o,
                       struct json *j)
{
    const struct str *features, *views;
    feature_plan_features(p, &features);
    feature_plan_views(p, &views);
    json_obj(j);
    json_key(j, S("features"));
    json_obj(j);
    for (size_t f = 0; f < o->features_n; f++) {
        json_key(j, features[f]);
        json_arr(j);
        for (size_t i = 0; i < o->rows; i++)
            json_f64(j, o->features[i * o->features_n + f]);
        json_arr_end(j);
    }
    json_obj_end(j);
    json_key(j, S("statuses"));
    json_obj(j);
    for (size_t v = 0; v < o->views_n; v++) {
        json_key(j, views[v]);
        json_arr(j);
        for (size_t i = 0; i < o->rows; i++)
            json_str(j, str_of(feature_statuses[o->status[i * o->views_n + v]]));
        json_arr_end(j);
    }
    json_obj_end(j);
    json_key(j, S("knownAt"));
    json_obj(j);
    for (size_t v = 0; v < o->views_n; v++) {
        json_key(j, views[v]);
        json_arr(j);
        for (size_t i = 0; i < o->rows; i++)
            if (o->status[i * o->views_n + v] == FEATURE_NOT_FOUND)
                json_null(j);
            else
                json_str(j, time_text(a, o->known[i * o->views_n + v]));
        json_arr_end(j);
    }
    json_obj_end(j);
    json_obj_end(j);
}

static err online_answer(struct req *r, struct features *f, const struct feature_plan *p,
                         yyjson_val *entities)
{
    struct columns in;
    struct online_rows rows;
    struct json j = json_new(r->a);
    TRY(feature_plan_read(p, r->a, S("entities"), entities, &in));
    TRY(rows_compute(r, f, p, &in, &rows));
    rows_write(r->a, p, &rows, &j);
    return req_reply_json(r, 200, &j);
}

static err online_run(struct req *r)
{
    struct features *f = (struct features *)r->route->self;
    struct feature_plan *p;
    yyjson_val *entities;
    TRY(body_member(r, "entities", &entities));
    TRY(features_plan(f, req_param(r, S("project")), req_param(r, S("name")), &p));
    err e = online_answer(r, f, p, entities);
    feature_plan_free(p);
    return e;
}

const struct route *feature_routes(struct features *f, struct arena *a)
{
    struct route *v = NEW_N(a, struct route, 3);
    v[0] = (struct route){
        .method = M_POST,
        .path = "/api/v1/projects/{project}/datasets/{name}/push",
        .run = push_run,
        .may = "features.write",
        .body_bytes_max = PUSH_BYTES,
        .self = f,
        .tag = "features",
        .since = "0.1",
        .doc = "New rows of a dataset: brings the online rows of all views over it up to date."
    };
    v[1] = (struct route){ .method = M_POST,
                           .path = "/api/v1/projects/{project}/featureservices/{name}/online",
                           .run = online_run,
                           .may = "features.online",
                           .body_bytes_max = ONLINE_BYTES,
                           .self = f,
                           .tag = "features",
                           .since = "0.1",
                           .doc = "Features of a service for the given entities, as they are known now." };
    return v;
}
