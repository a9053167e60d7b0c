/* ops: what a node can be. One row per op, O(name, domain, since, in_min, in_max, out_min, out_max, split, shape, grad,
 * tolerance, doc), in its group's ops_<group>.h; import, export, checks, autodiff, devices, docs and tests walk the table.
 * A row says: name (of ONNX, domain "", or our own, domain "ai.dhow"), the opset since which ONNX has this form, inputs
 * and outputs (least, most; −1: any number), how rows of a batch pass through it (enum split), the shape rule, the
 * gradient rule (NULL: no gradient flows), the tolerance of its kernels against float64 (relative, in F32).
 * ops_<group>.c has a group's rules, cpu/<group>.c its kernels. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/graph.h"

/* How a batch may be cut along axis 0 and given to several threads. What may lie along another axis is plan_rows' own. */
enum split {
    SPLIT_NONE, /* it must see all rows */
    SPLIT_EACH, /* element by element with broadcasting, or pieces joined along another axis */
    /* Batches are cut where every value's axis 0 grows with the batch, or does not grow at all (plan_rows): so rows pass
     * through Reshape [B,T,C] → [B T,C] and back, as axis 0 lies outermost on both sides, and not through what turns,
     * cuts or repeats along axis 0 (shape_mixes_rows). */
    SPLIT_FIRST, /* axis 0 of input 0 stays axis 0 of the outputs; other inputs are the same for all rows, or cut alike */
    SPLIT_TEAM, /* as FIRST; the kernel sums over the team what it needs of all rows (BatchNormalization, losses) */
};
struct grad;
struct op {
    const char *name, *domain;
    int id, since, in_min, in_max, out_min, out_max;
    enum split split;
    err (*shape)(struct graph *, struct node *); /* sets type and shape of the outputs; inputs' are known */
    err (*grad)(struct grad *);
    double tolerance;
    const char *doc;
};

/* What a gradient rule sees. All shapes are numbers. It appends nodes to g (graph_node…) and sets dx. */
struct grad {
    struct graph *g;
    struct node n;    /* a copy: g->nodes may move */
    const int *dy;    /* gradients of the outputs; −1: nothing flows from there */
    int *dx;          /* to be set for inputs with need; −1 (as it is at the start): zero */
    const bool *need; /* by input */
};

#define ONNX ""
#define OWN "ai.dhow"
#include "engine/ops_image.h"
#include "engine/ops_loss.h"
#include "engine/ops_math.h"
#include "engine/ops_matrix.h"
#include "engine/ops_sequence.h"
#include "engine/ops_shape.h"
#define OPS(O) OPS_MATH(O) OPS_SHAPE(O) OPS_MATRIX(O) OPS_IMAGE(O) OPS_SEQUENCE(O) OPS_LOSS(O)

#define O(name, ...) OP_##name,
enum op_id { OPS(O) OP_COUNT };
#undef O
extern const struct op op_table[OP_COUNT];
/* Texts to ids, at the head of a model that is served: it is written (graph_write), and no device runs it. */
#define ONNX_ML "ai.onnx.ml"
extern const struct op op_label_encoder;
/* NULL if there is none. domain: "" or "ai.onnx" for ONNX's. */
const struct op *op_find(struct str domain, struct str name);

/* BatchNormalization of a model as it is served becomes what training wants: statistics of the batch, and running ones that
 * follow them. */
err batch_norm_train(struct graph *, int node);

/* ---- helpers of shape rules ---- */
struct value *node_in(const struct graph *, const struct node *, int i);  /* NULL if it is not there */
struct value *node_out(const struct graph *, const struct node *, int i); /* NULL if nobody wants it */
/* "Conv 'conv1': what" */
__attribute__((format(printf, 3, 4), returns_nonnull)) err node_err(const struct graph *, const struct node *,
                                                                    const char *f, ...);
/* Sizes under numpy's rule; INVALID if they do not fit. */
err shape_broadcast(const struct graph *, const struct node *, const struct shape *, const struct shape *,
                    struct shape *out);
/* ---- helpers of gradient rules ---- */
/* dy summed over the axes along which x was broadcast, in x's shape. */
int grad_sum_to(struct graph *, int dy, int x);
