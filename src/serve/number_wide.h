/* serve/number_wide: many numbers at once, where the machine has AVX-512 with VBMI2.
 * Text is looked at 64 bytes at a time: sets of bits say where digits, points, signs and commas are, and whether all of them
 * stand where they may. Then the numbers between the commas are weighed, eight together, without a jump that depends on
 * what they are. A number takes part as far as its float is certain; number.c reads the others.
 * Threads  any; nothing is owned. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

/* Can it run here? */
bool f32s_wide_is(void);
/* Reads up to n numbers from *p that each have a comma behind them, to the bit as strtof() does. Returns how many, 0 if
 * the next one is of another kind; *p is behind the last one's comma. */
size_t f32s_wide(const char **p, const char *end, float *out, size_t n);
