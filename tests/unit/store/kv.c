// SPDX-License-Identifier: Apache-2.0
/* The conformance test of keyed rows: every backend passes all of it. */
#define SUITE store_kv
#include "help.h"
#include "store/kv.h"

static err put1(struct kv *kv, const char *key, const char *value, int64_t version)
{
    return kv_put(kv, &(struct kv_item){ .key = str_of(key), .value = str_of(value), .version = version }, 1,
                  NULL);
}

static void check_one_value(struct kv *kv, struct arena *a)
{
    struct str v;
    int64_t version;
    CHECK_ERR(kv_get(kv, a, S("a"), &v, &version), NOT_FOUND);
    CHECK_OK(put1(kv, "a", "one", 7));
    CHECK_OK(kv_get(kv, a, S("a"), &v, &version));
    CHECK(version == 7);
    CHECK_STR(v, "one");
    CHECK_OK(put1(kv, "a", "", -3));
    CHECK_OK(kv_get(kv, a, S("a"), &v, &version));
    CHECK(version == -3 && v.n == 0);
    struct kv_item gone = { .key = S("a"), .remove = true };
    CHECK_OK(kv_put(kv, &gone, 1, NULL));
    CHECK_OK(kv_put(kv, &gone, 1, NULL)); /* twice is fine */
    CHECK_ERR(kv_get(kv, a, S("a"), &v, &version), NOT_FOUND);
}

static void check_limits(struct kv *kv, struct arena *a)
{
    char *big = NEW_N(a, char, KV_VALUE_MAX + 1);
    struct kv_item it = { .key = { big, KV_KEY_MAX }, .value = { big, KV_VALUE_MAX } };
    struct str v;
    CHECK_OK(kv_put(kv, &it, 1, NULL));
    CHECK_OK(kv_get(kv, a, it.key, &v, NULL));
    CHECK(v.n == KV_VALUE_MAX);
    it.value.n++;
    CHECK_ERR(kv_put(kv, &it, 1, NULL), TOO_LARGE);
    it.value.n = 1;
    it.key.n++;
    CHECK_ERR(kv_put(kv, &it, 1, NULL), INVALID);
    it.key.n = 0;
    CHECK_ERR(kv_put(kv, &it, 1, NULL), INVALID);
    CHECK_ERR(kv_get(kv, a, S(""), &v, NULL), INVALID);
    CHECK_OK(kv_put(kv, NULL, 0, NULL));
    CHECK_OK(kv_drop(kv, S("")));
}

static void check_newer(struct kv *kv, struct arena *a)
{
    struct kv_item items[] = {
        { .key = S("n"), .value = S("five"), .version = 5, .newer = true },
        { .key = S("n"), .value = S("same"), .version = 5, .newer = true },
        { .key = S("n"), .value = S("four"), .version = 4, .newer = true },
        { .key = S("n"), .value = S("six"), .version = 6, .newer = true },
        { .key = S("n"), .version = 6, .newer = true, .remove = true },
    };
    bool kept[5], want[5] = { true, false, false, true, false };
    struct str v;
    CHECK_OK(kv_put(kv, items, 5, kept));
    CHECK(memcmp(kept, want, sizeof want) == 0);
    CHECK_OK(kv_get(kv, a, S("n"), &v, NULL));
    CHECK_STR(v, "six");
    items[4].version = 7;
    CHECK_OK(kv_put(kv, &items[4], 1, kept));
    CHECK(kept[0]);
    CHECK_ERR(kv_get(kv, a, S("n"), &v, NULL), NOT_FOUND);
}

static void check_snapshot(struct kv *kv)
{
    struct kv_snap *old, *new;
    struct str v;
    CHECK_OK(put1(kv, "s", "before", 1));
    CHECK_OK(kv_snap_begin(kv, &old));
    CHECK_OK(put1(kv, "s", "after", 2));
    CHECK_OK(kv_snap_begin(kv, &new));
    CHECK(kv_snap_get(old, S("s"), &v, NULL));
    CHECK_STR(v, "before");
    CHECK(kv_snap_get(new, S("s"), &v, NULL));
    CHECK_STR(v, "after");
    CHECK(!kv_snap_get(new, S("none"), &v, NULL));
    kv_snap_end(new);
    kv_snap_end(old);
    CHECK_OK(kv_snap_begin(kv, &new)); /* a reused one sees what is new */
    CHECK(kv_snap_get(new, S("s"), &v, NULL));
    CHECK_STR(v, "after");
    kv_snap_end(new);
}

struct seen {
    struct buf keys;
    size_t n, max;
};

static bool on_key(void *arg, struct str key, struct str value, int64_t version)
{
    struct seen *s = arg;
    (void)value, (void)version;
    buf_fmt(&s->keys, "%.*s ", STR(key));
    return ++s->n < s->max;
}

