// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_onnx
#include "engine/engine.h"
#include "test.h"
#include <math.h>

/* ---- building messages ---- */

static struct str bytes_field(struct arena *a, int field, struct str v)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, field, v);
    return buf_get(&b);
}

static struct str join(struct arena *a, struct str x, struct str y)
{
    return str_join(a, (const struct str[]){ x, y }, 2, S(""));
}

/* A float tensor of dims {2, 2} with as many raw bytes as said, then anything else. */
static struct str tensor(struct arena *a, const char *name, size_t raw, struct str more)
{
    struct buf b = buf_new(a);
    pb_varint(&b, 1, 2);
    pb_varint(&b, 1, 2);
    pb_varint(&b, 2, TENSOR_F32);
    pb_bytes(&b, 8, str_of(name));
    if (raw)
        pb_bytes(&b, 9, (struct str){ arena_alloc(a, raw, 1), raw });
    buf_str(&b, more);
    return buf_get(&b);
}

static struct str node(struct arena *a, const char *op, const char *domain, struct str attribute)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, S("x"));
    pb_bytes(&b, 2, S("y"));
    pb_bytes(&b, 3, S("n1"));
    pb_bytes(&b, 4, str_of(op));
    if (attribute.n > 0)
        pb_bytes(&b, 5, attribute);
    pb_bytes(&b, 7, str_of(domain));
    return buf_get(&b);
}

static struct str attribute(struct arena *a, int field, struct str v)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 1, S("value"));
    pb_bytes(&b, field, v);
    return buf_get(&b);
}

static struct str value(struct arena *a, const char *name, int64_t elem)
{
    struct buf open = buf_new(a), dim = buf_new(a), shape = buf_new(a), type = buf_new(a), outer = buf_new(a),
               b = buf_new(a);
    pb_bytes(&open, 2, S("batch"));
    pb_varint(&dim, 1, 3);
    pb_bytes(&shape, 1, buf_get(&open));
    pb_bytes(&shape, 1, buf_get(&dim));
    pb_bytes(&shape, 1, S(""));
    pb_varint(&type, 1, elem);
    pb_bytes(&type, 2, buf_get(&shape));
    pb_bytes(&outer, 1, buf_get(&type));
    pb_bytes(&b, 1, str_of(name));
    pb_bytes(&b, 2, buf_get(&outer));
    return buf_get(&b);
}

static struct str graph(struct arena *a, struct str parts)
{
    struct buf b = buf_new(a);
    pb_bytes(&b, 2, S("main"));
    pb_bytes(&b, 11, value(a, "x", TENSOR_F32));
    pb_bytes(&b, 12, value(a, "y", TENSOR_I64));
    buf_str(&b, parts);
    return buf_get(&b);
}

static struct str model_of(struct arena *a, struct str graph_bytes, struct str more)
{
    struct buf b = buf_new(a), opset = buf_new(a), entry = buf_new(a);
    pb_varint(&b, 1, 9);
    pb_bytes(&b, 2, S("tester"));
    pb_bytes(&b, 7, graph_bytes);
    pb_bytes(&opset, 1, S("ai.onnx.ml"));
    pb_varint(&opset, 2, 3);
    pb_bytes(&b, 8, buf_get(&opset));
    pb_bytes(&b, 8, S("\x10\x11")); /* domain "", version 17 */
    pb_bytes(&entry, 1, S("k"));
    pb_bytes(&entry, 2, S("v"));
    pb_bytes(&b, 14, buf_get(&entry));
    buf_str(&b, more);
    return buf_get(&b);
}

/* A model with parts in its graph. */
static struct str model(struct arena *a, struct str parts)
{
    return model_of(a, graph(a, parts), S(""));
}

static err check(struct arena *a, struct str bytes)
{
    struct onnx_facts facts;
    return onnx_check(a, bytes, NULL, &facts);
}

