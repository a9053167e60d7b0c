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
    O(LogSoftmaxGrad, OWN, 1, 2, 2, 1, 1, SPLIT_FIRST, shape_softmax, NULL, 1e-5, "dy − exp(y) Σ dy: (dy, y).")                 \
    O(LayerNormalization, ONNX, 17, 2, 3, 1, 3, SPLIT_FIRST, shape_layer_norm, grad_layer_norm, 1e-4,                           \
      "(x − mean) / sqrt(variance + epsilon) over the axes from `axis` on, times scale plus bias.")                             \
    O(LayerNormalizationGrad, OWN, 1, 3, 3, 1, 3, SPLIT_TEAM, shape_norm_grad, NULL, 1e-4,                                      \
      "Its gradient for x, scale and bias: (dy, x, scale).")                                                                    \
    O(RMSNormalization, ONNX, 23, 2, 2, 1, 1, SPLIT_FIRST, shape_layer_norm, grad_layer_norm, 1e-4,                             \
      "x / sqrt(mean of squares + epsilon) over the axes from `axis` on, times scale.")                                         \
    O(RMSNormalizationGrad, OWN, 1, 3, 3, 1, 2, SPLIT_TEAM, shape_norm_grad, NULL, 1e-4,                                        \
      "Its gradient for x and scale: (dy, x, scale).")                                                                          \
    O(GroupNormalization, ONNX, 21, 3, 3, 1, 1, SPLIT_FIRST, shape_group_norm, grad_group_norm, 1e-4,                           \
      "LayerNormalization over groups of channels of [N, C, …] with a scale and a bias for each channel.")                      \
    O(InstanceNormalization, ONNX, 6, 3, 3, 1, 1, SPLIT_FIRST, shape_group_norm, grad_group_norm, 1e-4,                         \
      "GroupNormalization with a group for each channel.")                                                                      \
    O(GroupNormalizationGrad, OWN, 1, 3, 3, 1, 3, SPLIT_TEAM, shape_norm_grad, NULL, 1e-4,                                      \
      "Gradient of the two above for x, scale and bias: (dy, x, scale).")                                                       \
    O(Dropout, ONNX, 13, 1, 3, 1, 2, SPLIT_FIRST, shape_dropout, grad_dropout, 1e-6,                                            \
      "x with a share of `ratio` set to 0 and the others scaled up, if training_mode; which ones is drawn by place.")           \
    O(DropoutGrad, OWN, 1, 1, 3, 1, 1, SPLIT_FIRST, shape_dropout, NULL, 1e-6, "The same elements of dy: (dy, ratio, mode).")   \
    O(RandomUniformLike, ONNX, 1, 1, 1, 1, 1, SPLIT_FIRST, shape_random_like, NULL, 1e-6,                                       \
      "Numbers within [low, high), drawn by place.")                                                                            \
    O(Attention, ONNX, 23, 3, 7, 1, 5, SPLIT_FIRST, shape_attention, grad_attention, 1e-4,                                      \
      "softmax(scale Q Kᵀ + mask) V for each head; grouped heads, is_causal, past keys. Output 4, ours: log Σ exp of each row.") \
    O(AttentionGrad, OWN, 1, 5, 7, 1, 3, SPLIT_FIRST, shape_attention_grad, NULL, 1e-4,                                         \
      "Its gradient for Q, K and V: (dy, Q, K, V, y, output 4, mask).")                                                         \
    O(PackedAttention, OWN, 1, 1, 2, 1, 2, SPLIT_FIRST, shape_packed, grad_packed, 1e-4, \
      "Attention of (queries, keys and values side by side [batch, length, (heads + 2 kv_heads) size], mask).") \
    O(PackedAttentionGrad, OWN, 1, 4, 5, 1, 1, SPLIT_FIRST, shape_as_input_1, NULL, 1e-4, \
      "Its gradient: (dy, x, y, output 1, mask).") \
    O(RotaryEmbedding, ONNX, 23, 3, 4, 1, 1, SPLIT_FIRST, shape_rotary, grad_rotary, 1e-5,                                      \
      "Pairs of a head's numbers turned by the angle of their position: (x, cos, sin, positions).")                             \
    O(LSTM, ONNX, 14, 3, 8, 1, 5, SPLIT_FIRST, shape_lstm, grad_lstm, 1e-4,                                                     \
      "Long short-term memory, gates i o f c. Outputs 3 and 4, ours: the gates and the cells of all steps.")                    \
    O(LSTMGrad, OWN, 1, 0, 13, 1, 6, SPLIT_TEAM, shape_lstm_grad, NULL, 1e-4,                                                  \
      "Its gradient for X, W, R, B, the first h and the first c: (dY, dY_h, dY_c, X, W, R, lengths, first h, first c, Y, gates, cells).") \
    O(GRU, ONNX, 14, 3, 6, 1, 3, SPLIT_FIRST, shape_gru, grad_gru, 1e-4,                                                        \
      "Gated recurrent unit, gates z r h. Output 2, ours: the gates and R h of all steps.")                                     \
    O(GRUGrad, OWN, 1, 0, 10, 1, 5, SPLIT_TEAM, shape_gru_grad, NULL, 1e-4,                                                      \
      "Its gradient for X, W, R, B and the first h: (dY, dY_h, X, W, R, lengths, first h, Y, gates).")
// clang-format on

/* The group's rules, in ops_sequence.c. */
err shape_softmax(struct graph *, struct node *);
err shape_layer_norm(struct graph *, struct node *);
err shape_norm_grad(struct graph *, struct node *);
err shape_group_norm(struct graph *, struct node *);
err shape_dropout(struct graph *, struct node *);
err shape_random_like(struct graph *, struct node *);
err shape_attention(struct graph *, struct node *);
err shape_attention_grad(struct graph *, struct node *);
err shape_packed(struct graph *, struct node *);
err shape_rotary(struct graph *, struct node *);
err shape_lstm(struct graph *, struct node *);
err shape_lstm_grad(struct graph *, struct node *);
err shape_gru(struct graph *, struct node *);
err shape_gru_grad(struct graph *, struct node *);
err grad_softmax(struct grad *);
err grad_layer_norm(struct grad *);
err grad_group_norm(struct grad *);
err grad_dropout(struct grad *);
err grad_attention(struct grad *);
err grad_packed(struct grad *);
err grad_rotary(struct grad *);
err grad_lstm(struct grad *);
err grad_gru(struct grad *);
