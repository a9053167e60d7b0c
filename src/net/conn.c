// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    LENT_MIN = 4 << 10, /* bytes that are worth reading to their place */
    LARGE_BYTES = 32 << 10,
    LENT_MAX = 1 << 20,
    FIRST_SIZE =
        2 << 10, /* of a read where the last body was one: the head, and little that is copied to its place */
    PROGRESS_BYTES = 16 << 10, /* that a slow reader takes in write_ms_max, at least */
    LINGER_MS = 2000,
    LINGER_BYTES = 4 << 20,
    REFUSED_MAX = 64, /* connections over connections_max that are told so */
};

/* ---- what the codec reads ---- */

static struct req *host_begin(void *arg)
{
    struct conn *c = arg;
    struct req_out *e = exchange_new(c);
    e->at = c->line_end;
    *c->line_end = e;
    c->line_end = &e->next;
    c->line_n++;
    c->idle_due = 0;
    loop_asked(c->loop, c);
    e->due = conn_now(c) + c->loop->net->limits.header_ms_max;
    if (!c->codec->many)
        c->cur = e;
    return &e->req;
}

/* The exchange takes a refusal; nothing more is read of it, nor of what stands in line after it. */
static struct req_out *conn_refuses(struct conn *c, struct req_out *e)
{
    e->due = 0;
    e->close = true;
    if (!c->codec->many) {
        c->ended = c->refused = true;
        c->cur = NULL;
    }
    return e;
}

static void host_bad(void *arg, struct req *r, int status, const char *why)
{
    struct conn *c = arg;
    if (!r)
        r = host_begin(c);
    struct req_out *e = conn_refuses(c, r->out);
    if (status == 413) {
        exchange_refuse(e, err_new(TOO_LARGE, "%s", why));
    } else if (status == 503) {
        req_reply_header(r, "Retry-After", S("1"));
        exchange_refuse(e, err_hint(err_new(UNAVAILABLE, "%s", why), "try again in a second"));
    } else {
        exchange_refuse_status(e, status, why);
    }
}

