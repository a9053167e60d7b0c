// SPDX-License-Identifier: Apache-2.0
/* What every runtime of ONNX must do; each test runs on each backend of runtime_backends that loads it. */
#define SUITE train_runtime
#include "models.h"
#include <dirent.h>
#include <stdlib.h>

static const struct session_config plain = { 0 };

#define EACH_BACKEND(rt)                                                          \
    for (const struct runtime_ops *const *ops_ = runtime_backends; *ops_; ops_++) \
        if (!strcmp((*ops_)->format, "onnx"))                                     \
            for (struct runtime *rt = opened(*ops_); rt; (*ops_)->close(rt), rt = NULL)

static struct runtime *opened(const struct runtime_ops *ops)
{
    struct runtime *rt = NULL;
    err e = ops->open(NULL, &rt);
    if (e && e->code == UNAVAILABLE && !getenv("DHOW_NEED_ALL"))
        cr_skip_test("%s is not here", ops->name);
    CHECK_OK(e);
    return rt;
}

TEST(it_describes_names_types_and_shapes)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), &plain, &s));
        const struct session_info *i = session_describe(s);
        CHECK(i->n_inputs == 2 && i->n_outputs == 2 && str_is(i->inputs[1].name, "y") &&
              str_is(i->outputs[0].name, "sum"));
        CHECK(i->inputs[0].type == TENSOR_F32 && i->inputs[0].rank == 2 && i->inputs[0].dims[0] == -1);
        CHECK(i->inputs[0].dims[1] == 2);
        CHECK_STR(i->inputs[0].symbols[0], "N");
        session_unload(s);
    }
}

TEST(it_runs_into_given_memory_and_into_an_arena)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), &plain, &s));
        float x[4] = { 1, 2, 3, 4 }, y[4] = { 10, 20, 30, 40 }, sum[4];
        struct tensor in[] = {
            { .slot = 1, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = y, .bytes = 16 },
            { .slot = 0, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = x, .bytes = 16 }
        };
        struct tensor out[] = {
            { .slot = 1 },
            { .slot = 0, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = sum, .bytes = 16 }
        };
        CHECK_OK(session_run(s, a, in, 2, out, 2));
        CHECK(sum[0] == 11 && sum[3] == 44);
        CHECK(out[0].type == TENSOR_F32 && out[0].rank == 2 && out[0].dims[0] == 2 && out[0].bytes == 16);
        CHECK(!memcmp(out[0].data, x, 16));
        session_unload(s);
    }
}

TEST(it_refuses_tensors_that_do_not_fit)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), &plain, &s));
        float x[6] = { 0 };
        const struct tensor good = {
            .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = x, .bytes = 16
        };
        struct tensor in[3] = { good, good, good }, out[1] = { { .slot = 0 } };
        in[1].slot = 1;
        CHECK_ERR(session_run(s, a, in, 1, out, 1), INVALID); /* one is missing */
        CHECK_ERR(session_run(s, a, in, 3, out, 1), INVALID); /* one too many */
        CHECK_ERR(session_run(s, a, in, 2, out, 0), INVALID);
        CHECK_ERR(session_run(s, NULL, in, 2, out, 1), INVALID); /* nowhere to put it */
        out[0].slot = 2;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        out[0].slot = 0;
        in[1].slot = 0;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID); /* x twice */
        in[1] = good;
        in[1].slot = 1;
        in[1].bytes = 24;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        in[1].bytes = 16;
        in[1].type = TENSOR_I32;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        in[1].type = TENSOR_F32;
        in[1].dims[0] = -2;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        in[1].dims[0] = INT64_MAX;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        in[1].dims[0] = 1;
        in[1].dims[1] = 4; /* the model says 2 columns */
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        in[1] = good;
        in[1].slot = 1;
        out[0] = (struct tensor){ .type = TENSOR_F32, .rank = 2, .dims = { 3, 2 }, .data = x, .bytes = 24 };
        CHECK(session_run(s, a, in, 2, out, 1) != NULL); /* given memory of another shape */
        out[0] = (struct tensor){ .slot = 0 };
        in[1].data = (char *)x + 2;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID); /* not on a boundary of floats */
        in[1].data = NULL;
        CHECK_ERR(session_run(s, a, in, 2, out, 1), INVALID);
        session_unload(s);
    }
}

