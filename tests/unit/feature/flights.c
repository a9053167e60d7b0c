// SPDX-License-Identifier: Apache-2.0
/* The demo, whole: the join against DuckDB's SQL, and online against offline. */
#define SUITE flights
#include "data/lab.h"
#include "feature/feature.h"
#include <math.h>

static err apply_demo(struct lab *l)
{
    struct str yaml;
    const char *demo = fmtz(l->a, "%s/../../examples/flights/dhow.yaml", lab_data(l, "."));
    lab_copy(l, lab_data(l, "flights-3m.parquet"), "flights-3m.parquet");
    lab_copy(l, lab_data(l, "airports.csv"), "airports.csv");
    TRY(file_read(l->a, demo, 1 << 20, &yaml));
    TRY(lab_apply(l, data_resources, yaml.p));
    return lab_apply(l, feature_resources, yaml.p);
}

static err version_paths(struct lab *l, struct str name, struct strs *paths)
{
    struct dataset_version_spec v;
    TRY(resource_get(l->store, l->a, &dataset_version_resource, S("default"), name, NULL, &v, NULL));
    for (size_t i = 0; i < v.files.n; i++) {
        const char *p;
        TRY(blob_path(store_blobs(l->store), l->a, ((struct version_file *)v.files.v)[i].sha, &p));
        push(l->a, paths, str_of(p));
    }
    return NULL;
}

static bool same(double x, double y)
{
    return (isnan(x) && isnan(y)) || memcmp(&x, &y, 8) == 0;
}

/* The view's rows by SQL, then the last one known at each label's time. */
static struct str view_sql(struct arena *a, struct str events, struct str rows, const char *key,
                           const char *view, const char *const *windows, const char *ttl)
{
    struct buf b = buf_new(a), w = buf_new(a), names = buf_new(a);
    for (size_t i = 0; windows[i]; i++) {
        buf_fmt(&b,
                ", CAST(count(*) OVER w%zu AS DOUBLE) AS %s_flights_%s, avg(delay) OVER w%zu AS %s_delay_%s, "
                "avg(late) OVER w%zu AS %s_late_%s",
                i, view, windows[i], i, view, windows[i], i, view, windows[i]);
        buf_fmt(
            &w,
            "%s w%zu AS (PARTITION BY %s ORDER BY known_at RANGE BETWEEN INTERVAL '%s' PRECEDING AND CURRENT ROW)",
            i ? "," : " WINDOW", i, key, windows[i]);
        buf_fmt(&names,
                ", CASE WHEN v.known_at >= l.ts - INTERVAL '%s' THEN v.%s_flights_%s END AS %s_flights_%s, "
                "CASE WHEN v.known_at >= l.ts - INTERVAL '%s' THEN v.%s_delay_%s END AS %s_delay_%s, "
                "CASE WHEN v.known_at >= l.ts - INTERVAL '%s' THEN v.%s_late_%s END AS %s_late_%s",
                ttl, view, windows[i], view, windows[i], ttl, view, windows[i], view, windows[i], ttl, view,
                windows[i], view, windows[i]);
    }
    struct str on = strchr(key, ',') ? S("l.origin = v.origin AND l.destination = v.destination")
                    : key[0] == 'o'  ? S("l.origin = v.origin")
                                     : S("l.destination = v.destination");
    return fmt(
        a,
        "WITH e AS (SELECT DISTINCT ON (%s, known_at) %s, known_at%.*s FROM %.*s%.*s) "
        "SELECT l.id%.*s FROM %.*s l ASOF LEFT JOIN e v ON %.*s AND l.ts >= v.known_at ORDER BY l.ts, l.id",
        key, key, STR(buf_get(&b)), STR(events), STR(buf_get(&w)), STR(buf_get(&names)), STR(rows), STR(on));
}

static size_t compare(const struct columns *want, const struct columns *have)
{
    size_t wrong = 0;
    for (size_t i = 0; i < want->n; i++) {
        const struct column *c = columns_find(have, want->v[i].name);
        CHECK(c);
        CHECK(want->rows == have->rows);
        for (size_t row = 0; row < want->rows; row++)
            if (!same(column_f64(&want->v[i], row), column_f64(c, row)) && wrong++ < 5)
                printf("%.*s row %zu: SQL %.17g, dhow %.17g\n", STR(c->name), row,
                       column_f64(&want->v[i], row), column_f64(c, row));
    }
    return wrong;
}

