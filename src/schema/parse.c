/* parse: JSON text → a document that the rest may walk: bounded depth, no key twice. */
// SPDX-License-Identifier: Apache-2.0
#include "schema/internal.h"
#include <stdlib.h>

/* Line and column, from 1, of byte pos. */
static void locate(struct str text, size_t pos, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < pos && i < text.n; i++) {
        if (text.p[i] == '\n') {
            ++*line;
            *column = 1;
        } else if (((unsigned char)text.p[i] & 0xC0) != 0x80) {
            ++*column;
        }
    }
}

static int key_cmp(const void *x, const void *y)
{
    const struct str *a = x, *b = y;
    return str_cmp(*a, *b);
}

static err twice(struct str key)
{
    auto_arena struct arena *t = arena_new(0);
    struct str k = clip(t, key);
    FAIL(INVALID, "not JSON: the key '%.*s' is given twice in one object", STR(k));
}

/* Sorted, so that a huge object costs n log n; the scratch is not the request's arena. */
static err keys_differ(yyjson_val *obj)
{
    size_t n = yyjson_obj_size(obj), i, max;
    if (n < 2)
        return NULL;
    struct str few[32], *keys = n <= 32 ? few : malloc(n * sizeof *keys);
    if (!keys)
        FAIL(TOO_LARGE, "no memory for an object of %zu keys", n);
    yyjson_val *k, *v;
    yyjson_obj_foreach (obj, i, max, k, v)
        keys[i] = json_text(k);
    qsort(keys, n, sizeof *keys, key_cmp);
    err e = NULL;
    for (i = 1; i < n && !e; i++)
        if (str_eq(keys[i - 1], keys[i]))
            e = twice(keys[i]);
    if (keys != few)
        free(keys);
    return e;
}

static err tree_check(yyjson_val *v, int depth)
{
    if (!yyjson_is_ctn(v))
        return NULL;
    if (depth >= DEPTH_MAX)
        FAIL(TOO_LARGE, "JSON nested more than %d deep", DEPTH_MAX);
    size_t i, max;
    yyjson_val *k, *item;
    if (yyjson_is_arr(v)) {
        yyjson_arr_foreach (v, i, max, item)
            TRY(tree_check(item, depth + 1));
        return NULL;
    }
    TRY(keys_differ(v));
    yyjson_obj_foreach (v, i, max, k, item)
        TRY(tree_check(item, depth + 1));
    return NULL;
}

err json_doc(struct str text, yyjson_doc **out)
{
    yyjson_read_err why = { 0 };
    if (str_trim(text).n == 0)
        FAIL(INVALID, "not JSON: there is no text");
    /* The reader does not recurse and, without INSITU, does not write to the text. */
    yyjson_doc *d = yyjson_read_opts((char *)(uintptr_t)text.p, text.n, YYJSON_READ_NOFLAG, NULL, &why);
    if (!d) {
        size_t line, column;
        locate(text, why.pos, &line, &column);
        FAIL(INVALID, "not JSON: %s at line %zu, column %zu", why.msg, line, column);
    }
    err e = tree_check(yyjson_doc_get_root(d), 0);
    if (e) {
        yyjson_doc_free(d);
        return e;
    }
    *out = d;
    return NULL;
}

static void doc_free(void *d)
{
    yyjson_doc_free(d);
}

err json_parse(struct arena *a, struct str text, yyjson_val **out)
{
    yyjson_doc *d;
    TRY(json_doc(text, &d));
    arena_defer(a, doc_free, d);
    *out = yyjson_doc_get_root(d);
    return NULL;
}
