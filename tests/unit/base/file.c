// SPDX-License-Identifier: Apache-2.0
#define SUITE base_file
#include "test.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* A folder of this test's own, gone with the arena. */
static void folder_gone(void *path)
{
    CHECK_OK(dir_remove(path));
    CHECK(!file_exists(path));
}

static const char *folder(struct arena *a)
{
    const char *base = getenv("TMPDIR");
    char *path = (char *)fmtz(a, "%s/dhow-test-XXXXXX", base ? base : "/tmp");
    CHECK(mkdtemp(path));
    arena_defer(a, folder_gone, path);
    return path;
}

TEST(write_then_read)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *path = fmtz(a, "%s/f", dir);
    struct str text;
    CHECK_OK(file_write(path, S("one")));
    CHECK_OK(file_write(path, S("two\0three")));
    CHECK_OK(file_read(a, path, 100, &text));
    CHECK(str_eq(text, S("two\0three")) && text.p[text.n] == 0);
    CHECK(file_size(path) == 9 && file_exists(path));
    struct strs names;
    CHECK_OK(dir_list(a, dir, &names));
    CHECK(names.n == 1); /* no temporary file is left */
}

TEST(a_new_file_is_private_and_a_replaced_one_keeps_its_mode)
{
    auto_arena struct arena *a = arena_new(0);
    const char *path = fmtz(a, "%s/f", folder(a));
    struct stat st;
    CHECK_OK(file_write(path, S("x")));
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    CHECK(!chmod(path, 0644));
    CHECK_OK(file_write(path, S("y")));
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0644);
}

TEST(a_failed_write_leaves_nothing)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *path = fmtz(a, "%s/sub", dir);
    CHECK_OK(dir_make(path));
    CHECK_ERR(file_write(path, S("x")), INTERNAL); /* a folder is there */
    CHECK_ERR(file_write(fmtz(a, "%s/none/f", dir), S("x")), NOT_FOUND);
    struct strs names;
    CHECK_OK(dir_list(a, dir, &names));
    CHECK(names.n == 1);
    CHECK_STR(names.v[0], "sub");
}

TEST(read_checks_its_limits)
{
    auto_arena struct arena *a = arena_new(0);
    auto_arena struct arena *tiny = arena_new(64);
    const char *dir = folder(a), *path = fmtz(a, "%s/f", dir);
    struct str text = { 0 };
    CHECK_OK(file_write(path, S("0123456789")));
    CHECK_OK(file_read(a, path, 10, &text));
    CHECK_STR(text, "0123456789");
    CHECK_ERR(file_read(a, path, 9, &text), LIMIT);
    CHECK_ERR(file_read(a, fmtz(a, "%s/none", dir), 9, &text), NOT_FOUND);
    CHECK_ERR(file_read(a, dir, 9, &text), INTERNAL);
    CHECK_ERR(file_read(a, "/dev/zero", 100000, &text), LIMIT);
    CHECK_ERR(file_read(tiny, "/dev/zero", 100000, &text), LIMIT); /* not an abort */
    CHECK_OK(file_read(a, "/proc/self/status", 100000, &text));    /* its size is 0 */
    CHECK(text.n > 100);
    CHECK_OK(file_write(path, S("")));
    CHECK_OK(file_read(a, path, 0, &text));
    CHECK(text.n == 0);
}

TEST(folders_are_made_and_listed)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *deep = fmtz(a, "%s/a//b/c/", dir);
    struct strs names;
    CHECK_OK(dir_make(deep));
    CHECK_OK(dir_make(deep));
    CHECK_OK(file_write(fmtz(a, "%s/z", dir), S("")));
    CHECK_OK(file_write(fmtz(a, "%s/B", dir), S("")));
    CHECK_ERR(dir_make(fmtz(a, "%s/z", dir)), INTERNAL);
    CHECK_ERR(dir_make(fmtz(a, "%s/z/y", dir)), INTERNAL);
    CHECK_OK(dir_list(a, dir, &names));
    CHECK_STR(str_join(a, names.v, names.n, S(" ")), "B a z");
    CHECK_OK(dir_list(a, deep, &names));
    CHECK(names.n == 0);
    CHECK_ERR(dir_list(a, fmtz(a, "%s/none", dir), &names), NOT_FOUND);
}

