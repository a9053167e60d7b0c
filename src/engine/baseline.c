// SPDX-License-Identifier: Apache-2.0
#include "engine/baseline.h"
#include "engine/metrics.h"

#include <math.h>
#include <yyjson.h>

static const struct str format = S_INIT("dhow-baseline 1");

/* ---- making ---- */

/* The ⌈mille·n/1000⌉-th of n sorted values, without overflow; the first for 0. */
static float quantile(const float *v, size_t n, size_t mille)
{
    size_t place = (n / 1000) * mille + ((n % 1000) * mille + 999) / 1000;
    return v[place > 0 ? place - 1 : 0];
}

static void edge_add(float edge, struct baseline_column *out)
{
    if (out->edges_n == 0 || edge > out->edges[out->edges_n - 1])
        out->edges[out->edges_n++] = edge;
}

static void edges_make(const float *v, size_t n, struct baseline_column *out)
{
    edge_add(quantile(v, n, 0), out);
    edge_add(quantile(v, n, 1), out);
    edge_add(quantile(v, n, 5), out);
    for (size_t percent = 1; percent < 100; percent++)
        edge_add(quantile(v, n, percent * 10), out);
    edge_add(quantile(v, n, 995), out);
    edge_add(quantile(v, n, 999), out);
    edge_add(quantile(v, n, 1000), out);
    for (size_t i = 0; i < BASELINE_DECILES; i++)
        out->deciles[i] = quantile(v, n, i * 100);
}

static void cells_count(const float *v, size_t n, struct baseline_column *out)
{
    size_t edge = 0;
    for (size_t i = 0; i < n; i++) {
        while (edge + 1 < out->edges_n && v[i] >= out->edges[edge + 1])
            edge++;
        out->cells[2 * edge + (v[i] != out->edges[edge])]++;
    }
}

static void moments_make(const float *v, size_t n, struct baseline_column *out)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    out->mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (v[i] - out->mean) * (v[i] - out->mean);
    out->std = n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
    out->min = v[0];
    out->max = v[n - 1];
}

void baseline_column_make(struct arena *a, struct str name, const float *v, size_t n, size_t stride,
                          struct baseline_column *out)
{
    float *sorted = NEW_N(a, float, n + 1);
    size_t have = 0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(v[i * stride]))
            sorted[have++] = v[i * stride] + 0.0f; /* no −0: it equals 0 but sorts before it */
    *out = (struct baseline_column){ .name = name,
                                     .n = (int64_t)have,
                                     .nulls = (int64_t)(n - have),
                                     .mean = NAN,
                                     .std = NAN,
                                     .min = NAN,
                                     .max = NAN };
    if (have == 0)
        return;
    sort_floats(a, sorted, NULL, have);
    edges_make(sorted, have, out);
    cells_count(sorted, have, out);
    moments_make(sorted, have, out);
}

/* ---- writing ---- */

static void floats_write(struct json *j, const char *key, const float *v, size_t n)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++)
        json_f64(j, v[i]);
    json_arr_end(j);
}

static void counts_write(struct json *j, const char *key, const int64_t *v, size_t n)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++)
        json_i64(j, v[i]);
    json_arr_end(j);
}

static size_t cells_n(const struct baseline_column *c)
{
    return c->edges_n ? 2 * c->edges_n - 1 : 0;
}

static void column_write(struct json *j, const struct baseline_column *c)
{
    json_obj(j);
    json_kstr(j, "name", c->name);
    json_ki64(j, "n", c->n);
    json_ki64(j, "nulls", c->nulls);
    json_kf64(j, "mean", c->mean);
    json_kf64(j, "std", c->std);
    json_kf64(j, "min", c->min);
    json_kf64(j, "max", c->max);
    floats_write(j, "deciles", c->deciles, c->n ? BASELINE_DECILES : 0);
    floats_write(j, "edges", c->edges, c->edges_n);
    counts_write(j, "cells", c->cells, cells_n(c));
    json_obj_end(j);
}

struct str baseline_write(struct arena *a, const struct baseline *b)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "format", format);
    json_ki64(&j, "rows", b->rows);
    json_key(&j, S("features"));
    json_arr(&j);
    for (size_t i = 0; i < b->n; i++)
        column_write(&j, &b->features[i]);
    json_arr_end(&j);
    json_key(&j, S("score"));
    column_write(&j, &b->score);
    json_obj_end(&j);
    return json_get(&j);
}

