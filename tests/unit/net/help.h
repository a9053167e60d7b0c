/* help: a server on a free port with a few routes, and raw bytes to and from it. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "test.h"
#include "net/net.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define GET(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define LAST(path) "GET " path " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

static inline err say_hello(struct req *r)
{
    return req_reply(r, 200, "text/plain", S("hello"));
}
static inline err say_body(struct req *r)
{
    return req_reply(r, 200, "application/octet-stream", r->body);
}
static inline err say_name(struct req *r)
{
    return req_reply(r, 200, "text/plain", req_param(r, S("name")));
}
static inline err say_late(struct req *r)
{
    usleep(100 * 1000);
    return req_reply(r, 200, "text/plain", S("late"));
}
static inline err say_nothing(struct req *r)
{
    (void)r;
    return NULL;
}
static inline err say_twice(struct req *r)
{
    TRY(req_reply(r, 200, "text/plain", S("first")));
    return req_reply(r, 200, "text/plain", S("second"));
}
static inline err say_no(struct req *r)
{
    FAIL(CONFLICT, "%.*s is taken", STR(r->path));
}
static inline err say_much(struct req *r)
{
    struct str s = { arena_alloc(r->a, 32 << 20, 1), 32 << 20 };
    return req_reply(r, 200, "application/octet-stream", s);
}

static const struct route help_routes[] = {
    { M_GET, "/loop", say_hello, .may = "public", .on_loop = true },
    { M_GET, "/lane", say_hello, .may = "public" },
    { M_POST, "/loop", say_body, .may = "public", .on_loop = true, .body_bytes_max = 1000 },
    { M_POST, "/lane", say_body, .may = "public", .body_bytes_max = 64 << 20 },
    { M_GET, "/named/{name}", say_name, .may = "public", .on_loop = true },
    { M_GET, "/rest/{name...}", say_name, .may = "public", .on_loop = true },
    { M_GET, "/late", say_late, .may = "public" },
    { M_GET, "/nothing", say_nothing, .may = "public" },
    { M_GET, "/twice", say_twice, .may = "public", .on_loop = true },
    { M_GET, "/no", say_no, .may = "public" },
    { M_GET, "/much", say_much, .may = "public" },
    { 0 },
};
static const struct route *const help_tables[] = { help_routes, NULL };

/* Starts it with what config sets; routes and address have defaults. */
static inline struct net *help_start(struct net_config config)
{
    if (!config.listen.n)
        config.listen = S("127.0.0.1:0");
    if (!config.routes)
        config.routes = help_tables;
    struct net *net;
    CHECK_OK(net_start(&config, &net));
    return net;
}

static inline int help_connect(const struct net *net)
{
    struct str address = net_address(net);
    int64_t port = 0;
    CHECK(str_i64(str_sub(address, str_find(address, ':') + 1, address.n), &port));
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    return fd;
}

static inline void help_send(int fd, struct str s)
{
    CHECK(send(fd, s.p, s.n, MSG_NOSIGNAL) == (ssize_t)s.n);
}

/* All that comes until the server closes; fails if it does not within 10 s. */
static inline struct str help_drain(struct arena *a, int fd)
{
    struct buf b = buf_new(a);
    for (;;) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        CHECK(poll(&p, 1, 10 * 1000) == 1);
        char *room = buf_room(&b, 4096);
        ssize_t n = recv(fd, room, 4096, 0);
        if (n <= 0)
            return buf_get(&b);
        b.n += (size_t)n;
    }
}

/* Sends s on a connection of its own; all that comes back. */
static inline struct str help_talk(struct arena *a, const struct net *net, struct str s)
{
    int fd = help_connect(net);
    help_send(fd, s);
    struct str got = help_drain(a, fd);
    close(fd);
    return got;
}

static inline int help_status(struct str reply)
{
    int64_t status = 0;
    CHECK(str_starts(reply, S("HTTP/1.1 ")) && str_i64(str_sub(reply, 9, 12), &status));
    return (int)status;
}

static inline bool help_has(struct str text, struct str part)
{
    return text.n >= part.n && memmem(text.p, text.n, part.p, part.n);
}

static inline size_t help_count(struct str text, struct str part)
{
    size_t n = 0;
    for (char *at; (at = memmem(text.p, text.n, part.p, part.n)); n++)
        text = str_sub(text, (size_t)(at - text.p) + part.n, text.n);
    return n;
}

static inline struct str help_body(struct str reply)
{
    const char *at = memmem(reply.p, reply.n, "\r\n\r\n", 4);
    CHECK(at);
    return str_sub(reply, (size_t)(at - reply.p) + 4, reply.n);
}

/* An own http client of the server. */
static inline struct http *help_client(struct arena *a, const struct net *net)
{
    struct http *h;
    CHECK_OK(http_open(fmt(a, "http://%.*s", STR(net_address(net))), S(""), 10 * 1000, &h));
    return h;
}
