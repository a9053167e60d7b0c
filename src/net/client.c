// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <llhttp.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

enum { HEADERS = 4, CLIENT_IN = 64 << 10, LINE_MAX_ = 4 << 20, ERROR_BODY = 64 << 10 };
static const size_t reply_bytes_max = (size_t)1 << 30;

struct http {
    struct arena *a;                /* what lives as long as this */
    const char *name, *port;        /* to connect to */
    struct str host, prefix, token; /* Host header; path before each target */
    struct header headers[HEADERS]; /* http_header() */
    int64_t timeout_ms;
    int64_t due_ns; /* of the exchange under way; 0: none */
    int fd;
    struct secure *secure; /* NULL: plain */
    llhttp_t parser;
    struct buf out; /* of the request's head */
    struct arena *out_a;
    char *in; /* CLIENT_IN bytes */

    /* the reply being read */
    struct arena *to;
    enum method method;
    int status;
    bool head_whole, whole, keep, in_type;
    size_t heads_n;
    char field[16]; /* the header's name, cut */
    size_t field_n;
    char type[128]; /* Content-Type */
    size_t type_n;
    char *body;
    size_t body_n, body_cap, body_max;
    bool too_large;
    /* http_stream: lines as they come */
    bool (*on_line)(void *, struct str);
    void *on_line_arg;
    bool enough;
};

/* ---- the reply, as llhttp reads it ---- */

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    for (size_t i = 0; i < n; i++, h->field_n++)
        if (h->field_n < sizeof h->field)
            h->field[h->field_n] = at[i];
    return 0;
}

static int on_field_end(llhttp_t *p)
{
    struct http *h = p->data;
    size_t n = h->field_n < sizeof h->field ? h->field_n : 0;
    h->in_type = !h->head_whole && str_eq_ascii((struct str){ h->field, n }, S("content-type"));
    h->field_n = 0;
    if (h->in_type)
        h->type_n = 0;
    return 0;
}

static int on_value(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    size_t room = sizeof h->type - h->type_n;
    if (h->in_type) {
        memcpy(h->type + h->type_n, at, n < room ? n : room);
        h->type_n += n < room ? n : room;
    }
    return 0;
}

static int on_head(llhttp_t *p)
{
    struct http *h = p->data;
    h->status = p->status_code;
    h->head_whole = h->status >= 200;
    p->upgrade = 0;
    return h->method == M_HEAD;
}

static bool body_room(struct http *h, llhttp_t *p, size_t n)
{
    size_t need = h->body_n + n;
    if (need <= h->body_cap)
        return true;
    size_t known = p->flags & F_CONTENT_LENGTH ? (size_t)p->content_length + n : 0;
    size_t cap = !h->body && known ? known : h->body_cap * 2;
    if (cap < need)
        cap = need < 4096 ? 4096 : need;
    size_t left = arena_left(h->to), spare = 4096; /* for the rest of the reply */
    if (need > h->body_max || left < spare || need > left - spare)
        return false;
    if (cap > left - spare)
        cap = need;
    h->body = arena_grow(h->to, h->body, h->body_cap, cap, 16);
    h->body_cap = cap;
    return true;
}

/* The whole lines of what is there go to on_line; the rest waits for its end. */
static void lines_out(struct http *h)
{
    struct str rest = { h->body, h->body_n };
    for (size_t end; !h->enough && (end = str_find(rest, '\n')) < rest.n;) {
        struct str line = str_sub(rest, 0, end);
        if (line.n && line.p[line.n - 1] == '\r')
            line.n--;
        h->enough = !h->on_line(h->on_line_arg, line);
        rest = str_sub(rest, end + 1, rest.n);
    }
    memmove(h->body, rest.p, rest.n);
    h->body_n = rest.n;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct http *h = p->data;
    if (h->enough)
        return 0;
    if (!body_room(h, p, n)) {
        h->too_large = true;
        return HPE_USER;
    }
    memcpy(h->body + h->body_n, at, n);
    h->body_n += n;
    if (h->on_line && h->status == 200)
        lines_out(h);
    return 0;
}

