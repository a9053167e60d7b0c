/* store: everything dhow remembers: metadata and events (SQLite), keyed rows (LMDB), blobs (files).
 * Layout   DIR/format (one line "dhow-store 1"), meta.db, online/ (LMDB), blobs/ab/cdef…, jobs/, tmp/, lock.
 * Writes   one writer thread runs closures in order, several per transaction (group commit); a closure
 *          that fails takes only its own changes back. store_write() returns after the fsync.
 * Reads    a pool of read-only connections; each query sees one snapshot.
 * Threads  any.
 * Errors   NOT_FOUND, CONFLICT (rev, uniqueness), FULL (disk), INVALID (a folder of another format, or a
 *          newer one), UNAVAILABLE (another process holds DIR), INTERNAL.
 * Process  one store_open() or kv_open() of a DIR per process, and none across a fork (LMDB's locks).
 * Only this module speaks an SQL dialect; the others' statements are in named lists that run on both. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

struct schema;
struct store;
struct tx; /* a write transaction, inside a closure */

struct store_config {
    struct str dir;
    bool read_only;      /* for tools beside a running daemon: no lock, no writer thread */
    size_t kv_bytes_max; /* size of the LMDB map; 0: 16 GiB (sparse) */
};
err store_open(const struct store_config *, struct store **out);
void store_close(struct store *); /* NULL is fine; waits for queued writes */
const char *store_dir(const struct store *);

/* ---- statements ---- */
enum bind_type { BIND_NULL, BIND_I64, BIND_F64, BIND_TEXT, BIND_BYTES };
struct bind {
    enum bind_type type;
    union {
        int64_t i;
        double f;
        struct str s;
    };
};
#define B_I(v) ((struct bind){ .type = BIND_I64, .i = (v) })
#define B_F(v) ((struct bind){ .type = BIND_F64, .f = (v) })
#define B_S(v) ((struct bind){ .type = BIND_TEXT, .s = (v) })
#define B_B(v) ((struct bind){ .type = BIND_BYTES, .s = (v) })
#define BIND(...) \
    (const struct bind[]){ __VA_ARGS__ }, sizeof((const struct bind[]){ __VA_ARGS__ }) / sizeof(struct bind)
#define NO_BIND NULL, 0

/* A row as it is stepped to; text lives until the next row. */
struct row;
int64_t row_i64(const struct row *, int col);
double row_f64(const struct row *, int col);     /* NaN for NULL */
struct str row_str(const struct row *, int col); /* empty for NULL */
bool row_null(const struct row *, int col);

/* Runs a named statement and calls on_row for each row; an error of on_row ends it. Statements are
 * prepared once per connection (sql is a static string; its address is the cache's key). There are 32
 * connections and on_row holds one: it gathers, and asks its own questions afterwards. */
err store_query(struct store *, const char *sql, const struct bind *, size_t n,
                err (*on_row)(void *arg, const struct row *), void *arg);
/* NOT_FOUND unless there is a row; on_row sees the first. */
err store_one(struct store *, const char *sql, const struct bind *, size_t n,
              err (*on_row)(void *arg, const struct row *), void *arg);

typedef err (*write_fn)(struct tx *, void *arg);
/* Runs fn on the writer thread in a transaction of its own (a savepoint) and waits until it is durable.
 * An error of fn is returned (copied to this thread) and nothing of it stays. fn must not block. */
err store_write(struct store *, write_fn fn, void *arg);
/* Inside fn: the transaction's own reads and writes. */
err tx_query(struct tx *, const char *sql, const struct bind *, size_t n,
             err (*on_row)(void *arg, const struct row *), void *arg);
err tx_one(struct tx *, const char *sql, const struct bind *, size_t n,
           err (*on_row)(void *arg, const struct row *), void *arg);
/* changes: rows touched, may be NULL. A broken unique constraint is CONFLICT. */
err tx_exec(struct tx *, const char *sql, const struct bind *, size_t n, int64_t *changes);
struct arena *tx_arena(
    struct tx *);            /* for the closure, ends with it; the caller's results are copied to its own */
int64_t tx_now(struct tx *); /* the transaction's time, never before the last event's */

/* Tables and views of other modules: "create … if not exists" scripts, run in order at start, each in one
 * transaction; a module calls this before its first statement. */
err store_ddl(struct store *, const char *name, const char *script);

/* (Re)makes the view "view_<plural>" in the dialect of the backend: project, name, rev, created, updated, a
 * column per field of spec, and status as JSON. */
err store_view(struct store *, struct str plural, struct str kind, const struct schema *spec);

/* ---- resources: one table, whatever the kind; views per kind come from the schema ---- */
struct object {
    int64_t id; /* never reused; the order of making */
    struct str kind, project, name;
    int64_t rev;        /* the seq of the event of the last change of spec, labels or status: grows with each,
                            never comes back, and event_list() after it misses nothing */
    int64_t generation; /* goes up with every change of spec */
    struct str labels;  /* JSON object of text → text */
    struct str spec, status; /* JSON objects */
    int64_t created, updated;
};
struct objects {
    struct object *v;
    size_t n, cap;
    int64_t
        seq; /* of the newest event that the list shows the work of: a watch from here on sees each later one */
};
err object_get(struct store *, struct arena *a, struct str kind, struct str project, struct str name,
               struct object *out);
err object_get_tx(struct tx *, struct arena *a, struct str kind, struct str project, struct str name,
                  struct object *out);
/* Of one project, in order of name, after the name `after` ("" from the start), at most limit (≤ 10,000).
 * project "": of all, in order of project and name, after "project/name". */
err object_list(struct store *, struct arena *a, struct str kind, struct str project, struct str after,
                size_t limit, struct objects *out);
