// SPDX-License-Identifier: Apache-2.0
#include "base/str.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int str_cmp(struct str a, struct str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

bool str_starts(struct str s, struct str prefix)
{
    return s.n >= prefix.n && str_eq(str_sub(s, 0, prefix.n), prefix);
}

bool str_ends(struct str s, struct str suffix)
{
    return s.n >= suffix.n && str_eq(str_sub(s, s.n - suffix.n, s.n), suffix);
}

size_t str_find(struct str s, char c)
{
    const char *at = s.n ? memchr(s.p, c, s.n) : NULL;
    return at ? (size_t)(at - s.p) : s.n;
}

struct str str_sub(struct str s, size_t from, size_t to)
{
    if (to > s.n)
        to = s.n;
    if (from > to)
        from = to;
    return (struct str){ s.p ? s.p + from : NULL, to - from };
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

struct str str_trim(struct str s)
{
    while (s.n && is_blank(s.p[0]))
        s.p++, s.n--;
    while (s.n && is_blank(s.p[s.n - 1]))
        s.n--;
    return s;
}

/* What is left of "a," once "a" is cut: one empty part, which "" alone is not. Known by its address. */
static const char one_empty_part[] = "";

bool str_cut(struct str *rest, char sep, struct str *out)
{
    struct str s = *rest;
    if (!s.n && s.p != one_empty_part)
        return false;
    size_t at = str_find(s, sep);
    *out = str_sub(s, 0, at);
    if (at == s.n)
        *rest = (struct str){ NULL, 0 };
    else if (at + 1 == s.n)
        *rest = (struct str){ one_empty_part, 0 };
    else
        *rest = str_sub(s, at + 1, s.n);
    return true;
}

struct str str_dup(struct arena *a, struct str s)
{
    return (struct str){ str_z(a, s), s.n };
}

const char *str_z(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.n + 1, 1);
    if (s.n)
        memcpy(p, s.p, s.n);
    return p;
}

bool str_has_nul(struct str s)
{
    return s.n && memchr(s.p, 0, s.n);
}

size_t str_utf8_len(struct str s)
{
    const uint8_t *p = (const uint8_t *)s.p;
    if (!s.n)
        return 0;
    if (p[0] < 0x80)
        return 1;
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || s.n < n)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    bool surrogate = p[0] == 0xed && p[1] > 0x9f;
    bool beyond = p[0] == 0xf4 && p[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

bool str_utf8_ok(struct str s)
{
    while (s.n) {
        uint64_t eight;
        if (s.n >= sizeof eight) {
            memcpy(&eight, s.p, sizeof eight);
            if (!(eight & 0x8080808080808080)) {
                s = str_sub(s, sizeof eight, s.n);
                continue;
            }
        }
        size_t n = str_utf8_len(s);
        if (!n)
            return false;
        s = str_sub(s, n, s.n);
    }
    return true;
}

struct str vfmt(struct arena *a, const char *f, va_list ap)
{
    char small[256];
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(small, sizeof small, f, ap);
    struct str s;
    if (n < 0) {
        s = str_dup(a, S("(text that cannot be formatted)"));
    } else if ((size_t)n < sizeof small) {
        s = str_dup(a, (struct str){ small, (size_t)n });
    } else {
        char *p = arena_alloc(a, (size_t)n + 1, 1);
        vsnprintf(p, (size_t)n + 1, f, again);
        s = (struct str){ p, (size_t)n };
    }
    va_end(again);
    return s;
}

struct str fmt(struct arena *a, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    struct str s = vfmt(a, f, ap);
    va_end(ap);
    return s;
}

const char *fmtz(struct arena *a, const char *f, ...)
{
    va_list ap;
    va_start(ap, f);
    struct str s = vfmt(a, f, ap);
    va_end(ap);
    return s.p;
}

struct str str_join(struct arena *a, const struct str *v, size_t n, struct str sep)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_str(&b, sep);
        buf_str(&b, v[i]);
    }
    return buf_get(&b);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Takes a sign off the front: 1 if it was '-'. */
static bool cut_minus(struct str *s)
{
    bool minus = s->n && s->p[0] == '-';
    if (s->n && (minus || s->p[0] == '+'))
        *s = str_sub(*s, 1, s->n);
    return minus;
}

bool str_i64(struct str s, int64_t *out)
{
    bool minus = cut_minus(&s);
    int64_t v = 0;
    if (!s.n)
        return false;
    for (size_t i = 0; i < s.n; i++) {
        int digit = s.p[i] - '0';
        if (!is_digit(s.p[i]) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, minus ? -digit : digit, &v))
            return false;
    }
    *out = v;
    return true;
}

