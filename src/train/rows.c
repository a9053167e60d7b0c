// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

#include <stdlib.h>

/* ---- reading ---- */

err rows_prepare(struct job_context *ctx, struct str project, struct str dataset_version, struct json *spec)
{
    return version_put(ctx->store, ctx->a, project, dataset_version, "rows", spec);
}

/* Columns of the version that are wanted here. */
struct layout {
    struct strs features;
    struct str label, at, known;
};

static void layout_read(struct arena *a, const struct dataset_version_spec *spec, struct layout *out)
{
    *out = (struct layout){ 0 };
    const struct version_column *columns = spec->columns.v;
    for (size_t i = 0; i < spec->columns.n; i++)
        switch (columns[i].role) {
        case IS_FEATURE:
            push(a, &out->features, columns[i].name);
            break;
        case IS_LABEL:
            out->label = columns[i].name;
            break;
        case IS_EVENT_TIME:
            out->at = columns[i].name;
            break;
        case IS_KNOWN_AT:
            out->known = columns[i].name;
            break;
        default:
            break;
        }
}

static err layout_check(const struct layout *l, struct str version)
{
    if (l->label.n == 0 || l->features.n == 0 || l->at.n == 0)
        return err_hint(err_new(INVALID, "'%.*s' has no %s column", STR(version),
                                l->label.n == 0 ? "label"
                                : l->at.n == 0  ? "event time"
                                                : "feature"),
                        "train on a version of a TrainingSet");
    return NULL;
}

static err feature_copy(const struct column *c, struct rows *out, size_t feature)
{
    if (c->type == COL_STR || c->type == COL_TIME)
        FAIL(INVALID, "feature '%.*s' is no number", STR(c->name));
    float *to = out->x + feature;
    for (size_t i = 0; i < out->n; i++, to += out->features) {
        float v = (float)column_f64(c, i);
        *to = isfinite(v) ? v : NAN;
    }
    return NULL;
}

static err label_copy(const struct column *c, struct rows *out)
{
    for (size_t i = 0; i < out->n; i++) {
        double v = c->type == COL_STR ? 2 : column_f64(c, i);
        if (!isnan(v) && v != 0 && v != 1)
            FAIL(INVALID, "label '%.*s' is neither 0 nor 1 in row %zu", STR(c->name), i);
        out->y[i] = (float)v;
    }
    return NULL;
}

static err time_copy(const struct column *c, size_t n, int64_t *out)
{
    if (c->type != COL_TIME && c->type != COL_I64)
        FAIL(INVALID, "column '%.*s' is no time", STR(c->name));
    for (size_t i = 0; i < n; i++)
        out[i] = column_null(c, i) ? INT64_MIN : c->i[i];
    return NULL;
}

err rows_from(struct arena *a, const struct columns *in, const struct dataset_version_spec *spec,
              struct rows *out)
{
    struct layout l;
    const struct column *c;
    layout_read(a, spec, &l);
    size_t n = in->rows;
    *out = (struct rows){ .n = n, .features = l.features.n, .names = l.features.v, .until = spec->until };
    out->x = NEW_N(a, float, arena_mul(n, l.features.n));
    out->y = NEW_N(a, float, n);
    out->at = NEW_N(a, int64_t, n);
    out->known = NEW_N(a, int64_t, n);
    for (size_t i = 0; i < l.features.n; i++) {
        TRY(columns_need(in, l.features.v[i], &c));
        TRY(feature_copy(c, out, i));
    }
    TRY(columns_need(in, l.label, &c));
    TRY(label_copy(c, out));
    TRY(columns_need(in, l.at, &c));
    TRY(time_copy(c, n, out->at));
    if (l.known.n > 0)
        TRY(columns_need(in, l.known, &c));
    TRY(time_copy(c, n, out->known));
    for (size_t i = 0; i < n && spec->until == 0; i++)
        if (out->at[i] >= out->until)
            out->until = out->at[i] + 1;
    return NULL;
}

/* Bytes that reading needs at most: the table, the floats and one copy of them for the split. */
static err size_check(const struct dataset_version_spec *spec, size_t columns, int64_t bytes_max)
{
    int64_t need;
    if (spec->rows < 0 || __builtin_mul_overflow(spec->rows, (int64_t)columns * 17 + 64, &need) ||
        need > INT64_MAX / 2 || (bytes_max > 0 && need > bytes_max))
        return err_hint(err_new(TOO_LARGE, "%lld rows of %zu columns do not fit into the job's memory",
                                (long long)spec->rows, columns),
                        "give it more memory, or a smaller sample");
    return NULL;
}

