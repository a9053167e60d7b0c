/* spec: the form of a training, as YAML and as the `with` of a job: one row per field. Included by train.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "schema/schema.h"

extern const char *const train_parts[];   /* as loader_part */
extern const char *const train_formats[]; /* as loader_format */
extern const char *const train_kinds[];   /* as loader_kind, behind "auto" */
extern const char *const train_norms[];   /* as loader_norm, behind "auto" */
extern const char *const train_missing[]; /* as loader_missing, behind "auto" */
extern const char *const train_activations[];
extern const char *const train_layer_norms[];
extern const char *const train_cells[];
extern const char *const train_pools[];
extern const char *const train_tasks[];
extern const char *const train_losses[];
extern const char *const train_optimizers[]; /* as optim_kind */
extern const char *const train_schedules[];  /* as schedule_kind */
extern const char *const train_precisions[]; /* as precision, behind "auto" */

enum activation { ACT_RELU, ACT_GELU, ACT_TANH, ACT_SIGMOID, ACT_SILU, ACT_LEAKY_RELU, ACT_ELU, ACT_NONE };
enum layer_norm { LAYER_NORM_NONE, LAYER_NORM_BATCH, LAYER_NORM_LAYER };
enum cell { CELL_LSTM, CELL_GRU };
enum pool { POOL_MEAN, POOL_FIRST, POOL_LAST };
enum task {
    TASK_AUTO,
    TASK_CLASSIFICATION,
    TASK_REGRESSION,
    TASK_LANGUAGE,
    TASK_AUTOENCODER,
    TASK_RANKING,
    TASK_EMBEDDING
};
enum loss_kind { LOSS_AUTO, LOSS_CROSS_ENTROPY, LOSS_MSE, LOSS_MAE, LOSS_HUBER, LOSS_PAIRWISE, LOSS_TRIPLET };
enum { TRAIN_AUTO }; /* the first of the lists that begin with "auto" */

// clang-format off
/* ---- models ---- */
#define TREES_WITH(F, O, L, T)                                                                                            \
    F(T, I64, rounds,           0, "Trees at most.", .def = "100", .min = 1, .max = 10000)                                \
    F(T, I64, depth,            0, "Depth of a tree.", .def = "6", .min = 1, .max = 16)                                   \
    F(T, F64, learning_rate,    0, "Weight of each new tree.", .def = "0.1", .min = 1e-4, .max = 1)                       \
    F(T, F64, subsample,        0, "Share of the rows that each tree sees.", .def = "1", .min = 0.01, .max = 1)           \
    F(T, F64, columns,          0, "Share of the features that each tree sees.", .def = "1", .min = 0.01, .max = 1)       \
    F(T, F64, min_child_weight, 0, "Least sum of second derivatives in a leaf.", .def = "1", .min = 0, .max = 1e9)        \
    F(T, F64, l2,               0, "L2 penalty on leaves (XGBoost's lambda).", .def = "1", .min = 0, .max = 1e9)          \
    F(T, I64, stop_after,       0, "Rounds without a better look at the rows held out before it stops, as earlyStop.patience; 0: never.", .def = "0", .min = 0, .max = 10000) \
    F(T, I64, bins,             0, "Bins of a feature's histogram.", .def = "256", .min = 2, .max = 1024)                 \
    F(T, I64, seed,             0, "Seed of the samples; the same seed gives the same model. 0: the form's.", .def = "0", .min = 0, .max = 2147483647)
#define MLP_WITH(F, O, L, T)                                                                                              \
    F(T, JSON, hidden,     0, "Widths of the hidden layers.", .def = "[256, 128]", .len_max = 1000)                       \
    F(T, ENUM, activation, 0, "Between the layers.", .values = train_activations, .def = "relu")                          \
    F(T, ENUM, norm,       0, "Normalisation before each activation.", .values = train_layer_norms, .def = "none")        \
    F(T, F64,  dropout,    0, "Share of each hidden layer that is left out at each step.", .def = "0", .min = 0, .max = 0.95) \
    F(T, I64,  embedding,  0, "Width of each category's embedding; 0: by its number of values, 1.6 n^0.56 and at most 50.", .def = "0", .min = 0, .max = 4096)
