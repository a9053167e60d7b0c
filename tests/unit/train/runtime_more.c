// SPDX-License-Identifier: Apache-2.0
/* What runtimes share and how they are told to stop: sessions, pools, devices, classes, calls that are made again. */
#define SUITE train_runtime_more
#include "models.h"
#include <dirent.h>
#include <stdlib.h>

static struct runtime *opened(const struct runtime_config *config)
{
    struct runtime *rt = NULL;
    err e = runtime_open(config, &rt);
    if (e && e->code == UNAVAILABLE && !getenv("DHOW_NEED_ALL"))
        cr_skip_test("libonnxruntime is not here");
    CHECK_OK(e);
    return rt;
}

static int tasks(void)
{
    DIR *d = opendir("/proc/self/task");
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* ---- sharing ---- */

TEST(the_same_model_is_loaded_once)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct str bytes = products(a, 1024, 2), other = products(a, 64, 2);
    struct session *first, *again, *raw, *else_;
    CHECK_OK(session_load(rt, bytes, NULL, &first));
    CHECK_OK(session_warm(first, 1));
    int64_t before = rss_bytes();
    CHECK_OK(session_load(rt, bytes, &(struct session_config){ .threads = 1, .device = "auto" }, &again));
    CHECK(again == first);
    CHECK(rss_bytes() - before < 1 << 20); /* its weights are 4 MiB */
    CHECK_OK(session_load(rt, other, NULL, &else_));
    CHECK_OK(session_load(rt, bytes, &(struct session_config){ .raw = true }, &raw));
    CHECK(else_ != first && raw != first);
    session_unload(first);
    CHECK_OK(session_warm(again, 2)); /* it lives on */
    session_unload(raw);
    session_unload(again);
    session_unload(else_);
    CHECK_OK(session_load(rt, bytes, NULL, &first));
    CHECK_OK(session_warm(first, 1));
    session_unload(first);
    runtime_close(rt);
}

struct loader {
    struct runtime *rt;
    struct str bytes;
    bool ok;
};
static void *loader_run(void *arg)
{
    struct loader *l = arg;
    l->ok = true;
    for (int i = 0; i < 40; i++) {
        struct session *s;
        l->ok = l->ok && !session_load(l->rt, l->bytes, NULL, &s);
        l->ok = l->ok && !session_warm(s, 3);
        session_unload(s);
    }
    err_reset();
    return NULL;
}

TEST(many_threads_load_and_unload_one_model)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct loader l[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        l[i] = (struct loader){ rt, products(a, 32, 2), false };
        CHECK_OK(thread_start("load", loader_run, &l[i], &threads[i]));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(l[i].ok);
    }
    runtime_close(rt);
}

struct user {
    struct session *s;
    bool ok;
};
static void *user_run(void *arg)
{
    enum { N = 256 };
    static const float want = 1;
    struct user *u = arg;
    auto_arena struct arena *a = arena_new(0);
    float *x = NEW_N(a, float, N *N), *y = NEW_N(a, float, N *N);
    struct tensor in = floats(0, N, N, x), out = floats(0, N, N, y);
    for (int i = 0; i < N * N; i++)
        x[i] = 1;
    u->ok = true;
    for (int i = 0; i < 20; i++) {
        y[0] = y[N * N - 1] = 0;
        u->ok = u->ok && !session_run(u->s, NULL, &in, 1, &out, 1) && fabsf(y[0] - want) < 1e-4f &&
                fabsf(y[N * N - 1] - want) < 1e-4f;
    }
    err_reset();
    return NULL;
}

