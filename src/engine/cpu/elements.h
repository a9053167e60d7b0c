/* elements: element-wise work as little programs that run over chunks which stay in the first cache.
 * Flow     a node (math.c) or a chain of nodes (fuse.c) --elements_add--> struct elements --elements_bind--> step
 * Program  instructions d = f(a, b, c) over a chunk; operands are inputs or earlier results, broadcast by numpy's rule to the
 *          shape of the outputs, which all have the same shape and layout. A single instruction on contiguous F32 works on
 *          the tensors themselves; else chunks are loaded, converted and spread into registers (rows of a few hundred numbers).
 * Domains  F32, BF16, F16 (and BOOL beside them) are computed in float, by the SIMD table; F64 in double; whole numbers and
 *          BOOL in int64: plain C.
 * In place an output may lie where an input of the same size lay: it is written after the last read of its chunk. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/cpu/cpu.h"
#include "engine/cpu/simd.h"

// clang-format off
/* E1(name, f(x)), E2(name, f(x, y)), E3(name, f(x, y, z)); k0, k1 are constants of the instruction. REAL: not for whole numbers.
 * Each text defines R (the type) and the functions in capitals. */
#define ELEMENTS_ANY(E1, E2, E3) \
    E1(Copy,       x) \
    E1(Neg,        NEGATE(x)) \
    E1(Abs,        ABS(x)) \
    E1(Sign,       (R)((x > 0) - (x < 0))) \
    E1(Square,     TIMES(x, x)) \
    E1(Relu,       x < 0 ? 0 : x) \
    E1(Not,        x == 0 ? 1 : 0) \
    E2(Add,        PLUS(x, y)) \
    E2(Sub,        MINUS(x, y)) \
    E2(Mul,        TIMES(x, y)) \
    E2(Div,        DIVIDE(x, y)) \
    E2(Pow,        POWER(x, y)) \
    E2(Mod,        MODULO(x, y)) \
    E2(Fmod,       FMODULO(x, y)) \
    E2(Min,        x < y || x != x ? x : y) \
    E2(Max,        x > y || x != x ? x : y) \
    E2(Equal,      x == y ? 1 : 0) \
    E2(Less,       x < y ? 1 : 0) \
    E2(LessOrEqual, x <= y ? 1 : 0) \
    E2(Greater,    x > y ? 1 : 0) \
    E2(GreaterOrEqual, x >= y ? 1 : 0) \
    E2(And,        (x != 0) & (y != 0) ? 1 : 0) \
    E2(Or,         (x != 0) | (y != 0) ? 1 : 0) \
    E2(Xor,        (x != 0) ^ (y != 0) ? 1 : 0) \
    E2(PRelu,      x < 0 ? TIMES(x, y) : x) \
    E3(Where,      x != 0 ? y : z) \
    E3(Clip,       x < y ? (z < y ? z : y) : x > z ? z : x) \
    E2(ReluGrad,   y > 0 ? x : 0)
