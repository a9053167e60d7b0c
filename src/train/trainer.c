// SPDX-License-Identifier: Apache-2.0
#include "train/trainer_internal.h"

#include <math.h>

enum {
    LOOK_NS = 100000000, /* between two looks at the clock for the listener */
    EVAL_MAX = 1024,     /* rows of a batch on which nothing is learned */
    OVERFLOWS_MAX = 100, /* in a row */
    LOSS_POINTS = 200,   /* of the curve of a whole training */
};

/* ---- parameters under another graph ---- */

err params_under(struct arena *a, const struct params *p, const struct graph *g, struct params **out)
{
    struct params *to = NEW(a, struct params);
    *to = *p;
    to->half = NULL;
    to->half_type = TENSOR_F32;
    to->v = NEW_N(a, struct param, p->count + 1);
    to->states = NEW_N(a, struct state_block, p->n_states + 1);
    for (size_t i = 0; i < p->count; i++) {
        to->v[i] = p->v[i];
        to->v[i].value = graph_find(g, p->v[i].name);
        if (to->v[i].value < 0 || !shape_same(&value_at(g, to->v[i].value)->shape, &p->v[i].shape))
            FAIL(INTERNAL, "parameter '%.*s' is not in both graphs", STR(p->v[i].name));
    }
    for (size_t i = 0; i < p->n_states; i++) {
        to->states[i] = p->states[i];
        to->states[i].value = graph_find(g, p->states[i].name);
        if (to->states[i].value < 0)
            FAIL(INTERNAL, "state '%.*s' is not in both graphs", STR(p->states[i].name));
    }
    *out = to;
    return NULL;
}

/* ---- setting up ---- */

/* Steps of the optimiser that so many batches make: the last one of fewer, if need be. */
static int64_t step_count(int64_t batches, int64_t each)
{
    return (batches + each - 1) / each;
}

static struct optim_spec optim_words(const struct training_net *t)
{
    const struct train_optimizer *o = &t->with->optimizer;
    const struct train_schedule *s = &t->with->schedule;
    /* An epoch ends with a step, so that a checkpoint can be made without what is added up. */
    int64_t steps = t->steps / t->per_epoch * step_count(t->per_epoch, o->accumulate) +
                    step_count(t->steps % t->per_epoch, o->accumulate);
    double factor = s->factor, warmup = s->warmup < 1 ? s->warmup * (double)steps : s->warmup;
    if (isnan(factor))
        factor = s->kind == RATE_STEP ? 0.1 : s->kind == RATE_ONE_CYCLE ? 25 : 0;
    return (struct optim_spec){ .kind = (enum optim_kind)o->kind,
                                .rate = t->rate,
                                .momentum = o->momentum,
                                .beta1 = o->beta1,
                                .beta2 = o->beta2,
                                .epsilon = o->epsilon,
                                .decay = o->decay,
                                .nesterov = o->nesterov,
                                .clip_norm = o->clip,
                                .ema = o->ema,
                                .accumulate = (int)o->accumulate,
                                .loss_scaling = t->precision == PRECISION_F16,
                                .schedule = { .kind = (enum schedule_kind)s->kind,
                                              .warmup = (int64_t)warmup,
                                              .steps = steps,
                                              .every = s->every > 0 ? s->every : steps / 3 + 1,
                                              .factor = factor } };
}

static double rate_of(const struct train_with *w, const struct field *chosen)
{
    static const double by_kind[] = { [OPTIM_SGD] = 0.1,
                                      [OPTIM_ADAM] = 1e-3,
                                      [OPTIM_ADAMW] = 1e-3,
                                      [OPTIM_LAMB] = 2e-3,
                                      [OPTIM_ADAGRAD] = 1e-2 };
    if (w->optimizer.rate > 0)
        return w->optimizer.rate;
    bool like_adam = w->optimizer.kind == OPTIM_ADAM || w->optimizer.kind == OPTIM_ADAMW;
    return like_adam && net_rate(chosen) > 0 ? net_rate(chosen) : by_kind[w->optimizer.kind];
}

static const char *folder_of(const struct training_net *t)
{
    return fmtz(t->a, "%s/checkpoints", t->job->dir);
}

int64_t train_budget(const struct training_net *t)
{
    return t->with->memory > 0 ? t->with->memory : t->job->memory;
}

int64_t train_beside(const struct training_net *t, const struct optim_spec *spec)
{
    return 2 * optim_memory(t->params, spec) + (int64_t)(t->params->n * sizeof(float));
}

static err program_make(struct training_net *t)
{
    struct program_options o = { .team = t->team,
                                 .rows = t->batch,
                                 .loss = t->net.loss,
                                 .precision = t->precision,
                                 .memory_max = train_budget(t),
                                 .memory_beside = train_beside(t, &t->optim_spec),
                                 .profile = t->with->profile };
    TRY(program_new(t->a, t->net.g, t->params, &o, &t->program));
    if (t->set.task.mean)
        t->label = NEW_N(t->a, float, arena_mul((size_t)t->batch, (size_t)t->set.task.outputs));
    struct program_facts f = program_facts(t->program);
    t->memory = f.memory + f.memory_params + train_beside(t, &t->optim_spec);
    return NULL;
}

