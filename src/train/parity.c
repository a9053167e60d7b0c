// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

enum { BATCH = 4096 };

/* What XGBoost says of the rows, `width` numbers of each. */
static err native_score(struct arena *a, struct str native, const float *x, size_t n, size_t features,
                        int threads, const float **out, size_t *width)
{
    struct xgb *xgb;
    struct xgb_data *data;
    struct xgb_model *model;
    struct trees trees;
    TRY(xgb_trees(a, native, &trees));
    *width = trees_outputs(&trees);
    TRY(xgb_open(a, &xgb));
    TRY(xgb_data_new(xgb, a, x, n, features, NULL, threads, &data));
    TRY(xgb_model_load(xgb, a, native, &model));
    TRY(xgb_model_set(model, "nthread", fmtz(a, "%d", threads)));
    return xgb_model_predict(model, data, *width, out);
}

/* The same rows through the exported model, n at most BATCH. */
static err onnx_score(struct arena *a, struct session *onnx, const float *x, size_t n, size_t features,
                      size_t width, const float **out)
{
    const struct session_info *info = session_describe(onnx);
    struct tensor in = { .type = TENSOR_F32,
                         .rank = 2,
                         .dims = { (int64_t)n, (int64_t)features },
                         .data = (void *)(uintptr_t)x,
                         .bytes = n * features * sizeof *x },
                  y = { 0 };
    if (info->n_inputs != 1 || info->n_outputs != 1)
        FAIL(INVALID, "the exported model has not one input and one output");
    TRY(session_run(onnx, a, &in, 1, &y, 1));
    if (y.type != TENSOR_F32 || y.bytes != n * width * sizeof(float))
        FAIL(INVALID, "the exported model does not give %zu numbers a row", width);
    *out = y.data;
    return NULL;
}

err parity_check(struct arena *a, struct str native, struct session *onnx, const float *x, size_t n,
                 size_t features, int threads, struct parity *out)
{
    (void)a;
    auto_arena struct arena *scratch = arena_new(0), *batch = arena_new(0);
    const float *p, *q = NULL;
    size_t k;
    double sum = 0;
    if (n == 0)
        FAIL(INVALID, "there are no rows to compare");
    TRY(native_score(scratch, native, x, n, features, threads > 0 ? threads : 1, &p, &k));
    *out = (struct parity){ .rows = n };
    for (size_t i = 0; i < n * k; i++) {
        size_t at = i % (BATCH * k), row = i / k;
        if (at == 0) {
            arena_reset(batch);
            TRY(onnx_score(batch, onnx, x + row * features, n - row < BATCH ? n - row : BATCH, features, k,
                           &q));
        }
        double d = fabs((double)p[i] - (double)q[at]) / fmax(1, fabs((double)p[i]));
        sum += d;
        if (d > out->max_abs || isnan(d)) {
            out->max_abs = isnan(d) ? INFINITY : d;
            out->worst = row;
        }
    }
    out->mean_abs = sum / (double)(n * k);
    return NULL;
}
