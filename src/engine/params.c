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

bool device_multiplies(const struct device_ops *device, enum tensor_type t)
{
    return device->multiplies(t);
}

bool device_convolves(const struct device_ops *device)
{
    return device->convolves();
}

struct str size_about(struct arena *a, int64_t bytes)
{
    enum { LEAST = 100 /* of the unit: so is the error below a hundredth */ };
    int64_t unit = 1;
    while (unit < 1LL << 40 && bytes / unit / 1024 >= LEAST)
        unit *= 1024;
    return size_text(a, (bytes / unit + (bytes % unit != 0)) * unit);
}

static err no_memory(size_t bytes)
{
    auto_arena struct arena *a = arena_new(0);
    return err_hint(err_new(TOO_LARGE, "the device has no %.*s left", STR(size_about(a, (int64_t)bytes))),
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

/* ---- too many ---- */

static err too_large(const struct graph *g, const char *limit)
{
    auto_arena struct arena *a = arena_new(0);
    const struct value *largest = NULL;
    double all = 0, most = -1;
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = value_at(g, (int)i);
        double n = v->kind == VALUE_PARAM ? (double)shape_count(&v->shape) * sizeof(float) : -1;
        all += n > 0 ? n : 0;
        if (n > most)
            most = n, largest = v;
    }
    return err_hint(err_new(TOO_LARGE, "the parameters take %.*s, and %s; the largest is '%.*s' %.*s: %.*s",
                            STR(size_about(a, (int64_t)all)), limit, STR(largest ? largest->name : S("")),
                            STR(largest ? shape_text(g, a, &largest->shape) : S("")),
                            STR(size_about(a, (int64_t)most))),
                    "use a smaller model or a machine with more memory");
}

err params_check(const struct graph *g, int64_t bytes_max)
{
    auto_arena struct arena *a = arena_new(0);
    int64_t all = 0;
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = value_at(g, (int)i);
        int64_t bytes;
        if (v->kind != VALUE_PARAM)
            continue;
        if (__builtin_mul_overflow(shape_count(&v->shape), (int64_t)sizeof(float), &bytes) ||
            __builtin_add_overflow(all, bytes, &all))
            all = INT64_MAX;
        if (all > bytes_max)
            return too_large(g, fmtz(a, "the budget is %.*s", STR(size_text(a, bytes_max))));
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

/* By Box and Muller. */
static void fill_normal(float *w, size_t n, uint64_t state, double spread)
{
    for (size_t i = 0; i < n; i += 2) {
        double r = spread * sqrt(-2 * log(uniform(&state) + 0x1p-54)),
               angle = 2 * M_PI * (uniform(&state) + 0x1p-54);
        w[i] = (float)(r * cos(angle));
        if (i + 1 < n)
            w[i + 1] = (float)(r * sin(angle));
    }
}

/* He et al. 2015. */
static void fill_uniform(float *w, const struct param *q, uint64_t state)
{
    double limit = sqrt(6.0 / (double)(fan_in(&q->shape) ? fan_in(&q->shape) : 1));
    for (size_t i = 0; i < q->n; i++)
        w[i] = (float)((2 * uniform(&state) - 1) * limit);
}

static void fill(float *w, const struct param *q, double spread, uint64_t seed)
{
    if (spread > 0)
        fill_normal(w, q->n, seed * 0x9e3779b97f4a7c15u ^ hash64(q->name), spread);
    else if (spread == 0 && q->shape.rank >= 2)
        fill_uniform(w, q, seed ^ hash64(q->name));
    else
        for (size_t i = 0; i < q->n; i++)
            w[i] = spread == 0 && str_ends(q->name, S("scale")) ? 1 : 0;
}

static void learning_end(void *arg)
{
    params_learned(arg);
}

void params_learned(struct params *p)
{
    arena_free(p->learning);
    p->learning = NULL;
}

err params_new(struct arena *a, const struct device_ops *device, const struct graph *g, int ranks,
               uint64_t seed, struct params **out)
{
    struct params *p = NEW(a, struct params);
    *p = (struct params){ .device = device, .half_type = TENSOR_F32, .ranks = ranks < 1 ? 1 : ranks };
    TRY(device->open());
    TRY(lay_out(a, g, p));
    p->learning = arena_new(0);
    arena_defer(a, learning_end, p);
    p->grads = NEW_N(a, float *, p->ranks);
    bool room = !device_floats(a, device, p->n, &p->w);
    for (int i = 0; i < p->ranks && room; i++)
        room = !device_floats(p->learning, device, p->n, &p->grads[i]);
    if (!room)
        return too_large(g, "there is no memory left for them and their gradients");
    for (size_t i = 0; i < p->count; i++) {
        const struct value *v = value_at(g, p->v[i].value);
        if (v->data)
            memcpy(p->w + p->v[i].at, v->data, p->v[i].n * sizeof *p->w);
        else
            fill(p->w + p->v[i].at, &p->v[i], v->spread, seed);
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
