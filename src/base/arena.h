/* arena: memory of one request, job or step; freed at once, with deferred releases run in reverse.
 * Owns     every block handed out, until arena_reset() or arena_free().
 * Threads  one at a time.
 * Errors   none: running over bytes_max aborts the process, so a size that comes from outside is
 *          checked against arena_left() (or a limit of its own) before it is asked for. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <stddef.h>
#include <stdint.h>

struct arena;

/* A new arena that may hold bytes_max in all (0: no limit). Heap, never NULL. */
struct arena *arena_new(size_t bytes_max);
/* n zeroed bytes, aligned to align (a power of two, at most 64). Never NULL. */
void *arena_alloc(struct arena *a, size_t n, size_t align);
/* Grows the block old (old_n bytes, NULL allowed) to n bytes, in place where it is the last one. */
void *arena_grow(struct arena *a, void *old, size_t old_n, size_t n, size_t align);
/* Bytes that may still be asked for. */
size_t arena_left(const struct arena *a);
/* Calls fn(arg) when the arena ends, last deferred first, before its memory goes. */
void arena_defer(struct arena *a, void (*fn)(void *), void *arg);
/* Runs the deferred calls and forgets every block; keeps one block for reuse. */
void arena_reset(struct arena *a);
/* NULL is fine. */
void arena_free(struct arena *a);

#define NEW(a, type) ((type *)arena_alloc((a), sizeof(type), _Alignof(type)))
#define NEW_N(a, type, n) ((type *)arena_alloc((a), arena_mul((n), sizeof(type)), _Alignof(type)))
/* n * size; aborts on overflow (callers limit n first). */
size_t arena_mul(size_t n, size_t size);

static inline void arena_free_at(struct arena **a)
{
    arena_free(*a);
}
/* Freed when the variable goes out of scope. */
#define auto_arena __attribute__((cleanup(arena_free_at)))

/* A vector that grows in an arena: struct { T *v; size_t n, cap; }. */
#define VEC(T)         \
    struct {           \
        T *v;          \
        size_t n, cap; \
    }
void *vec_grow(struct arena *a, void *v, size_t *cap, size_t need, size_t size);
/* Appends value to the vector *vec. */
#define push(a, vec, ...)                                                               \
    do {                                                                                \
        __typeof__(vec) vec_ = (vec);                                                   \
        if (vec_->n == vec_->cap)                                                       \
            vec_->v = vec_grow((a), vec_->v, &vec_->cap, vec_->n + 1, sizeof *vec_->v); \
        vec_->v[vec_->n++] = (__VA_ARGS__);                                             \
    } while (0)
