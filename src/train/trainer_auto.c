// SPDX-License-Identifier: Apache-2.0
/* What is not said in the form, or said to be `auto`: batch size and precision, by short trials on parameters of their own. */
#include "train/trainer_internal.h"

#include <math.h>

enum {
    TIMED = 4,
    TRIAL_NS = 150000000 /* no further step after it */,
    BATCH_MIN = 32,
    BATCH_MAX = 65536,
    STEPS_LEAST = 16 /* of an epoch */
};
static const double step_seconds_max = 0.5; /* no size above it is tried */
static const double heavy_flops = 1e12;     /* a training below is over before a trial pays */

static int64_t batch_by_family(enum net_wants wants)
{
    return wants == WANTS_TABLE ? 256 : wants == WANTS_IMAGE ? 128 : wants == WANTS_STREAM ? 16 : 64;
}

/* Seconds of one step; TOO_LARGE if it does not fit. */
static err trial(const struct training_net *t, int64_t batch, enum precision precision, double *seconds,
                 double *flops)
{
    auto_arena struct arena *a = arena_new(0);
    struct params *params;
    struct optim *optim;
    struct program *program;
    struct feed *feed;
    struct feed_batch b;
    struct run_report r;
    const void *in[LOADER_TENSORS_MAX];
    struct program_options o = { .team = t->team,
                                 .rows = batch,
                                 .loss = t->net.loss,
                                 .precision = precision,
                                 .memory_max = train_budget(t) };
    struct optim_spec spec = { .kind = (enum optim_kind)t->with->optimizer.kind,
                               .rate = 1e-6,
                               .momentum = t->with->optimizer.momentum,
                               .beta1 = 0.9,
                               .beta2 = 0.999,
                               .epsilon = 1e-8,
                               .ema = t->with->optimizer.ema,
                               .loss_scaling = precision == PRECISION_F16 };
    struct feed_options f = { .part = LOADER_TRAIN, .rows = batch, .shuffle = true, .depth = -1 };
    TRY(params_new(a, &device_cpu, t->net.g, team_size(t->team), 1, &params));
    TRY(optim_new(a, params, &spec, &optim));
    spec.accumulate = (int)t->with->optimizer.accumulate; /* which a trial does not do, but the training */
    o.memory_beside = train_beside(t, &spec);
    TRY(program_new(a, t->net.g, params, &o, &program));
    TRY(feed_open(t->set.loader, a, &f, &feed));
    TRY(feed_next(feed, &b));
    for (int i = 0; i < t->set.n_inputs; i++)
        in[i] = b.data[t->set.tensor[i]];
    double best = INFINITY;
    int64_t start = mono_ns(), then, now = start;
    for (int i = 0; i <= TIMED && (i < 2 || now - start < TRIAL_NS); i++) {
        then = now;
        program_train(program, in, 1, (uint64_t)i, optim, &r);
        now = mono_ns();
        if (i > 0 && (double)(now - then) / 1e9 < best) /* the first one touches its memory */
            best = (double)(now - then) / 1e9;
    }
    *seconds = best;
    *flops = program_facts(program).flops;
    return NULL;
}

/* Sizes from BATCH_MIN up as far as they fit, or down until one does. The smallest that is within a tenth of the fastest is taken:
 * more steps an epoch learn more. */
static err batch_measure(struct training_net *t)
{
    int64_t rows = t->set.facts.rows[LOADER_TRAIN], sizes[16], n = 0, chosen = 0, b = BATCH_MIN;
    int64_t most = rows / STEPS_LEAST > BATCH_MIN ? rows / STEPS_LEAST : rows < BATCH_MIN ? 0 : BATCH_MIN;
    double per_second[16], flops, seconds = 0, best = 0;
    while (b <= most && b <= BATCH_MAX && seconds <= step_seconds_max / 2) {
        err e = trial(t, b, t->precision, &seconds, &flops);
        if (e && e->code != TOO_LARGE)
            return e;
        if (e && (n || b == 1))
            break;
        if (!e) {
            sizes[n] = b;
            per_second[n] = (double)b / seconds;
            best = fmax(best, per_second[n++]);
        }
        b = e ? b / 2 : b * 2;
    }
    if (!n)
        return NULL;
    for (int64_t i = n; i-- > 0;)
        if (per_second[i] >= 0.9 * best)
            chosen = i;
    t->batch = sizes[chosen];
    train_say(t->listener,
              "batch size %lld: %.4g rows a second; sizes from %lld to %lld were tried, the best is %.4g",
              (long long)t->batch, per_second[chosen], (long long)sizes[0], (long long)sizes[n - 1], best);
    return NULL;
}

