// SPDX-License-Identifier: Apache-2.0
#define SUITE ops_shape
#include "engine/device.h"
#include "engine/program.h"
#include "test.h"

/* Runs one graph on one thread; inputs by graph->inputs. */
struct ran {
    struct arena *a;
    struct team *team;
    struct program *p;
    struct run_report report;
};
static struct ran run_on(struct graph *g, int64_t rows, int ranks, const void *const *inputs)
{
    struct ran r = { .a = g->a };
    struct params *params;
    CHECK_OK(graph_error(g));
    CHECK_OK(team_new(ranks, &r.team));
    CHECK_OK(params_new(g->a, &device_cpu, g, ranks, 1, &params));
    CHECK_OK(program_new(
        g->a, g, params,
        &(struct program_options){ .team = r.team, .ranks = ranks, .rows = rows, .loss = -1 }, &r.p));
    program_run(r.p, inputs, 1, 0, &r.report);
    return r;
}
static void ran_done(struct ran *r)
{
    team_free(r->team);
}

static struct shape shape_of(struct graph *g, int v)
{
    CHECK_OK(graph_error(g));
    return value_at(g, v)->shape;
}
static int reshaped(struct graph *g, int x, const int64_t *d, size_t n)
{
    return graph_node(g, OP_Reshape, x, graph_i64s(g, d, n));
}
#define RESHAPED(g, x, ...)                              \
    reshaped((g), (x), (const int64_t[]){ __VA_ARGS__ }, \
             sizeof((const int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))

TEST(shapes_of_open_batches)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int64_t b = graph_symbol(g, "batch"), t = graph_symbol(g, "time");
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(b, 3, 4));
    struct shape s = shape_of(g, RESHAPED(g, x, -1, 12));
    CHECK(shape_same(&s, &SHAPE(b, 12)));
    s = shape_of(g, RESHAPED(g, x, 0, -1));
    CHECK(shape_same(&s, &SHAPE(b, 12)));
    s = shape_of(g, RESHAPED(g, x, 0, 2, -1, 3));
    CHECK(shape_same(&s, &SHAPE(b, 2, 2, 3)));
    s = shape_of(g, RESHAPED(g, x, -1, 4)); /* 3 batch: no size has that name */
    CHECK(s.rank == -1);
    s = shape_of(g, graph_node(g, OP_Flatten, x));
    CHECK(shape_same(&s, &SHAPE(b, 12)));
    s = shape_of(g, graph_node(g, OP_Shape, x));
    CHECK(shape_same(&s, &SHAPE(3)));
    int y = graph_input(g, "y", TENSOR_F32, SHAPE(b, t, 8));
    int64_t perm[] = { 2, 0, 1 };
    s = shape_of(g, graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = perm, .n = 3 }), y));
    CHECK(shape_same(&s, &SHAPE(8, b, t)));
    CHECK(RESHAPED(g, x, -1, 5, 0) == -1 || graph_error(g));
}

TEST(sizes_that_cannot_be_are_refused)
{
    static const struct {
        int op;
        int64_t second[6];
        size_t n;
        const char *why;
    } rows[] = {
        { OP_Reshape, { 5, 5 }, 2, "24 elements cannot be 25" },
        { OP_Reshape, { -1, -1 }, 2, "two sizes" },
        { OP_Reshape, { 7, -1 }, 2, "shared out" },
        { OP_Reshape, { -2 }, 1, "negative" },
        { OP_Squeeze, { 1 }, 1, "not 1" },
        { OP_Unsqueeze, { 7 }, 1, "outside" },
        { OP_Unsqueeze, { 0, 0 }, 2, "twice" },
        { OP_Expand, { 5, 4 }, 2, "fit together" },
        { OP_Tile, { 2 }, 1, "repeats" },
        { OP_Pad, { 1, 2, 3 }, 3, "pads" },
        { OP_Pad, { -9, 0, 0, 0, 0, 0 }, 6, "takes more" },
        { OP_Tile, { 1LL << 40, 1LL << 40, 1LL << 40 }, 3, "absurd" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct graph *g = graph_new(a);
        int x = graph_input(g, "x", TENSOR_F32, SHAPE(2, 3, 4));
        graph_node(g, rows[i].op, x, graph_i64s(g, rows[i].second, rows[i].n));
        CHECK(graph_error(g) &&
              memmem(graph_error(g)->text.p, graph_error(g)->text.n, rows[i].why, strlen(rows[i].why)));
    }
}

/* All orders of four axes, some of size 1, against counting. */
TEST(transposes_of_all_orders)
{
    enum { N = 5 * 1 * 37 * 6 };
    static const int64_t d[] = { 5, 1, 37, 6 };
    static float x[N];
    for (int i = 0; i < N; i++)
        x[i] = (float)i;
    for (int order = 0; order < 256; order++) {
        int64_t perm[] = { order & 3, order >> 2 & 3, order >> 4 & 3, order >> 6 & 3 };
        if ((1 << perm[0] | 1 << perm[1] | 1 << perm[2] | 1 << perm[3]) != 15)
            continue;
        auto_arena struct arena *a = arena_new(0);
        struct graph *g = graph_new(a);
        int v = graph_input(g, "x", TENSOR_F32, SHAPE(5, 1, 37, 6));
        v = graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = perm, .n = 4 }), v);
        graph_output(g, v, S("y"));
        struct ran r = run_on(g, 1, 1, (const void *[]){ x });
        const float *y = program_output(r.p, 0, NULL, NULL);
        int64_t stride[] = { 37 * 6, 37 * 6, 6, 1 }, at = 0, wrong = 0;
        for (int64_t i = 0; i < d[perm[0]]; i++)
            for (int64_t j = 0; j < d[perm[1]]; j++)
                for (int64_t k = 0; k < d[perm[2]]; k++)
                    for (int64_t l = 0; l < d[perm[3]]; l++)
                        wrong += y[at++] != x[i * stride[perm[0]] + j * stride[perm[1]] +
                                              k * stride[perm[2]] + l * stride[perm[3]]];
        CHECK((wrong) == (0));
        ran_done(&r);
    }
}

