/* pipeline: the graph that ties data, features, training, gates and serving together.
 * Flow     Pipeline --(run action | trigger on an event)--> PipelineRun --steps--> Jobs and in-daemon steps.
 * Owns     kinds Pipeline and PipelineRun. A run keeps a copy of the steps it began with.
 * Steps    `uses` names a worker type (becomes a Job) or a step type (runs in the daemon). `${params.x}`,
 *          `${steps.train.job}`, `${event.time}` and `${run.name}` are filled in inside `with`; a value that is
 *          exactly one of these keeps the JSON type of what it names.
 * Crash    state is in PipelineRun.status only; every step is idempotent; job names follow from run and step.
 * Errors   INVALID (cycle, unknown type or name), NOT_FOUND, CONFLICT. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "base/base.h"
#include "sched/sched.h"
#include "schema/schema.h"

struct pipelines;

enum run_phase { RUN_WAITING, RUN_RUNNING, RUN_SUCCEEDED, RUN_FAILED, RUN_CANCELLED };
extern const char *const run_phases[];
extern const char *const step_phases[];
enum step_phase { STEP_WAITING, STEP_RUNNING, STEP_SUCCEEDED, STEP_FAILED, STEP_SKIPPED, STEP_CANCELLED };

// clang-format off
#define PIPELINE_TRIGGER(F, O, L, T)                                                                           \
    F(T, STR, event,  REQUIRED, "Type of the event, such as monitor.drifted.", .len_max = 64)                  \
    F(T, STR, name,   0, "Name of the resource the event is about; empty: any.", .len_max = 63)                \
    F(T, MAP, params, 0, "Parameters of the run; `${event.KEY}` takes a value of the event.")
#define PIPELINE_STEP(F, O, L, T)                                                                              \
    F(T, STR,      name,    REQUIRED, "Unique inside the pipeline.", .is_name = true, .len_max = 24)           \
    F(T, STR,      uses,    REQUIRED, "A worker or step type: ingest, build, train, register, gate, deploy …", .len_max = 32) \
    F(T, STRS,     needs,   0, "Steps that must have succeeded first.", .len_max = 50)                         \
    F(T, JSON,     with,    0, "Parameters of the type.")                                                      \
    F(T, I64,      retries, 0, "Further attempts after a failure.", .def = "0", .min = 0, .max = 20)           \
    F(T, DURATION, timeout, 0, "Longest run of one attempt.", .def = "1h", .min = 100, .max = 1e11)
#define PIPELINE_SPEC(F, O, L, T)                                                                              \
    F(T, STR, doc,         COLUMN, "What it is for.")                                                          \
    F(T, MAP, params,      0, "Parameters and their defaults.")                                                \
    L(T, pipeline_trigger, triggers, 0, "What starts it besides people.", .len_max = 20)                       \
    L(T, pipeline_step,    steps, REQUIRED, "What it does, in the order of `needs`.", .len_max = 100)          \
    F(T, I64, concurrency, 0, "Runs at a time; further ones wait.", .def = "1", .min = 1, .max = 100)
#define PIPELINE_STATUS(F, O, L, T)                                                                            \
    F(T, I64, runs,   COLUMN, "Runs begun.")                                                                   \
    F(T, STR, latest, COLUMN, "The latest run.")                                                               \
    F(T, I64, cursor, 0, "Events up to this one have been looked at by the triggers.")
#define PIPELINERUN_SPEC(F, O, L, T)                                                                           \
    F(T, REF,  pipeline, REQUIRED | FROZEN | COLUMN, "What it runs.", .ref = "Pipeline")                       \
    F(T, MAP,  params,   FROZEN, "Parameters, defaults filled in.")                                            \
    F(T, JSON, event,    FROZEN, "The event that started it.")                                                 \
    L(T, pipeline_step, steps, FROZEN, "The steps as they were at the start.", .len_max = 100)                 \
    F(T, BOOL, cancel,   0, "Set to stop it.", .def = "false")                                                 \
    F(T, I64,  resumes,  0, "Times it was asked to go on from what failed.", .def = "0", .min = 0, .max = 1000)
#define RUN_STEP(F, O, L, T)                                                                                   \
    F(T, STR,  name,     0, "The step.")                                                                       \
    F(T, ENUM, phase,    0, "Where it is.", .values = step_phases)                                             \
    F(T, STR,  job,      0, "Its job, if it is one.")                                                          \
    F(T, JSON, outputs,  0, "What it produced.")                                                               \
    F(T, STR,  error,    0, "Why it failed.")                                                                  \
    F(T, I64,  attempts, 0, "Attempts of a step in the daemon; resumes of a job.")                             \
    F(T, TIME, started,  0, "When it began.")                                                                  \
    F(T, TIME, finished, 0, "When it ended.")                                                                  \
    F(T, JSON, progress, 0, "How far it is: done, total, what.")
#define PIPELINERUN_STATUS(F, O, L, T)                                                                         \
    F(T, ENUM, phase,     COLUMN, "Where it is.", .values = run_phases)                                        \
    F(T, STR,  message,   COLUMN, "Why it waits or failed.")                                                   \
    F(T, I64,  exit_code, 0, "0 success, 3 a gate refused it, 1 failed.")                                      \
    L(T, run_step, steps, 0, "Its steps.", .len_max = 100)                                                     \
    F(T, TIME, started,   COLUMN, "When it began.")                                                            \
    F(T, TIME, finished,  0, "When it ended.")                                                                 \
    F(T, I64,  resumed,   0, "Resumes that were carried out.")
// clang-format on
SCHEMA(pipeline_trigger, PIPELINE_TRIGGER);
SCHEMA(pipeline_step, PIPELINE_STEP);
SCHEMA(pipeline_spec, PIPELINE_SPEC);
SCHEMA(pipeline_status, PIPELINE_STATUS);
SCHEMA(pipelinerun_spec, PIPELINERUN_SPEC);
SCHEMA(run_step, RUN_STEP);
SCHEMA(pipelinerun_status, PIPELINERUN_STATUS);
extern const struct resource pipeline_resource, pipelinerun_resource;

struct pipelines_config {
    struct store *store;
    struct sched *sched;                  /* for its worker types */
    const struct step_type *const *steps; /* NULL-terminated */
    struct job_context context;           /* .a is set per call */
};
err pipelines_open(const struct pipelines_config *, struct pipelines **out);
void pipelines_close(struct pipelines *);
void pipelines_set_control(struct pipelines *, struct control *);
/* Three reconcilers: runs, triggers, and the jobs of runs and sweeps that were deleted. */
struct reconciler pipelines_run_reconciler(struct pipelines *);
struct reconciler pipelines_trigger_reconciler(struct pipelines *);
struct reconciler pipelines_orphans_reconciler(struct pipelines *);

/* Starts a run; params override the pipeline's. The name of the run lives in a. INVALID for an unknown parameter. */
err pipeline_run(struct store *, struct arena *a, struct str who, struct str project, struct str pipeline,
                 const struct pairs *params, struct str *run);
/* Fills ${…} in every text of a JSON value. lookup gives the JSON text of a dotted name, or false. */
err pipeline_fill(struct arena *a, struct str json,
                  bool (*lookup)(void *arg, struct arena *a, struct str name, struct str *out), void *arg,
                  struct str *out);
