// SPDX-License-Identifier: Apache-2.0
/* Own convolutions beside plain loops, at every width, channel count and edge; and what a frozen graph makes of convolutions,
 * norms and clips beside the graph as it was. */
#define SUITE engine_image_conv
#include "engine/cpu/image_conv.h"
#include "engine/cpu/onednn.h"
#include "engine/program.h"
#include "gradcheck.h"
#include "test.h"
#include <math.h>

static const struct image_convs *convs_at(enum simd level)
{
#ifdef __x86_64__
    return level == SIMD_AVX512 ? &image_convs_avx512
           : level == SIMD_AVX2 ? &image_convs_avx2
                                : &image_convs_portable;
#else
    (void)level;
    return &image_convs_portable;
#endif
}

static uint64_t seed = 7;
static float draw(void)
{
    return (float)((int64_t)(splitmix(&seed) % 2001) - 1000) / 1000;
}
static float *drawn(struct arena *a, int64_t n)
{
    float *v = NEW_N(a, float, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        v[i] = draw();
    return v;
}
static int64_t pick(int64_t from, int64_t to)
{
    return from + (int64_t)(splitmix(&seed) % (uint64_t)(to - from + 1));
}

/* Two images of h × w; each: of every channel by itself. Sizes are drawn; so that windows fit, kernels are cut. */
static struct conv_of_own sizes(bool each, int64_t h, int64_t w, int64_t channels)
{
    struct conv_of_own p = { .low = -INFINITY, .high = INFINITY };
    struct window *q = &p.v.w;
    q->axes = 2;
    for (int i = 0; i < WINDOW_AXES; i++)
        q->in[i] = q->out[i] = q->kernel[i] = q->stride[i] = q->dilation[i] = 1;
    for (int i = 0; i < 2; i++) {
        q->in[i] = i ? w : h;
        q->kernel[i] = pick(0, 2) ? 3 : pick(1, 5);
        q->stride[i] = pick(1, 3);
        q->dilation[i] = pick(0, 3) ? 1 : 2;
        q->lo[i] = pick(0, 3) ? pick(0, q->kernel[i]) : pick(0, 20);
        const int64_t hi = pick(0, 3) ? pick(0, q->kernel[i]) : pick(0, 20),
                      reach = (q->kernel[i] - 1) * q->dilation[i] + 1, room = q->in[i] + q->lo[i] + hi;
        if (room < reach) {
            q->kernel[i] = 1;
            q->dilation[i] = 1;
        }
        q->out[i] = (room - (q->kernel[i] - 1) * q->dilation[i] - 1) / q->stride[i] + 1;
    }
    const int64_t in = each ? channels : pick(1, THIN_CHANNELS);
    q->group = each ? channels : 1;
    p.v.kernels = q->kernel[0] * q->kernel[1];
    p.v.x = (struct picture){ .n = 2, .c = in, .s = { h, w, 1 }, .sn = in * h * w, .sc = each ? 1 : h * w };
    p.v.x.ss[1] = each ? in : 1;
    p.v.x.ss[0] = w * p.v.x.ss[1];
    p.v.y = (struct picture){ .n = 2, .c = channels, .s = { q->out[0], q->out[1], 1 }, .sc = 1 };
    p.v.y.ss[1] = channels;
    p.v.y.ss[0] = q->out[1] * channels;
    p.v.y.sn = q->out[0] * p.v.y.ss[0];
    return p;
}

/* One output, w as the kernels have it. */
static double plain(const struct conv_of_own *p, bool each, const float *x, const float *w, const float *bias,
                    int64_t n, int64_t o0, int64_t o1, int64_t c)
{
    const struct window *q = &p->v.w;
    double s = bias ? (double)bias[c] : 0;
    for (int64_t i = 0; i < (each ? 1 : p->v.x.c); i++)
        for (int64_t k0 = 0; k0 < q->kernel[0]; k0++)
            for (int64_t k1 = 0; k1 < q->kernel[1]; k1++) {
                const int64_t r = o0 * q->stride[0] - q->lo[0] + k0 * q->dilation[0],
                              t = o1 * q->stride[1] - q->lo[1] + k1 * q->dilation[1];
                if (r < 0 || r >= q->in[0] || t < 0 || t >= q->in[1])
                    continue;
                const int64_t at = (i * q->kernel[0] + k0) * q->kernel[1] + k1;
                s += (double)
                         x[n * p->v.x.sn + (each ? c : i) * p->v.x.sc + r * p->v.x.ss[0] + t * p->v.x.ss[1]] *
                     (double)w[at * p->v.y.c + c];
            }
    return s < (double)p->low ? (double)p->low : s > (double)p->high ? (double)p->high : s;
}

static void check_one(const struct image_convs *k, bool each, int64_t h, int64_t w, int64_t channels)
{
    auto_arena struct arena *a = arena_new(0);
    struct conv_of_own p = sizes(each, h, w, channels);
    const struct window *q = &p.v.w;
    const int64_t outs = p.v.y.sn * 2,
                  columns = (CONV_PIXELS - 1) * q->stride[1] + (q->kernel[1] - 1) * q->dilation[1] + 1;
    float *x = drawn(a, p.v.x.sn * 2), *weights = drawn(a, (each ? 1 : p.v.x.c) * p.v.kernels * channels),
          *bias = pick(0, 1) ? drawn(a, channels) : NULL, *y = drawn(a, outs),
          *pad = drawn(a, columns * q->kernel[0] * (each ? k->floats : p.v.x.c));
    if (pick(0, 1)) {
        p.low = -0.5f;
        p.high = 0.75f;
    }
    (each ? k->each : k->thin)(&p, x, weights, bias, y, pad);
    for (int64_t n = 0; n < 2; n++)
        for (int64_t o0 = 0; o0 < q->out[0]; o0++)
            for (int64_t o1 = 0; o1 < q->out[1]; o1++)
                for (int64_t c = 0; c < channels; c++) {
                    const double want = plain(&p, each, x, weights, bias, n, o0, o1, c);
                    const float got = y[n * p.v.y.sn + o0 * p.v.y.ss[0] + o1 * p.v.y.ss[1] + c];
                    if (!(fabs((double)got - want) < 2e-5))
                        TEST_FAIL_(
                            "%s, %lld × %lld of %lld, window %lld × %lld by %lld, %lld: output %lld, %lld, %lld "
                            "is %g, not %g",
                            each ? "each" : "thin", (long long)h, (long long)w, (long long)channels,
                            (long long)q->kernel[0], (long long)q->kernel[1], (long long)q->stride[0],
                            (long long)q->stride[1], (long long)o0, (long long)o1, (long long)c, (double)got,
                            want);
                }
}

TEST(own_convolutions_are_those_of_plain_loops)
{
    const enum simd best = simd_level();
    for (enum simd level = 0; level <= best; level++) {
        const struct image_convs *k = convs_at(level);
        for (int64_t w = 1; w <= 27; w++)
            for (int turn = 0; turn < 6; turn++)
                check_one(k, turn % 2, pick(1, 6), w, k->floats + pick(0, 2 * k->floats));
    }
}

/* ---- a frozen graph ---- */

enum { N = 3, SIDE = 12, FROM = 3, C = 20, CLASSES = 5 };

static int param(struct graph *g, struct arena *a, const char *name, struct shape s, float around)
{
    float *v = drawn(a, shape_count(&s));
    for (int64_t i = 0; i < shape_count(&s); i++)
        v[i] = around > 0 ? around + v[i] * around / 2 : v[i] / 3;
    return graph_param(g, str_of(name), s, v);
}

static int norm(struct graph *g, struct arena *a, int x, const char *name)
{
    float *mean = drawn(a, C), *variance = drawn(a, C);
    for (int i = 0; i < C; i++)
        variance[i] = 1 + variance[i] / 2;
    return graph_node(g, OP_BatchNormalization, x, param(g, a, fmtz(a, "%s.scale", name), SHAPE(C), 1),
                      param(g, a, fmtz(a, "%s.shift", name), SHAPE(C), 0),
                      graph_state(g, fmt(a, "%s.mean", name), SHAPE(C), mean),
                      graph_state(g, fmt(a, "%s.variance", name), SHAPE(C), variance));
}

/* Each form that convolutions meet: with a norm, with a bias and a norm, with Relu and Clip, read twice, joined, scaled by channel. */
static struct graph *network(struct arena *a)
{
    struct graph *g = graph_new(a);
    const int64_t same[] = { 1, 1, 1, 1 };
    const struct attr *pads = ATTRS({ "pads", ATTR_INTS, .is = same, .n = 4 });
    const struct attr *apart = ATTRS({ "pads", ATTR_INTS, .is = same, .n = 4 },
                                     { "group", ATTR_INT, .i = C });
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), FROM, SIDE, SIDE));
    int y = graph_node_with(g, OP_Conv, pads, x, param(g, a, "w0", SHAPE(C, FROM, 3, 3), 0));
    y = graph_node(g, OP_Relu, norm(g, a, norm(g, a, y, "n0"), "n2"));
    int z = graph_node_with(g, OP_Conv, apart, y, param(g, a, "w1", SHAPE(C, 1, 3, 3), 0),
                            param(g, a, "b1", SHAPE(C), 0));
    z = graph_node(g, OP_Clip, norm(g, a, z, "n1"), graph_f32(g, -0.25f), graph_f32(g, 0.5f));
    z = graph_node(g, OP_Conv, z, param(g, a, "w2", SHAPE(C, C, 1, 1), 0));
    int raw = graph_node_with(g, OP_Conv, pads, z, param(g, a, "w3", SHAPE(C, C, 3, 3), 0)); /* read twice */
    int by = graph_node(g, OP_Sigmoid, graph_node(g, OP_GlobalAveragePool, raw));
    z = graph_node(g, OP_Mul, graph_node(g, OP_Relu, raw), by);
    y = graph_node_with(g, OP_Concat, ATTRS({ "axis", ATTR_INT, .i = 1 }), z, y);
    y = graph_node_with(g, OP_MaxPool,
                        ATTRS({ "kernel_shape", ATTR_INTS, .is = (const int64_t[]){ 3, 3 }, .n = 2 },
                              { "strides", ATTR_INTS, .is = (const int64_t[]){ 2, 2 }, .n = 2 }),
                        y);
    y = graph_node(g, OP_Flatten, y);
    const int64_t flat = shape_count(&(struct shape){ 1, { value_at(g, y)->shape.d[1] } });
    y = graph_node_with(g, OP_Gemm, ATTRS({ "transB", ATTR_INT, .i = 1 }), y,
                        param(g, a, "w4", SHAPE(CLASSES, flat), 0), param(g, a, "b4", SHAPE(CLASSES), 0));
    graph_output(g, y, S("y"));
    CHECK_OK(graph_error(g));
    return g;
}

