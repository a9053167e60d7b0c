// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_optim_kernels
#include "engine/cpu/optim_kernels.h"
#include "test.h"
#include <math.h>

enum { N = 1000, RANKS = 3 };
struct block {
    float g[RANKS][N], w[N], m[N], v[N], ema[N];
    uint16_t half[N];
};

static void fill(struct block *b)
{
    uint64_t random = 3;
    for (int i = 0; i < N; i++) {
        for (int r = 0; r < RANKS; r++)
            b->g[r][i] = (float)((double)(splitmix(&random) >> 40) * 0x1p-23 - 1);
        b->w[i] = (float)((double)(splitmix(&random) >> 40) * 0x1p-23 - 1);
        b->m[i] = (float)((double)(splitmix(&random) >> 40) * 0x1p-24 - 0.5);
        b->v[i] = (float)((double)(splitmix(&random) >> 40) * 0x1p-24 + 0.01);
        b->ema[i] = b->w[i] / 2;
    }
}

/* One step in double, as optim.h says it. */
static void step_slow(const struct optim_pass *p, const struct block *was, double *w_out, double *m_out,
                      double *v_out)
{
    double w2 = 0, u2 = 0, u[N];
    for (int i = 0; i < N; i++) {
        double g = 0, w = was->w[i], m = was->m[i], v = was->v[i];
        for (int r = 0; r < p->n_grads; r++)
            g += was->g[r][i];
        g *= p->scale;
        if (p->kind != OPTIM_ADAMW && p->kind != OPTIM_LAMB)
            g += p->decay * w;
        if (p->kind == OPTIM_SGD && !p->m) {
            u[i] = g;
        } else if (p->kind == OPTIM_SGD) {
            m = p->momentum * m + g;
            u[i] = p->nesterov ? g + p->momentum * m : m;
        } else if (p->kind == OPTIM_ADAGRAD) {
            v += g * g;
            u[i] = g / (sqrt(v) + p->epsilon);
        } else {
            m = p->beta1 * m + (1 - p->beta1) * g;
            v = p->beta2 * v + (1 - p->beta2) * g * g;
            u[i] = m * p->correct1 / (sqrt(v * p->correct2) + p->epsilon);
            u[i] += p->kind == OPTIM_ADAM ? 0 : p->decay * w;
        }
        w2 += w * w;
        u2 += u[i] * u[i];
        m_out[i] = m;
        v_out[i] = v;
    }
    double trust = p->kind == OPTIM_LAMB ? sqrt(w2 / u2) : 1;
    for (int i = 0; i < N; i++)
        w_out[i] = was->w[i] - p->rate * trust * u[i];
}

static void check_kind(enum optim_kind kind, bool momentum, bool nesterov, int ranks, enum tensor_type half)
{
    static struct block was, is;
    static double w[N], m[N], v[N];
    fill(&was);
    is = was;
    float *grads[RANKS] = { is.g[0], is.g[1], is.g[2] };
    struct optim_pass p = { .kind = kind,
                            .nesterov = nesterov,
                            .grads = grads,
                            .n_grads = ranks,
                            .w = is.w,
                            .m = momentum ? is.m : NULL,
                            .v = is.v,
                            .ema = is.ema,
                            .half = is.half,
                            .half_type = half,
                            .scale = 0.25f,
                            .rate = 0.01f,
                            .momentum = 0.9f,
                            .beta1 = 0.9f,
                            .beta2 = 0.99f,
                            .epsilon = 1e-6f,
                            .decay = 0.1f,
                            .ema_decay = 0.75f,
                            .correct1 = 2,
                            .correct2 = 5 };
    step_slow(&p, &was, w, m, v);
    if (kind == OPTIM_LAMB)
        optim_lamb(&p, 0, N);
    else
        for (size_t from = 0; from < N; from += 600) /* two slices */
            optim_step(&p, from, from + 600 < N ? from + 600 : N);
    for (int i = 0; i < N; i++) {
        CHECK(fabs(is.w[i] - w[i]) < 1e-6);
        CHECK(!momentum || fabs(is.m[i] - m[i]) < 1e-6);
        CHECK(kind == OPTIM_SGD || fabs(is.v[i] - v[i]) < 1e-6);
        CHECK(fabs(is.ema[i] - (0.75 * was.ema[i] + 0.25 * w[i])) < 1e-6);
        uint32_t bits;
        memcpy(&bits, &is.w[i], 4);
        CHECK(half != TENSOR_BF16 || is.half[i] == (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16));
        CHECK(half != TENSOR_F16 || (is.half[i] >> 15) == (bits >> 31));
    }
}

TEST(each_step_is_its_formula)
{
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        for (int ranks = 1; ranks <= RANKS; ranks++) {
            check_kind(OPTIM_SGD, false, false, ranks, TENSOR_BF16);
            check_kind(OPTIM_SGD, true, false, ranks, TENSOR_F16);
            check_kind(OPTIM_SGD, true, true, ranks, TENSOR_BF16);
            check_kind(OPTIM_ADAM, true, false, ranks, TENSOR_BF16);
            check_kind(OPTIM_ADAMW, true, false, ranks, TENSOR_BF16);
            check_kind(OPTIM_LAMB, true, false, ranks, TENSOR_BF16);
            check_kind(OPTIM_ADAGRAD, false, false, ranks, TENSOR_BF16);
        }
    }
}

TEST(the_norm_sums_and_finds_what_is_no_number)
{
    static struct block b;
    float *grads[RANKS] = { b.g[0], b.g[1], b.g[2] };
    for (int level = simd_level(); level >= SIMD_PORTABLE; level--) {
        simd_limit(level);
        fill(&b);
        double want = 0;
        for (int i = 0; i < N; i++) {
            double g = (double)b.g[0][i] + b.g[1][i] + b.g[2][i];
            want += g * g;
        }
        struct optim_pass p = { .grads = grads, .n_grads = RANKS };
        CHECK(fabs(optim_norm2(&p, 0, N) - want) < 1e-5 * want);
        p.n_grads = 1;
        CHECK(fabs(optim_norm2(&p, 0, N) - want) < 1e-5 * want);
        b.g[0][N - 1] = INFINITY;
        CHECK(!isfinite(optim_norm2(&p, 0, N)));
        b.g[0][N - 1] = 0, b.g[0][17] = NAN;
        CHECK(!isfinite(optim_norm2(&p, 0, N)));
    }
}
