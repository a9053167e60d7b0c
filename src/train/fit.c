// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

#include <float.h>
#include <math.h>

/* Rows whose scores are followed from round to round, by our own reading of each round's trees: that costs a seventh of what
 * asking XGBoost does. */
struct followed {
    struct forest_rows rows;
    float *sums, *p; /* by the rounds so far; p: what the link makes of them */
};

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
    struct xgb_data *train;
    size_t outputs; /* numbers of a row */
    struct xgb_model *model;
    float *checked; /* rows learned from that our reading of the model is checked with */
    float *test;
    struct followed held, some; /* some: of the rows learned from, whose loss is told */
    const float *some_y, *some_weight;
    struct team *team;
    int threads;
    struct fit *out;
};
/* SOME: rows, as long as they are no more than SOME_FLOATS. WORTH: rows through trees that a thread is woken for, some milliseconds of them, as XGBoost's own threads still spin; of trees that
 * are too deep for folds WORTH_DEEP. */
enum { CHECKED = 1000, SOME = 1 << 15, SOME_FLOATS = 1 << 22, WORTH = 1 << 20, WORTH_DEEP = 1 << 17 };

/* ---- losses of a row, as XGBoost measures them: y its label, p what it is given ---- */

static double log_loss(const float *p, float y, double delta)
{
    (void)delta;
    return -(double)logf(fmaxf(y > 0.5f ? *p : 1 - *p, FLT_MIN));
}
static double class_loss(const float *p, float y, double delta)
{
    (void)delta;
    return -(double)logf(fmaxf(p[(size_t)y], FLT_MIN));
}
static double square(const float *p, float y, double delta)
{
    (void)delta;
    return ((double)*p - (double)y) * ((double)*p - (double)y);
}
static double distance(const float *p, float y, double delta)
{
    (void)delta;
    return fabs((double)*p - (double)y);
}
static double pseudo_huber(const float *p, float y, double delta)
{
    const double z = ((double)*p - (double)y) / delta;
    return delta * delta * (sqrt(1 + z * z) - 1);
}