err rows_read(struct worker *w, int64_t bytes_max, struct rows *out)
{
    struct version_in version;
    struct layout l;
    struct strs names = { 0 };
    TRY(version_get(w->blobs, w->a, yyjson_obj_get(w->spec, "rows"), &version));
    auto_arena struct arena *scratch = arena_new(0);
    layout_read(scratch, &version.spec, &l);
    TRY(layout_check(&l, version.name));
    for (size_t i = 0; i < l.features.n; i++)
        push(scratch, &names, l.features.v[i]);
    push(scratch, &names, l.label);
    push(scratch, &names, l.at);
    if (l.known.n > 0)
        push(scratch, &names, l.known);
    else
        worker_say(w, "no column says when a label became known: every row before the split is learned from");
    TRY(size_check(&version.spec, names.n, bytes_max));
    struct columns table;
    TRY_AS(parquet_load(scratch, &version.paths, names.v, names.n, &table), "reading '%.*s'",
           STR(version.name));
    TRY_AS(rows_from(w->a, &table, &version.spec, out), "reading '%.*s'", STR(version.name));
    return NULL;
}

/* ---- splitting ---- */

enum part { LEARN, HELD_OUT, REST };
struct place {
    enum part part;
    uint32_t row;
    int64_t at;
};

static enum part part_of(const struct rows *r, size_t i, int64_t split)
{
    if (isnan(r->y[i]) || r->at[i] == INT64_MIN || r->at[i] >= r->until)
        return REST;
    if (r->at[i] >= split)
        return HELD_OUT;
    return r->known[i] != INT64_MIN && r->known[i] < split ? LEARN : REST;
}

static int by_place(const void *x, const void *y)
{
    const struct place *a = x, *b = y;
    if (a->part != b->part)
        return a->part < b->part ? -1 : 1;
    if (a->at != b->at)
        return a->at < b->at ? -1 : 1;
    return (a->row > b->row) - (a->row < b->row);
}

static void rows_move(struct rows *r, struct arena *a, const struct place *places)
{
    struct rows to = *r;
    to.x = NEW_N(a, float, arena_mul(r->n, r->features));
    to.y = NEW_N(a, float, r->n);
    to.at = NEW_N(a, int64_t, r->n);
    to.known = NEW_N(a, int64_t, r->n);
    for (size_t i = 0; i < r->n; i++) {
        size_t from = places[i].row;
        memcpy(to.x + i * r->features, r->x + from * r->features, r->features * sizeof *r->x);
        to.y[i] = r->y[from];
        to.at[i] = r->at[from];
        to.known[i] = r->known[from];
    }
    *r = to;
}

static err both_classes(const float *y, size_t n, const char *what, struct str when)
{
    size_t ones = 0;
    for (size_t i = 0; i < n; i++)
        ones += y[i] == 1;
    if (n == 0)
        FAIL(INVALID, "there are no rows %s (%.*s)", what, STR(when));
    if (ones == 0 || ones == n)
        FAIL(INVALID, "all %zu rows %s have the label %d", n, what, ones > 0);
    return NULL;
}

err rows_split(struct rows *r, int64_t holdout_ms, struct arena *a, struct rows_split *out)
{
    if (r->n == 0 || r->n > UINT32_MAX)
        FAIL(INVALID, "%zu rows cannot be split", r->n);
    auto_arena struct arena *scratch = arena_new(0);
    struct place *places = NEW_N(scratch, struct place, r->n);
    *out = (struct rows_split){ .until = r->until };
    if (__builtin_mul_overflow(holdout_ms, 1000, &out->split) ||
        __builtin_sub_overflow(r->until, out->split, &out->split))
        FAIL(INVALID, "the holdout is out of range");
    for (size_t i = 0; i < r->n; i++)
        places[i] = (struct place){ part_of(r, i, out->split), (uint32_t)i, r->at[i] };
    qsort(places, r->n, sizeof *places, by_place);
    for (size_t i = 0; i < r->n; i++)
        ++*(places[i].part == LEARN ? &out->train : places[i].part == HELD_OUT ? &out->valid : &out->unknown);
    rows_move(r, a, places);
    struct str split = time_text(scratch, out->split), until = time_text(scratch, out->until);
    TRY(both_classes(r->y, out->train, "to learn from", fmt(scratch, "known before %.*s", STR(split))));
    TRY(both_classes(r->y + out->train, out->valid, "held out",
                     fmt(scratch, "from %.*s to %.*s", STR(split), STR(until))));
    out->from = r->at[0];
    return NULL;
}