static err eval_make(struct training_net *t)
{
    TRY(net_build(t->a, &t->with->model, t->job->chosen, t->set.in, t->set.n_in, &t->set.task, NET_EVAL,
                  &t->eval_net));
    TRY(params_under(t->a, t->params, t->eval_net.g, &t->eval_params));
    if (t->optim->ema)
        t->eval_params->w = t->optim->ema;
    return NULL;
}

/* It reads the parameters that are there, and its activations may lie where a step's do. */
static err look_make(const struct training_net *t, struct arena *a, int64_t rows, int64_t beside,
                     struct program **out)
{
    struct program_options o = { .team = t->team,
                                 .rows = rows,
                                 .loss = -1,
                                 .memory_max = train_budget(t),
                                 .memory_beside = beside,
                                 .turns = t->program };
    return program_new(a, t->eval_net.g, t->eval_params, &o, out);
}

/* Batches of one size, smaller ones where memory is short, and one for the rest. */
static err held_make(const struct training_net *t, struct arena *a, enum loader_part part, struct held *out)
{
    int64_t rows = t->set.facts.rows[part], batch = t->batch < EVAL_MAX ? t->batch : EVAL_MAX;
    *out = (struct held){ 0 };
    if (rows == 0)
        return NULL;
    if (rows < batch)
        batch = rows;
    /* By the time of the test nothing more is learned, and only the parameters are left. */
    const int64_t beside = part == LOADER_VALID ? t->memory - (int64_t)(t->params->n * sizeof(float)) : 0;
    err e = look_make(t, a, batch, beside, &out->program);
    while (e && e->code == TOO_LARGE && batch > 1)
        e = look_make(t, a, batch /= 2, beside, &out->program);
    TRY(e);
    out->memory = program_facts(out->program).memory;
    out->rest_rows = rows % batch;
    if (out->rest_rows) {
        TRY(look_make(t, a, out->rest_rows, beside + out->memory, &out->rest));
        out->memory += program_facts(out->rest).memory;
    }
    struct feed_options f = { .part = part, .rows = batch, .once = true };
    return feed_open(t->set.loader, a, &f, &out->feed);
}

static void team_end(void *team)
{
    team_free(team);
}

static err steps_count(struct training_net *t)
{
    t->per_epoch = feed_steps(t->feed);
    if (t->per_epoch < 1)
        FAIL(INVALID, "an epoch has no whole batch");
    t->epochs = t->with->epochs;
    t->steps = t->with->steps;
    if (t->steps > 0)
        t->epochs = (t->steps + t->per_epoch - 1) / t->per_epoch;
    else if (__builtin_mul_overflow(t->epochs, t->per_epoch, &t->steps))
        FAIL(INVALID, "there are too many steps");
    return NULL;
}

/* What the newest checkpoint says, for what follows from it already here: the size of a batch, the precision. */
static err resume_find(struct training_net *t)
{
    struct strs damaged = { 0 };
    struct str text;
    err e = checkpoint_find(t->a, folder_of(t), &t->from, &damaged);
    for (size_t i = 0; i < damaged.n; i++)
        train_say(t->listener, "passed over: %.*s", STR(damaged.v[i]));
    if (e && e->code == NOT_FOUND) {
        train_say(t->listener, "there is no checkpoint to go on from: it starts anew");
        return NULL;
    }
    TRY(e);
    TRY(checkpoint_state(t->a, t->from, &text));
    TRY_AS(json_parse(t->a, text, &t->state), "%s/state.json", t->from);
    if (!yyjson_equals_str(yyjson_obj_get(t->state, "format"), "dhow-training 1"))
        FAIL(INVALID, "%s/state.json is none of ours", t->from);
    return NULL;
}

