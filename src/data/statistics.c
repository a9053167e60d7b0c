// SPDX-License-Identifier: Apache-2.0
/* Statistics of a file's columns: exact ones (nulls, least, greatest, mean, deviation) and an estimate of the
 * different values in the same pass as the checks; quantiles and frequent texts from a fixed sample. */
#include "data/internal.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLE_ROWS = 200000, TOP = 20, TEXT_BYTES = 200 };

struct str time_sql(struct arena *a, struct str column, struct str type)
{
    struct str c = sql_name(a, column);
    if (str_is(type, "TIMESTAMP WITH TIME ZONE"))
        return fmt(a, "epoch_us(%.*s)", STR(c));
    return fmt(a, "epoch_us(CAST(%.*s AS TIMESTAMP))", STR(c));
}

static void column_statistics_sql(struct arena *a, const struct duck_column *c, size_t i, struct buf *b)
{
    enum column_type type;
    struct str x = sql_name(a, c->name);
    buf_fmt(b, ", count(*) - count(%.*s) AS s%zun, approx_count_distinct(%.*s) AS s%zud", STR(x), i, STR(x),
            i);
    if (!column_type_of(c->type, &type))
        return;
    if (type == COL_STR)
        x = fmt(a, "CAST(%.*s AS VARCHAR)", STR(x));
    else if (type == COL_TIME)
        x = time_sql(a, c->name, c->type);
    else if (type == COL_BOOL)
        x = fmt(a, "CAST(%.*s AS INTEGER)", STR(x));
    buf_fmt(b, ", min(%.*s) AS s%zul, max(%.*s) AS s%zuh", STR(x), i, STR(x), i);
    if (type == COL_I64 || type == COL_F64 || type == COL_BOOL)
        buf_fmt(b, ", avg(%.*s) AS s%zum, stddev_samp(%.*s) AS s%zus", STR(x), i, STR(x), i);
}

void statistics_sql(struct arena *a, const struct duck_columns *cols, struct buf *out)
{
    for (size_t i = 0; i < cols->n; i++)
        column_statistics_sql(a, &cols->v[i], i, out);
}

static double number_at(struct arena *a, const struct columns *row, size_t i, char what)
{
    const struct column *c = columns_find(row, fmt(a, "s%zu%c", i, what));
    return c && c->type != COL_STR ? column_f64(c, 0) : NAN;
}

static struct str text_at(struct arena *a, const struct columns *row, size_t i, char what, bool time)
{
    const struct column *c = columns_find(row, fmt(a, "s%zu%c", i, what));
    if (!c || column_null(c, 0))
        return S("");
    if (time)
        return time_text(a, c->i[0]);
    struct str s = c->type == COL_STR ? column_str(c, 0) : S("");
    while (s.n > TEXT_BYTES && (s.n--, (s.p[s.n] & 0xc0) == 0x80)) /* cut between characters */
        ;
    return str_sub(s, 0, s.n > TEXT_BYTES ? TEXT_BYTES : s.n);
}

void statistics_take(struct arena *a, const struct duck_columns *cols, const struct columns *row,
                     struct list *out)
{
    struct version_column *v = NEW_N(a, struct version_column, cols->n);
    for (size_t i = 0; i < cols->n; i++) {
        enum column_type type = COL_F64;
        (void)column_type_of(cols->v[i].type, &type);
        double nulls = number_at(a, row, i, 'n'), distinct = number_at(a, row, i, 'd');
        v[i] = (struct version_column){
            .name = cols->v[i].name,
            .type = cols->v[i].type,
            .role = IS_VALUE,
            .statistics = { .nulls = isnan(nulls) ? 0 : (int64_t)nulls,
                            .distinct = isnan(distinct) ? 0 : (int64_t)distinct,
                            .min = number_at(a, row, i, 'l'),
                            .max = number_at(a, row, i, 'h'),
                            .mean = number_at(a, row, i, 'm'),
                            .std = number_at(a, row, i, 's'),
                            .first = text_at(a, row, i, 'l', type == COL_TIME),
                            .last = text_at(a, row, i, 'h', type == COL_TIME) },
        };
    }
    *out = (struct list){ v, cols->n };
}

/* ---- the sample ---- */

