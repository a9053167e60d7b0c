/* tables: small Parquet files that the loader's tests write by DuckDB. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"
#include "test.h"
#include "train/loader.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static inline void dir_gone(void *path)
{
    dir_remove(path);
}
/* A folder that goes with the arena. */
static inline const char *dir_temp(struct arena *a)
{
    char *path = (char *)fmtz(a, "/tmp/dhow-loader-XXXXXX");
    CHECK(mkdtemp(path));
    arena_defer(a, dir_gone, path);
    return path;
}
/* Writes what a SELECT gives to dir/name; options: ", ROW_GROUP_SIZE 2048". */
static inline struct str table_write(struct arena *a, const char *dir, const char *name, const char *options,
                                     const char *sql)
{
    struct str path = fmt(a, "%s/%s", dir, name);
    auto_arena struct arena *tmp = arena_new(0);
    struct duck *d;
    struct duck_config config = { .threads = 1, .files = { &path, 1, 1 } };
    CHECK_OK(duck_open(tmp, &config, &d));
    CHECK_OK(duck_run(d, "COPY (%s) TO '%.*s' (USE_TMP_FILE false%s)", sql, STR(path), options));
    return path;
}
#define NEED_DUCKDB()                                    \
    do {                                                 \
        struct str need_;                                \
        auto_arena struct arena *need_a_ = arena_new(0); \
        if (duck_library(need_a_, &need_, &need_))       \
            cr_skip_test("libduckdb is not here");       \
    } while (0)
static inline struct strs names_of(struct arena *a, const char *list)
{
    struct strs out = { 0 };
    struct str rest = str_of(list), part;
    while (str_cut(&rest, ',', &part))
        push(a, &out, str_dup(a, part));
    return out;
}
