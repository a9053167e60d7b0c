// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

/* One training under way. */
struct fitting {
    struct arena *a;
    const struct rows *rows;
    const struct rows_split *split;
    const struct trees_with *with;
    const struct fit_goal *goal;
    const struct objective *objective;
    const struct fit_watch *watch;
    struct xgb *xgb;
    struct xgb_data *train, *valid, *test; /* test: NULL if there is none */
    size_t outputs;                        /* numbers of a row */
    struct xgb_model *model;
    float *checked; /* rows held out that our reading of the model is checked with */
    int threads;
    struct fit *out;
};
enum { CHECKED = 1000 };

/* XGBoost's words for what is learned. loss: how it measures it; NULL: it does not. */
static const struct objective {
    enum meter_task task;
    enum loss_kind kind;
    const char *name, *loss;
} objectives[] = {
    { METER_BINARY, LOSS_CROSS_ENTROPY, "binary:logistic", "logloss" },
    { METER_CLASSES, LOSS_CROSS_ENTROPY, "multi:softprob", "mlogloss" },
    { METER_NUMBERS, LOSS_MSE, "reg:squarederror", "rmse" },
    { METER_NUMBERS, LOSS_MAE, "reg:absoluteerror", "mae" },
    { METER_NUMBERS, LOSS_HUBER, "reg:pseudohubererror", "mphe" },
    { METER_RANKING, LOSS_PAIRWISE, "rank:pairwise", NULL },
};

static const struct objective *objective_of(const struct fit_goal *g)
{
    size_t i = 0;
    while (objectives[i].task != g->task || (g->task == METER_NUMBERS && objectives[i].kind != g->loss))
        i++;
    return &objectives[i];
}

static err params_set(struct fitting *f, double base_score)
{
    const struct trees_with *w = f->with;
    struct arena *a = f->a;
    const struct {
        const char *name, *value;
    } params[] = {
        { "objective", f->objective->name },
        { "num_class", f->outputs > 1 ? fmtz(a, "%zu", f->outputs) : NULL },
        { "huber_slope", f->objective->kind == LOSS_HUBER ? fmtz(a, "%.9g", f->goal->delta) : NULL },
        { "eval_metric", f->objective->loss },
        { "tree_method", "hist" },
        { "base_score", fmtz(a, "%.9g", base_score) },
        { "max_depth", fmtz(a, "%lld", (long long)w->depth) },
        { "eta", fmtz(a, "%.9g", w->learning_rate) },
        { "subsample", fmtz(a, "%.9g", w->subsample) },
        { "colsample_bytree", fmtz(a, "%.9g", w->columns) },
        { "min_child_weight", fmtz(a, "%.9g", w->min_child_weight) },
        { "lambda", fmtz(a, "%.9g", w->l2) },
        { "max_bin", fmtz(a, "%lld", (long long)w->bins) },
        { "seed", fmtz(a, "%lld", (long long)w->seed) },
        { "nthread", fmtz(a, "%d", f->threads) },
        { "verbosity", "0" },
    };
    for (size_t i = 0; i < sizeof params / sizeof *params; i++)
        if (params[i].value)
            TRY(xgb_model_set(f->model, params[i].name, params[i].value));
    return NULL;
}

/* ---- where the first tree starts from ---- */

static double weight_at(const struct fit_goal *g, size_t i)
{
    return g->weight ? (double)g->weight[i] : 1;
}

static double mean_label(const struct fit_goal *g, const float *y, size_t n)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        sum += weight_at(g, i) * (double)y[i];
        all += weight_at(g, i);
    }
    return sum / all;
}

/* The least label that half of the weight does not pass. */
static double median_label(const struct fit_goal *g, const float *y, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    float *sorted = NEW_N(a, float, n);
    uint32_t *rows = NEW_N(a, uint32_t, n);
    double all = 0, sum = 0;
    size_t i;
    memcpy(sorted, y, n * sizeof *y);
    for (i = 0; i < n; i++) {
        rows[i] = (uint32_t)i;
        all += weight_at(g, i);
    }
    sort_floats(a, sorted, rows, n);
    for (i = 0; i + 1 < n && (sum += weight_at(g, rows[i])) < all / 2; i++)
        ;
    return (double)sorted[i];
}

/* Given, as 1.7 would start at one half and later versions at an estimate. */
static err start_of(const struct fitting *f, double *out)
{
    const struct fit_goal *g = f->goal;
    const float *y = f->rows->y;
    size_t n = f->split->train;
    *out = 0;
    if (g->task == METER_BINARY || (g->task == METER_NUMBERS && g->loss == LOSS_MSE))
        *out = mean_label(g, y, n);
    else if (g->task == METER_NUMBERS)
        *out = median_label(g, y, n);
    if (isnan(*out) || (g->task == METER_BINARY && !(*out > 0 && *out < 1)))
        FAIL(INVALID, "the weights leave nothing to learn from%s",
             g->task == METER_BINARY ? " but one class" : "");
    return NULL;
}

