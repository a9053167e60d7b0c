/* image_rows: pictures with channels last are rows of channels; kernels over such rows, for each instruction set.
 * F32 and BF16 storage, sums in F32 over blocks of rows and in doubles over the blocks. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/image.h"
#include "engine/cpu/simd.h"

struct image_rows {
    /* sums[2c], [2c + 1] of x − pivot and its square; pivot, by_g, …: c_n floats. x, dy, y: rows of c_n elements. */
    void (*moments)(bool half, int64_t rows, int64_t c_n, const void *x, const float *pivot, double *sums);
    /* y = max(0 if relu, x · by + plus + addend); addend may be NULL */
    void (*norm)(bool half, int64_t rows, int64_t c_n, const void *x, const float *by, const float *plus,
                 const void *addend, bool relu, void *y);
    /* g = dy where y is positive (y NULL: dy): sums of g and g · (x − mean) */
    void (*back_sums)(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                      const float *mean, double *sums);
    /* dx = by_g · g + by_x · x + plus, dz = g; dz may be NULL */
    void (*back)(bool half, int64_t rows, int64_t c_n, const void *dy, const void *x, const void *y,
                 const float *by_g, const float *by_x, const float *plus, void *dx, void *dz);
    /* Pools: channels lie last on both sides (sc is 1). where: by window, as in struct image_kernels; may be NULL. */
    void (*max_pool)(bool half, const struct conv *, const void *x, void *y, int32_t *where);
    void (*max_pool_back)(bool half, const struct conv *, const void *dy, const int32_t *where, void *dx);
    void (*average_pool)(bool half, const struct conv *, const void *x, void *y);
    void (*average_pool_back)(bool half, const struct conv *, const void *dy, void *dx);
};
SIMD_DECLARE(struct image_rows, image_rows);
