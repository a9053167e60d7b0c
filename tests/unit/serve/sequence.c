// SPDX-License-Identifier: Apache-2.0
/* Requests that belong together: order, state, and what is refused. */
#define SUITE serve_sequence
#include "asks.h"

#define SEQUENCES(more) \
    DEPLOYMENT(", instances: 2, sequence: {maxSequences: 3, state: [{input: state, output: next}]" more)
#define ALONE SEQUENCES("}")

static size_t sequences_of(struct asks *k)
{
    return sequences_count(asks_policy(k)->sequences);
}

TEST(state_goes_from_request_to_request)
{
    struct asks *k = asks_new(ALONE, true);
    CHECK_STR(answer_to(k, "x=1&sequence=a&start=1", 200), "1");
    CHECK_STR(answer_to(k, "x=10&sequence=b&start=1", 200), "10");
    CHECK_STR(answer_to(k, "x=2&sequence=a", 200), "3");
    CHECK_STR(answer_to(k, "x=20&sequence=b", 200), "30");
    CHECK_STR(answer_to(k, "x=3&sequence=a&end=1", 200), "6");
    CHECK(has(answer_to(k, "x=3&sequence=a", 400), "must specify the START flag"));
    CHECK_STR(answer_to(k, "x=5&sequence=b&start=1", 200), "5"); /* from zeros again */
    CHECK(has(answer_to(k, "x=3", 400), "must specify a non-zero or non-empty correlation ID"));
    CHECK(sequences_of(k) == 1);
    asks_free(k);
}

TEST(one_at_a_time_and_in_order)
{
    struct asks *k = asks_new(ALONE, true);
    int fd[7];
    toy_hold(k, true);
    fd[0] = query(k, "x=1&sequence=a&start=1");
    toy_running(k, 1);
    for (size_t i = 1; i < 6; i++) {
        fd[i] = query(k, fmtz(k->w->l.a, "x=%d&sequence=a%s", 1 << i, i == 5 ? "&end=1" : ""));
        wait_queue(k, i);
    }
    fd[6] = query(k, "x=100&sequence=b&start=1");
    toy_running(k, 2); /* the other instance does not wait for a's turn */
    CHECK(k->toy.runs == 2 && k->toy.first[1] == 100);
    CHECK(sequences_of(k) == 1); /* a has got its end */
    toy_hold(k, false);
    static const char *const want[] = { "1", "3", "7", "15", "31", "63", "100" };
    for (size_t i = 0; i < 7; i++)
        CHECK_STR(answer(k, fd[i], 200), want[i]);
    asks_free(k);
}

TEST(sequences_run_together_each_with_its_own_state)
{
    struct asks *k = asks_new(
        DEPLOYMENT(
            ", instances: 1, batching: {maxBatch: 8}, sequence: {maxSequences: 3, state: [{input: state, "
            "output: next}]}"),
        true);
    int fd[5];
    CHECK_STR(answer_to(k, "x=1&sequence=a&start=1", 200), "1");
    CHECK_STR(answer_to(k, "x=10&sequence=b&start=1", 200), "10");
    toy_hold(k, true);
    fd[0] = query(k, "x=0.5&sequence=c&start=1");
    toy_running(k, 1);
    static const char *const then[] = { "x=2&sequence=c", "x=2&sequence=a", "x=3&sequence=a",
                                        "x=20&sequence=b" };
    for (size_t i = 0; i < 4; i++) {
        fd[i + 1] = query(k, then[i]);
        wait_queue(k, i + 1);
    }
    toy_hold(k, false);
    static const char *const want[] = { "0.5", "2.5", "3", "6", "30" };
    for (size_t i = 0; i < 5; i++)
        CHECK_STR(answer(k, fd[i], 200), want[i]);
    CHECK(k->toy.runs == 5 && k->toy.rows[3] == 3 &&
          k->toy.rows[4] == 1); /* a's second waits for its first */
    asks_free(k);
}

TEST(there_is_a_bound_and_idle_ones_make_room)
{
    struct asks *k = asks_new(SEQUENCES(", idle: 300ms}"), true);
    answer_to(k, "x=1&sequence=a&start=1", 200);
    answer_to(k, "x=1&sequence=b&start=1", 200);
    answer_to(k, "x=1&sequence=c&start=1", 200);
    CHECK(has(answer_to(k, "x=1&sequence=d&start=1", 503), "more than 3 sequences"));
    for (int i = 0; i < 80; i++)
        nap();
    CHECK_STR(answer_to(k, "x=4&sequence=d&start=1", 200), "4");
    CHECK(has(answer_to(k, "x=4&sequence=a", 400), "START"));
    asks_free(k);
}

TEST(a_refused_request_leaves_the_sequence_as_it_was)
{
    struct asks *k = asks_new(ALONE, true);
    CHECK_STR(answer_to(k, "x=1&sequence=a&start=1", 200), "1");
    answer_to(k, "x=13&sequence=a", 400);
    CHECK_STR(answer_to(k, "x=2&sequence=a", 200), "3");
    asks_free(k);
}

/* The toy's state input stands in for a control. */
TEST(controls_tell_where_in_the_sequence_a_request_is)
{
    static const struct {
        const char *kind, *want[3];
    } rows[] = { { "start", { "8", "7", "7" } },
                 { "end", { "7", "7", "8" } },
                 { "ready", { "8", "8", "8" } } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct arena *a = arena_new(0);
        struct asks *k = asks_new(
            fmtz(a, DEPLOYMENT(", sequence: {maxSequences: 3, controls: [{input: state, kind: %s}]}"),
                 rows[i].kind),
            true);
        CHECK_STR(answer_to(k, "x=7&sequence=a&start=1", 200), rows[i].want[0]);
        CHECK_STR(answer_to(k, "x=7&sequence=a", 200), rows[i].want[1]);
        CHECK_STR(answer_to(k, "x=7&sequence=a&end=1", 200), rows[i].want[2]);
        asks_free(k);
        arena_free(a);
    }
}

TEST(a_model_without_the_inputs_is_told_of)
{
    auto_arena struct arena *a = arena_new(0);
    struct toy t;
    struct sequence_state state = { S("state"), S("next") };
    struct sequence_control control = { S("begins"), CONTROL_START };
    memset(&t, 0, sizeof t);
    toy_init(&t, true);
    struct sequencing s = { .max_sequences = 1, .state = { &state, 1 } };
    CHECK_STR(sequence_unfit(a, &s, &t.info), "");
    s.controls = (struct list){ &control, 1 };
    CHECK_STR(sequence_unfit(a, &s, &t.info), "it has no input 'begins' for the sequence's start");
    s.controls.n = 0;
    t.out[1].type = TENSOR_F64;
    CHECK(has(sequence_unfit(a, &s, &t.info), "are no state"));
}
