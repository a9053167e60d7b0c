// SPDX-License-Identifier: Apache-2.0
/* The kind Job, its actions and the routes that show what a job said. */
#include "sched/internal.h"
#include <stdlib.h>

enum { LOG_BYTES_MAX = 1 << 20 };

static err job_check(const struct resource_check *c)
{
    const struct job_spec *s = c->spec;
    if (str_is(s->type, "command") && !s->command.n)
        return err_field(err_new(INVALID, "spec.command: a job of type command needs one"),
                         S("spec.command"));
    if (!str_is(s->type, "command") && s->command.n)
        return err_field(err_new(INVALID, "spec.command: only jobs of type command have one"),
                         S("spec.command"));
    for (size_t i = 0; i < s->env.n; i++)
        if (str_find(s->env.v[i].key, '=') < s->env.v[i].key.n || !s->env.v[i].key.n)
            return err_field(
                err_new(INVALID, "spec.env: '%.*s' is no name of a variable", STR(s->env.v[i].key)),
                S("spec.env"));
    return NULL;
}

struct cancel {
    struct str project, name, who;
};

static err cancel_tx(struct tx *tx, void *arg)
{
    const struct cancel *c = arg;
    struct arena *a = tx_arena(tx);
    struct object o, after;
    struct job_spec spec;
    bool changed;
    TRY(object_get_tx(tx, a, S("Job"), c->project, c->name, &o));
    TRY(schema_read_text(&job_spec_schema, a, S("spec"), o.spec, READ_LENIENT, &spec));
    spec.cancel = true;
    o.spec = schema_text(&job_spec_schema, a, &spec, WRITE_SECRETS | WRITE_PERSONAL);
    TRY(object_put(tx, c->who, &o, -1, &after, &changed));
    return audit_append(tx, &(struct audit_entry){ .who = c->who,
                                                   .action = S("jobs.cancel"),
                                                   .project = c->project,
                                                   .kind = S("Job"),
                                                   .name = c->name,
                                                   .outcome = S("ok") });
}

err job_cancel_request(struct store *s, struct str who, struct str project, struct str name)
{
    struct cancel c = { project, name, who };
    return store_write(s, cancel_tx, &c);
}

static err job_cancel(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                      struct json *out)
{
    (void)in;
    TRY(job_cancel_request(api_store(api), req_who(r)->name, project, name));
    json_obj(out);
    json_kstr(out, "cancelled", name);
    json_obj_end(out);
    return NULL;
}

static const struct action job_actions[] = {
    { "cancel", job_cancel, NULL, "cancel",
      "Stops a job: at once if it waits, politely, then by force if it runs." },
    { 0 },
};
const struct resource job_resource = {
    .kind = "Job",
    .plural = "jobs",
    .one = "job",
    .doc = "Work that runs once in a process of its own: a step of a pipeline, a training run, a command.",
    .spec = &job_spec_schema,
    .status = &job_status_schema,
    .verbs = V_ALL,
    .check = job_check,
    .actions = job_actions,
};

/* ---- logs, metrics, files ---- */

static err job_of(struct sched *s, struct req *r, struct meta *m, struct job_spec *spec,
                  struct job_status *st)
{
    return resource_get(s->cfg.store, r->a, &job_resource, req_param(r, S("project")),
                        req_param(r, S("name")), m, spec, st);
}

/* Output from ?offset= on, at most 1 MiB; a follower asks again with what it has. */
static err job_logs(struct req *r)
{
    struct sched *s = (struct sched *)r->route->self;
    struct meta m;
    struct job_status st;
    struct str text = S(""), from;
    int64_t offset = 0;
    TRY(job_of(s, r, &m, NULL, &st));
    if (req_query(r, S("offset"), &from) && (!str_i64(from, &offset) || offset < 0))
        FAIL(INVALID, "offset: '%.*s' is not a number of bytes", STR(from));
    const char *path = fmtz(r->a, "%s/out.log", job_attempt_dir(s, r->a, m.id, st.attempts));
    if (st.log.n)
        TRY(blob_get(store_blobs(s->cfg.store), r->a, st.log, &text));
    else if (file_exists(path))
        TRY(file_map(r->a, path, &text));
    text = str_sub(text, (size_t)offset, (size_t)offset + LOG_BYTES_MAX);
    return req_reply(r, 200, "text/plain; charset=utf-8", text);
}

/* The lines of metrics.jsonl as a JSON array. */
static err job_metrics(struct req *r)
{
    struct sched *s = (struct sched *)r->route->self;
    struct meta m;
    struct job_status st;
    struct str text = S(""), line;
    TRY(job_of(s, r, &m, NULL, &st));
    const char *path = fmtz(r->a, "%s/metrics.jsonl", job_attempt_dir(s, r->a, m.id, st.attempts));
    if (file_exists(path))
        TRY(file_read(r->a, path, 64 << 20, &text));
    struct json j = json_new(r->a);
    json_arr(&j);
    while (str_cut(&text, '\n', &line)) {
        yyjson_val *v;
        if (line.n && !json_parse(r->a, line, &v)) /* the last line may be half written */
            json_raw(&j, line);
    }
    json_arr_end(&j);
    return req_reply_json(r, 200, &j);
}

/* A blob that the job's type says is among its outputs. */
static err job_output(struct req *r)
{
    struct sched *s = (struct sched *)r->route->self;
    struct job_spec spec;
    struct job_status st;
    struct str key = req_param(r, S("output")), sha = { 0 }, bytes;
    struct strs names = { 0 };
    yyjson_val *result = NULL;
    TRY(job_of(s, r, NULL, &spec, &st));
    const struct worker_type *type = sched_type(s, spec.type);
    if (st.result.n)
        TRY(json_parse(r->a, st.result, &result));
    for (const char *const *b = type ? type->blobs : NULL; b && *b; b++) {
        yyjson_val *v = yyjson_obj_get(result, *b);
        struct str text = json_text(v);
        if (text.n)
            push(r->a, &names, str_of(*b));
        if (text.n && str_eq(key, str_of(*b)))
            sha = text;
    }
    if (!sha.n)
        return err_hint(
            err_new(NOT_FOUND, "job '%.*s' left no file '%.*s'", STR(req_param(r, S("name"))), STR(key)),
            "it left %.*s", STR(names.n ? str_join(r->a, names.v, names.n, S(", ")) : S("none")));
    TRY(blob_get(store_blobs(s->cfg.store), r->a, sha, &bytes));
    return req_reply(r, 200, "application/octet-stream", bytes);
}

static const struct route rows[] = {
    { M_GET, "/api/v1/projects/{project}/jobs/{name}/logs", job_logs, .may = "jobs.read", .tag = "jobs",
      .doc = "The job's output from ?offset= on, at most 1 MiB." },
    { M_GET, "/api/v1/projects/{project}/jobs/{name}/metrics", job_metrics, .may = "jobs.read", .tag = "jobs",
      .doc = "What the job measured, one object {name, step, value, time} a line of its record." },
    { M_GET, "/api/v1/projects/{project}/jobs/{name}/outputs/{output}", job_output, .may = "jobs.export",
      .tag = "jobs",
      .doc =
          "A file that the job left: of a training onnx, native, baseline, and profile where its form asks for it." },
};

const struct route *sched_routes(struct sched *s, struct arena *a)
{
    size_t n = sizeof rows / sizeof *rows;
    struct route *r = NEW_N(a, struct route, n + 1);
    for (size_t i = 0; i < n; i++) {
        r[i] = rows[i];
        r[i].self = s;
    }
    return r;
}
