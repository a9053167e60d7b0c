// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
#pragma once
// clang-format off
#define OPS_SHAPE(O) \
    O(Identity, ONNX, 16, 1, 1, 1, 1, SPLIT_EACH, NULL, NULL, 0, "x.")
// clang-format on
