// SPDX-License-Identifier: Apache-2.0
#define SUITE base_arena
#include "test.h"

static void append_a(void *s)
{
    strcat(s, "a");
}

static void append_b(void *s)
{
    strcat(s, "b");
}

TEST(defer_runs_in_reverse)
{
    struct arena *a = arena_new(4096);
    char seen[3] = "";
    arena_defer(a, append_a, seen);
    arena_defer(a, append_b, seen);
    arena_free(a);
    CHECK_STR(seen, "ba");
}

TEST(reset_runs_deferred_calls_once)
{
    auto_arena struct arena *a = arena_new(0);
    char seen[9] = "";
    arena_defer(a, append_a, seen);
    arena_reset(a);
    arena_reset(a);
    CHECK_STR(seen, "a");
}

TEST(blocks_are_zeroed_and_aligned_also_after_reset)
{
    auto_arena struct arena *a = arena_new(0);
    for (int round = 0; round < 3; round++, arena_reset(a)) {
        for (size_t i = 0; i < 3000; i++) {
            size_t n = i % 77, align = (size_t)1 << i % 7;
            char *p = arena_alloc(a, n, align);
            CHECK((uintptr_t)p % align == 0);
            for (size_t k = 0; k < n; k++)
                CHECK(p[k] == 0);
            memset(p, 0xee, n);
        }
    }
}

TEST(big_blocks_do_not_waste_the_chunk_in_use)
{
    auto_arena struct arena *a = arena_new(0);
    char *small = arena_alloc(a, 16, 16);
    char *big = arena_alloc(a, 3 << 20, 64);
    char *next = arena_alloc(a, 16, 16);
    CHECK(next > small && next - small < 256);
    CHECK(big[0] == 0 && big[(3 << 20) - 1] == 0);
}

TEST(grow_stays_in_place_while_last)
{
    auto_arena struct arena *a = arena_new(0);
    char *p = arena_alloc(a, 8, 1);
    memcpy(p, "12345678", 8);
    CHECK(arena_grow(a, p, 8, 100, 1) == p);
    CHECK(p[8] == 0 && p[99] == 0);
    arena_alloc(a, 1, 1);
    char *moved = arena_grow(a, p, 100, 200, 1);
    CHECK(moved != p);
    CHECK(!memcmp(moved, "12345678", 8) && moved[199] == 0);
}

TEST(grow_keeps_what_was_there_across_chunks)
{
    auto_arena struct arena *a = arena_new(0);
    char *p = NULL;
    size_t n = 0;
    for (size_t more = 1; more < (4 << 20); more *= 2) {
        p = arena_grow(a, p, n, n + more, 1);
        memset(p + n, 7, more);
        n += more;
    }
    for (size_t i = 0; i < n; i++)
        CHECK(p[i] == 7);
}

TEST(left_counts_down_and_may_be_used_to_the_last_byte)
{
    auto_arena struct arena *a = arena_new(1000);
    CHECK(arena_left(a) == 1000);
    arena_alloc(a, 1, 1);
    CHECK(arena_left(a) == 999);
    arena_alloc(a, arena_left(a), 64);
    CHECK(arena_left(a) == 0);
    arena_reset(a);
    CHECK(arena_left(a) == 1000);
}

TEST(limit_aborts, .signal = SIGABRT)
{
    struct arena *a = arena_new(100);
    arena_alloc(a, 101, 1);
}

TEST(grow_over_the_limit_aborts, .signal = SIGABRT)
{
    struct arena *a = arena_new(100);
    char *p = arena_alloc(a, 60, 1);
    arena_grow(a, p, 60, 101, 1);
}

TEST(sizes_that_overflow_abort, .signal = SIGABRT)
{
    arena_mul(SIZE_MAX / 2, 3);
}

TEST(vectors_grow)
{
    auto_arena struct arena *a = arena_new(0);
    VEC(int) v = { 0 };
    for (int i = 0; i < 1000; i++)
        push(a, &v, i);
    CHECK(v.n == 1000);
    for (int i = 0; i < 1000; i++)
        CHECK(v.v[i] == i);
}

TEST(vectors_use_the_last_bytes_of_a_limit)
{
    auto_arena struct arena *a = arena_new(10 * sizeof(int64_t));
    VEC(int64_t) v = { 0 };
    for (int i = 0; i < 10; i++) /* 8, then not 16: exact steps, in place */
        push(a, &v, i);
    CHECK(v.n == 10 && v.v[9] == 9);
}

TEST(free_of_null_is_fine)
{
    arena_free(NULL);
}
