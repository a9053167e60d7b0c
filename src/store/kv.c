// SPDX-License-Identifier: Apache-2.0
/* kv: the list of backends, the checks of arguments, and the way to the backend. */
#include "store/internal.h"

const struct kv_ops *const kv_backends[] = { &kv_lmdb, &kv_logged, NULL };

err kv_open_mode(struct str url, size_t bytes_max, bool read_only, struct kv **out)
{
    size_t colon = str_find(url, ':');
    struct str scheme = str_sub(url, 0, colon), where = str_sub(url, colon + 1, url.n);
    if (!where.n)
        FAIL(INVALID, "'%.*s' names no store of keyed rows; say 'lmdb:FOLDER'", STR(url));
    for (size_t i = 0; kv_backends[i]; i++)
        if (str_eq(scheme, str_of(kv_backends[i]->name)))
            return kv_backends[i]->open(where, bytes_max ? bytes_max : KV_BYTES_DEFAULT, read_only, out);
    FAIL(UNSUPPORTED, "there is no store of keyed rows '%.*s' in this build", STR(scheme));
}

err kv_open(struct str url, size_t bytes_max, struct kv **out)
{
    return kv_open_mode(url, bytes_max, false, out);
}

void kv_close(struct kv *kv)
{
    if (kv)
        kv->ops->close(kv);
}

static err key_check(struct str key)
{
    if (key.n == 0)
        FAIL(INVALID, "a key may not be empty");
    if (key.n > KV_KEY_MAX)
        FAIL(INVALID, "a key of %zu bytes is over the limit of %d", key.n, KV_KEY_MAX);
    return NULL;
}

err kv_put(struct kv *kv, const struct kv_item *items, size_t n, bool *kept)
{
    for (size_t i = 0; i < n; i++) {
        TRY(key_check(items[i].key));
        if (!items[i].remove && items[i].value.n > KV_VALUE_MAX)
            FAIL(TOO_LARGE, "a value of %zu bytes is over the limit of %d", items[i].value.n, KV_VALUE_MAX);
    }
    return n ? kv->ops->put(kv, items, n, kept) : NULL;
}

err kv_sync(struct kv *kv)
{
    return kv->ops->sync ? kv->ops->sync(kv) : NULL;
}

err kv_snap_begin(struct kv *kv, struct kv_snap **out)
{
    return kv->ops->snap_begin(kv, out);
}

bool kv_snap_get(struct kv_snap *snap, struct str key, struct str *value, int64_t *version)
{
    return key.n && key.n <= KV_KEY_MAX && snap->kv->ops->snap_get(snap, key, value, version);
}

err kv_snap_scan(struct kv_snap *snap, struct str prefix, struct str from,
                 bool (*fn)(void *arg, struct str key, struct str value, int64_t version), void *arg)
{
    if (prefix.n > KV_KEY_MAX || from.n > KV_KEY_MAX)
        FAIL(INVALID, "a key is at most %d bytes long", KV_KEY_MAX);
    return snap->kv->ops->snap_scan(snap, prefix, from, fn, arg);
}

void kv_snap_end(struct kv_snap *snap)
{
    if (snap)
        snap->kv->ops->snap_end(snap);
}

err kv_get(struct kv *kv, struct arena *a, struct str key, struct str *value, int64_t *version)
{
    struct kv_snap *snap;
    struct str there;
    TRY(key_check(key));
    TRY(kv_snap_begin(kv, &snap));
    bool found = kv_snap_get(snap, key, &there, version);
    if (found && value)
        *value = str_dup(a, there);
    kv_snap_end(snap);
    if (!found)
        FAIL(NOT_FOUND, "there is no row '%.*s'", STR(key));
    return NULL;
}

err kv_drop(struct kv *kv, struct str prefix)
{
    if (prefix.n > KV_KEY_MAX)
        FAIL(INVALID, "a key is at most %d bytes long", KV_KEY_MAX);
    return kv->ops->drop(kv, prefix);
}

err kv_check(struct kv *kv, struct arena *a, struct strs *lines)
{
    return kv->ops->check ? kv->ops->check(kv, a, lines) : NULL;
}
