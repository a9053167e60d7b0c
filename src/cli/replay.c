// SPDX-License-Identifier: Apache-2.0
/* replay: a dataset version as live traffic, in the order of time: at each moment first what became known
 * is pushed, then what happens is asked about. The client of a deployment that a rehearsal needs. */
#include "cli/cli.h"
#include "data/data.h"
#include "engine/engine.h"
#include <stdlib.h>
#include <unistd.h>

enum { PUSH_ROWS_MAX = 2000, ASK_ROWS_MAX = 500, LOOK_EVERY_NS = 250000000, PAUSE_US = 200000 };

struct replay {
    struct cli *c;
    struct http *http;
    struct str deployment, dataset;
    struct columns rows, offline;
    const struct column *id, *at, *known, *label;
    struct strs inputs;
    size_t *by_at, *by_known; /* row numbers in order of time */
    size_t pushed, asked;     /* how far each order was gone through */
    int64_t from, until;
    /* what came back */
    float *score; /* per row; NaN: not asked */
    VEC(double) ask_ms;
    int64_t requests, failed, push_requests, push_rows;
    int64_t ask_ns, push_ns, start_ns, paused_ns;
    /* online against offline */
    size_t *offline_row; /* row of the offline table per row of this one; SIZE_MAX: none */
    int64_t compare_left, compared, mismatches;
    struct str first_mismatch;
    /* the clock waits while this pipeline trains */
    const char *pause_for, *pause_until;
    int64_t looked_ns;
};

/* ---- reading a version ---- */

static err version_load(struct cli *c, struct str version, struct columns *out)
{
    yyjson_val *v;
    size_t i, n;
    yyjson_val *file;
    struct str path = fmt(c->a, "/api/v1/projects/%.*s/datasetversions/%.*s", STR(c->project),
                          STR(url_encode(c->a, version)));
    TRY(cli_call(c, M_GET, path, S(""), &v));
    yyjson_val *files = json_at(v, "spec.files");
    const char *dir = fmtz(c->a, "%s/dhow-replay-%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp",
                           (int)getpid());
    struct strs paths = { 0 };
    err e = dir_make(dir);
    yyjson_arr_foreach (files, i, n, file) {
        struct http_reply r;
        const char *local = fmtz(c->a, "%s/%zu.parquet", dir, i);
        if (!e)
            e = cli_call_raw(c, M_GET, fmt(c->a, "%.*s/files/%zu", STR(path), i), S(""), &r);
        if (!e)
            e = file_write(local, r.body);
        push(c->a, &paths, str_of(local));
    }
    if (!e)
        e = parquet_load(c->a, &paths, NULL, 0, out);
    (void)dir_remove(dir);
    return e;
}

static const int64_t *sort_times; /* of the qsort under way; this process has one thread */

static int by_time(const void *x, const void *y)
{
    size_t a = *(const size_t *)x, b = *(const size_t *)y;
    if (sort_times[a] != sort_times[b])
        return sort_times[a] < sort_times[b] ? -1 : 1;
    return a < b ? -1 : a > b;
}

static size_t *order_of(struct cli *c, const struct columns *rows, const struct column *time)
{
    size_t *order = NEW_N(c->a, size_t, rows->rows ? rows->rows : 1);
    for (size_t i = 0; i < rows->rows; i++)
        order[i] = i;
    sort_times = time->i;
    qsort(order, rows->rows, sizeof *order, by_time);
    return order;
}

/* ---- requests ---- */

static void value_write(struct json *j, const struct column *c, size_t row)
{
    if (column_null(c, row))
        json_null(j);
    else if (c->type == COL_STR)
        json_str(j, column_str(c, row));
    else if (c->type == COL_F64)
        json_f64(j, c->f[row]);
    else if (c->type == COL_BOOL)
        json_bool(j, c->i[row] != 0);
    else
        json_i64(j, c->i[row]); /* times as microseconds */
}

static void column_write(struct json *j, const struct column *c, const size_t *row, size_t n)
{
    json_key(j, c->name);
    json_arr(j);
    for (size_t i = 0; i < n; i++)
        value_write(j, c, row[i]);
    json_arr_end(j);
}

static err exchange(struct replay *r, struct arena *a, struct str path, const struct json *body,
                    int64_t *took, struct http_reply *out)
{
    int64_t start = mono_ns();
    TRY(http_do(r->http, a, M_POST, path, S("application/json"), json_get(body), out));
    *took = mono_ns() - start;
    return NULL;
}

