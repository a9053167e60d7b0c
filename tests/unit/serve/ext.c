// SPDX-License-Identifier: Apache-2.0
/* What is asked beside predictions: metadata, statistics, configuration, repository, settings. */
#define SUITE ext
#include "help.h"

#define X \
    "{\"inputs\":[{\"name\":\"features\",\"shape\":[3,2],\"datatype\":\"FP32\",\"data\":[1,0,2,0,3,0]}]}"

static struct world *serving_by(const char *deployment)
{
    struct world *w = world_new();
    struct str out;
    deployment_make(w, deployment);
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return w;
}

static struct world *serving(void)
{
    return serving_by(DEPLOYMENT(""));
}

static yyjson_val *at(struct world *w, struct http_reply r, const char *pointer)
{
    yyjson_val *v;
    CHECK_OK(json_parse(w->l.a, r.body, &v));
    v = yyjson_ptr_get(v, pointer);
    cr_assert(v, "%s is not in %.*s", pointer, STR(r.body));
    return v;
}

static int64_t number_at(struct world *w, struct http_reply r, const char *pointer)
{
    return yyjson_get_sint(at(w, r, pointer));
}

static struct str text_at(struct world *w, struct http_reply r, const char *pointer)
{
    yyjson_val *v = at(w, r, pointer);
    return (struct str){ yyjson_get_str(v), yyjson_get_len(v) };
}

TEST(statistics_count_requests_rows_and_faults)
{
    struct world *w = serving();
    struct http_reply before = want(w, M_GET, "/v2/models/late/stats", "", 200);
    int64_t n = number_at(w, before, "/model_stats/0/inference_stats/success/count");
    want(w, M_POST, "/v2/models/late/infer", X, 200);
    want(w, M_POST, "/v2/models/late/infer",
         "{\"inputs\":[{\"name\":\"other\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}", 400);
    struct http_reply r = want(w, M_GET, "/v2/models/late/stats", "", 200);
    CHECK_STR(text_at(w, r, "/model_stats/0/name"), "late");
    CHECK_STR(text_at(w, r, "/model_stats/0/version"), "1");
    CHECK(number_at(w, r, "/model_stats/0/inference_stats/success/count") == n + 1);
    CHECK(number_at(w, r, "/model_stats/0/inference_stats/fail/count") ==
          number_at(w, before, "/model_stats/0/inference_stats/fail/count") + 1);
    CHECK(number_at(w, r, "/model_stats/0/inference_count") ==
          number_at(w, before, "/model_stats/0/inference_count") + 3);
    CHECK(number_at(w, r, "/model_stats/0/execution_count") == n + 1);
    CHECK(number_at(w, r, "/model_stats/0/inference_stats/compute_infer/ns") > 0);
    CHECK(number_at(w, r, "/model_stats/0/batch_stats/0/batch_size") == 3);
    CHECK(number_at(w, r, "/model_stats/0/batch_stats/0/compute_infer/count") == n + 1);
    CHECK(number_at(w, r, "/model_stats/0/last_inference") > 1600000000000);
    CHECK_STR(want(w, M_GET, "/v2/models/stats", "", 200).body, r.body);
    CHECK_STR(want(w, M_GET, "/v2/models/late/versions/1/stats", "", 200).body, r.body);
    want(w, M_GET, "/v2/models/late/versions/2/stats", "", 404);
    want(w, M_GET, "/v2/models/none/stats", "", 404);
    world_free(w);
}

TEST(a_configuration_writes_every_default)
{
    struct world *w = serving();
    struct http_reply r = want(w, M_GET, "/v2/models/late/config", "", 200);
    CHECK_STR(text_at(w, r, "/platform"), "onnxruntime_onnx");
    CHECK_STR(text_at(w, r, "/input/0/data_type"), "TYPE_FP32");
    CHECK_STR(text_at(w, r, "/input/0/format"), "FORMAT_NONE");
    CHECK(yyjson_arr_size(at(w, r, "/input/0/dims")) == 1 && number_at(w, r, "/input/0/dims/0") == 2);
    CHECK(yyjson_is_false(at(w, r, "/input/0/optional")));
    CHECK(number_at(w, r, "/version_policy/specific/versions/0") == 1);
    CHECK(yyjson_is_obj(at(w, r, "/metric_tags")));
    CHECK(number_at(w, r, "/max_batch_size") == BODY_BYTES_MAX / 8); /* rows of two floats */
    CHECK(!has(r.body, "sequence_batching") && !has(r.body, "response_cache"));
    want(w, M_GET, "/v2/models/none/config", "", 404);
    world_free(w);
}

