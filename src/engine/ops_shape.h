// SPDX-License-Identifier: Apache-2.0
// The rows of one group: shapes, places and indices; read engine/ops.h first.
#pragma once
// clang-format off
#define OPS_SHAPE(O)                                                                                                                  \
    O(Reshape,         ONNX, 14, 2, 2, 1, 1,  SPLIT_FIRST, shape_reshape,   grad_reshape,    0,    "The same elements under another shape; 0: as it was, -1: what is left.") \
    O(Flatten,         ONNX, 13, 1, 1, 1, 1,  SPLIT_FIRST, shape_flatten,   grad_reshape,    0,    "Two axes: those before `axis`, and the others.") \
    O(Squeeze,         ONNX, 13, 1, 2, 1, 1,  SPLIT_FIRST, shape_squeeze,   grad_reshape,    0,    "Axes of size 1 go.")                \
    O(Unsqueeze,       ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_unsqueeze, grad_reshape,    0,    "Axes of size 1 come.")              \
    O(Identity,        ONNX, 14, 1, 1, 1, 1,  SPLIT_EACH,  shape_identity,  grad_identity,   0,    "The same.")                         \
    O(Transpose,       ONNX, 13, 1, 1, 1, 1,  SPLIT_FIRST, shape_transpose, grad_transpose,  0,    "Axes in the order of `perm`.")      \
    O(Concat,          ONNX, 13, 1, -1, 1, 1, SPLIT_EACH,  shape_concat,    grad_concat,     0,    "Inputs side by side along `axis`.") \
    O(Split,           ONNX, 18, 1, 2, 1, -1, SPLIT_FIRST, shape_split,     grad_split,      0,    "Pieces along `axis`.")              \
    O(Slice,           ONNX, 13, 3, 5, 1, 1,  SPLIT_FIRST, shape_slice,     grad_slice,      0,    "From start to end by steps, along some axes.") \
    O(Pad,             ONNX, 19, 2, 4, 1, 1,  SPLIT_FIRST, shape_pad,       grad_pad,        0,    "More (or fewer) elements at the ends of axes: constant, reflect, edge, wrap.") \
    O(Expand,          ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_expand,    grad_expand,     0,    "Broadcast to a shape.")             \
    O(Tile,            ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_tile,      grad_tile,       0,    "Repeated along axes.")              \
    O(Trilu,           ONNX, 14, 1, 2, 1, 1,  SPLIT_FIRST, shape_trilu,     grad_trilu,      0,    "The upper or lower triangle of each matrix; else 0.") \
    O(Gather,          ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_gather,    grad_gather,     0,    "Rows by index, along `axis`: an embedding.") \
    O(GatherElements,  ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_gather_elements, grad_gather_elements, 0, "Each element by an index of its own along `axis`.") \
    O(GatherND,        ONNX, 13, 2, 2, 1, 1,  SPLIT_FIRST, shape_gather_nd, grad_gather_nd,  0,    "Slices by tuples of indices.")      \
    O(ScatterElements, ONNX, 18, 3, 3, 1, 1,  SPLIT_FIRST, shape_scatter,   grad_scatter_elements, 1e-6, "The data, with elements written or added by index.") \
    O(ScatterND,       ONNX, 18, 3, 3, 1, 1,  SPLIT_FIRST, shape_scatter,   grad_scatter_nd, 1e-6, "The data, with slices written or added by tuples of indices.") \
    O(Shape,           ONNX, 15, 1, 1, 1, 1,  SPLIT_NONE,  shape_shape,     NULL,            0,    "The sizes.")                        \
    O(Size,            ONNX, 13, 1, 1, 1, 1,  SPLIT_NONE,  shape_size,      NULL,            0,    "The number of elements.")           \
    O(Constant,        ONNX, 13, 0, 0, 1, 1,  SPLIT_EACH,  shape_constant,  NULL,            0,    "Its attribute.")                    \
    O(ConstantOfShape, ONNX,  9, 1, 1, 1, 1,  SPLIT_EACH,  shape_filled,    NULL,            0,    "One number everywhere.")            \
    O(Range,           ONNX, 11, 3, 3, 1, 1,  SPLIT_EACH,  shape_range,     NULL,            1e-6, "Numbers from start to limit by steps.") \
    O(OneHot,          ONNX, 11, 3, 3, 1, 1,  SPLIT_FIRST, shape_one_hot,   NULL,            0,    "A new axis, `on` at the index and `off` elsewhere.") \
    O(TopK,            ONNX, 11, 2, 2, 2, 2,  SPLIT_FIRST, shape_top_k,     grad_top_k,      0,    "The k largest (smallest) along `axis`, and where they were.") \
    O(DepthToSpace,    ONNX, 13, 1, 1, 1, 1,  SPLIT_FIRST, shape_depth_to_space, grad_depth_to_space, 0, "Blocks of channels become blocks of pixels.") \
    O(SpaceToDepth,    ONNX, 13, 1, 1, 1, 1,  SPLIT_FIRST, shape_space_to_depth, grad_space_to_depth, 0, "Blocks of pixels become blocks of channels.") \
    O(GatherGrad,      OWN,   1, 2, 2, 1, 1,  SPLIT_FIRST, shape_as_attr,   NULL,            1e-6, "(indices, dy): dy added into zeros of `shape` at the rows that Gather took, in the order of the indices.") \
    O(SliceGrad,       OWN,   1, 1, 1, 1, 1,  SPLIT_FIRST, shape_as_attr,   NULL,            0,    "dy put into zeros of `shape`, from `starts` by `steps`.") \
    O(PadGrad,         OWN,   1, 1, 1, 1, 1,  SPLIT_FIRST, shape_as_attr,   NULL,            1e-6, "dy added into zeros of `shape`, each element where Pad took it from.")
