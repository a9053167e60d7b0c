// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/cpu.h"

const struct cpu_kernel cpu_math[] = { { 0 } };