/* A rate is meant for the usual batch: by the size for SGD, by its root for those that divide by a gradient's size. */
static void rate_scale(struct training_net *t, int64_t usual)
{
    double by = (double)t->batch / (double)usual, was = t->rate;
    t->rate *= t->with->optimizer.kind == OPTIM_SGD ? by : sqrt(by);
    train_say(t->listener, "rate %g instead of %g, for batches of %lld rows instead of %lld", t->rate, was,
              (long long)t->batch, (long long)usual);
}

/* What the form says; 0: it leaves it open. */
static err batch_read(const struct training_net *t, int64_t *batch, bool *asked)
{
    yyjson_val *v;
    int64_t rows = t->set.facts.rows[LOADER_TRAIN];
    TRY_AS(json_parse(t->a, t->with->batch_size, &v), "batchSize");
    *asked = yyjson_equals_str(v, "auto");
    *batch = yyjson_get_sint(v);
    if (!*asked && (!yyjson_is_int(v) || *batch < 0))
        return err_field(err_new(INVALID, "batchSize is a number of rows, or \"auto\""), S("batchSize"));
    if (*batch > rows)
        FAIL(INVALID, "batchSize is %lld, and there are %lld rows to learn from", (long long)*batch,
             (long long)rows);
    return NULL;
}

/* About 6 for each parameter and row, and as often as a kernel moves over its image: a guess from below. */
static double training_flops(const struct training_net *t)
{
    double rows = t->with->steps > 0 ? (double)t->with->steps * (double)t->batch
                                     : (double)t->with->epochs * (double)t->set.facts.rows[LOADER_TRAIN];
    double by_row = 0;
    for (size_t i = 0; i < t->net.g->nodes.n; i++) {
        const struct node *n = &t->net.g->nodes.v[i];
        const struct value *y = n->n_out && n->out[0] >= 0 ? value_at(t->net.g, n->out[0]) : NULL;
        const struct value *w = n->n_in > 1 && n->in[1] >= 0 ? value_at(t->net.g, n->in[1]) : NULL;
        if (!y || !w || w->kind != VALUE_PARAM || y->shape.rank < 2 || w->shape.rank < 2)
            continue;
        double places = 1;
        for (int k = 1; k < y->shape.rank; k++)
            places *= y->shape.d[k] > 0 && (w->shape.rank == 4 ? k >= 2 : k < y->shape.rank - 1)
                          ? (double)y->shape.d[k]
                          : 1;
        by_row += 6 * (double)shape_count(&w->shape) * places;
    }
    return by_row * rows;
}

static enum precision precision_named(yyjson_val *name)
{
    for (int i = PRECISION_F32; i <= PRECISION_F16; i++)
        if (yyjson_equals_str(name, train_precisions[i + 1]))
            return (enum precision)i;
    return PRECISION_F32;
}

static err precision_choose(struct training_net *t)
{
    double full, half, flops;
    t->precision = PRECISION_F32;
    if (t->with->precision != TRAIN_AUTO) {
        t->precision = (enum precision)(t->with->precision - 1);
        return NULL;
    }
    if (t->state) {
        t->precision = precision_named(yyjson_obj_get(t->state, "precision"));
        return NULL;
    }
    if (t->with->deterministic || net_wants(t->job->chosen) == WANTS_TABLE ||
        !device_multiplies(&device_cpu, TENSOR_BF16) || training_flops(t) < heavy_flops)
        return NULL;
    TRY(trial(t, t->batch, PRECISION_F32, &full, &flops));
    err e = trial(t, t->batch, PRECISION_BF16, &half, &flops);
    if (e) {
        train_say(t->listener, "precision fp32: bf16 cannot be had (%.*s)", STR(e->text));
        return NULL;
    }
    if (half < 0.9 * full)
        t->precision = PRECISION_BF16;
    train_say(t->listener, "precision %s: a step takes %.2f ms in fp32, %.2f ms in bf16",
              train_precisions[t->precision + 1], full * 1e3, half * 1e3);
    return NULL;
}

err train_choose(struct training_net *t)
{
    int64_t rows = t->set.facts.rows[LOADER_TRAIN], usual = batch_by_family(net_wants(t->job->chosen));
    bool asked;
    TRY(batch_read(t, &t->batch, &asked));
    while (usual > 1 && usual * 4 > rows)
        usual /= 2;
    if (!t->batch)
        t->batch = t->state ? yyjson_get_sint(yyjson_obj_get(t->state, "batchSize")) : usual;
    if (t->batch < 1)
        FAIL(INVALID, "%s says no size of a batch", t->from);
    TRY(precision_choose(t));
    if (asked && t->with->deterministic)
        train_say(t->listener, "batch size %lld: a deterministic training measures none", (long long)usual);
    if (!asked || t->with->deterministic)
        return NULL;
    if (!t->state)
        TRY(batch_measure(t));
    rate_scale(t, usual);
    return NULL;
}
