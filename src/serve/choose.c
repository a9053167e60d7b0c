// SPDX-License-Identifier: Apache-2.0
/* Which version of a deployment answers a request. */
#include "serve/infer.h"

/* "3" or "late.3" */
static const struct served *version_at(const struct entry *e, struct str version)
{
    for (size_t i = 0; i < e->n; i++)
        if (str_eq(e->v[i].model->number, version) || str_eq(e->v[i].model->name, version))
            return &e->v[i];
    return NULL;
}

/* The same id meets the same version while the shares stay; a share that grows takes nobody away from the version. */
static const struct served *by_share(const struct infer *c)
{
    struct str key = c->id.n ? c->id : c->row_ids_n ? c->row_ids[0] : c->r->id;
    double at = (double)(hash64(key) >> 11) * 0x1p-53;
    const struct served *most = NULL;
    for (size_t i = 0; i < c->entry->n; i++) {
        const struct served *v = &c->entry->v[i];
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
    c->to = version.n ? version_at(c->entry, version) : by_share(c);
    if (c->to)
        return NULL;
    if (version.n)
        FAIL(NOT_FOUND, "version '%.*s' of '%.*s' is not loaded", STR(str_sub(version, 0, 64)),
             STR(c->entry->name));
    FAIL(UNAVAILABLE, "'%.*s' has no version ready", STR(c->entry->name));
}
