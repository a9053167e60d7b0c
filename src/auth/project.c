// SPDX-License-Identifier: Apache-2.0
/* project: the spec of the kind Project. */
#include "auth/auth.h"

SCHEMA_TABLE(project_spec, PROJECT_SPEC, "A space of its own for names, tokens and data.");
