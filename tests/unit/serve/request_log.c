// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_request_log
#include "help.h"
#include "serve/request_log.h"
#include <sys/resource.h>
#include <unistd.h>

#define INFER "/v2/models/late/infer"
#define LOG(more) DEPLOYMENT(", requestLog: {share: 1" more "}")

static struct world *logged(const char *yaml)
{
    struct world *w = world_new();
    struct str out, path, version;
    err e = duck_library(w->l.a, &path, &version);
    if (e)
        cr_skip_test("libduckdb is not here");
    deployment_make(w, yaml);
    version_made(&w->l, 1, step_model(w->l.a, 0.5f, -1, 1), true);
    CHECK_OK(deploy(w, "late-1", "late.1", &out));
    return w;
}

/* The rows of all versions of the log, in order; the daemon is stopped and started again for it. */
static struct columns log_rows(struct world *w, const char *dataset, const char *sql)
{
    struct arena *a = w->l.a;
    struct dataset_status status;
    struct dataset_version_spec v;
    struct strs paths = { 0 };
    struct duck *d;
    struct columns out;
    CHECK_OK(
        resource_get(w->l.store, a, &dataset_resource, S("default"), str_of(dataset), NULL, NULL, &status));
    for (int64_t i = 1; i <= status.versions; i++) {
        const char *path;
        if (resource_get(w->l.store, a, &dataset_version_resource, S("default"),
                         fmt(a, "%s.%lld", dataset, (long long)i), NULL, &v, NULL))
            continue;
        CHECK(v.files.n == 1);
        CHECK_OK(blob_path(store_blobs(w->l.store), a, ((struct version_file *)v.files.v)[0].sha, &path));
        push(a, &paths, str_of(path));
    }
    CHECK_OK(duck_open(a, &(struct duck_config){ .threads = 1, .files = paths }, &d));
    CHECK_OK(duck_load(d, a, fmt(a, "SELECT %s FROM %.*s", sql, STR(sql_parquet(a, &paths))), &out));
    return out;
}

static double f64_at(const struct columns *c, const char *name, size_t row)
{
    const struct column *v = columns_find(c, str_of(name));
    cr_assert(v, "no column %s", name);
    return column_f64(v, row);
}

static struct str text_in(const struct columns *c, const char *name, size_t row)
{
    const struct column *v = columns_find(c, str_of(name));
    cr_assert(v, "no column %s", name);
    return column_null(v, row) ? S("-") : column_str(v, row);
}

static void again(struct world *w)
{
    world_stop(w);
    world_start(w);
}

#define BODY(id, rows, data)                                                                              \
    "{\"id\":\"" id "\",\"inputs\":[{\"name\":\"features\",\"shape\":[" rows ",2],\"datatype\":\"FP32\"," \
    "\"data\":[" data "]}]"

TEST(what_was_asked_and_answered_is_a_dataset)
{
    struct world *w = logged(LOG(""));
    want(w, M_POST, INFER, BODY("one", "2", "0.25,7,0.75,0.1") ",\"ids\":[\"r1\",\"r2\"]}", 200);
    want(w, M_POST, INFER, BODY("two", "1", "0.5,-3e-7") "}", 200);
    again(w);
    struct columns c = log_rows(w, "late-requests", "*");
    CHECK(c.rows == 3);
    CHECK(f64_at(&c, "a", 0) == 0.25 && f64_at(&c, "b", 0) == 7 && f64_at(&c, "a", 1) == 0.75);
    CHECK(f64_at(&c, "b", 1) == (double)0.1f && f64_at(&c, "b", 2) == (double)-3e-7f);
    CHECK(f64_at(&c, "probability", 0) < 0.5 && f64_at(&c, "probability", 1) > 0.5);
    CHECK_STR(text_in(&c, "id", 1), "one");
    CHECK_STR(text_in(&c, "row_id", 1), "r2");
    CHECK_STR(text_in(&c, "row_id", 2), "-");
    CHECK_STR(text_in(&c, "version", 0), "late.1");
    CHECK_STR(text_in(&c, "deployment", 0), "late");
    CHECK_STR(text_in(&c, "error", 0), "-");
    CHECK(!str_eq(text_in(&c, "request", 0), text_in(&c, "request", 1)));
    CHECK(text_in(&c, "token", 0).n > 1);
    CHECK(f64_at(&c, "took_us", 0) > 0 && f64_at(&c, "took_us", 0) >= f64_at(&c, "infer_us", 0));
    world_free(w);
}

