// SPDX-License-Identifier: Apache-2.0
/* Trees: rows → fit → what a run leaves; for the job and for `dhow train` on files. */
#include "train/loader.h"
#include "train/trainer_internal.h"
#include "train/internal.h"

struct training {
    struct arena *a;
    const struct train_listener *listener;
    const struct train_with *with;
    struct str what; /* the name of what it learned from */
    struct rows rows;
    struct rows_split split;
    struct baseline baseline;
    struct fit fit;
    double train_loss; /* when it was last asked for */
};

/* The features' part, while the rows are there. */
static void baseline_make(struct training *t)
{
    auto_arena struct arena *sampled = arena_new(0);
    struct baseline *b = &t->baseline;
    size_t n;
    const float *x = rows_sample(sampled, t->rows.x, t->split.train, t->rows.features, &n);
    *b = (struct baseline){ .rows = (int64_t)n, .n = t->rows.features };
    b->features = NEW_N(t->a, struct baseline_column, b->n);
    for (size_t i = 0; i < b->n; i++) {
        auto_arena struct arena *scratch = arena_new(0);
        baseline_column_make(scratch, t->rows.names[i], x + i, n, t->rows.features, &b->features[i]);
    }
}

static void on_binned(void *arg)
{
    rows_forget(&((struct training *)arg)->rows);
}

static void tell(const struct training *t, const char *name, int round, double v)
{
    if (t->listener->metric)
        t->listener->metric(t->listener->arg, name, round, v);
}

static bool on_round(void *arg, int round, double train_loss, double valid_loss, double valid_auc)
{
    struct training *t = arg;
    const struct train_listener *l = t->listener;
    if (!isnan(train_loss)) {
        t->train_loss = train_loss;
        tell(t, "train.logloss", round, train_loss);
    }
    tell(t, "valid.logloss", round, valid_loss);
    tell(t, "valid.auc", round, valid_auc);
    if (l->progress)
        l->progress(l->arg, &(struct train_progress){ .step = round + 1,
                                                      .steps = t->with->model.trees.rounds,
                                                      .loss = t->train_loss,
                                                      .rate = t->with->model.trees.learning_rate,
                                                      .seconds_left = NAN });
    if (round % 10 == 0)
        train_say(l, "round %d: train.logloss %.5f, valid.logloss %.5f, valid.auc %.5f", round, train_loss,
                  valid_loss, valid_auc);
    return !(l->stopped && l->stopped(l->arg));
}

/* ---- what it leaves ---- */

/* {"inputs":[{"name":…,"type":"FP32","shape":[-1,24]}],"outputs":[…],"features":[…]} */
static void tensor_write(struct json *j, const char *key, struct str name, size_t columns)
{
    json_key(j, str_of(key));
    json_arr(j);
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "type", tensor_protocol_name(TENSOR_F32));
    json_key(j, S("shape"));
    json_arr(j);
    json_i64(j, -1);
    json_i64(j, (int64_t)columns);
    json_arr_end(j);
    json_obj_end(j);
    json_arr_end(j);
}

