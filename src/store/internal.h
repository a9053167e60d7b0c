/* store/internal: what the files of this module share.
 * Flow     store_write() --queue--> writer thread: begin, closures in savepoints, commit --> pulse (event_wait)
 *          store_query() --pool--> a read-only connection. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"
#include "store/blob.h"
#include "store/kv.h"
#include "store/meta.h"
#include "store/store.h"
#include <pthread.h>
#include <stdatomic.h>

enum {
    POOL_MAX = 32,          /* reading connections */
    WRITE_QUEUE_MAX = 1024, /* closures waiting; further callers wait for room */
    BATCH_MAX = 512,        /* closures in one commit */
    BATCH_MS_MAX = 20,      /* no closure joins a batch that is older */
    LIST_MAX = 10000,       /* rows of one list */
    TMP_AGE_S_MAX = 86400,  /* older temporary files are strays: no worker lives that long with one */
};

/* Statements of one file: a struct of named texts; each text's address is its key in the cache. */
#define SQL_MEMBER(name, text) const char *name;
#define SQL_VALUE(name, text) .name = text,
#define SQL_TABLE(module, LIST) \
    static const struct {       \
        LIST(SQL_MEMBER)        \
    } module##_sql = { LIST(SQL_VALUE) }

/* Reading connections: opened when needed, at most POOL_MAX, kept. */
struct pool {
    pthread_mutex_t m;
    pthread_cond_t freed;
    struct meta_conn *idle[POOL_MAX];
    size_t idle_n, open_n;
};

/* The newest event, and who waits for the next. */
struct pulse {
    pthread_mutex_t m;
    pthread_cond_t beat;
    _Atomic int64_t last;
    uint64_t wakes;
    void (*fn)(void *arg, int64_t last_seq);
    void *arg;
};

struct writer;
struct store {
    struct arena *a; /* of the opening thread: paths */
    const char *dir;
    bool read_only;
    int lock_fd;
    const struct meta_ops *meta;
    struct str meta_where;
    struct pool pool;
    struct pulse pulse;
    struct writer *writer; /* NULL if read-only */
    struct kv *kv;
    struct blobs *blobs;
};

struct tx {
    struct store *store;
    struct meta_conn *conn;
    struct arena *a;   /* reset after each closure */
    int64_t now;       /* of this closure */
    int64_t seq, time; /* of the last event, this transaction's included */
};

err writer_start(struct store *, struct writer **out);
void writer_stop(struct writer *); /* runs what is queued; NULL is fine */

void pool_init(struct pool *);
void pool_done(struct pool *);
err pool_take(struct store *, struct meta_conn **out);
void pool_give(struct store *, struct meta_conn *);

void pulse_init(struct pulse *);
void pulse_done(struct pulse *);
/* Events up to last are committed: wakes who waits, calls the stream's function. */
void pulse_beat(struct pulse *, int64_t last);
/* The newest event's seq and time in the database. */
err event_newest(struct meta_conn *, int64_t *seq, int64_t *time);

/* Runs one statement on a connection; one row at least if one_row, and only the first is seen. */
err meta_run(struct meta_conn *, struct query *);
err meta_one(struct meta_conn *, struct query *);

/* An error of another thread, made again in this one's memory. */
err err_adopt(err);
/* EFBIG (a limit on file sizes) is a full disk to whoever writes. */
int disk_errno(int errno_);
