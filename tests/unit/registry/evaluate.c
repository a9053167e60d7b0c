// SPDX-License-Identifier: Apache-2.0
#define SUITE registry_evaluate
#include "help.h"

enum { ROWS = 1000 };
static const int64_t second_us = 1000000;

/* Row i happened at second i, its label is known a second later; y is 1 where a > 0.5, but for every 10th row. */
static void rows_make(struct lab *l)
{
    struct columns t = { .rows = ROWS };
    struct column *at = columns_add(l->a, &t, S("ts"), COL_TIME),
                  *known = columns_add(l->a, &t, S("known"), COL_TIME);
    struct column *a = columns_add(l->a, &t, S("a"), COL_F64), *b = columns_add(l->a, &t, S("b"), COL_F64);
    struct column *y = columns_add(l->a, &t, S("late"), COL_I64);
    for (size_t i = 0; i < ROWS; i++) {
        at->i[i] = (int64_t)(i + 1) * second_us;
        known->i[i] = at->i[i] + second_us;
        a->f[i] = (double)(i * 37 % 100) / 100;
        b->f[i] = 0;
        y->i[i] = (a->f[i] >= 0.5) != (i % 10 == 0);
    }
    struct version_file file = { .rows = ROWS };
    const char *path = blob_tmp(store_blobs(l->store), l->a, S(".parquet"));
    CHECK_OK(parquet_save(l->a, path, &t, 0, ROWS));
    CHECK_OK(blob_take(store_blobs(l->store), l->a, path, &file.sha, &file.bytes));
    struct version_column columns[] = { { .name = S("ts"), .role = IS_EVENT_TIME },
                                        { .name = S("known"), .role = IS_KNOWN_AT },
                                        { .name = S("a"), .role = IS_FEATURE },
                                        { .name = S("b"), .role = IS_FEATURE },
                                        { .name = S("late"), .role = IS_LABEL } };
    struct dataset_version_spec spec = { .of = S("TrainingSet/late_rows"),
                                         .number = 2,
                                         .rows = ROWS,
                                         .files = { &file, 1 },
                                         .columns = { columns, 5 } };
    CHECK_OK(resource_create(l->store, l->a, &dataset_version_resource, S("t"), S("default"),
                             S("late_rows.2"), &spec));
}

static double number(yyjson_val *obj, const char *key)
{
    return yyjson_get_num(yyjson_obj_get(obj, key));
}

static yyjson_val *judged(struct lab *l, const char *with)
{
    yyjson_val *out, *metrics;
    CHECK_OK(lab_job(l, &registry_evaluate, with, &out));
    CHECK_OK(json_parse(l->a, json_at(out, "metrics"), &metrics));
    return metrics;
}

#define NEED_ALL(l)                                     \
    do {                                                \
        struct runtime *need_;                          \
        NEED_DUCK(l);                                   \
        if (runtime_open(NULL, &need_))                 \
            cr_skip_test("libonnxruntime is not here"); \
        runtime_close(need_);                           \
    } while (0)

TEST(candidate_and_champion_meet_the_same_rows)
{
    struct lab l = shop_open();
    NEED_ALL(&l);
    rows_make(&l);
    version_made(&l, 1, step_model(l.a, 0.25f, -2, 2), true);
    version_made(&l, 2, step_model(l.a, 0.5f, -2, 2), true);
    yyjson_val *alone = judged(&l, "{\"model\":\"late\",\"version\":\"late.1\",\"rows\":\"late_rows.2\"}");
    CHECK(number(alone, "rows") == ROWS && yyjson_is_null(yyjson_obj_get(alone, "champion")));
    CHECK(yyjson_is_null(yyjson_obj_get(alone, "parityMaxAbs")));
    CHECK_OK(alias_set(&l, ALIAS_CHAMPION, "late.1"));
    yyjson_val *m = judged(
        &l, "{\"model\":\"late\",\"version\":\"late.2\",\"rows\":\"late_rows.2\",\"holdout\":\"100s\"}");
    yyjson_val *champion = yyjson_obj_get(m, "champion");
    CHECK(number(m, "rows") == 100 && number(champion, "rows") == 100);
    CHECK(fabs(number(m, "accuracy") - 0.9) < 1e-9);
    CHECK(number(champion, "accuracy") < 0.8 && number(champion, "auc") < number(m, "auc"));
    CHECK(number(champion, "logLoss") > number(m, "logLoss"));
    lab_close(&l);
}

TEST(later_months_are_judged_by_event_time)
{
    struct lab l = shop_open();
    NEED_ALL(&l);
    rows_make(&l);
    version_made(&l, 1, step_model(l.a, 0.5f, -2, 2), true);
    yyjson_val *m = judged(&l, "{\"model\":\"late\",\"version\":\"late.1\",\"rows\":\"late_rows.2\","
                               "\"from\":\"1970-01-01T00:10:00Z\",\"until\":\"1970-01-01T00:11:00Z\"}");
    CHECK(number(m, "rows") == 60);
    yyjson_val *out;
    CHECK_ERR(
        lab_job(
            &l, &registry_evaluate,
            "{\"model\":\"late\",\"version\":\"late.1\",\"rows\":\"late_rows.2\",\"from\":\"2001-01-01\"}",
            &out),
        INVALID);
    lab_close(&l);
}
