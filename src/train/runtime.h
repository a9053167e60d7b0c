/* runtime: what runs a model; ONNX Runtime now, another behind the same table.
 * Flow     runtime_open --> load (bytes → session) --> describe, run … run --> unload --> close.
 * Owns     a session owns its model and the text of its description; the caller owns tensors' data.
 * Threads  load, unload, close: any, one at a time per object. run: any number at once on one session.
 * Errors   UNAVAILABLE (no library, too old), INVALID (the model or a tensor does not fit), UNSUPPORTED
 *          (outputs that are no tensors), INTERNAL. Text of the library's own errors is cut at 500 bytes.
 * Files    models come from memory only; nothing is read or written beside the library itself. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"

struct runtime;
struct session;

struct runtime_config {
    const char *library; /* path of its shared library; NULL: the environment, then the usual places */
};
struct session_config {
    int threads; /* inside one operator; 0: 1 (no pool at all, best for small models under many callers) */
    bool arena;  /* keep a memory arena: faster for big tensors, never shrinks */
    bool raw;    /* no graph optimisation */
};
struct session_info {
    const struct tensor_spec *inputs, *outputs;
    size_t n_inputs, n_outputs;
};
/* One tensor of a call. Rows are contiguous, row-major. */
struct tensor {
    size_t slot; /* which input or output, an index into session_info */
    enum tensor_type type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    void *data;   /* TEXT: struct str, one an element. Outputs: NULL to be given memory by run */
    size_t bytes; /* of data; TEXT: elements × sizeof(struct str) */
};

struct runtime_ops {
    const char *name; /* "onnxruntime" */
    /* must; finds and opens the library. */
    err (*open)(const struct runtime_config *, struct runtime **out);
    /* must; "1.31.1". */
    const char *(*version)(struct runtime *);
    /* must; bytes may go once it returns. Whoever gives foreign bytes has passed them through onnx_check first. */
    err (*load)(struct runtime *, struct str bytes, const struct session_config *, struct session **out);
    /* must; lives as long as the session. */
    const struct session_info *(*describe)(struct session *);
    /* must; all inputs, in any order, and any of the outputs. An output with data must have the exact dims and
     * bytes (no allocation then); one without gets type, dims and data in `a`, which may be NULL if there is none. */
    err (*run)(struct session *, struct arena *a, const struct tensor *in, size_t n_in, struct tensor *out,
               size_t n_out);
    /* must; NULL is fine; memory goes back to the system. No run may be under way. */
    void (*unload)(struct session *);
    /* must; NULL is fine; after its sessions. The library itself stays in the process. */
    void (*close)(struct runtime *);
};
extern const struct runtime_ops runtime_ort;
extern const struct runtime_ops *const runtime_backends[]; /* NULL-terminated; the first is the default */

struct runtime {
    const struct runtime_ops *ops; /* first member of every backend's */
};
struct session {
    const struct runtime_ops *ops; /* first member of every backend's */
};
/* The default backend. Call before other threads start: it sets an environment variable that keeps ONNX Runtime
 * (1.29 and later) from reporting to its makers. */
err runtime_open(const struct runtime_config *, struct runtime **out);
const char *runtime_version(struct runtime *);
void runtime_close(struct runtime *);
err session_load(struct runtime *, struct str bytes, const struct session_config *, struct session **out);
const struct session_info *session_describe(struct session *);
err session_run(struct session *, struct arena *a, const struct tensor *in, size_t n_in, struct tensor *out,
                size_t n_out);
void session_unload(struct session *);
/* Scores of n rows of a model with one float input [N, features] and one float output [N] or [N, 1], by calls of
 * at most `batch` rows (0: 4,096). x is row-major. INVALID if the model is of another shape. */
err session_score(struct session *, const float *x, size_t n, size_t features, size_t batch, float *out);
