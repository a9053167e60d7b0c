// SPDX-License-Identifier: Apache-2.0
#include "engine/params.h"
#include "engine/device.h"

#include <math.h>

/* What a device gave, returned when the arena ends. */
struct held {
    const struct device_ops *device;
    void *p;
    size_t n;
};

static void held_free(void *arg)
{
    struct held *h = arg;
    h->device->free(h->p, h->n);
}

void *device_block(struct arena *a, const struct device_ops *device, size_t bytes)
{
    struct held *h = NEW(a, struct held);
    *h = (struct held){ device, device->alloc(bytes), bytes };
    if (h->p)
        arena_defer(a, held_free, h);
    return h->p;
}

static err no_memory(size_t bytes)
{
    auto_arena struct arena *a = arena_new(0);
    return err_hint(err_new(TOO_LARGE, "the device has no %.*s left", STR(size_text(a, (int64_t)bytes))),
                    "use a smaller model, a smaller batch or a machine with more memory");
}

err device_floats(struct arena *a, const struct device_ops *device, size_t n, float **out)
{
    *out = device_block(a, device, n * sizeof **out);
    return *out ? NULL : no_memory(n * sizeof **out);
}

static size_t padded(size_t n)
{
    return (n + PARAM_ALIGN - 1) / PARAM_ALIGN * PARAM_ALIGN;
}

static err lay_out(struct arena *a, const struct graph *g, struct params *p)
{
    size_t n_values = 0, n_states = 0;
    for (size_t i = 0; i < g->values.n; i++) {
        n_values += g->values.v[i].kind == VALUE_PARAM;
        n_states += g->values.v[i].kind == VALUE_STATE;
    }
    p->v = NEW_N(a, struct param, n_values + 1);
    p->states = NEW_N(a, struct state_block, n_states + 1);
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = &g->values.v[i];
        if (v->kind != VALUE_PARAM && v->kind != VALUE_STATE)
            continue;
        int64_t count = shape_count(&v->shape);
        if (count < 0 || v->type != TENSOR_F32)
            FAIL(INVALID, "parameter '%.*s' is no float tensor of known size", STR(v->name));
        if (v->kind == VALUE_STATE) {
            struct state_block *s = &p->states[p->n_states++];
            *s = (struct state_block){
                .name = v->name, .value = (int)i, .shape = v->shape, .n = (size_t)count
            };
            TRY(device_floats(a, p->device, s->n, &s->p));
            continue;
        }
        struct param *q = &p->v[p->count++];
        *q = (struct param){
            .name = v->name, .value = (int)i, .shape = v->shape, .at = p->n, .n = (size_t)count, .rate = 1
        };
        q->decay = v->shape.rank >= 2;
        p->n += padded((size_t)count);
    }
    return NULL;
}

/* ---- first values ---- */

static double uniform(uint64_t *state)
{
    return (double)(splitmix(state) >> 11) * 0x1p-53;
}

static size_t fan_in(const struct shape *s)
{
    int64_t n = 1;
    if (s->rank == 2)
        return (size_t)s->d[0];
    for (int i = 1; i < s->rank; i++)
        n *= s->d[i];
    return (size_t)n;
}

/* He et al. 2015, uniform; each parameter has a stream of its own, so that another one beside it changes nothing. */
static void fill(float *w, const struct param *q, uint64_t seed)
{
    uint64_t state = seed ^ hash64(q->name);
    if (q->shape.rank >= 2 && q->n > 0) {
        double limit = sqrt(6.0 / (double)(fan_in(&q->shape) ? fan_in(&q->shape) : 1));
        for (size_t i = 0; i < q->n; i++)
            w[i] = (float)((2 * uniform(&state) - 1) * limit);
    } else
        for (size_t i = 0; i < q->n; i++)
            w[i] = str_ends(q->name, S("scale")) ? 1 : 0;
}

void params_init(struct params *p, uint64_t seed)
{
    for (size_t i = 0; i < p->count; i++)
        fill(p->w + p->v[i].at, &p->v[i], seed);
}

err params_new(struct arena *a, const struct device_ops *device, const struct graph *g, int ranks,
               uint64_t seed, struct params **out)
{
    struct params *p = NEW(a, struct params);
    *p = (struct params){ .device = device, .half_type = TENSOR_F32, .ranks = ranks < 1 ? 1 : ranks };
    TRY(device->open());
    TRY(lay_out(a, g, p));
    TRY(device_floats(a, device, p->n, &p->w));
    p->grads = NEW_N(a, float *, p->ranks);
    for (int i = 0; i < p->ranks; i++)
        TRY(device_floats(a, device, p->n, &p->grads[i]));
    for (size_t i = 0; i < p->count; i++) {
        const float *data = g->values.v[p->v[i].value].data;
        if (data)
            memcpy(p->w + p->v[i].at, data, p->v[i].n * sizeof *data);
        else
            fill(p->w + p->v[i].at, &p->v[i], seed);
    }
    for (size_t i = 0; i < p->n_states; i++) {
        struct state_block *s = &p->states[i];
        const float *data = g->values.v[s->value].data;
        for (size_t k = 0; k < s->n; k++)
            s->p[k] = data ? data[k] : str_ends(s->name, S("var")) ? 1 : 0;
    }
    *out = p;
    return NULL;
}

const void *const *params_data(const struct params *p, const struct graph *g, struct arena *a)
{
    const void **data = (const void **)NEW_N(a, void *, g->values.n + 1);
    for (size_t i = 0; i < p->count; i++)
        data[p->v[i].value] = p->w + p->v[i].at;
    for (size_t i = 0; i < p->n_states; i++)
        data[p->states[i].value] = p->states[i].p;
    return data;
}

/* ---- halves ---- */

static uint16_t bf16_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN stays one */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t f16_of(float f)
{
    uint32_t u, sign, exponent;
    memcpy(&u, &f, 4);
    sign = u >> 16 & 0x8000;
    u &= 0x7fffffff;
    if (u > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (u >= 0x477ff000)
        return (uint16_t)(sign | 0x7c00); /* rounds to infinity */
    exponent = u >> 23;
    if (exponent < 113) { /* below the least normal number */
        float tiny = 0.5f, v;
        memcpy(&v, &u, 4);
        v += tiny; /* rounds to a multiple of 2^-24, to even */
        memcpy(&u, &v, 4);
        return (uint16_t)(sign | (u - 0x3f000000));
    }
    u += 0xfff + (u >> 13 & 1) - (112u << 23);
    return (uint16_t)(sign | u >> 13);
}

err params_half(struct params *p, struct arena *a, enum tensor_type type)
{
    if (type == TENSOR_F32) {
        p->half = NULL;
        p->half_type = type;
        return NULL;
    }
    if (p->half_type != type || !p->half) {
        p->half = device_block(a, p->device, p->n * sizeof *p->half);
        if (!p->half)
            return no_memory(p->n * sizeof *p->half);
        p->half_type = type;
    }
    params_refresh(p);
    return NULL;
}

void params_half_range(const float *w, uint16_t *half, enum tensor_type type, size_t from, size_t to)
{
    for (size_t i = from; half && i < to; i++)
        half[i] = type == TENSOR_BF16 ? bf16_of(w[i]) : f16_of(w[i]);
}

void params_refresh(struct params *p)
{
    params_half_range(p->w, p->half, p->half_type, 0, p->n);
}
