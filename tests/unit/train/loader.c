// SPDX-License-Identifier: Apache-2.0
#define SUITE train_loader
#include "tables.h"

/* Row i: x = i, half = i / 2, y = i % 3, word by i % 5 (null for 4), w = 1 + i % 2. */
static const char numbers_sql[] =
    "SELECT i::DOUBLE AS x, (i / 2)::FLOAT AS half, (i %% 3)::TINYINT AS y, "
    "CASE i %% 5 WHEN 4 THEN NULL WHEN 0 THEN 'b' WHEN 1 THEN 'a' WHEN 2 THEN 'a' ELSE 'a longer text than twelve' END AS word, "
    "(1 + i %% 2)::FLOAT AS w, [i, i + 1, i + 2]::FLOAT[3] AS e, [i %% 7, 1]::INTEGER[] AS ids FROM range(%d) t(i)";

struct table {
    struct arena *a;
    const char *dir;
    struct loader_file file[4];
    struct loader_input in[8];
    struct loader_spec spec;
};

static struct loader_input input(struct arena *a, const char *name, enum loader_role role,
                                 enum loader_kind kind, const char *columns)
{
    return (struct loader_input){
        .name = str_of(name), .role = role, .kind = kind, .columns = names_of(a, columns)
    };
}

static void table_set(struct table *t, struct arena *a, const char *sql, const char *options)
{
    *t = (struct table){ .a = a, .dir = dir_temp(a) };
    t->file[0].path = table_write(a, t->dir, "t.parquet", options, sql);
    t->spec = (struct loader_spec){ .files = t->file, .n_files = 1, .inputs = t->in, .threads = 1 };
}

static void table_numbers(struct table *t, struct arena *a, int n, const char *options)
{
    table_set(t, a, fmtz(a, numbers_sql, n), options);
    t->in[0] = input(a, "numbers", ROLE_INPUT, KIND_NUMBERS, "x,half");
    t->in[1] = input(a, "words", ROLE_INPUT, KIND_CATEGORIES, "word");
    t->in[2] = input(a, "y", ROLE_LABEL, KIND_CLASS, "y");
    t->in[3] = input(a, "w", ROLE_WEIGHT, KIND_NUMBERS, "w");
    t->in[4] = input(a, "e", ROLE_INPUT, KIND_ARRAY, "e");
    t->in[5] = input(a, "ids", ROLE_INPUT, KIND_ARRAY, "ids");
    t->in[5].ids = true;
    t->spec.n_inputs = 6;
}

static bool rows_right(const struct feed_batch *b)
{
    const float *x = b->data[0], *w = b->data[3], *e = b->data[4];
    const int64_t *word = b->data[1], *y = b->data[2], *ids = b->data[5];
    static const int64_t words[] = { 3, 2, 2, 4,
                                     1 }; /* a: 2 of 5, then b and the long one in order of text */
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t i = (int64_t)x[2 * r];
        /* 'a longer text …' sorts before 'b' */
        int64_t want = words[i % 5] == 3 ? 4 : words[i % 5] == 4 ? 3 : words[i % 5];
        if (x[2 * r + 1] != (float)(double)i / 2 || y[r] != i % 3 || word[r] != want ||
            w[r] != (float)(1 + i % 2))
            return false;
        if (e[3 * r] != (float)i || e[3 * r + 2] != (float)(i + 2) || ids[2 * r] != i % 7 ||
            ids[2 * r + 1] != 1)
            return false;
    }
    return true;
}

