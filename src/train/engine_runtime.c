// SPDX-License-Identifier: Apache-2.0
/* Our own engine as what runs a model: for networks whose arithmetic is less than what a general runtime spends around it.
 * The graph is compiled for a few numbers of rows; each program runs on its caller's thread, and a run takes one that is
 * free. Rows may be filled up with zeros or cut to what a program takes: so a model is taken only if its rows do not see each
 * other. */
#include "train/runtime.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    SIZES = 7,                 /* of programs: 1, 2, 4, … 64 rows */
    PROGRAM_BYTES = 1 << 20,   /* what one may work on: it is to stay in a core's cache */
    MEMORY_MAX = 128 << 20,    /* of one, with the parameters */
    FILE_MAX = 64 << 20,       /* a larger model is worth ONNX Runtime's pool of threads */
    NODES_MAX = 2000,          /* laying out their memory takes time by its square */
    SURE_PARAMETERS = 1 << 20, /* measured in docs/why/small-networks-in-our-engine.md, as are the next two */
    SURE_CHANNELS = 16,
    PICTURE_BYTES = 16 << 20, /* what a row of pictures may work on */
    SURE_FILE = 8 << 20,      /* a longer file has more than these */
    TENSORS_MAX = 64,
};

/* A program, its inputs when they must be filled up, and its place in the stack of those that are free. */
struct seat {
    struct arena *a;
    struct program *program;
    int64_t rows;
    void **padded; /* by input */
    struct seat *next;
};
struct engine_session {
    struct session base;
    struct arena *a;
    struct graph *g;
    struct params *params;
    struct session_info info;
    int sizes; /* that programs have: 1 << 0 to 1 << (sizes − 1) rows */
    pthread_mutex_t lock;
    struct seat *free[SIZES];
};

static err engine_open(const struct runtime_config *config, struct runtime **out)
{
    (void)config;
    return runtime_own_open(&runtime_engine, out);
}

/* ---- programs ---- */

static size_t row_bytes(const struct tensor_spec *t)
{
    size_t bytes = tensor_size(t->type);
    for (size_t i = 1; i < t->rank; i++)
        bytes *= (size_t)t->dims[i];
    return bytes;
}

static err seat_new(const struct engine_session *s, int size, struct seat **out)
{
    struct arena *a = arena_new(0);
    struct seat *seat = NEW(a, struct seat);
    *seat = (struct seat){ .a = a, .rows = (int64_t)1 << size };
    const struct program_options o = { .rows = seat->rows, .loss = -1, .memory_max = MEMORY_MAX };
    err e = program_new(a, s->g, s->params, &o, &seat->program);
    if (!e && !program_facts(seat->program).by_rows)
        e = err_new(UNSUPPORTED, "its rows see each other");
    if (e) {
        arena_free(a);
        return e;
    }
    seat->padded = NEW_N(a, void *, s->info.n_inputs + 1);
    for (size_t i = 0; i < s->info.n_inputs; i++)
        seat->padded[i] = arena_alloc(a, (size_t)seat->rows * row_bytes(&s->info.inputs[i]) + 64, 64);
    *out = seat;
    return NULL;
}

static err seat_take(struct engine_session *s, int size, struct seat **out)
{
    pthread_mutex_lock(&s->lock);
    struct seat *seat = s->free[size];
    if (seat)
        s->free[size] = seat->next;
    pthread_mutex_unlock(&s->lock);
    *out = seat;
    return seat ? NULL : seat_new(s, size, out);
}

static void seat_give(struct engine_session *s, int size, struct seat *seat)
{
    LOCKED(&s->lock);
    seat->next = s->free[size];
    s->free[size] = seat;
}

/* ---- loading ---- */

static void engine_unload(struct session *session)
{
    struct engine_session *s = (struct engine_session *)session;
    for (int i = 0; i < SIZES; i++)
        for (struct seat *seat = s->free[i], *next; seat; seat = next) {
            next = seat->next;
            arena_free(seat->a); /* and with it the seat */
        }
    pthread_mutex_destroy(&s->lock);
    arena_free(s->a);
    free(s);
    heap_trim();
}

