// SPDX-License-Identifier: Apache-2.0
#define SUITE train_fit
#include "samples.h"

static bool best_at_three(void *arg, int round, double train_loss, const float *p, double *worth)
{
    (void)sample_last(arg, round, train_loss, p, worth);
    *worth = abs(round - 2);
    return true;
}

TEST(the_same_seed_gives_the_same_model)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct trees_with with = sample_params(a, 12);
    with.subsample = 0.7;
    with.columns = 0.7;
    struct str native[3];
    for (int i = 0; i < 3; i++) {
        struct rows rows;
        struct rows_split split;
        struct fit fit;
        sample_rows(a, 4000, 6, 1, &rows);
        with.seed = i == 2 ? 8 : 7;
        CHECK_OK(sample_fit(a, &rows, &with, &split, &fit));
        native[i] = fit.native;
    }
    CHECK(str_eq(native[0], native[1]));
    CHECK(!str_eq(native[0], native[2]));
}

TEST(it_learns_and_stops_when_it_gets_no_better)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct rows_split split;
    struct fit fit;
    struct trees_with with = sample_params(a, 400);
    with.stop_after = 5;
    with.learning_rate = 0.5;
    sample_rows(a, 5000, 5, 3, &rows);
    CHECK_OK(sample_fit(a, &rows, &with, &split, &fit));
    CHECK(fit.rounds == fit.best + 5 && fit.rounds < 400);
    CHECK((int)fit.trees.n_trees == fit.best);
    CHECK(metric_auc(a, fit.score + split.train, rows.y + split.train, split.valid) > 0.8);
    CHECK(metric_calibration_error(a, fit.score, rows.y, split.train) < 0.05);
}

/* Rows held out are followed round by round, those of the test asked once, those learned from are XGBoost's: all have what the trees
 * kept give them, be the last round among these or not, by one thread or by two, by shallow trees or by deep ones. */
TEST(scores_are_those_of_the_rounds_kept)
{
    NEED_XGBOOST();
    enum { FEATURES = 3, KEPT = 3 };
    auto_arena struct arena *a = arena_new(0);
    const struct {
        bool last;
        int64_t depth;
        struct rows_split split;
    } cases[] = {
        { false, 6, { .train = 20000, .valid = 40001, .test = 180011 } },
        { true, 6, { .train = 20000, .valid = 7, .test = 5 } },
        { false, 10, { .train = 20000, .valid = 140003, .test = 1 } },
        { true, 10, { .train = 20000, .valid = 140003, .test = 0 } },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct rows rows;
        struct fit fit;
        const struct rows_split *split = &cases[c].split;
        const size_t n = split->train + split->valid + split->test;
        struct trees_with with = sample_params(a, 6);
        with.depth = cases[c].depth;
        sample_rows(a, n, FEATURES, 3, &rows);
        CHECK_OK(fit_trees(a, &rows, split, &with, &(struct fit_goal){ .task = METER_BINARY }, 2,
                           &(struct fit_watch){ cases[c].last ? sample_last : best_at_three }, &fit));
        CHECK(fit.rounds == 6 && fit.best == (cases[c].last ? 6 : KEPT));
        float *want = NEW_N(a, float, n);
        trees_predict(&fit.trees, rows.x, n, FEATURES, want);
        for (size_t i = 0; i < n; i++)
            CHECK(fabsf(want[i] - fit.score[i]) < (i < split->train ? 1e-5f : 1e-7f));
    }
}

static bool loss_take(void *arg, int round, double train_loss, const float *p, double *worth)
{
    (void)sample_last(NULL, round, train_loss, p, worth);
    *(double *)arg = train_loss;
    return isnan(train_loss) == (round % 10 != 0);
}

