// SPDX-License-Identifier: Apache-2.0
/* blob_files: blobs as read-only files DIR/blobs/ab/cdef…, named by their SHA-256. A file gets its name only when
 * it is whole and on the disk; two who store the same bytes at once replace a file by an equal one. */
#include "store/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct files {
    struct blobs base;
    char *dir;
};

static const char *dir_of(struct blobs *b)
{
    return ((struct files *)b)->dir;
}

static const char *files_name(struct blobs *b, struct arena *a, struct str sha)
{
    return fmtz(a, "%s/blobs/%.2s/%.*s", dir_of(b), sha.p, (int)sha.n - 2, sha.p + 2);
}

static const char *files_tmp(struct blobs *b, struct arena *a, struct str suffix)
{
    return fmtz(a, "%s/tmp/%.*s%.*s", dir_of(b), STR(id_new(a)), STR(suffix));
}

static err write_all(int fd, struct str bytes, const char *path)
{
    while (bytes.n) {
        ssize_t n = write(fd, bytes.p, bytes.n < (1 << 30) ? bytes.n : 1 << 30);
        if (n < 0 && errno != EINTR)
            return err_errno(disk_errno(errno), "writing %s", path);
        if (n > 0)
            bytes = str_sub(bytes, (size_t)n, bytes.n);
    }
    return NULL;
}

static err file_make(const char *path, struct str bytes)
{
    auto_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(disk_errno(errno), "making %s", path);
    TRY(write_all(fd, bytes, path));
    return fsync(fd) ? err_errno(disk_errno(errno), "syncing %s", path) : NULL;
}

/* The folder of a blob, its own name durable, too. */
static err folder_make(struct blobs *b, struct arena *a, struct str sha)
{
    const char *all = fmtz(a, "%s/blobs", dir_of(b));
    const char *one = fmtz(a, "%s/%.2s", all, sha.p);
    if (mkdir(one, 0700) == 0)
        return file_sync(all);
    return errno == EEXIST ? NULL : err_errno(disk_errno(errno), "making %s", one);
}

static bool there(const char *path, int64_t size)
{
    return file_size(path) == size;
}

/* Somebody stored it before; its name is durable once the folder is. */
static err folder_sync(struct blobs *b, struct arena *a, struct str sha)
{
    return file_sync(fmtz(a, "%s/blobs/%.2s", dir_of(b), sha.p));
}

static err named(struct blobs *b, struct arena *a, const char *tmp, struct str sha)
{
    TRY(folder_make(b, a, sha));
    chmod(tmp, 0400); /* a wish: a file system may know no modes */
    return file_publish(tmp, files_name(b, a, sha));
}

static err files_put(struct blobs *b, struct arena *a, struct str bytes, struct str *sha)
{
    struct str hash = sha256_hex(a, bytes);
    if (there(files_name(b, a, hash), (int64_t)bytes.n)) {
        TRY(folder_sync(b, a, hash));
    } else {
        const char *tmp = files_tmp(b, a, S(".blob"));
        err e = file_make(tmp, bytes);
        if (!e)
            e = named(b, a, tmp, hash);
        if (e) {
            unlink(tmp);
            return err_wrap(e, "storing a blob of %zu bytes", bytes.n);
        }
    }
    *sha = hash;
    return NULL;
}

static err files_take(struct blobs *b, struct arena *a, const char *path, struct str *sha, int64_t *size)
{
    struct str hash;
    int64_t n;
    TRY(file_sync(path));
    TRY(file_sha256(a, path, &hash, &n));
    if (there(files_name(b, a, hash), n)) {
        TRY(folder_sync(b, a, hash));
        unlink(path);
    } else {
        TRY_AS(named(b, a, path, hash), "storing %s", path);
    }
    *sha = hash;
    if (size)
        *size = n;
    return NULL;
}

static err files_drop(struct blobs *b, struct arena *a, struct str sha)
{
    const char *path = files_name(b, a, sha);
    if (unlink(path) && errno != ENOENT)
        return err_errno(errno, "removing %s", path);
    return NULL;
}

static err files_path(struct blobs *b, struct arena *a, struct str sha, const char **out)
{
    const char *path = files_name(b, a, sha);
    if (!file_exists(path))
        FAIL(NOT_FOUND, "there is no blob %.*s", STR(sha));
    *out = path;
    return NULL;
}

