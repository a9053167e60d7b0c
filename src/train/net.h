/* net: networks from a line of YAML: one row of a table per family, which builds the body of the graph; what stands before it
 * (filling, normalising, embeddings) and behind it (last layer, loss, probabilities) is the same for all.
 * Flow     train_model + inputs + task --net_build(NET_TRAIN)--> a graph with its loss; NET_EVAL: the same without dropout and
 *          with running statistics; NET_EXPORT: NET_EVAL that takes raw numbers. Parameters have the same names in all three.
 * Names    "block.weight", "block.bias", "block.scale"; symbol "batch" is the number of rows.
 * Owns     nothing; graphs live in the arena given. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"
#include "train/spec.h"

enum net_mode { NET_TRAIN, NET_EVAL, NET_EXPORT };
enum net_kind { NET_NUMBERS, NET_CATEGORIES, NET_ARRAY, NET_IDS };

/* One tensor of a batch: [batch, shape…]. */
struct net_tensor {
    struct str name;
    enum net_kind kind; /* NUMBERS, ARRAY: F32; CATEGORIES, IDS: I64 */
    int rank;           /* of one row */
    int64_t shape[4];
    /* NUMBERS, ARRAY: raw x becomes (x − shift[i / each]) × scale[i / each], and fill[i / each] where it is missing, then, with
     * indicator, as many columns that say so. NULL: nothing to do. */
    const float *shift, *scale, *fill;
    int64_t each;
    bool indicator;
    const int64_t *sizes; /* CATEGORIES: rows of each column's embedding */
    int64_t ids;          /* IDS: how many there are */
    /* What an exported model takes where the table has categories: numbers and categories that are numbers as one matrix, and
     * categories that are texts as another. By column: its place in the numbers, or −1 − its place in the texts; NULL: the
     * tensor itself is given. */
    const int *from;
    const struct strs *vocabulary; /* CATEGORIES: by column, texts in the order of their ids, from 2 */
};
/* The two matrices, by the names of their columns; none: there is no such input. */
struct net_given {
    struct str number, text; /* names of the inputs */
    struct strs numbers, texts;
};
struct net_task {
    enum task kind; /* CLASSIFICATION with binary: one output, its probability; without: one for each class */
    enum loss_kind loss;
    bool binary;
    int64_t outputs; /* classes, columns of the label, ids of the vocabulary, numbers of a point */
    double label_smoothing, delta, margin; /* of the loss; margin 0: its own */
    const float *class_weights;            /* outputs of them (binary: one, of the positive); NULL */
    const float
        *mean; /* REGRESSION: what the body learns is (label − mean) / deviation; NULL: the label itself */
    double deviation;
    bool weighted, grouped; /* there is an input of the rows' weights, of their groups */
    struct str onnx;        /* onnx: {…}: the model to go on from */
    struct net_given given; /* of the exported model */
};
#define NET_MOMENTUM 0.9 /* of running statistics */
/* A category that is a number; NaN if the text is none. */
double net_category_number(struct str text);
/* Can an exported model take them as numbers: all whole, exact as floats, and not far apart? */
bool net_category_numbers(const struct strs *vocabulary);
struct net {
    struct graph *g;
    enum net_mode mode;
    const struct net_tensor *inputs;
    size_t n_inputs;
    const struct net_task *task;
    const struct train_model *model;
    int *x;      /* values by input, as the body sees them */
    bool *texts; /* onnx: by input, whether the exported model takes it as texts; NULL: of none */
    int loss;    /* NET_TRAIN; else −1 */
    int output;  /* before the last activation */
    int dropouts;
};
/* Its inputs are those given, in order, then (NET_TRAIN) label, weight, group as the task says. NET_EVAL and NET_EXPORT have one
 * output: "probability", "value", "logits" or "embedding". INVALID that says what the family wants. */
err net_build(struct arena *a, const struct train_model *, const struct field *chosen,
              const struct net_tensor *, size_t n, const struct net_task *, enum net_mode, struct net *out);
