// SPDX-License-Identifier: Apache-2.0
#include "train/loader_internal.h"

#include <float.h>
#include <stdlib.h>

/* ---- moments ---- */

static inline bool finite_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits & 0x7f800000) != 0x7f800000;
}

enum { LANES = 8 };

static double lanes_sum(const double *v)
{
    return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

/* A chunk by itself in two passes, in lanes that the compiler can make vectors of, then joined to what was there (Chan, Golub &
 * LeVeque 1979). */
void spread_add(struct spread *m, const float *x, size_t n)
{
    double sum[LANES] = { 0 }, counts[LANES] = { 0 }, squares[LANES] = { 0 };
    float low[LANES], high[LANES], min = INFINITY, max = -INFINITY;
    for (size_t k = 0; k < LANES; k++) {
        low[k] = INFINITY;
        high[k] = -INFINITY;
    }
    float tail[LANES];
    size_t whole = n / LANES * LANES;
    for (size_t k = 0; k < LANES; k++)
        tail[k] = whole + k < n ? x[whole + k] : NAN;
    for (size_t i = 0; i <= whole; i += LANES) {
        const float *at = i < whole ? x + i : tail;
        for (size_t k = 0; k < LANES; k++) {
            float v = at[k];
            bool ok = finite_bits(v);
            sum[k] += ok ? (double)v : 0;
            counts[k] += ok ? 1 : 0;
            low[k] = ok && v < low[k] ? v : low[k];
            high[k] = ok && v > high[k] ? v : high[k];
        }
    }
    double count = lanes_sum(counts);
    if (count == 0)
        return;
    double mean = lanes_sum(sum) / count;
    for (size_t i = 0; i <= whole; i += LANES) {
        const float *at = i < whole ? x + i : tail;
        for (size_t k = 0; k < LANES; k++) {
            double d = finite_bits(at[k]) ? (double)at[k] - mean : 0;
            squares[k] += d * d;
        }
    }
    for (size_t k = 0; k < LANES; k++) {
        min = low[k] < min ? low[k] : min;
        max = high[k] > max ? high[k] : max;
    }
    double m2 = lanes_sum(squares);
    if (m->n == 0) {
        *m = (struct spread){ count, mean, m2, (double)min, (double)max };
        return;
    }
    double all = m->n + count, delta = mean - m->mean;
    m->mean += delta * count / all;
    m->m2 += m2 + delta * delta * m->n * count / all;
    m->n = all;
    m->min = fmin(m->min, (double)min);
    m->max = fmax(m->max, (double)max);
}

/* ---- affine ---- */

static void affine_of(const struct slot *s, const struct spread *m, float *shift, float *scale, float *fill)
{
    double spread = 1, from = 0;
    if (s->in->normalise == NORM_STANDARD && m->n > 0) {
        from = m->mean;
        spread = sqrt(m->m2 / m->n);
        if (!(spread > 1e-12 * fabs(m->mean))) /* what is left of a constant is rounding */
            spread = 1;
    } else if (s->in->normalise == NORM_MINMAX && m->n > 0) {
        from = m->min;
        spread = m->max > m->min ? m->max - m->min : 1;
    } else if (s->in->normalise == NORM_IMAGE) {
        spread = 255;
    }
    *shift = (float)from;
    *scale = (float)(1 / spread);
    *fill = (float)(s->in->missing == MISSING_FILL ? s->in->fill : m->n > 0 ? m->mean : 0);
}

/* Several numbers have one deviation, so that a loss over them is one in their unit. */
static void label_describe(struct loader *l, struct slot *s)
{
    float *mean = NEW_N(l->a, float, s->n_spreads);
    double squares = 0, n = 0, most = 0;
    for (size_t i = 0; i < s->n_spreads; i++) {
        mean[i] = (float)s->spreads[i].mean;
        squares += s->spreads[i].m2;
        n += s->spreads[i].n;
        most = fmax(most, fabs(s->spreads[i].mean));
    }
    const double deviation = n > 0 ? sqrt(squares / n) : 0;
    s->tensor->mean = mean;
    s->tensor->deviation = deviation > fmax(1e-12 * most, FLT_MIN) ? (float)deviation : 1;
}

static void affine_make(struct loader *l, struct slot *s)
{
    if (s->in->role == ROLE_LABEL)
        label_describe(l, s);
    float *shift = NEW_N(l->a, float, s->n_spreads), *scale = NEW_N(l->a, float, s->n_spreads);
    float *fill = NEW_N(l->a, float, s->n_spreads);
    for (size_t i = 0; i < s->n_spreads; i++)
        affine_of(s, &s->spreads[i], &shift[i], &scale[i], &fill[i]);
    if (s->in->normalise) {
        s->tensor->shift = shift;
        s->tensor->scale = scale;
    }
    if (s->in->missing == MISSING_MEAN || s->in->missing == MISSING_FILL)
        s->tensor->fill = fill;
}

/* ---- vocabularies ---- */

struct ranked {
    struct str text;
    int64_t count;
    uint32_t code;
};

static int by_count(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    return a->count != b->count ? (a->count < b->count ? 1 : -1) : str_cmp(a->text, b->text);
}

static int by_text(const void *x, const void *y)
{
    return str_cmp(((const struct ranked *)x)->text, ((const struct ranked *)y)->text);
}

/* Texts of the training part in an order: the vocabulary. */
static void vocabulary_make(struct arena *a, struct codes *c, int64_t count_min, size_t max,
                            int (*order)(const void *, const void *))
{
    auto_arena struct arena *tmp = arena_new(0);
    struct ranked *r = NEW_N(tmp, struct ranked, c->dict.n + 1);
    size_t n = 0;
    for (uint32_t code = 1; code < c->counts.n; code++)
        if (c->counts.v[code] >= count_min)
            r[n++] = (struct ranked){ c->dict.v[code - 1], c->counts.v[code], code };
    qsort(r, n, sizeof *r, order);
    c->vocabulary = (struct strs){ 0 };
    for (size_t i = 0; i < n && i < max; i++)
        push(a, &c->vocabulary, r[i].text);
}

/* code → id; absent: of texts that are not in the vocabulary. */
static void table_make(struct arena *a, struct codes *c, int64_t from, int64_t absent, int64_t missing)
{
    c->table = NEW_N(a, int64_t, c->dict.n + 1);
    for (size_t i = 0; i <= c->dict.n; i++)
        c->table[i] = absent;
    c->table[0] = missing;
    for (size_t i = 0; i < c->vocabulary.n; i++) {
        uint32_t code;
        if (dict_find(&c->dict, c->vocabulary.v[i], &code))
            c->table[code + 1] = from + (int64_t)i;
    }
}

static void tables_show(struct loader *l, struct slot *s)
{
    const int64_t **tables = NEW_N(l->a, const int64_t *, s->gather.width);
    for (size_t c = 0; c < s->gather.width; c++)
        tables[c] = s->codes[c].table;
    s->gather.tables = tables;
}

static void categories_make(struct loader *l, struct slot *s, bool given)
{
    int64_t max = s->in->vocabulary_max ? s->in->vocabulary_max : VOCABULARY_MAX;
    int64_t *sizes = NEW_N(l->a, int64_t, s->gather.width);
    struct strs *vocabulary = NEW_N(l->a, struct strs, s->gather.width);
    for (size_t i = 0; i < s->gather.width; i++) {
        struct codes *c = &s->codes[i];
        if (!given)
            vocabulary_make(l->a, c, s->in->count_min > 1 ? s->in->count_min : 1, (size_t)max, by_count);
        table_make(l->a, c, 2, 0, 1);
        sizes[i] = (int64_t)c->vocabulary.n + 2;
        vocabulary[i] = c->vocabulary;
    }
    s->tensor->sizes = sizes;
    s->tensor->vocabulary = vocabulary;
    tables_show(l, s);
}

/* ---- classes ---- */

static err classes_fail(const struct loader *l, const struct slot *s, struct str what, struct place at,
                        struct str in)
{
    auto_arena struct arena *a = arena_new(0);
    FAIL(INVALID, "label '%.*s' is %.*s in %.*s: %.*s", STR(s->in->columns.v[0]), STR(what),
         STR(place_text(a, l, at)), STR(in));
}

static err class_names_make(struct loader *l, struct slot *s, bool given)
{
    struct codes *c = s->codes;
    if (!given)
        vocabulary_make(l->a, c, 1, CLASSES_MAX, by_text);
    table_make(l->a, c, 0, -1, -1);
    int64_t n = (int64_t)c->vocabulary.n;
    for (uint32_t code = 1; code < c->counts.n; code++)
        if (c->table[code] < 0)
            return classes_fail(l, s, c->dict.v[code - 1], c->first.v[code],
                                fmt(l->a, "a class that no row of training has"));
    if (s->in->classes && n > s->in->classes)
        FAIL(INVALID, "label '%.*s' has %lld classes, %lld are declared", STR(s->in->columns.v[0]),
             (long long)n, (long long)s->in->classes);
    int64_t *counts = NEW_N(l->a, int64_t, (size_t)n + 1);
    for (uint32_t code = 1; code < c->counts.n; code++)
        counts[c->table[code]] = c->counts.v[code];
    s->tensor->class_names = c->vocabulary;
    s->tensor->counts = counts;
    s->tensor->classes = n;
    tables_show(l, s);
    return NULL;
}

static err class_numbers_make(struct loader *l, struct slot *s, bool given)
{
    int64_t n = given ? s->tensor->classes : s->in->classes ? s->in->classes : (int64_t)s->counts.n;
    if (s->most >= n)
        return classes_fail(l, s, fmt(l->a, "%lld", (long long)s->most), s->most_at,
                            fmt(l->a, "training has the classes 0 to %lld", (long long)n - 1));
    while ((int64_t)s->counts.n < n)
        push(l->a, &s->counts, 0);
    s->tensor->counts = s->counts.v;
    s->tensor->classes = n;
    return NULL;
}

/* ---- all of it ---- */

static err characters_make(struct loader *l, struct slot *s, bool given)
{
    struct codes *c = s->codes;
    if (!c->table) {
        if (!given)
            vocabulary_make(l->a, c, 1, UINT16_MAX, by_text);
        table_make(l->a, c, 1, 0, 0);
    }
    s->tensor->vocabulary = &c->vocabulary;
    s->tensor->classes = (int64_t)c->vocabulary.n + 1;
    return NULL;
}

static err slot_make(struct loader *l, struct slot *s, bool given)
{
    if (s->in->role == ROLE_GROUP) /* only which rows belong together counts: codes are ids */
        s->tensor->classes = (int64_t)s->codes->dict.n + 1;
    else if (s->in->kind == KIND_CATEGORIES)
        categories_make(l, s, given);
    else if (s->in->kind == KIND_CLASS)
        TRY(s->text ? class_names_make(l, s, given) : class_numbers_make(l, s, given));
    else if (s->in->kind == KIND_TOKENS && s->codes)
        TRY(characters_make(l, s, given));
    else if (s->tensor->type == TENSOR_I64) {
        int64_t n = given ? s->tensor->classes : s->in->classes ? s->in->classes : s->most + 1;
        if (s->most >= n)
            FAIL(INVALID, "column '%.*s' has the id %lld, the model has %lld", STR(s->in->columns.v[0]),
                 (long long)s->most, (long long)n);
        s->tensor->classes = n;
    } else if (!given)
        affine_make(l, s);
    s->gather.shift = s->tensor->shift;
    s->gather.scale = s->tensor->scale;
    s->gather.fill = s->tensor->fill;
    return NULL;
}

static err statistics_read(struct loader *l);

err statistics_make(struct loader *l)
{
    bool given = l->spec.state.n > 0;
    if (given)
        TRY(statistics_read(l));
    for (size_t i = 0; i < l->n; i++)
        TRY(slot_make(l, &l->slots[i], given));
    return NULL;
}

/* ---- the state as JSON ---- */

static const char *const kind_names[] = { "numbers", "categories", "array", "class", "tokens" };

static void texts_write(struct json *j, const char *key, const struct strs *v)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < v->n; i++)
        json_str(j, v->v[i]);
    json_arr_end(j);
}