TEST(it_runs_every_type_and_no_rows)
{
    auto_arena struct arena *a = arena_new(0);
    const enum tensor_type types[] = {
#define T(name, number, bytes, onnx, protocol) TENSOR_##name,
        TENSOR_TYPES(T)
#undef T
    };
    EACH_BACKEND(rt)
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        struct session *s;
        uint8_t data[64];
        size_t size = tensor_size(types[t]);
        if (!size)
            continue; /* it_carries_text */
        for (size_t i = 0; i < sizeof data; i++)
            data[i] = types[t] == TENSOR_BOOL ? i % 2 : (uint8_t)(i * 7);
        CHECK_OK(session_load(rt, same(a, types[t]), &plain, &s));
        CHECK(session_describe(s)->inputs[0].type == types[t]);
        for (int64_t rows = 0; rows < 3; rows += 2) {
            struct tensor in = { .type = types[t],
                                 .rank = 2,
                                 .dims = { rows, 2 },
                                 .data = rows ? data : NULL,
                                 .bytes = 2 * size * (size_t)rows },
                          out = { .slot = 0 };
            CHECK_OK(session_run(s, a, &in, 1, &out, 1));
            CHECK(out.type == types[t] && out.dims[0] == rows && out.bytes == in.bytes);
            CHECK(rows == 0 || !memcmp(out.data, data, out.bytes));
        }
        session_unload(s);
    }
}

TEST(it_carries_text)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        if (rt->ops == &runtime_engine) { /* which is for numbers */
            CHECK_ERR(session_load(rt, same(a, TENSOR_TEXT), &plain, &s), UNSUPPORTED);
            continue;
        }
        CHECK_OK(session_load(rt, same(a, TENSOR_TEXT), &plain, &s));
        struct str texts[] = { S("Ä"), S(""), S("longer than a short string may be"), S("x") };
        struct tensor in = {
            .type = TENSOR_TEXT, .rank = 2, .dims = { 2, 2 }, .data = texts, .bytes = sizeof texts
        };
        struct tensor out = { .slot = 0 };
        CHECK_OK(session_run(s, a, &in, 1, &out, 1));
        for (int i = 0; i < 4; i++)
            CHECK_STR(((struct str *)out.data)[i], texts[i]);
        texts[3] = (struct str){ "a\0b", 3 }; /* BYTES may hold anything */
        out = (struct tensor){ .slot = 0 };
        CHECK_OK(session_run(s, a, &in, 1, &out, 1));
        CHECK_STR(((struct str *)out.data)[3], texts[3]);
        in.dims[0] = 0;
        in.bytes = 0;
        out = (struct tensor){ .slot = 0 };
        CHECK_OK(session_run(s, a, &in, 1, &out, 1));
        CHECK(out.bytes == 0);
        session_unload(s);
    }
}

TEST(it_refuses_what_is_no_model)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        struct str good = two_in_two_out(a, TENSOR_F32);
        CHECK_ERR(session_load(rt, S("nonsense"), &plain, &s), INVALID);
        CHECK_ERR(session_load(rt, S(""), &plain, &s), INVALID);
        CHECK_ERR(session_load(rt, str_sub(good, 0, good.n / 2), &plain, &s), INVALID);
        struct buf g = buf_new(a); /* a cycle */
        pb_bytes(&g, 1, node(a, "Add", "x", "b", "a"));
        pb_bytes(&g, 1, node(a, "Neg", "a", NULL, "b"));
        pb_bytes(&g, 2, S("g"));
        pb_bytes(&g, 11, value(a, "x", TENSOR_F32, 2));
        pb_bytes(&g, 12, value(a, "b", TENSOR_F32, 2));
        CHECK_ERR(session_load(rt, model(a, &g), &plain, &s), INVALID);
    }
}

struct hammer {
    struct session *s;
    bool ok;
};
static void *hammer_run(void *arg)
{
    struct hammer *h = arg;
    h->ok = true;
    for (int i = 0; i < 2000; i++) {
        float x[4] = { (float)i, 2, 3, 4 }, y[4] = { 1, 1, 1, 1 }, sum[4];
        struct tensor in[] = {
            { .slot = 0, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = x, .bytes = 16 },
            { .slot = 1, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = y, .bytes = 16 }
        };
        struct tensor out = {
            .slot = 0, .type = TENSOR_F32, .rank = 2, .dims = { 2, 2 }, .data = sum, .bytes = 16
        };
        h->ok = h->ok && !session_run(h->s, NULL, in, 2, &out, 1) && sum[0] == (float)i + 1;
    }
    err_reset();
    return NULL;
}

TEST(many_threads_run_one_session)
{
    auto_arena struct arena *a = arena_new(0);
    EACH_BACKEND(rt)
    {
        struct session *s;
        CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), &plain, &s));
        struct hammer h[8];
        pthread_t threads[8];
        for (int i = 0; i < 8; i++) {
            h[i].s = s;
            CHECK_OK(thread_start("hammer", hammer_run, &h[i], &threads[i]));
        }
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], NULL);
            CHECK(h[i].ok);
        }
        session_unload(s);
    }
}

/* ---- ONNX Runtime's own ---- */

