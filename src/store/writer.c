// SPDX-License-Identifier: Apache-2.0
/* writer: the one thread that changes the database. Closures wait in a bounded queue; those that are
 * there while a transaction is open join it, so that one fsync serves many callers.
 * Invariant: a caller is answered only after the commit that holds its changes has returned. */
#include "store/internal.h"
#include <assert.h>
#include <stdlib.h>

struct job {
    write_fn fn;
    void *arg;
    struct job *next;
    pthread_cond_t answered;
    bool done;
    struct arena *err_a; /* holds e; made by the writer, freed by the caller */
    err e;
};

struct jobs {
    struct job *head, **tail;
};

struct writer {
    struct store *store;
    struct meta_conn *conn;
    pthread_t thread;
    pthread_mutex_t m;
    pthread_cond_t filled, room;
    struct jobs queue;
    size_t queue_n;
    bool stop;
    struct tx tx;
};

static void jobs_add(struct jobs *js, struct job *j)
{
    j->next = NULL;
    *js->tail = j;
    js->tail = &j->next;
}

static struct job *jobs_pop(struct jobs *js)
{
    struct job *j = js->head;
    if (j && !(js->head = j->next))
        js->tail = &js->head;
    return j;
}

/* The next closure; NULL if there is none (wait: none, and there will never be one). */
static struct job *queue_pop(struct writer *w, bool wait)
{
    LOCKED(&w->m);
    while (wait && !w->queue.head && !w->stop)
        pthread_cond_wait(&w->filled, &w->m);
    struct job *j = jobs_pop(&w->queue);
    if (j) {
        w->queue_n--;
        pthread_cond_signal(&w->room);
    }
    return j;
}

static void job_fail(struct job *j, err e)
{
    if (!j->err_a)
        j->err_a = arena_new(0);
    j->e = err_copy(e, j->err_a);
}

/* Runs one closure in its savepoint. What it returns ended the whole transaction; what ended only this
 * closure is in j->e. */
static err job_run(struct writer *w, struct job *j)
{
    const struct meta_ops *meta = w->conn->ops;
    struct tx *tx = &w->tx;
    int64_t seq = tx->seq, now = now_us();
    tx->now = now > tx->time ? now : tx->time;
    TRY(meta->mark(w->conn));
    err e = j->fn(tx, j->arg);
    if (!e)
        e = meta->keep(w->conn);
    arena_reset(tx->a);
    if (!e)
        return NULL;
    tx->seq = seq;
    job_fail(j, e);
    if (!meta->in_tx(w->conn))
        return e;
    err undone = meta->undo(w->conn);
    return undone;
}

static void batch_answer(struct writer *w, struct jobs *batch, err e)
{
    LOCKED(&w->m);
    for (struct job *j; (j = jobs_pop(batch));) {
        if (e && !j->e)
            job_fail(j, e);
        j->done = true;
        pthread_cond_signal(&j->answered);
    }
}

/* Closures from j on, as they come, in one transaction. */
static err batch_run(struct writer *w, struct job *j, struct jobs *batch)
{
    int64_t end_ns = mono_ns() + BATCH_MS_MAX * 1000000ll;
    jobs_add(batch, j);
    TRY(w->conn->ops->begin(w->conn));
    for (size_t n = 1;; n++) {
        TRY(job_run(w, j));
        if (n == BATCH_MAX || mono_ns() >= end_ns || !(j = queue_pop(w, false)))
            break;
        jobs_add(batch, j);
    }
    return w->conn->ops->commit(w->conn);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    for (struct job *j; (j = queue_pop(w, true));) {
        struct jobs batch = { .tail = &batch.head };
        int64_t seq = w->tx.seq;
        err e = batch_run(w, j, &batch);
        if (e) {
            w->conn->ops->rollback(w->conn);
            w->tx.seq = seq;
        } else if (w->tx.seq != seq) {
            pulse_beat(&w->store->pulse, w->tx.seq);
        }
        batch_answer(w, &batch, e);
        if (w->conn->ops->tidy)
            w->conn->ops->tidy(w->conn);
        err_reset();
    }
    err_reset();
    return NULL;
}

