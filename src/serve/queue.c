// SPDX-License-Identifier: Apache-2.0
/* Policies, and the queue of each: who runs now, who waits, who is given up. */
#include "serve/policy.h"
#include <stdlib.h>

const char *const timeout_actions[] = { "reject", "delay", NULL };

enum {
    SCAN_MAX = 1024,    /* requests looked at for one batch */
    SWEEP_NS = 10000000 /* how often those of clients that have left are looked for, at most */
};

/* A runner that lies down; in its thread's frame. */
struct sleeper {
    struct sleeper *below;
    pthread_cond_t roused;
    int64_t until;
    bool up;
};

/* ---- lists ---- */

void list_put(struct list_of *l, struct infer *c)
{
    c->next = NULL;
    if (!l->first)
        l->end = &l->first;
    *l->end = c;
    l->end = &c->next;
}

static struct infer *list_cut(struct list_of *l, struct infer **at)
{
    struct infer *c = *at;
    *at = c->next;
    if (!*at)
        l->end = at;
    c->next = NULL;
    return c;
}

/* ---- policies ---- */

static struct str policy_text(struct arena *a, const struct deployment_spec *spec)
{
    const struct str parts[] = { fmt(a, "%lld %lld", (long long)spec->instances,
                                     (long long)spec->run_timeout),
                                 schema_text(&batching_schema, a, &spec->batching, 0),
                                 schema_text(&limits_schema, a, &spec->limits, 0),
                                 schema_text(&sequencing_schema, a, &spec->sequence, 0),
                                 schema_text(&caching_schema, a, &spec->cache, 0) };
    return str_join(a, parts, sizeof parts / sizeof *parts, S(" "));
}

static err preferred_read(struct arena *a, struct str text, size_t *out, size_t *n)
{
    yyjson_val *root, *v;
    size_t i, max;
    *n = 0;
    if (!text.n)
        return NULL;
    TRY(json_parse(a, text, &root));
    if (!yyjson_is_arr(root) || yyjson_arr_size(root) > PREFERRED_MAX)
        FAIL(INVALID, "spec.batching.preferred is a list of at most %d sizes", PREFERRED_MAX);
    yyjson_arr_foreach (root, i, max, v) {
        if (!yyjson_is_uint(v) || yyjson_get_uint(v) < 1 || yyjson_get_uint(v) > 65536)
            FAIL(INVALID, "spec.batching.preferred[%zu] is a whole number from 1 to 65536", i);
        out[(*n)++] = yyjson_get_uint(v);
    }
    return NULL;
}

static void sequencing_copy(struct arena *a, const struct sequencing *from, struct sequencing *to)
{
    const struct sequence_control *control = from->controls.v;
    const struct sequence_state *state = from->state.v;
    struct sequence_control *controls = NEW_N(a, struct sequence_control, from->controls.n + 1);
    struct sequence_state *states = NEW_N(a, struct sequence_state, from->state.n + 1);
    for (size_t i = 0; i < from->controls.n; i++)
        controls[i] = (struct sequence_control){ str_dup(a, control[i].input), control[i].kind };
    for (size_t i = 0; i < from->state.n; i++)
        states[i] = (struct sequence_state){ str_dup(a, state[i].input), str_dup(a, state[i].output) };
    *to = *from;
    to->controls.v = controls;
    to->state.v = states;
}

static struct policy *policy_new(const struct deployment_spec *spec, struct str text)
{
    struct policy *p = aligned_alloc(_Alignof(struct policy), sizeof *p);
    struct arena *a = arena_new(0);
    if (!p)
        abort();
    memset(p, 0, sizeof *p);
    p->refs = 1;
    p->a = a;
    p->text = str_dup(a, text);
    p->batching = spec->batching;
    p->batching.preferred = S(""); /* the numbers are kept */
    sequencing_copy(a, &spec->sequence, &p->sequence);
    (void)preferred_read(a, spec->batching.preferred, p->preferred,
                         &p->preferred_n); /* policy_check read it */
    p->instances = spec->instances ? (size_t)spec->instances : (size_t)cpu_count();
    if (p->instances > INSTANCES_MAX)
        p->instances = INSTANCES_MAX;
    p->levels = (size_t)spec->batching.priorities + 1;
    p->run_ns_max = spec->run_timeout * 1000000;
    p->limiter = limiter_new(a, &spec->limits);
    p->limiter_of_all = limiter_of_all(a, &spec->limits.project);
    p->cache = cache_new(&spec->cache);
    p->sequences = sequences_new(a, &spec->sequence);
    p->next_due = INT64_MAX;
    p->fruit = FRUIT_ALL;
    pthread_mutex_init(&p->m, NULL);
    return p;
}