TEST(a_table_becomes_tensors)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed *f;
    struct feed_batch b;
    const struct loader_tensor *tensors;
    table_numbers(&t, a, 1000, "");
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_tensors(l, &tensors) == 6);
    CHECK(tensors[0].type == TENSOR_F32 && tensors[0].rank == 1 && tensors[0].shape[0] == 2 &&
          tensors[0].n == 2);
    CHECK(tensors[1].type == TENSOR_I64 && tensors[1].sizes[0] == 5 && tensors[1].vocabulary[0].n == 3);
    CHECK_STR(tensors[1].vocabulary[0].v[0], "a");
    CHECK(tensors[2].classes == 3 && tensors[2].rank == 0 && tensors[2].counts[0] == 334);
    CHECK(tensors[3].rank == 0 && tensors[4].shape[0] == 3 && tensors[5].type == TENSOR_I64 &&
          tensors[5].classes == 7);
    CHECK(loader_role(l, ROLE_LABEL) == &tensors[2] && loader_find(l, S("e")) == &tensors[4]);
    CHECK(loader_facts(l).rows[LOADER_TRAIN] == 1000 && loader_facts(l).kept);

    struct feed_options o = { .part = LOADER_TRAIN, .rows = 300, .once = true };
    CHECK_OK(feed_open(l, a, &o, &f));
    CHECK(feed_steps(f) == 4);
    int64_t seen = 0;
    for (;;) {
        CHECK_OK(feed_next(f, &b));
        if (!b.rows)
            break;
        CHECK(b.rows == (seen < 900 ? 300 : 100) && b.last == (seen == 900));
        CHECK(((const float *)b.data[0])[0] == (float)seen && (uintptr_t)b.data[0] % 64 == 0);
        CHECK(rows_right(&b));
        seen += b.rows;
    }
    CHECK(seen == 1000);
    CHECK_OK(feed_next(f, &b));
    CHECK(!b.rows);
    CHECK_OK(feed_rewind(f));
    CHECK_OK(feed_next(f, &b));
    CHECK(b.rows == 300 && b.step == 0);
}

/* ---- order ---- */

/* The first column of the batches of some steps. */
static void take(struct arena *a, struct feed *f, int steps, float **out, size_t *n, size_t width)
{
    VEC(float) v = { 0 };
    struct feed_batch b;
    for (int s = 0; s < steps; s++) {
        CHECK_OK(feed_next(f, &b));
        CHECK(b.rows > 0);
        for (int64_t r = 0; r < b.rows; r++)
            push(a, &v, ((const float *)b.data[0])[(size_t)r * width]);
    }
    *out = v.v;
    *n = v.n;
}

static int by_value(const void *x, const void *y)
{
    const float *a = x, *b = y;
    return (*a > *b) - (*a < *b);
}

static void shuffle_check(struct arena *a, struct table *t, int rows, int batch)
{
    struct loader *l;
    struct feed *f, *g;
    struct feed_options o = { .part = LOADER_TRAIN, .rows = batch, .shuffle = true, .seed = 7 };
    CHECK_OK(loader_open(a, &t->spec, &l));
    CHECK_OK(feed_open(l, a, &o, &f));
    int steps = rows / batch;
    CHECK(feed_steps(f) == steps);
    float *one, *two, *again;
    size_t n, m;
    take(a, f, steps, &one, &n, 2);
    take(a, f, steps, &two, &n, 2);
    CHECK(n == (size_t)steps * (size_t)batch && memcmp(one, two, n * 4) != 0);
    /* The same seed gives the same order, with a thread and without. */
    o.depth = -1;
    CHECK_OK(feed_open(l, a, &o, &g));
    take(a, g, steps, &again, &m, 2);
    CHECK(m == n && memcmp(one, again, n * 4) == 0);
    take(a, g, steps, &again, &m, 2);
    CHECK(memcmp(two, again, n * 4) == 0);
    o.seed = 8;
    CHECK_OK(feed_open(l, a, &o, &g));
    take(a, g, steps, &again, &m, 2);
    CHECK(memcmp(one, again, n * 4) != 0);
    /* Each row at most once. */
    qsort(one, n, sizeof *one, by_value);
    for (size_t i = 1; i < n; i++)
        CHECK(one[i - 1] < one[i]);
    /* Neighbours are no neighbours any more. */
    size_t near = 0;
    for (size_t i = 1; i < n; i++)
        near += fabsf(two[i] - two[i - 1]) == 1;
    CHECK(near < n / 20);
}

TEST(kept_rows_are_permuted_by_seed_and_epoch)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    table_numbers(&t, a, 5000, "");
    shuffle_check(a, &t, 5000, 64);
}

static void table_windows(struct table *t, struct arena *a)
{
    table_numbers(t, a, 20480, ", ROW_GROUP_SIZE 2048");
    /* x, half 8, word 4, y 4, w 4, e 12, ids 16 bytes: 48 a row. Two windows of about two row groups of ten. */
    t->spec.memory_max = 2 * 48 * 4500;
}

TEST(windows_of_row_groups_are_permuted_alike)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed *f;
    struct feed_batch b;
    table_windows(&t, a);
    shuffle_check(a, &t, 20480, 100);
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(!loader_facts(l).kept && loader_facts(l).bytes <= t.spec.memory_max);
    struct feed_options o = { .part = LOADER_TRAIN, .rows = 1000, .once = true };
    CHECK_OK(feed_open(l, a, &o, &f));
    for (int64_t seen = 0; seen < 20480; seen += b.rows) {
        CHECK_OK(feed_next(f, &b));
        CHECK(((const float *)b.data[0])[0] == (float)seen && rows_right(&b));
    }
    CHECK_OK(feed_next(f, &b));
    CHECK(!b.rows);
    /* Kept or not, statistics are the same. */
    struct str state = loader_state(l, a);
    t.spec.memory_max = 0;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_facts(l).kept);
    CHECK_STR(loader_state(l, a), state);
}

