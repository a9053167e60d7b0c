// SPDX-License-Identifier: Apache-2.0
/* run, cancel, resume, logs, output: pipelines and jobs at work. */
#include "cli/cli.h"
#include <stdlib.h>
#include <unistd.h>

enum { LOOK_US = 150000, STEPS_MAX = 100 };

static struct str run_path(struct cli *c, const char *plural, struct str name, const char *action)
{
    return fmt(c->a, "/api/v1/projects/%.*s/%s/%.*s%s%s", STR(c->project), plural,
               STR(url_encode(c->a, name)), action ? "/" : "", action ? action : "");
}

static double seconds_of(struct cli *c, yyjson_val *step)
{
    int64_t from = 0, to = 0;
    if (!time_parse(json_text_at(c->a, step, "started"), &from))
        return 0;
    if (!time_parse(json_text_at(c->a, step, "finished"), &to))
        to = now_us();
    return (double)(to - from) / 1e6;
}

/* "train 120/200 rounds" of the steps at work, in one line. */
static void progress_line(struct cli *c, struct str run, yyjson_val *steps)
{
    struct buf b = buf_new(c->a);
    size_t i, n;
    yyjson_val *s;
    yyjson_arr_foreach (steps, i, n, s) {
        if (!str_is(json_text_at(c->a, s, "phase"), "running"))
            continue;
        double total = yyjson_get_num(json_at(s, "progress.total")),
               done = yyjson_get_num(json_at(s, "progress.done"));
        buf_fmt(&b, "  %.*s %.0fs", STR(json_text_at(c->a, s, "name")), seconds_of(c, s));
        if (total > 0)
            buf_fmt(&b, " %.0f%% %.*s", 100 * done / total, STR(json_text_at(c->a, s, "progress.what")));
    }
    cli_progress("%.*s%.*s", STR(run), STR(buf_get(&b)));
}

static void step_print(struct cli *c, yyjson_val *s)
{
    struct str phase = json_text_at(c->a, s, "phase");
    cli_progress_end();
    fprintf(stderr, "  %-10.*s %-10.*s %6.1fs\n", STR(json_text_at(c->a, s, "name")), STR(phase),
            seconds_of(c, s));
}

/* The last word on a run: that it succeeded, or what failed, why, and what can be done. */
static void run_ended(struct cli *c, struct str run, yyjson_val *v)
{
    struct str phase = json_text_at(c->a, v, "status.phase"),
               message = json_text_at(c->a, v, "status.message");
    size_t i, n;
    yyjson_val *s;
    if (str_is(phase, "succeeded")) {
        fprintf(stderr, "run %.*s succeeded\n", STR(run));
        return;
    }
    err e = err_new(INTERNAL, "run '%.*s' %.*s%s%.*s", STR(run), STR(phase), message.n ? ": " : "",
                    STR(message));
    if (str_is(phase, "failed") && yyjson_get_sint(json_at(v, "status.exitCode")) == 1)
        yyjson_arr_foreach (json_at(v, "status.steps"), i, n, s)
            if (str_is(json_text_at(c->a, s, "phase"), "failed") && json_text_at(c->a, s, "job").n)
                e = err_hint(e, "`dhow logs %.*s %.*s` shows its output, `dhow resume %.*s` tries it again",
                             STR(run), STR(json_text_at(c->a, s, "name")), STR(run));
    cli_error(e);
}

err run_watch(struct cli *c, struct str run, int *exit_code)
{
    bool told[STEPS_MAX] = { 0 };
    struct arena *outer = c->a;
    for (bool over = false; !over; usleep(over ? 0 : LOOK_US)) {
        auto_arena struct arena *a = arena_new(0);
        c->a = a;
        yyjson_val *v, *s;
        size_t i, n;
        err e = cli_call(c, M_GET, run_path(c, "pipelineruns", run, NULL), S(""), &v);
        c->a = outer;
        if (e)
            return e;
        c->a = a;
        struct str phase = json_text_at(a, v, "status.phase");
        /* Asked to resume, but not taken up yet: what the status says is the attempt before. */
        if (yyjson_get_sint(json_at(v, "spec.resumes")) > yyjson_get_sint(json_at(v, "status.resumed"))) {
            c->a = outer;
            continue;
        }
        over = str_is(phase, "succeeded") || str_is(phase, "failed") || str_is(phase, "cancelled");
        yyjson_val *steps = json_at(v, "status.steps");
        yyjson_arr_foreach (steps, i, n, s) {
            struct str p = json_text_at(a, s, "phase");
            if (i < STEPS_MAX && !told[i] && p.n && !str_is(p, "waiting") && !str_is(p, "running")) {
                step_print(c, s);
                told[i] = true;
            }
        }
        progress_line(c, run, steps);
        if (over) {
            cli_progress_end();
            *exit_code = (int)yyjson_get_sint(json_at(v, "status.exitCode"));
            run_ended(c, run, v);
        }
        c->a = outer;
    }
    return NULL;
}