#define TABULAR_RESNET_WITH(F, O, L, T)                                                                                   \
    F(T, I64,  width,      0, "Width of the residual stream.", .def = "128", .min = 1, .max = 16384)                      \
    F(T, I64,  blocks,     0, "Residual blocks.", .def = "3", .min = 1, .max = 200)                                       \
    F(T, F64,  hidden,     0, "Width inside of a block, as a multiple.", .def = "2", .min = 0.1, .max = 16)               \
    F(T, F64,  dropout,    0, "Share left out inside of a block.", .def = "0.1", .min = 0, .max = 0.95)                   \
    F(T, I64,  embedding,  0, "Width of each category's embedding; 0: by its number of values.", .def = "0", .min = 0, .max = 4096)
#define CNN_WITH(F, O, L, T)                                                                                              \
    F(T, JSON, channels,   0, "Channels of the stages; each is two convolutions (one, if it is a single) and a pooling by 2.", .def = "[32, 64, 128]", .len_max = 1000) \
    F(T, I64,  layers,     0, "Convolutions in a stage.", .def = "2", .min = 1, .max = 16)                                \
    F(T, I64,  kernel,     0, "Side of a convolution, odd.", .def = "3", .min = 1, .max = 31)                             \
    F(T, ENUM, norm,       0, "batch, or none.", .values = train_layer_norms, .def = "batch")                             \
    F(T, I64,  dense,      0, "Width of the dense layer before the last; 0: none.", .def = "128", .min = 0, .max = 65536) \
    F(T, F64,  dropout,    0, "Share left out before the last layer.", .def = "0.25", .min = 0, .max = 0.95)
#define RESNET_WITH(F, O, L, T)                                                                                           \
    F(T, I64,  depth,      0, "6n + 2 (8, 20, 32, 44, 56, 110: three stages, for small images), or 18, 34 (four stages, for large ones).", .def = "20", .min = 8, .max = 200) \
    F(T, I64,  width,      0, "Channels of the first stage; 0: 16, or 64 for 18 and 34.", .def = "0", .min = 0, .max = 1024)
#define MOBILENET_WITH(F, O, L, T)                                                                                        \
    F(T, F64,  width,      0, "Multiple of the channels.", .def = "1", .min = 0.1, .max = 4)                              \
    F(T, F64,  dropout,    0, "Share left out before the last layer.", .def = "0.2", .min = 0, .max = 0.95)               \
    F(T, BOOL, small,      0, "For images of about 32 pixels: the first strides are 1.", .def = "true")
#define LSTM_WITH(F, O, L, T)                                                                                             \
    F(T, ENUM, cell,       0, "lstm or gru.", .values = train_cells, .def = "lstm")                                       \
    F(T, I64,  width,      0, "Width of the state.", .def = "128", .min = 1, .max = 16384)                                \
    F(T, I64,  layers,     0, "Layers.", .def = "1", .min = 1, .max = 32)                                                 \
    F(T, I64,  embedding,  0, "Width of a token's embedding.", .def = "64", .min = 1, .max = 16384)                       \
    F(T, F64,  dropout,    0, "Share left out between layers and before the last.", .def = "0", .min = 0, .max = 0.95)    \
    F(T, ENUM, pool,       0, "What the answer is made of.", .values = train_pools, .def = "last")
#define TRANSFORMER_ENCODER_WITH(F, O, L, T)                                                                              \
    F(T, I64,  layers,     0, "Layers.", .def = "4", .min = 1, .max = 200)                                                \
    F(T, I64,  width,      0, "Width of the residual stream.", .def = "128", .min = 1, .max = 65536)                      \
    F(T, I64,  heads,      0, "Heads of attention; they share the width.", .def = "4", .min = 1, .max = 512)              \
    F(T, I64,  feedforward, 0, "Width inside; 0: 4 times the width.", .def = "0", .min = 0, .max = 262144)                \
    F(T, F64,  dropout,    0, "Share left out behind attention and feed-forward.", .def = "0.1", .min = 0, .max = 0.95)   \
    F(T, ENUM, pool,       0, "What the answer is made of.", .values = train_pools, .def = "mean")
#define GPT_WITH(F, O, L, T)                                                                                              \
    F(T, I64,  layers,     0, "Layers.", .def = "4", .min = 1, .max = 200)                                                \
    F(T, I64,  width,      0, "Width of the residual stream.", .def = "128", .min = 1, .max = 65536)                      \
    F(T, I64,  heads,      0, "Heads of attention; they share the width.", .def = "4", .min = 1, .max = 512)              \
    F(T, F64,  dropout,    0, "Share left out behind attention and feed-forward.", .def = "0", .min = 0, .max = 0.95)     \
    F(T, BOOL, tied,       0, "The last layer is the embedding of the tokens, transposed.", .def = "true")                \
    F(T, I64,  vocabulary, 0, "Ids that there are; 0: as many as the data has.", .def = "0", .min = 0, .max = 1e7)
