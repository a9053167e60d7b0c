// SPDX-License-Identifier: Apache-2.0
#include "data/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

err source_path_check(struct str path)
{
    struct str rest = path, part;
    if (!path.n || path.p[0] == '/' || str_has_nul(path))
        FAIL(INVALID, "source path '%.*s' must be relative to the server's folder of sources", STR(path));
    while (str_cut(&rest, '/', &part))
        if (!part.n || str_is(part, ".") || str_is(part, ".."))
            FAIL(INVALID, "source path '%.*s' leaves the server's folder of sources", STR(path));
    if (path.p[path.n - 1] == '/')
        FAIL(INVALID, "source path '%.*s' is a folder", STR(path));
    return NULL;
}

/* Step by step from the folder, no step a link: what openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS) does, on
 * every kernel and in every sandbox. */
err source_open(const char *root, struct str path, int *fd)
{
    TRY(source_path_check(path));
    auto_arena struct arena *a = arena_new(0);
    auto_close int at = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (at < 0)
        return err_errno(errno, "cannot open the folder of sources");
    struct str rest = path, part;
    while (str_cut(&rest, '/', &part)) {
        int flags = rest.n ? O_PATH | O_DIRECTORY : O_RDONLY | O_NONBLOCK;
        int next = openat(at, str_z(a, part), flags | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0 && (errno == ELOOP || errno == ENOTDIR))
            FAIL(INVALID, "source path '%.*s' goes through a link or a file", STR(path));
        if (next < 0)
            return err_errno(errno, "cannot open source file '%.*s'", STR(path));
        close(at);
        at = next;
    }
    struct stat st;
    if (fstat(at, &st) || !S_ISREG(st.st_mode))
        FAIL(INVALID, "source path '%.*s' is not a file", STR(path));
    *fd = at;
    at = -1;
    return NULL;
}

static err source_stat(const char *root, struct str path, struct stat *out)
{
    auto_close int fd = -1;
    TRY(source_open(root, path, &fd));
    if (fstat(fd, out))
        return err_errno(errno, "cannot look at source file '%.*s'", STR(path));
    return NULL;
}

err source_hash(struct arena *a, const char *root, struct source_file *f)
{
    struct stat st;
    TRY_AS(source_stat(root, f->path, &st), "source '%.*s'", STR(f->name));
    f->file = fmtz(a, "%s/%.*s", root, STR(f->path));
    f->dev = (int64_t)st.st_dev;
    f->ino = (int64_t)st.st_ino;
    f->mtime_ns = st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
    TRY_AS(file_sha256(a, f->file, &f->sha, &f->bytes), "source '%.*s'", STR(f->name));
    return NULL;
}

err source_same(struct arena *a, const char *root, const struct source_file *f)
{
    struct stat st;
    (void)a;
    TRY_AS(source_stat(root, f->path, &st), "source '%.*s'", STR(f->name));
    if ((int64_t)st.st_dev != f->dev || (int64_t)st.st_ino != f->ino || st.st_size != f->bytes ||
        st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec != f->mtime_ns)
        return err_hint(err_new(CONFLICT, "source '%.*s': file '%.*s' changed while it was read",
                                STR(f->name), STR(f->path)),
                        "write a new file and rename it into place, then ingest again");
    return NULL;
}

err source_view(struct duck *d, struct arena *a, struct source_file *f)
{
    static const char *const from[] = {
        [FORMAT_PARQUET] = "SELECT *, file_row_number FROM read_parquet(%.*s)",
        [FORMAT_CSV] = "SELECT * FROM read_csv(%.*s)",
        [FORMAT_JSON] = "SELECT * FROM read_json(%.*s)",
        [FORMAT_TEXT] = "SELECT generate_subscripts(lines, 1) AS line, unnest(lines) AS text FROM "
                        "(SELECT string_split(content, chr(10)) AS lines FROM read_text(%.*s))"
    };
    struct str file = sql_text(a, str_of(f->file)), name = sql_name(a, f->name);
    struct buf sql = buf_new(a);
    buf_fmt(&sql, "CREATE VIEW %.*s AS ", STR(name));
    buf_fmt(&sql, from[f->format], STR(file));
    err e = duck_run(d, "%.*s", STR(buf_get(&sql)));
    if (!e)
        e = duck_describe(d, a, fmt(a, "SELECT * FROM %.*s", STR(name)), &f->columns);
    TRY_AS(e, "source '%.*s' (file %.*s) cannot be read as %s", STR(f->name), STR(f->path),
           source_formats[f->format]);
    return NULL;
}

/* ---- whose fault ---- */

/* "word", 'word' or column word: DuckDB's ways to name a column. */
static bool mentions(struct str text, struct str word)
{
    auto_arena struct arena *a = arena_new(0);
    struct str as[] = { fmt(a, "\"%.*s\"", STR(word)), fmt(a, "'%.*s'", STR(word)),
                        fmt(a, "column %.*s", STR(word)) };
    for (size_t i = 0; i < sizeof as / sizeof *as; i++)
        if (memmem(text.p, text.n, as[i].p, as[i].n))
            return true;
    return false;
}

static struct str type_wanted(const struct dataset_spec *spec, struct str column)
{
    for (size_t i = 0; i < spec->expect.n; i++) {
        const struct expect_rule *r = (const struct expect_rule *)spec->expect.v + i;
        for (size_t k = 0; r->rule == RULE_SCHEMA && k < r->columns.n; k++)
            if (str_eq(r->columns.v[k].key, column))
                return r->columns.v[k].value;
    }
    return S("");
}

/* A column of a source that bears the name of one of the dataset's and is of another kind of type. */
static bool type_differs(const struct dataset_spec *spec, const struct duck_column *c, struct str *wanted)
{
    enum column_type have, want;
    *wanted = type_wanted(spec, c->name);
    return wanted->n && column_type_of(*wanted, &want) && (!column_type_of(c->type, &have) || have != want);
}

/* Reads every column of a source alone: a damaged page is found where it is. */
static err source_scan(struct duck *d, struct arena *a, const struct source_file *f)
{
    for (size_t i = 0; i < f->columns.n; i++) {
        err e = duck_run(d, "SELECT max(hash(%.*s)) FROM %.*s", STR(sql_name(a, f->columns.v[i].name)),
                         STR(sql_name(a, f->name)));
        TRY_AS(e, "source '%.*s': file %.*s is damaged in column '%.*s'", STR(f->name), STR(f->path),
               STR(f->columns.v[i].name));
    }
    return NULL;
}

err source_blame(struct duck *d, struct arena *a, const struct source_file *f, size_t n,
                 const struct dataset_spec *spec, err e)
{
    if (e->code != INVALID)
        return e;
    struct buf b = buf_new(a);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < f[i].columns.n; k++) {
            const struct duck_column *c = &f[i].columns.v[k];
            struct str wanted;
            bool differs = type_differs(spec, c, &wanted);
            if (!differs && !mentions(e->text, c->name))
                continue;
            buf_fmt(&b, "%s file %.*s: column '%.*s' is %.*s", b.n ? ";" : "", STR(f[i].path), STR(c->name),
                    STR(c->type));
            if (differs)
                buf_fmt(&b, ", %.*s is expected", STR(wanted));
        }
    if (b.n)
        return err_new(INVALID, "%.*s (%.*s)", STR(e->text), STR(str_trim(buf_get(&b))));
    for (size_t i = 0; i < n; i++)
        TRY(source_scan(d, a, &f[i]));
    return e;
}
