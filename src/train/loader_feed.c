// SPDX-License-Identifier: Apache-2.0
#include "train/loader_internal.h"

#include <stdlib.h>

enum { DEPTH_MIN = 4, DEPTH_MAX = 64, DEPTH_BYTES = 4 << 20, ALIGN = 64 };

/* ---- order ---- */

static uint64_t key_of(uint64_t seed, int64_t epoch, uint64_t what)
{
    uint64_t state = seed;
    uint64_t a = splitmix(&state) ^ (uint64_t)epoch * 0xd1342543de82ef95u;
    uint64_t b = splitmix(&a) ^ what * 0xaef17502108ef2d9u;
    return splitmix(&b);
}

/* Fisher–Yates; a number below n is the upper half of n × 64 random bits (Lemire 2019, without his correction: the bias is
 * below n / 2^64). */
static void permute(uint32_t *v, size_t n, uint64_t key)
{
    for (size_t i = n; i > 1; i--) {
        size_t k = (size_t)((unsigned __int128)splitmix(&key) * i >> 64);
        uint32_t swap = v[i - 1];
        v[i - 1] = v[k];
        v[k] = swap;
    }
}

/* Rows of one group stay together, in their order; groups are shuffled. */
struct grouped {
    uint64_t key;
    uint32_t row;
};

static int by_key(const void *a, const void *b)
{
    const struct grouped *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : (x->row > y->row) - (x->row < y->row);
}

/* scratch: n of them. */
static void permute_groups(uint32_t *v, size_t n, const uint32_t *groups, uint64_t key,
                           struct grouped *scratch)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = (struct grouped){ key_of(key, 0, groups[v[i]]), v[i] };
    qsort(scratch, n, sizeof *scratch, by_key);
    for (size_t i = 0; i < n; i++)
        v[i] = scratch[i].row;
}

/* ---- what a batch is made of ---- */

/* A run of rows of an epoch that are in memory: all of them, or a window. */
struct window {
    int64_t epoch;
    int64_t from, n;      /* rows of the epoch's sequence */
    size_t block, blocks; /* of plan: the first, and how many */
    const struct store *store;
    uint32_t *order; /* of the store's rows */
    struct store own;
    size_t order_cap;
    struct grouped *grouped; /* room to order it by */
};

/* A window that is read while the one before is in use. */
struct reading {
    pthread_t thread;
    bool runs;
    struct feed *feed;
    struct window *window;
    err e; /* in the feed's reads */
};

struct ready {
    char *data[LOADER_TENSORS_MAX];
    int64_t rows, epoch, step;
    bool last;
};

struct feed {
    const struct loader *l;
    struct arena *a;
    struct feed_options with;
    int64_t rows, steps;              /* of an epoch: rows that come, batches */
    size_t sizes[LOADER_TENSORS_MAX]; /* bytes of a row of the batch */

    /* making: the thread's, or the caller's where there is none */
    int64_t epoch, step;     /* of the batch that is made next */
    uint32_t *order[2];      /* kept rows: of even and odd epochs */
    struct grouped *grouped; /* room to order them by */
    size_t group;            /* the tensor of the rows' groups, which stay together; SIZE_MAX: none */
    int64_t order_of[2];
    uint32_t *plan; /* blocks in the order of plan_of */
    int64_t plan_of;
    struct window windows[2];
    int window; /* that was used last */
    struct reading reading;
    struct arena *makes,
        *reads; /* what these threads keep: errors; the database. The caller's arena is not theirs */
    struct duck *duck;

    /* the ring */
    struct ready *ring;
    int depth;
    pthread_mutex_t lock;
    pthread_cond_t filled, freed;
    int first, count; /* ready ones; the one before them is with the caller while held */
    bool held, waiting, resting, stop, ended, runs;
    err e; /* of the thread, in makes */
    pthread_t thread;

