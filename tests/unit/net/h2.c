// SPDX-License-Identifier: Apache-2.0
#define SUITE net_h2
#include "h2help.h"
#include <stdatomic.h>

static struct stream *_Atomic made;
static atomic_int came, left; /* requests in wait_gone(), and those that req_gone() told of */

static err make(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/event-stream", &s));
    made = s;
    return NULL;
}
static err say_headers(struct req *r)
{
    req_reply_header(r, "X-Told", S("a\r\nb"));
    return req_reply(r, 200, "text/plain",
                     fmt(r->a, "%.*s|%.*s", STR(req_header(r, S("host"))), STR(req_header(r, S("cookie")))));
}
static err wait_gone(struct req *r)
{
    came++;
    for (int i = 0; i < 5000 && !req_gone(r); i++)
        usleep(1000);
    left += req_gone(r);
    return req_reply(r, 200, NULL, S(""));
}
static const struct route table[] = {
    { M_GET, "/stream", make, "public" },
    { M_GET, "/headers", say_headers, "public", .on_loop = true },
    { M_GET, "/gone", wait_gone, "public" },
    { 0 },
};
static const struct route *const tables[] = { help_routes, table, NULL };

static struct net *start(struct net_limits limits)
{
    return help_start((struct net_config){ .routes = tables, .loops = 1, .limits = limits });
}

TEST(many_at_once_in_any_order)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    struct asked *late = h2_get(c, "/late"), *last = NULL;
    for (int i = 0; i < 100; i++)
        last = h2_get(c, i % 2 ? "/loop" : "/lane");
    h2_wait(c, last);
    CHECK(!late->ended); /* those that came after it did not wait */
    for (size_t i = 0; i < c->n; i++) {
        h2_wait(c, &c->asked[i]);
        CHECK(c->asked[i].status == 200 && c->asked[i].whole);
        CHECK_STR(buf_get(&c->asked[i].body), i ? "hello" : "late");
    }
    h2_free(c);
    net_stop(net);
}

TEST(errors_and_heads_are_as_in_http1)
{
    static const struct {
        const char *method, *path;
        int status;
    } rows[] = {
        { "GET", "/nowhere", 404 },  { "DELETE", "/loop", 405 }, { "PROPFIND", "/loop", 501 },
        { "GET", "/no", 409 },       { "GET", "/a//b", 400 },    { "HEAD", "/loop", 200 },
        { "OPTIONS", "/loop", 204 }, { "GET", "/nothing", 500 }, { "GET", "/../x", 400 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct asked *x = h2_ask(c, rows[i].method, rows[i].path, S(""), false, NULL);
        h2_wait(c, x);
        cr_assert(x->status == rows[i].status, "%s %s: %d", rows[i].method, rows[i].path, x->status);
        CHECK(rows[i].status != 200 || x->body.n == 0);
    }
    static const char *const foreign[] = { "origin", "http://evil.example", NULL };
    struct asked *x = h2_ask(c, "POST", "/loop", S("x"), false, foreign);
    h2_wait(c, x);
    CHECK(x->status == 403);
    h2_free(c);
    net_stop(net);
}

TEST(cookies_are_joined_and_values_smuggle_nothing)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    static const char *const crumbs[] = { "cookie", "a=1", "x-y", "z", "cookie", "b=2", NULL };
    struct asked *x = h2_ask(c, "GET", "/headers", S(""), false, crumbs);
    h2_wait(c, x);
    CHECK(x->status == 200 && x->whole);
    CHECK_STR(buf_get(&x->body), "localhost|a=1; b=2");
    static const char *const other[] = { "host", "evil.example", NULL };
    x = h2_ask(c, "GET", "/headers", S(""), false, other);
    h2_wait(c, x);
    CHECK(x->status == 400);
    h2_free(c);
    net_stop(net);
}

TEST(bodies_of_any_size_come_and_go)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    static const size_t sizes[] = { 0, 1, 16384, 65535, 65536, 1 << 20, 20 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct str body = { arena_alloc(a, sizes[i] + 1, 1), sizes[i] };
        memset((char *)body.p, 'a' + (int)i, body.n);
        struct asked *x = h2_ask(c, "POST", "/lane", body, false, NULL);
        h2_wait(c, x);
        CHECK(x->status == 200 && str_eq(buf_get(&x->body), body));
    }
    h2_free(c);
    net_stop(net);
}

/* A refusal ends its own exchange; the connection goes on. */
TEST(limits_refuse_one_request)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(
        (struct net_limits){ .header_bytes_max = 2000, .headers_max = 10, .body_ms_max = 200 });
    struct h2 *c = h2_connect(a, net);
    struct str big = { arena_alloc(a, 100000, 1), 100000 };
    char *text = arena_alloc(a, 3001, 1);
    memset(text, 'x', 3000);
    const char *const declared[] = { "content-length", "100000", NULL };
    const char *const wide[] = { "x-wide", text, NULL };
    const char *many[32] = { 0 };
    for (int i = 0; i < 22; i += 2)
        many[i] = "x-many", many[i + 1] = "1";
    text[0] = '/';
    struct {
        struct asked *x;
        int status;
    } rows[] = {
        { h2_ask(c, "POST", "/loop", big, false, NULL), 413 },
        { h2_ask(c, "POST", "/loop", big, false, declared), 413 },
        { h2_ask(c, "GET", "/loop", S(""), false, wide), 431 },
        { h2_ask(c, "GET", "/loop", S(""), false, many), 431 },
        { h2_get(c, text), 414 },
        { h2_ask(c, "POST", "/loop", S("half"), true, NULL), 408 },
        { h2_get(c, "/loop"), 200 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        while (!rows[i].x->ended && h2_turn(c, 10 * 1000))
            ;
        cr_assert(rows[i].x->status == rows[i].status, "%zu: %d", i, rows[i].x->status);
    }
    CHECK(!c->closed && !c->goaway);
    h2_free(c);
    net_stop(net);
}

