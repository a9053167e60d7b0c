// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"
#include "train/trainer.h"

/* ---- in the daemon ---- */

static err prepare(struct job_context *ctx, const struct job *job, struct json *spec)
{
    const struct train_with *with = job->with;
    yyjson_val *form;
    const struct field *chosen;
    TRY(json_parse(ctx->a, job->spec.with, &form));
    TRY(train_form_chosen(ctx->a, S("with"), form, with, &chosen));
    struct dataset_version_spec v;
    TRY(train_job_check(ctx->a, with, S("with.")));
    TRY(resource_get(ctx->store, ctx->a, &dataset_version_resource, job->project, with->rows, NULL, &v,
                     NULL));
    TRY(version_check(ctx->a, with, &v, S("with.")));
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

/* ---- in the child ---- */

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

static void on_say(void *arg, struct str line)
{
    worker_say(arg, "%.*s", STR(line));
}

static void on_metric(void *arg, const char *name, int64_t step, double value)
{
    worker_metric(arg, name, step, value);
}

static void on_progress(void *arg, const struct train_progress *p)
{
    auto_arena struct arena *a = arena_new(0);
    struct str left = isnan(p->seconds_left) ? S("") : fmt(a, ", %.0fs left", p->seconds_left);
    struct str loss = isnan(p->loss) ? S("") : fmt(a, ", loss %.5g", p->loss);
    worker_progress(arg, p->step, p->steps,
                    fmtz(a, "steps%.*s, rate %.4g%.*s", STR(loss), p->rate, STR(left)));
}

static bool on_stopped(void *arg)
{
    return worker_stopped(arg);
}

static err result_write(struct worker *w, const struct train_result *r)
{
    const struct train_with *with = w->with;
    struct train_outputs out = { .rows = with->rows,
                                 .signature = r->signature,
                                 .params = r->params,
                                 .metrics = r->metrics,
                                 .test = r->test,
                                 .facts = r->facts };
    TRY(blob_put(w->blobs, w->a, r->onnx, &out.onnx));
    if (r->native.n)
        TRY(blob_put(w->blobs, w->a, r->native, &out.native));
    TRY(blob_put(w->blobs, w->a, r->baseline, &out.baseline));
    if (r->profile.n) {
        struct str trace;
        TRY(file_map(w->a, fmtz(w->a, "%s/profile.json", w->dir), &trace));
        TRY(blob_put(w->blobs, w->a, trace, &out.profile));
    }
    return worker_result(w, schema_text(&train_outputs_schema, w->a, &out, 0));
}

static err run(struct worker *w)
{
    struct train_listener l = { on_say, on_metric, on_progress, on_stopped, w };
    struct train_result r;
    const struct field *chosen;
    struct version_in v;
    TRY(version_get(w->blobs, w->a, yyjson_obj_get(w->spec, "rows"), &v));
    TRY(train_model_chosen(w->a, yyjson_obj_get(yyjson_obj_get(w->spec, "with"), "model"), &chosen));
    TRY(train_version_run(w, &v, chosen, threads_of(w), spec_number(w, "memory"), &l, &r));
    return result_write(w, &r);
}

static const char *const blobs[] = { "onnx", "native", "baseline", "profile", NULL };
const struct worker_type train_worker = {
    .name = "train",
    .doc = "Learns a model from the version of a training set or a dataset and exports it as ONNX.",
    .outputs = "job: what register wants as its run; onnx, native, baseline, profile: blobs; "
               "signature, params, metrics, test, facts: JSON texts; rows: the version it learned from",
    .blobs = blobs,
    .with = &train_with_schema,
    .prepare = prepare,
    .run = run,
    .finish = finish,
};
