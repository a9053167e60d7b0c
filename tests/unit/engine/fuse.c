// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_fuse
#include "gradcheck.h"
#include "test.h"
#include <math.h>

/* A graph built twice: run node by node, and lowered first. */
struct pair {
    struct arena *a;
    struct graph *g[2];
    struct graph_eval e[2];
    int out[8], n_out;
};
typedef void build_fn(struct graph *, struct pair *);

static void give(struct graph *g, struct pair *p, int v)
{
    graph_output(g, v, (struct str){ 0 });
    if (g == p->g[0])
        p->out[p->n_out++] = v;
}

static void fill(struct graph_eval *e, double low)
{
    for (size_t i = 0; i < e->g->inputs.n; i++) {
        struct tensor *t = &e->t[e->g->inputs.v[i]];
        uint64_t random = 9 + i;
        for (int64_t k = 0; k < t->n; k++)
            tensor_set(t, k, low + (double)(splitmix(&random) >> 40) * 0x1p-23);
    }
}

static struct pair pair_of(build_fn *build)
{
    struct pair p = { .a = arena_new(0) };
    for (int k = 0; k < 2; k++) {
        p.g[k] = graph_new(p.a);
        build(p.g[k], &p);
        CHECK_OK(graph_error(p.g[k]));
    }
    CHECK_OK(device_cpu.lower(p.g[1], true));
    for (int k = 0; k < 2; k++) {
        CHECK_OK(graph_eval_new(p.a, p.g[k], &p.e[k]));
        fill(&p.e[k], -1);
        graph_eval_run(&p.e[k], p.e[k].n);
    }
    for (int i = 0; i < p.n_out; i++) {
        const struct tensor *x = &p.e[0].t[p.out[i]], *y = &p.e[1].t[p.out[i]];
        for (int64_t k = 0; k < x->n; k++)
            if (!(fabs(tensor_get(x, k) - tensor_get(y, k)) <= 1e-5 * (1 + fabs(tensor_get(x, k)))))
                TEST_FAIL_("output %d at %lld: %g fused, %g alone", i, (long long)k, tensor_get(y, k),
                           tensor_get(x, k));
    }
    return p;
}

static int in(struct graph *g, struct pair *p, struct shape s)
{
    return graph_input(g, fmtz(p->a, "x%zu", g->inputs.n), TENSOR_F32, s);
}

/* x / √2 → Erf → + 1 → × x → × ½, as exporters write Gelu. */
static void gelu_chain(struct graph *g, struct pair *p)
{
    int x = graph_node(g, OP_Add, in(g, p, SHAPE(40, 384)), in(g, p, SHAPE(384)));
    int e = graph_node(g, OP_Erf, graph_node(g, OP_Div, x, graph_f32(g, 1.4142135f)));
    int y = graph_node(g, OP_Mul, x, graph_node(g, OP_Add, e, graph_f32(g, 1)));
    give(g, p, graph_node(g, OP_Mul, y, graph_f32(g, 0.5f)));
}

TEST(a_chain_is_one_node)
{
    struct pair p = pair_of(gelu_chain);
    CHECK(p.g[1]->nodes.n == 1 && p.g[1]->nodes.v[0].op->id == OP_Fused);
    arena_free(p.a);
}

/* The sum is read by a product far behind, so it is written; the activation is not. */
static void shared(struct graph *g, struct pair *p)
{
    int x = graph_node(g, OP_Add, in(g, p, SHAPE(7, 30)), in(g, p, SHAPE(7, 1)));
    int y = graph_node(g, OP_Mul, graph_node(g, OP_Tanh, x), graph_node(g, OP_Sigmoid, x));
    int sum = graph_node_with(g, OP_ReduceSum, ATTRS({ "keepdims", ATTR_INT, .i = 0 }), y);
    give(g, p, graph_node(g, OP_Mul, graph_node(g, OP_Mul, x, sum), x));
    give(g, p, y);
}

