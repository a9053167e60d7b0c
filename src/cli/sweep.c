// SPDX-License-Identifier: Apache-2.0
/* Sweeps: many trainings of one form with other values, as processes here or as jobs of a server; the best one is kept. */
#include "cli/train.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { TRIALS_MAX = 10000, AXES_MAX = 64 };

struct axis {
    struct str path;
    struct strs values; /* YAML texts; none: a range */
    double min, max;
    bool logarithmic, whole;
};
struct point {
    struct strs set; /* "optimizer.rate=0.01" */
    struct str dir, job;
    int64_t epochs;
    pid_t pid;
    int64_t began;
    double seconds, measure;
    const char *state; /* waiting, running, done, failed */
    bool out;          /* halving: not among those that go on */
};
struct sweep {
    struct cli *c;
    struct train_form *form;
    struct str name; /* on a server: of the sweep, with which its jobs' names begin */
    struct sweep_with with;
    VEC(struct axis) axes;
    VEC(struct point) trials;
    struct str metric;
    bool more;
    uint64_t random;
    int64_t start;
};

/* ---- what is tried ---- */

static struct str value_text(struct arena *a, yyjson_val *v)
{
    char *text = yyjson_val_write(v, 0, NULL);
    struct str s = str_dup(a, str_of(text ? text : "null"));
    free(text);
    return s;
}

static err axis_read(struct sweep *s, struct str path, yyjson_val *v)
{
    struct axis x = { .path = path };
    yyjson_val *one, *min = yyjson_obj_get(v, "min"), *max = yyjson_obj_get(v, "max"),
                     *scale = yyjson_obj_get(v, "scale");
    size_t i, n;
    yyjson_arr_foreach (v, i, n, one)
        push(s->c->a, &x.values, value_text(s->c->a, one));
    if (yyjson_is_obj(v)) {
        x.min = yyjson_get_num(min);
        x.max = yyjson_get_num(max);
        x.logarithmic = yyjson_equals_str(scale, "log");
        x.whole = yyjson_is_int(min) && yyjson_is_int(max);
        if (!yyjson_is_num(min) || !yyjson_is_num(max) || !(x.max > x.min) || (x.logarithmic && !(x.min > 0)))
            FAIL(INVALID, "sweep.over: '%.*s' wants min below max (above 0 for scale: log)", STR(path));
        if (s->with.kind == SWEEP_GRID)
            FAIL(INVALID, "sweep.over: '%.*s' is a range, and a grid wants lists", STR(path));
    } else if (!x.values.n) {
        return err_hint(err_new(INVALID, "sweep.over: '%.*s' is neither a list nor a range", STR(path)),
                        "[0.1, 0.01] or {min: 0.0001, max: 0.1, scale: log}");
    }
    if (s->axes.n == AXES_MAX)
        FAIL(TOO_LARGE, "sweep.over has more than %d keys", AXES_MAX);
    push(s->c->a, &s->axes, x);
    return NULL;
}

static double uniform(struct sweep *s)
{
    return (double)(splitmix(&s->random) >> 11) * 0x1p-53;
}

static struct str drawn(struct sweep *s, const struct axis *x)
{
    struct arena *a = s->c->a;
    double u = uniform(s);
    if (x->values.n)
        return x->values.v[(size_t)(u * (double)x->values.n)];
    double v = x->logarithmic ? exp(log(x->min) + u * (log(x->max) - log(x->min)))
                              : x->min + u * (x->max - x->min);
    if (x->whole)
        return fmt(a, "%lld", (long long)(v + 0.5));
    return fmt(a, "%.6g", v);
}

static err trials_make(struct sweep *s)
{
    struct arena *a = s->c->a;
    int64_t n = s->with.kind == SWEEP_GRID ? 1 : s->with.trials;
    for (size_t i = 0; i < s->axes.n && s->with.kind == SWEEP_GRID; i++)
        if (__builtin_mul_overflow(n, (int64_t)s->axes.v[i].values.n, &n) || n > TRIALS_MAX)
            FAIL(TOO_LARGE, "the grid has more than %d points", TRIALS_MAX);
    for (int64_t k = 0; k < n; k++) {
        struct point t = { .state = "waiting", .measure = NAN, .epochs = s->form->with.epochs };
        int64_t rest = k;
        for (size_t i = 0; i < s->axes.n; i++) {
            const struct axis *x = &s->axes.v[i];
            struct str v = s->with.kind == SWEEP_GRID ? x->values.v[rest % (int64_t)x->values.n]
                                                      : drawn(s, x);
            rest /= x->values.n ? (int64_t)x->values.n : 1;
            push(a, &t.set, fmt(a, "%.*s=%.*s", STR(x->path), STR(v)));
        }
        push(a, &s->trials, t);
    }
    return NULL;
}

