/* params: what a model learns, as one flat block of floats, so that an optimiser is one pass and a bucket is a slice.
 * Owns     its memory (a device's); made once for a graph, shared by all programs of that graph, whatever their batch size.
 * Layout   parameter by parameter, in the graph's order, each from a multiple of PARAM_ALIGN; padding is zero and stays it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"
#include "engine/team.h"

struct device_ops;
extern const struct device_ops device_cpu; /* of those in device.h: the one that is always there */
/* Has it products of this type, or are they made by way of another? */
bool device_multiplies(const struct device_ops *, enum tensor_type);
/* Are its convolutions, of F32, as quick as those of runtimes that do nothing else? */
bool device_convolves(const struct device_ops *);

enum { PARAM_ALIGN = 16 /* floats: one cache line */ };
struct param {
    struct str name;
    int value; /* in the graph */
    struct shape shape;
    size_t at, n; /* floats of the block */
    double
        decay; /* weight decay of the optimiser times this; 1, and 0 for biases and scales of norms (rank < 2) */
    double rate; /* learning rate times this; 1 */
    bool frozen; /* no gradient, no change */
};
struct state_block { /* running statistics and the like: not learned, but kept */
    struct str name;
    int value;
    struct shape shape;
    float *p;
    size_t n;
};
struct params {
    const struct device_ops *device;
    struct param *v;
    size_t count;
    size_t n;       /* floats of the block, padding included */
    float *w;       /* the masters */
    uint16_t *half; /* a copy in half_type that the optimiser keeps current; NULL: none */
    enum tensor_type half_type;
    float **grads; /* one block for each rank */
    int ranks;
    struct state_block *states;
    size_t n_states;
    struct arena *learning; /* of the gradients, which are given back before the rest */
};
/* From the graph's PARAM and STATE values; those without data are filled from seed: with normal numbers of deviation `spread` if
 * that is above 0, with zeros below; else by shape: rank ≥ 2: uniform within ±sqrt(6 / fan_in) (He, for ReLU; fan_in: rows of a
 * matrix (in, out), or channels × window of a convolution (out, in, h, w)); names ending in "scale": 1; else 0. Each has a
 * stream of its own, so that another one beside it changes nothing. ranks: gradient blocks. TOO_LARGE names the largest. */
err params_new(struct arena *, const struct device_ops *, const struct graph *, int ranks, uint64_t seed,
               struct params **out);
/* Nothing more is learned: the gradients' memory goes back. */
void params_learned(struct params *);
/* TOO_LARGE, naming the largest, if the graph's parameters alone take more. */
err params_check(const struct graph *, int64_t bytes_max);
/* Makes (or unmakes: TENSOR_F32) the half copy, in memory that ends with a. */
err params_half(struct params *, struct arena *a, enum tensor_type);
/* Makes the half copy anew, after somebody else than the optimiser wrote w. */
void params_refresh(struct params *);
/* half[i] of w[i], to nearest even, for from ≤ i < to; nothing if half is NULL. */
void params_half_range(const float *w, uint16_t *half, enum tensor_type, size_t from, size_t to);
/* By graph value, for graph_write: where each stands now; NULL elsewhere. */
const void *const *params_data(const struct params *, const struct graph *, struct arena *);
/* Memory of the device, zeroed, that ends with a. NULL, or TOO_LARGE, if there is none left. */
void *device_block(struct arena *a, const struct device_ops *, size_t bytes);
err device_floats(struct arena *a, const struct device_ops *, size_t n, float **out);
/* "692Mi": in few digits, and not less than it is. */
struct str size_about(struct arena *a, int64_t bytes);
