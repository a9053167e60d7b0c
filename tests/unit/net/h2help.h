/* h2help: a client of HTTP/2 by nghttp2, for tests: it asks, then turns until what it waits for is there. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "help.h"
#include <nghttp2/nghttp2.h>

enum { ASKS_MAX = 2048 };
struct asked {
    int32_t id;
    int status, grpc;  /* grpc: -1 until it is told */
    bool ended, whole; /* the stream is closed; without a reset */
    uint32_t reset;
    char message[256];
    struct buf body;
    struct str send; /* what is still to be sent */
    bool open;       /* more of it may come */
    bool heads;      /* :status came with grpc-status in one block */
};
struct h2 {
    nghttp2_session *s;
    struct arena *a;
    int fd;
    struct asked asked[ASKS_MAX];
    size_t n;
    bool goaway, closed;
    uint32_t goaway_code;
    int pongs;
};

static inline struct asked *h2_find(struct h2 *c, int32_t id)
{
    for (size_t i = c->n; i--;)
        if (c->asked[i].id == id)
            return &c->asked[i];
    return NULL;
}

static inline int h2_on_field(nghttp2_session *s, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                              const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)s, (void)flags;
    struct asked *x = h2_find(arg, f->hd.stream_id);
    struct str n = { (const char *)name, name_n }, v = { (const char *)value, value_n };
    int64_t number = 0;
    (void)str_i64(v, &number);
    if (x && str_is(n, ":status"))
        x->status = (int)number;
    if (x && str_is(n, "grpc-status")) {
        x->grpc = (int)number;
        x->heads = f->headers.cat == NGHTTP2_HCAT_RESPONSE;
    }
    if (x && str_is(n, "grpc-message"))
        snprintf(x->message, sizeof x->message, "%.*s", STR(v));
    return 0;
}

static inline int h2_on_data(nghttp2_session *s, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                             void *arg)
{
    (void)s, (void)flags;
    struct asked *x = h2_find(arg, id);
    if (x)
        buf_put(&x->body, p, n);
    return 0;
}

static inline int h2_on_close(nghttp2_session *s, int32_t id, uint32_t code, void *arg)
{
    (void)s;
    struct asked *x = h2_find(arg, id);
    if (x) {
        x->ended = true;
        x->whole = code == 0;
        x->reset = code;
    }
    return 0;
}

static inline int h2_on_frame(nghttp2_session *s, const nghttp2_frame *f, void *arg)
{
    (void)s;
    struct h2 *c = arg;
    c->pongs += f->hd.type == NGHTTP2_PING && f->hd.flags & NGHTTP2_FLAG_ACK;
    if (f->hd.type == NGHTTP2_GOAWAY) {
        c->goaway = true;
        c->goaway_code = f->goaway.error_code;
    }
    return 0;
}

static inline ssize_t h2_on_body(nghttp2_session *s, int32_t id, uint8_t *out, size_t max, uint32_t *flags,
                                 nghttp2_data_source *source, void *arg)
{
    (void)s, (void)source;
    struct asked *x = h2_find(arg, id);
    struct str part = str_sub(x->send, 0, max);
    if (!part.n && x->open)
        return NGHTTP2_ERR_DEFERRED;
    if (part.n)
        memcpy(out, part.p, part.n);
    x->send = str_sub(x->send, part.n, x->send.n);
    if (!x->send.n && !x->open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)part.n;
}

