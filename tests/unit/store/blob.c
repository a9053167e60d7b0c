// SPDX-License-Identifier: Apache-2.0
/* The conformance test of blobs, and what is special about files. */
#define SUITE store_blob
#include "help.h"
#include "store/blob.h"
#include <sys/stat.h>

static void check_put(struct blobs *b, struct arena *a)
{
    struct str sha, again, bytes;
    CHECK_OK(blob_put(b, a, S("hello"), &sha));
    CHECK_STR(sha, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    CHECK_OK(blob_put(b, a, S("hello"), &again));
    CHECK_STR(again, sha);
    CHECK_OK(blob_get(b, a, sha, &bytes));
    CHECK_STR(bytes, "hello");
    CHECK_OK(blob_put(b, a, S(""), &sha));
    CHECK_OK(blob_get(b, a, sha, &bytes));
    CHECK(bytes.n == 0);
}

static void check_take(struct blobs *b, struct arena *a)
{
    struct str sha, sha2, bytes;
    int64_t size;
    const char *tmp = blob_tmp(b, a, S(".onnx")), *path;
    CHECK(str_ends(str_of(tmp), S(".onnx")));
    CHECK_OK(file_write(tmp, S("a model")));
    CHECK_OK(blob_take(b, a, tmp, &sha, &size));
    CHECK(size == 7 && !file_exists(tmp));
    CHECK_OK(blob_path(b, a, sha, &path));
    CHECK_OK(file_read(a, path, 100, &bytes));
    CHECK_STR(bytes, "a model");
    CHECK_OK(file_write(tmp, S("a model"))); /* the same once more */
    CHECK_OK(blob_take(b, a, tmp, &sha2, NULL));
    CHECK_STR(sha2, sha);
    CHECK(!file_exists(tmp));
    CHECK_ERR(blob_take(b, a, tmp, &sha, NULL), NOT_FOUND);
}

static void check_names(struct blobs *b, struct arena *a)
{
    struct str bytes;
    const char *path;
    char none[65];
    memset(none, 'a', sizeof none);
    CHECK_ERR(blob_get(b, a, (struct str){ none, 64 }, &bytes), NOT_FOUND);
    CHECK_ERR(blob_path(b, a, (struct str){ none, 64 }, &path), NOT_FOUND);
    CHECK_ERR(blob_get(b, a, (struct str){ none, 65 }, &bytes), INVALID);
    CHECK_ERR(blob_path(b, a, S("../../../etc/passwd"), &path), INVALID);
    none[5] = 'A';
    CHECK_ERR(blob_path(b, a, (struct str){ none, 64 }, &path), INVALID);
}

static void conforms(const struct blob_ops *ops)
{
    auto_arena struct arena *a = arena_new(0);
    struct blobs *b;
    CHECK_OK(ops->open(str_of(folder_new(a)), false, &b));
    check_put(b, a);
    check_take(b, a);
    check_names(b, a);
    blobs_close(b);
}

TEST(every_backend_conforms)
{
    for (size_t i = 0; blob_backends[i]; i++)
        conforms(blob_backends[i]);
}

TEST(damage_is_seen)
{
    auto_arena struct arena *a = arena_new(0);
    struct blobs *b;
    struct str sha, bytes;
    const char *path;
    CHECK_OK(blobs_open(str_of(folder_new(a)), &b));
    CHECK_OK(blob_put(b, a, S("hello"), &sha));
    CHECK_OK(blob_path(b, a, sha, &path));
    struct stat st;
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0400);
    CHECK_OK(file_write(path, S("jello")));
    CHECK_ERR(blob_get(b, a, sha, &bytes), INTERNAL);
    CHECK_OK(file_write(path, S("he"))); /* a wrong length is mended by the next put */
    CHECK_OK(blob_put(b, a, S("hello"), &sha));
    CHECK_OK(blob_get(b, a, sha, &bytes));
    blobs_close(b);
}
