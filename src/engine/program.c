// SPDX-License-Identifier: Apache-2.0
#include "engine/program.h"
#include "engine/attention.h"
#include "engine/grad.h"
#include "engine/plan.h"
#include "engine/precision.h"
#include "engine/recompute.h"

/* What one rank runs: the graph of a part of its rows, its steps, its memory. */
struct share {
    int64_t from, rows; /* of the batch */
    const struct compiled *compiled;
    struct tensor *tensors;        /* by value */
    bool *fixed_output;            /* by source->outputs: its rows stand in program.outputs */
    char *arena;                   /* of values that are made on the way and die there */
    size_t arena_bytes, own_bytes; /* the second: of values that are read after the run */
    struct step *steps;
    struct rank rank;
    double loss;
    double *seconds; /* by step, if profiled */
};
/* A graph for one number of rows; ranks with equally many rows share it. */
struct compiled {
    int64_t rows;
    struct graph *g;
    struct memory_plan memory;
    int loss, seed, *grads; /* values; grads by params->v */
    int *sums; /* values: where a gradient stood before the run, in several parts; −1: nowhere */
    struct compiled *next;
};
struct program {
    struct arena *a;
    struct arena *plan; /* of graphs, steps and their memory: another one for each plan that is tried */
    const struct device_ops *device;
    const struct graph *source;
    struct params *params;
    struct program_options options;
    struct rows_plan rows;
    struct compiled *all;
    struct share *shares;
    int ranks;
    int parts;      /* that each rank's rows are cut into, one after the other in the same memory */
    bool whole;     /* a step must see all rows of its rank */
    int segments;   /* of activations that are computed again; 1: all that cost anything are kept */
    void **outputs; /* by source->outputs: all rows */
    float scale;    /* what the gradient of the loss starts from */
    size_t *output_bytes, scratch_bytes; /* the second: of each rank */
    int64_t runs;
    /* Of the run that is under way. */
    const void *const *inputs;
    struct optim *optim;
    struct run_report *report;
};

static int batch_symbol(const struct graph *g)
{
    for (size_t i = 0; i < g->symbols.n; i++)
        if (str_is(g->symbols.v[i], "batch"))
            return (int)i;
    return -1;
}

/* A size that nobody gives must not be guessed. */
static err sizes_known(const struct graph *g)
{
    for (size_t i = 0; i < g->inputs.n; i++) {
        const struct value *v = value_at(g, g->inputs.v[i]);
        for (int k = 0; k < v->shape.rank; k++)
            if (v->shape.d[k] < 0 && !str_is(g->symbols.v[-1 - v->shape.d[k]], "batch"))
                FAIL(INVALID, "input '%.*s': axis %d, '%.*s', has no size", STR(v->name), k,
                     STR(g->symbols.v[-1 - v->shape.d[k]]));
    }
    return NULL;
}

static int64_t *sizes_for(const struct program *p, struct arena *a, int64_t rows)
{
    const struct graph *g = p->source;
    int64_t *sizes = NEW_N(a, int64_t, g->symbols.n + 1);
    for (size_t i = 0; i < g->symbols.n; i++)
        sizes[i] = p->options.sizes ? p->options.sizes[i] : 1;
    if (batch_symbol(g) >= 0)
        sizes[batch_symbol(g)] = rows;
    return sizes;
}

/* The graph with its loss among the outputs, so that it outlives what nobody needs; the first outputs stay the first. */
static struct graph *with_loss(const struct graph *g, struct arena *a, int loss)
{
    struct graph *to = graph_new(a);
    *to = *g;
    to->outputs.v = NULL;
    to->outputs.n = to->outputs.cap = 0;
    for (size_t i = 0; i < g->outputs.n; i++)
        push(a, &to->outputs, g->outputs.v[i]);
    if (loss >= 0)
        push(a, &to->outputs, loss);
    return to;
}

/* ---- compiling ---- */

