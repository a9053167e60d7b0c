// SPDX-License-Identifier: Apache-2.0
/* Several requests as one run: inputs one after the other, outputs back to whom they belong. */
#include "serve/policy.h"

enum { CLOCKED_NS = 20000 };
enum { ODD = 8 /* times the usual run, and it does not tell of the next one */ };

/* ---- what fits ---- */

static const struct tensor_spec *first_fixed(const struct tensor_spec *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!v[i].shaped || !v[i].rank || v[i].dims[0] >= 0 || v[i].type == TENSOR_NONE)
            return &v[i];
    return NULL;
}

struct str batch_unfit(struct arena *a, const struct session_info *info)
{
    const struct tensor_spec *bad = first_fixed(info->inputs, info->n_inputs);
    bad = bad ? bad : first_fixed(info->outputs, info->n_outputs);
    if (!info->n_inputs)
        return S("requests do not run together: it has no inputs");
    return bad ? fmt(a, "requests do not run together: the first dimension of '%.*s' is not open",
                     STR(bad->name))
               : S("");
}

bool batch_able(const struct infer *c)
{
    const struct model *m = c->to->model;
    bool able = m->batches && c->n > 0;
    for (size_t i = 0; able && i < m->info->n_inputs; i++)
        able = c->in[i].rank > 0 && (size_t)c->in[i].dims[0] == c->n;
    return able;
}

bool batch_fits(const struct infer *a, const struct infer *b)
{
    bool fits = a->to->model == b->to->model;
    for (size_t i = 0; fits && i < a->to->model->info->n_inputs; i++) {
        const struct tensor *t = &a->in[i], *u = &b->in[i];
        fits = t->rank == u->rank && memcmp(t->dims + 1, u->dims + 1, (t->rank - 1) * sizeof *t->dims) == 0;
    }
    return fits;
}

/* ---- one run ---- */

struct together {
    struct arena *a;
    struct infer *first;
    size_t rows;
    struct tensor *in, *out;
    size_t out_n;
    size_t place[TENSORS_MAX]; /* of an output's slot in out, + 1 */
};

static err input_join(struct together *t, size_t slot)
{
    struct tensor *to = &t->in[slot];
    *to = t->first->in[slot];
    to->dims[0] = (int64_t)t->rows;
    to->bytes = 0;
    for (const struct infer *c = t->first; c; c = c->next)
        if (__builtin_add_overflow(to->bytes, c->in[slot].bytes, &to->bytes) || to->bytes > PTRDIFF_MAX / 2)
            FAIL(TOO_LARGE, "the requests of a batch have too many bytes");
    char *at = to->data = arena_alloc(t->a, to->bytes, 64);
    for (const struct infer *c = t->first; c; c = c->next) {
        if (c->in[slot].bytes)
            memcpy(at, c->in[slot].data, c->in[slot].bytes);
        at += c->in[slot].bytes;
    }
    return NULL;
}

/* All outputs that one of the requests wants. */
static void outputs_join(struct together *t)
{
    const struct model *m = t->first->to->model;
    t->out = NEW_N(t->a, struct tensor, m->info->n_outputs);
    for (const struct infer *c = t->first; c; c = c->next)
        for (size_t i = 0; i < c->run_n; i++) {
            size_t *place = &t->place[c->out[i].slot];
            if (*place)
                continue;
            t->out[t->out_n].slot = c->out[i].slot;
            output_place(m, t->a, t->rows, &t->out[t->out_n]);
            *place = ++t->out_n;
        }
}

/* Rows from `row` on of the batch's output: into memory of the request's own, which outlives the batch. */
static err output_part(const struct infer *c, const struct tensor *all, size_t rows, size_t row,
                       struct tensor *to)
{
    size_t stride = all->bytes / rows, bytes = c->n * stride;
    const char *from = (const char *)all->data + row * stride;
    if (!to->data) {
        if (bytes > arena_left(c->a))
            FAIL(TOO_LARGE, "an output has %zu bytes, more than there is room for", bytes);
        *to = *all;
        to->dims[0] = (int64_t)c->n;
        to->bytes = bytes;
        to->data = arena_alloc(c->a, bytes, 64);
    }
    if (to->bytes != bytes)
        FAIL(INTERNAL, "an output of a batch is not of the size that it says");
    if (all->type != TENSOR_TEXT && bytes)
        memcpy(to->data, from, bytes);
    for (size_t i = 0; all->type == TENSOR_TEXT && i < bytes / sizeof(struct str); i++)
        ((struct str *)to->data)[i] = str_dup(c->a, ((const struct str *)(const void *)from)[i]);
    return NULL;
}

static err outputs_part(const struct together *t)
{
    size_t row = 0;
    for (size_t i = 0; i < t->out_n; i++)
        if (!t->out[i].rank || (size_t)t->out[i].dims[0] != t->rows)
            FAIL(INTERNAL, "an output does not have the rows of the inputs");
    for (const struct infer *c = t->first; c; row += c->n, c = c->next)
        for (size_t i = 0; i < c->run_n; i++)
            TRY(output_part(c, &t->out[t->place[c->out[i].slot] - 1], t->rows, row, &c->out[i]));
    return NULL;
}

