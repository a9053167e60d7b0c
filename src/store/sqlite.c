// SPDX-License-Identifier: Apache-2.0
/* sqlite: the embedded SQL backend. WAL, so that readers never wait for the writer; synchronous=FULL, so
 * that a commit is on the disk when it returns. The log is folded back into the file by tidy(), after
 * the writers have been answered. */
#include "store/internal.h"
#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    CACHE_SLOTS = 512,       /* prepared statements of a connection, a power of two */
    CACHE_PROBES = 8,        /* slots a statement may be in */
    BUSY_MS_MAX = 5000,      /* a foreign tool may hold the file for a moment */
    FOLD_PAGES = 1000,       /* log pages from which tidy() folds what readers allow */
    FOLD_PAGES_HARD = 16000, /* from which it waits for the readers, */
    FOLD_MS_MAX = 100,       /* this long */
};

struct cached {
    const char *sql; /* the key: an address */
    char *text;      /* and its text, should the address be used again for another */
    sqlite3_stmt *st;
};

struct sqlite {
    struct meta_conn base;
    sqlite3 *db;
    int log_pages; /* after the last commit */
    struct cached cache[CACHE_SLOTS];
};

static const char tables[] = "create table resource("
                             " id integer primary key autoincrement,"
                             " kind text not null, project text not null, name text not null,"
                             " rev integer not null, generation integer not null,"
                             " labels text not null, spec text not null, status text not null,"
                             " created integer not null, updated integer not null,"
                             " unique(kind, project, name));"
                             "create table event("
                             " seq integer primary key autoincrement,"
                             " time integer not null, type text not null,"
                             " kind text not null, project text not null, name text not null,"
                             " who text not null, data text not null);"
                             "create index event_of on event(kind, project, name, seq);"
                             "create trigger event_no_update before update on event"
                             " begin select raise(abort, 'events are append-only'); end;"
                             "create trigger event_no_delete before delete on event"
                             " begin select raise(abort, 'events are append-only'); end;";

static struct sqlite *sqlite_of(struct meta_conn *c)
{
    return (struct sqlite *)c;
}

static bool no_room(int errno_)
{
    return errno_ == ENOSPC || errno_ == EDQUOT || errno_ == EFBIG;
}

/* The reason of an I/O error; SQLite's own note of it may be that of its clearing up, so the files are asked. */
static bool disk_full(sqlite3 *db, int rc)
{
    sqlite3_file *log = NULL;
    int file_no = 0, log_no = 0;
    if (rc == SQLITE_IOERR_SHMSIZE || no_room(sqlite3_system_errno(db)))
        return true;
    if (rc != SQLITE_IOERR_WRITE)
        return false;
    sqlite3_file_control(db, "main", SQLITE_FCNTL_LAST_ERRNO, &file_no);
    sqlite3_file_control(db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &log);
    if (log && log->pMethods)
        log->pMethods->xFileControl(log, SQLITE_FCNTL_LAST_ERRNO, &log_no);
    return no_room(file_no) || no_room(log_no);
}

static enum err_code code_of(sqlite3 *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return FULL;
    case SQLITE_IOERR:
        return disk_full(db, rc) ? FULL : INTERNAL;
    case SQLITE_CONSTRAINT:
        return rc == SQLITE_CONSTRAINT_UNIQUE || rc == SQLITE_CONSTRAINT_PRIMARYKEY ||
                       rc == SQLITE_CONSTRAINT_ROWID
                   ? CONFLICT
                   : INVALID;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return UNAVAILABLE;
    case SQLITE_TOOBIG:
        return TOO_LARGE;
    case SQLITE_CANTOPEN:
        return sqlite3_system_errno(db) == ENOENT ? NOT_FOUND : INTERNAL;
    default:
        return INTERNAL;
    }
}

static err fault(struct sqlite *q, int rc, const char *what)
{
    enum err_code code = code_of(q->db, rc);
    err e = err_new(code, "%s: %s (SQLite %d)", what, sqlite3_errmsg(q->db), rc);
    return code == FULL ? err_hint(e, "make room on the disk that holds the data folder") : e;
}

