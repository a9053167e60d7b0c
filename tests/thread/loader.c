// SPDX-License-Identifier: Apache-2.0
/* Feeds of one loader in several threads at once, with rings of every depth, sought and closed while they are full, for
 * ThreadSanitizer: 0 is a pass. */
#include "base/base.h"
#include "train/loader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 3000, WIDTH = 3, THREADS = 4 };

static err array_put(struct arena *a, const char *path)
{
    struct buf b = buf_new(a);
    static const char head[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (3000, 3), }";
    char line[118];
    memset(line, ' ', sizeof line);
    memcpy(line, head, sizeof head - 1);
    line[117] = '\n';
    buf_put(&b, "\x93NUMPY\x01\x00\x76\x00", 10);
    buf_put(&b, line, sizeof line);
    for (int i = 0; i < ROWS * WIDTH; i++)
        buf_put(&b, &(float){ (float)i }, 4);
    return file_write(path, buf_get(&b));
}

/* Batches in order, a few epochs; each row is whole. */
static err feed_use(struct arena *a, struct loader *l, int depth, uint64_t seed)
{
    struct feed *f;
    struct feed_batch b;
    struct feed_options o = {
        .part = LOADER_TRAIN, .rows = 64, .shuffle = true, .seed = seed, .depth = depth
    };
    TRY(feed_open(l, a, &o, &f));
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 100; i++) {
            TRY(feed_next(f, &b));
            const float *x = b.data[0];
            for (int64_t r = 0; r < b.rows; r++)
                if (x[3 * r + 2] != x[3 * r] + 2 || b.rows != 64)
                    FAIL(INTERNAL, "row %lld is torn", (long long)r);
        }
        struct str at = feed_state(f, a);
        for (int i = 0; i < turn; i++)
            TRY(feed_next(f, &b));
        if (feed_stats(f).batches < 100)
            FAIL(INTERNAL, "batches are not counted");
        TRY(feed_seek(f, at));
    }
    return feed_next(f, &b); /* closed with a full ring */
}

static void *use(void *arg)
{
    struct loader *l = arg;
    static const int depths[] = { 0, 1, 2, 7, -1 };
    intptr_t bad = 0;
    for (int i = 0; i < 5 && !bad; i++) {
        auto_arena struct arena *a = arena_new(0);
        err e = feed_use(a, l, depths[i], (uint64_t)i);
        if (e)
            fprintf(stderr, "%.*s\n", STR(e->text));
        bad = e != NULL;
    }
    err_reset();
    return (void *)bad;
}

static err loader_make(struct arena *a, struct loader **out)
{
    char dir[] = "/tmp/dhow-loader-XXXXXX";
    if (!mkdtemp(dir))
        return err_errno(errno, "making a folder");
    struct str name = S("x");
    struct loader_file file = { .path = fmt(a, "%s/x.npy", dir) };
    struct loader_input in = { .name = S("x"), .kind = KIND_ARRAY, .columns = { &name, 1, 1 } };
    struct loader_spec spec = { .files = &file, .n_files = 1, .inputs = &in, .n_inputs = 1 };
    err e = array_put(a, str_z(a, file.path));
    if (!e)
        e = loader_open(a, &spec, out);
    dir_remove(dir);
    return e;
}

int main(void)
{
    auto_arena struct arena *a = arena_new(0);
    struct loader *l;
    pthread_t threads[THREADS];
    intptr_t bad = 0;
    err e = loader_make(a, &l);
    if (e) {
        fprintf(stderr, "%.*s\n", STR(e->text));
        return 1;
    }
    for (int i = 0; i < THREADS; i++)
        if (thread_start("user", use, l, &threads[i]))
            return 1;
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad |= (intptr_t)result;
    }
    return bad != 0;
}