/* ---- reading ---- */

static double number_of(yyjson_val *v)
{
    return yyjson_is_num(v) ? yyjson_get_num(v) : NAN;
}

static err floats_read(yyjson_val *in, const char *key, size_t max, float *out, size_t *n)
{
    yyjson_val *arr = yyjson_obj_get(in, key), *v;
    yyjson_arr_iter it;
    *n = 0;
    if (!yyjson_is_arr(arr) || yyjson_arr_size(arr) > max || !yyjson_arr_iter_init(arr, &it))
        FAIL(INVALID, "%s is not a list of at most %zu numbers", key, max);
    while ((v = yyjson_arr_iter_next(&it))) {
        out[*n] = (float)number_of(v);
        if (!isfinite(out[(*n)++]))
            FAIL(INVALID, "%s[%zu] is not a number", key, *n - 1);
    }
    return NULL;
}

static err count_read(yyjson_val *in, const char *key, int64_t *out)
{
    yyjson_val *v = yyjson_obj_get(in, key);
    *out = yyjson_is_int(v) ? yyjson_get_sint(v) : -1;
    if (*out < 0 || *out > (int64_t)1 << 48)
        FAIL(INVALID, "%s is not a count", key);
    return NULL;
}

/* n counts that sum to `sum`. */
static err counts_read(yyjson_val *in, const char *key, size_t n, int64_t sum, int64_t *out)
{
    yyjson_val *arr = yyjson_obj_get(in, key), *v;
    yyjson_arr_iter it;
    int64_t all = 0;
    size_t i = 0;
    if (!yyjson_is_arr(arr) || yyjson_arr_size(arr) != n || !yyjson_arr_iter_init(arr, &it))
        FAIL(INVALID, "%s is not a list of %zu counts", key, n);
    while ((v = yyjson_arr_iter_next(&it))) {
        int64_t count = yyjson_is_int(v) ? yyjson_get_sint(v) : -1;
        if (count < 0 || count > sum - all)
            FAIL(INVALID, "%s[%zu] is not a count, or they sum to more than n", key, i);
        all += count;
        out[i++] = count;
    }
    if (all != sum)
        FAIL(INVALID, "%s sum to %lld, not %lld", key, (long long)all, (long long)sum);
    return NULL;
}

static err edges_check(const struct baseline_column *c)
{
    for (size_t i = 1; i < c->edges_n; i++)
        if (!(c->edges[i] > c->edges[i - 1]))
            FAIL(INVALID, "edges[%zu] does not ascend", i);
    if ((c->n > 0) != (c->edges_n > 0))
        FAIL(INVALID, "edges and n do not fit together");
    if (c->n > 0 && (!isfinite(c->mean) || !(c->std >= 0)))
        FAIL(INVALID, "mean or std is not a number");
    return NULL;
}

static err column_read(struct arena *a, yyjson_val *in, struct baseline_column *out)
{
    size_t deciles;
    yyjson_val *name = yyjson_obj_get(in, "name");
    if (!yyjson_is_str(name))
        FAIL(INVALID, "name is not text");
    *out = (struct baseline_column){ .name = str_dup(a, json_text(name)) };
    TRY(count_read(in, "n", &out->n));
    TRY(count_read(in, "nulls", &out->nulls));
    out->mean = number_of(yyjson_obj_get(in, "mean"));
    out->std = number_of(yyjson_obj_get(in, "std"));
    out->min = number_of(yyjson_obj_get(in, "min"));
    out->max = number_of(yyjson_obj_get(in, "max"));
    TRY(floats_read(in, "deciles", BASELINE_DECILES, out->deciles, &deciles));
    TRY(floats_read(in, "edges", BASELINE_EDGES_MAX, out->edges, &out->edges_n));
    TRY(edges_check(out));
    return counts_read(in, "cells", cells_n(out), out->n, out->cells);
}

