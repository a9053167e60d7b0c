// SPDX-License-Identifier: Apache-2.0
#include "serve/number.h"
#include "serve/number_wide.h"
#include <math.h>
#include <stdlib.h>

/* ---- reading ---- */

// clang-format off
static const double tens[] = {
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22
};
static const uint64_t whole_tens[] = {
    1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000, 1000000000, 10000000000, 100000000000,
    1000000000000, 10000000000000, 100000000000000, 1000000000000000, 10000000000000000, 100000000000000000,
    1000000000000000000
};
static const uint64_t fives[] = {
    1, 5, 25, 125,
    625, 3125, 15625, 78125,
    390625, 1953125, 9765625, 48828125,
    244140625, 1220703125, 6103515625, 30517578125,
    152587890625, 762939453125, 3814697265625, 19073486328125,
    95367431640625, 476837158203125, 2384185791015625, 11920928955078125,
    59604644775390625, 298023223876953125, 1490116119384765625, 7450580596923828125
};
// clang-format on
enum { FIVES_MAX = 27, TENS_MAX = 22, DIGITS_MAX = 19 }; /* 5^27, 10^19 < 2^64; 10^22 is exact in a double */

/* digits × 10^exponent; `more`: there were digits that did not fit, so that this is not the number. */
struct decimal {
    uint64_t digits;
    int exponent;
    bool minus, more;
};

static inline char at(const char *p, const char *end)
{
    return p < end ? *p : 0;
}

static inline bool is_digit(char c)
{
    return (unsigned char)(c - '0') < 10;
}

/* Of eight bytes of text, less '0' each: bit 7 of those that are no digits (right up to the first of them). */
static inline uint64_t others(uint64_t v)
{
    return (v | (v + 0x7676767676767676)) & 0x8080808080808080;
}

/* The number that the first n (1 to 8) of eight digits are, all at once: pairs, then fours, then eight. */
static inline uint64_t digits_value(uint64_t v, unsigned n)
{
    v <<= 64 - 8 * n; /* noughts in front */
    v = (v * 10 + (v >> 8)) & 0x00ff00ff00ff00ff;
    v = (v * 100 + (v >> 16)) & 0x0000ffff0000ffff;
    return (v * 10000 + (v >> 32)) & 0xffffffff;
}

static inline uint64_t load8(const char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v ^ 0x3030303030303030;
}

/* The digits that the eight bytes at p begin with: how many, and *out their number. */
static inline unsigned digits8(const char *p, const char *end, uint64_t *out)
{
    char last[8] = { 0 };
    if (end - p < 8 && p < end)
        memcpy(last, p, (size_t)(end - p));
    uint64_t v = load8(end - p < 8 ? last : p), other = others(v);
    unsigned n = other ? (unsigned)__builtin_ctzll(other) / 8 : 8;
    if (n > 0)
        *out = digits_value(v, n);
    return n;
}

/* Appends the digits at p to d. */
static inline const char *digits_read(const char *p, const char *end, struct decimal *d)
{
    uint64_t v;
    unsigned n;
    do {
        n = digits8(p, end, &v);
        p += n;
        if (n == 0)
            break;
        if (d->digits >= whole_tens[DIGITS_MAX - 8])
            d->more |= d->digits >= whole_tens[DIGITS_MAX - n];
        d->digits = d->digits * whole_tens[n] + v;
    } while (n == 8);
    return p;
}

static const char *exponent_read(const char *p, const char *end, struct decimal *d)
{
    bool minus = at(p, end) == '-';
    int e = 0;
    p += minus || at(p, end) == '+';
    if (!is_digit(at(p, end)))
        return NULL;
    for (; is_digit(at(p, end)); p++)
        e = e < 100000 ? e * 10 + (*p - '0') : e;
    d->exponent += minus ? -e : e;
    return p;
}

/* By the grammar of JSON. NULL if no number begins at p, or if it ends where the text does. */
static inline const char *decimal_read(const char *p, const char *end, struct decimal *d)
{
    *d = (struct decimal){ .minus = at(p, end) == '-' };
    p += d->minus;
    if (is_digit(at(p, end)) && at(p + 1, end) == '.') {
        d->digits = (uint64_t)(*p++ - '0');
    } else {
        const char *from = p;
        p = digits_read(p, end, d);
        if (p == from || (*from == '0' && p - from > 1))
            return NULL;
    }
    if (at(p, end) == '.') {
        const char *from = ++p;
        p = digits_read(p, end, d);
        if (p == from)
            return NULL;
        d->exponent = p - from < 100000 ? -(int)(p - from) : -100000;
        d->more |= p - from >= 100000;
    }
    if ((at(p, end) | 0x20) == 'e')
        p = exponent_read(p + 1, end, d);
    return p < end ? p : NULL;
}

