// SPDX-License-Identifier: Apache-2.0
#include "data/duck.h"

#include "data/dict.h"
#include "data/duckdb_api.h"
#include <dlfcn.h>
#include <math.h>
#include <unistd.h>

/* ---- the library: found once a process ---- */

static struct duckdb_api D;
static char library_path[4096], library_why[1024];
static bool library_there;
static pthread_once_t library_once = PTHREAD_ONCE_INIT;

static const struct {
    const char *name;
    size_t offset;
} library_functions[] = {
#define D(result, name, parameters) { "duckdb_" #name, offsetof(struct duckdb_api, name) },
    DDB_FUNCTIONS(D)
#undef D
};

static bool functions_bind(void *so)
{
    for (size_t i = 0; i < sizeof library_functions / sizeof *library_functions; i++) {
        void *f = dlsym(so, library_functions[i].name);
        if (!f) {
            snprintf(library_why, sizeof library_why, "it has no function %s", library_functions[i].name);
            return false;
        }
        memcpy((char *)&D + library_functions[i].offset, &f, sizeof f);
    }
    return true;
}

static bool library_try(const char *path)
{
    void *so = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!so) {
        snprintf(library_why, sizeof library_why, "%s", dlerror());
        return false;
    }
    snprintf(library_path, sizeof library_path, "%s", path);
    library_there = functions_bind(so);
    return true;
}

static bool library_beside(struct arena *a)
{
    static const char *const places[] = {
        "lib", "../lib", "../.deps/lib", "../../.deps/lib", "../../../.deps/lib", "../../../../.deps/lib"
    };
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return false;
    while (n && exe[n - 1] != '/')
        n--;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *path = fmtz(a, "%.*s%s/libduckdb.so", (int)n, exe, places[i]);
        if (file_exists(path) && library_try(path))
            return true;
    }
    return false;
}

static void library_load(void)
{
    auto_arena struct arena *a = arena_new(0);
    const char *given = getenv("DHOW_DUCKDB_LIB");
    if (given && *given)
        library_try(given); /* given, then it alone */
    else if (!library_beside(a))
        library_try("libduckdb.so");
}

static err library_need(void)
{
    pthread_once(&library_once, library_load);
    if (library_there)
        return NULL;
    return err_hint(err_new(UNAVAILABLE, "DuckDB's library libduckdb.so cannot be loaded: %s", library_why),
                    "run `make setup`, or set DHOW_DUCKDB_LIB to the path of libduckdb.so");
}

err duck_library(struct arena *a, struct str *path, struct str *version)
{
    TRY(library_need());
    *path = str_dup(a, str_of(library_path));
    *version = str_dup(a, str_of(D.library_version()));
    return NULL;
}

/* ---- a database ---- */

struct duck {
    ddb_database db;
    ddb_connection con;
    bool (*stop)(void *arg);
    void *stop_arg;
};
enum { TICK_NS = 100000000, IDLE_US = 200 };

static void duck_close(void *arg)
{
    struct duck *d = arg;
    if (d->con)
        D.disconnect(&d->con);
    if (d->db)
        D.close(&d->db);
}

struct str sql_text(struct arena *a, struct str s)
{
    struct buf b = buf_new(a);
    buf_put(&b, "'", 1);
    for (size_t i = 0; i < s.n; i++)
        buf_put(&b, s.p[i] == '\'' ? "''" : &s.p[i], s.p[i] == '\'' ? 2 : 1);
    buf_put(&b, "'", 1);
    return buf_get(&b);
}

struct str sql_name(struct arena *a, struct str s)
{
    struct buf b = buf_new(a);
    buf_put(&b, "\"", 1);
    for (size_t i = 0; i < s.n; i++)
        buf_put(&b, s.p[i] == '"' ? "\"\"" : &s.p[i], s.p[i] == '"' ? 2 : 1);
    buf_put(&b, "\"", 1);
    return buf_get(&b);
}

