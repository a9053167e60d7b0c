/* fuzz/safetensors: foreign tensors. What is read lies inside the bytes, and can be laid out again as it was. */
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    struct safetensors s;
    struct str header;
    if (!safetensors_read(a, (struct str){ (const char *)bytes, n }, &s)) {
        uint64_t sum = 0, was = s.bytes;
        for (size_t i = 0; i < s.v.n; i++) {
            const struct safetensor *t = &s.v.v[i];
            if (t->from > t->to || t->to > s.bytes ||
                (const uint8_t *)t->data + (t->to - t->from) > bytes + n)
                abort();
            sum += t->to - t->from;
        }
        if (sum != was || safetensors_layout(a, &s, &header) || s.bytes != was)
            abort();
    }
    err_reset();
    return 0;
}
