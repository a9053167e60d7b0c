// SPDX-License-Identifier: Apache-2.0
/* handlers: list, get, delete and actions, the same for every kind; put and post are in put.c. */
#include "api/internal.h"

struct str path_project(const struct req *r)
{
    return project_in(place_of(r)->res, req_param(r, S("project")));
}

/* A project is named by {project} itself, so that auth guards it like what is in it. */
struct str path_name(const struct req *r)
{
    return place_of(r)->res == &project_resource ? req_param(r, S("project")) : req_param(r, S("name"));
}

bool query_flag(const struct req *r, struct str name)
{
    struct str v;
    return req_query(r, name, &v) && !str_is(v, "0") && !str_is(v, "false");
}

err query_i64(const struct req *r, struct str name, int64_t min, int64_t max, int64_t *v)
{
    struct str text;
    if (!req_query(r, name, &text))
        return NULL;
    if (!str_i64(text, v) || *v < min || *v > max)
        return err_field(
            err_new(INVALID, "%.*s is a number from %lld to %lld", STR(name), (long long)min, (long long)max),
            name);
    return NULL;
}

/* Personal values are for those who may write them. */
unsigned view_flags(const struct req *r, const struct resource *res)
{
    bool personal = !auth_may(req_who(r), permission_of(r->a, res, "update"), S(""));
    return personal ? WRITE_PERSONAL : 0;
}

err global_may(const struct req *r, const struct resource *res, const char *verb)
{
    if (!res->global)
        return NULL;
    bool own = res == &project_resource && strcmp(verb, "update") == 0;
    return own ? NULL : auth_may(req_who(r), permission_of(r->a, res, verb), S("*"));
}

/* If-Match: "12", 12 or *; *rev stays as it is without one. */
err if_match(const struct req *r, int64_t *rev)
{
    struct str h = str_trim(req_header(r, S("if-match")));
    if (h.n == 0 || str_is(h, "*"))
        return NULL;
    if (str_starts(h, S("W/")))
        h = str_sub(h, 2, h.n);
    if (h.n >= 2 && h.p[0] == '"' && h.p[h.n - 1] == '"')
        h = str_sub(h, 1, h.n - 1);
    if (!str_i64(h, rev) || *rev < 1)
        FAIL(INVALID, "If-Match is a rev, as in \"12\"");
    return NULL;
}

void reply_etag(struct req *r, int64_t rev)
{
    req_reply_header(r, "ETag", fmt(r->a, "\"%lld\"", (long long)rev));
}

/* ---- list ---- */

struct listing {
    struct str project, after;
    int64_t limit;
    struct pairs labels; /* all of them */
    int64_t seq;         /* of the newest event that the first page shows */
};

static err labels_asked(const struct req *r, struct pairs *out)
{
    struct str text;
    if (!req_query(r, S("labels"), &text))
        return NULL;
    for (struct str part; str_cut(&text, ',', &part);) {
        size_t eq = str_find(part, '=');
        if (eq == 0 || eq == part.n)
            return err_field(err_new(INVALID, "labels are written key=value,key=value"), S("labels"));
        push(r->a, out, (struct pair){ str_sub(part, 0, eq), str_sub(part, eq + 1, part.n) });
    }
    return NULL;
}

static err labels_match(struct arena *a, const struct object *o, const struct pairs *asked, bool *out)
{
    struct pairs has;
    *out = true;
    if (asked->n == 0)
        return NULL;
    TRY(labels_read(a, o->labels, &has));
    for (size_t i = 0; i < asked->n && *out; i++) {
        bool found = false;
        for (size_t k = 0; k < has.n && !found; k++)
            found = str_eq(has.v[k].key, asked->v[i].key) && str_eq(has.v[k].value, asked->v[i].value);
        *out = found;
    }
    return NULL;
}

/* Projects that are not one's own are not there. */
static bool visible(const struct req *r, const struct resource *res, const struct object *o)
{
    const struct principal *who = req_who(r);
    return res != &project_resource || str_is(who->project, "*") || str_eq(who->project, o->name);
}

static err list_read(struct req *r, struct listing *l, struct json *out, struct str *next)
{
    const struct place *p = place_of(r);
    unsigned flags = view_flags(r, p->res);
    int64_t n = 0, scanned = 0;
    bool filters = l->labels.n > 0 || p->res == &project_resource;
    size_t limit = (size_t)(filters && l->limit < PAGE ? PAGE : l->limit + 1);
    for (struct objects page = { .n = limit }; page.n == limit && scanned < SCAN_MAX;
         scanned += (int64_t)page.n) {
        TRY(object_list(p->api->store, r->a, str_of(p->res->kind), l->project, l->after, limit, &page));
        if (!l->seq)
            l->seq = page.seq;
        for (size_t i = 0; i < page.n; i++) {
            bool match;
            const struct object *o = &page.v[i];
            TRY(labels_match(r->a, o, &l->labels, &match));
            if (!match || !visible(r, p->res, o)) {
                l->after = o->name;
                continue;
            }
            if (n == l->limit) {
                *next = l->after;
                return NULL;
            }
            resource_write(p->res, r->a, o, flags, out);
            l->after = o->name;
            n++;
        }
    }
    *next = scanned >= SCAN_MAX ? l->after : S("");
    return NULL;
}

