// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/cpu.h"
#include "engine/cpu/fuse.h"
#include "engine/cpu/group.h"
#include "engine/cpu/layout.h"
#include "engine/cpu/onednn.h"
#include "engine/cpu/simd.h"

static const struct cpu_kernel *const groups[] = { cpu_math,  cpu_shape,    cpu_matrix,
                                                   cpu_image, cpu_sequence, cpu_loss };

static const struct cpu_kernel *kernel_of(const struct op *op)
{
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (const struct cpu_kernel *k = groups[i]; k->bind; k++)
            if (k->op == op->id)
                return k;
    return NULL;
}

err cpu_no_kernel(const struct bind *b)
{
    struct tensor *t = bind_in(b, 0) ? bind_in(b, 0) : bind_out(b, 0);
    return err_new(UNSUPPORTED, "%s '%.*s' has no kernel for %.*s of rank %d here", b->step->op->name,
                   STR(b->step->name), STR(tensor_onnx_name(t ? t->type : TENSOR_NONE)), t ? t->rank : 0);
}

static err cpu_open(void)
{
    return NULL;
}

static err cpu_bind(struct bind *b)
{
    const struct cpu_kernel *k = kernel_of(b->step->op);
    return k ? k->bind(b) : cpu_no_kernel(b);
}

static unsigned cpu_in_place(const struct graph *g, const struct node *n)
{
    const struct cpu_kernel *k = kernel_of(n->op);
    unsigned may = k ? k->in_place : 0;
    for (int i = 0; i < n->n_in && i < 32; i++) /* another order of elements is no place for them */
        if (n->in[i] >= 0 && n->out[0] >= 0 && value_at(g, n->in[i])->nhwc != value_at(g, n->out[0])->nhwc)
            may &= ~(1u << i);
    return may;
}

/* Layouts come first: what is fused must lie alike. */
static err cpu_lower(struct graph *g, bool train)
{
    sequence_lower(g, train);
    TRY(cpu_layout(g, train));
    return fuse_elements(g);
}

static bool cpu_multiplies(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F64 || (t == TENSOR_BF16 && (simd_bf16_fast() || simd_tiles()));
}

/* Measured with AVX-512 in docs/why/small-networks-in-our-engine.md. */
static bool cpu_convolves(void)
{
    return simd_level() == SIMD_AVX512 && onednn_there();
}

static bool cpu_view(const struct op *op)
{
    const struct cpu_kernel *k = kernel_of(op);
    return k && k->view;
}

const struct device_ops device_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .alloc = pages_new,
    .free = pages_free,
    .lower = cpu_lower,
    .bind = cpu_bind,
    .multiplies = cpu_multiplies,
    .convolves = cpu_convolves,
    .view = cpu_view,
    .in_place = cpu_in_place,
};
