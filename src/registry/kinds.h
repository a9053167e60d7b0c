/* The kinds that registry owns: Run, Model, ModelVersion. One row per field: the row is the struct member, the
 * JSON key, the check and the doc line. Included by registry.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "schema/schema.h"

enum version_state { VERSION_CANDIDATE, VERSION_PASSED, VERSION_REFUSED };
extern const char *const version_states[];

// clang-format off
#define RUN_SPEC(F, O, L, T)                                                                                     \
    F(T, STR,  job,        FROZEN | COLUMN, "The job that ran it.", .len_max = 64)                               \
    F(T, STR,  experiment, COLUMN, "What it belongs to.", .len_max = 200)                                        \
    F(T, JSON, params,     0, "Its parameters.")                                                                 \
    F(T, STRS, inputs,     0, "Refs of what it learned from.")
#define RUN_STATUS(F, O, L, T)                                                                                   \
    F(T, STR,  phase,    COLUMN, "Where its job is.", .len_max = 32)                                             \
    F(T, JSON, metrics,  0, "Last value of each metric.")                                                        \
    F(T, I64,  steps,    0, "Metric values kept, GET …/metrics.")                                                \
    F(T, STR,  version,  COLUMN, "The model version made of it.", .len_max = 100)

#define MODEL_SPEC(F, O, L, T)                                                                                   \
    F(T, STR, doc, 0, "What it is for.", .len_max = 2000)
#define MODEL_ALIASES(F, O, L, T)                                                                                \
    F(T, STR, champion,   COLUMN, "The version that is served.")                                                 \
    F(T, STR, challenger, COLUMN, "The version that is tried on a share of the traffic.")
#define MODEL_STATUS(F, O, L, T)                                                                                 \
    O(T, model_alias_names, aliases, 0, "Names for versions that passed.")                                       \
    F(T, STRS, former,   0, "Champions of before, the latest first; at most 20.")                                \
    F(T, STR,  latest,   COLUMN, "Newest version.")                                                              \
    F(T, I64,  versions, COLUMN, "Versions made so far.")

#define MODEL_VERSION_SPEC(F, O, L, T)                                                                           \
    F(T, REF,  model,       REQUIRED | FROZEN | COLUMN, "The model.", .ref = "Model")                            \
    F(T, I64,  number,      FROZEN, "Its number, from 1.")                                                       \
    F(T, STR,  onnx,        FROZEN, "Blob: the model.", .len_max = 64)                                           \
    F(T, STR,  native,      FROZEN, "Blob: the model as its trainer wrote it; empty for uploads.", .len_max = 64) \
    F(T, STR,  baseline,    FROZEN, "Blob: baseline.json of the training rows; empty for uploads.", .len_max = 64) \
    F(T, JSON, signature,   FROZEN, "{inputs, outputs: [{name, type, shape}], features: [names in order], personal: [names]}.") \
    F(T, STR,  service,     FROZEN | COLUMN, "The feature service whose features it wants.", .len_max = 64)      \
    F(T, JSON, definition,  FROZEN, "Those features as they were defined for its training rows.")                \
    F(T, STRS, inputs,      FROZEN, "Refs of what it was made from.")                                            \
    F(T, JSON, params,      FROZEN, "Parameters of its training.")                                               \
    F(T, JSON, metrics,     FROZEN, "Metrics of its training.")                                                  \
    F(T, JSON, facts,       FROZEN, "How its training went; for uploads: producer, opset, nodes.")               \
    F(T, STR,  code_commit, FROZEN, "Commit of the code that made it.", .len_max = 200)                          \
    F(T, STR,  job,         FROZEN | COLUMN, "The job that made it; empty for uploads.", .len_max = 64)
#define GATE_RESULT(F, O, L, T)                                                                                  \
    F(T, STR,  metric,   0, "The metric.")                                                                       \
    F(T, STR,  bound,    0, "min 0.7, max 0.85, championWithin 0.005.")                                          \
    F(T, F64,  value,    0, "What was measured; nothing if it was not.")                                         \
    F(T, F64,  champion, 0, "The champion's value on the same rows.")                                            \
    F(T, BOOL, ok,       0, "It holds.")
#define MODEL_VERSION_STATUS(F, O, L, T)                                                                         \
    F(T, ENUM, state,      COLUMN, "Whether it may be served.", .values = version_states)                        \
    F(T, STR,  message,    0, "Why it was refused.")                                                             \
    L(T, gate_result, gates, 0, "How it was judged.", .len_max = 300)                                            \
    F(T, JSON, evaluation, 0, "The metrics it was judged by.")                                                   \
    F(T, TIME, judged_at,  0, "When.")
// clang-format on
SCHEMA(run_spec, RUN_SPEC);
SCHEMA(run_status, RUN_STATUS);
SCHEMA(model_spec, MODEL_SPEC);
SCHEMA(model_alias_names, MODEL_ALIASES);
SCHEMA(model_status, MODEL_STATUS);
SCHEMA(model_version_spec, MODEL_VERSION_SPEC);
SCHEMA(gate_result, GATE_RESULT);
SCHEMA(model_version_status, MODEL_VERSION_STATUS);

/* Ended by {0}; the rows by name below. */
extern const struct resource registry_resources[];
#define run_resource (registry_resources[0])
#define model_resource (registry_resources[1])
#define model_version_resource (registry_resources[2])
