/* str: views of text (pointer + length, not terminated); C strings only at the system's border.
 * Owns     nothing; what a function makes lives in the arena it is given.
 * Threads  any. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/arena.h"
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

struct str {
    const char *p;
    size_t n;
};
struct strs {
    struct str *v;
    size_t n, cap;
};

#define S(lit) ((struct str){ "" lit, sizeof(lit) - 1 })
// clang-format off
#define S_INIT(lit) { "" lit, sizeof(lit) - 1 }
// clang-format on
/* For "%.*s"; clamped, as a negative precision would read to the next NUL. */
#define STR(s) (int)((s).n < 0x7fffffff ? (s).n : 0x7fffffff), (s).p

static inline struct str str_of(const char *z)
{
    return (struct str){ z, z ? strlen(z) : 0 };
}
static inline bool str_eq(struct str a, struct str b)
{
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}
#define str_is(s, lit) str_eq((s), S(lit))
int str_cmp(struct str a, struct str b);
bool str_starts(struct str s, struct str prefix);
bool str_ends(struct str s, struct str suffix);
/* Index of the first byte c, or s.n. */
size_t str_find(struct str s, char c);
struct str str_sub(struct str s, size_t from, size_t to); /* clamped */
struct str str_trim(struct str s);                        /* blanks at both ends */
/* Cuts the next part before sep off *rest; false once nothing is left ("" gives none, "a," two). */
bool str_cut(struct str *rest, char sep, struct str *out);
struct str str_dup(struct arena *a, struct str s);
/* A terminated copy. A NUL inside the text ends the C string early: check with str_has_nul. */
const char *str_z(struct arena *a, struct str s);
bool str_has_nul(struct str s);
bool str_utf8_ok(struct str s);
/* Length (1 to 4) of the well-formed UTF-8 sequence that s starts with; 0 if it starts with none. */
size_t str_utf8_len(struct str s);
/* printf into the arena; never fails. */
__attribute__((format(printf, 2, 3))) struct str fmt(struct arena *a, const char *f, ...);
__attribute__((format(printf, 2, 3))) const char *fmtz(struct arena *a, const char *f, ...);
__attribute__((format(printf, 2, 0))) struct str vfmt(struct arena *a, const char *f, va_list ap);
struct str str_join(struct arena *a, const struct str *v, size_t n, struct str sep);
/* Whole text as a decimal number; false if anything is left over or it does not fit. No "nan", no "inf". */
bool str_i64(struct str s, int64_t *out);
bool str_f64(struct str s, double *out);
/* Edit distance, for "did you mean"; and the nearest of n names, empty if none is near. */
size_t str_distance(struct str a, struct str b);
struct str str_nearest(struct str s, const struct str *names, size_t n);

/* Text that grows: bytes are appended, .s is what is there. */
struct buf {
    struct arena *a;
    char *p;
    size_t n, cap;
};
static inline struct buf buf_new(struct arena *a)
{
    return (struct buf){ .a = a };
}
void buf_put(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
__attribute__((format(printf, 2, 3))) void buf_fmt(struct buf *b, const char *f, ...);
/* n bytes of room at the end; the caller writes them and adds what it used to b->n. */
char *buf_room(struct buf *b, size_t n);
static inline struct str buf_get(const struct buf *b)
{
    return (struct str){ b->p, b->n };
}
