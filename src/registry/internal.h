/* registry, inside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "registry/registry.h"

enum {
    FORMER_MAX = 20,             /* champions of before that are remembered */
    MODEL_BYTES_MAX = 256 << 20, /* of an uploaded model */
    METRIC_NAME_MAX = 200,
    METRIC_BYTES_STEP = 1 << 20, /* of metrics.jsonl taken up at a time */
    METRIC_ROWS_MAX = 200000,    /* of one reply */
};

#define SQL_MEMBER(name, text) const char *name;
#define SQL_VALUE(name, text) .name = text,
#define SQL_TABLE(module, LIST) \
    static const struct {       \
        LIST(SQL_MEMBER)        \
    } module##_sql = { LIST(SQL_VALUE) }

/* "late.3" */
struct str version_name(struct arena *a, struct str model, int64_t number);
/* The version, which must be of the model: INVALID if not. meta and status may be NULL. */
err version_load(struct store *, struct arena *a, struct str project, struct str model, struct str version,
                 struct meta *meta, struct model_version_spec *spec, struct model_version_status *status);
/* The model's next version with this spec (.model, .number are set here), edges and status.latest. job_id 0:
 * not of a job. */
err version_create(struct tx *, struct str who, struct str project, struct str model, int64_t job_id,
                   struct model_version_spec *spec, struct str *name);
/* The Run of a training job, made unless it is there. */
err run_ensure(struct tx *, struct str project, const struct meta *job, const struct job_spec *spec);
/* {inputs, outputs, features} of a model's facts. */
struct str signature_text(struct arena *a, const struct onnx_facts *);
/* One event of this module about an object; data is a JSON object. */
err registry_event(struct tx *, struct str who, const struct resource *, struct str project, struct str name,
                   const char *type, struct str data);

err model_alias_action(struct api *, struct req *, struct str project, struct str name, const void *in,
                       struct json *out);
err upload_post(struct req *);
err run_metrics_get(struct req *);
struct store *trainings_store(struct trainings *);
/* A metric that a run told; what is no figure of a profile is passed over. */
void trainings_take(struct trainings *, struct str name, double value);
err metric_open(struct store *);
err metric_step(void *self, struct arena *a, const struct object *, const struct event *ev,
                int64_t *again_ms);

#define ALIAS_REQUEST(F, O, L, T)                                        \
    F(T, ENUM, alias, REQUIRED, "Which alias.", .values = model_aliases) \
    F(T, STR, version, 0, "The version it names from now on; empty: none.", .len_max = 100)
SCHEMA(alias_request, ALIAS_REQUEST);
