// SPDX-License-Identifier: Apache-2.0
#include "data/internal.h"

/* ---- tables ---- */

static const char data_ddl[] =
    "create table if not exists dataset_fingerprint (project text not null, subject text not null, "
    "fingerprint text not null, version text not null, primary key (project, subject, fingerprint));\n"
    "create table if not exists lineage (project text not null, output text not null, input text not null, "
    "primary key (project, output, input));\n"
    "create index if not exists lineage_input on lineage (project, input);\n";

static const char fingerprint_get[] =
    "select version from dataset_fingerprint where project = ?1 and subject = ?2 and fingerprint = ?3";
static const char fingerprint_put[] =
    "insert into dataset_fingerprint (project, subject, fingerprint, version) values (?1, ?2, ?3, ?4)";

err data_open(struct store *s)
{
    return store_ddl(s, "data", data_ddl);
}

/* ---- committing ---- */

struct found {
    struct arena *a;
    struct str version;
};
static err found_row(void *arg, const struct row *r)
{
    struct found *f = arg;
    f->version = str_dup(f->a, row_str(r, 0));
    return NULL;
}

err version_find(struct store *s, struct arena *a, struct str project, struct str of, struct str fingerprint,
                 struct str *version)
{
    struct found f = { .a = a };
    TRY(store_one(s, fingerprint_get, BIND(B_S(project), B_S(of), B_S(fingerprint)), found_row, &f));
    *version = f.version;
    return NULL;
}

struct commit {
    struct arena *a; /* the caller's, for what outlives the transaction */
    struct str who, project, name;
    const struct resource *of;
    struct dataset_version_spec spec;
    struct str version;
};

/* The first free number: a dataset that was deleted and made again goes on where its versions end. */
static err number_next(struct tx *tx, const struct commit *c, int64_t made, int64_t *out)
{
    struct object o;
    for (int64_t n = made + 1;; n++) {
        struct arena *a = tx_arena(tx);
        err e = object_get_tx(tx, a, S("DatasetVersion"), c->project,
                              fmt(a, "%.*s.%lld", STR(c->name), (long long)n), &o);
        if (e && e->code != NOT_FOUND)
            return e;
        if (e) {
            *out = n;
            return NULL;
        }
    }
}

static err commit_new(struct tx *tx, struct commit *c)
{
    struct arena *a = tx_arena(tx);
    struct dataset_status status = { 0 };
    TRY(resource_get_tx(tx, a, c->of, c->project, c->name, NULL, NULL, &status));
    TRY(number_next(tx, c, status.versions, &c->spec.number));
    c->version = fmt(c->a, "%.*s.%lld", STR(c->name), (long long)c->spec.number);
    TRY(resource_create_tx(tx, a, &dataset_version_resource, c->who, c->project, c->version, &c->spec));
    status = (struct dataset_status){ .latest = c->version,
                                      .versions = c->spec.number,
                                      .rows = c->spec.rows };
    TRY(resource_status_tx(tx, a, c->of, c->project, c->name, -1, &status));
    TRY(data_lineage_add(tx, c->project, fmt(a, "DatasetVersion/%.*s", STR(c->version)), c->spec.inputs.v,
                         c->spec.inputs.n));
    return tx_exec(tx, fingerprint_put,
                   BIND(B_S(c->project), B_S(c->spec.of), B_S(c->spec.fingerprint), B_S(c->version)), NULL);
}

static err commit_tx(struct tx *tx, void *arg)
{
    struct commit *c = arg;
    struct found f = { .a = c->a };
    err e = tx_one(tx, fingerprint_get, BIND(B_S(c->project), B_S(c->spec.of), B_S(c->spec.fingerprint)),
                   found_row, &f);
    if (!e)
        c->version = f.version;
    return e && e->code == NOT_FOUND ? commit_new(tx, c) : e;
}

err version_commit(struct store *s, struct arena *a, struct str who, struct str project,
                   const struct resource *of, struct str name, const struct dataset_version_spec *spec,
                   struct str *version)
{
    struct commit c = { .a = a, .who = who, .project = project, .name = name, .of = of, .spec = *spec };
    c.spec.of = fmt(a, "%s/%.*s", of->kind, STR(name));
    TRY_AS(store_write(s, commit_tx, &c), "committing a version of %.*s", STR(c.spec.of));
    *version = c.version;
    return NULL;
}

/* ---- removing old ones ---- */

static const char versions_of[] =
    "select version from dataset_fingerprint where project = ?1 and subject = ?2 "
    "order by length(version), version limit 1000";
static const char fingerprint_drop[] =
    "delete from dataset_fingerprint where project = ?1 and subject = ?2 and version = ?3";

struct old_version {
    struct str who, project, of, name;
};
static err expire_tx(struct tx *tx, void *arg)
{
    const struct old_version *o = arg;
    TRY(object_delete(tx, o->who, S("DatasetVersion"), o->project, o->name, -1));
    return tx_exec(tx, fingerprint_drop, BIND(B_S(o->project), B_S(o->of), B_S(o->name)), NULL);
}

