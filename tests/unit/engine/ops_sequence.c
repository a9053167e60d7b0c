// SPDX-License-Identifier: Apache-2.0
// Softmax, norms, dropout, attention: against plain sums in double, gradients against differences (gradcheck.h).
#define SUITE engine_ops_sequence
#include "engine/program.h"
#include "gradcheck.h"
#include "test.h"
#include <math.h>

/* ---- gradients, and each type and instruction set beside double ---- */

#define AXIS(n) ATTRS({ "axis", ATTR_INT, .i = (n) })
#define HEADS                            \
    { "q_num_heads", ATTR_INT, .i = 4 }, \
    {                                    \
        "kv_num_heads", ATTR_INT, .i = 2 \
    }
#define INT(k, v)             \
    {                         \
        k, ATTR_INT, .i = (v) \
    }

TEST(softmax_gradients)
{
    const struct gradcheck rows[] = {
        { OP_Softmax, .in = { { SHAPE(3, 70) } } },
        { OP_Softmax, .attrs = AXIS(1), .in = { { SHAPE(2, 5, 3) } } },
        { OP_Softmax, .attrs = AXIS(0), .in = { { SHAPE(4, 3) } } },
        { OP_LogSoftmax, .in = { { SHAPE(3, 70) } } },
        { OP_LogSoftmax, .attrs = AXIS(-2), .in = { { SHAPE(2, 5, 3) } } },
    };
    GRADCHECK_ALL(rows);
}

TEST(norm_gradients)
{
    const struct gradcheck rows[] = {
        { OP_LayerNormalization, .in = { { SHAPE(5, 70) }, { SHAPE(70) }, { SHAPE(70) } }, .n_in = 3 },
        { OP_LayerNormalization, .in = { { SHAPE(2, 3, 7) }, { SHAPE(7) } }, .n_in = 2 },
        { OP_LayerNormalization, .attrs = AXIS(1),
          .in = { { SHAPE(3, 4, 5) }, { SHAPE(4, 5) }, { SHAPE(4, 5) } }, .n_in = 3 },
        { OP_RMSNormalization, .in = { { SHAPE(5, 70) }, { SHAPE(70) } }, .n_in = 2 },
        { OP_RMSNormalization, .attrs = AXIS(-2), .in = { { SHAPE(3, 2, 5) }, { SHAPE(2, 5) } }, .n_in = 2 },
        { OP_GroupNormalization, .attrs = ATTRS(INT("num_groups", 3)),
          .in = { { SHAPE(2, 6, 2, 3) }, { SHAPE(6) }, { SHAPE(6) } }, .n_in = 3 },
        { OP_InstanceNormalization, .in = { { SHAPE(2, 3, 40) }, { SHAPE(3) }, { SHAPE(3) } }, .n_in = 3 },
    };
    GRADCHECK_ALL(rows);
}

TEST(dropout_gradients)
{
    static const double ratio[] = { 0.25 }, on[] = { 1 };
    const struct gradcheck rows[] = {
        { OP_Dropout,
          .in = { { SHAPE(7, 33) },
                  { SCALAR, TENSOR_F32, .values = ratio, .constant = true },
                  { SCALAR, TENSOR_BOOL, .values = on, .constant = true } },
          .n_in = 3 },
        { OP_Dropout, .in = { { SHAPE(7, 33) } } },
    };
    GRADCHECK_ALL(rows);
}

TEST(attention_gradients)
{
    const struct gradcheck rows[] = {
        { OP_Attention, .in = { { SHAPE(2, 3, 5, 4) }, { SHAPE(2, 3, 6, 4) }, { SHAPE(2, 3, 6, 2) } },
          .n_in = 3 },
        { OP_Attention, .attrs = ATTRS(HEADS, INT("is_causal", 1)),
          .in = { { SHAPE(2, 7, 12) }, { SHAPE(2, 7, 6) }, { SHAPE(2, 7, 10) } }, .n_in = 3 },
        { OP_Attention, .attrs = ATTRS(HEADS, { "scale", ATTR_FLOAT, .f = 0.7f }),
          .in = { { SHAPE(1, 3, 8) },
                  { SHAPE(1, 5, 4) },
                  { SHAPE(1, 5, 4) },
                  { SHAPE(3, 5), .fixed = true } },
          .n_in = 4 },
        { OP_Attention, .attrs = ATTRS(HEADS, INT("is_causal", 1)),
          .in = { { SHAPE(1, 150, 16) }, { SHAPE(1, 150, 8) }, { SHAPE(1, 150, 8) } }, .n_in = 3 },
    };
    GRADCHECK_ALL(rows);
}

