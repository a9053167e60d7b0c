// SPDX-License-Identifier: Apache-2.0
/* Pushes, plans, materialisation and the routes, over a small dataset with resources and a real server. */
#define SUITE online
#include "feature/internal.h"
#include "data/lab.h"
#include <math.h>

static const char yaml[] =
    "apiVersion: dhow/v1\nkind: Source\nmetadata: {name: raw}\nspec: {path: raw.csv, format: csv}\n---\n"
    "apiVersion: dhow/v1\nkind: Dataset\nmetadata: {name: sales}\nspec:\n  sources: [raw]\n"
    "  query: SELECT id, born, known, shop, price, CAST(price > 20 AS INTEGER) AS big FROM raw\n  id: id\n  eventTime: born\n"
    "  knownAt: known\n  expect:\n    - {rule: schema, columns: {id: BIGINT, born: TIMESTAMP, known: TIMESTAMP, shop: VARCHAR, "
    "price: BIGINT, big: INTEGER}}\n---\n"
    "apiVersion: dhow/v1\nkind: Entity\nmetadata: {name: shop}\nspec: {keys: [shop]}\n---\n"
    "apiVersion: dhow/v1\nkind: FeatureView\nmetadata: {name: recent}\nspec:\n  dataset: sales\n  entity: shop\n"
    "  windows: [1h, 1d]\n  ttl: 2d\n  aggregates:\n    - {name: n, function: count}\n    - {name: price, function: mean, column: price}\n"
    "    - {name: total, function: sum, column: price}\n---\n"
    "apiVersion: dhow/v1\nkind: FeatureService\nmetadata: {name: svc}\nspec:\n  views: [recent]\n  request:\n"
    "    - {name: hour, function: hour, column: born}\n    - {name: price_now, function: value, column: price}\n---\n"
    "apiVersion: dhow/v1\nkind: TrainingSet\nmetadata: {name: rows}\nspec: {dataset: sales, service: svc, label: big}\n---\n"
    "apiVersion: dhow/v1\nkind: TrainingSet\nmetadata: {name: leak}\nspec: {dataset: sales, service: svc, label: big, knownAt: born}\n";
static const char csv[] = "id,born,known,shop,price\n"
                          "1,2020-01-01 00:00:00,2020-01-01 00:30:00,oslo,10\n"
                          "2,2020-01-01 01:00:00,2020-01-01 01:30:00,oslo,30\n"
                          "3,2020-01-01 01:10:00,2020-01-01 01:30:00,rome,50\n"
                          "4,2020-01-01 02:00:00,2020-01-01 02:30:00,oslo,\n"
                          "5,2020-01-01 03:00:00,2020-01-01 03:30:00,,70\n"
                          "6,2020-01-04 03:00:00,2020-01-04 03:30:00,oslo,40\n";

struct online {
    struct lab l;
    struct features *f;
};

static struct online online_open(void)
{
    struct online o = { .l = lab_open() };
    lab_write(&o.l, "raw.csv", csv);
    CHECK_OK(lab_apply(&o.l, data_resources, yaml));
    CHECK_OK(lab_apply(&o.l, feature_resources, yaml));
    CHECK_OK(features_open(o.l.store, &o.f));
    return o;
}

static void online_close(struct online *o)
{
    features_close(o->f);
    lab_close(&o->l);
}

static err push_text(struct online *o, const char *rows, struct push_result *out)
{
    struct column_def *defs;
    struct columns batch;
    yyjson_val *v;
    size_t n;
    TRY(json_parse(o->l.a, str_of(rows), &v));
    TRY(dataset_columns(o->l.store, o->l.a, S("default"), S("sales"), &defs, &n));
    TRY(columns_read(o->l.a, S("rows"), v, defs, n, COLUMNS_ROWS_MAX, 0, &batch));
    return feature_push(o->f, o->l.a, S("default"), S("sales"), &batch, out);
}

