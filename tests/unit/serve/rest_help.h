/* rest_help: a request as the REST adapter reads it, without a server. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/rest.h"
#include "test.h"

static inline struct infer *rest_new(struct arena *a, struct str body, const struct header *headers, size_t n)
{
    struct infer *c = NEW(a, struct infer);
    c->a = a;
    c->adapter = NEW(a, struct rest);
    c->r = NEW(a, struct req);
    c->r->a = a;
    c->r->body = body;
    c->r->headers = (struct header *)(uintptr_t)headers;
    c->r->headers_n = n;
    c->r->route = NEW(a, struct route);
    return c;
}

/* A body of JSON alone, from a block of its own that ends where it does. */
static inline err rest_json(struct arena *a, const char *json, struct infer **out)
{
    *out = rest_new(a, str_dup(a, str_of(json)), NULL, 0);
    char *copy = arena_alloc(a, strlen(json), 1);
    memcpy(copy, json, strlen(json));
    (*out)->r->body.p = copy;
    return rest_read(*out);
}

/* JSON, and bytes behind it, with the header that says where they meet. */
static inline err rest_binary(struct arena *a, struct str json, struct str bytes, struct infer **out)
{
    struct header *h = NEW(a, struct header);
    *h = (struct header){ S("inference-header-content-length"), fmt(a, "%zu", json.n) };
    struct buf b = buf_new(a);
    buf_str(&b, json);
    buf_str(&b, bytes);
    *out = rest_new(a, buf_get(&b), h, 1);
    return rest_read(*out);
}
