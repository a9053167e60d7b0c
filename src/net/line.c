// SPDX-License-Identifier: Apache-2.0
/* line: replies of HTTP/1.1: text, in the order of the requests. */
#include "net/internal.h"

enum { BODY_COPIED = 2048 }; /* bodies up to here go out in one piece with their head */

/* ---- a reply's text ---- */

/* Text into room that was measured before. */
struct pen {
    char *p;
};

static void pen_str(struct pen *pen, struct str s)
{
    if (s.n)
        memcpy(pen->p, s.p, s.n);
    pen->p += s.n;
}

static void pen_number(struct pen *pen, size_t v)
{
    char digits[24];
    size_t n = 0;
    do
        digits[sizeof digits - ++n] = (char)('0' + v % 10);
    while (v /= 10);
    pen_str(pen, (struct str){ digits + sizeof digits - n, n });
}

static void pen_header(struct pen *pen, struct str name, struct str value)
{
    pen_str(pen, name);
    pen_str(pen, S(": "));
    char *from = pen->p;
    pen_str(pen, value);
    for (; from < pen->p; from++) /* no header is smuggled in by a value */
        if ((unsigned char)*from < 0x20 && *from != '\t')
            *from = ' ';
    pen_str(pen, S("\r\n"));
}

static void head_framing(struct pen *pen, struct req_out *e, int status, const struct str *body)
{
    if (body && status_has_body(status)) {
        pen_str(pen, S("Content-Length: "));
        pen_number(pen, body->n);
        pen_str(pen, S("\r\n"));
    } else if (!body && !e->http10) {
        pen_str(pen, S("Transfer-Encoding: chunked\r\n"));
    }
    if (atomic_load_explicit(&e->loop->net->stopping, memory_order_relaxed) || (!body && e->http10))
        e->close = true;
    if (e->close)
        pen_str(pen, S("Connection: close\r\n"));
    else if (e->http10)
        pen_str(pen, S("Connection: keep-alive\r\n"));
}

void line_reply(struct req_out *e, int status, const char *content_type, const struct str *body)
{
    const struct req *r = &e->req;
    struct str type = str_of(content_type);
    size_t n = 320 + type.n + r->id.n;
    for (size_t i = 0; i < e->extra.n; i++)
        n += e->extra.v[i].name.n + e->extra.v[i].value.n + 4;
    bool shown = body && e->method != M_HEAD && status_has_body(status);
    bool copy = shown && body->n <= BODY_COPIED;
    char *p = arena_alloc(r->a, n + (copy ? body->n : 0), 1);
    struct pen pen = { p };
    pen_str(&pen, S("HTTP/1.1 "));
    pen_number(&pen, (size_t)status);
    pen_str(&pen, S(" "));
    pen_str(&pen, str_of(status_text(status)));
    pen_str(&pen, S("\r\n"));
    if (type.n && status_has_body(status)) {
        pen_str(&pen, S("Content-Type: "));
        pen_str(&pen, type);
        pen_str(&pen, S("\r\n"));
    }
    head_framing(&pen, e, status, body);
    pen_str(&pen, S("X-Request-Id: ")); /* ours, or one that was found sane */
    pen_str(&pen, r->id);
    pen_str(&pen, S("\r\n"));
    if (!extra_has(e, S("x-content-type-options")))
        pen_str(&pen, S("X-Content-Type-Options: nosniff\r\n"));
    if (!extra_has(e, S("cache-control")))
        pen_str(&pen, S("Cache-Control: no-store\r\n"));
    for (size_t i = 0; i < e->extra.n; i++)
        pen_header(&pen, e->extra.v[i].name, e->extra.v[i].value);
    pen_str(&pen, S("\r\n"));
    if (copy)
        pen_str(&pen, *body);
    e->head = (struct str){ p, (size_t)(pen.p - p) };
    e->body = shown && !copy ? *body : S("");
}

/* ---- writing ---- */

/* The first n exchanges in line are on their way. */
static void replies_sent(struct conn *c, size_t n)
{
    for (; n && !c->closed; n--) {
        struct req_out *e = line_pop(c);
        bool close = e->close && !e->streams;
        if (e->streams)
            stream_attach(e->stream, c);
        e->conn = NULL; /* a handler that feeds its stream outlives its place in line */
        exchange_unref(e);
        if (close && c->refused)
            conn_linger(c);
        else if (close)
            conn_close(c);
    }
}

/* The replies that are ready, in order, up to a stream, an end or the size of one write. */
static unsigned replies_gather(struct conn *c, uv_buf_t *v, size_t *exchanges)
{
    unsigned n = 0;
    *exchanges = 0;
    for (struct req_out *e = c->line; e && n + 2 <= LINE_BUFS; e = e->next) {
        if (!n && e->state == READING && e->wants_continue) {
            e->wants_continue = false;
            static char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
            v[n++] = uv_buf_init(text, sizeof text - 1);
        }
        if (e->state != READY)
            break;
        v[n].base = (char *)e->head.p;
        v[n++].len = e->head.n;
        v[n].base = (char *)e->body.p;
        v[n].len = e->body.n;
        n += e->body.n > 0;
        ++*exchanges;
        if (e->streams || e->close)
            break;
    }
    return n;
}

void line_flush(struct conn *c)
{
    while (!c->closed && !c->writing && !c->lingering) {
        if (c->stream) {
            stream_pump(c);
            if (c->stream)
                return;
            continue;
        }
        uv_buf_t v[LINE_BUFS];
        unsigned n = replies_gather(c, v, &c->written_n);
        if (!n)
            return;
        if (conn_send(c, v, n))
            line_sent(c);
    }
}

void line_sent(struct conn *c)
{
    size_t n = c->written_n;
    c->written_n = 0;
    if (c->stream)
        stream_sent(c);
    else
        replies_sent(c, n);
}
