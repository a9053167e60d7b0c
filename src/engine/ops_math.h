// SPDX-License-Identifier: Apache-2.0
// Element-wise ops, their backward forms, and reductions; read engine/ops.h first.
#pragma once
// clang-format off
/* ONNX, one input, element by element. */
#define OPS_UNARY(O) \
    O(Relu,             ONNX, 14, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_relu,         1e-6, "max(x, 0)") \
    O(LeakyRelu,        ONNX, 16, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_leaky_relu,   1e-6, "x, or alpha x below 0") \
    O(ThresholdedRelu,  ONNX, 10, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_thresholded,  1e-6, "x above alpha, else 0") \
    O(Elu,              ONNX, 6,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_elu,          1e-6, "x, or alpha (e^x - 1) below 0") \
    O(Celu,             ONNX, 12, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_celu,         1e-6, "x, or alpha (e^(x/alpha) - 1) below 0") \
    O(Selu,             ONNX, 6,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_selu,         1e-6, "gamma x, or gamma alpha (e^x - 1) below 0") \
    O(Sigmoid,          ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_sigmoid,      1e-6, "1 / (1 + e^-x)") \
    O(HardSigmoid,      ONNX, 6,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_hard_sigmoid, 1e-6, "alpha x + beta, within 0 and 1") \
    O(HardSwish,        ONNX, 14, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_hard_swish,   1e-6, "x times HardSigmoid(x; 1/6, 1/2)") \
    O(Tanh,             ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_tanh,         1e-6, "tanh x") \
    O(Gelu,             ONNX, 20, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_gelu,         2e-6, "x times the normal distribution at x; approximate=tanh") \
    O(Erf,              ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_erf,          1e-6, "the error function") \
    O(Softplus,         ONNX, 1,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_softplus,     1e-6, "log(1 + e^x)") \
    O(Softsign,         ONNX, 1,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_softsign,     1e-6, "x / (1 + |x|)") \
    O(Swish,            ONNX, 24, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_swish,        2e-6, "x Sigmoid(alpha x)") \
    O(Mish,             ONNX, 18, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_mish,         2e-6, "x tanh(Softplus(x))") \
    O(Shrink,           ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_shrink,       1e-6, "x moved by bias towards 0 outside of ±lambd, else 0") \
    O(Exp,              ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_exp,          1e-6, "e^x") \
    O(Log,              ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_log,          1e-6, "the natural logarithm") \
    O(Sqrt,             ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_sqrt,         1e-6, "the square root") \
    O(Abs,              ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_abs,          1e-6, "|x|") \
    O(Neg,              ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_neg,          1e-6, "-x") \
    O(Reciprocal,       ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_reciprocal,   1e-6, "1 / x") \
    O(Sin,              ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_sin,          1e-6, "sin x") \
    O(Cos,              ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_cos,          1e-6, "cos x") \
    O(Tan,              ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_tan,          1e-6, "tan x") \
    O(Asin,             ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_asin,         1e-6, "arc sine") \
    O(Acos,             ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_acos,         1e-6, "arc cosine") \
    O(Atan,             ONNX, 7,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_atan,         1e-6, "arc tangent") \
    O(Sinh,             ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_sinh,         1e-6, "hyperbolic sine") \
    O(Cosh,             ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_cosh,         1e-6, "hyperbolic cosine") \
    O(Asinh,            ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_asinh,        1e-6, "inverse of sinh") \
    O(Acosh,            ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_acosh,        1e-6, "inverse of cosh") \
    O(Atanh,            ONNX, 9,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_atanh,        1e-6, "inverse of tanh") \
    O(Sign,             ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_none,         0,    "-1, 0 or 1") \
    O(Floor,            ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_none,         0,    "rounded down") \
    O(Ceil,             ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_none,         0,    "rounded up") \
    O(Round,            ONNX, 11, 1, 1, 1, 1, SPLIT_EACH, shape_same_as, grad_none,         0,    "to the nearest whole number, halves to even") \
    O(Not,              ONNX, 1,  1, 1, 1, 1, SPLIT_EACH, shape_same_as, NULL,              0,    "not x") \
    O(IsNaN,            ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_truth,   NULL,              0,    "x is no number") \
    O(IsInf,            ONNX, 10, 1, 1, 1, 1, SPLIT_EACH, shape_truth,   NULL,              0,    "x is infinite; detect_negative, detect_positive") \
    O(Clip,             ONNX, 13, 1, 3, 1, 1, SPLIT_EACH, shape_same_as, grad_clip,         0,    "x within min and max") \
    O(Cast,             ONNX, 13, 1, 1, 1, 1, SPLIT_EACH, shape_cast,    grad_cast,         0,    "x as another type, `to`") \
    O(CastLike,         ONNX, 15, 2, 2, 1, 1, SPLIT_EACH, shape_cast_like, grad_cast,       0,    "x as input 1's type")
