// SPDX-License-Identifier: Apache-2.0
#include "train/loader_internal.h"

#include <stdlib.h>
#include <sys/mman.h>

/* ---- kept rows ---- */

/* Rows are read in random order: large pages save most of the walks through the page table. */
static void pages_large(char *p, size_t n)
{
    enum { LARGE = 2 << 20 };
    char *from = p + (-(uintptr_t)p & (LARGE - 1));
    if (n >= 2 * LARGE)
        madvise(from, n - (size_t)(from - p), MADV_HUGEPAGE); /* a wish: nothing depends on it */
}

err store_room(const struct loader *l, struct store *s, size_t rows)
{
    if (rows <= s->cap)
        return NULL;
    int64_t row = 0, all;
    for (size_t i = 0; i < l->n; i++)
        row += (int64_t)l->slots[i].kept;
    if (rows > UINT32_MAX || __builtin_mul_overflow(row, (int64_t)rows, &all) ||
        (s == &l->kept && all > l->spec.memory_max))
        return err_hint(err_new(TOO_LARGE, "%zu rows of %lld bytes do not fit into %lld bytes of memory",
                                rows, (long long)row, (long long)l->spec.memory_max),
                        "give it more memory, or write it as Parquet, which is read piece by piece");
    for (size_t i = 0; i < l->n; i++) {
        char *p = realloc(s->data[i], rows * l->slots[i].kept + 1);
        if (!p)
            FAIL(TOO_LARGE, "there is no memory for %zu rows of %lld bytes", rows, (long long)row);
        s->data[i] = p;
        pages_large(p, rows * l->slots[i].kept);
    }
    s->cap = rows;
    return NULL;
}

/* Room for so many more; grows by doubling, unless that is over the limit. */
static err store_more(const struct loader *l, struct store *s, size_t more)
{
    size_t need = s->rows + more;
    if (need <= s->cap)
        return NULL;
    if (need < 2 * s->cap && !store_room(l, s, 2 * s->cap))
        return NULL;
    return store_room(l, s, need);
}

void store_show(const struct loader *l, struct store *s)
{
    for (size_t i = 0; i < l->n; i++) {
        s->part[i] = (struct gather_part){ s->data[i], 0, s->rows };
        s->gather[i] = l->slots[i].gather;
        s->gather[i].parts = &s->part[i];
        s->gather[i].n_parts = 1;
    }
}

void store_free(struct store *s)
{
    for (size_t i = 0; i < LOADER_TENSORS_MAX; i++)
        free(s->data[i]);
    *s = (struct store){ 0 };
}

/* ---- which part a row is of ---- */

enum loader_part part_of_row(const struct loader_split *s, int64_t row, const struct str *group)
{
    uint64_t state = s->seed ^ (group ? hash64(*group) : (uint64_t)row * 0x9e3779b97f4a7c15u);
    splitmix(&state);
    double u = (double)(splitmix(&state) >> 11) * 0x1p-53;
    return u < s->valid ? LOADER_VALID : u < s->valid + s->test ? LOADER_TEST : LOADER_TRAIN;
}

/* One chunk on its way from DuckDB to a store. */
struct taking {
    const struct loader *l;
    struct loader *make; /* the same, while it is opened: statistics are made; NULL later */
    const struct vector *v;
    size_t n;
    struct place at; /* of its first row */
    int64_t first;   /* the same, of all files */
    uint8_t part[CHUNK];
    uint16_t row[CHUNK],
        train[CHUNK]; /* rows that are taken; of these, as places among them, those of training */
    size_t rows, trains;
    struct store *to;
};

static int part_by_time(const struct loader *l, const struct vector *at, const struct vector *known, size_t i)
{
    const int64_t *t = at->data;
    if (vector_null(at->valid, i) || t[i] >= l->facts.until)
        return PART_UNKNOWN;
    if (t[i] >= l->facts.split)
        return LOADER_VALID;
    if (known && (vector_null(known->valid, i) || ((const int64_t *)known->data)[i] >= l->facts.split))
        return PART_UNKNOWN;
    return LOADER_TRAIN;
}

static void parts_find(struct taking *t)
{
    const struct loader *l = t->l;
    enum loader_part whole = l->files[t->at.file].part;
    const struct vector *known = l->known == SIZE_MAX ? NULL : &t->v[l->known];
    for (size_t i = 0; i < t->n; i++) {
        struct str group;
        if (whole != LOADER_TRAIN) {
            t->part[i] = (uint8_t)whole;
        } else if (l->at != SIZE_MAX) {
            t->part[i] = (uint8_t)part_by_time(l, &t->v[l->at], known, i);
        } else if (l->group != SIZE_MAX) {
            group = vector_null(t->v[l->group].valid, i) ? S("") : vector_text(&t->v[l->group], i);
            t->part[i] = (uint8_t)part_of_row(&l->spec.split, 0, &group);
        } else {
            t->part[i] = (uint8_t)part_of_row(&l->spec.split, t->first + (int64_t)i, NULL);
        }
    }
}

/* ---- numbers ---- */

static inline bool bad(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000) == 0x7f800000;
}

static void floats_of(const struct vector *v, size_t n, float *x)
{
    if (v->type == 'f')
        memcpy(x, v->data, n * sizeof *x);
    else if (v->type == 'd')
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((const double *)v->data)[i];
    else if (v->type == 'i')
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((const int32_t *)v->data)[i];
    else
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((const int64_t *)v->data)[i];
    for (size_t i = 0; v->valid && i < n; i++)
        if (vector_null(v->valid, i))
            x[i] = NAN;
}

