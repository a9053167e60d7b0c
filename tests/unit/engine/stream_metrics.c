// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_stream_metrics
#include "engine/engine.h"
#include "test.h"

#include <math.h>

static struct meter *meter_of(struct arena *a, enum meter_task task, int64_t classes)
{
    struct meter *s;
    CHECK_OK(meter_new(a, &(struct meter_spec){ .task = task, .classes = classes, .k = 2 }, &s));
    return s;
}

TEST(batches_say_what_arrays_say)
{
    auto_arena struct arena *a = arena_new(0);
    struct meter *s = meter_of(a, METER_BINARY, 0), *t = meter_of(a, METER_BINARY, 0);
    float p[1000], y[1000];
    uint64_t seed = 1;
    for (int i = 0; i < 1000; i++) {
        p[i] = (float)(splitmix(&seed) >> 40) / 16777216;
        y[i] = splitmix(&seed) % 3 == 0;
    }
    CHECK_OK(meter_add(s, p, y, 400));
    CHECK_OK(meter_add(t, p + 400, y + 400, 600));
    meter_merge(s, t);
    CHECK(meter_rows(s) == 1000);
    for (size_t i = 0; i < metric_table_n; i++)
        if (meter_find(metric_table[i].name)->tasks & METER_BINARY)
            CHECK(fabs(meter_value(s, metric_table[i].name) - metric_table[i].of(a, p, y, 1000)) < 1e-12);
    meter_reset(s);
    CHECK(meter_rows(s) == 0 && isnan(meter_value(s, S("auc"))) && isnan(meter_value(s, S("logLoss"))));
    CHECK_OK(meter_add(s, p, y, 10));
    CHECK(fabs(meter_value(s, S("auc")) - metric_auc(a, p, y, 10)) < 1e-12);
}

TEST(a_confusion_is_by_label_and_claim)
{
    auto_arena struct arena *a = arena_new(0);
    struct meter *s = meter_of(a, METER_CLASSES, 3);
    static const float p[] = { 0.5f, 0.3f, 0.2f, 0.1f, 0.8f, 0.1f, 0.4f, 0.4f, 0.2f, 0.2f, 0.3f, 0.5f };
    static const int64_t y[] = { 0, 2, 1, 1 };
    int64_t n;
    CHECK_OK(meter_add(s, p, y, 4));
    const int64_t *c = meter_confusion(s, &n);
    CHECK(n == 3 && c[0] == 1 && c[7] == 1 && c[3] == 1 && c[5] == 1 && c[4] == 0);
    CHECK(meter_value(s, S("accuracy")) == 0.25);
    CHECK(meter_value(s, S("topK")) == 0.75); /* of two 0.1 the first comes first */
    CHECK(isnan(meter_value(s, S("rmse"))) && isnan(meter_value(s, S("nonsense"))));
}

TEST(labels_out_of_range_are_named)
{
    auto_arena struct arena *a = arena_new(0);
    static const float p[] = { 0, 1, 1, 0 };
    err e = meter_add(meter_of(a, METER_CLASSES, 2), p, (int64_t[]){ 0, 2 }, 2);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->text, "label 2 in row 1 is not among 2 classes");
    CHECK_ERR(meter_add(meter_of(a, METER_BINARY, 0), p, (float[]){ 0.5f }, 1), INVALID);
    struct meter *s = meter_of(a, METER_TOKENS, 2);
    CHECK_OK(meter_add(s, p, (int64_t[]){ -1, 0 }, 2));
    CHECK(meter_rows(s) == 1);
    CHECK_ERR(meter_new(a, &(struct meter_spec){ .task = METER_CLASSES }, &s), INVALID);
}

TEST(a_nan_spoils_what_follows)
{
    auto_arena struct arena *a = arena_new(0);
    struct meter *s = meter_of(a, METER_CLASSES, 2);
    static const float p[] = { 0.2f, 0.8f, NAN, 0.5f };
    CHECK_OK(meter_add(s, p, (int64_t[]){ 1, 1 }, 2));
    CHECK(isnan(meter_value(s, S("accuracy"))));
    meter_reset(s);
    CHECK_OK(meter_add(s, p, (int64_t[]){ 1 }, 1));
    CHECK(meter_value(s, S("accuracy")) == 1);
}

TEST(every_metric_fits_a_task)
{
    for (size_t i = 0; i < meter_table_n; i++)
        CHECK(meter_table[i].tasks && meter_table[i].of && *meter_table[i].doc);
}