/* Rows of 8 groups that lie apart in the file follow each other, groups in another order in each epoch. */
static void groups_check(bool windows)
{
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed *f;
    struct feed_batch b;
    int64_t first[2] = { 0 };
    table_set(&t, a, "SELECT i AS x, i % 512 AS g FROM range(4096) t(i)", ", ROW_GROUP_SIZE 2048");
    t.in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, "x");
    t.in[1] = input(a, "g", ROLE_GROUP, KIND_CATEGORIES, "g");
    t.spec.n_inputs = 2;
    t.spec.memory_max = windows ? (int64_t)2 * 12 * 2048 : 0;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_facts(l).kept == !windows);
    CHECK_OK(feed_open(
        l, a, &(struct feed_options){ .part = LOADER_TRAIN, .rows = 64, .shuffle = true, .seed = 7 }, &f));
    for (int epoch = 0; epoch < 2; epoch++) {
        int64_t runs = 0, before = -1;
        bool seen[4096] = { 0 };
        for (int64_t s = 0; s < feed_steps(f); s++) {
            CHECK_OK(feed_next(f, &b));
            for (int64_t r = 0; r < b.rows; r++) {
                int64_t x = (int64_t)((const float *)b.data[0])[r];
                CHECK(!seen[x]);
                seen[x] = true;
                runs += before != x % 512;
                before = x % 512;
                first[epoch] = s + r ? first[epoch] : x;
            }
        }
        CHECK(runs <= (windows ? 2 * 512 : 512));
    }
    CHECK(first[0] != first[1]);
}

TEST(rows_of_a_group_stay_together)
{
    NEED_DUCKDB();
    groups_check(false);
    groups_check(true);
}

static void resume_check(struct arena *a, struct table *t, int batch)
{
    struct loader *l;
    struct feed *f, *g;
    struct feed_options o = { .part = LOADER_TRAIN, .rows = batch, .shuffle = true, .seed = 3 };
    float *want, *got, *skip;
    size_t n, m;
    CHECK_OK(loader_open(a, &t->spec, &l));
    CHECK_OK(feed_open(l, a, &o, &f));
    int steps = (int)feed_steps(f);
    int stops[] = { 0, 1, steps - 1, steps, steps + 3, 2 * steps };
    for (size_t s = 0; s < sizeof stops / sizeof *stops; s++) {
        CHECK_OK(feed_rewind(f));
        take(a, f, stops[s], &skip, &n, 2);
        struct str state = feed_state(f, a);
        take(a, f, steps, &want, &n, 2);
        CHECK_OK(feed_open(l, a, &o, &g));
        CHECK_OK(feed_seek(g, state));
        CHECK_STR(feed_state(g, a), state);
        take(a, g, steps, &got, &m, 2);
        CHECK(m == n && memcmp(want, got, n * 4) == 0);
    }
    o.rows++;
    CHECK_OK(feed_open(l, a, &o, &g));
    CHECK_ERR(feed_seek(g, feed_state(f, a)), INVALID);
    CHECK_ERR(feed_seek(f, S("{}")), INVALID);
    CHECK_ERR(feed_seek(f, S("nonsense")), INVALID);
}

TEST(a_resumed_feed_goes_on_bit_for_bit)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    table_numbers(&t, a, 1030, "");
    resume_check(a, &t, 64);
    table_windows(&t, a);
    resume_check(a, &t, 700);
}

TEST(ranks_gather_for_themselves)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed *f;
    struct feed_batch b;
    struct feed_options o = { .part = LOADER_TRAIN, .rows = 128, .shuffle = true, .seed = 5 };
    table_numbers(&t, a, 1000, "");
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK_OK(feed_open(l, a, &o, &f));
    for (int i = 0; i < 10; i++)
        CHECK_OK(feed_next(f, &b));
    CHECK(b.epoch == 1 && b.step == 2 && feed_can_gather(f));
    float x[128 * 2];
    struct feed *g;
    CHECK_OK(feed_open(l, a, &o, &g));
    feed_epoch(g, 1);
    void *out[LOADER_TENSORS_MAX] = { x };
    feed_gather(g, 2, 0, 50, out);
    out[0] = x + 2 * 50;
    feed_gather(g, 2, 50, 128, out);
    CHECK(memcmp(x, b.data[0], sizeof x) == 0);
}

