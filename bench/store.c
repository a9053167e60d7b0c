// SPDX-License-Identifier: Apache-2.0
/* What a write and a read of the store cost: bench/store [FOLDER], which says what disk. One round of a
 * write is one object_put or kv_put of one row by one thread, durable. */
#include "store/store.h"
#include <stdio.h>
#include <stdlib.h>

enum { SECONDS_NS = 2000000000, ROWS = 100000, GETS = 2000000, THREADS_MAX = 16 };

struct load {
    struct store *s;
    int64_t first, end_ns, done;
};

static err put_run(struct tx *tx, void *arg)
{
    struct object o = { .kind = S("Model"),
                        .project = S("bench"),
                        .name = fmt(tx_arena(tx), "m%lld", *(long long *)arg),
                        .spec = S(
                            "{\"a\":\"some two hundred bytes would be more like it\",\"b\":[1,2,3,4,5]}") };
    return object_put(tx, S("bench"), &o, 0, NULL, NULL);
}

static err one_object(struct load *l)
{
    long long number = l->first + l->done;
    return store_write(l->s, put_run, &number);
}

static err one_row(struct load *l)
{
    int64_t key = l->first + l->done;
    struct kv_item it = { .key = { (char *)&key, sizeof key },
                          .value = S("forty bytes of features, more or less...") };
    return kv_put(store_kv(l->s), &it, 1, NULL);
}

static err (*one)(struct load *);

static void *load_run(void *arg)
{
    struct load *l = arg;
    for (; mono_ns() < l->end_ns && !one(l); l->done++)
        ;
    return NULL;
}

static void bench_writes(const char *what, err (*fn)(struct load *), struct store *s, int threads)
{
    struct load l[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    static int64_t part;
    int64_t start = mono_ns(), done = 0;
    one = fn;
    for (int i = 0; i < threads; i++) {
        l[i] = (struct load){ .s = s, .first = ++part << 32, .end_ns = start + SECONDS_NS };
        if (thread_start("bench", load_run, &l[i], &t[i]))
            exit(1);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
        done += l[i].done;
    }
    printf("%-12s %2d threads  %9.0f /s\n", what, threads, (double)done * 1e9 / (double)(mono_ns() - start));
}

struct getting {
    struct kv *kv;
    uint64_t seed;
    int64_t found;
};

static void *get_run(void *arg)
{
    struct getting *g = arg;
    for (int i = 0; i < GETS; i++) {
        struct kv_snap *snap;
        struct str value;
        int64_t key = (int64_t)(splitmix(&g->seed) % ROWS);
        if (kv_snap_begin(g->kv, &snap))
            return NULL;
        g->found += kv_snap_get(snap, (struct str){ (char *)&key, sizeof key }, &value, NULL);
        kv_snap_end(snap);
    }
    return NULL;
}

static void bench_gets(struct store *s, int threads)
{
    struct getting g[THREADS_MAX];
    pthread_t t[THREADS_MAX];
    int64_t start = mono_ns(), found = 0;
    for (int i = 0; i < threads; i++) {
        g[i] = (struct getting){ .kv = store_kv(s), .seed = (uint64_t)i };
        if (thread_start("bench", get_run, &g[i], &t[i]))
            exit(1);
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(t[i], NULL);
        found += g[i].found;
    }
    double ns = (double)(mono_ns() - start);
    printf("%-12s %2d threads  %9.0f /s, %.3f us each%s\n", "kv get", threads, (double)found * 1e9 / ns,
           ns / 1e3 / GETS, found == (int64_t)threads * GETS ? "" : " (rows are missing)");
}

static void rows_make(struct kv *kv)
{
    auto_arena struct arena *a = arena_new(0);
    struct kv_item *items = NEW_N(a, struct kv_item, ROWS);
    int64_t *keys = NEW_N(a, int64_t, ROWS);
    for (int64_t i = 0; i < ROWS; i++) {
        keys[i] = i;
        items[i] = (struct kv_item){ .key = { (char *)&keys[i], 8 },
                                     .value = S("forty bytes of features, more or less...") };
    }
    int64_t start = mono_ns();
    if (kv_put(kv, items, ROWS, NULL))
        exit(1);
    printf("%-12s  1 commit   %9.0f rows/s\n", "kv bulk", ROWS * 1e9 / (double)(mono_ns() - start));
}

int main(int argc, char **argv)
{
    char name[4096];
    struct store *s;
    snprintf(name, sizeof name, "%s/dhow-bench-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    if (!mkdtemp(name) || store_open(&(struct store_config){ .dir = str_of(name) }, &s))
        return 1;
    rows_make(store_kv(s));
    bench_gets(s, 1);
    bench_gets(s, 4);
    bench_writes("object put", one_object, s, 1);
    bench_writes("object put", one_object, s, 16);
    bench_writes("kv put", one_row, s, 1);
    bench_writes("kv put", one_row, s, 16);
    store_close(s);
    dir_remove(name);
    return 0;
}
