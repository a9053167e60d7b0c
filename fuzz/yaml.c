/* yaml: any bytes as YAML; the JSON of each document becomes YAML and comes back the same. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/schema.h"
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static bool same_again(struct arena *a, struct str json)
{
    struct str yaml;
    struct strs docs;
    if (json_to_yaml(a, json, &yaml))
        return false;
    struct str again;
    if (yaml_to_json(a, yaml, &docs) || docs.n != 1 || json_to_yaml(a, docs.v[0], &again))
        return false;
    return str_eq(yaml, again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    struct strs docs;
    if (n <= 1 << 14 && !yaml_to_json(a, (struct str){ (const char *)bytes, n }, &docs))
        for (size_t i = 0; i < docs.n; i++)
            if (!same_again(a, docs.v[i]))
                abort();
    err_reset();
    return 0;
}
