/* plan: what a bound graph needs to run: which values hold rows, where each lies in memory.
 * Memory   values live from the node that makes them to the last that reads them; those that live at the same time get
 *          places apart, largest first, each at the lowest place that is free. Views and in-place outputs share one place. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/device.h"

/* ranks_ok: the batch may be cut at all. Found by binding the graph to twice the rows and looking which shapes grow: inputs and
 * outputs along axis 0, others along any, as ONNX's recurrent layers have the batch on axis 1. sizes, batch: those of graph_bind,
 * and which is "batch". */
struct rows_plan {
    bool *split; /* by value of the graph: its axis 0 is (a multiple of) the batch's rows, cut with them */
    bool ranks_ok;
    bool apart; /* and no row sees another: no sums over the batch, inputs and outputs are made of rows */
    const char *why; /* if not: the op that must see all rows */
};
err plan_rows(const struct graph *, struct arena *, const int64_t *sizes, int batch, struct rows_plan *out);

enum home { HOME_ARENA, HOME_FIXED /* elsewhere: inputs, parameters, constants, outputs, gradients */ };
struct place {
    enum home home;
    int root;      /* the value whose memory this one shares (itself: its own) */
    size_t offset; /* of a root in the arena */
};
struct memory_plan {
    struct place *at; /* by value */
    size_t bytes;     /* of the arena */
};
/* fixed: by value, true where the memory is given from outside. */
err plan_memory(const struct graph *, const struct device_ops *, struct arena *, const bool *fixed,
                struct memory_plan *out);
