// SPDX-License-Identifier: Apache-2.0
/* logged: keyed rows whose writes cost one append. A write goes to a log file and to a table in memory, and is
 * done; now and then the table is written to LMDB in the order of its keys, and the log is removed. So a page of
 * the tree is written once for all that fell on it, and nothing waits for the disk. (The scheme of P. O'Neil et al.,
 * "The Log-Structured Merge-Tree", 1996, with two levels.)
 * Layout   DIR/ of LMDB, and DIR/recent.N: "DHOWKV01", then records: u64 bytes, u64 hash64 of them, and the items:
 *          u16 key bytes, u8 removed, u8 0, u32 value bytes, i64 version, key, value. Little-endian.
 * Crash    The end of the process loses nothing. A power cut loses at most the writes of the last SYNC_MS or so, the
 *          newest first and none by half; kv_sync() waits until there are none such.
 * Locks    put: of writers, held while one writes. m: of what both tables are, and of the thread's state; never held
 *          for I/O. Order: put, m. What is in `now` changes under put, and what others look at without it under both. */
#include "store/internal.h"
#include "store/recent.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    SYNC_MS = 50,                /* from a write to its fsync */
    FOLD_MS = 2000,              /* from a write to LMDB */
    FOLD_BYTES = 16 << 20,       /* … or when the table is this big */
    WAIT_BYTES = 4 * FOLD_BYTES, /* writers wait for a table of this size to be folded */
    RETRY_MS = 500,              /* after a failure */
    LOG_BYTES_MAX = 1 << 30,     /* of a file that is read back */
    SNAPS_IDLE_MAX = 64,
};
static const char magic[8] = { 'D', 'H', 'O', 'W', 'K', 'V', '0', '1' };

struct record_head {
    uint64_t bytes, hash;
};
struct item_head {
    uint16_t key_n;
    uint8_t removed, zero;
    uint32_t value_n;
    int64_t version;
};

struct logged_snap {
    struct kv_snap base;
    struct kv_snap *under;
    struct recent *table[2]; /* newest first; the second may be NULL */
    uint64_t seq;
    struct logged_snap *next; /* idle */
};

/* A table and the file that holds the same. */
struct part {
    struct recent *table;
    int64_t first;    /* number of the file; a part that was left by another process has all from here … */
    int64_t number;   /* … to here */
    int fd;           /* -1: nothing was written yet, and there is no file */
    int64_t bytes;    /* of the file */
    int64_t first_ns; /* when it was begun; 0: no file */
    bool big;
};

struct logged {
    struct kv base;
    struct kv *under;
    char *dir;
    pthread_mutex_t put, m;
    pthread_cond_t work, done; /* for the thread; from the thread */
    struct part now, full;     /* full.table NULL: nothing is being folded */
    _Atomic uint64_t seq;      /* of the last write that may be seen */
    uint64_t synced;           /* of the last one that is on the disk for good */
    bool stop;
    enum err_code failed; /* ERR_NONE, or why the last attempt to sync or fold did not succeed */
    char why[256], hint[128];
    struct logged_snap *idle;
    size_t idle_n;
    pthread_t thread;
    bool started;
};

static struct logged *logged_of(struct kv *kv)
{
    return (struct logged *)kv;
}

/* ---- files ---- */

static const char *file_name(const struct logged *l, struct arena *a, int64_t number)
{
    return fmtz(a, "%s/recent.%lld", l->dir, (long long)number);
}