static err gradients(struct program *p, struct compiled *c)
{
    struct params *params = p->params;
    int *wrt = NEW_N(p->plan, int, params->count + 1), *grads = NEW_N(p->plan, int, params->count + 1);
    size_t n = 0;
    c->grads = NEW_N(p->plan, int, params->count + 1);
    for (size_t i = 0; i < params->count; i++) {
        c->grads[i] = -1;
        if (!params->v[i].frozen)
            wrt[n++] = params->v[i].value;
    }
    TRY(grad_build(c->g, c->loss, wrt, n, grads, &c->seed));
    for (size_t i = 0, k = 0; i < params->count; i++)
        if (!params->v[i].frozen)
            c->grads[i] = grads[k++];
    return NULL;
}

/* Two parameters with one gradient, or a gradient that is a parameter or an output: a node of its own gives it a place. */
static void own_gradients(struct program *p, struct compiled *c)
{
    for (size_t i = 0; i < p->params->count; i++) {
        int g = c->grads[i];
        if (g < 0)
            continue;
        bool taken = value_at(c->g, g)->kind != VALUE_NODE || g == c->loss;
        for (size_t k = 0; k < i && !taken; k++)
            taken = c->grads[k] == g;
        for (size_t k = 0; k < c->g->outputs.n && !taken; k++)
            taken = c->g->outputs.v[k] == g;
        if (taken)
            c->grads[i] = graph_node(c->g, OP_Identity, g);
    }
}

/* Several parts add up their gradients: each is added to what stands in its place, right behind the node that makes it, so that
 * nothing lives longer than before. */
static void summed_gradients(struct program *p, struct compiled *c)
{
    struct graph *g = c->g;
    const size_t before = g->nodes.n;
    c->sums = NEW_N(p->plan, int, p->params->count + 1);
    for (size_t i = 0; i < p->params->count; i++) {
        c->sums[i] = -1;
        if (c->grads[i] < 0)
            continue;
        struct value sum = *value_at(g, c->grads[i]);
        sum.name = S("gradient of the parts before");
        sum.kind = VALUE_INPUT;
        sum.node = -1;
        sum.data = NULL;
        push(g->a, &g->values, sum);
        c->sums[i] = (int)g->values.n - 1;
        c->grads[i] = graph_node(g, OP_Add, c->sums[i], c->grads[i]);
    }
    auto_arena struct arena *a = arena_new(0);
    struct node *v = NEW_N(a, struct node, g->nodes.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < before; i++) {
        v[n++] = g->nodes.v[i];
        for (size_t k = before; k < g->nodes.n; k++)
            if (value_at(g, g->nodes.v[k].in[1])->node == (int)i)
                v[n++] = g->nodes.v[k];
    }
    for (size_t k = before; k < g->nodes.n; k++)
        if (value_at(g, g->nodes.v[k].in[1])->node < 0)
            v[n++] = g->nodes.v[k];
    memcpy(g->nodes.v, v, n * sizeof *v);
    graph_renumber(g);
}