    /* the caller's */
    int64_t next_epoch, next_step;
    bool over;
    struct feed_stats stats;
    int64_t started, waited_ns;
    int64_t filled_ns; /* under lock */
};

static void shuffle(const struct feed *f, uint32_t *v, size_t n, const struct store *store, uint64_t key,
                    struct grouped *scratch)
{
    if (f->with.shuffle && scratch)
        permute_groups(v, n, (const uint32_t *)(const void *)store->data[f->group], key, scratch);
    else if (f->with.shuffle)
        permute(v, n, key);
}

/* ---- kept rows ---- */

static void order_make(struct feed *f, int64_t epoch)
{
    int i = (int)(epoch & 1);
    size_t n = (size_t)f->l->facts.rows[f->with.part];
    if (f->order_of[i] == epoch)
        return;
    memcpy(f->order[i], f->l->rows[f->with.part], n * sizeof **f->order);
    shuffle(f, f->order[i], n, &f->l->kept, key_of(f->with.seed, epoch, 0), f->grouped);
    f->order_of[i] = epoch;
}

/* ---- windows ---- */

static void plan_make(struct feed *f, int64_t epoch)
{
    if (f->plan_of == epoch)
        return;
    for (size_t i = 0; i < f->l->blocks.n; i++)
        f->plan[i] = (uint32_t)i;
    if (f->with.shuffle)
        permute(f->plan, f->l->blocks.n, key_of(f->with.seed, epoch, 1));
    f->plan_of = epoch;
}

static int64_t block_rows(const struct feed *f, size_t i)
{
    return f->l->blocks.v[f->plan[i]].part[f->with.part];
}

/* How far the window reaches that begins at block `from` of the plan: as many blocks as fit, one at least. */
static void window_extent(const struct feed *f, size_t from, int64_t *rows, size_t *blocks)
{
    *rows = 0;
    *blocks = 0;
    for (size_t i = from; i < f->l->blocks.n; i++) {
        int64_t more = block_rows(f, i);
        if (*rows && *rows + more > f->l->spec.window_rows)
            return;
        *rows += more;
        ++*blocks;
    }
}

static err window_read(struct feed *f, struct window *w)
{
    w->own.rows = 0;
    w->store = &w->own;
    if (!f->duck)
        TRY(table_duck(f->l, f->reads, &f->duck));
    for (size_t i = w->block; i < w->block + w->blocks; i++)
        if (block_rows(f, i) > 0)
            TRY(table_block(f->l, f->duck, &f->l->blocks.v[f->plan[i]], f->with.part, &w->own));
    if (w->own.rows > w->order_cap) {
        uint32_t *p = realloc(w->order, w->own.rows * sizeof *p);
        if (!p)
            FAIL(TOO_LARGE, "there is no memory for a window of %zu rows", w->own.rows);
        w->order = p;
        w->order_cap = w->own.rows;
        struct grouped *g = f->group == SIZE_MAX ? NULL : realloc(w->grouped, w->own.rows * sizeof *g);
        if (f->group != SIZE_MAX && !g)
            FAIL(TOO_LARGE, "there is no memory for a window of %zu rows", w->own.rows);
        w->grouped = g;
    }
    for (size_t i = 0; i < w->own.rows; i++)
        w->order[i] = (uint32_t)i;
    shuffle(f, w->order, w->own.rows, &w->own, key_of(f->with.seed, w->epoch, 2 + w->block), w->grouped);
    return NULL;
}

static void *reading_run(void *arg)
{
    struct reading *r = arg;
    err e = window_read(r->feed, r->window);
    r->e = e ? err_copy(e, r->feed->reads) : NULL;
    err_reset();
    return NULL;
}

static void reading_end(struct feed *f)
{
    if (f->reading.runs)
        pthread_join(f->reading.thread, NULL);
    f->reading.runs = false;
}

