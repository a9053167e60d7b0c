/* fixed: numbers as 128-bit fixed point with 30 bits of fraction. Adding is exact, so a sum does not depend on
 * the order of its terms: what is added up online in the order of coming equals what is added up offline in the
 * order of time, to the bit. The last step to a double is one inline function, shared by both. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/kinds.h"
#include <math.h>

typedef __int128 fixed;
/* A value that is not there. No number comes near it. */
#define FIXED_NULL ((fixed)1 << 126)

static inline fixed fixed_i64(int64_t v)
{
    return (fixed)v * ((fixed)1 << 30);
}
/* Rounded to the nearest 2^-30; NaN and what is 2^64 or more is null: 2^31 values can be added up. */
static inline fixed fixed_f64(double v)
{
    return fabs(v) < 0x1p64 ? (fixed)rint(v * 0x1p30) : FIXED_NULL;
}
/* sum: of the n values that are there, among `rows` events. */
static inline double fixed_aggregate(enum aggregate_function f, bool of_column, fixed sum, int64_t n,
                                     int64_t rows)
{
    if (f == AGG_COUNT)
        return (double)(of_column ? n : rows);
    double total = (double)sum * 0x1p-30;
    if (f == AGG_SUM)
        return total;
    return n ? total / (double)n : (double)NAN;
}
