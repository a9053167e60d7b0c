// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <llhttp.h>
#include <stdlib.h>

enum { EXTENSIONS_MAX = 16 << 10 }; /* bytes of chunk extensions and trailers */

struct span {
    size_t name, name_n, value, value_n;
};
struct codec {
    llhttp_t parser; /* first member */
    const struct net_limits *limits;
    const struct codec_host *host;
    void *arg;
    struct req *r; /* being read */
    bool in_head;  /* its headers are not whole yet */
    bool in_name;  /* of a header */
    bool paused, ended;
    char *text; /* target and headers, as they come */
    size_t text_n, text_cap;
    size_t head_n; /* bytes of the head in earlier reads */
    size_t target_n;
    struct span *spans;
    size_t spans_n, spans_cap;
    size_t chunks, extra_n;
    struct body body;
    size_t body_max;
    const char *from;       /* where the head begins, if it is all in what is read now; else NULL */
    const char *values_end; /* in the same, as digits: Content-Length's */
    struct str digits;
    bool blank; /* nothing but line ends came since the last request */
    struct head *kept;
    unsigned unused; /* ticks that it was not needed */
    bool again;      /* being read: a request with that head, */
    uint64_t left;   /* and so much of its body is still to come */
};

static int stop(struct codec *h, int status, const char *why)
{
    if (!h->ended)
        h->host->bad(h->arg, h->r, status, why);
    h->ended = true;
    h->r = NULL;
    return HPE_USER;
}

/* ---- head ---- */

static int on_begin(llhttp_t *p)
{
    struct codec *h = (struct codec *)p;
    h->r = h->host->begin(h->arg);
    h->in_head = true;
    h->in_name = false;
    h->text_n = h->head_n = h->target_n = h->spans_n = 0;
    h->chunks = h->extra_n = 0;
    h->body = (struct body){ 0 };
    h->blank = false;
    h->values_end = NULL;
    h->digits = S("");
    return 0;
}

static bool text_put(struct codec *h, const char *at, size_t n)
{
    if (n == 0)
        return true; /* text may be NULL still */
    if (h->text_n + n > h->limits->header_bytes_max)
        return false;
    if (h->text_n + n > h->text_cap) {
        size_t cap = h->text_cap ? h->text_cap * 2 : 1024;
        while (cap < h->text_n + n)
            cap *= 2;
        char *text = realloc(h->text, cap);
        if (!text)
            return false;
        h->text = text;
        h->text_cap = cap;
    }
    memcpy(h->text + h->text_n, at, n);
    h->text_n += n;
    return true;
}

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct codec *h = (struct codec *)p;
    if (!text_put(h, at, n))
        return stop(h, 414, "the request line is too long");
    h->target_n = h->text_n;
    return 0;
}

/* What stands after the body, or beside its chunks, is read over. */
static int on_extra(llhttp_t *p, const char *at, size_t n)
{
    (void)at;
    struct codec *h = (struct codec *)p;
    h->extra_n += n + 4;
    return h->extra_n > EXTENSIONS_MAX ? stop(h, 400, "too many chunk extensions or trailers") : 0;
}

static bool spans_room(struct codec *h)
{
    if (h->spans_n < h->spans_cap)
        return true;
    size_t cap = h->spans_cap ? h->spans_cap * 2 : 16;
    struct span *spans = h->spans_n < h->limits->headers_max ? realloc(h->spans, cap * sizeof *spans) : NULL;
    if (!spans)
        return false;
    h->spans = spans;
    h->spans_cap = cap;
    return true;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct codec *h = (struct codec *)p;
    if (!h->in_head)
        return on_extra(p, at, n);
    if (!h->in_name) {
        if (h->spans_n >= h->limits->headers_max || !spans_room(h))
            return stop(h, 431, "too many headers");
        h->spans[h->spans_n++] = (struct span){ .name = h->text_n };
        h->in_name = true;
    }
    if (!text_put(h, at, n))
        return stop(h, 431, "the headers are too long");
    struct span *s = &h->spans[h->spans_n - 1];
    for (char *c = h->text + h->text_n - n; c < h->text + h->text_n; c++)
        *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
    s->name_n += n;
    s->value = h->text_n;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct codec *h = (struct codec *)p;
    if (!h->in_head)
        return on_extra(p, at, n);
    if (!h->spans_n || !text_put(h, at, n))
        return stop(h, 431, "the headers are too long");
    struct span *s = &h->spans[h->spans_n - 1];
    s->value_n += n;
    h->values_end = n ? at + n : NULL; /* an empty one may stand where the head ends */
    struct str name = { h->text + s->name, s->name_n };
    if (str_is(name, "content-length"))
        h->digits = (struct str){ at, n };
    return 0;
}

