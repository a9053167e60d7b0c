// SPDX-License-Identifier: Apache-2.0
/* The join, the rings and the file between worker and daemon on small cases, against the rules written down as
 * loops. */
#define SUITE join
#include "feature/internal.h"
#include "data/lab.h"
#include <math.h>

enum { EVENTS = 60, LABELS = 40, CASES = 400 };
static const char definition[] =
    "{\"service\":\"s\",\"views\":[{\"name\":\"v\",\"dataset\":\"d\",\"keys\":[\"a\",\"b\"],\"id\":\"id\",\"eventTime\":\"t\","
    "\"knownAt\":\"k\",\"windows\":[\"5ms\",\"20ms\"],\"ttl\":\"30ms\",\"aggregates\":[{\"name\":\"n\",\"function\":\"count\"},"
    "{\"name\":\"c\",\"function\":\"count\",\"column\":\"x\"},{\"name\":\"s\",\"function\":\"sum\",\"column\":\"x\"},"
    "{\"name\":\"m\",\"function\":\"mean\",\"column\":\"y\"}]}],\"request\":[{\"name\":\"hour\",\"function\":\"hour\",\"column\":\"t\"}]}";

static bool same(double x, double y)
{
    return (isnan(x) && isnan(y)) || memcmp(&x, &y, 8) == 0;
}

static void null_at(struct arena *a, struct columns *t, size_t col, size_t row)
{
    struct column *c = &t->v[col];
    if (!c->null)
        c->null = NEW_N(a, uint8_t, t->rows);
    c->null[row] = 1;
    if (c->type == COL_F64)
        c->f[row] = NAN;
}

/* Columns id, a (text), b (number), t, k, x (number with nulls), y (fraction with nulls): few keys and times, so that
 * ties, late rows and nulls are common. */
static struct columns table_random(struct arena *a, uint64_t *seed, size_t rows)
{
    static struct str names[] = { { "p", 1 }, { "q", 1 }, { "", 0 } };
    static const struct column_def defs[] = { { { "id", 2 }, COL_I64 }, { { "a", 1 }, COL_STR },
                                              { { "b", 1 }, COL_I64 },  { { "t", 1 }, COL_TIME },
                                              { { "k", 1 }, COL_TIME }, { { "x", 1 }, COL_I64 },
                                              { { "y", 1 }, COL_F64 } };
    struct columns t = { .rows = rows };
    for (size_t i = 0; i < 7; i++)
        columns_add(a, &t, defs[i].name, defs[i].type);
    t.v[1].dict = names;
    t.v[1].dict_n = 3;
    for (size_t i = 0; i < rows; i++) {
        t.v[0].i[i] = (int64_t)i;
        t.v[1].code[i] = (uint32_t)(splitmix(seed) % 3);
        t.v[2].i[i] = (int64_t)(splitmix(seed) % 2) - 1;
        t.v[3].i[i] = (int64_t)(splitmix(seed) % 80) * 1000;
        t.v[4].i[i] = t.v[3].i[i] + (int64_t)(splitmix(seed) % 10) * 1000;
        t.v[5].i[i] = (int64_t)(splitmix(seed) % 2000) - 1000;
        t.v[6].f[i] = ((double)(splitmix(seed) % 20001) - 10000) / 7;
        for (size_t c = 1; c < 7; c++)
            if (splitmix(seed) % 12 == 0)
                null_at(a, &t, c, i);
    }
    return t;
}

static bool key_same(const struct columns *e, size_t i, const struct columns *l, size_t k)
{
    if (column_null(&e->v[1], i) || column_null(&e->v[2], i) || column_null(&l->v[1], k) ||
        column_null(&l->v[2], k))
        return false;
    return e->v[1].code[i] == l->v[1].code[k] && e->v[2].i[i] == l->v[2].i[k];
}