TEST(rotary_gradients)
{
    static const double places[] = { 3, 0, 1, 2, 2, 1 };
    const struct gradcheck rows[] = {
        { OP_RotaryEmbedding, .attrs = ATTRS(INT("num_heads", 2)),
          .in = { { SHAPE(2, 3, 16) }, { SHAPE(2, 3, 4), .fixed = true }, { SHAPE(2, 3, 4), .fixed = true } },
          .n_in = 3 },
        { OP_RotaryEmbedding, .attrs = ATTRS(INT("interleaved", 1), INT("rotary_embedding_dim", 4)),
          .in = { { SHAPE(2, 2, 3, 6) },
                  { SHAPE(4, 2), .fixed = true },
                  { SHAPE(4, 2), .fixed = true },
                  { SHAPE(2, 3), TENSOR_I64, .values = places } },
          .n_in = 4 },
    };
    GRADCHECK_ALL(rows);
}

/* ---- forward, in double ---- */

static double uniform(uint64_t *seed)
{
    return (double)(splitmix(seed) >> 11) * 0x1p-53;
}

/* One node whose inputs are random, or these numbers. */
struct one {
    struct graph *g;
    struct graph_eval e;
    int in[8], out;
};
static void one(struct arena *a, struct one *o, enum op_id op, const struct attr *attrs,
                const struct shape *shapes, int n_in, int n_out)
{
    uint64_t seed = 3;
    o->g = graph_new(a);
    for (int i = 0; i < n_in; i++)
        o->in[i] = shapes[i].rank < 0 ? -1 : graph_input(o->g, fmtz(a, "x%d", i), TENSOR_F64, shapes[i]);
    o->out = graph_add(o->g, &op_table[op], o->in, n_in, n_out, attrs);
    CHECK_OK(graph_error(o->g));
    CHECK_OK(graph_eval_new(a, o->g, &o->e));
    for (int i = 0; i < n_in; i++)
        for (int64_t k = 0; o->in[i] >= 0 && k < o->e.t[o->in[i]].n; k++)
            tensor_set(&o->e.t[o->in[i]], k, uniform(&seed) * 4 - 2);
}
static double *in(struct one *o, int i)
{
    return o->e.t[o->in[i]].p;
}
static double *out(struct one *o, int i)
{
    return o->e.t[o->out + i].p;
}

static void near(double got, double want, const char *what)
{
    if (!(fabs(got - want) <= 1e-9 * (1 + fabs(want))))
        cr_assert_fail("%s: %.12g, not %.12g", what, got, want);
}

TEST(softmax_is_as_its_formula)
{
    auto_arena struct arena *a = arena_new(0);
    struct one o;
    one(a, &o, OP_Softmax, AXIS(1), (const struct shape[]){ SHAPE(2, 3, 4) }, 1, 1);
    graph_eval_run(&o.e, o.e.n);
    for (int i = 0; i < 24; i++) {
        double sum = 0;
        for (int k = 0; k < 3; k++)
            sum += exp(in(&o, 0)[i / 12 * 12 + k * 4 + i % 4]);
        near(out(&o, 0)[i], exp(in(&o, 0)[i]) / sum, "softmax");
    }
}

TEST(layer_norm_is_as_its_formula)
{
    auto_arena struct arena *a = arena_new(0);
    struct one o;
    one(a, &o, OP_LayerNormalization, NULL, (const struct shape[]){ SHAPE(3, 5), SHAPE(5), SHAPE(5) }, 3, 3);
    graph_eval_run(&o.e, o.e.n);
    for (int r = 0; r < 3; r++) {
        double mean = 0, var = 0, *x = in(&o, 0) + 5 * r;
        for (int i = 0; i < 5; i++)
            mean += x[i] / 5;
        for (int i = 0; i < 5; i++)
            var += (x[i] - mean) * (x[i] - mean) / 5;
        double inverse = 1 / sqrt(var + (double)1e-5f);
        near(out(&o, 1)[r], mean, "mean");
        near(out(&o, 2)[r], inverse, "inverse");
        for (int i = 0; i < 5; i++)
            near(out(&o, 0)[5 * r + i], (x[i] - mean) * inverse * in(&o, 1)[i] + in(&o, 2)[i], "layer norm");
    }
}

