// SPDX-License-Identifier: Apache-2.0
#include "train/internal.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- reading ---- */

err rows_prepare(struct job_context *ctx, struct str project, struct str dataset_version, struct json *spec)
{
    return version_put(ctx->store, ctx->a, project, dataset_version, "rows", spec);
}

/* Columns of the version that are wanted here, and what becomes of each. */
struct target {
    struct str name;
    enum column_role role;
    size_t feature; /* of the numbers, or of the texts */
    bool text;
};
struct layout {
    struct target *v;
    size_t n, cap;
    struct strs features, texts;
    bool label, at, known;
};

static void layout_read(struct arena *a, const struct dataset_version_spec *spec, struct layout *out)
{
    *out = (struct layout){ 0 };
    const struct version_column *columns = spec->columns.v;
    for (size_t i = 0; i < spec->columns.n; i++) {
        enum column_role role = columns[i].role;
        if (role != IS_FEATURE && role != IS_LABEL && role != IS_EVENT_TIME && role != IS_KNOWN_AT)
            continue;
        bool text = role == IS_FEATURE && str_eq(columns[i].type, str_of(column_type_names[COL_STR]));
        struct strs *among = text ? &out->texts : &out->features;
        push(a, out, (struct target){ columns[i].name, role, among->n, text });
        if (role == IS_FEATURE)
            push(a, among, columns[i].name);
        out->label |= role == IS_LABEL;
        out->at |= role == IS_EVENT_TIME;
        out->known |= role == IS_KNOWN_AT;
    }
}

static err layout_check(const struct layout *l, struct str version)
{
    if (!l->label || l->features.n == 0 || !l->at)
        return err_hint(err_new(INVALID, "'%.*s' has no %s column", STR(version),
                                !l->label ? "label"
                                : !l->at  ? "event time"
                                          : "feature"),
                        "train on a version of a TrainingSet");
    return NULL;
}

static err feature_take(const struct column *c, size_t n, size_t stride, float *to)
{
    if (c->type == COL_STR || c->type == COL_TIME)
        FAIL(INVALID, "feature '%.*s' is no number", STR(c->name));
    for (size_t i = 0; i < n; i++, to += stride) {
        float v = (float)column_f64(c, i);
        *to = isfinite(v) ? v : NAN;
    }
    return NULL;
}

/* A chunk's texts go with it: each that differs is kept once. */
static err text_take(const struct column *c, size_t n, size_t stride, struct dict *kept, struct str *to)
{
    if (c->type != COL_STR)
        FAIL(INVALID, "feature '%.*s' is no text", STR(c->name));
    for (size_t i = 0; i < n; i++, to += stride) {
        uint32_t code = dict_code(kept, column_null(c, i) ? S("") : column_str(c, i));
        *to = kept->v[code];
    }
    return NULL;
}

static err label_take(const struct column *c, size_t n, size_t row, float *to)
{
    if (c->type == COL_STR || c->type == COL_TIME)
        FAIL(INVALID, "label '%.*s' is no number", STR(c->name));
    for (size_t i = 0; i < n; i++) {
        to[i] = (float)column_f64(c, i);
        if (isinf(to[i]))
            FAIL(INVALID, "label '%.*s' is infinite in row %zu", STR(c->name), row + i);
    }
    return NULL;
}

static err time_take(const struct column *c, size_t n, int64_t *to)
{
    if (c->type != COL_TIME && c->type != COL_I64)
        FAIL(INVALID, "column '%.*s' is no time", STR(c->name));
    for (size_t i = 0; i < n; i++)
        to[i] = column_null(c, i) ? INT64_MIN : c->i[i];
    return NULL;
}

/* n rows of a column become rows from `row` on. */
static err column_take(const struct target *t, const struct column *c, size_t n, size_t row,
                       struct dict *kept, struct rows *out)
{
    switch (t->role) {
    case IS_FEATURE:
        if (t->text)
            return text_take(c, n, out->texts, kept, out->text + row * out->texts + t->feature);
        return feature_take(c, n, out->features, out->x + row * out->features + t->feature);
    case IS_LABEL:
        return label_take(c, n, row, out->y + row);
    case IS_EVENT_TIME:
        return time_take(c, n, out->at + row);
    default:
        return time_take(c, n, out->known + row);
    }
}

static void x_free(void *arg)
{
    struct arena **x_in = arg;
    arena_free(*x_in);
    *x_in = NULL;
}