static bool any_bad(const float *x, size_t n)
{
    uint32_t found = 0, bits;
    for (size_t i = 0; i < n; i++) {
        memcpy(&bits, &x[i], 4);
        found |= (bits & 0x7f800000) == 0x7f800000;
    }
    return found;
}

static struct str row_text(struct arena *a, const struct taking *t, size_t i)
{
    return fmt(a, "row %lld (from 0)", (long long)t->at.row + (long long)i);
}

static err bad_fail(const struct taking *t, const struct slot *s, struct str column, const struct vector *v,
                    size_t i, float x)
{
    auto_arena struct arena *a = arena_new(0);
    const char *what = vector_null(v->valid, i) ? "null" : isnan(x) ? "NaN" : "infinite or too large";
    err e = err_new(INVALID, "column '%.*s' is %s in %.*s", STR(column), what, STR(row_text(a, t, i)));
    if (isinf(x))
        return err_hint(e, "'missing: skip' of the input '%.*s' would leave the row out", STR(s->in->name));
    return err_hint(e, "a policy for missing values of '%.*s' would fill it or skip the row",
                    STR(s->in->name));
}

static float *train_floats(const struct taking *t, const float *x, float *tmp)
{
    if (t->trains == t->n)
        return (float *)x;
    for (size_t k = 0; k < t->trains; k++)
        tmp[k] = x[t->row[t->train[k]]];
    return tmp;
}

static err numbers_take(struct taking *t, struct slot *s)
{
    float x[CHUNK], tmp[CHUNK];
    size_t width = s->in->columns.n;
    float *to = (float *)t->to->data[s - t->l->slots] + t->to->rows * width;
    for (size_t c = 0; c < width; c++) {
        const struct vector *v = &t->v[s->column + c];
        floats_of(v, t->n, x);
        if (any_bad(x, t->n) || s->in->role == ROLE_WEIGHT)
            for (size_t k = 0; k < t->rows; k++) {
                size_t i = t->row[k];
                /* What is infinite is not missing: nothing is filled in for it. */
                if (bad(x[i]) && (s->in->missing == MISSING_ERROR || !isnan(x[i])))
                    return bad_fail(t, s, s->in->columns.v[c], v, i, x[i]);
                if (s->in->role == ROLE_WEIGHT && x[i] < 0) {
                    auto_arena struct arena *a = arena_new(0);
                    FAIL(INVALID, "weight '%.*s' is %g in %.*s", STR(s->in->columns.v[c]), (double)x[i],
                         STR(row_text(a, t, i)));
                }
            }
        if (t->make && s->spreads)
            spread_add(&s->spreads[c], train_floats(t, x, tmp), t->trains);
        if (t->rows == t->n)
            for (size_t k = 0; k < t->n; k++)
                to[k * width + c] = x[k];
        else
            for (size_t k = 0; k < t->rows; k++)
                to[k * width + c] = x[t->row[k]];
    }
    return NULL;
}

/* ---- texts ---- */

static err code_count(struct codes *c, struct arena *a, uint32_t code, bool train, struct place at)
{
    while (c->counts.n <= code) {
        push(a, &c->counts, 0);
        push(a, &c->first, at);
    }
    c->counts.v[code] += train;
    return NULL;
}

/* Texts as codes; 0 for null, and for an empty category, which a client who has none gives. While it is opened new texts get a code; later they all have one. */
static err codes_take(struct taking *t, struct slot *s, struct codes *c, const struct vector *v,
                      struct str name, uint32_t *to, size_t stride)
{
    struct str last = { 0 };
    uint32_t code = 0;
    auto_arena struct arena *a = arena_new(0);
    for (size_t k = 0; k < t->rows; k++) {
        size_t i = t->row[k];
        struct place at = { t->at.file, t->at.row + (int64_t)i };
        struct str text = vector_null(v->valid, i) ? S("") : vector_text(v, i);
        if (vector_null(v->valid, i) && s->in->kind == KIND_CLASS)
            return bad_fail(t, s, name, v, i, NAN);
        if (!text.n && s->in->kind != KIND_CLASS) {
            to[k * stride] = 0;
            if (t->make)
                TRY(code_count(c, t->make->a, 0, t->part[i] == LOADER_TRAIN, at));
            continue;
        }
        if (!last.p || !str_eq(text, last)) {
            uint32_t number;
            if (t->make)
                number = dict_code(&c->dict, text);
            else if (!dict_find(&c->dict, text, &number))
                FAIL(CONFLICT, "'%.*s' changed while it was read: a new text in column '%.*s'",
                     STR(t->l->files[at.file].path), STR(name));
            if (number >= VALUES_MAX)
                FAIL(TOO_LARGE, "column '%.*s' has more than %d different values", STR(name), VALUES_MAX);
            code = number + 1;
            last = text;
        }
        to[k * stride] = code;
        if (t->make)
            TRY(code_count(c, t->make->a, code, t->part[i] == LOADER_TRAIN, at));
    }
    return NULL;
}

static err categories_take(struct taking *t, struct slot *s)
{
    size_t width = s->in->columns.n;
    uint32_t *to = (uint32_t *)t->to->data[s - t->l->slots] + t->to->rows * width;
    for (size_t c = 0; c < width; c++)
        TRY(codes_take(t, s, &s->codes[c], &t->v[s->column + c], s->in->columns.v[c], to + c, width));
    return NULL;
}

