// SPDX-License-Identifier: Apache-2.0
/* The worker type `materialize`: the child finds, for each view, the events that the newest row of each key stands
 * on, and writes them to one file; the daemon takes them up by the same code as a push, so that doing it twice
 * changes nothing, and rows pushed meanwhile stay.
 * File: "DHOWMAT1", u32 views; per view u16 n, name, u64 hash, u32 columns, u64 keys; per key u16 n, key, u32 events;
 * per event i64 known, u64 id, 16 bytes per column. Little-endian. */
#include "feature/internal.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static const char magic[8] = { 'D', 'H', 'O', 'W', 'M', 'A', 'T', '1' };
enum { FLUSH_AT = 20000 };

/* ---- reading ---- */

static err take(struct mat_reader *r, void *out, size_t n)
{
    if ((size_t)(r->end - r->p) < n)
        FAIL(INVALID, "the file of events ends too early");
    memcpy(out, r->p, n);
    r->p += n;
    return NULL;
}

static err take_text(struct mat_reader *r, size_t most, struct str *out)
{
    uint16_t n;
    TRY(take(r, &n, sizeof n));
    if (n > most || (size_t)(r->end - r->p) < n)
        FAIL(INVALID, "the file of events has a name that is too long");
    *out = (struct str){ (const char *)r->p, n };
    r->p += n;
    return NULL;
}

err mat_open(struct str bytes, struct mat_reader *r, uint32_t *views)
{
    char head[8];
    *r = (struct mat_reader){ (const uint8_t *)bytes.p, (const uint8_t *)bytes.p + bytes.n };
    TRY(take(r, head, sizeof head));
    if (memcmp(head, magic, sizeof magic) != 0)
        FAIL(INVALID, "this is not a file of events (version 1)");
    return take(r, views, sizeof *views);
}

err mat_view_next(struct mat_reader *r, struct mat_view *out)
{
    TRY(take_text(r, 64, &out->name));
    TRY(take(r, &out->hash, sizeof out->hash));
    TRY(take(r, &out->columns, sizeof out->columns));
    TRY(take(r, &out->keys, sizeof out->keys));
    if (out->columns > AGGREGATES_MAX)
        FAIL(INVALID, "the file of events has %u columns", out->columns);
    return NULL;
}

err mat_key_next(struct mat_reader *r, struct mat_key *out)
{
    TRY(take_text(r, KEY_BYTES, &out->key));
    return take(r, &out->events, sizeof out->events);
}

err mat_event_next(struct mat_reader *r, uint32_t columns, struct online_event *out, fixed *values)
{
    TRY(take(r, &out->known, sizeof out->known));
    TRY(take(r, &out->id, sizeof out->id));
    TRY(take(r, values, columns * sizeof *values));
    for (uint32_t i = 0; i < columns; i++)
        if (values[i] > FIXED_NULL || values[i] < -FIXED_NULL)
            FAIL(INVALID, "the file of events has a value out of range");
    out->values = values;
    return NULL;
}

/* ---- in the daemon: prepare ---- */

static err materialize_prepare(struct job_context *c, const struct job *job, struct json *out)
{
    const struct materialize_with *with = job->with;
    struct dataset_version_spec v = { 0 };
    struct service svc;
    struct str hash, first = S("");
    TRY(service_load(c->store, c->a, job->project, with->service, &svc));
    if (with->version.n) {
        TRY(resource_get(c->store, c->a, &dataset_version_resource, job->project, with->version, NULL, &v,
                         NULL));
        first = str_starts(v.of, S("Dataset/")) ? str_sub(v.of, 8, v.of.n) : S("");
        if (!first.n)
            FAIL(INVALID, "version '%.*s' is of %.*s; online rows are made from a dataset's",
                 STR(with->version), STR(v.of));
    }
    json_kraw(out, "definition", svc.text);
    return service_versions_put(c->store, c->a, job->project, &svc, first, with->version, &hash, out);
}

/* ---- in the child ---- */

struct writer {
    FILE *f;
    int64_t keys, events;
};

static void put(struct writer *w, const void *p, size_t n)
{
    fwrite(p, 1, n, w->f); /* the stream remembers an error until the end */
}

static void put_text(struct writer *w, struct str s)
{
    uint16_t n = (uint16_t)s.n;
    put(w, &n, sizeof n);
    put(w, s.p, s.n);
}

static uint64_t event_of(const struct view_columns *c, const struct columns *t, uint32_t row)
{
    (void)t;
    return c->id && !column_null(c->id, row) ? event_id(c->id, row) : row;
}

static void key_put(struct writer *w, const struct view *v, const struct view_columns *c,
                    const struct columns *t, const struct sorted *s, size_t from, size_t to)
{
    uint8_t key[KEY_BYTES];
    size_t n;
    uint32_t events = (uint32_t)(to - from);
    (void)key_encode(c->keys, v->def.keys.n, s->row[from], key, &n); /* rows without a key are not in s */
    put_text(w, (struct str){ (const char *)key, n });
    put(w, &events, sizeof events);
    for (size_t i = from; i < to; i++) {
        uint64_t id = event_of(c, t, s->row[i]);
        put(w, &s->known[i], sizeof s->known[i]);
        put(w, &id, sizeof id);
        for (size_t k = 0; k < v->columns.n; k++) {
            fixed x = value_fixed(c->values[k], s->row[i]);
            put(w, &x, sizeof x);
        }
    }
    w->keys++;
    w->events += events;
}

