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
    DEPLOYMENT_FAILED,
    DEPLOYMENT_IDLE,
    DEPLOYMENT_SUSPENDED
};
extern const char *const deployment_phases[];
enum traffic_state { TRAFFIC_LOADING, TRAFFIC_READY, TRAFFIC_FAILED };
extern const char *const traffic_states[];
enum rollout_state { ROLLOUT_NONE, ROLLOUT_LOADING, ROLLOUT_CANARY, ROLLOUT_DONE, ROLLOUT_FAILED };
extern const char *const rollout_states[];
enum ab_metric { AB_SHARE, AB_MEAN, AB_HIT, AB_ERROR };
extern const char *const ab_metrics[];
enum ab_better { AB_MORE, AB_LESS };
extern const char *const ab_betters[];
enum ab_decision { AB_OPEN, AB_A, AB_B, AB_EQUAL, AB_NEITHER };
extern const char *const ab_decisions[];

enum model_runtime { RUNTIME_ONNX, RUNTIME_AUTO, RUNTIME_NATIVE, RUNTIME_ENGINE, RUNTIMES };
extern const char *const model_runtimes[];
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
    F(T, BOOL, adaptive,  0, "Do not wait when, by the pace of late, nobody is expected in time; nor run together what lately was no quicker so.", .def = "true") \
    F(T, I64,  queue,     0, "Requests that may wait; more are refused with 503.", .def = "1024", .min = 1, .max = 1e6) \
    F(T, DURATION, timeout, 0, "Longest wait in the queue; 0: any.", .def = "0s", .min = 0, .max = 3.6e6)        \
    F(T, BOOL, timeout_override, 0, "A request may name its own, by the parameter timeout.", .def = "true")      \
    F(T, ENUM, timeout_action, 0, "reject: 504; delay: it waits on, behind all others.", .values = timeout_actions) \
    F(T, I64,  priorities, 0, "Levels of priority; 1 is the highest.", .def = "1", .min = 1, .max = 16)          \
    F(T, I64,  default_priority, 0, "Of requests that name none; 0: the middle.", .def = "0", .min = 0, .max = 16)
#define LIMITS_OF_ALL(F, O, L, T)                                                                                \
    F(T, F64,  per_second, 0, "Requests of all tokens in a second; 0: any.", .def = "0", .min = 0, .max = 1e9)   \
    F(T, I64,  burst,      0, "Requests that may come at once before that counts; 0: a second's.", .def = "0", .min = 0, .max = 1e9) \
    F(T, I64,  in_flight,  0, "Requests of all tokens at work at once; 0: any.", .def = "0", .min = 0, .max = 1e6)
#define LIMITS(F, O, L, T)                                                                                       \
    F(T, F64,  per_second, 0, "Requests of one token in a second; 0: any.", .def = "0", .min = 0, .max = 1e9)    \
    F(T, I64,  burst,      0, "Requests that may come at once before that counts; 0: a second's.", .def = "0", .min = 0, .max = 1e9) \
    F(T, I64,  in_flight,  0, "Requests of one token at work at once; 0: any.", .def = "0", .min = 0, .max = 1e6) \
    O(T, limits_of_all, project, 0, "What all tokens of the project may ask together, however many it has.")
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
    F(T, REF, deployment, 0, "The model, or other ensemble, that it asks.", .ref = "Deployment")                  \
    F(T, REF, features,   0, "Or the features that it looks up.", .ref = "FeatureService")                       \
    F(T, MAP, inputs,     0, "Its inputs: their name there, and the tensor's name here.", .len_max = 64)         \
    F(T, MAP, outputs,    0, "Its outputs, in the same way. That of a look-up is features.", .len_max = 64)
#define ENSEMBLE(F, O, L, T)                                                                                     \
    L(T, ensemble_step, steps, 0, "Steps; each runs once the tensors that it takes are there.", .len_max = 32)   \
    F(T, STRS, outputs, 0, "Tensors that are the answer; else all that no step takes.", .len_max = 64)
#define CANARY_STEP(F, O, L, T)                                                                                  \
    F(T, F64,      share,    REQUIRED, "Share of the requests that the challenger gets.", .min = 0, .max = 1)    \
    F(T, DURATION, time,     0, "How long the step lasts at least.", .def = "0s", .max = 3.2e10, .name = { "for", 3 }) \
    F(T, I64,      requests, 0, "Requests that the challenger answers in it at least.", .def = "0", .min = 0, .max = 1e12)
