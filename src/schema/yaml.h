/* yaml: what reading and writing share: the type of a plain scalar by YAML 1.2's core schema. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/str.h"

enum yaml_type { YAML_TEXT, YAML_NULL, YAML_BOOL, YAML_INT, YAML_FLOAT, YAML_NOT_FINITE };
enum yaml_type yaml_plain_type(struct str s);