static err compile(struct program *p, int64_t rows, const struct compiled **out)
{
    for (struct compiled *c = p->all; c; c = c->next)
        if (c->rows == rows) {
            *out = c;
            return NULL;
        }
    struct compiled *c = NEW(p->plan, struct compiled);
    const struct program_options *o = &p->options;
    *c = (struct compiled){ .rows = rows, .loss = o->loss, .seed = -1, .next = p->all };
    TRY(graph_bind(p->source, p->plan, sizes_for(p, p->plan, rows), &c->g));
    TRY(attention_fuse(c->g));
    if (o->precision != PRECISION_F32)
        TRY(precision_lower(c->g, o->precision == PRECISION_BF16 ? TENSOR_BF16 : TENSOR_F16));
    size_t n_outputs = c->g->outputs.n, n_forward = c->g->nodes.n;
    if (o->loss >= 0) {
        push(c->g->a, &c->g->outputs, c->loss); /* what is asked for must outlive the rewrites */
        TRY(gradients(p, c));
        if (o->precision != PRECISION_F32)
            precision_gradients(c->g, c->grads, p->params->count);
        if (p->parts > 1)
            summed_gradients(p, c);
        else
            own_gradients(p, c);
        TRY(graph_recompute(c->g, n_forward, p->segments));
        for (size_t i = 0; i < p->params->count; i++)
            if (c->grads[i] >= 0)
                push(c->g->a, &c->g->outputs, c->grads[i]);
    }
    TRY(graph_error(c->g));
    graph_prune(c->g);
    if (p->device->lower)
        TRY(p->device->lower(c->g, o->loss >= 0));
    TRY(graph_error(c->g));
    graph_prune(c->g);
    bool *fixed = NEW_N(p->plan, bool, c->g->values.n + 1);
    for (size_t i = 0; i < c->g->values.n; i++)
        fixed[i] = c->g->values.v[i].kind != VALUE_NODE;
    for (size_t i = 0; i < n_outputs; i++)
        fixed[c->g->outputs.v[i]] = true;
    for (size_t i = 0; o->loss >= 0 && i < p->params->count; i++)
        if (c->grads[i] >= 0)
            fixed[c->grads[i]] = true;
    for (size_t i = 0; i < c->g->nodes.n; i++) /* the halves of parameters stand in params->half */
        if (precision_of_param(c->g, &c->g->nodes.v[i]))
            fixed[c->g->nodes.v[i].out[0]] = true;
    /* The loss and updates are read after the run. */
    if (o->loss >= 0)
        fixed[c->loss] = true;
    for (size_t i = 0; i < c->g->updates.n; i++)
        fixed[c->g->updates.v[i].from] = true;
    TRY(plan_memory(c->g, p->device, p->plan, fixed, &c->memory));
    p->all = c;
    *out = c;
    return NULL;
}

/* ---- places ---- */

static size_t bytes_of(const struct value *v)
{
    return (size_t)shape_count(&v->shape) * tensor_size(v->type);
}

/* Bytes of a value that belong to one row of the batch. */
static size_t row_bytes(const struct program *p, const struct share *s, int v)
{
    const int64_t rows = s->compiled->rows;
    return p->rows.split[v] && rows > 0 ? bytes_of(value_at(s->compiled->g, v)) / (size_t)rows : 0;
}

static void outputs_set(struct program *p, struct share *s, int64_t row)
{
    for (size_t i = 0; i < p->source->outputs.n; i++) {
        int v = p->source->outputs.v[i];
        if (s->fixed_output[i])
            s->tensors[v].p = (char *)p->outputs[i] + (size_t)row * row_bytes(p, s, v);
    }
}

/* An input or a constant that is handed through stays where it is. */
static void outputs_find(struct program *p, struct share *s)
{
    s->fixed_output = NEW_N(p->plan, bool, p->source->outputs.n + 1);
    for (size_t i = 0; i < p->source->outputs.n; i++) {
        int v = p->source->outputs.v[i];
        s->fixed_output[i] = !s->tensors[v].p && p->rows.split[v];
    }
}

static bool in_outputs(const struct program *p, const struct share *s, int v)
{
    for (size_t i = 0; i < p->source->outputs.n; i++)
        if (p->source->outputs.v[i] == v && s->fixed_output[i])
            return true;
    return false;
}

static void param_places(struct program *p, struct share *s, int index)
{
    const struct graph *g = s->compiled->g;
    for (size_t i = 0; i < p->params->count; i++) {
        struct param *q = &p->params->v[i];
        s->tensors[q->value].p = p->params->w + q->at;
        if (s->compiled->grads && s->compiled->grads[i] >= 0)
            s->tensors[s->compiled->grads[i]].p = p->params->grads[index] + q->at;
        if (s->compiled->sums && s->compiled->sums[i] >= 0)
            s->tensors[s->compiled->sums[i]].p = p->params->grads[index] + q->at;
        for (size_t k = 0; k < g->nodes.n && p->params->half; k++)
            if (precision_of_param(g, &g->nodes.v[k]) && g->nodes.v[k].in[0] == q->value)
                s->tensors[g->nodes.v[k].out[0]].p = p->params->half + q->at;
    }
    for (size_t i = 0; i < p->params->n_states; i++)
        s->tensors[p->params->states[i].value].p = p->params->states[i].p;
}