/* Asks for one shop at a time; the answer's view features. */
static uint8_t ask(struct online *o, const char *shop, const char *time, double out[8], int64_t *known)
{
    struct feature_plan *p;
    struct columns in;
    struct plan_binding b;
    struct kv_snap *snap;
    uint8_t status;
    yyjson_val *v;
    CHECK_OK(feature_plan_new(o->l.store, S("default"), S("svc"), &p));
    const char *text = fmtz(o->l.a, "{\"shop\":[%s],\"born\":[\"%s\"],\"price\":[7]}", shop, time);
    CHECK_OK(json_parse(o->l.a, str_of(text), &v));
    CHECK_OK(feature_plan_read(p, o->l.a, S("entities"), v, &in));
    CHECK_OK(feature_plan_bind(p, &in, &b));
    CHECK_OK(kv_snap_begin(store_kv(o->l.store), &snap));
    feature_plan_row(p, snap, &in, &b, 0, 0, &(struct plan_row){ out, &status, known });
    kv_snap_end(snap);
    feature_plan_free(p);
    return status;
}

TEST(a_plan_says_what_it_needs)
{
    struct online o = online_open();
    struct feature_plan *p;
    const struct plan_input *in;
    const struct str *names;
    CHECK_OK(feature_plan_new(o.l.store, S("default"), S("svc"), &p));
    CHECK(feature_plan_inputs(p, &in) == 3);
    CHECK_STR(in[0].name, "shop");
    CHECK(in[0].key && in[0].type == COL_STR);
    CHECK_STR(in[1].name, "born");
    CHECK(in[1].time && !in[1].optional && in[1].type == COL_TIME); /* a request feature needs it */
    CHECK(in[2].type == COL_I64);
    CHECK(feature_plan_features(p, &names) == 8);
    CHECK_STR(names[0], "recent_n_1h");
    CHECK_STR(names[4], "recent_price_1d");
    CHECK_STR(names[6], "hour");
    CHECK(feature_plan_view_of(p, 5) == 0 && feature_plan_view_of(p, 6) == -1);
    feature_plan_free(p);
    CHECK_ERR(feature_plan_new(o.l.store, S("default"), S("nope"), &p), NOT_FOUND);
    online_close(&o);
}

TEST(a_push_shows_at_once)
{
    struct online o = online_open();
    struct push_result r;
    double f[8];
    int64_t known;
    CHECK(ask(&o, "\"oslo\"", "2020-01-01T01:00:00", f, &known) == FEATURE_NOT_FOUND);
    CHECK(isnan(f[0]) && f[6] == 1 && f[7] == 7 && known == 0);
    CHECK_OK(push_text(
        &o,
        "{\"id\":[1,2],\"known\":[\"2020-01-01T00:30:00\",\"2020-01-01T01:30:00\"],\"shop\":[\"oslo\",\"oslo\"],"
        "\"price\":[10,30]}",
        &r));
    CHECK(r.rows == 2 && r.events == 2 && r.known == 0 && r.views == 1);
    CHECK(ask(&o, "\"oslo\"", "2020-01-01T02:00:00", f, &known) == FEATURE_PRESENT);
    CHECK(f[0] == 2 && f[1] == 20 && f[2] == 40 && known == 1577842200000000);

    CHECK_OK(push_text(
        &o, "{\"id\":[1],\"known\":[\"2020-01-01T00:30:00\"],\"shop\":[\"oslo\"],\"price\":[10]}", &r));
    CHECK(r.events == 0 && r.known == 1); /* again: nothing */
    CHECK_OK(push_text(
        &o, "{\"id\":[7],\"known\":[\"2020-01-01T00:00:00\"],\"shop\":[\"oslo\"],\"price\":[2]}", &r));
    CHECK(ask(&o, "\"oslo\"", "2020-01-01T02:00:00", f, &known) == FEATURE_PRESENT);
    CHECK(f[0] == 2 && f[3] == 3 && f[5] == 42 &&
          known == 1577842200000000); /* late: in the day, not the hour */
    CHECK_OK(push_text(
        &o, "{\"id\":[8],\"known\":[\"2019-12-01T00:00:00\"],\"shop\":[\"oslo\"],\"price\":[2]}", &r));
    CHECK(r.late == 1 && r.events == 0);
    CHECK_OK(push_text(
        &o, "{\"id\":[9],\"known\":[\"2020-01-01T01:30:00\"],\"shop\":[\"oslo\"],\"price\":[null]}", &r));
    CHECK(ask(&o, "\"oslo\"", "2020-01-01T02:00:00", f, &known) == FEATURE_PRESENT);
    CHECK(f[0] == 3 && f[1] == 20); /* a tie: one row that has seen both; a null is no part of the mean */

    CHECK(ask(&o, "\"oslo\"", "2020-01-03T01:30:00", f, &known) ==
          FEATURE_PRESENT); /* ttl: the last moment */
    CHECK(ask(&o, "\"oslo\"", "2020-01-03T01:30:01", f, &known) == FEATURE_OUTSIDE_MAX_AGE);
    CHECK(isnan(f[0]) && known == 1577842200000000);
    CHECK(ask(&o, "null", "2020-01-01T02:00:00", f, &known) == FEATURE_NOT_FOUND);
    online_close(&o);
}