static err all_write(int fd, const char *p, size_t n, int64_t at)
{
    while (n) {
        ssize_t done = pwrite(fd, p, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return err_errno(done ? disk_errno(errno) : ENOSPC, "writing recent keyed rows");
        p += done;
        n -= (size_t)done;
        at += done;
    }
    return NULL;
}

/* Begins the file of now; l->put is held. */
static err now_begin(struct logged *l)
{
    auto_arena struct arena *a = arena_new(0);
    const char *path = file_name(l, a, l->now.number);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(disk_errno(errno), "creating %s", path);
    err e = all_write(fd, magic, sizeof magic, 0);
    if (!e)
        e = file_sync(l->dir); /* its name, too */
    if (e) {
        close_fd(fd);
        (void)unlink(path);
        return e;
    }
    l->now.bytes = sizeof magic;
    LOCKED(&l->m);
    l->now.fd = fd;
    l->now.first_ns = mono_ns();
    pthread_cond_signal(&l->work);
    return NULL;
}

static void item_write(struct buf *b, const struct kv_item *it)
{
    struct str value = it->remove ? S("") : it->value;
    struct item_head h = { .key_n = (uint16_t)it->key.n,
                           .removed = it->remove,
                           .value_n = (uint32_t)value.n,
                           .version = it->version };
    buf_put(b, &h, sizeof h);
    buf_str(b, it->key);
    buf_str(b, value);
}

static bool item_read(struct str *s, struct kv_item *out)
{
    struct item_head h;
    if (s->n < sizeof h)
        return false;
    memcpy(&h, s->p, sizeof h);
    if (!h.key_n || h.key_n > KV_KEY_MAX || h.value_n > KV_VALUE_MAX || h.zero || h.removed > 1 ||
        s->n - sizeof h < (size_t)h.key_n + h.value_n)
        return false;
    *out = (struct kv_item){ .key = { s->p + sizeof h, h.key_n },
                             .value = { s->p + sizeof h + h.key_n, h.value_n },
                             .version = h.version,
                             .remove = h.removed };
    *s = str_sub(*s, sizeof h + h.key_n + h.value_n, s->n);
    return true;
}

/* The next whole record; false at the end, or at one that was not written to its end. */
static bool record_next(struct str *s, struct str *items)
{
    struct record_head h;
    if (s->n < sizeof h)
        return false;
    memcpy(&h, s->p, sizeof h);
    if (h.bytes > s->n - sizeof h)
        return false;
    *items = str_sub(*s, sizeof h, sizeof h + h.bytes);
    if (hash64(*items) != h.hash)
        return false;
    *s = str_sub(*s, sizeof h + h.bytes, s->n);
    return true;
}

/* A file that a process left, into the table: older records first, so that the newest state of a row is found. */
static err file_load(const char *path, struct recent *t)
{
    auto_arena struct arena *a = arena_new(0);
    struct str s, record;
    TRY(file_read(a, path, LOG_BYTES_MAX, &s));
    if (s.n < sizeof magic || memcmp(s.p, magic, sizeof magic) != 0) {
        if (s.n > sizeof magic)
            FAIL(INVALID, "%s is not a log of keyed rows that this dhow can read", path);
        return NULL; /* killed while it was made */
    }
    s = str_sub(s, sizeof magic, s.n);
    while (record_next(&s, &record)) {
        struct kv_item it;
        while (item_read(&record, &it))
            recent_put(t, &it, 0);
        if (record.n)
            FAIL(INVALID, "%s holds a record that is not made of items", path);
    }
    return file_sync(path); /* its end may be in the kernel only */
}

static int by_number(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return a < b ? -1 : a > b;
}

/* What the last process left becomes the full part, which the thread folds first. */
static err left_load(struct logged *l)
{
    auto_arena struct arena *a = arena_new(0);
    struct strs names;
    VEC(int64_t) numbers = { 0 };
    TRY(dir_list(a, l->dir, &names));
    for (size_t i = 0; i < names.n; i++) {
        int64_t n;
        if (str_starts(names.v[i], S("recent.")) && str_i64(str_sub(names.v[i], 7, names.v[i].n), &n) &&
            n >= 0)
            push(a, &numbers, n);
    }
    l->now.first = l->now.number = 1;
    if (!numbers.n)
        return NULL;
    qsort(numbers.v, numbers.n, sizeof *numbers.v, by_number);
    l->full = (struct part){
        .table = recent_new(), .first = numbers.v[0], .number = numbers.v[numbers.n - 1], .fd = -1
    };
    l->now.first = l->now.number = l->full.number + 1;
    for (size_t i = 0; i < numbers.n; i++)
        TRY_AS(file_load(file_name(l, a, numbers.v[i]), l->full.table), "taking up recent keyed rows");
    return NULL;
}

/* ---- folding: the table to LMDB ---- */

static void table_unref(struct recent *t) /* l->m is held */
{
    if (t && --t->refs == 0)
        recent_free(t);
}

/* The newest state of each row, in order. Nobody writes to this table any more. */
static err table_fold(struct kv *under, const struct recent *t)
{
    auto_arena struct arena *a = arena_new(0);
    struct kv_item *items = NEW_N(a, struct kv_item, t->rows + 1);
    size_t n = 0;
    for (struct recent_row *r = recent_from(t, S("")); r; r = recent_next(r))
        items[n++] = (struct kv_item){
            .key = r->key, .value = r->value, .version = r->version, .remove = r->removed
        };
    return kv_put(under, items, n, NULL);
}

static void files_end(struct logged *l, struct part *p)
{
    auto_arena struct arena *a = arena_new(0);
    close_at(&p->fd);
    for (int64_t n = p->first; n <= p->number; n++)
        (void)unlink(file_name(l, a, n));
}

/* The table of now becomes the full one, and another begins; there is no full one. */
static void rotate(struct logged *l)
{
    LOCKED(&l->put);
    pthread_mutex_lock(&l->m);
    l->full = l->now;
    int64_t number = l->full.number + 1;
    l->now = (struct part){ .table = recent_new(), .first = number, .number = number, .fd = -1 };
    pthread_mutex_unlock(&l->m);
}

/* One table to LMDB: the full one that a failure left, or that of now. */
static err fold(struct logged *l)
{
    if (!l->full.table)
        rotate(l);
    TRY(table_fold(l->under, l->full.table));
    pthread_mutex_lock(&l->m);
    struct part p = l->full;
    l->full = (struct part){ .fd = -1 };
    table_unref(p.table);
    pthread_mutex_unlock(&l->m);
    files_end(l, &p);
    return NULL;
}

/* ---- the thread ---- */

static void failed(struct logged *l, err e) /* l->m is held; NULL: it went well */
{
    if (e && !l->failed)
        log_warn("kv.failed", KV("error", e->text));
    l->failed = e ? e->code : ERR_NONE;
    if (e) {
        snprintf(l->why, sizeof l->why, "%.*s", STR(e->text));
        snprintf(l->hint, sizeof l->hint, "%.*s", STR(e->hint));
        err_reset();
    }
}

static err failure(const struct logged *l) /* l->m is held */
{
    err e = err_new(l->failed, "%s", l->why);
    return l->hint[0] ? err_hint(e, "%s", l->hint) : e;
}

/* Makes durable what was written: l->m is held, and let go meanwhile. */
static err sync_now(struct logged *l)
{
    uint64_t seq = atomic_load(&l->seq);
    int fds[2] = { l->now.fd, l->full.fd }; /* only this thread closes them */
    err e = NULL;
    if (l->synced >= seq)
        return NULL;
    pthread_mutex_unlock(&l->m);
    for (int i = 0; i < 2 && !e; i++)
        if (fds[i] >= 0 && fdatasync(fds[i]))
            e = err_errno(disk_errno(errno), "syncing recent keyed rows");
    pthread_mutex_lock(&l->m);
    if (!e)
        l->synced = seq;
    return e;
}

static err fold_now(struct logged *l) /* l->m is held, and let go meanwhile */
{
    bool due = l->full.table || l->now.big ||
               (l->now.first_ns && mono_ns() - l->now.first_ns >= (int64_t)FOLD_MS * 1000000);
    if (!due)
        return NULL;
    pthread_mutex_unlock(&l->m);
    err e = fold(l);
    pthread_mutex_lock(&l->m);
    return e;
}

static void nap(struct logged *l, int64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += ms * 1000000;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&l->work, &l->m, &t);
}

