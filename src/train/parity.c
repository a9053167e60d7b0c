// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

static err native_score(struct arena *a, struct str native, const float *x, size_t n, size_t features,
                        int threads, const float **out)
{
    struct xgb *xgb;
    struct xgb_data *data;
    struct xgb_model *model;
    TRY(xgb_open(a, &xgb));
    TRY(xgb_data_new(xgb, a, x, n, features, NULL, threads, &data));
    TRY(xgb_model_load(xgb, a, native, &model));
    TRY(xgb_model_set(model, "nthread", fmtz(a, "%d", threads)));
    return xgb_model_predict(model, data, out);
}

err parity_check(struct arena *a, struct str native, struct session *onnx, const float *x, size_t n,
                 size_t features, int threads, struct parity *out)
{
    (void)a;
    auto_arena struct arena *scratch = arena_new(0);
    const float *p;
    float *q = NEW_N(scratch, float, n);
    double sum = 0;
    if (n == 0)
        FAIL(INVALID, "there are no rows to compare");
    TRY(native_score(scratch, native, x, n, features, threads > 0 ? threads : 1, &p));
    TRY(session_score(onnx, x, n, features, 0, q));
    *out = (struct parity){ .rows = n };
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)p[i] - q[i]);
        sum += d;
        if (d > out->max_abs || isnan(d)) {
            out->max_abs = isnan(d) ? INFINITY : d;
            out->worst = i;
        }
    }
    out->mean_abs = sum / (double)n;
    return NULL;
}
