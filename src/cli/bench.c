// SPDX-License-Identifier: Apache-2.0
#include "cli/bench_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/param.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 16 << 10,
    EVENTS = 256,
    STALL_MS = 30000, /* without any answer */
    FINE = 32,        /* buckets of a doubling: 3 % */
    BUCKETS = 48 * FINE
};

struct conn {
    struct link link;
    struct load *load;
    int fd;
    struct secure *tls; /* NULL: plain */
    struct str unsent;
    size_t sent; /* of what tls gives */
    bool waits_to_send;
    int64_t *began; /* of each slot */
};
struct count {
    int status;
    int64_t n;
};
/* One thread's part. */
struct load {
    struct arena *a;
    const struct bench_target *target;
    int epoll;
    struct conn *v;
    int n;
    int64_t from, until, last; /* when times are counted; the last answer */
    int64_t answered, all, max;
    struct count refusals[BENCH_REFUSALS];
    size_t refusals_n;
    pthread_t thread;
    err failed; /* in a */
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

static int64_t percentile(const struct load *l, double percent)
{
    int64_t want = (int64_t)(percent / 100 * (double)l->answered), seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += l->buckets[i];
        if (seen > want)
            return MIN(bucket_ns(i), l->max);
    }
    return l->max;
}

/* The last place takes what has none. */
static void refusal_count(struct load *l, int status, int64_t times)
{
    size_t i = 0;
    while (i < l->refusals_n && l->refusals[i].status != status)
        i++;
    i = MIN(i, (size_t)BENCH_REFUSALS - 1);
    l->refusals_n = MAX(l->refusals_n, i + 1);
    l->refusals[i].status = status;
    l->refusals[i].n += times;
}

/* ---- one connection ---- */

static err lost(const char *what)
{
    return err_errno(errno ? errno : ECONNRESET, "the server %s", what);
}

static err conn_poll(struct conn *c, bool to_send)
{
    struct epoll_event ev = { .events = EPOLLIN | (to_send ? EPOLLOUT : 0u), .data.ptr = c };
    if (to_send != c->waits_to_send && epoll_ctl(c->load->epoll, EPOLL_CTL_MOD, c->fd, &ev))
        return err_errno(errno, "waiting for a connection");
    c->waits_to_send = to_send;
    return NULL;
}

/* What tls has for the socket. */
static void sealed_look(struct conn *c)
{
    struct str all = secure_give(c->tls);
    c->unsent = str_sub(all, c->sent, all.n);
}

/* More to send, where nothing is left. */
static err conn_fill(struct conn *c)
{
    struct str plain = S("");
    if (c->tls)
        sealed_look(c);
    if (c->unsent.n)
        return NULL;
    TRY(c->link.target->wire->out(&c->link, &plain));
    c->unsent = plain;
    if (!c->tls)
        return NULL;
    if (!secure_write(c->tls, plain))
        FAIL(UNAVAILABLE, "TLS with the server has ended");
    sealed_look(c);
    return NULL;
}

static void conn_sent(struct conn *c, size_t n)
{
    c->unsent = str_sub(c->unsent, n, c->unsent.n);
    c->sent += n;
    if (!c->tls || c->unsent.n)
        return;
    secure_given(c->tls);
    c->sent = 0;
}

static err conn_send(struct conn *c)
{
    for (;;) {
        TRY(conn_fill(c));
        if (!c->unsent.n)
            return conn_poll(c, false);
        ssize_t n = send(c->fd, c->unsent.p, c->unsent.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN)
            return conn_poll(c, true);
        if (n < 0 && errno != EINTR)
            return lost("does not take the request");
        conn_sent(c, n > 0 ? (size_t)n : 0);
    }
}

static err conn_answered(struct link *link, int slot, bool ok, int status)
{
    struct conn *c = link->arg;
    struct load *l = c->load;
    int64_t now = mono_ns(), took = now - c->began[slot];
    bool counts = now >= l->from && now < l->until;
    l->last = now;
    l->all++;
    if (counts && ok) {
        l->answered++;
        l->buckets[bucket_of(took)]++;
        l->max = MAX(l->max, took);
    } else if (counts) {
        refusal_count(l, status, 1);
    }
    c->began[slot] = now;
    return link->target->wire->ask(link, slot);
}

/* What came, deciphered if it has to be, goes to the wire. */
static err conn_take(struct conn *c, struct str in)
{
    const struct wire *wire = c->link.target->wire;
    char plain[READ_BYTES];
    size_t n;
    if (!c->tls)
        return wire->in(&c->link, in);
    secure_take(c->tls, in);
    for (;;)
        switch (secure_read(c->tls, plain, sizeof plain, &n)) {
        case SECURE_WAITS:
            return NULL;
        case SECURE_FAILED:
            errno = ECONNRESET;
            return lost("hung up");
        case SECURE_DONE:
            TRY(wire->in(&c->link, (struct str){ plain, n }));
        }
}

