// SPDX-License-Identifier: Apache-2.0
#include "serve/number_wide.h"

#ifdef __x86_64__
#include <immintrin.h>

#define WIDE \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,bmi,bmi2,popcnt")))
enum {
    BLOCK = 64,
    TEXT_MAX = 16,  /* bytes of a number, from its first digit on, that are looked at */
    COUNT_MAX = 16, /* numbers of one block */
};

bool f32s_wide_is(void)
{
    return __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vbmi") &&
           __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("bmi2");
}

/* ---- where numbers are ---- */

/* Of a block's numbers, in sets of bytes (bit i is byte i) of which each has one for a number, in the same order: the first
 * digit, the end of the digits before the point, the comma; and of all signs. */
struct places {
    uint64_t first, whole, comma, minus;
};

/* Those up to the last comma that has nothing before it but what belongs to numbers. The block begins where a number does,
 * perhaps with a blank before it. False: there are none, or something does not stand where it may. */
static WIDE inline bool places_of(__m512i text, struct places *out)
{
    uint64_t digits = _mm512_cmple_epu8_mask(_mm512_sub_epi8(text, _mm512_set1_epi8('0')),
                                             _mm512_set1_epi8(9)),
             noughts = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8('0')),
             points = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8('.')),
             commas = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(',')),
             minuses = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8('-')),
             blanks = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(' '));
    uint64_t others = ~(digits | points | commas | minuses | blanks);
    commas &= others ? _blsmsk_u64(others) : UINT64_MAX;
    if (!commas)
        return false;
    uint64_t upto = UINT64_MAX >> __builtin_clzll(commas);
    digits &= upto;
    points &= upto;
    minuses &= upto;
    blanks &= upto;
    uint64_t begin = (commas << 1 & upto) | 1, lead = begin & blanks, at = (begin ^ lead) | lead << 1,
             sign = at & minuses, first = (at ^ sign) | sign << 1;
    uint64_t whole = (first + digits) & ~digits, after = points << 1, ends = (after + digits) & ~digits;
    uint64_t wrong = (blanks ^ lead) | (minuses ^ sign) | (first & ~digits) | (whole & ~(points | commas)) |
                     (points & ~whole) | (after & ~digits) | (ends & ~commas) |
                     ((first & noughts) << 1 & digits);
    *out = (struct places){ first, whole, commas, minuses };
    return !wrong;
}

/* ---- what they are ---- */

/* Of each number, in bytes: where what is looked at of it ends, how many digits that has, how many bytes of them, with the
 * point, are behind the whole ones. As bits: below 0; cut (there are more digits); odd (not to be read here). */
struct forms {
    __m512i end, n, behind;
    uint32_t minus, cut, odd;
};

static WIDE inline __m128i bytes_of(uint64_t set)
{
    const __m512i all = _mm512_set_epi8(63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47,
                                        46, 45, 44, 43, 42, 41, 40, 39, 38, 37, 36, 35, 34, 33, 32, 31, 30,
                                        29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13,
                                        12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    return _mm512_castsi512_si128(_mm512_maskz_compress_epi8(set, all));
}

static WIDE inline struct forms forms_of(const struct places *at)
{
    __m128i comma = bytes_of(at->comma), n = _mm_sub_epi8(comma, bytes_of(at->first)),
            behind = _mm_sub_epi8(comma, bytes_of(at->whole)),
            over = _mm_subs_epu8(n, _mm_set1_epi8(TEXT_MAX));
    struct forms f;
    f.minus = (uint32_t)_pext_u64(at->minus << 1, at->first);
    f.cut = _mm_test_epi8_mask(over, over);
    f.odd = _mm_cmplt_epu8_mask(behind, over);
    behind = _mm_subs_epu8(behind, over);
    n = _mm_sub_epi8(n, over);
    n = _mm_mask_sub_epi8(n, _mm_test_epi8_mask(behind, behind), n, _mm_set1_epi8(1));
    f.end = _mm512_castsi128_si512(_mm_sub_epi8(comma, over));
    f.n = _mm512_castsi128_si512(n);
    f.behind = _mm512_castsi128_si512(behind);
    return f;
}

/* Four numbers from the i-th on, each as sixteen digits in four whole numbers of four. */
static WIDE inline __m512i four_weigh(__m512i text, const struct forms *f, int i)
{
    const __m512i lane = _mm512_set4_epi32(0x0f0e0d0c, 0x0b0a0908, 0x07060504, 0x03020100);
    __m512i which = _mm512_add_epi8(_mm512_set1_epi8((char)i),
                                    _mm512_set_epi64(0x0303030303030303, 0x0303030303030303,
                                                     0x0202020202020202, 0x0202020202020202,
                                                     0x0101010101010101, 0x0101010101010101, 0, 0));
    __m512i end = _mm512_permutexvar_epi8(which, f->end), n = _mm512_permutexvar_epi8(which, f->n),
            behind = _mm512_permutexvar_epi8(which, f->behind), all = _mm512_set1_epi8(TEXT_MAX);
    __m512i left = _mm512_sub_epi8(all, lane), from = _mm512_sub_epi8(end, left);
    /* What is before the point moves up to close the gap that it leaves. */
    __mmask64 before = _mm512_mask_cmple_epu8_mask(_mm512_test_epi8_mask(behind, behind), behind, left);
    from = _mm512_mask_sub_epi8(from, before, from, _mm512_set1_epi8(1));
    __m512i digits = _mm512_maskz_permutexvar_epi8(_mm512_cmple_epu8_mask(left, n), from,
                                                   _mm512_sub_epi8(text, _mm512_set1_epi8('0')));
    return _mm512_madd_epi16(_mm512_maddubs_epi16(digits, _mm512_set1_epi16(0x010a)),
                             _mm512_set1_epi32(0x00010064));
}

/* Eight of them as doubles. */
static WIDE inline __m512d eight_whole(__m512i text, const struct forms *f, int i)
{
    const __m512i high = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 14, 10, 6, 2, 12, 8, 4, 0),
                  low = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 15, 11, 7, 3, 13, 9, 5, 1);
    __m512i v = _mm512_packus_epi32(four_weigh(text, f, i), four_weigh(text, f, i + 4));
    v = _mm512_madd_epi16(
        v, _mm512_set1_epi32(0x00012710)); /* of eight digits each: the two of a number, and of another */
    __m512d a = _mm512_cvtepi32_pd(_mm512_castsi512_si256(_mm512_permutexvar_epi32(high, v))),
            b = _mm512_cvtepi32_pd(_mm512_castsi512_si256(_mm512_permutexvar_epi32(low, v)));
    return _mm512_add_pd(_mm512_mul_pd(a, _mm512_set1_pd(1e8)), b);
}