/* Views of what lies elsewhere: of inputs, of parameters, of outputs, … */
static void views_set(struct share *s)
{
    const struct memory_plan *m = &s->compiled->memory;
    for (size_t i = 0; i < s->compiled->g->values.n; i++)
        if (m->at[i].home == HOME_FIXED && m->at[i].root != (int)i)
            s->tensors[i].p = s->tensors[m->at[i].root].p;
}

/* Activations may lie where those of a program lie that never runs at the same time. NULL: it has not as much. */
static char *lent(const struct program *p, int index)
{
    const struct program *by = p->options.turns;
    return by && index < by->ranks && by->shares[index].arena_bytes >= p->shares[index].arena_bytes
               ? by->shares[index].arena
               : NULL;
}

static err block_new(const struct program *p, size_t bytes, const char *what, void **out)
{
    auto_arena struct arena *a = arena_new(0);
    *out = device_block(p->plan, p->device, bytes + 64);
    if (!*out)
        return err_hint(err_new(TOO_LARGE, "there is no memory left for %s: %.*s", what,
                                STR(size_about(a, (int64_t)bytes))),
                        "a smaller batch or bf16 needs less");
    return NULL;
}

static size_t own_bytes(const struct value *v)
{
    return (bytes_of(v) + 63) / 64 * 64;
}

/* Whether memory of its own is there for a value that is read after the run, and whose place nobody gives. */
static bool is_own(const struct program *p, const struct share *s, int v)
{
    const struct place *at = &s->compiled->memory.at[v];
    return value_at(s->compiled->g, v)->kind == VALUE_NODE && at->home == HOME_FIXED && at->root == v &&
           !s->tensors[v].p && s->tensors[v].n >= 0 && !in_outputs(p, s, v);
}

/* All but the memory, which is taken once a plan is chosen: kernels are bound to tensors, not to where they lie. */
static void tensors_new(struct program *p, struct share *s, int index)
{
    const struct compiled *c = s->compiled;
    const struct graph *g = c->g;
    s->tensors = NEW_N(p->plan, struct tensor, g->values.n + 1);
    for (size_t i = 0; i < g->values.n; i++) {
        const struct value *v = &g->values.v[i];
        struct tensor *t = &s->tensors[i];
        *t = (struct tensor){ .type = v->type,
                              .nhwc = v->nhwc,
                              .rank = v->shape.rank < 0 ? 0 : v->shape.rank,
                              .n = shape_count(&v->shape) };
        memcpy(t->d, v->shape.d, sizeof t->d);
        if (v->kind == VALUE_CONST)
            t->p = (void *)v->data;
    }
    param_places(p, s, index);
    if (c->seed >= 0)
        s->tensors[c->seed].p = &p->scale;
    outputs_find(p, s);
    s->arena_bytes = c->memory.bytes;
    s->own_bytes = 0;
    for (size_t i = 0; i < g->values.n; i++)
        s->own_bytes += is_own(p, s, (int)i) ? own_bytes(&g->values.v[i]) : 0;
}

static err tensors_place(struct program *p, struct share *s)
{
    const struct compiled *c = s->compiled;
    const struct graph *g = c->g;
    void *own;
    outputs_set(p, s, s->from);
    s->arena = lent(p, s->rank.index);
    if (!s->arena)
        TRY(block_new(p, s->arena_bytes, "activations", (void **)&s->arena));
    TRY(block_new(p, s->own_bytes, "results", &own));
    for (size_t i = 0; i < g->values.n; i++) {
        struct tensor *t = &s->tensors[i];
        if (g->values.v[i].kind == VALUE_NODE && t->n >= 0 && c->memory.at[i].home == HOME_ARENA)
            t->p = s->arena + c->memory.at[i].offset;
        else if (is_own(p, s, (int)i)) {
            t->p = own;
            own = (char *)own + own_bytes(&g->values.v[i]);
        }
    }
    views_set(s);
    return block_new(p, p->scratch_bytes, "kernels", &s->rank.scratch);
}