TEST(pushes_that_are_refused_change_nothing)
{
    static const struct {
        const char *rows, *says;
    } rows[] = {
        { "{\"id\":[1],\"shop\":[\"oslo\"],\"price\":[1]}", "there is no column 'known'" },
        { "{\"id\":[1],\"known\":[null],\"shop\":[\"oslo\"],\"price\":[1]}", "rows.known[0] is missing" },
        { "{\"id\":[1,2],\"known\":[1577842200000000,32503680000000000],\"shop\":[\"oslo\",\"oslo\"],\"price\":[1,2]}",
          "rows.known[1] is more than a day from now" },
        { "{\"id\":[1],\"known\":[1577842200000000],\"shop\":[\"oslo\"]}", "there is no column 'price'" },
        { "{\"id\":[1],\"known\":[1577842200000000],\"shop\":[5],\"price\":[1]}",
          "rows.shop[0] is not text" },
        { "{\"id\":[1],\"known\":[1577842200000000],\"shpo\":[\"oslo\"],\"price\":[1]}", "is it 'shop'" },
    };
    struct online o = online_open();
    double f[8];
    int64_t known;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct push_result r;
        err e = push_text(&o, rows[i].rows, &r);
        if (!e || !strstr(str_z(o.l.a, e->text), rows[i].says))
            cr_assert_fail("%s: %.*s", rows[i].rows, e ? (int)e->text.n : 2, e ? e->text.p : "ok");
        CHECK(ask(&o, "\"oslo\"", "2020-01-01T02:00:00", f, &known) == FEATURE_NOT_FOUND);
    }
    online_close(&o);
}

TEST(rows_without_an_id_are_told_apart_by_what_they_hold)
{
    struct online o = online_open();
    struct push_result r;
    const char *same =
        "{\"known\":[1577842200000000,1577842200000000],\"shop\":[\"oslo\",\"oslo\"],\"price\":[1,1]}";
    const char *differ = "{\"known\":[1577842200000000],\"shop\":[\"oslo\"],\"price\":[2]}";
    CHECK_OK(push_text(&o, same, &r));
    CHECK(r.events == 1 && r.known == 1);
    CHECK_OK(push_text(&o, differ, &r));
    CHECK(r.events == 1);
    online_close(&o);
}

