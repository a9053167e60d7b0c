// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_ops_image
#include "engine/cpu/onednn.h"
#include "engine/cpu/simd.h"
#include "gradcheck.h"
#include "test.h"
#include <math.h>

#define INTS(...)                                      \
    ATTR_INTS, .is = (const int64_t[]){ __VA_ARGS__ }, \
               .n = sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)
#define NUMBER(name, x)          \
    {                            \
        name, ATTR_INT, .i = (x) \
    }
#define TEXT(name, x)                             \
    {                                             \
        name, ATTR_TEXT, .s = { x, sizeof x - 1 } \
    }

TEST(convolutions)
{
    const struct gradcheck rows[] = {
        { OP_Conv, .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(4, 3, 3, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(4, 3, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv,
          .attrs = ATTRS({ "pads", INTS(1, 0, 2, 1) }, { "strides", INTS(2, 1) },
                         { "dilations", INTS(1, 2) }),
          .in = { { SHAPE(1, 2, 6, 6) }, { SHAPE(3, 2, 2, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS({ "strides", INTS(2, 2) }, { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 16, 8, 8) }, { SHAPE(32, 16, 3, 3) }, { SHAPE(32) } }, .n_in = 3,
          .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS({ "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 16, 8, 8) }, { SHAPE(32, 16, 1, 1) } }, .n_in = 2, .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS(TEXT("auto_pad", "SAME_UPPER"), { "strides", INTS(2, 2) }),
          .in = { { SHAPE(1, 2, 5, 6) }, { SHAPE(2, 2, 3, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS(TEXT("auto_pad", "SAME_LOWER")),
          .in = { { SHAPE(1, 2, 5, 6) }, { SHAPE(2, 2, 2, 2) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS(NUMBER("group", 2), { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 4, 5, 4) }, { SHAPE(6, 2, 3, 3) }, { SHAPE(6) } }, .n_in = 3 },
        { OP_Conv,
          .attrs = ATTRS(NUMBER("group", 4), { "pads", INTS(1, 1, 1, 1) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 4, 5, 4) }, { SHAPE(4, 1, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv, .attrs = ATTRS(NUMBER("group", 32), { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(1, 32, 5, 4) }, { SHAPE(32, 1, 3, 3) } }, .n_in = 2 },
        /* One channel in, or out: of such pictures all layouts are one. */
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 1, 7, 6) }, { SHAPE(16, 1, 3, 3) }, { SHAPE(16) } }, .n_in = 3,
          .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 16, 5, 4) }, { SHAPE(1, 16, 3, 3) } }, .n_in = 2, .tolerance = 1e-5 },
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1) }),
          .in = { { SHAPE(2, 3, 7) }, { SHAPE(4, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv, .in = { { SHAPE(1, 2, 3, 4, 3) }, { SHAPE(2, 2, 2, 2, 2) } }, .n_in = 2 },
        { OP_ConvTranspose, .in = { { SHAPE(2, 3, 3, 4) }, { SHAPE(3, 2, 3, 3) } }, .n_in = 2 },
        { OP_ConvTranspose,
          .attrs = ATTRS({ "strides", INTS(2, 2) }, { "pads", INTS(1, 1, 1, 1) },
                         { "output_padding", INTS(1, 1) }),
          .in = { { SHAPE(2, 3, 3, 4) }, { SHAPE(3, 2, 3, 3) }, { SHAPE(2) } }, .n_in = 3 },
        { OP_ConvTranspose, .attrs = ATTRS({ "strides", INTS(2, 2) }),
          .in = { { SHAPE(1, 16, 4, 4) }, { SHAPE(16, 16, 2, 2) }, { SHAPE(16) } }, .n_in = 3,
          .tolerance = 1e-5 },
        { OP_ConvTranspose, .attrs = ATTRS(NUMBER("group", 2), { "strides", INTS(2, 1) }),
          .in = { { SHAPE(1, 4, 3, 3) }, { SHAPE(4, 1, 2, 2) } }, .n_in = 2 },
    };
    GRADCHECK_ALL(rows);
}

TEST(pools)
{
    const struct gradcheck rows[] = {
        { OP_MaxPool, .attrs = ATTRS({ "kernel_shape", INTS(2, 2) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 3, 6, 4) } } },
        { OP_MaxPool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) },
                         { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 5, 5) } } },
        { OP_MaxPool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) }, NUMBER("ceil_mode", 1)),
          .in = { { SHAPE(1, 2, 6, 6) } } },
        { OP_MaxPool, .attrs = ATTRS({ "kernel_shape", INTS(3) }), .in = { { SHAPE(2, 3, 7) } } },
        { OP_AveragePool, .attrs = ATTRS({ "kernel_shape", INTS(2, 2) }, { "strides", INTS(2, 2) }),
          .in = { { SHAPE(2, 3, 6, 4) } } },
        { OP_AveragePool, .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 4, 4) } } },
        { OP_AveragePool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "pads", INTS(1, 1, 1, 1) },
                         NUMBER("count_include_pad", 1), { "strides", INTS(2, 2) }, NUMBER("ceil_mode", 1)),
          .in = { { SHAPE(2, 3, 4, 4) } } },
        { OP_GlobalAveragePool, .in = { { SHAPE(2, 3, 4, 5) } } },
        { OP_GlobalMaxPool, .in = { { SHAPE(2, 3, 4, 5) } } },
        { OP_GlobalMaxPool, .in = { { SHAPE(2, 19, 3, 3) } } },
        { OP_MaxPool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) },
                         { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(1, 19, 5, 5) } } },
        { OP_AveragePool,
          .attrs = ATTRS({ "kernel_shape", INTS(3, 3) }, { "strides", INTS(2, 2) },
                         { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(1, 19, 5, 5) } } },
        { OP_GlobalAveragePool, .in = { { SHAPE(2, 19, 3, 3) } } },
    };
    GRADCHECK_ALL(rows);
}

