/* csv: rows of text cells (RFC 4180): commas, quotes doubled inside quotes, any line ends. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

/* Cuts the next row off *rest into out, emptied before; false at the end. Empty lines are passed over. INVALID, as
 * *wrong, for a quote without its end. Cells point into the text where nothing is quoted inside them. */
bool csv_row(struct arena *a, struct str *rest, struct strs *out, err *wrong);
/* A cell as it is written: in quotes where it has to be. */
struct str csv_text(struct arena *a, struct str cell);