void rows_forget(struct rows *r)
{
    r->x = NULL;
    if (r->x_in)
        x_free(r->x_in);
}

void rows_x_new(struct arena *a, size_t n, struct rows *r)
{
    r->x_in = NEW(a, struct arena *);
    *r->x_in = arena_new(0);
    arena_defer(a, x_free, r->x_in);
    r->x = NEW_N(*r->x_in, float, arena_mul(n, r->features));
}

static void rows_new(struct arena *a, const struct layout *l, size_t n, int64_t until, struct rows *out)
{
    *out = (struct rows){ .n = n,
                          .features = l->features.n,
                          .names = l->features.v,
                          .texts = l->texts.n,
                          .text_names = l->texts.v,
                          .until = until };
    rows_x_new(a, n, out);
    out->text = NEW_N(a, struct str, arena_mul(n, l->texts.n) + 1);
    out->y = NEW_N(a, float, n);
    out->at = NEW_N(a, int64_t, n);
    out->known = l->known ? NEW_N(a, int64_t, n) : out->at;
}

/* By chance, as tables have rhythms: each hour's rows of the same shops in the same order. */
const float *rows_sample(struct arena *a, const float *x, size_t n, size_t width, size_t *out_n)
{
    size_t every = n / SAMPLE_ROWS;
    *out_n = every > 1 ? n / every : n;
    if (every <= 1)
        return x;
    float *to = NEW_N(a, float, arena_mul(*out_n, width));
    uint64_t seed = n;
    for (size_t i = 0; i < *out_n; i++)
        memcpy(to + i * width, x + (i * every + splitmix(&seed) % every) * width, width * sizeof *to);
    return to;
}

/* Columns are handed out in turn. */
struct columns_work {
    size_t n, ranks;
    void (*fn)(void *arg, size_t column);
    void *arg;
};

static void columns_run(void *arg, int rank)
{
    const struct columns_work *w = arg;
    for (size_t i = (size_t)rank; i < w->n; i += w->ranks)
        w->fn(w->arg, i);
}

err columns_each(size_t n, int threads, void (*fn)(void *arg, size_t column), void *arg)
{
    enum { MOST = 8 }; /* each sorts some megabytes of its own */
    size_t ranks = threads < 1 ? 1 : threads < MOST ? (size_t)threads : MOST;
    struct columns_work w = { n, ranks < n ? ranks : n, fn, arg };
    struct team *team;
    if (n == 0)
        return NULL;
    TRY(team_new((int)w.ranks, &team));
    team_run(team, 0, columns_run, &w);
    team_free(team);
    return NULL;
}

/* What follows from the rows once they are all there. */
static void rows_finish(struct rows *out, bool open)
{
    for (size_t i = 0; open && i < out->n; i++)
        if (out->at[i] >= out->until)
            out->until = out->at[i] + 1;
}

err rows_from(struct arena *a, const struct columns *in, const struct dataset_version_spec *spec,
              struct rows *out)
{
    struct layout l;
    const struct column *c;
    layout_read(a, spec, &l);
    TRY(layout_check(&l, S("the table")));
    rows_new(a, &l, in->rows, spec->until, out);
    for (size_t i = 0; i < l.n; i++) {
        struct dict kept = { .a = a };
        TRY(columns_need(in, l.v[i].name, &c));
        TRY(column_take(&l.v[i], c, in->rows, 0, &kept, out));
    }
    rows_finish(out, spec->until == 0);
    return NULL;
}

/* Bytes that learning needs at most: the floats, a copy of those that the split moves, and their bins. */
static err size_check(const struct dataset_version_spec *spec, size_t columns, int64_t bytes_max)
{
    int64_t need;
    if (spec->rows < 0 || __builtin_mul_overflow(spec->rows, (int64_t)columns * 10 + 64, &need) ||
        need > INT64_MAX / 2 || (bytes_max > 0 && need > bytes_max))
        return err_hint(err_new(TOO_LARGE, "%lld rows of %zu columns do not fit into the job's memory",
                                (long long)spec->rows, columns),
                        "give it more memory, or a smaller sample");
    return NULL;
}

/* Some columns of the files, read by a thread of their own: a file is often one row group, of which DuckDB gives no two
 * threads work, but any number of readers may each take columns. Chunks go straight to where the rows are kept. */
