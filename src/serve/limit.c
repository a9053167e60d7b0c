// SPDX-License-Identifier: Apache-2.0
/* What one token may ask of one deployment. A token's bucket is a number that moves by compare-and-swap: the time up to
 * which what came is paid for (the generic cell rate algorithm, ITU-T I.371), so that no two tokens share a lock. */
#include "serve/policy.h"

enum { BUCKETS_OF_TOKENS = 1024, PROBES = 16 };

struct bucket {
    _Alignas(64) _Atomic uint64_t token; /* hash of its id; 0: free */
    _Atomic int64_t paid_ns, in_flight;
};
struct limiter {
    int64_t each_ns, burst_ns; /* 0: any rate */
    int64_t in_flight;         /* 0: any number */
    struct bucket v[BUCKETS_OF_TOKENS];
};

struct limiter *limiter_new(struct arena *a, const struct limits *spec)
{
    if (spec->per_second <= 0 && !spec->in_flight)
        return NULL;
    struct limiter *l = arena_alloc(a, sizeof *l, _Alignof(struct limiter));
    l->in_flight = spec->in_flight;
    if (spec->per_second <= 0)
        return l;
    double burst = spec->burst ? (double)spec->burst : spec->per_second, each = 1e9 / spec->per_second;
    l->each_ns = each < 1 ? 1 : each > 1e15 ? (int64_t)1e15 : (int64_t)each;
    burst *= (double)l->each_ns;
    l->burst_ns = burst < (double)l->each_ns ? l->each_ns : burst > 1e17 ? (int64_t)1e17 : (int64_t)burst;
    return l;
}

/* Tokens beyond the table share the last bucket that was looked at: stricter, never laxer. A bucket that has nothing to
 * remember goes to another token. */
static struct bucket *bucket_of(struct limiter *l, uint64_t token, int64_t now)
{
    struct bucket *b = NULL;
    for (unsigned i = 0; i < PROBES; i++) {
        b = &l->v[(token + i) % BUCKETS_OF_TOKENS];
        uint64_t has = atomic_load_explicit(&b->token, memory_order_relaxed);
        if (has == token)
            return b;
    }
    for (unsigned i = 0; i < PROBES; i++) {
        b = &l->v[(token + i) % BUCKETS_OF_TOKENS];
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

static err limited(struct infer *c, const char *what, int64_t wait_ns)
{
    int64_t s = wait_ns / 1000000000 + 1;
    req_reply_header(c->r, "Retry-After", fmt(c->a, "%lld", (long long)s));
    return err_hint(
        err_new(LIMIT, "this token asks '%.*s' for more %s than it may", STR(c->entry->name), what),
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

err limit_enter(struct infer *c)
{
    struct limiter *l = c->entry->policy ? c->entry->policy->limiter : NULL;
    const struct principal *who = l ? req_who(c->r) : NULL;
    if (!l)
        return NULL;
    uint64_t token = hash64(who ? who->token_id : S("")) | 1;
    struct bucket *b = bucket_of(l, token, c->at.arrived);
    if (l->in_flight && atomic_fetch_add(&b->in_flight, 1) >= l->in_flight) {
        atomic_fetch_sub(&b->in_flight, 1);
        return limited(c, "answers at once", 0);
    }
    c->bucket = l->in_flight ? b : NULL;
    int64_t wait = l->each_ns ? pay(l, b, c->at.arrived) : 0;
    return wait ? limited(c, "answers a second", wait) : NULL;
}

void limit_leave(struct infer *c)
{
    if (c->bucket)
        atomic_fetch_sub(&c->bucket->in_flight, 1);
    c->bucket = NULL;
}