err store_write(struct store *s, write_fn fn, void *arg)
{
    struct writer *w = s->writer;
    if (!w)
        FAIL(INVALID, "%s was opened for reading only", s->dir);
    bool nested = pthread_equal(pthread_self(), w->thread);
    assert(!nested && "store_write inside a closure");
    if (nested) /* it would wait for itself */
        FAIL(INTERNAL, "store_write inside a closure");
    struct job j = { .fn = fn, .arg = arg };
    pthread_cond_init(&j.answered, NULL);
    {
        LOCKED(&w->m);
        while (w->queue_n == WRITE_QUEUE_MAX)
            pthread_cond_wait(&w->room, &w->m);
        jobs_add(&w->queue, &j);
        w->queue_n++;
        pthread_cond_signal(&w->filled);
        while (!j.done)
            pthread_cond_wait(&j.answered, &w->m);
    }
    pthread_cond_destroy(&j.answered);
    err e = err_adopt(j.e);
    arena_free(j.err_a);
    return e;
}

static void writer_free(struct writer *w)
{
    arena_free(w->tx.a);
    w->store->meta->close(w->conn);
    pthread_cond_destroy(&w->room);
    pthread_cond_destroy(&w->filled);
    pthread_mutex_destroy(&w->m);
    free(w);
}

static err writer_init(struct writer *w)
{
    struct store *s = w->store;
    TRY(s->meta->open(s->meta_where, true, &w->conn));
    w->tx = (struct tx){ .store = s, .conn = w->conn, .a = w->tx.a };
    TRY(event_newest(w->conn, &w->tx.seq, &w->tx.time));
    atomic_store(&s->pulse.last, w->tx.seq);
    return thread_start("store-writer", writer_main, w, &w->thread);
}

err writer_start(struct store *s, struct writer **out)
{
    struct writer *w = calloc(1, sizeof *w);
    if (!w)
        abort();
    w->store = s;
    w->queue.tail = &w->queue.head;
    w->tx.a = arena_new(0);
    pthread_mutex_init(&w->m, NULL);
    pthread_cond_init(&w->filled, NULL);
    pthread_cond_init(&w->room, NULL);
    err e = writer_init(w);
    if (e)
        writer_free(w);
    else
        *out = w;
    return e;
}

void writer_stop(struct writer *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->m);
    w->stop = true;
    pthread_cond_signal(&w->filled);
    pthread_mutex_unlock(&w->m);
    pthread_join(w->thread, NULL);
    writer_free(w);
}

/* ---- inside a closure ---- */

err tx_query(struct tx *tx, const char *sql, const struct bind *b, size_t n,
             err (*on_row)(void *arg, const struct row *), void *arg)
{
    struct query q = { .sql = sql, .bind = b, .bind_n = n, .on_row = on_row, .arg = arg };
    return meta_run(tx->conn, &q);
}

err tx_one(struct tx *tx, const char *sql, const struct bind *b, size_t n,
           err (*on_row)(void *arg, const struct row *), void *arg)
{
    struct query q = { .sql = sql, .bind = b, .bind_n = n, .on_row = on_row, .arg = arg };
    return meta_one(tx->conn, &q);
}

err tx_exec(struct tx *tx, const char *sql, const struct bind *b, size_t n, int64_t *changes)
{
    struct query q = { .sql = sql, .bind = b, .bind_n = n };
    TRY(meta_run(tx->conn, &q));
    if (changes)
        *changes = q.changes;
    return NULL;
}

struct arena *tx_arena(struct tx *tx)
{
    return tx->a;
}

int64_t tx_now(struct tx *tx)
{
    return tx->now;
}

static err script_run(struct tx *tx, void *arg)
{
    return tx->conn->ops->script(tx->conn, arg);
}

err store_ddl(struct store *s, const char *name, const char *script)
{
    if (s->read_only)
        return NULL; /* the daemon made them */
    union {
        const char *text;
        void *arg;
    } in = { .text = script };
    TRY_AS(store_write(s, script_run, in.arg), "making the tables of '%s'", name);
    return NULL;
}
