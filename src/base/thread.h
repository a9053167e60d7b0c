/* thread: lanes, i.e. bounded queues with their own worker threads.
 * Flow     loop --lane_push--> worker runs fn(arg) to its end; it may block.
 * Owns     its threads; lane_free() lets what is queued finish, then joins.
 * Full     lane_push says false: the caller sheds load, nothing waits. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/err.h"
#include <pthread.h>

struct lane;
err lane_new(const char *name, int threads, size_t queue_max, struct lane **out);
bool lane_push(struct lane *, void (*fn)(void *), void *arg);
/* Jobs waiting and running now. */
size_t lane_load(struct lane *);
void lane_free(struct lane *); /* NULL is fine */

/* pthread_create with a name (at most 15 characters shown) and all signals but faults blocked. */
err thread_start(const char *name, void *(*fn)(void *), void *arg, pthread_t *out);

static inline void unlock_at(pthread_mutex_t **m)
{
    if (*m)
        pthread_mutex_unlock(*m);
}
static inline pthread_mutex_t *lock_(pthread_mutex_t *m)
{
    pthread_mutex_lock(m);
    return m;
}
/* Holds the mutex to the end of the scope. */
#define LOCKED(m) __attribute__((cleanup(unlock_at), unused)) pthread_mutex_t *locked_ = lock_(m)