static err steps_new(struct program *p, struct share *s)
{
    const struct graph *g = s->compiled->g;
    s->steps = NEW_N(p->plan, struct step, g->nodes.n + 1);
    s->seconds = p->options.profile ? NEW_N(p->plan, double, g->nodes.n + 1) : NULL;
    for (size_t i = 0; i < g->nodes.n; i++) {
        const struct node *n = &g->nodes.v[i];
        struct step *step = &s->steps[i];
        *step = (struct step){ .op = n->op, .name = n->name, .n_in = n->n_in, .n_out = n->n_out };
        step->in = NEW_N(p->plan, struct tensor *, n->n_in + 1);
        step->out = NEW_N(p->plan, struct tensor *, n->n_out + 1);
        for (int k = 0; k < n->n_in; k++)
            if (n->in[k] >= 0)
                step->in[k] = &s->tensors[n->in[k]];
        for (int k = 0; k < n->n_out; k++)
            if (n->out[k] >= 0)
                step->out[k] = &s->tensors[n->out[k]];
        for (int k = 0; k < n->n_in; k++)
            step->bytes += step->in[k] ? (double)step->in[k]->n * (double)tensor_size(step->in[k]->type) : 0;
        for (int k = 0; k < n->n_out; k++)
            step->bytes += step->out[k] ? (double)step->out[k]->n * (double)tensor_size(step->out[k]->type)
                                        : 0;
        if (precision_of_param(g, n)) {
            step->run = NULL;
            continue;
        }
        struct bind b = { .a = p->plan,
                          .g = g,
                          .n = n,
                          .step = step,
                          .rows = s->compiled->rows,
                          .rows_rank = s->rows,
                          .rows_all = p->options.rows };
        TRY(p->device->bind(&b));
        p->whole |= step->whole;
        if (step->scratch > p->scratch_bytes)
            p->scratch_bytes = step->scratch;
    }
    return NULL;
}

/* Kernels' in[] stay valid: only the tensor's pointer moves. */
static void inputs_set(struct program *p, struct share *s, int64_t row)
{
    const struct graph *g = p->source;
    for (size_t i = 0; i < g->inputs.n; i++) {
        int v = g->inputs.v[i];
        s->tensors[v].p = (char *)p->inputs[i] + (size_t)row * row_bytes(p, s, v);
    }
}

/* ---- making ---- */

/* Compiles, lays out and binds for all ranks, and says how many bytes a step needs. None of them is taken yet. */
static err make(struct program *p, int parts, int segments, int64_t *need)
{
    p->parts = parts;
    p->segments = segments;
    p->all = NULL;
    p->scratch_bytes = 0;
    arena_free(p->plan);
    p->plan = arena_new(0);
    for (int i = 0; i < p->ranks; i++) {
        TRY(compile(p, p->shares[i].rows / parts, &p->shares[i].compiled));
        tensors_new(p, &p->shares[i], i);
        TRY(steps_new(p, &p->shares[i]));
    }
    struct program_facts f = program_facts(p);
    *need = f.memory_params + f.memory + p->options.memory_beside;
    return NULL;
}

static err over_budget(const struct program *p, int64_t need)
{
    auto_arena struct arena *a = arena_new(0);
    return err_hint(err_new(TOO_LARGE, "%s of %lld rows needs %.*s in all, and the budget is %.*s",
                            p->options.loss < 0 ? "a look" : "a step", (long long)p->options.rows,
                            STR(size_about(a, need)), STR(size_text(a, p->options.memory_max))),
                    "a smaller batch or bf16 needs less");
}

enum {
    /* What a part leaves behind for its way back should be found in a second-level cache, */
    PART_BYTES = 2 << 20,
    /* but each part reads all weights and adds to all gradients: so many uses of a weight pay for that, */
    PART_USES = 450,
    /* and so many where there is no memory for more. Computing again would cost a third of a step. */
    PART_USES_LEAST = 64,
};

