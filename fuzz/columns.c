/* columns: a pushed batch or a request's entities as JSON. What is taken is written and read back the same. */
// SPDX-License-Identifier: Apache-2.0
#include "data/data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static err batch_read(struct arena *a, struct str text, struct columns *out)
{
    static const struct column_def defs[] = { { { "id", 2 }, COL_I64 },
                                              { { "shop", 4 }, COL_STR },
                                              { { "ts", 2 }, COL_TIME },
                                              { { "x", 1 }, COL_F64 },
                                              { { "late", 4 }, COL_BOOL } };
    yyjson_val *v;
    TRY(json_parse(a, text, &v));
    return columns_read(a, S("rows"), v, defs, 5, 1000, 0, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(256 << 20);
    struct columns c, again;
    if (n < 1 << 16 && !batch_read(a, (struct str){ (const char *)bytes, n }, &c)) {
        struct json j = json_new(a), k = json_new(a);
        columns_write(&j, &c);
        if (batch_read(a, json_get(&j), &again))
            abort();
        columns_write(&k, &again);
        if (!str_eq(json_get(&j), json_get(&k)))
            abort();
    }
    err_reset();
    return 0;
}
