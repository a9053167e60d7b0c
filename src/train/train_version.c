// SPDX-License-Identifier: Apache-2.0
/* The job `train` for networks: a version of a training set → the trainer → blobs. */
#include "train/internal.h"
#include "train/trainer.h"

#include <unistd.h>

/* Files and roles of the version's columns. */
static err version_read(struct worker *w, struct train_job *job)
{
    struct version_in v;
    struct train_source *files;
    TRY(version_get(w->blobs, w->a, yyjson_obj_get(w->spec, "rows"), &v));
    const struct version_column *c = v.spec.columns.v;
    for (size_t i = 0; i < v.spec.columns.n; i++) {
        if (c[i].role == IS_FEATURE && str_eq(c[i].type, str_of(column_type_names[COL_STR])))
            push(w->a, &job->texts, c[i].name);
        else if (c[i].role == IS_FEATURE)
            push(w->a, &job->features, c[i].name);
        else if (c[i].role == IS_LABEL)
            job->label = c[i].name;
        else if (c[i].role == IS_EVENT_TIME)
            job->at = c[i].name;
        else if (c[i].role == IS_KNOWN_AT)
            job->known = c[i].name;
    }
    if (!job->label.n || !(job->features.n + job->texts.n) || !job->at.n)
        return err_hint(err_new(INVALID, "'%.*s' has no %s column", STR(v.name),
                                !job->label.n ? "label"
                                : !job->at.n  ? "event time"
                                              : "feature"),
                        "train on a version of a TrainingSet");
    job->until = v.spec.until;
    files = NEW_N(w->a, struct train_source, v.paths.n + 1);
    for (size_t i = 0; i < v.paths.n; i++)
        files[i] = (struct train_source){ .path = v.paths.v[i], .format = 1 /* parquet */ };
    job->files = files;
    job->n_files = v.paths.n;
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

err train_net_run(struct worker *w, const struct field *chosen, int threads, int64_t memory,
                  const struct train_listener *l, struct train_result *out)
{
    const struct train_with *with = w->with;
    struct train_job job = {
        .with = with, .chosen = chosen, .dir = w->dir, .threads = threads, .memory = memory, .resume = true
    };
    TRY(version_read(w, &job));
    if (with->model.onnx.blob.n)
        TRY_AS(blob_get(w->blobs, w->a, with->model.onnx.blob, &job.onnx), "model.onnx.blob");
    attempt_before(w);
    TRY_AS(train_network(w->a, &job, l, out), "training on '%.*s'", STR(with->rows));
    struct json j = json_new(w->a);
    json_obj(&j);
    json_kstr(&j, "from", time_text(w->a, out->from));
    json_kstr(&j, "split", time_text(w->a, out->split));
    json_kstr(&j, "until", time_text(w->a, out->until));
    json_obj_end(&j);
    out->facts = fmt(w->a, "%.*s,%.*s", STR(str_sub(out->facts, 0, out->facts.n - 1)),
                     STR(str_sub(json_get(&j), 1, json_get(&j).n)));
    if (out->profile.n)
        worker_say(w, "%.*s", STR(out->profile));
    return NULL;
}
