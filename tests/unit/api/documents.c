// SPDX-License-Identifier: Apache-2.0
/* What the server says of itself: OpenAPI, JSON Schema, metrics, health, and the forms of its errors. */
#define SUITE documents
#include "help.h"
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

TEST(openapi_has_every_route_and_its_permission)
{
    struct world *w = world_new();
    struct http_reply r = call(w, S(""), M_GET, "/openapi.json", S(""));
    CHECK(r.status == 200);
    CHECK_STR(member_str(w, r.body, "openapi"), "3.1.0");
    yyjson_val *paths = member(w, r.body, "paths");
    for (const struct route *const *t = (const struct route *const *)w->tables; *t; t++)
        for (const struct route *row = *t; row->path; row++) {
            if (row->grpc)
                continue;
            yyjson_val *path = yyjson_obj_get(paths, row->path);
            const char *method = row->method == M_GET      ? "get"
                                 : row->method == M_PUT    ? "put"
                                 : row->method == M_POST   ? "post"
                                 : row->method == M_DELETE ? "delete"
                                                           : "";
            yyjson_val *op = yyjson_obj_get(path, method);
            cr_assert(op != NULL, "%s %s is not in openapi.json", method, row->path);
            CHECK_STR(yyjson_get_str(yyjson_obj_get(op, "x-permission")), row->may);
            CHECK(yyjson_get_len(yyjson_obj_get(op, "summary")) > 0);
        }
    CHECK(member(w, r.body, "components.schemas.Book.properties.spec.properties.title") != NULL);
    CHECK(member(w, r.body, "components.schemas.BookList") != NULL);
    world_free(w);
}

TEST(the_schema_of_files_has_every_kind)
{
    struct world *w = world_new();
    struct http_reply r = call(w, S(""), M_GET, "/schema/v1.json", S(""));
    CHECK(r.status == 200);
    CHECK(yyjson_arr_size(member(w, r.body, "oneOf")) == 4);
    CHECK(contains(r.body, "\"const\":\"Project\"") && contains(r.body, "\"const\":\"Book\""));
    world_free(w);
}

static void collect(void *arg, struct buf *out)
{
    buf_fmt(out, "my_figure %d\n", *(int *)arg);
}

TEST(metrics_count_by_route_method_and_status)
{
    struct world *w = world_new();
    int seven = 7;
    api_metrics_add(w->api, collect, &seven);
    CHECK(call(w, S(""), M_GET, "/metrics", S("")).status == 401);
    admin(w, M_GET, BOOKS, NULL, 200);
    admin(w, M_GET, BOOKS, NULL, 200);
    admin(w, M_GET, BOOKS "/none", NULL, 404);
    admin(w, M_GET, "/nowhere", NULL, 404);
    struct http_reply r = admin(w, M_GET, "/metrics", NULL, 200);
    CHECK(contains(
        r.body,
        "dhow_http_requests_total{route=\"/api/v1/projects/{project}/books\",method=\"GET\",status=\"200\"} 2\n"));
    CHECK(contains(r.body,
                   "{route=\"/api/v1/projects/{project}/books/{name}\",method=\"GET\",status=\"404\"} 1\n"));
    CHECK(contains(r.body, "{route=\"none\",method=\"any\",status=\"404\"} 1\n"));
    CHECK(contains(r.body, "_count{route=\"/api/v1/projects/{project}/books\",method=\"GET\"} 2\n"));
    CHECK(contains(r.body, "my_figure 7\n") && contains(r.body, "process_resident_memory_bytes"));
    CHECK(str_starts(r.content_type, S("text/plain; version=0.0.4")));
    world_free(w);
}

static void collect_traced(void *arg, struct buf *out)
{
    (void)arg;
    buf_str(out, S("# HELP a_total Things.\n# TYPE a_total counter\na_total 3\n"
                   "# HELP nv_b Others.\n# TYPE nv_b counter\nnv_b 4\n"
                   "# HELP c Times.\n# TYPE c histogram\nc_bucket{le=\"1\"} 2 # {trace_id=\"ab\"} 0.5 7\n"));
}