/* First event of key k that its newest row stands on; start[k + 1] if the row is too old for anyone to get. */
static size_t key_from(const struct view *v, const struct sorted *s, size_t k, int64_t end)
{
    size_t from = s->start[k], to = s->start[k + 1];
    if (from == to || (v->ttl_us && s->known[to - 1] < time_minus(end, v->ttl_us)))
        return to;
    int64_t oldest = time_minus(s->known[to - 1], v->longest_us);
    while (s->known[from] < oldest)
        from++;
    return from;
}

static err view_put(struct writer *w, const struct view *v, const struct columns *t)
{
    auto_arena struct arena *a = arena_new(0);
    struct view_columns c;
    struct sorted s;
    struct keymap *keys;
    int64_t end = INT64_MIN;
    uint32_t columns = (uint32_t)v->columns.n;
    uint64_t n = 0;
    TRY(view_bind(a, v, t, &c));
    TRY(view_sort(a, v, t, &c, &keys, &s));
    for (size_t i = 0; i < s.start[s.keys]; i++)
        end = s.known[i] > end ? s.known[i] : end;
    for (size_t k = 0; k < s.keys; k++)
        n += key_from(v, &s, k, end) < s.start[k + 1];
    put_text(w, v->def.name);
    put(w, &v->hash, sizeof v->hash);
    put(w, &columns, sizeof columns);
    put(w, &n, sizeof n);
    for (size_t k = 0; k < s.keys; k++) {
        size_t from = key_from(v, &s, k, end);
        if (from < s.start[k + 1])
            key_put(w, v, &c, t, &s, from, s.start[k + 1]);
    }
    return NULL;
}

static void name_add(struct arena *a, struct strs *names, struct str name)
{
    for (size_t i = 0; i < names->n; i++)
        if (str_eq(names->v[i], name))
            return;
    push(a, names, name);
}

/* The columns that the views of one dataset need; read once for all of them. */
static err dataset_load(struct worker *w, struct arena *a, const struct service *svc, struct str dataset,
                        struct columns *out)
{
    struct version_in version;
    struct strs names = { 0 };
    for (size_t i = 0; i < svc->views_n; i++) {
        const struct view *v = &svc->views[i];
        if (!str_eq(v->def.dataset, dataset))
            continue;
        name_add(a, &names, v->def.id);
        name_add(a, &names, v->def.known_at);
        for (size_t k = 0; k < v->def.keys.n; k++)
            name_add(a, &names, v->def.keys.v[k]);
        for (size_t k = 0; k < v->columns.n; k++)
            name_add(a, &names, v->columns.v[k]);
    }
    yyjson_val *versions = yyjson_obj_get(w->spec, "versions");
    TRY(version_get(w->blobs, a, yyjson_obj_getn(versions, dataset.p, dataset.n), &version));
    TRY_AS(parquet_load(a, &version.paths, names.v, names.n, out), "version '%.*s'", STR(version.name));
    return NULL;
}

static err views_put(struct worker *w, const struct service *svc, struct writer *out)
{
    uint32_t n = (uint32_t)svc->views_n;
    put(out, magic, sizeof magic);
    put(out, &n, sizeof n);
    struct str last = S("");
    struct columns table = { 0 };
    auto_arena struct arena *a = arena_new(0);
    for (size_t i = 0; i < svc->views_n; i++) {
        worker_progress(w, (int64_t)(i * 90 / svc->views_n), 100, "finding events");
        if (!i || !str_eq(last, svc->views[i].def.dataset)) {
            last = svc->views[i].def.dataset;
            arena_reset(a);
            TRY(dataset_load(w, a, svc, last, &table));
        }
        TRY(view_put(out, &svc->views[i], &table));
        if (worker_stopped(w))
            FAIL(CANCELLED, "stopped");
    }
    return NULL;
}

static err file_make(struct worker *w, const struct service *svc, const char *path, struct writer *out)
{
    auto_fclose FILE *f = fopen(path, "we");
    if (!f)
        return err_errno(errno, "cannot create %s", path);
    out->f = f;
    TRY(views_put(w, svc, out));
    if (fflush(f) || ferror(f))
        return err_errno(errno, "cannot write %s", path);
    return NULL;
}

