// SPDX-License-Identifier: Apache-2.0
/* A full disk: writes fail with FULL and leave nothing, reads go on, and with room all is well again. Once
 * on a small tmpfs (root only), once with a limit on the size of files (anybody). */
#define SUITE store_full
#include "help.h"
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

struct filling {
    struct store *s;
    struct arena *a;
    size_t objects, rows, blobs; /* acknowledged */
};

static char padding[50000];

static err fill_object(struct filling *f)
{
    struct object o = { .kind = S("Model"),
                        .name = fmt(f->a, "m%zu", f->objects),
                        .spec = { padding, sizeof padding } };
    struct putting p = { .in = o };
    TRY(store_write(f->s, putting_run, &p));
    f->objects++;
    return NULL;
}

static err fill_row(struct filling *f)
{
    struct kv_item it = { .key = fmt(f->a, "k%zu", f->rows), .value = { padding, sizeof padding } };
    TRY(kv_put(store_kv(f->s), &it, 1, NULL));
    f->rows++;
    return NULL;
}

static err fill_blob(struct filling *f)
{
    size_t n = sizeof padding + f->blobs * 4096;
    struct str sha;
    TRY(blob_put(store_blobs(f->s), f->a, (struct str){ NEW_N(f->a, char, n), n }, &sha));
    f->blobs++;
    return NULL;
}

static void fill(struct filling *f, err (*one)(struct filling *))
{
    err e = NULL;
    for (int i = 0; i < 5000 && !e; i++)
        e = one(f);
    CHECK(e != NULL);
    CHECK_ERR(e, FULL);
}

/* One after the other, as the last is what fills the disk; the bigger need room that the smaller leave. */
static void all_are_refused(struct filling *f)
{
    fill(f, fill_object);
    fill(f, fill_blob);
    fill(f, fill_row);
    CHECK_ERR(fill_object(f), FULL);
}

static void all_are_there(struct filling *f)
{
    struct object o;
    struct str v;
    CHECK(count_of(f->s, "select count(*) from resource") == (int64_t)f->objects);
    CHECK(count_of(f->s, "select count(*) from event") == (int64_t)f->objects &&
          event_last(f->s) == (int64_t)f->objects);
    CHECK_OK(object_get(f->s, f->a, S("Model"), S(""), fmt(f->a, "m%zu", f->objects - 1), &o));
    CHECK_OK(kv_get(store_kv(f->s), f->a, fmt(f->a, "k%zu", f->rows - 1), &v, NULL));
    CHECK_ERR(kv_get(store_kv(f->s), f->a, fmt(f->a, "k%zu", f->rows), &v, NULL), NOT_FOUND);
    struct strs strays;
    CHECK_OK(dir_list(f->a, fmtz(f->a, "%s/tmp", store_dir(f->s)), &strays));
    CHECK(strays.n == 0);
}

static void story(struct arena *a, const char *dir, void (*make_room)(const char *dir))
{
    memset(padding, 'p', sizeof padding);
    struct filling f = { .s = store_at(dir), .a = a };
    CHECK_OK(fill_object(&f));
    CHECK_OK(fill_row(&f));
    all_are_refused(&f);
    all_are_there(&f);
    make_room(dir);
    for (int i = 0; i < 3; i++) {
        CHECK_OK(fill_object(&f));
        CHECK_OK(fill_row(&f));
        CHECK_OK(fill_blob(&f));
    }
    all_are_there(&f);
    store_close(f.s);
    f.s = store_at(dir);
    all_are_there(&f);
    store_close(f.s);
}

static void grow_disk(const char *dir)
{
    CHECK(mount("none", dir, "tmpfs", MS_REMOUNT, "size=64m") == 0);
}

static void unmount(void *dir)
{
    umount2(dir, MNT_DETACH);
}

TEST(on_a_small_disk)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("none", dir, "tmpfs", 0, "size=8m"))
        cr_skip("only root mounts a disk");
    arena_defer(a, unmount, (void *)(uintptr_t)dir);
    story(a, dir, grow_disk);
}

static void file_limit(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
}

static void lift_limit(const char *dir)
{
    (void)dir;
    file_limit(64 << 20);
}

TEST(with_a_limit_on_files)
{
    auto_arena struct arena *a = arena_new(0);
    signal(SIGXFSZ, SIG_IGN);
    file_limit(2 << 20);
    story(a, folder_new(a), lift_limit);
}
