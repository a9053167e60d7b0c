// SPDX-License-Identifier: Apache-2.0
/* Trees as XGBoost wrote them (the `native` bytes of a version), run by a kernel of our own: no library, no allocation.
 * A processor loses most of its time in trees on branches that it guesses wrongly. Here a step has none: children lie
 * side by side, a comparison is the offset, a leaf steps onto itself, and eight trees are walked at a time so that their
 * loads overlap. Leaves are added in the order of trees: the same bits as trees_predict. Its signature is that of the
 * ONNX form (engine/trees.c). */
#include "train/runtime.h"
#include "train/xgb.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { AT_ONCE = 8, SURE_DEPTH = 12 /* measured in docs/why/trees-both-ways.md */ };

struct step {
    float value;      /* NaN in a leaf: no comparison is true */
    uint32_t feature; /* × 2, and 1 where a missing value goes to the first child */
    uint32_t first;   /* child, the second lies behind it; of a leaf, its own place − 1 */
    float leaf;
};
struct forest {
    const struct step *steps;
    const uint32_t *roots, *depths;
    size_t trees, features, outputs;
    float base;
    enum trees_link link;
};
struct trees_session {
    struct session base;
    struct arena *a;
    struct forest forest;
    struct tensor_spec in, out;
    struct strs labels;
    struct session_info info;
};

/* ---- the kernel ---- */

static inline uint32_t step_on(const struct step *steps, const float *x, uint32_t at)
{
    const struct step *s = &steps[at];
    float v = x[s->feature >> 1];
    uint32_t yes = (uint32_t)(v < s->value) | ((uint32_t)(v != v) & s->feature & 1);
    return s->first + 1 - yes;
}

/* n trees from t on, side by side: where x ends in each. */
static inline __attribute__((always_inline)) void walk(const struct forest *f, const float *x, size_t t,
                                                       size_t n, uint32_t *at)
{
    uint32_t depth = 0;
    for (size_t i = 0; i < n; i++) {
        at[i] = f->roots[t + i];
        depth = f->depths[t + i] > depth ? f->depths[t + i] : depth;
    }
    for (; depth > 0; depth--)
#pragma GCC unroll 8
        for (size_t i = 0; i < n; i++)
            at[i] = step_on(f->steps, x, at[i]);
}

static void score_one(const struct forest *f, const float *x, float *out)
{
    uint32_t at[AT_ONCE];
    float sum = f->base;
    size_t t = 0;
    for (; t + AT_ONCE <= f->trees; t += AT_ONCE) {
        walk(f, x, t, AT_ONCE, at);
        for (int i = 0; i < AT_ONCE; i++)
            sum += f->steps[at[i]].leaf;
    }
    for (; t < f->trees; t++) {
        walk(f, x, t, 1, at);
        sum += f->steps[*at].leaf;
    }
    *out = f->link == LINK_LOGISTIC ? 1.0f / (1.0f + expf(-sum)) : sum;
}

/* Trees take turns at a row's numbers. */
static void score_many(const struct forest *f, const float *x, float *out)
{
    uint32_t at[AT_ONCE];
    for (size_t i = 0; i < f->outputs; i++)
        out[i] = f->base;
    for (size_t t = 0, turn = 0, n; t < f->trees; t += n) {
        n = f->trees - t < AT_ONCE ? 1 : AT_ONCE;
        if (n == 1)
            walk(f, x, t, 1, at);
        else
            walk(f, x, t, AT_ONCE, at);
        for (size_t i = 0; i < n; i++, turn = turn + 1 < f->outputs ? turn + 1 : 0)
            out[turn] += f->steps[at[i]].leaf;
    }
    if (f->link == LINK_SOFTMAX)
        trees_softmax(out, f->outputs);
}

/* ---- trees → steps ---- */

/* Where each node of the trees went, and how deep it lies. */
struct place {
    uint32_t at, depth;
};

/* One tree, whose nodes are [from, to) and lie behind their parents. Returns its depth. */
static uint32_t tree_place(const struct trees *t, size_t from, size_t to, struct step *steps, uint32_t *used,
                           struct place *places)
{
    uint32_t deepest = 0;
    for (size_t i = from; i < to; i++) {
        const struct tree_node *n = &t->nodes[i];
        struct place p = places[i];
        struct step *s = &steps[p.at];
        if (n->feature < 0) {
            *s = (struct step){ .value = NAN, .first = p.at - 1, .leaf = n->value };
            deepest = p.depth > deepest ? p.depth : deepest;
            continue;
        }
        *s = (struct step){ n->value, (uint32_t)n->feature << 1 | n->missing_yes, *used, 0 };
        places[n->yes] = (struct place){ *used, p.depth + 1 };
        places[n->no] = (struct place){ *used + 1, p.depth + 1 };
        *used += 2;
    }
    return deepest;
}

static void forest_make(struct arena *a, const struct trees *t, struct forest *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct place *places = NEW_N(scratch, struct place, t->n_nodes);
    struct step *steps = NEW_N(a, struct step, t->n_nodes + 1);
    uint32_t *roots = NEW_N(a, uint32_t, t->n_trees + 1), *depths = NEW_N(a, uint32_t, t->n_trees + 1);
    uint32_t used = 1; /* place 0 is free, so that a leaf at 1 has one before it */
    for (size_t i = 0; i < t->n_trees; i++) {
        size_t from = t->roots[i], to = i + 1 < t->n_trees ? t->roots[i + 1] : t->n_nodes;
        roots[i] = places[from].at = used++;
        depths[i] = tree_place(t, from, to, steps, &used, places);
    }
    *out = (struct forest){ .steps = steps,
                            .roots = roots,
                            .depths = depths,
                            .trees = t->n_trees,
                            .features = t->features,
                            .outputs = trees_outputs(t),
                            .base = t->base,
                            .link = t->link };
}

static uint32_t forest_depth(const struct forest *f)
{
    uint32_t most = 0;
    for (size_t i = 0; i < f->trees; i++)
        most = f->depths[i] > most ? f->depths[i] : most;
    return most;
}

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

/* A run that may be stopped looks up every 256 rows. */
static err rows_score(const struct forest *f, const float *x, size_t n, float *out, const atomic_bool *stop)
{
    for (size_t i = 0; i < n; i++) {
        if (i % 256 == 255 && atomic_load_explicit(stop, memory_order_relaxed))
            FAIL(CANCELLED, "the run was stopped");
        (f->outputs > 1 ? score_many : score_one)(f, x + i * f->features, out + i * f->outputs);
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
