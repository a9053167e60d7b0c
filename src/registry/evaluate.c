// SPDX-License-Identifier: Apache-2.0
/* The job `evaluate`: a version and the present champion, judged on the same rows. prepare names their blobs, run
 * scores in a process of its own, finish hands the figures on. */
#include "registry/internal.h"
#include <math.h>
#include <stdlib.h>

enum { BATCH = 4096 };

/* ---- in the daemon ---- */

/* A ranking is one within groups, of which rows say nothing; its training knew them. */
static err ranks(struct arena *a, const struct model_version_spec *v, bool *out)
{
    yyjson_val *measured = NULL;
    if (v->metrics.n)
        TRY(json_parse(a, v->metrics, &measured));
    *out = yyjson_obj_get(measured, "pairAccuracy");
    return NULL;
}

static void judged_put(struct json *spec, const char *key, struct str version,
                       const struct model_version_spec *v)
{
    json_key(spec, str_of(key));
    json_obj(spec);
    json_kstr(spec, "version", version);
    json_kstr(spec, "onnx", v->onnx);
    json_kstr(spec, "native", v->native);
    json_kraw(spec, "signature", v->signature.n ? v->signature : S("{}"));
    json_obj_end(spec);
}

static err evaluate_prepare(struct job_context *c, const struct job *job, struct json *spec)
{
    const struct evaluate_with *w = job->with;
    struct model_version_spec v;
    struct str champion;
    bool ranking;
    TRY(version_load(c->store, c->a, job->project, w->model, w->version, NULL, &v, NULL));
    TRY(ranks(c->a, &v, &ranking));
    if (ranking)
        return err_hint(
            err_new(UNSUPPORTED, "'%.*s' ranks rows; evaluate judges classes and numbers", STR(w->version)),
            "let the gate look at what its training measured, ${steps.train.metrics}");
    judged_put(spec, "candidate", w->version, &v);
    TRY(registry_alias_get(c->store, c->a, job->project, w->model, ALIAS_CHAMPION, &champion));
    if (champion.n && !str_eq(champion, w->version)) {
        TRY(version_load(c->store, c->a, job->project, w->model, champion, NULL, &v, NULL));
        TRY(ranks(c->a, &v, &ranking));
        if (!ranking)
            judged_put(spec, "champion", champion, &v);
    }
    json_ki64(spec, "memory", job->spec.memory);
    return rows_prepare(c, job->project, w->rows, spec);
}

static err evaluate_finish(struct job_context *c, const struct job *job, yyjson_val *result,
                           struct json *outputs)
{
    (void)job;
    yyjson_val *metrics = yyjson_obj_get(result, "metrics");
    size_t n;
    char *text = metrics ? yyjson_val_write(metrics, 0, &n) : NULL;
    if (!text)
        FAIL(INTERNAL, "the evaluation left no metrics");
    json_kstr(outputs, "metrics", str_dup(c->a, (struct str){ text, n }));
    free(text);
    return NULL;
}

/* ---- in the child ---- */

struct judged {
    struct str version;
    struct session *session; /* ends with the worker's arena */
    struct str native;
    struct score_rows rows; /* in the order of its own features */
    size_t output, width;   /* the output that is judged, and its numbers of a row */
    enum meter_task task;
    const struct strs *classes; /* what its numbers stand for; empty: 0, 1, … */
    struct meter *meter;
};

static void unload(void *session)
{
    session_unload(session);
}

/* Which of the rows' columns a version wants, in its own order; all, if its signature names none. */
struct order {
    size_t *at, n;
    bool same; /* as they are */
};

static err order_find(struct worker *w, struct str version, const struct str *have, size_t n,
                      yyjson_val *names, struct order *out)
{
    yyjson_val *v;
    size_t i, max;
    *out = (struct order){ NEW_N(w->a, size_t, yyjson_arr_size(names) + 1), yyjson_arr_size(names),
                           yyjson_arr_size(names) == n };
    yyjson_arr_foreach (names, i, max, v) {
        struct str name = json_text(v);
        size_t at = 0;
        while (at < n && !str_eq(have[at], name))
            at++;
        if (at == n)
            FAIL(INVALID, "version '%.*s' wants the feature '%.*s', which the rows do not have", STR(version),
                 STR(name));
        out->at[i] = at;
        out->same = out->same && at == i;
    }
    return NULL;
}