/* Starts to read what follows window w: in its epoch, or the first of the next. */
static void reading_start(struct feed *f, const struct window *w, struct window *to)
{
    struct window next = { .epoch = w->epoch, .from = w->from + w->n, .block = w->block + w->blocks };
    next.own = to->own;
    next.order = to->order;
    next.order_cap = to->order_cap;
    next.grouped = to->grouped;
    to->n = 0;
    if (f->with.depth < 0)
        return;
    window_extent(f, next.block, &next.n, &next.blocks);
    if (!next.n && !f->with.once) {
        plan_make(f, ++next.epoch);
        next.from = 0;
        next.block = 0;
        window_extent(f, 0, &next.n, &next.blocks);
    }
    if (!next.n)
        return;
    *to = next;
    f->reading = (struct reading){ .feed = f, .window = to };
    f->reading.runs = !thread_start("window", reading_run, &f->reading, &f->reading.thread);
    if (!f->reading.runs)
        to->n = 0; /* it is read when it is needed */
}

static bool window_has(const struct window *w, int64_t epoch, int64_t row)
{
    return w->store && w->n && w->epoch == epoch && row >= w->from && row < w->from + w->n;
}

static err window_find(struct feed *f, int64_t epoch, int64_t row, struct window **out)
{
    struct window *now = &f->windows[f->window], *other = &f->windows[!f->window];
    if (window_has(now, epoch, row)) {
        *out = now;
        return NULL;
    }
    reading_end(f);
    f->window = !f->window;
    err e = f->reading.window == other ? f->reading.e : NULL;
    f->reading.window = NULL;
    if (e || !window_has(other, epoch, row)) {
        plan_make(f, epoch);
        int64_t from = 0, rows = 0;
        size_t block = 0, blocks = 0;
        for (;; from += rows, block += blocks) {
            window_extent(f, block, &rows, &blocks);
            if (row < from + rows || !blocks)
                break;
        }
        other->epoch = epoch;
        other->from = from;
        other->n = rows;
        other->block = block;
        other->blocks = blocks;
        e = window_read(f, other);
    }
    if (e) {
        other->n = 0;
        return e;
    }
    *out = other;
    reading_start(f, other, now);
    return NULL;
}

/* ---- a batch ---- */

static err rows_gather(struct feed *f, int64_t epoch, int64_t from, int64_t to, void *const *out)
{
    const struct loader *l = f->l;
    for (int64_t at = from; at < to;) {
        const struct store *store = &l->kept;
        const uint32_t *order;
        int64_t n = to - at;
        if (l->facts.kept) {
            order = f->order[epoch & 1] + at;
        } else {
            struct window *w;
            TRY(window_find(f, epoch, at, &w));
            if (n > w->from + w->n - at)
                n = w->from + w->n - at;
            order = w->order + (at - w->from);
            store = w->store;
        }
        for (size_t i = 0; i < l->n; i++)
            gather_rows(&store->gather[i], order, 0, (size_t)n,
                        (char *)out[i] + (size_t)(at - from) * f->sizes[i]);
        at += n;
    }
    return NULL;
}

/* The next batch into r; r->rows is 0 at the end of an evaluation. */
static err batch_make(struct feed *f, struct ready *r)
{
    if (f->step == f->steps) {
        if (f->with.once) {
            r->rows = 0;
            return NULL;
        }
        f->step = 0;
        f->epoch++;
    }
    int64_t from = f->step * f->with.rows, to = from + f->with.rows < f->rows ? from + f->with.rows : f->rows;
    if (f->l->facts.kept)
        order_make(f, f->epoch);
    TRY(rows_gather(f, f->epoch, from, to, (void *const *)r->data));
    r->rows = to - from;
    r->epoch = f->epoch;
    r->step = f->step++;
    r->last = f->step == f->steps;
    return NULL;
}

/* ---- the ring ---- */

