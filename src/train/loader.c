// SPDX-License-Identifier: Apache-2.0
#include "train/loader_internal.h"

#include <errno.h>
#include <stdlib.h>

const struct str loader_part_names[LOADER_PARTS] = { S_INIT("train"), S_INIT("valid"), S_INIT("test") };

/* ---- what is asked for, checked ---- */

static err kind_check(const struct loader_input *in, bool table)
{
    const char *why = NULL;
    bool one = in->columns.n == 1;
    if (in->role == ROLE_WEIGHT && (in->kind != KIND_NUMBERS || !one))
        why = "a weight is one column of numbers";
    else if (in->role == ROLE_GROUP && (in->kind != KIND_CATEGORIES || !one || !table))
        why = "a group is one column of a table, as categories";
    else if (in->kind == KIND_CATEGORIES && !table)
        why = "an array's categories are ids: say array, with ids";
    else if (in->kind == KIND_TOKENS && (in->length < 1 || in->length > 1 << 24))
        why = "tokens need a length";
    else if (in->kind != KIND_NUMBERS && in->kind != KIND_CATEGORIES && !one)
        why = "it needs one column";
    else if (!table && !one)
        why = "of arrays it needs one column";
    else if (in->kind == KIND_CATEGORIES && !in->columns.n)
        why = "categories need columns";
    else if (in->rank < 0 || in->rank > 4)
        why = "its shape has more than 4 sizes";
    else if ((in->role == ROLE_WEIGHT || in->role == ROLE_GROUP) && in->normalise)
        why = "it cannot be normalised";
    else if (in->kind == KIND_CLASS && (in->missing == MISSING_MEAN || in->missing == MISSING_FILL))
        why = "a class that is missing cannot be filled: say skip, or error";
    else if (in->missing == MISSING_SKIP && !table)
        why = "rows of arrays cannot be skipped";
    if (why)
        FAIL(INVALID, "input '%.*s': %s", STR(in->name), why);
    return NULL;
}

static err inputs_check(const struct loader_spec *s, bool table)
{
    if (!s->n_inputs || s->n_inputs > LOADER_TENSORS_MAX)
        FAIL(INVALID, "%zu inputs, 1 to %d are possible", s->n_inputs, LOADER_TENSORS_MAX);
    for (size_t i = 0; i < s->n_inputs; i++) {
        TRY(kind_check(&s->inputs[i], table));
        for (size_t k = 0; k < i; k++)
            if (str_eq(s->inputs[i].name, s->inputs[k].name))
                FAIL(INVALID, "two inputs have the name '%.*s'", STR(s->inputs[i].name));
    }
    return NULL;
}

static err split_check(const struct loader_spec *s, bool table)
{
    const struct loader_split *p = &s->split;
    if (!(p->valid >= 0 && p->test >= 0 && p->valid + p->test < 1))
        FAIL(INVALID, "shares of %g and %g for validation and test leave nothing to learn from", p->valid,
             p->test);
    if (!table && (p->at.n || p->group.n))
        FAIL(INVALID, "arrays and streams have no column '%.*s' to split by",
             STR(p->at.n ? p->at : p->group));
    if (p->at.n && (p->holdout_ms <= 0 || p->valid > 0 || p->test > 0 || p->group.n))
        FAIL(INVALID, "a split by time needs a holdout, and no shares or group");
    return NULL;
}

/* ---- files ---- */

static struct str file_name(struct str path)
{
    for (size_t i = path.n; i; i--)
        if (path.p[i - 1] == '/')
            return str_sub(path, i, path.n);
    return path;
}

static enum loader_format format_of_bytes(const unsigned char *p, size_t n)
{
    if (n >= 4 && !memcmp(p, "PAR1", 4))
        return FILE_PARQUET;
    if (n >= 6 && !memcmp(p, "\x93NUMPY", 6))
        return FILE_NPY;
    if (n >= 4 && !p[0] && !p[1] && p[2] >= 8 && p[2] <= 14 && p[3] >= 1 && p[3] <= 4)
        return FILE_IDX;
    return FILE_AUTO;
}

static err format_find(struct loader_file *f)
{
    auto_arena struct arena *a = arena_new(0);
    static const struct {
        const char *end;
        enum loader_format format;
    } names[] = { { ".csv", FILE_CSV },
                  { ".tsv", FILE_CSV },
                  { ".csv.gz", FILE_CSV },
                  { ".txt", FILE_TEXT },
                  { ".gz", FILE_IDX } };
    unsigned char head[8];
    const char *path = str_z(a, f->path);
    auto_fclose FILE *file = fopen(path, "rb");
    if (!file)
        return err_errno(errno, "opening %s", path);
    size_t n = fread(head, 1, sizeof head, file);
    if (ferror(file))
        return err_errno(errno, "reading %s", path);
    if (f->format == FILE_AUTO)
        f->format = format_of_bytes(head, n);
    for (size_t i = 0; i < sizeof names / sizeof *names && f->format == FILE_AUTO; i++)
        if (str_ends(f->path, str_of(names[i].end)))
            f->format = names[i].format;
    if (f->format == FILE_AUTO)
        return err_hint(err_new(INVALID, "what is in '%s' is not known", path),
                        "Parquet, .csv, .npy, IDX (.gz) and .txt are read");
    return NULL;
}

