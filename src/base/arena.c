// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer what is not handed out is poisoned and blocks stand apart: an overrun shows. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GAP 16
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#define GAP 0
#endif

enum { CHUNK_MIN = 4096, CHUNK_MAX = 1 << 20, ALIGN_MAX = 64 };

struct chunk {
    struct chunk *prev;
    size_t cap, used; /* bytes of data; those past used are zero */
    char data[];
};

struct defer {
    struct defer *prev;
    void (*fn)(void *);
    void *arg;
};

struct arena {
    struct chunk *head; /* blocks are cut from here */
    struct defer *defers;
    char *last; /* the block handed out last, where it is in head */
    size_t max; /* 0: no limit */
    size_t used;
    size_t next_cap;
};

static _Noreturn void die_limit(const struct arena *a, size_t n)
{
    fprintf(stderr, "dhow: arena limit reached: %zu bytes in use, %zu more wanted, limit %zu\n", a->used, n,
            a->max);
    abort();
}

static _Noreturn void die_memory(size_t n)
{
    fprintf(stderr, "dhow: out of memory: cannot allocate %zu bytes\n", n);
    abort();
}

struct arena *arena_new(size_t bytes_max)
{
    struct arena *a = calloc(1, sizeof *a);
    if (!a)
        die_memory(sizeof *a);
    a->max = bytes_max;
    a->next_cap = CHUNK_MIN;
    return a;
}

size_t arena_mul(size_t n, size_t size)
{
    size_t all;
    if (__builtin_mul_overflow(n, size, &all)) {
        fprintf(stderr, "dhow: %zu items of %zu bytes do not fit in memory\n", n, size);
        abort();
    }
    return all;
}

size_t arena_left(const struct arena *a)
{
    return (a->max ? a->max : SIZE_MAX / 2) - a->used;
}

static void charge(struct arena *a, size_t n)
{
    if (n > arena_left(a)) {
        if (a->max)
            die_limit(a, n);
        die_memory(n);
    }
    a->used += n;
}

static struct chunk *chunk_new(struct arena *a, size_t need)
{
    size_t cap = a->next_cap > need ? a->next_cap : need;
    struct chunk *c = calloc(1, sizeof *c + cap);
    if (!c)
        die_memory(cap);
    c->cap = cap;
    ASAN_POISON_MEMORY_REGION(c->data, cap);
    if (a->next_cap < CHUNK_MAX)
        a->next_cap *= 2;
    return c;
}

static void chunk_free(struct chunk *c)
{
    ASAN_UNPOISON_MEMORY_REGION(c->data, c->cap);
    free(c);
}

static size_t room(const struct chunk *c)
{
    return c ? c->cap - c->used : 0;
}

/* Cuts n bytes off the chunk; NULL where they do not fit. */
static char *chunk_cut(struct chunk *c, size_t n, size_t align)
{
    size_t gap = c->used ? GAP : 0;
    gap += -(uintptr_t)(c->data + c->used + gap) & (align - 1);
    if (gap > room(c) || n > room(c) - gap)
        return NULL;
    char *p = c->data + c->used + gap;
    ASAN_UNPOISON_MEMORY_REGION(p, n);
    c->used += gap + n;
    return p;
}

void *arena_alloc(struct arena *a, size_t n, size_t align)
{
    assert(align && align <= ALIGN_MAX && !(align & (align - 1)));
    charge(a, n);
    char *p = a->head ? chunk_cut(a->head, n, align) : NULL;
    if (!p) {
        struct chunk *c = chunk_new(a, n + align);
        p = chunk_cut(c, n, align);
        assert(p);
        if (a->head && room(a->head) > room(c)) { /* a big block: go on with the old chunk */
            c->prev = a->head->prev;
            a->head->prev = c;
            return p;
        }
        c->prev = a->head;
        a->head = c;
    }
    a->last = p;
    return p;
}

void *arena_grow(struct arena *a, void *old, size_t old_n, size_t n, size_t align)
{
    if (!old)
        return arena_alloc(a, n, align);
    if (n <= old_n)
        return old;
    struct chunk *c = a->head;
    if (old == a->last && a->last + old_n == c->data + c->used && n - old_n <= room(c)) {
        charge(a, n - old_n);
        ASAN_UNPOISON_MEMORY_REGION(a->last + old_n, n - old_n);
        c->used += n - old_n;
        return old;
    }
    void *p = arena_alloc(a, n, align);
    memcpy(p, old, old_n);
    return p;
}

void arena_defer(struct arena *a, void (*fn)(void *), void *arg)
{
    struct defer *d = NEW(a, struct defer);
    *d = (struct defer){ a->defers, fn, arg };
    a->defers = d;
}

static void run_defers(struct arena *a)
{
    while (a->defers) {
        struct defer *d = a->defers;
        a->defers = d->prev;
        d->fn(d->arg);
    }
}

void arena_reset(struct arena *a)
{
    run_defers(a);
    struct chunk *keep = NULL;
    for (struct chunk *c = a->head, *prev; c; c = prev) {
        prev = c->prev;
        struct chunk *drop = c;
        if (c->cap <= CHUNK_MAX && (!keep || c->cap > keep->cap)) {
            drop = keep;
            keep = c;
        }
        if (drop)
            chunk_free(drop);
    }
    if (keep) {
        ASAN_UNPOISON_MEMORY_REGION(keep->data, keep->cap);
        memset(keep->data, 0, keep->used);
        ASAN_POISON_MEMORY_REGION(keep->data, keep->cap);
        keep->prev = NULL;
        keep->used = 0;
    }
    a->head = keep;
    a->last = NULL;
    a->used = 0;
}

void arena_free(struct arena *a)
{
    if (!a)
        return;
    run_defers(a);
    for (struct chunk *c = a->head, *prev; c; c = prev) {
        prev = c->prev;
        chunk_free(c);
    }
    free(a);
}

void *vec_grow(struct arena *a, void *v, size_t *cap, size_t need, size_t size)
{
    size_t n = *cap < 4 ? 8 : *cap * 2;
    size_t may = arena_left(a) / size;
    if (n > may) /* the last steps before the limit are exact */
        n = need;
    if (n < need)
        n = need;
    v = arena_grow(a, v, *cap * size, arena_mul(n, size), size % 16 ? 8 : 16);
    *cap = n;
    return v;
}
