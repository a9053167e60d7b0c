// SPDX-License-Identifier: Apache-2.0
#include "engine/cpu/fold_trees.h"

enum { F = SIMD_FLOATS, SUBTREES = 1 << (FOREST_FOLD_DEPTH - 3) };
#define ALWAYS static inline __attribute__((always_inline))

/* Rows side by side: k vectors of them, 1 or 2. Two ask a split for little more than one does, as its parts are loaded once. */
struct side {
    vf v[2];
};

ALWAYS vf choose_one(const vf v, const vf t, const uint32_t to, const bool missing, const vf yes, const vf no)
{
#if SIMD_LEVEL == 2
    __mmask16 m = _mm512_cmp_ps_mask((__m512)v, (__m512)t, _CMP_LT_OQ);
    if (missing)
        m |= _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q) & (__mmask16)to;
    return (vf)_mm512_mask_blend_ps(m, (__m512)no, (__m512)yes);
#else
    vi m = v < t;
    if (missing)
        m |= (v != v) & ((int32_t)to - (vi){ 0 });
#if SIMD_LEVEL == 1
    return (vf)_mm256_blendv_ps((__m256)no, (__m256)yes, (__m256)m);
#else
    return vf_pick(m, yes, no);
#endif
#endif
}

/* What rows take of a split's two sides. */
ALWAYS struct side choose(const int k, const struct forest_split *s, const float *x, const bool missing,
                          const struct side yes, const struct side no)
{
    const vf t = vf_all(s->value);
    struct side out;
    for (int i = 0; i < k; i++)
        out.v[i] = choose_one(vf_load(x + s->column + i * F), t, s->missing, missing, yes.v[i], no.v[i]);
    return out;
}

ALWAYS struct side leaf(const float *of)
{
    return (struct side){ { vf_all(*of), vf_all(*of) } };
}

/* Seven splits over eight leaves. */
ALWAYS struct side subtree(const int k, const struct forest_split *s, const float *of, const float *x,
                           const bool missing)
{
    struct side v[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        v[i] = choose(k, s + 3 + i, x, missing, leaf(of + 2 * i), leaf(of + 2 * i + 1));
    return choose(k, s, x, missing, choose(k, s + 1, x, missing, v[0], v[1]),
                  choose(k, s + 2, x, missing, v[2], v[3]));
}

ALWAYS struct side tree(const int k, const struct forest_fold *t, const float *x, const bool missing)
{
    struct side v[SUBTREES];
    const struct forest_split *s = t->splits + t->subtrees - 1;
    for (uint32_t i = 0; i < t->subtrees; i++)
        v[i] = subtree(k, s + 7 * i, t->leaves + 8 * i, x, missing);
    for (uint32_t n = t->subtrees / 2; n; n /= 2)
        for (uint32_t i = 0; i < n; i++)
            v[i] = choose(k, t->splits + n - 1 + i, x, missing, v[2 * i], v[2 * i + 1]);
    return v[0];
}

/* Trees take turns at a row's numbers: number c of row i is sums[i × outputs + c]. */
ALWAYS void add(const int k, const struct forest *f, const float *x, const bool missing, size_t n,
                float *sums)
{
    float of[2 * F] = { 0 };
    if (f->outputs == 1) {
        struct side sum;
        memcpy(of, sums, n * sizeof *of);
        for (int i = 0; i < k; i++)
            sum.v[i] = vf_load(of + i * F);
        for (size_t t = 0; t < f->trees; t++) {
            const struct side v = tree(k, &f->folds[t], x, missing);
            for (int i = 0; i < k; i++)
                sum.v[i] += v.v[i];
        }
        for (int i = 0; i < k; i++)
            vf_store(of + i * F, sum.v[i]);
        memcpy(sums, of, n * sizeof *of);
        return;
    }
    for (size_t t = 0, turn = 0; t < f->trees; t++, turn = turn + 1 < f->outputs ? turn + 1 : 0) {
        const struct side v = tree(k, &f->folds[t], x, missing);
        for (int i = 0; i < k; i++)
            vf_store(of + i * F, v.v[i]);
        for (size_t i = 0; i < n; i++)
            sums[i * f->outputs + turn] += of[i];
    }
}

/* A block that misses nothing is spared the question. */
static void one(const struct forest *f, const float *x, bool missing, size_t n, float *sums)
{
    if (missing)
        add(1, f, x, true, n, sums);
    else
        add(1, f, x, false, n, sums);
}
static void two(const struct forest *f, const float *x, bool missing, size_t n, float *sums)
{
    if (missing)
        add(2, f, x, true, n, sums);
    else
        add(2, f, x, false, n, sums);
}

static void block_add(const struct forest *f, const float *x, bool missing, size_t n, float *sums)
{
    for (size_t i = 0; i < n; i += 2 * F) {
        const size_t left = n - i;
        (left > F ? two : one)(f, x + i, missing, left < 2 * F ? left : 2 * F, sums + i * f->outputs);
    }
}

/* Depths up to which it is the quicker way, in blocks that are full. */
const struct fold_trees SIMD(fold_trees) = { block_add, SIMD_LEVEL == 2 ? 8 : SIMD_LEVEL == 1 ? 6 : 4 };