struct str sql_parquet(struct arena *a, const struct strs *paths)
{
    struct buf b = buf_new(a);
    buf_str(&b, S("read_parquet(["));
    for (size_t i = 0; i < paths->n; i++) {
        buf_str(&b, i ? S(",") : S(""));
        buf_str(&b, sql_text(a, paths->v[i]));
    }
    buf_str(&b, S("])"));
    return buf_get(&b);
}

static bool has(const char *text, const char *word)
{
    return strstr(text, word) != NULL;
}

static enum err_code code_of(const char *text)
{
    if (has(text, "No space left on device"))
        return FULL;
    if (has(text, "INTERRUPT") || has(text, "Interrupted"))
        return CANCELLED;
    if (has(text, "Out of Memory"))
        return LIMIT;
    if (has(text, "INTERNAL Error"))
        return INTERNAL;
    return INVALID;
}

/* DuckDB's words on one line, without the excerpt of the SQL. */
static err duck_fail(const char *text)
{
    if (!text || !*text)
        FAIL(INTERNAL, "DuckDB failed and did not say why");
    auto_arena struct arena *a = arena_new(0);
    const char *excerpt = strstr(text, "\n\nLINE ");
    struct str s = str_dup(a, str_sub(str_of(text), 0, excerpt ? (size_t)(excerpt - text) : 3000));
    for (size_t i = 0; i < s.n; i++)
        if (s.p[i] == '\n')
            ((char *)s.p)[i] = ' ';
    FAIL(code_of(text), "%.*s", STR(str_trim(s)));
}

static err config_set(ddb_config c, const char *name, const char *value)
{
    if (D.set_config(c, name, value) != DDB_OK)
        FAIL(INTERNAL, "DuckDB %s does not take the setting %s=%s", D.library_version(), name, value);
    return NULL;
}

static err config_fill(struct arena *a, ddb_config c, const struct duck_config *in)
{
    int64_t memory = in->memory_bytes ? in->memory_bytes : (int64_t)2 << 30;
    TRY(config_set(c, "threads", fmtz(a, "%d", in->threads ? in->threads : cpu_count())));
    TRY(config_set(c, "memory_limit", fmtz(a, "%lldB", (long long)memory)));
    TRY(config_set(c, "autoinstall_known_extensions", "false"));
    TRY(config_set(c, "autoload_known_extensions", "false"));
    TRY(config_set(c, "allow_community_extensions", "false"));
    return config_set(c, "temp_directory", in->tmp_dir ? in->tmp_dir : "");
}

static err duck_connect(struct duck *d, ddb_config c)
{
    char *why = NULL;
    if (D.open_ext(NULL, &d->db, c, &why) != DDB_OK) {
        err e = duck_fail(why);
        D.free(why);
        return e;
    }
    if (D.connect(d->db, &d->con) != DDB_OK)
        FAIL(INTERNAL, "DuckDB does not open a connection");
    return NULL;
}

static err duck_lock(struct duck *d, struct arena *a, const struct strs *files)
{
    struct buf list = buf_new(a);
    for (size_t i = 0; i < files->n; i++) {
        buf_str(&list, i ? S(",") : S(""));
        buf_str(&list, sql_text(a, files->v[i]));
    }
    TRY(duck_run(d, "SET enable_progress_bar = true"));
    TRY(duck_run(d, "SET enable_progress_bar_print = false"));
    TRY(duck_run(d, "SET allowed_paths = [%.*s]", STR(buf_get(&list))));
    TRY(duck_run(d, "SET enable_external_access = false"));
    return duck_run(d, "SET lock_configuration = true");
}

err duck_open(struct arena *a, const struct duck_config *in, struct duck **out)
{
    TRY(library_need());
    struct duck *d = NEW(a, struct duck);
    d->stop = in->stop;
    d->stop_arg = in->stop_arg;
    arena_defer(a, duck_close, d);
    ddb_config c = NULL;
    if (D.create_config(&c) != DDB_OK)
        FAIL(INTERNAL, "DuckDB makes no configuration");
    err e = config_fill(a, c, in);
    if (!e)
        e = duck_connect(d, c);
    D.destroy_config(&c);
    TRY_AS(e, "opening DuckDB");
    TRY_AS(duck_lock(d, a, &in->files), "opening DuckDB");
    *out = d;
    return NULL;
}

