// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/group.h"

SIMD_DECLARE(struct cpu_group, sequence_group);
SIMD_DECLARE(struct cpu_group, attention_group);
SIMD_DECLARE(struct cpu_group, recurrent_group);

static err pick_sequence(struct bind *b)
{
    return group_bind(SIMD_PICK(sequence_group), b);
}
static err pick_attention(struct bind *b)
{
    return group_bind(SIMD_PICK(attention_group), b);
}
static err pick_recurrent(struct bind *b)
{
    return group_bind(SIMD_PICK(recurrent_group), b);
}

// clang-format off
#undef S
#define S(op, fn, in_place) { OP_##op, pick_sequence, in_place },
#define A(op, fn, in_place) { OP_##op, pick_attention, in_place },
#define R(op, fn, in_place) { OP_##op, pick_recurrent, in_place },
const struct cpu_kernel cpu_sequence[] = { SEQUENCE_KERNELS(S) ATTENTION_KERNELS(A) RECURRENT_KERNELS(R) { 0 } };
// clang-format on