/* What was materialised is what the join gives at the end; what was pushed meanwhile stays; twice is once. */
TEST(materialize_equals_the_join_and_keeps_pushes)
{
    struct online o = online_open();
    struct push_result r;
    struct feature_service_status status;
    yyjson_val *out;
    double f[8];
    int64_t known;
    NEED_DUCK(&o.l);
    CHECK_OK(lab_job(&o.l, &data_ingest, "{\"dataset\":\"sales\"}", &out));
    CHECK_OK(push_text(
        &o, "{\"id\":[99],\"known\":[\"2020-01-04T03:40:00\"],\"shop\":[\"oslo\"],\"price\":[60]}", &r));
    const struct worker_type *m = feature_materialize(o.f, o.l.a);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(lab_job(&o.l, m, "{\"service\":\"svc\"}", &out));
        CHECK_STR(json_at(out, "version"), "sales.1");
        CHECK_STR(json_at(out, "rows"), "1"); /* rome's row is older than the ttl by then */
        CHECK(ask(&o, "\"oslo\"", "2020-01-04T04:00:00", f, &known) == FEATURE_PRESENT);
        CHECK(f[0] == 2 && f[1] == 50 && f[3] == 2 && known == 1578109200000000);
        CHECK(ask(&o, "\"rome\"", "2020-01-04T04:00:00", f, &known) == FEATURE_NOT_FOUND);
    }
    CHECK_OK(resource_get(o.l.store, o.l.a, &feature_service_resource, S("default"), S("svc"), NULL, NULL,
                          &status));
    CHECK_STR(status.online.version, "sales.1");
    CHECK(status.online.rows == 1 && status.online.at > 0);
    online_close(&o);
}

static struct columns built(struct online *o, const char *name)
{
    struct dataset_version_spec v;
    struct strs paths = { 0 };
    struct columns c;
    const char *p;
    CHECK_OK(resource_get(o->l.store, o->l.a, &dataset_version_resource, S("default"), str_of(name), NULL, &v,
                          NULL));
    CHECK_OK(blob_path(store_blobs(o->l.store), o->l.a, ((struct version_file *)v.files.v)[0].sha, &p));
    push(o->l.a, &paths, str_of(p));
    CHECK_OK(parquet_load(o->l.a, &paths, NULL, 0, &c));
    return c;
}

TEST(build_keeps_every_label_row_and_knownAt_can_leak)
{
    static const double honest[] = { NAN, 1, NAN, 2, NAN, NAN },
                        leaky[] = { 1, 2, 1, 2, NAN, 1 }; /* recent_n_1h */
    struct online o = online_open();
    struct dataset_version_spec v;
    struct lineage up;
    yyjson_val *out;
    NEED_DUCK(&o.l);
    CHECK_OK(lab_job(&o.l, &data_ingest, "{\"dataset\":\"sales\"}", &out));
    const struct worker_type *b = feature_build(o.f, o.l.a);
    CHECK_OK(lab_job(&o.l, b, "{\"trainingSet\":\"rows\"}", &out));
    CHECK_OK(lab_job(&o.l, b, "{\"trainingSet\":\"leak\",\"version\":\"sales.1\"}", &out));
    struct columns x = built(&o, "rows.1"), y = built(&o, "leak.1");
    CHECK(x.rows == 6 && y.rows == 6);
    const struct column *n = columns_find(&x, S("recent_n_1h")), *m = columns_find(&y, S("recent_n_1h"));
    for (size_t i = 0; i < 6; i++) {
        CHECK(columns_find(&x, S("id"))->i[i] == (int64_t)i + 1);
        CHECK(isnan(honest[i]) ? column_null(n, i) : n->f[i] == honest[i]);
        CHECK(isnan(leaky[i]) ? column_null(m, i) : m->f[i] == leaky[i]);
    }
    CHECK(
        column_null(columns_find(&x, S("big")), 3)); /* a label that is not known is a null, not a row less */
    CHECK_OK(
        resource_get(o.l.store, o.l.a, &dataset_version_resource, S("default"), S("rows.1"), NULL, &v, NULL));
    CHECK_STR(v.of, "TrainingSet/rows");
    CHECK_STR(v.service, "svc");
    struct feature_plan *p;
    CHECK_OK(feature_plan_new(o.l.store, S("default"), S("svc"), &p));
    CHECK_STR(v.definition, feature_plan_definition(p));
    feature_plan_free(p);
    CHECK_OK(data_lineage(o.l.store, o.l.a, S("default"), S("DatasetVersion/rows.1"), true, &up));
    CHECK(up.n == 5);
    CHECK_STR(up.v[up.n - 1].input, "Source/raw");
    CHECK_ERR(lab_job(&o.l, b, "{\"trainingSet\":\"rows\",\"version\":\"rows.1\"}", &out), INVALID);
    CHECK_ERR(lab_job(&o.l, b, "{\"trainingSet\":\"rows\",\"from\":\"2030-01-01\"}", &out), INVALID);
    online_close(&o);
}

