// SPDX-License-Identifier: Apache-2.0
#define SUITE net_grpc
#include "h2help.h"
#include <stdatomic.h>
#include <zlib.h>

static atomic_int running, most, calls, reported;

static err echo(struct req *r)
{
    return req_reply(r, 200, NULL, r->body);
}
/* The code by its name in the message. */
static err refuse(struct req *r)
{
    for (enum err_code c = ERR_NONE + 1; c < ERR_COUNT; c++)
        if (str_eq(err_table[c].name, r->body))
            FAIL(c, "100%% wrong: \xc3\xa9\n%s", "next");
    FAIL(INTERNAL, "no such code");
}
static err wait_late(struct req *r)
{
    calls++;
    for (int i = 0; i < 5000 && !req_gone(r); i++)
        usleep(1000);
    CHECK(r->deadline_ns > 0);
    return req_reply(r, 200, NULL, S("too late"));
}
/* Twice what comes; "fail", "wait" and "ask" are words of command. */
static err chat(struct req *r)
{
    int now = ++running;
    if (now > most)
        most = now;
    usleep(500);
    running--;
    if (r->last)
        return req_send(r, S("bye"));
    if (str_is(r->body, "fail"))
        FAIL(CONFLICT, "as you wish");
    TRY(req_send(r, r->body));
    return req_send(r, r->body.n < 100 ? fmt(r->a, "%.*s!", STR(r->body)) : S("!"));
}
/* How far the end of what came is from an address that vectors like: a tensor's last byte stands there. */
static err end_of(struct req *r)
{
    return req_reply(r, 200, NULL, fmt(r->a, "%zu", (size_t)((uintptr_t)r->body.p + r->body.n) % 16));
}
static void *chat_later(void *arg)
{
    struct req *r = arg;
    usleep(2000);
    req_done(r, req_send(r, r->last ? S("end") : r->body));
    err_reset();
    return NULL;
}
static err later(struct req *r)
{
    pthread_t t;
    req_later(r);
    CHECK(pthread_create(&t, NULL, chat_later, r) == 0);
    pthread_detach(t);
    return NULL;
}
static err pour(struct req *r)
{
    struct str much = { arena_alloc(r->a, 100 << 10, 1), 100 << 10 };
    err e = NULL;
    for (int i = 0; i < 1000 && !e && !r->last; i++)
        e = req_send(r, much);
    return e;
}
static const struct route table[] = {
    { M_POST, "/t.T/Echo", echo, "public", .grpc = GRPC_UNARY, .body_bytes_max = 8 << 20 },
    { M_POST, "/t.T/Loop", echo, "public", .grpc = GRPC_UNARY, .on_loop = true },
    { M_POST, "/t.T/End", end_of, "public", .grpc = GRPC_UNARY, .body_bytes_max = 8 << 20 },
    { M_POST, "/t.T/Refuse", refuse, "public", .grpc = GRPC_UNARY },
    { M_POST, "/t.T/Late", wait_late, "public", .grpc = GRPC_UNARY },
    { M_POST, "/t.T/Nothing", say_nothing, "public", .grpc = GRPC_UNARY },
    { M_POST, "/t.T/Chat", chat, "public", .grpc = GRPC_STREAM, .body_bytes_max = 4 << 20 },
    { M_POST, "/t.T/LoopChat", chat, "public", .grpc = GRPC_STREAM, .on_loop = true },
    { M_POST, "/t.T/Later", later, "public", .grpc = GRPC_STREAM },
    { M_POST, "/t.T/Pour", pour, "public", .grpc = GRPC_STREAM },
    { 0 },
};
static const struct route *const tables[] = { help_routes, table, NULL };

static void on_report(const char *event, err e)
{
    (void)event;
    reported += e->code == INTERNAL;
}

static struct net *start(bool gzip)
{
    return help_start(
        (struct net_config){ .routes = tables, .loops = 1, .grpc_gzip = gzip, .report = on_report });
}

static struct str only(const struct asked *x)
{
    struct str rest = buf_get(&x->body), message;
    CHECK(h2_message(&rest, &message) && !rest.n);
    return message;
}

TEST(the_end_of_a_message_is_aligned)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    static const size_t sizes[] = { 5, 100, 70001, 1000003, 4 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct str m = { arena_alloc(a, sizes[i], 1), sizes[i] };
        struct asked *x = h2_call(c, "/t.T/End", m);
        h2_wait(c, x);
        CHECK_STR(only(x), S("0"));
    }
    h2_free(c);
    net_stop(net);
}