void duck_interrupt(struct duck *d)
{
    D.interrupt(d->con);
}

double duck_progress(struct duck *d)
{
    double p = D.query_progress(d->con).percentage;
    return p < 0 ? -1 : p / 100;
}

/* ---- statements ---- */

/* Runs task by task on this thread (DuckDB's own threads help), so that a stop is seen in between. */
static err pending_run(struct duck *d, ddb_pending p)
{
    for (int64_t next = mono_ns() + TICK_NS;;) {
        int state = D.pending_execute_task(p);
        if (D.pending_execution_is_finished(state))
            return NULL;
        if (state == DDB_ERROR)
            return duck_fail(D.pending_error(p));
        if (state == DDB_NO_TASKS)
            usleep(IDLE_US);
        if (d->stop && mono_ns() >= next) {
            if (d->stop(d->stop_arg))
                FAIL(CANCELLED, "stopped");
            next = mono_ns() + TICK_NS;
        }
    }
}

static err statement_run(struct duck *d, ddb_statement s, bool streaming, struct ddb_result *out)
{
    ddb_pending p = NULL;
    int state = streaming ? D.pending_prepared_streaming(s, &p) : D.pending_prepared(s, &p);
    err e = state == DDB_OK ? pending_run(d, p) : duck_fail(D.pending_error(p));
    if (!e && D.execute_pending(p, out) != DDB_OK) {
        e = duck_fail(D.result_error(out));
        D.destroy_result(out);
    }
    D.destroy_pending(&p);
    return e;
}

static err duck_result(struct duck *d, const char *sql, bool streaming, struct ddb_result *out)
{
    ddb_statement s = NULL;
    err e = D.prepare(d->con, sql, &s) == DDB_OK ? NULL : duck_fail(D.prepare_error(s));
    if (!e)
        e = statement_run(d, s, streaming, out);
    D.destroy_prepare(&s);
    return e;
}

err duck_run(struct duck *d, const char *f, ...)
{
    auto_arena struct arena *a = arena_new(0);
    va_list ap;
    va_start(ap, f);
    const char *sql = str_z(a, vfmt(a, f, ap));
    va_end(ap);
    struct ddb_result r = { 0 };
    TRY(duck_result(d, sql, false, &r));
    D.destroy_result(&r);
    return NULL;
}

static err select_check(struct duck *d, ddb_extracted list, uint64_t n)
{
    if (!n) {
        const char *why = D.extract_statements_error(list);
        if (why && *why)
            return duck_fail(why);
    }
    if (n != 1)
        FAIL(INVALID, "the query must be one SELECT, it has %llu statements", (unsigned long long)n);
    ddb_statement s = NULL;
    err e = NULL;
    if (D.prepare_extracted_statement(d->con, list, 0, &s) != DDB_OK)
        e = duck_fail(D.prepare_error(s));
    else if (D.prepared_statement_type(s) != DDB_STATEMENT_SELECT)
        e = err_new(INVALID, "the query must be a SELECT");
    D.destroy_prepare(&s);
    return e;
}

err duck_check_select(struct duck *d, struct str sql)
{
    if (str_has_nul(sql))
        FAIL(INVALID, "the query has a NUL byte in it");
    auto_arena struct arena *a = arena_new(0);
    ddb_extracted list = NULL;
    uint64_t n = D.extract_statements(d->con, str_z(a, sql), &list);
    err e = select_check(d, list, n);
    D.destroy_extracted(&list);
    return e;
}

/* ---- results ---- */