static bool more_is_better(struct str metric)
{
    static const char *const names[] = { "accuracy", "auc", "averagePrecision", "f1", "r2" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq(metric, str_of(names[i])))
            return true;
    return false;
}

static err sweep_read(struct sweep *s)
{
    yyjson_val *v, *key, *one;
    size_t i, n;
    TRY(schema_read_text(&sweep_with_schema, s->c->a, S("sweep"), s->form->sweep, 0, &s->with));
    TRY(json_parse(s->c->a, s->with.over, &v));
    if (!yyjson_is_obj(v) || !yyjson_obj_size(v))
        FAIL(INVALID, "sweep.over names no key of the form");
    yyjson_obj_foreach (v, i, n, key, one)
        TRY(axis_read(s, (struct str){ yyjson_get_str(key), yyjson_get_len(key) }, one));
    s->random = (uint64_t)s->with.seed;
    s->metric = s->with.metric;
    s->more = more_is_better(s->metric);
    return trials_make(s);
}

/* ---- a trial's form ---- */

static yyjson_mut_val *absolute(struct sweep *s, yyjson_mut_doc *doc, const char *path)
{
    const char *z = path[0] == '/' ? path : fmtz(s->c->a, "%.*s%s", STR(s->form->base), path);
    char *real = realpath(z, NULL);
    yyjson_mut_val *v = yyjson_mut_strcpy(doc, real ? real : z);
    free(real);
    return v;
}

/* The form lies in another folder than the file it came from. */
static void paths_fix(struct sweep *s, yyjson_mut_doc *doc)
{
    yyjson_mut_val *data = yyjson_mut_obj_get(yyjson_mut_doc_get_root(doc), "data"), *path, *one;
    size_t i, n;
    if ((path = yyjson_mut_obj_get(data, "path")) && yyjson_mut_is_str(path))
        yyjson_mut_obj_put(data, yyjson_mut_str(doc, "path"), absolute(s, doc, yyjson_mut_get_str(path)));
    yyjson_mut_val *files = yyjson_mut_obj_get(data, "files");
    yyjson_mut_arr_foreach (files, i, n, one)
        if ((path = yyjson_mut_obj_get(one, "path")) && yyjson_mut_is_str(path))
            yyjson_mut_obj_put(one, yyjson_mut_str(doc, "path"), absolute(s, doc, yyjson_mut_get_str(path)));
}

static err trial_form(struct sweep *s, struct point *t, struct train_form *out)
{
    struct arena *a = s->c->a;
    yyjson_mut_doc *doc = yyjson_mut_doc_mut_copy(s->form->doc, NULL);
    int share = cpu_count() / (int)s->with.at_once;
    *out = *s->form;
    if (!train_on_server(s->c))
        paths_fix(s, doc);
    for (size_t i = 0; i < t->set.n; i++)
        TRY(form_set(a, doc, t->set.v[i]));
    TRY(form_set(a, doc, fmt(a, "epochs=%lld", (long long)t->epochs)));
    if (s->with.at_once > 1 && !s->form->with.threads && !train_on_server(s->c))
        TRY(form_set(a, doc, fmt(a, "threads=%d", share > 0 ? share : 1)));
    err e = form_check(a, doc, out);
    yyjson_mut_doc_free(doc);
    return e ? err_wrap(e, "a trial with %.*s", STR(str_join(a, t->set.v, t->set.n, S(", ")))) : NULL;
}

/* ---- running them ---- */

static err trial_start(struct sweep *s, size_t i, int rung)
{
    struct arena *a = s->c->a;
    struct point *t = &s->trials.v[i];
    struct train_form f;
    TRY(trial_form(s, t, &f));
    t->began = mono_ns();
    t->state = "running";
    if (train_on_server(s->c)) {
        t->job = fmt(a, "%.*s-%s%zu", STR(s->name), rung ? fmtz(a, "r%d", rung + 1) : "t", i + 1);
        return job_submit(s->c, &f, t->job, fmt(a, "Sweep/%.*s", STR(s->name)));
    }
    t->dir = fmt(a, "%s/trial-%zu%s", s->form->dir, i + 1, rung ? fmtz(a, ".%d", rung + 1) : "");
    const char *form = fmtz(a, "%.*s.json", STR(t->dir)), *dir = str_z(a, t->dir);
    TRY(file_write(form, f.text));
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return err_errno(errno, "cannot find this program");
    self[n] = 0;
    fflush(NULL);
    t->pid = fork();
    if (t->pid < 0)
        return err_errno(errno, "cannot start a process");
    if (!t->pid) {
        execl(self, self, "train", form, "--dir", dir, "--quiet", (char *)NULL);
        _exit(127);
    }
    return NULL;
}

