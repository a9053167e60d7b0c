// SPDX-License-Identifier: Apache-2.0
/* kill -9 at random moments: what was acknowledged is there, and nothing is there by half. */
#define SUITE store_kill
#include "help.h"
#include <sys/wait.h>

enum {
    ROUNDS = 60,
    LIFE_US_MAX = 160000, /* of a child, once it has opened the store */
    BIG_ROWS = 3000,      /* rows of every 7th transaction */
    KEYS = 40,            /* of one kv_put */
    IDS = 1000000,        /* of one round */
};

struct ack {
    int64_t what; /* 'm'eta, 'b'lob, 'k'eyed rows; 'o'pened */
    int64_t id;
};

/* ---- what is written, told by its id alone ---- */

static int64_t rows_of(int64_t id)
{
    return id % 7 ? id % 5 + 1 : BIG_ROWS;
}

static struct str blob_of(struct arena *a, int64_t id)
{
    size_t n = id % 5 ? 3000 : 2000000;
    char *p = NEW_N(a, char, n);
    memset(p, 'x', n);
    memcpy(p, &id, sizeof id);
    return (struct str){ p, n };
}

static struct str key_of(struct arena *a, int64_t id, int i)
{
    return fmt(a, "k/%09lld/%02d", (long long)id, i);
}

/* ---- the child ---- */

struct killed {
    struct store *s;
    int pipe;
    int64_t first, step;
};

static void acknowledge(int pipe, int64_t what, int64_t id)
{
    struct ack ack = { what, id };
    if (write(pipe, &ack, sizeof ack) != sizeof ack)
        _exit(9);
}

static err rows_put(struct tx *tx, int64_t id, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i++)
        TRY(tx_exec(tx, "insert into killed(tx, n, pad) values(?1, ?2, hex(zeroblob(80)))",
                    BIND(B_I(id), B_I(i)), NULL));
    return NULL;
}

static err killed_tx(struct tx *tx, void *arg)
{
    int64_t id = *(int64_t *)arg, n = rows_of(id);
    struct str name = fmt(tx_arena(tx), "o%lld", (long long)id);
    struct object o = { .kind = S("Killed"), .project = S("p"), .name = name };
    TRY(rows_put(tx, id, 0, n / 2));
    TRY(object_put(tx, S("ann"), &o, 0, NULL, NULL));
    return rows_put(tx, id, n / 2, n);
}

static void *meta_thread(void *arg)
{
    struct killed *k = arg;
    for (int64_t id = k->first; !store_write(k->s, killed_tx, &id); id += k->step)
        acknowledge(k->pipe, 'm', id);
    _exit(10);
}

static void *blob_thread(void *arg)
{
    struct killed *k = arg;
    auto_arena struct arena *a = arena_new(0);
    struct str sha;
    for (int64_t id = k->first; !blob_put(store_blobs(k->s), a, blob_of(a, id), &sha); id += k->step) {
        acknowledge(k->pipe, 'b', id);
        arena_reset(a);
    }
    _exit(11);
}

static void *kv_thread(void *arg)
{
    struct killed *k = arg;
    auto_arena struct arena *a = arena_new(0);
    for (int64_t id = k->first;; id += k->step) {
        struct kv_item items[KEYS];
        for (int i = 0; i < KEYS; i++)
            items[i] = (struct kv_item){ .key = key_of(a, id, i),
                                         .value = S("some value or other"),
                                         .version = id };
        if (kv_put(store_kv(k->s), items, KEYS, NULL))
            _exit(12);
        acknowledge(k->pipe, 'k', id);
        arena_reset(a);
    }
}

static _Noreturn void child(const char *dir, int pipe, int64_t first)
{
    struct store *s;
    struct store_config cfg = { .dir = str_of(dir), .kv_bytes_max = (size_t)4 << 30 };
    if (store_open(&cfg, &s) ||
        store_ddl(s, "kill",
                  "create table if not exists killed(tx integer, n integer, pad text, primary key(tx, n));"))
        _exit(8);
    acknowledge(pipe, 'o', 0);
    static void *(*const threads[])(void *) = { meta_thread, meta_thread, meta_thread,
                                                kv_thread,   kv_thread,   blob_thread };
    static struct killed k[6];
    pthread_t t[6];
    for (int i = 0; i < 6; i++) {
        k[i] = (struct killed){ s, pipe, first + i, 6 };
        if (thread_start("killed", threads[i], &k[i], &t[i]))
            _exit(7);
    }
    for (;;)
        pause();
}

/* ---- the parent ---- */

struct acks {
    struct ack *v;
    size_t n, cap;
};