static err path_absolute(struct arena *a, struct str *path)
{
    char *full = realpath(str_z(a, *path), NULL);
    if (!full)
        return err_errno(errno, "opening %.*s", STR(*path));
    *path = str_dup(a, str_of(full));
    free(full);
    return NULL;
}

static err files_take(struct loader *l)
{
    const struct loader_spec *s = &l->spec;
    if (!s->n_files)
        FAIL(INVALID, "there are no files to read");
    l->files = NEW_N(l->a, struct loader_file, s->n_files);
    bool stream = false;
    for (size_t i = 0; i < s->n_inputs; i++)
        stream |= s->inputs[i].kind == KIND_TOKENS;
    for (size_t i = 0; i < s->n_files; i++) {
        struct loader_file *f = &l->files[i];
        *f = s->files[i];
        f->path = str_dup(l->a, f->path);
        f->column = str_dup(l->a, f->column);
        TRY(format_find(f));
        bool table = f->format == FILE_PARQUET || f->format == FILE_CSV;
        if (i && !stream && table != l->table)
            FAIL(INVALID, "'%.*s' is %s, '%.*s' is not: read one or the other", STR(f->path),
                 table ? "a table" : "an array", STR(l->files[0].path));
        l->table = table && !stream;
        if (table)
            TRY(path_absolute(l->a, &f->path)); /* DuckDB is let to these files alone, by name */
    }
    l->spec.files = l->files;
    return NULL;
}

/* ---- slots ---- */

static void strs_dup(struct arena *a, struct strs *s)
{
    struct strs to = { 0 };
    for (size_t i = 0; i < s->n; i++)
        push(a, &to, str_dup(a, s->v[i]));
    *s = to;
}

static void inputs_take(struct loader *l)
{
    struct loader_input *in = NEW_N(l->a, struct loader_input, l->spec.n_inputs);
    l->n = l->spec.n_inputs;
    l->slots = NEW_N(l->a, struct slot, l->n);
    l->tensors = NEW_N(l->a, struct loader_tensor, l->n);
    for (size_t i = 0; i < l->n; i++) {
        in[i] = l->spec.inputs[i];
        in[i].name = str_dup(l->a, in[i].name);
        strs_dup(l->a, &in[i].columns);
        l->slots[i].in = &in[i];
        l->slots[i].most = -1;
        l->slots[i].gather.each = 1;
        struct loader_tensor *t = l->slots[i].tensor = &l->tensors[i];
        t->name = in[i].name;
        t->role = in[i].role;
        t->kind = in[i].kind;
        t->columns = in[i].columns;
        t->each = 1;
    }
    l->spec.inputs = in;
    l->spec.split.group = str_dup(l->a, l->spec.split.group);
    l->spec.split.at = str_dup(l->a, l->spec.split.at);
    l->spec.split.known = str_dup(l->a, l->spec.split.known);
    l->spec.state = str_dup(l->a, l->spec.state);
}

/* ---- opening ---- */

err parts_check(const struct loader *l)
{
    int64_t all = 0;
    for (int p = 0; p < LOADER_PARTS; p++)
        all += l->facts.rows[p];
    if (!all)
        FAIL(INVALID, "there are no rows in '%.*s'%s (%lld skipped, %lld not known in time)",
             STR(l->files[0].path), l->spec.n_files > 1 ? " and the others" : "", (long long)l->facts.skipped,
             (long long)l->facts.unknown);
    if (!l->facts.rows[LOADER_TRAIN] && !l->spec.state.n)
        FAIL(INVALID, "there are no rows to learn from: all %lld are held out or came too late",
             (long long)all);
    return NULL;
}

static void loader_close(void *arg)
{
    struct loader *l = arg;
    store_free(&l->kept);
    for (int p = 0; p < LOADER_PARTS; p++)
        free(l->rows[p]);
}

static err opening(struct loader *l)
{
    TRY(files_take(l));
    TRY(inputs_check(&l->spec, l->table));
    TRY(split_check(&l->spec, l->table));
    inputs_take(l);
    return l->table ? table_open(l) : files_open(l);
}

