// SPDX-License-Identifier: Apache-2.0
#define SUITE train_loader_arrays
#include "tables.h"
#include "train/array.h"

#include <zlib.h>

/* ---- parsers ---- */

static struct str idx_text(struct arena *a, int type, int rank, const uint32_t *d, const void *numbers,
                           size_t n)
{
    struct buf b = buf_new(a);
    buf_put(&b, (char[]){ 0, 0, (char)type, (char)rank }, 4);
    for (int i = 0; i < rank; i++)
        buf_put(&b, (char[]){ (char)(d[i] >> 24), (char)(d[i] >> 16), (char)(d[i] >> 8), (char)d[i] }, 4);
    buf_put(&b, numbers, n);
    return buf_get(&b);
}

static struct str npy_text(struct arena *a, const char *head, const void *numbers, size_t n)
{
    struct buf b = buf_new(a);
    size_t length = (10 + strlen(head) + 1 + 63) / 64 * 64 - 10;
    buf_put(&b, "\x93NUMPY\x01\x00", 8);
    buf_put(&b, (char[]){ (char)length, (char)(length >> 8) }, 2);
    buf_str(&b, str_of(head));
    for (size_t i = strlen(head); i + 1 < length; i++)
        buf_str(&b, S(" "));
    buf_str(&b, S("\n"));
    buf_put(&b, numbers, n);
    return buf_get(&b);
}

TEST(idx_is_read_and_turned)
{
    auto_arena struct arena *a = arena_new(0);
    struct array x;
    CHECK_OK(array_idx(a, idx_text(a, 8, 2, (uint32_t[]){ 2, 3 }, "\1\2\3\4\5\6", 6), &x));
    CHECK(x.type == TENSOR_U8 && x.rank == 2 && x.d[0] == 2 && x.d[1] == 3 && ((const uint8_t *)x.p)[5] == 6);
    CHECK_OK(array_idx(a, idx_text(a, 0xc, 1, (uint32_t[]){ 2 }, "\0\0\1\2\xff\xff\xff\xfe", 8), &x));
    CHECK(x.type == TENSOR_I32 && ((const int32_t *)x.p)[0] == 258 && ((const int32_t *)x.p)[1] == -2);
    CHECK_OK(array_idx(a, idx_text(a, 0xd, 1, (uint32_t[]){ 1 }, "\x3f\x80\0\0", 4), &x));
    CHECK(x.type == TENSOR_F32 && *(const float *)x.p == 1);
    CHECK_ERR(array_idx(a, S(""), &x), INVALID);
    CHECK_ERR(array_idx(a, idx_text(a, 8, 2, (uint32_t[]){ 2, 3 }, "\1\2\3\4\5", 5), &x), INVALID);
    CHECK_ERR(array_idx(a, idx_text(a, 8, 3, (uint32_t[]){ ~0u, ~0u, ~0u }, "", 0), &x), INVALID);
    CHECK_ERR(array_idx(a, idx_text(a, 7, 1, (uint32_t[]){ 1 }, "1", 1), &x), INVALID);
    CHECK_ERR(array_idx(a, idx_text(a, 8, 0, NULL, "", 0), &x), INVALID);
}

TEST(npy_is_read)
{
    auto_arena struct arena *a = arena_new(0);
    struct array x;
    float f[] = { 1, 2, 3, 4, 5, 6 };
    CHECK_OK(array_npy(
        a, npy_text(a, "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", f, sizeof f), &x));
    CHECK(x.type == TENSOR_F32 && x.rank == 2 && x.d[0] == 3 && x.d[1] == 2 && ((const float *)x.p)[5] == 6);
    CHECK_OK(array_npy(
        a, npy_text(a, "{'descr': '>u2', 'fortran_order': False, 'shape': (2,), }", "\1\2\3\4", 4), &x));
    CHECK(x.type == TENSOR_U16 && x.rank == 1 && ((const uint16_t *)x.p)[0] == 258 &&
          ((const uint16_t *)x.p)[1] == 772);
    CHECK_OK(
        array_npy(a, npy_text(a, "{'descr': '|u1', 'fortran_order': True, 'shape': (4,), }", "abcd", 4), &x));
    CHECK(((const uint8_t *)x.p)[3] == 'd');
    static const struct {
        const char *head;
        enum err_code code;
    } bad[] = { { "{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", UNSUPPORTED },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (), }", INVALID },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -2), }", INVALID },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }", INVALID },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 8), }", INVALID },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 1, 2, 3), }", INVALID },
                { "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2", INVALID },
                { "{'descr': '<f4', 'shape': (3, 2), }", INVALID },
                { "{'fortran_order': False, 'shape': (3, 2), }", INVALID },
                { "{'descr': '|O', 'fortran_order': False, 'shape': (3, 2), }", UNSUPPORTED },
                { "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3, 2), }", UNSUPPORTED },
                { "", INVALID } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK_ERR(array_npy(a, npy_text(a, bad[i].head, f, sizeof f), &x), bad[i].code);
    CHECK_ERR(array_npy(a, S("\x93NUMPY\x01"), &x), INVALID);
}

