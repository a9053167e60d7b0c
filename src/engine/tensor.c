// SPDX-License-Identifier: Apache-2.0
#include "engine/tensor.h"

struct tensor_row {
    size_t bytes;
    struct str onnx, protocol;
};
static const struct tensor_row rows[] = {
#define T(name, number, size, onnx_, protocol_) [number] = { size, S_INIT(onnx_), S_INIT(protocol_) },
    TENSOR_TYPES(T)
#undef T
};
enum { ROWS = sizeof rows / sizeof *rows };

static struct tensor_row row_of(enum tensor_type type)
{
    return (unsigned)type < ROWS ? rows[type] : (struct tensor_row){ 0 };
}

size_t tensor_size(enum tensor_type type)
{
    return row_of(type).bytes;
}

struct str tensor_onnx_name(enum tensor_type type)
{
    return row_of(type).onnx;
}

struct str tensor_protocol_name(enum tensor_type type)
{
    return row_of(type).protocol;
}

enum tensor_type tensor_of_protocol(struct str name)
{
    for (unsigned i = 1; i < ROWS; i++)
        if (rows[i].protocol.n > 0 && str_eq(rows[i].protocol, name))
            return (enum tensor_type)i;
    return TENSOR_NONE;
}

bool tensor_count(const int64_t *dims, size_t rank, int64_t max, int64_t *out)
{
    int64_t n = 1;
    bool zero = false;
    for (size_t i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] > max)
            return false;
        if (dims[i] == 0)
            zero = true; /* but the other dimensions may not be absurd */
        else if (__builtin_mul_overflow(n, dims[i], &n) || n > max)
            return false;
    }
    *out = zero ? 0 : n;
    return true;
}