/* [N, sizes…] of a type of fixed size: what a program's rows are made of. */
static err rows_only(const struct tensor_spec *t, struct str batch)
{
    bool ok = t->shaped && t->rank >= 1 && t->dims[0] < 0 && t->symbols[0].n &&
              str_eq(t->symbols[0], batch) && tensor_size(t->type);
    int64_t n = 1;
    for (size_t i = 1; ok && i < t->rank; i++)
        ok = t->dims[i] > 0 && t->dims[i] <= INT32_MAX && (n *= t->dims[i]) <= INT32_MAX;
    if (!ok)
        FAIL(UNSUPPORTED, "'%.*s' is no tensor of rows", STR(t->name));
    return NULL;
}

static err describe(struct engine_session *s, const struct onnx_facts *facts)
{
    if (!facts->inputs.n || facts->inputs.n > TENSORS_MAX || !facts->outputs.n ||
        facts->outputs.n > TENSORS_MAX)
        FAIL(UNSUPPORTED, "it has %zu inputs and %zu outputs", facts->inputs.n, facts->outputs.n);
    struct str batch = facts->inputs.v[0].symbols[0];
    for (size_t i = 0; i < facts->inputs.n; i++)
        TRY(rows_only(&facts->inputs.v[i], batch));
    for (size_t i = 0; i < facts->outputs.n; i++)
        TRY(rows_only(&facts->outputs.v[i], batch));
    if (s->g->inputs.n != facts->inputs.n || s->g->outputs.n != facts->outputs.n)
        FAIL(UNSUPPORTED, "its inputs or outputs are not those that its file names");
    s->info = (struct session_info){ .inputs = facts->inputs.v,
                                     .outputs = facts->outputs.v,
                                     .n_inputs = facts->inputs.n,
                                     .n_outputs = facts->outputs.n,
                                     .labels = NEW_N(s->a, struct strs, facts->outputs.n),
                                     .device = "cpu",
                                     .why = "" };
    return NULL;
}

/* Do the values that the graph infers have the types and sizes that the file says? */
static err outputs_check(const struct engine_session *s, const struct seat *seat)
{
    for (size_t i = 0; i < s->info.n_outputs; i++) {
        const struct tensor_spec *spec = &s->info.outputs[i];
        enum tensor_type type;
        struct shape shape;
        (void)program_output(seat->program, (int)i, &type, &shape);
        bool same = type == spec->type && shape.rank == (int)spec->rank && shape.d[0] == seat->rows;
        for (size_t k = 1; same && k < spec->rank; k++)
            same = shape.d[k] == spec->dims[k];
        if (!same)
            FAIL(UNSUPPORTED, "output '%.*s' is not what its file says", STR(spec->name));
    }
    return NULL;
}

/* Dense layers and what stands between them: no images, no sequences. Their runs are short, and here they are shorter. */
static bool surely_dense(const struct graph *g)
{
    for (size_t i = 0; i < g->values.n; i++)
        if (g->values.v[i].shape.rank > 2)
            return false;
    return true;
}

/* Convolutions of enough channels, in which most of the parameters are, and what stands between them. */
static bool surely_pictures(const struct graph *g, const struct onnx_facts *facts)
{
    static const int ops[] = { OP_Conv,        OP_BatchNormalization,
                               OP_Relu,        OP_Clip,
                               OP_Sigmoid,     OP_HardSigmoid,
                               OP_HardSwish,   OP_Add,
                               OP_Mul,         OP_MaxPool,
                               OP_AveragePool, OP_GlobalAveragePool,
                               OP_Flatten,     OP_Reshape,
                               OP_Squeeze,     OP_Identity,
                               OP_Gemm,        OP_MatMul,
                               OP_Softmax,     OP_Dropout };
    int64_t weights = 0;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        bool known = false;
        for (size_t k = 0; k < sizeof ops / sizeof *ops; k++)
            known |= n->op->id == ops[k];
        if (!known)
            return false;
        if (n->op->id != OP_Conv)
            continue;
        const struct shape *w = &value_at(g, n->in[1])->shape;
        if (w->rank != 4 || w->d[0] < SURE_CHANNELS)
            return false;
        weights += shape_count(w);
    }
    return 2 * weights > facts->parameters && device_convolves(&device_cpu);
}

static bool surely_faster(const struct graph *g, const struct onnx_facts *facts)
{
    return facts->parameters <= SURE_PARAMETERS && (surely_dense(g) || surely_pictures(g, facts));
}