static struct str gzip(struct arena *a, struct str text)
{
    z_stream z = { .next_in = (Bytef *)text.p, .avail_in = (uInt)text.n };
    char *to = NEW_N(a, char, text.n + 1000);
    CHECK(deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    z.next_out = (Bytef *)to;
    z.avail_out = (uInt)text.n + 1000;
    CHECK(deflate(&z, Z_FINISH) == Z_STREAM_END);
    size_t n = z.total_out;
    deflateEnd(&z);
    return (struct str){ to, n };
}

TEST(gzip_is_unpacked_within_a_limit)
{
    auto_arena struct arena *a = arena_new(0);
    char *text = NEW_N(a, char, 100000);
    struct str out, packed, twice;
    for (int i = 0; i < 100000; i++)
        text[i] = (char)(i % 251 * (i % 7));
    packed = gzip(a, (struct str){ text, 100000 });
    CHECK_OK(gunzip(a, packed, 100000, &out));
    CHECK(out.n == 100000 && memcmp(out.p, text, out.n) == 0);
    CHECK_ERR(gunzip(a, packed, 99999, &out), TOO_LARGE);
    CHECK_ERR(gunzip(a, str_sub(packed, 0, packed.n - 9), 1 << 20, &out), INVALID);
    CHECK_ERR(gunzip(a, S("\x1f\x8b, but nothing more"), 1 << 20, &out), INVALID);
    twice = str_join(a, (struct str[]){ packed, packed }, 2, S(""));
    CHECK_OK(gunzip(a, twice, 1 << 20, &out));
    CHECK(out.n == 200000 && memcmp(out.p + 100000, text, 100000) == 0);
}

/* ---- files ---- */

struct files {
    struct arena *a;
    const char *dir;
    struct loader_file file[4];
    struct loader_input in[3];
    struct loader_spec spec;
};

static void file_put(struct files *f, size_t i, const char *name, const char *column, enum loader_part part,
                     struct str bytes)
{
    f->file[i] = (struct loader_file){ .path = fmt(f->a, "%s/%s", f->dir, name),
                                       .part = part,
                                       .column = str_of(column) };
    CHECK_OK(file_write(str_z(f->a, f->file[i].path), bytes));
    if (f->spec.n_files <= i)
        f->spec.n_files = i + 1;
}

static void files_set(struct files *f, struct arena *a)
{
    *f = (struct files){ .a = a, .dir = dir_temp(a) };
    f->spec = (struct loader_spec){ .files = f->file, .inputs = f->in };
}

/* 40 + 10 images of 2 × 3: pixel p of image i is (i + p) % 256; labels are i % 4. */
static void images(struct files *f, struct arena *a)
{
    unsigned char x[50 * 6], y[50];
    files_set(f, a);
    for (int i = 0; i < 50; i++) {
        y[i] = (unsigned char)(i % 4);
        for (int p = 0; p < 6; p++)
            x[6 * i + p] = (unsigned char)(5 * i + p);
    }
    file_put(f, 0, "train-x.gz", "image", LOADER_TRAIN,
             gzip(a, idx_text(a, 8, 3, (uint32_t[]){ 40, 2, 3 }, x, 240)));
    file_put(f, 1, "train-y.gz", "label", LOADER_TRAIN,
             gzip(a, idx_text(a, 8, 1, (uint32_t[]){ 40 }, y, 40)));
    file_put(f, 2, "test-x.gz", "image", LOADER_TEST,
             gzip(a, idx_text(a, 8, 3, (uint32_t[]){ 10, 2, 3 }, x + 240, 60)));
    file_put(f, 3, "test-y", "label", LOADER_TEST, idx_text(a, 8, 1, (uint32_t[]){ 10 }, y + 40, 10));
    f->in[0] = (struct loader_input){
        .name = S("image"), .kind = KIND_ARRAY, .columns = names_of(a, "image"), .normalise = NORM_IMAGE
    };
    f->in[0].rank = 3;
    memcpy(f->in[0].shape, (int64_t[]){ 1, 2, 3 }, 3 * sizeof(int64_t));
    f->in[1] = (struct loader_input){
        .name = S("label"), .role = ROLE_LABEL, .kind = KIND_CLASS, .columns = names_of(a, "label")
    };
    f->spec.n_inputs = 2;
}

TEST(idx_files_are_images_and_labels)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    struct loader *l;
    struct feed *feed;
    struct feed_batch b;
    images(&f, a);
    f.spec.split.valid = 0.25;
    CHECK_OK(loader_open(a, &f.spec, &l));
    struct loader_facts facts = loader_facts(l);
    CHECK(facts.rows[LOADER_TRAIN] + facts.rows[LOADER_VALID] == 40 && facts.rows[LOADER_TEST] == 10);
    const struct loader_tensor *image = loader_find(l, S("image")), *label = loader_role(l, ROLE_LABEL);
    CHECK(image->type == TENSOR_F32 && image->rank == 3 && image->shape[0] == 1 && image->shape[2] == 3 &&
          image->n == 6);
    CHECK(image->each == 6 && image->shift[0] == 0 && fabsf(image->scale[0] - 1 / 255.0f) < 1e-9f);
    CHECK(label->type == TENSOR_I64 && label->rank == 0 && label->classes == 4);
    int64_t counted = 0;
    for (int c = 0; c < 4; c++)
        counted += label->counts[c];
    CHECK(counted == facts.rows[LOADER_TRAIN]);
    for (int p = 0; p < LOADER_PARTS; p++) {
        struct feed_options o = { .part = (enum loader_part)p, .rows = 7, .shuffle = true, .once = true };
        CHECK_OK(feed_open(l, a, &o, &feed));
        int64_t seen = 0;
        for (;; seen += b.rows) {
            CHECK_OK(feed_next(feed, &b));
            if (!b.rows)
                break;
            const float *x = b.data[0];
            const int64_t *y = b.data[1];
            for (int64_t r = 0; r < b.rows; r++) {
                int i = (int)lrintf(x[6 * r] * 255) / 5;
                CHECK(y[r] == i % 4 && lrintf(x[6 * r + 5] * 255) == 5 * i + 5);
                CHECK((i >= 40) == (p == LOADER_TEST));
            }
        }
        CHECK(seen == facts.rows[p]);
    }
    f.in[0].normalise = NORM_STANDARD;
    CHECK_OK(loader_open(a, &f.spec, &l));
    image = loader_find(l, S("image"));
    CHECK(image->shift[0] > 90 && image->shift[0] < 110 && image->scale[0] > 0.01f);
}

