// SPDX-License-Identifier: Apache-2.0
#define SUITE safetensors
#include "engine/engine.h"
#include "test.h"

static struct arena *a;
static void before(void)
{
    a = arena_new(0);
}
static void after(void)
{
    arena_free(a);
}
TestSuite(safetensors, .init = before, .fini = after);

/* A file of this header and so many bytes of data. */
static struct str file_of(const char *header, size_t data)
{
    struct buf b = buf_new(a);
    uint64_t n = strlen(header);
    for (int i = 0; i < 8; i++)
        buf_put(&b, &(char){ (char)(n >> (8 * i)) }, 1);
    buf_put(&b, header, n);
    for (size_t i = 0; i < data; i++)
        buf_put(&b, "x", 1);
    return buf_get(&b);
}

static err try_read(const char *header, size_t data)
{
    struct safetensors s;
    return safetensors_read(a, file_of(header, data), &s);
}

TEST(what_is_laid_out_reads_back)
{
    struct safetensors s = { 0 }, back;
    struct str header;
    push(a, &s.v, ((struct safetensor){ .name = S("w"), .type = TENSOR_F32, .rank = 2, .dims = { 2, 3 } }));
    push(a, &s.v, ((struct safetensor){ .name = S("leer"), .type = TENSOR_I64, .rank = 1, .dims = { 0 } }));
    push(a, &s.v, ((struct safetensor){ .name = S("step"), .type = TENSOR_I64 }));
    push(a, &s.metadata, ((struct safetensors_text){ S("format"), S("dhow \"1\"") }));
    CHECK_OK(safetensors_layout(a, &s, &header));
    CHECK(s.data_at == header.n && header.n % SAFETENSORS_ALIGN == 0 && s.bytes == 32);
    struct buf b = buf_new(a);
    buf_str(&b, header);
    for (int i = 0; i < 32; i++)
        buf_put(&b, &(char){ (char)i }, 1);
    CHECK_OK(safetensors_read(a, buf_get(&b), &back));
    CHECK(back.v.n == 3 && back.metadata.n == 1);
    CHECK_STR(back.metadata.v[0].value, "dhow \"1\"");
    const struct safetensor *step = safetensors_find(&back, S("step"));
    CHECK(step && step->rank == 0 && *(const char *)step->data == 24);
    CHECK(safetensors_find(&back, S("w"))->dims[1] == 3 && !safetensors_find(&back, S("v")));
}

TEST(lengths_are_checked)
{
    struct safetensors s;
    CHECK_ERR(safetensors_read(a, S(""), &s), INVALID);
    CHECK_ERR(safetensors_read(a, S("\xff\xff\xff\xff\xff\xff\xff\xff{}"), &s), TOO_LARGE);
    CHECK_ERR(safetensors_read(a, S("\x03\0\0\0\0\0\0\0{}"), &s), INVALID);
    CHECK_OK(try_read("{}", 0));
    CHECK_OK(try_read("{}     ", 0));
    CHECK_ERR(try_read(" {}", 0), INVALID);
    CHECK_ERR(try_read("[]", 0), INVALID);
    CHECK_ERR(try_read("{}", 1), INVALID);
}

TEST(offsets_agree_with_shapes)
{
    CHECK_OK(try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8));
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4), INVALID);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8), INVALID);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4), INVALID);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}", 8), INVALID);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8), INVALID);
    CHECK_ERR(
        try_read("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0),
        TOO_LARGE);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1),
              INVALID);
}

TEST(holes_overlaps_and_duplicates_are_refused)
{
#define T(name, from, to) "\"" name "\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[" from "," to "]}"
    CHECK_OK(try_read("{" T("b", "2", "4") "," T("a", "0", "2") "}", 4));
    CHECK_ERR(try_read("{" T("a", "0", "2") "," T("b", "3", "5") "}", 5), INVALID);
    CHECK_ERR(try_read("{" T("a", "0", "2") "," T("b", "1", "3") "}", 3), INVALID);
    CHECK_ERR(try_read("{" T("a", "0", "2") "," T("a", "2", "4") "}", 4), INVALID);
    CHECK_ERR(try_read("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0),
              INVALID);
    CHECK_ERR(try_read("{\"__metadata__\":{\"a\":1}}", 0), INVALID);
#undef T
}
