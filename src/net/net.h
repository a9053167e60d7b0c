/* net: the listener: HTTP/1.1, HTTP/2, gRPC, with or without TLS; and a client. Callbacks end here.
 * Flow     socket --loop--> request whole in memory --route--> handler on a lane, or on the loop
 *          --> reply --loop--> socket. Streams (server-sent events) stay open on the loop.
 * Threads  one libuv loop per core, each with its own listening socket (SO_REUSEPORT); handlers run on
 *          the lane their route names, or on the loop itself when the route says that it never blocks.
 * Owns     sockets, timers, buffers; a request's arena and everything in it until its reply is flushed.
 * Limits   all in struct net_limits; over one: 400, 408, 413, 414, 431, 429/503, or a closed connection.
 * Errors   INVALID (address), UNAVAILABLE (port taken), INTERNAL.
 * Wall     a connection's bytes pass through struct net_codec (internal.h), found by the first of them: handlers
 *          never see which protocol carried a request, and a codec knows no handlers. TLS is before the codec. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

struct net;
struct schema;
struct req;

enum method { M_GET, M_HEAD, M_POST, M_PUT, M_PATCH, M_DELETE, M_OPTIONS, M_COUNT };
extern const struct str method_names[M_COUNT];

struct net_limits {
    size_t connections_max;  /* per loop; beyond: accepted and closed */
    size_t header_bytes_max; /* request line and headers together */
    size_t headers_max;      /* their number */
    size_t body_bytes_max;   /* of any route; a route's own limit is lower */
    size_t held_bytes_max; /* of all requests and unsent replies together; beyond: 503 to who sends a body */
    size_t chunks_max;     /* of a chunked body */
    int64_t header_ms_max; /* from the first byte to the end of the headers */
    int64_t body_ms_max;   /* from there to the end of the body */
    int64_t idle_ms_max;   /* keep-alive */
    int64_t write_ms_max;  /* a client that does not read its reply */
    size_t pipeline_max;   /* requests read ahead on one connection */
    size_t out_bytes_max;  /* unsent bytes of one stream, over which the next send cuts it */
    int64_t drain_ms_max;  /* graceful shutdown: requests under way */
};
extern const struct net_limits net_limits_default;

/* UNARY: the body is the one message; req_reply(r, 200, NULL, message) answers it.
 * STREAM: the handler runs once for each message of the client, in order, each a request of its own; req_send()
 * answers as often as it likes. At the client's end it runs once more with r->last and no body; then the call ends.
 * An error of either ends the call with the status of its code, without asking net_config.fail. */
enum grpc_kind { GRPC_NONE, GRPC_UNARY, GRPC_STREAM };

/* One row of the route table. `{name}` in path matches one segment; `{name...}` the rest.
 * A row without .may does not start. */
struct route {
    enum method method;
    const char *path;
    err (*run)(struct req *);
    const char *may; /* permission "model.infer"; "public": no token is asked for */
    const char *doc; /* one line, for OpenAPI and the reference */
    bool on_loop;    /* never blocks: runs on the loop thread */
    bool (*light)(
        struct req *); /* asked on the loop, body and all: does this one run there, too? May be NULL */
    /* Asked on the loop, of the head alone: so many bytes of the body stand before what should be aligned to 16. */
    size_t (*lead)(const struct req *); /* may be NULL */
    size_t body_bytes_max;              /* 0: 1 MiB */
    const void *self;                   /* what the handler belongs to: a resource, a deployment table … */
    const struct schema *in, *out;      /* body and reply, for OpenAPI; may be NULL */
    enum grpc_kind grpc;                /* a method of gRPC: path "/package.Service/Method", M_POST */
    const char *tag;                    /* group in OpenAPI: "resources", "inference" … */
    const char *since;
};

