// SPDX-License-Identifier: Apache-2.0
/* Versions: making one, and the step `register` that makes it of a training job. */
#include "registry/internal.h"

// clang-format off
#define VERSION_SQL(Q)                                                                       \
    Q(of_job, "select version from version_of_job where job_id = ?1 and model = ?2")         \
    Q(add,    "insert into version_of_job(job_id, model, version) values(?1, ?2, ?3)")
// clang-format on
SQL_TABLE(version, VERSION_SQL);

struct str version_name(struct arena *a, struct str model, int64_t number)
{
    return fmt(a, "%.*s.%lld", STR(model), (long long)number);
}

err version_load(struct store *s, struct arena *a, struct str project, struct str model, struct str version,
                 struct meta *meta, struct model_version_spec *spec, struct model_version_status *status)
{
    TRY(resource_get(s, a, &model_version_resource, project, version, meta, spec, status));
    if (!str_eq(spec->model, model))
        FAIL(INVALID, "'%.*s' is a version of model '%.*s', not of '%.*s'", STR(version), STR(spec->model),
             STR(model));
    return NULL;
}

err registry_event(struct tx *tx, struct str who, const struct resource *res, struct str project,
                   struct str name, const char *type, struct str data)
{
    struct event ev = { .type = str_of(type),
                        .kind = str_of(res->kind),
                        .project = project,
                        .name = name,
                        .who = who,
                        .data = data };
    return event_append(tx, &ev, NULL);
}

/* The number after the newest that there is or was. */
static err number_next(struct tx *tx, struct arena *a, struct str project, struct str model, int64_t last,
                       int64_t *out)
{
    for (int64_t n = last + 1;; n++) {
        struct object o;
        err e = object_get_tx(tx, a, str_of(model_version_resource.kind), project, version_name(a, model, n),
                              &o);
        if (e && e->code != NOT_FOUND)
            return e;
        if (!e) /* left over from a model of this name that was deleted */
            continue;
        *out = n;
        return NULL;
    }
}

err version_create(struct tx *tx, struct str who, struct str project, struct str model, int64_t job_id,
                   struct model_version_spec *spec, struct str *name)
{
    struct arena *a = tx_arena(tx);
    struct model_spec m;
    struct model_status status;
    TRY(resource_get_tx(tx, a, &model_resource, project, model, NULL, &m, &status));
    spec->model = model;
    TRY(number_next(tx, a, project, model, status.versions, &spec->number));
    *name = version_name(a, model, spec->number);
    TRY(resource_create_tx(tx, a, &model_version_resource, who, project, *name, spec));
    struct str ref = fmt(a, "ModelVersion/%.*s", STR(*name));
    TRY(data_lineage_add(tx, project, ref, spec->inputs.v, spec->inputs.n));
    if (job_id)
        TRY(tx_exec(tx, version_sql.add, BIND(B_I(job_id), B_S(model), B_S(*name)), NULL));
    status.latest = *name;
    status.versions = spec->number;
    return resource_status_tx(tx, a, &model_resource, project, model, -1, &status);
}

/* ---- signatures ---- */

static void tensors_write(struct json *j, const char *key, const struct tensor_spec *v, size_t n)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kstr(j, "name", v[i].name);
        json_kstr(j, "type", tensor_protocol_name(v[i].type));
        json_key(j, S("shape"));
        if (v[i].shaped) {
            json_arr(j);
            for (size_t d = 0; d < v[i].rank; d++)
                json_i64(j, v[i].dims[d]);
            json_arr_end(j);
        } else {
            json_null(j);
        }
        json_obj_end(j);
    }
    json_arr_end(j);
}

/* What the file itself tells in its metadata, under a key like "dhow.features": a JSON list of texts. */
static struct str names_of(struct arena *a, const struct onnx_facts *f, struct str key)
{
    for (size_t i = 0; i < f->metadata.n; i++) {
        yyjson_val *v, *item;
        size_t k, max;
        if (!str_eq(f->metadata.v[i].key, key) || json_parse(a, f->metadata.v[i].value, &v) ||
            !yyjson_is_arr(v))
            continue;
        bool texts = true;
        yyjson_arr_foreach (v, k, max, item)
            texts = texts && yyjson_is_str(item);
        if (texts)
            return f->metadata.v[i].value;
    }
    return S("[]");
}

struct str signature_text(struct arena *a, const struct onnx_facts *f)
{
    struct json j = json_new(a);
    json_obj(&j);
    tensors_write(&j, "inputs", f->inputs.v, f->inputs.n);
    tensors_write(&j, "outputs", f->outputs.v, f->outputs.n);
    json_kraw(&j, "features", names_of(a, f, S("dhow.features")));
    json_kraw(&j, "categories", names_of(a, f, S("dhow.categories")));
    json_kraw(&j, "personal", names_of(a, f, S("dhow.personal")));
    json_obj_end(&j);
    return json_get(&j);
}

/* ---- the step `register` ---- */

