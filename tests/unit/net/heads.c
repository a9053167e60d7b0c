// SPDX-License-Identifier: Apache-2.0
/* Heads that come again on a connection: whatever was kept, a handler sees what it would have seen. */
#define SUITE heads
#include "help.h"

/* What the handler sees, and how many requests of this head it was asked for (0: the head is not kept yet). */
static err tell(struct req *r)
{
    struct req_memo *memo = req_memo(r);
    if (memo && !memo->handler)
        memo->handler = NEW(memo->a, int);
    int times = memo ? ++*(int *)memo->handler : 0;
    if (req_header(r, S("x-drop")).n)
        req_memo_drop(r);
    return req_reply(r, 200, "text/plain",
                     fmt(r->a, "%d %.*s %.*s %.*s?%.*s %.*s %.*s %.*s\n", times, STR(r->method), STR(r->path),
                         STR(req_param(r, S("name"))), STR(r->query), STR(req_header(r, S("x-a"))),
                         STR(req_header(r, S("content-length"))), STR(r->body)));
}
static const struct route rows[] = {
    { M_POST, "/tell/{name}", tell, .may = "public", .on_loop = true, .body_bytes_max = 5 },
    { M_POST, "/lane/{name}", tell, .may = "public" },
    { M_GET, "/tell/{name}", tell, .may = "public", .on_loop = true },
    { 0 },
};
static const struct route *const tables[] = { rows, NULL };

#define POST(path, a, n, body) \
    "POST " path " HTTP/1.1\r\nHost: localhost\r\nX-A: " a "\r\nContent-Length: " n "\r\nX-B: c\r\n\r\n" body
#define END "GET /tell/z HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

/* The bodies of all replies, one after the other; the last is END's. */
static struct str told(struct arena *a, struct str replies)
{
    struct buf b = buf_new(a);
    while (replies.n) {
        const char *from = memmem(replies.p, replies.n, "\r\n\r\n", 4);
        CHECK(from && (help_status(replies) == 200));
        const char *end = memchr(from + 4, '\n', (size_t)(replies.p + replies.n - from - 4));
        CHECK(end);
        buf_str(&b, (struct str){ from + 4, (size_t)(end + 1 - from - 4) });
        replies = str_sub(replies, (size_t)(end + 1 - replies.p), replies.n);
    }
    return buf_get(&b);
}

static struct str in_pieces(struct arena *a, const struct net *net, struct str s, size_t n)
{
    int fd = help_connect(net);
    for (size_t at = 0; at < s.n; at += n) {
        help_send(fd, str_sub(s, at, at + n));
        if (at + n < s.n)
            usleep(2000);
    }
    struct str got = help_drain(a, fd);
    close(fd);
    return got;
}

TEST(the_third_of_a_kind_is_not_read)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    struct str all = S(POST("/tell/n?q=1", "v", "2", "ab") POST("/tell/n?q=1", "v", "3", "cde")
                           POST("/tell/n?q=1", "v", "1", "f") POST("/tell/n?q=1", "v", "0", "")
                               POST("/tell/n?q=1", "v", "2", "gh") END);
    struct str want = S(
        "0 POST /tell/n n?q=1 v 2 ab\n0 POST /tell/n n?q=1 v 3 cde\n1 POST /tell/n n?q=1 v 1 f\n"
        "2 POST /tell/n n?q=1 v 0 \n3 POST /tell/n n?q=1 v 2 gh\n0 GET /tell/z z?   \n");
    CHECK_STR(told(a, help_talk(a, net, all)), want);
    /* A head that comes in two reads is read; its body may come in any number. */
    struct str unkept = told(a, in_pieces(a, net, all, 50));
    CHECK(help_has(unkept, S("v 2 gh\n0 GET")));
    net_stop(net);
}

TEST(another_head_is_another_request)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    struct str got = told(
        a, help_talk(a, net,
                     S(POST("/tell/n", "v", "1", "a") POST("/tell/n", "v", "1", "b")
                           POST("/tell/n", "v", "1", "c") POST("/tell/m", "v", "1", "d")
                               POST("/tell/n", "w", "1", "e") POST("/tell/n", "v", "1", "f") END)));
    CHECK_STR(
        got,
        "0 POST /tell/n n? v 1 a\n0 POST /tell/n n? v 1 b\n1 POST /tell/n n? v 1 c\n"
        "0 POST /tell/m m? v 1 d\n0 POST /tell/n n? w 1 e\n0 POST /tell/n n? v 1 f\n0 GET /tell/z z?   \n");
    /* One that is dropped is learnt anew. */
    got = told(
        a, help_talk(a, net,
                     S(POST("/tell/n", "v\r\nX-Drop: 1", "1", "a") POST("/tell/n", "v\r\nX-Drop: 1", "1", "b")
                           POST("/tell/n", "v\r\nX-Drop: 1", "1", "c")
                               POST("/tell/n", "v\r\nX-Drop: 1", "1", "d")
                                   POST("/tell/n", "v\r\nX-Drop: 1", "1", "e") END)));
    CHECK(help_has(got, S("1 POST /tell/n n? v 1 c\n0 POST /tell/n n? v 1 d\n")));
    net_stop(net);
}

