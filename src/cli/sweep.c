// SPDX-License-Identifier: Apache-2.0
/* Sweeps: many trainings of one form with other values, as processes here or as a Sweep of a server; the rules are train/sweep.h's. */
#include "cli/train.h"
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LOOK_US = 200000 };

/* A trial at work here; its folder is what a server's trial has as its job. */
struct process {
    struct sweep_trial *trial; /* NULL: none */
    pid_t pid;
    int64_t began;
};
struct sweep {
    struct cli *c;
    struct train_form *form;
    struct sweep_plan plan;
    struct process *processes; /* as many as may run at once */
    int64_t start;
};

static struct str metric_of(const struct sweep_plan *p)
{
    return p->with.metric.n ? p->with.metric : S("loss");
}

/* "optimizer.rate=0.01, seed=3" */
static struct str set_text(struct arena *a, struct str set)
{
    struct strs parts = { 0 };
    yyjson_val *v, *key, *value;
    size_t i, n;
    if (!json_parse(a, set, &v))
        yyjson_obj_foreach (v, i, n, key, value)
            push(a, &parts, fmt(a, "%s=%.*s", yyjson_get_str(key), STR(json_value_text(a, value))));
    return str_join(a, parts.v, parts.n, S(", "));
}

static void trial_print(struct cli *c, const struct sweep_trial *t, size_t i, size_t n, const char *state)
{
    cli_progress_end();
    fprintf(stderr, "trial %zu of %zu: %.*s: %.6g (%s, %.1f s)\n", i + 1, n, STR(set_text(c->a, t->set)),
            t->measure, state, isnan(t->seconds) ? 0 : t->seconds);
}

/* ---- what it gives ---- */

static struct str results_text(struct arena *a, const struct sweep_plan *p, const struct sweep_trial *best)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "metric", metric_of(p));
    json_ki64(&j, "best", best - p->trials + 1);
    json_key(&j, S("trials"));
    json_arr(&j);
    for (size_t i = 0; i < p->n; i++) {
        const struct sweep_trial *t = &p->trials[i];
        json_obj(&j);
        json_ki64(&j, "trial", (int64_t)i + 1);
        json_kraw(&j, "set", t->set);
        json_ki64(&j, "epochs", t->epochs);
        json_kf64(&j, "measure", t->measure);
        json_kf64(&j, "seconds", isnan(t->seconds) ? 0 : t->seconds);
        json_kstr(&j, "state", str_of(trial_phases[t->phase]));
        json_kstr(&j, "run", t->job);
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

/* ---- as processes here ---- */

static yyjson_mut_val *absolute(struct sweep *s, const char *path)
{
    const char *z = path[0] == '/' ? path : fmtz(s->c->a, "%.*s%s", STR(s->form->base), path);
    char *real = realpath(z, NULL);
    yyjson_mut_val *v = yyjson_mut_strcpy(s->form->doc, real ? real : z);
    free(real);
    return v;
}

/* The form lies in another folder than the file it came from. */
static void paths_fix(struct sweep *s)
{
    yyjson_mut_doc *doc = s->form->doc;
    yyjson_mut_val *data = yyjson_mut_obj_get(yyjson_mut_doc_get_root(doc), "data"), *path, *one;
    size_t i, n;
    if ((path = yyjson_mut_obj_get(data, "path")) && yyjson_mut_is_str(path))
        yyjson_mut_obj_put(data, yyjson_mut_str(doc, "path"), absolute(s, yyjson_mut_get_str(path)));
    yyjson_mut_val *files = yyjson_mut_obj_get(data, "files");
    yyjson_mut_arr_foreach (files, i, n, one)
        if ((path = yyjson_mut_obj_get(one, "path")) && yyjson_mut_is_str(path))
            yyjson_mut_obj_put(one, yyjson_mut_str(doc, "path"), absolute(s, yyjson_mut_get_str(path)));
}

/* What every trial has in common, seen from the folders that they lie in, each with its share of the cores. */
static err form_share(struct sweep *s)
{
    int64_t share = cpu_count() / s->plan.with.at_once;
    paths_fix(s);
    if (s->plan.with.at_once > 1 && !s->form->with.threads)
        TRY(form_set(s->c->a, s->form->doc,
                     fmt(s->c->a, "threads=%lld", (long long)(share > 0 ? share : 1))));
    TRY(form_check(s->c->a, s->form->doc, s->form));
    s->plan.form = s->form->text;
    return NULL;
}

static err program(char *path)
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (n <= 0)
        return err_errno(errno, "cannot find this program");
    path[n] = 0;
    return NULL;
}

