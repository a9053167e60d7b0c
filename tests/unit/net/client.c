// SPDX-License-Identifier: Apache-2.0
#define SUITE net_client
#include "help.h"

/* A server of fixed answers: each connection gets one script; "" closes it at once. */
struct script {
    int fd;
    const struct str *answers; /* one per connection, ends with p NULL */
    bool hold;                 /* keep connections open after the answer */
    char heard[4096];          /* of the last connection */
    size_t heard_n, connections;
    pthread_t thread;
    char url[64];
};

static void *script_main(void *arg)
{
    struct script *s = arg;
    int held[16], held_n = 0;
    for (const struct str *answer = s->answers; answer->p; answer++) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            break;
        s->connections++;
        ssize_t n = recv(fd, s->heard, sizeof s->heard, 0);
        s->heard_n = n > 0 ? (size_t)n : 0;
        if (answer->n)
            help_send(fd, *answer);
        if (s->hold)
            held[held_n++] = fd;
        else
            close(fd);
    }
    char c;
    while (held_n) {
        (void)!recv(held[--held_n], &c, 1, 0);
        close(held[held_n]);
    }
    return NULL;
}

static void script_start(struct script *s)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    s->fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(s->fd, (struct sockaddr *)&at, n) == 0 && listen(s->fd, 8) == 0);
    getsockname(s->fd, (struct sockaddr *)&at, &n);
    snprintf(s->url, sizeof s->url, "http://127.0.0.1:%d/", ntohs(at.sin_port));
    CHECK_OK(thread_start("script", script_main, s, &s->thread));
}

static void script_end(struct script *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
}

static struct http *script_client(struct script *s, int64_t timeout_ms)
{
    struct http *h;
    CHECK_OK(http_open(str_of(s->url), S("secret"), timeout_ms, &h));
    return h;
}

static err get(struct http *h, struct arena *a, struct http_reply *out)
{
    return http_do(h, a, M_GET, S("/x?y=1"), S(""), S(""), out);
}

