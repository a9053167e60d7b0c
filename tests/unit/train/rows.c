// SPDX-License-Identifier: Apache-2.0
#define SUITE train_rows
#include "samples.h"
#include <unistd.h>

enum { DAY = 86400 };
static const int64_t us = 1000000;

/* Ten rows, one a day; the label is known three days later. */
static struct rows ten_days(struct arena *a)
{
    struct rows r = { .n = 10, .features = 2, .until = 10 * DAY * us };
    r.x = NEW_N(a, float, 20);
    r.y = NEW_N(a, float, 10);
    r.at = NEW_N(a, int64_t, 10);
    r.known = NEW_N(a, int64_t, 10);
    for (size_t i = 0; i < 10; i++) {
        r.x[2 * i] = (float)i;
        r.y[i] = i % 2;
        r.at[i] = (int64_t)i * DAY * us;
        r.known[i] = r.at[i] + 3 * DAY * us;
    }
    return r;
}

TEST(a_sample_has_no_rhythm)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = 3 * SAMPLE_ROWS, have, count[3] = { 0 };
    float *x = NEW_N(a, float, 2 * n);
    for (size_t i = 0; i < n; i++) {
        x[2 * i] = (float)(i % 3);
        x[2 * i + 1] = (float)i;
    }
    CHECK(rows_sample(a, x, SAMPLE_ROWS, 2, &have) == x && have == SAMPLE_ROWS);
    const float *some = rows_sample(a, x, n, 2, &have);
    CHECK(have == SAMPLE_ROWS);
    for (size_t i = 0; i < have; i++) {
        size_t row = (size_t)some[2 * i + 1];
        CHECK(row / 3 == i && some[2 * i] == (float)(row % 3));
        count[row % 3]++;
    }
    for (int k = 0; k < 3; k++)
        CHECK(count[k] > have / 3 - have / 100 && count[k] < have / 3 + have / 100);
}

TEST(split_learns_only_from_labels_known_by_then)
{
    auto_arena struct arena *a = arena_new(0);
    struct rows r = ten_days(a);
    struct rows_split s;
    CHECK_OK(rows_split(&r, 3 * DAY * 1000, &s)); /* split at day 7 */
    CHECK(s.split == 7 * DAY * us && s.until == 10 * DAY * us && s.from == 0);
    CHECK(s.train == 4 && s.valid == 3 && s.unknown == 3); /* days 0-3; 7-9; 4-6: known on day 7 or later */
    CHECK(r.x[2 * 3] == 3 && r.x[2 * 4] == 7 && r.x[2 * 7] == 4);
}

TEST(split_orders_rows_by_time_and_place)
{
    auto_arena struct arena *a = arena_new(0);
    struct rows r = ten_days(a);
    r.at[0] = 2 * DAY * us; /* the same time as row 2: place decides */
    r.at[9] = 1;
    r.known[9] = 2;
    struct rows_split s;
    CHECK_OK(rows_split(&r, 4 * DAY * 1000, &s));
    CHECK(s.train == 4 && s.from == 1);
    CHECK(r.x[0] == 9 && r.x[2] == 1 && r.x[4] == 0 && r.x[6] == 2);
}

TEST(rows_without_label_or_time_are_left_out)
{
    auto_arena struct arena *a = arena_new(0);
    struct rows r = ten_days(a);
    r.y[1] = NAN;
    r.at[7] = INT64_MIN;
    r.known[0] = INT64_MIN;
    struct rows_split s;
    CHECK_OK(rows_split(&r, 3 * DAY * 1000, &s));
    CHECK(s.train == 2 && s.valid == 2 && s.unknown == 6);
}

TEST(split_needs_both_sides_and_both_classes)
{
    auto_arena struct arena *a = arena_new(0);
    struct rows r = ten_days(a);
    struct rows_split s;
    CHECK_ERR(rows_split(&r, 20LL * DAY * 1000, &s), INVALID);
    CHECK_ERR(rows_split(&r, INT64_MAX, &s), INVALID);
    for (size_t i = 7; i < 10; i++)
        r.y[i] = 1;
    CHECK_ERR(rows_split(&r, 3 * DAY * 1000, &s), INVALID);
}

