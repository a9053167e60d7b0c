// SPDX-License-Identifier: Apache-2.0
/* One server under clients of HTTP/2 at once, for ThreadSanitizer: calls on loops and lanes, messages that other threads
 * send, resets and deadlines in the middle, and a stop while all of that goes on. 0 is a pass. */
#include "net/net.h"
#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CLIENTS = 4, AT_ONCE = 16, ROUNDS = 3, ROUND_MS = 400 };

static atomic_int failed, stopping;
static atomic_long ended;
static int port;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    atomic_fetch_add(&failed, 1);
}

static err echo(struct req *r)
{
    return req_reply(r, 200, NULL, r->body);
}
static err chat(struct req *r)
{
    return r->last ? NULL : req_send(r, r->body);
}
static void *say_later(void *arg)
{
    struct req *r = arg;
    err e = NULL;
    for (int i = 0; i < 3 && !e && !req_gone(r); i++)
        e = req_send(r, S("from afar"));
    req_done(r, e);
    err_reset();
    return NULL;
}
static err later(struct req *r)
{
    pthread_t t;
    req_later(r);
    check(!thread_start("later", say_later, r, &t), "a thread starts");
    pthread_detach(t);
    return NULL;
}
static err feed(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/plain", &s));
    for (int i = 0; i < 5; i++)
        stream_send(s, S("line\n"));
    stream_close(s);
    return NULL;
}

static const struct route routes[] = {
    { M_POST, "/t.T/Lane", echo, .may = "public", .grpc = GRPC_UNARY },
    { M_POST, "/t.T/Loop", echo, .may = "public", .grpc = GRPC_UNARY, .on_loop = true },
    { M_POST, "/t.T/Chat", chat, .may = "public", .grpc = GRPC_STREAM },
    { M_POST, "/t.T/Later", later, .may = "public", .grpc = GRPC_STREAM },
    { M_POST, "/feed", feed, .may = "public" },
    { 0 },
};

/* ---- clients ---- */

struct client {
    nghttp2_session *s;
    uint64_t seed;
    int open;
};

static int on_close(nghttp2_session *s, int32_t id, uint32_t code, void *arg)
{
    (void)s, (void)id, (void)code;
    ((struct client *)arg)->open--;
    ended++;
    return 0;
}

static ssize_t on_body(nghttp2_session *s, int32_t id, uint8_t *out, size_t max, uint32_t *flags,
                       nghttp2_data_source *source, void *arg)
{
    (void)s, (void)id, (void)max, (void)source, (void)arg;
    memcpy(out, "\0\0\0\0\5hello\0\0\0\0\5again", 20);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return source->fd; /* one message, or two */
}

#define FIELD(n, v)                                             \
    {                                                           \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), 0 \
    }
static void ask(struct client *c)
{
    static const char *const paths[] = { "/t.T/Lane",  "/t.T/Loop", "/t.T/Chat",
                                         "/t.T/Later", "/feed",     "/nowhere" };
    size_t what = splitmix(&c->seed) % 6;
    const char *timeout = splitmix(&c->seed) % 8 ? "9S" : "500u";
    nghttp2_nv f[] = { FIELD(":method", "POST"),
                       FIELD(":path", paths[what]),
                       FIELD(":scheme", "http"),
                       FIELD(":authority", "localhost"),
                       FIELD("content-type", what < 4 ? "application/grpc" : "text/plain"),
                       FIELD("grpc-timeout", timeout) };
    nghttp2_data_provider body = { .source.fd = what == 2 || what == 3 ? 20 : 10, .read_callback = on_body };
    int32_t id = nghttp2_submit_request(c->s, NULL, f, sizeof f / sizeof *f, &body, NULL);
    c->open += id > 0;
    if (splitmix(&c->seed) % 16 == 0)
        nghttp2_submit_rst_stream(c->s, 0, id, NGHTTP2_CANCEL);
}

static bool turn(struct client *c, int fd)
{
    const uint8_t *p;
    for (ssize_t n; (n = nghttp2_session_mem_send(c->s, &p)) > 0;)
        if (send(fd, p, (size_t)n, MSG_NOSIGNAL) != n)
            return false;
    uint8_t in[16 << 10];
    struct pollfd f = { .fd = fd, .events = POLLIN };
    if (poll(&f, 1, 1000) != 1)
        return false;
    ssize_t n = recv(fd, in, sizeof in, 0);
    return n > 0 && nghttp2_session_mem_recv(c->s, in, (size_t)n) == n;
}

static void *client(void *arg)
{
    struct client c = { .seed = (uint64_t)(intptr_t)arg };
    nghttp2_session_callbacks *on;
    check(nghttp2_session_callbacks_new(&on) == 0, "a client");
    nghttp2_session_callbacks_set_on_stream_close_callback(on, on_close);
    while (!stopping) {
        struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        bool up = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
        check(nghttp2_session_client_new(&c.s, on, &c) == 0, "a session");
        nghttp2_submit_settings(c.s, 0, NULL, 0);
        c.open = 0;
        for (int i = 0; up && !stopping && i < 300; i++) {
            while (c.open < AT_ONCE && nghttp2_session_check_request_allowed(c.s))
                ask(&c);
            up = turn(&c, fd);
        }
        nghttp2_session_del(c.s);
        close(fd); /* often in the middle */
    }
    nghttp2_session_callbacks_del(on);
    return NULL;
}

static void round_run(void)
{
    static const struct route *const tables[] = { routes, NULL };
    struct net *net;
    struct net_config c = { .listen = S("127.0.0.1:0"), .routes = tables, .loops = 2, .workers = 3 };
    c.limits.drain_ms_max = 500;
    if (net_start(&c, &net)) {
        check(false, "the server starts");
        return;
    }
    struct str at = net_address(net);
    int64_t number = 0;
    check(str_i64(str_sub(at, str_find(at, ':') + 1, at.n), &number), "its port");
    port = (int)number;
    stopping = 0;
    pthread_t t[CLIENTS];
    for (intptr_t i = 0; i < CLIENTS; i++)
        check(!thread_start("client", client, (void *)(i + 1), &t[i]), "threads start");
    usleep(ROUND_MS * 1000);
    net_stop(net);
    stopping = 1;
    for (int i = 0; i < CLIENTS; i++)
        pthread_join(t[i], NULL);
}

int main(void)
{
    for (int i = 0; i < ROUNDS; i++)
        round_run();
    printf("%ld exchanges\n", ended);
    check(ended > 100, "something was done");
    err_reset();
    return failed ? 1 : 0;
}
