/* help: a store and an auth in a fresh folder, requests made by hand. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "auth/auth.h"
#include "test.h"
#include <stdlib.h>
#include <unistd.h>

struct world {
    struct arena *a;
    const char *dir;
    struct store *store;
    struct auth *auth;
};

static inline struct world world_new(void)
{
    struct world w = { .a = arena_new(0) };
    char name[] = "/tmp/dhow-auth-XXXXXX";
    CHECK(mkdtemp(name) != NULL);
    w.dir = str_z(w.a, str_of(name));
    CHECK_OK(store_open(&(struct store_config){ .dir = str_of(w.dir), .kv_bytes_max = 64 << 20 }, &w.store));
    CHECK_OK(auth_open(w.store, &w.auth));
    return w;
}

static inline void world_free(struct world *w)
{
    auth_close(w->auth);
    store_close(w->store);
    CHECK_OK(dir_remove(w->dir));
    arena_free(w->a);
}

/* The store's metadata database, to be damaged by hand. */
static inline const char *world_db(struct world *w)
{
    return fmtz(w->a, "%s/meta.db", w->dir);
}

static inline struct str token_of(struct world *w, const char *project, uint32_t roles, struct strs scopes)
{
    struct str secret;
    struct token t = { .name = S("test"), .project = str_of(project), .roles = roles, .scopes = scopes };
    CHECK_OK(token_create(w->auth, w->a, S("ann"), &t, &secret));
    return secret;
}

/* A request as net would hand it over. */
static inline struct req *request(struct world *w, const struct route *route, struct str token)
{
    struct req *r = NEW(w->a, struct req);
    r->a = w->a;
    r->route = route;
    r->method = S("GET");
    r->path = route ? str_of(route->path) : S("/nowhere");
    r->peer = S("127.0.0.1");
    r->id = S("req-1");
    r->headers = NEW_N(w->a, struct header, 4);
    if (token.n)
        r->headers[r->headers_n++] = (struct header){ S("authorization"),
                                                      fmt(w->a, "Bearer %.*s", STR(token)) };
    return r;
}