#define CANARY_ABORT(F, O, L, T)                                                                                 \
    F(T, F64,      failures, 0, "Share of failed requests above the champion's from which on the challenger goes.", .def = "0.01", .min = 0, .max = 1) \
    F(T, DURATION, p99,      0, "Time in which it answers 99 of 100 requests, else it goes; 0: not asked.", .def = "0s", .max = 3.2e10) \
    F(T, F64,      latency_ratio, 0, "The same as a multiple of the champion's; 0: not asked.", .def = "0", .min = 0, .max = 1e6) \
    F(T, STR,      monitor,  0, "It goes when the Monitor of this name says of its version that it drifted.", .is_name = true)
#define CANARY(F, O, L, T)                                                                                       \
    F(T, F64, share,    0, "Share of the requests that a challenger gets; 0: no trial.", .def = "0.1", .min = 0, .max = 1) \
    F(T, I64, requests, 0, "Requests it answers before it is champion.", .def = "1000", .min = 0, .max = 1e12)   \
    L(T, canary_step, steps, 0, "In place of share and requests: one after the other; after the last it is champion.", .len_max = 20) \
    O(T, canary_abort, abort, 0, "When it is taken back.")
#define TRAFFIC_SHARE(F, O, L, T)                                                                                \
    F(T, REF, version, REQUIRED, "The version.", .ref = "ModelVersion")                                          \
    F(T, F64, share,   REQUIRED, "Its part of the requests: this by the sum of all.", .min = 0, .max = 1e9)
#define STICKY(F, O, L, T)                                                                                       \
    F(T, STR, header, 0, "Request header whose value chooses the version.", .len_max = 64)                       \
    F(T, STR, cookie, 0, "Cookie whose value does; who has none is given one.", .len_max = 64)
#define SHADOW(F, O, L, T)                                                                                       \
    F(T, REF, version,   0, "The version that gets copies of requests.", .ref = "ModelVersion")                  \
    F(T, F64, share,     0, "Share of the requests that are copied.", .def = "1", .min = 0, .max = 1)            \
    F(T, F64, tolerance, 0, "Absolute difference of an output up to which two rows are the same.", .def = "1e-5", .min = 0, .max = 1e12)
#define AB_TEST(F, O, L, T)                                                                                      \
    F(T, REF,  a,       0, "The version that is compared with.", .ref = "ModelVersion")                          \
    F(T, REF,  b,       0, "The version that may be better.", .ref = "ModelVersion")                             \
    F(T, F64,  share,   0, "Share of the requests that b gets.", .def = "0.5", .min = 0.01, .max = 0.99)         \
    F(T, ENUM, metric,  0, "Of the outcomes: their share (0 or 1) or mean; hit: the score is over a half if the outcome is; error: (score - outcome) squared.", .values = ab_metrics) \
    F(T, ENUM, better,  0, "Which wins, more or less. Of hit it is always more, of error less.", .values = ab_betters)          \
    F(T, F64,  alpha,   0, "Chance that a difference is found where there is none, over the whole test.", .def = "0.05", .min = 1e-6, .max = 0.5) \
    F(T, F64,  min_effect, 0, "The least difference of the means that matters.", .def = "0.01", .min = 1e-12, .max = 1e12) \
    F(T, I64,  max_requests, 0, "Outcomes of both together after which the test ends without a winner; 0: never.", .def = "0", .min = 0, .max = 1e12) \
    F(T, BOOL, promote, 0, "The better version, once it is known, becomes champion and answers everything.")
