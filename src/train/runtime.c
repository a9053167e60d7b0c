// SPDX-License-Identifier: Apache-2.0
#include "train/runtime.h"

#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>

const struct runtime_ops *const runtime_backends[] = { &runtime_ort, &runtime_engine, &runtime_trees, NULL };

err runtime_open(const struct runtime_config *config, struct runtime **out)
{
    return runtime_backends[0]->open(config, out);
}

err runtime_open_named(struct str name, const struct runtime_config *config, struct runtime **out)
{
    for (const struct runtime_ops *const *ops = runtime_backends; *ops; ops++)
        if (str_eq(name, str_of((*ops)->name)))
            return (*ops)->open(config, out);
    FAIL(INVALID, "there is no runtime '%.*s'", STR(str_sub(name, 0, 40)));
}

/* ---- backends that are this program ---- */

err runtime_own_open(const struct runtime_ops *ops, struct runtime **out)
{
    struct runtime *rt = calloc(1, sizeof *rt);
    if (!rt)
        abort();
    rt->ops = ops;
    *out = rt;
    return NULL;
}

void runtime_own_close(struct runtime *rt)
{
    free(rt);
}

const char *runtime_own_version(struct runtime *rt)
{
    (void)rt;
    return DHOW_VERSION;
}

err runtime_own_devices(struct runtime *rt, struct arena *a, const struct runtime_device **out, size_t *n)
{
    static const struct runtime_device cpu = { "cpu", NULL };
    (void)rt;
    (void)a;
    *out = &cpu;
    *n = 1;
    return NULL;
}

err runtime_own_device(const struct session_config *config)
{
    const char *device = config && config->device ? config->device : "auto";
    if (strcmp(device, "auto") != 0 && strcmp(device, "cpu") != 0)
        FAIL(UNAVAILABLE, "what dhow runs itself runs on the CPU, not on '%.40s'", device);
    return NULL;
}

/* ---- by the table ---- */

const char *runtime_version(struct runtime *rt)
{
    return rt->ops->version(rt);
}

err runtime_devices(struct runtime *rt, struct arena *a, const struct runtime_device **out, size_t *n)
{
    return rt->ops->devices(rt, a, out, n);
}

void runtime_close(struct runtime *rt)
{
    if (rt)
        rt->ops->close(rt);
}

err session_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                 struct session **out)
{
    return rt->ops->load(rt, bytes, config, out);
}

const struct session_info *session_describe(struct session *s)
{
    return s->ops->describe(s);
}

err session_run(struct session *s, struct arena *a, const struct tensor *in, size_t n_in, struct tensor *out,
                size_t n_out)
{
    return s->ops->run(s, NULL, a, in, n_in, out, n_out);
}

err session_run_until(struct session *s, struct run_control *control, struct arena *a,
                      const struct tensor *in, size_t n_in, struct tensor *out, size_t n_out)
{
    return s->ops->run(s, control, a, in, n_in, out, n_out);
}

void session_unload(struct session *s)
{
    if (s)
        s->ops->unload(s);
}

/* ---- stopping ---- */

void run_control_stop(struct run_control *c, enum err_code why)
{
    LOCKED(&c->lock);
    if (c->why)
        return;
    c->why = why;
    if (c->run)
        c->stop(c->run);
}

static err stopped(enum err_code why)
{
    return err_new(why, why == TIMEOUT ? "the model took longer than allowed" : "the run was cancelled");
}

err run_control_enter(struct run_control *c, void (*stop)(void *), void *run)
{
    if (!c)
        return NULL;
    LOCKED(&c->lock);
    if (c->why)
        return stopped(c->why);
    c->stop = stop;
    c->run = run;
    return NULL;
}

err run_control_leave(struct run_control *c, err e)
{
    if (!c)
        return e;
    LOCKED(&c->lock);
    c->run = NULL;
    return e && c->why ? stopped(c->why) : e;
}

void run_stop_flag(void *run)
{
    atomic_store_explicit((atomic_bool *)run, true, memory_order_relaxed);
}

/* ---- the same tensors again ---- */

struct session_call {
    struct session *s;
    struct arena *a; /* itself and the lists */
    struct tensor *in, *out;
    size_t n_in, n_out;
    void *bound; /* the backend's; NULL if it has none */
};

