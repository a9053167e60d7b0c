// SPDX-License-Identifier: Apache-2.0
/* Runs and their metrics: what a training job writes to metrics.jsonl becomes rows, piece by piece while it runs.
 * The cursor moves in the same transaction as the rows, so a crash loses and doubles nothing. */
#include "registry/internal.h"

enum { LOOK_MS = 1000 };

static const char ddl[] = "create table if not exists metric("
                          " project text not null,"
                          " run text not null,"
                          " name text not null,"
                          " step bigint not null,"
                          " value double precision,"
                          " time bigint not null,"
                          " primary key(project, run, name, step));"
                          "create table if not exists metric_cursor("
                          " project text not null,"
                          " run text not null,"
                          " job_id bigint not null,"
                          " attempt bigint not null,"
                          " place bigint not null,"
                          " primary key(project, run));";
// clang-format off
#define METRIC_SQL(Q)                                                                                                 \
    Q(put,    "insert into metric(project, run, name, step, value, time) values(?1, ?2, ?3, ?4, ?5, ?6)"              \
              " on conflict(project, run, name, step) do update set value = excluded.value, time = excluded.time")    \
    Q(drop,   "delete from metric where project = ?1 and run = ?2")                                                   \
    Q(count,  "select count(*) from metric where project = ?1 and run = ?2")                                          \
    Q(all,    "select name, step, value, time from metric where project = ?1 and run = ?2 and (?3 = '' or name = ?3)" \
              " order by name, step limit ?4")                                                                        \
    Q(last,   "select m.name, m.value from metric m where m.project = ?1 and m.run = ?2 and m.step ="                 \
              " (select max(step) from metric where project = m.project and run = m.run and name = m.name)"           \
              " order by m.name limit 1000")                                                                          \
    Q(cursor, "select job_id, attempt, place from metric_cursor where project = ?1 and run = ?2")                     \
    Q(moved,  "insert into metric_cursor(project, run, job_id, attempt, place) values(?1, ?2, ?3, ?4, ?5)"            \
              " on conflict(project, run) do update set job_id = excluded.job_id, attempt = excluded.attempt,"        \
              " place = excluded.place")
// clang-format on
SQL_TABLE(metric, METRIC_SQL);

err metric_open(struct store *s)
{
    return store_ddl(s, "registry-metric", ddl);
}

/* ---- the Run ---- */

/* with {rows, holdout, model, …} of a training job; what it does not say is left empty. */
static void run_spec_of(struct arena *a, const struct meta *job, const struct job_spec *spec,
                        struct run_spec *out)
{
    yyjson_val *with;
    *out = (struct run_spec){ .job = job->name, .experiment = spec->owner, .params = spec->with };
    if (!spec->with.n || json_parse(a, spec->with, &with))
        return;
    const char *rows = yyjson_get_str(yyjson_obj_get(with, "rows"));
    if (rows)
        push(a, &out->inputs, fmt(a, "DatasetVersion/%s", rows));
}

err run_ensure(struct tx *tx, struct str project, const struct meta *job, const struct job_spec *spec)
{
    struct arena *a = tx_arena(tx);
    struct run_spec run;
    struct object o;
    err e = object_get_tx(tx, a, str_of(run_resource.kind), project, job->name, &o);
    if (!e || e->code != NOT_FOUND)
        return e;
    run_spec_of(a, job, spec, &run);
    TRY(resource_create_tx(tx, a, &run_resource, S("dhow"), project, job->name, &run));
    return data_lineage_add(tx, project, fmt(a, "Run/%.*s", STR(job->name)), run.inputs.v, run.inputs.n);
}

/* ---- from the file to the table ---- */

struct taking {
    struct str project;
    struct meta job;
    struct job_spec spec;
    struct job_status status;
    struct arena *a;
    struct trainings *trainings;
    struct str text; /* whole lines from `place` on */
    int64_t job_id, attempt, place;
};

static err on_cursor(void *arg, const struct row *r)
{
    struct taking *t = arg;
    t->job_id = row_i64(r, 0);
    t->attempt = row_i64(r, 1);
    t->place = row_i64(r, 2);
    return NULL;
}

