/* cpu: the device that is always there. One row per op and group; a kernel is chosen when a node is bound, by types and shapes.
 * Kernels run on one thread, see their rank's rows only, allocate nothing; what they need beside tensors is rank->scratch. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/device.h"

struct cpu_kernel {
    int op;
    err (*bind)(struct bind *);
    unsigned in_place; /* bit i: output 0 may lie where input i lay, if sizes are equal */
    bool view;         /* output 0 is input 0's memory under another shape; run copies where p differs */
};
/* Each ended by a row without bind. */
extern const struct cpu_kernel cpu_math[], cpu_shape[], cpu_matrix[], cpu_image[], cpu_sequence[], cpu_loss[];

/* "MatMul 'MatMul_3' has no kernel for double here" */
err cpu_no_kernel(const struct bind *);
/* Shorthands of bind. */
static inline struct tensor *bind_in(const struct bind *b, int i)
{
    return i < b->step->n_in ? b->step->in[i] : NULL;
}
static inline struct tensor *bind_out(const struct bind *b, int i)
{
    return i < b->step->n_out ? b->step->out[i] : NULL;
}
