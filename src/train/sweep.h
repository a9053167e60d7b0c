/* sweep: many trainings of one form with other values, of which the best is kept. Two parts: the rules (what is tried, what is
 * next, what is best), which do no I/O and are the same wherever the trials run; and the kind Sweep, whose trials are jobs.
 * Crash    state is in Sweep.status only; the jobs that a step begins are made in the transaction that says so.
 * Included by train.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "train/spec.h"

enum {
    SWEEP_TRIALS_MAX = 10000,
    SWEEP_AXES_MAX = 64,
    SWEEP_JOBS_MAX =
        1000, /* trials of a Sweep: its status holds them all and is written with each one that begins or ends */
    SWEEP_SETS_MAX = 1 << 20, /* bytes of what is set in all trials of a Sweep together */
    SWEEP_FORM_MAX = 1 << 16, /* bytes of a Sweep's form */
    SWEEP_NAME_MAX = 50,      /* leaves room for "-t1000-r10" in the names of its jobs */
};
enum sweep_kind { SWEEP_GRID, SWEEP_RANDOM, SWEEP_HALVING };
enum sweep_phase { SWEEP_WAITING, SWEEP_RUNNING, SWEEP_SUCCEEDED, SWEEP_FAILED, SWEEP_CANCELLED };
enum trial_phase {
    TRIAL_WAITING,
    TRIAL_RUNNING,
    TRIAL_DONE,
    TRIAL_FAILED,
    TRIAL_NOT_MEASURED,
    TRIAL_NO_TIME,
    TRIAL_CANCELLED
};
extern const char *const sweep_kinds[];
extern const char *const sweep_phases[];
extern const char *const trial_phases[];

// clang-format off
#define SWEEP_WITH(F, O, L, T)                                                                                            \
    F(T, ENUM,     kind,   FROZEN | COLUMN, "grid: all of them; random: so many draws; halving: draws that get more epochs if they do well.", .values = sweep_kinds, .def = "random") \
    F(T, JSON,     over,   FROZEN | REQUIRED, "{\"optimizer.rate\": {\"min\": 0.0001, \"max\": 0.1, \"scale\": \"log\"}, \"model.mlp.dropout\": [0, 0.1, 0.3]}.", .len_max = 65536) \
    F(T, I64,      trials, FROZEN, "Draws; on a server at most 1000, as many points as a grid may have there.", .def = "8", .min = 1, .max = 10000)                                          \
    F(T, STR,      metric, FROZEN, "What the best is by, on the rows held out; empty: the loss.", .len_max = 64)          \
    F(T, DURATION, budget, FROZEN, "No trial begins after this time; 0: no bound.", .min = 0, .max = 1e12)                \
    F(T, I64,      at_once, FROZEN, "Trials at the same time; without a server, each on its share of the cores.", .def = "1", .min = 1, .max = 256) \
    F(T, I64,      factor, FROZEN, "halving: one of so many goes on, with so many times the epochs.", .def = "3", .min = 2, .max = 10) \
    F(T, I64,      seed,   FROZEN, "Of the draws.", .def = "1", .min = 0, .max = 9e15)
#define SWEEP_SPEC(F, O, L, T)                                                                                            \
    F(T, JSON,     with,    FROZEN | REQUIRED, "The form of a training, as a job of type train has it.", .len_max = SWEEP_FORM_MAX) \
    SWEEP_WITH(F, O, L, T)                                                                                                \
    F(T, I64,      cpu,     FROZEN, "Cores of each job.", .def = "1", .min = 1, .max = 4096)                              \
    F(T, SIZE,     memory,  FROZEN, "Memory of each job.", .def = "4Gi", .min = 16777216, .max = 1e15)                    \
    F(T, DURATION, timeout, FROZEN, "Longest run of one attempt of a job.", .def = "1h", .min = 100, .max = 1e11)         \
    F(T, I64,      retries, FROZEN, "Further attempts of a job after a failure.", .def = "0", .min = 0, .max = 20)        \
    F(T, BOOL,     cancel,  0,      "Set to stop it.", .def = "false")
