// SPDX-License-Identifier: Apache-2.0
#define SUITE permissions
#include "help.h"

static bool may(const char *role, const char *permission)
{
    enum role r;
    CHECK(role_parse(str_of(role), &r));
    return role_may(r, str_of(permission));
}

TEST(verbs_map_to_roles)
{
    CHECK(may("viewer", "datasets.read") && !may("viewer", "datasets.update") &&
          !may("viewer", "model.infer"));
    CHECK(may("consumer", "model.infer") && may("consumer", "features.online") &&
          !may("consumer", "datasets.read"));
    CHECK(may("editor", "datasets.create") && may("editor", "jobs.run") &&
          !may("editor", "deployments.deploy"));
    CHECK(may("operator", "jobs.cancel") && may("operator", "models.promote") &&
          !may("operator", "datasets.delete"));
    CHECK(may("approver", "approvals.approve") && !may("approver", "datasets.update"));
    CHECK(may("auditor", "audit.read") && may("auditor", "datasets.read") &&
          !may("auditor", "datasets.update"));
    CHECK(may("admin", "audit.read") && may("admin", "tokens.create") && may("admin", "projects.delete"));
}

TEST(rows_beat_verbs)
{
    CHECK(!may("viewer", "audit.read") && !may("editor", "audit.read"));
    CHECK(!may("viewer", "tokens.read") && !may("auditor", "tokens.read"));
    CHECK(!may("editor", "projects.create") && !may("editor", "projects.delete") &&
          may("editor", "projects.update"));
    CHECK(may("consumer", "whoami.read"));
}

TEST(what_is_not_in_the_table_nobody_may)
{
    const char *none[] = { "datasets.dance", "read", ".read", "datasets.", "", "public" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        for (int r = 0; r < ROLE_COUNT; r++)
            CHECK(!role_may((enum role)r, str_of(none[i])));
}

static err nothing(struct req *r)
{
    (void)r;
    return NULL;
}

static err check_one(const char *path, const char *permission)
{
    const struct route rows[] = { { M_GET, path, nothing, .may = permission }, { 0 } };
    const struct route *const tables[] = { rows, NULL };
    return auth_check_routes(tables);
}

TEST(a_route_without_a_permission_does_not_start)
{
    CHECK_OK(check_one("/a", "datasets.read"));
    CHECK_OK(check_one("/healthz", "public"));
    CHECK_ERR(check_one("/a", NULL), INTERNAL);
    CHECK_ERR(check_one("/a", ""), INTERNAL);
    CHECK_ERR(check_one("/a", "datasets.dance"), INTERNAL);
    err e = check_one("/secrets", "public");
    CHECK(e && memmem(e->text.p, e->text.n, "/secrets", 8));
}

static const struct route reads = { M_GET, "/api/v1/projects/{project}/x", .may = "datasets.read" };
static const struct route writes = { M_PUT, "/api/v1/projects/{project}/x", .may = "datasets.update" };
static const struct route open_ = { M_GET, "/healthz", .may = "public" };

static struct req *in_project(struct world *w, const struct route *route, struct str token,
                              const char *project)
{
    struct req *r = request(w, route, token);
    r->params[0] = str_of(project);
    r->params_n = 1;
    return r;
}

TEST(first_401_then_404_then_403)
{
    struct world w = world_new();
    struct str viewer = token_of(&w, "default", 1u << ROLE_VIEWER, (struct strs){ 0 });
    CHECK_ERR(auth_before(w.auth, in_project(&w, &writes, S("dhow_no"), "other")), UNAUTHORIZED);
    CHECK_ERR(auth_before(w.auth, in_project(&w, &writes, viewer, "other")), NOT_FOUND);
    CHECK_ERR(auth_before(w.auth, in_project(&w, &writes, viewer, "default")), FORBIDDEN);
    CHECK_OK(auth_before(w.auth, in_project(&w, &reads, viewer, "default")));
    CHECK_ERR(auth_before(w.auth, request(&w, NULL, S(""))), UNAUTHORIZED);
    CHECK_OK(auth_before(w.auth, request(&w, NULL, viewer)));
    CHECK_OK(auth_before(w.auth, request(&w, &open_, S(""))));
    world_free(&w);
}

TEST(scopes_narrow_roles_and_never_widen_them)
{
    struct world w = world_new();
    struct str list[] = { S("models.*"), S("datasets.read"), S("audit.read") };
    struct str token = token_of(&w, "*", 1u << ROLE_EDITOR, (struct strs){ list, 3, 3 });
    struct req *r = request(&w, &reads, token);
    CHECK_OK(auth_before(w.auth, r));
    const struct principal *who = req_who(r);
    CHECK_OK(auth_may(who, S("models.update"), S("p")));
    CHECK_OK(auth_may(who, S("datasets.read"), S("p")));
    CHECK_OK(auth_may(who, S("whoami.read"), S("")));
    CHECK_ERR(auth_may(who, S("datasets.update"), S("p")), FORBIDDEN);
    CHECK_ERR(auth_may(who, S("modelversions.read"), S("p")), FORBIDDEN);
    CHECK_ERR(auth_may(who, S("audit.read"), S("p")), FORBIDDEN);
    CHECK_ERR(auth_may(NULL, S("audit.read"), S("p")), UNAUTHORIZED);
    world_free(&w);
}

TEST(the_project_of_a_request)
{
    struct world w = world_new();
    struct str bound = token_of(&w, "default", 1u << ROLE_VIEWER, (struct strs){ 0 });
    struct str all = token_of(&w, "*", 1u << ROLE_VIEWER, (struct strs){ 0 });
    struct req *r = request(&w, &reads, all);
    CHECK_OK(auth_before(w.auth, r));
    CHECK_STR(req_project(r), "default");
    r->headers[r->headers_n++] = (struct header){ S("x-dhow-project"), S("side") };
    CHECK_OK(auth_before(w.auth, r));
    CHECK_STR(req_project(r), "side");
    r = request(&w, &reads, bound);
    r->headers[r->headers_n++] = (struct header){ S("x-dhow-project"), S("side") };
    CHECK_ERR(auth_before(w.auth, r), NOT_FOUND);
    world_free(&w);
}
