// SPDX-License-Identifier: Apache-2.0
/* Answers that are given again: by SHA-256 of the version and of all that was asked; the one used longest ago goes. */
#include "serve/policy.h"
#include <stdlib.h>

enum { TABLE = 4096, KEY = sizeof((struct infer *)0)->key };

struct answer {
    struct answer *chain, *newer, *older;
    uint8_t key[KEY];
    int64_t made_ns;
    size_t bytes, out_n;
    struct tensor out[]; /* then their data */
};
struct cache {
    pthread_mutex_t m;
    size_t size, used;
    int64_t ttl_ns;
    struct answer *newest, *oldest;
    struct answer *table[TABLE];
};

struct cache *cache_new(const struct caching *spec)
{
    if (!spec->size)
        return NULL;
    struct cache *k = calloc(1, sizeof *k);
    if (!k)
        abort();
    k->size = (size_t)spec->size;
    k->ttl_ns = spec->ttl * 1000000;
    pthread_mutex_init(&k->m, NULL);
    return k;
}

void cache_free(struct cache *k)
{
    if (!k)
        return;
    for (struct answer *w = k->newest, *next; w; w = next) {
        next = w->older;
        free(w);
    }
    pthread_mutex_destroy(&k->m);
    free(k);
}

/* ---- what was asked ---- */

static void key_put(struct buf *b, const void *p, size_t n)
{
    buf_put(b, (const char *)&n, sizeof n);
    if (n)
        buf_put(b, p, n);
}

static void tensor_put(struct buf *b, const struct tensor *t)
{
    const struct str *text = t->data;
    int type = (int)t->type;
    key_put(b, &type, sizeof type);
    key_put(b, t->dims, t->rank * sizeof *t->dims);
    if (t->type != TENSOR_TEXT)
        key_put(b, t->data, t->bytes);
    for (size_t i = 0; t->type == TENSOR_TEXT && i < t->bytes / sizeof *text; i++)
        key_put(b, text[i].p, text[i].n);
}

static void key_make(struct infer *c)
{
    struct buf b = buf_new(c->a);
    key_put(&b, c->to->model->name.p, c->to->model->name.n);
    for (size_t i = 0; i < c->to->model->info->n_inputs; i++)
        tensor_put(&b, &c->in[i]);
    for (size_t i = 0; i < c->out_n; i++)
        key_put(&b, &c->out[i].slot, sizeof c->out[i].slot);
    sha256(buf_get(&b), c->key);
    c->keyed = true;
}

/* ---- the table; with m held ---- */

static struct answer **place_of(struct cache *k, const struct infer *c)
{
    uint32_t at;
    memcpy(&at, c->key, sizeof at);
    struct answer **p = &k->table[at % TABLE];
    while (*p && memcmp((*p)->key, c->key, KEY) != 0)
        p = &(*p)->chain;
    return p;
}

static void unlink_use(struct cache *k, struct answer *w)
{
    *(w->newer ? &w->newer->older : &k->newest) = w->older;
    *(w->older ? &w->older->newer : &k->oldest) = w->newer;
}

static void link_use(struct cache *k, struct answer *w)
{
    w->newer = NULL;
    w->older = k->newest;
    *(k->newest ? &k->newest->newer : &k->oldest) = w;
    k->newest = w;
}

static void forget(struct cache *k, struct answer *w)
{
    uint32_t at;
    memcpy(&at, w->key, sizeof at);
    struct answer **p = &k->table[at % TABLE];
    while (*p != w)
        p = &(*p)->chain;
    *p = w->chain;
    unlink_use(k, w);
    k->used -= w->bytes;
    free(w);
}

/* ---- answers ---- */

static void answer_give(struct infer *c, const struct answer *w)
{
    for (size_t i = 0; i < c->out_n; i++) {
        void *mine = c->out[i].data ? c->out[i].data : arena_alloc(c->a, w->out[i].bytes, 64);
        c->out[i] = w->out[i];
        c->out[i].data = mine;
        memcpy(mine, w->out[i].data, w->out[i].bytes);
    }
}

static bool answer_find(struct cache *k, struct infer *c)
{
    LOCKED(&k->m);
    struct answer *w = *place_of(k, c);
    if (w && k->ttl_ns && mono_ns() - w->made_ns > k->ttl_ns) {
        forget(k, w);
        w = NULL;
    }
    if (!w)
        return false;
    unlink_use(k, w);
    link_use(k, w);
    answer_give(c, w);
    return true;
}

static void add(_Atomic int64_t *to, int64_t v)
{
    atomic_fetch_add_explicit(to, v, memory_order_relaxed);
}

bool cache_get(struct infer *c)
{
    struct cache *k = c->entry->policy ? c->entry->policy->cache : NULL;
    if (!k || c->seq || c->entities ||
        c->to->model->composed) /* an ensemble's steps have versions of their own */
        return false;
    int64_t began = mono_ns();
    key_make(c);
    bool hit = answer_find(k, c);
    c->keyed = !hit;
    c->at.started = c->at.ran = mono_ns();
    add(hit ? &c->count->cache_hits : &c->count->cache_misses, 1);
    add(hit ? &c->count->hit_ns : &c->count->miss_ns, c->at.ran - began);
    return hit;
}

/* Texts are not kept: they are many small pieces. */
static struct answer *answer_new(const struct infer *c, size_t most)
{
    size_t head = sizeof(struct answer) + c->out_n * sizeof(struct tensor), bytes = head;
    for (size_t i = 0; i < c->out_n; i++)
        if (c->out[i].type == TENSOR_TEXT || c->out[i].bytes > most || (bytes += c->out[i].bytes) > most)
            return NULL;
    struct answer *w = malloc(bytes);
    if (!w)
        abort();
    *w = (struct answer){ .made_ns = c->at.ran, .bytes = bytes, .out_n = c->out_n };
    memcpy(w->key, c->key, KEY);
    char *at = (char *)w + head;
    for (size_t i = 0; i < c->out_n; i++) {
        w->out[i] = c->out[i];
        w->out[i].data = at;
        if (c->out[i].bytes)
            memcpy(at, c->out[i].data, c->out[i].bytes);
        at += c->out[i].bytes;
    }
    return w;
}

void cache_put(struct infer *c)
{
    struct cache *k = c->entry->policy->cache;
    int64_t began = mono_ns();
    struct answer *w = answer_new(c, k->size);
    if (w) {
        LOCKED(&k->m);
        struct answer **p = place_of(k, c);
        if (*p) /* another was asked the same meanwhile */
            forget(k, *p);
        while (k->used + w->bytes > k->size)
            forget(k, k->oldest);
        p = place_of(k, c);
        w->chain = NULL;
        *p = w;
        link_use(k, w);
        k->used += w->bytes;
    }
    add(&c->count->miss_ns, mono_ns() - began);
}
