/* fuzz/baseline: baseline.json as the monitor reads it; what is read can be sketched against and written back. */
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const float values[] = { -1e30f, -1, 0, 0.5f, 1, 7, 1e30f, NAN };
    auto_arena struct arena *a = arena_new(256 << 20);
    struct baseline b;
    if (n < 1 << 20 && !baseline_read(a, (struct str){ (const char *)bytes, n }, &b)) {
        for (size_t i = 0; i <= b.n && i < 100; i++) {
            struct sketch s;
            sketch_init(&s, i < b.n ? &b.features[i] : &b.score);
            for (size_t k = 0; k < sizeof values / sizeof *values; k++)
                sketch_add(&s, values[k]);
            (void)sketch_wasserstein(&s);
            (void)sketch_psi(&s);
        }
        (void)baseline_write(a, &b);
    }
    err_reset();
    return 0;
}
