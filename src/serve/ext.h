/* serve/ext: what the Open Inference Protocol and Triton's extensions ask beside predictions.
 * Flow     REST's path and body, or a gRPC message --> struct call --> an operation of the table in routes.c
 *          --> JSON --> REST's reply, or (by proto.h) the message.
 * Threads  a handler's; a snapshot is held while the answer is written, never longer. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "serve/infer.h"
#include "serve/proto.h"

struct call {
    struct serve *s;
    struct req *r;
    struct arena *a;
    struct str project, name, version; /* name, version: empty if none is named */
    yyjson_val *body;                  /* an object; NULL if there was none */
    struct json j;                     /* the answer */
    int status;                        /* of REST's reply; 0: 200 */
    bool rpc;                          /* by gRPC */
};
struct operation {
    const char *rpc; /* name of the method */
    const char *may;
    err (*run)(struct call *);
    const char *doc;
    const char *body; /* member of the message that is REST's body; NULL: all of it */
    const char *wrap; /* member of the answering message that is REST's reply; NULL: all of it */
};

/* What c names: its entry, and the version of the path, else the one that answers most (NULL if none is ready).
 * NOT_FOUND. */
err served_find(const struct call *c, const struct snap *, const struct entry **, const struct served **);
/* A member of the body; NULL if there is none. */
yyjson_val *call_get(const struct call *, const char *key);
/* REST's "parameters" and gRPC's, as an object. */
err call_parameters(const struct call *, yyjson_val **out);

/* ---- ext_schedule.c: parts of a ModelConfig, for ext_config.c ---- */
struct str config_type(struct arena *a, enum tensor_type); /* "TYPE_FP32" */
/* Rows that one run takes at most; most: what a request can bring, 0 if the model takes no rows. */
int64_t schedule_batch_max(const struct policy *, int64_t most);
void schedule_write(struct json *, const struct policy *, const struct model *);
void instances_write(struct json *, struct str name, const struct policy *, const struct session_info *);
/* What clients know the kind of a model by. */
struct str model_platform(const struct model *);

/* ---- ext_stats.c, ext_config.c, ext_repository.c, ext_settings.c ---- */
err model_stats(struct call *);
err model_config(struct call *);
err repository_index(struct call *);
err repository_load(struct call *);
err repository_unload(struct call *);
err trace_setting(struct call *);
err log_settings(struct call *);
err shared_memory_status(struct call *);
err shared_memory_refuse(struct call *);
/* Nothing is registered, so that nothing has to be taken back. */
err shared_memory_nothing(struct call *);

/* ---- rpc.c ---- */
/* A ModelInferRequest into c: name, version, id, parameters, inputs, outputs. Tensors may point into bytes. final: the
 * client of a stream wants to be told which response is the last. INVALID, UNSUPPORTED. */
err rpc_read(struct infer *c, struct str bytes, bool *final);
/* A ModelInferResponse of c's outputs. */
err rpc_write(const struct infer *c, bool final, struct buf *out);
err rpc_infer(struct req *);  /* ModelInfer */
err rpc_stream(struct req *); /* ModelStreamInfer */
bool rpc_light(struct req *);
