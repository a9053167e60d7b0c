// SPDX-License-Identifier: Apache-2.0
/* grpc: messages in the bodies of HTTP/2, errors in trailers, calls whose messages come one after another. */
#include "net/internal.h"

#include <stdlib.h>
#include <zlib.h>

enum {
    ZIP_MIN = 1024,          /* smaller replies are not worth it */
    WAITING_MAX = 256 << 10, /* bytes of messages that wait for the handler; then the client waits */
};

/* ---- how a call ends ---- */

static const int statuses[ERR_COUNT] = {
    [INVALID] = 3,   [UNAUTHORIZED] = 16, [FORBIDDEN] = 7,    [NOT_FOUND] = 5, [METHOD] = 12, [CONFLICT] = 10,
    [TOO_LARGE] = 8, [MEDIA] = 3,         [GATE] = 9,         [LIMIT] = 8,     [BUSY] = 14,   [CANCELLED] = 1,
    [INTERNAL] = 13, [UNSUPPORTED] = 12,  [UNAVAILABLE] = 14, [TIMEOUT] = 4,   [FULL] = 8,
};

/* By the status that HTTP would have; those that are no error of ours are of a request that is none. */
static int status_of(int http)
{
    for (enum err_code c = ERR_NONE + 1; c < ERR_COUNT; c++)
        if (err_table[c].http == http)
            return statuses[c];
    return http == 200 ? 0 : http == 408 ? 4 : http >= 500 ? 13 : 3;
}

static struct str message_text(struct arena *a, struct str s)
{
    struct buf b = buf_new(a);
    s = str_trim(str_sub(s, 0, 1024));
    while (s.n && s.p[s.n - 1] == '\n')
        s.n--;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c > 0x7e || c == '%')
            buf_fmt(&b, "%%%02X", c);
        else
            buf_put(&b, s.p + i, 1);
    }
    return buf_get(&b);
}

static void trailers_set(struct req_out *e, int http, struct str text)
{
    e->trailers_n = 0;
    e->trailers[e->trailers_n++] = (struct header){ S("grpc-status"), fmt(e->req.a, "%d", status_of(http)) };
    if (http != 200)
        e->trailers[e->trailers_n++] = (struct header){ S("grpc-message"), message_text(e->req.a, text) };
}

/* ---- one message ---- */

static void message_head(char head[MESSAGE_HEAD], bool zipped, size_t n)
{
    head[0] = zipped;
    for (int i = 0; i < 4; i++)
        head[1 + i] = (char)(n >> (24 - 8 * i));
}

