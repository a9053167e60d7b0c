// SPDX-License-Identifier: Apache-2.0
/* A version's sketches in windows of event time. Each stripe knows the window's bounds, so that a row inside them
 * takes the stripe's lock alone; a row outside asks the clock, which may close the window: it takes the sketches out
 * of every stripe and leaves them empty for the next. Locks: the clock's, then a stripe's or the outcomes'. */
#include "monitor/internal.h"
#include <sched.h>
#include <stdlib.h>

struct stripe {
    pthread_mutex_t m;
    int64_t from, until; /* 0, 0: no window yet */
    int64_t rows, calls; /* in this window */
    int64_t total, late; /* rows of all windows; left out */
    struct sketch *sketches;
} __attribute__((aligned(64)));

struct lens {
    struct arena *a;
    struct str version;
    const struct baseline *base;
    int64_t span;
    struct outcomes *outcomes;
    size_t stripes_n; /* a power of two */
    struct stripe stripes[STRIPES_MAX];
    pthread_mutex_t clock; /* of what follows */
    int64_t from, until;
    int64_t far_at, far_calls, far_since; /* requests far from the window; its requests when they began */
    struct closed *first, **last;
    size_t closed_n;
    int64_t lost;
};

static const int64_t time_max = 400000000000000000; /* far beyond any date, and far from overflow */

struct lens *lens_new(struct arena *a, const struct baseline *base, struct str version, int64_t span_us,
                      struct outcomes *outcomes)
{
    struct lens *l = aligned_alloc(64, sizeof *l);
    if (!l)
        abort();
    memset(l, 0, sizeof *l);
    l->a = a;
    l->version = str_dup(a, version);
    l->base = base;
    l->span = span_us;
    l->outcomes = outcomes;
    l->last = &l->first;
    for (l->stripes_n = STRIPES_MAX; l->stripes_n > 1 && l->stripes_n * (base->n + 1) > SKETCHES_MAX;)
        l->stripes_n /= 2;
    for (size_t i = 0; i < STRIPES_MAX; i++)
        pthread_mutex_init(&l->stripes[i].m, NULL);
    pthread_mutex_init(&l->clock, NULL);
    if (outcomes)
        free(outcomes_window(outcomes, version, 0, 0));
    return l;
}

void closed_free(struct closed *c)
{
    for (size_t i = 0; i < STRIPES_MAX; i++)
        free(c->parts[i]);
    free(c->auc);
    free(c);
}

void lens_free(struct lens *l)
{
    if (!l)
        return;
    for (struct closed *c = l->first, *next; c; c = next) {
        next = c->next;
        closed_free(c);
    }
    for (size_t i = 0; i < STRIPES_MAX; i++) {
        free(l->stripes[i].sketches);
        pthread_mutex_destroy(&l->stripes[i].m);
    }
    pthread_mutex_destroy(&l->clock);
    arena_free(l->a);
    free(l);
}

struct str lens_version(const struct lens *l)
{
    return l->version;
}

const struct baseline *lens_baseline(const struct lens *l)
{
    return l->base;
}

/* ---- the clock ---- */

/* The window that begins at `from` is open; what the one before held goes to c (NULL: there was none). */
static void window_open(struct lens *l, int64_t from, struct closed *c)
{
    l->from = from;
    l->until = from + l->span;
    for (size_t i = 0; i < l->stripes_n; i++) {
        struct stripe *s = &l->stripes[i];
        LOCKED(&s->m);
        if (c) {
            c->parts[i] = s->sketches;
            c->predictions += s->rows;
            s->sketches = NULL;
        }
        s->from = l->from;
        s->until = l->until;
        s->rows = s->calls = 0;
    }
    struct auc *before = l->outcomes ? outcomes_window(l->outcomes, l->version, l->from, l->until) : NULL;
    if (c)
        c->auc = before;
    else
        free(before);
    l->far_calls = 0;
}

static void window_close(struct lens *l, int64_t next_from)
{
    struct closed *c = monitor_alloc(1, sizeof *c);
    c->from = l->from;
    c->until = l->until;
    window_open(l, next_from, c);
    if (l->closed_n >= CLOSED_MAX || c->predictions == 0) { /* an empty one is nothing to judge */
        l->lost += c->predictions > 0;
        closed_free(c);
        return;
    }
    *l->last = c;
    l->last = &c->next;
    l->closed_n++;
}

static int64_t window_calls(struct lens *l)
{
    int64_t n = 0;
    for (size_t i = 0; i < l->stripes_n; i++) {
        LOCKED(&l->stripes[i].m);
        n += l->stripes[i].calls;
    }
    return n;
}

