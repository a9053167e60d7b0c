// SPDX-License-Identifier: Apache-2.0
/* Trees: rows → fit → what a run leaves; for the job and for `dhow train` on files. */
#include "train/loader.h"
#include "train/trainer_internal.h"
#include "train/internal.h"
#include <stdlib.h>

enum { TOLD_MAX = 3, TOLD_EACH = 10, GROUPS_AT_ONCE = 4096 };

struct training {
    struct arena *a, *scratch; /* scratch: of a round */
    const struct train_job *job;
    const struct train_listener *listener;
    const struct train_with *with;
    struct trees_with trees; /* of the form, its seed filled in */
    struct train_set set;    /* the task, and what is measured; its tensors are gone */
    struct strs classes;     /* names; none: they are numbers */
    struct rows rows;
    struct rows_split split;
    float *weight;  /* of the rows; NULL: all alike */
    int64_t *group; /* of rankings: of the rows, those of one group one after the other in each part */
    int64_t *ids;   /* of classes: labels of the rows held out and of the test */
    struct fit_goal goal;
    struct measuring *measuring;
    struct str told[TOLD_MAX], watched; /* in each round; watched is among them */
    size_t n_told;
    bool more; /* of what is watched is better */
    struct baseline baseline;
    struct fit fit;
    double train_loss; /* when it was last asked for */
    int threads;
    int64_t began, read; /* mono_ns */
    struct {
        VEC(int64_t) list; /* of each round: when its tree was there, when it was looked at */
    } marks;
};

static bool by_class(const struct training *t)
{
    return t->set.task.kind == TASK_CLASSIFICATION;
}

/* ---- what is told ---- */

static void tell(const struct training *t, const char *name, int64_t round, double v)
{
    if (t->listener->metric)
        t->listener->metric(t->listener->arg, name, round, v);
}

static void told_add(struct training *t, struct str name)
{
    for (size_t i = 0; i < t->n_told; i++)
        if (str_eq(t->told[i], name))
            return;
    t->told[t->n_told++] = name;
}

/* The loss, and where there are two classes what most look at, and what is watched. */
static void told_choose(struct training *t)
{
    told_add(t, t->set.measured[0]);
    if (t->set.task.binary)
        told_add(t, S("auc"));
    t->watched = measure_watched(&t->set, t->with->early_stop.metric, &t->more);
    told_add(t, t->watched);
}

/* ---- how good scores are ---- */

/* p: of n rows from `from` on, none of which was learned from. */
static err measure(struct training *t, const float *p, size_t from, size_t n, struct measures *out)
{
    const void *batch[] = { t->rows.y + from,
                            t->group ? t->group + from : NULL }; /* by set.label, set.group */
    if (by_class(t))
        batch[0] = t->ids + (from - t->split.train);
    measuring_reset(t->measuring);
    TRY(measuring_add(t->measuring, p, batch, (int64_t)n));
    measuring_end(t->measuring, out);
    return NULL;
}

/* One of them after a round. Of two classes the plain ones are not counted together but taken from the arrays, which is quicker. */
static double look(struct training *t, const float *p, struct str name, struct measures *all)
{
    const struct metric_info *plain = t->set.task.binary ? metric_find(name) : NULL;
    if (plain)
        return plain->of(t->scratch, p, t->rows.y + t->split.train, t->split.valid);
    if (!all->n && measure(t, p, t->split.train, t->split.valid, all))
        return NAN;
    return measure_of(all, name);
}

static void progress_tell(const struct training *t, int rounds)
{
    const struct train_listener *l = t->listener;
    double learning = t->fit.learn_seconds, each = (learning + t->fit.look_seconds) / rounds;
    if (l->progress)
        l->progress(l->arg,
                    &(struct train_progress){ .step = rounds,
                                              .steps = t->trees.rounds,
                                              .loss = t->train_loss,
                                              .rate = t->trees.learning_rate,
                                              .rows_per_second = (double)t->split.train * rounds / learning,
                                              .seconds_left = each * (double)(t->trees.rounds - rounds) });
}

