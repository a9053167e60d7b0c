/* graph: a model as ONNX means it, in memory: values, and nodes in an order in which they can run.
 * Flow     graph_read(bytes) or graph_new() + graph_input/param/add --> graph --graph_bind(batch = 32)--> every size a number
 *          --grad_build--> forward and gradient --program_new--> runs; graph_write(graph) --> bytes for the registry.
 * Owns     nothing: a graph, its names and its numbers live in the arena given; initialisers that were read point into the bytes.
 * Threads  one at a time; a graph that nobody changes may be read by many.
 * Errors   INVALID, TOO_LARGE, UNSUPPORTED; the text names the node.
 * Internal form: opset 20; graph_read lifts older nodes to it (and lowers newer ones) where that can be said. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/onnx.h"
#include "engine/tensor.h"

/* rank < 0: not known. d[i] ≥ 0: a size; d[i] < 0: the symbol graph->symbols.v[-1 - d[i]] ("batch"). */
struct shape {
    int rank;
    int64_t d[TENSOR_RANK_MAX];
};

enum value_kind {
    VALUE_NODE,  /* made by a node */
    VALUE_INPUT, /* given at each run */
    VALUE_PARAM, /* an initialiser that training changes */
    VALUE_STATE, /* an initialiser that runs change, not the gradient: running mean and variance */
    VALUE_CONST, /* an initialiser that nothing changes, or what folding found; data is there */
};
struct value {
    struct str name; /* unique in its graph */
    enum value_kind kind;
    enum tensor_type type;
    struct shape shape;
    const void
        *data; /* row-major, of CONST, PARAM and STATE; NULL: zeros (a PARAM to be filled by params_new) */
    double spread; /* of a PARAM without data: params_new's */
    int node;      /* that makes it; −1: none */
    bool nhwc;     /* rank 4: a device lowered it to lie as N, H, W, C; the shape still says N, C, H, W */
};

enum attr_type { ATTR_INT, ATTR_FLOAT, ATTR_TEXT, ATTR_INTS, ATTR_FLOATS, ATTR_TEXTS, ATTR_VALUE };
struct attr {
    const char *name;
    enum attr_type type;
    int64_t i; /* of ATTR_VALUE (a tensor): the id of a CONST value */
    float f;
    struct str s;
    const int64_t *is;
    const float *fs;
    const struct str *ss; /* borrowed */
    size_t n;             /* of is, fs and ss */
};

/* Ids of values; −1 stands for an optional input or output that is not there. */
struct node {
    const struct op *op; /* engine/ops.h */
    struct str name;
    int *in, *out;
    int n_in, n_out;
    struct attr *attrs;
    size_t n_attrs;
    int ordinal; /* its place when it was made; kept by copies, so that a copy draws the same random numbers */
};
struct graph_update { /* at the end of a training run state becomes what `from` is */
    int state, from;
};
struct graph {
    struct arena *a;
    struct str name;
    VEC(struct value) values;
    VEC(struct node) nodes; /* each after those whose outputs it takes */
    VEC(int) inputs, outputs;
    VEC(struct graph_update) updates;
    VEC(struct onnx_text) metadata;
    struct strs symbols;
    struct strs notes; /* what graph_read noticed and the user should know, as sentences */
    int64_t folded;    /* bytes that folding made; bounded, so that a small file cannot ask for much */
};

/* ---- building: ids of values go in and come out. A builder call that breaks a rule keeps the graph's first error and
 * returns −1, which later calls pass on, so a caller builds on and asks graph_error() once. ---- */
struct graph *graph_new(struct arena *a);
/* The first error of building or NULL. */
err graph_error(const struct graph *);
void graph_fail(struct graph *, err);
/* −1 − n for the symbol of that name: a dimension. */
int64_t graph_symbol(struct graph *, const char *name);
int graph_input(struct graph *, const char *name, enum tensor_type, struct shape);
/* data is borrowed; NULL: params_new fills it. */
int graph_param(struct graph *, struct str name, struct shape, const float *data);
int graph_state(struct graph *, struct str name, struct shape, const float *data);
/* Copies data. */
int graph_const(struct graph *, enum tensor_type, struct shape, const void *data);
int graph_f32(struct graph *, float);                       /* a scalar */
int graph_i64s(struct graph *, const int64_t *v, size_t n); /* a vector */
/* A node of n_in inputs and n_out outputs; its outputs are consecutive ids, the first is returned. Types and shapes are
 * inferred at once. attrs: ended by a row without a name; may be NULL; copied. */
