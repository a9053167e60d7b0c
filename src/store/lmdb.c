// SPDX-License-Identifier: Apache-2.0
/* lmdb: keyed rows in one memory-mapped B+ tree. Readers take no lock and see a snapshot; writers of
 * all processes take turns by LMDB's own mutex. A row is 8 bytes of version (little-endian), then the
 * value. Writers of one process that come at the same time share a commit: the first is the leader.
 * NOTE(one per process): LMDB's file locks break if a process opens the same folder twice. */
#include "store/internal.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>

enum {
    READERS_MAX = 1024,
    SNAPS_IDLE = 64,     /* kept for reuse */
    GROUP_ITEMS = 20000, /* items from which a commit takes no further callers */
    DROP_ITEMS = 20000,  /* keys that one transaction of drop() removes */
};
#define FORMAT "1"

struct put {
    const struct kv_item *items;
    size_t n;
    bool *kept;
    struct put *next;
    pthread_cond_t turn;
    bool done;
    int rc;
};

struct snap {
    struct kv_snap base;
    MDB_txn *txn;
};

struct lmdb {
    struct kv base;
    MDB_env *env;
    MDB_dbi rows;
    struct snap *_Atomic idle[SNAPS_IDLE];
    pthread_mutex_t m;
    struct put *head, **tail;
    bool leading;
};

static struct lmdb *lmdb_of(struct kv *kv)
{
    return (struct lmdb *)kv;
}

static err fault(int rc, const char *what)
{
    switch (rc) {
    case MDB_SUCCESS:
        return NULL;
    case MDB_MAP_FULL:
        return err_hint(err_new(FULL, "%s: the map of keyed rows is full", what),
                        "open it with a larger map (kv_bytes_max), or drop rows that nobody reads");
    case MDB_READERS_FULL:
        return err_new(UNAVAILABLE, "%s: %d snapshots are open already", what, READERS_MAX);
    case MDB_MAP_RESIZED:
        return err_hint(err_new(UNAVAILABLE, "%s: another process made the map larger", what),
                        "restart this one");
    case MDB_VERSION_MISMATCH:
    case MDB_INVALID:
        return err_new(INVALID, "%s: %s", what, mdb_strerror(rc));
    default:
        return rc > 0 ? err_errno(disk_errno(rc), "%s", what)
                      : err_new(INTERNAL, "%s: %s", what, mdb_strerror(rc));
    }
}

static MDB_val val_of(struct str s)
{
    return (MDB_val){ .mv_size = s.n, .mv_data = (void *)(uintptr_t)s.p };
}

static struct str key_of(MDB_val v)
{
    return (struct str){ v.mv_data, v.mv_size };
}

static int64_t version_of(MDB_val v)
{
    uint64_t le = 0;
    memcpy(&le, v.mv_data, sizeof le);
    return (int64_t)le64toh(le);
}

static struct str value_of(MDB_val v)
{
    return (struct str){ (const char *)v.mv_data + sizeof(uint64_t), v.mv_size - sizeof(uint64_t) };
}

/* ---- writing ---- */

static int row_put(MDB_txn *txn, MDB_dbi rows, const struct kv_item *it)
{
    MDB_val key = val_of(it->key), v = { .mv_size = it->value.n + sizeof(uint64_t) };
    int rc = mdb_put(txn, rows, &key, &v, MDB_RESERVE);
    if (rc)
        return rc;
    uint64_t le = htole64((uint64_t)it->version);
    memcpy(v.mv_data, &le, sizeof le);
    if (it->value.n)
        memcpy((char *)v.mv_data + sizeof le, it->value.p, it->value.n);
    return 0;
}