static err trial_start(struct sweep *s, struct sweep_trial *t)
{
    struct arena *a = s->c->a;
    struct process *p = s->processes;
    struct str text;
    char self[PATH_MAX];
    while (p->trial)
        p++;
    TRY(sweep_form(a, &s->plan, t, &text, NULL));
    TRY(program(self));
    t->job = fmt(a, "%s/trial-%zu", s->form->dir, t - s->plan.trials + 1);
    if (t->rung > 1)
        t->job = fmt(a, "%.*s.%lld", STR(t->job), (long long)t->rung);
    const char *form = fmtz(a, "%.*s.json", STR(t->job)), *dir = str_z(a, t->job);
    TRY(file_write(form, text));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return err_errno(errno, "cannot start a process");
    if (!pid) {
        execl(self, self, "train", form, "--dir", dir, "--quiet", (char *)NULL);
        _exit(127);
    }
    *p = (struct process){ t, pid, mono_ns() };
    t->phase = TRIAL_RUNNING;
    return NULL;
}

static void trial_ended(struct sweep *s, struct process *p, int status)
{
    struct arena *a = s->c->a;
    struct sweep_trial *t = p->trial;
    struct str text;
    yyjson_val *v = NULL;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0 &&
              !file_read(a, fmtz(a, "%.*s/result.json", STR(t->job)), 16 << 20, &text) &&
              !json_parse(a, text, &v);
    t->seconds = (double)(mono_ns() - p->began) / 1e9;
    sweep_judge(a, &s->plan, t, ok ? yyjson_obj_get(v, "metrics") : NULL);
    trial_print(s->c, t, (size_t)(t - s->plan.trials), s->plan.n, trial_phases[t->phase]);
    *p = (struct process){ 0 };
}

static err one_wait(struct sweep *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, 0)) < 0)
        if (errno != EINTR)
            return err_errno(errno, "waiting for a trial");
    for (struct process *p = s->processes; p < s->processes + s->plan.with.at_once; p++)
        if (p->trial && p->pid == pid)
            trial_ended(s, p, status);
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGINT)
        FAIL(CANCELLED, "stopped");
    return NULL;
}

/* After an error nothing more begins, and what runs is waited for. */
static err trials_run(struct sweep *s)
{
    struct sweep_trial *t;
    for (err e = NULL;;) {
        while (!e && (t = sweep_next(&s->plan, (mono_ns() - s->start) / 1000000)))
            e = trial_start(s, t);
        if (!sweep_count(&s->plan, TRIAL_RUNNING))
            return e;
        err later = one_wait(s);
        e = e ? e : later;
    }
}

static err file_take(struct sweep *s, const struct sweep_trial *t, const char *name)
{
    struct arena *a = s->c->a;
    struct str text;
    const char *from = fmtz(a, "%.*s/%s", STR(t->job), name);
    if (!file_exists(from))
        return NULL;
    TRY(file_read(a, from, (size_t)1 << 31, &text));
    return file_write(fmtz(a, "%s/%s", s->form->dir, name), text);
}