static err set_up(struct training_net *t)
{
    int threads = t->with->threads > 0 ? (int)t->with->threads : t->job->threads;
    TRY(train_set_open(t->a, t->job, t->listener, &t->set));
    t->rate = rate_of(t->with, t->job->chosen);
    TRY(team_new(threads, &t->team));
    arena_defer(t->a, team_end, t->team);
    TRY(net_build(t->a, &t->with->model, t->job->chosen, t->set.in, t->set.n_in, &t->set.task, NET_TRAIN,
                  &t->net));
    if (train_budget(t) > 0)
        TRY_AS(params_check(t->net.g, train_budget(t)), "model %.*s", STR(t->net.g->name));
    TRY_AS(params_new(t->a, &device_cpu, t->net.g, team_size(t->team), (uint64_t)t->with->seed, &t->params),
           "model %.*s", STR(t->net.g->name));
    for (size_t i = 0; i < t->net.g->notes.n; i++)
        train_say(t->listener, "note: %.*s", STR(t->net.g->notes.v[i]));
    net_freeze(&t->with->model, t->job->chosen, t->params);
    TRY(net_no_decay(&t->with->optimizer.no_decay, t->params));
    if (t->job->resume)
        TRY(resume_find(t));
    TRY(train_choose(t));
    struct feed_options f = {
        .part = LOADER_TRAIN, .rows = t->batch, .shuffle = true, .seed = (uint64_t)t->with->seed
    };
    TRY(feed_open(t->set.loader, t->a, &f, &t->feed));
    TRY(steps_count(t));
    t->optim_spec = optim_words(t);
    TRY_AS(optim_new(t->a, t->params, &t->optim_spec, &t->optim), "what the optimizer keeps of model %.*s",
           STR(t->net.g->name));
    TRY_AS(program_make(t), "model %.*s", STR(t->net.g->name));
    TRY(eval_make(t));
    TRY(held_make(t, t->a, LOADER_VALID, &t->valid));
    t->memory += t->valid.memory;
    size_t numbers = 0;
    for (size_t i = 0; i < t->params->n_states; i++)
        numbers += t->params->states[i].n;
    if (numbers && !t->with->model.onnx.file.n && !t->with->model.onnx.blob.n) /* a given model has its own */
        t->before = NEW_N(t->a, float, numbers);
    return measuring_new(t->a, &t->set, &t->measuring);
}

static void say_start(const struct training_net *t)
{
    struct program_facts f = program_facts(t->program);
    auto_arena struct arena *a = arena_new(0);
    int64_t learned = 0;
    for (size_t i = 0; i < t->params->count; i++)
        learned += t->params->v[i].frozen ? 0 : (int64_t)t->params->v[i].n;
    struct str parts = f.parts > 1 ? fmt(a, " in %d parts", f.parts) : S("");
    train_say(t->listener, "rows: %lld to learn from, %lld held out%s, read in %.2f s",
              (long long)t->set.facts.rows[LOADER_TRAIN], (long long)t->set.facts.rows[LOADER_VALID],
              t->set.facts.kept ? "" : " (read anew in each epoch)", t->set.facts.seconds);
    if (t->set.facts.left.n)
        train_say(t->listener, "left out, as they are no numbers and no input names them: %.*s",
                  STR(str_join(a, t->set.facts.left.v, t->set.facts.left.n, S(", "))));
    train_say(
        t->listener,
        "model %.*s: %lld parameters, %.3g MFLOP a row; %lld steps of %lld rows%.*s, %s, %d threads, rate %g; "
        "activations %.*s, parameters and gradients %.*s, in all %.*s",
        STR(t->net.g->name), (long long)learned, f.flops / 1e6 / (double)t->batch, (long long)t->steps,
        (long long)t->batch, STR(parts), train_precisions[t->precision + 1], f.ranks, t->rate,
        STR(size_about(a, f.memory)), STR(size_about(a, f.memory_params)), STR(size_about(a, t->memory)));
}

/* ---- going on ---- */

/* The watch on the way: what is best, what is kept. */
struct course {
    struct training_net *t;
    struct checkpoints *checkpoints;
    struct str metric;
    bool more;
    double best;
    int64_t best_step, stale;
    struct measures measures, best_measures;
    double loss_sum; /* since the last point of the curve */
    int64_t loss_n;
    double epoch_sum; /* since the start of the epoch */
    int64_t epoch_n;
    int overflows;
    int64_t trained_ns, looked, began; /* of steps alone; when the listener was told; the step then */
    int64_t rows_done;
    double waited;
    bool enough;
};

static void block_add(struct arena *a, const struct params *all, struct str prefix, float *block,
                      struct checkpoint_tensors *to)
{
    for (size_t i = 0; block && i < all->count; i++) {
        const struct param *p = &all->v[i];
        struct checkpoint_tensor c = { .name = fmt(a, "%.*s%.*s", STR(prefix), STR(p->name)),
                                       .optim = prefix.n > 0,
                                       .rank = (size_t)p->shape.rank,
                                       .p = block + p->at };
        memcpy(c.dims, p->shape.d, sizeof c.dims);
        push(a, &to->v, c);
    }
}

static struct checkpoint_tensors tensors_of(struct arena *a, const struct training_net *t)
{
    struct checkpoint_tensors all = { 0 };
    const struct params *p = t->params;
    const struct optim *o = t->optim;
    block_add(a, p, S(""), p->w, &all);
    block_add(a, p, S("m."), o->m, &all);
    block_add(a, p, S("v."), o->v, &all);
    block_add(a, p, S("ema."), o->ema, &all);
    for (int i = 0; i < p->ranks && o->sums && o->pending > 0; i++) /* within an accumulation */
        block_add(a, p, fmt(a, "sum%d.", i), o->sums[i], &all);
    for (size_t i = 0; i < p->n_states; i++) {
        struct checkpoint_tensor c = { .name = p->states[i].name,
                                       .rank = (size_t)p->states[i].shape.rank,
                                       .p = p->states[i].p };
        memcpy(c.dims, p->states[i].shape.d, sizeof c.dims);
        push(a, &all.v, c);
    }
    return all;
}