size_t grpc_length(const char head[MESSAGE_HEAD])
{
    const unsigned char *p = (const unsigned char *)head;
    return (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
}

static size_t message_max(const struct req_out *e)
{
    const struct net_limits *limits = &e->loop->net->limits;
    size_t max = e->req.route && e->req.route->body_bytes_max ? e->req.route->body_bytes_max
                                                              : ROUTE_BODY_BYTES;
    return max < limits->body_bytes_max ? max : limits->body_bytes_max;
}

/* The bytes of a zlib or gzip stream, at most max. */
static err inflate_all(struct req *r, struct str in, size_t max, struct str *out)
{
    z_stream z = { .next_in = (Bytef *)in.p, .avail_in = (uInt)in.n };
    if (inflateInit2(&z, 15 + 32) != Z_OK)
        FAIL(INTERNAL, "cannot start to inflate");
    struct body b = { 0 };
    int got = Z_OK;
    char part[16 << 10];
    bool fits = true, kept = true;
    while (got == Z_OK && kept) {
        z.next_out = (Bytef *)part;
        z.avail_out = sizeof part;
        got = inflate(&z, Z_NO_FLUSH);
        size_t n = sizeof part - z.avail_out;
        fits = n <= max - b.n;
        kept = fits && body_put(&b, r, 0, (struct str){ part, n });
    }
    inflateEnd(&z);
    if (!fits)
        FAIL(TOO_LARGE, "the message is over %zu bytes when inflated", max);
    if (!kept)
        FAIL(UNAVAILABLE, "no memory is left for requests now");
    if (got != Z_STREAM_END)
        FAIL(INVALID, "the message is not compressed as it says");
    *out = (struct str){ b.p, b.n };
    return NULL;
}

/* gzip, or empty where that would not be smaller. */
static struct str deflate_all(struct arena *a, struct str in)
{
    z_stream z = { .next_in = (Bytef *)in.p, .avail_in = (uInt)in.n };
    if (in.n > UINT32_MAX / 2 || deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK)
        return S("");
    char *p = arena_alloc(a, in.n, 1);
    z.next_out = (Bytef *)p;
    z.avail_out = (uInt)in.n;
    int got = deflate(&z, Z_FINISH);
    size_t n = in.n - z.avail_out;
    deflateEnd(&z);
    return got == Z_STREAM_END ? (struct str){ p, n } : S("");
}

err grpc_unzip(struct req_out *e)
{
    struct req *r = &e->req;
    if (!e->zipped)
        return NULL;
    struct str how = req_header(r, S("grpc-encoding"));
    if (!str_is(how, "gzip") && !str_is(how, "deflate"))
        FAIL(UNSUPPORTED, "grpc-encoding '%.*s' is not known here: gzip and deflate are", STR(how));
    return inflate_all(r, r->body, message_max(e), &r->body);
}

err grpc_unframe(struct req_out *e)
{
    struct str *body = &e->req.body;
    if (body->n < MESSAGE_HEAD || (body->p[0] & ~1) || grpc_length(body->p) != body->n - MESSAGE_HEAD)
        FAIL(INVALID, "the body is not one message");
    e->zipped = body->p[0];
    *body = str_sub(*body, MESSAGE_HEAD, body->n);
    return NULL;
}

static bool zips(const struct req_out *e)
{
    struct str takes = req_header(&e->req, S("grpc-accept-encoding"));
    return e->loop->net->config.grpc_gzip && takes.n && memmem(takes.p, takes.n, "gzip", 4);
}

/* What goes out for a message: its gzip, where the client takes that and it is smaller. */
static struct str zipped_of(struct req_out *e, struct str message, bool *zipped)
{
    struct str z = message.n > ZIP_MIN && zips(e) ? deflate_all(e->req.a, message) : S("");
    *zipped = z.n > 0;
    return *zipped ? z : message;
}

bool grpc_reply(struct req_out *e, int status, const struct str *body)
{
    e->head = e->body = S("");
    e->trailers_n = 0;
    if (!body) /* messages follow, each compressed or not; how they end is told later */
        return zips(e);
    trailers_set(e, status, *body);
    if (status != 200 || e->call)
        return false;
    bool zipped;
    e->body = zipped_of(e, *body, &zipped);
    char *head = arena_alloc(e->req.a, MESSAGE_HEAD, 1);
    message_head(head, zipped, e->body.n);
    e->head = (struct str){ head, MESSAGE_HEAD };
    return zipped;
}

/* ---- deadlines ---- */

/* "250m": at most 8 digits and a unit. */
static bool timeout_parse(struct str s, int64_t *ns)
{
    static const struct {
        char unit;
        int64_t ns;
    } units[] = { { 'H', 3600000000000 }, { 'M', 60000000000 }, { 'S', 1000000000 },
                  { 'm', 1000000 },       { 'u', 1000 },        { 'n', 1 } };
    int64_t v;
    if (s.n < 2 || s.n > 9 || !str_i64(str_sub(s, 0, s.n - 1), &v) || v < 0)
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].unit == s.p[s.n - 1])
            return !__builtin_mul_overflow(v, units[i].ns, ns);
    return false;
}

static void late_forget(struct req_out *e)
{
    if (!e->timed_at)
        return;
    *e->timed_at = e->timed_next;
    if (e->timed_next)
        e->timed_next->timed_at = e->timed_at;
    e->timed_at = NULL;
}

static void late_next(struct loop *l);

static void on_late(uv_timer_t *t)
{
    struct loop *l = t->data;
    int64_t now = mono_ns();
    for (struct req_out *e = l->timed, *next; e; e = next) {
        next = e->timed_next;
        if (e->req.deadline_ns > now)
            continue;
        struct conn *c = e->conn;
        late_forget(e);
        if (e->call)
            call_end(e->call, 504, S("the deadline passed"));
        else if (e->state != READY)
            e->codec->cut(e, true);
        conn_flush(c);
    }
    late_next(l);
    loop_round_run(l);
}

