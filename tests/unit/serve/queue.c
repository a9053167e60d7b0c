// SPDX-License-Identifier: Apache-2.0
/* Who waits, who runs together, who is given up. */
#define SUITE serve_queue
#include "asks.h"

enum { SLOW = 20000000, QUICK = 2000 };

#define ONE ", instances: 1"
#define BATCHES(more) DEPLOYMENT(ONE ", batching: {maxBatch: 4" more "}")

/* One run is under way and held; what comes now waits. */
static struct asks *held(const char *yaml, int *first)
{
    struct asks *k = asks_new(yaml, false);
    toy_takes(k, SLOW);
    toy_hold(k, true);
    *first = query(k, "x=1");
    toy_running(k, 1);
    return k;
}

TEST(what_waits_runs_together_and_each_gets_its_own)
{
    int fd[8], first;
    struct asks *k = held(BATCHES(""), &first);
    static const char *const rows[] = { "x=2",  "x=3,4", "x=5,6", "x=7", "x=8", "x=9,10,11,12,13.5",
                                        "x=14", "x=15" };
    static const char *const want[] = { "4", "6,8", "10,12", "14", "16", "18,20,22,24,27", "28", "30" };
    for (size_t i = 0; i < 8; i++) {
        fd[i] = query(k, rows[i]);
        wait_queue(k, i + 1);
    }
    toy_hold(k, false);
    CHECK_STR(answer(k, first, 200), "2");
    for (size_t i = 0; i < 8; i++)
        CHECK_STR(answer(k, fd[i], 200), want[i]);
    /* 2,3,4,7 | 5,6,8,14 | more than a batch, alone | 15 */
    CHECK(k->toy.runs == 5 && k->toy.rows[1] == 4 && k->toy.rows[2] == 4 && k->toy.rows[3] == 5 &&
          k->toy.rows[4] == 1);
    struct totals t = asks_totals(k);
    CHECK(t.requests == 9 && t.executions == 5 && t.rows == 15 && t.failed == 0);
    struct batches b;
    tally_batches(depl_find(k->w->serve, S("default"), S("late"))->now.v[0].tally, &b);
    CHECK(b.n[0] == 2 && b.n[3] == 2 && b.n[4] == 1 && b.n[1] == 0 && b.ns[3] > 0);
    asks_free(k);
}

TEST(without_batching_each_runs_by_itself)
{
    int first;
    struct asks *k = held(DEPLOYMENT(ONE), &first);
    int a = query(k, "x=2"), b = query(k, "x=3");
    wait_queue(k, 2);
    toy_hold(k, false);
    CHECK_STR(answer(k, first, 200), "2");
    CHECK_STR(answer(k, a, 200), "4");
    CHECK_STR(answer(k, b, 200), "6");
    CHECK(k->toy.runs == 3 && k->toy.rows[1] == 1 && k->toy.rows[2] == 1);
    asks_free(k);
}

TEST(a_request_that_fails_does_not_fail_its_neighbours)
{
    int first;
    struct asks *k = held(BATCHES(""), &first);
    int a = query(k, "x=2"), bad = query(k, "x=13"), b = query(k, "x=3");
    wait_queue(k, 3);
    toy_hold(k, false);
    answer(k, first, 200);
    CHECK_STR(answer(k, a, 200), "4");
    CHECK(has(answer(k, bad, 400), "no model likes 13"));
    CHECK_STR(answer(k, b, 200), "6");
    asks_free(k);
}

TEST(higher_priority_first)
{
    int first, fd[4];
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {priorities: 3}"), &first);
    static const char *const queries[] = { "x=2&priority=3", "x=3", "x=4&priority=1", "x=5&priority=9" };
    for (size_t i = 0; i < 4; i++) {
        fd[i] = query(k, queries[i]);
        wait_queue(k, i + 1);
    }
    toy_hold(k, false);
    answer(k, first, 200);
    for (size_t i = 0; i < 4; i++)
        answer(k, fd[i], 200);
    CHECK(k->toy.first[1] == 4 && k->toy.first[2] == 3 && k->toy.first[3] == 2 && k->toy.first[4] == 5);
    asks_free(k);
}