TEST(sessions_share_one_pool)
{
    auto_arena struct arena *a = arena_new(0);
    int before = tasks();
    struct runtime *rt = opened(&(struct runtime_config){ .threads = 3 });
    CHECK(tasks() == before + 2); /* who calls is the third */
    struct session *s[2], *alone;
    CHECK_OK(session_load(rt, products(a, 256, 3), &(struct session_config){ .threads = 3 }, &s[0]));
    CHECK_OK(session_load(rt, products(a, 256, 5), &(struct session_config){ .threads = 8 }, &s[1]));
    CHECK_OK(session_load(rt, products(a, 256, 2), NULL, &alone));
    CHECK(tasks() == before + 2);
    struct user u[4] = { { s[0], false }, { s[1], false }, { s[1], false }, { alone, false } };
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        CHECK_OK(thread_start("use", user_run, &u[i], &threads[i]));
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(u[i].ok);
    }
    session_unload(s[0]);
    session_unload(s[1]);
    session_unload(alone);
    runtime_close(rt);
}

/* ---- devices ---- */

TEST(a_device_is_chosen_and_says_why)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    const struct runtime_device *d;
    const struct session_info *info;
    struct session *s;
    size_t n;
    CHECK_OK(runtime_devices(rt, a, &d, &n));
    CHECK(n > 1 && !strcmp(d[n - 1].name, "cpu") && !d[n - 1].why);
    CHECK_OK(session_load(rt, same(a, TENSOR_F32), &(struct session_config){ .device = "cpu" }, &s));
    info = session_describe(s);
    CHECK(!strcmp(info->device, "cpu") && !*info->why);
    session_unload(s);
    CHECK_ERR(session_load(rt, same(a, TENSOR_F32), &(struct session_config){ .device = "abacus" }, &s),
              INVALID);
    for (size_t i = 0; i < n; i++) {
        if (!d[i].why)
            continue;
        err e = session_load(rt, same(a, TENSOR_F32), &(struct session_config){ .device = d[i].name }, &s);
        CHECK(e && e->code == UNAVAILABLE);
        CHECK_STR(e->text, str_of(d[i].why));
    }
    CHECK_OK(session_load(rt, same(a, TENSOR_F32), NULL, &s));
    info = session_describe(s);
    if (d[0].why) { /* no CUDA here: the CPU, with the reason and the file that is missing */
        CHECK(!strcmp(info->device, "cpu"));
        CHECK(strstr(info->why, "cuda: ") && strstr(info->why, "libonnxruntime_providers_cuda.so"));
    }
    session_unload(s);
    runtime_close(rt);
}

/* ---- classes ---- */

static void zip_check(struct runtime *rt, struct arena *a, bool texts, const char *first, const char *last)
{
    struct session *s;
    CHECK_OK(session_load(rt, zipped(a, texts), NULL, &s));
    const struct session_info *info = session_describe(s);
    const struct tensor_spec *spec = info->outputs;
    CHECK(spec->type == TENSOR_F32 && spec->rank == 2 && spec->dims[0] == -1 && spec->dims[1] == 3);
    CHECK_STR(spec->symbols[0], "N");
    CHECK(info->labels[0].n == 3);
    CHECK_STR(info->labels[0].v[0], str_of(first));
    CHECK_STR(info->labels[0].v[2], str_of(last));
    float x[6] = { 1, 2, 3, 4, 5, 6 }, y[6] = { 0 };
    struct tensor in = floats(0, 2, 3, x), out = { .slot = 0 }, given = floats(0, 2, 3, y);
    CHECK_OK(session_run(s, a, &in, 1, &out, 1));
    CHECK(out.type == TENSOR_F32 && out.rank == 2 && out.dims[0] == 2 && out.dims[1] == 3 && out.bytes == 24);
    CHECK(!memcmp(out.data, x, sizeof x));
    CHECK_OK(session_run(s, NULL, &in, 1, &given, 1));
    CHECK(!memcmp(y, x, sizeof x));
    given = floats(0, 1, 3, y);
    CHECK_ERR(session_run(s, NULL, &in, 1, &given, 1), INVALID);
    CHECK_ERR(session_run(s, NULL, &in, 1, &(struct tensor){ .slot = 0 }, 1), INVALID);
    CHECK_OK(session_warm(s, 4));
    struct session_call *call;
    given = floats(0, 2, 3, y);
    CHECK_OK(session_call_new(s, &in, 1, &given, 1, &call));
    x[5] = 7;
    CHECK_OK(session_call_run(call, NULL));
    CHECK(y[5] == 7);
    session_call_free(call);
    session_unload(s);
}