static struct str keys_of(struct kv *kv, struct arena *a, struct str prefix, struct str from, size_t max)
{
    struct seen s = { .keys = buf_new(a), .max = max };
    struct kv_snap *snap;
    CHECK_OK(kv_snap_begin(kv, &snap));
    CHECK_OK(kv_snap_scan(snap, prefix, from, on_key, &s));
    kv_snap_end(snap);
    return buf_get(&s.keys);
}

static void check_scan_and_drop(struct kv *kv, struct arena *a)
{
    CHECK_OK(kv_drop(kv, S("")));
    const char *keys[] = { "b/2", "a/1", "b/1", "b/3", "c", "b" };
    for (size_t i = 0; i < 6; i++)
        CHECK_OK(put1(kv, keys[i], "x", 0));
    CHECK_STR(keys_of(kv, a, S("b/"), S(""), 9), "b/1 b/2 b/3 ");
    CHECK_STR(keys_of(kv, a, S("b/"), S("b/2"), 9), "b/2 b/3 ");
    CHECK_STR(keys_of(kv, a, S("b/"), S(""), 2), "b/1 b/2 ");
    CHECK_STR(keys_of(kv, a, S("b/"), S("c"), 9), "");
    CHECK_STR(keys_of(kv, a, S(""), S(""), 9), "a/1 b b/1 b/2 b/3 c ");
    CHECK_OK(kv_drop(kv, S("b/")));
    CHECK_STR(keys_of(kv, a, S(""), S(""), 9), "a/1 b c ");
    CHECK_OK(kv_drop(kv, S("zzz")));
    CHECK_OK(kv_drop(kv, S("")));
    CHECK_STR(keys_of(kv, a, S(""), S(""), 9), "");
}

static bool on_count(void *arg, struct str key, struct str value, int64_t version)
{
    (void)key, (void)value, (void)version;
    ++*(size_t *)arg;
    return true;
}

/* More than one transaction of a drop takes. */
static void check_many(struct kv *kv, struct arena *a)
{
    enum { MANY = 45000 };
    struct kv_item *items = NEW_N(a, struct kv_item, MANY);
    for (size_t i = 0; i < MANY; i++)
        items[i] = (struct kv_item){ .key = fmt(a, "%c/%05zu", "mn"[i % 2], i), .value = S("0123456789") };
    CHECK_OK(kv_put(kv, items, MANY, NULL));
    CHECK_OK(kv_drop(kv, S("m/")));
    CHECK_OK(kv_drop(kv, S("m/")));
    size_t n = 0;
    struct kv_snap *snap;
    CHECK_OK(kv_snap_begin(kv, &snap));
    CHECK_OK(kv_snap_scan(snap, S(""), S(""), on_count, &n));
    kv_snap_end(snap);
    CHECK(n == MANY / 2);
    CHECK_OK(kv_drop(kv, S("")));
}

static void conforms(const struct kv_ops *ops)
{
    auto_arena struct arena *a = arena_new(0);
    struct str url = fmt(a, "%s:%s/kv", ops->name, folder_new(a));
    struct kv *kv;
    CHECK_OK(kv_open(url, 64 << 20, &kv));
    check_one_value(kv, a);
    check_limits(kv, a);
    check_newer(kv, a);
    check_snapshot(kv);
    check_scan_and_drop(kv, a);
    check_many(kv, a);
    CHECK_OK(put1(kv, "kept", "v", 1));
    kv_close(kv);
    CHECK_OK(kv_open(url, 64 << 20, &kv));
    struct str v;
    CHECK_OK(kv_get(kv, a, S("kept"), &v, NULL));
    kv_close(kv);
}

TEST(every_backend_conforms)
{
    for (size_t i = 0; kv_backends[i]; i++)
        conforms(kv_backends[i]);
}

TEST(an_unknown_backend_is_named)
{
    struct kv *kv;
    CHECK_ERR(kv_open(S("etcd:/x"), 0, &kv), UNSUPPORTED);
    CHECK_ERR(kv_open(S("nothing"), 0, &kv), INVALID);
}

TEST(a_full_map_refuses_and_lives_on)
{
    auto_arena struct arena *a = arena_new(0);
    struct kv *kv;
    CHECK_OK(kv_open(fmt(a, "lmdb:%s/kv", folder_new(a)), 2 << 20, &kv));
    char *value = NEW_N(a, char, 60000);
    err e = NULL;
    size_t n = 0;
    for (; !e && n < 1000; n++) {
        struct kv_item it = { .key = fmt(a, "key%zu", n), .value = { value, 60000 } };
        e = kv_put(kv, &it, 1, NULL);
    }
    CHECK(e && e->code == FULL && e->hint.n > 0);
    struct str v;
    CHECK_OK(kv_get(kv, a, S("key0"), &v, NULL));
    CHECK_ERR(kv_get(kv, a, fmt(a, "key%zu", n - 1), &v, NULL), NOT_FOUND);
    CHECK_OK(kv_drop(kv, S("key")));
    CHECK_OK(put1(kv, "again", "room", 1));
    kv_close(kv);
}