#define CHECK_SAYS(call, code_, words)                                     \
    do {                                                                   \
        err said_ = (call);                                                \
        const char *text_ = said_ ? str_z(a, said_->text) : "";            \
        if (!said_ || said_->code != (code_) || !strstr(text_, words))     \
            TEST_FAIL_("%s: '%s' does not say '%s'", #call, text_, words); \
    } while (0)

/* ---- what passes ---- */

TEST(facts_of_a_model)
{
    auto_arena struct arena *a = arena_new(0);
    struct onnx_facts f;
    struct str parts = join(a, bytes_field(a, 5, tensor(a, "w", 16, S(""))),
                            bytes_field(a, 11, value(a, "w", TENSOR_F32)));
    parts = join(a, parts, bytes_field(a, 1, node(a, "Relu", "", S(""))));
    CHECK_OK(onnx_check(a, model(a, parts), NULL, &f));
    CHECK(f.ir_version == 9 && f.opset == 17 && f.opset_ml == 3);
    CHECK(f.nodes == 1 && f.tensors == 1 && f.parameters == 4);
    CHECK_STR(f.producer, "tester");
    CHECK_STR(f.graph, "main");
    CHECK(f.metadata.n == 1 && str_is(f.metadata.v[0].key, "k") && str_is(f.metadata.v[0].value, "v"));
    CHECK(f.inputs.n == 1 && f.outputs.n == 1); /* w is given by an initialiser */
    const struct tensor_spec *x = &f.inputs.v[0];
    CHECK(x->type == TENSOR_F32 && x->shaped && x->rank == 3 && x->dims[0] == -1 && x->dims[1] == 3 &&
          x->dims[2] == -1);
    CHECK_STR(x->symbols[0], "batch");
    CHECK(f.outputs.v[0].type == TENSOR_I64);
}

TEST(our_own_trees_pass)
{
    auto_arena struct arena *a = arena_new(0);
    struct tree_node nodes[] = { { 1, 0.5f, 1, 2, true }, { -1, -1, 0, 0, false }, { -1, 2, 0, 0, false } };
    struct trees t = { .features = 3,
                       .base = 0.1f,
                       .link = LINK_LOGISTIC,
                       .nodes = nodes,
                       .n_nodes = 3,
                       .roots = (uint32_t[]){ 0 },
                       .n_trees = 1 };
    struct str out;
    struct onnx_facts f;
    const struct str names[] = { S("a"), S("b"), S("c") };
    CHECK_OK(trees_to_onnx(&t, a, &(struct trees_doc){ S("1"), S("doc"), names }, &out));
    CHECK_OK(onnx_check(a, out, NULL, &f));
    CHECK(f.nodes == 2 && f.opset == 13 && f.opset_ml == 3 && f.ir_version == 8);
    CHECK_STR(f.metadata.v[0].value, "[\"a\",\"b\",\"c\"]");
    CHECK(f.inputs.v[0].dims[1] == 3);
    for (size_t cut = 1; cut <= out.n; cut++) { /* cut short anywhere: never a crash; nearly always refused */
        struct str part = str_dup(a, str_sub(out, 0, out.n - cut));
        (void)check(a, part);
    }
}

/* ---- what is refused ---- */

TEST(no_bytes_and_no_model)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_ERR(check(a, S("")), INVALID);
    CHECK_ERR(check(a, S("PK\x03\x04 a zip file")), INVALID);
    CHECK_ERR(check(a, S("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80")), INVALID);
    CHECK_ERR(check(a, S("\x3a\xff\xff\xff\xff\x0f")), INVALID); /* a graph of 4 GiB that is not there */
    CHECK_SAYS(check(a, model_of(a, graph(a, S("")), bytes_field(a, 7, S("")))), INVALID,
               "graph is there twice");
}

TEST(data_in_other_files)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf where = buf_new(a);
    pb_bytes(&where, 1, S("location"));
    pb_bytes(&where, 2, S("../secret.bin"));
    struct str external = bytes_field(a, 13, buf_get(&where)), location = S("\x70\x01");
    struct str w = tensor(a, "w", 0, external), l = tensor(a, "w", 0, location);
    struct str sparse = bytes_field(a, 1, w);
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, w))), INVALID, "tensor 'w': its data is in another file");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, l))), INVALID, "data_location");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 15, sparse))), INVALID, "another file");
    const int fields[] = { 5, 10 }; /* t, tensors */
    for (size_t i = 0; i < 2; i++)
        CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "Constant", "", attribute(a, fields[i], w))))),
                   INVALID, "node 'n1' (Constant): attribute 'value': tensor 'w'");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "C", "", attribute(a, 22, sparse))))), INVALID,
               "another file");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "C", "", attribute(a, 23, sparse))))), INVALID,
               "another file");
    struct str inner = bytes_field(a, 5, w); /* in a subgraph, by g and by graphs */
    CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "If", "", attribute(a, 6, inner))))), INVALID,
               "another file");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "If", "", attribute(a, 11, inner))))), INVALID,
               "another file");
    struct str trained = bytes_field(a, 20, bytes_field(a, 2, inner));
    CHECK_SAYS(check(a, model_of(a, graph(a, S("")), trained)), INVALID, "another file");
}