static int on_whole(llhttp_t *p)
{
    struct http *h = p->data;
    if (!h->head_whole)
        return ++h->heads_n > 16 ? HPE_USER : 0; /* 100 Continue and its like */
    h->whole = true;
    h->keep = llhttp_should_keep_alive(p);
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_header_field = on_field,
    .on_header_field_complete = on_field_end,
    .on_header_value = on_value,
    .on_headers_complete = on_head,
    .on_body = on_body,
    .on_message_complete = on_whole,
};

/* ---- the connection ---- */

static void disconnect(struct http *h)
{
    if (h->fd >= 0)
        close_fd(h->fd);
    h->fd = -1;
}

static err not_there(const struct http *h, const char *why)
{
    return err_hint(err_new(UNAVAILABLE, "no answer from %.*s: %s", STR(h->host), why),
                    "is `dhow serve` running there?");
}

static err late(const struct http *h)
{
    FAIL(TIMEOUT, "%.*s did not answer within %lld ms", STR(h->host), (long long)h->timeout_ms);
}

/* Milliseconds left of the exchange; -1: no limit. */
static int left_ms(const struct http *h)
{
    if (!h->due_ns)
        return -1;
    int64_t left = (h->due_ns - mono_ns()) / 1000000;
    return left < 0 ? 0 : left > 1 << 30 ? 1 << 30 : (int)left;
}

static err wait_for(struct http *h, int fd, short events)
{
    struct pollfd p = { .fd = fd, .events = events };
    int n;
    do
        n = poll(&p, 1, left_ms(h));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return err_errno(errno, "waiting for %.*s", STR(h->host));
    return n ? NULL : late(h);
}

/* One address. *why says what went wrong where it is worth trying the next. */
static err connect_to(struct http *h, const struct addrinfo *at, const char **why)
{
    auto_close int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "cannot make a socket");
    int failed = connect(fd, at->ai_addr, at->ai_addrlen) ? errno : 0;
    if (failed == EINPROGRESS) {
        TRY(wait_for(h, fd, POLLOUT));
        socklen_t n = sizeof failed;
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &failed, &n);
    }
    if (failed) {
        *why = strerror(failed);
        return NULL;
    }
    int on = 1, ms = h->timeout_ms > 0 ? (int)h->timeout_ms : 0;
    struct timeval wait = { ms / 1000, ms % 1000 * 1000 };
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    h->fd = fd;
    fd = -1;
    return NULL;
}

static err handshake(struct http *h);

static err connect_any(struct http *h)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    int failed = getaddrinfo(h->name, h->port, &want, &list);
    if (failed)
        return not_there(h, gai_strerror(failed));
    const char *why = "no address";
    err e = NULL;
    for (struct addrinfo *at = list; at && h->fd < 0 && !e; at = at->ai_next)
        e = connect_to(h, at, &why);
    freeaddrinfo(list);
    if (!e && h->fd < 0)
        e = not_there(h, why);
    if (!e && h->secure)
        e = handshake(h);
    if (e)
        disconnect(h);
    return e;
}

/* Sends all of v. *sent: whether any byte went out. NULL with *closed: the server hung up. */
static err send_raw(struct http *h, struct iovec *v, size_t n, bool *sent, bool *closed)
{
    while (n) {
        struct msghdr m = { .msg_iov = v, .msg_iovlen = n };
        ssize_t got = sendmsg(h->fd, &m, MSG_NOSIGNAL);
        if (got < 0 && errno == EAGAIN) {
            TRY(wait_for(h, h->fd, POLLOUT));
            continue;
        }
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            *closed = true;
            return NULL;
        }
        *sent = true;
        size_t done = (size_t)got;
        for (; n && done >= v->iov_len; v++, n--)
            done -= v->iov_len;
        if (n)
            *v = (struct iovec){ (char *)v->iov_base + done, v->iov_len - done };
    }
    return NULL;
}