/* Ops, names and sizes of parameters: what must be the same for a checkpoint to fit. */
static struct str graph_hash(const struct training_net *t, struct arena *a)
{
    struct buf b = buf_new(a);
    const struct graph *g = t->net.g;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        buf_fmt(&b, "%s(", n->op->name);
        for (int k = 0; k < n->n_in; k++)
            buf_fmt(&b, "%d,", n->in[k]);
        for (size_t k = 0; k < n->n_attrs; k++)
            buf_fmt(&b, "%s=%lld/%g,", n->attrs[k].name, (long long)n->attrs[k].i, (double)n->attrs[k].f);
    }
    for (size_t i = 0; i < t->params->count; i++)
        buf_fmt(&b, "%.*s%.*s", STR(t->params->v[i].name), STR(shape_text(g, a, &t->params->v[i].shape)));
    return sha256_hex(a, buf_get(&b));
}

static struct str state_text(const struct course *c, struct arena *a)
{
    const struct training_net *t = c->t;
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "format", S("dhow-training 1"));
    json_ki64(&j, "step", t->step);
    json_ki64(&j, "epoch", t->epoch);
    json_ki64(&j, "seed", t->with->seed);
    json_ki64(&j, "steps", t->steps);
    json_ki64(&j, "batchSize", t->batch);
    json_kstr(&j, "precision", str_of(train_precisions[t->precision + 1]));
    json_ki64(&j, "accumulate", t->with->optimizer.accumulate);
    json_ki64(&j, "pending", t->optim->pending);
    json_ki64(&j, "threads", team_size(t->team));
    json_kf64(&j, "rate", t->rate);
    json_kstr(&j, "graph", graph_hash(t, a));
    json_kraw(&j, "data", feed_state(t->feed, a));
    json_ki64(&j, "optimSteps", t->optim->step);
    json_kf64(&j, "lossScale", t->optim->loss_scale);
    json_ki64(&j, "good", t->optim->good);
    json_ki64(&j, "skipped", t->optim->skipped);
    json_kf64(&j, "lossSum", c->loss_sum);
    json_ki64(&j, "lossCount", c->loss_n);
    json_kf64(&j, "epochSum", c->epoch_sum);
    json_ki64(&j, "epochCount", c->epoch_n);
    json_ki64(&j, "bestStep", c->best_step);
    json_kf64(&j, "best", c->best);
    json_ki64(&j, "stale", c->stale);
    json_kraw(&j, "measures", measures_text(a, &c->measures));
    json_kraw(&j, "bestMeasures", measures_text(a, &c->best_measures));
    json_obj_end(&j);
    return json_get(&j);
}

static void measures_read(struct arena *a, yyjson_val *v, struct measures *out)
{
    yyjson_val *key, *one;
    size_t i, n;
    *out = (struct measures){ 0 };
    if (!v)
        return;
    yyjson_obj_foreach (v, i, n, key, one) {
        if (out->n == MEASURES_MAX)
            break;
        out->name[out->n] = str_dup(a, json_text(key));
        out->value[out->n++] = yyjson_is_num(one) ? yyjson_get_num(one) : NAN;
    }
}

static int64_t whole(yyjson_val *v, const char *key)
{
    return yyjson_get_sint(yyjson_obj_get(v, key));
}

static double number(yyjson_val *v, const char *key)
{
    yyjson_val *n = yyjson_obj_get(v, key);
    return yyjson_is_num(n) ? yyjson_get_num(n) : NAN;
}

static err state_read(struct course *c, yyjson_val *v, const char *path)
{
    struct training_net *t = c->t;
    yyjson_val *hash = yyjson_obj_get(v, "graph"), *data = yyjson_obj_get(v, "data");
    struct str mine = graph_hash(t, t->a);
    if (!str_eq(mine, json_text(hash)))
        return err_hint(
            err_new(INVALID,
                    "%s is of another model: its tensors are the same, what is done with them is not", path),
            "train into another folder, or go on with the form that it was begun with");
    t->step = whole(v, "step");
    t->epoch = whole(v, "epoch");
    t->optim->step = whole(v, "optimSteps");
    t->optim->loss_scale = number(v, "lossScale");
    t->optim->good = whole(v, "good");
    t->optim->skipped = whole(v, "skipped");
    c->loss_sum = number(v, "lossSum");
    c->loss_n = whole(v, "lossCount");
    c->epoch_sum = number(v, "epochSum");
    c->epoch_n = whole(v, "epochCount");
    c->best_step = whole(v, "bestStep");
    c->best = number(v, "best");
    c->stale = whole(v, "stale");
    measures_read(t->a, yyjson_obj_get(v, "measures"), &c->measures);
    measures_read(t->a, yyjson_obj_get(v, "bestMeasures"), &c->best_measures);
    size_t n;
    char *text = yyjson_val_write(data, 0, &n);
    struct str where = str_dup(t->a, (struct str){ text, text ? n : 0 });
    free(text);
    return feed_seek(t->feed, where);
}

