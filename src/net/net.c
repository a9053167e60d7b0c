// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { FILES_OTHER = 1024, REFUSED_ROOM = 64 }; /* descriptors beside connections */

const struct net_limits net_limits_default = {
    .connections_max = 16384,
    .header_bytes_max = 32 << 10,
    .headers_max = 100,
    .body_bytes_max = 256 << 20,
    .held_bytes_max = 1 << 30,
    .chunks_max = 1 << 16,
    .header_ms_max = 10 * 1000,
    .body_ms_max = 60 * 1000,
    .idle_ms_max = 75 * 1000,
    .write_ms_max = 30 * 1000,
    .pipeline_max = 32,
    .out_bytes_max = 4 << 20,
    .drain_ms_max = 10 * 1000,
};

static struct net_limits limits_fill(struct net_limits l)
{
    const struct net_limits d = net_limits_default;
#define FILL(member) l.member = l.member ? l.member : d.member
    FILL(connections_max);
    FILL(header_bytes_max);
    FILL(headers_max);
    FILL(body_bytes_max);
    FILL(held_bytes_max);
    FILL(chunks_max);
    FILL(header_ms_max);
    FILL(body_ms_max);
    FILL(idle_ms_max);
    FILL(write_ms_max);
    FILL(pipeline_max);
    FILL(out_bytes_max);
    FILL(drain_ms_max);
#undef FILL
    return l;
}

/* ---- the address ---- */

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static socklen_t address_size(const union address *at)
{
    return at->any.sa_family == AF_INET6 ? sizeof at->v6 : sizeof at->v4;
}

static bool address_is_loopback(const union address *at)
{
    if (at->any.sa_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&at->v6.sin6_addr);
    return ntohl(at->v4.sin_addr.s_addr) >> 24 == 127;
}

static struct str address_text(struct arena *a, const union address *at)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (at->any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &at->v6.sin6_addr, text, sizeof text);
        return fmt(a, "[%s]:%d", text, ntohs(at->v6.sin6_port));
    }
    inet_ntop(AF_INET, &at->v4.sin_addr, text, sizeof text);
    return fmt(a, "%s:%d", text, ntohs(at->v4.sin_port));
}

static err address_parse(struct arena *a, struct str s, union address *out)
{
    size_t colon = s.n;
    while (colon && s.p[colon - 1] != ':')
        colon--;
    struct str name = str_sub(s, 0, colon ? colon - 1 : 0);
    int64_t port;
    bool ok = colon && str_i64(str_sub(s, colon, s.n), &port) && port >= 0 && port <= 65535;
    *out = (union address){ 0 };
    if (ok && name.n > 2 && name.p[0] == '[' && name.p[name.n - 1] == ']') {
        out->v6.sin6_family = AF_INET6;
        out->v6.sin6_port = htons((uint16_t)port);
        ok = inet_pton(AF_INET6, str_z(a, str_sub(name, 1, name.n - 1)), &out->v6.sin6_addr) == 1;
    } else if (ok) {
        out->v4.sin_family = AF_INET;
        out->v4.sin_port = htons((uint16_t)port);
        name = str_is(name, "localhost") ? S("127.0.0.1") : name;
        ok = inet_pton(AF_INET, str_z(a, name), &out->v4.sin_addr) == 1;
    }
    if (!ok)
        return err_hint(err_new(INVALID, "'%.*s' is not an address to listen on", STR(s)),
                        "write it as 127.0.0.1:7300 or [::1]:7300");
    return NULL;
}

/* ---- sockets ---- */

/* The first socket is bound for itself alone, so that a port in use is noticed; then it lets the others in. */
static err socket_open(struct arena *a, union address *at, bool first, int *out)
{
    auto_close int fd = socket(at->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "cannot make a socket");
    int on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (!first)
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    struct str text = address_text(a, at);
    if (bind(fd, &at->any, address_size(at))) {
        if (errno == EADDRINUSE)
            return err_hint(err_new(UNAVAILABLE, "%.*s is taken by another program", STR(text)),
                            "stop that program, or choose another port (0 picks a free one)");
        if (errno == EADDRNOTAVAIL)
            FAIL(INVALID, "%.*s is not an address of this machine", STR(text));
        if (errno == EACCES)
            return err_hint(err_new(UNAVAILABLE, "may not listen on %.*s", STR(text)),
                            "use a port over 1023");
        return err_errno(errno, "cannot listen on %.*s", STR(text));
    }
    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    socklen_t n = sizeof *at;
    getsockname(fd, &at->any, &n);
    *out = fd;
    fd = -1;
    return NULL;
}

