// SPDX-License-Identifier: Apache-2.0
/* The worker from spec.json to result.json, as the daemon would start it. */
#define SUITE train_worker
#include "samples.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct worker_type *const types[] = { &train_worker, NULL };

/* Rows of samples.h as a Parquet blob; its hash. */
static struct str rows_blob(struct arena *a, struct blobs *blobs, const struct rows *r)
{
    struct columns t = { .rows = r->n };
    struct column *c = columns_add(a, &t, S("id"), COL_I64);
    for (size_t i = 0; i < r->n; i++)
        c->i[i] = (int64_t)i;
    for (size_t f = 0; f < r->features; f++) {
        c = columns_add(a, &t, r->names[f], COL_F64);
        c->null = NEW_N(a, uint8_t, r->n);
        for (size_t i = 0; i < r->n; i++) {
            c->f[i] = r->x[i * r->features + f];
            c->null[i] = isnan(c->f[i]);
        }
    }
    c = columns_add(a, &t, S("ts"), COL_TIME);
    memcpy(c->i, r->at, r->n * sizeof *r->at);
    c = columns_add(a, &t, S("known"), COL_TIME);
    memcpy(c->i, r->known, r->n * sizeof *r->known);
    c = columns_add(a, &t, S("late"), COL_I64);
    for (size_t i = 0; i < r->n; i++)
        c->i[i] = (int64_t)r->y[i];
    struct str sha;
    int64_t bytes;
    const char *path = blob_tmp(blobs, a, S(".parquet"));
    CHECK_OK(parquet_save(a, path, &t, 0, r->n));
    CHECK_OK(blob_take(blobs, a, path, &sha, &bytes));
    return sha;
}

static void column_write(struct json *j, struct str name, const char *type, const char *role)
{
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "type", str_of(type));
    json_kstr(j, "role", str_of(role));
    json_obj_end(j);
}

/* spec.json as the daemon writes it. */
static struct str spec_text(struct arena *a, const struct rows *r, struct str sha, const char *trees)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "type", S("train"));
    json_kstr(&j, "project", S("p"));
    json_kstr(&j, "job", S("j"));
    json_kraw(&j, "with",
              fmt(a, "{\"rows\":\"late.1\",\"holdout\":\"%zus\",\"model\":{\"trees\":%s}}", r->n / 5, trees));
    json_ki64(&j, "cpu", 1);
    json_ki64(&j, "memory", 1 << 30);
    json_key(&j, S("rows"));
    json_obj(&j);
    json_kstr(&j, "name", S("late.1"));
    json_key(&j, S("spec"));
    json_obj(&j);
    json_kstr(&j, "of", S("TrainingSet/late"));
    json_ki64(&j, "rows", (int64_t)r->n);
    json_kraw(&j, "files", fmt(a, "[{\"sha\":\"%.*s\",\"rows\":%zu}]", STR(sha), r->n));
    json_key(&j, S("columns"));
    json_arr(&j);
    column_write(&j, S("id"), "BIGINT", "id");
    column_write(&j, S("ts"), "TIMESTAMP", "eventTime");
    column_write(&j, S("known"), "TIMESTAMP", "knownAt");
    for (size_t f = 0; f < r->features; f++)
        column_write(&j, r->names[f], "DOUBLE", "feature");
    column_write(&j, S("late"), "BIGINT", "label");
    json_arr_end(&j);
    json_obj_end(&j);
    json_obj_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

/* A job's folder with its spec, and the store around it. */
static const char *job_folder(struct arena *a, const char *store, const char *trees)
{
    struct rows rows;
    struct blobs *blobs;
    const char *dir = fmtz(a, "%s/jobs/j-1", store);
    CHECK_OK(dir_make(dir));
    CHECK_OK(blobs_open(str_of(store), &blobs));
    sample_rows(a, 3000, 4, 1, &rows);
    CHECK_OK(
        file_write(fmtz(a, "%s/spec.json", dir), spec_text(a, &rows, rows_blob(a, blobs, &rows), trees)));
    blobs_close(blobs);
    return dir;
}

static const char *store_new(struct arena *a)
{
    NEED_XGBOOST();
    struct str path, version;
    char *dir = (char *)(uintptr_t)str_z(a, S("/tmp/dhow-train-XXXXXX"));
    if (duck_library(a, &path, &version))
        cr_skip_test("libduckdb is not here");
    CHECK(mkdtemp(dir));
    return dir;
}

static struct str text_at(yyjson_val *v, const char *key)
{
    return str_of(yyjson_get_str(yyjson_obj_get(v, key)));
}