/* Inserts (rev_expected 0 and none there) or replaces spec and labels; rev_expected > 0 must match; -1: any.
 * Appends the event "created"/"updated" by who; an identical spec and labels change nothing
 * (*changed false, no event). The status of a new one is {}; later ones are object_status()'s. out: as
 * stored, in tx's arena; out and changed may be NULL. NOT_FOUND for rev_expected > 0 and none there. */
err object_put(struct tx *, struct str who, const struct object *in, int64_t rev_expected, struct object *out,
               bool *changed);
/* The status alone; only reconcilers call it. CONFLICT if the generation is no longer `generation`
 * (-1: any). Appends "status" by "dhow". Same text: nothing happens. */
err object_status(struct tx *, struct str kind, struct str project, struct str name, int64_t generation,
                  struct str status);
/* Appends "deleted"; its data holds a rev greater than the object's last. rev_expected -1: any. */
err object_delete(struct tx *, struct str who, struct str kind, struct str project, struct str name,
                  int64_t rev_expected);

/* ---- the event log: append-only, what watch and reconcilers read ---- */
struct event {
    int64_t seq; /* ascending, no holes visible to a reader */
    int64_t time;
    struct str type; /* "created", "updated", "status", "deleted", or "noun.verb-past" */
    struct str kind, project, name;
    struct str who;
    struct str data; /* JSON object: the object's rev for changes, anything for others */
};
struct events {
    struct event *v;
    size_t n, cap;
};
err event_append(struct tx *, const struct event *, int64_t *seq); /* sets seq (may be NULL) and time */
/* After seq, oldest first, at most limit; kind/project/name "" match all. */
err event_list(struct store *, struct arena *a, int64_t after, struct str kind, struct str project,
               struct str name, size_t limit, struct events *out);
int64_t event_last(struct store *); /* newest committed seq, without a query */
/* Blocks until an event after seq is committed, wait_ms is over, or store_wake(); the newest seq. */
int64_t event_wait(struct store *, int64_t after, int64_t wait_ms);
void store_wake(struct store *); /* ends every event_wait now (shutdown) */
/* Called on the writer thread after a commit with new events; must not block. For streams. One at most. */
void store_on_commit(struct store *, void (*fn)(void *arg, int64_t last_seq), void *arg);

/* ---- blobs: by SHA-256, immutable ---- */
struct blob_ops; /* files now; S3 later: blob.h */
struct blobs;
struct blobs *store_blobs(struct store *);
/* A blob store alone, for worker processes that share DIR with the daemon. */
err blobs_open(struct str dir, struct blobs **out);
void blobs_close(struct blobs *);
/* Stores the bytes; the hash in hex (64) lives in a. Storing the same bytes again is free. */
err blob_put(struct blobs *, struct arena *a, struct str bytes, struct str *sha);
/* Takes over a finished file of the same file system (see blob_tmp): fsync, hash, rename. */
err blob_take(struct blobs *, struct arena *a, const char *path, struct str *sha, int64_t *size);
/* A fresh path in the store's tmp/ for a file that blob_take will get. */
const char *blob_tmp(struct blobs *, struct arena *a, struct str suffix);
/* Read-only bytes until the arena ends; the hash is checked: INTERNAL "blob … is damaged". */
err blob_get(struct blobs *, struct arena *a, struct str sha, struct str *out);
/* Removes it; one that is not there is fine. For bytes that only the caller's record names. */
err blob_drop(struct blobs *, struct arena *a, struct str sha);
/* A path to read it from, for libraries that want files. NOT_FOUND. */
err blob_path(struct blobs *, struct arena *a, struct str sha, const char **out);

/* ---- keyed rows (kv.h): struct kv_ops, LMDB with a log before it now, Redis later ---- */
struct kv;
struct kv *store_kv(struct store *);
struct kv_item {
    struct str key;   /* ≤ 511 bytes */
    struct str value; /* ≤ 64 KiB */
    int64_t version;  /* with .newer: kept only if greater than the stored one */
    bool newer, remove;
};
/* "logged:DIR": as the store has them; "lmdb:DIR": without the log, each kv_put waits for the disk. */
err kv_open(struct str url, size_t bytes_max, struct kv **out);
void kv_close(struct kv *);
/* All or none. On return kill -9 loses nothing; a power cut may undo the newest writes, not older than a tenth of
 * a second and none by half. kept (n bools, may be NULL) says which .newer items were taken. */
err kv_put(struct kv *, const struct kv_item *, size_t n, bool *kept);
/* Returns once a power cut does not lose what was put before. */
err kv_sync(struct kv *);
/* A snapshot for reading; values point into the store until kv_snap_end(). One thread. Short: rows that
 * are replaced meanwhile keep their room. */
struct kv_snap;
err kv_snap_begin(struct kv *, struct kv_snap **out);
bool kv_snap_get(struct kv_snap *, struct str key, struct str *value, int64_t *version);
/* Keys from `from` on that start with prefix, in byte order, until fn says false. */
err kv_snap_scan(struct kv_snap *, struct str prefix, struct str from,
                 bool (*fn)(void *arg, struct str key, struct str value, int64_t version), void *arg);
void kv_snap_end(struct kv_snap *);
/* One value copied into a; NOT_FOUND. */
err kv_get(struct kv *, struct arena *a, struct str key, struct str *value, int64_t *version);
/* Removes every key that starts with prefix, in several commits if they are many (again after a crash). */
err kv_drop(struct kv *, struct str prefix);

/* For `dhow doctor`: what is there and what start-up repaired, one line each, also with an error. INTERNAL names
 * the first fault. */
err store_check(struct store *, struct arena *a, struct strs *lines);
