// SPDX-License-Identifier: Apache-2.0
#define SUITE net_streams
#include "help.h"
#include <stdatomic.h>

/* The stream that the last request made, handed to the test. */
static struct stream *_Atomic made;

static err make(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/event-stream", &s));
    made = s;
    return NULL;
}
static err count_to_five(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/event-stream", &s));
    for (int i = 1; i <= 5; i++) {
        stream_send(s, fmt(r->a, "data: %d\n\n", i));
        usleep(5 * 1000);
    }
    stream_close(s);
    return NULL;
}
static err stream_then_fail(struct req *r)
{
    TRY(count_to_five(r));
    FAIL(CONFLICT, "too late");
}
static const struct route table[] = {
    { M_GET, "/lane", make, "public" },
    { M_GET, "/loop", make, "public", .on_loop = true },
    { M_GET, "/five", count_to_five, "public" },
    { M_GET, "/fail", stream_then_fail, "public" },
    { M_GET, "/hello", say_hello, "public", .on_loop = true },
    { 0 },
};
static const struct route *const tables[] = { table, NULL };

static struct stream *wait_made(void)
{
    struct stream *s;
    while (!(s = atomic_exchange(&made, NULL)))
        usleep(1000);
    return s;
}

static void wait_gone(struct stream *s)
{
    int64_t start = mono_ns();
    while (stream_open(s) && mono_ns() - start < 5000000000)
        usleep(1000);
    CHECK(!stream_open(s));
    CHECK(!stream_send(s, S("x")));
}

TEST(chunks_come_as_they_are_sent)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    static const struct str paths[] = { S_INIT(LAST("/lane")), S_INIT(LAST("/loop")) };
    for (int i = 0; i < 2; i++) {
        int fd = help_connect(net);
        help_send(fd, paths[i]);
        struct stream *s = wait_made();
        CHECK(stream_send(s, S("one\n")));
        char got[400];
        struct str all = { got, 0 };
        while (!help_has(all, S("00000004\r\none\n\r\n")))
            all.n += (size_t)recv(fd, got + all.n, sizeof got - all.n, 0);
        CHECK(help_has(all, S("Transfer-Encoding: chunked\r\n")));
        CHECK(stream_send(s, S("two\n")));
        stream_close(s);
        CHECK_STR(help_drain(a, fd), "00000004\r\ntwo\n\r\n0\r\n\r\n");
        close(fd);
    }
    net_stop(net);
}

/* Whatever waits behind a stream is answered after it, on the same connection. */
TEST(a_stream_keeps_its_place_in_line)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    struct str got = help_talk(a, net,
                               S(GET("/hello") GET("/five") GET("/hello") GET("/fail") LAST("/hello")));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 5);
    CHECK(help_count(got, S("\r\n0\r\n\r\nHTTP/1.1 200")) == 2);
    CHECK(help_count(got, S("data: ")) == 10);
    CHECK(str_ends(got, S("\r\n\r\nhello")));
    net_stop(net);
}

TEST(an_old_client_reads_to_the_end_of_the_connection)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    struct str got = help_talk(a, net, S("GET /five HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    CHECK_STR(help_body(got), "data: 1\n\ndata: 2\n\ndata: 3\n\ndata: 4\n\ndata: 5\n\n");
    net_stop(net);
}

TEST(head_of_a_stream_has_no_body)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    struct str got = help_talk(a, net, S("HEAD /five HTTP/1.1\r\nHost: localhost\r\n\r\n" LAST("/hello")));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 2 && !help_has(got, S("data")));
    CHECK(!help_has(got, S("0\r\n\r\n")) || help_has(got, S("hello")));
    net_stop(net);
}

TEST(a_stream_learns_that_its_client_left)
{
    struct net *net = help_start((struct net_config){ .routes = tables });
    for (int i = 0; i < 2; i++) {
        int fd = help_connect(net);
        help_send(fd, i ? S(GET("/loop")) : S(GET("/lane")));
        struct stream *s = wait_made();
        CHECK(stream_open(s));
        close(fd);
        wait_gone(s);
        stream_close(s);
    }
    net_stop(net);
}

TEST(a_client_that_is_too_slow_is_cut)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables, .limits.out_bytes_max = 1 << 20 });
    int fd = help_connect(net);
    help_send(fd, S(GET("/lane")));
    struct stream *s = wait_made();
    struct str much = { arena_alloc(a, 100 << 10, 1), 100 << 10 };
    int sent = 0;
    while (sent < 1000 && stream_send(s, much))
        sent++, usleep(500);
    CHECK(sent >= 10 && sent < 1000);
    wait_gone(s);
    stream_close(s);
    int64_t connections = 1, requests, start = mono_ns();
    while (connections && mono_ns() - start < 5000000000)
        net_figures(net, &connections, &requests);
    CHECK(!connections);
    close(fd);
    net_stop(net);
}

TEST(a_stop_ends_streams_properly)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    int fd = help_connect(net);
    help_send(fd, S(GET("/loop")));
    struct stream *s = wait_made();
    CHECK(stream_send(s, S("last words")));
    int64_t start = mono_ns();
    net_stop(net);
    CHECK(mono_ns() - start < 1000000000);
    CHECK(str_ends(help_drain(a, fd), S("last words\r\n0\r\n\r\n")));
    CHECK(!stream_open(s) && !stream_send(s, S("x")));
    stream_close(s);
    close(fd);
}

static err stream_twice(struct req *r)
{
    struct stream *s, *t;
    TRY(req_stream(r, 200, "text/plain", &s));
    stream_close(s);
    CHECK_ERR(req_stream(r, 200, "text/plain", &t), INTERNAL);
    CHECK_ERR(req_reply(r, 200, "text/plain", S("")), INTERNAL);
    return NULL;
}

TEST(a_stream_is_the_only_reply)
{
    static const struct route twice[] = { { M_GET, "/t", stream_twice, "public" }, { 0 } };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = (const struct route *[]){ twice, NULL } });
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/t")))), "0\r\n\r\n");
    net_stop(net);
}