TEST(it_leaves_model_baseline_and_result)
{
    auto_arena struct arena *a = arena_new(0);
    const char *store = store_new(a);
    const char *dir = job_folder(a, store, "{\"rounds\":20,\"stopAfter\":10,\"learningRate\":0.3}");
    struct str text, onnx, baseline, lines;
    struct train_outputs out;
    CHECK(sched_worker_main(types, dir) == 0);
    CHECK_OK(file_read(a, fmtz(a, "%s/result.json", dir), 1 << 20, &text));
    CHECK_OK(schema_read_text(&train_outputs_schema, a, S(""), text, 0, &out));
    CHECK_STR(out.rows, "late.1");
    struct blobs *blobs;
    CHECK_OK(blobs_open(str_of(store), &blobs));
    CHECK_OK(blob_get(blobs, a, out.onnx, &onnx));
    CHECK_OK(blob_get(blobs, a, out.baseline, &baseline));
    struct onnx_facts facts;
    CHECK_OK(onnx_check(a, onnx, NULL, &facts));
    struct baseline b;
    CHECK_OK(baseline_read(a, baseline, &b));
    CHECK(b.n == 4 && b.features[2].n + b.features[2].nulls == b.rows && b.features[2].nulls > 0);
    CHECK(b.score.n == b.rows && b.score.min > 0 && b.score.max < 1);
    yyjson_val *v;
    CHECK_OK(json_parse(a, out.metrics, &v));
    CHECK(yyjson_get_num(yyjson_obj_get(v, "auc")) > 0.7);
    CHECK_OK(json_parse(a, out.facts, &v));
    CHECK(yyjson_get_sint(yyjson_obj_get(v, "trainRows")) + yyjson_get_sint(yyjson_obj_get(v, "validRows")) +
              yyjson_get_sint(yyjson_obj_get(v, "notYetKnownRows")) ==
          3000);
    CHECK(yyjson_get_sint(yyjson_obj_get(v, "trainRows")) == b.rows);
    CHECK(text_at(v, "split").n > 0);
    CHECK_OK(json_parse(a, out.signature, &v));
    CHECK(yyjson_arr_size(yyjson_obj_get(v, "features")) == 4);
    CHECK_OK(file_read(a, fmtz(a, "%s/metrics.jsonl", dir), 1 << 20, &lines));
    CHECK(strstr(str_z(a, lines), "valid.auc") && strstr(str_z(a, lines), "train.logloss"));
    blobs_close(blobs);
    CHECK_OK(dir_remove(store));
}

TEST(finish_hands_texts_to_the_next_step)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    struct job_context c = { .a = a };
    yyjson_val *result, *back;
    CHECK_OK(json_parse(
        a,
        S("{\"rows\":\"r\",\"onnx\":\"o\",\"native\":\"n\",\"baseline\":\"b\",\"signature\":\"{}\","
          "\"params\":\"{}\",\"metrics\":\"{\\\"auc\\\":0.7}\",\"facts\":\"{}\"}"),
        &result));
    json_obj(&j);
    CHECK_OK(train_worker.finish(&c, NULL, result, &j));
    json_obj_end(&j);
    CHECK_OK(json_parse(a, json_get(&j), &back));
    CHECK_STR(text_at(back, "metrics"), "{\"auc\":0.7}");
    CHECK_STR(text_at(back, "onnx"), "o");
    CHECK_ERR(train_worker.finish(&c, NULL, NULL, &j), INVALID);
}

TEST(sigterm_ends_it_as_cancelled)
{
    auto_arena struct arena *a = arena_new(0);
    const char *store = store_new(a);
    const char *dir = job_folder(a, store, "{\"rounds\":10000}");
    struct str error;
    pid_t pid = fork();
    if (pid == 0)
        _exit(sched_worker_main(types, dir));
    for (int i = 0; i < 500 && !file_exists(fmtz(a, "%s/metrics.jsonl", dir)); i++)
        usleep(20000);
    CHECK(kill(pid, SIGTERM) == 0);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == err_table[CANCELLED].exit);
    CHECK_OK(file_read(a, fmtz(a, "%s/error.json", dir), 1 << 20, &error));
    CHECK(strstr(str_z(a, error), "CANCELLED"));
    CHECK(!file_exists(fmtz(a, "%s/result.json", dir)));
    CHECK_OK(dir_remove(store));
}

TEST(with_is_the_grammar_of_the_example)
{
    auto_arena struct arena *a = arena_new(0);
    struct train_with w;
    CHECK_OK(schema_read_text(
        &train_with_schema, a, S("with"),
        S("{\"rows\":\"late_rows.1\",\"holdout\":\"14d\",\"model\":{\"trees\":{\"rounds\":200,\"depth\":7,"
          "\"learningRate\":0.1,\"subsample\":0.8,\"columns\":0.8,\"stopAfter\":20}},"
          "\"resources\":{\"cpu\":2,\"memory\":\"6Gi\"}}"),
        0, &w));
    CHECK(w.holdout == 14LL * 86400 * 1000 && w.model.trees.depth == 7 && w.model.trees.bins == 256);
    CHECK(w.resources.memory == 6LL << 30);
    CHECK_ERR(
        schema_read_text(&train_with_schema, a, S("with"), S("{\"rows\":\"r\",\"holdout\":\"1d\"}"), 0, &w),
        INVALID);
    yyjson_val *model;
    const struct field *chosen;
    CHECK_OK(json_parse(a, S("{\"tabular-resnet\":{}}"), &model));
    CHECK_OK(train_model_chosen(a, model, &chosen));
    CHECK_STR(chosen->sub->name, "tabular_resnet_with");
    CHECK_OK(json_parse(a, S("{\"mlp\":{},\"trees\":{}}"), &model));
    CHECK_ERR(train_model_chosen(a, model, &chosen), INVALID);
    CHECK_OK(json_parse(a, S("{}"), &model));
    CHECK_ERR(train_model_chosen(a, model, &chosen), INVALID);
}