err handle_list(struct req *r)
{
    const struct place *p = place_of(r);
    struct listing l = { .project = path_project(r), .limit = LIST_DEFAULT };
    struct str next = S("");
    TRY(query_i64(r, S("limit"), 1, LIST_MAX, &l.limit));
    TRY(labels_asked(r, &l.labels));
    if (!req_query(r, S("after"), &l.after))
        l.after = S("");
    if (!p->res->global)
        TRY(project_exists(p->api->store, r->a, l.project));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "apiVersion", S(API_VERSION));
    json_kstr(&j, "kind", fmt(r->a, "%sList", p->res->kind));
    json_key(&j, S("items"));
    json_arr(&j);
    TRY(list_read(r, &l, &j, &next));
    json_arr_end(&j);
    json_ki64(&j, "seq", l.seq); /* of the first page read: a watch from here on misses nothing */
    if (next.n)
        json_kstr(&j, "next", next);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

/* ---- get ---- */

static err object_of(struct req *r, struct object *out)
{
    const struct place *p = place_of(r);
    if (!p->res->global)
        TRY(project_exists(p->api->store, r->a, path_project(r)));
    err e = object_get(p->api->store, r->a, str_of(p->res->kind), path_project(r), path_name(r), out);
    return e && e->code == NOT_FOUND ? no_object(p->res, path_project(r), path_name(r)) : e;
}

err handle_get(struct req *r)
{
    const struct place *p = place_of(r);
    struct object o;
    TRY(object_of(r, &o));
    struct json j = json_new(r->a);
    resource_write(p->res, r->a, &o, view_flags(r, p->res), &j);
    reply_etag(r, o.rev);
    return req_reply_json(r, 200, &j);
}

/* ---- delete ---- */

#define DELETE_SQL(Q) \
    Q(inside, "select kind, name from resource where project = ?1 order by kind, name limit 11")
SQL_TABLE(delete, DELETE_SQL);

struct deleting {
    struct api *api;
    const struct resource *res;
    struct str who, project, name, request_id;
    int64_t rev;
};

struct inside {
    struct arena *a;
    struct strs names;
};

static err on_inside(void *arg, const struct row *row)
{
    struct inside *in = arg;
    push(in->a, &in->names, fmt(in->a, "%.*s/%.*s", STR(row_str(row, 0)), STR(row_str(row, 1))));
    return NULL;
}

/* A project goes when nothing is left in it. */
static err project_empty(struct tx *tx, struct str project)
{
    struct inside in = { .a = tx_arena(tx) };
    TRY(tx_query(tx, delete_sql.inside, BIND(B_S(project)), on_inside, &in));
    if (in.names.n == 0)
        return NULL;
    size_t shown = in.names.n < REFERRERS_MAX ? in.names.n : REFERRERS_MAX;
    struct str list = str_join(in.a, in.names.v, shown, S(", "));
    return err_hint(err_new(CONFLICT, "Project '%.*s' is not empty: %.*s%s", STR(project), STR(list),
                            shown < in.names.n ? " and more" : ""),
                    "delete those first");
}

static err delete_run(struct tx *tx, void *arg)
{
    const struct deleting *d = arg;
    struct arena *a = tx_arena(tx);
    struct str project = project_in(d->res, d->project), kind = str_of(d->res->kind);
    struct object o;
    err e = object_get_tx(tx, a, kind, project, d->name, &o);
    if (e)
        return e->code == NOT_FOUND ? no_object(d->res, project, d->name) : e;
    if (d->res == &project_resource)
        TRY(project_empty(tx, d->name));
    TRY(referrers_refuse(d->api, tx, d->res, project, d->name));
    TRY(object_delete(tx, d->who, kind, project, d->name, d->rev));
    return audit_append(tx, &(struct audit_entry){
                                .who = d->who,
                                .action = permission_of(a, d->res, "delete"),
                                .project = project,
                                .kind = kind,
                                .name = d->name,
                                .outcome = S("ok"),
                                .detail = fmt(a, "{\"rev\":%lld}", (long long)o.rev),
                                .request_id = d->request_id,
                            });
}

err handle_delete(struct req *r)
{
    const struct place *p = place_of(r);
    struct deleting d = {
        .api = p->api,
        .res = p->res,
        .who = req_who(r)->name,
        .project = path_project(r),
        .name = path_name(r),
        .request_id = r->id,
        .rev = -1,
    };
    TRY(global_may(r, p->res, "delete"));
    TRY(if_match(r, &d.rev));
    if (!p->res->global)
        TRY(project_exists(p->api->store, r->a, d.project));
    if (query_flag(r, S("dryRun"))) {
        struct object o;
        TRY(object_of(r, &o));
    } else {
        TRY(store_write(p->api->store, delete_run, &d));
    }
    return req_reply(r, 204, NULL, S(""));
}

/* ---- actions ---- */

static err action_run(struct req *r, struct str project, struct str name, struct json *out)
{
    const struct place *p = place_of(r);
    void *in = NULL;
    if (p->action->in) {
        in = struct_new(r->a, p->action->in);
        TRY(schema_read_text(p->action->in, r->a, S(""), r->body.n ? r->body : S("{}"), 0, in));
    }
    return p->action->run(p->api, r, project, name, in, out);
}

err handle_action(struct req *r)
{
    const struct place *p = place_of(r);
    struct object o;
    TRY(object_of(r, &o));
    struct json j = json_new(r->a);
    err e = action_run(r, o.project, o.name, &j);
    TRY(audit_write(p->api->auth, &(struct audit_entry){
                                      .who = req_who(r)->name,
                                      .action = fmt(r->a, "%s.%s", p->res->plural, p->action->name),
                                      .project = o.project,
                                      .kind = o.kind,
                                      .name = o.name,
                                      .outcome = e ? err_table[e->code].name : S("ok"),
                                      .request_id = r->id,
                                  }));
    TRY(e);
    if (json_get(&j).n == 0) {
        json_obj(&j);
        json_obj_end(&j);
    }
    return req_reply_json(r, 200, &j);
}
