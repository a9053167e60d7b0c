// SPDX-License-Identifier: Apache-2.0
/* Messages of gRPC without gRPC: by their tables, and predictions by hand. */
#define SUITE rpc
#include "serve/ext.h"
#include "test.h"

static const struct proto_message *message(const char *name)
{
    const struct proto_message *m = proto_message(&proto_inference, str_of(name));
    cr_assert(m, "there is no message %s", name);
    return m;
}

static err to_json(struct arena *a, const char *name, struct str bytes, struct str *out)
{
    struct json j = json_new(a);
    TRY(proto_read(message(name), bytes, &j));
    *out = json_get(&j);
    return NULL;
}

static struct str to_bytes(struct arena *a, const char *name, const char *json)
{
    struct buf b = buf_new(a);
    yyjson_val *v;
    CHECK_OK(json_parse(a, str_of(json), &v));
    CHECK_OK(proto_write(message(name), v, &b));
    return buf_get(&b);
}

TEST(messages_come_back_from_json)
{
    static const struct {
        const char *name, *json;
    } rows[] = {
        { "ModelReadyRequest", "{\"name\":\"late\",\"version\":\"1\"}" },
        { "RepositoryModelLoadRequest",
          "{\"repository_name\":\"r\",\"model_name\":\"late\",\"parameters\":{\"config\":\"{}\",\"flag\":true,\"n\":-7}}" },
        { "TraceSettingRequest", "{\"settings\":{\"trace_level\":[\"A\",\"B\"]},\"model_name\":\"late\"}" },
        { "LogSettingsRequest",
          "{\"settings\":{\"log_info\":false,\"log_verbose_level\":3,\"log_format\":\"x\"}}" },
        { "RepositoryIndexResponse",
          "{\"models\":[{\"name\":\"a\",\"version\":\"1\"},{\"name\":\"b\",\"state\":\"READY\"}]}" },
        { "ModelMetadataResponse",
          "{\"name\":\"m\",\"versions\":[],\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[-1,3]}],\"outputs\":[]}" },
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct str json;
        CHECK_OK(to_json(a, rows[i].name, to_bytes(a, rows[i].name, rows[i].json), &json));
        CHECK_STR(json, rows[i].json);
    }
}

TEST(lists_may_be_packed_or_not_and_unknown_fields_are_passed_over)
{
    auto_arena struct arena *a = arena_new(0);
    struct str packed, loose;
    CHECK_OK(
        to_json(a, "ModelMetadataResponse.TensorMetadata", S("\x1a\x03\x01\x02\x03\xfa\x3f\x01z"), &packed));
    CHECK_OK(to_json(a, "ModelMetadataResponse.TensorMetadata", S("\x18\x01\x18\x02\x18\x03"), &loose));
    CHECK_STR(packed, loose);
    CHECK_STR(packed, "{\"shape\":[1,2,3]}");
}

TEST(what_cannot_be_read_is_refused)
{
    static const struct str wrong[] = {
        S_INIT("\x0a"),   /* cut behind its number */
        S_INIT("\x0a\x05" /* longer than what there is */
               "ab"),
        S_INIT("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), /* a number of eleven bytes */
        S_INIT("\x08\x01"),                                         /* a number for a text */
        S_INIT("\x0a\x01\xff"),                                     /* not UTF-8 */
        S_INIT("\x0a\x01"
               "a\x0a\x01"
               "b"),        /* twice */
        S_INIT("\x0b\x0c"), /* a group */
        S_INIT("\x02\x00"), /* number 0 */
    };
    auto_arena struct arena *a = arena_new(0);
    struct str json;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_ERR(to_json(a, "ModelReadyRequest", wrong[i], &json), INVALID);
    CHECK_ERR(to_json(a, "LogSettingsRequest", S("\x0a\x03\x0a\x01z"), &json), INVALID); /* no value */
    CHECK_ERR(to_json(a, "LogSettingsRequest", S("\x0a\x07\x0a\x01z\x12\x02\x12\x00"), &json), INVALID);
}

TEST(values_of_another_type_are_not_written)
{
    static const char *const wrong[] = { "{\"name\":1}", "{\"versions\":\"1\"}", "{\"inputs\":[1]}",
                                         "{\"versions\":[1]}" };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct buf b = buf_new(a);
        yyjson_val *v;
        CHECK_OK(json_parse(a, str_of(wrong[i]), &v));
        CHECK_ERR(proto_write(message("ModelMetadataResponse"), v, &b), INVALID);
    }
}

TEST(defaults_are_written_out)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    yyjson_val *v;
    CHECK_OK(json_parse(a, S("{\"dims\":[3],\"data_type\":\"TYPE_FP32\"}"), &v));
    proto_fill(message("ModelInput"), v, &j);
    CHECK_STR(json_get(&j),
              "{\"name\":\"\",\"data_type\":\"TYPE_FP32\",\"format\":\"FORMAT_NONE\",\"dims\":[3],"
              "\"is_shape_tensor\":false,\"allow_ragged_batch\":false,\"optional\":false,"
              "\"is_non_linear_format_io\":false}");
}

/* ---- predictions ---- */

struct part {
    const char *datatype;
    int64_t dims[2];
    struct str raw, contents;
};

