/* recompute: trades time for memory: the forward pass is cut into segments, only what passes from one to the next is kept, and
 * the backward pass computes a segment's values again when it first needs them (Chen et al. 2016). Random numbers are drawn
 * alike by both (node.ordinal). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

/* n_forward: nodes before the first of the gradients. segments < 2: no more is computed again than the outputs of GELU and layer
 * normalisation, whose inputs the gradients want anyway: one pass over memory each. */
err graph_recompute(struct graph *, size_t n_forward, int segments);
