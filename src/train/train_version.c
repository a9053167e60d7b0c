// SPDX-License-Identifier: Apache-2.0
/* The job `train` on the files of a version: what it holds, by the version or by the form → the trainer → blobs. */
#include "train/internal.h"
#include "train/trainer.h"

#include <unistd.h>

bool version_labelled(const struct dataset_version_spec *v)
{
    const struct version_column *c = v->columns.v;
    for (size_t i = 0; i < v->columns.n; i++)
        if (c[i].role == IS_LABEL)
            return true;
    return false;
}

/* ---- what a form says of a version ---- */

static err column_check(struct arena *a, const struct dataset_version_spec *v, struct str name, struct str at,
                        const char *field)
{
    const struct version_column *c = v->columns.v;
    struct strs names = { 0 };
    for (size_t i = 0; i < v->columns.n; i++) {
        if (!name.n || str_eq(c[i].name, name))
            return NULL;
        push(a, &names, c[i].name);
    }
    struct str near = str_nearest(name, names.v, names.n), list = str_join(a, names.v, names.n, S(", "));
    err e = err_new(INVALID, "%.*s%s: the version has no column '%.*s'", STR(at), field, STR(name));
    e = near.n ? err_hint(e, "'%.*s'?", STR(near)) : err_hint(e, "it has %.*s", STR(str_sub(list, 0, 1000)));
    return err_field(e, fmt(a, "%.*s%s", STR(at), field));
}

static err holdout_check(struct arena *a, const struct train_with *with, bool by_time, struct str at)
{
    if (by_time && !with->holdout)
        return err_field(
            err_hint(err_new(INVALID, "%.*sholdout: what is held out is not said", STR(at)), "holdout: 14d"),
            fmt(a, "%.*sholdout", STR(at)));
    if (!by_time && with->holdout)
        return err_field(err_hint(err_new(INVALID, "%.*sholdout: by which time is not said", STR(at)),
                                  "split: {at: COLUMN}, or a share of the rows: split: {valid: 0.1}"),
                         fmt(a, "%.*sholdout", STR(at)));
    return NULL;
}

err version_check(struct arena *a, const struct train_with *with, const struct dataset_version_spec *v,
                  struct str at)
{
    const struct train_input *in = with->inputs.v;
    const struct {
        struct str name;
        const char *field;
    } named[] = { { with->label, "label" },
                  { with->weight, "weight" },
                  { with->split.group, "split.group" },
                  { with->split.at, "split.at" },
                  { with->split.known, "split.known" } };
    if (version_labelled(v))
        return holdout_check(a, with, true, at);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++)
        TRY(column_check(a, v, named[i].name, at, named[i].field));
    for (size_t i = 0; i < with->data.categories.n; i++)
        TRY(column_check(a, v, with->data.categories.v[i], at, "data.categories"));
    for (size_t i = 0; i < with->inputs.n; i++)
        for (size_t k = 0; k < in[i].columns.n; k++)
            TRY(column_check(a, v, in[i].columns.v[k], at, fmtz(a, "inputs[%zu].columns", i)));
    return holdout_check(a, with, with->split.at.n > 0, at);
}

/* ---- in the child ---- */

/* What a training set's version says, the form need not. */
static err roles_read(struct arena *a, const struct version_in *v, struct train_job *job)
{
    const struct version_column *c = v->spec.columns.v;
    for (size_t i = 0; i < v->spec.columns.n; i++) {
        if (c[i].role == IS_FEATURE && str_eq(c[i].type, str_of(column_type_names[COL_STR])))
            push(a, &job->texts, c[i].name);
        else if (c[i].role == IS_FEATURE)
            push(a, &job->features, c[i].name);
        else if (c[i].role == IS_LABEL)
            job->label = c[i].name;
        else if (c[i].role == IS_EVENT_TIME)
            job->at = c[i].name;
        else if (c[i].role == IS_KNOWN_AT)
            job->known = c[i].name;
    }
    if (!(job->features.n + job->texts.n) || !job->at.n)
        FAIL(INVALID, "'%.*s' has no %s column", STR(v->name), !job->at.n ? "event time" : "feature");
    return NULL;
}

static err version_read(struct arena *a, const struct version_in *v, struct train_job *job)
{
    const struct version_column *c = v->spec.columns.v;
    struct train_source *files = NEW_N(a, struct train_source, v->paths.n + 1);
    if (version_labelled(&v->spec))
        TRY(roles_read(a, v, job));
    for (size_t i = 0; i < v->spec.columns.n; i++) {
        if (!job->label.n && (c[i].role == IS_ID || c[i].role == IS_KEY))
            push(a, &job->aside, c[i].name);
        if (c[i].role == IS_EVENT_TIME && str_eq(c[i].name, job->at.n ? job->at : job->with->split.at))
            job->until = v->spec.until; /* it says nothing of other times */
    }
    for (size_t i = 0; i < v->paths.n; i++)
        files[i] = (struct train_source){ .path = v->paths.v[i], .format = FILE_PARQUET };
    job->files = files;
    job->n_files = v->paths.n;
    return NULL;
}

/* A further attempt goes on where the one before was: DIR/jobs/17-2 takes the checkpoints of DIR/jobs/17-1. */
static void attempt_before(struct worker *w)
{
    struct str dir = str_of(w->dir), number;
    int64_t n;
    size_t cut = dir.n;
    while (cut && dir.p[cut - 1] != '-')
        cut--;
    number = str_sub(dir, cut, dir.n);
    for (int64_t k = str_i64(number, &n) ? n - 1 : 0; k > 0; k--) {
        const char *before = fmtz(w->a, "%.*s%lld/checkpoints", STR(str_sub(dir, 0, cut)), (long long)k);
        if (file_exists(before) && !rename(before, fmtz(w->a, "%s/checkpoints", w->dir)))
            return;
    }
}

err train_version_run(struct worker *w, const struct version_in *v, const struct field *chosen, int threads,
                      int64_t memory, const struct train_listener *l, struct train_result *out)
{
    const struct train_with *with = w->with;
    struct train_job job = {
        .with = with, .chosen = chosen, .dir = w->dir, .threads = threads, .memory = memory, .resume = true
    };
    TRY(version_read(w->a, v, &job));
    if (with->model.onnx.blob.n)
        TRY_AS(blob_get(w->blobs, w->a, with->model.onnx.blob, &job.onnx), "model.onnx.blob");
    attempt_before(w);
    xgb_share_cores(); /* with the server, and other jobs */
    TRY_AS(str_is(chosen->name, "trees") ? train_trees(w->a, &job, l, out)
                                         : train_network(w->a, &job, l, out),
           "training on '%.*s'", STR(with->rows));
    if (out->profile.n)
        worker_say(w, "%.*s", STR(out->profile));
    return NULL;
}
