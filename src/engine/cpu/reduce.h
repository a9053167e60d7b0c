/* reduce: sums and their kin over axes, places of extremes, running sums.
 * Order    rows of the last axis are folded in lanes, pieces of 4,096 in double; kept last axes are summed row by row, in
 *          blocks of 64 steps, so that an error grows with the root of the block, not of the whole. Always the same order. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/cpu.h"

err reduce_bind(struct bind *); /* Reduce…, SumTo */
err arg_bind(struct bind *);    /* ArgMax, ArgMin */
err cumsum_bind(struct bind *);