#define ELEMENTS_REAL(E1, E2, E3) \
    E1(Scale,      x * k0) \
    E1(Shift,      x + k0) \
    E1(LeakyRelu,  x < 0 ? k0 * x : x) \
    E1(ThresholdedRelu, x > k0 ? x : 0) \
    E1(Elu,        x < 0 ? k0 * (EXP(x) - 1) : x) \
    E1(Celu,       x < 0 ? k0 * (EXP(x / k0) - 1) : x) \
    E1(Selu,       k1 * (x < 0 ? k0 * (EXP(x) - 1) : x)) \
    E1(Sigmoid,    SIGMOID(x)) \
    E1(HardSigmoid, CUT01(k0 * x + k1)) \
    E1(HardSwish,  x * CUT01(x * (R)(1.0 / 6) + (R)0.5)) \
    E1(Tanh,       TANH(x)) \
    E1(Gelu,       x * NORMAL(x)) \
    E1(GeluTanh,   (R)0.5 * x * (1 + TANH((R)0.7978845608028654 * (x + (R)0.044715 * x * x * x)))) \
    E1(Erf,        ERF(x)) \
    E1(Softplus,   SOFTPLUS(x)) \
    E1(Softsign,   x / (1 + ABS(x))) \
    E1(Swish,      x * SIGMOID(k0 * x)) \
    E1(Mish,       x * TANH(SOFTPLUS(x))) \
    E1(Shrink,     x < -k0 ? x + k1 : x > k0 ? x - k1 : 0) \
    E1(Exp,        EXP(x)) \
    E1(Log,        LOG(x)) \
    E1(Sqrt,       SQRT(x)) \
    E1(Reciprocal, 1 / x) \
    E1(Floor,      FLOOR(x)) \
    E1(Ceil,       CEIL(x)) \
    E1(Round,      RINT(x)) \
    E1(IsNaN,      x != x ? 1 : 0) \
    E1(IsInf,      (k0 != 0 && x < -MOST) || (k1 != 0 && x > MOST) ? 1 : 0) \
    E1(Sin,        SIN(x)) \
    E1(Cos,        COS(x)) \
    E1(Tan,        TAN(x)) \
    E1(Asin,       ASIN(x)) \
    E1(Acos,       ACOS(x)) \
    E1(Atan,       ATAN(x)) \
    E1(Sinh,       SINH(x)) \
    E1(Cosh,       COSH(x)) \
    E1(Asinh,      ASINH(x)) \
    E1(Acosh,      ACOSH(x)) \
    E1(Atanh,      ATANH(x)) \
    E2(LeakyReluGrad, y < 0 ? k0 * x : x) \
    E2(EluGrad,    y < 0 ? x * k0 * EXP(y) : x) \
    E2(CeluGrad,   y < 0 ? x * EXP(y / k0) : x) \
    E2(SeluGrad,   k1 * (y < 0 ? x * k0 * EXP(y) : x)) \
    E2(SigmoidGrad, x * y * (1 - y)) \
    E2(TanhGrad,   x * (1 - y * y)) \
    E2(HardSigmoidGrad, (y > 0) & (y < 1) ? k0 * x : 0) \
    E2(HardSwishGrad, x * (y > 3 ? 1 : y < -3 ? 0 : y * (R)(1.0 / 3) + (R)0.5)) \
    E2(GeluGrad,   x * (NORMAL(y) + y * BELL(y))) \
    E2(GeluTanhGrad, x * gelu_tanh_slope(y)) \
    E2(SwishGrad,  x * swish_slope(y, k0)) \
    E2(MishGrad,   x * mish_slope(y)) \
    E3(AtLeastGrad, y >= z ? x : 0) \
    E3(AtMostGrad, y <= z ? x : 0) \
    E3(MulAdd,     x * y + z)
#define ELEMENTS(E1, E2, E3) ELEMENTS_ANY(E1, E2, E3) ELEMENTS_REAL(E1, E2, E3)
// clang-format on

#define E(name, expression) ELEMENT_##name,
enum element { ELEMENTS(E, E, E) ELEMENT_COUNT };
#undef E

/* d may be a, b or c. k: two constants. */
typedef void element_fn(void *d, const void *a, const void *b, const void *c, size_t n, const double *k);
/* From memory of a type into registers of the domain; elements are stride apart (0: one number for all). */
typedef void element_load(void *d, const void *s, int64_t stride, size_t n);
typedef void element_store(void *d, const void *s, size_t n);
enum fold { FOLD_SUM, FOLD_PROD, FOLD_MAX, FOLD_MIN };
struct element_table {
    size_t size; /* of a register's element */
    element_fn *fn[ELEMENT_COUNT];
    element_load *load[TENSOR_BF16 + 1]; /* by type; NULL: not in this domain */
    element_store *store[TENSOR_BF16 + 1];
    /* All n > 0 elements into one, in a fixed order; a long double holds each double and each int64. */
    long double (*fold[4])(const void *, size_t n);
    /* d: the sums of `rows` rows of n elements, n ≤ 4,096, one after the other; NULL: there is no such kernel. */
    void (*sum_rows)(void *d, const void *s, size_t rows, size_t n);
};
SIMD_DECLARE(struct element_table, elements_f32);
extern const struct element_table elements_f64, elements_i64;
/* By the types of a node: double if one is F64, float if one is a float, else int64. */
const struct element_table *elements_domain(const struct bind *);

enum { ELEMENTS_MAX = 64, ELEMENTS_INPUTS = 24, ELEMENTS_OUTPUTS = 8 };
struct instruction {
    uint8_t f, n_in;
    int16_t in[3]; /* ≥ 0: input; < 0: result of instruction −1 − in */
    double k[2];
};
struct elements {
    struct instruction v[ELEMENTS_MAX];
    int n;
    int n_in;
    struct shape view[ELEMENTS_INPUTS]; /* of an input, if it is not the tensor's own; rank −1: its own */
    int out[ELEMENTS_OUTPUTS];          /* which instruction's result */
    int n_out;
};
/* What a node does, on operands in[] (as instruction.in). Appends; *result: of the last. False: it is not element-wise, or
 * there is no room left. */
bool elements_add(struct elements *, const struct graph *, const struct node *, const int16_t *in,
                  int16_t *result);
/* Makes the step run the program on its inputs and outputs. */
err elements_bind(struct bind *, const struct elements *, const struct element_table *);
/* The program as attributes of a Fused node, and back. */
struct attr *elements_write(const struct elements *, struct arena *, size_t *n);
err elements_read(const struct node *, struct elements *out);