static void *filling_run(void *arg)
{
    struct feed *f = arg;
    pthread_mutex_lock(&f->lock);
    while (!f->stop && !f->ended) {
        if (f->count + f->held == f->depth) {
            f->resting = true; /* until half of it is used up: few wakings */
            pthread_cond_wait(&f->freed, &f->lock);
            f->resting = false;
            continue;
        }
        struct ready *r = &f->ring[(f->first + f->count) % f->depth];
        pthread_mutex_unlock(&f->lock);
        int64_t start = mono_ns();
        err e = batch_make(f, r);
        int64_t took = mono_ns() - start;
        pthread_mutex_lock(&f->lock);
        f->filled_ns += took;
        f->e = e ? err_copy(e, f->makes) : NULL;
        f->ended = e || r->rows == 0;
        f->count += !f->ended;
        if (f->waiting)
            pthread_cond_signal(&f->filled);
    }
    pthread_mutex_unlock(&f->lock);
    err_reset();
    return NULL;
}

static void filling_stop(struct feed *f)
{
    if (f->runs) {
        pthread_mutex_lock(&f->lock);
        f->stop = true;
        pthread_cond_signal(&f->freed);
        pthread_mutex_unlock(&f->lock);
        pthread_join(f->thread, NULL);
    }
    reading_end(f);
    f->runs = f->stop = f->ended = f->held = f->over = false;
    f->first = f->count = 0;
    f->e = NULL;
}

/* Gives the batch before back, waits for one, takes it. */
static err ring_take(struct feed *f, struct ready **out, int64_t *waited)
{
    LOCKED(&f->lock);
    if (f->held) {
        f->held = false;
        if (f->resting && f->count <= f->depth / 2)
            pthread_cond_signal(&f->freed);
    }
    if (!f->count && !f->ended) {
        int64_t start = mono_ns();
        if (f->resting)
            pthread_cond_signal(&f->freed);
        f->waiting = true;
        while (!f->count && !f->ended)
            pthread_cond_wait(&f->filled, &f->lock);
        f->waiting = false;
        *waited = mono_ns() - start;
    }
    if (!f->count) {
        *out = NULL;
        return f->e;
    }
    *out = &f->ring[f->first];
    f->first = (f->first + 1) % f->depth;
    f->count--;
    f->held = true;
    return NULL;
}

static void batch_show(struct feed *f, const struct ready *r, int64_t waited, struct feed_batch *out)
{
    *out = (struct feed_batch){
        .rows = r->rows, .epoch = r->epoch, .step = r->step, .last = r->last, .waited_ns = waited
    };
    for (size_t i = 0; i < f->l->n; i++)
        out->data[i] = r->data[i];
    f->next_epoch = r->last && !f->with.once ? r->epoch + 1 : r->epoch;
    f->next_step = r->last && !f->with.once ? 0 : r->step + 1;
    f->stats.batches++;
    f->stats.rows += r->rows;
}

err feed_next(struct feed *f, struct feed_batch *out)
{
    struct ready *r = f->ring;
    int64_t start = mono_ns(), waited = 0;
    if (!f->started)
        f->started = start;
    *out = (struct feed_batch){ 0 };
    if (f->over)
        return NULL;
    if (f->with.depth < 0) {
        TRY(batch_make(f, r));
        waited = mono_ns() - start;
        f->filled_ns += waited;
        if (!r->rows)
            r = NULL;
    } else {
        if (!f->runs)
            TRY(thread_start("loader", filling_run, f, &f->thread));
        f->runs = true;
        TRY(ring_take(f, &r, &waited));
    }
    f->waited_ns += waited;
    f->over = !r;
    if (r)
        batch_show(f, r, waited, out);
    return NULL;
}

/* ---- opening ---- */

static void feed_close(void *arg)
{
    struct feed *f = arg;
    filling_stop(f);
    arena_free(f->makes);
    arena_free(f->reads);
    free(f->grouped);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->filled);
    pthread_cond_destroy(&f->freed);
    for (int i = 0; i < 2; i++) {
        free(f->order[i]);
        free(f->windows[i].order);
        free(f->windows[i].grouped);
        store_free(&f->windows[i].own);
    }
}

