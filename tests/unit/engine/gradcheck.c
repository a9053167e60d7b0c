// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_gradcheck
#include "gradcheck.h"
#include "engine/cpu/simd.h"
#include "test.h"
#include <math.h>

/* ---- numbers of any type ---- */

static float bf16_get(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint16_t bf16_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

double tensor_get(const struct tensor *t, int64_t i)
{
    switch (t->type) {
    case TENSOR_F32:
        return ((const float *)t->p)[i];
    case TENSOR_F64:
        return ((const double *)t->p)[i];
    case TENSOR_BF16:
        return bf16_get(((const uint16_t *)t->p)[i]);
    case TENSOR_I64:
        return (double)((const int64_t *)t->p)[i];
    case TENSOR_I32:
        return ((const int32_t *)t->p)[i];
    case TENSOR_BOOL:
    case TENSOR_U8:
        return ((const uint8_t *)t->p)[i];
    case TENSOR_I8:
        return ((const int8_t *)t->p)[i];
    default:
        TEST_FAIL_("tensor_get: type %d", t->type);
        return 0;
    }
}

void tensor_set(struct tensor *t, int64_t i, double v)
{
    switch (t->type) {
    case TENSOR_F32:
        ((float *)t->p)[i] = (float)v;
        break;
    case TENSOR_F64:
        ((double *)t->p)[i] = v;
        break;
    case TENSOR_BF16:
        ((uint16_t *)t->p)[i] = bf16_of((float)v);
        break;
    case TENSOR_I64:
        ((int64_t *)t->p)[i] = (int64_t)v;
        break;
    case TENSOR_I32:
        ((int32_t *)t->p)[i] = (int32_t)v;
        break;
    case TENSOR_BOOL:
    case TENSOR_U8:
        ((uint8_t *)t->p)[i] = (uint8_t)v;
        break;
    case TENSOR_I8:
        ((int8_t *)t->p)[i] = (int8_t)v;
        break;
    default:
        TEST_FAIL_("tensor_set: type %d", t->type);
    }
}

/* ---- running a graph ---- */

err graph_eval_new(struct arena *a, struct graph *g, struct graph_eval *out)
{
    TRY(device_cpu.open());
    struct graph_eval e = { .g = g, .a = a, .rank = { .size = 1, .seed = 7, .draw = 3 } };
    e.t = NEW_N(a, struct tensor, g->values.n + 1);
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = value_at(g, (int)i);
        int64_t n = shape_count(&v->shape);
        if (n < 0)
            continue; /* a value that no node makes any more */
        e.t[i] = (struct tensor){ .type = v->type, .rank = v->shape.rank, .n = n, .nhwc = v->nhwc };
        memcpy(e.t[i].d, v->shape.d, sizeof e.t[i].d);
        e.t[i].p = arena_alloc(a, (size_t)n * tensor_size(v->type) + 64, 64);
        if (v->data)
            memcpy(e.t[i].p, v->data, (size_t)n * tensor_size(v->type));
    }
    e.steps = NEW_N(a, struct step, g->nodes.n + 1);
    size_t scratch = 64;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        struct step *s = &e.steps[i];
        *s = (struct step){ .op = n->op, .name = n->name, .n_in = n->n_in, .n_out = n->n_out };
        s->in = NEW_N(a, struct tensor *, n->n_in + 1);
        s->out = NEW_N(a, struct tensor *, n->n_out + 1);
        for (int k = 0; k < n->n_in; k++)
            s->in[k] = n->in[k] < 0 ? NULL : &e.t[n->in[k]];
        for (int k = 0; k < n->n_out; k++)
            s->out[k] = n->out[k] < 0 ? NULL : &e.t[n->out[k]];
        TRY(device_cpu.bind(&(struct bind){ .a = a, .g = g, .n = n, .step = s }));
        scratch = s->scratch > scratch ? s->scratch : scratch;
    }
    e.n = g->nodes.n;
    e.rank.scratch = arena_alloc(a, scratch, 64);
    *out = e;
    return NULL;
}

void graph_eval_run(struct graph_eval *e, size_t n)
{
    for (size_t i = 0; i < n; i++)
        e->steps[i].run(&e->steps[i], &e->rank);
}

/* ---- one op ---- */

struct check {
    const struct gradcheck *row;
    int at;
    const char *file, *what;
};
#define WRONG(c, ...)                                                                                   \
    do {                                                                                                \
        char text_[256];                                                                                \
        snprintf(text_, sizeof text_, __VA_ARGS__);                                                     \
        TEST_FAIL_("%s row %d, %s, %s: %s", (c)->file, (c)->at, op_table[(c)->row->op].name, (c)->what, \
                   text_);                                                                              \
    } while (0)

struct case_ {
    struct graph *g;
    int in[GRADCHECK_INPUTS], out[GRADCHECK_INPUTS], dx[GRADCHECK_INPUTS];
    int n_in, n_out, loss, seed;
    size_t forward; /* nodes up to the loss */
    struct graph_eval e;
};