/* How a column is asked for, so that chunks hold four kinds of vectors only. */
static err column_sql(struct arena *a, struct buf *b, struct str name, struct str type, enum column_type *out)
{
    if (!column_type_of(type, out))
        FAIL(UNSUPPORTED, "column '%.*s' is %.*s, which cannot be read as a number, a time or text",
             STR(name), STR(type));
    struct str n = sql_name(a, name);
    if (*out == COL_TIME && !str_is(type, "TIMESTAMP WITH TIME ZONE"))
        buf_fmt(b, "epoch_us(CAST(%.*s AS TIMESTAMP))", STR(n));
    else if (*out == COL_TIME)
        buf_fmt(b, "epoch_us(%.*s)", STR(n));
    else
        buf_fmt(b, "CAST(%.*s AS %s)", STR(n),
                *out == COL_F64   ? "DOUBLE"
                : *out == COL_STR ? "VARCHAR"
                                  : "BIGINT");
    buf_fmt(b, " AS %.*s", STR(n));
    return NULL;
}

struct reader {
    struct duck *duck;
    struct ddb_result result;
    ddb_chunk chunk;
    struct columns columns; /* of the chunk; vectors are borrowed */
    struct dict *dicts;     /* per column */
    bool open;
};

static void reader_close(void *arg)
{
    struct reader *r = arg;
    if (r->chunk)
        D.destroy_data_chunk(&r->chunk);
    if (r->open)
        D.destroy_result(&r->result);
    r->open = false;
}

static err reader_open(struct duck *d, struct arena *a, struct str sql, bool streaming, struct reader **out)
{
    struct duck_columns cols;
    TRY(duck_describe(d, a, sql, &cols));
    struct buf b = buf_new(a);
    struct reader *r = NEW(a, struct reader);
    r->duck = d;
    r->columns.rows = D.vector_size();
    r->dicts = NEW_N(a, struct dict, cols.n);
    buf_str(&b, S("SELECT "));
    for (size_t i = 0; i < cols.n; i++) {
        enum column_type type;
        buf_str(&b, i ? S(", ") : S(""));
        TRY(column_sql(a, &b, cols.v[i].name, cols.v[i].type, &type));
        columns_add(a, &r->columns, cols.v[i].name, type);
        r->dicts[i].a = a;
    }
    buf_fmt(&b, " FROM (\n%.*s\n)", STR(sql));
    TRY(duck_result(d, str_z(a, buf_get(&b)), streaming, &r->result));
    r->open = true;
    arena_defer(a, reader_close, r);
    *out = r;
    return NULL;
}

err duck_read(struct duck *d, struct arena *a, struct str sql, struct reader **out)
{
    return reader_open(d, a, sql, true, out);
}

static void codes_fill(struct dict *d, const union ddb_string *s, const uint64_t *valid, size_t n,
                       uint32_t *out)
{
    union ddb_string last = { .n = 0 };
    uint32_t code = 0;
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        if (valid && !(valid[i / 64] >> (i % 64) & 1)) {
            out[i] = 0;
            continue;
        }
        if (!any || memcmp(&last, &s[i], sizeof last) != 0) {
            code = dict_code(d, (struct str){ s[i].n <= 12 ? s[i].inlined : s[i].far, s[i].n });
            last = s[i];
            any = true;
        }
        out[i] = code;
    }
}

static bool nulls_fill(const uint64_t *valid, size_t n, uint8_t *out)
{
    bool any = false;
    for (size_t i = 0; i < n; i++)
        any |= out[i] = !(valid[i / 64] >> (i % 64) & 1);
    return any;
}

/* The vector of a chunk → rows at `at` of c; null bytes are made with room for `room` rows. */
static void vector_take(struct arena *a, struct dict *dict, ddb_vector vec, size_t n, struct column *c,
                        size_t at, size_t room)
{
    const uint64_t *valid = D.vector_get_validity(vec);
    const void *data = D.vector_get_data(vec);
    if (c->type == COL_STR)
        codes_fill(dict, data, valid, n, c->code + at);
    else
        memcpy(c->type == COL_F64 ? (void *)(c->f + at) : (void *)(c->i + at), data, n * 8);
    if (!valid)
        return;
    uint8_t null[4096];
    for (size_t from = 0; from < n; from += sizeof null) {
        size_t m = n - from < sizeof null ? n - from : sizeof null;
        if (!nulls_fill(valid + from / 64, m, null))
            continue;
        if (!c->null)
            c->null = NEW_N(a, uint8_t, room);
        memcpy(c->null + at + from, null, m);
        for (size_t i = 0; i < m; i++)
            if (null[i] && c->type == COL_F64)
                c->f[at + from + i] = NAN;
            else if (null[i] && c->type != COL_STR)
                c->i[at + from + i] = 0;
    }
}

