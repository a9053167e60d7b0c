// SPDX-License-Identifier: Apache-2.0
/* ONNX Runtime: runs. */
#include "train/ort.h"

#include <stdlib.h>

enum { RUN_TENSORS_MAX = 256, STATUS_INVALID_ARGUMENT = 2 };
struct call {
    const char *in_names[RUN_TENSORS_MAX], *out_names[RUN_TENSORS_MAX];
    void *in[RUN_TENSORS_MAX], *out[RUN_TENSORS_MAX];
    size_t n_in, n_out;
    void *binding; /* of the same values, prepared; NULL: there is none */
};

/* ---- tensors → values ---- */

/* Texts are copied once, into strings of ONNX Runtime's. */
static err texts_fill(struct ort *o, const struct str *texts, size_t n, void *value)
{
    for (size_t i = 0; i < n; i++) {
        char *at = NULL;
        CALL(&o->api, INVALID, "take a text", GetResizedStringTensorElementBuffer, value, i, texts[i].n, &at);
        if (texts[i].n)
            memcpy(at, texts[i].p, texts[i].n);
    }
    return NULL;
}

static err text_tensor(struct ort *o, const struct tensor *t, size_t n, void **out)
{
    CALL(&o->api, INVALID, "take a tensor", CreateTensorAsOrtValue, o->allocator, t->dims, t->rank,
         TENSOR_TEXT, out);
    return texts_fill(o, t->data, n, *out);
}

/* A value over the caller's data. */
static err tensor_wrap(struct ort *o, const struct tensor *t, const struct tensor_spec *spec, void **out)
{
    static _Alignas(16) char nothing[16];
    int64_t n;
    size_t size = t->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(t->type);
    if (t->type != spec->type || size == 0)
        FAIL(INVALID, "tensor '%.*s' is %.*s, not %.*s", STR(spec->name), STR(tensor_onnx_name(spec->type)),
             STR(tensor_onnx_name(t->type)));
    if (t->rank > TENSOR_RANK_MAX || !tensor_count(t->dims, t->rank, INT64_MAX / 16, &n) ||
        t->bytes != (size_t)n * size)
        FAIL(INVALID, "tensor '%.*s': its shape does not fit its %zu bytes", STR(spec->name), t->bytes);
    if (n && (!t->data || (uintptr_t)t->data % (t->type == TENSOR_TEXT ? sizeof(void *) : size)))
        FAIL(INVALID, "tensor '%.*s': its data is not aligned to its elements", STR(spec->name));
    if (t->type == TENSOR_TEXT)
        return text_tensor(o, t, (size_t)n, out);
    CALL(&o->api, INVALID, "take a tensor", CreateTensorWithDataAsOrtValue, o->memory, n ? t->data : nothing,
         t->bytes, t->dims, t->rank, (int)t->type, out);
    return NULL;
}

static err inputs_wrap(struct ort_session *s, const struct tensor *in, size_t n, struct call *c)
{
    if (n != s->info.n_inputs || n > RUN_TENSORS_MAX)
        FAIL(INVALID, "the model takes %zu inputs, %zu are given", s->info.n_inputs, n);
    for (size_t i = 0; i < n; i++) {
        if (in[i].slot >= n)
            FAIL(INVALID, "there is no input %zu", in[i].slot);
        for (size_t k = 0; k < i; k++)
            if (in[k].slot == in[i].slot)
                FAIL(INVALID, "input '%s' is given twice", s->in_names[in[i].slot]);
        c->in_names[i] = s->in_names[in[i].slot];
        TRY(tensor_wrap(s->ort, &in[i], &s->info.inputs[in[i].slot], &c->in[i]));
    }
    return NULL;
}

static err outputs_wrap(struct ort_session *s, const struct arena *a, const struct tensor *out, size_t n,
                        struct call *c)
{
    if (n == 0 || n > RUN_TENSORS_MAX)
        FAIL(INVALID, "%zu outputs are asked for", n);
    for (size_t i = 0; i < n; i++) {
        if (out[i].slot >= s->info.n_outputs)
            FAIL(INVALID, "there is no output %zu", out[i].slot);
        const struct tensor_spec *spec = &s->info.outputs[out[i].slot];
        c->out_names[i] = s->out_names[out[i].slot];
        if (spec->type == TENSOR_NONE)
            return err_hint(
                err_new(UNSUPPORTED, "output '%.*s' is not a tensor of a type that is served",
                        STR(spec->name)),
                "a sequence of maps with the same keys in each is served; other sequences and maps are not");
        if (out[i].data && spec->type != TENSOR_TEXT && !s->maps[out[i].slot].key)
            TRY(tensor_wrap(s->ort, &out[i], spec, &c->out[i]));
        else if (out[i].data ? spec->type == TENSOR_TEXT : !a)
            FAIL(INVALID, "output '%.*s' has no memory", STR(spec->name));
    }
    return NULL;
}

