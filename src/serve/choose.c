// SPDX-License-Identifier: Apache-2.0
/* Which version of a deployment answers a request: the one it names, else by the hash of a key. The key is the first that
 * is there of: the sticky header's value, the sticky cookie's, the request's id, its first row's id, the id that the server
 * gave it. */
#include "serve/infer.h"

/* ---- what is not there ---- */

err model_unknown(struct str name)
{
    return err_new(NOT_FOUND, "Request for unknown model: '%.*s' is not found", STR(str_sub(name, 0, 64)));
}

err version_unknown(struct str name, struct str version)
{
    return err_new(NOT_FOUND, "Request for unknown model: '%.*s' version %.*s is not found", STR(name),
                   STR(str_sub(version, 0, 64)));
}

err versions_none(struct str name)
{
    return err_new(UNAVAILABLE, "Request for unknown model: '%.*s' has no available versions", STR(name));
}

/* ---- the version ---- */

/* "3" or "late.3" */
static const struct served *version_at(const struct entry *e, struct str version)
{
    for (size_t i = 0; i < e->n; i++)
        if (str_eq(e->v[i].model->number, version) || str_eq(e->v[i].model->name, version))
            return &e->v[i];
    return NULL;
}

/* "a=1; b=2": the value of b. Empty: it is not there. */
static struct str cookie_value(struct str cookies, struct str name)
{
    for (struct str part, key; str_cut(&cookies, ';', &part);) {
        part = str_trim(part);
        if (str_cut(&part, '=', &key) && str_eq(key, name))
            return part;
    }
    return S("");
}

/* The client shows it again, so it meets the same version from the first request on. */
static struct str cookie_give(struct infer *c)
{
    struct str value = id_new(c->a), name = c->entry->cookie;
    req_reply_header(
        c->r, "Set-Cookie",
        fmt(c->a, "%.*s=%.*s; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax", STR(name), STR(value)));
    return value;
}

static struct str key_of(struct infer *c, const struct entry *e)
{
    struct str key = e->header.n ? req_header(c->r, e->header) : S("");
    if (!key.n && e->cookie.n) {
        key = cookie_value(req_header(c->r, S("cookie")), e->cookie);
        if (key.n || e == c->entry)
            return key.n ? key : cookie_give(c);
    }
    return key.n ? key : c->id.n ? c->id : c->row_ids_n ? c->row_ids[0] : c->r->id;
}

/* The same key meets the same version while the shares stay; a share that grows takes nobody away from the version. */
const struct served *served_by_traffic(struct infer *c, const struct entry *e)
{
    const struct served *most = NULL;
    if (!e->n)
        return NULL;
    if (e->n == 1 && !e->cookie.n)
        return e->v[0].share > 0 ? e->v : NULL;
    double at = (double)(hash64(key_of(c, e)) >> 11) * 0x1p-53;
    for (size_t i = 0; i < e->n; i++) {
        const struct served *v = &e->v[i];
        if (v->share > 0 && at < v->share)
            return v;
        at -= v->share;
        if (v->share > 0 && (!most || v->share > most->share))
            most = v;
    }
    return most;
}

err version_choose(struct infer *c)
{
    struct str version = c->p.version;
    if (c->entry->state == ENTRY_SUSPENDED)
        return err_hint(versions_none(c->entry->name), "it was unloaded");
    c->to = version.n ? version_at(c->entry, version) : served_by_traffic(c, c->entry);
    if (c->to)
        return NULL;
    if (version.n)
        return version_unknown(c->entry->name, version);
    return versions_none(c->entry->name);
}
