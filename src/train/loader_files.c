// SPDX-License-Identifier: Apache-2.0
#include "train/loader_internal.h"

#include <stdlib.h>

/* ---- one file → one array ---- */

err text_codes(struct loader *l, struct slot *s, struct str text, struct array *out)
{
    int64_t n = 0;
    uint16_t *to = malloc(text.n * sizeof *to + 1);
    if (!to)
        FAIL(TOO_LARGE, "there is no memory for %zu characters", text.n);
    arena_defer(l->a, free, to);
    for (size_t at = 0, len; at < text.n; at += len) {
        struct str rest = str_sub(text, at, text.n);
        len = str_utf8_len(rest);
        if (!len)
            FAIL(INVALID, "byte %zu is no UTF-8", at);
        uint32_t code = dict_code(&s->codes->dict, str_sub(rest, 0, len)) + 1;
        if (code > UINT16_MAX)
            FAIL(TOO_LARGE, "it has more than %d different characters", UINT16_MAX);
        to[n++] = (uint16_t)code;
    }
    *out = (struct array){ .type = TENSOR_U16, .rank = 1, .d = { n }, .p = to, .n = n };
    return NULL;
}

static err array_load(struct loader *l, struct slot *s, const struct loader_file *f, struct array *out)
{
    struct str bytes;
    if (f->format == FILE_PARQUET || f->format == FILE_CSV) {
        if (s->in->kind != KIND_TOKENS)
            FAIL(INVALID, "input '%.*s' is no stream of tokens, and a table that is one gives nothing else",
                 STR(s->in->name));
        return stream_load(l, s, f, out);
    }
    TRY(file_map(l->a, str_z(l->a, f->path), &bytes));
    if (bytes.n >= 2 && !memcmp(bytes.p, "\x1f\x8b", 2))
        TRY(gunzip(l->a, bytes, (size_t)l->spec.memory_max, &bytes));
    if (f->format == FILE_TEXT && s->in->kind != KIND_TOKENS)
        FAIL(INVALID, "it is text, input '%.*s' is no stream of tokens", STR(s->in->name));
    if (f->format == FILE_TEXT)
        return text_codes(l, s, bytes, out);
    return f->format == FILE_NPY ? array_npy(l->a, bytes, out) : array_idx(l->a, bytes, out);
}

/* ---- what the arrays of one input must be ---- */

static bool whole(enum tensor_type t)
{
    return t != TENSOR_F32 && t != TENSOR_F64;
}

static err shape_take(struct slot *s, const struct array *x)
{
    struct loader_tensor *t = s->tensor;
    int64_t given, n = 1;
    for (int i = 1; i < x->rank; i++)
        n *= x->d[i];
    t->rank = x->rank - 1;
    memcpy(t->shape, x->d + 1, sizeof *t->shape * 3);
    if (s->in->rank) {
        t->rank = s->in->rank;
        memcpy(t->shape, s->in->shape, sizeof t->shape);
        if (!tensor_count(t->shape, (size_t)t->rank, 1 << 26, &given) || given != n)
            FAIL(INVALID, "its rows have %lld numbers, input '%.*s' wants another shape", (long long)n,
                 STR(t->name));
    } else if (s->in->role == ROLE_INPUT && !t->rank) {
        t->rank = 1;
        t->shape[0] = 1;
    }
    if (n < 1 || n > 1 << 26)
        FAIL(INVALID, "its rows have %lld numbers", (long long)n);
    t->n = n;
    return NULL;
}

