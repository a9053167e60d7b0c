// SPDX-License-Identifier: Apache-2.0
#include "help.h"

SCHEMA_TABLE(author_spec, AUTHOR_SPEC, "A writer.");
SCHEMA_TABLE(book_part, BOOK_PART, "A part.");
SCHEMA_TABLE(book_spec, BOOK_SPEC, "A book.");
SCHEMA_TABLE(book_status, BOOK_STATUS, "How a book fares.");
SCHEMA_TABLE(book_rename, BOOK_RENAME, "A new title.");

static err book_check(const struct resource_check *c)
{
    const struct book_spec *b = c->spec;
    if (str_eq(b->title, c->name))
        return err_field(err_new(INVALID, "spec.title: a book is not called like its file"), S("spec.title"));
    return NULL;
}

static err book_rename_run(struct api *api, struct req *r, struct str project, struct str name,
                           const void *in, struct json *out)
{
    const struct book_rename *to = in;
    CHECK(api && r && project.n);
    if (str_is(to->to, "bad"))
        FAIL(GATE, "nobody would buy that");
    json_obj(out);
    json_kstr(out, "renamed", name);
    json_kstr(out, "to", to->to);
    json_obj_end(out);
    return NULL;
}

static err book_break(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                      struct json *out)
{
    (void)api, (void)r, (void)project, (void)name, (void)in, (void)out;
    FAIL(INTERNAL, "the secret inner path is /var/lib/books");
}

const struct resource author_resource = {
    .kind = "Author", .plural = "authors", .doc = "A writer.", .spec = &author_spec_schema, .verbs = V_ALL
};
const struct resource book_resource = {
    .kind = "Book",
    .plural = "books",
    .one = "bk",
    .doc = "A book.",
    .spec = &book_spec_schema,
    .status = &book_status_schema,
    .verbs = V_ALL,
    .check = book_check,
    .actions =
        (const struct action[]){
            { "rename", book_rename_run, &book_rename_schema, "run", "Gives it a new title." },
            { "break", book_break, NULL, "cancel", "Fails." },
            { 0 },
        },
};
/* Made by reconcilers only, and for the whole server. */
const struct resource stone_resource = { .kind = "Stone",
                                         .plural = "stones",
                                         .doc = "A stone.",
                                         .spec = &author_spec_schema,
                                         .verbs = V_READ,
                                         .global = true };

static err before(struct req *r)
{
    return auth_before(((struct world *)r->app)->auth, r);
}

static void after(const struct req *r, int status, int64_t took_ns)
{
    api_after(((struct world *)r->app)->api, r, status, took_ns);
}

struct world *world_new(void)
{
    static const struct resource *const kinds[] = { &author_resource, &book_resource, &stone_resource, NULL };
    struct arena *a = arena_new(0);
    struct world *w = NEW(a, struct world);
    char name[] = "/tmp/dhow-api-XXXXXX";
    CHECK(mkdtemp(name) != NULL);
    log_setup(LOG_ERROR, false);
    w->a = a;
    w->dir = str_z(a, str_of(name));
    CHECK_OK(
        store_open(&(struct store_config){ .dir = str_of(w->dir), .kv_bytes_max = 64 << 20 }, &w->store));
    CHECK_OK(auth_open(w->store, &w->auth));
    CHECK_OK(auth_first_token(w->auth, a, &w->admin));
    w->tables[0] = auth_routes(w->auth, a);
    CHECK_OK(api_open(
        &(struct api_config){
            .store = w->store, .auth = w->auth, .resources = kinds, .routes = w->tables, .app = w },
        &w->api));
    w->tables[1] = api_routes(w->api);
    CHECK_OK(net_start(&(struct net_config){ .listen = S("127.0.0.1:0"),
                                             .loops = 1,
                                             .workers = 4,
                                             .routes = w->tables,
                                             .app = w,
                                             .before = before,
                                             .fail = api_fail,
                                             .after = after },
                       &w->net));
    w->url = fmt(a, "http://%.*s", STR(net_address(w->net)));
    return w;
}

void world_free(struct world *w)
{
    net_stop(w->net);
    api_close(w->api);
    auth_close(w->auth);
    store_close(w->store);
    CHECK_OK(dir_remove(w->dir));
    arena_free(w->a);
}

struct str token_for(struct world *w, const char *project, uint32_t roles)
{
    struct str secret;
    struct token t = { .name = S("test"), .project = str_of(project), .roles = roles };
    CHECK_OK(token_create(w->auth, w->a, S("ann"), &t, &secret));
    return secret;
}

struct http_reply call(struct world *w, struct str token, enum method m, const char *path, struct str body)
{
    struct http *http;
    struct http_reply reply;
    CHECK_OK(http_open(w->url, token, 10000, &http));
    CHECK_OK(http_do(http, w->a, m, str_of(path), body.n ? S("application/json") : S(""), body, &reply));
    http_close(http);
    return reply;
}

struct http_reply admin(struct world *w, enum method m, const char *path, const char *body, int status)
{
    struct http_reply r = call(w, w->admin, m, path, str_of(body ? body : ""));
    cr_assert(r.status == status, "%s %s: %d, not %d: %.*s", method_names[m].p, path, r.status, status,
              STR(r.body));
    return r;
}

yyjson_val *member(struct world *w, struct str json, const char *path)
{
    yyjson_val *v;
    CHECK_OK(json_parse(w->a, json, &v));
    struct str rest = str_of(path);
    for (struct str part; v && str_cut(&rest, '.', &part);)
        v = yyjson_obj_getn(v, part.p, part.n);
    return v;
}

struct str member_str(struct world *w, struct str json, const char *path)
{
    return str_of(yyjson_get_str(member(w, json, path)));
}

int64_t member_i64(struct world *w, struct str json, const char *path)
{
    return yyjson_get_sint(member(w, json, path));
}

bool contains(struct str text, const char *part)
{
    return memmem(text.p, text.n, part, strlen(part)) != NULL;
}
