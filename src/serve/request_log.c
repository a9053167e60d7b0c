// SPDX-License-Identifier: Apache-2.0
/* The hot half of the request log: requests are copied into rings, a thread of its own writes them away. */
#include "serve/request_log.h"
#include <semaphore.h>
#include <stdlib.h>

struct ring {
    _Alignas(64) atomic_flag busy;    /* a thread puts a record */
    _Atomic size_t head;              /* bytes put since the start */
    _Alignas(64) _Atomic size_t tail; /* bytes taken */
    char *p;
};
struct request_log {
    struct ring rings[RINGS];
    struct serve *s;
    struct lane *lane; /* publishes */
    sem_t wake;
    atomic_bool woken, stopping, publishing, paused;
    _Atomic size_t backlog;
    pthread_mutex_t m; /* of sinks */
    struct request_sink *sinks;
    bool running;
    pthread_t writer;
    /* the writer's */
    struct str boot;
    uint8_t key[32];
    uint64_t taken;
    int64_t paused_until_ns, retry_ns; /* retry: what could not be published */
    int64_t pause_ms, wait_ms;         /* the last pause, and wait for a retry; 0: all went well since */
    bool failed, publish_failed;       /* the last try; said once */
    struct arena *a;
};

/* ---- a record is measured, then copied by the same code ---- */

struct put {
    char *p; /* NULL: only measures */
    size_t n;
};

static void put_bytes(struct put *to, const void *p, size_t n)
{
    if (to->p && n)
        memcpy(to->p + to->n, p, n);
    to->n += (n + 7) & ~(size_t)7;
}

static void put_text(struct put *to, struct str s)
{
    uint64_t n = s.n;
    put_bytes(to, &n, sizeof n);
    put_bytes(to, s.p, s.n);
}

static void put_tensor(struct put *to, const struct tensor *t)
{
    put_bytes(to, t, sizeof *t);
    if (t->type != TENSOR_TEXT) {
        put_bytes(to, t->data, t->bytes);
        return;
    }
    for (size_t i = 0; i < t->bytes / sizeof(struct str); i++)
        put_text(to, ((const struct str *)t->data)[i]);
}

static void put_record(struct put *to, const struct infer *c, const struct record *r)
{
    put_bytes(to, r, sizeof *r);
    put_bytes(to, r->request_id.p, r->request_id.n);
    put_bytes(to, r->id.p, r->id.n);
    put_bytes(to, r->token.p, r->token.n);
    for (size_t i = 0; r->row_ids && i < r->rows; i++)
        put_text(to, c->row_ids[i]);
    if (r->event_at)
        put_bytes(to, c->event_at, r->rows * sizeof *c->event_at);
    for (size_t i = 0; i < r->inputs; i++)
        put_tensor(to, &c->in[i]);
    for (size_t i = 0; i < r->outputs; i++)
        put_tensor(to, &c->out[i]);
}

/* ---- and read again ---- */

static const void *take_bytes(const char **from, size_t n)
{
    const void *p = *from;
    *from += (n + 7) & ~(size_t)7;
    return p;
}

static struct str take_text(const char **from)
{
    uint64_t n;
    memcpy(&n, take_bytes(from, sizeof n), sizeof n);
    return (struct str){ take_bytes(from, n), n };
}

static struct tensor take_tensor(struct arena *a, const char **from)
{
    struct tensor t;
    memcpy(&t, take_bytes(from, sizeof t), sizeof t);
    if (t.type != TENSOR_TEXT) {
        t.data = (void *)(uintptr_t)take_bytes(from, t.bytes);
        return t;
    }
    size_t n = t.bytes / sizeof(struct str);
    struct str *v = NEW_N(a, struct str, n + 1);
    for (size_t i = 0; i < n; i++)
        v[i] = take_text(from);
    t.data = v;
    return t;
}

static void take_record(struct arena *a, const char *from, struct taken *out)
{
    struct record *r = &out->r;
    memcpy(r, take_bytes(&from, sizeof *r), sizeof *r);
    r->request_id.p = take_bytes(&from, r->request_id.n);
    r->id.p = take_bytes(&from, r->id.n);
    r->token.p = take_bytes(&from, r->token.n);
    struct str *ids = r->row_ids ? NEW_N(a, struct str, r->rows + 1) : NULL;
    for (size_t i = 0; ids && i < r->rows; i++)
        ids[i] = take_text(&from);
    out->row_ids = ids;
    out->event_at = r->event_at ? take_bytes(&from, r->rows * sizeof *out->event_at) : NULL;
    struct tensor *t = NEW_N(a, struct tensor, r->inputs + r->outputs + 1);
    out->in = t;
    out->out = t + r->inputs;
    for (size_t i = 0; i < r->inputs + r->outputs; i++)
        t[i] = take_tensor(a, &from);
}

