// SPDX-License-Identifier: Apache-2.0
/* Trees as the main job trains and serves them: bench/trees [ROWS [ROUNDS]]. One round of `train` is one tree of depth 7
 * over 24 features; of `score`, one row through ONNX Runtime on one thread, beside XGBoost's own prediction of the same
 * rows, its matrix included; of `native`, one row through our own kernel, beside ONNX Runtime in batches alike. Figures are medians of three.
 * bench/trees FILE.parquet ROUNDS MODEL: 100 rounds from a file to saved models, once, as bench/train does it with others:
 * features x0, x1, …; label y; event time t in seconds, the last 100,000 of which are held out. One line, seconds by part. */
#include "train/internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { FEATURES = 24, TIMES = 3, SCORED = 65536 };

static void rows_make(struct arena *a, size_t n, struct rows *r)
{
    uint64_t seed = 1;
    *r = (struct rows){ .n = n, .features = FEATURES, .until = (int64_t)n * 1000000 };
    r->x = NEW_N(a, float, n *FEATURES);
    r->y = NEW_N(a, float, n);
    r->at = NEW_N(a, int64_t, n);
    r->known = r->at;
    for (size_t i = 0; i < n; i++) {
        float *x = r->x + i * FEATURES;
        for (size_t f = 0; f < FEATURES; f++)
            x[f] = splitmix(&seed) % 20 == 0 ? NAN : (float)(splitmix(&seed) >> 40) / 16777216 - 0.5f;
        double z = (isnan(x[0]) ? 0.3 : x[0]) + (isnan(x[1]) || isnan(x[2]) ? 0 : 4 * x[1] * x[2]);
        r->y[i] = z + (double)(splitmix(&seed) >> 40) / 16777216 > 1;
        r->at[i] = (int64_t)i * 1000000;
    }
}

/* As the job looks at each round. */
struct look {
    struct arena *a;
    const struct rows *rows;
    const struct rows_split *split;
};

static bool on_round(void *arg, int round, double train_loss, const float *p, double *worth)
{
    const struct look *l = arg;
    const float *y = l->rows->y + l->split->train;
    (void)round;
    (void)train_loss;
    arena_reset(l->a);
    *worth = metric_log_loss(l->a, p, y, l->split->valid);
    (void)metric_auc(l->a, p, y, l->split->valid);
    return true;
}

static void on_binned(void *arg)
{
    const struct look *l = arg;
    rows_forget((struct rows *)(uintptr_t)l->rows);
}

static const struct fit_goal goal = { .task = METER_BINARY };

static double seconds_since(int64_t start)
{
    return (double)(mono_ns() - start) / 1e9;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *v)
{
    qsort(v, TIMES, sizeof *v, by_size);
    return v[TIMES / 2];
}

/* One figure; peer may be NULL. */
static void line(const char *name, double value, const char *unit, const char *peer, double peer_value)
{
    printf("{\"name\": \"%s\", \"value\": %.4g, \"unit\": \"%s\", ", name, value, unit);
    if (peer)
        printf("\"peer\": \"%s\", \"peer_value\": %.4g, \"ratio\": %.4g}\n", peer, peer_value,
               value / peer_value);
    else
        printf("\"peer\": null, \"peer_value\": null, \"ratio\": null}\n");
    fflush(stdout);
}

/* Microseconds a row by XGBoost itself, on one thread. */
static err native_score(const struct rows *r, size_t n, struct str native, double *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct xgb *xgb;
    struct xgb_data *data;
    struct xgb_model *model;
    const float *p;
    TRY(xgb_open(a, &xgb));
    TRY(xgb_model_load(xgb, a, native, &model));
    TRY(xgb_model_set(model, "nthread", "1"));
    int64_t start = mono_ns();
    TRY(xgb_data_new(xgb, a, r->x, n, FEATURES, NULL, 1, &data));
    TRY(xgb_model_predict(model, data, 1, &p));
    *out = seconds_since(start) * 1e6 / (double)n;
    return NULL;
}

