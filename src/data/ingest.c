// SPDX-License-Identifier: Apache-2.0
/* The worker type `ingest`. The daemon resolves names to files and hands over the fingerprints it knows; the
 * child hashes, sorts, checks, measures and publishes; the daemon commits. Nothing is seen by anyone before. */
#include "data/internal.h"

#include <math.h>
#include <unistd.h>

/* ---- in the daemon: prepare ---- */

static err sources_put(struct job_context *c, struct str project, const struct dataset_spec *spec,
                       struct json *out)
{
    const char *root = str_z(c->a, c->sources_dir);
    json_kstr(out, "root", c->sources_dir);
    json_key(out, S("sources"));
    json_arr(out);
    for (size_t i = 0; i < spec->sources.n; i++) {
        struct source_spec s;
        auto_close int fd = -1;
        TRY(resource_get(c->store, c->a, &source_resource, project, spec->sources.v[i], NULL, &s, NULL));
        TRY_AS(source_open(root, s.path, &fd), "source '%.*s'", STR(spec->sources.v[i]));
        json_obj(out);
        json_kstr(out, "name", spec->sources.v[i]);
        json_kstr(out, "path", s.path);
        json_ki64(out, "format", s.format);
        json_obj_end(out);
    }
    json_arr_end(out);
    return NULL;
}

static err fingerprint_row(void *arg, const struct row *r)
{
    struct json *j = arg;
    json_key(j, row_str(r, 0));
    json_str(j, row_str(r, 1));
    return NULL;
}

static err ingest_prepare(struct job_context *c, const struct job *job, struct json *out)
{
    static const char known[] =
        "select fingerprint, version from dataset_fingerprint where project = ?1 and subject = ?2";
    const struct ingest_with *with = job->with;
    struct dataset_spec spec;
    TRY(resource_get(c->store, c->a, &dataset_resource, job->project, with->dataset, NULL, &spec, NULL));
    if (!spec.sources.n)
        FAIL(INVALID, "dataset '%.*s' has no sources: its versions are made by others", STR(with->dataset));
    if (with->until && !spec.event_time.n)
        FAIL(INVALID, "with.until: dataset '%.*s' has no eventTime that could be before it",
             STR(with->dataset));
    json_kraw(out, "dataset", schema_text(&dataset_spec_schema, c->a, &spec, WRITE_PERSONAL));
    json_ki64(out, "memory", job->spec.memory);
    TRY(sources_put(c, job->project, &spec, out));
    json_key(out, S("known"));
    json_obj(out);
    TRY(store_query(c->store, known,
                    BIND(B_S(job->project), B_S(fmt(c->a, "Dataset/%.*s", STR(with->dataset)))),
                    fingerprint_row, out));
    json_obj_end(out);
    return NULL;
}

/* ---- in the child ---- */

struct ingest {
    struct worker *w;
    struct arena *a;
    struct str name;
    int64_t until;
    struct dataset_spec spec;
    const char *root;
    struct source_file *sources;
    size_t n;
    struct duck *duck;
    struct duck_columns columns; /* what the query gives */
    const char *out;             /* the Parquet file */
    int64_t rows, started_ns;
    double progress_from, progress_to; /* of the step that runs, in percent */
    const char *step;
    struct checks checks;
    struct dataset_version_spec version;
};

static void step_begin(struct ingest *in, const char *what, double from, double to)
{
    in->step = what;
    in->progress_from = from;
    in->progress_to = to;
    worker_progress(in->w, (int64_t)from, 100, what);
}

static bool ingest_stop(void *arg)
{
    struct ingest *in = arg;
    double done = in->duck ? duck_progress(in->duck) : 0;
    if (done > 0)
        worker_progress(in->w, (int64_t)(in->progress_from + done * (in->progress_to - in->progress_from)),
                        100, in->step);
    return worker_stopped(in->w);
}

static err spec_read(struct ingest *in)
{
    yyjson_val *spec = in->w->spec, *list = yyjson_obj_get(spec, "sources"), *v;
    const struct ingest_with *with = in->w->with;
    size_t i, n;
    in->name = with->dataset;
    in->until = with->until;
    in->root = str_z(in->a, json_text_in(spec, "root"));
    TRY(schema_read(&dataset_spec_schema, in->a, S("dataset"), yyjson_obj_get(spec, "dataset"), READ_LENIENT,
                    &in->spec));
    if (!in->spec.known_at.n)
        in->spec.known_at = in->spec.event_time;
    if (!in->spec.order_by.n)
        in->spec.order_by = in->spec.event_time.n ? in->spec.event_time : in->spec.id;
    in->sources = NEW_N(in->a, struct source_file, yyjson_arr_size(list) + 1);
    yyjson_arr_foreach (list, i, n, v)
        in->sources[in->n++] = (struct source_file){ .name = json_text_in(v, "name"),
                                                     .path = json_text_in(v, "path"),
                                                     .format = (enum source_format)yyjson_get_int(
                                                         yyjson_obj_get(v, "format")) };
    return NULL;
}

