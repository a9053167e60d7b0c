/* device: where a program runs. A device is one struct device_ops and a folder: cpu/ today.
 * Flow     a bound graph --lower--> the device's own rewrites (fusions, layouts) --bind, node by node--> steps --run--> numbers
 * Owns     a device its memory and libraries; open for the life of the process.
 * Threads  bind: one thread; steps run on all ranks of a team at once, each with its own tensors. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"
#include "engine/team.h"

/* A value at run time, of one rank. Row-major, or N, H, W, C where nhwc; d is the shape as the graph says it. */
struct tensor {
    void *p;
    enum tensor_type type;
    bool nhwc;
    int rank;
    int64_t d[TENSOR_RANK_MAX];
    int64_t n; /* elements */
};

/* One node made ready: what runs, on what. Kernels allocate nothing and lock nothing. */
struct step {
    void (*run)(const struct step *, struct rank *);
    struct tensor **in, **out; /* NULL: not there */
    int n_in, n_out;
    void *state; /* what bind prepared: attributes, packed weights, primitives */
    size_t
        scratch; /* bytes that run wants at rank->scratch, 64-aligned; what stands there is left over from others */
    double flops, bytes; /* of one run, for the profile; bind sets flops of the heavy ops */
    bool
        whole; /* bind: run must see all rows of its rank at once, as it meets the other ranks; or had better */
    const struct op *op;
    struct str name;
};

/* What bind sees of a node. Inputs that are constants have their numbers at in[i]->p already; others get p later, but
 * type and shape stand. An output's type and shape stand, too. */
struct bind {
    struct arena *a; /* lives as long as the program */
    const struct graph *g;
    const struct node *n;
    struct step *step;
    int64_t rows, rows_rank, rows_all; /* that run sees, of this rank, of the whole batch; 0: not known */
};

struct device_ops {
    const char *name; /* "cpu" */
    /* must. Once for a process, before the others. UNAVAILABLE with a hint. */
    err (*open)(void);
    /* must. 64-aligned, zeroed; NULL: there is none left. */
    void *(*alloc)(size_t n);
    void (*free)(void *p, size_t n);
    /* May be NULL. Rewrites the bound graph before memory is planned; train: gradients are in it. */
    err (*lower)(struct graph *, bool train);
    /* must. Fills step: run, state, scratch, flops. UNSUPPORTED, naming op and type, if there is no kernel. */
    err (*bind)(struct bind *);
    /* must. device_multiplies (params.h). */
    bool (*multiplies)(enum tensor_type);
    /* must. device_convolves (params.h). */
    bool (*convolves)(void);
    /* must. Output 0 is input 0's memory under another shape (Reshape); the step copies if it is not. */
    bool (*view)(const struct op *);
    /* must. Which input may share its memory with output 0 if nobody reads it later (bit i: input i). */
    unsigned (*in_place)(const struct graph *, const struct node *);
};
extern const struct device_ops device_cpu; /* cpu/cpu.c */
