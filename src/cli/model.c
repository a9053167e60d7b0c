// SPDX-License-Identifier: Apache-2.0
/* model: what is served, as the inference protocol sees it; and how fast it answers. */
#include "cli/bench.h"
#include "cli/request.h"
#include <stdlib.h>

enum { LEVELS_MAX = 32, CLIENTS_MAX = 1024, BATCH_MAX = 1 << 20, BAR = 20, STEPS = 1000 };

static struct str path_of(struct cli *c, const char *rest)
{
    return fmt(c->a, "%.*s%s", STR(model_path(c->a, str_of(c->args[1]), NULL)), rest);
}

static void list_table(struct cli *c, yyjson_val *v)
{
    static const char *const keys[] = { "name", "version", "state", "reason" };
    struct table t = table_new(c->a, sizeof keys / sizeof *keys);
    size_t i, n, k;
    yyjson_val *m;
    for (k = 0; k < sizeof keys / sizeof *keys; k++)
        table_heading(&t, str_of(keys[k]));
    yyjson_arr_foreach (v, i, n, m)
        for (k = 0; k < sizeof keys / sizeof *keys; k++)
            table_cell(&t, json_text_at(c->a, m, keys[k]));
    cli_table(c, &t);
}

static err list_run(struct cli *c)
{
    yyjson_val *v;
    TRY(cli_call(c, M_POST, S("/v2/repository/index"), S("{}"), &v));
    return cli_show(c, v, list_table);
}

static err config_run(struct cli *c)
{
    yyjson_val *v;
    TRY(cli_call(c, M_GET, path_of(c, "/config"), S(""), &v));
    return cli_show(c, v, NULL);
}

/* load, unload: waits until it is so. */
static err switch_run(struct cli *c)
{
    struct str path = fmt(c->a, "/v2/repository/models/%.*s/%s", STR(url_encode(c->a, str_of(c->args[1]))),
                          c->args[0]);
    return cli_call(c, M_POST, path, S("{}"), NULL);
}

/* ---- stats ---- */

static struct str mean_us(struct cli *c, yyjson_val *stats, const char *key)
{
    double n = yyjson_get_num(json_at(json_at(stats, key), "count")),
           ns = yyjson_get_num(json_at(json_at(stats, key), "ns"));
    return n > 0 ? fmt(c->a, "%.0f", ns / n / 1e3) : S("-");
}

static void stats_table(struct cli *c, yyjson_val *v)
{
    static const char *const times[] = { "success", "queue", "compute_input", "compute_infer",
                                         "compute_output" };
    static const char *const heads[] = {
        "name",   "version",  "answered", "failed",   "rows",     "runs",
        "cached", "total us", "queue us", "input us", "infer us", "output us"
    };
    struct table t = table_new(c->a, sizeof heads / sizeof *heads);
    size_t i, n;
    yyjson_val *m;
    for (i = 0; i < sizeof heads / sizeof *heads; i++)
        table_heading(&t, str_of(heads[i]));
    yyjson_arr_foreach (yyjson_obj_get(v, "model_stats"), i, n, m) {
        yyjson_val *stats = yyjson_obj_get(m, "inference_stats");
        table_cell(&t, json_text_at(c->a, m, "name"));
        table_cell(&t, json_text_at(c->a, m, "version"));
        table_cell(&t, json_text_at(c->a, stats, "success.count"));
        table_cell(&t, json_text_at(c->a, stats, "fail.count"));
        table_cell(&t, json_text_at(c->a, m, "inference_count"));
        table_cell(&t, json_text_at(c->a, m, "execution_count"));
        table_cell(&t, json_text_at(c->a, stats, "cache_hit.count"));
        for (size_t k = 0; k < sizeof times / sizeof *times; k++)
            table_cell(&t, mean_us(c, stats, times[k]));
    }
    cli_table(c, &t);
}

static err stats_run(struct cli *c)
{
    yyjson_val *v;
    TRY(cli_call(c, M_GET, path_of(c, "/stats"), S(""), &v));
    return cli_show(c, v, stats_table);
}

/* ---- bench: the request ---- */

/* Values from 0 to below 1 (below 100 where they are whole), the same in each run. */
struct made_up {
    uint64_t seed;
    char text[32];
};

static err made_up(void *arg, const struct input *in, size_t i, struct str *out)
{
    struct made_up *m = arg;
    (void)i;
    m->seed = m->seed * 6364136223846793005u + 1442695040888963407u;
    int step = (int)((m->seed >> 40) % STEPS);
    bool real = str_starts(in->datatype, S("FP")) || str_is(in->datatype, "BF16"),
         truth = str_is(in->datatype, "BOOL");
    int n = real ? snprintf(m->text, sizeof m->text, "0.%03d", step)
                 : snprintf(m->text, sizeof m->text, "%d", truth ? step % 2 : step / 10);
    *out = (struct str){ m->text, (size_t)n };
    return NULL;
}

