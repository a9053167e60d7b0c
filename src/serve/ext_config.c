// SPDX-License-Identifier: Apache-2.0
/* A deployment as Triton's ModelConfig: what it says of itself, not what it is made of. */
#include "serve/ext.h"

struct str config_type(struct arena *a, enum tensor_type t)
{
    struct str name = tensor_protocol_name(t);
    return fmt(a, "TYPE_%.*s", STR(t == TENSOR_TEXT ? S("STRING") : name.n ? name : S("INVALID")));
}

/* The first dimension of every tensor is open: rows, of which a request has any number. */
static bool in_rows(const struct tensor_spec *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!v[i].shaped || !v[i].rank || v[i].dims[0] >= 0)
            return false;
    return n > 0;
}

/* As many rows as a body can bring; 0: the model does not take rows. */
static int64_t batch_max(const struct serve *s, const struct session_info *info)
{
    int64_t most = (int64_t)s->body_bytes_max;
    int64_t bytes = 0;
    if (!in_rows(info->inputs, info->n_inputs) || !in_rows(info->outputs, info->n_outputs))
        return 0;
    for (size_t i = 0; i < info->n_inputs; i++) {
        const struct tensor_spec *in = &info->inputs[i];
        int64_t row = in->type == TENSOR_TEXT ? 4 : (int64_t)tensor_size(in->type);
        for (size_t d = 1; d < in->rank && row < most; d++)
            row *= in->dims[d] > 0 && in->dims[d] < most ? in->dims[d] : 1;
        bytes += row;
    }
    return bytes > 0 && bytes < most ? most / bytes : 1;
}

/* Triton leaves the rows out of a shape whose model takes them. */
static void tensors_write(struct call *c, const char *key, const struct tensor_spec *v, size_t n, bool rows)
{
    struct json *j = &c->j;
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kstr(j, "name", v[i].name);
        json_kstr(j, "data_type", config_type(c->a, v[i].type));
        json_key(j, S("dims"));
        json_arr(j);
        for (size_t d = rows; d < v[i].rank; d++)
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

static void config_write(struct call *c, const struct entry *e, const struct served *v)
{
    const struct session_info *info = v->model->info;
    struct json *j = &c->j;
    int64_t batch = batch_max(c->s, info);
    json_obj(j);
    json_kstr(j, "name", e->name);
    json_kstr(j, "platform", model_platform(v->model));
    if (!v->model->composed)
        json_kstr(j, "backend", S("onnxruntime"));
    versions_write(j, e);
    json_ki64(j, "max_batch_size", schedule_batch_max(e->policy, batch));
    tensors_write(c, "input", info->inputs, info->n_inputs, batch > 0);
    tensors_write(c, "output", info->outputs, info->n_outputs, batch > 0);
    schedule_write(j, e->policy, v->model);
    if (!v->model->composed) {
        instances_write(j, e->name, e->policy, info);
        json_kstr(j, "default_model_filename", S("model.onnx"));
    }
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
        return versions_none(c->name);
    TRY(json_parse(c->a, json_get(&c->j), &given));
    c->j = json_new(c->a);
    proto_fill(proto_message(&proto_inference, S("ModelConfig")), given, &c->j);
    return NULL;
}
