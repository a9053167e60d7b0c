/* runtime: what runs a model, behind one table: ONNX Runtime; our own engine, for small networks; for trees as XGBoost wrote them
 *          a kernel of our own.
 * Flow     runtime_open --> load (bytes → session) --> describe, warm, run … run --> unload --> close.
 * Owns     a session owns its model and the text of its description; the caller owns tensors' data.
 * Threads  load, unload, close: any. run: any number at once on one session. A session_call belongs to one thread.
 * Sharing  loads of the same bytes with the same settings give the same session of ONNX Runtime, counted: weights are there once.
 * Errors   UNAVAILABLE (no library, too old, a device that is not there), INVALID (the model or a tensor does not
 *          fit), UNSUPPORTED (outputs that are no tensors), TIMEOUT or CANCELLED (stopped by a run_control),
 *          INTERNAL. Text of the library's own errors is cut at 500 bytes.
 * Files    models come from memory only; nothing is read or written beside the library itself. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"
#include <pthread.h>

struct runtime;
struct session;
struct session_call;

struct runtime_config {
    const char *library; /* path of its shared library; NULL: the environment, then the usual places */
    int threads; /* of one pool for all sessions that ask for more than one; 0, 1: each makes a pool of its own.
                  * The process has one such pool: with two runtimes open, who opens first says this. */
};
struct session_config {
    int threads; /* inside one operator; 0: 1 (no pool at all, best for small models under many callers) */
    bool raw;    /* no graph optimisation */
    bool sure;   /* of others than ONNX Runtime: UNSUPPORTED if that may be faster for this model */
    const char
        *device; /* "auto" (NULL): the best that is there and takes the model; or a name of runtime_devices */
    int64_t device_bytes; /* that its memory on a CUDA device may grow to; 0: any */
};
struct session_info {
    const struct tensor_spec *inputs, *outputs;
    size_t n_inputs, n_outputs;
    const struct strs
        *labels; /* one list an output: classes that its columns stand for; empty where none are known */
    const char *device; /* where it runs: "cpu", "cuda", … */
    const char *why;    /* why no better device was taken; "" if none was passed over */
};
/* One tensor of a call. Rows are contiguous, row-major; nothing is copied but TEXT. */
struct tensor {
    size_t slot; /* which input or output, an index into session_info */
    enum tensor_type type;
    size_t rank;
    int64_t dims[TENSOR_RANK_MAX];
    void *
        data; /* aligned to its elements. TEXT: struct str, one an element. Outputs: NULL to be given memory */
    size_t bytes; /* of data; TEXT: elements × sizeof(struct str) */
};

/* Stops runs from another thread: one for each request, over any number of runs that follow each other. */
struct run_control {
    pthread_mutex_t lock;
    enum err_code why; /* set by run_control_stop */
    void (*stop)(void *run);
    void *run; /* the one under way */
};
#define RUN_CONTROL_INIT                  \
    {                                     \
        .lock = PTHREAD_MUTEX_INITIALIZER \
    }
/* The run under way, and those to come, end with this code (TIMEOUT, CANCELLED) and say so. A model is left between
 * two of its operators. Any thread; the first call counts. */
void run_control_stop(struct run_control *, enum err_code why);
/* For backends: around a run that `stop` can end; the second says why it failed. control may be NULL. */
err run_control_enter(struct run_control *, void (*stop)(void *run), void *run);
err run_control_leave(struct run_control *, err e);

/* What `stop` does to a run that looks at a flag between two of its parts: sets it. run: an atomic_bool. */
void run_stop_flag(void *run);

struct runtime_device {
    const char *name; /* "cuda" */
    const char *why;  /* why it cannot be used; NULL: it can, as far as can be seen without a model */
};

struct runtime_ops {
    const char *name;   /* "onnxruntime" */
    const char *format; /* of the bytes that it loads: "onnx", "xgboost" */
    /* must; finds and opens the library. */
    err (*open)(const struct runtime_config *, struct runtime **out);
    /* must; "1.31.1". */
    const char *(*version)(struct runtime *);
    /* must; best first, "cpu" last; lives as long as a. */
    err (*devices)(struct runtime *, struct arena *a, const struct runtime_device **out, size_t *n);
    /* must; bytes may go once it returns. Whoever gives foreign bytes has passed them through onnx_check first. */
    err (*load)(struct runtime *, struct str bytes, const struct session_config *, struct session **out);
    /* must; lives as long as the session. */
    const struct session_info *(*describe)(struct session *);
    /* must; all inputs, in any order, and any of the outputs. An output with data must have the exact dims and
     * bytes (no allocation then); one without gets type, dims and data in `a`, which may be NULL if there is none.
     * control may be NULL. */
    err (*run)(struct session *, struct run_control *control, struct arena *a, const struct tensor *in,
               size_t n_in, struct tensor *out, size_t n_out);
    /* may be NULL, all three: then each call is a run. Tensors are as run takes them, outputs with data, no TEXT. */
    err (*bind)(struct session *, const struct tensor *in, size_t n_in, const struct tensor *out,
                size_t n_out, void **bound);
    err (*run_bound)(struct session *, void *bound, struct run_control *control);
    void (*unbind)(struct session *, void *bound);
    /* must; memory goes back to the system with the last of its loads. No run may be under way. */
    void (*unload)(struct session *);
    /* must; NULL is fine; after its sessions. The library itself stays in the process. */
    void (*close)(struct runtime *);
};
extern const struct runtime_ops runtime_ort, runtime_engine, runtime_trees;
extern const struct runtime_ops *const runtime_backends[]; /* NULL-terminated; the first is the default */