static void refuses(struct files *f, const char *want)
{
    struct loader *l;
    err e = loader_open(f->a, &f->spec, &l);
    CHECK(e != NULL);
    bool found = false;
    for (size_t i = 0; i + strlen(want) <= e->text.n; i++)
        found |= memcmp(e->text.p + i, want, strlen(want)) == 0;
    if (!found)
        CHECK_STR(e->text, want);
}

TEST(arrays_that_do_not_fit_each_other_are_refused)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    unsigned char y[41] = { 0 };
    images(&f, a);
    file_put(&f, 1, "41", "label", LOADER_TRAIN, idx_text(a, 8, 1, (uint32_t[]){ 41 }, y, 41));
    refuses(&f, "/41' has 41 rows,");
    y[3] = 9;
    file_put(&f, 1, "40", "label", LOADER_TRAIN, idx_text(a, 8, 1, (uint32_t[]){ 40 }, y, 40));
    f.in[1].classes = 9;
    refuses(&f, "column 'label' is 9 in row 3 (from 0) of");
    f.in[0].shape[1] = 3;
    refuses(&f, "its rows have 6 numbers, input 'image' wants another shape");
    images(&f, a);
    f.in[0].columns = names_of(a, "picture");
    refuses(&f, "no file is column 'picture'");
    f.in[0].columns = names_of(a, "image");
    f.spec.split.at = S("ts");
    refuses(&f, "arrays and streams have no column 'ts' to split by");
    images(&f, a);
    file_put(&f, 1, "cut", "label", LOADER_TRAIN,
             str_sub(idx_text(a, 8, 1, (uint32_t[]){ 40 }, y, 40), 0, 30));
    refuses(&f, "/cut': 22 bytes of numbers, its sizes ask for 40");
    files_set(&f, a);
    float x[] = { 1, 2, NAN, 4 };
    file_put(&f, 0, "x.npy", "x", LOADER_TRAIN,
             npy_text(a, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }", x, sizeof x));
    f.in[0] = (struct loader_input){ .name = S("x"), .kind = KIND_ARRAY, .columns = names_of(a, "x") };
    f.spec.n_inputs = 1;
    refuses(&f, "column 'x'[0] is NaN in row 1 (from 0) of");
}

