// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_ops_matrix
#include "gradcheck.h"
#include "test.h"

#define TRANS(a, b) ATTRS({ "transA", ATTR_INT, .i = (a) }, { "transB", ATTR_INT, .i = (b) })
#define SUM(a, b) \
    ATTRS({ "transA", ATTR_INT, .i = (a) }, { "transB", ATTR_INT, .i = (b) }, { "sum", ATTR_INT, .i = 1 })

TEST(matrix_products_by_numpys_rules)
{
    const struct gradcheck rows[] = {
        { OP_MatMul, .in = { { SHAPE(3, 4) }, { SHAPE(4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(4) }, { SHAPE(4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(3, 4) }, { SHAPE(4) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(4) }, { SHAPE(4) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(2, 3, 4) }, { SHAPE(4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(2, 3, 4) }, { SHAPE(4) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(4) }, { SHAPE(2, 4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(3, 4) }, { SHAPE(2, 4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(2, 3, 3, 4) }, { SHAPE(2, 3, 4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(2, 1, 3, 4) }, { SHAPE(3, 4, 2) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(2, 3, 4) }, { SHAPE(1, 4, 5) } }, .n_in = 2 },
        { OP_MatMul, .in = { { SHAPE(33, 17) }, { SHAPE(17, 70) } }, .n_in = 2 },
    };
    GRADCHECK_ALL(rows);
}

TEST(gemm_scales_transposes_and_adds)
{
    const struct gradcheck rows[] = {
        { OP_Gemm, .in = { { SHAPE(3, 4) }, { SHAPE(4, 5) } }, .n_in = 2 },
        { OP_Gemm, .in = { { SHAPE(3, 4) }, { SHAPE(4, 5) }, { SHAPE(5) } }, .n_in = 3 },
        { OP_Gemm, .attrs = TRANS(0, 1), .in = { { SHAPE(3, 4) }, { SHAPE(5, 4) }, { SHAPE(1, 5) } },
          .n_in = 3 },
        { OP_Gemm, .attrs = TRANS(1, 0), .in = { { SHAPE(4, 3) }, { SHAPE(4, 5) }, { SHAPE(3, 1) } },
          .n_in = 3 },
        { OP_Gemm, .attrs = TRANS(1, 1), .in = { { SHAPE(4, 3) }, { SHAPE(5, 4) }, { SHAPE(3, 5) } },
          .n_in = 3 },
        { OP_Gemm,
          .attrs = ATTRS({ "alpha", ATTR_FLOAT, .f = 0.5f }, { "beta", ATTR_FLOAT, .f = -2 },
                         { "transB", ATTR_INT, .i = 1 }),
          .in = { { SHAPE(3, 4) }, { SHAPE(5, 4) }, { SHAPE(5) } }, .n_in = 3 },
        { OP_Gemm, .attrs = TRANS(0, 1), .in = { { SHAPE(3, 4) }, { SHAPE(1, 4) }, { SHAPE(1) } },
          .n_in = 3 },
    };
    GRADCHECK_ALL(rows);
}

TEST(products_of_gradients)
{
    const struct gradcheck rows[] = {
        { OP_MatMulT, .attrs = TRANS(0, 1), .in = { { SHAPE(2, 3, 4) }, { SHAPE(5, 4) } }, .n_in = 2,
          .forward = true },
        { OP_MatMulT, .attrs = TRANS(1, 1), .in = { { SHAPE(2, 4, 3) }, { SHAPE(2, 5, 4) } }, .n_in = 2,
          .forward = true },
        { OP_MatMulT, .attrs = SUM(1, 0), .in = { { SHAPE(2, 4, 3) }, { SHAPE(2, 4, 5) } }, .n_in = 2,
          .forward = true },
        { OP_MatMulT, .attrs = SUM(0, 0), .in = { { SHAPE(2, 3, 4) }, { SHAPE(2, 4, 5) } }, .n_in = 2,
          .forward = true },
        { OP_MatMulT, .attrs = SUM(1, 0), .in = { { SHAPE(3, 4, 3) }, { SHAPE(1, 4, 5) } }, .n_in = 2,
          .forward = true },
        { OP_MatMulT, .attrs = ATTRS({ "act", ATTR_INT, .i = 1 }),
          .in = { { SHAPE(3, 4) }, { SHAPE(4, 20) }, { SHAPE(20) } }, .n_in = 3, .forward = true },
        { OP_MatMulT, .attrs = ATTRS({ "act", ATTR_INT, .i = 2 }),
          .in = { { SHAPE(3, 4) }, { SHAPE(4, 20) }, { .absent = true }, { SHAPE(3, 20), .apart = 0.1 } },
          .n_in = 4, .forward = true },
        { OP_MatMulT, .attrs = SUM(1, 0),
          .in = { { SHAPE(2, 4, 3) },
                  { SHAPE(2, 4, 5) },
                  { .absent = true },
                  { .absent = true },
                  { SHAPE(3, 5) } },
          .n_in = 5, .forward = true },
    };
    GRADCHECK_ALL(rows);
}

TEST(matrices_that_do_not_fit_are_named)
{
    auto_arena struct arena *a = arena_new(0);
    struct graph *g = graph_new(a);
    int x = graph_input(g, "x", TENSOR_F32, SHAPE(3, 4)), y = graph_input(g, "y", TENSOR_F32, SHAPE(5, 4));
    CHECK(graph_node(g, OP_MatMul, x, y) == -1);
    CHECK_ERR(graph_error(g), INVALID);
    CHECK(str_find(graph_error(g)->text, '4') < graph_error(g)->text.n);
}
