// SPDX-License-Identifier: Apache-2.0
/* openapi: openapi.json (3.1) and schema/v1.json, made from the same tables that serve the requests. */
#include "api/internal.h"

#ifndef DHOW_VERSION
#define DHOW_VERSION "unknown"
#endif

static void ref(struct json *j, const char *key, const char *place, const char *name)
{
    char text[160];
    int n = snprintf(text, sizeof text, "#/components/%s/%s", place, name);
    json_key(j, str_of(key));
    json_obj(j);
    json_kstr(j, "$ref", (struct str){ text, (size_t)n });
    json_obj_end(j);
}

static void content(struct json *j, const char *type)
{
    json_key(j, S("content"));
    json_obj(j);
    json_key(j, str_of(type));
    json_obj(j);
}

static void content_end(struct json *j)
{
    json_obj_end(j);
    json_obj_end(j);
}

/* ---- kinds ---- */

static void one_of(struct json *j, const char *value)
{
    json_obj(j);
    json_kstr(j, "const", str_of(value));
    json_obj_end(j);
}

/* The document of a kind. */
static void kind_schema(struct json *j, const struct resource *res)
{
    json_obj(j);
    json_kstr(j, "type", S("object"));
    json_kstr(j, "title", str_of(res->kind));
    json_kstr(j, "description", str_of(res->doc));
    json_key(j, S("required"));
    json_raw(j, S("[\"apiVersion\",\"kind\",\"metadata\"]"));
    json_kbool(j, "additionalProperties", false);
    json_key(j, S("properties"));
    json_obj(j);
    json_key(j, S("apiVersion"));
    one_of(j, API_VERSION);
    json_key(j, S("kind"));
    one_of(j, res->kind);
    json_key(j, S("metadata"));
    schema_json_schema(&metadata_schema, j);
    json_key(j, S("spec"));
    schema_json_schema(res->spec, j);
    if (res->status) {
        json_key(j, S("status"));
        schema_json_schema(res->status, j);
    }
    json_obj_end(j);
    json_obj_end(j);
}

static void list_schema(struct json *j, struct arena *a, const struct resource *res)
{
    json_obj(j);
    json_kstr(j, "type", S("object"));
    json_key(j, S("required"));
    json_raw(j, S("[\"items\"]"));
    json_key(j, S("properties"));
    json_raw(
        j,
        fmt(a,
            "{\"apiVersion\":{\"type\":\"string\"},\"kind\":{\"const\":\"%sList\"},\"seq\":{\"type\":\"integer\"},"
            "\"items\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/components/schemas/%s\"}},"
            "\"next\":{\"type\":\"string\"}}",
            res->kind, res->kind));
    json_obj_end(j);
}

static void problem_schema(struct json *j)
{
    json_raw(
        j,
        S("{\"type\":\"object\",\"required\":[\"type\",\"title\",\"status\",\"code\"],\"properties\":{"
          "\"type\":{\"type\":\"string\"},\"title\":{\"type\":\"string\"},\"status\":{\"type\":\"integer\"},"
          "\"detail\":{\"type\":\"string\"},\"hint\":{\"type\":\"string\"},\"field\":{\"type\":\"string\"},"
          "\"code\":{\"type\":\"string\"},\"requestId\":{\"type\":\"string\"}}}"));
}

static void components(struct json *j, struct api *api, struct arena *a)
{
    json_obj(j);
    json_key(j, S("securitySchemes"));
    json_raw(j, S("{\"bearer\":{\"type\":\"http\",\"scheme\":\"bearer\"}}"));
    json_key(j, S("responses"));
    json_raw(
        j,
        S("{\"Problem\":{\"description\":\"What went wrong (RFC 9457).\",\"content\":{\"application/problem+json\":"
          "{\"schema\":{\"$ref\":\"#/components/schemas/Problem\"}}}}}"));
    json_key(j, S("schemas"));
    json_obj(j);
    json_key(j, S("Problem"));
    problem_schema(j);
    for (size_t i = 0; i < api->res_n; i++) {
        json_key(j, str_of(api->res[i]->kind));
        kind_schema(j, api->res[i]);
        json_key(j, fmt(a, "%sList", api->res[i]->kind));
        list_schema(j, a, api->res[i]);
    }
    json_obj_end(j);
    json_obj_end(j);
}

