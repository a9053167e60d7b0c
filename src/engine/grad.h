/* grad: reverse-mode differentiation as a graph: appends the nodes that compute d loss / d value.
 * Each op's gradient rule (ops.h) is asked once, from the loss backwards; where a value is used twice its gradients are added.
 * The graph must be bound: all shapes are numbers. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

/* wrt: n values; grads: their gradients' ids, −1 where none flows. seed: d loss / d loss, a scalar that is left open (an
 * INPUT that is not in graph->inputs): 1, or a loss scale. INVALID if the loss is no scalar; UNSUPPORTED, naming the
 * node, if a gradient must pass an op that has no rule. */
err grad_build(struct graph *, int loss, const int *wrt, size_t n, int *grads, int *seed);
