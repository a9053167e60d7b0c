/* serve/number: decimal text to floats and back, to the bit.
 * What is read equals strtod() and strtof() of the same text; what is written is the shortest text that reads back,
 * whether the reader goes by way of a double or not. docs/why/number-parsing.md says how.
 * Threads  any; nothing is owned. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

/* Reads up to n values (n > 0), with commas and blanks between them, from p. Values are JSON numbers, null (NaN), NaN,
 * Infinity and -Infinity. Returns the byte after the last value and its blanks, *done being how many were read; or
 * NULL if value *done is none, or out of the type's range. */
const char *f32s_read(const char *p, const char *end, float *out, size_t n, size_t *done);
const char *f64s_read(const char *p, const char *end, double *out, size_t n, size_t *done);
/* At most 16 bytes; returns the length. NaN and infinities are null, as JSON has no word for them. */
size_t f32_text(float v, char out[32]);