TEST(time_is_up_while_all_runs_take_long)
{
    int first;
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {timeout: 1h}"), &first);
    CHECK(has(answer_to(k, "x=2&timeout=20000", 504), "Request timeout expired"));
    CHECK(asks_totals(k).expired == 1 && k->toy.runs == 1);
    toy_hold(k, false);
    answer(k, first, 200);
    asks_free(k);
}

TEST(who_may_be_late_goes_behind_the_others)
{
    int first;
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {timeoutAction: delay}"), &first);
    int late = query(k, "x=2&timeout=1000");
    wait_queue(k, 1);
    int other = query(k, "x=3");
    wait_queue(k, 2);
    struct policy *p = asks_policy(k);
    for (bool moved = false; !moved; nap()) {
        LOCKED(&p->m);
        moved = p->level[p->levels - 1].first != NULL;
    }
    toy_hold(k, false);
    answer(k, first, 200);
    CHECK_STR(answer(k, late, 200), "4");
    CHECK_STR(answer(k, other, 200), "6");
    CHECK(k->toy.first[1] == 3 && k->toy.first[2] == 2);
    asks_free(k);
}

TEST(its_own_timeout_may_be_forbidden)
{
    int first;
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {timeoutOverride: false}"), &first);
    int a = query(k, "x=2&timeout=1");
    wait_queue(k, 1);
    toy_hold(k, false);
    answer(k, first, 200);
    CHECK_STR(answer(k, a, 200), "4");
    asks_free(k);
}

TEST(a_run_that_takes_too_long_is_ended)
{
    struct asks *k = asks_new(
        DEPLOYMENT(
            ONE ", runTimeout: 30ms, batching: {maxBatch: 4, delayUs: 10000000, adaptive: false, preferred: "
                "[2]}"),
        false);
    toy_hold(k, true);
    int a = query(k, "x=1");
    wait_queue(k, 1);
    int b = query(k, "x=2");
    CHECK(has(answer(k, a, 504), "took longer"));
    answer(k, b, 504);
    CHECK(k->toy.runs == 1 && k->toy.rows[0] == 2 && !asks_policy(k)->runs);
    asks_free(k);
}

TEST(nothing_waits_or_runs_past_its_clients_deadline)
{
    int first;
    struct asks *k = held(
        DEPLOYMENT(ONE ", batching: {timeout: 1h, timeoutOverride: false, timeoutAction: delay}"), &first);
    CHECK(has(answer_to(k, "x=2&deadline=20", 504), "Request timeout expired"));
    CHECK(asks_totals(k).expired == 1 && k->toy.runs == 1);
    toy_hold(k, false);
    answer(k, first, 200);
    asks_free(k);
    k = asks_new(DEPLOYMENT(ONE ", runTimeout: 1h"), false);
    toy_hold(k, true);
    CHECK(has(answer_to(k, "x=1&deadline=30", 504), "took longer"));
    asks_free(k);
}

TEST(a_deadline_ends_no_run_that_another_waits_for)
{
    struct asks *k = asks_new(
        DEPLOYMENT(
            ONE
            ", runTimeout: 1h, batching: {maxBatch: 4, delayUs: 10000000, adaptive: false, preferred: [2]}"),
        false);
    toy_hold(k, true);
    int a = query(k, "x=1&deadline=500");
    wait_queue(k, 1);
    int b = query(k, "x=2");
    toy_running(k, 1);
    for (int64_t until = mono_ns() + 600000000; mono_ns() < until; nap())
        ;
    toy_hold(k, false);
    CHECK_STR(answer(k, b, 200), "4");
    answer(k, a, 200);
    CHECK(k->toy.runs == 1 && k->toy.rows[0] == 2);
    asks_free(k);
}

TEST(a_quick_model_that_hangs_lets_the_loop_go)
{
    struct asks *k = asks_new(DEPLOYMENT(ONE ", runTimeout: 30ms"), false);
    toy_takes(k, QUICK);
    toy_hold(k, true);
    answer_to(k, "x=1", 504);
    toy_hold(k, false);
    CHECK_STR(answer_to(k, "x=1", 200), "2");
    asks_free(k);
}

