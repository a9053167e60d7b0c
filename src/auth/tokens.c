// SPDX-License-Identifier: Apache-2.0
/* tokens: made, listed, revoked. Each change is one transaction with its event and its audit entry. */
#include "auth/internal.h"
#include <openssl/evp.h>

static const char token_ddl[] = "create table if not exists token("
                                " id text primary key,"
                                " name text not null,"
                                " project text not null,"
                                " roles integer not null,"
                                " scopes text not null,"
                                " hash text not null unique,"
                                " created integer not null,"
                                " expires integer not null,"
                                " last_used integer not null,"
                                " revoked integer not null)";
// clang-format off
#define TOKEN_SQL(Q)                                                                                          \
    Q(insert, "insert into token(id, name, project, roles, scopes, hash, created, expires, last_used, revoked)" \
              " values(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, 0)")                                                \
    Q(count,  "select count(*) from token")                                                                   \
    Q(list,   "select id, name, project, roles, scopes, created, expires, last_used, revoked from token"      \
              " where (?1 = '*' or project = ?1) order by created, id limit ?2")                              \
    Q(one,    "select project, name from token where id = ?1 and revoked = 0 and (?2 = '*' or project = ?2)") \
    Q(revoke, "update token set revoked = 1 where id = ?1 and revoked = 0")
// clang-format on
SQL_TABLE(token, TOKEN_SQL);

err token_tables(struct store *store)
{
    return store_ddl(store, "auth-token", token_ddl);
}

/* ---- rules ---- */

static bool token_name_ok(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] < 0x20 || s.p[i] == 0x7f)
            return false;
    return s.n > 0 && s.n <= 64 && str_utf8_ok(s);
}

static err token_check(const struct token *t, int64_t now)
{
    if (!token_name_ok(t->name))
        return err_field(err_new(INVALID, "a token has a name of 1 to 64 characters"), S("name"));
    if (!str_is(t->project, "*") && !name_ok(t->project))
        return err_field(err_new(INVALID, "'%.*s' is no name of a project, nor *", STR(t->project)),
                         S("project"));
    if (t->roles == 0 || t->roles >= 1u << ROLE_COUNT)
        return err_field(err_new(INVALID, "a token has at least one role"), S("roles"));
    if (t->scopes.n > SCOPES_MAX)
        return err_field(err_new(TOO_LARGE, "a token has at most %d scopes", SCOPES_MAX), S("scopes"));
    for (size_t i = 0; i < t->scopes.n; i++)
        if (!scope_ok(t->scopes.v[i]) || str_find(t->scopes.v[i], ' ') < t->scopes.v[i].n)
            return err_field(err_new(INVALID, "'%.*s' is no permission, nor noun.*", STR(t->scopes.v[i])),
                             S("scopes"));
    if (t->expires <= now)
        return err_field(err_new(INVALID, "the token would have expired already"), S("expires"));
    if (t->expires > now + TOKEN_LIFE_MAX_US)
        return err_field(err_new(INVALID, "a token lives for a year at most"), S("expires"));
    return NULL;
}

/* ---- making ---- */

struct making {
    struct token t;
    struct str who, scopes, hash, secret;
    bool first_only; /* nothing happens if there is a token */
    bool made;
    int64_t count;
};

static struct str secret_new(struct arena *a, struct str *id)
{
    uint8_t public[6], private[32];
    unsigned char text[45];
    random_bytes(public, sizeof public);
    random_bytes(private, sizeof private);
    EVP_EncodeBlock(text, private, sizeof private);
    for (size_t i = 0; i < 43; i++)
        text[i] = text[i] == '+' ? '-' : text[i] == '/' ? '_' : text[i];
    *id = hex(a, public, sizeof public);
    explicit_bzero(private, sizeof private);
    return fmt(a, "dhow_%.*s_%.43s", STR(*id), (const char *)text);
}

static err on_count(void *arg, const struct row *row)
{
    *(int64_t *)arg = row_i64(row, 0);
    return NULL;
}

static struct str token_detail(struct arena *a, const struct making *m)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "name", m->t.name);
    json_kstr(&j, "roles", roles_text(a, m->t.roles));
    json_kstr(&j, "scopes", m->scopes);
    json_kstr(&j, "expires", time_text(a, m->t.expires));
    json_obj_end(&j);
    return json_get(&j);
}

static err token_event(struct tx *tx, struct str who, const char *type, struct str project, struct str id)
{
    struct str in = str_is(project, "*") ? S("") : project;
    struct event ev = { .type = str_of(type), .kind = S("Token"), .project = in, .name = id, .who = who };
    return event_append(tx, &ev, NULL);
}

