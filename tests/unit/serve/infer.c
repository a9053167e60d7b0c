// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_infer
#include "help.h"

static struct world *one_version(void)
{
    struct world *w = world_new();
    struct str out;
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return w;
}

#define INFER "/v2/models/late/infer"
#define IN(shape, type, data) \
    "{\"inputs\":[{\"name\":\"features\",\"shape\":" shape ",\"datatype\":\"" type "\",\"data\":" data "}]}"

TEST(what_breaks_a_rule_is_refused)
{
    static const char *const bodies[] = {
        "",
        "{",
        "[]",
        "{}",
        "{\"inputs\":[]}",
        "{\"inputs\":{}}",
        "{\"inputs\":[1]}",
        "{\"inputs\":[],\"entities\":{}}",
        "{\"inputs\":[],\"inptus\":[]}",
        "{\"id\":7,\"inputs\":[]}",
        IN("[1,3]", "FP32", "[1,2,3]"),
        IN("[1]", "FP32", "[1]"),
        IN("[1,2]", "FP64", "[1,2]"),
        IN("[1,2]", "FP99", "[1,2]"),
        IN("[1,2]", "FP32", "[1]"),
        IN("[1,2]", "FP32", "[1,2,3]"),
        IN("[1,2]", "FP32", "[\"1\",2]"),
        IN("[1,2]", "FP32", "[1e400,2]"),
        IN("[1,2]", "FP32", "[1e39,2]"),
        IN("[1,2]", "FP32", "[nan,2]"),
        IN("[1,2]", "FP32", "[-NaN,2]"),
        IN("[1,2]", "FP32", "[true,2]"),
        IN("[1,2]", "FP32", "[[1],[2]]"),
        IN("[2,2]", "FP32", "[[1,2],3,4]"),
        IN("[2,2]", "FP32", "[[1,2],[3,[4]]]"),
        IN("[-1,2]", "FP32", "[1,2]"),
        IN("[0,2]", "FP32", "[]"),
        IN("[1.5,2]", "FP32", "[1,2]"),
        IN("[4611686018427387904,16]", "FP32", "[1,2]"),
        IN("[1152921504606846976,16]", "FP32", "[1,2]"),
        IN("[18446744073709551615,2]", "FP32", "[1,2]"),
        IN("[1,1,1,1,1,1,1,1,1,1,2]", "FP32", "[1,2]"),
        IN("[2147483647,2]", "FP32", "[1,2]"),
        IN("[1,2]", "BYTES", "[\"a\",\"b\"]"),
        IN("[1,2]", "FP32", "7"),
        IN("\"x\"", "FP32", "[1,2]"),
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\"}]}",
        "{\"inputs\":[{\"name\":\"nothing\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2],\"x\":01}]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]},"
        "{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}],"
        "\"outputs\":[{\"name\":\"probability\"},{\"name\":\"probability\"}]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}],"
        "\"outputs\":[{\"name\":\"other\"}]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}],\"ids\":[1,2]}",
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}],\"parameters\":7}",
    };
    struct world *w = one_version();
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct http_reply r = want(w, M_POST, INFER, bodies[i], 400);
        CHECK(has(r.body, "{\"error\":\""));
    }
    want(w, M_POST, INFER, IN("[1,2]", "FP32", "[1,2]"), 200);
    want(w, M_POST, INFER, IN("[2,2]", "FP32", "[[NaN,2],[Infinity,-Infinity]]"), 200);
    world_free(w);
}

TEST(deep_bodies_do_not_hurt)
{
    struct world *w = one_version();
    const size_t n = 200000;
    static const char marks[] = "[{";
    for (int m = 0; m < 2; m++) {
        char *body = NEW_N(w->l.a, char, 8 * n);
        size_t at = (size_t)snprintf(body, 64, "{\"inputs\":");
        for (size_t i = 0; i < n; i++)
            at += (size_t)snprintf(body + at, 8, m ? "{\"a\":" : "%c", marks[m]);
        int status = ask(w, M_POST, INFER, (struct str){ body, at }).status;
        CHECK(status == 400 || status == 413);
    }
    want(w, M_POST, INFER, IN("[1,2]", "FP32", "[1,2]"), 200);
    world_free(w);
}

TEST(names_and_versions_that_are_not_there)
{
    struct world *w = one_version();
    want(w, M_POST, "/v2/models/none/infer", IN("[1,2]", "FP32", "[1,2]"), 404);
    want(w, M_POST, "/v2/models/..%2flate/infer", IN("[1,2]", "FP32", "[1,2]"), 400);
    want(w, M_POST, "/v2/models/late/versions/9/infer", IN("[1,2]", "FP32", "[1,2]"), 404);
    want(w, M_POST, "/v2/models/late/versions/1/infer", IN("[1,2]", "FP32", "[1,2]"), 200);
    want(w, M_POST, "/v2/models/late/versions/late.1/infer", IN("[1,2]", "FP32", "[1,2]"), 200);
    want(w, M_GET, "/v2/models/none", "", 404);
    want(w, M_GET, "/v2/models/late/versions/9", "", 404);
    want(w, M_GET, "/v2/models/late/versions/1/ready", "", 200);
    world_free(w);
}

