/* trainer: one training of a network: data → batches → steps → measures, checkpoints, and at the end an ONNX model.
 * Flow     form + files --train_network--> loader, graph, team, program --steps--> the best parameters --graph_write--> bytes,
 *          compared with the engine by ONNX Runtime.
 * Said     everything that a run tells goes to its listener: lines of a log, measures, how far it is.
 * Files    in dir: checkpoints/step-N/, profile.json.
 * Repeat   the same form, data, seed, number of threads and precision give the same bits; with `deterministic` nothing is decided by
 *          measured times, and a training that was resumed ends with the bits of one that never stopped.
 * Threads  one caller; it becomes rank 0 of the team.
 * Errors   INVALID: the form, the data (naming column and row), a loss that is no number (naming the step and the last good checkpoint), a
 *          checkpoint of another model; TOO_LARGE: over the budget, with what it would need; FULL: the disk; CANCELLED. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"
#include "train/spec.h"

/* Of trees a step is a round, and epochs is 0. */
struct train_progress {
    int64_t step, steps, epoch, epochs;
    double loss;            /* of the last steps; NaN: it is not known */
    double rate;            /* learning rate */
    double rows_per_second; /* since the start, of training alone */
    double seconds_left;
    double waited; /* share of the time spent waiting for data */
};
struct train_listener {
    void (*say)(void *arg, struct str line);
    void (*metric)(void *arg, const char *name, int64_t step, double value);
    void (*progress)(void *arg, const struct train_progress *);
    bool (*stopped)(void *arg);
    void *arg;
};
struct train_source {
    struct str path;
    int format, part; /* as train_formats, train_parts */
    struct str column;
};
struct train_job {
    const struct train_with *with;
    const struct field *chosen; /* of with->model */
    const struct train_source *files;
    size_t n_files;
    /* Of a training set's version; else empty, and the form says them. */
    struct strs features, texts; /* of numbers; of text, which are categories */
    struct str label, at, known;
    struct strs
        aside; /* of another version: columns that name its rows, learned from only where an input names them */
    int64_t until;   /* of a version; 0: just after the newest row */
    struct str onnx; /* model bytes for onnx: {…} */
    const char *dir;
    int threads;
    int64_t memory; /* 0: no bound */
    bool resume;    /* go on from the newest whole checkpoint in dir, if there is one */
};
struct train_result {
    struct str onnx, native, baseline, signature, params, facts;
    struct str metrics,
        test; /* on the rows held out; on those of split.test, by the best weights: empty if there are none */
    struct str profile;                                 /* a table for people */
    int64_t from, split, until, train_rows, valid_rows; /* of a split by time: µs */
};
err train_network(struct arena *a, const struct train_job *, const struct train_listener *,
                  struct train_result *out);
/* Trees on files, for runs without a daemon: the same measures by the same names. */
err train_trees(struct arena *a, const struct train_job *, const struct train_listener *,
                struct train_result *out);