/* ---- operations ---- */

/* "/a/{b...}" → "/a/{b}" */
static struct str plain_path(struct arena *a, const char *path)
{
    struct buf b = buf_new(a);
    for (const char *p = path; *p; p++)
        if (strncmp(p, "...}", 4) == 0)
            p += 2;
        else
            buf_put(&b, p, 1);
    return buf_get(&b);
}

static void parameter(struct json *j, struct str name, const char *in, bool required, const char *doc)
{
    json_obj(j);
    json_kstr(j, "name", name);
    json_kstr(j, "in", str_of(in));
    json_kbool(j, "required", required);
    if (doc)
        json_kstr(j, "description", str_of(doc));
    json_key(j, S("schema"));
    json_raw(j, S("{\"type\":\"string\"}"));
    json_obj_end(j);
}

struct query_param {
    err (*run)(struct req *);
    const char *name, *doc;
};
static const struct query_param query_params[] = {
    { handle_list, "limit", "At most so many; 1 to 1000." },
    { handle_list, "after", "From the name after this one on." },
    { handle_list, "labels", "Only with all of these: key=value,key=value." },
    { handle_put, "dryRun", "1: says what would change, changes nothing." },
    { handle_post, "dryRun", "1: says what would change, changes nothing." },
    { handle_delete, "dryRun", "1: changes nothing." },
    { watch_get, "kind", "Only of this kind." },
    { watch_get, "project", "Only in this project." },
    { watch_get, "name", "Only of this name." },
    { watch_get, "after", "From the event after this seq on." },
    { events_get, "kind", "Only of this kind." },
    { events_get, "project", "Only in this project." },
    { events_get, "name", "Only of this name." },
    { events_get, "after", "From the event after this seq on." },
    { events_get, "limit", "At most so many; 1 to 1000." },
};

static void parameters(struct json *j, const struct route *r, struct str path)
{
    json_key(j, S("parameters"));
    json_arr(j);
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] == '{') {
            struct str rest = str_sub(path, i + 1, path.n);
            parameter(j, str_sub(rest, 0, str_find(rest, '}')), "path", true, NULL);
        }
    for (size_t i = 0; i < sizeof query_params / sizeof *query_params; i++)
        if (query_params[i].run == r->run)
            parameter(j, str_of(query_params[i].name), "query", false, query_params[i].doc);
    json_arr_end(j);
}

static const struct resource *generic_resource(const struct route *r)
{
    err (*const generic[])(struct req *) = { handle_list, handle_get, handle_put, handle_post };
    for (size_t i = 0; i < sizeof generic / sizeof *generic; i++)
        if (generic[i] == r->run)
            return ((const struct place *)r->self)->res;
    return NULL;
}

static void request_body(struct json *j, const struct route *r)
{
    const struct resource *res = generic_resource(r);
    bool document = res && (r->run == handle_put || r->run == handle_post);
    if (!document && !r->in)
        return;
    json_key(j, S("requestBody"));
    json_obj(j);
    content(j, "application/json");
    if (document) {
        ref(j, "schema", "schemas", res->kind);
    } else {
        json_key(j, S("schema"));
        schema_json_schema(r->in, j);
    }
    content_end(j);
    json_obj_end(j);
}

static void success_body(struct json *j, struct arena *a, const struct route *r)
{
    const struct resource *res = generic_resource(r);
    if (res) {
        content(j, "application/json");
        ref(j, "schema", "schemas", r->run == handle_list ? fmtz(a, "%sList", res->kind) : res->kind);
        content_end(j);
    } else if (r->out) {
        content(j, "application/json");
        json_key(j, S("schema"));
        schema_json_schema(r->out, j);
        content_end(j);
    } else if (r->run == watch_get) {
        content(j, "text/event-stream");
        json_key(j, S("schema"));
        json_raw(j, S("{\"type\":\"string\"}"));
        content_end(j);
    }
}