#define NORM(...)                                                                 \
    {                                                                             \
        { __VA_ARGS__ }, { SHAPE(3) }, { SHAPE(3) }, { SHAPE(3), .fixed = true }, \
        {                                                                         \
            SHAPE(3), .low = 0.5, .high = 2, .fixed = true                        \
        }                                                                         \
    }

TEST(batch_normalisation)
{
    const struct gradcheck rows[] = {
        { OP_BatchNormalization, .in = NORM(SHAPE(2, 3, 4, 5)), .n_in = 5 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(2, 3, 4, 5)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(7, 3)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
        { OP_BatchNormalization, .attrs = ATTRS(NUMBER("training_mode", 1)), .in = NORM(SHAPE(3, 3, 5)),
          .n_in = 5, .tolerance = 1e-5, .bf16 = 0.06 },
    };
    GRADCHECK_ALL(rows);
}

static const double up[] = { 1, 1, 2, 2 }, odd[] = { 1, 1, 1.5, 0.75 };
static const double sizes[] = { 1, 2, 7, 3 };

TEST(resizing)
{
#define SCALES(v)                                               \
    {                                                           \
        { SHAPE(1, 2, 4, 4) }, { .absent = true },              \
        {                                                       \
            SHAPE(4), TENSOR_F32, .values = v, .constant = true \
        }                                                       \
    }
#define SIZES                                                          \
    {                                                                  \
        { SHAPE(1, 2, 4, 4) }, { .absent = true }, { .absent = true }, \
        {                                                              \
            SHAPE(4), TENSOR_I64, .values = sizes, .constant = true    \
        }                                                              \
    }
    const struct gradcheck rows[] = {
        { OP_Resize, .in = SCALES(up), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("coordinate_transformation_mode", "asymmetric"), TEXT("nearest_mode", "floor")),
          .in = SCALES(up), .n_in = 3 },
        { OP_Resize, .attrs = ATTRS(TEXT("mode", "linear")), .in = SCALES(up), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("mode", "linear"), TEXT("coordinate_transformation_mode", "align_corners")),
          .in = SCALES(odd), .n_in = 3 },
        { OP_Resize,
          .attrs = ATTRS(TEXT("mode", "linear"),
                         TEXT("coordinate_transformation_mode", "pytorch_half_pixel")),
          .in = SIZES, .n_in = 4 },
        { OP_Resize, .in = SIZES, .n_in = 4 },
    };
    GRADCHECK_ALL(rows);
}

TEST(windows_that_do_not_fit_are_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(1, 3, 4, 4)),
        w = graph_input(g, "w", TENSOR_F32, SHAPE(2, 3, 5, 5));
    CHECK(graph_node(g, OP_Conv, x, w) == -1);
    CHECK_ERR(graph_error(g), INVALID);
}

/* ---- a network in small: what lowering fuses and turns must not change numbers ---- */