TEST(maps_of_classes_become_a_tensor)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    zip_check(rt, a, false, "3", "9");
    zip_check(rt, a, true, "cat", "eel");
    runtime_close(rt);
}

TEST(other_sequences_are_described_as_no_tensor)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct session *s;
    float x[2] = { 1, 2 };
    struct tensor in = floats(0, 1, 2, x), out = { .slot = 0 };
    CHECK_OK(session_load(rt, listed(a), NULL, &s));
    CHECK(session_describe(s)->outputs[0].type == TENSOR_NONE);
    CHECK_ERR(session_run(s, a, &in, 1, &out, 1), UNSUPPORTED);
    session_unload(s);
    runtime_close(rt);
}

/* ---- stopping ---- */

struct stop {
    struct run_control *control;
    bool seen;
};
/* Stops a run once it is under way. */
static void *stop_run(void *arg)
{
    struct stop *s = arg;
    while (!s->seen) {
        pthread_mutex_lock(&s->control->lock);
        s->seen = s->control->run;
        pthread_mutex_unlock(&s->control->lock);
    }
    run_control_stop(s->control, TIMEOUT);
    return NULL;
}

TEST(a_run_is_stopped_from_another_thread)
{
    enum { N = 512 };
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct session *s;
    float *x = NEW_N(a, float, N *N), *y = NEW_N(a, float, N *N);
    struct tensor in = floats(0, N, N, x), out = floats(0, N, N, y);
    struct run_control control = RUN_CONTROL_INIT, calm = RUN_CONTROL_INIT;
    struct stop stop = { &control, false };
    struct session_call *call;
    pthread_t thread;
    CHECK_OK(session_load(rt, products(a, N, 1500), NULL, &s)); /* seconds, if nobody stops it */
    CHECK_OK(session_call_new(s, &in, 1, &out, 1, &call));
    CHECK_OK(thread_start("stop", stop_run, &stop, &thread));
    CHECK_ERR(session_run_until(s, &control, NULL, &in, 1, &out, 1), TIMEOUT);
    pthread_join(thread, NULL);
    CHECK(stop.seen && !control.run);
    CHECK_ERR(session_run_until(s, &control, NULL, &in, 1, &out, 1),
              TIMEOUT); /* nor does the next one begin */
    CHECK_ERR(session_call_run(call, &control), TIMEOUT);
    struct run_control second = RUN_CONTROL_INIT;
    stop = (struct stop){ &second, false };
    CHECK_OK(thread_start("stop", stop_run, &stop, &thread));
    CHECK_ERR(session_call_run(call, &second), TIMEOUT);
    pthread_join(thread, NULL);
    session_call_free(call);
    session_unload(s);
    CHECK_OK(session_load(rt, products(a, 4, 2), NULL, &s));
    in = floats(0, 1, 4, x);
    out = floats(0, 1, 4, y);
    for (int i = 0; i < 3; i++)
        CHECK_OK(session_run_until(s, &calm, NULL, &in, 1, &out, 1));
    run_control_stop(&calm, CANCELLED);
    run_control_stop(&calm, TIMEOUT); /* the first word counts */
    CHECK_ERR(session_run_until(s, &calm, NULL, &in, 1, &out, 1), CANCELLED);
    session_unload(s);
    runtime_close(rt);
}

/* ---- the same call again ---- */