TEST(domains_that_are_not_ours)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_OK(check(a, model(a, bytes_field(a, 1, node(a, "Scaler", "ai.onnx.ml", S(""))))));
    CHECK_SAYS(check(a, model(a, bytes_field(a, 1, node(a, "Run", "com.evil", S(""))))), INVALID,
               "node 'n1' (Run): an operator of domain 'com.evil'");
    struct buf f = buf_new(a);
    pb_bytes(&f, 1, S("helper"));
    pb_bytes(&f, 10, S("local"));
    CHECK_SAYS(check(a, model_of(a, graph(a, S("")), bytes_field(a, 25, buf_get(&f)))), INVALID,
               "function 'helper'");
    struct buf g = buf_new(a);
    pb_bytes(&g, 7, node(a, "Run", "com.evil", S("")));
    CHECK_SAYS(check(a, model_of(a, graph(a, S("")), bytes_field(a, 25, buf_get(&g)))), INVALID, "com.evil");
}

TEST(sizes_that_are_not_there)
{
    auto_arena struct arena *a = arena_new(0);
    CHECK_OK(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 16, S(""))))));
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 12, S(""))))), INVALID,
               "claims 16 bytes, 12 are there");
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 0, S(""))))), INVALID,
               "claims 4 values, 0 are there");
    struct buf floats = buf_new(a);
    pb_floats(&floats, 4, (const float[]){ 1, 2, 3, 4 }, 4);
    CHECK_OK(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 0, buf_get(&floats))))));
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 16, buf_get(&floats))))), INVALID,
               "claims 16 bytes");
    struct buf big = buf_new(a); /* dims 2·2·2^62: overflows 64 bits */
    pb_varints(&big, 1, (const int64_t[]){ (int64_t)1 << 62 }, 1);
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 16, buf_get(&big))))), TOO_LARGE,
               "tensor 'w'");
    struct buf negative = buf_new(a);
    pb_varints(&negative, 1, (const int64_t[]){ -1 }, 1);
    CHECK_SAYS(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 16, buf_get(&negative))))), TOO_LARGE,
               "negative");
    struct buf many = buf_new(a);
    for (int i = 0; i < 1000; i++)
        pb_varint(&many, 1, 1);
    CHECK_ERR(check(a, model(a, bytes_field(a, 5, tensor(a, "w", 16, buf_get(&many))))), TOO_LARGE);
}

TEST(limits_hold)
{
    auto_arena struct arena *a = arena_new(0);
    struct onnx_facts f;
    struct str one = bytes_field(a, 1, node(a, "Relu", "", S(""))), three = join(a, one, join(a, one, one));
    struct str bytes = model(a, three);
    CHECK_OK(onnx_check(a, bytes, &(struct onnx_limits){ .nodes_max = 3 }, &f));
    CHECK_ERR(onnx_check(a, bytes, &(struct onnx_limits){ .nodes_max = 2 }, &f), TOO_LARGE);
    CHECK_ERR(onnx_check(a, bytes, &(struct onnx_limits){ .bytes_max = (int64_t)bytes.n - 1 }, &f),
              TOO_LARGE);
    struct str two = model(a, bytes_field(a, 11, value(a, "z", TENSOR_F32)));
    CHECK_OK(onnx_check(a, two, &(struct onnx_limits){ .values_max = 2 }, &f));
    CHECK_ERR(onnx_check(a, two, &(struct onnx_limits){ .values_max = 1 }, &f), TOO_LARGE);
    CHECK_ERR(check(a, model(a, bytes_field(a, 11, value(a, "x", TENSOR_F32)))), INVALID); /* x twice */
}