enum { PARAMS_MAX = 40 };
struct net {
    struct graph *g;
    int x, params[PARAMS_MAX], grads[PARAMS_MAX], loss, seed, n;
    enum tensor_type type, exact;
};

static int param(struct net *t, struct shape s, enum tensor_type type)
{
    t->params[t->n++] = graph_input(t->g, "p", type, s);
    return t->params[t->n - 1];
}

static int conv(struct net *t, int x, int64_t from, int64_t to, int64_t k, int64_t stride)
{
    return graph_node_with(
        t->g, OP_Conv,
        ATTRS({ "pads", INTS(k / 2, k / 2, k / 2, k / 2) }, { "strides", INTS(stride, stride) }), x,
        param(t, SHAPE(to, from, k, k), t->type));
}

static int norm(struct net *t, int x, int64_t c)
{
    int scale = param(t, SHAPE(c), t->exact), bias = param(t, SHAPE(c), t->exact);
    int mean = graph_input(t->g, "mean", t->exact, SHAPE(c)),
        variance = graph_input(t->g, "variance", t->exact, SHAPE(c));
    return graph_add(t->g, &op_table[OP_BatchNormalization], GRAPH_IDS(x, scale, bias, mean, variance), 3,
                     ATTRS(NUMBER("training_mode", 1)));
}

static int relu(struct net *t, int x)
{
    return graph_node(t->g, OP_Relu, x);
}

/* A residual block as it is, one with a projection, pools, and two layers at the end. */
static void net_build(struct arena *a, enum tensor_type type, bool lower, struct net *t)
{
    struct graph *g = graph_new(a);
    *t = (struct net){ .g = g, .type = type, .exact = type == TENSOR_F64 ? TENSOR_F64 : TENSOR_F32 };
    t->x = graph_input(g, "x", type, SHAPE(3, 3, 12, 12));
    int x = relu(t, norm(t, conv(t, t->x, 3, 16, 3, 1), 16));
    int y = norm(t, conv(t, relu(t, norm(t, conv(t, x, 16, 16, 3, 1), 16)), 16, 16, 3, 1), 16);
    x = relu(t, graph_node(g, OP_Add, y, x));
    int shortcut = norm(t, conv(t, x, 16, 20, 1, 2), 20);
    y = norm(t, conv(t, relu(t, norm(t, conv(t, x, 16, 20, 3, 2), 20)), 20, 20, 3, 1), 20);
    x = relu(t, graph_node(g, OP_Add, shortcut, y));
    x = graph_node_with(g, OP_MaxPool, ATTRS({ "kernel_shape", INTS(2, 2) }, { "strides", INTS(2, 2) }), x);
    x = graph_node(g, OP_Flatten, graph_node(g, OP_GlobalAveragePool, x));
    x = relu(t, graph_node(g, OP_Gemm, x, param(t, SHAPE(20, 24), type), param(t, SHAPE(24), type)));
    x = graph_node(g, OP_Gemm, x, param(t, SHAPE(24, 5), type), param(t, SHAPE(5), type));
    t->loss = graph_node_with(g, OP_ReduceSum, ATTRS(NUMBER("keepdims", 0)), graph_node(g, OP_Mul, x, x));
    CHECK_OK(graph_error(g));
    CHECK_OK(grad_build(g, t->loss, t->params, (size_t)t->n, t->grads, &t->seed));
    push(a, &g->outputs, t->loss);
    for (int i = 0; i < t->n; i++)
        push(a, &g->outputs, t->grads[i]);
    if (lower)
        CHECK_OK(device_cpu.lower(g, true));
    CHECK_OK(graph_error(g));
}

static void net_run(struct arena *a, const struct net *t, struct graph_eval *e)
{
    CHECK_OK(graph_eval_new(a, t->g, e));
    uint64_t seed = 5;
    tensor_set(&e->t[t->seed], 0, 1);
    for (size_t i = 0; i < t->g->values.n; i++) {
        const struct value *v = value_at(t->g, (int)i);
        if (v->kind != VALUE_INPUT || (int)i == t->seed)
            continue;
        double fan = v->shape.rank == 4 && (int)i != t->x
                         ? sqrt((double)(v->shape.d[1] * v->shape.d[2] * v->shape.d[3]))
                         : 1;
        for (int64_t k = 0; k < e->t[i].n; k++)
            tensor_set(&e->t[i], k,
                       (double)((int64_t)(splitmix(&seed) % 257) - 128) / 64 / fan +
                           (v->shape.rank == 1 ? 1.5 : 0));
    }
    graph_eval_run(e, e->n);
}

