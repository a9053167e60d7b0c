// SPDX-License-Identifier: Apache-2.0
#define SUITE store
#include "help.h"
#include <sys/stat.h>
#include <sys/wait.h>
#include <utime.h>

TEST(a_second_daemon_is_told_the_pid)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s = store_at(dir), *other = NULL;
    err e = store_open(&(struct store_config){ .dir = str_of(dir) }, &other);
    CHECK(e && e->code == UNAVAILABLE && !other);
    struct str want = fmt(a, "%s is in use by process %d", dir, (int)getpid());
    CHECK_STR(e->text, want);
    store_close(s);
    store_close(store_at(dir));
}

TEST(another_format_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s;
    struct store_config cfg = { .dir = str_of(dir) };
    CHECK_OK(file_write(fmtz(a, "%s/format", dir), S("dhow-store 2\n")));
    err e = store_open(&cfg, &s);
    CHECK(e && e->code == INVALID && strstr(e->text.p, "dhow-store 2"));
    CHECK_OK(file_write(fmtz(a, "%s/format", dir), S("dhow-store 1\n")));
    CHECK_OK(store_open(&cfg, &s));
    store_close(s);
}

TEST(a_folder_of_others_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s;
    CHECK_OK(file_write(fmtz(a, "%s/thesis.tex", dir), S("x")));
    CHECK_ERR(store_open(&(struct store_config){ .dir = str_of(dir) }, &s), INVALID);
}

TEST(a_missing_folder_is_not_made_for_reading)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s;
    struct str dir = fmt(a, "%s/none", folder_new(a));
    CHECK_ERR(store_open(&(struct store_config){ .dir = dir, .read_only = true }, &s), NOT_FOUND);
}

/* In a process of its own, as LMDB wants it. */
static int reader_process(const char *dir, int64_t after)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s;
    struct object o;
    struct str value;
    int64_t version;
    if (store_open(&(struct store_config){ .dir = str_of(dir), .read_only = true }, &s))
        return 1;
    if (object_get(s, a, S("Model"), S("p"), S("m"), &o) || !str_is(o.spec, "{\"x\":1}"))
        return 2;
    if (kv_get(store_kv(s), a, S("k"), &value, &version) || !str_is(value, "v"))
        return 3;
    err e = put_spec(s, "m", "{}", -1, NULL);
    if (!e || e->code != INVALID)
        return 4;
    if (event_last(s) != after || event_wait(s, after, 10000) != after + 1)
        return 5;
    store_close(s);
    return 0;
}

TEST(a_reader_runs_beside_the_daemon)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s = store_at(dir);
    CHECK_OK(put_spec(s, "m", "{\"x\":1}", 0, NULL));
    CHECK_OK(kv_put(store_kv(s), &(struct kv_item){ .key = S("k"), .value = S("v") }, 1, NULL));
    int64_t last = event_last(s);
    store_close(s); /* no fork with LMDB open */
    pid_t child = fork();
    if (child == 0) {
        usleep(100000);
        _exit(reader_process(dir, last));
    }
    s = store_at(dir);
    usleep(400000);
    CHECK_OK(put_spec(s, "n", "{}", 0, NULL));
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    cr_assert_eq(status, 0, "reader said %d", WEXITSTATUS(status));
    store_close(s);
}

static err fail_half(struct tx *tx, void *arg)
{
    TRY(object_put(tx, S("ann"), arg, 0, NULL, NULL));
    return err_field(err_hint(err_new(GATE, "no %d", 42), "try %d", 43), S("spec.x"));
}

TEST(a_closure_that_fails_takes_its_changes_back)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s = store_at(folder_new(a));
    struct object o = { .kind = S("Model"), .project = S("p"), .name = S("m") };
    CHECK_OK(put_spec(s, "before", "{}", 0, NULL));
    int64_t last = event_last(s);
    err e = store_write(s, fail_half, &o);
    CHECK(e && e->code == GATE);
    CHECK_STR(e->text, "no 42");
    CHECK_STR(e->hint, "try 43");
    CHECK_STR(e->field, "spec.x");
    CHECK_ERR(object_get(s, a, o.kind, o.project, o.name, &o), NOT_FOUND);
    CHECK(event_last(s) == last);
    CHECK_OK(put_spec(s, "after", "{}", 0, NULL));
    CHECK(event_last(s) == last + 1);
    store_close(s);
}

static err break_unique(struct tx *tx, void *arg)
{
    (void)arg;
    TRY(tx_exec(tx, "insert into t values(1)", NO_BIND, NULL));
    return tx_exec(tx, "insert into t values(1)", NO_BIND, NULL);
}

static err on_first(void *arg, const struct row *r)
{
    (void)arg, (void)r;
    FAIL(CANCELLED, "enough");
}

