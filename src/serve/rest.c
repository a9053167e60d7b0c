// SPDX-License-Identifier: Apache-2.0
/* POST /v2/models/{name}[/versions/{v}]/infer: the Open Inference Protocol over REST, JSON in and out. */
#include "serve/infer.h"

static struct str text_of(yyjson_val *v)
{
    return (struct str){ yyjson_get_str(v), yyjson_get_len(v) };
}

/* ---- the body ---- */

struct body {
    yyjson_val *inputs, *outputs, *ids, *parameters;
};

static err body_read(struct infer *c, struct body *b)
{
    struct {
        struct str key;
        yyjson_val **to;
    } const keys[] = {
        { S("id"), NULL },           { S("model_name"), NULL },          { S("model_version"), NULL },
        { S("inputs"), &b->inputs }, { S("outputs"), &b->outputs },      { S("entities"), &c->entities },
        { S("ids"), &b->ids },       { S("parameters"), &b->parameters }
    };
    size_t i, max, n = sizeof keys / sizeof *keys;
    yyjson_val *root, *k, *v;
    TRY(json_parse(c->a, c->r->body, &root));
    if (!yyjson_is_obj(root))
        FAIL(INVALID, "the body is an object with inputs, or with entities");
    yyjson_obj_foreach (root, i, max, k, v) {
        size_t at = 0;
        while (at < n && !str_eq(keys[at].key, text_of(k)))
            at++;
        if (at == n)
            FAIL(INVALID, "'%.*s' is not known; there are id, parameters, inputs, outputs, entities and ids",
                 STR(str_sub(text_of(k), 0, 64)));
        if (at == 0 && !yyjson_is_str(v))
            FAIL(INVALID, "id is a text");
        if (at == 0)
            c->id = text_of(v);
        if (keys[at].to)
            *keys[at].to = v;
    }
    if (!b->inputs == !c->entities)
        FAIL(INVALID, "the body has either inputs (tensors) or entities (keys)");
    if (b->parameters && !yyjson_is_obj(b->parameters))
        FAIL(INVALID, "parameters is an object");
    return NULL;
}

static err ids_read(struct infer *c, yyjson_val *ids)
{
    size_t i, max;
    yyjson_val *v;
    if (!ids || yyjson_is_null(ids))
        return NULL;
    if (!yyjson_is_arr(ids))
        FAIL(INVALID, "ids is a list of texts, one a row");
    c->row_ids_n = yyjson_arr_size(ids);
    c->row_ids = NEW_N(c->a, struct str, c->row_ids_n + 1);
    yyjson_arr_foreach (ids, i, max, v) {
        if (!yyjson_is_str(v) && !yyjson_is_int(v))
            FAIL(INVALID, "ids[%zu] is no text and no whole number", i);
        c->row_ids[i] = yyjson_is_str(v)    ? text_of(v)
                        : yyjson_is_uint(v) ? fmt(c->a, "%llu", (unsigned long long)yyjson_get_uint(v))
                                            : fmt(c->a, "%lld", (long long)yyjson_get_sint(v));
    }
    return NULL;
}

static err parameters_read(struct infer *c, yyjson_val *parameters)
{
    yyjson_val *v = yyjson_obj_get(parameters, "version");
    c->p.return_features = yyjson_is_true(yyjson_obj_get(parameters, "return_features"));
    c->p.version = req_param(c->r, S("version"));
    if (c->p.version.n || !v)
        return NULL;
    if (yyjson_is_uint(v))
        c->p.version = fmt(c->a, "%llu", (unsigned long long)yyjson_get_uint(v));
    else if (yyjson_is_str(v))
        c->p.version = text_of(v);
    else
        FAIL(INVALID, "parameters.version is a number or a name");
    return NULL;
}

static err inputs_read(struct infer *c, yyjson_val *inputs)
{
    size_t i, max;
    yyjson_val *v;
    if (!yyjson_is_arr(inputs) || yyjson_arr_size(inputs) > TENSORS_MAX)
        FAIL(INVALID, "inputs is a list of at most %d tensors", TENSORS_MAX);
    c->inputs_n = yyjson_arr_size(inputs);
    c->inputs = NEW_N(c->a, struct named, c->inputs_n + 1);
    yyjson_arr_foreach (inputs, i, max, v)
        TRY(tensor_read(c->a, fmt(c->a, "inputs[%zu]", i), v, c->r->body.n, &c->inputs[i]));
    return NULL;
}

