/* gather: rows of a table in memory, by number, into a batch: the loader's inner loop.
 * Formula  F32: y = (x − shift[i / each]) × scale[i / each], where x is missing (NaN, infinite): fill[i / each] in its place;
 *          I64: y = table[x], or x.
 * Threads  any; nothing is kept. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

/* A stretch of rows that lie one behind the other. */
struct gather_part {
    const char *rows;
    size_t from, n; /* numbers of its rows: from ≤ row < from + n */
};
struct gather {
    enum tensor_type from; /* as kept: U8 … F64 */
    enum tensor_type to;   /* F32, or I64 (from whole numbers) */
    size_t width;          /* elements of a row that are taken */
    size_t
        stride; /* elements from the start of a row to the next one's; less than width in windows of a stream */
    const struct gather_part *parts;
    size_t n_parts;
    const float *shift, *scale, *fill; /* NULL: 0, 1, none */
    size_t each;                       /* elements in turn that share them */
    bool indicator;                    /* width elements more: 1 where x is missing */
    const int64_t *const *tables;      /* U32 → I64 or F32, by element; NULL: as it is */
};
/* Elements of a row that come out. */
static inline size_t gather_width(const struct gather *g)
{
    return g->indicator ? 2 * g->width : g->width;
}
/* Rows order[0 … n), or first … first + n if order is NULL, to out. */
void gather_rows(const struct gather *, const uint32_t *order, size_t first, size_t n, void *out);