/* ---- split ---- */

TEST(shares_are_a_hash_of_the_row)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    table_numbers(&t, a, 10000, "");
    t.spec.split = (struct loader_split){ .valid = 0.2, .test = 0.1, .seed = 1 };
    CHECK_OK(loader_open(a, &t.spec, &l));
    struct loader_facts f = loader_facts(l);
    CHECK(f.rows[0] + f.rows[1] + f.rows[2] == 10000);
    CHECK(fabs((double)f.rows[LOADER_VALID] - 2000) < 150 && fabs((double)f.rows[LOADER_TEST] - 1000) < 120);
    /* A part has the rows of its own, whoever reads it. */
    char seen[10000] = { 0 };
    for (int p = 0; p < LOADER_PARTS; p++) {
        struct feed *feed;
        struct feed_batch b;
        struct feed_options o = { .part = (enum loader_part)p, .rows = 512, .once = true };
        CHECK_OK(feed_open(l, a, &o, &feed));
        for (;;) {
            CHECK_OK(feed_next(feed, &b));
            if (!b.rows)
                break;
            for (int64_t r = 0; r < b.rows; r++)
                seen[(int)((const float *)b.data[0])[2 * r]]++;
        }
    }
    for (int i = 0; i < 10000; i++)
        CHECK(seen[i] == 1);
    /* A group stays together. */
    t.spec.split.group = S("word");
    t.spec.split.valid = 0.4;
    t.spec.split.seed = 4;
    CHECK_OK(loader_open(a, &t.spec, &l));
    f = loader_facts(l);
    for (int p = 0; p < LOADER_PARTS; p++)
        CHECK(f.rows[p] % 2000 == 0);
}

TEST(time_splits_as_training_sets_do)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    /* Ten rows, one a day; the label is known three days later. Day 5 has none. */
    table_set(
        &t, a,
        "SELECT i::FLOAT AS x, CASE WHEN i = 5 THEN NULL ELSE i % 2 END AS y, TIMESTAMP '1970-01-01' + INTERVAL 1 DAY * i AS at, "
        "TIMESTAMP '1970-01-04' + INTERVAL 1 DAY * i AS known FROM range(10) t(i)",
        "");
    t.in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, "");
    t.in[1] = input(a, "y", ROLE_LABEL, KIND_CLASS, "y");
    t.in[1].floats = true;
    t.in[1].missing = MISSING_SKIP;
    t.spec.n_inputs = 2;
    t.spec.split = (struct loader_split){ .at = S("at"), .known = S("known"), .holdout_ms = 3 * 86400000LL };
    const int64_t day = 86400000000;
    t.spec.split.until_us = 10 * day;
    CHECK_OK(loader_open(a, &t.spec, &l));
    struct loader_facts f = loader_facts(l);
    CHECK(f.split == 7 * day && f.until == 10 * day && f.from == 0);
    CHECK(f.rows[LOADER_TRAIN] == 4 && f.rows[LOADER_VALID] == 3 && f.unknown == 3 && f.skipped == 0);
    const struct loader_tensor *tensors;
    loader_tensors(l, &tensors);
    CHECK(tensors[0].columns.n == 1 && tensors[1].type == TENSOR_F32 && tensors[1].classes == 2);
    t.spec.split.until_us = 0;
    t.spec.split.known = S("");
    CHECK_OK(loader_open(a, &t.spec, &l));
    f = loader_facts(l);
    CHECK(f.until == 9 * day + 1 && f.split == 6 * day + 1);
    CHECK(f.rows[LOADER_TRAIN] == 6 && f.skipped == 1 && f.rows[LOADER_VALID] == 3);
}

TEST(files_may_be_parts)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    table_numbers(&t, a, 100, "");
    t.file[1] = (struct loader_file){
        .path = table_write(a, t.dir, "v.csv", ", HEADER", fmtz(a, numbers_sql, 50)), .part = LOADER_VALID
    };
    t.spec.n_inputs = 4; /* no lists in CSV */
    t.spec.n_files = 2;
    CHECK_OK(loader_open(a, &t.spec, &l));
    struct loader_facts f = loader_facts(l);
    CHECK(f.rows[LOADER_TRAIN] == 100 && f.rows[LOADER_VALID] == 50);
}