static err materialize_run(struct worker *w)
{
    struct service svc;
    struct resolved_service def;
    struct writer out = { 0 };
    struct str sha;
    int64_t size;
    const char *path = fmtz(w->a, "%s/events", w->dir);
    TRY(schema_read(&resolved_service_schema, w->a, S("definition"), yyjson_obj_get(w->spec, "definition"),
                    READ_LENIENT, &def));
    TRY(service_compile(w->a, &def, &svc));
    err e = file_make(w, &svc, path, &out);
    if (!e)
        e = blob_take(w->blobs, w->a, path, &sha, &size);
    if (e) {
        (void)unlink(path);
        return e;
    }
    worker_say(w, "%lld keys with %lld events", (long long)out.keys, (long long)out.events);
    struct json j = json_new(w->a);
    json_obj(&j);
    json_kstr(&j, "events", sha);
    yyjson_val *versions = yyjson_obj_get(w->spec, "versions"), *first = NULL;
    if (svc.views_n)
        first = yyjson_obj_getn(versions, svc.views[0].def.dataset.p, svc.views[0].def.dataset.n);
    json_kstr(&j, "version", json_text_in(first, "name"));
    json_ki64(&j, "rows", out.keys);
    json_obj_end(&j);
    worker_progress(w, 100, 100, "done");
    return worker_result(w, json_get(&j));
}

/* ---- in the daemon: finish ---- */

static const struct view *view_named(const struct service *svc, const struct mat_view *m)
{
    for (size_t i = 0; i < svc->views_n; i++)
        if (str_eq(svc->views[i].def.name, m->name))
            return svc->views[i].hash == m->hash && svc->views[i].columns.n == m->columns ? &svc->views[i]
                                                                                          : NULL;
    return NULL;
}

static err key_apply(struct apply *p, struct str project, const struct view *v, struct mat_reader *r,
                     struct push_result *out)
{
    struct mat_key key;
    fixed values[AGGREGATES_MAX];
    struct online_event e;
    TRY(mat_key_next(r, &key));
    for (uint32_t i = 0; i < key.events; i++) {
        TRY(mat_event_next(r, (uint32_t)v->columns.n, &e, values));
        TRY(apply_events(p, project, v, key.key, &e, 1, out));
    }
    out->rows++;
    return apply_waiting(p) < FLUSH_AT ? NULL : apply_flush(p);
}

/* The lock is given back between batches, so that pushes wait for one of them at most. */
static err batch_apply(struct features *f, struct str project, const struct view *v, struct mat_reader *r,
                       uint64_t *keys, struct push_result *out)
{
    auto_arena struct arena *a = arena_new(0);
    struct apply *p;
    TRY(apply_begin(features_rings(f), a, &p));
    err e = NULL;
    for (int i = 0; i < 1000 && *keys && !e; i++, --*keys)
        e = key_apply(p, project, v, r, out);
    if (!e)
        e = apply_flush(p);
    apply_end(p);
    return e;
}

static err file_apply(struct features *f, struct str project, const struct service *svc, struct str bytes,
                      struct push_result *out)
{
    struct mat_reader r;
    uint32_t views;
    TRY(mat_open(bytes, &r, &views));
    for (uint32_t i = 0; i < views; i++) {
        struct mat_view m;
        TRY(mat_view_next(&r, &m));
        const struct view *v = view_named(svc, &m);
        if (!v)
            FAIL(CONFLICT, "view '%.*s' changed while it was materialised; run it again", STR(m.name));
        while (m.keys)
            TRY(batch_apply(f, project, v, &r, &m.keys, out));
    }
    return NULL;
}

static err materialize_finish(struct job_context *c, const struct job *job, yyjson_val *result,
                              struct json *outputs)
{
    const struct materialize_with *with = job->with;
    struct features *f = c->self;
    struct service svc;
    struct str bytes, version = str_dup(c->a, json_text_in(result, "version"));
    struct push_result done = { 0 };
    if (!f)
        FAIL(INTERNAL, "materialize was registered without the online store");
    TRY(service_load(c->store, c->a, job->project, with->service, &svc));
    TRY(blob_get(store_blobs(c->store), c->a, json_text_in(result, "events"), &bytes));
    TRY_AS(file_apply(f, job->project, &svc, bytes, &done), "materialising service '%.*s'",
           STR(with->service));
    TRY(kv_sync(store_kv(c->store)));
    struct feature_service_status status = { .online = {
                                                 .version = version, .rows = done.rows, .at = now_us() } };
    TRY(resource_status(c->store, c->a, &feature_service_resource, job->project, with->service, -1, &status));
    json_kstr(outputs, "version", version);
    json_kstr(outputs, "rows", fmt(c->a, "%lld", (long long)done.rows));
    json_kstr(outputs, "events", fmt(c->a, "%lld", (long long)(done.events + done.known)));
    return NULL;
}

const struct worker_type *feature_materialize(struct features *f, struct arena *a)
{
    struct worker_type *t = NEW(a, struct worker_type);
    *t = (struct worker_type){
        .name = "materialize",
        .doc = "Fills the online rows of a feature service.",
        .outputs = "version: the dataset version they were filled from; rows: keys that got a row; "
                   "events: events that they were made of",
        .with = &materialize_with_schema,
        .prepare = materialize_prepare,
        .run = materialize_run,
        .finish = materialize_finish,
        .self = f
    };
    return t;
}
