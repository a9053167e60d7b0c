// SPDX-License-Identifier: Apache-2.0
/* store: the folder, its lock and its format; opening the parts in order and closing them in reverse. */
#include "store/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#define FORMAT "dhow-store 1"

err err_adopt(err e)
{
    if (!e)
        return NULL;
    err mine = err_new(e->code, "%.*s", STR(e->text));
    if (e->hint.n)
        mine = err_hint(mine, "%.*s", STR(e->hint));
    return e->field.n ? err_field(mine, e->field) : mine;
}

int disk_errno(int errno_)
{
    return errno_ == EFBIG ? ENOSPC : errno_;
}

/* ---- the lock ---- */

static err lock_held(struct store *s, const char *path)
{
    struct str pid = S("");
    if (file_read(s->a, path, 64, &pid))
        pid = S("");
    pid = str_trim(pid);
    err e = err_new(UNAVAILABLE, "%s is in use by process %.*s", s->dir, STR(pid.n ? pid : S("(unknown)")));
    return err_hint(e, "stop that one, or give this one a data folder of its own");
}

static err lock_take(struct store *s)
{
    const char *path = fmtz(s->a, "%s/lock", s->dir);
    s->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->lock_fd < 0)
        return err_errno(errno, "opening %s", path);
    if (flock(s->lock_fd, LOCK_EX | LOCK_NB))
        return errno == EWOULDBLOCK ? lock_held(s, path) : err_errno(errno, "locking %s", path);
    struct str pid = fmt(s->a, "%d\n", (int)getpid());
    if (ftruncate(s->lock_fd, 0) || pwrite(s->lock_fd, pid.p, pid.n, 0) != (ssize_t)pid.n)
        return err_errno(disk_errno(errno), "writing %s", path);
    return NULL;
}

/* ---- the format ---- */

/* A new store may only be made where nothing of somebody else's is. */
static bool is_ours(struct str name)
{
    return str_is(name, "lock") || str_starts(name, S("format")) || str_is(name, "lost+found") ||
           name.p[0] == '.';
}

static err format_make(struct store *s, const char *path)
{
    struct strs names = { 0 };
    TRY(dir_list(s->a, s->dir, &names));
    for (size_t i = 0; i < names.n; i++)
        if (!is_ours(names.v[i]))
            return err_hint(err_new(INVALID, "%s is not a dhow store: it has '%.*s', but no file 'format'",
                                    s->dir, STR(names.v[i])),
                            "name an empty folder, or one that is not there yet");
    return file_write(path, S(FORMAT "\n"));
}

static err format_check(struct store *s)
{
    const char *path = fmtz(s->a, "%s/format", s->dir);
    struct str text;
    if (!s->read_only && !file_exists(path))
        TRY(format_make(s, path));
    TRY_AS(file_read(s->a, path, 256, &text), "%s is not a dhow store", s->dir);
    text = str_trim(text);
    if (!str_is(text, FORMAT))
        return err_hint(
            err_new(INVALID, "%s has the format '%.*s', this dhow reads '" FORMAT "'", s->dir, STR(text)),
            "use the dhow that wrote it, or a newer one");
    return NULL;
}

/* ---- opening ---- */

static err parts_open(struct store *s, const struct store_config *cfg)
{
    s->meta = &meta_sqlite;
    s->meta_where = fmt(s->a, "%s/meta.db", s->dir);
    TRY(blobs_open_mode(str_of(s->dir), s->read_only, &s->blobs));
    if (s->blobs->ops->sweep && !s->read_only)
        s->blobs->ops->sweep(s->blobs, TMP_AGE_S_MAX);
    if (!s->read_only) {
        TRY(dir_make(fmtz(s->a, "%s/jobs", s->dir)));
        TRY(writer_start(s, &s->writer));
    }
    TRY(kv_open_mode(fmt(s->a, "logged:%s/online", s->dir), cfg->kv_bytes_max, s->read_only, &s->kv));
    struct meta_conn *c; /* a first reader: a store that cannot be read is told now */
    TRY(pool_take(s, &c));
    pool_give(s, c);
    return s->read_only ? NULL : file_sync(s->dir);
}

static err open_all(struct store *s, const struct store_config *cfg)
{
    if (!s->read_only) {
        TRY(dir_make(s->dir));
        TRY(lock_take(s));
    }
    TRY(format_check(s));
    return parts_open(s, cfg);
}

err store_open(const struct store_config *cfg, struct store **out)
{
    struct store *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->a = arena_new(0);
    s->dir = str_z(s->a, cfg->dir);
    s->read_only = cfg->read_only;
    s->lock_fd = -1;
    pool_init(&s->pool);
    pulse_init(&s->pulse);
    err e = open_all(s, cfg);
    if (e)
        store_close(s);
    else
        *out = s;
    return e;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    while (s->pool.idle_n) { /* readers first: the writer, as the last, folds its log into the file */
        struct meta_conn *c = s->pool.idle[--s->pool.idle_n];
        c->ops->close(c);
    }
    writer_stop(s->writer);
    pool_done(&s->pool);
    kv_close(s->kv);
    blobs_close(s->blobs);
    pulse_done(&s->pulse);
    close_at(&s->lock_fd);
    arena_free(s->a);
    free(s);
}

const char *store_dir(const struct store *s)
{
    return s->dir;
}

struct kv *store_kv(struct store *s)
{
    return s->kv;
}

struct blobs *store_blobs(struct store *s)
{
    return s->blobs;
}

/* ---- doctor ---- */

static err on_count(void *arg, const struct row *r)
{
    *(int64_t *)arg = row_i64(r, 0);
    return NULL;
}

static err meta_check(struct store *s, struct arena *a, struct strs *lines)
{
    int64_t events = 0, objects = 0;
    struct strs faults = { 0 };
    TRY(store_one(s, "select count(*) from event", NO_BIND, on_count, &events));
    TRY(store_one(s, "select count(*) from resource", NO_BIND, on_count, &objects));
    struct meta_conn *c;
    TRY(pool_take(s, &c));
    err e = s->meta->check(c, a, &faults);
    pool_give(s, c);
    TRY(e);
    push(a, lines,
         fmt(a, "metadata: %lld resources, %lld events, %zu faults", (long long)objects, (long long)events,
             faults.n));
    if (faults.n)
        FAIL(INTERNAL, "metadata: %zu faults, first: %.*s", faults.n, STR(faults.v[0]));
    return NULL;
}

err store_check(struct store *s, struct arena *a, struct strs *lines)
{
    enum { SAMPLE = 100 };
    *lines = (struct strs){ 0 };
    err meta = meta_check(s, a, lines), kv = kv_check(s->kv, a, lines),
        blobs = s->blobs->ops->check ? s->blobs->ops->check(s->blobs, a, SAMPLE, lines) : NULL;
    return meta ? meta : kv ? kv : blobs;
}
