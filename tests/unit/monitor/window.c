// SPDX-License-Identifier: Apache-2.0
#define SUITE monitor_window
#include "help.h"
#include <stdlib.h>

enum { ROWS = 20000 };

static const struct monitor_features bounds = { .wasserstein = 0.1, .psi = 0.25, .share = 0.3, .min = 200 };

static struct lens *lens_of(size_t rows)
{
    struct arena *a = arena_new(0);
    return lens_new(a, baseline_of(a, rows_make(a, 1, rows, 0), scores_make(a, 2, rows), rows), S("late.1"),
                    DAY, NULL);
}

static int float_cmp(const void *x, const void *y)
{
    float p = *(const float *)x, q = *(const float *)y;
    return (p > q) - (p < q);
}

static float *column_sorted(struct arena *a, const float *rows, size_t n, size_t k)
{
    float *v = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++)
        v[i] = rows[i * FEATURES + k];
    qsort(v, n, sizeof *v, float_cmp);
    return v;
}

/* ∫ |F − G| over the merged values, over the standard deviation of x. */
static double wasserstein_slow(const float *x, size_t nx, const float *y, size_t ny)
{
    double sum = 0, mean = 0, squares = 0;
    for (size_t i = 0, j = 0; i < nx || j < ny;) {
        double at = i < nx && (j >= ny || x[i] <= y[j]) ? x[i++] : y[j++];
        double next = i < nx && (j >= ny || x[i] <= y[j]) ? x[i] : j < ny ? y[j] : at;
        sum += fabs((double)i / (double)nx - (double)j / (double)ny) * (next - at);
    }
    for (size_t i = 0; i < nx; i++)
        mean += x[i] / (double)nx;
    for (size_t i = 0; i < nx; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return sum / sqrt(squares / (double)(nx - 1));
}

static size_t count_to(const float *v, size_t n, float edge)
{
    size_t i = 0;
    while (i < n && v[i] <= edge)
        i++;
    return i;
}

/* Ten bins between the deciles of x. */
static double psi_slow(const float *x, size_t nx, const float *y, size_t ny)
{
    double sum = 0;
    for (size_t b = 0; b < 10; b++) {
        size_t from_x = b ? count_to(x, nx, x[nx * b / 10 - 1]) : 0,
               from_y = b ? count_to(y, ny, x[nx * b / 10 - 1]) : 0;
        size_t to_x = b < 9 ? count_to(x, nx, x[nx * (b + 1) / 10 - 1]) : nx;
        size_t to_y = b < 9 ? count_to(y, ny, x[nx * (b + 1) / 10 - 1]) : ny;
        double r = fmax((double)(to_x - from_x) / (double)nx, 1e-4),
               c = fmax((double)(to_y - from_y) / (double)ny, 1e-4);
        sum += (c - r) * log(c / r);
    }
    return sum;
}

static struct closed *close_next(struct lens *l, struct arena *a, int64_t at)
{
    struct prediction p = prediction_of(a, 77, 1, 0, at, 1);
    CHECK(lens_add(l, &p));
    struct closed *c = lens_take(l);
    CHECK(c && !c->next);
    return c;
}

TEST(a_known_shift_measures_what_brute_force_does)
{
    auto_arena struct arena *a = arena_new(0);
    for (double shift = 0; shift < 2.5; shift += 0.4) {
        struct lens *l = lens_of(ROWS);
        struct prediction p = prediction_of(a, 5, ROWS / 2, shift, MAY, DAY);
        struct verdict v;
        CHECK(!lens_add(l, &p));
        struct closed *c = close_next(l, a, MAY + DAY);
        CHECK(c->predictions == ROWS / 2 && c->from == MAY && c->until == MAY + DAY);
        judge(a, &bounds, lens_baseline(l), c, &v);
        CHECK(v.n == FEATURES + 1 && v.judged);
        const float *ref = rows_make(a, 1, ROWS, 0);
        static const char *const names[] = { "delay", "flights", "hour", "score" };
        const struct monitor_drift *d[FEATURES + 1];
        for (size_t k = 0; k <= FEATURES; k++)
            d[k] = drift_named(v.drift, v.n, names[k]);
        for (size_t k = 0; k < 2; k++) { /* log-normal: its last cell is wide */
            const float *x = column_sorted(a, ref, ROWS, k), *y = column_sorted(a, p.features, ROWS / 2, k);
            double w = wasserstein_slow(x, ROWS, y, ROWS / 2), psi = psi_slow(x, ROWS, y, ROWS / 2);
            cr_assert(fabs(d[k]->wasserstein - w) < (k ? 0.06 : 0.02) * w + 0.002, "%s shift %g: %g, not %g",
                      names[k], shift, d[k]->wasserstein, w);
            cr_assert(fabs(d[k]->psi - psi) < 0.01 * psi + 0.001, "%s shift %g: psi %g, not %g", names[k],
                      shift, d[k]->psi, psi);
            CHECK(d[k]->over == (w >= 0.1 || psi >= 0.25) && d[k]->over == (d[k]->ratio >= 1));
            CHECK(fabs(d[k]->ratio - fmax(d[k]->wasserstein / 0.1, d[k]->psi / 0.25)) < 1e-12);
        }
        for (size_t i = 1; i < v.n; i++)
            CHECK(v.drift[i - 1].ratio >= v.drift[i].ratio);
        CHECK(!d[2]->over && !d[3]->over);
        CHECK(v.over == (shift > 0) && v.features == FEATURES && v.features_over == (shift > 0 ? 2 : 0));
        closed_free(c);
        lens_free(l);
    }
}

TEST(few_predictions_are_no_verdict)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 199, 3, MAY, DAY);
    struct verdict v;
    lens_add(l, &p);
    struct closed *c = close_next(l, a, MAY + DAY);
    judge(a, &bounds, lens_baseline(l), c, &v);
    CHECK(!v.judged && !v.over && isnan(v.share));
    closed_free(c);
    lens_free(l);
}