/* ---- classes ---- */

static double number_at(const struct vector *v, size_t i)
{
    if (vector_null(v->valid, i))
        return NAN;
    return v->type == 'f'   ? (double)((const float *)v->data)[i]
           : v->type == 'd' ? ((const double *)v->data)[i]
           : v->type == 'i' ? ((const int32_t *)v->data)[i]
                            : (double)((const int64_t *)v->data)[i];
}

static err class_fail(const struct taking *t, const struct slot *s, size_t i, double x)
{
    auto_arena struct arena *a = arena_new(0);
    int64_t most = s->in->classes ? s->in->classes : CLASSES_MAX;
    return err_hint(err_new(INVALID,
                            "label '%.*s' is %.17g in %.*s: a class is a whole number from 0 to %lld",
                            STR(s->in->columns.v[0]), x, STR(row_text(a, t, i)), (long long)most - 1),
                    "to learn numbers: task: regression");
}

static err classes_take(struct taking *t, struct slot *s)
{
    const struct vector *v = &t->v[s->column];
    int32_t *to = (int32_t *)t->to->data[s - t->l->slots] + t->to->rows;
    double most = s->in->classes ? (double)s->in->classes : CLASSES_MAX;
    if (s->text)
        return codes_take(t, s, s->codes, v, s->in->columns.v[0], (uint32_t *)to, 1);
    for (size_t k = 0; k < t->rows; k++) {
        size_t i = t->row[k];
        double x = number_at(v, i);
        if (isnan(x))
            return bad_fail(t, s, s->in->columns.v[0], v, i, (float)x);
        if (!(x >= 0 && x < most && x == floor(x)))
            return class_fail(t, s, i, x);
        to[k] = (int32_t)x;
        if (!t->make)
            continue;
        if (to[k] > s->most) {
            s->most = to[k];
            s->most_at = (struct place){ t->at.file, t->at.row + (int64_t)i };
        }
        while (t->part[i] == LOADER_TRAIN && s->counts.n <= (size_t)to[k])
            push(t->make->a, &s->counts, 0);
        if (t->part[i] == LOADER_TRAIN)
            s->counts.v[to[k]]++;
    }
    return NULL;
}

/* ---- arrays ---- */

static void array_spread(struct slot *s, const struct taking *t, const float *rows)
{
    size_t width = s->gather.width, each = (size_t)s->tensor->each;
    float tmp[CHUNK];
    for (size_t m = 0; m < s->n_spreads; m++)
        if (each > 1) {
            for (size_t k = 0; k < t->trains; k++)
                spread_add(&s->spreads[m], rows + t->train[k] * width + m * each, each);
        } else {
            for (size_t k = 0; k < t->trains; k++)
                tmp[k] = rows[t->train[k] * width + m];
            spread_add(&s->spreads[m], tmp, t->trains);
        }
}

static err list_check(const struct taking *t, const struct slot *s, const struct vector *v, size_t i)
{
    auto_arena struct arena *a = arena_new(0);
    struct str name = s->in->columns.v[0];
    if (vector_null(v->valid, i))
        FAIL(INVALID, "column '%.*s' is null in %.*s", STR(name), STR(row_text(a, t, i)));
    if (v->lists[i].n != s->gather.width)
        FAIL(INVALID, "column '%.*s' has %llu values in %.*s, not %zu", STR(name),
             (unsigned long long)v->lists[i].n, STR(row_text(a, t, i)), s->gather.width);
    for (size_t e = 0; e < v->lists[i].n; e++) {
        size_t at = v->lists[i].at + e;
        double x = vector_null(v->item_valid, at) ? NAN
                   : v->type == 'f'               ? (double)((const float *)v->data)[at]
                   : v->type == 'd'               ? ((const double *)v->data)[at]
                   : v->type == 'i'               ? ((const int32_t *)v->data)[at]
                                                  : (double)((const int64_t *)v->data)[at];
        if (!(fabs(x) <= 3.4028234663852886e38))
            FAIL(INVALID, "column '%.*s'[%zu] is %s in %.*s", STR(name), e,
                 vector_null(v->item_valid, at) ? "null"
                 : isnan(x)                     ? "NaN"
                                                : "infinite or too large",
                 STR(row_text(a, t, i)));
        if (s->in->ids && (x < 0 || (s->in->classes && x >= (double)s->in->classes)))
            FAIL(INVALID, "column '%.*s'[%zu] is %.0f in %.*s: ids are from 0 to %lld", STR(name), e, x,
                 STR(row_text(a, t, i)), (long long)(s->in->classes ? s->in->classes - 1 : INT32_MAX));
    }
    return NULL;
}

static void list_copy(const struct vector *v, uint64_t at, size_t n, bool ids, char *to)
{
    for (size_t e = 0; e < n; e++) {
        if (ids)
            ((int64_t *)to)[e] = v->type == 'i' ? ((const int32_t *)v->data)[at + e]
                                                : ((const int64_t *)v->data)[at + e];
        else
            ((float *)to)[e] = v->type == 'f'   ? ((const float *)v->data)[at + e]
                               : v->type == 'd' ? (float)((const double *)v->data)[at + e]
                               : v->type == 'i' ? (float)((const int32_t *)v->data)[at + e]
                                                : (float)((const int64_t *)v->data)[at + e];
    }
}

