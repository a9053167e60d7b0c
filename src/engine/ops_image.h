// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
//
// Training or not: BatchNormalization with training_mode 1 takes mean and variance of the batch, over all ranks, and its
// outputs 1 and 2 are the running statistics as they move on (graph->updates carries them to the states); with 0 it uses
// the running statistics, and outputs 1 and 2 are these. Who binds a graph for inference sets training_mode to 0. Variances
// are those of the population (divided by n), as ONNX says.
// Gradients ask the forward node for more outputs than ONNX has: BatchNormalization's 3 and 4 (mean and variance that it used),
// MaxPool's 2 (where in its window each maximum stood). They are made when a gradient rule adds them.
//
// BatchNormAct is what a device's lowering makes of BatchNormalization, Add and Relu: (x, scale, bias, mean, variance, addend) → max(0,
// BatchNormalization(x) + addend), the Relu if `act` is 1, the addend if it is there.
// BatchNormGrad: (dy, x, scale, mean, variance, y) → (dx, dscale, dbias, daddend). y: only if a Relu lies between, which it masks.
// ConvGradX: (dy, w) → dx of `shape`; ConvTranspose is the same walk forward. ConvGradW: (x, dy) → dw of `shape`.
// ChannelSum: sums over all axes but 1. Layout: the same tensor lying as N, H, W, C (`nhwc` 1) or N, C, H, W.
#pragma once
err shape_conv(struct graph *, struct node *), shape_conv_transpose(struct graph *, struct node *),
    shape_pool(struct graph *, struct node *), shape_global_pool(struct graph *, struct node *),
    shape_batch_norm(struct graph *, struct node *), shape_batch_norm_grad(struct graph *, struct node *),
    shape_resize(struct graph *, struct node *), shape_image_grad(struct graph *, struct node *),
    shape_channel_sum(struct graph *, struct node *), shape_layout(struct graph *, struct node *);
err grad_conv(struct grad *), grad_conv_transpose(struct grad *), grad_max_pool(struct grad *),
    grad_average_pool(struct grad *), grad_global_average_pool(struct grad *),
    grad_global_max_pool(struct grad *), grad_batch_norm(struct grad *), grad_resize(struct grad *);
// clang-format off
#define OPS_IMAGE(O)                                                                                                                          \
    O(Conv,               ONNX, 11, 2, 3, 1, 1, SPLIT_FIRST, shape_conv,           grad_conv,           2e-5, "Convolution: groups, strides, dilations, padding.") \
    O(ConvTranspose,      ONNX, 11, 2, 3, 1, 1, SPLIT_FIRST, shape_conv_transpose, grad_conv_transpose, 2e-5, "Transposed convolution.")  \
    O(MaxPool,            ONNX, 12, 1, 1, 1, 3, SPLIT_FIRST, shape_pool,           grad_max_pool,       1e-6, "Maximum of each window.")  \
    O(AveragePool,        ONNX, 19, 1, 1, 1, 1, SPLIT_FIRST, shape_pool,           grad_average_pool,   1e-5, "Mean of each window.")     \
    O(GlobalAveragePool,  ONNX,  1, 1, 1, 1, 1, SPLIT_FIRST, shape_global_pool,    grad_global_average_pool, 1e-5, "Mean of each channel's picture.") \
    O(GlobalMaxPool,      ONNX,  1, 1, 1, 1, 3, SPLIT_FIRST, shape_global_pool,    grad_global_max_pool, 1e-6, "Maximum of each channel's picture.") \
    O(BatchNormalization, ONNX, 15, 5, 5, 1, 5, SPLIT_TEAM,  shape_batch_norm,     grad_batch_norm,     2e-5, "Channels with mean 0 and variance 1, scaled and moved.") \
    O(Resize,             ONNX, 19, 1, 4, 1, 1, SPLIT_FIRST, shape_resize,         grad_resize,         1e-5, "Pictures of another size: nearest or linear.") \
    O(ConvGradX,          OWN,   1, 2, 2, 1, 1, SPLIT_FIRST, shape_image_grad,     NULL,                2e-5, "Gradient of Conv by its input.") \
    O(ConvGradW,          OWN,   1, 2, 2, 1, 1, SPLIT_NONE,  shape_image_grad,     NULL,                2e-5, "Gradient of Conv by its weights.") \
    O(ChannelSum,         OWN,   1, 1, 1, 1, 1, SPLIT_NONE,  shape_channel_sum,    NULL,                1e-5, "Sum of each channel: the gradient of a convolution's bias.") \
    O(MaxPoolGrad,        OWN,   1, 2, 2, 1, 1, SPLIT_FIRST, shape_image_grad,     NULL,                1e-6, "(dy, where in the window): gradient of MaxPool.") \
    O(AveragePoolGrad,    OWN,   1, 1, 1, 1, 1, SPLIT_FIRST, shape_image_grad,     NULL,                1e-5, "Gradient of AveragePool.") \
    O(BatchNormAct,       OWN,   1, 5, 6, 1, 5, SPLIT_TEAM,  shape_batch_norm,     NULL,                2e-5, "BatchNormalization, Add and Relu in one.") \
    O(BatchNormGrad,      OWN,   1, 5, 6, 1, 4, SPLIT_TEAM,  shape_batch_norm_grad, NULL,               2e-5, "Gradient of BatchNormalization.") \
    O(ResizeGrad,         OWN,   1, 1, 1, 1, 1, SPLIT_FIRST, shape_image_grad,     NULL,                1e-5, "Gradient of Resize.") \
    O(Layout,             OWN,   1, 1, 1, 1, 1, SPLIT_FIRST, shape_layout,         NULL,                0,    "The same picture with channels last, or first.")
// clang-format on