/* The next larger number of parts that cuts each rank's rows evenly; 0: there is none. */
static int parts_next(const struct program *p, int parts)
{
    for (int64_t n = parts + 1; n <= p->shares[0].rows; n++) {
        bool even = true;
        for (int i = 0; i < p->ranks && even; i++)
            even = p->shares[i].rows % n == 0;
        if (even)
            return (int)n;
    }
    return 0;
}

/* How many parts each rank's rows are cut into, made in one. least: uses of a weight by a part; enough: bytes. */
static int parts_wanted(const struct program *p, double least, size_t enough)
{
    const double uses = program_facts(p).flops / p->ranks / (6.0 * (double)(p->params->n + 1));
    size_t bytes = 0;
    for (int i = 0; i < p->ranks; i++)
        bytes += p->shares[i].arena_bytes / (size_t)p->ranks;
    int parts = 1;
    for (int n; bytes / (size_t)parts > enough && (n = parts_next(p, parts)) > 0 && uses / n >= least;)
        parts = n;
    return parts;
}

/* Keeps all activations if the budget allows: of all rows, or of smaller parts; else computes them again in ever more segments
 * until it does. */
static err plan_within(struct program *p)
{
    const int64_t budget = p->options.memory_max;
    int64_t need, least;
    int best = 1, parts = 1;
    TRY(make(p, 1, 1, &need));
    const bool cut = p->options.loss >= 0 && !p->options.one_part && p->rows.ranks_ok && !p->whole &&
                     p->source->updates.n == 0;
    if (cut)
        parts = parts_wanted(p, PART_USES, PART_BYTES);
    const int most = cut && budget > 0 ? parts_wanted(p, PART_USES_LEAST, 0) : parts;
    if (parts > 1)
        TRY(make(p, parts, 1, &need));
    for (least = need; budget > 0 && need > budget && parts < most; least = need < least ? need : least)
        TRY(make(p, parts = parts_next(p, parts), 1, &need));
    if (!p->options.recompute && (budget <= 0 || need <= budget))
        return NULL;
    for (int segments = 2; segments <= 64 && p->options.loss >= 0; segments *= 2) {
        TRY(make(p, parts, segments, &need));
        if (need < least)
            least = need, best = segments;
        if (budget > 0 && need <= budget)
            return NULL;
    }
    if (budget > 0)
        return over_budget(p, least);
    return make(p, parts, best, &need);
}

static void plan_free(void *arg)
{
    struct program *p = arg;
    arena_free(p->plan);
}

static void shares_cut(struct program *p)
{
    for (int i = 0; i < p->ranks; i++) {
        p->shares[i].from = p->options.rows * i / p->ranks;
        p->shares[i].rows = p->options.rows * (i + 1) / p->ranks - p->shares[i].from;
        p->shares[i].rank = (struct rank){
            .team = p->options.team, .index = i, .size = p->ranks, .first = p->shares[i].from
        };
    }
}

static err outputs_plan(struct program *p)
{
    const struct graph *g = p->source;
    p->outputs = NEW_N(p->a, void *, g->outputs.n + 1);
    p->output_bytes = NEW_N(p->a, size_t, g->outputs.n + 1);
    struct graph *whole;
    TRY(graph_bind(g, p->a, sizes_for(p, p->a, p->options.rows), &whole));
    for (size_t i = 0; i < g->outputs.n; i++)
        p->output_bytes[i] = bytes_of(value_at(whole, g->outputs.v[i]));
    return NULL;
}

/* The memory of the plan that was chosen. */
static err memory_take(struct program *p)
{
    for (size_t i = 0; i < p->source->outputs.n; i++)
        TRY(block_new(p, p->output_bytes[i], "outputs", &p->outputs[i]));
    for (int i = 0; i < p->ranks; i++)
        TRY(tensors_place(p, &p->shares[i]));
    return NULL;
}

