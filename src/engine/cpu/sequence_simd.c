// SPDX-License-Identifier: Apache-2.0
// Softmax, norms and what else works on rows of a sequence.
#include "engine/cpu/group.h"
#include "engine/cpu/rows.h"

/* A tensor as [outer, n, inner], n along the axis. */
struct axis {
    int64_t outer, n, inner;
    bool logs;
};

#define REAL float
#define N(name) name##_f32
#include "engine/cpu/softmax_rows.h"
#undef REAL
#undef N
#define REAL double
#define N(name) name##_f64
#include "engine/cpu/softmax_rows.h"
#undef REAL
#undef N

static bool is_float(const struct tensor *t)
{
    return t->type == TENSOR_F32 || t->type == TENSOR_F64 || t->type == TENSOR_BF16 || t->type == TENSOR_F16;
}

static err bind_softmax_any(struct bind *b, bool logs, bool grad)
{
    const struct tensor *x = bind_in(b, 0);
    struct axis *k = NEW(b->a, struct axis);
    int axis;
    if (!is_float(x))
        return cpu_no_kernel(b);
    TRY(attr_axis(b->n, "axis", -1, x->rank, &axis));
    *k = (struct axis){ 1, x->rank > 0 ? x->d[axis] : 1, 1, logs };
    for (int i = 0; i < x->rank; i++)
        *(i < axis ? &k->outer : i > axis ? &k->inner : &(int64_t){ 1 }) *= x->d[i];
    if (x->n == 0)
        k->outer = 0;
    b->step->state = k;
    b->step->scratch = 3 * (size_t)k->n * sizeof(double);
    if (grad)
        b->step->run = x->type == TENSOR_F64 ? softmax_grad_f64 : softmax_grad_f32;
    else
        b->step->run = x->type == TENSOR_F64 ? softmax_f64 : softmax_f32;
    return NULL;
}
static err bind_softmax(struct bind *b)
{
    return bind_softmax_any(b, false, false);
}
static err bind_log_softmax(struct bind *b)
{
    return bind_softmax_any(b, true, false);
}
static err bind_softmax_grad(struct bind *b)
{
    return bind_softmax_any(b, false, true);
}
static err bind_log_softmax_grad(struct bind *b)
{
    return bind_softmax_any(b, true, true);
}

#define K(op, fn, in_place) { OP_##op, fn, in_place },
const struct cpu_group SIMD(sequence_group) = { { SEQUENCE_KERNELS(K){ 0 } } };
#undef K