static void join_against_sql(struct lab *l, struct str version)
{
    static const struct {
        const char *key, *view, *windows[4], *ttl;
    } views[] = { { "origin", "origin_recent", { "1h", "3h", "24h" }, "7d" },
                  { "destination", "destination_recent", { "3h", "24h" }, "7d" },
                  { "origin, destination", "route_history", { "7d", "30d" }, "60d" } };
    struct strs events = { 0 }, rows = { 0 }, all = { 0 };
    struct columns have, want;
    struct duck *d;
    CHECK_OK(version_paths(l, S("flights.1"), &events));
    CHECK_OK(version_paths(l, version, &rows));
    CHECK_OK(parquet_load(l->a, &rows, NULL, 0, &have));
    for (size_t i = 0; i < events.n; i++)
        push(l->a, &all, events.v[i]);
    for (size_t i = 0; i < rows.n; i++)
        push(l->a, &all, rows.v[i]);
    CHECK_OK(duck_open(l->a, &(struct duck_config){ .files = all, .memory_bytes = (int64_t)6 << 30 }, &d));
    for (size_t i = 0; i < 3; i++) {
        int64_t t = mono_ns();
        CHECK_OK(duck_load(d, l->a,
                           view_sql(l->a, sql_parquet(l->a, &events), sql_parquet(l->a, &rows), views[i].key,
                                    views[i].view, views[i].windows, views[i].ttl),
                           &want));
        size_t wrong = compare(&want, &have);
        printf("%s: %zu rows x %zu columns, %zu differ from DuckDB's (%.1f s)\n", views[i].view, want.rows,
               want.n, wrong, (double)(mono_ns() - t) / 1e9);
        CHECK(wrong == 0);
    }
    CHECK_OK(duck_load(
        d, l->a,
        fmt(l->a,
            "SELECT CAST(hour(date) AS DOUBLE) AS hour, CAST(isodow(date) - 1 AS DOUBLE) AS weekday "
            "FROM (SELECT f.id, f.date, f.ts FROM %.*s f SEMI JOIN %.*s r ON f.id = r.id) ORDER BY ts, id",
            STR(sql_parquet(l->a, &events)), STR(sql_parquet(l->a, &rows))),
        &want));
    CHECK(compare(&want, &have) == 0);
}

/* Pushes the rows of a slice in order of known time, asks at each label's time, and compares with the offline rows. */
static void online_against_offline(struct lab *l, struct features *f, struct str version, size_t asked)
{
    struct strs events = { 0 }, rows = { 0 };
    struct columns ev, have, batch = { 0 };
    struct feature_plan *p;
    struct duck *d;
    CHECK_OK(version_paths(l, S("flights.1"), &events));
    CHECK_OK(version_paths(l, version, &rows));
    CHECK_OK(duck_open(l->a, &(struct duck_config){ .files = events, .memory_bytes = (int64_t)6 << 30 }, &d));
    CHECK_OK(duck_load(d, l->a,
                       fmt(l->a, "SELECT * FROM %.*s ORDER BY known_at, id", STR(sql_parquet(l->a, &events))),
                       &ev));
    CHECK_OK(parquet_load(l->a, &rows, NULL, 0, &have));
    CHECK_OK(feature_plan_new(l->store, S("default"), S("late_features"), &p));
    const struct str *names;
    size_t n = feature_plan_features(p, &names), wrong = 0, at = 0;
    const struct column *time = columns_find(&have, S("ts")), *known = columns_find(&ev, S("known_at"));
    const struct column *id = columns_find(&have, S("id"));
    double *out = NEW_N(l->a, double, n);
    uint8_t status[3];
    int64_t known_at[3], push_ns = 0, read_ns = 0, pushes = 0;
    struct plan_binding *b = NEW(l->a, struct plan_binding);
    struct columns req;
    CHECK_OK(duck_open(l->a, &(struct duck_config){ .files = events }, &d));
    int64_t first = time->i[0], last = time->i[have.rows - 1];
    CHECK_OK(
        duck_load(d, l->a,
                  fmt(l->a,
                      "SELECT id, origin, destination, date, ts, distance FROM %.*s WHERE epoch_us(ts) >= "
                      "%lld AND epoch_us(ts) <= %lld ORDER BY ts, id",
                      STR(sql_parquet(l->a, &events)), (long long)first, (long long)last),
                  &req));
    CHECK_OK(feature_plan_bind(p, &req, b));
    const struct column *req_id = columns_find(&req, S("id"));
    size_t r = 0, done = 0, step = have.rows / asked;
    for (size_t i = 0; i < have.rows && done < asked; i += step, done++) {
        while (at < ev.rows && known->i[at] <= time->i[i]) { /* all that is known by then, in batches */
            size_t to = at;
            while (to < ev.rows && to - at < COLUMNS_ROWS_MAX && known->i[to] <= time->i[i])
                to++;
            batch = (struct columns){ .v = NEW_N(l->a, struct column, ev.n), .n = ev.n, .rows = to - at };
            for (size_t c = 0; c < ev.n; c++) {
                batch.v[c] = ev.v[c];
                if (ev.v[c].type == COL_STR)
                    batch.v[c].code += at;
                else
                    batch.v[c].i += at;
            }
            struct push_result result;
            int64_t t = mono_ns();
            CHECK_OK(feature_push(f, l->a, S("default"), S("flights"), &batch, &result));
            push_ns += mono_ns() - t;
            pushes++;
            at = to;
        }
        while (req_id->i[r] != id->i[i])
            r++;
        struct kv_snap *snap;
        int64_t t = mono_ns();
        CHECK_OK(kv_snap_begin(store_kv(l->store), &snap));
        feature_plan_row(p, snap, &req, b, r, 0, &(struct plan_row){ out, status, known_at });
        kv_snap_end(snap);
        read_ns += mono_ns() - t;
        for (size_t k = 0; k < n; k++) {
            const struct column *c = columns_find(&have, names[k]);
            if (!same(out[k], column_f64(c, i)) && wrong++ < 5)
                printf("%.*s of %lld: online %.17g, offline %.17g\n", STR(names[k]), (long long)id->i[i],
                       out[k], column_f64(c, i));
        }
    }
    printf(
        "online: %zu rows asked, %zu values differ; %zu rows in %lld pushes, %.0f rows/s; a read %.2f us\n",
        done, wrong, at, (long long)pushes, (double)at / ((double)push_ns / 1e9),
        (double)read_ns / 1e3 / (double)done);
    CHECK(wrong == 0);
    CHECK(done == asked);
    feature_plan_free(p);
}

