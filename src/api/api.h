/* api: resources → routes, apply and diff, watch, openapi.json; and the control loop of reconcilers.
 * Flow     request --schema_read--> object --check--> store_write (event + audit in one transaction) --> reply;
 *          event log --> control --> reconcilers --> status.
 * Owns     no state of its own; the five generic handlers serve every kind.
 * Threads  handlers on workers; reconcilers on the control thread.
 * Errors   RFC 9457 problem+json; /v2 paths answer in the protocol's own form (api_fail). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "auth/auth.h"
#include "base/base.h"
#include "net/net.h"
#include "schema/schema.h"
#include "store/store.h"

struct api;

/* ---- kinds ---- */
enum verb { V_READ = 1, V_CREATE = 2, V_UPDATE = 4, V_DELETE = 8, V_ALL = 15 };

struct resource_check {
    struct store *store;
    struct arena *a;
    struct str project, name;
    const void *before; /* spec now, NULL on creation */
    const void *spec;   /* spec wanted, struct of resource.spec */
};
/* POST …/{plural}/{name}/{action}: body read by .in (may be NULL), reply is JSON from run. */
struct action {
    const char *name;
    err (*run)(struct api *, struct req *, struct str project, struct str name, const void *in,
               struct json *out);
    const struct schema *in;
    const char *verb; /* of the permission "<plural>.<verb>" */
    const char *doc;
};
struct resource {
    const char *kind, *plural, *one; /* "FeatureView", "featureviews", short name "fv" or NULL */
    const char *doc;
    const struct schema *spec, *status; /* status may be NULL */
    unsigned verbs;                     /* V_*: what people may do by the API; reconcilers may do all */
    bool global;                        /* lives outside of projects (project "") */
    err (*check)(const struct resource_check *); /* rules a field cannot say; may be NULL */
    const struct action *actions;                /* ended by {0}; may be NULL */
};
extern const struct resource project_resource;

/* ---- typed access for modules (spec and status as structs) ---- */
struct meta {
    int64_t id, rev, generation, created, updated;
    struct str kind, project, name;
    struct pairs labels;
};
/* NOT_FOUND "there is no Dataset 'x' in project 'p'". spec/status: structs of the kind's schemas, may be NULL. */
err resource_get(struct store *, struct arena *a, const struct resource *, struct str project,
                 struct str name, struct meta *meta, void *spec, void *status);
err resource_get_tx(struct tx *, struct arena *a, const struct resource *, struct str project,
                    struct str name, struct meta *meta, void *spec, void *status);
/* For reconcilers and finishers: creates (CONFLICT if there, unless same spec) with event and audit. */
err resource_create_tx(struct tx *, struct arena *a, const struct resource *, struct str who,
                       struct str project, struct str name, const void *spec);
err resource_status_tx(struct tx *, struct arena *a, const struct resource *, struct str project,
                       struct str name, int64_t generation, const void *status);
/* The same, a transaction each. */
err resource_create(struct store *, struct arena *a, const struct resource *, struct str who,
                    struct str project, struct str name, const void *spec);
err resource_status(struct store *, struct arena *a, const struct resource *, struct str project,
                    struct str name, int64_t generation, const void *status);
/* Appends an event "noun.verb-past" about an object, data a JSON object. */
err resource_event(struct store *, const struct resource *, struct str who, struct str project,
                   struct str name, const char *type, struct str data);
/* The full document {apiVersion, kind, metadata, spec, status} of a stored object. */
void resource_write(const struct resource *, struct arena *a, const struct object *, unsigned write_flags,
                    struct json *out);

/* ---- the API ---- */
struct api_config {
    struct store *store;
    struct auth *auth;
    const struct resource *const *resources; /* NULL-terminated list of kinds */
    /* The other modules' tables, NULL-terminated; for OpenAPI and metrics. */
    const struct route *const *routes;
    void *app; /* struct app of main.c, reached by actions through api_app() */
};
err api_open(const struct api_config *, struct api **out);
void api_close(struct api *);
void *api_app(struct api *);
struct store *api_store(struct api *);
const struct resource *api_resource(struct api *, struct str kind_plural_or_one);
/* Routes made from the kinds, /openapi.json, /schema/v1.json, /api/v1/watch, /healthz, /readyz, /metrics. */
const struct route *api_routes(struct api *);
/* net_config.fail and .after (which main.c gives its api) */
err api_fail(struct req *, err);
void api_after(struct api *, const struct req *, int status, int64_t took_ns);
/* Text of openapi.json, made from the tables. */
struct str api_openapi(struct api *, struct arena *a);
/* Lines of /metrics: a module adds its own collector. */
void api_metrics_add(struct api *, void (*collect)(void *arg, struct buf *out), void *arg);
void api_ready_add(struct api *, bool (*ready)(void *arg), void *arg);

/* What gRPC's reflection tells about a module's services: a .proto file's name and its FileDescriptorProto (copied).
 * Which services there are it sees in the routes. */
void api_grpc_describe(struct api *, struct str file, struct str bytes);

/* ---- control ---- */
struct reconciler {
    const char *name;
    /* Kinds whose events wake it, NULL-terminated; the object is passed. One that is not there (any more) has
     * id 0 and no spec: only kind, project and name. */
    const char *const *kinds;
    /* Level-based and idempotent. ev is the event that woke it, NULL on start and on a timer (then once per
     * stored object of kinds[0]). *again_ms: call again for this object after so long (0: only on events). */
    err (*step)(void *self, struct arena *a, const struct object *, const struct event *ev,
                int64_t *again_ms);
    void *self;
};
/* Starts the control thread: first every object once, then events as they come. An error is logged and the
 * object tried again with a growing pause (100 ms to 30 s). */
struct control;
err control_start(struct store *, const struct reconciler *list, size_t n, struct control **out);
/* Asks for a step for an object soon (any thread). */
void control_poke(struct control *, struct str kind, struct str project, struct str name);
void control_stop(struct control *);