static int on_value_end(llhttp_t *p)
{
    struct codec *h = (struct codec *)p;
    h->in_name = false;
    return 0;
}

/* The request's own copy of what was collected. */
static void head_fill(struct codec *h)
{
    struct req *r = h->r;
    const char *text = str_dup(r->a, (struct str){ h->text, h->text_n }).p;
    r->method = str_of(llhttp_method_name(llhttp_get_method(&h->parser)));
    r->target = (struct str){ text, h->target_n };
    r->headers = NEW_N(r->a, struct header, h->spans_n);
    r->headers_n = h->spans_n;
    for (size_t i = 0; i < h->spans_n; i++) {
        const struct span *s = &h->spans[i];
        r->headers[i].name = (struct str){ text + s->name, s->name_n };
        r->headers[i].value = str_trim((struct str){ text + s->value, s->value_n });
    }
}

static size_t headers_named(const struct req *r, struct str name)
{
    size_t n = 0;
    for (size_t i = 0; i < r->headers_n; i++)
        n += str_eq(r->headers[i].name, name);
    return n;
}

/* Keeps a head that comes for the second time; one that is new may do so next. */
static void head_see(struct codec *h, const llhttp_t *p, const struct head_info *info)
{
    const unsigned odd = F_CHUNKED | F_TRANSFER_ENCODING | F_UPGRADE | F_CONNECTION_UPGRADE |
                         F_CONNECTION_CLOSE;
    struct head_hit hit;
    if (!h->host->again || !h->from || info->http10 || info->expects_continue || info->in_parts ||
        p->flags & odd || !h->values_end || memcmp(h->values_end, "\r\n\r\n", 4) != 0)
        return;
    struct str bytes = { h->from, (size_t)(h->values_end + 4 - h->from) };
    if (bytes.n > HEAD_KEPT_MAX)
        return;
    if (h->kept && !h->kept->memo.a && head_is(h->kept, bytes, &hit)) {
        head_keep(h->kept, hit.digits, h->r, info);
        return;
    }
    head_unref(h->kept);
    h->kept = head_new(bytes, h->digits);
}

static int on_head(llhttp_t *p)
{
    struct codec *h = (struct codec *)p;
    h->in_head = false;
    head_fill(h);
    bool http10 = p->http_minor == 0;
    if (p->http_major != 1 || p->http_minor > 1)
        return stop(h, 505, "this version of HTTP is not spoken here");
    size_t hosts = headers_named(h->r, S("host"));
    if (hosts > 1 || (!hosts && !http10))
        return stop(h, 400, "a request has one Host header");
    if (http10 && headers_named(h->r, S("transfer-encoding")))
        return stop(h, 400, "HTTP/1.0 has no Transfer-Encoding");
    struct head_info info = { .http10 = http10, .body_bytes_max = h->limits->body_bytes_max };
    info.expects_continue = !http10 && str_eq_ascii(req_header(h->r, S("expect")), S("100-continue"));
    if (!h->host->head(h->arg, h->r, &info)) {
        h->ended = true;
        h->r = NULL;
        return HPE_USER;
    }
    h->body_max = info.body_bytes_max;
    h->body.lead = info.body_lead;
    if (p->flags & F_CONTENT_LENGTH && p->content_length > h->body_max)
        return stop(h, 413, "the body is over this route's limit");
    head_see(h, p, &info);
    p->upgrade = 0; /* other protocols are not offered */
    return 0;
}

/* ---- body ---- */

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct codec *h = (struct codec *)p;
    if (n > h->body_max - h->body.n)
        return stop(h, 413, "the body is over this route's limit");
    size_t known = p->flags & F_CHUNKED ? 0 : h->body.n + n + p->content_length;
    if (!body_put(&h->body, h->r, known, (struct str){ at, n }))
        return stop(h, 503, "no memory is left for requests now");
    return 0;
}

/* What is known to be left of the body goes to its place by the read itself. */
static struct str h1_lend(struct codec *h)
{
    struct body *b = &h->body;
    uint64_t left = h->again ? h->left : h->parser.content_length;
    if (!h->r || h->in_head || h->ended || h->paused || (!h->again && h->parser.flags & F_CHUNKED) || !b->p)
        return S("");
    size_t room = b->cap - b->n;
    return (struct str){ b->p + b->n, left < room ? (size_t)left : room };
}

static int on_chunk(llhttp_t *p)
{
    struct codec *h = (struct codec *)p;
    if (p->content_length > h->body_max - h->body.n)
        return stop(h, 413, "the body is over this route's limit");
    return ++h->chunks > h->limits->chunks_max ? stop(h, 400, "too many chunks") : 0;
}