#define DEPLOYMENT_SPEC(F, O, L, T)                                                                              \
    F(T, REF, model,   FROZEN | COLUMN, "The model whose champion is served.", .ref = "Model")                   \
    F(T, REF, service, COLUMN, "Feature service for requests by key; without it only tensors are taken.", .ref = "FeatureService") \
    F(T, REF, version, 0, "Serve this version alone, whatever is champion.", .ref = "ModelVersion")              \
    L(T, traffic_share, traffic, 0, "Serve these versions, whatever is champion.", .len_max = TRAFFIC_MAX)       \
    O(T, ab_test, ab_test, 0, "Serve two versions and learn which has the better outcomes.")                     \
    O(T, sticky, sticky, 0, "What makes a client meet the same version again, before the request's id.")         \
    O(T, canary, canary, 0, "How a new version is tried.")                                                       \
    O(T, request_log_spec, request_log, 0, "Requests and answers, kept as versions of a dataset.")               \
    F(T, I64, instances, 0, "Runs of its models at the same time; 0: one a core. Quick ones are not counted.", .def = "0", .min = 0, .max = 64) \
    F(T, STR, device, 0, "Where its models run: auto (the best that is there), cpu, cuda, ...", .def = "auto", .len_max = 15) \
    F(T, SIZE, device_memory, 0, "Memory of a CUDA device that the arena of one of its models may grow to; a run that needs more fails. 0: any.", .def = "0", .min = 0, .max = 1e15) \
    F(T, ENUM, runtime, 0, "What runs them: onnx: ONNX Runtime; engine: our own engine, for small networks; native: the kernel for trees as their trainer wrote them; these two once they agree with ONNX Runtime within 1e-5 on rows that are tried at each load; auto: the one of them that is surely faster, else ONNX Runtime.", .values = model_runtimes, .def = "auto") \
    F(T, DURATION, run_timeout, 0, "A run that takes longer, or than a gRPC client's deadline, is ended: 504; 0: never.", .def = "0s", .min = 0, .max = 8.64e7) \
    O(T, batching, batching, 0, "How requests wait, and run together.")                                          \
    O(T, limits, limits, 0, "What one token may ask, and all together.")                                                           \
    O(T, sequencing, sequence, 0, "Requests that belong together, in their order, with a state.")                \
    O(T, caching, cache, 0, "Answers that are kept.")                                                            \
    O(T, ensemble, ensemble, 0, "A graph of deployments and look-ups, in place of a model.")                     \
    O(T, shadow, shadow, 0, "A version that is asked the same, but never answers.")                              \
    F(T, DURATION, idle, 0, "Unload after so long without a request; the next one loads again. 0: never.", .def = "0s", .max = 3.2e10) \
    F(T, BOOL, suspended, 0, "Unloaded, and requests are refused.")                                              \
    F(T, STR, doc,     0, "What it is for.", .len_max = 2000)

#define TRAFFIC(F, O, L, T)                                                                                      \
    F(T, STR,  version,  0, "The version.")                                                                      \
    F(T, F64,  share,    0, "Share of the requests that it gets.")                                               \
    F(T, I64,  requests, 0, "Requests that reached it since the daemon started.")                          \
    F(T, I64,  failed,   0, "Requests it failed.")                                                               \
    F(T, ENUM, state,    0, "Whether it is loaded.", .values = traffic_states)                                   \
    F(T, STR,  message,  0, "Why it cannot be loaded.")                                                          \
    F(T, STR,  runtime,  0, "What runs it: onnx, native, engine or ensemble.")                                           \
    F(T, STR,  device,   0, "Where it runs.")                                                                    \
    F(T, STR,  why,      0, "Why not on a better device, or not by another runtime where that was asked for.")
#define ROLLOUT(F, O, L, T)                                                                                      \
    F(T, STR,  version,  0, "The version.")                                                                      \
    F(T, STR,  run,      0, "The pipeline run that deploys it.")                                                 \
    F(T, I64,  run_id,   0, "Later runs have greater ids.")                                                      \
    F(T, ENUM, state,    0, "Where it is.", .values = rollout_states)                                            \
    F(T, I64,  requests, 0, "Requests that reached the challenger.")                                       \
    F(T, I64,  failed,   0, "Those of them that it failed or refused.")                                                   \
    F(T, I64,  champion_requests, 0, "The same of the champion, meanwhile.")                                     \
    F(T, I64,  champion_failed,   0, "The same of the champion, meanwhile.")                                     \
    F(T, I64,  step,     0, "Step of the canary, from 1.")                                                       \
    F(T, TIME, since,    0, "Since when it is at this step.")                                                    \
    F(T, I64,  step_requests, 0, "Requests that had reached the challenger when the step began.")                \
    F(T, STR,  message,  0, "Why it failed.")                                                                    \
    F(T, BOOL, unloadable, 0, "It failed because it could not be loaded.")
#define SHADOW_STATUS(F, O, L, T)                                                                                \
    F(T, STR,  version,  0, "The version that is compared.")                                                     \
    F(T, I64,  rows,     0, "Rows compared since the daemon started.")                                           \
    F(T, I64,  differ,   0, "Those of them that differ by more than the tolerance.")                             \
    F(T, F64,  share,    0, "The same as a share.")                                                              \
    F(T, F64,  max,      0, "Greatest absolute difference.")                                                     \
    F(T, F64,  mean,     0, "Mean of the rows' greatest absolute differences.")                                  \
    F(T, STRS, worst,    0, "Ids of the rows that differ most, the worst first.", .len_max = 10)                 \
    F(T, I64,  requests, 0, "Copies that it answered.")                                                          \
    F(T, I64,  failed,   0, "Copies that it could not answer, or whose outputs are of another form.")            \
    F(T, I64,  dropped,  0, "Copies left out because too many waited.")                                          \
    F(T, F64,  took_ms,  0, "Mean time of a run.")                                                               \
    F(T, F64,  other_ms, 0, "The same of the versions that answered.")                                           \
    F(T, STR,  message,  0, "Why a copy failed last.")
