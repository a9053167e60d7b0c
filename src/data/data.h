/* data: sources → checked, versioned, immutable datasets; the columnar reader and writer of all stages;
 * the lineage of everything that is made.
 * Flow     Source --ingest--> DatasetVersion (Parquet blobs + statistics + checks) --> feature, train, …
 * Owns     kinds Source, Dataset, DatasetVersion; tables dataset_fingerprint, lineage; worker type `ingest`.
 * Time     a version holds the rows that had happened and were known before `until` (both, strictly): no
 *          reader of it can see the future. A row without a time is kept, for the rules to find.
 * Repeat   the same query, settings, source bytes and until give the version that is there already.
 * Threads  any; workers run in their own process.
 * Errors   INVALID (a rule fails, a source is damaged, a path leaves the folder), NOT_FOUND, UNAVAILABLE. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/columns.h"
#include "data/dict.h"
#include "data/duck.h"
#include "data/kinds.h"
#include "sched/sched.h"

/* Tables of this module; before the first job or request. */
err data_open(struct store *);
/* GET /api/v1/projects/{project}/lineage?ref=Kind/name */
const struct route *data_routes(struct store *, struct arena *a);

// clang-format off
#define INGEST_WITH(F, O, L, T)                                                                                  \
    F(T, REF,  dataset, REQUIRED, "The dataset to make a version of.", .ref = "Dataset")                         \
    F(T, TIME, until,   0, "Only rows that had happened and were known before this time.")
SCHEMA(ingest_with, INGEST_WITH);
// clang-format on
/* Outputs: version, rows, bytes, rowsPerSecond. */
extern const struct worker_type data_ingest;

/* ---- versions, for later stages ---- */
/* In prepare: adds key: {"name", "spec"} of a version to the open object of a spec.json. */
err version_put(struct store *, struct arena *a, struct str project, struct str name, const char *key,
                struct json *spec);
/* In the child: what version_put wrote (val is the value of its key), and the paths of its files. */
struct version_in {
    struct str name;
    struct dataset_version_spec spec;
    struct strs paths;
};
err version_get(struct blobs *, struct arena *a, yyjson_val *val, struct version_in *out);
/* Types of a dataset's columns: of its newest version, else of its `schema` rule; INVALID when there is neither. */
err dataset_columns(struct store *, struct arena *a, struct str project, struct str dataset,
                    struct column_def **out, size_t *n);

/* INVALID unless its rows are events: each with an id, and a time at which it happened. */
err dataset_events(const struct dataset_spec *, struct str name);

/* Statistics of the columns of Parquet files of `rows` rows in all, by name and type as stored; roles are the
 * caller's to set. */
err version_columns(struct duck *, struct arena *a, const struct strs *paths, int64_t rows,
                    struct list *columns);
/* In the daemon: one transaction that creates OF.N, sets of's status (latest, versions, rows) and adds the
 * edges inputs → version. The same fingerprint twice gives the same version. of: "Dataset/flights". */
err version_commit(struct store *, struct arena *a, struct str who, struct str project,
                   const struct resource *of, struct str name, const struct dataset_version_spec *,
                   struct str *version);
/* The version of a fingerprint; NOT_FOUND. */
err version_find(struct store *, struct arena *a, struct str project, struct str of, struct str fingerprint,
                 struct str *version);

/* Removes the versions of a dataset that are older than before (µs), with their files, but not the newest one. Ends
 * with the first, by number, that is not. For versions whose files nobody else has: those of a request log. */
err version_expire(struct store *, struct str who, struct str project, const struct resource *of,
                   struct str name, int64_t before);

/* ---- lineage: what was made from what; refs are "Kind/name" ---- */
struct lineage_edge {
    struct str input, output;
    int64_t depth; /* steps from the ref asked about, from 1 */
};
struct lineage {
    struct lineage_edge *v;
    size_t n, cap;
};
/* Each input → output; an edge that is there already stays one. */
err data_lineage_add(struct tx *, struct str project, struct str output, const struct str *inputs, size_t n);
/* up: what ref was made from, else what was made from it; transitive, nearest first, at most 10,000 edges. */
err data_lineage(struct store *, struct arena *a, struct str project, struct str ref, bool up,
                 struct lineage *out);
