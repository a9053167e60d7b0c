/* onnx: reads and checks foreign ONNX models, writes our own; protobuf's wire format by hand.
 * What is refused: external data in any tensor (initialisers, sparse ones, attributes, subgraphs), operator
 * domains other than "", ai.onnx and ai.onnx.ml, functions of other domains, tensors whose bytes are not there,
 * subgraphs too deep, and everything over onnx_limits. It is a check before ONNX Runtime sees the bytes, not
 * in its place: whether the operators fit together is ONNX Runtime's word.
 * Field numbers: onnx/onnx-ml.proto (ONNX 1.23, IR version 13). */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "base/pb.h"
#include "engine/tensor.h"

struct onnx_limits {      /* 0: the default */
    int64_t bytes_max;    /* of the whole file; 2 GiB − 1 */
    int64_t nodes_max;    /* in all graphs and functions together; 100,000 */
    int64_t tensors_max;  /* initialisers and constants; 100,000 */
    int64_t elements_max; /* of one tensor; 2^31 − 1 */
    int64_t values_max;   /* inputs or outputs of the model; 1,000 */
    int64_t depth_max;    /* of subgraphs; 8 */
    bool
        texts; /* graph_read: takes inputs of texts, and LabelEncoder, which makes ids of them; nothing here runs these */
};
struct onnx_text {
    struct str key, value;
};
/* All text points into the bytes that were checked. */
struct onnx_facts {
    int64_t ir_version, opset, opset_ml; /* opsets: 0 if not imported */
    struct str producer, producer_version, graph, doc;
    VEC(struct tensor_spec) inputs, outputs; /* inputs without those that an initialiser gives */
    VEC(struct onnx_text) metadata;
    int64_t nodes, tensors, parameters; /* parameters: elements of the main graph's initialisers */
};
/* Checks the bytes and fills out. INVALID or TOO_LARGE, naming the node and the tensor. Iterates over the
 * bytes once, in memory bounded by the number of inputs, outputs and initialisers. */
err onnx_check(struct arena *a, struct str bytes, const struct onnx_limits *, struct onnx_facts *out);
