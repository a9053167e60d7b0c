// SPDX-License-Identifier: Apache-2.0
/* ${…} inside the texts of a JSON value. */
#include "pipeline/pipeline.h"

struct fill {
    struct arena *a;
    bool (*lookup)(void *arg, struct arena *a, struct str name, struct str *out);
    void *arg;
};

static err name_find(const struct fill *f, struct str name, struct str *out)
{
    if (!f->lookup(f->arg, f->a, name, out))
        return err_hint(
            err_new(INVALID, "${%.*s} names nothing", STR(name)),
            "use ${params.NAME}, ${steps.STEP.OUTPUT} of a step in `needs`, ${event.KEY} or ${run.name}");
    return NULL;
}

/* The JSON value as text inside a longer text: a string without its quotes. */
static err value_text(const struct fill *f, struct str json, struct str *out)
{
    yyjson_val *v;
    *out = json;
    if (json.n && json.p[0] == '"') {
        TRY(json_parse(f->a, json, &v));
        *out = json_text(v);
    }
    return NULL;
}

/* Splits s at its first ${name}: before, name, after. False if there is none. */
static bool placeholder_cut(struct str s, struct str *before, struct str *name, struct str *after)
{
    for (size_t i = 0; i + 2 < s.n; i++) {
        if (s.p[i] != '$' || s.p[i + 1] != '{')
            continue;
        size_t end = i + 2 + str_find(str_sub(s, i + 2, s.n), '}');
        if (end >= s.n)
            return false;
        *before = str_sub(s, 0, i);
        *name = str_trim(str_sub(s, i + 2, end));
        *after = str_sub(s, end + 1, s.n);
        return true;
    }
    return false;
}

static err fill_text(const struct fill *f, struct str s, struct json *out)
{
    struct str before, name, after, value;
    if (!placeholder_cut(s, &before, &name, &after)) {
        json_str(out, s);
        return NULL;
    }
    if (!before.n && !after.n) { /* exactly one: keeps its type */
        TRY(name_find(f, name, &value));
        json_raw(out, value);
        return NULL;
    }
    struct buf b = buf_new(f->a);
    do {
        TRY(name_find(f, name, &value));
        TRY(value_text(f, value, &value));
        buf_str(&b, before);
        buf_str(&b, value);
        s = after;
    } while (placeholder_cut(s, &before, &name, &after));
    buf_str(&b, s);
    json_str(out, buf_get(&b));
    return NULL;
}

static err fill_value(const struct fill *f, yyjson_val *v, struct json *out)
{
    size_t i, n;
    yyjson_val *key, *item;
    if (yyjson_is_str(v))
        return fill_text(f, json_text(v), out);
    if (yyjson_is_obj(v)) {
        json_obj(out);
        yyjson_obj_foreach (v, i, n, key, item) {
            json_key(out, json_text(key));
            TRY(fill_value(f, item, out));
        }
        json_obj_end(out);
    } else if (yyjson_is_arr(v)) {
        json_arr(out);
        yyjson_arr_foreach (v, i, n, item)
            TRY(fill_value(f, item, out));
        json_arr_end(out);
    } else if (yyjson_is_int(v)) {
        json_i64(out, yyjson_get_sint(v));
    } else if (yyjson_is_real(v)) {
        json_f64(out, yyjson_get_real(v));
    } else if (yyjson_is_bool(v)) {
        json_bool(out, yyjson_get_bool(v));
    } else {
        json_null(out);
    }
    return NULL;
}

err pipeline_fill(struct arena *a, struct str json,
                  bool (*lookup)(void *arg, struct arena *a, struct str name, struct str *out), void *arg,
                  struct str *out)
{
    struct fill f = { a, lookup, arg };
    struct json j = json_new(a);
    yyjson_val *v;
    TRY(json_parse(a, json.n ? json : S("{}"), &v));
    TRY(fill_value(&f, v, &j));
    *out = json_get(&j);
    return NULL;
}
