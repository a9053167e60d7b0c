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
struct tls;
struct tls_conn;

/* ---- codec: a connection's bytes to requests, replies to bytes ---- */

/* What is known once a request's headers are whole; the host may lower body_bytes_max. */
struct head_info {
    bool http10;
    bool expects_continue;
    bool in_parts; /* set by the host: the body goes to `part` as it comes */
    bool framed;   /* set by the host: the body is one message of gRPC, which begins with its length */
    size_t body_bytes_max;
    size_t body_lead;   /* set by the host: what follows so many bytes of the body is aligned */
    enum method method; /* these two set by the host, for `again` */
    bool on_loop;
};
struct head;
/* The connection, as its codec sees it (the fuzz entries have their own). */
struct codec_host {
    struct req *(*begin)(void *arg); /* a request's first byte: where it is to go */
    /* false: answered already, the body is not read */
    bool (*head)(void *arg, struct req *, struct head_info *);
    /* In its place for a head that was read before, of which the request has all that is in struct req. May be NULL:
     * then each head is read. */
    void (*again)(void *arg, struct req *, struct head *);
    /* Bytes of a body that is taken in parts. False: the client gets no more room until codec.room(). */
    bool (*part)(void *arg, struct req *, struct str bytes);
    bool (*whole)(void *arg, struct req *, bool keep_alive); /* false: no more requests for now */
    /* Not a request (NULL: not even its beginning); nothing more is read of it. */
    void (*bad)(void *arg, struct req *, int status, const char *why);
    void (*gone)(void *arg, struct req *); /* sent, or given up by the client: the codec is done with it */
};
struct codec;
struct conn;
struct req_out;
struct net_codec {
    const char *name;
    bool many; /* exchanges live side by side, replied to in any order; else they stand in line */
    struct codec *(*open)(const struct net_limits *, const struct codec_host *, void *arg); /* must */
    /* must. Takes bytes; the rest (paused by the host, or after a bad request) is given again later. */
    size_t (*feed)(struct codec *, struct str bytes);
    /* May be NULL. Where the next bytes may be read to, so that feed() need not copy them; empty: anywhere. */
    struct str (*lend)(struct codec *);
    /* must. The reply as far as it needs no connection; body NULL: a stream's. The handler's thread. */
    void (*reply)(struct req_out *, int status, const char *content_type, const struct str *body);
    void (*flush)(struct conn *); /* must. Sends what is ready */
    void (*sent)(struct conn *);  /* must. The write under way is done */
    /* The rest may be NULL where exchanges stand in line. */
    void (*ready)(struct req_out *);          /* its reply, or more of it, may be sent */
    void (*room)(struct req_out *);           /* parts may come again */
    void (*cut)(struct req_out *, bool late); /* ends it; late: its deadline passed */
    void (*stop)(struct codec *);             /* no new requests */
    void (*tick)(struct codec *);
    void (*close)(struct codec *); /* must; NULL is fine */
};
extern const struct net_codec codec_h1, codec_h2;
/* What codec_h2 has to send, up to n (at least H2_PULL_MIN) bytes; 0: nothing now. */
size_t h2_pull(struct codec *, char *out, size_t n);
enum { H2_PULL_MIN = 20 << 10 };

/* A head that came twice on a connection, with what was read of it: the next one of the same bytes, but for the digits of
 * Content-Length, is not read again. On the loop's thread. */
enum { HEAD_KEPT_MAX = 2048, HEAD_IDLE_TICKS = 20 }; /* longer ones are not kept, nor are unused ones */
struct head {
    int refs;                 /* the codec's, and one for each request that reads it */
    char *bytes;              /* as it came; the digits are between before and after */
    struct str before, after; /* after is empty where there is no Content-Length: */
    struct str digits;
    bool read; /* it came twice: there is what follows */
    struct req like;
    struct head_info info;
    struct req_memo memo; /* its arena has the texts of like, too */
};
/* in begins with this head: how long it is this time, and the body behind it. */
struct head_hit {
    size_t n;
    struct str digits;
    uint64_t length;
};
bool head_is(const struct head *, struct str in, struct head_hit *out);
/* One that came for the first time; digits: where it has them, empty if nowhere. */
struct head *head_new(struct str bytes, struct str digits);
/* It came again, with these digits, and was read. */
void head_keep(struct head *, struct str digits, const struct req *, const struct head_info *);
/* All that it says this time. */
void head_give(struct head *, const struct head_hit *, struct req *);
void head_unref(struct head *); /* NULL is fine */

