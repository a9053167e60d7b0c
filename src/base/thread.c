// SPDX-License-Identifier: Apache-2.0
#define _GNU_SOURCE 1
#include "base/thread.h"
#include "base/log.h"

#include <assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { NAME_MAX_ = 16 };

struct job {
    void (*fn)(void *);
    void *arg;
};

struct lane {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct job *ring;
    size_t first, waiting, cap, running; /* ring[first..first + waiting), modulo cap */
    bool ending;
    pthread_t *threads;
    int thread_count;
};

struct start {
    char name[NAME_MAX_];
    void *(*fn)(void *);
    void *arg;
};

static void *thread_main(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    return s.fn(s.arg);
}

/* All but those that a fault raises in the thread itself. */
static void signals_of_others(sigset_t *set)
{
    static const int faults[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };
    sigfillset(set);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(set, faults[i]);
}

err thread_start(const char *name, void *(*fn)(void *), void *arg, pthread_t *out)
{
    struct start *s = malloc(sizeof *s);
    if (!s)
        FAIL(INTERNAL, "cannot start thread '%s': out of memory", name);
    *s = (struct start){ .fn = fn, .arg = arg };
    snprintf(s->name, sizeof s->name, "%s", name);
    sigset_t block, before;
    signals_of_others(&block);
    pthread_sigmask(SIG_SETMASK, &block, &before);
    pthread_t t;
    int failed = pthread_create(&t, NULL, thread_main, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        free(s);
        return err_errno(failed, "cannot start thread '%s'", name);
    }
    *out = t;
    return NULL;
}

/* Waits for a job; false once the lane ends and nothing is left. */
static bool lane_take(struct lane *l, struct job *out)
{
    LOCKED(&l->lock);
    while (!l->waiting && !l->ending)
        pthread_cond_wait(&l->changed, &l->lock);
    if (!l->waiting)
        return false;
    *out = l->ring[l->first];
    l->first = (l->first + 1) % l->cap;
    l->waiting--;
    l->running++;
    return true;
}

static void lane_finish(struct lane *l)
{
    LOCKED(&l->lock);
    l->running--;
}

static void *lane_main(void *arg)
{
    struct lane *l = arg;
    for (struct job j; lane_take(l, &j);) {
        j.fn(j.arg);
        lane_finish(l);
        err_reset();
        log_context(S(""));
    }
    return NULL;
}

err lane_new(const char *name, int threads, size_t queue_max, struct lane **out)
{
    assert(threads > 0 && queue_max > 0);
    struct lane *l = calloc(1, sizeof *l);
    if (!l)
        FAIL(INTERNAL, "cannot make lane '%s': out of memory", name);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->cap = queue_max;
    l->ring = calloc(queue_max, sizeof *l->ring);
    l->threads = calloc((size_t)threads, sizeof *l->threads);
    err e = l->ring && l->threads ? NULL : err_new(INTERNAL, "cannot make lane '%s': out of memory", name);
    for (int i = 0; i < threads && !e; i++) {
        char thread_name[NAME_MAX_ + 16];
        snprintf(thread_name, sizeof thread_name, "%.11s-%d", name, i);
        e = thread_start(thread_name, lane_main, l, &l->threads[i]);
        l->thread_count += !e;
    }
    if (e) {
        lane_free(l);
        return e;
    }
    *out = l;
    return NULL;
}

bool lane_push(struct lane *l, void (*fn)(void *), void *arg)
{
    LOCKED(&l->lock);
    if (l->waiting == l->cap || l->ending)
        return false;
    l->ring[(l->first + l->waiting++) % l->cap] = (struct job){ fn, arg };
    pthread_cond_signal(&l->changed);
    return true;
}

size_t lane_load(struct lane *l)
{
    LOCKED(&l->lock);
    return l->waiting + l->running;
}

static void lane_end(struct lane *l)
{
    LOCKED(&l->lock);
    l->ending = true;
    pthread_cond_broadcast(&l->changed);
}

void lane_free(struct lane *l)
{
    if (!l)
        return;
    lane_end(l);
    for (int i = 0; i < l->thread_count; i++)
        pthread_join(l->threads[i], NULL);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l->threads);
    free(l->ring);
    free(l);
}
