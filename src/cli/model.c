// SPDX-License-Identifier: Apache-2.0
/* model: what is served, as the inference protocol sees it; and how fast it answers. */
#include "cli/bench.h"
#include "cli/cli.h"
#include <stdlib.h>

enum { LEVELS_MAX = 32, CONNECTIONS_MAX = 1024, BATCH_MAX = 1 << 20, BODY_BYTES_MAX = 64 << 20, BAR = 30 };

static struct str path_of(struct cli *c, const char *rest)
{
    return fmt(c->a, "/v2/models/%.*s%s", STR(url_encode(c->a, str_of(c->args[1]))), rest);
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
    table_print(&t, stdout);
}

static err stats_run(struct cli *c)
{
    yyjson_val *v;
    TRY(cli_call(c, M_GET, path_of(c, "/stats"), S(""), &v));
    return cli_show(c, v, stats_table);
}

/* ---- bench: the body ---- */

struct input {
    struct str name, datatype;
    int64_t dims[8];
    size_t rank, elements, width; /* width: bytes of an element */
};

/* Open sizes: the first is the batch, further ones are 1. */
static err input_read(struct cli *c, yyjson_val *v, int64_t batch, struct input *out)
{
    static const struct {
        const char *name;
        size_t width;
    } types[] = { { "FP32", 4 },   { "FP64", 8 },   { "INT8", 1 },  { "INT16", 2 },
                  { "INT32", 4 },  { "INT64", 8 },  { "UINT8", 1 }, { "UINT16", 2 },
                  { "UINT32", 4 }, { "UINT64", 8 }, { "BOOL", 1 } };
    size_t i, n;
    yyjson_val *d;
    *out = (struct input){ .name = json_text_at(c->a, v, "name"),
                           .datatype = json_text_at(c->a, v, "datatype"),
                           .elements = 1 };
    for (i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(str_of(types[i].name), out->datatype))
            out->width = types[i].width;
    if (!out->width)
        return err_hint(err_new(UNSUPPORTED, "input '%.*s' is %.*s, for which nothing is made up",
                                STR(out->name), STR(out->datatype)),
                        "give the request with --body");
    yyjson_arr_foreach (yyjson_obj_get(v, "shape"), i, n, d) {
        if (i >= sizeof out->dims / sizeof *out->dims)
            FAIL(UNSUPPORTED, "input '%.*s' has too many dimensions", STR(out->name));
        out->dims[out->rank++] = yyjson_get_sint(d) >= 0 ? yyjson_get_sint(d) : i == 0 ? batch : 1;
        if (__builtin_mul_overflow(out->elements, (size_t)out->dims[i], &out->elements) ||
            out->elements > BODY_BYTES_MAX / 8)
            FAIL(TOO_LARGE, "input '%.*s' has too many elements", STR(out->name));
    }
    return NULL;
}

/* From 0 to below 1, the same in each run. */
static double next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (double)(*state >> 40) / (double)(1 << 24);
}

static void data_json(struct json *j, const struct input *in, uint64_t *seed)
{
    json_key(j, S("data"));
    json_arr(j);
    for (size_t i = 0; i < in->elements; i++) {
        double x = next_random(seed);
        if (str_starts(in->datatype, S("FP")))
            json_f64(j, (double)(float)x);
        else if (str_is(in->datatype, "BOOL"))
            json_bool(j, x < 0.5);
        else
            json_i64(j, (int64_t)(x * 100));
    }
    json_arr_end(j);
}

static void data_binary(struct buf *b, const struct input *in, uint64_t *seed)
{
    for (size_t i = 0; i < in->elements; i++) {
        double x = next_random(seed);
        float f = (float)x;
        uint64_t whole = str_is(in->datatype, "BOOL") ? x < 0.5 : (uint64_t)(x * 100);
        const void *v = str_is(in->datatype, "FP32")   ? (const void *)&f
                        : str_is(in->datatype, "FP64") ? &x
                                                       : (const void *)&whole;
        buf_put(b, v, in->width);
    }
}

static void input_head(struct json *j, const struct input *in)
{
    json_kstr(j, "name", in->name);
    json_kstr(j, "datatype", in->datatype);
    json_key(j, S("shape"));
    json_arr(j);
    for (size_t i = 0; i < in->rank; i++)
        json_i64(j, in->dims[i]);
    json_arr_end(j);
}