#define AUTOENCODER_WITH(F, O, L, T)                                                                                      \
    F(T, JSON, hidden,     0, "Widths of the encoder's layers; the decoder mirrors them.", .def = "[128]", .len_max = 1000) \
    F(T, I64,  latent,     0, "Width in the middle.", .def = "16", .min = 1, .max = 65536)                                \
    F(T, ENUM, activation, 0, "Between the layers.", .values = train_activations, .def = "relu")
#define ONNX_WITH(F, O, L, T)                                                                                             \
    F(T, STR,  file,       0, "The model file.", .len_max = 4096)                                                         \
    F(T, STR,  blob,       0, "Or the blob of a version: `dhow get modelversion late.1 -o yaml` says it as spec.onnx.", .len_max = 64) \
    F(T, STRS, freeze,     0, "Parameters whose name matches one of these patterns ('*' is any text) stay as they are.")  \
    F(T, STR,  head,       0, "Name of the value that a new last layer is put on; empty: the model's own output is trained.", .len_max = 512)
#define TRAIN_MODEL(F, O, L, T)                                                                                           \
    O(T, trees_with, trees, 0, "Gradient-boosted trees (XGBoost, histograms).")                            \
    O(T, mlp_with, mlp, 0, "Dense layers over numbers and embedded categories.")                                          \
    O(T, tabular_resnet_with, tabular_resnet, 0, "Residual dense blocks over the same.", .name = S_INIT("tabular-resnet"), .verbatim = true) \
    O(T, cnn_with, cnn, 0, "Convolutions and poolings over images.")                                                      \
    O(T, mobilenet_with, mobilenet, 0, "MobileNet v2: inverted residuals with depthwise convolutions.")                   \
    O(T, resnet_with, resnet, 0, "ResNet of basic blocks.")                                                               \
    O(T, lstm_with, lstm, 0, "LSTM or GRU over sequences of numbers or tokens.")                                          \
    O(T, transformer_encoder_with, transformer_encoder, 0, "Pre-norm transformer that sees all places, for classes.", .name = S_INIT("transformer-encoder"), .verbatim = true) \
    O(T, gpt_with, gpt, 0, "Pre-norm transformer that predicts the next token (GPT-2).")                                  \
    O(T, autoencoder_with, autoencoder, 0, "Dense encoder and decoder that give back their input.")                       \
    O(T, onnx_with, onnx, 0, "Go on with a model that is there.")

/* ---- data ---- */
#define TRAIN_FILE(F, O, L, T)                                                                                            \
    F(T, STR,  path,   REQUIRED, "The file, from where the YAML lies.", .len_max = 4096)                                  \
    F(T, ENUM, format, 0, "How it is written; auto: seen from its first bytes or its name.", .values = train_formats, .def = "auto") \
    F(T, ENUM, part,   0, "train: split as `split` says; valid, test: all of its rows are for that.", .values = train_parts, .def = "train") \
    F(T, STR,  column, 0, "For arrays (IDX, .npy): the name of the column that it is.", .len_max = 200)
#define TRAIN_DATA(F, O, L, T)                                                                                            \
    F(T, STR,  path,   0, "One file: Parquet, CSV, text.", .len_max = 4096)                                               \
    L(T, train_file, files, 0, "Or several.", .len_max = 1000)                                                            \
    F(T, STRS, categories, 0, "Columns whose values are categories (text, codes), for embeddings.")                       \
    F(T, SIZE, memory, 0, "Rows kept in memory; what is more is read again in each epoch.", .def = "2Gi", .min = 1048576, .max = 1e15)
#define TRAIN_INPUT(F, O, L, T)                                                                                           \
    F(T, STR,  name,       REQUIRED, "Its name in the model.", .len_max = 200)                                            \
    F(T, ENUM, kind,       0, "numbers, categories, array (images, vectors), tokens (a stream of text or ids).", .values = train_kinds, .def = "numbers") \
    F(T, STRS, columns,    0, "Its columns; numbers: none means all that nobody else names.")                             \
    F(T, ENUM, normalise,  0, "auto: standard for numbers and arrays of them; image: x / 255.", .values = train_norms, .def = "auto") \
    F(T, ENUM, missing,    0, "What stands for a missing number.", .values = train_missing, .def = "auto")                \
    F(T, F64,  fill,       0, "The number for missing: fill.", .def = "0")                                                \
    F(T, BOOL, indicator,  0, "As many columns more that say where one was missing.", .def = "false")                     \
    F(T, BOOL, ids,        0, "An array of whole numbers that name things: for embeddings.", .def = "false")              \
    F(T, JSON, shape,      0, "Of one row of an array: [channels, height, width].", .def = "[]", .len_max = 200)          \
    F(T, I64,  length,     0, "Tokens in a window.", .def = "64", .min = 1, .max = 1048576)
