// SPDX-License-Identifier: Apache-2.0
#include "monitor/monitor.h"

const char *const monitor_alarms[] = { "none", "watching", "drifted", NULL };

const char *const monitor_watches[] = { "champion", "challenger", NULL };

SCHEMA_TABLE(monitor_features, MONITOR_FEATURES, "When a feature counts as moved.");
SCHEMA_TABLE(monitor_outcome, MONITOR_OUTCOME, "Where outcomes come from.");
SCHEMA_TABLE(monitor_spec, MONITOR_SPEC, "What is watched, and when it is a drift.");
SCHEMA_TABLE(monitor_window, MONITOR_WINDOW, "An open window.");
SCHEMA_TABLE(monitor_drift, MONITOR_DRIFT, "How far a feature has moved.");
SCHEMA_TABLE(monitor_past, MONITOR_PAST, "A closed window.");
SCHEMA_TABLE(monitor_judged, MONITOR_JUDGED, "A judged window.");
SCHEMA_TABLE(monitor_told, MONITOR_TOLD, "An alarm that was told.");
SCHEMA_TABLE(monitor_version, MONITOR_VERSION, "How good a version turned out to be.");
SCHEMA_TABLE(monitor_status, MONITOR_STATUS, "What was seen.");

const struct resource monitor_resources[] = {
    { .kind = "Monitor",
      .plural = "monitors",
      .one = "monitor",
      .doc =
          "Compares what a deployment is asked with what its model learned from, and its answers with what became "
          "true.",
      .spec = &monitor_spec_schema,
      .status = &monitor_status_schema,
      .verbs = V_ALL },
    { 0 },
};
