// SPDX-License-Identifier: Apache-2.0
/* The job `evaluate`: a version and the present champion, judged on the same rows. prepare names their blobs, run
 * scores in a process of its own, finish hands the figures on. */
#include "registry/internal.h"
#include <stdlib.h>

enum { BATCH = 4096 };

/* ---- in the daemon ---- */

static err judged_put(struct job_context *c, struct str project, const char *key, struct str version,
                      struct str model, struct json *spec)
{
    struct model_version_spec v;
    TRY(version_load(c->store, c->a, project, model, version, NULL, &v, NULL));
    json_key(spec, str_of(key));
    json_obj(spec);
    json_kstr(spec, "version", version);
    json_kstr(spec, "onnx", v.onnx);
    json_kstr(spec, "native", v.native);
    json_kraw(spec, "signature", v.signature.n ? v.signature : S("{}"));
    json_obj_end(spec);
    return NULL;
}

static err evaluate_prepare(struct job_context *c, const struct job *job, struct json *spec)
{
    const struct evaluate_with *w = job->with;
    struct str champion;
    TRY(judged_put(c, job->project, "candidate", w->version, w->model, spec));
    TRY(registry_alias_get(c->store, c->a, job->project, w->model, ALIAS_CHAMPION, &champion));
    if (champion.n && !str_eq(champion, w->version))
        TRY(judged_put(c, job->project, "champion", champion, w->model, spec));
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
    float *scores;
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

static err features_order(struct worker *w, const struct rows *rows, yyjson_val *signature, struct judged *j)
{
    struct order numbers, texts;
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

static err judge(struct worker *w, struct runtime *rt, const struct rows *rows, const char *key,
                 struct judged *j)
{
    yyjson_val *spec = yyjson_obj_get(w->spec, key), *cpu = yyjson_obj_get(w->spec, "cpu");
    struct session_config config = { .threads = (int)yyjson_get_sint(cpu) };
    struct onnx_facts facts;
    struct str bytes;
    j->version = json_text_in(spec, "version");
    TRY_AS(blob_get(w->blobs, w->a, json_text_in(spec, "onnx"), &bytes), "version '%.*s'", STR(j->version));
    TRY_AS(onnx_check(w->a, bytes, NULL, &facts), "version '%.*s'", STR(j->version));
    if (json_text_in(spec, "native").n)
        TRY_AS(blob_get(w->blobs, w->a, json_text_in(spec, "native"), &j->native), "version '%.*s'",
               STR(j->version));
    TRY(features_order(w, rows, yyjson_obj_get(spec, "signature"), j));
    TRY_AS(session_load(rt, bytes, &config, &j->session), "loading version '%.*s'", STR(j->version));
    arena_defer(w->a, unload, j->session);
    j->scores = NEW_N(w->a, float, rows->n);
    TRY_AS(session_score_rows(j->session, &j->rows, BATCH, j->scores), "scoring with version '%.*s'",
           STR(j->version));
    return NULL;
}

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
    for (size_t i = 0; i < metric_table_n; i++) {
        auto_arena struct arena *scratch = arena_new(0);
        json_key(out, metric_table[i].name);
        json_f64(out, metric_table[i].of(scratch, j->scores, rows->y, rows->n));
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

/* A champion of other features cannot be compared on these rows; the candidate's own bounds still hold. */
static bool champion_fits(struct worker *w, const struct rows *rows)
{
    yyjson_val *spec = yyjson_obj_get(w->spec, "champion");
    struct judged j = { .version = json_text_in(spec, "version") };
    if (!spec)
        return false;
    err e = features_order(w, rows, yyjson_obj_get(spec, "signature"), &j);
    if (e)
        worker_say(w, "the champion is not judged: %.*s", STR(e->text));
    return !e;
}

static err evaluate_all(struct worker *w, struct runtime *rt)
{
    struct rows rows;
    struct judged candidate = { 0 }, champion = { 0 };
    struct json j = json_new(w->a);
    TRY(rows_select(w, &rows));
    worker_progress(w, 1, 4, "scoring the candidate");
    TRY(judge(w, rt, &rows, "candidate", &candidate));
    json_obj(&j);
    json_key(&j, S("metrics"));
    json_obj(&j);
    metrics_write(&rows, &candidate, &j);
    worker_progress(w, 2, 4, "comparing with the trained model");
    TRY(parity_write(w, &rows, &candidate, &j));
    json_key(&j, S("champion"));
    if (champion_fits(w, &rows)) {
        worker_progress(w, 3, 4, "scoring the champion");
        TRY(judge(w, rt, &rows, "champion", &champion));
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
        "metrics: JSON text {auc, logLoss, calibrationError, averagePrecision, accuracy, rmse, rows, parityMaxAbs, "
        "parityRows, champion} with the same of the champion, or null",
    .with = &evaluate_with_schema,
    .prepare = evaluate_prepare,
    .run = evaluate_run,
    .finish = evaluate_finish,
};
