/* train/ort: ONNX Runtime by its C API, called by slot: its table only ever grows, so slots of version 17 hold for all
 * later ones (onnxruntime_c_api.h, struct OrtApi).
 * Parts    ort.c (library, sessions), ort_run.c (runs), ort_maps.c (outputs that are maps), ort_device.c (providers). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "train/runtime.h"

// clang-format off
#define ORT_CALLS(C) /* slot, result, name, parameters; a void * that comes back is an OrtStatus, NULL when all went well */ \
    C(  1, int,          GetErrorCode,        (const void *status))                                        \
    C(  2, const char *, GetErrorMessage,     (const void *status))                                        \
    C(  3, void *,       CreateEnv,           (int level, const char *id, void **out))                     \
    C(  6, void *,       DisableTelemetryEvents, (const void *env))                                        \
    C(  8, void *,       CreateSessionFromArray, (const void *env, const void *bytes, size_t n, const void *options, void **out)) \
    C(  9, void *,       Run,                 (void *session, const void *options, const char *const *in_names, const void *const *in, size_t n_in, const char *const *out_names, size_t n_out, void **out)) \
    C( 10, void *,       CreateSessionOptions, (void **out))                                               \
    C( 19, void *,       DisableCpuMemArena,  (void *options))                                             \
    C( 23, void *,       SetSessionGraphOptimizationLevel, (void *options, int level))                     \
    C( 24, void *,       SetIntraOpNumThreads, (void *options, int n))                                     \
    C( 25, void *,       SetInterOpNumThreads, (void *options, int n))                                     \
    C( 30, void *,       SessionGetInputCount, (const void *session, size_t *out))                         \
    C( 31, void *,       SessionGetOutputCount, (const void *session, size_t *out))                        \
    C( 33, void *,       SessionGetInputTypeInfo, (const void *session, size_t i, void **out))             \
    C( 34, void *,       SessionGetOutputTypeInfo, (const void *session, size_t i, void **out))            \
    C( 36, void *,       SessionGetInputName, (const void *session, size_t i, void *allocator, char **out)) \
    C( 37, void *,       SessionGetOutputName, (const void *session, size_t i, void *allocator, char **out)) \
    C( 39, void *,       CreateRunOptions,    (void **out))                                                \
    C( 46, void *,       RunOptionsSetTerminate, (void *options))                                          \
    C( 48, void *,       CreateTensorAsOrtValue, (void *allocator, const int64_t *dims, size_t rank, int type, void **out)) \
    C( 49, void *,       CreateTensorWithDataAsOrtValue, (const void *memory, void *data, size_t bytes, const int64_t *dims, size_t rank, int type, void **out)) \
    C( 51, void *,       GetTensorMutableData, (void *value, void **out))                                  \
    C( 53, void *,       GetStringTensorDataLength, (const void *value, size_t *out))                      \
    C( 54, void *,       GetStringTensorContent, (const void *value, void *text, size_t bytes, size_t *offsets, size_t n)) \
    C( 55, void *,       CastTypeInfoToTensorInfo, (const void *info, const void **out))                   \
    C( 56, void *,       GetOnnxTypeFromTypeInfo, (const void *info, int *out))                            \
    C( 60, void *,       GetTensorElementType, (const void *shape, int *out))                              \
    C( 61, void *,       GetDimensionsCount,  (const void *shape, size_t *out))                            \
    C( 62, void *,       GetDimensions,       (const void *shape, int64_t *dims, size_t n))                \
    C( 63, void *,       GetSymbolicDimensions, (const void *shape, const char **names, size_t n))         \
    C( 65, void *,       GetTensorTypeAndShape, (const void *value, void **out))                           \
    C( 69, void *,       CreateCpuMemoryInfo, (int allocator, int kind, void **out))                       \
    C( 76, void *,       AllocatorFree,       (void *allocator, void *p))                                  \
    C( 78, void *,       GetAllocatorWithDefaultOptions, (void **out))                                     \
    C( 80, void *,       GetValue,            (const void *value, int i, void *allocator, void **out))     \
    C( 81, void *,       GetValueCount,       (const void *value, size_t *out))                            \
    C( 92, void,         ReleaseEnv,          (void *))                                                    \
    C( 93, void,         ReleaseStatus,       (void *))                                                    \
    C( 94, void,         ReleaseMemoryInfo,   (void *))                                                    \
    C( 95, void,         ReleaseSession,      (void *))                                                    \
    C( 96, void,         ReleaseValue,        (void *))                                                    \
    C( 97, void,         ReleaseRunOptions,   (void *))                                                    \
    C( 98, void,         ReleaseTypeInfo,     (void *))                                                    \
    C( 99, void,         ReleaseTensorTypeAndShapeInfo, (void *))                                          \
    C(100, void,         ReleaseSessionOptions, (void *))                                                  \
    C(103, void *,       CastTypeInfoToMapTypeInfo, (const void *info, const void **out))                  \
    C(104, void *,       CastTypeInfoToSequenceTypeInfo, (const void *info, const void **out))             \
    C(105, void *,       GetMapKeyType,       (const void *map, int *out))                                 \
    C(106, void *,       GetMapValueType,     (const void *map, void **out))                               \
    C(107, void *,       GetSequenceElementType, (const void *sequence, void **out))                       \
    C(119, void *,       CreateEnvWithGlobalThreadPools, (int level, const char *id, const void *threading, void **out)) \
    C(120, void *,       DisablePerSessionThreads, (void *options))                                        \
    C(121, void *,       CreateThreadingOptions, (void **out))                                             \
    C(122, void,         ReleaseThreadingOptions, (void *))                                                \
    C(125, void *,       GetAvailableProviders, (char ***out, int *n))                                     \
    C(126, void *,       ReleaseAvailableProviders, (char **names, int n))                                 \
    C(130, void *,       AddSessionConfigEntry, (void *options, const char *key, const char *value))       \
    C(133, void *,       RunWithBinding,      (void *session, const void *options, const void *binding))   \
    C(134, void *,       CreateIoBinding,     (void *session, void **out))                                 \
    C(135, void,         ReleaseIoBinding,    (void *))                                                    \
    C(136, void *,       BindInput,           (void *binding, const char *name, const void *value))        \
    C(137, void *,       BindOutput,          (void *binding, const char *name, const void *value))        \
    C(147, void *,       SetGlobalIntraOpNumThreads, (void *threading, int n))                             \
    C(148, void *,       SetGlobalInterOpNumThreads, (void *threading, int n))                             \
    C(149, void *,       SetGlobalSpinControl, (void *threading, int on))                                  \
    C(170, void *,       SessionOptionsAppendExecutionProvider_TensorRT_V2, (void *options, const void *with)) \
    C(171, void *,       CreateTensorRTProviderOptions, (void **out))                                      \
    C(174, void,         ReleaseTensorRTProviderOptions, (void *))                                         \
    C(204, void *,       SessionOptionsAppendExecutionProvider_CUDA_V2, (void *options, const void *with)) \
    C(205, void *,       CreateCUDAProviderOptions, (void **out))                                          \
    C(206, void *,       UpdateCUDAProviderOptions, (void *with, const char *const *keys, const char *const *values, size_t n)) \
    C(208, void,         ReleaseCUDAProviderOptions, (void *))                                             \
    C(216, void *,       SessionOptionsAppendExecutionProvider, (void *options, const char *provider, const char *const *keys, const char *const *values, size_t n)) \
    C(252, void *,       GetResizedStringTensorElementBuffer, (void *value, size_t i, size_t bytes, char **out)) \
    C(275, void *,       SessionOptionsAppendExecutionProvider_OpenVINO_V2, (void *options, const char *const *keys, const char *const *values, size_t n))
