/* layout: what the CPU makes of a bound graph before memory is planned: products and batch normalisations take in what stands
 * beside them, and pictures lie with channels last (value.nhwc) wherever convolutions, pools and norms pass them on.
 * One pass over the nodes each; a conversion (Layout) is put where a picture leaves for an op that knows the graph's order only. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

err cpu_layout(struct graph *, bool train);
