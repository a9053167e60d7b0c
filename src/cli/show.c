// SPDX-License-Identifier: Apache-2.0
/* Tables, progress, and values out of JSON. */
#include "cli/cli.h"
#include "cli/csv.h"
#include <stdlib.h>
#include <unistd.h>

bool cli_tty(FILE *f)
{
    const char *term = getenv("TERM");
    return isatty(fileno(f)) && !(term && !strcmp(term, "dumb"));
}

static bool progress_shown;

void cli_progress(const char *f, ...)
{
    if (!cli_tty(stderr))
        return;
    va_list ap;
    va_start(ap, f);
    fprintf(stderr, "\r\033[K");
    vfprintf(stderr, f, ap);
    va_end(ap);
    fflush(stderr);
    progress_shown = true;
}

void cli_progress_end(void)
{
    if (progress_shown)
        fprintf(stderr, "\r\033[K");
    progress_shown = false;
}

struct table table_new(struct arena *a, size_t columns)
{
    return (struct table){ .a = a, .columns = columns };
}

void table_cell(struct table *t, struct str s)
{
    push(t->a, &t->cells, s);
}

void table_heading(struct table *t, struct str key)
{
    char *up = NEW_N(t->a, char, key.n + 1);
    for (size_t i = 0; i < key.n; i++)
        up[i] = (char)(key.p[i] - ('a' <= key.p[i] && key.p[i] <= 'z') * 32);
    table_cell(t, (struct str){ up, key.n });
}

/* Columns as people count them: a UTF-8 sequence is one. */
static size_t width(struct str s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    return n;
}

static struct str cell_text(struct str s)
{
    return s.n ? s : S("-");
}

void table_print(const struct table *t, FILE *f)
{
    size_t *wide = NEW_N(t->a, size_t, t->columns);
    for (size_t i = 0; i < t->cells.n; i++)
        if (width(cell_text(t->cells.v[i])) > wide[i % t->columns])
            wide[i % t->columns] = width(cell_text(t->cells.v[i]));
    for (size_t i = 0; i < t->cells.n; i++) {
        struct str s = cell_text(t->cells.v[i]);
        size_t column = i % t->columns, pad = column + 1 == t->columns ? 0 : wide[column] - width(s) + 2;
        fprintf(f, "%.*s%*s", STR(s), (int)pad, "");
        if (column + 1 == t->columns)
            fputc('\n', f);
    }
}

void cli_table(const struct cli *c, const struct table *t)
{
    if (c->output != OUT_CSV) {
        table_print(t, stdout);
        return;
    }
    for (size_t i = 0; i < t->cells.n; i++) {
        struct str s = csv_text(t->a, t->cells.v[i]);
        printf("%.*s%c", STR(s), (i + 1) % t->columns ? ',' : '\n');
    }
}

struct str age_text(struct arena *a, int64_t us)
{
    int64_t s = (now_us() - us) / 1000000;
    if (us <= 0)
        return S("");
    if (s < 120)
        return fmt(a, "%llds", (long long)(s < 0 ? 0 : s));
    if (s < 7200)
        return fmt(a, "%lldm", (long long)s / 60);
    return s < 172800 ? fmt(a, "%lldh", (long long)s / 3600) : fmt(a, "%lldd", (long long)s / 86400);
}

yyjson_val *json_at(yyjson_val *v, const char *path)
{
    struct str rest = str_of(path), part;
    while (v && str_cut(&rest, '.', &part))
        v = yyjson_obj_getn(v, part.p, part.n);
    return v;
}

struct str json_value_text(struct arena *a, yyjson_val *v)
{
    if (!v || yyjson_is_null(v))
        return S("");
    if (yyjson_is_str(v))
        return json_text(v);
    char *text = yyjson_val_write(v, 0, NULL);
    struct str out = str_dup(a, str_of(text ? text : ""));
    free(text);
    return out;
}

struct str json_text_at(struct arena *a, yyjson_val *v, const char *path)
{
    return json_value_text(a, json_at(v, path));
}

err cli_show(struct cli *c, yyjson_val *v, void (*table)(struct cli *, yyjson_val *))
{
    bool rows = c->output == OUT_TABLE || c->output == OUT_CSV;
    if (rows && table) {
        table(c, v);
        return NULL;
    }
    if (c->output == OUT_CSV)
        return err_hint(err_new(INVALID, "this is no table: it cannot be shown as CSV"), "-o json");
    char *text = yyjson_val_write(v, c->output == OUT_JSON ? YYJSON_WRITE_PRETTY_TWO_SPACES : 0, NULL);
    struct str s = str_dup(c->a, str_of(text ? text : "null"));
    free(text);
    if (c->output != OUT_JSON)
        TRY(json_to_yaml(c->a, s, &s));
    printf("%.*s%s", STR(s), s.n && s.p[s.n - 1] == '\n' ? "" : "\n");
    return NULL;
}
