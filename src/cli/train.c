// SPDX-License-Identifier: Apache-2.0
/* train: one training (or a sweep of them) from a YAML file, here or as a job of a server. */
#include "cli/train.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { FORM_MAX = 1 << 20, RUNS_MAX = 100000, LOOK_US = 200000, PLAIN_SECONDS = 5 };

/* ---- the form ---- */

static bool is_yaml(struct str path)
{
    return !str_ends(path, S(".json"));
}

static void form_free(void *doc)
{
    yyjson_mut_doc_free(doc);
}

err form_load(struct arena *a, const char *path, yyjson_mut_doc **out)
{
    struct str text;
    struct strs docs = { 0 };
    TRY(file_read(a, path, FORM_MAX, &text));
    if (is_yaml(str_of(path))) {
        TRY_AS(yaml_to_json(a, text, &docs), "%s", path);
        if (docs.n != 1)
            FAIL(INVALID, "%s has %zu documents, not one", path, docs.n);
        text = docs.v[0];
    }
    yyjson_val *v;
    TRY_AS(json_parse(a, text, &v), "%s", path);
    if (!yyjson_is_obj(v))
        FAIL(INVALID, "%s is no form: it has no keys", path);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    arena_defer(a, form_free, doc);
    yyjson_mut_doc_set_root(doc, yyjson_val_mut_copy(doc, v));
    *out = doc;
    return NULL;
}

err form_set(struct arena *a, yyjson_mut_doc *doc, struct str assignment)
{
    struct str value = assignment, path;
    struct strs docs = { 0 };
    yyjson_val *v;
    if (str_find(assignment, '=') == assignment.n || !str_cut(&value, '=', &path) || !path.n)
        FAIL(INVALID, "--set takes KEY=VALUE, not '%.*s'", STR(assignment));
    TRY_AS(yaml_to_json(a, fmt(a, "v: %.*s\n", STR(value)), &docs), "--set %.*s", STR(path));
    TRY(json_parse(a, docs.n ? docs.v[0] : S("{}"), &v));
    form_put(doc, path, yyjson_obj_get(v, "v"));
    return NULL;
}

static struct str form_text(struct arena *a, yyjson_mut_doc *doc)
{
    size_t n;
    char *text = yyjson_mut_write(doc, YYJSON_WRITE_PRETTY_TWO_SPACES, &n);
    struct str s = str_dup(a, (struct str){ text, text ? n : 0 });
    free(text);
    return s;
}

/* Paths in the form are seen from where the form lies. */
static struct str path_from(struct arena *a, struct str base, struct str path)
{
    return path.n && path.p[0] == '/' ? path : fmt(a, "%.*s%.*s", STR(base), STR(path));
}

static struct str folder_of(struct str path)
{
    while (path.n && path.p[path.n - 1] != '/')
        path.n--;
    return path;
}

/* "My Form.yaml" --> "my-form": the file's name as far as a run may have it. */
static struct str stem_of(struct arena *a, struct str path)
{
    struct str name = str_sub(path, folder_of(path).n, path.n);
    size_t dot = name.n;
    while (dot && name.p[dot - 1] != '.')
        dot--;
    name = str_sub(name, 0, dot > 1 ? dot - 1 : name.n);
    enum { LONGEST = 63 };
    char *to = arena_alloc(a, LONGEST, 1);
    size_t n = 0;
    for (size_t i = 0; i < name.n && n < LONGEST; i++) {
        char c = name.p[i];
        c = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        bool alnum = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (alnum || n > 0)
            to[n++] = alnum || c == '_' || c == '.' ? c : '-';
    }
    while (n && (to[n - 1] == '-' || to[n - 1] == '_' || to[n - 1] == '.'))
        n--;
    return n ? (struct str){ to, n } : S("run");
}

/* ---- a run in this process ---- */

struct local {
    struct cli *c;
    struct train_form *form;
    FILE *log, *metrics;
    struct curves curves;
    int64_t plain_at;
    bool terminal;
};

