// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

#include <stdlib.h>

enum {
    BODY_SMALL = 64 << 10,   /* bodies up to here live in the arena itself */
    BODY_BELIEVED = 1 << 20, /* up to here a client is believed what it says that it will send */
};

static void heap_free(void *heap)
{
    free(*(char **)heap);
}

/* So many bytes more are wanted of the heap. */
static bool heap_counts(struct req *r, size_t more)
{
    if (!r->out) /* a codec alone */
        return true;
    r->out->heap += more;
    return exchange_weigh(r->out);
}

static bool body_room(struct body *b, struct req *r, size_t known, size_t n)
{
    struct arena *a = r->a;
    size_t gap = -b->lead % BODY_ALIGN;
    if (!b->p && known && known <= BODY_SMALL && n <= known) {
        b->p = (char *)arena_alloc(a, gap + known, BODY_ALIGN) + gap;
        b->cap = known;
        return heap_counts(r, 0);
    }
    if (!b->heap) {
        b->heap = NEW(a, char *);
        arena_defer(a, heap_free, b->heap);
    }
    /* More than that is believed when a part of it has come. */
    size_t cap = b->cap ? b->cap * 2 : BODY_SMALL;
    if (cap < known && known <= BODY_BELIEVED)
        cap = known;
    while (cap < b->n + n)
        cap *= 2;
    if (known >= b->n + n && cap > known)
        cap = known;
    char *old = *b->heap, *p = heap_counts(r, cap - (old ? b->cap : 0)) ? realloc(old, gap + cap) : NULL;
    if (!p)
        return false;
    if (!old && b->n)
        memcpy(p + gap, b->p, b->n);
    *b->heap = p;
    b->p = p + gap;
    b->cap = cap;
    return true;
}

bool body_put(struct body *b, struct req *r, size_t known, struct str in)
{
    if (b->n + in.n > b->cap && !body_room(b, r, known, in.n))
        return false;
    if (in.n && in.p != b->p + b->n) /* else it was read to its place */
        memcpy(b->p + b->n, in.p, in.n);
    b->n += in.n;
    return true;
}
