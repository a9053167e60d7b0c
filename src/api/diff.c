// SPDX-License-Identifier: Apache-2.0
/* diff: where two JSON texts differ, one line per value. */
#include "api/internal.h"
#include <stdlib.h>

struct diff {
    struct arena *a;
    struct json *out;   /* {path, before, after} each; or NULL */
    struct strs *paths; /* or NULL */
    size_t n;
};

static struct str json_of(struct arena *a, yyjson_val *v)
{
    size_t n;
    char *text = v ? yyjson_val_write(v, 0, &n) : NULL;
    if (!text)
        return S("null");
    struct str copy = str_dup(a, (struct str){ text, n });
    free(text);
    return copy;
}

static void differs(struct diff *d, struct str path, yyjson_val *before, yyjson_val *after)
{
    if (d->n++ >= CHANGES_MAX)
        return;
    if (d->paths)
        push(d->a, d->paths, path);
    if (!d->out)
        return;
    json_obj(d->out);
    json_kstr(d->out, "path", path);
    if (before)
        json_kraw(d->out, "before", json_of(d->a, before));
    if (after)
        json_kraw(d->out, "after", json_of(d->a, after));
    json_obj_end(d->out);
}

static void compare(struct diff *d, struct str path, yyjson_val *before, yyjson_val *after);

static struct str key_path(struct arena *a, struct str path, yyjson_val *key)
{
    struct str k = json_text(key);
    return path.n ? fmt(a, "%.*s.%.*s", STR(path), STR(k)) : k;
}

static void compare_objects(struct diff *d, struct str path, yyjson_val *before, yyjson_val *after)
{
    size_t i, n;
    yyjson_val *key, *value;
    yyjson_obj_foreach (before, i, n, key, value)
        compare(d, key_path(d->a, path, key), value,
                yyjson_obj_getn(after, yyjson_get_str(key), yyjson_get_len(key)));
    yyjson_obj_foreach (after, i, n, key, value)
        if (!yyjson_obj_getn(before, yyjson_get_str(key), yyjson_get_len(key)))
            differs(d, key_path(d->a, path, key), NULL, value);
}

static void compare_lists(struct diff *d, struct str path, yyjson_val *before, yyjson_val *after)
{
    size_t nb = yyjson_arr_size(before), na = yyjson_arr_size(after), n = nb > na ? nb : na;
    for (size_t i = 0; i < n && d->n < CHANGES_MAX; i++)
        compare(d, fmt(d->a, "%.*s[%zu]", STR(path), i), i < nb ? yyjson_arr_get(before, i) : NULL,
                i < na ? yyjson_arr_get(after, i) : NULL);
}

static void compare(struct diff *d, struct str path, yyjson_val *before, yyjson_val *after)
{
    if (yyjson_is_obj(before) && yyjson_is_obj(after))
        compare_objects(d, path, before, after);
    else if (yyjson_is_arr(before) && yyjson_is_arr(after))
        compare_lists(d, path, before, after);
    else if (!before || !after || !yyjson_equals(before, after))
        differs(d, path, before, after);
}

static err diff_run(struct diff *d, struct str path, struct str before, struct str after)
{
    yyjson_val *x, *y;
    TRY(json_parse(d->a, before.n ? before : S("{}"), &x));
    TRY(json_parse(d->a, after.n ? after : S("{}"), &y));
    compare(d, path, x, y);
    return NULL;
}

err diff_write(struct arena *a, struct str path, struct str before, struct str after, struct json *out,
               size_t *n)
{
    struct diff d = { .a = a, .out = out };
    TRY(diff_run(&d, path, before, after));
    *n += d.n;
    return NULL;
}

err diff_paths(struct arena *a, struct str path, struct str before, struct str after, struct strs *out)
{
    struct diff d = { .a = a, .paths = out };
    return diff_run(&d, path, before, after);
}
