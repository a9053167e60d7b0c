// SPDX-License-Identifier: Apache-2.0
#define SUITE serve_request_rows
#include "serve/request_log.h"
#include "test.h"

static const uint8_t key[32] = "a key of 32 bytes, for the tests";

/* One row line of a request, from c16 on. */
static struct str row_of(const struct model *m, const struct request_log_spec *spec, struct tensor *in,
                         size_t n_in, size_t rows, size_t row)
{
    struct arena *a = arena_new(0);
    struct request_sink k = { .a = a, .text = buf_new(a), .redact = spec->redact };
    struct taken t = { .r = { .rows = rows, .inputs = n_in }, .in = in };
    struct str text, line = S("");
    columns_make(&k, m, spec);
    rows_write(&k, &t, S("b"), key);
    text = buf_get(&k.text);
    for (size_t i = 0; i <= row; i++)
        CHECK(str_cut(&text, '\n', &line));
    const char *at = memmem(line.p, line.n, "\"c16\"", 5);
    CHECK(at);
    return str_sub(line, (size_t)(at - line.p), line.n);
}

#define SPEC(n, t, r, ...)                                                                        \
    {                                                                                             \
        .name = S_INIT(n), .type = TENSOR_##t, .shaped = true, .rank = r, .dims = { __VA_ARGS__ } \
    }

TEST(each_type_is_written_as_it_was)
{
    const struct {
        enum tensor_type type;
        const void *data;
        const char *text;
    } cases[] = {
        { TENSOR_U8, (const uint8_t[]){ 0, 255 }, "[0,255]" },
        { TENSOR_I8, (const int8_t[]){ -128, 127 }, "[-128,127]" },
        { TENSOR_U16, (const uint16_t[]){ 0, 65535 }, "[0,65535]" },
        { TENSOR_I16, (const int16_t[]){ -32768, 1 }, "[-32768,1]" },
        { TENSOR_U32, (const uint32_t[]){ 0, UINT32_MAX }, "[0,4294967295]" },
        { TENSOR_I32, (const int32_t[]){ INT32_MIN, 1 }, "[-2147483648,1]" },
        { TENSOR_U64, (const uint64_t[]){ 0, UINT64_MAX }, "[0,18446744073709551615]" },
        { TENSOR_I64, (const int64_t[]){ INT64_MIN, 1 }, "[-9223372036854775808,1]" },
        { TENSOR_BOOL, (const uint8_t[]){ 0, 1 }, "[false,true]" },
        { TENSOR_F16, (const uint16_t[]){ 0x3e00, 0xc100 }, "[1.5,-2.5]" },
        { TENSOR_F16, (const uint16_t[]){ 0x7c00, 0xfe00 }, "[\"inf\",null]" },
        { TENSOR_BF16, (const uint16_t[]){ 0x3fc0, 0xff80 }, "[1.5,\"-inf\"]" },
        { TENSOR_F32, (const float[]){ 0.1f, -INFINITY }, "[0.1,\"-inf\"]" },
        { TENSOR_F64, (const double[]){ 0.1, NAN }, "[0.1,null]" },
        { TENSOR_TEXT, (const struct str[]){ S("a\"\n"), S("") }, "[\"a\\\"\\n\",\"\"]" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct tensor_spec s = SPEC("x", U8, 2, -1, 2);
        s.type = cases[i].type;
        struct session_info info = { .inputs = &s, .n_inputs = 1 };
        struct model m = { .info = &info };
        struct tensor t = {
            .type = s.type, .rank = 2, .dims = { 1, 2 }, .data = (void *)(uintptr_t)cases[i].data
        };
        struct str row = row_of(&m, &(struct request_log_spec){ 0 }, &t, 1, 1, 0);
        cr_assert(str_eq(row, str_of(fmtz(arena_new(0), "\"c16\":%s}", cases[i].text))), "%s: %.*s",
                  cases[i].text, STR(row));
    }
}

TEST(rows_have_their_parts_and_what_has_none_is_the_first_rows)
{
    struct tensor_spec s[] = { SPEC("one", I64, 1, -1), SPEC("wide", I64, 3, -1, 2, 1),
                               SPEC("odd", I64, 1, -1) };
    struct session_info info = { .inputs = s, .n_inputs = 3 };
    struct model m = { .info = &info };
    int64_t one[] = { 1, 2 }, wide[] = { 1, 2, 3, 4 }, odd[] = { 7, 8, 9 };
    struct tensor t[] = { { .slot = 0, .type = TENSOR_I64, .rank = 1, .dims = { 2 }, .data = one },
                          { .slot = 1, .type = TENSOR_I64, .rank = 3, .dims = { 2, 2, 1 }, .data = wide },
                          { .slot = 2, .type = TENSOR_I64, .rank = 1, .dims = { 3 }, .data = odd } };
    struct request_log_spec spec = { 0 };
    CHECK_STR(row_of(&m, &spec, t, 3, 2, 0), "\"c16\":1,\"c17\":[1,2],\"c18\":null}");
    CHECK_STR(row_of(&m, &spec, t, 3, 2, 1), "\"c16\":2,\"c17\":[3,4],\"c18\":null}");
    CHECK_STR(row_of(&m, &spec, t, 2, 2, 1), "\"c16\":2,\"c17\":[3,4],\"c18\":null}"); /* not given */
}

TEST(names_are_told_apart_without_their_case)
{
    struct tensor_spec s = SPEC("x", F32, 2, -1, 4);
    struct session_info info = { .inputs = &s, .n_inputs = 1 };
    struct str names[] = { S("a"), S("A"), S("time"), S("A_2") };
    struct model m = { .info = &info, .by_rows = true, .features = 4, .names = names };
    auto_arena struct arena *a = arena_new(0);
    struct request_sink k = { .a = a };
    columns_make(&k, &m, &(struct request_log_spec){ 0 });
    CHECK(k.columns_n == META_COUNT + 4);
    CHECK_STR(k.columns[META_COUNT].name, "a");
    CHECK_STR(k.columns[META_COUNT + 1].name, "A_2");
    CHECK_STR(k.columns[META_COUNT + 2].name, "time_2");
    CHECK_STR(k.columns[META_COUNT + 3].name, "A_2_2");
}

/* The digest of "0.5" by another implementation of HMAC-SHA-256 and the key above. */
TEST(a_hash_is_an_hmac_of_the_value)
{
    struct tensor_spec s = SPEC("x", F32, 2, -1, 2);
    struct session_info info = { .inputs = &s, .n_inputs = 1 };
    struct str names[] = { S("a"), S("b") };
    struct model m = { .info = &info, .by_rows = true, .features = 2, .names = names };
    float x[] = { 0.5f, NAN };
    struct tensor t = { .type = TENSOR_F32, .rank = 2, .dims = { 1, 2 }, .data = x };
    struct request_log_spec spec = { .redact = REDACT_HASH, .personal = { names, 2, 2 } };
    CHECK_STR(row_of(&m, &spec, &t, 1, 1, 0), "\"c16\":\"1da972a48853b016824927772a3de07d\",\"c17\":null}");
    spec.redact = REDACT_NULL;
    CHECK_STR(row_of(&m, &spec, &t, 1, 1, 0), "\"c16\":null,\"c17\":null}");
}
