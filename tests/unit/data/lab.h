/* lab: a store in a new folder, resources from YAML, and worker types run without a daemon: what the tests of
 * data and feature share. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "data/data.h"
#include "test.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct lab {
    struct arena *a;
    struct store *store;
    struct auth *auth;
    const char *dir, *sources;
    int jobs;
};

static inline struct lab lab_open(void)
{
    struct lab l = { .a = arena_new(0) };
    const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    char *dir = (char *)fmtz(l.a, "%s/dhow-lab-XXXXXX", tmp); /* in memory: an fsync costs nothing there */
    CHECK(mkdtemp(dir));
    l.dir = dir;
    l.sources = fmtz(l.a, "%s/sources", dir);
    CHECK_OK(dir_make(l.sources));
    CHECK_OK(store_open(&(struct store_config){ .dir = fmt(l.a, "%s/store", dir) }, &l.store));
    CHECK_OK(auth_open(l.store, &l.auth));
    CHECK_OK(data_open(l.store));
    void *project = arena_alloc(l.a, project_resource.spec->size, 16);
    schema_defaults(project_resource.spec, l.a, project);
    err e = resource_create(l.store, l.a, &project_resource, S("test"), S(""), S("default"), project);
    CHECK(!e || e->code == CONFLICT);
    return l;
}

static inline void lab_close(struct lab *l)
{
    auth_close(l->auth);
    store_close(l->store);
    CHECK_OK(dir_remove(l->dir));
    arena_free(l->a);
}

static inline const char *lab_real(struct lab *l, const char *path)
{
    char real[4096];
    return realpath(path, real) ? fmtz(l->a, "%s", real) : path;
}

/* Where `make setup` puts things: $DHOW_DEPS, or .deps of the folder the tests run in or above. NULL: not there. */
static inline const char *lab_data(struct lab *l, const char *name)
{
    const char *deps = getenv("DHOW_DEPS");
    if (deps && file_exists(fmtz(l->a, "%s/data/%s", deps, name)))
        return fmtz(l->a, "%s/data/%s", deps, name);
    for (const char *up = "."; strlen(up) < 16; up = fmtz(l->a, "%s/..", up))
        if (file_exists(fmtz(l->a, "%s/.deps/data/%s", up, name)))
            return lab_real(l, fmtz(l->a, "%s/.deps/data/%s", up, name));
    return NULL;
}

/* Without DuckDB's library (or the demo's data) a test has nothing to say. */
#define NEED_DUCK(l)                                       \
    do {                                                   \
        struct str path_, version_;                        \
        if (duck_library((l)->a, &path_, &version_)) {     \
            lab_close(l);                                  \
            cr_skip_test("no DuckDB library: make setup"); \
        }                                                  \
    } while (0)
#define NEED_FLIGHTS(l)                             \
    do {                                            \
        NEED_DUCK(l);                               \
        if (!lab_data((l), "flights-3m.parquet")) { \
            lab_close(l);                           \
            cr_skip_test("no flights: make setup"); \
        }                                           \
    } while (0)

static inline void lab_copy(struct lab *l, const char *from, const char *name)
{
    struct str text;
    CHECK(from);
    CHECK_OK(file_read(l->a, from, (size_t)1 << 30, &text));
    CHECK_OK(file_write(fmtz(l->a, "%s/%s", l->sources, name), text));
}

static inline void lab_write(struct lab *l, const char *name, const char *text)
{
    CHECK_OK(file_write(fmtz(l->a, "%s/%s", l->sources, name), str_of(text)));
}

/* Creates one resource from the YAML text of its whole document; its error is the caller's. */
static inline err lab_apply_doc(struct lab *l, const struct resource *kinds, struct str json)
{
    yyjson_val *doc;
    TRY(json_parse(l->a, json, &doc));
    const char *kind = yyjson_get_str(yyjson_obj_get(doc, "kind"));
    const char *name = yyjson_get_str(yyjson_obj_get(yyjson_obj_get(doc, "metadata"), "name"));
    for (const struct resource *r = kinds; r->kind; r++) {
        if (strcmp(r->kind, kind) != 0)
            continue;
        void *spec = arena_alloc(l->a, r->spec->size, 16);
        TRY(schema_read(r->spec, l->a, S("spec"), yyjson_obj_get(doc, "spec"), 0, spec));
        if (r->check)
            TRY(r->check(&(struct resource_check){
                .store = l->store, .a = l->a, .project = S("default"), .name = str_of(name), .spec = spec }));
        return resource_create(l->store, l->a, r, S("test"), S("default"), str_of(name), spec);
    }
    return NULL; /* another module's */
}

static inline err lab_apply(struct lab *l, const struct resource *kinds, const char *yaml)
{
    struct strs docs = { 0 };
    TRY(yaml_to_json(l->a, str_of(yaml), &docs));
    for (size_t i = 0; i < docs.n; i++)
        TRY(lab_apply_doc(l, kinds, docs.v[i]));
    return NULL;
}

static inline struct str json_at(yyjson_val *obj, const char *key)
{
    yyjson_val *v = yyjson_obj_get(obj, key);
    return yyjson_is_str(v) ? (struct str){ yyjson_get_str(v), yyjson_get_len(v) } : S("");
}

/* prepare, run and finish one after the other, as sched would; outputs: the object finish wrote. */
static inline err lab_job(struct lab *l, const struct worker_type *t, const char *with, yyjson_val **outputs)
{
    struct job job = { .project = S("default"), .name = fmt(l->a, "job-%d", ++l->jobs) };
    struct job_context ctx = {
        .store = l->store, .a = l->a, .sources_dir = str_of(l->sources), .self = t->self
    };
    job.spec = (struct job_spec){
        .type = str_of(t->name), .with = str_of(with), .cpu = 2, .memory = (int64_t)4 << 30
    };
    job.with = arena_alloc(l->a, t->with->size, 16);
    TRY(schema_read_text(t->with, l->a, S("with"), str_of(with), 0, job.with));
    struct json spec = json_new(l->a);
    json_obj(&spec);
    json_kstr(&spec, "type", str_of(t->name));
    json_ki64(&spec, "cpu", 2);
    json_kraw(&spec, "with", str_of(with));
    TRY(t->prepare(&ctx, &job, &spec));
    json_obj_end(&spec);
    struct worker w = { .a = arena_new(0), .project = job.project, .job = job.name, .with = job.with };
    w.dir = fmtz(w.a, "%s/jobs/%d", store_dir(l->store), l->jobs);
    CHECK_OK(dir_make(w.dir));
    CHECK_OK(json_parse(w.a, json_get(&spec), &w.spec));
    CHECK_OK(blobs_open(str_of(store_dir(l->store)), &w.blobs));
    err e = t->run(&w);
    blobs_close(w.blobs);
    struct str text;
    yyjson_val *result = NULL;
    if (!e)
        e = file_read(l->a, fmtz(l->a, "%s/result.json", w.dir), 64 << 20, &text);
    if (!e)
        e = json_parse(l->a, text, &result);
    arena_free(w.a);
    TRY(e);
    struct json out = json_new(l->a);
    json_obj(&out);
    TRY(t->finish(&ctx, &job, result, &out));
    json_obj_end(&out);
    return json_parse(l->a, json_get(&out), outputs);
}
