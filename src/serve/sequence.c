// SPDX-License-Identifier: Apache-2.0
/* Requests that belong together: one at a time, in the order in which they came, with a state that the model's outputs
 * give and its inputs take. A sequence is in the table from its start to its end; one that ended lives on while
 * requests of it wait. */
#include "serve/policy.h"
#include <stdlib.h>

const char *const sequence_control_kinds[] = { "start", "ready", "end", "id", NULL };

enum { STATE_BYTES_MAX = 16 << 20 /* of one tensor */, SWEEP_NS = 10000000 /* not more often */ };

struct sequence {
    struct sequence *next; /* of its place in the table */
    struct str id;         /* owned */
    bool busy, listed;
    size_t requests; /* that wait or run */
    int64_t last_ns;
    const struct model *model;       /* that the state is of; compared, never looked into */
    struct tensor state[STATES_MAX]; /* data is ours; none yet: zeros */
};
struct sequences {
    size_t max, n, mask;
    int64_t idle_ns, swept_ns;
    struct sequence **table;
};

struct sequences *sequences_new(struct arena *a, const struct sequencing *spec)
{
    if (!spec->max_sequences)
        return NULL;
    struct sequences *q = NEW(a, struct sequences);
    q->max = (size_t)spec->max_sequences;
    q->idle_ns = spec->idle * 1000000;
    q->mask = 1;
    while (q->mask < q->max)
        q->mask = 2 * q->mask + 1;
    q->table = NEW_N(a, struct sequence *, q->mask + 1);
    return q;
}

static void sequence_free_(struct sequence *s)
{
    for (size_t i = 0; i < STATES_MAX; i++)
        free(s->state[i].data);
    free((char *)(uintptr_t)s->id.p);
    free(s);
}

void sequences_free(struct sequences *q)
{
    for (size_t i = 0; q && i <= q->mask; i++)
        for (struct sequence *s = q->table[i], *next; s; s = next) {
            next = s->next;
            sequence_free_(s);
        }
}

size_t sequences_count(const struct sequences *q)
{
    return q->n;
}

static const struct tensor_spec *spec_of(const struct tensor_spec *v, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(v[i].name, name))
            return &v[i];
    return NULL;
}

struct str sequence_unfit(struct arena *a, const struct sequencing *spec, const struct session_info *info)
{
    const struct sequence_control *control = spec->controls.v;
    const struct sequence_state *state = spec->state.v;
    for (size_t i = 0; i < spec->controls.n; i++)
        if (!spec_of(info->inputs, info->n_inputs, control[i].input))
            return fmt(a, "it has no input '%.*s' for the sequence's %s", STR(control[i].input),
                       sequence_control_kinds[control[i].kind]);
    for (size_t i = 0; i < spec->state.n; i++) {
        const struct tensor_spec *in = spec_of(info->inputs, info->n_inputs, state[i].input);
        const struct tensor_spec *out = spec_of(info->outputs, info->n_outputs, state[i].output);
        if (!in || !out || in->type != out->type || !tensor_size(in->type))
            return fmt(a, "input '%.*s' and output '%.*s' are no state: not there, or not of one type",
                       STR(state[i].input), STR(state[i].output));
    }
    return S("");
}

/* ---- the table; with m held ---- */

static struct sequence **place_of(struct sequences *q, struct str id)
{
    struct sequence **p = &q->table[hash64(id) & q->mask];
    while (*p && !str_eq((*p)->id, id))
        p = &(*p)->next;
    return p;
}

/* From the table; the memory goes with the last request. */
static void unlist(struct sequences *q, struct sequence **p)
{
    struct sequence *s = *p;
    *p = s->next;
    s->listed = false;
    q->n--;
    if (!s->requests)
        sequence_free_(s);
}

/* Sequences that nobody goes on with make room. */
static void sweep(struct sequences *q, int64_t now)
{
    if (now - q->swept_ns < SWEEP_NS)
        return;
    q->swept_ns = now;
    for (size_t i = 0; i <= q->mask; i++)
        for (struct sequence **p = &q->table[i]; *p;) {
            if (!(*p)->requests && now - (*p)->last_ns > q->idle_ns)
                unlist(q, p);
            else
                p = &(*p)->next;
        }
}

