/* models: small ONNX models, built by hand, for the tests of runtimes. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "samples.h"

static inline struct str tensor_type_of(struct arena *a, enum tensor_type type, int64_t columns)
{
    struct buf open = buf_new(a), fixed = buf_new(a), shape = buf_new(a), tensor = buf_new(a),
               kind = buf_new(a);
    pb_bytes(&open, 2, S("N"));
    pb_varint(&fixed, 1, columns);
    pb_bytes(&shape, 1, buf_get(&open));
    pb_bytes(&shape, 1, buf_get(&fixed));
    pb_varint(&tensor, 1, type);
    pb_bytes(&tensor, 2, buf_get(&shape));
    pb_bytes(&kind, 1, buf_get(&tensor));
    return buf_get(&kind);
}

static inline struct str named(struct arena *a, const char *name, struct str type)
{
    struct buf v = buf_new(a);
    pb_bytes(&v, 1, str_of(name));
    pb_bytes(&v, 2, type);
    return buf_get(&v);
}

static inline struct str value(struct arena *a, const char *name, enum tensor_type type, int64_t columns)
{
    return named(a, name, tensor_type_of(a, type, columns));
}

static inline struct str node(struct arena *a, const char *op, const char *in, const char *in2,
                              const char *out)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, str_of(in));
    if (in2)
        pb_bytes(&b, 1, str_of(in2));
    pb_bytes(&b, 2, str_of(out));
    pb_bytes(&b, 4, str_of(op));
    return buf_get(&b);
}

static inline struct str model(struct arena *a, const struct buf *graph)
{
    struct buf b = buf_new(a), opset = buf_new(a), ml = buf_new(a);
    pb_varint(&b, 1, 8);
    pb_bytes(&b, 7, buf_get(graph));
    pb_bytes(&opset, 1, S(""));
    pb_varint(&opset, 2, 14);
    pb_bytes(&b, 8, buf_get(&opset));
    pb_bytes(&ml, 1, S("ai.onnx.ml"));
    pb_varint(&ml, 2, 1);
    pb_bytes(&b, 8, buf_get(&ml));
    return buf_get(&b);
}

/* sum = x + y, same = x, of a type. */
static inline struct str two_in_two_out(struct arena *a, enum tensor_type type)
{
    struct buf g = buf_new(a);
    pb_bytes(&g, 1, node(a, "Add", "x", "y", "sum"));
    pb_bytes(&g, 1, node(a, "Identity", "x", NULL, "same"));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", type, 2));
    pb_bytes(&g, 11, value(a, "y", type, 2));
    pb_bytes(&g, 12, value(a, "sum", type, 2));
    pb_bytes(&g, 12, value(a, "same", type, 2));
    return model(a, &g);
}

/* same = x */
static inline struct str same(struct arena *a, enum tensor_type type)
{
    struct buf g = buf_new(a);
    pb_bytes(&g, 1, node(a, "Identity", "x", NULL, "same"));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", type, 2));
    pb_bytes(&g, 12, value(a, "same", type, 2));
    return model(a, &g);
}

/* y = x · w · w …, `times` products with one n × n matrix of 1/n. */
static inline struct str products(struct arena *a, int64_t n, int times)
{
    struct buf g = buf_new(a), w = buf_new(a);
    float *data = NEW_N(a, float, (size_t)(n * n));
    for (int64_t i = 0; i < n * n; i++)
        data[i] = 1.0f / (float)n;
    for (int i = 0; i < times; i++)
        pb_bytes(
            &g, 1,
            node(a, "MatMul", i ? fmtz(a, "p%d", i) : "x", "w", i + 1 < times ? fmtz(a, "p%d", i + 1) : "y"));
    pb_varint(&w, 1, n);
    pb_varint(&w, 1, n);
    pb_varint(&w, 2, TENSOR_F32);
    pb_bytes(&w, 8, S("w"));
    pb_bytes(&w, 9, (struct str){ (const char *)data, (size_t)(n * n) * sizeof *data });
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 5, buf_get(&w));
    pb_bytes(&g, 11, value(a, "x", TENSOR_F32, n));
    pb_bytes(&g, 12, value(a, "y", TENSOR_F32, n));
    return model(a, &g);
}

/* maps = ZipMap(x) with three classes, named by numbers or by texts. */
static inline struct str zipped(struct arena *a, bool texts)
{
    static const char *const names[] = { "cat", "dog", "eel" };
    const int64_t numbers[] = { 3, 5, 9 };
    struct buf g = buf_new(a), n = buf_new(a), at = buf_new(a), map = buf_new(a), kind = buf_new(a),
               element = buf_new(a), sequence = buf_new(a);
    pb_bytes(&at, 1, texts ? S("classlabels_strings") : S("classlabels_int64s"));
    for (int i = 0; texts && i < 3; i++)
        pb_bytes(&at, 9, str_of(names[i]));
    if (!texts)
        pb_varints(&at, 8, numbers, 3);
    pb_varint(&at, 20, texts ? 8 : 7);
    pb_bytes(&n, 1, S("x"));
    pb_bytes(&n, 2, S("maps"));
    pb_bytes(&n, 4, S("ZipMap"));
    pb_bytes(&n, 5, buf_get(&at));
    pb_bytes(&n, 7, S("ai.onnx.ml"));
    pb_varint(&map, 1, texts ? TENSOR_TEXT : TENSOR_I64);
    pb_bytes(&map, 2, tensor_type_of(a, TENSOR_F32, 1));
    pb_bytes(&kind, 5, buf_get(&map));
    pb_bytes(&element, 1, buf_get(&kind));
    pb_bytes(&sequence, 4, buf_get(&element));
    pb_bytes(&g, 1, buf_get(&n));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", TENSOR_F32, 3));
    pb_bytes(&g, 12, named(a, "maps", buf_get(&sequence)));
    return model(a, &g);
}

/* list = SequenceConstruct(x, x) */
static inline struct str listed(struct arena *a)
{
    struct buf g = buf_new(a), element = buf_new(a), sequence = buf_new(a);
    pb_bytes(&element, 1, tensor_type_of(a, TENSOR_F32, 2));
    pb_bytes(&sequence, 4, buf_get(&element));
    pb_bytes(&g, 1, node(a, "SequenceConstruct", "x", "x", "list"));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", TENSOR_F32, 2));
    pb_bytes(&g, 12, named(a, "list", buf_get(&sequence)));
    return model(a, &g);
}

/* A rows × columns float tensor over data. */
static inline struct tensor floats(size_t slot, int64_t rows, int64_t columns, float *data)
{
    return (struct tensor){ .slot = slot,
                            .type = TENSOR_F32,
                            .rank = 2,
                            .dims = { rows, columns },
                            .data = data,
                            .bytes = (size_t)(rows * columns) * sizeof *data };
}