struct policy *policy_want(struct serve *s, const struct deployment_spec *spec, struct policy *old)
{
    (void)s;
    auto_arena struct arena *a = arena_new(0);
    struct str text = policy_text(a, spec);
    if (!old || !str_eq(old->text, text))
        return policy_new(spec, text);
    old->refs++;
    return old;
}

void policy_ref(struct policy *p)
{
    if (p)
        p->refs++;
}

/* With m held, and somebody idle: who was the last to lie down, whose caches are the warmest. The caller shakes it, better
 * without m, which it takes first of all. */
static struct sleeper *rouse(struct policy *p)
{
    struct sleeper *s = p->idle;
    p->idle = s->below;
    p->roused++;
    s->up = true;
    return s;
}

/* p is there meanwhile, so its runners are. */
static void shake(struct sleeper *s)
{
    if (s)
        pthread_cond_signal(&s->roused);
}

/* Nobody waits in it: runners at most end what they have replied to. */
void policy_unref(struct policy *p)
{
    if (!p || --p->refs)
        return;
    pthread_mutex_lock(&p->m);
    p->ending = true;
    while (p->idle)
        shake(rouse(p));
    pthread_mutex_unlock(&p->m);
    for (size_t i = 0; i < p->threads_n; i++)
        pthread_join(p->threads[i], NULL);
    pthread_mutex_destroy(&p->m);
    for (size_t i = 0; i < LOOPS_MAX; i++)
        arena_free(p->rounds[i].scratch);
    sequences_free(p->sequences);
    cache_free(p->cache);
    arena_free(p->a);
    free(p);
}

struct str policy_unfit(const struct policy *p, struct arena *a, const struct model *m)
{
    struct str why = S("");
    if (p->batching.max_batch > 1)
        why = batch_unfit(a, m->info);
    if (!why.n && p->sequences)
        why = sequence_unfit(a, &p->sequence, m->info);
    return why.n ? fmt(a, "version %.*s: %.*s", STR(m->name), STR(why)) : why;
}

/* ---- who is given up ---- */

static err late(void)
{
    return err_new(TIMEOUT, "Request timeout expired");
}

static void count(_Atomic int64_t *to)
{
    atomic_fetch_add_explicit(to, 1, memory_order_relaxed);
}

/* One more in a queue, or (by -1) one that has left it. */
static void queued(struct policy *p, const struct infer *c, int by)
{
    p->waiting += (size_t)by;
    atomic_fetch_add_explicit(&c->count->pending, by, memory_order_relaxed);
}

/* Without m held: those that were taken out for good. */
static void drop(struct infer *c)
{
    for (struct infer *next; c; c = next) {
        next = c->next;
        bool gone = req_gone(c->r);
        count(gone ? &c->count->gone : &c->count->expired);
        (void)infer_end(c, gone ? err_new(CANCELLED, "the client has left") : late());
    }
}

/* Is it due? If not, it is not forgotten. */
static bool is_due(struct policy *p, int64_t due, int64_t now)
{
    if (due > now && due < p->next_due)
        p->next_due = due;
    return due <= now;
}

/* When c's client stops waiting, as it told. */
static int64_t deadline_of(const struct infer *c)
{
    int64_t at = c->r->deadline_ns > 0 ? c->r->deadline_ns : INT64_MAX;
    return c->until && c->until < at ? c->until : at;
}

/* Those whose time is up: runs are stopped, who waits goes out, or behind all others. */
static void expire(struct policy *p, int64_t now, struct list_of *dropped)
{
    struct list_of *last = &p->level[p->levels - 1];
    if (now < p->next_due)
        return;
    p->next_due = INT64_MAX;
    for (struct run *r = p->runs; r; r = r->next)
        if (is_due(p, r->due, now)) {
            run_control_stop(&r->control, TIMEOUT);
            r->due = INT64_MAX;
        }
    for (size_t i = 0; i < p->levels; i++)
        for (struct infer **at = &p->level[i].first; *at;) {
            struct infer *c = *at;
            if (!is_due(p, c->due, now)) {
                at = &c->next;
                continue;
            }
            list_cut(&p->level[i], at);
            c->due = deadline_of(c);
            if (p->batching.timeout_action == TIMEOUT_DELAY && !c->seq && now < c->due) {
                list_put(last, c);
            } else {
                queued(p, c, -1);
                list_put(dropped, c);
            }
        }
}