/* A NaN that came from outside is a null. */
static void nan_to_null(struct arena *a, struct column *c, size_t at, size_t n, size_t room)
{
    if (c->type != COL_F64)
        return;
    for (size_t i = at; i < at + n; i++)
        if (isnan(c->f[i])) {
            if (!c->null)
                c->null = NEW_N(a, uint8_t, room);
            c->null[i] = 1;
        }
}

static void dict_show(struct column *c, struct dict *d)
{
    if (c->type != COL_STR)
        return;
    if (!d->n)
        dict_code(d, S("")); /* code 0 of nulls stands for something */
    c->dict = d->v;
    c->dict_n = d->n;
}

/* The next chunk of the result, false at its end. */
static err chunk_next(struct reader *r, bool *more)
{
    if (r->chunk)
        D.destroy_data_chunk(&r->chunk);
    r->chunk = NULL;
    if (r->duck->stop && r->duck->stop(r->duck->stop_arg))
        FAIL(CANCELLED, "stopped");
    r->chunk = D.fetch_chunk(r->result);
    *more = r->chunk && D.data_chunk_get_size(r->chunk) > 0;
    const char *why = *more ? NULL : D.result_error(&r->result);
    return why && *why ? duck_fail(why) : NULL;
}

err reader_next(struct reader *r, struct columns *out)
{
    bool more;
    size_t room = D.vector_size();
    TRY(chunk_next(r, &more));
    r->columns.rows = more ? D.data_chunk_get_size(r->chunk) : 0;
    for (size_t i = 0; more && i < r->columns.n; i++) {
        struct column *c = &r->columns.v[i];
        struct arena *a = r->dicts[i].a;
        if (c->null)
            memset(c->null, 0, room);
        vector_take(a, &r->dicts[i], D.data_chunk_get_vector(r->chunk, i), r->columns.rows, c, 0, room);
        nan_to_null(a, c, 0, r->columns.rows, room);
        dict_show(c, &r->dicts[i]);
    }
    *out = r->columns;
    return NULL;
}

err duck_load(struct duck *d, struct arena *a, struct str sql, struct columns *out)
{
    struct reader *r;
    TRY(reader_open(d, a, sql, false, &r));
    struct columns c = { .rows = D.row_count(&r->result) };
    for (size_t i = 0; i < r->columns.n; i++)
        columns_add(a, &c, r->columns.v[i].name, r->columns.v[i].type);
    size_t at = 0;
    for (bool more;;) {
        TRY(chunk_next(r, &more));
        if (!more)
            break;
        size_t n = D.data_chunk_get_size(r->chunk);
        if (n > c.rows - at)
            FAIL(INTERNAL, "DuckDB gave more rows than it said");
        for (size_t i = 0; i < c.n; i++) {
            vector_take(a, &r->dicts[i], D.data_chunk_get_vector(r->chunk, i), n, &c.v[i], at, c.rows);
            nan_to_null(a, &c.v[i], at, n, c.rows);
        }
        at += n;
    }
    for (size_t i = 0; i < c.n; i++)
        dict_show(&c.v[i], &r->dicts[i]);
    c.rows = at;
    reader_close(r);
    *out = c;
    return NULL;
}