TEST(windows_tumble_and_a_batch_may_cross_them)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 700, 0, MAY, 7 * DAY);
    struct lens_figures f;
    CHECK(lens_add(l, &p));
    struct closed *list = lens_take(l);
    for (int i = 0; i < 6; i++) {
        struct closed *c = list;
        CHECK(c && c->predictions == 100 && c->from == MAY + i * DAY && c->until == c->from + DAY);
        list = c->next;
        closed_free(c);
    }
    CHECK(!list);
    lens_figures(l, &f);
    CHECK(f.predictions == 100 && f.total == 700 && f.late == 0 && f.lost == 0);
    lens_free(l);
}

TEST(a_late_row_is_left_out)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 100, 0, MAY, DAY),
                      late = prediction_of(a, 6, 10, 0, MAY - HOUR, 1);
    struct lens_figures f;
    lens_add(l, &p);
    CHECK(!lens_add(l, &late));
    lens_figures(l, &f);
    CHECK(f.predictions == 100 && f.late == 10);
    lens_free(l);
}

TEST(one_wrong_clock_moves_nothing_but_many_requests_do)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct lens_figures f;
    for (int i = 0; i < 100; i++) {
        struct prediction p = prediction_of(a, 5, 1, 0, MAY + i, 1),
                          now = prediction_of(a, 6, 64, 0, MAY + 9000 * DAY, HOUR);
        CHECK(!lens_add(l, &p));
        if (i > 30 && i % 3 == 0)
            CHECK(!lens_add(l, &now));
    }
    lens_figures(l, &f);
    CHECK(f.predictions == 100 && f.late == 23 * 64 && f.from == MAY);
    int moved = 0;
    for (int i = 0; i < FAR_CALLS; i++) {
        struct prediction back = prediction_of(a, 6, 2, 0, MAY - 90 * DAY + i, 2);
        moved += lens_add(l, &back);
    }
    lens_figures(l, &f);
    CHECK(moved == 1 && f.from == MAY - 90 * DAY + FAR_CALLS - 1 && f.predictions == 2);
    lens_free(l);
}