static err push_rows(struct replay *r, struct arena *a, const size_t *row, size_t n)
{
    struct json j = json_new(a);
    struct http_reply reply;
    int64_t took;
    json_obj(&j);
    json_key(&j, S("rows"));
    json_obj(&j);
    for (size_t k = 0; k < r->rows.n; k++)
        column_write(&j, &r->rows.v[k], row, n);
    json_obj_end(&j);
    json_obj_end(&j);
    struct str path = fmt(a, "/api/v1/projects/%.*s/datasets/%.*s/push", STR(r->c->project), STR(r->dataset));
    TRY(exchange(r, a, path, &j, &took, &reply));
    if (reply.status != 200)
        FAIL(INTERNAL, "pushing rows was refused: %d %.*s", reply.status, STR(str_sub(reply.body, 0, 300)));
    r->push_ns += took;
    r->push_requests++;
    r->push_rows += (int64_t)n;
    return NULL;
}

/* The features that came back, against the offline row of the same id: every bit must agree. */
static void compare(struct replay *r, struct arena *a, yyjson_val *reply, const size_t *row, size_t n)
{
    yyjson_val *outputs = yyjson_obj_get(reply, "outputs"), *out,
               *names = json_at(reply, "parameters.features"), *name;
    size_t i, count, k, m;
    yyjson_arr_foreach (outputs, i, count, out) {
        if (!str_is(json_text_at(a, out, "name"), "features"))
            continue;
        yyjson_val *data = yyjson_obj_get(out, "data");
        size_t width = n ? yyjson_arr_size(data) / n : 0;
        for (size_t x = 0; x < n; x++) {
            size_t off = r->offline_row[row[x]];
            if (off == SIZE_MAX || r->compare_left <= 0)
                continue;
            bool same = true;
            yyjson_arr_foreach (names, k, m, name) {
                const struct column *c = columns_find(&r->offline, json_value_text(a, name));
                yyjson_val *v = yyjson_arr_get(data, x * width + k);
                double online = yyjson_is_num(v) ? yyjson_get_num(v) : NAN,
                       offline = c ? column_f64(c, off) : INFINITY;
                bool both = isnan(online) && isnan(offline);
                if (both || memcmp(&online, &offline, sizeof online) == 0)
                    continue;
                if (same && !r->first_mismatch.n)
                    r->first_mismatch = fmt(r->c->a, "row %.*s, %.*s: online %.17g, offline %.17g",
                                            STR(column_text(r->c->a, r->id, row[x])),
                                            STR(json_value_text(r->c->a, name)), online, offline);
                same = false;
            }
            if (!m)
                same = false; /* nothing to compare with is not agreement */
            r->compared++;
            r->compare_left--;
            r->mismatches += !same;
        }
    }
}

static err ask(struct replay *r, struct arena *a, const size_t *row, size_t n)
{
    struct json j = json_new(a);
    struct http_reply reply;
    yyjson_val *v, *data, *item;
    int64_t took;
    bool comparing = false;
    for (size_t i = 0; i < n && r->compare_left > 0; i++)
        comparing = comparing || r->offline_row[row[i]] != SIZE_MAX;
    json_obj(&j);
    json_kstr(&j, "id", column_text(a, r->id, row[0]));
    json_key(&j, S("entities"));
    json_obj(&j);
    for (size_t k = 0; k < r->inputs.n; k++) {
        const struct column *c = columns_find(&r->rows, r->inputs.v[k]);
        column_write(&j, c, row, n);
    }
    json_obj_end(&j);
    json_key(&j, S("ids"));
    json_arr(&j);
    for (size_t i = 0; i < n; i++)
        json_str(&j, column_text(a, r->id, row[i]));
    json_arr_end(&j);
    if (comparing)
        json_kraw(&j, "parameters", S("{\"return_features\":true}"));
    json_obj_end(&j);
    TRY(exchange(r, a, fmt(a, "/v2/models/%.*s/infer", STR(r->deployment)), &j, &took, &reply));
    r->requests++;
    if (reply.status != 200) {
        if (!r->failed++)
            fprintf(stderr, "a prediction failed: %d %.*s\n", reply.status, STR(str_sub(reply.body, 0, 300)));
        return NULL;
    }
    r->ask_ns += took;
    push(r->c->a, &r->ask_ms, (double)took / 1e6);
    TRY(json_parse(a, reply.body, &v));
    size_t i, m;
    data = json_at(yyjson_arr_get_first(yyjson_obj_get(v, "outputs")), "data");
    yyjson_arr_foreach (data, i, m, item)
        if (i < n)
            r->score[row[i]] = (float)yyjson_get_num(item);
    if (comparing)
        compare(r, a, v, row, n);
    return NULL;
}

