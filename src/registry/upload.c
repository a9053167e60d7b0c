// SPDX-License-Identifier: Apache-2.0
/* Models that were trained elsewhere: ONNX bytes in a request's body. The inference library does not see them here;
 * they are read by our own checker alone. */
#include "registry/internal.h"

struct uploading {
    struct str who, project, model, request_id;
    struct model_version_spec spec;
    struct arena *a;
    struct str version;
};

static err upload_tx(struct tx *tx, void *arg)
{
    struct uploading *u = arg;
    struct str name;
    TRY(version_create(tx, u->who, u->project, u->model, 0, &u->spec, &name));
    u->version = str_dup(u->a, name);
    return NULL;
}

static struct str facts_text(struct arena *a, const struct onnx_facts *f, size_t bytes)
{
    struct json j = json_new(a);
    json_obj(&j);
    json_ki64(&j, "bytes", (int64_t)bytes);
    json_kstr(&j, "producer", f->producer);
    json_kstr(&j, "producerVersion", f->producer_version);
    json_ki64(&j, "irVersion", f->ir_version);
    json_ki64(&j, "opset", f->opset);
    json_ki64(&j, "opsetMl", f->opset_ml);
    json_ki64(&j, "nodes", f->nodes);
    json_ki64(&j, "parameters", f->parameters);
    json_obj_end(&j);
    return json_get(&j);
}

err upload_post(struct req *r)
{
    struct store *s = (struct store *)(uintptr_t)r->route->self;
    struct str type = req_header(r, S("content-type"));
    struct onnx_facts facts;
    struct uploading u = { .who = req_who(r)->name,
                           .project = req_param(r, S("project")),
                           .model = req_param(r, S("name")),
                           .request_id = r->id,
                           .a = r->a };
    if (type.n && !str_starts(type, S("application/octet-stream")))
        FAIL(MEDIA, "the body is an ONNX model: Content-Type application/octet-stream");
    if (!r->body.n)
        FAIL(INVALID, "the body is empty; an ONNX model is wanted");
    TRY(resource_get(s, r->a, &model_resource, u.project, u.model, NULL, NULL, NULL));
    TRY(onnx_check(r->a, r->body, &(struct onnx_limits){ .bytes_max = MODEL_BYTES_MAX }, &facts));
    TRY(blob_put(store_blobs(s), r->a, r->body, &u.spec.onnx));
    u.spec.signature = signature_text(r->a, &facts);
    u.spec.facts = facts_text(r->a, &facts, r->body.n);
    TRY(store_write(s, upload_tx, &u));
    struct json j = json_new(r->a);
    json_obj(&j);
    json_kstr(&j, "version", u.version);
    json_kstr(&j, "sha", u.spec.onnx);
    json_kraw(&j, "signature", u.spec.signature);
    json_obj_end(&j);
    return req_reply_json(r, 201, &j);
}
