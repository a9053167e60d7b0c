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
enum timeout_action { TIMEOUT_REJECT, TIMEOUT_DELAY };
extern const char *const timeout_actions[];
enum sequence_control_kind { CONTROL_START, CONTROL_READY, CONTROL_END, CONTROL_ID };
extern const char *const sequence_control_kinds[];

// clang-format off
#define REQUEST_LOG(F, O, L, T)                                                                                  \
    F(T, F64,  share,        0, "Share of the requests that is kept, chosen by a hash of the request's id; 0: none.", .def = "0", .min = 0, .max = 1) \
    F(T, STR,  dataset,      0, "Dataset that gets the versions, made if it is not there; empty: NAME-requests.", .len_max = 55) \
    F(T, DURATION, rotate_every, 0, "After so long rows become a version.", .def = "10m", .min = 1000, .max = 1e10) \
    F(T, SIZE, rotate_bytes, 0, "And after so many bytes of rows, before they are compressed.", .def = "64Mi", .min = 65536, .max = 1e11) \
    F(T, DURATION, keep,     0, "Versions older than this are removed; 0: none.", .def = "30d", .min = 0, .max = 1e13) \
    F(T, STRS, personal,     0, "Features, inputs or outputs that are personal, beside those that the version's signature names.", .len_max = 2000) \
    F(T, ENUM, redact,       0, "What stands for a personal value: nothing, or a hash with this installation's key.", .values = redactions, .def = "null")
#define BATCHING(F, O, L, T)                                                                                     \
    F(T, I64,  max_batch, 0, "Rows that one run takes of several requests; 0 or 1: each request runs by itself.", .def = "0", .min = 0, .max = 65536) \
    F(T, JSON, preferred, 0, "Sizes at which a batch runs without waiting for more, as [8, 16].", .len_max = 1000) \
    F(T, I64,  delay_us,  0, "Longest wait for more rows, in microseconds.", .def = "0", .min = 0, .max = 1e7)   \
    F(T, BOOL, adaptive,  0, "Do not wait when, by the pace of late, nobody is expected in time.", .def = "true") \
    F(T, I64,  queue,     0, "Requests that may wait; more are refused with 503.", .def = "1024", .min = 1, .max = 1e6) \
    F(T, DURATION, timeout, 0, "Longest wait in the queue; 0: any.", .def = "0s", .min = 0, .max = 3.6e6)        \
    F(T, BOOL, timeout_override, 0, "A request may name its own, by the parameter timeout.", .def = "true")      \
    F(T, ENUM, timeout_action, 0, "reject: 504; delay: it waits on, behind all others.", .values = timeout_actions) \
    F(T, I64,  priorities, 0, "Levels of priority; 1 is the highest.", .def = "1", .min = 1, .max = 16)          \
    F(T, I64,  default_priority, 0, "Of requests that name none; 0: the middle.", .def = "0", .min = 0, .max = 16)
#define LIMITS(F, O, L, T)                                                                                       \
    F(T, F64,  per_second, 0, "Requests of one token in a second; 0: any.", .def = "0", .min = 0, .max = 1e9)    \
    F(T, I64,  burst,      0, "Requests that may come at once before that counts; 0: a second's.", .def = "0", .min = 0, .max = 1e9) \
    F(T, I64,  in_flight,  0, "Requests of one token at work at once; 0: any.", .def = "0", .min = 0, .max = 1e6)
#define SEQUENCE_CONTROL(F, O, L, T)                                                                             \
    F(T, STR,  input, REQUIRED, "Input of the model that it fills.", .len_max = 256)                             \
    F(T, ENUM, kind,  REQUIRED, "start, end: 1 in such a request, else 0; ready: 1; id: the sequence's.", .values = sequence_control_kinds)
#define SEQUENCE_STATE(F, O, L, T)                                                                               \
    F(T, STR, input,  REQUIRED, "Input that gets the state, zeros at first.", .len_max = 256)                    \
    F(T, STR, output, REQUIRED, "Output that is the next state.", .len_max = 256)