static void *keep(void *arg)
{
    struct logged *l = arg;
    pthread_mutex_lock(&l->m);
    while (!l->stop) {
        err e = sync_now(l);
        if (!e)
            e = fold_now(l);
        failed(l, e);
        pthread_cond_broadcast(&l->done);
        if (l->failed)
            nap(l, RETRY_MS);
        else if (l->now.first_ns)
            nap(l, SYNC_MS);
        else if (!l->stop)
            pthread_cond_wait(&l->work, &l->m);
    }
    pthread_mutex_unlock(&l->m);
    return NULL;
}

/* ---- writing ---- */

/* What the row holds now, for `newer`: in this write, in memory or in LMDB; false: no such row. */
static bool version_now(const struct recent *batch, struct kv_snap *snap, struct str key, int64_t *out)
{
    struct recent_row *r = recent_get(batch, key, UINT64_MAX);
    if (!r)
        return kv_snap_get(snap, key, NULL, out);
    *out = r->version;
    return !r->removed;
}

/* Leaves out the items that are not newer than what is there. */
static err items_choose(struct logged *l, struct arena *a, const struct kv_item **items, size_t *n,
                        bool *kept)
{
    struct kv_snap *snap;
    struct kv_item *out = NEW_N(a, struct kv_item, *n);
    size_t m = 0;
    TRY(kv_snap_begin(&l->base, &snap));
    struct recent *batch = recent_new();
    for (size_t i = 0; i < *n; i++) {
        const struct kv_item *it = &(*items)[i];
        int64_t there;
        bool take = !it->newer || !version_now(batch, snap, it->key, &there) || it->version > there;
        if (kept)
            kept[i] = take;
        if (!take)
            continue;
        recent_put(batch, it, 0);
        out[m++] = *it;
    }
    recent_free(batch);
    kv_snap_end(snap);
    *items = out;
    *n = m;
    return NULL;
}