/* ---- the ring ---- */

/* Room for n bytes in one piece, else NULL. A rest at the end that is too small is left as a gap. */
static char *ring_room(struct ring *g, size_t n, size_t *head)
{
    size_t at = *head & (RING_BYTES - 1), rest = RING_BYTES - at, gap = rest < n ? rest : 0;
    size_t used = *head - atomic_load_explicit(&g->tail, memory_order_acquire);
    if (gap + n > RING_BYTES - used)
        return NULL;
    if (gap)
        memcpy(g->p + at, (uint32_t[]){ (uint32_t)gap, 1 }, 8);
    *head += gap;
    return g->p + (*head & (RING_BYTES - 1));
}

static bool ring_put(struct ring *g, const struct infer *c, const struct record *r)
{
    if (atomic_flag_test_and_set_explicit(&g->busy, memory_order_acquire))
        return false;
    size_t head = atomic_load_explicit(&g->head, memory_order_relaxed);
    char *p = ring_room(g, r->bytes, &head);
    if (p) {
        put_record(&(struct put){ .p = p }, c, r);
        atomic_store_explicit(&g->head, head + r->bytes, memory_order_release);
    }
    atomic_flag_clear_explicit(&g->busy, memory_order_release);
    return p != NULL;
}

static bool ring_half_full(struct ring *g)
{
    return atomic_load_explicit(&g->head, memory_order_relaxed) -
               atomic_load_explicit(&g->tail, memory_order_relaxed) >
           RING_BYTES / 2;
}

/* ---- taking a request ---- */

/* The version is chosen by the same id's hash: mixed again, so that a share of each version is logged. */
static bool sampled(const struct infer *c, uint64_t under)
{
    if (under == UINT64_MAX)
        return true;
    struct str key = c->id.n ? c->id : c->row_ids_n ? c->row_ids[0] : c->r ? c->r->id : c->deployment;
    uint64_t h = hash64(key);
    return splitmix(&h) <= under;
}

static int64_t between(int64_t from, int64_t till)
{
    return till > from ? till - from : 0;
}

static struct record record_of(const struct infer *c, struct request_sink *sink, err e, int64_t now)
{
    const struct infer_times *at = &c->at;
    bool ready = at->ready > 0; /* else tensors may be there in part only */
    struct record r = {
        .sink = sink,
        .now = c->now,
        .took_ns = now - at->arrived,
        .input_ns = between(at->arrived, at->ready),
        .queue_ns = ready ? between(at->ready, at->started) : 0,
        .infer_ns = at->started ? between(at->started, at->ran) : 0,
        .output_ns = at->ran ? now - at->ran : 0,
        .rows = ready && sink->batched && c->n ? c->n : 1,
        .inputs = ready ? c->to->model->info->n_inputs : 0,
        .outputs = e ? 0 : c->out_n,
        .id = c->id,
        .error = e ? e->code : ERR_NONE,
    };
    if (c->r) {
        r.request_id = c->r->id;
        r.token = req_who(c->r) ? req_who(c->r)->name : S("");
    }
    r.row_ids = ready && c->row_ids && c->row_ids_n == r.rows;
    r.event_at = ready && c->event_at && c->n == r.rows;
    if (c->trace)
        trace_id_text(c->trace, r.trace);
    return r;
}

void request_log_take(struct infer *c, struct request_sink *sink, err e, int64_t now)
{
    uint64_t under = atomic_load_explicit(&sink->under, memory_order_relaxed);
    if (!under || !sampled(c, under))
        return;
    struct request_log *l = sink->log;
    struct record r = record_of(c, sink, e, now);
    struct put size = { 0 };
    put_record(&size, c, &r);
    r.bytes = (uint32_t)size.n;
    bool put = false;
    bool open = size.n <= RECORD_MAX && !atomic_load_explicit(&l->paused, memory_order_relaxed);
    for (unsigned i = 0; open && !put && i < RINGS; i++) {
        struct ring *g = &l->rings[(c->slot + i) % RINGS];
        put = ring_put(g, c, &r);
        if (ring_half_full(g) && !atomic_exchange_explicit(&l->woken, true, memory_order_acq_rel))
            sem_post(&l->wake);
    }
    atomic_fetch_add_explicit(put ? &c->count->logged : &c->count->unlogged, 1, memory_order_relaxed);
}

/* ---- the writer ---- */

static void publish(void *arg)
{
    struct request_log *l = arg;
    size_t left = 0;
    atomic_store(&l->publishing, false); /* what comes from here on asks again */
    err e = spills_publish(l->s, &left);
    atomic_store(&l->backlog, left);
    if (e && !l->publish_failed)
        log_err("request-log.unpublished", e);
    l->publish_failed = e != NULL;
    err_reset();
}

