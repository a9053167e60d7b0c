/* events: the file that a materialize worker leaves for the daemon. Whatever its bytes, reading ends, and nothing
 * outside of them is looked at. */
// SPDX-License-Identifier: Apache-2.0
#include "feature/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static err walk(struct str bytes)
{
    struct mat_reader r;
    struct mat_view v;
    struct mat_key k;
    struct online_event e;
    fixed values[AGGREGATES_MAX];
    uint32_t views;
    TRY(mat_open(bytes, &r, &views));
    for (uint32_t i = 0; i < views; i++) {
        TRY(mat_view_next(&r, &v));
        for (uint64_t key = 0; key < v.keys; key++) {
            TRY(mat_key_next(&r, &k));
            for (uint32_t j = 0; j < k.events; j++)
                TRY(mat_event_next(&r, v.columns, &e, values));
        }
    }
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    (void)walk((struct str){ (const char *)bytes, n });
    err_reset();
    return 0;
}
