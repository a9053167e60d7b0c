/* fuzz/graph_read: foreign models as graphs. What is read must hold together, must come out as it went in when it is written
 * and read again, and must not run wild when it is bound. */
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void id_check(const struct graph *g, int id)
{
    if (id < -1 || id >= (int)g->values.n)
        abort();
}

static void graph_check(const struct graph *g)
{
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = &g->values.v[i];
        if (v->shape.rank > TENSOR_RANK_MAX || v->node >= (int)g->nodes.n)
            abort();
        for (int k = 0; k < v->shape.rank; k++)
            if (v->shape.d[k] < -(int64_t)g->symbols.n)
                abort();
        if (v->kind >= VALUE_PARAM && (shape_count(&v->shape) < 0 || !v->data))
            abort();
    }
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *node = &g->nodes.v[i];
        for (int k = 0; k < node->n_in; k++) {
            id_check(g, node->in[k]);
            if (node->in[k] >= 0 && value_at(g, node->in[k])->node >= (int)i)
                abort(); /* out of order */
        }
        for (int k = 0; k < node->n_out; k++)
            id_check(g, node->out[k]);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const struct onnx_limits limits = {
        .nodes_max = 100, .tensors_max = 100, .values_max = 20, .elements_max = 1 << 20, .texts = true
    };
    auto_arena struct arena *a = arena_new(0);
    struct graph *g, *again, *bound;
    struct str written;
    int64_t sizes[64];
    for (size_t i = 0; i < 64; i++)
        sizes[i] = 3;
    if (!graph_read(a, (struct str){ (const char *)bytes, n }, &limits, &g)) {
        graph_check(g);
        if (!graph_bind(g, a, sizes, &bound))
            graph_check(bound);
        if (!graph_write(g, a, NULL, &written)) {
            if (graph_read(a, written, &(struct onnx_limits){ .texts = true }, &again) ||
                again->outputs.n != g->outputs.n)
                abort();
            graph_check(again);
        }
    }
    err_reset();
    return 0;
}