static struct tensor *tensors_copy(struct arena *a, const struct tensor *v, size_t n)
{
    struct tensor *out = NEW_N(a, struct tensor, n + 1);
    if (n)
        memcpy(out, v, n * sizeof *v);
    return out;
}

static err fixed(const struct tensor *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (v[i].type == TENSOR_TEXT || (!v[i].data && v[i].bytes))
            FAIL(INVALID, "tensor %zu has no memory that stays", i);
    return NULL;
}

err session_call_new(struct session *s, const struct tensor *in, size_t n_in, const struct tensor *out,
                     size_t n_out, struct session_call **out_call)
{
    void *bound = NULL;
    TRY(fixed(in, n_in));
    TRY(fixed(out, n_out));
    if (s->ops->bind)
        TRY(s->ops->bind(s, in, n_in, out, n_out, &bound));
    struct arena *a = arena_new(0);
    struct session_call *c = NEW(a, struct session_call);
    *c = (struct session_call){ s,     a,    tensors_copy(a, in, n_in), tensors_copy(a, out, n_out), n_in,
                                n_out, bound };
    *out_call = c;
    return NULL;
}

err session_call_run(struct session_call *c, struct run_control *control)
{
    return c->bound ? c->s->ops->run_bound(c->s, c->bound, control)
                    : c->s->ops->run(c->s, control, NULL, c->in, c->n_in, c->out, c->n_out);
}

void session_call_free(struct session_call *c)
{
    if (!c)
        return;
    if (c->bound)
        c->s->ops->unbind(c->s, c->bound);
    arena_free(c->a);
}

/* ---- warming up ---- */

enum { WARM_BYTES = 64 << 20 };

static err zeros(struct arena *a, const struct tensor_spec *spec, size_t rows, struct tensor *out)
{
    int64_t n;
    size_t size = spec->type == TENSOR_TEXT ? sizeof(struct str) : tensor_size(spec->type);
    if (!size)
        FAIL(UNSUPPORTED, "input '%.*s' is not a tensor of a type that is served", STR(spec->name));
    out->type = spec->type;
    out->rank = spec->rank;
    for (size_t i = 0; i < spec->rank; i++)
        out->dims[i] = spec->dims[i] >= 0 ? spec->dims[i] : i == 0 ? (int64_t)rows : 1;
    if (!tensor_count(out->dims, out->rank, WARM_BYTES / (int64_t)size, &n))
        FAIL(TOO_LARGE, "input '%.*s' would take more than %d bytes", STR(spec->name), WARM_BYTES);
    out->bytes = (size_t)n * size;
    out->data = arena_alloc(a, out->bytes, 64);
    return NULL;
}

err session_zeros(const struct session_info *info, struct arena *a, size_t rows, struct tensor **out)
{
    struct tensor *in = NEW_N(a, struct tensor, info->n_inputs + 1);
    for (size_t i = 0; i < info->n_inputs; i++) {
        in[i].slot = i;
        TRY(zeros(a, &info->inputs[i], rows, &in[i]));
    }
    *out = in;
    return NULL;
}

/* What rows now and then hold, all of the row the same. */
static const double odd_rows[DRAWN_ODD] = { 0, NAN, INFINITY, -INFINITY, 1e-42 };

static void draw(struct tensor *t, uint64_t *state)
{
    const size_t size = tensor_size(t->type), n = t->bytes / size,
                 row = t->dims[0] ? n / (size_t)t->dims[0] : 1;
    for (size_t i = 0; i < n; i++) {
        const uint64_t bits = splitmix(state);
        const double x = i / row < DRAWN_ODD ? odd_rows[i / row] : (double)(bits >> 11) * 0x1p-51 - 2;
        if (t->type == TENSOR_F32)
            ((float *)t->data)[i] = (float)x;
        else if (t->type == TENSOR_F64)
            ((double *)t->data)[i] = x;
        else
            ((uint8_t *)t->data)[i * size] = bits >> 63; /* the lowest byte */
    }
}