/* shut: once its window is full, it gives the server no more room. */
static inline struct h2 *h2_new(struct arena *a, int fd, bool shut)
{
    nghttp2_option *o;
    nghttp2_session_callbacks *on;
    struct h2 *c = NEW(a, struct h2);
    c->a = a;
    c->fd = fd;
    CHECK(nghttp2_session_callbacks_new(&on) == 0);
    nghttp2_session_callbacks_set_on_header_callback(on, h2_on_field);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(on, h2_on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(on, h2_on_close);
    nghttp2_session_callbacks_set_on_frame_recv_callback(on, h2_on_frame);
    CHECK(nghttp2_option_new(&o) == 0);
    nghttp2_option_set_no_auto_window_update(o, shut);
    CHECK(nghttp2_session_client_new2(&c->s, on, c, o) == 0);
    nghttp2_session_callbacks_del(on);
    nghttp2_option_del(o);
    nghttp2_submit_settings(c->s, 0, NULL, 0);
    return c;
}

static inline struct h2 *h2_connect(struct arena *a, const struct net *net)
{
    return h2_new(a, help_connect(net), false);
}

static inline void h2_push(struct h2 *c)
{
    const uint8_t *p;
    for (ssize_t n; (n = nghttp2_session_mem_send(c->s, &p)) > 0;)
        for (ssize_t at = 0; at < n && !c->closed;) {
            ssize_t got = send(c->fd, p + at, (size_t)(n - at), MSG_NOSIGNAL);
            c->closed |= got < 0;
            at += got;
        }
}

/* Sends what there is, then takes what comes within ms. False: nothing came, or it is closed. */
static inline bool h2_turn(struct h2 *c, int ms)
{
    char in[16 << 10];
    h2_push(c);
    struct pollfd p = { .fd = c->fd, .events = POLLIN };
    if (c->closed || poll(&p, 1, ms) != 1)
        return false;
    ssize_t n = recv(c->fd, in, sizeof in, 0);
    c->closed |= n <= 0;
    if (n > 0)
        CHECK(nghttp2_session_mem_recv(c->s, (uint8_t *)in, (size_t)n) == n);
    h2_push(c);
    return n > 0;
}

static inline void h2_wait(struct h2 *c, const struct asked *x)
{
    while (!x->ended && h2_turn(c, 10 * 1000))
        ;
    CHECK(x->ended);
}

static inline void h2_wait_closed(struct h2 *c)
{
    while (h2_turn(c, 10 * 1000))
        ;
    CHECK(c->closed);
}

static inline nghttp2_nv h2_field(const char *name, struct str value)
{
    return (nghttp2_nv){ (uint8_t *)name, (uint8_t *)value.p, strlen(name), value.n, 0 };
}

/* extra: name, value, name, value …, NULL. open: the body goes on. */
static inline struct asked *h2_ask(struct h2 *c, const char *method, const char *path, struct str body,
                                   bool open, const char *const *extra)
{
    nghttp2_nv f[32] = { h2_field(":method", str_of(method)), h2_field(":path", str_of(path)),
                         h2_field(":scheme", S("http")), h2_field(":authority", S("localhost")) };
    size_t n = 4;
    for (; extra && *extra; extra += 2)
        f[n++] = h2_field(extra[0], str_of(extra[1]));
    CHECK(c->n < ASKS_MAX);
    struct asked *x = &c->asked[c->n++];
    *x = (struct asked){ .grpc = -1, .body = buf_new(c->a), .send = body, .open = open };
    nghttp2_data_provider from = { .read_callback = h2_on_body };
    x->id = nghttp2_submit_request(c->s, NULL, f, n, body.n || open ? &from : NULL, NULL);
    CHECK(x->id > 0);
    return x;
}

static inline struct asked *h2_get(struct h2 *c, const char *path)
{
    return h2_ask(c, "GET", path, S(""), false, NULL);
}

static inline struct str framed(struct arena *a, struct str message, bool zipped)
{
    char *p = arena_alloc(a, message.n + 5, 1);
    p[0] = zipped;
    for (int i = 0; i < 4; i++)
        p[1 + i] = (char)(message.n >> (24 - 8 * i));
    if (message.n)
        memcpy(p + 5, message.p, message.n);
    return (struct str){ p, message.n + 5 };
}

static const char *const grpc_fields[] = { "content-type", "application/grpc", "te", "trailers", NULL };

static inline struct asked *h2_call(struct h2 *c, const char *path, struct str message)
{
    return h2_ask(c, "POST", path, framed(c->a, message, false), false, grpc_fields);
}

/* The messages of a reply, one after another; false at the end. */
static inline bool h2_message(struct str *rest, struct str *out)
{
    const unsigned char *p = (const unsigned char *)rest->p;
    if (rest->n < 5)
        return false;
    size_t n = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    *out = str_sub(*rest, 5, 5 + n);
    *rest = str_sub(*rest, 5 + n, rest->n);
    return out->n == n;
}

static inline void h2_free(struct h2 *c)
{
    nghttp2_session_del(c->s);
    close(c->fd);
}

/* For a thread of its own: the test goes on while the server stops. */
static inline void *h2_stop(void *net)
{
    net_stop(net);
    return NULL;
}