/* x = 1, 2, …, 40; y = x % 2; a text; a day. */
static const char *csv_write(struct arena *a, const char *dir, const char *name, const char *header,
                             const char *row)
{
    struct buf b = buf_new(a);
    buf_str(&b, str_of(header));
    for (int i = 1; i <= 40; i++) {
        for (const char *p = row; *p; p++) {
            if (*p == 'X')
                buf_fmt(&b, "%d", i);
            else if (*p == 'Y')
                buf_fmt(&b, "%d", i % 2);
            else if (*p == 'D')
                buf_fmt(&b, "%02d", 1 + i % 28);
            else
                buf_put(&b, p, 1);
        }
    }
    const char *path = fmtz(a, "%s/%s", dir, name);
    CHECK_OK(file_write(path, buf_get(&b)));
    return path;
}

/* The form is told by the file's first 32 MB: what comes behind them may be the first to be quoted. */
TEST(a_quote_far_behind_is_still_one)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t = { .a = a, .dir = dir_temp(a) };
    struct loader *l;
    char *word = NEW_N(a, char, 1025);
    memset(word, 'w', 1024);
    struct buf b = buf_new(a);
    buf_str(&b, S("x,word,y\n"));
    for (int i = 0; i < 33000; i++)
        buf_fmt(&b, "%d,%s,%d\n", i, word, i % 2);
    buf_str(&b, S("33000,\"one, \"\"two\"\"\",1\n"));
    const char *path = fmtz(a, "%s/far.csv", t.dir);
    CHECK_OK(file_write(path, buf_get(&b)));
    t.file[0].path = str_of(path);
    t.in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, "x");
    t.in[1] = input(a, "word", ROLE_INPUT, KIND_CATEGORIES, "word");
    t.in[2] = input(a, "y", ROLE_LABEL, KIND_CLASS, "y");
    t.spec = (struct loader_spec){
        .files = t.file, .n_files = 1, .inputs = t.in, .n_inputs = 3, .threads = 1
    };
    CHECK_OK(loader_open(a, &t.spec, &l));
    const struct strs *words = loader_find(l, S("word"))->vocabulary;
    CHECK(loader_facts(l).rows[LOADER_TRAIN] == 33001 && words->n == 2);
    CHECK_STR(words->v[0].n < words->v[1].n ? words->v[0] : words->v[1], "one, \"two\"");
}

TEST(csv_is_read_in_the_form_that_it_has)
{
    NEED_DUCKDB();
    static const struct {
        const char *name, *header, *row, *number, *text, *label, *at, *vocabulary;
    } forms[] = {
        { "plain.csv", "x,word,y,day\n", "X,one,Y,2024-05-D\n", "x", "word", "y", "day", "one" },
        { "it's.csv", "\"it's\",\"q\"\"x\",y,d ay\n", "X,\"one, \"\"two\"\"\",Y,2024-05-D\n", "it's", "q\"x",
          "y", "d ay", "one, \"two\"" },
        { "semicolon.csv", "x;word;y;day\r\n", "X;one, two;Y;D/05/2024 10:30:00\r\n", "x", "word", "y", "day",
          "one, two" },
        { "tab.tsv", "x\tword\ty\tday\n", "X\t'one\t'\tY\tD.05.2024\n", "x", "word", "y", "day", "one\t" },
        { "nameless.csv", "", "X|one|Y|2024-05-D 10:30:00\n", "column0", "column1", "column2", "column3",
          "one" },
        { "told.csv", "# made by hand\nx,word,y,day\n", "X,one,Y,2024-05-D\n", "x", "word", "y", "day",
          "one" },
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct table t = { .a = a, .dir = dir_temp(a) };
        struct loader *l;
        float *x, sum = 0;
        size_t rows;
        t.file[0].path = str_of(csv_write(a, t.dir, forms[i].name, forms[i].header, forms[i].row));
        t.in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, forms[i].number);
        t.in[1] = input(a, "word", ROLE_INPUT, KIND_CATEGORIES, forms[i].text);
        t.in[2] = input(a, "y", ROLE_LABEL, KIND_CLASS, forms[i].label);
        t.spec = (struct loader_spec){
            .files = t.file, .n_files = 1, .inputs = t.in, .n_inputs = 3, .threads = 1
        };
        t.spec.split = (struct loader_split){ .at = str_of(forms[i].at), .holdout_ms = 86400000 };
        CHECK_OK(loader_open(a, &t.spec, &l));
        struct loader_facts f = loader_facts(l);
        CHECK(f.rows[LOADER_TRAIN] == 39 && f.rows[LOADER_VALID] == 1); /* day 28 is there once */
        CHECK_STR(loader_find(l, S("word"))->vocabulary[0].v[0], forms[i].vocabulary);
        CHECK_OK(loader_raw(l, a, LOADER_TRAIN, 0, 40, &x, &rows));
        for (size_t r = 0; r < rows; r++)
            sum += x[r];
        CHECK(sum == 820 - 27);
    }
}