TEST(npy_columns_are_normalised_one_by_one)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    struct loader *l;
    struct feed *feed;
    struct feed_batch b;
    double x[30 * 2], y[30];
    for (int i = 0; i < 30; i++) {
        x[2 * i] = i;
        x[2 * i + 1] = 7;
        y[i] = i * 0.5;
    }
    files_set(&f, a);
    file_put(&f, 0, "x.npy", "x", LOADER_TRAIN,
             npy_text(a, "{'descr': '<f8', 'fortran_order': False, 'shape': (30, 2), }", x, sizeof x));
    file_put(&f, 1, "y.npy", "y", LOADER_TRAIN,
             npy_text(a, "{'descr': '<f8', 'fortran_order': False, 'shape': (30,), }", y, sizeof y));
    f.in[0] = (struct loader_input){
        .name = S("x"), .kind = KIND_NUMBERS, .columns = names_of(a, "x"), .normalise = NORM_STANDARD
    };
    f.in[1] = (struct loader_input){
        .name = S("y"), .role = ROLE_LABEL, .kind = KIND_NUMBERS, .columns = names_of(a, "y")
    };
    f.spec.n_inputs = 2;
    CHECK_OK(loader_open(a, &f.spec, &l));
    CHECK_OK(feed_open(l, a, &(struct feed_options){ .rows = 30, .once = true }, &feed));
    CHECK_OK(feed_next(feed, &b));
    const float *out = b.data[0], *label = b.data[1];
    for (int i = 0; i < 30; i++) {
        CHECK(fabs((double)out[2 * i] - (i - 14.5) / sqrt((30 * 30 - 1) / 12.0)) < 1e-6);
        CHECK(out[2 * i + 1] == 0 && label[i] == (float)y[i]);
    }
    CHECK(loader_role(l, ROLE_LABEL)->rank == 0);
    float *raw;
    size_t n;
    CHECK_OK(loader_raw(l, a, LOADER_TRAIN, 0, 10, &raw, &n));
    CHECK(n == 10 && raw[2] == 3 && raw[3] == 7);
}

/* ---- streams ---- */