TEST(a_call_reads_and_writes_where_it_was_told)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct session *s;
    struct session_call *call;
    float x[4] = { 0 }, y[4] = { 1, 1, 1, 1 }, sum[4];
    struct tensor in[2] = { floats(1, 2, 2, y), floats(0, 2, 2, x) }, out = floats(0, 2, 2, sum);
    CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), NULL, &s));
    CHECK_OK(session_call_new(s, in, 2, &out, 1, &call));
    for (int i = 0; i < 100; i++) {
        x[3] = (float)i;
        CHECK_OK(session_call_run(call, NULL));
        CHECK(sum[0] == 1 && sum[3] == (float)i + 1);
    }
    session_call_free(call);
    session_call_free(NULL);
    CHECK_ERR(session_call_new(s, in, 1, &out, 1, &call), INVALID);
    CHECK_ERR(session_call_new(s, in, 2, &(struct tensor){ .slot = 0 }, 1, &call), INVALID);
    out.bytes = 8;
    CHECK_ERR(session_call_new(s, in, 2, &out, 1, &call), INVALID);
    session_unload(s);
    struct str text = S("x");
    struct tensor words = {
        .type = TENSOR_TEXT, .rank = 2, .dims = { 1, 2 }, .data = &text, .bytes = 2 * sizeof text
    };
    CHECK_OK(session_load(rt, same(a, TENSOR_TEXT), NULL, &s));
    CHECK_ERR(session_call_new(s, &words, 1, &words, 1, &call), INVALID);
    CHECK_OK(session_warm(s, 3));
    session_unload(s);
    runtime_close(rt);
}

/* ---- native trees ---- */

struct both {
    struct rows rows;
    struct fit fit;
    struct str onnx;
    struct runtime *ort, *native;
    struct session *first, *second;
};

static void both_open(struct arena *a, struct both *b)
{
    struct rows_split split;
    struct trees_with with = sample_params(a, 30);
    sample_rows(a, 5000, 24, 1, &b->rows);
    CHECK_OK(sample_fit(a, &b->rows, &with, &split, &b->fit));
    CHECK_OK(trees_to_onnx(&b->fit.trees, a, &(struct trees_doc){ .features = b->rows.names }, &b->onnx));
    CHECK_OK(runtime_open_named(S("trees"), NULL, &b->native));
    CHECK_OK(session_load(b->ort, b->onnx, NULL, &b->first));
    CHECK_OK(session_load(b->native, b->fit.native, NULL, &b->second));
}

static void both_close(struct both *b)
{
    session_unload(b->first);
    session_unload(b->second);
    runtime_close(b->ort);
    runtime_close(b->native);
}

TEST(native_trees_have_the_signature_of_their_onnx)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct both b;
    b.ort = opened(NULL);
    both_open(a, &b);
    const struct session_info *i = session_describe(b.first), *j = session_describe(b.second);
    CHECK(j->n_inputs == 1 && j->n_outputs == 1);
    CHECK_STR(j->inputs[0].name, i->inputs[0].name);
    CHECK_STR(j->outputs[0].name, i->outputs[0].name);
    for (int k = 0; k < 2; k++)
        CHECK(j->inputs[0].dims[k] == i->inputs[0].dims[k] && j->outputs[0].dims[k] == i->outputs[0].dims[k]);
    const struct tensor tried = floats(0, 200, 24, b.rows.x);
    double apart;
    CHECK_OK(sessions_compare(b.first, b.second, &tried, &apart));
    CHECK(apart <= 1e-5);
    float *want = NEW_N(a, float, b.rows.n), *got = NEW_N(a, float, b.rows.n);
    trees_predict(&b.fit.trees, b.rows.x, b.rows.n, 24, want);
    CHECK_OK(session_score(b.second, b.rows.x, b.rows.n, 24, 0, got));
    CHECK(!memcmp(want, got, b.rows.n * sizeof *got)); /* missing values among them */
    both_close(&b);
}