/* The timer goes off at the earliest deadline; one that was met leaves it to find that there is a later one. */
static void late_next(struct loop *l)
{
    int64_t first = INT64_MAX;
    for (const struct req_out *e = l->timed; e; e = e->timed_next)
        first = e->req.deadline_ns < first ? e->req.deadline_ns : first;
    l->late_ns = first;
    if (first == INT64_MAX)
        return;
    int64_t left = first - mono_ns();
    uv_timer_start(&l->late, on_late, left > 0 ? (uint64_t)left / 1000000 + 1 : 1, 0);
}

static void late_watch(struct req_out *e)
{
    struct loop *l = e->loop;
    e->timed_next = l->timed;
    e->timed_at = &l->timed;
    if (l->timed)
        l->timed->timed_at = &e->timed_next;
    l->timed = e;
    if (e->req.deadline_ns < l->late_ns)
        late_next(l);
}

/* ---- the head of a call ---- */

static bool is_grpc(struct str type)
{
    return str_starts(type, S("application/grpc")) &&
           (type.n == 16 || type.p[16] == '+' || type.p[16] == ';');
}

/* One more message of the call, or its end. */
static struct req_out *message_new(struct call *call)
{
    struct req_out *m = exchange_beside(call->e);
    m->call = call;
    atomic_fetch_add(&call->e->refs, 1);
    return m;
}

static void call_new(struct req_out *e)
{
    struct call *call = NEW(e->req.a, struct call);
    *call = (struct call){ .e = e };
    call->last = &call->first;
    e->call = call;
    e->state = HANDLING;
    e->due = 0;
    e->streams = true;
    e->stream = stream_new(e);
    e->codec->reply(e, 200, NULL, NULL);
    stream_call(e->stream, e);
}

err grpc_head(struct req_out *e, struct head_info *info)
{
    struct req *r = &e->req;
    e->grpc = e->codec->many && e->method == M_POST && is_grpc(req_header(r, S("content-type")));
    if (!e->grpc)
        return NULL;
    if (r->route && !r->route->grpc)
        r->route = NULL;
    int64_t ns;
    struct str timeout = req_header(r, S("grpc-timeout"));
    if (timeout.n && !timeout_parse(timeout, &ns))
        FAIL(INVALID, "grpc-timeout '%.*s' is not a time", STR(timeout));
    if (timeout.n && !__builtin_add_overflow(r->start_ns, ns, &r->deadline_ns))
        late_watch(e);
    info->framed = true;
    info->in_parts = r->route && r->route->grpc == GRPC_STREAM;
    info->body_bytes_max = message_max(e) + MESSAGE_HEAD;
    if (info->in_parts)
        call_new(e);
    return NULL;
}

/* ---- calls with many messages: each is a request of its own ---- */

static void message_done(struct req_out *m)
{
    struct req_out *e = m->call->e;
    exchange_unref(m);
    exchange_unref(e);
}

void call_pump(struct call *call)
{
    if (call->pumping)
        return;
    call->pumping = true;
    while (!call->busy && call->first && (call->ended || !stream_full(call->e->stream))) {
        struct req_out *m = call->first;
        call->first = m->next;
        if (!call->first)
            call->last = &call->first;
        call->waiting -= m->req.body.n;
        if (call->ended) {
            message_done(m);
            continue;
        }
        call->busy = true;
        exchange_start(m);
    }
    call->pumping = false;
    struct conn *c = call->e->conn;
    if (c && call->held && call->waiting <= WAITING_MAX) {
        call->held = false;
        call->e->codec->room(call->e);
        conn_flush(c);
    }
    if (c && call->e->loop->stopping && !call->busy)
        call_end(call, 503, S("the server stops"));
}

void call_end(struct call *call, int http, struct str text)
{
    struct req_out *e = call->e;
    if (call->ended || !e->conn)
        return;
    call->ended = true;
    if (http != 200)
        atomic_store_explicit(&e->gone, true, memory_order_relaxed);
    if (stream_unused(e->stream)) { /* no message went out: the end is all there is */
        e->streams = false;
        stream_gone(e->stream);
        e->codec->reply(e, http, NULL, &text);
    } else {
        trailers_set(e, http, text);
        stream_end(e->stream);
    }
    e->status = http;
    e->state = READY;
    e->codec->ready(e);
    conn_flush(e->conn);
}

