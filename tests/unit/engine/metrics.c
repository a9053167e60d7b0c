// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_metrics
#include "engine/engine.h"
#include "test.h"
#include <math.h>

#define NEAR(got, want) CHECK(fabs((got) - (want)) < 1e-6)

TEST(auc_counts_pairs_and_halves_ties)
{
    auto_arena struct arena *a = arena_new(0);
    /* Positives 0.8 and 0.5, negatives 0.5, 0.2, 0.9: pairs won 1 (0.8>0.5) + 1 (0.8>0.2) + 0 + ½ + 1 + 0 of 6. */
    const float p[] = { 0.8f, 0.5f, 0.5f, 0.2f, 0.9f }, y[] = { 1, 1, 0, 0, 0 };
    NEAR(metric_auc(a, p, y, 5), 3.5 / 6);
    const float same[] = { 0.3f, 0.3f, 0.3f, 0.3f, 0.3f };
    NEAR(metric_auc(a, same, y, 5), 0.5);
    const float best[] = { 0.8f, 0.9f, 0.1f, 0.2f, 0.3f };
    NEAR(metric_auc(a, best, y, 5), 1);
}

TEST(auc_needs_both_classes)
{
    auto_arena struct arena *a = arena_new(0);
    const float p[] = { 0.1f, 0.2f }, ones[] = { 1, 1 };
    CHECK(isnan(metric_auc(a, p, ones, 2)));
    CHECK(isnan(metric_auc(a, p, ones, 0)));
    CHECK(isnan(metric_average_precision(a, p, (const float[]){ 0, 0 }, 2)));
}

/* Every pair, one by one. */
static double auc_slow(const float *p, const float *y, size_t n)
{
    double won = 0, pairs = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < n; k++)
            if (y[i] == 1 && y[k] == 0) {
                pairs++;
                won += p[i] > p[k] ? 1 : p[i] == p[k] ? 0.5 : 0;
            }
    return won / pairs;
}

TEST(auc_equals_every_pair_counted)
{
    auto_arena struct arena *a = arena_new(0);
    uint64_t seed = 7;
    float p[700], y[700];
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < 700; i++) {
            p[i] = (float)(splitmix(&seed) % (uint64_t)(3 + round * 40)) / 50 - 1;
            y[i] = (float)(splitmix(&seed) % 3 == 0);
        }
        CHECK(fabs(metric_auc(a, p, y, 700) - auc_slow(p, y, 700)) < 1e-12);
    }
}

TEST(log_loss_clips_certainty)
{
    const float p[] = { 0.9f, 0.2f, 0.5f }, y[] = { 1, 0, 1 };
    NEAR(metric_log_loss(NULL, p, y, 3), -(log(0.9) + log(0.8) + log(0.5)) / 3);
    const float sure[] = { 0, 1 }, wrong[] = { 1, 0 };
    NEAR(metric_log_loss(NULL, sure, wrong, 2), -log(1e-7));
    CHECK(isnan(metric_log_loss(NULL, p, y, 0)));
}

TEST(log_loss_of_many_rows_is_the_sum_of_theirs)
{
    enum { N = 101 };
    float p[N], y[N];
    double want = 0;
    for (int i = 0; i < N; i++) {
        p[i] = ((float)(i * 37 % N) + 0.5f) / N;
        y[i] = i >= 70 && i < 75 ? 0.25f : (float)(i * 11 % 2); /* some are no classes */
        want -= (double)y[i] * log((double)p[i]) + (1 - (double)y[i]) * log(1 - (double)p[i]);
    }
    CHECK(fabs(metric_log_loss(NULL, p, y, N) - want / N) < 1e-12);
    p[40] = NAN;
    CHECK(isnan(metric_log_loss(NULL, p, y, N)));
    p[40] = 0.5f;
    p[72] = NAN;
    CHECK(isnan(metric_log_loss(NULL, p, y, N)));
}

TEST(calibration_error_weighs_ten_bins)
{
    /* Bin (0.1, 0.2]: scores 0.15, 0.15 (mean 0.15), labels 0, 1 (0.5), weight 2/4; bin (0.9, 1]: 1.0, label 1, exact;
     * bin [0, 0.1]: score 0, label 0, exact. */
    const float p[] = { 0.15f, 0.15f, 1.0f, 0.0f }, y[] = { 0, 1, 1, 0 };
    NEAR(metric_calibration_error(NULL, p, y, 4), 0.5 * 0.35);
    const float edge[] = { 0.5f, 0.50001f }, labels[] = { 1, 1 };
    NEAR(metric_calibration_error(NULL, edge, labels, 2), (0.5 + 0.49999) / 2);
}

TEST(rmse_and_accuracy)
{
    const float p[] = { 0.5f, 0, 1 }, y[] = { 1, 0, 0 };
    NEAR(metric_rmse(NULL, p, y, 3), sqrt(1.25 / 3));
    NEAR(metric_accuracy(NULL, p, y, 3), 2.0 / 3);
}

TEST(average_precision_steps_over_distinct_scores)
{
    auto_arena struct arena *a = arena_new(0);
    /* Descending 0.9 (1), 0.8 (0), 0.7 (1, 0 tied), 0.1 (0): ½·1 + ½·2/4. */
    const float p[] = { 0.9f, 0.8f, 0.7f, 0.7f, 0.1f }, y[] = { 1, 0, 1, 0, 0 };
    NEAR(metric_average_precision(a, p, y, 5), 0.75);
}

TEST(sort_orders_any_floats_and_carries_tags)
{
    auto_arena struct arena *a = arena_new(0);
    float v[] = { 3, -1, NAN, 0, -0.0f, INFINITY, -INFINITY, 1e-40f, -1e-40f, 2 };
    uint32_t tags[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 };
    sort_floats(a, v, tags, 10);
    const uint32_t want[] = { 6, 1, 8, 4, 3, 7, 9, 0, 5, 2 };
    CHECK(!memcmp(tags, want, sizeof want));
    CHECK(isnan(v[9]) && v[8] == INFINITY && v[0] == -INFINITY && v[2] == -1e-40f);
    sort_floats(a, v, NULL, 0);
}

TEST(table_finds_by_name)
{
    CHECK(metric_find(S("calibrationError"))->of == metric_calibration_error);
    CHECK(!metric_find(S("f1")));
}