/* XGBoost's words for what is learned. */
static const struct objective {
    enum meter_task task;
    enum loss_kind kind;
    const char *name;
    double (*loss)(const float *p, float y, double delta); /* NULL: a row alone has none */
} objectives[] = {
    { METER_BINARY, LOSS_CROSS_ENTROPY, "binary:logistic", log_loss },
    { METER_CLASSES, LOSS_CROSS_ENTROPY, "multi:softprob", class_loss },
    { METER_NUMBERS, LOSS_MSE, "reg:squarederror", square },
    { METER_NUMBERS, LOSS_MAE, "reg:absoluteerror", distance },
    { METER_NUMBERS, LOSS_HUBER, "reg:pseudohubererror", pseudo_huber },
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
struct edging {
    const float *x; /* n rows of them */
    float *edges;   /* `bins` rows of them */
    size_t n, width, bins;
};

static void column_edges(void *arg, size_t c)
{
    const struct edging *g = arg;
    auto_arena struct arena *scratch = arena_new(0);
    float *sorted = NEW_N(scratch, float, g->n), *edges = NEW_N(scratch, float, g->bins);
    size_t have = 0;
    for (size_t i = 0; i < g->n; i++)
        if (!isnan(g->x[i * g->width + c]))
            sorted[have++] = g->x[i * g->width + c] + 0.0f; /* no −0: it equals 0 but sorts before it */
    sort_floats(scratch, sorted, NULL, have);
    have = edges_find(sorted, have, g->bins, edges);
    for (size_t i = 0; i < g->bins; i++)
        g->edges[i * g->width + c] = i < have ? edges[i] : NAN;
}

static err edges_make(struct fitting *f, struct arena *a, const float *x, size_t n, struct xgb_data **out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct edging g = { .x = x, .n = n, .width = f->rows->features, .bins = (size_t)f->with->bins };
    g.edges = NEW_N(scratch, float, arena_mul(g.bins, g.width));
    TRY(columns_each(g.width, f->threads, column_edges, &g));
    return xgb_bins_new(f->xgb, a, &(struct xgb_table){ .x = g.edges, .n = g.bins, .features = g.width },
                        (int)g.bins, f->threads, NULL, out);
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

/* The first n rows. */
static struct xgb_table table_of(const struct fitting *f, struct arena *a, size_t n)
{
    const struct rows *r = f->rows;
    const struct fit_goal *g = f->goal;
    struct xgb_table t = { .x = r->x, .y = r->y, .n = n, .features = r->features, .weight = g->weight };
    if (g->task == METER_RANKING)
        t.groups = groups_count(a, g->group, n, &t.n_groups);
    return t;
}

/* How many threads it is worth to take n rows through so many trees. */
static int ranks_for(const struct fitting *f, size_t n, size_t trees)
{
    const size_t worth = f->with->depth <= FOREST_FOLD_DEPTH ? WORTH : WORTH_DEEP,
                 most = n * trees / worth + 1;
    return most < (size_t)f->threads ? (int)most : f->threads;
}

static void team_end(void *arg)
{
    team_free(arg);
}

static struct followed follow(const struct fitting *f, const float *x, size_t n)
{
    struct followed o;
    forest_rows_make(f->a, x, n, f->rows->features, &o.rows);
    o.sums = NEW_N(f->a, float, arena_mul(n, f->outputs) + 1);
    o.p = NEW_N(f->a, float, arena_mul(n, f->outputs) + 1);
    return o;
}

/* One of each so many rows learned from, by chance, as tables have rhythms. */
static void some_follow(struct fitting *f)
{
    auto_arena struct arena *scratch = arena_new(0);
    const size_t width = f->rows->features, fit = SOME_FLOATS / width + 1, most = fit < SOME ? fit : SOME;
    const size_t every = (f->split->train - 1) / most + 1, n = f->split->train / every;
    const float *weight = f->goal->weight;
    float *x = NEW_N(scratch, float, arena_mul(n, width)), *y = NEW_N(f->a, float, n),
          *w = weight ? NEW_N(f->a, float, n) : NULL;
    uint64_t seed = n;
    for (size_t i = 0; i < n; i++) {
        const size_t row = i * every + splitmix(&seed) % every;
        memcpy(x + i * width, f->rows->x + row * width, width * sizeof *x);
        y[i] = f->rows->y[row];
        if (w)
            w[i] = weight[row];
    }
    f->some = follow(f, x, n);
    f->some_y = y;
    f->some_weight = w;
}

/* What is read of the rows once their bins are there. */
static err rows_keep(struct fitting *f)
{
    const struct rows_split *s = f->split;
    const size_t width = f->rows->features, all = s->train + s->valid + s->test;
    const size_t checked = s->train < CHECKED ? s->train : CHECKED;
    const float *held = f->rows->x + s->train * width;
    f->checked = NEW_N(f->a, float, arena_mul(checked, width) + 1);
    f->test = NEW_N(f->a, float, arena_mul(s->test, width) + 1);
    memcpy(f->checked, f->rows->x, checked * width * sizeof(float));
    memcpy(f->test, held + s->valid * width, s->test * width * sizeof(float));
    f->held = follow(f, held, s->valid);
    if (f->objective->loss)
        some_follow(f);
    if (f->watch->binned)
        f->watch->binned(f->watch->arg);
    f->out->score = NEW_N(f->a, float, arena_mul(all, f->outputs) + 1);
    TRY(team_new(ranks_for(f, s->valid + s->test * (size_t)f->with->rounds, f->outputs), &f->team));
    arena_defer(f->a, team_end, f->team);
    return NULL;
}

static err fitting_start(struct fitting *f)
{
    auto_arena struct arena *scratch = arena_new(0);
    const struct xgb_table learn = table_of(f, scratch, f->split->train);
    double start;
    TRY(start_of(f, &start));
    TRY_AS(binned(f, &learn, &f->train), "binning");
    TRY(rows_keep(f));
    TRY(xgb_model_new(f->xgb, f->a, &f->train, 1, &f->model));
    return params_set(f, start);
}

/* ---- rows through trees ---- */

/* n rows, each thread its part of them: those of `to` follow, or x get p. */
struct walking {
    const struct forest *forest;
    const struct followed *to;
    const float *x;
    float *p;
    size_t n;
    int ranks;
};

static void part_walk(void *arg, int rank)
{
    const struct walking *w = arg;
    const struct forest *f = w->forest;
    const size_t ranks = (size_t)w->ranks, i = (size_t)rank, k = f->outputs;
    const size_t each = (w->n / ranks + FOREST_ROWS - 1) / FOREST_ROWS * FOREST_ROWS; /* whole blocks */
    const size_t from = each * i < w->n ? each * i : w->n,
                 n = i + 1 < ranks && each < w->n - from ? each : w->n - from;
    if (!w->to) {
        forest_predict(f, w->x + from * f->features, n, w->p + from * k);
        return;
    }
    const struct forest_rows *r = &w->to->rows, part = { n, r->features, r->x + from * r->features,
                                                         r->missing + from / FOREST_ROWS };
    forest_add(f, &part, w->to->sums + from * k);
    forest_link(f, w->to->sums + from * k, n, w->to->p + from * k);
}

static void rows_walk(const struct fitting *f, struct walking w)
{
    const int most = ranks_for(f, w.n, w.forest->trees), have = team_size(f->team);
    w.ranks = most < have ? most : have;
    team_run(f->team, w.ranks, part_walk, &w);
}

/* The trees of a round say what they say of rows. */
static void followed_add(const struct fitting *f, const struct forest *added, const struct followed *to)
{
    if (to->rows.n)
        rows_walk(f, (struct walking){ .forest = added, .to = to, .n = to->rows.n });
}

static void sums_start(const struct fitting *f, const struct followed *to, float base)
{
    for (size_t i = 0; i < to->rows.n * f->outputs; i++)
        to->sums[i] = base;
}

static err round_follow(struct fitting *f, int round)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct str native;
    struct trees added;
    struct forest forest;
    TRY(xgb_model_save(f->model, scratch, round, round + 1, &native));
    TRY(xgb_trees(scratch, native, &added));
    if (trees_outputs(&added) != f->outputs || added.features != f->rows->features)
        FAIL(UNSUPPORTED, "the XGBoost model gives other than %zu numbers a row", f->outputs);
    if (round == 0) {
        sums_start(f, &f->held, added.base);
        sums_start(f, &f->some, added.base);
    }
    forest_make(scratch, &added, &forest);
    followed_add(f, &forest, &f->held);
    followed_add(f, &forest, &f->some);
    return NULL;
}

/* The mean over some of the rows learned from. */
static double some_loss(const struct fitting *f)
{
    double sum = 0, all = 0;
    for (size_t i = 0; i < f->some.rows.n; i++) {
        const double w = f->some_weight ? (double)f->some_weight[i] : 1;
        sum += w * f->objective->loss(f->some.p + i * f->outputs, f->some_y[i], f->goal->delta);
        all += w;
    }
    return sum / all;
}

/* ---- rounds ---- */

static double seconds_from(int64_t start)
{
    return (double)(mono_ns() - start) / 1e9;
}

/* How good the model is after a round; each tenth tells its loss, too. */
static err round_look(struct fitting *f, int round, double *worth)
{
    TRY(round_follow(f, round));
    const double loss = round % 10 == 0 && f->objective->loss ? some_loss(f) : NAN;
    if (!f->watch->round(f->watch->arg, round, loss, f->held.p, worth))
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
            memcpy(out->score + f->split->train * f->outputs, f->held.p,
                   f->split->valid * f->outputs * sizeof *f->held.p);
        }
        if (f->goal->patience > 0 && out->rounds - out->best >= f->goal->patience)
            break;
    }
    return NULL;
}