/* What the form must say as it did when the checkpoint was made. */
static err form_same(const struct training_net *t)
{
    const struct {
        const char *name, *key;
        int64_t mine;
        bool any;
    } same[] = {
        { "seed", "seed", t->with->seed },
        { "batchSize", "batchSize", t->batch },
        { "steps", "steps", t->steps },
        { "optimizer.accumulate", "accumulate", t->with->optimizer.accumulate },
        { "threads", "threads", team_size(t->team), .any = whole(t->state, "pending") == 0 },
    };
    const char *precision = train_precisions[t->precision + 1];
    yyjson_val *its = yyjson_obj_get(t->state, "precision");
    err e = NULL;
    for (size_t i = 0; i < sizeof same / sizeof *same && !e; i++)
        if (!same[i].any && yyjson_obj_get(t->state, same[i].key) &&
            whole(t->state, same[i].key) != same[i].mine)
            e = err_new(INVALID, "%s was made with %s %lld, this form says %lld", t->from, same[i].name,
                        (long long)whole(t->state, same[i].key), (long long)same[i].mine);
    if (!e && !yyjson_equals_str(its, precision))
        e = err_new(INVALID, "%s was made with precision %s, this form says %s", t->from, yyjson_get_str(its),
                    precision);
    return e ? err_hint(e, "go on with the form that it was begun with") : NULL;
}

static err resume(struct course *c)
{
    struct training_net *t = c->t;
    TRY(form_same(t));
    t->optim->pending = (int)whole(t->state, "pending");
    struct checkpoint_tensors all = tensors_of(t->a, t);
    TRY(checkpoint_load(t->from, &all));
    TRY(state_read(c, t->state, t->from));
    params_refresh(t->params);
    train_say(t->listener, "goes on from %s", t->from);
    return NULL;
}

/* ---- looking at the rows held out ---- */

static void batch_inputs(const struct training_net *t, const struct feed_batch *b, size_t n, const void **in)
{
    for (size_t i = 0; i < n; i++)
        in[i] = b->data[t->set.tensor[i]];
}

/* ---- indices that a table does not have ---- */

/* The input of the graph whose elements a value has, one by one; −1: it is made of more than that. */
static int input_behind(const struct graph *g, int id)
{
    static const int same[] = { OP_Cast, OP_Reshape, OP_Squeeze, OP_Unsqueeze, OP_Flatten, OP_Identity };
    enum { SAME = sizeof same / sizeof *same };
    while (value_at(g, id)->node >= 0) {
        const struct node *n = &g->nodes.v[value_at(g, id)->node];
        int i = 0;
        while (i < SAME && n->op != &op_table[same[i]])
            i++;
        if (i == SAME)
            return -1;
        id = n->in[0];
    }
    for (size_t i = 0; i < g->inputs.n; i++)
        if (g->inputs.v[i] == id)
            return (int)i;
    return -1;
}

/* The engine only counts them, and they read as zeros: which it was is looked for where one was met. */
static err bad_index(const struct training_net *t, const struct graph *g, const struct feed_batch *b,
                     struct str where, int64_t count)
{
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        int k = n->op == &op_table[OP_Gather] ? input_behind(g, n->in[1]) : -1;
        if (k < 0)
            continue;
        const struct loader_tensor *x = &t->set.t[t->set.tensor[k]];
        const struct value *table = value_at(g, n->in[0]);
        int64_t axis = attr_i(n, "axis", 0),
                size = table->shape.d[axis < 0 ? axis + table->shape.rank : axis];
        for (int64_t e = 0; e < b->rows * x->n; e++) {
            const void *from = b->data[x - t->set.t];
            double v = x->type == TENSOR_I64 ? (double)((const int64_t *)from)[e] : ((const float *)from)[e];
            if (size >= 0 && !(v >= (double)-size && v < (double)size))
                FAIL(INVALID,
                     "input '%.*s' has %.0f in row %lld of a batch %.*s, its table '%.*s' has %lld rows",
                     STR(x->name), v, (long long)(e / x->n + 1), STR(where), STR(table->name),
                     (long long)size);
        }
    }
    FAIL(INVALID, "%lld indices in a batch %.*s are outside of what they point into", (long long)count,
         STR(where));
}

static err evaluate(struct training_net *t, struct held *h, struct str what, struct measures *out)
{
    struct feed_batch b;
    const void *in[LOADER_TENSORS_MAX];
    struct run_report r;
    measuring_reset(t->measuring);
    TRY(feed_rewind(h->feed));
    for (;;) {
        TRY(feed_next(h->feed, &b));
        if (!b.rows)
            break;
        struct program *p = b.rows == h->rest_rows && h->rest ? h->rest : h->program;
        batch_inputs(t, &b, t->set.n_in, in);
        program_run(p, in, (uint64_t)t->with->seed, 0, &r);
        if (r.bad_indices)
            return bad_index(t, t->eval_net.g, &b, what, r.bad_indices);
        TRY(measuring_add(t->measuring, program_output(p, 0, NULL, NULL), b.data, b.rows));
        if (t->listener->stopped && t->listener->stopped(t->listener->arg))
            FAIL(CANCELLED, "stopped at step %lld", (long long)t->step);
    }
    measuring_end(t->measuring, out);
    return NULL;
}

