// SPDX-License-Identifier: Apache-2.0
/* h2: HTTP/2 by nghttp2. A stream of it is a "leg" here, as a stream is something else in this module. */
#include "net/internal.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    LEGS_MAX = 256, /* exchanges at once on a connection */
    LEG_WINDOW = 1 << 20,
    CONN_WINDOW = 8 << 20,
    PROGRESS_BYTES = 16 << 10, /* that a slow reader takes in write_ms_max, at least */
    NOISE_MAX = 2000,          /* frames that carry nothing, between two ticks */
    FIELDS = 8,                /* of our own in a reply, at most */
};

/* One exchange's way in and out; lives in its request's arena. */
struct leg {
    struct codec *h;
    struct req *r;
    int32_t id;
    enum { FIELDS_COME, BODY_COMES, WHOLE, DEAF } in; /* DEAF: refused, or cut */
    bool in_parts, framed, submitted, closing;
    size_t fields_bytes, fields_cap;
    struct body body;
    size_t body_max, known;
    size_t held;     /* bytes taken that the client has no room for again yet */
    size_t sent;     /* of the reply's head and body */
    size_t progress; /* bytes that the client took since its time was set */
};

struct codec {
    nghttp2_session *session;
    const struct net_limits *limits;
    const struct codec_host *host;
    void *arg;
    size_t bodies; /* bytes of those that are not whole */
    size_t noise;
    int32_t last, skipped_from, skipped_to; /* ids of legs: the newest, and those it came instead of */
    bool ended;
    char *out; /* of h2_pull, while it runs */
    size_t out_n, out_max;
};

static struct leg *leg_of(nghttp2_session *session, int32_t id)
{
    return id ? nghttp2_session_get_stream_user_data(session, id) : NULL;
}

/* ---- what comes in ---- */

static void leg_bad(struct leg *leg, int status, const char *why)
{
    leg->h->bodies -= leg->in == BODY_COMES && !leg->in_parts ? leg->body.n : 0;
    leg->in = DEAF;
    leg->h->host->bad(leg->h->arg, leg->r, status, why);
}

/* An id that was passed over is closed (RFC 9113, 5.1.1); nghttp2 would overlook that it is used. */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *arg)
{
    struct codec *h = arg;
    if (hd->type != NGHTTP2_HEADERS)
        return 0;
    if (hd->stream_id >= h->skipped_from && hd->stream_id <= h->skipped_to)
        return nghttp2_session_terminate_session(session, NGHTTP2_PROTOCOL_ERROR);
    if (hd->stream_id <= h->last)
        return 0;
    if (hd->stream_id > h->last + 2) {
        h->skipped_from = h->last + 1;
        h->skipped_to = hd->stream_id - 1;
    }
    h->last = hd->stream_id;
    return 0;
}

static int on_begin(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct codec *h = arg;
    if (f->hd.type != NGHTTP2_HEADERS || f->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct req *r = h->host->begin(h->arg);
    struct leg *leg = NEW(r->a, struct leg);
    *leg = (struct leg){ .h = h, .r = r, .id = f->hd.stream_id };
    if (r->out)
        r->out->leg = leg;
    leg->fields_cap = 16;
    r->headers = NEW_N(r->a, struct header, leg->fields_cap);
    nghttp2_session_set_stream_user_data(session, leg->id, leg);
    return 0;
}

static void field_push(struct leg *leg, struct str name, struct str value)
{
    struct req *r = leg->r;
    if (r->headers_n == leg->fields_cap)
        r->headers = vec_grow(r->a, r->headers, &leg->fields_cap, r->headers_n + 1, sizeof *r->headers);
    r->headers[r->headers_n++] = (struct header){ str_dup(r->a, name), str_dup(r->a, str_trim(value)) };
}

static int on_field(nghttp2_session *session, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                    const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)flags;
    struct codec *h = arg;
    struct leg *leg = leg_of(session, f->hd.stream_id);
    if (!leg || leg->in != FIELDS_COME)
        return 0; /* a body's trailers are read over */
    struct str n = { (const char *)name, name_n }, v = { (const char *)value, value_n };
    leg->fields_bytes += n.n + v.n;
    bool is_path = str_is(n, ":path");
    if (leg->fields_bytes > h->limits->header_bytes_max)
        leg_bad(leg, is_path ? 414 : 431, is_path ? "the path is too long" : "the headers are too long");
    else if (is_path)
        leg->r->target = str_dup(leg->r->a, v);
    else if (str_is(n, ":method"))
        leg->r->method = str_dup(leg->r->a, v);
    else if (str_is(n, ":authority"))
        field_push(leg, S("host"), v);
    else if (n.p[0] != ':' && leg->r->headers_n >= h->limits->headers_max)
        leg_bad(leg, 431, "too many headers");
    else if (n.p[0] != ':')
        field_push(leg, n, v);
    return 0;
}

