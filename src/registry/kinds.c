// SPDX-License-Identifier: Apache-2.0
/* The kinds Run, Model and ModelVersion, the module's tables and routes. */
#include "registry/internal.h"

const char *const version_states[] = { "candidate", "passed", "refused", NULL };
const char *const model_aliases[] = { "champion", "challenger", NULL };
SCHEMA_TABLE(run_spec, RUN_SPEC, "One training run.");
SCHEMA_TABLE(run_status, RUN_STATUS, "How it went.");
SCHEMA_TABLE(model_spec, MODEL_SPEC, "A model by name; its versions are ModelVersions.");
SCHEMA_TABLE(model_alias_names, MODEL_ALIASES, "Names for versions.");
SCHEMA_TABLE(model_status, MODEL_STATUS, "Its versions.");
SCHEMA_TABLE(model_version_spec, MODEL_VERSION_SPEC, "One trained model; nothing of it ever changes.");
SCHEMA_TABLE(gate_result, GATE_RESULT, "One bound and how it was met.");
SCHEMA_TABLE(model_version_status, MODEL_VERSION_STATUS, "Whether it passed its gates.");
SCHEMA_TABLE(register_with, REGISTER_WITH, "What the step register is given.");
SCHEMA_TABLE(evaluate_with, EVALUATE_WITH, "What the job evaluate is given.");
SCHEMA_TABLE(gate_bound, GATE_BOUND, "One bound on a metric.");
SCHEMA_TABLE(gate_with, GATE_WITH, "What the step gate is given.");
SCHEMA_TABLE(alias_request, ALIAS_REQUEST, "An alias and the version it names.");

static const struct action model_actions[] = {
    { "alias", model_alias_action, &alias_request_schema, "promote",
      "Lets champion or challenger name a version that passed its gates." },
    { 0 },
};
const struct resource registry_resources[] = {
    { .kind = "Run",
      .plural = "runs",
      .doc = "A training run: its job, parameters and metrics.",
      .spec = &run_spec_schema,
      .status = &run_status_schema,
      .verbs = V_READ | V_DELETE },
    { .kind = "Model",
      .plural = "models",
      .one = "model",
      .doc = "A model by name: its versions, which of them is champion and which is tried.",
      .spec = &model_spec_schema,
      .status = &model_status_schema,
      .verbs = V_ALL,
      .actions = model_actions },
    { .kind = "ModelVersion",
      .plural = "modelversions",
      .one = "mv",
      .doc =
          "One trained model, immutable: its bytes, its signature, what it was made from and how it was judged.",
      .spec = &model_version_spec_schema,
      .status = &model_version_status_schema,
      .verbs = V_READ | V_DELETE },
    { 0 },
};

static const char version_ddl[] = "create table if not exists version_of_job("
                                  " job_id bigint not null,"
                                  " model text not null,"
                                  " version text not null,"
                                  " primary key(job_id, model));";

err registry_open(struct store *s)
{
    TRY(store_ddl(s, "registry-version", version_ddl));
    return metric_open(s);
}

static const struct route rows[] = {
    { M_GET, "/api/v1/projects/{project}/runs/{name}/metrics", run_metrics_get, .may = "runs.read",
      .tag = "registry", .doc = "The run's metric values; ?name= for one metric." },
    { M_POST, "/api/v1/projects/{project}/models/{name}/upload", upload_post, .may = "modelversions.create",
      .body_bytes_max = MODEL_BYTES_MAX, .tag = "registry",
      .doc = "The body is an ONNX model, which becomes a version of the model." },
};

const struct route *registry_routes(struct store *s, struct arena *a)
{
    size_t n = sizeof rows / sizeof *rows;
    struct route *r = NEW_N(a, struct route, n + 1);
    for (size_t i = 0; i < n; i++) {
        r[i] = rows[i];
        r[i].self = s;
    }
    return r;
}

struct reconciler registry_reconciler(struct trainings *t)
{
    static const char *const kinds[] = { "Job", NULL };
    return (struct reconciler){ .name = "runs", .kinds = kinds, .step = metric_step, .self = t };
}
