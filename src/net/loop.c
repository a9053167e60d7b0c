// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    SPARE_BYTES_MAX = 64 << 10,
    ALONE_MS = 20,
    UNTOLD_MAX =
        64
        << 10, /* bytes that a loop counts for itself, so that loops do not write to one place all the time */
};
static const size_t arena_bytes_max = (size_t)1 << 40; /* so that arena_left() tells what was used */

/* ---- posts: from any thread to the loop's ---- */

/* Neither a lock nor uv_async_send(): who wakes the loop is often put aside for it at once, and the loop would then wait
 * for what the other still holds. */
void loop_post(struct loop *l, struct post *p)
{
    static const uint64_t one = 1;
    atomic_fetch_add_explicit(&l->posting, 1, memory_order_relaxed);
    struct post *last = atomic_load_explicit(&l->posts, memory_order_relaxed);
    do
        p->next = last;
    while (!atomic_compare_exchange_weak_explicit(&l->posts, &last, p, memory_order_release,
                                                  memory_order_relaxed));
    if (!last) /* p itself may be gone from here on */
        while (write(l->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
            ;
    atomic_fetch_sub_explicit(&l->posting, 1, memory_order_release); /* see loop_done() */
}

/* In the order in which they came. */
static struct post *posts_take(struct loop *l)
{
    struct post *p = atomic_exchange_explicit(&l->posts, NULL, memory_order_acquire), *all = NULL;
    for (struct post *before; p; p = before) {
        before = p->next;
        p->next = all;
        all = p;
    }
    return all;
}

static void posts_run(struct loop *l)
{
    for (struct post *p = posts_take(l), *next; p; p = next) {
        next = p->next;
        p->run(p);
    }
}

static void on_wake(uv_poll_t *wake, int status, int events)
{
    struct loop *l = wake->data;
    uint64_t times;
    (void)status;
    (void)events;
    (void)!read(l->wake_fd, &times, sizeof times);
    posts_run(l);
}

/* ---- arenas: kept warm, unless one grew big ---- */

struct arena *loop_arena(struct loop *l)
{
    return l->spare_n ? l->spare[--l->spare_n] : arena_new(arena_bytes_max);
}

size_t loop_arena_used(const struct arena *a)
{
    return arena_bytes_max - arena_left(a);
}

void loop_arena_back(struct loop *l, struct arena *a)
{
    bool small = loop_arena_used(a) <= SPARE_BYTES_MAX;
    if (small && l->spare_n < sizeof l->spare / sizeof *l->spare) {
        arena_reset(a);
        l->spare[l->spare_n++] = a;
    } else {
        arena_free(a);
    }
}

bool loop_hold(struct loop *l, int64_t bytes)
{
    struct net *net = l->net;
    int64_t told = bytes;
    if (pthread_equal(l->thread, pthread_self())) {
        told = l->untold += bytes;
        if (told < UNTOLD_MAX && told > -UNTOLD_MAX)
            told = 0;
        l->untold -= told;
    }
    if (told)
        atomic_fetch_add_explicit(&net->held, told, memory_order_relaxed);
    return atomic_load_explicit(&net->held, memory_order_relaxed) <= (int64_t)net->limits.held_bytes_max;
}

/* ---- the loop ---- */

static void on_connection(uv_stream_t *listener, int status)
{
    if (status == 0)
        conn_accept(listener->data);
}

/* ---- the end of a round ---- */

void loop_round_run(struct loop *l)
{
    while (l->tasks) {
        struct round_task *t = l->tasks;
        l->tasks = t->next;
        if (!l->tasks)
            l->tasks_end = &l->tasks;
        t->run(t);
    }
}

static void on_round(uv_check_t *round)
{
    loop_round_run(round->data);
}

void loop_round_end(struct loop *l, struct round_task *t)
{
    t->next = NULL;
    *l->tasks_end = t;
    l->tasks_end = &t->next;
}

void req_round_end(struct req *r, struct round_task *t)
{
    loop_round_end(r->out->loop, t);
}

bool req_on_loop(const struct req *r)
{
    return pthread_equal(r->out->loop->thread, pthread_self());
}

void loop_asked(struct loop *l, const struct conn *c)
{
    if (l->asked == c)
        return;
    l->asked = c;
    l->asked_since = (int64_t)uv_now(&l->uv);
}

bool req_alone(const struct req *r)
{
    const struct loop *l = r->out->loop;
    const struct conn *c = r->out->conn;
    return c && !c->codec->many && c->line_n == 1 && l->asked == c &&
           (int64_t)uv_now(&l->uv) - l->asked_since >= ALONE_MS;
}

int req_loop(const struct req *r)
{
    return (int)(r->out->loop - r->out->loop->net->loops);
}

static void on_tick(uv_timer_t *tick)
{
    struct loop *l = tick->data;
    int64_t now = (int64_t)uv_now(&l->uv);
    bool cut = l->stopping && now >= l->stop_due;
    for (struct conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        if (cut)
            conn_close(c);
        else
            conn_tick(c, now);
    }
    loop_round_run(l); /* the round's end may be far: the loop sleeps first */
}

void loop_check_drained(struct loop *l)
{
    if (!l->stopping || l->drained || l->conns)
        return;
    l->drained = true;
    LOCKED(&l->net->lock);
    l->net->drained_n++;
    pthread_cond_signal(&l->net->changed);
}

static void on_listener_closed(uv_handle_t *h)
{
    loop_check_drained(h->data);
}

static void stop_now(struct post *p)
{
    struct loop *l = (struct loop *)((char *)p - offsetof(struct loop, stop_post));
    l->stopping = true;
    uv_update_time(&l->uv);
    l->stop_due = (int64_t)uv_now(&l->uv) + l->net->limits.drain_ms_max;
    for (struct conn *c = l->conns, *next; c; c = next) {
        next = c->next;
        conn_stop(c);
    }
    uv_close((uv_handle_t *)&l->listener, on_listener_closed);
}

void loop_stop(struct loop *l)
{
    l->stop_post.run = stop_now;
    loop_post(l, &l->stop_post);
}

static void quit_now(struct post *p)
{
    struct loop *l = (struct loop *)((char *)p - offsetof(struct loop, quit_post));
    uv_close((uv_handle_t *)&l->tick, NULL);
    uv_close((uv_handle_t *)&l->round, NULL);
    uv_close((uv_handle_t *)&l->late, NULL);
    uv_close((uv_handle_t *)&l->wake, NULL);
}

static void *loop_main(void *arg)
{
    struct loop *l = arg;
    uv_run(&l->uv, UV_RUN_DEFAULT);
    posts_run(l); /* what streams posted while they were told that it ends */
    err_reset();
    return NULL;
}

static int64_t tick_ms(const struct net_limits *m)
{
    const int64_t all[] = { m->header_ms_max, m->body_ms_max, m->idle_ms_max, m->write_ms_max,
                            m->drain_ms_max };
    int64_t least = 2000;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        least = all[i] < least ? all[i] : least;
    return least / 4 < 10 ? 10 : least / 4;
}

err loop_init(struct loop *l, struct net *net, int fd)
{
    l->net = net;
    l->tasks_end = &l->tasks;
    random_bytes(&l->seed, sizeof l->seed);
    if (uv_loop_init(&l->uv))
        FAIL(INTERNAL, "cannot make an event loop");
    l->made = true;
    l->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->in = malloc(IN_SIZE);
    l->out = malloc(OUT_SIZE);
    l->plain = net->tls ? malloc(IN_SIZE) : l->in;
    l->wake.data = l->tick.data = l->late.data = l->round.data = l->listener.data = l;
    uint64_t tick = (uint64_t)tick_ms(&net->limits);
    int failed = l->in && l->out && l->plain ? 0 : UV_ENOMEM;
    if (!failed)
        failed = l->wake_fd < 0 ? UV_EMFILE : uv_poll_init(&l->uv, &l->wake, l->wake_fd);
    if (!failed)
        failed = uv_poll_start(&l->wake, UV_READABLE, on_wake);
    uv_timer_init(&l->uv, &l->tick);
    uv_check_init(&l->uv, &l->round);
    uv_check_start(&l->round, on_round);
    uv_timer_init(&l->uv, &l->late);
    l->late_ns = INT64_MAX;
    uv_tcp_init(&l->uv, &l->listener);
    if (!failed)
        failed = uv_timer_start(&l->tick, on_tick, tick, tick);
    int mine = dup(fd);
    if (!failed)
        failed = mine < 0 ? UV_EMFILE : uv_tcp_open(&l->listener, mine);
    if (!failed)
        failed = uv_listen((uv_stream_t *)&l->listener, 1024, on_connection);
    if (failed)
        FAIL(INTERNAL, "cannot listen: %s", uv_strerror(failed));
    return NULL;
}

err loop_start(struct loop *l)
{
    TRY(thread_start("net", loop_main, l, &l->thread));
    l->runs = true;
    return NULL;
}

static void close_handle(uv_handle_t *h, void *arg)
{
    (void)arg;
    if (!uv_is_closing(h))
        uv_close(h, NULL);
}

void loop_done(struct loop *l)
{
    if (!l->made)
        return;
    if (l->runs) {
        l->quit_post.run = quit_now;
        loop_post(l, &l->quit_post);
        pthread_join(l->thread, NULL);
    }
    while (atomic_load_explicit(&l->posting, memory_order_acquire))
        sched_yield(); /* its post is run, but it still looks at l */
    uv_walk(&l->uv, close_handle, NULL);
    uv_run(&l->uv, UV_RUN_DEFAULT);
    uv_loop_close(&l->uv);
    while (l->spare_n)
        arena_free(l->spare[--l->spare_n]);
    if (l->wake_fd >= 0)
        close(l->wake_fd);
    if (l->plain != l->in)
        free(l->plain);
    free(l->in);
    free(l->out);
}
