/* sched, inside. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "sched/sched.h"

/* A job that is queued or at work, as kept in memory: rebuilt from the store at start. */
struct entry {
    struct entry *next;
    char *project, *name;
    int64_t id, cpu, memory, priority;
    bool active; /* STARTING, RUNNING or FINISHING: holds cpu and memory */
    bool hook;   /* prepare or finish is under way on the lane */
};
struct sched {
    struct sched_config cfg;
    struct control *control;
    struct lane *hooks;
    pthread_mutex_t lock;
    struct entry *entries;
};

/* The folder of the job's present attempt. */
struct str job_attempt_id(struct arena *a, int64_t id, int64_t attempt);
const char *job_attempt_dir(struct sched *, struct arena *a, int64_t id, int64_t attempt);
