/* team: the engine's threads. All ranks run the same program, each on its slice of the batch's rows, and meet where a
 * number is needed of all rows. Rank 0 is the caller's thread. Waiting spins for a bounded time, then sleeps (futex), so
 * that a busy neighbour on the machine costs little.
 * Owns     its threads, until team_free().
 * Threads  team_run: one caller at a time. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

enum { TEAM_MAX = 256, TEAM_SUM_MAX = 64 };
struct team;
struct rank {
    struct team *team; /* NULL if size is 1 and nobody waits */
    int index, size;
    void *scratch;       /* at least what the steps of the program want */
    uint64_t seed, draw; /* of the run: key and counter of random numbers */
    int64_t first,
        row; /* rows of the batch: the rank's first, and the first of those that are before the kernels now */
    bool overflow;       /* a kernel met infinity or NaN where none may be */
    int64_t bad_indices; /* that kernels met outside of their range: they read as zeros and write nothing */
    int64_t bad_label;   /* 1 + the first row of the batch whose label is none; 0: all are fine */
};

/* size threads, the caller's among them. 0: cpu_count(). */
err team_new(int size, struct team **out);
int team_size(const struct team *);
void team_free(struct team *); /* NULL is fine */
/* fn(arg, rank) on the first n ranks (0: all) at once; returns when all are done. */
void team_run(struct team *, int n, void (*fn)(void *arg, int rank), void *arg);

/* ---- inside of team_run; all of its ranks must call; nothing happens if there is one ---- */
void team_barrier(struct rank *);
/* v[0..n) becomes its sum over the ranks, added in order of rank: the same bits in each rank and in each run. */
void team_sum(struct rank *, double *v, size_t n); /* n ≤ TEAM_SUM_MAX */
/* The same of any n. scratch: n numbers of the rank's own. */
void team_sum_f32(struct rank *, float *v, size_t n, float *scratch);
void team_sum_f64(struct rank *, double *v, size_t n, double *scratch);