/* ---- numbers ---- */

static const float *first_batch(struct arena *a, struct loader *l, enum loader_part part,
                                struct feed_batch *b)
{
    struct feed *f;
    struct feed_options o = { .part = part, .rows = 1 << 12, .once = true, .depth = -1 };
    CHECK_OK(feed_open(l, a, &o, &f));
    CHECK_OK(feed_next(f, b));
    return b->data[0];
}

TEST(normalising_takes_the_statistics_of_training)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l, *again;
    struct feed_batch b;
    table_numbers(&t, a, 4000, "");
    t.in[0].normalise = NORM_STANDARD;
    t.in[4].normalise = NORM_MINMAX;
    t.spec.split = (struct loader_split){ .valid = 0.25 };
    CHECK_OK(loader_open(a, &t.spec, &l));
    const struct loader_tensor *n = loader_find(l, S("numbers"));
    int64_t rows = loader_facts(l).rows[LOADER_TRAIN];
    const float *x = first_batch(a, l, LOADER_TRAIN, &b);
    double sum = 0, squares = 0, raw = 0;
    for (int64_t r = 0; r < rows; r++) {
        sum += (double)x[2 * r];
        squares += (double)x[2 * r] * (double)x[2 * r];
        raw += (double)x[2 * r] / (double)n->scale[0] + (double)n->shift[0];
    }
    CHECK(b.rows == rows && fabs(sum / (double)rows) < 1e-5 && fabs(squares / (double)rows - 1) < 1e-5);
    CHECK(fabs(raw / (double)rows - (double)n->shift[0]) < 1e-2);
    const float *e = b.data[4];
    float min = 9, max = -9;
    for (int64_t r = 0; r < rows; r++) {
        min = fminf(min, e[3 * r]);
        max = fmaxf(max, e[3 * r]);
    }
    CHECK(min == 0 && fabsf(max - 1) < 1e-6f);
    /* The state carries it to other rows, whose own statistics do not matter. */
    struct str state = loader_state(l, a);
    t.file[0].path = table_write(a, t.dir, "few.parquet", "", fmtz(a, numbers_sql, 10));
    t.spec.split = (struct loader_split){ 0 };
    t.spec.state = state;
    CHECK_OK(loader_open(a, &t.spec, &again));
    x = first_batch(a, again, LOADER_TRAIN, &b);
    for (int i = 0; i < 10; i++)
        CHECK(x[2 * i] == ((float)i - n->shift[0]) * n->scale[0]);
    CHECK(((const int64_t *)b.data[1])[1] == 2 && ((const int64_t *)b.data[1])[4] == 1);
    CHECK_STR(loader_state(again, a), state);
    /* Raw numbers are what the file says. */
    float *numbers;
    size_t got;
    CHECK_OK(loader_raw(again, a, LOADER_TRAIN, 0, 5, &numbers, &got));
    CHECK(got == 5 && numbers[0] == 0 && numbers[2] == 2 && numbers[3] == 1);
}

TEST(what_training_has_not_seen_is_id_0)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed_batch b;
    table_set(&t, a,
              "SELECT * FROM (VALUES ('a', 1), ('b', 2), ('a', 1), (NULL, 3), ('c', NULL)) t(word, month)",
              "");
    t.file[1] = (struct loader_file){
        .path = table_write(a, t.dir, "v.parquet", "",
                            "SELECT * FROM (VALUES ('z', 1), ('b', 9), ('', 3)) t(word, month)"),
        .part = LOADER_VALID
    };
    t.spec.n_files = 2;
    t.in[0] = input(a, "words", ROLE_INPUT, KIND_CATEGORIES, "word,month");
    t.spec.n_inputs = 1;
    CHECK_OK(loader_open(a, &t.spec, &l));
    const struct loader_tensor *tensor = loader_find(l, S("words"));
    CHECK(tensor->sizes[0] == 5 && tensor->sizes[1] == 5);
    first_batch(a, l, LOADER_TRAIN, &b);
    static const int64_t train[] = { 2, 2, 3, 3, 2, 2, 1, 4, 4, 1 }, valid[] = { 0, 2, 3, 0, 1, 4 };
    CHECK(memcmp(b.data[0], train, sizeof train) == 0);
    first_batch(a, l, LOADER_VALID, &b);
    CHECK(memcmp(b.data[0], valid, sizeof valid) == 0);
    t.in[0].count_min = 2;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_find(l, S("words"))->sizes[0] == 3);
    t.in[0].count_min = 0;
    t.in[0].vocabulary_max = 1;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_find(l, S("words"))->sizes[1] == 3);
}