#define SWEEP_TRIAL(F, O, L, T)                                                                                           \
    F(T, JSON, set,     0, "What was set: the keys of `over`, a value each.", .len_max = 65536)                           \
    F(T, STR,  job,     0, "Its job, of the last rung that it began.")                                                    \
    F(T, I64,  rung,    0, "Its rung, from 1; all but halving have one.")                                                 \
    F(T, I64,  epochs,  0, "Epochs there.")                                                                               \
    F(T, ENUM, phase,   0, "Where it is.", .values = trial_phases)                                                        \
    F(T, F64,  measure, 0, "Of the last rung that it ended.")                                                             \
    F(T, F64,  seconds, 0, "How long that took.")                                                                         \
    F(T, STR,  message, 0, "Why it has no measure.", .len_max = 300)
#define SWEEP_STATUS(F, O, L, T)                                                                                          \
    F(T, ENUM, phase,        COLUMN, "Where it is.", .values = sweep_phases)                                              \
    F(T, STR,  message,      COLUMN, "Why it failed, or what there was no time for.")                                     \
    F(T, I64,  total,        COLUMN, "Trials.")                                                                           \
    F(T, I64,  running,      0,      "Trials at work.")                                                                   \
    F(T, I64,  done,         COLUMN, "Trials that ended with a measure.")                                                 \
    F(T, I64,  failed,       COLUMN, "Trials that ended without one.")                                                    \
    F(T, I64,  best,         COLUMN, "The best trial so far, from 1; 0: none has a measure.")                             \
    F(T, F64,  best_measure, COLUMN, "Its measure.")                                                                      \
    F(T, STR,  best_job,     COLUMN, "Its job, to be registered.")                                                        \
    F(T, JSON, best_set,     0,      "What was set there.", .len_max = 65536)                                             \
    L(T, sweep_trial, trials, 0, "All of them, in the order in which they begin; what they set is 1 MiB at most.", .len_max = SWEEP_JOBS_MAX)             \
    F(T, TIME, started,      0,      "When it began: the budget counts from here.")                                       \
    F(T, TIME, finished,     0,      "When it ended.")
// clang-format on
SCHEMA(sweep_with, SWEEP_WITH);
SCHEMA(sweep_spec, SWEEP_SPEC);
SCHEMA(sweep_trial, SWEEP_TRIAL);
SCHEMA(sweep_status, SWEEP_STATUS);

/* ---- the rules ---- */
struct sweep_plan {
    struct sweep_with with;
    struct str form; /* JSON: what is trained but for what a trial sets */
    bool jobs;       /* the trials are to be jobs: a form needs what they need, and there may be fewer */
    int64_t epochs;  /* of the form */
    struct sweep_trial *trials;
    size_t n;
};
/* The trials, from with and form. INVALID and TOO_LARGE name the field at fault: a key of `over` that the form does not have,
 * a value that it cannot take. */
err sweep_draw(struct arena *a, struct sweep_plan *);
/* The plan goes on with trials that were drawn before. */
err sweep_resume(struct arena *a, struct sweep_plan *, const struct list *trials);
/* The form of one trial in its rung; with may be NULL. */
err sweep_form(struct arena *a, const struct sweep_plan *, const struct sweep_trial *, struct str *text,
               struct train_with *with);
/* The trial that may begin now, which is the caller's to mark as running; NULL: none now, and if none runs, none ever. What has
 * no time any more is marked so. */
struct sweep_trial *sweep_next(struct sweep_plan *, int64_t elapsed_ms);
size_t sweep_count(const struct sweep_plan *, enum trial_phase);
/* It came to an end: with these measures, or (NULL) without any. */
void sweep_judge(struct arena *a, const struct sweep_plan *, struct sweep_trial *, yyjson_val *metrics);
/* The best by the measure, of those that got to the highest rung and are not at work; the earlier of two that are alike; NULL: none
 * has a measure. */
const struct sweep_trial *sweep_best(const struct sweep_plan *);

/* ---- the kind ---- */
struct store;
extern const struct resource sweep_resource;
struct sweep_plan sweep_plan_of(const struct sweep_spec *);
struct reconciler sweep_reconciler(struct store *);