#define TRAIN_LOSS_WITH(F, O, L, T)                                                                                       \
    F(T, F64,  delta,    0, "Of huber: where squares become straight.", .def = "1", .min = 1e-6, .max = 1e9)              \
    F(T, F64,  margin,   0, "Of triplet: how much farther another label's row should be; 0: 0.2. Of pairwise: by how much the better should score more; 0: logistic, without one.", .def = "0", .min = 0, .max = 1e9)
#define TRAIN_SPLIT(F, O, L, T)                                                                                           \
    F(T, F64,  valid,    0, "Share of the rows that is held out to watch the training.", .def = "0.1", .min = 0, .max = 0.9) \
    F(T, F64,  test,     0, "Share that is looked at only at the end.", .def = "0", .min = 0, .max = 0.9)                 \
    F(T, STR,  group,    0, "Rows with the same value of this column stay together.", .len_max = 200)                     \
    F(T, STR,  at,       0, "Column of the event time: the split is by time, the last `holdout` is held out.", .len_max = 200) \
    F(T, STR,  known,    0, "Column of when the label became known.", .len_max = 200)

/* ---- how ---- */
#define TRAIN_OPTIMIZER(F, O, L, T)                                                                                       \
    F(T, ENUM, kind,       0, "How gradients change the parameters.", .values = train_optimizers, .def = "adamw")         \
    F(T, F64,  rate,       0, "Learning rate, at its peak; 0: 0.001 (sgd: 0.1, adagrad: 0.01, gpt: 0.0006).", .def = "0", .min = 0, .max = 100) \
    F(T, F64,  momentum,   0, "Of sgd.", .def = "0.9", .min = 0, .max = 0.9999)                                           \
    F(T, BOOL, nesterov,   0, "Of sgd: look ahead.", .def = "false")                                                      \
    F(T, F64,  beta1,      0, "Of adam, adamw, lamb: first moment.", .def = "0.9", .min = 0, .max = 0.9999)               \
    F(T, F64,  beta2,      0, "Second moment.", .def = "0.999", .min = 0, .max = 0.999999)                                \
    F(T, F64,  epsilon,    0, "Least denominator.", .def = "1e-8", .min = 1e-16, .max = 1)                                \
    F(T, F64,  decay,      0, "Weight decay, of matrices and kernels only.", .def = "0.01", .min = 0, .max = 10)          \
    F(T, STRS, no_decay,   0, "Parameters whose name matches one of these patterns ('*' is any text) do not decay.")          \
    F(T, F64,  clip,       0, "Greatest norm of all gradients together; 0: no bound.", .def = "0", .min = 0, .max = 1e9)  \
    F(T, F64,  ema,        0, "Average of the weights that is kept beside and exported, 0.999; 0: none.", .def = "0", .min = 0, .max = 0.99999) \
    F(T, I64,  accumulate, 0, "Batches whose gradients make one step; fewer at an epoch's end, if it has no more.", .def = "1", .min = 1, .max = 65536)
#define TRAIN_SCHEDULE(F, O, L, T)                                                                                        \
    F(T, ENUM, kind,   0, "How the rate goes over the training.", .values = train_schedules, .def = "cosine")             \
    F(T, F64,  warmup, 0, "Steps from 0 to the rate; below 1: a share of all steps.", .def = "0.05", .min = 0, .max = 1e9) \
    F(T, I64,  every,  0, "Of step: steps between two falls; 0: a third of the training.", .def = "0", .min = 0, .max = 1e12) \
    F(T, F64,  factor, 0, "Of step: 0.1; cosine, linear: the last rate as a share of the peak; oneCycle: peak / first rate.", .min = 0, .max = 1e6)
#define TRAIN_STOP(F, O, L, T)                                                                                            \
    F(T, STR,  metric,    0, "What is watched, on the rows held out; empty: the loss.", .len_max = 64)                    \
    F(T, I64,  patience,  0, "Looks without a better one before it stops; 0: never.", .def = "0", .min = 0, .max = 1e6)   \
    F(T, F64,  min_delta, 0, "What counts as better.", .def = "0", .min = 0, .max = 1e9)