static bool id_is_sane(struct str id)
{
    if (!id.n || id.n > 63)
        return false;
    for (size_t i = 0; i < id.n; i++) {
        char c = id.p[i];
        if (!((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') || c == '-' || c == '_' ||
              c == '.'))
            return false;
    }
    return true;
}

/* Cuts scheme and host off "http://host/path", which stand instead of the header then. */
static struct str target_host(struct str *target, struct str host)
{
    size_t skip = str_starts(*target, S("http://")) ? 7 : str_starts(*target, S("https://")) ? 8 : 0;
    if (!skip)
        return host;
    struct str rest = str_sub(*target, skip, target->n);
    size_t end = str_find(rest, '/');
    *target = end < rest.n ? str_sub(rest, end, rest.n) : S("/");
    return str_sub(rest, 0, end);
}

/* Against DNS rebinding and requests that other sites' pages send. */
static err host_check(const struct conn *c, const struct req_out *e, struct str host)
{
    struct str origin = req_header(&e->req, S("origin"));
    if (!c->loop->net->config.allow_public && host.n && !host_is_loopback(host))
        return err_hint(err_new(FORBIDDEN, "Host '%.*s' is not this machine", STR(host)),
                        "use localhost or 127.0.0.1 in the address, or let the server listen publicly");
    if (origin.n && e->method != M_GET && e->method != M_HEAD && e->method != M_OPTIONS &&
        !origin_is_host(origin, host))
        FAIL(FORBIDDEN, "a page of '%.*s' may not do this here", STR(origin));
    return NULL;
}

/* Fills path, query and route. NULL, or what is wrong with the target. */
static const char *conn_route(struct conn *c, struct req_out *e, struct str target)
{
    struct req *r = &e->req;
    size_t query = str_find(target, '?');
    r->query = str_sub(target, query + 1, target.n);
    if (e->method == M_OPTIONS && str_is(target, "*")) {
        r->path = target;
        e->allow = (1u << M_COUNT) - 1;
        return NULL;
    }
    struct path path;
    const char *wrong = path_parse(r->a, str_sub(target, 0, query), &path);
    if (wrong)
        return wrong;
    r->path = path.whole;
    r->route = routes_find(c->loop->net->routes, r, e->method, &path, &e->allow);
    return NULL;
}

static bool refuse_status(struct conn *c, struct req_out *e, int status, const char *why)
{
    exchange_refuse_status(conn_refuses(c, e), status, why);
    return false;
}

static bool host_head(void *arg, struct req *r, struct head_info *info)
{
    struct conn *c = arg;
    struct req_out *e = r->out;
    const struct net *net = c->loop->net;
    e->http10 = info->http10;
    e->method = method_find(r->method);
    e->wants_continue = info->expects_continue;
    e->due = conn_now(c) + net->limits.body_ms_max;
    struct str id = req_header(r, S("x-request-id")), expect = req_header(r, S("expect"));
    if (id_is_sane(id))
        r->id = id;
    if (e->method == M_COUNT)
        return refuse_status(c, e, 501, "this method is not known here");
    if (expect.n && !str_eq_ascii(expect, S("100-continue")))
        return refuse_status(c, e, 417, "only 100-continue may be expected");
    struct str target = r->target;
    struct str host = target_host(&target, req_header(r, S("host")));
    if (!host_is_sane(host) && !(info->http10 && !host.n))
        return refuse_status(c, e, 400, "the Host header is not a host");
    const char *wrong = conn_route(c, e, target);
    if (wrong)
        return refuse_status(c, e, 400, wrong);
    size_t max = r->route && r->route->body_bytes_max ? r->route->body_bytes_max : ROUTE_BODY_BYTES;
    info->body_bytes_max = max < net->limits.body_bytes_max ? max : net->limits.body_bytes_max;
    info->body_lead = r->route && r->route->lead ? r->route->lead(r) : 0;
    err refused = host_check(c, e, host);
    if (!refused)
        refused = grpc_head(e, info);
    if (refused) {
        exchange_refuse(conn_refuses(c, e), refused);
        return false;
    }
    e->inline_ = !r->route || r->route->on_loop;
    info->method = e->method;
    info->on_loop = e->inline_;
    return true;
}

static void host_again(void *arg, struct req *r, struct head *head)
{
    struct conn *c = arg;
    struct req_out *e = r->out;
    head->refs++;
    e->kept = head; /* from here on exchange_unref() counts */
    e->method = head->info.method;
    e->inline_ = head->info.on_loop;
    e->due = conn_now(c) + c->loop->net->limits.body_ms_max;
}

static bool host_part(void *arg, struct req *r, struct str bytes)
{
    (void)arg;
    return call_part(r->out->call, bytes);
}

static bool host_whole(void *arg, struct req *r, bool keep_alive)
{
    struct conn *c = arg;
    struct req_out *e = r->out;
    e->due = 0;
    if (e->call) {
        call_half_closed(e->call);
        return true;
    }
    err wrong = e->grpc ? grpc_unframe(e) : NULL;
    if (wrong) {
        exchange_refuse(e, wrong);
        return true;
    }
    c->cur = NULL;
    c->large = r->body.n > LARGE_BYTES;
    if (!c->codec->many) {
        e->close = !keep_alive;
        c->ended = !keep_alive;
    }
    exchange_start(e);
    return keep_alive && c->line_n < c->loop->net->limits.pipeline_max;
}

static void host_gone(void *arg, struct req *r)
{
    conn_drop(arg, r->out);
}

static const struct codec_host host = {
    .begin = host_begin,
    .head = host_head,
    .again = host_again,
    .part = host_part,
    .whole = host_whole,
    .bad = host_bad,
    .gone = host_gone,
};

/* ---- writing ---- */

void conn_linger(struct conn *c)
{
    uv_os_fd_t fd;
    if (c->tls)
        tls_goodbye(c);
    if (c->closed)
        return;
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        shutdown(fd, SHUT_WR);
    c->ended = c->refused = c->lingering = true;
    c->idle_due = conn_now(c) + LINGER_MS;
}

static void line_cut(struct conn *c, struct req_out *e)
{
    *e->at = e->next;
    if (e->next)
        e->next->at = e->at;
    else
        c->line_end = e->at;
    c->line_n--;
}

struct req_out *line_pop(struct conn *c)
{
    struct req_out *e = c->line;
    line_cut(c, e);
    return e;
}

void conn_drop(struct conn *c, struct req_out *e)
{
    line_cut(c, e);
    atomic_store_explicit(&e->gone, true, memory_order_relaxed);
    e->conn = NULL;
    if (e->grpc)
        grpc_gone(e);
    if (e->streams)
        stream_gone(e->stream);
    exchange_unref(e);
}

static void on_written(uv_write_t *w, int status)
{
    struct conn *c = w->data;
    c->writing = false;
    c->write_due = 0;
    free(c->held);
    c->held = NULL;
    if (c->closed)
        return;
    if (status < 0) {
        conn_close(c);
        return;
    }
    if (c->tls && tls_sends(c) && !tls_send(c, NULL, 0))
        return;
    if (c->codec && !c->lingering)
        c->codec->sent(c);
    conn_go_on(c);
}

static bool socket_send(struct conn *c, uv_buf_t *v, unsigned n)
{
    size_t all = 0;
    for (unsigned i = 0; i < n; i++)
        all += v[i].len;
    int sent = uv_try_write((uv_stream_t *)&c->tcp, v, n);
    if (sent < 0 && sent != UV_EAGAIN) {
        conn_close(c);
        return false;
    }
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (done == all)
        return true;
    c->unsent = all - done;
    for (; done >= v->len; v++, n--)
        done -= v->len;
    v->base += done;
    v->len -= done;
    c->write.data = c;
    if (uv_write(&c->write, (uv_stream_t *)&c->tcp, v, n, on_written)) {
        conn_close(c);
        return false;
    }
    c->writing = true;
    c->write_due = conn_now(c) + c->loop->net->limits.write_ms_max;
    return false;
}

bool conn_send_copy(struct conn *c, struct str bytes)
{
    uv_buf_t b = uv_buf_init((char *)bytes.p, (unsigned)bytes.n);
    int sent = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
    if (sent == (int)bytes.n)
        return true;
    size_t done = sent < 0 ? 0 : (size_t)sent;
    if (sent >= 0 || sent == UV_EAGAIN)
        c->held = malloc(bytes.n - done);
    if (!c->held) {
        conn_close(c);
        return false;
    }
    memcpy(c->held, bytes.p + done, bytes.n - done);
    b = uv_buf_init(c->held, (unsigned)(bytes.n - done));
    if (!socket_send(c, &b, 1))
        return false;
    free(c->held);
    c->held = NULL;
    return true;
}

bool conn_send(struct conn *c, uv_buf_t *v, unsigned n)
{
    return c->tls ? tls_send(c, v, n) : socket_send(c, v, n);
}

void conn_flush(struct conn *c)
{
    if (c->codec && !c->closed)
        c->codec->flush(c);
}

/* ---- reading ---- */

static void on_room(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct conn *c = (struct conn *)h;
    *out = uv_buf_init(c->loop->in, IN_SIZE);
    if (c->tls || c->ended || !c->codec || !c->codec->lend || c->rest.n)
        return;
    struct str lent = c->codec->lend(c->state);
    if (c->large && !c->cur)
        out->len = FIRST_SIZE;
    if (lent.n >= LENT_MIN)
        *out = uv_buf_init((char *)(uintptr_t)lent.p, lent.n < LENT_MAX ? (unsigned)lent.n : LENT_MAX);
}

bool conn_takes(const struct conn *c)
{
    if (c->closed || c->ended)
        return false;
    if (c->codec && c->codec->many)
        return !c->writing; /* who does not read what it is told is not listened to */
    return c->line_n < c->loop->net->limits.pipeline_max;
}

static void conn_speak(struct conn *c, const struct net_codec *codec)
{
    c->codec = codec;
    c->state = codec->open(&c->loop->net->limits, &host, c);
}

/* A first line without a word of HTTP, be it 1 or 2: whoever says that would not read a reply either. */
static bool is_no_http(struct str in)
{
    const char *end = memmem(in.p, in.n, "\r\n", 2);
    return end && end > in.p && !memmem(in.p, (size_t)(end - in.p), "/", 1);
}

/* The protocol, by the first bytes: HTTP/2 begins with "PRI * HTTP/2.0", as no request of HTTP/1.1 does. False: they
 * are too few to tell. */
static bool conn_choose(struct conn *c, struct str in)
{
    static const char preface[] = "PRI";
    char begin[3];
    size_t n = c->first_n;
    memcpy(begin, c->first, n);
    for (size_t i = 0; n < 3 && i < in.n; i++)
        begin[n++] = in.p[i];
    bool like = memcmp(begin, preface, n) == 0;
    if (like && n < 3) {
        memcpy(c->first, begin, n);
        c->first_n = (uint8_t)n;
        c->idle_due = conn_now(c) + c->loop->net->limits.header_ms_max;
        return false;
    }
    if (is_no_http(in))
        conn_close(c);
    else
        conn_speak(c, like ? &codec_h2 : &codec_h1);
    return true;
}

static size_t conn_take(struct conn *c, struct str in)
{
    size_t at = 0;
    if (!c->codec && in.n) {
        if (!conn_choose(c, in))
            return in.n;
        if (c->first_n && !c->closed)
            c->codec->feed(c->state, (struct str){ c->first, c->first_n });
    }
    while (at < in.n && conn_takes(c)) {
        at += c->codec->feed(c->state, str_sub(in, at, in.n));
        conn_flush(c);
    }
    return at;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b);

void conn_settle(struct conn *c)
{
    if (c->closed)
        return;
    bool idle = !c->line && !c->stream && !c->writing && !c->flush_waits;
    bool over = c->eof || (c->ended && !c->refused) || c->loop->stopping;
    if (idle && over && !c->lingering) {
        conn_close(c);
        return;
    }
    if (idle && !c->idle_due)
        c->idle_due = conn_now(c) + c->loop->net->limits.idle_ms_max;
    bool want = !c->eof && (c->lingering || (!c->rest.n && (c->ended || conn_takes(c))));
    if (want == c->reading)
        return;
    c->reading = want;
    if (!want)
        uv_read_stop((uv_stream_t *)&c->tcp);
    else if (uv_read_start((uv_stream_t *)&c->tcp, on_room, on_read))
        conn_close(c);
}

static void rest_keep(struct conn *c, struct str left)
{
    char *p = left.n ? malloc(left.n) : NULL;
    if (p)
        memcpy(p, left.p, left.n);
    free(c->rest.p);
    c->rest.p = p;
    c->rest.n = p ? left.n : 0;
    if (left.n && !p)
        conn_close(c);
}

void conn_go_on(struct conn *c)
{
    conn_flush(c);
    if (c->rest.n && conn_takes(c)) {
        struct str rest = { c->rest.p, c->rest.n };
        size_t taken = conn_take(c, rest);
        rest_keep(c, c->ended ? S("") : str_sub(rest, taken, rest.n));
    }
    if (c->tls && conn_takes(c) && !c->rest.n)
        tls_take(c, S(""));
    conn_settle(c);
}

void conn_give(struct conn *c, struct str in)
{
    size_t taken = conn_take(c, in);
    if (taken < in.n && !c->closed && !c->ended)
        rest_keep(c, str_sub(in, taken, in.n));
}

/* The client sends no more; it may still read its replies, but a stream nobody would end. */
void conn_eof(struct conn *c)
{
    c->eof = c->ended = true;
    if (c->stream || c->lingering || (c->codec && c->codec->many)) {
        conn_close(c);
        return;
    }
    if (c->cur)
        conn_drop(c, c->cur); /* it will never be whole */
    c->cur = NULL;
    conn_settle(c);
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
    struct conn *c = (struct conn *)s;
    if (c->closed || n == 0)
        return;
    if (n == UV_EOF) {
        conn_eof(c);
        return;
    }
    if (n < 0) {
        conn_close(c);
        return;
    }
    if (c->ended) {
        c->lingered += (size_t)n;
        if (c->lingered > LINGER_BYTES)
            conn_close(c);
        return;
    }
    struct str in = { b->base, (size_t)n };
    if (c->tls)
        tls_take(c, in);
    else
        conn_give(c, in);
    conn_settle(c);
}

/* ---- time ---- */

static bool conn_write_late(struct conn *c, int64_t now)
{
    size_t unsent = uv_stream_get_write_queue_size((uv_stream_t *)&c->tcp);
    if (unsent + PROGRESS_BYTES <= c->unsent) {
        c->unsent = unsent;
        c->write_due = now + c->loop->net->limits.write_ms_max;
    }
    return now >= c->write_due;
}

void conn_tick(struct conn *c, int64_t now)
{
    if (c->closed)
        return;
    if (c->writing && conn_write_late(c, now)) {
        conn_close(c);
        return;
    }
    if (c->idle_due && now >= c->idle_due) {
        conn_close(c);
        return;
    }
    if (c->codec && c->codec->tick)
        c->codec->tick(c->state);
    bool late = false;
    for (struct req_out *e = c->line, *next; e; e = next) {
        next = e->next;
        if (!e->due || now < e->due)
            continue;
        late = true;
        if (e->state == READING)
            host_bad(c, &e->req, 408, "the request did not come in time");
        else
            c->codec->cut(e, false);
    }
    if (late)
        conn_go_on(c);
}

void conn_stop(struct conn *c)
{
    if (c->closed)
        return;
    if (c->lingering) {
        conn_close(c);
        return;
    }
    if (c->stream)
        stream_finish(c->stream);
    if (c->codec && c->codec->stop)
        c->codec->stop(c->state);
    for (struct req_out *e = c->line, *next; e; e = next) {
        next = e->next;
        if (e->call)
            call_stop(e->call);
        else if (e->streams && e->codec->many)
            stream_join(e->stream, e);
    }
    conn_go_on(c);
}

/* ---- birth and death ---- */

static void on_closed(uv_handle_t *h)
{
    struct conn *c = (struct conn *)h;
    struct loop *l = c->loop;
    if (c->prev)
        c->prev->next = c->next;
    else
        l->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    l->conns_n--;
    if (l->asked == c)
        l->asked = NULL;
    atomic_fetch_sub_explicit(&l->open, 1, memory_order_relaxed);
    if (c->codec)
        c->codec->close(c->state);
    tls_conn_free(c->tls);
    free(c->rest.p);
    free(c->held);
    free(c);
    loop_check_drained(l);
}

void conn_close(struct conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    if (c->tls)
        tls_goodbye(c);
    while (c->line)
        conn_drop(c, c->line);
    if (c->stream)
        stream_gone(c->stream);
    c->stream = NULL;
    uv_close((uv_handle_t *)&c->tcp, on_closed);
}

static void conn_name_peer(struct conn *c)
{
    struct sockaddr_storage at;
    int n = sizeof at;
    if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&at, &n))
        return;
    if (at.ss_family == AF_INET6)
        uv_ip6_name((struct sockaddr_in6 *)&at, c->peer, sizeof c->peer);
    else
        uv_ip4_name((struct sockaddr_in *)&at, c->peer, sizeof c->peer);
}