// clang-format on

err shape_reshape(struct graph *, struct node *), shape_flatten(struct graph *, struct node *),
    shape_squeeze(struct graph *, struct node *), shape_unsqueeze(struct graph *, struct node *),
    shape_identity(struct graph *, struct node *), shape_transpose(struct graph *, struct node *),
    shape_concat(struct graph *, struct node *), shape_split(struct graph *, struct node *),
    shape_slice(struct graph *, struct node *), shape_pad(struct graph *, struct node *),
    shape_expand(struct graph *, struct node *), shape_tile(struct graph *, struct node *),
    shape_trilu(struct graph *, struct node *), shape_gather(struct graph *, struct node *),
    shape_gather_elements(struct graph *, struct node *), shape_gather_nd(struct graph *, struct node *),
    shape_scatter(struct graph *, struct node *), shape_shape(struct graph *, struct node *),
    shape_size(struct graph *, struct node *), shape_constant(struct graph *, struct node *),
    shape_filled(struct graph *, struct node *), shape_range(struct graph *, struct node *),
    shape_one_hot(struct graph *, struct node *), shape_top_k(struct graph *, struct node *),
    shape_depth_to_space(struct graph *, struct node *), shape_space_to_depth(struct graph *, struct node *),
    shape_as_attr(struct graph *, struct node *);
err grad_reshape(struct grad *), grad_identity(struct grad *), grad_transpose(struct grad *),
    grad_concat(struct grad *), grad_split(struct grad *), grad_slice(struct grad *), grad_pad(struct grad *),
    grad_expand(struct grad *), grad_tile(struct grad *), grad_trilu(struct grad *),
    grad_gather(struct grad *), grad_gather_elements(struct grad *), grad_gather_nd(struct grad *),
    grad_scatter_elements(struct grad *), grad_scatter_nd(struct grad *), grad_top_k(struct grad *),
    grad_depth_to_space(struct grad *), grad_space_to_depth(struct grad *);

/* ---- what shape rules and kernels of this group both need ---- */
/* Where a Slice begins, by axis of its input, and how it walks on; sizes are those of its output. */
struct slice {
    int64_t start[TENSOR_RANK_MAX], step[TENSOR_RANK_MAX], size[TENSOR_RANK_MAX];
};
/* Of a Slice whose other inputs are constants. An open axis (size < 0) may only be kept whole: its size stays the symbol.
 * *known: false if an input is no constant, or an open axis is cut. */
err slice_read(struct graph *, const struct node *, struct slice *out, bool *known);
/* Whether axis 0 of its first input, which grew with the batch, is not simply kept: an op without the attribute `axis`. */
bool shape_mixes_rows(const struct graph *, const struct node *);
/* Elements that a Pad adds before and after each axis. *known: as above. */
err pads_read(struct graph *, const struct node *, int rank, int64_t *before, int64_t *after, bool *known);