static void floats_write(struct json *j, const char *key, const float *v, size_t n)
{
    if (!v)
        return;
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++)
        json_f64(j, (double)v[i]);
    json_arr_end(j);
}

static void slot_write(struct json *j, const struct slot *s)
{
    const struct loader_tensor *t = s->tensor;
    json_obj(j);
    json_kstr(j, "name", t->name);
    json_kstr(j, "kind", str_of(kind_names[t->kind]));
    texts_write(j, "columns", &t->columns);
    floats_write(j, "shift", t->shift, s->n_spreads);
    floats_write(j, "scale", t->scale, s->n_spreads);
    floats_write(j, "fill", t->fill, s->n_spreads);
    floats_write(j, "mean", t->mean, s->n_spreads);
    if (t->mean)
        json_kf64(j, "deviation", (double)t->deviation);
    if (t->indicator)
        json_kbool(j, "indicator", true);
    if (t->kind == KIND_CATEGORIES && t->vocabulary) {
        json_key(j, S("vocabularies"));
        json_arr(j);
        for (size_t i = 0; i < t->columns.n; i++) {
            json_arr(j);
            for (size_t k = 0; k < t->vocabulary[i].n; k++)
                json_str(j, t->vocabulary[i].v[k]);
            json_arr_end(j);
        }
        json_arr_end(j);
    }
    if (t->kind == KIND_TOKENS && t->vocabulary)
        texts_write(j, "vocabulary", t->vocabulary);
    if (t->class_names.n)
        texts_write(j, "classNames", &t->class_names);
    if (t->classes)
        json_ki64(j, "classes", t->classes);
    json_obj_end(j);
}

