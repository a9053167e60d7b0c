/* fuzz/xgb: XGBoost's JSON → trees. What is read can be walked and exported. */
// SPDX-License-Identifier: Apache-2.0
#include "train/xgb.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(256 << 20);
    struct trees t;
    if (n < 1 << 20 && !xgb_trees(a, (struct str){ (const char *)bytes, n }, &t) && t.features <= 1000) {
        float *x = NEW_N(a, float, t.features), *scores = NEW_N(a, float, trees_outputs(&t));
        struct str onnx;
        struct onnx_facts f;
        trees_predict(&t, x, 1, t.features, scores);
        if (trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, &onnx) || onnx_check(a, onnx, NULL, &f))
            abort();
    }
    err_reset();
    return 0;
}
