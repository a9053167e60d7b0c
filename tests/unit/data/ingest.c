// SPDX-License-Identifier: Apache-2.0
#define SUITE ingest
#include "data/lab.h"
#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>

/* A small dataset of its own; %s: further lines of the spec. */
static const char trips[] =
    "{apiVersion: dhow/v1, kind: Source, metadata: {name: trips_raw}, spec: {path: trips.csv, format: csv}}\n---\n"
    "apiVersion: dhow/v1\nkind: Dataset\nmetadata: {name: trips}\nspec:\n  sources: [trips_raw]\n"
    "  query: SELECT id, born, born + INTERVAL 1 HOUR AS known, city, price FROM trips_raw\n"
    "  id: id\n  eventTime: born\n  knownAt: known\n";
static const char csv[] = "id,born,city,price\n1,2020-01-01 00:00:00,Oslo,10\n2,2020-01-01 02:00:00,Rome,20\n"
                          "3,2020-01-01 04:00:00,Oslo,30\n4,2020-01-01 06:00:00,,\n";

static struct lab open_trips(const char *more, const char *text)
{
    struct lab l = lab_open();
    lab_write(&l, "trips.csv", text);
    CHECK_OK(lab_apply(&l, data_resources, fmtz(l.a, "%s%s", trips, more)));
    return l;
}

static err ingest(struct lab *l, const char *until, yyjson_val **out)
{
    return lab_job(l, &data_ingest, fmtz(l->a, "{\"dataset\":\"trips\"%s}", until), out);
}

#define SAYS(l, e, words)                                                                  \
    do {                                                                                   \
        err said_ = (e);                                                                   \
        if (!said_ || !strstr(str_z((l)->a, said_->text), words))                          \
            cr_assert_fail("\"%.*s\" does not say \"%s\"", said_ ? (int)said_->text.n : 2, \
                           said_ ? said_->text.p : "ok", words);                           \
    } while (0)

static struct dataset_version_spec version(struct lab *l, const char *name)
{
    struct dataset_version_spec v;
    CHECK_OK(
        resource_get(l->store, l->a, &dataset_version_resource, S("default"), str_of(name), NULL, &v, NULL));
    return v;
}

TEST(makes_one_version_and_then_no_other)
{
    struct lab l = open_trips(
        "  expect:\n    - {rule: range, column: price, min: 15, severity: warn, name: cheap}\n", csv);
    yyjson_val *out;
    struct dataset_status status;
    NEED_DUCK(&l);
    CHECK_OK(ingest(&l, "", &out));
    CHECK_STR(json_at(out, "version"), "trips.1");
    CHECK_STR(json_at(out, "rows"), "4");
    CHECK_OK(ingest(&l, "", &out));
    CHECK_STR(json_at(out, "version"), "trips.1");
    struct dataset_version_spec v = version(&l, "trips.1");
    CHECK_STR(v.of, "Dataset/trips");
    CHECK(v.number == 1 && v.rows == 4 && v.files.n == 1 && v.columns.n == 5);
    const struct version_column *c = v.columns.v;
    CHECK(c[0].role == IS_ID && c[1].role == IS_EVENT_TIME && c[2].role == IS_KNOWN_AT &&
          c[3].role == IS_VALUE);
    CHECK(c[4].statistics.nulls == 1 && c[4].statistics.mean == 20 && c[4].statistics.max == 30 &&
          c[4].statistics.std == 10);
    CHECK_STR(c[1].statistics.first, "2020-01-01T00:00:00Z");
    CHECK_STR(c[3].statistics.top, "[[\"Oslo\",2]]");
    const struct version_check *k = v.checks.v;
    CHECK_STR(k[0].name, "cheap");
    CHECK(k[0].failed == 1 && !k[0].ok && k[0].severity == SEVERITY_WARN && k[0].examples.n == 1);
    CHECK_STR(k[0].examples.v[0], "1");
    lab_write(&l, "trips.csv", fmtz(l.a, "%s5,2020-01-02 00:00:00,Bern,1\n", csv));
    CHECK_OK(ingest(&l, "", &out));
    CHECK_STR(json_at(out, "version"), "trips.2");
    CHECK_OK(resource_get(l.store, l.a, &dataset_resource, S("default"), S("trips"), NULL, NULL, &status));
    CHECK_STR(status.latest, "trips.2");
    CHECK(status.versions == 2 && status.rows == 5);
    lab_close(&l);
}

