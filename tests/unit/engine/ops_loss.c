// SPDX-License-Identifier: Apache-2.0
// Losses: against plain sums in double, gradients against differences, and the same for any number of ranks.
#define SUITE engine_ops_loss
#include "engine/cpu/simd.h"
#include "engine/device.h"
#include "engine/program.h"
#include "test.h"
#include <math.h>

enum { IN_MAX = 4 };
/* One loss on whole tensors: inputs as doubles, converted to their types. */
struct input {
    enum tensor_type type; /* NONE: the type under test; no shape: not there */
    struct shape shape;    /* d[0] is the batch */
    const double *v;
    bool whole; /* the same for all rows: no batch in it */
};
struct loss {
    enum op_id op, grad;
    const struct attr *attrs, *grad_attrs;
    struct input in[IN_MAX];
    int n_in, n_grads;
};
struct result {
    double loss, d[3][512];
    int64_t bad_label;
};

static double uniform(uint64_t *seed)
{
    return (double)(splitmix(seed) >> 11) * 0x1p-53;
}

static void put(void *p, enum tensor_type t, int64_t i, double v)
{
    uint32_t u;
    float f = (float)v;
    switch (t) {
    case TENSOR_F64:
        ((double *)p)[i] = v;
        break;
    case TENSOR_F32:
        ((float *)p)[i] = f;
        break;
    case TENSOR_BF16:
        memcpy(&u, &f, 4);
        ((uint16_t *)p)[i] = (uint16_t)((u + 0x8000) >> 16);
        break;
    case TENSOR_I32:
        ((int32_t *)p)[i] = (int32_t)v;
        break;
    default:
        ((int64_t *)p)[i] = (int64_t)v;
    }
}

static double get(const void *p, enum tensor_type t, int64_t i)
{
    uint32_t u;
    float f;
    switch (t) {
    case TENSOR_F64:
        return ((const double *)p)[i];
    case TENSOR_BF16:
        u = (uint32_t)((const uint16_t *)p)[i] << 16;
        memcpy(&f, &u, 4);
        return (double)f;
    default:
        return (double)((const float *)p)[i];
    }
}

static const void *filled(struct arena *a, enum tensor_type t, const double *v, int64_t n)
{
    void *p = arena_alloc(a, (size_t)n * 8 + 8, 64);
    for (int64_t i = 0; i < n; i++)
        put(p, t, i, v[i]);
    return p;
}

/* Runs loss and gradient (of a dy of 1) on so many ranks. */
static err run(const struct loss *l, enum tensor_type type, int ranks, struct result *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int64_t batch = graph_symbol(g, "batch"), rows = l->in[0].shape.d[0];
    int ids[IN_MAX + 1];
    const void *data[IN_MAX];
    size_t n_data = 0;
    for (int i = 0; i < l->n_in; i++) {
        const struct input *in = &l->in[i];
        enum tensor_type t = in->type ? in->type : type;
        struct shape s = in->shape;
        if (!in->v) {
            ids[i + 1] = -1;
            continue;
        }
        const void *p = filled(a, t, in->v, shape_count(&s));
        if (in->whole) {
            ids[i + 1] = graph_const(g, t, s, p);
            continue;
        }
        s.d[0] = batch;
        ids[i + 1] = graph_input(g, fmtz(a, "x%d", i), t, s);
        data[n_data++] = p;
    }
    double one = 1;
    float one32 = 1;
    ids[0] = type == TENSOR_F64 ? graph_const(g, type, SCALAR, &one)
                                : graph_const(g, TENSOR_F32, SCALAR, &one32);
    int loss = graph_add(g, &op_table[l->op], ids + 1, l->n_in, 1, l->attrs);
    int d = graph_add(g, &op_table[l->grad], ids, l->n_in + 1, l->n_grads, l->grad_attrs);
    TRY(graph_error(g));
    graph_output(g, loss, S(""));
    for (int i = 0; i < l->n_grads; i++)
        graph_output(g, d + i, S(""));
    struct team *team = NULL;
    TRY(team_new(ranks, &team));
    struct params *params;
    struct program *p;
    err e = params_new(a, &device_cpu, g, ranks, 1, &params);
    if (!e)
        e = program_new(a, g, params, &(struct program_options){ .team = team, .rows = rows, .loss = loss },
                        &p);
    if (!e) {
        struct run_report report;
        cr_assert_eq(program_facts(p).ranks, ranks < rows ? ranks : rows);
        program_run(p, data, 1, 1, &report);
        *out = (struct result){ .loss = report.loss, .bad_label = report.bad_label };
        for (int i = 0; i < l->n_grads; i++) {
            enum tensor_type t;
            struct shape shape;
            const void *v = program_output(p, i + 1, &t, &shape);
            for (int64_t k = 0; k < shape_count(&shape); k++)
                out->d[i][k] = get(v, t, k);
        }
    }
    team_free(team);
    return e;
}

