// SPDX-License-Identifier: Apache-2.0
#include "train/spec.h"

const char *const train_parts[] = { "train", "valid", "test", NULL };
const char *const train_formats[] = { "auto", "parquet", "csv", "idx", "npy", "text", NULL };
const char *const train_kinds[] = { "numbers", "categories", "array", "class", "tokens", NULL };
const char *const train_norms[] = { "auto", "none", "standard", "minmax", "image", NULL };
const char *const train_missing[] = { "auto", "error", "mean", "fill", "skip", NULL };
const char *const train_activations[] = { "relu",      "gelu", "tanh", "sigmoid", "silu",
                                          "leakyRelu", "elu",  "none", NULL };
const char *const train_layer_norms[] = { "none", "batch", "layer", NULL };
const char *const train_cells[] = { "lstm", "gru", NULL };
const char *const train_pools[] = { "mean", "first", "last", NULL };
const char *const train_tasks[] = { "auto",        "classification", "regression", "language",
                                    "autoencoder", "ranking",        "embedding",  NULL };
const char *const train_losses[] = { "auto",  "crossEntropy", "mse",     "mae",
                                     "huber", "pairwise",     "triplet", NULL };
const char *const train_optimizers[] = { "sgd", "adam", "adamw", "lamb", "adagrad", NULL };
const char *const train_schedules[] = { "constant", "cosine", "linear", "step", "oneCycle", NULL };
const char *const train_precisions[] = { "auto", "fp32", "bf16", "fp16", NULL };

SCHEMA_TABLE(trees_with, TREES_WITH, "Gradient-boosted trees.");
SCHEMA_TABLE(mlp_with, MLP_WITH, "Dense layers.");
SCHEMA_TABLE(tabular_resnet_with, TABULAR_RESNET_WITH, "Residual dense blocks.");
SCHEMA_TABLE(cnn_with, CNN_WITH, "Convolutions and poolings.");
SCHEMA_TABLE(resnet_with, RESNET_WITH, "ResNet of basic blocks.");
SCHEMA_TABLE(mobilenet_with, MOBILENET_WITH, "MobileNet v2.");
SCHEMA_TABLE(lstm_with, LSTM_WITH, "LSTM or GRU.");
SCHEMA_TABLE(transformer_encoder_with, TRANSFORMER_ENCODER_WITH, "A transformer that sees all places.");
SCHEMA_TABLE(gpt_with, GPT_WITH, "A transformer that predicts the next token.");
SCHEMA_TABLE(autoencoder_with, AUTOENCODER_WITH, "A dense autoencoder.");
SCHEMA_TABLE(onnx_with, ONNX_WITH, "A model that is there.");
SCHEMA_TABLE(train_model, TRAIN_MODEL, "What to train.");
SCHEMA_TABLE(train_file, TRAIN_FILE, "A file of rows.");
SCHEMA_TABLE(train_data, TRAIN_DATA, "Files to learn from.");
SCHEMA_TABLE(train_input, TRAIN_INPUT, "One input of the model.");
SCHEMA_TABLE(train_loss_with, TRAIN_LOSS_WITH, "Numbers of the loss.");
SCHEMA_TABLE(train_split, TRAIN_SPLIT, "What is held out.");
SCHEMA_TABLE(train_optimizer, TRAIN_OPTIMIZER, "How it learns.");
SCHEMA_TABLE(train_schedule, TRAIN_SCHEDULE, "How the rate goes.");
SCHEMA_TABLE(train_stop, TRAIN_STOP, "When to stop.");
SCHEMA_TABLE(train_checkpoint, TRAIN_CHECKPOINT, "What is kept.");
SCHEMA_TABLE(train_resources, TRAIN_RESOURCES, "What a job may use.");
SCHEMA_TABLE(train_with, TRAIN_WITH, "Parameters of `train`.");
SCHEMA_TABLE(train_outputs, TRAIN_OUTPUTS, "What `train` gives.");

err train_model_chosen(struct arena *a, yyjson_val *model, const struct field **out)
{
    yyjson_val *key;
    struct strs names = { 0 };
    *out = NULL;
    for (size_t i = 0; i < train_model_schema.n; i++)
        push(a, &names, field_key(a, &train_model_schema.fields[i]));
    struct str list = str_join(a, names.v, names.n, S(", "));
    yyjson_obj_iter members = yyjson_obj_iter_with(model); /* model may be missing */
    while ((key = yyjson_obj_iter_next(&members))) {
        struct str k = json_text(key);
        if (yyjson_is_null(yyjson_obj_iter_get_val(key)))
            continue;
        if (*out)
            return err_field(err_new(INVALID, "model names two of %.*s: choose one", STR(list)), S("model"));
        for (size_t f = 0; f < names.n; f++)
            if (str_eq(names.v[f], k))
                *out = &train_model_schema.fields[f];
    }
    if (!*out)
        return err_field(
            err_hint(err_new(INVALID, "model names none of %.*s", STR(list)), "model: {mlp: {}}"),
            S("model"));
    return NULL;
}

void form_put(yyjson_mut_doc *form, struct str path, yyjson_val *value)
{
    yyjson_mut_val *at = yyjson_mut_doc_get_root(form), *next;
    for (struct str part; str_cut(&path, '.', &part); at = next) {
        yyjson_mut_val *key = yyjson_mut_strncpy(form, part.p, part.n);
        if (!path.n) {
            yyjson_mut_obj_put(at, key, yyjson_val_mut_copy(form, value));
            return;
        }
        next = yyjson_mut_obj_getn(at, part.p, part.n);
        if (!yyjson_mut_is_obj(next)) {
            next = yyjson_mut_obj(form);
            yyjson_mut_obj_put(at, key, next);
        }
    }
}

err train_job_check(struct arena *a, const struct train_with *with, struct str at)
{
    static const char make[] =
        "a Source and a Dataset of them (dhow apply), a job of type ingest, then rows: NAME.1";
    if (with->data.path.n || with->data.files.n)
        return err_field(
            err_hint(err_new(INVALID, "%.*sdata: a server does not see these files", STR(at)), make),
            fmt(a, "%.*sdata", STR(at)));
    if (!with->rows.n)
        return err_field(err_hint(err_new(INVALID, "%.*srows: what to learn from is not said", STR(at)),
                                  "rows: late.3, a version of a Dataset or a TrainingSet"),
                         fmt(a, "%.*srows", STR(at)));
    if (with->model.onnx.file.n)
        return err_field(
            err_hint(err_new(INVALID, "%.*smodel.onnx.file: a server does not see this file", STR(at)),
                     "blob: what `dhow get modelversion late.1 -o yaml` shows as spec.onnx"),
            fmt(a, "%.*smodel.onnx.file", STR(at)));
    return NULL;
}

err spec_sizes(struct arena *a, struct str json, const char *what, int64_t max, int64_t **v, size_t *n)
{
    yyjson_val *list, *one;
    size_t i, count;
    TRY(json_parse(a, json, &list));
    if (!yyjson_is_arr(list))
        FAIL(INVALID, "%s is no list of whole numbers", what);
    *n = yyjson_arr_size(list);
    *v = NEW_N(a, int64_t, *n + 1);
    yyjson_arr_foreach (list, i, count, one) {
        if (!yyjson_is_int(one) || yyjson_get_sint(one) < 1 || yyjson_get_sint(one) > max)
            FAIL(INVALID, "%s: item %zu is no whole number from 1 to %lld", what, i, (long long)max);
        (*v)[i] = yyjson_get_sint(one);
    }
    return NULL;
}