static double norm_of(const struct tensor *t, const struct tensor *minus)
{
    double s = 0;
    for (int64_t i = 0; i < t->n; i++) {
        double d = tensor_get(t, i) - (minus ? tensor_get(minus, i) : 0);
        s += d * d;
    }
    return sqrt(s);
}

static int count_op(const struct graph *g, int op)
{
    int n = 0;
    for (size_t i = 0; i < g->nodes.n; i++)
        n += g->nodes.v[i].op->id == op;
    return n;
}

/* The share of `along` in t: 1 if they differ by noise alone. */
static double share_of(const struct tensor *t, const struct tensor *along)
{
    double dot = 0, own = 1e-30;
    for (int64_t i = 0; i < t->n; i++) {
        dot += tensor_get(t, i) * tensor_get(along, i);
        own += tensor_get(along, i) * tensor_get(along, i);
    }
    return dot / own;
}

/* Halves flip units at the kink of Relu, which is noise across the gradient (tolerance); along it little may be missing or too
 * much (share), which a fault of a kernel would change. */
static void check_net(enum tensor_type type, double tolerance, double share)
{
    auto_arena struct arena *a = arena_new(0);
    struct net exact, t;
    struct graph_eval want, got;
    net_build(a, TENSOR_F64, false, &exact);
    net_run(a, &exact, &want);
    for (int lower = 0; lower < 2; lower++) {
        net_build(a, type, lower, &t);
        net_run(a, &t, &got);
        if (lower) {
            CHECK(count_op(t.g, OP_BatchNormAct) == 5 && count_op(t.g, OP_BatchNormalization) == 1);
            CHECK(count_op(t.g, OP_Relu) == 0 && count_op(t.g, OP_ReluGrad) == 0);
            CHECK(count_op(t.g, OP_Layout) == 1); /* the picture on its way in; nothing after it */
        }
        for (int i = -1; i < t.n; i++) {
            const struct tensor *x = &got.t[i < 0 ? t.loss : t.grads[i]],
                                *y = &want.t[i < 0 ? exact.loss : exact.grads[i]];
            if (!(norm_of(x, y) <= tolerance * (norm_of(y, NULL) + 1e-3)))
                TEST_FAIL_("type %d lower %d: gradient %d is off by %g of %g", type, lower, i, norm_of(x, y),
                           norm_of(y, NULL));
            if (i >= 0 && !(fabs(share_of(x, y) - 1) <= share))
                TEST_FAIL_("type %d lower %d: gradient %d has %g of its size", type, lower, i,
                           share_of(x, y));
        }
    }
}

TEST(a_network_is_the_same_lowered)
{
    for (int dnn = 0; dnn < 2; dnn++)
        for (int level = 0; level <= SIMD_AVX512; level++) {
            onednn_use(dnn);
            simd_limit((enum simd)level);
            check_net(TENSOR_F32, 2e-4, 2e-4);
            check_net(TENSOR_BF16, 0.35, 0.08);
        }
}

TEST(convolutions_without_onednn)
{
    onednn_use(false);
    const struct gradcheck rows[] = {
        { OP_Conv, .attrs = ATTRS({ "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(4, 3, 3, 3) }, { SHAPE(4) } }, .n_in = 3 },
        { OP_Conv,
          .attrs = ATTRS({ "pads", INTS(1, 0, 2, 1) }, { "strides", INTS(2, 1) },
                         { "dilations", INTS(1, 2) }),
          .in = { { SHAPE(1, 2, 6, 6) }, { SHAPE(3, 2, 2, 3) } }, .n_in = 2 },
        { OP_Conv, .attrs = ATTRS(NUMBER("group", 2), { "pads", INTS(1, 1, 1, 1) }),
          .in = { { SHAPE(2, 4, 5, 4) }, { SHAPE(6, 2, 3, 3) }, { SHAPE(6) } }, .n_in = 3 },
        { OP_ConvTranspose, .attrs = ATTRS({ "strides", INTS(2, 2) }),
          .in = { { SHAPE(1, 3, 4, 4) }, { SHAPE(3, 2, 2, 2) }, { SHAPE(2) } }, .n_in = 3 },
    };
    GRADCHECK_ALL(rows);
}