static void near(double got, double want, double tolerance, const char *what)
{
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
        cr_assert_fail("%s: %.12g, not %.12g", what, got, want);
}

/* In F64: the loss is `want`, gradients are those of differences; F32 (each instruction set) and BF16 and any number of
 * ranks tell the same. */
static void check(struct loss l, double want)
{
    struct result exact, x, y;
    double moved[512];
    CHECK_OK(run(&l, TENSOR_F64, 1, &exact));
    near(exact.loss, want, 1e-10, "loss");
    for (int i = 0; i < l.n_grads; i++) {
        const double *v = l.in[i].v;
        int64_t n = shape_count(&l.in[i].shape);
        memcpy(moved, v, (size_t)n * sizeof *v);
        l.in[i].v = moved;
        for (int64_t k = 0; k < n; k++) {
            moved[k] = v[k] + 1e-5;
            CHECK_OK(run(&l, TENSOR_F64, 1, &x));
            moved[k] = v[k] - 1e-5;
            CHECK_OK(run(&l, TENSOR_F64, 1, &y));
            moved[k] = v[k];
            near(exact.d[i][k], (x.loss - y.loss) / 2e-5, 1e-8, "gradient");
        }
        l.in[i].v = v;
    }
    static const enum tensor_type types[] = { TENSOR_F64, TENSOR_F32, TENSOR_BF16 };
    static const double tolerances[] = { 1e-12, 2e-6, 0.02 };
    for (int t = 0; t < 3; t++)
        for (int ranks = 1; ranks <= 3; ranks++)
            for (int level = 0; level < (t == 1 ? 3 : 1); level++) {
                if (t == 1)
                    simd_limit((enum simd)level);
                CHECK_OK(run(&l, types[t], ranks, &x));
                CHECK_OK(run(&l, types[t], ranks, &y));
                simd_limit(SIMD_AVX512);
                cr_assert(memcmp(&x, &y, sizeof x) == 0, "equal bits");
                near(x.loss, exact.loss, tolerances[t], "loss of another type or number of ranks");
                for (int i = 0; i < l.n_grads; i++)
                    for (int64_t k = 0; k < shape_count(&l.in[i].shape); k++)
                        near(x.d[i][k], exact.d[i][k], tolerances[t],
                             "gradient of another type or number of ranks");
            }
}

static double numbers[3][512], weights[64], samples[16];
static void fill(void)
{
    uint64_t seed = 11;
    for (int i = 0; i < 512; i++)
        for (int k = 0; k < 3; k++)
            numbers[k][i] = round(uniform(&seed) * 512 - 256) / 64; /* a BF16 holds them */
    for (int i = 0; i < 64; i++)
        weights[i] = 0.5 + round(uniform(&seed) * 16) / 16;
    for (int i = 0; i < 16; i++)
        samples[i] = i % 5 == 3 ? 0 : 0.5 + round(uniform(&seed) * 16) / 16;
}

/* −log p of class c among the `classes` scores at x, `inner` apart. */
static double minus_log_p(const double *x, int classes, int inner, int c)
{
    double sum = 0;
    for (int i = 0; i < classes; i++)
        sum += exp(x[i * inner] - x[c * inner]);
    return log(sum);
}

static double softmax_want(int rows, int per_row, int classes, const double *labels, const double *cw,
                           const double *sw, double smoothing)
{
    double sum = 0, norm = 0;
    for (int i = 0; i < rows * per_row; i++) {
        int y = (int)labels[i];
        double s = sw ? sw[i / per_row] : 1, wy, even = 0;
        if (y == -100)
            continue;
        wy = cw ? cw[y] : 1;
        for (int c = 0; c < classes; c++)
            even += (cw ? cw[c] : 1) * minus_log_p(numbers[0] + i * classes, classes, 1, c) / classes;
        sum += s * ((1 - smoothing) * wy * minus_log_p(numbers[0] + i * classes, classes, 1, y) +
                    smoothing * even);
        norm += s * wy;
    }
    return sum / norm;
}