/* The inputs that the model says it has. Open sizes: the first is the batch, further ones are 1. */
static err body_make(struct cli *c, enum request_form form, int64_t batch, struct str *out, size_t *json_n)
{
    struct inputs in;
    struct made_up values = { 1, "" };
    TRY(inputs_get(c, path_of(c, ""), &in));
    for (size_t i = 0; i < in.n; i++) {
        for (size_t d = 0; d < in.v[i].rank; d++)
            if (in.v[i].dims[d] < 0)
                in.v[i].dims[d] = d ? 1 : batch;
        TRY(input_settle(&in.v[i]));
    }
    struct request r = { .model = str_of(c->args[1]),
                         .v = in.v,
                         .n = in.n,
                         .binary_out = true,
                         .value = made_up,
                         .arg = &values };
    err e = request_make(c->a, &r, form, out, json_n);
    return e && !e->hint.n ? err_hint(e, "give the request with --body") : e;
}

static const struct protocol {
    const char *name;
    const struct wire *wire;
    enum request_form form;
    struct str type;
} protocols[] = {
    { "rest", &wire_http, REQUEST_JSON, S_INIT("application/json") },
    { "binary", &wire_http, REQUEST_BINARY, S_INIT("application/octet-stream") },
    { "grpc", &wire_grpc, REQUEST_GRPC, S_INIT("application/grpc") },
};

static err protocol_find(struct cli *c, const struct protocol **out)
{
    const char *name = cli_option(c, "protocol");
    for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
        if (!strcmp(protocols[i].name, name)) {
            *out = &protocols[i];
            return NULL;
        }
    FAIL(INVALID, "--protocol is rest, binary or grpc, not '%s'", name);
}

static void header_put(struct bench_target *t, struct str name, struct str value)
{
    if (value.n)
        t->headers[t->headers_n++] = (struct header){ name, value };
}

static err target_make(struct cli *c, struct bench_target *t, int64_t batch)
{
    struct str token;
    size_t json_n = 0;
    const struct protocol *p;
    const char *file = cli_option(c, "body");
    TRY(protocol_find(c, &p));
    if (file && p->form == REQUEST_BINARY)
        return err_hint(err_new(INVALID, "--body is a body of JSON, or a message of gRPC"),
                        "--protocol rest");
    TRY(cli_token(c, &token));
    TRY(bench_target(c->a, str_of(cli_option(c, "server")), t));
    TRY(file ? file_read(c->a, file, REQUEST_BYTES_MAX, &t->body)
             : body_make(c, p->form, batch, &t->body, &json_n));
    if (!t->body.n)
        FAIL(INVALID, "%s is empty", file);
    t->wire = p->wire;
    t->path = p->form == REQUEST_GRPC ? S("/inference.GRPCInferenceService/ModelInfer")
                                      : path_of(c, "/infer");
    header_put(t, S("authorization"), token.n ? fmt(c->a, "Bearer %.*s", STR(token)) : S(""));
    header_put(t, S("x-dhow-project"), c->project);
    header_put(t, S("content-type"), p->type);
    header_put(t, S("inference-header-content-length"), json_n ? fmt(c->a, "%zu", json_n) : S(""));
    return NULL;
}

/* ---- bench: the load ---- */

struct plan {
    int clients[LEVELS_MAX];
    size_t n;
    int64_t batch;
    struct bench_load load;
    struct strs percentiles; /* as they were given */
};

static err clients_read(struct cli *c, struct plan *p)
{
    for (struct str rest = str_of(cli_option(c, "concurrency")), part; str_cut(&rest, ',', &part);) {
        int64_t v;
        if (!str_i64(str_trim(part), &v) || v < 1 || v > CLIENTS_MAX || p->n == LEVELS_MAX)
            FAIL(INVALID, "--concurrency is a list of at most %d numbers from 1 to %d", LEVELS_MAX,
                 CLIENTS_MAX);
        p->clients[p->n++] = (int)v;
    }
    return NULL;
}

static err percentiles_read(struct cli *c, struct plan *p)
{
    for (struct str rest = str_of(cli_option(c, "percentile")), part; str_cut(&rest, ',', &part);) {
        double v;
        if (!str_f64(str_trim(part), &v) || !(v > 0 && v < 100) || p->percentiles.n == BENCH_PERCENTILES)
            FAIL(INVALID, "--percentile is a list of at most %d numbers between 0 and 100",
                 BENCH_PERCENTILES);
        push(c->a, &p->percentiles, str_trim(part));
        p->load.percentiles[p->load.percentiles_n++] = v;
    }
    return NULL;
}