TEST(a_configuration_tells_the_policy)
{
    struct world *w = serving_by(DEPLOYMENT(
        ", instances: 3, cache: {size: 1Mi}, batching: {maxBatch: 16, preferred: [4, 8], delayUs: 200, queue: 7, "
        "timeout: 2s, timeoutOverride: false, timeoutAction: delay, priorities: 4}"));
    struct http_reply r = want(w, M_GET, "/v2/models/late/config", "", 200);
#define BATCHED "/dynamic_batching/"
    CHECK(number_at(w, r, "/max_batch_size") == 16 && number_at(w, r, "/instance_group/0/count") == 3);
    CHECK_STR(text_at(w, r, "/instance_group/0/kind"), "KIND_CPU");
    CHECK(number_at(w, r, BATCHED "preferred_batch_size/1") == 8);
    CHECK(number_at(w, r, BATCHED "max_queue_delay_microseconds") == 200);
    CHECK(number_at(w, r, BATCHED "priority_levels") == 4);
    CHECK(number_at(w, r, BATCHED "default_priority_level") == 2);
    CHECK_STR(text_at(w, r, BATCHED "default_queue_policy/timeout_action"), "DELAY");
    CHECK(number_at(w, r, BATCHED "default_queue_policy/default_timeout_microseconds") == 2000000);
    CHECK(yyjson_is_false(at(w, r, BATCHED "default_queue_policy/allow_timeout_override")));
    CHECK(number_at(w, r, BATCHED "default_queue_policy/max_queue_size") == 7);
    CHECK(yyjson_is_true(at(w, r, "/response_cache/enable")));
    CHECK(!has(r.body, "sequence_batching") && !has(r.body, "ensemble_scheduling"));
    world_free(w);
}

TEST(a_configuration_tells_of_sequences)
{
    struct world *w = serving_by(
        DEPLOYMENT(", sequence: {maxSequences: 3, idle: 5s, controls: [{input: features, "
                   "kind: end}], state: []}, batching: {maxBatch: 4}"));
    struct http_reply r = want(w, M_GET, "/v2/models/late/config", "", 200);
#define SEQUENCE "/sequence_batching/"
    CHECK(number_at(w, r, SEQUENCE "oldest/max_candidate_sequences") == 3);
    CHECK(number_at(w, r, SEQUENCE "max_sequence_idle_microseconds") == 5000000);
    CHECK_STR(text_at(w, r, SEQUENCE "control_input/0/name"), "features");
    CHECK_STR(text_at(w, r, SEQUENCE "control_input/0/control/0/kind"), "CONTROL_SEQUENCE_END");
    CHECK(yyjson_arr_size(at(w, r, SEQUENCE "control_input/0/control/0/fp32_false_true")) == 2);
    CHECK(!has(r.body, "dynamic_batching"));
    world_free(w);
}

TEST(the_index_says_what_answers)
{
    struct world *w = serving();
    CHECK_STR(want(w, M_POST, "/v2/repository/index", "", 200).body,
              "[{\"name\":\"late\",\"version\":\"1\",\"state\":\"READY\"}]");
    CHECK(has(want(w, M_POST, "/v2/repository/default/index", "{\"ready\":true}", 200).body, "READY"));
    CHECK_STR(want(w, M_POST, "/v2/repository/elsewhere/index", "{}", 200).body, "[]");
    want(w, M_POST, "/v2/repository/index", "[]", 400);
    world_free(w);
}