TEST(statements_say_what_went_wrong)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s = store_at(folder_new(a));
    int64_t n = 0;
    CHECK_OK(store_ddl(s, "test",
                       "create table if not exists t(x integer primary key); create view if not exists v as "
                       "select x + 1 as y from t;"));
    CHECK_ERR(store_ddl(s, "test", "create table u(x integer); nonsense;"), INTERNAL);
    CHECK_ERR(store_one(s, "select * from u", NO_BIND, on_number, &n), INTERNAL);
    CHECK_ERR(store_write(s, break_unique, NULL), CONFLICT);
    CHECK_ERR(store_one(s, "select x from t", NO_BIND, on_number, &n), NOT_FOUND);
    CHECK_ERR(store_query(s, "select 1 union select 2", NO_BIND, on_first, NULL), CANCELLED);
    CHECK_ERR(store_one(s, "select ?1", NO_BIND, on_number, &n), INTERNAL);
    CHECK_ERR(store_one(s, "insert into t values(5)", NO_BIND, NULL, NULL),
              INTERNAL); /* readers do not write */
    CHECK_OK(store_one(s, "select ?1 + ?2", BIND(B_I(40), B_I(2)), on_number, &n));
    CHECK(n == 42);
    store_close(s);
}

static err spoil_events(struct tx *tx, void *arg)
{
    return tx_exec(tx, arg, NO_BIND, NULL);
}

TEST(events_cannot_be_changed)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s = store_at(folder_new(a));
    CHECK_OK(put_spec(s, "m", "{}", 0, NULL));
    CHECK_ERR(store_write(s, spoil_events, (void *)(uintptr_t) "update event set who = 'eve'"), INVALID);
    CHECK_ERR(store_write(s, spoil_events, (void *)(uintptr_t) "delete from event"), INVALID);
    CHECK(count_of(s, "select count(*) from event where who = 'ann'") == 1);
    store_close(s);
}

static err tell(struct tx *tx, void *arg)
{
    return event_append(tx, arg, NULL);
}

TEST(events_are_listed_by_what_they_are_about)
{
    auto_arena struct arena *a = arena_new(0);
    struct store *s = store_at(folder_new(a));
    CHECK_OK(put_spec(s, "m", "{}", 0, NULL));
    CHECK_OK(put_spec(s, "n", "{}", 0, NULL));
    CHECK_OK(put_spec(s, "m", "{\"x\":1}", -1, NULL));
    struct event other = {
        .type = S("drift.found"), .kind = S("Monitor"), .project = S("p"), .name = S("m")
    };
    CHECK_OK(store_write(s, tell, &other));
    struct events ev;
    CHECK_OK(event_list(s, a, 0, S("Model"), S("p"), S("m"), 10, &ev));
    CHECK(ev.n == 2 && ev.v[0].seq == 1 && ev.v[1].seq == 3 && ev.v[0].time <= ev.v[1].time);
    CHECK_STR(ev.v[1].type, "updated");
    CHECK_STR(ev.v[1].data, "{\"rev\":3}");
    CHECK_STR(ev.v[1].who, "ann");
    CHECK_OK(event_list(s, a, 1, S(""), S("p"), S(""), 2, &ev));
    CHECK(ev.n == 2 && ev.v[0].seq == 2);
    CHECK_OK(event_list(s, a, 0, S("Monitor"), S(""), S(""), 10, &ev));
    CHECK(ev.n == 1);
    CHECK_STR(ev.v[0].data, "{}");
    store_close(s);
}

TEST(events_and_their_numbers_survive_a_restart)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s = store_at(dir);
    CHECK_OK(put_spec(s, "m", "{}", 0, NULL));
    store_close(s);
    s = store_at(dir);
    CHECK(event_last(s) == 1);
    CHECK_OK(put_spec(s, "n", "{}", 0, NULL));
    CHECK(event_last(s) == 2);
    store_close(s);
}

TEST(old_strays_are_swept_and_young_ones_kept)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    store_close(store_at(dir));
    const char *old = fmtz(a, "%s/tmp/old", dir), *young = fmtz(a, "%s/tmp/young", dir);
    CHECK_OK(file_write(old, S("x")));
    CHECK_OK(file_write(young, S("x")));
    struct utimbuf then = { .actime = time(NULL) - 90000, .modtime = time(NULL) - 90000 };
    CHECK(utime(old, &then) == 0);
    store_close(store_at(dir));
    CHECK(!file_exists(old) && file_exists(young));
}

TEST(check_tells_what_is_there)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = folder_new(a);
    struct store *s = store_at(dir);
    struct str sha;
    const char *path;
    CHECK_OK(put_spec(s, "m", "{}", 0, NULL));
    CHECK_OK(blob_put(store_blobs(s), a, S("fine"), &sha));
    CHECK_OK(blob_put(store_blobs(s), a, S("to be damaged"), &sha));
    CHECK_OK(blob_path(store_blobs(s), a, sha, &path));
    CHECK(chmod(path, 0600) == 0);
    CHECK_OK(file_write(path, S("To be damaged")));
    struct strs lines = { 0 };
    err e = store_check(s, a, &lines);
    CHECK(e && e->code == INTERNAL);
    CHECK_STR(e->text, fmtz(a, "blobs: 1 of 2 are damaged, first: %.*s", STR(sha)));
    CHECK(lines.n == 4);
    CHECK_STR(lines.v[0], "metadata: 1 resources, 1 events, 0 faults");
    CHECK(str_starts(lines.v[1], S("keyed rows: 0 rows")));
    CHECK(str_starts(lines.v[2], S("keyed rows: 0 written lately")));
    CHECK_STR(lines.v[3], "blobs: 2, of which 2 were read and 1 are damaged; 0 temporary files");
    store_close(s);
}