TEST(group_norm_is_as_its_formula)
{
    auto_arena struct arena *a = arena_new(0);
    struct one o;
    one(a, &o, OP_GroupNormalization, ATTRS(INT("num_groups", 2)),
        (const struct shape[]){ SHAPE(2, 4, 3), SHAPE(4), SHAPE(4) }, 3, 1);
    graph_eval_run(&o.e, o.e.n);
    for (int i = 0; i < 24; i++) {
        double mean = 0, var = 0, *x = in(&o, 0) + i / 6 * 6;
        for (int k = 0; k < 6; k++)
            mean += x[k] / 6;
        for (int k = 0; k < 6; k++)
            var += (x[k] - mean) * (x[k] - mean) / 6;
        int c = i / 3 % 4;
        near(out(&o, 0)[i], (in(&o, 0)[i] - mean) / sqrt(var + (double)1e-5f) * in(&o, 1)[c] + in(&o, 2)[c],
             "group norm");
    }
}

/* Queries [b, t, hq·d], keys, values [b, s, hkv·d]; mask [t, s]; causal. */
TEST(attention_is_as_its_formula)
{
    enum { B = 2, T = 5, S = 6, HQ = 4, HK = 2, D = 3, E = 2 };
    for (int causal = 0; causal < 2; causal++) {
        auto_arena struct arena *a = arena_new(0);
        struct one o;
        one(a, &o, OP_Attention, ATTRS(HEADS, INT("is_causal", causal)),
            (const struct shape[]){ SHAPE(B, T, HQ * D), SHAPE(B, S, HK * D), SHAPE(B, S, HK * E),
                                    SHAPE(T, S) },
            4, 1);
        in(&o, 3)[3] = -INFINITY;
        for (int s = 0; s < S; s++)
            in(&o, 3)[4 * S + s] = -INFINITY; /* the last query sees nothing */
        graph_eval_run(&o.e, o.e.n);
        for (int b = 0; b < B; b++)
            for (int h = 0; h < HQ; h++)
                for (int t = 0; t < T; t++) {
                    double p[S], sum = 0;
                    for (int s = 0; s < S; s++) {
                        double dot = 0;
                        for (int d = 0; d < D; d++)
                            dot += in(&o, 0)[(b * T + t) * HQ * D + h * D + d] *
                                   in(&o, 1)[(b * S + s) * HK * D + h / 2 * D + d];
                        dot = dot * (double)(float)(1 / sqrt(D)) + in(&o, 3)[t * S + s];
                        sum += p[s] = causal && s > t ? 0 : exp(dot);
                    }
                    for (int e = 0; e < E; e++) {
                        double want = 0;
                        for (int s = 0; s < S && sum > 0; s++)
                            want += p[s] / sum * in(&o, 2)[(b * S + s) * HK * E + h / 2 * E + e];
                        near(out(&o, 0)[(b * T + t) * HQ * E + h * E + e], want, "attention");
                    }
                }
    }
}

TEST(rotary_is_as_its_formula)
{
    auto_arena struct arena *a = arena_new(0);
    struct one o;
    one(a, &o, OP_RotaryEmbedding, ATTRS(INT("num_heads", 2)),
        (const struct shape[]){ SHAPE(1, 3, 8), SHAPE(1, 3, 2), SHAPE(1, 3, 2) }, 3, 1);
    graph_eval_run(&o.e, o.e.n);
    for (int i = 0; i < 24; i++) {
        int at = i / 4 * 4, k = i % 4, t = i / 8;
        double c = in(&o, 1)[2 * t + k % 2], s = in(&o, 2)[2 * t + k % 2], *x = in(&o, 0) + at;
        near(out(&o, 0)[i], k < 2 ? c * x[k] - s * x[k + 2] : s * x[k - 2] + c * x[k], "rotary");
    }
}

/* ---- dropout ---- */

