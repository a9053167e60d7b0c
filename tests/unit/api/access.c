// SPDX-License-Identifier: Apache-2.0
/* Tokens and the audit log over HTTP. */
#define SUITE access
#include "help.h"

#define TOKENS "/api/v1/tokens"

TEST(tokens_are_made_used_and_revoked)
{
    struct world *w = world_new();
    struct http_reply r = admin(w, M_POST, TOKENS,
                                "{\"name\":\"ci\",\"roles\":[\"viewer\"],\"lifetime\":\"1h\"}", 201);
    struct str token = member_str(w, r.body, "token"), id = member_str(w, r.body, "id");
    CHECK_STR(member_str(w, r.body, "project"), "default");
    r = call(w, token, M_GET, "/api/v1/whoami", S(""));
    CHECK(r.status == 200);
    CHECK_STR(member_str(w, r.body, "name"), "ci");
    CHECK(contains(r.body, "\"roles\":[\"viewer\"]"));
    r = admin(w, M_GET, TOKENS, NULL, 200);
    CHECK(contains(r.body, "\"ci\"") && !contains(r.body, "dhow_"));
    admin(w, M_DELETE, fmtz(w->a, TOKENS "/%.*s", STR(id)), NULL, 204);
    CHECK(call(w, token, M_GET, "/api/v1/whoami", S("")).status == 401);
    admin(w, M_DELETE, fmtz(w->a, TOKENS "/%.*s", STR(id)), NULL, 404);
    world_free(w);
}

TEST(bad_tokens_are_explained)
{
    struct world *w = world_new();
    admin(w, M_POST, TOKENS, "{\"name\":\"x\",\"roles\":[\"king\"]}", 400);
    admin(w, M_POST, TOKENS, "{\"name\":\"x\",\"roles\":[]}", 400);
    admin(w, M_POST, TOKENS, "{\"name\":\"x\",\"roles\":[\"viewer\"],\"lifetime\":\"400d\"}", 400);
    admin(w, M_POST, TOKENS, "{\"name\":\"x\",\"roles\":[\"viewer\"],\"project\":\"none\"}", 404);
    admin(w, M_POST, TOKENS, "{\"name\":\"x\",\"roles\":[\"viewer\"],\"scopes\":[\"what\"]}", 400);
    world_free(w);
}

TEST(nobody_gives_more_than_they_have)
{
    struct world *w = world_new();
    struct str mine = token_for(w, "default", 1u << ROLE_ADMIN);
    admin(w, M_PUT, "/api/v1/projects/side", PROJECT("side"), 201);
    CHECK(
        call(w, mine, M_POST, TOKENS, S("{\"name\":\"x\",\"roles\":[\"admin\"],\"project\":\"*\"}")).status ==
        404);
    CHECK(call(w, mine, M_POST, TOKENS, S("{\"name\":\"x\",\"roles\":[\"admin\"],\"project\":\"side\"}"))
              .status == 404);
    CHECK(call(w, mine, M_POST, TOKENS, S("{\"name\":\"x\",\"roles\":[\"admin\"]}")).status == 201);
    struct http_reply r = admin(
        w, M_POST, TOKENS,
        "{\"name\":\"s\",\"roles\":[\"admin\"],\"scopes\":[\"tokens.create\",\"books.*\"]}", 201);
    struct str narrow = member_str(w, r.body, "token");
    CHECK(call(w, narrow, M_POST, TOKENS, S("{\"name\":\"x\",\"roles\":[\"admin\"]}")).status == 403);
    CHECK(call(w, narrow, M_POST, TOKENS,
               S("{\"name\":\"x\",\"roles\":[\"admin\"],\"scopes\":[\"authors.read\"]}"))
              .status == 403);
    CHECK(call(w, narrow, M_POST, TOKENS,
               S("{\"name\":\"x\",\"roles\":[\"admin\"],\"scopes\":[\"books.read\"]}"))
              .status == 201);
    CHECK(call(w, narrow, M_GET, BOOKS, S("")).status == 200);
    CHECK(call(w, narrow, M_GET, AUTHORS, S("")).status == 403);
    r = admin(w, M_GET, TOKENS "?project=side", NULL, 200);
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 0);
    world_free(w);
}

TEST(every_write_is_in_the_audit_log)
{
    struct world *w = world_new();
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 201);
    admin(w, M_PUT, AUTHORS "/ann", AUTHOR("ann"), 200); /* nothing changes: no entry */
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"t\",\"secret\":\"hush\"}"), 201);
    admin(w, M_PUT, BOOKS "/sea", BOOK("sea", "{\"title\":\"u\",\"secret\":\"hush\"}"), 200);
    admin(w, M_DELETE, BOOKS "/sea", NULL, 204);
    struct http_reply r = admin(w, M_GET, "/api/v1/audit?after=0", NULL, 200);
    const char *want[] = { "tokens.create", "projects.create", "authors.create",
                           "books.create",  "books.update",    "books.delete" };
    CHECK(yyjson_arr_size(member(w, r.body, "items")) == 6);
    for (size_t i = 0; i < 6; i++)
        CHECK_STR(
            str_of(yyjson_get_str(yyjson_obj_get(yyjson_arr_get(member(w, r.body, "items"), i), "action"))),
            want[i]);
    CHECK(contains(r.body, "\"paths\":[\"spec.title\"]") && !contains(r.body, "hush"));
    r = admin(w, M_GET, "/api/v1/audit?limit=1", NULL, 200);
    CHECK(contains(r.body, "books.delete"));
    r = admin(w, M_GET, "/api/v1/audit/verify", NULL, 200);
    CHECK(member_i64(w, r.body, "entries") == 6);
    struct str auditor = token_for(w, "default", 1u << ROLE_AUDITOR);
    r = call(w, auditor, M_GET, "/api/v1/audit", S(""));
    CHECK(r.status == 200 && contains(r.body, "books.delete") && !contains(r.body, "projects.create"));
    CHECK(call(w, auditor, M_GET, "/api/v1/audit?project=side", S("")).status == 404);
    world_free(w);
}
