// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <stddef.h>

/* ---- exchanges ---- */

static const char digits32[] = "0123456789abcdefghjkmnpqrstvwxyz";

/* As id_new(), without a system call: the id only tells requests apart. */
static struct str id_make(struct loop *l, struct arena *a)
{
    uint64_t ms = (uint64_t)(now_us_about() / 1000), x = splitmix(&l->seed), y = splitmix(&l->seed);
    char *p = arena_alloc(a, 26, 1);
    for (int i = 9; i >= 0; i--, ms >>= 5)
        p[i] = digits32[ms & 31];
    for (int i = 10; i < 18; i++, x >>= 5)
        p[i] = digits32[x & 31];
    for (int i = 18; i < 26; i++, y >>= 5)
        p[i] = digits32[y & 31];
    return (struct str){ p, 26 };
}

struct req_out *exchange_new(struct conn *c)
{
    struct arena *a = loop_arena(c->loop);
    struct req_out *e = NEW(a, struct req_out);
    e->loop = c->loop;
    e->conn = c;
    e->codec = c->codec;
    e->method = M_COUNT;
    atomic_init(&e->refs, 1);
    e->req = (struct req){ .a = a, .app = c->loop->net->config.app, .out = e, .start_ns = mono_ns() };
    e->req.peer = str_dup(a, str_of(c->peer));
    if (c->tls)
        e->req.tls_subject = str_dup(a, tls_subject(c->tls));
    e->req.id = id_make(c->loop, a);
    return e;
}

struct req_out *exchange_beside(struct req_out *e)
{
    struct arena *a = loop_arena(e->loop);
    struct req_out *m = NEW(a, struct req_out);
    m->req = e->req;
    m->req.a = a;
    m->req.out = m;
    m->req.start_ns = mono_ns();
    m->loop = e->loop;
    m->codec = e->codec;
    m->method = e->method;
    m->inline_ = e->inline_;
    m->grpc = e->grpc;
    atomic_init(&m->refs, 1);
    return m;
}

bool exchange_weigh(struct req_out *e)
{
    int64_t now = (int64_t)(e->heap + loop_arena_used(e->req.a)), more = now - e->weight;
    e->weight = now;
    return loop_hold(e->loop, more);
}

err req_weigh(struct req *r)
{
    if (!exchange_weigh(r->out))
        FAIL(UNAVAILABLE, "no memory is left for requests now");
    return NULL;
}

/* Loop thread: the last one out gives the arena back. */
void exchange_unref(struct req_out *e)
{
    if (atomic_fetch_sub_explicit(&e->refs, 1, memory_order_acq_rel) != 1)
        return;
    struct head *kept = e->kept;
    (void)loop_hold(e->loop, -e->weight);
    loop_arena_back(e->loop, e->req.a);
    head_unref(kept);
}

/* ---- replies to errors ---- */

static void reply_plain(struct req *r, int status, struct str text)
{
    r->out->status = 0;
    (void)req_reply(r, status, "text/plain; charset=utf-8", text);
}

/* The exchange's reply is there; where exchanges stand in line, the flush that follows finds it. */
static void exchange_ready(struct req_out *e)
{
    e->state = READY;
    (void)exchange_weigh(e);
    if (e->call && e->call->e != e)
        call_message_done(e);
    else if (e->codec->ready && e->conn)
        e->codec->ready(e);
}

/* gRPC's: what is INTERNAL goes to the log alone. */
static void reply_status(struct req *r, err e)
{
    const struct net_config *config = &r->out->loop->net->config;
    bool hidden = e->code == INTERNAL;
    if ((hidden || e->code == FULL) && config->report)
        config->report("request.failed", e);
    r->out->failure = hidden ? fmt(r->a, "something went wrong here; the log has it under request %.*s",
                                   STR(r->id))
                             : str_dup(r->a, e->text);
    /* 429 is RESOURCE_EXHAUSTED here, a limit of the client's; to be full is the server's own. */
    enum err_code code = e->code == BUSY ? UNAVAILABLE : e->code;
    reply_plain(r, err_table[code].http, r->out->failure);
}

/* The reply to e, whatever was prepared before; always one. */
static void reply_err(struct req *r, err e)
{
    struct net *net = r->out->loop->net;
    r->out->status = 0;
    if (r->out->grpc) {
        reply_status(r, e);
        return;
    }
    if (net->config.fail) {
        err second = net->config.fail(r, e);
        if (!second && r->out->status)
            return;
    }
    reply_plain(r, err_table[e->code].http, fmt(r->a, "%s: %.*s\n", err_table[e->code].name.p, STR(e->text)));
}

static void call_after(struct req_out *e)
{
    struct net *net = e->loop->net;
    if (net->config.after && !e->counted)
        net->config.after(&e->req, e->status, mono_ns() - e->req.start_ns);
    e->counted = true;
}

void exchange_refuse(struct req_out *e, err why)
{
    log_context(e->req.id);
    reply_err(&e->req, why);
    call_after(e);
    exchange_ready(e);
    err_reset();
    log_context(S(""));
}

void exchange_refuse_status(struct req_out *e, int status, const char *why)
{
    if (status == 400) {
        exchange_refuse(e, err_new(INVALID, "%s", why));
        return;
    }
    log_context(e->req.id);
    reply_plain(&e->req, status, fmt(e->req.a, "%s\n", why));
    call_after(e);
    exchange_ready(e);
    log_context(S(""));
}