static void publish_soon(struct request_log *l)
{
    if (!atomic_exchange(&l->publishing, true) && !lane_push(l->lane, publish, l))
        atomic_store(&l->publishing, false);
}

/* The pause after this one, in nanoseconds. */
static int64_t pause_next(int64_t *ms)
{
    *ms = *ms ? 2 * *ms : PAUSE_MS_MIN;
    *ms = *ms < PAUSE_MS_MAX ? *ms : PAUSE_MS_MAX;
    return *ms * 1000000;
}

/* The log pauses: what is in the rings stays there, further requests are counted as not logged. Said once. */
static void trouble(struct request_log *l, err e)
{
    if (!e) {
        if (l->failed)
            log_info("request-log.resumed", KV("taken", (int64_t)l->taken));
        l->failed = false;
        l->pause_ms = 0;
        return;
    }
    l->paused_until_ns = mono_ns() + pause_next(&l->pause_ms);
    atomic_store(&l->paused, true);
    if (!l->failed)
        log_err("request-log.stopped", e);
    l->failed = true;
}

static void ring_empty(struct request_log *l, struct ring *g)
{
    size_t tail = atomic_load_explicit(&g->tail, memory_order_relaxed);
    size_t head = atomic_load_explicit(&g->head,
                                       memory_order_acquire); /* what comes now waits for the next pass */
    while (tail != head) {
        const char *p = g->p + (tail & (RING_BYTES - 1));
        uint32_t bytes, gap;
        memcpy(&bytes, p, sizeof bytes);
        memcpy(&gap, p + 4, sizeof gap);
        if (!gap) {
            struct arena *a = arena_new(0);
            struct taken t;
            take_record(a, p, &t);
            t.number = l->taken++;
            rows_write(t.r.sink, &t, l->boot, l->key);
            arena_free(a);
        }
        tail += bytes;
        atomic_store_explicit(&g->tail, tail, memory_order_release);
    }
}

static void sink_rotate(struct request_log *l, struct request_sink *sink)
{
    if (!sink->dir)
        return;
    err e = spill_close(sink);
    if (e)
        trouble(l, e);
    publish_soon(l);
}

static void sink_flush(struct request_log *l, struct request_sink *sink, bool last)
{
    err e = NULL;
    if (sink->text.n) {
        if (!sink->dir)
            e = spill_open(l->s, sink);
        if (!e)
            e = spill_write(sink);
        trouble(l, e);
    }
    int64_t age_ms = sink->dir ? (mono_ns() - sink->opened_ns) / 1000000 : 0;
    if (e || last || sink->bytes >= atomic_load(&sink->rotate_bytes) ||
        age_ms >= atomic_load(&sink->rotate_ms))
        sink_rotate(l, sink);
}

static void sink_free(struct request_sink *sink)
{
    arena_free(sink->text.a);
    arena_free(sink->a);
    free(sink);
}

/* Takes out of the list, and frees, what leaves. */
static void sinks_drop(struct request_log *l)
{
    LOCKED(&l->m);
    for (struct request_sink **p = &l->sinks; *p;) {
        struct request_sink *k = *p;
        if (!k->leaves) {
            p = &k->next;
            continue;
        }
        *p = k->next;
        sink_free(k);
    }
}

static void retry(struct request_log *l)
{
    int64_t now = mono_ns();
    if (!atomic_load(&l->backlog))
        l->wait_ms = 0;
    if (!atomic_load(&l->backlog) || now < l->retry_ns)
        return;
    l->retry_ns = now + pause_next(&l->wait_ms);
    publish_soon(l);
}

/* A sink whose tally had gone before the rings are emptied can get nothing more. */
static void pass(struct request_log *l, bool last)
{
    bool rests = mono_ns() < l->paused_until_ns || atomic_load(&l->backlog) > BACKLOG_MAX;
    atomic_store(&l->paused, rests);
    if (rests && !last) {
        retry(l);
        return;
    }
    pthread_mutex_lock(&l->m);
    struct request_sink *first = l->sinks; /* new ones come before it */
    pthread_mutex_unlock(&l->m);
    for (struct request_sink *k = first; k; k = k->next)
        k->leaves = atomic_load(&k->gone);
    for (size_t i = 0; i < RINGS; i++)
        ring_empty(l, &l->rings[i]);
    for (struct request_sink *k = first; k; k = k->next)
        sink_flush(l, k, last || k->leaves);
    sinks_drop(l);
    retry(l);
    err_reset();
}

static void *writer_run(void *arg)
{
    struct request_log *l = arg;
    while (!atomic_load(&l->stopping)) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_nsec += WRITER_MS * 1000000L;
        t.tv_sec += t.tv_nsec / 1000000000;
        t.tv_nsec %= 1000000000;
        (void)sem_clockwait(&l->wake, CLOCK_MONOTONIC, &t);
        atomic_store(&l->woken, false);
        pass(l, false);
    }
    pass(l, true);
    return NULL;
}

