/* help: a trained job as registry finds it: a model whose score is a step of its first feature, and its result. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/lab.h"
#include "registry/registry.h"

/* x < at → low, else high; two features "a" and "b"; a logistic link. */
static inline struct str step_model(struct arena *a, float at, float low, float high)
{
    struct tree_node nodes[] = { { .feature = 0, .value = at, .yes = 1, .no = 2, .missing_yes = true },
                                 { .feature = -1, .value = low },
                                 { .feature = -1, .value = high } };
    struct trees t = { .features = 2,
                       .link = LINK_LOGISTIC,
                       .nodes = nodes,
                       .n_nodes = 3,
                       .roots = (uint32_t[]){ 0 },
                       .n_trees = 1 };
    struct str onnx;
    CHECK_OK(
        trees_to_onnx(&t, a, &(struct trees_doc){ .features = (struct str[]){ S("a"), S("b") } }, &onnx));
    return onnx;
}

#define SIGNATURE \
    "{\"inputs\":[{\"name\":\"features\",\"type\":\"FP32\",\"shape\":[-1,2]}],\"features\":[\"a\",\"b\"]}"

static inline struct lab shop_open(void)
{
    struct lab l = lab_open();
    CHECK_OK(registry_open(l.store));
    CHECK_OK(lab_apply(&l, registry_resources,
                       "kind: Model\nmetadata: {name: late}\nspec: {doc: Late or not.}\n"));
    struct dataset_version_spec rows = { .of = S("TrainingSet/late_rows"),
                                         .number = 1,
                                         .service = S("late_features"),
                                         .definition = S("{\"views\":[]}") };
    CHECK_OK(resource_create(l.store, l.a, &dataset_version_resource, S("t"), S("default"), S("late_rows.1"),
                             &rows));
    return l;
}

/* A job of type train that succeeded with these bytes. */
static inline void trained_job(struct lab *l, const char *name, struct str onnx)
{
    struct job_spec spec;
    struct job_status status = { .phase = JOB_SUCCEEDED, .attempts = 1 };
    struct train_outputs out = { .rows = S("late_rows.1"),
                                 .native = S(""),
                                 .baseline = S(""),
                                 .signature = S(SIGNATURE),
                                 .params = S("{\"depth\":3}"),
                                 .metrics = S("{\"auc\":0.7}"),
                                 .facts = S("{}") };
    schema_defaults(&job_spec_schema, l->a, &spec);
    spec.type = S("train");
    spec.with = S("{\"rows\":\"late_rows.1\",\"holdout\":\"1d\"}");
    CHECK_OK(blob_put(store_blobs(l->store), l->a, onnx, &out.onnx));
    CHECK_OK(blob_put(store_blobs(l->store), l->a, S("native"), &out.native));
    CHECK_OK(blob_put(store_blobs(l->store), l->a, S("baseline"), &out.baseline));
    status.result = schema_text(&train_outputs_schema, l->a, &out, 0);
    CHECK_OK(resource_create(l->store, l->a, &job_resource, S("t"), S("default"), str_of(name), &spec));
    CHECK_OK(resource_status(l->store, l->a, &job_resource, S("default"), str_of(name), -1, &status));
}

/* One call of a step; *done as it says. outputs: JSON text. */
static inline err step_call(struct lab *l, const struct step_type *t, const char *run, const char *with,
                            struct str *outputs, bool *done)
{
    struct job_context c = { .store = l->store, .a = l->a, .code_commit = S("c0ffee") };
    void *w = arena_alloc(l->a, t->with->size, 16);
    struct json j = json_new(l->a);
    *done = false;
    TRY(schema_read_text(t->with, l->a, S("with"), str_of(with), 0, w));
    json_obj(&j);
    TRY(t->step(&c, S("default"), str_of(run), w, &j, done));
    json_obj_end(&j);
    *outputs = json_get(&j);
    return NULL;
}

/* late.N of a job of its own, judged as passed if so wished. */
static inline void version_made(struct lab *l, int n, struct str onnx, bool passed)
{
    const char *job = fmtz(l->a, "train-%d", n);
    struct str out;
    bool done;
    trained_job(l, job, onnx);
    CHECK_OK(step_call(l, &registry_register, "run-1", fmtz(l->a, "{\"model\":\"late\",\"run\":\"%s\"}", job),
                       &out, &done));
    CHECK(done);
    CHECK_STR(out, fmtz(l->a, "{\"version\":\"late.%d\",\"number\":%d}", n, n));
    if (passed)
        CHECK_OK(step_call(l, &registry_gate, "run-1",
                           fmtz(l->a,
                                "{\"model\":\"late\",\"version\":\"late.%d\",\"metrics\":{\"auc\":0.7},"
                                "\"bounds\":[{\"metric\":\"auc\",\"min\":0.5}]}",
                                n),
                           &out, &done));
}

struct alias_call {
    enum model_alias alias;
    const char *version;
};
static inline err alias_call_run(struct tx *tx, void *arg)
{
    const struct alias_call *c = arg;
    return registry_alias_set(tx, S("ann"), S("default"), S("late"), c->alias, str_of(c->version));
}
static inline err alias_set(struct lab *l, enum model_alias alias, const char *version)
{
    return store_write(l->store, alias_call_run, &(struct alias_call){ alias, version });
}
static inline struct model_status model_now(struct lab *l)
{
    struct model_spec spec;
    struct model_status status;
    CHECK_OK(resource_get(l->store, l->a, &model_resource, S("default"), S("late"), NULL, &spec, &status));
    return status;
}
static inline struct model_version_status version_now(struct lab *l, const char *name,
                                                      struct model_version_spec *spec)
{
    struct model_version_status status;
    CHECK_OK(resource_get(l->store, l->a, &model_version_resource, S("default"), str_of(name), NULL, spec,
                          &status));
    return status;
}
