// SPDX-License-Identifier: Apache-2.0
/* ONNX Runtime: outputs that are sequences of maps, one a row, from class to score. scikit-learn's converters write them
 * (ZipMap). ONNX Runtime keeps a map's keys sorted, so rows of the same classes have the same columns. */
#include "train/ort.h"

#include <stdlib.h>

static err map_read(const struct ort_api *api, const void *map, struct ort_maps *maps)
{
    int key = 0, type = 0;
    const void *shape = NULL;
    void *value = NULL;
    CALL(api, INTERNAL, "describe a map", GetMapKeyType, map, &key);
    CALL(api, INTERNAL, "describe a map", GetMapValueType, map, &value);
    void *status = api->CastTypeInfoToTensorInfo(value, &shape);
    if (!status && shape)
        status = api->GetTensorElementType(shape, &type);
    api->ReleaseTypeInfo(value);
    if (status)
        return ort_status_err(api, status, INTERNAL, "describe a map");
    if (type == TENSOR_F32 && (key == TENSOR_I64 || key == TENSOR_TEXT))
        maps->key = (enum tensor_type)key;
    return NULL;
}

err ort_maps_find(const struct ort_api *api, const void *type_info, struct ort_maps *maps)
{
    const void *sequence = NULL, *map = NULL;
    void *element = NULL;
    CALL(api, INTERNAL, "describe an output", CastTypeInfoToSequenceTypeInfo, type_info, &sequence);
    if (!sequence)
        return NULL;
    CALL(api, INTERNAL, "describe a sequence", GetSequenceElementType, sequence, &element);
    void *status = api->CastTypeInfoToMapTypeInfo(element, &map);
    err e = status ? ort_status_err(api, status, INTERNAL, "describe a sequence") : NULL;
    if (!e && map)
        e = map_read(api, map, maps);
    api->ReleaseTypeInfo(element);
    return e;
}

/* ---- one row ---- */

/* The values of a map's part (0: keys, 1: scores); *value is the caller's to release. */
static err part_get(struct ort *o, void *map, int part, enum tensor_type type, void **value, size_t *n,
                    void **data)
{
    const struct ort_api *api = &o->api;
    struct tensor_spec spec = { 0 };
    int64_t count = 0;
    void *shape;
    CALL(api, INTERNAL, "read a map", GetValue, map, part, o->allocator, value);
    CALL(api, INTERNAL, "read a map", GetTensorTypeAndShape, *value, &shape);
    err e = ort_shape_read(api, NULL, shape, &spec);
    api->ReleaseTensorTypeAndShapeInfo(shape);
    TRY(e);
    if (spec.type != type || !tensor_count(spec.dims, spec.rank, INT32_MAX, &count))
        FAIL(UNSUPPORTED, "a map is not of the type that the model says");
    *n = (size_t)count;
    if (type != TENSOR_TEXT && data)
        CALL(api, INTERNAL, "read a map", GetTensorMutableData, *value, data);
    return NULL;
}

static err keys_read(struct ort *o, struct arena *a, void *map, enum tensor_type key, struct ort_maps *out)
{
    void *value = NULL, *numbers = NULL;
    struct tensor texts = { 0 };
    *out = (struct ort_maps){ .key = key };
    err e = part_get(o, map, 0, key, &value, &out->n, &numbers);
    if (!e && key == TENSOR_TEXT) {
        e = ort_texts_copy(o, a, value, out->n, &texts);
        out->texts = texts.data;
    } else if (!e) {
        int64_t *copy = NEW_N(a, int64_t, out->n + 1);
        if (out->n)
            memcpy(copy, numbers, out->n * sizeof *copy);
        out->numbers = copy;
    }
    if (value)
        o->api.ReleaseValue(value);
    return e;
}

static bool same_keys(const struct ort_maps *a, const struct ort_maps *b)
{
    bool same = a->n == b->n;
    for (size_t i = 0; same && i < a->n; i++)
        same = a->key == TENSOR_TEXT ? str_eq(a->texts[i], b->texts[i]) : a->numbers[i] == b->numbers[i];
    return same;
}

static err scores_read(struct ort *o, void *map, size_t n, float *out)
{
    void *value = NULL, *data = NULL;
    size_t found = 0;
    err e = part_get(o, map, 1, TENSOR_F32, &value, &found, &data);
    if (!e && found == n && n)
        memcpy(out, data, n * sizeof *out);
    else if (!e && found != n)
        e = err_new(UNSUPPORTED, "a map has %zu scores for %zu classes", found, n);
    if (value)
        o->api.ReleaseValue(value);
    return e;
}