/* ---- the clock ---- */

/* True while a run of the pipeline is at work and its step has not begun. */
static err training(struct replay *r, struct arena *a, bool *out)
{
    struct http_reply reply;
    yyjson_val *v, *run, *step;
    size_t i, n, k, m;
    *out = false;
    TRY(http_do(r->http, a, M_GET,
                fmt(a, "/api/v1/projects/%.*s/pipelineruns?limit=1000", STR(r->c->project)), S(""), S(""),
                &reply));
    if (reply.status != 200)
        return NULL;
    TRY(json_parse(a, reply.body, &v));
    yyjson_arr_foreach (yyjson_obj_get(v, "items"), i, n, run) {
        /* A run that waits for another one holds nothing up. */
        if (!str_is(json_text_at(a, run, "status.phase"), "running") ||
            !str_eq(json_text_at(a, run, "spec.pipeline"), str_of(r->pause_for)))
            continue;
        bool begun = false;
        yyjson_arr_foreach (json_at(run, "status.steps"), k, m, step) {
            struct str p = json_text_at(a, step, "phase");
            begun = begun || (str_eq(json_text_at(a, step, "name"), str_of(r->pause_until)) && p.n &&
                              !str_is(p, "waiting"));
        }
        *out = *out || !begun;
    }
    return NULL;
}

static err pause_while_training(struct replay *r)
{
    int64_t start = mono_ns();
    bool busy = true;
    if (!r->pause_for || start - r->looked_ns < LOOK_EVERY_NS)
        return NULL;
    while (busy) {
        auto_arena struct arena *a = arena_new(0);
        TRY(training(r, a, &busy));
        if (busy) {
            cli_progress("the clock waits: pipeline %s is at work", r->pause_for);
            usleep(PAUSE_US);
        }
    }
    r->looked_ns = mono_ns();
    r->paused_ns += r->looked_ns - start;
    return NULL;
}

static void progress(const struct replay *r, int64_t now, size_t done, size_t total)
{
    auto_arena struct arena *a = arena_new(0);
    cli_progress("%.*s  %zu of %zu asked, %.0f/s, %lld failed", STR(str_sub(time_text(a, now), 0, 16)), done,
                 total, (double)done / ((double)(mono_ns() - r->start_ns - r->paused_ns) / 1e9),
                 (long long)r->failed);
}

/* Everything known by `now` that was not pushed yet. */
static err push_until(struct replay *r, struct arena *a, int64_t now)
{
    while (r->pushed < r->rows.rows && r->known->i[r->by_known[r->pushed]] <= now) {
        size_t n = 0;
        const size_t *first = &r->by_known[r->pushed];
        while (n < PUSH_ROWS_MAX && r->pushed + n < r->rows.rows && r->known->i[first[n]] <= now)
            n++;
        TRY(push_rows(r, a, first, n));
        r->pushed += n;
    }
    return NULL;
}

static err play(struct replay *r)
{
    struct arena *a = arena_new(0);
    size_t n = r->rows.rows, total = 0;
    err e = NULL;
    while (r->pushed < n && r->known->i[r->by_known[r->pushed]] < r->from)
        r->pushed++; /* known before the start: the online features hold it already */
    while (r->asked < n && r->at->i[r->by_at[r->asked]] < r->from)
        r->asked++;
    for (size_t i = r->asked; i < n && r->at->i[r->by_at[i]] < r->until; i++)
        total++;
    size_t begin = r->asked;
    int64_t shown = 0;
    r->start_ns = mono_ns();
    while (!e && r->asked < begin + total) {
        const size_t *first = &r->by_at[r->asked];
        int64_t now = r->at->i[first[0]];
        size_t m = 0;
        while (m < ASK_ROWS_MAX && r->asked + m < begin + total && r->at->i[first[m]] == now)
            m++;
        e = pause_while_training(r);
        if (!e)
            e = push_until(r, a, now);
        if (!e)
            e = ask(r, a, first, m);
        r->asked += m;
        if (mono_ns() - shown > 200000000) {
            progress(r, now, r->asked - begin, total);
            shown = mono_ns();
        }
        arena_reset(a);
    }
    if (!e)
        e = push_until(r, a, r->until);
    arena_free(a);
    cli_progress_end();
    return e;
}

