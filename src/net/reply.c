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

bool extra_has(const struct req_out *e, struct str name)
{
    for (size_t i = 0; i < e->extra.n; i++)
        if (str_eq_ascii(e->extra.v[i].name, name))
            return true;
    return false;
}

bool status_has_body(int status)
{
    return status >= 200 && status != 204 && status != 304;
}

struct str header_value(struct arena *a, struct str value)
{
    char *p = arena_alloc(a, value.n, 1);
    for (size_t i = 0; i < value.n; i++)
        p[i] = (unsigned char)value.p[i] < 0x20 && value.p[i] != '\t' ? ' ' : value.p[i];
    return (struct str){ p, value.n };
}

struct str lower_name(struct arena *a, struct str name)
{
    char *p = arena_alloc(a, name.n, 1);
    for (size_t i = 0; i < name.n; i++)
        p[i] = (char)(name.p[i] >= 'A' && name.p[i] <= 'Z' ? name.p[i] + 32 : name.p[i]);
    return (struct str){ p, name.n };
}

err req_reply(struct req *r, int status, const char *content_type, struct str body)
{
    struct req_out *e = r->out;
    if (e->status)
        FAIL(INTERNAL, "a second reply (%d after %d) to %.*s", status, e->status, STR(r->target));
    if (status < 200 || status > 599)
        FAIL(INTERNAL, "%d is not the status of a reply", status);
    if (e->call && status < 300)
        FAIL(INTERNAL, "%.*s is a stream: it is answered by req_send()", STR(r->path));
    e->codec->reply(e, status, content_type, &body);
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

bool req_reply_has(const struct req *r, struct str name)
{
    return extra_has(r->out, name);
}