err loader_open(struct arena *a, const struct loader_spec *spec, struct loader **out)
{
    int64_t start = mono_ns();
    struct loader *l = NEW(a, struct loader);
    *l = (struct loader){ .a = a, .spec = *spec, .group = SIZE_MAX, .at = SIZE_MAX, .known = SIZE_MAX };
    if (!l->spec.memory_max)
        l->spec.memory_max = (int64_t)2 << 30;
    arena_defer(a, loader_close, l);
    TRY(opening(l));
    l->facts.seconds = (double)(mono_ns() - start) / 1e9;
    *out = l;
    return NULL;
}

/* ---- asking ---- */

size_t loader_tensors(const struct loader *l, const struct loader_tensor **out)
{
    *out = l->tensors;
    return l->n;
}

const struct loader_tensor *loader_find(const struct loader *l, struct str name)
{
    for (size_t i = 0; i < l->n; i++)
        if (str_eq(l->tensors[i].name, name))
            return &l->tensors[i];
    return NULL;
}

const struct loader_tensor *loader_role(const struct loader *l, enum loader_role role)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->tensors[i].role == role)
            return &l->tensors[i];
    return NULL;
}

struct loader_facts loader_facts(const struct loader *l)
{
    return l->facts;
}

/* Place of `row` in a file, for errors. */
struct str place_text(struct arena *a, const struct loader *l, struct place p)
{
    return fmt(a, "row %lld (from 0) of '%.*s'", (long long)p.row, STR(file_name(l->files[p.file].path)));
}

/* ---- raw numbers ---- */

/* Every row of a part that is wanted, by its number among the part's. */
static size_t raw_pick(int64_t have, size_t want, size_t i)
{
    return (size_t)((unsigned __int128)i * (size_t)have / want);
}

/* A category is the number that its text says; what is missing or not in the vocabulary is none. */
static void raw_row(const struct loader_tensor *t, const struct gather *kept, size_t row, int64_t *ids,
                    float *out)
{
    struct gather g = *kept;
    g.shift = g.scale = g.fill = NULL;
    g.indicator = false;
    if (t->kind != KIND_CATEGORIES) {
        gather_rows(&g, NULL, row, 1, out);
        return;
    }
    gather_rows(&g, NULL, row, 1, ids);
    for (size_t c = 0; c < g.width; c++) {
        double v;
        bool known = t->numeric[c] && ids[c] >= 2 && str_f64(t->vocabulary[c].v[ids[c] - 2], &v);
        out[c] = known ? (float)v : NAN;
    }
}

static err raw_blocks(const struct loader *l, enum loader_part part, size_t tensor, size_t want, int64_t *ids,
                      float *to)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct duck *d;
    int64_t from = 0;
    size_t i = 0;
    TRY(table_duck(l, tmp, &d));
    for (size_t b = 0; b < l->blocks.n && i < want; b++) {
        int64_t end = from + l->blocks.v[b].part[part];
        struct store s = { 0 };
        if ((int64_t)raw_pick(l->facts.rows[part], want, i) < end) {
            err e = table_block(l, d, &l->blocks.v[b], part, &s);
            if (e) {
                store_free(&s);
                return e;
            }
            const struct gather *g = &s.gather[tensor];
            for (size_t row; i < want && (int64_t)(row = raw_pick(l->facts.rows[part], want, i)) < end; i++)
                raw_row(&l->tensors[tensor], g, row - (size_t)from, ids, to + i * g->width);
        }
        store_free(&s);
        from = end;
    }
    return NULL;
}

err loader_raw_into(const struct loader *l, enum loader_part part, size_t tensor, size_t rows, float *out)
{
    if (tensor >= l->n ||
        (l->tensors[tensor].type != TENSOR_F32 && l->tensors[tensor].kind != KIND_CATEGORIES))
        FAIL(INVALID, "there are no raw numbers of input %zu", tensor);
    auto_arena struct arena *tmp = arena_new(0);
    size_t width = l->slots[tensor].gather.width;
    int64_t have = l->facts.rows[part], *ids = NEW_N(tmp, int64_t, width + 1);
    if (!l->facts.kept)
        return raw_blocks(l, part, tensor, rows, ids, out);
    for (size_t i = 0; i < rows; i++)
        raw_row(&l->tensors[tensor], &l->kept.gather[tensor], l->rows[part][raw_pick(have, rows, i)], ids,
                out + i * width);
    return NULL;
}

err loader_raw(const struct loader *l, struct arena *a, enum loader_part part, size_t tensor, size_t rows_max,
               float **out, size_t *rows)
{
    size_t have = (size_t)l->facts.rows[part], width = tensor < l->n ? l->slots[tensor].gather.width : 0;
    *rows = have < rows_max ? have : rows_max;
    *out = NEW_N(a, float, arena_mul(*rows + 1, width));
    return loader_raw_into(l, part, tensor, *rows, *out);
}
