// SPDX-License-Identifier: Apache-2.0
#define SUITE graph
#include "engine/engine.h"
#include "test.h"

/* x [batch, 3] · w [3, 2] + b [2] → Relu */
struct small {
    struct arena *a;
    struct graph *g;
    int x, w, b, y;
};

static struct small small_new(void)
{
    struct small s = { .a = arena_new(0) };
    s.g = graph_new(s.a);
    s.x = graph_input(s.g, "x", TENSOR_F32, SHAPE(graph_symbol(s.g, "batch"), 3));
    s.w = graph_param(s.g, S("w"), SHAPE(3, 2), NULL);
    s.b = graph_param(s.g, S("b"), SHAPE(2), NULL);
    s.y = graph_node(s.g, OP_Relu, graph_node(s.g, OP_Add, graph_node(s.g, OP_MatMul, s.x, s.w), s.b));
    graph_output(s.g, s.y, S("y"));
    return s;
}

static struct str text(const struct small *s, int v)
{
    return shape_text(s->g, s->a, &value_at(s->g, v)->shape);
}

TEST(symbols_pass_through_ops)
{
    struct small s = small_new();
    CHECK_OK(graph_error(s.g));
    CHECK_STR(text(&s, s.y), "[batch, 2]");
    CHECK(graph_find(s.g, S("y")) == s.y && graph_find(s.g, S("z")) == -1);
    CHECK(graph_symbol(s.g, "batch") == -1); /* the same symbol again */
    arena_free(s.a);
}

TEST(binding_makes_sizes_numbers)
{
    struct small s = small_new();
    struct graph *bound;
    int64_t sizes[] = { 7 };
    CHECK_OK(graph_bind(s.g, s.a, sizes, &bound));
    CHECK_STR(shape_text(bound, s.a, &value_at(bound, s.y)->shape), "[7, 2]");
    CHECK_STR(text(&s, s.y), "[batch, 2]"); /* the source is as it was */
    CHECK(bound->nodes.n == 3);
    arena_free(s.a);
}

TEST(what_nobody_needs_is_left_out)
{
    struct small s = small_new();
    struct graph *bound;
    graph_node(s.g, OP_Relu, s.x);
    CHECK(s.g->nodes.n == 4);
    CHECK_OK(graph_bind(s.g, s.a, (int64_t[]){ 2 }, &bound));
    CHECK(bound->nodes.n == 3);
    arena_free(s.a);
}

TEST(the_first_error_of_building_stays)
{
    struct small s = small_new();
    int five = graph_param(s.g, S("five"), SHAPE(5), NULL);
    CHECK(graph_node(s.g, OP_Add, s.y, five) == -1);
    CHECK(graph_node(s.g, OP_Relu, -1) == -1); /* later calls pass on */
    CHECK_ERR(graph_error(s.g), INVALID);
    CHECK(strstr(graph_error(s.g)->text.p, "[batch, 2]") && strstr(graph_error(s.g)->text.p, "[5]"));
    CHECK_ERR(graph_bind(s.g, s.a, (int64_t[]){ 2 }, &(struct graph *){ NULL }), INVALID);
    arena_free(s.a);
}

TEST(constants_are_folded)
{
    struct small s = small_new();
    float v[] = { 1, 2 };
    int c = graph_const(s.g, TENSOR_F32, SHAPE(2), v);
    int sum = graph_node(s.g, OP_Add, c, c);
    struct graph *bound;
    CHECK(value_at(s.g, sum)->kind == VALUE_CONST);
    CHECK(((const float *)value_at(s.g, sum)->data)[1] == 4);
    graph_output(s.g, graph_node(s.g, OP_Mul, s.y, sum), S("twice"));
    CHECK_OK(graph_bind(s.g, s.a, (int64_t[]){ 2 }, &bound));
    CHECK(bound->nodes.n == 4); /* the Add of constants is gone */
    arena_free(s.a);
}

TEST(attributes_are_copied)
{
    struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(2, 3, 4));
    int64_t order[] = { 2, 0, 1 };
    int y = graph_node_with(g, OP_Transpose, ATTRS({ "perm", ATTR_INTS, .is = order, .n = 3 }), x);
    order[0] = 9;
    CHECK_OK(graph_error(g));
    CHECK_STR(shape_text(g, a, &value_at(g, y)->shape), "[4, 2, 3]");
    CHECK(attr_find(&g->nodes.v[0], "perm")->is[0] == 2);
    CHECK(attr_i(&g->nodes.v[0], "nothing", 5) == 5);
    arena_free(a);
}