static struct str signature_text(const struct training *t)
{
    struct json j = json_new(t->a);
    json_obj(&j);
    tensor_write(&j, "inputs", S("features"), t->rows.features);
    tensor_write(&j, "outputs", S("probability"), 1);
    json_key(&j, S("features"));
    json_arr(&j);
    for (size_t i = 0; i < t->rows.features; i++)
        json_str(&j, t->rows.names[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

static err measures_check(const struct train_with *w)
{
    for (size_t i = 0; i < w->metrics.n; i++)
        if (!metric_find(w->metrics.v[i])) {
            auto_arena struct arena *a = arena_new(0);
            struct buf b = buf_new(a);
            for (size_t k = 0; k < metric_table_n; k++)
                buf_fmt(&b, "%s%.*s", k ? ", " : "", STR(metric_table[k].name));
            return err_hint(
                err_new(INVALID, "metrics: '%.*s' is not measured of trees", STR(w->metrics.v[i])),
                "they have %.*s", STR(buf_get(&b)));
        }
    return NULL;
}

static struct str metrics_text(const struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct json j = json_new(t->a);
    size_t from = t->split.train;
    json_obj(&j);
    for (size_t i = 0; i < metric_table_n; i++) {
        double v = metric_table[i].of(scratch, t->fit.score + from, t->rows.y + from, t->split.valid);
        json_key(&j, metric_table[i].name);
        json_f64(&j, v);
        train_say(t->listener, "%.*s %.6f", STR(metric_table[i].name), v);
    }
    json_kf64(&j, "trainLogLoss", t->fit.train_loss);
    json_obj_end(&j);
    return json_get(&j);
}

static struct str facts_text(const struct training *t)
{
    struct arena *a = t->a;
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "rounds", t->fit.rounds);
    json_ki64(&j, "bestRound", t->fit.best);
    json_kf64(&j, "trainSeconds", t->fit.seconds);
    json_ki64(&j, "trainRows", (int64_t)t->split.train);
    json_ki64(&j, "validRows", (int64_t)t->split.valid);
    json_ki64(&j, "notYetKnownRows", (int64_t)t->split.unknown);
    json_kstr(&j, "from", time_text(a, t->split.from));
    json_kstr(&j, "split", time_text(a, t->split.split));
    json_kstr(&j, "until", time_text(a, t->split.until));
    json_kstr(&j, "xgboost", t->fit.version);
    json_ki64(&j, "trees", (int64_t)t->fit.trees.n_trees);
    json_ki64(&j, "nodes", (int64_t)t->fit.trees.n_nodes);
    json_ki64(&j, "memoryPeak", rss_peak_bytes());
    json_obj_end(&j);
    return json_get(&j);
}

/* {"kind":"trees", …all parameters, defaults included}. */
static struct str params_text(const struct training *t)
{
    struct json j = json_new(t->a);
    json_obj(&j);
    json_kraw(&j, "trees", schema_text(&trees_with_schema, t->a, &t->with->model.trees, WRITE_DEFAULTS));
    json_kstr(&j, "holdout", duration_text(t->a, t->with->holdout));
    json_obj_end(&j);
    return json_get(&j);
}

static struct str baseline_text(struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    size_t n;
    const float *score = rows_sample(scratch, t->fit.score, t->split.train, 1, &n);
    baseline_column_make(scratch, S("score"), score, n, 1, &t->baseline.score);
    return baseline_write(t->a, &t->baseline);
}

static err onnx_text(const struct training *t, struct str *out)
{
    struct trees_doc doc = {
        .producer_version = S(DHOW_VERSION),
        .doc = fmt(t->a, "%d trees of XGBoost %.*s on %.*s", t->fit.best, STR(t->fit.version), STR(t->what)),
        .features = t->rows.names,
    };
    struct onnx_facts facts;
    TRY(trees_to_onnx(&t->fit.trees, t->a, &doc, out));
    return onnx_check(t->a, *out, NULL, &facts); /* what we write must pass as foreign too */
}

static err fit_all(struct training *t, int threads, struct train_result *out)
{
    struct fit_watch watch = { on_round, t, on_binned };
    TRY(measures_check(t->with));
    baseline_make(t);
    train_say(t->listener, "features %zu, threads %d, parameters %.*s", t->rows.features, threads,
              STR(schema_text(&trees_with_schema, t->a, &t->with->model.trees, WRITE_DEFAULTS)));
    TRY(fit_trees(t->a, &t->rows, &t->split, &t->with->model.trees, threads, &watch, &t->fit));
    train_say(t->listener, "%d rounds in %.1f s, the best is %d", t->fit.rounds, t->fit.seconds, t->fit.best);
    *out = (struct train_result){ .native = t->fit.native,
                                  .baseline = baseline_text(t),
                                  .signature = signature_text(t),
                                  .params = params_text(t),
                                  .metrics = metrics_text(t),
                                  .facts = facts_text(t),
                                  .train_rows = (int64_t)t->split.train,
                                  .valid_rows = (int64_t)t->split.valid };
    return onnx_text(t, &out->onnx);
}

err train_trees_rows(struct arena *a, const struct train_with *with, struct rows *rows,
                     const struct rows_split *split, int threads, const struct train_listener *l,
                     struct train_result *out)
{
    struct training t = {
        .a = a, .listener = l, .with = with, .what = with->rows, .rows = *rows, .split = *split
    };
    const struct rows_split *s = split;
    train_say(l, "rows %.*s: %zu to learn from (%.*s to %.*s), %zu held out (to %.*s), %zu not known in time",
              STR(with->rows), s->train, STR(time_text(a, s->from)), STR(time_text(a, s->split)), s->valid,
              STR(time_text(a, s->until)), s->unknown);
    return fit_all(&t, threads, out);
}

/* ---- on files ---- */

/* Parquet files that are split by time, features that are plain columns of them: no more is to be done than what rows.c does
 * for a training set's version. Else the loader is asked, which knows all that a form can say. */
static bool plain(const struct train_job *job)
{
    const struct train_with *w = job->with;
    const struct train_input *in = w->inputs.v;
    bool all = w->split.at.n > 0 && w->holdout > 0 && w->weight.n == 0 && w->inputs.n <= 1 &&
               job->n_files > 0;
    if (w->inputs.n == 1)
        all = all && in->kind == KIND_NUMBERS && in->missing == TRAIN_AUTO && !in->indicator;
    for (size_t i = 0; i < job->n_files; i++) {
        const struct train_source *f = &job->files[i];
        all = all && f->part == LOADER_TRAIN && f->column.n == 0 &&
              (f->format == FILE_PARQUET || (f->format == FILE_AUTO && str_ends(f->path, S(".parquet"))));
    }
    return all;
}

static bool among(const struct strs *list, struct str name)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq(list->v[i], name))
            return true;
    return false;
}

