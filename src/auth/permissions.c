// SPDX-License-Identifier: Apache-2.0
/* permissions: the one table of who may do what. A permission is "noun.verb"; a row names it whole, or
 * by its verb alone. What no row names, nobody may do, and a route that asks for it does not start. */
#include "auth/internal.h"

#define BIT(r) (1u << ROLE_##r)
#define READERS (BIT(VIEWER) | BIT(EDITOR) | BIT(OPERATOR) | BIT(APPROVER) | BIT(ADMIN) | BIT(AUDITOR))
#define MAKERS (BIT(EDITOR) | BIT(ADMIN))
#define RUNNERS (BIT(OPERATOR) | BIT(ADMIN))
#define USERS (BIT(CONSUMER) | BIT(EDITOR) | BIT(OPERATOR) | BIT(ADMIN))
#define EVERYONE ((1u << ROLE_COUNT) - 1)

struct grant {
    struct str permission; /* whole, or a verb without a dot */
    uint32_t roles;
};
// clang-format off
static const struct grant grants[] = {
    { S_INIT("tokens.read"),     BIT(ADMIN) },
    { S_INIT("tokens.create"),   BIT(ADMIN) },
    { S_INIT("tokens.delete"),   BIT(ADMIN) },
    { S_INIT("audit.read"),      BIT(AUDITOR) | BIT(ADMIN) },
    { S_INIT("projects.create"), BIT(ADMIN) },
    { S_INIT("projects.delete"), BIT(ADMIN) },
    { S_INIT("whoami.read"),     EVERYONE },
    { S_INIT("model.read"),      READERS | BIT(CONSUMER) },
    { S_INIT("server.operate"),  BIT(ADMIN) },

    { S_INIT("read"),     READERS },
    { S_INIT("list"),     READERS },
    { S_INIT("watch"),    READERS },
    { S_INIT("create"),   MAKERS },
    { S_INIT("update"),   MAKERS },
    { S_INIT("delete"),   MAKERS },
    { S_INIT("run"),      MAKERS },
    { S_INIT("write"),    MAKERS },
    { S_INIT("cancel"),   RUNNERS },
    { S_INIT("deploy"),   RUNNERS },
    { S_INIT("promote"),  RUNNERS },
    { S_INIT("rollback"), RUNNERS },
    { S_INIT("operate"),  RUNNERS },
    { S_INIT("infer"),    USERS },
    { S_INIT("online"),   USERS },
    { S_INIT("export"),   BIT(EDITOR) | BIT(OPERATOR) | BIT(ADMIN) },
    { S_INIT("approve"),  BIT(APPROVER) | BIT(ADMIN) },
};
/* Paths that strangers may see. */
static const struct str public_paths[] = {
    S_INIT("/healthz"),      S_INIT("/readyz"),         S_INIT("/v2"), S_INIT("/v2/health/live"), S_INIT("/v2/health/ready"),
    S_INIT("/openapi.json"), S_INIT("/schema/v1.json"),
    S_INIT("/grpc.health.v1.Health/Check"), S_INIT("/grpc.health.v1.Health/Watch"),
    S_INIT("/inference.GRPCInferenceService/ServerLive"), S_INIT("/inference.GRPCInferenceService/ServerReady"),
    S_INIT("/inference.GRPCInferenceService/ServerMetadata"),
};
#define R(NAME, name, doc) S_INIT(name),
static const struct str role_names[ROLE_COUNT] = { ROLES(R) };
#undef R
// clang-format on

#define COUNT(v) (sizeof(v) / sizeof *(v))

struct str role_name(enum role r)
{
    return role_names[r];
}

bool role_parse(struct str s, enum role *out)
{
    for (int r = 0; r < ROLE_COUNT; r++)
        if (str_eq(s, role_names[r])) {
            *out = (enum role)r;
            return true;
        }
    return false;
}

struct str roles_text(struct arena *a, uint32_t roles)
{
    struct strs names = { 0 };
    for (int r = 0; r < ROLE_COUNT; r++)
        if (roles & 1u << r)
            push(a, &names, role_names[r]);
    return str_join(a, names.v, names.n, S(", "));
}

static struct str verb_of(struct str permission)
{
    size_t dot = permission.n;
    while (dot > 0 && permission.p[dot - 1] != '.')
        dot--;
    return str_sub(permission, dot, permission.n);
}

uint32_t permission_roles(struct str permission)
{
    struct str verb = verb_of(permission);
    if (verb.n == permission.n || verb.n + 1 == permission.n) /* no noun */
        return 0;
    for (size_t i = 0; i < COUNT(grants); i++)
        if (str_eq(grants[i].permission, permission) || str_eq(grants[i].permission, verb))
            return grants[i].roles;
    return 0;
}

bool role_may(enum role r, struct str permission)
{
    return permission_roles(permission) & 1u << r;
}

/* Who one is may always be asked. */
bool token_needs_no_scope(struct str permission)
{
    return str_is(permission, "whoami.read");
}

bool scope_ok(struct str scope)
{
    return permission_roles(scope) != 0 || (scope.n > 2 && str_ends(scope, S(".*")));
}

bool scope_covers(struct str scope, struct str permission)
{
    if (str_ends(scope, S(".*")))
        return str_starts(permission, str_sub(scope, 0, scope.n - 1));
    return str_eq(scope, permission);
}

static bool path_is_public(struct str path)
{
    for (size_t i = 0; i < COUNT(public_paths); i++)
        if (str_eq(public_paths[i], path))
            return true;
    return false;
}

static err route_check(const struct route *r)
{
    const char *method = method_names[r->method].p;
    if (!r->may || !*r->may)
        FAIL(INTERNAL, "route %s %s names no permission", method, r->path);
    struct str may = str_of(r->may);
    if (str_is(may, "public")) {
        if (!path_is_public(str_of(r->path)))
            FAIL(INTERNAL, "route %s %s is public but not in the list of public paths", method, r->path);
    } else if (permission_roles(may) == 0)
        FAIL(INTERNAL, "route %s %s asks for '%s', which no role holds", method, r->path, r->may);
    return NULL;
}

err auth_check_routes(const struct route *const *tables)
{
    for (; tables && *tables; tables++)
        for (const struct route *r = *tables; r->path; r++)
            TRY(route_check(r));
    return NULL;
}