/* Hash of all that decides what comes out. */
static struct str fingerprint(struct ingest *in)
{
    struct buf b = buf_new(in->a);
    buf_fmt(&b, "ingest 1\n%.*s\nuntil %lld\n",
            STR(schema_text(&dataset_spec_schema, in->a, &in->spec, WRITE_DEFAULTS)), (long long)in->until);
    for (size_t i = 0; i < in->n; i++)
        buf_fmt(&b, "%.*s %d %.*s\n", STR(in->sources[i].name), (int)in->sources[i].format,
                STR(in->sources[i].sha));
    return sha256_hex(in->a, buf_get(&b));
}

static err duck_start(struct ingest *in)
{
    struct strs files = { 0 };
    int64_t memory = yyjson_get_sint(yyjson_obj_get(in->w->spec, "memory"));
    const char *tmp_dir = fmtz(in->a, "%s/spill", in->w->dir);
    in->out = fmtz(in->a, "%s/out.parquet", in->w->dir);
    (void)unlink(in->out);
    for (size_t i = 0; i < in->n; i++)
        push(in->a, &files, str_of(in->sources[i].file));
    push(in->a, &files, str_of(in->out));
    struct duck_config cfg = { .threads = (int)yyjson_get_sint(yyjson_obj_get(in->w->spec, "cpu")),
                               .memory_bytes = memory > 0 ? memory / 10 * 7
                                                          : 0, /* the rest is the process's */
                               .tmp_dir = tmp_dir,
                               .files = files,
                               .stop = ingest_stop,
                               .stop_arg = in };
    if (cfg.threads < 2)
        cfg.threads = 2; /* one waits for the disk while the other computes */
    TRY(duck_open(in->a, &cfg, &in->duck));
    for (size_t i = 0; i < in->n; i++)
        TRY(source_view(in->duck, in->a, &in->sources[i]));
    return NULL;
}

static const struct duck_column *column_of(const struct ingest *in, struct str name)
{
    for (size_t i = 0; i < in->columns.n; i++)
        if (str_eq(in->columns.v[i].name, name))
            return &in->columns.v[i];
    return NULL;
}

/* The columns that the dataset names are there, and are what they are named for. */
static err columns_check(const struct ingest *in)
{
    const struct {
        struct str column;
        const char *what;
        bool time;
    } named[] = { { in->spec.event_time, "eventTime", true },
                  { in->spec.known_at, "knownAt", true },
                  { in->spec.id, "id", false },
                  { in->spec.order_by, "orderBy", false } };
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        enum column_type type;
        const struct duck_column *c = column_of(in, named[i].column);
        if (!named[i].column.n)
            continue;
        if (!c)
            FAIL(INVALID, "dataset '%.*s': the query gives no column '%.*s', its %s", STR(in->name),
                 STR(named[i].column), named[i].what);
        if (!column_type_of(c->type, &type) || (named[i].time && type != COL_TIME))
            FAIL(INVALID, "dataset '%.*s': column '%.*s', its %s, is %.*s, not a %s", STR(in->name),
                 STR(c->name), named[i].what, STR(c->type), named[i].time ? "time" : "single value");
    }
    return NULL;
}

/* What the query gives, and whether it can be a dataset at all: before a row is read. */
static err query_check(struct ingest *in)
{
    err e = duck_check_select(in->duck, in->spec.query);
    if (!e)
        e = duck_describe(in->duck, in->a, in->spec.query, &in->columns);
    if (e)
        return err_wrap(source_blame(in->duck, in->a, in->sources, in->n, &in->spec, e),
                        "query of dataset '%.*s'", STR(in->name));
    for (size_t i = 0; i < in->columns.n; i++) {
        enum column_type type;
        if (!column_type_of(in->columns.v[i].type, &type) && !column_is_list(in->columns.v[i].type))
            FAIL(
                INVALID,
                "dataset '%.*s': column '%.*s' is %.*s, which is neither number, text, truth value, time nor "
                "list of numbers",
                STR(in->name), STR(in->columns.v[i].name), STR(in->columns.v[i].type));
    }
    TRY(columns_check(in));
    TRY_AS(checks_new(in->a, &in->spec, &in->columns, in->until, &in->checks), "dataset '%.*s'",
           STR(in->name));
    for (size_t i = 0; i < in->checks.n; i++) /* a wrong type fails now; the others are measured later */
        if (in->checks.v[i].rule->rule == RULE_SCHEMA) {
            struct checks one = { &in->checks.v[i], 1, 1 };
            e = checks_result(in->a, &one, in->name);
            if (e)
                return source_blame(in->duck, in->a, in->sources, in->n, &in->spec, e);
        }
    return NULL;
}

