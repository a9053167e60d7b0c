/* serve/policy: how the requests of one deployment come to their run; all versions of it share one.
 * Flow     infer_start() --> limit.c (429?) --> tensors --> sequence.c, cache.c --> queue_submit(): a quick model runs
 *          here, on the loop (in batches: once the round is read); others wait for a runner --> batch.c --> infer_end().
 *          One that takes longer runs there, too, while its client is the only one who uses the loop.
 * Runners  `instances` runs at once, in threads that are started when there is work. One thread more than that watches
 *          the clock, so that a request whose time is up is answered though all runs take long. A runner is called only
 *          for what nobody who is up will do, and the one that worked last comes first: its memory is still in caches.
 * Life     immutable but for what is under m; counted by entries under serve.m. A spec that changes makes a new policy:
 *          what waits in the old one is answered by it. The last reference goes when nothing waits any more.
 * Locks    m, short; never while a model runs. serve.m may be held around it, not the other way. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/infer.h"

enum {
    INSTANCES_MAX = 64,
    LEVELS_MAX = 17,          /* of priority, and one for those that are late */
    LOOPS_MAX = 64,           /* whose rounds make batches; requests of further ones run one by one */
    ROUND_REQUESTS_MAX = 256, /* that one batch takes */
    ALONE_NS = 2000000,       /* a run up to here may be on a loop's thread where nobody else uses the loop */
    SLOW_NS = 5000000,        /* a run from here on is not for a thread of the lane */
    PREFERRED_MAX = 16,
    FRUIT_ALL = 1024,
    FRUIT_MIN = FRUIT_ALL / 8, /* below: waiting is not worth it, */
    FRUIT_TRY = 16,            /* but to see whether it is again, for one request in so many */
    /* A batch pays where a row of it takes less than 15 of 16 of the time that it takes alone. Of the first choices one in eight is to run
     * alone; then so many of so many are the other way, to see whether it is still so: a batch is the choice of many requests. */
    SHARE_ONE = 1 << 16,
    SHARE_PAYS = SHARE_ONE / 16 * 15,
    LEARN_OF = 8,
    COMPARE_FIRST = 16, /* comparisons until it is known */
    COMPARE_OVER = 32,  /* and so many are what "lately" is */
    TRY_ALONE = 16,
    ALONE_OF = 1024,
    TRY_BATCH = 8, /* of at most TRY_ROWS: what they use beside their time is lost */
    TRY_ROWS = 8,
    BATCH_OF = 8192,
    QUIET_MIN_NS = 50000, /* so long without an arrival, or four times their usual distance: nobody comes */
    STATES_MAX = 32,
};

struct list_of {
    struct infer *first, **end;
};
/* What one loop has read in a round. Its thread's alone. */
struct round {
    _Alignas(64) struct round_task task; /* first member */
    struct policy *policy;
    struct list_of list;
    struct arena *scratch;
};
/* A run under way that may take only so long. On the stack of the thread that runs. */
struct run {
    struct run *next, **link;
    int64_t due;
    struct run_control control;
};
struct policy {
    int refs;
    struct arena *a;
    struct str text; /* what it was made of */
    struct batching batching;
    struct sequencing sequence;
    size_t preferred[PREFERRED_MAX], preferred_n;
    size_t instances, levels;
    int64_t run_ns_max;                       /* 0: any */
    struct limiter *limiter, *limiter_of_all; /* may be NULL, as the next two */
    struct cache *cache;
    struct sequences *sequences;
    struct round rounds[LOOPS_MAX];

    pthread_mutex_t m; /* of what follows, and of the sequences */
    struct list_of level[LEVELS_MAX];
    struct sleeper *idle; /* runners without work, the last one first */
    size_t waiting, busy, threads_n;
    size_t roused; /* runners that are up, but have not looked yet */
    pthread_t threads[INSTANCES_MAX + 1];
    struct run *runs;
    int64_t next_due; /* nothing that waits or runs is due before */
    int64_t swept_ns; /* when nothing waited for a client that had left */
    int64_t last_ns,
        gap_ns;    /* of arrivals: the last one, and the time between two that wait together, lately */
    size_t wait_n; /* requests that were there when the wait for more began; 0: there is none */
    int fruit;     /* share of waits that brought one, lately, of FRUIT_ALL */
    unsigned dry;  /* requests that could wait: counts to the next try */
    bool ending;
};

