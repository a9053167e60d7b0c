// SPDX-License-Identifier: Apache-2.0
/* The Open Inference Protocol but for predictions: one table of operations, which REST and gRPC share. */
#include "serve/ext.h"

#define SERVICE "/inference.GRPCInferenceService/"

/* ---- what is asked ---- */

yyjson_val *call_get(const struct call *c, const char *key)
{
    return yyjson_obj_get(c->body, key);
}

err call_parameters(const struct call *c, yyjson_val **out)
{
    *out = call_get(c, "parameters");
    if (*out && !yyjson_is_null(*out) && !yyjson_is_obj(*out))
        FAIL(INVALID, "parameters is an object");
    return NULL;
}

err served_find(const struct call *c, const struct snap *snap, const struct entry **entry,
                const struct served **out)
{
    const struct entry *e = snap_find(snap, c->project, c->name);
    *out = NULL;
    if (!e)
        return model_unknown(c->name);
    *entry = e;
    for (size_t i = 0; i < e->n; i++) {
        const struct served *v = &e->v[i];
        if (c->version.n ? str_eq(v->model->number, c->version) || str_eq(v->model->name, c->version)
                         : v->share > 0 && (!*out || v->share > (*out)->share))
            *out = v;
    }
    if (!*out && c->version.n)
        return version_unknown(e->name, c->version);
    return NULL;
}

/* ---- server and models ---- */

static err server_metadata(struct call *c)
{
    static const struct str extensions[] = {
        S_INIT("entities"),
        S_INIT("binary_tensor_data"),
        S_INIT("classification"),
        S_INIT("sequence"),
        S_INIT("schedule_policy"),
        S_INIT("statistics"),
        S_INIT("model_configuration"),
        S_INIT("model_repository"),
        S_INIT("model_repository(unload_dependents)"),
        S_INIT("trace"),
        S_INIT("logging"),
        S_INIT("parameters"),
    };
    json_obj(&c->j);
    json_kstr(&c->j, "name", S("dhow"));
    json_kstr(&c->j, "version", S(DHOW_VERSION));
    json_key(&c->j, S("extensions"));
    json_arr(&c->j);
    for (size_t i = 0; i < sizeof extensions / sizeof *extensions; i++)
        json_str(&c->j, extensions[i]);
    json_arr_end(&c->j);
    json_obj_end(&c->j);
    return NULL;
}

static err server_live(struct call *c)
{
    json_raw(&c->j, S("{\"live\":true}"));
    return NULL;
}

static err server_ready(struct call *c)
{
    bool ready = serve_ready(c->s);
    c->status = ready ? 200 : 503;
    json_raw(&c->j, ready ? S("{\"ready\":true}") : S("{\"ready\":false}"));
    return NULL;
}

/* Of the token's project; of all, for a token that has all. */
static err trace_recent_get(struct req *r)
{
    struct json j = json_new(r->a);
    bool all = str_is(req_who(r)->project, "*");
    trace_recent((struct serve *)(uintptr_t)r->route->self, all ? S("") : req_project(r), &j);
    return req_reply_json(r, 200, &j);
}

