// SPDX-License-Identifier: Apache-2.0
/* Lanes, logs and errors from many threads at once, for ThreadSanitizer: 0 is a pass. */
#include "base/base.h"
#include <stdatomic.h>

enum { THREADS = 4, JOBS = 2000 };

static atomic_int done;

static void job(void *arg)
{
    err e = err_wrap(err_new(LIMIT, "job %d", *(int *)arg), "lane");
    log_context(e->text);
    log_debug("job.done", KV("text", e->text)); /* below the level: the settings are read */
    atomic_fetch_add(&done, 1);
}

static void *pusher(void *arg)
{
    static int numbers[JOBS];
    struct lane *l = arg;
    for (int i = 0; i < JOBS; i++)
        while (!lane_push(l, job, &numbers[i]))
            lane_load(l);
    return NULL;
}

int main(void)
{
    struct lane *l;
    pthread_t threads[THREADS];
    if (lane_new("work", THREADS, 16, &l))
        return 1;
    for (int i = 0; i < THREADS; i++)
        if (thread_start("pusher", pusher, l, &threads[i]))
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    lane_free(l);
    return done == THREADS * JOBS ? 0 : 1;
}