TEST(text_labels_are_classes_in_order)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed_batch b;
    table_set(&t, a, "SELECT * FROM (VALUES (1, 'dog'), (2, 'cat'), (3, 'dog')) t(x, y)", "");
    t.in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, "x");
    t.in[1] = input(a, "y", ROLE_LABEL, KIND_CLASS, "y");
    t.spec.n_inputs = 2;
    CHECK_OK(loader_open(a, &t.spec, &l));
    const struct loader_tensor *y = loader_role(l, ROLE_LABEL);
    CHECK(y->classes == 2 && y->counts[0] == 1 && y->counts[1] == 2);
    CHECK_STR(y->class_names.v[0], "cat");
    first_batch(a, l, LOADER_TRAIN, &b);
    CHECK(((const int64_t *)b.data[1])[0] == 1 && ((const int64_t *)b.data[1])[1] == 0);
    t.file[1] = (struct loader_file){
        .path = table_write(a, t.dir, "v.parquet", "", "SELECT 1 AS x, 'cow' AS y"), .part = LOADER_VALID
    };
    t.spec.n_files = 2;
    err e = loader_open(a, &t.spec, &l);
    CHECK(e && e->code == INVALID);
    CHECK_STR(e->text,
              "label 'y' is cow in row 0 (from 0) of 'v.parquet': a class that no row of training has");
}

/* ---- missing and bad values ---- */

static void table_holes(struct table *t, struct arena *a)
{
    table_set(
        t, a,
        "SELECT * FROM (VALUES (1.0::DOUBLE, 10.0::FLOAT, 0), (NULL, 20, 1), (3, 'nan'::FLOAT, 0), (5, 30, 1), (3, NULL, 1)) t(x, z, y)",
        "");
    t->in[0] = input(a, "x", ROLE_INPUT, KIND_NUMBERS, "x,z");
    t->in[1] = input(a, "y", ROLE_LABEL, KIND_CLASS, "y");
    t->spec.n_inputs = 2;
}

TEST(missing_values_have_a_policy)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed_batch b;
    table_holes(&t, a);
    t.in[0].missing = MISSING_MEAN;
    t.in[0].indicator = true;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_find(l, S("x"))->n == 4);
    static const float mean[] = { 1, 10, 0, 0, 3, 20, 1, 0, 3, 20, 0, 1, 5, 30, 0, 0, 3, 20, 0, 1 };
    CHECK(memcmp(first_batch(a, l, LOADER_TRAIN, &b), mean, sizeof mean) == 0);
    float *raw;
    size_t n;
    CHECK_OK(loader_raw(l, a, LOADER_TRAIN, 0, 100, &raw, &n));
    CHECK(n == 5 && isnan(raw[2]) && raw[3] == 20);
    t.in[0].missing = MISSING_FILL;
    t.in[0].fill = -1;
    t.in[0].indicator = false;
    t.in[0].normalise = NORM_MINMAX;
    CHECK_OK(loader_open(a, &t.spec, &l));
    const float *x = first_batch(a, l, LOADER_TRAIN, &b);
    CHECK(x[2] == -0.5f && x[0] == 0 && x[6] == 1);
    t.in[0].missing = MISSING_SKIP;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_facts(l).rows[0] == 2 && loader_facts(l).skipped == 3);
    t.file[0].path = table_write(a, t.dir, "f.parquet", "",
                                 "SELECT CASE i WHEN 3 THEN 'inf'::FLOAT ELSE i END AS x, 1 AS z, i % 2 AS y "
                                 "FROM range(9) t(i)");
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK(loader_facts(l).rows[0] == 8 && loader_facts(l).skipped == 1);
}

static void refuses(struct table *t, const char *want)
{
    struct loader *l;
    err e = loader_open(t->a, &t->spec, &l);
    CHECK(e != NULL);
    struct str text = e->text;
    struct str tail = str_sub(text, text.n > strlen(want) ? text.n - strlen(want) : 0, text.n);
    CHECK_STR(tail, want);
    CHECK(e->code == INVALID);
}