TEST(native_trees_of_classes_are_those_of_their_onnx)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    enum { N = 2000, FEATURES = 6, K = 3 };
    struct both b = { .ort = opened(NULL) };
    struct rows_split split;
    struct parity parity;
    double apart;
    sample_rows(a, N, FEATURES, 4, &b.rows);
    CHECK_OK(sample_classes(a, &b.rows, &split, &b.fit));
    CHECK_OK(trees_to_onnx(&b.fit.trees, a, &(struct trees_doc){ .features = b.rows.names }, &b.onnx));
    CHECK_OK(runtime_open_named(S("trees"), NULL, &b.native));
    CHECK_OK(session_load(b.ort, b.onnx, NULL, &b.first));
    CHECK_OK(session_load(b.native, b.fit.native, NULL, &b.second));
    const struct tensor_spec *y = session_describe(b.second)->outputs;
    CHECK_STR(y->name, "probability");
    CHECK(y->dims[1] == K && session_describe(b.first)->outputs->dims[1] == K);
    const struct tensor tried = floats(0, 300, FEATURES, b.rows.x);
    CHECK_OK(sessions_compare(b.first, b.second, &tried, &apart));
    CHECK(apart <= 1e-5);
    CHECK_OK(parity_check(a, b.fit.native, b.first, b.rows.x, N, FEATURES, 2, &parity));
    CHECK(parity.rows == N && parity.max_abs <= 1e-5);
    float *want = NEW_N(a, float, N *K);
    struct tensor in = floats(0, N, FEATURES, b.rows.x), out = { .slot = 0 };
    trees_predict(&b.fit.trees, b.rows.x, N, FEATURES, want);
    CHECK_OK(session_run(b.second, a, &in, 1, &out, 1));
    CHECK(out.dims[0] == N && out.dims[1] == K && !memcmp(out.data, want, N * K * sizeof *want));
    out = floats(0, N, 1, want);
    CHECK_ERR(session_run(b.second, a, &in, 1, &out, 1), INVALID);
    both_close(&b);
}

TEST(a_comparison_finds_what_does_not_agree)
{
    auto_arena struct arena *a = arena_new(0);
    struct runtime *rt = opened(NULL);
    struct tree_node leaf[] = { { .feature = -1, .value = 0.5f }, { .feature = -1, .value = 0.25f } };
    struct session *s[2];
    double apart;
    float x[64] = { 0 };
    for (int i = 0; i < 2; i++) {
        struct trees trees = {
            .features = 2, .nodes = &leaf[i], .n_nodes = 1, .roots = (uint32_t[]){ 0 }, .n_trees = 1
        };
        struct str onnx;
        CHECK_OK(trees_to_onnx(&trees, a, &(struct trees_doc){ 0 }, &onnx));
        CHECK_OK(session_load(rt, onnx, NULL, &s[i]));
    }
    const struct tensor in = floats(0, 32, 2, x), none = floats(0, 0, 2, x), wide = floats(0, 1, 5, x);
    CHECK_OK(sessions_compare(s[0], s[1], &in, &apart));
    CHECK(apart == 0.25);
    CHECK_OK(sessions_compare(s[1], s[1], &in, &apart));
    CHECK(apart == 0);
    CHECK_ERR(sessions_compare(s[0], s[1], &none, &apart), INVALID);
    CHECK_ERR(sessions_compare(s[0], s[1], &wide, &apart), INVALID);
    session_unload(s[0]);
    session_unload(s[1]);
    runtime_close(rt);
}

