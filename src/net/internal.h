/* net, inside: what its files share; nobody else includes this (its tests and fuzz entry do).
 * Flow     net.c opens sockets --> loop.c one thread per core --> conn.c bytes of one connection
 *          --> codec (h1.c) requests --> job.c runs the handler --> reply.c, stream.c --> conn.c.
 * Threads  a loop's connections, exchanges' places in line and spare arenas belong to its thread;
 *          workers hand things over by loop_post(). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "net/net.h"

#include <netinet/in.h>
#include <stdatomic.h>
#include <uv.h>

struct conn;
struct loop;

/* ---- codec: a connection's bytes to requests, replies to bytes; it knows no sockets ---- */

/* What is known once a request's headers are whole; the host may lower body_bytes_max. */
struct head_info {
    bool http10;
    bool expects_continue;
    size_t body_bytes_max;
};
/* The connection, as its codec sees it (the fuzz entry has its own). */
struct codec_host {
    struct req *(*begin)(void *arg); /* a request's first byte: where it is to go */
    bool (*head)(void *arg, struct req *,
                 struct head_info *); /* false: answered already, the body is not read */
    bool (*whole)(void *arg, struct req *, bool keep_alive); /* false: no more requests for now */
    void (*bad)(void *arg, int status, const char *why);     /* not a request; nothing is read after it */
};
struct codec;
struct net_codec {
    const char *name;
    struct codec *(*open)(const struct net_limits *, const struct codec_host *, void *arg); /* must */
    /* must. Takes bytes; the rest (paused by the host, or after a bad request) is given again later. */
    size_t (*feed)(struct codec *, struct str bytes);
    void (*close)(struct codec *); /* must; NULL is fine */
};
extern const struct net_codec codec_h1;

/* ---- paths and routes ---- */

enum { SEGMENTS_MAX = 64, PARAMS_MAX = 8 };
struct path {
    struct str whole;                  /* decoded, "%2F" where a segment holds a slash */
    struct str segments[SEGMENTS_MAX]; /* decoded */
    size_t n;
};
/* Splits and decodes the path of a target. NULL, or what is wrong with it. */
const char *path_parse(struct arena *a, struct str raw, struct path *out);
struct routes;
err routes_new(const struct route *const *tables, struct routes **out);
/* The route, or NULL; *allow has the methods (bits) that the path knows. Fills r->params. */
const struct route *routes_find(const struct routes *, struct req *, enum method, const struct path *,
                                unsigned *allow);
void routes_free(struct routes *);

bool percent_decode(struct arena *a, struct str s, bool plus, struct str *out);
/* "localhost", "127.0.0.1", "[::1]", with or without a port. */
bool host_is_loopback(struct str host);
/* A name or address, and perhaps a port: no other characters. */
bool host_is_sane(struct str host);
bool origin_is_host(struct str origin, struct str host);
/* M_COUNT: none of ours. */
enum method method_find(struct str name);
bool str_eq_ascii(struct str a, struct str b); /* letters of either case */

/* ---- loops ---- */

struct post {
    struct post *next;
    void (*run)(struct post *);
};
struct loop {
    struct net *net;
    uv_loop_t uv;
    uv_tcp_t listener;
    uv_async_t wake;
    uv_timer_t tick;
    uv_check_t round; /* after the reads of each round */
    struct round_task *tasks, **tasks_end;
    pthread_t thread;
    bool made, runs;
    pthread_mutex_t lock; /* of posts */
    struct post *posts, **posts_end;
    struct conn *conns;
    size_t conns_n;
    struct arena *spare[64];
    size_t spare_n;
    char *in;      /* what one read brings; IN_SIZE bytes */
    uint64_t seed; /* of request ids */
    bool stopping;
    int64_t stop_due; /* ms; connections left then are cut */
    struct post stop_post, quit_post;
    bool drained;
    atomic_llong open, requests;
};
enum { IN_SIZE = 64 << 10 };

