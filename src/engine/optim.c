// SPDX-License-Identifier: Apache-2.0
#include "engine/optim.h"
#include "engine/cpu/optim_kernels.h"
#include "engine/program.h"

#include <math.h>

static bool has_m(const struct optim_spec *s)
{
    return s->kind == OPTIM_SGD ? s->momentum != 0 : s->kind != OPTIM_ADAGRAD;
}

static bool has_v(const struct optim_spec *s)
{
    return s->kind != OPTIM_SGD;
}

int64_t optim_memory(const struct params *p, const struct optim_spec *s)
{
    int blocks = has_m(s) + has_v(s) + (s->ema > 0) + (s->accumulate > 1 ? p->ranks : 0);
    return (int64_t)(p->n * sizeof(float)) * blocks;
}

err optim_new(struct arena *a, struct params *p, const struct optim_spec *spec, struct optim **out)
{
    struct optim *o = NEW(a, struct optim);
    *o = (struct optim){ .spec = *spec, .params = p, .loss_scale = spec->loss_scaling ? 65536 : 1 };
    if (has_m(spec))
        TRY(device_floats(a, p->device, p->n, &o->m));
    if (has_v(spec))
        TRY(device_floats(a, p->device, p->n, &o->v));
    if (spec->ema > 0) {
        TRY(device_floats(a, p->device, p->n, &o->ema));
        memcpy(o->ema, p->w, p->n * sizeof *o->ema);
    }
    if (spec->accumulate > 1) {
        o->sums = NEW_N(a, float *, p->ranks);
        for (int i = 0; i < p->ranks; i++)
            TRY(device_floats(a, p->device, p->n, &o->sums[i]));
    }
    *out = o;
    return NULL;
}

double schedule_rate(const struct schedule *s, double rate, int64_t n)
{
    double t, end = s->factor > 0 ? s->factor : 0;
    if (s->kind ==
        RATE_ONE_CYCLE) { /* up over `warmup` steps from rate / factor, then down to nothing (Smith 2018), both by cosine */
        double first = s->factor > 1 ? rate / s->factor : rate / 25,
               up = s->warmup > 0 ? (double)s->warmup : 0.3 * (double)s->steps;
        double down = (double)s->steps - up;
        if ((double)n < up)
            return first + (rate - first) * 0.5 * (1 - cos(M_PI * (double)n / up));
        t = down > 0 ? fmin(((double)n - up) / down, 1) : 1;
        return rate * 0.5 * (1 + cos(M_PI * t));
    }
    if (n < s->warmup)
        return rate * (double)(n + 1) / (double)s->warmup;
    t = s->steps > s->warmup ? fmin((double)(n - s->warmup) / (double)(s->steps - s->warmup), 1) : 0;
    switch (s->kind) {
    case RATE_COSINE:
        return rate * (end + (1 - end) * 0.5 * (1 + cos(M_PI * t)));
    case RATE_LINEAR:
        return rate * (1 - (1 - end) * t);
    case RATE_STEP:
        return s->every > 0
                   ? rate * pow(s->factor > 0 ? s->factor : 0.1, (double)((n - s->warmup) / s->every))
                   : rate;
    default:
        return rate;
    }
}

/* ---- one step ---- */

/* The rank's part of the block: whole cache lines. */
static void my_slice(const struct params *p, const struct rank *r, size_t *from, size_t *to)
{
    size_t lines = p->n / PARAM_ALIGN;
    *from = lines * (size_t)r->index / (size_t)r->size * PARAM_ALIGN;
    *to = lines * (size_t)(r->index + 1) / (size_t)r->size * PARAM_ALIGN;
}

/* Gradients of several runs are added up in blocks beside. True if the step is due. */
static bool accumulate(struct optim *o, struct rank *r)
{
    int every = o->spec.accumulate;
    if (every <= 1)
        return true;
    float *sum = o->sums[r->index], *g = o->params->grads[r->index];
    if (o->pending == 0)
        memcpy(sum, g, o->params->n * sizeof *sum);
    else
        for (size_t i = 0; i < o->params->n; i++)
            sum[i] += g[i];
    return o->pending + 1 >= every || o->last;
}

