/* gemm: C = act(alpha · op(A) · op(B) + beta · C + bias), row-major, on the caller's thread.
 * Flow     fill struct gemm --gemm_plan--> scratch, chosen loops --gemm_run, any number of times--> C
 * Owns     nothing. gemm_run wants gemm.scratch bytes, 64-aligned, and allocates nothing.
 * Threads  any; a planned struct gemm is only read.
 * Types    of A and B: F32, F64, BF16, F16; C: as they, or F32 for halves. Halves are added up in F32.
 * Method   panels of B as wide as the registers hold, packed where rows lie far apart or across; A is read in place where its
 *          rows or columns are near (Goto & van de Geijn 2008 without the blocks that today's second-level caches make needless). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/tensor.h"

/* What a kernel may use; each has what those before it have. */
enum gemm_isa { GEMM_PORTABLE, GEMM_AVX2, GEMM_AVX512, GEMM_AVX512_BF16 };
enum gemm_act {
    GEMM_LINEAR,
    GEMM_RELU,
    GEMM_MASK, /* times 1 where `mask` is positive, times 0 elsewhere: the way back through a Relu */
};

struct gemm {
    int64_t m, n, k;
    bool ta, tb;              /* A is stored k × m, B is stored n × k */
    int64_t lda, ldb, ldc;    /* elements from row to row; 0: rows touch */
    float alpha, beta;        /* beta 0: C is not read */
    enum tensor_type in, out; /* of A and B; of C */
    enum gemm_act act;
    enum gemm_isa isa; /* the best to be used; gemm_isa_best() unless a test wants less */
    /* gemm_plan sets these. */
    size_t scratch;
    int64_t k_block;
    bool pack_a, pack_b, widen, swap, column;
};

enum gemm_isa gemm_isa_best(void);
/* A plan with isa, alpha = 1 and beta = 0 filled in. */
struct gemm gemm_of(enum tensor_type in, enum tensor_type out, int64_t m, int64_t n, int64_t k, bool ta,
                    bool tb);
void gemm_plan(struct gemm *);
/* What is added to and multiplied with each tile; NULL: nothing. */
struct gemm_more {
    const void *bias; /* n, in F32 (F64 for F64) */
    const void *mask; /* GEMM_MASK: m × n, of C's type, rows as in C */
};
void gemm_run(const struct gemm *, const void *a, const void *b, void *c, const struct gemm_more *,
              void *scratch);

/* ---- halves, by rows of n; used wherever a kernel has no half arithmetic ---- */
void floats_of(enum tensor_type, const void *p, int64_t n, float *out);
void floats_to(enum tensor_type, const float *v, int64_t n, void *out);