TEST(the_log_has_a_level_and_no_file)
{
    struct world *w = world_new();
    CHECK(has(want(w, M_GET, "/v2/logging", "", 200).body, "\"log_info\":false"));
    CHECK(has(want(w, M_POST, "/v2/logging", "{\"log_info\":true}", 200).body, "\"log_info\":true"));
    CHECK(log_min() == LOG_INFO);
    want(w, M_POST, "/v2/logging", "{\"log_verbose_level\":1}", 200);
    CHECK(log_min() == LOG_DEBUG);
    want(w, M_POST, "/v2/logging", "{\"log_verbose_level\":0,\"log_info\":false,\"log_warning\":false}", 200);
    CHECK(log_min() == LOG_ERROR);
    want(w, M_POST, "/v2/logging", "{\"log_info\":true,\"log_file\":\"/tmp/x\"}", 501);
    want(w, M_POST, "/v2/logging", "{\"log_info\":1}", 400);
    want(w, M_POST, "/v2/logging", "{\"what\":1}", 400);
    CHECK(log_min() == LOG_ERROR);
    world_free(w);
}

TEST(a_project_does_not_set_the_servers_log)
{
    struct world *w = world_new();
    struct token t = { .name = S("t"), .project = S("default"), .roles = 1u << ROLE_ADMIN };
    struct str secret;
    struct http *http;
    struct http_reply r;
    CHECK_OK(token_create(w->l.auth, w->l.a, S("test"), &t, &secret));
    CHECK_OK(http_open(w->url, secret, 20000, &http));
    CHECK_OK(
        http_do(http, w->l.a, M_POST, S("/v2/logging"), S("application/json"), S("{\"log_info\":true}"), &r));
    CHECK(r.status == 404 || r.status == 403);
    CHECK_OK(http_do(http, w->l.a, M_GET, S("/v2/logging"), S(""), S(""), &r));
    CHECK(r.status == 200 && log_min() == LOG_ERROR);
    http_close(http);
    world_free(w);
}

TEST(tracing_takes_no_path)
{
    struct world *w = serving();
    struct http_reply r = want(w, M_GET, "/v2/trace/setting", "", 200);
    CHECK_STR(text_at(w, r, "/trace_level/0"), "OFF");
    CHECK_STR(text_at(w, r, "/trace_rate"), "1000");
    want(w, M_POST, "/v2/trace/setting", fmtz(w->l.a, "%.*s", STR(r.body)), 200);
    want(w, M_POST, "/v2/models/late/trace/setting", fmtz(w->l.a, "%.*s", STR(r.body)), 200);
    want(w, M_POST, "/v2/models/late/trace/setting", "{\"trace_file\":\"/etc/x\"}", 501);
    want(w, M_POST, "/v2/trace/setting", "{\"trace_rate\":\"5\",\"trace_file\":\"/etc/x\"}", 501);
    want(w, M_POST, "/v2/trace/setting", "{\"trace_level\":[\"TENSORS\"]}", 501);
    want(w, M_POST, "/v2/trace/setting", "{\"trace_level\":[\"TIMESTAMPS\",\"TENSORS\"]}", 501);
    want(w, M_POST, "/v2/trace/setting", "{\"trace_rate\":\"0\"}", 400);
    want(w, M_POST, "/v2/trace/setting", "{\"what\":null}", 400);
    want(w, M_GET, "/v2/models/none/trace/setting", "", 404);
    CHECK_STR(want(w, M_GET, "/v2/trace/setting", "", 200).body, r.body);
    world_free(w);
}

static size_t traces(struct world *w)
{
    struct json j = json_new(w->l.a);
    yyjson_val *v;
    trace_recent(w->serve, S(""), &j);
    CHECK_OK(json_parse(w->l.a, json_get(&j), &v));
    return yyjson_arr_size(v);
}

TEST(tracing_is_switched_on_for_one_in_so_many)
{
    struct world *w = serving();
    want(w, M_POST, "/v2/trace/setting", "{\"trace_rate\":\"2\"}", 200);
    want(w, M_POST, "/v2/models/late/infer", X, 200);
    CHECK(traces(w) == 0);
    struct http_reply r = want(w, M_POST, "/v2/trace/setting", "{\"trace_level\":[\"TIMESTAMPS\"]}", 200);
    CHECK_STR(text_at(w, r, "/trace_level/0"), "TIMESTAMPS");
    CHECK_STR(text_at(w, r, "/trace_rate"), "2");
    CHECK_STR(want(w, M_GET, "/v2/models/late/trace/setting", "", 200).body, r.body);
    for (int i = 0; i < 6; i++)
        want(w, M_POST, "/v2/models/late/infer", X, 200);
    CHECK(traces(w) == 3);
    r = want(w, M_POST, "/v2/trace/setting", "{\"trace_level\":null,\"trace_rate\":null}", 200);
    CHECK_STR(text_at(w, r, "/trace_level/0"), "OFF");
    CHECK_STR(text_at(w, r, "/trace_rate"), "1000");
    want(w, M_POST, "/v2/models/late/infer", X, 200);
    CHECK(traces(w) == 3);
    world_free(w);
}

