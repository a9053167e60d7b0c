/* serve, inside.
 * Hot path  infer.c reads one struct snap between snap_enter() and snap_leave(); all that it points to stays.
 * Control   reconcile.c (one thread) decides, load.c loads on a lane, snap.c publishes and retires, idle.c wakes. What they share
 *           is under serve.m; a count of references keeps models, plans and tallies that a snapshot holds. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/serve.h"
#include <stdatomic.h>

enum {
    SLOTS = 256,      /* requests at work at once; further ones wait their turn */
    STRIPES = 16,     /* of a tally, so that threads count apart */
    BUCKETS = 20,     /* of a histogram of times */
    BATCH_SIZES = 64, /* rows of a run that are told apart */
    VERSIONS_MAX = TRAFFIC_MAX +
                   2, /* of one deployment; a shadow, and one that stands in for what is loading */
    OBSERVERS_MAX = 8,
    BODY_BYTES_MAX = 64 << 20, /* unless told */
    TENSORS_MAX = 64,          /* inputs or outputs of a model that is served */
    CELLS_MAX = 1 << 24,       /* rows × features of a request by key */
    LIGHT_NS = 300000,         /* a run up to here may be on an event loop's thread */
    LIGHT_BYTES = 1 << 20,
    SMALL_BYTES = 32 << 10, /* a body up to here may be read there, whatever its model takes */
    RETRY_MS = 10000,       /* before a version that could not be loaded is tried again */
    MIRROR_MS = 30000,      /* how often counts are written to status */
    ROLLOUT_MS = 200,       /* how often a rollout is looked at */
    LOADERS = 2,
    WAITERS_MAX = 1024,        /* requests of one deployment that wait for it to be loaded */
    SUSPEND_MS = 30000,        /* how long deployment_suspend() waits */
    COPIES_MAX = 64,           /* requests that wait for a shadow */
    COPY_BYTES_MAX = 64 << 20, /* of all of these */
    WORST_MAX = 5,             /* examples in a shadow's report */
    SEEN_MAX = 1 << 18, /* predictions that an A/B test remembers until their outcome comes; 24 bytes each */
};

/* Counts of one version of one deployment, since the daemon started. Times are of requests that were answered, but
 * for fail_ns; from arrival: input (parsing, features), queue, infer (the run), output (writing the reply).
 * rejected … other: the requests that failed or were refused, by Triton's reasons. in_flight and pending go down
 * again: requests at work, and those of them that wait for their turn (who queues them counts). */
// clang-format off
#define TALLY(T) \
    T(requests) T(failed) T(refused) T(rows) T(missing) T(executions) T(shed) T(expired) T(gone) T(in_flight) T(pending) \
    T(rejected) T(canceled) T(backend) T(other) T(logged) T(unlogged) \
    T(took_ns) T(fail_ns) T(input_ns) T(queue_ns) T(infer_ns) T(output_ns) \
    T(cache_hits) T(cache_misses) T(hit_ns) T(miss_ns) T(cold_starts) T(cold_ns)
// clang-format on
enum phase { PHASE_ALL, PHASE_INPUT, PHASE_QUEUE, PHASE_INFER, PHASE_OUTPUT, PHASES };
struct stripe {
#define T(name) _Atomic int64_t name;
    _Alignas(64) TALLY(T)
#undef T
        _Atomic int64_t last_us; /* when it was asked last, since 1970 */
    _Atomic int64_t buckets[PHASES][BUCKETS];
    _Atomic int64_t batch_n[BATCH_SIZES], batch_ns[BATCH_SIZES]; /* runs of i + 1 rows; see tally_batches() */
};
/* The last traced request whose time fell into a bucket. */
struct exemplar {
    atomic_flag busy;
    char id[TRACE_ID_TEXT];
    int64_t took_ns, at_us; /* at_us 0: none yet */
};
struct request_sink;
struct tally {
    int refs;
    _Atomic(struct request_sink *) sink; /* of the request log; NULL: off. With m held when it is set */
    struct exemplar exemplars[BUCKETS];
    struct stripe stripe[STRIPES];
};
struct totals {
#define T(name) int64_t name;
    TALLY(T)
#undef T
    int64_t last_us, buckets[PHASES][BUCKETS];
};
extern const int64_t bucket_us[BUCKETS]; /* upper bounds; the last is open */
void tally_sum(const struct tally *, struct totals *out);
struct batches {
    int64_t n[BATCH_SIZES], ns[BATCH_SIZES]; /* runs of i + 1 rows, and the time that they took */
};
void tally_batches(const struct tally *, struct batches *out); /* batch.c */

