// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

/* One training under way. */
struct fitting {
    struct arena *a;
    const struct rows *rows;
    const struct rows_split *split;
    const struct trees_with *with;
    const struct fit_watch *watch;
    struct xgb *xgb;
    struct xgb_data *train, *valid;
    struct xgb_model *model;
    float *checked; /* rows held out that our reading of the model is checked with */
    int threads;
    struct fit *out;
};
enum { CHECKED = 1000 };

static err params_set(struct fitting *f, double base_score)
{
    const struct trees_with *w = f->with;
    struct arena *a = f->a;
    const struct {
        const char *name, *value;
    } params[] = {
        { "objective", "binary:logistic" },
        { "eval_metric", "logloss" },
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
        TRY(xgb_model_set(f->model, params[i].name, params[i].value));
    return NULL;
}

static double mean_label(const float *y, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += y[i];
    return sum / (double)n;
}

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
    return xgb_bins_new(f->xgb, a, &(struct xgb_table){ table, NULL, bins, width }, (int)bins, f->threads,
                        NULL, out);
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

static err fitting_start(struct fitting *f)
{
    const struct rows *r = f->rows;
    size_t train = f->split->train, valid = f->split->valid;
    struct xgb_table learn = { r->x, r->y, train, r->features },
                     held = { r->x + train * r->features, r->y + train, valid, r->features };
    TRY_AS(binned(f, &learn, &f->train), "binning");
    TRY_AS(xgb_bins_new(f->xgb, f->a, &held, (int)f->with->bins, f->threads, f->train, &f->valid), "binning");
    size_t checked = (valid < CHECKED ? valid : CHECKED) * r->features;
    f->checked = NEW_N(f->a, float, checked + 1);
    memcpy(f->checked, held.x, checked * sizeof *held.x);
    if (f->watch->binned)
        f->watch->binned(f->watch->arg);
    TRY(xgb_model_new(f->xgb, f->a, (struct xgb_data *const[]){ f->train, f->valid }, 2, &f->model));
    /* Given, as 1.7 would start at one half and later versions at an estimate. */
    return params_set(f, mean_label(r->y, train));
}

/* One round and how good the model is after it. The loss on all rows that it learned from costs an eighth of a round, so it is
 * asked for in each tenth. */
static err round_run(struct fitting *f, struct arena *scratch, int round, double *train_loss,
                     double *valid_loss, double *valid_auc)
{
    const float *p, *y = f->rows->y + f->split->train;
    TRY(xgb_model_round(f->model, round, f->train));
    *train_loss = NAN;
    if (round % 10 == 0)
        TRY(xgb_model_eval(f->model, round, f->train, train_loss));
    TRY(xgb_model_predict(f->model, f->valid, &p));
    arena_reset(scratch);
    *valid_loss = metric_log_loss(scratch, p, y, f->split->valid);
    *valid_auc = metric_auc(scratch, p, y, f->split->valid);
    return NULL;
}

static err rounds_run(struct fitting *f)
{
    auto_arena struct arena *scratch = arena_new(0);
    double best = INFINITY, train_loss, valid_loss, valid_auc;
    for (int round = 0; round < f->with->rounds; round++) {
        TRY_AS(round_run(f, scratch, round, &train_loss, &valid_loss, &valid_auc), "round %d", round);
        f->out->rounds = round + 1;
        if (valid_loss < best) {
            best = valid_loss;
            f->out->best = round + 1;
        }
        if (!f->watch->round(f->watch->arg, round, train_loss, valid_loss, valid_auc))
            FAIL(CANCELLED, "stopped after round %d", round);
        if (f->with->stop_after > 0 && round + 1 - f->out->best >= f->with->stop_after)
            break;
    }
    return NULL;
}

/* Scores of all rows by the rounds that are kept. */
static err scores_make(struct fitting *f)
{
    struct xgb_model *kept = f->model;
    const float *p;
    size_t train = f->split->train, valid = f->split->valid;
    f->out->score = NEW_N(f->a, float, train + valid);
    if (f->out->best < f->out->rounds) { /* else XGBoost still knows them */
        TRY(xgb_model_load(f->xgb, f->a, f->out->native, &kept));
        TRY(xgb_model_set(kept, "nthread", fmtz(f->a, "%d", f->threads)));
    }
    TRY(xgb_model_predict(kept, f->train, &p));
    memcpy(f->out->score, p, train * sizeof *p);
    TRY(xgb_model_predict(kept, f->valid, &p));
    memcpy(f->out->score + train, p, valid * sizeof *p);
    f->out->train_loss = metric_log_loss(f->a, f->out->score, f->rows->y, train);
    return NULL;
}

/* Our reading of the model says what XGBoost says, or nothing leaves this place. */
static err reading_check(const struct fitting *f)
{
    float p[CHECKED];
    size_t n = f->split->valid < CHECKED ? f->split->valid : CHECKED, from = f->split->train;
    trees_predict(&f->out->trees, f->checked, n, f->rows->features, p);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)p[i] - f->out->score[from + i]) < 1e-5))
            FAIL(INTERNAL, "XGBoost %.*s scores a row %g, its trees as they were read score it %g",
                 STR(f->out->version), (double)f->out->score[from + i], (double)p[i]);
    return NULL;
}

err fit_trees(struct arena *a, const struct rows *rows, const struct rows_split *split,
              const struct trees_with *with, int threads, const struct fit_watch *watch, struct fit *out)
{
    struct fitting f = {
        .a = a, .rows = rows, .split = split, .with = with, .watch = watch, .threads = threads, .out = out
    };
    *out = (struct fit){ 0 };
    TRY(xgb_open(a, &f.xgb));
    out->version = xgb_version_text(f.xgb, a);
    int64_t start = mono_ns();
    TRY(fitting_start(&f));
    out->bin_seconds = (double)(mono_ns() - start) / 1e9;
    TRY(rounds_run(&f));
    out->seconds = (double)(mono_ns() - start) / 1e9;
    if (out->best == 0)
        FAIL(INVALID, "no round gave a loss that is a number");
    TRY(xgb_model_save(f.model, a, out->best, &out->native));
    TRY(xgb_trees(a, out->native, &out->trees));
    TRY(scores_make(&f));
    return reading_check(&f);
}