/* Does the family stand for images, sequences of ids, …: what inputs it wants where the form says none. */
enum net_wants { WANTS_TABLE, WANTS_IMAGE, WANTS_SEQUENCE, WANTS_STREAM, WANTS_ANY };
enum net_wants net_wants(const struct field *chosen);
/* onnx: {freeze: […]}: those whose name matches stay as they are. */
void net_freeze(const struct train_model *, const struct field *chosen, struct params *);
/* optimizer: {noDecay: […]}: those whose name matches do not decay. INVALID for a pattern that none matches. */
err net_no_decay(const struct strs *patterns, struct params *);
/* Where the body learns (label − mean) / deviation: the deviation, and what a loss of it is times in the label's own unit. Else 1. */
double net_unit(const struct net_task *);
double net_loss_unit(const struct net_task *);
/* rows × outputs of labels → what the body learns. Of a task with a mean. */
void net_label(const struct net_task *, const float *label, int64_t rows, float *out);
/* A learning rate that fits the family; 0: the optimiser's own. */
double net_rate(const struct field *chosen);

/* ---- for the families: builder calls pass −1 on, errors stay in the graph ---- */
#define NN(n, op, ...) net_op((n), (op), NULL, 1, GRAPH_IDS(__VA_ARGS__))
#define NN_WITH(n, op, attrs, ...) net_op((n), (op), (attrs), 1, GRAPH_IDS(__VA_ARGS__))
/* A node by name, of ONNX or else our own. */
int net_op(struct net *, const char *op, const struct attr *, int n_out, const int *in, int n_in);
void net_fail(struct net *, err);
/* Filled with numbers of standard deviation std (0: with zeros), or as params_new does by itself (std < 0). */
int net_param(struct net *, struct str name, struct shape, double std);
int64_t net_last(const struct net *, int x); /* size of the last axis */
/* x W + b over the last axis. std: of W, below 0: He. */
int net_dense(struct net *, const char *name, int x, int64_t width, double std);
int net_conv(struct net *, const char *name, int x, int64_t channels, int64_t kernel, int64_t stride,
             int64_t groups, bool bias);
int net_batch_norm(struct net *, const char *name, int x);
int net_layer_norm(struct net *, const char *name, int x);
int net_norm(struct net *, enum layer_norm, const char *name, int x);
int net_activate(struct net *, enum activation, int x);
int net_dropout(struct net *, double share, int x);
int net_reshape(struct net *, int x, const int64_t *sizes, size_t n); /* 0: as it is, −1: the rest */
/* Rows of a table by id. */
int net_embed(struct net *, const char *name, int ids, int64_t rows, int64_t width, double std);
/* All inputs side by side as [batch, k]: numbers, arrays flattened, embedded categories. */
int net_table(struct net *, int64_t embedding);
/* The image, [batch, channels, height, width]. */
int net_image(struct net *);
/* The sequence as [batch, time, width]; ids are embedded. */
int net_sequence(struct net *, int64_t embedding, double std);
const char *net_name(struct net *, const char *f, ...) __attribute__((format(printf, 2, 3)));

struct net_family {
    const char *key; /* of model: {…} */
    enum net_wants wants;
    double rate;
    int (*build)(
        struct net *,
        const void *with); /* gives what the last layer takes, or with `whole` the last layer's output */
    bool whole;
};
int net_mlp(struct net *, const void *), net_tabular_resnet(struct net *, const void *),
    net_autoencoder(struct net *, const void *), net_cnn(struct net *, const void *),
    net_resnet(struct net *, const void *), net_mobilenet(struct net *, const void *),
    net_lstm(struct net *, const void *), net_transformer_encoder(struct net *, const void *),
    net_gpt(struct net *, const void *);
/* net_onnx_text.c: inputs of texts become ids, but in the exported form. UNSUPPORTED, INVALID: what is not looked up as dhow's own and
 * scikit-learn's models do, column by column; an input of another kind than the form's. */
err net_texts_take(struct net *);
/* net_onnx.c: takes the place of inputs and body: sets x and output. */
void net_onnx(struct net *, const struct onnx_with *);
