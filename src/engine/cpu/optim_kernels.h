/* optim_kernels: the passes over the flat block that optim.c makes; formulas stand in engine/optim.h. Ranges are in floats,
 * multiples of PARAM_ALIGN except for LAMB's. Sums over ranks are in order of rank. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/simd.h"
#include "engine/optim.h"

struct optim_pass {
    enum optim_kind kind;
    bool nesterov;
    float *const *grads; /* n_grads blocks, to be added up */
    int n_grads;
    float *w, *m, *v, *ema; /* NULL where there is none */
    uint16_t *half;         /* NULL: no copy */
    enum tensor_type half_type;
    float scale; /* of the summed gradient */
    float rate, momentum, beta1, beta2, epsilon, decay, ema_decay;
    float correct1, correct2; /* 1 / (1 − beta^t) */
};
/* Sums the blocks into the first and gives the sum of its squares (unscaled); infinite or NaN if one is, and infinite, too,
 * if one is beyond 1e19, whose square no float holds. */
double optim_norm2(const struct optim_pass *, size_t from, size_t to);
/* The step of SGD, Adam, AdamW, Adagrad: one pass. */
void optim_step(const struct optim_pass *, size_t from, size_t to);
/* LAMB's on one whole parameter: two passes. */
void optim_lamb(const struct optim_pass *, size_t from, size_t to);

/* The same for each instruction set (cpu/optim_simd.c). */
struct optim_table {
    double (*norm2)(const struct optim_pass *, size_t from, size_t to);
    void (*step)(const struct optim_pass *, size_t from, size_t to);
    void (*lamb)(const struct optim_pass *, size_t from, size_t to);
};
SIMD_DECLARE(struct optim_table, optim_table);
