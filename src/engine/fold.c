// SPDX-License-Identifier: Apache-2.0
#include "engine/fold.h"
#include "engine/device.h"

static struct tensor *const_tensor(struct arena *a, const struct value *v, void *p)
{
    struct tensor *t = NEW(a, struct tensor);
    *t = (struct tensor){ .p = p, .type = v->type, .rank = v->shape.rank, .n = shape_count(&v->shape) };
    memcpy(t->d, v->shape.d, sizeof t->d);
    return t;
}

/* All inputs are constants; outputs have sizes and element sizes, and there are few elements. */
static bool foldable(const struct graph *g, const struct node *n)
{
    if (n->n_in == 0 || n->op->split == SPLIT_TEAM || n->op->id == OP_COUNT)
        return false;
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0 && (value_at(g, n->in[i])->kind != VALUE_CONST || !value_at(g, n->in[i])->data))
            return false;
    int64_t bytes = 0;
    for (int i = 0; i < n->n_out; i++) {
        const struct value *v = n->out[i] >= 0 ? value_at(g, n->out[i]) : NULL;
        int64_t count = v ? shape_count(&v->shape) : 0;
        if (v &&
            (v->kind == VALUE_CONST || count < 0 || count > FOLD_ELEMENTS_MAX || tensor_size(v->type) == 0))
            return false;
        bytes += v ? count * (int64_t)tensor_size(v->type) : 0;
    }
    return bytes <= FOLD_BYTES_MAX - g->folded;
}

err fold_node(struct graph *g, int at)
{
    const struct node *n = &g->nodes.v[at];
    if (!foldable(g, n))
        return NULL;
    auto_arena struct arena *a = arena_new(0);
    struct step step = { .op = n->op, .name = n->name, .n_in = n->n_in, .n_out = n->n_out };
    step.in = NEW_N(a, struct tensor *, n->n_in + 1);
    step.out = NEW_N(a, struct tensor *, n->n_out + 1);
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] >= 0)
            step.in[i] = const_tensor(a, value_at(g, n->in[i]), (void *)value_at(g, n->in[i])->data);
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] >= 0) {
            const struct value *v = value_at(g, n->out[i]);
            size_t bytes = arena_mul((size_t)shape_count(&v->shape), tensor_size(v->type));
            step.out[i] = const_tensor(a, v, arena_alloc(g->a, bytes ? bytes : 1, 64));
            g->folded += (int64_t)bytes;
        }
    struct bind bind = { .a = a, .g = g, .n = n, .step = &step };
    if (device_cpu.open() || device_cpu.bind(&bind))
        return NULL; /* no kernel for it: it stays a node, and planning says so if it is still there */
    struct rank rank = { .size = 1 };
    rank.scratch = step.scratch ? arena_alloc(a, step.scratch, 64) : NULL;
    step.run(&step, &rank);
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i] >= 0) {
            struct value *v = value_at(g, n->out[i]);
            v->kind = VALUE_CONST;
            v->data = step.out[i]->p;
        }
    return NULL;
}