static err arrays_take(struct taking *t, struct slot *s)
{
    const struct vector *v = &t->v[s->column];
    char *to = t->to->data[s - t->l->slots] + t->to->rows * s->kept;
    if (s->in->ids && (v->type == 'f' || v->type == 'd'))
        FAIL(INVALID, "column '%.*s' is no list of whole numbers, ids are", STR(s->in->columns.v[0]));
    for (size_t k = 0; k < t->rows; k++) {
        TRY(list_check(t, s, v, t->row[k]));
        list_copy(v, v->lists[t->row[k]].at, s->gather.width, s->in->ids, to + k * s->kept);
        for (size_t e = 0; t->make && s->in->ids && e < s->gather.width; e++)
            if (((int64_t *)(to + k * s->kept))[e] > s->most)
                s->most = ((int64_t *)(to + k * s->kept))[e];
    }
    if (t->make && s->spreads)
        array_spread(s, t, (const float *)to);
    return NULL;
}

/* ---- a chunk ---- */

/* Rows with a missing value where the policy is to leave such rows out. */
static void rows_skip(struct taking *t)
{
    float x[CHUNK];
    for (size_t s = 0; s < t->l->n; s++) {
        const struct slot *slot = &t->l->slots[s];
        for (size_t c = 0; slot->in->missing == MISSING_SKIP && c < slot->in->columns.n; c++) {
            const struct vector *v = &t->v[slot->column + c];
            if (slot->in->kind == KIND_NUMBERS || (slot->in->kind == KIND_CLASS && !slot->text))
                floats_of(v, t->n, x);
            else
                memset(x, 0, sizeof x);
            for (size_t i = 0; i < t->n; i++)
                if (t->part[i] < LOADER_PARTS && (vector_null(v->valid, i) || bad(x[i])))
                    t->part[i] = PART_NONE;
        }
    }
}

static err slot_take(struct taking *t, struct slot *s)
{
    switch (s->in->kind) {
    case KIND_NUMBERS:
        return numbers_take(t, s);
    case KIND_CATEGORIES:
        return categories_take(t, s);
    case KIND_CLASS:
        return classes_take(t, s);
    default:
        return arrays_take(t, s);
    }
}

static void rows_count(struct taking *t, struct block *blocks)
{
    struct loader_facts *f = &t->make->facts;
    const int64_t *at = t->l->at == SIZE_MAX ? NULL : t->v[t->l->at].data;
    struct block *b = blocks;
    for (size_t i = 0; i < t->n; i++) {
        while (b->rows >= 0 && t->at.row + (int64_t)i >= b->row + b->rows)
            b++;
        if (t->part[i] < LOADER_PARTS) {
            f->rows[t->part[i]]++;
            b->part[t->part[i]]++;
        } else {
            f->skipped += t->part[i] == PART_NONE;
            f->unknown += t->part[i] == PART_UNKNOWN;
        }
        if (at && t->part[i] == LOADER_TRAIN && at[i] < f->from)
            f->from = at[i];
    }
}

/* part: the one that is taken, or LOADER_PARTS for all. */
static err chunk_take(struct taking *t, int part)
{
    parts_find(t);
    rows_skip(t);
    t->rows = t->trains = 0;
    for (size_t i = 0; i < t->n; i++)
        if (part == LOADER_PARTS ? t->part[i] < LOADER_PARTS : t->part[i] == part) {
            if (t->part[i] == LOADER_TRAIN)
                t->train[t->trains++] = (uint16_t)t->rows;
            t->row[t->rows++] = (uint16_t)i;
        }
    TRY(store_more(t->l, t->to, t->rows));
    for (size_t s = 0; s < t->l->n; s++)
        TRY(slot_take(t, &t->l->slots[s]));
    t->to->rows += t->rows;
    return NULL;
}

/* ---- reading ---- */

err table_duck(const struct loader *l, struct arena *a, struct duck **out)
{
    struct duck_config config = { .threads = l->spec.threads,
                                  .memory_bytes = (int64_t)1 << 40,
                                  .stop = l->spec.stop,
                                  .stop_arg = l->spec.stop_arg };
    for (size_t i = 0; i < l->spec.n_files; i++)
        push(a, &config.files, l->files[i].path);
    return duck_open(a, &config, out);
}

/* DuckDB would find out a CSV file's form anew in each statement, twice and more, which with many columns takes longer than all
 * else before the first step: it is asked once. A row for each column; before the column's name and type, read_csv's options
 * by name: NULL if it needs none, "(empty)" for an empty one. */
enum { CSV_OPTIONS = 9 };
#define CSV_FORM                                                                                               \
    "SELECT Delimiter AS delim, Quote AS quote, Escape AS escape, Comment AS comment, "                        \
    "NewLineDelimiter AS new_line, DateFormat AS dateformat, TimestampFormat AS timestampformat, "             \
    "CAST(SkipRows AS VARCHAR) AS skip, CAST(HasHeader AS VARCHAR) AS header, c.name AS name, c.type AS type " \
    "FROM (SELECT *, unnest(Columns) AS c FROM sniff_csv(%.*s%s))"

/* Whether what DuckDB looks at, its first buffer, has no quote, as tables of numbers have none. Then the forms with quotes need
 * not be tried, which is nine tenths of finding the form. What its name says is compressed is not looked into. */
static bool quoteless(struct str path)
{
    enum { BLOCK = 1 << 16, BLOCKS = 512 };
    auto_arena struct arena *a = arena_new(0);
    char *block = NEW_N(a, char, BLOCK);
    auto_fclose FILE *f = fopen(str_z(a, path), "rb");
    bool found = !f || str_ends(path, S(".gz")) || str_ends(path, S(".zst"));
    for (size_t i = 0, n = BLOCK; !found && n == BLOCK && i < BLOCKS; i++) {
        n = fread(block, 1, BLOCK, f);
        found = memchr(block, '"', n) || memchr(block, '\'', n);
    }
    return !found;
}