static err bench_score(const struct rows *r, struct str native, struct session *s, size_t batch, size_t n)
{
    static float out[SCORED];
    double ours[TIMES], theirs[TIMES];
    for (int i = 0; i < TIMES; i++) {
        int64_t start = mono_ns();
        TRY(session_score(s, r->x, n, FEATURES, batch, out));
        ours[i] = seconds_since(start) * 1e6 / (double)n;
        TRY(native_score(r, n, native, &theirs[i]));
    }
    char name[64];
    snprintf(name, sizeof name, "trees.score.b%zu", batch);
    line(name, median(ours), "us/row", "XGBoost alone, all rows at once, 1 thread", median(theirs));
    return NULL;
}

static err bench_native(const struct rows *r, struct session *ours, struct session *onnx, size_t batch,
                        size_t n)
{
    static float out[SCORED];
    struct session *const sessions[] = { ours, onnx };
    double us[2][TIMES];
    for (int i = 0; i < TIMES; i++)
        for (int k = 0; k < 2; k++) {
            int64_t start = mono_ns();
            TRY(session_score(sessions[k], r->x, n, FEATURES, batch, out));
            us[k][i] = seconds_since(start) * 1e6 / (double)n;
        }
    char name[64];
    snprintf(name, sizeof name, "trees.native.b%zu", batch);
    line(name, median(us[0]), "us/row", "ONNX Runtime, 1 thread", median(us[1]));
    return NULL;
}

static err bench_serve(struct arena *a, const struct rows *r, const struct fit *fit, struct str onnx)
{
    struct runtime *rt, *own;
    struct session *s, *native;
    struct parity p;
    size_t n = r->n < SCORED ? r->n : SCORED;
    double load[TIMES];
    TRY(runtime_open(NULL, &rt));
    for (int i = 0; i < TIMES; i++) {
        int64_t start = mono_ns();
        TRY(session_load(rt, onnx, NULL, &s));
        load[i] = seconds_since(start) * 1e3;
        if (i + 1 < TIMES)
            session_unload(s);
    }
    line("trees.load", median(load), "ms", NULL, 0);
    TRY(parity_check(a, fit->native, s, r->x, n, FEATURES, cpu_count(), &p));
    fprintf(stderr, "bench: ONNX Runtime and XGBoost differ by %.2g at most over %zu rows\n", p.max_abs,
            p.rows);
    TRY(bench_score(r, fit->native, s, 1, n));
    TRY(bench_score(r, fit->native, s, 4096, n));
    TRY(runtime_open_named(str_of(runtime_trees.name), NULL, &own));
    TRY(session_load(own, fit->native, NULL, &native));
    for (size_t batch = 1; batch <= 1024; batch *= 32)
        TRY(bench_native(r, native, s, batch, n));
    session_unload(native);
    runtime_close(own);
    session_unload(s);
    runtime_close(rt);
    return NULL;
}

static err bench_fit(struct arena *a, const struct rows *r, const struct rows_split *split, int64_t rounds,
                     struct fit *fit)
{
    struct trees_with with;
    double ms[TIMES];
    auto_arena struct arena *scratch = arena_new(0);
    struct look look = { scratch, r, split };
    schema_defaults(&trees_with_schema, a, &with);
    with.rounds = rounds;
    with.depth = 7;
    with.subsample = with.columns = 0.8;
    for (int i = 0; i < TIMES; i++) {
        TRY(fit_trees(a, r, split, &with, &goal, cpu_count(), &(struct fit_watch){ on_round, &look }, fit));
        ms[i] = fit->seconds * 1e3 / fit->rounds;
    }
    fprintf(stderr, "bench: %zu rows to learn from, %zu held out, XGBoost %.*s, %d threads\n", split->train,
            split->valid, STR(fit->version), cpu_count());
    line("trees.round", median(ms), "ms", NULL, 0);
    return NULL;
}

