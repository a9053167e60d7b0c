/* every_type: a table with each type of field, for tests and fuzzing. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "schema/schema.h"

static const char *const colours[] = { "red", "green", "dark-blue", NULL };

// clang-format off
#define RULE(F, O, L, T)                                                                     \
    F(T, STR,  column,      REQUIRED, "The column it looks at.",  .len_max = 20)             \
    F(T, F64,  max,         0,        "The largest value.")                                  \
    F(T, F64,  at_least,    0,        "The smallest value.",      .def = "0.5", .max = 10)   \
    F(T, ENUM, colour,      0,        "How it is shown.",         .values = colours)         \
    F(T, STRS, tags,        0,        "What it is about.")
SCHEMA(rule, RULE);

#define EVERY(F, O, L, T)                                                                                     \
    F(T, STR,      name,         REQUIRED | FROZEN | COLUMN, "Unique.", .is_name = true)                      \
    F(T, BOOL,     on,           COLUMN,   "Whether it runs.",          .def = "true")                        \
    F(T, I64,      seed,         0,        "Where chance starts.",      .min = -5, .max = 1000000)            \
    F(T, I64,      any_number,   0,        "No bounds.")                                                      \
    F(T, F64,      rate,         0,        "Between 0 and 1.",          .max = 1)                             \
    F(T, STR,      owner_mail,   PERSONAL, "Who answers for it.")                                             \
    F(T, STR,      password,     SECRET,   "Written, never read.")                                            \
    F(T, STR,      note,         0,        "Any text | with a bar.",    .def = "none")                        \
    F(T, ENUM,     colour,       0,        "How it is shown.",          .values = colours, .def = "green")    \
    F(T, TIME,     event_time,   0,        "When.")                                                           \
    F(T, DURATION, every,        0,        "How often.",                .def = "2h", .min = 1000)             \
    F(T, SIZE,     memory,       0,        "How much.",                 .max = 1 << 30)                       \
    F(T, REF,      dataset,      FROZEN,   "What it reads.",            .ref = "dataset")                     \
    F(T, JSON,     extra,        0,        "Anything.",                 .def = "{\"a\":[1]}")                 \
    F(T, STRS,     columns,      0,        "Names of columns.",         .def = "x, y", .len_max = 5)          \
    F(T, STRS,     shades,       0,        "Some colours.",             .values = colours)                    \
    F(T, MAP,      labels,       0,        "Any pairs.",                .len_max = 10)                        \
    O(T, rule,     main_rule,    0,        "The one that counts.")                                            \
    L(T, rule,     rules,        0,        "The others.",               .len_max = 50)
SCHEMA(every, EVERY);
// clang-format on
