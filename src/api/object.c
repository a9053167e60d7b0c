// SPDX-License-Identifier: Apache-2.0
/* object: typed access to stored objects: JSON texts to the structs of a kind's schemas and back. */
#include "api/internal.h"

SCHEMA_TABLE(metadata, METADATA, "Name and surroundings of an object.");
SCHEMA_TABLE(document, DOCUMENT, "An object as it is written in files and sent over HTTP.");

enum { STORED = READ_LENIENT | READ_PARTIAL };

void *struct_new(struct arena *a, const struct schema *s)
{
    return arena_alloc(a, s->size ? s->size : 1, 16);
}

struct str permission_of(struct arena *a, const struct resource *res, const char *verb)
{
    return fmt(a, "%s.%s", res->plural, verb);
}

err no_object(const struct resource *res, struct str project, struct str name)
{
    if (res->global)
        FAIL(NOT_FOUND, "there is no %s '%.*s'", res->kind, STR(name));
    FAIL(NOT_FOUND, "there is no %s '%.*s' in project '%.*s'", res->kind, STR(name), STR(project));
}

/* ---- labels ---- */

struct str labels_text(struct arena *a, const struct pairs *labels)
{
    struct json j = json_new(a);
    json_obj(&j);
    for (size_t i = 0; i < labels->n; i++) {
        json_key(&j, labels->v[i].key);
        json_str(&j, labels->v[i].value);
    }
    json_obj_end(&j);
    return json_get(&j);
}

err labels_read(struct arena *a, struct str text, struct pairs *out)
{
    *out = (struct pairs){ 0 };
    if (text.n == 0 || str_is(text, "{}"))
        return NULL;
    yyjson_val *v;
    TRY(json_parse(a, text, &v));
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach (v, i, n, key, value)
        push(a, out, (struct pair){ json_text(key), json_text(value) });
    return NULL;
}

/* ---- reading ---- */

static err stored_read(const struct schema *s, struct arena *a, const char *path, struct str text, void *out)
{
    return schema_read_text(s, a, str_of(path), text.n ? text : S("{}"), STORED, out);
}

err object_spec(const struct resource *res, struct arena *a, const struct object *o, void *spec)
{
    TRY_AS(stored_read(res->spec, a, "spec", o->spec, spec), "reading %s '%.*s'", res->kind, STR(o->name));
    return NULL;
}

static err object_parse(const struct resource *res, struct arena *a, const struct object *o,
                        struct meta *meta, void *spec, void *status)
{
    if (meta) {
        *meta = (struct meta){
            .id = o->id,
            .rev = o->rev,
            .generation = o->generation,
            .created = o->created,
            .updated = o->updated,
            .kind = o->kind,
            .project = o->project,
            .name = o->name,
        };
        TRY(labels_read(a, o->labels, &meta->labels));
    }
    if (spec)
        TRY(object_spec(res, a, o, spec));
    if (status && res->status)
        TRY_AS(stored_read(res->status, a, "status", o->status, status), "reading %s '%.*s'", res->kind,
               STR(o->name));
    return NULL;
}

static err missing(err e, const struct resource *res, struct str project, struct str name)
{
    return e->code == NOT_FOUND ? no_object(res, project, name) : e;
}

err resource_get(struct store *store, struct arena *a, const struct resource *res, struct str project,
                 struct str name, struct meta *meta, void *spec, void *status)
{
    struct object o;
    err e = object_get(store, a, str_of(res->kind), project_in(res, project), name, &o);
    return e ? missing(e, res, project, name) : object_parse(res, a, &o, meta, spec, status);
}

err resource_get_tx(struct tx *tx, struct arena *a, const struct resource *res, struct str project,
                    struct str name, struct meta *meta, void *spec, void *status)
{
    struct object o;
    err e = object_get_tx(tx, a, str_of(res->kind), project_in(res, project), name, &o);
    return e ? missing(e, res, project, name) : object_parse(res, a, &o, meta, spec, status);
}

err project_exists(struct store *store, struct arena *a, struct str project)
{
    return resource_get(store, a, &project_resource, S(""), project, NULL, NULL, NULL);
}

err project_exists_tx(struct tx *tx, struct str project)
{
    return resource_get_tx(tx, tx_arena(tx), &project_resource, S(""), project, NULL, NULL, NULL);
}

/* ---- writing ---- */

struct str spec_text(const struct resource *res, struct arena *a, const void *spec)
{
    return schema_text(res->spec, a, spec, WRITE_SECRETS | WRITE_PERSONAL);
}