/* ---- queue.c ---- */
/* Runs c, here and now or later. As a handler's result: NULL (replied, or owed), or the error that is the reply. */
err queue_submit(struct infer *c);
void list_put(struct list_of *, struct infer *);
/* session_run of c's model on this thread, ended when it takes longer than the policy allows (TIMEOUT). */
err policy_run(struct infer *c, struct arena *a, const struct tensor *in, struct tensor *out, size_t out_n);

/* ---- bound.c ---- */
/* Is c one row on a loop's thread, of a model that takes rows? Then bound_run() runs it with less ado. */
bool bound_fits(const struct infer *c);
err bound_run(struct infer *c);

/* ---- batch.c ---- */
/* Are all its tensors of c's rows? */
bool batch_able(const struct infer *c);
/* Could b run together with a? Both are able. */
bool batch_fits(const struct infer *a, const struct infer *b);
/* Runs what hangs on first by next, all fitting, as one, and ends each. Scratch is reset. */
void batch_run(struct arena *scratch, struct infer *first, size_t n);
/* Should c's request run with others? As experience says, if the spec lets it; choice: one is made now, and it may be a
 * try. */
bool batch_pays(const struct policy *, const struct infer *c, bool choice);
/* Time that this thread has worked, for figures of a run: by the thread's clock, where the model is on the CPU and takes
 * longer than asking costs, as neighbours do not show in that; else it is mono_ns(), which the caller knows. */
int64_t run_clock(const struct infer *c, int64_t mono);
/* After a run: its time and size, for figures and for quick(). */
void run_count(struct infer *c, size_t rows, size_t requests, int64_t worked_ns);

/* ---- limit.c ---- */
/* Of each token, and of all together. NULL: no limits. */
struct limiter *limiter_new(struct arena *a, const struct limits *);
struct limiter *limiter_of_all(struct arena *a, const struct limits_of_all *);
/* LIMIT. What it takes is given back by limit_leave. */
err limit_enter(struct infer *c);
void limit_leave(struct infer *c);

/* ---- sequence.c ---- */
struct sequences *sequences_new(struct arena *a, const struct sequencing *);
void sequences_free(struct sequences *); /* NULL is fine */
size_t sequences_count(const struct sequences *);
struct str sequence_unfit(struct arena *a, const struct sequencing *, const struct session_info *);
/* Finds or begins c's sequence. */
err sequence_enter(struct infer *c);
/* Fills the inputs that the client does not give; their bits in *seen. */
err sequence_inputs(struct infer *c, uint64_t *seen);
/* Outputs that are the next state, and that the client did not ask for, are run, too. */
void sequence_outputs(struct infer *c);
/* With m held: is it c's turn? Then sequence_turn() makes it so that nobody else's is. */
bool sequence_free(const struct infer *c);
void sequence_turn(struct infer *c);
/* Before and after the run, in its turn. */
void sequence_begin(struct infer *c);
err sequence_keep(struct infer *c);
void sequence_leave(struct infer *c);

/* ---- cache.c ---- */
struct cache *cache_new(const struct caching *); /* NULL: none */
void cache_free(struct cache *);                 /* NULL is fine */
/* True: c->out is filled. */
bool cache_get(struct infer *c);
void cache_put(struct infer *c);

/* ---- ensemble.c ---- */
err ensemble_check(struct arena *a, const struct ensemble *);
/* Who runs the steps of the ensemble that c asks, by their deployments' traffic: c->picks. *asleep: one of them that is to
 * be loaded first. UNAVAILABLE. */
err ensemble_enter(struct infer *c, const struct entry **asleep);
/* The steps run, one after the other, on this thread; control (may be NULL) ends them, no later than until (0: any time). */
err ensemble_run(struct infer *c, struct run_control *control, int64_t until, struct arena *a,
                 const struct tensor *in, struct tensor *out, size_t out_n);
/* Its steps, as Triton's "ensemble_scheduling". */
void ensemble_write(struct json *, struct session *);