TEST(a_stream_comes_as_it_is_sent)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    struct asked *x = h2_get(c, "/stream");
    struct stream *s = NULL;
    while (!s) {
        h2_turn(c, 10);
        s = atomic_exchange(&made, NULL);
    }
    CHECK(stream_send(s, S("one\n")));
    while (x->body.n < 4)
        CHECK(h2_turn(c, 10 * 1000));
    CHECK(x->status == 200 && !x->ended);
    struct asked *other = h2_get(c, "/loop"); /* beside it */
    h2_wait(c, other);
    CHECK(stream_send(s, S("two\n")));
    stream_close(s);
    h2_wait(c, x);
    CHECK_STR(buf_get(&x->body), "one\ntwo\n");
    h2_free(c);
    net_stop(net);
}

TEST(a_reset_tells_the_handler)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    struct asked *x = h2_get(c, "/gone");
    while (!came) /* one that is reset before a worker takes it has no handler to tell */
        h2_turn(c, 10);
    nghttp2_submit_rst_stream(c->s, 0, x->id, NGHTTP2_CANCEL);
    while (!left)
        h2_turn(c, 10);
    struct asked *y = h2_get(c, "/loop");
    h2_wait(c, y);
    CHECK(y->status == 200);
    h2_free(c);
    net_stop(net);
}

/* ---- those that mean harm ---- */

TEST(a_window_that_stays_shut_is_cut)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ .write_ms_max = 200 });
    struct h2 *c = h2_new(a, help_connect(net), true);
    struct asked *x = h2_get(c, "/much");
    h2_wait(c, x);
    CHECK(!x->whole && x->reset == NGHTTP2_CANCEL && x->body.n > 0 && x->body.n < 100000);
    h2_free(c);
    net_stop(net);
}

static void flood_ping(struct h2 *c)
{
    nghttp2_submit_ping(c->s, 0, NULL);
}
static void flood_settings(struct h2 *c)
{
    nghttp2_submit_settings(c->s, 0, NULL, 0);
}
static void flood_priority(struct h2 *c)
{
    nghttp2_priority_spec p;
    nghttp2_priority_spec_init(&p, 0, 1, 0);
    nghttp2_submit_priority(c->s, 0, 1001, &p);
}
static void flood_reset(struct h2 *c)
{
    if (c->n + 1 >= ASKS_MAX)
        return;
    struct asked *x = h2_get(c, "/late");
    h2_push(c);
    nghttp2_submit_rst_stream(c->s, 0, x->id, NGHTTP2_CANCEL);
}

TEST(floods_of_frames_end_the_connection)
{
    static void (*const floods[])(struct h2 *) = { flood_ping, flood_settings, flood_priority, flood_reset };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        struct h2 *c = h2_connect(a, net);
        for (int n = 0; n < 20000 && !c->goaway && !c->closed; n++) {
            floods[i](c);
            if (n % 64 == 0)
                h2_turn(c, 0);
            else
                h2_push(c);
        }
        h2_wait_closed(c);
        h2_free(c);
    }
    struct h2 *c = h2_connect(a, net); /* a few are fine */
    for (int i = 0; i < 50; i++)
        flood_ping(c);
    while (c->pongs < 50)
        CHECK(h2_turn(c, 10 * 1000));
    h2_free(c);
    net_stop(net);
}

TEST(a_head_that_never_ends_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    int fd = help_connect(net);
    help_send(fd, S("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"));
    help_send(fd, S("\0\0\1\1\0\0\0\0\1\x82"));
    ssize_t sent = 1;
    for (int i = 0; i < 1000 && sent > 0; i++)
        sent = send(fd, "\0\0\1\x9\0\0\0\0\1\x84", 10, MSG_NOSIGNAL);
    (void)help_drain(a, fd); /* it hangs up */
    close(fd);
    net_stop(net);
}

TEST(a_preface_in_pieces_and_one_that_stops)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ .header_ms_max = 200 });
    static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    int fd = help_connect(net);
    char got[9];
    for (size_t i = 0; i < sizeof preface - 1; i++) {
        help_send(fd, (struct str){ preface + i, 1 });
        usleep(500);
    }
    CHECK(recv(fd, got, sizeof got, MSG_WAITALL) == 9 && got[3] == NGHTTP2_SETTINGS);
    close(fd);
    fd = help_connect(net);
    help_send(fd, S("PR"));
    CHECK_STR(help_drain(a, fd), "");
    close(fd);
    net_stop(net);
}

TEST(a_stop_lets_what_is_under_way_end)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start((struct net_limits){ 0 });
    struct h2 *c = h2_connect(a, net);
    struct asked *x = h2_get(c, "/late");
    h2_turn(c, 20);
    pthread_t t;
    CHECK(!thread_start("stop", h2_stop, net, &t));
    h2_wait_closed(c);
    CHECK(c->goaway && c->goaway_code == 0);
    CHECK(x->status == 200 && x->whole);
    pthread_join(t, NULL);
    h2_free(c);
}
