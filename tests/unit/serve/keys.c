// SPDX-License-Identifier: Apache-2.0
/* Requests by key: features of the online store, bit for bit, and what they are refused for. */
#define SUITE serve_keys
#include "help.h"

static const char *const features_yaml =
    "kind: Source\nmetadata: {name: raw}\nspec: {path: raw.csv, format: csv}\n---\n"
    "kind: Dataset\nmetadata: {name: flights}\nspec:\n  sources: [raw]\n  query: SELECT * FROM raw\n  id: id\n"
    "  eventTime: ts\n  knownAt: known\n  expect:\n"
    "    - {rule: schema, columns: {id: BIGINT, ts: TIMESTAMP, known: TIMESTAMP, origin: VARCHAR, distance: BIGINT, delay: DOUBLE}}\n---\n"
    "kind: Entity\nmetadata: {name: origin}\nspec: {keys: [origin]}\n---\n"
    "kind: FeatureView\nmetadata: {name: recent}\nspec:\n  dataset: flights\n  entity: origin\n  windows: [1h]\n  ttl: 1h\n"
    "  aggregates: [{name: delay, function: mean, column: delay}]\n---\n"
    "kind: FeatureService\nmetadata: {name: late_features}\nspec:\n  views: [recent]\n"
    "  request: [{name: distance, function: value, column: distance}]\n";

struct online {
    struct world *w;
    struct features *features;
};

static const char *stamp = "2001-05-01T10:00:00";

static void push_delays(struct online *o, const char *origin, const double *delays, size_t n)
{
    struct columns t = { .rows = n };
    struct arena *a = o->w->l.a;
    struct push_result r;
    int64_t at;
    CHECK(time_parse(str_of(stamp), &at));
    struct column *id = columns_add(a, &t, S("id"), COL_I64), *ts = columns_add(a, &t, S("ts"), COL_TIME);
    struct column *known = columns_add(a, &t, S("known"), COL_TIME),
                  *key = columns_add(a, &t, S("origin"), COL_STR);
    struct column *distance = columns_add(a, &t, S("distance"), COL_I64),
                  *delay = columns_add(a, &t, S("delay"), COL_F64);
    key->dict = NEW_N(a, struct str, 1);
    key->dict[0] = str_of(origin);
    key->dict_n = 1;
    for (size_t i = 0; i < n; i++) {
        id->i[i] = (int64_t)i;
        ts->i[i] = known->i[i] = at - (int64_t)(n - i) * 60000000;
        distance->i[i] = 1;
        delay->f[i] = delays[i];
    }
    CHECK_OK(feature_push(o->features, a, S("default"), S("flights"), &t, &r));
    CHECK(r.events == (int64_t)n);
}

static void version_of_features(struct world *w, const char *names)
{
    struct feature_plan *plan;
    CHECK_OK(feature_plan_new(w->l.store, S("default"), S("late_features"), &plan));
    struct model_version_spec v = { .model = S("late"),
                                    .number = 1,
                                    .service = S("late_features"),
                                    .signature = fmt(w->l.a, "{\"features\":%s}", names),
                                    .definition = str_dup(w->l.a, feature_plan_definition(plan)) };
    struct model_version_status passed = { .state = VERSION_PASSED };
    feature_plan_free(plan);
    CHECK_OK(blob_put(store_blobs(w->l.store), w->l.a, step_model(w->l.a, 0.5f, -1, 1), &v.onnx));
    CHECK_OK(
        resource_create(w->l.store, w->l.a, &model_version_resource, S("t"), S("default"), S("late.1"), &v));
    CHECK_OK(
        resource_status(w->l.store, w->l.a, &model_version_resource, S("default"), S("late.1"), -1, &passed));
}

static struct online online_new(const char *names)
{
    struct online o = { .w = world_new() };
    struct world *w = o.w;
    struct str out;
    CHECK_OK(features_open(w->l.store, &o.features));
    CHECK_OK(lab_apply(&w->l, data_resources, features_yaml));
    CHECK_OK(lab_apply(&w->l, feature_resources, features_yaml));
    version_of_features(w, names);
    deployment_make(
        w, "kind: Deployment\nmetadata: {name: late}\nspec: {model: late, service: late_features}\n");
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return o;
}