/* A request as a handler sees it. Everything it points to lives until the reply is flushed. */
struct header {
    struct str name, value; /* names in lower case */
};
struct req {
    struct arena *a;
    const struct route *route;
    /* path: decoded, %2F where a segment has a slash; target: as it came */
    struct str method, target, path, query;
    struct str params[8]; /* values of {…} in order of the path, decoded */
    size_t params_n;
    struct header *headers;
    size_t headers_n;
    struct str body;
    struct str peer;        /* address of the client */
    struct str id;          /* from X-Request-Id if it is sane, else made; sent back */
    struct str tls_subject; /* of the client's certificate, if one is asked for */
    int64_t start_ns;
    int64_t deadline_ns; /* gRPC: mono_ns() after which nobody waits for the reply; 0: none */
    bool last;           /* gRPC, STREAM: the client said its last */
    void *app;           /* net_config.app */
    void *who;           /* set by net_config.before (auth's principal) */
    struct req_out *out; /* internal */
};
struct str req_header(const struct req *, struct str lower_name); /* empty: absent */
struct str req_param(const struct req *, struct str name);        /* path parameter by name */
/* ?name=value, decoded; false if absent. */
bool req_query(const struct req *, struct str name, struct str *out);

/* ---- heads that come again ---- */
/* A client mostly sends the same head again and again. What follows from it alone is kept for its next request: what a
 * owns lives as long as a request that may read it. */
struct req_memo {
    struct arena *a;
    void *before, *handler; /* NULL at first; by net_config.before, and by the route's handler */
};
/* NULL: this head did not come before, or this is not the loop's thread. */
struct req_memo *req_memo(const struct req *);
/* What was kept holds no longer: the next such head is read as a new one. */
void req_memo_drop(const struct req *);

/* ---- replies: exactly one of these per request ---- */
/* body must live in r->a (or be static); content_type is a static C string. */
err req_reply(struct req *, int status, const char *content_type, struct str body);
err req_reply_json(struct req *, int status, const struct json *);
/* Adds a header to the coming reply. */
void req_reply_header(struct req *, const char *name, struct str value);
bool req_reply_has(const struct req *, struct str name); /* whether that was done */

/* Counts what the request's arena took since the body came (held_bytes_max): for a handler that makes much of little, and
 * may wait with it. UNAVAILABLE if all requests together hold too much. The thread that has the request. */
err req_weigh(struct req *);

/* ---- replies that come later ----
 * For work that waits for something (a batch, another thread) without a thread that waits with it. */
/* The handler returns without a reply; the request stays as it is until req_done(). */
void req_later(struct req *);
/* Ends what req_later began, after a reply (e is NULL), or with the error that is the reply. Any thread; once. */
void req_done(struct req *, err e);
/* Nobody waits for the reply any more (of a GRPC_STREAM: or the server stops): work for it may be left out. Any
 * thread. */
bool req_gone(const struct req *);
/* A call on the loop that has the request, once everything that came in this round is handled: what the round's
 * requests have in common is done once there. Only in a handler that runs on the loop. */
struct round_task {
    struct round_task *next;
    void (*run)(struct round_task *);
};
bool req_on_loop(const struct req *); /* the caller is the loop's thread */
/* On the loop: for a while no other connection has asked for anything there, and nothing else waits on this one, so that
 * nobody would wait for a handler that takes its time. HTTP/1.1 alone. */
bool req_alone(const struct req *);
/* A number for the loop, from 0 and below net_loops(): for state that each loop has for itself. */
int req_loop(const struct req *);
void req_round_end(struct req *, struct round_task *);

/* ---- messages of a GRPC_STREAM ---- */
/* Sends one to the client (copied). CANCELLED once it is gone or too slow. Any thread, until the handler is through
 * (returned, or req_done). */
err req_send(struct req *, struct str message);

/* ---- streams ---- */
struct stream; /* ref-counted; made from a request, fed from any thread */
/* Sends status and headers and keeps the reply open (chunked). The request's arena may go. */
err req_stream(struct req *, int status, const char *content_type, struct stream **out);
/* Queues bytes (copied). False once the client is gone or too slow: stop and close. Any thread. */
bool stream_send(struct stream *, struct str bytes);
bool stream_open(struct stream *);  /* the client is still there */
void stream_close(struct stream *); /* ends the reply and gives up the reference */

