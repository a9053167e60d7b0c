/* image_conv: convolutions that are no products, for each instruction set: of each channel by itself (MobileNet's depthwise
 * ones), and of a picture with few channels, as it comes from outside (the first of a network). Two axes, F32.
 * Flow     bind_own_conv(node) --> a step, or false: the node is none of these
 * Method   an output is a vector of channels; PIXELS of a row stay in registers while the window passes, and each place's
 *          weights are read once for all of them. Bytes that are moved, not products, bound the first; the second has one load
 *          for each product, which two ports keep up with. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/image.h"
#include "engine/cpu/simd.h"

enum { CONV_PIXELS = 8, CONV_PAD = 1 << 14 /* places that a block may see */ };
/* Output channels are SIMD_FLOATS or more; those of y lie last. bias may be NULL; y is cut to low … high. pad: room for what the
 * windows of a block see: rows × columns × (each: SIMD_FLOATS; thin: input channels) floats. */
struct conv_of_own {
    struct conv v;
    float low, high;
};
struct image_convs {
    int floats; /* SIMD_FLOATS */
    /* y[o, c] = Σₖ x[o · stride + k, c] · w[k, c]; channels of x lie last, too; w: (window, channel) */
    void (*each)(const struct conv_of_own *, const float *x, const float *w, const float *bias, float *y,
                 float *pad);
    /* y[o, m] = Σₖ Σᵢ x[i, o · stride + k] · w[i, k, m]; channels of x lie apart; w: (in, window, out) */
    void (*thin)(const struct conv_of_own *, const float *x, const float *w, const float *bias, float *y,
                 float *pad);
    /* n of y cut to low … high; what is no number stays */
    void (*clip)(float *y, int64_t n, float low, float high);
};
SIMD_DECLARE(struct image_convs, image_convs);

/* A picture with so few channels need not be turned for its convolution: see layout.c. */
enum { THIN_CHANNELS = 4 };
/* A node Conv whose tensors are these. kept: the weights stay as they are. */
bool bind_own_conv(struct bind *, const struct conv *, bool kept, float low, float high);
