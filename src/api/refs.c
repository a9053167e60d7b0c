// SPDX-License-Identifier: Apache-2.0
/* refs: what a spec refers to by REF fields, whether it is there, and who refers to a thing. */
#include "api/internal.h"

#define REFS_SQL(Q) \
    Q(of_kind, "select project, name, spec from resource where kind = ?1 and (?2 = '' or project = ?2)")
SQL_TABLE(refs, REFS_SQL);

struct collecting {
    struct arena *a;
    struct refs *out;
};

static void collect(struct collecting *c, const struct schema *s, struct str path, const char *obj);

static void collect_one(struct collecting *c, const struct field *f, struct str path, struct str name)
{
    if (name.n)
        push(c->a, &c->out->list, (struct ref){ path, str_of(f->ref), name });
}

static void collect_field(struct collecting *c, const struct field *f, struct str up, const char *at)
{
    struct str key = field_key(c->a, f), path = fmt(c->a, "%.*s.%.*s", STR(up), STR(key));
    if (f->type == F_REF) {
        collect_one(c, f, path, *(const struct str *)at);
    } else if (f->type == F_STRS && f->ref) {
        const struct strs *v = (const void *)at;
        for (size_t i = 0; i < v->n; i++)
            collect_one(c, f, fmt(c->a, "%.*s[%zu]", STR(path), i), v->v[i]);
    } else if (f->type == F_OBJ) {
        collect(c, f->sub, path, at);
    } else if (f->type == F_LIST) {
        const struct list *v = (const void *)at;
        for (size_t i = 0; i < v->n; i++)
            collect(c, f->sub, fmt(c->a, "%.*s[%zu]", STR(path), i), (const char *)v->v + i * f->sub->size);
    }
}

static bool schema_refers(const struct schema *s, struct str kind);

static bool field_refers(const struct field *f, struct str kind)
{
    if (f->type == F_REF || (f->type == F_STRS && f->ref))
        return kind.n == 0 || str_eq(str_of(f->ref), kind);
    return (f->type == F_OBJ || f->type == F_LIST) && schema_refers(f->sub, kind);
}

static bool schema_refers(const struct schema *s, struct str kind)
{
    for (size_t i = 0; i < s->n; i++)
        if (field_refers(&s->fields[i], kind))
            return true;
    return false;
}

bool schema_refers_to(const struct schema *s, struct str kind)
{
    return schema_refers(s, kind);
}

static void collect(struct collecting *c, const struct schema *s, struct str path, const char *obj)
{
    for (size_t i = 0; i < s->n; i++)
        if (field_refers(&s->fields[i], S("")))
            collect_field(c, &s->fields[i], path, obj + s->fields[i].offset);
}

void refs_collect(const struct resource *res, struct arena *a, const void *spec, struct refs *out)
{
    struct collecting c = { a, out };
    collect(&c, res->spec, S("spec"), spec);
}

/* ---- they exist ---- */

/* A kind that nobody registered lives in projects. */
static struct str ref_project(struct api *api, const struct ref *r, struct str project)
{
    const struct resource *res = api_resource(api, r->kind);
    return res && res->global ? S("") : project;
}

static err ref_missing(const struct ref *r, struct str project)
{
    err e = project.n
                ? err_new(INVALID, "%.*s: there is no %.*s '%.*s' in project '%.*s'", STR(r->path),
                          STR(r->kind), STR(r->name), STR(project))
                : err_new(INVALID, "%.*s: there is no %.*s '%.*s'", STR(r->path), STR(r->kind), STR(r->name));
    return err_field(e, r->path);
}

err refs_exist(struct api *api, struct arena *a, const struct refs *refs, struct str project)
{
    for (size_t i = 0; i < refs->list.n; i++) {
        const struct ref *r = &refs->list.v[i];
        struct str in = ref_project(api, r, project);
        struct object o;
        err e = object_get(api->store, a, r->kind, in, r->name, &o);
        if (e)
            return e->code == NOT_FOUND ? ref_missing(r, in) : e;
    }
    return NULL;
}

err refs_exist_tx(struct api *api, struct tx *tx, const struct refs *refs, struct str project)
{
    for (size_t i = 0; i < refs->list.n; i++) {
        const struct ref *r = &refs->list.v[i];
        struct str in = ref_project(api, r, project);
        struct object o;
        err e = object_get_tx(tx, tx_arena(tx), r->kind, in, r->name, &o);
        if (e)
            return e->code == NOT_FOUND ? ref_missing(r, in) : e;
    }
    return NULL;
}

/* ---- who refers ---- */

struct hunt {
    struct arena *a; /* of one row */
    struct arena *keep;
    const struct resource *res; /* of the row */
    struct str kind, name;      /* wanted */
    struct strs *found;
    size_t more;
};

static err on_candidate(void *arg, const struct row *row)
{
    struct hunt *h = arg;
    arena_reset(h->a);
    struct object o = { .name = str_dup(h->a, row_str(row, 1)), .spec = str_dup(h->a, row_str(row, 2)) };
    void *spec = struct_new(h->a, h->res->spec);
    TRY(object_spec(h->res, h->a, &o, spec));
    struct refs refs = { 0 };
    refs_collect(h->res, h->a, spec, &refs);
    for (size_t i = 0; i < refs.list.n; i++) {
        const struct ref *r = &refs.list.v[i];
        if (!str_eq(r->kind, h->kind) || !str_eq(r->name, h->name))
            continue;
        if (h->found->n == REFERRERS_MAX)
            h->more++;
        else
            push(h->keep, h->found, fmt(h->keep, "%s/%.*s", h->res->kind, STR(o.name)));
        break;
    }
    return NULL;
}

err referrers_refuse(struct api *api, struct tx *tx, const struct resource *res, struct str project,
                     struct str name)
{
    auto_arena struct arena *row = arena_new(0);
    struct strs found = { 0 };
    struct hunt h = {
        .a = row, .keep = tx_arena(tx), .kind = str_of(res->kind), .name = name, .found = &found
    };
    for (size_t i = 0; i < api->res_n; i++) {
        h.res = api->res[i];
        if (!schema_refers_to(h.res->spec, h.kind))
            continue;
        TRY(tx_query(tx, refs_sql.of_kind, BIND(B_S(str_of(h.res->kind)), B_S(project_in(res, project))),
                     on_candidate, &h));
    }
    if (found.n == 0)
        return NULL;
    struct str list = str_join(h.keep, found.v, found.n, S(", "));
    if (h.more)
        list = fmt(h.keep, "%.*s and %zu more", STR(list), h.more);
    return err_hint(
        err_new(CONFLICT, "%s '%.*s' is still referred to by %.*s", res->kind, STR(name), STR(list)),
        "delete or change those first");
}