/* What a round tells of the rows learned from is the mean of what XGBoost's own scores of them lose. */
TEST(the_loss_told_is_that_of_the_rows_learned_from)
{
    NEED_XGBOOST();
    enum { N = 3000, FEATURES = 4 };
    auto_arena struct arena *a = arena_new(0);
    float *weight = NEW_N(a, float, N);
    for (size_t i = 0; i < N; i++)
        weight[i] = (float)(1 + i % 3);
    const struct fit_goal goals[] = {
        { .task = METER_BINARY, .weight = weight },
        { .task = METER_CLASSES, .classes = 3 },
        { .task = METER_NUMBERS, .loss = LOSS_MSE, .weight = weight },
        { .task = METER_NUMBERS, .loss = LOSS_MAE },
        { .task = METER_NUMBERS, .loss = LOSS_HUBER, .delta = 2 },
    };
    for (size_t g = 0; g < sizeof goals / sizeof *goals; g++) {
        struct rows rows;
        struct fit fit;
        struct rows_split split = { .train = N * 4 / 5, .valid = N / 5 };
        struct trees_with with = sample_params(a, 11);
        double told = NAN, sum = 0, all = 0;
        sample_rows(a, N, FEATURES, 3, &rows);
        for (size_t i = 0; i < N && g > 0; i++)
            rows.y[i] = g == 1 ? (float)(i % 3) : 7 * rows.y[i] + (float)(i % 5);
        CHECK_OK(
            fit_trees(a, &rows, &split, &with, &goals[g], 2, &(struct fit_watch){ loss_take, &told }, &fit));
        CHECK(fit.best == 11);
        for (size_t i = 0; i < split.train; i++) {
            const float *p = fit.score + i * trees_outputs(&fit.trees);
            const double w = goals[g].weight ? (double)goals[g].weight[i] : 1,
                         d = (double)p[0] - (double)rows.y[i];
            const double of[] = { -log(rows.y[i] > 0 ? (double)p[0] : 1 - (double)p[0]), 0, d * d, fabs(d),
                                  4 * (sqrt(1 + d * d / 4) - 1) };
            sum += w * (g == 1 ? -log((double)p[(size_t)rows.y[i]]) : of[g]);
            all += w;
        }
        CHECK(fabs(told - sum / all) < 1e-5 * sum / all);
    }
}

static bool stop_at_three(void *arg, int round, double train_loss, const float *p, double *worth)
{
    (void)sample_last(arg, round, train_loss, p, worth);
    return round < 3;
}

TEST(a_stop_is_cancelled)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct rows_split split;
    struct fit fit;
    struct trees_with with = sample_params(a, 50);
    sample_rows(a, 500, 3, 3, &rows);
    CHECK_OK(rows_split(&rows, 100000, &split));
    CHECK_ERR(fit_trees(a, &rows, &split, &with, &(struct fit_goal){ .task = METER_BINARY }, 1,
                        &(struct fit_watch){ stop_at_three }, &fit),
              CANCELLED);
    CHECK(fit.rounds == 4);
}

/* So many rows that the edges of bins come from a part of them. */
TEST(many_rows_are_learned_as_well)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct rows_split split;
    struct fit fit;
    struct trees_with with = sample_params(a, 10);
    with.learning_rate = 0.5;
    sample_rows(a, 340000, 4, 5, &rows);
    for (size_t i = 0; i < rows.n; i++) {
        rows.x[4 * i + 2] = i % 100000 == 77 ? 1e9f : NAN; /* a value so rare that it is in no sample */
        rows.x[4 * i + 3] = (float)(i % 24);
        if (i % 24 == 7)
            rows.y[i] = 1;
    }
    CHECK_OK(sample_fit(a, &rows, &with, &split, &fit));
    CHECK(split.train > 2 * SAMPLE_ROWS);
    CHECK(metric_auc(a, fit.score + split.train, rows.y + split.train, split.valid) > 0.75);
    size_t hours = 0;
    for (size_t i = 0; i < fit.trees.n_nodes; i++)
        if (fit.trees.nodes[i].feature == 3) { /* few values: each has a bin */
            CHECK(fit.trees.nodes[i].value == floorf(fit.trees.nodes[i].value));
            hours += fit.trees.nodes[i].value == 7 || fit.trees.nodes[i].value == 8;
        }
    CHECK(hours >= 2);
}

/* Debian's is some years older than the one that set-up fetches. */
TEST(each_version_of_the_library_will_do)
{
    setenv("DHOW_XGBOOST_LIB", "libxgboost.so.0", 1);
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct rows_split split;
    struct fit fit;
    struct trees_with with = sample_params(a, 20);
    sample_rows(a, 3000, 5, 3, &rows);
    CHECK_OK(sample_fit(a, &rows, &with, &split, &fit));
    CHECK(metric_auc(a, fit.score + split.train, rows.y + split.train, split.valid) > 0.8);
    CHECK_OK(sample_classes(a, &rows, &split, &fit));
    CHECK(fit.trees.link == LINK_SOFTMAX && fit.trees.outputs == 3 && fit.trees.n_trees == 60);
}