/* The rules of feature.h, one after the other. */
static void row_slow(const struct view *v, const struct columns *e, const struct columns *l, size_t k,
                     double *out)
{
    int64_t t = l->v[3].i[k], newest = INT64_MIN;
    for (size_t f = 0; f < v->features_n; f++)
        out[f] = NAN;
    if (column_null(&l->v[3], k))
        return;
    for (size_t i = 0; i < e->rows; i++)
        if (key_same(e, i, l, k) && !column_null(&e->v[4], i) && e->v[4].i[i] <= t && e->v[4].i[i] > newest)
            newest = e->v[4].i[i];
    if (newest == INT64_MIN || newest < t - v->ttl_us)
        return;
    for (size_t w = 0; w < v->windows_n; w++) {
        int64_t rows = 0, xs = 0, ys = 0;
        __int128 x = 0, y = 0;
        for (size_t i = 0; i < e->rows; i++) {
            if (!key_same(e, i, l, k) || column_null(&e->v[4], i) || e->v[4].i[i] > newest ||
                e->v[4].i[i] < newest - v->window_us[w])
                continue;
            rows++;
            xs += !column_null(&e->v[5], i);
            ys += !column_null(&e->v[6], i);
            x += column_null(&e->v[5], i) ? 0 : (__int128)e->v[5].i[i] * (1 << 30);
            y += column_null(&e->v[6], i) ? 0 : (__int128)rint(e->v[6].f[i] * 0x1p30);
        }
        out[w * 4] = (double)rows;
        out[w * 4 + 1] = (double)xs;
        out[w * 4 + 2] = (double)x * 0x1p-30;
        out[w * 4 + 3] = ys ? (double)y * 0x1p-30 / (double)ys : NAN;
    }
}

TEST(equals_the_rules)
{
    uint64_t seed = 1;
    for (int n = 0; n < CASES; n++) {
        auto_arena struct arena *a = arena_new(0);
        struct service s;
        CHECK_OK(service_parse(a, str_of(definition), &s));
        struct columns e = table_random(a, &seed, splitmix(&seed) % EVENTS),
                       l = table_random(a, &seed, LABELS);
        uint32_t rows[LABELS];
        double *out[8], want[8];
        for (size_t i = 0; i < LABELS; i++)
            rows[i] = (uint32_t)(splitmix(&seed) % LABELS); /* in any order, some twice */
        for (size_t f = 0; f < 8; f++)
            out[f] = NEW_N(a, double, LABELS);
        if (n % 3 == 0) { /* its own dictionary, in another order: codes do not compare */
            static struct str other[] = { { "", 0 }, { "zz", 2 }, { "q", 1 }, { "p", 1 } };
            static const uint32_t to[] = { 3, 2, 0 };
            for (size_t i = 0; i < LABELS; i++)
                l.v[1].code[i] = to[l.v[1].code[i]];
            l.v[1].dict = other;
            l.v[1].dict_n = 4;
        }
        CHECK_OK(view_join(&s.views[0], &e, &l, &l.v[3], rows, LABELS, n % 4 + 1, out));
        for (size_t i = 0; n % 3 == 0 && i < LABELS; i++) {
            static const uint32_t back[] = { 2, 2, 1, 0 };
            l.v[1].code[i] = back[l.v[1].code[i]];
        }
        for (size_t i = 0; i < LABELS; i++) {
            row_slow(&s.views[0], &e, &l, rows[i], want);
            for (size_t f = 0; f < 8; f++)
                if (!same(want[f], out[f][i]))
                    cr_assert_fail("case %d label %zu feature %zu: %.17g, not %.17g", n, i, f, out[f][i],
                                   want[f]);
        }
    }
}

/* Applies events i of order[from..to), as a push does. */
static void apply_some(struct rings *r, const struct view *v, const struct columns *e, const uint32_t *order,
                       size_t from, size_t to, struct push_result *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct view_columns c;
    struct apply *p;
    uint8_t key[KEY_BYTES];
    size_t n;
    CHECK_OK(view_bind(a, v, e, &c));
    CHECK_OK(apply_begin(r, a, &p));
    for (size_t i = from; i < to; i++) {
        uint32_t row = order[i];
        if (column_null(c.known, row) || !key_encode(c.keys, 2, row, key, &n))
            continue;
        fixed values[2] = { value_fixed(c.values[0], row), value_fixed(c.values[1], row) };
        struct online_event ev = { .known = c.known->i[row], .id = event_id(c.id, row), .values = values };
        CHECK_OK(apply_events(p, S("p"), v, (struct str){ (char *)key, n }, &ev, 1, out));
    }
    CHECK_OK(apply_flush(p));
    apply_end(p);
}