static err csv_sql(struct duck *d, struct arena *a, struct str path, struct str *out)
{
    struct columns form;
    struct buf b = buf_new(a);
    struct str file = sql_text(a, path);
    const bool plain = quoteless(path);
    TRY(duck_load(d, a, fmt(a, CSV_FORM, STR(file), plain ? ", quote=''" : ""), &form));
    if (!form.rows)
        FAIL(INVALID, "it has no columns");
    buf_fmt(&b, "read_csv(%.*s, auto_detect=false", STR(file));
    for (size_t i = 0; i < CSV_OPTIONS; i++) {
        const struct column *c = &form.v[i];
        struct str value = column_str(c, 0);
        /* Quotes may still come behind what was looked at: then they are the usual ones. */
        if (plain && (str_is(c->name, "quote") || str_is(c->name, "escape")))
            value = S("\"");
        else if (column_null(c, 0))
            continue;
        buf_fmt(&b, ", %.*s=%.*s", STR(c->name), STR(sql_text(a, str_is(value, "(empty)") ? S("") : value)));
    }
    for (size_t i = 0; i < form.rows; i++)
        buf_fmt(&b, "%s%.*s: %.*s", i ? ", " : ", columns={",
                STR(sql_text(a, column_str(&form.v[CSV_OPTIONS], i))),
                STR(sql_text(a, column_str(&form.v[CSV_OPTIONS + 1], i))));
    buf_str(&b, S("})"));
    *out = buf_get(&b);
    return NULL;
}

err table_sources(struct loader *l, struct duck *d)
{
    l->sources = NEW_N(l->a, struct str, l->spec.n_files);
    for (size_t i = 0; i < l->spec.n_files; i++) {
        const struct str *path = &l->files[i].path;
        if (l->files[i].format == FILE_PARQUET)
            l->sources[i] = sql_parquet(l->a, &(struct strs){ (struct str *)path, 1, 1 });
        else
            TRY_AS(csv_sql(d, l->a, *path, &l->sources[i]), "reading '%.*s'", STR(*path));
    }
    return NULL;
}

err table_block(const struct loader *l, struct duck *d, const struct block *b, enum loader_part part,
                struct store *to)
{
    auto_arena struct arena *a = arena_new(0);
    const struct loader_file *f = &l->files[b->file];
    struct scan *scan;
    struct taking *t = NEW(a, struct taking);
    *t = (struct taking){ .l = l, .at = { b->file, b->row }, .first = b->first, .to = to };
    struct str from = fmt(a, "(SELECT * FROM %.*s WHERE file_row_number BETWEEN %lld AND %lld)",
                          STR(l->sources[b->file]), (long long)b->row, (long long)(b->row + b->rows - 1));
    size_t before = to->rows;
    TRY(store_room(l, to, before + (size_t)b->part[part]));
    TRY_AS(duck_scan(d, a, from, l->columns.v, l->columns.n, &scan), "reading '%.*s'", STR(f->path));
    for (;;) {
        TRY_AS(scan_next(scan, &t->v, &t->n), "reading '%.*s'", STR(f->path));
        if (!t->n)
            break;
        TRY(chunk_take(t, part));
        t->at.row += (int64_t)t->n;
        t->first += (int64_t)t->n;
    }
    if (to->rows - before != (size_t)b->part[part])
        FAIL(CONFLICT, "'%.*s' changed while it was read", STR(f->path));
    store_show(l, to);
    return NULL;
}

/* The rows of a file, once: counted, looked at, and kept if they fit. */
static err file_take(struct loader *l, struct duck *d, uint32_t file, struct block *blocks, int64_t first,
                     uint8_t **parts, struct taking *t)
{
    auto_arena struct arena *a = arena_new(0);
    struct scan *scan;
    TRY(duck_scan(d, a, l->sources[file], l->columns.v, l->columns.n, &scan));
    t->at = (struct place){ file, 0 };
    t->first = first;
    for (;;) {
        TRY(scan_next(scan, &t->v, &t->n));
        if (!t->n)
            return NULL;
        if (t->n > CHUNK)
            FAIL(INTERNAL, "DuckDB gives %zu rows at once, %d are expected", t->n, CHUNK);
        if (!l->facts.kept)
            t->to->rows = 0;
        TRY(chunk_take(t, LOADER_PARTS));
        rows_count(t, blocks);
        if (l->facts.kept) {
            uint8_t *p = realloc(*parts, t->to->cap + 1);
            if (!p)
                FAIL(TOO_LARGE, "there is no memory for %zu rows", t->to->cap);
            *parts = p;
            for (size_t k = 0; k < t->rows; k++)
                p[t->to->rows - t->rows + k] = t->part[t->row[k]];
        }
        t->at.row += (int64_t)t->n;
        t->first += (int64_t)t->n;
    }
}

