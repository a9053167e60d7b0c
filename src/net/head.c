// SPDX-License-Identifier: Apache-2.0
/* head: heads that come again, and what was read of them. */
#include "net/internal.h"

#include <stdlib.h>

enum { DIGITS_MAX = 15 };

/* ---- as bytes ---- */

static bool starts(struct str in, size_t at, struct str with)
{
    return in.n - at >= with.n && memcmp(in.p + at, with.p, with.n) == 0;
}

bool head_is(const struct head *k, struct str in, struct head_hit *out)
{
    if (!starts(in, 0, k->before))
        return false;
    size_t from = k->before.n, at = from;
    uint64_t v = 0;
    for (; k->digits.n && at < in.n && at - from < DIGITS_MAX && in.p[at] >= '0' && in.p[at] <= '9'; at++)
        v = 10 * v + (uint64_t)(in.p[at] - '0');
    if ((k->digits.n && at == from) || !starts(in, at, k->after))
        return false;
    *out = (struct head_hit){ at + k->after.n, str_sub(in, from, at), v };
    return true;
}

struct head *head_new(struct str bytes, struct str digits)
{
    struct head *k = calloc(1, sizeof *k);
    char *p = k ? malloc(bytes.n) : NULL;
    if (!p)
        abort(); /* as arenas do */
    memcpy(p, bytes.p, bytes.n);
    struct str copy = { p, bytes.n };
    size_t from = digits.n ? (size_t)(digits.p - bytes.p) : bytes.n;
    k->refs = 1;
    k->bytes = p;
    k->before = str_sub(copy, 0, from);
    k->digits = str_sub(copy, from, from + digits.n);
    k->after = str_sub(copy, from + digits.n, bytes.n);
    return k;
}

void head_unref(struct head *k)
{
    if (!k || --k->refs)
        return;
    arena_free(k->memo.a);
    free(k->bytes);
    free(k);
}

/* ---- as it was read ---- */

void head_keep(struct head *k, struct str digits, const struct req *r, const struct head_info *info)
{
    struct arena *a = k->memo.a = arena_new(0);
    struct req *like = &k->like;
    k->info = *info;
    k->digits = str_dup(a, digits);
    like->route = r->route;
    like->method = str_dup(a, r->method);
    like->target = str_dup(a, r->target);
    like->path = str_dup(a, r->path);
    like->query = str_dup(a, r->query);
    like->params_n = r->params_n;
    for (size_t i = 0; i < r->params_n; i++)
        like->params[i] = str_dup(a, r->params[i]);
    like->headers_n = r->headers_n;
    like->headers = NEW_N(a, struct header, r->headers_n);
    for (size_t i = 0; i < r->headers_n; i++) {
        struct header *to = &like->headers[i];
        *to = (struct header){ str_dup(a, r->headers[i].name), str_dup(a, r->headers[i].value) };
        if (str_is(to->name, "x-request-id") && str_eq(to->value, r->id))
            like->id = to->value;
    }
    k->read = true;
}

/* The headers, one of which is another this time. */
static struct header *headers_with(const struct head *k, struct str digits, struct arena *a)
{
    struct header *v = NEW_N(a, struct header, k->like.headers_n);
    for (size_t i = 0; i < k->like.headers_n; i++) {
        v[i] = k->like.headers[i];
        if (str_is(v[i].name, "content-length"))
            v[i].value = str_dup(a, digits);
    }
    return v;
}

void head_give(struct head *k, const struct head_hit *hit, struct req *r)
{
    const struct req *like = &k->like;
    r->route = like->route;
    r->method = like->method;
    r->target = like->target;
    r->path = like->path;
    r->query = like->query;
    r->params_n = like->params_n;
    for (size_t i = 0; i < like->params_n; i++)
        r->params[i] = like->params[i];
    r->headers_n = like->headers_n;
    r->headers = str_eq(hit->digits, k->digits) ? like->headers : headers_with(k, hit->digits, r->a);
    if (like->id.n)
        r->id = like->id;
}

/* ---- what others keep with it ---- */

struct req_memo *req_memo(const struct req *r)
{
    struct head *k = r->out ? r->out->kept : NULL; /* tests have requests without a connection */
    return k && req_on_loop(r) ? &k->memo : NULL;
}

void req_memo_drop(const struct req *r)
{
    if (req_memo(r))
        r->out->kept->read = false;
}
