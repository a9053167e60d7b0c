// SPDX-License-Identifier: Apache-2.0
#define SUITE net_server
#include "help.h"
#include <stdatomic.h>

TEST(only_loopback_is_listened_to)
{
    struct net *net;
    struct net_config c = { .routes = help_tables };
    static const struct str public[] = { S_INIT("0.0.0.0:0"), S_INIT("[::]:0"), S_INIT("192.0.2.1:0") };
    for (size_t i = 0; i < 3; i++) {
        c.listen = public[i];
        err e = net_start(&c, &net);
        CHECK_ERR(e, INVALID);
        CHECK(e->hint.n);
    }
    static const struct str wrong[] = { S_INIT(""),
                                        S_INIT("127.0.0.1"),
                                        S_INIT("127.0.0.1:70000"),
                                        S_INIT(":80"),
                                        S_INIT("nowhere.invalid:80"),
                                        S_INIT("[::1:80"),
                                        S_INIT("127.0.0.1:-1") };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        c.listen = wrong[i];
        CHECK_ERR(net_start(&c, &net), INVALID);
    }
    err_reset();
}

TEST(a_taken_port_is_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 3 }), *second;
    struct net_config c = { .listen = net_address(net), .routes = help_tables };
    err e = net_start(&c, &second);
    CHECK_ERR(e, UNAVAILABLE);
    CHECK(help_has(e->text, net_address(net)));
    err_reset();
    c.listen = str_dup(a, net_address(net));
    CHECK(help_status(help_talk(a, net, S(LAST("/loop")))) == 200);
    net_stop(net);
    CHECK_OK(net_start(&c, &second)); /* free again at once */
    CHECK_STR(net_address(second), c.listen);
    net_stop(second);
}

TEST(a_wrong_table_does_not_start)
{
    static const struct route no_may[] = { { M_GET, "/a", say_hello }, { 0 } };
    static const struct route twice[] = { { M_GET, "/a/{b}", say_hello, "public" },
                                          { M_GET, "/a/{c}", say_hello, "public" },
                                          { 0 } };
    static const struct route no_run[] = { { M_GET, "/a", .may = "public" }, { 0 } };
    static const struct route early[] = { { M_GET, "/{a...}/b", say_hello, "public" }, { 0 } };
    static const struct route *const tables[] = { no_may, twice, no_run, early };
    for (size_t i = 0; i < 4; i++) {
        struct net *net;
        struct net_config c = { .listen = S("127.0.0.1:0"),
                                .routes = (const struct route *[]){ tables[i], NULL } };
        CHECK_ERR(net_start(&c, &net), INVALID);
    }
    err_reset();
}

/* ---- routes ---- */

static err say_route(struct req *r)
{
    return req_reply(
        r, 200, "text/plain",
        fmt(r->a, "%s %.*s %.*s", r->route->path, STR(req_param(r, S("a"))), STR(req_param(r, S("b")))));
}
#define R(path)                                           \
    {                                                     \
        M_GET, path, say_route, "public", .on_loop = true \
    }
static const struct route tree[] = {
    R("/"),
    R("/x"),
    R("/x/{a}"),
    R("/x/lit"),
    R("/x/{a}/y"),
    R("/x/lit/z"),
    R("/x/{a}/y/{b}"),
    R("/x/{a}/f/{b...}"),
    R("/{a}/deep/er"),
    { M_PUT, "/x/lit/y", say_route, "public" },
    { 0 },
};

