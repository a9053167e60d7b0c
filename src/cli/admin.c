// SPDX-License-Identifier: Apache-2.0
/* token, audit, version. */
#include "cli/cli.h"
#include <stdlib.h>

static struct str roles_text(struct arena *a, yyjson_val *roles)
{
    struct buf b = buf_new(a);
    size_t i, n;
    yyjson_val *role;
    yyjson_arr_foreach (roles, i, n, role)
        buf_fmt(&b, "%s%s", i ? "," : "", yyjson_get_str(role));
    return buf_get(&b);
}

static void token_table(struct cli *c, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *t;
    static const char *const columns[] = { "id", "name", "project", "roles", "expires", "revoked" };
    struct table out = table_new(c->a, 6);
    for (size_t k = 0; k < 6; k++)
        table_heading(&out, str_of(columns[k]));
    yyjson_arr_foreach (yyjson_obj_get(v, "items"), i, n, t) {
        for (size_t k = 0; k < 6; k++)
            table_cell(&out, k == 3 ? roles_text(c->a, yyjson_obj_get(t, "roles"))
                                    : json_text_at(c->a, t, columns[k]));
    }
    cli_table(c, &out);
}

static void list_write(struct cli *c, struct json *j, const char *key, const char *option)
{
    const char *v;
    json_key(j, str_of(key));
    json_arr(j);
    for (int i = 0; (v = cli_option_at(c, option, i)); i++)
        json_str(j, str_of(v));
    json_arr_end(j);
}

static err token_create_run(struct cli *c)
{
    struct json j = json_new(c->a);
    yyjson_val *v;
    int64_t ms;
    const char *expires = cli_option(c, "expires");
    if (!cli_has(c, "role"))
        return err_hint(err_new(INVALID, "a token needs at least one --role"),
                        "roles: viewer consumer editor operator approver admin auditor");
    if (!duration_parse(str_of(expires), &ms))
        FAIL(INVALID, "--expires: '%s' is not a duration such as 30d", expires);
    json_obj(&j);
    json_kstr(&j, "name", str_of(c->n_args > 1 ? c->args[1] : "token"));
    json_kstr(&j, "project", c->project);
    list_write(c, &j, "roles", "role");
    list_write(c, &j, "scopes", "scope");
    json_kstr(&j, "lifetime", duration_text(c->a, ms));
    json_obj_end(&j);
    TRY(cli_call(c, M_POST, S("/api/v1/tokens"), json_get(&j), &v));
    if (c->output != OUT_TABLE)
        return cli_show(c, v, NULL);
    fprintf(stderr, "token %.*s, shown once:\n", STR(json_text_at(c->a, v, "id")));
    printf("%.*s\n", STR(json_text_at(c->a, v, "token")));
    return NULL;
}

static err token_run(struct cli *c)
{
    struct str what = str_of(c->args[0]);
    yyjson_val *v;
    if (str_is(what, "create"))
        return token_create_run(c);
    if (str_is(what, "list")) {
        TRY(cli_call(c, M_GET, S("/api/v1/tokens"), S(""), &v));
        return cli_show(c, v, token_table);
    }
    if (!str_is(what, "revoke") || c->n_args < 2)
        return err_hint(err_new(INVALID, "token takes create NAME, list, or revoke ID"), "dhow token --help");
    TRY(cli_call(c, M_DELETE, fmt(c->a, "/api/v1/tokens/%.*s", STR(url_encode(c->a, str_of(c->args[1])))),
                 S(""), NULL));
    printf("token %s revoked\n", c->args[1]);
    return NULL;
}

static void audit_table(struct cli *c, yyjson_val *v)
{
    size_t i, n;
    yyjson_val *e;
    static const char *const columns[] = { "seq", "time", "who", "action", "kind", "name", "outcome" };
    struct table t = table_new(c->a, 7);
    for (size_t k = 0; k < 7; k++)
        table_heading(&t, str_of(columns[k]));
    yyjson_arr_foreach (yyjson_obj_get(v, "items"), i, n, e) {
        for (size_t k = 0; k < 7; k++)
            table_cell(&t, json_text_at(c->a, e, columns[k]));
    }
    cli_table(c, &t);
}

static err altered(struct str how)
{
    return err_new(INTERNAL, "the audit log was altered: %.*s", STR(how));
}

/* With --data the chain is verified in the folder itself, no daemon asked. */
static err verify_here(struct cli *c)
{
    struct store *s;
    int64_t entries;
    struct str head;
    struct store_config cfg = { .dir = str_of(cli_option(c, "data")), .read_only = true };
    TRY(store_open(&cfg, &s));
    err e = audit_verify(s, c->a, &entries, &head);
    store_close(s);
    if (e && e->code == INVALID)
        return altered(e->text);
    TRY(e);
    printf("%lld entries hold; head %.*s\n", (long long)entries, STR(head));
    return NULL;
}

static err audit_run(struct cli *c)
{
    yyjson_val *v;
    struct str what = str_of(c->n_args ? c->args[0] : "list");
    if (str_is(what, "verify") && cli_has(c, "data"))
        return verify_here(c);
    if (str_is(what, "verify")) {
        TRY(cli_call(c, M_GET, S("/api/v1/audit/verify"), S(""), &v));
        if (c->output != OUT_TABLE)
            TRY(cli_show(c, v, NULL));
        if (!yyjson_get_bool(yyjson_obj_get(v, "ok")))
            return altered(json_text_at(c->a, v, "error"));
        if (c->output != OUT_TABLE)
            return NULL;
        printf("%.*s entries hold; head %.*s\n", STR(json_text_at(c->a, v, "entries")),
               STR(json_text_at(c->a, v, "head")));
        return NULL;
    }
    if (!str_is(what, "list"))
        return err_hint(err_new(INVALID, "audit takes list or verify"), "dhow audit --help");
    TRY(cli_call(c, M_GET, S("/api/v1/audit"), S(""), &v));
    return cli_show(c, v, audit_table);
}

static err version_run(struct cli *c)
{
    (void)c;
    printf("dhow %s\n", DHOW_VERSION);
    return NULL;
}

static const struct option token_options[] = {
    { "role", 0, "ROLE",
      "viewer, consumer, editor, operator, approver, admin or auditor; may be given again.", NULL, true },
    { "scope", 0, "PERMISSION",
      "Only this permission of the roles (noun.verb or noun.*); may be given again.", NULL, true },
    { "expires", 0, "DURATION", "How long it lives, at most a year.", "90d", false },
    { 0 },
};
static const struct option audit_options[] = {
    { "data", 0, "DIR", "Verify the chain in this data folder, without a daemon.", NULL, false },
    { 0 },
};
const struct cli_verb verb_token = {
    .name = "token",
    .args = "create NAME | list | revoke ID",
    .doc = "Make, list and revoke access tokens.",
    .examples = "  dhow token create ci --role editor --expires 30d\n  dhow token revoke d9fe015d62c6",
    .options = token_options,
    .args_min = 1,
    .args_max = 2,
    .run = token_run,
    .client = true,
};
const struct cli_verb verb_audit = {
    .name = "audit",
    .args = "[list | verify]",
    .doc = "Show who did what, or check that the record was not altered.",
    .examples = "  dhow audit\n  dhow audit verify\n  dhow audit verify --data ./dhow_data",
    .options = audit_options,
    .args_max = 1,
    .run = audit_run,
    .client = true,
};
const struct cli_verb verb_version = {
    .name = "version",
    .args = "",
    .doc = "Print the version.",
    .run = version_run,
};
