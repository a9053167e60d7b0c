// SPDX-License-Identifier: Apache-2.0
/* ONNX Runtime by its C API, called by slot: its table only ever grows, so slots of version 17 hold for all later ones
 * (onnxruntime_c_api.h, struct OrtApi). */
#include "train/library.h"
#include "train/runtime.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

// clang-format off
#define ORT_CALLS(C) /* slot, result, name, parameters; a void * that comes back is an OrtStatus, NULL when all went well */ \
    C(  1, int,          GetErrorCode,        (const void *status))                                          \
    C(  2, const char *, GetErrorMessage,     (const void *status))                                          \
    C(  3, void *,       CreateEnv,           (int level, const char *id, void **out))                       \
    C(  6, void *,       DisableTelemetryEvents, (const void *env))                                          \
    C(  8, void *,       CreateSessionFromArray, (const void *env, const void *bytes, size_t n, const void *options, void **out)) \
    C(  9, void *,       Run,                 (void *session, const void *options, const char *const *in_names, const void *const *in, size_t n_in, const char *const *out_names, size_t n_out, void **out)) \
    C( 10, void *,       CreateSessionOptions, (void **out))                                                 \
    C( 19, void *,       DisableCpuMemArena,  (void *options))                                               \
    C( 23, void *,       SetSessionGraphOptimizationLevel, (void *options, int level))                       \
    C( 24, void *,       SetIntraOpNumThreads, (void *options, int n))                                       \
    C( 25, void *,       SetInterOpNumThreads, (void *options, int n))                                       \
    C( 30, void *,       SessionGetInputCount, (const void *session, size_t *out))                           \
    C( 31, void *,       SessionGetOutputCount, (const void *session, size_t *out))                          \
    C( 33, void *,       SessionGetInputTypeInfo, (const void *session, size_t i, void **out))               \
    C( 34, void *,       SessionGetOutputTypeInfo, (const void *session, size_t i, void **out))              \
    C( 36, void *,       SessionGetInputName, (const void *session, size_t i, void *allocator, char **out))  \
    C( 37, void *,       SessionGetOutputName, (const void *session, size_t i, void *allocator, char **out)) \
    C( 48, void *,       CreateTensorAsOrtValue, (void *allocator, const int64_t *dims, size_t rank, int type, void **out)) \
    C( 49, void *,       CreateTensorWithDataAsOrtValue, (const void *memory, void *data, size_t bytes, const int64_t *dims, size_t rank, int type, void **out)) \
    C( 51, void *,       GetTensorMutableData, (void *value, void **out))                                    \
    C( 52, void *,       FillStringTensor,    (void *value, const char *const *texts, size_t n))             \
    C( 53, void *,       GetStringTensorDataLength, (const void *value, size_t *out))                        \
    C( 54, void *,       GetStringTensorContent, (const void *value, void *text, size_t bytes, size_t *offsets, size_t n)) \
    C( 55, void *,       CastTypeInfoToTensorInfo, (const void *info, const void **out))                     \
    C( 60, void *,       GetTensorElementType, (const void *shape, int *out))                                \
    C( 61, void *,       GetDimensionsCount,  (const void *shape, size_t *out))                              \
    C( 62, void *,       GetDimensions,       (const void *shape, int64_t *dims, size_t n))                  \
    C( 63, void *,       GetSymbolicDimensions, (const void *shape, const char **names, size_t n))           \
    C( 65, void *,       GetTensorTypeAndShape, (const void *value, void **out))                             \
    C( 69, void *,       CreateCpuMemoryInfo, (int allocator, int kind, void **out))                         \
    C( 76, void *,       AllocatorFree,       (void *allocator, void *p))                                    \
    C( 78, void *,       GetAllocatorWithDefaultOptions, (void **out))                                       \
    C( 92, void,         ReleaseEnv,          (void *))                                                      \
    C( 93, void,         ReleaseStatus,       (void *))                                                      \
    C( 94, void,         ReleaseMemoryInfo,   (void *))                                                      \
    C( 95, void,         ReleaseSession,      (void *))                                                      \
    C( 96, void,         ReleaseValue,        (void *))                                                      \
    C( 98, void,         ReleaseTypeInfo,     (void *))                                                      \
    C( 99, void,         ReleaseTensorTypeAndShapeInfo, (void *))                                            \
    C(100, void,         ReleaseSessionOptions, (void *))                                                    \
    C(130, void *,       AddSessionConfigEntry, (void *options, const char *key, const char *value))