err duck_describe(struct duck *d, struct arena *a, struct str sql, struct duck_columns *out)
{
    struct ddb_result r = { 0 };
    TRY(duck_result(d, fmtz(a, "DESCRIBE SELECT * FROM (\n%.*s\n)", STR(sql)), false, &r));
    *out = (struct duck_columns){ 0 };
    for (ddb_chunk c; (c = D.fetch_chunk(r)); D.destroy_data_chunk(&c)) {
        const union ddb_string *name = D.vector_get_data(D.data_chunk_get_vector(c, 0));
        const union ddb_string *type = D.vector_get_data(D.data_chunk_get_vector(c, 1));
        for (size_t i = 0; i < D.data_chunk_get_size(c); i++) {
            struct str n = { name[i].n <= 12 ? name[i].inlined : name[i].far, name[i].n };
            struct str t = { type[i].n <= 12 ? type[i].inlined : type[i].far, type[i].n };
            push(a, out, (struct duck_column){ str_dup(a, n), str_dup(a, t) });
        }
    }
    D.destroy_result(&r);
    return NULL;
}

/* ---- vectors as they are ---- */

struct scan {
    struct duck *duck;
    struct ddb_result result;
    ddb_chunk chunk;
    struct vector *vectors;
    bool *list;
    size_t n;
    bool open;
};

void scan_close(struct scan *s)
{
    if (s->chunk)
        D.destroy_data_chunk(&s->chunk);
    if (s->open)
        D.destroy_result(&s->result);
    s->open = false;
}

static void scan_close_at(void *arg)
{
    scan_close(arg);
}

/* The narrowest of our numbers that holds an SQL type; NULL if it is none. */
static const char *number_sql(struct str type, char *out)
{
    static const struct {
        const char *sql, *as;
        char type;
    } types[] = {
        { "FLOAT", "FLOAT", 'f' },      { "DOUBLE", "DOUBLE", 'd' },    { "BIGINT", "BIGINT", 'l' },
        { "INTEGER", "INTEGER", 'i' },  { "BOOLEAN", "INTEGER", 'i' },  { "TINYINT", "INTEGER", 'i' },
        { "SMALLINT", "INTEGER", 'i' }, { "UTINYINT", "INTEGER", 'i' }, { "USMALLINT", "INTEGER", 'i' },
        { "UINTEGER", "BIGINT", 'l' },  { "UBIGINT", "DOUBLE", 'd' },   { "HUGEINT", "DOUBLE", 'd' },
        { "UHUGEINT", "DOUBLE", 'd' },
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (str_eq(type, str_of(types[i].sql))) {
            *out = types[i].type;
            return types[i].as;
        }
    *out = 'd';
    return str_starts(type, S("DECIMAL(")) && !str_ends(type, S("]")) ? "DOUBLE" : NULL;
}

static err scan_column_sql(struct buf *b, const struct scan_column *c, struct str type, char *out)
{
    static const char *const wants[] = { "number", "list of numbers", "text", "time" };
    struct str name = sql_name(b->a, c->name);
    const char *as = number_sql(c->want == SCAN_NUMBERS ? column_item(type) : type, out);
    enum column_type kind;
    if (c->want == SCAN_NUMBER && as)
        buf_fmt(b, "CAST(%.*s AS %s)", STR(name), as);
    else if (c->want == SCAN_NUMBERS && as)
        buf_fmt(b, "CAST(%.*s AS %s[])", STR(name), as);
    else if (c->want == SCAN_TEXT && column_type_of(type, &kind)) {
        *out = 't';
        buf_fmt(b, kind == COL_F64 ? "CAST(nullif(%.*s, 'nan') AS VARCHAR)" : "CAST(%.*s AS VARCHAR)",
                STR(name));
    } else if (c->want == SCAN_TIME &&
               (str_is(type, "BIGINT") || (column_type_of(type, &kind) && kind == COL_TIME))) {
        *out = 'l';
        if (str_is(type, "BIGINT"))
            buf_str(b, name);
        else if (str_is(type, "TIMESTAMP WITH TIME ZONE"))
            buf_fmt(b, "epoch_us(%.*s)", STR(name));
        else
            buf_fmt(b, "epoch_us(CAST(%.*s AS TIMESTAMP))", STR(name));
    } else
        FAIL(INVALID, "column '%.*s' is %.*s, no %s", STR(c->name), STR(type), wants[c->want]);
    return NULL;
}

static err scan_type(struct arena *a, const struct duck_columns *have, struct str name, struct str *out)
{
    struct strs names = { 0 };
    for (size_t i = 0; i < have->n; i++) {
        if (str_eq(have->v[i].name, name)) {
            *out = have->v[i].type;
            return NULL;
        }
        push(a, &names, have->v[i].name);
    }
    struct str near = str_nearest(name, names.v, names.n);
    if (near.n)
        FAIL(INVALID, "there is no column '%.*s'; is it '%.*s'?", STR(name), STR(near));
    FAIL(INVALID, "there is no column '%.*s'", STR(name));
}

err duck_scan(struct duck *d, struct arena *a, struct str from, const struct scan_column *columns, size_t n,
              struct scan **out)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct duck_columns have;
    struct buf b = buf_new(tmp);
    struct str type = S("");
    TRY(duck_describe(d, tmp, fmt(tmp, "SELECT * FROM %.*s", STR(from)), &have));
    struct scan *s = NEW(a, struct scan);
    *s = (struct scan){
        .duck = d, .n = n, .vectors = NEW_N(a, struct vector, n + 1), .list = NEW_N(a, bool, n + 1)
    };
    buf_str(&b, S("SELECT "));
    for (size_t i = 0; i < n; i++) {
        buf_str(&b, i ? S(", ") : S(""));
        TRY(scan_type(tmp, &have, columns[i].name, &type));
        TRY(scan_column_sql(&b, &columns[i], type, &s->vectors[i].type));
        s->list[i] = columns[i].want == SCAN_NUMBERS;
    }
    buf_fmt(&b, "%s FROM %.*s", n ? "" : "1", STR(from));
    TRY(duck_result(d, str_z(tmp, buf_get(&b)), true, &s->result));
    s->open = true;
    arena_defer(a, scan_close_at, s);
    *out = s;
    return NULL;
}