/* What a batch of 10 rows of ones becomes, cut over so many ranks. */
static void drop(int ranks, uint64_t seed, uint64_t draw, float *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    static float ones[10 * 37];
    const void *data[] = { ones };
    for (int i = 0; i < 370; i++)
        ones[i] = 1;
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), 37));
    bool yes = true;
    int y = graph_node(g, OP_Dropout, x, graph_f32(g, 0.3f), graph_const(g, TENSOR_BOOL, SCALAR, &yes));
    graph_output(g, y, S("y"));
    int loss = graph_node(g, OP_MeanSquaredError, y, x);
    graph_output(g, loss, S("loss"));
    struct team *team;
    struct params *params;
    struct program *p;
    struct run_report report;
    CHECK_OK(graph_error(g));
    CHECK_OK(team_new(ranks, &team));
    CHECK_OK(params_new(a, &device_cpu, g, ranks, 1, &params));
    CHECK_OK(
        program_new(a, g, params, &(struct program_options){ .team = team, .rows = 10, .loss = loss }, &p));
    cr_assert_eq(program_facts(p).ranks, ranks);
    program_run(p, data, seed, draw, &report);
    memcpy(out, program_output(p, 0, NULL, NULL), sizeof ones);
    team_free(team);
}

TEST(dropout_does_not_depend_on_the_number_of_ranks)
{
    float one[370], three[370], other[370];
    drop(1, 5, 9, one);
    drop(3, 5, 9, three);
    cr_assert_arr_eq(one, three, sizeof one);
    int dropped = 0, same = 0;
    for (int i = 0; i < 370; i++) {
        dropped += one[i] == 0;
        CHECK(one[i] == 0 || fabs(one[i] - 1 / 0.7f) < 1e-6f);
    }
    CHECK(dropped > 70 && dropped < 150);
    drop(2, 5, 10, other); /* another step, another seed: other elements */
    for (int i = 0; i < 370; i++)
        same += (one[i] == 0) == (other[i] == 0);
    CHECK(same < 300);
    drop(2, 6, 9, other);
    for (int i = same = 0; i < 370; i++)
        same += (one[i] == 0) == (other[i] == 0);
    CHECK(same < 300);
}

/* ---- recurrent nets ---- */

#define DIRECTION(d)                           \
    {                                          \
        "direction", ATTR_TEXT, .s = S_INIT(d) \
    }
static const double three_lengths[] = { 4, 2, 3 };

TEST(lstm_gradients)
{
    const struct gradcheck rows[] = {
        { OP_LSTM, .in = { { SHAPE(4, 3, 5) }, { SHAPE(1, 24, 5) }, { SHAPE(1, 24, 6) }, { SHAPE(1, 48) } },
          .n_in = 4, .n_out = 3 },
        { OP_LSTM, .attrs = ATTRS(DIRECTION("bidirectional"), INT("layout", 1)),
          .in = { { SHAPE(3, 4, 5) },
                  { SHAPE(2, 8, 5) },
                  { SHAPE(2, 8, 2) },
                  { .absent = true },
                  { SHAPE(3), TENSOR_I32, .values = three_lengths },
                  { SHAPE(3, 2, 2) },
                  { SHAPE(3, 2, 2) } },
          .n_in = 7, .n_out = 3 },
        { OP_LSTM, .attrs = ATTRS(DIRECTION("reverse")),
          .in = { { SHAPE(3, 2, 4) }, { SHAPE(1, 8, 4) }, { SHAPE(1, 8, 2) } }, .n_in = 3 },
    };
    GRADCHECK_ALL(rows);
}

TEST(gru_gradients)
{
    for (int linear = 0; linear < 2; linear++) {
        const struct gradcheck rows[] = {
            { OP_GRU, .attrs = ATTRS(INT("linear_before_reset", linear)),
              .in = { { SHAPE(4, 3, 5) }, { SHAPE(1, 18, 5) }, { SHAPE(1, 18, 6) }, { SHAPE(1, 36) } },
              .n_in = 4, .n_out = 2 },
            { OP_GRU,
              .attrs = ATTRS(DIRECTION("bidirectional"), INT("layout", 1),
                             INT("linear_before_reset", linear)),
              .in = { { SHAPE(3, 4, 5) },
                      { SHAPE(2, 6, 5) },
                      { SHAPE(2, 6, 2) },
                      { SHAPE(2, 12) },
                      { SHAPE(3), TENSOR_I32, .values = three_lengths },
                      { SHAPE(3, 2, 2) } },
              .n_in = 6, .n_out = 2 },
            { OP_GRU, .attrs = ATTRS(DIRECTION("reverse"), INT("linear_before_reset", linear)),
              .in = { { SHAPE(3, 2, 4) }, { SHAPE(1, 6, 4) }, { SHAPE(1, 6, 2) } }, .n_in = 3 },
        };
        GRADCHECK_ALL(rows);
    }
}