/* Whether the requests speak for a time so far from the window: as many of them, in a row but for as many of the
 * window's own, as the window has, at most FAR_CALLS. */
static bool far_believed(struct lens *l, int64_t t)
{
    int64_t calls = window_calls(l);
    bool same = l->far_calls > 0 && llabs(t - l->far_at) < l->span && calls - l->far_since <= l->far_calls;
    if (!same) {
        l->far_calls = 0;
        l->far_since = calls;
    }
    l->far_at = t;
    l->far_calls++;
    return l->far_calls >= (calls < FAR_CALLS ? calls : FAR_CALLS);
}

struct call { /* one request's way through lens_add */
    bool counted, asked, closed;
};

/* A row at t that its stripe has no place for. True: there is one now, or another thread made one; look again. */
static bool clock_move(struct lens *l, int64_t t, struct call *call)
{
    if (t < -time_max || t > time_max)
        return false;
    LOCKED(&l->clock);
    if (l->until == 0) {
        window_open(l, t, NULL);
        return true;
    }
    if (t >= l->from && t < l->until)
        return true;
    if (t < l->from && t >= l->from - l->span)
        return false;
    bool next = t >= l->until && t < l->until + l->span;
    if (!next && (call->asked || !far_believed(l, t))) {
        call->asked = true;
        return false;
    }
    window_close(l, next ? l->until : t);
    call->closed = true;
    return true;
}

bool lens_time(struct lens *l, int64_t t)
{
    LOCKED(&l->clock);
    if (l->until == 0 || t < l->until || t >= l->until + l->span || window_calls(l) == 0)
        return false;
    window_close(l, l->until);
    return true;
}

/* ---- adding ---- */

static void row_add(const struct lens *l, struct stripe *s, const struct prediction *p, size_t row,
                    bool features)
{
    size_t n = l->base->n;
    if (!s->sketches) {
        s->sketches = monitor_alloc(n + 1, sizeof *s->sketches);
        for (size_t k = 0; k <= n; k++)
            sketch_init(&s->sketches[k], k < n ? &l->base->features[k] : &l->base->score);
    }
    if (features)
        for (size_t k = 0; k < n; k++)
            sketch_add(&s->sketches[k], p->features[row * n + k]);
    if (p->scores)
        sketch_add(&s->sketches[n], p->scores[row]);
    s->rows++;
    s->total++;
}

/* Rows from `row` on that lie in the stripe's window, under one lock; the first one that was not added. */
static size_t rows_add(const struct lens *l, struct stripe *s, const struct prediction *p, size_t row,
                       struct call *call)
{
    bool features = p->features && p->n_features == l->base->n;
    size_t end = p->n - row < ROWS_LOCKED ? p->n : row + ROWS_LOCKED;
    LOCKED(&s->m);
    for (; row < end; row++) {
        int64_t t = p->at ? p->at[row] : p->time;
        if (t < s->from || t >= s->until)
            break;
        row_add(l, s, p, row, features);
        if (!call->counted)
            s->calls++;
        call->counted = true;
    }
    return row;
}

bool lens_add(struct lens *l, const struct prediction *p)
{
    int cpu = sched_getcpu();
    struct stripe *s = &l->stripes[(cpu < 0 ? 0 : (size_t)cpu) & (l->stripes_n - 1)];
    struct call call = { 0 };
    for (size_t row = 0; row < p->n;) {
        size_t before = row;
        row = rows_add(l, s, p, row, &call);
        if (row > before || clock_move(l, p->at ? p->at[row] : p->time, &call))
            continue;
        row++;
        LOCKED(&s->m);
        s->late++;
    }
    return call.closed;
}

/* ---- looking ---- */

struct closed *lens_take(struct lens *l)
{
    LOCKED(&l->clock);
    struct closed *c = l->first;
    l->first = NULL;
    l->last = &l->first;
    l->closed_n = 0;
    return c;
}

void lens_figures(struct lens *l, struct lens_figures *out)
{
    LOCKED(&l->clock);
    *out = (struct lens_figures){ .from = l->from, .until = l->until, .lost = l->lost };
    for (size_t i = 0; i < l->stripes_n; i++) {
        const struct stripe *s = &l->stripes[i];
        pthread_mutex_lock(&l->stripes[i].m);
        out->predictions += s->rows;
        out->total += s->total;
        out->late += s->late;
        pthread_mutex_unlock(&l->stripes[i].m);
    }
}