static void vector_borrow(struct vector *v, ddb_vector from, bool list)
{
    v->valid = D.vector_get_validity(from);
    v->data = D.vector_get_data(from);
    if (!list)
        return;
    v->lists = v->data;
    ddb_vector items = D.list_vector_get_child(from);
    v->data = D.vector_get_data(items);
    v->item_valid = D.vector_get_validity(items);
}

err scan_next(struct scan *s, const struct vector **out, size_t *rows)
{
    if (s->chunk)
        D.destroy_data_chunk(&s->chunk);
    s->chunk = NULL;
    *out = s->vectors;
    *rows = 0;
    if (s->duck->stop && s->duck->stop(s->duck->stop_arg))
        FAIL(CANCELLED, "stopped");
    s->chunk = D.fetch_chunk(s->result);
    *rows = s->chunk ? D.data_chunk_get_size(s->chunk) : 0;
    const char *why = *rows ? NULL : D.result_error(&s->result);
    if (why && *why)
        return duck_fail(why);
    for (size_t i = 0; *rows && i < s->n; i++)
        vector_borrow(&s->vectors[i], D.data_chunk_get_vector(s->chunk, i), s->list[i]);
    return NULL;
}

struct str vector_text(const struct vector *v, size_t row)
{
    const union ddb_string *s = (const union ddb_string *)v->data + row;
    return (struct str){ s->n <= 12 ? s->inlined : s->far, s->n };
}

/* ---- Parquet ---- */

err parquet_load(struct arena *a, const struct strs *paths, const struct str *names, size_t n,
                 struct columns *out)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct duck *d;
    struct buf b = buf_new(tmp);
    TRY(duck_open(tmp, &(struct duck_config){ .memory_bytes = (int64_t)1 << 40, .files = *paths }, &d));
    for (size_t i = 0; i < n; i++) {
        buf_str(&b, i ? S(", ") : S(""));
        buf_str(&b, sql_name(tmp, names[i]));
    }
    struct str sql = fmt(tmp, "SELECT %.*s FROM %.*s", STR(n ? buf_get(&b) : S("*")),
                         STR(sql_parquet(tmp, paths)));
    TRY_AS(duck_load(d, a, sql, out), "reading %.*s", STR(paths->n ? paths->v[0] : S("nothing")));
    return NULL;
}

