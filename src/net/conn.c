// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

enum {
    WRITE_BUFS = 64,           /* of one write */
    PROGRESS_BYTES = 16 << 10, /* that a slow reader takes in write_ms_max, at least */
    LINGER_MS = 2000,
    LINGER_BYTES = 4 << 20,
    ROUTE_BODY_BYTES = 1 << 20,
    REFUSED_MAX = 64, /* connections over connections_max that are told so */
};

static int64_t conn_now(const struct conn *c)
{
    return (int64_t)uv_now(&c->loop->uv);
}

/* ---- what the codec reads ---- */

static struct req *host_begin(void *arg)
{
    struct conn *c = arg;
    c->cur = exchange_new(c);
    *c->line_end = c->cur;
    c->line_end = &c->cur->next;
    c->line_n++;
    c->read_due = conn_now(c) + c->loop->net->limits.header_ms_max;
    return &c->cur->req;
}

/* The exchange that takes a refusal; after it nothing more is read. */
static struct req_out *conn_refuses(struct conn *c)
{
    if (!c->cur)
        host_begin(c);
    struct req_out *e = c->cur;
    e->close = true;
    c->ended = c->refused = true;
    c->cur = NULL;
    c->read_due = 0;
    return e;
}

static void host_bad(void *arg, int status, const char *why)
{
    struct req_out *e = conn_refuses(arg);
    if (status == 413)
        exchange_refuse(e, err_new(TOO_LARGE, "%s", why));
    else
        exchange_refuse_status(e, status, why);
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

static bool refuse_status(struct conn *c, int status, const char *why)
{
    exchange_refuse_status(conn_refuses(c), status, why);
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
    c->read_due = conn_now(c) + net->limits.body_ms_max;
    struct str id = req_header(r, S("x-request-id")), expect = req_header(r, S("expect"));
    if (id_is_sane(id))
        r->id = id;
    if (e->method == M_COUNT)
        return refuse_status(c, 501, "this method is not known here");
    if (expect.n && !str_eq_ascii(expect, S("100-continue")))
        return refuse_status(c, 417, "only 100-continue may be expected");
    struct str target = r->target;
    struct str host = target_host(&target, req_header(r, S("host")));
    if (!host_is_sane(host) && !(info->http10 && !host.n))
        return refuse_status(c, 400, "the Host header is not a host");
    const char *wrong = conn_route(c, e, target);
    if (wrong)
        return refuse_status(c, 400, wrong);
    err refused = host_check(c, e, host);
    if (refused) {
        exchange_refuse(conn_refuses(c), refused);
        return false;
    }
    e->inline_ = !r->route || r->route->on_loop;
    size_t max = r->route && r->route->body_bytes_max ? r->route->body_bytes_max : ROUTE_BODY_BYTES;
    info->body_bytes_max = max < net->limits.body_bytes_max ? max : net->limits.body_bytes_max;
    return true;
}

static bool host_whole(void *arg, struct req *r, bool keep_alive)
{
    struct conn *c = arg;
    struct req_out *e = r->out;
    e->close = !keep_alive;
    c->ended = !keep_alive;
    c->cur = NULL;
    c->read_due = 0;
    exchange_start(e);
    return keep_alive && c->line_n < c->loop->net->limits.pipeline_max;
}

static const struct codec_host host = { host_begin, host_head, host_whole, host_bad };

/* ---- writing ---- */

static void conn_linger(struct conn *c)
{
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)&c->tcp, &fd) == 0)
        shutdown(fd, SHUT_WR);
    c->lingering = true;
    c->read_due = conn_now(c) + LINGER_MS;
}

static struct req_out *line_pop(struct conn *c)
{
    struct req_out *e = c->line;
    c->line = e->next;
    if (!c->line)
        c->line_end = &c->line;
    c->line_n--;
    return e;
}

/* The first n exchanges in line are on their way. */
static void conn_sent(struct conn *c, size_t n)
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

static void on_written(uv_write_t *w, int status)
{
    struct conn *c = w->data;
    c->writing = false;
    c->write_due = 0;
    if (c->closed)
        return;
    if (status < 0) {
        conn_close(c);
        return;
    }
    if (c->stream)
        stream_sent(c);
    else
        conn_sent(c, c->written_n);
    conn_go_on(c);
}