/* ---- bins ---- */

/* n sorted values → at most `bins` of them, each once: all that differ, or those at even ranks. */
static size_t edges_find(const float *sorted, size_t n, size_t bins, float *out)
{
    size_t found = 0;
    for (size_t i = 0; i < n && found <= bins; i++)
        if (i == 0 || sorted[i] > sorted[i - 1]) {
            if (found < bins)
                out[found] = sorted[i];
            found++;
        }
    if (found <= bins)
        return found;
    found = 0;
    for (size_t i = 0; i < bins; i++) {
        float v = sorted[i * (n - 1) / (bins - 1)];
        if (found == 0 || v > out[found - 1])
            out[found++] = v;
    }
    return found;
}

/* Where the bins of a feature begin is a matter of its distribution, which a sample tells as well as all rows: a bin of 256 then
 * holds 0.39 % ± 0.02 % of them. XGBoost takes a microsecond for four values to find that; here they are sorted, and what it gets
 * is a table of the edges alone. */
static err edges_make(struct fitting *f, struct arena *a, const float *x, size_t n, struct xgb_data **out)
{
    auto_arena struct arena *scratch = arena_new(0);
    size_t width = f->rows->features, bins = (size_t)f->with->bins;
    float *sorted = NEW_N(scratch, float, n), *edges = NEW_N(scratch, float, bins);
    float *table = NEW_N(scratch, float, arena_mul(bins, width));
    for (size_t c = 0; c < width; c++) {
        auto_arena struct arena *sorting = arena_new(0);
        size_t have = 0;
        for (size_t i = 0; i < n; i++)
            if (!isnan(x[i * width + c]))
                sorted[have++] = x[i * width + c] + 0.0f; /* no −0: it equals 0 but sorts before it */
        sort_floats(sorting, sorted, NULL, have);
        have = edges_find(sorted, have, bins, edges);
        for (size_t i = 0; i < bins; i++)
            table[i * width + c] = i < have ? edges[i] : NAN;
    }
    return xgb_bins_new(f->xgb, a, &(struct xgb_table){ .x = table, .n = bins, .features = width }, (int)bins,
                        f->threads, NULL, out);
}

static err binned(struct fitting *f, const struct xgb_table *t, struct xgb_data **out)
{
    auto_arena struct arena *sampled = arena_new(0), *scratch = arena_new(0);
    struct xgb_data *edges = NULL;
    size_t n;
    const float *some = rows_sample(sampled, t->x, t->n, t->features, &n);
    if (n < t->n)
        TRY(edges_make(f, scratch, some, n, &edges));
    arena_reset(sampled);
    return xgb_bins_new(f->xgb, f->a, t, (int)f->with->bins, f->threads, edges, out);
}

/* How many rows each group has of those given. */
static const unsigned *groups_count(struct arena *a, const int64_t *group, size_t n, size_t *out)
{
    unsigned *sizes = NEW_N(a, unsigned, n);
    *out = 0;
    for (size_t i = 0; i < n; i++)
        sizes[i && group[i] == group[i - 1] ? *out - 1 : (*out)++]++;
    return sizes;
}

/* n rows from `from` on. */
static struct xgb_table table_of(const struct fitting *f, struct arena *a, size_t from, size_t n)
{
    const struct rows *r = f->rows;
    const struct fit_goal *g = f->goal;
    struct xgb_table t = { .x = r->x + from * r->features,
                           .y = r->y + from,
                           .n = n,
                           .features = r->features,
                           .weight = g->weight ? g->weight + from : NULL };
    if (g->task == METER_RANKING)
        t.groups = groups_count(a, g->group + from, n, &t.n_groups);
    return t;
}

static err fitting_start(struct fitting *f)
{
    auto_arena struct arena *scratch = arena_new(0);
    const struct rows_split *s = f->split;
    const struct xgb_table learn = table_of(f, scratch, 0, s->train),
                           held = table_of(f, scratch, s->train, s->valid),
                           test = table_of(f, scratch, s->train + s->valid, s->test);
    int bins = (int)f->with->bins;
    double start;
    TRY(start_of(f, &start));
    TRY_AS(binned(f, &learn, &f->train), "binning");
    TRY_AS(xgb_bins_new(f->xgb, f->a, &held, bins, f->threads, f->train, &f->valid), "binning");
    if (s->test)
        TRY_AS(xgb_bins_new(f->xgb, f->a, &test, bins, f->threads, f->train, &f->test), "binning");
    size_t checked = (held.n < CHECKED ? held.n : CHECKED) * held.features;
    f->checked = NEW_N(f->a, float, checked + 1);
    memcpy(f->checked, held.x, checked * sizeof *held.x);
    if (f->watch->binned)
        f->watch->binned(f->watch->arg);
    TRY(xgb_model_new(f->xgb, f->a, (struct xgb_data *const[]){ f->train, f->valid }, 2, &f->model));
    return params_set(f, start);
}

