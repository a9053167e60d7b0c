// SPDX-License-Identifier: Apache-2.0
/* What runs a version: ONNX Runtime on the device that is asked for, or in its place what is faster for some: our engine for small
 * networks, the kernel for trees as their trainer wrote them; after both were compared on the same rows. */
#include "serve/internal.h"

const char *const model_runtimes[] = { "onnx", "auto", "native", "engine", NULL };

enum {
    ROWS = 256,           /* that two forms are compared on */
    ROWS_BYTES = 1 << 20, /* of their inputs, which may mean fewer rows */
    ROWS_LEAST = 16,
    BIG_BYTES = 16 << 20, /* a file from here on has all cores for one run, of one pool */
};
#define APART_MAX 1e-5

/* In place of ONNX Runtime, in the order in which `auto` looks for one that takes the version. */
static const struct other {
    enum model_runtime runtime;
    const char *name; /* of the backend */
    const char *what; /* in messages */
    bool native;      /* it loads the version's native bytes; else its ONNX form */
} others[] = {
    { RUNTIME_NATIVE, "trees", "native trees", true },
    { RUNTIME_ENGINE, "engine", "network in our engine", false },
};
enum { OTHERS = sizeof others / sizeof *others };

static err runtime_for(struct serve *s, enum model_runtime which, const char *name, struct runtime **out)
{
    const struct runtime_config config = { .library = s->library, .threads = cpu_count() };
    LOCKED(&s->loading);
    struct runtime **keep = &s->runtimes[which];
    if (!*keep)
        TRY(name ? runtime_open_named(str_of(name), NULL, keep) : runtime_open(&config, keep));
    *out = *keep;
    return NULL;
}

err runtime_need(struct serve *s, struct runtime **out)
{
    return runtime_for(s, RUNTIME_ONNX, NULL, out);
}

/* ---- rows to compare them on ---- */

static double chance(uint64_t *state)
{
    return (double)(splitmix(state) >> 11) * 0x1p-53;
}

/* A value between two edges of the training data, or none as often as there. */
static float value_like(const struct baseline_column *c, uint64_t *state)
{
    double nulls = (double)c->nulls / (double)(c->n + c->nulls), at = chance(state) * (double)c->edges_n;
    if (!c->edges_n || chance(state) < nulls)
        return NAN;
    size_t i = (size_t)at, next = i + 1 < c->edges_n ? i + 1 : i;
    return (float)(c->edges[i] + (at - (double)i) * ((double)c->edges[next] - (double)c->edges[i]));
}

static err rows_like(struct serve *s, struct arena *a, struct str blob, struct tensor *t)
{
    struct baseline like;
    struct str json;
    uint64_t state = 1;
    float *x = t->data;
    if (!blob.n)
        FAIL(INVALID, "it has no baseline to compare both forms on");
    TRY(blob_get(store_blobs(s->store), a, blob, &json));
    TRY(baseline_read(a, json, &like));
    if ((int64_t)like.n != t->dims[1])
        FAIL(INVALID, "its baseline has %zu features, its input %lld", like.n, (long long)t->dims[1]);
    for (size_t i = DRAWN_ODD * like.n; i < t->bytes / sizeof *x; i++)
        x[i] = value_like(&like.features[i % like.n], &state);
    return NULL;
}

static size_t rows_enough(const struct session_info *info)
{
    size_t bytes = 1;
    for (size_t i = 0; i < info->n_inputs; i++) {
        int64_t each = 1;
        for (size_t k = 1; k < info->inputs[i].rank; k++)
            each *= info->inputs[i].dims[k]; /* small, as the other form loaded */
        bytes += (size_t)each * tensor_size(info->inputs[i].type);
    }
    size_t rows = ROWS_BYTES / bytes;
    return rows > ROWS ? ROWS : rows < ROWS_LEAST ? ROWS_LEAST : rows;
}

/* Like those of the training, where that is known; trees branch on their values, so that for them it must be. */
static err rows_drawn(struct serve *s, struct arena *a, const struct session_info *info, struct str baseline,
                      bool must, struct tensor **out)
{
    size_t features, texts;
    TRY(session_drawn(info, a, rows_enough(info), out));
    if (info->n_inputs != 1 || !session_by_rows(info, &features, &texts))
        return NULL;
    err e = rows_like(s, a, baseline, *out);
    return must ? e : NULL;
}