/* ---- server ---- */
struct net_config {
    struct str listen;        /* "127.0.0.1:7300", "[::1]:0"; port 0 picks one */
    bool allow_public;        /* else only loopback addresses, and only the Host headers that mean them */
    int loops;                /* 0: cpu_count() */
    int workers;              /* threads of the lane for blocking handlers; 0: max(4, 2 * cores) */
    size_t queue_max;         /* jobs waiting for a worker; 0: 1024; beyond: 503 with Retry-After */
    struct net_limits limits; /* zero fields take the default */
    /* NULL-terminated list of {0}-terminated tables (method 0 path NULL) */
    const struct route *const *routes;
    /* TLS 1.3 alone, if there is a certificate (PEM, the chain after it) and its key. With a client CA, only clients
     * that it signed for. The files are read again when they change; a bad pair is reported, and the old one stays. */
    struct str tls_cert, tls_key, tls_client_ca;
    int64_t tls_look_ms; /* between two looks at them; 0: 2000 */
    void *app;
    /* Called on the loop before every handler, so it must not block: an error is the reply. Also called, with r->route
     * NULL, for a path or method that no route has, so that strangers learn nothing (401 before 404). */
    err (*before)(struct req *);
    /* The whole reply to an error (problem+json, or the protocol's own form by path). NULL: plain text.
     * Called on the handler's thread, or on the loop for what is refused before a handler runs (400, 401,
     * 403, 413, 503): must not block. */
    err (*fail)(struct req *, err);
    /* What went wrong where no reply can show it. May be NULL. */
    void (*report)(const char *event, err);
    bool grpc_gzip; /* compress large replies to gRPC clients that take it */
    /* After the reply is handed over: status and time, for metrics and the access log. May be NULL. */
    void (*after)(const struct req *, int status, int64_t took_ns);
};
err net_start(const struct net_config *, struct net **out); /* returns once it listens */
struct str net_address(const struct net *);                 /* with the real port */
/* Stops accepting, lets requests under way end (drain_ms_max), closes streams, waits for each req_done() that is
 * owed, joins the threads. */
void net_stop(struct net *); /* NULL is fine; frees */
int net_loops(const struct net *);
/* Connections now open, requests answered: for /metrics. */
void net_figures(const struct net *, int64_t *connections, int64_t *requests);
int64_t net_held(const struct net *); /* what counts against held_bytes_max, about */

/* ---- client: blocking, one connection kept alive, for the CLI, replays and tests ---- */
struct http;
struct http_reply {
    int status;
    struct str body;
    struct str content_type;
};
/* url "http://127.0.0.1:7300", or https (the system's certificates, or the file in $DHOW_CA); token may be empty. Connects on first use. Redirects are not followed. */
err http_open(struct str url, struct str token, int64_t timeout_ms, struct http **out);
/* One exchange; UNAVAILABLE if the server is not there, TIMEOUT, TOO_LARGE over body_bytes_max (1 GiB, or
 * what a may still hold). The reply lives in a; any status is success here. If a kept-alive connection was
 * closed before the first byte came back, a request is repeated once, POST and PATCH only if none of it left. */
err http_do(struct http *, struct arena *a, enum method, struct str path_and_query, struct str content_type,
            struct str body, struct http_reply *out);
/* Reads a stream line by line until it ends or on_line says stop (false); the time-out is for its beginning
 * only. A status other than 200 is an error of that status's code. */
err http_stream(struct http *, struct arena *a, struct str path_and_query,
                bool (*on_line)(void *arg, struct str line), void *arg);
/* A header of each further request, in place of the one of that name (static); an empty value: no longer. At most 4
 * names. INVALID for a value that is not one line. */
err http_header(struct http *, const char *name, struct str value);
void http_close(struct http *); /* NULL is fine */

/* ---- the client's side of TLS, over memory, for who moves a connection's bytes itself ---- */

struct secure;
enum secure_state { SECURE_FAILED, SECURE_WAITS, SECURE_DONE }; /* WAITS: for bytes from the server */
/* The certificates are the system's, or in the file $DHOW_CA; what it shows of itself is in $DHOW_CERT and $DHOW_KEY, if
 * anything. like: another that has them already, or NULL. Set even on failure, to be freed. */
err secure_new(struct arena *a, const char *host, const struct secure *like, struct secure **out);
bool secure_begin(struct secure *);                      /* a new connection */
bool secure_offer(struct secure *, struct str protocol); /* after that: "h2" */
enum secure_state secure_handshake(struct secure *, const char **why);
void secure_take(struct secure *, struct str bytes); /* from the socket */
struct str secure_give(struct secure *);             /* for the socket, until secure_given() */
void secure_given(struct secure *);
bool secure_write(struct secure *, struct str bytes);
enum secure_state secure_read(struct secure *, char *p, size_t max, size_t *n); /* FAILED: it is over */
void secure_free(struct secure *);                                              /* NULL is fine */

/* A value for a URL's path or query, percent-encoded. */
struct str url_encode(struct arena *a, struct str s);