/* The program of one row says how many rows another may have. */
static err sizes_find(struct engine_session *s, bool sure)
{
    struct seat *one;
    TRY(seat_new(s, 0, &one));
    seat_give(s, 0, one);
    if (sure && program_facts(one->program).memory > (surely_dense(s->g) ? PROGRAM_BYTES : PICTURE_BYTES))
        FAIL(UNSUPPORTED, "a row needs more memory than stays in a cache");
    for (s->sizes = 1; s->sizes < SIZES; s->sizes++)
        if (program_facts(one->program).memory << s->sizes > PROGRAM_BYTES)
            break;
    return outputs_check(s, one);
}

static err graph_take(struct engine_session *s, struct str foreign, bool sure)
{
    struct onnx_facts facts;
    if (foreign.n > (sure ? SURE_FILE : FILE_MAX))
        FAIL(TOO_LARGE, "its file has %zu bytes, more than a small network's", foreign.n);
    struct str bytes = str_dup(s->a, foreign); /* names and weights stay in them */
    TRY(onnx_check(s->a, bytes, NULL, &facts));
    if (facts.nodes > NODES_MAX)
        FAIL(TOO_LARGE, "it has %lld nodes, more than small networks have", (long long)facts.nodes);
    TRY(graph_read(s->a, bytes, NULL, &s->g));
    if (sure && !surely_faster(s->g, &facts))
        FAIL(UNSUPPORTED, "ONNX Runtime may be faster");
    TRY(describe(s, &facts));
    graph_freeze(s->g);
    TRY(params_new(s->a, &device_cpu, s->g, 0, 0, &s->params));
    return sizes_find(s, sure);
}

static err engine_load(struct runtime *rt, struct str bytes, const struct session_config *config,
                       struct session **out)
{
    (void)rt;
    TRY(runtime_own_device(config));
    struct engine_session *s = calloc(1, sizeof *s);
    if (!s)
        abort();
    s->base.ops = &runtime_engine;
    s->a = arena_new(0);
    pthread_mutex_init(&s->lock, NULL);
    err e = graph_take(s, bytes, config && config->sure);
    if (e)
        engine_unload(&s->base);
    else
        *out = &s->base;
    return e;
}

static const struct session_info *engine_describe(struct session *s)
{
    return &((struct engine_session *)s)->info;
}

/* ---- running ---- */

/* A run: tensors by slot, and how many rows they have. */
struct batch {
    const struct tensor *in[TENSORS_MAX];
    struct tensor *out[TENSORS_MAX]; /* NULL: nobody asks for it */
    int64_t rows;
};

static err tensor_fits(const struct tensor *t, const struct tensor_spec *spec, int64_t rows)
{
    bool fits = t->type == spec->type && t->rank == spec->rank && t->dims[0] == rows;
    for (size_t i = 1; fits && i < spec->rank; i++)
        fits = t->dims[i] == spec->dims[i];
    if (!fits)
        FAIL(INVALID, "tensor '%.*s' has not the type or the shape that the model says", STR(spec->name));
    if (t->bytes / row_bytes(spec) != (size_t)rows || t->bytes % row_bytes(spec) || (rows && !t->data) ||
        (uintptr_t)t->data % tensor_size(spec->type))
        FAIL(INVALID, "tensor '%.*s': its shape does not fit its %zu bytes", STR(spec->name), t->bytes);
    return NULL;
}

static err output_place(const struct tensor_spec *spec, struct arena *a, int64_t rows, struct tensor *out)
{
    if (out->data)
        return tensor_fits(out, spec, rows);
    if (!a)
        FAIL(INVALID, "output '%.*s' has no memory", STR(spec->name));
    const size_t each = row_bytes(spec);
    if ((size_t)rows > arena_left(a) / each)
        FAIL(TOO_LARGE, "output '%.*s' has %lld rows, more than there is room for", STR(spec->name),
             (long long)rows);
    out->type = spec->type;
    out->rank = spec->rank;
    memcpy(out->dims, spec->dims, sizeof out->dims);
    out->dims[0] = rows;
    out->bytes = (size_t)rows * each;
    out->data = arena_alloc(a, out->bytes, 64);
    return NULL;
}

