// SPDX-License-Identifier: Apache-2.0
/* gRPC over HTTP/2 for the load generator, by nghttp2. */
#include "cli/bench_wire.h"
#include <nghttp2/nghttp2.h>
#include <sys/param.h>

enum {
    CALLS = 8, /* on a connection, so that a server's threads share the load */
    WINDOW = 16 << 20,
    GATHER = 32 << 10, /* frames that are sent together */
    RESET = 17,        /* behind the statuses of gRPC */
    PREFIX = 5         /* of a message: not compressed, its length */
};

struct call {
    struct link *l;
    int slot, http, grpc;
    size_t sent;
};
struct grpc_state {
    nghttp2_session *session;
    struct call *calls;
    struct str message; /* with its prefix */
    nghttp2_nv headers[8 + BENCH_HEADERS];
    size_t headers_n;
    struct buf out;
    err failed; /* in a callback */
};

static err wrong(int code)
{
    FAIL(UNAVAILABLE, "HTTP/2 with the server: %s", nghttp2_strerror(code));
}

static ssize_t body_read(nghttp2_session *session, int32_t id, uint8_t *to, size_t n, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    struct call *c = source->ptr;
    struct str rest = ((struct grpc_state *)c->l->state)->message;
    rest = str_sub(rest, c->sent, rest.n);
    n = MIN(n, rest.n);
    memcpy(to, rest.p, n);
    c->sent += n;
    if (n == rest.n)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    (void)session, (void)id, (void)arg;
    return (ssize_t)n;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_n,
                     const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    struct call *c = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    struct str key = { (const char *)name, name_n };
    int64_t v;
    (void)flags, (void)arg;
    if (!c || !str_i64((struct str){ (const char *)value, value_n }, &v))
        return 0;
    if (str_is(key, ":status"))
        c->http = (int)v;
    else if (str_is(key, "grpc-status"))
        c->grpc = v >= 0 && v < RESET ? (int)v : 2;
    return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    struct call *c = nghttp2_session_get_stream_user_data(session, id);
    struct link *l = arg;
    struct grpc_state *s = l->state;
    if (!c || s->failed)
        return 0;
    int status = code || c->http != 200 ? RESET : c->grpc;
    s->failed = l->answered(l, c->slot, status == 0, status);
    return s->failed ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static void header_put(struct grpc_state *s, struct str name, struct str value)
{
    s->headers[s->headers_n++] = (nghttp2_nv){ (uint8_t *)(uintptr_t)name.p, (uint8_t *)(uintptr_t)value.p,
                                               name.n, value.n,
                                               NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
}

static void request_build(struct link *l, struct grpc_state *s)
{
    const struct bench_target *t = l->target;
    struct buf b = buf_new(l->a);
    uint32_t n = (uint32_t)t->body.n;
    const char prefix[PREFIX] = { 0, (char)(n >> 24), (char)(n >> 16), (char)(n >> 8), (char)n };
    buf_put(&b, prefix, PREFIX);
    buf_str(&b, t->body);
    s->message = buf_get(&b);
    header_put(s, S(":method"), S("POST"));
    header_put(s, S(":scheme"), t->tls ? S("https") : S("http"));
    header_put(s, S(":path"), t->path);
    header_put(s, S(":authority"), fmt(l->a, "%.*s:%.*s", STR(t->host), STR(t->port)));
    header_put(s, S("te"), S("trailers"));
    for (size_t i = 0; i < t->headers_n; i++)
        header_put(s, t->headers[i].name, t->headers[i].value);
}

static err grpc_open(struct link *l)
{
    const nghttp2_settings_entry settings[] = { { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
                                                { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW } };
    struct grpc_state *s = l->state = NEW(l->a, struct grpc_state);
    nghttp2_session_callbacks *on;
    s->calls = NEW_N(l->a, struct call, (size_t)l->slots);
    s->out = buf_new(l->a);
    request_build(l, s);
    if (nghttp2_session_callbacks_new(&on))
        FAIL(INTERNAL, "no memory for a session");
    nghttp2_session_callbacks_set_on_header_callback(on, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(on, on_close);
    int code = nghttp2_session_client_new(&s->session, on, l);
    nghttp2_session_callbacks_del(on);
    if (!code)
        code = nghttp2_submit_settings(s->session, NGHTTP2_FLAG_NONE, settings,
                                       sizeof settings / sizeof *settings);
    if (!code)
        code = nghttp2_session_set_local_window_size(s->session, NGHTTP2_FLAG_NONE, 0, WINDOW);
    return code ? wrong(code) : NULL;
}

static err grpc_ask(struct link *l, int slot)
{
    struct grpc_state *s = l->state;
    struct call *c = &s->calls[slot];
    *c = (struct call){ .l = l, .slot = slot, .grpc = RESET };
    const nghttp2_data_provider body = { .source.ptr = c, .read_callback = body_read };
    int id = nghttp2_submit_request(s->session, NULL, s->headers, s->headers_n, &body, c);
    return id < 0 ? wrong(id) : NULL;
}

static err grpc_out(struct link *l, struct str *bytes)
{
    struct grpc_state *s = l->state;
    const uint8_t *p;
    ssize_t n = 1;
    s->out.n = 0;
    while (n > 0 && s->out.n < GATHER) {
        n = nghttp2_session_mem_send(s->session, &p);
        if (n > 0)
            buf_put(&s->out, p, (size_t)n);
    }
    *bytes = buf_get(&s->out);
    return n < 0 ? wrong((int)n) : NULL;
}

static err grpc_in(struct link *l, struct str in)
{
    struct grpc_state *s = l->state;
    ssize_t n = nghttp2_session_mem_recv(s->session, (const uint8_t *)in.p, in.n);
    if (s->failed)
        return s->failed;
    return n < 0 ? wrong((int)n) : NULL;
}

static void grpc_close(struct link *l)
{
    struct grpc_state *s = l->state;
    if (s)
        nghttp2_session_del(s->session);
}

static struct str grpc_status(struct arena *a, int status)
{
    static const char *const names[] = {
        "OK",        "CANCELLED",       "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
        "NOT_FOUND", "ALREADY_EXISTS",  "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED",   "OUT_OF_RANGE",    "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
        "DATA_LOSS", "UNAUTHENTICATED", [RESET] = "RESET"
    };
    (void)a;
    return str_of(names[status]);
}

const struct wire wire_grpc = {
    .slots_max = CALLS,
    .protocol = S_INIT("h2"),
    .open = grpc_open,
    .ask = grpc_ask,
    .out = grpc_out,
    .in = grpc_in,
    .close = grpc_close,
    .status = grpc_status,
};