static void ring_make(struct feed *f)
{
    int64_t bytes = 0;
    for (size_t i = 0; i < f->l->n; i++)
        bytes += (int64_t)f->sizes[i] * f->with.rows;
    int64_t fits = DEPTH_BYTES / (bytes + 1);
    f->depth = f->with.depth < 0    ? 1
               : f->with.depth == 0 ? (int)(fits < DEPTH_MIN   ? DEPTH_MIN
                                            : fits > DEPTH_MAX ? DEPTH_MAX
                                                               : fits)
               : f->with.depth == 1 ? 2 /* one with the caller, one being made */
                                    : f->with.depth;
    f->ring = NEW_N(f->a, struct ready, (size_t)f->depth);
    for (int k = 0; k < f->depth; k++)
        for (size_t i = 0; i < f->l->n; i++)
            f->ring[k].data[i] = arena_alloc(f->a, f->sizes[i] * (size_t)f->with.rows, ALIGN);
}

static err orders_make(struct feed *f)
{
    const struct loader *l = f->l;
    size_t n = (size_t)l->facts.rows[f->with.part];
    f->order_of[0] = f->order_of[1] = f->plan_of = -1;
    f->plan = NEW_N(f->a, uint32_t, l->blocks.n + 1);
    for (int i = 0; l->facts.kept && i < 2; i++)
        if (!(f->order[i] = malloc(n * sizeof(uint32_t) + 1)))
            FAIL(TOO_LARGE, "there is no memory for %zu rows", n);
    f->group = SIZE_MAX;
    for (size_t i = 0; i < l->n && f->with.shuffle; i++)
        if (l->tensors[i].role == ROLE_GROUP)
            f->group = i;
    if (f->group != SIZE_MAX && l->facts.kept && !(f->grouped = malloc(n * sizeof *f->grouped + 1)))
        FAIL(TOO_LARGE, "there is no memory for %zu rows", n);
    return NULL;
}

static err options_check(const struct loader *l, const struct feed_options *o)
{
    enum { ROWS_MAX = 1 << 24, DEPTH_LIMIT = 4096 };
    int64_t n = l->facts.rows[o->part];
    if (o->rows < 1 || o->rows > ROWS_MAX || o->depth > DEPTH_LIMIT)
        FAIL(INVALID, "a batch of %lld rows, %d ahead", (long long)o->rows, o->depth);
    if (!n || (!o->once && n < o->rows))
        return err_hint(err_new(INVALID, "the %.*s part has %lld rows%s", STR(loader_part_names[o->part]),
                                (long long)n, n ? fmtz(l->a, ", a batch %lld", (long long)o->rows) : ""),
                        "%s", n ? "take smaller batches" : "give a split, or files of this part");
    return NULL;
}

err feed_open(struct loader *l, struct arena *a, const struct feed_options *with, struct feed **out)
{
    TRY(options_check(l, with));
    struct feed *f = NEW(a, struct feed);
    *f = (struct feed){ .l = l, .a = a, .with = *with };
    f->rows = l->facts.rows[with->part];
    f->steps = with->once ? (f->rows + with->rows - 1) / with->rows : f->rows / with->rows;
    for (size_t i = 0; i < l->n; i++)
        f->sizes[i] = (size_t)l->tensors[i].n * tensor_size(l->tensors[i].type);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->filled, NULL);
    pthread_cond_init(&f->freed, NULL);
    f->makes = arena_new(0);
    f->reads = arena_new(0);
    arena_defer(a, feed_close, f);
    ring_make(f);
    TRY(orders_make(f));
    *out = f;
    return NULL;
}

int64_t feed_steps(const struct feed *f)
{
    return f->steps;
}

/* ---- position ---- */