/* A version's rows: its own features, in their order. */
static err features_order(struct worker *w, const struct rows *rows, const char *key, struct judged *j)
{
    yyjson_val *spec = yyjson_obj_get(w->spec, key), *signature = yyjson_obj_get(spec, "signature");
    struct order numbers, texts;
    j->version = json_text_in(spec, "version");
    TRY(order_find(w, j->version, rows->names, rows->features, yyjson_obj_get(signature, "features"),
                   &numbers));
    TRY(order_find(w, j->version, rows->text_names, rows->texts, yyjson_obj_get(signature, "categories"),
                   &texts));
    j->rows = (struct score_rows){ rows->x, rows->n, rows->features, rows->text, texts.n };
    if (numbers.n && !numbers.same) {
        float *x = NEW_N(w->a, float, arena_mul(rows->n, numbers.n));
        for (size_t r = 0; r < rows->n; r++)
            for (size_t i = 0; i < numbers.n; i++)
                x[r * numbers.n + i] = rows->x[r * rows->features + numbers.at[i]];
        j->rows.x = x;
        j->rows.features = numbers.n;
    }
    if (texts.n && !texts.same) {
        struct str *text = NEW_N(w->a, struct str, arena_mul(rows->n, texts.n));
        for (size_t r = 0; r < rows->n; r++)
            for (size_t i = 0; i < texts.n; i++)
                text[r * texts.n + i] = rows->text[r * rows->texts + texts.at[i]];
        j->rows.text = text;
    }
    return NULL;
}

static err version_open(struct worker *w, struct runtime *rt, const char *key, struct judged *j)
{
    yyjson_val *spec = yyjson_obj_get(w->spec, key), *cpu = yyjson_obj_get(w->spec, "cpu");
    struct session_config config = { .threads = (int)yyjson_get_sint(cpu) };
    struct onnx_facts facts;
    struct str bytes;
    TRY_AS(blob_get(w->blobs, w->a, json_text_in(spec, "onnx"), &bytes), "version '%.*s'", STR(j->version));
    TRY_AS(onnx_check(w->a, bytes, NULL, &facts), "version '%.*s'", STR(j->version));
    if (json_text_in(spec, "native").n)
        TRY_AS(blob_get(w->blobs, w->a, json_text_in(spec, "native"), &j->native), "version '%.*s'",
               STR(j->version));
    TRY_AS(session_load(rt, bytes, &config, &j->session), "loading version '%.*s'", STR(j->version));
    arena_defer(w->a, unload, j->session);
    TRY_AS(session_score_output(j->session, &j->output, &j->width), "version '%.*s'", STR(j->version));
    return NULL;
}

/* ---- labels and scores ---- */

static bool zero_or_one(const float *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (y[i] != 0 && y[i] != 1)
            return false;
    return true;
}

/* Labels say it: several numbers a row are classes; of one it is the chance of 1 if there are no other labels than 0 and 1, unless
 * the model itself calls it a value. */
static err task_find(const struct rows *rows, struct judged *j)
{
    const struct session_info *info = session_describe(j->session);
    const struct str name = info->outputs[j->output].name;
    const bool value = str_is(name, "value"), two = zero_or_one(rows->y, rows->n);
    if (j->width > 1 && (value || str_is(name, "embedding")))
        FAIL(UNSUPPORTED, "version '%.*s' gives %zu numbers a row as '%.*s': only classes are judged so",
             STR(j->version), j->width, STR(name));
    j->classes = &info->labels[j->output];
    j->task = j->width > 1 ? METER_CLASSES : two && !value ? METER_BINARY : METER_NUMBERS;
    return NULL;
}