/* A number taken apart: digits * 10^exp; exact is false where digits had no room for all of them. */
struct decimal {
    uint64_t digits;
    int exp;
    bool minus, exact;
};

/* Adds the digits at s[i..] to d; where they stand behind the point, the exponent goes down. */
static size_t take_digits(struct str s, size_t i, bool behind_point, struct decimal *d)
{
    for (; i < s.n && is_digit(s.p[i]); i++) {
        if (d->digits > (UINT64_MAX - 9) / 10) {
            d->exact = false;
            continue;
        }
        d->digits = d->digits * 10 + (uint64_t)(s.p[i] - '0');
        d->exp -= behind_point;
    }
    return i;
}

static bool decimal_read(struct str s, struct decimal *d)
{
    *d = (struct decimal){ .exact = true };
    d->minus = cut_minus(&s);
    size_t whole = take_digits(s, 0, false, d);
    size_t i = whole, count = whole;
    if (i < s.n && s.p[i] == '.') {
        i = take_digits(s, i + 1, true, d);
        count += i - whole - 1;
    }
    if (!count)
        return false;
    if (i < s.n && (s.p[i] == 'e' || s.p[i] == 'E')) {
        int64_t exp;
        if (!str_i64(str_sub(s, i + 1, s.n), &exp) || exp > 100000 || exp < -100000)
            return false;
        d->exp += (int)exp;
        i = s.n;
    }
    return i == s.n;
}

bool str_f64(struct str s, double *out)
{
    static const double tens[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    char z[512];
    struct decimal d;
    if (s.n >= sizeof z || !decimal_read(s, &d))
        return false;
    if (d.exact && d.digits < (UINT64_C(1) << 53) && d.exp >= -22 && d.exp <= 22) {
        double v = (double)d.digits; /* both are exact, so one rounding is the right one */
        v = d.exp < 0 ? v / tens[-d.exp] : v * tens[d.exp];
        *out = d.minus ? -v : v;
        return true;
    }
    memcpy(z, s.p, s.n);
    z[s.n] = 0;
    double v = strtod(z, NULL);
    if (isinf(v))
        return false;
    *out = v;
    return true;
}

enum { DISTANCE_MAX = 128 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t str_distance(struct str a, struct str b)
{
    size_t row[DISTANCE_MAX + 1];
    if (a.n > DISTANCE_MAX || b.n > DISTANCE_MAX)
        return str_eq(a, b) ? 0 : (a.n > b.n ? a.n : b.n);
    for (size_t j = 0; j <= b.n; j++)
        row[j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t corner = row[0]; /* the row above, one to the left */
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t above = row[j];
            size_t swap = corner + (a.p[i - 1] != b.p[j - 1]);
            row[j] = least(swap, least(above, row[j - 1]) + 1);
            corner = above;
        }
    }
    return row[b.n];
}

struct str str_nearest(struct str s, const struct str *names, size_t n)
{
    struct str best = { 0 };
    size_t near = (s.n + 2) / 3 + 1;
    for (size_t i = 0; i < n; i++) {
        size_t d = str_distance(s, names[i]);
        if (d < near && d < names[i].n) {
            near = d;
            best = names[i];
        }
    }
    return best;
}

char *buf_room(struct buf *b, size_t n)
{
    if (n > b->cap - b->n) {
        size_t need;
        if (__builtin_add_overflow(b->n, n, &need))
            need = SIZE_MAX; /* the arena says so and aborts */
        size_t cap = b->cap < 64 ? 128 : b->cap * 2;
        if (cap < need || cap > arena_left(b->a))
            cap = need;
        b->p = arena_grow(b->a, b->p, b->cap, cap, 1);
        b->cap = cap;
    }
    return b->p + b->n;
}

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (!n)
        return;
    memcpy(buf_room(b, n), p, n);
    b->n += n;
}

void buf_str(struct buf *b, struct str s)
{
    buf_put(b, s.p, s.n);
}

void buf_fmt(struct buf *b, const char *f, ...)
{
    va_list ap, again;
    va_start(ap, f);
    va_copy(again, ap);
    char *at = buf_room(b, 64);
    size_t room = b->cap - b->n;
    int n = vsnprintf(at, room, f, ap);
    if (n >= 0 && (size_t)n >= room)
        vsnprintf(buf_room(b, (size_t)n + 1), (size_t)n + 1, f, again);
    b->n += n > 0 ? (size_t)n : 0;
    va_end(again);
    va_end(ap);
}
