# SPDX-License-Identifier: Apache-2.0
"""Foreign models: older opsets say the same as in ONNX Runtime, what cannot be is refused by name, weights that an exporter
turned around are one parameter, and tied weights stay tied."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine_tool import EngineError
from test_jax import engine

X = np.random.default_rng(5).standard_normal((3, 4, 6)).astype(np.float32)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes, opset=17, shape=("N", 4, 6), initializers=(), outputs=("y",), domain=""):
    graph = helper.make_graph(nodes, "g", [value("x", shape)], [value(o, None) for o in outputs], list(initializers))
    imports = [helper.make_opsetid("", opset)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def node(op, inputs=("x",), outputs=("y",), **attrs):
    return helper.make_node(op, list(inputs), list(outputs), name="it", **attrs)


OLD = [
    (9, [helper.make_node("Unsqueeze", ["x"], ["u"], axes=[0, 3]), node("Squeeze", ["u"], axes=[0])]),
    (11, [node("ReduceSum", axes=[1], keepdims=0)]),
    (13, [node("ReduceMean", axes=[0, 2])]),
    (11, [node("ReduceMax", axes=[-1])]),
    (11, [node("Softmax", axis=1)]),
    (9, [node("LogSoftmax", axis=2)]),
    (11, [node("Split", outputs=["a", "y"], axis=2, split=[2, 4])]),
    (9, [node("Slice", starts=[1, 0], ends=[3, -1], axes=[1, 2])]),
    (10, [node("Pad", pads=[0, 1, 0, 0, 0, 2], value=1.5)]),
    (10, [node("Clip", min=-0.5, max=0.25)]),
    (9, [node("Dropout", ratio=0.3)]),
    (9, [node("TopK", outputs=["y", "i"], k=2)]),
    (9, [helper.make_node("Constant", [], ["s"], value=tensor("", np.float32([1, 1, 2]))), node("Upsample", ["x", "s"], mode="nearest")]),
    (10, [helper.make_node("Constant", [], ["s"], value=tensor("", np.float32([1, 2, 2]))), node("Resize", ["x", "s"], mode="nearest")]),
]


@pytest.mark.parametrize("opset,nodes", OLD, ids=[f"{nodes[-1].op_type}-{opset}" for opset, nodes in OLD])
def test_older_forms(opset, nodes):
    m = model(nodes, opset)
    session = onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"])
    want = session.run(["y"], {"x": X})[0]
    np.testing.assert_allclose(engine().run(m, [X])[0], want, rtol=1e-5, atol=1e-6)
    # As opset 17, too.
    again = onnxruntime.InferenceSession(engine().write(m), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(again.run(["y"], {"x": X})[0], want, rtol=1e-6, atol=1e-6)


REFUSED = {
    "an op that nobody knows": (model([node("Frobnicate")]), "UNSUPPORTED", "node 'it': the op Frobnicate"),
    "another domain": (model([node("Relu", domain="com.other")], domain="com.other"), "INVALID", "com.other"),
    "trees": (model([node("TreeEnsembleRegressor", domain="ai.onnx.ml")], domain="ai.onnx.ml"), "UNSUPPORTED", "ai.onnx.ml"),
    "a cycle": (model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])], outputs=["b"]), "INVALID", "cycle"),
    "an input from nowhere": (model([node("Add", ["x", "z"])]), "INVALID", "nobody makes its input 'z'"),
    "an output from nowhere": (model([node("Relu")], outputs=["y", "z"]), "INVALID", "nobody makes the output 'z'"),
    "a name twice": (model([node("Relu"), node("Tanh")]), "INVALID", "two values are called 'y'"),
    "too few inputs": (model([node("Add", ["x"])]), "INVALID", "Add 'it': it has 1 inputs"),
    "no gap for an input": (model([node("Add", ["", "x"])]), "INVALID", "input 0 is missing"),
    "an opset to come": (model([node("Relu")], opset=99), "UNSUPPORTED", "opset 99"),
    "shapes that do not fit": (model([node("MatMul", ["x", "x"])]), "INVALID", "MatMul 'it'"),
    "an axis outside": (model([node("Softmax", axis=7)]), "INVALID", "Softmax 'it'"),
    "absurd sizes": (
        model([node("Tile", ["x", "r"])], initializers=[tensor("r", np.int64([1, 2**40, 2**40]))]), "INVALID", "absurd"),
    "text": (model([node("Relu")], initializers=[tensor("t", np.array(["a"], dtype=object))]), "UNSUPPORTED", "tensor 't'"),
    "a size from data": (
        helper.make_model(helper.make_graph([node("Reshape", ["x", "s"])], "g", [value("x", [2, 3]), value("s", [1], TensorProto.INT64)],
                                            [value("y", None)]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        "INVALID", "depends on the data"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_by_name(what):
    m, code, text = REFUSED[what]
    inputs = [X] if what != "a size from data" else [np.zeros((2, 3), np.float32), np.int64([6])]
    with pytest.raises(EngineError) as e:
        engine().run(m, inputs)
    assert e.value.code == code and text in e.value.text


def with_loss(nodes, initializers, shape=("N", 4)):
    nodes = nodes + [helper.make_node("SoftmaxCrossEntropyLoss", ["logits", "labels"], ["loss"])]
    graph = helper.make_graph(nodes, "g", [value("x", shape), value("labels", ["N"], TensorProto.INT64)],
                              [value("logits", None), value("loss", None)], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def weights(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def test_weights_in_another_order_are_one_parameter():
    """Halves swapped, then turned: as exporters do with gates."""
    cut = [tensor("a", np.int64([0])), tensor("b", np.int64([3])), tensor("c", np.int64([6]))]
    nodes = [helper.make_node("Slice", ["w", "a", "b"], ["lower"]), helper.make_node("Slice", ["w", "b", "c"], ["upper"]),
             helper.make_node("Concat", ["upper", "lower"], ["swapped"], axis=0), helper.make_node("Transpose", ["swapped"], ["turned"]),
             helper.make_node("MatMul", ["x", "turned"], ["logits"])]
    m = with_loss(nodes, [tensor("w", weights(6, 4)), *cut])
    x, labels = X[:, :, 0], np.int64([1, 5, 0])
    _, outputs, gradients = engine().gradients(m, [x, labels], "loss")
    assert list(gradients) == ["turned"] and gradients["turned"].shape == (4, 6)
    np.testing.assert_allclose(outputs[0], x @ np.roll(weights(6, 4), 3, 0).T, rtol=1e-5, atol=1e-6)


def test_tied_weights_stay_one_parameter():
    """A table that embeds, and, turned, projects: its gradient comes from both."""
    nodes = [helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64), helper.make_node("Gather", ["w", "ids"], ["e"]),
             helper.make_node("Transpose", ["w"], ["turned"]), helper.make_node("MatMul", ["e", "turned"], ["logits"])]
    m = with_loss(nodes, [tensor("w", weights(6, 4))], shape=("N",))
    ids, labels = np.float32([1, 5, 1]), np.int64([1, 5, 0])
    loss, _, gradients = engine().gradients(m, [ids, labels], "loss")
    assert list(gradients) == ["w"]
    w = weights(6, 4).astype(np.float64)
    e = w[ids.astype(int)]
    p = np.exp(e @ w.T)
    p /= p.sum(1, keepdims=True)
    assert abs(loss + np.log(p[np.arange(3), labels]).mean()) < 1e-5
    d = (p - np.eye(6)[labels]) / 3
    want = d.T @ e
    np.add.at(want, ids.astype(int), d @ w)
    np.testing.assert_allclose(gradients["w"], want, rtol=1e-4, atol=1e-6)


def test_a_net_without_its_normalisation_is_noted():
    conv = [helper.make_node("Conv", ["x", "w"], ["a"], kernel_shape=[1, 1]), helper.make_node("Conv", ["a", "w"], ["y"], kernel_shape=[1, 1])]
    m = model(conv, shape=("N", 2, 3, 3), initializers=[tensor("w", weights(2, 2, 1, 1))])
    engine().run(m, [np.zeros((1, 2, 3, 3), np.float32)])
    assert "BatchNormalization" in engine().reply["notes"][0]


def test_indices_outside_are_counted():
    nodes = [helper.make_node("Cast", ["x"], ["ids"], to=TensorProto.INT64), helper.make_node("Gather", ["w", "ids"], ["y"])]
    m = model(nodes, shape=("N",), initializers=[tensor("w", weights(6, 4))])
    got = engine().run(m, [np.float32([5, 6, -6, -7])])[0]
    np.testing.assert_array_equal(got, np.stack([weights(6, 4)[5], np.zeros(4), weights(6, 4)[0], np.zeros(4)]).astype(np.float32))
    assert engine().reply["bad_indices"] == 2
