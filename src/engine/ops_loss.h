// SPDX-License-Identifier: Apache-2.0
// The rows of one group; read engine/ops.h first.
// A loss is a scalar that is this rank's share: the sum over the ranks is the loss of the batch. What it is divided by (rows,
// weights, pairs) is summed over the team, so the number of ranks changes nothing but rounding. Sample weights weigh the mean:
// Σ s·l / Σ s. A label that is no class of the model counts as ignored and is told in rank->bad_label.
// Where inputs 2… are optional they may be left out (−1).
#pragma once
// clang-format off
#define OPS_LOSS(O)                                                                                                              \
    O(SoftmaxCrossEntropyLoss, ONNX, 13, 2, 3, 1, 2, SPLIT_TEAM, shape_onnx_loss, grad_softmax_loss, 1e-5,                       \
      "−log softmax(scores)[label] over axis 1; reduction, ignore_index and class weights as in ONNX.")                          \
    O(NegativeLogLikelihoodLoss, ONNX, 13, 2, 3, 1, 1, SPLIT_TEAM, shape_onnx_loss, grad_softmax_loss, 1e-5,                     \
      "−input[label] over axis 1; reduction, ignore_index and class weights as in ONNX.")                                        \
    O(OnnxLossGrad, OWN, 1, 3, 4, 1, 1, SPLIT_TEAM, shape_as_input_1, NULL, 1e-5,                                                \
      "Gradient of the two above: (dy, scores, labels, weights); softmax: 1 or 0.")                                              \
    O(SoftmaxCrossEntropy, OWN, 1, 2, 4, 1, 1, SPLIT_TEAM, shape_class_loss, grad_class_loss, 1e-5,                              \
      "Mean of −log softmax(logits)[label] over the last axis: (logits [.., C], labels [..], class weights [C], sample weights " \
      "[rows]); ignore_index (−100), label_smoothing (0).")                                                                      \
    O(SoftmaxCrossEntropyGrad, OWN, 1, 3, 5, 1, 2, SPLIT_TEAM, shape_class_loss_grad, NULL, 1e-5,                                \
      "Its gradient: (dy, logits, labels, class weights, sample weights); output 1: the loss itself, found in the same pass.")   \
    O(SigmoidCrossEntropy, OWN, 1, 2, 4, 1, 1, SPLIT_TEAM, shape_pointwise_loss, grad_pointwise_loss, 1e-5,                      \
      "Mean of −t log σ(x) w − (1 − t) log(1 − σ(x)): (logits, targets in 0..1, weights w of the positive [C] or [1], sample "   \
      "weights [rows]); label_smoothing (0).")                                                                                   \
    O(MeanSquaredError, OWN, 1, 2, 4, 1, 1, SPLIT_TEAM, shape_pointwise_loss, grad_pointwise_loss, 1e-5,                         \
      "Mean of (x − t)²: (x, t, weights of the columns [C] or [1], sample weights [rows]).")                                     \
    O(MeanAbsoluteError, OWN, 1, 2, 4, 1, 1, SPLIT_TEAM, shape_pointwise_loss, grad_pointwise_loss, 1e-5,                        \
      "Mean of |x − t|, else as MeanSquaredError.")                                                                              \
    O(HuberLoss, OWN, 1, 2, 4, 1, 1, SPLIT_TEAM, shape_pointwise_loss, grad_pointwise_loss, 1e-5,                                \
      "Mean of e²/2 where |e| ≤ delta (1), delta (|e| − delta/2) elsewhere; else as MeanSquaredError.")                          \
    O(PointwiseLossGrad, OWN, 1, 3, 5, 1, 2, SPLIT_TEAM, shape_pointwise_loss_grad, NULL, 1e-5,                                  \
      "Gradient of the four above, which `of` names: (dy, and their inputs); output 1: the loss itself.")                        \
    O(PairwiseRankingLoss, OWN, 1, 3, 3, 1, 1, SPLIT_TEAM, shape_ranking_loss, grad_ranking_loss, 1e-5,                          \
      "Mean over pairs of one group in which i is more relevant than j: (scores, relevance, groups), each [rows] or [rows, 1]; " \
      "hinge 0: log(1 + exp(sj − si)); 1: max(0, margin (1) − si + sj).")                                                        \
    O(PairwiseRankingLossGrad, OWN, 1, 4, 4, 1, 1, SPLIT_TEAM, shape_as_input_1, NULL, 1e-5, "(dy, and its inputs).")            \
    O(TripletLoss, OWN, 1, 2, 2, 1, 1, SPLIT_TEAM, shape_triplet_loss, grad_triplet_loss, 1e-5,                                  \
      "Mean over pairs (i, j) of rows of one label of max(0, |xi − xj| − |xi − xn| + margin (1)): (x [rows, D], labels [rows]); "  \
      "n is the nearest row of another label that is farther than j (semi-hard), or else the farthest of another label.")        \
    O(TripletLossGrad, OWN, 1, 3, 3, 1, 1, SPLIT_TEAM, shape_as_input_1, NULL, 1e-5, "(dy, and its inputs).")
// clang-format on

/* The group's rules, in ops_loss.c. */
err shape_as_input_1(struct graph *, struct node *);
err shape_onnx_loss(struct graph *, struct node *);
err shape_class_loss(struct graph *, struct node *);
err shape_class_loss_grad(struct graph *, struct node *);
err shape_pointwise_loss(struct graph *, struct node *);
err shape_pointwise_loss_grad(struct graph *, struct node *);
err shape_ranking_loss(struct graph *, struct node *);
err shape_triplet_loss(struct graph *, struct node *);
err grad_softmax_loss(struct grad *);
err grad_class_loss(struct grad *);
err grad_pointwise_loss(struct grad *);
err grad_ranking_loss(struct grad *);
err grad_triplet_loss(struct grad *);
