// SPDX-License-Identifier: Apache-2.0
#include "cli/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 16 << 10,
    HEAD_BYTES = 4 << 10,
    EVENTS = 256,
    STALL_MS = 30000, /* without any answer */
    FINE = 32,        /* buckets of a doubling: 3 % */
    BUCKETS = 48 * FINE
};

struct conn {
    int fd;
    size_t sent, head_n, body_left;
    int status;
    int64_t began;
    char head[HEAD_BYTES];
};
struct load {
    const struct bench_target *t;
    int epoll;
    struct conn *v;
    int n;
    bool counts; /* warm */
    int64_t requests, refused, max;
    int status;
    int64_t buckets[BUCKETS];
};

/* ---- times, in buckets that grow ---- */

static size_t bucket_of(int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    if (v < FINE)
        return (size_t)v;
    int bits = 63 - __builtin_clzll(v);
    size_t i = (size_t)(bits - 4) * FINE + (size_t)((v >> (bits - 5)) & (FINE - 1));
    return i < BUCKETS ? i : BUCKETS - 1;
}

/* The middle of a bucket. */
static int64_t bucket_ns(size_t i)
{
    if (i < FINE)
        return (int64_t)i;
    int bits = (int)(i / FINE) + 4;
    int64_t step = (int64_t)1 << (bits - 5);
    return ((int64_t)1 << bits) + (int64_t)(i % FINE) * step + step / 2;
}

static int64_t percentile(const struct load *l, double share)
{
    int64_t want = (int64_t)(share * (double)l->requests), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += l->buckets[i];
        if (seen > want)
            return bucket_ns(i) < l->max ? bucket_ns(i) : l->max;
    }
    return l->max;
}

/* ---- one connection ---- */

static err lost(const char *what)
{
    return err_errno(errno ? errno : ECONNRESET, "the server %s", what);
}

static err conn_send(struct load *l, struct conn *c)
{
    struct str r = l->t->request;
    while (c->sent < r.n) {
        ssize_t n = send(c->fd, r.p + c->sent, r.n - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EAGAIN)
            return lost("does not take the request");
        if (n < 0)
            break;
        c->sent += (size_t)n;
    }
    bool more = c->sent < r.n;
    struct epoll_event ev = { .events = EPOLLIN | (more ? EPOLLOUT : 0u), .data.ptr = c };
    if (more)
        (void)epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd, &ev);
    return NULL;
}

static err conn_start(struct load *l, struct conn *c)
{
    c->sent = c->head_n = c->body_left = 0;
    c->status = 0;
    c->began = mono_ns();
    return conn_send(l, c);
}

static err conn_done(struct load *l, struct conn *c)
{
    int64_t took = mono_ns() - c->began;
    if (l->counts && c->status / 100 == 2) {
        l->requests++;
        l->buckets[bucket_of(took)]++;
        l->max = took > l->max ? took : l->max;
    } else if (c->status / 100 != 2) {
        l->refused++;
        l->status = c->status;
    }
    return conn_start(l, c);
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

static err head_read(struct conn *c, struct str head)
{
    int64_t status, length;
    if (!str_starts(head, S("HTTP/1.1 ")) || !str_i64(str_sub(head, 9, 12), &status) ||
        !str_i64(header_of(head, "content-length"), &length) || length < 0)
        FAIL(INTERNAL, "the server's answer is not understood");
    c->status = (int)status;
    c->body_left = (size_t)length;
    return NULL;
}

/* Takes what came; what is left of the reply is known once its head is there. */
static err conn_take(struct load *l, struct conn *c, struct str in)
{
    if (!c->status) {
        size_t before = c->head_n, n = in.n < HEAD_BYTES - before ? in.n : HEAD_BYTES - before;
        memcpy(c->head + before, in.p, n);
        c->head_n += n;
        char *end = memmem(c->head, c->head_n, "\r\n\r\n", 4);
        if (!end && c->head_n == HEAD_BYTES)
            FAIL(TOO_LARGE, "the head of the server's answer is longer than %d bytes", HEAD_BYTES);
        if (!end)
            return NULL;
        size_t head = (size_t)(end - c->head) + 4;
        TRY(head_read(c, (struct str){ c->head, head }));
        in = str_sub(in, head - before, in.n);
    }
    if (in.n > c->body_left)
        FAIL(INTERNAL, "the server sent more than one answer");
    c->body_left -= in.n;
    return c->body_left ? NULL : conn_done(l, c);
}

static err conn_read(struct load *l, struct conn *c)
{
    char buf[READ_BYTES];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return NULL;
    if (n == 0)
        errno = ECONNRESET;
    if (n <= 0)
        return lost("hung up");
    return conn_take(l, c, (struct str){ buf, (size_t)n });
}

/* Waits for the connection, then never again. */
static err conn_open(struct load *l, struct conn *c)
{
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    auto_arena struct arena *a = arena_new(0);
    c->fd = -1;
    if (getaddrinfo(str_z(a, l->t->host), str_z(a, l->t->port), &want, &list))
        FAIL(UNAVAILABLE, "there is no host '%.*s'", STR(l->t->host));
    for (struct addrinfo *i = list; i && c->fd < 0; i = i->ai_next) {
        c->fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, 0);
        if (c->fd >= 0 && connect(c->fd, i->ai_addr, i->ai_addrlen)) {
            close(c->fd);
            c->fd = -1;
        }
    }
    freeaddrinfo(list);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    int one = 1;
    if (c->fd < 0 || fcntl(c->fd, F_SETFL, O_NONBLOCK) || epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &ev))
        FAIL(UNAVAILABLE, "the server at %.*s:%.*s is not there", STR(l->t->host), STR(l->t->port));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return conn_start(l, c);
}

