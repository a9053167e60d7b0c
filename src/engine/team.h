/* team: the engine's threads. All ranks run the same program, each on its slice of the batch's rows, and meet where a
 * number is needed of all rows. Rank 0 is the caller's thread. Waiting spins for a bounded time, then sleeps (futex), so that
 * a neighbour on the machine costs little.
 * Threads  team_run: one caller at a time. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

enum { TEAM_MAX = 256 };
struct team;
struct rank {
    struct team *team;
    int index, size;
    void *scratch;       /* at least what the steps of the program want */
    uint64_t seed, draw; /* of the run: key and counter of random numbers */
    bool overflow;       /* a kernel met infinity or NaN where none may be */
};

/* size threads, the caller's among them. 0: cpu_count(). */
err team_new(int size, struct team **out);
int team_size(const struct team *);
void team_free(struct team *); /* NULL is fine */
/* fn(arg, rank) on the first n ranks (0: all) at once; returns when all are done. */
void team_run(struct team *, int n, void (*fn)(void *arg, int rank), void *arg);
/* Inside of team_run: all of its ranks wait for each other. */
void team_barrier(struct team *, int rank);
/* Inside: v[0..n) becomes its sum over the ranks, added in order of rank: the same bits in each rank and at each run.
 * n ≤ TEAM_SUM_MAX for doubles; floats: v must stay readable by the others during the call. No call if size is 1. */
void team_sum(struct rank *, double *v, size_t n);
void team_sum_f32(struct rank *, float *v, size_t n, float *scratch); /* scratch: n floats */