static err row_read(struct ort *o, struct arena *scratch, void *map, const struct ort_maps *maps, float *out)
{
    struct ort_maps keys;
    TRY(keys_read(o, scratch, map, maps->key, &keys));
    if (!same_keys(&keys, maps))
        FAIL(UNSUPPORTED, "its maps do not all have the same keys");
    return scores_read(o, map, maps->n, out);
}

/* ---- all rows ---- */

static err rows_read(struct ort *o, void *value, size_t n, const struct ort_maps *maps, float *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    for (size_t i = 0; i < n; i++) {
        void *map;
        CALL(&o->api, INTERNAL, "read a sequence", GetValue, value, (int)i, o->allocator, &map);
        err e = row_read(o, scratch, map, maps, out + i * maps->n);
        o->api.ReleaseValue(map);
        TRY(e);
        arena_reset(scratch);
    }
    return NULL;
}

err ort_maps_copy(struct ort_session *s, struct arena *a, void *value, struct tensor *out)
{
    const struct ort_maps *maps = &s->maps[out->slot];
    struct tensor t = { .slot = out->slot, .type = TENSOR_F32, .rank = 2, .data = out->data };
    size_t n = 0;
    CALL(&s->ort->api, INTERNAL, "count a sequence", GetValueCount, value, &n);
    t.bytes = arena_mul(arena_mul(n, maps->n), sizeof(float));
    t.dims[0] = (int64_t)n;
    t.dims[1] = (int64_t)maps->n;
    if (t.data && (out->type != t.type || out->rank != 2 || out->bytes != t.bytes ||
                   memcmp(out->dims, t.dims, 2 * sizeof *t.dims) != 0 || (uintptr_t)t.data % sizeof(float)))
        FAIL(INVALID, "output '%s' has %zu rows of %zu classes, its memory another shape",
             s->out_names[t.slot], n, maps->n);
    if (!t.data && t.bytes > arena_left(a))
        FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", t.bytes);
    if (!t.data)
        t.data = arena_alloc(a, t.bytes, 64);
    TRY(rows_read(s->ort, value, n, maps, t.data));
    *out = t;
    return NULL;
}

/* ---- what the classes are ---- */

static err probe_keys(struct ort_session *s, void *value, struct ort_maps *maps)
{
    struct ort *o = s->ort;
    void *map;
    size_t n = 0;
    CALL(&o->api, INTERNAL, "count a sequence", GetValueCount, value, &n);
    if (n == 0)
        FAIL(UNSUPPORTED, "the model gives no map for a row");
    CALL(&o->api, INTERNAL, "read a sequence", GetValue, value, 0, o->allocator, &map);
    err e = keys_read(o, s->a, map, maps->key, maps);
    o->api.ReleaseValue(map);
    return e;
}

static void labels_write(struct arena *a, const struct ort_maps *maps, struct strs *labels)
{
    for (size_t i = 0; i < maps->n; i++)
        push(a, labels, maps->texts ? maps->texts[i] : fmt(a, "%lld", (long long)maps->numbers[i]));
}

/* Rows are those of the first input, as serving takes it for every output. */
static void spec_write(struct ort_session *s, const struct ort_maps *maps, struct tensor_spec *spec)
{
    spec->type = TENSOR_F32;
    spec->shaped = true;
    spec->rank = 2;
    spec->dims[0] = -1;
    spec->dims[1] = (int64_t)maps->n;
    if (s->info.n_inputs && s->info.inputs->rank && s->info.inputs->dims[0] < 0)
        spec->symbols[0] = s->info.inputs->symbols[0];
}

void ort_maps_probe(struct ort_session *s, size_t i, struct tensor_spec *spec, struct ort_maps *maps,
                    struct strs *labels)
{
    void *value = NULL;
    err e = ort_probe(s, i, &value);
    if (!e)
        e = probe_keys(s, value, maps);
    if (value)
        s->ort->api.ReleaseValue(value);
    if (e) {
        *maps = (struct ort_maps){ 0 };
        return;
    }
    labels_write(s->a, maps, labels);
    spec_write(s, maps, spec);
}
