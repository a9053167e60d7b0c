// SPDX-License-Identifier: Apache-2.0
/* Our engine as a runtime, beside ONNX Runtime: the same answers for any number of rows, and what it leaves to the other. */
#define SUITE train_engine_runtime
#include "models.h"
#include <math.h>
#include <stdlib.h>

enum { FEATURES = 5, CLASSES = 3, ROWS = 300, SIDE = 13 };

static void fill(float *v, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)((seed = seed * 1103515245u + 12345u) >> 16) / 32768.0f - 1;
}

/* Two hidden layers, batch norm between them, a softmax; and the sum of what came in as a second output. */
static struct str network(struct arena *a, int64_t hidden)
{
    float *w = NEW_N(a, float, (size_t)(FEATURES * hidden)), *v = NEW_N(a, float, (size_t)(hidden * CLASSES)),
          *b = NEW_N(a, float, (size_t)hidden), *one = NEW_N(a, float, (size_t)hidden);
    struct graph *g = graph_new(a);
    struct str bytes;
    fill(w, (size_t)(FEATURES * hidden), 1);
    fill(v, (size_t)(hidden * CLASSES), 2);
    fill(b, (size_t)hidden, 3);
    for (int64_t i = 0; i < hidden; i++) {
        one[i] = 1 + (float)(i % 3);
        for (int k = 0; k < CLASSES; k++)
            v[i * CLASSES + k] /= (float)hidden;
    }
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), FEATURES));
    int y = graph_node(g, OP_Relu,
                       graph_node(g, OP_Gemm, x, graph_param(g, S("w"), SHAPE(FEATURES, hidden), w),
                                  graph_param(g, S("b"), SHAPE(hidden), b)));
    y = graph_node(g, OP_BatchNormalization, y, graph_param(g, S("scale"), SHAPE(hidden), one),
                   graph_param(g, S("shift"), SHAPE(hidden), b), graph_state(g, S("mean"), SHAPE(hidden), b),
                   graph_state(g, S("variance"), SHAPE(hidden), one));
    y = graph_node(g, OP_MatMul, y, graph_param(g, S("v"), SHAPE(hidden, CLASSES), v));
    graph_output(g, graph_node_with(g, OP_Softmax, ATTRS({ "axis", ATTR_INT, .i = 1 }), y), S("p"));
    graph_output(g, graph_node(g, OP_Tanh, x), S("t"));
    CHECK_OK(graph_error(g));
    CHECK_OK(graph_write(g, a, NULL, &bytes));
    return bytes;
}

static struct runtime *engine(void)
{
    struct runtime *rt;
    CHECK_OK(runtime_open_named(S("engine"), NULL, &rt));
    return rt;
}

TEST(rows_answer_as_in_onnx_runtime_however_many_come)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt[2] = { NULL, engine() };
    err e = runtime_open(NULL, &rt[0]);
    if (e && e->code == UNAVAILABLE && !getenv("DHOW_NEED_ALL"))
        cr_skip_test("ONNX Runtime is not here");
    CHECK_OK(e);
    float x[ROWS * FEATURES];
    fill(x, ROWS * FEATURES, 4);
    const int64_t hidden[] = { 7, 64, 3000 }; /* of the last fewer rows stay in a cache than programs have */
    for (size_t k = 0; k < 3; k++) {
        struct session *s[2];
        for (int i = 0; i < 2; i++)
            CHECK_OK(session_load(rt[i], network(a, hidden[k]), NULL, &s[i]));
        for (int64_t rows = 1; rows <= ROWS; rows += rows < 10 ? 1 : 29) {
            struct tensor in = floats(0, rows, FEATURES, x), p[2][2] = { 0 };
            for (int i = 0; i < 2; i++) {
                p[i][0].slot = 1;
                CHECK_OK(session_run(s[i], a, &in, 1, p[i], 2));
            }
            for (int o = 0; o < 2; o++) {
                CHECK(p[0][o].bytes == p[1][o].bytes && p[1][o].dims[0] == rows);
                for (size_t i = 0; i < p[0][o].bytes / 4; i++)
                    CHECK(fabsf(((float *)p[0][o].data)[i] - ((float *)p[1][o].data)[i]) < 2e-6f);
            }
        }
        struct tensor *drawn; /* odd ones among them */
        double apart;
        CHECK_OK(session_drawn(session_describe(s[1]), a, 64, &drawn));
        CHECK_OK(sessions_compare(s[0], s[1], drawn, &apart));
        CHECK(apart <= 1e-5);
        for (int i = 0; i < 2; i++)
            session_unload(s[i]);
    }
    for (int i = 0; i < 2; i++)
        runtime_close(rt[i]);
}

