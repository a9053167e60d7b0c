// SPDX-License-Identifier: Apache-2.0
/* A column of a table as a stream of tokens, row after row: texts with a line break between them, so that lines make the text that
 * they are of; whole numbers, and lists of them, as they are. */
#include "train/loader_internal.h"

#include <stdlib.h>

struct stream {
    const struct loader *l;
    struct str column;
    enum scan_want want;
    enum tensor_type type; /* of numbers */
    char *p;               /* n bytes */
    size_t n, cap;
    int64_t row;
};

static err stream_add(struct stream *s, const void *p, size_t n)
{
    size_t need = s->n + n;
    if (need > s->cap) {
        size_t cap = need < s->cap * 2 ? s->cap * 2 : need;
        char *to = need > (size_t)s->l->spec.memory_max ? NULL : realloc(s->p, cap);
        if (!to)
            return err_hint(err_new(TOO_LARGE, "column '%.*s' does not fit into %lld bytes of memory",
                                    STR(s->column), (long long)s->l->spec.memory_max),
                            "data: {memory: …}");
        s->p = to;
        s->cap = cap;
    }
    memcpy(s->p + s->n, p, n);
    s->n = need;
    return NULL;
}

static err text_add(struct stream *s, const struct vector *v, size_t i)
{
    struct str text = vector_text(v, i);
    if (s->row + (int64_t)i)
        TRY(stream_add(s, "\n", 1));
    return stream_add(s, text.p, text.n);
}

static err ids_add(struct stream *s, const struct vector *v, size_t i)
{
    size_t size = tensor_size(s->type), at = v->lists ? v->lists[i].at : i, n = v->lists ? v->lists[i].n : 1;
    for (size_t e = 0; v->lists && e < n; e++)
        if (vector_null(v->item_valid, at + e))
            FAIL(INVALID, "column '%.*s'[%zu] is null in row %lld (from 0)", STR(s->column), e,
                 (long long)s->row + (long long)i);
    return stream_add(s, (const char *)v->data + at * size, n * size);
}

static err rows_add(struct stream *s, const struct vector *v, size_t rows)
{
    if (s->want != SCAN_TEXT && v->type != 'i' && v->type != 'l')
        FAIL(INVALID, "column '%.*s' holds numbers that are not whole, tokens are", STR(s->column));
    s->type = v->type == 'i' ? TENSOR_I32 : TENSOR_I64;
    for (size_t i = 0; i < rows; i++) {
        if (vector_null(v->valid, i))
            FAIL(INVALID, "column '%.*s' is null in row %lld (from 0)", STR(s->column),
                 (long long)s->row + (long long)i);
        TRY(s->want == SCAN_TEXT ? text_add(s, v, i) : ids_add(s, v, i));
    }
    s->row += (int64_t)rows;
    return NULL;
}

static err want_of(struct duck *d, struct str source, struct str column, enum scan_want *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct duck_columns have;
    enum column_type type;
    *out = SCAN_NUMBER;
    TRY(duck_describe(d, a, fmt(a, "SELECT * FROM %.*s", STR(source)), &have));
    for (size_t i = 0; i < have.n; i++)
        if (str_eq(have.v[i].name, column))
            *out = column_is_list(have.v[i].type)                             ? SCAN_NUMBERS
                   : column_type_of(have.v[i].type, &type) && type == COL_STR ? SCAN_TEXT
                                                                              : SCAN_NUMBER;
    return NULL;
}

static err stream_duck(struct loader *l, struct arena *a, struct duck **out)
{
    TRY(table_duck(l, a, out));
    return l->sources ? NULL : table_sources(l, *out);
}

err stream_is_text(struct loader *l, const struct loader_file *f, struct str column, bool *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct duck *d;
    enum scan_want want;
    TRY(stream_duck(l, a, &d));
    TRY(want_of(d, l->sources[f - l->files], column, &want));
    *out = want == SCAN_TEXT;
    return NULL;
}

static err stream_read(struct stream *s, struct duck *d, struct arena *a, struct str source)
{
    struct scan *scan;
    const struct vector *v;
    size_t n;
    TRY(want_of(d, source, s->column, &s->want));
    TRY(duck_scan(d, a, source, &(struct scan_column){ s->column, s->want }, 1, &scan));
    for (;;) {
        TRY(scan_next(scan, &v, &n));
        if (!n)
            return NULL;
        TRY(rows_add(s, v, n));
    }
}

err stream_load(struct loader *l, struct slot *slot, const struct loader_file *f, struct array *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct duck *d;
    struct stream s = { .l = l, .column = slot->in->columns.v[0] };
    TRY(stream_duck(l, a, &d));
    err e = stream_read(&s, d, a, l->sources[f - l->files]);
    if (!e && s.want == SCAN_TEXT)
        e = text_codes(l, slot, (struct str){ s.p, s.n }, out);
    if (e || s.want == SCAN_TEXT) {
        free(s.p);
        return e;
    }
    arena_defer(l->a, free, s.p);
    int64_t n = (int64_t)(s.n / tensor_size(s.type));
    *out = (struct array){ .type = s.type, .rank = 1, .d = { n }, .p = s.p, .n = n };
    return NULL;
}