enum { READERS_MAX = 16 };
struct share {
    pthread_t thread;
    struct arena *a, *texts; /* texts: as long as the rows */
    struct dict *kept;       /* by target */
    const struct strs *paths;
    const struct target *targets;
    size_t n, rows; /* rows: that were read */
    struct rows *out;
    err e;
};

static err share_open(struct share *p, struct reader **out)
{
    struct duck *d;
    struct buf names = buf_new(p->a);
    TRY(duck_open(p->a,
                  &(struct duck_config){ .threads = 1, .memory_bytes = (int64_t)1 << 40, .files = *p->paths },
                  &d));
    for (size_t i = 0; i < p->n; i++) {
        buf_str(&names, i ? S(", ") : S(""));
        buf_str(&names, sql_name(p->a, p->targets[i].name));
    }
    return duck_read(
        d, p->a, fmt(p->a, "SELECT %.*s FROM %.*s", STR(buf_get(&names)), STR(sql_parquet(p->a, p->paths))),
        out);
}

static err share_read(struct share *p)
{
    struct reader *reader;
    struct columns chunk;
    TRY(share_open(p, &reader));
    p->kept = NEW_N(p->texts, struct dict, p->n);
    for (size_t i = 0; i < p->n; i++)
        p->kept[i].a = p->texts;
    for (;;) {
        TRY(reader_next(reader, &chunk));
        if (chunk.rows == 0)
            return NULL;
        if (chunk.rows > p->out->n - p->rows)
            FAIL(INVALID, "the files have more rows than the %zu that the version says", p->out->n);
        for (size_t i = 0; i < p->n; i++)
            TRY(column_take(&p->targets[i], &chunk.v[i], chunk.rows, p->rows, &p->kept[i], p->out));
        p->rows += chunk.rows;
    }
}

static void *share_run(void *arg)
{
    struct share *p = arg;
    err e = share_read(p);
    p->e = e ? err_copy(e, p->a) : NULL;
    err_reset();
    return NULL;
}

static err shares_end(struct share *shares, size_t n, struct arena *a)
{
    for (size_t i = 0; i < n; i++)
        if (shares[i].e)
            return err_copy(shares[i].e, a);
    for (size_t i = 1; i < n; i++)
        if (shares[i].rows != shares[0].rows)
            FAIL(INTERNAL, "columns have %zu and %zu rows", shares[0].rows, shares[i].rows);
    return NULL;
}

static void arena_end(void *a)
{
    arena_free(a);
}

static err shares_read(struct arena *a, const struct strs *paths, const struct layout *l, size_t readers,
                       struct rows *out)
{
    struct share shares[READERS_MAX] = { 0 };
    size_t started = 0;
    err e = NULL;
    for (size_t from = 0; !e && started < readers; started += !e) {
        struct share *p = &shares[started];
        size_t n = (l->n - from) / (readers - started);
        *p = (struct share){ .a = arena_new(0),
                             .texts = arena_new(0),
                             .paths = paths,
                             .targets = l->v + from,
                             .n = n,
                             .out = out };
        arena_defer(a, arena_end, p->texts);
        from += n;
        e = thread_start("rows", share_run, p, &p->thread);
        if (e)
            arena_free(p->a);
    }
    for (size_t i = 0; i < started; i++)
        pthread_join(shares[i].thread, NULL);
    if (!e)
        e = shares_end(shares, started, a);
    out->n = started ? shares[0].rows : 0;
    for (size_t i = 0; i < started; i++)
        arena_free(shares[i].a);
    return e;
}

err rows_load(struct arena *a, const struct strs *paths, const struct dataset_version_spec *spec,
              struct rows *out)
{
    struct layout l;
    size_t readers = (size_t)cpu_count();
    layout_read(a, spec, &l);
    TRY(layout_check(&l, S("the table")));
    readers = readers < l.n ? readers : l.n;
    rows_new(a, &l, (size_t)spec->rows, spec->until, out);
    TRY(shares_read(a, paths, &l, readers < READERS_MAX ? readers : READERS_MAX, out));
    heap_trim(); /* what DuckDB's readers leave is a third of the rows' own memory */
    rows_finish(out, spec->until == 0);
    return NULL;
}