/* Head and body, by a socket of our own: the client sends no Accept. */
static struct str as_open_metrics(struct world *w)
{
    struct str address = net_address(w->net);
    int64_t port = 0;
    size_t colon = str_find(address, ':');
    CHECK(str_i64(str_sub(address, colon + 1, address.n), &port));
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons((uint16_t)port),
                              .sin_addr = { htonl(INADDR_LOOPBACK) } };
    auto_close int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct str ask = fmt(
        w->a,
        "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer %.*s\r\n"
        "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
        STR(w->admin));
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    CHECK(write(fd, ask.p, ask.n) == (ssize_t)ask.n);
    struct buf b = buf_new(w->a);
    for (ssize_t n = 1; n > 0; b.n += n > 0 ? (size_t)n : 0)
        n = read(fd, buf_room(&b, 4096), 4096);
    return buf_get(&b);
}

TEST(metrics_come_in_the_form_that_is_asked_for)
{
    struct world *w = world_new();
    api_metrics_add(w->api, collect_traced, NULL);
    struct str plain = admin(w, M_GET, "/metrics", NULL, 200).body;
    CHECK(contains(plain, "# TYPE a_total counter\na_total 3\n"));
    CHECK(contains(plain, "# TYPE nv_b counter\nnv_b 4\n"));
    CHECK(contains(plain, "c_bucket{le=\"1\"} 2\n") && !contains(plain, "# EOF"));
    struct str open = as_open_metrics(w);
    CHECK(contains(open, "application/openmetrics-text; version=1.0.0"));
    CHECK(contains(open, "# HELP a Things.\n# TYPE a counter\na_total 3\n"));
    CHECK(contains(open, "# TYPE nv_b unknown\nnv_b 4\n"));
    CHECK(contains(open, "c_bucket{le=\"1\"} 2 # {trace_id=\"ab\"} 0.5 7\n# EOF\n"));
    world_free(w);
}

static bool ready(void *arg)
{
    return *(_Atomic bool *)arg;
}

TEST(health_and_readiness)
{
    struct world *w = world_new();
    _Atomic bool yes = false;
    api_ready_add(w->api, ready, &yes);
    CHECK(call(w, S(""), M_GET, "/healthz", S("")).status == 200);
    CHECK(call(w, S(""), M_GET, "/readyz", S("")).status == 503);
    yes = true;
    CHECK(call(w, S(""), M_GET, "/readyz", S("")).status == 200);
    world_free(w);
}

TEST(errors_speak_the_path_s_protocol)
{
    struct world *w = world_new();
    struct http_reply r = call(w, S(""), M_GET, "/v2/models/x", S(""));
    CHECK(r.status == 401);
    CHECK_STR(r.body, "{\"error\":\"no token came with the request\"}");
    r = call(w, S(""), M_GET, "/api/2.0/mlflow/runs/get", S(""));
    CHECK_STR(member_str(w, r.body, "error_code"), "UNAUTHENTICATED");
    r = call(w, S(""), M_GET, "/v2x", S(""));
    CHECK_STR(member_str(w, r.body, "code"), "UNAUTHORIZED");
    CHECK(member(w, r.body, "hint") && member(w, r.body, "requestId") && member(w, r.body, "title"));
    world_free(w);
}

static err nothing(struct req *r)
{
    (void)r;
    return NULL;
}

TEST(a_module_whose_route_names_no_permission_stops_the_start)
{
    struct world *w = world_new();
    static const struct route rows[] = { { M_GET, "/open/door", nothing }, { 0 } };
    const struct route *const tables[] = { rows, NULL };
    struct api *api;
    err e = api_open(&(struct api_config){ .store = w->store, .auth = w->auth, .routes = tables }, &api);
    CHECK(e && contains(e->text, "/open/door"));
    world_free(w);
}

TEST(kinds_are_found_by_each_of_their_names)
{
    struct world *w = world_new();
    CHECK(api_resource(w->api, S("Book")) == &book_resource);
    CHECK(api_resource(w->api, S("books")) == &book_resource);
    CHECK(api_resource(w->api, S("bk")) == &book_resource);
    CHECK(api_resource(w->api, S("Project")) == &project_resource);
    CHECK(api_resource(w->api, S("x")) == NULL && api_resource(w->api, S("")) == NULL);
    world_free(w);
}
