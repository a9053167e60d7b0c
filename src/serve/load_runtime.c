// SPDX-License-Identifier: Apache-2.0
/* What runs a version: ONNX Runtime on the device that is asked for, or the kernel for trees as their trainer wrote them,
 * after both were compared on rows like the ones that it was trained on. */
#include "serve/internal.h"

const char *const model_runtimes[] = { "onnx", "auto", "native", NULL };

enum {
    TRIAL_ROWS = 256,
    TRIAL_BATCH = 1,      /* what most requests are */
    BIG_BYTES = 16 << 20, /* a file from here on has all cores for one run, of one pool */
};

static err runtime_for(struct serve *s, const char *format, struct runtime **keep)
{
    const struct runtime_config config = { .library = s->library, .threads = cpu_count() };
    LOCKED(&s->loading);
    if (*keep)
        return NULL;
    return format ? runtime_open_for(str_of(format), &(struct runtime_config){ 0 }, keep)
                  : runtime_open(&config, keep);
}

err runtime_need(struct serve *s)
{
    return runtime_for(s, NULL, &s->runtime);
}

/* ---- rows to try them on ---- */

static double chance(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 11) * 0x1p-53;
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

static err rows_like(struct serve *s, struct arena *a, struct str blob, size_t features, float **out)
{
    struct baseline like;
    struct str json;
    uint64_t state = 1;
    if (!blob.n)
        FAIL(INVALID, "it has no baseline to try both forms on");
    TRY(blob_get(store_blobs(s->store), a, blob, &json));
    TRY(baseline_read(a, json, &like));
    if (like.n != features)
        FAIL(INVALID, "its baseline has %zu features, its input %zu", like.n, features);
    *out = NEW_N(a, float, TRIAL_ROWS *features);
    for (size_t i = 0; i < TRIAL_ROWS * features; i++)
        (*out)[i] = value_like(&like.features[i % features], &state);
    return NULL;
}

/* ---- the native form ---- */

static bool same_tensor(const struct tensor_spec *a, const struct tensor_spec *b)
{
    return str_eq(a->name, b->name) && a->type == b->type && a->rank == b->rank &&
           memcmp(a->dims, b->dims, a->rank * sizeof *a->dims) == 0;
}

static bool same_face(const struct session_info *a, const struct session_info *b)
{
    return a->n_inputs == 1 && b->n_inputs == 1 && a->n_outputs == 1 && b->n_outputs == 1 &&
           same_tensor(a->inputs, b->inputs) && same_tensor(a->outputs, b->outputs);
}

/* Why it is not to be served: NULL if it is. */
static err native_judge(struct serve *s, struct arena *a, const struct model *m, struct session *native,
                        struct str baseline)
{
    const struct session_info *info = session_describe(m->session);
    struct trial t;
    float *rows;
    if (!same_face(info, session_describe(native)))
        FAIL(INVALID, "its native trees have other inputs or outputs");
    size_t features = (size_t)info->inputs->dims[1];
    TRY(rows_like(s, a, baseline, features, &rows));
    TRY(runtime_trial(m->session, native, rows, TRIAL_ROWS, features, TRIAL_BATCH, &t));
    if (t.max_abs > 1e-5)
        FAIL(INVALID, "its native trees differ by %g from its ONNX form", t.max_abs);
    if (m->runtime == RUNTIME_AUTO && !t.second)
        FAIL(INVALID, "its native trees are not faster: %.1f us, ONNX Runtime %.1f us", t.second_ns / 1e3,
             t.first_ns / 1e3);
    return NULL;
}

static err native_load(struct serve *s, struct arena *a, const struct model *m,
                       const struct model_version_spec *spec, struct session **out)
{
    struct str bytes;
    if (!spec->native.n)
        FAIL(INVALID, "it has no native trees");
    TRY(runtime_for(s, "xgboost", &s->native));
    TRY(blob_get(store_blobs(s->store), a, spec->native, &bytes));
    TRY(session_load(s->native, bytes, &(struct session_config){ .device = m->device }, out));
    return native_judge(s, a, m, *out, spec->baseline);
}

err model_session(struct serve *s, struct arena *a, struct model *m, struct str onnx,
                  const struct model_version_spec *spec)
{
    struct session *native = NULL;
    int threads = onnx.n >= BIG_BYTES ? cpu_count() : 1;
    TRY(runtime_need(s));
    TRY(session_load(s->runtime, onnx, &(struct session_config){ .threads = threads, .device = m->device },
                     &m->session));
    m->by = "onnx";
    m->why = str_of(session_describe(m->session)->why);
    if (m->runtime == RUNTIME_ONNX)
        return NULL;
    err e = native_load(s, a, m, spec, &native);
    struct session *loser = e ? native : m->session;
    if (!e) {
        m->session = native;
        m->by = "native";
        m->why = S("");
    } else {
        m->why = str_dup(m->a, e->text);
    }
    if (loser)
        session_unload(loser);
    return e && m->runtime == RUNTIME_NATIVE ? err_wrap(e, "runtime native") : NULL;
}
