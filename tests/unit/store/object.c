// SPDX-License-Identifier: Apache-2.0
#define SUITE store_object
#include "help.h"

struct fixture {
    struct arena *a;
    struct store *s;
};

static struct fixture up(void)
{
    struct arena *a = arena_new(0);
    return (struct fixture){ a, store_at(folder_new(a)) };
}

static void down(struct fixture f)
{
    store_close(f.s);
    arena_free(f.a);
    err_reset();
}

static err remove_run(struct tx *tx, void *arg)
{
    struct putting *p = arg;
    return object_delete(tx, S("ann"), p->in.kind, p->in.project, p->in.name, p->rev);
}

static err status_run(struct tx *tx, void *arg)
{
    struct putting *p = arg;
    return object_status(tx, p->in.kind, p->in.project, p->in.name, p->rev, p->in.status);
}

static struct object get(struct fixture f, const char *name)
{
    struct object o;
    CHECK_OK(object_get(f.s, f.a, S("Model"), S("p"), str_of(name), &o));
    return o;
}

TEST(put_inserts_then_replaces)
{
    struct fixture f = up();
    struct putting p;
    CHECK_OK(put_spec(f.s, "m", "{\"x\":1}", 0, &p));
    CHECK(p.changed);
    struct object o = get(f, "m");
    CHECK(o.id == 1 && o.generation == 1 && o.rev == p.out.rev && o.created > 0 && o.updated == o.created);
    CHECK_STR(o.spec, "{\"x\":1}");
    CHECK_STR(o.labels, "{}");
    CHECK_STR(o.status, "{}");
    CHECK_OK(put_spec(f.s, "m", "{\"x\":2}", o.rev, &p));
    struct object o2 = get(f, "m");
    CHECK(o2.id == o.id && o2.generation == 2 && o2.rev > o.rev && o2.created == o.created);
    CHECK_STR(o2.spec, "{\"x\":2}");
    down(f);
}

TEST(put_checks_the_rev)
{
    struct fixture f = up();
    CHECK_ERR(put_spec(f.s, "m", "{}", 7, NULL), NOT_FOUND);
    CHECK_OK(put_spec(f.s, "m", "{}", -1, NULL));
    CHECK_ERR(put_spec(f.s, "m", "{\"y\":1}", 0, NULL), CONFLICT);
    CHECK_ERR(put_spec(f.s, "m", "{\"y\":1}", 99, NULL), CONFLICT);
    CHECK_OK(put_spec(f.s, "m", "{\"y\":1}", -1, NULL));
    CHECK(count_of(f.s, "select count(*) from event") == 2);
    down(f);
}

TEST(put_of_the_same_changes_nothing)
{
    struct fixture f = up();
    struct putting p;
    CHECK_OK(put_spec(f.s, "m", "{\"x\":1}", 0, NULL));
    int64_t last = event_last(f.s);
    CHECK_OK(put_spec(f.s, "m", "{\"x\":1}", -1, &p));
    CHECK(!p.changed && event_last(f.s) == last && p.out.rev == last);
    p = (struct putting){ .in = { .kind = S("Model"),
                                  .project = S("p"),
                                  .name = S("m"),
                                  .spec = S("{\"x\":1}"),
                                  .labels = S("{\"a\":\"b\"}") },
                          .rev = -1 };
    CHECK_OK(store_write(f.s, putting_run, &p));
    CHECK(p.changed && p.out.generation == 1 && p.out.rev > last);
    down(f);
}

TEST(status_has_its_own_event_and_keeps_the_generation)
{
    struct fixture f = up();
    CHECK_OK(put_spec(f.s, "m", "{}", 0, NULL));
    struct putting p = {
        .in = { .kind = S("Model"), .project = S("p"), .name = S("m"), .status = S("{\"s\":1}") }, .rev = 2
    };
    CHECK_ERR(store_write(f.s, status_run, &p), CONFLICT);
    p.rev = 1;
    CHECK_OK(store_write(f.s, status_run, &p));
    int64_t last = event_last(f.s);
    CHECK_OK(store_write(f.s, status_run, &p)); /* the same again */
    struct object o = get(f, "m");
    CHECK(o.generation == 1 && o.rev == last && event_last(f.s) == last);
    CHECK_STR(o.status, "{\"s\":1}");
    down(f);
}

TEST(delete_and_make_again_is_another)
{
    struct fixture f = up();
    struct putting p = { .in = { .kind = S("Model"), .project = S("p"), .name = S("m") }, .rev = 5 };
    CHECK_ERR(store_write(f.s, remove_run, &p), NOT_FOUND);
    CHECK_OK(put_spec(f.s, "m", "{}", 0, NULL));
    struct object old = get(f, "m"), gone;
    CHECK_ERR(store_write(f.s, remove_run, &p), CONFLICT);
    p.rev = old.rev;
    CHECK_OK(store_write(f.s, remove_run, &p));
    CHECK_ERR(object_get(f.s, f.a, S("Model"), S("p"), S("m"), &gone), NOT_FOUND);
    CHECK_OK(put_spec(f.s, "m", "{}", 0, NULL));
    CHECK(get(f, "m").id > old.id && get(f, "m").rev > old.rev);
    down(f);
}

TEST(list_pages_in_order_of_name)
{
    struct fixture f = up();
    const char *names[] = { "c", "a", "e", "b", "d" };
    for (size_t i = 0; i < 5; i++)
        CHECK_OK(put_spec(f.s, names[i], "{}", 0, NULL));
    struct putting other = { .in = { .kind = S("Model"), .project = S("q"), .name = S("a") }, .rev = 0 };
    CHECK_OK(store_write(f.s, putting_run, &other));
    struct objects page;
    CHECK_OK(object_list(f.s, f.a, S("Model"), S("p"), S("b"), 2, &page));
    CHECK(page.n == 2);
    CHECK_STR(page.v[0].name, "c");
    CHECK_STR(page.v[1].name, "d");
    CHECK_OK(object_list(f.s, f.a, S("Model"), S(""), S(""), 100, &page));
    CHECK(page.n == 6);
    CHECK_STR(page.v[5].project, "q");
    CHECK_OK(object_list(f.s, f.a, S("Model"), S(""), S("p/d"), 100, &page));
    CHECK(page.n == 2);
    CHECK_STR(page.v[0].name, "e");
    CHECK_OK(object_list(f.s, f.a, S("Nothing"), S(""), S(""), 100, &page));
    CHECK(page.n == 0);
    down(f);
}

TEST(project_is_part_of_the_key)
{
    struct fixture f = up();
    struct putting p = { .in = { .kind = S("Zone"), .name = S("eu") }, .rev = 0 };
    CHECK_OK(store_write(f.s, putting_run, &p));
    struct objects page;
    CHECK_OK(object_list(f.s, f.a, S("Zone"), S(""), S("dz"), 10, &page));
    CHECK(page.n == 1);
    CHECK_OK(object_list(f.s, f.a, S("Zone"), S(""), S("eu"), 10, &page));
    CHECK(page.n == 0);
    down(f);
}