/* A body as it grows: small ones of known length in the arena, others in the heap (freed with the arena). */
struct body {
    char *p, **heap;
    size_t n, cap;
    size_t lead; /* p + lead is aligned to BODY_ALIGN; set before the first byte, or 0 */
};
enum { BODY_ALIGN = 16 };
/* known: how long it will be, 0 if nobody said. False: no memory, or none that is left for requests. */
bool body_put(struct body *, struct req *, size_t known, struct str bytes);

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
    uv_poll_t wake; /* of wake_fd, an eventfd: there are posts */
    int wake_fd;
    uv_timer_t tick;
    uv_check_t round; /* after the reads of each round */
    struct round_task *tasks, **tasks_end;
    pthread_t thread;
    bool made, runs;
    _Atomic(struct post *) posts; /* the last one first */
    atomic_int posting;           /* threads in loop_post() */
    struct conn *conns;
    size_t conns_n;
    struct arena *spare[64];
    size_t spare_n;
    char *in;    /* what one read brings; IN_SIZE bytes */
    char *plain; /* the same, deciphered; with TLS only */
    char *out;   /* what one write of HTTP/2 takes; OUT_SIZE bytes */
    uv_timer_t late;
    struct req_out *timed;    /* those with a deadline */
    int64_t late_ns;          /* the earliest that the timer is set for */
    uint64_t seed;            /* of request ids */
    const struct conn *asked; /* the last to begin a request */
    int64_t asked_since;      /* ms: since when it was no other */
    bool stopping;
    int64_t stop_due; /* ms; connections left then are cut */
    struct post stop_post, quit_post;
    bool drained;
    atomic_llong open, requests;
    int64_t untold; /* of net->held */
};
enum { IN_SIZE = 64 << 10, OUT_SIZE = 256 << 10 };

struct net {
    struct net_config config;
    struct net_limits limits;
    struct routes *routes;
    struct lane *lane;
    struct tls *tls; /* NULL: plain */
    struct loop *loops;
    int loops_n;
    struct str address;
    struct arena *a;
    atomic_bool stopping;
    pthread_mutex_t lock; /* of drained_n and of waits for owed */
    pthread_cond_t changed;
    int drained_n;
    atomic_int owed; /* replies that come later */
    _Atomic int64_t held;
};

/* Runs p on the loop's thread, soon. p belongs to the loop until then. */
void loop_post(struct loop *, struct post *p);
void loop_round_end(struct loop *, struct round_task *);
void loop_round_run(struct loop *);
void loop_asked(struct loop *, const struct conn *); /* by a request's first byte */
err loop_init(struct loop *, struct net *, int fd);
err loop_start(struct loop *);
/* Ends the loop's thread, if it runs, and frees what init made. */
void loop_done(struct loop *);
struct arena *loop_arena(struct loop *);
void loop_arena_back(struct loop *, struct arena *);
size_t loop_arena_used(const struct arena *);
/* Memory that requests hold: more, or (below 0) less. False: all of it is more than it may be. Any thread. */
bool loop_hold(struct loop *, int64_t bytes);
/* Closes the loop's idle connections; the others after what they are at. */
void loop_stop(struct loop *);
void loop_check_drained(struct loop *);

/* ---- exchanges: a request and what becomes of it ---- */