#define TRAIN_CHECKPOINT(F, O, L, T)                                                                                      \
    F(T, I64,  every, 0, "Steps between two; 0: at the end of each epoch.", .def = "0", .min = 0, .max = 1e12)            \
    F(T, I64,  keep,  0, "The last so many stay, and the best.", .def = "2", .min = 1, .max = 1000)
#define TRAIN_RESOURCES(F, O, L, T)                                                                                       \
    F(T, I64,  cpu,    0, "Cores of the job that a pipeline makes of this step; a Job says it in its own spec.", .def = "0", .min = 0, .max = 4096) \
    F(T, SIZE, memory, 0, "Memory of that job.", .def = "0", .min = 0, .max = 1e15)
#define TRAIN_WITH(F, O, L, T)                                                                                            \
    F(T, REF,      rows,    0, "The version to learn from, of a TrainingSet or of any Dataset.", .ref = "DatasetVersion")                      \
    F(T, DURATION, holdout, 0, "The last part, by event time, that is held out: of a training set, and where split.at says the time.", .min = 0, .max = 1e12) \
    O(T, train_model, model, REQUIRED, "What to train: one of them.")                                                     \
    O(T, train_resources, resources, 0, "What it may use.")                                                               \
    O(T, train_data, data,  0, "Files to learn from, where no server is; and how.")                                                \
    L(T, train_input, inputs, 0, "What the model sees; none: all columns of numbers, the images, the text.", .len_max = 30) \
    F(T, STR,      label,   0, "Column that is to be predicted; a training set has its own.", .len_max = 200)             \
    F(T, STR,      weight,  0, "Column of the rows' weights.", .len_max = 200)                                            \
    F(T, ENUM,     task,    0, "auto: by the model and the loss, else classification.", .values = train_tasks, .def = "auto") \
    F(T, ENUM,     loss,    0, "auto: crossEntropy for classes and tokens, mse for numbers, pairwise for ranking, triplet for embedding.", .values = train_losses, .def = "auto") \
    O(T, train_loss_with, loss_with, 0, "Numbers of the loss.")                                                           \
    F(T, I64,      outputs, 0, "Of task embedding: how many numbers stand for a row.", .def = "64", .min = 1, .max = 65536) \
    F(T, JSON,     class_weights, 0, "\"balanced\", or a list of one weight a class.", .def = "[]", .len_max = 65536)     \
    F(T, F64,      label_smoothing, 0, "Share of each label that is spread over all classes.", .def = "0", .min = 0, .max = 0.9) \
    O(T, train_split, split, 0, "What is held out.")                                                                      \
    F(T, STRS,     metrics, 0, "What is measured on the rows held out, beside what fits the task by itself: f1, recall, topK, ….") \
    O(T, train_optimizer, optimizer, 0, "How it learns.")                                                                 \
    O(T, train_schedule, schedule, 0, "How fast, over time.")                                                             \
    F(T, I64,      epochs,  0, "Passes over the data.", .def = "10", .min = 1, .max = 1e6)                                \
    F(T, I64,      steps,   0, "Or so many steps; 0: by epochs.", .def = "0", .min = 0, .max = 1e12)                      \
    F(T, JSON,     batch_size, 0, "Rows of a batch, or \"auto\": the fastest that fits, found by trial; the rate is scaled with it. A training that is gone on with keeps its own.", .def = "0", .len_max = 20) \
    F(T, ENUM,     precision, 0, "auto: bf16 where a short trial finds it faster.", .values = train_precisions, .def = "auto") \
    F(T, SIZE,     memory,  0, "Bound of what the model, its gradients and activations may take; 0: the job's.", .def = "0", .min = 0, .max = 1e15) \
    F(T, BOOL,     deterministic, 0, "Nothing is decided by measured times; a resumed training has the bits of one that never stopped.", .def = "false") \
    F(T, I64,      seed,    0, "Of weights, order and dropout.", .def = "1", .min = 0, .max = 9e15)                       \
    F(T, I64,      threads, 0, "0: the job's cores.", .def = "0", .min = 0, .max = 256)                                   \
    F(T, I64,      evaluate_every, 0, "Steps between two looks at the rows held out; 0: at the end of each epoch.", .def = "0", .min = 0, .max = 1e12) \
    O(T, train_stop, early_stop, 0, "When to stop before the end, and what the best is.")                                 \
    O(T, train_checkpoint, checkpoint, 0, "What is kept to go on from.")                                                  \
    F(T, BOOL,     profile, 0, "Write profile.json (Chrome, Perfetto) and a table of the operators.", .def = "false")