static int item_put(MDB_txn *txn, MDB_dbi rows, const struct kv_item *it, bool *kept)
{
    MDB_val key = val_of(it->key), old;
    *kept = true;
    if (it->newer) {
        int rc = mdb_get(txn, rows, &key, &old);
        if (rc && rc != MDB_NOTFOUND)
            return rc;
        *kept = rc == MDB_NOTFOUND || it->version > version_of(old);
        if (!*kept)
            return 0;
    }
    if (!it->remove)
        return row_put(txn, rows, it);
    int rc = mdb_del(txn, rows, &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int put_run(MDB_txn *txn, MDB_dbi rows, struct put *p)
{
    for (size_t i = 0; i < p->n; i++) {
        bool kept;
        int rc = item_put(txn, rows, &p->items[i], &kept);
        if (rc)
            return rc;
        if (p->kept)
            p->kept[i] = kept;
    }
    return 0;
}

/* LMDB says EIO when a write came out short; on a full disk it does. The reason, found by asking for more. */
static int short_write(MDB_env *env)
{
    enum { PROBE = 1 << 20 };
    int fd;
    struct stat st;
    struct rlimit limit;
    if (mdb_env_get_fd(env, &fd) || fstat(fd, &st))
        return EIO;
    if (!getrlimit(RLIMIT_FSIZE, &limit) && (rlim_t)st.st_size + PROBE > limit.rlim_cur)
        return ENOSPC;
    if (fallocate(fd, FALLOC_FL_KEEP_SIZE, st.st_size, PROBE) && (errno == ENOSPC || errno == EDQUOT))
        return errno;
    return EIO;
}

/* Puts from p on (n of them) in one commit. */
static int group_run(struct lmdb *l, struct put *p, size_t n)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++, p = p->next)
        if ((rc = put_run(txn, l->rows, p))) {
            mdb_txn_abort(txn);
            return rc;
        }
    return mdb_txn_commit(txn);
}

/* If the group fails each is tried alone, so that only the one at fault gets the error. */
static void group_commit(struct lmdb *l, struct put *first, size_t n)
{
    int rc = group_run(l, first, n);
    for (size_t i = 0; i < n; i++, first = first->next) {
        first->rc = rc && n > 1 ? group_run(l, first, 1) : rc;
        if (first->rc == EIO)
            first->rc = short_write(l->env);
    }
}

/* Takes callers off the queue up to GROUP_ITEMS; l->m is held. */
static struct put *group_take(struct lmdb *l, size_t *n)
{
    struct put *first = l->head, *last = first;
    size_t items = first->n;
    for (*n = 1; last->next && items + last->next->n <= GROUP_ITEMS; (*n)++) {
        last = last->next;
        items += last->n;
    }
    l->head = last->next;
    last->next = NULL;
    if (!l->head)
        l->tail = &l->head;
    return first;
}

static void lead(struct lmdb *l)
{
    size_t n;
    l->leading = true;
    struct put *first = group_take(l, &n);
    pthread_mutex_unlock(&l->m);
    group_commit(l, first, n);
    pthread_mutex_lock(&l->m);
    l->leading = false;
    while (first) {
        struct put *next = first->next; /* its owner may be gone after the signal */
        first->done = true;
        pthread_cond_signal(&first->turn);
        first = next;
    }
    if (l->head)
        pthread_cond_signal(&l->head->turn);
}

static err lmdb_put(struct kv *kv, const struct kv_item *items, size_t n, bool *kept)
{
    struct lmdb *l = lmdb_of(kv);
    struct put p = { .items = items, .n = n, .kept = kept };
    pthread_cond_init(&p.turn, NULL);
    pthread_mutex_lock(&l->m);
    *l->tail = &p;
    l->tail = &p.next;
    while (!p.done) {
        if (!l->leading && l->head == &p)
            lead(l);
        else
            pthread_cond_wait(&p.turn, &l->m);
    }
    pthread_mutex_unlock(&l->m);
    pthread_cond_destroy(&p.turn);
    return fault(p.rc, "writing keyed rows");
}