TEST(removal_follows_no_links)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *tree = fmtz(a, "%s/tree", dir), *kept = fmtz(a, "%s/kept", dir);
    CHECK_OK(dir_make(fmtz(a, "%s/sub", tree)));
    CHECK_OK(dir_make(kept));
    CHECK_OK(file_write(fmtz(a, "%s/f", kept), S("x")));
    CHECK(!symlink(kept, fmtz(a, "%s/sub/link", tree)));
    CHECK(!symlink(kept, fmtz(a, "%s/link", dir)));
    CHECK_OK(dir_remove(tree));
    CHECK(!file_exists(tree));
    CHECK_ERR(dir_remove(fmtz(a, "%s/link", dir)), INTERNAL);
    CHECK(file_exists(fmtz(a, "%s/f", kept)));
    CHECK_OK(dir_remove(tree)); /* a missing one is fine */
}

TEST(removal_takes_deep_trees_and_closed_folders)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *tree = fmtz(a, "%s/tree", dir);
    CHECK_OK(dir_make(fmtz(a, "%s/closed/in", tree)));
    CHECK(!chmod(fmtz(a, "%s/closed", tree), 0));
    int at = open(tree, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < 400; i++) { /* deeper than a path may be long */
        CHECK(!mkdirat(at, "a-rather-long-name-of-a-folder", 0700));
        int next = openat(at, "a-rather-long-name-of-a-folder", O_RDONLY | O_DIRECTORY);
        close(openat(next, "f", O_CREAT | O_WRONLY, 0600));
        close(at);
        at = next;
    }
    close(at);
    CHECK_OK(dir_remove(tree));
    CHECK(!file_exists(tree));
}

TEST(maps)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *path = fmtz(a, "%s/f", dir);
    struct str text;
    CHECK_OK(file_write(path, S("mapped")));
    CHECK_OK(file_map(a, path, &text));
    CHECK_STR(text, "mapped");
    CHECK_OK(file_write(path, S("")));
    CHECK_STR(text, "mapped"); /* the old file: a new one took its name */
    CHECK_OK(file_map(a, path, &text));
    CHECK(text.n == 0);
    CHECK_ERR(file_map(a, fmtz(a, "%s/none", dir), &text), NOT_FOUND);
}

TEST(sha256_of_bytes_and_files)
{
    auto_arena struct arena *a = arena_new(0);
    const char *path = fmtz(a, "%s/f", folder(a));
    struct str sum;
    int64_t size;
    CHECK_STR(sha256_hex(a, S("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK_STR(sha256_hex(a, (struct str){ 0 }),
              "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    struct str big = fmt(a, "%*d", 200000, 1);
    CHECK_OK(file_write(path, big));
    CHECK_OK(file_sha256(a, path, &sum, &size));
    CHECK(size == 200000 && str_eq(sum, sha256_hex(a, big)));
    CHECK_ERR(file_sha256(a, "/nowhere/f", &sum, &size), NOT_FOUND);
}

TEST(publish_replaces)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder(a), *tmp = fmtz(a, "%s/f.tmp", dir), *path = fmtz(a, "%s/f", dir);
    struct str text;
    CHECK_OK(file_write(path, S("old")));
    CHECK_OK(file_write(tmp, S("new")));
    CHECK_OK(file_sync(tmp));
    CHECK_OK(file_publish(tmp, path));
    CHECK_OK(file_read(a, path, 10, &text));
    CHECK_STR(text, "new");
    CHECK_ERR(file_publish(tmp, path), NOT_FOUND);
}