enum exchange_state { READING, HANDLING, READY };
struct req_out {
    struct req req;
    struct loop *loop;
    const struct net_codec *codec;
    struct conn *conn;          /* loop thread; NULL once the client is gone */
    struct req_out **at, *next; /* its place among the connection's */
    struct req_out **timed_at, *timed_next;
    atomic_int refs;  /* the connection's, the job, a stream's post; dropped on the loop thread */
    atomic_bool gone; /* nobody waits for the reply */
    enum exchange_state state;
    enum method method;
    unsigned allow;
    int64_t due; /* ms: until then it is read, or some of its reply is taken; 0: no limit */
    bool http10, close, wants_continue;
    bool inline_;      /* runs on the loop thread */
    struct head *kept; /* it is one that came before; NULL: it was read */
    int64_t weight;    /* its share of net->held, */
    size_t heap;       /* and what of that is not in the arena */
    bool streams;      /* loop thread: stream is ours to end */
    bool grpc;         /* the body is messages, errors are trailers */
    bool zipped;       /* the message is */
    /* the reply, written by the handler's thread */
    int status;
    struct str head, body;
    bool counted; /* `after` was called */
    bool owed;    /* req_later was called */
    VEC(struct header) extra;
    struct stream *stream;
    void *fields; /* HTTP/2: head, as nghttp2 takes it */
    size_t fields_n;
    struct str failure;        /* gRPC: what went wrong, if status says that something did */
    struct header trailers[2]; /* gRPC: how it ended */
    size_t trailers_n;
    struct leg *leg;   /* HTTP/2: its stream */
    struct call *call; /* gRPC, streaming: of the call and of each of its messages */
    struct post done_post, stream_post;
};
struct req_out *exchange_new(struct conn *);
void exchange_unref(struct req_out *);
/* One more request on an exchange that goes on: what both have in common is e's. */
struct req_out *exchange_beside(struct req_out *e);
/* Counts what e's arena and its body in the heap take by now. False: all requests together hold too much. The thread
 * that has the exchange. */
bool exchange_weigh(struct req_out *e);
/* Runs the request's handler, here or on the lane; the exchange is READY in the end. */
void exchange_start(struct req_out *);
/* Loop thread: replies with e, or with a status and a line of text, without asking a handler. */
void exchange_refuse(struct req_out *, err e);
void exchange_refuse_status(struct req_out *, int status, const char *why);
const char *status_text(int status);

/* ---- gRPC ---- */

enum {
    ROUTE_BODY_BYTES = 1 << 20, /* of a body, where a route names no limit */
    MESSAGE_HEAD = 5,           /* a flag, four bytes of length */
};
/* Of the message whose frame begins so. */
size_t grpc_length(const char head[MESSAGE_HEAD]);

/* A call whose messages are requests of their own, handled one after another; on the loop's thread, in e's arena. */
struct call {
    struct req_out *e;
    struct req_out *first, **last; /* messages that wait */
    size_t waiting;                /* their bytes */
    bool busy, pumping;            /* a handler runs; messages are being handed out */
    bool held;                     /* the client has no room until fewer wait */
    bool ended;
    struct req_out *part; /* the message that is coming */
    struct body body;
    size_t need;
    char head[MESSAGE_HEAD];
    size_t head_n;
};
/* Sees whether it is a call, and what becomes of its body. An error is the reply. */
err grpc_head(struct req_out *, struct head_info *);
/* Takes the one message out of its frame; its compression is undone where the handler runs. */
err grpc_unframe(struct req_out *);
err grpc_unzip(struct req_out *);
/* Fills head, body and trailers. True: the message is gzip; with no body: messages may be. */
bool grpc_reply(struct req_out *, int status, const struct str *body);
void grpc_gone(struct req_out *);                /* the exchange leaves its connection */
bool call_part(struct call *, struct str bytes); /* false: no more for now */
void call_pump(struct call *);                   /* hands out what waits, if its time has come */
void call_half_closed(struct call *);
void call_stop(struct call *);
void call_message_done(struct req_out *message);
/* http: the status that it would have; 200 is success. */
void call_end(struct call *, int http, struct str text);

/* ---- connections: all on the loop's thread ---- */

