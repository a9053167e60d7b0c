// SPDX-License-Identifier: Apache-2.0
/* Aliases: which version is champion, which is tried, and the way back. */
#include "registry/internal.h"

static struct str *alias_of(struct model_status *s, enum model_alias which)
{
    return which == ALIAS_CHAMPION ? &s->aliases.champion : &s->aliases.challenger;
}

err registry_alias_get(struct store *s, struct arena *a, struct str project, struct str model,
                       enum model_alias which, struct str *version)
{
    struct model_spec spec;
    struct model_status status;
    TRY(resource_get(s, a, &model_resource, project, model, NULL, &spec, &status));
    *version = *alias_of(&status, which);
    return NULL;
}

static err version_passed(struct tx *tx, struct str project, struct str model, struct str version)
{
    struct model_version_spec spec;
    struct model_version_status status;
    TRY(resource_get_tx(tx, tx_arena(tx), &model_version_resource, project, version, NULL, &spec, &status));
    if (!str_eq(spec.model, model))
        FAIL(CONFLICT, "'%.*s' is a version of model '%.*s', not of '%.*s'", STR(version), STR(spec.model),
             STR(model));
    if (status.state != VERSION_PASSED)
        return err_hint(err_new(CONFLICT,
                                "version '%.*s' is %s; only one that passed its gates may be served",
                                STR(version), version_states[status.state]),
                        "judge it by a pipeline step that uses gate");
    return NULL;
}

/* v before what is there, at most FORMER_MAX. */
static void former_add(struct arena *a, struct strs *former, struct str v)
{
    struct strs out = { 0 };
    push(a, &out, v);
    for (size_t i = 0; i < former->n && out.n < FORMER_MAX; i++)
        if (!str_eq(former->v[i], v))
            push(a, &out, former->v[i]);
    *former = out;
}

static void former_drop(struct strs *former, struct str v)
{
    size_t n = 0;
    for (size_t i = 0; i < former->n; i++)
        if (!str_eq(former->v[i], v))
            former->v[n++] = former->v[i];
    former->n = n;
}

static err told(struct tx *tx, struct str who, struct str project, struct str model, const char *type,
                struct str version, struct str before)
{
    struct json j = json_new(tx_arena(tx));
    json_obj(&j);
    json_kstr(&j, "version", version);
    json_kstr(&j, "before", before);
    json_obj_end(&j);
    return registry_event(tx, who, &model_resource, project, model, type, json_get(&j));
}

err registry_alias_set(struct tx *tx, struct str who, struct str project, struct str model,
                       enum model_alias which, struct str version)
{
    struct arena *a = tx_arena(tx);
    struct model_spec spec;
    struct model_status status;
    TRY(resource_get_tx(tx, a, &model_resource, project, model, NULL, &spec, &status));
    if (version.n)
        TRY(version_passed(tx, project, model, version));
    struct str *at = alias_of(&status, which), before = *at;
    if (which == ALIAS_CHALLENGER && version.n && str_eq(version, status.aliases.champion))
        FAIL(CONFLICT, "version '%.*s' is the champion already", STR(version));
    if (str_eq(before, version))
        return NULL;
    *at = version;
    if (which == ALIAS_CHAMPION) {
        former_drop(&status.former, version);
        if (before.n)
            former_add(a, &status.former, before);
        if (str_eq(status.aliases.challenger, version))
            status.aliases.challenger = S("");
    }
    TRY(resource_status_tx(tx, a, &model_resource, project, model, -1, &status));
    return which == ALIAS_CHAMPION ? told(tx, who, project, model, "model.promoted", version, before) : NULL;
}

/* The newest champion of before that may still be served. */
static err former_take(struct tx *tx, struct str project, struct str model, struct model_status *status)
{
    while (status->former.n) {
        struct str v = status->former.v[0];
        former_drop(&status->former, v);
        err e = version_passed(tx, project, model, v);
        if (e && e->code != NOT_FOUND && e->code != CONFLICT)
            return e;
        if (e)
            continue;
        status->aliases.champion = v;
        return NULL;
    }
    FAIL(CONFLICT, "model '%.*s' has no champion of before to go back to", STR(model));
}