static volatile sig_atomic_t stop_came;
static void on_stop(int sig)
{
    (void)sig;
    if (stop_came)
        _exit(130); /* asked twice */
    stop_came = 1;
}

static void on_say(void *arg, struct str line)
{
    struct local *l = arg;
    cli_progress_end();
    fprintf(l->log, "%.*s\n", STR(line));
    fflush(l->log);
    if (!l->form->quiet)
        fprintf(stderr, "%.*s\n", STR(line));
}

static void on_metric(void *arg, const char *name, int64_t step, double value)
{
    struct local *l = arg;
    auto_arena struct arena *a = arena_new(0);
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "name", str_of(name));
    json_ki64(&j, "step", step);
    json_kf64(&j, "value", value);
    json_ki64(&j, "time", now_us());
    json_obj_end(&j);
    fprintf(l->metrics, "%.*s\n", STR(json_get(&j)));
    fflush(l->metrics);
    curves_add(l->c->a, &l->curves, name, step, value);
}

static struct str left_text(struct arena *a, double seconds)
{
    if (!(seconds >= 0) || seconds > 1e7)
        return S("");
    return fmt(
        a, ", %.*s left",
        STR(duration_text(a, seconds < 100 ? (int64_t)(seconds * 10 + 0.5) * 100 : (int64_t)seconds * 1000)));
}

static void on_progress(void *arg, const struct train_progress *p)
{
    struct local *l = arg;
    auto_arena struct arena *a = arena_new(0);
    struct str epoch = p->epochs ? fmt(a, ", epoch %lld/%lld", (long long)p->epoch, (long long)p->epochs)
                                 : S("");
    struct str loss = isnan(p->loss) ? S("") : fmt(a, ", loss %.5g", p->loss);
    struct str line = fmt(a, "step %lld/%lld%.*s%.*s, rate %.3g, %.4g rows/s%s%.*s", (long long)p->step,
                          (long long)p->steps, STR(epoch), STR(loss), p->rate, p->rows_per_second,
                          p->waited > 0.05 ? fmtz(a, ", %.0f %% waiting for data", 100 * p->waited) : "",
                          STR(left_text(a, p->seconds_left)));
    if (l->form->quiet)
        return;
    if (l->terminal) {
        cli_progress("%.*s", STR(line));
    } else if (mono_ns() - l->plain_at > PLAIN_SECONDS * 1000000000LL) {
        l->plain_at = mono_ns();
        fprintf(stderr, "%.*s\n", STR(line));
    }
}

void stop_watch(void)
{
    struct sigaction stop = { .sa_handler = on_stop };
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
}

bool stop_asked(void)
{
    return stop_came;
}

static bool on_stopped(void *arg)
{
    (void)arg;
    return stop_came;
}

/* ---- folders of runs ---- */

/* runs/NAME-3: the newest, or one that is not there yet. */
static err run_folder(struct cli *c, struct train_form *f, bool newest)
{
    const char *given = cli_option(c, "dir"), *runs = cli_option(c, "runs");
    if (given) {
        f->dir = given;
        if (!newest && file_exists(fmtz(c->a, "%s/spec.json", given)))
            return err_hint(err_new(CONFLICT, "%s holds a run already", given), "--resume goes on with it");
        return dir_make(given);
    }
    int64_t n = 1;
    while (n < RUNS_MAX && file_exists(fmtz(c->a, "%s/%.*s-%lld", runs, STR(f->name), (long long)n)))
        n++;
    if (newest && n == 1)
        FAIL(NOT_FOUND, "there is no run of '%.*s' in %s to go on with", STR(f->name), runs);
    f->dir = fmtz(c->a, "%s/%.*s-%lld", runs, STR(f->name), (long long)(newest ? n - 1 : n));
    return dir_make(f->dir);
}

static err file_open(struct arena *a, const char *dir, const char *name, FILE **out)
{
    const char *path = fmtz(a, "%s/%s", dir, name);
    *out = fopen(path, "ae");
    return *out ? NULL : err_errno(errno, "cannot open %s", path);
}

