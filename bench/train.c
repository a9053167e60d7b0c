// SPDX-License-Identifier: Apache-2.0
/* Trees as the main job trains and serves them: bench/train [ROWS [ROUNDS]]. One round of `train` is one tree of depth 7
 * over 24 features; of `score`, one row through ONNX Runtime on one thread. */
#include "train/internal.h"
#include <stdio.h>
#include <stdlib.h>

enum { FEATURES = 24 };

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

static bool on_round(void *arg, int round, double train_loss, double valid_loss, double valid_auc)
{
    (void)arg;
    (void)round;
    (void)train_loss;
    (void)valid_loss;
    (void)valid_auc;
    return true;
}

static double seconds_since(int64_t start)
{
    return (double)(mono_ns() - start) / 1e9;
}

static err bench_serve(struct arena *a, const struct rows *r, const struct fit *fit, struct str onnx)
{
    struct runtime *rt;
    struct session *s;
    struct parity p;
    float out[4096];
    TRY(runtime_open(NULL, &rt));
    int64_t start = mono_ns();
    TRY(session_load(rt, onnx, NULL, &s));
    printf("load    %7.2f ms, ONNX Runtime %s, %zu bytes\n", seconds_since(start) * 1e3, runtime_version(rt),
           onnx.n);
    size_t n = r->n < 100000 ? r->n : 100000;
    TRY(parity_check(a, fit->native, s, r->x, n, FEATURES, cpu_count(), &p));
    printf("parity  %7.2g at most, %.2g on average, over %zu rows\n", p.max_abs, p.mean_abs, p.rows);
    for (size_t batch = 1; batch <= 4096; batch *= 16) {
        size_t rows = batch == 1 ? n / 10 : n / batch * batch, at;
        start = mono_ns();
        for (at = 0; at < rows; at += batch)
            TRY(session_score(s, r->x + at * FEATURES, batch, FEATURES, batch, out));
        printf("score   %7.2f us a row in batches of %zu\n", seconds_since(start) * 1e6 / (double)rows,
               batch);
    }
    start = mono_ns();
    trees_predict(&fit->trees, r->x, 4096, FEATURES, out);
    printf("walk    %7.2f us a row by trees_predict\n", seconds_since(start) * 1e6 / 4096);
    session_unload(s);
    runtime_close(rt);
    return NULL;
}

static err bench(struct arena *a, size_t n, int64_t rounds)
{
    struct rows r;
    struct rows_split split;
    struct trees_with with;
    struct fit fit;
    struct str onnx;
    schema_defaults(&trees_with_schema, a, &with);
    with.rounds = rounds;
    with.depth = 7;
    with.subsample = with.columns = 0.8;
    rows_make(a, n, &r);
    int64_t start = mono_ns();
    TRY(rows_split(&r, (int64_t)n * 100, a, &split)); /* a tenth is held out */
    printf("split   %7.2f s, %zu rows to learn from, %zu held out\n", seconds_since(start), split.train,
           split.valid);
    TRY(fit_trees(a, &r, &split, &with, cpu_count(), &(struct fit_watch){ on_round }, &fit));
    printf("train   %7.2f s, %d rounds, %.1f ms a round, XGBoost %.*s, %d threads\n", fit.seconds, fit.rounds,
           fit.seconds * 1e3 / fit.rounds, STR(fit.version), cpu_count());
    start = mono_ns();
    TRY(trees_to_onnx(&fit.trees, a, &(struct trees_doc){ 0 }, &onnx));
    printf("export  %7.2f ms, %zu nodes\n", seconds_since(start) * 1e3, fit.trees.n_nodes);
    start = mono_ns();
    struct baseline_column c;
    for (size_t f = 0; f < FEATURES; f++) {
        auto_arena struct arena *scratch = arena_new(0);
        baseline_column_make(scratch, S("f"), r.x + f, split.train, FEATURES, &c);
    }
    printf("baseline %6.2f s of %d features\n", seconds_since(start), FEATURES);
    return bench_serve(a, &r, &fit, onnx);
}

int main(int argc, char **argv)
{
    auto_arena struct arena *a = arena_new(0);
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 590000;
    int64_t rounds = argc > 2 ? strtol(argv[2], NULL, 10) : 200;
    err e = bench(a, n < 5000 ? 5000 : n, rounds < 1 ? 1 : rounds);
    if (e)
        fprintf(stderr, "%.*s\n%.*s\n", STR(e->text), STR(e->hint));
    return e != NULL;
}
