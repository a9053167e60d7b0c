// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/image_conv.h"

struct own_step {
    struct conv_of_own p;
    void (*run)(const struct conv_of_own *, const float *x, const float *w, const float *bias, float *y,
                float *pad);
    size_t pad;        /* floats of scratch, before the weights */
    const float *kept; /* weights that stay, turned; NULL: they are turned at each run, in scratch */
};

/* (out, in, window) to (in, window, out). */
static void turn(const struct conv *v, const float *w, float *to)
{
    const int64_t out = v->y.c, each = v->x.c / v->w.group * v->kernels;
    for (int64_t i = 0; i < each; i++)
        for (int64_t m = 0; m < out; m++)
            *to++ = w[m * each + i];
}

static void run_own(const struct step *s, struct rank *r)
{
    const struct own_step *o = s->state;
    float *pad = r->scratch;
    const float *w = o->kept;
    if (!w) {
        turn(&o->p.v, s->in[1]->p, pad + o->pad);
        w = pad + o->pad;
    }
    o->run(&o->p, s->in[0]->p, w, s->n_in > 2 && s->in[2] ? s->in[2]->p : NULL, s->out[0]->p, pad);
}

bool bind_own_conv(struct bind *b, const struct conv *v, bool kept, float low, float high)
{
    const struct image_convs *k = SIMD_PICK(image_convs);
    const struct tensor *x = bind_in(b, 0), *w = bind_in(b, 1), *bias = bind_in(b, 2), *y = bind_out(b, 0);
    const bool each = v->w.group == v->x.c && v->x.c == v->y.c && v->x.sc == 1;
    const bool thin = v->w.group == 1 && v->x.c <= THIN_CHANNELS && !x->nhwc;
    if (v->w.axes != 2 || x->type != TENSOR_F32 || w->type != TENSOR_F32 || y->type != TENSOR_F32 ||
        (bias && bias->type != TENSOR_F32) || v->y.sc != 1 || v->y.c < k->floats || (!each && !thin))
        return false;
    const int64_t columns = (CONV_PIXELS - 1) * v->w.stride[1] + (v->w.kernel[1] - 1) * v->w.dilation[1] + 1;
    if (columns * v->w.kernel[0] > CONV_PAD)
        return false;
    struct own_step *o = NEW(b->a, struct own_step);
    *o = (struct own_step){ .p = { *v, low, high }, .run = each ? k->each : k->thin };
    const size_t bytes = (size_t)w->n * sizeof(float);
    o->pad = (size_t)(columns * v->w.kernel[0] * (each ? k->floats : v->x.c));
    o->pad = (o->pad + 15) / 16 * 16;
    if (kept) {
        float *to = arena_alloc(b->a, bytes, 64);
        turn(v, w->p, to);
        o->kept = to;
    }
    b->step->scratch = o->pad * sizeof(float) + (kept ? 0 : bytes);
    b->step->state = o;
    b->step->run = run_own;
    return true;
}