static inline double with_sign(double v, bool minus)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    bits |= (uint64_t)minus << 63;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static double power_of_two(int e)
{
    double out;
    uint64_t bits = (uint64_t)(1023 + e) << 52;
    memcpy(&out, &bits, sizeof out);
    return out;
}

/* digits × 10^exponent in whole numbers of 128 bits, rounded once; |exponent| ≤ FIVES_MAX, digits > 0. */
static double exact(const struct decimal *d)
{
    int k = abs(d->exponent);
    uint64_t five = fives[k];
    if (d->exponent >= 0)
        return (double)((unsigned __int128)d->digits * five) * power_of_two(k);
    int up = __builtin_clzll(d->digits), five_up = __builtin_clzll(five);
    unsigned __int128 over = (unsigned __int128)(d->digits << up) << 63;
    uint64_t under = five << five_up, q = (uint64_t)(over / under);
    if ((uint64_t)over != q * under)
        q |= 1; /* q has 62 bits at least: what is left over only has to be seen by the rounding */
    return (double)q * power_of_two(five_up - up - k - 63);
}

/* False: its digits are too many, or it is too far from 1, for what is done here. */
static inline bool decimal_double(const struct decimal *d, double *out)
{
    double v;
    if (__builtin_expect(d->digits <= (uint64_t)1 << 53 && (unsigned)(d->exponent + TENS_MAX) <= 2 * TENS_MAX,
                         1)) {
        v = (double)(int64_t)d->digits; /* both operands are exact, so one rounding */
        v = d->exponent < 0 ? v / tens[-d->exponent] : v * tens[d->exponent];
    } else if (d->digits == 0) {
        v = 0;
    } else if (abs(d->exponent) <= FIVES_MAX) {
        v = exact(d);
    } else {
        return false;
    }
    *out = with_sign(v, d->minus);
    return !d->more;
}

/* The words that stand for no number, for values that do not begin as one. */
static const char *word_read(const char *p, const char *end, double *out)
{
    static const struct {
        struct str word;
        double v;
    } words[] = { { S_INIT("null"), NAN },
                  { S_INIT("NaN"), NAN },
                  { S_INIT("Infinity"), INFINITY },
                  { S_INIT("-Infinity"), -INFINITY } };
    struct str rest = { p, (size_t)(end - p) };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (!str_starts(rest, words[i].word))
            continue;
        *out = words[i].v;
        return p + words[i].word.n;
    }
    return NULL;
}

/* One or two digits of exponent; NULL if there are none, or more. */
static inline const char *short_exponent(const char *p, int *e)
{
    bool minus = false;
    if (*p == '-' || *p == '+')
        minus = *p++ == '-';
    if (!is_digit(p[0]))
        return NULL;
    *e = p[0] - '0';
    if (is_digit(p[1]))
        *e = *e * 10 + (*++p - '0');
    if (minus)
        *e = -*e;
    return is_digit(p[1]) ? NULL : p + 1;
}

static inline unsigned digits_n(uint64_t v)
{
    uint64_t other = others(v);
    return other ? (unsigned)__builtin_ctzll(other) / 8 : 8;
}

enum { SHORT_BYTES = 12, LONGER_BYTES = 24 }; /* that short_read and longer_read look at, at most */

/* A short number with more than seven digits behind the point, or an exponent: d has the first n of them. */
static inline const char *longer_read(const char *p, const char *end, struct decimal *d, unsigned n,
                                      double *out)
{
    unsigned all = n;
    if (end - p < LONGER_BYTES)
        return NULL;
    while (n == 8 && all <= 16) {
        uint64_t v = load8(p);
        n = digits_n(v);
        if (n == 0)
            break;
        d->digits = d->digits * whole_tens[n] + digits_value(v, n);
        p += n;
        all += n;
    }
    if (all > 18)
        return NULL;
    if ((*p | 0x20) == 'e' && !(p = short_exponent(p + 1, &d->exponent)))
        return NULL;
    d->exponent -= (int)all;
    return decimal_double(d, out) ? p : NULL;
}