TEST(the_protocol_tells_of_server_and_models)
{
    struct world *w = one_version();
    CHECK_STR(want(w, M_GET, "/v2/health/live", "", 200).body, "{\"live\":true}");
    CHECK_STR(want(w, M_GET, "/v2/health/ready", "", 200).body, "{\"ready\":true}");
    CHECK(has(want(w, M_GET, "/v2", "", 200).body, "{\"name\":\"dhow\",\"version\":"));
    CHECK_STR(want(w, M_GET, "/v2/models", "", 200).body, "{\"models\":[\"late\"]}");
    CHECK_STR(want(w, M_GET, "/v2/models/late/ready", "", 200).body, "{\"name\":\"late\",\"ready\":true}");
    CHECK_STR(
        want(w, M_GET, "/v2/models/late", "", 200).body,
        "{\"name\":\"late\",\"versions\":[\"1\"],\"platform\":\"onnxruntime_onnx\",\"inputs\":[{\"name\":\"features\","
        "\"datatype\":\"FP32\",\"shape\":[-1,2]}],\"outputs\":[{\"name\":\"probability\",\"datatype\":\"FP32\","
        "\"shape\":[-1,1]}]}");
    world_free(w);
}

TEST(without_a_token_nothing_is_answered)
{
    struct world *w = one_version();
    struct http *stranger;
    struct http_reply r;
    CHECK_OK(http_open(w->url, S(""), 10000, &stranger));
    CHECK_OK(http_do(stranger, w->l.a, M_POST, S(INFER), S("application/json"), S("{}"), &r));
    CHECK(r.status == 401);
    CHECK_OK(http_do(stranger, w->l.a, M_GET, S("/v2/health/ready"), S(""), S(""), &r));
    CHECK(r.status == 200);
    http_close(stranger);
    world_free(w);
}

/* ---- observers and counts ---- */

struct seen {
    _Atomic int calls;
    size_t n, features;
    float score, feature;
    bool ids, names;
};

static void on_prediction(void *self, const struct prediction *p)
{
    struct seen *s = self;
    s->n = p->n;
    s->features = p->n_features;
    s->feature = p->features[2];
    s->score = p->scores[1];
    s->ids = p->ids && str_is(p->ids[1], "77");
    s->names = p->names && str_is(p->names[0], "a") && str_is(p->version, "late.1") &&
               str_is(p->deployment, "late") && !p->at;
    atomic_fetch_add(&s->calls, 1);
}

TEST(observers_see_what_the_model_saw)
{
    struct world *w = world_new();
    struct seen seen = { 0 };
    struct str out;
    serve_observe(w->serve, (struct serve_observer){ &seen, on_prediction });
    deployment_make(w, DEPLOYMENT(""));
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    want(
        w, M_POST, INFER,
        "{\"inputs\":[{\"name\":\"features\",\"shape\":[2,2],\"datatype\":\"FP32\",\"data\":[0,0,0.75,null]}],"
        "\"ids\":[\"a\",77]}",
        200);
    CHECK(atomic_load(&seen.calls) == 1 && seen.n == 2 && seen.features == 2 && seen.ids && seen.names);
    CHECK(seen.feature == 0.75f && fabsf(seen.score - 0.7310586f) < 1e-6f);
    want(w, M_POST, INFER, IN("[1,2]", "FP64", "[1,2]"), 400);
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a);
    serve_metrics(w->serve, &b);
#define L "{project=\"default\",deployment=\"late\",version=\"1\"} "
    CHECK(has(buf_get(&b), "\ndhow_inference_requests_total" L "2\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_refused_total" L "1\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_failures_total" L "0\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_rows_total" L "2\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_shed_total" L "0\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_missing_features_total" L "0\n"));
    CHECK(has(buf_get(&b), "\ndhow_inference_seconds_count" L "1\n"));
    world_free(w);
}

/* ---- numbers ---- */

TEST(floats_read_back_bit_for_bit)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t seed = 7;
    for (int i = 0; i < 300000; i++) {
        uint32_t bits = (uint32_t)splitmix(&seed);
        float v, one = (float)(splitmix(&seed) >> 40) / 16777216;
        memcpy(&v, &bits, sizeof v);
        for (int k = 0; k < 2; k++, v = one) {
            struct buf b = buf_new(a);
            write_f32(&b, v);
            buf_put(&b, "", 1);
            if (!isfinite(v)) {
                CHECK_STR(str_of(b.p), "null");
                continue;
            }
            float direct = strtof(b.p, NULL), by_double = (float)strtod(b.p, NULL);
            cr_assert(direct == v && by_double == v && signbit(direct) == signbit(v), "%.9g is written %s",
                      (double)v, b.p);
        }
        arena_reset(a);
    }
    static const struct {
        float v;
        const char *text;
    } some[] = { { 0, "0" },        { -0.0f, "-0.0" }, { 1, "1" },       { 0.1f, "0.1" },
                 { -2.5f, "-2.5" }, { 100, "100" },    { 1e9f, "1e+09" } };
    for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
        struct buf b = buf_new(a);
        write_f32(&b, some[i].v);
        CHECK_STR(buf_get(&b), str_of(some[i].text));
    }
}
