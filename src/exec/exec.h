/* exec: starts and watches jobs as child processes; local now, Slurm, Kubernetes and MPI behind the same table.
 * Flow     sched --exec_start--> shim (own session and process group) --> the job; files in DIR/jobs/ID tell the rest.
 * Owns     DIR/jobs/ID: spec.json, out.log, metrics.jsonl, progress.json, result.json, exit.json, pid.
 * Crash    the shim outlives the daemon; exec_poll() finds a running job again by pid and start time.
 * Threads  any.
 * Errors   INVALID, NOT_FOUND, UNAVAILABLE (cannot start), LIMIT. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

struct exec_job {
    struct str id;           /* folder name, unique for ever; attempt included: "01h…-1" */
    const char *const *argv; /* NULL-terminated; argv[0] an absolute path */
    const char *const *env;  /* NULL-terminated "K=V"; nothing else is passed on */
    struct str spec;         /* written to spec.json; the job gets --dir DIR/jobs/ID */
    int64_t memory_bytes;    /* 0: no limit; beyond: killed, reason "out of memory" */
    int64_t cpu_cores;       /* for affinity and OMP_NUM_THREADS; 0: all */
    int64_t timeout_ms;      /* 0: none; then SIGTERM, 10 s later SIGKILL to the group, reason "timeout" */
    int64_t log_bytes_max;   /* 0: 64 MiB; what is beyond is cut with a note */
};
enum exec_phase { EXEC_RUNNING, EXEC_DONE, EXEC_LOST /* neither a process nor exit.json */ };
struct exec_state {
    enum exec_phase phase;
    int64_t pid;
    int exit_code; /* valid for DONE */
    int signal;
    struct str reason; /* "", "out of memory", "timeout", "cancelled", "signal 11", "exit 3" */
    double cpu_seconds;
    int64_t memory_peak;
    int64_t started, finished; /* µs */
};
struct exec;
struct exec_ops {
    const char *name; /* "local" */
    /* must. dir: the store's folder; program: this binary, which is also the shim. */
    err (*open)(const char *dir, const char *program, struct exec **out);
    err (*start)(struct exec *, const struct exec_job *); /* must; returns once the shim runs */
    err (*poll)(struct exec *, struct arena *a, struct str id, struct exec_state *out); /* must */
    err (*cancel)(struct exec *, struct str id); /* must; SIGTERM, then SIGKILL */
    err (*remove)(struct exec *, struct str id); /* must; the folder of a finished job */
    void (*close)(struct exec *);                /* must; leaves jobs running */
};
extern const struct exec_ops exec_local;
extern const struct exec_ops *const exec_backends[]; /* NULL-terminated */
struct exec {
    const struct exec_ops *ops; /* first member of every backend */
};
/* The job's folder. */
const char *exec_dir(struct arena *a, const char *store_dir, struct str id);
/* `dhow shim DIR`: what the child of the daemon does. Returns the exit code. Not for people. */
int exec_shim(const char *job_dir);