/* Scores by the rounds that are kept: of rows learned from by XGBoost, which knows them if it has just learned the last of these
 * rounds; those held out have theirs from when that round was looked at. */
static err scores_make(struct fitting *f)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct xgb_model *kept = f->model;
    struct fit *out = f->out;
    struct forest forest;
    const struct rows_split *s = f->split;
    const float *p;
    if (out->best < out->rounds) {
        TRY(xgb_model_load(f->xgb, f->a, out->native, &kept));
        TRY(xgb_model_set(kept, "nthread", fmtz(f->a, "%d", f->threads)));
    }
    TRY(xgb_model_predict(kept, f->train, f->outputs, &p));
    memcpy(out->score, p, s->train * f->outputs * sizeof *p);
    forest_make(scratch, &out->trees, &forest);
    rows_walk(f, (struct walking){ .forest = &forest,
                                   .x = f->test,
                                   .p = out->score + (s->train + s->valid) * f->outputs,
                                   .n = s->test });
    return NULL;
}

/* Our reading of the model says what XGBoost says, or nothing leaves this place. */
static err reading_check(const struct fitting *f)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = f->split->train < CHECKED ? f->split->train : CHECKED, k = f->outputs;
    const float *want = f->out->score;
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
    TRY(xgb_model_save(f.model, a, 0, out->best, &out->native));
    TRY(xgb_trees(a, out->native, &out->trees));
    TRY(scores_make(&f));
    return reading_check(&f);
}
