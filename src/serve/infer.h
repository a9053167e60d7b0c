/* serve/infer: one prediction on its way, whatever protocol brought it.
 * Flow     adapter (rest.c) fills a struct infer --> infer_start(): version chosen, tensors checked against it or made
 *          of keys --> run here, or queued by the policy (policy.h) --> infer_end(): the adapter's reply, counts, observers.
 * Memory   everything is in the request's arena, or in the body that it came in.
 * Threads  one at a time has a struct infer: the handler's, then the one that ends it. A request that waits for another
 *          thread (infer_wait) holds its snapshot by a reference, else by a slot. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/internal.h"

/* A tensor as it came, by name; its data is whole and as long as its shape says. */
struct named {
    struct str name;
    struct tensor t;
};
/* An output that the client wants, and how. */
struct asked {
    struct str name;
    bool binary;     /* raw bytes, where the protocol has a choice */
    int64_t classes; /* > 0: the best so many classes as text, in place of the scores */
};
/* What stands in "parameters", as far as it has a meaning here. */
struct infer_params {
    struct str version;  /* "3" or "late.3"; empty: the traffic's */
    struct str sequence; /* id of a sequence; empty: none */
    bool sequence_start, sequence_end;
    bool return_features; /* by key: the features beside the answer */
    uint32_t priority;    /* 1 is the highest; 0: the model's default */
    int64_t timeout_us;   /* in the queue; 0: the model's default */
};
/* When what happened, mono_ns(). */
struct infer_times {
    int64_t arrived, ready, started, ran;
};

/* Who runs a step of an ensemble. Those of an ensemble that is itself a step come right after it. */
struct pick {
    const struct entry *entry;
    const struct served *to;
    size_t below; /* picks of its own steps, and of theirs */
};

struct infer {
    /* by the adapter */
    struct serve *s;
    struct req *r;
    struct arena *a;
    struct str project, deployment, id;
    struct infer_params p;
    struct named *inputs;
    size_t inputs_n;
    struct asked *asked; /* none: all outputs */
    size_t asked_n;
    yyjson_val *entities; /* in place of inputs; may be NULL */
    struct str *row_ids;  /* one a row; may be NULL */
    size_t row_ids_n;
    err (*fit)(struct infer *);   /* once the version is chosen: what depends on its model; may be NULL */
    err (*reply)(struct infer *); /* writes the answer by req_reply */
    err (*failed)(struct infer *,
                  err); /* makes an answer of an error that came late; NULL: the error is the reply */
    void *adapter;      /* its own; may be NULL */
    /* by infer_start */
    const struct snap *snap;
    unsigned slot;
    bool waits;       /* infer_wait or wake_wait was called */
    struct str wakes; /* the deployment that wake_wait waits for: its own, or a step's */
    bool woke;        /* it is the one whose coming had that loaded */
    const struct entry *entry;
    const struct served *to;
    struct stripe *count;
    int64_t now; /* µs since 1970 */
    struct infer_times at;
    const struct trace *trace; /* NULL: none */
    struct tensor *in, *out;   /* in: all of the model's; out: out_n that are wanted, in their order */
    size_t out_n;
    size_t n;       /* rows */
    const float *x; /* by rows: n × features */
    size_t features;
    int64_t missing;             /* features looked up that have no value */
    int64_t *event_at;           /* event time of each row; may be NULL */
    const struct plan_row *rows; /* with return_features: all rows */
    /* by its policy (policy.h) */
    struct infer *next; /* of its list */
    int64_t due;        /* mono_ns() when it is given up; INT64_MAX: never */
    size_t run_n;       /* outputs that are run: out_n, then those that only the policy wants */
    struct bucket *bucket, *bucket_of_all; /* may be NULL, as seq */
    struct sequence *seq;
    bool seq_turn; /* it is the one of seq that runs */
    bool keyed;    /* the answer is to be kept under: */
    uint8_t key[32];
    /* of ensembles */
    const struct pick *picks;   /* who runs its steps; NULL: it has none */
    struct run_control *within; /* for a step: of the run that it is a part of; NULL: that has no end */
    int64_t until;              /* for a step: mono_ns() when that run is ended; 0: never */
};

/* ---- infer.c ---- */
/* The whole way. As a handler's result: NULL (replied, or owed), or the error that is the reply. */
err infer_start(struct infer *);
/* For an adapter that cannot read c (e says why): e, or that there is no such deployment, whatever was sent to it. */
err infer_unread(struct infer *c, err e);
/* For one that waited without a snapshot (wake_wait): from the choice of the version on. It may be gone afterwards. */
void infer_again(struct infer *);
/* For a policy that lets c wait: its snapshot stays, and the handler may return (req_later). */
void infer_wait(struct infer *c);
/* Runs c's tensors through its model on this thread; fills c->out. */
err infer_run(struct infer *c);
/* A step of an ensemble: c, with entry and to, its inputs and asked, as a request of its own that runs here and now. */
err infer_step(struct infer *c);
/* Memory in a for an output of n rows, where its size is known before the run: nothing is copied then. */
void output_place(const struct model *, struct arena *a, size_t n, struct tensor *out);
/* After the run (e: it failed): replies, counts, tells observers. For who waited it is the last touch of c. */
err infer_end(struct infer *c, err e);
/* Is the model that this request names quick enough for an event loop? For route.light. */
bool infer_light(struct req *);
/* Where the first binary tensor begins in its body, so that a runtime may read it there. For route.lead. */
size_t infer_lead(const struct req *);
/* The same for a protocol whose path does not name the deployment. text: bytes of the body that are read one by one, the
 * others being tensors as they are. */
bool infer_light_named(struct serve *, struct req *, struct str name, size_t text);

/* ---- choose.c ---- */
/* What clients of Triton look for in a text: NOT_FOUND twice, UNAVAILABLE. */
err model_unknown(struct str name);
err version_unknown(struct str name, struct str version);
err versions_none(struct str name);
/* Which version answers: c->to. NOT_FOUND, UNAVAILABLE. */
err version_choose(struct infer *c);
/* The version of e, which may be a step's, that c meets by e's traffic; NULL: none is ready. */
const struct served *served_by_traffic(struct infer *c, const struct entry *e);

/* ---- keys.c ---- */
/* Rows of features by entity keys, as the model's one input. */
err keys_take(struct infer *c);

/* ---- metrics.c ---- */
/* A request, or a step, has reached its version (c->to). */
void infer_arrive(struct infer *c);
/* Counts an ended request in its version's tally: e says how it ended, made_by_us that the fault is not the client's. */
void infer_count(struct infer *c, err e, bool made_by_us);

/* ---- trace.c ---- */
/* What the request's headers ask for: goes on with its trace, and answers with the machine's load. */
void trace_take(struct infer *c);
/* Keeps a sampled trace, whatever became of it; now: mono_ns(). */
void trace_keep(const struct infer *c, err e, int64_t now);

/* ---- request_log.c ---- */
/* A copy for the log, if the version has one and the request is in its share. Never waits. now: mono_ns(). */
void request_log_take(struct infer *c, struct request_sink *, err e, int64_t now);