static void tell(const struct training_net *t, const char *name, double v)
{
    if (t->listener->metric)
        t->listener->metric(t->listener->arg, name, t->step, v);
}

static err look(struct course *c, bool *better)
{
    struct training_net *t = c->t;
    auto_arena struct arena *a = arena_new(0);
    if (!t->valid.feed)
        return NULL;
    TRY(evaluate(t, &t->valid, S("of the rows held out"), &c->measures));
    struct buf b = buf_new(a);
    for (size_t i = 0; i < c->measures.n; i++) {
        tell(t, measure_name(a, "valid", c->measures.name[i]), c->measures.value[i]);
        buf_fmt(&b, ", %.*s %.5g", STR(c->measures.name[i]), c->measures.value[i]);
    }
    double v = measure_of(&c->measures, c->metric), least = t->with->early_stop.min_delta;
    *better = isnan(c->best) || (c->more ? v > c->best + least : v < c->best - least);
    if (*better) {
        c->best = v;
        c->best_step = t->step;
        c->best_measures = c->measures;
        c->stale = 0;
    } else {
        c->stale++;
    }
    train_say(t->listener, "epoch %lld, step %lld: %s %.5g%.*s%s", (long long)t->epoch, (long long)t->step,
              loss_name(&t->set.task), c->epoch_n ? c->epoch_sum / (double)c->epoch_n : NAN, STR(buf_get(&b)),
              *better ? "" : " (not better)");
    if (t->with->early_stop.patience > 0 && c->stale >= t->with->early_stop.patience) {
        train_say(t->listener, "%.*s has not become better %lld times: it stops", STR(c->metric),
                  (long long)c->stale);
        c->enough = true;
    }
    return NULL;
}

/* ---- the loop ---- */

/* What to do where numbers ran away. */
static err with_hint(const struct course *c, err e)
{
    const struct training_net *t = c->t;
    (void)checkpoints_wait(c->checkpoints);
    int64_t last = checkpoints_last(c->checkpoints);
    if (last < 0)
        return err_hint(
            e,
            "no checkpoint was made before; a smaller optimizer.rate, optimizer.clip: 1 or precision: fp32 may help");
    return err_hint(
        e,
        "the last good checkpoint is %s/checkpoints/step-%lld; a smaller optimizer.rate or optimizer.clip: 1 may help",
        t->job->dir, (long long)last);
}

static err bad_loss(const struct course *c, double loss)
{
    return with_hint(c, err_new(INVALID, "the loss became %s at step %lld", isnan(loss) ? "NaN" : "infinite",
                                (long long)c->t->step + 1));
}

static err step_judge(struct course *c, const struct feed_batch *b, const struct run_report *r)
{
    struct training_net *t = c->t;
    if (r->bad_indices)
        return bad_index(t, t->net.g, b, fmt(t->a, "at step %lld", (long long)t->step + 1), r->bad_indices);
    if (r->bad_label > 0)
        FAIL(INVALID, "step %lld: row %lld of its batch has a label that is no class of the model",
             (long long)t->step + 1, (long long)r->bad_label);
    if (r->overflow && t->optim_spec.loss_scaling && isfinite(r->loss)) {
        train_say(t->listener, "step %lld: a gradient overflowed, the step is left out; loss scale %g",
                  (long long)t->step + 1, t->optim->loss_scale);
        if (++c->overflows > OVERFLOWS_MAX)
            return bad_loss(c, INFINITY);
        return NULL;
    }
    c->overflows = 0;
    if (!isfinite(r->loss) || r->overflow)
        return bad_loss(c, isfinite(r->loss) ? INFINITY : r->loss);
    c->loss_sum += r->loss;
    c->loss_n++;
    c->epoch_sum += r->loss;
    c->epoch_n++;
    return NULL;
}

static void curve_point(struct course *c)
{
    struct training_net *t = c->t;
    int64_t every = t->steps / LOSS_POINTS > 0 ? t->steps / LOSS_POINTS : 1;
    if (t->step % every && t->step != t->steps)
        return;
    if (c->loss_n)
        tell(t, loss_name(&t->set.task), c->loss_sum / (double)c->loss_n);
    tell(t, "train.rate", schedule_rate(&t->optim_spec.schedule, t->rate, t->optim->step));
    c->loss_sum = 0;
    c->loss_n = 0;
}

static void progress_tell(struct course *c, double loss)
{
    struct training_net *t = c->t;
    int64_t now = mono_ns();
    if (!t->listener->progress || (t->step < t->steps && now - c->looked < LOOK_NS))
        return;
    c->looked = now;
    double seconds = (double)c->trained_ns / 1e9;
    struct train_progress p = { .step = t->step,
                                .steps = t->steps,
                                .epoch = t->epoch + 1 < t->epochs ? t->epoch + 1 : t->epochs,
                                .epochs = t->epochs,
                                .loss = c->epoch_n ? c->epoch_sum / (double)c->epoch_n : loss,
                                .rate = schedule_rate(&t->optim_spec.schedule, t->rate, t->optim->step),
                                .rows_per_second = seconds > 0 ? (double)c->rows_done / seconds : 0,
                                .waited = seconds > 0 ? c->waited / seconds : 0 };
    int64_t done = t->step - c->began;
    p.seconds_left = done > 0 ? seconds / (double)done * (double)(t->steps - t->step) : NAN;
    t->listener->progress(t->listener->arg, &p);
}

