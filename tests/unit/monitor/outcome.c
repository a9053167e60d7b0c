// SPDX-License-Identifier: Apache-2.0
#define SUITE monitor_outcome
#include "help.h"
#include <stdlib.h>

enum { ROWS = 30000 };

/* Labels that the scores explain somewhat. */
static float *labels_make(struct arena *a, const float *scores, size_t n, uint64_t seed)
{
    float *y = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++)
        y[i] = uniform(&seed) < 0.1 + 0.6 * (double)scores[i] * scores[i];
    return y;
}

static struct columns batch_of(struct arena *a, const int64_t *ids, const float *labels, size_t n)
{
    struct columns b = { .rows = n };
    struct column *c = columns_add(a, &b, S("id"), COL_I64);
    memcpy(c->i, ids, n * sizeof *ids);
    c = columns_add(a, &b, S("late"), COL_F64);
    for (size_t i = 0; i < n; i++)
        c->f[i] = labels[i];
    return b;
}

static void push_batch(struct outcomes *o, const struct columns *b)
{
    outcomes_pushed(o, &b->v[0], &b->v[1], NULL, b->rows);
}

static size_t *shuffled(struct arena *a, size_t n, uint64_t seed)
{
    size_t *order = NEW_N(a, size_t, n);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        size_t k = splitmix(&seed) % i, t = order[i - 1];
        order[i - 1] = order[k];
        order[k] = t;
    }
    return order;
}

static struct columns batch_shuffled(struct arena *a, const float *labels, size_t n, uint64_t seed)
{
    const size_t *order = shuffled(a, n, seed);
    int64_t *ids = NEW_N(a, int64_t, n);
    float *y = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++) {
        ids[i] = (int64_t)order[i];
        y[i] = labels[order[i]];
    }
    return batch_of(a, ids, y, n);
}

TEST(auc_of_the_histogram_is_exact_within_its_bound)
{
    auto_arena struct arena *a = arena_new(0);
    struct auc *x = monitor_alloc(1, sizeof *x);
    for (int shape = 0; shape < 4; shape++) {
        float *p = scores_make(a, 11 + (uint64_t)shape, ROWS);
        float *y = labels_make(a, p, ROWS, 12);
        for (size_t i = 0; i < ROWS; i++) /* spread, crowded, quantised, no probabilities */
            p[i] = shape == 0   ? p[i]
                   : shape == 1 ? p[i] * p[i] * 0.003f
                   : shape == 2 ? floorf(p[i] * 20) / 20
                                : logf(p[i] / (1 - p[i]) + 1e-9f);
        memset(x, 0, sizeof *x);
        for (size_t i = 0; i < ROWS; i++)
            auc_add(x, p[i], y[i] > 0);
        double exact = metric_auc(a, p, y, ROWS), got = auc_value(x), bound = auc_error(x);
        cr_assert(fabs(got - exact) <= bound + 1e-12, "shape %d: %g, not %g within %g", shape, got, exact,
                  bound);
        cr_assert(shape == 1 || shape == 2 || bound < 0.0005, "shape %d: bound %g", shape, bound);
        CHECK(shape != 2 || fabs(got - exact) < 1e-12);
    }
    free(x);
}

TEST(auc_wants_both_classes)
{
    struct auc *x = monitor_alloc(1, sizeof *x);
    CHECK(isnan(auc_value(x)) && isnan(auc_value(NULL)));
    auc_add(x, 0.5f, true);
    auc_add(x, NAN, false);
    CHECK(isnan(auc_value(x)) && isnan(auc_error(x)) && auc_count(x) == 1);
    auc_add(x, -INFINITY, false);
    auc_add(x, -3e38f, false);
    auc_add(x, 3e38f, false);
    CHECK(auc_value(x) == 0.5);
    free(x);
}

/* Predictions and labels in every order of coming: the same AUC, and every outcome counted once. */
static void check_joined(bool labels_first, uint64_t seed)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(16 * ROWS);
    struct prediction p = prediction_of(a, 3, ROWS, 0, MAY, DAY);
    const float *y = labels_make(a, p.scores, ROWS, 4);
    struct columns batch = batch_shuffled(a, y, ROWS, seed);
    struct outcome_figures f;
    p.ids = ids_make(a, ROWS, 0);
    free(outcomes_window(o, p.version, MAY, MAY + DAY));
    if (labels_first)
        push_batch(o, &batch);
    outcomes_figures(o, a, &f);
    CHECK(f.outcomes == (labels_first ? ROWS : 0) && f.matched == 0);
    outcomes_predicted(o, &p);
    for (int again = 0; again < 2;
         again++) { /* the same rows pushed again, predicted again: nothing changes */
        push_batch(o, &batch);
        outcomes_predicted(o, &p);
    }
    outcomes_figures(o, a, &f);
    CHECK(f.outcomes == ROWS && f.matched == ROWS && f.versions_n == 1);
    CHECK(f.versions[0].n == ROWS);
    CHECK_STR(f.versions[0].version, "late.1");
    double exact = metric_auc(a, p.scores, y, ROWS);
    CHECK(fabs(f.versions[0].auc - exact) <= f.versions[0].error && f.versions[0].error < 1e-4);
    struct auc *window = outcomes_window(o, p.version, 0, 0);
    CHECK(auc_count(window) == ROWS && auc_value(window) == f.versions[0].auc);
    free(window);
    outcomes_free(o);
}

TEST(ids_are_joined_in_any_order)
{
    for (uint64_t seed = 1; seed < 4; seed++) {
        check_joined(false, seed);
        check_joined(true, seed);
    }
}

