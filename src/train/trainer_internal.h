/* train/trainer_internal: what the parts of the trainer share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "train/checkpoint.h"
#include "train/loader.h"
#include "train/net.h"
#include "train/trainer.h"

enum { MEASURES_MAX = 12 };

/* ---- trainer_data.c: the form as the loader wants it, and what it gave as the network wants it ---- */
struct train_set {
    struct loader *loader;
    struct loader_facts facts;
    const struct loader_tensor *t;
    size_t n;
    struct net_tensor *in;
    size_t n_in;
    int tensor[LOADER_TENSORS_MAX]; /* by input of the training graph: which tensor of a batch */
    int n_inputs, label, group;     /* label, group: tensors; −1: none */
    struct net_task task;
    const float *class_weights;        /* by class, as the form says them; NULL: all alike */
    int64_t row_elements;              /* predictions that one row gives: 1, or the places of a sequence */
    struct str measured[MEASURES_MAX]; /* on the rows held out; the loss first */
    size_t n_measured;
};
err train_set_open(struct arena *a, const struct train_job *, const struct train_listener *,
                   struct train_set *out);
/* For trees: all inputs and the label as raw numbers, of classes 0, 1, …; tensor 0 has the features. */
err train_set_numbers(struct arena *a, const struct train_job *job, const struct train_listener *,
                      struct train_set *out);
__attribute__((format(printf, 2, 3))) void train_say(const struct train_listener *, const char *f, ...);

/* Facts of a split by time; until 0: it was none, and nothing is written. */
void times_write(struct json *, int64_t from, int64_t split, int64_t until);

/* ---- trainer_measure.c: measures on the rows held out ---- */
/* Sets what is measured: what fits the task, what is asked for, and what stops early. INVALID for what the task does not have. */
err measures_find(struct train_set *, const struct train_with *);
struct measures {
    struct str name[MEASURES_MAX]; /* as in gates and results: "auc", "logLoss", "rmse" */
    double value[MEASURES_MAX];
    size_t n;
};
struct measuring; /* under way */
err measuring_new(struct arena *a, const struct train_set *, struct measuring **out);
void measuring_reset(struct measuring *);
/* Predictions (probabilities, values, logits, points) of so many rows, and the batch that they are of, by tensor; INVALID for a
 * label that is no class. */
err measuring_add(struct measuring *, const float *p, const void *const *batch, int64_t rows);
void measuring_end(struct measuring *, struct measures *out);
/* NaN if it is not among them. */
double measure_of(const struct measures *, struct str name);
/* The name of the one that is watched, of those that are measured (the loss for ""), and whether more of it is better. */
struct str measure_watched(const struct train_set *, struct str name, bool *more);

/* How a run names what is told on the way: "valid.logloss" of "logLoss"; "train.logloss", or "train.loss" where there is no log. */
const char *measure_name(struct arena *a, const char *part, struct str name);
const char *loss_name(const struct net_task *);
/* What counts it. */
enum meter_task measure_task(const struct net_task *);

/* ---- trainer.c ---- */
/* Rows that nothing is learned from: batches of one size, and one for the rest. */
struct held {
    struct feed *feed; /* NULL: there are none */
    struct program *program, *rest;
    int64_t rest_rows, memory; /* the second: bytes of the programs */
};
struct training_net {
    struct arena *a;
    const struct train_job *job;
    const struct train_with *with;
    const struct train_listener *listener;
    struct train_set set;
    struct team *team;
    struct net net; /* NET_TRAIN */
    struct params *params;
    struct optim *optim;
    struct program *program;
    struct net eval_net;
    struct params *eval_params; /* the same numbers (or their average) under the ids of eval_net */
    struct feed *feed;
    struct held valid;
    int64_t memory; /* planned: bytes of all that is held beside the data */
    int64_t batch, steps, epochs, step, epoch, per_epoch; /* step: batches done */
    enum precision precision;
    double rate;
    struct optim_spec optim_spec;
    const char *from;  /* the checkpoint that it goes on from; NULL: none */
    yyjson_val *state; /* what that one says */
    float *label;      /* of a batch, as the body learns it; NULL: as it is read */
    float *before;     /* running statistics before the step, while they warm up; NULL: there are none */
    struct measuring *measuring;
};
/* Bytes: what all may take, 0: no bound; what is held beside a step's own: what the optimiser keeps, and the copy that a checkpoint
 * is written from. */
int64_t train_budget(const struct training_net *);
int64_t train_beside(const struct training_net *, const struct optim_spec *);
/* Another graph of the same parameters: the same numbers by name. */
err params_under(struct arena *a, const struct params *, const struct graph *, struct params **out);

/* ---- trainer_auto.c: batch size and precision by trial ---- */
err train_choose(struct training_net *);
/* ---- trainer_export.c ---- */
/* test: n is 0 if there are no rows for it. */
err train_export(struct training_net *, const struct measures *valid, const struct measures *test,
                 struct train_result *out);
/* {"auc":0.97, …} */
struct str measures_text(struct arena *a, const struct measures *);
/* ---- profile.c ---- */
err train_profile(const struct training_net *, double seconds, double waited, struct train_result *out);