/* Rows that had happened and were known before `until`. A row without a time stays, for the rules to find. */
static struct str until_sql(struct ingest *in)
{
    struct buf b = buf_new(in->a);
    struct str names[] = { in->spec.event_time, in->spec.known_at };
    for (size_t i = 0; in->until && i < 2; i++) {
        struct str us = time_sql(in->a, names[i], column_of(in, names[i])->type);
        buf_fmt(&b, "%s(%.*s < %lld OR %.*s IS NULL)", i ? " AND " : " WHERE ", STR(us), (long long)in->until,
                STR(sql_name(in->a, names[i])));
    }
    return buf_get(&b);
}

/* The order is a whole one as far as the ids make it so; without any, rows stay as the query gives them. */
static struct str order_sql(struct ingest *in)
{
    struct buf b = buf_new(in->a);
    struct str names[] = { in->spec.order_by, in->spec.id };
    for (size_t i = 0; i < 2; i++)
        if (names[i].n)
            buf_fmt(&b, "%s%.*s", b.n ? ", " : " ORDER BY ", STR(sql_name(in->a, names[i])));
    return buf_get(&b);
}

/* Lists are wide, and a row group is what a reader has in memory at once: of images as few as DuckDB writes together. */
static const char *groups_sql(const struct ingest *in)
{
    for (size_t i = 0; i < in->columns.n; i++)
        if (column_is_list(in->columns.v[i].type))
            return ", ROW_GROUP_SIZE 2048";
    return "";
}

static err rows_write(struct ingest *in)
{
    step_begin(in, in->spec.order_by.n ? "sorting rows" : "writing rows", 5, 65);
    err e = duck_run(in->duck,
                     "COPY (SELECT * FROM (\n%.*s\n) AS q%.*s%.*s) TO %.*s "
                     "(FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false%s)",
                     STR(in->spec.query), STR(until_sql(in)), STR(order_sql(in)),
                     STR(sql_text(in->a, str_of(in->out))), groups_sql(in));
    if (e)
        return err_wrap(source_blame(in->duck, in->a, in->sources, in->n, &in->spec, e),
                        "query of dataset '%.*s'", STR(in->name));
    for (size_t i = 0; i < in->n; i++)
        TRY(source_same(in->a, in->root, &in->sources[i]));
    return NULL;
}

/* One pass over what was written: the counts of all rules and the statistics of all columns. */
static err rows_measure(struct ingest *in)
{
    struct str file = str_of(in->out);
    struct strs paths = { &file, 1, 1 };
    struct str from = sql_parquet(in->a, &paths);
    struct columns row;
    struct buf sql = buf_new(in->a);
    step_begin(in, "checking rows", 65, 90);
    buf_str(&sql, S("SELECT count(*) AS n"));
    checks_sql(in->a, &in->checks, &sql);
    statistics_sql(in->a, &in->columns, &sql);
    buf_fmt(&sql, " FROM %.*s", STR(from));
    TRY_AS(duck_load(in->duck, in->a, buf_get(&sql), &row), "checking dataset '%.*s'", STR(in->name));
    in->rows = row.v[0].i[0];
    checks_take(&in->checks, &row, in->rows);
    TRY_AS(checks_examples(in->duck, in->a, &in->checks, in->spec.id, from), "checking dataset '%.*s'",
           STR(in->name));
    statistics_take(in->a, &in->columns, &row, &in->version.columns);
    step_begin(in, "measuring columns", 90, 95);
    return statistics_sample(in->duck, in->a, &paths, in->rows, &in->version.columns);
}

static err rows_judge(struct ingest *in)
{
    for (size_t i = 0; i < in->checks.n; i++)
        worker_say(in->w, "%.*s", STR(check_line(in->a, &in->checks.v[i])));
    if (!in->rows && !in->checks.n)
        FAIL(INVALID, "dataset '%.*s': no rows", STR(in->name));
    return checks_result(in->a, &in->checks, in->name);
}

static void roles_set(struct ingest *in)
{
    struct version_column *c = in->version.columns.v;
    for (size_t i = 0; i < in->version.columns.n; i++) {
        if (str_eq(c[i].name, in->spec.known_at))
            c[i].role = IS_KNOWN_AT;
        if (str_eq(c[i].name, in->spec.event_time)) /* one column may be both: it is the event's time then */
            c[i].role = IS_EVENT_TIME;
        if (str_eq(c[i].name, in->spec.id))
            c[i].role = IS_ID;
    }
}