/* A version in memory. */
enum model_state { MODEL_LOADING, MODEL_READY, MODEL_FAILED };
struct model {
    struct model *next; /* of serve.models */
    int refs;
    struct arena *a; /* owns all text here */
    struct str project, name, number, service;
    const char *device; /* as asked for */
    int64_t device_bytes;
    enum model_runtime runtime;
    struct session *session;
    const struct session_info *info;
    const char *by;               /* what runs it: of model_runtimes; NULL: an ensemble */
    struct str why;               /* why no other does, or no better device */
    bool composed;                /* an ensemble (ensemble.c); its number is 1 */
    bool batches;                 /* rows of several requests can be one run */
    bool by_rows;                 /* one input, float [N, F], and perhaps one of texts, [N, T] */
    size_t features;              /* F; 0 if open */
    size_t texts;                 /* T; 0: none */
    const struct str *text_names; /* of the texts; NULL if the signature has none */
    const struct str *names;      /* of the features; NULL if the signature has none */
    struct str *personal;         /* features, inputs or outputs that the signature calls personal */
    size_t personal_n;
    struct str definition;
    size_t bytes;           /* of the file */
    _Atomic int64_t run_ns; /* of a call, lately; 0: not known */
    /* Of a row, lately, in runs of one request and of several; 0: not known. */
    _Atomic int64_t alone_ns, together_ns;
    _Atomic int64_t
        share; /* the second of the first, SHARE_ONE: equal; by so many comparisons (batch_pays) */
    _Atomic unsigned compared;
    _Atomic unsigned turns; /* choices between the two */
    struct bound **bounds;  /* by loop: a row's tensors that stay (bound.c); NULL: its form is another */
    enum model_state state;
    struct str message; /* why it failed */
    int64_t failed_ns;
};
struct plan {
    int refs;
    struct feature_plan *plan;
    struct sight *sights[]; /* where look-ups are counted, by view; NULL: nowhere */
};

struct infer;
/* What an A/B test knows, and what a shadow's answers were like: ab.c, shadow.c. */
struct contest;
struct mirror;

/* ---- what requests read ---- */
struct served {
    struct model *model;
    struct tally *tally;
    double share;
    struct str unfit; /* why requests by key are not answered; empty if they are */
};
enum entry_state { ENTRY_OPEN, ENTRY_IDLE, ENTRY_SUSPENDED };
struct entry {
    struct str project, name;
    struct served v[VERSIONS_MAX]; /* the challenger, if there is one, comes first */
    size_t n;
    struct plan *plan;         /* may be NULL */
    enum entry_state state;    /* IDLE: requests wait for it to be loaded (wake_wait) */
    struct str header, cookie; /* what is sticky; the header's name in lower case; empty: nothing */
    struct mirror *mirror;     /* may be NULL */
    struct contest *contest;   /* may be NULL */
    struct sampler *sampler;   /* trace.c: a setting of its own; may be NULL */
    struct policy *policy;     /* how requests come to their run (policy.h); NULL: each at once */
};
struct snap {
    struct snap *next; /* retired ones */
    atomic_int refs;   /* requests that wait for another thread */
    struct arena *a;
    struct entry *v;
    size_t n;
    uint32_t *table; /* place + 1 of an entry, by hash; 0: free */
    uint32_t mask;
};