#define AB_ARM(F, O, L, T)                                                                                       \
    F(T, STR,  version,  0, "The version.")                                                                      \
    F(T, I64,  n,        0, "Outcomes.")                                                                         \
    F(T, F64,  mean,     0, "Their mean.")                                                                       \
    F(T, F64,  low,      0, "It is above this.")                                                                 \
    F(T, F64,  high,     0, "It is below this.")                                                                 \
    F(T, F64,  m2,       0, "Sum of their squared deviations.")
#define AB_STATUS(F, O, L, T)                                                                                    \
    F(T, STR,  of,       0, "Fingerprint of the test in the spec: another one begins anew.")                     \
    O(T, ab_arm, a,      0, "What is compared with.")                                                            \
    O(T, ab_arm, b,      0, "What may be better.")                                                               \
    F(T, F64,  difference, 0, "Mean of b less mean of a.")                                                       \
    F(T, F64,  low,      0, "It is above this, however often one looks.")                                        \
    F(T, F64,  high,     0, "It is below this.")                                                                 \
    F(T, F64,  p,        0, "The least that the always-valid p-value was.", .def = "1")                          \
    F(T, I64,  needed,   0, "Outcomes of both together by which a difference of minEffect is found with 0.8.")   \
    F(T, I64,  unmatched, 0, "Outcomes that belong to no prediction known here.")                                \
    F(T, ENUM, decision, 0, "open, a or b (is better), equal (they differ by less than minEffect), neither (maxRequests came first).", .values = ab_decisions) \
    F(T, TIME, since,    0, "When it began.")                                                                    \
    F(T, TIME, decided,  0, "When it was decided.")
#define DEPLOYMENT_STATUS(F, O, L, T)                                                                            \
    F(T, ENUM, phase,    COLUMN, "Where it is.", .values = deployment_phases)                                    \
    F(T, STR,  version,  COLUMN, "The version that answers most requests.")                                      \
    F(T, STR,  message,  COLUMN, "What stands in the way.")                                                      \
    L(T, traffic, traffic, COLUMN, "Who answers how much. Counted every few seconds.", .len_max = 16)            \
    O(T, rollout, rollout, 0, "The latest deploy step.")                                                         \
    O(T, ab_status, ab_test, 0, "What the A/B test knows.")                                                      \
    O(T, shadow_status, shadow, 0, "What the shadow's answers are like.")                                        \
    F(T, I64, cold_starts, 0, "Times that a request woke it since the daemon started.")                          \
    F(T, F64, cold_start_ms, 0, "How long the last such request took, from its arrival to its answer.")
// clang-format on
SCHEMA(request_log_spec, REQUEST_LOG);
enum { TRAFFIC_MAX = 6 }; /* versions of spec.traffic; a shadow and one that stands by come on top */
SCHEMA(canary_step, CANARY_STEP);
SCHEMA(canary_abort, CANARY_ABORT);
SCHEMA(canary, CANARY);
SCHEMA(batching, BATCHING);
SCHEMA(limits_of_all, LIMITS_OF_ALL);
SCHEMA(limits, LIMITS);
SCHEMA(sequence_control, SEQUENCE_CONTROL);
SCHEMA(sequence_state, SEQUENCE_STATE);
SCHEMA(sequencing, SEQUENCING);
SCHEMA(caching, CACHING);
SCHEMA(ensemble_step, ENSEMBLE_STEP);
SCHEMA(ensemble, ENSEMBLE);
SCHEMA(traffic_share, TRAFFIC_SHARE);
SCHEMA(sticky, STICKY);
SCHEMA(shadow, SHADOW);
SCHEMA(ab_test, AB_TEST);
SCHEMA(deployment_spec, DEPLOYMENT_SPEC);
SCHEMA(traffic, TRAFFIC);
SCHEMA(rollout, ROLLOUT);
SCHEMA(shadow_status, SHADOW_STATUS);
SCHEMA(ab_arm, AB_ARM);
SCHEMA(ab_status, AB_STATUS);
SCHEMA(deployment_status, DEPLOYMENT_STATUS);

/* Ended by {0}. */
extern const struct resource serve_resources[];
#define deployment_resource (serve_resources[0])