TEST(until_keeps_the_future_out)
{
    struct lab l = open_trips("", csv);
    yyjson_val *out;
    NEED_DUCK(&l);
    CHECK_OK(
        ingest(&l, ",\"until\":\"2020-01-01T05:00:00Z\"", &out)); /* trip 3 is known at 05:00, not before */
    CHECK_STR(json_at(out, "rows"), "2");
    CHECK_OK(ingest(&l, ",\"until\":\"2020-01-01T05:00:01Z\"", &out));
    CHECK_STR(json_at(out, "rows"), "3");
    CHECK_STR(json_at(out, "version"), "trips.2");
    lab_close(&l);
}

TEST(a_rule_that_fails_commits_nothing)
{
    static const struct {
        const char *rule, *says;
    } rows[] = {
        { "{rule: range, column: price, min: 15, name: cheap}",
          "rule 'cheap' (range): column price: 1 rows" },
        { "{rule: notNull, columnNames: [city, price]}",
          "rule 'notNull_city' (notNull): column city: 1 rows; ids 4 (and 1 more rules)" },
        { "{rule: unique, columnNames: [city]}",
          "rule 'unique_city' (unique): column city: 1 rows; ids 1, 3" },
        { "{rule: length, column: city, min: 5}", "rule 'length_city' (length): column city: 3 rows" },
        { "{rule: inSet, column: city, values: [Oslo]}",
          "rule 'inSet_city' (inSet): column city: 1 rows; ids 2" },
        { "{rule: regex, column: city, pattern: '[A-Z][a-z]{3}'}", NULL },
        { "{rule: regex, column: city, pattern: 'O.*'}",
          "rule 'regex_city' (regex): column city: 1 rows; ids 2" },
        { "{rule: rows, min: 5}", "rule 'rows' (rows): it is 4, allowed from 5" },
        { "{rule: mean, column: price, max: 19}",
          "rule 'mean_price' (mean): column price: it is 20, allowed to 19" },
        { "{rule: std, column: price, min: 9, max: 11}", NULL },
        { "{rule: distinct, column: city, min: 3}", "rule 'distinct_city' (distinct): column city: it is 2" },
        { "{rule: where, where: 'price < 25 -- cheap', name: cheap}", "rule 'cheap' (where): 1 rows; ids 3" },
        { "{rule: range, column: price, min: 15, mostly: 0.5}", NULL },
        { "{rule: freshness, age: 1h}", "rule 'freshness' (freshness)" },
        { "{rule: schema, columns: {price: VARCHAR}}", "price is BIGINT, not VARCHAR" },
        { "{rule: schema, columns: {prise: BIGINT}}", "prise is missing, not BIGINT" },
        { "{rule: range, column: city, min: 1}", "column 'city' is VARCHAR, not a number" },
        { "{rule: range, column: prize, min: 1}", "is it 'price'" },
        { "{rule: where, where: 'price < ', name: half}", "Parser Error" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct lab l = open_trips(fmtz(a, "  expect:\n    - %s\n", rows[i].rule), csv);
        yyjson_val *out;
        struct object o;
        NEED_DUCK(&l);
        err e = ingest(&l, "", &out);
        if (rows[i].says)
            SAYS(&l, e, rows[i].says);
        else
            CHECK_OK(e);
        if (rows[i].says)
            CHECK_ERR(object_get(l.store, l.a, S("DatasetVersion"), S("default"), S("trips.1"), &o),
                      NOT_FOUND);
        lab_close(&l);
    }
}

TEST(what_no_dataset_can_do_without)
{
    struct lab l = open_trips(
        "", "id,born,city,price\n1,2020-01-01 00:00:00,Oslo,10\n1,2020-01-01 02:00:00,Rome,20\n");
    yyjson_val *out;
    NEED_DUCK(&l);
    SAYS(&l, ingest(&l, "", &out), "rule 'unique_id' (unique): column id: 1 rows");
    lab_write(&l, "trips.csv", "id,born,city,price\n1,,Oslo,10\n2,2020-01-01 02:00:00,Rome,20\n");
    SAYS(&l, ingest(&l, "", &out), "rule 'notNull_born' (notNull): column born: 1 rows; ids 1");
    SAYS(&l, ingest(&l, ",\"until\":\"2021-01-01\"", &out), "notNull_born"); /* `until` does not hide it */
    lab_close(&l);
}

TEST(queries_that_are_no_single_select)
{
    static const struct {
        const char *query, *says;
    } rows[] = {
        { "SELECT 1 AS id; SELECT 2", "one SELECT" },
        { "SELECT * FROM read_csv('/etc/passwd')", "/etc/passwd" },
        { "SELECT id, nope FROM trips_raw", "nope" },
        { "SELECT id, city AS born, born AS known FROM trips_raw",
          "column 'born', its eventTime, is VARCHAR, not a time" },
        { "SELECT born, born AS known FROM trips_raw", "no column 'id', its id" },
        { "SELECT id, born, born AS known, [[price]] AS p FROM trips_raw", "column 'p' is BIGINT[][]" },
        { "SELECT id, born, born AS known, [city] AS c FROM trips_raw", "column 'c' is VARCHAR[]" },
        { "SELECT [id] AS id, born, born AS known FROM trips_raw",
          "column 'id', its id, is BIGINT[], not a single value" },
        { "SELECT id, born, born AS known, CAST(city AS INTEGER) AS c FROM trips_raw",
          "file trips.csv: column 'city' is VARCHAR" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct lab l = open_trips("", csv);
        struct dataset_spec spec;
        yyjson_val *out;
        NEED_DUCK(&l);
        CHECK_OK(resource_get(l.store, l.a, &dataset_resource, S("default"), S("trips"), NULL, &spec, NULL));
        spec.query = str_of(rows[i].query);
        CHECK_OK(
            resource_create(l.store, l.a, &dataset_resource, S("test"), S("default"), S("trips2"), &spec));
        SAYS(&l, lab_job(&l, &data_ingest, "{\"dataset\":\"trips2\"}", &out), rows[i].says);
        lab_close(&l);
    }
    struct dataset_spec bad = { .query = S("DROP TABLE x") };
    auto_arena struct arena *a = arena_new(0);
    CHECK_ERR(dataset_resource.check(&(struct resource_check){ .a = a, .spec = &bad }), INVALID);
}

/* Lists of numbers, no id and no time: rows stay as the query gives them. */
TEST(rows_need_be_no_events)
{
    struct lab l = open_trips("", csv);
    yyjson_val *out;
    struct columns back;
    NEED_DUCK(&l);
    lab_write(&l, "song.txt", "la\n\n  lo,\"l\\\n");
    CHECK_OK(lab_apply(
        &l, data_resources,
        "{apiVersion: dhow/v1, kind: Source, metadata: {name: song}, spec: {path: song.txt, format: text}}\n---\n"
        "{apiVersion: dhow/v1, kind: Dataset, metadata: {name: song}, spec: {sources: [song], query: 'FROM song'}}\n---\n"
        "{apiVersion: dhow/v1, kind: Dataset, metadata: {name: odd}, spec: {sources: [trips_raw], expect: [{rule: range, column: id, "
        "max: 3, severity: warn}], query: 'SELECT [id, 7]::FLOAT[2] AS pair, id FROM trips_raw ORDER BY 2 DESC'}}\n"));
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"song\"}", &out));
    struct dataset_version_spec v = version(&l, "song.1");
    const char *path;
    CHECK(v.rows == 4 && v.columns.n == 2);
    CHECK_OK(blob_path(store_blobs(l.store), l.a, ((struct version_file *)v.files.v)[0].sha, &path));
    struct str name = str_of(path);
    CHECK_OK(parquet_load(l.a, &(struct strs){ &name, 1, 1 }, NULL, 0, &back));
    for (size_t i = 0; i < 4; i++)
        CHECK(back.v[0].i[i] == (int64_t)i + 1);
    CHECK_STR(column_str(&back.v[1], 0), "la");
    CHECK_STR(column_str(&back.v[1], 1), "");
    CHECK_STR(column_str(&back.v[1], 2), "  lo,\"l\\");
    CHECK_STR(column_str(&back.v[1], 3), "");
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"odd\"}", &out));
    v = version(&l, "odd.1");
    const struct version_column *c = v.columns.v;
    const struct version_check *check = v.checks.v;
    CHECK_STR(c[0].type, "FLOAT[2]");
    CHECK(c[1].role == IS_VALUE && c[1].statistics.max == 4 && c[0].statistics.distinct > 2);
    CHECK(v.checks.n == 1 && check->failed == 1 && check->examples.n == 1);
    CHECK_STR(check->examples.v[0], "0"); /* the row's number, as it has no id */
    CHECK_OK(blob_path(store_blobs(l.store), l.a, ((struct version_file *)v.files.v)[0].sha, &path));
    name = str_of(path);
    CHECK_OK(parquet_load(l.a, &(struct strs){ &name, 1, 1 }, &c[1].name, 1, &back));
    for (size_t i = 0; i < 4; i++)
        CHECK(back.v[0].i[i] == 4 - (int64_t)i);
    SAYS(&l, lab_job(&l, &data_ingest, "{\"dataset\":\"odd\",\"until\":\"2021-01-01\"}", &out),
         "has no eventTime");
    lab_close(&l);
}