TEST(what_others_read_is_written)
{
    struct pair p = pair_of(shared);
    CHECK(p.g[1]->nodes.n == 3 && p.g[1]->nodes.v[0].op->id == OP_Fused && p.g[1]->nodes.v[0].n_out == 2);
    arena_free(p.a);
}

/* b needs a product of a: a and b cannot be one node, though c takes both. */
static void cycle(struct graph *g, struct pair *p)
{
    int a = graph_node(g, OP_Exp, in(g, p, SHAPE(6, 6)));
    int b = graph_node(
        g, OP_Tanh,
        graph_node_with(g, OP_ReduceSum, ATTRS({ "axes", ATTR_INTS, .is = (int64_t[]){ 0 }, .n = 1 }), a));
    int c = graph_node(g, OP_Add, a, graph_node(g, OP_BroadcastTo, b, a));
    give(g, p, graph_node(g, OP_Relu, c));
}

TEST(no_node_waits_for_itself)
{
    struct pair p = pair_of(cycle);
    arena_free(p.a);
}

/* A gradient with truth values, broadcasts and casts in between. */
static void mixed(struct graph *g, struct pair *p)
{
    int x = in(g, p, SHAPE(2, 3, 5, 7)), scale = in(g, p, SHAPE(3, 1, 1));
    int h = graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = TENSOR_BF16 }),
                            graph_node(g, OP_Mul, x, scale));
    int f = graph_node_with(g, OP_Cast, ATTRS({ "to", ATTR_INT, .i = TENSOR_F32 }), h);
    int w = graph_node(g, OP_Where, graph_node(g, OP_Greater, x, graph_f32(g, 0.1f)), x,
                       graph_node(g, OP_Neg, x));
    int m = graph_node_with(
        g, OP_ReduceMean,
        ATTRS({ "axes", ATTR_INTS, .is = (int64_t[]){ 2, 3 }, .n = 2 }, { "keepdims", ATTR_INT, .i = 0 }), x);
    int b = graph_node_with(g, OP_BroadcastTo,
                            ATTRS({ "axes", ATTR_INTS, .is = (int64_t[]){ 2, 3 }, .n = 2 }), m, x);
    give(g, p, graph_node(g, OP_Sub, graph_node(g, OP_Max, w, x), b));
    (void)f;
    give(g, p, graph_node(g, OP_Mul, w, w));
}

TEST(broadcasts_casts_and_truth)
{
    struct pair p = pair_of(mixed);
    CHECK(p.g[1]->nodes.n < p.g[0]->nodes.n);
    arena_free(p.a);
}

/* Channels last: the fused node walks memory as it lies; an input that lies otherwise is gathered. */
TEST(channels_last)
{
    struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(2, 5, 3, 4)),
        c = graph_input(g, "c", TENSOR_F32, SHAPE(5, 1, 1)),
        z = graph_input(g, "z", TENSOR_F32, SHAPE(2, 5, 3, 4));
    int y = graph_node(g, OP_Relu, graph_node(g, OP_Add, graph_node(g, OP_Mul, x, c), z));
    graph_output(g, y, S("y"));
    for (size_t i = 0; i < g->values.n; i++)
        g->values.v[i].nhwc = g->values.v[i].shape.rank == 4 && (int)i != z;
    CHECK_OK(device_cpu.lower(g, false));
    struct graph_eval e;
    CHECK_OK(graph_eval_new(a, g, &e));
    fill(&e, -1);
    graph_eval_run(&e, e.n);
    for (int n = 0; n < 2; n++)
        for (int k = 0; k < 5; k++)
            for (int i = 0; i < 12; i++) {
                int last = (n * 12 + i) * 5 + k, first = (n * 5 + k) * 12 + i;
                double want = tensor_get(&e.t[x], last) * tensor_get(&e.t[c], k) + tensor_get(&e.t[z], first);
                CHECK(fabs(tensor_get(&e.t[y], last) - fmax(want, 0)) < 1e-6);
            }
    arena_free(a);
}