/* What is watched is looked at in each round; the rest costs as much as a twentieth of one, and in each tenth shows its course. */
static bool told_now(const struct training *t, struct str name, int round)
{
    return round % TOLD_EACH == 0 || round + 1 == t->trees.rounds || str_eq(name, t->watched);
}

static bool on_round(void *arg, int round, double train_loss, const float *p, double *worth)
{
    struct training *t = arg;
    const struct train_listener *l = t->listener;
    struct measures all = { 0 };
    arena_reset(t->scratch);
    push(t->a, &t->marks.list, mono_ns());
    struct buf said = buf_new(t->scratch);
    if (!isnan(train_loss)) {
        t->train_loss = train_loss;
        tell(t, loss_name(&t->set.task), round, train_loss);
        buf_fmt(&said, " %s %.5f,", loss_name(&t->set.task), train_loss);
    }
    for (size_t i = 0; i < t->n_told; i++) {
        if (!told_now(t, t->told[i], round))
            continue;
        double v = look(t, p, t->told[i], &all);
        const char *name = measure_name(t->scratch, "valid", t->told[i]);
        tell(t, name, round, v);
        buf_fmt(&said, "%s %s %.5f", i ? "," : "", name, v);
        if (str_eq(t->told[i], t->watched))
            *worth = t->more ? -v : v;
    }
    push(t->a, &t->marks.list, mono_ns());
    progress_tell(t, round + 1);
    if (round % TOLD_EACH == 0)
        train_say(l, "round %d:%.*s", round, STR(buf_get(&said)));
    return !(l->stopped && l->stopped(l->arg));
}

static void on_binned(void *arg)
{
    rows_forget(&((struct training *)arg)->rows);
}

/* ---- what it leaves ---- */

/* {"inputs":[{"name":…,"type":"FP32","shape":[-1,24]}],"outputs":[…],"features":[…]} */
static void tensor_write(struct json *j, const char *key, struct str name, size_t columns)
{
    json_key(j, str_of(key));
    json_arr(j);
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "type", tensor_protocol_name(TENSOR_F32));
    json_key(j, S("shape"));
    json_arr(j);
    json_i64(j, -1);
    json_i64(j, (int64_t)columns);
    json_arr_end(j);
    json_obj_end(j);
    json_arr_end(j);
}