/* "--param key=value", any number of them. */
static err params_write(struct cli *c, struct json *j)
{
    const char *p;
    json_obj(j);
    json_key(j, S("params"));
    json_obj(j);
    for (int i = 0; (p = cli_option_at(c, "param", i)); i++) {
        struct str rest = str_of(p), key;
        if (!strchr(p, '=') || !str_cut(&rest, '=', &key))
            FAIL(INVALID, "--param takes KEY=VALUE, not '%s'", p);
        json_key(j, key);
        json_str(j, rest);
    }
    json_obj_end(j);
    json_obj_end(j);
    return NULL;
}

/* What a job has said meanwhile; may be nothing. */
static void output_put(struct str s)
{
    if (s.n)
        fwrite(s.p, 1, s.n, stdout);
    fflush(stdout);
}

static err command_run(struct cli *c)
{
    struct json j = json_new(c->a);
    struct str name = fmt(c->a, "job-%.*s", STR(id_new(c->a)));
    yyjson_val *v;
    json_obj(&j);
    json_kstr(&j, "apiVersion", S("dhow/v1"));
    json_kstr(&j, "kind", S("Job"));
    json_kraw(&j, "metadata", fmt(c->a, "{\"name\":\"%.*s\"}", STR(name)));
    json_key(&j, S("spec"));
    json_obj(&j);
    json_kstr(&j, "type", S("command"));
    json_key(&j, S("command"));
    json_arr(&j);
    for (int i = 0; i < c->n_rest; i++)
        json_str(&j, str_of(c->rest[i]));
    json_arr_end(&j);
    json_obj_end(&j);
    json_obj_end(&j);
    TRY(cli_call(c, M_PUT, run_path(c, "jobs", name, NULL), json_get(&j), NULL));
    fprintf(stderr, "job %.*s\n", STR(name));
    for (size_t shown = 0; !cli_has(c, "detach"); usleep(LOOK_US)) {
        struct http_reply log;
        TRY(cli_call(c, M_GET, run_path(c, "jobs", name, NULL), S(""), &v));
        struct str phase = json_text_at(c->a, v, "status.phase");
        TRY(cli_call_raw(c, M_GET,
                         fmt(c->a, "%.*s?offset=%zu", STR(run_path(c, "jobs", name, "logs")), shown), S(""),
                         &log));
        output_put(log.body);
        shown += log.body.n;
        if (str_is(phase, "failed") || str_is(phase, "cancelled"))
            FAIL(INTERNAL, "job '%.*s' %.*s: %.*s", STR(name), STR(phase),
                 STR(json_text_at(c->a, v, "status.reason")));
        if (str_is(phase, "succeeded") && !log.body.n)
            return NULL;
    }
    return NULL;
}

static err run_run(struct cli *c)
{
    if (c->n_rest)
        return command_run(c);
    if (!c->n_args)
        return err_hint(err_new(INVALID, "run needs a pipeline, or a command after --"),
                        "dhow get pipelines");
    struct json j = json_new(c->a);
    yyjson_val *v;
    TRY(params_write(c, &j));
    TRY(cli_call(c, M_POST, run_path(c, "pipelines", str_of(c->args[0]), "run"), json_get(&j), &v));
    struct str run = json_text_at(c->a, v, "run");
    if (!cli_has(c, "detach"))
        TRY(run_watch(c, run, &c->exit));
    if (c->output != OUT_TABLE) {
        TRY(cli_call(c, M_GET, run_path(c, "pipelineruns", run, NULL), S(""), &v));
        return cli_show(c, v, NULL);
    }
    if (cli_has(c, "detach"))
        printf("%.*s\n", STR(run));
    return NULL;
}

/* A run, else a sweep, else a job of that name. */
static err stop_run(struct cli *c)
{
    static const char *const plurals[] = { "pipelineruns", "sweeps", "jobs" };
    struct str name = str_of(c->args[0]);
    err e = NULL;
    for (size_t i = 0; i < sizeof plurals / sizeof *plurals; i++) {
        e = cli_call(c, M_POST, run_path(c, plurals[i], name, "cancel"), S("{}"), NULL);
        if (!e || e->code != NOT_FOUND)
            break;
    }
    if (e && e->code == NOT_FOUND)
        return err_hint(err_new(NOT_FOUND, "there is no run, sweep or job '%.*s' in project '%.*s'",
                                STR(name), STR(c->project)),
                        "`dhow get pipelineruns`, `dhow get sweeps` and `dhow get jobs` list what there is");
    TRY(e);
    printf("%.*s is being cancelled\n", STR(name));
    return NULL;
}

static err resume_run(struct cli *c)
{
    struct str name = str_of(c->args[0]);
    TRY(cli_call(c, M_POST, run_path(c, "pipelineruns", name, "resume"), S("{}"), NULL));
    if (cli_has(c, "detach"))
        return NULL;
    return run_watch(c, name, &c->exit);
}

