/* The kinds that feature owns: Entity, FeatureView, FeatureService, TrainingSet. Included by feature.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"

enum {
    KEYS_MAX = 8,
    WINDOWS_MAX = 16,
    AGGREGATES_MAX = 64,
    VIEWS_MAX = 32,
    REQUESTS_MAX = 128,
    FEATURES_MAX = 2048
};
enum aggregate_function { AGG_COUNT, AGG_SUM, AGG_MEAN };
extern const char *const aggregate_functions[];
enum absence { ABSENT_NULL, ABSENT_DEFAULT, ABSENT_REFUSE };
extern const char *const absences[];
/* Rows of request_table below, in its order. */
extern const char *const request_functions[];

// clang-format off
#define ENTITY_SPEC(F, O, L, T)                                                                                  \
    F(T, STRS, keys, REQUIRED | COLUMN, "Columns that together name one.", .min = 1, .len_max = KEYS_MAX)        \
    F(T, STR,  doc,  0, "What it is.", .len_max = 2000)
SCHEMA(entity_spec, ENTITY_SPEC);

#define VIEW_AGGREGATE(F, O, L, T)                                                                               \
    F(T, STR,  name,     REQUIRED, "Part of the feature's name: <view>_<name>_<window>.", .is_name = true)       \
    F(T, ENUM, function, REQUIRED, "count: rows (of column: rows with a value); sum, mean: of the values.", .values = aggregate_functions) \
    F(T, STR,  column,   0, "A number or truth value of the dataset; count may go without.", .len_max = 128)
SCHEMA(view_aggregate, VIEW_AGGREGATE);

#define FEATURE_VIEW_SPEC(F, O, L, T)                                                                            \
    F(T, REF,  dataset, REQUIRED | COLUMN, "Where the events come from.", .ref = "Dataset")                      \
    F(T, REF,  entity,  REQUIRED | COLUMN, "Whose features they are.", .ref = "Entity")                          \
    F(T, STRS, windows, REQUIRED, "Durations back from a row's known time, both ends included.", .min = 1, .len_max = WINDOWS_MAX) \
    F(T, DURATION, ttl, COLUMN, "Oldest row that still counts, by the time asked about; 0: any.", .def = "0s", .min = 0, .max = 1e13) \
    L(T, view_aggregate, aggregates, REQUIRED, "What is computed over each window.", .min = 1, .len_max = AGGREGATES_MAX) \
    F(T, ENUM, missing, 0, "What a prediction gets whose keys have no row: null, as in training; default; refuse: it gets 404.", .values = absences) \
    F(T, ENUM, stale,   0, "What it gets whose row is older than ttl: the same; refuse: it gets 503.", .values = absences) \
    F(T, MAP, defaults, 0, "By the name of an aggregate, the number that default means for it; else 0.", .len_max = AGGREGATES_MAX) \
    F(T, STR,  doc, 0, "What it is.", .len_max = 2000)
SCHEMA(feature_view_spec, FEATURE_VIEW_SPEC);

#define REQUEST_FEATURE(F, O, L, T)                                                                              \
    F(T, STR,  name,     REQUIRED, "Name of the feature.", .is_name = true)                                      \
    F(T, ENUM, function, REQUIRED, "How it is computed from the column.", .values = request_functions)           \
    F(T, STR,  column,   REQUIRED, "Column of the request (and of the dataset).", .len_max = 128)
SCHEMA(request_feature, REQUEST_FEATURE);

#define FEATURE_SERVICE_SPEC(F, O, L, T)                                                                         \
    F(T, STRS, views,   COLUMN, "Views, in the order of their features.", .ref = "FeatureView", .len_max = VIEWS_MAX) \
    L(T, request_feature, request, 0, "Features computed from the request itself; they come after the views'.", .len_max = REQUESTS_MAX) \
    F(T, STR,  doc, 0, "What it is.", .len_max = 2000)
SCHEMA(feature_service_spec, FEATURE_SERVICE_SPEC);

#define SERVICE_ONLINE(F, O, L, T)                                                                               \
    F(T, STR,  version, COLUMN, "Dataset version that was materialised last.")                                   \
    F(T, I64,  rows,    COLUMN, "Keys that it gave a row.")                                                      \
    F(T, TIME, at,      0, "When.")
SCHEMA(service_online, SERVICE_ONLINE);
#define FEATURE_SERVICE_STATUS(F, O, L, T)                                                                       \
    O(T, service_online, online, 0, "What the online rows were last filled from; pushes come on top.")
SCHEMA(feature_service_status, FEATURE_SERVICE_STATUS);

#define TRAINING_SET_SPEC(F, O, L, T)                                                                            \
    F(T, REF, dataset,  REQUIRED | COLUMN, "Its rows are the label rows.", .ref = "Dataset")                     \
    F(T, REF, service,  REQUIRED | COLUMN, "The features they get.", .ref = "FeatureService")                    \
    F(T, STR, label,    REQUIRED, "Column with the answer.", .len_max = 128)                                     \
    F(T, F64, sample,   0, "Share of the rows, chosen by a hash of the id: the same ones every time.", .def = "1", .min = 0, .max = 1) \
    F(T, STR, known_at, 0, "Column to take for the dataset's knownAt: for experiments only, it can leak the future.", .len_max = 128) \
    F(T, STR, doc,      0, "What it is.", .len_max = 2000)
SCHEMA(training_set_spec, TRAINING_SET_SPEC);
// clang-format on
/* Status of a TrainingSet: struct dataset_status (latest, versions, rows). */

/* Ended by {0}; the rows by name below. */
extern const struct resource feature_resources[];
#define entity_resource (feature_resources[0])
#define feature_view_resource (feature_resources[1])
#define feature_service_resource (feature_resources[2])
#define training_set_resource (feature_resources[3])
