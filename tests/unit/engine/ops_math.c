// SPDX-License-Identifier: Apache-2.0
#define SUITE engine_ops_math
#include "gradcheck.h"
#include "test.h"

/* Shapes that take each path: pieces of long rows, whole short rows, a few numbers, and none to spare for a vector. */
#define VECTOR                 \
    {                          \
        .shape = { 1, { 37 } } \
    }
#define WIDE                        \
    {                               \
        .shape = { 2, { 3, 1100 } } \
    }
#define AWAY                                     \
    {                                            \
        .shape = { 2, { 3, 23 } }, .apart = 0.02 \
    }

TEST(activations)
{
    const struct gradcheck rows[] = {
        { OP_Relu, .in = { AWAY } },
        { OP_LeakyRelu, .in = { AWAY } },
        { OP_LeakyRelu, .in = { AWAY }, .attrs = ATTRS({ "alpha", ATTR_FLOAT, .f = 0.25f }) },
        { OP_ThresholdedRelu, .in = { { SHAPE(31), .low = 1.1, .high = 3 } } },
        { OP_ThresholdedRelu, .in = { { SHAPE(31), .low = -1, .high = 0.9 } } },
        { OP_Elu, .in = { AWAY } },
        { OP_Elu, .in = { AWAY }, .attrs = ATTRS({ "alpha", ATTR_FLOAT, .f = 1.5f }) },
        { OP_Celu, .in = { AWAY }, .attrs = ATTRS({ "alpha", ATTR_FLOAT, .f = 1.5f }) },
        { OP_Selu, .in = { AWAY } },
        { OP_Sigmoid, .in = { WIDE } },
        { OP_HardSigmoid, .in = { { SHAPE(29), .low = -2.4, .high = 2.4 } } },
        { OP_HardSigmoid, .in = { { SHAPE(29), .low = 2.6, .high = 4 } } },
        { OP_HardSwish, .in = { { SHAPE(29), .low = -2.9, .high = 2.9 } } },
        { OP_HardSwish, .in = { { SHAPE(29), .low = 3.1, .high = 4 } } },
        { OP_HardSwish, .in = { { SHAPE(29), .low = -4, .high = -3.1 } } },
        { OP_Tanh, .in = { VECTOR } },
        { OP_Gelu, .in = { { SHAPE(300), .low = -5, .high = 5 } } },
        { OP_Gelu, .in = { { SHAPE(300), .low = -5, .high = 5 } },
          .attrs = ATTRS({ "approximate", ATTR_TEXT, .s = S("tanh") }) },
        { OP_Erf, .in = { { SHAPE(300), .low = -4, .high = 4 } } },
        { OP_Softplus, .in = { { SHAPE(300), .low = -20, .high = 20 } } },
        { OP_Softsign, .in = { AWAY } },
        { OP_Swish, .in = { VECTOR } },
        { OP_Swish, .in = { VECTOR }, .attrs = ATTRS({ "alpha", ATTR_FLOAT, .f = 1.7f }) },
        { OP_Mish, .in = { VECTOR } },
        { OP_Shrink, .in = { { SHAPE(29), .low = 0.6, .high = 2 } },
          .attrs = ATTRS({ "bias", ATTR_FLOAT, .f = 0.5f }) },
        { OP_Shrink, .in = { { SHAPE(29), .low = -0.4, .high = 0.4 } } },
    };
    GRADCHECK_ALL(rows);
}

