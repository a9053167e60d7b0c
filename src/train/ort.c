// SPDX-License-Identifier: Apache-2.0
/* ONNX Runtime: the library, and models that come and go. */
#include "base/library.h"
#include "train/ort.h"

#include <stdio.h>
#include <stdlib.h>

enum { API_VERSION = 17, VERSION_MAJOR = 1, VERSION_MINOR = 24 };
enum { LEVEL_FATAL = 4, OPTIMIZE_NONE = 0, OPTIMIZE_ALL = 99, ALLOCATOR_DEVICE = 0 };

/* ---- errors ---- */

/* Its own words, on one line, at most 500 bytes. */
err ort_status_err(const struct ort_api *api, void *status, enum err_code code, const char *what)
{
    struct str text = str_of(api->GetErrorMessage(status));
    text = str_sub(text, 0, str_find(text, '\n'));
    text = str_sub(text, 0, 500);
    err e = err_new(code, "ONNX Runtime cannot %s: %.*s", what, STR(text));
    api->ReleaseStatus(status);
    return e;
}

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
    /* Read when the library starts; later is too late. Who opens it when other threads may read the environment
     * sets it before they start. */
    const char *off = getenv("ORT_DISABLE_TELEMETRY");
    if (!off || strcmp(off, "1") != 0)
        setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    TRY(library_open(a, &library, path, &o->so));
    TRY(library_bind(&library, o->so, &function, 1, &entry));
    return api_bind(o, entry.get_base());
}

