/* safetensors: tensors by name in one flat file, read from foreign bytes and laid out for writing. No I/O: the caller has the
 * file mapped, and writes what layout says.
 * Format   eight bytes N (little-endian), N bytes of JSON {"name": {"dtype", "shape", "data_offsets": [from, to]}, …,
 *          "__metadata__": {text: text}}, then the data, row-major, packed. Offsets count from the first byte of data.
 * Checked  N ≤ SAFETENSORS_HEADER_MAX, sizes by checked arithmetic, offsets that agree with type and shape, data without
 *          holes, overlaps or a rest, no name twice.
 * Ours     data begins at a multiple of 64 bytes: the header is padded with blanks, as the format allows.
 * Errors   INVALID and TOO_LARGE, naming the tensor.
 * Threads  any. Text and data point into the bytes that were read. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

enum { SAFETENSORS_HEADER_MAX = 100 << 20, SAFETENSORS_TENSORS_MAX = 1 << 20, SAFETENSORS_ALIGN = 64 };

struct safetensor {
    struct str name;
    enum tensor_type type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    uint64_t from, to; /* of the data, counted from its first byte */
    const void *
        data; /* reading: in the bytes, aligned as the file has it; writing: the layout does not look at it */
};
struct safetensors_text {
    struct str key, value;
};
struct safetensors {
    VEC(struct safetensor) v;
    VEC(struct safetensors_text) metadata;
    size_t data_at; /* where the data begins in the file */
    uint64_t bytes; /* of the data */
};
err safetensors_read(struct arena *a, struct str bytes, struct safetensors *out);
/* By name; NULL: there is none. */
const struct safetensor *safetensors_find(const struct safetensors *, struct str name);
/* Lays the tensors out one after the other in the order given (sets from, to, data_at, bytes) and gives what stands before
 * the data. INVALID for a name that comes twice, a type without a size, a negative dimension. */
err safetensors_layout(struct arena *a, struct safetensors *, struct str *header);
