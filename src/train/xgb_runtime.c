// SPDX-License-Identifier: Apache-2.0
/* XGBoost's own trees behind the table of runtimes: the JSON that training keeps beside a version's ONNX. Its signature
 * is that of the ONNX form (engine/trees.c). Foreign bytes pass our own reader before XGBoost sees them. */
#include "train/runtime.h"
#include "train/xgb.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

struct xgb_runtime {
    struct runtime base;
    struct arena *a;
    struct xgb *xgb;
    const char *version;
};
struct xgb_session {
    struct session base;
    struct arena *a; /* the model, too */
    struct xgb_model *model;
    size_t features;
    struct tensor_spec in, out;
    struct strs labels;
    struct session_info info;
};

static void close_(struct runtime *rt)
{
    struct xgb_runtime *r = (struct xgb_runtime *)rt;
    if (!r)
        return;
    arena_free(r->a);
    free(r);
}

static err open_(const struct runtime_config *config, struct runtime **out)
{
    struct xgb_runtime *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->base.ops = &runtime_xgb;
    r->a = arena_new(0);
    err e = config && config->library
                ? err_new(UNSUPPORTED, "XGBoost's library is named by its environment variable")
                : xgb_open(r->a, &r->xgb);
    if (e) {
        close_(&r->base);
        return e;
    }
    r->version = str_z(r->a, xgb_version_text(r->xgb, r->a));
    *out = &r->base;
    return NULL;
}

static const char *version(struct runtime *rt)
{
    return ((struct xgb_runtime *)rt)->version;
}

static err devices(struct runtime *rt, struct arena *a, const struct runtime_device **out, size_t *n)
{
    static const struct runtime_device cpu = { "cpu", NULL };
    (void)rt;
    (void)a;
    *out = &cpu;
    *n = 1;
    return NULL;
}

/* ---- loading ---- */

static void unload(struct session *session)
{
    struct xgb_session *s = (struct xgb_session *)session;
    arena_free(s->a);
    free(s);
    malloc_trim(0);
}

static struct tensor_spec matrix(struct str name, size_t columns)
{
    struct tensor_spec spec = { .name = name, .type = TENSOR_F32, .shaped = true, .rank = 2 };
    spec.dims[0] = -1;
    spec.dims[1] = (int64_t)columns;
    spec.symbols[0] = S("N");
    return spec;
}

static void describe_as_onnx(struct xgb_session *s, const struct trees *t)
{
    s->features = t->features;
    s->in = matrix(S("features"), t->features);
    s->out = matrix(t->link == LINK_LOGISTIC ? S("probability") : S("score"), 1);
    s->info = (struct session_info){ .inputs = &s->in,
                                     .outputs = &s->out,
                                     .n_inputs = 1,
                                     .n_outputs = 1,
                                     .labels = &s->labels,
                                     .device = "cpu",
                                     .why = "" };
}

/* Its first prediction prepares the model and is not for many threads at once: done here. */
static err model_ready(struct xgb_session *s, struct str bytes, struct xgb *xgb, int threads)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct trees t;
    char n[16];
    float p[1], *zeros;
    TRY(xgb_trees(scratch, bytes, &t));
    describe_as_onnx(s, &t);
    (void)snprintf(n, sizeof n, "%d", threads > 1 ? threads : 1);
    TRY(xgb_model_load(xgb, s->a, bytes, &s->model));
    TRY(xgb_model_set(s->model, "nthread", n));
    zeros = NEW_N(scratch, float, s->features);
    return xgb_model_score(s->model, zeros, 1, s->features, p);
}

static err load(struct runtime *rt, struct str bytes, const struct session_config *config,
                struct session **out)
{
    const char *device = config && config->device ? config->device : "auto";
    if (strcmp(device, "auto") != 0 && strcmp(device, "cpu") != 0)
        FAIL(UNAVAILABLE, "XGBoost's trees run on the CPU, not on '%.40s'", device);
    struct xgb_session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.ops = &runtime_xgb;
    s->a = arena_new(0);
    err e = model_ready(s, bytes, ((struct xgb_runtime *)rt)->xgb, config ? config->threads : 1);
    if (e)
        unload(&s->base);
    else
        *out = &s->base;
    return e;
}

static const struct session_info *describe(struct session *s)
{
    return &((struct xgb_session *)s)->info;
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

static err output_place(struct xgb_session *s, struct arena *a, int64_t rows, struct tensor *out)
{
    if (out->data) {
        TRY(matrix_check(out, &s->out));
        if (out->dims[0] != rows)
            FAIL(INVALID, "output '%.*s' has memory for %lld rows, not %lld", STR(s->out.name),
                 (long long)out->dims[0], (long long)rows);
        return NULL;
    }
    size_t bytes = (size_t)rows * sizeof(float);
    if (out->slot != 0 || !a)
        FAIL(INVALID, "output %zu has no memory", out->slot);
    if (bytes > arena_left(a))
        FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", bytes);
    *out = (struct tensor){ .type = TENSOR_F32, .rank = 2, .dims = { rows, 1 }, .bytes = bytes };
    out->data = arena_alloc(a, bytes, 64);
    return NULL;
}

static void nothing(void *run)
{
    (void)run; /* a prediction is not left half way */
}

static err run(struct session *session, struct run_control *control, struct arena *a, const struct tensor *in,
               size_t n_in, struct tensor *out, size_t n_out)
{
    struct xgb_session *s = (struct xgb_session *)session;
    if (n_in != 1 || n_out != 1)
        FAIL(INVALID, "the model has one input and one output; %zu and %zu are given", n_in, n_out);
    TRY(matrix_check(in, &s->in));
    TRY(output_place(s, a, in->dims[0], out));
    if (in->dims[0] == 0)
        return NULL;
    TRY(run_control_enter(control, nothing, s));
    return run_control_leave(
        control, xgb_model_score(s->model, in->data, (size_t)in->dims[0], s->features, out->data));
}

const struct runtime_ops runtime_xgb = {
    .name = "xgboost",
    .format = "xgboost",
    .open = open_,
    .version = version,
    .devices = devices,
    .load = load,
    .describe = describe,
    .run = run,
    .unload = unload,
    .close = close_,
};