/* The best one's files beside the trials, whose checkpoints go. */
static err best_keep(struct sweep *s, const struct sweep_trial *best)
{
    static const char *const names[] = { "model.onnx", "baseline.json", "result.json", "report.md",
                                         "spec.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        TRY(file_take(s, best, names[i]));
    for (size_t i = 0; i < s->plan.n; i++)
        if (s->plan.trials[i].job.n && &s->plan.trials[i] != best)
            TRY(dir_remove(fmtz(s->c->a, "%.*s/checkpoints", STR(s->plan.trials[i].job))));
    return NULL;
}

static err sweep_folder(struct sweep *s)
{
    struct cli *c = s->c;
    const char *given = cli_option(c, "dir"), *runs = cli_option(c, "runs");
    int n = 1;
    while (!given && file_exists(fmtz(c->a, "%s/%.*s-%d", runs, STR(s->form->name), n)))
        n++;
    s->form->dir = given ? given : fmtz(c->a, "%s/%.*s-%d", runs, STR(s->form->name), n);
    fprintf(stderr, "sweep %s: %zu trials\n", s->form->dir, s->plan.n);
    return dir_make(s->form->dir);
}

static err sweep_here(struct sweep *s)
{
    struct arena *a = s->c->a;
    yyjson_val *v;
    TRY(form_share(s));
    TRY(sweep_draw(a, &s->plan));
    TRY(sweep_folder(s));
    s->processes = NEW_N(a, struct process, s->plan.with.at_once + 1);
    TRY(trials_run(s));
    const struct sweep_trial *best = sweep_best(&s->plan);
    if (!best)
        FAIL(INVALID, "no trial came to an end with a measure");
    TRY(best_keep(s, best));
    struct str text = results_text(a, &s->plan, best);
    TRY(file_write(fmtz(a, "%s/sweep.json", s->form->dir), text));
    TRY(json_parse(a, text, &v));
    return cli_show(s->c, v, trials_table);
}

/* ---- as a Sweep of a server ---- */

static struct str sweep_path(struct cli *c, struct str name, const char *action)
{
    return fmt(c->a, "/api/v1/projects/%.*s/sweeps/%.*s%s", STR(c->project), STR(url_encode(c->a, name)),
               action);
}

static err sweep_put(struct sweep *s, struct str name)
{
    struct arena *a = s->c->a;
    struct sweep_spec spec;
    struct json j = json_new(a);
    TRY(schema_read_text(&sweep_spec_schema, a, S("sweep"), s->form->sweep, READ_PARTIAL, &spec));
    spec.with = s->form->text;
    if (s->form->with.resources.cpu)
        spec.cpu = s->form->with.resources.cpu;
    if (s->form->with.resources.memory)
        spec.memory = s->form->with.resources.memory;
    json_obj(&j);
    json_kstr(&j, "apiVersion", S("dhow/v1"));
    json_kstr(&j, "kind", S("Sweep"));
    json_kraw(&j, "metadata", fmt(a, "{\"name\":\"%.*s\"}", STR(name)));
    json_kraw(&j, "spec", schema_text(&sweep_spec_schema, a, &spec, 0));
    json_obj_end(&j);
    return cli_call(s->c, M_PUT, sweep_path(s->c, name, ""), json_get(&j), NULL);
}

/* The rung that a trial has ended last; in the one after it may be at work by now. */
static int64_t rung_ended(const struct sweep_trial *t)
{
    return t->rung - (t->phase == TRIAL_WAITING || t->phase == TRIAL_RUNNING);
}

/* A line for each trial that has ended since told. */
static void news_print(struct cli *c, const struct sweep_status *st, int64_t *told)
{
    const struct sweep_trial *trials = st->trials.v;
    for (size_t i = 0; i < st->trials.n; i++) {
        const struct sweep_trial *t = &trials[i];
        if (rung_ended(t) <= told[i])
            continue;
        told[i] = rung_ended(t);
        if (t->phase != TRIAL_NO_TIME)
            trial_print(c, t, i, st->trials.n, trial_phases[rung_ended(t) < t->rung ? TRIAL_DONE : t->phase]);
    }
}

static err sweep_look(struct cli *c, struct str name, struct sweep_status *out)
{
    yyjson_val *v;
    TRY(cli_call(c, M_GET, sweep_path(c, name, ""), S(""), &v));
    return schema_read(&sweep_status_schema, c->a, S("status"), json_at(v, "status"), READ_LENIENT, out);
}

static err sweep_follow(struct cli *c, struct str name)
{
    struct arena *outer = c->a;
    int64_t *told = NEW_N(outer, int64_t, SWEEP_JOBS_MAX);
    for (bool over = false; !over; usleep(over ? 0 : LOOK_US)) {
        auto_arena struct arena *a = arena_new(0);
        struct sweep_status st;
        if (stop_asked()) {
            cli_progress_end();
            TRY(cli_call(c, M_POST, sweep_path(c, name, "/cancel"), S("{}"), NULL));
            FAIL(CANCELLED, "stopped");
        }
        c->a = a;
        err e = sweep_look(c, name, &st);
        if (!e) {
            news_print(c, &st, told);
            cli_progress("%.*s: %s, %lld of %lld trials done, %lld at work%s", STR(name),
                         sweep_phases[st.phase], (long long)st.done, (long long)st.total,
                         (long long)st.running, st.best ? fmtz(a, ", best %.6g", st.best_measure) : "");
        }
        c->a = outer;
        if (e)
            return err_hint(e, "the sweep goes on: `dhow get sweep %.*s` shows it", STR(name));
        over = st.phase >= SWEEP_SUCCEEDED;
    }
    cli_progress_end();
    return NULL;
}

static err sweep_there(struct sweep *s)
{
    struct cli *c = s->c;
    struct str name = fmt(c->a, "%.*s-%.*s", STR(str_sub(s->form->name, 0, 20)), STR(id_new(c->a)));
    struct sweep_status st;
    yyjson_val *v;
    stop_watch();
    TRY(sweep_put(s, name));
    fprintf(stderr, "sweep %.*s\n", STR(name));
    if (cli_has(c, "detach")) {
        printf("%.*s\n", STR(name));
        return NULL;
    }
    TRY(sweep_follow(c, name));
    TRY(sweep_look(c, name, &st));
    if (st.phase != SWEEP_SUCCEEDED)
        FAIL(INTERNAL, "sweep '%.*s' %s%s%.*s", STR(name), sweep_phases[st.phase], st.message.n ? ": " : "",
             STR(st.message));
    s->plan.trials = st.trials.v;
    s->plan.n = st.trials.n;
    TRY(json_parse(c->a, results_text(c->a, &s->plan, &s->plan.trials[st.best - 1]), &v));
    return cli_show(c, v, trials_table);
}

err sweep_run(struct cli *c, struct train_form *f)
{
    struct sweep s = { .c = c, .form = f, .start = mono_ns() };
    if (cli_has(c, "resume"))
        FAIL(INVALID, "a sweep cannot be resumed");
    TRY(schema_read_text(&sweep_with_schema, c->a, S("sweep"), f->sweep, 0, &s.plan.with));
    return train_on_server(c) ? sweep_there(&s) : sweep_here(&s);
}
