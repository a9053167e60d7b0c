// SPDX-License-Identifier: Apache-2.0
/* Graphs of deployments and look-ups: what is checked, what they answer, whose fault an error is. */
#define SUITE serve_ensemble
#include "help.h"
#include "serve/policy.h"

static err check(struct arena *a, const char *yaml)
{
    struct strs docs = { 0 };
    struct ensemble spec;
    TRY(yaml_to_json(a, str_of(yaml), &docs));
    TRY(schema_read_text(&ensemble_schema, a, S("spec"), docs.v[0], 0, &spec));
    return ensemble_check(a, &spec);
}

TEST(graphs_are_checked)
{
    auto_arena struct arena *a = arena_new(0);
    static const struct {
        const char *yaml, *why; /* NULL: it is right */
    } rows[] = {
        { "steps: [{deployment: m, inputs: {x: a}, outputs: {y: b}}, {deployment: n, inputs: {x: b}, outputs: {y: c}}]",
          NULL },
        { "steps: [{deployment: n, inputs: {x: b}, outputs: {y: c}}, {deployment: m, inputs: {x: a}, outputs: {y: b}}]",
          NULL }, /* in whatever order they stand */
        { "steps: [{name: p, deployment: m, inputs: {x: a}, outputs: {y: b}}, {name: q, deployment: n, inputs: {x: b}, "
          "outputs: {y: a}}]",
          "step 'p' waits for itself" },
        { "steps: [{name: p, deployment: m, inputs: {x: a}, outputs: {y: a}}]", "step 'p' waits for itself" },
        { "steps: [{deployment: m, inputs: {x: a}, outputs: {y: b}}, {deployment: n, inputs: {x: a}, outputs: {y: b}}]",
          "steps '1' and '2' both make 'b'" },
        { "steps: [{name: p, deployment: m, inputs: {x: a}, outputs: {y: b}}, {name: p, deployment: n, inputs: {x: a}, "
          "outputs: {y: c}}]",
          "step 'p' is there twice" },
        { "steps: [{deployment: m, features: f, inputs: {x: a}, outputs: {y: b}}]",
          "either a deployment or features" },
        { "steps: [{inputs: {x: a}, outputs: {y: b}}]", "either a deployment or features" },
        { "steps: [{deployment: m, inputs: {x: a}}]", "no inputs or no outputs" },
        { "{steps: [{deployment: m, inputs: {x: a}, outputs: {y: b}}], outputs: [c]}", "no step makes 'c'" },
        { "{steps: [{deployment: m, inputs: {x: a}, outputs: {y: b}}], outputs: [a]}", "no step makes 'a'" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        err e = check(a, rows[i].yaml);
        if (!rows[i].why)
            CHECK_OK(e);
        else
            cr_assert(e && e->code == INVALID && has(e->text, rows[i].why), "%s: %.*s", rows[i].yaml,
                      STR(e ? e->text : S("is right")));
    }
}

/* ---- in a world ---- */

static const char *const features_yaml =
    "kind: Source\nmetadata: {name: raw}\nspec: {path: raw.csv, format: csv}\n---\n"
    "kind: Dataset\nmetadata: {name: flights}\nspec:\n  sources: [raw]\n  query: SELECT * FROM raw\n  id: id\n"
    "  eventTime: ts\n  knownAt: known\n  expect:\n"
    "    - {rule: schema, columns: {id: BIGINT, ts: TIMESTAMP, known: TIMESTAMP, origin: VARCHAR, distance: DOUBLE, far: DOUBLE}}\n"
    "---\nkind: FeatureService\nmetadata: {name: both}\nspec:\n"
    "  request: [{name: distance, function: value, column: distance}, {name: far, function: value, column: far}]\n";

static struct world *world_with(const char *ensemble)
{
    struct world *w = world_new();
    struct str out;
    CHECK_OK(lab_apply(&w->l, data_resources, features_yaml));
    CHECK_OK(lab_apply(&w->l, feature_resources, features_yaml));
    CHECK_OK(lab_apply(&w->l, serve_resources, ensemble)); /* before its steps are there */
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return w;
}

static void wait_ready(struct world *w)
{
    for (int i = 0; i < 2000; i++) {
        if (ask(w, M_GET, "/v2/models/all/ready", S("")).status == 200)
            return;
        nap();
    }
    cr_assert_fail("the ensemble is never ready: %.*s",
                   STR(ask(w, M_GET, "/api/v1/projects/default/deployments/all", S("")).body));
}

#define ALL(steps) "kind: Deployment\nmetadata: {name: all}\nspec: {ensemble: {steps: [" steps "]}}\n"
#define CHAIN(output)                                                                         \
    "{name: score, deployment: late, inputs: {features: row}, outputs: {" output ": late}}, " \
    "{name: look, features: both, inputs: {distance: d, far: f}, outputs: {features: row}}"
#define VALUES(name, v) "{\"name\":\"" name "\",\"shape\":[2],\"datatype\":\"FP64\",\"data\":[" v "]}"

TEST(a_look_up_feeds_a_model)
{
    struct world *w = world_with(ALL(CHAIN("probability")));
    wait_ready(w);
    CHECK_STR(want(w, M_GET, "/v2/models/all", "", 200).body,
              "{\"name\":\"all\",\"versions\":[\"1\"],\"platform\":\"ensemble\",\"inputs\":[{\"name\":\"d\","
              "\"datatype\":\"FP64\",\"shape\":[-1]},{\"name\":\"f\",\"datatype\":\"FP64\",\"shape\":[-1]}],"
              "\"outputs\":[{\"name\":\"late\",\"datatype\":\"FP32\",\"shape\":[-1,1]}]}");
    CHECK(has(want(w, M_GET, "/v2/models/all/config", "", 200).body,
              "{\"model_name\":\"late\",\"model_version\":-1,\"input_map\":{\"features\":\"row\"},"
              "\"output_map\":{\"probability\":\"late\"},\"model_namespace\":\"\"}"));
    CHECK(has(want(w, M_POST, "/v2/models/all/infer",
                   "{\"inputs\":[" VALUES("d", "0.2,0.7") "," VALUES("f", "1,2") "]}", 200)
                  .body,
              "\"model_version\":\"1\",\"outputs\":[{\"name\":\"late\",\"datatype\":\"FP32\",\"shape\":[2,1],"
              "\"data\":[0.26894143,0.7310586]}]"));
    CHECK(has(want(w, M_POST, "/v2/models/all/infer", "{\"inputs\":[" VALUES("d", "0.2,0.7") "]}", 400).body,
              "Got input(s) ['d'], but missing required input(s) ['f']"));
    world_free(w);
}

TEST(two_steps_may_share_an_input)
{
    struct world *w = world_with(ALL("{deployment: late, inputs: {features: x}, outputs: {probability: p}}, "
                                     "{deployment: late, inputs: {features: y}, outputs: {probability: q}}, "
                                     "{deployment: late, inputs: {features: x}, outputs: {probability: r}}"));
    wait_ready(w);
#define ROW(name, v) "{\"name\":\"" name "\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[" v ",0]}"
    struct str body = want(w, M_POST, "/v2/models/all/infer",
                           "{\"inputs\":[" ROW("y", "1") "," ROW(
                               "x", "0") "],\"outputs\":[{\"name\":\"q\"},{\"name\":"
                                         "\"r\"}]}",
                           200)
                          .body;
    CHECK(has(body, "[{\"name\":\"q\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[0.7310586]},"
                    "{\"name\":\"r\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[0.26894143]}]"));
    world_free(w);
}

static struct str told(struct world *w)
{
    for (int i = 0; i < 2000; i++) {
        yyjson_val *v;
        CHECK_OK(
            json_parse(w->l.a, ask(w, M_GET, "/api/v1/projects/default/deployments/all", S("")).body, &v));
        struct str text = json_at(yyjson_obj_get(v, "status"), "message");
        if (text.n && !has(text, "no version ready"))
            return text;
        nap();
    }
    return S("");
}

TEST(what_does_not_fit_is_told_with_its_step)
{
    struct world *w = world_with(ALL(CHAIN("verdict")));
    CHECK(has(told(w), "step 'score': there is no output 'verdict'"));
    world_free(w);
    w = world_with(ALL("{name: p, deployment: late, inputs: {features: x}, outputs: {probability: y}}, "
                       "{name: q, deployment: late, inputs: {features: y}, outputs: {probability: z}}"));
    wait_ready(w); /* [N, 1] for [N, 2]: known when it runs */
    CHECK(
        has(want(w, M_POST, "/v2/models/all/infer", "{\"inputs\":[" ROW("x", "1") "]}", 400).body,
            "step 'q': unexpected shape for input 'features' for model 'late'. Expected [-1,2], got [1,1]."));
    world_free(w);
    w = world_with(ALL("{name: p, deployment: all, inputs: {features: x}, outputs: {probability: y}}"));
    want(w, M_POST, "/v2/models/all/infer", "{\"inputs\":[" ROW("x", "1") "]}", 503);
    world_free(w);
}

#define NAMED(name, steps) \
    "kind: Deployment\nmetadata: {name: " name "}\nspec: {ensemble: {steps: [" steps "]}}\n"
#define ASKS(deployment, output) \
    "{deployment: " deployment ", inputs: {features: x}, outputs: {" output ": y}}"

TEST(ensembles_of_ensembles)
{
    struct world *w = world_with(
        ALL("{deployment: inner, inputs: {x: x}, outputs: {y: y}}, {deployment: late, inputs: {features: x}, "
            "outputs: {probability: z}}") "---\n" NAMED("inner", ASKS("late", "probability")));
    wait_ready(w);
    static const char *const body = "{\"inputs\":[" ROW("x", "1") "]}";
    CHECK(has(want(w, M_POST, "/v2/models/all/infer", body, 200).body,
              "[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[0.7310586]},"
              "{\"name\":\"z\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":[0.7310586]}]"));
    world_free(w);
}

/* What is said of a deployment comes to have `what` in it. */
static bool says(struct world *w, const char *name, const char *what)
{
    bool said = false;
    for (int i = 0; i < 2000 && !said; i++) {
        said = has(ask(w, M_GET, fmtz(w->l.a, "/api/v1/projects/default/deployments/%s", name), S("")).body,
                   what);
        nap();
    }
    return said;
}

TEST(an_ensemble_does_not_ask_itself)
{
    struct world *w = world_with(ALL("{deployment: inner, inputs: {x: x}, outputs: {y: y}}") "---\n" NAMED(
        "inner",
        "{deployment: third, inputs: {x: x}, outputs: {y: y}}") "---\n" NAMED("third",
                                                                              ASKS("late", "probability")));
    wait_ready(w);
    static const char *const body = "{\"inputs\":[" ROW("x", "1") "]}";
    want(w, M_POST, "/v2/models/all/infer", body, 200);
    want(
        w, M_PUT, "/api/v1/projects/default/deployments/third",
        "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"third\"},\"spec\":{\"ensemble\":"
        "{\"steps\":[{\"deployment\":\"all\",\"inputs\":{\"x\":\"x\"},\"outputs\":{\"y\":\"y\"}}]}}}",
        200);
    CHECK(says(w, "third", "asks itself"));
    want(w, M_POST, "/v2/models/all/infer", body, 200); /* what was there before answers on */
    world_free(w);
}

TEST(ensembles_are_eight_deep_at_most)
{
    struct world *w = world_with(NAMED("d1", ASKS("late", "probability")));
    for (int i = 2; i <= 9; i++) {
        const char *yaml = fmtz(w->l.a, NAMED("%s", "{deployment: d%d, inputs: {x: x}, outputs: {y: y}}"),
                                i == 9 ? "all" : fmtz(w->l.a, "d%d", i), i - 1);
        CHECK_OK(lab_apply(&w->l, serve_resources, yaml));
    }
    CHECK(says(w, "all", "8 deep at most"));
    want(w, M_POST, "/v2/models/d8/infer", "{\"inputs\":[" ROW("x", "1") "]}", 200);
    world_free(w);
}

TEST(the_steps_version_of_the_moment_answers)
{
    struct world *w = world_with(ALL("{deployment: late, inputs: {features: x}, outputs: {probability: y}}"));
    static const char *const body = "{\"inputs\":[" ROW("x", "1") "]}";
    wait_ready(w);
    CHECK(has(want(w, M_POST, "/v2/models/all/infer", body, 200).body, "[0.7310586]"));
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    CHECK_OK(alias_set(&w->l, ALIAS_CHAMPION, "late.2"));
    wait_version(w, "2");
    CHECK(has(want(w, M_POST, "/v2/models/all/infer", body, 200).body, "[0.880797"));
    world_free(w);
}

/* ---- a step is a request to its deployment ---- */

#define ONE_STEP ALL("{deployment: late, inputs: {features: x}, outputs: {probability: y}}")
#define ROW_BODY "{\"inputs\":[" ROW("x", "1") "]}"
#define LATE "/api/v1/projects/default/deployments/late"

static void late_put(struct world *w, const char *spec)
{
    want(
        w, M_PUT, LATE,
        fmtz(
            w->l.a,
            "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"late\"},\"spec\":%s}",
            spec),
        200);
}

static struct str metrics(struct world *w)
{
    struct buf b = buf_new(w->l.a);
    serve_metrics(w->serve, &b);
    return buf_get(&b);
}

/* The member of late's statistics of that version, as JSON. */
static struct str stats(struct world *w, const char *version)
{
    return want(w, M_GET, fmtz(w->l.a, "/v2/models/late/versions/%s/stats", version), "", 200).body;
}

TEST(steps_are_counted_where_they_run)
{
    struct world *w = world_with(ONE_STEP);
    wait_ready(w);
    for (int i = 0; i < 5; i++)
        want(w, M_POST, "/v2/models/all/infer", ROW_BODY, 200);
    CHECK(has(stats(w, "1"),
              "\"inference_count\":5,\"execution_count\":5,\"inference_stats\":{\"success\":{\"count\":5,"));
    CHECK(has(metrics(w),
              "nv_inference_request_success{project=\"default\",model=\"late\",version=\"1\"} 5\n"));
    CHECK(has(metrics(w), "nv_inference_exec_count{project=\"default\",model=\"late\",version=\"1\"} 5\n"));
    CHECK(has(metrics(w),
              "dhow_inference_in_flight{project=\"default\",deployment=\"late\",version=\"1\"} 0\n"));
    world_free(w);
}

TEST(traffic_chooses_the_version_of_a_step)
{
    struct world *w = world_with(ONE_STEP);
    int hits[3] = { 0 };
    version_made(&w->l, 2, step_model(w->l.a, 0.5f, -2, 2), true);
    late_put(
        w,
        "{\"model\":\"late\",\"traffic\":[{\"version\":\"late.1\",\"share\":1},{\"version\":\"late.2\",\"share\":1}]}");
    wait_ready(w);
    for (int i = 0; i < 2000 && !has(ask(w, M_GET, "/v2/models/late", S("")).body, "[\"1\",\"2\"]"); i++)
        nap();
    for (int i = 0; i < 100; i++) {
        struct str id = fmt(w->l.a, "r%d", i);
        for (int again = 0; again < 2; again++) { /* the same id meets the same version */
            struct str body = want(w, M_POST, "/v2/models/all/infer",
                                   fmtz(w->l.a, "{\"id\":\"%.*s\",\"inputs\":[" ROW("x", "1") "]}", STR(id)),
                                   200)
                                  .body;
            hits[has(body, "[0.7310586]") ? 1 : has(body, "[0.880797") ? 2 : 0]++;
            CHECK(has(want(w, M_POST, "/v2/models/late/infer",
                           fmtz(w->l.a, "{\"id\":\"%.*s\",\"inputs\":[" ROW("features", "1") "]}", STR(id)),
                           200)
                          .body,
                      has(body, "[0.7310586]") ? "\"model_version\":\"1\"" : "\"model_version\":\"2\""));
        }
    }
    CHECK(hits[0] == 0 && hits[1] > 40 && hits[2] > 40);
    world_free(w);
}

/* A step that sleeps is loaded for the ensemble's request, however often; asking the ensemble keeps it awake. */
TEST(a_step_that_sleeps_is_woken)
{
    struct world *w = world_with(ONE_STEP);
    wait_ready(w);
    late_put(w, "{\"model\":\"late\",\"version\":\"late.1\",\"idle\":\"300ms\"}");
    for (int round = 0; round < 2; round++) {
        CHECK(says(w, "late", "\"phase\":\"idle\""));
        want(w, M_GET, "/v2/models/all/ready", "", 200);
        CHECK(has(want(w, M_POST, "/v2/models/all/infer", ROW_BODY, 200).body, "[0.7310586]"));
    }
    for (int i = 0; i < 150; i++, nap())
        want(w, M_POST, "/v2/models/all/infer", ROW_BODY, 200);
    CHECK(!has(ask(w, M_GET, LATE, S("")).body, "\"phase\":\"idle\""));
    struct str index = want(w, M_POST, "/v2/repository/default/index", "{}", 200).body;
    CHECK(has(index, "{\"name\":\"all\",\"version\":\"1\",\"state\":\"READY\"}"));
    CHECK(!has(index, "UNAVAILABLE"));
    world_free(w);
}

TEST(an_ensemble_is_made_over_a_step_that_sleeps)
{
    struct world *w = world_with("");
    late_put(w, "{\"model\":\"late\",\"version\":\"late.1\",\"idle\":\"50ms\"}");
    CHECK(says(w, "late", "\"phase\":\"idle\""));
    CHECK_OK(lab_apply(&w->l, serve_resources, ONE_STEP));
    wait_ready(w);
    CHECK(says(w, "late", "\"phase\":\"idle\""));
    CHECK(has(want(w, M_POST, "/v2/models/all/infer", ROW_BODY, 200).body, "[0.7310586]"));
    world_free(w);
}

/* ---- loaded and unloaded together ---- */

static bool loaded(struct world *w, const char *name)
{
    return ask(w, M_GET, fmtz(w->l.a, "/v2/models/%s/ready", name), S("")).status == 200;
}

TEST(an_ensemble_may_be_unloaded_with_its_steps)
{
    struct world *w = world_with(ONE_STEP "---\n" NAMED("other", ASKS("late", "probability")));
    static const char *const with = "{\"parameters\":{\"unload_dependents\":true}}";
    wait_ready(w);
    CHECK(says(w, "other", "\"phase\":\"serving\""));
    want(w, M_POST, "/v2/repository/models/all/unload", "{\"parameters\":{\"unload_dependents\":\"yes\"}}",
         400);
    want(w, M_POST, "/v2/repository/models/all/unload", with, 200);
    CHECK(!loaded(w, "all") && loaded(w, "late")); /* the other one asks it */
    want(w, M_POST, "/v2/repository/models/other/unload", with, 200);
    CHECK(!loaded(w, "other") && !loaded(w, "late"));
    want(w, M_POST, "/v2/repository/models/all/load", "{}", 200); /* its steps first */
    CHECK(loaded(w, "all") && loaded(w, "late") && !loaded(w, "other"));
    want(w, M_POST, "/v2/models/all/infer", ROW_BODY, 200);
    want(w, M_POST, "/v2/repository/models/all/unload", "{}", 200);
    CHECK(!loaded(w, "all") && loaded(w, "late"));
    world_free(w);
}