/* Where the last header is empty, what follows it looks like the end of a head once more if the body begins so. */
TEST(an_empty_header_is_no_end_of_a_head)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
#define EMPTY "POST /tell/n HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nX-A:\r\n\r\n\r\nx"
    struct str got = help_talk(a, net, S(EMPTY EMPTY EMPTY EMPTY END));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 5 && help_count(got, S(" 3 \r\nx\n")) == 4);
    net_stop(net);
}

TEST(limits_hold_for_a_head_that_came_before)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
#define THREE POST("/tell/n", "v", "1", "a") POST("/tell/n", "v", "1", "b") POST("/tell/n", "v", "1", "c")
    static const struct {
        struct str bytes;
        int status;
    } then[] = {
        { S_INIT(THREE POST("/tell/n", "v", "6", "abcdef")), 413 },
        { S_INIT(THREE POST("/tell/n", "v", "999999999999999", "")), 413 },
        { S_INIT(THREE POST("/tell/n", "v", "99999999999999999999", "")), 400 },
        { S_INIT(THREE POST("/tell/n", "v", "", "")), 400 },
        { S_INIT(THREE POST("/tell/n", "v", "+1", "a")), 400 },
        { S_INIT(THREE POST("/tell/n", "v", "1 1", "a")), 400 },
        { S_INIT(THREE "POST /tell/n HTTP/1.1\r\nHost: localhost\r\nX-A: v\r\nContent-Length: 1\r\nX-B: c\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n"),
          400 }
    };
    for (size_t i = 0; i < sizeof then / sizeof *then; i++) {
        struct str got = help_talk(a, net, then[i].bytes);
        CHECK(help_count(got, S("HTTP/1.1 200")) == 3);
        CHECK(help_has(got, fmt(a, "HTTP/1.1 %d", then[i].status)));
    }
    net_stop(net);
}

TEST(a_request_outlives_what_its_connection_keeps)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = tables });
    for (int i = 0; i < 20; i++) {
        int fd = help_connect(net);
        for (int k = 0; k < 6; k++)
            help_send(fd, S(POST("/lane/n", "v", "2", "ab")));
        if (i % 2)
            usleep(1000);
        close(fd); /* handlers may be at work */
    }
    CHECK_STR(told(a, help_talk(a, net, S(END))), "0 GET /tell/z z?   \n");
    net_stop(net);
}

/* ---- where a body lies ---- */

static size_t lead_of(const struct req *r)
{
    int64_t n;
    return str_i64(req_header(r, S("x-lead")), &n) ? (size_t)n : 0;
}
static err say_place(struct req *r)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < r->body.n; i++)
        sum = sum * 31 + (unsigned char)r->body.p[i];
    return req_reply(
        r, 200, "text/plain",
        fmt(r->a, "%zu %llx\n", ((uintptr_t)r->body.p + lead_of(r)) % 16, (unsigned long long)sum));
}
static const struct route places[] = {
    { M_POST, "/place", say_place, .may = "public", .lead = lead_of, .body_bytes_max = 8 << 20 }, { 0 }
};
static const struct route *const place_tables[] = { places, NULL };

TEST(a_part_of_a_body_is_aligned)
{
    auto_arena struct arena *a = arena_new(0);
    struct net *net = help_start((struct net_config){ .routes = place_tables });
    static const size_t sizes[] = { 1, 100, 40000, 65536, 70000, 3 << 20 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char *body = arena_alloc(a, sizes[i], 1);
        uint64_t sum = 0;
        for (size_t k = 0; k < sizes[i]; k++) {
            body[k] = (char)(k * 7);
            sum = sum * 31 + (unsigned char)body[k];
        }
        int fd = help_connect(net);
        for (int times = 0; times < 4; times++) {
            help_send(
                fd,
                fmt(a,
                    "POST /place HTTP/1.1\r\nHost: localhost\r\nContent-Length: %zu\r\nX-Lead: %zu\r\n%s\r\n",
                    sizes[i], 3 + i, times == 3 ? "Connection: close\r\n" : ""));
            help_send(fd, (struct str){ body, sizes[i] });
        }
        struct str got = help_drain(a, fd);
        CHECK(help_count(got, fmt(a, "0 %llx\n", (unsigned long long)sum)) == 4);
        close(fd);
    }
    net_stop(net);
}