static err record_add(struct logged *l, struct arena *a, const struct kv_item *items, size_t n)
{
    struct buf b = buf_new(a);
    struct record_head h = { 0 };
    if (l->now.fd < 0)
        TRY(now_begin(l));
    buf_put(&b, &h, sizeof h);
    for (size_t i = 0; i < n; i++)
        item_write(&b, &items[i]);
    h.bytes = b.n - sizeof h;
    h.hash = hash64((struct str){ b.p + sizeof h, h.bytes });
    memcpy(b.p, &h, sizeof h);
    TRY(all_write(l->now.fd, b.p, b.n, l->now.bytes)); /* half a record is passed over, and written over */
    l->now.bytes += (int64_t)b.n;
    return NULL;
}

/* Waits while the table is too big to grow. */
static err room_wait(struct logged *l)
{
    while (l->now.table->bytes >= WAIT_BYTES) {
        pthread_mutex_lock(&l->m);
        err e = l->failed ? failure(l) : NULL;
        if (!e) {
            pthread_mutex_unlock(&l->put); /* the thread needs it to begin another table */
            pthread_cond_wait(&l->done, &l->m);
        }
        pthread_mutex_unlock(&l->m);
        if (e)
            return e;
        pthread_mutex_lock(&l->put);
    }
    return NULL;
}

/* To the log, then to the table; l->put is held. */
static err items_add(struct logged *l, struct arena *a, const struct kv_item *items, size_t n)
{
    uint64_t seq = atomic_load(&l->seq) + 1;
    TRY(record_add(l, a, items, n));
    for (size_t i = 0; i < n; i++)
        recent_put(l->now.table, &items[i], seq);
    atomic_store(&l->seq, seq);
    if (l->now.big || l->now.table->bytes < FOLD_BYTES)
        return NULL;
    LOCKED(&l->m);
    l->now.big = true;
    pthread_cond_signal(&l->work);
    return NULL;
}

static err logged_put(struct kv *kv, const struct kv_item *items, size_t n, bool *kept)
{
    struct logged *l = logged_of(kv);
    auto_arena struct arena *a = arena_new(0);
    bool newer = false;
    for (size_t i = 0; i < n; i++)
        newer = newer || items[i].newer;
    LOCKED(&l->put);
    TRY(room_wait(l));
    if (newer)
        TRY(items_choose(l, a, &items, &n, kept));
    else if (kept)
        memset(kept, true, n);
    return n ? items_add(l, a, items, n) : NULL;
}

/* ---- reading ---- */

static struct logged_snap *snap_idle(struct logged *l) /* l->m is held */
{
    struct logged_snap *s = l->idle;
    if (s) {
        l->idle = s->next;
        l->idle_n--;
        return s;
    }
    s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.kv = &l->base;
    return s;
}

static void snap_keep(struct logged *l, struct logged_snap *s) /* l->m is held */
{
    if (l->idle_n >= SNAPS_IDLE_MAX) {
        free(s);
        return;
    }
    s->next = l->idle;
    l->idle = s;
    l->idle_n++;
}

