// SPDX-License-Identifier: Apache-2.0
/* before: the decision that every request passes: who asks (401), for which project (404), may they (403). */
#include "auth/internal.h"

err no_project(struct str name)
{
    FAIL(NOT_FOUND, "there is no Project '%.*s'", STR(name));
}

/* The text after "Bearer ", empty if there is none. */
static struct str bearer(const struct req *r)
{
    struct str h = req_header(r, S("authorization"));
    if (h.n < 8 || strncasecmp(h.p, "bearer ", 7) != 0)
        return S("");
    return str_trim(str_sub(h, 7, h.n));
}

static err principal_find(struct auth *auth, const struct req *r, struct found *out)
{
    struct str token = bearer(r);
    if (token.n == 0)
        return err_hint(
            err_new(UNAUTHORIZED, "no token came with the request"),
            "send the header 'Authorization: Bearer dhow_…'; an admin makes a token with POST /api/v1/tokens");
    return cache_find(&auth->cache, r->a, token, out);
}

static bool project_open_to(const struct principal *who, struct str project)
{
    return str_is(who->project, "*") || str_eq(who->project, project);
}

static err project_may(const struct req *r, const struct principal *who)
{
    struct str project = req_param(r, S("project"));
    if (project.n && !project_open_to(who, project))
        return no_project(project);
    struct str asked = req_header(r, S("x-dhow-project"));
    if (asked.n && (!project_open_to(who, asked) || !name_ok(asked)))
        return no_project(asked);
    return NULL;
}

static bool scopes_cover(const struct principal *who, struct str permission)
{
    if (who->scopes.n == 0 || token_needs_no_scope(permission))
        return true;
    for (size_t i = 0; i < who->scopes.n; i++)
        if (scope_covers(who->scopes.v[i], permission))
            return true;
    return false;
}

static err permission_may(const struct principal *who, struct str permission)
{
    uint32_t roles = permission_roles(permission);
    if (!(who->roles & roles)) {
        auto_arena struct arena *a = arena_new(0);
        return err_hint(err_new(FORBIDDEN, "token '%.*s' may not %.*s", STR(who->name), STR(permission)),
                        "that takes one of the roles %.*s", STR(roles_text(a, roles)));
    }
    if (!scopes_cover(who, permission))
        FAIL(FORBIDDEN, "the scopes of token '%.*s' leave out %.*s", STR(who->name), STR(permission));
    return NULL;
}

err auth_may(const struct principal *who, struct str permission, struct str project)
{
    if (!who)
        FAIL(UNAUTHORIZED, "no token came with the request");
    if (str_is(project, "*") && !str_is(who->project, "*"))
        FAIL(FORBIDDEN, "%.*s takes a token for all projects", STR(permission));
    if (project.n && !project_open_to(who, project))
        return no_project(project);
    return permission_may(who, permission);
}

/* All of it follows from the head and the tokens that there are: for a head that comes again it is known. */
static bool known(struct auth *auth, struct req *r)
{
    struct req_memo *memo = req_memo(r);
    struct found *f = memo ? memo->before : NULL;
    if (!f)
        return false;
    if (!cache_holds(&auth->cache, f)) {
        req_memo_drop(r);
        return false;
    }
    r->who = &f->who;
    return true;
}

static void keep(struct req *r, const struct found *found)
{
    struct req_memo *memo = req_memo(r);
    if (!memo || memo->before)
        return;
    struct found *f = memo->before = NEW(memo->a, struct found);
    *f = *found;
    f->who = principal_dup(memo->a, &found->who);
}

err auth_before(struct auth *auth, struct req *r)
{
    if (r->route && str_is(str_of(r->route->may), "public"))
        return NULL;
    if (known(auth, r))
        return NULL;
    struct found *found = NEW(r->a, struct found);
    struct principal *who = &found->who;
    err e = principal_find(auth, r, found);
    if (e) {
        refuse(auth, r, NULL, e->code);
        return e;
    }
    r->who = who;
    if (!r->route) /* nobody's path: net says what is wrong with it */
        return NULL;
    TRY(project_may(r, who));
    e = permission_may(who, str_of(r->route->may));
    if (e)
        refuse(auth, r, who, e->code);
    else
        keep(r, found);
    return e;
}

const struct principal *req_who(const struct req *r)
{
    return r->who;
}

struct str req_project(const struct req *r)
{
    const struct principal *who = r->who;
    if (who && !str_is(who->project, "*"))
        return who->project;
    struct str asked = req_header(r, S("x-dhow-project"));
    return asked.n ? asked : S("default");
}