// clang-format on

enum { API_VERSION = 17, VERSION_MAJOR = 1, VERSION_MINOR = 24 };
enum {
    LEVEL_FATAL = 4,
    OPTIMIZE_NONE = 0,
    OPTIMIZE_ALL = 99,
    STATUS_INVALID_ARGUMENT = 2,
    ALLOCATOR_DEVICE = 0
};

struct ort_api {
#define C(slot, result, name, parameters) result(*name) parameters;
    ORT_CALLS(C)
#undef C
};
struct ort {
    struct runtime base;
    struct ort_api api;
    const char *version;
    void *env, *memory, *allocator;
};
struct ort_session {
    struct session base;
    struct ort *ort;
    void *handle;
    struct arena *a; /* text and lists below */
    struct session_info info;
    const char **in_names, **out_names;
};

/* ---- errors ---- */

/* Its own words, on one line, at most 500 bytes. */
static err status_err(const struct ort_api *api, void *status, enum err_code code, const char *what)
{
    struct str text = str_of(api->GetErrorMessage(status));
    text = str_sub(text, 0, str_find(text, '\n'));
    text = str_sub(text, 0, 500);
    err e = err_new(code, "ONNX Runtime cannot %s: %.*s", what, STR(text));
    api->ReleaseStatus(status);
    return e;
}
#define CALL(api, code, what, name, ...)                   \
    do {                                                   \
        void *status_ = (api)->name(__VA_ARGS__);          \
        if (status_)                                       \
            return status_err((api), status_, code, what); \
    } while (0)

/* ---- the library ---- */

static const struct library library = {
    "ONNX Runtime",
    "DHOW_ORT_LIB",
    (const char *const[]){ "libonnxruntime.so", "libonnxruntime.so.1", NULL },
    "run `make setup`, or set DHOW_ORT_LIB to the path of libonnxruntime.so, 1.24 or later",
};
struct ort_base {
    const void *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
};

static err version_check(const char *text)
{
    int major = 0, minor = 0;
    if (sscanf(text, "%d.%d", &major, &minor) != 2 || major < VERSION_MAJOR ||
        (major == VERSION_MAJOR && minor < VERSION_MINOR))
        return err_hint(err_new(UNAVAILABLE,
                                "ONNX Runtime %.40s is too old: before %d.%d a model may read any file", text,
                                VERSION_MAJOR, VERSION_MINOR),
                        "%s", library.hint);
    return NULL;
}

static err api_bind(struct ort *o, const struct ort_base *base)
{
    static const struct {
        int slot;
        size_t offset;
    } calls[] = {
#define C(slot, result, name, parameters) { slot, offsetof(struct ort_api, name) },
        ORT_CALLS(C)
#undef C
    };
    o->version = base->get_version();
    TRY(version_check(o->version));
    void *const *table = base->get_api(API_VERSION);
    if (!table)
        FAIL(UNAVAILABLE, "ONNX Runtime %.40s does not give its API %d", o->version, API_VERSION);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        memcpy((char *)&o->api + calls[i].offset, &table[calls[i].slot], sizeof *table);
    return NULL;
}

static err library_load(struct ort *o, const char *path)
{
    auto_arena struct arena *a = arena_new(0);
    struct {
        const struct ort_base *(*get_base)(void);
    } entry;
    static const struct library_function function = { "OrtGetApiBase", 0 };
    void *so;
    /* Read when the library starts; later is too late. Who opens it when other threads may read the environment
     * sets it before they start. */
    const char *off = getenv("ORT_DISABLE_TELEMETRY");
    if (!off || strcmp(off, "1") != 0)
        setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    TRY(library_open(a, &library, path, &so));
    TRY(library_bind(&library, so, &function, 1, &entry));
    return api_bind(o, entry.get_base());
}

static void ort_close(struct runtime *rt)
{
    struct ort *o = (struct ort *)rt;
    if (!o)
        return;
    if (o->memory)
        o->api.ReleaseMemoryInfo(o->memory);
    if (o->env)
        o->api.ReleaseEnv(o->env);
    free(o);
}