/* ---- running a handler ---- */

static struct str allow_text(struct arena *a, unsigned allow)
{
    struct buf b = buf_new(a);
    if (allow & 1u << M_GET)
        allow |= 1u << M_HEAD;
    allow |= 1u << M_OPTIONS;
    for (enum method m = 0; m < M_COUNT; m++)
        if (allow & 1u << m)
            buf_fmt(&b, "%s%s", b.n ? ", " : "", method_names[m].p);
    return buf_get(&b);
}

/* The path has no route, or none for this method. */
static err no_route(struct req *r)
{
    struct req_out *e = r->out;
    if (e->grpc)
        FAIL(UNSUPPORTED, "the method %.*s is not known here", STR(r->path));
    if (!e->allow)
        FAIL(NOT_FOUND, "there is nothing at %.*s", STR(r->path));
    req_reply_header(r, "Allow", allow_text(r->a, e->allow));
    if (e->method == M_OPTIONS)
        return req_reply(r, 204, NULL, S(""));
    FAIL(METHOD, "%.*s does not know %.*s", STR(r->path), STR(r->method));
}

/* Of the handler that runs on this thread: it called req_later(), and the request may be gone already. */
static _Thread_local bool reply_owed;

static err run(struct req *r)
{
    if (r->route && r->route->grpc && !r->out->grpc)
        FAIL(MEDIA, "%.*s is called by gRPC, over HTTP/2", STR(r->path));
    TRY(grpc_unzip(r->out));
    TRY(r->route ? r->route->run(r) : no_route(r));
    if (!reply_owed && !r->out->status && !r->out->call)
        FAIL(INTERNAL, "the handler of %s gave no reply", r->route ? r->route->path : "?");
    return NULL;
}

/* Exactly one reply comes out of this, or later out of req_done(). True: now. */
static bool handle(struct req_out *e)
{
    struct req *r = &e->req;
    log_context(r->id);
    reply_owed = false;
    err failed = run(r);
    bool now = !reply_owed;
    if (now && failed && !e->stream)
        reply_err(r, failed);
    if (now)
        call_after(e);
    err_reset();
    log_context(S(""));
    return now;
}

/* Loop thread, after a worker: e->conn is NULL if the client left meanwhile. */
static void job_done(struct post *p)
{
    struct req_out *e = (struct req_out *)((char *)p - offsetof(struct req_out, done_post));
    struct conn *c = e->conn;
    struct net *net = e->loop->net;
    bool owed = e->owed;
    if ((c && !e->stream) || e->call)
        exchange_ready(e);
    exchange_unref(e);
    if (c)
        conn_go_on(c);
    if (!owed || atomic_fetch_sub(&net->owed, 1) != 1 || !atomic_load(&net->stopping))
        return;
    LOCKED(&net->lock); /* net_stop waits for it */
    pthread_cond_broadcast(&net->changed);
}

static void job_run(void *arg)
{
    struct req_out *e = arg;
    if (req_gone(&e->req) || handle(e))
        loop_post(e->loop, &e->done_post);
}

void req_later(struct req *r)
{
    reply_owed = r->out->owed = true;
    atomic_fetch_add(&r->out->loop->net->owed, 1);
}

void req_done(struct req *r, err failed)
{
    struct req_out *e = r->out;
    log_context(r->id);
    if (!failed && !e->status && !e->call)
        failed = err_new(INTERNAL, "the handler of %s gave no reply", r->route->path);
    if (failed && !e->stream)
        reply_err(r, failed);
    call_after(e);
    log_context(S(""));
    if (req_on_loop(r))
        job_done(&e->done_post);
    else
        loop_post(e->loop, &e->done_post);
}

bool req_gone(const struct req *r)
{
    const struct req_out *e = r->out->call ? r->out->call->e : r->out;
    return atomic_load_explicit(&e->gone, memory_order_relaxed);
}

/* Loop thread. False: `before` has replied. */
static bool admitted(struct req_out *e)
{
    const struct net_config *config = &e->loop->net->config;
    if (!config->before)
        return true;
    log_context(e->req.id);
    err failed = config->before(&e->req);
    if (failed)
        reply_err(&e->req, failed);
    if (e->status)
        call_after(e);
    err_reset();
    log_context(S(""));
    return !e->status;
}

void exchange_start(struct req_out *e)
{
    struct net *net = e->loop->net;
    atomic_fetch_add_explicit(&e->loop->requests, 1, memory_order_relaxed);
    if (!admitted(e)) {
        exchange_ready(e);
        return;
    }
    e->state = HANDLING;
    e->done_post.run = job_done;
    atomic_fetch_add_explicit(&e->refs, 1, memory_order_relaxed);
    const struct route *route = e->req.route;
    if (e->inline_ || (route && route->light && route->light(&e->req))) {
        if (!handle(e))
            return;
        if (!e->stream)
            exchange_ready(e);
        exchange_unref(e);
        return;
    }
    if (lane_push(net->lane, job_run, e))
        return;
    exchange_unref(e);
    req_reply_header(&e->req, "Retry-After", S("1"));
    exchange_refuse(
        e, err_hint(err_new(UNAVAILABLE, "too many requests wait for a worker"), "try again in a second"));
}
