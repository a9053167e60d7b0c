// SPDX-License-Identifier: Apache-2.0
#include "net/internal.h"

/* ---- a request's path ---- */

/* "." or ".." as a whole name, also between slashes that were encoded. */
static bool has_dots(struct str s)
{
    if (s.n && s.p[0] != '.' && str_find(s, '/') == s.n)
        return false; /* nearly all */
    for (struct str part; str_cut(&s, '/', &part);)
        if (str_is(part, ".") || str_is(part, ".."))
            return true;
    return false;
}

static bool has_control(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return true;
    return false;
}

static const char *segment_parse(struct arena *a, struct str raw, struct str *out)
{
    if (!percent_decode(a, raw, false, out))
        return "the path has a broken percent-encoding";
    if (has_control(*out))
        return "the path has a control character";
    if (!str_utf8_ok(*out))
        return "the path is not UTF-8";
    if (has_dots(*out))
        return "the path has a '.' or '..' segment";
    return NULL;
}

/* The segments again, each slash inside one written as %2F. */
static struct str path_join(struct arena *a, const struct path *path)
{
    struct buf b = buf_new(a);
    for (size_t i = 0; i < path->n; i++) {
        buf_put(&b, "/", 1);
        for (size_t k = 0; k < path->segments[i].n; k++) {
            bool slash = path->segments[i].p[k] == '/';
            buf_put(&b, slash ? "%2F" : path->segments[i].p + k, slash ? 3 : 1);
        }
    }
    return buf_get(&b);
}

const char *path_parse(struct arena *a, struct str raw, struct path *out)
{
    out->n = 0;
    if (!raw.n || raw.p[0] != '/')
        return "the path does not begin with '/'";
    for (size_t from = 1, to; from <= raw.n; from = to + 1) {
        to = from + str_find(str_sub(raw, from, raw.n), '/');
        if (to == from && to < raw.n)
            return "the path has an empty segment";
        if (out->n == SEGMENTS_MAX)
            return "the path has too many segments";
        const char *wrong = segment_parse(a, str_sub(raw, from, to), &out->segments[out->n++]);
        if (wrong)
            return wrong;
    }
    out->whole = str_find(raw, '%') == raw.n ? raw : path_join(a, out);
    return NULL;
}

/* ---- the table, as a tree of segments ---- */

struct node {
    struct str name; /* literal */
    struct node *children, *sibling, *param;
    const struct route *routes[M_COUNT], *rest[M_COUNT];
};
struct routes {
    struct arena *a;
    struct node root;
};

static struct node *node_child(struct arena *a, struct node *at, struct str name)
{
    for (struct node *c = at->children; c; c = c->sibling)
        if (str_eq(c->name, name))
            return c;
    struct node *c = NEW(a, struct node);
    c->name = name;
    c->sibling = at->children;
    at->children = c;
    return c;
}

static bool is_param(struct str segment)
{
    return segment.n > 2 && segment.p[0] == '{' && segment.p[segment.n - 1] == '}';
}

static err route_put(const struct route *r, const struct route **place)
{
    if (*place)
        FAIL(INVALID, "route %s %s is in the table twice", method_names[r->method].p, r->path);
    *place = r;
    return NULL;
}

static err route_check(const struct route *r)
{
    const char *method = r->method < M_COUNT ? method_names[r->method].p : "?";
    if (r->method >= M_COUNT || r->path[0] != '/')
        FAIL(INVALID, "route %s %s: no such method or path", method, r->path);
    if (!r->run)
        FAIL(INVALID, "route %s %s has no handler", method, r->path);
    if (!r->may || !*r->may)
        FAIL(INVALID, "route %s %s does not say who may use it", method, r->path);
    return NULL;
}

static err route_add(struct routes *t, const struct route *r)
{
    TRY(route_check(r));
    struct node *at = &t->root;
    struct str rest = str_of(r->path + 1);
    size_t params = 0, depth = 0;
    bool more = true;
    while (more) {
        size_t end = str_find(rest, '/');
        struct str segment = str_sub(rest, 0, end);
        more = end < rest.n;
        rest = str_sub(rest, end + 1, rest.n);
        if (++depth > SEGMENTS_MAX || (is_param(segment) && ++params > PARAMS_MAX))
            FAIL(INVALID, "route %s has too many segments or parameters", r->path);
        if (is_param(segment) && str_ends(segment, S("...}"))) {
            if (more)
                FAIL(INVALID, "route %s: '{…...}' is not its last segment", r->path);
            return route_put(r, &at->rest[r->method]);
        }
        if (!is_param(segment)) {
            at = node_child(t->a, at, segment);
        } else {
            if (!at->param)
                at->param = NEW(t->a, struct node);
            at = at->param;
        }
    }
    return route_put(r, &at->routes[r->method]);
}

