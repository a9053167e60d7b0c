/* metrics: counts predictions by engine/stream_metrics.h, for the end-to-end tests:
 *   tool-metrics binary|classes|numbers|tokens|ranking|points CLASSES LOGITS EXACT_MAX PARTS P Y
 * P: floats; Y: floats, 64-bit whole numbers or struct meter_ranked, as the task wants; both raw. The rows are cut into PARTS, each counted by
 * itself in batches and merged. One line of JSON is the answer. */
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 777 };

static enum meter_task task_of(const char *name)
{
    return !strcmp(name, "binary")    ? METER_BINARY
           : !strcmp(name, "classes") ? METER_CLASSES
           : !strcmp(name, "tokens")  ? METER_TOKENS
           : !strcmp(name, "ranking") ? METER_RANKING
           : !strcmp(name, "points")  ? METER_POINTS
                                      : METER_NUMBERS;
}

static err count(struct arena *a, char **argv)
{
    struct meter_spec spec = { .task = task_of(argv[1]),
                               .classes = atoll(argv[2]),
                               .logits = atoi(argv[3]),
                               .exact_max = (size_t)atoll(argv[4]),
                               .k = 3 };
    size_t parts = (size_t)atoll(argv[5]), width = spec.classes ? (size_t)spec.classes : 1;
    struct str p, y;
    struct meter *all, *one;
    TRY(file_read(a, argv[6], (size_t)1 << 31, &p));
    TRY(file_read(a, argv[7], (size_t)1 << 31, &y));
    size_t rows = p.n / 4 / width, size = y.n / rows;
    TRY(meter_new(a, &spec, &all));
    TRY(meter_new(a, &spec, &one));
    for (size_t i = 0; i < parts; i++) {
        size_t at = rows * i / parts, to = rows * (i + 1) / parts;
        meter_reset(one);
        for (size_t n; at < to; at += n) {
            n = to - at < BATCH ? to - at : BATCH;
            TRY(meter_add(one, (const float *)p.p + at * width, y.p + at * size, n));
        }
        meter_merge(all, one);
    }
    struct json j = json_new(a);
    meter_write(all, &j);
    printf("%.*s\n", STR(json_get(&j)));
    return NULL;
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    if (argc != 8)
        return 2;
    err e = count(a, argv);
    if (e)
        fprintf(stderr, "%.*s\n", STR(e->text));
    return e != NULL;
}