static err kind_take(struct loader *l, struct slot *s, const struct array *x)
{
    struct loader_tensor *t = s->tensor;
    struct gather *g = &s->gather;
    bool ids = s->in->kind == KIND_CLASS || s->in->kind == KIND_TOKENS || s->in->ids;
    if (ids && !whole(x->type))
        FAIL(INVALID, "it holds %s, ids and classes are whole numbers", tensor_onnx_name(x->type).p);
    t->type = ids && !s->in->floats ? TENSOR_I64 : TENSOR_F32;
    if (s->in->kind == KIND_TOKENS) {
        if (x->rank != 1)
            FAIL(INVALID, "it has %d dimensions, a stream has one", x->rank);
        t->rank = 1;
        t->n = t->shape[0] = s->in->length;
    } else {
        TRY(shape_take(s, x));
    }
    if (s->in->kind == KIND_CLASS && t->n != 1)
        FAIL(INVALID, "its rows have %lld numbers, a class is one", (long long)t->n);
    if (s->in->kind == KIND_CLASS || (s->in->role == ROLE_WEIGHT && t->n == 1))
        t->rank = 0;
    g->from = x->type;
    g->to = t->type;
    g->width = g->stride = (size_t)t->n;
    s->kept = g->width * tensor_size(x->type);
    g->each = (size_t)(t->each = s->in->kind == KIND_ARRAY && t->rank == 3 ? t->shape[1] * t->shape[2] : 1);
    if (!ids) {
        s->n_spreads = g->width / g->each;
        s->spreads = NEW_N(l->a, struct spread, s->n_spreads);
    }
    return NULL;
}

/* ---- files → segments of rows ---- */

/* A stretch of rows of one part; of streams, of windows. */
struct segment {
    uint32_t file;
    int64_t part; /* LOADER_PARTS: each row's own */
    int64_t rows, first;
    int64_t at; /* element that its first row begins at */
};
struct segments {
    VEC(struct segment) list;
    int64_t rows;
};
/* The arrays of one column's files, in order. */
struct held {
    struct array *arrays;
    uint32_t *files;
    size_t n;
};

static bool file_is_of(const struct loader_file *f, struct str column)
{
    return !f->column.n || str_eq(f->column, column);
}

static err held_load(struct loader *l, struct slot *s, struct held *h)
{
    h->arrays = NEW_N(l->a, struct array, l->spec.n_files);
    h->files = NEW_N(l->a, uint32_t, l->spec.n_files);
    for (uint32_t f = 0; f < l->spec.n_files; f++) {
        if (!file_is_of(&l->files[f], s->in->columns.v[0]))
            continue;
        struct array *x = &h->arrays[h->n];
        TRY_AS(array_load(l, s, &l->files[f], x), "reading '%.*s'", STR(l->files[f].path));
        if (h->n && x->type != h->arrays[0].type)
            FAIL(INVALID, "'%.*s' holds %s, '%.*s' %s", STR(l->files[f].path), tensor_onnx_name(x->type).p,
                 STR(l->files[h->files[0]].path), tensor_onnx_name(h->arrays[0].type).p);
        for (int i = 1; h->n && s->in->kind != KIND_TOKENS && i < 4; i++)
            if (x->d[i] != h->arrays[0].d[i] || x->rank != h->arrays[0].rank)
                FAIL(INVALID, "'%.*s' has rows of another shape than '%.*s'", STR(l->files[f].path),
                     STR(l->files[h->files[0]].path));
        h->files[h->n++] = f;
    }
    if (!h->n)
        FAIL(INVALID, "input '%.*s': no file is column '%.*s'", STR(s->in->name), STR(s->in->columns.v[0]));
    return kind_take(l, s, &h->arrays[0]);
}

static void segment_add(struct arena *a, struct segments *to, uint32_t file, int64_t part, int64_t rows,
                        int64_t at)
{
    if (rows <= 0)
        return;
    push(a, &to->list, (struct segment){ file, part, rows, to->rows, at });
    to->rows += rows;
}

/* A stream's shares lie behind each other; no window reaches over their borders. */
static void stream_cut(struct loader *l, struct segments *to, uint32_t file, int64_t n, int64_t length)
{
    const struct loader_split *p = &l->spec.split;
    enum loader_part whole_part = l->files[file].part;
    if (whole_part != LOADER_TRAIN) {
        segment_add(l->a, to, file, whole_part, (n - 1) / length, 0);
        return;
    }
    int64_t test = (int64_t)((double)n * (1 - p->test)),
            valid = (int64_t)((double)n * (1 - p->test - p->valid));
    segment_add(l->a, to, file, LOADER_TRAIN, (valid - 1) / length, 0);
    segment_add(l->a, to, file, LOADER_VALID, (test - valid - 1) / length, valid);
    segment_add(l->a, to, file, LOADER_TEST, (n - test - 1) / length, test);
}