static err whole_read(struct cli *c, const char *name, int64_t max, int64_t *out)
{
    if (!str_i64(str_of(cli_option(c, name)), out) || *out < 1 || *out > max)
        FAIL(INVALID, "--%s is a number from 1 to %lld", name, (long long)max);
    return NULL;
}

static err plan_read(struct cli *c, struct plan *p)
{
    int64_t threads;
    TRY(clients_read(c, p));
    TRY(percentiles_read(c, p));
    TRY(whole_read(c, "batch", BATCH_MAX, &p->batch));
    TRY(whole_read(c, "threads", BENCH_THREADS_MAX, &threads));
    p->load.threads = (int)threads;
    if (!p->n || !p->percentiles.n)
        FAIL(INVALID, "--concurrency and --percentile are lists of numbers");
    if (!str_f64(str_of(cli_option(c, "seconds")), &p->load.seconds) ||
        !(p->load.seconds > 0 && p->load.seconds <= 3600))
        FAIL(INVALID, "--seconds is a number up to 3600");
    return NULL;
}

/* ---- bench: the curve ---- */

/* Processor time of the server so far, from its metrics; NaN if it does not tell. */
static double server_cpu(struct cli *c)
{
    static const struct str name = S_INIT("process_cpu_seconds_total ");
    struct http_reply r;
    double v;
    if (cli_call_raw(c, M_GET, S("/metrics"), S(""), &r))
        return (double)NAN;
    for (struct str rest = r.body, line; str_cut(&rest, '\n', &line);)
        if (str_starts(line, name) && str_f64(str_sub(line, name.n, line.n), &v))
            return v;
    return (double)NAN;
}

static void refusals_json(struct json *j, const struct bench_level *l)
{
    json_key(j, S("errors"));
    json_obj(j);
    for (size_t i = 0; i < l->refusals_n; i++) {
        json_key(j, l->refusals[i].status);
        json_i64(j, l->refusals[i].n);
    }
    json_obj_end(j);
}

static void level_json(struct cli *c, struct json *j, const struct plan *p, const struct bench_level *l,
                       double cpu)
{
    double rate = (double)l->answered / l->seconds;
    json_obj(j);
    json_ki64(j, "concurrency", p->load.clients);
    json_ki64(j, "requests", l->answered);
    json_kf64(j, "requestsPerSecond", rate);
    json_kf64(j, "rowsPerSecond", rate * (double)p->batch);
    for (size_t i = 0; i < p->percentiles.n; i++)
        json_kf64(j, fmtz(c->a, "p%.*sus", STR(p->percentiles.v[i])), (double)l->percentiles[i] / 1e3);
    json_kf64(j, "maxUs", (double)l->max / 1e3);
    if (!isnan(cpu) && l->all)
        json_kf64(j, "serverCpuUs", cpu * 1e6 / (double)l->all);
    refusals_json(j, l);
    json_obj_end(j);
}

static double most_of(yyjson_val *levels, const char *key)
{
    double most = 0;
    size_t i, n;
    yyjson_val *l;
    yyjson_arr_foreach (levels, i, n, l)
        most = fmax(most, yyjson_get_num(yyjson_obj_get(l, key)));
    return most > 0 ? most : 1;
}

static struct str errors_text(struct cli *c, yyjson_val *errors)
{
    struct strs parts = { 0 };
    size_t i, n;
    yyjson_val *k, *v;
    if (!errors)
        return S("");
    yyjson_obj_foreach (errors, i, n, k, v)
        push(c->a, &parts, fmt(c->a, "%lldx %s", (long long)yyjson_get_sint(v), yyjson_get_str(k)));
    return str_join(c->a, parts.v, parts.n, S(", "));
}

static const struct plan *measured; /* of the one command that runs in this process */

static void bench_row(struct cli *c, struct table *t, yyjson_val *l, double most_rate, double most_us,
                      const char *last)
{
    double rate = yyjson_get_num(json_at(l, "requestsPerSecond")),
           cpu = yyjson_get_num(json_at(l, "serverCpuUs"));
    table_cell(t, json_text_at(c->a, l, "concurrency"));
    table_cell(t, fmt(c->a, "%.0f", rate));
    table_cell(t, bar_text(c->a, rate / most_rate, BAR));
    for (size_t k = 0; k < measured->percentiles.n; k++) {
        const char *key = fmtz(c->a, "p%.*sus", STR(measured->percentiles.v[k]));
        table_cell(t, fmt(c->a, "%.0f", yyjson_get_num(yyjson_obj_get(l, key))));
    }
    table_cell(t, bar_text(c->a, yyjson_get_num(yyjson_obj_get(l, last)) / most_us, BAR));
    table_cell(t, fmt(c->a, "%.0f", yyjson_get_num(json_at(l, "maxUs"))));
    table_cell(t, cpu > 0 ? fmt(c->a, "%.1f", cpu) : S(""));
    table_cell(t, errors_text(c, yyjson_obj_get(l, "errors")));
}