#define SEQUENCING(F, O, L, T)                                                                                   \
    F(T, I64,  max_sequences, 0, "Sequences at once; 0: requests belong to none.", .def = "0", .min = 0, .max = 1e6) \
    F(T, DURATION, idle, 0, "After so long without a request a sequence may be forgotten.", .def = "1m", .min = 1, .max = 8.64e7) \
    L(T, sequence_control, controls, 0, "Inputs that tell the model where in its sequence a request is.", .len_max = 16) \
    L(T, sequence_state, state, 0, "What is kept from one request of a sequence to the next.", .len_max = 32)
#define CACHING(F, O, L, T)                                                                                      \
    F(T, SIZE, size, 0, "Memory for answers that are given again to the same question; 0: none.", .def = "0", .min = 0, .max = 1e12) \
    F(T, DURATION, ttl, 0, "How long an answer is good; 0: as long as its version.", .def = "0s", .min = 0, .max = 8.64e7)
#define ENSEMBLE_STEP(F, O, L, T)                                                                                \
    F(T, STR, name,       0, "In errors; else its place.", .is_name = true)                                      \
    F(T, REF, deployment, 0, "The model that it asks.", .ref = "Deployment")                                     \
    F(T, REF, features,   0, "Or the features that it looks up.", .ref = "FeatureService")                       \
    F(T, MAP, inputs,     0, "Its inputs: their name there, and the tensor's name here.", .len_max = 64)         \
    F(T, MAP, outputs,    0, "Its outputs, in the same way. That of a look-up is features.", .len_max = 64)
#define ENSEMBLE(F, O, L, T)                                                                                     \
    L(T, ensemble_step, steps, 0, "Steps; each runs once the tensors that it takes are there.", .len_max = 32)   \
    F(T, STRS, outputs, 0, "Tensors that are the answer; else all that no step takes.", .len_max = 64)
#define CANARY(F, O, L, T)                                                                                       \
    F(T, F64, share,    0, "Share of the requests that a challenger gets; 0: no trial.", .def = "0.1", .min = 0, .max = 1) \
    F(T, I64, requests, 0, "Requests it answers before it is champion.", .def = "1000", .min = 0, .max = 1e12)
#define DEPLOYMENT_SPEC(F, O, L, T)                                                                              \
    F(T, REF, model,   FROZEN | COLUMN, "The model whose champion is served.", .ref = "Model")                   \
    F(T, REF, service, COLUMN, "Feature service for requests by key; without it only tensors are taken.", .ref = "FeatureService") \
    F(T, REF, version, 0, "Serve this version alone, whatever is champion.", .ref = "ModelVersion")              \
    O(T, canary, canary, 0, "How a new version is tried.")                                                       \
    O(T, request_log_spec, request_log, 0, "Requests and answers, kept as versions of a dataset.")               \
    F(T, I64, instances, 0, "Runs of its models at the same time; 0: one a core. Quick ones are not counted.", .def = "0", .min = 0, .max = 64) \
    F(T, DURATION, run_timeout, 0, "A run that takes longer is ended: 504; 0: never.", .def = "0s", .min = 0, .max = 8.64e7) \
    O(T, batching, batching, 0, "How requests wait, and run together.")                                          \
    O(T, limits, limits, 0, "What one token may ask.")                                                           \
    O(T, sequencing, sequence, 0, "Requests that belong together, in their order, with a state.")                \
    O(T, caching, cache, 0, "Answers that are kept.")                                                            \
    O(T, ensemble, ensemble, 0, "A graph of deployments and look-ups, in place of a model.")                     \
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
SCHEMA(batching, BATCHING);
SCHEMA(limits, LIMITS);
SCHEMA(sequence_control, SEQUENCE_CONTROL);
SCHEMA(sequence_state, SEQUENCE_STATE);
SCHEMA(sequencing, SEQUENCING);
SCHEMA(caching, CACHING);
SCHEMA(ensemble_step, ENSEMBLE_STEP);
SCHEMA(ensemble, ENSEMBLE);
SCHEMA(deployment_spec, DEPLOYMENT_SPEC);
SCHEMA(traffic, TRAFFIC);
SCHEMA(rollout, ROLLOUT);
SCHEMA(deployment_status, DEPLOYMENT_STATUS);

/* Ended by {0}. */
extern const struct resource serve_resources[];
#define deployment_resource (serve_resources[0])