/* ---- life ---- */

err request_log_open(struct serve *s, struct request_log **out)
{
    bool any = false;
    struct request_log *l = aligned_alloc(_Alignof(struct request_log), sizeof *l);
    if (!l)
        abort();
    memset(l, 0, sizeof *l);
    l->s = s;
    l->a = arena_new(0);
    pthread_mutex_init(&l->m, NULL);
    sem_init(&l->wake, 0, 0);
    *out = l;
    TRY(lane_new("requests", 1, 4, &l->lane));
    TRY(spills_recover(s, &any));
    if (any)
        publish_soon(l);
    return NULL;
}

/* At the first log: the writer, and room in the rings. */
static err log_run(struct request_log *l)
{
    uint64_t boot;
    if (l->running)
        return NULL;
    TRY(spill_key(l->s, l->key));
    random_bytes(&boot, sizeof boot);
    l->boot = hex(l->a, &boot, sizeof boot);
    for (size_t i = 0; i < RINGS; i++)
        if (!l->rings[i].p && !(l->rings[i].p = aligned_alloc(64, RING_BYTES)))
            abort();
    TRY(thread_start("request-log", writer_run, l, &l->writer));
    l->running = true;
    return NULL;
}

void request_log_close(struct request_log *l)
{
    if (!l)
        return;
    atomic_store(&l->stopping, true);
    sem_post(&l->wake);
    if (l->running)
        pthread_join(l->writer, NULL);
    lane_free(l->lane);
    while (l->sinks) {
        struct request_sink *k = l->sinks;
        l->sinks = k->next;
        sink_free(k);
    }
    for (size_t i = 0; i < RINGS; i++)
        free(l->rings[i].p);
    sem_destroy(&l->wake);
    pthread_mutex_destroy(&l->m);
    arena_free(l->a);
    free(l);
}

/* ---- what the deployment wants ---- */

static struct str dataset_of(struct arena *a, const struct depl *d, const struct request_log_spec *spec)
{
    return spec->dataset.n ? str_dup(a, spec->dataset) : fmt(a, "%.*s-requests", STR(d->name));
}

static struct request_sink *sink_new(struct request_log *l, const struct depl *d, const struct model *m,
                                     const struct request_log_spec *spec)
{
    struct request_sink *k = calloc(1, sizeof *k);
    if (!k)
        abort();
    k->a = arena_new(0);
    k->text = buf_new(arena_new(0));
    k->log = l;
    k->fd = -1;
    k->project = str_dup(k->a, d->project);
    k->deployment = str_dup(k->a, d->name);
    k->version = str_dup(k->a, m->name);
    k->dataset = dataset_of(k->a, d, spec);
    k->redact = spec->redact;
    k->personal = str_join(k->a, spec->personal.v, spec->personal.n, S("\n"));
    columns_make(k, m, spec);
    return k;
}

static bool sink_fits(struct arena *a, const struct request_sink *k, const struct depl *d,
                      const struct request_log_spec *spec)
{
    return str_eq(k->dataset, dataset_of(a, d, spec)) && k->redact == spec->redact &&
           str_eq(k->personal, str_join(a, spec->personal.v, spec->personal.n, S("\n")));
}

static void sink_add(struct request_log *l, struct tally *t, struct request_sink *k)
{
    k->older = atomic_load(&t->sink);
    if (k->older)
        atomic_store(&k->older->under, 0);
    pthread_mutex_lock(&l->m);
    k->next = l->sinks;
    l->sinks = k;
    pthread_mutex_unlock(&l->m);
    atomic_store(&t->sink, k);
}

void request_log_set(struct serve *s, const struct depl *d, struct tally *t, const struct model *m,
                     const struct request_log_spec *spec)
{
    struct request_log *l = s->requests;
    struct request_sink *k = atomic_load(&t->sink);
    auto_arena struct arena *a = arena_new(0);
    if (spec->share <= 0) {
        if (k)
            atomic_store(&k->under, 0);
        return;
    }
    err e = log_run(l);
    if (e) {
        log_err("request-log.stopped", e);
        return;
    }
    if (!k || !sink_fits(a, k, d, spec)) {
        k = sink_new(l, d, m, spec);
        sink_add(l, t, k);
    }
    atomic_store(&k->rotate_ms, spec->rotate_every);
    atomic_store(&k->rotate_bytes, spec->rotate_bytes);
    atomic_store(&k->keep_ms, spec->keep);
    atomic_store(&k->under, spec->share >= 1 ? UINT64_MAX : (uint64_t)(spec->share * 0x1p64));
}

void request_sink_leave(struct request_sink *k)
{
    for (struct request_sink *older; k; k = older) {
        older = k->older;
        atomic_store(&k->gone, true); /* the writer may free it now */
    }
}
