// SPDX-License-Identifier: Apache-2.0
/* Keyed rows with a log before them: what the conformance test cannot see, the files and the moments between. */
#define SUITE store_logged
#include "help.h"
#include "store/kv.h"
#include "store/recent.h"
#include <sys/wait.h>

static struct kv *open_at(struct arena *a, const char *dir)
{
    struct kv *kv = NULL;
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 64 << 20, &kv));
    return kv;
}

static void put1(struct kv *kv, struct str key, struct str value, int64_t version)
{
    CHECK_OK(kv_put(kv, &(struct kv_item){ .key = key, .value = value, .version = version }, 1, NULL));
}

static size_t logs(struct arena *a, const char *dir, const char **path)
{
    struct strs names;
    size_t n = 0;
    CHECK_OK(dir_list(a, dir, &names));
    for (size_t i = 0; i < names.n; i++)
        if (str_starts(names.v[i], S("recent."))) {
            *path = fmtz(a, "%s/%.*s", dir, STR(names.v[i]));
            n++;
        }
    return n;
}

/* A process that puts two rows and ends without a word; its log is left. */
static const char *left_by_a_killed_one(struct arena *a, const char *dir)
{
    const char *path = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        struct kv *kv = open_at(a, dir);
        put1(kv, S("first"), S("1"), 1);
        put1(kv, S("second"), S("2"), 2);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(logs(a, dir, &path) == 1);
    return path;
}

TEST(a_killed_process_leaves_a_log_that_is_taken_up)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a), *path = left_by_a_killed_one(a, dir);
    struct kv *kv = open_at(a, dir);
    struct str v;
    int64_t version;
    CHECK_OK(kv_get(kv, a, S("second"), &v, &version));
    CHECK_STR(v, "2");
    CHECK(version == 2);
    kv_close(kv);
    CHECK(!file_exists(path));
}

/* A power cut leaves a file that ends anywhere, or has other bytes at its end. */
TEST(a_torn_end_is_passed_over)
{
    auto_arena struct arena *a = arena_new(0);
    const char *first = folder_new(a);
    struct str whole, v;
    CHECK_OK(file_read(a, left_by_a_killed_one(a, first), 4096, &whole));
    size_t records[2] = { (whole.n - 8 - 1) / 2 + 8, whole.n }; /* "second" is a byte longer than "first" */
    for (size_t n = 0; n <= whole.n; n++) {
        const char *dir = folder_new(a);
        struct buf torn = buf_new(a);
        buf_str(&torn, str_sub(whole, 0, n));
        if (n % 2 && n > 8)
            buf_put(&torn, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24);
        CHECK_OK(file_write(fmtz(a, "%s/recent.7", dir), buf_get(&torn)));
        struct kv *kv = open_at(a, dir);
        CHECK((kv_get(kv, a, S("first"), &v, NULL) == NULL) == (n >= records[0]));
        CHECK((kv_get(kv, a, S("second"), &v, NULL) == NULL) == (n >= records[1]));
        kv_close(kv);
    }
}

TEST(a_strange_log_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct kv *kv;
    CHECK_OK(file_write(fmtz(a, "%s/recent.1", dir), S("DHOWKV99 of another time")));
    CHECK_ERR(kv_open(fmt(a, "logged:%s", dir), 64 << 20, &kv), INVALID);
    CHECK(file_exists(fmtz(a, "%s/recent.1", dir)));
}

TEST(closing_leaves_no_log)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a), *path;
    struct kv *kv = open_at(a, dir);
    CHECK(logs(a, dir, &path) == 0); /* none before the first write, either */
    put1(kv, S("k"), S("v"), 1);
    CHECK(logs(a, dir, &path) == 1);
    kv_close(kv);
    CHECK(logs(a, dir, &path) == 0);
    CHECK_OK(kv_open(fmt(a, "lmdb:%s", dir), 64 << 20, &kv));
    struct str v;
    CHECK_OK(kv_get(kv, a, S("k"), &v, NULL));
    kv_close(kv);
}

TEST(rows_reach_lmdb_by_themselves)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a), *path;
    struct kv *kv = open_at(a, dir);
    struct kv_snap *snap;
    struct str v;
    put1(kv, S("k"), S("old"), 1);
    CHECK_OK(kv_sync(kv));
    CHECK_OK(kv_snap_begin(kv, &snap));
    for (int i = 0; i < 1000 && logs(a, dir, &path); i++)
        usleep(20000);
    CHECK(logs(a, dir, &path) == 0);
    put1(kv, S("k"), S("new"), 2);
    CHECK(kv_snap_get(snap, S("k"), &v, NULL));
    CHECK_STR(v, "old");
    kv_snap_end(snap);
    CHECK_OK(kv_sync(kv));
    CHECK_OK(kv_get(kv, a, S("k"), &v, NULL));
    CHECK_STR(v, "new");
    kv_close(kv);
}