err session_drawn(const struct session_info *info, struct arena *a, size_t rows, struct tensor **out)
{
    uint64_t state = 1;
    TRY(session_zeros(info, a, rows, out));
    for (size_t i = 0; i < info->n_inputs; i++) {
        struct tensor *t = &(*out)[i];
        if (t->type == TENSOR_TEXT || t->type == TENSOR_F16 || t->type == TENSOR_BF16)
            FAIL(UNSUPPORTED, "input '%.*s' takes no drawn numbers", STR(info->inputs[i].name));
        draw(t, &state);
    }
    return NULL;
}

err session_warm(struct session *s, size_t rows)
{
    auto_arena struct arena *a = arena_new(0);
    const struct session_info *info = session_describe(s);
    struct tensor *in, *out = NEW_N(a, struct tensor, info->n_outputs + 1);
    size_t n_out = 0;
    TRY(session_zeros(info, a, rows, &in));
    for (size_t i = 0; i < info->n_outputs; i++)
        if (info->outputs[i].type != TENSOR_NONE)
            out[n_out++].slot = i;
    return session_run(s, a, in, info->n_inputs, out, n_out);
}

/* ---- scores ---- */

static bool fits(const struct tensor_spec *spec, size_t rank, size_t columns)
{
    return spec->type == TENSOR_F32 && spec->rank == rank &&
           (rank == 1 || spec->dims[1] < 0 || spec->dims[1] == (int64_t)columns);
}

/* The first output that is a score a row, or else several; its slot, rank and columns. */
static err score_output(const struct session_info *info, struct tensor *out)
{
    *out = (struct tensor){ .type = TENSOR_F32, .dims = { 0, 1 } };
    for (; out->slot < info->n_outputs; out->slot++)
        for (out->rank = 1; out->rank <= 2; out->rank++)
            if (fits(&info->outputs[out->slot], out->rank, 1))
                return NULL;
    out->rank = 2;
    for (out->slot = 0; out->slot < info->n_outputs; out->slot++) {
        out->dims[1] = info->outputs[out->slot].dims[1];
        if (out->dims[1] > 1 && fits(&info->outputs[out->slot], 2, (size_t)out->dims[1]))
            return NULL;
    }
    FAIL(INVALID, "the model has no float output [N] or [N, K]");
}

err session_score_output(struct session *s, size_t *output, size_t *width)
{
    struct tensor score;
    TRY(score_output(session_describe(s), &score));
    *output = score.slot;
    *width = (size_t)score.dims[1];
    return NULL;
}

bool session_by_rows(const struct session_info *info, size_t *features, size_t *texts)
{
    const struct tensor_spec *in = info->inputs;
    *features = *texts = 0;
    if (info->n_inputs < 1 || info->n_inputs > 2 || in[0].type != TENSOR_F32 || in[0].rank != 2)
        return false;
    if (info->n_inputs == 2 && (in[1].type != TENSOR_TEXT || in[1].rank != 2 || in[1].dims[1] < 1))
        return false;
    *features = in[0].dims[1] > 0 ? (size_t)in[0].dims[1] : 0;
    *texts = info->n_inputs == 2 ? (size_t)in[1].dims[1] : 0;
    return true;
}

err session_score_rows(struct session *s, const struct score_rows *r, size_t batch, float *out)
{
    const struct session_info *info = session_describe(s);
    struct tensor score;
    size_t features, texts;
    if (!session_by_rows(info, &features, &texts) || (features && features != r->features) ||
        texts != r->texts)
        FAIL(INVALID, "the model does not take one float input [N, %zu]%s", r->features,
             r->texts ? " and its texts" : "");
    TRY(score_output(info, &score));
    const size_t width = (size_t)score.dims[1];
    batch = batch ? batch : 4096;
    for (size_t at = 0, rows; at < r->n; at += rows) {
        rows = r->n - at < batch ? r->n - at : batch;
        struct tensor in[] = {
            { .type = TENSOR_F32,
              .rank = 2,
              .dims = { (int64_t)rows, (int64_t)r->features },
              .data = (void *)(uintptr_t)(r->x + at * r->features),
              .bytes = rows * r->features * sizeof *r->x },
            { .slot = 1,
              .type = TENSOR_TEXT,
              .rank = 2,
              .dims = { (int64_t)rows, (int64_t)r->texts },
              .data = (void *)(uintptr_t)(texts ? r->text + at * r->texts : NULL),
              .bytes = rows * r->texts * sizeof *r->text },
        };
        struct tensor to = score;
        to.dims[0] = (int64_t)rows;
        to.data = out + at * width;
        to.bytes = rows * width * sizeof *out;
        TRY(session_run(s, NULL, in, info->n_inputs, &to, 1));
    }
    return NULL;
}

