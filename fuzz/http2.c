/* http2: any bytes through the server's HTTP/2 codec, cut at varying points. Whatever they are, each request that begins
 * is ended once, none is over a limit, and what the codec says in return is bounded. The first byte chooses the cuts. */
// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { BODY_MAX = 4096 };

struct seen {
    struct arena *a;
    struct net_limits limits;
    bool parts; /* bodies are taken in parts */
    size_t begun, gone;
};

static void must(bool good)
{
    if (!good)
        abort();
}

static struct req *begin(void *arg)
{
    struct seen *s = arg;
    struct req *r = NEW(s->a, struct req);
    r->a = s->a;
    s->begun++;
    return r;
}

static bool head(void *arg, struct req *r, struct head_info *info)
{
    struct seen *s = arg;
    size_t all = r->target.n;
    must(r->headers_n <= s->limits.headers_max + 1); /* and the host, which has a place of its own */
    for (size_t i = 0; i < r->headers_n; i++) {
        must(r->headers[i].name.n > 0 && r->headers[i].name.p[0] != ':' && !str_has_nul(r->headers[i].value));
        all += r->headers[i].name.n + r->headers[i].value.n;
    }
    must(r->target.n > 0 && r->method.n > 0 && req_header(r, S("host")).n > 0);
    must(all <= 2 * s->limits.header_bytes_max);
    info->body_bytes_max = BODY_MAX;
    info->in_parts = s->parts;
    info->framed = r->target.n % 2;
    return true;
}

static bool part(void *arg, struct req *r, struct str in)
{
    (void)arg, (void)r;
    return in.n % 2; /* now and then a client gets no more room */
}

static bool whole(void *arg, struct req *r, bool keep_alive)
{
    (void)arg;
    must(keep_alive && r->body.n <= BODY_MAX);
    return true;
}

static void bad(void *arg, struct req *r, int status, const char *why)
{
    (void)arg;
    must(r && why && status >= 400 && status < 600);
}

static void gone(void *arg, struct req *r)
{
    struct seen *s = arg;
    must(r && ++s->gone <= s->begun);
}

static const struct codec_host host = {
    .begin = begin, .head = head, .part = part, .whole = whole, .bad = bad, .gone = gone
};

/* max: bytes of one cut. */
static void read_all(struct net_limits limits, bool parts, struct str in, uint64_t seed, size_t max)
{
    auto_arena struct arena *a = arena_new(0);
    struct seen s = { .a = a, .limits = limits, .parts = parts };
    struct codec *c = codec_h2.open(&s.limits, &host, &s);
    char *out = malloc(2 * H2_PULL_MIN);
    for (size_t at = 0; at < in.n;) {
        struct str piece = str_sub(in, at, at + 1 + splitmix(&seed) % max);
        char *copy = malloc(piece.n); /* of its own, so that a read past its end shows */
        memcpy(copy, piece.p, piece.n);
        must(codec_h2.feed(c, (struct str){ copy, piece.n }) == piece.n);
        free(copy);
        at += piece.n;
        for (size_t n, all = 0; (n = h2_pull(c, out, 2 * H2_PULL_MIN)); all += n)
            must(n <= 2 * H2_PULL_MIN && all < 1 << 20);
        codec_h2.tick(c);
    }
    codec_h2.stop(c);
    free(out);
    codec_h2.close(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    if (n < 2 || n > 1 << 16)
        return 0;
    auto_arena struct arena *a = arena_new(0);
    struct buf b = buf_new(a); /* the frames after it are the interesting part */
    if (!(bytes[0] & 1))
        buf_put(&b, preface, sizeof preface - 1);
    buf_put(&b, bytes + 1, n - 1);
    struct net_limits tight = net_limits_default;
    tight.header_bytes_max = 200;
    tight.headers_max = 3;
    read_all(net_limits_default, false, buf_get(&b), 1, b.n);
    read_all(net_limits_default, true, buf_get(&b), bytes[0], 1 + bytes[0] % 32);
    read_all(tight, false, buf_get(&b), bytes[0], 64);
    err_reset();
    return 0;
}