static void segments_make(struct loader *l, const struct slot *s, const struct held *h, struct segments *out)
{
    *out = (struct segments){ 0 };
    for (size_t i = 0; i < h->n; i++) {
        enum loader_part part = l->files[h->files[i]].part;
        if (s->in->kind == KIND_TOKENS)
            stream_cut(l, out, h->files[i], h->arrays[i].d[0], s->in->length);
        else
            segment_add(l->a, out, h->files[i], part == LOADER_TRAIN ? LOADER_PARTS : (int64_t)part,
                        h->arrays[i].d[0], 0);
    }
}

/* Each column has the rows of the first one, file by file. */
static err segments_same(const struct loader *l, const struct slot *s, const struct segments *x,
                         const struct segments *first)
{
    for (size_t i = 0; i < x->list.n || i < first->list.n; i++) {
        if (i >= x->list.n || i >= first->list.n)
            FAIL(INVALID, "column '%.*s' has %zu files with rows, '%.*s' has %zu", STR(s->in->columns.v[0]),
                 x->list.n, STR(l->slots[0].in->columns.v[0]), first->list.n);
        const struct segment *a = &x->list.v[i], *b = &first->list.v[i];
        if (a->rows != b->rows || a->part != b->part)
            FAIL(INVALID, "'%.*s' has %lld rows%s, '%.*s' has %lld", STR(l->files[a->file].path),
                 (long long)a->rows, a->part != b->part ? " of another part" : "",
                 STR(l->files[b->file].path), (long long)b->rows);
    }
    return NULL;
}

static const struct array *held_of(const struct held *h, uint32_t file)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->files[i] == file)
            return &h->arrays[i];
    return NULL;
}

static void parts_show(struct loader *l, struct slot *s, const struct held *h, const struct segments *x)
{
    struct gather_part *parts = NEW_N(l->a, struct gather_part, x->list.n + 1);
    size_t size = tensor_size(s->gather.from);
    bool next = s->in->kind == KIND_TOKENS && s->in->role == ROLE_LABEL;
    for (size_t i = 0; i < x->list.n; i++) {
        const struct segment *g = &x->list.v[i];
        const char *p = held_of(h, g->file)->p;
        parts[i] = (struct gather_part){ p + ((size_t)g->at + next) * size, (size_t)g->first,
                                         (size_t)g->rows };
    }
    s->gather.parts = parts;
    s->gather.n_parts = x->list.n;
}

/* ---- rows → parts ---- */

static err rows_part(struct loader *l, const struct segments *x)
{
    for (int pass = 0; pass < 2; pass++) {
        size_t at[LOADER_PARTS] = { 0 };
        for (size_t i = 0; i < x->list.n; i++) {
            const struct segment *g = &x->list.v[i];
            for (int64_t r = g->first; r < g->first + g->rows; r++) {
                int p = g->part < LOADER_PARTS ? (int)g->part : (int)part_of_row(&l->spec.split, r, NULL);
                if (pass)
                    l->rows[p][at[p]] = (uint32_t)r;
                at[p]++;
            }
        }
        for (int p = 0; !pass && p < LOADER_PARTS; p++) {
            l->facts.rows[p] = (int64_t)at[p];
            if (!(l->rows[p] = malloc(at[p] * sizeof(uint32_t) + 1)))
                FAIL(TOO_LARGE, "there is no memory for %zu rows", at[p]);
        }
    }
    return NULL;
}

/* ---- looking at the numbers ---- */

static int64_t whole_at(const struct array *x, int64_t i)
{
    switch (x->type) {
    case TENSOR_U8:
    case TENSOR_BOOL:
        return ((const uint8_t *)x->p)[i];
    case TENSOR_I8:
        return ((const int8_t *)x->p)[i];
    case TENSOR_U16:
        return ((const uint16_t *)x->p)[i];
    case TENSOR_I16:
        return ((const int16_t *)x->p)[i];
    case TENSOR_U32:
        return ((const uint32_t *)x->p)[i];
    case TENSOR_I32:
        return ((const int32_t *)x->p)[i];
    default:
        return ((const int64_t *)x->p)[i];
    }
}