static err files_read(struct loader *l, struct duck *d, uint8_t **parts)
{
    auto_arena struct arena *a = arena_new(0);
    struct taking *t = NEW(a, struct taking);
    struct store scratch = { 0 };
    err e = NULL;
    *t = (struct taking){ .l = l, .make = l, .to = l->facts.kept ? &l->kept : &scratch };
    int64_t first = 0;
    size_t b = 0;
    for (uint32_t f = 0; !e && f < l->spec.n_files; f++) {
        e = file_take(l, d, f, l->blocks.v + b, first, parts, t);
        if (e)
            e = err_wrap(e, "reading '%.*s'", STR(l->files[f].path));
        first = t->first;
        while (b < l->blocks.n && l->blocks.v[b].file == f)
            b++;
    }
    store_free(&scratch);
    return e;
}

/* ---- what is to be read ---- */

static bool named(const struct loader *l, struct str name)
{
    const struct loader_split *p = &l->spec.split;
    if (str_eq(name, p->at) || str_eq(name, p->known) || str_eq(name, p->group))
        return true;
    for (size_t i = 0; i < l->spec.aside.n; i++)
        if (str_eq(name, l->spec.aside.v[i]))
            return true;
    for (size_t i = 0; i < l->n; i++)
        for (size_t c = 0; c < l->slots[i].in->columns.n; c++)
            if (str_eq(name, l->slots[i].in->columns.v[c]))
                return true;
    return false;
}

static bool type_is_number(struct str type)
{
    enum column_type t;
    return column_type_of(type, &t) && (t == COL_F64 || t == COL_I64 || t == COL_BOOL);
}

static bool has_rows(struct duck *d, struct str source)
{
    auto_arena struct arena *a = arena_new(0);
    struct columns one;
    return duck_load(d, a, fmt(a, "SELECT 1 FROM %.*s LIMIT 1", STR(source)), &one) || one.rows > 0;
}

/* A column of a CSV file in which all words are numbers, were it not for "inf" or "nan", would be left out as text unseen. */
static err words_check(const struct loader *l, struct duck *d, struct str column)
{
    enum { SEEN = 20480 }; /* rows by which DuckDB tells the types of a CSV file */
    auto_arena struct arena *a = arena_new(0);
    struct columns got;
    const struct str name = sql_name(a, column);
    TRY(duck_load(
        d, a,
        fmt(a,
            "SELECT row - 1 AS row, word FROM (SELECT row_number() OVER () AS row, %.*s AS word, "
            "count(word) OVER () AS words, count(TRY_CAST(word AS DOUBLE)) OVER () AS numbers FROM "
            "(FROM %.*s LIMIT %d)) WHERE words = numbers AND NOT isfinite(TRY_CAST(word AS DOUBLE)) "
            "ORDER BY row LIMIT 1",
            STR(name), STR(l->sources[0]), SEEN),
        &got));
    if (got.rows)
        return err_hint(
            err_new(INVALID, "column '%.*s' of '%.*s' is '%.*s' in row %lld (from 0), and numbers elsewhere",
                    STR(column), STR(l->files[0].path), STR(got.v[1].dict[got.v[1].code[0]]),
                    (long long)got.v[0].i[0]),
            "leave the field empty where the number is not known");
    return NULL;
}

static void slot_drop(struct loader *l, size_t i)
{
    size_t behind = --l->n - i;
    memmove(&l->slots[i], &l->slots[i + 1], behind * sizeof *l->slots);
    memmove(&l->tensors[i], &l->tensors[i + 1], behind * sizeof *l->tensors);
    for (; i < l->n; i++)
        l->slots[i].tensor = &l->tensors[i];
}

/* Columns of an input that names none: all numbers that nobody names. */
static err columns_rest(struct loader *l, struct duck *d, const struct duck_columns *have)
{
    bool done = false;
    for (size_t i = 0; i < l->n; i++) {
        struct loader_input *in = (struct loader_input *)l->slots[i].in;
        if (in->columns.n)
            continue;
        if (done)
            FAIL(INVALID, "two inputs name no columns: '%.*s' is the second", STR(in->name));
        struct strs rest = { 0 };
        for (size_t c = 0; c < have->n; c++)
            if (!named(l, have->v[c].name))
                push(l->a, type_is_number(have->v[c].type) ? &rest : &l->facts.left,
                     str_dup(l->a, have->v[c].name));
        for (size_t c = 0; c < l->facts.left.n && l->files[0].format == FILE_CSV; c++)
            TRY(words_check(l, d, l->facts.left.v[c]));
        if (!rest.n && !has_rows(d, l->sources[0])) /* a CSV file without rows does not even know its types */
            FAIL(INVALID, "there are no rows in '%.*s'", STR(l->files[0].path));
        if (!rest.n && in->or_none) {
            slot_drop(l, i);
            return NULL;
        }
        if (!rest.n) {
            struct str left = str_join(l->a, l->facts.left.v, l->facts.left.n, S(", "));
            err e = err_new(INVALID, "input '%.*s': there is no column of numbers left to learn from",
                            STR(in->name));
            return left.n
                       ? err_hint(e, "not of numbers: %.*s; networks take text by `data: {categories: […]}`",
                                  STR(left))
                       : err_hint(e, "the label and the form's other fields name all columns");
        }
        in->columns = l->slots[i].tensor->columns = rest;
        done = true;
    }
    return NULL;
}

static bool column_is(const struct duck_columns *have, struct str name, enum column_type type)
{
    enum column_type t;
    for (size_t i = 0; i < have->n; i++)
        if (str_eq(have->v[i].name, name))
            return column_type_of(have->v[i].type, &t) && t == type;
    return false;
}

static size_t column_want(struct loader *l, struct str name, enum scan_want want)
{
    if (!name.n)
        return SIZE_MAX;
    push(l->a, &l->columns, (struct scan_column){ name, want });
    return l->columns.n - 1;
}