TEST(literal_names_come_before_parameters)
{
    static const struct {
        struct str path, got;
    } cases[] = {
        { S_INIT("/"), S_INIT("/  ") },
        { S_INIT("/x"), S_INIT("/x  ") },
        { S_INIT("/x/1"), S_INIT("/x/{a} 1 ") },
        { S_INIT("/x/lit"), S_INIT("/x/lit  ") },
        { S_INIT("/x/lit/y"), S_INIT("/x/{a}/y lit ") }, /* one step back: the literal has only PUT */
        { S_INIT("/x/lit/z"), S_INIT("/x/lit/z  ") },
        { S_INIT("/x/lit/y/2"), S_INIT("/x/{a}/y/{b} lit 2") },
        { S_INIT("/x/1/f/a/b/c"), S_INIT("/x/{a}/f/{b...} 1 a/b/c") },
        { S_INIT("/x/1/f/"), S_INIT("/x/{a}/f/{b...} 1 ") },
        { S_INIT("/x/deep/er"), S_INIT("/{a}/deep/er x ") },
    };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = (const struct route *[]){ tree, NULL } });
    struct http *h = help_client(a, net);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct http_reply got;
        CHECK_OK(http_do(h, a, M_GET, cases[i].path, S(""), S(""), &got));
        CHECK_STR(got.body, cases[i].got);
    }
    struct http_reply got;
    CHECK_OK(http_do(h, a, M_GET, S("/x/"), S(""), S(""), &got));
    CHECK(got.status == 404);
    http_close(h);
    net_stop(net);
}

static err say_query(struct req *r)
{
    struct str v;
    if (!req_query(r, S("name"), &v))
        FAIL(NOT_FOUND, "no name");
    return req_reply(r, 200, "text/plain", v);
}

TEST(queries_are_decoded)
{
    static const struct route table[] = { { M_GET, "/q", say_query, "public", .on_loop = true }, { 0 } };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = (const struct route *[]){ table, NULL } });
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/q?x=1&name=a+b%26c&name=2")))), "a b&c");
    CHECK_STR(help_body(help_talk(a, net, S(LAST("/q?name")))), "");
    CHECK(help_status(help_talk(a, net, S(LAST("/q?names=1")))) == 404);
    CHECK(help_status(help_talk(a, net, S(LAST("/q?name=%4")))) == 404);
    CHECK_STR(url_encode(a, S("a b/ä&")), "a%20b%2F%C3%A4%26");
    net_stop(net);
}

/* ---- before, fail, after ---- */

static err only_friends(struct req *r)
{
    if (!str_is(req_header(r, S("authorization")), "Bearer friend"))
        FAIL(UNAUTHORIZED, "who are you?");
    r->who = r->app;
    return NULL;
}
static err as_json(struct req *r, err e)
{
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "detail", e->text);
    json_obj_end(&j);
    return req_reply_json(r, err_table[e->code].http, &j);
}
static atomic_int after_calls, after_errors;
static void count(const struct req *r, int status, int64_t took_ns)
{
    CHECK(r->id.n && took_ns >= 0);
    after_calls++;
    after_errors += status >= 400;
}

TEST(strangers_learn_nothing)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start(
        (struct net_config){ .before = only_friends, .fail = as_json, .after = count });
    static const struct str asked[] = {
        S_INIT(LAST("/loop")), S_INIT(LAST("/lane")), S_INIT(LAST("/nowhere")),
        S_INIT("PUT /loop HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    for (size_t i = 0; i < 4; i++) {
        struct str got = help_talk(a, net, asked[i]);
        CHECK(help_status(got) == 401);
        CHECK_STR(help_body(got), "{\"detail\":\"who are you?\"}");
    }
    struct http *h;
    CHECK_OK(http_open(fmt(a, "http://%.*s", STR(net_address(net))), S("friend"), 5000, &h));
    struct http_reply got;
    CHECK_OK(http_do(h, a, M_GET, S("/lane"), S(""), S(""), &got));
    CHECK(got.status == 200);
    CHECK_OK(http_do(h, a, M_GET, S("/nowhere"), S(""), S(""), &got));
    CHECK(got.status == 404);
    http_close(h);
    net_stop(net);
    CHECK(after_calls == 6 && after_errors == 5);
}

static err fails_itself(struct req *r, err e)
{
    (void)r;
    return err_wrap(e, "failing");
}

