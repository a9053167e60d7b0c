// SPDX-License-Identifier: Apache-2.0
#include "engine/team.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A waiter looks so often before it sleeps: some 50 µs, more than ranks are apart at most barriers. */
enum { SPINS = 4000, LINE = 64 };

struct seat { /* what a rank shows the others, on lines of its own */
    _Alignas(LINE) double sum[TEAM_SUM_MAX];
    const void *many; /* numbers of a team_sum_f32 or team_sum_f64 */
};
struct team {
    int size;
    struct seat *seats;
    pthread_t *threads;
    /* A run: job and ranks are set, then `round` goes up. */
    void (*fn)(void *, int);
    void *arg;
    int ranks;
    _Alignas(LINE) atomic_uint round;
    atomic_int round_sleepers;
    _Alignas(LINE) atomic_uint done; /* of this round: ranks beside the caller's that have ended */
    atomic_int done_sleepers;
    /* The barrier: the last to arrive opens it. */
    _Alignas(LINE) atomic_int arrived;
    _Alignas(LINE) atomic_uint phase;
    atomic_int phase_sleepers;
    atomic_bool leave;
};

static void futex_wait(atomic_uint *at, unsigned seen)
{
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *at)
{
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

/* Until *at is no longer `seen`. */
static unsigned wait_change(atomic_uint *at, unsigned seen, atomic_int *sleepers)
{
    unsigned now;
    for (int i = 0; i < SPINS; i++) {
        if ((now = atomic_load_explicit(at, memory_order_acquire)) != seen)
            return now;
        relax();
    }
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(at)) == seen)
        futex_wait(at, seen);
    atomic_fetch_sub(sleepers, 1);
    return now;
}

static void raise_to(atomic_uint *at, unsigned v, atomic_int *sleepers)
{
    atomic_store(at, v);
    if (atomic_load(sleepers) > 0)
        futex_wake(at);
}

/* ---- threads ---- */

struct member {
    struct team *team;
    int index;
};

static void *member_main(void *arg)
{
    struct member me = *(struct member *)arg;
    struct team *t = me.team;
    free(arg);
    unsigned seen = 0;
    for (;;) {
        seen = wait_change(&t->round, seen, &t->round_sleepers);
        if (atomic_load(&t->leave))
            return NULL;
        if (me.index < t->ranks)
            t->fn(t->arg, me.index);
        unsigned done = atomic_fetch_add(&t->done, 1) + 1;
        if (done == (unsigned)t->size - 1 && atomic_load(&t->done_sleepers) > 0)
            futex_wake(&t->done);
    }
}

err team_new(int size, struct team **out)
{
    if (size <= 0)
        size = cpu_count();
    size = size < TEAM_MAX ? size : TEAM_MAX;
    struct team *t = aligned_alloc(LINE, (sizeof *t + LINE - 1) / LINE * LINE);
    if (!t)
        FAIL(INTERNAL, "no memory for a team of %d threads", size);
    memset(t, 0, sizeof *t);
    t->size = 1;
    t->seats = aligned_alloc(LINE, sizeof *t->seats * (size_t)size);
    t->threads = calloc((size_t)size, sizeof *t->threads);
    err e = t->seats && t->threads ? NULL : err_new(INTERNAL, "no memory for a team of %d threads", size);
    for (int i = 1; i < size && !e; i++) {
        struct member *m = malloc(sizeof *m);
        if (!m) {
            e = err_new(INTERNAL, "no memory for a team of %d threads", size);
            break;
        }
        *m = (struct member){ t, i };
        e = thread_start("engine", member_main, m, &t->threads[i]);
        if (e)
            free(m);
        else
            t->size = i + 1;
    }
    if (e) {
        team_free(t);
        return e;
    }
    *out = t;
    return NULL;
}

int team_size(const struct team *t)
{
    return t ? t->size : 1;
}

void team_free(struct team *t)
{
    if (!t)
        return;
    atomic_store(&t->leave, true);
    raise_to(&t->round, atomic_load(&t->round) + 1, &t->round_sleepers);
    for (int i = 1; i < t->size; i++)
        pthread_join(t->threads[i], NULL);
    free(t->threads);
    free(t->seats);
    free(t);
}

void team_run(struct team *t, int n, void (*fn)(void *arg, int rank), void *arg)
{
    if (!t || t->size == 1 || n == 1) {
        fn(arg, 0);
        return;
    }
    t->fn = fn, t->arg = arg;
    t->ranks = n <= 0 || n > t->size ? t->size : n;
    atomic_store(&t->done, 0);
    raise_to(&t->round, atomic_load(&t->round) + 1, &t->round_sleepers);
    fn(arg, 0);
    for (unsigned done;
         (done = atomic_load_explicit(&t->done, memory_order_acquire)) < (unsigned)t->size - 1;)
        wait_change(&t->done, done, &t->done_sleepers);
}

/* ---- meeting ---- */

void team_barrier(struct rank *r)
{
    struct team *t = r->team;
    if (r->size == 1)
        return;
    unsigned phase = atomic_load(&t->phase);
    if (atomic_fetch_add(&t->arrived, 1) + 1 == r->size) {
        atomic_store(&t->arrived, 0);
        raise_to(&t->phase, phase + 1, &t->phase_sleepers);
    } else
        wait_change(&t->phase, phase, &t->phase_sleepers);
}

void team_sum(struct rank *r, double *v, size_t n)
{
    if (r->size == 1)
        return;
    struct seat *seats = r->team->seats;
    n = n < TEAM_SUM_MAX ? n : TEAM_SUM_MAX;
    memcpy(seats[r->index].sum, v, n * sizeof *v);
    team_barrier(r);
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < r->size; k++)
            sum += seats[k].sum[i];
        v[i] = sum;
    }
    team_barrier(r); /* seats may be used again */
}

#define TEAM_SUM(name, real)                                    \
    void name(struct rank *r, real *v, size_t n, real *scratch) \
    {                                                           \
        if (r->size == 1)                                       \
            return;                                             \
        struct seat *seats = r->team->seats;                    \
        seats[r->index].many = v;                               \
        team_barrier(r);                                        \
        memcpy(scratch, seats[0].many, n * sizeof *v);          \
        for (int k = 1; k < r->size; k++)                       \
            for (size_t i = 0; i < n; i++)                      \
                scratch[i] += ((const real *)seats[k].many)[i]; \
        team_barrier(r); /* all have read */                    \
        memcpy(v, scratch, n * sizeof *v);                      \
    }
TEAM_SUM(team_sum_f32, float)
TEAM_SUM(team_sum_f64, double)
#undef TEAM_SUM
