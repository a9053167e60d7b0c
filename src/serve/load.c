// SPDX-License-Identifier: Apache-2.0
/* Versions come into memory on the lane: blob, onnx_check, session, one run to warm it up. */
#include "serve/policy.h"
#include <stdlib.h>

struct model *model_find(struct serve *s, struct str project, struct str version,
                         const struct deployment_spec *by)
{
    for (struct model *m = s->models; m; m = m->next)
        if (str_eq(m->name, version) && str_eq(m->project, project) &&
            (!by || (m->runtime == (enum model_runtime)by->runtime && str_eq(str_of(m->device), by->device) &&
                     m->device_bytes == by->device_memory)))
            return m;
    return NULL;
}

void model_unref(struct serve *s, struct model *m)
{
    (void)s;
    if (m)
        m->refs--; /* retire() frees what has none left */
}

void model_free(struct model *m)
{
    bounds_free(m);
    session_unload(m->session);
    arena_free(m->a);
    free(m);
}

void tally_unref(struct tally *t)
{
    if (!t || --t->refs)
        return;
    request_sink_leave(atomic_load(&t->sink));
    free(t);
}

/* ---- loading ---- */

static err names_read(struct model *m, struct str signature)
{
    yyjson_val *root, *names, *v;
    size_t i, max;
    if (!signature.n)
        return NULL;
    auto_arena struct arena *scratch = arena_new(0);
    TRY(json_parse(scratch, signature, &root));
    names = yyjson_obj_get(root, "personal");
    m->personal = NEW_N(m->a, struct str, yyjson_arr_size(names) + 1);
    yyjson_arr_foreach (names, i, max, v)
        m->personal[m->personal_n++] = str_dup(m->a, json_text(v));
    names = yyjson_obj_get(root, "categories");
    if (m->texts && yyjson_arr_size(names) == m->texts) {
        struct str *texts = NEW_N(m->a, struct str, m->texts);
        yyjson_arr_foreach (names, i, max, v)
            texts[i] = str_dup(m->a, json_text(v));
        m->text_names = texts;
    }
    names = yyjson_obj_get(root, "features");
    if (!yyjson_arr_size(names))
        return NULL;
    if (m->features && yyjson_arr_size(names) != m->features)
        FAIL(INVALID, "its signature names %zu features, its input has %zu", yyjson_arr_size(names),
             m->features);
    struct str *out = NEW_N(m->a, struct str, yyjson_arr_size(names));
    yyjson_arr_foreach (names, i, max, v)
        out[i] = str_dup(m->a, json_text(v));
    m->names = out;
    m->features = max;
    return NULL;
}

/* One float matrix in, and perhaps one of texts: then rows of features can be given. */
static void form_read(struct model *m)
{
    m->by_rows = session_by_rows(m->info, &m->features, &m->texts);
    m->bounds = m->by_rows && !m->texts ? NEW_N(m->a, struct bound *, LOOPS_MAX) : NULL;
    m->batches = !batch_unfit(m->a, m->info).n;
}

/* The first call allocates and chooses kernels: not on a client's time. The second one tells about how long a call takes.
 * One that has no float matrix of known width may well refuse zeros where any size is allowed: it warms up by use. */
static err warm_up(struct model *m)
{
    err e = session_warm(m->session, 1);
    if (e && m->by_rows && m->features)
        return err_wrap(e, "its first run");
    if (e)
        return NULL;
    int64_t before = mono_ns();
    TRY_AS(session_warm(m->session, 1), "its second run");
    atomic_store_explicit(&m->run_ns, mono_ns() - before, memory_order_relaxed);
    return NULL;
}

void runtime_bring(void *serve)
{
    struct runtime *rt;
    err e = runtime_need(serve, &rt);
    if (e)
        log_err("runtime.open-failed", e);
    err_reset();
}

