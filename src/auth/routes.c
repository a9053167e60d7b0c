// SPDX-License-Identifier: Apache-2.0
/* routes: tokens, who one is, and the audit log over HTTP. */
#include "auth/internal.h"

#define R(NAME, name, doc) name,
static const char *const role_values[] = { ROLES(R) NULL };
#undef R
// clang-format off
#define TOKEN_ASK(F, O, L, T)                                                                                    \
    F(T, STR,      name,     REQUIRED, "What it is for, as shown in lists and in the audit log.", .len_max = 64) \
    F(T, STR,      project,  0, "Where it is good; * for all. The asker's own if left out.", .len_max = 63)      \
    F(T, STRS,     roles,    REQUIRED, "What it may do.", .values = role_values, .min = 1)                       \
    F(T, STRS,     scopes,   0, "Permissions that it is narrowed to, as datasets.read or datasets.*.")           \
    F(T, DURATION, lifetime, 0, "How long it is good; at most 366d.", .def = "90d", .min = 1000, .max = 31622400000)
#define TOKEN_ANSWER(F, O, L, T)                                                                                 \
    F(T, STR,  id,        0, "Its public part.")                                                                 \
    F(T, STR,  name,      0, "What it is for.")                                                                  \
    F(T, STR,  project,   0, "Where it is good; * for all.")                                                     \
    F(T, STRS, roles,     0, "What it may do.")                                                                  \
    F(T, STRS, scopes,    0, "What it is narrowed to; nothing: all that the roles give.")                        \
    F(T, TIME, created,   0, "When it was made.")                                                                \
    F(T, TIME, expires,   0, "Until when it is good.")                                                           \
    F(T, TIME, last_used, 0, "When it was last seen, to a minute or two.")                                       \
    F(T, BOOL, revoked,   0, "It was revoked and is good for nothing.")                                          \
    F(T, STR,  token,     0, "The secret; shown once, when it is made.")
// clang-format on
SCHEMA(token_ask, TOKEN_ASK);
SCHEMA(token_answer, TOKEN_ANSWER);
SCHEMA_TABLE(token_ask, TOKEN_ASK, "A token that is wanted.");
SCHEMA_TABLE(token_answer, TOKEN_ANSWER, "A token.");

static struct auth *auth_of(const struct req *r)
{
    return (struct auth *)r->route->self;
}

/* ---- tokens ---- */

static struct strs role_strs(struct arena *a, uint32_t roles)
{
    struct strs out = { 0 };
    for (int i = 0; i < ROLE_COUNT; i++)
        if (roles & 1u << i)
            push(a, &out, role_name((enum role)i));
    return out;
}

static struct token_answer answer_of(struct arena *a, const struct token *t)
{
    return (struct token_answer){
        .id = t->id,
        .name = t->name,
        .project = t->project,
        .roles = role_strs(a, t->roles),
        .scopes = t->scopes,
        .created = t->created,
        .expires = t->expires,
        .last_used = t->last_used,
        .revoked = t->revoked,
    };
}

/* Nobody gives more than they have: the scopes asked for lie within one's own. */
static err scopes_within(const struct principal *who, const struct strs *asked)
{
    if (who->scopes.n == 0)
        return NULL;
    for (size_t i = 0; i < asked->n; i++) {
        bool held = false;
        for (size_t k = 0; k < who->scopes.n && !held; k++)
            held = scope_covers(who->scopes.v[k], asked->v[i]);
        if (!held)
            FAIL(FORBIDDEN, "token '%.*s' cannot give the scope %.*s", STR(who->name), STR(asked->v[i]));
    }
    if (asked->n == 0)
        FAIL(FORBIDDEN, "token '%.*s' has scopes and cannot make one without", STR(who->name));
    return NULL;
}

static err token_post(struct req *r)
{
    const struct principal *who = req_who(r);
    struct token_ask ask;
    TRY(schema_read_text(&token_ask_schema, r->a, S(""), r->body, 0, &ask));
    struct token t = { .name = ask.name, .project = ask.project, .scopes = ask.scopes };
    if (t.project.n == 0)
        t.project = req_project(r);
    if (!str_is(who->project, "*") && !str_eq(t.project, who->project))
        return no_project(t.project);
    for (size_t i = 0; i < ask.roles.n; i++) {
        enum role role;
        if (role_parse(ask.roles.v[i], &role))
            t.roles |= 1u << role;
    }
    TRY(scopes_within(who, &t.scopes));
    t.created = now_us();
    t.expires = t.created + ask.lifetime * 1000;
    struct str secret;
    TRY(token_create(auth_of(r), r->a, who->name, &t, &secret));
    t.id = str_sub(secret, 5, 17);
    struct token_answer answer = answer_of(r->a, &t);
    answer.token = secret;
    struct json j = json_new(r->a);
    schema_write(&token_answer_schema, &j, &answer, 0);
    return req_reply_json(r, 201, &j);
}

/* The project whose tokens or entries are shown: one's own, or for those with all the one asked for. */
static err shown_project(const struct req *r, struct str *out)
{
    const struct principal *who = req_who(r);
    struct str asked;
    if (req_query(r, S("project"), &asked) && asked.n) {
        if (!str_is(who->project, "*") && !str_eq(asked, who->project))
            return no_project(asked);
        *out = asked;
        return NULL;
    }
    *out = who->project;
    return NULL;
}

