/* help: a fresh folder and the small closures that the store's tests share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "store/store.h"
#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void folder_remove(void *dir)
{
    dir_remove(dir);
}

/* A fresh folder, removed with the arena. */
static inline const char *folder_new(struct arena *a)
{
    char name[] = "/tmp/dhow-store-XXXXXX";
    CHECK(mkdtemp(name) != NULL);
    char *dir = (char *)(uintptr_t)str_z(a, str_of(name));
    arena_defer(a, folder_remove, dir);
    return dir;
}

static inline struct store *store_at(const char *dir)
{
    struct store *s = NULL;
    struct store_config cfg = { .dir = str_of(dir), .kv_bytes_max = (size_t)4 << 30 };
    CHECK_OK(store_open(&cfg, &s));
    return s;
}

/* One object_put as a closure, what came out copied to a. */
struct putting {
    struct arena *a;
    struct object in;
    int64_t rev;
    struct object out;
    bool changed;
};

static inline err putting_run(struct tx *tx, void *arg)
{
    struct putting *p = arg;
    return object_put(tx, S("ann"), &p->in, p->rev, &p->out, &p->changed);
}

static inline err put_spec(struct store *s, const char *name, const char *spec, int64_t rev,
                           struct putting *p)
{
    struct putting mine;
    p = p ? p : &mine;
    *p = (struct putting){
        .in = { .kind = S("Model"), .project = S("p"), .name = str_of(name), .spec = str_of(spec) },
        .rev = rev
    };
    return store_write(s, putting_run, p);
}

static inline err on_number(void *arg, const struct row *r)
{
    *(int64_t *)arg = row_i64(r, 0);
    return NULL;
}

static inline int64_t count_of(struct store *s, const char *sql)
{
    int64_t n = -1;
    CHECK_OK(store_one(s, sql, NO_BIND, on_number, &n));
    return n;
}
