// SPDX-License-Identifier: Apache-2.0
/* The engine alone, as bench/train and people at work on kernels drive it: one batch of random numbers in memory, learned from again
 * and again; no loader, no measures, no checkpoints. bench/engine WORK, a JSON object (bench/works.py has them):
 *   {"model": {"mlp": {"hidden": [256, 128]}}, "input": "numbers", "shape": [40], "task": "binary", "outputs": 1, "rows": 256,
 *    "optimizer": {"kind": "adam"}, "precision": "f32", "threads": 2, "profile": false}
 * With "text": FILE and "steps": N it learns characters of a text instead, windows of it by splitmix's stream, and prints the loss of each
 * step; "weights": FILE gets the parameters as they were before (floats; where each lies is printed), so that another program can
 * do the same (bench/peers/jax_gpt.py). Else it prints one line of JSON once the first step is made, and one for each line of stdin, which says how many seconds a round lasts.
 * With profile, the operators' times go to stderr at the end. */
#include "engine/device.h"
#include "train/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

struct work {
    struct arena *a;
    yyjson_val *json;
    struct net net;
    struct net_task task;
    struct net_tensor input;
    struct params *params;
    struct optim *optim;
    struct program *program;
    const void **data; /* by graph->inputs */
    int64_t rows, steps;
    int64_t started; /* ns */
};

static struct str text(const struct work *w, const char *key, const char *def)
{
    yyjson_val *v = yyjson_obj_get(w->json, key);
    return yyjson_is_str(v) ? (struct str){ yyjson_get_str(v), yyjson_get_len(v) } : str_of(def);
}

static int64_t whole(const struct work *w, const char *key, int64_t def)
{
    yyjson_val *v = yyjson_obj_get(w->json, key);
    return yyjson_is_int(v) ? yyjson_get_sint(v) : def;
}