/* ---- what it leaves ---- */

static struct str result_text(struct arena *a, const struct train_form *f, const struct train_result *r)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "name", f->name);
    json_kstr(&j, "dir", str_of(f->dir));
    json_kstr(&j, "model", str_of(fmtz(a, "%s/model.onnx", f->dir)));
    json_kraw(&j, "metrics", r->metrics);
    if (r->test.n)
        json_kraw(&j, "test", r->test);
    json_kraw(&j, "facts", r->facts);
    json_kraw(&j, "params", r->params);
    json_kraw(&j, "signature", r->signature);
    json_obj_end(&j);
    return json_get(&j);
}

static void report_measures(struct arena *a, struct buf *b, const char *where, struct str measures)
{
    yyjson_val *m, *key, *v;
    size_t i, n;
    if (json_parse(a, measures, &m))
        return;
    buf_fmt(b, "\n| measure | %s |\n|---|---|\n", where);
    yyjson_obj_foreach (m, i, n, key, v)
        buf_fmt(b, "| %s | %.6g |\n", yyjson_get_str(key), yyjson_is_num(v) ? yyjson_get_num(v) : NAN);
}

static struct str report_text(struct cli *c, const struct train_form *f, const struct train_result *r,
                              const struct curves *curves)
{
    struct buf b = buf_new(c->a);
    buf_fmt(&b, "# %.*s\n", STR(f->name));
    report_measures(c->a, &b, "on the rows held out", r->metrics);
    if (r->test.n)
        report_measures(c->a, &b, "on the rows of the test", r->test);
    struct str plot = curves_text(c->a, curves);
    if (plot.n)
        buf_fmt(&b, "\n```\n%.*s```\n", STR(plot));
    if (r->profile.n)
        buf_fmt(&b, "\n## Where the time went\n\n```\n%.*s```\n", STR(r->profile));
    buf_fmt(&b, "\n## Facts\n\n```json\n%.*s\n```\n", STR(r->facts));
    return buf_get(&b);
}

static err results_write(struct cli *c, const struct train_form *f, const struct train_result *r,
                         const struct curves *curves)
{
    TRY(file_write(fmtz(c->a, "%s/model.onnx", f->dir), r->onnx));
    TRY(file_write(fmtz(c->a, "%s/baseline.json", f->dir), r->baseline));
    if (r->native.n)
        TRY(file_write(fmtz(c->a, "%s/model.json", f->dir), r->native));
    TRY(file_write(fmtz(c->a, "%s/report.md", f->dir), report_text(c, f, r, curves)));
    return file_write(fmtz(c->a, "%s/result.json", f->dir), result_text(c->a, f, r));
}

static void measures_cells(struct arena *a, struct table *t, const char *prefix, yyjson_val *measures)
{
    yyjson_val *key, *one;
    size_t i, n;
    if (!measures)
        return;
    yyjson_obj_foreach (measures, i, n, key, one) {
        table_cell(t, fmt(a, "%s%s", prefix, yyjson_get_str(key)));
        table_cell(t, yyjson_is_num(one) ? fmt(a, "%.6g", yyjson_get_num(one)) : S("-"));
    }
}

static void metrics_table(struct cli *c, yyjson_val *v)
{
    struct table t = table_new(c->a, 2);
    table_heading(&t, S("measure"));
    table_heading(&t, S("value"));
    measures_cells(c->a, &t, "", yyjson_obj_get(v, "metrics"));
    measures_cells(c->a, &t, "test.", yyjson_obj_get(v, "test"));
    table_cell(&t, S("model"));
    table_cell(&t, json_text_at(c->a, v, "model"));
    cli_table(c, &t);
}