/* ---- what control keeps of a deployment ---- */
struct counted {
    struct str version; /* owned */
    struct tally *tally;
};
/* A version that should answer. */
struct wanted {
    struct str version; /* owned */
    double share;
    struct model *model; /* NULL: the deployment sleeps, or the version may not be served */
    bool refused;
};
struct depl {
    struct depl *next;
    struct str project, name, model; /* owned */
    struct arena *spec_a;            /* of the spec, as the first step of this generation read it */
    struct deployment_spec spec;
    int64_t generation;
    struct entry now; /* as published; project and name are the ones above, header and cookie owned */
    struct wanted wanted[VERSIONS_MAX];
    size_t wanted_n;
    bool suspended, asleep,
        waking;       /* asleep: nothing is loaded; waking: a request asked for it, and it is being */
    int64_t awake_us; /* since when it is not asleep */
    struct infer *waiters, *waiters_last;
    size_t waiters_n;
    int64_t cold_starts, cold_ns;
    struct counted counted[VERSIONS_MAX];
    size_t counted_n;
    bool plan_stale, settled, changed; /* changed: what is in `now` beside versions is not published yet */
    int64_t mirrored_ns;
    struct str rollout_key; /* owned; what the bases below belong to */
    int64_t base_requests, base_failed, base_champion_requests, base_champion_failed;
    int64_t base_buckets[BUCKETS], base_champion_buckets[BUCKETS];
};

struct slot {
    _Alignas(64) _Atomic(struct snap *) snap;
};
struct serve {
    struct store *store;
    const char *library;
    size_t body_bytes_max;
    struct control *control;
    struct lane *lane;   /* loads */
    struct lane *copies; /* shadows run on it */
    _Atomic int64_t copy_bytes;
    _Atomic(struct snap *) now;
    struct slot slots[SLOTS];
    struct serve_observer observers[OBSERVERS_MAX];
    size_t observers_n;
    struct request_log *requests; /* request_log.c */
    struct trace_log *traces;     /* trace.c */
    struct load_meter *meter;     /* load_report.c */

    pthread_mutex_t m;                  /* of what follows */
    struct runtime *runtimes[RUNTIMES]; /* by model_runtime; NULL: not asked for yet */
    struct model *models;
    struct sight *sights; /* in sights_a */
    struct arena *sights_a;
    struct depl *depls;
    struct snap *retired;
    pthread_t reaper;
    pthread_cond_t retiring; /* there is something for the reaper, or it shall end */
    bool reaping, stop;
    bool listed;             /* every stored deployment has its struct depl */
    pthread_mutex_t loading; /* one load at a time opens the library */
};

/* ---- snap.c ---- */
struct snap *snap_enter(struct serve *, unsigned *slot);
void snap_leave(struct serve *, unsigned slot);
/* The slot becomes free, the snapshot stays until snap_unref(). */
void snap_ref(struct serve *, const struct snap *, unsigned slot);
void snap_keep(const struct snap *); /* another reference, of one who has it already */
void snap_unref(const struct snap *);
const struct entry *snap_find(const struct snap *, struct str project, struct str name);
/* With m held: a new snapshot of all depls; the old one is retired. */
void snap_publish(struct serve *);
/* Retired snapshots that nobody reads go, and versions without references. True: some are still read. */
bool retire(struct serve *);
/* A thread that retires what there is, so that no loader waits for a request. The end waits for all readers. */
err reaper_start(struct serve *);
void reaper_stop(struct serve *);

/* ---- bound.c ---- */
void bounds_free(struct model *);

/* ---- batch.c ---- */
/* Why runs cannot be of several requests; empty if they can. */
struct str batch_unfit(struct arena *a, const struct session_info *);

/* ---- load.c; with m held, but for the first ---- */
/* On the lane: the inference library comes into memory (tens of milliseconds) before a request needs it. */
void runtime_bring(void *serve);
/* The version, being loaded if it is not there yet, as the spec wants it to run; the caller's reference. */
struct model *model_want(struct serve *, struct str project, struct str version,
                         const struct deployment_spec *by);
/* No reference; may be NULL. by: one that runs as this spec wants it; NULL: any. */
struct model *model_find(struct serve *, struct str project, struct str version,
                         const struct deployment_spec *by);
void model_unref(struct serve *, struct model *);
void model_free(struct model *); /* not in the list any more */
void tally_unref(struct tally *);

/* ---- lookups.c; plans with m held, but for an ensemble's own ---- */
err plan_new(struct serve *, struct str project, struct str service, struct plan **out);
void plan_unref(struct plan *); /* NULL is fine */
/* Features of all rows of cols into x, and how many have no value onto *missing. rows: room for one row, or for each. NOT_FOUND
 * and UNAVAILABLE: a view refuses to answer without a row, or with an old one. */