static err routes_fill(struct routes *t, const struct route *const *tables)
{
    for (; tables && *tables; tables++)
        for (const struct route *r = *tables; r->path; r++)
            TRY(route_add(t, r));
    return NULL;
}

err routes_new(const struct route *const *tables, struct routes **out)
{
    struct arena *a = arena_new(0);
    struct routes *t = NEW(a, struct routes);
    t->a = a;
    err e = routes_fill(t, tables);
    if (e) {
        arena_free(a);
        return e;
    }
    *out = t;
    return NULL;
}

void routes_free(struct routes *t)
{
    if (t)
        arena_free(t->a);
}

/* ---- finding ---- */

struct find {
    struct req *r;
    const struct path *path;
    enum method method;
    unsigned allow;
    const struct route *got;
    size_t params_n;
};

/* HEAD is answered by GET's route where it has none of its own. */
static bool find_here(struct find *f, const struct route *const *routes)
{
    for (enum method m = 0; m < M_COUNT; m++)
        f->allow |= routes[m] ? 1u << m : 0;
    if (f->method == M_COUNT)
        return false;
    f->got = routes[f->method];
    if (!f->got && f->method == M_HEAD)
        f->got = routes[M_GET];
    f->r->params_n = f->got ? f->params_n : 0;
    return f->got;
}

static struct str path_rest(struct arena *a, const struct path *path, size_t from)
{
    return str_join(a, path->segments + from, path->n - from, S("/"));
}

/* Literal names first, then one parameter, then the rest of the path. */
static bool find_from(struct find *f, const struct node *at, size_t depth)
{
    if (depth == f->path->n)
        return find_here(f, at->routes);
    struct str segment = f->path->segments[depth];
    for (const struct node *c = at->children; c; c = c->sibling)
        if (str_eq(c->name, segment) && find_from(f, c, depth + 1))
            return true;
    if (at->param && segment.n) {
        f->r->params[f->params_n++] = segment;
        if (find_from(f, at->param, depth + 1))
            return true;
        f->params_n--;
    }
    f->params_n++;
    bool found = find_here(f, at->rest);
    f->params_n--;
    if (found)
        f->r->params[f->params_n] = path_rest(f->r->a, f->path, depth);
    return found;
}

const struct route *routes_find(const struct routes *t, struct req *r, enum method m, const struct path *path,
                                unsigned *allow)
{
    struct find f = { .r = r, .path = path, .method = m };
    find_from(&f, &t->root, 0);
    *allow = f.allow;
    return f.got;
}

/* ---- what a handler asks of a request ---- */

struct str req_header(const struct req *r, struct str lower_name)
{
    for (size_t i = 0; i < r->headers_n; i++)
        if (str_eq(r->headers[i].name, lower_name))
            return r->headers[i].value;
    return S("");
}

/* On every request several times, so the route's path is not taken apart: a parameter is what stands in braces. */
struct str req_param(const struct req *r, struct str name)
{
    const char *at = r->route ? r->route->path : "";
    for (size_t i = 0; i < r->params_n && (at = strchr(at, '{')); i++) {
        at++;
        bool same = strncmp(at, name.p, name.n) == 0;
        if (same && (at[name.n] == '}' || at[name.n] == '.'))
            return r->params[i];
    }
    return S("");
}

bool req_query(const struct req *r, struct str name, struct str *out)
{
    struct str rest = r->query;
    for (struct str part; str_cut(&rest, '&', &part);) {
        size_t eq = str_find(part, '=');
        struct str key, value;
        if (percent_decode(r->a, str_sub(part, 0, eq), true, &key) && str_eq(key, name) &&
            percent_decode(r->a, str_sub(part, eq + 1, part.n), true, &value)) {
            *out = value;
            return true;
        }
    }
    return false;
}