static err results_show(struct cli *c, const struct train_form *f, const struct train_result *r,
                        const struct curves *curves)
{
    yyjson_val *v;
    cli_progress_end();
    if (f->quiet)
        return NULL;
    TRY(json_parse(c->a, result_text(c->a, f, r), &v));
    if (c->output == OUT_TABLE) {
        struct str plot = curves_text(c->a, curves);
        fprintf(stderr, "%.*s", STR(plot));
        if (r->profile.n)
            fprintf(stderr, "\n%.*s\n", STR(r->profile));
    }
    return cli_show(c, v, metrics_table);
}

/* ---- one training ---- */

static err files_of(struct arena *a, struct train_form *f, struct train_job *job)
{
    const struct train_data *d = &f->with.data;
    const struct train_file *list = d->files.v;
    size_t n = d->files.n + (d->path.n > 0);
    struct train_source *out = NEW_N(a, struct train_source, n + 1);
    if (f->with.rows.n)
        return err_hint(err_new(INVALID, "rows: %.*s is a version that a server has", STR(f->with.rows)),
                        "--server URL trains there; data: {path: FILE} trains here");
    if (!n)
        return err_field(err_hint(err_new(INVALID, "the form names no data"), "data: {path: FILE}"),
                         S("data"));
    if (d->path.n)
        out[0].path = path_from(a, f->base, d->path);
    for (size_t i = 0; i < d->files.n; i++)
        out[i + (d->path.n > 0)] = (struct train_source){ path_from(a, f->base, list[i].path), list[i].format,
                                                          list[i].part, list[i].column };
    job->files = out;
    job->n_files = n;
    const struct onnx_with *onnx = &f->with.model.onnx;
    if (onnx->file.n)
        TRY(file_read(a, str_z(a, path_from(a, f->base, onnx->file)), (size_t)1 << 31, &job->onnx));
    return NULL;
}

static err local_train(struct cli *c, struct train_form *f, bool resume)
{
    struct local l = { .c = c, .form = f, .terminal = cli_tty(stderr) };
    auto_fclose FILE *log = NULL, *metrics = NULL;
    struct train_job job = {
        .with = &f->with, .chosen = f->chosen, .dir = f->dir, .threads = cpu_count(), .resume = resume
    };
    struct train_result r;
    TRY(files_of(c->a, f, &job));
    if (f->with.resources.cpu > 0 && f->with.resources.cpu < job.threads)
        job.threads = (int)f->with.resources.cpu;
    job.memory = f->with.resources.memory;
    TRY(file_open(c->a, f->dir, "out.log", &log));
    TRY(file_open(c->a, f->dir, "metrics.jsonl", &metrics));
    l.log = log;
    l.metrics = metrics;
    struct train_listener listener = { on_say, on_metric, on_progress, on_stopped, &l };
    stop_watch();
    err e = str_is(f->chosen->name, "trees") ? train_trees(c->a, &job, &listener, &r)
                                             : train_network(c->a, &job, &listener, &r);
    if (e) {
        fprintf(log, "error: %.*s\n", STR(e->text));
        return e;
    }
    TRY(results_write(c, f, &r, &l.curves));
    return results_show(c, f, &r, &l.curves);
}

/* ---- on a server ---- */

static struct str job_path(struct cli *c, struct str name, const char *action)
{
    return fmt(c->a, "/api/v1/projects/%.*s/jobs/%.*s%s", STR(c->project), STR(url_encode(c->a, name)),
               action);
}

static err job_submit(struct cli *c, struct train_form *f, struct str name)
{
    struct json j = json_new(c->a);
    json_obj(&j);
    json_kstr(&j, "apiVersion", S("dhow/v1"));
    json_kstr(&j, "kind", S("Job"));
    json_kraw(&j, "metadata", fmt(c->a, "{\"name\":\"%.*s\"}", STR(name)));
    json_key(&j, S("spec"));
    json_obj(&j);
    json_kstr(&j, "type", S("train"));
    json_kraw(&j, "with", f->text);
    if (f->with.resources.cpu)
        json_ki64(&j, "cpu", f->with.resources.cpu);
    if (f->with.resources.memory)
        json_ki64(&j, "memory", f->with.resources.memory);
    json_obj_end(&j);
    json_obj_end(&j);
    return cli_call(c, M_PUT, job_path(c, name, ""), json_get(&j), NULL);
}