TEST(versions_say_what_their_columns_are_and_what_they_were_made_of)
{
    struct world *w = logged(LOG(""));
    struct dataset_version_spec v;
    struct lineage lines;
    want(w, M_POST, INFER, BODY("one", "1", "0.25,7") "}", 200);
    again(w);
    CHECK_OK(resource_get(w->l.store, w->l.a, &dataset_version_resource, S("default"), S("late-requests.1"),
                          NULL, &v, NULL));
    CHECK(v.rows == 1 && v.from > 0 && v.until == v.from + 1);
    size_t ids = 0, features = 0, times = 0;
    for (size_t i = 0; i < v.columns.n; i++) {
        const struct version_column *c = (const struct version_column *)v.columns.v + i;
        ids += c->role == IS_ID && str_is(c->name, "request");
        times += c->role == IS_EVENT_TIME && str_is(c->name, "time");
        features += c->role == IS_FEATURE;
    }
    CHECK(ids == 1 && times == 1 && features == 2);
    CHECK_OK(
        data_lineage(w->l.store, w->l.a, S("default"), S("DatasetVersion/late-requests.1"), true, &lines));
    CHECK(lines.n >= 3);
    world_free(w);
}

TEST(failures_are_logged_with_their_code)
{
    struct world *w = logged(LOG(""));
    want(
        w, M_POST, INFER,
        "{\"id\":\"bad\",\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2]}]}",
        400);
    again(w);
    struct columns c = log_rows(w, "late-requests", "id, error, a, probability");
    CHECK(c.rows == 1);
    CHECK_STR(text_in(&c, "error", 0), "INVALID");
    CHECK_STR(text_in(&c, "id", 0), "bad");
    CHECK(isnan(f64_at(&c, "a", 0)) && isnan(f64_at(&c, "probability", 0)));
    world_free(w);
}

TEST(personal_columns_are_null_or_hashed)
{
    struct world *w = logged(LOG(", personal: [a]"));
    want(w, M_POST, INFER, BODY("one", "2", "0.25,7,0.25,8") "}", 200);
    again(w);
    struct columns c = log_rows(w, "late-requests", "a, b");
    CHECK(c.rows == 2 && isnan(f64_at(&c, "a", 0)) && f64_at(&c, "b", 1) == 8);
    struct str first;
    wait_version(w, "1");
    want(
        w, M_PUT, "/api/v1/projects/default/deployments/late",
        "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"late\"},\"spec\":{\"model\":\"late\",\"requestLog\":{\"share\":1,"
        "\"personal\":[\"a\",\"probability\"],\"redact\":\"hash\",\"dataset\":\"hashed\"}}}",
        200);
    for (int i = 0; i < 200; i++) { /* until the control loop has seen it */
        want(w, M_POST, INFER, BODY("one", "3", "0.25,7,0.25,8,0.5,9") "}", 200);
        nap();
    }
    again(w);
    c = log_rows(w, "hashed", "a, b, probability"); /* triples of rows from here on */
    CHECK(c.rows >= 3);
    first = text_in(&c, "a", 0);
    CHECK(first.n == 32 && str_eq(first, text_in(&c, "a", 1)) && !str_eq(first, text_in(&c, "a", 2)));
    CHECK(text_in(&c, "probability", 0).n == 32 && f64_at(&c, "b", 2) == 9);
    world_free(w);
}

