/* registry: every training run, every model version, and which of them may be served.
 * Flow     Job of type train --register--> ModelVersion (candidate) --evaluate, gate--> passed | refused
 *          --alias champion, challenger--> serve.
 * Owns     kinds Run, Model, ModelVersion; tables metric, metric_cursor, version_of_job; step types `register` and
 *          `gate`; worker type `evaluate`.
 * Rules    a version never changes, only its status does; an alias names a version that passed its gates; a job
 *          gives a model one version, however often it is registered.
 * Threads  any; each call is one transaction, or joins the caller's.
 * Errors   NOT_FOUND, CONFLICT (not passed, not of this model), GATE (a bound does not hold), INVALID and TOO_LARGE
 *          (a foreign model that onnx_check refuses). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"
#include "registry/kinds.h"
#include "train/train.h"

/* Tables of this module; before the first job or request. */
err registry_open(struct store *);
/* GET …/runs/{name}/metrics, POST …/models/{name}/upload: .self is the store. */
const struct route *registry_routes(struct store *, struct arena *a);
/* How fast the last trainings were (trainings.c): lives in a. */
struct trainings;
struct trainings *trainings_new(struct arena *a, struct store *);
void trainings_metrics(void *trainings, struct buf *out); /* for api_metrics_add */
/* Watches Jobs: a Run for each training job, metric rows from its metrics.jsonl while it runs and at its end. */
struct reconciler registry_reconciler(struct trainings *);

// clang-format off
#define REGISTER_WITH(F, O, L, T)                                                                                \
    F(T, REF, model,   REQUIRED, "The model that gets a version.", .ref = "Model")                               \
    F(T, REF, run,     REQUIRED, "The training job whose result it is.", .ref = "Job")                           \
    F(T, STR, service, 0, "Feature service it wants; else the one of the rows it learned from.", .len_max = 64)
SCHEMA(register_with, REGISTER_WITH);

#define EVALUATE_WITH(F, O, L, T)                                                                                \
    F(T, REF,      model,       REQUIRED, "The model.", .ref = "Model")                                          \
    F(T, REF,      version,     REQUIRED, "The version to judge; the champion is judged beside it.", .ref = "ModelVersion") \
    F(T, REF,      rows,        REQUIRED, "The training set's version to judge it on.", .ref = "DatasetVersion") \
    F(T, DURATION, holdout,     0, "Only the rows that training with this holdout held out.", .def = "0s", .min = 0, .max = 1e12) \
    F(T, TIME,     from,        0, "Only rows from this event time on.")                                         \
    F(T, TIME,     until,       0, "Only rows before this event time.")                                          \
    F(T, I64,      parity_rows, 0, "Rows on which the exported model is compared with the trained one; 0: none.", .def = "0", .min = 0, .max = 1e8)
SCHEMA(evaluate_with, EVALUATE_WITH);

#define GATE_BOUND(F, O, L, T)                                                                                   \
    F(T, STR, metric,          REQUIRED, "Name of the metric, such as auc, f1 or rmse.", .len_max = 64)                      \
    F(T, F64, min,             0, "Least value.")                                                                \
    F(T, F64, max,             0, "Greatest value.")                                                             \
    F(T, F64, champion_within, 0, "By how much it may be worse than the champion on the same rows.", .min = 0, .max = 1e12)
SCHEMA(gate_bound, GATE_BOUND);
#define GATE_WITH(F, O, L, T)                                                                                    \
    F(T, REF,  model,   REQUIRED, "The model.", .ref = "Model")                                                  \
    F(T, REF,  version, REQUIRED, "The version that is judged.", .ref = "ModelVersion")                          \
    F(T, JSON, metrics, REQUIRED, "What evaluate measured: {auc or rmse, …, champion: {…} or null}.")               \
    L(T, gate_bound, bounds, REQUIRED, "All of them must hold.", .len_max = 100)
SCHEMA(gate_with, GATE_WITH);
// clang-format on
/* Outputs: version (late.3), number (3). */
extern const struct step_type registry_register;
/* Outputs: passed. Appends event modelversion.passed or modelversion.refused; a refusal is a GATE error that names
 * every bound that does not hold. */
extern const struct step_type registry_gate;
/* Outputs: metrics, a JSON text of the measures (engine/stream_metrics.h) that such labels have: 0 and 1, classes 0, 1, … of a model
 * with so many numbers a row, or numbers; and rows, parityMaxAbs (null without native model), parityRows, champion: {the same,
 * version} or null. */
extern const struct worker_type registry_evaluate;

/* ---- aliases ---- */
enum model_alias { ALIAS_CHAMPION, ALIAS_CHALLENGER, ALIAS_COUNT };
extern const char *const model_aliases[]; /* "champion", "challenger" */
/* The version's name; empty if there is none. */
err registry_alias_get(struct store *, struct arena *a, struct str project, struct str model,
                       enum model_alias, struct str *version);
/* version "" takes the alias away. CONFLICT unless the version passed and is of the model. A new champion puts the
 * old one at the head of status.former and ends being challenger; event model.promoted {version, before}. */
err registry_alias_set(struct tx *, struct str who, struct str project, struct str model, enum model_alias,
                       struct str version);
/* The challenger goes; or, if there is none, the champion before the present one is champion again. CONFLICT
 * without either. out: the champion now, in the transaction's arena; event model.rolledback {version, before}. */
err registry_rollback(struct tx *, struct str who, struct str project, struct str model, struct str *out);
/* The version loses its aliases; the champion before it, if there is one, is champion again. Nothing happens if it has
 * none. event model.rolledback. */
err registry_withdraw(struct tx *, struct str who, struct str project, struct str model, struct str version);
/* The version's state becomes refused, with why; event modelversion.refused. For serve, when a challenger fails. */
err registry_refuse(struct tx *, struct str who, struct str project, struct str version, struct str why);