static err files_get(struct blobs *b, struct arena *a, struct str sha, struct str *out)
{
    const char *path;
    struct str bytes;
    TRY(files_path(b, a, sha, &path));
    TRY(file_map(a, path, &bytes));
    if (!str_eq(sha256_hex(a, bytes), sha))
        FAIL(INTERNAL, "blob %.*s is damaged", STR(sha));
    *out = bytes;
    return NULL;
}

/* ---- upkeep ---- */

static size_t files_sweep(struct blobs *b, int64_t age_s)
{
    auto_arena struct arena *a = arena_new(0);
    struct strs names = { 0 };
    size_t n = 0;
    if (dir_list(a, fmtz(a, "%s/tmp", dir_of(b)), &names))
        return 0;
    for (size_t i = 0; i < names.n; i++) {
        const char *path = fmtz(a, "%s/tmp/%.*s", dir_of(b), STR(names.v[i]));
        struct stat st;
        if (lstat(path, &st) == 0 && time(NULL) - st.st_mtime > age_s)
            n += unlink(path) == 0 || (S_ISDIR(st.st_mode) && !dir_remove(path));
    }
    return n;
}

/* Every blob's name, "ab/cdef…" without the slash. */
static err names_all(struct blobs *b, struct arena *a, struct strs *out)
{
    struct strs folders = { 0 };
    TRY(dir_list(a, fmtz(a, "%s/blobs", dir_of(b)), &folders));
    for (size_t i = 0; i < folders.n; i++) {
        struct strs names = { 0 };
        TRY(dir_list(a, fmtz(a, "%s/blobs/%.*s", dir_of(b), STR(folders.v[i])), &names));
        for (size_t k = 0; k < names.n; k++)
            push(a, out, fmt(a, "%.*s%.*s", STR(folders.v[i]), STR(names.v[k])));
    }
    return NULL;
}

static err files_check(struct blobs *b, struct arena *a, size_t sample, struct strs *lines)
{
    struct strs names = { 0 }, strays = { 0 };
    TRY(names_all(b, a, &names));
    TRY(dir_list(a, fmtz(a, "%s/tmp", dir_of(b)), &strays));
    uint64_t dice = (uint64_t)now_us();
    size_t looked = names.n < sample ? names.n : sample, damaged = 0;
    struct str first = { 0 };
    for (size_t i = 0; i < looked; i++) {
        size_t at = looked == names.n ? i : splitmix(&dice) % names.n;
        struct str hash;
        int64_t size;
        err e = names.v[at].n == 64 ? file_sha256(a, files_name(b, a, names.v[at]), &hash, &size) : NULL;
        if (!e && names.v[at].n == 64 && str_eq(hash, names.v[at]))
            continue;
        if (!damaged++)
            first = names.v[at];
    }
    push(a, lines,
         fmt(a, "blobs: %zu, of which %zu were read and %zu are damaged; %zu temporary files", names.n,
             looked, damaged, strays.n));
    if (damaged)
        FAIL(INTERNAL, "blobs: %zu of %zu are damaged, first: %.*s", damaged, looked, STR(first));
    return NULL;
}

static void files_close(struct blobs *b)
{
    free(((struct files *)b)->dir);
    free(b);
}

static err folders_make(struct arena *a, const char *dir)
{
    TRY(dir_make(fmtz(a, "%s/blobs", dir)));
    TRY(dir_make(fmtz(a, "%s/tmp", dir)));
    return file_sync(dir);
}

static err files_open(struct str dir, bool read_only, struct blobs **out)
{
    auto_arena struct arena *a = arena_new(0);
    const char *path = str_z(a, dir);
    if (!read_only)
        TRY(folders_make(a, path));
    else if (!file_exists(fmtz(a, "%s/blobs", path)))
        FAIL(NOT_FOUND, "there are no blobs in %s", path);
    struct files *f = malloc(sizeof *f);
    if (!f)
        abort();
    *f = (struct files){ .base.ops = &blob_files, .dir = strdup(path) };
    *out = &f->base;
    return NULL;
}

const struct blob_ops blob_files = {
    .name = "files",
    .open = files_open,
    .close = files_close,
    .put = files_put,
    .take = files_take,
    .tmp = files_tmp,
    .get = files_get,
    .drop = files_drop,
    .path = files_path,
    .sweep = files_sweep,
    .check = files_check,
};
