// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
//
// MatMulT is what gradients of products are made of, so that no transposed copy is ever made:
//   Y = act(alpha · op(A) · op(B) + bias + C), batches as MatMul has them.
//   transA, transB  the last two axes change places
//   sum             1: products of all batches are added up, Y has two axes (the gradient of a weight)
//   act             enum gemm_act: 1: Relu; 2: 0 where input 3 is not positive (the way back through a Relu)
// Inputs 2 (bias, one for each column), 3 (mask, of Y's shape) and 4 (C, of Y's shape; nothing is moved if Y lies in its place,
// as where gradients are added up) may be missing.
#pragma once
err shape_matmul(struct graph *, struct node *);
err shape_matmul_t(struct graph *, struct node *);
err shape_gemm(struct graph *, struct node *);
err grad_matmul(struct grad *);
err grad_gemm(struct grad *);
// clang-format off
#define OPS_MATRIX(O)                                                                                                                  \
    O(MatMul,  ONNX, 13, 2, 2, 1, 1, SPLIT_FIRST, shape_matmul,   grad_matmul, 1e-5, "Matrix product by numpy's rules.")                \
    O(MatMulT, OWN,   1, 2, 5, 1, 1, SPLIT_FIRST, shape_matmul_t, NULL,        1e-5, "Matrix product with transposed operands, summed batches, bias and activation.") \
    O(Gemm,    ONNX, 13, 2, 3, 1, 1, SPLIT_FIRST, shape_gemm,     grad_gemm,   1e-5, "alpha · op(A) · op(B) + beta · C.")
// clang-format on
