// SPDX-License-Identifier: Apache-2.0
/* Talking to the daemon. */
#include "cli/cli.h"
#include <stdlib.h>
#include <strings.h>

enum { CALL_MS = 120000 };

err cli_token(struct cli *c, struct str *out)
{
    const char *file = cli_option(c, "token-file"), *env = getenv("DHOW_TOKEN"), *home = getenv("HOME");
    if (!file && env && *env) {
        *out = str_of(env);
        return NULL;
    }
    bool named = file != NULL;
    if (!file && home)
        file = fmtz(c->a, "%s/.config/dhow/token", home);
    *out = S("");
    if (!file || (!named && !file_exists(file)))
        return NULL;
    struct str text;
    TRY_AS(file_read(c->a, file, 4096, &text), "reading the token");
    *out = str_trim(text);
    return NULL;
}

err cli_http(struct cli *c, struct http **out)
{
    struct str token;
    TRY(cli_token(c, &token));
    TRY(http_open(str_of(cli_option(c, "server")), token, CALL_MS, out));
    return http_header(*out, "X-Dhow-Project", c->project); /* where the path does not say it */
}

static enum err_code code_of(int status, struct str name)
{
    for (int i = 1; i < ERR_COUNT; i++)
        if (name.n ? str_eq(err_table[i].name, name) : err_table[i].http == status)
            return (enum err_code)i;
    return INTERNAL;
}

/* problem+json, or {"error": "…"} of the inference protocol. */
static err problem(struct cli *c, const struct http_reply *r)
{
    yyjson_val *v = NULL;
    if (!r->body.n || json_parse(c->a, r->body, &v))
        v = NULL;
    struct str detail = json_text_at(c->a, v, "detail"), hint = json_text_at(c->a, v, "hint");
    if (!detail.n)
        detail = json_text_at(c->a, v, "error");
    if (!detail.n)
        detail = json_text_at(c->a, v, "title");
    if (!detail.n)
        detail = fmt(c->a, "the server answered %d", r->status);
    err e = err_new(code_of(r->status, json_text_at(c->a, v, "code")), "%.*s", STR(detail));
    if (r->status == 401) /* the server's is for programs */
        hint = S(
            "set DHOW_TOKEN to a token, or DHOW_TOKEN_FILE to a file with one; the first `dhow serve` made one");
    return hint.n ? err_hint(e, "%.*s", STR(hint)) : e;
}

static bool cut_start(struct str *s, struct str start)
{
    bool is = str_starts(*s, start);
    if (is)
        *s = str_sub(*s, start.n, s->n);
    return is;
}

/* What a request is about: "/api/v1/[projects/P/]datasets/NAME…", "…/lineage?ref=Dataset/NAME" or "/v2/[repository/]models/NAME…";
 * NULL: no one thing. */
static const struct resource *asked_for(struct str path, struct str *name)
{
    struct str kind = S("deployments"), no_matter, query = path;
    *name = S("");
    str_cut(&query, '?', &path);
    if (!cut_start(&path, S("/v2/models/")) && !cut_start(&path, S("/v2/repository/models/"))) {
        if (!cut_start(&path, S("/api/v1/")) || !str_cut(&path, '/', &kind))
            return NULL;
        if (str_is(kind, "projects") && str_cut(&path, '/', &no_matter))
            str_cut(&path, '/', &kind);
    }
    if (str_is(kind, "lineage") && cut_start(&query, S("ref="))) {
        path = query;
        str_cut(&path, '/', &kind);
    }
    str_cut(&path, '/', name);
    return name->n ? cli_resource(kind) : NULL;
}

err cli_near(struct cli *c, err e)
{
    struct str name, all;
    struct strs names = { 0 };
    yyjson_val *list = NULL, *item;
    size_t i, n;
    const struct resource *r = asked_for(c->refused, &name);
    bool maybe = e->code == NOT_FOUND || str_starts(c->refused, S("/v2/"));
    if (e->hint.n || !r || !maybe || cli_path(c, str_of(r->kind), S(""), NULL, NULL, &all) ||
        cli_call(c, M_GET, fmt(c->a, "%.*s?limit=1000", STR(all)), S(""), &list))
        return e;
    yyjson_arr_foreach (yyjson_obj_get(list, "items"), i, n, item) {
        push(c->a, &names, json_text_at(c->a, item, "metadata.name"));
        if (str_eq(names.v[i], name))
            return e;
    }
    struct str near = str_nearest(name, names.v, names.n);
    return near.n ? err_hint(e, "did you mean '%.*s'?", STR(near))
                  : err_hint(e, "`dhow get %s` lists what there is", r->plural);
}

err cli_call_raw(struct cli *c, enum method m, struct str path, struct str body, struct http_reply *out)
{
    if (!c->http)
        TRY(cli_http(c, &c->http));
    TRY(http_do(c->http, c->a, m, path, body.n ? S("application/json") : S(""), body, out));
    bool ok = out->status / 100 == 2;
    c->refused = ok ? S("") : path;
    return ok ? NULL : problem(c, out);
}

err cli_call(struct cli *c, enum method m, struct str path, struct str body, yyjson_val **out)
{
    struct http_reply r;
    yyjson_val *v = NULL;
    TRY(cli_call_raw(c, m, path, body, &r));
    if (r.body.n)
        TRY_AS(json_parse(c->a, r.body, &v), "reading the server's answer");
    if (out)
        *out = v;
    return NULL;
}

static bool same_word(struct str a, const char *b)
{
    return strlen(b) == a.n && strncasecmp(a.p, b, a.n) == 0;
}

const struct resource *cli_resource(struct str k)
{
    for (const struct resource *const *r = cli_resources(); *r; r++)
        if (same_word(k, (*r)->plural) || same_word(k, (*r)->kind) || ((*r)->one && same_word(k, (*r)->one)))
            return *r;
    return NULL;
}

err cli_path(struct cli *c, struct str kind, struct str name, const char *action, const struct resource **res,
             struct str *out)
{
    const struct resource *r = cli_resource(kind);
    if (!r) {
        struct strs names = { 0 };
        for (const struct resource *const *k = cli_resources(); *k; k++) {
            push(c->a, &names, str_of((*k)->plural));
            push(c->a, &names, str_of((*k)->kind));
        }
        struct str near = str_nearest(kind, names.v, names.n);
        return err_hint(err_new(INVALID, "there is no kind '%.*s'", STR(kind)),
                        near.n ? "did you mean '%.*s'?" : "`dhow explain` lists the kinds%.*s", STR(near));
    }
    struct buf b = buf_new(c->a);
    if (r->global)
        buf_fmt(&b, "/api/v1/%s", r->plural);
    else
        buf_fmt(&b, "/api/v1/projects/%.*s/%s", STR(c->project), r->plural);
    if (name.n)
        buf_fmt(&b, "/%.*s", STR(url_encode(c->a, name)));
    if (action)
        buf_fmt(&b, "/%s", action);
    if (res)
        *res = r;
    *out = buf_get(&b);
    return NULL;
}