err session_score(struct session *s, const float *x, size_t n, size_t features, size_t batch, float *out)
{
    size_t output, width;
    TRY(session_score_output(s, &output, &width));
    if (width > 1)
        FAIL(INVALID, "the model gives %zu numbers a row, not one", width);
    return session_score_rows(s, &(struct score_rows){ x, n, features, NULL, 0 }, batch, out);
}

/* ---- two forms of one model ---- */

/* Row i of all inputs, one after the other, through one session. */
struct rower {
    struct session *s;
    const struct tensor *in;
    size_t n, n_in, n_out;
    struct tensor *row, *out; /* out: of the row that ran last */
};

static err rower_new(struct arena *a, struct session *s, const struct tensor *in, struct rower *r)
{
    const struct session_info *info = session_describe(s);
    *r = (struct rower){ .s = s, .in = in, .n_in = info->n_inputs, .n_out = info->n_outputs };
    r->row = NEW_N(a, struct tensor, r->n_in + 1);
    r->out = NEW_N(a, struct tensor, r->n_out + 1);
    for (size_t i = 0; i < r->n_in; i++) {
        size_t rows = in[i].rank ? (size_t)in[i].dims[0] : 0;
        if (!rows || (r->n && rows != r->n) || in[i].bytes % rows)
            FAIL(INVALID, "rows are compared, as many of each input");
        r->n = rows;
        r->row[i] = in[i];
        r->row[i].dims[0] = 1;
        r->row[i].bytes = in[i].bytes / rows;
    }
    for (size_t i = 0; i < r->n_out; i++)
        r->out[i].slot = i;
    return NULL;
}

/* The first run finds memory for the outputs in a; those that follow write there. */
static err rower_next(struct rower *r, struct arena *a, size_t row)
{
    for (size_t i = 0; i < r->n_in; i++)
        r->row[i].data = (char *)r->in[i].data + row * r->row[i].bytes;
    return session_run(r->s, a, r->row, r->n_in, r->out, r->n_out);
}

static double item(const struct tensor *t, size_t i)
{
    return t->type == TENSOR_F32 ? (double)((const float *)t->data)[i] : ((const double *)t->data)[i];
}

/* How far apart they are: 0 for equal bits, infinity for tensors that cannot be compared. */
static double difference(const struct tensor *p, const struct tensor *q)
{
    const bool same = p->type == q->type && p->rank == q->rank && p->bytes == q->bytes &&
                      !memcmp(p->dims, q->dims, p->rank * sizeof *p->dims);
    double most = 0;
    if (same && p->bytes && !memcmp(p->data, q->data, p->bytes))
        return 0;
    if (!same || (p->type != TENSOR_F32 && p->type != TENSOR_F64))
        return INFINITY;
    for (size_t i = 0; i < p->bytes / tensor_size(p->type); i++) {
        const double x = item(p, i), y = item(q, i), d = fabs(x - y) / fmax(1, fabs(x));
        if (x != y && !(isnan(x) && isnan(y)))
            most = isnan(d) ? INFINITY : fmax(most, d);
    }
    return most;
}

err sessions_compare(struct session *first, struct session *second, const struct tensor *in, double *apart)
{
    auto_arena struct arena *a = arena_new(0);
    struct rower p, q;
    TRY(rower_new(a, first, in, &p));
    TRY(rower_new(a, second, in, &q));
    if (p.n_in != q.n_in || p.n_out != q.n_out)
        FAIL(INVALID, "the two have not the same inputs and outputs");
    *apart = 0;
    for (size_t row = 0; row < p.n; row++) {
        TRY_AS(rower_next(&p, a, row), "the first form");
        TRY_AS(rower_next(&q, a, row), "the second form");
        for (size_t i = 0; i < p.n_out; i++)
            *apart = fmax(*apart, difference(&p.out[i], &q.out[i]));
    }
    return NULL;
}