TEST(a_share_is_the_same_requests_each_time)
{
    struct world *w = logged(DEPLOYMENT(", requestLog: {share: 0.5}"));
    for (int twice = 0; twice < 2; twice++)
        for (int i = 0; i < 200; i++)
            want(
                w, M_POST, INFER,
                fmtz(
                    w->l.a,
                    "{\"id\":\"r%d\",\"inputs\":[{\"name\":\"features\",\"shape\":[1,2],\"datatype\":\"FP32\","
                    "\"data\":[1,2]}]}",
                    i),
                200);
    again(w);
    struct columns c = log_rows(w, "late-requests", "count(*) AS n, count(DISTINCT id) AS ids");
    double n = f64_at(&c, "n", 0), ids = f64_at(&c, "ids", 0);
    CHECK(n == 2 * ids && ids > 60 && ids < 140);
    world_free(w);
}

TEST(without_a_share_nothing_is_kept)
{
    struct world *w = logged(DEPLOYMENT(""));
    want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
    CHECK(w->serve->requests != NULL);
    again(w);
    CHECK_ERR(resource_get(w->l.store, w->l.a, &dataset_resource, S("default"), S("late-requests"), NULL,
                           NULL, NULL),
              NOT_FOUND);
    CHECK(!file_exists(fmtz(w->l.a, "%s/requests", store_dir(w->l.store))));
    world_free(w);
}

TEST(versions_older_than_keep_go_but_for_the_last)
{
    struct world *w = logged(LOG(", keep: 1ms"));
    struct dataset_version_spec v;
    const char *path;
    for (int i = 0; i < 3; i++) {
        wait_version(w, "1");
        want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
        nap();
        again(w);
        if (i == 0)
            CHECK_OK(resource_get(w->l.store, w->l.a, &dataset_version_resource, S("default"),
                                  S("late-requests.1"), NULL, &v, NULL));
    }
    CHECK_ERR(resource_get(w->l.store, w->l.a, &dataset_version_resource, S("default"), S("late-requests.1"),
                           NULL, NULL, NULL),
              NOT_FOUND);
    CHECK_ERR(blob_path(store_blobs(w->l.store), w->l.a, ((struct version_file *)v.files.v)[0].sha, &path),
              NOT_FOUND);
    struct columns c = log_rows(w, "late-requests", "count(*) FILTER (id = 'one') AS n");
    CHECK(f64_at(&c, "n", 0) == 1);
    world_free(w);
}

TEST(a_dataset_of_somebody_else_is_left_alone)
{
    struct world *w = logged(LOG(", dataset: mine"));
    struct dataset_status status = { 0 };
    CHECK_OK(resource_create(w->l.store, w->l.a, &dataset_resource, S("ann"), S("default"), S("mine"),
                             &(struct dataset_spec){ .sources = { (struct str[]){ S("s") }, 1, 1 },
                                                     .query = S("SELECT 1"),
                                                     .id = S("id"),
                                                     .event_time = S("t") }));
    log_setup(LOG_ERROR + 1, false);
    want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
    again(w);
    CHECK_OK(
        resource_get(w->l.store, w->l.a, &dataset_resource, S("default"), S("mine"), NULL, NULL, &status));
    CHECK(status.versions == 0);
    struct strs left; /* the rows wait for a better time */
    CHECK_OK(dir_list(w->l.a, fmtz(w->l.a, "%s/requests", store_dir(w->l.store)), &left));
    CHECK(left.n == 2);
    world_free(w);
}

/* ---- the disk ---- */

static int64_t figure(struct world *w, const char *name)
{
    struct str text = ask(w, M_GET, "/metrics", S("")).body;
    for (struct str line; str_cut(&text, '\n', &line);)
        if (str_starts(line, str_of(name)) && line.p[strlen(name)] == '{') {
            int64_t v = -1;
            CHECK(str_i64(str_sub(line, str_find(line, '}') + 2, line.n), &v));
            return v;
        }
    return -1;
}