static struct optim_pass pass_of(const struct optim *o, struct rank *r, double scale, float **grads)
{
    const struct optim_spec *s = &o->spec;
    int64_t t = o->step + 1;
    return (struct optim_pass){
        .kind = s->kind,
        .nesterov = s->nesterov,
        .grads = grads,
        .n_grads = r->size,
        .w = o->params->w,
        .m = o->m,
        .v = o->v,
        .ema = o->ema,
        .half = o->params->half,
        .half_type = o->params->half_type,
        .scale = (float)scale,
        .rate = (float)schedule_rate(&s->schedule, s->rate, o->step),
        .momentum = (float)s->momentum,
        .beta1 = (float)s->beta1,
        .beta2 = (float)s->beta2,
        .epsilon = (float)s->epsilon,
        .decay = (float)s->decay,
        .ema_decay = (float)s->ema,
        .correct1 = 1 / (1 - (float)pow(s->beta1, (double)t)),
        .correct2 = 1 / (1 - (float)pow(s->beta2, (double)t)),
    };
}

/* Calls fn for each run of floats of the slice that has one decay and one rate. */
static void each_segment(const struct params *p, size_t from, size_t to, const struct optim_pass *base,
                         void (*fn)(const struct optim_pass *, size_t, size_t))
{
    for (size_t i = 0; i < p->count;) {
        size_t k = i + 1, a = p->v[i].at, b;
        while (k < p->count && p->v[k].decay == p->v[i].decay && p->v[k].rate == p->v[i].rate &&
               p->v[k].frozen == p->v[i].frozen)
            k++;
        b = k < p->count ? p->v[k].at : p->n;
        a = a > from ? a : from;
        b = b < to ? b : to;
        if (a < b && !p->v[i].frozen) {
            struct optim_pass pass = *base;
            pass.decay *= (float)p->v[i].decay;
            pass.rate *= (float)p->v[i].rate;
            fn(&pass, a, b);
        }
        i = k;
    }
}

/* LAMB: the step of each parameter is scaled by the norms of the whole parameter. Each rank takes whole parameters. */
static void lamb(struct optim *o, struct rank *r, const struct optim_pass *base)
{
    const struct params *p = o->params;
    for (size_t i = (size_t)r->index; i < p->count; i += (size_t)r->size) {
        struct optim_pass pass = *base;
        pass.decay *= (float)p->v[i].decay;
        pass.rate *= (float)p->v[i].rate;
        if (!p->v[i].frozen)
            optim_lamb(&pass, p->v[i].at, p->v[i].at + p->v[i].n);
    }
}

static void count_step(struct optim *o, bool overflow)
{
    if (overflow) {
        o->skipped++;
        o->good = 0;
        if (o->spec.loss_scaling && o->loss_scale > 1)
            o->loss_scale /= 2;
        return;
    }
    o->step++;
    if (++o->good % 2000 == 0 && o->spec.loss_scaling && o->loss_scale < 0x1p24)
        o->loss_scale *= 2;
}

void optim_apply(struct optim *o, struct rank *r, struct run_report *report)
{
    size_t from, to;
    float **grads = o->spec.accumulate > 1 ? o->sums : o->params->grads;
    my_slice(o->params, r, &from, &to);
    bool due = accumulate(o, r);
    team_barrier(r);
    if (!due) {
        if (r->index == 0)
            o->pending++;
        team_barrier(r);
        return;
    }
    double scale = 1 / (o->loss_scale * (o->pending + 1));
    struct optim_pass pass = pass_of(o, r, scale, grads);
    /* The norm also finds what is no number; it is asked for where a step must be able to be skipped or clipped. */
    double norm2 = 0;
    if (o->spec.clip_norm > 0 || o->spec.loss_scaling || o->spec.kind == OPTIM_LAMB) {
        norm2 = optim_norm2(&pass, from, to);
        pass.n_grads = 1; /* they are summed now, into the first */
        team_sum(r, &norm2, 1);
    }
    bool overflow = !isfinite(norm2);
    double norm = sqrt(norm2) * scale;
    if (!overflow && o->spec.clip_norm > 0 && norm > o->spec.clip_norm)
        pass.scale = (float)(scale * o->spec.clip_norm / norm);
    if (!overflow && o->spec.kind == OPTIM_LAMB)
        lamb(o, r, &pass);
    else if (!overflow)
        each_segment(o->params, from, to, &pass, optim_step);
    team_barrier(r);
    if (r->index == 0) {
        o->pending = 0;
        count_step(o, overflow);
        report->grad_norm = norm;
        report->overflow = overflow;
    }
}
