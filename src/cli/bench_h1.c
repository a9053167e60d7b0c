// SPDX-License-Identifier: Apache-2.0
/* HTTP/1.1 for the load generator. */
#include "cli/bench_wire.h"
#include <strings.h>

enum { HEAD_BYTES = 4 << 10 };

struct http_state {
    struct str request; /* head and body */
    bool asked;
    size_t head_n, body_left;
    int status; /* 0: the head is not whole yet */
    char head[HEAD_BYTES];
};

static err http_open_(struct link *l)
{
    const struct bench_target *t = l->target;
    struct http_state *s = l->state = NEW(l->a, struct http_state);
    struct buf b = buf_new(l->a);
    buf_fmt(&b, "%s %.*s HTTP/1.1\r\nHost: %.*s:%.*s\r\n", t->body.n ? "POST" : "GET", STR(t->path),
            STR(t->host), STR(t->port));
    for (size_t i = 0; i < t->headers_n; i++)
        buf_fmt(&b, "%.*s: %.*s\r\n", STR(t->headers[i].name), STR(t->headers[i].value));
    if (t->body.n)
        buf_fmt(&b, "content-length: %zu\r\n", t->body.n);
    buf_str(&b, S("\r\n"));
    buf_str(&b, t->body);
    s->request = buf_get(&b);
    return NULL;
}

static err http_ask(struct link *l, int slot)
{
    struct http_state *s = l->state;
    (void)slot;
    s->asked = true;
    s->head_n = s->body_left = 0;
    s->status = 0;
    return NULL;
}

static err http_out(struct link *l, struct str *bytes)
{
    struct http_state *s = l->state;
    *bytes = s->asked ? s->request : S("");
    s->asked = false;
    return NULL;
}

/* Value of a header in a head that ends with an empty line. */
static struct str header_of(struct str head, const char *name)
{
    size_t n = strlen(name);
    for (struct str line; str_cut(&head, '\n', &line);)
        if (line.n > n && line.p[n] == ':' && !strncasecmp(line.p, name, n))
            return str_trim(str_sub(line, n + 1, line.n));
    return S("");
}

static err head_read(struct http_state *s, struct str head)
{
    int64_t status, length;
    if (!str_starts(head, S("HTTP/1.1 ")) || !str_i64(str_sub(head, 9, 12), &status) ||
        !str_i64(header_of(head, "content-length"), &length) || length < 0)
        FAIL(INTERNAL, "the server's answer is not understood");
    s->status = (int)status;
    s->body_left = (size_t)length;
    return NULL;
}

/* Takes what came; what is left of the reply is known once its head is there. */
static err http_in(struct link *l, struct str in)
{
    struct http_state *s = l->state;
    if (!s->status) {
        size_t before = s->head_n, n = in.n < HEAD_BYTES - before ? in.n : HEAD_BYTES - before;
        memcpy(s->head + before, in.p, n);
        s->head_n += n;
        char *end = memmem(s->head, s->head_n, "\r\n\r\n", 4);
        if (!end && s->head_n == HEAD_BYTES)
            FAIL(TOO_LARGE, "the head of the server's answer is longer than %d bytes", HEAD_BYTES);
        if (!end)
            return NULL;
        size_t head = (size_t)(end - s->head) + 4;
        TRY(head_read(s, (struct str){ s->head, head }));
        in = str_sub(in, head - before, in.n);
    }
    if (in.n > s->body_left)
        FAIL(INTERNAL, "the server sent more than one answer");
    s->body_left -= in.n;
    return s->body_left ? NULL : l->answered(l, 0, s->status / 100 == 2, s->status);
}

static void http_close_(struct link *l)
{
    (void)l;
}

static struct str http_status(struct arena *a, int status)
{
    return fmt(a, "%d", status);
}

const struct wire wire_http = {
    .slots_max = 1,
    .protocol = S_INIT("http/1.1"),
    .open = http_open_,
    .ask = http_ask,
    .out = http_out,
    .in = http_in,
    .close = http_close_,
    .status = http_status,
};