// clang-format on

struct ort_api {
#define C(slot, result, name, parameters) result(*name) parameters;
    ORT_CALLS(C)
#undef C
};
struct ort {
    struct runtime base;
    struct ort_api api;
    const char *version;
    void *so, *env, *memory, *allocator, *options; /* options: of a run that nobody stops */
    int threads;                                   /* of the shared pool; 0: there is none */
    pthread_mutex_t lock;
    struct ort_session *sessions; /* those loaded; lock */
};

/* How an output that is a sequence of maps (scikit-learn's ZipMap) is turned into a tensor [N, classes]. */
struct ort_maps {
    enum tensor_type key; /* I64 or TEXT; NONE: the output is a tensor */
    size_t n;             /* classes */
    const int64_t *numbers;
    const struct str *texts;
};
/* What makes two loads the same. */
struct ort_key {
    uint8_t sha256[32];
    int threads;
    bool raw;
    char device[16];
    int64_t device_bytes;
};
struct ort_session {
    struct session base;
    struct ort *ort;
    void *handle;
    struct arena *a; /* text and lists below */
    struct session_info info;
    const char **in_names, **out_names;
    const struct ort_maps *maps; /* one an output */
    struct ort_key key;
    int refs; /* ort's lock */
    struct ort_session *next;
};

