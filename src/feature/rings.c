// SPDX-License-Identifier: Apache-2.0
/* The online way: the events of a key inside the longest window of a view, and the one row they give.
 * Stored as  e|project|view|KEY known(8) id(8) → hash(8) values(16 each),  r|project|view|KEY → hash(8) doubles,
 * version = known time. KEY is made of parts that tell their length, so that no key is the start of another.
 * In memory a key is a ring; it is changed under the lock, written by one kv_put, and forgotten if that fails: the
 * store is always right. */
#include "feature/internal.h"

#include <stdlib.h>

enum { TAIL = 16, SLOTS = 1 << 14, GONE_MIN = 32 };

struct slot {
    int64_t known;
    uint64_t id;
    bool fresh; /* not in the store yet */
};
struct ring {
    struct ring *chain, *prev, *next; /* of the hash; of use, newest first */
    uint64_t hash, view_hash;
    struct slot *ev; /* in order of known time, then id */
    fixed *values;   /* cols per event */
    size_t n, cap, cols;
    bool touched;
    size_t key_n;
    char key[]; /* "project|view|KEY" */
};
struct rings {
    pthread_mutex_t lock;
    struct kv *kv;
    struct ring **slot, *first, *last;
    size_t slots, n;
    _Atomic size_t bytes;
    size_t bytes_max;
};
struct touched {
    struct ring *ring;
    const struct view *view;
};
struct apply {
    struct rings *r;
    struct arena *a; /* of one flush */
    struct kv_snap *snap;
    VEC(struct touched) touched;
    VEC(struct kv_item) items;
    size_t events;
};

/* ---- keys ---- */

static size_t i64_text(int64_t v, char out[24])
{
    char tmp[24];
    size_t n = 0, k = 0;
    uint64_t u = v < 0 ? -(uint64_t)v : (uint64_t)v;
    do
        tmp[n++] = (char)('0' + u % 10);
    while (u /= 10);
    if (v < 0)
        out[k++] = '-';
    while (n)
        out[k++] = tmp[--n];
    return k;
}

static struct str value_text(const struct column *c, size_t row, char tmp[24])
{
    if (c->type == COL_STR)
        return column_str(c, row);
    return (struct str){ tmp, i64_text(c->i[row], tmp) };
}

bool key_encode(const struct column *const *keys, size_t keys_n, size_t row, uint8_t out[KEY_BYTES],
                size_t *n)
{
    char tmp[24];
    *n = 0;
    for (size_t k = 0; k < keys_n; k++) {
        if (column_null(keys[k], row))
            return false;
        struct str s = value_text(keys[k], row, tmp);
        if (s.n <= KEY_PART_BYTES - 1) {
            out[(*n)++] = (uint8_t)s.n;
            memcpy(out + *n, s.p, s.n);
            *n += s.n;
        } else {
            out[(*n)++] = 0xff;
            sha256(s, out + *n);
            *n += 32;
        }
    }
    return true;
}

uint64_t event_id(const struct column *id, size_t row)
{
    char tmp[24];
    if (id->type != COL_F64)
        return hash64(value_text(id, row, tmp));
    memcpy(tmp, &id->f[row], 8);
    return hash64((struct str){ tmp, 8 });
}

struct str row_prefix(struct arena *a, struct str project, struct str view)
{
    return fmt(a, "r|%.*s|%.*s|", STR(project), STR(view));
}