TEST(functions)
{
    const struct gradcheck rows[] = {
        { OP_Exp, .in = { VECTOR } },
        { OP_Log, .in = { { SHAPE(41), .low = 0.1, .high = 5 } } },
        { OP_Sqrt, .in = { { SHAPE(41), .low = 0.1, .high = 5 } } },
        { OP_Abs, .in = { AWAY } },
        { OP_Neg, .in = { VECTOR } },
        { OP_Reciprocal, .in = { { SHAPE(41), .low = 0.3, .high = 5 } } },
        { OP_Sin, .in = { VECTOR } },
        { OP_Cos, .in = { VECTOR } },
        { OP_Tan, .in = { { SHAPE(9), .low = -1, .high = 1 } } },
        { OP_Asin, .in = { { SHAPE(9), .low = -0.9, .high = 0.9 } } },
        { OP_Acos, .in = { { SHAPE(9), .low = -0.9, .high = 0.9 } } },
        { OP_Atan, .in = { VECTOR } },
        { OP_Sinh, .in = { VECTOR } },
        { OP_Cosh, .in = { VECTOR } },
        { OP_Asinh, .in = { VECTOR } },
        { OP_Acosh, .in = { { SHAPE(9), .low = 1.1, .high = 5 } } },
        { OP_Atanh, .in = { { SHAPE(9), .low = -0.9, .high = 0.9 } } },
        { OP_Sign, .in = { AWAY } },
        { OP_Floor, .in = { VECTOR }, .forward = true },
        { OP_Ceil, .in = { VECTOR }, .forward = true },
        { OP_Round, .in = { VECTOR }, .forward = true },
        { OP_IsNaN, .in = { VECTOR }, .forward = true },
        { OP_IsInf, .in = { VECTOR }, .forward = true },
        { OP_Not, .in = { { SHAPE(31), .type = TENSOR_BOOL } }, .forward = true },
        { OP_Clip,
          .in = { { SHAPE(29), .low = -0.9, .high = 0.9 },
                  { SCALAR, .values = (const double[]){ -1 }, .constant = true },
                  { SCALAR, .values = (const double[]){ 1 }, .constant = true } },
          .n_in = 3 },
        { OP_Clip,
          .in = { { SHAPE(29), .low = 1.1, .high = 3 },
                  { SCALAR, .values = (const double[]){ -1 }, .constant = true },
                  { SCALAR, .values = (const double[]){ 1 }, .constant = true } },
          .n_in = 3 },
        { OP_Clip,
          .in = { { SHAPE(29), .low = -3, .high = 0.9 },
                  { .absent = true },
                  { SCALAR, .values = (const double[]){ 1 }, .constant = true } },
          .n_in = 3 },
        { OP_Clip,
          .in = { { SHAPE(29), .low = 1.1, .high = 3 },
                  { SCALAR, .values = (const double[]){ 1 }, .constant = true } },
          .n_in = 2 },
        { OP_Clip, .in = { VECTOR } },
    };
    GRADCHECK_ALL(rows);
}

TEST(pairs_in_every_broadcast)
{
    static const struct shape fits[][2] = {
        { { 2, { 3, 7 } }, { 2, { 3, 7 } } }, /* alike */
        { { 2, { 3, 7 } }, { 0 } },           /* a scalar */
        { { 0 }, { 2, { 3, 7 } } },
        { { 2, { 40, 10 } }, { 1, { 10 } } },    /* a row under short rows */
        { { 2, { 3, 1500 } }, { 1, { 1500 } } }, /* and under long ones */
        { { 2, { 40, 10 } }, { 2, { 40, 1 } } }, /* a column */
        { { 2, { 3, 1500 } }, { 2, { 3, 1 } } },
        { { 4, { 2, 3, 4, 5 } }, { 4, { 1, 3, 1, 1 } } }, /* per channel */
        { { 4, { 2, 3, 30, 40 } }, { 3, { 3, 1, 1 } } },
        { { 2, { 1, 6 } }, { 2, { 5, 1 } } }, /* both */
        { { 4, { 2, 1, 3, 1 } }, { 4, { 1, 4, 1, 5 } } },
        { { 3, { 2, 3, 4 } }, { 3, { 2, 1, 4 } } },
        { { 5, { 2, 1, 3, 1, 4 } }, { 5, { 1, 2, 3, 2, 4 } } },
    };
    for (size_t i = 0; i < sizeof fits / sizeof *fits; i++) {
        const struct gradcheck rows[] = {
            { OP_Add, .in = { { fits[i][0] }, { fits[i][1] } }, .n_in = 2 },
            { OP_Sub, .in = { { fits[i][0] }, { fits[i][1] } }, .n_in = 2 },
            { OP_Mul, .in = { { fits[i][0] }, { fits[i][1] } }, .n_in = 2 },
            { OP_Div, .in = { { fits[i][0] }, { fits[i][1], .low = 0.5, .high = 3 } }, .n_in = 2 },
            { OP_PRelu, .in = { { fits[i][0], .apart = 0.02 }, { fits[i][1] } }, .n_in = 2 },
            { OP_Pow, .in = { { fits[i][0], .low = 0.3, .high = 2 }, { fits[i][1] } }, .n_in = 2 },
            { OP_Where, .in = { { fits[i][0], .type = TENSOR_BOOL }, { fits[i][1] }, { fits[i][0] } },
              .n_in = 3 },
            { OP_Less, .in = { { fits[i][0] }, { fits[i][1] } }, .n_in = 2, .forward = true },
        };
        GRADCHECK_ALL(rows);
    }
}