TEST(a_failing_fail_still_gives_one_reply)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .fail = fails_itself });
    struct str got = help_talk(a, net, S(GET("/no") LAST("/loop")));
    CHECK(help_count(got, S("HTTP/1.1 409")) == 1 && help_count(got, S("HTTP/1.1 200")) == 1);
    net_stop(net);
}

static err smuggle(struct req *r)
{
    req_reply_header(r, "Location", S("/a\r\nSet-Cookie: b"));
    req_reply_header(r, "cache-control", S("max-age=9"));
    return req_reply(r, 204, NULL, S("ignored"));
}

TEST(headers_are_added_replaced_and_kept_on_one_line)
{
    static const struct route table[] = { { M_GET, "/s", smuggle, "public", .on_loop = true }, { 0 } };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = (const struct route *[]){ table, NULL } });
    struct str got = help_talk(a, net, S(LAST("/s")));
    CHECK(help_has(got, S("Location: /a  Set-Cookie: b\r\n")));
    CHECK(help_has(got, S("cache-control: max-age=9\r\n")) && !help_has(got, S("no-store")));
    CHECK(!help_has(got, S("Content-Length")) && str_ends(got, S("\r\n\r\n")));
    net_stop(net);
}

/* ---- stopping ---- */

static void *ask_late(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    struct str got = help_talk(a, arg, S(GET("/late")));
    CHECK_STR(help_body(got), "late");
    return NULL;
}

TEST(requests_under_way_end_before_the_server_does)
{
    struct net *net = help_start((struct net_config){ 0 });
    int idle = help_connect(net);
    pthread_t t;
    CHECK_OK(thread_start("asks", ask_late, net, &t));
    usleep(50 * 1000);
    net_stop(net);
    pthread_join(t, NULL);
    char c;
    CHECK(recv(idle, &c, 1, 0) == 0);
    close(idle);
}

TEST(a_stop_does_not_wait_longer_than_it_may)
{
    struct net *net = help_start((struct net_config){ .limits.drain_ms_max = 100 });
    int fd = help_connect(net), half = help_connect(net);
    help_send(fd, S(GET("/much")));
    help_send(half, S("GET /loop HTTP/1.1\r\nHo"));
    usleep(100 * 1000);
    int64_t start = mono_ns();
    net_stop(net);
    CHECK(mono_ns() - start < 2000000000);
    close(fd);
    close(half);
}

TEST(a_client_that_leaves_early_harms_nobody)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .workers = 2 });
    for (int i = 0; i < 50; i++) {
        int fd = help_connect(net);
        help_send(fd, S(GET("/late") GET("/loop") GET("/much")));
        if (i % 2)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
        close(fd);
    }
    CHECK(help_status(help_talk(a, net, S(LAST("/loop")))) == 200);
    net_stop(net);
}

TEST(a_stopped_nothing_is_fine)
{
    net_stop(NULL);
    http_close(NULL);
}

/* A body that is read to its place, in pieces of every kind, and what comes right behind it. */
TEST(large_bodies_come_whole)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .loops = 1 });
    static const size_t sizes[] = {
        4095, 4096, 65535, 65536, 65537, 200000, 1 << 20, (1 << 20) + 1, 3 << 20
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t n = sizes[i];
        char *body = arena_alloc(a, n, 1);
        for (size_t k = 0; k < n; k++)
            body[k] = (char)('a' + (k * 31 + k / 997) % 26);
        struct buf b = buf_new(a);
        buf_fmt(&b, "POST /lane HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\n\r\n", n);
        size_t head = b.n;
        buf_put(&b, body, n);
        buf_str(&b, S(LAST("/loop")));
        struct str all = buf_get(&b);
        int fd = help_connect(net);
        help_send(fd, str_sub(all, 0, head + n / 3)); /* the rest comes after the loop has seen this */
        usleep(2000);
        help_send(fd, str_sub(all, head + n / 3, all.n));
        struct str got = help_drain(a, fd);
        close(fd);
        CHECK(help_has(got, (struct str){ body, n }));
        CHECK(help_has(got, S("\r\n\r\nhello")));
    }
    net_stop(net);
}