TEST(a_text_is_cut_into_windows)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    struct loader *l;
    struct feed *feed;
    struct feed_batch b;
    struct buf text = buf_new(a);
    for (int i = 0; i < 1000; i++) /* 'é' is two bytes; 'z' stands at the end only */
        buf_str(&text, i % 10 == 9 ? S("\xc3\xa9") : fmt(a, "%c", "abcdefghi"[i % 10]));
    for (int i = 0; i < 100; i++)
        buf_str(&text, S("z"));
    files_set(&f, a);
    file_put(&f, 0, "text.txt", "", LOADER_TRAIN, buf_get(&text));
    f.in[0] = (struct loader_input){
        .name = S("tokens"), .kind = KIND_TOKENS, .columns = names_of(a, "text"), .length = 16
    };
    f.in[1] = (struct loader_input){ .name = S("next"),
                                     .role = ROLE_LABEL,
                                     .kind = KIND_TOKENS,
                                     .columns = names_of(a, "text"),
                                     .length = 16 };
    f.spec.n_inputs = 2;
    f.spec.split = (struct loader_split){ .valid = 0.1 };
    CHECK_OK(loader_open(a, &f.spec, &l));
    struct loader_facts facts = loader_facts(l);
    CHECK(facts.rows[LOADER_TRAIN] == (990 - 1) / 16 && facts.rows[LOADER_VALID] == (110 - 1) / 16);
    const struct loader_tensor *t = loader_find(l, S("tokens"));
    CHECK(t->classes == 11 && t->rank == 1 && t->shape[0] == 16 && t->vocabulary->n == 10);
    CHECK_STR(t->vocabulary->v[0], "a");
    CHECK_STR(t->vocabulary->v[9], "\xc3\xa9");
    CHECK_OK(feed_open(l, a, &(struct feed_options){ .rows = 5, .once = true }, &feed));
    int64_t at = 0;
    for (;;) {
        CHECK_OK(feed_next(feed, &b));
        if (!b.rows)
            break;
        const int64_t *x = b.data[0], *y = b.data[1];
        for (int64_t i = 0; i < b.rows * 16; i++, at++)
            CHECK(x[i] == at % 10 + 1 && y[i] == (at + 1) % 10 + 1);
    }
    CHECK_OK(feed_open(l, a, &(struct feed_options){ .part = LOADER_VALID, .rows = 5, .once = true }, &feed));
    CHECK_OK(feed_next(feed, &b));
    CHECK(((const int64_t *)b.data[0])[0] == 1 &&
          ((const int64_t *)b.data[0])[10] == 0); /* z: not seen in training */
    /* The state carries the characters. */
    struct str state = loader_state(l, a);
    f.spec.state = state;
    file_put(&f, 0, "text.txt", "", LOADER_TRAIN, S("zyx\xc3\xa9 dab zyx\xc3\xa9 dab"));
    f.in[0].length = f.in[1].length = 4;
    f.spec.split.valid = 0;
    CHECK_OK(loader_open(a, &f.spec, &l));
    CHECK_OK(feed_open(l, a, &(struct feed_options){ .rows = 2, .once = true }, &feed));
    CHECK_OK(feed_next(feed, &b));
    static const int64_t want[] = { 0, 0, 0, 10, 0, 4, 1, 2 };
    CHECK(memcmp(b.data[0], want, sizeof want) == 0);
    CHECK_STR(loader_state(l, a), state);
    file_put(&f, 0, "text.txt", "", LOADER_TRAIN, S("abc\xff"));
    refuses(&f, "byte 3 is no UTF-8");
}

TEST(ids_are_a_stream_too)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    struct loader *l;
    struct feed *feed;
    struct feed_batch b;
    uint16_t ids[101];
    for (int i = 0; i < 101; i++)
        ids[i] = (uint16_t)(i * 600);
    files_set(&f, a);
    file_put(&f, 0, "ids.npy", "", LOADER_TRAIN,
             npy_text(a, "{'descr': '<u2', 'fortran_order': False, 'shape': (101,), }", ids, sizeof ids));
    f.in[0] = (struct loader_input){
        .name = S("tokens"), .kind = KIND_TOKENS, .columns = names_of(a, "text"), .length = 10
    };
    f.in[1] = (struct loader_input){ .name = S("next"),
                                     .role = ROLE_LABEL,
                                     .kind = KIND_TOKENS,
                                     .columns = names_of(a, "text"),
                                     .length = 10 };
    f.spec.n_inputs = 2;
    CHECK_OK(loader_open(a, &f.spec, &l));
    CHECK(loader_facts(l).rows[LOADER_TRAIN] == 10 && loader_find(l, S("tokens"))->classes == 60001);
    CHECK_OK(feed_open(l, a, &(struct feed_options){ .rows = 10, .shuffle = true, .seed = 2 }, &feed));
    CHECK_OK(feed_next(feed, &b));
    const int64_t *x = b.data[0], *y = b.data[1];
    for (int i = 0; i < 100; i++)
        CHECK(y[i] == x[i] + 600);
    f.in[0].classes = 1000;
    refuses(&f, "must be from 0 to 999");
}

static void stream_of(struct files *f, const char *sql)
{
    f->file[0] = (struct loader_file){ .path = table_write(f->a, f->dir, "stream.parquet", "", sql) };
    f->spec.n_files = 1;
    for (size_t i = 0; i < 2; i++)
        f->in[i] = (struct loader_input){ .name = i ? S("next") : S("tokens"),
                                          .role = i ? ROLE_LABEL : ROLE_INPUT,
                                          .kind = KIND_TOKENS,
                                          .columns = names_of(f->a, "x"),
                                          .length = 3 };
    f->spec.n_inputs = 2;
}

