// SPDX-License-Identifier: Apache-2.0
// The optimiser's passes, once for each instruction set (engine/cpu/simd.h). A chunk's gradient is summed and scaled into the
// first cache, then the chunk's parameters and moments pass once.
#include "engine/cpu/elements.h"
#include "engine/cpu/optim_kernels.h"

#include <math.h>

enum { CHUNK = 512 };

/* Σ over ranks, in their order, times k. */
static inline void gradient(const struct optim_pass *p, size_t at, size_t n, float k, float *restrict g)
{
    const float *restrict first = p->grads[0] + at;
    if (p->n_grads == 2) {
        const float *restrict second = p->grads[1] + at;
        for (size_t i = 0; i < n; i++)
            g[i] = (first[i] + second[i]) * k;
        return;
    }
    for (size_t i = 0; i < n; i++)
        g[i] = first[i];
    for (int r = 1; r < p->n_grads; r++) {
        const float *restrict next = p->grads[r] + at;
        for (size_t i = 0; i < n; i++)
            g[i] += next[i];
    }
    for (size_t i = 0; i < n; i++)
        g[i] *= k;
}

static double squares(const float *x, size_t n)
{
    vf a = { 0 }, b = { 0 };
    size_t i = 0;
    for (; i + 2 * SIMD_FLOATS <= n; i += 2 * SIMD_FLOATS) {
        vf u = vf_load(x + i), v = vf_load(x + i + SIMD_FLOATS);
        a += u * u;
        b += v * v;
    }
    float rest = 0;
    for (; i < n; i++)
        rest += x[i] * x[i];
    return (double)vf_sum(a + b) + rest;
}

static double SIMD(norm2)(const struct optim_pass *p, size_t from, size_t to)
{
    double sum = 0;
    float g[CHUNK];
    for (size_t at = from; at < to; at += CHUNK) {
        size_t n = to - at < CHUNK ? to - at : CHUNK;
        if (p->n_grads == 1) {
            sum += squares(p->grads[0] + at, n);
            continue;
        }
        gradient(p, at, n, 1, g);
        memcpy(p->grads[0] + at, g, n * sizeof *g);
        sum += squares(g, n);
    }
    return sum;
}

static inline void sgd(const struct optim_pass *p, size_t at, size_t n, const float *restrict g)
{
    float *restrict w = p->w + at, *restrict m = p->m ? p->m + at : NULL;
    const float rate = p->rate, mu = p->momentum, decay = p->decay;
    if (!m)
        for (size_t i = 0; i < n; i++)
            w[i] -= rate * (g[i] + decay * w[i]);
    else if (p->nesterov)
        for (size_t i = 0; i < n; i++) {
            float d = g[i] + decay * w[i];
            m[i] = mu * m[i] + d;
            w[i] -= rate * (d + mu * m[i]);
        }
    else
        for (size_t i = 0; i < n; i++) {
            m[i] = mu * m[i] + (g[i] + decay * w[i]);
            w[i] -= rate * m[i];
        }
}

static inline void adagrad(const struct optim_pass *p, size_t at, size_t n, const float *restrict g)
{
    float *restrict w = p->w + at, *restrict v = p->v + at;
    const float rate = p->rate, decay = p->decay, epsilon = p->epsilon;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + decay * w[i];
        v[i] += d * d;
        w[i] -= rate * d / (sqrtf(v[i]) + epsilon);
    }
}

/* l2 goes into the gradient, beside is taken off the weight itself. */
static inline void adam(const struct optim_pass *p, size_t at, size_t n, const float *restrict g, float l2,
                        float beside)
{
    float *restrict w = p->w + at, *restrict m = p->m + at, *restrict v = p->v + at;
    const float rate = p->rate, b1 = p->beta1, b2 = p->beta2, epsilon = p->epsilon;
    const float c1 = p->correct1, c2 = p->correct2;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] + l2 * w[i];
        m[i] = b1 * m[i] + (1 - b1) * d;
        v[i] = b2 * v[i] + (1 - b2) * (d * d);
        w[i] -= rate * (m[i] * c1 / (sqrtf(v[i] * c2) + epsilon) + beside * w[i]);
    }
}

/* What is kept beside the parameters. */
static inline void copies(const struct optim_pass *p, size_t at, size_t n)
{
    const float *restrict w = p->w + at;
    if (p->ema) {
        float *restrict e = p->ema + at;
        const float k = p->ema_decay;
        for (size_t i = 0; i < n; i++)
            e[i] = k * e[i] + (1 - k) * w[i];
    }
    if (p->half)
        SIMD(elements_f32).store[p->half_type](p->half + at, w, n);
}

static void SIMD(step)(const struct optim_pass *p, size_t from, size_t to)
{
    float g[CHUNK];
    for (size_t at = from; at < to; at += CHUNK) {
        size_t n = to - at < CHUNK ? to - at : CHUNK;
        gradient(p, at, n, p->scale, g);
        if (p->kind == OPTIM_SGD)
            sgd(p, at, n, g);
        else if (p->kind == OPTIM_ADAGRAD)
            adagrad(p, at, n, g);
        else
            adam(p, at, n, g, p->kind == OPTIM_ADAM ? p->decay : 0, p->kind == OPTIM_ADAM ? 0 : p->decay);
        copies(p, at, n);
    }
}

/* The moments, and the step before its length is known, into the gradient's place: nobody reads that again. */
static inline void lamb_direction(const struct optim_pass *p, size_t at, size_t n, const float *restrict g)
{
    float *restrict u = p->grads[0] + at, *restrict m = p->m + at, *restrict v = p->v + at;
    const float *restrict w = p->w + at;
    const float b1 = p->beta1, b2 = p->beta2, epsilon = p->epsilon, decay = p->decay;
    const float c1 = p->correct1, c2 = p->correct2;
    for (size_t i = 0; i < n; i++) {
        m[i] = b1 * m[i] + (1 - b1) * g[i];
        v[i] = b2 * v[i] + (1 - b2) * (g[i] * g[i]);
        u[i] = m[i] * c1 / (sqrtf(v[i] * c2) + epsilon) + decay * w[i];
    }
}

static void SIMD(lamb)(const struct optim_pass *p, size_t from, size_t to)
{
    float g[CHUNK];
    double w2 = 0, u2 = 0;
    for (size_t at = from; at < to; at += CHUNK) {
        size_t n = to - at < CHUNK ? to - at : CHUNK;
        gradient(p, at, n, p->scale, g);
        lamb_direction(p, at, n, g);
        w2 += squares(p->w + at, n);
        u2 += squares(p->grads[0] + at, n);
    }
    const float step = p->rate * (w2 > 0 && u2 > 0 ? (float)sqrt(w2 / u2) : 1);
    for (size_t at = from; at < to; at += CHUNK) {
        size_t n = to - at < CHUNK ? to - at : CHUNK;
        float *restrict w = p->w + at;
        const float *restrict u = p->grads[0] + at;
        for (size_t i = 0; i < n; i++)
            w[i] -= step * u[i];
        copies(p, at, n);
    }
}

const struct optim_table SIMD(optim_table) = { SIMD(norm2), SIMD(step), SIMD(lamb) };
