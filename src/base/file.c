// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE 1
#include "base/file.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void close_fd(int fd)
{
    close(fd);
}

static ssize_t read_some(int fd, void *p, size_t n)
{
    ssize_t got;
    do
        got = read(fd, p, n);
    while (got < 0 && errno == EINTR);
    return got;
}

static err open_read(const char *path, int *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    *out = fd;
    return NULL;
}

static err size_of(int fd, const char *path, size_t *out)
{
    struct stat st;
    if (fstat(fd, &st))
        return err_errno(errno, "cannot look at %s", path);
    if (S_ISDIR(st.st_mode))
        return err_errno(EISDIR, "cannot read %s", path);
    *out = S_ISREG(st.st_mode) ? (size_t)st.st_size : 0;
    return NULL;
}

err file_read(struct arena *a, const char *path, size_t bytes_max, struct str *out)
{
    auto_close int fd = -1;
    size_t size = 0;
    TRY(open_read(path, &fd));
    TRY(size_of(fd, path, &size));
    if (bytes_max >= arena_left(a) / 2) /* the arena has to hold it, and its NUL */
        bytes_max = arena_left(a) / 2;
    if (size > bytes_max)
        FAIL(LIMIT, "%s has %zu bytes, over the limit of %zu", path, size, bytes_max);
    struct buf b = buf_new(a);
    for (;;) { /* to the end, whatever the size was: files of /proc say 0 */
        if (b.n == b.cap && arena_left(a) < 2 * b.cap + size + 1)
            FAIL(LIMIT, "%s is over the limit of %zu bytes", path, b.cap);
        char *room = buf_room(&b, b.n < b.cap ? 1 : b.cap ? b.cap : size + 1);
        ssize_t got = read_some(fd, room, b.cap - b.n);
        if (got < 0)
            return err_errno(errno, "cannot read %s", path);
        if (!got)
            break;
        b.n += (size_t)got;
        if (b.n > bytes_max)
            FAIL(LIMIT, "%s is over the limit of %zu bytes", path, bytes_max);
    }
    *buf_room(&b, 1) = 0;
    *out = buf_get(&b);
    return NULL;
}

static err write_all(int fd, struct str text, const char *path)
{
    while (text.n) {
        ssize_t n = write(fd, text.p, text.n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot write %s", path);
        text = str_sub(text, (size_t)n, text.n);
    }
    return NULL;
}

/* A file that is replaced keeps its mode; a new one is its owner's alone. */
static mode_t mode_for(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) ? st.st_mode & 0777 : 0600;
}

static err write_new(const char *tmp, mode_t mode, struct str text)
{
    auto_close int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "cannot create %s", tmp);
    if (fchmod(fd, mode))
        return err_errno(errno, "cannot set the mode of %s", tmp);
    TRY(write_all(fd, text, tmp));
    if (fsync(fd))
        return err_errno(errno, "cannot sync %s", tmp);
    return NULL;
}

err file_write(const char *path, struct str text)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t salt;
    random_bytes(&salt, sizeof salt);
    struct str digits = hex(a, &salt, sizeof salt);
    const char *tmp = fmtz(a, "%s.tmp-%.*s", path, STR(digits));
    err e = write_new(tmp, mode_for(path), text);
    if (!e)
        e = file_publish(tmp, path);
    if (e)
        unlink(tmp);
    return e;
}

static const char *folder_of(struct arena *a, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return ".";
    return slash == path ? "/" : str_z(a, (struct str){ path, (size_t)(slash - path) });
}

err file_sync(const char *path)
{
    auto_close int fd = -1;
    TRY(open_read(path, &fd));
    if (fsync(fd))
        return err_errno(errno, "cannot sync %s", path);
    return NULL;
}

err file_publish(const char *tmp, const char *path)
{
    auto_arena struct arena *a = arena_new(0);
    if (rename(tmp, path))
        return err_errno(errno, "cannot rename %s to %s", tmp, path);
    return file_sync(folder_of(a, path));
}

err dir_make(const char *path)
{
    auto_arena struct arena *a = arena_new(0);
    if (!mkdir(path, 0700))
        return NULL;
    struct stat st;
    if (errno == EEXIST) {
        if (!stat(path, &st) && S_ISDIR(st.st_mode))
            return NULL;
        return err_errno(ENOTDIR, "cannot make folder %s", path);
    }
    struct str parent = str_of(path);
    while (parent.n > 1 && parent.p[parent.n - 1] == '/')
        parent.n--;
    const char *up = folder_of(a, str_z(a, parent));
    if (errno != ENOENT || !strcmp(up, ".") || !strcmp(up, "/"))
        return err_errno(errno, "cannot make folder %s", path);
    TRY(dir_make(up));
    if (mkdir(path, 0700) && errno != EEXIST)
        return err_errno(errno, "cannot make folder %s", path);
    return NULL;
}