static err conn_read(struct conn *c)
{
    char buf[READ_BYTES];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return NULL;
    if (n == 0)
        errno = ECONNRESET;
    if (n <= 0)
        return lost("hung up");
    TRY(conn_take(c, (struct str){ buf, (size_t)n }));
    return conn_send(c);
}

/* Waits for all that it takes. */
static err conn_handshake(struct conn *c)
{
    const struct bench_target *t = c->link.target;
    const char *why = "its host's name is none";
    char buf[READ_BYTES];
    TRY(secure_new(c->link.a, str_z(c->link.a, t->host), c->load->v->tls, &c->tls));
    enum secure_state state = secure_begin(c->tls) && secure_offer(c->tls, t->wire->protocol) ? SECURE_WAITS
                                                                                              : SECURE_FAILED;
    while (state == SECURE_WAITS) {
        state = secure_handshake(c->tls, &why);
        struct str out = secure_give(c->tls);
        if (out.n && send(c->fd, out.p, out.n, MSG_NOSIGNAL) != (ssize_t)out.n)
            return lost("does not take the handshake");
        secure_given(c->tls);
        if (state != SECURE_WAITS)
            break;
        ssize_t n = recv(c->fd, buf, sizeof buf, 0);
        if (n <= 0)
            return lost("ended the handshake");
        secure_take(c->tls, (struct str){ buf, (size_t)n });
    }
    if (state == SECURE_FAILED)
        return err_hint(err_new(UNAVAILABLE, "no TLS with %.*s:%.*s: %s", STR(t->host), STR(t->port), why),
                        "DHOW_CA names a file with the certificate that signed the server's");
    return NULL;
}

/* Waits for the connection, then never again. */
static err conn_connect(struct conn *c)
{
    const struct bench_target *t = c->link.target;
    struct addrinfo want = { .ai_socktype = SOCK_STREAM }, *list = NULL;
    if (getaddrinfo(str_z(c->link.a, t->host), str_z(c->link.a, t->port), &want, &list))
        FAIL(UNAVAILABLE, "there is no host '%.*s'", STR(t->host));
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
    if (c->fd >= 0 && t->tls)
        TRY(conn_handshake(c));
    if (c->fd < 0 || fcntl(c->fd, F_SETFL, O_NONBLOCK) ||
        epoll_ctl(c->load->epoll, EPOLL_CTL_ADD, c->fd, &ev))
        FAIL(UNAVAILABLE, "the server at %.*s:%.*s is not there", STR(t->host), STR(t->port));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return NULL;
}

static err conn_open(struct load *l, struct conn *c, int slots)
{
    c->load = l;
    c->link = (struct link){
        .a = l->a, .target = l->target, .slots = slots, .arg = c, .answered = conn_answered
    };
    c->began = NEW_N(l->a, int64_t, (size_t)slots);
    TRY(conn_connect(c));
    return l->target->wire->open(&c->link);
}

static err conn_start(struct conn *c)
{
    for (int i = 0; i < c->link.slots; i++) {
        c->began[i] = mono_ns();
        TRY(c->link.target->wire->ask(&c->link, i));
    }
    return conn_send(c);
}

/* ---- one thread ---- */

static err turn(struct load *l)
{
    struct epoll_event ev[EVENTS];
    int64_t now = mono_ns(), left_ms = (l->until - now) / 1000000 + 1;
    if (now - l->last > (int64_t)STALL_MS * 1000000)
        FAIL(TIMEOUT, "no answer in %d seconds", STALL_MS / 1000);
    int n = epoll_wait(l->epoll, ev, EVENTS, (int)MIN(left_ms, STALL_MS));
    if (n < 0 && errno != EINTR)
        return err_errno(errno, "waiting for answers");
    for (int i = 0; i < n; i++) {
        struct conn *c = ev[i].data.ptr;
        if (ev[i].events & EPOLLOUT)
            TRY(conn_send(c));
        if (ev[i].events & ~(uint32_t)EPOLLOUT)
            TRY(conn_read(c));
    }
    return NULL;
}

static err load_run(struct load *l)
{
    l->last = mono_ns();
    for (int i = 0; i < l->n; i++)
        TRY(conn_start(&l->v[i]));
    while (mono_ns() < l->until)
        TRY(turn(l));
    return NULL;
}