TEST(a_quiet_deployment_is_followed_at_once)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    for (int i = 0; i < 5; i++) {
        struct prediction p = prediction_of(a, 5, 1, 0, MAY + i * 10 * DAY, 1);
        CHECK(lens_add(l, &p) == (i > 0));
        struct closed *c = lens_take(l);
        CHECK((c != NULL) == (i > 0));
        if (c)
            closed_free(c);
    }
    lens_free(l);
}

TEST(an_outcome_closes_a_window_whose_end_has_passed)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct lens_figures f;
    CHECK(!lens_time(l, MAY)); /* no window yet */
    struct prediction p = prediction_of(a, 5, 300, 0, MAY, DAY),
                      next = prediction_of(a, 6, 50, 0, MAY + 36 * HOUR, HOUR);
    CHECK(!lens_add(l, &p));
    CHECK(!lens_time(l, INT64_MIN) && !lens_time(l, MAY + DAY - 1));
    CHECK(!lens_time(l, MAY + 2 * DAY)); /* a clock that is wrong */
    CHECK(lens_time(l, MAY + DAY));
    CHECK(!lens_time(l, MAY + 47 * HOUR) && !lens_time(l, MAY + 49 * HOUR)); /* an empty one stays open */
    struct closed *c = lens_take(l);
    CHECK(c && !c->next && c->from == MAY && c->until == MAY + DAY && c->predictions == 300);
    closed_free(c);
    CHECK(!lens_add(l, &next)); /* in the window that began at the end of the closed one */
    lens_figures(l, &f);
    CHECK(f.from == MAY + DAY && f.predictions == 50 && f.late == 0);
    lens_free(l);
}

TEST(a_window_that_stayed_empty_is_none)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct lens_figures f;
    struct prediction p = prediction_of(a, 5, 300, 0, MAY, DAY),
                      later = prediction_of(a, 6, 50, 0, MAY + 9 * DAY, HOUR);
    lens_add(l, &p);
    CHECK(lens_time(l, MAY + DAY));
    lens_add(l, &later);
    struct closed *c = lens_take(l);
    CHECK(c && !c->next && c->predictions == 300);
    closed_free(c);
    lens_figures(l, &f);
    CHECK(f.from == MAY + 9 * DAY && f.predictions == 50 && f.lost == 0);
    lens_free(l);
}

TEST(windows_nobody_judges_are_bounded)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 2000, 0, MAY, 20 * DAY);
    struct lens_figures f;
    CHECK(lens_add(l, &p));
    lens_figures(l, &f);
    CHECK(f.lost == 19 - CLOSED_MAX && f.predictions == 100);
    lens_free(l);
}

TEST(times_beyond_any_date_are_left_out)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 2, 0, MAY, 2);
    ((int64_t *)(uintptr_t)p.at)[0] = INT64_MAX;
    ((int64_t *)(uintptr_t)p.at)[1] = INT64_MIN;
    struct lens_figures f;
    CHECK(!lens_add(l, &p));
    lens_figures(l, &f);
    CHECK(f.late == 2 && f.total == 0);
    lens_free(l);
}

TEST(other_shapes_leave_features_alone)
{
    auto_arena struct arena *a = arena_new(0);
    struct lens *l = lens_of(2000);
    struct prediction p = prediction_of(a, 5, 500, 0, MAY, DAY);
    struct verdict v;
    p.n_features = 2;
    lens_add(l, &p);
    struct closed *c = close_next(l, a, MAY + DAY);
    judge(a, &bounds, lens_baseline(l), c, &v);
    CHECK(!v.judged && v.n == FEATURES + 1 && v.features_over == 0);
    CHECK_STR(v.drift[0].name, "score"); /* what could not be measured comes last */
    for (size_t k = 1; k <= FEATURES; k++)
        CHECK(isnan(v.drift[k].wasserstein));
    closed_free(c);
    lens_free(l);
}

/* ---- the alarm ---- */

