/* fold: runs a node on the spot where all its inputs are constants, and makes its outputs constants.
 * Errors   none of its own: a node without a kernel is left as it is. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/graph.h"

/* At most so many elements are folded, so that a graph cannot blow itself up before it is planned. */
enum { FOLD_ELEMENTS_MAX = 1 << 22, FOLD_BYTES_MAX = 1 << 28 /* of one graph */ };
err fold_node(struct graph *, int node);
