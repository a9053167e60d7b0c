/* blob: immutable bytes by their SHA-256, behind one vtable; one file per backend (blob_files.c). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "store/store.h"

struct blob_ops;
struct blobs {
    const struct blob_ops *ops; /* first member of every backend */
};

struct blob_ops {
    const char *name;
    /* must; read_only: nothing is made */
    err (*open)(struct str dir, bool read_only, struct blobs **out);
    /* must */
    void (*close)(struct blobs *);
    /* must; durable on return */
    err (*put)(struct blobs *, struct arena *a, struct str bytes, struct str *sha);
    /* must; the file is gone from path on success */
    err (*take)(struct blobs *, struct arena *a, const char *path, struct str *sha, int64_t *size);
    /* must; a path of the file system that take() is quick on */
    const char *(*tmp)(struct blobs *, struct arena *a, struct str suffix);
    /* must; the hash is checked. NOT_FOUND; INTERNAL if damaged */
    err (*get)(struct blobs *, struct arena *a, struct str sha, struct str *out);
    /* must; NOT_FOUND */
    err (*path)(struct blobs *, struct arena *a, struct str sha, const char **out);
    /* must; one that is not there is fine */
    err (*drop)(struct blobs *, struct arena *a, struct str sha);
    /* may be NULL; removes temporary files older than age_s seconds; their number */
    size_t (*sweep)(struct blobs *, int64_t age_s);
    /* may be NULL; what doctor should know, one line each, looking into at most `sample` blobs; INTERNAL if one is
     * damaged */
    err (*check)(struct blobs *, struct arena *a, size_t sample, struct strs *lines);
};

extern const struct blob_ops blob_files;
/* Every backend that is built in, NULL at the end. */
extern const struct blob_ops *const blob_backends[];

err blobs_open_mode(struct str dir, bool read_only, struct blobs **out);