struct str loader_state(const struct loader *l, struct arena *a)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "loader", 1);
    json_key(&j, S("inputs"));
    json_arr(&j);
    for (size_t i = 0; i < l->n; i++)
        slot_write(&j, &l->slots[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

static err texts_read(struct arena *a, yyjson_val *v, struct strs *out)
{
    size_t i, n;
    yyjson_val *x;
    *out = (struct strs){ 0 };
    if (!yyjson_is_arr(v))
        FAIL(INVALID, "a list of texts is missing");
    yyjson_arr_foreach (v, i, n, x) {
        if (!yyjson_is_str(x))
            FAIL(INVALID, "text %zu of a list is none", i);
        push(a, out, str_dup(a, json_text(x)));
    }
    return NULL;
}

static err floats_read(struct arena *a, yyjson_val *o, const char *key, size_t want, bool need,
                       const float **out)
{
    yyjson_val *v = yyjson_obj_get(o, key), *x;
    size_t i, n;
    *out = NULL;
    if (!v && !need)
        return NULL;
    if (yyjson_arr_size(v) != want)
        FAIL(INVALID, "'%s' has %zu numbers, %zu are needed", key, yyjson_arr_size(v), want);
    float *to = NEW_N(a, float, want + 1);
    yyjson_arr_foreach (v, i, n, x) {
        if (!yyjson_is_num(x))
            FAIL(INVALID, "'%s'[%zu] is no number", key, i);
        to[i] = (float)yyjson_get_num(x);
    }
    *out = to;
    return NULL;
}

static err columns_same(struct arena *a, yyjson_val *v, const struct strs *want)
{
    struct strs have;
    TRY(texts_read(a, yyjson_obj_get(v, "columns"), &have));
    if (have.n != want->n)
        FAIL(INVALID, "it has %zu columns, the state %zu", want->n, have.n);
    for (size_t i = 0; i < have.n; i++)
        if (!str_eq(have.v[i], want->v[i]))
            FAIL(INVALID, "column %zu is '%.*s', in the state '%.*s'", i, STR(want->v[i]), STR(have.v[i]));
    return NULL;
}

static err slot_read(struct loader *l, struct slot *s, yyjson_val *v)
{
    struct loader_tensor *t = s->tensor;
    if (!str_eq(json_text(yyjson_obj_get(v, "kind")), str_of(kind_names[t->kind])))
        FAIL(INVALID, "it is of another kind in the state");
    TRY(columns_same(l->a, v, &t->columns));
    if (t->type == TENSOR_F32 && s->n_spreads) {
        TRY(floats_read(l->a, v, "shift", s->n_spreads, s->in->normalise, &t->shift));
        TRY(floats_read(l->a, v, "scale", s->n_spreads, s->in->normalise, &t->scale));
        TRY(floats_read(l->a, v, "fill", s->n_spreads,
                        s->in->missing == MISSING_MEAN || s->in->missing == MISSING_FILL, &t->fill));
        TRY(floats_read(l->a, v, "mean", s->n_spreads, false, &t->mean));
        t->deviation = t->mean ? (float)yyjson_get_num(yyjson_obj_get(v, "deviation")) : 0;
        if (t->mean && !(t->deviation > 0 && isfinite(t->deviation)))
            FAIL(INVALID, "'deviation' is no number above 0");
        return NULL;
    }
    yyjson_val *lists = yyjson_obj_get(v, "vocabularies");
    if (t->kind == KIND_CATEGORIES && t->role != ROLE_GROUP) {
        if (yyjson_arr_size(lists) != t->columns.n)
            FAIL(INVALID, "the state has %zu vocabularies of %zu", yyjson_arr_size(lists), t->columns.n);
        for (size_t i = 0; i < t->columns.n; i++)
            TRY(texts_read(l->a, yyjson_arr_get(lists, i), &s->codes[i].vocabulary));
    }
    if (t->kind == KIND_TOKENS && s->codes)
        TRY(texts_read(l->a, yyjson_obj_get(v, "vocabulary"), &s->codes->vocabulary));
    if (t->kind == KIND_CLASS && s->text)
        TRY(texts_read(l->a, yyjson_obj_get(v, "classNames"), &s->codes->vocabulary));
    t->classes = yyjson_get_sint(yyjson_obj_get(v, "classes"));
    return NULL;
}

static err state_find(yyjson_val *root, struct str name, yyjson_val **out)
{
    yyjson_val *v;
    size_t i, n;
    yyjson_arr_foreach (yyjson_obj_get(root, "inputs"), i, n, v)
        if (str_eq(json_text(yyjson_obj_get(v, "name")), name)) {
            *out = v;
            return NULL;
        }
    FAIL(INVALID, "the loader's state has no input '%.*s'", STR(name));
}

static err statistics_read(struct loader *l)
{
    yyjson_doc *doc = yyjson_read(l->spec.state.p, l->spec.state.n, 0);
    yyjson_val *root = yyjson_doc_get_root(doc), *v;
    err e = NULL;
    if (yyjson_get_sint(yyjson_obj_get(root, "loader")) != 1)
        e = err_new(INVALID, "the loader's state is none");
    for (size_t i = 0; !e && i < l->n; i++) {
        e = state_find(root, l->tensors[i].name, &v);
        if (!e && (e = slot_read(l, &l->slots[i], v)))
            e = err_wrap(e, "input '%.*s'", STR(l->tensors[i].name));
    }
    yyjson_doc_free(doc);
    return e;
}
