// SPDX-License-Identifier: Apache-2.0
/* What a write and a read of the store cost: bench/store [FOLDER], which says what disk; else the checkout's. One round of a
 * write is one object_put or kv_put of one row; of a read, a snapshot and one of 100,000 rows. Beside them SQLite and LMDB,
 * bare, on one thread, promising the same: an object is on the disk when its call returns (SQLite: WAL, synchronous FULL);
 * a row outlives the process at once and a power cut soon (LMDB: a commit a row, fsync every 50 ms); many rows and then
 * kv_sync are on the disk (LMDB: one commit and fsync). */
#include "store/store.h"
#include <errno.h>
#include <lmdb.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROUNDS = 3, ROWS = 100000, GETS = 1000000, THREADS_MAX = 16 };
static const int64_t round_ns = 700000000, sync_ns = 50000000;
static const char object_text[] =
    "{\"a\":\"some two hundred bytes would be more like it\",\"b\":[1,2,3,4,5]}";
static const char row_text[] = "forty bytes of features, more or less...";

#define MUST(call)                                                  \
    do {                                                            \
        err must_ = (call);                                         \
        if (must_) {                                                \
            fprintf(stderr, "%s: %.*s\n", #call, STR(must_->text)); \
            exit(1);                                                \
        }                                                           \
    } while (0)
#define MDB_MUST(call)                                             \
    do {                                                           \
        int rc_ = (call);                                          \
        if (rc_) {                                                 \
            fprintf(stderr, "%s: %s\n", #call, mdb_strerror(rc_)); \
            exit(1);                                               \
        }                                                          \
    } while (0)

struct bench {
    const char *dir;
    struct store *store;
    sqlite3 *sql;
    sqlite3_stmt *insert;
    MDB_env *env;
    MDB_dbi rows;
    int64_t next; /* rows written so far */
};

/* ---- rounds ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Median of ROUNDS rounds of ours and of the peer's, in turns; one line. */
static void compare(struct bench *b, const char *name, const char *unit, double (*ours)(struct bench *, int),
                    int threads, const char *peer, double (*theirs)(struct bench *))
{
    double x[ROUNDS], y[ROUNDS];
    fprintf(stderr, "bench: %s\n", name);
    for (int i = 0; i < ROUNDS; i++) {
        x[i] = ours(b, threads);
        y[i] = theirs(b);
    }
    qsort(x, ROUNDS, sizeof *x, by_size);
    qsort(y, ROUNDS, sizeof *y, by_size);
    double value = x[ROUNDS / 2], peer_value = y[ROUNDS / 2];
    printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", \"peer\": \"%s\", \"peer_value\": %.4g, "
           "\"ratio\": %.4g}\n",
           name, value, unit, peer, peer_value, value / peer_value);
    fflush(stdout);
}

/* ---- writes ---- */

struct load {
    struct bench *b;
    err (*one)(struct load *);
    int64_t first, end_ns, done;
};

static err put_run(struct tx *tx, void *arg)
{
    struct object o = { .kind = S("Model"),
                        .project = S("bench"),
                        .name = fmt(tx_arena(tx), "m%lld", *(long long *)arg),
                        .spec = str_of(object_text) };
    return object_put(tx, S("bench"), &o, 0, NULL, NULL);
}

static err one_object(struct load *l)
{
    long long number = l->first + l->done;
    return store_write(l->b->store, put_run, &number);
}

static err one_row(struct load *l)
{
    int64_t key = l->first + l->done;
    struct kv_item it = { .key = { (char *)&key, sizeof key }, .value = str_of(row_text) };
    return kv_put(store_kv(l->b->store), &it, 1, NULL);
}

static void *load_run(void *arg)
{
    struct load *l = arg;
    for (; mono_ns() < l->end_ns; l->done++)
        MUST(l->one(l));
    return NULL;
}

/* Writes a second. */
static double writes(struct bench *b, err (*one)(struct load *), int threads)
{
    struct load l[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    int64_t start = mono_ns(), done = 0;
    for (int i = 0; i < threads; i++) {
        l[i] = (struct load){ .b = b, .one = one, .first = ++b->next << 32, .end_ns = start + round_ns };
        MUST(thread_start("bench", load_run, &l[i], &t[i]));
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
        done += l[i].done;
    }
    return (double)done * 1e9 / (double)(mono_ns() - start);
}

static double objects_put(struct bench *b, int threads)
{
    return writes(b, one_object, threads);
}

static double rows_put(struct bench *b, int threads)
{
    return writes(b, one_row, threads);
}

static double sqlite_inserts(struct bench *b)
{
    int64_t start = mono_ns(), end = start + round_ns, done = 0;
    for (; mono_ns() < end; done++) {
        char name[32];
        snprintf(name, sizeof name, "m%lld", (long long)++b->next);
        sqlite3_bind_text(b->insert, 1, name, -1, SQLITE_TRANSIENT);
        if (sqlite3_step(b->insert) != SQLITE_DONE || sqlite3_reset(b->insert)) {
            fprintf(stderr, "SQLite: %s\n", sqlite3_errmsg(b->sql));
            exit(1);
        }
    }
    return (double)done * 1e9 / (double)(mono_ns() - start);
}

/* n rows in one commit. */
static void lmdb_commit(struct bench *b, int64_t first, int64_t n)
{
    MDB_txn *txn;
    MDB_MUST(mdb_txn_begin(b->env, NULL, 0, &txn));
    for (int64_t key = first; key < first + n; key++) {
        MDB_val k = { sizeof key, &key }, v = { sizeof row_text - 1, (void *)(uintptr_t)row_text };
        MDB_MUST(mdb_put(txn, b->rows, &k, &v, 0));
    }
    MDB_MUST(mdb_txn_commit(txn));
}

static double lmdb_puts(struct bench *b)
{
    int64_t start = mono_ns(), end = start + round_ns, now = start, synced = start, done = 0,
            first = ++b->next << 32;
    for (; now < end; now = mono_ns(), done++) {
        lmdb_commit(b, first + done, 1);
        if (now - synced >= sync_ns) {
            MDB_MUST(mdb_env_sync(b->env, 1));
            synced = now;
        }
    }
    return (double)done * 1e9 / (double)(mono_ns() - start);
}

/* ---- many at once ---- */

static double rows_bulk(struct bench *b, int threads)
{
    (void)threads;
    auto_arena struct arena *a = arena_new(0);
    struct kv_item *items = NEW_N(a, struct kv_item, ROWS);
    int64_t *keys = NEW_N(a, int64_t, ROWS), start;
    for (int64_t i = 0; i < ROWS; i++) {
        keys[i] = i;
        items[i] = (struct kv_item){ .key = { (char *)&keys[i], 8 }, .value = str_of(row_text) };
    }
    start = mono_ns();
    MUST(kv_put(store_kv(b->store), items, ROWS, NULL));
    MUST(kv_sync(store_kv(b->store)));
    return ROWS * 1e9 / (double)(mono_ns() - start);
}

static double lmdb_bulk(struct bench *b)
{
    int64_t start = mono_ns();
    lmdb_commit(b, 0, ROWS);
    MDB_MUST(mdb_env_sync(b->env, 1));
    return ROWS * 1e9 / (double)(mono_ns() - start);
}

/* ---- reads ---- */

struct reading {
    struct bench *b;
    uint64_t seed;
    int64_t found;
};

static void *get_run(void *arg)
{
    struct reading *g = arg;
    struct kv *kv = store_kv(g->b->store);
    for (int i = 0; i < GETS; i++) {
        struct kv_snap *snap;
        struct str value;
        int64_t key = (int64_t)(splitmix(&g->seed) % ROWS);
        MUST(kv_snap_begin(kv, &snap));
        g->found += kv_snap_get(snap, (struct str){ (char *)&key, sizeof key }, &value, NULL);
        kv_snap_end(snap);
    }
    return NULL;
}

static void found_all(int64_t found, int64_t wanted)
{
    if (found == wanted)
        return;
    fprintf(stderr, "%lld of %lld rows are missing\n", (long long)(wanted - found), (long long)wanted);
    exit(1);
}

/* Nanoseconds until a thread has its row. */
static double rows_get(struct bench *b, int threads)
{
    struct reading g[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    int64_t start = mono_ns(), found = 0;
    for (int i = 0; i < threads; i++) {
        g[i] = (struct reading){ .b = b, .seed = (uint64_t)i };
        MUST(thread_start("bench", get_run, &g[i], &t[i]));
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
        found += g[i].found;
    }
    double ns = (double)(mono_ns() - start) / GETS;
    found_all(found, (int64_t)threads * GETS);
    return ns;
}

static double lmdb_gets(struct bench *b)
{
    MDB_txn *txn;
    uint64_t seed = 0;
    int64_t found = 0, start = mono_ns();
    MDB_MUST(mdb_txn_begin(b->env, NULL, MDB_RDONLY, &txn));
    for (int i = 0; i < GETS; i++) {
        int64_t key = (int64_t)(splitmix(&seed) % ROWS);
        MDB_val k = { sizeof key, &key }, v;
        mdb_txn_reset(txn);
        MDB_MUST(mdb_txn_renew(txn));
        found += mdb_get(txn, b->rows, &k, &v) == 0;
    }
    mdb_txn_abort(txn);
    double ns = (double)(mono_ns() - start) / GETS;
    found_all(found, GETS);
    return ns;
}

/* ---- everything ---- */

static void peers_open(struct bench *b, struct arena *a)
{
    static const char ddl[] = "pragma journal_mode = wal; pragma synchronous = full;"
                              "create table object (id integer primary key, name text unique, spec text)";
    MDB_txn *txn;
    const char *lmdb = fmtz(a, "%s/lmdb", b->dir);
    const char *insert = fmtz(a, "insert into object (name, spec) values (?1, '%s')", object_text);
    if (sqlite3_open(fmtz(a, "%s/peer.db", b->dir), &b->sql) || sqlite3_exec(b->sql, ddl, NULL, NULL, NULL) ||
        sqlite3_prepare_v2(b->sql, insert, -1, &b->insert, NULL)) {
        fprintf(stderr, "SQLite: %s\n", sqlite3_errmsg(b->sql));
        exit(1);
    }
    MUST(dir_make(lmdb));
    MDB_MUST(mdb_env_create(&b->env));
    MDB_MUST(mdb_env_set_mapsize(b->env, (size_t)4 << 30));
    MDB_MUST(mdb_env_open(b->env, lmdb, MDB_NOSYNC, 0600));
    MDB_MUST(mdb_txn_begin(b->env, NULL, 0, &txn));
    MDB_MUST(mdb_dbi_open(txn, NULL, 0, &b->rows));
    MDB_MUST(mdb_txn_commit(txn));
}

static void peers_close(struct bench *b)
{
    sqlite3_finalize(b->insert);
    sqlite3_close(b->sql);
    mdb_env_close(b->env);
}

int main(int argc, char **argv)
{
    static const char sqlite[] = "SQLite alone, 1 thread, synchronous FULL", lmdb[] = "LMDB alone, 1 thread",
                      now_and_then[] = "LMDB alone, 1 thread, fsync every 50 ms";
    auto_arena struct arena *a = arena_new(0);
    const char *root = getenv("DHOW_ROOT");
    char dir[4096];
    struct bench b = { .dir = dir };
    snprintf(dir, sizeof dir, "%s/bench-XXXXXX", argc > 1 ? argv[1] : root ? fmtz(a, "%s/build", root) : ".");
    log_setup(LOG_ERROR, false);
    if (!mkdtemp(dir)) {
        fprintf(stderr, "cannot make a folder %s: %s\n", dir, strerror(errno));
        return 1;
    }
    MUST(store_open(&(struct store_config){ .dir = fmt(a, "%s/store", dir) }, &b.store));
    peers_open(&b, a);
    compare(&b, "store.bulk", "rows/s", rows_bulk, 1, lmdb, lmdb_bulk);
    sleep(4); /* the log is folded into LMDB */
    compare(&b, "store.get.t1", "ns", rows_get, 1, lmdb, lmdb_gets);
    compare(&b, "store.get.t2", "ns", rows_get, 2, lmdb, lmdb_gets);
    compare(&b, "store.object.t1", "/s", objects_put, 1, sqlite, sqlite_inserts);
    compare(&b, "store.object.t16", "/s", objects_put, 16, sqlite, sqlite_inserts);
    compare(&b, "store.row.t1", "/s", rows_put, 1, now_and_then, lmdb_puts);
    compare(&b, "store.row.t16", "/s", rows_put, 16, now_and_then, lmdb_puts);
    store_close(b.store);
    peers_close(&b);
    MUST(dir_remove(dir));
    return 0;
}