TEST(a_full_queue_sheds)
{
    int first;
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {queue: 2}"), &first);
    int a = query(k, "x=2"), b = query(k, "x=3");
    wait_queue(k, 2);
    int fd = query(k, "x=4");
    struct str got = help_drain(k->w->l.a, fd);
    close(fd);
    CHECK(help_status(got) == 429 && has(got, "Retry-After: 1\r\n"));
    toy_hold(k, false);
    answer(k, first, 200);
    answer(k, a, 200);
    answer(k, b, 200);
    CHECK(asks_totals(k).shed == 1 && k->toy.runs == 3);
    asks_free(k);
}

TEST(nothing_runs_for_clients_that_left)
{
    int first;
    struct asks *k = held(BATCHES(""), &first);
    int b = query(k, "x=3"), gone[2];
    for (size_t i = 0; i < 2; i++) {
        gone[i] = help_connect(k->net);
        help_send(gone[i], S("POST /ask?x=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"));
    }
    wait_queue(k, 3);
    for (size_t i = 0; i < 2; i++) { /* by a reset: a mere end may be a client that still reads */
        setsockopt(gone[i], SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 }, sizeof(struct linger));
        close(gone[i]);
    }
    nap(); /* the loop hears of it */
    CHECK(help_status(help_talk(k->w->l.a, k->net, S(LAST("/nothing")))) == 404);
    toy_hold(k, false);
    answer(k, first, 200);
    CHECK_STR(answer(k, b, 200), "6");
    CHECK(k->toy.runs == 2 && k->toy.rows[1] == 1 && asks_totals(k).gone == 2);
    asks_free(k);
}

TEST(a_slow_model_holds_no_worker)
{
    struct asks *k = asks_new(DEPLOYMENT(ONE), false);
    int fd[16];
    toy_takes(k, SLOW);
    toy_hold(k, true);
    for (size_t i = 0; i < 16; i++)
        fd[i] = query(k, i % 2 ? "x=1" : "x=1&lane=1"); /* four workers */
    wait_queue(k, 15);
    CHECK(help_status(help_talk(k->w->l.a, k->net, S(LAST("/nothing")))) == 404);
    toy_hold(k, false);
    for (size_t i = 0; i < 16; i++)
        CHECK_STR(answer(k, fd[i], 200), "2");
    CHECK(k->toy.runs == 16);
    asks_free(k);
}

TEST(instances_run_at_once_and_no_more)
{
    struct asks *k = asks_new(DEPLOYMENT(", instances: 3"), false);
    int fd[5];
    toy_takes(k, SLOW);
    toy_hold(k, true);
    for (size_t i = 0; i < 5; i++)
        fd[i] = query(k, "x=1");
    toy_running(k, 3);
    wait_queue(k, 2);
    CHECK(k->toy.runs == 3);
    toy_hold(k, false);
    for (size_t i = 0; i < 5; i++)
        answer(k, fd[i], 200);
    asks_free(k);
}

TEST(a_batch_waits_for_its_delay_but_not_for_nobody)
{
    struct asks *k = asks_new(BATCHES(", delayUs: 10000000, preferred: [2], adaptive: false"), false);
    int a = query(k, "x=1");
    wait_queue(k, 1);
    CHECK(k->toy.runs == 0);
    int b = query(k, "x=2"); /* the preferred size */
    CHECK_STR(answer(k, a, 200), "2");
    CHECK_STR(answer(k, b, 200), "4");
    CHECK(k->toy.runs == 1 && k->toy.rows[0] == 2);
    asks_free(k);
    k = asks_new(BATCHES(", delayUs: 10000000"), false);
    for (int i = 0; i < 40;
         i++) /* one after the other: the test would not end if each waited for its delay */
        CHECK_STR(answer_to(k, "x=1", 200), "2");
    CHECK(asks_policy(k)->fruit < FRUIT_MIN);
    asks_free(k);
}