static void seen_push(void *self, struct str project, struct str dataset, const struct columns *batch)
{
    CHECK_STR(project, "default");
    CHECK_STR(dataset, "sales");
    *(size_t *)self += batch->rows;
}

TEST(observers_see_each_push)
{
    struct online o = online_open();
    struct push_result r;
    size_t rows = 0;
    feature_observe(o.f, (struct push_observer){ &rows, seen_push });
    CHECK_OK(push_text(
        &o,
        "{\"id\":[1,2],\"known\":[1577842200000000,1577842200000001],\"shop\":[\"a\",null],\"price\":[1,2]}",
        &r));
    CHECK(rows == 2 && r.events == 1); /* without a key it is in no view */
    struct buf b = buf_new(o.l.a);
    feature_metrics(o.f, &b);
    CHECK(strstr(str_z(o.l.a, buf_get(&b)), "dhow_feature_push_rows_total 2\n"));
    online_close(&o);
}

struct pusher {
    struct online *o;
    int id;
    pthread_t thread;
};

static void *push_many(void *arg)
{
    struct pusher *p = arg;
    for (int i = 0; i < 50; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct columns c = { .rows = 1 };
        struct push_result r;
        static struct str dict[] = { S_INIT("oslo") };
        columns_add(a, &c, S("id"), COL_I64)->i[0] = p->id * 1000 + i;
        columns_add(a, &c, S("known"), COL_TIME)->i[0] = 1577842200000000 + i;
        columns_add(a, &c, S("price"), COL_I64)->i[0] = 1;
        columns_add(a, &c, S("shop"), COL_STR)->dict = dict;
        c.v[3].dict_n = 1;
        if (feature_push(p->o->f, a, S("default"), S("sales"), &c, &r))
            abort();
        if (i % 10 == 0 && resource_event(p->o->l.store, &dataset_resource, S("t"), S("default"), S("sales"),
                                          "sales.poked", S("{}")))
            abort(); /* definitions are read again meanwhile */
    }
    return NULL;
}

TEST(many_pushers_lose_nothing)
{
    struct online o = online_open();
    struct pusher p[4];
    double f[8];
    int64_t known;
    for (int i = 0; i < 4; i++) {
        p[i] = (struct pusher){ .o = &o, .id = i };
        CHECK_OK(thread_start("pusher", push_many, &p[i], &p[i].thread));
    }
    for (int i = 0; i < 4; i++)
        pthread_join(p[i].thread, NULL);
    CHECK(ask(&o, "\"oslo\"", "2020-01-01T02:00:00", f, &known) == FEATURE_PRESENT);
    CHECK(f[0] == 200 && f[2] == 200 && known == 1577842200000049);
    online_close(&o);
}

TEST(files_of_events_that_are_damaged)
{
    static const uint8_t good[] = { 'D', 'H', 'O', 'W', 'M', 'A', 'T', '1', 1,   0, 0, 0, 1, 0, 'v',
                                    1,   2,   3,   4,   5,   6,   7,   8,   0,   0, 0, 0, 1, 0, 0,
                                    0,   0,   0,   0,   0,   2,   0,   1,   'k', 1, 0, 0, 0, 9, 0,
                                    0,   0,   0,   0,   0,   0,   7,   0,   0,   0, 0, 0, 0, 0 };
    for (size_t n = 0; n <= sizeof good; n++) {
        struct mat_reader r;
        struct mat_view v;
        struct mat_key k;
        struct online_event e;
        fixed values[AGGREGATES_MAX];
        uint32_t views;
        err why = mat_open((struct str){ (const char *)good, n }, &r, &views);
        why = why ? why : mat_view_next(&r, &v);
        why = why ? why : mat_key_next(&r, &k);
        why = why ? why : mat_event_next(&r, v.columns, &e, values);
        CHECK(n == sizeof good ? !why : why && why->code == INVALID);
        if (!why)
            CHECK(e.known == 9 && e.id == 7 && k.events == 1 && str_is(k.key, "\1k"));
    }
}