/* ---- values → tensors ---- */

err ort_texts_copy(struct ort *o, struct arena *a, void *value, size_t n, struct tensor *out)
{
    size_t bytes = 0;
    CALL(&o->api, INTERNAL, "measure texts", GetStringTensorDataLength, value, &bytes);
    char *text = NEW_N(a, char, bytes + 1);
    size_t *offsets = NEW_N(a, size_t, n + 1);
    struct str *v = NEW_N(a, struct str, n + 1);
    CALL(&o->api, INTERNAL, "copy texts", GetStringTensorContent, value, text, bytes, offsets, n);
    offsets[n] = bytes;
    for (size_t i = 0; i < n; i++)
        v[i] = (struct str){ text + offsets[i], offsets[i + 1] - offsets[i] };
    out->data = v;
    out->bytes = n * sizeof *v;
    return NULL;
}

/* What ONNX Runtime allocated, into the caller's arena. */
static err output_copy(struct ort *o, struct arena *a, void *value, struct tensor *out)
{
    void *shape, *data = NULL;
    struct tensor_spec spec = { 0 };
    int64_t n;
    CALL(&o->api, INTERNAL, "describe an output", GetTensorTypeAndShape, value, &shape);
    err e = ort_shape_read(&o->api, NULL, shape, &spec);
    o->api.ReleaseTensorTypeAndShapeInfo(shape);
    TRY(e);
    if (spec.type == TENSOR_NONE || !tensor_count(spec.dims, spec.rank, INT64_MAX / 16, &n))
        FAIL(UNSUPPORTED, "an output is of a type that is not served");
    *out = (struct tensor){ .slot = out->slot, .type = spec.type, .rank = spec.rank };
    memcpy(out->dims, spec.dims, sizeof spec.dims);
    if (spec.type == TENSOR_TEXT)
        return ort_texts_copy(o, a, value, (size_t)n, out);
    out->bytes = (size_t)n * tensor_size(spec.type);
    if (out->bytes > arena_left(a))
        FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", out->bytes);
    CALL(&o->api, INTERNAL, "read an output", GetTensorMutableData, value, &data);
    out->data = arena_alloc(a, out->bytes, 64);
    if (out->bytes > 0)
        memcpy(out->data, data, out->bytes);
    return NULL;
}

/* ---- the call ---- */

struct stopper {
    const struct ort_api *api;
    void *options;
};
static void run_stop(void *arg)
{
    struct stopper *s = arg;
    void *status = s->api->RunOptionsSetTerminate(s->options);
    if (status)
        s->api->ReleaseStatus(status);
}

static err call_invoke(struct ort_session *s, struct call *c, const void *options)
{
    const struct ort_api *api = &s->ort->api;
    void *status = c->binding ? api->RunWithBinding(s->handle, options, c->binding)
                              : api->Run(s->handle, options, c->in_names, (const void *const *)c->in, c->n_in,
                                         c->out_names, c->n_out, c->out);
    if (!status)
        return NULL;
    return ort_status_err(api, status,
                          api->GetErrorCode(status) == STATUS_INVALID_ARGUMENT ? INVALID : INTERNAL,
                          "run the model");
}

/* Options of its own only where somebody may set their flag. */
static err call_run(struct ort_session *s, struct call *c, struct run_control *control)
{
    struct stopper stopper = { &s->ort->api, NULL };
    if (!control)
        return call_invoke(s, c, s->ort->options);
    CALL(stopper.api, INTERNAL, "make options", CreateRunOptions, &stopper.options);
    err e = run_control_enter(control, run_stop, &stopper);
    if (!e)
        e = run_control_leave(control, call_invoke(s, c, stopper.options));
    stopper.api->ReleaseRunOptions(stopper.options);
    return e;
}