int graph_add(struct graph *, const struct op *, const int *in, int n_in, int n_out,
              const struct attr *attrs);
/* graph_node(g, OP_Add, (x, y)): one output, no attributes. */
#define GRAPH_IDS(...) \
    ((const int[]){ __VA_ARGS__ }), (int)(sizeof((const int[]){ __VA_ARGS__ }) / sizeof(int))
#define graph_node(g, id, ...) graph_add((g), &op_table[id], GRAPH_IDS(__VA_ARGS__), 1, NULL)
/* graph_node_with(g, OP_Softmax, ATTRS({ "axis", ATTR_INT, .i = 1 }), x) */
#define ATTRS(...) ((const struct attr[]){ __VA_ARGS__, { 0 } })
#define graph_node_with(g, id, attrs, ...) graph_add((g), &op_table[id], GRAPH_IDS(__VA_ARGS__), 1, (attrs))
void graph_output(struct graph *, int value, struct str name);

#define SHAPE(...) \
    ((struct shape){ (int)(sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), { __VA_ARGS__ } })
#define SCALAR ((struct shape){ 0 })
/* Product of the sizes; −1 if one of them is no number. */
int64_t shape_count(const struct shape *);
bool shape_same(const struct shape *, const struct shape *);
/* "[batch, 3, 32, 32]" */
struct str shape_text(const struct graph *, struct arena *, const struct shape *);

/* ---- asking ---- */
static inline struct value *value_at(const struct graph *g, int id)
{
    return &g->values.v[id];
}
int graph_find(const struct graph *, struct str value_name); /* −1: there is none */
/* The attribute, or NULL; or its value, or the default. */
const struct attr *attr_find(const struct node *, const char *name);
int64_t attr_i(const struct node *, const char *name, int64_t def);
float attr_f(const struct node *, const char *name, float def);
struct str attr_s(const struct node *, const char *name, struct str def);
/* An axis attribute made non-negative; INVALID if it is outside of the rank. */
err attr_axis(const struct node *, const char *name, int64_t def, int rank, int *out);
/* A CONST value of whole numbers (I64 or I32) as I64 in a; false if it is none. */
bool value_i64s(const struct graph *, struct arena *, int id, const int64_t **v, size_t *n);

/* ---- ONNX ---- */
/* Reads and checks (onnx_check first), lifts to the internal opset, infers types and shapes. Float initialisers become
 * PARAM (running statistics of BatchNormalization: STATE; scalars and those that only shape rules read: CONST); what an
 * exporter makes of one weight by moving its elements (LSTM's gates in another order) is folded into one PARAM. The first
 * open dimension of the first input is "batch". The bytes must outlive the graph: names and aligned weights stay in them. */
err graph_read(struct arena *, struct str bytes, const struct onnx_limits *, struct graph **out);
/* As an inference model, opset 17 or the lowest that its ops need: without gradients, training ops rewritten to what they
 * do at inference (Dropout goes, BatchNormalization's training_mode 0). data by id: where PARAM and STATE stand now (params.h); NULL: value.data. */
err graph_write(const struct graph *, struct arena *, const void *const *data, struct str *out);

/* ---- rewriting ---- */
/* A copy in a, in which the symbols have these sizes (by graph->symbols) and all shapes are numbers; constants folded,
 * nodes that no output or update needs left out. UNSUPPORTED if a shape stays open. */
err graph_bind(const struct graph *, struct arena *, const int64_t *sizes, struct graph **out);
/* Open dimensions get other words in place: symbol i becomes dims[i], a size or a symbol (itself: −1 − i), and all shapes are
 * inferred anew. */
err graph_resize(struct graph *, const int64_t *dims);
/* Types and shapes of the outputs of node n, by its op's rule; folds what only needs constants. */
err graph_infer(struct graph *, int n);
/* Nothing is learned any more: PARAM and STATE with data become CONST, aligned to 64 bytes, so that what is made of them can be
 * made once: sums of constants when the graph is bound, weights in a kernel's own form when that is. */
void graph_freeze(struct graph *);
/* Leaves out nodes that no output or update needs. */
void graph_prune(struct graph *);
/* After nodes were moved or replaced: sets value.node again. */
void graph_renumber(struct graph *);