TEST(softmax_cross_entropy)
{
    fill();
    double labels[14];
    for (int i = 0; i < 14; i++)
        labels[i] = (i * 5) % 7;
    for (int mode = 0; mode < 16; mode++) {
        bool cw = mode & 1, sw = mode & 2, ignore = mode & 4;
        double smoothing = mode & 8 ? 0.25 : 0;
        labels[3] = ignore ? -100 : 1;
        const struct attr *attrs = ATTRS({ "label_smoothing", ATTR_FLOAT, .f = (float)smoothing });
        struct loss l = { OP_SoftmaxCrossEntropy,
                          OP_SoftmaxCrossEntropyGrad,
                          attrs,
                          attrs,
                          { { 0, SHAPE(7, 2, 7), numbers[0], false },
                            { TENSOR_I64, SHAPE(7, 2), labels, false },
                            { TENSOR_F32, SHAPE(7), cw ? weights : NULL, true },
                            { TENSOR_F32, SHAPE(7), sw ? samples : NULL, false } },
                          4,
                          1 };
        check(l, softmax_want(7, 2, 7, labels, cw ? weights : NULL, sw ? samples : NULL, smoothing));
    }
}

TEST(softmax_cross_entropy_of_many_classes_and_big_scores)
{
    double x[512], labels[2] = { 255, 0 };
    for (int i = 0; i < 512; i++)
        x[i] = i == 255 ? 3000 : i == 256 ? -3000 : i % 7;
    struct loss l = { OP_SoftmaxCrossEntropy,
                      OP_SoftmaxCrossEntropyGrad,
                      NULL,
                      NULL,
                      { { 0, SHAPE(2, 256), x, false }, { TENSOR_I32, SHAPE(2), labels, false } },
                      2,
                      1 };
    struct result r;
    CHECK_OK(run(&l, TENSOR_F32, 2, &r));
    near(r.loss, (3000 + minus_log_p(x + 256, 256, 1, 6) + x[262]) / 2, 1e-6, "loss");
    for (int i = 0; i < 512; i++)
        CHECK(isfinite(r.d[0][i]));
}

TEST(label_out_of_range_is_told_and_left_out)
{
    fill();
    double labels[7] = { 1, 2, 0, 1, 2, 0, 1 };
    struct loss l = { OP_SoftmaxCrossEntropy,
                      OP_SoftmaxCrossEntropyGrad,
                      NULL,
                      NULL,
                      { { 0, SHAPE(7, 3), numbers[0], false }, { TENSOR_I64, SHAPE(7), labels, false } },
                      2,
                      1 };
    struct result r;
    static const double bad[] = { 3, -1, 9e15, -9e15 };
    for (int i = 0; i < 4; i++)
        for (int ranks = 1; ranks <= 3; ranks++) {
            labels[5] = bad[i];
            CHECK_OK(run(&l, TENSOR_F32, ranks, &r));
            cr_assert_eq(r.bad_label, 6);
            labels[5] = -100;
            double want = softmax_want(7, 1, 3, labels, NULL, NULL, 0);
            near(r.loss, want, 1e-6, "loss without it");
            CHECK(r.d[0][15] == 0 && r.d[0][16] == 0 && r.d[0][17] == 0);
            CHECK_OK(run(&l, TENSOR_F32, ranks, &r));
            cr_assert_eq(r.bad_label, 0);
        }
}

static double sigmoid_loss(double x, double t, double w)
{
    return -t * w * log(1 / (1 + exp(-x))) - (1 - t) * log(1 / (1 + exp(x)));
}

