// SPDX-License-Identifier: Apache-2.0
/* A skip list after W. Pugh, "Skip Lists: A Probabilistic Alternative to Balanced Trees" (1990), a quarter of the
 * rows on each next level. Rows are never changed or taken out, so that a reader needs no lock: a link is stored
 * (release) once the row behind it is whole, and loaded (acquire). */
#include "store/recent.h"
#include <stdlib.h>

static struct recent_row *link_get(const struct recent_row *r, int level)
{
    return atomic_load_explicit(&r->next[level], memory_order_acquire);
}

static struct recent_row *row_new(struct recent *t, int levels, struct str key, struct str value)
{
    size_t head = sizeof(struct recent_row) + (size_t)levels * sizeof(struct recent_row *);
    struct recent_row *r = arena_alloc(t->a, head + key.n + value.n, _Alignof(struct recent_row));
    char *p = (char *)r + head;
    r->levels = levels;
    if (key.n)
        memcpy(p, key.p, key.n);
    r->key = (struct str){ p, key.n };
    if (value.n)
        memcpy(p + key.n, value.p, value.n);
    r->value = (struct str){ p + key.n, value.n };
    t->bytes += head + key.n + value.n;
    return r;
}

struct recent *recent_new(void)
{
    struct recent *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    t->a = arena_new(0);
    t->head = row_new(t, RECENT_LEVELS, S(""), S(""));
    t->bytes = 0;
    t->levels = 1;
    t->dice = 1;
    t->refs = 1;
    return t;
}

void recent_free(struct recent *t)
{
    if (!t)
        return;
    arena_free(t->a);
    free(t);
}

/* The last row before key on each level; head where there is none. */
static void before(const struct recent *t, struct str key, struct recent_row *out[RECENT_LEVELS])
{
    struct recent_row *at = t->head, *next;
    for (int i = RECENT_LEVELS - 1; i >= 0; i--) {
        while ((next = link_get(at, i)) && str_cmp(next->key, key) < 0)
            at = next;
        out[i] = at;
    }
}

static int levels_draw(struct recent *t)
{
    int n = 1;
    for (uint64_t x = splitmix(&t->dice); n < RECENT_LEVELS && !(x & 3); x >>= 2)
        n++;
    return n;
}

struct recent_row *recent_put(struct recent *t, const struct kv_item *it, uint64_t seq)
{
    struct recent_row *prev[RECENT_LEVELS];
    struct recent_row *r = row_new(t, levels_draw(t), it->key, it->remove ? S("") : it->value);
    r->version = it->version;
    r->seq = seq;
    r->removed = it->remove;
    before(t, it->key, prev);
    for (int i = 0; i < r->levels; i++) {
        atomic_store_explicit(&r->next[i], link_get(prev[i], i), memory_order_relaxed);
        atomic_store_explicit(&prev[i]->next[i], r, memory_order_release);
    }
    t->rows++;
    atomic_store_explicit(&t->any, true, memory_order_release);
    return r;
}

struct recent_row *recent_from(const struct recent *t, struct str key)
{
    struct recent_row *prev[RECENT_LEVELS];
    if (!atomic_load_explicit(&t->any, memory_order_acquire))
        return NULL;
    before(t, key, prev);
    return link_get(prev[0], 0);
}

struct recent_row *recent_seen(struct recent_row *r, uint64_t seq)
{
    while (r && r->seq > seq)
        r = link_get(r, 0); /* a newer state of this key, or a key that was not there yet */
    return r;
}

struct recent_row *recent_get(const struct recent *t, struct str key, uint64_t seq)
{
    struct recent_row *r = recent_from(t, key);
    while (r && r->seq > seq && str_eq(r->key, key))
        r = link_get(r, 0);
    return r && r->seq <= seq && str_eq(r->key, key) ? r : NULL;
}

struct recent_row *recent_next(struct recent_row *r)
{
    struct recent_row *next = link_get(r, 0);
    while (next && str_eq(next->key, r->key))
        next = link_get(next, 0);
    return next;
}
