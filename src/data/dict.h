/* dict: different texts get the numbers 0, 1, 2 … in order of coming; what columns of text are coded with.
 * Owns     its tables, in the arena. At most 2^32 - 2 texts. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/base.h"

struct dict {
    struct arena *a;
    struct str *v;
    size_t n, cap;
    uint32_t *slots; /* number + 1; 0: free */
    size_t mask;
};

static inline uint64_t dict_mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 29);
}
static inline uint64_t dict_hash(struct str s)
{
    uint64_t h = s.n, w = 0;
    while (s.n >= 8) {
        memcpy(&w, s.p, 8);
        h = dict_mix(h * 0x9e3779b97f4a7c15u ^ w);
        s = (struct str){ s.p + 8, s.n - 8 };
    }
    w = 0;
    if (s.n)
        memcpy(&w, s.p, s.n);
    return dict_mix(h * 0x9e3779b97f4a7c15u ^ w);
}

/* The number of s; new texts are copied. */
uint32_t dict_code(struct dict *d, struct str s);
/* Its number if it has one; any number of threads while nobody adds. */
static inline bool dict_find(const struct dict *d, struct str s, uint32_t *out)
{
    for (size_t at = dict_hash(s) & d->mask; d->slots && d->slots[at]; at = (at + 1) & d->mask)
        if (str_eq(d->v[d->slots[at] - 1], s)) {
            *out = d->slots[at] - 1;
            return true;
        }
    return false;
}