TEST(pairs_and_more)
{
    const double two = 2, half = 0.5, minus = -1, three = 3;
    const struct gradcheck rows[] = {
        { OP_Pow, .in = { VECTOR, { SCALAR, .values = &two, .constant = true } }, .n_in = 2 },
        { OP_Pow, .in = { VECTOR, { SCALAR, .values = &three, .constant = true } }, .n_in = 2 },
        { OP_Pow,
          .in = { { SHAPE(9), .low = 0.2, .high = 3 }, { SCALAR, .values = &half, .constant = true } },
          .n_in = 2 },
        { OP_Pow,
          .in = { { SHAPE(9), .low = 0.2, .high = 3 }, { SCALAR, .values = &minus, .constant = true } },
          .n_in = 2 },
        { OP_Pow,
          .in = { { SHAPE(9), .low = 0.2, .high = 3 },
                  { SCALAR, .type = TENSOR_I64, .values = &three, .constant = true } },
          .n_in = 2 },
        { OP_Min, .in = { { SHAPE(5, 6) }, { SHAPE(6) }, { SHAPE(5, 1) } }, .n_in = 3 },
        { OP_Max, .in = { { SHAPE(5, 6) }, { SHAPE(6) }, { SHAPE(5, 1) } }, .n_in = 3 },
        { OP_Max, .in = { { SHAPE(5, 6) } } },
        { OP_Sum, .in = { { SHAPE(5, 6) }, { SHAPE(6) }, { SHAPE(5, 1) } }, .n_in = 3 },
        { OP_Mean, .in = { { SHAPE(5, 6) }, { SHAPE(6) }, { SHAPE(5, 1) } }, .n_in = 3 },
        { OP_Mean, .in = { { SHAPE(5, 6) } } },
        { OP_Mod, .in = { { SHAPE(5, 6) }, { SHAPE(6), .low = 0.6, .high = 1 } }, .n_in = 2,
          .attrs = ATTRS({ "fmod", ATTR_INT, .i = 1 }), .forward = true },
        { OP_Equal, .in = { { SHAPE(50), .type = TENSOR_I32 }, { SHAPE(50), .type = TENSOR_I32 } }, .n_in = 2,
          .forward = true },
        { OP_Greater, .in = { VECTOR, VECTOR }, .n_in = 2, .forward = true },
        { OP_GreaterOrEqual, .in = { VECTOR, VECTOR }, .n_in = 2, .forward = true },
        { OP_LessOrEqual, .in = { VECTOR, VECTOR }, .n_in = 2, .forward = true },
        { OP_And, .in = { { SHAPE(5, 6), .type = TENSOR_BOOL }, { SHAPE(6), .type = TENSOR_BOOL } },
          .n_in = 2, .forward = true },
        { OP_Or, .in = { { SHAPE(5, 6), .type = TENSOR_BOOL }, { SHAPE(6), .type = TENSOR_BOOL } }, .n_in = 2,
          .forward = true },
        { OP_Xor, .in = { { SHAPE(5, 6), .type = TENSOR_BOOL }, { SHAPE(6), .type = TENSOR_BOOL } },
          .n_in = 2, .forward = true },
        { OP_Cast, .in = { VECTOR }, .attrs = ATTRS({ "to", ATTR_INT, .i = TENSOR_F64 }), .forward = true },
        { OP_Cast, .in = { VECTOR }, .attrs = ATTRS({ "to", ATTR_INT, .i = TENSOR_I32 }), .forward = true },
        { OP_Cast, .in = { { SHAPE(50), .type = TENSOR_I64 } },
          .attrs = ATTRS({ "to", ATTR_INT, .i = TENSOR_F32 }), .forward = true },
    };
    GRADCHECK_ALL(rows);
}

