// SPDX-License-Identifier: Apache-2.0
/* Folders of rows, and how they become versions. A folder holds head.json (whose rows, which columns) and rows.jsonl;
 * "ID.open" is being written, "ID" is whole. All that publishing needs is in the folder, so what a killed process left
 * is published by the next one. */
#include "serve/request_log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static const char head_name[] = "head.json", rows_name[] = "rows.jsonl";

static const char *requests_dir(struct serve *s, struct arena *a)
{
    return fmtz(a, "%s/requests", store_dir(s->store));
}

static bool is_open(struct str name)
{
    return str_ends(name, S(".open"));
}

err spill_key(struct serve *s, uint8_t key[32])
{
    auto_arena struct arena *a = arena_new(0);
    const char *path = fmtz(a, "%s/requests/key", store_dir(s->store));
    struct str text;
    TRY(dir_make(requests_dir(s, a)));
    if (!file_exists(path)) {
        uint8_t fresh[32];
        random_bytes(fresh, sizeof fresh);
        TRY(file_write(path, (struct str){ (const char *)fresh, sizeof fresh }));
    }
    TRY(file_read(a, path, 64, &text));
    if (text.n != 32)
        FAIL(INTERNAL, "%s has %zu bytes, not 32", path, text.n);
    memcpy(key, text.p, 32);
    return NULL;
}

/* ---- writing ---- */

static struct str head_text(struct arena *a, const struct request_sink *k)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "project", k->project);
    json_kstr(&j, "deployment", k->deployment);
    json_kstr(&j, "version", k->version);
    json_kstr(&j, "dataset", k->dataset);
    json_ki64(&j, "keepMs", atomic_load(&k->keep_ms));
    json_key(&j, S("columns"));
    json_arr(&j);
    for (size_t i = 0; i < k->columns_n; i++) {
        json_obj(&j);
        json_kstr(&j, "name", k->columns[i].name);
        json_kstr(&j, "sql", k->columns[i].sql);
        json_kbool(&j, "feature", i >= META_COUNT && !k->columns[i].output);
        json_obj_end(&j);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}

/* Not synced, as rows are not: a killed process loses nothing by that, and on a busy disk a sync takes longer than rows
 * may wait in memory. */
static err head_write(const char *path, struct str text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "the request log cannot make %s", path);
    ssize_t n = write(fd, text.p, text.n);
    int failed = n < 0 ? errno : (size_t)n < text.n ? ENOSPC : 0;
    close_fd(fd);
    return failed ? err_errno(failed, "the request log cannot write %s", path) : NULL;
}

