/* group: kernels of losses and sequences, compiled for each instruction set (engine/cpu/simd.h) as a whole: <group>_simd.c makes
 * a table for each set, <group>.c the one that the device reads, which picks among them when a node is bound. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"

struct cpu_group {
    struct cpu_kernel rows[64];
};
static inline err group_bind(const struct cpu_group *group, struct bind *b)
{
    for (const struct cpu_kernel *k = group->rows; k->bind; k++)
        if (k->op == b->step->op->id)
            return k->bind(b);
    return cpu_no_kernel(b);
}
/* A loss and its gradient become one node, so that scores are read once; Dropout of a graph that is not trained goes. */
void sequence_lower(struct graph *, bool train);

// clang-format off
/* op, bind, inputs in whose place output 0 may lie: a row of scores is read before its gradient is written. */
#define LOSS_KERNELS(K)                                             \
    K(SoftmaxCrossEntropyLoss,    bind_onnx_softmax,       0)       \
    K(NegativeLogLikelihoodLoss,  bind_onnx_nll,           0)       \
    K(OnnxLossGrad,               bind_onnx_grad,          1 << 1)  \
    K(SoftmaxCrossEntropy,        bind_softmax_xent,       0)       \
    K(SoftmaxCrossEntropyGrad,    bind_softmax_xent_grad,  1 << 1)  \
    K(SigmoidCrossEntropy,        bind_pointwise,          0)       \
    K(MeanSquaredError,           bind_pointwise,          0)       \
    K(MeanAbsoluteError,          bind_pointwise,          0)       \
    K(HuberLoss,                  bind_pointwise,          0)       \
    K(PointwiseLossGrad,          bind_pointwise_grad,     1 << 1)  \
    K(PairwiseRankingLoss,        bind_ranking,            0)       \
    K(PairwiseRankingLossGrad,    bind_ranking_grad,       0)       \
    K(TripletLoss,                bind_triplet,            0)       \
    K(TripletLossGrad,            bind_triplet_grad,       0)

#define SEQUENCE_KERNELS(K)                                           \
    K(Softmax,                 bind_softmax,           1)             \
    K(LogSoftmax,              bind_log_softmax,       1)             \
    K(SoftmaxGrad,             bind_softmax_grad,      1 << 0 | 1 << 1) \
    K(LogSoftmaxGrad,          bind_log_softmax_grad,  1 << 0 | 1 << 1) \
    K(LayerNormalization,      bind_layer_norm,        1)             \
    K(LayerNormalizationGrad,  bind_layer_norm_grad,   1 << 0 | 1 << 1) \
    K(RMSNormalization,        bind_rms_norm,          1)             \
    K(RMSNormalizationGrad,    bind_rms_norm_grad,     1 << 0 | 1 << 1) \
    K(GroupNormalization,      bind_group_norm,        1)             \
    K(InstanceNormalization,   bind_group_norm,        1)             \
    K(GroupNormalizationGrad,  bind_group_norm_grad,   1 << 0 | 1 << 1) \
    K(Dropout,                 bind_dropout,           1)             \
    K(DropoutGrad,             bind_dropout,           1)             \
    K(RandomUniformLike,       bind_random_uniform,    1)

#define ATTENTION_KERNELS(K)                          \
    K(Attention,         bind_attention,       0)     \
    K(AttentionGrad,     bind_attention_grad,  0)     \
    K(PackedAttention,      bind_packed,       0)  \
    K(PackedAttentionGrad,  bind_packed_grad,  0)  \
    K(RotaryEmbedding,   bind_rotary,          1)

#define RECURRENT_KERNELS(K)        \
    K(LSTM,      bind_lstm,       0) \
    K(LSTMGrad,  bind_lstm_grad,  0) \
    K(GRU,       bind_gru,        0) \
    K(GRUGrad,   bind_gru_grad,   0)
// clang-format on