/* ---- set-up and report ---- */

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return a < b ? -1 : a > b;
}

static double quantile(const struct replay *r, double q)
{
    return r->ask_ms.n ? r->ask_ms.v[(size_t)(q * (double)(r->ask_ms.n - 1))] : NAN;
}

/* AUC of what was answered, over the rows whose time is in [from, until). */
static double auc_of(struct replay *r, int64_t from, int64_t until)
{
    size_t n = 0;
    float *s = NEW_N(r->c->a, float, r->rows.rows + 1), *y = NEW_N(r->c->a, float, r->rows.rows + 1);
    double out = NAN;
    for (size_t i = 0; i < r->rows.rows; i++)
        if (!isnan(r->score[i]) && r->at->i[i] >= from && r->at->i[i] < until && !column_null(r->label, i)) {
            s[n] = r->score[i];
            y[n++] = (float)column_f64(r->label, i);
        }
    if (n)
        out = metric_auc(r->c->a, s, y, n);
    return out;
}

static err report(struct replay *r)
{
    struct json j = json_new(r->c->a);
    double seconds = (double)(mono_ns() - r->start_ns - r->paused_ns) / 1e9, asked = 0;
    for (size_t i = 0; i < r->rows.rows; i++)
        asked += !isnan(r->score[i]);
    qsort(r->ask_ms.v, r->ask_ms.n, sizeof *r->ask_ms.v, by_value);
    json_obj(&j);
    json_kf64(&j, "predictions", asked);
    json_ki64(&j, "requests", r->requests);
    json_ki64(&j, "requestsFailed", r->failed);
    json_kf64(&j, "seconds", seconds);
    json_kf64(&j, "pausedSeconds", (double)r->paused_ns / 1e9);
    json_kf64(&j, "predictPerSecond", asked / ((double)r->ask_ns / 1e9));
    json_kf64(&j, "p50Ms", quantile(r, 0.50));
    json_kf64(&j, "p99Ms", quantile(r, 0.99));
    json_ki64(&j, "rowsPushed", r->push_rows);
    json_ki64(&j, "pushes", r->push_requests);
    json_kf64(&j, "pushedPerSecond", (double)r->push_rows / ((double)r->push_ns / 1e9));
    json_kf64(&j, "realisedAuc", r->label ? auc_of(r, r->from, r->until) : NAN);
    json_ki64(&j, "compared", r->compared);
    json_ki64(&j, "mismatches", r->mismatches);
    json_kstr(&j, "firstMismatch", r->first_mismatch);
    json_obj_end(&j);
    yyjson_val *v;
    TRY(json_parse(r->c->a, json_get(&j), &v));
    return cli_show(r->c, v, NULL);
}

static err time_option(struct cli *c, const char *name, int64_t *out)
{
    const char *text = cli_option(c, name);
    if (!text || !time_parse(str_of(text), out))
        FAIL(INVALID, "--%s: '%s' is not a time such as 2001-05-01", name, text ? text : "");
    return NULL;
}

static err column_option(struct replay *r, const char *option, const struct column **out)
{
    const char *name = cli_option(r->c, option);
    TRY_AS(columns_need(&r->rows, str_of(name), out), "--%s", option);
    return NULL;
}