static err loops_open(struct net *net, union address *at)
{
    for (int i = 0; i < net->loops_n; i++) {
        auto_close int fd = -1;
        TRY(socket_open(net->a, at, i == 0, &fd));
        TRY(loop_init(&net->loops[i], net, fd));
    }
    net->address = address_text(net->a, at);
    for (int i = 0; i < net->loops_n; i++)
        TRY(loop_start(&net->loops[i]));
    return NULL;
}

/* ---- life ---- */

/* Room for every connection that the limits allow, as far as the machine lets us. */
static void files_allow(const struct net *net)
{
    struct rlimit have;
    rlim_t want = (rlim_t)net->loops_n * (net->limits.connections_max + REFUSED_ROOM) + FILES_OTHER;
    if (getrlimit(RLIMIT_NOFILE, &have) || have.rlim_cur >= want)
        return;
    have.rlim_cur = want < have.rlim_max ? want : have.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &have);
}

static err net_open(struct net *net)
{
    struct net_config *c = &net->config;
    union address at;
    TRY(address_parse(net->a, c->listen, &at));
    if (!c->allow_public && !address_is_loopback(&at))
        return err_hint(err_new(INVALID, "%.*s can be reached from other machines", STR(c->listen)),
                        "listen on 127.0.0.1, or allow public addresses on purpose");
    TRY(routes_new(c->routes, &net->routes));
    if (c->tls_cert.n || c->tls_key.n || c->tls_client_ca.n)
        TRY(tls_new(net, &net->tls));
    int cores = cpu_count();
    net->loops_n = c->loops > 0 ? c->loops : cores;
    net->loops = NEW_N(net->a, struct loop, (size_t)net->loops_n);
    files_allow(net);
    int workers = c->workers > 0 ? c->workers : cores > 2 ? 2 * cores : 4;
    TRY(lane_new("request", workers, c->queue_max ? c->queue_max : 1024, &net->lane));
    return loops_open(net, &at);
}

static void net_free(struct net *net)
{
    for (int i = 0; i < net->loops_n && net->loops; i++)
        loop_done(&net->loops[i]);
    tls_free(net->tls);
    routes_free(net->routes);
    pthread_cond_destroy(&net->changed);
    pthread_mutex_destroy(&net->lock);
    arena_free(net->a);
}

err net_start(const struct net_config *config, struct net **out)
{
    signal(SIGPIPE, SIG_IGN);
    struct arena *a = arena_new(0);
    struct net *net = NEW(a, struct net);
    net->a = a;
    net->config = *config;
    net->config.listen = str_dup(a, config->listen);
    net->config.tls_cert = str_dup(a, config->tls_cert);
    net->config.tls_key = str_dup(a, config->tls_key);
    net->config.tls_client_ca = str_dup(a, config->tls_client_ca);
    net->limits = limits_fill(config->limits);
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->changed, NULL);
    err e = net_open(net);
    if (e) {
        net_stop(net);
        return e;
    }
    *out = net;
    return NULL;
}

int net_loops(const struct net *net)
{
    return net->loops_n;
}

struct str net_address(const struct net *net)
{
    return net->address;
}

void net_stop(struct net *net)
{
    if (!net)
        return;
    atomic_store(&net->stopping, true);
    int running = 0;
    for (int i = 0; i < net->loops_n && net->loops; i++)
        if (net->loops[i].runs) {
            loop_stop(&net->loops[i]);
            running++;
        }
    pthread_mutex_lock(&net->lock);
    while (net->drained_n < running)
        pthread_cond_wait(&net->changed, &net->lock);
    pthread_mutex_unlock(&net->lock);
    lane_free(net->lane); /* loops still take what workers hand over */
    net->lane = NULL;
    pthread_mutex_lock(&net->lock);
    while (atomic_load(&net->owed) > 0)
        pthread_cond_wait(&net->changed, &net->lock);
    pthread_mutex_unlock(&net->lock);
    net_free(net);
}

void net_figures(const struct net *net, int64_t *connections, int64_t *requests)
{
    *connections = *requests = 0;
    for (int i = 0; i < net->loops_n; i++) {
        *connections += atomic_load_explicit(&net->loops[i].open, memory_order_relaxed);
        *requests += atomic_load_explicit(&net->loops[i].requests, memory_order_relaxed);
    }
}

int64_t net_held(const struct net *net)
{
    return atomic_load_explicit(&net->held, memory_order_relaxed);
}
