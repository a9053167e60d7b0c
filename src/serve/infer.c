// SPDX-License-Identifier: Apache-2.0
/* The core: which version, do the tensors fit, run, end. Nothing here takes a lock or asks the database. */
#include "serve/policy.h"

/* ---- inputs: what is wrong with them is said as Triton says it, for clients that look for its words ---- */

static bool tensor_fits(const struct tensor *t, const struct tensor_spec *spec)
{
    bool fits = !spec->shaped || spec->rank == t->rank;
    for (size_t i = 0; fits && spec->shaped && i < spec->rank; i++)
        fits = spec->dims[i] < 0 || spec->dims[i] == t->dims[i];
    return fits;
}

static struct str dims_text(struct arena *a, const int64_t *dims, size_t rank)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < rank; i++)
        buf_fmt(&b, "%s%lld", i ? "," : "", (long long)(dims[i] < 0 ? -1 : dims[i]));
    return buf_get(&b);
}

static err misshapen(const struct infer *c, const struct named *in, const struct tensor_spec *spec)
{
    return err_new(INVALID,
                   "unexpected shape for input '%.*s' for model '%.*s'. Expected [%.*s], got [%.*s].",
                   STR(in->name), STR(c->entry->name), STR(dims_text(c->a, spec->dims, spec->rank)),
                   STR(dims_text(c->a, in->t.dims, in->t.rank)));
}

static bool is_given(const struct infer *c, struct str name)
{
    for (size_t i = 0; i < c->inputs_n; i++)
        if (str_eq(c->inputs[i].name, name))
            return true;
    return false;
}

/* filled: bits of the inputs that the client need not give. */
static err miscounted(const struct infer *c, uint64_t filled)
{
    const struct session_info *info = c->to->model->info;
    struct buf got = buf_new(c->a), lacking = buf_new(c->a);
    size_t wanted = info->n_inputs;
    for (size_t i = 0; i < c->inputs_n; i++)
        buf_fmt(&got, "%s'%.*s'", got.n ? "," : "", STR(str_sub(c->inputs[i].name, 0, 64)));
    for (size_t i = 0; i < info->n_inputs; i++) {
        bool given = is_given(c, info->inputs[i].name);
        wanted -= !given && filled >> i & 1;
        if (!given && !(filled >> i & 1))
            buf_fmt(&lacking, "%s'%.*s'", lacking.n ? "," : "", STR(info->inputs[i].name));
    }
    return err_new(
        INVALID,
        "expected %zu inputs but got %zu inputs for model '%.*s'. Got input(s) [%.*s], but missing "
        "required input(s) [%.*s]. Please provide all required input(s).",
        wanted, c->inputs_n, STR(c->entry->name), STR(buf_get(&got)), STR(buf_get(&lacking)));
}

static err input_take(struct infer *c, const struct named *in, uint64_t *seen)
{
    const struct session_info *info = c->to->model->info;
    const struct tensor_spec *spec = info->inputs;
    size_t slot = 0;
    while (slot < info->n_inputs && !str_eq(spec[slot].name, in->name))
        slot++;
    if (slot == info->n_inputs && c->inputs_n != info->n_inputs && !c->seq)
        return miscounted(c, 0);
    if (slot == info->n_inputs)
        FAIL(INVALID, "unexpected inference input '%.*s' for model '%.*s'", STR(str_sub(in->name, 0, 64)),
             STR(c->entry->name));
    if (*seen >> slot & 1)
        FAIL(INVALID, "input '%.*s' already exists in request", STR(in->name));
    *seen |= (uint64_t)1 << slot;
    spec += slot;
    if (in->t.type != spec->type)
        FAIL(INVALID, "inference input '%.*s' data-type is '%.*s', but model '%.*s' expects '%.*s'",
             STR(in->name), STR(tensor_protocol_name(in->t.type)), STR(c->entry->name),
             STR(tensor_protocol_name(spec->type)));
    if (!tensor_fits(&in->t, spec))
        return misshapen(c, in, spec);
    c->in[slot] = in->t;
    c->in[slot].slot = slot;
    return NULL;
}

static err tensors_take(struct infer *c)
{
    const struct session_info *info = c->to->model->info;
    uint64_t seen = 0;
    for (size_t i = 0; i < c->inputs_n; i++)
        TRY(input_take(c, &c->inputs[i], &seen));
    c->n = c->inputs_n && c->inputs[0].t.rank ? (size_t)c->inputs[0].t.dims[0] : 1;
    TRY(sequence_inputs(c, &seen));
    for (size_t i = 0; i < info->n_inputs; i++)
        if (!(seen >> i & 1))
            return miscounted(c, seen);
    if (c->to->model->by_rows) {
        c->x = c->in[0].data;
        c->features = (size_t)c->in[0].dims[1];
    }
    return NULL;
}

