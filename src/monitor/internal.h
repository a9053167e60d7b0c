/* monitor, inside: auc.c (histogram), outcome.c (predictions by id, joined with labels), window.c (event time and
 * sketches), judge.c (a closed window against its baseline), watch.c (one Monitor), monitor.c (observers, reconciler). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/engine.h"
#include "monitor/monitor.h"

enum {
    STRIPES_MAX = 16,       /* places to add to, chosen by CPU */
    SKETCHES_MAX = 1 << 14, /* of all stripes together; wide models get fewer stripes */
    ROWS_LOCKED = 64,       /* rows added under one lock */
    CLOSED_MAX = 8,         /* windows that wait to be judged; further ones are lost */
    FAR_CALLS = 20,         /* requests that move the clock by more than a window */
    SHARDS = 16,            /* of the predictions by id */
    VERSIONS_MAX = 8,       /* versions with an AUC of their own */
    PREDICTIONS_MAX = 2000000,
    AUC_BINS = 10000,
    AUC_SIDE = 1000,
    AUC_ALL = AUC_BINS + 2 * AUC_SIDE,
};

/* calloc that aborts. */
void *monitor_alloc(size_t n, size_t size);

/* ---- auc.c ---- */
struct auc {
    int64_t n[2]; /* negatives, positives */
    uint32_t bins[AUC_ALL][2];
};
void auc_add(struct auc *, float score, bool positive);
double auc_value(const struct auc *); /* NaN without both classes */
double auc_error(const struct auc *); /* greatest distance to the exact one */
static inline int64_t auc_count(const struct auc *x)
{
    return x ? x->n[0] + x->n[1] : 0;
}

/* ---- outcome.c: any thread ---- */
struct outcomes;
struct outcomes *outcomes_new(size_t predictions_max);
void outcomes_free(struct outcomes *); /* NULL is fine */
/* Remembers scores by id, if the prediction has both. */
void outcomes_predicted(struct outcomes *, const struct prediction *);
/* Labels by id; rows without one are passed over. Gives the newest time in `known` (NULL: none is there) of a row that
 * found its prediction, INT64_MIN without any. */
int64_t outcomes_pushed(struct outcomes *, const struct column *id, const struct column *label,
                        const struct column *known, size_t rows);
/* From now on outcomes of `version` at times in [from, until) make up a window; gives the one before (free() it),
 * NULL if nothing was joined. */
struct auc *outcomes_window(struct outcomes *, struct str version, int64_t from, int64_t until);
struct outcome_figures {
    int64_t outcomes, matched;
    int64_t window_n; /* of the open window */
    double window_auc;
    size_t versions_n;
    struct {
        struct str version; /* lives in a */
        double auc, error;
        int64_t n;
    } versions[VERSIONS_MAX];
};
void outcomes_figures(struct outcomes *, struct arena *a, struct outcome_figures *out);

/* ---- window.c: any thread ---- */
struct closed { /* a window that is over: what each stripe held */
    struct closed *next;
    int64_t from, until, predictions;
    struct sketch *parts[STRIPES_MAX]; /* a sketch per feature, then the score's; NULL: nothing */
    struct auc *auc;                   /* NULL: no outcomes */
};
struct lens;
/* base belongs to a, which the lens takes over. outcomes may be NULL. */
struct lens *lens_new(struct arena *a, const struct baseline *base, struct str version, int64_t span_us,
                      struct outcomes *);
void lens_free(struct lens *); /* NULL is fine */
struct str lens_version(const struct lens *);
const struct baseline *lens_baseline(const struct lens *);
/* Adds the rows of a prediction of its version; true: a window was closed. */
bool lens_add(struct lens *, const struct prediction *);
/* An outcome says that it is t: an open window whose end has passed by less than a window is closed, and the next one
 * begins at its end; true: it was. */
bool lens_time(struct lens *, int64_t t);
/* Closed windows, the oldest first; the caller's. */
struct closed *lens_take(struct lens *);
void closed_free(struct closed *); /* that one alone */
struct lens_figures {
    int64_t from, until, predictions; /* of the open window; 0, 0: none is open yet */
    int64_t total, late, lost;        /* rows since the lens is there; left out; windows lost */
};
void lens_figures(struct lens *, struct lens_figures *out);

/* ---- judge.c ---- */
/* One row per feature and the score's, in a, the worst first; share over the features: NaN without any. */
struct verdict {
    struct monitor_drift *drift;
    size_t n;
    size_t features, features_over;
    double share, wasserstein_max;
    bool judged; /* enough predictions */
    bool over;   /* and the share is over the bound */
};
void judge(struct arena *a, const struct monitor_features *, const struct baseline *, const struct closed *,
           struct verdict *out);
/* The alarm after a verdict about a window that ends at `until`; true: tell the world. */
bool alarm_step(const struct monitor_spec *, const struct verdict *, int64_t until, struct monitor_status *);
/* The verdict becomes the status' last alarm; and the data of the event about it. */
void alarm_tell(struct arena *a, const struct verdict *, int64_t until, struct monitor_status *);
struct str drifted_data(struct arena *a, const struct monitor_spec *, const struct monitor_told *,
                        const struct closed *);

/* ---- watch.c: one Monitor; changed by its step alone, which holds the list's lock for writing when it replaces what
 * the observers read ---- */
struct watch {
    struct watch *next;
    struct arena *a;
    struct str project, name;
    int64_t generation;   /* of the spec that was read; 0: none yet */
    struct arena *spec_a; /* of the five that follow */
    struct monitor_spec spec;
    struct str model, id_column, known_column;
    uint64_t key;              /* watch_key() */
    struct lens *lens;         /* NULL: nothing to compare with */
    struct outcomes *outcomes; /* NULL: none are wanted, or their dataset is not there */
    struct closed *waiting;    /* windows to be judged */
    pthread_mutex_t m;         /* of the status: metrics read it */
    struct arena *status_a;
    struct monitor_status status;
    struct str event; /* data of a monitor.drifted that is not written yet; in status_a */
    int64_t wrote_ns;
    uint64_t wrote_hash;
};
struct monitors {
    struct monitors_config cfg;
    _Atomic(struct control *) control;
    pthread_rwlock_t lock; /* of the list, and of spec, lens and outcomes of what is in it */
    struct watch *first;
    pthread_mutex_t step; /* one step at a time */
};
static inline uint64_t watch_key(struct str project, struct str deployment)
{
    return hash64(project) * 3 ^ hash64(deployment);
}
struct watch *watch_new(struct str project, struct str name);
void watch_free(struct watch *);
/* Takes over a new spec; what depended on the old one is gone. */
err watch_read(struct monitors *, struct watch *, struct arena *a, const struct object *);
/* One step: judges what was closed, follows its version if asked to, writes the status when it is time. */
err watch_turn(struct monitors *, struct watch *, struct arena *a, bool resolve, int64_t *again_ms);
/* The status with the counts of this moment; texts live in a or in the watch. The caller holds the lock or the step. */
void watch_status(struct watch *, struct arena *a, struct monitor_status *out);
