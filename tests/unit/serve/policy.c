// SPDX-License-Identifier: Apache-2.0
/* Limits of a token, and answers that are kept. */
#define SUITE serve_policy
#include "asks.h"

TEST(a_token_has_its_rate_and_others_theirs)
{
    struct asks *k = asks_new(DEPLOYMENT(", limits: {perSecond: 0.01, burst: 2}"), false);
    answer_to(k, "x=1&who=0", 200);
    answer_to(k, "x=1&who=0", 200);
    int fd = query(k, "x=1&who=0");
    struct str got = help_drain(k->w->l.a, fd);
    close(fd);
    CHECK(help_status(got) == 429 && has(got, "Retry-After: 100\r\n"));
    answer_to(k, "x=1&who=1", 200);
    struct totals t = asks_totals(k);
    CHECK(t.requests == 4 && t.refused == 1 &&
          t.rejected == 1); /* and not failed: a canary's version is not to blame */
    asks_free(k);
}

TEST(a_token_has_so_many_at_work)
{
    struct asks *k = asks_new(DEPLOYMENT(", instances: 1, limits: {inFlight: 2}"), false);
    toy_hold(k, true);
    int a = query(k, "x=1"), b = query(k, "x=2");
    wait_queue(k, 1);
    answer_to(k, "x=3", 429);
    answer_to(k, "x=3", 429); /* a refusal takes no place, and gives none back */
    int c = query(k, "x=4&who=1");
    wait_queue(k, 2);
    toy_hold(k, false);
    answer(k, a, 200);
    answer(k, b, 200);
    answer(k, c, 200);
    for (int i = 0; i < 5; i++)
        answer_to(k, "x=3", 200);
    asks_free(k);
}

TEST(a_project_has_its_rate_however_many_tokens_it_has)
{
    struct asks *k = asks_new(DEPLOYMENT(", limits: {inFlight: 2, project: {perSecond: 0.01, burst: 3}}"),
                              false);
    answer_to(k, "x=1&who=0", 200);
    answer_to(k, "x=1&who=1", 200);
    answer_to(k, "x=1&who=0", 200);
    struct str told = answer_to(k, "x=1&who=1", 429);
    CHECK(has(told, "the project's tokens together ask 'late' for more answers a second than allowed"));
    asks_free(k);
    k = asks_new(DEPLOYMENT(", instances: 1, limits: {project: {inFlight: 2}}"), false);
    toy_hold(k, true);
    int a = query(k, "x=1&who=0"), b = query(k, "x=2&who=1");
    wait_queue(k, 1);
    answer_to(k, "x=3&who=0", 429);
    toy_hold(k, false);
    answer(k, a, 200);
    answer(k, b, 200);
    for (int i = 0; i < 5; i++)
        answer_to(k, "x=3&who=0", 200);
    asks_free(k);
}

TEST(buckets_go_to_who_needs_them)
{
    auto_arena struct arena *a = arena_new(0);
    struct limiter *l = limiter_new(a, &(struct limits){ .per_second = 1e6 });
    static struct policy p; /* a test's stack is not aligned as it is */
    p.limiter = l;
    struct entry e = { .policy = &p };
    struct principal who = { 0 };
    struct req r = { .a = a, .who = &who };
    for (int i = 0; i < 20000;
         i++) { /* many more than there are buckets, each long idle when the next comes */
        struct infer c = { .a = a, .r = &r, .entry = &e, .at.arrived = i * (int64_t)10000000 };
        who.token_id = fmt(a, "token-%d", i);
        CHECK_OK(limit_enter(&c));
    }
}

#define CACHED(more) DEPLOYMENT(", cache: {size: 10Ki" more "}")

TEST(the_same_question_gets_the_same_answer)
{
    struct asks *k = asks_new(CACHED(""), false);
    CHECK_STR(answer_to(k, "x=1,2", 200), "2,4");
    CHECK_STR(answer_to(k, "x=1,2", 200), "2,4");
    CHECK_STR(answer_to(k, "x=2,1", 200), "4,2");
    CHECK_STR(answer_to(k, "x=1,2,0", 200), "2,4,0");
    CHECK_STR(answer_to(k, "x=1,2", 200), "2,4");
    struct totals t = asks_totals(k);
    CHECK(k->toy.runs == 3 && t.cache_hits == 2 && t.cache_misses == 3 && t.requests == 5 &&
          t.executions == 3);
    asks_free(k);
}

TEST(failures_are_not_kept)
{
    struct asks *k = asks_new(CACHED(""), false);
    answer_to(k, "x=13", 400);
    answer_to(k, "x=13", 400);
    CHECK(k->toy.runs == 2);
    asks_free(k);
}

TEST(an_answer_is_kept_no_longer_than_asked)
{
    struct asks *k = asks_new(CACHED(", ttl: 1ms"), false);
    answer_to(k, "x=1", 200);
    nap();
    answer_to(k, "x=1", 200);
    CHECK(k->toy.runs == 2);
    asks_free(k);
}

TEST(memory_is_bounded_and_the_oldest_goes)
{
    struct asks *k = asks_new(CACHED(""), false);
    struct buf b = buf_new(k->w->l.a);
    for (int i = 0; i < 1000; i++)
        buf_fmt(&b, "%s%d", i ? "," : "x=", i % 10);
    const char *big = fmtz(k->w->l.a, "%.*s", STR(buf_get(&b)));
    answer_to(k, "x=1", 200);
    for (int i = 20; i < 23; i++) { /* 4,000 bytes each: two have room */
        answer_to(k, fmtz(k->w->l.a, "%s,%d", big, i), 200);
        answer_to(k, "x=1", 200); /* the one in use stays */
    }
    CHECK(k->toy.runs == 4 && asks_totals(k).cache_hits == 3);
    answer_to(k, fmtz(k->w->l.a, "%s,20", big), 200);
    CHECK(k->toy.runs == 5);
    answer_to(k, fmtz(k->w->l.a, "%s,22", big), 200);
    CHECK(k->toy.runs == 5);
    asks_free(k);
}