static struct str signature_text(const struct training *t)
{
    struct json j = json_new(t->a);
    json_obj(&j);
    tensor_write(&j, "inputs", S("features"), t->rows.features);
    tensor_write(&j, "outputs", trees_output_name(&t->fit.trees), trees_outputs(&t->fit.trees));
    json_key(&j, S("features"));
    json_arr(&j);
    for (size_t i = 0; i < t->rows.features; i++)
        json_str(&j, t->rows.names[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

/* Of the rows that it learned from. */
static double train_log_loss(const struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    const float *p = t->fit.score, *y = t->rows.y;
    size_t n = t->split.train, k = trees_outputs(&t->fit.trees);
    double sum = 0;
    if (k == 1)
        return metric_log_loss(scratch, p, y, n);
    for (size_t i = 0; i < n; i++)
        sum -= log(fmax((double)p[i * k + (size_t)y[i]], 1e-7));
    return sum / (double)n;
}

static err metrics_make(struct training *t, struct train_result *out)
{
    const struct rows_split *s = &t->split;
    const float *p = t->fit.score + s->train * trees_outputs(&t->fit.trees);
    struct measures m;
    TRY(measure(t, p, s->train, s->valid, &m));
    for (size_t i = 0; i < m.n; i++)
        train_say(t->listener, "%.*s %.6f", STR(m.name[i]), m.value[i]);
    out->metrics = measures_text(t->a, &m);
    if (by_class(t))
        out->metrics = fmt(t->a, "%.*s,\"trainLogLoss\":%.17g}",
                           STR(str_sub(out->metrics, 0, out->metrics.n - 1)), train_log_loss(t));
    if (!s->test)
        return NULL;
    TRY(measure(t, p + s->valid * trees_outputs(&t->fit.trees), s->train + s->valid, s->test, &m));
    for (size_t i = 0; i < m.n; i++) {
        train_say(t->listener, "test: %.*s %.6f", STR(m.name[i]), m.value[i]);
        tell(t, measure_name(t->a, "test", m.name[i]), t->fit.best, m.value[i]);
    }
    out->test = measures_text(t->a, &m);
    return NULL;
}

static struct str facts_text(const struct training *t)
{
    struct arena *a = t->a;
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "rounds", t->fit.rounds);
    json_ki64(&j, "bestRound", t->fit.best);
    json_kf64(&j, "trainSeconds", t->fit.seconds);
    json_ki64(&j, "trainRows", (int64_t)t->split.train);
    json_ki64(&j, "validRows", (int64_t)t->split.valid);
    json_ki64(&j, "testRows", (int64_t)t->split.test);
    json_ki64(&j, "notYetKnownRows", (int64_t)t->split.unknown);
    times_write(&j, t->split.from, t->split.split, t->split.until);
    json_kstr(&j, "xgboost", t->fit.version);
    json_ki64(&j, "trees", (int64_t)t->fit.trees.n_trees);
    json_ki64(&j, "nodes", (int64_t)t->fit.trees.n_nodes);
    json_ki64(&j, "threads", t->threads);
    json_ki64(&j, "memoryPeak", rss_peak_bytes());
    json_obj_end(&j);
    return json_get(&j);
}

/* {"trees":{…all parameters, defaults included}, …}. */
static struct str params_text(const struct training *t)
{
    struct json j = json_new(t->a);
    json_obj(&j);
    json_kraw(&j, "trees", schema_text(&trees_with_schema, t->a, &t->trees, WRITE_DEFAULTS));
    json_kstr(&j, "task", str_of(train_tasks[t->set.task.kind]));
    json_kstr(&j, "loss", str_of(train_losses[t->goal.loss]));
    if (t->with->holdout)
        json_kstr(&j, "holdout", duration_text(t->a, t->with->holdout));
    json_obj_end(&j);
    return json_get(&j);
}

/* Rows that a baseline is made of. */
struct sampled {
    const struct rows *rows;
    const float *x;
    size_t n;
    struct baseline_column *out;
};

static void feature_describe(void *arg, size_t c)
{
    const struct sampled *s = arg;
    auto_arena struct arena *scratch = arena_new(0);
    baseline_column_make(scratch, s->rows->names[c], s->x + c, s->n, s->rows->features, &s->out[c]);
}

/* The features' part, while the rows are there. */
static err baseline_make(struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct sampled s = { .rows = &t->rows };
    s.x = rows_sample(scratch, t->rows.x, t->split.train, t->rows.features, &s.n);
    s.out = NEW_N(t->a, struct baseline_column, t->rows.features);
    t->baseline = (struct baseline){ .rows = (int64_t)s.n, .n = t->rows.features, .features = s.out };
    return columns_each(t->rows.features, t->threads, feature_describe, &s);
}

/* Of classes the greatest probability, as of networks. */
static struct str baseline_text(struct training *t)
{
    auto_arena struct arena *scratch = arena_new(0);
    size_t n, k = trees_outputs(&t->fit.trees);
    const float *p = rows_sample(scratch, t->fit.score, t->split.train, k, &n);
    float *score = NEW_N(scratch, float, n + 1);
    for (size_t i = 0; i < n; i++) {
        score[i] = p[i * k];
        for (size_t c = 1; c < k; c++)
            score[i] = fmaxf(score[i], p[i * k + c]);
    }
    baseline_column_make(scratch, S("score"), score, n, 1, &t->baseline.score);
    return baseline_write(t->a, &t->baseline);
}

static err onnx_text(const struct training *t, struct str *out)
{
    struct trees_doc doc = {
        .producer_version = S(DHOW_VERSION),
        .doc = fmt(t->a, "%zu trees of XGBoost %.*s on %.*s", t->fit.trees.n_trees, STR(t->fit.version),
                   STR(t->with->rows.n ? t->with->rows : S("files"))),
        .features = t->rows.names,
        .classes = t->classes.n == trees_outputs(&t->fit.trees) ? t->classes.v : NULL,
    };
    struct onnx_facts facts;
    TRY(trees_to_onnx(&t->fit.trees, t->a, &doc, out));
    return onnx_check(t->a, *out, NULL, &facts); /* what we write must pass as foreign too */
}

/* ---- where the time went ---- */

static void figures_tell(const struct training *t)
{
    const struct fit *f = &t->fit;
    tell(t, "profile.rowsPerSecond", f->rounds, (double)t->split.train * f->rounds / f->learn_seconds);
    tell(t, "profile.memoryPeak", f->rounds, (double)rss_peak_bytes());
}

static struct str profile_text(const struct training *t)
{
    const struct fit *f = &t->fit;
    const double all = (double)(mono_ns() - t->began) / 1e9, read = (double)(t->read - t->began) / 1e9;
    const struct {
        const char *name, *what;
        double seconds;
    } parts[] = {
        { "read", "reading and splitting rows", read },
        { "bin", "bins of the features", f->bin_seconds },
        { "learn", "trees", f->learn_seconds },
        { "look", "looks at the rows held out", f->look_seconds },
        { "rest", "baseline, measures, ONNX",
          all - read - f->bin_seconds - f->learn_seconds - f->look_seconds },
    };
    struct buf b = buf_new(t->a);
    buf_fmt(&b, "%-32s %9s %6s\n", "part", "seconds", "share");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        buf_fmt(&b, "%-32s %9.3f %5.1f%%\n", parts[i].what, parts[i].seconds, 100 * parts[i].seconds / all);
        tell(t, fmtz(t->a, "profile.seconds.%s", parts[i].name), f->rounds, parts[i].seconds);
    }
    buf_fmt(
        &b,
        "a round: %.2f ms for %zu tree%s over %zu rows of %zu numbers, %.1f million rows a second on %d threads; process "
        "%lld bytes at its peak\n",
        f->learn_seconds * 1e3 / f->rounds, trees_outputs(&f->trees), trees_outputs(&f->trees) > 1 ? "s" : "",
        t->split.train, t->rows.features, (double)t->split.train * f->rounds / f->learn_seconds / 1e6,
        t->threads, (long long)rss_peak_bytes());
    return buf_get(&b);
}

static void span_write(const struct training *t, struct json *j, const char *name, int64_t from, int64_t to)
{
    json_obj(j);
    json_kstr(j, "name", str_of(name));
    json_kstr(j, "ph", S("X"));
    json_ki64(j, "pid", 1);
    json_ki64(j, "tid", 1);
    json_kf64(j, "ts", (double)(from - t->began) / 1e3);
    json_kf64(j, "dur", (double)(to - from) / 1e3);
    json_obj_end(j);
}

/* The training as it went, for Perfetto or chrome://tracing. */
static err trace_write(const struct training *t)
{
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    int64_t at = t->read + (int64_t)(t->fit.bin_seconds * 1e9);
    json_obj(&j);
    json_kstr(&j, "displayTimeUnit", S("ms"));
    json_key(&j, S("traceEvents"));
    json_arr(&j);
    span_write(t, &j, "read", t->began, t->read);
    span_write(t, &j, "bin", t->read, at);
    for (size_t i = 0; i < t->marks.list.n; at = t->marks.list.v[i++])
        span_write(t, &j, i % 2 ? "look" : "learn", at, t->marks.list.v[i]);
    span_write(t, &j, "rest", at, mono_ns());
    json_arr_end(&j);
    json_obj_end(&j);
    return file_write(fmtz(a, "%s/profile.json", t->job->dir), json_get(&j));
}

/* ---- the training ---- */

static err fit_all(struct training *t, struct train_result *out)
{
    auto_arena struct arena *scratch = arena_new(0);
    struct fit_watch watch = { on_round, t, on_binned };
    t->scratch = scratch;
    t->read = mono_ns();
    TRY(measuring_new(t->a, &t->set, &t->measuring));
    told_choose(t);
    TRY(baseline_make(t));
    train_say(t->listener, "features %zu, threads %d, parameters %.*s", t->rows.features, t->threads,
              STR(schema_text(&trees_with_schema, t->a, &t->trees, WRITE_DEFAULTS)));
    TRY(fit_trees(t->a, &t->rows, &t->split, &t->trees, &t->goal, t->threads, &watch, &t->fit));
    train_say(t->listener, "%d rounds in %.1f s, the best is %d by %.*s", t->fit.rounds, t->fit.seconds,
              t->fit.best, STR(t->watched));
    *out = (struct train_result){ .native = t->fit.native,
                                  .baseline = baseline_text(t),
                                  .signature = signature_text(t),
                                  .params = params_text(t),
                                  .facts = facts_text(t),
                                  .from = t->split.from,
                                  .split = t->split.split,
                                  .until = t->split.until,
                                  .train_rows = (int64_t)t->split.train,
                                  .valid_rows = (int64_t)t->split.valid };
    TRY(metrics_make(t, out));
    TRY(onnx_text(t, &out->onnx));
    figures_tell(t);
    if (!t->with->profile)
        return NULL;
    out->profile = profile_text(t);
    return trace_write(t);
}

static struct str label_of(const struct train_job *job)
{
    return job->label.n ? job->label : job->with->label;
}

/* Bytes that learning needs at most: the floats, a copy of those that the split moves, and their bins; of each number that a row is
 * given, its gradients and scores. */
static err size_check(const struct train_job *job, int64_t rows, size_t columns, int64_t outputs)
{
    int64_t need;
    if (outputs > XGB_CLASSES_MAX)
        FAIL(TOO_LARGE, "label '%.*s' has %lld classes, more than the %d that trees take", STR(label_of(job)),
             (long long)outputs, XGB_CLASSES_MAX);
    if (rows < 0 || __builtin_mul_overflow(rows, (int64_t)columns * 10 + outputs * 16 + 48, &need) ||
        need > INT64_MAX / 2 || (job->memory > 0 && need > job->memory))
        return err_hint(err_new(TOO_LARGE, "%lld rows of %zu columns do not fit into the job's memory",
                                (long long)rows, columns),
                        "give it more memory, or a smaller sample");
    return NULL;
}

static void goal_make(struct training *t)
{
    const struct train_with *w = t->with;
    const struct net_task *task = &t->set.task;
    enum loss_kind by_itself = task->kind == TASK_RANKING      ? LOSS_PAIRWISE
                               : task->kind == TASK_REGRESSION ? LOSS_MSE
                                                               : LOSS_CROSS_ENTROPY;
    t->goal = (struct fit_goal){
        .task = measure_task(task),
        .loss = w->loss == LOSS_AUTO ? by_itself : (enum loss_kind)w->loss,
        .delta = w->loss_with.delta,
        .classes = (size_t)task->outputs,
        .weight = t->weight,
        .group = t->group,
        .patience = w->early_stop.patience ? w->early_stop.patience : w->model.trees.stop_after,
        .min_delta = w->early_stop.min_delta,
    };
}

/* Labels as measures take them. */
static void ids_make(struct training *t)
{
    size_t n = t->split.valid + t->split.test;
    if (!by_class(t))
        return;
    t->ids = NEW_N(t->a, int64_t, n + 1);
    for (size_t i = 0; i < n; i++)
        t->ids[i] = (int64_t)t->rows.y[t->split.train + i];
}

/* ---- rows without a loader ---- */

static const struct train_input *input_of(const struct train_with *w)
{
    return w->inputs.v;
}

static bool among(const struct strs *list, struct str name)
{
    for (size_t i = 0; i < list->n; i++)
        if (str_eq(list->v[i], name))
            return true;
    return false;
}

/* Parquet files that are split by time, features that are plain columns of them, two classes that weigh alike: no more is to be done
 * than what rows.c does for a training set's version. Else the loader is asked, which knows all that a form can say. */
static bool maybe_plain(const struct train_job *job)
{
    const struct train_with *w = job->with;
    bool all = (job->at.n || w->split.at.n) && w->holdout > 0 && !w->weight.n &&
               str_is(w->class_weights, "[]") && w->task <= TASK_CLASSIFICATION &&
               w->loss <= LOSS_CROSS_ENTROPY && w->inputs.n <= 1 && job->n_files > 0 && w->split.test == 0 &&
               !w->split.group.n;
    if (w->inputs.n == 1)
        all = all && input_of(w)->kind == 0 && input_of(w)->missing == TRAIN_AUTO;
    for (size_t i = 0; i < job->n_files; i++) {
        const struct train_source *f = &job->files[i];
        all = all && f->part == LOADER_TRAIN && f->column.n == 0 &&
              (f->format == FILE_PARQUET || (f->format == FILE_AUTO && str_ends(f->path, S(".parquet"))));
    }
    return all;
}

static bool is_number(const struct duck_column *c)
{
    enum column_type type;
    return column_type_of(c->type, &type) && type != COL_STR && type != COL_TIME;
}

static enum column_role role_of(const struct train_job *job, const struct duck_column *c)
{
    const struct train_with *w = job->with;
    bool version = job->label.n > 0;
    if (str_eq(c->name, label_of(job)))
        return IS_LABEL;
    if (str_eq(c->name, version ? job->at : w->split.at))
        return IS_EVENT_TIME;
    if (str_eq(c->name, version ? job->known : w->split.known))
        return IS_KNOWN_AT;
    if (w->inputs.n == 1 && input_of(w)->columns.n > 0)
        return among(&input_of(w)->columns, c->name) ? IS_FEATURE : IS_VALUE;
    bool feature = version ? among(&job->features, c->name)
                           : is_number(c) && !str_eq(c->name, w->split.group) && !among(&job->aside, c->name);
    return feature ? IS_FEATURE : IS_VALUE;
}

/* What a version of these files would say of its columns. two: are there no other labels than 0 and 1? */
static err files_describe(struct arena *a, const struct strs *paths, const struct train_job *job,
                          struct dataset_version_spec *out, bool *two)
{
    struct duck *duck;
    struct duck_columns columns;
    struct columns count;
    auto_arena struct arena *scratch = arena_new(0);
    struct str table = sql_parquet(scratch, paths), labels = S("0");
    TRY(duck_open(scratch, &(struct duck_config){ .threads = cpu_count(), .files = *paths }, &duck));
    TRY(duck_describe(duck, a, fmt(scratch, "SELECT * FROM %.*s", STR(table)), &columns));
    struct version_column *v = NEW_N(a, struct version_column, columns.n + 1);
    size_t found = 0;
    for (size_t i = 0; i < columns.n; i++) {
        const struct duck_column *c = &columns.v[i];
        v[i] = (struct version_column){ .name = c->name, .role = role_of(job, c) };
        found += v[i].role == IS_FEATURE;
        if (v[i].role == IS_LABEL)
            labels = is_number(c) ? fmt(scratch,
                                        "count(*) FILTER (NOT isnan(CAST(%.*s AS DOUBLE)) AND "
                                        "CAST(%.*s AS DOUBLE) NOT IN (0, 1))",
                                        STR(sql_name(scratch, c->name)), STR(sql_name(scratch, c->name)))
                                  : S("1");
    }
    TRY(duck_load(duck, scratch,
                  fmt(scratch, "SELECT count(*) AS n, CAST(%.*s AS BIGINT) AS others FROM %.*s", STR(labels),
                      STR(table)),
                  &count));
    if (job->with->inputs.n == 1 && found < input_of(job->with)->columns.n)
        FAIL(INVALID, "inputs: a column of '%.*s' is not in the files", STR(input_of(job->with)->name));
    *two = count.v[1].i[0] == 0;
    *out = (struct dataset_version_spec){ .rows = count.v[0].i[0],
                                          .until = job->until,
                                          .columns = { v, columns.n } };
    return NULL;
}

/* Reads them if they are such, which `done` says. */
static err plain_read(struct training *t, bool *done)
{
    const struct train_job *job = t->job;
    struct strs paths = { 0 };
    struct dataset_version_spec spec;
    bool two;
    *done = false;
    if (!maybe_plain(job))
        return NULL;
    for (size_t i = 0; i < job->n_files; i++)
        push(t->a, &paths, job->files[i].path);
    TRY(files_describe(t->a, &paths, job, &spec, &two));
    if (!two)
        return NULL;
    TRY(size_check(job, spec.rows, spec.columns.n, 1));
    TRY(rows_load(t->a, &paths, &spec, &t->rows));
    TRY(rows_split(&t->rows, t->with->holdout, &t->split));
    t->set = (struct train_set){ .group = 1,
                                 .row_elements = 1,
                                 .task = { .kind = TASK_CLASSIFICATION, .binary = true, .outputs = 1 } };
    *done = true;
    return measures_find(&t->set, t->with);
}

/* ---- rows by the loader ---- */

/* Codes of the groups, as batches have them. */
static err groups_read(const struct train_set *set, enum loader_part part, int64_t *to)
{
    auto_arena struct arena *a = arena_new(0);
    struct feed *feed;
    struct feed_batch b;
    TRY(feed_open(set->loader, a,
                  &(struct feed_options){ .part = part, .rows = GROUPS_AT_ONCE, .once = true, .depth = -1 },
                  &feed));
    for (;; to += b.rows) {
        TRY(feed_next(feed, &b));
        if (!b.rows)
            return NULL;
        memcpy(to, b.data[set->group], (size_t)b.rows * sizeof *to);
    }
}

struct member {
    int64_t group;
    size_t row;
};

static int by_group(const void *x, const void *y)
{
    const struct member *a = x, *b = y;
    return a->group != b->group ? (a->group > b->group) - (a->group < b->group)
                                : (a->row > b->row) - (a->row < b->row);
}

/* Rows of one group come to lie one after the other, among n from place `at` on. */
static void groups_join(struct training *t, size_t at, size_t n)
{
    auto_arena struct arena *a = arena_new(0);
    struct rows *r = &t->rows;
    const size_t width = r->features;
    struct member *m = NEW_N(a, struct member, n);
    float *x = NEW_N(a, float, arena_mul(n, width)), *y = NEW_N(a, float, n);
    for (size_t i = 0; i < n; i++)
        m[i] = (struct member){ t->group[at + i], at + i };
    qsort(m, n, sizeof *m, by_group);
    for (size_t i = 0; i < n; i++) {
        memcpy(x + i * width, r->x + m[i].row * width, width * sizeof *x);
        y[i] = r->y[m[i].row];
        t->group[at + i] = m[i].group;
    }
    memcpy(r->x + at * width, x, n * width * sizeof *x);
    memcpy(r->y + at, y, n * sizeof *y);
}

/* Rows of a part from place `at` on; how many. */
static err part_read(struct training *t, const struct train_set *set, enum loader_part part, size_t at,
                     size_t *n)
{
    const struct loader_tensor *weight = loader_role(set->loader, ROLE_WEIGHT);
    *n = (size_t)set->facts.rows[part];
    TRY(loader_raw_into(set->loader, part, 0, *n, t->rows.x + at * t->rows.features));
    TRY(loader_raw_into(set->loader, part, (size_t)set->label, *n, t->rows.y + at));
    if (weight)
        TRY(loader_raw_into(set->loader, part, (size_t)(weight - set->t), *n, t->weight + at));
    if (!t->group || !*n)
        return NULL;
    TRY(groups_read(set, part, t->group + at));
    groups_join(t, at, *n);
    return NULL;
}

static err parts_read(struct training *t, const struct train_set *set)
{
    struct rows_split *s = &t->split;
    TRY(part_read(t, set, LOADER_TRAIN, 0, &s->train));
    TRY(part_read(t, set, LOADER_VALID, s->train, &s->valid));
    TRY(part_read(t, set, LOADER_TEST, s->train + s->valid, &s->test));
    if (!s->train || !s->valid)
        FAIL(INVALID, "%zu rows to learn from, %zu held out: trees want some of both", s->train, s->valid);
    s->unknown = (size_t)set->facts.unknown;
    s->from = set->facts.from;
    s->split = set->facts.split;
    s->until = set->facts.until;
    return NULL;
}

/* A row weighs what its own weight says, times that of its class. */
static void class_weights_use(struct training *t, const struct train_set *set)
{
    for (size_t i = 0; set->class_weights && i < t->rows.n; i++)
        t->weight[i] *= set->class_weights[(size_t)t->rows.y[i]];
}

/* What the loader keeps goes before the rows are binned. */
static err loader_read(struct training *t)
{
    auto_arena struct arena *loading = arena_new(0);
    struct train_set set;
    struct rows *r = &t->rows;
    TRY(train_set_numbers(loading, t->job, t->listener, &set));
    const struct loader_tensor *x = &set.t[0];
    *r = (struct rows){ .features = (size_t)x->n, .names = NEW_N(t->a, struct str, (size_t)x->n) };
    for (size_t i = 0; i < r->features; i++)
        r->names[i] = str_dup(t->a, x->columns.v[i]);
    for (size_t i = 0; i < set.t[set.label].class_names.n; i++)
        push(t->a, &t->classes, str_dup(t->a, set.t[set.label].class_names.v[i]));
    for (int p = 0; p < LOADER_PARTS; p++)
        r->n += (size_t)set.facts.rows[p];
    TRY(size_check(t->job, (int64_t)r->n, r->features, set.task.outputs));
    rows_x_new(t->a, r->n, r);
    r->y = NEW_N(t->a, float, r->n + 1);
    if (set.task.weighted || set.class_weights)
        t->weight = NEW_N(t->a, float, r->n + 1);
    for (size_t i = 0; t->weight && i < r->n; i++)
        t->weight[i] = 1;
    if (set.group >= 0)
        t->group = NEW_N(t->a, int64_t, r->n + 1);
    TRY(parts_read(t, &set));
    class_weights_use(t, &set);
    t->set = set;
    t->set.label = 0;
    t->set.group = 1;
    t->set.task.mean = NULL; /* the loader's; trees start from their own */
    return NULL;
}

err train_trees(struct arena *a, const struct train_job *job, const struct train_listener *l,
                struct train_result *out)
{
    const struct train_with *w = job->with;
    struct training t = { .a = a,
                          .job = job,
                          .listener = l,
                          .with = w,
                          .trees = w->model.trees,
                          .train_loss = NAN,
                          .threads = w->threads > 0 ? (int)w->threads : job->threads,
                          .began = mono_ns() };
    bool done;
    if (job->at.n && !job->known.n)
        train_say(l, "no column says when a label became known: every row before the split is learned from");
    if (!t.trees.seed)
        t.trees.seed = w->seed % INT32_MAX;
    TRY(plain_read(&t, &done));
    if (!done)
        TRY(loader_read(&t));
    const struct rows_split *s = &t.split;
    train_say(l, "rows: %zu to learn from, %zu held out%s", s->train, s->valid,
              s->test ? fmtz(a, ", %zu for the test", s->test) : "");
    if (s->until)
        train_say(l, "learned from: %.*s to %.*s; held out: to %.*s; %zu not known in time",
                  STR(time_text(a, s->from)), STR(time_text(a, s->split)), STR(time_text(a, s->until)),
                  s->unknown);
    ids_make(&t);
    goal_make(&t);
    return fit_all(&t, out);
}