#define OF_LATE "/v2/models/late/trace/setting"

TEST(a_model_has_a_trace_setting_of_its_own)
{
    struct world *w = serving();
    struct http_reply r = want(
        w, M_POST, OF_LATE, "{\"trace_level\":[\"TIMESTAMPS\"],\"trace_rate\":\"1\",\"trace_count\":\"3\"}",
        200);
    CHECK_STR(text_at(w, r, "/trace_level/0"), "TIMESTAMPS");
    CHECK_STR(text_at(w, want(w, M_GET, "/v2/trace/setting", "", 200), "/trace_level/0"), "OFF");
    for (int i = 0; i < 5; i++)
        want(w, M_POST, "/v2/models/late/infer", X, 200);
    CHECK(traces(w) == 3); /* as many as it was to take */
    CHECK_STR(text_at(w, want(w, M_GET, OF_LATE, "", 200), "/trace_count"), "0");
    want(w, M_POST, "/v2/trace/setting", "{\"trace_rate\":\"7\"}", 200);
    r = want(w, M_POST, OF_LATE, "{\"trace_level\":null,\"trace_rate\":[],\"trace_count\":null}", 200);
    CHECK_STR(text_at(w, r, "/trace_level/0"), "OFF"); /* the server's again */
    CHECK_STR(text_at(w, r, "/trace_rate"), "7");
    CHECK_STR(text_at(w, r, "/trace_count"), "-1");
    want(w, M_POST, OF_LATE, "{\"trace_count\":\"-2\"}", 400);
    want(w, M_POST, OF_LATE, "{\"trace_count\":\"x\"}", 400);
    world_free(w);
}

TEST(shared_memory_is_off)
{
    struct world *w = world_new();
    CHECK_STR(want(w, M_GET, "/v2/systemsharedmemory/status", "", 200).body, "[]");
    CHECK_STR(want(w, M_GET, "/v2/cudasharedmemory/status", "", 200).body, "[]");
    want(w, M_GET, "/v2/systemsharedmemory/region/x/status", "", 404);
    want(w, M_POST, "/v2/systemsharedmemory/region/x/register",
         "{\"key\":\"/x\",\"offset\":0,\"byte_size\":64}", 501);
    want(w, M_POST, "/v2/systemsharedmemory/unregister", "{}", 200);
    world_free(w);
}

/* Foreign names are looked up, nothing else: no path, no length and no byte of them does more. */
TEST(hostile_names_are_not_found)
{
    struct world *w = serving();
    struct str big = { 0 };
    char *p = arena_alloc(w->l.a, 4097, 1);
    memset(p, 'a', 4096);
    big = (struct str){ p, 4096 };
    const char *names[] = { "..%2fetc", "%2fetc%2fpasswd", "a%20b",
                            "late%2f1", "%e2%80%ae",       fmtz(w->l.a, "%.*s", STR(big)) };
    const char *forms[] = { "/v2/models/%s", "/v2/models/%s/ready", "/v2/models/%s/stats",
                            "/v2/models/%s/config", "/v2/models/late/versions/%s/config" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < sizeof forms / sizeof *forms; k++) {
            const char *slot = strstr(forms[k], "%s");
            struct str path = fmt(w->l.a, "%.*s%s%s", (int)(slot - forms[k]), forms[k], names[i], slot + 2);
            int status = ask(w, M_GET, str_z(w->l.a, path), S("")).status;
            cr_assert(status == 404 || status == 400, "%.*s: %d", STR(path), status);
        }
    want(w, M_GET, "/v2/models/a%00b/stats", "", 400);
    want(w, M_GET, "/v2/models/..%2f../stats", "", 400);
    want(w, M_GET, "/v2/models/late/stats", "", 200);
    world_free(w);
}