/* ---- a level ---- */

static err turn(struct load *l)
{
    struct epoll_event ev[EVENTS];
    int n = epoll_wait(l->epoll, ev, EVENTS, STALL_MS);
    if (n < 0 && errno != EINTR)
        return err_errno(errno, "waiting for answers");
    if (n == 0)
        FAIL(TIMEOUT, "no answer in %d seconds", STALL_MS / 1000);
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & EPOLLOUT) {
            TRY(conn_send(l, c));
            if (c->sent == l->t->request.n)
                (void)epoll_ctl(l->epoll, EPOLL_CTL_MOD, c->fd,
                                &(struct epoll_event){ .events = EPOLLIN, .data.ptr = c });
        }
        if (ev[i].events & ~(uint32_t)EPOLLOUT)
            TRY(conn_read(l, c));
    }
    return NULL;
}

static err run_until(struct load *l, int64_t until)
{
    while (mono_ns() < until)
        TRY(turn(l));
    return NULL;
}

static err level_run(struct load *l, double seconds, struct bench_level *out)
{
    for (int i = 0; i < l->n; i++)
        TRY(conn_open(l, &l->v[i]));
    TRY(run_until(l, mono_ns() + (int64_t)(seconds * 1e8)));
    l->counts = true;
    int64_t began = mono_ns();
    TRY(run_until(l, began + (int64_t)(seconds * 1e9)));
    *out = (struct bench_level){ .connections = l->n,
                                 .seconds = (double)(mono_ns() - began) / 1e9,
                                 .requests = l->requests,
                                 .refused = l->refused,
                                 .p50 = percentile(l, 0.5),
                                 .p90 = percentile(l, 0.9),
                                 .p99 = percentile(l, 0.99),
                                 .max = l->max,
                                 .status = l->status };
    return NULL;
}

err bench_level(struct arena *a, const struct bench_target *t, int connections, double seconds,
                struct bench_level *out)
{
    struct load *l = NEW(a, struct load);
    *l = (struct load){ .t = t, .epoll = epoll_create1(EPOLL_CLOEXEC), .n = connections };
    if (l->epoll < 0)
        return err_errno(errno, "making an epoll");
    l->v = NEW_N(a, struct conn, (size_t)connections);
    for (int i = 0; i < connections; i++)
        l->v[i].fd = -1;
    err e = level_run(l, seconds, out);
    for (int i = 0; i < connections; i++)
        if (l->v[i].fd >= 0)
            close(l->v[i].fd);
    close(l->epoll);
    return e;
}

err bench_target(struct arena *a, struct str url, struct bench_target *out)
{
    if (!str_starts(url, S("http://")))
        FAIL(UNSUPPORTED, "bench speaks plain HTTP only, not %.*s", STR(str_sub(url, 0, 64)));
    struct str host = str_sub(url, 7, url.n);
    host = str_sub(host, 0, str_find(host, '/'));
    size_t colon = host.n;
    while (colon > 0 && host.p[colon - 1] != ':' && host.p[colon - 1] != ']')
        colon--;
    bool has_port = colon > 0 && host.p[colon - 1] == ':';
    out->port = has_port ? str_dup(a, str_sub(host, colon, host.n)) : S("80");
    host = has_port ? str_sub(host, 0, colon - 1) : host;
    if (host.n > 2 && host.p[0] == '[')
        host = str_sub(host, 1, host.n - 1);
    out->host = str_dup(a, host);
    return NULL;
}