/* The tables, the number and LMDB's snapshot are of one moment: no table is folded away in between. */
static err logged_snap_begin(struct kv *kv, struct kv_snap **out)
{
    struct logged *l = logged_of(kv);
    LOCKED(&l->m);
    struct logged_snap *s = snap_idle(l);
    err e = kv_snap_begin(l->under, &s->under);
    if (e) {
        snap_keep(l, s);
        return e;
    }
    s->seq = atomic_load(&l->seq);
    s->table[0] = l->now.table;
    s->table[1] = l->full.table;
    for (int i = 0; i < 2; i++)
        if (s->table[i])
            s->table[i]->refs++;
    *out = &s->base;
    return NULL;
}

static void logged_snap_end(struct kv_snap *snap)
{
    struct logged_snap *s = (struct logged_snap *)snap;
    struct logged *l = logged_of(snap->kv);
    kv_snap_end(s->under);
    LOCKED(&l->m);
    for (int i = 0; i < 2; i++)
        table_unref(s->table[i]);
    snap_keep(l, s);
}

static bool logged_snap_get(struct kv_snap *snap, struct str key, struct str *value, int64_t *version)
{
    struct logged_snap *s = (struct logged_snap *)snap;
    for (int i = 0; i < 2 && s->table[i]; i++) {
        struct recent_row *r = recent_get(s->table[i], key, s->seq);
        if (!r)
            continue;
        if (value)
            *value = r->value;
        if (version)
            *version = r->version;
        return !r->removed;
    }
    return kv_snap_get(s->under, key, value, version);
}

/* Three ordered streams made one: where a key is in several, the newest counts. */
struct merge {
    struct recent_row *row[2]; /* as of seq; NULL: at the end */
    uint64_t seq;
    struct str prefix;
    bool (*fn)(void *arg, struct str key, struct str value, int64_t version);
    void *arg;
    bool stopped;
};

static struct recent_row *in_prefix(struct recent_row *r, struct str prefix)
{
    return r && str_starts(r->key, prefix) ? r : NULL;
}

static void merge_step(struct merge *m, int i)
{
    m->row[i] = in_prefix(recent_seen(recent_next(m->row[i]), m->seq), m->prefix);
}

/* Tells every row of the tables before key (all that are left if it is empty). True: key itself was among them, or
 * was removed there. */
static bool merge_until(struct merge *m, struct str key)
{
    while (!m->stopped) {
        struct recent_row *a = m->row[0], *b = m->row[1];
        int order = !b ? -1 : !a ? 1 : str_cmp(a->key, b->key);
        struct recent_row *first = order <= 0 ? a : b;
        if (!first || (key.n && str_cmp(first->key, key) > 0))
            return false;
        if (order <= 0)
            merge_step(m, 0);
        if (order >= 0)
            merge_step(m, 1);
        if (!first->removed)
            m->stopped = !m->fn(m->arg, first->key, first->value, first->version);
        if (key.n && str_eq(first->key, key))
            return true;
    }
    return true;
}

static bool merge_row(void *arg, struct str key, struct str value, int64_t version)
{
    struct merge *m = arg;
    if (!merge_until(m, key) && !m->stopped)
        m->stopped = !m->fn(m->arg, key, value, version);
    return !m->stopped;
}

static err logged_snap_scan(struct kv_snap *snap, struct str prefix, struct str from,
                            bool (*fn)(void *arg, struct str key, struct str value, int64_t version),
                            void *arg)
{
    struct logged_snap *s = (struct logged_snap *)snap;
    struct str start = str_cmp(from, prefix) > 0 ? from : prefix;
    struct merge m = { .seq = s->seq, .prefix = prefix, .fn = fn, .arg = arg };
    for (int i = 0; i < 2 && s->table[i]; i++)
        m.row[i] = in_prefix(recent_seen(recent_from(s->table[i], start), s->seq), prefix);
    if (!m.row[0] && !m.row[1])
        return kv_snap_scan(s->under, prefix, from, fn, arg);
    TRY(kv_snap_scan(s->under, prefix, from, merge_row, &m));
    (void)merge_until(&m, S(""));
    return NULL;
}

/* ---- the rest ---- */

