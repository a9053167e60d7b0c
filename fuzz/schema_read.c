/* schema_read: any bytes as JSON of a table with every type; what is read is written and read again. */
// SPDX-License-Identifier: Apache-2.0
#include "../tests/unit/schema/every_type.h"
#include <stdlib.h>

SCHEMA_TABLE(rule, RULE, "A rule.");
SCHEMA_TABLE(every, EVERY, "Every type.");

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(16 << 20);
    struct every first, second;
    unsigned flags = WRITE_SECRETS | WRITE_PERSONAL;
    if (n <= 1 << 16 &&
        !schema_read_text(&every_schema, a, S("spec"), (struct str){ (const char *)bytes, n }, 0, &first)) {
        struct str text = schema_text(&every_schema, a, &first, flags);
        if (schema_read_text(&every_schema, a, S(""), text, 0, &second) ||
            !str_eq(text, schema_text(&every_schema, a, &second, flags)))
            abort();
    }
    err_reset();
    return 0;
}