err rows_read(struct worker *w, int64_t bytes_max, struct rows *out)
{
    struct version_in version;
    struct layout l;
    TRY(version_get(w->blobs, w->a, yyjson_obj_get(w->spec, "rows"), &version));
    layout_read(w->a, &version.spec, &l);
    TRY(layout_check(&l, version.name));
    if (!l.known)
        worker_say(w, "no column says when a label became known: every row before the split is learned from");
    TRY(size_check(&version.spec, l.n, bytes_max));
    TRY_AS(rows_load(w->a, &version.paths, &version.spec, out), "reading '%.*s'", STR(version.name));
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

/* Rows from `first` on go to their places; those before are there already. */
static void rows_move(struct rows *r, const struct place *places, size_t first)
{
    auto_arena struct arena *scratch = arena_new(0);
    size_t n = r->n - first, width = r->features * sizeof *r->x;
    char *x = arena_alloc(scratch, arena_mul(n, width), 64);
    float *y = NEW_N(scratch, float, n);
    int64_t *at = NEW_N(scratch, int64_t, n), *known = NEW_N(scratch, int64_t, n);
    struct str *text = NEW_N(scratch, struct str, arena_mul(n, r->texts) + 1);
    for (size_t i = 0; i < n; i++) {
        size_t from = places[first + i].row;
        for (size_t k = 0; k < r->texts; k++)
            text[i * r->texts + k] = r->text[from * r->texts + k];
        memcpy(x + i * width, r->x + from * r->features, width);
        y[i] = r->y[from];
        at[i] = r->at[from];
        known[i] = r->known[from];
    }
    memcpy(r->x + first * r->features, x, n * width);
    if (r->texts)
        memcpy(r->text + first * r->texts, text, n * r->texts * sizeof *text);
    memcpy(r->y + first, y, n * sizeof *y);
    memcpy(r->at + first, at, n * sizeof *at);
    memcpy(r->known + first, known, n * sizeof *known);
}

/* Where each row goes. Tables are mostly in order of time, and then three ascending runs need no sorting. */
static void places_make(const struct rows *r, int64_t split, struct place *places)
{
    bool ordered = true;
    size_t at[REST + 1] = { 0 };
    for (size_t i = 0; i < r->n; i++) {
        ordered &= i == 0 || r->at[i - 1] <= r->at[i];
        at[part_of(r, i, split)]++;
    }
    at[REST] = at[LEARN] + at[HELD_OUT];
    at[HELD_OUT] = at[LEARN];
    at[LEARN] = 0;
    for (size_t i = 0; i < r->n; i++) {
        enum part part = part_of(r, i, split);
        places[at[part]++] = (struct place){ part, (uint32_t)i, r->at[i] };
    }
    if (!ordered)
        qsort(places, r->n, sizeof *places, by_place);
}

static err labels_differ(const float *y, size_t n, const char *what, struct str when)
{
    if (n == 0)
        FAIL(INVALID, "there are no rows %s (%.*s)", what, STR(when));
    for (size_t i = 1; i < n; i++)
        if (y[i] != y[0])
            return NULL;
    FAIL(INVALID, "all %zu rows %s have the label %g", n, what, (double)y[0]);
}

err rows_split(struct rows *r, int64_t holdout_ms, struct rows_split *out)
{
    if (r->n == 0 || r->n > UINT32_MAX)
        FAIL(INVALID, "%zu rows cannot be split", r->n);
    auto_arena struct arena *scratch = arena_new(0);
    struct place *places = NEW_N(scratch, struct place, r->n);
    *out = (struct rows_split){ .until = r->until };
    if (__builtin_mul_overflow(holdout_ms, 1000, &out->split) ||
        __builtin_sub_overflow(r->until, out->split, &out->split))
        FAIL(INVALID, "the holdout is out of range");
    places_make(r, out->split, places);
    size_t first = 0;
    while (first < r->n && places[first].row == first)
        first++;
    for (size_t i = 0; i < r->n; i++)
        ++*(places[i].part == LEARN ? &out->train : places[i].part == HELD_OUT ? &out->valid : &out->unknown);
    rows_move(r, places, first);
    struct str split = time_text(scratch, out->split), until = time_text(scratch, out->until);
    TRY(labels_differ(r->y, out->train, "to learn from", fmt(scratch, "known before %.*s", STR(split))));
    TRY(labels_differ(r->y + out->train, out->valid, "held out",
                      fmt(scratch, "from %.*s to %.*s", STR(split), STR(until))));
    out->from = r->at[0];
    return NULL;
}
