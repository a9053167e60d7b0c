/* fuse: chains and small trees of element-wise nodes, forward and backward, become one Fused node each.
 * What     nodes of floats (BOOL beside them) whose outputs have one shape and layout. A node joins those that read it if
 *          they are all in the group, or if the others come after the group: then its value is an output, too, and at least
 *          is not read back. What nobody else needs is never written; between instructions nothing is rounded to halves. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

err fuse_elements(struct graph *);
