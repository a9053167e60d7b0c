// SPDX-License-Identifier: Apache-2.0
/* Trees as XGBoost wrote them (the `native` bytes of a version), run by a kernel of our own: no library, no allocation. Its
 * signature is that of the ONNX form (engine/trees.c). */
#include "train/runtime.h"
#include "train/xgb.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { SURE_DEPTH = 12 /* measured in docs/why/trees-both-ways.md */, ROWS_AT_ONCE = 256 };

struct trees_session {
    struct session base;
    struct arena *a;
    struct forest forest;
    struct tensor_spec in, out;
    struct strs labels;
    struct session_info info;
};

static err trees_open(const struct runtime_config *config, struct runtime **out)
{
    (void)config;
    return runtime_own_open(&runtime_trees, out);
}

/* ---- loading ---- */

static void trees_unload(struct session *session)
{
    struct trees_session *s = (struct trees_session *)session;
    arena_free(s->a);
    free(s);
    heap_trim();
}

static struct tensor_spec matrix(struct str name, size_t columns)
{
    struct tensor_spec spec = { .name = name, .type = TENSOR_F32, .shaped = true, .rank = 2 };
    spec.dims[0] = -1;
    spec.dims[1] = (int64_t)columns;
    spec.symbols[0] = S("N");
    return spec;
}

static err forest_read(struct trees_session *s, struct str bytes)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct trees t;
    TRY(xgb_trees(scratch, bytes, &t));
    forest_make(s->a, &t, &s->forest);
    s->in = matrix(S("features"), t.features);
    s->out = matrix(trees_output_name(&t), trees_outputs(&t));
    s->info = (struct session_info){ .inputs = &s->in,
                                     .outputs = &s->out,
                                     .n_inputs = 1,
                                     .n_outputs = 1,
                                     .labels = &s->labels,
                                     .device = "cpu",
                                     .why = "" };
    return NULL;
}

static err trees_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                      struct session **out)
{
    (void)rt;
    TRY(runtime_own_device(config));
    struct trees_session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.ops = &runtime_trees;
    s->a = arena_new(0);
    err e = forest_read(s, bytes);
    if (!e && config && config->sure && forest_depth(&s->forest) > SURE_DEPTH)
        e = err_new(UNSUPPORTED, "ONNX Runtime may be faster for trees that are %u deep",
                    forest_depth(&s->forest));
    if (e)
        trees_unload(&s->base);
    else
        *out = &s->base;
    return e;
}

static const struct session_info *trees_describe(struct session *s)
{
    return &((struct trees_session *)s)->info;
}

/* ---- running ---- */

static err matrix_check(const struct tensor *t, const struct tensor_spec *spec)
{
    int64_t n;
    if (t->slot != 0 || t->type != TENSOR_F32 || t->rank != 2 || t->dims[1] != spec->dims[1])
        FAIL(INVALID, "tensor '%.*s' is float [N, %lld]", STR(spec->name), (long long)spec->dims[1]);
    if (!tensor_count(t->dims, t->rank, INT64_MAX / 16, &n) || t->bytes != (size_t)n * sizeof(float) ||
        (n && (!t->data || (uintptr_t)t->data % sizeof(float))))
        FAIL(INVALID, "tensor '%.*s': its shape does not fit its %zu bytes", STR(spec->name), t->bytes);
    return NULL;
}

static err output_place(const struct trees_session *s, struct arena *a, int64_t rows, struct tensor *out)
{
    if (out->data) {
        TRY(matrix_check(out, &s->out));
        if (out->dims[0] != rows)
            FAIL(INVALID, "output '%.*s' has memory for %lld rows, not %lld", STR(s->out.name),
                 (long long)out->dims[0], (long long)rows);
        return NULL;
    }
    size_t bytes = (size_t)rows * s->forest.outputs * sizeof(float);
    if (out->slot != 0 || !a)
        FAIL(INVALID, "output %zu has no memory", out->slot);
    if (bytes > arena_left(a))
        FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", bytes);
    *out = (struct tensor){ .type = TENSOR_F32, .rank = 2, .dims = { rows, s->out.dims[1] }, .bytes = bytes };
    out->data = arena_alloc(a, bytes, 64);
    return NULL;
}

/* A run that may be stopped looks up every so many rows. */
static err rows_score(const struct forest *f, const float *x, size_t n, float *out, const atomic_bool *stop)
{
    for (size_t i = 0; i < n; i += ROWS_AT_ONCE) {
        if (i && atomic_load_explicit(stop, memory_order_relaxed))
            FAIL(CANCELLED, "the run was stopped");
        size_t now = n - i < ROWS_AT_ONCE ? n - i : ROWS_AT_ONCE;
        forest_predict(f, x + i * f->features, now, out + i * f->outputs);
    }
    return NULL;
}

static err trees_run(struct session *session, struct run_control *control, struct arena *a,
                     const struct tensor *in, size_t n_in, struct tensor *out, size_t n_out)
{
    struct trees_session *s = (struct trees_session *)session;
    atomic_bool stop = false;
    if (n_in != 1 || n_out != 1)
        FAIL(INVALID, "the model has one input and one output; %zu and %zu are given", n_in, n_out);
    TRY(matrix_check(in, &s->in));
    TRY(output_place(s, a, in->dims[0], out));
    TRY(run_control_enter(control, run_stop_flag, &stop));
    return run_control_leave(control,
                             rows_score(&s->forest, in->data, (size_t)in->dims[0], out->data, &stop));
}

const struct runtime_ops runtime_trees = {
    .name = "trees",
    .format = "xgboost",
    .open = trees_open,
    .version = runtime_own_version,
    .devices = runtime_own_devices,
    .load = trees_load,
    .describe = trees_describe,
    .run = trees_run,
    .unload = trees_unload,
    .close = runtime_own_close,
};