TEST(outcomes_after_the_close_count_into_the_total_alone)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(16 * ROWS);
    struct prediction p = prediction_of(a, 3, 1000, 0, MAY, DAY);
    const float *y = labels_make(a, p.scores, 1000, 4);
    struct columns batch = batch_shuffled(a, y, 1000, 1), half = batch;
    struct outcome_figures f;
    half.rows = 400;
    p.ids = ids_make(a, 1000, 0);
    free(outcomes_window(o, p.version, MAY, MAY + DAY));
    outcomes_predicted(o, &p);
    push_batch(o, &half);
    struct auc *window = outcomes_window(o, p.version, MAY + DAY, MAY + 2 * DAY);
    CHECK(auc_count(window) == 400);
    free(window);
    push_batch(o, &batch);
    CHECK(!outcomes_window(o, p.version, MAY + 2 * DAY, MAY + 3 * DAY));
    outcomes_figures(o, a, &f);
    CHECK(f.versions[0].n == 1000);
    outcomes_free(o);
}

TEST(versions_have_their_own_auc_and_only_the_champions_is_the_windows)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(16 * ROWS);
    struct prediction p = prediction_of(a, 3, 1000, 0, MAY, DAY), other = p;
    const float *y = labels_make(a, p.scores, 1000, 4);
    struct columns batch = batch_shuffled(a, y, 1000, 1);
    struct outcome_figures f;
    p.ids = ids_make(a, 700, 0);
    p.n = 700;
    other.version = S("late.2");
    other.n = 300;
    other.ids = ids_make(a, 300, 700);
    free(outcomes_window(o, p.version, MAY, MAY + DAY));
    outcomes_predicted(o, &other);
    outcomes_predicted(o, &p);
    push_batch(o, &batch);
    struct auc *window = outcomes_window(o, p.version, 0, 0);
    CHECK(auc_count(window) == 700);
    free(window);
    outcomes_figures(o, a, &f);
    CHECK(f.versions_n == 2 && f.versions[0].n == 700 && f.versions[1].n == 300);
    for (int i = 3; i < 30; i++) { /* a long line of versions forgets the oldest, never the champion */
        other.version = fmt(a, "late.%d", i);
        outcomes_predicted(o, &other);
    }
    outcomes_figures(o, a, &f);
    CHECK(f.versions_n == VERSIONS_MAX);
    CHECK_STR(f.versions[0].version, "late.1");
    outcomes_free(o);
}

TEST(memory_is_bounded_and_the_newest_are_kept)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(1600);
    struct prediction p = prediction_of(a, 3, ROWS, 0, MAY, DAY);
    const float *y = labels_make(a, p.scores, ROWS, 4);
    int64_t *ids = NEW_N(a, int64_t, ROWS);
    struct outcome_figures f;
    p.ids = ids_make(a, ROWS, 0);
    outcomes_predicted(o, &p);
    for (int64_t i = 0; i < ROWS; i++)
        ids[i] = i;
    struct columns newest = batch_of(a, ids + ROWS - 800, y + ROWS - 800, 800),
                   all = batch_of(a, ids, y, ROWS);
    push_batch(o, &newest);
    outcomes_figures(o, a, &f);
    CHECK(f.matched == 800);
    push_batch(o, &all);
    outcomes_figures(o, a, &f);
    CHECK(f.matched > 1500 && f.matched <= 1616 && f.outcomes == ROWS);
    outcomes_free(o);
}

TEST(the_newest_time_of_a_row_that_found_its_prediction_is_given)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(1600);
    struct prediction p = prediction_of(a, 3, 3, 0, MAY, DAY);
    struct columns b = batch_of(a, (const int64_t[]){ 0, 1, 2, 77 }, (const float[]){ 0, 1, 0, 1 }, 4);
    struct column *known = columns_add(a, &b, S("known_at"), COL_TIME);
    p.ids = ids_make(a, 3, 0);
    outcomes_predicted(o, &p);
    known->i[0] = MAY + 2 * DAY;
    known->i[1] = MAY + DAY;
    known->i[2] = known->i[3] = MAY + 90 * DAY; /* a null; a row that nobody asked about */
    known->null = NEW_N(a, uint8_t, 4);
    known->null[2] = 1;
    CHECK(outcomes_pushed(o, &b.v[0], &b.v[1], columns_find(&b, S("known_at")), 4) == MAY + 2 * DAY);
    CHECK(outcomes_pushed(o, &b.v[0], &b.v[1], columns_find(&b, S("known_at")), 4) == INT64_MIN);
    outcomes_free(o);
}

TEST(rows_without_id_or_label_are_passed_over)
{
    auto_arena struct arena *a = arena_new(0);
    struct outcomes *o = outcomes_new(1600);
    struct columns b = { .rows = 4 };
    struct outcome_figures f;
    struct column *id = columns_add(a, &b, S("id"), COL_STR);
    id->dict = NEW_N(a, struct str, 2);
    id->dict[0] = S("x");
    id->dict[1] = S("y");
    id->dict_n = 2;
    id->code[1] = id->code[3] = 1;
    id->null = NEW_N(a, uint8_t, 4);
    id->null[1] = 1;
    struct column *label = columns_add(a, &b, S("late"), COL_BOOL);
    label->null = NEW_N(a, uint8_t, 4);
    label->null[2] = 1;
    push_batch(o, &b);
    outcomes_figures(o, a, &f);
    CHECK(f.outcomes == 2);
    struct prediction p = prediction_of(a, 3, 3, 0, MAY, DAY);
    p.ids = (const struct str[]){ S("y"), S(""), S("z") };
    outcomes_predicted(o, &p);
    outcomes_figures(o, a, &f);
    CHECK(f.matched == 1);
    outcomes_free(o);
}