TEST(paths_stay_beneath_the_folder)
{
    static const struct {
        const char *path;
        enum err_code code;
    } rows[] = { { "../secret", INVALID },
                 { "/etc/passwd", INVALID },
                 { "a/../../secret", INVALID },
                 { "a//b", INVALID },
                 { "./x", INVALID },
                 { "a/", INVALID },
                 { "link", INVALID },
                 { "dir/x", INVALID },
                 { "missing.csv", NOT_FOUND },
                 { "sub", INVALID },
                 { "", INVALID } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct lab l = lab_open();
        struct source_spec s = { .path = str_of(rows[i].path), .format = FORMAT_CSV };
        struct dataset_spec d = { .query = S("SELECT 1"), .id = S("id"), .event_time = S("born") };
        yyjson_val *out;
        struct str name = S("src");
        lab_write(&l, "real", "x");
        CHECK_OK(dir_make(fmtz(l.a, "%s/sub", l.sources)));
        CHECK(!symlink("real", fmtz(l.a, "%s/link", l.sources)));
        CHECK(!symlink("sub", fmtz(l.a, "%s/dir", l.sources)));
        push(l.a, &d.sources, name);
        CHECK_OK(resource_create(l.store, l.a, &source_resource, S("test"), S("default"), name, &s));
        CHECK_OK(resource_create(l.store, l.a, &dataset_resource, S("test"), S("default"), S("trips"), &d));
        err e = ingest(&l, "", &out);
        if (!e || e->code != rows[i].code || (rows[i].path[0] && !strstr(str_z(l.a, e->text), rows[i].path)))
            cr_assert_fail("%s: %.*s", rows[i].path, e ? (int)e->text.n : 2, e ? e->text.p : "ok");
        lab_close(&l);
    }
}