struct runtime {
    const struct runtime_ops *ops; /* first member of every backend's */
};
struct session {
    const struct runtime_ops *ops; /* first member of every backend's */
};
/* ---- for backends that are this program: there is no library to open, and the device is the processor ---- */
err runtime_own_open(const struct runtime_ops *, struct runtime **out);
void runtime_own_close(struct runtime *);
const char *runtime_own_version(struct runtime *);
err runtime_own_devices(struct runtime *, struct arena *a, const struct runtime_device **out, size_t *n);
/* UNAVAILABLE if another device is asked for. */
err runtime_own_device(const struct session_config *);

/* The default backend. Call before other threads start: it sets an environment variable that keeps ONNX Runtime
 * (1.29 and later) from reporting to its makers. */
err runtime_open(const struct runtime_config *, struct runtime **out);
/* The backend of this name; INVALID if there is none. */
err runtime_open_named(struct str name, const struct runtime_config *, struct runtime **out);
const char *runtime_version(struct runtime *);
err runtime_devices(struct runtime *, struct arena *a, const struct runtime_device **out, size_t *n);
void runtime_close(struct runtime *);
err session_load(struct runtime *, struct str bytes, const struct session_config *, struct session **out);
const struct session_info *session_describe(struct session *);
err session_run(struct session *, struct arena *a, const struct tensor *in, size_t n_in, struct tensor *out,
                size_t n_out);
/* session_run that another thread may stop. */
err session_run_until(struct session *, struct run_control *, struct arena *a, const struct tensor *in,
                      size_t n_in, struct tensor *out, size_t n_out);
void session_unload(struct session *);

/* A run of the same tensors again and again: the caller writes into the inputs' memory, calls, and reads the
 * outputs'. Checks and wrapping are done once. */
err session_call_new(struct session *, const struct tensor *in, size_t n_in, const struct tensor *out,
                     size_t n_out, struct session_call **out_call);
err session_call_run(struct session_call *, struct run_control *); /* control may be NULL */
void session_call_free(struct session_call *);                     /* NULL is fine; before its session */

/* A tensor of zeros for each input (TEXT: empty). Open dimensions: the first is rows, others are 1. TOO_LARGE if one
 * passes 64 MiB. */
err session_zeros(const struct session_info *, struct arena *a, size_t rows, struct tensor **out);
/* The same of numbers to compare two forms of a model on: floats between -2 and 2, but the first DRAWN_ODD rows are zeros, no numbers,
 * infinite, hardly above zero; whole numbers 0 or 1. UNSUPPORTED of other types. */
enum { DRAWN_ODD = 5 };
err session_drawn(const struct session_info *, struct arena *a, size_t rows, struct tensor **out);
/* One run on zeros, so that a client does not wait for what the first run allocates. */
err session_warm(struct session *, size_t rows);
/* Scores of n rows of a model with one float input [N, features] and one float output [N] or [N, 1], by calls of
 * at most `batch` rows (0: 4,096). x is row-major. INVALID if the model is of another shape. */
err session_score(struct session *, const float *x, size_t n, size_t features, size_t batch, float *out);
/* The same of one that takes categories, too: a second input of texts [N, texts]; none: as above. And of one that gives a row
 * several numbers. */
struct score_rows {
    const float *x;
    size_t n, features;
    const struct str *text;
    size_t texts;
};
/* out: `width` numbers a row, row-major, of the first float output [N] or [N, 1], or else the first [N, width]. */
err session_score_output(struct session *, size_t *output, size_t *width);
err session_score_rows(struct session *, const struct score_rows *, size_t batch, float *out);
/* Does it take numbers [N, F] and nothing else, or texts [N, T] as its second input? */
bool session_by_rows(const struct session_info *, size_t *features, size_t *texts);

/* How far two sessions of one model (ONNX Runtime's, and another's) are apart on the same rows, each a run of its own: the largest
 * difference of an output, of values above 1 relative to the first's; infinity if they cannot be compared.
 * in: all inputs, by slot, with equally many rows on axis 0, at least one; else INVALID. Outputs are to be numbers. */
err sessions_compare(struct session *first, struct session *second, const struct tensor *in, double *apart);
