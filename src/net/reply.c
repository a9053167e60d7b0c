// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

// clang-format off
#define STATUSES(T) \
    T(100, "Continue") T(200, "OK") T(201, "Created") T(202, "Accepted") T(204, "No Content") \
    T(206, "Partial Content") T(301, "Moved Permanently") T(302, "Found") T(303, "See Other") \
    T(304, "Not Modified") T(307, "Temporary Redirect") T(308, "Permanent Redirect") T(400, "Bad Request") \
    T(401, "Unauthorized") T(403, "Forbidden") T(404, "Not Found") T(405, "Method Not Allowed") \
    T(406, "Not Acceptable") T(408, "Request Timeout") T(409, "Conflict") T(410, "Gone") \
    T(411, "Length Required") T(412, "Precondition Failed") T(413, "Content Too Large") \
    T(414, "URI Too Long") T(415, "Unsupported Media Type") T(416, "Range Not Satisfiable") \
    T(417, "Expectation Failed") T(421, "Misdirected Request") T(422, "Unprocessable Content") \
    T(428, "Precondition Required") T(429, "Too Many Requests") T(431, "Request Header Fields Too Large") \
    T(499, "Client Closed Request") T(500, "Internal Server Error") T(501, "Not Implemented") \
    T(502, "Bad Gateway") T(503, "Service Unavailable") T(504, "Gateway Timeout") \
    T(505, "HTTP Version Not Supported") T(507, "Insufficient Storage")
// clang-format on

const char *status_text(int status)
{
    switch (status) {
#define T(code, text) \
    case code:        \
        return text;
        STATUSES(T)
#undef T
    }
    return "Status";
}

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

static bool extra_has(const struct req_out *e, struct str name)
{
    for (size_t i = 0; i < e->extra.n; i++)
        if (str_eq_ascii(e->extra.v[i].name, name))
            return true;
    return false;
}

static bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
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

struct str reply_head(struct req *r, int status, const char *content_type, const struct str *body)
{
    struct req_out *e = r->out;
    struct str type = str_of(content_type);
    size_t n = 320 + type.n + r->id.n;
    for (size_t i = 0; i < e->extra.n; i++)
        n += e->extra.v[i].name.n + e->extra.v[i].value.n + 4;
    bool copy = body && body->n <= 2048 && e->method != M_HEAD && status_has_body(status);
    char *p = arena_alloc(r->a, n + (copy ? body->n : 0), 1);
    struct pen pen = { p };
    pen_str(&pen, S("HTTP/1.1 "));
    pen_number(&pen, (size_t)status);
    pen_str(&pen, S(" "));
    pen_str(&pen, str_of(status_text(status)));
    pen_str(&pen, S("\r\n"));
    if (type.n && status_has_body(status))
        pen_header(&pen, S("Content-Type"), type);
    head_framing(&pen, e, status, body);
    pen_header(&pen, S("X-Request-Id"), r->id);
    if (!extra_has(e, S("x-content-type-options")))
        pen_str(&pen, S("X-Content-Type-Options: nosniff\r\n"));
    if (!extra_has(e, S("cache-control")))
        pen_str(&pen, S("Cache-Control: no-store\r\n"));
    for (size_t i = 0; i < e->extra.n; i++)
        pen_header(&pen, e->extra.v[i].name, e->extra.v[i].value);
    pen_str(&pen, S("\r\n"));
    if (copy)
        pen_str(&pen, *body);
    return (struct str){ p, (size_t)(pen.p - p) };
}

err req_reply(struct req *r, int status, const char *content_type, struct str body)
{
    struct req_out *e = r->out;
    if (e->status)
        FAIL(INTERNAL, "a second reply (%d after %d) to %.*s", status, e->status, STR(r->target));
    if (status < 200 || status > 599)
        FAIL(INTERNAL, "%d is not the status of a reply", status);
    e->head = reply_head(r, status, content_type, &body);
    bool separate = body.n > 2048 && e->method != M_HEAD && status_has_body(status);
    e->body = separate ? body : S("");
    e->status = status;
    return NULL;
}

err req_reply_json(struct req *r, int status, const struct json *j)
{
    return req_reply(r, status, "application/json", json_get(j));
}

void req_reply_header(struct req *r, const char *name, struct str value)
{
    push(r->a, &r->out->extra, (struct header){ str_of(name), str_dup(r->a, value) });
}