static int double_order(const void *x, const void *y)
{
    double p = *(const double *)x, q = *(const double *)y;
    return (p > q) - (p < q);
}

static struct str quantiles(struct arena *a, const struct column *c, size_t rows)
{
    static const double at[] = { .01, .05, .1, .2, .3, .4, .5, .6, .7, .8, .9, .95, .99 };
    auto_arena struct arena *tmp = arena_new(0);
    double *v = NEW_N(tmp, double, rows + 1);
    size_t n = 0;
    for (size_t i = 0; i < rows; i++)
        if (!column_null(c, i))
            v[n++] = column_f64(c, i);
    if (!n)
        return S("");
    qsort(v, n, sizeof *v, double_order);
    struct json j = json_new(a);
    json_arr(&j);
    for (size_t i = 0; i < sizeof at / sizeof *at; i++)
        json_f64(&j, v[(size_t)(at[i] * (double)(n - 1) + .5)]);
    json_arr_end(&j);
    return json_get(&j);
}

struct tally {
    uint32_t code, rows;
};
static int tally_order(const void *x, const void *y)
{
    const struct tally *p = x, *q = y;
    return p->rows != q->rows ? (p->rows < q->rows) - (p->rows > q->rows)
                              : (p->code > q->code) - (p->code < q->code);
}

static struct str top(struct arena *a, const struct column *c, size_t rows)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct tally *t = NEW_N(tmp, struct tally, c->dict_n);
    for (size_t i = 0; i < c->dict_n; i++)
        t[i].code = (uint32_t)i;
    for (size_t i = 0; i < rows; i++)
        t[c->code[i]].rows += !column_null(c, i);
    qsort(t, c->dict_n, sizeof *t, tally_order);
    struct json j = json_new(a);
    json_arr(&j);
    for (size_t i = 0; i < c->dict_n && i < TOP && t[i].rows > 1; i++) {
        struct str s = c->dict[t[i].code];
        if (s.n > TEXT_BYTES)
            continue;
        json_arr(&j);
        json_str(&j, s);
        json_i64(&j, t[i].rows);
        json_arr_end(&j);
    }
    json_arr_end(&j);
    return json_get(&j);
}

err statistics_sample(struct duck *d, struct arena *a, const struct strs *paths, int64_t rows,
                      struct list *columns)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct buf sql = buf_new(tmp);
    struct version_column *v = columns->v;
    struct columns sample;
    enum column_type type;
    int64_t step = (rows + SAMPLE_ROWS - 1) / SAMPLE_ROWS;
    for (size_t i = 0; i < columns->n; i++)
        if (column_type_of(v[i].type, &type)) {
            buf_str(&sql, sql.n ? S(", ") : S(""));
            buf_str(&sql, sql_name(tmp, v[i].name));
        }
    if (!sql.n || !rows)
        return NULL;
    TRY(duck_load(d, tmp,
                  fmt(tmp, "SELECT %.*s FROM %.*s WHERE file_row_number %% %lld = 0", STR(buf_get(&sql)),
                      STR(sql_parquet(tmp, paths)), (long long)step),
                  &sample));
    for (size_t i = 0; i < columns->n; i++) {
        const struct column *c = columns_find(&sample, v[i].name);
        if (c && c->type == COL_STR)
            v[i].statistics.top = top(a, c, sample.rows);
        else if (c)
            v[i].statistics.quantiles = quantiles(a, c, sample.rows);
    }
    return NULL;
}

err version_columns(struct duck *d, struct arena *a, const struct strs *paths, int64_t rows,
                    struct list *columns)
{
    struct str from = sql_parquet(a, paths);
    struct duck_columns cols;
    struct columns row;
    struct buf sql = buf_new(a);
    TRY(duck_describe(d, a, fmt(a, "SELECT * FROM %.*s", STR(from)), &cols));
    buf_str(&sql, S("SELECT count(*) AS n"));
    statistics_sql(a, &cols, &sql);
    TRY(duck_load(d, a, fmt(a, "%.*s FROM %.*s", STR(buf_get(&sql)), STR(from)), &row));
    statistics_take(a, &cols, &row, columns);
    return statistics_sample(d, a, paths, rows, columns);
}