TEST(native_trees_refuse_what_does_not_fit)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct both b;
    b.ort = opened(NULL);
    both_open(a, &b);
    struct session *s = b.second, *no;
    float y[4];
    struct tensor in = floats(0, 2, 24, b.rows.x), out = { .slot = 0 }, given = floats(0, 2, 1, y), bad;
    CHECK_OK(session_run(s, a, &in, 1, &out, 1));
    CHECK(out.rank == 2 && out.dims[0] == 2 && out.dims[1] == 1 && out.bytes == 8);
    CHECK_OK(session_run(s, NULL, &in, 1, &given, 1));
    CHECK(!memcmp(out.data, y, 8));
    CHECK_ERR(session_run(s, NULL, &in, 1, &(struct tensor){ .slot = 0 }, 1), INVALID);
    CHECK_ERR(session_run(s, a, &in, 0, &given, 1), INVALID);
    bad = floats(0, 2, 23, b.rows.x);
    CHECK_ERR(session_run(s, a, &bad, 1, &given, 1), INVALID);
    bad = floats(0, 3, 24, b.rows.x);
    CHECK_ERR(session_run(s, a, &bad, 1, &given, 1), INVALID);
    bad = floats(0, 2, 24, (float *)(void *)((char *)b.rows.x + 1));
    CHECK_ERR(session_run(s, a, &bad, 1, &given, 1), INVALID);
    bad.dims[0] = INT64_MAX / 8;
    bad.data = b.rows.x;
    CHECK_ERR(session_run(s, a, &bad, 1, &given, 1), INVALID);
    bad = floats(0, 0, 24, NULL);
    CHECK_OK(session_run(s, a, &bad, 1, &(struct tensor){ .slot = 0 }, 1));
    CHECK_ERR(session_load(b.native, S("{\"learner\":{}}"), NULL, &no), UNSUPPORTED);
    CHECK_ERR(session_load(b.native, b.onnx, NULL, &no), INVALID);
    CHECK_ERR(session_load(b.native, b.fit.native, &(struct session_config){ .device = "cuda" }, &no),
              UNAVAILABLE);
    struct run_control control = RUN_CONTROL_INIT;
    CHECK_OK(session_run_until(s, &control, NULL, &in, 1, &given, 1));
    run_control_stop(&control, CANCELLED);
    CHECK_ERR(session_run_until(s, &control, NULL, &in, 1, &given, 1), CANCELLED);
    CHECK_OK(session_warm(s, 8));
    both_close(&b);
}

struct scorer {
    struct both *b;
    const float *want;
    bool ok;
};
static void *scorer_run(void *arg)
{
    struct scorer *w = arg;
    struct both *b = w->b;
    w->ok = true;
    float y[8];
    for (size_t at = 0; at + 8 <= b->rows.n; at += 8) {
        struct tensor in = floats(0, 8, 24, b->rows.x + at * 24), out = floats(0, 8, 1, y);
        w->ok = w->ok && !session_run(b->second, NULL, &in, 1, &out, 1) && !memcmp(y, w->want + at, sizeof y);
    }
    err_reset();
    return NULL;
}

TEST(many_threads_run_native_trees)
{
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct both b;
    struct scorer w[4];
    pthread_t threads[4];
    b.ort = opened(NULL);
    both_open(a, &b);
    float *want = NEW_N(a, float, b.rows.n);
    CHECK_OK(session_score(b.second, b.rows.x, b.rows.n, 24, 0, want));
    for (int i = 0; i < 4; i++) {
        w[i] = (struct scorer){ &b, want, false };
        CHECK_OK(thread_start("score", scorer_run, &w[i], &threads[i]));
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        CHECK(w[i].ok);
    }
    both_close(&b);
}

/* A stop comes through in the midst of many rows, as it does between operators. */
TEST(a_long_run_of_native_trees_is_stopped)
{
    enum { ROWS = 4000000 };
    NEED_XGBOOST();
    auto_arena struct arena *a = arena_new(0);
    struct both b;
    struct run_control control = RUN_CONTROL_INIT;
    struct stop stop = { &control, false };
    pthread_t thread;
    b.ort = opened(NULL);
    both_open(a, &b);
    float *x = calloc(ROWS, 24 * sizeof *x), *y = calloc(ROWS, sizeof *y); /* seconds, if nobody stops it */
    struct tensor in = floats(0, ROWS, 24, x), out = floats(0, ROWS, 1, y);
    CHECK_OK(thread_start("stop", stop_run, &stop, &thread));
    CHECK_ERR(session_run_until(b.second, &control, NULL, &in, 1, &out, 1), TIMEOUT);
    pthread_join(thread, NULL);
    CHECK(y[ROWS - 1] == 0);
    free(x);
    free(y);
    both_close(&b);
}

TEST(a_format_nobody_loads_is_named)
{
    struct runtime *rt;
    CHECK_ERR(runtime_open_named(S("pickle"), NULL, &rt), INVALID);
}