static void *load_thread(void *arg)
{
    struct load *l = arg;
    err e = load_run(l);
    l->failed = e ? err_copy(e, l->a) : NULL;
    err_reset();
    return NULL;
}

/* Thread i of n has each n-th connection; each connection its part of the clients. */
static err load_open(struct load *l, const struct bench_target *t, int i, int n, int conns, int clients)
{
    *l = (struct load){ .a = arena_new(0), .target = t, .epoll = epoll_create1(EPOLL_CLOEXEC) };
    if (l->epoll < 0)
        return err_errno(errno, "making an epoll");
    l->v = NEW_N(l->a, struct conn, (size_t)(conns / n + 1));
    for (int k = i; k < conns; k += n) {
        l->v[l->n++].fd = -1;
        TRY(conn_open(l, &l->v[l->n - 1], clients / conns + (k < clients % conns)));
    }
    return NULL;
}

static void load_close(struct load *l)
{
    for (int i = 0; i < l->n; i++) {
        l->target->wire->close(&l->v[i].link);
        secure_free(l->v[i].tls);
        close_at(&l->v[i].fd);
    }
    close_at(&l->epoll);
    arena_free(l->a);
}

/* ---- a level ---- */

static err loads_run(struct load *v, int n, double seconds)
{
    err e = NULL;
    int started = 0;
    int64_t from = mono_ns() + (int64_t)(seconds * 1e8);
    while (started < n && !e) {
        struct load *l = &v[started];
        l->from = from;
        l->until = from + (int64_t)(seconds * 1e9);
        e = thread_start("bench", load_thread, l, &l->thread);
        started += !e;
    }
    for (int i = 0; i < started; i++) {
        pthread_join(v[i].thread, NULL);
        e = e ? e : v[i].failed;
    }
    return e;
}

static void merge(struct load *to, const struct load *l)
{
    to->answered += l->answered;
    to->all += l->all;
    to->max = MAX(to->max, l->max);
    for (size_t i = 0; i < BUCKETS; i++)
        to->buckets[i] += l->buckets[i];
    for (size_t i = 0; i < l->refusals_n; i++)
        refusal_count(to, l->refusals[i].status, l->refusals[i].n);
}

static void sum_up(struct arena *a, const struct load *v, int n, const struct bench_load *load,
                   struct bench_level *out)
{
    struct load *all = NEW(a, struct load);
    for (int i = 0; i < n; i++)
        merge(all, &v[i]);
    *out = (struct bench_level){ .seconds = load->seconds,
                                 .answered = all->answered,
                                 .all = all->all,
                                 .max = all->max,
                                 .refusals_n = all->refusals_n };
    for (size_t i = 0; i < load->percentiles_n; i++)
        out->percentiles[i] = percentile(all, load->percentiles[i]);
    for (size_t i = 0; i < all->refusals_n; i++) {
        out->refusals[i].status = str_dup(a, v->target->wire->status(a, all->refusals[i].status));
        out->refusals[i].n = all->refusals[i].n;
    }
}

err bench_level(struct arena *a, const struct bench_target *t, const struct bench_load *load,
                struct bench_level *out)
{
    int each = t->wire->slots_max, conns = MAX((load->clients + each - 1) / each, load->threads);
    conns = MIN(conns, load->clients);
    int threads = MIN(load->threads, conns), opened = 0;
    struct load *v = NEW_N(a, struct load, (size_t)threads);
    err e = NULL;
    while (opened < threads && !e) {
        e = load_open(&v[opened], t, opened, threads, conns, load->clients);
        opened++;
    }
    if (!e)
        e = loads_run(v, threads, load->seconds);
    if (!e)
        sum_up(a, v, threads, load, out);
    else
        e = err_copy(e, a);
    for (int i = 0; i < opened; i++)
        load_close(&v[i]);
    return e;
}

err bench_target(struct arena *a, struct str url, struct bench_target *out)
{
    out->tls = str_starts(url, S("https://"));
    struct str host = str_sub(url, str_find(url, '/') + 2, url.n);
    host = str_sub(host, 0, str_find(host, '/'));
    size_t colon = host.n;
    while (colon > 0 && host.p[colon - 1] != ':' && host.p[colon - 1] != ']')
        colon--;
    bool has_port = colon > 0 && host.p[colon - 1] == ':';
    out->port = has_port ? str_dup(a, str_sub(host, colon, host.n)) : out->tls ? S("443") : S("80");
    host = has_port ? str_sub(host, 0, colon - 1) : host;
    if (host.n > 2 && host.p[0] == '[')
        host = str_sub(host, 1, host.n - 1);
    out->host = str_dup(a, host);
    return NULL;
}