TEST(a_message_is_answered)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    static const size_t sizes[] = { 0, 1, 100, 70000, 4 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct str m = { arena_alloc(a, sizes[i] + 1, 1), sizes[i] };
        struct asked *x = h2_call(c, i < 3 ? "/t.T/Loop" : "/t.T/Echo", m);
        h2_wait(c, x);
        CHECK(x->status == 200 && x->grpc == 0 && x->whole && str_eq(only(x), m));
    }
    h2_free(c);
    net_stop(net);
}

TEST(errors_are_statuses_without_a_message)
{
    static const struct {
        const char *code;
        int grpc;
    } rows[] = {
        { "INVALID", 3 },   { "UNAUTHORIZED", 16 }, { "FORBIDDEN", 7 },    { "NOT_FOUND", 5 },
        { "CONFLICT", 10 }, { "TOO_LARGE", 8 },     { "LIMIT", 8 },        { "CANCELLED", 1 },
        { "INTERNAL", 13 }, { "UNSUPPORTED", 12 },  { "UNAVAILABLE", 14 }, { "TIMEOUT", 4 },
        { "GATE", 9 },      { "BUSY", 14 },
    };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct asked *x = h2_call(c, "/t.T/Refuse", str_of(rows[i].code));
        h2_wait(c, x);
        cr_assert(x->grpc == rows[i].grpc, "%s: %d", rows[i].code, x->grpc);
        CHECK(x->status == 200 && x->heads && x->body.n == 0 && x->whole);
        if (rows[i].grpc == 13)
            CHECK(!strstr(x->message, "next") && strstr(x->message, "the log has it"));
        else
            CHECK(!strcmp(x->message, "100%25 wrong: %C3%A9%0Anext"));
    }
    CHECK(reported == 1);
    h2_free(c);
    net_stop(net);
}

TEST(what_is_no_call_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    static const char *const json[] = { "content-type", "application/json", NULL };
    static const char *const proto[] = { "content-type", "application/grpc+proto", NULL };
    static const char *const web[] = { "content-type", "application/grpc-web", NULL };
    static const char *const slow[] = { "content-type", "application/grpc", "grpc-timeout", "1 m", NULL };
    struct str big = { arena_alloc(a, 2 << 20, 1), 2 << 20 };
    struct {
        struct asked *x;
        int status, grpc;
    } rows[] = {
        { h2_call(c, "/t.T/Unknown", S("")), 200, 12 },
        { h2_call(c, "/lane", S("")), 200, 12 }, /* a path, but not of gRPC */
        { h2_ask(c, "POST", "/t.T/Echo", S("{}"), false, json), 415, -1 },
        { h2_ask(c, "POST", "/t.T/Echo", S("{}"), false, web), 415, -1 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, S("x"), false), false, proto), 200, 0 },
        { h2_ask(c, "POST", "/t.T/Echo", S("\0\0\0\0"), false, grpc_fields), 200, 3 },
        { h2_ask(c, "POST", "/t.T/Echo", S("\0\0\0\0\2x"), false, grpc_fields), 200, 3 },
        { h2_ask(c, "POST", "/t.T/Echo", S("\7\0\0\0\1x"), false, grpc_fields), 200, 3 },
        { h2_ask(c, "POST", "/t.T/Echo", S(""), false, slow), 200, 3 },
        { h2_call(c, "/t.T/Loop", big), 200, 8 },
        { h2_call(c, "/t.T/Nothing", S("")), 200, 13 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        h2_wait(c, rows[i].x);
        cr_assert(rows[i].x->status == rows[i].status && rows[i].x->grpc == rows[i].grpc, "%zu: %d, %d", i,
                  rows[i].x->status, rows[i].x->grpc);
    }
    h2_free(c);
    struct str got = help_talk(a, net,
                               S("POST /t.T/Echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                                 "Content-Type: application/grpc\r\nContent-Length: 0\r\n\r\n"));
    CHECK(help_status(got) == 415);
    net_stop(net);
}

TEST(a_deadline_is_kept_by_the_server)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    static const char *const soon[] = { "content-type", "application/grpc", "grpc-timeout", "30m", NULL };
    static const char *const far[] = { "content-type", "application/grpc", "grpc-timeout", "1H", NULL };
    struct asked *x = h2_ask(c, "POST", "/t.T/Late", framed(a, S(""), false), false, soon);
    struct asked *half = h2_ask(c, "POST", "/t.T/Echo", S("\0"), true, soon);
    struct asked *chats = h2_ask(c, "POST", "/t.T/Chat", framed(a, S("hi"), false), true, soon);
    struct asked *y = h2_ask(c, "POST", "/t.T/Echo", framed(a, S("in time"), false), false, far);
    h2_wait(c, y);
    h2_wait(c, x);
    h2_wait(c, half);
    h2_wait(c, chats);
    cr_assert(y->grpc == 0 && x->grpc == 4 && half->grpc == 4 && chats->grpc == 4, "%d %d %d %d", y->grpc,
              x->grpc, half->grpc, chats->grpc);
    CHECK(x->body.n == 0 && chats->body.n > 0);
    h2_free(c);
    net_stop(net);
}