/* A Parquet file of 5,000 rows: delay is text in it if `text`. */
static void parquet_write(struct lab *l, const char *name, bool text)
{
    static struct str words[] = { S_INIT("twelve"), S_INIT("13") };
    struct columns c = { .rows = 5000 };
    struct column *id = columns_add(l->a, &c, S("id"), COL_I64);
    for (size_t i = 0; i < c.rows; i++)
        id->i[i] = (int64_t)(i * 7919 % 5000);
    struct column *born = columns_add(l->a, &c, S("born"), COL_TIME);
    for (size_t i = 0; i < c.rows; i++)
        born->i[i] = (int64_t)i * 1000000;
    struct column *delay = columns_add(l->a, &c, S("delay"), text ? COL_STR : COL_I64);
    delay->dict = words;
    delay->dict_n = 2;
    for (size_t i = 0; i < c.rows; i++)
        if (text)
            delay->code[i] = i % 2;
        else
            delay->i[i] = (int64_t)(hash64((struct str){ (const char *)&i, 8 }) % 1000);
    CHECK_OK(parquet_save(l->a, fmtz(l->a, "%s/%s", l->sources, name), &c, 0, c.rows));
}

static const char parquet_yaml[] =
    "{apiVersion: dhow/v1, kind: Source, metadata: {name: raw}, spec: {path: raw.parquet}}\n---\n"
    "apiVersion: dhow/v1\nkind: Dataset\nmetadata: {name: trips}\nspec:\n  sources: [raw]\n"
    "  query: SELECT id, born, CAST(delay > 15 AS INTEGER) AS late, delay FROM raw\n  id: id\n  eventTime: born\n"
    "  expect:\n    - {rule: schema, columns: {delay: BIGINT}}\n";