static err start(struct ort *o)
{
    CALL(&o->api, UNAVAILABLE, "start", CreateEnv, LEVEL_FATAL, "dhow", &o->env);
    CALL(&o->api, UNAVAILABLE, "keep quiet", DisableTelemetryEvents, o->env);
    CALL(&o->api, UNAVAILABLE, "use memory", CreateCpuMemoryInfo, ALLOCATOR_DEVICE, 0, &o->memory);
    CALL(&o->api, UNAVAILABLE, "use memory", GetAllocatorWithDefaultOptions, &o->allocator);
    return NULL;
}

static err ort_open(const struct runtime_config *config, struct runtime **out)
{
    struct ort *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->base.ops = &runtime_ort;
    err e = library_load(o, config ? config->library : NULL);
    if (!e)
        e = start(o);
    if (e) {
        ort_close(&o->base);
        return e;
    }
    *out = &o->base;
    return NULL;
}

static const char *ort_version(struct runtime *rt)
{
    return ((struct ort *)rt)->version;
}

/* ---- loading and describing ---- */

static void ort_unload(struct session *session)
{
    struct ort_session *s = (struct ort_session *)session;
    if (!s)
        return;
    if (s->handle)
        s->ort->api.ReleaseSession(s->handle);
    arena_free(s->a);
    free(s);
    malloc_trim(0); /* else each unload leaves holes: 30 → 42 MB after 60 loads, measured; flat with it */
}

static err options_set(const struct ort_api *api, void *options, const struct session_config *config)
{
    int threads = config->threads > 0 ? config->threads : 1;
    CALL(api, INTERNAL, "set threads", SetIntraOpNumThreads, options, threads);
    CALL(api, INTERNAL, "set threads", SetInterOpNumThreads, options, 1);
    CALL(api, INTERNAL, "set spinning", AddSessionConfigEntry, options, "session.intra_op.allow_spinning",
         "0");
    CALL(api, INTERNAL, "set optimisation", SetSessionGraphOptimizationLevel, options,
         config->raw ? OPTIMIZE_NONE : OPTIMIZE_ALL);
    if (!config->arena)
        CALL(api, INTERNAL, "set memory", DisableCpuMemArena, options);
    return NULL;
}

static err session_open(struct ort *o, struct str bytes, const struct session_config *config, void **out)
{
    const struct session_config defaults = { 0 };
    void *options;
    CALL(&o->api, INTERNAL, "make options", CreateSessionOptions, &options);
    err e = options_set(&o->api, options, config ? config : &defaults);
    if (!e) {
        void *status = o->api.CreateSessionFromArray(o->env, bytes.p, bytes.n, options, out);
        e = status ? status_err(&o->api, status, INVALID, "load the model") : NULL;
    }
    o->api.ReleaseSessionOptions(options);
    return e;
}

/* Type and shape of a tensor's description; TENSOR_NONE for types that are not in the table. */
static err shape_read(const struct ort_api *api, struct arena *a, const void *shape, struct tensor_spec *out)
{
    int type = 0;
    const char *symbols[TENSOR_RANK_MAX];
    CALL(api, INTERNAL, "describe a tensor", GetTensorElementType, shape, &type);
    CALL(api, INTERNAL, "describe a tensor", GetDimensionsCount, shape, &out->rank);
    if (out->rank > TENSOR_RANK_MAX)
        FAIL(INVALID, "tensor '%.*s' has %zu dimensions, at most %d are run", STR(out->name), out->rank,
             TENSOR_RANK_MAX);
    CALL(api, INTERNAL, "describe a tensor", GetDimensions, shape, out->dims, out->rank);
    CALL(api, INTERNAL, "describe a tensor", GetSymbolicDimensions, shape, symbols, out->rank);
    out->type = tensor_onnx_name((enum tensor_type)type).n > 0 ? (enum tensor_type)type : TENSOR_NONE;
    out->shaped = true;
    for (size_t i = 0; a && i < out->rank; i++)
        out->symbols[i] = str_dup(a, str_of(symbols[i] ? symbols[i] : ""));
    return NULL;
}

typedef void *(*name_fn)(const void *session, size_t i, void *allocator, char **out);
typedef void *(*type_fn)(const void *session, size_t i, void **out);

