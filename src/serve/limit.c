// SPDX-License-Identifier: Apache-2.0
/* What one token, and a project's tokens together, may ask of one deployment. A token's bucket is a number that moves by compare-and-swap: the time up to
 * which what came is paid for (the generic cell rate algorithm, ITU-T I.371), so that no two tokens share a lock. */
#include "serve/policy.h"

enum { BUCKETS_OF_TOKENS = 1024, PROBES = 16 };

struct bucket {
    _Alignas(64) _Atomic uint64_t token; /* hash of its id; 0: free */
    _Atomic int64_t paid_ns, in_flight;
};
struct limiter {
    const char *whose;         /* in messages */
    int64_t each_ns, burst_ns; /* 0: any rate */
    int64_t in_flight;         /* 0: any number */
    size_t n;
    struct bucket v[];
};

static struct limiter *limiter_make(struct arena *a, const char *whose, size_t n, double per_second,
                                    int64_t burst_of, int64_t in_flight)
{
    if (per_second <= 0 && !in_flight)
        return NULL;
    struct limiter *l = arena_alloc(a, sizeof *l + n * sizeof *l->v, _Alignof(struct limiter));
    l->whose = whose;
    l->n = n;
    l->in_flight = in_flight;
    if (per_second <= 0)
        return l;
    double burst = burst_of ? (double)burst_of : per_second, each = 1e9 / per_second;
    l->each_ns = each < 1 ? 1 : each > 1e15 ? (int64_t)1e15 : (int64_t)each;
    burst *= (double)l->each_ns;
    l->burst_ns = burst < (double)l->each_ns ? l->each_ns : burst > 1e17 ? (int64_t)1e17 : (int64_t)burst;
    return l;
}

struct limiter *limiter_new(struct arena *a, const struct limits *spec)
{
    return limiter_make(a, "this token asks", BUCKETS_OF_TOKENS, spec->per_second, spec->burst,
                        spec->in_flight);
}

struct limiter *limiter_of_all(struct arena *a, const struct limits_of_all *spec)
{
    return limiter_make(a, "the project's tokens together ask", 1, spec->per_second, spec->burst,
                        spec->in_flight);
}

/* Tokens beyond the table share the last bucket that was looked at: stricter, never laxer. A bucket that has nothing to
 * remember goes to another token. */
static struct bucket *bucket_of(struct limiter *l, uint64_t token, int64_t now)
{
    struct bucket *b = NULL;
    for (unsigned i = 0; i < PROBES; i++) {
        b = &l->v[(token + i) % l->n];
        uint64_t has = atomic_load_explicit(&b->token, memory_order_relaxed);
        if (has == token)
            return b;
    }
    for (unsigned i = 0; i < PROBES; i++) {
        b = &l->v[(token + i) % l->n];
        uint64_t has = atomic_load_explicit(&b->token, memory_order_relaxed);
        bool idle = !has || (atomic_load_explicit(&b->paid_ns, memory_order_relaxed) <= now &&
                             !atomic_load_explicit(&b->in_flight, memory_order_relaxed));
        if (idle && atomic_compare_exchange_strong(&b->token, &has, token))
            return b;
        if (has == token) /* it came in between */
            return b;
    }
    return b;
}

static err limited(struct infer *c, const struct limiter *l, const char *what, int64_t wait_ns)
{
    int64_t s = wait_ns / 1000000000 + 1;
    req_reply_header(c->r, "Retry-After", fmt(c->a, "%lld", (long long)s));
    return err_hint(err_new(LIMIT, "%s '%.*s' for more %s than allowed", l->whose, STR(c->entry->name), what),
                    "try again in %lld s", (long long)s);
}

/* 0, or how long until the bucket has room for one more. */
static int64_t pay(const struct limiter *l, struct bucket *b, int64_t now)
{
    int64_t paid = atomic_load_explicit(&b->paid_ns, memory_order_relaxed), next;
    do {
        next = (paid > now ? paid : now) + l->each_ns;
        if (next - now > l->burst_ns)
            return next - now - l->burst_ns;
    } while (!atomic_compare_exchange_weak(&b->paid_ns, &paid, next));
    return 0;
}

/* *held: the bucket that has c among those at work. */
static err enter(struct infer *c, struct limiter *l, uint64_t token, struct bucket **held)
{
    struct bucket *b = bucket_of(l, token, c->at.arrived);
    if (l->in_flight && atomic_fetch_add(&b->in_flight, 1) >= l->in_flight) {
        atomic_fetch_sub(&b->in_flight, 1);
        return limited(c, l, "answers at once", 0);
    }
    *held = l->in_flight ? b : NULL;
    int64_t wait = l->each_ns ? pay(l, b, c->at.arrived) : 0;
    return wait ? limited(c, l, "answers a second", wait) : NULL;
}

/* The token's own limit comes first: who is over it takes nothing of what all have. */
err limit_enter(struct infer *c)
{
    const struct policy *p = c->entry->policy;
    if (!p || (!p->limiter && !p->limiter_of_all))
        return NULL;
    const struct principal *who = req_who(c->r);
    if (p->limiter)
        TRY(enter(c, p->limiter, hash64(who ? who->token_id : S("")) | 1, &c->bucket));
    return p->limiter_of_all ? enter(c, p->limiter_of_all, 1, &c->bucket_of_all) : NULL;
}

static void give_back(struct bucket **held)
{
    if (*held)
        atomic_fetch_sub(&(*held)->in_flight, 1);
    *held = NULL;
}

void limit_leave(struct infer *c)
{
    give_back(&c->bucket);
    give_back(&c->bucket_of_all);
}