/* A label's place among the classes. */
static err class_find(const struct judged *j, float label, int64_t *out)
{
    char text[32];
    const int n = snprintf(text, sizeof text, "%.9g", (double)label);
    for (size_t i = 0; i < j->classes->n; i++)
        if (str_eq(j->classes->v[i], (struct str){ text, (size_t)n })) {
            *out = (int64_t)i;
            return NULL;
        }
    if (j->classes->n || !(label >= 0 && label < (float)j->width) || label != floorf(label))
        FAIL(INVALID, "the label %s is none of the %zu classes of version '%.*s'", text, j->width,
             STR(j->version));
    *out = (int64_t)label;
    return NULL;
}

static err batch_judge(const struct judged *j, const float *p, const float *y, size_t n)
{
    int64_t ids[BATCH];
    if (j->task != METER_CLASSES)
        return meter_add(j->meter, p, y, n);
    for (size_t i = 0; i < n; i++)
        TRY(class_find(j, y[i], &ids[i]));
    return meter_add(j->meter, p, ids, n);
}

static err judge(struct worker *w, const struct rows *rows, struct judged *j)
{
    const struct score_rows *r = &j->rows;
    auto_arena struct arena *scratch = arena_new(0);
    float *p = NEW_N(scratch, float, arena_mul(BATCH, j->width));
    TRY(task_find(rows, j));
    TRY(meter_new(w->a,
                  &(struct meter_spec){ .task = j->task, .classes = (int64_t)j->width, .exact_max = rows->n },
                  &j->meter));
    for (size_t i = 0, now; i < rows->n; i += now) {
        now = rows->n - i < BATCH ? rows->n - i : BATCH;
        const struct score_rows some = { r->x + i * r->features, now, r->features, r->text + i * r->texts,
                                         r->texts };
        TRY_AS(session_score_rows(j->session, &some, BATCH, p), "scoring with version '%.*s'",
               STR(j->version));
        TRY(batch_judge(j, p, rows->y + i, now));
    }
    return NULL;
}

/* ---- rows ---- */

/* Rows [from, from + n) become all rows. */
static void rows_keep(struct rows *r, size_t from, size_t n)
{
    r->x += from * r->features;
    r->text += from * r->texts;
    r->y += from;
    r->at += from;
    r->known += from;
    r->n = n;
}

/* Only rows with a label and since ≤ at < until (0: no bound), in order. */
static void rows_between(struct rows *r, int64_t since, int64_t until)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (isnan(r->y[i]) || (since && r->at[i] < since) || (until && r->at[i] >= until))
            continue;
        if (n != i) {
            memmove(r->x + n * r->features, r->x + i * r->features, r->features * sizeof *r->x);
            for (size_t k = 0; k < r->texts; k++)
                r->text[n * r->texts + k] = r->text[i * r->texts + k];
            r->y[n] = r->y[i];
            r->at[n] = r->at[i];
            r->known[n] = r->known[i];
        }
        n++;
    }
    r->n = n;
}

static err rows_select(struct worker *w, struct rows *rows)
{
    const struct evaluate_with *with = w->with;
    TRY(rows_read(w, yyjson_get_sint(yyjson_obj_get(w->spec, "memory")), rows));
    if (with->holdout) {
        struct rows_split split;
        TRY(rows_split(rows, with->holdout, &split));
        rows_keep(rows, split.train, split.valid);
    }
    rows_between(rows, with->from, with->until);
    if (!rows->n)
        FAIL(INVALID, "there are no rows to judge on");
    return NULL;
}

static void metrics_write(const struct rows *rows, const struct judged *j, struct json *out)
{
    for (size_t i = 0; i < meter_table_n; i++)
        if (meter_table[i].tasks & j->task) {
            json_key(out, meter_table[i].name);
            json_f64(out, meter_value(j->meter, meter_table[i].name));
        }
    json_ki64(out, "rows", (int64_t)rows->n);
    json_kstr(out, "version", j->version);
}