static err plain(struct sqlite *q, const char *sql)
{
    int rc = sqlite3_exec(q->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? NULL : fault(q, rc, sql);
}

/* ---- statements ---- */

static void cached_drop(struct cached *c)
{
    sqlite3_finalize(c->st);
    free(c->text);
    *c = (struct cached){ 0 };
}

static err prepare(struct sqlite *q, const char *sql, unsigned flags, sqlite3_stmt **out)
{
    const char *tail = NULL;
    int rc = sqlite3_prepare_v3(q->db, sql, -1, flags, out, &tail);
    if (rc != SQLITE_OK)
        return fault(q, rc, sql);
    if (!*out || tail[strspn(tail, "; \n\t")]) {
        sqlite3_finalize(*out);
        FAIL(INTERNAL, "not one statement: %s", sql);
    }
    return NULL;
}

/* The slot of sql: its own, an empty one, one to reuse; NULL if all are running. */
static struct cached *slot_of(struct sqlite *q, const char *sql)
{
    size_t home = (size_t)((uintptr_t)sql * 0x9e3779b97f4a7c15u >> 40);
    struct cached *spare = NULL;
    for (size_t i = 0; i < CACHE_PROBES; i++) {
        struct cached *c = &q->cache[(home + i) % CACHE_SLOTS];
        if (c->sql == sql)
            return c;
        if (!spare || (spare->st && !c->st) || sqlite3_stmt_busy(spare->st))
            spare = c;
    }
    return sqlite3_stmt_busy(spare->st) ? NULL : spare;
}

/* once: the caller finalizes it, as its cached twin is running further up the stack. */
static err statement(struct sqlite *q, const char *sql, sqlite3_stmt **out, bool *once)
{
    struct cached *c = slot_of(q, sql);
    *once = !c || (c->sql == sql && sqlite3_stmt_busy(c->st));
    if (*once)
        return prepare(q, sql, 0, out);
    if (c->sql == sql && strcmp(c->text, sql) == 0) {
        *out = c->st;
        return NULL;
    }
    cached_drop(c);
    TRY(prepare(q, sql, SQLITE_PREPARE_PERSISTENT, out));
    *c = (struct cached){ .sql = sql, .text = strdup(sql), .st = *out };
    return NULL;
}

static int bind_cell(sqlite3_stmt *st, int at, const struct bind *b)
{
    switch (b->type) {
    case BIND_I64:
        return sqlite3_bind_int64(st, at, b->i);
    case BIND_F64:
        return sqlite3_bind_double(st, at, b->f);
    case BIND_TEXT:
        return sqlite3_bind_text64(st, at, b->s.p ? b->s.p : "", b->s.n, SQLITE_STATIC, SQLITE_UTF8);
    case BIND_BYTES:
        return sqlite3_bind_blob64(st, at, b->s.p ? b->s.p : "", b->s.n, SQLITE_STATIC);
    case BIND_NULL:
        break;
    }
    return sqlite3_bind_null(st, at);
}

static err bind_all(struct sqlite *q, sqlite3_stmt *st, const struct query *in)
{
    if ((size_t)sqlite3_bind_parameter_count(st) != in->bind_n)
        FAIL(INTERNAL, "%zu values for %d places: %s", in->bind_n, sqlite3_bind_parameter_count(st), in->sql);
    for (size_t i = 0; i < in->bind_n; i++) {
        int rc = bind_cell(st, (int)i + 1, &in->bind[i]);
        if (rc != SQLITE_OK)
            return fault(q, rc, "binding a value");
    }
    return NULL;
}

static err step_all(struct sqlite *q, sqlite3_stmt *st, struct query *in)
{
    struct row row = { &meta_sqlite, st };
    for (int rc; (rc = sqlite3_step(st)) != SQLITE_DONE;) {
        if (rc != SQLITE_ROW)
            return fault(q, rc, "the database");
        in->rows++;
        if (in->on_row)
            TRY(in->on_row(in->arg, &row));
        if (in->rows == in->rows_max)
            break;
    }
    return NULL;
}

static err sqlite_run(struct meta_conn *c, struct query *in)
{
    struct sqlite *q = sqlite_of(c);
    sqlite3_stmt *st = NULL;
    bool once;
    TRY(statement(q, in->sql, &st, &once));
    sqlite3_int64 before = sqlite3_total_changes64(q->db);
    in->rows = 0;
    err e = bind_all(q, st, in);
    if (!e)
        e = step_all(q, st, in);
    sqlite3_reset(st);
    in->changes = sqlite3_total_changes64(q->db) == before ? 0 : sqlite3_changes64(q->db);
    if (once)
        sqlite3_finalize(st);
    else
        sqlite3_clear_bindings(st);
    return e;
}

static err sqlite_script(struct meta_conn *c, const char *sql)
{
    struct sqlite *q = sqlite_of(c);
    int rc = sqlite3_exec(q->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? NULL : fault(q, rc, "running a script");
}

/* ---- transactions ---- */

static err sqlite_begin(struct meta_conn *c)
{
    return plain(sqlite_of(c), "begin immediate");
}

static err sqlite_commit(struct meta_conn *c)
{
    return plain(sqlite_of(c), "commit");
}

static bool sqlite_in_tx(struct meta_conn *c)
{
    return !sqlite3_get_autocommit(sqlite_of(c)->db);
}

static void sqlite_rollback(struct meta_conn *c)
{
    if (sqlite_in_tx(c))
        (void)plain(sqlite_of(c), "rollback");
}

static err sqlite_mark(struct meta_conn *c)
{
    return plain(sqlite_of(c), "savepoint closure");
}

static err sqlite_keep(struct meta_conn *c)
{
    return plain(sqlite_of(c), "release closure");
}

static err sqlite_undo(struct meta_conn *c)
{
    return plain(sqlite_of(c), "rollback to closure; release closure");
}

static int on_log(void *arg, sqlite3 *db, const char *name, int pages)
{
    (void)db, (void)name;
    ((struct sqlite *)arg)->log_pages = pages;
    return SQLITE_OK;
}

/* Failures are not told: the log only stays longer, and the next tidy() tries again. */
static void sqlite_tidy(struct meta_conn *c)
{
    struct sqlite *q = sqlite_of(c);
    if (q->log_pages < FOLD_PAGES)
        return;
    bool hard = q->log_pages >= FOLD_PAGES_HARD;
    sqlite3_busy_timeout(q->db, hard ? FOLD_MS_MAX : 0);
    int rc = sqlite3_wal_checkpoint_v2(
        q->db, "main", hard ? SQLITE_CHECKPOINT_TRUNCATE : SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
    sqlite3_busy_timeout(q->db, BUSY_MS_MAX);
    if (rc == SQLITE_OK)
        q->log_pages = 0;
}

/* ---- opening ---- */

static err on_i64(void *arg, const struct row *r)
{
    *(int64_t *)arg = row_i64(r, 0);
    return NULL;
}

static err on_fault(void *arg, const struct row *r)
{
    struct {
        struct arena *a;
        struct strs *lines;
    } *to = arg;
    if (!str_is(row_str(r, 0), "ok"))
        push(to->a, to->lines, str_dup(to->a, row_str(r, 0)));
    return NULL;
}

static err sqlite_check(struct meta_conn *c, struct arena *a, struct strs *faults)
{
    struct {
        struct arena *a;
        struct strs *lines;
    } to = { a, faults };
    struct query q = { .sql = "pragma quick_check", .on_row = on_fault, .arg = &to };
    return sqlite_run(c, &q);
}

static err version_check(struct meta_conn *c, bool write)
{
    int64_t version = 0;
    struct query q = { .sql = "pragma user_version", .on_row = on_i64, .arg = &version };
    TRY(sqlite_run(c, &q));
    if (version == META_VERSION)
        return NULL;
    if (version != 0 || !write)
        FAIL(INVALID, "meta.db has version %lld, this dhow reads version %d", (long long)version,
             META_VERSION);
    int64_t tables_n = 0;
    q = (struct query){ .sql = "select count(*) from sqlite_master", .on_row = on_i64, .arg = &tables_n };
    TRY(sqlite_run(c, &q));
    if (tables_n)
        FAIL(INVALID, "meta.db is a database, but not one of dhow's: it has no version");
    TRY(sqlite_begin(c));
    TRY(sqlite_script(c, tables));
    TRY(sqlite_script(c, "pragma user_version = 1"));
    return sqlite_commit(c);
}
_Static_assert(META_VERSION == 1, "the version is written in the text above, too");

static err configure(struct sqlite *q, bool write)
{
    sqlite3_extended_result_codes(q->db, 1);
    sqlite3_busy_timeout(q->db, BUSY_MS_MAX);
    TRY(plain(q, "pragma foreign_keys = on; pragma temp_store = memory; pragma trusted_schema = off"));
    if (!write)
        return plain(q, "pragma query_only = on");
    TRY(plain(q, "pragma journal_mode = wal; pragma synchronous = full; pragma cache_size = -16384;"
                 "pragma wal_autocheckpoint = 0; pragma journal_size_limit = 67108864"));
    sqlite3_wal_hook(q->db, on_log, q);
    return NULL;
}

static void sqlite_shut(struct meta_conn *c)
{
    struct sqlite *q = sqlite_of(c);
    if (!q)
        return;
    for (size_t i = 0; i < CACHE_SLOTS; i++)
        cached_drop(&q->cache[i]);
    sqlite3_close_v2(q->db);
    free(q);
}

static err sqlite_connect(struct str where, bool write, struct meta_conn **out)
{
    auto_arena struct arena *a = arena_new(0);
    struct sqlite *q = calloc(1, sizeof *q);
    if (!q)
        abort();
    q->base.ops = &meta_sqlite;
    int flags = SQLITE_OPEN_NOMUTEX |
                (write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY);
    int rc = sqlite3_open_v2(str_z(a, where), &q->db, flags, NULL);
    err e = rc == SQLITE_OK ? NULL : fault(q, rc, "opening");
    if (!e)
        e = configure(q, write);
    if (!e)
        e = version_check(&q->base, write);
    if (!e) {
        *out = &q->base;
        return NULL;
    }
    sqlite_shut(&q->base);
    return err_wrap(e, "%.*s", STR(where));
}

/* ---- cells ---- */

static int64_t cell_i64(const struct row *r, int col)
{
    return sqlite3_column_int64(r->at, col);
}

static double cell_f64(const struct row *r, int col)
{
    return sqlite3_column_type(r->at, col) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(r->at, col);
}

static struct str cell_str(const struct row *r, int col)
{
    bool bytes = sqlite3_column_type(r->at, col) == SQLITE_BLOB;
    const char *p = bytes ? sqlite3_column_blob(r->at, col) : (const char *)sqlite3_column_text(r->at, col);
    return p ? (struct str){ p, (size_t)sqlite3_column_bytes(r->at, col) } : S("");
}

static bool cell_null(const struct row *r, int col)
{
    return sqlite3_column_type(r->at, col) == SQLITE_NULL;
}

const struct meta_ops meta_sqlite = {
    .name = "sqlite",
    .open = sqlite_connect,
    .close = sqlite_shut,
    .run = sqlite_run,
    .script = sqlite_script,
    .begin = sqlite_begin,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .mark = sqlite_mark,
    .keep = sqlite_keep,
    .undo = sqlite_undo,
    .in_tx = sqlite_in_tx,
    .tidy = sqlite_tidy,
    .check = sqlite_check,
    .cell_i64 = cell_i64,
    .cell_f64 = cell_f64,
    .cell_str = cell_str,
    .cell_null = cell_null,
};