/* Some bytes of the reply; 0: the server closed. The first wait is recv's own (SO_RCVTIMEO): one call. */
static err receive_raw(struct http *h, bool first, size_t *out)
{
    if (!first)
        TRY(wait_for(h, h->fd, POLLIN));
    for (;;) {
        ssize_t n = recv(h->fd, h->in, CLIENT_IN, 0);
        if (n >= 0 || errno == ECONNRESET || errno == EPIPE) {
            *out = n > 0 ? (size_t)n : 0;
            return NULL;
        }
        if (errno != EAGAIN && errno != EINTR)
            return err_errno(errno, "reading from %.*s", STR(h->host));
        TRY(wait_for(h, h->fd, POLLIN));
    }
}

/* ---- the same, enciphered ---- */

static err sealed_send(struct http *h, bool *sent, bool *closed)
{
    struct str out = secure_give(h->secure);
    struct iovec v = { (char *)out.p, out.n };
    err e = out.n ? send_raw(h, &v, 1, sent, closed) : NULL;
    secure_given(h->secure);
    return e;
}

static err handshake(struct http *h)
{
    const char *why = "the name is none";
    enum secure_state got = secure_begin(h->secure) ? SECURE_WAITS : SECURE_FAILED;
    while (got == SECURE_WAITS) {
        bool sent, closed = false;
        size_t n = 0;
        got = secure_handshake(h->secure, &why);
        TRY(sealed_send(h, &sent, &closed));
        if (got != SECURE_WAITS)
            break;
        if (!closed)
            TRY(receive_raw(h, false, &n));
        if (!n)
            return not_there(h, "it closed the connection in TLS's handshake");
        secure_take(h->secure, (struct str){ h->in, n });
    }
    if (got == SECURE_FAILED)
        return err_hint(err_new(UNAVAILABLE, "no TLS with %.*s: %s", STR(h->host), why),
                        "DHOW_CA names a file with the certificate that signed the server's");
    return NULL;
}

static err send_all(struct http *h, struct iovec *v, size_t n, bool *sent, bool *closed)
{
    enum { PIECE = 256 << 10 };
    if (!h->secure)
        return send_raw(h, v, n, sent, closed);
    for (size_t i = 0; i < n; i++) {
        struct str rest = { v[i].iov_base, v[i].iov_len };
        for (; rest.n && !*closed; rest = str_sub(rest, PIECE, rest.n)) {
            *closed = !secure_write(h->secure, str_sub(rest, 0, PIECE));
            if (!*closed)
                TRY(sealed_send(h, sent, closed));
        }
    }
    return NULL;
}

static err receive(struct http *h, bool first, size_t *out)
{
    if (!h->secure)
        return receive_raw(h, first, out);
    for (;; first = false) {
        if (secure_read(h->secure, h->in, CLIENT_IN, out) != SECURE_WAITS)
            return NULL;
        TRY(receive_raw(h, first, out));
        if (!*out)
            return NULL;
        secure_take(h->secure, (struct str){ h->in, *out });
    }
}

/* ---- one exchange ---- */

static bool one_line(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return true;
}

