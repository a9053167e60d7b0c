// SPDX-License-Identifier: Apache-2.0
#define SUITE base_thread
#include "test.h"
#include <stdatomic.h>

static void count_up(void *n)
{
    atomic_fetch_add((atomic_int *)n, 1);
}

TEST(free_lets_what_is_queued_finish)
{
    struct lane *l;
    atomic_int n = 0;
    CHECK_OK(lane_new("work", 3, 1000, &l));
    for (int i = 0; i < 1000; i++)
        CHECK(lane_push(l, count_up, &n));
    lane_free(l);
    CHECK(n == 1000);
}

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool open, entered;
};

static void wait_at_gate(void *arg)
{
    struct gate *g = arg;
    LOCKED(&g->lock);
    g->entered = true;
    pthread_cond_broadcast(&g->opened);
    while (!g->open)
        pthread_cond_wait(&g->opened, &g->lock);
}

static void gate_await_entered(struct gate *g)
{
    LOCKED(&g->lock);
    while (!g->entered)
        pthread_cond_wait(&g->opened, &g->lock);
}

static void gate_open(struct gate *g)
{
    LOCKED(&g->lock);
    g->open = true;
    pthread_cond_broadcast(&g->opened);
}

TEST(a_full_lane_refuses)
{
    struct lane *l;
    struct gate g = { .lock = PTHREAD_MUTEX_INITIALIZER, .opened = PTHREAD_COND_INITIALIZER };
    atomic_int n = 0;
    CHECK_OK(lane_new("a-name-that-is-too-long", 1, 2, &l));
    CHECK(lane_push(l, wait_at_gate, &g));
    gate_await_entered(&g);
    CHECK(lane_push(l, count_up, &n) && lane_push(l, count_up, &n));
    CHECK(!lane_push(l, count_up, &n));
    CHECK(lane_load(l) == 3); /* two wait, one runs */
    gate_open(&g);
    lane_free(l);
    CHECK(n == 2);
}

struct order {
    int seen[300], n;
};

struct turn {
    struct order *order;
    int i;
};

static void take_turn(void *arg)
{
    struct turn *t = arg;
    t->order->seen[t->order->n++] = t->i;
}

TEST(one_worker_keeps_the_order)
{
    struct lane *l;
    struct order order = { 0 };
    struct turn turns[300];
    CHECK_OK(lane_new("order", 1, 7, &l));
    for (int i = 0; i < 300; i++) {
        turns[i] = (struct turn){ &order, i };
        while (!lane_push(l, take_turn, &turns[i]))
            sched_yield();
    }
    lane_free(l);
    CHECK(order.n == 300);
    for (int i = 0; i < 300; i++)
        CHECK(order.seen[i] == i);
}

static void *name_and_mask(void *name)
{
    sigset_t blocked;
    pthread_getname_np(pthread_self(), name, 16);
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    return sigismember(&blocked, SIGTERM) && sigismember(&blocked, SIGINT) && !sigismember(&blocked, SIGSEGV)
               ? name
               : NULL;
}

TEST(threads_have_a_name_and_block_signals)
{
    pthread_t t;
    char name[16];
    void *got;
    CHECK_OK(thread_start("a-name-that-is-too-long", name_and_mask, name, &t));
    pthread_join(t, &got);
    CHECK(got == name);
    CHECK_STR((char *)name, "a-name-that-is-");
}

TEST(free_of_null_is_fine)
{
    lane_free(NULL);
}