/* What most numbers are: a digit, a point, up to 18 digits, perhaps an exponent. For one to seven digits without an
 * exponent no jump depends on the value. NULL: it is perhaps another sort of number. */
static inline const char *short_read(const char *p, const char *end, double *out)
{
    if (end - p < SHORT_BYTES)
        return NULL;
    struct decimal d = { 0 };
    if (__builtin_expect(*p == '-', 0)) { /* a jump, so that what follows need not wait for this byte */
        d.minus = true;
        p++;
    }
    d.digits = (uint64_t)(unsigned char)*p - '0';
    uint64_t v = load8(p + 2);
    unsigned n = digits_n(v);
    if (d.digits > 9 || p[1] != '.' || n == 0)
        return NULL;
    d.digits = d.digits * whole_tens[n] + digits_value(v, n);
    p += 2 + n;
    if (__builtin_expect(n == 8 || (*p | 0x20) == 'e', 0))
        return longer_read(p, end, &d, n, out);
    *out = with_sign((double)(int64_t)d.digits / tens[n], d.minus);
    return p;
}

static inline const char *blanks(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
        p++;
    return p;
}

static __attribute__((noinline)) const char *any_read(const char *p, const char *end, double *out)
{
    struct decimal d;
    const char *after = decimal_read(p, end, &d);
    if (!after)
        return word_read(p, end, out);
    if (!decimal_double(&d, out))
        *out = strtod(p, NULL); /* which stops where the number does, before end */
    return isfinite(*out) ? after : NULL;
}

static inline const char *f64_read(const char *p, const char *end, double *out)
{
    const char *after = short_read(p, end, out);
    return __builtin_expect(after != NULL, 1) ? after : any_read(p, end, out);
}

/* Of the double that the number at p is: the float that the number itself is. */
static __attribute__((noinline)) bool float_of_text(const char *p, double v, float *out)
{
    *out = v == 0 || !isfinite(v) ? (float)v : strtof(p, NULL);
    return isfinite(*out) || !isfinite(v);
}

/* A double rounded again is the float, unless the double lies half-way between two floats, or beyond the normal ones. */
static inline const char *f32_read(const char *p, const char *end, float *out)
{
    static const uint64_t least = 0x3810000000000000,
                          most = 0x47efffffe0000000; /* FLT_MIN, FLT_MAX as doubles */
    double v;
    uint64_t bits;
    const char *after = f64_read(p, end, &v);
    if (!after)
        return NULL;
    memcpy(&bits, &v, sizeof bits);
    *out = (float)v;
    if (__builtin_expect((bits & 0x1fffffff) == 0x10000000 || (bits & INT64_MAX) - least > most - least, 0))
        return float_of_text(p, v, out) ? after : NULL;
    return after;
}

/* One blank after a comma is passed here, more of them only where no number is found. */
#define RUN(read)                                                                       \
    size_t i = 0;                                                                       \
    for (const char *at_;; p = at_) {                                                   \
        at_ = read(p, end, &out[i]);                                                    \
        if (__builtin_expect(!at_, 0) && !(at_ = read(blanks(p, end), end, &out[i]))) { \
            p = NULL;                                                                   \
            break;                                                                      \
        }                                                                               \
        i++;                                                                            \
        if (__builtin_expect(at(at_, end) != ',', 0))                                   \
            at_ = blanks(at_, end);                                                     \
        p = at_;                                                                        \
        if (i == n || at(at_, end) != ',')                                              \
            break;                                                                      \
        if (__builtin_expect(at(++at_, end) == ' ', 0))                                 \
            at_++;                                                                      \
    }                                                                                   \
    *done = i;                                                                          \
    return p

static const char *f32s_each(const char *p, const char *end, float *out, size_t n, size_t *done)
{
    RUN(f32_read);
}

/* By turns: as many as go together, then one by itself, or some, if it was of another kind. */
const char *f32s_read(const char *p, const char *end, float *out, size_t n, size_t *done)
{
    enum { EACH = 8 };
    size_t some;
    if (n == 1 || !f32s_wide_is())
        return f32s_each(p, end, out, n, done);
    for (*done = 0;; p++) {
        some = f32s_wide(&p, end, out + *done, n - *done - 1);
        *done += some;
        size_t each = some ? 1 : EACH;
        p = f32s_each(p, end, out + *done, n - *done < each ? n - *done : each, &some);
        *done += some;
        if (!p || *done == n || at(p, end) != ',')
            return p;
    }
}