static void job_progress(struct cli *c, struct str name, yyjson_val *v)
{
    double total = yyjson_get_num(json_at(v, "status.progress.total")),
           done = yyjson_get_num(json_at(v, "status.progress.done"));
    struct str what = json_text_at(c->a, v, "status.progress.what"),
               phase = json_text_at(c->a, v, "status.phase");
    if (total > 0)
        cli_progress("%.*s: %.*s, %.0f/%.0f %.*s", STR(name), STR(phase), done, total, STR(what));
    else
        cli_progress("%.*s: %.*s %.*s", STR(name), STR(phase), STR(json_text_at(c->a, v, "status.reason")));
}

/* Until it succeeded; INTERNAL that says why it did not. What it says meanwhile is shown. */
static err job_wait(struct cli *c, struct str name, yyjson_val **out)
{
    size_t shown = 0;
    for (;; usleep(LOOK_US)) {
        struct http_reply log;
        yyjson_val *v;
        TRY(cli_call(c, M_GET, job_path(c, name, ""), S(""), &v));
        struct str phase = json_text_at(c->a, v, "status.phase");
        TRY(cli_call_raw(c, M_GET, fmt(c->a, "%.*s?offset=%zu", STR(job_path(c, name, "/logs")), shown),
                         S(""), &log));
        if (log.body.n) {
            cli_progress_end();
            fwrite(log.body.p, 1, log.body.n, stderr);
        }
        shown += log.body.n;
        job_progress(c, name, v);
        if (log.body.n)
            continue; /* all that it said is shown before its end is */
        if (str_is(phase, "failed") || str_is(phase, "cancelled")) {
            cli_progress_end();
            FAIL(INTERNAL, "job '%.*s' %.*s: %.*s", STR(name), STR(phase),
                 STR(json_text_at(c->a, v, "status.reason")));
        }
        if (str_is(phase, "succeeded")) {
            cli_progress_end();
            *out = v;
            return NULL;
        }
    }
}

static void job_table(struct cli *c, yyjson_val *v)
{
    struct table t = table_new(c->a, 2);
    yyjson_val *m;
    table_heading(&t, S("measure"));
    table_heading(&t, S("value"));
    if (!json_parse(c->a, json_text_at(c->a, v, "status.result.metrics"), &m))
        measures_cells(c->a, &t, "", m);
    if (!json_parse(c->a, json_text_at(c->a, v, "status.result.test"), &m))
        measures_cells(c->a, &t, "test.", m);
    table_cell(&t, S("job"));
    table_cell(&t, json_text_at(c->a, v, "metadata.name"));
    cli_table(c, &t);
}

static err server_train(struct cli *c, struct train_form *f)
{
    struct str name = fmt(c->a, "%.*s-%.*s", STR(str_sub(f->name, 0, 30)), STR(id_new(c->a)));
    yyjson_val *v;
    TRY(train_job_check(c->a, &f->with, S("")));
    TRY(job_submit(c, f, name));
    fprintf(stderr, "job %.*s\n", STR(name));
    if (cli_has(c, "detach")) {
        printf("%.*s\n", STR(name));
        return NULL;
    }
    TRY(job_wait(c, name, &v));
    return cli_show(c, v, job_table);
}

/* ---- the verb ---- */

bool train_on_server(const struct cli *c)
{
    const char *env = getenv("DHOW_SERVER");
    return cli_has(c, "server") || (env && *env);
}

err form_check(struct arena *a, yyjson_mut_doc *doc, struct train_form *f)
{
    yyjson_val *v;
    f->text = form_text(a, doc);
    TRY(json_parse(a, f->text, &v));
    TRY(schema_read(&train_with_schema, a, S(""), v, 0, &f->with));
    return train_form_chosen(a, S(""), v, &f->with, &f->chosen);
}