/* ONNX, more inputs, sizes fitted by numpy's rule. */
#define OPS_BINARY(O) \
    O(Add,              ONNX, 14, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, grad_sum,   1e-6, "x + y") \
    O(Sub,              ONNX, 14, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, grad_sub,   1e-6, "x - y") \
    O(Mul,              ONNX, 14, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, grad_mul,   1e-6, "x y") \
    O(Div,              ONNX, 14, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, grad_div,   1e-6, "x / y; whole numbers are cut towards 0") \
    O(Pow,              ONNX, 15, 2, 2, 1, 1, SPLIT_EACH, shape_pow,    grad_pow,   2e-6, "x to the power y") \
    O(Mod,              ONNX, 13, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL,       1e-6, "the rest of x / y, with y's sign; fmod=1: with x's") \
    O(Min,              ONNX, 13, 1,-1, 1, 1, SPLIT_EACH, shape_fitted, grad_pick,  0,    "the least") \
    O(Max,              ONNX, 13, 1,-1, 1, 1, SPLIT_EACH, shape_fitted, grad_pick,  0,    "the greatest") \
    O(Sum,              ONNX, 13, 1,-1, 1, 1, SPLIT_EACH, shape_fitted, grad_sum,   1e-6, "the sum") \
    O(Mean,             ONNX, 13, 1,-1, 1, 1, SPLIT_EACH, shape_fitted, grad_mean,  1e-6, "the mean") \
    O(PRelu,            ONNX, 16, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, grad_prelu, 1e-6, "x, or slope x below 0") \
    O(Equal,            ONNX, 13, 2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x = y") \
    O(Less,             ONNX, 13, 2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x < y") \
    O(LessOrEqual,      ONNX, 16, 2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x <= y") \
    O(Greater,          ONNX, 13, 2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x > y") \
    O(GreaterOrEqual,   ONNX, 16, 2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x >= y") \
    O(And,              ONNX, 7,  2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x and y") \
    O(Or,               ONNX, 7,  2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "x or y") \
    O(Xor,              ONNX, 7,  2, 2, 1, 1, SPLIT_EACH, shape_compared, NULL,     0,    "one of x and y") \
    O(Where,            ONNX, 16, 3, 3, 1, 1, SPLIT_EACH, shape_where,  grad_where, 0,    "x where the condition holds, else y")