TEST(losses_element_by_element)
{
    fill();
    static const enum op_id ops[] = { OP_SigmoidCrossEntropy, OP_MeanSquaredError, OP_MeanAbsoluteError,
                                      OP_HuberLoss };
    for (int op = 0; op < 4; op++)
        for (int mode = 0; mode < 8; mode++) {
            int columns = mode & 1 ? 3 : 1;
            double smoothing = mode & 2 ? 0.25 : 0, targets[21], want = 0, norm = 0;
            bool sw = mode & 4;
            for (int i = 0; i < 7 * columns; i++) {
                double x = numbers[0][i], w = weights[i % columns], s = sw ? samples[i / columns] : 1, e;
                targets[i] = op == 0 ? (i % 3) / 2.0 : numbers[1][i] + 0.0078125;
                double t = targets[i] * (1 - smoothing) + smoothing / 2;
                e = fabs(x - targets[i]);
                want += s * (op == 0   ? sigmoid_loss(x, t, w)
                             : op == 1 ? w * e * e
                             : op == 2 ? w * e
                                       : w * (e <= 1.5 ? e * e / 2 : 1.5 * (e - 0.75)));
                norm += s;
            }
            const struct attr attrs[] = { { "label_smoothing", ATTR_FLOAT, .f = (float)smoothing },
                                          { "delta", ATTR_FLOAT, .f = 1.5f },
                                          { "of", ATTR_TEXT, .s = str_of(op_table[ops[op]].name) },
                                          { 0 } };
            struct loss l = { ops[op],
                              OP_PointwiseLossGrad,
                              attrs,
                              attrs,
                              { { 0, SHAPE(7, columns), numbers[0], false },
                                { 0, SHAPE(7, columns), targets, false },
                                { TENSOR_F32, SHAPE(columns), weights, true },
                                { TENSOR_F32, SHAPE(7), sw ? samples : NULL, false } },
                              4,
                              1 };
            check(l, want / norm);
        }
}

TEST(sigmoid_loss_far_out_and_bad_targets)
{
    double x[4] = { 500, -500, 88, -88 }, t[4] = { 0, 1, 1, 0 };
    struct loss l = { OP_SigmoidCrossEntropy,
                      OP_PointwiseLossGrad,
                      NULL,
                      ATTRS({ "of", ATTR_TEXT, .s = S("SigmoidCrossEntropy") }),
                      { { 0, SHAPE(4, 1), x, false }, { 0, SHAPE(4, 1), t, false } },
                      2,
                      1 };
    struct result r;
    CHECK_OK(run(&l, TENSOR_F32, 1, &r));
    near(r.loss, 250, 1e-6, "loss");
    near(r.d[0][0], 0.25, 1e-6, "slope");
    near(r.d[0][1], -0.25, 1e-6, "slope");
    t[2] = 2;
    CHECK_OK(run(&l, TENSOR_F32, 2, &r));
    cr_assert_eq(r.bad_label, 3);
    t[2] = NAN;
    CHECK_OK(run(&l, TENSOR_F32, 1, &r));
    cr_assert_eq(r.bad_label, 3);
}

TEST(pairwise_ranking)
{
    fill();
    double groups[9] = { 7, -1, 7, 7, -1, 5e9, 7, -1, 5e9 }, relevance[9] = { 2, 0, 1, 2, 1, 1, 0, 1, 1 };
    for (int hinge = 0; hinge < 2; hinge++) {
        double want = 0, pairs = 0;
        for (int i = 0; i < 9; i++)
            for (int j = 0; j < 9; j++)
                if (groups[i] == groups[j] && relevance[i] > relevance[j]) {
                    double d = numbers[0][i] - numbers[0][j];
                    want += hinge ? fmax(0, 1.25 - d) : log(1 + exp(-d));
                    pairs++;
                }
        const struct attr *attrs = ATTRS({ "hinge", ATTR_INT, .i = hinge },
                                         { "margin", ATTR_FLOAT, .f = 1.25f });
        struct loss l = { OP_PairwiseRankingLoss,
                          OP_PairwiseRankingLossGrad,
                          attrs,
                          attrs,
                          { { 0, SHAPE(9, 1), numbers[0], false },
                            { TENSOR_F32, SHAPE(9), relevance, false },
                            { TENSOR_I64, SHAPE(9), groups, false } },
                          3,
                          1 };
        if (hinge)
            l.in[0].v = numbers[2]; /* no pair at the kink */
        if (hinge) {
            want = 0;
            for (int i = 0; i < 9; i++)
                for (int j = 0; j < 9; j++)
                    want += groups[i] == groups[j] && relevance[i] > relevance[j]
                                ? fmax(0, 1.25 - numbers[2][i] + numbers[2][j])
                                : 0;
        }
        check(l, want / pairs);
    }
}