static err token_insert(struct tx *tx, void *arg)
{
    struct making *m = arg;
    TRY(tx_one(tx, token_sql.count, NO_BIND, on_count, &m->count));
    if (m->first_only && m->count > 0)
        return NULL;
    if (m->count >= TOKENS_MAX)
        FAIL(LIMIT, "there are %d tokens already", TOKENS_MAX);
    struct object project;
    if (!str_is(m->t.project, "*") && !str_is(m->t.project, "default"))
        TRY(object_get_tx(tx, tx_arena(tx), S("Project"), S(""), m->t.project, &project));
    TRY(tx_exec(tx, token_sql.insert,
                BIND(B_S(m->t.id), B_S(m->t.name), B_S(m->t.project), B_I(m->t.roles), B_S(m->scopes),
                     B_S(m->hash), B_I(tx_now(tx)), B_I(m->t.expires)),
                NULL));
    TRY(token_event(tx, m->who, "token.created", m->t.project, m->t.id));
    TRY(audit_append(tx, &(struct audit_entry){
                             .who = m->who,
                             .action = S("tokens.create"),
                             .project = str_is(m->t.project, "*") ? S("") : m->t.project,
                             .kind = S("Token"),
                             .name = m->t.id,
                             .outcome = S("ok"),
                             .detail = token_detail(tx_arena(tx), m),
                         }));
    m->made = true;
    return NULL;
}

static err token_make(struct auth *auth, struct arena *a, struct making *m)
{
    int64_t now = now_us();
    if (m->t.expires == 0)
        m->t.expires = now + TOKEN_LIFE_US;
    TRY(token_check(&m->t, now));
    m->secret = secret_new(a, &m->t.id);
    m->hash = sha256_hex(a, m->secret);
    m->scopes = str_join(a, m->t.scopes.v, m->t.scopes.n, S(" "));
    TRY(store_write(auth->store, token_insert, m));
    return cache_reload(&auth->cache, auth->store);
}

err token_create(struct auth *auth, struct arena *a, struct str who, const struct token *in,
                 struct str *secret)
{
    struct making m = { .t = *in, .who = who };
    TRY_AS(token_make(auth, a, &m), "making a token");
    *secret = m.secret;
    return NULL;
}

err auth_first_token(struct auth *auth, struct arena *a, struct str *out)
{
    struct making m = {
        .t = { .name = S("admin"),
               .project = S("*"),
               .roles = 1u << ROLE_ADMIN,
               .expires = now_us() + TOKEN_LIFE_MAX_US - 86400000000ll },
        .who = S("dhow"),
        .first_only = true,
    };
    TRY_AS(token_make(auth, a, &m), "making the first token");
    *out = m.made ? m.secret : S("");
    return NULL;
}

/* ---- listing ---- */

struct token_list {
    struct arena *a;
    VEC(struct token) list;
};

static err on_listed(void *arg, const struct row *row)
{
    struct token_list *l = arg;
    struct token t = {
        .id = str_dup(l->a, row_str(row, 0)),
        .name = str_dup(l->a, row_str(row, 1)),
        .project = str_dup(l->a, row_str(row, 2)),
        .roles = (uint32_t)row_i64(row, 3),
        .created = row_i64(row, 5),
        .expires = row_i64(row, 6),
        .last_used = row_i64(row, 7),
        .revoked = row_i64(row, 8) != 0,
    };
    struct str scopes = str_dup(l->a, row_str(row, 4));
    for (struct str s; str_cut(&scopes, ' ', &s);)
        push(l->a, &t.scopes, s);
    push(l->a, &l->list, t);
    return NULL;
}

err token_list(struct auth *auth, struct arena *a, struct str project, struct token **out, size_t *n)
{
    struct token_list l = { .a = a };
    TRY(store_query(auth->store, token_sql.list, BIND(B_S(project), B_I(TOKENS_MAX)), on_listed, &l));
    *out = l.list.v;
    *n = l.list.n;
    return NULL;
}

/* ---- revoking ---- */

struct revoking {
    struct str who, project, id;
};

static err on_project(void *arg, const struct row *row)
{
    struct str *project = arg;
    size_t n = row_str(row, 0).n;
    if (n > project->n)
        FAIL(INTERNAL, "the project of a token is damaged");
    memcpy((char *)project->p, row_str(row, 0).p, n);
    project->n = n;
    return NULL;
}

static err token_remove(struct tx *tx, void *arg)
{
    const struct revoking *v = arg;
    char room[128];
    struct str project = { room, sizeof room };
    err e = tx_one(tx, token_sql.one, BIND(B_S(v->id), B_S(v->project)), on_project, &project);
    if (e && e->code == NOT_FOUND)
        FAIL(NOT_FOUND, "there is no Token '%.*s'", STR(v->id));
    TRY(e);
    TRY(tx_exec(tx, token_sql.revoke, BIND(B_S(v->id)), NULL));
    TRY(token_event(tx, v->who, "token.revoked", project, v->id));
    return audit_append(tx, &(struct audit_entry){
                                .who = v->who,
                                .action = S("tokens.delete"),
                                .project = str_is(project, "*") ? S("") : project,
                                .kind = S("Token"),
                                .name = v->id,
                                .outcome = S("ok"),
                            });
}

err token_revoke(struct auth *auth, struct str who, struct str project, struct str id)
{
    struct revoking v = { who, project, id };
    TRY(store_write(auth->store, token_remove, &v));
    return cache_reload(&auth->cache, auth->store);
}
