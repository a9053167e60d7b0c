// SPDX-License-Identifier: Apache-2.0
/* Models that many threads load, run, stop and unload at once, over one shared pool, for ThreadSanitizer: 0 is a pass. Each
 * runtime by itself. */
#include "train/runtime.h"
#include <stdatomic.h>
#include <stdlib.h>

enum { THREADS = 4, ROUNDS = 60, FEATURES = 3, ROWS = 64 };

/* ONNX Runtime is not built for ThreadSanitizer, which so cannot see what its pool waits for; what is ours is watched. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "race:libonnxruntime.so\n";
}

struct work {
    struct runtime *rt;
    struct str bytes;
    struct session *kept;
    struct run_control *control;
    atomic_int right, stopped;
};

static struct tensor matrix(float *data, int64_t columns)
{
    return (struct tensor){ .type = TENSOR_F32,
                            .rank = 2,
                            .dims = { ROWS, columns },
                            .data = data,
                            .bytes = ROWS * (size_t)columns * sizeof *data };
}

/* One tree: x[1] < 2 gives 1, else -1. */
static bool right(struct session *s, struct run_control *control)
{
    float x[ROWS * FEATURES] = { 0 }, y[ROWS];
    for (int i = 0; i < ROWS; i++)
        x[i * FEATURES + 1] = (float)(i % 4);
    struct tensor in = matrix(x, FEATURES), out = matrix(y, 1);
    if (session_run_until(s, control, NULL, &in, 1, &out, 1))
        return false;
    for (int i = 0; i < ROWS; i++)
        if (y[i] != (i % 4 < 2 ? 1 : -1))
            return false;
    return true;
}

static void *worker(void *arg)
{
    struct work *w = arg;
    for (int i = 0; i < ROUNDS; i++) {
        struct session *s;
        if (session_load(w->rt, w->bytes, &(struct session_config){ .threads = 1 + i % 2 }, &s))
            continue;
        bool good = right(s, NULL) && right(w->kept, NULL);
        session_unload(s);
        struct run_control mine = RUN_CONTROL_INIT;
        good = good && right(w->kept, &mine);
        atomic_fetch_add(&w->right, good);
        err_reset();
    }
    return NULL;
}

/* Runs until another thread's word ends it. */
static void *runner(void *arg)
{
    struct work *w = arg;
    while (right(w->kept, w->control))
        ;
    atomic_fetch_add(&w->stopped, 1);
    err_reset();
    return NULL;
}

static err tree(struct arena *a, struct str *out)
{
    struct tree_node nodes[] = { { .feature = 1, .value = 2, .yes = 1, .no = 2 },
                                 { .feature = -1, .value = 1 },
                                 { .feature = -1, .value = -1 } };
    struct trees t = {
        .features = FEATURES, .nodes = nodes, .n_nodes = 3, .roots = (uint32_t[]){ 0 }, .n_trees = 1
    };
    return trees_to_onnx(&t, a, &(struct trees_doc){ 0 }, out);
}

/* The same by a network: x[1] · -2 + 3, cut at -1 and 1. */
static err network(struct arena *a, struct str *out)
{
    const float w[FEATURES] = { 0, -2, 0 }, b[1] = { 3 };
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(graph_symbol(g, "batch"), FEATURES));
    int y = graph_node(g, OP_Gemm, x, graph_param(g, S("w"), SHAPE(FEATURES, 1), w),
                       graph_param(g, S("b"), SHAPE(1), b));
    graph_output(g, graph_node(g, OP_Clip, y, graph_f32(g, -1), graph_f32(g, 1)), S("y"));
    TRY(graph_error(g));
    return graph_write(g, a, NULL, out);
}

static int together(const char *runtime, err (*model)(struct arena *, struct str *))
{
    auto_arena struct arena *a = arena_new(0);
    struct run_control control = RUN_CONTROL_INIT;
    struct work w = { .control = &control };
    pthread_t threads[THREADS], running;
    err e = runtime_open_named(str_of(runtime), &(struct runtime_config){ .threads = 2 }, &w.rt);
    if (e && e->code == UNAVAILABLE && !getenv("DHOW_NEED_ALL"))
        return 0;
    if (e || model(a, &w.bytes) ||
        session_load(w.rt, w.bytes, &(struct session_config){ .threads = 2 }, &w.kept) ||
        thread_start("run", runner, &w, &running))
        return 1;
    for (int i = 0; i < THREADS; i++)
        if (thread_start("work", worker, &w, &threads[i]))
            return 1;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    run_control_stop(&control, CANCELLED);
    pthread_join(running, NULL);
    session_unload(w.kept);
    runtime_close(w.rt);
    return w.right == THREADS * ROUNDS && w.stopped == 1 ? 0 : 1;
}

int main(void)
{
    return together("onnxruntime", tree) || together("engine", network);
}