struct net {
    struct net_config config;
    struct net_limits limits;
    struct routes *routes;
    struct lane *lane;
    struct loop *loops;
    int loops_n;
    struct str address;
    struct arena *a;
    atomic_bool stopping;
    pthread_mutex_t lock; /* of drained_n and of waits for owed */
    pthread_cond_t changed;
    int drained_n;
    atomic_int owed; /* replies that come later */
};

/* Runs p on the loop's thread, soon. p belongs to the loop until then. */
void loop_post(struct loop *, struct post *p);
err loop_init(struct loop *, struct net *, int fd);
err loop_start(struct loop *);
/* Ends the loop's thread, if it runs, and frees what init made. */
void loop_done(struct loop *);
struct arena *loop_arena(struct loop *);
void loop_arena_back(struct loop *, struct arena *);
/* Closes the loop's idle connections; the others after what they are at. */
void loop_stop(struct loop *);
void loop_check_drained(struct loop *);

/* ---- exchanges: a request and what becomes of it ---- */

enum exchange_state { READING, HANDLING, READY };
struct req_out {
    struct req req;
    struct loop *loop;
    struct conn *conn; /* loop thread; NULL once the client is gone */
    struct req_out *next;
    atomic_int refs;  /* the connection's line, the job, a stream's post; dropped on the loop thread */
    atomic_bool gone; /* nobody waits for the reply */
    enum exchange_state state;
    enum method method;
    unsigned allow;
    bool http10, close, wants_continue;
    bool inline_; /* runs on the loop thread */
    bool counted; /* `after` was called */
    bool owed;    /* req_later was called */
    bool streams; /* loop thread: stream is ours to end */
    /* the reply, written by the handler's thread */
    int status;
    struct str head, body;
    VEC(struct header) extra;
    struct stream *stream;
    struct post done_post, stream_post;
};
struct req_out *exchange_new(struct conn *);
void exchange_unref(struct req_out *);
/* Runs the request's handler, here or on the lane; the exchange is READY in the end. */
void exchange_start(struct req_out *);
/* Loop thread: replies with e, or with a status and a line of text, without asking a handler. */
void exchange_refuse(struct req_out *, err e);
void exchange_refuse_status(struct req_out *, int status, const char *why);
const char *status_text(int status);

/* ---- connections: all on the loop's thread ---- */

struct conn {
    uv_tcp_t tcp; /* first member */
    struct loop *loop;
    struct conn *prev, *next;
    const struct net_codec *codec;
    struct codec *state;
    struct req_out *line, **line_end; /* requests in the order of their replies */
    size_t line_n;
    struct req_out *cur; /* the one being read, last in line */
    struct {
        char *p;
        size_t n;
    } rest;                /* read, but not yet taken by the codec */
    struct stream *stream; /* being sent now, before what is in line */
    uv_write_t write;
    size_t written_n; /* exchanges that the write under way completes */
    bool writing, reading, closed;
    bool ended;   /* no request is read any more */
    bool refused; /* the client may still be sending what nobody reads */
    bool lingering, eof;
    size_t unsent;               /* at the last tick that saw progress */
    int64_t read_due, write_due; /* ms; 0: none */
    size_t lingered;
    char peer[INET6_ADDRSTRLEN + 8];
};
void conn_accept(struct loop *);
void conn_close(struct conn *);
void conn_flush(struct conn *);
/* Takes up what back-pressure held up: flushes, then reads on. */
void conn_go_on(struct conn *);
void conn_tick(struct conn *, int64_t now_ms);
void conn_stop(struct conn *);
/* Writes all of v. True: done; else the rest is being written (v's bytes must stay), or c is closed. */
bool conn_send(struct conn *, uv_buf_t *v, unsigned n);

/* ---- streams ---- */

void stream_attach(struct stream *, struct conn *); /* its head is sent: bytes may follow */
void stream_pump(struct conn *);                    /* sends what waits, if nothing is being written */
void stream_sent(struct conn *);                    /* the write under way is done */
void stream_gone(struct stream *);                  /* the connection gives up its reference */
void stream_finish(struct stream *);                /* sends what waits, then ends */
/* The head of a reply; chunked when the length is not known (body NULL). */
struct str reply_head(struct req *, int status, const char *content_type, const struct str *body);