/* Pictures: a convolution with its norm, one of each channel by itself with Clip, one of 1 × 1 beside what came in, a pool. */
static struct str pictures(struct arena *a, int64_t channels)
{
    struct graph *g = graph_new(a);
    struct str bytes;
    const int64_t ones[] = { 1, 1, 1, 1 }, c = channels;
    float *w = NEW_N(a, float, (size_t)(c * c + 27 * c)), *b = NEW_N(a, float, (size_t)c),
          *one = NEW_N(a, float, (size_t)c);
    fill(w, (size_t)(c * c + 27 * c), 1);
    fill(b, (size_t)c, 2);
    for (int64_t i = 0; i < c; i++)
        one[i] = 1 + (float)(i % 3);
    for (int64_t i = 0; i < c * c + 27 * c; i++)
        w[i] /= 8;
    const struct attr *pads = ATTRS({ "pads", ATTR_INTS, .is = ones, .n = 4 });
    const struct attr *apart = ATTRS({ "pads", ATTR_INTS, .is = ones, .n = 4 },
                                     { "group", ATTR_INT, .i = c });
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), 3, SIDE, SIDE));
    int y = graph_node_with(g, OP_Conv, pads, x, graph_param(g, S("w"), SHAPE(c, 3, 3, 3), w));
    y = graph_node(g, OP_BatchNormalization, y, graph_param(g, S("scale"), SHAPE(c), one),
                   graph_param(g, S("shift"), SHAPE(c), b), graph_state(g, S("mean"), SHAPE(c), b),
                   graph_state(g, S("variance"), SHAPE(c), one));
    y = graph_node(g, OP_Relu, y);
    int z = graph_node_with(g, OP_Conv, apart, y, graph_param(g, S("v"), SHAPE(c, 1, 3, 3), w + c),
                            graph_param(g, S("b"), SHAPE(c), b));
    z = graph_node(g, OP_Clip, z, graph_f32(g, -1), graph_f32(g, 2));
    z = graph_node(g, OP_Add,
                   graph_node(g, OP_Conv, z, graph_param(g, S("u"), SHAPE(c, c, 1, 1), w + 27 * c)), y);
    z = graph_node(g, OP_Flatten, graph_node(g, OP_GlobalAveragePool, z));
    graph_output(g, z, S("y"));
    CHECK_OK(graph_error(g));
    CHECK_OK(graph_write(g, a, NULL, &bytes));
    return bytes;
}

TEST(pictures_answer_as_in_onnx_runtime)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt[2] = { NULL, engine() };
    const struct session_config sure = { .sure = true };
    err e = runtime_open(NULL, &rt[0]);
    if (e && e->code == UNAVAILABLE && !getenv("DHOW_NEED_ALL"))
        cr_skip_test("ONNX Runtime is not here");
    CHECK_OK(e);
    const int64_t channels[] = { 5, 16, 40 };
    for (size_t k = 0; k < 3; k++) {
        struct session *s[2];
        struct tensor *drawn;
        double apart;
        const struct str bytes = pictures(a, channels[k]);
        for (int i = 0; i < 2; i++)
            CHECK_OK(session_load(rt[i], bytes, NULL, &s[i]));
        CHECK_OK(session_drawn(session_describe(s[1]), a, 40, &drawn)); /* no numbers and infinities, too */
        CHECK_OK(sessions_compare(s[0], s[1], drawn, &apart));
        cr_assert(apart <= 1e-5, "%lld channels: %g apart", (long long)channels[k], apart);
        for (int i = 0; i < 2; i++)
            session_unload(s[i]);
        /* Of few channels ONNX Runtime may be faster, and wherever the engine has not its best convolutions. */
        if (channels[k] >= 16 && device_convolves(&device_cpu)) {
            CHECK_OK(session_load(rt[1], bytes, &sure, &s[1]));
            session_unload(s[1]);
        } else {
            CHECK_ERR(session_load(rt[1], bytes, &sure, &s[1]), UNSUPPORTED);
        }
    }
    for (int i = 0; i < 2; i++)
        runtime_close(rt[i]);
}