TEST(rows_follow_the_roles_of_columns)
{
    auto_arena struct arena *a = arena_new(0);
    struct version_column roles[] = {
        { .name = S("id"), .role = IS_ID },          { .name = S("ts"), .role = IS_EVENT_TIME },
        { .name = S("known"), .role = IS_KNOWN_AT }, { .name = S("b"), .role = IS_FEATURE },
        { .name = S("a"), .role = IS_FEATURE },      { .name = S("late"), .role = IS_LABEL },
    };
    struct dataset_version_spec spec = { .columns = { roles, 6 }, .rows = 2 };
    struct columns in = { .rows = 2 };
    struct column *c = columns_add(a, &in, S("a"), COL_F64);
    c->f[0] = 0.1;
    c->f[1] = INFINITY;
    c = columns_add(a, &in, S("b"), COL_I64);
    c->i[0] = 7;
    c->null = NEW_N(a, uint8_t, 2);
    c->null[1] = 1;
    c = columns_add(a, &in, S("late"), COL_BOOL);
    c->i[0] = 1;
    c = columns_add(a, &in, S("ts"), COL_TIME);
    c->i[0] = 5;
    c->i[1] = 9;
    c = columns_add(a, &in, S("known"), COL_TIME);
    c->i[0] = 6;
    struct rows r;
    CHECK_OK(rows_from(a, &in, &spec, &r));
    CHECK(r.features == 2 && str_is(r.names[0], "b") && str_is(r.names[1], "a"));
    CHECK(r.x[0] == 7 && r.x[1] == 0.1f && isnan(r.x[2]) && isnan(r.x[3]));
    CHECK(r.y[0] == 1 && r.y[1] == 0 && r.at[1] == 9 && r.known[0] == 6 && r.until == 10);
    in.v[2].i[1] = 3; /* of more classes than two */
    CHECK_OK(rows_from(a, &in, &spec, &r));
    CHECK(r.y[0] == 1 && r.y[1] == 3);
    double endless[] = { 1, INFINITY };
    in.v[2].type = COL_F64;
    in.v[2].f = endless;
    CHECK_ERR(rows_from(a, &in, &spec, &r), INVALID);
    in.v[2].type = COL_TIME;
    CHECK_ERR(rows_from(a, &in, &spec, &r), INVALID);
}

TEST(rows_of_a_file_are_those_of_its_table)
{
    struct str version, path;
    auto_arena struct arena *a = arena_new(0);
    if (duck_library(a, &path, &version))
        cr_skip_test("libduckdb is not here");
    enum { N = 5000 };
    struct version_column roles[] = { { .name = S("ts"), .role = IS_EVENT_TIME },
                                      { .name = S("b"), .role = IS_FEATURE },
                                      { .name = S("a"), .role = IS_FEATURE },
                                      { .name = S("late"), .role = IS_LABEL } };
    struct dataset_version_spec spec = { .columns = { roles, 4 }, .rows = N };
    struct columns in = { .rows = N };
    for (size_t i = 0; i < 4; i++)
        columns_add(a, &in, roles[i].name, (enum column_type[]){ COL_TIME, COL_I64, COL_F64, COL_BOOL }[i]);
    in.v[1].null = NEW_N(a, uint8_t, N);
    for (size_t i = 0; i < N; i++) {
        in.v[0].i[i] = (int64_t)(N - i);
        in.v[1].i[i] = (in.v[1].null[i] = i % 7 == 0) ? 0 : (int64_t)i;
        in.v[2].f[i] = (double)i / 3;
        in.v[3].i[i] = i % 2;
    }
    struct str file = fmt(a, "/tmp/dhow-rows-%d.parquet", (int)getpid());
    struct strs files = { &file, 1, 1 };
    CHECK_OK(parquet_save(a, str_z(a, file), &in, 0, N));
    struct rows x, y;
    CHECK_OK(rows_from(a, &in, &spec, &x));
    CHECK_OK(rows_load(a, &files, &spec, &y));
    CHECK(y.n == N && y.until == x.until && !memcmp(x.x, y.x, 2 * N * sizeof(float)));
    CHECK(!memcmp(x.y, y.y, N * sizeof(float)) && !memcmp(x.at, y.at, N * sizeof(int64_t)));
    spec.rows = N - 1; /* a file that is longer than its version says */
    CHECK_ERR(rows_load(a, &files, &spec, &y), INVALID);
    roles[1].name = S("nobody");
    spec.rows = N;
    CHECK_ERR(rows_load(a, &files, &spec, &y), INVALID);
    unlink(str_z(a, file));
}