err program_new(struct arena *a, const struct graph *g, struct params *params,
                const struct program_options *options, struct program **out)
{
    struct program *p = NEW(a, struct program);
    *p = (struct program){ .a = a,
                           .device = params->device,
                           .source = with_loss(g, a, options->loss),
                           .params = params,
                           .options = *options,
                           .scale = 1 };
    TRY(graph_error(g));
    if (!options->sizes)
        TRY(sizes_known(g));
    if (options->rows < 1)
        FAIL(INVALID, "a batch of %lld rows", (long long)options->rows);
    int want = options->ranks > 0 ? options->ranks : team_size(options->team);
    want = want < team_size(options->team) ? want : team_size(options->team);
    want = options->loss >= 0 && want > params->ranks ? params->ranks : want;
    TRY(plan_rows(p->source, a, sizes_for(p, a, options->rows), batch_symbol(g), &p->rows));
    p->ranks = !p->rows.ranks_ok || want < 1 ? 1 : options->rows < want ? (int)options->rows : want;
    p->shares = arena_alloc(a, arena_mul((size_t)p->ranks, sizeof *p->shares), 64);
    shares_cut(p);
    if (options->precision != PRECISION_F32)
        TRY(params_half(params, a, options->precision == PRECISION_BF16 ? TENSOR_BF16 : TENSOR_F16));
    TRY(outputs_plan(p));
    arena_defer(a, plan_free, p);
    TRY(plan_within(p));
    TRY(memory_take(p));
    *out = p;
    return NULL;
}

/* ---- running ---- */

static void share_run(struct program *p, struct share *s)
{
    const struct step *steps = s->steps;
    size_t n = s->compiled->g->nodes.n;
    if (!s->seconds) {
        for (size_t i = 0; i < n; i++)
            if (steps[i].run)
                steps[i].run(&steps[i], &s->rank);
        return;
    }
    int64_t then = mono_ns(), now;
    for (size_t i = 0; i < n; i++, then = now) {
        if (steps[i].run)
            steps[i].run(&steps[i], &s->rank);
        now = mono_ns();
        s->seconds[i] += (double)(now - then) * 1e-9;
    }
    (void)p;
}

static void states_update(struct program *p, struct share *s)
{
    const struct graph *g = s->compiled->g;
    for (size_t i = 0; i < g->updates.n && !p->options.frozen_states; i++) {
        const struct tensor *from = &s->tensors[g->updates.v[i].from],
                            *to = &s->tensors[g->updates.v[i].state];
        memcpy(to->p, from->p, (size_t)to->n * tensor_size(to->type));
    }
}

static void rank_main(void *arg, int index)
{
    struct program *p = arg;
    struct share *s = &p->shares[index];
    s->loss = 0;
    if (p->parts > 1)
        memset(p->params->grads[index], 0, p->params->n * sizeof(float));
    for (int i = 0; i < p->parts; i++) {
        s->rank.row = s->from + i * s->compiled->rows;
        inputs_set(p, s, s->rank.row);
        outputs_set(p, s, s->rank.row);
        views_set(s);
        share_run(p, s);
        if (p->options.loss < 0)
            continue;
        const struct tensor *loss = &s->tensors[s->compiled->loss];
        s->loss += loss->type == TENSOR_F64 ? *(double *)loss->p : *(float *)loss->p;
    }
    if (!p->optim)
        return;
    if (s->compiled->g->updates.n > 0) {
        team_barrier(&s->rank); /* others may still read the states */
        if (index == 0)
            states_update(p, s);
    }
    optim_apply(p->optim, &s->rank, p->report);
}

static void run(struct program *p, const void *const *inputs, uint64_t seed, uint64_t draw, struct optim *o,
                struct run_report *out)
{
    struct run_report nobody;
    *(out ? out : &nobody) = (struct run_report){ 0 };
    p->inputs = inputs;
    p->optim = o;
    p->report = out ? out : &nobody;
    p->scale = o ? (float)o->loss_scale : 1;
    p->runs++;
    for (int i = 0; i < p->ranks; i++) {
        struct rank *r = &p->shares[i].rank;
        r->seed = seed, r->draw = draw, r->overflow = false, r->bad_indices = 0;
        r->bad_label = 0;
    }
    team_run(p->options.team, p->ranks, rank_main, p);
    for (int i = 0; i < p->ranks; i++) {
        p->report->loss += p->shares[i].loss;
        p->report->bad_indices += p->shares[i].rank.bad_indices;
        if (!p->report->bad_label)
            p->report->bad_label = p->shares[i].rank.bad_label;
    }
}