/* Its measure: the sweep's, or the loss, which is the first of a network's and called logLoss or rmse. */
static double measure_at(struct sweep *s, yyjson_val *metrics)
{
    yyjson_val *v = yyjson_obj_getn(metrics, s->metric.p, s->metric.n);
    if (!s->metric.n)
        v = yyjson_obj_get(metrics, "logLoss") ? yyjson_obj_get(metrics, "logLoss")
                                               : yyjson_obj_get(metrics, "rmse");
    return yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
}

static void trial_judge(struct sweep *s, struct point *t, bool ok, yyjson_val *metrics)
{
    t->seconds = (double)(mono_ns() - t->began) / 1e9;
    t->measure = ok ? measure_at(s, metrics) : NAN;
    t->state = !ok ? "failed" : isnan(t->measure) ? "not measured" : "done";
    t->pid = 0;
}

static void trial_ended(struct sweep *s, struct point *t, int status)
{
    struct arena *a = s->c->a;
    struct str text;
    yyjson_val *v = NULL;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
              !file_read(a, fmtz(a, "%.*s/result.json", STR(t->dir)), 16 << 20, &text) &&
              !json_parse(a, text, &v);
    trial_judge(s, t, ok, yyjson_obj_get(v, "metrics"));
}

static err one_wait(struct sweep *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, 0)) < 0)
        if (errno != EINTR)
            return err_errno(errno, "waiting for a trial");
    for (size_t i = 0; i < s->trials.n; i++)
        if (s->trials.v[i].pid == pid) {
            struct point *t = &s->trials.v[i];
            trial_ended(s, t, status);
            cli_progress_end();
            fprintf(stderr, "trial %zu of %zu: %.*s: %.6g (%s, %.1f s)\n", i + 1, s->trials.n,
                    STR(str_join(s->c->a, t->set.v, t->set.n, S(", "))), t->measure, t->state, t->seconds);
            if (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT)
                FAIL(CANCELLED, "stopped");
        }
    return NULL;
}

/* The budget is spent: trial i does not begin. */
static bool no_time(struct sweep *s, size_t i)
{
    bool none = s->with.budget && (mono_ns() - s->start) / 1000000 >= s->with.budget;
    if (none) {
        s->trials.v[i].state = "no time";
        s->trials.v[i].out = true;
    }
    return none;
}

/* Those that are under way when the sweep ends early go with it. */
static void jobs_cancel(struct sweep *s)
{
    for (size_t i = 0; i < s->trials.n; i++)
        if (strcmp(s->trials.v[i].state, "running") == 0 && !job_cancel(s->c, s->trials.v[i].job))
            s->trials.v[i].state = "cancelled";
}

static err job_end(struct sweep *s, size_t i)
{
    struct point *t = &s->trials.v[i];
    yyjson_val *v, *metrics = NULL;
    err e = job_wait(s->c, t->job, false, &v);
    if (e && e->code == CANCELLED)
        return e;
    if (!e)
        (void)json_parse(s->c->a, json_text_at(s->c->a, v, "status.result.metrics"), &metrics);
    trial_judge(s, t, !e, metrics);
    cli_progress_end();
    fprintf(stderr, "trial %zu of %zu: %.*s: %.6g (%s)\n", i + 1, s->trials.n,
            STR(str_join(s->c->a, t->set.v, t->set.n, S(", "))), t->measure, t->state);
    return NULL;
}

/* The oldest is waited for, and the next begins, if there is time. */
static err rung_jobs(struct sweep *s, int rung)
{
    size_t ended = 0;
    int64_t running = 0;
    for (size_t i = 0; i < s->trials.n; i++) {
        if (s->trials.v[i].out)
            continue;
        for (; running == s->with.at_once; ended++)
            if (!s->trials.v[ended].out) {
                TRY(job_end(s, ended));
                running--;
            }
        if (no_time(s, i))
            continue;
        TRY(trial_start(s, i, rung));
        running++;
    }
    for (; ended < s->trials.n; ended++)
        if (!s->trials.v[ended].out)
            TRY(job_end(s, ended));
    return NULL;
}