static err parity_write(struct worker *w, const struct rows *rows, const struct judged *j, struct json *out)
{
    const struct evaluate_with *with = w->with;
    struct parity p = { .max_abs = NAN };
    size_t n = (size_t)with->parity_rows < rows->n ? (size_t)with->parity_rows : rows->n;
    int threads = (int)yyjson_get_sint(yyjson_obj_get(w->spec, "cpu"));
    if (n && j->native.n)
        TRY_AS(parity_check(w->a, j->native, j->session, j->rows.x, n, j->rows.features, threads, &p),
               "comparing the exported model with the trained one");
    json_kf64(out, "parityMaxAbs", p.max_abs);
    json_ki64(out, "parityRows", (int64_t)p.rows);
    return NULL;
}

/* A champion of other features, or that gives other numbers, cannot be compared on these rows; the candidate's own bounds still
 * hold. */
static err champion_open(struct worker *w, struct runtime *rt, const struct rows *rows,
                         const struct judged *candidate, struct judged *out, bool *there)
{
    *there = false;
    *out = (struct judged){ 0 };
    if (!yyjson_obj_get(w->spec, "champion"))
        return NULL;
    err e = features_order(w, rows, "champion", out);
    if (e) {
        worker_say(w, "the champion is not judged: %.*s", STR(e->text));
        return NULL;
    }
    TRY(version_open(w, rt, "champion", out));
    *there = out->width == candidate->width;
    if (!*there)
        worker_say(w, "the champion is not judged: '%.*s' gives %zu numbers a row, '%.*s' %zu",
                   STR(out->version), out->width, STR(candidate->version), candidate->width);
    return NULL;
}

static err evaluate_all(struct worker *w, struct runtime *rt)
{
    struct rows rows;
    struct judged candidate = { 0 }, champion;
    struct json j = json_new(w->a);
    bool beside;
    TRY(rows_select(w, &rows));
    worker_progress(w, 1, 4, "scoring the candidate");
    TRY(features_order(w, &rows, "candidate", &candidate));
    TRY(version_open(w, rt, "candidate", &candidate));
    TRY(judge(w, &rows, &candidate));
    json_obj(&j);
    json_key(&j, S("metrics"));
    json_obj(&j);
    metrics_write(&rows, &candidate, &j);
    worker_progress(w, 2, 4, "comparing with the trained model");
    TRY(parity_write(w, &rows, &candidate, &j));
    json_key(&j, S("champion"));
    TRY(champion_open(w, rt, &rows, &candidate, &champion, &beside));
    if (beside) {
        worker_progress(w, 3, 4, "scoring the champion");
        TRY(judge(w, &rows, &champion));
        json_obj(&j);
        metrics_write(&rows, &champion, &j);
        json_obj_end(&j);
    } else {
        json_null(&j);
    }
    json_obj_end(&j);
    json_obj_end(&j);
    worker_progress(w, 4, 4, "done");
    return worker_result(w, json_get(&j));
}

static void close_runtime(void *rt)
{
    runtime_close(rt);
}

static err evaluate_run(struct worker *w)
{
    struct runtime *rt;
    TRY(runtime_open(&(struct runtime_config){ 0 }, &rt));
    arena_defer(w->a, close_runtime, rt); /* after the sessions, which are deferred later */
    return evaluate_all(w, rt);
}

const struct worker_type registry_evaluate = {
    .name = "evaluate",
    .doc = "Judges a version and the champion on the same rows.",
    .outputs =
        "metrics: JSON text of what such labels have (0 and 1: auc, averagePrecision, logLoss, accuracy, precision, recall, f1, "
        "calibrationError, rmse; classes: logLoss, accuracy, topK, precision, recall, f1, calibrationError; numbers: rmse, mae, "
        "r2), and rows, parityMaxAbs, parityRows, champion: the same of the champion, or null",
    .with = &evaluate_with_schema,
    .prepare = evaluate_prepare,
    .run = evaluate_run,
    .finish = evaluate_finish,
};