/* Host beside :authority must say the same; pieces of Cookie are one again (RFC 9113, 8.2.3). */
static bool fields_join(struct req *r)
{
    struct header *host = NULL, *cookie = NULL;
    size_t n = 0;
    for (size_t i = 0; i < r->headers_n; i++) {
        struct header *f = &r->headers[i];
        if (str_is(f->name, "host") && host) {
            if (!str_eq_ascii(f->value, host->value))
                return false;
        } else if (str_is(f->name, "cookie") && cookie) {
            cookie->value = fmt(r->a, "%.*s; %.*s", STR(cookie->value), STR(f->value));
        } else {
            r->headers[n] = *f;
            host = str_is(f->name, "host") ? &r->headers[n] : host;
            cookie = str_is(f->name, "cookie") ? &r->headers[n] : cookie;
            n++;
        }
    }
    r->headers_n = n;
    return true;
}

static void leg_head(struct leg *leg)
{
    struct codec *h = leg->h;
    struct req *r = leg->r;
    struct head_info info = { .body_bytes_max = h->limits->body_bytes_max };
    if (!fields_join(r) || !req_header(r, S("host")).n) {
        leg_bad(leg, 400, "a request has one host");
        return;
    }
    info.expects_continue = str_eq_ascii(req_header(r, S("expect")), S("100-continue"));
    leg->in = BODY_COMES;
    if (!h->host->head(h->arg, r, &info)) {
        leg->in = DEAF;
        return;
    }
    leg->in_parts = info.in_parts;
    leg->framed = info.framed;
    leg->body_max = info.body_bytes_max;
    int64_t known;
    if (!str_i64(req_header(r, S("content-length")), &known) || known < 0)
        known = 0;
    leg->known = (uint64_t)known > SIZE_MAX / 2 ? SIZE_MAX / 2 : (size_t)known;
    static const nghttp2_nv go_on = { (uint8_t *)":status", (uint8_t *)"100", 7, 3, 0 };
    if (leg->known > leg->body_max && !leg->in_parts)
        leg_bad(leg, 413, "the body is over this route's limit");
    else if (info.expects_continue)
        nghttp2_submit_headers(h->session, 0, leg->id, NULL, &go_on, 1, NULL);
}

static void leg_whole(struct leg *leg)
{
    struct codec *h = leg->h;
    if (!leg->in_parts) {
        leg->r->body = (struct str){ leg->body.p, leg->body.n };
        h->bodies -= leg->body.n;
    }
    leg->in = WHOLE;
    h->host->whole(h->arg, leg->r, true);
}

/* Frames that bring nothing cost us more than the client: many of them, and it is hung up on. */
static void noise_hear(struct codec *h, const nghttp2_frame *f)
{
    bool empty = f->hd.type == NGHTTP2_DATA && f->hd.length == 0 && !(f->hd.flags & NGHTTP2_FLAG_END_STREAM);
    bool ack = f->hd.flags & NGHTTP2_FLAG_ACK;
    h->noise += empty || f->hd.type == NGHTTP2_PRIORITY || f->hd.type == NGHTTP2_RST_STREAM ||
                ((f->hd.type == NGHTTP2_PING || f->hd.type == NGHTTP2_SETTINGS) && !ack);
    if (h->noise <= NOISE_MAX || h->ended)
        return;
    h->ended = true;
    nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    struct leg *leg = leg_of(session, f->hd.stream_id);
    noise_hear(arg, f);
    if (!leg || (f->hd.type != NGHTTP2_HEADERS && f->hd.type != NGHTTP2_DATA))
        return 0;
    if (f->hd.type == NGHTTP2_HEADERS && leg->in == FIELDS_COME)
        leg_head(leg);
    if (f->hd.flags & NGHTTP2_FLAG_END_STREAM && leg->in == BODY_COMES)
        leg_whole(leg);
    return 0;
}

