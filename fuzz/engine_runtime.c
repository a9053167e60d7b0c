/* fuzz/engine_runtime: foreign models in our own engine, as a deployment runs them: what it takes, it runs, on odd numbers too. */
// SPDX-License-Identifier: Apache-2.0
#include "train/runtime.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void run(struct session *s, size_t rows)
{
    auto_arena struct arena *a = arena_new(0);
    const struct session_info *info = session_describe(s);
    struct tensor *in, *out = NEW_N(a, struct tensor, info->n_outputs);
    int64_t elements = 0, each;
    for (size_t i = 0; i < info->n_outputs; i++) {
        out[i].slot = i;
        if (!tensor_count(info->outputs[i].dims + 1, info->outputs[i].rank - 1, 1 << 20, &each))
            return;
        elements += each;
    }
    if (elements > 1 << 20 || session_drawn(info, a, rows, &in))
        return;
    if (session_run(s, a, in, info->n_inputs, out, info->n_outputs))
        return;
    for (size_t i = 0; i < info->n_outputs; i++)
        if (out[i].dims[0] != (int64_t)rows)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct runtime *rt;
    struct session *s;
    if (!rt && runtime_open_named(S("engine"), NULL, &rt))
        abort();
    for (int sure = 0; sure < 2; sure++)
        if (!session_load(rt, (struct str){ (const char *)bytes, n },
                          &(struct session_config){ .sure = sure }, &s)) {
            for (size_t rows = 1; rows < 8; rows += 2)
                run(s, rows);
            session_unload(s);
        }
    err_reset();
    return 0;
}