static bool is_dots(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

static int by_name(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

err dir_list(struct arena *a, const char *path, struct strs *out)
{
    DIR *d = opendir(path);
    if (!d)
        return err_errno(errno, "cannot list %s", path);
    struct strs names = { 0 };
    errno = 0;
    for (struct dirent *e; (e = readdir(d)); errno = 0)
        if (!is_dots(e->d_name))
            push(a, &names, str_dup(a, str_of(e->d_name)));
    int failed = errno;
    closedir(d);
    if (failed)
        return err_errno(failed, "cannot list %s", path);
    if (names.n)
        qsort(names.v, names.n, sizeof *names.v, by_name);
    *out = names;
    return NULL;
}

/* One removal: deeper than DEPTH_MAX, folders are moved up to the root, so neither fds nor stack run out. */
enum { DEPTH_MAX = 64 };
struct removal {
    const char *path;
    int root;
    bool moved; /* the root has new entries: look again */
};

/* Opens a folder of ours even if its mode forbids that; never through a link. */
static int open_folder(int at, const char *name)
{
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 || errno != EACCES)
        return fd;
    char link[64];
    auto_close int handle = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    if (handle < 0 || chmod(link, 0700))
        return -1;
    return openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

static err empty_folder(struct removal *r, int fd, int depth);

static err remove_subfolder(struct removal *r, int at, const char *name, int depth)
{
    if (depth >= DEPTH_MAX) {
        char moved[32];
        uint64_t salt;
        random_bytes(&salt, sizeof salt);
        snprintf(moved, sizeof moved, "gone-%016llx", (unsigned long long)salt);
        if (renameat(at, name, r->root, moved))
            return err_errno(errno, "cannot remove %s: moving '%s'", r->path, name);
        r->moved = true;
        return NULL;
    }
    auto_close int fd = open_folder(at, name);
    if (fd < 0)
        return err_errno(errno, "cannot remove %s: opening '%s'", r->path, name);
    TRY(empty_folder(r, fd, depth + 1));
    if (unlinkat(at, name, AT_REMOVEDIR) && errno != ENOENT)
        return err_errno(errno, "cannot remove %s: removing '%s'", r->path, name);
    return NULL;
}

static err remove_entry(struct removal *r, int at, const char *name, int depth)
{
    if (!unlinkat(at, name, 0) || errno == ENOENT)
        return NULL;
    if (errno == EISDIR || errno == EPERM) /* EPERM is what POSIX says of folders */
        return remove_subfolder(r, at, name, depth);
    return err_errno(errno, "cannot remove %s: removing '%s'", r->path, name);
}

static err empty_folder(struct removal *r, int fd, int depth)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    if (!d) {
        err e = err_errno(errno, "cannot remove %s", r->path);
        if (copy >= 0)
            close(copy);
        return e;
    }
    fchmod(fd, 0700); /* if it cannot be, the next call says so */
    err failed = NULL;
    errno = 0;
    for (struct dirent *e; !failed && (e = readdir(d)); errno = 0)
        if (!is_dots(e->d_name))
            failed = remove_entry(r, fd, e->d_name, depth);
    if (!failed && errno)
        failed = err_errno(errno, "cannot remove %s: listing it", r->path);
    closedir(d);
    return failed;
}

err dir_remove(const char *path)
{
    auto_close int fd = open_folder(AT_FDCWD, path);
    if (fd < 0 && errno == ENOENT)
        return NULL;
    if (fd < 0)
        return err_errno(errno, "cannot remove %s", path);
    struct removal r = { .path = path, .root = fd, .moved = true };
    while (r.moved) {
        r.moved = false;
        TRY(empty_folder(&r, fd, 0));
    }
    if (rmdir(path) && errno != ENOENT)
        return err_errno(errno, "cannot remove %s", path);
    return NULL;
}

bool file_exists(const char *path)
{
    return !access(path, F_OK);
}

int64_t file_size(const char *path)
{
    struct stat st;
    return stat(path, &st) ? -1 : (int64_t)st.st_size;
}

struct mapping {
    void *p;
    size_t n;
};

static void unmap(void *arg)
{
    struct mapping *m = arg;
    munmap(m->p, m->n);
}

err file_map(struct arena *a, const char *path, struct str *out)
{
    auto_close int fd = -1;
    size_t size = 0;
    TRY(open_read(path, &fd));
    TRY(size_of(fd, path, &size));
    if (!size) { /* mmap refuses nothing */
        *out = S("");
        return NULL;
    }
    void *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return err_errno(errno, "cannot map %s", path);
    struct mapping *m = NEW(a, struct mapping);
    *m = (struct mapping){ p, size };
    arena_defer(a, unmap, m);
    *out = (struct str){ p, size };
    return NULL;
}

static _Noreturn void die_digest(void)
{
    fputs("dhow: libcrypto has no SHA-256\n", stderr);
    abort();
}

void sha256(struct str bytes, uint8_t out[32])
{
    if (!EVP_Digest(bytes.n ? bytes.p : "", bytes.n, out, NULL, EVP_sha256(), NULL))
        die_digest();
}

struct str sha256_hex(struct arena *a, struct str bytes)
{
    uint8_t sum[32];
    sha256(bytes, sum);
    return hex(a, sum, sizeof sum);
}

static void digest_free(EVP_MD_CTX **md)
{
    EVP_MD_CTX_free(*md);
}

err file_sha256(struct arena *a, const char *path, struct str *out_hex, int64_t *size)
{
    auto_close int fd = -1;
    TRY(open_read(path, &fd));
    __attribute__((cleanup(digest_free))) EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (!md || !EVP_DigestInit_ex(md, EVP_sha256(), NULL))
        die_digest();
    char block[65536];
    int64_t all = 0;
    ssize_t n;
    while ((n = read_some(fd, block, sizeof block)) > 0) {
        EVP_DigestUpdate(md, block, (size_t)n);
        all += n;
    }
    if (n < 0)
        return err_errno(errno, "cannot read %s", path);
    uint8_t sum[32];
    EVP_DigestFinal_ex(md, sum, NULL);
    *out_hex = hex(a, sum, sizeof sum);
    *size = all;
    return NULL;
}
