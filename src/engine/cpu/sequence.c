// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/group.h"

SIMD_DECLARE(struct cpu_group, sequence_group);

static err pick(struct bind *b)
{
    return group_bind(SIMD_PICK(sequence_group), b);
}

#define K(op, fn, in_place) { OP_##op, pick, in_place },
const struct cpu_kernel cpu_sequence[] = { SEQUENCE_KERNELS(K){ 0 } };
#undef K
