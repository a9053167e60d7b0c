/* The kinds that data owns: Source, Dataset, DatasetVersion. One row per field: the row is the struct
 * member, the JSON key, the check and the doc line. Included by data.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "schema/schema.h"

enum source_format { FORMAT_PARQUET, FORMAT_CSV, FORMAT_JSON, FORMAT_TEXT };
extern const char *const source_formats[];
enum rule {
    RULE_ROWS,
    RULE_SCHEMA,
    RULE_NOT_NULL,
    RULE_UNIQUE,
    RULE_RANGE,
    RULE_LENGTH,
    RULE_IN_SET,
    RULE_REGEX,
    RULE_MEAN,
    RULE_STD,
    RULE_DISTINCT,
    RULE_WHERE,
    RULE_FRESHNESS,
    RULE_COUNT
};
extern const char *const rule_names[];
enum severity { SEVERITY_FAIL, SEVERITY_WARN };
extern const char *const severity_names[];
/* What a column of a version is for. */
enum column_role { IS_VALUE, IS_ID, IS_EVENT_TIME, IS_KNOWN_AT, IS_KEY, IS_FEATURE, IS_LABEL };
extern const char *const column_roles[];

// clang-format off
#define SOURCE_SPEC(F, O, L, T)                                                                                  \
    F(T, STR,  path,   REQUIRED | COLUMN, "File beneath the server's --sources folder.", .len_max = 1024)        \
    F(T, ENUM, format, COLUMN, "How the file is written; text: a row a line, (line, text).", .values = source_formats, .def = "parquet")           \
    F(T, STR,  doc,    0, "What it is.", .len_max = 2000)
SCHEMA(source_spec, SOURCE_SPEC);

#define EXPECT_RULE(F, O, L, T)                                                                                  \
    F(T, ENUM, rule,         REQUIRED, "What must hold.", .values = rule_names)                                  \
    F(T, STR,  name,         0, "Name of the check; else made from the rule and its columns.", .len_max = 64)    \
    F(T, ENUM, severity,     0, "fail: nothing is committed; warn: counted and kept.", .values = severity_names, .def = "fail") \
    F(T, STR,  column,       0, "The column (range, length, inSet, regex, mean, std, distinct).", .len_max = 128) \
    F(T, STRS, column_names, 0, "The columns (notNull: each; unique: together).", .len_max = 64)                 \
    F(T, MAP,  columns,      0, "Column to SQL type (schema).", .len_max = 500)                                  \
    F(T, F64,  min,          0, "Least value, length, count, mean, …; no bound if not given.")                   \
    F(T, F64,  max,          0, "Greatest value, length, count, mean, …; no bound if not given.")                \
    F(T, STRS, values,       0, "The values allowed (inSet).")                                                   \
    F(T, STR,  pattern,      0, "Regular expression (RE2) that the whole text matches (regex).", .len_max = 1000) \
    F(T, STR,  where,        0, "SQL predicate that each row meets (where); null counts as met.", .len_max = 4000) \
    F(T, DURATION, age,      0, "Greatest distance of the newest row from `until`, or from now (freshness).")    \
    F(T, F64,  mostly,       0, "Share of the rows that must meet a rule about rows.", .def = "1", .min = 0, .max = 1)
SCHEMA(expect_rule, EXPECT_RULE);

#define DATASET_SPEC(F, O, L, T)                                                                                 \
    F(T, STRS, sources,    0, "Sources that the query reads; each is a view of that name. None, and no query: versions are made by others (request logs).", .ref = "Source", .len_max = 32) \
    F(T, STR,  query,      0, "One SELECT over the sources (DuckDB's SQL); Parquet sources have file_row_number.", .len_max = 65536) \
    F(T, STR,  id,         COLUMN, "Column that names a row, unique; features and outcomes need one.", .len_max = 128) \
    F(T, STR,  event_time, COLUMN, "Column of when it happened; features and outcomes need one.", .len_max = 128) \
    F(T, STR,  known_at,   COLUMN, "Column of when it became known; else eventTime.", .len_max = 128)            \
    F(T, STR,  order_by,   0, "Column that the rows are stored in order of; else eventTime, else the id, else as the query gives them.", .len_max = 128)    \
    L(T, expect_rule, expect, 0, "Rules that every version meets.", .len_max = 200)                              \
    F(T, STR,  doc,        0, "What it is.", .len_max = 2000)
SCHEMA(dataset_spec, DATASET_SPEC);