/* The job of that name, or of a run's step (the last one begun, unless it is named). */
static err job_find(struct cli *c, const char *wanted, struct str *job)
{
    struct str name = str_of(c->args[0]);
    yyjson_val *v, *s;
    size_t i, n;
    *job = name;
    err e = cli_call(c, M_GET, run_path(c, "pipelineruns", name, NULL), S(""), &v);
    if (e && e->code == NOT_FOUND)
        return NULL;
    TRY(e);
    *job = S("");
    yyjson_arr_foreach (json_at(v, "status.steps"), i, n, s) {
        struct str its = json_text_at(c->a, s, "job"), step = json_text_at(c->a, s, "name");
        if (its.n && (!wanted || str_eq(step, str_of(wanted))))
            *job = its;
    }
    if (!job->n)
        FAIL(NOT_FOUND, "run '%.*s' has no job%s%s", STR(name), wanted ? " for step " : " yet",
             wanted ? wanted : "");
    return NULL;
}

static err logs_run(struct cli *c)
{
    struct str job;
    size_t shown = 0;
    TRY(job_find(c, c->n_args > 1 ? c->args[1] : NULL, &job));
    for (bool more = true; more;) {
        struct http_reply r;
        yyjson_val *v;
        TRY(cli_call(c, M_GET, run_path(c, "jobs", job, NULL), S(""), &v));
        struct str phase = json_text_at(c->a, v, "status.phase");
        TRY(cli_call_raw(c, M_GET, fmt(c->a, "%.*s?offset=%zu", STR(run_path(c, "jobs", job, "logs")), shown),
                         S(""), &r));
        output_put(r.body);
        shown += r.body.n;
        bool ended = str_is(phase, "succeeded") || str_is(phase, "failed") || str_is(phase, "cancelled");
        more = r.body.n > 0 || (cli_has(c, "follow") && !ended);
        if (more && !r.body.n)
            usleep(LOOK_US);
    }
    return NULL;
}

static err output_run(struct cli *c)
{
    struct str job;
    struct http_reply r;
    const char *file = cli_option(c, "file");
    TRY(job_find(c, cli_option(c, "step"), &job));
    struct str action = fmt(c->a, "outputs/%.*s", STR(url_encode(c->a, str_of(c->args[1]))));
    TRY(cli_call_raw(c, M_GET, run_path(c, "jobs", job, str_z(c->a, action)), S(""), &r));
    if (file)
        return file_write(file, r.body);
    output_put(r.body);
    return NULL;
}

static const struct option run_options[] = {
    { "param", 0, "KEY=VALUE", "A parameter of the pipeline; may be given again.", NULL, true },
    { "detach", 'd', NULL, "Start it and print its name; do not wait.", NULL, false },
    { 0 },
};
static const struct option resume_options[] = { { "detach", 'd', NULL, "Do not wait.", NULL, false }, { 0 } };
static const struct option logs_options[] = { { "follow", 'f', NULL, "Go on until it ends.", NULL, false },
                                              { 0 } };
static const struct option output_options[] = {
    { "step", 0, "NAME", "Of a run: the step whose job is meant; else the last one begun.", NULL, false },
    { "file", 'f', "FILE", "Where it goes; else to standard output.", NULL, false },
    { 0 },
};
const struct cli_verb verb_run = {
    .name = "run",
    .args = "PIPELINE | -- COMMAND...",
    .doc = "Run a pipeline, or any command as a tracked job, and watch it; exit code 3 if a gate refused it.",
    .examples = "  dhow run late\n  dhow run late --param until=2001-06-01\n  dhow run -- python3 train.py",
    .options = run_options,
    .args_max = 1,
    .run = run_run,
    .client = true,
};
const struct cli_verb verb_cancel = {
    .name = "cancel",
    .args = "RUN|SWEEP|JOB",
    .doc = "Stop a pipeline run, a sweep or a job.",
    .examples = "  dhow cancel late-3",
    .args_min = 1,
    .args_max = 1,
    .run = stop_run,
    .client = true,
};
const struct cli_verb verb_resume = {
    .name = "resume",
    .args = "RUN",
    .doc = "Go on from the step that failed; what succeeded is kept.",
    .examples = "  dhow resume late-3",
    .options = resume_options,
    .args_min = 1,
    .args_max = 1,
    .run = resume_run,
    .client = true,
};
const struct cli_verb verb_logs = {
    .name = "logs",
    .args = "RUN [STEP] | JOB",
    .doc = "Print what a job said.",
    .examples = "  dhow logs late-1 train\n  dhow logs late-1-train -f",
    .options = logs_options,
    .args_min = 1,
    .args_max = 2,
    .run = logs_run,
    .client = true,
};
const struct cli_verb verb_output = {
    .name = "output",
    .args = "RUN|JOB NAME",
    .doc = "Fetch a file that a job left: of a training onnx, native, baseline, profile.",
    .examples =
        "  dhow output digits-x7 profile -f profile.json\n  dhow output late-1 onnx --step train > late.onnx",
    .options = output_options,
    .args_min = 2,
    .args_max = 2,
    .run = output_run,
    .client = true,
};