static err name_read(struct ort_session *s, name_fn name_of, size_t i, const char **out)
{
    const struct ort_api *api = &s->ort->api;
    char *name = NULL;
    void *status = name_of(s->handle, i, s->ort->allocator, &name);
    if (status)
        return status_err(api, status, INTERNAL, "name a tensor");
    *out = fmtz(s->a, "%s", name);
    status = api->AllocatorFree(s->ort->allocator, name);
    return status ? status_err(api, status, INTERNAL, "free a name") : NULL;
}

static err spec_read(struct ort_session *s, name_fn name_of, type_fn type_of, size_t i, const char **name,
                     struct tensor_spec *out)
{
    const struct ort_api *api = &s->ort->api;
    void *info = NULL;
    const void *shape = NULL; /* stays NULL for sequences and maps */
    TRY(name_read(s, name_of, i, name));
    out->name = str_of(*name);
    void *status = type_of(s->handle, i, &info);
    if (status)
        return status_err(api, status, INTERNAL, "describe a tensor");
    status = api->CastTypeInfoToTensorInfo(info, &shape);
    err e = status ? status_err(api, status, INTERNAL, "describe a tensor") : NULL;
    if (!e && shape)
        e = shape_read(api, s->a, shape, out);
    api->ReleaseTypeInfo(info);
    return e;
}

static err specs_read(struct ort_session *s)
{
    const struct ort_api *api = &s->ort->api;
    CALL(api, INTERNAL, "count inputs", SessionGetInputCount, s->handle, &s->info.n_inputs);
    CALL(api, INTERNAL, "count outputs", SessionGetOutputCount, s->handle, &s->info.n_outputs);
    struct tensor_spec *inputs = NEW_N(s->a, struct tensor_spec, s->info.n_inputs);
    struct tensor_spec *outputs = NEW_N(s->a, struct tensor_spec, s->info.n_outputs);
    s->in_names = NEW_N(s->a, const char *, s->info.n_inputs);
    s->out_names = NEW_N(s->a, const char *, s->info.n_outputs);
    s->info.inputs = inputs;
    s->info.outputs = outputs;
    for (size_t i = 0; i < s->info.n_inputs; i++)
        TRY(spec_read(s, api->SessionGetInputName, api->SessionGetInputTypeInfo, i, &s->in_names[i],
                      &inputs[i]));
    for (size_t i = 0; i < s->info.n_outputs; i++)
        TRY(spec_read(s, api->SessionGetOutputName, api->SessionGetOutputTypeInfo, i, &s->out_names[i],
                      &outputs[i]));
    return NULL;
}

static err ort_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                    struct session **out)
{
    struct ort_session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.ops = &runtime_ort;
    s->ort = (struct ort *)rt;
    s->a = arena_new(0);
    err e = session_open(s->ort, bytes, config, &s->handle);
    if (!e)
        e = specs_read(s);
    if (e) {
        ort_unload(&s->base);
        return e;
    }
    *out = &s->base;
    return NULL;
}

static const struct session_info *ort_describe(struct session *s)
{
    return &((struct ort_session *)s)->info;
}

/* ---- running ---- */

enum { RUN_TENSORS_MAX = 256 };
struct call {
    const char *in_names[RUN_TENSORS_MAX], *out_names[RUN_TENSORS_MAX];
    void *in[RUN_TENSORS_MAX], *out[RUN_TENSORS_MAX];
};

static err text_tensor(struct ort *o, const struct tensor *t, size_t n, void **out)
{
    auto_arena struct arena *a = arena_new(0);
    const struct str *texts = t->data;
    const char **z = NEW_N(a, const char *, n + 1);
    for (size_t i = 0; i < n; i++) {
        if (str_has_nul(texts[i]))
            FAIL(INVALID, "text %zu has a NUL inside", i);
        z[i] = str_z(a, texts[i]);
    }
    CALL(&o->api, INVALID, "take a tensor", CreateTensorAsOrtValue, o->allocator, t->dims, t->rank,
         TENSOR_TEXT, out);
    CALL(&o->api, INVALID, "take texts", FillStringTensor, *out, z, n);
    return NULL;
}