/* Over the limit: says so, and waits a moment for the client to hang up. */
static void conn_turn_away(struct conn *c)
{
    static char text[] = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
                         "Connection: close\r\n\r\n";
    uv_buf_t b = uv_buf_init(text, sizeof text - 1);
    c->ended = true;
    if (c->tls || uv_try_write((uv_stream_t *)&c->tcp, &b, 1) < 0 ||
        c->loop->conns_n > c->loop->net->limits.connections_max + REFUSED_MAX)
        conn_close(c);
    else
        conn_linger(c);
}

static struct conn *conn_new(struct loop *l)
{
    struct conn *c = calloc(1, sizeof *c);
    if (!c)
        abort(); /* as arenas do */
    c->loop = l;
    c->line_end = &c->line;
    uv_tcp_init(&l->uv, &c->tcp);
    c->next = l->conns;
    if (c->next)
        c->next->prev = c;
    l->conns = c;
    l->conns_n++;
    atomic_fetch_add_explicit(&l->open, 1, memory_order_relaxed);
    return c;
}

void conn_accept(struct loop *l)
{
    struct conn *c = conn_new(l);
    if (uv_accept((uv_stream_t *)&l->listener, (uv_stream_t *)&c->tcp)) {
        conn_close(c);
        return;
    }
    uv_tcp_nodelay(&c->tcp, 1);
    conn_name_peer(c);
    if (l->net->tls) {
        c->tls = tls_conn_new(l->net->tls);
        c->idle_due = conn_now(c) + l->net->limits.header_ms_max; /* of its handshake */
    }
    if (l->conns_n > l->net->limits.connections_max)
        conn_turn_away(c);
    conn_settle(c);
}