err plan_read(struct serve *, const struct plan *, const struct columns *, const struct plan_binding *,
              int64_t now, struct plan_row *rows, bool each, float *x, int64_t *missing);
void lookups_put(struct serve *, struct buf *out);

/* ---- load_runtime.c; without m ---- */
err runtime_need(struct serve *, struct runtime **out); /* ONNX Runtime */
/* m's session, by the runtime and on the device that it asks for; onnx: its bytes, checked. */
struct model_version_spec;
err model_session(struct serve *, struct arena *a, struct model *m, struct str onnx,
                  const struct model_version_spec *);

/* ---- queue.c, ensemble.c; with m held ---- */
/* The policy that the spec asks for, with a reference: old itself if nothing about it has changed. */
struct policy *policy_want(struct serve *, const struct deployment_spec *, struct policy *old);
void policy_ref(struct policy *); /* NULL is fine, here and below */
void policy_unref(struct policy *);
/* Why a version cannot do what the policy wants of it; empty if it can. */
struct str policy_unfit(const struct policy *, struct arena *a, const struct model *);
err policy_check(const struct resource_check *); /* of a Deployment's spec */
/* The ensemble as a model, with a reference; it is made again when its steps have changed. */
struct model *ensemble_want(struct serve *, struct arena *a, struct str project, struct str name,
                            const struct deployment_spec *);

/* ---- reconcile.c and its parts (reconcile.h) ---- */
err serve_step(void *self, struct arena *a, const struct object *, const struct event *ev, int64_t *again_ms);
/* With m held. */
void depl_free(struct serve *, struct depl *);
/* What can answer of what is wanted does from now on. *trouble (may be NULL): what stands in the way, in a. Waiters whose
 * time has come are the result, for waiters_go() without m. */
struct infer *depl_publish(struct serve *, struct arena *a, struct depl *, struct str *trouble);
struct depl *depl_find(struct serve *, struct str project, struct str name);

/* ---- idle.c ---- */
/* Lets c, which has let its snapshot go, wait until c->wakes is loaded; loading begins. Result as infer_start(). */
err wake_wait(struct infer *c);
/* With m held: one that sleeps is loaded. Those whose time has come, for waiters_go() without m. */
struct infer *depl_wake(struct serve *, struct depl *);
/* Answers those that waited, on this thread, and notes how long the first one took. */
void waiters_go(struct serve *, struct infer *);
/* The same on the lane. */
void waiters_push(struct serve *, struct infer *);
/* With m held: all leave its list. */
struct infer *waiters_take(struct depl *);
/* more (may be NULL) after what is in *to (may be NULL). */
void waiters_join(struct infer **to, struct infer *more);
/* Writes spec.suspended in the name of who asks, with audit, and waits (SUSPEND_MS) until it is unloaded or loaded; without
 * m. TIMEOUT, UNAVAILABLE (it cannot be loaded). For load and unload of the model repository. */
err deployment_suspend(struct serve *, struct req *, struct str project, struct str name, bool suspended);

/* ---- ab.c; refs with m held ---- */
/* The same one if the spec and versions are: else a new one, which goes on where the status stands if that is of it. */
struct contest *contest_need(struct contest *, struct arena *a, const struct ab_test *,
                             const struct ab_status *);
/* What the status says of this very test. */
enum ab_decision contest_decided(struct arena *a, const struct ab_test *, const struct ab_status *);
struct contest *contest_ref(struct contest *); /* NULL is fine */
void contest_unref(struct contest *);          /* NULL is fine */
void contest_status(struct contest *, struct arena *a, struct ab_status *out);
/* The answer to a request; id: the request's, for one row without an id of its own. */
void contest_predicted(struct contest *, struct str id, const struct prediction *);
// clang-format off
#define TOLD_OUTCOME(F, O, L, T)                                                                                 \
    F(T, STR, id,    REQUIRED, "Of the row, as the request gave it: in ids, or id for a single row.", .len_max = 256) \
    F(T, F64, value, REQUIRED, "What became true; 1 or 0 for what happened or not.")
#define TOLD_OUTCOMES(F, O, L, T) L(T, told_outcome, outcomes, REQUIRED, "One for each row.", .len_max = 10000)
SCHEMA(told_outcome, TOLD_OUTCOME);
SCHEMA(told_outcomes, TOLD_OUTCOMES);
// clang-format on
err outcomes_post(struct req *);