static void ort_close(struct runtime *rt)
{
    struct ort *o = (struct ort *)rt;
    if (!o)
        return;
    if (o->options)
        o->api.ReleaseRunOptions(o->options);
    if (o->memory)
        o->api.ReleaseMemoryInfo(o->memory);
    if (o->env)
        o->api.ReleaseEnv(o->env);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

/* Its threads sleep while they wait: spinning ones take the cores from those who serve. */
static err pool_set(const struct ort_api *api, void *threading, int threads)
{
    CALL(api, INTERNAL, "size its pool", SetGlobalIntraOpNumThreads, threading, threads);
    CALL(api, INTERNAL, "size its pool", SetGlobalInterOpNumThreads, threading, 1);
    CALL(api, INTERNAL, "set spinning", SetGlobalSpinControl, threading, 0);
    return NULL;
}

static err env_with_pool(struct ort *o)
{
    void *threading;
    CALL(&o->api, UNAVAILABLE, "start a pool", CreateThreadingOptions, &threading);
    err e = pool_set(&o->api, threading, o->threads);
    if (!e) {
        void *status = o->api.CreateEnvWithGlobalThreadPools(LEVEL_FATAL, "dhow", threading, &o->env);
        e = status ? ort_status_err(&o->api, status, UNAVAILABLE, "start a pool") : NULL;
    }
    o->api.ReleaseThreadingOptions(threading);
    return e;
}

static err start(struct ort *o)
{
    if (o->threads)
        TRY(env_with_pool(o));
    else
        CALL(&o->api, UNAVAILABLE, "start", CreateEnv, LEVEL_FATAL, "dhow", &o->env);
    CALL(&o->api, UNAVAILABLE, "keep quiet", DisableTelemetryEvents, o->env);
    CALL(&o->api, UNAVAILABLE, "use memory", CreateCpuMemoryInfo, ALLOCATOR_DEVICE, 0, &o->memory);
    CALL(&o->api, UNAVAILABLE, "use memory", GetAllocatorWithDefaultOptions, &o->allocator);
    CALL(&o->api, UNAVAILABLE, "make options", CreateRunOptions, &o->options);
    return NULL;
}

static err ort_open(const struct runtime_config *config, struct runtime **out)
{
    struct ort *o = calloc(1, sizeof *o);
    if (!o)
        abort();
    o->base.ops = &runtime_ort;
    o->threads = config && config->threads > 1 ? config->threads : 0;
    pthread_mutex_init(&o->lock, NULL);
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

/* ---- loading ---- */

static void session_free(struct ort_session *s)
{
    if (s->handle)
        s->ort->api.ReleaseSession(s->handle);
    arena_free(s->a);
    free(s);
    heap_trim(); /* else each unload leaves holes: 30 → 42 MB after 60 loads, measured; flat with it */
}

/* No arena of ONNX Runtime's: it gained nothing in a convolution of 0.1 to 6 ms and cost a small model 4 %, and what
 * one big batch has made it take it never gives back. */
static err options_set(struct ort *o, void *options, const struct ort_key *key)
{
    const struct ort_api *api = &o->api;
    CALL(api, INTERNAL, "set threads", SetIntraOpNumThreads, options, key->threads);
    CALL(api, INTERNAL, "set threads", SetInterOpNumThreads, options, 1);
    if (o->threads && key->threads > 1)
        CALL(api, INTERNAL, "use its pool", DisablePerSessionThreads, options);
    CALL(api, INTERNAL, "set spinning", AddSessionConfigEntry, options, "session.intra_op.allow_spinning",
         "0");
    CALL(api, INTERNAL, "set optimisation", SetSessionGraphOptimizationLevel, options,
         key->raw ? OPTIMIZE_NONE : OPTIMIZE_ALL);
    CALL(api, INTERNAL, "set memory", DisableCpuMemArena, options);
    return NULL;
}

static err session_open(struct ort_session *s, struct str bytes, const struct ort_device *device)
{
    struct ort *o = s->ort;
    void *options;
    CALL(&o->api, INTERNAL, "make options", CreateSessionOptions, &options);
    err e = options_set(o, options, &s->key);
    if (!e)
        e = ort_device_append(o, device, options, &s->key);
    if (!e) {
        void *status = o->api.CreateSessionFromArray(o->env, bytes.p, bytes.n, options, &s->handle);
        e = status ? ort_status_err(&o->api, status, INVALID, "load the model") : NULL;
    }
    o->api.ReleaseSessionOptions(options);
    return e;
}

/* The first device that is there and takes the model; of the others, why not. */
static err session_open_best(struct ort_session *s, struct str bytes)
{
    struct buf why = buf_new(s->a);
    err e = NULL;
    for (const struct ort_device *d = NULL; (d = ort_device_next(d));) {
        if (!ort_device_auto(d))
            continue;
        e = ort_device_here(s->ort, d);
        if (!e)
            e = session_open(s, bytes, d);
        if (!e) {
            s->info.device = ort_device_name(d);
            s->info.why = str_z(s->a, buf_get(&why));
            return NULL;
        }
        buf_fmt(&why, "%s%s: %.*s", why.n ? "; " : "", ort_device_name(d), STR(e->text));
    }
    return e; /* the CPU's, the last of the table */
}

static err session_open_on(struct ort_session *s, struct str bytes, const char *name)
{
    const struct ort_device *d;
    if (!strcmp(name, "auto"))
        return session_open_best(s, bytes);
    TRY(ort_device_find(name, &d));
    TRY(ort_device_here(s->ort, d));
    TRY_AS(session_open(s, bytes, d), "on device '%s'", name);
    s->info.device = ort_device_name(d);
    s->info.why = "";
    return NULL;
}

/* ---- describing ---- */

err ort_shape_read(const struct ort_api *api, struct arena *a, const void *shape, struct tensor_spec *out)
{
    int type = 0;
    const char *symbols[TENSOR_RANK_MAX];
    CALL(api, INTERNAL, "describe a tensor", GetTensorElementType, shape, &type);
    CALL(api, INTERNAL, "describe a tensor", GetDimensionsCount, shape, &out->rank);
    if (out->rank > TENSOR_RANK_MAX)
        FAIL(INVALID, "tensor '%.*s' has %zu dimensions, at most %d are run", STR(out->name), out->rank,
             TENSOR_RANK_MAX);
    CALL(api, INTERNAL, "describe a tensor", GetDimensions, shape, out->dims, out->rank);
    if (a)
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
        return ort_status_err(api, status, INTERNAL, "name a tensor");
    *out = fmtz(s->a, "%s", name);
    status = api->AllocatorFree(s->ort->allocator, name);
    return status ? ort_status_err(api, status, INTERNAL, "free a name") : NULL;
}

static err spec_read(struct ort_session *s, name_fn name_of, type_fn type_of, size_t i, const char **name,
                     struct tensor_spec *out, struct ort_maps *maps)
{
    const struct ort_api *api = &s->ort->api;
    void *info = NULL;
    const void *shape = NULL; /* stays NULL for sequences and maps */
    TRY(name_read(s, name_of, i, name));
    out->name = str_of(*name);
    void *status = type_of(s->handle, i, &info);
    if (status)
        return ort_status_err(api, status, INTERNAL, "describe a tensor");
    status = api->CastTypeInfoToTensorInfo(info, &shape);
    err e = status ? ort_status_err(api, status, INTERNAL, "describe a tensor") : NULL;
    if (!e && shape)
        e = ort_shape_read(api, s->a, shape, out);
    else if (!e && maps)
        e = ort_maps_find(api, info, maps);
    api->ReleaseTypeInfo(info);
    return e;
}

static err inputs_read(struct ort_session *s)
{
    const struct ort_api *api = &s->ort->api;
    CALL(api, INTERNAL, "count inputs", SessionGetInputCount, s->handle, &s->info.n_inputs);
    struct tensor_spec *inputs = NEW_N(s->a, struct tensor_spec, s->info.n_inputs);
    s->in_names = NEW_N(s->a, const char *, s->info.n_inputs);
    s->info.inputs = inputs;
    for (size_t i = 0; i < s->info.n_inputs; i++)
        TRY(spec_read(s, api->SessionGetInputName, api->SessionGetInputTypeInfo, i, &s->in_names[i],
                      &inputs[i], NULL));
    return NULL;
}

static err outputs_read(struct ort_session *s)
{
    const struct ort_api *api = &s->ort->api;
    CALL(api, INTERNAL, "count outputs", SessionGetOutputCount, s->handle, &s->info.n_outputs);
    struct tensor_spec *outputs = NEW_N(s->a, struct tensor_spec, s->info.n_outputs);
    struct ort_maps *maps = NEW_N(s->a, struct ort_maps, s->info.n_outputs);
    struct strs *labels = NEW_N(s->a, struct strs, s->info.n_outputs);
    s->out_names = NEW_N(s->a, const char *, s->info.n_outputs);
    s->info.outputs = outputs;
    s->info.labels = labels;
    s->maps = maps;
    for (size_t i = 0; i < s->info.n_outputs; i++) {
        TRY(spec_read(s, api->SessionGetOutputName, api->SessionGetOutputTypeInfo, i, &s->out_names[i],
                      &outputs[i], &maps[i]));
        if (maps[i].key)
            ort_maps_probe(s, i, &outputs[i], &maps[i], &labels[i]);
    }
    return NULL;
}

/* ---- sessions that are shared ---- */

static err key_make(struct ort *o, struct str bytes, const struct session_config *config, struct ort_key *out)
{
    const char *device = config && config->device ? config->device : "auto";
    int threads = config && config->threads > 1 ? config->threads : 1;
    memset(out, 0, sizeof *out); /* compared as bytes */
    if (strlen(device) >= sizeof out->device)
        FAIL(INVALID, "there is no device '%.40s'", device);
    sha256(bytes, out->sha256);
    out->threads = threads > 1 && o->threads ? o->threads : threads;
    out->raw = config && config->raw;
    out->device_bytes = config ? config->device_bytes : 0;
    memcpy(out->device, device, strlen(device));
    return NULL;
}

/* One more user of a loaded session; NULL if there is none of this key. */
static struct ort_session *session_join(struct ort *o, const struct ort_key *key)
{
    LOCKED(&o->lock);
    for (struct ort_session *s = o->sessions; s; s = s->next)
        if (!memcmp(&s->key, key, sizeof *key)) {
            s->refs++;
            return s;
        }
    return NULL;
}

static void session_add(struct ort *o, struct ort_session *s)
{
    LOCKED(&o->lock);
    s->refs = 1;
    s->next = o->sessions;
    o->sessions = s;
}

/* True for the last user: the session is then out of the list. */
static bool session_leave(struct ort *o, struct ort_session *s)
{
    LOCKED(&o->lock);
    if (--s->refs)
        return false;
    struct ort_session **at = &o->sessions;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    return true;
}

static err session_new(struct ort *o, struct str bytes, const struct ort_key *key, struct ort_session **out)
{
    struct ort_session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.ops = &runtime_ort;
    s->ort = o;
    s->a = arena_new(0);
    s->key = *key;
    err e = session_open_on(s, bytes, key->device);
    if (!e)
        e = inputs_read(s);
    if (!e)
        e = outputs_read(s);
    if (e)
        session_free(s);
    else
        *out = s;
    return e;
}

/* Two loads of the same at the same moment make two sessions; each is whole. */
static err ort_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                    struct session **out)
{
    struct ort *o = (struct ort *)rt;
    struct ort_key key;
    TRY(key_make(o, bytes, config, &key));
    struct ort_session *s = session_join(o, &key);
    if (!s) {
        TRY(session_new(o, bytes, &key, &s));
        session_add(o, s);
    }
    *out = &s->base;
    return NULL;
}

static void ort_unload(struct session *session)
{
    struct ort_session *s = (struct ort_session *)session;
    if (s && session_leave(s->ort, s))
        session_free(s);
}

static const struct session_info *ort_describe(struct session *s)
{
    return &((struct ort_session *)s)->info;
}

const struct runtime_ops runtime_ort = {
    .name = "onnxruntime",
    .format = "onnx",
    .open = ort_open,
    .version = ort_version,
    .devices = ort_devices,
    .load = ort_load,
    .describe = ort_describe,
    .run = ort_run,
    .bind = ort_bind,
    .run_bound = ort_run_bound,
    .unbind = ort_unbind,
    .unload = ort_unload,
    .close = ort_close,
};