err registry_rollback(struct tx *tx, struct str who, struct str project, struct str model, struct str *out)
{
    struct arena *a = tx_arena(tx);
    struct model_spec spec;
    struct model_status status;
    TRY(resource_get_tx(tx, a, &model_resource, project, model, NULL, &spec, &status));
    struct str before = status.aliases.challenger.n ? status.aliases.challenger : status.aliases.champion;
    if (status.aliases.challenger.n)
        status.aliases.challenger = S("");
    else
        TRY(former_take(tx, project, model, &status));
    TRY(resource_status_tx(tx, a, &model_resource, project, model, -1, &status));
    *out = status.aliases.champion;
    return told(tx, who, project, model, "model.rolledback", *out, before);
}

err registry_withdraw(struct tx *tx, struct str who, struct str project, struct str model, struct str version)
{
    struct arena *a = tx_arena(tx);
    struct model_spec spec;
    struct model_status status;
    TRY(resource_get_tx(tx, a, &model_resource, project, model, NULL, &spec, &status));
    bool champion = str_eq(status.aliases.champion, version),
         challenger = str_eq(status.aliases.challenger, version);
    if (!champion && !challenger)
        return NULL;
    if (challenger)
        status.aliases.challenger = S("");
    if (champion) {
        status.aliases.champion = S("");
        err e = former_take(tx, project, model, &status);
        if (e && e->code != CONFLICT)
            return e;
    }
    TRY(resource_status_tx(tx, a, &model_resource, project, model, -1, &status));
    return told(tx, who, project, model, "model.rolledback", status.aliases.champion, version);
}

err registry_refuse(struct tx *tx, struct str who, struct str project, struct str version, struct str why)
{
    struct arena *a = tx_arena(tx);
    struct model_version_spec spec;
    struct model_version_status status;
    TRY(resource_get_tx(tx, a, &model_version_resource, project, version, NULL, &spec, &status));
    if (status.state == VERSION_REFUSED)
        return NULL;
    status.state = VERSION_REFUSED;
    status.message = why;
    status.judged_at = tx_now(tx);
    TRY(resource_status_tx(tx, a, &model_version_resource, project, version, -1, &status));
    struct json j = json_new(a);
    json_obj(&j);
    json_kstr(&j, "model", spec.model);
    json_kstr(&j, "message", why);
    json_obj_end(&j);
    return registry_event(tx, who, &model_version_resource, project, version, "modelversion.refused",
                          json_get(&j));
}

/* ---- the action ---- */

struct alias_change {
    struct str who, project, model, request_id;
    const struct alias_request *in;
};

static err alias_change_tx(struct tx *tx, void *arg)
{
    const struct alias_change *c = arg;
    TRY(registry_alias_set(tx, c->who, c->project, c->model, c->in->alias, c->in->version));
    struct json j = json_new(tx_arena(tx));
    json_obj(&j);
    json_kstr(&j, "alias", str_of(model_aliases[c->in->alias]));
    json_kstr(&j, "version", c->in->version);
    json_obj_end(&j);
    return audit_append(tx, &(struct audit_entry){ .who = c->who,
                                                   .action = S("models.promote"),
                                                   .project = c->project,
                                                   .kind = S("Model"),
                                                   .name = c->model,
                                                   .outcome = S("ok"),
                                                   .detail = json_get(&j),
                                                   .request_id = c->request_id });
}

err model_alias_action(struct api *api, struct req *r, struct str project, struct str name, const void *in,
                       struct json *out)
{
    const struct alias_request *q = in;
    struct alias_change c = { req_who(r)->name, project, name, r->id, q };
    TRY(store_write(api_store(api), alias_change_tx, &c));
    json_obj(out);
    json_kstr(out, "alias", str_of(model_aliases[q->alias]));
    json_kstr(out, "version", q->version);
    json_obj_end(out);
    return NULL;
}