static double cpu_seconds(void)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
           (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

/* ---- a work from its words ---- */

static void input_read(struct work *w)
{
    yyjson_val *shape = yyjson_obj_get(w->json, "shape"), *v;
    size_t i, n;
    struct str kind = text(w, "input", "numbers");
    w->input = (struct net_tensor){ .name = S("x"), .ids = whole(w, "outputs", 1) };
    w->input.kind = str_is(kind, "numbers") ? NET_NUMBERS : str_is(kind, "ids") ? NET_IDS : NET_ARRAY;
    yyjson_arr_foreach (shape, i, n, v)
        if (i < 4)
            w->input.shape[w->input.rank++] = yyjson_get_sint(v);
}

static void task_read(struct work *w)
{
    struct str task = text(w, "task", "binary");
    w->task = (struct net_task){ .kind = str_is(task, "regression") ? TASK_REGRESSION
                                         : str_is(task, "language") ? TASK_LANGUAGE
                                                                    : TASK_CLASSIFICATION,
                                 .loss = LOSS_AUTO,
                                 .binary = str_is(task, "binary"),
                                 .outputs = whole(w, "outputs", 1) };
}

static err model_read(struct work *w, struct train_model *model, const struct field **chosen)
{
    yyjson_val *v = yyjson_obj_get(w->json, "model");
    TRY(schema_read(&train_model_schema, w->a, S("model"), v, 0, model));
    return train_model_chosen(w->a, v, chosen);
}

static err optim_make(struct work *w)
{
    struct train_optimizer o;
    yyjson_val *v = yyjson_obj_get(w->json, "optimizer");
    schema_defaults(&train_optimizer_schema, w->a, &o);
    if (v)
        TRY(schema_read(&train_optimizer_schema, w->a, S("optimizer"), v, 0, &o));
    struct optim_spec spec = { .kind = (enum optim_kind)o.kind,
                               .rate = o.rate > 0 ? o.rate : 1e-3,
                               .momentum = o.momentum,
                               .beta1 = o.beta1,
                               .beta2 = o.beta2,
                               .epsilon = o.epsilon,
                               .decay = o.decay,
                               .schedule = { .kind = RATE_CONSTANT } };
    return optim_new(w->a, w->params, &spec, &w->optim);
}

static void *numbers_make(struct work *w, const struct value *v)
{
    int64_t n = w->rows;
    uint64_t seed = hash64(v->name);
    bool label = str_is(v->name, "label");
    for (int i = 1; i < v->shape.rank; i++)
        n *= v->shape.d[i];
    uint64_t below = label && w->task.binary ? 2 : (uint64_t)w->task.outputs;
    float *f = arena_alloc(w->a, (size_t)n * sizeof(int64_t), 64);
    for (int64_t i = 0; i < n; i++)
        if (v->type == TENSOR_I64)
            ((int64_t *)f)[i] = (int64_t)(splitmix(&seed) % below);
        else
            f[i] = (float)(splitmix(&seed) >> 40) / 8388608 - 1; /* as wide as a normal number, nearly */
    return f;
}

static err work_make(struct work *w)
{
    struct train_model model;
    const struct field *chosen;
    struct team *team;
    struct str precision = text(w, "precision", "f32");
    w->rows = whole(w, "rows", 256);
    input_read(w);
    task_read(w);
    TRY(model_read(w, &model, &chosen));
    TRY(net_build(w->a, &model, chosen, &w->input, 1, &w->task, NET_TRAIN, &w->net));
    TRY(device_cpu.open());
    TRY(team_new((int)whole(w, "threads", 2), &team)); /* lives as long as the program */
    TRY(params_new(w->a, &device_cpu, w->net.g, team_size(team), 1, &w->params));
    TRY(optim_make(w));
    struct program_options o = { .team = team,
                                 .rows = w->rows,
                                 .loss = w->net.loss,
                                 .precision = str_is(precision, "bf16") ? PRECISION_BF16 : PRECISION_F32,
                                 .profile = yyjson_is_true(yyjson_obj_get(w->json, "profile")) };
    TRY(program_new(w->a, w->net.g, w->params, &o, &w->program));
    const struct graph *g = w->net.g;
    w->data = NEW_N(w->a, const void *, g->inputs.n + 1);
    for (size_t i = 0; i < g->inputs.n; i++)
        w->data[i] = numbers_make(w, value_at(g, g->inputs.v[i]));
    return NULL;
}

/* ---- rounds ---- */

static double step(struct work *w)
{
    struct run_report r = { 0 };
    program_train(w->program, w->data, 1, (uint64_t)w->steps++, w->optim, &r);
    return r.loss;
}

static void round_run(struct work *w, double seconds)
{
    int64_t start = mono_ns(), steps = 0, per_row = w->task.kind == TASK_LANGUAGE ? w->input.shape[0] : 1;
    double cpu = cpu_seconds(), passed;
    while ((passed = (double)(mono_ns() - start) / 1e9) < seconds) {
        step(w);
        steps++;
    }
    printf("{\"samples\": %lld, \"seconds\": %.6f, \"cpu\": %.6f, \"memory\": %lld}\n",
           (long long)(steps * w->rows * per_row), passed, cpu_seconds() - cpu, (long long)rss_peak_bytes());
    fflush(stdout);
}

static int by_seconds(const void *a, const void *b)
{
    double x = ((const struct step_time *)a)->seconds, y = ((const struct step_time *)b)->seconds;
    return (x < y) - (x > y);
}

static void profile_print(const struct work *w)
{
    const struct step_time *all;
    size_t n = program_times(w->program, w->a, &all);
    struct step_time *v = NEW_N(w->a, struct step_time, n + 1);
    double sum = 0;
    memcpy(v, all, n * sizeof *v);
    qsort(v, n, sizeof *v, by_seconds);
    for (size_t i = 0; i < n; i++)
        sum += v[i].seconds;
    for (size_t i = 0; i < n && i < 40; i++)
        fprintf(stderr, "%5.1f %%  %8.1f us  %7.1f GFLOP/s  %6.1f GB/s  %-24s %.*s  %.*s\n",
                100 * v[i].seconds / sum, 1e6 * v[i].seconds / (double)v[i].runs,
                v[i].flops / v[i].seconds / 1e9 * (double)v[i].runs,
                v[i].bytes / v[i].seconds / 1e9 * (double)v[i].runs, v[i].op ? v[i].op->name : "",
                STR(v[i].name), STR(v[i].shapes));
}

/* ---- a text, for comparing curves ---- */

struct text {
    uint8_t *ids;
    size_t n;
    uint64_t stream;
};

/* Characters by their rank among those that the text has. */
static err text_read(struct work *w, struct text *out)
{
    struct str bytes;
    uint8_t rank[256] = { 0 }, next = 0;
    TRY(file_read(w->a, str_z(w->a, text(w, "text", "")), (size_t)1 << 30, &bytes));
    *out = (struct text){ .ids = NEW_N(w->a, uint8_t, bytes.n + 1), .n = bytes.n, .stream = 1 };
    for (size_t i = 0; i < bytes.n; i++)
        rank[(uint8_t)bytes.p[i]] = 1;
    for (size_t i = 0; i < 256; i++)
        rank[i] = rank[i] ? next++ : 0;
    for (size_t i = 0; i < bytes.n; i++)
        out->ids[i] = rank[(uint8_t)bytes.p[i]];
    if (next > w->task.outputs || bytes.n < (size_t)w->input.shape[0] + 2)
        FAIL(INVALID, "the text has %d characters, the model %lld", next, (long long)w->task.outputs);
    return NULL;
}

static void text_batch(struct work *w, struct text *t)
{
    size_t length = (size_t)w->input.shape[0];
    int64_t *x = (int64_t *)(uintptr_t)w->data[0], *y = (int64_t *)(uintptr_t)w->data[1];
    for (int64_t row = 0; row < w->rows; row++) {
        const uint8_t *from = t->ids + splitmix(&t->stream) % (t->n - length - 1);
        for (size_t i = 0; i < length; i++, x++, y++) {
            *x = from[i];
            *y = from[i + 1];
        }
    }
}

static err weights_write(struct work *w)
{
    const struct params *p = w->params;
    struct json j = json_new(w->a);
    struct str bytes = { (const char *)p->w, p->n * sizeof *p->w };
    if (!yyjson_obj_get(w->json, "weights"))
        return NULL;
    TRY(file_write(str_z(w->a, text(w, "weights", "")), bytes));
    json_obj(&j);
    for (size_t i = 0; i < p->count; i++) {
        json_key(&j, p->v[i].name);
        json_arr(&j);
        json_i64(&j, (int64_t)p->v[i].at);
        for (int k = 0; k < p->v[i].shape.rank; k++)
            json_i64(&j, p->v[i].shape.d[k]);
        json_arr_end(&j);
    }
    json_obj_end(&j);
    printf("%.*s\n", STR(json_get(&j)));
    return NULL;
}

static err run_text(struct work *w)
{
    struct text t;
    TRY(text_read(w, &t));
    TRY(weights_write(w));
    for (int64_t i = 0; i < whole(w, "steps", 100); i++) {
        text_batch(w, &t);
        printf("%.7g\n", step(w));
        fflush(stdout);
    }
    return NULL;
}

static err run(struct work *w)
{
    char line[64];
    TRY(work_make(w));
    if (yyjson_obj_get(w->json, "text"))
        return run_text(w);
    double loss = step(w);
    struct program_facts f = program_facts(w->program);
    int64_t per_row = w->task.kind == TASK_LANGUAGE ? w->input.shape[0] : 1;
    printf(
        "{\"first\": %.4f, \"loss\": %.6f, \"ranks\": %d, \"flops\": %.6g, \"plan\": %lld, \"memory\": %lld}\n",
        (double)(mono_ns() - w->started) / 1e9, loss, f.ranks, f.flops / (double)(w->rows * per_row),
        (long long)(f.memory + f.memory_params), (long long)rss_peak_bytes());
    fflush(stdout);
    for (int i = 0; i < 3; i++)
        loss = step(w);
    while (fgets(line, sizeof line, stdin))
        round_run(w, strtod(line, NULL));
    if (yyjson_is_true(yyjson_obj_get(w->json, "profile")))
        profile_print(w);
    return NULL;
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    struct work w = { .a = a, .started = mono_ns() };
    err e = argc == 2 ? json_parse(a, str_of(argv[1]), &w.json) : err_new(INVALID, "usage: engine WORK");
    if (!e)
        e = run(&w);
    if (e)
        fprintf(stderr, "%.*s\n%.*s\n", STR(e->text), STR(e->hint));
    return e != NULL;
}
