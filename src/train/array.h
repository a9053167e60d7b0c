/* array: files that are one array of numbers: IDX (the format of MNIST) and NumPy's .npy, as foreign bytes.
 * Owns     nothing: numbers are borrowed from the bytes, or turned to this machine's order in the arena given.
 * Errors   INVALID (the bytes break the format's rules), UNSUPPORTED (a type that is no number, Fortran's order of a matrix). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

struct array {
    enum tensor_type type; /* U8, I8, I16, U16, I32, U32, I64, U64, F32, F64, BOOL */
    int rank;              /* at least 1 */
    int64_t d[4];
    const void *p; /* row-major, this machine's order of bytes; aligned to the type */
    int64_t n;     /* elements */
};
/* idx: two zero bytes, type, rank, sizes as big-endian 32-bit numbers, then the numbers, big-endian. */
err array_idx(struct arena *a, struct str bytes, struct array *out);
/* npy, versions 1 to 3: https://numpy.org/neps/nep-0001-npy-format.html */
err array_npy(struct arena *a, struct str bytes, struct array *out);
/* Unpacks gzip; TOO_LARGE beyond bytes_max. */
err gunzip(struct arena *a, struct str packed, size_t bytes_max, struct str *out);