static err call_make(struct ort_session *s, const struct arena *a, const struct tensor *in, size_t n_in,
                     const struct tensor *out, size_t n_out, struct call *c)
{
    c->n_in = n_in < RUN_TENSORS_MAX ? n_in : RUN_TENSORS_MAX;
    c->n_out = n_out < RUN_TENSORS_MAX ? n_out : RUN_TENSORS_MAX;
    c->binding = NULL;
    memset(c->in, 0, c->n_in * sizeof *c->in);
    memset(c->out, 0, c->n_out * sizeof *c->out);
    TRY(inputs_wrap(s, in, n_in, c));
    return outputs_wrap(s, a, out, n_out, c);
}

static void call_drop(struct ort *o, struct call *c)
{
    if (c->binding)
        o->api.ReleaseIoBinding(c->binding);
    for (size_t i = 0; i < c->n_in; i++)
        if (c->in[i])
            o->api.ReleaseValue(c->in[i]);
    for (size_t i = 0; i < c->n_out; i++)
        if (c->out[i])
            o->api.ReleaseValue(c->out[i]);
}

static err outputs_copy(struct ort_session *s, struct arena *a, const struct call *c, struct tensor *out)
{
    for (size_t i = 0; i < c->n_out; i++)
        if (s->maps[out[i].slot].key)
            TRY(ort_maps_copy(s, a, c->out[i], &out[i]));
        else if (!out[i].data)
            TRY(output_copy(s->ort, a, c->out[i], &out[i]));
    return NULL;
}

err ort_run(struct session *session, struct run_control *control, struct arena *a, const struct tensor *in,
            size_t n_in, struct tensor *out, size_t n_out)
{
    struct ort_session *s = (struct ort_session *)session;
    struct call c;
    err e = call_make(s, a, in, n_in, out, n_out, &c);
    if (!e)
        e = call_run(s, &c, control);
    if (!e)
        e = outputs_copy(s, a, &c, out);
    call_drop(s->ort, &c);
    return e;
}

err ort_probe(struct ort_session *s, size_t slot, void **value)
{
    auto_arena struct arena *a = arena_new(0);
    struct call c = { 0 };
    struct tensor *in;
    TRY(session_zeros(&s->info, a, 1, &in));
    err e = inputs_wrap(s, in, s->info.n_inputs, &c);
    c.n_in = s->info.n_inputs < RUN_TENSORS_MAX ? s->info.n_inputs : RUN_TENSORS_MAX;
    c.n_out = 1;
    c.out_names[0] = s->out_names[slot];
    if (!e)
        e = call_run(s, &c, NULL);
    *value = c.out[0];
    c.out[0] = NULL;
    call_drop(s->ort, &c);
    return e;
}

/* ---- the same call again ---- */

static err binding_make(struct ort_session *s, struct call *c)
{
    const struct ort_api *api = &s->ort->api;
    CALL(api, INTERNAL, "bind tensors", CreateIoBinding, s->handle, &c->binding);
    for (size_t i = 0; i < c->n_in; i++)
        CALL(api, INVALID, "bind an input", BindInput, c->binding, c->in_names[i], c->in[i]);
    for (size_t i = 0; i < c->n_out; i++)
        CALL(api, INVALID, "bind an output", BindOutput, c->binding, c->out_names[i], c->out[i]);
    return NULL;
}

static bool any_maps(const struct ort_session *s, const struct tensor *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (out[i].slot < s->info.n_outputs && s->maps[out[i].slot].key)
            return true;
    return false;
}

/* NULL where an output is copied out of maps: each call then is a run. Only on the CPU are values prepared: another
 * device would take the inputs' bytes when they are bound. */
err ort_bind(struct session *session, const struct tensor *in, size_t n_in, const struct tensor *out,
             size_t n_out, void **bound)
{
    struct ort_session *s = (struct ort_session *)session;
    if (any_maps(s, out, n_out))
        return NULL;
    struct call *c = malloc(sizeof *c);
    if (!c)
        abort();
    err e = call_make(s, NULL, in, n_in, out, n_out, c);
    if (!e && !strcmp(s->info.device, "cpu"))
        e = binding_make(s, c);
    if (e)
        ort_unbind(session, c);
    else
        *bound = c;
    return e;
}

err ort_run_bound(struct session *session, void *bound, struct run_control *control)
{
    return call_run((struct ort_session *)session, bound, control);
}

void ort_unbind(struct session *session, void *bound)
{
    call_drop(((struct ort_session *)session)->ort, bound);
    free(bound);
}