static err rung_run(struct sweep *s, int rung)
{
    int64_t running = 0;
    err e = NULL;
    if (train_on_server(s->c)) {
        e = rung_jobs(s, rung);
        if (e)
            jobs_cancel(s);
        return e;
    }
    for (size_t i = 0; i < s->trials.n && !e; i++) {
        if (s->trials.v[i].out)
            continue;
        if (no_time(s, i))
            continue;
        if (running == s->with.at_once) {
            e = one_wait(s);
            running--;
        }
        if (!e)
            e = trial_start(s, i, rung);
        running += !e;
    }
    while (running-- > 0) {
        err later = one_wait(s);
        e = e ? e : later;
    }
    return e;
}

static bool better(const struct sweep *s, const struct point *a, const struct point *b)
{
    if (isnan(a->measure) || isnan(b->measure))
        return !isnan(a->measure);
    return s->more ? a->measure > b->measure : a->measure < b->measure;
}

/* How many of those that are still in are better than trial i. */
static size_t place_of(const struct sweep *s, size_t i)
{
    size_t n = 0;
    for (size_t k = 0; k < s->trials.n; k++)
        n += !s->trials.v[k].out && k != i &&
             (better(s, &s->trials.v[k], &s->trials.v[i]) ||
              (!better(s, &s->trials.v[i], &s->trials.v[k]) && k < i));
    return n;
}

/* Successive halving (Jamieson & Talwalkar 2016): each rung one of `factor` goes on, with `factor` times the epochs; the last has
 * those of the form. Each rung trains from the start, as the schedule of the rate spans it. */
static err halving_run(struct sweep *s)
{
    int64_t rungs = 1, left = (int64_t)s->trials.n, factor = s->with.factor;
    for (int64_t n = left; n >= factor; n /= factor)
        rungs++;
    for (int64_t r = 0; r < rungs; r++) {
        int64_t epochs = s->form->with.epochs;
        for (int64_t k = r + 1; k < rungs; k++)
            epochs /= factor;
        for (size_t i = 0; i < s->trials.n; i++)
            s->trials.v[i].epochs = s->trials.v[i].out ? s->trials.v[i].epochs : epochs < 1 ? 1 : epochs;
        TRY(rung_run(s, (int)r));
        if (r + 1 == rungs)
            break;
        left = left / factor < 1 ? 1 : left / factor;
        bool *stays = NEW_N(s->c->a, bool, s->trials.n);
        for (size_t i = 0; i < s->trials.n; i++)
            stays[i] = !s->trials.v[i].out && (int64_t)place_of(s, i) < left;
        for (size_t i = 0; i < s->trials.n; i++)
            s->trials.v[i].out = !stays[i];
    }
    return NULL;
}

/* ---- what it leaves ---- */

static err file_take(struct sweep *s, const struct point *t, const char *name)
{
    struct arena *a = s->c->a;
    struct str text;
    const char *from = fmtz(a, "%.*s/%s", STR(t->dir), name);
    if (!file_exists(from))
        return NULL;
    TRY(file_read(a, from, (size_t)1 << 31, &text));
    return file_write(fmtz(a, "%s/%s", s->form->dir, name), text);
}

/* The best one's files beside the trials, whose checkpoints go. */
static err best_keep(struct sweep *s, const struct point *best)
{
    static const char *const names[] = { "model.onnx", "baseline.json", "result.json", "report.md",
                                         "spec.json" };
    if (train_on_server(s->c))
        return NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        TRY(file_take(s, best, names[i]));
    for (size_t i = 0; i < s->trials.n; i++)
        if (s->trials.v[i].dir.n && &s->trials.v[i] != best)
            TRY(dir_remove(fmtz(s->c->a, "%.*s/checkpoints", STR(s->trials.v[i].dir))));
    return NULL;
}

