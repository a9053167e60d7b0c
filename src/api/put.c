// SPDX-License-Identifier: Apache-2.0
/* put: the whole write path of every kind: read, check, compare, store with its event and audit entry. */
#include "api/internal.h"

struct change {
    struct api *api;
    const struct resource *res;
    struct arena *a;
    struct str who, request_id, project, name;
    int64_t rev; /* that the object must have; -1: any */
    bool create_only;
    struct document doc;
    void *spec;
    struct refs refs;
    struct object before; /* id 0: there is none */
    struct object in;     /* what is stored */
    struct object after;
    bool changed;
};

/* ---- reading ---- */

static err document_check(struct change *c)
{
    const struct document *d = &c->doc;
    if (!str_is(d->api_version, API_VERSION))
        return err_field(err_new(INVALID, "apiVersion: '%.*s' is not " API_VERSION, STR(d->api_version)),
                         S("apiVersion"));
    if (!str_eq(d->kind, str_of(c->res->kind)))
        return err_field(
            err_new(INVALID, "kind: '%.*s' is not %s, which this path is for", STR(d->kind), c->res->kind),
            S("kind"));
    if (c->name.n == 0)
        c->name = d->metadata.name;
    else if (d->metadata.name.n && !str_eq(d->metadata.name, c->name))
        return err_field(err_new(INVALID, "metadata.name: '%.*s' is not '%.*s', as in the path",
                                 STR(d->metadata.name), STR(c->name)),
                         S("metadata.name"));
    if (!name_ok(c->name))
        return err_field(
            err_new(INVALID,
                    "metadata.name: '%.*s' is no name: small letters, digits, and - _ . inside, at most 63",
                    STR(c->name)),
            S("metadata.name"));
    if (!c->res->global && d->metadata.project.n && !str_eq(d->metadata.project, c->project))
        return err_field(err_new(INVALID, "metadata.project: '%.*s' is not '%.*s', as in the path",
                                 STR(d->metadata.project), STR(c->project)),
                         S("metadata.project"));
    return NULL;
}

static err document_read(struct req *r, struct change *c)
{
    TRY(schema_read_text(&document_schema, r->a, S(""), r->body, 0, &c->doc));
    TRY(document_check(c));
    c->rev = c->doc.metadata.rev > 0 ? c->doc.metadata.rev : -1;
    return if_match(r, &c->rev);
}

/* Secrets are never shown, so a document that was read and comes back has none: they stay. */
static void secrets_keep(const struct schema *s, const void *before, void *after)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct field *f = &s->fields[i];
        const void *from = (const char *)before + f->offset;
        void *to = (char *)after + f->offset;
        if (f->type == F_OBJ)
            secrets_keep(f->sub, from, to);
        else if ((f->flags & SECRET) && (f->type == F_STR || f->type == F_JSON) && ((struct str *)to)->n == 0)
            memcpy(to, from, sizeof(struct str));
    }
}

/* ---- deciding ---- */

static err verb_may(struct req *r, struct change *c)
{
    bool creates = c->before.id == 0;
    const char *verb = creates ? "create" : "update";
    if (!(c->res->verbs & (creates ? V_CREATE : V_UPDATE)))
        FAIL(METHOD, "a %s is not %s by people", c->res->kind, creates ? "made" : "changed");
    TRY(auth_may(req_who(r), permission_of(r->a, c->res, verb), c->res->global ? S("") : c->project));
    return global_may(r, c->res, verb);
}

static err before_read(struct change *c)
{
    c->before = (struct object){ 0 };
    err e = object_get(c->api->store, c->a, str_of(c->res->kind), c->project, c->name, &c->before);
    if (e && e->code != NOT_FOUND)
        return e;
    if (e && c->rev > 0)
        return no_object(c->res, c->project, c->name);
    if (!e && c->create_only)
        FAIL(CONFLICT, "%s '%.*s' exists already", c->res->kind, STR(c->name));
    if (!e && c->rev > 0 && c->rev != c->before.rev)
        FAIL(CONFLICT, "%s '%.*s' has rev %lld, not %lld: it changed since you read it", c->res->kind,
             STR(c->name), (long long)c->before.rev, (long long)c->rev);
    return NULL;
}

static err spec_check(struct change *c)
{
    void *old = NULL;
    c->spec = struct_new(c->a, c->res->spec);
    TRY(schema_read_text(c->res->spec, c->a, S("spec"), c->doc.spec.n ? c->doc.spec : S("{}"), 0, c->spec));
    if (c->before.id) {
        old = struct_new(c->a, c->res->spec);
        TRY(object_spec(c->res, c->a, &c->before, old));
        secrets_keep(c->res->spec, old, c->spec);
        TRY(schema_frozen_same(c->res->spec, c->a, S("spec"), old, c->spec));
    }
    c->refs = (struct refs){ 0 };
    refs_collect(c->res, c->a, c->spec, &c->refs);
    TRY(refs_exist(c->api, c->a, &c->refs, c->project));
    if (!c->res->check)
        return NULL;
    return c->res->check(&(struct resource_check){
        .store = c->api->store,
        .a = c->a,
        .project = c->project,
        .name = c->name,
        .before = old,
        .spec = c->spec,
    });
}

static void wanted(struct change *c)
{
    c->in = (struct object){
        .kind = str_of(c->res->kind),
        .project = c->project,
        .name = c->name,
        .labels = labels_text(c->a, &c->doc.metadata.labels),
        .spec = spec_text(c->res, c->a, c->spec),
    };
}

/* ---- storing ---- */