/* ---- the next batch ---- */

struct batch {
    struct list_of list, dropped;
    size_t n, rows;
    const struct infer *head; /* while it is chosen: what the others must fit */
};

static bool together(const struct policy *p)
{
    return p->batching.max_batch > 1;
}

/* May c be one of the batch, if it has no more than most rows then? */
static bool joins(const struct batch *b, const struct infer *c, size_t most)
{
    if (!sequence_free(c) || req_gone(c->r)) /* nothing runs for a client that has left */
        return false;
    if (!b->head)
        return true;
    return b->n < ROUND_REQUESTS_MAX && batch_able(b->head) && batch_able(c) && c->n <= most &&
           b->rows <= most - c->n && batch_fits(b->head, c);
}

/* Looks at what waits, highest level first, and counts (or takes) what the next batch would be. */
static void choose(struct policy *p, struct batch *b, size_t most, bool take)
{
    size_t seen = 0;
    b->head = NULL;
    b->n = b->rows = 0;
    for (size_t i = 0; i < p->levels; i++)
        for (struct infer **at = &p->level[i].first; *at && seen < SCAN_MAX; seen++) {
            struct infer *c = *at;
            if (b->head && (b->rows >= most || !together(p)))
                return;
            if (!joins(b, c, most)) {
                at = &c->next;
                continue;
            }
            b->head = b->head ? b->head : c;
            b->n++;
            b->rows += c->n;
            if (!take) {
                at = &c->next;
                continue;
            }
            sequence_turn(c);
            queued(p, c, -1);
            list_put(&b->list, list_cut(&p->level[i], at));
        }
}

/* Those whose clients have left. */
static void leave_out(struct policy *p, int64_t now, struct list_of *dropped)
{
    p->swept_ns = now;
    for (size_t i = 0; i < p->levels; i++)
        for (struct infer **at = &p->level[i].first; *at;) {
            if (!req_gone((*at)->r)) {
                at = &(*at)->next;
                continue;
            }
            queued(p, *at, -1);
            list_put(dropped, list_cut(&p->level[i], at));
        }
}

static size_t preferred(const struct policy *p, size_t rows)
{
    size_t best = 0;
    for (size_t i = 0; i < p->preferred_n; i++)
        if (p->preferred[i] <= rows && p->preferred[i] > best)
            best = p->preferred[i];
    return best;
}

/* Is it worth while to wait for more? Clients that all wait here already send no more, however long the delay is: so no
 * longer than arrivals are apart, and not at all when lately that brought nobody. */
static bool waits(struct policy *p, const struct batch *b, size_t most, int64_t now, int64_t *again)
{
    *again = b->head->at.ready + p->batching.delay_us * 1000;
    if (!together(p) || now >= *again || b->rows >= most || b->n >= ROUND_REQUESTS_MAX ||
        !batch_pays(p, b->head, false))
        return false;
    if (!p->batching.adaptive)
        return true;
    if (!p->wait_n && p->fruit < FRUIT_MIN && p->dry % FRUIT_TRY)
        return false;
    int64_t quiet = 4 * p->gap_ns > QUIET_MIN_NS ? 4 * p->gap_ns : QUIET_MIN_NS;
    if (p->last_ns + quiet < *again)
        *again = p->last_ns + quiet;
    return now < *again;
}

static void waited(struct policy *p, const struct batch *b)
{
    if (p->wait_n)
        p->fruit += ((b->n > p->wait_n ? FRUIT_ALL : 0) - p->fruit) / 8;
    p->wait_n = 0;
}