/* A file where the folder of rows would be: as good as a disk that takes nothing. */
TEST(a_disk_that_takes_nothing_does_not_stop_the_answers)
{
    struct world *w = logged(LOG(""));
    api_metrics_add(w->api, serve_metrics, w->serve);
    const char *dir = fmtz(w->l.a, "%s/requests", store_dir(w->l.store));
    log_setup(LOG_ERROR + 1, false);
    CHECK_OK(dir_remove(dir));
    CHECK_OK(file_write(dir, S("")));
    for (int i = 0; i < 40; i++) {
        want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
        nap();
    }
    CHECK(figure(w, "dhow_inference_failures_total") == 0);
    CHECK(figure(w, "dhow_inference_rows_total") == 40);
    CHECK(unlink(dir) == 0);
    world_free(w);
}

/* ---- a process that died ---- */

TEST(rows_that_a_killed_process_left_are_published_by_the_next)
{
    struct world *w = logged(LOG(""));
    struct arena *a = w->l.a;
    const char *dir = fmtz(a, "%s/requests", store_dir(w->l.store));
    const char *mine = fmtz(a, "%s/zz.open", dir);
    want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
    struct strs names = { 0 };
    for (int i = 0; i < 400 && names.n < 2; i++) {
        nap();
        CHECK_OK(dir_list(a, dir, &names));
    }
    struct str head, rows = S("");
    const char *theirs = fmtz(a, "%s/%.*s", dir, STR(names.v[0]));
    for (int i = 0; i < 400 && !rows.n; i++) {
        nap();
        CHECK_OK(file_read(a, fmtz(a, "%s/rows.jsonl", theirs), 1 << 20, &rows));
    }
    CHECK_OK(file_read(a, fmtz(a, "%s/head.json", theirs), 1 << 20, &head));
    world_stop(w);
    /* the same again as if it had died in the middle of its second row */
    CHECK_OK(dir_make(mine));
    CHECK_OK(file_write(fmtz(a, "%s/head.json", mine), head));
    CHECK_OK(
        file_write(fmtz(a, "%s/rows.jsonl", mine),
                   fmt(a, "{\"c0\":\"x-1-0\",\"c4\":7000000,\"c16\":4}\n%.*s", STR(str_sub(rows, 0, 40)))));
    world_start(w);
    again(w); /* waits for what is published */
    struct columns c = log_rows(w, "late-requests", "request, a");
    CHECK(c.rows == 2);
    CHECK_STR(text_in(&c, "request", 1), "x-1-0");
    CHECK(f64_at(&c, "a", 1) == 4);
    world_free(w);
}

/* ---- traces ---- */

TEST(the_last_traced_requests_tell_their_times)
{
    struct world *w = logged(DEPLOYMENT(""));
    CHECK_OK(
        trace_setting_put(w->serve, S(""), S(""), (struct trace_setting){ TRACE_ON, 1, TRACE_COUNT_ANY }));
    want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
    want(w, M_POST, INFER, "{\"inputs\":[]}", 400);
    CHECK_OK(trace_setting_put(w->serve, S(""), S(""), trace_at_start));
    want(w, M_POST, INFER, BODY("one", "1", "1,2") "}", 200);
    struct json j = json_new(w->l.a);
    yyjson_val *v;
    trace_recent(w->serve, S(""), &j);
    CHECK_OK(json_parse(w->l.a, json_get(&j), &v));
    CHECK(yyjson_arr_size(v) == 2);
    yyjson_val *failed = yyjson_arr_get(v, 0), *good = yyjson_arr_get(v, 1);
    CHECK_STR(json_at(failed, "error"), "INVALID");
    CHECK_STR(json_at(good, "version"), "late.1");
    CHECK(json_at(good, "trace").n == 32 && json_at(good, "span").n == 16 && !yyjson_obj_get(good, "parent"));
    int64_t last = 0;
    static const char *const steps[] = { "ready", "started", "ran", "ended" };
    for (int i = 0; i < 4; i++) {
        int64_t at = yyjson_get_sint(yyjson_obj_get(good, steps[i]));
        CHECK(at > 0 && at >= last); /* it runs as soon as it is ready */
        last = at;
    }
    CHECK(yyjson_get_sint(yyjson_obj_get(failed, "ran")) == 0);
    world_free(w);
}
