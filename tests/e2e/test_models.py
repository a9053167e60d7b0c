# SPDX-License-Identifier: Apache-2.0
"""Whole small models: loss and the gradients of all parameters beside JAX, on one thread and on two; then a few steps of
training, and what graph_write says gives the same answers in ONNX Runtime."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from test_jax import batch_norm, cross_entropy, engine, gru, layer_norm, lstm

ROWS, CLASSES = 12, 4


class Builder:
    """A model of ONNX whose parameters are named; its twin in JAX takes them by name."""

    def __init__(self, seed):
        self.g = np.random.default_rng(seed)
        self.nodes, self.initializers, self.params, self.inputs, self.feeds = [], [], {}, [], []

    def param(self, name, *shape, scale=0.3, around=0.0):
        value = (around + scale * self.g.standard_normal(shape)).astype(np.float32)
        self.params[name] = value
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def state(self, name, value):
        self.initializers.append(numpy_helper.from_array(np.asarray(value, dtype=np.float32), name))
        return name

    def const(self, name, *v):
        self.initializers.append(numpy_helper.from_array(np.array(v, dtype=np.int64), name))
        return name

    def input(self, name, value):
        kind = TensorProto.INT64 if value.dtype == np.int64 else TensorProto.FLOAT
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["batch", *value.shape[1:]]))
        self.feeds.append(value)
        return name

    def node(self, op, inputs, outputs, **attrs):
        self.nodes.append(helper.make_node(op, inputs, [outputs] if isinstance(outputs, str) else outputs, **attrs))

    def model(self, opset):
        labels = self.g.integers(0, CLASSES, ROWS).astype(np.int64)
        self.input("labels", labels)
        self.node("SoftmaxCrossEntropyLoss", ["logits", "labels"], "loss")
        outputs = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in ("logits", "loss")]
        graph = helper.make_graph(self.nodes, "m", self.inputs, outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def mlp(b):
    """Columns of numbers, and two of categories with tables of their own."""
    b.input("numbers", b.g.standard_normal((ROWS, 5)).astype(np.float32))
    b.input("color", b.g.integers(0, 7, ROWS))
    b.input("size", b.g.integers(0, 3, ROWS))
    b.node("Gather", [b.param("colors", 7, 3), "color"], "e1")
    b.node("Gather", [b.param("sizes", 3, 2), "size"], "e2")
    b.node("Concat", ["numbers", "e1", "e2"], "x", axis=1)
    b.node("Gemm", ["x", b.param("w1", 10, 16), b.param("b1", 16)], "h1")
    b.node("Relu", ["h1"], "r1")
    b.node("Gemm", ["r1", b.param("w2", CLASSES, 16), b.param("b2", CLASSES)], "logits", transB=1)

    def twin(p, numbers, color, size):
        x = jnp.concatenate([numbers, p["colors"][color], p["sizes"][size]], 1)
        return jax.nn.relu(x @ p["w1"] + p["b1"]) @ p["w2"].T + p["b2"]

    return twin


def conv(x, w, stride=1):
    return jax.lax.conv_general_dilated(x, w, (stride, stride), [(1, 1), (1, 1)])


def cnn(b):
    """Convolution, BatchNormalization while it learns, a shortcut, pools."""
    b.input("x", b.g.standard_normal((ROWS, 3, 8, 8)).astype(np.float32))
    for i, (cin, cout) in enumerate([(3, 6), (6, 6)]):
        b.node("Conv", ["x" if i == 0 else "a0", b.param(f"w{i}", cout, cin, 3, 3)], f"c{i}", kernel_shape=[3, 3], pads=[1] * 4)
        names = [b.param(f"s{i}", cout, around=1.0), b.param(f"o{i}", cout), b.state(f"mean{i}", np.zeros(cout)),
                 b.state(f"var{i}", np.ones(cout))]
        b.node("BatchNormalization", [f"c{i}", *names], [f"n{i}", f"m{i}", f"v{i}"], training_mode=1)
        if i == 1:
            b.node("Add", ["n1", "a0"], "sum1")
        b.node("Relu", ["n0" if i == 0 else "sum1"], f"a{i}")
    b.node("MaxPool", ["a1"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    b.node("GlobalAveragePool", ["pooled"], "mean")
    b.node("Flatten", ["mean"], "flat")
    b.node("Gemm", ["flat", b.param("w", 6, CLASSES), b.param("b", CLASSES)], "logits")

    def twin(p, x):
        a = jax.nn.relu(batch_norm(conv(x, p["w0"]), p["s0"], p["o0"]))
        a = jax.nn.relu(batch_norm(conv(a, p["w1"]), p["s1"], p["o1"]) + a)
        a = a.reshape(ROWS, 6, 4, 2, 4, 2).max((3, 5)).mean((2, 3))
        return a @ p["w"] + p["b"]

    return twin


def recurrent(b, op, gates):
    hidden, time, width = 6, 5, 3
    b.input("x", b.g.standard_normal((ROWS, time, width)).astype(np.float32))
    b.node("Transpose", ["x"], "xt", perm=[1, 0, 2])
    weights = [b.param("w", 1, gates * hidden, width), b.param("r", 1, gates * hidden, hidden), b.param("b", 1, 2 * gates * hidden)]
    more = {"linear_before_reset": 1} if op == "GRU" else {}
    b.node(op, ["xt", *weights], ["", "h"], hidden_size=hidden, **more)
    b.node("Squeeze", ["h", b.const("axes", 0)], "last")
    b.node("Gemm", ["last", b.param("wo", hidden, CLASSES), b.param("bo", CLASSES)], "logits")

    def twin(p, x):
        cell = lstm if op == "LSTM" else gru
        h = cell(x.transpose(1, 0, 2), p["w"][0], p["r"][0], p["b"][0])[1]
        return h @ p["wo"] + p["bo"]

    return twin


def recurrent_layers(b):
    """Two layers as exporters write them: the batch is the second axis from one transposition to the other, the last step is what
    counts; the second layer goes both ways."""
    hidden, time, width = 5, 4, 3
    b.input("x", b.g.standard_normal((ROWS, time, width)).astype(np.float32))
    b.node("Transpose", ["x"], "xt", perm=[1, 0, 2])
    one = [b.param("w0", 1, 4 * hidden, width), b.param("r0", 1, 4 * hidden, hidden), b.param("b0", 1, 8 * hidden)]
    b.node("LSTM", ["xt", *one], ["y0"], hidden_size=hidden)
    b.node("Squeeze", ["y0", b.const("directions", 1)], "s0")
    b.node("Mul", ["s0", b.param("scale", hidden, around=1.0)], "scaled")
    b.node("Tanh", ["scaled"], "a0")
    b.node("Add", ["a0", "s0"], "z0")
    two = [b.param("w1", 2, 3 * hidden, hidden), b.param("r1", 2, 3 * hidden, hidden), b.param("b1", 2, 6 * hidden)]
    b.node("GRU", ["z0", *two], ["y1"], hidden_size=hidden, linear_before_reset=1, direction="bidirectional")
    b.node("Transpose", ["y1"], "t1", perm=[0, 2, 1, 3])
    b.node("Reshape", ["t1", b.const("joined", 0, 0, -1)], "j1")
    b.node("Concat", ["j1", "z0"], "both", axis=-1)
    b.node("Transpose", ["both"], "back", perm=[1, 0, 2])
    b.initializers.append(numpy_helper.from_array(np.int64(-1), "end"))
    b.node("Gather", ["back", "end"], "last", axis=1)
    b.node("Gemm", ["last", b.param("wo", 3 * hidden, CLASSES), b.param("bo", CLASSES)], "logits")

    def twin(p, x):
        x = x.transpose(1, 0, 2)
        y = lstm(x, p["w0"][0], p["r0"][0], p["b0"][0])[0]
        z = jnp.tanh(y * p["scale"]) + y
        ways = [gru(z, p["w1"][i], p["r1"][i], p["b1"][i], reverse=i == 1)[0] for i in (0, 1)]
        return jnp.concatenate([*ways, z], -1)[-1] @ p["wo"] + p["bo"]

    return twin


def recurrent_wrong_way(b):
    """The rows of the batch are taken for steps in time: they see each other, and no thread may have some of them alone."""
    hidden, width = 6, 3
    b.input("x", b.g.standard_normal((ROWS, 5, width)).astype(np.float32))
    b.node("LSTM", ["x", b.param("w", 1, 4 * hidden, width), b.param("r", 1, 4 * hidden, hidden)], ["y"], hidden_size=hidden)
    b.node("ReduceMean", ["y"], "mean", axes=[1, 2], keepdims=0)
    b.node("Gemm", ["mean", b.param("wo", hidden, CLASSES), b.param("bo", CLASSES)], "logits")

    def twin(p, x):
        y = lstm(x, p["w"][0], p["r"][0], jnp.zeros(8 * hidden))[0]
        return y.mean(1) @ p["wo"] + p["bo"]

    return twin


def transformer(b):
    """Tokens and positions, attention by products as exporters write it, a block of two layers, the mean over time."""
    time, width, heads, words = 6, 8, 2, 11
    b.input("tokens", b.g.integers(0, words, (ROWS, time)))
    b.node("Gather", [b.param("words", words, width), "tokens"], "e")
    b.node("Add", ["e", b.param("places", time, width)], "x0")
    b.node("LayerNormalization", ["x0", b.param("s1", width, around=1.0), b.param("o1", width)], "n1")
    b.node("MatMul", ["n1", b.param("qkv", width, 3 * width)], "all")
    b.node("Split", ["all"], ["q", "k", "v"], axis=-1)
    b.const("heads", 0, time, heads, width // heads)
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        b.node("Reshape", [name, "heads"], name + "h")
        b.node("Transpose", [name + "h"], name + "t", perm=perm)
    b.node("MatMul", ["qt", "kt"], "scores")
    b.initializers.append(numpy_helper.from_array(np.float32(0.5), "scale"))
    b.node("Mul", ["scores", "scale"], "scaled")
    b.node("Softmax", ["scaled"], "p", axis=-1)
    b.node("MatMul", ["p", "vt"], "mixed")
    b.node("Transpose", ["mixed"], "back", perm=[0, 2, 1, 3])
    b.node("Reshape", ["back", b.const("whole", 0, time, width)], "joined")
    b.node("MatMul", ["joined", b.param("out", width, width)], "y1")
    b.node("Add", ["y1", "x0"], "x1")
    b.node("LayerNormalization", ["x1", b.param("s2", width, around=1.0), b.param("o2", width)], "n2")
    b.node("Reshape", ["n2", b.const("rows", -1, width)], "flat")
    b.node("Gemm", ["flat", b.param("up", width, 16), b.param("ub", 16)], "u")
    b.node("Gelu", ["u"], "g")
    b.node("Gemm", ["g", b.param("down", 16, width), b.param("db", width)], "d")
    b.node("Reshape", ["d", b.const("again", -1, time, width)], "y2")
    b.node("Add", ["y2", "x1"], "x2")
    b.node("ReduceMean", ["x2", b.const("axis", 1)], "mean", keepdims=0)
    b.node("MatMul", ["mean", b.param("head", width, CLASSES)], "logits")

    def twin(p, tokens):
        x = p["words"][tokens] + p["places"]
        n = layer_norm(x, p["s1"], p["o1"]) @ p["qkv"]
        q, k, v = (a.reshape(ROWS, time, heads, -1).transpose(0, 2, 1, 3) for a in jnp.split(n, 3, -1))
        y = jax.nn.softmax(q @ k.transpose(0, 1, 3, 2) * 0.5, -1) @ v
        x = x + y.transpose(0, 2, 1, 3).reshape(ROWS, time, width) @ p["out"]
        n = layer_norm(x, p["s2"], p["o2"])
        x = x + jax.nn.gelu(n @ p["up"] + p["ub"], approximate=False) @ p["down"] + p["db"]
        return x.mean(1) @ p["head"]

    return twin


MODELS = {
    "mlp": (mlp, 17),
    "cnn": (cnn, 17),
    "lstm": (lambda b: recurrent(b, "LSTM", 4), 17),
    "gru": (lambda b: recurrent(b, "GRU", 3), 17),
    "recurrent-layers": (recurrent_layers, 17),
    "lstm-wrong-way": (recurrent_wrong_way, 17),
    "transformer": (transformer, 20),
}


def made(name):
    make, opset = MODELS[name]
    b = Builder(len(name))
    twin = make(b)
    if name == "transformer":  # since opset 18 a Split says how many
        next(n for n in b.nodes if n.op_type == "Split").attribute.append(helper.make_attribute("num_outputs", 3))
    return b, twin, b.model(opset)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_gradients(name, ranks):
    b, twin, model = made(name)
    params = {k: jnp.asarray(v, dtype=jnp.float64) for k, v in b.params.items()}

    feeds = [f if f.dtype == np.int64 else f.astype(np.float64) for f in b.feeds[:-1]]

    def loss(p):
        logits = twin(p, *feeds)
        return cross_entropy(logits, b.feeds[-1]), logits

    # Not compiled as a whole: without its optimisations (test_jax.py) XLA gives the cnn gradients that finite differences refute.
    (want, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
    got, outputs, have = engine().gradients(model, b.feeds, "loss", ranks=ranks)
    assert engine().reply["ranks"] == (1 if name == "lstm-wrong-way" else ranks)
    assert abs(got - float(want)) < 2e-5
    np.testing.assert_allclose(outputs[0], logits, rtol=1e-4, atol=2e-5)
    assert set(have) == set(params)
    for key, expected in gradients.items():
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(have[key], expected, rtol=2e-4, atol=2e-4 * max(scale, 1e-3), err_msg=key)


@pytest.mark.parametrize("name", MODELS)
def test_trained_models_answer_alike_in_onnx_runtime(name):
    b, _, model = made(name)
    losses, written = engine().train(model, b.feeds, "loss", 8, ranks=2)
    assert losses[-1] < losses[0]
    onnx.checker.check_model(written)
    trained = onnx.load_from_string(written)
    assert trained.opset_import[0].version == MODELS[name][1]
    ours = engine().run(trained, b.feeds)[0]
    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    theirs = session.run(["logits"], {v.name: f for v, f in zip(b.inputs, b.feeds)})[0]
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()
    # Half as many rows: the batch stayed open.
    half = session.run(["logits"], {v.name: f[: ROWS // 2] for v, f in zip(b.inputs, b.feeds)})[0]
    np.testing.assert_allclose(half, theirs[: ROWS // 2], rtol=1e-4, atol=1e-5)
