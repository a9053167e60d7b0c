// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/elements.h"
#include "engine/cpu/reduce.h"

static bool has_all(const struct elements *e, const struct element_table *t)
{
    for (int i = 0; i < e->n; i++)
        if (!t->fn[e->v[i].f])
            return false;
    return true;
}

/* BroadcastTo puts sizes of 1 where a reduction took axes away. */
static struct shape spread_view(const struct bind *b)
{
    const struct attr *axes = attr_find(b->n, "axes");
    const struct tensor *x = bind_in(b, 0), *y = bind_out(b, 0);
    struct shape s = { .rank = -1 };
    if (b->n->op->id != OP_BroadcastTo || !axes || axes->n == 0 || x->rank + (int)axes->n != y->rank)
        return s;
    s.rank = y->rank;
    for (int i = 0, from = 0; i < y->rank; i++) {
        bool gone = false;
        for (size_t k = 0; k < axes->n; k++)
            gone |= axes->is[k] == i;
        s.d[i] = gone || from >= x->rank ? 1 : x->d[from++];
    }
    return s;
}

/* One node is a program of one instruction, or of a few. */
static err bind_elements(struct bind *b)
{
    struct elements e = { .n_in = b->step->n_in, .n_out = 1 };
    int16_t in[ELEMENTS_INPUTS], y;
    if (e.n_in > ELEMENTS_INPUTS)
        return cpu_no_kernel(b);
    for (int i = 0; i < e.n_in; i++) {
        in[i] = (int16_t)i;
        e.view[i].rank = -1;
    }
    if (!bind_out(b, 0) || !elements_add(&e, b->g, b->n, in, &y))
        return cpu_no_kernel(b);
    e.out[0] = -1 - y;
    if (e.n_in > 0)
        e.view[0] = spread_view(b);
    const struct element_table *t = elements_domain(b);
    const struct tensor *first = bind_in(b, 0);
    bool whole_base = b->n->op->id == OP_Pow && first->type != TENSOR_F32 && first->type != TENSOR_BF16 &&
                      first->type != TENSOR_F16;
    if (!has_all(&e, t) || (whole_base && t != &elements_i64))
        t = &elements_f64;
    return elements_bind(b, &e, t);
}

static err bind_fused(struct bind *b)
{
    struct elements e;
    TRY(elements_read(b->n, &e));
    return elements_bind(b, &e, SIMD_PICK(elements_f32));
}

#define O(name, ...) { OP_##name, bind_elements, .in_place = ~0u },
#define REDUCE(name)           \
    {                          \
        OP_##name, reduce_bind \
    }
const struct cpu_kernel cpu_math[] = {
    OPS_UNARY(O) OPS_BINARY(O) OPS_BACKWARD(O){ OP_BroadcastTo, bind_elements, .in_place = 1 },
    { OP_Fused, bind_fused, .in_place = ~0u },
    REDUCE(ReduceSum),
    REDUCE(ReduceMean),
    REDUCE(ReduceMax),
    REDUCE(ReduceMin),
    REDUCE(ReduceProd),
    REDUCE(ReduceL1),
    REDUCE(ReduceL2),
    REDUCE(ReduceSumSquare),
    REDUCE(ReduceLogSum),
    REDUCE(ReduceLogSumExp),
    REDUCE(SumTo),
    { OP_ArgMax, arg_bind },
    { OP_ArgMin, arg_bind },
    { OP_CumSum, cumsum_bind },
    { 0 },
};