static const float *answers(struct arena *a, struct graph *g, int64_t rows, const float *x, size_t *steps)
{
    struct params *params;
    struct program *p;
    CHECK_OK(params_new(a, &device_cpu, g, 0, 0, &params));
    CHECK_OK(program_new(a, g, params, &(struct program_options){ .rows = rows, .loss = -1 }, &p));
    for (int turn = 0; turn < 2; turn++) /* what the first leaves behind must not show */
        program_run(p, (const void *const[]){ x }, 0, 0, NULL);
    *steps = program_facts(p).steps;
    return program_output(p, 0, NULL, NULL);
}

TEST(a_frozen_graph_answers_alike_in_fewer_steps)
{
    auto_arena struct arena *a = arena_new(0);
    const enum simd best = simd_level();
    const float *x = drawn(a, N * FROM * SIDE * SIDE);
    struct graph *g = network(a), *frozen;
    struct str bytes;
    CHECK_OK(graph_write(g, a, NULL, &bytes));
    for (int dnn = 0; dnn < 2; dnn++)
        for (enum simd level = 0; level <= best; level++) {
            size_t before, after;
            onednn_use(dnn);
            simd_limit(level);
            const float *want = answers(a, g, N, x, &before);
            CHECK_OK(graph_read(a, bytes, NULL, &frozen));
            graph_freeze(frozen);
            const float *got = answers(a, frozen, N, x, &after);
            for (int i = 0; i < N * CLASSES; i++)
                cr_assert(fabsf(got[i] - want[i]) <= 2e-5f * (1 + fabsf(want[i])), "%d: %g, not %g", i,
                          (double)got[i], (double)want[i]);
            CHECK(after + 3 <= before); /* the norms are in their convolutions */
        }
    simd_limit(SIMD_AVX512);
    onednn_use(true);
}

/* What is no number passes a Clip, also where a convolution took it in. */
TEST(a_clip_lets_nan_pass)
{
    auto_arena struct arena *a = arena_new(0);
    const float w[2 * 2] = { 1, 0, 0, 1 }, x[2 * 4] = { NAN, 1, -3, 2, 2, -4, 0.5f, 9 };
    struct graph *g = graph_new(a);
    int v = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), 2, 2, 2));
    v = graph_node(g, OP_Conv, v, graph_param(g, S("w"), SHAPE(2, 2, 1, 1), w));
    graph_output(g, graph_node(g, OP_Clip, v, graph_f32(g, -1), graph_f32(g, 1)), S("y"));
    CHECK_OK(graph_error(g));
    for (int dnn = 0; dnn < 2; dnn++) {
        size_t steps;
        onednn_use(dnn);
        const float *y = answers(a, g, 1, x, &steps);
        CHECK(isnan(y[0]) && y[1] == 1 && y[2] == -1 && y[5] == -1 && y[6] == 0.5f && y[7] == 1);
    }
}
