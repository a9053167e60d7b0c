/* graph_onnx: what graph_read (graph_read.c), the lifting of old forms (graph_lift.c) and graph_write (graph_write.c) share.
 * Field numbers: onnx/onnx-ml.proto. */
// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "engine/ops.h"

enum {
    F_MODEL_IR = 1,
    F_MODEL_PRODUCER = 2,
    F_MODEL_PRODUCER_VERSION = 3,
    F_MODEL_GRAPH = 7,
    F_MODEL_OPSET = 8,
    F_MODEL_METADATA = 14,
    F_GRAPH_NODE = 1,
    F_GRAPH_NAME = 2,
    F_GRAPH_TENSOR = 5,
    F_GRAPH_INPUT = 11,
    F_GRAPH_OUTPUT = 12,
    F_GRAPH_SPARSE = 15,
    F_NODE_IN = 1,
    F_NODE_OUT = 2,
    F_NODE_NAME = 3,
    F_NODE_OP = 4,
    F_NODE_ATTR = 5,
    F_NODE_DOMAIN = 7,
    F_ATTR_NAME = 1,
    F_ATTR_FLOAT = 2,
    F_ATTR_INT = 3,
    F_ATTR_TEXT = 4,
    F_ATTR_TENSOR = 5,
    F_ATTR_FLOATS = 7,
    F_ATTR_INTS = 8,
    F_ATTR_TEXTS = 9,
    F_ATTR_TYPE = 20,
    F_ATTR_REF = 21,
    F_TENSOR_DIMS = 1,
    F_TENSOR_TYPE = 2,
    F_TENSOR_FLOATS = 4,
    F_TENSOR_INT32S = 5,
    F_TENSOR_INT64S = 7,
    F_TENSOR_NAME = 8,
    F_TENSOR_RAW = 9,
    F_TENSOR_DOUBLES = 10,
    F_TENSOR_UINT64S = 11,
    F_TENSOR_LOCATION = 14,
    F_VALUE_NAME = 1,
    F_VALUE_TYPE = 2,
    F_TYPE_TENSOR = 1,
    F_TENSOR_TYPE_ELEM = 1,
    F_TENSOR_TYPE_SHAPE = 2,
    F_SHAPE_DIM = 1,
    F_DIM_VALUE = 1,
    F_DIM_PARAM = 2,
    F_OPSET_DOMAIN = 1,
    F_OPSET_VERSION = 2,
    F_ENTRY_KEY = 1,
    F_ENTRY_VALUE = 2,
    ATTR_TYPE_FLOAT = 1, /* AttributeProto.AttributeType */
    ATTR_TYPE_INT = 2,
    ATTR_TYPE_TEXT = 3,
    ATTR_TYPE_TENSOR = 4,
    ATTR_TYPE_FLOATS = 6,
    ATTR_TYPE_INTS = 7,
    ATTR_TYPE_TEXTS = 8,
};

/* A node of a file on its way into the graph. */
struct draft {
    struct graph *g;
    struct str op, name, domain;
    int64_t opset;
    VEC(int) in; /* ids; −1: not there */
    VEC(struct attr) attrs;
    struct strs out; /* names; empty: not wanted */
};
struct attr *draft_attr(struct draft *, const char *name); /* NULL: there is none */
void draft_drop(struct draft *, const char *name);
void draft_set(struct draft *, struct attr);

enum {
    OPSET_LEAST = 1,
    OPSET_NUMPY = 7 /* broadcasting without attributes */,
    OPSET_OWN = 20,
    OPSET_MOST = 28
};
/* Rewrites a node of an older (or newer) opset as opset 20 says the same; nodes may be put before it. UNSUPPORTED where
 * that cannot be said. */
err graph_lift(struct draft *);
