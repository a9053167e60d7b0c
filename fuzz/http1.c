/* http1: any bytes through the server's HTTP/1.1 codec, cut at varying points and with pauses. However they are cut,
 * the same requests come out; none is over a limit, none has a path that climbs. The first byte chooses the cuts. */
// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { BODY_MAX = 4096 };

struct seen {
    struct arena *a;
    struct routes *routes;
    struct net_limits limits;
    uint64_t seed, sum; /* of the pauses; of the requests */
    bool ended;
};

static void must(bool good)
{
    if (!good)
        abort();
}

static void mix(struct seen *s, struct str text)
{
    s->sum = (s->sum ^ hash64(text)) * 0x9e3779b97f4a7c15 + text.n;
}

static struct req *begin(void *arg)
{
    struct seen *s = arg;
    must(!s->ended);
    struct req *r = NEW(s->a, struct req);
    r->a = s->a;
    return r;
}

static void check_path(struct seen *s, struct req *r)
{
    struct path path;
    struct str query;
    size_t end = str_find(r->target, '?');
    r->query = str_sub(r->target, end + 1, r->target.n);
    (void)req_query(r, S("a"), &query);
    (void)host_is_loopback(req_header(r, S("host")));
    (void)origin_is_host(req_header(r, S("origin")), req_header(r, S("host")));
    if (path_parse(s->a, str_sub(r->target, 0, end), &path))
        return;
    must(path.n > 0 && path.n <= SEGMENTS_MAX && path.whole.p[0] == '/');
    for (size_t i = 0; i < path.n; i++) {
        must(!str_has_nul(path.segments[i]) && str_utf8_ok(path.segments[i]));
        must(!str_is(path.segments[i], "..") && !str_is(path.segments[i], "."));
    }
    unsigned allow;
    r->route = routes_find(s->routes, r, method_find(r->method), &path, &allow);
    must(r->params_n <= PARAMS_MAX);
    mix(s, req_param(r, S("b")));
}

static void head_mix(struct seen *s, struct req *r)
{
    must(r->headers_n <= s->limits.headers_max);
    size_t all = r->target.n;
    mix(s, r->method);
    mix(s, r->target);
    for (size_t i = 0; i < r->headers_n; i++) {
        must(r->headers[i].name.n > 0 && !str_has_nul(r->headers[i].value));
        all += r->headers[i].name.n + r->headers[i].value.n;
        mix(s, r->headers[i].name);
        mix(s, r->headers[i].value);
    }
    must(all <= s->limits.header_bytes_max);
    check_path(s, r);
}

static bool head(void *arg, struct req *r, struct head_info *info)
{
    head_mix(arg, r);
    info->body_bytes_max = BODY_MAX;
    return true;
}

/* One that was read before: the same comes out. It came whole in one piece, as single bytes never do. */
static void again(void *arg, struct req *r, struct head *kept)
{
    must(kept->refs == 1 && kept->read);
    head_mix(arg, r);
}

static bool whole(void *arg, struct req *r, bool keep_alive)
{
    struct seen *s = arg;
    must(r->body.n <= BODY_MAX);
    mix(s, r->body);
    s->ended = !keep_alive;
    return keep_alive && splitmix(&s->seed) % 3;
}

static void bad(void *arg, struct req *r, int status, const char *why)
{
    struct seen *s = arg;
    (void)r;
    must(!s->ended && why && status >= 400 && status < 600);
    mix(s, S("bad"));
    s->ended = true;
}

static const struct codec_host host = {
    .begin = begin, .head = head, .again = again, .whole = whole, .bad = bad
};

static err nothing(struct req *r)
{
    (void)r;
    return NULL;
}
static const struct route table[] = {
    { M_GET, "/a/{b}", nothing, "public" },
    { M_GET, "/a/{c...}", nothing, "public" },
    { M_POST, "/{a}/{b}/c", nothing, "public" },
    { 0 },
};
static const struct route *const tables[] = { table, NULL };

/* Reads all bytes in pieces of up to max. */
static uint64_t read_all(struct routes *routes, struct net_limits limits, struct str in, uint64_t seed,
                         size_t max)
{
    auto_arena struct arena *a = arena_new(0);
    struct seen s = { .a = a, .routes = routes, .limits = limits, .seed = seed };
    struct codec *c = codec_h1.open(&s.limits, &host, &s);
    while (in.n && !s.ended) {
        size_t n = 1 + splitmix(&seed) % max;
        struct str part = str_sub(in, 0, n);
        char *copy = malloc(part.n); /* of its own, so that a read past its end shows */
        memcpy(copy, part.p, part.n);
        size_t taken = codec_h1.feed(c, (struct str){ copy, part.n });
        free(copy);
        must(taken <= part.n);
        in = str_sub(in, taken, in.n);
    }
    codec_h1.close(c);
    return s.sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 2 || n > 1 << 16)
        return 0;
    struct routes *routes;
    must(!routes_new(tables, &routes));
    struct str in = { (const char *)bytes + 1, n - 1 };
    struct net_limits roomy = net_limits_default, tight = net_limits_default;
    roomy.header_bytes_max = 1 << 20;
    tight.header_bytes_max = 200;
    tight.headers_max = 3;
    tight.chunks_max = 3;
    uint64_t once = read_all(routes, roomy, in, 1, in.n);
    must(once == read_all(routes, roomy, in, bytes[0], 1 + bytes[0] % 32));
    must(once == read_all(routes, roomy, in, bytes[0], 1));
    (void)read_all(routes, tight, in, bytes[0], 64);
    routes_free(routes);
    err_reset();
    return 0;
}