TEST(depth_of_subgraphs)
{
    auto_arena struct arena *a = arena_new(0);
    struct str inner = S("");
    for (int depth = 1; depth <= 9; depth++) {
        inner = bytes_field(a, 1, node(a, "If", "", attribute(a, 6, inner)));
        if (depth <= 8)
            CHECK_OK(check(a, model(a, inner)));
        else
            CHECK_SAYS(check(a, model(a, inner)), TOO_LARGE, "nested deeper than 8");
    }
    for (int depth = 0; depth < 12; depth++) /* far deeper: the walk ends early */
        inner = bytes_field(a, 1, node(a, "If", "", attribute(a, 6, inner)));
    CHECK_ERR(check(a, model(a, inner)), TOO_LARGE);
}

TEST(names_in_messages_are_clean)
{
    auto_arena struct arena *a = arena_new(0);
    char name[300];
    memset(name, 'A', sizeof name);
    name[0] = '\n';
    name[299] = 0;
    err e = check(a, model(a, bytes_field(a, 5, tensor(a, name, 0, S("")))));
    CHECK(e && e->text.n < 250 && !strchr(str_z(a, e->text), '\n'));
    CHECK_SAYS(check(a, model_of(a, graph(a, S("")), bytes_field(a, 3, S("\xff")))), INVALID, "not text");
}

/* ---- trees ---- */

TEST(trees_walk_missing_values_by_their_default)
{
    struct tree_node nodes[] = { { 0, 1, 1, 2, true },
                                 { -1, 10, 0, 0, false },
                                 { 1, -2, 3, 4, false },
                                 { -1, 20, 0, 0, false },
                                 { -1, 30, 0, 0, false } };
    struct trees t = {
        .features = 2, .base = 1, .nodes = nodes, .n_nodes = 5, .roots = (uint32_t[]){ 0 }, .n_trees = 1
    };
    const float x[] = { 0.5f, 0, NAN, 0, 1, -3, 1, -2, 2, NAN }, want[] = { 11, 11, 21, 31, 31 };
    float p[5];
    CHECK_OK(trees_check(&t));
    trees_predict(&t, x, 5, 2, p);
    CHECK(!memcmp(p, want, sizeof p));
}

TEST(trees_out_of_shape)
{
    struct tree_node nodes[] = { { 0, 1, 1, 2, true }, { -1, 10, 0, 0, false }, { -1, 3, 0, 0, false } },
                     bad[3];
    struct trees t = { .features = 1, .nodes = bad, .n_nodes = 3, .roots = (uint32_t[]){ 0 }, .n_trees = 1 };
    memcpy(bad, nodes, sizeof bad);
    CHECK_OK(trees_check(&t));
    bad[0].yes = 0; /* a loop */
    CHECK_ERR(trees_check(&t), INVALID);
    bad[0].yes = 2; /* shared */
    CHECK_ERR(trees_check(&t), INVALID);
    bad[0].yes = 7;
    CHECK_ERR(trees_check(&t), INVALID);
    memcpy(bad, nodes, sizeof bad);
    bad[0].feature = 1;
    CHECK_ERR(trees_check(&t), INVALID);
    memcpy(bad, nodes, sizeof bad);
    bad[2].value = INFINITY;
    CHECK_ERR(trees_check(&t), INVALID);
    memcpy(bad, nodes, sizeof bad);
    t.n_trees = 0;
    CHECK_ERR(trees_check(&t), INVALID);
}

TEST(types_have_names_and_sizes)
{
    CHECK(tensor_size(TENSOR_F16) == 2 && tensor_size(TENSOR_TEXT) == 0 &&
          tensor_size((enum tensor_type)99) == 0);
    CHECK_STR(tensor_protocol_name(TENSOR_TEXT), "BYTES");
    CHECK(tensor_of_protocol(S("FP64")) == TENSOR_F64 && tensor_of_protocol(S("")) == TENSOR_NONE);
    int64_t n;
    CHECK(tensor_count((const int64_t[]){ 2, 3 }, 2, 6, &n) && n == 6);
    CHECK(tensor_count((const int64_t[]){ 0, 3 }, 2, 6, &n) && n == 0);
    CHECK(tensor_count(NULL, 0, 1, &n) && n == 1);
    CHECK(!tensor_count((const int64_t[]){ 2, 4 }, 2, 6, &n) &&
          !tensor_count((const int64_t[]){ 0, -1 }, 2, 6, &n));
    CHECK(!tensor_count((const int64_t[]){ INT64_MAX, 3 }, 2, INT64_MAX, &n));
}
