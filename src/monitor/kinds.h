/* The kind that monitor owns: Monitor. One row per field: the row is the struct member, the JSON key, the check and
 * the doc line. Included by monitor.h. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include "schema/schema.h"

enum monitor_alarm { ALARM_NONE, ALARM_WATCHING, ALARM_DRIFTED };
extern const char *const monitor_alarms[];
enum monitor_watched { WATCH_CHAMPION, WATCH_CHALLENGER };
extern const char *const monitor_watches[];
enum { MONITOR_HISTORY = 50, MONITOR_WORST = 50 };

// clang-format off
#define MONITOR_FEATURES(F, O, L, T)                                                                             \
    F(T, F64, wasserstein, 0, "Normed Wasserstein distance from which on a feature is over.", .def = "0.1", .min = 1e-6, .max = 1e6) \
    F(T, F64, psi,         0, "Population stability index over tenths from which on a feature is over.", .def = "0.25", .min = 1e-6, .max = 1e6) \
    F(T, F64, share,       0, "Share of the features over a bound that makes a window an alarm.", .def = "0.3", .min = 1e-6, .max = 1) \
    F(T, I64, min,         0, "Fewest predictions of a window that is judged.", .def = "200", .min = 1, .max = 1e12)
#define MONITOR_OUTCOME(F, O, L, T)                                                                              \
    F(T, REF, dataset, REQUIRED, "Where the outcomes are pushed to.", .ref = "Dataset")                          \
    F(T, STR, id,      0, "Column with the id that the requests gave; else the dataset's id.", .len_max = 128)   \
    F(T, STR, label,   REQUIRED, "Column with the outcome: 1 happened, 0 did not.", .len_max = 128)              \
    F(T, I64, min,     0, "Fewest outcomes for an AUC.", .def = "100", .min = 2, .max = 1e12)
#define MONITOR_SPEC(F, O, L, T)                                                                                 \
    F(T, REF,      deployment, REQUIRED | COLUMN, "Whose predictions are watched.", .ref = "Deployment")         \
    F(T, ENUM,     watch,      COLUMN, "Which of its versions: the champion; or the challenger of a rollout (b of an A/B test), as canary.abort.monitor wants it.", .values = monitor_watches) \
    F(T, DURATION, window,     COLUMN, "Length of a window, in event time of the requests.", .def = "1d", .min = 1000, .max = 3.2e10) \
    F(T, I64,      sustain,    0, "Windows running over the share that are a drift.", .def = "2", .min = 1, .max = 1000) \
    O(T, monitor_features, features, 0, "When a feature counts as moved.")                                       \
    O(T, monitor_outcome,  outcome,  0, "Where it is learned what became true.")                                 \
    F(T, DURATION, cooldown,   0, "Event time after a drift in which it is not told again; 0: only of a new version.", .def = "14d", .min = 0, .max = 3.2e11) \
    F(T, STR,      doc,        0, "What it is for.", .len_max = 2000)

#define MONITOR_WINDOW(F, O, L, T)                                                                               \
    F(T, TIME, from,        0, "Predictions of rows from this time on.")                                         \
    F(T, TIME, until,       0, "And before this time.")                                                          \
    F(T, I64,  predictions, 0, "Their number so far.")                                                           \
    F(T, I64,  outcomes,    0, "Outcomes of them so far.")                                                       \
    F(T, F64,  auc,         0, "Realised AUC of these.")
#define MONITOR_DRIFT(F, O, L, T)                                                                                \
    F(T, STR,  name,        0, "The feature, or score.", .len_max = 200)                                         \
    F(T, F64,  wasserstein, 0, "Wasserstein distance to the training's rows, in their standard deviations.")     \
    F(T, F64,  psi,         0, "Population stability index to the training's rows.")                             \
    F(T, F64,  ratio,       0, "The greater of the two, each divided by its bound: from 1 on the feature is over.") \
    F(T, BOOL, over,        0, "One of the two is over its bound.")
#define MONITOR_PAST(F, O, L, T)                                                                                 \
    F(T, TIME, from,        0, "Its beginning.")                                                                 \
    F(T, TIME, until,       0, "Its end.")                                                                       \
    F(T, STR,  version,     0, "The version that was watched.", .len_max = 100)                                  \
    F(T, I64,  predictions, 0, "Predictions in it.")                                                             \
    F(T, I64,  outcomes,    0, "Outcomes of them, as far as they were there at its end.")                        \
    F(T, F64,  share,       0, "Share of the features over a bound; nothing if it was not judged: too few predictions.") \
    F(T, F64,  auc,         0, "Realised AUC, as far as outcomes were there at its end.")                        \
    F(T, F64,  wasserstein_max, 0, "Of the feature that moved most.")
#define MONITOR_JUDGED(F, O, L, T)                                                                               \
    F(T, STR,  version,     0, "The version that was watched then.", .len_max = 100)                             \
    F(T, TIME, from,        0, "The window's beginning.")                                                        \
    F(T, TIME, until,       0, "Its end.")                                                                       \
    F(T, TIME, at,          0, "When it was judged, by the clock.")                                              \
    F(T, I64,  predictions, 0, "Predictions in it.")                                                             \
    F(T, I64,  features,    0, "Features compared.")                                                             \
    F(T, I64,  over,        0, "Those of them over a bound.")                                                    \
    F(T, F64,  share,       0, "The same as a share.")                                                           \
    F(T, I64,  outcomes,    0, "Outcomes of the predictions, as far as they were there at its end.")             \
    F(T, F64,  auc,         0, "Realised AUC of these.")                                                         \
    F(T, F64,  auc_error,   0, "How far that may be off.")
#define MONITOR_TOLD(F, O, L, T)                                                                                \
    F(T, TIME, time,        0, "End of the window that raised it.")                                              \
    F(T, TIME, at,          0, "When it was told, by the clock.")                                                \
    F(T, STR,  version,     0, "The version that was watched.", .len_max = 100)                                  \
    F(T, STR,  reason,      0, "Why, in a sentence.", .len_max = 2000)                                           \
    F(T, F64,  share,       0, "Share of the features over a bound.")                                            \
    L(T, monitor_drift, features, 0, "The features over a bound, the worst first.", .len_max = MONITOR_WORST)
#define MONITOR_VERSION(F, O, L, T)                                                                              \
    F(T, STR,  version,     0, "The version.", .len_max = 100)                                                   \
    F(T, F64,  auc,         0, "Realised AUC since it was deployed or the server started.")                      \
    F(T, F64,  auc_error,   0, "How far that may be off.")                                                       \
    F(T, I64,  outcomes,    0, "Outcomes of its predictions.")
#define MONITOR_STATUS(F, O, L, T)                                                                               \
    F(T, ENUM, alarm,     COLUMN, "none (also if it is not there), watching (the last window was over the share), drifted.", .values = monitor_alarms) \
    F(T, TIME, since,     0, "Event time since which the alarm is so.")                                          \
    F(T, STR,  version,   COLUMN, "The version watched, or, while there is none to watch, the last one.", .len_max = 100)             \
    F(T, STR,  message,   COLUMN, "What stands in the way.", .len_max = 2000)                                    \
    F(T, I64,  windows_closed, COLUMN, "Windows closed so far.")                                                 \
    O(T, monitor_window,  window, 0, "The window that is open.")                                                 \
    O(T, monitor_judged,  judged, 0, "The last window that was judged. It stays when another version is watched.") \
    L(T, monitor_drift,   drift,  0, "That window: each feature and the score, the worst first.", .len_max = 10001) \
    O(T, monitor_told,    last_alarm, 0, "The last time that monitor.drifted was told. It stays when another version is watched.") \
    F(T, F64,  share,     COLUMN, "Share of the features over a bound in the last window that closed since this version is watched.") \
    F(T, F64,  auc,       COLUMN, "Realised AUC over the last window that closed since this version is watched.") \
    F(T, F64,  auc_total, 0, "Realised AUC of this version since it was deployed or the server started.")        \
    F(T, F64,  auc_error, 0, "How far aucTotal may be off.")                                                     \
    L(T, monitor_version, versions, 0, "Realised AUC of each version that answered.", .len_max = 20)             \
    F(T, I64,  outcomes,  0, "Outcomes that came in since the server started, each row once.")                   \
    F(T, I64,  unmatched, 0, "Those of them that no known prediction belongs to (yet): their row was asked about before the server started, without an id, or never.") \
    F(T, I64,  late,      0, "Predictions left out: their time is far from the open window, or in one that was closed.") \
    F(T, I64,  streak,    0, "Windows running that were over the share; below 0: that were not.")                \
    F(T, TIME, drifted_at, 0, "End of the window at which monitor.drifted was told last of this version.")       \
    F(T, I64,  events,    COLUMN, "Times that monitor.drifted was told.")                                        \
    L(T, monitor_past,    history, 0, "The last windows, oldest first.", .len_max = MONITOR_HISTORY)
// clang-format on
SCHEMA(monitor_features, MONITOR_FEATURES);
SCHEMA(monitor_outcome, MONITOR_OUTCOME);
SCHEMA(monitor_spec, MONITOR_SPEC);
SCHEMA(monitor_window, MONITOR_WINDOW);
SCHEMA(monitor_drift, MONITOR_DRIFT);
SCHEMA(monitor_past, MONITOR_PAST);
SCHEMA(monitor_judged, MONITOR_JUDGED);
SCHEMA(monitor_told, MONITOR_TOLD);
SCHEMA(monitor_version, MONITOR_VERSION);
SCHEMA(monitor_status, MONITOR_STATUS);

/* Ended by {0}. */
extern const struct resource monitor_resources[];
#define monitor_resource (monitor_resources[0])