void call_message_done(struct req_out *m)
{
    struct call *call = m->call;
    call->busy = false;
    if (m->status >= 300)
        call_end(call, m->status, m->failure);
    else if (m->req.last)
        call_end(call, 200, S(""));
    atomic_fetch_add(&call->e->refs, 1); /* message_done may drop the last */
    struct req_out *e = call->e;
    message_done(m);
    call_pump(call);
    exchange_unref(e);
}

static void call_queue(struct call *call, struct req_out *m)
{
    m->next = NULL;
    *call->last = m;
    call->last = &m->next;
    call->waiting += m->req.body.n;
}

static void part_whole(struct call *call)
{
    struct req_out *m = call->part;
    m->req.body = (struct str){ call->body.p, call->body.n };
    call->part = NULL;
    call->head_n = 0;
    call->e->due = 0;
    call_queue(call, m);
}

/* Takes the head of a message. False: the call is over. */
static bool part_begin(struct call *call)
{
    size_t n = grpc_length(call->head), max = message_max(call->e);
    if (call->head[0] & ~1 || n > max) {
        call_end(call, n > max ? 413 : 400,
                 n > max ? fmt(call->e->req.a, "a message is over %zu bytes", max)
                         : S("what came is not a message"));
        return false;
    }
    call->part = message_new(call);
    call->part->zipped = call->head[0];
    call->body = (struct body){ .lead = n };
    call->need = n;
    call->e->due = conn_now(call->e->conn) + call->e->loop->net->limits.body_ms_max;
    return true;
}

bool call_part(struct call *call, struct str in)
{
    while ((in.n || call->head_n == MESSAGE_HEAD) && !call->ended) {
        size_t n = MESSAGE_HEAD - call->head_n;
        if (n) {
            struct str head = str_sub(in, 0, n);
            memcpy(call->head + call->head_n, head.p, head.n);
            call->head_n += head.n;
            in = str_sub(in, n, in.n);
            if (call->head_n < MESSAGE_HEAD || !part_begin(call))
                break;
        }
        struct str part = str_sub(in, 0, call->need - call->body.n);
        if (!body_put(&call->body, &call->part->req, call->need, part))
            call_end(call, 503, S("no memory is left for requests now"));
        in = str_sub(in, part.n, in.n);
        if (call->body.n < call->need)
            break;
        part_whole(call);
    }
    call_pump(call);
    call->held |= call->waiting > WAITING_MAX;
    return !call->held;
}

void call_half_closed(struct call *call)
{
    if (call->head_n) {
        call_end(call, 400, S("the last message is cut short"));
        return;
    }
    struct req_out *m = message_new(call);
    m->req.last = true;
    call_queue(call, m);
    call_pump(call);
}

/* A call that nothing is done for ends; the others are told, and end when their handler is through. */
void call_stop(struct call *call)
{
    atomic_store_explicit(&call->e->gone, true, memory_order_relaxed);
    call_pump(call);
}

/* The client is gone, or the answer is: nothing that waits will be handled. */
static void call_drop(struct call *call)
{
    call->ended = true;
    if (call->part)
        message_done(call->part);
    call->part = NULL;
    call_pump(call);
}

void grpc_gone(struct req_out *e)
{
    late_forget(e);
    if (e->call)
        call_drop(e->call);
}

err req_send(struct req *r, struct str message)
{
    struct req_out *m = r->out;
    if (!m->call)
        FAIL(INTERNAL, "%.*s is not a streaming call", STR(r->path));
    if (message.n > UINT32_MAX)
        FAIL(TOO_LARGE, "a message is over 4 GiB");
    char head[MESSAGE_HEAD];
    bool zipped;
    message = zipped_of(m, message, &zipped);
    message_head(head, zipped, message.n);
    if (!stream_send_both(m->call->e->stream, (struct str){ head, MESSAGE_HEAD }, message))
        FAIL(CANCELLED, "the client is gone, or too slow");
    return NULL;
}