/* ---- outputs ---- */

static err output_take(struct infer *c, const struct asked *want, uint64_t *seen)
{
    const struct session_info *info = c->to->model->info;
    size_t slot = 0;
    while (slot < info->n_outputs && !str_eq(info->outputs[slot].name, want->name))
        slot++;
    if (slot == info->n_outputs)
        FAIL(INVALID, "unexpected inference output '%.*s' for model '%.*s'", STR(str_sub(want->name, 0, 64)),
             STR(c->entry->name));
    if (*seen >> slot & 1)
        FAIL(INVALID, "output '%.*s' is asked for twice", STR(want->name));
    *seen |= (uint64_t)1 << slot;
    c->out[c->out_n++].slot = slot;
    return NULL;
}

/* [N] or [N, k…] with the rows' own N. */
void output_place(const struct model *m, struct arena *a, size_t rows, struct tensor *t)
{
    const struct tensor_spec *spec = &m->info->outputs[t->slot], *in = m->info->inputs;
    int64_t n;
    if (!m->by_rows || !spec->shaped || !spec->rank || !tensor_size(spec->type) || spec->dims[0] >= 0 ||
        !spec->symbols[0].n || !str_eq(spec->symbols[0], in->symbols[0]))
        return;
    struct tensor out = { .slot = t->slot, .type = spec->type, .rank = spec->rank };
    memcpy(out.dims, spec->dims, sizeof out.dims);
    out.dims[0] = (int64_t)rows;
    if (!tensor_count(out.dims, out.rank, CELLS_MAX, &n))
        return;
    out.bytes = (size_t)n * tensor_size(spec->type);
    out.data = arena_alloc(a, out.bytes, 64);
    *t = out;
}

static err outputs_take(struct infer *c)
{
    const struct session_info *info = c->to->model->info;
    uint64_t seen = 0;
    for (size_t i = 0; i < c->asked_n; i++)
        TRY(output_take(c, &c->asked[i], &seen));
    if (!c->out_n)
        for (; c->out_n < info->n_outputs; c->out_n++)
            c->out[c->out_n].slot = c->out_n;
    c->run_n = c->out_n;
    sequence_outputs(c);
    for (size_t i = 0; i < c->run_n; i++)
        output_place(c->to->model, c->a, c->n, &c->out[i]);
    return NULL;
}

/* ---- who is told ---- */

static const float *scores_of(const struct infer *c)
{
    const struct tensor *t = &c->out[0];
    int64_t n;
    bool one_a_row = t->type == TENSOR_F32 && tensor_count(t->dims, t->rank, INT32_MAX, &n) &&
                     (size_t)n == c->n;
    return one_a_row ? t->data : NULL;
}

static void observe(const struct infer *c)
{
    const struct model *m = c->to->model;
    struct prediction p = { .project = c->entry->project,
                            .deployment = c->entry->name,
                            .version = m->name,
                            .n = c->n,
                            .n_features = c->features,
                            .features = c->x,
                            .names = m->names,
                            .scores = scores_of(c),
                            .ids = c->row_ids,
                            .at = c->event_at,
                            .time = c->now };
    for (size_t i = 0; i < c->s->observers_n; i++)
        c->s->observers[i].predicted(c->s->observers[i].self, &p);
    if (c->entry->contest)
        contest_predicted(c->entry->contest, c->id, &p);
    if (c->entry->mirror)
        mirror_offer(c);
}

/* ---- the whole way ---- */

static void tensors_room(struct infer *c)
{
    const struct session_info *info = c->to->model->info;
    c->in = NEW_N(c->a, struct tensor, info->n_inputs + 1);
    c->out = NEW_N(c->a, struct tensor, info->n_outputs + 1);
}

static err prepare(struct infer *c)
{
    tensors_room(c);
    if (c->fit)
        TRY(c->fit(c));
    TRY(sequence_enter(c));
    TRY(c->entities ? keys_take(c) : tensors_take(c));
    if (c->row_ids && c->row_ids_n != c->n)
        FAIL(INVALID, "ids has %zu items, there are %zu rows", c->row_ids_n, c->n);
    return outputs_take(c);
}

err infer_run(struct infer *c)
{
    c->at.started = c->waits || c->keyed ? mono_ns() : c->at.ready; /* which is now */
    int64_t clock = run_clock(c, c->at.started);
    TRY(policy_run(c, c->a, c->in, c->out, c->run_n));
    c->at.ran = mono_ns();
    run_count(c, c->n, 1, run_clock(c, c->at.ran) - clock);
    return NULL;
}