static double apart(const double *v, int i, int j, int columns)
{
    double sum = 0;
    for (int c = 0; c < columns; c++)
        sum += pow(v[i * columns + c] - v[j * columns + c], 2);
    return sqrt(sum);
}

/* Of each pair of a label, the nearest other that is farther, by looking at all. The label 4 is alone: it is only a negative. */
TEST(triplets)
{
    enum { N = 9, D = 4 };
    fill();
    const double labels[N] = { 1, 0, 1, 2, 0, 1, 4, 2, 0 };
    for (int margin = 0; margin < 2; margin++) {
        double want = 0, pairs = 0, m = margin ? 0.75 : 0.125;
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double near = INFINITY, far = 0;
                if (i == j || labels[i] != labels[j])
                    continue;
                for (int k = 0; k < N; k++) {
                    double d = apart(numbers[0], i, k, D);
                    if (labels[k] == labels[i])
                        continue;
                    near = d > apart(numbers[0], i, j, D) && d < near ? d : near;
                    far = fmax(far, d);
                }
                want += fmax(0, apart(numbers[0], i, j, D) - (near < INFINITY ? near : far) + m);
                pairs++;
            }
        const struct attr *attrs = ATTRS({ "margin", ATTR_FLOAT, .f = (float)m });
        struct loss l = { OP_TripletLoss,
                          OP_TripletLossGrad,
                          attrs,
                          attrs,
                          { { 0, SHAPE(N, D), numbers[0], false }, { TENSOR_I64, SHAPE(N), labels, false } },
                          2,
                          1 };
        check(l, want / pairs);
    }
}

/* One label only, or none twice: there is no pair with a negative, so nothing to learn. */
TEST(triplets_that_are_none)
{
    fill();
    const double same[4] = { 3, 3, 3, 3 }, apart_all[4] = { 0, 1, 2, 3 };
    for (int k = 0; k < 2; k++) {
        struct loss l = { OP_TripletLoss,
                          OP_TripletLossGrad,
                          NULL,
                          NULL,
                          { { 0, SHAPE(4, 3), numbers[0], false },
                            { TENSOR_I64, SHAPE(4), k ? apart_all : same, false } },
                          2,
                          1 };
        check(l, 0);
    }
}

TEST(the_losses_of_onnx)
{
    fill();
    double labels[12];
    static const char *const reductions[] = { "mean", "sum" };
    for (int mode = 0; mode < 16; mode++) {
        bool softmax = mode & 1, cw = mode & 2, ignore = mode & 4;
        double want = 0, norm = 0;
        for (int i = 0; i < 12; i++)
            labels[i] = i == 4 && ignore ? 7 : (i * 5) % 3;
        for (int i = 0; i < 12; i++) {
            int y = (int)labels[i];
            double w = y == 7 ? 0 : cw ? weights[y] : 1;
            const double *x = numbers[0] + i / 2 * 6 + i % 2;
            want += y == 7 ? 0 : w * (softmax ? minus_log_p(x, 3, 2, y) : -x[2 * y]);
            norm += w;
        }
        const struct attr attrs[] = { { "reduction", ATTR_TEXT, .s = str_of(reductions[mode >> 3]) },
                                      { "softmax", ATTR_INT, .i = softmax },
                                      { ignore ? "ignore_index" : NULL, ATTR_INT, .i = 7 },
                                      { 0 } };
        struct loss l = { softmax ? OP_SoftmaxCrossEntropyLoss : OP_NegativeLogLikelihoodLoss,
                          OP_OnnxLossGrad,
                          attrs,
                          attrs,
                          { { 0, SHAPE(6, 3, 2), numbers[0], false },
                            { TENSOR_I64, SHAPE(6, 2), labels, false },
                            { 0, SHAPE(3), cw ? weights : NULL, true } },
                          3,
                          1 };
        struct result r;
        if (mode >> 3 == 0) {
            CHECK_OK(run(&l, TENSOR_F64, 1, &r));
            near(r.loss, want / norm, 1e-10, "mean");
            continue; /* ONNX's losses are of the scores' own type: a bf16's would be too coarse to compare */
        }
        CHECK_OK(run(&l, TENSOR_F64, 2, &r));
        near(r.loss, want, 1e-10, "sum");
    }
}
