// SPDX-License-Identifier: Apache-2.0
/* Shadows: after a request was answered, a copy of its tensors goes to another version, whose answer is compared with the one
 * that was given and thrown away. One thread runs them; what it does not keep up with is dropped and counted. */
#include "serve/infer.h"
#include <stdlib.h>

enum { ID_MAX = 64 };

struct worst {
    char id[ID_MAX];
    double difference;
};
struct mirror {
    int refs;               /* with serve.m held */
    struct str of, version; /* owned; of: which comparison it is */
    double share, tolerance;
    _Atomic int64_t dropped;
    pthread_mutex_t m; /* of what follows */
    int64_t rows, differ, requests, failed;
    double max, sum;
    int64_t took_ns, other_ns;
    struct worst worst[WORST_MAX];
    size_t worst_n;
    char message[200];
};

static struct str own(struct str s)
{
    char *p = strndup(s.n ? s.p : "", s.n);
    if (!p)
        abort();
    return (struct str){ p, s.n };
}

/* ---- life ---- */

struct mirror *mirror_need(struct mirror *old, struct arena *a, const struct shadow *spec)
{
    struct str of = schema_text(&shadow_schema, a, spec, 0);
    if (old && str_eq(old->of, of))
        return old;
    struct mirror *m = calloc(1, sizeof *m);
    if (!m)
        abort();
    *m = (struct mirror){ .refs = 1,
                          .of = own(of),
                          .version = own(spec->version),
                          .share = spec->share,
                          .tolerance = spec->tolerance };
    pthread_mutex_init(&m->m, NULL);
    return m;
}

struct mirror *mirror_ref(struct mirror *m)
{
    if (m)
        m->refs++;
    return m;
}

void mirror_unref(struct mirror *m)
{
    if (!m || --m->refs)
        return;
    pthread_mutex_destroy(&m->m);
    free((char *)(uintptr_t)m->of.p);
    free((char *)(uintptr_t)m->version.p);
    free(m);
}

/* ---- the copy ---- */

struct copy {
    struct arena *a;
    struct serve *s;
    const struct snap *snap; /* holds both versions and the mirror */
    struct mirror *mirror;
    const struct served *by, *to; /* who answered, who is asked now */
    struct tensor *in, *out;      /* as they were asked and answered */
    size_t out_n, n;
    const struct str *ids; /* n, or NULL */
    struct str id;         /* the request's */
    int64_t other_ns;
    size_t bytes;
};

static size_t tensor_bytes(const struct tensor *t)
{
    size_t n = t->bytes;
    if (t->type == TENSOR_TEXT)
        for (size_t i = 0; i < t->bytes / sizeof(struct str); i++)
            n += ((const struct str *)t->data)[i].n;
    return n;
}

static struct tensor tensor_copy(struct arena *a, const struct tensor *t)
{
    struct tensor out = *t;
    out.data = arena_alloc(a, t->bytes + 1, 64);
    memcpy(out.data, t->data, t->bytes);
    if (t->type == TENSOR_TEXT)
        for (size_t i = 0; i < t->bytes / sizeof(struct str); i++)
            ((struct str *)out.data)[i] = str_dup(a, ((const struct str *)t->data)[i]);
    return out;
}

static struct tensor *tensors_copy(struct arena *a, const struct tensor *v, size_t n)
{
    struct tensor *out = NEW_N(a, struct tensor, n + 1);
    for (size_t i = 0; i < n; i++)
        out[i] = tensor_copy(a, &v[i]);
    return out;
}

static const struct str *ids_copy(struct arena *a, const struct infer *c)
{
    if (!c->row_ids)
        return NULL;
    struct str *out = NEW_N(a, struct str, c->n + 1);
    for (size_t i = 0; i < c->n; i++)
        out[i] = str_dup(a, c->row_ids[i]);
    return out;
}

static struct copy *copy_new(const struct infer *c, const struct served *to, size_t bytes)
{
    struct arena *a = arena_new(0);
    struct copy *k = NEW(a, struct copy);
    *k = (struct copy){ .a = a,
                        .s = c->s,
                        .snap = c->snap,
                        .mirror = c->entry->mirror,
                        .by = c->to,
                        .to = to,
                        .in = tensors_copy(a, c->in, c->to->model->info->n_inputs),
                        .out = tensors_copy(a, c->out, c->out_n),
                        .out_n = c->out_n,
                        .n = c->n,
                        .ids = ids_copy(a, c),
                        .id = str_dup(a, c->id.n ? c->id : c->r->id),
                        .other_ns = c->at.ran - c->at.started,
                        .bytes = bytes };
    return k;
}

static void copy_end(struct copy *k)
{
    atomic_fetch_sub(&k->s->copy_bytes, (int64_t)k->bytes);
    snap_unref(k->snap);
    arena_free(k->a);
}

/* ---- comparing ---- */