static err bench(struct arena *a, size_t n, int64_t rounds)
{
    struct rows r;
    struct rows_split split;
    struct fit fit;
    struct str onnx;
    double ms[TIMES];
    rows_make(a, n, &r);
    TRY(rows_split(&r, (int64_t)n * 100, &split)); /* a tenth is held out */
    TRY(bench_fit(a, &r, &split, rounds, &fit));
    for (int i = 0; i < TIMES; i++) {
        int64_t start = mono_ns();
        TRY(trees_to_onnx(&fit.trees, a, &(struct trees_doc){ 0 }, &onnx));
        ms[i] = seconds_since(start) * 1e3;
    }
    line("trees.export", median(ms), "ms", NULL, 0);
    for (int i = 0; i < TIMES; i++) {
        auto_arena struct arena *scratch = arena_new(0);
        struct baseline_column c;
        int64_t start = mono_ns();
        for (size_t f = 0; f < FEATURES; f++)
            baseline_column_make(scratch, S("f"), r.x + f, split.train, FEATURES, &c);
        ms[i] = seconds_since(start) * 1e3;
    }
    line("trees.baseline", median(ms), "ms", NULL, 0);
    return bench_serve(a, &r, &fit, onnx);
}

/* ---- from a file to saved models ---- */

static void spec_make(struct arena *a, struct dataset_version_spec *out)
{
    enum { WIDTH = 20, ROWS = 1100000 };
    struct version_column *c = NEW_N(a, struct version_column, WIDTH + 2);
    for (size_t i = 0; i < WIDTH; i++)
        c[i] = (struct version_column){ .name = fmt(a, "x%zu", i), .role = IS_FEATURE };
    c[WIDTH] = (struct version_column){ .name = S("y"), .role = IS_LABEL };
    c[WIDTH + 1] = (struct version_column){ .name = S("t"), .role = IS_EVENT_TIME };
    *out = (struct dataset_version_spec){ .rows = ROWS, .columns = { c, WIDTH + 2 } };
}

static err bench_file(struct arena *a, const char *path, int64_t rounds, const char *model)
{
    struct str name = str_of(path), onnx;
    struct dataset_version_spec spec;
    struct rows rows;
    struct rows_split split;
    struct trees_with with;
    struct fit fit;
    int64_t start = mono_ns();
    spec_make(a, &spec);
    schema_defaults(&trees_with_schema, a, &with);
    with.rounds = rounds;
    TRY(rows_load(a, &(struct strs){ &name, 1, 1 }, &spec, &rows));
    double read = seconds_since(start);
    TRY(rows_split(&rows, 100000 * (int64_t)1000, &split));
    auto_arena struct arena *scratch = arena_new(0);
    TRY(fit_trees(a, &rows, &split, &with, &goal, cpu_count(),
                  &(struct fit_watch){ on_round, &(struct look){ scratch, &rows, &split }, on_binned },
                  &fit));
    TRY(trees_to_onnx(&fit.trees, a, &(struct trees_doc){ 0 }, &onnx));
    TRY(file_write(fmtz(a, "%s.json", model), fit.native));
    TRY(file_write(fmtz(a, "%s.onnx", model), onnx));
    double whole = seconds_since(start);
    printf(
        "{\"seconds\": %.3f, \"read\": %.3f, \"bin\": %.3f, \"fit\": %.3f, \"rows\": %zu, \"auc\": %.5f, \"memory\": %lld, "
        "\"version\": \"%.*s\"}\n",
        whole, read, fit.bin_seconds, fit.seconds - fit.bin_seconds, split.train,
        metric_auc(a, fit.score + split.train, rows.y + split.train, split.valid),
        (long long)rss_peak_bytes(), STR(fit.version));
    return NULL;
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 200000;
    int64_t rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 50;
    err e = argc > 3 ? bench_file(a, argv[1], rounds, argv[3])
                     : bench(a, n < 5000 ? 5000 : n, rounds < 1 ? 1 : rounds);
    if (e)
        fprintf(stderr, "%.*s\n%.*s\n", STR(e->text), STR(e->hint));
    return e != NULL;
}
