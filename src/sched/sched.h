/* sched: which job runs when; the kind Job and the types of work a job can be.
 * Flow     Job created (by pipeline, API, `dhow run`) --sched_step--> exec --> finish --> Job.status.
 * Order    priority, then age; a job starts when its cpu and memory fit beside those that run. Job.status.reason
 *          says why it waits.
 * Owns     kind Job. Retries, time-outs and cancelling are decided here, carried out by exec.
 * Crash    every step is idempotent: a restarted daemon finds running jobs again through exec.
 * Errors   INVALID (unknown type, bad `with`), LIMIT, UNAVAILABLE. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "base/base.h"
#include "exec/exec.h"
#include "schema/schema.h"
#include "store/store.h"

struct sched;

enum job_phase {
    JOB_QUEUED,
    JOB_STARTING,
    JOB_RUNNING,
    JOB_FINISHING,
    JOB_SUCCEEDED,
    JOB_FAILED,
    JOB_CANCELLED
};
extern const char *const job_phases[];

// clang-format off
#define JOB_SPEC(F, O, L, T)                                                                                 \
    F(T, STR,      type,     REQUIRED | FROZEN | COLUMN, "What it does: a worker type (`dhow explain train`), or command.", .len_max = 32) \
    F(T, JSON,     with,     FROZEN, "Parameters of the type.")                                              \
    F(T, STRS,     command,  FROZEN, "Program and arguments, for type command.")                             \
    F(T, MAP,      env,      FROZEN, "Environment of the command.")                                          \
    F(T, I64,      cpu,      FROZEN, "Cores it may use.", .def = "1", .min = 1, .max = 4096)                 \
    F(T, SIZE,     memory,   FROZEN, "Memory it may use; beyond it is stopped.", .def = "4Gi", .min = 16777216, .max = 1e15) \
    F(T, DURATION, timeout,  FROZEN, "Longest run of one attempt.", .def = "1h", .min = 100, .max = 1e11)    \
    F(T, I64,      retries,  FROZEN, "Further attempts after a failure.", .def = "0", .min = 0, .max = 20)   \
    F(T, I64,      priority, COLUMN, "Higher starts first.", .def = "0", .min = -1000, .max = 1000)          \
    F(T, BOOL,     cancel,   0,      "Set to stop it.", .def = "false")                                      \
    F(T, STR,      owner,    FROZEN, "What started it: a ref such as PipelineRun/late-…", .len_max = 200)
#define JOB_STATUS(F, O, L, T)                                                                               \
    F(T, ENUM, phase,       COLUMN, "Where it is.", .values = job_phases)                                    \
    F(T, STR,  reason,      COLUMN, "Why it waits or failed.")                                               \
    F(T, I64,  exit_code,   0, "Exit code of the last attempt.")                                             \
    F(T, I64,  attempts,    COLUMN, "Attempts begun.")                                                       \
    F(T, TIME, started_at,  COLUMN, "Start of the last attempt.")                                            \
    F(T, TIME, finished_at, 0, "End of the last attempt.")                                                   \
    F(T, F64,  cpu_seconds, COLUMN, "CPU time of the last attempt, user and system.")                        \
    F(T, SIZE, memory_peak, COLUMN, "Largest resident memory of the last attempt.")                          \
    F(T, STR,  log,         0, "Blob of its output, once it ended.")                                         \
    F(T, JSON, result,      0, "What it produced: an object of texts.")                                      \
    F(T, JSON, progress,    0, "How far it is: done, total, what.")
/* Of the type command as a step of a pipeline; a Job of its own says these in its spec. */
#define COMMAND_WITH(F, O, L, T)                                                                             \
    F(T, STRS, command,   0, "Program and arguments.", .len_max = 1000)                                      \
    F(T, MAP,  env,       0, "Environment of the command.")                                                  \
    F(T, JSON, resources, 0, "cpu and memory, as a Job has them.")
// clang-format on
SCHEMA(job_spec, JOB_SPEC);
SCHEMA(job_status, JOB_STATUS);
SCHEMA(command_with, COMMAND_WITH);
extern const struct resource job_resource;

/* Asks for a job to be stopped, recorded as who's. A finished one is left as it is. */
err job_cancel_request(struct store *, struct str who, struct str project, struct str name);