/* IEEE 754's binary16. */
static double half(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double v = exponent == 31  ? fraction ? NAN : INFINITY
               : exponent == 0 ? ldexp(fraction, -24)
                               : ldexp(fraction + 1024, exponent - 25);
    return h >> 15 ? -v : v;
}

static double element(const struct tensor *t, size_t i)
{
    switch (t->type) {
#define E(NAME, T)      \
    case TENSOR_##NAME: \
        return (double)((const T *)t->data)[i]
        E(F32, float);
        E(F64, double);
        E(U8, uint8_t);
        E(I8, int8_t);
        E(BOOL, uint8_t);
        E(U16, uint16_t);
        E(I16, int16_t);
        E(U32, uint32_t);
        E(I32, int32_t);
        E(U64, uint64_t);
        E(I64, int64_t);
#undef E
    case TENSOR_F16:
        return half(((const uint16_t *)t->data)[i]);
    default: { /* BF16: the upper half of a float */
        uint32_t bits = (uint32_t)((const uint16_t *)t->data)[i] << 16;
        float f;
        memcpy(&f, &bits, sizeof f);
        return (double)f;
    }
    }
}

/* Texts differ by 1 or not at all; a number and no number differ endlessly. */
static double difference(const struct tensor *x, const struct tensor *y, size_t i)
{
    if (x->type == TENSOR_TEXT)
        return !str_eq(((const struct str *)x->data)[i], ((const struct str *)y->data)[i]);
    double a = element(x, i), b = element(y, i);
    if (isnan(a) || isnan(b))
        return isnan(a) && isnan(b) ? 0 : INFINITY;
    return a == b ? 0 : fabs(a - b);
}

static bool same_form(const struct tensor *x, const struct tensor *y)
{
    return x->type == y->type && x->rank == y->rank && x->bytes == y->bytes &&
           !memcmp(x->dims, y->dims, x->rank * sizeof *x->dims);
}

/* Greatest difference of each row over all outputs. */
static void rows_compare(const struct copy *k, const struct tensor *out, double *worst, size_t n)
{
    for (size_t o = 0; o < k->out_n; o++) {
        size_t size = out[o].type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(out[o].type);
        size_t count = out[o].bytes / size, each = n && count % n == 0 ? count / n : 0;
        for (size_t i = 0; i < count; i++) {
            double d = difference(&k->out[o], &out[o], i);
            size_t row = each ? i / each : 0;
            worst[row] = d > worst[row] ? d : worst[row];
        }
    }
}

static void worst_note(struct mirror *m, struct str id, double d)
{
    size_t at = m->worst_n;
    while (at > 0 && m->worst[at - 1].difference < d)
        at--;
    if (at == WORST_MAX)
        return;
    m->worst_n += m->worst_n < WORST_MAX;
    memmove(&m->worst[at + 1], &m->worst[at], sizeof *m->worst * (m->worst_n - 1 - at));
    m->worst[at].difference = d;
    snprintf(m->worst[at].id, ID_MAX, "%.*s", STR(id));
}

static void rows_count(struct mirror *m, const struct copy *k, const double *worst, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        double d = worst[i];
        m->rows++;
        m->max = d > m->max ? d : m->max;
        m->sum += d;
        if (!(d > m->tolerance))
            continue;
        m->differ++;
        worst_note(m, k->ids ? k->ids[i] : k->id, d);
    }
}

/* ---- the run ---- */

static err slot_find(const struct tensor_spec *v, size_t n, struct str name, const char *what, size_t *out)
{
    for (*out = 0; *out < n; (*out)++)
        if (str_eq(v[*out].name, name))
            return NULL;
    FAIL(INVALID, "it has no %s '%.*s'", what, STR(name));
}

static err inputs_map(const struct copy *k, struct tensor *in)
{
    const struct session_info *by = k->by->model->info, *to = k->to->model->info;
    for (size_t i = 0; i < to->n_inputs; i++) {
        size_t at;
        TRY(slot_find(by->inputs, by->n_inputs, to->inputs[i].name, "need of the input", &at));
        for (size_t v = 0; v < by->n_inputs; v++)
            if (k->in[v].slot == at)
                in[i] = k->in[v];
        in[i].slot = i;
    }
    return NULL;
}

static err outputs_map(const struct copy *k, struct tensor *out)
{
    const struct session_info *by = k->by->model->info, *to = k->to->model->info;
    for (size_t i = 0; i < k->out_n; i++)
        TRY(slot_find(to->outputs, to->n_outputs, by->outputs[k->out[i].slot].name, "output", &out[i].slot));
    return NULL;
}