TEST(a_column_of_a_table_is_a_stream)
{
    static const struct {
        const char *sql;
        int64_t want[6]; /* the first two windows; text: a is the smallest after the line break */
    } rows[] = {
        { "SELECT * FROM (VALUES ('ab'), (''), ('ca'), ('b')) AS t(x)", { 2, 3, 1, 1, 4, 2 } },
        { "SELECT * FROM (VALUES (2), (3), (1), (1), (4), (2), (9)) AS t(x)", { 2, 3, 1, 1, 4, 2 } },
        { "SELECT * FROM (VALUES (2::UTINYINT), (3), (1), (1), (4), (2), (9)) AS t(x)",
          { 2, 3, 1, 1, 4, 2 } },
        { "SELECT * FROM (VALUES ([2, 3]), ([]), ([1, 1, 4, 2, 9])) AS t(x)", { 2, 3, 1, 1, 4, 2 } },
    };
    NEED_DUCKDB();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct files f;
        struct loader *l;
        struct feed *feed;
        struct feed_batch b;
        files_set(&f, a);
        stream_of(&f, rows[i].sql);
        CHECK_OK(loader_open(a, &f.spec, &l));
        CHECK(loader_facts(l).rows[LOADER_TRAIN] == 2);
        CHECK_OK(feed_open(l, a, &(struct feed_options){ .rows = 2, .once = true }, &feed));
        CHECK_OK(feed_next(feed, &b));
        CHECK(memcmp(b.data[0], rows[i].want, sizeof rows[i].want) == 0);
        CHECK(memcmp(b.data[1], rows[i].want + 1, 5 * sizeof *rows[i].want) == 0);
    }
}

TEST(a_column_that_is_no_stream_is_refused)
{
    static const struct {
        const char *sql, *says;
    } rows[] = {
        { "SELECT 'ab' AS x UNION ALL SELECT NULL", "column 'x' is null in row 1 (from 0)" },
        { "SELECT * FROM (VALUES (1), (NULL)) AS t(x)", "column 'x' is null in row 1 (from 0)" },
        { "SELECT [1, NULL] AS x", "column 'x'[1] is null in row 0 (from 0)" },
        { "SELECT 0.5 AS x", "column 'x' holds numbers that are not whole" },
        { "SELECT [0.5::FLOAT] AS x", "column 'x' holds numbers that are not whole" },
        { "SELECT DATE '2001-01-01' AS x", "column 'x' is DATE, no number" },
        { "SELECT [['a']] AS x", "column 'x' is VARCHAR[][], no number" },
        { "SELECT 'ab' AS xs", "there is no column 'x'" },
        { "SELECT -1 AS x FROM range(10)", "column 'x' is -1 in row 0" },
    };
    NEED_DUCKDB();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct files f;
        files_set(&f, a);
        stream_of(&f, rows[i].sql);
        refuses(&f, rows[i].says);
    }
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    files_set(&f, a);
    stream_of(&f, "SELECT repeat('a', 100) AS x FROM range(1000)");
    f.spec.memory_max = 20000;
    refuses(&f, "does not fit into 20000 bytes");
    stream_of(&f, "SELECT 'abcdefgh' AS x, 1 AS y");
    f.spec.memory_max = 0;
    f.in[1] = (struct loader_input){ .name = S("y"), .role = ROLE_LABEL, .columns = names_of(a, "y") };
    refuses(&f, "input 'y' is no stream of tokens");
}

TEST(fashion_mnist_is_read)
{
    auto_arena struct arena *a = arena_new(0);
    struct files f;
    struct loader *l;
    static const char *const names[] = { "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
                                         "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz" };
    files_set(&f, a);
    images(&f, a);
    for (int i = 0; i < 4; i++) {
        f.file[i].path = fmt(a, "/usr/share/datasets/fashion-mnist/%s", names[i]);
        if (!file_exists(str_z(a, f.file[i].path)))
            cr_skip_test("dataset-fashion-mnist is not here");
    }
    memcpy(f.in[0].shape, (int64_t[]){ 1, 28, 28 }, 3 * sizeof(int64_t));
    f.in[0].normalise = NORM_STANDARD;
    CHECK_OK(loader_open(a, &f.spec, &l));
    const struct loader_tensor *image = loader_find(l, S("image")), *label = loader_role(l, ROLE_LABEL);
    CHECK(loader_facts(l).rows[LOADER_TRAIN] == 60000 && loader_facts(l).rows[LOADER_TEST] == 10000);
    CHECK(label->classes == 10 && label->counts[9] == 6000);
    CHECK(fabsf(image->shift[0] - 72.9404f) < 1e-3f && fabsf(1 / image->scale[0] - 90.0212f) < 1e-3f);
}