err spill_open(struct serve *s, struct request_sink *k)
{
    auto_arena struct arena *a = arena_new(0);
    const char *dir = fmtz(a, "%s/%.*s.open", requests_dir(s, a), STR(id_new(a)));
    const char *rows = fmtz(a, "%s/%s", dir, rows_name);
    TRY(dir_make(dir));
    TRY(head_write(fmtz(a, "%s/%s", dir, head_name), head_text(a, k)));
    int fd = open(rows, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(errno, "the request log cannot make %s", rows);
    k->fd = fd;
    k->dir = strdup(dir);
    if (!k->dir)
        abort();
    k->bytes = 0;
    k->opened_ns = mono_ns();
    return NULL;
}

err spill_write(struct request_sink *k)
{
    struct str text = buf_get(&k->text);
    int failed = 0;
    size_t at = 0;
    while (at < text.n && !failed) {
        ssize_t n = write(k->fd, text.p + at, text.n - at);
        failed = n < 0 && errno != EINTR ? errno : 0;
        at += n > 0 ? (size_t)n : 0;
    }
    k->bytes += (int64_t)at;
    while (at && text.p[at - 1] != '\n') /* half a row is cut off its file when that is published */
        at--;
    struct buf left = buf_new(arena_new(0));
    buf_str(&left, str_sub(text, at, text.n));
    arena_free(k->text.a);
    k->text = left;
    return failed ? err_errno(failed == EFBIG ? ENOSPC : failed, "the request log cannot write to %s", k->dir)
                  : NULL;
}

err spill_close(struct request_sink *k)
{
    auto_arena struct arena *a = arena_new(0);
    char *dir = k->dir;
    struct str open_name = str_dup(a, str_of(dir));
    const char *whole = fmtz(a, "%.*s", (int)(open_name.n - (sizeof ".open" - 1)), open_name.p);
    close_fd(k->fd);
    k->fd = -1;
    k->dir = NULL;
    int failed = rename(dir, whole) ? errno : 0;
    free(dir);
    return failed ? err_errno(failed, "the request log cannot rename %.*s", STR(open_name)) : NULL;
}

err spills_recover(struct serve *s, bool *any)
{
    auto_arena struct arena *a = arena_new(0);
    const char *root = requests_dir(s, a);
    struct strs names = { 0 };
    *any = false;
    err e = dir_list(a, root, &names);
    if (e)
        return e->code == NOT_FOUND ? NULL : e;
    for (size_t i = 0; i < names.n; i++) {
        struct str name = names.v[i];
        const char *from = fmtz(a, "%s/%.*s", root, STR(name));
        *any = *any || !str_is(name, "key");
        if (is_open(name) && rename(from, fmtz(a, "%.*s", (int)strlen(from) - 5, from)))
            return err_errno(errno, "the request log cannot rename %s", from);
    }
    return NULL;
}

/* ---- publishing ---- */

struct spill {
    struct serve *s;
    struct arena *a;
    const char *dir, *rows, *out;
    struct str project, deployment, version, dataset;
    int64_t keep_ms;
    yyjson_val *columns;
    struct dataset_version_spec made;
};

static err head_read(struct spill *p)
{
    struct str text;
    yyjson_val *v;
    const char *path = fmtz(p->a, "%s/%s", p->dir, head_name);
    TRY(file_read(p->a, path, 16 << 20, &text));
    TRY_AS(json_parse(p->a, text, &v), "%s", path);
    p->project = json_text_in(v, "project");
    p->deployment = json_text_in(v, "deployment");
    p->version = json_text_in(v, "version");
    p->dataset = json_text_in(v, "dataset");
    p->keep_ms = yyjson_get_sint(yyjson_obj_get(v, "keepMs"));
    p->columns = yyjson_obj_get(v, "columns");
    if (!p->project.n || !p->dataset.n || !yyjson_arr_size(p->columns))
        FAIL(INVALID, "%s says not whose rows these are", path);
    return NULL;
}

/* A row that the process died over goes. */
static err tail_cut(struct spill *p, int64_t *left)
{
    auto_arena struct arena *a = arena_new(0);
    struct str text;
    TRY(file_map(a, p->rows, &text));
    size_t n = text.n;
    while (n && text.p[n - 1] != '\n')
        n--;
    *left = (int64_t)n;
    if (n < text.n && truncate(p->rows, (off_t)n))
        return err_errno(errno, "cannot cut %s", p->rows);
    return NULL;
}

/* The rows as a table: text by the columns' types, times out of microseconds, places into names; by time, as rings are
 * emptied one after the other, and a request's rows as they came. */
static struct str select_sql(struct spill *p)
{
    struct arena *a = p->a;
    struct buf types = buf_new(a), names = buf_new(a);
    size_t i, n;
    yyjson_val *v;
    yyjson_arr_foreach (p->columns, i, n, v) {
        struct str sql = json_text_in(v, "sql"), name = sql_name(a, json_text_in(v, "name"));
        bool time = str_is(sql, "TIMESTAMP");
        const char *comma = i ? ", " : "";
        buf_fmt(&types, "%sc%zu: '%.*s'", comma, i, STR(time ? S("BIGINT") : sql));
        buf_fmt(&names, time ? "%smake_timestamp(c%zu) AS %.*s" : "%sc%zu AS %.*s", comma, i, STR(name));
    }
    return fmt(a,
               "SELECT %.*s FROM read_json(%.*s, format = 'newline_delimited', columns = {%.*s}) "
               "ORDER BY c%d, length(c%d), c%d",
               STR(buf_get(&names)), STR(sql_text(a, str_of(p->rows))), STR(buf_get(&types)), META_time,
               META_request, META_request);
}

static void roles_set(struct spill *p)
{
    struct version_column *c = p->made.columns.v;
    for (size_t i = 0; i < p->made.columns.n; i++) {
        yyjson_val *v = yyjson_arr_get(p->columns, i);
        if (yyjson_is_true(yyjson_obj_get(v, "feature")))
            c[i].role = IS_FEATURE;
    }
    c[META_request].role = IS_ID;
    c[META_time].role = IS_EVENT_TIME;
    p->made.from = (int64_t)c[META_time].statistics.min;
    p->made.until = (int64_t)c[META_time].statistics.max + 1;
}

static err parquet_make(struct spill *p)
{
    struct arena *a = p->a;
    struct duck *d;
    struct columns count;
    struct version_file *file = NEW(a, struct version_file);
    struct strs files = { 0 };
    struct str out = str_of(p->out);
    push(a, &files, str_of(p->rows));
    push(a, &files, out);
    TRY(duck_open(a,
                  &(struct duck_config){ .threads = 1,
                                         .memory_bytes = LOG_MEMORY,
                                         .tmp_dir = fmtz(a, "%s/spill", p->dir),
                                         .files = files },
                  &d));
    TRY(duck_run(d, "COPY (%.*s) TO %.*s (FORMAT parquet, COMPRESSION zstd, USE_TMP_FILE false)",
                 STR(select_sql(p)), STR(sql_text(a, out))));
    struct strs paths = { &out, 1, 1 };
    TRY(duck_load(d, a, fmt(a, "SELECT count(*) AS n FROM %.*s", STR(sql_parquet(a, &paths))), &count));
    file->rows = p->made.rows = count.v[0].i[0];
    TRY(version_columns(d, a, &paths, file->rows, &p->made.columns));
    roles_set(p);
    TRY(blob_take(store_blobs(p->s->store), a, p->out, &file->sha, &file->bytes));
    p->made.files = (struct list){ file, 1 };
    return NULL;
}

/* A dataset without sources: its versions are ours alone. */
static err dataset_need(struct spill *p)
{
    struct dataset_spec spec;
    err e = resource_get(p->s->store, p->a, &dataset_resource, p->project, p->dataset, NULL, &spec, NULL);
    if (!e && spec.sources.n)
        FAIL(CONFLICT, "dataset '%.*s' is made from sources; name another in requestLog.dataset of '%.*s'",
             STR(p->dataset), STR(p->deployment));
    if (!e || e->code != NOT_FOUND)
        return e;
    schema_defaults(&dataset_spec_schema, p->a, &spec);
    spec.id = S("request");
    spec.event_time = S("time");
    spec.doc = fmt(p->a, "Requests that deployment %.*s was asked, and its answers.", STR(p->deployment));
    return resource_create(p->s->store, p->a, &dataset_resource, S("serve"), p->project, p->dataset, &spec);
}

static err version_make(struct spill *p)
{
    struct arena *a = p->a;
    struct str name;
    int64_t size;
    TRY(dataset_need(p));
    p->out = blob_tmp(store_blobs(p->s->store), a, S(".parquet"));
    err e = parquet_make(p);
    if (e) {
        (void)unlink(p->out);
        return e;
    }
    TRY(file_sha256(a, p->rows, &p->made.fingerprint,
                    &size)); /* a second try finds the first one's version */
    push(a, &p->made.inputs, fmt(a, "Dataset/%.*s", STR(p->dataset)));
    push(a, &p->made.inputs, fmt(a, "Deployment/%.*s", STR(p->deployment)));
    push(a, &p->made.inputs, fmt(a, "ModelVersion/%.*s", STR(p->version)));
    TRY(version_commit(p->s->store, a, S("serve"), p->project, &dataset_resource, p->dataset, &p->made,
                       &name));
    log_info("request-log.published", KV("version", name), KV("rows", p->made.rows));
    return NULL;
}

static err spill_publish(struct serve *s, const char *dir)
{
    auto_arena struct arena *a = arena_new(0);
    struct spill p = { .s = s, .a = a, .dir = dir, .rows = fmtz(a, "%s/%s", dir, rows_name) };
    int64_t bytes = 0;
    if (file_exists(p.rows)) {
        TRY(head_read(&p));
        TRY(tail_cut(&p, &bytes));
    }
    if (bytes)
        TRY_AS(version_make(&p), "publishing requests of '%.*s' as dataset '%.*s'", STR(p.deployment),
               STR(p.dataset));
    TRY(dir_remove(dir));
    if (!bytes || !p.keep_ms)
        return NULL;
    return version_expire(s->store, S("serve"), p.project, &dataset_resource, p.dataset,
                          now_us() - p.keep_ms * 1000);
}

err spills_publish(struct serve *s, size_t *left)
{
    auto_arena struct arena *a = arena_new(0);
    const char *root = requests_dir(s, a);
    struct strs names = { 0 };
    err first = NULL;
    *left = 0;
    TRY(dir_list(a, root, &names));
    for (size_t i = 0; i < names.n; i++) {
        if (is_open(names.v[i]) || str_is(names.v[i], "key"))
            continue;
        err e = spill_publish(s, fmtz(a, "%s/%.*s", root, STR(names.v[i])));
        *left += e != NULL;
        first = first ? first : e;
    }
    return first;
}