static err logged_sync(struct kv *kv)
{
    struct logged *l = logged_of(kv);
    uint64_t seq = atomic_load(&l->seq);
    LOCKED(&l->m);
    while (l->synced < seq) {
        if (l->failed)
            return failure(l);
        pthread_cond_signal(&l->work);
        pthread_cond_wait(&l->done, &l->m);
    }
    return NULL;
}

/* What is folded later is dropped by a removal that is folded after it, the rest at once. Writers wait, so that
 * what they write after it stays. */
static err logged_drop(struct kv *kv, struct str prefix)
{
    struct logged *l = logged_of(kv);
    auto_arena struct arena *a = arena_new(0);
    VEC(struct kv_item) items = { 0 };
    LOCKED(&l->put);
    pthread_mutex_lock(&l->m);
    struct recent *table[2] = { l->now.table, l->full.table };
    for (int i = 0; i < 2 && table[i]; i++)
        for (struct recent_row *r = recent_from(table[i], prefix); r && str_starts(r->key, prefix);
             r = recent_next(r))
            push(a, &items, (struct kv_item){ .key = str_dup(a, r->key), .remove = true });
    pthread_mutex_unlock(&l->m);
    if (items.n)
        TRY(items_add(l, a, items.v, items.n));
    return kv_drop(l->under, prefix);
}

static err logged_check(struct kv *kv, struct arena *a, struct strs *lines)
{
    struct logged *l = logged_of(kv);
    TRY(kv_check(l->under, a, lines));
    LOCKED(&l->put);
    push(a, lines,
         fmt(a, "keyed rows: %zu written lately, in a log of %.*s", l->now.table->rows,
             STR(size_text(a, l->now.bytes))));
    return NULL;
}

static void logged_close(struct kv *kv)
{
    struct logged *l = logged_of(kv);
    if (l->started) {
        pthread_mutex_lock(&l->m);
        l->stop = true;
        pthread_cond_signal(&l->work);
        pthread_mutex_unlock(&l->m);
        pthread_join(l->thread, NULL);
        while (l->full.table || l->now.fd >= 0) { /* else it is read back from the log by the next */
            err e = fold(l);
            if (!e)
                continue;
            log_warn("kv.failed", KV("error", e->text));
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        struct part *p = i ? &l->full : &l->now;
        recent_free(p->table);
        close_at(&p->fd);
    }
    for (struct logged_snap *s = l->idle, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    kv_close(l->under);
    pthread_cond_destroy(&l->work);
    pthread_cond_destroy(&l->done);
    pthread_mutex_destroy(&l->put);
    pthread_mutex_destroy(&l->m);
    free(l->dir);
    free(l);
}

static err begin(struct logged *l, size_t bytes_max)
{
    auto_arena struct arena *a = arena_new(0);
    TRY(kv_open_mode(fmt(a, "lmdb:%s", l->dir), bytes_max, false, &l->under));
    l->now.table = recent_new();
    TRY(left_load(l));
    TRY(thread_start("kv", keep, l, &l->thread));
    l->started = true;
    return NULL;
}

/* Who only reads, beside a process that writes, sees what that one has folded. */
static err logged_open(struct str where, size_t bytes_max, bool read_only, struct kv **out)
{
    auto_arena struct arena *a = arena_new(0);
    pthread_condattr_t monotonic;
    if (read_only)
        return kv_open_mode(fmt(a, "lmdb:%.*s", STR(where)), bytes_max, true, out);
    struct logged *l = calloc(1, sizeof *l);
    if (!l || !(l->dir = strndup(where.p, where.n)))
        abort();
    l->base.ops = &kv_logged;
    l->now.fd = l->full.fd = -1;
    pthread_mutex_init(&l->put, NULL);
    pthread_mutex_init(&l->m, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&l->work, &monotonic);
    pthread_cond_init(&l->done, NULL);
    pthread_condattr_destroy(&monotonic);
    err e = begin(l, bytes_max);
    if (e)
        logged_close(&l->base);
    else
        *out = &l->base;
    return e;
}

const struct kv_ops kv_logged = {
    .name = "logged",
    .open = logged_open,
    .close = logged_close,
    .put = logged_put,
    .sync = logged_sync,
    .snap_begin = logged_snap_begin,
    .snap_get = logged_snap_get,
    .snap_scan = logged_snap_scan,
    .snap_end = logged_snap_end,
    .drop = logged_drop,
    .check = logged_check,
};
