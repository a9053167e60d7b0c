// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/group.h"

SIMD_DECLARE(struct cpu_group, loss_group);

static err pick(struct bind *b)
{
    return group_bind(SIMD_PICK(loss_group), b);
}

#define K(op, fn, in_place) { OP_##op, pick, in_place },
const struct cpu_kernel cpu_loss[] = { LOSS_KERNELS(K){ 0 } };
#undef K