static err outputs_read(struct infer *c, yyjson_val *outputs)
{
    size_t i, max;
    yyjson_val *v;
    if (!outputs || yyjson_is_null(outputs))
        return NULL;
    if (!yyjson_is_arr(outputs) || yyjson_arr_size(outputs) > TENSORS_MAX)
        FAIL(INVALID, "outputs is a list of at most %d objects", TENSORS_MAX);
    c->asked_n = yyjson_arr_size(outputs);
    c->asked = NEW_N(c->a, struct asked, c->asked_n + 1);
    yyjson_arr_foreach (outputs, i, max, v) {
        yyjson_val *name = yyjson_obj_get(v, "name");
        if (!yyjson_is_str(name))
            FAIL(INVALID, "outputs[%zu] is an object with a name", i);
        c->asked[i].name = text_of(name);
    }
    return NULL;
}

/* ---- the reply ---- */

static void text_put(struct buf *b, struct str s)
{
    struct json j = { .b = *b };
    json_str(&j, s);
    *b = j.b;
}

static void features_write(struct buf *b, const struct infer *c)
{
    const struct str *names;
    size_t views = feature_plan_views(c->entry->plan->plan, &names);
    buf_fmt(b, ",{\"name\":\"features\",\"datatype\":\"FP64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            c->features);
    for (size_t i = 0; i < c->n * c->features; i++) {
        if (i)
            buf_str(b, S(","));
        write_f64(b, c->rows[0].features[i]);
    }
    buf_fmt(b, "]},{\"name\":\"known_at\",\"datatype\":\"INT64\",\"shape\":[%zu,%zu],\"data\":[", c->n,
            views);
    for (size_t i = 0; i < c->n * views; i++) {
        if (i)
            buf_str(b, S(","));
        write_i64(b, c->rows[0].known_at[i]);
    }
    buf_str(b, S("]}"));
}

static void names_write(struct buf *b, const char *key, const struct str *names, size_t n)
{
    buf_fmt(b, "\"%s\":[", key);
    for (size_t i = 0; i < n; i++) {
        if (i)
            buf_str(b, S(","));
        text_put(b, names[i]);
    }
    buf_str(b, S("]"));
}

/* What the columns of `features` and `known_at` are. */
static void parameters_write(struct buf *b, const struct infer *c)
{
    const struct feature_plan *plan = c->entry->plan->plan;
    const struct str *features, *views;
    size_t n = feature_plan_features(plan, &features), m = feature_plan_views(plan, &views);
    buf_str(b, S(",\"parameters\":{"));
    names_write(b, "features", features, n);
    buf_str(b, S(","));
    names_write(b, "views", views, m);
    buf_str(b, S("}"));
}

static err rest_reply(struct infer *c)
{
    const struct session_info *info = c->to->model->info;
    struct buf b = buf_new(c->a);
    (void)buf_room(&b, 256 + c->n * (12 + (c->rows ? 20 * c->features : 0)));
    buf_str(&b, S("{\"model_name\":\""));
    buf_str(&b, c->entry->name); /* the grammar of names needs no escapes */
    buf_str(&b, S("\",\"model_version\":\""));
    buf_str(&b, c->to->model->number);
    if (c->id.n) {
        buf_str(&b, S("\",\"id\":"));
        text_put(&b, c->id);
        buf_str(&b, S(",\"outputs\":["));
    } else {
        buf_str(&b, S("\",\"outputs\":["));
    }
    for (size_t i = 0; i < c->out_n; i++) {
        if (i)
            buf_str(&b, S(","));
        TRY(tensor_write(&b, info->outputs[c->out[i].slot].name, &c->out[i]));
    }
    if (c->rows)
        features_write(&b, c);
    buf_str(&b, S("]"));
    if (c->rows)
        parameters_write(&b, c);
    buf_str(&b, S("}"));
    return req_reply(c->r, 200, "application/json", buf_get(&b));
}

err infer_post(struct req *r)
{
    struct infer *c = NEW(r->a, struct infer);
    struct body b = { 0 };
    c->s = (struct serve *)(uintptr_t)r->route->self;
    c->r = r;
    c->a = r->a;
    c->project = req_project(r);
    c->deployment = req_param(r, S("name"));
    c->reply = rest_reply;
    TRY(body_read(c, &b));
    TRY(parameters_read(c, b.parameters));
    TRY(ids_read(c, b.ids));
    if (b.inputs)
        TRY(inputs_read(c, b.inputs));
    TRY(outputs_read(c, b.outputs));
    return infer_start(c);
}
