// SPDX-License-Identifier: Apache-2.0
/* Every route × {no token, a wrong one, another project's, each role}: who gets through is what the table
 * of permissions says, and nobody else. The routes are read from the tables that serve them. */
#define SUITE matrix
#include "help.h"

enum { REFUSED_401 = 401, REFUSED_403 = 403, MISSING = 404 };

/* "/a/{project}/b/{name}" with the project filled in and "thing" for the rest. */
static const char *path_of(struct world *w, const struct route *r, const char *project)
{
    struct buf b = buf_new(w->a);
    for (const char *p = r->path; *p; p++) {
        if (*p != '{') {
            buf_put(&b, p, 1);
            continue;
        }
        buf_fmt(&b, "%s", strncmp(p, "{project}", 9) == 0 ? project : "thing");
        while (*p != '}')
            p++;
    }
    buf_put(&b, "", 1);
    return buf_get(&b).p;
}

static bool in_project(const struct route *r)
{
    return strstr(r->path, "{project}") != NULL;
}

static bool is_public(const struct route *r)
{
    return strcmp(r->may, "public") == 0;
}

/* A stream does not end: its status is all that is wanted. */
static bool first_line(void *arg, struct str line)
{
    (void)line;
    *(bool *)arg = true;
    return false;
}

static int stream_status(struct world *w, struct str token, const char *path)
{
    struct http *http;
    bool seen = false;
    CHECK_OK(http_open(w->url, token, 10000, &http));
    err e = http_stream(http, w->a, str_of(path), first_line, &seen);
    http_close(http);
    return seen ? 200 : e ? err_table[e->code].http : 0;
}

static int status_of(struct world *w, struct str token, const struct route *r, const char *project)
{
    const char *path = path_of(w, r, project);
    if (strcmp(r->path, "/api/v1/watch") == 0)
        return stream_status(w, token, path);
    return call(w, token, r->method, path, r->method == M_GET || r->method == M_DELETE ? S("") : S("{}"))
        .status;
}

static void expect(const struct route *r, const char *who, bool holds, int status)
{
    cr_assert(holds, "%s %s as %s: %d", method_names[r->method].p, r->path, who, status);
}

static void strangers(struct world *w, const struct route *r)
{
    struct str tokens[] = { S(""), S("dhow_000000000000_0000000000000000000000000000000000000000000"),
                            S("x") };
    for (size_t i = 0; i < sizeof tokens / sizeof *tokens; i++) {
        int status = status_of(w, tokens[i], r, "default");
        int welcome = r->grpc ? 415 : 200; /* gRPC is not asked for over HTTP/1.1 */
        expect(r, "a stranger", is_public(r) ? status == welcome : status == REFUSED_401, status);
    }
}

/* Making and deleting projects takes a token for all of them, which these are not. */
static bool beyond_projects(const struct route *r)
{
    return strcmp(r->may, "projects.create") == 0 || strcmp(r->may, "projects.delete") == 0;
}

static void each_role(struct world *w, const struct route *r, const struct str *tokens)
{
    for (int role = 0; role < ROLE_COUNT; role++) {
        const char *name = role_name((enum role)role).p;
        int status = status_of(w, tokens[role], r, "default");
        bool may = is_public(r) || role_may((enum role)role, str_of(r->may));
        expect(r, name, status != REFUSED_401, status);
        if (!may)
            expect(r, name, status == REFUSED_403, status);
        else if (!beyond_projects(r))
            expect(r, name, status != REFUSED_403, status);
    }
}

static void other_project(struct world *w, const struct route *r, const struct str *tokens)
{
    if (!in_project(r))
        return;
    for (int role = 0; role < ROLE_COUNT; role++) {
        int status = status_of(w, tokens[role], r, "side");
        expect(r, "another project's", status == MISSING, status);
    }
}

static void walk(struct world *w, const struct route *const *tables)
{
    struct str tokens[ROLE_COUNT];
    size_t n = 0;
    for (int role = 0; role < ROLE_COUNT; role++)
        tokens[role] = token_for(w, "default", 1u << role);
    for (; *tables; tables++)
        for (const struct route *r = *tables; r->path; r++, n++) {
            strangers(w, r);
            other_project(w, r, tokens);
            each_role(w, r, tokens);
        }
    CHECK(n > 20);
}

TEST(every_route_by_everyone)
{
    struct world *w = world_new();
    admin(w, M_PUT, "/api/v1/projects/side", PROJECT("side"), 201);
    walk(w, w->tables);
    world_free(w);
}

TEST(unknown_paths_tell_strangers_nothing)
{
    struct world *w = world_new();
    const char *paths[] = { "/",
                            "/nowhere",
                            "/api",
                            "/api/v1/projects/x/nothing",
                            "/healthz/",
                            "/HEALTHZ",
                            "//healthz",
                            "/healthz;x",
                            "/api/v1/tokens/",
                            "/%61pi/v1/tokens",
                            "/v2/../api/v1/tokens",
                            "/openapi.json/x",
                            "/metrics/../healthz" };
    struct str viewer = token_for(w, "default", 1u << ROLE_VIEWER);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        for (int m = 0; m < M_COUNT; m++) {
            int status = call(w, S(""), (enum method)m, paths[i], S("")).status;
            cr_assert(status == 401 || status == 400, "%s %s: %d", method_names[m].p, paths[i], status);
            status = call(w, viewer, (enum method)m, paths[i], S("")).status;
            bool known = m == M_OPTIONS && status == 204; /* of the one that decodes to a path there is */
            cr_assert(known || (status >= 400 && status < 500), "%s %s: %d", method_names[m].p, paths[i],
                      status);
        }
    world_free(w);
}

TEST(wrong_methods_need_a_token_too)
{
    struct world *w = world_new();
    struct str viewer = token_for(w, "default", 1u << ROLE_VIEWER);
    CHECK(call(w, S(""), M_PATCH, BOOKS, S("")).status == 401);
    CHECK(call(w, viewer, M_PATCH, BOOKS, S("")).status == 405);
    CHECK(call(w, S(""), M_HEAD, BOOKS, S("")).status == 401);
    CHECK(call(w, S(""), M_OPTIONS, BOOKS, S("")).status == 401);
    CHECK(call(w, viewer, M_HEAD, BOOKS, S("")).status == 200);
    world_free(w);
}