static err whole_check(struct loader *l, struct slot *s, const struct held *h)
{
    int64_t max = s->in->classes ? s->in->classes : s->in->kind == KIND_CLASS ? CLASSES_MAX : INT32_MAX;
    for (size_t i = 0; i < h->n; i++) {
        const struct array *x = &h->arrays[i];
        for (int64_t e = 0; e < x->n; e++) {
            int64_t v = whole_at(x, e);
            if (v < 0 || v >= max)
                FAIL(INVALID,
                     "column '%.*s' is %lld in row %lld (from 0) of '%.*s': it must be from 0 to %lld",
                     STR(s->in->columns.v[0]), (long long)v,
                     (long long)(s->in->kind == KIND_TOKENS ? e : e / s->tensor->n),
                     STR(l->files[h->files[i]].path), (long long)max - 1);
            if (v > s->most) {
                s->most = v;
                s->most_at = (struct place){ h->files[i], e };
            }
        }
    }
    return NULL;
}

/* Rows of each class in training. */
static void class_counts(struct loader *l, struct slot *s)
{
    struct gather g = s->gather;
    g.to = TENSOR_I64;
    for (int64_t i = 0; i < l->facts.rows[LOADER_TRAIN]; i++) {
        int64_t v;
        gather_rows(&g, NULL, l->rows[LOADER_TRAIN][i], 1, &v);
        while (s->counts.n <= (size_t)v)
            push(l->a, &s->counts, 0);
        s->counts.v[v]++;
    }
}

static err floats_check(struct loader *l, struct slot *s, const struct held *h)
{
    for (size_t i = 0; !whole(s->gather.from) && i < h->n; i++) {
        const struct array *x = &h->arrays[i];
        for (int64_t e = 0; e < x->n; e++) {
            double v = x->type == TENSOR_F32 ? (double)((const float *)x->p)[e] : ((const double *)x->p)[e];
            if (!(fabs(v) <= 3.4028234663852886e38))
                FAIL(INVALID, "column '%.*s'[%lld] is %s in row %lld (from 0) of '%.*s'",
                     STR(s->in->columns.v[0]), (long long)(e % s->tensor->n),
                     isnan(v) ? "NaN" : "infinite or too large", (long long)(e / s->tensor->n),
                     STR(l->files[h->files[i]].path));
            if (s->in->role == ROLE_WEIGHT && v < 0)
                FAIL(INVALID, "weight '%.*s' is %g in row %lld (from 0) of '%.*s'", STR(s->in->columns.v[0]),
                     v, (long long)e, STR(l->files[h->files[i]].path));
        }
    }
    return NULL;
}

static void floats_spread(struct loader *l, struct slot *s)
{
    auto_arena struct arena *a = arena_new(0);
    struct gather g = s->gather;
    size_t width = g.width, n = (size_t)l->facts.rows[LOADER_TRAIN], step = ((size_t)1 << 18) / width;
    step = step < 1 ? 1 : step > CHUNK ? CHUNK : step;
    float *rows = NEW_N(a, float, step *width), *column = NEW_N(a, float, step);
    if (s->in->normalise != NORM_STANDARD && s->in->normalise != NORM_MINMAX && s->in->role != ROLE_LABEL)
        return;
    for (size_t at = 0; at < n; at += step) {
        size_t m = n - at < step ? n - at : step;
        gather_rows(&g, l->rows[LOADER_TRAIN] + at, 0, m, rows);
        for (size_t c = 0; c < s->n_spreads; c++) {
            for (size_t r = 0; g.each > 1 && r < m; r++)
                spread_add(&s->spreads[c], rows + r * width + c * g.each, g.each);
            for (size_t r = 0; g.each == 1 && r < m; r++)
                column[r] = rows[r * width + c];
            if (g.each == 1)
                spread_add(&s->spreads[c], column, m);
        }
    }
}

