/* auth: who asks, what they may do, and the record of what happened.
 * Flow     request --auth_before--> principal --permission of the route--> handler --audit--> chain.
 * Owns     tables token, audit; kind Project. Tokens are random 256 bits, kept as SHA-256.
 * Rules    default deny; a route without a permission does not start; a name in another project is 404.
 * Threads  any. The token cache is refreshed by the event log, so a revoked token dies at once.
 * Errors   UNAUTHORIZED, FORBIDDEN, NOT_FOUND (another project's), INVALID, CONFLICT. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include "net/net.h"
#include "schema/schema.h"
#include "store/store.h"

struct auth;

// clang-format off
#define ROLES(R) /* enum, name, meaning */                                            \
    R(VIEWER,   "viewer",   "Reads metadata and metrics.")                            \
    R(CONSUMER, "consumer", "Asks models for predictions and reads online features.") \
    R(EDITOR,   "editor",   "Makes and changes resources, runs pipelines and jobs.")  \
    R(OPERATOR, "operator", "Deploys, rolls back and cancels.")                       \
    R(APPROVER, "approver", "Approves what waits for a second pair of eyes.")         \
    R(ADMIN,    "admin",    "Everything in its project; with project * everywhere.")  \
    R(AUDITOR,  "auditor",  "Reads everything about who did what; changes nothing.")
// clang-format on
#define R(NAME, name, doc) ROLE_##NAME,
enum role { ROLES(R) ROLE_COUNT };
#undef R

/* Permissions are "noun.verb"; for resources "<plural>.read|create|update|delete|run", for routes their own.
 * Which roles hold one is a table in permissions.c, matched by the verb unless a row names it. */
bool role_may(enum role, struct str permission);
struct str role_name(enum role);
/* Refuses a table with a route that names no permission, one that no role holds, or is public without
 * being in the list of public paths; the error names the route. api_open() calls it for every table. */
err auth_check_routes(const struct route *const *tables);
bool role_parse(struct str, enum role *out);

struct principal {
    struct str name;     /* of the token, for the audit log */
    struct str token_id; /* public part */
    struct str project;  /* "*": all */
    uint32_t roles;      /* bit per enum role */
    struct strs scopes;  /* empty: all that the roles give; else permissions or "noun.*" */
    int64_t expires;     /* µs */
};

err auth_open(struct store *, struct auth **out); /* makes the tables */
void auth_close(struct auth *);
/* On a store without any token: makes the admin token and returns it (shown once); else empty. */
err auth_first_token(struct auth *, struct arena *a, struct str *out);

/* net_config.before: finds the principal (Authorization: Bearer), then the route's permission, then the
 * {project} of the path. Public routes pass. r->who is a struct principal *. */
err auth_before(struct auth *, struct req *r);
/* For rules beyond the route: FORBIDDEN or NOT_FOUND as above. project "": what belongs to none, for readers;
 * "*": only for those with a token for all projects. */
err auth_may(const struct principal *, struct str permission, struct str project);
const struct principal *req_who(const struct req *);
/* The project a request without {project} in its path works in: the token's, or for "*" the header
 * X-Dhow-Project, else "default". */
struct str req_project(const struct req *);

struct token {
    struct str id, name, project;
    uint32_t roles;
    struct strs scopes;
    int64_t created, expires, last_used;
    bool revoked;
};
/* secret is "dhow_<id>_<43 characters>"; only its hash is kept. expires must be within a year (0: 90 days). */
err token_create(struct auth *, struct arena *a, struct str who, const struct token *in, struct str *secret);
err token_list(struct auth *, struct arena *a, struct str project, struct token **out, size_t *n);
err token_revoke(struct auth *, struct str who, struct str project, struct str id);
/* Routes /api/v1/tokens…, /api/v1/audit…, /api/v1/whoami: auth_routes(). Their .self is the struct auth. */
const struct route *auth_routes(struct auth *, struct arena *a);
// clang-format off
#define PROJECT_SPEC(F, O, L, T)                                                  \
    F(T, STR, doc,  0, "What it is for.")                                         \
    F(T, STR, zone, 0, "Where its data is to be kept; written down, not enforced yet.", .len_max = 63)
// clang-format on
SCHEMA(project_spec, PROJECT_SPEC); /* kind Project, listed by api's table of resources */

/* ---- audit: a chain of hashes ---- */
struct audit_entry {
    struct str who, action; /* "datasets.create", "token.revoke", "auth.refused" */
    struct str project, kind, name;
    struct str outcome; /* "ok" or the error's code */
    struct str detail;  /* JSON object, no secrets */
    struct str request_id;
};
/* In the same transaction as what it records. */
err audit_append(struct tx *, const struct audit_entry *);
/* Alone: refused requests, reads that must be recorded. */
err audit_write(struct auth *, const struct audit_entry *);
/* Recomputes the chain. INVALID naming the first entry that does not hold. */
err audit_verify(struct store *, struct arena *a, int64_t *entries, struct str *head);
