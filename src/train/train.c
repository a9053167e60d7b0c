// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

/* ---- in the daemon ---- */

static err prepare(struct job_context *ctx, const struct job *job, struct json *spec)
{
    const struct train_with *with = job->with;
    json_ki64(spec, "memory", job->spec.memory);
    return rows_prepare(ctx, job->project, with->rows, spec);
}

static err finish(struct job_context *ctx, const struct job *job, yyjson_val *result, struct json *outputs)
{
    struct train_outputs out;
    (void)job;
    TRY_AS(schema_read(&train_outputs_schema, ctx->a, S("result"), result, 0, &out), "the worker's result");
    for (size_t i = 0; i < train_outputs_schema.n; i++) {
        const struct field *f = &train_outputs_schema.fields[i];
        json_key(outputs, field_key(ctx->a, f));
        json_str(outputs, *(const struct str *)((const char *)&out + f->offset));
    }
    return NULL;
}

/* ---- in the child: what is told while it trains ---- */

struct training {
    struct worker *w;
    const struct train_with *with;
    struct rows rows;
    struct rows_split split;
    struct fit fit;
};

static bool on_round(void *arg, int round, double train_loss, double valid_loss, double valid_auc)
{
    struct training *t = arg;
    worker_metric(t->w, "train.logloss", round, train_loss);
    worker_metric(t->w, "valid.logloss", round, valid_loss);
    worker_metric(t->w, "valid.auc", round, valid_auc);
    worker_progress(t->w, round + 1, t->with->model.trees.rounds, "rounds");
    if (round % 10 == 0)
        worker_say(t->w, "round %d: train.logloss %.5f, valid.logloss %.5f, valid.auc %.5f", round,
                   train_loss, valid_loss, valid_auc);
    return !worker_stopped(t->w);
}

static int64_t spec_number(const struct worker *w, const char *key)
{
    yyjson_val *v = yyjson_obj_get(w->spec, key);
    return yyjson_is_int(v) ? yyjson_get_sint(v) : 0;
}

/* As many threads as cores were asked for, but no more than there are. */
static int threads_of(const struct worker *w)
{
    int64_t cpu = spec_number(w, "cpu");
    int have = cpu_count();
    return cpu >= 1 && cpu < have ? (int)cpu : have;
}

static void say_start(const struct training *t, int threads)
{
    const struct rows_split *s = &t->split;
    struct arena *a = t->w->a;
    worker_say(t->w,
               "rows %.*s: %zu to learn from (%.*s to %.*s), %zu held out (to %.*s), %zu not known in time",
               STR(t->with->rows), s->train, STR(time_text(a, s->from)), STR(time_text(a, s->split)),
               s->valid, STR(time_text(a, s->until)), s->unknown);
    worker_say(t->w, "features %zu, threads %d, parameters %.*s", t->rows.features, threads,
               STR(schema_text(&trees_with_schema, a, &t->with->model.trees, WRITE_DEFAULTS)));
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
    struct json j = json_new(t->w->a);
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

static struct str metrics_text(const struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct json j = json_new(t->w->a);
    size_t from = t->split.train;
    json_obj(&j);
    for (size_t i = 0; i < metric_table_n; i++) {
        double v = metric_table[i].of(scratch, t->fit.score + from, t->rows.y + from, t->split.valid);
        json_key(&j, metric_table[i].name);
        json_f64(&j, v);
        worker_say(t->w, "%.*s %.6f", STR(metric_table[i].name), v);
    }
    json_kf64(&j, "trainLogLoss", t->fit.train_loss);
    json_obj_end(&j);
    return json_get(&j);
}

static struct str facts_text(const struct training *t)
{
    struct arena *a = t->w->a;
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
    struct json j = json_new(t->w->a);
    json_obj(&j);
    json_kraw(&j, "trees", schema_text(&trees_with_schema, t->w->a, &t->with->model.trees, WRITE_DEFAULTS));
    json_kstr(&j, "holdout", duration_text(t->w->a, t->with->holdout));
    json_obj_end(&j);
    return json_get(&j);
}

static struct str baseline_text(const struct training *t)
{
    struct baseline b = { .rows = (int64_t)t->split.train, .n = t->rows.features };
    b.features = NEW_N(t->w->a, struct baseline_column, b.n);
    for (size_t i = 0; i < b.n; i++) {
        auto_arena struct arena *scratch = arena_new(0);
        baseline_column_make(scratch, t->rows.names[i], t->rows.x + i, t->split.train, t->rows.features,
                             &b.features[i]);
    }
    auto_arena struct arena *scratch = arena_new(0);
    baseline_column_make(scratch, S("score"), t->fit.score, t->split.train, 1, &b.score);
    return baseline_write(t->w->a, &b);
}

static err onnx_text(const struct training *t, struct str *out)
{
    struct trees_doc doc = {
        .producer_version = S(DHOW_VERSION),
        .doc = fmt(t->w->a, "%d trees of XGBoost %.*s on %.*s", t->fit.best, STR(t->fit.version),
                   STR(t->with->rows)),
        .features = t->rows.names,
    };
    struct onnx_facts facts;
    TRY(trees_to_onnx(&t->fit.trees, t->w->a, &doc, out));
    return onnx_check(t->w->a, *out, NULL, &facts); /* what we write must pass as foreign too */
}

static err result_write(struct training *t)
{
    struct arena *a = t->w->a;
    struct blobs *blobs = t->w->blobs;
    struct train_outputs out = { .rows = t->with->rows };
    struct str onnx;
    TRY(onnx_text(t, &onnx));
    TRY(blob_put(blobs, a, onnx, &out.onnx));
    TRY(blob_put(blobs, a, t->fit.native, &out.native));
    TRY(blob_put(blobs, a, baseline_text(t), &out.baseline));
    out.signature = signature_text(t);
    out.params = params_text(t);
    out.metrics = metrics_text(t);
    out.facts = facts_text(t);
    return worker_result(t->w, schema_text(&train_outputs_schema, a, &out, 0));
}

static err run(struct worker *w)
{
    struct training t = { .w = w, .with = w->with };
    struct fit_watch watch = { on_round, &t };
    int threads = threads_of(w);
    worker_progress(w, 0, t.with->model.trees.rounds, "reading rows");
    TRY(rows_read(w, spec_number(w, "memory"), &t.rows));
    TRY_AS(rows_split(&t.rows, t.with->holdout, &t.split), "splitting '%.*s'", STR(t.with->rows));
    say_start(&t, threads);
    TRY(fit_trees(w->a, &t.rows, &t.split, &t.with->model.trees, threads, &watch, &t.fit));
    worker_say(w, "%d rounds in %.1f s, the best is %d", t.fit.rounds, t.fit.seconds, t.fit.best);
    return result_write(&t);
}

const struct worker_type train_worker = {
    .name = "train",
    .doc = "Learns a model from a training set's version and exports it as ONNX.",
    .outputs = "job: what register wants as its run; onnx, native, baseline: blobs; "
               "signature, params, metrics, facts: JSON texts; rows: the version it learned from",
    .with = &train_with_schema,
    .prepare = prepare,
    .run = run,
    .finish = finish,
};
