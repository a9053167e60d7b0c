/* window: how the window of a convolution or a pool walks over the axes behind batch and channels.
 * Shape rules, gradients and kernels all read a node's attributes through it. Sizes: output o of an axis sees the inputs
 * o · stride − lo + k · dilation, for k within the kernel. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/graph.h"

enum { WINDOW_AXES = 3 };
struct window {
    int axes; /* of the picture: 1, 2 or 3 */
    int64_t in[WINDOW_AXES], out[WINDOW_AXES], kernel[WINDOW_AXES], stride[WINDOW_AXES],
        dilation[WINDOW_AXES];
    int64_t lo[WINDOW_AXES],
        hi[WINDOW_AXES];      /* padding; hi is what the last window needs, and may be negative */
    int64_t end[WINDOW_AXES]; /* in, and the padding behind as the node says it: what an average may count */
    int64_t group;
};
/* kernel: NULL: by the attribute kernel_shape. x: [N, C, …]. Sets out, also where auto_pad or ceil_mode say how. A size that is no
 * number yet: false. */
err window_of(const struct graph *, const struct node *, const struct shape *x, const int64_t *kernel,
              struct window *, bool *known);
/* That of a ConvTranspose: x is its input, which is the convolution's output. */
err window_transposed(const struct graph *, const struct node *, const struct shape *x, const int64_t *kernel,
                      struct window *, bool *known);
/* As attributes strides, dilations, pads, kernel_shape, group, and a row for `shape` (of what a gradient makes): ended. */
const struct attr *window_attrs(struct arena *, const struct window *, const struct shape *shape);