/* A job as the hooks of its type see it. */
struct job {
    struct str project, name; /* of the resource */
    struct job_spec spec;
    void *with; /* struct of the type's .with schema */
};

/* What a worker (the child process) knows. */
struct worker {
    struct arena *a;
    struct str project, job; /* names */
    const char *dir;         /* DIR/jobs/ID */
    struct blobs *blobs;
    yyjson_val *spec; /* spec.json: {"type":…,"with":{…},"project":…,"job":…, and what prepare added} */
    void *with;       /* struct of the type's .with schema */
};
void worker_progress(struct worker *, int64_t done, int64_t total,
                     const char *what); /* cheap: 5 a second at most reach the disk */
void worker_metric(struct worker *, const char *name, int64_t step,
                   double value); /* appended to metrics.jsonl */
__attribute__((format(printf, 2, 3))) void worker_say(struct worker *, const char *f,
                                                      ...); /* a line of the log */
bool worker_stopped(const struct worker *);                 /* SIGTERM came: finish soon */
/* result.json; the last thing a successful run does. text: a JSON object. */
err worker_result(struct worker *, struct str text);

struct job_context {
    struct store *store;
    struct arena *a;
    void *app;              /* struct app of main.c */
    struct str code_commit; /* of the build or the environment; for lineage */
    struct str sources_dir; /* where Source.path starts */
    void *self;             /* the type's .self, set per call */
};
struct worker_type {
    const char *name, *doc;
    /* What ${steps.NAME.…} finds, for people: "version: the new version; rows: its rows"; may be NULL. */
    const char *outputs;
    const char *const
        *blobs; /* those of them that name blobs: files for clients; NULL-terminated, may be NULL */
    const struct schema *with; /* may be NULL */
    err (*prepare)(struct job_context *, const struct job *,
                   struct json *spec); /* adds keys to the open object; may be NULL */
    err (*run)(struct worker *);       /* in the child; NULL only for "command" */
    /* After success, before the job counts as succeeded; idempotent. result: parsed result.json (may be NULL for
     * commands); outputs: an open JSON object to add text values to. May block. May be NULL. */
    err (*finish)(struct job_context *, const struct job *, yyjson_val *result, struct json *outputs);
    void *self; /* what the hooks of the daemon work on; may be NULL */
};

/* Work that is done in the daemon itself, as a step of a pipeline: register, gate, deploy. One row per type,
 * listed in main.c beside the worker types. step() is level-based and idempotent: it is called again until
 * *done; outputs is an open JSON object to add values to, kept when done. Must not block long. A GATE error
 * ends the run with exit code 3. */
struct step_type {
    const char *name, *doc;
    const char *outputs; /* as of a worker type */
    const struct schema *with;
    err (*step)(struct job_context *, struct str project, struct str run, const void *with,
                struct json *outputs, bool *done);
    /* The run gives the step up, as it was cancelled or took too long: takes back what is half done. May be called for
     * a step that has not begun, and twice. May be NULL. */
    err (*stop)(struct job_context *, struct str project, struct str run, const void *with);
};

struct sched_config {
    struct store *store;
    struct exec *exec;
    const struct worker_type *const *types; /* NULL-terminated */
    struct job_context context;             /* .a is set per call */
    int64_t cpu, memory; /* what jobs may use in all; 0: cores of the machine, 80 % of its memory */
    const char *program; /* path of this binary, for `dhow worker` and `dhow shim` */
};
err sched_open(const struct sched_config *, struct sched **out);
void sched_close(struct sched *); /* leaves jobs running; waits for hooks under way */
/* The reconciler of Jobs, for control_start. */
struct reconciler sched_reconciler(struct sched *);
void sched_set_control(struct sched *, struct control *);
const struct worker_type *sched_type(struct sched *, struct str name);
/* `dhow worker --dir DIR`: runs the type named in spec.json in this process. Exit code. */
int sched_worker_main(const struct worker_type *const *types, const char *dir);
/* GET /api/v1/projects/{project}/jobs/{name}/logs?follow=1, …/metrics and …/outputs/{output}: .self is the sched. */
const struct route *sched_routes(struct sched *, struct arena *a);