static err models_get(struct req *r)
{
    struct serve *s = (struct serve *)(uintptr_t)r->route->self;
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

/* What is not there is not ready: over gRPC that is an answer, over REST 404. */
static err model_ready(struct call *c)
{
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    err failed = served_find(c, snap, &e, &v);
    bool ready = !failed && (v || e->state == ENTRY_IDLE); /* one that sleeps answers, too */
    snap_leave(c->s, slot);
    if (failed && !c->rpc)
        return failed;
    c->status = ready ? 200 : 503;
    json_obj(&c->j);
    json_kstr(&c->j, "name", c->name);
    json_kbool(&c->j, "ready", ready);
    json_obj_end(&c->j);
    return NULL;
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

struct str model_platform(const struct model *m)
{
    return m->composed ? S("ensemble") : S("onnxruntime_onnx");
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
    json_kstr(j, "platform", model_platform(v->model));
    tensors_write(j, "inputs", v->model->info->inputs, v->model->info->n_inputs);
    tensors_write(j, "outputs", v->model->info->outputs, v->model->info->n_outputs);
    if (e->plan && !v->unfit.n)
        entities_write(j, e->plan);
    json_obj_end(j);
}

static err model_metadata(struct call *c)
{
    const struct entry *e;
    const struct served *v;
    unsigned slot;
    const struct snap *snap = snap_enter(c->s, &slot);
    err failed = served_find(c, snap, &e, &v);
    if (!failed && v)
        model_write(&c->j, e, v);
    snap_leave(c->s, slot);
    TRY(failed);
    if (!v)
        return versions_none(c->name);
    return NULL;
}

/* ---- the table ---- */
// clang-format off
static const struct operation operations[] = {
    { "ServerLive", "public", server_live, "It runs." },
    { "ServerReady", "public", server_ready, "Whether every deployment is loaded, or cannot be." },
    { "ServerMetadata", "public", server_metadata, "Name, version and extensions of the server." },
    { "ModelReady", "model.read", model_ready, "Whether a deployment answers." },
    { "ModelMetadata", "model.read", model_metadata, "Inputs and outputs of a deployment." },
    { "ModelConfig", "model.read", model_config, "A deployment as Triton's ModelConfig.", .wrap = "config" },
    { "ModelStatistics", "model.read", model_stats, "Counts and times of each version, since the start." },
    { "RepositoryIndex", "model.read", repository_index, "The project's deployments and whether they answer.", .wrap = "models" },
    { "RepositoryModelLoad", "model.operate", repository_load, "A deployment that was unloaded answers again." },
    { "RepositoryModelUnload", "model.operate", repository_unload, "A deployment is taken out of memory; what it is asked is refused." },
    { "TraceSetting", "model.read", trace_setting, "Settings of the trace.", .body = "settings", .wrap = "settings" },
    { "LogSettings", "model.read", log_settings, "Settings of the log.", .body = "settings", .wrap = "settings" },
    { "SystemSharedMemoryStatus", "model.read", shared_memory_status, "Regions of shared memory: none." },
    { "SystemSharedMemoryRegister", "model.infer", shared_memory_refuse, "Refused: shared memory is off." },
    { "SystemSharedMemoryUnregister", "model.infer", shared_memory_nothing, "Nothing is registered." },
    { "CudaSharedMemoryStatus", "model.read", shared_memory_status, "Regions of CUDA memory: none." },
    { "CudaSharedMemoryRegister", "model.infer", shared_memory_refuse, "Refused: shared memory is off." },
    { "CudaSharedMemoryUnregister", "model.infer", shared_memory_nothing, "Nothing is registered." },
};

/* The operations' paths in REST. */
static const struct path {
    enum method method;
    const char *path, *rpc;
    const char *may; /* NULL: the operation's */
    bool on_loop;
} paths[] = {
    { M_GET, "/v2", "ServerMetadata", NULL, true },
    { M_GET, "/v2/health/live", "ServerLive", NULL, true },
    { M_GET, "/v2/health/ready", "ServerReady" },
    { M_GET, "/v2/models/{name}", "ModelMetadata" },
    { M_GET, "/v2/models/{name}/versions/{version}", "ModelMetadata" },
    { M_GET, "/v2/models/{name}/ready", "ModelReady" },
    { M_GET, "/v2/models/{name}/versions/{version}/ready", "ModelReady" },
    { M_GET, "/v2/models/{name}/config", "ModelConfig" },
    { M_GET, "/v2/models/{name}/versions/{version}/config", "ModelConfig" },
    { M_GET, "/v2/models/stats", "ModelStatistics" },
    { M_GET, "/v2/models/{name}/stats", "ModelStatistics" },
    { M_GET, "/v2/models/{name}/versions/{version}/stats", "ModelStatistics" },
    { M_POST, "/v2/repository/index", "RepositoryIndex" },
    { M_POST, "/v2/repository/{project}/index", "RepositoryIndex" },
    { M_POST, "/v2/repository/models/{name}/load", "RepositoryModelLoad" },
    { M_POST, "/v2/repository/{project}/models/{name}/load", "RepositoryModelLoad" },
    { M_POST, "/v2/repository/models/{name}/unload", "RepositoryModelUnload" },
    { M_POST, "/v2/repository/{project}/models/{name}/unload", "RepositoryModelUnload" },
    { M_GET, "/v2/trace/setting", "TraceSetting" },
    { M_POST, "/v2/trace/setting", "TraceSetting", "model.operate" },
    { M_GET, "/v2/models/{name}/trace/setting", "TraceSetting" },
    { M_POST, "/v2/models/{name}/trace/setting", "TraceSetting", "model.operate" },
    { M_GET, "/v2/logging", "LogSettings" },
    { M_POST, "/v2/logging", "LogSettings", "server.operate" },
    { M_GET, "/v2/systemsharedmemory/status", "SystemSharedMemoryStatus" },
    { M_GET, "/v2/systemsharedmemory/region/{name}/status", "SystemSharedMemoryStatus" },
    { M_POST, "/v2/systemsharedmemory/region/{name}/register", "SystemSharedMemoryRegister" },
    { M_POST, "/v2/systemsharedmemory/region/{name}/unregister", "SystemSharedMemoryUnregister" },
    { M_POST, "/v2/systemsharedmemory/unregister", "SystemSharedMemoryUnregister" },
    { M_GET, "/v2/cudasharedmemory/status", "CudaSharedMemoryStatus" },
    { M_GET, "/v2/cudasharedmemory/region/{name}/status", "CudaSharedMemoryStatus" },
    { M_POST, "/v2/cudasharedmemory/region/{name}/register", "CudaSharedMemoryRegister" },
    { M_POST, "/v2/cudasharedmemory/region/{name}/unregister", "CudaSharedMemoryUnregister" },
    { M_POST, "/v2/cudasharedmemory/unregister", "CudaSharedMemoryUnregister" },
};

static const struct route rows[] = {
    { M_GET, "/v2/trace/recent", trace_recent_get, .may = "server.operate",
      .doc = "The last traced requests, the newest first: what each took, in ns from its arrival." },
    { M_GET, "/v2/models", models_get, .may = "model.read",
      .doc = "Names of the deployments of the project." },
    { M_POST, "/v2/models/{name}/infer", infer_post, .may = "model.infer", .light = infer_light, .lead = infer_lead,
      .body_bytes_max = BODY_BYTES_MAX,
      .doc = "A prediction: {inputs: [tensors]}, or {entities: {column: [values]}} for features by key." },
    { M_POST, "/v2/models/{name}/versions/{version}/infer", infer_post, .may = "model.infer",
      .light = infer_light, .lead = infer_lead, .body_bytes_max = BODY_BYTES_MAX, .doc = "The same from one version." },
    { M_POST, "/api/v1/projects/{project}/deployments/{name}/outcomes", outcomes_post, .may = "model.infer",
      .body_bytes_max = BODY_BYTES_MAX, .in = &told_outcomes_schema,
      .doc = "What became true, for its A/B test: {outcomes: [{id, value}]}." },
    { M_GET, "/api/v1/projects/{project}/deployments/{name}/shadow", shadow_get, .may = "deployments.read",
      .out = &shadow_status_schema, .doc = "How the shadow's answers compare, as of now." },
    { M_POST, SERVICE "ModelInfer", rpc_infer, .may = "model.infer", .light = rpc_light, .grpc = GRPC_UNARY,
      .body_bytes_max = BODY_BYTES_MAX, .doc = "A prediction." },
    { M_POST, SERVICE "ModelStreamInfer", rpc_stream, .may = "model.infer", .light = rpc_light, .grpc = GRPC_STREAM,
      .body_bytes_max = BODY_BYTES_MAX, .doc = "Predictions, one for each message." },
};
// clang-format on
enum {
    ROWS = sizeof rows / sizeof *rows,
    PATHS = sizeof paths / sizeof *paths,
    OPERATIONS = sizeof operations / sizeof *operations
};

/* ---- the two ways in ---- */

/* .self of an operation's route. */
struct bound {
    struct serve *s;
    const struct operation *op;
};

static const struct bound *bound_of(const struct req *r)
{
    return r->route->self;
}

static struct call call_new(struct req *r)
{
    struct str project = req_param(r, S("project"));
    return (struct call){ .s = bound_of(r)->s,
                          .r = r,
                          .a = r->a,
                          .project = project.n ? project : req_project(r),
                          .name = req_param(r, S("name")),
                          .version = req_param(r, S("version")),
                          .j = json_new(r->a) };
}

static err rest_call(struct req *r)
{
    struct call c = call_new(r);
    if (r->body.n) {
        TRY(json_parse(r->a, r->body, &c.body));
        if (!yyjson_is_obj(c.body))
            FAIL(INVALID, "the body is an object");
    }
    TRY(bound_of(r)->op->run(&c));
    return req_reply_json(r, c.status ? c.status : 200, &c.j);
}

/* The message as JSON is what REST's path and body say. */
static err rpc_request(struct call *c, const struct operation *op)
{
    struct str method = str_of(op->rpc);
    struct json j = json_new(c->a);
    TRY(proto_read(proto_message(&proto_inference, fmt(c->a, "%.*sRequest", STR(method))), c->r->body, &j));
    TRY(json_parse(c->a, json_get(&j), &c->body));
    yyjson_val *name = call_get(c, "model_name"), *version = call_get(c, "version");
    name = name ? name : call_get(c, "name");
    c->name = json_text(name);
    c->version = json_text(version);
    if (op->body)
        c->body = call_get(c, op->body);
    return NULL;
}

static err rpc_call(struct req *r)
{
    const struct operation *op = bound_of(r)->op;
    struct call c = call_new(r);
    struct buf b = buf_new(r->a);
    yyjson_val *v;
    c.rpc = true;
    TRY(rpc_request(&c, op));
    TRY(op->run(&c));
    struct str answer = json_get(&c.j);
    if (op->wrap)
        answer = fmt(r->a, "{\"%s\":%.*s}", op->wrap, STR(answer));
    TRY(json_parse(r->a, answer, &v));
    TRY(proto_write(proto_message(&proto_inference, fmt(r->a, "%sResponse", op->rpc)), v, &b));
    return req_reply(r, 200, NULL, buf_get(&b));
}

static const struct operation *operation_find(const char *rpc)
{
    size_t i = 0;
    while (strcmp(operations[i].rpc, rpc) != 0)
        i++;
    return &operations[i];
}

static const struct bound *bind(struct serve *s, struct arena *a, const struct operation *op)
{
    struct bound *b = NEW(a, struct bound);
    *b = (struct bound){ s, op };
    return b;
}

static struct route path_route(struct serve *s, struct arena *a, const struct path *p)
{
    const struct operation *op = operation_find(p->rpc);
    return (struct route){ .method = p->method,
                           .path = p->path,
                           .run = rest_call,
                           .may = p->may ? p->may : op->may,
                           .doc = op->doc,
                           .on_loop = p->on_loop,
                           .self = bind(s, a, op) };
}

static struct route rpc_route(struct serve *s, struct arena *a, const struct operation *op)
{
    return (struct route){ .method = M_POST,
                           .path = fmtz(a, SERVICE "%s", op->rpc),
                           .run = rpc_call,
                           .may = op->may,
                           .doc = op->doc,
                           .grpc = GRPC_UNARY,
                           .self = bind(s, a, op) };
}

void serve_describe(struct api *api)
{
    auto_arena struct arena *a = arena_new(0);
    api_grpc_describe(api, str_of(proto_inference.name), proto_descriptor(&proto_inference, a));
    for (const struct proto_file *const *f = proto_standard; *f; f++)
        api_grpc_describe(api, str_of((*f)->name), proto_descriptor(*f, a));
}

const struct route *serve_routes(struct serve *s, struct arena *a)
{
    struct route *r = NEW_N(a, struct route, ROWS + PATHS + OPERATIONS + 1);
    size_t n = 0;
    for (size_t i = 0; i < PATHS; i++)
        r[n++] = path_route(s, a, &paths[i]);
    for (size_t i = 0; i < ROWS; i++) {
        r[n] = rows[i];
        r[n].body_bytes_max = rows[i].body_bytes_max ? s->body_bytes_max : 0;
        r[n++].self = s;
    }
    for (size_t i = 0; i < OPERATIONS; i++)
        r[n++] = rpc_route(s, a, &operations[i]);
    for (size_t i = 0; i < n; i++)
        r[i].tag = "inference";
    return r;
}
