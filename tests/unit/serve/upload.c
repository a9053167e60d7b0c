// SPDX-License-Identifier: Apache-2.0
/* Models trained elsewhere, by HTTP: upload, aliases, metrics of a run. */
#define SUITE serve_upload
#include "help.h"

#define MODELS "/api/v1/projects/default/models"

static struct http_reply put_bytes(struct world *w, const char *path, const char *type, struct str body)
{
    struct http_reply r;
    CHECK_OK(http_do(w->http, w->l.a, M_POST, str_of(path), str_of(type), body, &r));
    return r;
}

TEST(a_foreign_model_becomes_a_candidate)
{
    struct world *w = world_new();
    struct model_version_spec spec;
    struct http_reply r = put_bytes(w, MODELS "/late/upload", "application/octet-stream",
                                    step_model(w->l.a, 0.5f, -1, 1));
    cr_assert(r.status == 201, "%d %.*s", r.status, STR(r.body));
    CHECK(has(r.body, "{\"version\":\"late.1\""));
    CHECK(version_now(&w->l, "late.1", &spec).state == VERSION_CANDIDATE);
    CHECK(has(spec.signature,
              "{\"inputs\":[{\"name\":\"features\",\"type\":\"FP32\",\"shape\":[-1,2]}],\"outputs\":[{"));
    CHECK(has(spec.signature, "\"features\":[\"a\",\"b\"]"));
    CHECK(spec.job.n == 0 && has(spec.facts, "\"nodes\":2"));
    CHECK(!w->serve->runtimes[RUNTIME_ONNX]); /* our own checker alone has seen it */
    want(w, M_POST, MODELS "/late/alias", "{\"alias\":\"champion\",\"version\":\"late.1\"}", 409);
    deployment_make(w, DEPLOYMENT(", version: late.1"));
    wait_version(w, "1");
    world_free(w);
}

/* The tensor "w" of this graph says that its bytes are in another file. */
static struct str external_model(struct arena *a)
{
    struct buf entry = buf_new(a), tensor = buf_new(a), graph = buf_new(a), opset = buf_new(a),
               model = buf_new(a);
    pb_bytes(&entry, 1, S("location"));
    pb_bytes(&entry, 2, S("../secret.bin"));
    pb_varint(&tensor, 1, 4);
    pb_varint(&tensor, 2, 1);
    pb_bytes(&tensor, 8, S("w"));
    pb_bytes(&tensor, 13, buf_get(&entry));
    pb_varint(&tensor, 14, 1);
    pb_bytes(&graph, 2, S("g"));
    pb_bytes(&graph, 5, buf_get(&tensor));
    pb_varint(&opset, 2, 13);
    pb_varint(&model, 1, 8);
    pb_bytes(&model, 7, buf_get(&graph));
    pb_bytes(&model, 8, buf_get(&opset));
    return buf_get(&model);
}

TEST(hostile_uploads_are_refused)
{
    struct world *w = world_new();
    const char *bytes = "application/octet-stream";
    CHECK(put_bytes(w, MODELS "/late/upload", bytes, S("")).status == 400);
    CHECK(put_bytes(w, MODELS "/late/upload", bytes, S("PK\x03\x04 a zip file")).status == 400);
    struct http_reply r = put_bytes(w, MODELS "/late/upload", bytes, external_model(w->l.a));
    cr_assert(r.status == 400 && has(r.body, "external"), "%d %.*s", r.status, STR(r.body));
    CHECK(put_bytes(w, MODELS "/late/upload", "application/json", S("{}")).status == 415);
    CHECK(put_bytes(w, MODELS "/none/upload", bytes, step_model(w->l.a, 0, -1, 1)).status == 404);
    CHECK(model_now(&w->l).versions == 0);
    world_free(w);
}

TEST(an_alias_moves_by_the_api)
{
    struct world *w = world_new();
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    want(w, M_POST, MODELS "/late/alias", "{\"alias\":\"king\",\"version\":\"late.1\"}", 400);
    want(w, M_POST, MODELS "/late/alias", "{\"alias\":\"champion\",\"version\":\"late.1\"}", 200);
    CHECK_STR(model_now(&w->l).aliases.champion, "late.1");
    CHECK(has(want(w, M_GET, MODELS "/late", "", 200).body, "\"aliases\":{\"champion\":\"late.1\"}"));
    want(w, M_POST, MODELS "/late/alias", "{\"alias\":\"champion\"}", 200);
    CHECK_STR(model_now(&w->l).aliases.champion, "");
    world_free(w);
}

TEST(metrics_of_a_run_are_series)
{
    struct world *w = world_new();
    trained_job(&w->l, "t", step_model(w->l.a, 0, -1, 1));
    struct meta m;
    struct job_spec spec;
    CHECK_OK(resource_get(w->l.store, w->l.a, &job_resource, S("default"), S("t"), &m, &spec, NULL));
    const char *dir = exec_dir(w->l.a, store_dir(w->l.store), fmt(w->l.a, "%lld-1", (long long)m.id));
    CHECK_OK(dir_make(dir));
    CHECK_OK(file_write(fmtz(w->l.a, "%s/metrics.jsonl", dir),
                        S("{\"name\":\"auc\",\"step\":0,\"value\":0.5,\"time\":7}\n"
                          "{\"name\":\"auc\",\"step\":1,\"value\":0.25,\"time\":8}\n"
                          "{\"name\":\"loss\",\"step\":0,\"value\":1,\"time\":7}\n")));
    struct reconciler r = registry_reconciler(trainings_new(w->l.a, w->l.store));
    struct object o;
    int64_t again;
    CHECK_OK(object_get(w->l.store, w->l.a, S("Job"), S("default"), S("t"), &o));
    CHECK_OK(r.step(r.self, w->l.a, &o, NULL, &again));
    CHECK_STR(want(w, M_GET, "/api/v1/projects/default/runs/t/metrics?name=auc", "", 200).body,
              "{\"metrics\":[{\"name\":\"auc\",\"steps\":[0,1],\"values\":[0.5,0.25],\"times\":[7,8]}]}");
    CHECK(has(want(w, M_GET, "/api/v1/projects/default/runs/t/metrics", "", 200).body,
              "{\"name\":\"loss\",\"steps\":[0]"));
    want(w, M_GET, "/api/v1/projects/default/runs/none/metrics", "", 404);
    world_free(w);
}
