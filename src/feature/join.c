// SPDX-License-Identifier: Apache-2.0
/* The offline way: events sorted by key and known time, prefix sums per key, and one merge with the labels.
 * A label needs one step per event and window pointer, so all of it is linear after two radix sorts. */
#include "feature/internal.h"

#include <stdlib.h>

enum { RADIX = 11, THREADS_MAX = 16 };
static const uint32_t NO_KEY = UINT32_MAX;

/* ---- keys: columns → 0, 1, 2 … ---- */

/* Numbers of 64-bit values, in order of coming. */
struct codes {
    struct arena *a;
    uint64_t *value;
    uint32_t *code; /* + 1; 0: free */
    size_t n, mask;
};
struct keymap {
    struct arena *a;
    size_t columns;
    const struct column *of[KEYS_MAX]; /* the events' columns: their dictionaries */
    struct codes part[KEYS_MAX];       /* whole numbers → codes (text has codes already) */
    struct codes pair[KEYS_MAX];       /* (codes so far, code of column i) → code */
    size_t n;
};

static uint64_t mix(uint64_t x)
{
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

static size_t codes_at(const struct codes *c, uint64_t v)
{
    size_t at = mix(v) & c->mask;
    while (c->code[at] && c->value[at] != v)
        at = (at + 1) & c->mask;
    return at;
}

static void codes_room(struct codes *c)
{
    struct codes old = *c;
    if (c->code && c->n * 2 <= c->mask)
        return;
    c->mask = (c->code ? (c->mask + 1) * 4 : 1024) - 1;
    c->value = NEW_N(c->a, uint64_t, c->mask + 1);
    c->code = NEW_N(c->a, uint32_t, c->mask + 1);
    for (size_t i = 0; old.code && i <= old.mask; i++)
        if (old.code[i]) {
            size_t at = codes_at(c, old.value[i]);
            c->value[at] = old.value[i];
            c->code[at] = old.code[i];
        }
}

/* The number of v; a new one if `add`, else NO_KEY. */
static uint32_t codes_get(struct codes *c, uint64_t v, bool add)
{
    if (add)
        codes_room(c);
    if (!c->code)
        return NO_KEY;
    size_t at = codes_at(c, v);
    if (!c->code[at] && add) {
        c->value[at] = v;
        c->code[at] = (uint32_t)++c->n;
    }
    return c->code[at] ? c->code[at] - 1 : NO_KEY;
}

/* Codes of the labels' dictionary in the events' one. */
static uint32_t *dict_translate(struct arena *a, const struct column *from, const struct column *to)
{
    uint32_t *map = NEW_N(a, uint32_t, from->dict_n + 1);
    size_t mask = 64;
    while (mask < to->dict_n * 2)
        mask *= 2;
    uint32_t *slot = NEW_N(a, uint32_t, mask--); /* code + 1 */
    for (size_t i = 0; i < to->dict_n; i++) {
        size_t at = hash64(to->dict[i]) & mask;
        while (slot[at])
            at = (at + 1) & mask;
        slot[at] = (uint32_t)i + 1;
    }
    for (size_t i = 0; i < from->dict_n; i++) {
        size_t at = hash64(from->dict[i]) & mask;
        while (slot[at] && !str_eq(to->dict[slot[at] - 1], from->dict[i]))
            at = (at + 1) & mask;
        map[i] = slot[at] ? slot[at] - 1 : NO_KEY;
    }
    return map;
}

static err key_column_check(const struct column *c, const struct column *of)
{
    if (c->type == COL_F64)
        FAIL(INVALID, "key column '%.*s' is %s; a key is text or a whole number", STR(c->name),
             column_type_names[c->type]);
    if (of && (c->type == COL_STR) != (of->type == COL_STR))
        FAIL(INVALID, "key column '%.*s' is %s in one dataset and %s in the other", STR(c->name),
             column_type_names[c->type], column_type_names[of->type]);
    return NULL;
}

/* Key of each row; rows: which ones (NULL: all n). build: new keys get numbers, else they are NO_KEY. */
static err keys_of(struct keymap *m, const struct column *const *cols, size_t cols_n, const uint32_t *rows,
                   size_t n, bool build, uint32_t *out)
{
    for (size_t k = 0; k < cols_n; k++) {
        const struct column *c = cols[k];
        TRY(key_column_check(c, build ? NULL : m->of[k]));
        if (build)
            m->of[k] = c;
        m->part[k].a = m->pair[k].a = m->a;
        const uint32_t *map = c->type == COL_STR && c->dict != m->of[k]->dict
                                  ? dict_translate(m->a, c, m->of[k])
                                  : NULL;
        for (size_t i = 0; i < n; i++) {
            size_t row = rows ? rows[i] : i;
            if (column_null(c, row) || (k && out[i] == NO_KEY)) {
                out[i] = NO_KEY;
                continue;
            }
            uint32_t code = c->type != COL_STR ? codes_get(&m->part[k], (uint64_t)c->i[row], build)
                            : map              ? map[c->code[row]]
                                               : c->code[row];
            if (k && code != NO_KEY)
                code = codes_get(&m->pair[k], (uint64_t)out[i] << 32 | code, build);
            out[i] = code;
        }
    }
    if (build)
        m->n = cols_n > 1 ? m->pair[cols_n - 1].n : cols[0]->type == COL_STR ? cols[0]->dict_n : m->part[0].n;
    m->columns = cols_n;
    return NULL;
}

/* ---- sorting ---- */

static bool in_order(const int64_t *t, const uint32_t *row, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (t[row[i]] < t[row[i - 1]])
            return false;
    return true;
}

/* row[n] in order of t[row[i]], stable. */
static void sort_by_time(struct arena *a, const int64_t *t, uint32_t *row, size_t n)
{
    if (in_order(t, row, n))
        return;
    int64_t min = INT64_MAX, max = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        min = t[row[i]] < min ? t[row[i]] : min;
        max = t[row[i]] > max ? t[row[i]] : max;
    }
    uint64_t span = (uint64_t)max - (uint64_t)min;
    struct item {
        uint64_t t;
        uint32_t row;
    } *from = NEW_N(a, struct item, n), *to = NEW_N(a, struct item, n);
    for (size_t i = 0; i < n; i++)
        from[i] = (struct item){ (uint64_t)t[row[i]] - (uint64_t)min, row[i] };
    for (int shift = 0; shift < 64 && span >> shift; shift += RADIX) {
        size_t count[1 << RADIX] = { 0 }, at = 0;
        for (size_t i = 0; i < n; i++)
            count[from[i].t >> shift & ((1 << RADIX) - 1)]++;
        for (size_t d = 0; d < 1 << RADIX; d++) {
            size_t c = count[d];
            count[d] = at;
            at += c;
        }
        for (size_t i = 0; i < n; i++)
            to[count[from[i].t >> shift & ((1 << RADIX) - 1)]++] = from[i];
        struct item *swap = from;
        from = to;
        to = swap;
    }
    for (size_t i = 0; i < n; i++)
        row[i] = from[i].row;
}