/* Each goal by Debian's library, too: what it is to learn is what it learns. */
TEST(each_goal_is_learned_by_an_older_library)
{
    enum { N = 2000, FEATURES = 4, GROUP = 10 };
    setenv("DHOW_XGBOOST_LIB", "libxgboost.so.0", 1);
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    float *weight = NEW_N(a, float, N);
    int64_t *group = NEW_N(a, int64_t, N);
    for (size_t i = 0; i < N; i++) {
        weight[i] = (float)(1 + i % 3);
        group[i] = (int64_t)(i / GROUP);
    }
    const struct fit_goal goals[] = {
        { .task = METER_NUMBERS, .loss = LOSS_MSE, .weight = weight },
        { .task = METER_NUMBERS, .loss = LOSS_MAE, .weight = weight },
        { .task = METER_NUMBERS, .loss = LOSS_HUBER, .delta = 2 },
        { .task = METER_RANKING, .group = group },
    };
    for (size_t g = 0; g < sizeof goals / sizeof *goals; g++) {
        struct rows rows;
        struct fit fit;
        struct rows_split split = { .train = N * 3 / 5, .valid = N / 5, .test = N / 5 };
        struct trees_with with = sample_params(a, 40);
        with.learning_rate = 0.3;
        sample_rows(a, N, FEATURES, 3, &rows);
        for (size_t i = 0; i < N; i++)
            rows.y[i] = 5 * (isnan(rows.x[i * FEATURES]) ? 0 : rows.x[i * FEATURES]) + 20;
        CHECK_OK(fit_trees(a, &rows, &split, &with, &goals[g], 2, &(struct fit_watch){ sample_last }, &fit));
        CHECK(fit.trees.link == LINK_NONE);
        size_t right = 0, pairs = 0;
        for (size_t i = N * 4 / 5; i + 1 < N; i++) { /* of the test */
            bool more = rows.y[i + 1] > rows.y[i] + 0.5f;
            pairs += more;
            right += more && fit.score[i + 1] > fit.score[i];
            if (goals[g].task == METER_NUMBERS)
                CHECK(fabsf(fit.score[i] - rows.y[i]) < 2);
        }
        CHECK(pairs > 50 && right > pairs * 9 / 10);
    }
}

TEST(weights_that_leave_nothing_are_refused)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct fit fit;
    struct rows_split split = { .train = 400, .valid = 100 };
    struct trees_with with = sample_params(a, 2);
    sample_rows(a, 500, 3, 3, &rows);
    float *weight = NEW_N(a, float, rows.n);
    const struct fit_goal goals[] = { { .task = METER_BINARY, .weight = weight },
                                      { .task = METER_NUMBERS, .loss = LOSS_MSE, .weight = weight } };
    for (int g = 0; g < 2; g++)
        CHECK_ERR(fit_trees(a, &rows, &split, &with, &goals[g], 1, &(struct fit_watch){ sample_last }, &fit),
                  INVALID);
}

TEST(a_missing_library_is_named)
{
    setenv("DHOW_XGBOOST_LIB", "/nowhere/libxgboost.so", 1);
    auto_arena struct arena *a = arena_new(0);
    struct str version;
    err e = xgb_version(a, &version);
    CHECK(e && e->code == UNAVAILABLE && e->hint.n > 0);
    CHECK(strstr(str_z(a, e->text), "/nowhere/libxgboost.so"));
}

/* XGBoost's JSON of 1.7 (base_score a number) and of 3.x (a list), by hand: x0 < 0.5 ? -1 : (x1 < 2 ? 3 : 4), missing
 * goes left, then right; node 3 was pruned. */