static bool told(struct monitor_status *st, const char *windows)
{
    static const struct monitor_spec spec = { .sustain = 2, .cooldown = 14 * 24 * 3600 * 1000ll };
    bool any = false;
    for (int i = 0; windows[i]; i++) {
        struct verdict v = { .judged = windows[i] != '?', .over = windows[i] == '!' };
        any |= alarm_step(&spec, &v, MAY + (++st->windows_closed) * DAY, st);
    }
    return any;
}

TEST(one_odd_window_tells_nothing)
{
    struct monitor_status st = { 0 };
    CHECK(!told(&st, "..!") && st.alarm == ALARM_WATCHING);
    CHECK(!told(&st, ".!.?!.") && st.alarm == ALARM_NONE && st.events == 0);
}

TEST(a_sustained_drift_is_told_once)
{
    struct monitor_status st = { 0 };
    CHECK(told(&st, ".!!") && st.alarm == ALARM_DRIFTED && st.since == MAY + 3 * DAY &&
          st.drifted_at == st.since);
    CHECK(!told(&st, "!!!!") && st.alarm == ALARM_DRIFTED);
    CHECK(!told(&st, ".") && st.alarm == ALARM_DRIFTED);
    CHECK(!told(&st, ".") && st.alarm == ALARM_NONE);
    CHECK(!told(&st, "!!") && st.alarm == ALARM_DRIFTED && st.events == 1);
    CHECK(told(&st, "!!!!!!") && st.events == 2); /* the cooldown is over */
}

TEST(a_window_without_verdict_neither_breaks_nor_makes_a_run)
{
    struct monitor_status st = { 0 };
    CHECK(!told(&st, "!???") && st.alarm == ALARM_WATCHING);
    CHECK(told(&st, "!"));
}

TEST(the_event_names_the_features_over_a_bound)
{
    auto_arena struct arena *a = arena_new(0);
    struct monitor_drift d[] = { { S("f6"), 0.6, 9, 36, true },
                                 { S("score"), 0.5, 0.01, 5, true },
                                 { S("f4"), 0.4, NAN, 4, true },
                                 { S("f1"), 0.01, 0.02, 0.1, false } };
    struct verdict v = { .drift = d, .n = 4, .features = 3, .features_over = 2, .share = 2.0 / 3 };
    struct monitor_spec spec = { .deployment = S("late"), .features = bounds };
    struct monitor_status st = { .version = S("late.1"), .streak = 2 };
    struct closed c = { .from = MAY - DAY, .until = MAY, .predictions = 500 };
    int64_t before = now_us();
    alarm_tell(a, &v, MAY, &st);
    const struct monitor_told *told = &st.last_alarm;
    CHECK_STR(told->reason, "2 of 3 features over a bound, in 2 windows running; the worst: f6 (Wasserstein "
                            "0.600, PSI 9.000)");
    CHECK_STR(told->version, "late.1");
    CHECK(told->time == MAY && told->at >= before && told->features.n == 2 && told->share == v.share);
    CHECK_STR(
        drifted_data(a, &spec, told, &c),
        "{\"time\":\"2001-05-01T00:00:00Z\",\"deployment\":\"late\",\"version\":\"late.1\","
        "\"share\":0.6666666666666666,\"reason\":\"2 of 3 features over a bound, in 2 windows running; the "
        "worst: f6 (Wasserstein 0.600, PSI 9.000)\",\"window\":{\"from\":\"2001-04-30T00:00:00Z\",\"until\":"
        "\"2001-05-01T00:00:00Z\",\"predictions\":500},\"features\":{\"f6\":{\"wasserstein\":0.6,\"psi\":9},"
        "\"f4\":{\"wasserstein\":0.4,\"psi\":null}}}");
}

TEST(the_event_is_bounded)
{
    auto_arena struct arena *a = arena_new(0);
    struct monitor_drift d[MONITOR_WORST + 10];
    struct verdict v = { .drift = d, .n = MONITOR_WORST + 10 };
    struct monitor_status st = { 0 };
    for (size_t i = 0; i < v.n; i++)
        d[i] = (struct monitor_drift){ fmt(a, "f%zu", i), 1, 1, 10, true };
    alarm_tell(a, &v, MAY, &st);
    CHECK(st.last_alarm.features.n == MONITOR_WORST);
}
