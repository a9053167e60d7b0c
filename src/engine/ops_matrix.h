// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
#pragma once
// clang-format off
#define OPS_MATRIX(O)
// clang-format on