static int entries_in(const char *path)
{
    DIR *d = opendir(path);
    int n = 0;
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

/* It would write ~/.cache/Microsoft and start a thread that reports. */
TEST(it_leaves_no_file_and_no_thread)
{
    auto_arena struct arena *a = arena_new(0);
    char home[] = "/tmp/dhow-home-XXXXXX";
    CHECK(mkdtemp(home));
    setenv("HOME", home, 1);
    setenv("XDG_CACHE_HOME", home, 1);
    setenv("ORT_DISABLE_TELEMETRY", "0", 1);
    int threads = entries_in("/proc/self/task");
    EACH_BACKEND(rt)
    {
        struct session *s;
        CHECK_OK(session_load(rt, two_in_two_out(a, TENSOR_F32), &plain, &s));
        CHECK(entries_in("/proc/self/task") == threads);
        session_unload(s);
    }
    CHECK(entries_in(home) == 2); /* . and .. */
    CHECK_OK(dir_remove(home));
}

TEST(a_missing_or_foreign_library_is_named)
{
    struct runtime *rt;
    err e = runtime_open(&(struct runtime_config){ "/nowhere/libonnxruntime.so" }, &rt);
    CHECK(e && e->code == UNAVAILABLE && e->hint.n > 0);
    CHECK_ERR(runtime_open(&(struct runtime_config){ "libm.so.6" }, &rt), UNAVAILABLE);
}

TEST(loading_and_unloading_gives_memory_back)
{
    auto_arena struct arena *a = arena_new(0);
    struct str bytes = products(a, 256, 4);
    EACH_BACKEND(rt)
    {
        int64_t before = 0;
        for (int i = 0; i < 70; i++) {
            struct session *s;
            CHECK_OK(session_load(rt, bytes, &plain, &s));
            CHECK_OK(session_warm(s, 64));
            session_unload(s);
            if (i == 9)
                before = rss_bytes();
        }
#ifdef __SANITIZE_ADDRESS__
        const int64_t most = INT64_MAX; /* its quarantine keeps what is freed */
#else
        const int64_t most = 2 << 20;
#endif
        CHECK(rss_bytes() - before < most);
    }
}

/* ---- parity ---- */

TEST(exported_trees_say_what_xgboost_says)
{
    NEED_XGBOOST();
    struct runtime *rt;
    NEED_ORT(&rt);
    auto_arena struct arena *a = arena_new(0);
    struct rows rows;
    struct rows_split split;
    struct fit fit;
    struct str onnx;
    struct parity p;
    struct session *s;
    struct trees_with with = sample_params(a, 60);
    with.depth = 7;
    with.subsample = 0.8;
    sample_rows(a, 20000, 24, 1, &rows);
    CHECK_OK(sample_fit(a, &rows, &with, &split, &fit));
    CHECK_OK(trees_to_onnx(&fit.trees, a, &(struct trees_doc){ .features = rows.names }, &onnx));
    struct onnx_facts facts;
    CHECK_OK(onnx_check(a, onnx, NULL, &facts));
    CHECK(facts.inputs.n == 1 && facts.inputs.v[0].dims[1] == 24 && facts.outputs.v[0].dims[1] == 1);
    CHECK_STR(facts.inputs.v[0].name, "features");
    CHECK_STR(facts.outputs.v[0].name, "probability");
    CHECK_OK(session_load(rt, onnx, &plain, &s));
    CHECK_OK(parity_check(a, fit.native, s, rows.x, rows.n, rows.features, 2, &p));
    cr_log_info("parity over %zu rows: %g at most, %g on average\n", p.rows, p.max_abs, p.mean_abs);
    CHECK(p.max_abs <= 1e-5 && p.rows == 20000);
    float *mine = NEW_N(a, float, rows.n), *theirs = NEW_N(a, float, rows.n);
    trees_predict(&fit.trees, rows.x, rows.n, rows.features, mine);
    CHECK_OK(session_score(s, rows.x, rows.n, rows.features, 777, theirs));
    for (size_t i = 0; i < rows.n; i++)
        CHECK(fabsf(mine[i] - theirs[i]) <= 1e-5f);
    CHECK_ERR(session_score(s, rows.x, 10, 23, 0, mine), INVALID);
    session_unload(s);
    runtime_close(rt);
}

TEST(a_tree_of_one_leaf_runs)
{
    struct runtime *rt;
    NEED_ORT(&rt);
    auto_arena struct arena *a = arena_new(0);
    struct tree_node nodes[] = { { .feature = -1, .value = 0.5f },
                                 { .feature = 1, .value = 2, .yes = 2, .no = 3, .missing_yes = true },
                                 { .feature = -1, .value = 1 },
                                 { .feature = -1, .value = -1 } };
    struct trees t = { .features = 2,
                       .base = 0.25f,
                       .nodes = nodes,
                       .n_nodes = 4,
                       .roots = (uint32_t[]){ 0, 1 },
                       .n_trees = 2 };
    const float x[] = { 0, 1, 0, 2, 0, NAN };
    float p[3];
    struct str onnx;
    struct session *s;
    CHECK_OK(trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, &onnx));
    CHECK_OK(session_load(rt, onnx, &plain, &s));
    CHECK_OK(session_score(s, x, 3, 2, 0, p));
    CHECK(p[0] == 1.75f && p[1] == -0.25f && p[2] == 1.75f);
    session_unload(s);
    runtime_close(rt);
}