/* Takes a batch if one is to run now; else says when to look again (INT64_MAX: when something changes). */
static int64_t take(struct policy *p, int64_t now, struct batch *b)
{
    size_t most = together(p) ? (size_t)p->batching.max_batch : 1;
    int64_t again;
    if (p->busy >= p->instances || !p->waiting)
        return INT64_MAX;
    choose(p, b, 1, false);
    if (!b->head)
        return INT64_MAX;
    bool pays = batch_pays(p, b->head, false);
    if (!pays && most > 1 && p->waiting > 1) /* then the others are not even looked at, but for a try */
        most = !batch_pays(p, b->head, true) ? 1 : most < TRY_ROWS ? most : TRY_ROWS;
    if (most > 1)
        choose(p, b, most, false);
    size_t good = p->batching.delay_us ? preferred(p, b->rows) : 0;
    bool wait = waits(p, b, most, now, &again);
    if (wait && !good) {
        p->wait_n = p->wait_n ? p->wait_n : b->n;
        return again;
    }
    waited(p, b);
    if (pays && b->n > 1 && !batch_pays(p, b->head, true))
        most = 1;
    choose(p, b, wait ? good : most, true);
    return now;
}

/* ---- runners ---- */

static void *runner(void *arg);

/* With m held: is somebody to look at the clock when that is next due? */
static bool watched(const struct policy *p)
{
    const struct sleeper *s = p->idle;
    while (s && s->until > p->next_due)
        s = s->below;
    return s != NULL || p->next_due == INT64_MAX;
}

/* With m held: is there more to do than those do who are up? A run that ends finds the next one itself. */
static bool calls(const struct policy *p)
{
    bool work = p->waiting > p->roused && p->busy + p->roused < p->instances;
    bool unswept = p->waiting && p->last_ns - p->swept_ns > SWEEP_NS;
    return work || (!p->roused && (unswept || !watched(p)));
}

/* With m held: one more runner. A thread that cannot be started is missed only if it is the first. */
static err staff(struct policy *p)
{
    if (p->threads_n > p->instances)
        return NULL;
    p->roused++;
    err e = thread_start("instance", runner, p, &p->threads[p->threads_n]);
    if (!e)
        p->threads_n++;
    else
        p->roused--;
    return p->threads_n ? NULL : e;
}

/* With m held: if there is a reason to, somebody looks: who is to be shaken, or a new one. */
static struct sleeper *call(struct policy *p)
{
    if (!calls(p))
        return NULL;
    if (p->idle)
        return rouse(p);
    (void)staff(p);
    return NULL;
}

static void sleeper_init(struct sleeper *s)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->roused, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

static void lie_down(struct policy *p, struct sleeper *s, int64_t until)
{
    struct timespec at = { .tv_sec = until / 1000000000, .tv_nsec = until % 1000000000 };
    int over = 0;
    s->up = false;
    s->until = until;
    s->below = p->idle;
    p->idle = s;
    while (!s->up && !over && !p->ending)
        over = until == INT64_MAX ? pthread_cond_wait(&s->roused, &p->m)
                                  : pthread_cond_timedwait(&s->roused, &p->m, &at);
    if (s->up) {
        p->roused--;
        return;
    }
    struct sleeper **place = &p->idle;
    while (*place != s)
        place = &(*place)->below;
    *place = s->below;
}

/* One thing that there is to do; with m held, but for the work itself. */
static void step(struct policy *p, struct sleeper *self, struct arena *scratch)
{
    struct batch b = { 0 };
    int64_t now = mono_ns();
    expire(p, now, &b.dropped);
    int64_t again = take(p, now, &b);
    if (!b.list.first || now - p->swept_ns > SWEEP_NS)
        leave_out(p, now, &b.dropped);
    if (!b.list.first && !b.dropped.first) {
        lie_down(p, self, again < p->next_due ? again : p->next_due);
        return;
    }
    p->busy += b.list.first != NULL;
    struct sleeper *other = call(p);
    pthread_mutex_unlock(&p->m);
    shake(other);
    drop(b.dropped.first);
    if (b.list.first)
        batch_run(scratch, b.list.first, b.n);
    err_reset();
    pthread_mutex_lock(&p->m);
    p->busy -= b.list.first != NULL;
}

static void *runner(void *arg)
{
    struct policy *p = arg;
    struct arena *scratch = arena_new(0);
    struct sleeper self;
    sleeper_init(&self);
    pthread_mutex_lock(&p->m);
    p->roused--;
    while (!p->ending)
        step(p, &self, scratch);
    pthread_mutex_unlock(&p->m);
    pthread_cond_destroy(&self.roused);
    arena_free(scratch);
    err_reset();
    return NULL;
}

/* ---- runs that may take only so long ---- */