static err run_together(struct arena *a, struct infer *first, size_t n)
{
    const struct model *m = first->to->model;
    struct together t = { .a = a, .first = first, .in = NEW_N(a, struct tensor, m->info->n_inputs) };
    struct infer_times at = { .started = mono_ns() };
    int64_t clock = run_clock(first, at.started);
    for (const struct infer *c = first; c; c = c->next) {
        t.rows += c->n;
        if (c->seq && (!batch_able(c) || !batch_fits(first, c))) /* by its state, which it got only now */
            FAIL(INVALID, "the states of a batch are of different shapes");
    }
    for (size_t i = 0; i < m->info->n_inputs; i++)
        TRY(input_join(&t, i));
    outputs_join(&t);
    TRY(policy_run(first, a, t.in, t.out, t.out_n));
    TRY(outputs_part(&t));
    at.ran = mono_ns();
    clock = run_clock(first, at.ran) - clock;
    for (struct infer *c = first; c; c = c->next) {
        c->at.started = at.started;
        c->at.ran = at.ran;
    }
    run_count(first, t.rows, n, clock);
    return NULL;
}

/* One that fails alone must not fail its neighbours: what does not run together is run one by one, unless that took too
 * long already. */
void batch_run(struct arena *scratch, struct infer *first, size_t n)
{
    for (struct infer *c = first; c; c = c->next)
        sequence_begin(c);
    err failed = n > 1 ? run_together(scratch, first, n) : NULL;
    bool alone = n == 1 || (failed && failed->code != TIMEOUT);
    for (struct infer *c = first, *next; c; c = next) {
        next = c->next;
        err e = alone ? infer_run(c) : failed;
        (void)infer_end(c, e ? e : sequence_keep(c));
    }
    arena_reset(scratch);
}

/* ---- does it pay? ---- */

bool batch_pays(const struct policy *p, const struct infer *c, bool choice)
{
    struct model *m = c->to->model;
    if (!p->batching.adaptive)
        return true;
    bool pays = atomic_load_explicit(&m->share, memory_order_relaxed) <
                SHARE_PAYS; /* also while it is not known */
    if (!choice)
        return pays;
    unsigned turn = atomic_fetch_add_explicit(&m->turns, 1, memory_order_relaxed);
    if (atomic_load_explicit(&m->compared, memory_order_relaxed) < COMPARE_FIRST)
        return turn % LEARN_OF < LEARN_OF - 1;
    return pays ? turn % ALONE_OF < ALONE_OF - TRY_ALONE : turn % BATCH_OF >= BATCH_OF - TRY_BATCH;
}

/* A time that is far off is a thread's that had to wait for a core: it is not the model's. */
static void average(_Atomic int64_t *to, int64_t ns)
{
    int64_t before = atomic_load_explicit(to, memory_order_relaxed), most = ODD * before;
    ns = before && ns > most ? most : ns;
    atomic_store_explicit(to, before ? before + (ns - before) / 8 : ns > 0 ? ns : 1, memory_order_relaxed);
}

/* A run of the way that is seldom gone beside the runs just before it, which went the other: however fast the machine is at the
 * moment, it is so for both. The usual way alone has no news of the other. */
static void compare(struct model *m, bool together, int64_t ns)
{
    int64_t beside = atomic_load_explicit(together ? &m->alone_ns : &m->together_ns, memory_order_relaxed);
    int64_t share = atomic_load_explicit(&m->share, memory_order_relaxed);
    unsigned n = atomic_load_explicit(&m->compared, memory_order_relaxed);
    if (beside <= 0 || ns <= 0 || (n >= COMPARE_FIRST && together == (share < SHARE_PAYS)))
        return;
    double now = together ? (double)ns / (double)beside : (double)beside / (double)ns;
    now = now > ODD ? ODD : now < 1.0 / ODD ? 1.0 / ODD : now;
    n += n < COMPARE_OVER;
    share += ((int64_t)(now * SHARE_ONE) - share) / (int64_t)n;
    atomic_store_explicit(&m->share, share, memory_order_relaxed);
    atomic_store_explicit(&m->compared, n, memory_order_relaxed);
}

/* ---- figures ---- */

int64_t run_clock(const struct infer *c, int64_t mono)
{
    const struct model *m = c->to->model;
    const struct policy *p = c->entry ? c->entry->policy : NULL;
    struct timespec t;
    if (!p || p->batching.max_batch < 2 || !m->info->device || strcmp(m->info->device, "cpu") != 0 ||
        atomic_load_explicit(&m->run_ns, memory_order_relaxed) < CLOCKED_NS)
        return mono;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * (int64_t)1000000000 + t.tv_nsec;
}

void run_count(struct infer *c, size_t rows, size_t requests, int64_t worked_ns)
{
    struct model *m = c->to->model;
    struct stripe *to = c->count;
    int64_t took = c->at.ran - c->at.started;
    average(&m->run_ns, took / (int64_t)requests);
    if (rows) {
        compare(m, requests > 1, worked_ns / (int64_t)rows);
        average(requests > 1 ? &m->together_ns : &m->alone_ns, worked_ns / (int64_t)rows);
    }
    atomic_fetch_add_explicit(&to->executions, 1, memory_order_relaxed);
    if (rows < 1 || rows > BATCH_SIZES)
        return;
    atomic_fetch_add_explicit(&to->batch_n[rows - 1], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&to->batch_ns[rows - 1], took, memory_order_relaxed);
}

void tally_batches(const struct tally *t, struct batches *out)
{
    *out = (struct batches){ 0 };
    for (size_t i = 0; i < STRIPES; i++)
        for (size_t k = 0; k < BATCH_SIZES; k++) {
            out->n[k] += atomic_load_explicit(&t->stripe[i].batch_n[k], memory_order_relaxed);
            out->ns[k] += atomic_load_explicit(&t->stripe[i].batch_ns[k], memory_order_relaxed);
        }
}
