/* The kind that serve owns: Deployment. Included by serve.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "schema/schema.h"

enum deployment_phase {
    DEPLOYMENT_WAITING,
    DEPLOYMENT_LOADING,
    DEPLOYMENT_SERVING,
    DEPLOYMENT_CANARY,
    DEPLOYMENT_FAILED
};
extern const char *const deployment_phases[];
enum traffic_state { TRAFFIC_LOADING, TRAFFIC_READY, TRAFFIC_FAILED };
extern const char *const traffic_states[];
enum rollout_state { ROLLOUT_NONE, ROLLOUT_LOADING, ROLLOUT_CANARY, ROLLOUT_DONE, ROLLOUT_FAILED };
extern const char *const rollout_states[];

enum redaction { REDACT_NULL, REDACT_HASH };
extern const char *const redactions[];

// clang-format off
#define REQUEST_LOG(F, O, L, T)                                                                                  \
    F(T, F64,  share,        0, "Share of the requests that is kept, chosen by a hash of the request's id; 0: none.", .def = "0", .min = 0, .max = 1) \
    F(T, STR,  dataset,      0, "Dataset that gets the versions, made if it is not there; empty: NAME-requests.", .len_max = 55) \
    F(T, DURATION, rotate_every, 0, "After so long rows become a version.", .def = "10m", .min = 1000, .max = 1e10) \
    F(T, SIZE, rotate_bytes, 0, "And after so many bytes of rows, before they are compressed.", .def = "64Mi", .min = 65536, .max = 1e11) \
    F(T, DURATION, keep,     0, "Versions older than this are removed; 0: none.", .def = "30d", .min = 0, .max = 1e13) \
    F(T, STRS, personal,     0, "Features, inputs or outputs that are personal, beside those that the version's signature names.", .len_max = 2000) \
    F(T, ENUM, redact,       0, "What stands for a personal value: nothing, or a hash with this installation's key.", .values = redactions, .def = "null")
#define CANARY(F, O, L, T)                                                                                       \
    F(T, F64, share,    0, "Share of the requests that a challenger gets; 0: no trial.", .def = "0.1", .min = 0, .max = 1) \
    F(T, I64, requests, 0, "Requests it answers before it is champion.", .def = "1000", .min = 0, .max = 1e12)
#define DEPLOYMENT_SPEC(F, O, L, T)                                                                              \
    F(T, REF, model,   REQUIRED | FROZEN | COLUMN, "The model whose champion is served.", .ref = "Model")        \
    F(T, REF, service, COLUMN, "Feature service for requests by key; without it only tensors are taken.", .ref = "FeatureService") \
    F(T, REF, version, 0, "Serve this version alone, whatever is champion.", .ref = "ModelVersion")              \
    O(T, canary, canary, 0, "How a new version is tried.")                                                       \
    O(T, request_log_spec, request_log, 0, "Requests and answers, kept as versions of a dataset.")               \
    F(T, STR, doc,     0, "What it is for.", .len_max = 2000)

#define TRAFFIC(F, O, L, T)                                                                                      \
    F(T, STR,  version,  0, "The version.")                                                                      \
    F(T, F64,  share,    0, "Share of the requests that it gets.")                                               \
    F(T, I64,  requests, 0, "Requests that reached it since the daemon started.")                          \
    F(T, I64,  failed,   0, "Requests it failed.")                                                               \
    F(T, ENUM, state,    0, "Whether it is loaded.", .values = traffic_states)                                   \
    F(T, STR,  message,  0, "Why it cannot be loaded.")
#define ROLLOUT(F, O, L, T)                                                                                      \
    F(T, STR,  version,  0, "The version.")                                                                      \
    F(T, STR,  run,      0, "The pipeline run that deploys it.")                                                 \
    F(T, I64,  run_id,   0, "Later runs have greater ids.")                                                      \
    F(T, ENUM, state,    0, "Where it is.", .values = rollout_states)                                            \
    F(T, I64,  requests, 0, "Requests that reached the challenger.")                                       \
    F(T, I64,  failed,   0, "Those of them that it failed or refused.")                                                   \
    F(T, I64,  champion_requests, 0, "The same of the champion, meanwhile.")                                     \
    F(T, I64,  champion_failed,   0, "The same of the champion, meanwhile.")                                     \
    F(T, STR,  message,  0, "Why it failed.")                                                                    \
    F(T, BOOL, unloadable, 0, "It failed because it could not be loaded.")
#define DEPLOYMENT_STATUS(F, O, L, T)                                                                            \
    F(T, ENUM, phase,    COLUMN, "Where it is.", .values = deployment_phases)                                    \
    F(T, STR,  version,  COLUMN, "The version that answers most requests.")                                      \
    F(T, STR,  message,  COLUMN, "What stands in the way.")                                                      \
    L(T, traffic, traffic, 0, "Who answers how much. Counted every few seconds.", .len_max = 10)                 \
    O(T, rollout, rollout, 0, "The latest deploy step.")
// clang-format on
SCHEMA(request_log_spec, REQUEST_LOG);
SCHEMA(canary, CANARY);
SCHEMA(deployment_spec, DEPLOYMENT_SPEC);
SCHEMA(traffic, TRAFFIC);
SCHEMA(rollout, ROLLOUT);
SCHEMA(deployment_status, DEPLOYMENT_STATUS);

/* Ended by {0}. */
extern const struct resource serve_resources[];
#define deployment_resource (serve_resources[0])