static struct str request(struct arena *a, const struct part *v, size_t n)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, S("late"));
    for (size_t i = 0; i < n; i++) {
        size_t at = pb_open(&b, 5);
        pb_bytes(&b, 1, S("x"));
        pb_bytes(&b, 2, str_of(v[i].datatype));
        pb_varints(&b, 3, v[i].dims, 2);
        if (v[i].contents.p)
            pb_bytes(&b, 5, v[i].contents);
        pb_close(&b, at);
    }
    for (size_t i = 0; i < n; i++)
        if (v[i].raw.p)
            pb_bytes(&b, 7, v[i].raw);
    return buf_get(&b);
}

static err read_one(struct arena *a, const struct part *v, struct infer *c)
{
    bool final;
    *c = (struct infer){ .a = a };
    return rpc_read(c, request(a, v, 1), &final);
}

static struct str packed(struct arena *a, int field, const int64_t *v, size_t n)
{
    struct buf b = buf_new(a);
    pb_varints(&b, field, v, n);
    return buf_get(&b);
}

TEST(raw_and_contents_are_the_same_tensor)
{
    static const float v[] = { 1.5f, -2 };
    auto_arena struct arena *a = arena_new(0);
    struct infer raw, typed;
    struct buf b = buf_new(a);
    pb_floats(&b, 6, v, 2);
    struct part one = { "FP32", { 1, 2 }, .raw = { (const char *)v, sizeof v } };
    struct part two = { "FP32", { 1, 2 }, .contents = buf_get(&b) };
    CHECK_OK(read_one(a, &one, &raw));
    CHECK_OK(read_one(a, &two, &typed));
    CHECK_STR(raw.deployment, "late");
    CHECK(raw.inputs_n == 1 && raw.inputs[0].t.rank == 2 && raw.inputs[0].t.dims[1] == 2);
    CHECK(raw.inputs[0].t.bytes == sizeof v && !memcmp(raw.inputs[0].t.data, v, sizeof v));
    CHECK(typed.inputs[0].t.bytes == sizeof v && !memcmp(typed.inputs[0].t.data, v, sizeof v));
}

TEST(aligned_bytes_stay_where_they_came)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer c;
    static const char bytes[4096];
    struct part one = { "UINT8", { 1, sizeof bytes }, .raw = { bytes, sizeof bytes } };
    bool final;
    struct str body = request(a, &one, 1);
    c = (struct infer){ .a = a };
    CHECK_OK(rpc_read(&c, body, &final));
    CHECK((const char *)c.inputs[0].t.data > body.p && (const char *)c.inputs[0].t.data < body.p + body.n);
}

TEST(every_type_has_its_range)
{
    static const struct {
        const char *datatype;
        int field;
        int64_t v;
        bool ok;
    } rows[] = {
        { "INT8", 2, -128, true },         { "INT8", 2, 128, false },
        { "INT16", 2, 32767, true },       { "INT16", 2, 32768, false },
        { "INT32", 2, INT32_MIN, true },   { "INT32", 2, 1LL << 31, false },
        { "INT64", 3, INT64_MIN, true },   { "UINT8", 4, 255, true },
        { "UINT8", 4, 256, false },        { "UINT16", 4, -1, false },
        { "UINT32", 4, UINT32_MAX, true }, { "UINT32", 4, 1LL << 32, false },
        { "UINT64", 5, -1, true },         { "BOOL", 1, 1, true },
        { "BOOL", 1, 2, false },           { "INT8", 3, 1, false },
        { "FP32", 2, 1, false },           { "FP16", 2, 1, false },
    };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct infer c;
        struct part one = { rows[i].datatype, { 1, 1 }, .contents = packed(a, rows[i].field, &rows[i].v, 1) };
        err e = read_one(a, &one, &c);
        cr_assert(!e == rows[i].ok, "%s %lld", rows[i].datatype, (long long)rows[i].v);
        if (!e)
            CHECK(!memcmp(c.inputs[0].t.data, &rows[i].v, c.inputs[0].t.bytes));
    }
}

TEST(texts_come_behind_their_lengths)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer c;
    struct part one = { "BYTES", { 1, 2 }, .raw = S_INIT("\x02\0\0\0hi\0\0\0\0") };
    CHECK_OK(read_one(a, &one, &c));
    CHECK_STR(((struct str *)c.inputs[0].t.data)[0], "hi");
    CHECK(((struct str *)c.inputs[0].t.data)[1].n == 0);
    static const struct str wrong[] = { S_INIT("\x03\0\0\0hi\0\0\0\0"), S_INIT("\xff\xff\xff\xff"),
                                        S_INIT("\x02\0\0\0hi\0\0\0\0z"), S_INIT("\x02\0\0\0hi\0\0"),
                                        S_INIT("") };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        one.raw = wrong[i];
        CHECK_ERR(read_one(a, &one, &c), INVALID);
    }
}

TEST(a_shape_alone_reserves_nothing)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer c;
    struct part raw = { "BYTES", { INT32_MAX, 1 }, .raw = S_INIT("") };
    struct part typed = { "FP64", { 1 << 30, 1 }, .contents = S_INIT("") };
    struct part over = { "FP32", { INT32_MAX, INT32_MAX }, .raw = S_INIT("") };
    CHECK_ERR(read_one(a, &raw, &c), INVALID);
    CHECK_ERR(read_one(a, &typed, &c), INVALID);
    CHECK_ERR(read_one(a, &over, &c), INVALID);
}