static int inputs_of(const struct gradcheck *r)
{
    return r->n_in > 0 ? r->n_in : 1;
}

static bool floating(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || t == TENSOR_BF16;
}

static bool wants_grad(const struct gradcheck *r, int i)
{
    const struct gradcheck_in *in = &r->in[i];
    return !r->forward && !in->absent && !in->fixed && !in->constant &&
           (in->type == TENSOR_NONE || floating(in->type));
}

/* The same numbers whatever the type, exact in BF16. */
static double number(const struct gradcheck_in *in, uint64_t *random, int64_t i)
{
    if (in->values)
        return in->values[i];
    bool whole = in->type != TENSOR_NONE && !floating(in->type);
    double low = in->low, high = in->high;
    if (low == 0 && high == 0) {
        low = whole ? 0 : -2;
        high = in->type == TENSOR_BOOL ? 2 : whole ? 4 : 2;
    }
    for (;;) {
        double u = (double)(splitmix(random) >> 11) * 0x1p-53, v = low + u * (high - low);
        if (whole)
            return floor(v);
        v = bf16_get(bf16_of((float)v));
        if (fabs(v) >= in->apart && v >= low && v <= high)
            return v;
    }
}

static const void *constant(struct arena *a, const struct gradcheck_in *in, enum tensor_type t,
                            uint64_t *random, int64_t n)
{
    struct tensor c = { .type = t, .p = arena_alloc(a, (size_t)n * tensor_size(t) + 1, 64) };
    for (int64_t i = 0; i < n; i++)
        tensor_set(&c, i, number(in, random, i));
    return c.p;
}

static void loss_of(struct case_ *c, struct arena *a, enum tensor_type type)
{
    uint64_t random = 5;
    c->loss = -1;
    for (int i = 0; i < c->n_out; i++) {
        const struct value *y = value_at(c->g, c->out[i]);
        if (y->type != type)
            continue;
        struct shape s = y->shape;
        int64_t n = shape_count(&s);
        struct gradcheck_in like = { .low = -1, .high = 1 };
        int w = graph_const(c->g, type, s, constant(a, &like, type, &random, n));
        int sum = graph_node_with(c->g, OP_ReduceSum, ATTRS({ "keepdims", ATTR_INT, .i = 0 }),
                                  graph_node(c->g, OP_Mul, c->out[i], w));
        c->loss = c->loss < 0 ? sum : graph_node(c->g, OP_Add, c->loss, sum);
    }
}

static err case_new(struct arena *a, const struct check *check, enum tensor_type type, bool lower,
                    struct case_ *out)
{
    const struct gradcheck *r = check->row;
    struct case_ c = { .g = graph_new(a), .n_in = inputs_of(r), .n_out = r->n_out > 0 ? r->n_out : 1 };
    int wrt[GRADCHECK_INPUTS], grads[GRADCHECK_INPUTS], n_wrt = 0;
    for (int i = 0; i < c.n_in; i++) {
        const struct gradcheck_in *in = &r->in[i];
        enum tensor_type t = in->type == TENSOR_NONE ? type : in->type;
        uint64_t random = 100 + (uint64_t)i;
        c.in[i] = in->absent ? -1
                  : in->constant
                      ? graph_const(c.g, t, in->shape, constant(a, in, t, &random, shape_count(&in->shape)))
                      : graph_input(c.g, fmtz(a, "x%d", i), t, in->shape);
        if (wants_grad(r, i))
            wrt[n_wrt++] = c.in[i];
    }
    int first = graph_add(c.g, &op_table[r->op], c.in, c.n_in, c.n_out, r->attrs);
    TRY(graph_error(c.g));
    for (int i = 0; i < c.n_out; i++) {
        c.out[i] = first + i;
        graph_output(c.g, first + i, (struct str){ 0 });
    }
    loss_of(&c, a, type);
    TRY(graph_error(c.g));
    c.forward = c.g->nodes.n;
    c.seed = -1;
    if (n_wrt > 0 && c.loss >= 0)
        TRY(grad_build(c.g, c.loss, wrt, (size_t)n_wrt, grads, &c.seed));
    for (int i = 0, k = 0; i < c.n_in; i++) {
        c.dx[i] = wants_grad(r, i) && c.loss >= 0 ? grads[k++] : -1;
        if (c.dx[i] >= 0)
            graph_output(c.g, c.dx[i], (struct str){ 0 });
    }
    if (lower && device_cpu.lower)
        TRY(device_cpu.lower(c.g, true));
    TRY(graph_eval_new(a, c.g, &c.e));
    if (c.seed >= 0)
        tensor_set(&c.e.t[c.seed], 0, 1);
    for (int i = 0; i < c.n_in; i++) {
        uint64_t random = 100 + (uint64_t)i;
        if (c.in[i] >= 0 && !r->in[i].constant)
            for (int64_t k = 0; k < c.e.t[c.in[i]].n; k++)
                tensor_set(&c.e.t[c.in[i]], k, number(&r->in[i], &random, k));
    }
    *out = c;
    return NULL;
}