#define DATASET_STATUS(F, O, L, T)                                                                               \
    F(T, STR, latest,   COLUMN, "Newest version.")                                                               \
    F(T, I64, versions, COLUMN, "Versions made so far.")                                                         \
    F(T, I64, rows,     COLUMN, "Rows of the newest version.")
SCHEMA(dataset_status, DATASET_STATUS);

#define VERSION_FILE(F, O, L, T)                                                                                 \
    F(T, STR,  sha,   0, "SHA-256 of the blob.", .len_max = 64)                                                  \
    F(T, SIZE, bytes, 0, "Its size.")                                                                            \
    F(T, I64,  rows,  0, "Rows in it.")
SCHEMA(version_file, VERSION_FILE);

#define COLUMN_STATISTICS(F, O, L, T)                                                                            \
    F(T, I64,  nulls,     0, "Rows without a value.")                                                            \
    F(T, I64,  distinct,  0, "Different values, about.")                                                         \
    F(T, F64,  min,       0, "Least value; times in microseconds.")                                              \
    F(T, F64,  max,       0, "Greatest value; times in microseconds.")                                           \
    F(T, F64,  mean,      0, "Mean.")                                                                            \
    F(T, F64,  std,       0, "Standard deviation.")                                                              \
    F(T, STR,  first,     0, "Least text or time, as text.")                                                     \
    F(T, STR,  last,      0, "Greatest text or time, as text.")                                                  \
    F(T, JSON, quantiles, 0, "[p1, p5, p10, p20, …, p90, p95, p99] of a sample of at most 200,000 rows.")        \
    F(T, JSON, top,       0, "[[value, rows], …] of the most frequent texts of the same sample.")
SCHEMA(column_statistics, COLUMN_STATISTICS);

#define VERSION_COLUMN(F, O, L, T)                                                                               \
    F(T, STR,  name, 0, "Name.", .len_max = 200)                                                                 \
    F(T, STR,  type, 0, "SQL type.", .len_max = 200)                                                             \
    F(T, ENUM, role, 0, "What it is for.", .values = column_roles, .def = "value")                               \
    O(T, column_statistics, statistics, 0, "What its values look like.")
SCHEMA(version_column, VERSION_COLUMN);

#define VERSION_CHECK(F, O, L, T)                                                                                \
    F(T, STR,  name,     0, "Name of the check.", .len_max = 400)                                                \
    F(T, ENUM, rule,     0, "Its rule.", .values = rule_names)                                                   \
    F(T, ENUM, severity, 0, "What a failure means.", .values = severity_names)                                   \
    F(T, BOOL, ok,       0, "It holds.")                                                                         \
    F(T, I64,  failed,   0, "Rows that do not meet it.")                                                         \
    F(T, F64,  value,    0, "What was measured, for rules about the whole.")                                     \
    F(T, STRS, examples, 0, "Ids of at most five rows that do not meet it.", .len_max = 5)
SCHEMA(version_check, VERSION_CHECK);

#define DATASET_VERSION_SPEC(F, O, L, T)                                                                         \
    F(T, STR,  of,          FROZEN | COLUMN, "What it is a version of: Dataset/flights, TrainingSet/late_rows.", .len_max = 100) \
    F(T, I64,  number,      FROZEN, "Its number, from 1.")                                                       \
    F(T, STR,  fingerprint, FROZEN, "Hash of all that it was made from.", .len_max = 64)                         \
    F(T, TIME, from,        FROZEN, "Rows from this event time on; not set: all.")                               \
    F(T, TIME, until,       FROZEN | COLUMN, "Rows known and happened before this time; not set: all.")          \
    F(T, I64,  rows,        FROZEN | COLUMN, "Rows.")                                                            \
    L(T, version_file, files, FROZEN, "Parquet files, in order.")                                                \
    L(T, version_column, columns, FROZEN, "Columns, in order.", .len_max = 2000)                                 \
    L(T, version_check, checks, FROZEN, "Results of the rules.")                                                 \
    F(T, STRS, inputs,      FROZEN, "Refs of what it was made from.")                                            \
    F(T, STR,  service,     FROZEN, "The FeatureService whose features it holds, for training sets.", .len_max = 64) \
    F(T, JSON, definition,  FROZEN, "The features as they were defined when it was made, for training sets.")
SCHEMA(dataset_version_spec, DATASET_VERSION_SPEC);
// clang-format on

/* Ended by {0}; the rows by name below. */
extern const struct resource data_resources[];
#define source_resource (data_resources[0])
#define dataset_resource (data_resources[1])
#define dataset_version_resource (data_resources[2])