static err save(struct course *c, bool best)
{
    auto_arena struct arena *a = arena_new(0);
    struct checkpoint_tensors all = tensors_of(a, c->t);
    err e = checkpoints_save(c->checkpoints, c->t->step, &all, state_text(c, a), best);
    return e && e->code == INVALID ? with_hint(c, e) : e;
}

/* Running statistics start from numbers that no batch had, and momentum lets these fade slowly. So at first they are the plain
 * mean over the batches: batch k counts 1 / (k + 1), until that is what momentum gives it. r + (r' − r) / ((1 − momentum) (k + 1)),
 * r' being what the step has made of r. */
static bool statistics_warm(const struct training_net *t)
{
    return t->before && (1 - NET_MOMENTUM) * (double)(t->step + 1) < 1;
}

static void statistics_keep(const struct training_net *t)
{
    float *to = t->before;
    for (size_t i = 0; statistics_warm(t) && i < t->params->n_states; to += t->params->states[i++].n)
        memcpy(to, t->params->states[i].p, t->params->states[i].n * sizeof *to);
}

static void statistics_mean(const struct training_net *t)
{
    const float *from = t->before;
    double by = 1 / ((1 - NET_MOMENTUM) * (double)(t->step + 1));
    for (size_t i = 0; statistics_warm(t) && i < t->params->n_states; i++)
        for (size_t k = 0; k < t->params->states[i].n; k++, from++) {
            float *p = &t->params->states[i].p[k];
            *p = (float)((double)*from + ((double)*p - (double)*from) * by);
        }
}

static err step_make(struct course *c)
{
    struct training_net *t = c->t;
    struct feed_batch b;
    const void *in[LOADER_TENSORS_MAX];
    struct run_report r = { 0 };
    int64_t then = mono_ns();
    TRY(feed_next(t->feed, &b));
    batch_inputs(t, &b, (size_t)t->set.n_inputs, in);
    if (t->label) {
        net_label(&t->set.task, in[t->set.n_in], b.rows, t->label);
        in[t->set.n_in] = t->label; /* labels follow the inputs */
    }
    statistics_keep(t);
    t->optim->last = b.last || t->step + 1 == t->steps;
    program_train(t->program, in, (uint64_t)t->with->seed, (uint64_t)t->step, t->optim, &r);
    r.loss *= net_loss_unit(&t->set.task);
    statistics_mean(t);
    TRY(step_judge(c, &b, &r));
    c->trained_ns += mono_ns() - then;
    c->waited += (double)b.waited_ns / 1e9;
    c->rows_done += b.rows;
    t->step++;
    if (b.last)
        t->epoch++;
    curve_point(c);
    progress_tell(c, r.loss);
    int64_t look_every = t->with->evaluate_every, save_every = t->with->checkpoint.every;
    bool end = t->step == t->steps, better = false,
         looked = look_every ? t->step % look_every == 0 || end : b.last || end;
    if (looked)
        TRY(look(c, &better));
    if (b.last)
        c->epoch_sum = 0, c->epoch_n = 0;
    if ((looked && better) || (save_every ? t->step % save_every == 0 : b.last) || end || c->enough)
        TRY(save(c, looked && better));
    return NULL;
}

static err steps_run(struct course *c)
{
    struct training_net *t = c->t;
    c->began = t->step;
    while (t->step < t->steps && !c->enough) {
        TRY(step_make(c));
        if (t->listener->stopped && t->listener->stopped(t->listener->arg)) {
            TRY(save(c, false));
            TRY(checkpoints_wait(c->checkpoints));
            return err_hint(err_new(CANCELLED, "stopped after step %lld", (long long)t->step),
                            "--resume goes on from there");
        }
    }
    return checkpoints_wait(c->checkpoints);
}

/* The parameters of the best step, for what is exported. */
static err best_take(struct course *c)
{
    struct training_net *t = c->t;
    const char *path;
    struct str text;
    yyjson_val *state;
    if (!t->valid.feed || c->best_step == t->step || c->best_step == 0)
        return NULL;
    TRY(checkpoint_best(t->a, folder_of(t), &path));
    TRY(checkpoint_state(t->a, path, &text));
    TRY_AS(json_parse(t->a, text, &state), "%s/state.json", path);
    t->optim->pending = (int)whole(state, "pending");
    struct checkpoint_tensors all = tensors_of(t->a, t);
    TRY(checkpoint_load(path, &all));
    train_say(t->listener, "the model of step %lld is kept: %.*s %.6g", (long long)c->best_step,
              STR(c->metric), c->best);
    return NULL;
}