struct str feed_state(const struct feed *f, struct arena *a)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "epoch", f->next_epoch);
    json_ki64(&j, "step", f->next_step);
    json_kstr(&j, "part", loader_part_names[f->with.part]);
    json_ki64(&j, "rows", f->l->facts.rows[f->with.part]);
    json_ki64(&j, "batch", f->with.rows);
    json_kstr(&j, "seed", fmt(a, "%llu", (unsigned long long)f->with.seed));
    json_kbool(&j, "shuffle", f->with.shuffle);
    json_ki64(&j, "window", f->l->facts.kept ? 0 : f->l->spec.window_rows);
    json_obj_end(&j);
    return json_get(&j);
}

static err state_same(const struct feed *f, yyjson_val *o)
{
    auto_arena struct arena *a = arena_new(0);
    yyjson_val *v = yyjson_obj_get(o, "seed");
    const struct {
        const char *key;
        int64_t want;
    } numbers[] = { { "rows", f->l->facts.rows[f->with.part] },
                    { "batch", f->with.rows },
                    { "window", f->l->facts.kept ? 0 : f->l->spec.window_rows } };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        yyjson_val *n = yyjson_obj_get(o, numbers[i].key);
        if (!yyjson_is_int(n) || yyjson_get_sint(n) != numbers[i].want)
            FAIL(INVALID, "the position is of other data or settings: %s was %lld, is %lld", numbers[i].key,
                 (long long)yyjson_get_sint(n), (long long)numbers[i].want);
    }
    if (!yyjson_is_str(v) ||
        strcmp(yyjson_get_str(v), fmtz(a, "%llu", (unsigned long long)f->with.seed)) != 0 ||
        yyjson_get_bool(yyjson_obj_get(o, "shuffle")) != f->with.shuffle ||
        !yyjson_equals_str(yyjson_obj_get(o, "part"), loader_part_names[f->with.part].p))
        FAIL(INVALID, "the position is of another seed, order or part");
    return NULL;
}

err feed_seek(struct feed *f, struct str state)
{
    yyjson_doc *doc = yyjson_read(state.p, state.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc);
    yyjson_val *e = yyjson_obj_get(root, "epoch"), *s = yyjson_obj_get(root, "step");
    int64_t epoch = yyjson_is_int(e) ? yyjson_get_sint(e) : -1,
            step = yyjson_is_int(s) ? yyjson_get_sint(s) : -1;
    err bad = state_same(f, root);
    yyjson_doc_free(doc);
    TRY(bad);
    if (epoch < 0 || step < 0 || step > f->steps)
        FAIL(INVALID, "there is no step %lld of epoch %lld", (long long)step, (long long)epoch);
    filling_stop(f);
    f->epoch = f->next_epoch = epoch;
    f->step = f->next_step = step;
    return NULL;
}

err feed_rewind(struct feed *f)
{
    filling_stop(f);
    f->epoch = f->next_epoch = 0;
    f->step = f->next_step = 0;
    return NULL;
}

/* ---- without a thread ---- */

bool feed_can_gather(const struct feed *f)
{
    return f->l->facts.kept;
}

void feed_epoch(struct feed *f, int64_t epoch)
{
    order_make(f, epoch);
    f->epoch = epoch;
}

void feed_gather(const struct feed *f, int64_t step, int64_t from, int64_t to, void *const *out)
{
    const struct loader *l = f->l;
    const uint32_t *order = f->order[f->epoch & 1] + step * f->with.rows + from;
    for (size_t i = 0; i < l->n; i++)
        if (out[i])
            gather_rows(&l->kept.gather[i], order, 0, (size_t)(to - from), out[i]);
}

struct feed_stats feed_stats(const struct feed *f)
{
    struct feed_stats s = f->stats;
    pthread_mutex_lock((pthread_mutex_t *)&f->lock);
    s.filled = (double)f->filled_ns / 1e9;
    pthread_mutex_unlock((pthread_mutex_t *)&f->lock);
    s.waited = (double)f->waited_ns / 1e9;
    s.passed = f->started ? (double)(mono_ns() - f->started) / 1e9 : 0;
    return s;
}