static bool cursor_fits(const struct taking *t)
{
    return t->job_id == t->job.id && t->attempt == t->status.attempts;
}

static err line_put(struct tx *tx, const struct taking *t, struct str line)
{
    yyjson_val *v;
    if (!line.n || json_parse(tx_arena(tx), line, &v) || !yyjson_is_obj(v))
        return NULL; /* a worker that was killed may leave half a line */
    yyjson_val *name = yyjson_obj_get(v, "name"), *step = yyjson_obj_get(v, "step"),
               *time = yyjson_obj_get(v, "time");
    yyjson_val *value = yyjson_obj_get(v, "value");
    struct str metric = json_text(name);
    if (!yyjson_is_str(name) || metric.n > METRIC_NAME_MAX || str_has_nul(metric))
        return NULL;
    double number = yyjson_is_num(value) ? yyjson_get_num(value) : NAN;
    trainings_take(t->trainings, metric, number);
    return tx_exec(tx, metric_sql.put,
                   BIND(B_S(t->project), B_S(t->job.name), B_S(metric), B_I(yyjson_get_sint(step)),
                        B_F(number), B_I(yyjson_is_int(time) ? yyjson_get_sint(time) : tx_now(tx))),
                   NULL);
}

static err on_last(void *arg, const struct row *r)
{
    struct json *j = arg;
    json_key(j, row_str(r, 0));
    json_f64(j, row_f64(r, 1));
    return NULL;
}

static err on_count(void *arg, const struct row *r)
{
    *(int64_t *)arg = row_i64(r, 0);
    return NULL;
}

/* Status of the Run: phase and last values; what a registered version said of it stays. */
static err run_update(struct tx *tx, const struct taking *t)
{
    struct arena *a = tx_arena(tx);
    struct run_spec spec;
    struct run_status status;
    struct json j = json_new(a);
    TRY(resource_get_tx(tx, a, &run_resource, t->project, t->job.name, NULL, &spec, &status));
    status.phase = str_of(job_phases[t->status.phase]);
    TRY(tx_one(tx, metric_sql.count, BIND(B_S(t->project), B_S(t->job.name)), on_count, &status.steps));
    if (!status.version.n && status.steps) {
        json_obj(&j);
        TRY(tx_query(tx, metric_sql.last, BIND(B_S(t->project), B_S(t->job.name)), on_last, &j));
        json_obj_end(&j);
        status.metrics = json_get(&j);
    }
    return resource_status_tx(tx, a, &run_resource, t->project, t->job.name, -1, &status);
}

static err take_tx(struct tx *tx, void *arg)
{
    struct taking *t = arg;
    struct str line;
    TRY(run_ensure(tx, t->project, &t->job, &t->spec));
    if (!cursor_fits(t)) { /* a new attempt, or another job of that name, starts over */
        TRY(tx_exec(tx, metric_sql.drop, BIND(B_S(t->project), B_S(t->job.name)), NULL));
        t->job_id = t->job.id;
        t->attempt = t->status.attempts;
    }
    for (struct str rest = t->text; str_cut(&rest, '\n', &line);)
        TRY(line_put(tx, t, line));
    TRY(tx_exec(tx, metric_sql.moved,
                BIND(B_S(t->project), B_S(t->job.name), B_I(t->job_id), B_I(t->attempt),
                     B_I(t->place + (int64_t)t->text.n)),
                NULL));
    return run_update(tx, t);
}

/* Whole lines after the cursor, METRIC_BYTES_STEP at most; none if the file is not there. */
static err lines_read(struct store *s, struct taking *t, bool *more)
{
    /* exec names an attempt's folder by the job's id and the number of the attempt. */
    struct str id = fmt(t->a, "%lld-%lld", (long long)t->job.id, (long long)t->status.attempts);
    const char *path = fmtz(t->a, "%s/metrics.jsonl", exec_dir(t->a, store_dir(s), id));
    struct str all = S("");
    *more = false;
    t->text = S("");
    if (file_size(path) <= t->place)
        return NULL;
    TRY(file_map(t->a, path, &all));
    struct str rest = str_sub(all, (size_t)t->place, (size_t)t->place + METRIC_BYTES_STEP);
    *more = (size_t)t->place + rest.n < all.n;
    while (rest.n && rest.p[rest.n - 1] != '\n')
        rest.n--;
    t->text = rest;
    return NULL;
}