static void whole(struct codec *h, bool keep_alive)
{
    struct req *r = h->r;
    r->body = (struct str){ h->body.p, h->body.n };
    h->r = NULL;
    h->again = false;
    h->paused = !h->host->whole(h->arg, r, keep_alive);
}

/* The parser stops there: the next head may be one that needs none. */
static int on_whole(llhttp_t *p)
{
    whole((struct codec *)p, llhttp_should_keep_alive(p));
    return HPE_PAUSED;
}

/* ---- a head that came before ---- */

static size_t again_body(struct codec *h, struct str in)
{
    size_t n = h->left < in.n ? (size_t)h->left : in.n;
    h->left -= n;
    if (n && !body_put(&h->body, h->r, h->body.n + n + h->left, (struct str){ in.p, n }))
        stop(h, 503, "no memory is left for requests now");
    else if (!h->left)
        whole(h, true);
    return n;
}

/* 0: in does not begin with that head, or not with all of it. */
static size_t again_head(struct codec *h, struct str in)
{
    struct head_hit hit;
    if (h->r || h->blank || !h->kept || !h->kept->read || !head_is(h->kept, in, &hit))
        return 0;
    h->r = h->host->begin(h->arg);
    h->in_head = false;
    h->body = (struct body){ .lead = h->kept->info.body_lead };
    h->body_max = h->kept->info.body_bytes_max;
    h->unused = 0;
    h->again = true;
    h->left = hit.length;
    head_give(h->kept, &hit, h->r);
    h->host->again(h->arg, h->r, h->kept);
    if (h->left > h->body_max)
        stop(h, 413, "the body is over this route's limit");
    else if (!h->left)
        whole(h, true);
    return hit.n;
}

/* ---- the codec ---- */

static const llhttp_settings_t settings = {
    .on_message_begin = on_begin,
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_end,
    .on_headers_complete = on_head,
    .on_chunk_extension_name = on_extra,
    .on_chunk_extension_value = on_extra,
    .on_chunk_header = on_chunk,
    .on_body = on_body,
    .on_message_complete = on_whole,
};

static struct codec *h1_open(const struct net_limits *limits, const struct codec_host *host, void *arg)
{
    struct codec *h = calloc(1, sizeof *h);
    if (!h)
        abort(); /* as arenas do */
    llhttp_init(&h->parser, HTTP_REQUEST, &settings);
    h->limits = limits;
    h->host = host;
    h->arg = arg;
    return h;
}

/* Blanks count, too: those that no callback sees. */
static void head_count(struct codec *h, bool since_before, size_t n)
{
    if (!h->r || !h->in_head)
        return;
    h->head_n = since_before ? h->head_n + n : 0;
    if (h->head_n > h->limits->header_bytes_max)
        stop(h, 431, "the headers are too long");
}

/* Of one request at most. */
static size_t parse(struct codec *h, struct str in)
{
    const struct req *before = h->r;
    h->from = !before && *in.p >= 'A' && *in.p <= 'Z' ? in.p : NULL;
    h->blank = !before;
    llhttp_resume(&h->parser);
    llhttp_errno_t got = llhttp_execute(&h->parser, in.p, in.n);
    if (got == HPE_OK) {
        head_count(h, before && before == h->r, in.n);
        return in.n;
    }
    if (got == HPE_PAUSED)
        return (size_t)(llhttp_get_error_pos(&h->parser) - in.p);
    const char *why = llhttp_get_error_reason(&h->parser);
    bool version = got == HPE_PAUSED_H2_UPGRADE || (why && !strcmp(why, "Invalid HTTP version"));
    stop(h, version ? 505 : 400, why && *why ? why : "this is not HTTP/1.1");
    return in.n;
}

static size_t h1_feed(struct codec *h, struct str in)
{
    size_t at = 0, n;
    h->paused = false;
    while (at < in.n && !h->paused && !h->ended) {
        struct str rest = str_sub(in, at, in.n);
        n = h->again ? again_body(h, rest) : again_head(h, rest);
        at += n ? n : parse(h, rest);
    }
    return h->ended ? in.n : at;
}

/* What a connection keeps costs the more the more of them do nothing. */
static void h1_tick(struct codec *h)
{
    if (!h->kept || ++h->unused < HEAD_IDLE_TICKS)
        return;
    head_unref(h->kept);
    h->kept = NULL;
    h->unused = 0;
}

static void h1_close(struct codec *h)
{
    if (!h)
        return;
    head_unref(h->kept);
    free(h->text);
    free(h->spans);
    free(h);
}

const struct net_codec codec_h1 = {
    .name = "http/1.1",
    .open = h1_open,
    .feed = h1_feed,
    .lend = h1_lend,
    .reply = line_reply,
    .flush = line_flush,
    .sent = line_sent,
    .tick = h1_tick,
    .close = h1_close,
};