static err begin(struct sequences *q, struct infer *c)
{
    struct sequence **p = place_of(q, c->p.sequence);
    if (*p)
        unlist(q, p);
    if (q->n >= q->max)
        sweep(q, c->at.arrived);
    if (q->n >= q->max)
        FAIL(UNAVAILABLE, "inference request to model '%.*s' would be more than %zu sequences",
             STR(c->entry->name), q->max);
    struct sequence *s = calloc(1, sizeof *s);
    char *id = malloc(c->p.sequence.n + 1);
    if (!s || !id)
        abort();
    memcpy(id, c->p.sequence.p, c->p.sequence.n);
    s->id = (struct str){ id, c->p.sequence.n };
    s->listed = true;
    p = place_of(q, s->id);
    *p = s;
    q->n++;
    return NULL;
}

err sequence_enter(struct infer *c)
{
    struct policy *policy = c->entry->policy;
    struct sequences *q = policy ? policy->sequences : NULL;
    if (!q)
        return NULL;
    if (!c->p.sequence.n)
        FAIL(INVALID, "inference request to model '%.*s' must specify a non-zero or non-empty correlation ID",
             STR(c->entry->name));
    LOCKED(&policy->m);
    struct sequence **p = place_of(q, c->p.sequence);
    bool idle = *p && !(*p)->requests && c->at.arrived - (*p)->last_ns > q->idle_ns;
    if (idle)
        unlist(q, p);
    if (c->p.sequence_start)
        TRY(begin(q, c));
    p = place_of(q, c->p.sequence);
    if (!*p)
        FAIL(
            INVALID,
            "inference request for sequence %.*s to model '%.*s' must specify the START flag on the first request of "
            "the sequence",
            STR(str_sub(c->p.sequence, 0, 64)), STR(c->entry->name));
    c->seq = *p;
    c->seq->requests++;
    c->seq->last_ns = c->at.arrived;
    if (c->p.sequence_end)
        unlist(q, p);
    return NULL;
}

bool sequence_free(const struct infer *c)
{
    return !c->seq || !c->seq->busy;
}

void sequence_turn(struct infer *c)
{
    if (c->seq)
        c->seq->busy = c->seq_turn = true;
}

void sequence_leave(struct infer *c)
{
    if (!c->seq)
        return;
    LOCKED(&c->entry->policy->m);
    struct sequence *s = c->seq;
    c->seq = NULL;
    if (c->seq_turn)
        s->busy = false;
    if (!--s->requests && !s->listed)
        sequence_free_(s);
}

/* ---- tensors ---- */

/* What the client does not give: open sizes are the request's rows, then 1. */
static err input_make(struct infer *c, const struct tensor_spec *spec, size_t slot)
{
    struct tensor t = { .slot = slot, .type = spec->type, .rank = spec->rank };
    size_t size = spec->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(spec->type);
    int64_t n;
    for (size_t i = 0; i < spec->rank; i++)
        t.dims[i] = spec->dims[i] >= 0 ? spec->dims[i] : i ? 1 : (int64_t)c->n;
    if (!size || !tensor_count(t.dims, t.rank, STATE_BYTES_MAX / (int64_t)size, &n))
        FAIL(TOO_LARGE, "input '%.*s' would be more than %d bytes", STR(spec->name), STATE_BYTES_MAX);
    t.bytes = (size_t)n * size;
    t.data = arena_alloc(c->a, t.bytes, 64);
    c->in[slot] = t;
    return NULL;
}

/* The element's bytes of 0 or 1, whatever its type. */
static void put_flag(struct tensor *t, bool on)
{
    size_t size = tensor_size(t->type), n = size ? t->bytes / size : 0;
    const float f32 = on;
    const double f64 = on;
    const uint64_t whole = on;
    const uint16_t f16 = on ? 0x3c00 : 0, bf16 = on ? 0x3f80 : 0;
    const void *one = t->type == TENSOR_F32    ? (const void *)&f32
                      : t->type == TENSOR_F64  ? (const void *)&f64
                      : t->type == TENSOR_F16  ? (const void *)&f16
                      : t->type == TENSOR_BF16 ? (const void *)&bf16
                                               : (const void *)&whole; /* little-endian */
    for (size_t i = 0; i < n; i++)
        memcpy((char *)t->data + i * size, one, size);
}

static err put_id(struct tensor *t, struct str id)
{
    size_t size = t->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(t->type);
    int64_t v = 0;
    bool whole = t->type == TENSOR_I64 || t->type == TENSOR_U64 || t->type == TENSOR_I32 ||
                 t->type == TENSOR_U32;
    if (t->type != TENSOR_TEXT && (!whole || !str_i64(id, &v)))
        FAIL(INVALID, "the model takes whole numbers for sequence IDs, not '%.*s'", STR(str_sub(id, 0, 64)));
    for (size_t i = 0; i < t->bytes / size; i++)
        memcpy((char *)t->data + i * size, t->type == TENSOR_TEXT ? (const void *)&id : (const void *)&v,
               size);
    return NULL;
}

