/* optim: how gradients change parameters: fused passes over slices of the flat block, and schedules of the rate.
 * Formulas  SGD: m = μ m + g; w −= r m (Nesterov: w −= r (g + μ m)). Adam: Kingma & Ba 2015, with both corrections. AdamW: Loshchilov & Hutter
 *           2019, w −= r λ w beside. LAMB: You et al. 2020, AdamW's step scaled by |w| / |step| for each parameter. Adagrad: Duchi et al. 2011.
 *           For SGD, Adam, LAMB(within), Adagrad, weight decay λ is added to the gradient (L2), except AdamW and LAMB as said.
 * Owns      its moments, laid out as the parameters are.
 * Threads   optim_apply: each rank on its own slice, between barriers, within team_run. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/params.h"

enum optim_kind { OPTIM_SGD, OPTIM_ADAM, OPTIM_ADAMW, OPTIM_LAMB, OPTIM_ADAGRAD };
enum schedule_kind { RATE_CONSTANT, RATE_COSINE, RATE_LINEAR, RATE_STEP, RATE_ONE_CYCLE };
struct schedule {
    enum schedule_kind kind;
    int64_t warmup, steps; /* warm-up is linear from 0; steps: of the whole training */
    int64_t every;         /* STEP: each so many steps the rate times `factor` */
    double
        factor; /* STEP: 0.1; COSINE, LINEAR: the last rate as a share of the first; ONE_CYCLE: first rate = peak / factor */
};
struct optim_spec {
    enum optim_kind kind;
    double rate, momentum, beta1, beta2, epsilon, decay;
    bool nesterov;
    double clip_norm;  /* of all gradients together; 0: none */
    double ema;        /* of the weights kept beside, 0.999; 0: none */
    int accumulate;    /* gradients of so many runs make one step; 0 and 1: each */
    bool loss_scaling; /* F16: dynamic, from 2^16; halved on overflow, doubled after 2,000 good steps */
    struct schedule schedule;
};
struct optim {
    struct optim_spec spec;
    struct params *params;
    float *m, *v; /* first and second moments; NULL where the kind has none */
    float *ema;   /* NULL: none */
    int64_t step; /* made so far */
    double loss_scale;
    int64_t good;    /* steps since the last overflow */
    int64_t skipped; /* by overflow */
    float **sums;    /* of the gradients of several runs, by rank; NULL if each run makes a step */
    int pending;     /* runs added up so far */
    bool last;       /* set by the caller: the next run makes the step, of the mean of those that there are */
};
/* Bytes that it holds beside parameters and gradients: moments, average, sums. */
int64_t optim_memory(const struct params *, const struct optim_spec *);
/* Memory of the device; freed with a. */
err optim_new(struct arena *a, struct params *, const struct optim_spec *, struct optim **out);
/* The rate of step n (from 0). */
double schedule_rate(const struct schedule *, double rate, int64_t n);
/* Within team_run, once the rank's gradients are there: sums those of all ranks (in order of rank), unscales, clips, and makes
 * the step on this rank's slice of the block. Rank 0 counts and writes *report; others may run on before it has. */
struct run_report;
void optim_apply(struct optim *, struct rank *, struct run_report *);