/* Each set of axes of four, with and without keeping them; then rows long enough to be cut, and many of them. */
TEST(reductions_over_every_axes)
{
    static const int ops[] = { OP_ReduceSum,    OP_ReduceMean,     OP_ReduceMax, OP_ReduceMin,
                               OP_ReduceProd,   OP_ReduceL1,       OP_ReduceL2,  OP_ReduceSumSquare,
                               OP_ReduceLogSum, OP_ReduceLogSumExp };
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        bool positive = ops[k] == OP_ReduceLogSum || ops[k] == OP_ReduceProd;
        for (int axes = 0; axes < 16; axes++) {
            int64_t list[4];
            size_t n = 0;
            for (int i = 0; i < 4; i++)
                if (axes >> i & 1)
                    list[n++] = i % 2 ? i : i - 4;
            const struct gradcheck rows[] = {
                { ops[k],
                  .in = { { SHAPE(3, 2, 4, 3), .low = positive ? 0.5 : -2, .high = positive ? 1.5 : 2,
                            .apart = 0.01 } },
                  .attrs = ATTRS(
                      { "axes", ATTR_INTS, .is = list, .n = n }, { "keepdims", ATTR_INT, .i = axes % 3 == 0 },
                      { "noop_with_empty_axes", ATTR_INT, .i = axes == 0 && ops[k] != OP_ReduceL2 }),
                  .tolerance = 1e-5 },
            };
            GRADCHECK_ALL(rows);
        }
        const int64_t first = 0, last = 1;
        const struct gradcheck rows[] = {
            { ops[k], .in = { { SHAPE(3, 2100), .low = 0.98, .high = 1.02 } }, .forward = true,
              .attrs = ATTRS({ "axes", ATTR_INTS, .is = &last, .n = 1 }) },
            { ops[k], .in = { { SHAPE(300, 5), .low = 0.98, .high = 1.02 } }, .forward = true,
              .attrs = ATTRS({ "axes", ATTR_INTS, .is = &first, .n = 1 }) },
            { ops[k], .in = { { SHAPE(70, 1100), .low = 0.98, .high = 1.02 } }, .forward = true,
              .attrs = ATTRS({ "axes", ATTR_INTS, .is = &first, .n = 1 }) },
            { ops[k], .in = { { SHAPE(70, 110), .low = 0.98, .high = 1.02 } }, .forward = true },
        };
        GRADCHECK_ALL(rows);
    }
}

TEST(reductions_of_other_kinds)
{
    const double axis0 = 0, axis1 = 1;
    const double axes[] = { 0, 2 };
    const struct gradcheck rows[] = {
        { OP_ReduceSum,
          .in = { { SHAPE(3, 4, 5) }, { SHAPE(2), .type = TENSOR_I64, .values = axes, .constant = true } },
          .n_in = 2 },
        { OP_ReduceSum, .in = { { SHAPE(3, 4, 5), .type = TENSOR_I64 } }, .forward = true },
        { OP_ReduceMax, .in = { { SHAPE(3, 4, 5), .type = TENSOR_I32 } }, .forward = true },
        { OP_ReduceMean, .in = { { SHAPE(3, 4, 5), .type = TENSOR_I32 } }, .forward = true },
        { OP_ArgMax, .in = { { SHAPE(3, 40) } }, .attrs = ATTRS({ "axis", ATTR_INT, .i = 1 }),
          .forward = true },
        { OP_ArgMin, .in = { { SHAPE(3, 4, 5) } },
          .attrs = ATTRS({ "axis", ATTR_INT, .i = -2 }, { "keepdims", ATTR_INT, .i = 0 }), .forward = true },
        { OP_ArgMax, .in = { { SHAPE(3, 40), .type = TENSOR_I64 } },
          .attrs = ATTRS({ "axis", ATTR_INT, .i = 1 }, { "select_last_index", ATTR_INT, .i = 1 }),
          .forward = true },
        { OP_CumSum,
          .in = { { SHAPE(3, 4, 5) }, { SCALAR, .type = TENSOR_I64, .values = &axis1, .constant = true } },
          .n_in = 2 },
        { OP_CumSum,
          .in = { { SHAPE(3, 4) }, { SCALAR, .type = TENSOR_I32, .values = &axis0, .constant = true } },
          .n_in = 2, .attrs = ATTRS({ "exclusive", ATTR_INT, .i = 1 }, { "reverse", ATTR_INT, .i = 1 }) },
        { OP_SumTo, .in = { { SHAPE(3, 4, 5) }, { SHAPE(4, 1), .fixed = true } }, .n_in = 2 },
        { OP_SumTo, .in = { { SHAPE(30, 50) }, { SHAPE(50), .fixed = true } }, .n_in = 2 },
        { OP_SumTo, .in = { { SHAPE(30, 50) }, { SCALAR, .fixed = true } }, .n_in = 2 },
        { OP_BroadcastTo, .in = { { SHAPE(4, 1) }, { SHAPE(3, 4, 5), .fixed = true } }, .n_in = 2 },
    };
    GRADCHECK_ALL(rows);
}