/* A value over the caller's data. */
static err tensor_wrap(struct ort *o, const struct tensor *t, const struct tensor_spec *spec, void **out)
{
    static char nothing[16];
    int64_t n;
    size_t size = t->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(t->type);
    if (t->type != spec->type || size == 0)
        FAIL(INVALID, "tensor '%.*s' is %.*s, not %.*s", STR(spec->name), STR(tensor_onnx_name(spec->type)),
             STR(tensor_onnx_name(t->type)));
    if (t->rank > TENSOR_RANK_MAX || !tensor_count(t->dims, t->rank, INT64_MAX / 16, &n) ||
        t->bytes != (size_t)n * size)
        FAIL(INVALID, "tensor '%.*s': its shape does not fit its %zu bytes", STR(spec->name), t->bytes);
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
            return err_hint(err_new(UNSUPPORTED, "output '%.*s' is not a tensor of a type that is served",
                                    STR(spec->name)),
                            "export it without ZipMap");
        if (out[i].data && spec->type != TENSOR_TEXT)
            TRY(tensor_wrap(s->ort, &out[i], spec, &c->out[i]));
        else if (out[i].data || !a)
            FAIL(INVALID, "output '%.*s' has no memory", STR(spec->name));
    }
    return NULL;
}

static err texts_copy(struct ort *o, struct arena *a, void *value, size_t n, struct tensor *out)
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
    err e = shape_read(&o->api, NULL, shape, &spec);
    o->api.ReleaseTensorTypeAndShapeInfo(shape);
    TRY(e);
    if (spec.type == TENSOR_NONE || !tensor_count(spec.dims, spec.rank, INT64_MAX / 16, &n))
        FAIL(UNSUPPORTED, "an output is of a type that is not served");
    *out = (struct tensor){ .slot = out->slot, .type = spec.type, .rank = spec.rank };
    memcpy(out->dims, spec.dims, sizeof spec.dims);
    if (spec.type == TENSOR_TEXT)
        return texts_copy(o, a, value, (size_t)n, out);
    out->bytes = (size_t)n * tensor_size(spec.type);
    if (out->bytes > arena_left(a))
        FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", out->bytes);
    CALL(&o->api, INTERNAL, "read an output", GetTensorMutableData, value, &data);
    out->data = arena_alloc(a, out->bytes, 64);
    if (out->bytes > 0)
        memcpy(out->data, data, out->bytes);
    return NULL;
}

static err call_run(struct ort_session *s, struct arena *a, const struct tensor *in, size_t n_in,
                    struct tensor *out, size_t n_out, struct call *c)
{
    TRY(inputs_wrap(s, in, n_in, c));
    TRY(outputs_wrap(s, a, out, n_out, c));
    const struct ort_api *api = &s->ort->api;
    void *status = api->Run(s->handle, NULL, c->in_names, (const void *const *)c->in, n_in, c->out_names,
                            n_out, c->out);
    if (status)
        return status_err(api, status,
                          api->GetErrorCode(status) == STATUS_INVALID_ARGUMENT ? INVALID : INTERNAL,
                          "run the model");
    for (size_t i = 0; i < n_out; i++)
        if (!out[i].data)
            TRY(output_copy(s->ort, a, c->out[i], &out[i]));
    return NULL;
}

static err ort_run(struct session *session, struct arena *a, const struct tensor *in, size_t n_in,
                   struct tensor *out, size_t n_out)
{
    struct ort_session *s = (struct ort_session *)session;
    struct call c;
    size_t most_in = n_in < RUN_TENSORS_MAX ? n_in : RUN_TENSORS_MAX;
    size_t most_out = n_out < RUN_TENSORS_MAX ? n_out : RUN_TENSORS_MAX;
    memset(c.in, 0, most_in * sizeof *c.in);
    memset(c.out, 0, most_out * sizeof *c.out);
    err e = call_run(s, a, in, n_in, out, n_out, &c);
    for (size_t i = 0; i < most_in; i++)
        if (c.in[i])
            s->ort->api.ReleaseValue(c.in[i]);
    for (size_t i = 0; i < most_out; i++)
        if (c.out[i])
            s->ort->api.ReleaseValue(c.out[i]);
    return e;
}

const struct runtime_ops runtime_ort = {
    .name = "onnxruntime",
    .open = ort_open,
    .version = ort_version,
    .load = ort_load,
    .describe = ort_describe,
    .run = ort_run,
    .unload = ort_unload,
    .close = ort_close,
};