/* Our own: the gradient of an element-wise op, dy and what it needs. */
#define OPS_BACKWARD(O) \
    O(ReluGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy where Relu's y is above 0") \
    O(LeakyReluGrad,    OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy, times alpha where x is below 0") \
    O(EluGrad,          OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy times that of Elu at x") \
    O(CeluGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy times that of Celu at x") \
    O(SeluGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy times that of Selu at x") \
    O(SigmoidGrad,      OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy y (1 - y)") \
    O(TanhGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy (1 - y^2)") \
    O(HardSigmoidGrad,  OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy alpha where y is inside of 0 and 1") \
    O(HardSwishGrad,    OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 1e-6, "dy times that of HardSwish at x") \
    O(GeluGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 2e-6, "dy times that of Gelu at x") \
    O(SwishGrad,        OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 2e-6, "dy times that of Swish at x") \
    O(MishGrad,         OWN, 1, 2, 2, 1, 1, SPLIT_EACH, shape_fitted, NULL, 2e-6, "dy times that of Mish at x") \
    O(ClipGrad,         OWN, 1, 2, 4, 1, 1, SPLIT_EACH, shape_same_as, NULL, 0,   "dy where x is within min and max")
/* Reductions. Rows of a batch pass only if axis 0 stays: the batch's symbol is gone from the output otherwise. */
#define OPS_REDUCE(O) \
    O(ReduceSum,        ONNX, 13, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_sum,    2e-6, "the sum over axes") \
    O(ReduceMean,       ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_mean,   2e-6, "the mean over axes") \
    O(ReduceMax,        ONNX, 20, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_pick,   0,    "the greatest over axes") \
    O(ReduceMin,        ONNX, 20, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_pick,   0,    "the least over axes") \
    O(ReduceProd,       ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_prod,   4e-6, "the product over axes") \
    O(ReduceL1,         ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_l1,     2e-6, "the sum of |x| over axes") \
    O(ReduceL2,         ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_l2,     2e-6, "the root of the sum of x^2 over axes") \
    O(ReduceSumSquare,  ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_square, 2e-6, "the sum of x^2 over axes") \
    O(ReduceLogSum,     ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_logsum, 4e-6, "the logarithm of the sum over axes") \
    O(ReduceLogSumExp,  ONNX, 18, 1, 2, 1, 1, SPLIT_FIRST, shape_reduce, grad_reduce_logsumexp, 4e-6, "log sum e^x over axes") \
    O(ArgMax,           ONNX, 13, 1, 1, 1, 1, SPLIT_FIRST, shape_arg,    NULL,               0,    "where along an axis the greatest stands") \
    O(ArgMin,           ONNX, 13, 1, 1, 1, 1, SPLIT_FIRST, shape_arg,    NULL,               0,    "where along an axis the least stands") \
    O(CumSum,           ONNX, 14, 2, 2, 1, 1, SPLIT_FIRST, shape_same_as, grad_cumsum,       4e-6, "running sums along an axis") \
    O(SumTo,            OWN,  1,  2, 2, 1, 1, SPLIT_NONE,  shape_like,   grad_sum_like,      2e-6, "x summed to the shape of input 1, the inverse of broadcasting") \
    O(BroadcastTo,      OWN,  1,  2, 2, 1, 1, SPLIT_EACH,  shape_like,   grad_broadcast,     0,    "x repeated to the shape of input 1; axes: where x lacks a size of 1") \
    O(Fused,            OWN,  1,  1,-1, 1,-1, SPLIT_EACH,  shape_fused,  NULL,               1e-5, "a little program of element-wise ops (engine/cpu/elements.h)")
#define OPS_MATH(O) OPS_UNARY(O) OPS_BINARY(O) OPS_BACKWARD(O) OPS_REDUCE(O)

#define SHAPE_RULES_MATH(R)                                                                        \
    R(shape_same_as)                                                                               \
    R(shape_truth) R(shape_cast) R(shape_cast_like) R(shape_fitted) R(shape_pow) R(shape_compared) \
        R(shape_where) R(shape_reduce) R(shape_arg) R(shape_like) R(shape_fused)
#define R(name) err name(struct graph *, struct node *);
SHAPE_RULES_MATH(R)
#undef R
#define GRAD_RULES_MATH(R) \
    R(grad_relu) R(grad_leaky_relu) R(grad_thresholded) R(grad_elu) R(grad_celu) R(grad_selu) \
    R(grad_sigmoid) R(grad_hard_sigmoid) R(grad_hard_swish) R(grad_tanh) R(grad_gelu) R(grad_erf) \
    R(grad_softplus) R(grad_softsign) R(grad_swish) R(grad_mish) R(grad_shrink) R(grad_exp) R(grad_log) \
    R(grad_sqrt) R(grad_abs) R(grad_neg) R(grad_reciprocal) R(grad_sin) R(grad_cos) R(grad_tan) \
    R(grad_asin) R(grad_acos) R(grad_atan) R(grad_sinh) R(grad_cosh) R(grad_asinh) R(grad_acosh) \
    R(grad_atanh) R(grad_none) R(grad_clip) R(grad_cast) R(grad_sum) R(grad_sub) R(grad_mul) R(grad_div) \
    R(grad_pow) R(grad_pick) R(grad_mean) R(grad_prelu) R(grad_where) R(grad_reduce_sum) \
    R(grad_reduce_mean) R(grad_reduce_pick) R(grad_reduce_prod) R(grad_reduce_l1) R(grad_reduce_l2) \
    R(grad_reduce_square) R(grad_reduce_logsum) R(grad_reduce_logsumexp) R(grad_cumsum) R(grad_sum_like) \
    R(grad_broadcast)
#define R(name) err name(struct grad *);
GRAD_RULES_MATH(R)
#undef R
// clang-format on

/* Which axes of x a reduction takes away (bit i: axis i): from input 1, a constant, or the attribute `axes`; without
 * either all, or none if noop_with_empty_axes. *known: false if input 1 is no constant. */
err reduce_axes(const struct graph *, const struct node *, unsigned *axes, bool *known);
/* A scalar constant of x's type. */
int graph_scalar_like(struct graph *, int x, double v);