static err object_read(struct arena *a, yyjson_val *in, struct baseline *out)
{
    yyjson_val *form = yyjson_obj_get(in, "format"), *features = yyjson_obj_get(in, "features"), *v;
    yyjson_arr_iter it;
    if (!yyjson_is_str(form) || !str_eq(json_text(form), format))
        FAIL(INVALID, "it is not of the format '%.*s'", STR(format));
    *out = (struct baseline){ 0 };
    TRY(count_read(in, "rows", &out->rows));
    if (!yyjson_is_arr(features) || yyjson_arr_size(features) > BASELINE_COLUMNS_MAX)
        FAIL(INVALID, "features is not a list of at most %d", BASELINE_COLUMNS_MAX);
    out->features = NEW_N(a, struct baseline_column, yyjson_arr_size(features));
    yyjson_arr_iter_init(features, &it);
    while ((v = yyjson_arr_iter_next(&it))) {
        TRY_AS(column_read(a, v, &out->features[out->n]), "features[%zu]", out->n);
        out->n++;
    }
    TRY_AS(column_read(a, yyjson_obj_get(in, "score"), &out->score), "score");
    return NULL;
}

static void doc_free(yyjson_doc **doc)
{
    yyjson_doc_free(*doc);
}

err baseline_read(struct arena *a, struct str json, struct baseline *out)
{
    __attribute__((cleanup(doc_free))) yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
    if (!doc)
        FAIL(INVALID, "the baseline is not JSON");
    TRY_AS(object_read(a, yyjson_doc_get_root(doc), out), "the baseline");
    return NULL;
}

/* ---- a sketch's state ---- */

struct str sketch_write(struct arena *a, const struct sketch *s)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "n", s->n);
    json_ki64(&j, "nulls", s->nulls);
    json_kf64(&j, "sum", s->sum);
    json_kf64(&j, "sumSquares", s->sum_squares);
    json_kf64(&j, "min", s->n ? s->min : NAN);
    json_kf64(&j, "max", s->n ? s->max : NAN);
    json_ki64(&j, "below", s->below);
    json_ki64(&j, "above", s->above);
    json_kf64(&j, "belowSum", s->below_sum);
    json_kf64(&j, "aboveSum", s->above_sum);
    counts_write(&j, "cells", s->cells, cells_n(s->ref));
    json_obj_end(&j);
    return json_get(&j);
}

static err sums_read(yyjson_val *in, struct sketch *out)
{
    out->sum = number_of(yyjson_obj_get(in, "sum"));
    out->sum_squares = number_of(yyjson_obj_get(in, "sumSquares"));
    out->below_sum = number_of(yyjson_obj_get(in, "belowSum"));
    out->above_sum = number_of(yyjson_obj_get(in, "aboveSum"));
    if (!isfinite(out->sum) || !(out->sum_squares >= 0) || !(out->below_sum >= 0) || !(out->above_sum >= 0))
        FAIL(INVALID, "a sum is not a number");
    if (out->n > 0) {
        out->min = (float)number_of(yyjson_obj_get(in, "min"));
        out->max = (float)number_of(yyjson_obj_get(in, "max"));
        if (!(out->min <= out->max))
            FAIL(INVALID, "min and max do not fit together");
    }
    return NULL;
}

static err state_read(yyjson_val *in, struct sketch *out)
{
    TRY(count_read(in, "n", &out->n));
    TRY(count_read(in, "nulls", &out->nulls));
    TRY(count_read(in, "below", &out->below));
    TRY(count_read(in, "above", &out->above));
    TRY(sums_read(in, out));
    int64_t outside = out->ref->edges_n ? out->below + out->above : out->n;
    if (outside > out->n)
        FAIL(INVALID, "below and above are more than n");
    return counts_read(in, "cells", cells_n(out->ref), out->n - outside, out->cells);
}

err sketch_read(struct arena *a, struct str json, const struct baseline_column *ref, struct sketch *out)
{
    (void)a;
    __attribute__((cleanup(doc_free))) yyjson_doc *doc = yyjson_read(json.p, json.n, 0);
    struct sketch s;
    sketch_init(&s, ref);
    if (!doc)
        FAIL(INVALID, "the sketch is not JSON");
    TRY_AS(state_read(yyjson_doc_get_root(doc), &s), "the sketch");
    *out = s;
    return NULL;
}