static err form_make(struct cli *c, struct train_form *f)
{
    const char *set, *path = c->args[0];
    yyjson_mut_doc *doc;
    TRY(form_load(c->a, path, &doc));
    for (int i = 0; (set = cli_option_at(c, "set", i)); i++)
        TRY(form_set(c->a, doc, str_of(set)));
    if (cli_has(c, "profile"))
        TRY(form_set(c->a, doc, S("profile=true")));
    yyjson_mut_val *root = yyjson_mut_doc_get_root(doc), *name = yyjson_mut_obj_get(root, "name"),
                   *sweep = yyjson_mut_obj_get(root, "sweep");
    f->base = folder_of(str_of(path));
    f->name = yyjson_mut_is_str(name) ? str_dup(c->a, str_of(yyjson_mut_get_str(name)))
                                      : stem_of(c->a, str_of(path));
    if (!name_ok(f->name))
        return err_hint(err_new(INVALID, "'%.*s' is no name for a run", STR(f->name)), "name: digits");
    if (sweep) {
        char *text = yyjson_mut_val_write(sweep, 0, NULL);
        f->sweep = str_dup(c->a, str_of(text ? text : ""));
        free(text);
    }
    yyjson_mut_obj_remove_key(root, "name");
    yyjson_mut_obj_remove_key(root, "sweep");
    f->doc = doc;
    return form_check(c->a, doc, f);
}

/* Is there something to go on with, and is it here? */
static err resume_check(struct cli *c, const struct train_form *f)
{
    if (train_on_server(c))
        return err_hint(err_new(INVALID, "--resume goes on with a run of this machine"),
                        "a job that a server tries again goes on from its last checkpoint by itself");
    if (str_is(f->chosen->name, "trees"))
        return err_hint(err_new(INVALID, "trees leave no checkpoints to go on with"),
                        "they are learned from the start; model.trees.rounds bounds how many");
    return NULL;
}

static err train_run(struct cli *c)
{
    struct train_form f = { .quiet = cli_has(c, "quiet") };
    bool resume = cli_has(c, "resume");
    TRY(form_make(c, &f));
    if (f.sweep.n)
        return sweep_run(c, &f);
    if (resume)
        TRY(resume_check(c, &f));
    if (train_on_server(c))
        return server_train(c, &f);
    setenv("ORT_DISABLE_TELEMETRY", "1", 1); /* before any thread, so before ONNX Runtime can be loaded */
    TRY(run_folder(c, &f, resume));
    TRY(file_write(fmtz(c->a, "%s/spec.json", f.dir), f.text));
    if (!f.quiet)
        fprintf(stderr, "run %s\n", f.dir);
    return local_train(c, &f, resume);
}

static const struct option train_options[] = {
    { "set", 0, "KEY=VALUE", "Another value for a key of the form, optimizer.rate=0.01; may be given again.",
      NULL, true },
    { "resume", 0, NULL, "Go on from the newest whole checkpoint of the newest run of this name.", NULL,
      false },
    { "profile", 0, NULL, "Tell where the time goes, and write a trace for Perfetto.", NULL, false },
    { "runs", 0, "DIR", "Folder of runs; each gets NAME-N in it.", "runs", false },
    { "dir", 0, "DIR", "The folder of this run itself.", NULL, false },
    { "detach", 'd', NULL, "With a server: start the job or sweep and print its name; do not wait.", NULL,
      false },
    { "quiet", 'q', NULL, "Say nothing but errors.", NULL, false },
    { 0 },
};
const struct cli_verb verb_train = {
    .name = "train",
    .args = "FILE",
    .doc = "Train a model from a YAML form: here, or with --server as a job there.",
    .examples =
        "  dhow train digits.yaml\n  dhow train digits.yaml --set epochs=20 --set optimizer.rate=0.01\n"
        "  dhow train digits.yaml --resume\n  dhow train late.yaml --server http://127.0.0.1:7300",
    .options = train_options,
    .args_min = 1,
    .args_max = 1,
    .run = train_run,
    .client = true,
};