/* No longer than the spec allows, nor than one of those that wait for it (c, and what hangs on it) still waits. */
static int64_t run_enter(struct policy *p, struct run *r, const struct infer *c)
{
    int64_t last = 0, due = mono_ns() + p->run_ns_max;
    for (; c; c = c->next)
        last = deadline_of(c) > last ? deadline_of(c) : last;
    r->due = due = last < due ? last : due;
    pthread_mutex_lock(&p->m);
    r->next = p->runs;
    r->link = &p->runs;
    if (r->next)
        r->next->link = &r->next;
    p->runs = r;
    p->next_due = due < p->next_due ? due : p->next_due;
    struct sleeper *other = call(p);
    pthread_mutex_unlock(&p->m);
    shake(other);
    return due;
}

static void run_leave(struct policy *p, struct run *r)
{
    LOCKED(&p->m);
    *r->link = r->next;
    if (r->next)
        r->next->link = r->link;
}

static err model_run(struct infer *c, struct run_control *control, int64_t until, struct arena *a,
                     const struct tensor *in, struct tensor *out, size_t out_n)
{
    const struct model *m = c->to->model;
    if (m->composed)
        return ensemble_run(c, control, until, a, in, out, out_n);
    return session_run_until(m->session, control, a, in, m->info->n_inputs, out, out_n);
}

err policy_run(struct infer *c, struct arena *a, const struct tensor *in, struct tensor *out, size_t out_n)
{
    struct policy *p = c->entry->policy;
    bool timed = p && p->run_ns_max;
    if (!timed && !c->within && in == c->in && bound_fits(c))
        return bound_run(c);
    if (!timed)
        return model_run(c, c->within, c->until, a, in, out, out_n);
    struct run r = { .control = RUN_CONTROL_INIT };
    int64_t due = run_enter(p, &r, c);
    err e = model_run(c, &r.control, due, a, in, out, out_n);
    run_leave(p, &r);
    pthread_mutex_destroy(&r.control.lock);
    return e;
}

/* ---- coming in ---- */

static size_t level_of(const struct policy *p, const struct infer *c)
{
    size_t levels = p->levels - 1, level = c->p.priority;
    if (!level)
        level = (size_t)p->batching.default_priority;
    if (!level || c->seq) /* a sequence is in order whatever its requests say */
        level = (levels + 1) / 2;
    return (level > levels ? levels : level) - 1;
}

static int64_t due_of(const struct policy *p, const struct infer *c)
{
    int64_t us = p->batching.timeout_override ? c->p.timeout_us : 0;
    if (us <= 0)
        us = p->batching.timeout * 1000;
    int64_t due = us <= 0 || us > (INT64_MAX - c->at.arrived) / 1000 ? INT64_MAX : c->at.arrived + us * 1000;
    return due < deadline_of(c) ? due : deadline_of(c);
}

static void put(struct policy *p, struct infer *c)
{
    int64_t now = c->at.ready, gap = now - p->last_ns, most = p->batching.delay_us * 1000;
    c->due = due_of(p, c);
    p->next_due = c->due < p->next_due ? c->due : p->next_due;
    if (p->waiting && gap > 0)
        p->gap_ns += ((gap < most ? gap : most) - p->gap_ns) / 8;
    p->last_ns = now;
    list_put(&p->level[level_of(p, c)], c);
    queued(p, c, 1);
}

static err refused(struct infer *c, err e)
{
    count(&c->count->shed);
    req_reply_header(c->r, "Retry-After", S("1"));
    return infer_end(c, e);
}

static err enqueue(struct policy *p, struct infer *c)
{
    const struct snap *snap = c->snap;
    struct sleeper *runner = NULL;
    snap_keep(snap); /* c may be answered before runner is shaken */
    pthread_mutex_lock(&p->m);
    bool full = p->waiting >= (size_t)p->batching.queue;
    err e = full || p->threads_n ? NULL : staff(p);
    if (!full && !e) {
        infer_wait(c);
        put(p, c);
        runner = call(p);
    }
    pthread_mutex_unlock(&p->m);
    shake(runner);
    snap_unref(snap);
    if (full)
        e = err_hint(err_new(BUSY, "Exceeds maximum queue size of '%.*s'", STR(c->entry->name)),
                     "try again in a second");
    return e ? refused(c, e) : NULL;
}

