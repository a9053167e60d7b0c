// SPDX-License-Identifier: Apache-2.0
/* grpc: the two services that every gRPC server is asked for: is it well, and what can it do.
 * https://github.com/grpc/grpc-proto: grpc/health/v1, grpc/reflection/v1 (v1alpha is the same under another name). */
#include "api/internal.h"

/* ---- health ---- */

enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

/* A call of Watch: lives in its request, until that is done. */
struct health_watcher {
    struct health_watcher *next;
    struct req *r;
    struct str service;
    int status; /* that was sent last */
};

/* "package.Service" of "/package.Service/Method"; empty for what is no gRPC method. */
static struct str service_of(const struct route *r)
{
    struct str path = str_of(r->path);
    if (!r->grpc)
        return S("");
    path = str_sub(path, 1, path.n);
    return str_sub(path, 0, str_find(path, '/'));
}

static bool service_known(const struct api *api, struct str name)
{
    for (size_t i = 0; i < api->tables_n; i++)
        for (const struct route *r = api->tables[i]; r->path; r++)
            if (r->grpc && str_eq(service_of(r), name))
                return true;
    return name.n == 0; /* the server as a whole */
}

static int health_of(struct api *api, struct str service)
{
    if (!service_known(api, service))
        return SERVICE_UNKNOWN;
    return api_ready(api) ? SERVING : NOT_SERVING;
}

static struct str health_text(struct arena *a, int status)
{
    struct buf b = buf_new(a);
    pb_varint(&b, 1, status);
    return buf_get(&b);
}

err health_check(struct req *r)
{
    struct str service = pb_find(r->body, 1);
    int status = health_of(place_of(r)->api, service);
    if (status == SERVICE_UNKNOWN)
        FAIL(NOT_FOUND, "there is no service '%.*s'", STR(service));
    return req_reply(r, 200, NULL, health_text(r->a, status));
}

err health_watch(struct req *r)
{
    struct api *api = place_of(r)->api;
    if (r->last)
        return NULL;
    struct health_watcher *w = NEW(r->a, struct health_watcher);
    *w = (struct health_watcher){ .r = r, .service = pb_find(r->body, 1) };
    w->status = health_of(api, w->service);
    TRY(req_send(r, health_text(r->a, w->status)));
    LOCKED(&api->m);
    if (api->health_watchers_n >= WATCHERS_MAX)
        FAIL(LIMIT, "there are %d watchers already", WATCHERS_MAX);
    api->health_watchers_n++;
    req_later(r);
    w->next = api->health_watchers;
    api->health_watchers = w;
    return NULL;
}

/* Tells the watcher what changed. False: it is gone. */
static bool health_tell(struct api *api, struct health_watcher *w)
{
    if (req_gone(w->r))
        return false;
    int status = health_of(api, w->service);
    bool same = status == w->status;
    w->status = status;
    return same || !req_send(w->r, health_text(w->r->a, status));
}

void health_tend(struct api *api)
{
    pthread_mutex_lock(&api->m);
    struct health_watcher *all = api->health_watchers, *stay = NULL, *next;
    api->health_watchers = NULL;
    pthread_mutex_unlock(&api->m);
    size_t left = 0;
    for (struct health_watcher *w = all; w; w = next) {
        next = w->next;
        if (health_tell(api, w)) {
            w->next = stay;
            stay = w;
        } else {
            left++;
            req_done(w->r, err_new(UNAVAILABLE, "the server stops")); /* or nobody listens */
        }
    }
    LOCKED(&api->m);
    api->health_watchers_n -= left;
    while (stay) {
        next = stay->next;
        stay->next = api->health_watchers;
        api->health_watchers = stay;
        stay = next;
    }
}

/* ---- reflection ---- */

enum { ASK_FILE = 3, ASK_SYMBOL = 4, ASK_EXTENSION = 5, ASK_EXTENSIONS = 6, ASK_SERVICES = 7 };
enum { FILE_PACKAGE = 2, FILE_MESSAGE = 4, FILE_ENUM = 5, FILE_SERVICE = 6 };

void api_grpc_describe(struct api *api, struct str file, struct str bytes)
{
    LOCKED(&api->m);
    push(api->a, &api->files, (struct proto_file){ str_dup(api->a, file), str_dup(api->a, bytes) });
}

/* Whether a FileDescriptorProto declares the symbol, or what it is a part of. */
static bool file_has(struct str file, struct str symbol)
{
    struct str package = pb_find(file, FILE_PACKAGE);
    if (package.n && (!str_starts(symbol, package) || symbol.n <= package.n || symbol.p[package.n] != '.'))
        return false;
    symbol = package.n ? str_sub(symbol, package.n + 1, symbol.n) : symbol;
    struct str first = str_sub(symbol, 0, str_find(symbol, '.'));
    const char *wrong;
    for (struct pb_field f; pb_next(&file, &f, &wrong);)
        if ((f.number == FILE_MESSAGE || f.number == FILE_ENUM || f.number == FILE_SERVICE) &&
            f.wire == PB_BYTES && str_eq(pb_find(f.bytes, 1), first))
            return true;
    return false;
}

static struct str file_find(struct api *api, int ask, struct str what)
{
    LOCKED(&api->m);
    for (size_t i = 0; i < api->files.n; i++) {
        const struct proto_file *f = &api->files.v[i];
        if (ask == ASK_FILE ? str_eq(f->name, what) : file_has(f->bytes, what))
            return f->bytes;
    }
    return S("");
}

static void write_services(const struct api *api, struct buf *b)
{
    struct str before = S("");
    size_t list = pb_open(b, 6);
    for (size_t i = 0; i < api->tables_n; i++)
        for (const struct route *r = api->tables[i]; r->path; r++) {
            if (!r->grpc || str_eq(service_of(r), before)) /* methods of one stand together */
                continue;
            before = service_of(r);
            size_t service = pb_open(b, 1);
            pb_bytes(b, 1, before);
            pb_close(b, service);
        }
    pb_close(b, list);
}

static void write_failure(struct buf *b, int status, struct str text)
{
    size_t at = pb_open(b, 7);
    pb_varint(b, 1, status);
    pb_bytes(b, 2, text);
    pb_close(b, at);
}

err reflect(struct req *r)
{
    struct api *api = place_of(r)->api;
    if (r->last)
        return NULL;
    struct str rest = r->body;
    struct pb_field f, ask = { 0 };
    const char *wrong;
    while (pb_next(&rest, &f, &wrong))
        if (f.number >= ASK_FILE && f.number <= ASK_SERVICES)
            ask = f;
    if (wrong)
        FAIL(INVALID, "the request cannot be read: %s", wrong);
    struct buf b = buf_new(r->a);
    pb_bytes(&b, 1, pb_find(r->body, 1));
    pb_bytes(&b, 2, r->body);
    struct str file = ask.number == ASK_FILE || ask.number == ASK_SYMBOL
                          ? file_find(api, ask.number, ask.bytes)
                          : S("");
    if (ask.number == ASK_SERVICES) {
        write_services(api, &b);
    } else if (file.n) {
        size_t at = pb_open(&b, 4);
        pb_bytes(&b, 1, file);
        pb_close(&b, at);
    } else if (ask.number == ASK_FILE || ask.number == ASK_SYMBOL) {
        write_failure(&b, 5, fmt(r->a, "'%.*s' is not known here", STR(ask.bytes)));
    } else {
        write_failure(&b, 12, S("extensions are not known here"));
    }
    return req_send(r, buf_get(&b));
}