/* Its own words, on one line, at most 500 bytes; releases status. */
err ort_status_err(const struct ort_api *, void *status, enum err_code, const char *what);
#define CALL(api, code, what, name, ...)                       \
    do {                                                       \
        void *status_ = (api)->name(__VA_ARGS__);              \
        if (status_)                                           \
            return ort_status_err((api), status_, code, what); \
    } while (0)

/* Type and shape of a tensor's description; TENSOR_NONE for types that are not in the table. Symbols only with an arena. */
err ort_shape_read(const struct ort_api *, struct arena *, const void *shape, struct tensor_spec *out);

err ort_run(struct session *, struct run_control *, struct arena *, const struct tensor *in, size_t n_in,
            struct tensor *out, size_t n_out);
err ort_bind(struct session *, const struct tensor *in, size_t n_in, const struct tensor *out, size_t n_out,
             void **bound);
err ort_run_bound(struct session *, void *bound, struct run_control *);
void ort_unbind(struct session *, void *bound);

/* Output slot of a run on one row of zeros; *value is the caller's to release. */
err ort_probe(struct ort_session *, size_t slot, void **value);
/* Sets maps->key if the type, which is no tensor's, is a sequence of maps of floats. */
err ort_maps_find(const struct ort_api *, const void *type_info, struct ort_maps *maps);
/* A run on zeros tells the classes of output i; it then is described as a tensor. Where that run fails, maps->key goes
 * back to NONE and the output cannot be asked for. */
void ort_maps_probe(struct ort_session *, size_t i, struct tensor_spec *, struct ort_maps *,
                    struct strs *labels);
/* A value of this output → rows of floats, in given memory or a's. UNSUPPORTED if a row has other classes. */
err ort_maps_copy(struct ort_session *, struct arena *, void *value, struct tensor *out);
/* A tensor's texts into a. */
err ort_texts_copy(struct ort *, struct arena *, void *value, size_t n, struct tensor *out);

struct ort_device;
/* Walks the table, best first; NULL to begin, NULL at the end. */
const struct ort_device *ort_device_next(const struct ort_device *);
/* INVALID, with the names that there are. */
err ort_device_find(const char *name, const struct ort_device **out);
const char *ort_device_name(const struct ort_device *);
/* "auto" may take it. */
bool ort_device_auto(const struct ort_device *);
/* UNAVAILABLE, naming what is missing. */
err ort_device_here(struct ort *, const struct ort_device *);
err ort_device_append(struct ort *, const struct ort_device *, void *options, const struct ort_key *);
err ort_devices(struct runtime *, struct arena *, const struct runtime_device **out, size_t *n);