static void columns_plan(struct loader *l, const struct duck_columns *have)
{
    for (size_t i = 0; i < l->n; i++) {
        struct slot *s = &l->slots[i];
        s->text = s->in->kind == KIND_CLASS && column_is(have, s->in->columns.v[0], COL_STR);
        enum scan_want want = s->in->kind == KIND_NUMBERS                 ? SCAN_NUMBER
                              : s->in->kind == KIND_ARRAY                 ? SCAN_NUMBERS
                              : s->in->kind == KIND_CATEGORIES || s->text ? SCAN_TEXT
                                                                          : SCAN_NUMBER;
        s->column = l->columns.n;
        bool *numeric = NEW_N(l->a, bool, s->in->columns.n + 1);
        for (size_t c = 0; c < s->in->columns.n; c++) {
            struct str name = s->in->columns.v[c];
            numeric[c] = column_is(have, name, COL_F64) || column_is(have, name, COL_I64);
            column_want(l, name, want);
        }
        s->tensor->numeric = numeric;
    }
    l->group = column_want(l, l->spec.split.group, SCAN_TEXT);
    l->at = column_want(l, l->spec.split.at, SCAN_TIME);
    l->known = column_want(l, l->spec.split.known, SCAN_TIME);
}

/* How long an array is where nobody says it: the first row's is. */
static err array_length(struct loader *l, struct duck *d, const struct slot *s, int64_t *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct scan *scan;
    const struct vector *v;
    size_t n;
    struct str from = fmt(a, "(SELECT * FROM %.*s LIMIT 1)", STR(l->sources[0]));
    TRY(duck_scan(d, a, from, &(struct scan_column){ s->in->columns.v[0], SCAN_NUMBERS }, 1, &scan));
    TRY(scan_next(scan, &v, &n));
    *out = n && !vector_null(v->valid, 0) ? (int64_t)v->lists[0].n : 1;
    if (*out < 1 || *out > 1 << 26)
        FAIL(INVALID, "column '%.*s' has %lld values in a row", STR(s->in->columns.v[0]), (long long)*out);
    return NULL;
}

static err array_shape(struct loader *l, struct duck *d, struct slot *s)
{
    struct loader_tensor *t = s->tensor;
    t->rank = s->in->rank;
    memcpy(t->shape, s->in->shape, sizeof t->shape);
    if (!t->rank) {
        t->rank = 1;
        TRY(array_length(l, d, s, &t->shape[0]));
    }
    if (!tensor_count(t->shape, (size_t)t->rank, 1 << 26, &t->n) || !t->n)
        FAIL(INVALID, "input '%.*s': its shape is empty or too large", STR(t->name));
    return NULL;
}

static err slot_plan(struct loader *l, struct duck *d, struct slot *s)
{
    struct loader_tensor *t = s->tensor;
    struct gather *g = &s->gather;
    t->type = s->in->kind == KIND_NUMBERS || (s->in->kind == KIND_ARRAY && !s->in->ids) || s->in->floats
                  ? TENSOR_F32
                  : TENSOR_I64;
    t->indicator = s->in->indicator;
    if (s->in->kind == KIND_ARRAY)
        TRY(array_shape(l, d, s));
    else if (s->in->kind == KIND_CLASS ||
             (s->in->role != ROLE_INPUT && s->in->columns.n == 1 && !t->indicator))
        t->n = 1;
    else {
        t->n = (int64_t)s->in->columns.n * (t->indicator ? 2 : 1);
        t->rank = 1;
        t->shape[0] = t->n;
    }
    g->width = g->stride = s->in->kind == KIND_ARRAY ? (size_t)t->n : s->in->columns.n;
    g->indicator = t->indicator;
    g->to = t->type;
    g->from = s->in->kind == KIND_NUMBERS             ? TENSOR_F32
              : s->in->kind == KIND_ARRAY             ? (s->in->ids ? TENSOR_I64 : TENSOR_F32)
              : s->in->kind == KIND_CLASS && !s->text ? TENSOR_I32
                                                      : TENSOR_U32;
    s->kept = g->width * tensor_size(g->from);
    g->each = (size_t)(t->each = s->in->kind == KIND_ARRAY && t->rank == 3 ? t->shape[1] * t->shape[2] : 1);
    if (t->type == TENSOR_F32 && s->in->kind != KIND_CLASS) {
        s->n_spreads = g->width / g->each;
        s->spreads = NEW_N(l->a, struct spread, s->n_spreads);
    }
    if (g->from == TENSOR_U32) {
        s->codes = NEW_N(l->a, struct codes, g->width);
        for (size_t c = 0; c < g->width; c++)
            s->codes[c].dict.a = l->a;
    }
    return NULL;
}

static err blocks_find(struct loader *l, struct duck *d, int64_t *rows)
{
    *rows = 0;
    for (uint32_t f = 0; f < l->spec.n_files; f++) {
        auto_arena struct arena *a = arena_new(0);
        struct columns groups;
        if (l->files[f].format == FILE_CSV) {
            push(l->a, &l->blocks, (struct block){ .file = f, .rows = -1 });
            *rows = -1;
            continue;
        }
        TRY_AS(
            duck_load(
                d, a,
                fmt(a,
                    "SELECT row_group_id, any_value(row_group_num_rows) AS n FROM parquet_metadata(%.*s) GROUP BY ALL ORDER BY ALL",
                    STR(sql_text(a, l->files[f].path))),
                &groups),
            "reading '%.*s'", STR(l->files[f].path));
        int64_t row = 0;
        for (size_t i = 0; i < groups.rows; i++) {
            int64_t n = groups.v[1].i[i];
            push(l->a, &l->blocks, (struct block){ .file = f, .row = row, .rows = n, .first = *rows + row });
            row += n;
        }
        if (*rows >= 0)
            *rows += row;
    }
    return NULL;
}

