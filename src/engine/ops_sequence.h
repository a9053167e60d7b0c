// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
// Backward kernels read the forward's inputs again and find the row's statistics anew, which costs less than keeping them; only
// attention keeps a number for each query (the log of its sum), and recurrent nets their gates.
#pragma once
// clang-format off
#define OPS_SEQUENCE(O)                                                                                                         \
    O(Softmax, ONNX, 13, 1, 1, 1, 1, SPLIT_FIRST, shape_softmax, grad_softmax, 1e-5, "exp(x) / Σ exp(x) along axis (−1).")      \
    O(LogSoftmax, ONNX, 13, 1, 1, 1, 1, SPLIT_FIRST, shape_softmax, grad_softmax, 1e-5, "x − log Σ exp(x) along axis (−1).")    \
    O(SoftmaxGrad, OWN, 1, 2, 2, 1, 1, SPLIT_FIRST, shape_softmax, NULL, 1e-5, "y (dy − Σ dy y): (dy, y).")                     \
    O(LogSoftmaxGrad, OWN, 1, 2, 2, 1, 1, SPLIT_FIRST, shape_softmax, NULL, 1e-5, "dy − exp(y) Σ dy: (dy, y).")
// clang-format on

/* The group's rules, in ops_sequence.c. */
err shape_softmax(struct graph *, struct node *);
err grad_softmax(struct grad *);