static bool on_row(void *arg, struct str key, struct str value, int64_t version)
{
    struct buf *b = arg;
    (void)version;
    buf_fmt(b, "%.*s=%.*s ", STR(key), STR(value));
    return true;
}

static struct str rows_of(struct kv_snap *snap, struct arena *a, const char *prefix, const char *from)
{
    struct buf b = buf_new(a);
    CHECK_OK(kv_snap_scan(snap, str_of(prefix), str_of(from), on_row, &b));
    return buf_get(&b);
}

/* In LMDB a b c d; then b changes, c goes, bb comes. */
TEST(a_scan_merges_what_is_new)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct kv *kv = open_at(a, dir);
    struct kv_snap *before, *after;
    const char *keys[] = { "p/a", "p/b", "p/c", "p/d", "q" };
    for (int i = 0; i < 5; i++)
        put1(kv, str_of(keys[i]), S("1"), 1);
    kv_close(kv);
    kv = open_at(a, dir);
    CHECK_OK(kv_snap_begin(kv, &before));
    put1(kv, S("p/b"), S("2"), 2);
    put1(kv, S("p/b"), S("3"), 3);
    put1(kv, S("p/bb"), S("1"), 1);
    CHECK_OK(kv_put(kv, &(struct kv_item){ .key = S("p/c"), .remove = true }, 1, NULL));
    CHECK_OK(kv_snap_begin(kv, &after));
    put1(kv, S("p/z"), S("late"), 1);
    CHECK_STR(rows_of(before, a, "p/", ""), "p/a=1 p/b=1 p/c=1 p/d=1 ");
    CHECK_STR(rows_of(after, a, "p/", ""), "p/a=1 p/b=3 p/bb=1 p/d=1 ");
    CHECK_STR(rows_of(after, a, "p/", "p/bb"), "p/bb=1 p/d=1 ");
    CHECK_STR(rows_of(after, a, "", "p/d"), "p/d=1 q=1 ");
    kv_snap_end(before);
    kv_snap_end(after);
    CHECK_OK(kv_drop(kv, S("p/b")));
    CHECK_OK(kv_snap_begin(kv, &after));
    CHECK_STR(rows_of(after, a, "", ""), "p/a=1 p/d=1 p/z=late q=1 ");
    kv_snap_end(after);
    kv_close(kv);
    kv = open_at(a, dir);
    CHECK_OK(kv_snap_begin(kv, &after));
    CHECK_STR(rows_of(after, a, "", ""), "p/a=1 p/d=1 p/z=late q=1 ");
    kv_snap_end(after);
    kv_close(kv);
}

/* More than the table holds: writers wait for LMDB now and then, and nothing is lost. */
TEST(a_flood_is_folded_while_it_comes)
{
    auto_arena struct arena *a = arena_new(0);
    enum { WRITES = 1500, BYTES = 60000 };
    const char *dir = folder_new(a);
    struct kv *kv;
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 512 << 20, &kv));
    char *value = NEW_N(a, char, BYTES);
    for (int i = 0; i < WRITES; i++)
        put1(kv, fmt(a, "k%d", i % 500), (struct str){ value, BYTES }, i);
    kv_close(kv);
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 512 << 20, &kv));
    for (int i = 0; i < 500; i++) {
        int64_t version;
        CHECK_OK(kv_get(kv, a, fmt(a, "k%d", i), NULL, &version));
        CHECK(version == 1000 + i);
    }
    kv_close(kv);
}

/* When LMDB takes no more, writers are told once the memory for it is used up, and the rest stays readable. */
TEST(a_full_map_behind_the_log_is_told)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct kv *kv;
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 4 << 20, &kv));
    char *value = NEW_N(a, char, 60000);
    err e = NULL;
    int n = 0;
    for (; !e && n < 20000; n++)
        e = kv_put(kv, &(struct kv_item){ .key = fmt(a, "k%d", n), .value = { value, 60000 } }, 1, NULL);
    CHECK(e && e->code == FULL && e->hint.n);
    CHECK_OK(kv_get(kv, a, S("k0"), NULL, NULL));
    CHECK_OK(kv_get(kv, a, fmt(a, "k%d", n - 2), NULL, NULL));
    CHECK_ERR(kv_get(kv, a, fmt(a, "k%d", n - 1), NULL, NULL), NOT_FOUND);
    kv_close(kv);
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 4 << 20, &kv)); /* it opens, and what was taken is there */
    CHECK_OK(kv_get(kv, a, fmt(a, "k%d", n - 2), NULL, NULL));
    kv_close(kv);
    CHECK_OK(kv_open(fmt(a, "logged:%s", dir), 512 << 20, &kv)); /* with room it goes on */
    CHECK_OK(kv_put(kv, &(struct kv_item){ .key = S("more"), .value = S("v") }, 1, NULL));
    kv_close(kv);
    const char *path;
    CHECK(logs(a, dir, &path) == 0);
}
