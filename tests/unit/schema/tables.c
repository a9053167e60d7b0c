/* The table of every_type.h, for all tests of schema. */
// SPDX-License-Identifier: Apache-2.0
#include "every_type.h"

SCHEMA_TABLE(rule, RULE, "A rule.");
SCHEMA_TABLE(every, EVERY, "Every type.");