/* Rows in order of time → in order of key, then time. Those of NO_KEY are left out. */
static void sort_by_key(struct arena *a, const uint32_t *key, const uint32_t *row, size_t n, size_t keys,
                        uint32_t *out, size_t **start_out)
{
    size_t *start = NEW_N(a, size_t, keys + 2), at = 0;
    for (size_t i = 0; i < n; i++)
        if (key[row[i]] != NO_KEY)
            start[key[row[i]]]++;
    for (size_t k = 0; k <= keys; k++) {
        size_t c = start[k];
        start[k] = at;
        at += c;
    }
    for (size_t i = 0; i < n; i++)
        if (key[row[i]] != NO_KEY)
            out[start[key[row[i]]]++] = row[i];
    memmove(start + 1, start, keys * sizeof *start); /* each is now the next one's start */
    start[0] = 0;
    *start_out = start;
}

/* ---- binding ---- */

err view_bind_keys(const struct view *v, const struct columns *table, struct view_columns *out)
{
    for (size_t k = 0; k < v->def.keys.n; k++)
        TRY_AS(columns_need(table, v->def.keys.v[k], &out->keys[k]), "view '%.*s'", STR(v->def.name));
    return NULL;
}

err view_bind(struct arena *a, const struct view *v, const struct columns *table, struct view_columns *out)
{
    *out = (struct view_columns){ .values = NEW_N(a, const struct column *, v->columns.n + 1) };
    TRY(view_bind_keys(v, table, out));
    for (size_t k = 0; k < v->def.keys.n; k++)
        TRY_AS(key_column_check(out->keys[k], NULL), "view '%.*s'", STR(v->def.name));
    TRY_AS(columns_need(table, v->def.known_at, &out->known), "view '%.*s'", STR(v->def.name));
    if (out->known->type != COL_TIME)
        FAIL(INVALID, "view '%.*s': column '%.*s' is %s, not a time", STR(v->def.name), STR(out->known->name),
             column_type_names[out->known->type]);
    for (size_t i = 0; i < v->columns.n; i++) {
        TRY_AS(columns_need(table, v->columns.v[i], &out->values[i]), "view '%.*s'", STR(v->def.name));
        if (out->values[i]->type == COL_STR || out->values[i]->type == COL_TIME)
            FAIL(INVALID, "view '%.*s': column '%.*s' is %s, not a number", STR(v->def.name),
                 STR(v->columns.v[i]), column_type_names[out->values[i]->type]);
    }
    out->id = columns_find(table, v->def.id);
    return NULL;
}