static err batch_take(const struct engine_session *s, struct arena *a, const struct tensor *in, size_t n_in,
                      struct tensor *out, size_t n_out, struct batch *b)
{
    const struct session_info *info = &s->info;
    *b = (struct batch){ 0 };
    if (n_in != info->n_inputs)
        FAIL(INVALID, "the model has %zu inputs; %zu are given", info->n_inputs, n_in);
    if (!n_out)
        FAIL(INVALID, "no output is asked for");
    for (size_t i = 0; i < n_in; i++) {
        if (in[i].slot >= n_in || b->in[in[i].slot])
            FAIL(INVALID, "input %zu is not the model's, or given twice", in[i].slot);
        b->in[in[i].slot] = &in[i];
        b->rows = in[0].rank ? in[0].dims[0] : -1;
        if (b->rows < 0)
            FAIL(INVALID, "an input without rows");
        TRY(tensor_fits(&in[i], &info->inputs[in[i].slot], b->rows));
    }
    for (size_t i = 0; i < n_out; i++) {
        if (out[i].slot >= info->n_outputs || b->out[out[i].slot])
            FAIL(INVALID, "output %zu is not the model's, or asked for twice", out[i].slot);
        TRY(output_place(&info->outputs[out[i].slot], a, b->rows, &out[i]));
        b->out[out[i].slot] = &out[i];
    }
    return NULL;
}

/* Rows from `at` on, as many as the program takes and there are. */
static err seat_run(const struct engine_session *s, struct seat *seat, const struct batch *b, int64_t at)
{
    const struct session_info *info = &s->info;
    const int64_t n = b->rows - at < seat->rows ? b->rows - at : seat->rows;
    const void *in[TENSORS_MAX];
    struct run_report report;
    for (size_t i = 0; i < info->n_inputs; i++) {
        const size_t each = row_bytes(&info->inputs[i]);
        const char *from = (const char *)b->in[i]->data + (size_t)at * each;
        in[i] = from;
        if (n == seat->rows)
            continue;
        memcpy(seat->padded[i], from, (size_t)n * each);
        memset((char *)seat->padded[i] + (size_t)n * each, 0, (size_t)(seat->rows - n) * each);
        in[i] = seat->padded[i];
    }
    program_run(seat->program, in, 0, 0, &report);
    if (report.bad_indices)
        FAIL(INVALID, "%lld indices are out of their range", (long long)report.bad_indices);
    for (size_t i = 0; i < info->n_outputs; i++)
        if (b->out[i]) {
            const size_t each = row_bytes(&info->outputs[i]);
            memcpy((char *)b->out[i]->data + (size_t)at * each,
                   program_output(seat->program, (int)i, NULL, NULL), (size_t)n * each);
        }
    return NULL;
}

/* Of the program for the next rows: the largest that they fill, or the one above if no more than a quarter of it is filled up. */
static int size_for(const struct engine_session *s, int64_t rows)
{
    int size = 0;
    while (size + 1 < s->sizes && (int64_t)3 << size <= 2 * rows)
        size++;
    return size;
}

static err batch_run(struct engine_session *s, const struct batch *b, const atomic_bool *stop)
{
    err e = NULL;
    for (int64_t at = 0; at < b->rows && !e;) {
        struct seat *seat;
        int size = size_for(s, b->rows - at);
        TRY(seat_take(s, size, &seat));
        for (; !e && at < b->rows && size == size_for(s, b->rows - at); at += seat->rows)
            e = atomic_load_explicit(stop, memory_order_relaxed) ? err_new(CANCELLED, "the run was stopped")
                                                                 : seat_run(s, seat, b, at);
        seat_give(s, size, seat);
    }
    return e;
}

static err engine_run(struct session *session, struct run_control *control, struct arena *a,
                      const struct tensor *in, size_t n_in, struct tensor *out, size_t n_out)
{
    struct engine_session *s = (struct engine_session *)session;
    struct batch b;
    atomic_bool stop = false;
    TRY(batch_take(s, a, in, n_in, out, n_out, &b));
    TRY(run_control_enter(control, run_stop_flag, &stop));
    return run_control_leave(control, batch_run(s, &b, &stop));
}

const struct runtime_ops runtime_engine = {
    .name = "engine",
    .format = "onnx",
    .open = engine_open,
    .version = runtime_own_version,
    .devices = runtime_own_devices,
    .load = engine_load,
    .describe = engine_describe,
    .run = engine_run,
    .unload = engine_unload,
    .close = runtime_own_close,
};