static struct str gzipped(struct arena *a, struct str in, int bits)
{
    z_stream z = { .next_in = (Bytef *)in.p, .avail_in = (uInt)in.n };
    CHECK(deflateInit2(&z, 9, Z_DEFLATED, bits, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    char *p = arena_alloc(a, in.n + 1000, 1);
    z.next_out = (Bytef *)p;
    z.avail_out = (uInt)in.n + 1000;
    CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
    deflateEnd(&z);
    return (struct str){ p, (size_t)((char *)z.next_out - p) };
}

TEST(compression_is_undone_within_limits)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(true);
    struct h2 *c = h2_connect(a, net);
    static const char *const gzip[] = { "content-type",
                                        "application/grpc",
                                        "grpc-encoding",
                                        "gzip",
                                        "grpc-accept-encoding",
                                        "identity,gzip",
                                        NULL };
    static const char *const deflated[] = { "content-type", "application/grpc", "grpc-encoding", "deflate",
                                            NULL };
    static const char *const other[] = { "content-type", "application/grpc", "grpc-encoding", "br", NULL };
    struct str text = { arena_alloc(a, 50000, 1), 50000 }, bomb = { arena_alloc(a, 9 << 20, 1), 9 << 20 };
    struct str packed = gzipped(a, text, 31);
    struct {
        struct asked *x;
        int grpc;
    } rows[] = {
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, packed, true), false, gzip), 0 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, gzipped(a, text, 15), true), false, deflated), 0 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, gzipped(a, bomb, 31), true), false, gzip), 8 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, str_sub(packed, 0, packed.n - 9), true), false, gzip), 3 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, packed, true), false, other), 12 },
        { h2_ask(c, "POST", "/t.T/Echo", framed(a, text, false), false, gzip), 0 },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        h2_wait(c, rows[i].x);
        cr_assert(rows[i].x->grpc == rows[i].grpc, "%zu: %d %s", i, rows[i].x->grpc, rows[i].x->message);
    }
    CHECK(rows[0].x->body.n < 1000 && rows[0].x->body.p[0] == 1); /* it takes gzip */
    CHECK(str_eq(only(rows[1].x), text));                         /* it does not say so */
    h2_free(c);
    net_stop(net);
}

/* ---- calls with many messages ---- */

static void resume(struct h2 *c, struct asked *x, struct str more, bool open)
{
    x->send = more;
    x->open = open;
    nghttp2_session_resume_data(c->s, x->id);
}

static struct str joined(struct arena *a, struct str replies)
{
    struct buf b = buf_new(a);
    for (struct str m; h2_message(&replies, &m);)
        buf_fmt(&b, "%.*s ", STR(m));
    CHECK(!replies.n);
    return buf_get(&b);
}

TEST(messages_are_handled_in_order_one_at_a_time)
{
    static const char *const paths[] = { "/t.T/Chat", "/t.T/LoopChat" };
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    for (size_t k = 0; k < 2; k++) {
        most = 0;
        struct buf in = buf_new(a), want = buf_new(a);
        for (int i = 0; i < 50; i++) {
            struct str m = fmt(a, "%d", i);
            buf_str(&in, framed(a, m, false));
            buf_fmt(&want, "%d %d! ", i, i);
        }
        buf_str(&want, S("bye "));
        struct asked *x = h2_ask(c, "POST", paths[k], buf_get(&in), false, grpc_fields);
        h2_wait(c, x);
        CHECK(x->grpc == 0 && x->whole && most == 1);
        CHECK(str_eq(joined(a, buf_get(&x->body)), buf_get(&want)));
    }
    h2_free(c);
    net_stop(net);
}

