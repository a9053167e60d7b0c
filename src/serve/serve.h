/* serve: answers for models: deployments, traffic between versions, the Open Inference Protocol over REST.
 * Flow     Deployment, Model, ModelVersion --reconciler--> sessions loaded on a lane --> snapshot (one atomic
 *          pointer) --> POST /v2/models/{deployment}/infer on a worker: features, run, reply --> observers.
 * Owns     kind Deployment; step type `deploy`; loaded sessions and feature plans.
 * Traffic  the champion answers, and its challenger the share of the trial's step; or the versions that the spec names,
 *          by their weights. A hash of a sticky key, else of the request's id, chooses. A trial goes on step by step to
 *          the whole, or is ended by failures, latency or a Monitor (docs/guides/deployments.md).
 * Threads  any. A request reads one snapshot: no lock, no SQL, no disk; memory is its arena. What a new snapshot no
 *          longer holds is unloaded by a thread of its own when the last request with it has ended.
 * Memory   the inference library is loaded with the first model, or for one that sleeps at start, not before.
 * Errors   NOT_FOUND, INVALID (the body, a shape), UNAVAILABLE (no version is ready), TOO_LARGE. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "feature/feature.h"
#include "registry/registry.h"
#include "serve/kinds.h"

struct serve;
struct serve_config {
    struct store *store;
    const char *library;   /* of ONNX Runtime; NULL: the usual places */
    size_t body_bytes_max; /* body or message of a prediction; 0: 64 MiB */
};
/* Call before other threads start (see runtime_open). */
err serve_open(const struct serve_config *, struct serve **out);
/* NULL is fine; after net_stop and control_stop. */
void serve_close(struct serve *);
/* Watches Deployment, Model, ModelVersion, FeatureService, FeatureView. */
struct reconciler serve_reconciler(struct serve *);
/* NULL before control_stop: versions that are loaded later poke nobody. */
void serve_set_control(struct serve *, struct control *);
/* /v2…: .self is the serve. */
const struct route *serve_routes(struct serve *, struct arena *a);
void serve_describe(struct api *);                /* the gRPC service, for reflection */
void serve_metrics(void *serve, struct buf *out); /* for api_metrics_add */
/* What became true of the row with this id, for the deployment's A/B test. False: it has none. Any thread, cheap; only the
 * first outcome of an id counts. */
bool serve_outcome(struct serve *, struct str project, struct str deployment, struct str id, double value);
bool serve_ready(void *serve); /* for api_ready_add: every deployment was loaded, or cannot be */

// clang-format off
#define DEPLOY_WITH(F, O, L, T)                                                                                  \
    F(T, REF, deployment, REQUIRED, "Where it is deployed.", .ref = "Deployment")                                \
    F(T, REF, version,    REQUIRED, "The version; it has passed its gates.", .ref = "ModelVersion")
SCHEMA(deploy_with, DEPLOY_WITH);
// clang-format on
/* Outputs: version, requests. Without a champion the version is champion at once. Ends with a GATE error if the
 * challenger failed too often, UNAVAILABLE if it cannot be loaded, CONFLICT if a later run deployed meanwhile. */
extern const struct step_type serve_deploy;

/* ---- what was answered, for monitor ---- */
struct prediction {
    struct str project, deployment; /* names */
    struct str version;             /* name of the ModelVersion */
    size_t n, n_features;
    const float
        *features; /* n × n_features as the model was given them; NULL: its input is no float matrix */
    const struct str *names; /* of the features; NULL if the version's signature names none */
    const float *scores;     /* n, the first output; NULL if that is not one float a row */
    const struct str *ids;   /* of the rows; NULL if the request gave none */
    const int64_t *at;       /* event time of each row, µs; NULL if the request gave none */
    int64_t time;            /* when it was answered, µs */
};
/* Called after each answer, on the thread that serves it: cheap, without locks that are held long. What it points
 * to ends with the call. At most 8; before traffic starts. */
struct serve_observer {
    void *self;
    void (*predicted)(void *self, const struct prediction *);
};
void serve_observe(struct serve *, struct serve_observer);