TEST(a_round_of_the_loop_is_one_run)
{
    struct asks *k = asks_new(BATCHES(""), false);
    toy_takes(k, QUICK);
#define ASK(x) "POST /ask?x=" x " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
    struct str got = help_talk(k->w->l.a, k->net,
                               S(ASK("1") ASK("2") ASK("3,4,5") ASK("6") LAST("/nothing")));
    CHECK(help_count(got, S("HTTP/1.1 200")) == 4);
    CHECK(has(got, "\r\n\r\n2HTTP") && has(got, "\r\n\r\n6,8,10HTTP") && has(got, "\r\n\r\n12HTTP"));
    CHECK(k->toy.runs == 2 && k->toy.rows[0] + k->toy.rows[1] == 6 && asks_policy(k)->threads_n == 0);
    asks_free(k);
}

static void ask_again(int fd)
{
    char got[1024];
    help_send(fd, S(ASK("1")));
    CHECK(recv(fd, got, sizeof got, 0) > 0 && !memcmp(got, "HTTP/1.1 200", 12));
}

TEST(a_run_stays_on_a_loop_that_nobody_else_uses)
{
    struct asks *k = asks_new(DEPLOYMENT(ONE), false);
    int one = help_connect(k->net), other;
    char got[1024];
    help_send(one, S(GET("/nothing")));
    CHECK(recv(one, got, sizeof got, 0) > 0);
    usleep(50 * 1000);
    toy_takes(k, ALONE_NS / 2);
    ask_again(one);
    CHECK(k->toy.runs == 1 && asks_policy(k)->threads_n == 0);
    other = help_connect(k->net);
    toy_takes(k, ALONE_NS / 2);
    ask_again(other);
    toy_takes(k, ALONE_NS / 2);
    ask_again(one);
    CHECK(k->toy.runs == 3 && asks_policy(k)->threads_n == 1);
    close(one);
    close(other);
    asks_free(k);
}

/* What 1024 choices are, a row of a batch being known to take this share of one alone. */
static int batches_of(struct policy *p, struct model *m, double share)
{
    struct served v = { .model = m };
    struct infer c = { .to = &v };
    int n = 0;
    atomic_store(&m->share, (int64_t)(share * SHARE_ONE));
    atomic_store(&m->compared, share > 0 ? COMPARE_OVER : 0);
    for (int i = 0; i < ALONE_OF; i++)
        n += batch_pays(p, &c, true);
    return n;
}

TEST(a_batch_that_does_not_pay_is_seldom_tried_again)
{
    struct policy *p = calloc(1, sizeof *p);
    struct model m = { 0 };
    p->batching.adaptive = true;
    CHECK(batches_of(p, &m, 0) == ALONE_OF / LEARN_OF * (LEARN_OF - 1)); /* not known */
    CHECK(batches_of(p, &m, 0.3) == ALONE_OF - TRY_ALONE);
    CHECK(batches_of(p, &m, 0.99) <= TRY_BATCH && batches_of(p, &m, 2) <= TRY_BATCH);
    int tries = 0;
    for (int i = 0; i < BATCH_OF / ALONE_OF; i++)
        tries += batches_of(p, &m, 2);
    CHECK(tries == TRY_BATCH);
    p->batching.adaptive = false; /* as the spec says */
    CHECK(batches_of(p, &m, 2) == ALONE_OF);
    free(p);
}

/* What is compared is what was measured at the same time: a machine that is slower for a while changes nothing. */
TEST(a_slow_moment_is_no_news_of_batches)
{
    struct model m = { 0 };
    struct tally *t = aligned_alloc(_Alignof(struct tally), sizeof *t);
    struct served v = { .model = &m, .tally = t };
    struct infer c = { .to = &v, .count = &t->stripe[0] };
    struct policy *p = calloc(1, sizeof *p);
    memset(t, 0, sizeof *t);
    p->batching.adaptive = true;
    int64_t pace = 100000; /* ns of a row alone; a batch of four takes 3 % less for each */
    for (int i = 0; i < 4 * BATCH_OF; i++) {
        pace = i / 500 % 2 ? 150000 : 100000;
        bool batch = batch_pays(p, &c, true);
        run_count(&c, batch ? 4 : 1, batch ? 4 : 1, batch ? 4 * pace / 100 * 97 : pace);
    }
    CHECK(!batch_pays(p, &c, false) && llabs(m.share - SHARE_ONE / 100 * 97) < SHARE_ONE / 50);
    for (int i = 0; i < 16 * BATCH_OF; i++) { /* now half as much: it is found out */
        bool batch = batch_pays(p, &c, true);
        run_count(&c, batch ? 4 : 1, batch ? 4 : 1, batch ? 2 * pace : pace);
    }
    CHECK(batch_pays(p, &c, false));
    free(p);
    free(t);
}