TEST(damaged_and_mistyped_files_are_named)
{
    struct lab l = lab_open();
    yyjson_val *out;
    struct str bytes;
    const char *path = fmtz(l.a, "%s/raw.parquet", l.sources);
    NEED_DUCK(&l);
    CHECK_OK(lab_apply(&l, data_resources, parquet_yaml));
    parquet_write(&l, "raw.parquet", false);
    CHECK_OK(ingest(&l, "", &out));
    CHECK_OK(file_read(l.a, path, 1 << 20, &bytes));

    CHECK_OK(file_write(path, str_sub(bytes, 0, bytes.n / 2)));
    SAYS(&l, ingest(&l, "", &out), "source 'raw' (file raw.parquet) cannot be read as parquet");
    CHECK_OK(file_write(path, S("")));
    SAYS(&l, ingest(&l, "", &out), "source 'raw' (file raw.parquet) cannot be read as parquet");

    char *broken = (char *)str_dup(l.a, bytes).p; /* the footer is good, the pages are not */
    memset(broken + 200, 0xa5, bytes.n / 2);
    CHECK_OK(file_write(path, (struct str){ broken, bytes.n }));
    SAYS(&l, ingest(&l, "", &out), "file raw.parquet is damaged in column '");

    CHECK(!unlink(path));
    parquet_write(&l, "raw.parquet", true);
    SAYS(&l, ingest(&l, "", &out), "file raw.parquet: column 'delay' is VARCHAR, BIGINT is expected");
    lab_close(&l);
}

TEST(parquet_goes_there_and_back)
{
    struct lab l = lab_open();
    NEED_DUCK(&l);
    uint64_t seed = 1;
    static struct str words[] = { S_INIT("a"), S_INIT("a text longer than twelve bytes"), S_INIT("") };
    struct columns c = { .rows = 10000 }, back;
    for (int t = COL_I64; t <= COL_STR; t++)
        columns_add(l.a, &c, fmt(l.a, "c%d", t), (enum column_type)t)->null = NEW_N(l.a, uint8_t, c.rows);
    c.v[COL_STR].dict = words;
    c.v[COL_STR].dict_n = 3;
    for (size_t i = 0; i < c.rows; i++) {
        c.v[COL_I64].i[i] = (int64_t)splitmix(&seed);
        c.v[COL_F64].f[i] = (double)(int64_t)splitmix(&seed) / 1e9;
        c.v[COL_BOOL].i[i] = (int64_t)(splitmix(&seed) & 1);
        c.v[COL_TIME].i[i] = (int64_t)(splitmix(&seed) >> 8);
        c.v[COL_STR].code[i] = (uint32_t)(splitmix(&seed) % 3);
        for (size_t k = 0; k < c.n; k++)
            c.v[k].null[i] = splitmix(&seed) % 5 == 0;
    }
    struct str path = fmt(l.a, "%s/x.parquet", l.dir), order[] = { S_INIT("c4"), S_INIT("c0") };
    struct strs paths = { &path, 1, 1 };
    CHECK_OK(parquet_save(l.a, path.p, &c, 100, 9100));
    CHECK_OK(parquet_load(l.a, &paths, NULL, 0, &back));
    CHECK(back.rows == 9000 && back.n == 5);
    for (size_t k = 0; k < c.n; k++)
        for (size_t i = 0; i < back.rows; i++)
            CHECK_STR(column_text(l.a, &back.v[k], i), column_text(l.a, &c.v[k], i + 100));
    CHECK_OK(parquet_load(l.a, &paths, order, 2, &back));
    CHECK(back.n == 2 && back.v[0].type == COL_STR && back.v[1].type == COL_I64);
    CHECK_STR(column_text(l.a, &back.v[0], 7), column_text(l.a, &c.v[COL_STR], 107));
    struct duck *d;
    struct reader *r;
    CHECK_OK(duck_open(l.a, &(struct duck_config){ .files = paths }, &d));
    CHECK_OK(duck_read(d, l.a, fmt(l.a, "SELECT c0, c4 FROM %.*s", STR(sql_parquet(l.a, &paths))), &r));
    size_t at = 100;
    for (struct columns chunk;; at += chunk.rows) {
        CHECK_OK(reader_next(r, &chunk));
        if (!chunk.rows)
            break;
        for (size_t i = 0; i < chunk.rows; i++) {
            CHECK_STR(column_text(l.a, &chunk.v[0], i), column_text(l.a, &c.v[COL_I64], at + i));
            CHECK_STR(column_text(l.a, &chunk.v[1], i), column_text(l.a, &c.v[COL_STR], at + i));
        }
    }
    CHECK(at == 9100);
    lab_close(&l);
}