err view_sort(struct arena *a, const struct view *v, const struct columns *table, struct view_columns *c,
              struct keymap **keys, struct sorted *out)
{
    auto_arena struct arena *tmp = arena_new(0);
    size_t n = 0;
    if (table->rows >= NO_KEY)
        FAIL(TOO_LARGE, "view '%.*s': %zu events; at most 4 billion are joined at once", STR(v->def.name),
             table->rows);
    uint32_t *key = NEW_N(tmp, uint32_t, table->rows + 1), *row = NEW_N(tmp, uint32_t, table->rows + 1);
    struct keymap *m = NEW(a, struct keymap);
    m->a = a;
    TRY(keys_of(m, c->keys, v->def.keys.n, NULL, table->rows, true, key));
    for (size_t i = 0; i < table->rows; i++)
        if (key[i] != NO_KEY && !column_null(c->known, i))
            row[n++] = (uint32_t)i;
    sort_by_time(tmp, c->known->i, row, n);
    *out = (struct sorted){ .row = NEW_N(a, uint32_t, n + 1),
                            .known = NEW_N(a, int64_t, n + 1),
                            .keys = m->n };
    sort_by_key(a, key, row, n, m->n, out->row, &out->start);
    for (size_t i = 0; i < n; i++)
        out->known[i] = c->known->i[out->row[i]];
    *keys = m;
    return NULL;
}

/* ---- joining ---- */

struct join {
    const struct view *v;
    const struct view_columns *c;
    const struct sorted *events;
    const uint32_t *label;     /* in order of key, then time: index i of rows */
    const size_t *label_start; /* of key k */
    const int64_t *time;       /* of label i */
    double **out;
};
struct part { /* of the keys, for one thread */
    const struct join *j;
    size_t from, to;
    pthread_t thread;
    bool started;
};

/* Running sums within one key: sum[i * columns + c] of the events before i, exclusive. */
struct prefix {
    fixed *sum;
    int64_t *n;
    size_t cap;
};

static void prefix_fill(struct prefix *p, const struct join *j, size_t from, size_t n)
{
    size_t cols = j->v->columns.n;
    for (size_t c = 0; c < cols; c++) {
        const struct column *col = j->c->values[c];
        fixed sum = 0;
        int64_t there = 0;
        for (size_t i = 0; i < n; i++) {
            fixed x = value_fixed(col, j->events->row[from + i]);
            p->sum[i * cols + c] = sum;
            p->n[i * cols + c] = there;
            if (x != FIXED_NULL) {
                sum += x;
                there++;
            }
        }
        p->sum[n * cols + c] = sum;
        p->n[n * cols + c] = there;
    }
}

/* The view's row for events [lo[w], hi) of a key. */
static void row_compute(const struct join *j, const struct prefix *p, const size_t *lo, size_t hi,
                        double *row)
{
    size_t cols = j->v->columns.n;
    fixed sum[AGGREGATES_MAX];
    int64_t n[AGGREGATES_MAX];
    for (size_t w = 0; w < j->v->windows_n; w++) {
        for (size_t c = 0; c < cols; c++) {
            sum[c] = p->sum[hi * cols + c] - p->sum[lo[w] * cols + c];
            n[c] = p->n[hi * cols + c] - p->n[lo[w] * cols + c];
        }
        view_window(j->v, w, &(struct sums){ .rows = (int64_t)(hi - lo[w]), .sum = sum, .n = n }, row);
    }
}