static size_t rows_differ(struct arena *a, struct kv *kv, const struct view *v, const struct columns *e,
                          bool expect_rows)
{
    struct kv_snap *snap;
    size_t wrong = 0, rows = 0;
    struct str prefix = row_prefix(a, S("p"), v->def.name);
    CHECK_OK(kv_snap_begin(kv, &snap));
    for (size_t i = 0; i < e->rows; i++) {
        const struct column *keys[] = { &e->v[1], &e->v[2] };
        uint8_t key[KEY_BYTES];
        size_t n;
        double have[8], want[8];
        int64_t known, newest = INT64_MIN;
        if (!key_encode(keys, 2, i, key, &n))
            continue;
        bool there = row_get(snap, v, prefix, (struct str){ (char *)key, n }, have, &known);
        for (size_t k = 0; k < e->rows; k++)
            if (key_same(e, k, e, i) && !column_null(&e->v[4], k) && e->v[4].i[k] > newest)
                newest = e->v[4].i[k];
        wrong += there != (newest != INT64_MIN) || (there && known != newest);
        if (!there)
            continue;
        rows++;
        struct columns at = *e; /* a label at the time of the newest row */
        struct column cols[7];
        int64_t *t = NEW_N(a, int64_t, e->rows);
        memcpy(cols, e->v, sizeof cols);
        t[i] = newest;
        cols[3].i = t;
        cols[3].null = NULL;
        at.v = cols;
        row_slow(v, e, &at, i, want);
        for (size_t f = 0; f < 8; f++)
            wrong += !same(want[f], have[f]);
    }
    kv_snap_end(snap);
    CHECK(!expect_rows || rows);
    return wrong;
}

/* In any order, in any batches, some twice, with a cache that holds nothing: the rows are what the join gives. */
TEST(any_order_gives_the_same_rows)
{
    uint64_t seed = 7;
    struct lab l = lab_open();
    for (int n = 0; n < 60; n++) {
        auto_arena struct arena *a = arena_new(0);
        struct service s;
        struct push_result done = { 0 };
        struct rings *r = rings_new(store_kv(l.store), n % 2 ? 1 << 20 : 1);
        CHECK_OK(service_parse(a, str_of(definition), &s));
        s.views[0].def.name = fmt(a, "v%d", n);
        struct columns e = table_random(a, &seed, EVENTS);
        uint32_t order[EVENTS];
        for (size_t i = 0; i < EVENTS; i++)
            order[i] = (uint32_t)i;
        for (size_t i = EVENTS - 1; i > 0; i--) {
            size_t k = splitmix(&seed) % (i + 1);
            uint32_t swap = order[i];
            order[i] = order[k];
            order[k] = swap;
        }
        for (size_t i = 0; i < EVENTS;) {
            size_t to = i + 1 + splitmix(&seed) % 20;
            to = to > EVENTS ? EVENTS : to;
            apply_some(r, &s.views[0], &e, order, i, to, &done);
            apply_some(r, &s.views[0], &e, order, i / 2, to, &done); /* some of it again */
            i = to;
        }
        CHECK(done.known > 0);
        CHECK(rows_differ(a, store_kv(l.store), &s.views[0], &e, true) == 0);
        rings_free(r);
        r = rings_new(store_kv(l.store), 1 << 20); /* after a restart: all is known, or too old */
        done = (struct push_result){ 0 };
        apply_some(r, &s.views[0], &e, order, 0, EVENTS, &done);
        CHECK(done.events == 0);
        CHECK(rows_differ(a, store_kv(l.store), &s.views[0], &e, true) == 0);
        rings_free(r);
    }
    lab_close(&l);
}

TEST(another_definition_does_not_read_old_rows)
{
    struct lab l = lab_open();
    uint64_t seed = 3;
    struct service s, other;
    struct push_result done = { 0 };
    struct str text = str_of(definition);
    struct rings *r = rings_new(store_kv(l.store), 1 << 20);
    uint32_t order[EVENTS];
    for (size_t i = 0; i < EVENTS; i++)
        order[i] = (uint32_t)i;
    CHECK_OK(service_parse(l.a, text, &s));
    char *changed = (char *)str_dup(l.a, text).p;
    char *window = memmem(changed, text.n, "20ms", 4);
    CHECK(window);
    memcpy(window, "15ms", 4);
    CHECK_OK(service_parse(l.a, (struct str){ changed, text.n }, &other));
    CHECK(s.views[0].hash != other.views[0].hash);
    struct columns e = table_random(l.a, &seed, EVENTS);
    apply_some(r, &s.views[0], &e, order, 0, EVENTS, &done);
    CHECK(rows_differ(l.a, store_kv(l.store), &s.views[0], &e, true) == 0);
    CHECK(rows_differ(l.a, store_kv(l.store), &other.views[0], &e, false) > 0);
    apply_some(r, &other.views[0], &e, order, 0, EVENTS, &done);
    CHECK(rows_differ(l.a, store_kv(l.store), &other.views[0], &e, true) == 0);
    rings_free(r);
    lab_close(&l);
}

