// SPDX-License-Identifier: Apache-2.0
/* One store under many threads at once, for ThreadSanitizer: writers of objects, keyed rows and blobs, readers
 * of all of them, watchers. 0 is a pass. Each writer's work is counted, so a lost write is seen, too. */
#include "store/store.h"
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITERS = 6, READERS = 3, ROUNDS = 60 };

static struct store *store;
static atomic_int failed, writing, streamed;

static void check(bool good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "not so: %s\n", what);
    atomic_fetch_add(&failed, 1);
}
#define CHECK(x) check((x), #x)

static err put_run(struct tx *tx, void *arg)
{
    int number = *(int *)arg;
    struct object o = { .kind = S("Model"), .project = S("p"), .name = fmt(tx_arena(tx), "m%d", number) };
    TRY(object_put(tx, S("ann"), &o, 0, NULL, NULL));
    if (number % 10 == 0)
        FAIL(GATE, "every tenth is refused");
    return NULL;
}

static void *writer(void *arg)
{
    int first = *(int *)arg;
    auto_arena struct arena *a = arena_new(0);
    for (int i = first; i < first + ROUNDS; i++) {
        struct str sha, bytes = fmt(a, "blob %d", i / 2);
        struct kv_item it = { .key = fmt(a, "k%d", i % 7), .value = bytes, .version = i, .newer = i % 2 };
        bool kept;
        err e = store_write(store, put_run, &i);
        CHECK(i % 10 ? !e : e && e->code == GATE);
        CHECK(!kv_put(store_kv(store), &it, 1, &kept));
        CHECK(!blob_put(store_blobs(store), a, bytes, &sha));
        err_reset();
    }
    atomic_fetch_sub(&writing, 1);
    return NULL;
}

static void *reader(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    (void)arg;
    while (atomic_load(&writing)) {
        struct objects list;
        struct kv_snap *snap;
        struct str v;
        int64_t version;
        CHECK(!object_list(store, a, S("Model"), S("p"), S(""), 50, &list));
        CHECK(!kv_snap_begin(store_kv(store), &snap));
        if (kv_snap_get(snap, S("k3"), &v, &version))
            CHECK(str_starts(v, S("blob ")));
        kv_snap_end(snap);
        arena_reset(a);
    }
    return NULL;
}

static void *watcher(void *arg)
{
    auto_arena struct arena *a = arena_new(0);
    int64_t seen = 0;
    (void)arg;
    while (atomic_load(&writing) || seen < event_last(store)) {
        struct events ev;
        event_wait(store, seen, 50);
        CHECK(!event_list(store, a, seen, S(""), S(""), S(""), 100, &ev));
        for (size_t i = 0; i < ev.n; i++)
            CHECK(ev.v[i].seq == ++seen);
        arena_reset(a);
    }
    return NULL;
}

static void on_commit(void *arg, int64_t last)
{
    (void)arg;
    atomic_store(&streamed, (int)last);
}

static bool threads_run(void)
{
    static void *(*const fns[])(void *) = { reader, watcher };
    static int firsts[WRITERS];
    pthread_t t[WRITERS + READERS + 1];
    size_t n = 0;
    bool good = true;
    atomic_store(&writing, WRITERS);
    for (int i = 0; i < WRITERS; i++) {
        firsts[i] = i * 1000;
        good = good && !thread_start("writer", writer, &firsts[i], &t[n++]);
    }
    for (int i = 0; i <= READERS; i++)
        good = good && !thread_start("reader", fns[i == READERS], NULL, &t[n++]);
    for (size_t i = 0; good && i < n; i++)
        pthread_join(t[i], NULL);
    return good;
}

int main(void)
{
    char name[] = "/tmp/dhow-store-XXXXXX";
    if (!mkdtemp(name))
        return 1;
    struct store_config cfg = { .dir = str_of(name), .kv_bytes_max = 64 << 20 };
    if (store_open(&cfg, &store))
        return 1;
    store_on_commit(store, on_commit, NULL);
    CHECK(threads_run());
    CHECK(event_last(store) == WRITERS * ROUNDS * 9 / 10);
    CHECK(atomic_load(&streamed) == event_last(store));
    store_wake(store);
    store_close(store);
    dir_remove(name);
    return atomic_load(&failed) != 0;
}