/* ---- rounds ---- */

static double seconds_from(int64_t start)
{
    return (double)(mono_ns() - start) / 1e9;
}

/* How good the model is after a round. The loss on all rows that it learned from costs an eighth of a round, so it is asked for in
 * each tenth. */
static err round_look(struct fitting *f, int round, double *worth)
{
    const float *p;
    double loss = NAN;
    if (round % 10 == 0 && f->objective->loss)
        TRY(xgb_model_eval(f->model, round, f->train, &loss));
    if (f->objective->kind == LOSS_MSE)
        loss *= loss; /* it is measured as its root */
    TRY(xgb_model_predict(f->model, f->valid, f->outputs, &p));
    if (!f->watch->round(f->watch->arg, round, loss, p, worth))
        FAIL(CANCELLED, "stopped after round %d", round);
    return NULL;
}

static err rounds_run(struct fitting *f)
{
    struct fit *out = f->out;
    double best = NAN, worth = NAN;
    for (int round = 0; round < f->with->rounds; round++) {
        int64_t start = mono_ns();
        TRY_AS(xgb_model_round(f->model, round, f->train), "round %d", round);
        out->learn_seconds += seconds_from(start);
        out->rounds = round + 1;
        start = mono_ns();
        TRY(round_look(f, round, &worth));
        out->look_seconds += seconds_from(start);
        if (!isnan(worth) && (isnan(best) || worth < best - f->goal->min_delta)) {
            best = worth;
            out->best = round + 1;
        }
        if (f->goal->patience > 0 && out->rounds - out->best >= f->goal->patience)
            break;
    }
    return NULL;
}

/* Scores of all rows by the rounds that are kept. */
static err scores_make(struct fitting *f)
{
    struct xgb_model *kept = f->model;
    const struct rows_split *s = f->split;
    const struct {
        struct xgb_data *data;
        size_t n;
    } parts[] = { { f->train, s->train }, { f->valid, s->valid }, { f->test, s->test } };
    const float *p;
    float *to = f->out->score = NEW_N(f->a, float, arena_mul(s->train + s->valid + s->test, f->outputs));
    if (f->out->best < f->out->rounds) { /* else XGBoost still knows them */
        TRY(xgb_model_load(f->xgb, f->a, f->out->native, &kept));
        TRY(xgb_model_set(kept, "nthread", fmtz(f->a, "%d", f->threads)));
    }
    for (size_t i = 0; i < sizeof parts / sizeof *parts && parts[i].data; i++) {
        TRY(xgb_model_predict(kept, parts[i].data, f->outputs, &p));
        memcpy(to, p, parts[i].n * f->outputs * sizeof *p);
        to += parts[i].n * f->outputs;
    }
    return NULL;
}

/* Our reading of the model says what XGBoost says, or nothing leaves this place. */
static err reading_check(const struct fitting *f)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = f->split->valid < CHECKED ? f->split->valid : CHECKED, k = f->outputs;
    const float *want = f->out->score + f->split->train * k;
    float *p = NEW_N(a, float, arena_mul(n, k));
    trees_predict(&f->out->trees, f->checked, n, f->rows->features, p);
    for (size_t i = 0; i < n * k; i++)
        if (!(fabs((double)p[i] - (double)want[i]) < 1e-5 * fmax(1, fabs((double)want[i]))))
            FAIL(INTERNAL, "XGBoost %.*s scores a row %g, its trees as they were read score it %g",
                 STR(f->out->version), (double)want[i], (double)p[i]);
    return NULL;
}

err fit_trees(struct arena *a, const struct rows *rows, const struct rows_split *split,
              const struct trees_with *with, const struct fit_goal *goal, int threads,
              const struct fit_watch *watch, struct fit *out)
{
    struct fitting f = { .a = a,
                         .rows = rows,
                         .split = split,
                         .with = with,
                         .goal = goal,
                         .objective = objective_of(goal),
                         .watch = watch,
                         .outputs = goal->task == METER_CLASSES ? goal->classes : 1,
                         .threads = threads,
                         .out = out };
    *out = (struct fit){ 0 };
    TRY(xgb_open(a, &f.xgb));
    out->version = xgb_version_text(f.xgb, a);
    int64_t start = mono_ns();
    TRY(fitting_start(&f));
    out->bin_seconds = seconds_from(start);
    TRY(rounds_run(&f));
    out->seconds = seconds_from(start);
    if (out->best == 0)
        FAIL(INVALID, "no round gave a measure that is a number");
    TRY(xgb_model_save(f.model, a, out->best, &out->native));
    TRY(xgb_trees(a, out->native, &out->trees));
    TRY(scores_make(&f));
    return reading_check(&f);
}