/* Matches this table's rows to the offline one's by id. */
static err offline_load(struct replay *r)
{
    const char *version = cli_option(r->c, "compare");
    r->offline_row = NEW_N(r->c->a, size_t, r->rows.rows + 1);
    memset(r->offline_row, 0xff, (r->rows.rows + 1) * sizeof *r->offline_row);
    if (!version)
        return NULL;
    const struct column *id;
    TRY(version_load(r->c, str_of(version), &r->offline));
    TRY(columns_need(&r->offline, r->id->name, &id));
    if (id->type != COL_I64 || r->id->type != COL_I64)
        FAIL(UNSUPPORTED, "--compare needs whole numbers as ids");
    int64_t most = 0;
    for (size_t i = 0; i < r->offline.rows; i++)
        most = id->i[i] > most ? id->i[i] : most;
    if (most > 1000000000)
        FAIL(LIMIT, "--compare: ids up to a billion can be matched");
    size_t *where = NEW_N(r->c->a, size_t, (size_t)most + 2);
    memset(where, 0xff, ((size_t)most + 2) * sizeof *where);
    for (size_t i = 0; i < r->offline.rows; i++)
        if (id->i[i] >= 0)
            where[id->i[i]] = i;
    for (size_t i = 0; i < r->rows.rows; i++)
        if (r->id->i[i] >= 0 && r->id->i[i] <= most)
            r->offline_row[i] = where[r->id->i[i]];
    int64_t want;
    if (!str_i64(str_of(cli_option(r->c, "compare-rows")), &want))
        FAIL(INVALID, "--compare-rows takes a number");
    r->compare_left = want;
    return NULL;
}

static err replay_run(struct cli *c)
{
    struct replay r = { .c = c, .deployment = str_of(c->args[0]) };
    const char *version = cli_option(c, "version"), *inputs = cli_option(c, "inputs");
    if (!version || !inputs)
        return err_hint(err_new(INVALID, "replay needs --%s", version ? "inputs" : "version"),
                        "dhow replay --help");
    r.dataset = str_of(cli_option(c, "dataset"));
    r.pause_for = cli_option(c, "pause-for");
    r.pause_until = cli_option(c, "pause-until");
    TRY(time_option(c, "from", &r.from));
    TRY(time_option(c, "until", &r.until));
    cli_progress("reading %s", version);
    TRY(version_load(c, str_of(version), &r.rows));
    TRY(column_option(&r, "id", &r.id));
    TRY(column_option(&r, "at", &r.at));
    TRY(column_option(&r, "known", &r.known));
    TRY(column_option(&r, "label", &r.label));
    for (struct str rest = str_of(inputs), part; str_cut(&rest, ',', &part);) {
        const struct column *col;
        TRY_AS(columns_need(&r.rows, str_trim(part), &col), "--inputs");
        push(c->a, &r.inputs, str_trim(part));
    }
    TRY(offline_load(&r));
    r.score = NEW_N(c->a, float, r.rows.rows + 1);
    for (size_t i = 0; i < r.rows.rows; i++)
        r.score[i] = NAN;
    r.by_at = order_of(c, &r.rows, r.at);
    r.by_known = order_of(c, &r.rows, r.known);
    TRY(cli_http(c, &r.http));
    err e = play(&r);
    http_close(r.http);
    TRY(e);
    return report(&r);
}

static const struct option replay_options[] = {
    { "version", 0, "NAME", "Dataset version with the rows to replay.", NULL, false },
    { "dataset", 0, "NAME", "Dataset that landed rows are pushed to.", NULL, false },
    { "inputs", 0, "A,B,…", "Columns that a request carries.", NULL, false },
    { "id", 0, "COLUMN", "Column that names a row.", "id", false },
    { "at", 0, "COLUMN", "When a row is asked about.", "ts", false },
    { "known", 0, "COLUMN", "When its outcome is pushed.", "known_at", false },
    { "label", 0, "COLUMN", "The outcome.", "late", false },
    { "from", 0, "TIME", "Start of the clock.", NULL, false },
    { "until", 0, "TIME", "Its end.", NULL, false },
    { "compare", 0, "VERSION", "Training-set version whose features must equal the online ones.", NULL,
      false },
    { "compare-rows", 0, "N", "Rows to compare.", "10000", false },
    { "pause-for", 0, "PIPELINE", "The clock waits while a run of this pipeline is at work …", NULL, false },
    { "pause-until", 0, "STEP", "… until this step of it begins.", "deploy", false },
    { 0 },
};
const struct cli_verb verb_replay = {
    .name = "replay",
    .args = "DEPLOYMENT",
    .doc = "Play a dataset version as live traffic: predict, and push each outcome when it became known.",
    .examples =
        "  dhow replay late --version flights.2 --dataset flights --from 2001-05-01 --until 2001-07-01 \\\n"
        "    --inputs origin,destination,date,ts,distance --pause-for late -o json",
    .options = replay_options,
    .args_min = 1,
    .args_max = 1,
    .run = replay_run,
    .client = true,
};
