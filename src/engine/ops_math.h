// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
#pragma once
// clang-format off
#define OPS_MATH(O) \
    O(Add,   ONNX, 14, 2, 2, 1, 1, SPLIT_EACH, NULL, NULL, 1e-6, "x + y.") \
    O(Cast,  ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, NULL, NULL, 1e-6, "x in another type.") \
    O(SumTo, OWN,   1, 2, 2, 1, 1, SPLIT_NONE, NULL, NULL, 1e-6, "x summed to the shape of y.")
// clang-format on