static err token_get(struct req *r)
{
    struct token *list;
    struct str project;
    size_t n;
    TRY(shown_project(r, &project));
    TRY(token_list(auth_of(r), r->a, project, &list, &n));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_key(&j, S("items"));
    json_arr(&j);
    for (size_t i = 0; i < n; i++) {
        struct token_answer answer = answer_of(r->a, &list[i]);
        schema_write(&token_answer_schema, &j, &answer, 0);
    }
    json_arr_end(&j);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

static err token_delete(struct req *r)
{
    const struct principal *who = req_who(r);
    TRY(token_revoke(auth_of(r), who->name, who->project, req_param(r, S("id"))));
    return req_reply(r, 204, NULL, S(""));
}

static void json_strs(struct json *j, const char *key, const struct strs *v)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < v->n; i++)
        json_str(j, v->v[i]);
    json_arr_end(j);
}

static err whoami(struct req *r)
{
    const struct principal *who = req_who(r);
    struct strs roles = role_strs(r->a, who->roles);
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "name", who->name);
    json_kstr(&j, "id", who->token_id);
    json_kstr(&j, "project", who->project);
    json_strs(&j, "roles", &roles);
    json_strs(&j, "scopes", &who->scopes);
    json_kstr(&j, "expires", time_text(r->a, who->expires));
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

/* ---- audit ---- */

#define ENTRY_COLUMNS "seq, time, who, action, project, kind, name, outcome, detail, request_id, prev, hash"
#define ENTRY_WHERE                                                                            \
    " where (?1 = '*' or project = ?1) and (?2 = '' or who = ?2) and (?3 = '' or action = ?3)" \
    " and (?4 = '' or name = ?4)"
// clang-format off
#define ENTRY_SQL(Q)                                                                                       \
    Q(after,  "select " ENTRY_COLUMNS " from audit" ENTRY_WHERE " and seq > ?5 order by seq limit ?6")     \
    Q(before, "select " ENTRY_COLUMNS " from audit" ENTRY_WHERE " and seq < ?5 order by seq desc limit ?6")
// clang-format on
SQL_TABLE(entry, ENTRY_SQL);

static err on_entry(void *arg, const struct row *row)
{
    static const char *const texts[] = { "who", "action", "project", "kind", "name", "outcome" };
    struct json *j = arg;
    json_obj(j);
    json_ki64(j, "seq", row_i64(row, 0));
    json_kstr(j, "time", time_text(j->b.a, row_i64(row, 1)));
    for (int i = 0; i < 6; i++)
        json_kstr(j, texts[i], row_str(row, i + 2));
    json_kraw(j, "detail", row_str(row, 8));
    json_kstr(j, "requestId", row_str(row, 9));
    json_kstr(j, "prev", row_str(row, 10));
    json_kstr(j, "hash", row_str(row, 11));
    json_obj_end(j);
    return NULL;
}

static struct str query_text(const struct req *r, struct str name)
{
    struct str v;
    return req_query(r, name, &v) ? v : S("");
}

static err query_i64(const struct req *r, struct str name, int64_t min, int64_t max, int64_t *v)
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

/* The newest first, or after ?after the oldest first. */
static err audit_get(struct req *r)
{
    struct str project;
    int64_t limit = 100, after = -1, before = INT64_MAX;
    TRY(shown_project(r, &project));
    TRY(query_i64(r, S("limit"), 1, AUDIT_LIST_MAX, &limit));
    TRY(query_i64(r, S("after"), 0, INT64_MAX, &after));
    TRY(query_i64(r, S("before"), 0, INT64_MAX, &before));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_key(&j, S("items"));
    json_arr(&j);
    TRY(store_query(auth_of(r)->store, after >= 0 ? entry_sql.after : entry_sql.before,
                    BIND(B_S(project), B_S(query_text(r, S("who"))), B_S(query_text(r, S("action"))),
                         B_S(query_text(r, S("name"))), B_I(after >= 0 ? after : before), B_I(limit)),
                    on_entry, &j));
    json_arr_end(&j);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

static err audit_check(struct req *r)
{
    int64_t entries = 0;
    struct str head = S("");
    err e = audit_verify(auth_of(r)->store, r->a, &entries, &head);
    if (e && e->code != INVALID)
        return e;
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kbool(&j, "ok", !e);
    if (e) {
        json_kstr(&j, "error", e->text);
    } else {
        json_ki64(&j, "entries", entries);
        json_kstr(&j, "head", head);
    }
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

static const struct route table[] = {
    { M_POST, "/api/v1/tokens", token_post, .may = "tokens.create", .tag = "access", .in = &token_ask_schema,
      .out = &token_answer_schema, .doc = "Makes a token; its secret is shown in this reply only." },
    { M_GET, "/api/v1/tokens", token_get, .may = "tokens.read", .tag = "access",
      .doc = "The tokens, without secrets." },
    { M_DELETE, "/api/v1/tokens/{id}", token_delete, .may = "tokens.delete", .tag = "access",
      .doc = "Revokes a token at once." },
    { M_GET, "/api/v1/whoami", whoami, .may = "whoami.read", .tag = "access", .on_loop = true,
      .doc = "The token that the request came with: its name, project, roles and scopes." },
    { M_GET, "/api/v1/audit", audit_get, .may = "audit.read", .tag = "access",
      .doc = "Who did what: entries by project, who, action, name; limit, before, after." },
    { M_GET, "/api/v1/audit/verify", audit_check, .may = "audit.read", .tag = "access",
      .doc = "Recomputes the chain of hashes and says whether it holds." },
    { 0 },
};

const struct route *auth_routes(struct auth *auth, struct arena *a)
{
    size_t n = sizeof table / sizeof *table;
    struct route *copy = NEW_N(a, struct route, n);
    memcpy(copy, table, sizeof table);
    for (size_t i = 0; copy[i].path; i++)
        copy[i].self = auth;
    return copy;
}
