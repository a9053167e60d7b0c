// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/optim_kernels.h"

#include <math.h>

static inline float gradient(const struct optim_pass *p, size_t i)
{
    float g = p->grads[0][i];
    for (int k = 1; k < p->n_grads; k++)
        g += p->grads[k][i];
    return g * p->scale;
}

double optim_norm2(const struct optim_pass *p, size_t from, size_t to)
{
    double sum = 0;
    for (size_t i = from; i < to; i++) {
        float g = p->grads[0][i];
        for (int k = 1; k < p->n_grads; k++)
            g += p->grads[k][i];
        p->grads[0][i] = g;
        sum += (double)g * g;
    }
    return sum;
}

static inline void put(const struct optim_pass *p, size_t i, float w)
{
    p->w[i] = w;
    if (p->ema)
        p->ema[i] = p->ema_decay * p->ema[i] + (1 - p->ema_decay) * w;
}

static inline float adam_update(const struct optim_pass *p, size_t i, float g)
{
    float m = p->m[i] = p->beta1 * p->m[i] + (1 - p->beta1) * g;
    float v = p->v[i] = p->beta2 * p->v[i] + (1 - p->beta2) * g * g;
    return m * p->correct1 / (sqrtf(v * p->correct2) + p->epsilon);
}

void optim_step(const struct optim_pass *p, size_t from, size_t to)
{
    for (size_t i = from; i < to; i++) {
        float w = p->w[i], g = gradient(p, i);
        if (p->kind != OPTIM_ADAMW)
            g += p->decay * w;
        if (p->kind == OPTIM_SGD) {
            if (p->m) {
                float m = p->m[i] = p->momentum * p->m[i] + g;
                g = p->nesterov ? g + p->momentum * m : m;
            }
            w -= p->rate * g;
        } else if (p->kind == OPTIM_ADAGRAD) {
            float v = p->v[i] += g * g;
            w -= p->rate * g / (sqrtf(v) + p->epsilon);
        } else {
            float u = adam_update(p, i, g);
            w -= p->rate * (p->kind == OPTIM_ADAMW ? u + p->decay * w : u);
        }
        put(p, i, w);
    }
    params_half_range(p->w, p->half, p->half_type, from, to);
}

void optim_lamb(const struct optim_pass *p, size_t from, size_t to)
{
    double w2 = 0, u2 = 0;
    for (size_t i = from; i < to; i++) {
        float u = adam_update(p, i, gradient(p, i)) + p->decay * p->w[i];
        p->grads[0][i] = u; /* nobody reads the gradient again */
        w2 += (double)p->w[i] * p->w[i];
        u2 += (double)u * u;
    }
    float trust = w2 > 0 && u2 > 0 ? (float)sqrt(w2 / u2) : 1;
    for (size_t i = from; i < to; i++)
        put(p, i, p->w[i] - p->rate * trust * p->grads[0][i]);
    params_half_range(p->w, p->half, p->half_type, from, to);
}