static void leave(struct infer *c)
{
    limit_leave(c);
    sequence_leave(c);
    if (c->waits)
        snap_unref(c->snap);
    else
        snap_leave(c->s, c->slot);
}

/* The last touch of c. */
static err over(struct infer *c, err e)
{
    leave(c);
    if (!c->waits)
        return e;
    req_done(c->r, e && c->failed ? c->failed(c, e) : e);
    return NULL;
}

err infer_end(struct infer *c, err e)
{
    bool ran = !e;
    if (ran && c->keyed)
        cache_put(c);
    if (ran)
        e = c->reply(c);
    infer_count(c, e, ran || c->entities);
    if (!e)
        observe(c);
    return over(c, e);
}

void infer_wait(struct infer *c)
{
    if (c->waits)
        return;
    c->waits = true;
    snap_ref(c->s, c->snap, c->slot);
    req_later(c->r);
}

static err refuse(struct infer *c, err e)
{
    if (c->count)
        infer_count(c, e, false);
    return over(c, e);
}

err infer_step(struct infer *c)
{
    infer_arrive(c);
    tensors_room(c);
    err e = tensors_take(c);
    if (!e)
        e = outputs_take(c);
    c->at.ready = mono_ns();
    if (c->row_ids_n != c->n) /* its rows are not the request's */
        c->row_ids = NULL, c->row_ids_n = 0;
    if (!e && !cache_get(c))
        e = infer_run(c);
    if (!e && c->keyed)
        cache_put(c);
    infer_count(c, e, false);
    if (!e)
        observe(c);
    return e;
}

err infer_unread(struct infer *c, err e)
{
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    bool known = snap_find(snap, c->project, c->deployment) != NULL;
    snap_leave(c->s, slot);
    return known ? e : model_unknown(c->deployment);
}

/* Until the deployment, its own or a step's, is loaded. */
static err doze(struct infer *c, const struct entry *asleep)
{
    c->wakes = asleep == c->entry ? c->deployment : str_dup(c->a, asleep->name);
    leave(c);
    return wake_wait(c);
}

static err begin(struct infer *c)
{
    c->entry = snap_find(c->snap, c->project, c->deployment);
    if (!c->entry)
        return refuse(c, model_unknown(c->deployment));
    const struct entry *asleep = c->entry->state == ENTRY_IDLE ? c->entry : NULL;
    err steps = !asleep && c->entry->n && c->entry->v->model->composed ? ensemble_enter(c, &asleep) : NULL;
    if (asleep)
        return doze(c, asleep);
    err e = version_choose(c);
    if (e)
        return refuse(c, e);
    infer_arrive(c);
    trace_take(c);
    e = steps ? steps : limit_enter(c); /* after its arrival, so that who is refused is counted */
    if (!e)
        e = prepare(c);
    if (e)
        return refuse(c, e);
    c->at.ready = mono_ns();
    return cache_get(c) ? infer_end(c, NULL) : queue_submit(c);
}

err infer_start(struct infer *c)
{
    c->at.arrived = mono_ns();
    c->now = now_us();
    c->snap = snap_enter(c->s, &c->slot);
    return begin(c);
}

void infer_again(struct infer *c)
{
    c->snap = snap_enter(c->s, &c->slot);
    snap_ref(c->s, c->snap, c->slot);
    (void)begin(c);
}

bool infer_light_named(struct serve *s, struct req *r, struct str name, size_t text)
{
    unsigned slot;
    if (r->body.n > LIGHT_BYTES || req_header(r, S("content-encoding")).n)
        return false;
    const struct snap *snap = snap_enter(s, &slot);
    const struct entry *e = snap_find(snap, req_project(r), name);
    bool light = e && e->n;
    bool queues = e && e->policy && text <= SMALL_BYTES; /* a heavy model's run is a runner's anyway */
    for (size_t i = 0; light && i < e->n; i++) {
        int64_t ns = atomic_load_explicit(&e->v[i].model->run_ns, memory_order_relaxed);
        light = ns > 0 && (queues || ns < LIGHT_NS);
    }
    snap_leave(s, slot);
    return light;
}

/* Bytes of JSON before binary tensors; -1: all of the body. */
static int64_t json_length(const struct req *r)
{
    int64_t n;
    return str_i64(req_header(r, S("inference-header-content-length")), &n) && n >= 0 ? n : -1;
}

size_t infer_lead(const struct req *r)
{
    int64_t n = json_length(r);
    return n < 0 ? 0 : (size_t)n;
}

bool infer_light(struct req *r)
{
    int64_t text = json_length(r);
    if (text < 0)
        text = (int64_t)r->body.n;
    return infer_light_named((struct serve *)(uintptr_t)r->route->self, r, req_param(r, S("name")),
                             (size_t)text);
}
