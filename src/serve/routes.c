// SPDX-License-Identifier: Apache-2.0
/* The rest of the Open Inference Protocol: what is there, is it ready. */
#include "serve/infer.h"

static struct serve *self_of(const struct req *r)
{
    return (struct serve *)(uintptr_t)r->route->self;
}

static err server_get(struct req *r)
{
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "name", S("dhow"));
    json_kstr(&j, "version", S(DHOW_VERSION));
    json_key(&j, S("extensions"));
    json_arr(&j);
    json_str(&j, S("entities"));
    json_arr_end(&j);
    json_obj_end(&j);
    return req_reply_json(r, 200, &j);
}

static err live_get(struct req *r)
{
    return req_reply(r, 200, "application/json", S("{\"live\":true}"));
}

static err ready_get(struct req *r)
{
    bool ready = serve_ready(self_of(r));
    return req_reply(r, ready ? 200 : 503, "application/json",
                     ready ? S("{\"ready\":true}") : S("{\"ready\":false}"));
}

static err models_get(struct req *r)
{
    struct serve *s = self_of(r);
    struct json j = json_new(r->a);
    struct str project = req_project(r);
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    json_obj(&j);
    json_key(&j, S("models"));
    json_arr(&j);
    for (size_t i = 0; i < snap->n; i++)
        if (str_eq(snap->v[i].project, project))
            json_str(&j, snap->v[i].name);
    json_arr_end(&j);
    json_obj_end(&j);
    snap_leave(s, slot);
    return req_reply_json(r, 200, &j);
}

/* The version of the path, else the one that answers most. */
static err served_of(struct req *r, const struct snap *snap, const struct entry **entry,
                     const struct served **out)
{
    struct str name = req_param(r, S("name")), version = req_param(r, S("version"));
    const struct entry *e = snap_find(snap, req_project(r), name);
    *out = NULL;
    if (!e)
        FAIL(NOT_FOUND, "there is no deployment '%.*s'", STR(str_sub(name, 0, 64)));
    *entry = e;
    for (size_t i = 0; i < e->n; i++) {
        const struct served *v = &e->v[i];
        if (version.n ? str_eq(v->model->number, version) || str_eq(v->model->name, version)
                      : v->share > 0 && (!*out || v->share > (*out)->share))
            *out = v;
    }
    if (!*out && version.n)
        FAIL(NOT_FOUND, "version '%.*s' of '%.*s' is not loaded", STR(str_sub(version, 0, 64)), STR(e->name));
    return NULL;
}

static err model_ready_get(struct req *r)
{
    struct serve *s = self_of(r);
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    err failed = served_of(r, snap, &e, &v);
    bool ready = !failed && (v || e->state == ENTRY_IDLE); /* one that sleeps answers, too */
    snap_leave(s, slot);
    TRY(failed);
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "name", req_param(r, S("name")));
    json_kbool(&j, "ready", ready);
    json_obj_end(&j);
    return req_reply_json(r, ready ? 200 : 503, &j);
}

static void tensors_write(struct json *j, const char *key, const struct tensor_spec *v, size_t n)
{
    json_key(j, str_of(key));
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kstr(j, "name", v[i].name);
        json_kstr(j, "datatype", tensor_protocol_name(v[i].type));
        json_key(j, S("shape"));
        json_arr(j);
        for (size_t d = 0; d < v[i].rank; d++)
            json_i64(j, v[i].dims[d]);
        json_arr_end(j);
        json_obj_end(j);
    }
    json_arr_end(j);
}

/* What a request by key names: not of the protocol, a client that does not know it passes it over. */
static void entities_write(struct json *j, const struct plan *plan)
{
    const struct plan_input *in;
    size_t n = feature_plan_inputs(plan->plan, &in);
    json_key(j, S("entities"));
    json_arr(j);
    for (size_t i = 0; i < n; i++) {
        json_obj(j);
        json_kstr(j, "name", in[i].name);
        json_kstr(j, "type", str_of(column_type_names[in[i].type]));
        json_kbool(j, "key", in[i].key);
        json_kbool(j, "time", in[i].time);
        json_kbool(j, "optional", in[i].optional);
        json_obj_end(j);
    }
    json_arr_end(j);
}