struct registering {
    struct str project, model, service;
    const struct meta *job;
    const struct job_spec *job_spec;
    struct model_version_spec spec;
    struct arena *a; /* of the caller, for what follows */
    struct str version;
    int64_t number;
};

static err on_text(void *arg, const struct row *row)
{
    struct registering *r = arg;
    r->version = str_dup(r->a, row_str(row, 0));
    return NULL;
}

/* "late.12" → 12 */
static int64_t number_of(struct str model, struct str version)
{
    int64_t n = 0;
    (void)str_i64(str_sub(version, model.n + 1, version.n), &n);
    return n;
}

static err run_name_version(struct tx *tx, const struct registering *r, struct str version)
{
    struct run_status status;
    struct run_spec spec;
    TRY(run_ensure(tx, r->project, r->job, r->job_spec));
    TRY(resource_get_tx(tx, tx_arena(tx), &run_resource, r->project, r->job->name, NULL, &spec, &status));
    status.version = version;
    status.metrics = r->spec.metrics;
    return resource_status_tx(tx, tx_arena(tx), &run_resource, r->project, r->job->name, -1, &status);
}

static err register_tx(struct tx *tx, void *arg)
{
    struct registering *r = arg;
    struct str name;
    err e = tx_one(tx, version_sql.of_job, BIND(B_I(r->job->id), B_S(r->model)), on_text, r);
    if (!e || e->code != NOT_FOUND)
        return e;
    TRY(version_create(tx, S("register"), r->project, r->model, r->job->id, &r->spec, &name));
    TRY(run_name_version(tx, r, name));
    r->version = str_dup(r->a, name);
    return NULL;
}

/* The bytes are there, and nothing in them is refused. */
static err onnx_inspect(struct store *s, struct arena *a, struct str sha)
{
    struct str bytes;
    struct onnx_facts facts;
    TRY_AS(blob_get(store_blobs(s), a, sha, &bytes), "reading the model");
    TRY_AS(onnx_check(a, bytes, NULL, &facts), "checking the model");
    return NULL;
}

static err register_prepare(struct job_context *c, struct registering *r, const struct train_outputs *out)
{
    struct dataset_version_spec rows;
    TRY(resource_get(c->store, c->a, &dataset_version_resource, r->project, out->rows, NULL, &rows, NULL));
    TRY(onnx_inspect(c->store, c->a, out->onnx));
    struct strs inputs = { 0 };
    push(c->a, &inputs, fmt(c->a, "DatasetVersion/%.*s", STR(out->rows)));
    push(c->a, &inputs, fmt(c->a, "Job/%.*s", STR(r->job->name)));
    r->spec = (struct model_version_spec){ .onnx = out->onnx,
                                           .native = out->native,
                                           .baseline = out->baseline,
                                           .signature = out->signature,
                                           .service = r->service.n ? r->service : rows.service,
                                           .definition = rows.definition,
                                           .inputs = inputs,
                                           .params = out->params,
                                           .metrics = out->metrics,
                                           .facts = out->facts,
                                           .code_commit = c->code_commit,
                                           .job = r->job->name };
    return NULL;
}

static err register_step(struct job_context *c, struct str project, struct str run, const void *with,
                         struct json *outputs, bool *done)
{
    (void)run;
    const struct register_with *w = with;
    struct meta job;
    struct job_spec job_spec;
    struct job_status status;
    struct train_outputs trained;
    struct registering r = { .project = project,
                             .model = w->model,
                             .service = w->service,
                             .job = &job,
                             .job_spec = &job_spec,
                             .a = c->a };
    TRY(resource_get(c->store, c->a, &job_resource, project, w->run, &job, &job_spec, &status));
    if (status.phase != JOB_SUCCEEDED)
        FAIL(CONFLICT, "job '%.*s' is %s, so it has no model to register", STR(w->run),
             job_phases[status.phase]);
    if (!str_eq(job_spec.type, str_of(train_worker.name)))
        FAIL(INVALID, "job '%.*s' is of type %.*s, not %s", STR(w->run), STR(job_spec.type),
             train_worker.name);
    TRY_AS(schema_read_text(&train_outputs_schema, c->a, S("result"), status.result, READ_LENIENT, &trained),
           "result of job '%.*s'", STR(w->run));
    err e = store_one(c->store, version_sql.of_job, BIND(B_I(job.id), B_S(w->model)), on_text, &r);
    if (e && e->code != NOT_FOUND)
        return e;
    if (e) {
        TRY(register_prepare(c, &r, &trained));
        TRY(store_write(c->store, register_tx, &r));
    }
    json_kstr(outputs, "version", r.version);
    json_ki64(outputs, "number", number_of(w->model, r.version));
    *done = true;
    return NULL;
}

const struct step_type registry_register = {
    .name = "register",
    .doc = "Makes the result of a training job a version of a model.",
    .outputs = "version: its name, such as late.3; number: 3",
    .with = &register_with_schema,
    .step = register_step,
};