static struct str results_text(const struct sweep *s, const struct point *best)
{
    struct json j = json_new(s->c->a);
    json_obj(&j);
    json_kstr(&j, "metric", s->metric.n ? s->metric : S("loss"));
    json_ki64(&j, "best", best - s->trials.v + 1);
    json_key(&j, S("trials"));
    json_arr(&j);
    for (size_t i = 0; i < s->trials.n; i++) {
        const struct point *t = &s->trials.v[i];
        json_obj(&j);
        json_ki64(&j, "trial", (int64_t)i + 1);
        json_key(&j, S("set"));
        json_obj(&j);
        for (size_t k = 0; k < t->set.n; k++) {
            struct str value = t->set.v[k], key;
            str_cut(&value, '=', &key);
            json_key(&j, key);
            json_raw(&j, value);
        }
        json_obj_end(&j);
        json_ki64(&j, "epochs", t->epochs);
        json_kf64(&j, "measure", t->measure);
        json_kf64(&j, "seconds", t->seconds);
        json_kstr(&j, "state", str_of(t->state));
        json_kstr(&j, "run", t->dir.n ? t->dir : t->job);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

static void trials_table(struct cli *c, yyjson_val *v)
{
    yyjson_val *trials = yyjson_obj_get(v, "trials"), *one, *key, *value;
    yyjson_val *keys = json_at(yyjson_arr_get_first(trials), "set");
    size_t i, n, k, m;
    struct table t = table_new(c->a, yyjson_obj_size(keys) + 5);
    table_heading(&t, S("trial"));
    yyjson_obj_foreach (keys, k, m, key, value)
        table_cell(&t, str_of(yyjson_get_str(key)));
    table_heading(&t, S("epochs"));
    table_heading(&t, json_text_at(c->a, v, "metric"));
    table_heading(&t, S("seconds"));
    table_heading(&t, S("state"));
    int64_t best = yyjson_get_sint(yyjson_obj_get(v, "best"));
    yyjson_arr_foreach (trials, i, n, one) {
        table_cell(&t, fmt(c->a, "%zu%s", i + 1, (int64_t)i + 1 == best ? " *" : ""));
        yyjson_obj_foreach (json_at(one, "set"), k, m, key, value)
            table_cell(&t, json_value_text(c->a, value));
        table_cell(&t, json_text_at(c->a, one, "epochs"));
        yyjson_val *measure = json_at(one, "measure");
        table_cell(&t, yyjson_is_num(measure) ? fmt(c->a, "%.6g", yyjson_get_num(measure)) : S("-"));
        table_cell(&t, fmt(c->a, "%.1f", yyjson_get_num(json_at(one, "seconds"))));
        table_cell(&t, json_text_at(c->a, one, "state"));
    }
    cli_table(c, &t);
}

static err sweep_folder(struct sweep *s)
{
    struct cli *c = s->c;
    const char *given = cli_option(c, "dir"), *runs = cli_option(c, "runs");
    int n = 1;
    if (train_on_server(c)) {
        s->name = fmt(c->a, "%.*s-%.*s", STR(str_sub(s->form->name, 0, 20)), STR(id_new(c->a)));
        fprintf(stderr, "sweep %.*s: %zu trials, %lld at once\n", STR(s->name), s->trials.n,
                (long long)s->with.at_once);
        stop_watch();
        return NULL;
    }
    while (!given && file_exists(fmtz(c->a, "%s/%.*s-%d", runs, STR(s->form->name), n)))
        n++;
    s->form->dir = given ? given : fmtz(c->a, "%s/%.*s-%d", runs, STR(s->form->name), n);
    fprintf(stderr, "sweep %s: %zu trials\n", s->form->dir, s->trials.n);
    return dir_make(s->form->dir);
}

err sweep_run(struct cli *c, struct train_form *f)
{
    struct sweep s = { .c = c, .form = f, .start = mono_ns() };
    if (cli_has(c, "resume"))
        FAIL(INVALID, "a sweep cannot be resumed");
    TRY(sweep_read(&s));
    for (size_t i = 0; i < s.trials.n; i++) { /* a wrong key ends it before anything is trained */
        struct train_form one;
        TRY(trial_form(&s, &s.trials.v[i], &one));
    }
    TRY(sweep_folder(&s));
    TRY(s.with.kind == SWEEP_HALVING ? halving_run(&s) : rung_run(&s, 0));
    const struct point *best = NULL;
    for (size_t i = 0; i < s.trials.n; i++) {
        const struct point *t = &s.trials.v[i];
        bool last = s.with.kind != SWEEP_HALVING || !t->out;
        if (last && !isnan(t->measure) && (!best || better(&s, t, best)))
            best = t;
    }
    if (!best)
        FAIL(INVALID, "no trial came to an end with a measure");
    TRY(best_keep(&s, best));
    struct str text = results_text(&s, best);
    yyjson_val *v;
    if (f->dir)
        TRY(file_write(fmtz(c->a, "%s/sweep.json", f->dir), text));
    TRY(json_parse(c->a, text, &v));
    return cli_show(c, v, trials_table);
}