/* A refused field would end the connection; it is the request that is wrong. */
static int on_bad_field(nghttp2_session *session, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                        const uint8_t *value, size_t value_n, uint8_t flags, void *arg)
{
    (void)session, (void)f, (void)name, (void)name_n, (void)value, (void)value_n, (void)flags, (void)arg;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* A call's body says at its beginning how long its message is; few clients say it before. The message's end is aligned: there
 * stands the last tensor's last byte. */
static void message_begin(struct leg *leg, struct str in)
{
    if (!leg->body.n && leg->framed && in.n >= MESSAGE_HEAD)
        leg->known = leg->body.lead = MESSAGE_HEAD + grpc_length(in.p);
}

static void leg_collect(struct leg *leg, struct str in)
{
    struct codec *h = leg->h;
    message_begin(leg, in);
    if (in.n > leg->body_max - leg->body.n) {
        leg_bad(leg, 413, "the body is over this route's limit");
    } else if (in.n > h->limits->body_bytes_max - h->bodies) {
        leg_bad(leg, 503, "too much is sent at once on one connection");
    } else if (!body_put(&leg->body, leg->r, leg->known, in)) {
        leg_bad(leg, 503, "no memory is left for requests now");
    } else {
        h->bodies += in.n;
    }
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *arg)
{
    (void)flags;
    struct codec *h = arg;
    struct leg *leg = leg_of(session, id);
    struct str in = { (const char *)p, n };
    bool room = true;
    nghttp2_session_consume_connection(session, n);
    if (leg && leg->in == BODY_COMES && leg->in_parts)
        room = h->host->part(h->arg, leg->r, in);
    else if (leg && leg->in == BODY_COMES)
        leg_collect(leg, in);
    if (room)
        nghttp2_session_consume_stream(session, id, n);
    else
        leg->held += n;
    return 0;
}

static void h2_room(struct req_out *e)
{
    struct leg *leg = e->leg;
    nghttp2_session_consume_stream(leg->h->session, leg->id, leg->held);
    leg->held = 0;
}

static int on_closed(nghttp2_session *session, int32_t id, uint32_t code, void *arg)
{
    (void)code;
    struct codec *h = arg;
    struct leg *leg = leg_of(session, id);
    if (!leg)
        return 0;
    h->bodies -= leg->in == BODY_COMES && !leg->in_parts ? leg->body.n : 0;
    nghttp2_session_set_stream_user_data(session, id, NULL);
    h->host->gone(h->arg, leg->r);
    return 0;
}

/* ---- replies: their fields, on the handler's thread ---- */

static nghttp2_nv *field_add(struct req_out *e, struct str name, struct str value)
{
    nghttp2_nv *f = (nghttp2_nv *)e->fields + e->fields_n++;
    *f = (nghttp2_nv){ (uint8_t *)name.p, (uint8_t *)value.p, name.n, value.n,
                       NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE };
    return f;
}

static struct str number_text(struct arena *a, size_t v)
{
    char digits[24];
    size_t n = 0;
    do
        digits[sizeof digits - ++n] = (char)('0' + v % 10);
    while (v /= 10);
    return str_dup(a, (struct str){ digits + sizeof digits - n, n });
}

static void rest_fields(struct req_out *e, int status, struct str type, const struct str *body)
{
    bool has_body = status_has_body(status);
    field_add(e, S(":status"), status == 200 ? S("200") : number_text(e->req.a, (size_t)status));
    if (type.n && has_body)
        field_add(e, S("content-type"), type);
    if (body && has_body)
        field_add(e, S("content-length"), number_text(e->req.a, body->n));
    if (!extra_has(e, S("x-content-type-options")))
        field_add(e, S("x-content-type-options"), S("nosniff"));
    if (!extra_has(e, S("cache-control")))
        field_add(e, S("cache-control"), S("no-store"));
    e->head = S("");
    e->body = body && has_body && e->method != M_HEAD ? *body : S("");
}

static void call_fields(struct req_out *e, int status, const struct str *body)
{
    bool zipped = grpc_reply(e, status, body);
    field_add(e, S(":status"), S("200"));
    field_add(e, S("content-type"), S("application/grpc"));
    field_add(e, S("grpc-accept-encoding"), S("identity,deflate,gzip"));
    if (zipped)
        field_add(e, S("grpc-encoding"), S("gzip"));
    bool all = body && !e->head.n; /* no message: the end of the call is in its beginning */
    for (size_t i = 0; all && i < e->trailers_n; i++)
        field_add(e, e->trailers[i].name, e->trailers[i].value);
}

static void h2_reply(struct req_out *e, int status, const char *content_type, const struct str *body)
{
    struct arena *a = e->req.a;
    e->fields = NEW_N(a, nghttp2_nv, FIELDS + e->extra.n);
    e->fields_n = 0;
    if (e->grpc)
        call_fields(e, status, body);
    else
        rest_fields(e, status, str_of(content_type), body);
    field_add(e, S("x-request-id"), e->req.id)->flags |= NGHTTP2_NV_FLAG_NO_INDEX;
    for (size_t i = 0; i < e->extra.n; i++)
        field_add(e, lower_name(a, e->extra.v[i].name), header_value(a, e->extra.v[i].value));
}

/* ---- what goes out: the loop's thread ---- */

static bool leg_trailers(struct leg *leg)
{
    const struct req_out *e = leg->r->out;
    nghttp2_nv v[2];
    for (size_t i = 0; i < e->trailers_n; i++)
        v[i] = (nghttp2_nv){ (uint8_t *)e->trailers[i].name.p, (uint8_t *)e->trailers[i].value.p,
                             e->trailers[i].name.n, e->trailers[i].value.n, 0 };
    return e->trailers_n && nghttp2_submit_trailer(leg->h->session, leg->id, v, e->trailers_n) == 0;
}

/* How much of the reply may go now: the bytes themselves are put by on_send. */
static ssize_t on_more(nghttp2_session *session, int32_t id, uint8_t *buf, size_t max, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    (void)session, (void)id, (void)buf, (void)arg;
    struct leg *leg = source->ptr;
    struct req_out *e = leg->r->out;
    size_t left = e->head.n + e->body.n - leg->sent;
    size_t n = left < max ? left : max;
    bool end = n == left, cut = false;
    if (e->streams)
        n = stream_peek(e->stream, max, &end, &cut).n;
    if (cut)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (!n && !end) {
        e->due = 0;
        leg->progress = 0;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (end)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (end && leg_trailers(leg))
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    return (ssize_t)n;
}

static void out_put(struct codec *h, struct str bytes)
{
    if (bytes.n)
        memcpy(h->out + h->out_n, bytes.p, bytes.n);
    h->out_n += bytes.n;
}

static int on_send(nghttp2_session *session, nghttp2_frame *f, const uint8_t *head, size_t n,
                   nghttp2_data_source *source, void *arg)
{
    (void)session, (void)f;
    struct codec *h = arg;
    struct leg *leg = source->ptr;
    struct req_out *e = leg->r->out;
    if (h->out_max - h->out_n < 9 + n + H2_PULL_MIN)
        return NGHTTP2_ERR_WOULDBLOCK;
    out_put(h, (struct str){ (const char *)head, 9 });
    if (e->streams) {
        bool end, cut;
        out_put(h, stream_peek(e->stream, n, &end, &cut));
        stream_taken(e->stream, n);
        if (e->call)
            call_pump(e->call);
    } else {
        struct str first = str_sub(e->head, leg->sent, leg->sent + n);
        out_put(h, first);
        size_t at = leg->sent + first.n - e->head.n;
        out_put(h, str_sub(e->body, at, at + n - first.n));
        leg->sent += n;
    }
    leg->progress += n;
    if (leg->progress < PROGRESS_BYTES)
        return 0;
    leg->progress = 0;
    e->due = conn_now(e->conn) + h->limits->write_ms_max;
    return 0;
}

/* A reply that went out before its request was whole: the rest of that is not wanted. */
static int on_sent(nghttp2_session *session, const nghttp2_frame *f, void *arg)
{
    (void)arg;
    int32_t id = f->hd.stream_id;
    bool last = (f->hd.type == NGHTTP2_DATA || f->hd.type == NGHTTP2_HEADERS) &&
                f->hd.flags & NGHTTP2_FLAG_END_STREAM;
    if (last && nghttp2_session_get_stream_remote_close(session, id) == 0)
        nghttp2_submit_rst_stream(session, 0, id, NGHTTP2_NO_ERROR);
    return 0;
}

/* The handler is still at it: what it will say is not waited for. */
static void leg_late(struct leg *leg)
{
#define FIELD(n, v)                                               \
    {                                                             \
        (uint8_t *)n, (uint8_t *)v, sizeof n - 1, sizeof v - 1, 0 \
    }
    static const nghttp2_nv late[] = {
        FIELD(":status", "200"),
        FIELD("content-type", "application/grpc"),
        FIELD("grpc-status", "4"),
        FIELD("grpc-message", "the deadline passed"),
    };
#undef FIELD
    struct codec *h = leg->h;
    nghttp2_submit_response(h->session, leg->id, late, sizeof late / sizeof *late, NULL);
    h->bodies -= leg->in == BODY_COMES && !leg->in_parts ? leg->body.n : 0;
    nghttp2_session_set_stream_user_data(h->session, leg->id, NULL);
    h->host->gone(h->arg, leg->r);
}

static void h2_cut(struct req_out *e, bool late)
{
    struct leg *leg = e->leg;
    if (late && !leg->submitted) {
        leg_late(leg);
        return;
    }
    leg->closing = true;
    e->due = 0;
    nghttp2_submit_rst_stream(leg->h->session, 0, leg->id, NGHTTP2_CANCEL);
}

static void h2_ready(struct req_out *e)
{
    struct leg *leg = e->leg;
    struct codec *h = leg->h;
    if (leg->closing)
        return;
    bool end, cut = false;
    if (e->streams)
        (void)stream_peek(e->stream, 0, &end, &cut);
    if (cut) {
        h2_cut(e, false);
        return;
    }
    if (!e->due)
        e->due = conn_now(e->conn) + h->limits->write_ms_max;
    if (leg->submitted) {
        nghttp2_session_resume_data(h->session, leg->id);
        return;
    }
    leg->submitted = true;
    nghttp2_data_provider out = { .source.ptr = leg, .read_callback = on_more };
    bool more = e->streams || e->head.n + e->body.n;
    if (nghttp2_submit_response(h->session, leg->id, e->fields, e->fields_n, more ? &out : NULL))
        nghttp2_submit_rst_stream(h->session, 0, leg->id, NGHTTP2_INTERNAL_ERROR);
}

size_t h2_pull(struct codec *h, char *out, size_t n)
{
    h->out = out;
    h->out_n = 0;
    h->out_max = n;
    const uint8_t *p;
    for (ssize_t got = 1; got > 0 && n - h->out_n >= H2_PULL_MIN;) {
        got = nghttp2_session_mem_send(h->session, &p); /* what on_send put is not told of */
        h->ended |= got < 0;
        if (got > 0)
            out_put(h, (struct str){ (const char *)p, (size_t)got });
    }
    return h->out_n;
}

/* ---- on a connection ---- */

/* The bytes are the loop's, so none may wait in them: those for TLS are few enough to be enciphered at once. */
static void h2_send(struct conn *c, size_t n)
{
    uv_buf_t b = uv_buf_init(c->loop->out, (unsigned)n);
    if (c->tls)
        (void)conn_send(c, &b, 1);
    else
        (void)conn_send_copy(c, (struct str){ b.base, n });
}

static void h2_write(struct round_task *t)
{
    struct conn *c = (struct conn *)((char *)t - offsetof(struct conn, flush));
    struct codec *h = c->state;
    c->flush_waits = false;
    while (!c->closed && !c->writing && !c->lingering) {
        size_t n = h2_pull(h, c->loop->out, c->tls ? SEAL_BYTES : OUT_SIZE);
        if (!n)
            break;
        h2_send(c, n);
    }
    bool over = h->ended ||
                (!nghttp2_session_want_read(h->session) && !nghttp2_session_want_write(h->session));
    if (over && !c->closed && !c->writing && !c->lingering)
        conn_linger(c);
    conn_settle(c);
}

/* All that a round brings goes out at its end, in one write. */
static void h2_flush(struct conn *c)
{
    if (c->flush_waits || c->writing || c->lingering)
        return;
    c->flush_waits = true;
    c->flush.run = h2_write;
    loop_round_end(c->loop, &c->flush);
}

static void h2_sent(struct conn *c)
{
    (void)c; /* the rest is pulled by the next flush */
}

static void h2_tick(struct codec *h)
{
    h->noise /= 2;
}

static void h2_stop(struct codec *h)
{
    nghttp2_submit_goaway(h->session, 0, nghttp2_session_get_last_proc_stream_id(h->session), 0, NULL, 0);
}

static size_t h2_feed(struct codec *h, struct str in)
{
    if (h->ended)
        return in.n;
    ssize_t got = nghttp2_session_mem_recv(h->session, (const uint8_t *)in.p, in.n);
    h->ended |= got < 0;
    return in.n;
}

/* ---- life ---- */

static nghttp2_session *session_new(struct codec *h)
{
    nghttp2_session_callbacks *on;
    nghttp2_option *o;
    nghttp2_session *session;
    if (nghttp2_session_callbacks_new(&on) || nghttp2_option_new(&o))
        abort(); /* as arenas do */
    nghttp2_session_callbacks_set_on_begin_frame_callback(on, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(on, on_begin);
    nghttp2_session_callbacks_set_on_header_callback(on, on_field);
    nghttp2_session_callbacks_set_on_invalid_header_callback(on, on_bad_field);
    nghttp2_session_callbacks_set_on_frame_recv_callback(on, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(on, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(on, on_closed);
    nghttp2_session_callbacks_set_on_frame_send_callback(on, on_sent);
    nghttp2_session_callbacks_set_send_data_callback(on, on_send);
    nghttp2_option_set_no_auto_window_update(o, 1);
    if (nghttp2_session_server_new2(&session, on, h, o))
        abort();
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(on);
    return session;
}

static struct codec *h2_open(const struct net_limits *limits, const struct codec_host *host, void *arg)
{
    struct codec *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    *h = (struct codec){ .limits = limits, .host = host, .arg = arg, .last = -1 };
    h->session = session_new(h);
    const nghttp2_settings_entry mine[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, LEGS_MAX },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, LEG_WINDOW },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, (uint32_t)limits->header_bytes_max },
    };
    nghttp2_submit_settings(h->session, 0, mine, sizeof mine / sizeof *mine);
    nghttp2_session_set_local_window_size(h->session, 0, 0, CONN_WINDOW);
    return h;
}

static void h2_close(struct codec *h)
{
    if (!h)
        return;
    nghttp2_session_del(h->session);
    free(h);
}

const struct net_codec codec_h2 = {
    .name = "h2",
    .many = true,
    .open = h2_open,
    .feed = h2_feed,
    .reply = h2_reply,
    .flush = h2_flush,
    .sent = h2_sent,
    .ready = h2_ready,
    .room = h2_room,
    .cut = h2_cut,
    .stop = h2_stop,
    .tick = h2_tick,
    .close = h2_close,
};
