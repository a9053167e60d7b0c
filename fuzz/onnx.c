/* fuzz/onnx: foreign models. What passes the check must have facts that hold together. */
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void value_check(const struct tensor_spec *spec)
{
    if (spec->name.n == 0 || spec->rank > TENSOR_RANK_MAX || (!spec->shaped && spec->rank > 0))
        abort();
    for (size_t i = 0; i < spec->rank; i++)
        if (spec->dims[i] < -1)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct onnx_limits limits = { .nodes_max = 1000, .tensors_max = 1000, .values_max = 100 };
    auto_arena struct arena *a = arena_new(64 << 20);
    struct onnx_facts f;
    if (!onnx_check(a, (struct str){ (const char *)bytes, n }, &limits, &f)) {
        if (f.outputs.n == 0 || f.outputs.n > 100 || f.inputs.n > 100 || f.nodes > 1000)
            abort();
        for (size_t i = 0; i < f.inputs.n; i++)
            value_check(&f.inputs.v[i]);
        for (size_t i = 0; i < f.outputs.n; i++)
            value_check(&f.outputs.v[i]);
    }
    err_reset();
    return 0;
}
