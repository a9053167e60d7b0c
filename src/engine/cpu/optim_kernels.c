// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/optim_kernels.h"

double optim_norm2(const struct optim_pass *p, size_t from, size_t to)
{
    return SIMD_PICK(optim_table)->norm2(p, from, to);
}

void optim_step(const struct optim_pass *p, size_t from, size_t to)
{
    SIMD_PICK(optim_table)->step(p, from, to);
}

void optim_lamb(const struct optim_pass *p, size_t from, size_t to)
{
    SIMD_PICK(optim_table)->lamb(p, from, to);
}