TEST(join_equals_sql_and_online_equals_offline, .timeout = 300)
{
    struct lab l = lab_open();
    struct features *f;
    yyjson_val *out;
    NEED_FLIGHTS(&l);
    CHECK_OK(apply_demo(&l));
    CHECK_OK(features_open(l.store, &f));
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\",\"until\":\"2001-02-20\"}", &out));
    const struct worker_type *build = feature_build(f, l.a);
    const char *with =
        "{\"trainingSet\":\"late_rows\",\"version\":\"flights.1\",\"from\":\"2001-02-13\",\"until\":\"2001-02-20\"}";
    CHECK_OK(lab_job(&l, build, with, &out));
    CHECK_STR(json_at(out, "version"), "late_rows.1");
    printf("build: %.*s rows, %.*s rows/s\n", STR(json_at(out, "rows")), STR(json_at(out, "rowsPerSecond")));
    CHECK_OK(lab_job(&l, build, with, &out));
    CHECK_STR(json_at(out, "version"), "late_rows.1");
    join_against_sql(&l, S("late_rows.1"));
    online_against_offline(&l, f, S("late_rows.1"), 10000);
    features_close(f);
    lab_close(&l);
}

TEST(whole, .timeout = 300)
{
    struct lab l = lab_open();
    struct features *f;
    yyjson_val *out;
    NEED_FLIGHTS(&l);
    CHECK_OK(apply_demo(&l));
    CHECK_OK(features_open(l.store, &f));
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\",\"until\":\"2001-05-01\"}", &out));
    int64_t t = mono_ns();
    CHECK_OK(lab_job(&l, feature_build(f, l.a),
                     "{\"trainingSet\":\"late_rows\",\"from\":\"2001-02-01\",\"until\":\"2001-05-01\"}",
                     &out));
    printf("build: %.2f s, %.*s rows, join %.*s rows/s\n", (double)(mono_ns() - t) / 1e9,
           STR(json_at(out, "rows")), STR(json_at(out, "rowsPerSecond")));
    t = mono_ns();
    CHECK_OK(lab_job(&l, feature_materialize(f, l.a),
                     "{\"service\":\"late_features\",\"version\":\"flights.1\"}", &out));
    printf("materialize: %.2f s, %.*s rows, %.*s events\n", (double)(mono_ns() - t) / 1e9,
           STR(json_at(out, "rows")), STR(json_at(out, "events")));
    features_close(f);
    lab_close(&l);
}