/* What a run gives, in Job.status.result: texts, some of them JSON. */
#define TRAIN_OUTPUTS(F, O, L, T)                                                                                         \
    F(T, STR, rows,      REQUIRED, "The version it learned from.")                                         \
    F(T, STR, onnx,      REQUIRED, "Blob: the model as ONNX.", .len_max = 64)                                             \
    F(T, STR, native,    0, "Blob: the model as XGBoost's JSON; empty for networks.", .len_max = 64)                      \
    F(T, STR, baseline,  REQUIRED, "Blob: baseline.json of the training rows (engine/baseline.h).", .len_max = 64)        \
    F(T, STR, profile,   0, "Blob: profile.json, where the form asks for it.", .len_max = 64)                             \
    F(T, STR, signature, REQUIRED, "JSON: {inputs, outputs: [{name, type, shape}], features: [names in order], categories: [names of the texts]}.", .len_max = 1048576) \
    F(T, STR, params,    REQUIRED, "JSON: parameters of the model, defaults included.", .len_max = 65536)                 \
    F(T, STR, metrics,   REQUIRED, "JSON: auc, logLoss, calibrationError, … on the rows held out; trainLogLoss.", .len_max = 65536) \
    F(T, STR, test,      0, "JSON: the same on the rows of split.test, which nothing was decided by; empty: there are none.", .len_max = 65536) \
    F(T, STR, facts,     REQUIRED, "JSON: rounds, bestRound, trainSeconds, trainRows, validRows, notYetKnownRows, from, split, until, xgboost; networks: steps, epochs, precision, batchSize, parameters, parityMaxRelative, ….", .len_max = 65536)
// clang-format on
SCHEMA(trees_with, TREES_WITH);
SCHEMA(mlp_with, MLP_WITH);
SCHEMA(tabular_resnet_with, TABULAR_RESNET_WITH);
SCHEMA(cnn_with, CNN_WITH);
SCHEMA(resnet_with, RESNET_WITH);
SCHEMA(mobilenet_with, MOBILENET_WITH);
SCHEMA(lstm_with, LSTM_WITH);
SCHEMA(transformer_encoder_with, TRANSFORMER_ENCODER_WITH);
SCHEMA(gpt_with, GPT_WITH);
SCHEMA(autoencoder_with, AUTOENCODER_WITH);
SCHEMA(onnx_with, ONNX_WITH);
SCHEMA(train_model, TRAIN_MODEL);
SCHEMA(train_file, TRAIN_FILE);
SCHEMA(train_data, TRAIN_DATA);
SCHEMA(train_input, TRAIN_INPUT);
SCHEMA(train_loss_with, TRAIN_LOSS_WITH);
SCHEMA(train_split, TRAIN_SPLIT);
SCHEMA(train_optimizer, TRAIN_OPTIMIZER);
SCHEMA(train_schedule, TRAIN_SCHEDULE);
SCHEMA(train_stop, TRAIN_STOP);
SCHEMA(train_checkpoint, TRAIN_CHECKPOINT);
SCHEMA(train_resources, TRAIN_RESOURCES);
SCHEMA(train_with, TRAIN_WITH);
SCHEMA(train_outputs, TRAIN_OUTPUTS);

/* The member of train_model that a JSON text of it names: its key ("mlp"), and the field. INVALID unless it is exactly one. */
err train_model_chosen(struct arena *a, yyjson_val *model, const struct field **out);
/* The same of a whole form, which with was read from and which lies at `at`: INVALID that names the field, too, if it sets what the
 * model has no use for. */
err train_form_chosen(struct arena *a, struct str at, yyjson_val *form, const struct train_with *with,
                      const struct field **out);
/* Another value at a dotted path of a form ("optimizer.rate"); objects on the way are made where there are none. */
void form_put(yyjson_mut_doc *form, struct str path, yyjson_val *value);
/* What a form needs so that a job can train it, beyond what its fields say: INVALID names the field, at is where the form lies,
 * with its dot ("spec.with."). */
err train_job_check(struct arena *a, const struct train_with *, struct str at);
/* A JSON list of whole numbers from 1 to max. what: the path, for the error. */
err spec_sizes(struct arena *a, struct str json, const char *what, int64_t max, int64_t **v, size_t *n);