static void online_free(struct online *o)
{
    features_close(o->features);
    world_free(o->w);
}

#define INFER "/v2/models/late/infer"
#define BODY(entities, more) "{\"entities\":{" entities "}" more "}"
#define LOOKUPS \
    "dhow_inference_lookups_total{project=\"default\",service=\"late_features\",view=\"recent\",status="
#define NAMES "[\"recent_delay_1h\",\"distance\"]"

static yyjson_val *output_of(struct world *w, struct str body, size_t i)
{
    yyjson_val *v;
    CHECK_OK(json_parse(w->l.a, body, &v));
    return yyjson_obj_get(yyjson_arr_get(yyjson_obj_get(v, "outputs"), i), "data");
}

TEST(features_come_from_the_keys_of_the_request)
{
    struct online o = online_new(NAMES);
    const double delays[] = { 0.1, 0.2, 0.4 };
    push_delays(&o, "ATL", delays, 3);
    struct str body =
        want(o.w, M_POST, INFER,
             BODY("\"origin\":[\"ATL\",\"ZZZ\",null],\"distance\":[700,5,null],"
                  "\"ts\":[\"2001-05-01T10:00:00\",\"2001-05-01T10:00:00\",null]",
                  ",\"id\":\"q\",\"ids\":[\"7\",8,\"9\"],\"parameters\":{\"return_features\":true}"),
             200)
            .body;
    yyjson_val *p = output_of(o.w, body, 0), *f = output_of(o.w, body, 1), *k = output_of(o.w, body, 2);
    CHECK(has(body, "{\"name\":\"features\",\"datatype\":\"FP64\",\"shape\":[3,2]"));
    CHECK(has(body, "{\"name\":\"known_at\",\"datatype\":\"INT64\",\"shape\":[3,1]"));
    CHECK(yyjson_arr_size(p) == 3 && yyjson_arr_size(f) == 6 && yyjson_arr_size(k) == 3);
    CHECK(fabs(yyjson_get_num(yyjson_arr_get(f, 0)) - 0.7 / 3) < 1e-8);
    CHECK(yyjson_get_num(yyjson_arr_get(f, 1)) == 700 && yyjson_get_num(yyjson_arr_get(f, 3)) == 5);
    CHECK(yyjson_is_null(yyjson_arr_get(f, 2)) && yyjson_is_null(yyjson_arr_get(f, 4)) &&
          yyjson_is_null(yyjson_arr_get(f, 5)));
    int64_t at;
    CHECK(time_parse(str_of(stamp), &at));
    CHECK(yyjson_get_sint(yyjson_arr_get(k, 0)) == at - 60000000 &&
          yyjson_get_sint(yyjson_arr_get(k, 1)) == 0);
    struct buf b = buf_new(o.w->l.a);
    serve_metrics(o.w->serve, &b);
    CHECK(has(
        buf_get(&b),
        "dhow_inference_missing_features_total{project=\"default\",deployment=\"late\",version=\"1\"} 3\n"));
    CHECK(has(buf_get(&b), LOOKUPS "\"present\"} 1\n") && has(buf_get(&b), LOOKUPS "\"missing\"} 2\n"));
    online_free(&o);
}

/* ---- what a view says of rows that are missing or old ---- */

static void view_says(struct online *o, const char *more)
{
    want(
        o->w, M_PUT, "/api/v1/projects/default/featureviews/recent",
        fmtz(
            o->w->l.a,
            "{\"apiVersion\":\"dhow/v1\",\"kind\":\"FeatureView\",\"metadata\":{\"name\":\"recent\"},\"spec\":{\"dataset\":"
            "\"flights\",\"entity\":\"origin\",\"windows\":[\"1h\"],\"ttl\":\"1h\",\"aggregates\":[{\"name\":\"delay\","
            "\"function\":\"mean\",\"column\":\"delay\"}]%s}}",
            more),
        200);
}

/* Until the answer says `part`: the reconciler has seen the view by then. */
static void wait_answer(struct online *o, const char *origin, const char *ts, int status, const char *part)
{
    struct http_reply r = { 0 };
    const char *body = fmtz(
        o->w->l.a,
        BODY("\"origin\":[\"ATL\",\"%s\"],\"distance\":[1,1],\"ts\":[\"2001-05-01T10:00:00\",\"%s\"]",
             ",\"parameters\":{\"return_features\":true}"),
        origin, ts);
    for (int i = 0; i < 2000; i++, nap()) {
        r = ask(o->w, M_POST, INFER, str_of(body));
        if (r.status == status && has(r.body, part))
            return;
    }
    cr_assert_fail("never %d with %s: %d %.*s", status, part, r.status, STR(r.body));
}

