// SPDX-License-Identifier: Apache-2.0
/* ONNX Runtime: where a model can run, one row a provider. A new one is a row here. */
#include "train/ort.h"

#include <dlfcn.h>
#include <stdio.h>

struct ort_device {
    const char *name;
    const char *provider; /* as GetAvailableProviders lists it */
    const char *library;  /* of its own, beside ONNX Runtime's; NULL: it is inside */
    bool automatic;       /* "auto" takes it where it is there */
    err (*append)(struct ort *, void *options, const struct ort_key *key);
};

static err cpu_append(struct ort *o, void *options, const struct ort_key *key)
{
    (void)o;
    (void)options;
    (void)key;
    return NULL; /* it is always there, behind the others */
}

/* Full float32: with TF32, its default, scores would leave the trainer's by more than the parity gate allows. An arena with a
 * limit grows by what is asked for, not by doubling, which would meet the limit at half of it. */
static err cuda_append(struct ort *o, void *options, const struct ort_key *key)
{
    const struct ort_api *api = &o->api;
    char limit[24];
    const char *keys[] = { "use_tf32", "arena_extend_strategy", "gpu_mem_limit" };
    const char *values[] = { "0", "kSameAsRequested", limit };
    void *with;
    snprintf(limit, sizeof limit, "%lld", (long long)key->device_bytes);
    CALL(api, UNAVAILABLE, "use CUDA", CreateCUDAProviderOptions, &with);
    void *status = api->UpdateCUDAProviderOptions(with, keys, values, key->device_bytes ? 3 : 1);
    if (!status)
        status = api->SessionOptionsAppendExecutionProvider_CUDA_V2(options, with);
    api->ReleaseCUDAProviderOptions(with);
    return status ? ort_status_err(api, status, UNAVAILABLE, "use CUDA") : NULL;
}

static err tensorrt_append(struct ort *o, void *options, const struct ort_key *key)
{
    const struct ort_api *api = &o->api;
    void *with;
    (void)key;
    CALL(api, UNAVAILABLE, "use TensorRT", CreateTensorRTProviderOptions, &with);
    void *status = api->SessionOptionsAppendExecutionProvider_TensorRT_V2(options, with);
    api->ReleaseTensorRTProviderOptions(with);
    return status ? ort_status_err(api, status, UNAVAILABLE, "use TensorRT") : NULL;
}

static err openvino_append(struct ort *o, void *options, const struct ort_key *key)
{
    char n[16];
    const char *keys[] = { "device_type", "num_of_threads" }, *values[] = { "CPU", n };
    (void)snprintf(n, sizeof n, "%d", key->threads);
    CALL(&o->api, UNAVAILABLE, "use OpenVINO", SessionOptionsAppendExecutionProvider_OpenVINO_V2, options,
         keys, values, 2);
    return NULL;
}

static err xnnpack_append(struct ort *o, void *options, const struct ort_key *key)
{
    char n[16];
    const char *name = "intra_op_num_threads", *value = n;
    (void)snprintf(n, sizeof n, "%d", key->threads);
    CALL(&o->api, UNAVAILABLE, "use XNNPACK", SessionOptionsAppendExecutionProvider, options, "XNNPACK",
         &name, &value, 1);
    return NULL;
}

/* Not in the table of calls: a function of its own in libraries that have it. */
static err acl_append(struct ort *o, void *options, const struct ort_key *key)
{
    void *(*append)(void *options, bool fast);
    void *at = dlsym(o->so, "OrtSessionOptionsAppendExecutionProvider_ACL");
    (void)key;
    if (!at)
        FAIL(UNAVAILABLE, "this ONNX Runtime cannot be told to use ACL");
    memcpy(&append, &at, sizeof append);
    void *status = append(options, false);
    return status ? ort_status_err(&o->api, status, UNAVAILABLE, "use ACL") : NULL;
}

// clang-format off
static const struct ort_device devices[] = { /* best first, the CPU last */
    { "cuda",     "CUDAExecutionProvider",     "libonnxruntime_providers_cuda.so",     true,  cuda_append },
    { "tensorrt", "TensorrtExecutionProvider", "libonnxruntime_providers_tensorrt.so", false, tensorrt_append },
    { "openvino", "OpenVINOExecutionProvider", "libonnxruntime_providers_openvino.so", false, openvino_append },
    { "acl",      "ACLExecutionProvider",      NULL,                                   false, acl_append },
    { "xnnpack",  "XnnpackExecutionProvider",  NULL,                                   false, xnnpack_append },
    { "cpu",      "CPUExecutionProvider",      NULL,                                   true,  cpu_append },
};
// clang-format on
enum { DEVICES = sizeof devices / sizeof *devices };

const struct ort_device *ort_device_next(const struct ort_device *d)
{
    d = d ? d + 1 : devices;
    return d < devices + DEVICES ? d : NULL;
}

err ort_device_find(const char *name, const struct ort_device **out)
{
    auto_arena struct arena *a = arena_new(0);
    struct buf names = buf_new(a);
    for (*out = devices; *out < devices + DEVICES; ++*out) {
        if (!strcmp((*out)->name, name))
            return NULL;
        buf_fmt(&names, ", %s", (*out)->name);
    }
    FAIL(INVALID, "there is no device '%s'; there are auto%.*s", name, STR(buf_get(&names)));
}

const char *ort_device_name(const struct ort_device *d)
{
    return d->name;
}

bool ort_device_auto(const struct ort_device *d)
{
    return d->automatic;
}

static err built_in(struct ort *o, const char *provider, bool *out)
{
    char **names;
    int n = 0;
    CALL(&o->api, INTERNAL, "list its providers", GetAvailableProviders, &names, &n);
    for (int i = 0; i < n && !*out; i++)
        *out = !strcmp(names[i], provider);
    CALL(&o->api, INTERNAL, "list its providers", ReleaseAvailableProviders, names, n);
    return NULL;
}

/* The path of this file beside the library that is loaded. */
static const char *beside(struct ort *o, struct arena *a, const char *file)
{
    Dl_info at = { 0 };
    void *entry = dlsym(o->so, "OrtGetApiBase");
    (void)dladdr(entry, &at);
    struct str path = str_of(at.dli_fname ? at.dli_fname : "");
    while (path.n && path.p[path.n - 1] != '/')
        path.n--;
    return fmtz(a, "%.*s%s", STR(path), file);
}

err ort_device_here(struct ort *o, const struct ort_device *d)
{
    auto_arena struct arena *a = arena_new(0);
    bool there = false;
    TRY(built_in(o, d->provider, &there));
    if (!there)
        FAIL(UNAVAILABLE, "this ONNX Runtime %.40s is built without %s%s%s", o->version, d->provider,
             d->library ? " and " : "", d->library ? d->library : "");
    const char *path = d->library ? beside(o, a, d->library) : NULL;
    if (path && !file_exists(path))
        FAIL(UNAVAILABLE, "%s needs %s, which is not there", d->provider, path);
    return NULL;
}

err ort_device_append(struct ort *o, const struct ort_device *d, void *options, const struct ort_key *key)
{
    return d->append(o, options, key);
}

err ort_devices(struct runtime *rt, struct arena *a, const struct runtime_device **out, size_t *n)
{
    struct runtime_device *list = NEW_N(a, struct runtime_device, DEVICES);
    for (size_t i = 0; i < DEVICES; i++) {
        err e = ort_device_here((struct ort *)rt, &devices[i]);
        list[i] = (struct runtime_device){ devices[i].name, e ? str_z(a, e->text) : NULL };
    }
    *out = list;
    *n = DEVICES;
    return NULL;
}
