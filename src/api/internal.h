/* api/internal: what the files of this module share.
 * Flow     routes.c makes rows of struct place --> handlers.c --> put.c, delete.c --> object.c (typed access)
 *          --> store. watch.c, metrics.c, openapi.c stand beside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "api/api.h"
#include <pthread.h>
#include <stdatomic.h>

#define API_VERSION "dhow/v1"
enum {
    LIST_DEFAULT = 100,
    LIST_MAX = 1000,
    PAGE = 500,         /* objects read at once when labels filter */
    SCAN_MAX = 100000,  /* objects looked at by one such list */
    REFERRERS_MAX = 10, /* named when a delete is refused */
    CHANGES_MAX = 200,  /* of one diff */
    PUT_TRIES = 8,
    BODY_MAX = 4 << 20,
    WATCHERS_MAX = 1024,
    WATCH_BATCH = 1000,
    HEARTBEAT_MS = 15000,
    COLLECTORS_MAX = 32,
};

#define SQL_MEMBER(name, text) const char *name;
#define SQL_VALUE(name, text) .name = text,
#define SQL_TABLE(module, LIST) \
    static const struct {       \
        LIST(SQL_MEMBER)        \
    } module##_sql = { LIST(SQL_VALUE) }

/* What a generic route works on. */
struct place {
    struct api *api;
    const struct resource *res;
    const struct action *action;
};
static inline const struct place *place_of(const struct req *r)
{
    return r->route->self;
}

/* ---- the envelope of every document ---- */
// clang-format off
#define METADATA(F, O, L, T)                                                                                     \
    F(T, STR,  name,       0, "Unique in its project and kind.", .len_max = 63)                                  \
    F(T, STR,  project,    0, "The project it lives in.", .len_max = 63)                                         \
    F(T, MAP,  labels,     0, "Texts to find it by.", .len_max = 64)                                             \
    F(T, I64,  rev,        0, "Goes up with every change; given in a change, it must be the newest.", .min = 0, .max = 9e15) \
    F(T, I64,  generation, 0, "Goes up with every change of spec; written by the server.")                       \
    F(T, I64,  id,         0, "Never used again; written by the server.")                                        \
    F(T, TIME, created,    0, "Written by the server.")                                                          \
    F(T, TIME, updated,    0, "Written by the server.")
#define DOCUMENT(F, O, L, T)                                                                                     \
    F(T, STR,  api_version, REQUIRED, "dhow/v1.", .len_max = 32)                                                 \
    F(T, STR,  kind,        REQUIRED, "What it is.", .len_max = 64)                                              \
    O(T, metadata, metadata, REQUIRED, "Its name and what surrounds it.")                                        \
    F(T, JSON, spec,        0, "What is wanted.", .len_max = BODY_MAX)                                           \
    F(T, JSON, status,      0, "What is; written by the server, passed over when it comes in.", .len_max = BODY_MAX)
// clang-format on
SCHEMA(metadata, METADATA);
SCHEMA(document, DOCUMENT);

/* ---- typed access, shared parts ---- */
/* The project an object of the kind is stored under. */
static inline struct str project_in(const struct resource *res, struct str project)
{
    return res->global ? S("") : project;
}
struct str permission_of(struct arena *a, const struct resource *res, const char *verb);
/* A struct of the schema, zeroed. */
void *struct_new(struct arena *a, const struct schema *s);
err object_spec(const struct resource *res, struct arena *a, const struct object *o, void *spec);
struct str spec_text(const struct resource *res, struct arena *a, const void *spec);
struct str labels_text(struct arena *a, const struct pairs *labels);
err labels_read(struct arena *a, struct str text, struct pairs *out);
err no_object(const struct resource *res, struct str project, struct str name);
err project_exists(struct store *, struct arena *a, struct str project);
err project_exists_tx(struct tx *, struct str project);
/* write_flags for what the caller may see. */
unsigned view_flags(const struct req *r, const struct resource *res);

/* ---- references ---- */
struct ref {
    struct str path, kind, name; /* "spec.dataset", "Dataset", "flights" */
};
struct refs {
    VEC(struct ref) list;
};
/* Every REF in a spec that is set. */
void refs_collect(const struct resource *res, struct arena *a, const void *spec, struct refs *out);
bool schema_refers_to(const struct schema *s, struct str kind);
err refs_exist(struct api *, struct arena *a, const struct refs *, struct str project);
err refs_exist_tx(struct api *, struct tx *, const struct refs *, struct str project);
/* CONFLICT naming those which refer to the object. */
err referrers_refuse(struct api *, struct tx *, const struct resource *res, struct str project,
                     struct str name);

/* ---- what changed ---- */
/* [{path, before, after}] of two JSON texts, into an open array. *n: how many. */
err diff_write(struct arena *a, struct str path, struct str before, struct str after, struct json *out,
               size_t *n);
/* Their paths only. */
err diff_paths(struct arena *a, struct str path, struct str before, struct str after, struct strs *out);

/* ---- handlers ---- */
err handle_list(struct req *);
err handle_get(struct req *);
err handle_put(struct req *);
err handle_post(struct req *);
err handle_delete(struct req *);
err handle_action(struct req *);
err query_i64(const struct req *r, struct str name, int64_t min, int64_t max, int64_t *v);
bool query_flag(const struct req *r, struct str name);
/* The name in the path of a generic route, and the project ("" for global kinds). */
struct str path_name(const struct req *r);
struct str path_project(const struct req *r);
/* Global kinds are changed by those with all projects only, but a project's own people see to it. */
err global_may(const struct req *r, const struct resource *res, const char *verb);
err if_match(const struct req *r, int64_t *rev);
void reply_etag(struct req *r, int64_t rev);

/* ---- watch ---- */
struct hub;
err hub_open(struct api *, struct hub **out);
void hub_close(struct hub *);
err watch_get(struct req *);
err events_get(struct req *);
size_t hub_watchers(struct hub *);

/* ---- metrics ---- */
struct metrics;
struct metrics *metrics_new(const struct route *const *tables, size_t tables_n);
void metrics_free(struct metrics *);
void metrics_count(struct metrics *, const struct route *, int status, int64_t took_ns);
void metrics_write(struct metrics *, struct buf *out);
err metrics_get(struct req *);

/* ---- documents ---- */
struct str openapi_text(struct api *, struct arena *a);
struct str schema_file_text(struct api *, struct arena *a);

/* ---- gRPC's own services ---- */
err health_check(struct req *);
err health_watch(struct req *);
err reflect(struct req *);
/* Once a second: tells those who watch. */
void health_tend(struct api *);
bool api_ready(struct api *);
struct health_watcher;
struct proto_file {
    struct str name, bytes; /* a FileDescriptorProto */
};

struct collector {
    void (*collect)(void *arg, struct buf *out);
    void *arg;
};
struct ready {
    bool (*ready)(void *arg);
    void *arg;
};
struct api {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    void *app;
    const struct resource **res; /* NULL-terminated */
    size_t res_n;
    const struct route **tables; /* config's and our own, NULL-terminated */
    size_t tables_n;
    struct route *routes;
    struct hub *hub;
    struct metrics *metrics;
    struct str openapi, schema_file;
    int64_t started_us;
    pthread_mutex_t m; /* of what follows */
    struct collector collectors[COLLECTORS_MAX];
    size_t collectors_n;
    struct ready readies[COLLECTORS_MAX];
    size_t readies_n;
    VEC(struct proto_file) files;
    struct health_watcher *health_watchers;
    size_t health_watchers_n;
};
err routes_make(struct api *);