/* A request for the inputs that the model says it has; *json_n is the length of its JSON, if data follows it. */
static err body_make(struct cli *c, bool binary, int64_t batch, struct str *out, size_t *json_n)
{
    yyjson_val *v, *one;
    struct json j = json_new(c->a);
    struct buf raw = buf_new(c->a);
    struct input in;
    uint64_t seed = 1;
    size_t i, n;
    TRY(cli_call(c, M_GET, path_of(c, ""), S(""), &v));
    json_obj(&j);
    if (binary)
        json_kraw(&j, "parameters", S("{\"binary_data_output\":true}"));
    json_key(&j, S("inputs"));
    json_arr(&j);
    yyjson_arr_foreach (yyjson_obj_get(v, "inputs"), i, n, one) {
        TRY(input_read(c, one, batch, &in));
        json_obj(&j);
        input_head(&j, &in);
        if (binary)
            json_kraw(&j, "parameters", fmt(c->a, "{\"binary_data_size\":%zu}", in.elements * in.width));
        if (binary)
            data_binary(&raw, &in, &seed);
        else
            data_json(&j, &in, &seed);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    *json_n = binary ? json_get(&j).n : 0;
    *out = fmt(c->a, "%.*s", STR(json_get(&j)));
    if (binary)
        *out = str_join(c->a, (struct str[]){ *out, buf_get(&raw) }, 2, S(""));
    return NULL;
}

static err request_make(struct cli *c, struct bench_target *t, int64_t batch)
{
    struct str body, token;
    size_t json_n = 0;
    const char *file = cli_option(c, "body"), *protocol = cli_option(c, "protocol");
    bool binary = !strcmp(protocol, "binary");
    if (!binary && strcmp(protocol, "rest") != 0)
        FAIL(INVALID, "--protocol is rest or binary, not '%s'", protocol);
    TRY(cli_token(c, &token));
    TRY(bench_target(c->a, str_of(cli_option(c, "server")), t));
    TRY(file ? file_read(c->a, file, BODY_BYTES_MAX, &body) : body_make(c, binary, batch, &body, &json_n));
    struct buf b = buf_new(c->a);
    buf_fmt(&b, "POST %.*s HTTP/1.1\r\nHost: %.*s:%.*s\r\n", STR(path_of(c, "/infer")), STR(t->host),
            STR(t->port));
    if (token.n)
        buf_fmt(&b, "Authorization: Bearer %.*s\r\n", STR(token));
    if (c->project.n)
        buf_fmt(&b, "X-Dhow-Project: %.*s\r\n", STR(c->project));
    if (json_n)
        buf_fmt(&b, "Inference-Header-Content-Length: %zu\r\n", json_n);
    buf_fmt(&b, "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n",
            json_n ? "application/octet-stream" : "application/json", body.n);
    buf_str(&b, body);
    t->request = buf_get(&b);
    return NULL;
}

/* ---- bench: the curve ---- */

static err levels_read(struct cli *c, int out[LEVELS_MAX], size_t *n)
{
    *n = 0;
    for (struct str rest = str_of(cli_option(c, "concurrency")), part; str_cut(&rest, ',', &part);) {
        int64_t v;
        if (!str_i64(str_trim(part), &v) || v < 1 || v > CONNECTIONS_MAX || *n == LEVELS_MAX)
            FAIL(INVALID, "--concurrency is a list of at most %d numbers from 1 to %d", LEVELS_MAX,
                 CONNECTIONS_MAX);
        out[(*n)++] = (int)v;
    }
    return NULL;
}

static void level_json(struct json *j, const struct bench_level *l, int64_t batch)
{
    json_obj(j);
    json_ki64(j, "concurrency", l->connections);
    json_kf64(j, "requestsPerSecond", (double)l->requests / l->seconds);
    json_kf64(j, "rowsPerSecond", (double)l->requests * (double)batch / l->seconds);
    json_kf64(j, "p50us", (double)l->p50 / 1e3);
    json_kf64(j, "p90us", (double)l->p90 / 1e3);
    json_kf64(j, "p99us", (double)l->p99 / 1e3);
    json_kf64(j, "maxUs", (double)l->max / 1e3);
    json_ki64(j, "requests", l->requests);
    json_ki64(j, "refused", l->refused);
    json_obj_end(j);
}

static struct str bar_of(struct cli *c, double share)
{
    struct buf b = buf_new(c->a);
    for (int i = 0; i < BAR && i < (int)(share * BAR + 0.5); i++)
        buf_str(&b, S("█"));
    return buf_get(&b);
}

static void bench_table(struct cli *c, yyjson_val *v)
{
    static const char *const keys[] = { "p50us", "p90us", "p99us", "maxUs" };
    static const char *const heads[] = { "clients", "requests/s", "p50 us",  "p90 us",
                                         "p99 us",  "max us",     "refused", "rate" };
    struct table t = table_new(c->a, sizeof heads / sizeof *heads);
    double most = 1;
    size_t i, n;
    yyjson_val *l;
    for (i = 0; i < sizeof heads / sizeof *heads; i++)
        table_heading(&t, str_of(heads[i]));
    yyjson_arr_foreach (v, i, n, l)
        most = fmax(most, yyjson_get_num(json_at(l, "requestsPerSecond")));
    yyjson_arr_foreach (v, i, n, l) {
        double rate = yyjson_get_num(json_at(l, "requestsPerSecond"));
        table_cell(&t, json_text_at(c->a, l, "concurrency"));
        table_cell(&t, fmt(c->a, "%.0f", rate));
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            table_cell(&t, fmt(c->a, "%.0f", yyjson_get_num(json_at(l, keys[k]))));
        table_cell(&t, json_text_at(c->a, l, "refused"));
        table_cell(&t, bar_of(c, rate / most));
    }
    table_print(&t, stdout);
}

static err bench_run(struct cli *c)
{
    struct bench_target t = { 0 };
    struct json j = json_new(c->a);
    int levels[LEVELS_MAX];
    size_t n;
    double seconds;
    int64_t batch;
    yyjson_val *v;
    TRY(levels_read(c, levels, &n));
    if (!str_f64(str_of(cli_option(c, "seconds")), &seconds) || !(seconds > 0 && seconds <= 3600))
        FAIL(INVALID, "--seconds is a number up to 3600");
    if (!str_i64(str_of(cli_option(c, "batch")), &batch) || batch < 1 || batch > BATCH_MAX)
        FAIL(INVALID, "--batch is a number from 1 to %d", BATCH_MAX);
    TRY(request_make(c, &t, batch));
    json_arr(&j);
    for (size_t i = 0; i < n; i++) {
        struct bench_level l;
        cli_progress("%d clients, %.3g s", levels[i], seconds);
        TRY(bench_level(c->a, &t, levels[i], seconds, &l));
        if (!l.requests)
            FAIL(UNAVAILABLE, "the server answered %d, %lld times", l.status, (long long)l.refused);
        level_json(&j, &l, batch);
    }
    cli_progress_end();
    json_arr_end(&j);
    TRY(json_parse(c->a, json_get(&j), &v));
    return cli_show(c, v, bench_table);
}

/* ---- the verb ---- */

static err model_run(struct cli *c)
{
    static const struct {
        const char *name;
        err (*run)(struct cli *);
    } actions[] = { { "config", config_run },
                    { "stats", stats_run },
                    { "load", switch_run },
                    { "unload", switch_run },
                    { "bench", bench_run } };
    for (size_t i = 0; i < sizeof actions / sizeof *actions; i++)
        if (!strcmp(actions[i].name, c->args[0]))
            return actions[i].run(c);
    FAIL(INVALID, "model knows config, stats, load, unload and bench, not '%s'", c->args[0]);
}

static const struct option model_options[] = {
    { "concurrency", 0, "N,…", "bench: clients at once, one level after the other.", "1,4,16,64,256", false },
    { "seconds", 0, "N", "bench: how long a level takes.", "5", false },
    { "protocol", 0, "NAME", "bench: rest (JSON) or binary (tensors behind the JSON).", "rest", false },
    { "body", 0, "FILE", "bench: the request; else its inputs are made up as the model describes them.", NULL,
      false },
    { "batch", 0, "N", "bench: rows of a made-up request.", "1", false },
    { 0 },
};
const struct cli_verb verb_model = {
    .name = "model",
    .args = "config|stats|load|unload|bench DEPLOYMENT",
    .doc =
        "Show how a deployment is served and what it did, take it out of memory and back, or measure how fast it answers.",
    .examples = "  dhow model stats late\n  dhow model bench late --concurrency 1,16,64 --seconds 3",
    .options = model_options,
    .args_min = 2,
    .args_max = 2,
    .run = model_run,
    .client = true,
};
