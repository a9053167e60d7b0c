/* tensor: element types and shapes, as ONNX numbers them and the Open Inference Protocol names them. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

// clang-format off
#define TENSOR_TYPES(T) /* name, ONNX number, bytes of an element (0: not a fixed size), ONNX name, protocol's name */ \
    T(F32,  1, 4, "float",    "FP32")   \
    T(U8,   2, 1, "uint8",    "UINT8")  \
    T(I8,   3, 1, "int8",     "INT8")   \
    T(U16,  4, 2, "uint16",   "UINT16") \
    T(I16,  5, 2, "int16",    "INT16")  \
    T(I32,  6, 4, "int32",    "INT32")  \
    T(I64,  7, 8, "int64",    "INT64")  \
    T(TEXT, 8, 0, "string",   "BYTES")  \
    T(BOOL, 9, 1, "bool",     "BOOL")   \
    T(F16, 10, 2, "float16",  "FP16")   \
    T(F64, 11, 8, "double",   "FP64")   \
    T(U32, 12, 4, "uint32",   "UINT32") \
    T(U64, 13, 8, "uint64",   "UINT64") \
    T(BF16, 16, 2, "bfloat16", "BF16")
// clang-format on

/* 0: unknown, or not a tensor (a sequence or a map). */
enum tensor_type {
    TENSOR_NONE,
#define T(name, number, bytes, onnx, protocol) TENSOR_##name = number,
    TENSOR_TYPES(T)
#undef T
};
enum { TENSOR_RANK_MAX = 8 };

/* What a model takes or gives. Text is borrowed from whoever made it. */
struct tensor_spec {
    struct str name;
    enum tensor_type type;         /* TENSOR_NONE: not a tensor, or of a type that is not in the table */
    bool shaped;                   /* the model says a shape; else rank is 0 and says nothing */
    size_t rank;                   /* at most TENSOR_RANK_MAX */
    int64_t dims[TENSOR_RANK_MAX]; /* -1: known at the call */
    struct str symbols[TENSOR_RANK_MAX]; /* name of an open dimension ("N"); may be empty */
};

/* Bytes of one element; 0 for TEXT and for types that are not in the table. */
size_t tensor_size(enum tensor_type);
/* "float", "FP32"; empty for types that are not in the table. */
struct str tensor_onnx_name(enum tensor_type);
struct str tensor_protocol_name(enum tensor_type);
/* TENSOR_NONE if no type has this name in the protocol ("FP32", "BYTES"). */
enum tensor_type tensor_of_protocol(struct str name);
/* Product of the dimensions; false if one is negative or the product passes max. */
bool tensor_count(const int64_t *dims, size_t rank, int64_t max, int64_t *out);