static err copy_ask(const struct copy *k, struct tensor *out, int64_t *took)
{
    struct model *m = k->to->model;
    struct tensor *in = NEW_N(k->a, struct tensor, m->info->n_inputs + 1);
    TRY(inputs_map(k, in));
    TRY(outputs_map(k, out));
    int64_t start = mono_ns();
    TRY(session_run(m->session, k->a, in, m->info->n_inputs, out, k->out_n));
    *took = mono_ns() - start;
    for (size_t i = 0; i < k->out_n; i++)
        if (!same_form(&k->out[i], &out[i]))
            FAIL(INVALID, "its outputs are of another form");
    return NULL;
}

static void copy_run(void *arg)
{
    struct copy *k = arg;
    struct mirror *m = k->mirror;
    struct tensor *out = NEW_N(k->a, struct tensor, k->out_n + 1);
    double *worst = NEW_N(k->a, double, k->n + 1);
    int64_t took = 0;
    err e = copy_ask(k, out, &took);
    if (!e)
        rows_compare(k, out, worst, k->n);
    pthread_mutex_lock(&m->m);
    m->requests += !e;
    m->failed += e != NULL;
    if (e) {
        snprintf(m->message, sizeof m->message, "%.*s", STR(e->text));
    } else {
        m->took_ns += took;
        m->other_ns += k->other_ns;
        rows_count(m, k, worst, k->n);
    }
    pthread_mutex_unlock(&m->m);
    copy_end(k);
    err_reset();
}

/* The request's own id decides, but not as choose.c does: else a shadow would see the requests of one version. */
static bool turn_of(const struct infer *c, double share)
{
    uint64_t h = hash64(c->r->id) * 0x9e3779b97f4a7c15u;
    return (double)(h >> 11) * 0x1p-53 < share;
}

static const struct served *shadow_of(const struct infer *c)
{
    for (size_t i = 0; i < c->entry->n; i++)
        if (str_eq(c->entry->v[i].model->name, c->entry->mirror->version))
            return &c->entry->v[i];
    return NULL;
}

static bool bytes_take(struct serve *s, size_t bytes)
{
    int64_t n = (int64_t)bytes;
    if (atomic_fetch_add(&s->copy_bytes, n) + n <= COPY_BYTES_MAX)
        return true;
    atomic_fetch_sub(&s->copy_bytes, n);
    return false;
}

void mirror_offer(const struct infer *c)
{
    struct mirror *m = c->entry->mirror;
    struct serve *s = c->s;
    const struct served *to = shadow_of(c);
    size_t bytes = 0;
    if (!to || to == c->to || !turn_of(c, m->share))
        return;
    for (size_t i = 0; i < c->to->model->info->n_inputs; i++)
        bytes += tensor_bytes(&c->in[i]);
    for (size_t i = 0; i < c->out_n; i++)
        bytes += tensor_bytes(&c->out[i]);
    if (lane_load(s->copies) >= COPIES_MAX || !bytes_take(s, bytes)) {
        atomic_fetch_add(&m->dropped, 1);
        return;
    }
    struct copy *k = copy_new(c, to, bytes);
    atomic_fetch_add(&((struct snap *)(uintptr_t)c->snap)->refs, 1);
    if (lane_push(s->copies, copy_run, k))
        return;
    atomic_fetch_add(&m->dropped, 1);
    copy_end(k);
}

/* ---- the report ---- */

void mirror_status(struct mirror *m, struct arena *a, struct shadow_status *out)
{
    LOCKED(&m->m);
    double requests = m->requests ? (double)m->requests : NAN, rows = m->rows ? (double)m->rows : NAN;
    *out = (struct shadow_status){ .version = str_dup(a, m->version),
                                   .rows = m->rows,
                                   .differ = m->differ,
                                   .share = (double)m->differ / rows,
                                   .max = m->rows ? m->max : NAN,
                                   .mean = m->sum / rows,
                                   .requests = m->requests,
                                   .failed = m->failed,
                                   .dropped = atomic_load(&m->dropped),
                                   .took_ms = (double)m->took_ns / 1e6 / requests,
                                   .other_ms = (double)m->other_ns / 1e6 / requests,
                                   .message = str_dup(a, str_of(m->message)) };
    for (size_t i = 0; i < m->worst_n; i++)
        push(a, &out->worst, str_dup(a, str_of(m->worst[i].id)));
}

err shadow_get(struct req *r)
{
    struct serve *s = (struct serve *)(uintptr_t)r->route->self;
    struct str name = req_param(r, S("name"));
    struct shadow_status status = { 0 };
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    const struct entry *e = snap_find(snap, req_param(r, S("project")), name);
    bool there = e && e->mirror;
    if (there)
        mirror_status(e->mirror, r->a, &status);
    snap_leave(s, slot);
    if (!there)
        FAIL(NOT_FOUND, "there is no deployment '%.*s' with a shadow", STR(str_sub(name, 0, 64)));
    struct json j = json_new(r->a);
    schema_write(&shadow_status_schema, &j, &status, WRITE_DEFAULTS);
    return req_reply_json(r, 200, &j);
}