static err control_put(struct infer *c, const struct sequence_control *control, struct tensor *t)
{
    if (control->kind == CONTROL_ID)
        return put_id(t, c->p.sequence);
    put_flag(t, control->kind == CONTROL_READY || (control->kind == CONTROL_START && c->p.sequence_start) ||
                    (control->kind == CONTROL_END && c->p.sequence_end));
    return NULL;
}

err sequence_inputs(struct infer *c, uint64_t *seen)
{
    if (!c->seq)
        return NULL;
    const struct sequencing *spec = &c->entry->policy->sequence;
    const struct session_info *info = c->to->model->info;
    const struct sequence_control *control = spec->controls.v;
    const struct sequence_state *state = spec->state.v;
    for (size_t i = 0; i < spec->controls.n + spec->state.n; i++) {
        bool is_state = i >= spec->controls.n;
        const struct tensor_spec *in = spec_of(
            info->inputs, info->n_inputs, is_state ? state[i - spec->controls.n].input : control[i].input);
        size_t slot = in ? (size_t)(in - info->inputs) : 0;
        if (!in || *seen >> slot & 1) /* policy_unfit told of the first; the second is the client's to give */
            continue;
        TRY(input_make(c, in, slot));
        if (!is_state)
            TRY(control_put(c, &control[i], &c->in[slot]));
        *seen |= (uint64_t)1 << slot;
    }
    return NULL;
}

static struct tensor *output_of(struct infer *c, const struct tensor_spec *spec)
{
    size_t slot = (size_t)(spec - c->to->model->info->outputs);
    for (size_t i = 0; i < c->run_n; i++)
        if (c->out[i].slot == slot)
            return &c->out[i];
    return NULL;
}

void sequence_outputs(struct infer *c)
{
    if (!c->seq)
        return;
    const struct sequencing *spec = &c->entry->policy->sequence;
    const struct session_info *info = c->to->model->info;
    const struct sequence_state *state = spec->state.v;
    for (size_t i = 0; i < spec->state.n; i++) {
        const struct tensor_spec *out = spec_of(info->outputs, info->n_outputs, state[i].output);
        if (out && !output_of(c, out))
            c->out[c->run_n++].slot = (size_t)(out - info->outputs);
    }
}

/* ---- the run ---- */

void sequence_begin(struct infer *c)
{
    if (!c->seq)
        return;
    const struct sequencing *spec = &c->entry->policy->sequence;
    const struct session_info *info = c->to->model->info;
    const struct sequence_state *state = spec->state.v;
    for (size_t i = 0; i < spec->state.n; i++) {
        const struct tensor_spec *in = spec_of(info->inputs, info->n_inputs, state[i].input);
        const struct tensor *have = &c->seq->state[i];
        if (!in || !have->data || c->seq->model != c->to->model)
            continue;
        struct tensor *t = &c->in[in - info->inputs];
        size_t slot = t->slot;
        *t = *have; /* nobody else touches it in our turn */
        t->slot = slot;
    }
}

static err state_keep(struct tensor *to, const struct tensor *from)
{
    if (from->bytes > STATE_BYTES_MAX)
        FAIL(TOO_LARGE, "the state of a sequence would be more than %d bytes", STATE_BYTES_MAX);
    void *data = to->data;
    if (!data || to->bytes < from->bytes)
        data = realloc(to->data, from->bytes + 1);
    if (!data)
        abort();
    if (from->bytes)
        memcpy(data, from->data, from->bytes);
    *to = *from;
    to->data = data;
    return NULL;
}

err sequence_keep(struct infer *c)
{
    if (!c->seq)
        return NULL;
    const struct sequencing *spec = &c->entry->policy->sequence;
    const struct session_info *info = c->to->model->info;
    const struct sequence_state *state = spec->state.v;
    c->seq->model = c->to->model;
    for (size_t i = 0; i < spec->state.n; i++) {
        const struct tensor_spec *out = spec_of(info->outputs, info->n_outputs, state[i].output);
        const struct tensor *t = out ? output_of(c, out) : NULL;
        if (t)
            TRY(state_keep(&c->seq->state[i], t));
    }
    return NULL;
}