static double loss_at(struct case_ *c, struct tensor *x, int64_t i, double v)
{
    double was = tensor_get(x, i);
    tensor_set(x, i, v);
    graph_eval_run(&c->e, c->forward);
    tensor_set(x, i, was);
    return tensor_get(&c->e.t[c->loss], 0);
}

/* Five points: the error is about h⁴ times the fifth derivative. */
static double difference(struct case_ *c, struct tensor *x, int64_t i)
{
    const double h = 1e-3, v = tensor_get(x, i);
    return (8 * (loss_at(c, x, i, v + h) - loss_at(c, x, i, v - h)) -
            (loss_at(c, x, i, v + 2 * h) - loss_at(c, x, i, v - 2 * h))) /
           (12 * h);
}

static void against_differences(struct check *k, struct case_ *c)
{
    double tolerance = k->row->tolerance > 0 ? k->row->tolerance : 1e-6;
    graph_eval_run(&c->e, c->e.n);
    for (int i = 0; i < c->n_in; i++) {
        if (!wants_grad(k->row, i) || c->loss < 0)
            continue;
        struct tensor *x = &c->e.t[c->in[i]];
        int64_t stride = x->n / 100 + 1;
        for (int64_t e = 0; e < x->n; e += stride) {
            double got = c->dx[i] < 0 ? 0 : tensor_get(&c->e.t[c->dx[i]], e), want = difference(c, x, e);
            if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
                WRONG(k, "gradient of input %d at %lld (x = %g): %.9g, by differences %.9g", i, (long long)e,
                      tensor_get(x, e), got, want);
        }
    }
}

/* Errors are held against the number and the tensor's mean size; a gradient may be a sum of what cancels out, so it gets ten
 * times the tolerance. */
static void compare(struct check *k, const char *what, int at, const struct tensor *got,
                    const struct tensor *want, double tolerance)
{
    double size = 0;
    if (got->n != want->n)
        WRONG(k, "%s %d: %lld numbers, not %lld", what, at, (long long)got->n, (long long)want->n);
    for (int64_t i = 0; i < want->n; i++)
        size += isfinite(tensor_get(want, i)) ? fabs(tensor_get(want, i)) / (double)want->n : 0;
    for (int64_t i = 0; i < want->n; i++) {
        double g = tensor_get(got, i), w = tensor_get(want, i);
        bool same = g == w || (isnan(g) && isnan(w));
        if (!same && !(fabs(g - w) <= tolerance * (fabs(w) + size)))
            WRONG(k, "%s %d at %lld: %.9g, in double %.9g", what, at, (long long)i, g, w);
    }
}

static void against_double(struct check *k, struct case_ *exact, enum tensor_type type, bool lower,
                           double tolerance)
{
    auto_arena struct arena *a = arena_new(0);
    struct case_ c;
    err e = case_new(a, k, type, lower, &c);
    if (e && e->code == UNSUPPORTED && type == TENSOR_BF16)
        return;
    if (e)
        WRONG(k, "%.*s", STR(e->text));
    graph_eval_run(&c.e, c.e.n);
    for (int i = 0; i < c.n_out && !k->row->unseen; i++)
        compare(k, "output", i, &c.e.t[c.out[i]], &exact->e.t[exact->out[i]], tolerance);
    for (int i = 0; i < c.n_in && !k->row->unseen; i++)
        if (c.dx[i] >= 0)
            compare(k, "gradient of input", i, &c.e.t[c.dx[i]], &exact->e.t[exact->dx[i]],
                    fmax(10 * tolerance, 1e-5));
}

void gradcheck(const struct gradcheck *r, int row, const char *file)
{
    auto_arena struct arena *a = arena_new(0);
    struct check k = { r, row, file, "F64" };
    struct case_ exact;
    err e = case_new(a, &k, TENSOR_F64, false, &exact);
    if (e)
        WRONG(&k, "%.*s", STR(e->text));
    against_differences(&k, &exact);
    graph_eval_run(&exact.e, exact.e.n);
    double f32 = r->f32 > 0 ? r->f32 : op_table[r->op].tolerance, bf16 = r->bf16 > 0 ? r->bf16 : 0.03;
    enum simd best = simd_level();
    for (int level = SIMD_PORTABLE; level <= (int)best; level++) {
        static const char *const f32_names[] = { "F32 portable", "F32 AVX2", "F32 AVX-512" },
                                 *const bf16_names[] = { "BF16 portable", "BF16 AVX2", "BF16 AVX-512" };
        simd_limit(level);
        for (int lower = 0; lower < 2; lower++) {
            k.what = f32_names[level];
            against_double(&k, &exact, TENSOR_F32, lower, f32);
            k.what = bf16_names[level];
            against_double(&k, &exact, TENSOR_BF16, lower, bf16);
        }
    }
    simd_limit(best);
}