static void responses(struct json *j, struct arena *a, const struct route *r)
{
    static const char *const problems[] = { "400", "401", "403", "404", "409", "429" };
    bool public = strcmp(r->may, "public") == 0;
    json_key(j, S("responses"));
    json_obj(j);
    json_key(j, S("2XX"));
    json_obj(j);
    json_kstr(j, "description", S("It is done."));
    success_body(j, a, r);
    json_obj_end(j);
    for (size_t i = 0; i < sizeof problems / sizeof *problems && !public; i++)
        ref(j, problems[i], "responses", "Problem");
    ref(j, "default", "responses", "Problem");
    json_obj_end(j);
}

/* "GET /api/v1/{x}" → "get_api_v1_x" */
static struct str operation_id(struct arena *a, const struct route *r)
{
    struct buf b = buf_new(a);
    struct str method = method_names[r->method];
    for (size_t i = 0; i < method.n; i++)
        buf_fmt(&b, "%c", method.p[i] | 0x20);
    for (const char *p = r->path; *p; p++) {
        bool word = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        if (word)
            buf_put(&b, p, 1);
        else if (b.n && b.p[b.n - 1] != '_')
            buf_put(&b, "_", 1);
    }
    struct str id = buf_get(&b);
    return id.n && id.p[id.n - 1] == '_' ? str_sub(id, 0, id.n - 1) : id;
}

static void operation(struct json *j, struct arena *a, const struct route *r, struct str path)
{
    char method[16] = "";
    for (size_t i = 0; i < method_names[r->method].n && i < sizeof method - 1; i++)
        method[i] = (char)(method_names[r->method].p[i] | 0x20);
    json_key(j, str_of(method));
    json_obj(j);
    json_kstr(j, "operationId", operation_id(a, r));
    json_kstr(j, "summary", str_of(r->doc ? r->doc : ""));
    if (r->tag) {
        json_key(j, S("tags"));
        json_arr(j);
        json_str(j, str_of(r->tag));
        json_arr_end(j);
    }
    json_kstr(j, "x-permission", str_of(r->may));
    json_key(j, S("security"));
    json_raw(j, strcmp(r->may, "public") == 0 ? S("[]") : S("[{\"bearer\":[]}]"));
    parameters(j, r, path);
    request_body(j, r);
    responses(j, a, r);
    json_obj_end(j);
}

struct flat {
    const struct route *r;
    struct str path;
};
struct flats {
    VEC(struct flat) list;
};

/* Every route, those of one path together, in the order in which the paths come first. */
static void paths(struct json *j, struct api *api, struct arena *a)
{
    struct flats all = { 0 };
    for (size_t i = 0; i < api->tables_n; i++)
        for (const struct route *r = api->tables[i]; r->path; r++)
            if (!r->grpc)
                push(a, &all.list, (struct flat){ r, plain_path(a, r->path) });
    json_obj(j);
    for (size_t i = 0; i < all.list.n; i++) {
        struct str path = all.list.v[i].path;
        if (path.p == NULL)
            continue;
        json_key(j, path);
        json_obj(j);
        for (size_t k = i; k < all.list.n; k++)
            if (str_eq(all.list.v[k].path, path)) {
                operation(j, a, all.list.v[k].r, path);
                if (k > i)
                    all.list.v[k].path = (struct str){ 0 };
            }
        json_obj_end(j);
    }
    json_obj_end(j);
}

struct str openapi_text(struct api *api, struct arena *a)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "openapi", S("3.1.0"));
    json_key(&j, S("info"));
    json_obj(&j);
    json_kstr(&j, "title", S("dhow"));
    json_kstr(&j, "version", S(DHOW_VERSION));
    json_kstr(&j, "description",
              S("A machine-learning platform: data, features, training, models, serving, monitoring."));
    json_obj_end(&j);
    json_key(&j, S("paths"));
    paths(&j, api, a);
    json_key(&j, S("components"));
    components(&j, api, a);
    json_obj_end(&j);
    return json_get(&j);
}

struct str schema_file_text(struct api *api, struct arena *a)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "$schema", S("https://json-schema.org/draft/2020-12/schema"));
    json_kstr(&j, "title", S("A document of dhow.yaml"));
    json_key(&j, S("oneOf"));
    json_arr(&j);
    for (size_t i = 0; i < api->res_n; i++)
        kind_schema(&j, api->res[i]);
    json_arr_end(&j);
    json_obj_end(&j);
    return json_get(&j);
}