void program_run(struct program *p, const void *const *inputs, uint64_t seed, uint64_t draw,
                 struct run_report *out)
{
    run(p, inputs, seed, draw, NULL, out);
}

void program_train(struct program *p, const void *const *inputs, uint64_t seed, uint64_t draw,
                   struct optim *o, struct run_report *out)
{
    run(p, inputs, seed, draw, o, out);
}

const void *program_output(const struct program *p, int i, enum tensor_type *type, struct shape *shape)
{
    int v = p->source->outputs.v[i];
    const struct share *s = &p->shares[0];
    const struct value *like = value_at(s->compiled->g, v);
    bool cut = p->rows.split[v] && s->compiled->rows > 0;
    if (type)
        *type = like->type;
    if (shape) {
        *shape = like->shape;
        if (cut)
            shape->d[0] = shape->d[0] / s->compiled->rows * p->options.rows;
    }
    return cut ? p->outputs[i] : s->tensors[v].p;
}

/* ---- facts ---- */

struct program_facts program_facts(const struct program *p)
{
    struct program_facts f = { .ranks = p->ranks,
                               .rows = p->options.rows,
                               .by_rows = p->rows.apart,
                               .parts = p->parts,
                               .segments = p->segments,
                               .steps = p->shares[0].compiled->g->nodes.n };
    f.memory = (int64_t)(p->scratch_bytes * (size_t)p->ranks);
    for (size_t i = 0; i < p->source->outputs.n; i++)
        f.memory += (int64_t)p->output_bytes[i];
    for (int i = 0; i < p->ranks; i++)
        f.memory += (int64_t)((lent(p, i) ? 0 : p->shares[i].arena_bytes) + p->shares[i].own_bytes);
    f.memory_params = (int64_t)(p->params->n * sizeof(float)) * (1 + (p->options.loss >= 0 ? p->ranks : 0));
    if (p->options.precision != PRECISION_F32)
        f.memory_params += (int64_t)(p->params->n * sizeof(uint16_t));
    for (int i = 0; i < p->ranks; i++)
        for (size_t k = 0; k < p->shares[i].compiled->g->nodes.n; k++)
            f.flops += p->shares[i].steps[k].flops * p->parts;
    return f;
}

static struct str step_shapes(struct arena *a, const struct step *s)
{
    struct buf b = buf_new(a);
    for (int i = 0; i < s->n_in + 1; i++) {
        const struct tensor *t = i < s->n_in ? s->in[i] : s->n_out > 0 ? s->out[0] : NULL;
        if (!t)
            continue;
        buf_str(&b, i == 0 ? S("[") : i == s->n_in ? S(" → [") : S(" × ["));
        for (int k = 0; k < t->rank; k++)
            buf_fmt(&b, k ? ",%lld" : "%lld", (long long)t->d[k]);
        buf_str(&b, S("]"));
    }
    return buf_get(&b);
}

size_t program_times(const struct program *p, struct arena *a, const struct step_time **out)
{
    const struct share *s = &p->shares[0];
    size_t n = s->seconds ? s->compiled->g->nodes.n : 0;
    struct step_time *v = NEW_N(a, struct step_time, n + 1);
    for (size_t i = 0; i < n; i++)
        v[i] = (struct step_time){ s->steps[i].name,
                                   s->steps[i].op,
                                   s->seconds[i],
                                   s->steps[i].flops * p->parts,
                                   s->steps[i].bytes * p->parts,
                                   p->runs,
                                   step_shapes(a, &s->steps[i]) };
    *out = v;
    return n;
}