static void bench_table(struct cli *c, yyjson_val *v)
{
    const struct strs *p = &measured->percentiles;
    const char *last = fmtz(c->a, "p%.*sus", STR(p->v[p->n - 1]));
    double most_rate = most_of(v, "requestsPerSecond"), most_us = most_of(v, last);
    struct table t = table_new(c->a, 7 + p->n);
    size_t i, n;
    yyjson_val *l;
    table_heading(&t, S("clients"));
    table_heading(&t, S("requests/s"));
    table_heading(&t, S(" "));
    for (i = 0; i < p->n; i++)
        table_heading(&t, fmt(c->a, "p%.*s us", STR(p->v[i])));
    table_heading(&t, S(" "));
    table_heading(&t, S("max us"));
    table_heading(&t, S("server cpu us"));
    table_heading(&t, S("errors"));
    yyjson_arr_foreach (v, i, n, l)
        bench_row(c, &t, l, most_rate, most_us, last);
    cli_table(c, &t);
}

static err level_run(struct cli *c, const struct bench_target *t, struct plan *p, int clients, struct json *j)
{
    struct bench_level l;
    p->load.clients = clients;
    cli_progress("%d clients, %.3g s", clients, p->load.seconds);
    double before = server_cpu(c);
    TRY(bench_level(c->a, t, &p->load, &l));
    if (!l.answered && l.refusals_n)
        return err_hint(err_new(UNAVAILABLE, "each request failed: %.*s", STR(l.refusals[0].status)),
                        "dhow predict %s …", c->args[1]);
    if (!l.answered)
        FAIL(TIMEOUT, "nothing was answered in %.3g s", l.seconds);
    level_json(c, j, p, &l, server_cpu(c) - before);
    return NULL;
}

static err bench_run(struct cli *c)
{
    static struct plan p;
    struct bench_target t = { 0 };
    struct json j = json_new(c->a);
    yyjson_val *v;
    TRY(plan_read(c, &p));
    TRY(target_make(c, &t, p.batch));
    json_arr(&j);
    for (size_t i = 0; i < p.n; i++)
        TRY(level_run(c, &t, &p, p.clients[i], &j));
    cli_progress_end();
    json_arr_end(&j);
    TRY(json_parse(c->a, json_get(&j), &v));
    measured = &p;
    return cli_show(c, v, bench_table);
}

/* ---- the verb ---- */

static err model_run(struct cli *c)
{
    static const struct {
        const char *name;
        int args;
        err (*run)(struct cli *);
    } actions[] = { { "list", 1, list_run },   { "config", 2, config_run }, { "stats", 2, stats_run },
                    { "load", 2, switch_run }, { "unload", 2, switch_run }, { "bench", 2, bench_run } };
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
        if (strcmp(actions[i].name, c->args[0]) != 0)
            continue;
        if (c->n_args != actions[i].args)
            FAIL(INVALID, "dhow model %s takes %s", c->args[0],
                 actions[i].args == 1 ? "no deployment" : "one deployment");
        return actions[i].run(c);
    }
    FAIL(INVALID, "model knows list, config, stats, load, unload and bench, not '%s'", c->args[0]);
}

static const struct option model_options[] = {
    { "concurrency", 0, "N,…",
      "bench: clients at once, one level after the other; each asks again when it is answered (a closed loop: a slow server is asked less).",
      "1,4,16,64,256", false },
    { "seconds", 0, "N", "bench: how long a level takes, after a tenth of it to warm up.", "5", false },
    { "protocol", 0, "NAME",
      "bench: rest (JSON), binary (tensors behind the JSON) or grpc (8 calls to a connection).", "rest",
      false },
    { "body", 0, "FILE",
      "bench: the request (JSON; of grpc a ModelInferRequest); else its inputs are made up as the model describes them.",
      NULL, false },
    { "batch", 0, "N", "bench: rows of a made-up request.", "1", false },
    { "percentile", 0, "P,…",
      "bench: of the times of answered requests, the last with a bar; failed ones are counted apart, by status.",
      "50,90,99", false },
    { "threads", 0, "N", "bench: threads that make the load, when one core is not enough.", "1", false },
    { 0 },
};
const struct cli_verb verb_model = {
    .name = "model",
    .args = "list | config|stats|load|unload|bench DEPLOYMENT",
    .doc =
        "List what is served, show how and what it did, take it out of memory and back, or measure how fast it answers.",
    .examples = "  dhow model list\n  dhow model stats late\n"
                "  dhow model bench late --concurrency 1,16,64 --seconds 3\n"
                "  dhow model bench late --protocol grpc --percentile 50,99,99.9",
    .options = model_options,
    .args_min = 1,
    .args_max = 2,
    .run = model_run,
    .client = true,
};