TEST(both_sides_talk_by_turns)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    struct asked *x = h2_ask(c, "POST", "/t.T/Chat", S(""), true, grpc_fields);
    struct asked *y = h2_ask(c, "POST", "/t.T/Later", S(""), true, grpc_fields);
    for (size_t i = 1; i <= 5; i++) {
        struct str m = framed(a, S("ab"), false);
        resume(c, x, str_sub(m, 0, 3), true); /* a message in pieces */
        h2_turn(c, 5);
        resume(c, x, str_sub(m, 3, m.n), true);
        resume(c, y, m, true);
        while (x->body.n < i * 15 || y->body.n < i * 7)
            CHECK(h2_turn(c, 10 * 1000));
    }
    CHECK(!x->ended && x->grpc == -1);
    resume(c, x, S(""), false);
    resume(c, y, S(""), false);
    h2_wait(c, x);
    h2_wait(c, y);
    CHECK(x->grpc == 0 && y->grpc == 0);
    CHECK(str_ends(joined(a, buf_get(&y->body)), S("ab end ")));
    h2_free(c);
    net_stop(net);
}

TEST(an_error_ends_the_call)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    struct asked *first = h2_ask(c, "POST", "/t.T/Chat", framed(a, S("fail"), false), true, grpc_fields);
    struct buf two = buf_new(a);
    buf_str(&two, framed(a, S("hi"), false));
    buf_str(&two, framed(a, S("fail"), false));
    buf_str(&two, framed(a, S("never"), false));
    struct asked *second = h2_ask(c, "POST", "/t.T/Chat", buf_get(&two), true, grpc_fields);
    struct asked *cut = h2_ask(c, "POST", "/t.T/Chat", S("\0\0\0"), false, grpc_fields);
    struct asked *wrong = h2_ask(c, "POST", "/t.T/Chat", S("\x9\0\0\0\0"), true, grpc_fields);
    struct asked *large = h2_ask(c, "POST", "/t.T/Chat", S("\0\x7f\0\0\0"), true, grpc_fields);
    struct asked *empty = h2_ask(c, "POST", "/t.T/Pour", S(""), false, grpc_fields);
    h2_wait(c, first);
    h2_wait(c, second);
    h2_wait(c, cut);
    h2_wait(c, wrong);
    h2_wait(c, large);
    h2_wait(c, empty);
    CHECK(first->grpc == 10 && first->heads && !strcmp(first->message, "as you wish"));
    CHECK(second->grpc == 10 && !second->heads);
    CHECK_STR(joined(a, buf_get(&second->body)), "hi hi! ");
    CHECK(cut->grpc == 3 && wrong->grpc == 3 && large->grpc == 8);
    CHECK(empty->grpc == 0 && empty->heads); /* nothing was said */
    h2_free(c);
    net_stop(net);
}

TEST(large_messages_wait_for_their_turn)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    struct str m = { arena_alloc(a, 4 << 20, 1), 4 << 20 };
    struct buf in = buf_new(a);
    for (int i = 0; i < 4; i++)
        buf_str(&in, framed(a, m, false));
    struct asked *x = h2_ask(c, "POST", "/t.T/Chat", buf_get(&in), false, grpc_fields);
    h2_wait(c, x);
    cr_assert(x->grpc == 0 && x->body.n == 4 * (m.n + 5 + 6) + 8, "%d %s: %zu", x->grpc, x->message,
              x->body.n);
    h2_free(c);
    net_stop(net);
}

TEST(a_client_that_does_not_read_a_call_is_cut)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_new(a, help_connect(net), true);
    struct asked *x = h2_ask(c, "POST", "/t.T/Pour", framed(a, S("x"), false), true, grpc_fields);
    h2_wait(c, x);
    CHECK(!x->whole);
    h2_free(c);
    net_stop(net);
}

TEST(a_stop_ends_calls_that_are_idle)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = start(false);
    struct h2 *c = h2_connect(a, net);
    struct asked *x = h2_ask(c, "POST", "/t.T/Chat", framed(a, S("hi"), false), true, grpc_fields);
    while (x->body.n < 15)
        CHECK(h2_turn(c, 10 * 1000));
    pthread_t t;
    CHECK(!thread_start("stop", h2_stop, net, &t));
    h2_wait_closed(c);
    CHECK(x->grpc == 14 && c->goaway);
    pthread_join(t, NULL);
    h2_free(c);
}
