// SPDX-License-Identifier: Apache-2.0
#include "serve/inflate.h"
#define ZLIB_CONST
#include <zlib.h>

enum { WINDOW = 15, GZIP = 16, MEMORY = 8, STEP = 64 << 10 };

static const struct coding {
    struct str name;
    int window;
} codings[] = { { S_INIT("gzip"), WINDOW + GZIP },
                { S_INIT("x-gzip"), WINDOW + GZIP },
                { S_INIT("deflate"), WINDOW } };

static bool eq_ascii(struct str a, struct str b)
{
    bool same = a.n == b.n;
    for (size_t i = 0; same && i < a.n; i++)
        same = (a.p[i] | 0x20) == (b.p[i] | 0x20);
    return same;
}

static const struct coding *coding_find(struct str name)
{
    for (size_t i = 0; i < sizeof codings / sizeof *codings; i++)
        if (eq_ascii(codings[i].name, name))
            return &codings[i];
    return NULL;
}

static void feed(z_stream *z, struct str in)
{
    z->next_in = (z_const Bytef *)in.p;
    z->avail_in = (uInt)in.n;
}

/* Gives z room behind what b has. */
static void room(z_stream *z, struct buf *b, size_t n)
{
    z->next_out = (Bytef *)buf_room(b, n);
    z->avail_out = (uInt)n;
}

static err inflate_all(z_stream *z, size_t bytes_max, struct buf *b)
{
    int rc = Z_OK;
    while (rc == Z_OK) {
        size_t left = bytes_max + 1 - b->n, n = left < STEP ? left : STEP;
        room(z, b, n);
        rc = inflate(z, Z_NO_FLUSH);
        b->n += n - z->avail_out;
        if (b->n > bytes_max)
            FAIL(TOO_LARGE, "the body is inflated to more than %zu bytes", bytes_max);
    }
    if (rc != Z_STREAM_END)
        FAIL(INVALID, "the body is not what its Content-Encoding says, or is cut");
    if (z->avail_in)
        FAIL(INVALID, "there are %u bytes after the end of the compressed body", z->avail_in);
    return NULL;
}

err body_inflate(struct arena *a, struct str coding, struct str body, size_t bytes_max, struct str *out)
{
    const struct coding *c = coding_find(coding);
    z_stream z = { 0 };
    struct buf b = buf_new(a);
    *out = body;
    if (!coding.n || eq_ascii(coding, S("identity")))
        return NULL;
    if (!c)
        FAIL(MEDIA, "Unsupported compression type");
    if (body.n > UINT32_MAX)
        FAIL(TOO_LARGE, "the body is too large");
    if (inflateInit2(&z, c->window) != Z_OK)
        FAIL(UNAVAILABLE, "no memory to inflate the body");
    feed(&z, body);
    err e = inflate_all(&z, bytes_max, &b);
    inflateEnd(&z);
    *out = buf_get(&b);
    return e;
}

/* "gzip;q=0" is not wanted. */
static bool is_wanted(struct str parameters)
{
    struct str q = str_trim(parameters);
    double v = 1;
    if (str_starts(q, S("q=")) && !str_f64(str_sub(q, 2, q.n), &v))
        return false;
    return v > 0;
}

struct str coding_choose(struct str accept)
{
    for (struct str part; str_cut(&accept, ',', &part);) {
        size_t at = str_find(part, ';');
        const struct coding *c = coding_find(str_trim(str_sub(part, 0, at)));
        if (c && is_wanted(str_sub(part, at + 1, part.n)))
            return c->name;
    }
    return S("");
}

err body_deflate(struct arena *a, struct str coding, struct str body, struct str *out)
{
    const struct coding *c = coding_find(coding);
    z_stream z = { 0 };
    struct buf b = buf_new(a);
    if (!c || body.n > UINT32_MAX / 2)
        FAIL(INTERNAL, "a body of %zu bytes cannot be compressed", body.n);
    if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, c->window, MEMORY, Z_DEFAULT_STRATEGY) != Z_OK)
        FAIL(UNAVAILABLE, "no memory to compress the reply");
    size_t most = deflateBound(&z, body.n);
    feed(&z, body);
    room(&z, &b, most);
    int rc = deflate(&z, Z_FINISH);
    b.n = most - z.avail_out;
    deflateEnd(&z);
    if (rc != Z_STREAM_END)
        FAIL(INTERNAL, "the reply could not be compressed");
    *out = buf_get(&b);
    return NULL;
}