static struct str change_detail(struct arena *a, const struct change *c)
{
    struct strs paths = { 0 };
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "rev", c->after.rev);
    if (c->before.id && !diff_paths(a, S("spec"), c->before.spec, c->in.spec, &paths) &&
        !diff_paths(a, S("metadata.labels"), c->before.labels, c->in.labels, &paths)) {
        json_key(&j, S("paths"));
        json_arr(&j);
        for (size_t i = 0; i < paths.n && i < 20; i++)
            json_str(&j, paths.v[i]);
        json_arr_end(&j);
    }
    json_obj_end(&j);
    return json_get(&j);
}

/* What was checked outside still holds; a status that came meanwhile is no matter. */
static err same_as_checked(struct tx *tx, const struct change *c)
{
    struct object now = { 0 };
    err e = object_get_tx(tx, tx_arena(tx), c->in.kind, c->project, c->name, &now);
    if (e && e->code != NOT_FOUND)
        return e;
    if (now.id != c->before.id || now.generation != c->before.generation)
        FAIL(CONFLICT, "%s '%.*s' changed meanwhile", c->res->kind, STR(c->name));
    return NULL;
}

static err change_run(struct tx *tx, void *arg)
{
    struct change *c = arg;
    if (!c->res->global)
        TRY(project_exists_tx(tx, c->project));
    TRY(same_as_checked(tx, c));
    TRY(refs_exist_tx(c->api, tx, &c->refs, c->project));
    TRY(object_put(tx, c->who, &c->in, c->before.id ? c->rev : 0, &c->after, &c->changed));
    if (!c->changed)
        return NULL;
    struct arena *a = tx_arena(tx);
    return audit_append(tx, &(struct audit_entry){
                                .who = c->who,
                                .action = permission_of(a, c->res, c->before.id ? "update" : "create"),
                                .project = c->project,
                                .kind = c->in.kind,
                                .name = c->name,
                                .outcome = S("ok"),
                                .detail = change_detail(a, c),
                                .request_id = c->request_id,
                            });
}

static bool unchanged(const struct change *c)
{
    return c->before.id && str_eq(c->before.spec, c->in.spec) &&
           str_eq(c->before.labels.n ? c->before.labels : S("{}"), c->in.labels);
}

static err change_store(struct req *r, struct change *c)
{
    for (int i = 1;; i++) {
        TRY(before_read(c));
        TRY(verb_may(r, c));
        TRY(spec_check(c));
        wanted(c);
        err e = store_write(c->api->store, change_run, c);
        if (!e || e->code != CONFLICT || i == PUT_TRIES)
            return e;
    }
}

/* ---- replying ---- */

static const char *change_word(const struct change *c, bool changed)
{
    return c->before.id == 0 ? "created" : changed ? "updated" : "unchanged";
}

static err change_reply(struct req *r, struct change *c)
{
    /* after's texts ended with the transaction; what is stored is what was sent */
    struct object o = c->changed ? c->after : c->before;
    o.kind = c->in.kind;
    o.project = c->project;
    o.name = c->name;
    o.labels = c->in.labels;
    o.spec = c->in.spec;
    o.status = c->before.status;
    struct json j = json_new(r->a);
    resource_write(c->res, r->a, &o, view_flags(r, c->res), &j);
    reply_etag(r, o.rev);
    req_reply_header(r, "X-Dhow-Change", str_of(change_word(c, c->changed)));
    return req_reply_json(r, c->before.id ? 200 : 201, &j);
}

static struct str shown_spec(struct req *r, const struct change *c, const struct object *o)
{
    void *spec = struct_new(r->a, c->res->spec);
    if (o->spec.n == 0 || object_spec(c->res, r->a, o, spec))
        return S("{}");
    return schema_text(c->res->spec, r->a, spec, view_flags(r, c->res));
}

static err dry_reply(struct req *r, struct change *c)
{
    size_t n = 0;
    bool same = unchanged(c);
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kbool(&j, "dryRun", true);
    json_kstr(&j, "kind", c->in.kind);
    json_kstr(&j, "name", c->name);
    json_kstr(&j, "change", str_of(change_word(c, !same)));
    json_key(&j, S("changes"));
    json_arr(&j);
    TRY(diff_write(r->a, S("metadata.labels"), c->before.labels, c->in.labels, &j, &n));
    TRY(diff_write(r->a, S("spec"), shown_spec(r, c, &c->before), shown_spec(r, c, &c->in), &j, &n));
    json_arr_end(&j);
    json_ki64(&j, "changesTotal", (int64_t)n);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

static err change(struct req *r, bool create_only)
{
    const struct place *p = place_of(r);
    struct change c = {
        .api = p->api,
        .res = p->res,
        .a = r->a,
        .who = req_who(r)->name,
        .request_id = r->id,
        .project = path_project(r),
        .name = create_only ? S("") : path_name(r),
        .create_only = create_only || str_is(str_trim(req_header(r, S("if-none-match"))), "*"),
    };
    TRY(document_read(r, &c));
    if (!c.res->global)
        TRY(project_exists(c.api->store, c.a, c.project));
    if (query_flag(r, S("dryRun"))) {
        TRY(before_read(&c));
        TRY(verb_may(r, &c));
        TRY(spec_check(&c));
        wanted(&c);
        return dry_reply(r, &c);
    }
    TRY(change_store(r, &c));
    return change_reply(r, &c);
}

err handle_put(struct req *r)
{
    return change(r, false);
}

err handle_post(struct req *r)
{
    return change(r, true);
}
