// SPDX-License-Identifier: Apache-2.0
#define SUITE net_later
#include "help.h"
#include <pthread.h>
#include <stdatomic.h>

/* ---- another thread replies ---- */

static void *reply_now(void *arg)
{
    struct req *r = arg;
    usleep(20 * 1000);
    if (str_is(r->path, "/fails"))
        req_done(r, err_new(CONFLICT, "it is taken"));
    else
        req_done(r, req_reply(r, 200, "text/plain", req_gone(r) ? S("gone") : S("later")));
    err_reset();
    return NULL;
}
static err say_later(struct req *r)
{
    pthread_t t;
    req_later(r);
    if (pthread_create(&t, NULL, reply_now, r))
        abort();
    pthread_detach(t);
    return NULL;
}

/* ---- what came in one round is answered at its end, as one ---- */

enum { TOGETHER_MAX = 16 };
static struct {
    struct round_task task; /* first member */
    struct req *v[TOGETHER_MAX];
    size_t n;
} waiting;

static void reply_all(struct round_task *t)
{
    (void)t;
    size_t n = waiting.n;
    struct req *v[TOGETHER_MAX];
    memcpy(v, waiting.v, sizeof v);
    waiting.n = 0;
    for (size_t i = 0; i < n; i++)
        req_done(v[i], req_reply(v[i], 200, "text/plain", fmt(v[i]->a, "%zu", n)));
}
static err say_together(struct req *r)
{
    req_later(r);
    waiting.task.run = reply_all;
    if (!waiting.n)
        req_round_end(r, &waiting.task);
    waiting.v[waiting.n++] = r;
    return NULL;
}
static bool light(struct req *r)
{
    return req_on_loop(r) && r->body.n < 3;
}
static err say_where(struct req *r)
{
    return req_reply(r, 200, "text/plain", req_on_loop(r) ? S("loop") : S("lane"));
}

static err say_alone(struct req *r)
{
    return req_reply(r, 200, "text/plain", req_alone(r) ? S("alone") : S("shared"));
}

static const struct route later_routes[] = {
    { M_GET, "/later", say_later, .may = "public" },
    { M_GET, "/loop", say_later, .may = "public", .on_loop = true },
    { M_GET, "/fails", say_later, .may = "public" },
    { M_GET, "/together", say_together, .may = "public", .on_loop = true },
    { M_GET, "/alone", say_alone, .may = "public", .on_loop = true },
    { M_POST, "/where", say_where, .may = "public", .light = light },
    { 0 },
};
static const struct route *const later_tables[] = { later_routes, NULL };

static struct net *start(void)
{
    return help_start((struct net_config){ .routes = later_tables, .loops = 1 });
}

TEST(another_thread_replies)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start();
    static const struct str both = S_INIT(GET("/later") LAST("/loop"));
    struct str got = help_talk(a, net, both);
    CHECK(help_status(got) == 200);
    CHECK(help_has(got, S("\r\n\r\nlater")));
    CHECK(str_find(str_sub(got, 20, got.n), 'H') < got.n); /* and the second */
    got = help_talk(a, net, S(LAST("/fails")));
    CHECK(help_status(got) == 409);
    CHECK(help_has(got, S("it is taken")));
    net_stop(net);
}

TEST(requests_of_one_round_are_answered_together)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start();
    struct str got = help_talk(a, net, S(GET("/together") GET("/together") LAST("/together")));
    CHECK(help_has(got, S("\r\n\r\n3")));
    net_stop(net);
}

TEST(a_light_request_runs_on_the_loop)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start();
#define POST(body, n) \
    "POST /where HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: " n "\r\n\r\n" body
    CHECK(help_has(help_talk(a, net, S(POST("ab", "2"))), S("\r\n\r\nloop")));
    CHECK(help_has(help_talk(a, net, S(POST("abc", "3"))), S("\r\n\r\nlane")));
    net_stop(net);
}

TEST(a_stop_waits_for_replies_that_are_owed)
{
    struct net *net = start();
    int fd = help_connect(net);
    CHECK(write(fd, GET("/later"), sizeof GET("/later") - 1) > 0);
    usleep(5 * 1000);
    close(fd); /* nobody waits, the thread does not know yet */
    net_stop(net);
}

static bool is_alone(int fd)
{
    char got[1024];
    help_send(fd, S(GET("/alone")));
    ssize_t n = recv(fd, got, sizeof got, 0);
    CHECK(n > 0);
    return help_has((struct str){ got, (size_t)n }, S("\r\n\r\nalone"));
}

TEST(a_connection_is_alone_when_no_other_asks_for_a_while)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start();
    int one = help_connect(net), other = help_connect(net);
    CHECK(!is_alone(one));
    usleep(50 * 1000);
    CHECK(is_alone(one) && is_alone(one));
    CHECK(!is_alone(other) && !is_alone(one));
    usleep(50 * 1000);
    CHECK(is_alone(one)); /* other is there, but idle */
    help_send(one, S(GET("/alone") LAST("/alone")));
    struct str got = help_drain(a, one);
    CHECK(help_count(got, S("\r\n\r\nalone")) == 1); /* the first one's reply would wait for the second */
    close(one);
    close(other);
    net_stop(net);
}
