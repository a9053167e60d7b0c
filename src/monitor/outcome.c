// SPDX-License-Identifier: Apache-2.0
/* Predictions by row id, bounded: a ring of entries per shard, found by a chained hash table. Outcomes that come
 * first wait in a smaller ring. Locks: a shard's, then (after it is let go) the histograms'. */
#include "monitor/internal.h"
#include <stdlib.h>

enum { EARLY_SHARE = 8 }; /* outcomes that wait, one to so many predictions */

struct entry {
    uint64_t key;     /* hash of the id */
    int64_t at;       /* event time */
    float score;      /* or the outcome that waits */
    uint32_t version; /* low half of the hash of its name */
    uint32_t next;    /* of the same bucket: index + 1 */
    bool live, joined;
};
struct ring {
    struct entry *v;
    uint32_t *heads; /* index + 1 */
    size_t cap, mask, added;
};
struct shard {
    pthread_mutex_t m;
    struct ring predictions, early;
    int64_t outcomes, matched;
} __attribute__((aligned(64)));

struct total {
    uint32_t hash;
    int64_t seen; /* order of coming, to forget the oldest */
    char name[104];
    struct auc *auc;
};
struct outcomes {
    struct shard shards[SHARDS];
    pthread_mutex_t m; /* of what follows */
    struct total totals[VERSIONS_MAX];
    size_t totals_n;
    int64_t seen;
    _Atomic uint32_t champion;
    int64_t from, until;
    struct auc *window;
};

void *monitor_alloc(size_t n, size_t size)
{
    void *p = calloc(n, size);
    if (!p)
        abort();
    return p;
}

/* ---- the ring ---- */

static void ring_init(struct ring *r, size_t cap)
{
    size_t heads = 16;
    while (heads < cap)
        heads *= 2;
    *r = (struct ring){ .cap = cap, .mask = heads - 1 };
    r->v = monitor_alloc(cap, sizeof *r->v); /* untouched pages cost nothing */
    r->heads = monitor_alloc(heads, sizeof *r->heads);
}

static void ring_done(struct ring *r)
{
    free(r->v);
    free(r->heads);
}

static struct entry *ring_find(const struct ring *r, uint64_t key)
{
    for (uint32_t i = r->heads[key & r->mask]; i; i = r->v[i - 1].next)
        if (r->v[i - 1].key == key)
            return &r->v[i - 1];
    return NULL;
}

static void ring_remove(struct ring *r, struct entry *e)
{
    uint32_t *at = &r->heads[e->key & r->mask];
    while (&r->v[*at - 1] != e)
        at = &r->v[*at - 1].next;
    *at = e->next;
    e->live = false;
}

/* In the place of the oldest. */
static struct entry *ring_add(struct ring *r, uint64_t key)
{
    size_t i = r->added++ % r->cap;
    struct entry *e = &r->v[i];
    if (e->live)
        ring_remove(r, e);
    uint32_t *head = &r->heads[key & r->mask];
    *e = (struct entry){ .key = key, .next = *head, .live = true };
    *head = (uint32_t)i + 1;
    return e;
}

/* ---- life ---- */

struct outcomes *outcomes_new(size_t predictions_max)
{
    struct outcomes *o = aligned_alloc(64, sizeof *o);
    if (!o)
        abort();
    memset(o, 0, sizeof *o);
    size_t cap = (predictions_max ? predictions_max : PREDICTIONS_MAX) / SHARDS + 1;
    pthread_mutex_init(&o->m, NULL);
    for (size_t i = 0; i < SHARDS; i++) {
        pthread_mutex_init(&o->shards[i].m, NULL);
        ring_init(&o->shards[i].predictions, cap);
        ring_init(&o->shards[i].early, cap / EARLY_SHARE + 1);
    }
    return o;
}

void outcomes_free(struct outcomes *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < SHARDS; i++) {
        ring_done(&o->shards[i].predictions);
        ring_done(&o->shards[i].early);
        pthread_mutex_destroy(&o->shards[i].m);
    }
    for (size_t i = 0; i < o->totals_n; i++)
        free(o->totals[i].auc);
    free(o->window);
    pthread_mutex_destroy(&o->m);
    free(o);
}

/* ---- the histograms ---- */

static struct total *total_find(struct outcomes *o, uint32_t hash)
{
    for (size_t i = 0; i < o->totals_n; i++)
        if (o->totals[i].hash == hash)
            return &o->totals[i];
    return NULL;
}

/* A free place, or that of the version that was first seen longest ago and is not the champion. */
static struct total *total_place(struct outcomes *o)
{
    struct total *oldest = NULL;
    if (o->totals_n < VERSIONS_MAX)
        return &o->totals[o->totals_n++];
    for (size_t i = 0; i < o->totals_n; i++)
        if (o->totals[i].hash != o->champion && (!oldest || o->totals[i].seen < oldest->seen))
            oldest = &o->totals[i];
    free(oldest->auc);
    return oldest;
}