TEST(bad_values_are_named_by_column_file_and_row)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    table_holes(&t, a);
    refuses(&t, "t.parquet': column 'x' is null in row 1 (from 0)");
    t.in[0].columns = names_of(a, "z");
    refuses(&t, "t.parquet': column 'z' is NaN in row 2 (from 0)");
    t.file[0].path = table_write(
        a, t.dir, "h.parquet", "",
        "SELECT CASE i WHEN 3000 THEN 1e300 ELSE i END AS z, i % 2 AS y FROM range(5000) t(i)");
    refuses(&t, "h.parquet': column 'z' is infinite or too large in row 3000 (from 0)");
    t.in[0].missing = MISSING_MEAN; /* fills in for what is missing, and this is not */
    refuses(&t, "h.parquet': column 'z' is infinite or too large in row 3000 (from 0)");
    t.in[0].missing = MISSING_ERROR;
    t.file[0].path = table_write(
        a, t.dir, "l.parquet", "",
        "SELECT i AS z, CASE i WHEN 4000 THEN 10 ELSE i % 10 END AS y FROM range(5000) t(i)");
    t.in[1].classes = 10;
    refuses(&t, "l.parquet': label 'y' is 10 in row 4000 (from 0): a class is a whole number from 0 to 9");
    t.file[0].path = table_write(a, t.dir, "n.parquet", "", "SELECT i AS z, i / 2.0 AS y FROM range(5) t(i)");
    refuses(&t, "n.parquet': label 'y' is 0.5 in row 1 (from 0): a class is a whole number from 0 to 9");
    t.file[0].path = table_write(a, t.dir, "e.parquet", "", "SELECT 1 AS z, 0 AS y WHERE false");
    refuses(&t, "e.parquet' (0 skipped, 0 not known in time)");
    t.file[0].path = table_write(a, t.dir, "c.parquet", "", "SELECT 1 AS zz, 0 AS y");
    refuses(&t, "c.parquet': there is no column 'z'; is it 'zz'?");
    t.file[0].path = table_write(a, t.dir, "w.parquet", "", "SELECT 'one' AS z, 0 AS y");
    refuses(&t, "w.parquet': column 'z' is VARCHAR, no number");
    t.in[0].kind = KIND_ARRAY;
    t.file[0].path = table_write(
        a, t.dir, "a.parquet", "",
        "SELECT CASE i WHEN 2 THEN [1] ELSE [1, 2] END AS z, 0 AS y FROM range(4) t(i)");
    refuses(&t, "a.parquet': column 'z' has 1 values in row 2 (from 0), not 2");
    t.file[0].path = table_write(
        a, t.dir, "i.parquet", "",
        "SELECT [i, CASE i WHEN 2 THEN 'inf'::DOUBLE ELSE 0 END] AS z, 0 AS y FROM range(4) t(i)");
    refuses(&t, "i.parquet': column 'z'[1] is infinite or too large in row 2 (from 0)");
}

TEST(what_cannot_be_is_refused)
{
    NEED_DUCKDB();
    auto_arena struct arena *a = arena_new(0);
    struct table t;
    struct loader *l;
    struct feed *f;
    table_numbers(&t, a, 10, "");
    t.in[1].name = S("numbers");
    refuses(&t, "two inputs have the name 'numbers'");
    t.in[1].name = S("words");
    t.spec.split.valid = 1;
    CHECK_ERR(loader_open(a, &t.spec, &l), INVALID);
    t.spec.split.valid = 0;
    t.file[0].path = S("/nowhere/t.parquet");
    CHECK_ERR(loader_open(a, &t.spec, &l), NOT_FOUND);
    table_numbers(&t, a, 10, "");
    t.spec.memory_max = 100;
    CHECK_ERR(loader_open(a, &t.spec, &l), TOO_LARGE);
    t.spec.memory_max = 0;
    CHECK_OK(loader_open(a, &t.spec, &l));
    CHECK_ERR(feed_open(l, a, &(struct feed_options){ .rows = 11 }, &f), INVALID);
    CHECK_ERR(feed_open(l, a, &(struct feed_options){ .rows = 1, .part = LOADER_TEST, .once = true }, &f),
              INVALID);
    CHECK_ERR(feed_open(l, a, &(struct feed_options){ .rows = 0 }, &f), INVALID);
}