TEST(lineage_both_ways)
{
    struct lab l = open_trips("", csv);
    yyjson_val *out;
    struct lineage up, down;
    NEED_DUCK(&l);
    CHECK_OK(ingest(&l, "", &out));
    CHECK_OK(data_lineage(l.store, l.a, S("default"), S("DatasetVersion/trips.1"), true, &up));
    CHECK(up.n == 2 && up.v[0].depth == 1);
    CHECK_STR(up.v[1].input, "Source/trips_raw");
    CHECK_OK(data_lineage(l.store, l.a, S("default"), S("Source/trips_raw"), false, &down));
    CHECK(down.n == 1);
    CHECK_STR(down.v[0].output, "DatasetVersion/trips.1");
    CHECK_OK(data_lineage(l.store, l.a, S("other"), S("Source/trips_raw"), false, &down));
    CHECK(down.n == 0);
    lab_close(&l);
}

static err edges_add(struct tx *tx, void *arg)
{
    struct str *v = arg;
    for (int i = 0; i < 30; i++) { /* a ladder: 2^30 ways, 60 edges; and a circle at its end */
        struct str in[] = { v[i], v[30 + i] };
        TRY(data_lineage_add(tx, S("p"), v[i + 1], in, 2));
        TRY(data_lineage_add(tx, S("p"), v[31 + i], in, 2));
    }
    return data_lineage_add(tx, S("p"), v[0], &v[30], 1);
}

TEST(lineage_of_a_ladder_and_a_circle_ends)
{
    struct lab l = lab_open();
    struct str v[62];
    struct lineage up;
    for (int i = 0; i < 62; i++)
        v[i] = fmt(l.a, "Thing/%d", i);
    CHECK_OK(store_write(l.store, edges_add, v));
    int64_t t = mono_ns();
    CHECK_OK(data_lineage(l.store, l.a, S("p"), v[30], true, &up));
    CHECK(up.n > 60 && up.n < 130);
    CHECK(mono_ns() - t < (int64_t)2000000000);
    lab_close(&l);
}

TEST(flights_whole, .timeout = 120)
{
    struct lab l = lab_open();
    struct str yaml;
    yyjson_val *out;
    NEED_FLIGHTS(&l);
    lab_copy(&l, lab_data(&l, "flights-3m.parquet"), "flights-3m.parquet");
    lab_copy(&l, lab_data(&l, "airports.csv"), "airports.csv");
    CHECK_OK(
        file_read(l.a, fmtz(l.a, "%s/../../examples/flights/dhow.yaml", lab_data(&l, ".")), 1 << 20, &yaml));
    CHECK_OK(lab_apply(&l, data_resources, yaml.p));
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\"}", &out));
    printf("ingest: %.*s rows, %.*s rows/s\n", STR(json_at(out, "rows")), STR(json_at(out, "rowsPerSecond")));
    int64_t t = mono_ns();
    CHECK_OK(lab_job(&l, &data_ingest, "{\"dataset\":\"flights\"}", &out));
    CHECK_STR(json_at(out, "version"), "flights.1");
    printf("again: %.3f s\n", (double)(mono_ns() - t) / 1e9);
    struct dataset_version_spec v = version(&l, "flights.1");
    for (size_t i = 0; i < v.checks.n; i++) {
        const struct version_check *c = (const struct version_check *)v.checks.v + i;
        if (str_is(c->name, "exact_duplicate"))
            CHECK(c->failed == 191);
        if (str_is(c->name, "impossible_delay"))
            CHECK(c->failed == 11);
    }
    lab_close(&l);
}
