// SPDX-License-Identifier: Apache-2.0
/* problem: an error as a reply, in the form that the path's protocol speaks. What is INTERNAL is logged
 * with the request's id, and only that is shown. */
#include "api/internal.h"

struct shown {
    const struct err_info *info;
    enum err_code code;
    struct str text, hint, field;
};

/* RFC 9457 */
static void problem_write(const struct shown *s, const struct req *r, struct json *j)
{
    char type[64];
    int n = snprintf(type, sizeof type, "urn:dhow:problem:%.*s", STR(s->info->name));
    json_kstr(j, "type", (struct str){ type, (size_t)n });
    json_kstr(j, "title", s->info->doc);
    json_ki64(j, "status", s->info->http);
    json_kstr(j, "detail", s->text);
    if (s->hint.n)
        json_kstr(j, "hint", s->hint);
    if (s->field.n)
        json_kstr(j, "field", s->field);
    json_kstr(j, "code", s->info->name);
    json_kstr(j, "requestId", r->id);
}

/* Open Inference Protocol */
static void inference_write(const struct shown *s, const struct req *r, struct json *j)
{
    (void)r;
    json_kstr(j, "error", s->text);
}

static struct str mlflow_code(enum err_code code)
{
    switch (code) {
    case INVALID:
    case GATE:
    case TOO_LARGE:
    case MEDIA:
        return S("INVALID_PARAMETER_VALUE");
    case UNAUTHORIZED:
        return S("UNAUTHENTICATED");
    case FORBIDDEN:
        return S("PERMISSION_DENIED");
    case NOT_FOUND:
        return S("RESOURCE_DOES_NOT_EXIST");
    case METHOD:
        return S("ENDPOINT_NOT_FOUND");
    case CONFLICT:
        return S("RESOURCE_ALREADY_EXISTS");
    case LIMIT:
    case BUSY:
        return S("REQUEST_LIMIT_EXCEEDED");
    case UNAVAILABLE:
    case TIMEOUT:
        return S("TEMPORARILY_UNAVAILABLE");
    case UNSUPPORTED:
        return S("NOT_IMPLEMENTED");
    default:
        return S("INTERNAL_ERROR");
    }
}

static void mlflow_write(const struct shown *s, const struct req *r, struct json *j)
{
    (void)r;
    json_kstr(j, "error_code", mlflow_code(s->code));
    json_kstr(j, "message", s->text);
}

/* The first whose path is the beginning of the request's. */
static const struct form {
    struct str path;
    const char *content_type;
    void (*write)(const struct shown *, const struct req *, struct json *);
} forms[] = {
    { S_INIT("/v2"), "application/json", inference_write },
    { S_INIT("/api/2.0/mlflow"), "application/json", mlflow_write },
    { S_INIT("/api/3.0/mlflow"), "application/json", mlflow_write },
    { S_INIT(""), "application/problem+json", problem_write },
};

static const struct form *form_of(struct str path)
{
    const struct form *f = forms;
    while (!str_starts(path, f->path) ||
           (f->path.n && path.n > f->path.n && path.p[f->path.n] != '/' && path.p[f->path.n] != '-'))
        f++;
    return f;
}

static void fail_log(const struct req *r, err e)
{
    log_context(r->id);
    log_error("request.failed", KV("method", r->method), KV("path", r->path),
              KV("code", err_table[e->code].name), KV("error", e->text));
    log_context(S(""));
}

err api_fail(struct req *r, err e)
{
    struct shown s = {
        .info = &err_table[e->code], .code = e->code, .text = e->text, .hint = e->hint, .field = e->field
    };
    if (e->code == INTERNAL || e->code == FULL)
        fail_log(r, e);
    if (e->code == INTERNAL)
        s.text = fmt(r->a, "something went wrong here; the log has it under request %.*s", STR(r->id));
    if (e->code == UNAUTHORIZED)
        req_reply_header(r, "WWW-Authenticate", S("Bearer realm=\"dhow\""));
    if ((e->code == LIMIT || e->code == BUSY || e->code == UNAVAILABLE) &&
        !req_reply_has(r, S("retry-after")))
        req_reply_header(r, "Retry-After", S("1"));
    const struct form *f = form_of(r->path);
    struct json j = json_new(r->a);
    json_obj(&j);
    f->write(&s, r, &j);
    json_obj_end(&j);
    return req_reply(r, s.info->http, f->content_type, json_get(&j));
}