static err head_write(struct http *h, enum method m, struct str path, struct str type, size_t body_n)
{
    if (!one_line(path) || str_find(path, ' ') < path.n || !path.n || path.p[0] != '/')
        FAIL(INVALID, "'%.*s' is not a path", STR(path));
    if (!one_line(type))
        FAIL(INVALID, "'%.*s' is not a content type", STR(type));
    arena_reset(h->out_a);
    h->out = buf_new(h->out_a);
    struct buf *b = &h->out;
    buf_room(b, 512 + path.n);
    const struct str parts[] = {
        method_names[m],
        S(" "),
        h->prefix,
        path,
        S(" HTTP/1.1\r\nHost: "),
        h->host,
        h->on_line ? S("\r\nAccept: text/event-stream, application/json\r\n") : S("\r\nAccept: */*\r\n"),
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        buf_str(b, parts[i]);
    if (h->token.n)
        buf_fmt(b, "Authorization: Bearer %.*s\r\n", STR(h->token));
    for (size_t i = 0; i < HEADERS; i++)
        if (h->headers[i].value.n)
            buf_fmt(b, "%.*s: %.*s\r\n", STR(h->headers[i].name), STR(h->headers[i].value));
    if (type.n)
        buf_fmt(b, "Content-Type: %.*s\r\n", STR(type));
    if (body_n || m == M_POST || m == M_PUT || m == M_PATCH)
        buf_fmt(b, "Content-Length: %zu\r\n", body_n);
    buf_str(b, S("\r\n"));
    return NULL;
}

static err reply_wrong(struct http *h, const char *why)
{
    disconnect(h);
    if (h->too_large)
        FAIL(TOO_LARGE, "the reply of %.*s is over %zu bytes", STR(h->host), h->body_max);
    FAIL(UNAVAILABLE, "%.*s does not speak HTTP: %s", STR(h->host), why);
}

/* Reads to the reply's end. *closed: the server hung up before its first byte. */
static err reply_read(struct http *h, bool *closed)
{
    bool any = false;
    while (!h->whole && !h->enough) {
        size_t n;
        TRY(receive(h, !any, &n));
        if (!n) {
            *closed = !any;
            if (any)
                llhttp_finish(&h->parser); /* its end may be the connection's */
            return any && !h->whole ? reply_wrong(h, "the reply ended early") : NULL;
        }
        any = true;
        llhttp_errno_t got = llhttp_execute(&h->parser, h->in, n);
        if (got != HPE_OK && got != HPE_PAUSED)
            return reply_wrong(h, llhttp_get_error_reason(&h->parser));
        if (got == HPE_PAUSED && llhttp_get_error_pos(&h->parser) != h->in + n)
            h->keep = false; /* bytes that nobody asked for */
        if (h->on_line && h->head_whole && h->status == 200)
            h->due_ns = 0; /* a stream takes as long as it likes */
    }
    return NULL;
}

static void reply_begin(struct http *h, struct arena *a, enum method m)
{
    llhttp_init(&h->parser, HTTP_RESPONSE, &settings);
    h->parser.data = h;
    h->to = a;
    h->method = m;
    h->status = 0;
    h->head_whole = h->whole = h->keep = h->too_large = h->enough = h->in_type = false;
    h->heads_n = h->field_n = h->type_n = 0;
    h->body = NULL;
    h->body_n = h->body_cap = 0;
}

/* True if the server closed the connection while it was idle. */
static bool is_stale(const struct http *h)
{
    char c;
    ssize_t n = recv(h->fd, &c, 1, MSG_PEEK | MSG_DONTWAIT);
    return !(n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* One try over one connection. *again: nothing came back and it is safe to repeat. */
static err try_once(struct http *h, struct arena *a, enum method m, struct str body, bool *again)
{
    bool safe = m != M_POST && m != M_PATCH;
    if (h->fd >= 0 && !safe && is_stale(h))
        disconnect(h);
    bool reused = h->fd >= 0, sent = false, closed = false;
    *again = false;
    if (!reused)
        TRY(connect_any(h));
    reply_begin(h, a, m);
    struct iovec v[2] = { { h->out.p, h->out.n }, { (char *)body.p, body.n } };
    TRY(send_all(h, v, body.n ? 2 : 1, &sent, &closed));
    if (!closed || sent) { /* a server that refuses a body may have said why before it closed */
        closed = false;
        TRY(reply_read(h, &closed));
    }
    if (!closed)
        return NULL;
    *again = reused && (safe || !sent);
    disconnect(h);
    return not_there(h, "it closed the connection");
}

static err exchange(struct http *h, struct arena *a, enum method m, struct str path, struct str type,
                    struct str body)
{
    TRY(head_write(h, m, path, type, body.n));
    h->due_ns = h->timeout_ms > 0 ? mono_ns() + h->timeout_ms * 1000000 : 0;
    bool again;
    err e = try_once(h, a, m, body, &again);
    if (e && again)
        e = try_once(h, a, m, body, &again);
    if (e || !h->keep || !h->whole)
        disconnect(h);
    return e;
}

err http_do(struct http *h, struct arena *a, enum method m, struct str path, struct str type, struct str body,
            struct http_reply *out)
{
    h->on_line = NULL;
    h->body_max = reply_bytes_max;
    TRY(exchange(h, a, m, path, type, body));
    out->status = h->status;
    out->body = (struct str){ h->body, h->body_n };
    out->content_type = str_dup(a, (struct str){ h->type, h->type_n });
    return NULL;
}

err http_header(struct http *h, const char *name, struct str value)
{
    size_t i = 0;
    while (i < HEADERS && h->headers[i].name.n && !str_eq(h->headers[i].name, str_of(name)))
        i++;
    if (i == HEADERS || !one_line(value))
        FAIL(INVALID, "the value of %s is not one line of text", name);
    h->headers[i] = (struct header){ str_of(name), str_dup(h->a, value) };
    return NULL;
}

static enum err_code code_of(int status)
{
    for (enum err_code c = ERR_NONE + 1; c < ERR_COUNT; c++)
        if (err_table[c].http == status)
            return c;
    return status >= 500 ? UNAVAILABLE : INVALID;
}

err http_stream(struct http *h, struct arena *a, struct str path, bool (*on_line)(void *, struct str),
                void *arg)
{
    h->on_line = on_line;
    h->on_line_arg = arg;
    h->body_max = LINE_MAX_;
    TRY(exchange(h, a, M_GET, path, S(""), S("")));
    struct str rest = { h->body, h->body_n < 1024 ? h->body_n : 1024 };
    if (h->status != 200)
        FAIL(code_of(h->status), "%.*s answered %d: %.*s", STR(h->host), h->status, STR(rest));
    if (h->body_n && !h->enough)
        on_line(arg, (struct str){ h->body, h->body_n });
    return NULL;
}

/* ---- life ---- */

/* "http://name:port/prefix", or https */
static err url_split(struct http *h, struct str url)
{
    struct str rest = url;
    bool sealed = str_starts(url, S("https://"));
    if (!sealed && !str_starts(url, S("http://")))
        return err_hint(err_new(INVALID, "'%.*s' is not the address of a server", STR(url)),
                        "write it as http://127.0.0.1:7300");
    rest = str_sub(url, sealed ? 8 : 7, url.n);
    size_t slash = str_find(rest, '/');
    h->prefix = str_dup(h->a, str_sub(rest, slash, rest.n));
    while (h->prefix.n && h->prefix.p[h->prefix.n - 1] == '/')
        h->prefix.n--;
    h->host = str_dup(h->a, str_sub(rest, 0, slash));
    if (!host_is_sane(h->host) || !one_line(h->prefix) || str_find(h->prefix, ' ') < h->prefix.n)
        FAIL(INVALID, "'%.*s' is not the address of a server", STR(url));
    size_t bracket = h->host.p[0] == '[' ? str_find(h->host, ']') : 0;
    size_t colon = bracket + str_find(str_sub(h->host, bracket, h->host.n), ':');
    h->name = str_z(h->a, bracket ? str_sub(h->host, 1, bracket) : str_sub(h->host, 0, colon));
    h->port = colon + 1 < h->host.n ? str_z(h->a, str_sub(h->host, colon + 1, h->host.n))
              : sealed              ? "443"
                                    : "80";
    return sealed ? secure_new(h->a, h->name, NULL, &h->secure) : NULL;
}

err http_open(struct str url, struct str token, int64_t timeout_ms, struct http **out)
{
    struct arena *a = arena_new(0);
    struct http *h = NEW(a, struct http);
    h->a = a;
    h->fd = -1;
    h->timeout_ms = timeout_ms < 1 << 30 ? timeout_ms : 1 << 30;
    h->token = str_dup(a, token);
    err e = one_line(token) ? url_split(h, url) : err_new(INVALID, "the token is not one line of text");
    if (e) {
        secure_free(h->secure);
        arena_free(a);
        return e;
    }
    h->out_a = arena_new(0);
    h->in = arena_alloc(a, CLIENT_IN, 16);
    *out = h;
    return NULL;
}

void http_close(struct http *h)
{
    if (!h)
        return;
    disconnect(h);
    secure_free(h->secure);
    arena_free(h->out_a);
    arena_free(h->a);
}