TEST(indices_outside_read_zeros_and_are_counted)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    static const float table[] = { 1, 2, 3, 4, 5, 6 };
    int64_t b = graph_symbol(g, "batch");
    int ids = graph_input(g, "ids", TENSOR_I64, SHAPE(b));
    int rows = graph_const(g, TENSOR_F32, SHAPE(3, 2), table);
    graph_output(g, graph_node(g, OP_Gather, rows, ids), S("y"));
    static const int64_t index[] = { 2, -1, 3, 0, -4, INT64_MIN };
    static const float want[] = { 5, 6, 5, 6, 0, 0, 1, 2, 0, 0, 0, 0 };
    for (int ranks = 1; ranks <= 2; ranks++) {
        struct ran r = run_on(g, 6, ranks, (const void *[]){ index });
        CHECK(memcmp(program_output(r.p, 0, NULL, NULL), want, sizeof want) == 0);
        CHECK((r.report.bad_indices) == (3));
        CHECK((program_facts(r.p).ranks) == (ranks));
        ran_done(&r);
    }
}

/* Rows may be cut where they pass through a Reshape that keeps them whole, and not where they are mixed. */
TEST(rows_pass_or_mix)
{
    for (int mix = 0; mix < 5; mix++) {
        auto_arena struct arena *a = arena_new(0);
        struct graph *g = graph_new(a);
        int64_t b = graph_symbol(g, "batch"), two[] = { 2, 1 }, zero = 0, most = INT64_MAX, back = -1,
                least = INT64_MIN;
        int x = graph_input(g, "x", TENSOR_F32, SHAPE(b, 6)), y = RESHAPED(g, x, -1, 3);
        y = RESHAPED(g, y, -1, 6);
        if (mix == 1)
            y = graph_node(g, OP_Tile, y, graph_i64s(g, two, 2));
        if (mix == 2)
            y = graph_node(g, OP_Trilu, y);
        if (mix == 3) /* rows in the opposite order */
            y = graph_node(g, OP_Slice, y, graph_i64s(g, &back, 1), graph_i64s(g, &least, 1),
                           graph_i64s(g, &zero, 1), graph_i64s(g, &back, 1));
        if (mix == 4)
            y = graph_node_with(g, OP_Concat, ATTRS({ "axis", ATTR_INT, .i = 0 }), y, y);
        if (mix == 0)
            y = graph_node(g, OP_Slice, y, graph_i64s(g, two, 1), graph_i64s(g, &most, 1),
                           graph_i64s(g, two + 1, 1));
        graph_output(g, y, S("y"));
        static float in[24];
        for (int i = 0; i < 24; i++)
            in[i] = (float)i;
        struct ran one = run_on(g, 4, 1, (const void *[]){ in }),
                   both = run_on(g, 4, 2, (const void *[]){ in });
        struct shape s;
        const void *want = program_output(one.p, 0, NULL, &s), *have = program_output(both.p, 0, NULL, NULL);
        CHECK(memcmp(want, have, (size_t)shape_count(&s) * sizeof(float)) == 0);
        CHECK((program_facts(both.p).ranks) == (mix ? 1 : 2));
        ran_done(&one);
        ran_done(&both);
    }
}
