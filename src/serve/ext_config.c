// SPDX-License-Identifier: Apache-2.0
/* A deployment as Triton's ModelConfig: what it says of itself, not what it is made of. */
#include "serve/ext.h"

static struct str type_name(enum tensor_type t)
{
    struct str name = tensor_protocol_name(t);
    return t == TENSOR_TEXT ? S("STRING") : name.n ? name : S("INVALID");
}

static void tensors_write(struct call *c, const char *key, const struct tensor_spec *v, size_t n)
{
    struct json *j = &c->j;
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kstr(j, "name", v[i].name);
        json_kstr(j, "data_type", fmt(c->a, "TYPE_%.*s", STR(type_name(v[i].type))));
        json_key(j, S("dims"));
        json_arr(j);
        for (size_t d = 0; d < v[i].rank; d++)
            json_i64(j, v[i].dims[d]);
        json_arr_end(j);
        json_obj_end(j);
    }
    json_arr_end(j);
}

/* The versions in memory, by number. */
static void versions_write(struct json *j, const struct entry *e)
{
    json_key(j, S("version_policy"));
    json_obj(j);
    json_key(j, S("specific"));
    json_obj(j);
    json_key(j, S("versions"));
    json_arr(j);
    for (size_t i = 0; i < e->n; i++)
        json_raw(j, e->v[i].model->number);
    json_arr_end(j);
    json_obj_end(j);
    json_obj_end(j);
}

static void instances_write(struct json *j, const struct entry *e)
{
    json_key(j, S("instance_group"));
    json_arr(j);
    json_obj(j);
    json_kstr(j, "name", e->name);
    json_kstr(j, "kind", S("KIND_CPU"));
    json_ki64(j, "count", 1);
    json_obj_end(j);
    json_arr_end(j);
}

static void config_write(struct call *c, const struct entry *e, const struct served *v)
{
    struct json *j = &c->j;
    json_obj(j);
    json_kstr(j, "name", e->name);
    json_kstr(j, "platform", S("onnxruntime_onnx"));
    json_kstr(j, "backend", S("onnxruntime"));
    versions_write(j, e);
    tensors_write(c, "input", v->model->info->inputs, v->model->info->n_inputs);
    tensors_write(c, "output", v->model->info->outputs, v->model->info->n_outputs);
    instances_write(j, e);
    json_kstr(j, "default_model_filename", S("model.onnx"));
    json_kraw(j, "model_transaction_policy", S("{\"decoupled\":false}"));
    json_obj_end(j);
}

err model_config(struct call *c)
{
    const struct entry *e;
    const struct served *v;
    yyjson_val *given;
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    err failed = served_find(c, snap, &e, &v);
    if (!failed && v)
        config_write(c, e, v);
    snap_leave(c->s, slot);
    TRY(failed);
    if (!v)
        FAIL(UNAVAILABLE, "'%.*s' has no version ready", STR(c->name));
    TRY(json_parse(c->a, json_get(&c->j), &given));
    c->j = json_new(c->a);
    proto_fill(proto_message(&proto_inference, S("ModelConfig")), given, &c->j);
    return NULL;
}