/* The rows being written, as the table function dhow_rows() gives them out. */
struct save {
    const struct columns *c;
    size_t at, to;
    struct arena *a;
};

static void save_bind(ddb_call call)
{
    struct save *s = D.bind_get_extra_info(call);
    static const int ids[] = { [COL_I64] = DDB_BIGINT,
                               [COL_F64] = DDB_DOUBLE,
                               [COL_BOOL] = DDB_BOOLEAN,
                               [COL_TIME] = DDB_TIMESTAMP,
                               [COL_STR] = DDB_VARCHAR };
    for (size_t i = 0; i < s->c->n; i++) {
        ddb_type t = D.create_logical_type(ids[s->c->v[i].type]);
        D.bind_add_result_column(call, str_z(s->a, s->c->v[i].name), t);
        D.destroy_logical_type(&t);
    }
    D.bind_set_cardinality(call, s->to - s->at, true);
}

static void save_init(ddb_call call)
{
    (void)call;
}

static void vector_fill(ddb_vector v, const struct column *c, size_t at, size_t n)
{
    if (c->type == COL_STR) {
        for (size_t i = 0; i < n; i++)
            D.vector_assign_string_element_len(v, i, column_str(c, at + i).p, column_str(c, at + i).n);
    } else if (c->type == COL_BOOL) {
        uint8_t *out = D.vector_get_data(v);
        for (size_t i = 0; i < n; i++)
            out[i] = c->i[at + i] != 0;
    } else {
        memcpy(D.vector_get_data(v),
               c->type == COL_F64 ? (const void *)(c->f + at) : (const void *)(c->i + at), n * 8);
    }
    uint64_t *valid = NULL;
    for (size_t i = 0; i < n; i++)
        if (column_null(c, at + i) || (c->type == COL_F64 && isnan(c->f[at + i]))) {
            if (!valid) {
                D.vector_ensure_validity_writable(v);
                valid = D.vector_get_validity(v);
            }
            valid[i / 64] &= ~((uint64_t)1 << (i % 64));
        }
}

static void save_rows(ddb_call call, ddb_chunk chunk)
{
    struct save *s = D.function_get_extra_info(call);
    size_t n = s->to - s->at < D.vector_size() ? s->to - s->at : D.vector_size();
    for (size_t i = 0; n && i < s->c->n; i++)
        vector_fill(D.data_chunk_get_vector(chunk, i), &s->c->v[i], s->at, n);
    D.data_chunk_set_size(chunk, n);
    s->at += n;
}

static err save_register(struct duck *d, struct save *s)
{
    ddb_function f = D.create_table_function();
    D.table_function_set_name(f, "dhow_rows");
    D.table_function_set_extra_info(f, s, NULL);
    D.table_function_set_bind(f, save_bind);
    D.table_function_set_init(f, save_init);
    D.table_function_set_function(f, save_rows);
    int state = D.register_table_function(d->con, f);
    D.destroy_table_function(&f);
    if (state != DDB_OK)
        FAIL(INTERNAL, "DuckDB does not take a table function");
    return NULL;
}

err parquet_save(struct arena *a, const char *path, const struct columns *c, size_t from, size_t to)
{
    auto_arena struct arena *tmp = arena_new(0);
    struct duck *d;
    struct save s = { .c = c, .at = from, .to = to, .a = tmp };
    struct str file = str_of(path);
    (void)a;
    TRY(duck_open(tmp, &(struct duck_config){ .threads = 1, .files = { &file, 1, 1 } }, &d));
    TRY(save_register(d, &s));
    TRY_AS(
        duck_run(
            d,
            "COPY (SELECT * FROM dhow_rows()) TO %.*s (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)",
            STR(sql_text(tmp, file))),
        "writing %s", path);
    return NULL;
}