static err model_load(struct serve *s, struct model *m)
{
    auto_arena struct arena *a = arena_new(0);
    struct model_version_spec spec;
    struct model_version_status status;
    struct onnx_facts facts;
    struct str bytes;
    TRY(resource_get(s->store, a, &model_version_resource, m->project, m->name, NULL, &spec, &status));
    TRY(blob_get(store_blobs(s->store), a, spec.onnx, &bytes));
    TRY(onnx_check(a, bytes, NULL, &facts));
    if (facts.inputs.n > TENSORS_MAX || facts.outputs.n > TENSORS_MAX)
        FAIL(TOO_LARGE, "it has %zu inputs and %zu outputs; at most %d are served", facts.inputs.n,
             facts.outputs.n, TENSORS_MAX);
    TRY(model_session(s, a, m, bytes, &spec));
    m->info = session_describe(m->session);
    m->bytes = bytes.n;
    m->number = fmt(m->a, "%lld", (long long)spec.number);
    m->service = str_dup(m->a, spec.service);
    m->definition = str_dup(m->a, spec.definition);
    form_read(m);
    TRY(names_read(m, spec.signature));
    return warm_up(m);
}

struct load {
    struct serve *s;
    struct model *m;
};

/* Those that want it answer with it at once; the control loop writes down that they do. Result: who waited for that. */
static struct infer *loaded(struct serve *s, const struct model *m)
{
    auto_arena struct arena *a = arena_new(0);
    struct infer *go = NULL;
    for (struct depl *d = s->depls; d; d = d->next)
        for (size_t i = 0; i < d->wanted_n; i++)
            if (d->wanted[i].model == m)
                waiters_join(&go, depl_publish(s, a, d, NULL));
    return go;
}

static void poke_project(struct serve *s, struct str project)
{
    LOCKED(&s->m);
    for (struct depl *d = s->depls; d && s->control; d = d->next)
        if (str_eq(d->project, project))
            control_poke(s->control, S("Deployment"), d->project, d->name);
}

static void load_run(void *arg)
{
    struct load *l = arg;
    struct serve *s = l->s;
    auto_arena struct arena *a = arena_new(0);
    struct str project = str_dup(a, l->m->project);
    err e = model_load(s, l->m);
    if (e)
        log_err("model.load-failed", e);
    pthread_mutex_lock(&s->m);
    if (e)
        l->m->message = str_dup(l->m->a, e->text);
    l->m->failed_ns = mono_ns();
    l->m->state = e ? MODEL_FAILED : MODEL_READY;
    struct infer *go = loaded(s, l->m);
    model_unref(s, l->m);
    pthread_mutex_unlock(&s->m);
    waiters_go(s, go);
    poke_project(s, project);
    free(l);
    err_reset();
}

static struct model *model_new(struct serve *s, struct str project, struct str version,
                               const struct deployment_spec *by)
{
    struct model *m = calloc(1, sizeof *m);
    struct load *l = calloc(1, sizeof *l);
    if (!m || !l)
        abort();
    m->a = arena_new(0);
    m->project = str_dup(m->a, project);
    m->name = str_dup(m->a, version);
    m->device = str_z(m->a, by->device);
    m->device_bytes = by->device_memory;
    m->runtime = (enum model_runtime)by->runtime;
    m->next = s->models;
    s->models = m;
    *l = (struct load){ s, m };
    m->refs = 1; /* the load's */
    if (lane_push(s->lane, load_run, l))
        return m;
    free(l);
    m->refs = 0;
    m->state = MODEL_FAILED;
    m->message = S("too many versions are being loaded");
    m->failed_ns = mono_ns();
    return m;
}

struct model *model_want(struct serve *s, struct str project, struct str version,
                         const struct deployment_spec *by)
{
    struct model *m = model_find(s, project, version, by);
    bool again = m && m->state == MODEL_FAILED && mono_ns() - m->failed_ns > RETRY_MS * (int64_t)1000000;
    if (again) /* the failed one keeps its readers, and its name no longer finds it */
        m->name = S("");
    if (!m || again)
        m = model_new(s, project, version, by);
    m->refs++;
    return m;
}