/* A run that this thread takes over from the runners, if one is free and nobody waits. */
static bool instance_take(struct policy *p)
{
    LOCKED(&p->m);
    bool free = !p->waiting && p->busy < p->instances;
    p->busy += free;
    return free;
}

static void instance_give(struct policy *p)
{
    pthread_mutex_lock(&p->m);
    p->busy--;
    struct sleeper *other = call(p);
    pthread_mutex_unlock(&p->m);
    shake(other);
}

/* ---- rounds of a loop ---- */

/* All that fit the first of the list, out of it, up to so many rows. */
static struct infer *round_take(struct policy *p, struct list_of *l, size_t *n)
{
    struct list_of out = { 0 };
    struct infer *head = list_cut(l, &l->first);
    size_t rows = head->n, most = (size_t)p->batching.max_batch;
    list_put(&out, head);
    *n = 1;
    for (struct infer **at = &l->first; *at && *n < ROUND_REQUESTS_MAX;) {
        struct infer *c = *at;
        if (c->n > most || rows > most - c->n || !batch_fits(head, c)) {
            at = &c->next;
            continue;
        }
        rows += c->n;
        ++*n;
        list_put(&out, list_cut(l, at));
    }
    return out.first;
}

static void round_end(struct round_task *t)
{
    struct round *r = (struct round *)t;
    struct policy *p = r->policy;
    struct list_of l = r->list;
    const struct snap *snap = l.first->snap;
    size_t n;
    r->list = (struct list_of){ 0 };
    snap_keep(snap); /* p is there until the last batch is ended */
    while (l.first) {
        struct infer *first = round_take(p, &l, &n);
        batch_run(r->scratch, first, n);
    }
    snap_unref(snap);
    err_reset();
}

static void round_put(struct policy *p, struct infer *c)
{
    struct round *r = &p->rounds[req_loop(c->r)];
    infer_wait(c);
    if (!r->scratch)
        *r = (struct round){ .task.run = round_end, .policy = p, .scratch = arena_new(0) };
    if (!r->list.first)
        req_round_end(c->r, &r->task);
    list_put(&r->list, c);
}

/* ---- where c runs ---- */

static bool quick(const struct infer *c, int64_t most)
{
    int64_t ns = atomic_load_explicit(&c->to->model->run_ns, memory_order_relaxed);
    return ns > 0 && ns < most;
}

/* Else it runs as if there were no delay. */
static bool waiting_pays(struct policy *p)
{
    LOCKED(&p->m);
    p->dry++;
    return p->waiting || !p->batching.adaptive || p->fruit >= FRUIT_MIN || p->dry % FRUIT_TRY == 0;
}

err queue_submit(struct infer *c)
{
    struct policy *p = c->entry->policy;
    if (!p)
        return infer_end(c, infer_run(c));
    bool loop = req_on_loop(c->r), batches = together(p) && batch_able(c);
    if (c->seq || (batches && p->batching.delay_us && waiting_pays(p)))
        return enqueue(p, c);
    if (quick(c, LIGHT_NS)) {
        if (!batches || !loop || req_loop(c->r) >= LOOPS_MAX || !batch_pays(p, c, true))
            return infer_end(c, infer_run(c));
        round_put(p, c);
        return NULL;
    }
    bool here = loop ? quick(c, ALONE_NS) && req_alone(c->r) : quick(c, SLOW_NS);
    if (!here || !instance_take(p))
        return enqueue(p, c);
    err e = infer_run(c);
    instance_give(p);
    return infer_end(c, e);
}

/* ---- the spec ---- */

err policy_check(const struct resource_check *c)
{
    const struct deployment_spec *spec = c->spec;
    size_t sizes[PREFERRED_MAX], n;
    if (!spec->model.n == !spec->ensemble.steps.n)
        return err_field(
            err_new(INVALID, "spec.model: a deployment has either a model or an ensemble's steps"),
            S("spec.model"));
    err e = preferred_read(c->a, spec->batching.preferred, sizes, &n);
    if (e)
        return err_field(e, S("spec.batching.preferred"));
    if (spec->batching.default_priority > spec->batching.priorities)
        return err_field(err_new(INVALID, "spec.batching.defaultPriority is none of the %lld priorities",
                                 (long long)spec->batching.priorities),
                         S("spec.batching.defaultPriority"));
    return ensemble_check(c->a, &spec->ensemble);
}