static enum column_role role_of(const struct train_job *job, const struct duck_column *c)
{
    const struct train_with *w = job->with;
    const struct train_input *in = w->inputs.v;
    enum column_type type;
    bool number = column_type_of(c->type, &type) && type != COL_STR && type != COL_TIME;
    if (str_eq(c->name, w->label))
        return IS_LABEL;
    if (str_eq(c->name, w->split.at))
        return IS_EVENT_TIME;
    if (str_eq(c->name, w->split.known))
        return IS_KNOWN_AT;
    if (w->inputs.n == 1 && in->columns.n > 0)
        return among(&in->columns, c->name) ? IS_FEATURE : IS_VALUE;
    return number && !str_eq(c->name, w->split.group) && !among(&job->aside, c->name) ? IS_FEATURE : IS_VALUE;
}

/* What a version of these files would say of its columns. */
static err files_describe(struct arena *a, const struct strs *paths, const struct train_job *job,
                          struct dataset_version_spec *out)
{
    struct duck *duck;
    struct duck_columns columns;
    struct columns count;
    auto_arena struct arena *scratch = arena_new(0);
    struct str table = sql_parquet(scratch, paths);
    TRY(duck_open(scratch, &(struct duck_config){ .threads = 1, .files = *paths }, &duck));
    TRY(duck_describe(duck, a, fmt(scratch, "SELECT * FROM %.*s", STR(table)), &columns));
    TRY(duck_load(duck, scratch, fmt(scratch, "SELECT count(*) AS n FROM %.*s", STR(table)), &count));
    struct version_column *v = NEW_N(a, struct version_column, columns.n + 1);
    size_t found = 0;
    for (size_t i = 0; i < columns.n; i++) {
        v[i] = (struct version_column){ .name = columns.v[i].name, .role = role_of(job, &columns.v[i]) };
        found += v[i].role == IS_FEATURE;
    }
    if (job->with->inputs.n == 1 && found < ((const struct train_input *)job->with->inputs.v)->columns.n)
        FAIL(INVALID, "inputs: a column of '%.*s' is not in the files",
             STR(((const struct train_input *)job->with->inputs.v)->name));
    *out = (struct dataset_version_spec){ .rows = count.v[0].i[0],
                                          .until = job->until,
                                          .columns = { v, columns.n } };
    return NULL;
}

static err plain_read(struct training *t, const struct train_job *job)
{
    struct strs paths = { 0 };
    struct dataset_version_spec spec;
    for (size_t i = 0; i < job->n_files; i++)
        push(t->a, &paths, job->files[i].path);
    TRY(files_describe(t->a, &paths, job, &spec));
    TRY(rows_load(t->a, &paths, &spec, &t->rows));
    return rows_split(&t->rows, job->with->holdout, &t->split);
}

static err part_read(struct training *t, const struct train_set *set, enum loader_part part, size_t at,
                     size_t *n)
{
    float *y = t->rows.y + at;
    *n = (size_t)set->facts.rows[part];
    TRY(loader_raw_into(set->loader, part, 0, *n, t->rows.x + at * t->rows.features));
    TRY(loader_raw_into(set->loader, part, (size_t)set->label, *n, y));
    for (size_t i = 0; i < *n; i++)
        if (y[i] != 0 && y[i] != 1)
            FAIL(INVALID, "label '%.*s' is %g in a row, and trees learn 0 or 1", STR(t->with->label),
                 (double)y[i]);
    return NULL;
}

/* What the loader keeps goes before the rows are binned. */
static err loader_read(struct training *t, const struct train_job *job)
{
    auto_arena struct arena *loading = arena_new(0);
    struct train_set set;
    struct rows *r = &t->rows;
    TRY(train_set_numbers(loading, job, t->listener, &set));
    const struct loader_tensor *x = &set.t[0];
    *r = (struct rows){ .features = (size_t)x->n, .names = NEW_N(t->a, struct str, (size_t)x->n) };
    for (size_t i = 0; i < r->features; i++)
        r->names[i] = str_dup(t->a, x->columns.v[i]);
    r->n = (size_t)(set.facts.rows[LOADER_TRAIN] + set.facts.rows[LOADER_VALID]);
    rows_x_new(t->a, r->n, r);
    r->y = NEW_N(t->a, float, r->n + 1);
    TRY(part_read(t, &set, LOADER_TRAIN, 0, &t->split.train));
    TRY(part_read(t, &set, LOADER_VALID, t->split.train, &t->split.valid));
    if (!t->split.train || !t->split.valid)
        FAIL(INVALID, "%zu rows to learn from, %zu held out: trees want some of both", t->split.train,
             t->split.valid);
    return NULL;
}

err train_trees(struct arena *a, const struct train_job *job, const struct train_listener *l,
                struct train_result *out)
{
    struct training t = { .a = a, .listener = l, .with = job->with, .what = S("files") };
    TRY(plain(job) ? plain_read(&t, job) : loader_read(&t, job));
    train_say(l, "rows: %zu to learn from, %zu held out", t.split.train, t.split.valid);
    return fit_all(&t, job->threads, out);
}