/* Removes up to DROP_ITEMS keys in one commit; *more says that some are left. */
static int drop_some(MDB_txn *txn, MDB_dbi rows, struct str prefix, bool *more)
{
    MDB_cursor *c;
    MDB_val key, v;
    int rc = mdb_cursor_open(txn, rows, &c);
    if (rc)
        return rc;
    for (size_t n = 0; !rc && !*more; n++) { /* each time from the start: what stood there is gone */
        key = val_of(prefix);
        rc = mdb_cursor_get(c, &key, &v, prefix.n ? MDB_SET_RANGE : MDB_FIRST);
        if (rc || !str_starts(key_of(key), prefix))
            break;
        *more = n == DROP_ITEMS;
        if (!*more)
            rc = mdb_cursor_del(c, 0);
    }
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static err lmdb_drop(struct kv *kv, struct str prefix)
{
    struct lmdb *l = lmdb_of(kv);
    for (bool more = true; more;) {
        MDB_txn *txn;
        more = false;
        TRY(fault(mdb_txn_begin(l->env, NULL, 0, &txn), "dropping keyed rows"));
        int rc = drop_some(txn, l->rows, prefix, &more);
        if (rc)
            mdb_txn_abort(txn);
        else
            rc = mdb_txn_commit(txn);
        TRY(fault(rc == EIO ? short_write(l->env) : rc, "dropping keyed rows"));
    }
    return NULL;
}

/* ---- reading ---- */

/* Where a thread looks first for an idle snapshot, so that threads do not meet. */
static size_t slot_home(void)
{
    return (size_t)((uint64_t)(uintptr_t)pthread_self() * 0x9e3779b97f4a7c15u >> 40);
}

static struct snap *snap_idle(struct lmdb *l)
{
    size_t home = slot_home();
    for (size_t i = 0; i < SNAPS_IDLE; i++) {
        struct snap *_Atomic *slot = &l->idle[(home + i) % SNAPS_IDLE];
        struct snap *s = atomic_load_explicit(slot, memory_order_relaxed);
        if (s && (s = atomic_exchange_explicit(slot, NULL, memory_order_acquire)))
            return s;
    }
    return NULL;
}

static err snap_new(struct lmdb *l, struct kv_snap **out)
{
    MDB_txn *txn;
    TRY(fault(mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn), "opening a snapshot"));
    struct snap *s = malloc(sizeof *s);
    if (!s)
        abort();
    *s = (struct snap){ .base.kv = &l->base, .txn = txn };
    *out = &s->base;
    return NULL;
}

static void snap_free(struct snap *s)
{
    mdb_txn_abort(s->txn);
    free(s);
}

static err lmdb_snap_begin(struct kv *kv, struct kv_snap **out)
{
    struct lmdb *l = lmdb_of(kv);
    struct snap *s = snap_idle(l);
    if (s && mdb_txn_renew(s->txn) == 0) {
        *out = &s->base;
        return NULL;
    }
    if (s)
        snap_free(s);
    return snap_new(l, out);
}