TEST(a_view_says_what_stands_for_rows_that_are_missing_or_old)
{
    struct online o = online_new(NAMES);
    const double delays[] = { 4 };
    push_delays(&o, "ATL", delays, 1);
    view_says(&o, ",\"missing\":\"default\",\"stale\":\"refuse\",\"defaults\":{\"delay\":-7}");
    wait_answer(&o, "ZZZ", stamp, 200, "\"data\":[4,1,-7,1]");
    wait_answer(&o, "ATL", "2001-05-01T12:00:00", 503, "the row for the keys of row 1 is older than its ttl");
    view_says(&o, ",\"missing\":\"refuse\",\"stale\":\"default\"");
    wait_answer(&o, "ZZZ", stamp, 404, "view 'recent' has no row for the keys of row 1");
    wait_answer(&o, "ATL", "2001-05-01T12:00:00", 200, "\"data\":[4,1,0,1]");
    struct buf b = buf_new(o.w->l.a);
    serve_metrics(o.w->serve, &b);
    CHECK(!has(buf_get(&b), LOOKUPS "\"missing\"} 0\n") && !has(buf_get(&b), LOOKUPS "\"stale\"} 0\n"));
    want(
        o.w, M_PUT, "/api/v1/projects/default/featureviews/recent",
        "{\"apiVersion\":\"dhow/v1\",\"kind\":\"FeatureView\",\"metadata\":{\"name\":\"recent\"},\"spec\":{\"dataset\":\"flights\","
        "\"entity\":\"origin\",\"windows\":[\"1h\"],\"aggregates\":[{\"name\":\"delay\",\"function\":\"mean\",\"column\":\"delay\"}],"
        "\"defaults\":{\"dely\":0}}}",
        400);
    online_free(&o);
}

TEST(keys_that_break_a_rule_are_refused)
{
    static const char *const bodies[] = {
        BODY("", ""),
        BODY("\"origin\":[\"ATL\"]", ""),
        BODY("\"distance\":[1]", ""),
        BODY("\"origin\":[\"ATL\"],\"distance\":[1,2]", ""),
        BODY("\"origin\":[7],\"distance\":[1]", ""),
        BODY("\"origin\":\"ATL\",\"distance\":1", ""),
        BODY("\"origin\":[],\"distance\":[]", ""),
        BODY("\"origin\":[\"ATL\"],\"distance\":[1]", ",\"ids\":[1,2]"),
        BODY("\"origin\":[\"ATL\"],\"distance\":[1],\"ts\":[\"yesterday\"]", ""),
        BODY("\"origin\":[\"ATL\"],\"distance\":[1]", ",\"parameters\":{\"version\":[1]}"),
        "{\"entities\":[]}",
    };
    struct online o = online_new(NAMES);
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++)
        want(o.w, M_POST, INFER, bodies[i], 400);
    want(o.w, M_POST, INFER,
         BODY("\"origin\":[\"ATL\"],\"distance\":[1]", ",\"parameters\":{\"version\":\"9\"}"), 404);
    want(o.w, M_POST, INFER, BODY("\"origin\":[\"ATL\"],\"distance\":[1]", ",\"parameters\":{\"version\":1}"),
         200);
    CHECK(has(want(o.w, M_GET, "/v2/models/late", "", 200).body,
              "\"entities\":[{\"name\":\"origin\",\"type\":\"VARCHAR\",\"key\":true"));
    online_free(&o);
}

TEST(other_features_than_it_was_trained_on_are_not_served)
{
    struct online o = online_new("[\"something_else\",\"distance\"]");
    struct http_reply r = want(o.w, M_POST, INFER, BODY("\"origin\":[\"ATL\"],\"distance\":[1]", ""), 503);
    CHECK(has(r.body,
              "feature 0 of version late.1 is something_else, service late_features gives recent_delay_1h"));
    CHECK(has(deployment_now(o.w).message, "something_else"));
    online_free(&o);
}