struct names_found {
    struct arena *a;
    struct strs names;
};
static err name_row(void *arg, const struct row *r)
{
    struct names_found *f = arg;
    push(f->a, &f->names, str_dup(f->a, row_str(r, 0)));
    return NULL;
}

/* Its record first: a file without one is only room lost, a record without its file would be a lie. */
static err version_remove(struct store *s, struct arena *a, struct old_version *o,
                          const struct dataset_version_spec *v)
{
    TRY(store_write(s, expire_tx, o));
    for (size_t i = 0; i < v->files.n; i++)
        TRY(blob_drop(store_blobs(s), a, ((const struct version_file *)v->files.v)[i].sha));
    return NULL;
}

err version_expire(struct store *s, struct str who, struct str project, const struct resource *of,
                   struct str name, int64_t before)
{
    auto_arena struct arena *a = arena_new(0);
    struct names_found f = { .a = a };
    struct old_version o = { .who = who, .project = project, .of = fmt(a, "%s/%.*s", of->kind, STR(name)) };
    TRY(store_query(s, versions_of, BIND(B_S(project), B_S(o.of)), name_row, &f));
    for (size_t i = 0; i + 1 < f.names.n; i++) {
        struct dataset_version_spec v;
        struct meta m;
        TRY(resource_get(s, a, &dataset_version_resource, project, f.names.v[i], &m, &v, NULL));
        if (m.created >= before)
            return NULL;
        o.name = f.names.v[i];
        TRY_AS(version_remove(s, a, &o, &v), "removing version %.*s", STR(o.name));
    }
    return NULL;
}

/* ---- handing a version to a worker ---- */

err version_put(struct store *s, struct arena *a, struct str project, struct str name, const char *key,
                struct json *spec)
{
    struct dataset_version_spec v;
    TRY(resource_get(s, a, &dataset_version_resource, project, name, NULL, &v, NULL));
    json_key(spec, str_of(key));
    json_obj(spec);
    json_kstr(spec, "name", name);
    json_kraw(spec, "spec", schema_text(&dataset_version_spec_schema, a, &v, WRITE_PERSONAL));
    json_obj_end(spec);
    return NULL;
}

err version_get(struct blobs *b, struct arena *a, yyjson_val *val, struct version_in *out)
{
    yyjson_val *name = yyjson_obj_get(val, "name");
    if (!yyjson_is_str(name))
        FAIL(INVALID, "spec.json names no version");
    *out = (struct version_in){ .name = json_text(name) };
    TRY(schema_read(&dataset_version_spec_schema, a, S("version"), yyjson_obj_get(val, "spec"), READ_LENIENT,
                    &out->spec));
    for (size_t i = 0; i < out->spec.files.n; i++) {
        const char *path;
        TRY_AS(blob_path(b, a, ((struct version_file *)out->spec.files.v)[i].sha, &path), "version '%.*s'",
               STR(out->name));
        push(a, &out->paths, str_of(path));
    }
    return NULL;
}

err dataset_events(const struct dataset_spec *d, struct str name)
{
    if (d->id.n && d->event_time.n)
        return NULL;
    return err_hint(
        err_new(INVALID, "dataset '%.*s' has no %s, so its rows are no events", STR(name),
                d->id.n ? "eventTime" : "id"),
        "features and outcomes are made of events; a table of other things is trained from as it is");
}

static err columns_of_rule(struct arena *a, const struct dataset_spec *spec, struct column_def **out,
                           size_t *n)
{
    for (size_t i = 0; i < spec->expect.n; i++) {
        const struct expect_rule *r = (const struct expect_rule *)spec->expect.v + i;
        if (r->rule != RULE_SCHEMA)
            continue;
        *out = NEW_N(a, struct column_def, r->columns.n);
        for (size_t k = 0; k < r->columns.n; k++) {
            (*out)[*n].name = r->columns.v[k].key;
            *n += column_type_of(r->columns.v[k].value, &(*out)[*n].type);
        }
        return NULL;
    }
    return err_new(UNAVAILABLE, "it has no version yet, and no rule `schema` that says what its columns are");
}

err dataset_columns(struct store *s, struct arena *a, struct str project, struct str dataset,
                    struct column_def **out, size_t *n)
{
    struct dataset_spec spec;
    struct dataset_status status = { 0 };
    struct dataset_version_spec v;
    *n = 0;
    TRY(resource_get(s, a, &dataset_resource, project, dataset, NULL, &spec, &status));
    if (!status.latest.n) {
        TRY_AS(columns_of_rule(a, &spec, out, n), "dataset '%.*s'", STR(dataset));
        return NULL;
    }
    TRY(resource_get(s, a, &dataset_version_resource, project, status.latest, NULL, &v, NULL));
    *out = NEW_N(a, struct column_def, v.columns.n);
    for (size_t i = 0; i < v.columns.n; i++) {
        const struct version_column *c = (const struct version_column *)v.columns.v + i;
        (*out)[*n].name = c->name;
        *n += column_type_of(c->type, &(*out)[*n].type);
    }
    return NULL;
}
