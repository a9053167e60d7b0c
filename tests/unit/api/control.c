// SPDX-License-Identifier: Apache-2.0
/* A reconciler that makes a book's readers equal to its pages, and fails when told to. */
#define SUITE control
#include "help.h"

struct fake {
    struct store *store;
    pthread_mutex_t m;
    int calls, first, gone, custom, timed, failures;
    int fail_left;    /* so many steps fail */
    int64_t again_ms; /* what each step asks for */
    bool storm;       /* writes a new status each time, then fails */
    int64_t slow_us;
    struct control *control;
};

static err fake_count(struct fake *f, const struct object *o, const struct event *ev, bool *fails)
{
    LOCKED(&f->m);
    f->calls++;
    f->first += !ev;
    f->gone += o->id == 0;
    f->custom += ev && str_is(ev->type, "book.praised");
    *fails = f->fail_left > 0 && f->fail_left-- > 0;
    f->failures += *fails;
    return NULL;
}

static err fake_step(void *self, struct arena *a, const struct object *o, const struct event *ev,
                     int64_t *again_ms)
{
    struct fake *f = self;
    struct book_spec spec;
    struct book_status status = { 0 };
    bool fails;
    TRY(fake_count(f, o, ev, &fails));
    if (f->slow_us)
        usleep((useconds_t)f->slow_us);
    if (f->storm) {
        status.note = fmt(a, "%d", f->calls);
        (void)resource_status(f->store, a, &book_resource, o->project, o->name, -1, &status);
    }
    if (fails)
        FAIL(UNAVAILABLE, "not now");
    *again_ms = f->again_ms;
    if (o->id == 0 || !str_is(o->kind, "Book") || f->storm)
        return NULL;
    CHECK_OK(schema_read_text(&book_spec_schema, a, S("spec"), o->spec, READ_LENIENT, &spec));
    status.readers = spec.pages;
    return resource_status(f->store, a, &book_resource, o->project, o->name, o->generation, &status);
}

static const char *const fake_kinds[] = { "Book", "Author", NULL };

static void fake_start(struct world *w, struct fake *f)
{
    f->store = w->store;
    pthread_mutex_init(&f->m, NULL);
    struct reconciler list[] = { { "fake", fake_kinds, fake_step, f } };
    CHECK_OK(control_start(w->store, list, 1, &f->control));
}

static int read_int(struct fake *f, const int *v)
{
    LOCKED(&f->m);
    return *v;
}

/* Waits until *v is at least n. */
static void wait_for(struct fake *f, const int *v, int n)
{
    for (int i = 0; i < 2000 && read_int(f, v) < n; i++)
        usleep(5000);
    cr_assert(read_int(f, v) >= n, "%d instead of %d", read_int(f, v), n);
}

static void wait_readers(struct world *w, const char *name, int64_t n)
{
    struct book_status s = { 0 };
    for (int i = 0; i < 2000; i++, usleep(5000)) {
        CHECK_OK(resource_get(w->store, w->a, &book_resource, S("default"), str_of(name), NULL, NULL, &s));
        if (s.readers == n)
            return;
    }
    cr_assert_fail("%s has %lld readers", name, (long long)s.readers);
}

static void book_make(struct world *w, const char *name, int64_t pages)
{
    struct book_spec spec = { .title = S("t"), .pages = pages };
    CHECK_OK(resource_create(w->store, w->a, &book_resource, S("ann"), S("default"), str_of(name), &spec));
}

TEST(what_was_there_and_what_comes_is_reconciled)
{
    struct world *w = world_new();
    struct fake f = { 0 };
    book_make(w, "old", 7);
    fake_start(w, &f);
    wait_readers(w, "old", 7);
    book_make(w, "new", 8);
    wait_readers(w, "new", 8);
    admin(w, M_DELETE, BOOKS "/new", NULL, 204);
    wait_for(&f, &f.gone, 1);
    control_stop(f.control);
    world_free(w);
}

TEST(more_objects_than_one_page)
{
    enum { N = 1100 };
    struct world *w = world_new();
    struct fake f = { 0 };
    for (int i = 0; i < N; i++)
        book_make(w, fmtz(w->a, "b%d", i), 5);
    fake_start(w, &f);
    wait_for(&f, &f.first, N);
    control_stop(f.control);
    CHECK(f.first == N);
    world_free(w);
}

TEST(a_failure_is_tried_again_with_a_growing_pause)
{
    struct world *w = world_new();
    struct fake f = { .fail_left = 3 };
    log_setup(LOG_ERROR, false);
    fake_start(w, &f);
    int64_t began = mono_ns();
    book_make(w, "sea", 7);
    wait_readers(w, "sea", 7);
    CHECK(mono_ns() - began >= 700000000ll); /* 100 + 200 + 400 ms */
    control_stop(f.control);
    CHECK(f.failures == 3);
    world_free(w);
}

TEST(a_step_that_fails_after_writing_does_not_spin)
{
    struct world *w = world_new();
    struct fake f = { .fail_left = 1000000, .storm = true };
    fake_start(w, &f);
    book_make(w, "sea", 7);
    sleep(1);
    control_stop(f.control);
    CHECK(f.calls >= 3 && f.calls <= 20);
    world_free(w);
}

TEST(a_timer_calls_again_and_a_poke_at_once)
{
    struct world *w = world_new();
    struct fake f = { .again_ms = 50 };
    book_make(w, "sea", 7);
    fake_start(w, &f);
    wait_for(&f, &f.first, 5);
    control_stop(f.control);
    f.again_ms = 3600000;
    f.calls = f.first = 0;
    fake_start(w, &f);
    wait_for(&f, &f.first, 1);
    for (int i = 2; i < 20; i++) {
        control_poke(f.control, S("Book"), S("default"), S("sea"));
        wait_for(&f, &f.first, i);
    }
    control_stop(f.control);
    world_free(w);
}

TEST(events_that_are_no_changes_come_one_by_one)
{
    struct world *w = world_new();
    struct fake f = { .slow_us = 20000, .fail_left = 1 };
    fake_start(w, &f);
    book_make(w, "sea", 7);
    for (int i = 0; i < 10; i++)
        CHECK_OK(resource_event(w->store, &book_resource, S("ann"), S("default"), S("sea"), "book.praised",
                                S("{\"n\":1}")));
    wait_for(&f, &f.custom, 10);
    control_stop(f.control);
    world_free(w);
}

TEST(changes_of_one_object_are_taken_together)
{
    struct world *w = world_new();
    struct fake f = { .slow_us = 200000 };
    fake_start(w, &f);
    book_make(w, "sea", 7);
    for (int i = 0; i < 50; i++)
        CHECK(call(w, w->admin, M_PUT, BOOKS "/sea",
                   fmt(w->a, BOOK("sea", "{\"title\":\"t%d\",\"pages\":7}"), i))
                  .status == 200);
    wait_readers(w, "sea", 7);
    control_stop(f.control);
    CHECK(f.calls < 30);
    world_free(w);
}

TEST(a_stop_leaves_timers_behind)
{
    struct world *w = world_new();
    struct fake f = { .again_ms = 100000 };
    for (int i = 0; i < 20; i++)
        book_make(w, fmtz(w->a, "b%d", i), 5);
    fake_start(w, &f);
    wait_for(&f, &f.first, 20);
    int64_t began = mono_ns();
    control_stop(f.control);
    CHECK(mono_ns() - began < 1000000000ll);
    control_stop(NULL);
    world_free(w);
}