/* Nothing new in the file, and the Run says what the job says. */
static bool nothing_new(struct store *s, const struct taking *t)
{
    struct run_spec spec;
    struct run_status status;
    return !t->text.n && cursor_fits(t) &&
           !resource_get(s, t->a, &run_resource, t->project, t->job.name, NULL, &spec, &status) &&
           str_eq(status.phase, str_of(job_phases[t->status.phase]));
}

err metric_step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                int64_t *again_ms)
{
    struct store *s = trainings_store(self);
    struct taking t = { .project = o->project, .a = a, .trainings = self };
    bool more;
    if (ev && str_is(ev->type, "deleted"))
        return NULL;
    err e = resource_get(s, a, &job_resource, o->project, o->name, &t.job, &t.spec, &t.status);
    if (e)
        return e->code == NOT_FOUND ? NULL : e;
    if (!str_eq(t.spec.type, str_of(train_worker.name)) || t.status.phase < JOB_RUNNING)
        return NULL;
    TRY(store_query(s, metric_sql.cursor, BIND(B_S(t.project), B_S(t.job.name)), on_cursor, &t));
    if (!cursor_fits(&t))
        t.place = 0;
    TRY(lines_read(s, &t, &more));
    if (!nothing_new(s, &t))
        TRY(store_write(s, take_tx, &t));
    if (more)
        *again_ms = 1;
    else if (t.status.phase < JOB_SUCCEEDED)
        *again_ms = LOOK_MS;
    return NULL;
}

/* ---- GET …/runs/{name}/metrics ---- */

struct listing {
    struct json j;
    struct str name;
    bool open;
    struct arena *a;
    struct json steps, values, times;
};

static void series_end(struct listing *l)
{
    if (!l->open)
        return;
    json_arr_end(&l->steps);
    json_arr_end(&l->values);
    json_arr_end(&l->times);
    json_obj(&l->j);
    json_kstr(&l->j, "name", l->name);
    json_kraw(&l->j, "steps", json_get(&l->steps));
    json_kraw(&l->j, "values", json_get(&l->values));
    json_kraw(&l->j, "times", json_get(&l->times));
    json_obj_end(&l->j);
    l->open = false;
}

static void series_begin(struct listing *l, struct str name)
{
    l->name = str_dup(l->a, name);
    l->open = true;
    l->steps = json_new(l->a);
    l->values = json_new(l->a);
    l->times = json_new(l->a);
    json_arr(&l->steps);
    json_arr(&l->values);
    json_arr(&l->times);
}

static err on_value(void *arg, const struct row *r)
{
    struct listing *l = arg;
    struct str name = row_str(r, 0);
    if (!l->open || !str_eq(name, l->name)) {
        series_end(l);
        series_begin(l, name);
    }
    json_i64(&l->steps, row_i64(r, 1));
    json_f64(&l->values, row_f64(r, 2));
    json_i64(&l->times, row_i64(r, 3));
    return NULL;
}

err run_metrics_get(struct req *r)
{
    struct store *s = (struct store *)(uintptr_t)r->route->self;
    struct str project = req_param(r, S("project")), run = req_param(r, S("name")), name = S("");
    struct listing l = { .j = json_new(r->a), .a = r->a };
    (void)req_query(r, S("name"), &name);
    TRY(resource_get(s, r->a, &run_resource, project, run, NULL, NULL, NULL));
    json_obj(&l.j);
    json_key(&l.j, S("metrics"));
    json_arr(&l.j);
    TRY(store_query(s, metric_sql.all, BIND(B_S(project), B_S(run), B_S(name), B_I(METRIC_ROWS_MAX)),
                    on_value, &l));
    series_end(&l);
    json_arr_end(&l.j);
    json_obj_end(&l.j);
    return req_reply_json(r, 200, &l.j);
}