TEST(a_batch_that_is_but_tried_is_small)
{
    int first, fd[12];
    struct asks *k = held(DEPLOYMENT(ONE ", batching: {maxBatch: 16}"), &first);
    for (size_t i = 0; i < 12; i++) {
        fd[i] = query(k, "x=1");
        wait_queue(k, i + 1);
    }
    atomic_store(&k->model->share, 2 * SHARE_ONE);
    atomic_store(&k->model->compared, COMPARE_OVER);
    atomic_store(&k->model->alone_ns,
                 1); /* no run that is put aside for a while makes a batch the better way */
    atomic_store(&k->model->turns, BATCH_OF - 1);
    toy_hold(k, false);
    answer(k, first, 200);
    for (size_t i = 0; i < 12; i++)
        CHECK_STR(answer(k, fd[i], 200), "2");
    CHECK(k->toy.runs == 6 && k->toy.rows[1] == TRY_ROWS && k->toy.rows[2] == 1);
    asks_free(k);
}

TEST(a_new_spec_answers_what_waited_under_the_old_one)
{
    int first;
    struct asks *k = held(BATCHES(""), &first);
    int a = query(k, "x=2");
    wait_queue(k, 1);
    struct policy *old = asks_policy(k);
    want(k->w, M_PUT, "/api/v1/projects/default/deployments/late",
         "{\"apiVersion\":\"dhow/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"late\"},"
         "\"spec\":{\"model\":\"late\",\"instances\":2}}",
         200);
    for (bool other = false; !other; nap()) {
        LOCKED(&k->w->serve->m);
        other = asks_policy(k) != old;
    }
    int b = query(k, "x=3");
    toy_running(k, 2);
    toy_hold(k, false);
    answer(k, first, 200);
    CHECK_STR(answer(k, a, 200), "4");
    CHECK_STR(answer(k, b, 200), "6");
    asks_free(k);
}

TEST(a_stop_answers_what_waits)
{
    int first;
    struct asks *k = held(BATCHES(""), &first);
    int a = query(k, "x=2");
    wait_queue(k, 1);
    toy_hold(k, false);
    net_stop(k->net);
    k->net = NULL;
    CHECK_STR(answer(k, first, 200), "2");
    CHECK_STR(answer(k, a, 200), "4");
    asks_free(k);
}

TEST(models_whose_rows_are_not_open_are_told_of)
{
    auto_arena struct arena *a = arena_new(0);
    struct toy t;
    memset(&t, 0, sizeof t);
    toy_init(&t, true);
    CHECK_STR(batch_unfit(a, &t.info), "");
    t.out[1].dims[0] = 1;
    CHECK_STR(batch_unfit(a, &t.info),
              "requests do not run together: the first dimension of 'next' is not open");
    t.in[0].rank = 0;
    CHECK_STR(batch_unfit(a, &t.info),
              "requests do not run together: the first dimension of 'x' is not open");
}

TEST(the_spec_is_checked)
{
    struct world *w = world_new();
    static const char *const wrong[] = {
        "kind: Deployment\nmetadata: {name: late}\nspec: {}\n",
        DEPLOYMENT(", ensemble: {steps: [{deployment: a, inputs: {a: b}, outputs: {c: d}}]}"),
        DEPLOYMENT(", batching: {preferred: [0]}"),
        DEPLOYMENT(", batching: {preferred: 4}"),
        DEPLOYMENT(", batching: {priorities: 2, defaultPriority: 3}"),
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_ERR(lab_apply(&w->l, serve_resources, wrong[i]), INVALID);
    CHECK_OK(lab_apply(&w->l, serve_resources, DEPLOYMENT(", batching: {preferred: [4, 8]}")));
    world_free(w);
}
