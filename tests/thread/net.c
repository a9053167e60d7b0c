// SPDX-License-Identifier: Apache-2.0
/* One server under many clients at once, for ThreadSanitizer: requests on loops and lanes, streams that other threads
 * feed, clients that leave in the middle, and a stop while all of that goes on. 0 is a pass. */
#include "net/net.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CLIENTS = 6, LISTENERS = 4, FEEDERS = 2, STREAMS = 64, ROUNDS = 4, ROUND_MS = 250 };

static atomic_int failed, stopping;
static atomic_long exchanges, lines;
static _Atomic(struct stream *) fed[STREAMS];

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    atomic_fetch_add(&failed, 1);
}

static err hello(struct req *r)
{
    return req_reply(r, 200, "text/plain", S("hello"));
}
static err echo(struct req *r)
{
    return req_reply(r, 200, "text/plain", r->body);
}
static err refuse(struct req *r)
{
    FAIL(CONFLICT, "%.*s", STR(r->path));
}

/* Leaves the stream to the feeders, or feeds it itself where there is no place. */
static err watch(struct req *r)
{
    struct stream *s;
    TRY(req_stream(r, 200, "text/event-stream", &s));
    stream_send(s, S("first\n"));
    for (int i = 0; i < STREAMS; i++) {
        struct stream *none = NULL;
        if (atomic_compare_exchange_strong(&fed[i], &none, s))
            return NULL;
    }
    stream_close(s);
    return NULL;
}

static void *feed(void *arg)
{
    uint64_t seed = (uint64_t)(intptr_t)arg;
    while (!stopping) {
        int i = (int)(splitmix(&seed) % STREAMS);
        struct stream *s = atomic_exchange(&fed[i], NULL), *none = NULL;
        if (!s)
            continue;
        bool on = stream_send(s, S("line\nline\n")) && stream_open(s) && splitmix(&seed) % 64;
        if (!on || !atomic_compare_exchange_strong(&fed[i], &none, s))
            stream_close(s);
    }
    return NULL;
}

static const struct route routes[] = {
    { M_GET, "/loop", hello, .may = "public", .on_loop = true },
    { M_GET, "/lane", hello, .may = "public" },
    { M_POST, "/echo", echo, .may = "public" },
    { M_GET, "/refuse", refuse, .may = "public" },
    { M_GET, "/watch", watch, .may = "public" },
    { M_GET, "/watch-loop", watch, .may = "public", .on_loop = true },
    { 0 },
};

static char url[64];

static void *client(void *arg)
{
    uint64_t seed = 99 + (uint64_t)(intptr_t)arg;
    struct http *h = NULL;
    auto_arena struct arena *a = arena_new(0);
    static const struct str paths[] = { S_INIT("/loop"), S_INIT("/lane"), S_INIT("/refuse"),
                                        S_INIT("/nowhere") };
    static const int want[] = { 200, 200, 409, 404 };
    while (!stopping) {
        if (!h && http_open(str_of(url), S(""), 5000, &h))
            break;
        arena_reset(a);
        err_reset();
        unsigned what = splitmix(&seed) % 5;
        struct http_reply got;
        char body[3000] = "";
        struct str sent = { body, splitmix(&seed) % sizeof body };
        err e = what < 4 ? http_do(h, a, M_GET, paths[what], S(""), S(""), &got)
                         : http_do(h, a, M_POST, S("/echo"), S(""), sent, &got);
        if (e) /* the server stops */
            continue;
        exchanges++;
        check(got.status == (what < 4 ? want[what] : 200) || got.status == 503, "the status");
        check(what < 4 || got.status == 503 || str_eq(got.body, sent), "the echo");
        if (splitmix(&seed) % 32 == 0) {
            http_close(h);
            h = NULL;
        }
    }
    http_close(h);
    err_reset();
    return NULL;
}

static bool some_lines(void *arg, struct str line)
{
    int *left = arg;
    lines += line.n > 0;
    return --*left > 0;
}

static void *listener(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t seed = 7 + (uint64_t)(intptr_t)arg;
    while (!stopping) {
        struct http *h;
        if (http_open(str_of(url), S(""), 5000, &h))
            break;
        int left = (int)(splitmix(&seed) % 200);
        (void)http_stream(h, a, splitmix(&seed) % 2 ? S("/watch") : S("/watch-loop"), some_lines, &left);
        http_close(h);
        arena_reset(a);
        err_reset();
    }
    return NULL;
}

static void round_run(void)
{
    static const struct route *const tables[] = { routes, NULL };
    struct net *net;
    struct net_config c = {
        .listen = S("127.0.0.1:0"), .routes = tables, .loops = 2, .workers = 3, .queue_max = 4
    };
    c.limits.drain_ms_max = 500;
    if (net_start(&c, &net)) {
        check(false, "the server starts");
        return;
    }
    struct str address = net_address(net);
    snprintf(url, sizeof url, "http://%.*s", STR(address));
    stopping = 0;
    pthread_t t[CLIENTS + LISTENERS + FEEDERS];
    for (intptr_t i = 0; i < CLIENTS + LISTENERS + FEEDERS; i++)
        check(!thread_start("t",
                            i < CLIENTS               ? client
                            : i < CLIENTS + LISTENERS ? listener
                                                      : feed,
                            (void *)i, &t[i]),
              "threads start");
    usleep(ROUND_MS * 1000);
    int64_t connections, requests;
    net_figures(net, &connections, &requests);
    check(requests > 0, "requests are counted");
    net_stop(net);
    stopping = 1;
    for (int i = 0; i < CLIENTS + LISTENERS + FEEDERS; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < STREAMS; i++) /* a stream may outlive its server */
        stream_close(atomic_exchange(&fed[i], NULL));
}

int main(void)
{
    for (int i = 0; i < ROUNDS; i++)
        round_run();
    printf("%ld exchanges, %ld lines\n", exchanges, lines);
    check(exchanges > 100 && lines > 100, "something was done");
    err_reset();
    return failed ? 1 : 0;
}