struct conn {
    uv_tcp_t tcp; /* first member */
    struct loop *loop;
    struct conn *prev, *next;
    const struct net_codec *codec; /* NULL until its first bytes tell */
    struct codec *state;
    struct tls_conn *tls;             /* NULL: plain */
    struct req_out *line, **line_end; /* requests, where they stand in line in the order of their replies */
    size_t line_n;
    struct req_out *cur; /* the one being read, last in line */
    struct {
        char *p;
        size_t n;
    } rest;                /* read, but not yet taken by the codec */
    char *held;            /* copy of what is being written, where it had no better place */
    struct stream *stream; /* being sent now, before what is in line */
    uv_write_t write;
    struct round_task flush; /* of a codec that gathers a round's output */
    size_t written_n;        /* exchanges that the write under way completes */
    char first[2];           /* bytes too few to tell the protocol */
    uint8_t first_n;
    bool flush_waits;
    bool writing, reading, closed;
    bool ended;   /* no request is read any more */
    bool refused; /* the client may still be sending what nobody reads */
    bool lingering, eof;
    bool large;    /* the last body was so large that the next one should be read to its place */
    size_t unsent; /* at the last tick that saw progress */
    int64_t idle_due, write_due; /* ms; 0: none */
    size_t lingered;
    char peer[INET6_ADDRSTRLEN];
};
void conn_accept(struct loop *);
void conn_close(struct conn *);
void conn_flush(struct conn *);
/* Takes up what back-pressure held up: flushes, then reads on. */
void conn_go_on(struct conn *);
/* After anything happened: closes what is at its end, reads or holds back, and times what is idle. */
void conn_settle(struct conn *);
void conn_tick(struct conn *, int64_t now_ms);
void conn_stop(struct conn *);
/* Writes all of v. True: done; else the rest is being written (v's bytes must stay), or c is closed. */
bool conn_send(struct conn *, uv_buf_t *v, unsigned n);
/* The same for bytes that need not stay. */
bool conn_send_copy(struct conn *, struct str bytes);
/* Plain bytes that came in; they may be more than it takes now. */
void conn_give(struct conn *, struct str in);
bool conn_takes(const struct conn *);
void conn_eof(struct conn *); /* the client sends no more */
/* Nothing more is said; what the client still sends is read for a moment, so that it reads what was said. */
void conn_linger(struct conn *);
/* The exchange leaves the connection, which gives up its reference. */
void conn_drop(struct conn *, struct req_out *);
/* The first in line. */
struct req_out *line_pop(struct conn *);
static inline int64_t conn_now(const struct conn *c)
{
    return (int64_t)uv_now(&c->loop->uv);
}

/* ---- TLS ---- */

enum { LINE_BUFS = 64, TLS_BUFS = LINE_BUFS, SEAL_BYTES = 64 << 10 }; /* of one write; enciphered at once */
err tls_new(struct net *,
            struct tls **out); /* by net_config; looks after its files from a thread of its own */
void tls_free(struct tls *);   /* NULL is fine */
struct tls_conn *tls_conn_new(struct tls *);
void tls_conn_free(struct tls_conn *); /* NULL is fine */
struct str tls_subject(const struct tls_conn *);
/* Bytes from the socket, to be deciphered and given on as far as c takes them; none: what was held back. */
void tls_take(struct conn *c, struct str in);
/* As conn_send(); v NULL: what is still to be sent. */
bool tls_send(struct conn *c, const uv_buf_t *v, unsigned n);
bool tls_sends(const struct conn *c);
void tls_goodbye(struct conn *c);

/* ---- streams ---- */

/* Its head is sent: bytes may follow. Only for the first in line. */
void stream_attach(struct stream *, struct conn *);
void stream_join(struct stream *, struct req_out *); /* the same for exchanges side by side */
void stream_pump(struct conn *);                     /* sends what waits, if nothing is being written */
void stream_sent(struct conn *);                     /* the write under way is done */
void stream_gone(struct stream *);                   /* the connection gives up its reference */
void stream_finish(struct stream *);                 /* sends what waits, then ends */
/* Bytes that wait, up to max; *end: the maker is done, *cut: the client was too slow. They stay until taken. */
struct str stream_peek(struct stream *, size_t max, bool *end, bool *cut);
void stream_taken(struct stream *, size_t n);
/* A stream for an exchange that is not replied to yet; loop thread. */
struct stream *stream_new(struct req_out *);
/* The same, joined, for a call, whose arena holds a reference of its own. */
void stream_call(struct stream *, struct req_out *);
bool stream_full(struct stream *);   /* so much of a call waits that its next message should, too */
bool stream_unused(struct stream *); /* nothing was sent, or waits to be */
/* stream_send of two parts as one. */
bool stream_send_both(struct stream *, struct str head, struct str body);
void stream_end(struct stream *); /* stream_close without giving up a reference */

/* ---- replies ---- */

void line_reply(struct req_out *, int status, const char *content_type, const struct str *body);
void line_flush(struct conn *);
void line_sent(struct conn *);
bool status_has_body(int status);
bool extra_has(const struct req_out *, struct str name);
/* A copy whose control characters are blanks: no header is smuggled in by a value. */
struct str header_value(struct arena *a, struct str value);
struct str lower_name(struct arena *a, struct str name);
