/* gradcheck: one row of a test table proves an op: its gradient against differences in F64, its kernels in F32 (each
 * instruction set that the machine has) and BF16 against F64.
 * Use      static const struct gradcheck rows[] = { { OP_Softmax, .attrs = ATTRS({ "axis", ATTR_INT, .i = 1 }),
 *                                                     .in = { { SHAPE(3, 5) } } } };
 *          TEST(softmax_and_friends) { GRADCHECK_ALL(rows); }
 * How      loss = Σ over outputs of Σ w · y with random w. F64: d loss / d x by grad_build beside five-point central
 *          differences. Then outputs and gradients of the same graph in F32 and BF16 beside those in F64. Inputs can be
 *          written exactly in BF16, so each type sees the same numbers. A type without a kernel (UNSUPPORTED) is passed over,
 *          F32 and F64 are not.
 * Nodes    run one by one as the device binds them, without its lowering, unless `lower` is set: then the whole graph
 *          goes through device->lower first (fusion), too. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/grad.h"
#include "engine/device.h"

enum { GRADCHECK_INPUTS = 12 };
struct gradcheck_in {
    struct shape shape;
    enum tensor_type type; /* NONE: the type that is being tested, random; another: of this type */
    double low, high; /* random numbers are from here to there; both 0: −2 … 2 (whole types: 0 … 3) */
    double apart;     /* distance that random numbers keep from 0, for kinks; at least 0.01 is wise */
    const double *values; /* instead of random ones */
    bool fixed;           /* no gradient is asked */
    bool constant;        /* a constant of the graph, no input: axes, shapes, bounds */
    bool absent;          /* an optional input that is not there */
};
struct gradcheck {
    int op;
    const struct attr *attrs;
    struct gradcheck_in
        in[GRADCHECK_INPUTS]; /* ends at the first that is neither shaped, given nor absent; see n_in */
    int n_in;                 /* 0: one */
    int n_out;                /* 0: one */
    double tolerance;         /* of gradients against differences; 0: 1e-6 */
    double f32,
        bf16;     /* of outputs against F64; gradients ten times that, at least 1e-5; 0: the op's own, 0.03 */
    bool forward; /* there is no gradient, or none is asked: kernels only */
    bool unseen;  /* outputs are not compared between types (they are random, or sorted by near-ties) */
};
/* Fails the test, naming op, row and what was wrong. */
void gradcheck(const struct gradcheck *, int row, const char *file);
#define GRADCHECK_ALL(rows)                                       \
    for (size_t i_ = 0; i_ < sizeof(rows) / sizeof *(rows); i_++) \
    gradcheck(&(rows)[i_], (int)i_, __FILE__)

/* A graph run node by node on one rank, without a program: for tests of kernels. */
struct graph_eval {
    struct graph *g;
    struct arena *a;
    struct tensor *t; /* by value; memory zeroed, constants filled */
    struct step *steps;
    size_t n;
    struct rank rank;
};
/* All shapes must be numbers. */
err graph_eval_new(struct arena *, struct graph *, struct graph_eval *out);
/* The first n nodes. */
void graph_eval_run(struct graph_eval *, size_t n);
double tensor_get(const struct tensor *, int64_t i);
void tensor_set(struct tensor *, int64_t i, double v);