const char *f64s_read(const char *p, const char *end, double *out, size_t n, size_t *done)
{
    RUN(f64_read);
}

/* ---- writing ---- */

static double times_ten_to(double v, int k)
{
    for (; k > TENS_MAX; k -= TENS_MAX)
        v *= tens[TENS_MAX];
    for (; k < -TENS_MAX; k += TENS_MAX)
        v /= tens[TENS_MAX];
    return k < 0 ? v / tens[-k] : v * tens[k];
}

static double float_of_bits(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return (double)v;
}

/* The shortest decimal that lies closer to the float than to either neighbour: *digits × 10^(the result). The float
 * (bits, above 0) is scaled to nine or ten digits before the point, its half-way distances with it; what these are
 * shortened by covers the error of the scaling, and of a reader that rounds to a double first. */
static int shortest(uint32_t bits, uint64_t *digits)
{
    static const double half = 0.499999;
    double v = float_of_bits(bits), before = float_of_bits(bits - 1),
           next = bits == 0x7f7fffff ? 2 * v - before : float_of_bits(bits + 1);
    uint64_t wide;
    memcpy(&wide, &v, sizeof wide);
    int two = (int)(wide >> 52) - 1023, k = 8 - ((two * 78913) >> 18), e = -k; /* 78913 / 2^18: log10(2) */
    double y = times_ten_to(v, k), below = half * times_ten_to(v - before, k),
           above = half * times_ten_to(next - v, k);
    uint64_t whole = (uint64_t)y, q = whole;
    double part = y - (double)whole;
    *digits = whole + (part >= 0.5);
    for (uint64_t ten = 10;; ten *= 10, e++) {
        q /= 10;
        double over = (double)(whole - q * ten) + part, under = (double)ten - over;
        if (over > below && under > above)
            return e;
        *digits = q + (under <= above && (under < over || over > below));
    }
}

/* digits into the end of text; their first. */
static char *digits_put(char *end, uint64_t digits)
{
    do
        *--end = (char)('0' + digits % 10);
    while (digits /= 10);
    return end;
}

static char *put(char *to, const char *from, size_t n)
{
    memcpy(to, from, n);
    return to + n;
}

/* 1e+09, 1.5e-07 */
static char *scientific(char *p, const char *digits, int n, int e)
{
    char text[4];
    *p++ = digits[0];
    if (n > 1) {
        *p++ = '.';
        p = put(p, digits + 1, (size_t)n - 1);
    }
    e += n - 1;
    *p++ = 'e';
    *p++ = e < 0 ? '-' : '+';
    char *from = digits_put(text + sizeof text, (uint64_t)abs(e) + 100); /* two digits at least */
    return put(p, from + 1, 2);
}

static char *plain(char *p, const char *digits, int n, int e)
{
    static const char noughts[] = "000000000";
    int before = n + e; /* digits before the point */
    if (e >= 0) {
        p = put(p, digits, (size_t)n);
        return put(p, noughts, (size_t)e);
    }
    if (before > 0) {
        p = put(p, digits, (size_t)before);
        *p++ = '.';
        return put(p, digits + before, (size_t)(n - before));
    }
    p = put(p, "0.", 2);
    p = put(p, noughts, (size_t)-before);
    return put(p, digits, (size_t)n);
}

size_t f32_text(float v, char out[32])
{
    char text[24], *p = out;
    uint32_t bits;
    uint64_t digits;
    memcpy(&bits, &v, sizeof bits);
    if (!isfinite(v))
        return (size_t)(put(p, "null", 4) - out);
    if (bits >> 31)
        *p++ = '-';
    bits &= 0x7fffffff;
    if (bits == 0)
        return (size_t)(put(p, "0.0", p > out ? 3 : 1) - out);
    int e = shortest(bits, &digits);
    char *from = digits_put(text + sizeof text, digits);
    int n = (int)(text + sizeof text - from);
    float size = fabsf(v);
    p = size < 1e-4f || size >= 1e9f ? scientific(p, from, n, e) : plain(p, from, n, e);
    return (size_t)(p - out);
}