err resource_create_tx(struct tx *tx, struct arena *a, const struct resource *res, struct str who,
                       struct str project, struct str name, const void *spec)
{
    if (!name_ok(name))
        FAIL(INVALID, "'%.*s' is no name for a %s", STR(name), res->kind);
    if (!res->global)
        TRY(project_exists_tx(tx, project));
    struct object o = { .kind = str_of(res->kind), .project = project_in(res, project), .name = name }, there;
    o.spec = spec_text(res, a, spec);
    err e = object_get_tx(tx, a, o.kind, o.project, o.name, &there);
    if (e && e->code != NOT_FOUND)
        return e;
    if (!e && str_eq(there.spec, o.spec))
        return NULL;
    TRY(object_put(tx, who, &o, 0, NULL, NULL));
    return audit_append(tx, &(struct audit_entry){
                                .who = who,
                                .action = permission_of(a, res, "create"),
                                .project = o.project,
                                .kind = o.kind,
                                .name = name,
                                .outcome = S("ok"),
                            });
}

err resource_status_tx(struct tx *tx, struct arena *a, const struct resource *res, struct str project,
                       struct str name, int64_t generation, const void *status)
{
    struct str text = schema_text(res->status, a, status, WRITE_SECRETS | WRITE_PERSONAL);
    err e = object_status(tx, str_of(res->kind), project_in(res, project), name, generation, text);
    return e ? missing(e, res, project, name) : NULL;
}

struct writing {
    const struct resource *res;
    struct str who, project, name;
    int64_t generation;
    const void *value; /* spec or status */
};

static err create_run(struct tx *tx, void *arg)
{
    const struct writing *w = arg;
    return resource_create_tx(tx, tx_arena(tx), w->res, w->who, w->project, w->name, w->value);
}

err resource_create(struct store *store, struct arena *a, const struct resource *res, struct str who,
                    struct str project, struct str name, const void *spec)
{
    (void)a;
    struct writing w = { .res = res, .who = who, .project = project, .name = name, .value = spec };
    return store_write(store, create_run, &w);
}

static err status_run(struct tx *tx, void *arg)
{
    const struct writing *w = arg;
    return resource_status_tx(tx, tx_arena(tx), w->res, w->project, w->name, w->generation, w->value);
}

err resource_status(struct store *store, struct arena *a, const struct resource *res, struct str project,
                    struct str name, int64_t generation, const void *status)
{
    (void)a;
    struct writing w = {
        .res = res, .project = project, .name = name, .generation = generation, .value = status
    };
    return store_write(store, status_run, &w);
}

static err event_run(struct tx *tx, void *arg)
{
    return event_append(tx, arg, NULL);
}

err resource_event(struct store *store, const struct resource *res, struct str who, struct str project,
                   struct str name, const char *type, struct str data)
{
    struct event ev = {
        .type = str_of(type),
        .kind = str_of(res->kind),
        .project = project_in(res, project),
        .name = name,
        .who = who,
        .data = data,
    };
    return store_write(store, event_run, &ev);
}

/* ---- the document ---- */

static void metadata_write(const struct resource *res, struct arena *a, const struct object *o,
                           struct json *out)
{
    json_obj(out);
    json_kstr(out, "name", o->name);
    if (!res->global)
        json_kstr(out, "project", o->project);
    if (o->labels.n && !str_is(o->labels, "{}"))
        json_kraw(out, "labels", o->labels);
    json_ki64(out, "id", o->id);
    json_ki64(out, "rev", o->rev);
    json_ki64(out, "generation", o->generation);
    json_kstr(out, "created", time_text(a, o->created));
    json_kstr(out, "updated", time_text(a, o->updated));
    json_obj_end(out);
}

static void part_write(const struct schema *s, struct arena *a, const char *key, struct str text,
                       unsigned flags, struct json *out)
{
    void *value = struct_new(a, s);
    err e = stored_read(s, a, key, text, value);
    json_key(out, str_of(key));
    if (e) /* nothing of a damaged text is shown: it might be a secret */
        json_null(out);
    else
        schema_write(s, out, value, flags);
}

void resource_write(const struct resource *res, struct arena *a, const struct object *o, unsigned flags,
                    struct json *out)
{
    json_obj(out);
    json_kstr(out, "apiVersion", S(API_VERSION));
    json_kstr(out, "kind", str_of(res->kind));
    json_key(out, S("metadata"));
    metadata_write(res, a, o, out);
    part_write(res->spec, a, "spec", o->spec, flags, out);
    if (res->status)
        part_write(res->status, a, "status", o->status, flags, out);
    json_obj_end(out);
}