static void lmdb_snap_end(struct kv_snap *snap)
{
    struct snap *s = (struct snap *)snap;
    struct lmdb *l = lmdb_of(snap->kv);
    size_t home = slot_home();
    mdb_txn_reset(s->txn);
    for (size_t i = 0; i < SNAPS_IDLE; i++) {
        struct snap *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&l->idle[(home + i) % SNAPS_IDLE], &none, s,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    snap_free(s);
}

static bool lmdb_snap_get(struct kv_snap *snap, struct str key, struct str *value, int64_t *version)
{
    MDB_val k = val_of(key), v;
    if (mdb_get(((struct snap *)snap)->txn, lmdb_of(snap->kv)->rows, &k, &v))
        return false;
    if (value)
        *value = value_of(v);
    if (version)
        *version = version_of(v);
    return true;
}

static err lmdb_snap_scan(struct kv_snap *snap, struct str prefix, struct str from,
                          bool (*fn)(void *arg, struct str key, struct str value, int64_t version), void *arg)
{
    struct str start = str_cmp(from, prefix) > 0 ? from : prefix;
    MDB_val key = val_of(start), v;
    MDB_cursor *c;
    TRY(fault(mdb_cursor_open(((struct snap *)snap)->txn, lmdb_of(snap->kv)->rows, &c),
              "scanning keyed rows"));
    int rc = mdb_cursor_get(c, &key, &v, start.n ? MDB_SET_RANGE : MDB_FIRST);
    while (!rc && str_starts(key_of(key), prefix) && fn(arg, key_of(key), value_of(v), version_of(v)))
        rc = mdb_cursor_get(c, &key, &v, MDB_NEXT);
    mdb_cursor_close(c);
    return rc == MDB_NOTFOUND ? NULL : fault(rc, "scanning keyed rows");
}

/* ---- opening ---- */

static err format_check(MDB_txn *txn, MDB_dbi about, bool read_only)
{
    MDB_val key = val_of(S("format")), v;
    int rc = mdb_get(txn, about, &key, &v);
    if (rc == MDB_NOTFOUND && !read_only) {
        v = val_of(S(FORMAT));
        rc = mdb_put(txn, about, &key, &v, 0);
    }
    TRY(fault(rc, "reading the format of keyed rows"));
    if (!str_is(key_of(v), FORMAT))
        FAIL(INVALID, "the keyed rows have format %.*s, this dhow reads format " FORMAT, STR(key_of(v)));
    return NULL;
}

static err tables_open(struct lmdb *l, MDB_txn *txn, bool read_only)
{
    unsigned make = read_only ? 0 : MDB_CREATE;
    MDB_dbi about;
    TRY(fault(mdb_dbi_open(txn, "about", make, &about), "opening keyed rows"));
    TRY(format_check(txn, about, read_only));
    return fault(mdb_dbi_open(txn, "rows", make, &l->rows), "opening keyed rows");
}

static err env_open(struct lmdb *l, const char *dir, size_t bytes_max, bool read_only)
{
    TRY(fault(mdb_env_create(&l->env), "opening keyed rows"));
    TRY(fault(mdb_env_set_mapsize(l->env, bytes_max), "setting the size of the map"));
    mdb_env_set_maxdbs(l->env, 4);
    mdb_env_set_maxreaders(l->env, READERS_MAX);
    TRY(fault(mdb_env_open(l->env, dir, MDB_NOTLS | (read_only ? MDB_RDONLY : 0), 0600), dir));
    int dead;
    TRY(fault(mdb_reader_check(l->env, &dead), "clearing stale readers"));
    MDB_txn *txn;
    TRY(fault(mdb_txn_begin(l->env, NULL, read_only ? MDB_RDONLY : 0, &txn), "opening keyed rows"));
    err e = tables_open(l, txn, read_only);
    if (!e)
        return fault(mdb_txn_commit(txn), "opening keyed rows");
    mdb_txn_abort(txn);
    return e;
}

static void lmdb_close(struct kv *kv)
{
    struct lmdb *l = lmdb_of(kv);
    for (size_t i = 0; i < SNAPS_IDLE; i++) {
        struct snap *s = atomic_load(&l->idle[i]);
        if (s)
            snap_free(s);
    }
    if (l->env)
        mdb_env_close(l->env);
    pthread_mutex_destroy(&l->m);
    free(l);
}

static err lmdb_open(struct str where, size_t bytes_max, bool read_only, struct kv **out)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = str_z(a, where);
    if (!read_only)
        TRY(dir_make(dir));
    struct lmdb *l = calloc(1, sizeof *l);
    if (!l)
        abort();
    l->base.ops = &kv_lmdb;
    l->tail = &l->head;
    pthread_mutex_init(&l->m, NULL);
    err e = env_open(l, dir, bytes_max, read_only);
    if (e)
        lmdb_close(&l->base);
    else
        *out = &l->base;
    return e;
}

static err lmdb_check(struct kv *kv, struct arena *a, struct strs *lines)
{
    struct lmdb *l = lmdb_of(kv);
    int dead = 0;
    TRY(fault(mdb_reader_check(l->env, &dead), "looking for stale readers"));
    MDB_envinfo info;
    MDB_stat all, rows;
    struct kv_snap *snap;
    mdb_env_info(l->env, &info);
    mdb_env_stat(l->env, &all);
    TRY(lmdb_snap_begin(kv, &snap));
    int rc = mdb_stat(((struct snap *)snap)->txn, l->rows, &rows);
    lmdb_snap_end(snap);
    TRY(fault(rc, "counting keyed rows"));
    struct str used = size_text(a, (int64_t)(info.me_last_pgno + 1) * all.ms_psize);
    push(a, lines,
         fmt(a, "keyed rows: %zu rows, %.*s of a map of %.*s, %d stale readers cleared", rows.ms_entries,
             STR(used), STR(size_text(a, (int64_t)info.me_mapsize)), dead));
    return NULL;
}

const struct kv_ops kv_lmdb = {
    .name = "lmdb",
    .open = lmdb_open,
    .close = lmdb_close,
    .put = lmdb_put,
    .snap_begin = lmdb_snap_begin,
    .snap_get = lmdb_snap_get,
    .snap_scan = lmdb_snap_scan,
    .snap_end = lmdb_snap_end,
    .drop = lmdb_drop,
    .check = lmdb_check,
};