/* Bytes whose order is the order of the numbers. */
static void big_endian(uint64_t v, uint8_t out[8])
{
    for (int i = 0; i < 8; i++)
        out[i] = (uint8_t)(v >> (56 - 8 * i));
}
static uint64_t from_big_endian(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

static struct str event_key(struct arena *a, const struct ring *r, const struct slot *e)
{
    uint8_t *p = arena_alloc(a, 2 + r->key_n + TAIL, 1);
    memcpy(p, "e|", 2);
    memcpy(p + 2, r->key, r->key_n);
    big_endian((uint64_t)e->known ^ (uint64_t)1 << 63, p + 2 + r->key_n);
    big_endian(e->id, p + 2 + r->key_n + 8);
    return (struct str){ (char *)p, 2 + r->key_n + TAIL };
}

/* ---- rings in memory ---- */

struct rings *rings_new(struct kv *kv, size_t bytes_max)
{
    struct rings *r = calloc(1, sizeof *r);
    if (!r)
        abort();
    r->kv = kv;
    r->bytes_max = bytes_max;
    r->slots = SLOTS;
    r->slot = calloc(r->slots, sizeof *r->slot);
    if (!r->slot)
        abort();
    pthread_mutex_init(&r->lock, NULL);
    return r;
}

static size_t ring_bytes(const struct ring *g)
{
    return sizeof *g + g->key_n + g->cap * (sizeof *g->ev + g->cols * sizeof *g->values);
}

static void use_unlink(struct rings *r, struct ring *g)
{
    *(g->prev ? &g->prev->next : &r->first) = g->next;
    *(g->next ? &g->next->prev : &r->last) = g->prev;
}

static void use_link(struct rings *r, struct ring *g)
{
    g->prev = NULL;
    g->next = r->first;
    *(r->first ? &r->first->prev : &r->last) = g;
    r->first = g;
}

static void ring_drop(struct rings *r, struct ring *g)
{
    struct ring **at = &r->slot[g->hash & (r->slots - 1)];
    while (*at != g)
        at = &(*at)->chain;
    *at = g->chain;
    use_unlink(r, g);
    r->bytes -= ring_bytes(g);
    r->n--;
    free(g->ev);
    free(g->values);
    free(g);
}

void rings_free(struct rings *r)
{
    if (!r)
        return;
    while (r->first)
        ring_drop(r, r->first);
    pthread_mutex_destroy(&r->lock);
    free(r->slot);
    free(r);
}

size_t rings_bytes(struct rings *r)
{
    return r->bytes;
}

static void rings_grow(struct rings *r)
{
    size_t slots = r->slots * 4;
    struct ring **slot = calloc(slots, sizeof *slot);
    if (!slot)
        abort();
    for (struct ring *g = r->first; g; g = g->next) {
        g->chain = slot[g->hash & (slots - 1)];
        slot[g->hash & (slots - 1)] = g;
    }
    free(r->slot);
    r->slot = slot;
    r->slots = slots;
}

static struct ring *ring_new(struct rings *r, struct str key, uint64_t hash, const struct view *v)
{
    if (r->n > r->slots)
        rings_grow(r);
    struct ring *g = calloc(1, sizeof *g + key.n);
    if (!g)
        abort();
    g->hash = hash;
    g->view_hash = v->hash;
    g->cols = v->columns.n;
    g->key_n = key.n;
    memcpy(g->key, key.p, key.n);
    g->chain = r->slot[hash & (r->slots - 1)];
    r->slot[hash & (r->slots - 1)] = g;
    use_link(r, g);
    r->n++;
    r->bytes += ring_bytes(g);
    return g;
}

static void ring_room(struct rings *r, struct ring *g)
{
    if (g->n < g->cap)
        return;
    r->bytes -= ring_bytes(g);
    g->cap = g->cap ? g->cap * 2 : 4;
    g->ev = reallocarray(g->ev, g->cap, sizeof *g->ev);
    g->values = reallocarray(g->values, g->cap, g->cols * sizeof *g->values + !g->cols);
    if (!g->ev || !g->values)
        abort();
    r->bytes += ring_bytes(g);
}

/* Where an event of this time and id stands, or belongs. */
static size_t ring_find(const struct ring *g, int64_t known, uint64_t id)
{
    size_t lo = 0, hi = g->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        const struct slot *e = &g->ev[mid];
        if (e->known < known || (e->known == known && e->id < id))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void ring_insert(struct rings *r, struct ring *g, size_t at, const struct online_event *e, bool fresh)
{
    ring_room(r, g);
    memmove(g->ev + at + 1, g->ev + at, (g->n - at) * sizeof *g->ev);
    memmove(g->values + (at + 1) * g->cols, g->values + at * g->cols,
            (g->n - at) * g->cols * sizeof *g->values);
    g->ev[at] = (struct slot){ .known = e->known, .id = e->id, .fresh = fresh };
    if (g->cols)
        memcpy(g->values + at * g->cols, e->values, g->cols * sizeof *g->values);
    g->n++;
}

/* ---- from the store ---- */

struct load {
    struct apply *p;
    struct ring *g;
    size_t head; /* of a key of this ring's events, before the tail */
};

static bool event_load(void *arg, struct str key, struct str value, int64_t version)
{
    struct load *l = arg;
    uint64_t hash = 0;
    fixed values[AGGREGATES_MAX];
    (void)version;
    if (key.n != l->head + TAIL)
        return true; /* of no key that is written here */
    if (value.n >= ROW_HEAD)
        memcpy(&hash, value.p, 8);
    if (value.n != ROW_HEAD + l->g->cols * sizeof(fixed) || hash != l->g->view_hash) {
        push(l->p->a, &l->p->items, (struct kv_item){ .key = str_dup(l->p->a, key), .remove = true });
        return true; /* an older definition of the view made it */
    }
    memcpy(values, value.p + ROW_HEAD, l->g->cols * sizeof(fixed));
    const uint8_t *tail = (const uint8_t *)key.p + l->head;
    struct online_event e = { .known = (int64_t)(from_big_endian(tail) ^ (uint64_t)1 << 63),
                              .id = from_big_endian(tail + 8),
                              .values = values };
    ring_insert(l->p->r, l->g, l->g->n, &e, false); /* the store's order is the ring's */
    return true;
}

static err ring_load(struct apply *p, struct ring *g)
{
    struct load l = { .p = p, .g = g, .head = 2 + g->key_n };
    char *prefix = arena_alloc(p->a, l.head, 1);
    memcpy(prefix, "e|", 2);
    memcpy(prefix + 2, g->key, g->key_n);
    struct str s = { prefix, l.head };
    return kv_snap_scan(p->snap, s, s, event_load, &l);
}

static err ring_get(struct apply *p, struct str project, const struct view *v, struct str key,
                    struct ring **out)
{
    struct rings *r = p->r;
    char name[PREFIX_BYTES + KEY_BYTES];
    struct str whole = { name, 0 };
    struct str parts[] = { project, S("|"), v->def.name, S("|"), key };
    for (size_t i = 0; i < 5; i++) {
        if (parts[i].n > sizeof name - whole.n)
            FAIL(INVALID, "a key of view '%.*s' is too long", STR(v->def.name));
        memcpy(name + whole.n, parts[i].p, parts[i].n);
        whole.n += parts[i].n;
    }
    uint64_t hash = hash64(whole);
    struct ring *g = r->slot[hash & (r->slots - 1)];
    while (g && !(g->hash == hash && g->key_n == whole.n && !memcmp(g->key, whole.p, whole.n)))
        g = g->chain;
    if (g && g->view_hash != v->hash && !g->touched) {
        ring_drop(r, g);
        g = NULL;
    }
    if (!g) {
        g = ring_new(r, whole, hash, v);
        err e = ring_load(p, g);
        if (e) {
            ring_drop(r, g);
            return e;
        }
    }
    use_unlink(r, g);
    use_link(r, g);
    *out = g;
    return NULL;
}

/* ---- applying ---- */

err apply_begin(struct rings *r, struct arena *a, struct apply **out)
{
    struct apply *p = NEW(a, struct apply);
    p->r = r;
    pthread_mutex_lock(&r->lock);
    err e = kv_snap_begin(r->kv, &p->snap);
    if (e) {
        pthread_mutex_unlock(&r->lock);
        return e;
    }
    p->a = arena_new(0);
    *out = p;
    return NULL;
}

err apply_events(struct apply *p, struct str project, const struct view *v, struct str key,
                 const struct online_event *ev, size_t n, struct push_result *out)
{
    struct ring *g;
    TRY(ring_get(p, project, v, key, &g));
    for (size_t i = 0; i < n; i++) {
        size_t at = ring_find(g, ev[i].known, ev[i].id);
        if (at < g->n && g->ev[at].known == ev[i].known && g->ev[at].id == ev[i].id) {
            out->known++;
            continue;
        }
        if (g->n && ev[i].known < time_minus(g->ev[g->n - 1].known, v->longest_us)) {
            out->late++;
            continue;
        }
        ring_insert(p->r, g, at, &ev[i], true);
        out->events++;
        p->events++;
        if (!g->touched)
            push(p->a, &p->touched, (struct touched){ g, v });
        g->touched = true;
    }
    return NULL;
}

size_t apply_waiting(const struct apply *p)
{
    return p->touched.n + p->events;
}

static void item_event(struct apply *p, const struct ring *g, size_t i, bool remove)
{
    struct kv_item it = { .key = event_key(p->a, g, &g->ev[i]), .remove = remove };
    if (!remove) {
        size_t n = ROW_HEAD + g->cols * sizeof(fixed);
        char *value = arena_alloc(p->a, n, 8);
        memcpy(value, &g->view_hash, 8);
        if (g->cols)
            memcpy(value + 8, g->values + i * g->cols, n - 8);
        it.value = (struct str){ value, n };
    }
    push(p->a, &p->items, it);
}

/* New events are written; those before every window of the newest row go, many at a time: they are neighbours in
 * the store, so that a page is touched once for all of them. */
static void ring_write(struct apply *p, struct ring *g, const struct view *v)
{
    int64_t from = time_minus(g->ev[g->n - 1].known, v->longest_us);
    size_t gone = ring_find(g, from, 0);
    if (gone < GONE_MIN || gone < g->n / 4)
        gone = 0;
    for (size_t i = 0; i < gone; i++)
        if (!g->ev[i].fresh)
            item_event(p, g, i, true);
    for (size_t i = gone; i < g->n; i++)
        if (g->ev[i].fresh)
            item_event(p, g, i, false);
    if (!gone)
        return;
    g->n -= gone;
    memmove(g->ev, g->ev + gone, g->n * sizeof *g->ev);
    memmove(g->values, g->values + gone * g->cols, g->n * g->cols * sizeof *g->values);
}

/* Sums from the newest event back, window by window. */
static void ring_row(const struct ring *g, const struct view *v, double *out)
{
    int64_t newest = g->ev[g->n - 1].known;
    for (size_t w = 0; w < v->windows_n; w++) {
        fixed sum[AGGREGATES_MAX] = { 0 };
        int64_t n[AGGREGATES_MAX] = { 0 }, from = time_minus(newest, v->window_us[w]);
        size_t i = g->n;
        for (; i > 0 && g->ev[i - 1].known >= from; i--)
            for (size_t c = 0; c < g->cols; c++) {
                fixed x = g->values[(i - 1) * g->cols + c];
                if (x != FIXED_NULL) {
                    sum[c] += x;
                    n[c]++;
                }
            }
        view_window(v, w, &(struct sums){ .rows = (int64_t)(g->n - i), .sum = sum, .n = n }, out);
    }
}

static void item_row(struct apply *p, const struct ring *g, const struct view *v)
{
    size_t n = ROW_HEAD + v->features_n * sizeof(double);
    char *value = arena_alloc(p->a, n, 8), *key = arena_alloc(p->a, 2 + g->key_n, 1);
    memcpy(value, &v->hash, 8);
    ring_row(g, v, (double *)(void *)(value + 8));
    memcpy(key, "r|", 2);
    memcpy(key + 2, g->key, g->key_n);
    push(p->a, &p->items,
         (struct kv_item){
             .key = { key, 2 + g->key_n }, .value = { value, n }, .version = g->ev[g->n - 1].known });
}

static void touched_end(struct apply *p, bool kept)
{
    for (size_t i = 0; i < p->touched.n; i++) {
        struct ring *g = p->touched.v[i].ring;
        g->touched = false;
        for (size_t k = 0; k < g->n; k++)
            g->ev[k].fresh = false;
        if (!kept)
            ring_drop(p->r, g); /* it will be read from the store again */
    }
    arena_reset(p->a);
    memset(&p->touched, 0, sizeof p->touched);
    memset(&p->items, 0, sizeof p->items);
    p->events = 0;
}

err apply_flush(struct apply *p)
{
    for (size_t i = 0; i < p->touched.n; i++) {
        ring_write(p, p->touched.v[i].ring, p->touched.v[i].view);
        item_row(p, p->touched.v[i].ring, p->touched.v[i].view);
    }
    err e = p->items.n ? kv_put(p->r->kv, p->items.v, p->items.n, NULL) : NULL;
    touched_end(p, !e);
    while (p->r->bytes > p->r->bytes_max && p->r->last)
        ring_drop(p->r, p->r->last);
    if (e)
        return e;
    kv_snap_end(p->snap); /* what is read from now on must be newer than what was written */
    p->snap = NULL;
    return kv_snap_begin(p->r->kv, &p->snap);
}

void apply_end(struct apply *p)
{
    if (!p)
        return;
    touched_end(p, false);
    if (p->snap)
        kv_snap_end(p->snap);
    arena_free(p->a);
    pthread_mutex_unlock(&p->r->lock);
}

/* ---- reading ---- */

bool row_get(struct kv_snap *snap, const struct view *v, struct str prefix, struct str key, double *out,
             int64_t *known)
{
    char name[PREFIX_BYTES + KEY_BYTES];
    struct str value;
    uint64_t hash;
    if (prefix.n > PREFIX_BYTES || key.n > KEY_BYTES)
        return false;
    memcpy(name, prefix.p, prefix.n);
    memcpy(name + prefix.n, key.p, key.n);
    if (!kv_snap_get(snap, (struct str){ name, prefix.n + key.n }, &value, known))
        return false;
    if (value.n != ROW_HEAD + v->features_n * sizeof(double))
        return false;
    memcpy(&hash, value.p, 8);
    if (hash != v->hash)
        return false;
    memcpy(out, value.p + ROW_HEAD, v->features_n * sizeof(double));
    return true;
}