/* y = x · (xᵀ · x): each row depends on all of them, so rows may be neither filled up nor cut. */
static struct str mixed(struct arena *a)
{
    struct buf g = buf_new(a);
    pb_bytes(&g, 1, node(a, "Transpose", "x", NULL, "t"));
    pb_bytes(&g, 1, node(a, "MatMul", "t", "x", "m"));
    pb_bytes(&g, 1, node(a, "MatMul", "x", "m", "y"));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", TENSOR_F32, 2));
    pb_bytes(&g, 12, value(a, "y", TENSOR_F32, 2));
    return model(a, &g);
}

/* y: three columns by the file's word, two in truth. */
static struct str misnamed(struct arena *a)
{
    struct buf g = buf_new(a);
    pb_bytes(&g, 1, node(a, "Tanh", "x", NULL, "y"));
    pb_bytes(&g, 2, S("g"));
    pb_bytes(&g, 11, value(a, "x", TENSOR_F32, 2));
    pb_bytes(&g, 12, value(a, "y", TENSOR_F32, 3));
    return model(a, &g);
}

TEST(it_leaves_the_rest_to_onnx_runtime)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = engine();
    struct session *s;
    CHECK_ERR(session_load(rt, mixed(a), NULL, &s), UNSUPPORTED);
    CHECK(session_load(rt, misnamed(a), NULL, &s) != NULL);
    CHECK_ERR(session_load(rt, zipped(a, false), NULL, &s), UNSUPPORTED);
    CHECK(session_load(rt, listed(a), NULL, &s) != NULL);
    CHECK_ERR(session_load(rt, network(a, 3 << 20), NULL, &s), TOO_LARGE);
    CHECK_ERR(session_load(rt, products(a, 2, 2001), NULL, &s), TOO_LARGE);
    CHECK_ERR(session_load(rt, same(a, TENSOR_F32), &(struct session_config){ .device = "cuda" }, &s),
              UNAVAILABLE);
    /* What may be faster there it takes only when told to. */
    const struct session_config sure = { .sure = true };
    CHECK_OK(session_load(rt, network(a, 64), &sure, &s));
    session_unload(s);
    CHECK_ERR(session_load(rt, network(a, 100000), &sure, &s), UNSUPPORTED);
    CHECK_ERR(session_load(rt, network(a, 200000), &sure, &s), TOO_LARGE);
    runtime_close(rt);
}

TEST(an_index_out_of_its_range_is_an_error)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = engine();
    struct graph *g = graph_new(a);
    struct session *s;
    struct str bytes;
    const float table[4] = { 1, 2, 3, 4 };
    int64_t ids[3] = { 3, 0, 4 };
    float y[3];
    int x = graph_input(g, "id", TENSOR_I64, SHAPE(graph_symbol(g, "batch"), 1));
    graph_output(g, graph_node(g, OP_Gather, graph_param(g, S("table"), SHAPE(4), table), x), S("y"));
    CHECK_OK(graph_error(g));
    CHECK_OK(graph_write(g, a, NULL, &bytes));
    CHECK_OK(session_load(rt, bytes, NULL, &s));
    struct tensor in = { .type = TENSOR_I64, .rank = 2, .dims = { 2, 1 }, .data = ids, .bytes = 16 },
                  out = floats(0, 2, 1, y);
    CHECK_OK(session_run(s, NULL, &in, 1, &out, 1));
    CHECK(y[0] == 4 && y[1] == 1);
    in.dims[0] = out.dims[0] = 3;
    in.bytes = 24;
    out.bytes = 12;
    CHECK_ERR(session_run(s, NULL, &in, 1, &out, 1), INVALID);
    session_unload(s);
    runtime_close(rt);
}