static void total_need(struct outcomes *o, struct str version, uint32_t hash)
{
    LOCKED(&o->m);
    if (total_find(o, hash))
        return;
    struct total *t = total_place(o);
    *t = (struct total){ .hash = hash, .seen = ++o->seen, .auc = monitor_alloc(1, sizeof *t->auc) };
    memcpy(t->name, version.p, version.n < sizeof t->name ? version.n : sizeof t->name - 1);
}

static void joined(struct outcomes *o, const struct entry *e, bool positive)
{
    LOCKED(&o->m);
    struct total *t = total_find(o, e->version);
    if (t)
        auc_add(t->auc, e->score, positive);
    if (e->version != o->champion || e->at < o->from || e->at >= o->until)
        return;
    if (!o->window)
        o->window = monitor_alloc(1, sizeof *o->window);
    auc_add(o->window, e->score, positive);
}

static uint32_t version_hash(struct str version)
{
    return (uint32_t)hash64(version);
}

struct auc *outcomes_window(struct outcomes *o, struct str version, int64_t from, int64_t until)
{
    uint32_t hash = version_hash(version);
    total_need(o, version, hash);
    LOCKED(&o->m);
    struct auc *before = o->window;
    o->window = NULL;
    o->champion = hash;
    o->from = from;
    o->until = until;
    return before;
}

/* ---- joining ---- */

/* True: e was filled and its outcome was there already. */
static bool entry_put(struct shard *s, uint64_t key, int64_t at, float score, uint32_t version,
                      struct entry *out, bool *positive)
{
    LOCKED(&s->m);
    struct entry *e = ring_find(&s->predictions, key), *early;
    if (e && e->joined)
        return false; /* an outcome counts once */
    if (!e)
        e = ring_add(&s->predictions, key);
    e->at = at;
    e->score = score;
    e->version = version;
    early = ring_find(&s->early, key);
    if (!early)
        return false;
    *positive = early->score >= 0.5f;
    ring_remove(&s->early, early);
    s->matched++;
    e->joined = true;
    *out = *e;
    return true;
}

void outcomes_predicted(struct outcomes *o, const struct prediction *p)
{
    if (!p->ids || !p->scores)
        return;
    uint32_t version = version_hash(p->version);
    if (version != o->champion)
        total_need(o, p->version, version);
    for (size_t i = 0; i < p->n; i++) {
        struct entry e;
        bool positive;
        uint64_t key = hash64(p->ids[i]);
        if (p->ids[i].n && isfinite(p->scores[i]) &&
            entry_put(&o->shards[key >> 60], key, p->at ? p->at[i] : p->time, p->scores[i], version, &e,
                      &positive))
            joined(o, &e, positive);
    }
}

/* True: the prediction is there and had no outcome yet. */
static bool entry_join(struct shard *s, uint64_t key, float label, struct entry *out)
{
    LOCKED(&s->m);
    struct entry *e = ring_find(&s->predictions, key);
    if (e && e->joined)
        return false;
    if (e) {
        e->joined = true;
        s->outcomes++;
        s->matched++;
        *out = *e;
        return true;
    }
    e = ring_find(&s->early, key);
    if (!e) {
        e = ring_add(&s->early, key);
        s->outcomes++;
    }
    e->score = label;
    return false;
}

/* The id as text, without an arena for whole numbers: pushes are many rows. */
static uint64_t id_key(struct arena *a, const struct column *id, size_t row)
{
    if (id->type == COL_I64) {
        char text[24];
        int n = snprintf(text, sizeof text, "%lld", (long long)id->i[row]);
        return hash64((struct str){ text, (size_t)n });
    }
    return hash64(id->type == COL_STR ? column_str(id, row) : column_text(a, id, row));
}

int64_t outcomes_pushed(struct outcomes *o, const struct column *id, const struct column *label,
                        const struct column *known, size_t rows)
{
    auto_arena struct arena *a = arena_new(0);
    int64_t newest = INT64_MIN;
    for (size_t i = 0; i < rows; i++) {
        double y = column_f64(label, i);
        struct entry e;
        if (column_null(id, i) || !isfinite(y))
            continue;
        uint64_t key = id_key(a, id, i);
        if (!entry_join(&o->shards[key >> 60], key, (float)y, &e))
            continue;
        joined(o, &e, y >= 0.5);
        if (known && !column_null(known, i) && known->i[i] > newest)
            newest = known->i[i];
    }
    return newest;
}

void outcomes_figures(struct outcomes *o, struct arena *a, struct outcome_figures *out)
{
    *out = (struct outcome_figures){ 0 };
    for (size_t i = 0; i < SHARDS; i++) {
        LOCKED(&o->shards[i].m);
        out->outcomes += o->shards[i].outcomes;
        out->matched += o->shards[i].matched;
    }
    LOCKED(&o->m);
    out->window_n = auc_count(o->window);
    out->window_auc = auc_value(o->window);
    for (size_t i = 0; i < o->totals_n; i++) {
        const struct total *t = &o->totals[i];
        size_t at = out->versions_n++;
        out->versions[at].version = str_dup(a, str_of(t->name));
        out->versions[at].auc = auc_value(t->auc);
        out->versions[at].error = auc_error(t->auc);
        out->versions[at].n = auc_count(t->auc);
    }
}