bool conn_send(struct conn *c, uv_buf_t *v, unsigned n)
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

/* The replies that are ready, in order, up to a stream, an end or the size of one write. */
static unsigned conn_gather(struct conn *c, uv_buf_t *v, size_t *exchanges)
{
    unsigned n = 0;
    *exchanges = 0;
    for (struct req_out *e = c->line; e && n + 2 <= WRITE_BUFS; e = e->next) {
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

void conn_flush(struct conn *c)
{
    while (!c->closed && !c->writing && !c->lingering) {
        if (c->stream) {
            stream_pump(c);
            if (c->stream)
                return;
            continue;
        }
        uv_buf_t v[WRITE_BUFS];
        unsigned n = conn_gather(c, v, &c->written_n);
        if (!n)
            return;
        if (conn_send(c, v, n))
            conn_sent(c, c->written_n);
    }
}

/* ---- reading ---- */

static void on_room(uv_handle_t *h, size_t suggested, uv_buf_t *out)
{
    (void)suggested;
    struct conn *c = (struct conn *)h;
    *out = uv_buf_init(c->loop->in, IN_SIZE);
}

static bool conn_takes(const struct conn *c)
{
    return !c->closed && !c->ended && c->line_n < c->loop->net->limits.pipeline_max;
}

static size_t conn_take(struct conn *c, struct str in)
{
    size_t at = 0;
    while (at < in.n && conn_takes(c)) {
        at += c->codec->feed(c->state, str_sub(in, at, in.n));
        conn_flush(c);
    }
    return at;
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b);

/* After anything happened: closes what is at its end, reads or holds back, and times what is idle. */
static void conn_settle(struct conn *c)
{
    if (c->closed)
        return;
    bool idle = !c->line && !c->stream && !c->writing;
    bool over = c->eof || (c->ended && !c->refused) || c->loop->stopping;
    if (idle && over && !c->lingering) {
        conn_close(c);
        return;
    }
    if (idle && !c->read_due)
        c->read_due = conn_now(c) + c->loop->net->limits.idle_ms_max;
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
    conn_settle(c);
}

/* The request that was being read will never be whole. */
static void line_drop_last(struct conn *c)
{
    struct req_out **at = &c->line;
    while ((*at)->next)
        at = &(*at)->next;
    assert(*at == c->cur);
    exchange_unref(*at);
    *at = NULL;
    c->line_end = at;
    c->line_n--;
    c->cur = NULL;
}

/* The client sends no more; it may still read its replies, but a stream nobody would end. */
static void conn_eof(struct conn *c)
{
    c->eof = c->ended = true;
    if (c->stream || c->lingering) {
        conn_close(c);
        return;
    }
    if (c->cur)
        line_drop_last(c);
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
    size_t taken = conn_take(c, in);
    if (taken < in.n && !c->closed && !c->ended)
        rest_keep(c, str_sub(in, taken, in.n));
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
    if (!c->read_due || now < c->read_due)
        return;
    if (!c->cur) {
        conn_close(c);
        return;
    }
    host_bad(c, 408, "the request did not come in time");
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
    atomic_fetch_sub_explicit(&l->open, 1, memory_order_relaxed);
    c->codec->close(c->state);
    free(c->rest.p);
    free(c);
    loop_check_drained(l);
}

void conn_close(struct conn *c)
{
    if (c->closed)
        return;
    c->closed = true;
    while (c->line) {
        struct req_out *e = line_pop(c);
        atomic_store_explicit(&e->gone, true, memory_order_relaxed);
        e->conn = NULL;
        if (e->streams)
            stream_gone(e->stream);
        exchange_unref(e);
    }
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
    if (uv_try_write((uv_stream_t *)&c->tcp, &b, 1) < 0 ||
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
    c->codec = &codec_h1;
    c->state = c->codec->open(&l->net->limits, &host, c);
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
    if (l->conns_n > l->net->limits.connections_max)
        conn_turn_away(c);
    conn_settle(c);
}
