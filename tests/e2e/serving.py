# SPDX-License-Identifier: Apache-2.0
"""A model server for tests of clients: dhow, or with ORACLE=triton a real Triton, whose behaviour the same tests then
confirm. And models that are made on the spot, with what they must answer in numpy."""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

ORACLE = os.environ.get("ORACLE")

TYPES = {TensorProto.BOOL: "BOOL", TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16", TensorProto.UINT32: "UINT32",
         TensorProto.UINT64: "UINT64", TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32",
         TensorProto.INT64: "INT64", TensorProto.FLOAT16: "FP16", TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64",
         TensorProto.BFLOAT16: "BF16", TensorProto.STRING: "BYTES"}
CODES = {name: code for code, name in TYPES.items()}


class Dhow:
    """REST and gRPC on one port, a bearer token on every call."""

    def __init__(self, daemon, token=None):
        self.daemon, self.token = daemon, token or daemon.token
        self.rest = self.grpc = daemon.url.removeprefix("http://")

    @property
    def headers(self):
        """A new one each time: tritonclient writes into it."""
        return {"authorization": f"Bearer {self.token}"}

    def deploy(self, name, model, batch=0, **spec):
        self.daemon.deploy_onnx(name, model, **spec)

    def stop(self):
        pass


class Triton:
    def __init__(self, folder):
        root = Path(__file__).resolve().parents[2]
        sys.path[:0] = [str(root / "bench"), str(root / "bench" / "peers")]
        import triton
        self.config = triton.config
        self.process = triton.Triton(folder, {}).answers("/v2/health/ready")
        self.rest, self.grpc = f"127.0.0.1:{self.process.port}", f"127.0.0.1:{self.process.grpc}"

    @property
    def headers(self):
        return {}

    def deploy(self, name, model, batch=0, **spec):
        """batch: the most rows in one call, where the first dimension is the batch's."""
        def side(values):
            for value in values:
                tensor = value.type.tensor_type
                dims = [d.dim_value or -1 for d in tensor.shape.dim][1 if batch else 0:]
                kind = TYPES[tensor.elem_type].replace("BYTES", "STRING")
                yield value.name, kind, dims
        with tempfile.NamedTemporaryFile(suffix=".onnx") as place:
            place.write(model.SerializeToString())
            place.flush()
            self.process.add(name, place.name, self.config(list(side(model.graph.input)), list(side(model.graph.output)), batch))
        self.process.load(name)

    def stop(self):
        self.process.stop()


# ---- models ----

def model_of(nodes, inputs, outputs, weights=()):
    """inputs and outputs: {name: (datatype, shape)}, "N" for a dimension of any size."""
    def values(side):
        return [helper.make_tensor_value_info(name, CODES[kind], shape) for name, (kind, shape) in side.items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs),
                              [numpy_helper.from_array(w, name) for name, w in dict(weights).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def linear(features=4, outputs=3, seed=1):
    """y = x @ w + b; the model and w, b."""
    random = np.random.default_rng(seed)
    w, b = random.standard_normal((features, outputs)).astype(np.float32), random.standard_normal(outputs).astype(np.float32)
    model = model_of([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], {"x": ("FP32", ["N", features])},
                     {"y": ("FP32", ["N", outputs])}, {"w": w, "b": b})
    return model, w, b


def same(kind):
    """y is x, of this datatype."""
    return model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, ["N", 2])}, {"y": (kind, ["N", 2])})


def sum_and_difference():
    return model_of([helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Sub", ["a", "b"], ["difference"])],
                    {"a": ("INT32", ["N"]), "b": ("INT32", ["N"])}, {"sum": ("INT32", ["N"]), "difference": ("INT32", ["N"])})


def slow(steps=4000, size=256):
    """A model that computes for about a second, or as long as somebody waits."""
    random = np.random.default_rng(3)
    w = (random.standard_normal((size, size)) / size**0.5).astype(np.float32)
    nodes, x = [], "x"
    for step in range(steps):
        to = "y" if step == steps - 1 else f"n{step}"
        nodes.append(helper.make_node("MatMul", [x, "w"], [to]))
        x = to
    return model_of(nodes, {"x": ("FP32", ["N", size])}, {"y": ("FP32", ["N", size])}, {"w": w})
