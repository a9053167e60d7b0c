/* resize: which elements of its input an output of ONNX's Resize is made of, axis by axis.
 * An output's value is the sum over the axes' pairs (index, weight) of products of weights times elements; axes that keep their
 * size have one index of weight 1. Gradients walk the same pairs the other way. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/graph.h"

struct resize {
    int rank;
    int64_t in[TENSOR_RANK_MAX], out[TENSOR_RANK_MAX];
    double scale[TENSOR_RANK_MAX];
    struct str mode, coordinates, nearest; /* mode, coordinate_transformation_mode, nearest_mode */
};
/* known: false while the input's shape or the sizes asked for are no numbers. UNSUPPORTED for cubic, antialias and roi. */
err resize_of(const struct graph *, const struct node *, const struct shape *x, struct resize *, bool *known);
/* For ResizeGrad: everything as attributes (scale_bits holds doubles), ended; shape: of the input. */
const struct attr *resize_attrs(struct arena *, const struct resize *, const struct shape *);
/* From ResizeGrad's node; out is filled from dy's shape by the caller. */
void resize_from_attrs(const struct node *, struct resize *);
/* Of axis i, by output index: two input indices and the weight of the second (0: it does not count). */
struct resize_tap {
    int64_t at[2];
    double second;
};
struct resize_tap *resize_taps(struct arena *, const struct resize *, int axis);
