// SPDX-License-Identifier: Apache-2.0
#define SUITE net_limits
#include "help.h"

/* What the server says to bytes that never become a whole request. */
static struct str stalls(struct arena *a, struct net_limits limits, struct str bytes)
{
    struct net *net = help_start((struct net_config){ .limits = limits });
    struct str got = help_talk(a, net, bytes);
    net_stop(net);
    return got;
}

TEST(slow_headers_are_cut)
{
    auto_arena struct arena *a = arena_new(0);
    struct net_limits l = { .header_ms_max = 100 };
    CHECK(help_status(stalls(a, l, S("GET /loop HTTP/1.1\r\nHost: lo"))) == 408);
}

/* A byte now and then does not buy more time. */
TEST(a_slowloris_is_cut)
{
    struct net *net = help_start((struct net_config){ .limits.header_ms_max = 200 });
    int fd = help_connect(net);
    help_send(fd, S("GET /loop HTTP/1.1\r\nHost: localhost\r\nX: "));
    int64_t start = mono_ns();
    char c;
    while (recv(fd, &c, 1, MSG_DONTWAIT) < 0 && mono_ns() - start < 5000000000)
        usleep(20 * 1000), (void)!send(fd, "a", 1, MSG_NOSIGNAL);
    CHECK(mono_ns() - start < 2000000000);
    close(fd);
    net_stop(net);
}

TEST(slow_bodies_are_cut)
{
    auto_arena struct arena *a = arena_new(0);
    struct net_limits l = { .body_ms_max = 100 };
    struct str head = S("POST /loop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nabc");
    CHECK(help_status(stalls(a, l, head)) == 408);
}

TEST(idle_connections_are_closed)
{
    auto_arena struct arena *a = arena_new(0);
    struct net_limits l = { .idle_ms_max = 100 };
    CHECK(stalls(a, l, S("")).n == 0);
    CHECK(help_status(stalls(a, l, S(GET("/loop")))) == 200);
    CHECK(stalls(a, l, S("\r\n")).n == 0);
}

TEST(a_client_that_does_not_read_is_cut)
{
    struct net *net = help_start((struct net_config){ .limits.write_ms_max = 200 });
    int fd = help_connect(net);
    help_send(fd, S(GET("/much")));
    int64_t connections = 1, requests, start = mono_ns();
    while (connections && mono_ns() - start < 5000000000) {
        usleep(10 * 1000);
        net_figures(net, &connections, &requests);
    }
    CHECK(connections == 0 && requests == 1);
    close(fd);
    net_stop(net);
}

TEST(a_client_that_reads_slowly_but_steadily_is_not)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .limits.write_ms_max = 300 });
    int fd = help_connect(net);
    help_send(fd, S(LAST("/much")));
    size_t n = 0;
    char *room = arena_alloc(a, 1 << 20, 1);
    for (ssize_t got; (got = recv(fd, room, 1 << 20, 0)) > 0; n += (size_t)got)
        usleep(20 * 1000);
    CHECK(n > 32 << 20);
    close(fd);
    net_stop(net);
}

TEST(heads_have_limits)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start(
        (struct net_config){ .limits = { .header_bytes_max = 2000, .headers_max = 5 } });
    struct str got = help_talk(a, net, fmt(a, "GET /%02000d HTTP/1.1\r\nHost: localhost\r\n\r\n", 0));
    CHECK(help_status(got) == 414);
    got = help_talk(a, net, fmt(a, "GET /loop HTTP/1.1\r\nHost: localhost\r\nA: %02000d\r\n\r\n", 0));
    CHECK(help_status(got) == 431);
    got = help_talk(a, net, fmt(a, "GET /loop HTTP/1.1\r\nHost: localhost\r\n%02000d: a\r\n\r\n", 0));
    CHECK(help_status(got) == 431);
    got = help_talk(a, net,
                    S("GET /loop HTTP/1.1\r\nHost: localhost\r\na:1\r\na:1\r\na:1\r\na:1\r\na:1\r\n\r\n"));
    CHECK(help_status(got) == 431);
    got = help_talk(a, net,
                    S("GET /loop HTTP/1.1\r\nHost: localhost\r\na:1\r\na:1\r\na:1\r\n"
                      "Connection: close\r\n\r\n"));
    CHECK(help_status(got) == 200);
    net_stop(net);
}

/* Blanks that no header is made of count as well. */
TEST(blanks_have_limits)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .limits.header_bytes_max = 2000, .loops = 1 });
    int fd = help_connect(net);
    help_send(fd, S("GET /loop HTTP/1.1\r\nHost:"));
    for (int i = 0; i < 100; i++, usleep(1000))
        if (send(fd, fmt(a, "%*s", 1000, "").p, 1000, MSG_NOSIGNAL) < 0)
            break;
    CHECK(help_status(help_drain(a, fd)) == 431);
    close(fd);
    net_stop(net);
}