static err version_fill(struct ingest *in)
{
    struct dataset_version_spec *v = &in->version;
    struct version_file *file = NEW(in->a, struct version_file);
    struct version_check *checks = NEW_N(in->a, struct version_check, in->checks.n + 1);
    step_begin(in, "publishing", 95, 100);
    file->rows = in->rows;
    TRY_AS(blob_take(in->w->blobs, in->a, in->out, &file->sha, &file->bytes), "publishing dataset '%.*s'",
           STR(in->name));
    for (size_t i = 0; i < in->checks.n; i++)
        checks[i] = in->checks.v[i].out;
    roles_set(in);
    v->until = in->until;
    v->rows = in->rows;
    v->files = (struct list){ file, 1 };
    v->checks = (struct list){ checks, in->checks.n };
    push(in->a, &v->inputs, fmt(in->a, "Dataset/%.*s", STR(in->name)));
    for (size_t i = 0; i < in->n; i++)
        push(in->a, &v->inputs, fmt(in->a, "Source/%.*s", STR(in->sources[i].name)));
    return NULL;
}

static err result_write(struct ingest *in, struct str known)
{
    struct json j = json_new(in->a);
    double seconds = (double)(mono_ns() - in->started_ns) / 1e9;
    json_obj(&j);
    if (known.n)
        json_kstr(&j, "known", known);
    else
        json_kraw(&j, "version",
                  schema_text(&dataset_version_spec_schema, in->a, &in->version, WRITE_PERSONAL));
    json_kf64(&j, "seconds", seconds);
    json_ki64(&j, "rowsPerSecond", known.n || seconds <= 0 ? 0 : (int64_t)((double)in->rows / seconds));
    json_obj_end(&j);
    worker_progress(in->w, 100, 100, "done");
    return worker_result(in->w, json_get(&j));
}

static err sources_hash(struct ingest *in)
{
    step_begin(in, "hashing sources", 0, 5);
    for (size_t i = 0; i < in->n; i++)
        TRY(source_hash(in->a, in->root, &in->sources[i]));
    in->version.fingerprint = fingerprint(in);
    return NULL;
}

static err version_make(struct ingest *in)
{
    TRY(duck_start(in));
    TRY(query_check(in));
    TRY(rows_write(in));
    TRY(rows_measure(in));
    TRY(rows_judge(in));
    TRY(version_fill(in));
    double seconds = (double)(mono_ns() - in->started_ns) / 1e9;
    worker_say(in->w, "%lld rows in %.2f s, %.0f rows/s", (long long)in->rows, seconds,
               (double)in->rows / seconds);
    return result_write(in, S(""));
}

static err ingest_run(struct worker *w)
{
    struct ingest in = { .w = w, .a = w->a, .started_ns = mono_ns() };
    TRY(spec_read(&in));
    TRY(sources_hash(&in));
    struct str known = json_text_in(yyjson_obj_get(w->spec, "known"), str_z(w->a, in.version.fingerprint));
    if (known.n) {
        worker_say(w, "nothing changed: version %.*s was made from the same query and sources", STR(known));
        return result_write(&in, known);
    }
    err e = version_make(&in);
    if (e && in.out)
        (void)unlink(in.out);
    return e;
}

/* ---- in the daemon: finish ---- */

static void outputs_write(struct arena *a, struct str version, const struct dataset_version_spec *v,
                          int64_t per_second, struct json *out)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < v->files.n; i++)
        bytes += ((const struct version_file *)v->files.v)[i].bytes;
    json_kstr(out, "version", version);
    json_kstr(out, "rows", fmt(a, "%lld", (long long)v->rows));
    json_kstr(out, "bytes", fmt(a, "%lld", (long long)bytes));
    json_kstr(out, "rowsPerSecond", fmt(a, "%lld", (long long)per_second));
}

static err ingest_finish(struct job_context *c, const struct job *job, yyjson_val *result,
                         struct json *outputs)
{
    const struct ingest_with *with = job->with;
    struct dataset_version_spec v;
    struct str name = json_text_in(result, "known");
    if (name.n) {
        TRY(resource_get(c->store, c->a, &dataset_version_resource, job->project, name, NULL, &v, NULL));
    } else {
        TRY(schema_read(&dataset_version_spec_schema, c->a, S("version"), yyjson_obj_get(result, "version"),
                        READ_LENIENT, &v));
        TRY(version_commit(c->store, c->a, fmt(c->a, "Job/%.*s", STR(job->name)), job->project,
                           &dataset_resource, with->dataset, &v, &name));
    }
    outputs_write(c->a, name, &v, yyjson_get_sint(yyjson_obj_get(result, "rowsPerSecond")), outputs);
    return NULL;
}

const struct worker_type data_ingest = {
    .name = "ingest",
    .doc = "Makes a checked, immutable version of a dataset from its sources.",
    .outputs =
        "version: the version, new or there already; rows, bytes: its size; rowsPerSecond: how fast it was made",
    .with = &ingest_with_schema,
    .prepare = ingest_prepare,
    .run = ingest_run,
    .finish = ingest_finish,
};