/* Just after the newest event of the files that are split. */
static err until_find(struct loader *l, struct duck *d)
{
    struct loader_facts *f = &l->facts;
    struct str at = l->spec.split.at;
    f->until = l->spec.split.until_us;
    f->split = INT64_MIN;
    for (uint32_t i = 0; f->until == 0 && i < l->spec.n_files; i++) {
        auto_arena struct arena *a = arena_new(0);
        struct scan *scan;
        const struct vector *v;
        size_t n;
        if (l->files[i].part != LOADER_TRAIN)
            continue;
        struct str name = sql_name(a, at);
        struct str from = fmt(a, "(SELECT max(%.*s) AS %.*s FROM %.*s)", STR(name), STR(name),
                              STR(l->sources[i]));
        TRY(duck_scan(d, a, from, &(struct scan_column){ at, SCAN_TIME }, 1, &scan));
        TRY(scan_next(scan, &v, &n));
        if (n && !vector_null(v->valid, 0) && *(const int64_t *)v->data >= f->split)
            f->split = *(const int64_t *)v->data + 1; /* held here while the greatest is sought */
    }
    if (f->until == 0 && f->split == INT64_MIN)
        FAIL(INVALID, "column '%.*s' has no time in any row", STR(at));
    if (f->until == 0)
        f->until = f->split;
    int64_t us;
    if (__builtin_mul_overflow(l->spec.split.holdout_ms, 1000, &us) ||
        __builtin_sub_overflow(f->until, us, &f->split))
        FAIL(INVALID, "the holdout is out of range");
    f->from = INT64_MAX;
    return NULL;
}

/* All rows if they fit, else windows of them. */
static err keep_decide(struct loader *l, int64_t rows)
{
    int64_t row = 0, all, most = 0;
    for (size_t i = 0; i < l->n; i++)
        row += (int64_t)l->slots[i].kept;
    if (rows < 0 ||
        (rows < UINT32_MAX && !__builtin_mul_overflow(rows, row + 8, &all) && all <= l->spec.memory_max)) {
        l->facts.kept = true;
        return rows > 0 ? store_room(l, &l->kept, (size_t)rows) : NULL;
    }
    for (size_t b = 0; b < l->blocks.n; b++)
        most = l->blocks.v[b].rows > most ? l->blocks.v[b].rows : most;
    int64_t fits = l->spec.memory_max / 2 / row;
    if (!l->spec.window_rows || l->spec.window_rows > fits)
        l->spec.window_rows = fits;
    if (most > fits)
        return err_hint(
            err_new(TOO_LARGE,
                    "a row group of %lld rows of %lld bytes does not fit into half of %lld bytes of memory",
                    (long long)most, (long long)row, (long long)l->spec.memory_max),
            "give it more memory, or write it with smaller row groups");
    l->facts.bytes = 2 * l->spec.window_rows * row;
    return NULL;
}

static err rows_list(struct loader *l, const uint8_t *parts)
{
    size_t at[LOADER_PARTS] = { 0 };
    for (int p = 0; p < LOADER_PARTS; p++)
        if (!(l->rows[p] = malloc(sizeof(uint32_t) * (size_t)l->facts.rows[p] + 1)))
            FAIL(TOO_LARGE, "there is no memory for %lld rows", (long long)l->facts.rows[p]);
    for (size_t i = 0; i < l->kept.rows; i++)
        l->rows[parts[i]][at[parts[i]]++] = (uint32_t)i;
    for (size_t i = 0; i < l->n; i++)
        l->facts.bytes += (int64_t)(l->kept.rows * l->slots[i].kept);
    return NULL;
}

static err table_read(struct loader *l, struct duck *d)
{
    uint8_t *parts = NULL;
    err e = files_read(l, d, &parts);
    if (!e && l->facts.kept)
        e = rows_list(l, parts);
    free(parts);
    TRY(e);
    if (l->at != SIZE_MAX && !l->facts.rows[LOADER_TRAIN])
        l->facts.from = l->facts.split;
    TRY(parts_check(l));
    TRY(statistics_make(l));
    store_show(l, &l->kept);
    return NULL;
}

err table_open(struct loader *l)
{
    auto_arena struct arena *a = arena_new(0);
    struct duck *d;
    struct duck_columns have;
    int64_t rows;
    TRY(table_duck(l, a, &d));
    TRY(table_sources(l, d));
    TRY_AS(duck_describe(d, a, fmt(a, "SELECT * FROM %.*s", STR(l->sources[0])), &have), "reading '%.*s'",
           STR(l->files[0].path));
    TRY(columns_rest(l, d, &have));
    columns_plan(l, &have);
    for (size_t i = 0; i < l->n; i++)
        TRY_AS(slot_plan(l, d, &l->slots[i]), "reading '%.*s'", STR(l->files[0].path));
    TRY(blocks_find(l, d, &rows));
    if (l->at != SIZE_MAX)
        TRY_AS(until_find(l, d), "reading '%.*s'", STR(l->files[0].path));
    TRY(keep_decide(l, rows));
    return table_read(l, d);
}
