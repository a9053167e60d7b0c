// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

/* Bytes of one chunk: room for its size in front, for its end behind. */
enum { FRAME_HEAD = 10, FRAME_END = 2, KEEP_BYTES = 64 << 10, CALL_FULL = 4 };
struct frame {
    char *p;
    size_t n, cap; /* payload; its room */
};

struct stream {
    struct post post; /* first member: bytes wait, or the end */
    pthread_mutex_t lock;
    atomic_int refs; /* the maker, the connection, a post under way */
    struct loop *loop;
    struct conn *conn;   /* loop thread only; NULL until the head is sent */
    struct req_out *out; /* loop thread only; the exchange, where it stays until the end */
    size_t bytes_max;
    bool chunked, bodiless; /* else the end of the connection is the end; HEAD */
    bool posted;            /* from here on: under lock */
    bool gone;              /* nobody listens any more: no posts */
    bool ended;             /* the maker is done */
    bool cut;               /* the client is too slow */
    bool used;              /* something was sent */
    struct frame in, sent;  /* filled by senders; being written by the loop */
    int64_t held;           /* of the loop's: until the connection gives it up */
    size_t sent_at;         /* of sent: bytes that are written */
};

static void stream_unref(struct stream *s)
{
    if (atomic_fetch_sub(&s->refs, 1) != 1)
        return;
    free(s->in.p);
    free(s->sent.p);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void on_post(struct post *p)
{
    struct stream *s = (struct stream *)p;
    pthread_mutex_lock(&s->lock);
    s->posted = false;
    bool cut = s->cut;
    pthread_mutex_unlock(&s->lock);
    struct conn *c = s->conn;
    if (s->out)
        s->out->codec->ready(s->out);
    else if (c && cut)
        conn_close(c);
    if (c)
        conn_go_on(c);
    stream_unref(s);
}

/* Under lock. */
static void stream_post(struct stream *s)
{
    if (s->gone || s->posted)
        return;
    s->posted = true;
    atomic_fetch_add(&s->refs, 1);
    s->post.run = on_post;
    loop_post(s->loop, &s->post);
}

/* Loop thread: the reply's head is there; bytes follow when it is this request's turn. */
static void on_made(struct post *p)
{
    struct req_out *e = (struct req_out *)((char *)p - offsetof(struct req_out, stream_post));
    struct conn *c = e->conn;
    e->streams = true;
    e->state = READY;
    if (!c)
        stream_gone(e->stream);
    else if (e->codec->many)
        stream_join(e->stream, e);
    exchange_unref(e);
    if (c)
        conn_go_on(c);
}

struct stream *stream_new(struct req_out *e)
{
    struct stream *s = calloc(1, sizeof *s);
    if (!s)
        abort(); /* as arenas do */
    pthread_mutex_init(&s->lock, NULL);
    atomic_init(&s->refs, 1);
    s->loop = e->loop;
    s->bytes_max = e->loop->net->limits.out_bytes_max;
    return s;
}

err req_stream(struct req *r, int status, const char *content_type, struct stream **out)
{
    struct req_out *e = r->out;
    if (e->status)
        FAIL(INTERNAL, "a second reply (%d after %d) to %.*s", status, e->status, STR(r->target));
    struct stream *s = stream_new(e);
    atomic_store(&s->refs, 2);
    s->bodiless = s->ended = s->gone = e->method == M_HEAD;
    s->chunked = !e->http10 && !s->bodiless;
    e->codec->reply(e, status, content_type, NULL);
    e->status = status;
    e->stream = s;
    e->stream_post.run = on_made;
    atomic_fetch_add(&e->refs, 1);
    loop_post(e->loop, &e->stream_post);
    *out = s;
    return NULL;
}

/* Under lock */
static bool stream_hold(struct stream *s, int64_t more)
{
    s->held += more;
    return loop_hold(s->loop, more);
}

static bool frame_room(struct stream *s, struct frame *f, size_t n)
{
    if (f->n + n <= f->cap)
        return true;
    size_t cap = f->cap ? f->cap * 2 : 1024;
    while (cap < f->n + n)
        cap *= 2;
    int64_t more = (int64_t)(cap - f->cap);
    char *p = stream_hold(s, more) ? realloc(f->p, FRAME_HEAD + cap + FRAME_END) : NULL;
    if (!p) {
        (void)stream_hold(s, -more);
        return false;
    }
    f->p = p;
    f->cap = cap;
    return true;
}

static void frame_put(struct frame *f, struct str bytes)
{
    if (bytes.n)
        memcpy(f->p + FRAME_HEAD + f->n, bytes.p, bytes.n);
    f->n += bytes.n;
}

bool stream_send_both(struct stream *s, struct str head, struct str body)
{
    LOCKED(&s->lock);
    if (s->gone || s->cut || s->ended)
        return false;
    /* One send may be as large as it likes: it is in memory already. */
    s->cut = s->in.n + s->sent.n > s->bytes_max || !frame_room(s, &s->in, head.n + body.n);
    s->used = true;
    if (!s->cut) {
        frame_put(&s->in, head);
        frame_put(&s->in, body);
    }
    stream_post(s);
    return !s->cut;
}

bool stream_send(struct stream *s, struct str bytes)
{
    return stream_send_both(s, S(""), bytes);
}

bool stream_open(struct stream *s)
{
    LOCKED(&s->lock);
    return !s->gone && !s->cut;
}

void stream_end(struct stream *s)
{
    LOCKED(&s->lock);
    s->ended = true;
    stream_post(s);
}

void stream_close(struct stream *s)
{
    if (!s)
        return;
    stream_end(s);
    stream_unref(s);
}

/* ---- the loop's side ---- */

void stream_gone(struct stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->gone = true;
    (void)stream_hold(s, -s->held); /* whoever feeds it may outlive the loop */
    pthread_mutex_unlock(&s->lock);
    s->conn = NULL;
    s->out = NULL;
    stream_unref(s);
}

void stream_finish(struct stream *s)
{
    LOCKED(&s->lock);
    s->gone = s->ended = true;
}

void stream_attach(struct stream *s, struct conn *c)
{
    s->conn = c;
    c->stream = s;
    if (c->loop->stopping)
        stream_finish(s);
    if (c->eof)
        conn_close(c);
}

void stream_join(struct stream *s, struct req_out *e)
{
    s->conn = e->conn;
    s->out = e;
    if (e->loop->stopping)
        stream_finish(s);
    e->codec->ready(e);
}

static void close_with(void *s)
{
    stream_close(s);
}

void stream_call(struct stream *s, struct req_out *e)
{
    s->conn = e->conn;
    s->out = e;
    s->bytes_max *= CALL_FULL; /* one message may bring several large answers; the next waits for room */
    atomic_fetch_add(&s->refs, 1);
    arena_defer(e->req.a, close_with, s);
}

bool stream_full(struct stream *s)
{
    LOCKED(&s->lock);
    return s->in.n + s->sent.n - s->sent_at > s->bytes_max / CALL_FULL;
}

bool stream_unused(struct stream *s)
{
    LOCKED(&s->lock);
    return !s->used;
}

/* Under lock: what senders brought is what is written next. */
static void frames_swap(struct stream *s)
{
    struct frame f = s->sent;
    s->sent = s->in;
    s->in = f;
    s->sent_at = 0;
}

enum next { WAIT, SEND, END, CUT };
/* What is to be done; SEND: s->sent has the bytes. */
static enum next stream_next(struct stream *s)
{
    LOCKED(&s->lock);
    if (s->cut)
        return CUT;
    if (!s->in.n)
        return s->ended ? END : WAIT;
    frames_swap(s);
    return SEND;
}

static uv_buf_t frame_bytes(struct stream *s)
{
    struct frame *f = &s->sent;
    if (!s->chunked)
        return uv_buf_init(f->p + FRAME_HEAD, (unsigned)f->n);
    char size[FRAME_HEAD + 1];
    snprintf(size, sizeof size, "%08x\r\n", (unsigned)f->n);
    memcpy(f->p, size, FRAME_HEAD);
    memcpy(f->p + FRAME_HEAD + f->n, "\r\n", FRAME_END);
    return uv_buf_init(f->p, (unsigned)(FRAME_HEAD + f->n + FRAME_END));
}

/* Under lock */
static void sent_forget(struct stream *s)
{
    s->sent.n = s->sent_at = 0;
    if (s->sent.cap <= KEEP_BYTES)
        return;
    (void)stream_hold(s, -(int64_t)s->sent.cap);
    free(s->sent.p);
    s->sent = (struct frame){ 0 };
}

void stream_sent(struct conn *c)
{
    LOCKED(&c->stream->lock);
    sent_forget(c->stream);
}

struct str stream_peek(struct stream *s, size_t max, bool *end, bool *cut)
{
    LOCKED(&s->lock);
    if (s->sent_at == s->sent.n && s->in.n)
        frames_swap(s);
    *cut = s->cut;
    struct str all = { s->sent.p + FRAME_HEAD + s->sent_at, s->sent.n - s->sent_at };
    *end = s->ended && !s->in.n && all.n <= max;
    return all.n ? str_sub(all, 0, max) : S("");
}

void stream_taken(struct stream *s, size_t n)
{
    LOCKED(&s->lock);
    s->sent_at += n;
    if (s->sent_at == s->sent.n)
        sent_forget(s);
}

/* The reply is whole: the connection goes on with the next, or ends if only that can tell. */
static void stream_last(struct conn *c)
{
    static char last[] = "0\r\n\r\n";
    struct stream *s = c->stream;
    c->stream = NULL;
    c->written_n = 0;
    uv_buf_t b = uv_buf_init(last, sizeof last - 1);
    if (s->chunked)
        (void)conn_send(c, &b, 1);
    else if (!s->bodiless)
        c->ended = true;
    stream_gone(s);
}

void stream_pump(struct conn *c)
{
    while (c->stream && !c->writing && !c->closed) {
        struct stream *s = c->stream;
        switch (stream_next(s)) {
        case WAIT:
            return;
        case CUT:
            conn_close(c);
            return;
        case END:
            stream_last(c);
            return;
        case SEND:
            break;
        }
        uv_buf_t b = frame_bytes(s);
        if (conn_send(c, &b, 1))
            stream_sent(c);
    }
}