TEST(chunks_have_limits)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .limits.chunks_max = 3 });
#define CHUNKED \
    "POST /loop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    CHECK_STR(help_body(help_talk(a, net, S(CHUNKED "1\r\na\r\n1\r\nb\r\n0\r\n\r\n"))), "ab");
    CHECK(help_status(help_talk(a, net, S(CHUNKED "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"))) == 400);
    CHECK(help_status(help_talk(a, net, fmt(a, CHUNKED "1;%020000d=1\r\na\r\n0\r\n\r\n", 0))) == 400);
    CHECK(help_status(help_talk(a, net, fmt(a, CHUNKED "1\r\na\r\n0\r\nA: %020000d\r\n\r\n", 0))) == 400);
    net_stop(net);
}

TEST(bodies_of_every_size_come_whole)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct http *h = help_client(a, net);
    uint64_t seed = 1;
    for (size_t n = 0; n < 9 << 20; n = n * 3 + 1) {
        char *body = arena_alloc(a, n, 8);
        for (size_t i = 0; i + 8 <= n; i += 8)
            memcpy(body + i, &(uint64_t){ splitmix(&seed) }, 8);
        struct http_reply got;
        CHECK_OK(http_do(h, a, M_POST, S("/lane"), S(""), (struct str){ body, n }, &got));
        CHECK(got.status == 200 && str_eq(got.body, (struct str){ body, n }));
    }
    http_close(h);
    net_stop(net);
}

/* The client learns why even though it sends on. */
TEST(a_refused_body_does_not_hide_the_reply)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct http *h = help_client(a, net);
    struct str big = { arena_alloc(a, 2 << 20, 1), 2 << 20 };
    struct http_reply got;
    for (int i = 0; i < 20; i++) {
        CHECK_OK(http_do(h, a, M_POST, S("/loop"), S(""), big, &got));
        CHECK(got.status == 413);
    }
    http_close(h);
    net_stop(net);
}

TEST(too_many_connections_are_told)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1, .limits.connections_max = 2 });
    int one = help_connect(net), two = help_connect(net);
    help_send(one, S(GET("/lane")));
    help_send(two, S(GET("/lane")));
    char c;
    CHECK(recv(one, &c, 1, 0) == 1 && recv(two, &c, 1, 0) == 1);
    struct str got = help_talk(a, net, S(""));
    CHECK(help_status(got) == 503 && help_has(got, S("Retry-After: 1\r\n")));
    close(one);
    usleep(50 * 1000);
    CHECK(help_status(help_talk(a, net, S(LAST("/loop")))) == 200);
    close(two);
    net_stop(net);
}

TEST(a_full_queue_sheds_load)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .workers = 1, .queue_max = 1, .loops = 1 });
    int fd = help_connect(net);
    help_send(fd, S(GET("/late") GET("/late") GET("/late") GET("/late") LAST("/loop")));
    struct str got = help_drain(a, fd);
    CHECK(help_count(got, S("HTTP/1.1 503")) >= 2);
    CHECK(help_count(got, S("Retry-After: 1\r\n")) >= 2);
    CHECK(help_count(got, S("HTTP/1.1 ")) == 5);
    close(fd);
    net_stop(net);
}

/* Bodies of many clients that are not whole yet, and replies that nobody reads: what they take together has a limit, over
 * which a body is refused; what is given back can be used again. */
TEST(bodies_share_a_limit)
{
    enum { N = 8, PART = 200 << 10 };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1, .limits.held_bytes_max = 1 << 20 });
    char *part = memset(arena_alloc(a, PART, 1), 'x', PART);
    int fds[N], refused = 0;
    for (int i = 0; i < N; i++) {
        fds[i] = help_connect(net);
        help_send(fds[i], S("POST /lane HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000\r\n\r\n"));
        help_send(fds[i], (struct str){ part, PART });
    }
    usleep(100 * 1000);
    for (int i = 0; i < N; i++) {
        char head[13] = "";
        bool told = recv(fds[i], head, 12, MSG_DONTWAIT) == 12;
        CHECK(!told || !strcmp(head, "HTTP/1.1 503"));
        refused += told;
    }
    CHECK(refused >= N / 2 && refused < N);
    CHECK(net_held(net) <= 1 << 20);
    CHECK(help_status(help_talk(a, net, S(LAST("/lane")))) == 200); /* who brings no body is not asked */
    for (int i = 0; i < N; i++)
        close(fds[i]);
    usleep(100 * 1000);
    CHECK(net_held(net) < 200 << 10);
    struct str head = S(
        "POST /lane HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 204800\r\n\r\n");
    struct str whole = fmt(a, "%.*s%.*s", STR(head), PART, part);
    CHECK(help_status(help_talk(a, net, whole)) == 200);
    net_stop(net);
}

TEST(replies_that_nobody_reads_share_it)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1, .limits.held_bytes_max = 8 << 20 });
    int fd = help_connect(net);
    help_send(fd, S(GET("/much")));
    usleep(200 * 1000);
    CHECK(net_held(net) > 8 << 20);
    struct str post = S(
        "POST /lane HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
    struct str got = help_talk(a, net, post);
    CHECK(help_status(got) == 503);
    CHECK(memmem(got.p, got.n, "Retry-After: 1", 14));
    close(fd);
    usleep(100 * 1000);
    CHECK(help_status(help_talk(a, net, post)) == 200);
    net_stop(net);
}
