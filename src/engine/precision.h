/* precision: which values of a bound graph are kept in halves (BF16, F16). Arithmetic stays in F32 inside of kernels;
 * parameters have F32 masters and, in params->half, a copy that products read; losses, statistics and gradients of
 * parameters are F32. Activations between are halves: half the memory traffic, and products at the rate of the halves. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

/* On the forward graph, before gradients: inserts Casts where values pass from one side to the other. */
err precision_lower(struct graph *, enum tensor_type half);
/* After gradients: a product that made a parameter's gradient in halves only for it to be cast makes it in F32. grads: n
 * values (−1: none). */
void precision_gradients(struct graph *, int *grads, size_t n);
/* The node is a Cast of a parameter to halves: no step, the copy is there already. */
bool precision_of_param(const struct graph *, const struct node *);
