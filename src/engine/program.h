/* program: a graph compiled for one batch size and one purpose, on a team of threads.
 * Flow     graph --bind, autodiff, lower, plan--> program --program_run/train--> outputs, loss, parameters changed.
 * Owns     its memory plan (an arena of device memory for each rank, laid out by liveness).
 * Errors   UNSUPPORTED (no kernel; names node and type), TOO_LARGE (the plan needs more than memory_max: says how much),
 *          INVALID (graph). Runs do not fail; what they met stands in struct run_report.
 * Batch    rows are cut evenly over the ranks if each op of the graph lets rows pass (enum split), else one rank runs.
 *          A rank takes its rows in parts if their activations would not stay in a cache otherwise, or not in the budget: the
 *          gradients of its parts are added up, so that a step is the same but for rounding.
 *          Sums over rows are made in order of rank and part: equal bits for equal ranks. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/optim.h"
#include "engine/params.h"

enum precision { PRECISION_F32, PRECISION_BF16, PRECISION_F16 };
struct program_options {
    struct team *team;
    int ranks;    /* of the team; 0: all */
    int64_t rows; /* of a batch, all ranks together: the size of symbol "batch" */
    const int64_t *
        sizes; /* of the graph's other symbols, by symbol; NULL if there are none (that of "batch" is not read) */
    int loss; /* train: value of the graph, a scalar; −1: inference */
    enum precision precision;
    /* Bytes of parameters, gradients, plan and what stands beside; 0: no bound. Where they do not suffice for all activations, a
     * rank takes fewer rows at once, and then some are computed again in the backward pass. All is planned before any is taken. */
    int64_t memory_max, memory_beside;
    const struct program *
        turns; /* its activations may lie where those of this one do, which never runs at the same time; NULL */
    bool frozen_states; /* train: running statistics are not updated */
    bool
        recompute; /* forget activations and compute them again in the backward pass, where that saves memory */
    bool one_part; /* a rank's rows are not cut further, however much memory they take */
    bool profile;  /* each step is timed */
};
struct program;
err program_new(struct arena *, const struct graph *, struct params *, const struct program_options *,
                struct program **out);

/* What a run met. */
struct run_report {
    double loss;         /* sum over ranks of the graph's loss */
    double grad_norm;    /* before clipping; 0 if nobody asked */
    bool overflow;       /* a gradient was infinite or NaN: parameters are as before */
    int64_t bad_indices; /* indices (labels, categories, tokens) outside of their range, all ranks together */
    int64_t
        bad_label; /* 1 + a row of the batch whose label is no class, or whose target is none; 0: there is none */
};
/* inputs: by graph->inputs, row-major, all rows; read in place. draw: of random numbers, one for each run (the step). */
void program_run(struct program *, const void *const *inputs, uint64_t seed, uint64_t draw,
                 struct run_report *);
/* Forward, backward, and a step of the optimiser, in one go. If the optimiser accumulates, each n-th call makes the step (or
 * that which optim.last says), with the mean of the gradients. */
void program_train(struct program *, const void *const *inputs, uint64_t seed, uint64_t draw, struct optim *,
                   struct run_report *);
/* Output i of the graph, all rows, row-major, until the next run. type, shape: its own; may be NULL. */
const void *program_output(const struct program *, int i, enum tensor_type *type, struct shape *shape);

/* The plan, for logs and tests. */
struct program_facts {
    int ranks;
    int64_t rows;
    size_t steps;
    int parts;             /* that each rank's rows are cut into */
    int segments;          /* more than 1: activations are computed again, segment by segment */
    bool by_rows;          /* no row of the batch sees another, and each input and output is made of rows */
    int64_t memory;        /* bytes: activations of all ranks and outputs, inputs not counted */
    int64_t memory_params; /* masters, halves, gradients */
    double flops;          /* of one run, all ranks */
};
struct program_facts program_facts(const struct program *);
/* Profile: for step i of rank 0, its times summed over the runs since program_new. */
struct step_time {
    struct str name;
    const struct op *op;
    double seconds, flops, bytes;
    int64_t runs;
    struct str shapes; /* "[128,40] × [40,256]" */
};
size_t program_times(const struct program *, struct arena *, const struct step_time **out);