TEST(replies_of_every_framing_are_read)
{
    static const struct str answers[] = {
        S_INIT("HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 3\r\n\r\nabc"),
        S_INIT(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: u\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\n\r\nabc"),
        S_INIT("HTTP/1.0 200 OK\r\n\r\nabc"),
        S_INIT(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
        { 0 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct script s = { .answers = answers };
    script_start(&s);
    struct http *h = script_client(&s, 2000);
    struct http_reply got;
    CHECK_OK(get(h, a, &got));
    CHECK_STR(got.content_type, "a/b");
    struct str heard = { s.heard, s.heard_n };
    CHECK(str_starts(heard, S("GET /x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:")));
    CHECK(help_has(heard, S("Authorization: Bearer secret\r\n")));
    CHECK_STR(got.body, "abc");
    for (int i = 1; i < 5; i++) {
        CHECK_OK(get(h, a, &got));
        CHECK(got.status == 200);
        CHECK_STR(got.body, "abc");
    }
    http_close(h);
    script_end(&s);
}

TEST(broken_replies_are_errors)
{
    static const struct str answers[] = {
        S_INIT("SSH-2.0-OpenSSH\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        S_INIT("HTTP/1.1 200"),
        S_INIT(""),
        { 0 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct script s = { .answers = answers };
    script_start(&s);
    struct http *h = script_client(&s, 2000);
    struct http_reply got;
    for (int i = 0; i < 6; i++)
        CHECK_ERR(get(h, a, &got), UNAVAILABLE);
    CHECK(s.connections == 6);
    err_reset();
    http_close(h);
    script_end(&s);
}

TEST(silence_is_a_timeout)
{
    static const struct str answers[] = { S_INIT(""),
                                          S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc"),
                                          { 0 } };
    auto_arena struct arena *a = arena_new(0);
    struct script s = { .answers = answers, .hold = true };
    script_start(&s);
    struct http *h = script_client(&s, 100);
    struct http_reply got;
    int64_t start = mono_ns();
    CHECK_ERR(get(h, a, &got), TIMEOUT);
    CHECK_ERR(get(h, a, &got), TIMEOUT);
    CHECK(mono_ns() - start < 2000000000);
    err_reset();
    http_close(h);
    script_end(&s);
}

/* Closed while it was idle: read-only requests are repeated, others only if they never left. */
TEST(stale_connections_are_renewed)
{
    static const struct str answers[] = {
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb"),
        S_INIT("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nc"),
        { 0 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct script s = { .answers = answers };
    script_start(&s);
    struct http *h = script_client(&s, 2000);
    struct http_reply got;
    CHECK_OK(get(h, a, &got));
    CHECK_STR(got.body, "a");
    usleep(20 * 1000);
    CHECK_OK(get(h, a, &got));
    CHECK_STR(got.body, "b");
    usleep(20 * 1000);
    CHECK_OK(http_do(h, a, M_POST, S("/"), S("a/b"), S("body"), &got));
    CHECK_STR(got.body, "c");
    CHECK(s.connections == 3);
    http_close(h);
    script_end(&s);
}

TEST(nobody_there_has_a_hint)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ 0 });
    struct http *h = help_client(a, net);
    net_stop(net);
    struct http_reply got;
    err e = get(h, a, &got);
    CHECK_ERR(e, UNAVAILABLE);
    CHECK_STR(e->hint, "is `dhow serve` running there?");
    err_reset();
    http_close(h);
}

TEST(wrong_addresses_and_requests_are_refused)
{
    auto_arena struct arena *a = arena_new(0);
    static const struct str wrong[] = { S_INIT(""),
                                        S_INIT("localhost:80"),
                                        S_INIT("ftp://localhost"),
                                        S_INIT("http://"),
                                        S_INIT("http://a b"),
                                        S_INIT("http://user@host"),
                                        S_INIT("http://host:port"),
                                        S_INIT("http://host/a b") };
    struct http *h;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_ERR(http_open(wrong[i], S(""), 0, &h), INVALID);
    CHECK_ERR(http_open(S("http://localhost"), S("a\r\nb"), 0, &h), INVALID);
    CHECK_OK(http_open(S("http://[::1]:1/base/"), S(""), 100, &h));
    struct http_reply got;
    CHECK_ERR(http_do(h, a, M_GET, S("x"), S(""), S(""), &got), INVALID);
    CHECK_ERR(http_do(h, a, M_GET, S("/a b"), S(""), S(""), &got), INVALID);
    CHECK_ERR(http_do(h, a, M_GET, S("/a\r\nHost: b"), S(""), S(""), &got), INVALID);
    CHECK_ERR(http_do(h, a, M_POST, S("/"), S("a\nb"), S(""), &got), INVALID);
    err_reset();
    http_close(h);
}

TEST(a_reply_over_its_arena_is_too_large)
{
    struct net *net = help_start((struct net_config){ 0 });
    auto_arena struct arena *urls = arena_new(0), *a = arena_new(1 << 20);
    struct http *h = help_client(urls, net);
    struct http_reply got;
    CHECK_ERR(http_do(h, a, M_GET, S("/much"), S(""), S(""), &got), TOO_LARGE);
    CHECK_OK(http_do(h, a, M_HEAD, S("/much"), S(""), S(""), &got));
    CHECK(got.status == 200 && !got.body.n);
    CHECK_OK(http_do(h, a, M_GET, S("/loop"), S(""), S(""), &got));
    CHECK_STR(got.body, "hello");
    err_reset();
    http_close(h);
    net_stop(net);
}

/* ---- streams ---- */

static bool collect(void *arg, struct str line)
{
    struct buf *b = arg;
    buf_str(b, line);
    buf_str(b, S("|"));
    return !str_is(line, "stop");
}

TEST(lines_come_whole_however_they_are_cut)
{
    static const struct str answers[] = {
        S_INIT(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\n\ntw\r\n6\r\no\r\n\n\nt\r\n4\r\nhree\r\n0\r\n\r\n"),
        S_INIT("HTTP/1.1 200 OK\r\n\r\na\nstop\nb\n"),
        S_INIT("HTTP/1.1 404 Not Found\r\nContent-Length: 7\r\n\r\nnothing"),
        S_INIT("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\na\n\r\n"),
        { 0 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct script s = { .answers = answers };
    script_start(&s);
    struct http *h = script_client(&s, 2000);
    struct buf b = buf_new(a);
    CHECK_OK(http_stream(h, a, S("/"), collect, &b));
    CHECK_STR(buf_get(&b), "one|two|||three|");
    b.n = 0;
    CHECK_OK(http_stream(h, a, S("/"), collect, &b));
    CHECK_STR(buf_get(&b), "a|stop|");
    CHECK_ERR(http_stream(h, a, S("/"), collect, &b), NOT_FOUND);
    CHECK_ERR(http_stream(h, a, S("/"), collect, &b), UNAVAILABLE); /* cut off */
    err_reset();
    http_close(h);
    script_end(&s);
}

static err pause_then_say(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/event-stream", &s));
    stream_send(s, S("one\n"));
    usleep(400 * 1000);
    stream_send(s, S("two\n"));
    stream_close(s);
    return NULL;
}

TEST(a_stream_may_be_silent_for_long)
{
    static const struct route table[] = { { M_GET, "/s", pause_then_say, "public" }, { 0 } };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = (const struct route *[]){ table, NULL } });
    struct http *h;
    CHECK_OK(http_open(fmt(a, "http://%.*s", STR(net_address(net))), S(""), 100, &h));
    struct buf b = buf_new(a);
    CHECK_OK(http_stream(h, a, S("/s"), collect, &b));
    CHECK_STR(buf_get(&b), "one|two|");
    CHECK_OK(http_stream(h, a, S("/s"), collect, &b)); /* the connection goes on */
    http_close(h);
    net_stop(net);
}