/* Rows that nothing was decided by, once, by the weights that are exported. */
static err test_look(struct training_net *t, struct measures *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct held test;
    struct buf b = buf_new(a);
    TRY(held_make(t, a, LOADER_TEST, &test));
    if (!test.feed)
        return NULL;
    TRY(evaluate(t, &test, S("of the rows of the test"), out));
    for (size_t i = 0; i < out->n; i++) {
        tell(t, measure_name(a, "test", out->name[i]), out->value[i]);
        buf_fmt(&b, ", %.*s %.5g", STR(out->name[i]), out->value[i]);
    }
    train_say(t->listener, "test: %lld rows%.*s", (long long)t->set.facts.rows[LOADER_TEST],
              STR(buf_get(&b)));
    return NULL;
}

static void checkpoints_end(void *c)
{
    checkpoints_close(c);
}

static void facts_write(const struct course *c, struct json *j)
{
    const struct training_net *t = c->t;
    struct program_facts f = program_facts(t->program);
    double seconds = (double)c->trained_ns / 1e9;
    int64_t learned = 0;
    for (size_t i = 0; i < t->params->count; i++)
        learned += (int64_t)t->params->v[i].n;
    json_ki64(j, "steps", t->step);
    json_ki64(j, "epochs", t->epoch);
    json_ki64(j, "bestStep", c->best_step);
    json_kf64(j, "trainSeconds", seconds);
    json_kf64(j, "rowsPerSecond", seconds > 0 ? (double)c->rows_done / seconds : 0);
    json_kf64(j, "waitedShare", seconds > 0 ? c->waited / seconds : 0);
    json_kf64(j, "gflopPerSecond", seconds > 0 ? f.flops * (double)(t->step - c->began) / seconds / 1e9 : 0);
    json_ki64(j, "trainRows", t->set.facts.rows[LOADER_TRAIN]);
    json_ki64(j, "validRows", t->set.facts.rows[LOADER_VALID]);
    json_ki64(j, "testRows", t->set.facts.rows[LOADER_TEST]);
    json_ki64(j, "notYetKnownRows", t->set.facts.unknown);
    times_write(j, t->set.facts.from, t->set.facts.split, t->set.facts.until);
    json_ki64(j, "parameters", learned);
    json_ki64(j, "batchSize", t->batch);
    json_kstr(j, "precision", str_of(train_precisions[t->precision + 1]));
    json_ki64(j, "threads", team_size(t->team));
    json_ki64(j, "skippedSteps", t->optim->skipped);
    json_ki64(j, "memoryPlanned", t->memory);
    json_ki64(j, "memoryPeak", rss_peak_bytes());
}

err train_network(struct arena *a, const struct train_job *job, const struct train_listener *l,
                  struct train_result *out)
{
    struct training_net t = { .a = a, .job = job, .with = job->with, .listener = l };
    struct course c = { .t = &t, .best = NAN };
    int64_t start = mono_ns();
    *out = (struct train_result){ 0 };
    TRY(set_up(&t));
    c.metric = measure_watched(&t.set, t.with->early_stop.metric, &c.more);
    say_start(&t);
    TRY(checkpoints_open(folder_of(&t), (int)t.with->checkpoint.keep, &c.checkpoints));
    arena_defer(a, checkpoints_end, c.checkpoints);
    if (t.from)
        TRY(resume(&c));
    train_say(l, "the first step begins after %.0f ms", (double)(mono_ns() - start) / 1e6);
    TRY(steps_run(&c));
    double seconds = (double)c.trained_ns / 1e9;
    train_say(l, "%lld steps in %.2f s, %.4g rows a second, %.1f %% of the time waiting for data",
              (long long)(t.step - c.began), seconds, seconds > 0 ? (double)c.rows_done / seconds : 0,
              seconds > 0 ? 100 * c.waited / seconds : 0);
    struct program_facts f = program_facts(t.program);
    if (seconds > 0) {
        tell(&t, "profile.rowsPerSecond", (double)c.rows_done / seconds);
        tell(&t, "profile.gflops", f.flops * (double)(t.step - c.began) / seconds / 1e9);
        tell(&t, "profile.waitedShare", c.waited / seconds);
    }
    tell(&t, "profile.memoryPlanned", (double)t.memory);
    tell(&t, "profile.memoryPeak", (double)rss_peak_bytes());
    if (t.with->profile)
        TRY(train_profile(&t, seconds, c.waited, out));
    struct measures test = { 0 };
    params_learned(t.params);
    TRY(best_take(&c));
    TRY(test_look(&t, &test));
    struct json j = json_new(a);
    json_obj(&j);
    facts_write(&c, &j);
    json_obj_end(&j);
    out->facts = json_get(&j);
    out->from = t.set.facts.from;
    out->split = t.set.facts.split;
    out->until = t.set.facts.until;
    out->train_rows = t.set.facts.rows[LOADER_TRAIN];
    out->valid_rows = t.set.facts.rows[LOADER_VALID];
    return train_export(&t, c.best_measures.n ? &c.best_measures : &c.measures, &test, out);
}