static void key_join(const struct join *j, const struct prefix *p, size_t key, double *row)
{
    size_t from = j->events->start[key], n = j->events->start[key + 1] - from, hi = 0, seen = 0;
    size_t lo[WINDOWS_MAX] = { 0 };
    const int64_t *known = j->events->known + from;
    for (size_t l = j->label_start[key]; l < j->label_start[key + 1]; l++) {
        uint32_t label = j->label[l];
        int64_t t = j->time[label];
        while (hi < n && known[hi] <= t)
            hi++;
        if (!hi || (j->v->ttl_us && known[hi - 1] < time_minus(t, j->v->ttl_us)))
            continue; /* out holds NaN already */
        for (size_t w = 0; w < j->v->windows_n; w++)
            while (known[lo[w]] < time_minus(known[hi - 1], j->v->window_us[w]))
                lo[w]++;
        if (hi != seen)
            row_compute(j, p, lo, hi, row);
        seen = hi;
        for (size_t f = 0; f < j->v->features_n; f++)
            j->out[f][label] = row[f];
    }
}

static void *part_run(void *arg)
{
    struct part *p = arg;
    const struct join *j = p->j;
    size_t most = 0, cols = j->v->columns.n;
    auto_arena struct arena *a = arena_new(0);
    for (size_t k = p->from; k < p->to; k++) {
        size_t n = j->events->start[k + 1] - j->events->start[k];
        most = n > most ? n : most;
    }
    struct prefix prefix = { .sum = arena_alloc(a, arena_mul(arena_mul(most + 1, cols + 1), sizeof(fixed)),
                                                16),
                             .n = NEW_N(a, int64_t, arena_mul(most + 1, cols + 1)) };
    double *row = NEW_N(a, double, j->v->features_n + 1);
    for (size_t k = p->from; k < p->to; k++) {
        if (j->label_start[k] == j->label_start[k + 1])
            continue;
        prefix_fill(&prefix, j, j->events->start[k], j->events->start[k + 1] - j->events->start[k]);
        key_join(j, &prefix, k, row);
    }
    return NULL;
}

/* Keys cut into parts of about as many events and labels. */
static size_t parts_cut(const struct join *j, size_t keys, size_t threads, struct part *out)
{
    size_t total = j->events->start[keys] + j->label_start[keys], n = 0, from = 0;
    for (size_t i = 1; i <= threads && from < keys; i++) {
        size_t to = from;
        while (to < keys && (i == threads || j->events->start[to] + j->label_start[to] < total * i / threads))
            to++;
        if (to > from)
            out[n++] = (struct part){ .j = j, .from = from, .to = to };
        from = to;
    }
    return n;
}

static err parts_run(const struct join *j, size_t keys, int threads)
{
    struct part part[THREADS_MAX];
    size_t want = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : (size_t)threads;
    size_t n = parts_cut(j, keys, want, part);
    err e = NULL;
    for (size_t i = 1; i < n && !e; i++) {
        e = thread_start("join", part_run, &part[i], &part[i].thread);
        part[i].started = !e;
    }
    if (n && !e)
        part_run(&part[0]);
    for (size_t i = 1; i < n; i++)
        if (part[i].started)
            pthread_join(part[i].thread, NULL);
    return e;
}

err view_join(const struct view *v, const struct columns *events, const struct columns *labels,
              const struct column *time, const uint32_t *rows, size_t n, int threads, double **out)
{
    auto_arena struct arena *a = arena_new(0);
    struct view_columns c, l = { 0 };
    struct sorted sorted;
    struct keymap *keys;
    TRY(view_bind(a, v, events, &c));
    TRY(view_bind_keys(v, labels, &l));
    TRY(view_sort(a, v, events, &c, &keys, &sorted));
    uint32_t *key = NEW_N(a, uint32_t, n + 1), *order = NEW_N(a, uint32_t, n + 1),
             *by_key = NEW_N(a, uint32_t, n + 1);
    int64_t *t = NEW_N(a, int64_t, n + 1);
    TRY_AS(keys_of(keys, l.keys, v->def.keys.n, rows, n, false, key), "view '%.*s'", STR(v->def.name));
    for (size_t f = 0; f < v->features_n; f++)
        for (size_t i = 0; i < n; i++)
            out[f][i] = NAN;
    for (size_t i = 0; i < n; i++) {
        order[i] = (uint32_t)i;
        t[i] = time->i[rows[i]];
        if (column_null(time, rows[i]))
            key[i] = NO_KEY;
    }
    sort_by_time(a, t, order, n);
    struct join j = { .v = v, .c = &c, .events = &sorted, .label = by_key, .time = t, .out = out };
    size_t *start;
    sort_by_key(a, key, order, n, sorted.keys, by_key, &start);
    j.label_start = start;
    return parts_run(&j, sorted.keys, threads);
}
