/* feature: one definition of a feature, two ways to compute it that agree to the bit: offline as a
 * point-in-time join over a dataset version, online as a row per key kept up to date by pushes.
 * Flow     DatasetVersion --build--> training rows --> train;   DatasetVersion --materialize--> online rows;
 *          feature_push(batch) --> online rows --feature_plan_row--> serve.
 * Owns     kinds Entity, FeatureView, FeatureService, TrainingSet; worker types `build`, `materialize`; keys
 *          r|… and e|… of the store's keyed rows.
 * Meaning  a view has one row per (key, known time T): its windows are [T - w, T], both ends included, over the
 *          key's events by known time; events of the same T are one row that has seen them all. A label at
 *          time t gets the last row with T <= t and T >= t - ttl (ttl 0: any T); without one, nulls (NaN). No
 *          label row is lost, doubled or moved. An event whose key has a null, or without a known time, is in
 *          no view. A null value is left out of sums and means; a mean of none is null, a count or sum 0.
 * Numbers  values are kept in 128-bit fixed point (2^-30): sums do not depend on the order of adding.
 * Threads  any; pushes take one lock, readers take a snapshot and no lock.
 * Errors   INVALID, NOT_FOUND, TOO_LARGE, CONFLICT, UNAVAILABLE (no version to take column types from). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"
#include "feature/kinds.h"

/* ---- functions of request features ---- */
struct request_function {
    const char *name;
    bool of_time; /* wants a time; else a number */
    double (*of)(int64_t time,
                 double number); /* the one it does not want is 0; NULL: the column's text as it is */
    const char *doc;
};
extern const struct request_function request_table[]; /* ended by {0} */
extern const size_t request_table_n;

// clang-format off
#define BUILD_WITH(F, O, L, T)                                                                                   \
    F(T, REF,  training_set, REQUIRED, "The training set to make a version of.", .ref = "TrainingSet")           \
    F(T, STR,  version,      0, "Version of its dataset; else the newest.", .len_max = 64)                       \
    F(T, TIME, from,         0, "Label rows from this event time on.")                                           \
    F(T, TIME, until,        0, "Label rows before this event time.")
SCHEMA(build_with, BUILD_WITH);
#define MATERIALIZE_WITH(F, O, L, T)                                                                             \
    F(T, REF,  service, REQUIRED, "The feature service whose views get online rows.", .ref = "FeatureService")   \
    F(T, STR,  version, 0, "Version of the views' dataset; else the newest.", .len_max = 64)
SCHEMA(materialize_with, MATERIALIZE_WITH);
// clang-format on

/* ---- online ---- */
struct features;
err features_open(struct store *, struct features **out);
void features_close(struct features *); /* NULL is fine */
/* build (outputs: version, rows, rowsPerSecond) and materialize (outputs: version, rows, events). In the child
 * process, which has no struct features, pass NULL. */
const struct worker_type *feature_build(struct features *, struct arena *a);
const struct worker_type *feature_materialize(struct features *, struct arena *a);
/* POST …/datasets/{name}/push and POST …/featureservices/{name}/online */
const struct route *feature_routes(struct features *, struct arena *a);

struct push_result {
    int64_t rows;   /* of the batch */
    int64_t events; /* taken up, summed over the views */
    int64_t known;  /* there already (the same id at the same key and known time) */
    int64_t late;   /* older than every window that is still kept: changes nothing */
    int64_t views;
};
/* New rows of a dataset: each view over it takes them as events and brings its keys' newest rows up to date.
 * Needs the key and aggregated columns of every view and the known (else event) time; the id column should
 * be there: without it a row's contents name it, and two equal rows are one. All or nothing; durable on
 * return; pushing the same rows again changes nothing. Any thread. */
err feature_push(struct features *, struct arena *a, struct str project, struct str dataset,
                 const struct columns *batch, struct push_result *out);
/* Called after each push that was taken, on the pusher's thread. At most 8; before traffic starts. */
struct push_observer {
    void *self;
    void (*pushed)(void *self, struct str project, struct str dataset, const struct columns *batch);
};
void feature_observe(struct features *, struct push_observer);
void feature_metrics(void *features, struct buf *out); /* for api_metrics_add */

/* ---- plans: what a request needs, and its features; what serve reads with ---- */
enum feature_status { FEATURE_PRESENT, FEATURE_NOT_FOUND, FEATURE_OUTSIDE_MAX_AGE, FEATURE_STATUSES };
extern const char *const feature_statuses[];
struct plan_input {
    struct str name;
    enum column_type type;
    bool key;      /* of some view; a null or missing value: NOT_FOUND */
    bool time;     /* the event time of the request; missing: now */
    bool optional; /* the time, unless a request feature needs it */
};
struct feature_plan; /* immutable, any thread */
/* The service as it is defined now. */
err feature_plan_new(struct store *, struct str project, struct str service, struct feature_plan **out);
void feature_plan_free(struct feature_plan *); /* NULL is fine */
size_t feature_plan_inputs(const struct feature_plan *, const struct plan_input **out);
/* Names of the features in order; all are doubles. */
size_t feature_plan_features(const struct feature_plan *, const struct str **out);
size_t feature_plan_views(const struct feature_plan *, const struct str **out);
/* Names of the features that are texts (categories), in order; they are none of the above. */
size_t feature_plan_texts(const struct feature_plan *, const struct str **out);
/* View of feature i; -1 for a request feature. */
int feature_plan_view_of(const struct feature_plan *, size_t feature);
struct str feature_plan_name(const struct feature_plan *); /* of its service */
/* Same text: the same features computed the same way (the version's `definition`). */
struct str feature_plan_definition(const struct feature_plan *);
/* The same definition, and the same to do where a row is missing or stale. */
bool feature_plan_same(const struct feature_plan *, const struct feature_plan *);
/* Is a prediction refused whose look-up in that view ended so? feature_plan_row() has put defaults where the view wants them. */
bool feature_plan_refuses(const struct feature_plan *, size_t view, enum feature_status);
/* The inputs of a request from JSON entities {"origin":["ATL"],…}: others are ignored, missing ones INVALID. */
err feature_plan_read(const struct feature_plan *, struct arena *a, struct str path, yyjson_val *entities,
                      struct columns *out);

enum { PLAN_INPUTS_MAX = 512 };
struct plan_binding {
    int16_t at[PLAN_INPUTS_MAX]; /* column of each input; -1: not there */
};
/* Once per request. INVALID if an input is missing or has another type. */
err feature_plan_bind(const struct feature_plan *, const struct columns *, struct plan_binding *out);
struct plan_row {
    double *features;  /* feature_plan_features() of them; NaN for null, or the view's defaults */
    uint8_t *status;   /* enum feature_status per view */
    int64_t *known_at; /* per view; 0 if not found */
};
/* Features of one row of the request. No allocation, no lock; a few µs. */
void feature_plan_row(const struct feature_plan *, struct kv_snap *, const struct columns *,
                      const struct plan_binding *, size_t row, int64_t now, const struct plan_row *out);
/* Its texts, feature_plan_texts() of them; empty for null. They live as long as the columns. */
void feature_plan_row_texts(const struct feature_plan *, const struct columns *, const struct plan_binding *,
                            size_t row, struct str *out);
