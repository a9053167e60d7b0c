// SPDX-License-Identifier: Apache-2.0
/* Bars and intervals in text: for any list of objects with a share, and any objects side by side with low and high. */
#include "cli/cli.h"

enum { WIDE = 30 };

struct str bar_text(struct arena *a, double share, int columns)
{
    static const char *const eighths[] = { "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" };
    struct buf b = buf_new(a);
    int parts = share > 0 ? (int)(fmin(share, 1) * columns * 8 + 0.5) : 0;
    for (int i = 0; i < parts / 8; i++)
        buf_str(&b, S("█"));
    buf_str(&b, str_of(eighths[parts % 8]));
    return buf_get(&b);
}

/* Rows of one chart: objects with, where they are no list, their names. */
struct rows {
    VEC(yyjson_val *) v;
    struct strs names, keys;
    double from, to; /* of all intervals */
};

static bool is_interval(yyjson_val *v)
{
    return yyjson_is_num(json_at(v, "low")) && yyjson_is_num(json_at(v, "high"));
}

static bool has_key(const struct rows *r, struct str key)
{
    for (size_t i = 0; i < r->keys.n; i++)
        if (str_eq(r->keys.v[i], key))
            return true;
    return false;
}

static void row_add(struct arena *a, struct rows *r, struct str name, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *k, *m;
    double low = yyjson_get_num(json_at(v, "low")), high = yyjson_get_num(json_at(v, "high"));
    r->from = r->v.n ? fmin(r->from, low) : low;
    r->to = r->v.n ? fmax(r->to, high) : high;
    push(a, &r->v, v);
    push(a, &r->names, name);
    yyjson_obj_foreach (v, i, n, k, m)
        if (!has_key(r, json_value_text(a, k)))
            push(a, &r->keys, json_value_text(a, k));
}

/* "   ├──●───┤": from low to high with the mean, on the scale of all. */
static struct str interval_text(struct arena *a, const struct rows *r, yyjson_val *v)
{
    double scale = r->to > r->from ? (WIDE - 1) / (r->to - r->from) : 0;
    int low = (int)((yyjson_get_num(json_at(v, "low")) - r->from) * scale + 0.5),
        high = (int)((yyjson_get_num(json_at(v, "high")) - r->from) * scale + 0.5),
        mean = (int)((yyjson_get_num(json_at(v, "mean")) - r->from) * scale + 0.5);
    struct buf b = buf_new(a);
    for (int i = 0; i <= high; i++)
        buf_str(&b, i < low ? S(" ") : i == mean ? S("●") : i == low ? S("├") : i == high ? S("┤") : S("─"));
    return buf_get(&b);
}

static struct str cell_of(struct arena *a, yyjson_val *v)
{
    return yyjson_is_real(v) ? fmt(a, "%.4g", yyjson_get_real(v)) : json_value_text(a, v);
}

static void rows_print(const struct cli *c, struct str title, const struct rows *r, bool share)
{
    struct table t = table_new(c->a, r->keys.n + 2);
    table_heading(&t, title);
    for (size_t k = 0; k < r->keys.n; k++)
        table_heading(&t, r->keys.v[k]);
    table_cell(&t, S(" "));
    for (size_t i = 0; i < r->v.n; i++) {
        yyjson_val *v = r->v.v[i];
        table_cell(&t, r->names.v[i]);
        for (size_t k = 0; k < r->keys.n; k++)
            table_cell(&t, cell_of(c->a, yyjson_obj_getn(v, r->keys.v[k].p, r->keys.v[k].n)));
        struct str drawn = share ? bar_text(c->a, yyjson_get_num(json_at(v, "share")), WIDE)
                                 : interval_text(c->a, r, v);
        table_cell(&t, drawn.n ? drawn : S(" "));
    }
    table_print(&t, stdout);
}

void chart_print(const struct cli *c, yyjson_val *object)
{
    size_t i, n, k, m;
    yyjson_val *key, *v, *name, *one;
    if (!object)
        return;
    yyjson_obj_foreach (object, i, n, key, v) {
        struct rows shares = { 0 }, intervals = { 0 };
        yyjson_arr_foreach (v, k, m, one)
            if (yyjson_is_num(json_at(one, "share")))
                row_add(c->a, &shares, fmt(c->a, "%zu", k + 1), one);
        yyjson_obj_foreach (v, k, m, name, one)
            if (is_interval(one))
                row_add(c->a, &intervals, json_value_text(c->a, name), one);
        if (shares.v.n)
            rows_print(c, json_value_text(c->a, key), &shares, true);
        if (intervals.v.n > 1)
            rows_print(c, json_value_text(c->a, key), &intervals, false);
    }
}