static void model_write(struct json *j, const struct entry *e, const struct served *v)
{
    json_obj(j);
    json_kstr(j, "name", e->name);
    json_key(j, S("versions"));
    json_arr(j);
    for (size_t i = 0; i < e->n; i++)
        json_str(j, e->v[i].model->number);
    json_arr_end(j);
    json_kstr(j, "platform", S("onnxruntime_onnx"));
    tensors_write(j, "inputs", v->model->info->inputs, v->model->info->n_inputs);
    tensors_write(j, "outputs", v->model->info->outputs, v->model->info->n_outputs);
    if (e->plan && !v->unfit.n)
        entities_write(j, e->plan);
    json_obj_end(j);
}

static err model_get(struct req *r)
{
    struct serve *s = self_of(r);
    struct json j = json_new(r->a);
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(s, &slot);
    err failed = served_of(r, snap, &e, &v);
    if (!failed && v)
        model_write(&j, e, v);
    snap_leave(s, slot);
    TRY(failed);
    if (!v)
        FAIL(UNAVAILABLE, "'%.*s' has no version ready", STR(req_param(r, S("name"))));
    return req_reply_json(r, 200, &j);
}

static const struct route rows[] = {
    { M_GET, "/v2", server_get, .may = "public", .on_loop = true,
      .doc = "Name, version and extensions of the server." },
    { M_GET, "/v2/health/live", live_get, .may = "public", .on_loop = true, .doc = "It runs." },
    { M_GET, "/v2/health/ready", ready_get, .may = "public",
      .doc = "200 once every deployment is loaded, or cannot be." },
    { M_GET, "/v2/models", models_get, .may = "model.read",
      .doc = "Names of the deployments of the project." },
    { M_GET, "/v2/models/{name}", model_get, .may = "model.read",
      .doc = "Inputs and outputs of a deployment." },
    { M_GET, "/v2/models/{name}/versions/{version}", model_get, .may = "model.read",
      .doc = "The same of one version." },
    { M_GET, "/v2/models/{name}/ready", model_ready_get, .may = "model.read",
      .doc = "200 if it answers, else 503." },
    { M_GET, "/v2/models/{name}/versions/{version}/ready", model_ready_get, .may = "model.read",
      .doc = "The same of one version." },
    { M_POST, "/v2/models/{name}/infer", infer_post, .may = "model.infer", .light = infer_light,
      .body_bytes_max = BODY_BYTES_MAX,
      .doc = "A prediction: {inputs: [tensors]}, or {entities: {column: [values]}} for features by key." },
    { M_POST, "/v2/models/{name}/versions/{version}/infer", infer_post, .may = "model.infer",
      .light = infer_light, .body_bytes_max = BODY_BYTES_MAX, .doc = "The same from one version." },
    { M_POST, "/api/v1/projects/{project}/deployments/{name}/outcomes", outcomes_post, .may = "model.infer",
      .body_bytes_max = BODY_BYTES_MAX, .in = &told_outcomes_schema,
      .doc = "What became true, for its A/B test: {outcomes: [{id, value}]}." },
    { M_GET, "/api/v1/projects/{project}/deployments/{name}/shadow", shadow_get, .may = "deployments.read",
      .out = &shadow_status_schema, .doc = "How the shadow's answers compare, as of now." },
};

const struct route *serve_routes(struct serve *s, struct arena *a)
{
    size_t n = sizeof rows / sizeof *rows;
    struct route *r = NEW_N(a, struct route, n + 1);
    for (size_t i = 0; i < n; i++) {
        r[i] = rows[i];
        r[i].self = s;
        r[i].tag = "inference";
    }
    return r;
}