/* ---- shadow.c; refs with m held ---- */
struct mirror *mirror_need(struct mirror *, struct arena *a, const struct shadow *);
struct mirror *mirror_ref(struct mirror *); /* NULL is fine */
void mirror_unref(struct mirror *);         /* NULL is fine */
void mirror_status(struct mirror *, struct arena *a, struct shadow_status *out);
/* After c was answered: a copy goes to the shadow's queue, if it is c's turn. */
void mirror_offer(const struct infer *c);
err shadow_get(struct req *);

/* ---- rollout.c ---- */
/* Names its versions itself: aliases and deploy steps mean nothing. */
bool spec_pins(const struct deployment_spec *);
/* Steps of a trial: the spec's, or the one that share and requests make (*one). 0: there is no trial. */
size_t canary_steps(const struct canary *, struct canary_step *one, const struct canary_step **v);
struct rolling {
    struct serve *s;
    struct arena *a;
    struct str project, name;
    const struct deployment_spec *spec;
    struct model_status *model;
    struct deployment_status *status;
    struct depl *d;
    bool moved;   /* out: aliases have changed */
    bool stepped; /* out: the next step began */
};
err rollout_move(struct rolling *);

/* ---- request_log.c ---- */
err request_log_open(struct serve *, struct request_log **out);
/* NULL is fine; what was logged is published first, if there is room for it. */
void request_log_close(struct request_log *);
/* With m held: what the deployment's spec says of the log of this version, whose tally this is. */
void request_log_set(struct serve *, const struct depl *, struct tally *, const struct model *,
                     const struct request_log_spec *);
/* With m held: the tally goes. */
void request_sink_leave(struct request_sink *);

/* ---- trace.c ---- */
struct trace_log *trace_log_new(void);
void trace_log_free(struct trace_log *);
/* Writes a list of the last traced requests, the newest first: {trace, span, parent, deployment, version, error,
 * arrived (µs since 1970), and ns from there: ready, started, ran, ended}. */
void trace_recent(struct serve *, struct str project, struct json *); /* project "": of all */
/* Whether one in `rate` requests that bring no trace begins one, and how many more will. A deployment's own setting has the
 * server's where it says nothing. */
enum trace_level { TRACE_INHERIT, TRACE_OFF, TRACE_ON };
enum { TRACE_RATE = 1000 }; /* at the start, when it is off */
enum { TRACE_COUNT_ANY = -1, TRACE_COUNT_INHERIT = -2 };
struct trace_setting {
    enum trace_level level;
    int64_t rate;  /* from 1; 0: the server's */
    int64_t count; /* from 0, TRACE_COUNT_ANY or TRACE_COUNT_INHERIT */
};
extern const struct trace_setting trace_at_start, trace_inherited;
/* Of a deployment, or of the server (name empty). NOT_FOUND, LIMIT. */
err trace_setting_put(struct serve *, struct str project, struct str name, struct trace_setting);
struct trace_setting trace_setting_own(struct serve *, struct str project, struct str name);
/* With nothing inherited. */
struct trace_setting trace_setting_now(struct serve *, struct str project, struct str name);

/* ---- load_report.c ---- */
struct load_report {
    double cpu, memory; /* of the machine, 0 to 1 */
    double rps, eps;    /* requests and failures a second, of all models */
    int64_t memory_total, memory_used, in_flight;
};
struct load_meter *load_meter_new(void);
void load_meter_free(struct load_meter *);
/* Of the last second or so, measured anew at most once a second. */
void load_report_read(struct serve *, const struct snap *, struct load_report *out);
/* The value of the header endpoint-load-metrics (ORCA), as "text" or "json"; empty for another format. */
struct str load_report_text(struct arena *a, const struct load_report *, struct str format);

/* ---- rest.c, tensor.c (tensor.h has the rest of it) ---- */
err infer_post(struct req *);
/* {"name", "datatype", "shape", "data"} of an output. INVALID for types that JSON does not carry. */
err tensor_write(struct buf *b, struct str name, const struct tensor *);
void write_f32(struct buf *b, float v);
void write_f64(struct buf *b, double v);
void write_i64(struct buf *b, int64_t v);