/* ---- the other form ---- */

static bool same_tensors(const struct tensor_spec *a, size_t a_n, const struct tensor_spec *b, size_t b_n)
{
    bool same = a_n == b_n;
    for (size_t i = 0; same && i < a_n; i++)
        same = str_eq(a[i].name, b[i].name) && a[i].type == b[i].type && a[i].rank == b[i].rank &&
               memcmp(a[i].dims, b[i].dims, a[i].rank * sizeof *a[i].dims) == 0;
    return same;
}

/* Why it is not to be served: NULL if it is. */
static err other_judge(struct serve *s, struct arena *a, const struct model *m, const struct other *o,
                       struct session *session, struct str baseline)
{
    const struct session_info *x = session_describe(m->session), *y = session_describe(session);
    struct tensor *rows;
    double apart;
    if (!same_tensors(x->inputs, x->n_inputs, y->inputs, y->n_inputs) ||
        !same_tensors(x->outputs, x->n_outputs, y->outputs, y->n_outputs))
        FAIL(INVALID, "its %s has other inputs or outputs", o->what);
    TRY(rows_drawn(s, a, y, baseline, o->native, &rows));
    TRY(sessions_compare(m->session, session, rows, &apart));
    if (apart > APART_MAX)
        FAIL(INVALID, "its %s differs by %g from its ONNX form", o->what, apart);
    return NULL;
}

/* `sure`: only if ONNX Runtime would not be faster. */
static err other_load(struct serve *s, struct arena *a, const struct model *m, const struct other *o,
                      struct str bytes, struct str native, bool sure, struct session **out)
{
    struct runtime *rt;
    if (o->native && !native.n)
        FAIL(INVALID, "it has no native trees");
    TRY(runtime_for(s, o->runtime, o->name, &rt));
    if (o->native)
        TRY(blob_get(store_blobs(s->store), a, native, &bytes));
    return session_load(rt, bytes, &(struct session_config){ .device = m->device, .sure = sure }, out);
}

/* ONNX Runtime's session gives way to the other's. */
static void other_take(struct model *m, const struct other *o, struct session *session)
{
    session_unload(m->session);
    m->session = session;
    m->by = model_runtimes[o->runtime];
    m->why = S("");
}

/* `auto` does not leave a device for the processor. */
static const struct other *other_for(const struct model *m, const struct model_version_spec *spec)
{
    if (m->runtime == RUNTIME_AUTO && strcmp(session_describe(m->session)->device, "cpu") != 0)
        return NULL;
    for (size_t i = 0; i < OTHERS; i++)
        if (m->runtime == others[i].runtime ||
            (m->runtime == RUNTIME_AUTO && (!others[i].native || spec->native.n)))
            return &others[i];
    return NULL;
}

/* Of `auto`, what another runtime does not take is none of the user's business; that it says something else is. */
static err other_try(struct serve *s, struct arena *a, struct model *m, const struct other *o,
                     struct str onnx, const struct model_version_spec *spec)
{
    const bool may = m->runtime == RUNTIME_AUTO;
    struct session *session;
    err e = other_load(s, a, m, o, onnx, spec->native, may, &session);
    if (e)
        return may ? NULL : e;
    e = other_judge(s, a, m, o, session, spec->baseline);
    if (!e) {
        other_take(m, o, session);
        return NULL;
    }
    session_unload(session);
    if (!may)
        return e;
    m->why = str_dup(m->a, e->text);
    return NULL;
}

err model_session(struct serve *s, struct arena *a, struct model *m, struct str onnx,
                  const struct model_version_spec *spec)
{
    struct runtime *rt;
    int threads = onnx.n >= BIG_BYTES ? cpu_count() : 1;
    TRY(runtime_need(s, &rt));
    TRY(session_load(
        rt, onnx,
        &(struct session_config){ .threads = threads, .device = m->device, .device_bytes = m->device_bytes },
        &m->session));
    m->by = "onnx";
    m->why = str_of(session_describe(m->session)->why);
    const struct other *o = other_for(m, spec);
    if (o)
        TRY_AS(other_try(s, a, m, o, onnx, spec), "runtime %s", model_runtimes[m->runtime]);
    return NULL;
}