/* Lets a child live for a moment and kills it; what it acknowledged. */
static void round_run(struct arena *a, const char *dir, int64_t first, uint64_t *dice, struct acks *out)
{
    int ends[2];
    struct ack ack;
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[0]);
        child(dir, ends[1], first);
    }
    close(ends[1]);
    CHECK(read(ends[0], &ack, sizeof ack) == sizeof ack && ack.what == 'o');
    int64_t end = mono_ns() + (int64_t)(splitmix(dice) % LIFE_US_MAX) * 1000;
    while (mono_ns() < end && read(ends[0], &ack, sizeof ack) == sizeof ack)
        push(a, out, ack);
    kill(pid, SIGKILL);
    while (read(ends[0], &ack, sizeof ack) == sizeof ack)
        push(a, out, ack);
    close(ends[0]);
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    cr_assert(WIFSIGNALED(status), "the child ended by itself: %d", WEXITSTATUS(status));
}

static void check_ack(struct store *s, struct arena *a, struct ack ack)
{
    struct object o;
    struct str sha, value;
    long long id = ack.id;
    err e = NULL;
    if (ack.what == 'm') {
        e = object_get(s, a, S("Killed"), S("p"), fmt(a, "o%lld", id), &o);
    } else if (ack.what == 'b') {
        struct str bytes = blob_of(a, ack.id);
        sha = sha256_hex(a, bytes);
        e = blob_get(store_blobs(s), a, sha, &value);
    } else {
        e = kv_get(store_kv(s), a, key_of(a, ack.id, KEYS - 1), &value, NULL);
    }
    if (e)
        cr_assert_fail("acknowledged %c %lld is lost: %.*s", (char)ack.what, id, STR(e->text));
}

static err on_half(void *arg, const struct row *r)
{
    int64_t *n = arg;
    cr_assert_eq(row_i64(r, 1), rows_of(row_i64(r, 0)), "transaction %lld is there by half",
                 (long long)row_i64(r, 0));
    ++*n;
    return NULL;
}

static void check_meta(struct store *s, int64_t first)
{
    int64_t n = 0;
    CHECK_OK(store_query(s, "select tx, count(*) from killed where tx >= ?1 group by tx", BIND(B_I(first)),
                         on_half, &n));
    int64_t all = count_of(s, "select count(distinct tx) from killed");
    CHECK(all == count_of(s, "select count(*) from resource"));
    CHECK(all == count_of(s, "select count(*) from event") &&
          all == count_of(s, "select ifnull(max(seq), 0) from event"));
    CHECK(event_last(s) == all);
}

static bool on_key(void *arg, struct str key, struct str value, int64_t version)
{
    int64_t *seen = arg; /* the id, and how many of its keys */
    (void)key, (void)value;
    if (seen[0] != version) {
        cr_assert(seen[1] % KEYS == 0, "keyed rows of %lld are there by half", (long long)seen[0]);
        seen[0] = version;
    }
    seen[1]++;
    return true;
}

static void check_kv(struct store *s, struct arena *a, int64_t first)
{
    int64_t seen[2] = { 0 };
    struct kv_snap *snap;
    CHECK_OK(kv_snap_begin(store_kv(s), &snap));
    CHECK_OK(kv_snap_scan(snap, S("k/"), key_of(a, first, 0), on_key, seen));
    CHECK(seen[1] % KEYS == 0);
    kv_snap_end(snap);
}

static void check_round(const char *dir, int64_t first, const struct acks *acks)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s = store_at(dir);
    for (size_t i = 0; i < acks->n; i++)
        check_ack(s, a, acks->v[i]);
    check_meta(s, first);
    check_kv(s, a, first);
    store_close(s);
}

TEST(nothing_acknowledged_is_lost_and_nothing_is_half)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    uint64_t dice = (uint64_t)now_us();
    size_t acknowledged = 0;
    for (int64_t i = 0; i < ROUNDS; i++) {
        struct acks acks = { 0 };
        round_run(a, dir, i * IDS, &dice, &acks);
        check_round(dir, i * IDS, &acks);
        acknowledged += acks.n;
    }
    struct store *s = store_at(dir);
    struct strs lines = { 0 };
    CHECK_OK(store_check(s, a, &lines));
    for (size_t i = 0; i < lines.n; i++) {
        CHECK(!str_ends(lines.v[i], S("is damaged")));
        if (getenv("DHOW_TEST_VERBOSE"))
            printf("%.*s\n", STR(lines.v[i]));
    }
    if (getenv("DHOW_TEST_VERBOSE"))
        printf("%d rounds, %zu writes acknowledged\n", ROUNDS, acknowledged);
    CHECK(acknowledged > ROUNDS);
    store_close(s);
}
