/* kv: keyed rows behind one vtable; one file per backend (lmdb.c, and logged.c before it). The public kv_* functions check
 * their arguments and dispatch. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "store/store.h"

#define KV_KEY_MAX 511
#define KV_VALUE_MAX (64 << 10)
#define KV_BYTES_DEFAULT ((size_t)16 << 30)

struct kv_ops;
struct kv {
    const struct kv_ops *ops; /* first member of every backend */
};
struct kv_snap {
    struct kv *kv; /* first member of every backend's snapshot */
};

struct kv_ops {
    const char *name; /* the scheme of the url */
    /* must; where: the url after "name:"; read_only: what is not there is NOT_FOUND */
    err (*open)(struct str where, size_t bytes_max, bool read_only, struct kv **out);
    /* must */
    void (*close)(struct kv *);
    /* must; all or none; the items are checked already; on return the end of the process loses nothing */
    err (*put)(struct kv *, const struct kv_item *, size_t n, bool *kept);
    /* may be NULL: put is durable. Returns once a power cut does not lose what was put before. */
    err (*sync)(struct kv *);
    /* must; what was committed before it is seen, nothing later is */
    err (*snap_begin)(struct kv *, struct kv_snap **out);
    /* must; value and version may be NULL */
    bool (*snap_get)(struct kv_snap *, struct str key, struct str *value, int64_t *version);
    /* must */
    err (*snap_scan)(struct kv_snap *, struct str prefix, struct str from,
                     bool (*fn)(void *arg, struct str key, struct str value, int64_t version), void *arg);
    /* must */
    void (*snap_end)(struct kv_snap *);
    /* must */
    err (*drop)(struct kv *, struct str prefix);
    /* may be NULL; what doctor should know, one line each */
    err (*check)(struct kv *, struct arena *a, struct strs *lines);
};

extern const struct kv_ops kv_lmdb, kv_logged;
/* Every backend that is built in, NULL at the end. */
extern const struct kv_ops *const kv_backends[];

/* kv_open for tools that only read. */
err kv_open_mode(struct str url, size_t bytes_max, bool read_only, struct kv **out);
err kv_check(struct kv *, struct arena *a, struct strs *lines);
