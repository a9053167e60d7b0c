/* array: IDX and .npy as foreign bytes; the first byte says which. Numbers that are handed out can all be read. */
// SPDX-License-Identifier: Apache-2.0
#include "train/array.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(64 << 20);
    static volatile unsigned sum;
    struct array x;
    if (n < 1 || n > 1 << 16)
        return 0;
    struct str text = { (const char *)bytes + 1, n - 1 };
    if (bytes[0] == 'z') {
        (void)gunzip(a, text, 1 << 20, &text);
    } else if (!(bytes[0] == 'i' ? array_idx(a, text, &x) : array_npy(a, text, &x))) {
        size_t size = tensor_size(x.type);
        if (!size || x.rank < 1 || x.rank > 4 || (uintptr_t)x.p % size)
            abort();
        for (size_t i = 0; i < (size_t)x.n * size; i++)
            sum += ((const uint8_t *)x.p)[i];
    }
    err_reset();
    return 0;
}