/* The floats of eight; bits of those that are not certain. The doubles on the way are wrong by three units of their last
 * place, and with digits cut off by 2^15, as the others are 2^38 at least; so a float is certain unless the double lies that
 * near to the middle between two of them. */
static WIDE inline uint32_t eight_read(__m512i text, const struct forms *f, int i, float *out,
                                       uint32_t wanted)
{
    const __m512d tens = _mm512_set_pd(1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1),
                  more = _mm512_set_pd(1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7);
    __m512d whole = eight_whole(text, f, i);
    __m128i behind = _mm512_castsi512_si128(f->behind);
    __m512i digits = _mm512_cvtepu8_epi64(i ? _mm_bsrli_si128(behind, 8) : behind);
    __m512d v = _mm512_mul_pd(whole, _mm512_permutex2var_pd(tens, digits, more));
    v = _mm512_mask_xor_pd(v, (__mmask8)(f->minus >> i), v, _mm512_set1_pd(-0.0));
    __mmask8 near = _mm512_testn_epi64_mask(
        _mm512_add_epi64(_mm512_castpd_si512(v), _mm512_set1_epi64(0x10010000)),
        _mm512_set1_epi64(0x1ffe0000));
    __mmask8 few = _mm512_cmp_pd_mask(whole, _mm512_set1_pd(0x1p38), _CMP_LT_OQ);
    _mm256_mask_storeu_ps(out, (__mmask8)wanted, _mm512_cvtpd_ps(v));
    return ((few & f->cut >> i) | f->odd >> i | near) & wanted;
}

/* n (at most COUNT_MAX) of a block: how many are certain. */
static WIDE inline size_t block_read(__m512i text, const struct places *at, float *out, size_t n)
{
    struct forms f = forms_of(at);
    uint32_t wanted = _bzhi_u32(UINT32_MAX, (unsigned)n);
    uint32_t odd = eight_read(text, &f, 0, out, wanted & 0xff);
    if (n > 8)
        odd |= eight_read(text, &f, 8, out + 8, wanted >> 8) << 8;
    return __builtin_expect(odd != 0, 0) ? (size_t)__builtin_ctz(odd) : n;
}

WIDE size_t f32s_wide(const char **from, const char *end, float *out, size_t n)
{
    const char *p = *from;
    struct places at;
    size_t all = 0, count, some;
    do {
        __m512i text = end - p >= BLOCK
                           ? _mm512_loadu_si512(p)
                           : _mm512_maskz_loadu_epi8(_bzhi_u64(UINT64_MAX, (unsigned)(end - p)), p);
        if (!places_of(text, &at))
            break;
        count = (size_t)__builtin_popcountll(at.comma);
        size_t most = n - all < COUNT_MAX ? n - all : COUNT_MAX;
        some = block_read(text, &at, out + all, count < most ? count : most);
        all += some;
        if (some == count)
            p += BLOCK - __builtin_clzll(at.comma);
        else if (some)
            p += _tzcnt_u64(_pdep_u64((uint64_t)1 << (some - 1), at.comma)) + 1;
        else
            break;
    } while (all < n);
    *from = p;
    return all;
}
#else
bool f32s_wide_is(void)
{
    return false;
}

size_t f32s_wide(const char **p, const char *end, float *out, size_t n)
{
    (void)p, (void)end, (void)out, (void)n;
    return 0;
}
#endif