/* Characters in order get the ids from 1; those that training does not have are 0. */
static err characters_rank(struct loader *l, struct slot *s, const struct held *h, const struct segments *x)
{
    struct codes *c = s->codes;
    int64_t n = (int64_t)c->dict.n + 1, *counts = NEW_N(l->a, int64_t, (size_t)n);
    for (size_t i = 0; i < x->list.n; i++) {
        const struct segment *g = &x->list.v[i];
        const uint16_t *p = (const uint16_t *)held_of(h, g->file)->p + g->at;
        for (int64_t e = 0; g->part == LOADER_TRAIN && e <= g->rows * s->in->length; e++)
            counts[p[e]]++;
    }
    c->counts.v = counts;
    c->counts.n = (size_t)n;
    return NULL;
}

static void characters_replace(const struct slot *s, const struct held *h)
{
    for (size_t i = 0; i < h->n; i++) {
        uint16_t *p = (uint16_t *)h->arrays[i].p;
        for (int64_t e = 0; e < h->arrays[i].n; e++)
            p[e] = (uint16_t)s->codes->table[p[e]];
    }
}

static err look(struct loader *l, struct slot *s, const struct held *h, const struct segments *x, bool again)
{
    if (s->codes)
        return again ? NULL : characters_rank(l, s, h, x);
    if (s->n_spreads) {
        TRY(floats_check(l, s, h));
        floats_spread(l, s);
        return NULL;
    }
    TRY(whole_check(l, s, h));
    if (s->in->kind == KIND_CLASS)
        class_counts(l, s);
    return NULL;
}

/* ---- opening ---- */

static err is_text(struct loader *l, struct str column, bool *out)
{
    *out = false;
    for (size_t f = 0; !*out && f < l->spec.n_files; f++) {
        enum loader_format format = l->files[f].format;
        if (!file_is_of(&l->files[f], column))
            continue;
        if (format == FILE_PARQUET || format == FILE_CSV)
            TRY_AS(stream_is_text(l, &l->files[f], column, out), "reading '%.*s'", STR(l->files[f].path));
        else
            *out = format == FILE_TEXT;
    }
    return NULL;
}

/* Columns that several inputs name (a stream is input and label) are held once. */
static err slot_hold(struct loader *l, size_t i, struct held *held, bool *again)
{
    struct slot *s = &l->slots[i];
    for (size_t k = 0; k < i; k++)
        if (str_eq(l->slots[k].in->columns.v[0], s->in->columns.v[0]) &&
            l->slots[k].in->kind == s->in->kind) {
            held[i] = held[k];
            s->codes = l->slots[k].codes;
            *again = true;
            return kind_take(l, s, &held[i].arrays[0]);
        }
    bool text = false;
    if (s->in->kind == KIND_TOKENS)
        TRY(is_text(l, s->in->columns.v[0], &text));
    if (text) {
        s->codes = NEW(l->a, struct codes);
        s->codes->dict.a = l->a;
    }
    *again = false;
    return held_load(l, s, &held[i]);
}

err files_open(struct loader *l)
{
    struct held held[LOADER_TENSORS_MAX] = { 0 };
    struct segments first = { 0 }, own;
    bool again[LOADER_TENSORS_MAX];
    l->facts.kept = true;
    for (size_t i = 0; i < l->n; i++) {
        struct slot *s = &l->slots[i];
        TRY(slot_hold(l, i, held, &again[i]));
        segments_make(l, s, &held[i], &own);
        if (i)
            TRY(segments_same(l, s, &own, &first));
        else
            first = own;
        if (own.rows > UINT32_MAX)
            FAIL(TOO_LARGE, "%lld rows", (long long)own.rows);
        parts_show(l, s, &held[i], &own);
        for (size_t k = 0; !again[i] && k < held[i].n; k++)
            l->facts.bytes += held[i].arrays[k].n * (int64_t)tensor_size(held[i].arrays[k].type);
    }
    TRY(rows_part(l, &first));
    TRY(parts_check(l));
    for (size_t i = 0; i < l->n; i++)
        TRY(look(l, &l->slots[i], &held[i], &first, again[i]));
    TRY(statistics_make(l));
    for (size_t i = 0; i < l->n; i++) {
        if (l->slots[i].codes && !again[i])
            characters_replace(&l->slots[i], &held[i]);
        l->kept.gather[i] = l->slots[i].gather;
    }
    l->kept.rows = (size_t)first.rows;
    return NULL;
}