static double sigma(double x)
{
    return 1 / (1 + exp(-x));
}
/* Row `row` of w [.., n] times x. */
static double times(const double *w, int row, const double *x, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += w[row * n + i] * x[i];
    return sum;
}

TEST(lstm_is_as_its_formula)
{
    enum { T = 4, B = 2, I = 3, H = 2 };
    auto_arena struct arena *a = arena_new(0);
    struct one o;
    one(a, &o, OP_LSTM, NULL,
        (const struct shape[]){ SHAPE(T, B, I),
                                SHAPE(1, 4 * H, I),
                                SHAPE(1, 4 * H, H),
                                SHAPE(1, 8 * H),
                                { .rank = -1 },
                                SHAPE(1, B, H),
                                SHAPE(1, B, H),
                                SHAPE(1, 3 * H) },
        8, 3);
    graph_eval_run(&o.e, o.e.n);
    for (int b = 0; b < B; b++) {
        double h[H], c[H];
        memcpy(h, in(&o, 5) + b * H, sizeof h);
        memcpy(c, in(&o, 6) + b * H, sizeof c);
        for (int t = 0; t < T; t++) {
            double next[H], *x = in(&o, 0) + (t * B + b) * I, *p = in(&o, 7);
            for (int e = 0; e < H; e++) {
                double z[4];
                for (int g = 0; g < 4; g++)
                    z[g] = times(in(&o, 1), g * H + e, x, I) + times(in(&o, 2), g * H + e, h, H) +
                           in(&o, 3)[g * H + e] + in(&o, 3)[(4 + g) * H + e];
                c[e] = sigma(z[2] + p[2 * H + e] * c[e]) * c[e] + sigma(z[0] + p[e] * c[e]) * tanh(z[3]);
                next[e] = sigma(z[1] + p[H + e] * c[e]) * tanh(c[e]);
            }
            memcpy(h, next, sizeof h);
            for (int e = 0; e < H; e++)
                near(out(&o, 0)[(t * B + b) * H + e], h[e], "Y");
        }
        for (int e = 0; e < H; e++) {
            near(out(&o, 1)[b * H + e], h[e], "Y_h");
            near(out(&o, 2)[b * H + e], c[e], "Y_c");
        }
    }
}

TEST(gru_is_as_its_formula)
{
    enum { T = 4, B = 2, I = 3, H = 2 };
    for (int linear = 0; linear < 2; linear++) {
        auto_arena struct arena *a = arena_new(0);
        struct one o;
        one(a, &o, OP_GRU, ATTRS(INT("linear_before_reset", linear)),
            (const struct shape[]){ SHAPE(T, B, I), SHAPE(1, 3 * H, I), SHAPE(1, 3 * H, H), SHAPE(1, 6 * H) },
            4, 2);
        graph_eval_run(&o.e, o.e.n);
        double *w = in(&o, 1), *r = in(&o, 2), *bias = in(&o, 3);
        for (int b = 0; b < B; b++) {
            double h[H] = { 0 };
            for (int t = 0; t < T; t++) {
                double next[H], z[H], reset[H], left[H], *x = in(&o, 0) + (t * B + b) * I;
                for (int e = 0; e < H; e++) {
                    z[e] = sigma(times(w, e, x, I) + times(r, e, h, H) + bias[e] + bias[3 * H + e]);
                    reset[e] = sigma(times(w, H + e, x, I) + times(r, H + e, h, H) + bias[H + e] +
                                     bias[4 * H + e]);
                    left[e] = reset[e] * h[e];
                }
                for (int e = 0; e < H; e++) {
                    double of_h = linear ? reset[e] * (times(r, 2 * H + e, h, H) + bias[5 * H + e])
                                         : times(r, 2 * H + e, left, H) + bias[5 * H + e];
                    next[e] = (1 - z[e]) * tanh(times(w, 2 * H + e, x, I) + of_h + bias[2 * H + e]) +
                              z[e] * h[e];
                }
                memcpy(h, next, sizeof h);
                for (int e = 0; e < H; e++)
                    near(out(&o, 0)[(t * B + b) * H + e], h[e], "Y");
            }
        }
    }
}

/* ---- attention that was written out ---- */

/* x [batch, 6, 8] → queries, keys, values of two heads → attention. told: the scores' sum is an output as well, so that the
 * nodes must stay. The loss, and the gradient of the weights in grad. */