TEST(keys_do_not_run_into_each_other)
{
    struct str dict[] = { S_INIT("a"), S_INIT("ab"), S_INIT("b"), S_INIT(""),
                          S_INIT("0123456789012345678901234567890123456789") };
    uint32_t x[] = { 0, 1, 3, 4 }, y[] = { 1, 2, 0, 4 }; /* a|ab, ab|b, ""|a, long|long */
    struct column cx = { .type = COL_STR, .code = x, .dict = dict, .dict_n = 5 };
    struct column cy = { .type = COL_STR, .code = y, .dict = dict, .dict_n = 5 };
    const struct column *keys[] = { &cx, &cy };
    uint8_t key[4][KEY_BYTES];
    size_t n[4];
    for (size_t i = 0; i < 4; i++) {
        CHECK(key_encode(keys, 2, i, key[i], &n[i]));
        CHECK(n[i] <= KEY_BYTES);
        for (size_t k = 0; k < i; k++)
            CHECK(memcmp(key[i], key[k], n[i] < n[k] ? n[i] : n[k]) != 0);
    }
}

TEST(request_functions_by_hand)
{
    static const struct {
        const char *function, *time;
        double want;
    } rows[] = { { "hour", "2001-05-01T23:59:59Z", 23 },
                 { "hour", "1969-12-31T23:00:00Z", 23 },
                 { "minuteOfDay", "2001-05-01T01:02:03Z", 62 },
                 { "weekday", "2001-05-01", 1 },
                 { "weekday", "1970-01-01", 3 },
                 { "weekday", "1969-12-29", 0 },
                 { "weekday", "1969-12-28T12:00:00Z", 6 },
                 { "dayOfMonth", "2000-02-29", 29 },
                 { "month", "2000-12-31T23:59:59Z", 12 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (const struct request_function *f = request_table; f->name; f++) {
            int64_t t;
            CHECK(time_parse(str_of(rows[i].time), &t));
            if (strcmp(f->name, rows[i].function) == 0 && f->of(t, 0) != rows[i].want)
                cr_assert_fail("%s of %s is %g", f->name, rows[i].time, f->of(t, 0));
        }
    for (size_t i = 0; i < request_table_n; i++)
        CHECK(strcmp(request_functions[i], request_table[i].name) == 0);
    CHECK(!request_functions[request_table_n]);
}

TEST(fixed_point_is_exact)
{
    CHECK(fixed_f64(0.5) == (fixed)1 << 29);
    CHECK(fixed_f64(-3) == fixed_i64(-3));
    CHECK(fixed_f64(NAN) == FIXED_NULL);
    CHECK(fixed_f64(INFINITY) == FIXED_NULL);
    CHECK(fixed_f64(0x1p64) == FIXED_NULL);
    CHECK(fixed_f64(0x1.fffffffffffffp63) != FIXED_NULL);
    CHECK(fixed_i64(INT64_MIN) < 0);
    CHECK(fixed_aggregate(AGG_SUM, true, fixed_i64(7), 1, 1) == 7);
    CHECK(isnan(fixed_aggregate(AGG_MEAN, true, 0, 0, 5)));
    CHECK(fixed_aggregate(AGG_COUNT, false, 0, 0, 5) == 5);
    CHECK(fixed_aggregate(AGG_COUNT, true, 0, 3, 5) == 3);
}

TEST(definitions_that_break_a_rule)
{
    static const char *const views[] = {
        "{\"name\":\"v\",\"keys\":[\"a\"],\"windows\":[\"soon\"],\"aggregates\":[{\"name\":\"n\",\"function\":\"count\"}]}",
        "{\"name\":\"v\",\"keys\":[\"a\"],\"windows\":[\"1h\",\"60m\"],\"aggregates\":[{\"name\":\"n\",\"function\":\"count\"}]}",
        "{\"name\":\"v\",\"keys\":[\"a\"],\"windows\":[\"1h\"],\"aggregates\":[{\"name\":\"n\",\"function\":\"mean\"}]}",
        "{\"name\":\"v\",\"keys\":[],\"windows\":[\"1h\"],\"aggregates\":[{\"name\":\"n\",\"function\":\"count\"}]}",
        "{\"name\":\"v\",\"keys\":[\"a\"],\"windows\":[\"0s\"],\"aggregates\":[{\"name\":\"n\",\"function\":\"count\"}]}",
    };
    for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct service s;
        CHECK_ERR(service_parse(a, fmt(a, "{\"service\":\"s\",\"views\":[%s]}", views[i]), &s), INVALID);
    }
    auto_arena struct arena *a = arena_new(0);
    struct service s;
    CHECK_ERR(
        service_parse(
            a,
            S("{\"service\":\"s\",\"request\":[{\"name\":\"x\",\"function\":\"value\",\"column\":\"x\"},"
              "{\"name\":\"x\",\"function\":\"value\",\"column\":\"y\"}]}"),
            &s),
        INVALID);
}