#define MODEL(base)                                                                                                    \
    S("{\"learner\":{\"learner_model_param\":{\"base_score\":\"" base                                                  \
      "\",\"num_class\":\"0\",\"num_feature\":\"2\"},"                                                                 \
      "\"objective\":{\"name\":\"binary:logistic\"},\"gradient_booster\":{\"name\":\"gbtree\",\"model\":{\"trees\":[{" \
      "\"left_children\":[1,-1,4,-1,-1,-1],\"right_children\":[2,-1,5,-1,-1,-1],\"split_indices\":[0,0,1,0,0,0],"      \
      "\"split_conditions\":[5E-1,-1,2,9,3,4],\"default_left\":[true,0,0,0,0,0],\"split_type\":[0,0,0,0,0,0]}]}}}}")

TEST(its_json_of_every_version_becomes_trees)
{
    auto_arena struct arena *a = arena_new(0);
    const struct str models[] = { MODEL("5E-1"), MODEL("[5E-1]") };
    const float x[] = { 0.4f, 9, 0.5f, 1, 0.5f, 2, NAN, 0, 1, NAN }, want[] = { -1, 3, 4, -1, 4 };
    for (size_t m = 0; m < 2; m++) {
        struct trees t;
        float p[5];
        CHECK_OK(xgb_trees(a, models[m], &t));
        CHECK(t.n_nodes == 5 && t.n_trees == 1 && t.base == 0 && t.link == LINK_LOGISTIC);
        t.link = LINK_NONE;
        trees_predict(&t, x, 5, 2, p);
        CHECK(!memcmp(p, want, sizeof p));
    }
}

/* Three trees of one leaf, each of a class. */
#define CLASSES(base, turns)                                                                       \
    S("{\"learner\":{\"learner_model_param\":{\"base_score\":\"" base                              \
      "\",\"num_class\":\"3\",\"num_feature\":\"1\"},\"objective\":{\"name\":\"multi:softprob\"}," \
      "\"gradient_booster\":{\"name\":\"gbtree\",\"model\":{\"tree_info\":" turns                  \
      ",\"trees\":[" LEAF("0") "," LEAF("1") "," LEAF("2") "]}}}}")
#define LEAF(value)                                                                                      \
    "{\"left_children\":[-1],\"right_children\":[-1],\"split_indices\":[0],\"split_conditions\":[" value \
    "],\"default_left\":[0],\"split_type\":[0]}"

TEST(its_classes_take_turns)
{
    auto_arena struct arena *a = arena_new(0);
    const float x[] = { 0, NAN };
    float p[6], sum = 1 + expf(1) + expf(2);
    struct trees t;
    CHECK_OK(xgb_trees(a, CLASSES("[5E-1,5E-1,5E-1]", "[0,1,2]"), &t));
    CHECK(t.outputs == 3 && t.n_trees == 3 && t.link == LINK_SOFTMAX && t.base == 0.5f);
    trees_predict(&t, x, 2, 1, p);
    for (int i = 0; i < 6; i++)
        CHECK(fabsf(p[i] - expf((float)(i % 3)) / sum) < 1e-6f);
    CHECK_ERR(xgb_trees(a, CLASSES("5E-1", "[0,2,1]"), &t), UNSUPPORTED);
    CHECK_ERR(xgb_trees(a, CLASSES("5E-1", "[0,1]"), &t), INVALID);
    CHECK_ERR(xgb_trees(a, CLASSES("[5E-1,4E-1,5E-1]", "[0,1,2]"), &t), INVALID);
}

TEST(a_model_that_is_none_is_refused)
{
    auto_arena struct arena *a = arena_new(0);
    struct trees t;
    struct str good = MODEL("5E-1");
    CHECK_ERR(xgb_trees(a, S("{}"), &t), UNSUPPORTED);
    CHECK_ERR(xgb_trees(a, S("["), &t), INVALID);
    CHECK_ERR(xgb_trees(a, MODEL("2"), &t), INVALID);
    for (size_t i = 0; i + 1 < good.n; i++) { /* no digit changed makes it crash */
        char *text = (char *)(uintptr_t)str_z(a, good);
        if (text[i] < '0' || text[i] > '9')
            continue;
        text[i] = text[i] == '9' ? '1' : '9';
        (void)xgb_trees(a, (struct str){ text, good.n }, &t);
    }
    char *loop = (char *)(uintptr_t)str_z(a, good);
    *strstr(loop, "4,-1,-1,-1]") = '0'; /* node 2's left child is the root */
    CHECK_ERR(xgb_trees(a, (struct str){ loop, good.n }, &t), INVALID);
}
