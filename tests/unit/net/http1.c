// SPDX-License-Identifier: Apache-2.0
#define SUITE http1
#include "help.h"

/* A request of one line per rule, and the status that it gets. */
struct rule {
    const char *why;
    struct str bytes;
    int status;
};
// clang-format off
#define H "Host: localhost\r\n"
#define C "Connection: close\r\n"
static const struct rule rules[] = {
    { "a plain request", S_INIT("GET /loop HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "a request for a lane", S_INIT("GET /lane HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "HTTP/1.0 closes by itself", S_INIT("GET /loop HTTP/1.0\r\n\r\n"), 200 },
    { "leading empty lines", S_INIT("\r\n\r\nGET /loop HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "a whole URL as target", S_INIT("GET http://localhost/loop HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "a whole URL of another host", S_INIT("GET http://evil.example/loop HTTP/1.1\r\n" H C "\r\n"), 403 },
    { "a query", S_INIT("GET /loop?a=b&c HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "Host with a port", S_INIT("GET /loop HTTP/1.1\r\nHost: 127.0.0.1:99\r\n" C "\r\n"), 200 },
    { "Host of IPv6", S_INIT("GET /loop HTTP/1.1\r\nHost: [::1]:99\r\n" C "\r\n"), 200 },
    { "no Host", S_INIT("GET /loop HTTP/1.1\r\n" C "\r\n"), 400 },
    { "two Hosts", S_INIT("GET /loop HTTP/1.1\r\n" H H C "\r\n"), 400 },
    { "an empty Host", S_INIT("GET /loop HTTP/1.1\r\nHost:\r\n" C "\r\n"), 400 },
    { "a broken Host", S_INIT("GET /loop HTTP/1.1\r\nHost: a/b\r\n" C "\r\n"), 400 },
    { "a rebound Host", S_INIT("GET /loop HTTP/1.1\r\nHost: evil.example\r\n" C "\r\n"), 403 },
    { "nearly localhost", S_INIT("GET /loop HTTP/1.1\r\nHost: localhost.evil.example\r\n" C "\r\n"), 403 },
    { "own origin", S_INIT("POST /loop HTTP/1.1\r\n" H C "Origin: http://localhost\r\nContent-Length: 0\r\n\r\n"), 200 },
    { "a foreign origin", S_INIT("POST /loop HTTP/1.1\r\n" H C "Origin: http://evil.example\r\nContent-Length: 0\r\n\r\n"), 403 },
    { "no origin", S_INIT("POST /loop HTTP/1.1\r\n" H C "Origin: null\r\nContent-Length: 0\r\n\r\n"), 403 },
    { "a foreign origin may read what it cannot see", S_INIT("GET /loop HTTP/1.1\r\n" H C "Origin: http://evil.example\r\n\r\n"), 200 },
    { "unknown path", S_INIT("GET /nowhere HTTP/1.1\r\n" H C "\r\n"), 404 },
    { "trailing slash is another path", S_INIT("GET /loop/ HTTP/1.1\r\n" H C "\r\n"), 404 },
    { "known path, other method", S_INIT("DELETE /loop HTTP/1.1\r\n" H C "\r\n"), 405 },
    { "OPTIONS", S_INIT("OPTIONS /loop HTTP/1.1\r\n" H C "\r\n"), 204 },
    { "OPTIONS of the server", S_INIT("OPTIONS * HTTP/1.1\r\n" H C "\r\n"), 204 },
    { "a method that is not ours", S_INIT("PROPFIND /loop HTTP/1.1\r\n" H C "\r\n"), 501 },
    { "TRACE", S_INIT("TRACE /loop HTTP/1.1\r\n" H C "\r\n"), 501 },
    { "CONNECT", S_INIT("CONNECT localhost:80 HTTP/1.1\r\n" H C "\r\n"), 501 },
    { "no method at all", S_INIT("HELLO /loop HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "HTTP/3.0", S_INIT("GET /loop HTTP/3.0\r\n" H C "\r\n"), 505 },
    { "HTTP/2.0 in text", S_INIT("GET /loop HTTP/2.0\r\n" H C "\r\n"), 505 },
    { "HTTP/0.9", S_INIT("GET /loop HTTP/0.9\r\n" H C "\r\n"), 505 },
    { "a TLS hello", S_INIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400 },
    { "bare line feeds", S_INIT("GET /loop HTTP/1.1\n" "Host: localhost\n" "Connection: close\n\n"), 400 },
    { "bare CR in a value", S_INIT("GET /loop HTTP/1.1\r\n" H "A: b\rc\r\n" C "\r\n"), 400 },
    { "NUL in a value", S_INIT("GET /loop HTTP/1.1\r\n" H "A: b\0c\r\n" C "\r\n"), 400 },
    { "blank before the colon", S_INIT("GET /loop HTTP/1.1\r\n" "Host : localhost\r\n" C "\r\n"), 400 },
    { "a folded header", S_INIT("GET /loop HTTP/1.1\r\n" H "A: b\r\n c\r\n" C "\r\n"), 400 },
    { "a header without a name", S_INIT("GET /loop HTTP/1.1\r\n" H ": b\r\n" C "\r\n"), 400 },
    { "an upgrade is not taken", S_INIT("GET /loop HTTP/1.1\r\n" H "Connection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"), 200 },

    { "an encoded letter", S_INIT("GET /l%6Fop HTTP/1.1\r\n" H C "\r\n"), 200 },
    { "half an encoding", S_INIT("GET /named/a% HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "half an encoding, two", S_INIT("GET /named/a%4 HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "no encoding", S_INIT("GET /named/a%zz HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "an encoded NUL", S_INIT("GET /named/a%00b HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "an encoded line end", S_INIT("GET /named/a%0d%0ab HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "not UTF-8", S_INIT("GET /named/a%ff HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "UTF-8, overlong", S_INIT("GET /named/%c0%af HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "an empty segment", S_INIT("GET //loop HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "a dot segment", S_INIT("GET /./loop HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "two dots", S_INIT("GET /named/../loop HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "two dots, encoded", S_INIT("GET /named/%2e%2E HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "two dots between encoded slashes", S_INIT("GET /rest/a%2f..%2fb HTTP/1.1\r\n" H C "\r\n"), 400 },
    { "a target without slash", S_INIT("GET loop HTTP/1.1\r\n" H C "\r\n"), 400 },

    { "a body", S_INIT("POST /loop HTTP/1.1\r\n" H C "Content-Length: 3\r\n\r\nabc"), 200 },
    { "a chunked body", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), 200 },
    { "chunks with extensions and trailers", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"), 200 },
    { "a length and chunks", S_INIT("POST /loop HTTP/1.1\r\n" H C "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400 },
    { "chunks and a length", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"), 400 },
    { "two lengths", S_INIT("POST /loop HTTP/1.1\r\n" H C "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"), 400 },
    { "a length that is no number", S_INIT("POST /loop HTTP/1.1\r\n" H C "Content-Length: -3\r\n\r\nabc"), 400 },
    { "a length past 64 bits", S_INIT("POST /loop HTTP/1.1\r\n" H C "Content-Length: 99999999999999999999\r\n\r\n"), 400 },
    { "an encoding that is not chunked", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: gzip\r\n\r\n"), 400 },
    { "chunked is not last", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked, gzip\r\n\r\n"), 400 },
    { "chunks in HTTP/1.0", S_INIT("POST /loop HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400 },
    { "a chunk size that is no number", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked\r\n\r\nzz\r\n"), 400 },
    { "a chunk size past 64 bits", S_INIT("POST /loop HTTP/1.1\r\n" H C "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n"), 400 },
    { "an announced body over the limit", S_INIT("POST /loop HTTP/1.1\r\n" H "Content-Length: 1001\r\n\r\n"), 413 },
    { "a chunk over the limit", S_INIT("POST /loop HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n3e9\r\n"), 413 },
    { "an expectation that is not known", S_INIT("POST /loop HTTP/1.1\r\n" H C "Expect: miracles\r\nContent-Length: 1\r\n\r\na"), 417 },

    { "a handler without a reply", S_INIT("GET /nothing HTTP/1.1\r\n" H C "\r\n"), 500 },
    { "a handler with two replies", S_INIT("GET /twice HTTP/1.1\r\n" H C "\r\n"), 500 },
    { "a handler that fails", S_INIT("GET /no HTTP/1.1\r\n" H C "\r\n"), 409 },
};
// clang-format on

TEST(rules_hold)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        struct str got = help_talk(a, net, rules[i].bytes);
        if (help_status(got) != rules[i].status)
            cr_assert_fail("%s: %d, not %d", rules[i].why, help_status(got), rules[i].status);
        if (help_count(got, S("HTTP/1.1 ")) != 1)
            cr_assert_fail("%s: not one reply but %zu", rules[i].why, help_count(got, S("HTTP/1.1 ")));
    }
    net_stop(net);
}

/* The same, a byte at a time: what is read does not depend on how it is cut. */
TEST(rules_hold_byte_by_byte)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1 });
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (rules[i].bytes.n > 200 || rules[i].status == 413)
            continue;
        int fd = help_connect(net);
        for (size_t k = 0; k < rules[i].bytes.n; k++)
            if (send(fd, rules[i].bytes.p + k, 1, MSG_NOSIGNAL) != 1)
                break;
        struct str got = help_drain(a, fd);
        close(fd);
        if (got.n && help_status(got) != rules[i].status)
            cr_assert_fail("%s: %d, not %d", rules[i].why, help_status(got), rules[i].status);
    }
    net_stop(net);
}

TEST(a_reply_has_its_headers_and_no_more)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct str got = help_talk(a, net,
                               S("GET /loop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                 "X-Request-Id: my-id.1\r\n\r\n"));
    CHECK_STR(got,
              S("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\nConnection: close\r\n"
                "X-Request-Id: my-id.1\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
                "\r\nhello"));
    got = help_talk(a, net,
                    S("GET /loop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                      "X-Request-Id: <script>\r\n\r\n"));
    CHECK(!help_has(got, S("script")));
    CHECK(help_has(got, S("X-Request-Id: ")));
    net_stop(net);
}

TEST(a_wrong_method_learns_the_right_ones)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct str got = help_talk(a, net,
                               S("PUT /loop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    CHECK(help_has(got, S("Allow: GET, HEAD, POST, OPTIONS\r\n")));
    got = help_talk(a, net, S("OPTIONS /named/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
    CHECK(help_has(got, S("Allow: GET, HEAD, OPTIONS\r\n")));
    CHECK(!help_has(got, S("Content-Length")));
    net_stop(net);
}

TEST(head_has_the_length_and_no_body)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct str got = help_talk(a, net,
                               S("HEAD /lane HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /much HTTP/1.1\r\n"
                                 "Host: localhost\r\n\r\n" LAST("/loop")));
    CHECK(help_has(got, S("Content-Length: 33554432\r\n")));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 3);
    CHECK(help_count(got, S("hello")) == 1);
    net_stop(net);
}

TEST(http10_is_kept_alive_when_it_asks)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct str got = help_talk(a, net,
                               S("GET /loop HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
                                 "GET /loop HTTP/1.0\r\n\r\nGET /loop HTTP/1.0\r\n\r\n"));
    CHECK(help_count(got, S("Connection: keep-alive\r\n")) == 1);
    CHECK(help_count(got, S("Connection: close\r\n")) == 1);
    CHECK(help_count(got, S("HTTP/1.1 200")) == 2);
    net_stop(net);
}

TEST(pipelined_requests_are_answered_in_order)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .limits.pipeline_max = 3 });
    struct buf b = buf_new(a);
    for (int i = 0; i < 50; i++) {
        buf_fmt(&b, "GET /named/x%d HTTP/1.1\r\nHost: localhost\r\n\r\n", i);
        buf_str(&b, i % 10 ? S(GET("/lane")) : S(GET("/late")));
    }
    buf_str(&b, S(LAST("/named/end")));
    struct str got = help_talk(a, net, buf_get(&b));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 101);
    size_t at = 0;
    for (int i = 0; i < 50; i++) {
        struct str want = fmt(a, "\r\n\r\nx%dHTTP", i);
        const char *p = memmem(got.p + at, got.n - at, want.p, want.n);
        CHECK(p);
        at = (size_t)(p - got.p);
    }
    CHECK(str_ends(got, S("\r\n\r\nend")));
    net_stop(net);
}

/* A client that sends requests and reads nothing is not read from, either. */
TEST(pipelining_pushes_back)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1 });
    int fd = help_connect(net);
    struct buf b = buf_new(a);
    for (int i = 0; i < 2000; i++)
        buf_str(&b, S(GET("/much")));
    ssize_t sent = 0, n;
    for (int i = 0; i < 20; i++, usleep(10 * 1000))
        if ((n = send(fd, b.p, b.n, MSG_NOSIGNAL | MSG_DONTWAIT)) > 0)
            sent += n;
    int64_t connections, requests;
    net_figures(net, &connections, &requests);
    CHECK(connections == 1);
    CHECK(requests <= (int64_t)net_limits_default.pipeline_max);
    close(fd);
    net_stop(net);
}

TEST(a_body_is_asked_for_when_the_client_waits)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    int fd = help_connect(net);
    help_send(fd, S("POST /lane HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n"
                    "Content-Length: 3\r\n\r\n"));
    char got[25];
    CHECK(recv(fd, got, 25, MSG_WAITALL) == 25);
    CHECK(!memcmp(got, "HTTP/1.1 100 Continue\r\n\r\n", 25));
    help_send(fd, S("abc"));
    CHECK_STR(help_body(help_drain(a, fd)), "abc");
    close(fd);
    struct str refused = help_talk(a, net,
                                   S("POST /loop HTTP/1.1\r\nHost: localhost\r\n"
                                     "Expect: 100-continue\r\nContent-Length: 3000\r\n\r\n"));
    CHECK(help_status(refused) == 413);
    net_stop(net);
}

TEST(a_slash_that_was_encoded_is_data)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/named/a%2Fb%20c")))), "a/b c");
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/named/%C3%A4%3F")))), "ä?");
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/rest/a/b%2fc/d")))), "a/b/c/d");
    CHECK(help_status(help_talk(a, net, S(LAST("/named/a/b")))) == 404);
    net_stop(net);
}

/* A client that sends and shuts its side still gets all its replies. */
TEST(a_half_closed_client_is_answered)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    int fd = help_connect(net);
    help_send(fd, S(GET("/late") GET("/loop") "GET /half"));
    shutdown(fd, SHUT_WR);
    CHECK(help_count(help_drain(a, fd), S("HTTP/1.1 200")) == 2);
    close(fd);
    net_stop(net);
}