static double written_out(bool causal, bool told, enum precision precision, int ranks, float *grad,
                          size_t *steps)
{
    enum { T = 6, H = 2, D = 4, W = H * D };
    auto_arena struct arena *a = arena_new(0);
    static const int64_t heads_first[] = { 0, 2, 1, 3 }, across[] = { 0, 2, 3, 1 };
    struct graph *g = graph_new(a);
    float weights[W * 3 * W], mask[T * T], data[4 * T * W], targets[4 * T * W];
    uint64_t seed = 5;
    for (int i = 0; i < W * 3 * W; i++)
        weights[i] = (float)uniform(&seed) - 0.5f;
    for (int i = 0; i < 4 * T * W; i++)
        data[i] = (float)uniform(&seed) - 0.5f, targets[i] = (float)uniform(&seed);
    for (int i = 0; i < T * T; i++)
        mask[i] = causal ? (i % T > i / T ? -1e9f : 0) : (float)(i % 5) / 4;
    int64_t batch = graph_symbol(g, "batch");
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(batch, T, W)),
        y = graph_input(g, "y", TENSOR_F32, SHAPE(batch, T, W));
    int w = graph_param(g, S("w"), SHAPE(W, 3 * W), weights), parts[3];
    int qkv = graph_node(g, OP_Reshape, graph_node(g, OP_MatMul, x, w),
                         graph_i64s(g, (const int64_t[]){ 0, T, 3, H, D }, 5));
    for (int64_t i = 0; i < 3; i++)
        parts[i] = graph_node_with(
            g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = i == 1 ? across : heads_first, .n = 4 }),
            graph_node_with(g, OP_Gather, AXIS(2), qkv, graph_const(g, TENSOR_I64, SCALAR, &i)));
    int s = graph_node(g, OP_Mul, graph_node(g, OP_MatMul, parts[0], parts[1]), graph_f32(g, 0.5f));
    s = graph_node(g, OP_Add, s, graph_const(g, TENSOR_F32, SHAPE(T, T), mask));
    int p = graph_node_with(g, OP_Softmax, AXIS(-1), s);
    int z = graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = heads_first, .n = 4 }),
                            graph_node(g, OP_MatMul, p, parts[2]));
    z = graph_node(g, OP_Reshape, z, graph_i64s(g, (const int64_t[]){ 0, T, W }, 3));
    int loss = graph_node(g, OP_MeanSquaredError, z, y);
    graph_output(g, loss, S("loss"));
    if (told)
        graph_output(g, p, S("told"));
    struct team *team;
    struct params *params;
    struct program *program;
    struct optim *optim;
    struct run_report report;
    CHECK_OK(graph_error(g));
    CHECK_OK(team_new(ranks, &team));
    CHECK_OK(params_new(a, &device_cpu, g, ranks, 1, &params));
    CHECK_OK(program_new(
        a, g, params,
        &(struct program_options){ .team = team, .rows = 4, .loss = loss, .precision = precision },
        &program));
    cr_assert_eq(program_facts(program).ranks, ranks);
    CHECK_OK(optim_new(a, params, &(struct optim_spec){ .kind = OPTIM_SGD, .rate = 1 }, &optim));
    program_train(program, (const void *const[]){ data, targets }, 1, 1, optim, &report);
    for (int i = 0; i < W * 3 * W; i++)
        grad[i] = weights[i] - params->w[params->v[0].at + (size_t)i];
    *steps = program_facts(program).steps;
    team_free(team);
    return report.loss;
}

TEST(attention_that_was_written_out_is_found)
{
    float want[192], got[192];
    size_t plain, fused;
    for (int causal = 0; causal < 2; causal++)
        for (int ranks = 1; ranks <= 2; ranks++)
            for (int precision = PRECISION_F32; precision <= PRECISION_BF16; precision++) {
                double loss = written_out(causal, true, PRECISION_F32, 1, want, &plain), size = 0;
                double other = written_out(causal, false, (enum precision)precision, ranks, got, &fused);
                double tolerance = precision == PRECISION_F32 ? 1e-6 : 0.02;
                CHECK(fused < plain);
                CHECK(fabs(loss - other) <= tolerance * fabs(loss));
                for (int i = 0; i < 192; i++)
                    size = fmax(size, fabs((double)want[i]));
                for (int i = 0; i < 192; i++)
                    CHECK(fabs((double)(want[i] - got[i])) <=
                          2 * tolerance * size + 1e-7); /* read back off weights */
            }
}
