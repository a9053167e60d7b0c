# SPDX-License-Identifier: Apache-2.0
"""The engine beside JAX: every op's forward and gradient on random shapes, then whole small models: loss, gradients of all
parameters, on one thread and on two. JAX counts in float64, so what differs is the engine's float32."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from jax import lax
from onnx import TensorProto, helper, numpy_helper

from engine_tool import Engine

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_disable_most_optimizations", True)  # each function runs once; compiling is what takes time


@functools.cache
def engine():
    return Engine()


def model_of(nodes, inputs, outputs, initializers, opset=20):
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs],
                              initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def is_float(array):
    return array is not None and array.dtype == np.float32


def close(got, want, what, tolerance=2e-5):
    want = np.asarray(want)
    assert got.shape == want.shape, f"{what}: {got.shape}, not {want.shape}"
    scale = np.abs(want).max() if want.size else 0
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(scale, 1e-3), err_msg=what)


# ---- single ops ------------------------------------------------------------------------------------------------------


class Case:
    """Inputs that are floats are parameters with a gradient, others are constants; fn says in JAX what the op does."""

    def __init__(self, op, fn, inputs, attrs=None, outputs=1, opset=20, tolerance=2e-5):
        self.op, self.fn, self.inputs, self.attrs = op, fn, inputs, attrs or {}
        self.outputs, self.opset, self.tolerance = outputs, opset, tolerance

    def model(self):
        """Each parameter is multiplied by an input that is 1: else what only moves weights would be folded."""
        nodes, initializers, names = [], [], []
        for i, array in enumerate(self.inputs):
            if array is None:
                names.append("")
                continue
            initializers.append(numpy_helper.from_array(array, f"p{i}"))
            names.append(f"x{i}" if is_float(array) else f"p{i}")
            if is_float(array):
                nodes.append(helper.make_node("Mul", [f"p{i}", "one"], [f"x{i}"]))
        outs = [f"y{i}" for i in range(self.outputs)]
        nodes.append(helper.make_node(self.op, names, outs, name="node", **self.attrs))
        for y in outs:
            nodes.append(helper.make_node("Mul", [y, "w" + y], ["m" + y]))
            nodes.append(helper.make_node("ReduceSum", ["m" + y], ["s" + y], keepdims=0))
        nodes.append(helper.make_node("Sum", ["s" + y for y in outs], ["loss"]))
        return nodes, initializers, outs

    def check(self, rng):
        floats = [i for i, array in enumerate(self.inputs) if is_float(array)]

        def forward(params):
            args = list(self.inputs)
            for i, p in zip(floats, params):
                args[i] = p
            y = self.fn(*args)
            return y if isinstance(y, tuple) else (y,)

        params = [jnp.asarray(self.inputs[i], dtype=jnp.float64) for i in floats]
        weights = [np.asarray(rng.standard_normal(y.shape), dtype=np.float32) for y in jax.eval_shape(forward, params)]

        def weighed(ps):
            y = forward(ps)
            return sum((a * w).sum() for a, w in zip(y, weights)), y

        (loss, want), gradients = jax.jit(jax.value_and_grad(weighed, has_aux=True))(params)
        nodes, initializers, outs = self.model()
        inputs = [helper.make_tensor_value_info("one", TensorProto.FLOAT, [])]
        inputs += [helper.make_tensor_value_info("w" + y, TensorProto.FLOAT, w.shape) for y, w in zip(outs, weights)]
        model = model_of(nodes, inputs, outs + ["loss"], initializers, self.opset)
        got_loss, got, got_gradients = engine().gradients(model, [np.float32(1), *weights], "loss")
        for y, (have, expected) in enumerate(zip(got, want)):
            close(have, expected, f"{self.op}: output {y}", self.tolerance)
        size = float(sum(np.abs(np.asarray(y) * w).sum() for y, w in zip(want, weights)))
        assert abs(got_loss - float(loss)) <= self.tolerance * max(size, 1), f"{self.op}: loss"
        for i, expected in zip(floats, gradients):
            have = got_gradients.get(f"p{i}", np.zeros(self.inputs[i].shape))
            close(have, expected, f"{self.op}: gradient of input {i}", 5 * self.tolerance)


class Random:
    """Numbers and sizes of one op, always the same."""

    def __init__(self, name):
        self.g = np.random.default_rng(zlib.crc32(name.encode()))

    def shape(self, rank, least=1, most=7):
        return tuple(int(n) for n in self.g.integers(least, most + 1, rank))

    def f(self, *shape, low=None, high=None):
        x = self.g.standard_normal(shape) if low is None else self.g.uniform(low, high, shape)
        return np.asarray(x, dtype=np.float32)

    def away(self, *shape, of=(0.0,)):
        """Numbers that stay away from an op's kinks."""
        x = self.f(*shape)
        for place in of:
            near = np.abs(x - place) < 0.02
            x = np.where(near, x + 0.1, x)
        return x.astype(np.float32)

    def i(self, most, *shape):
        return self.g.integers(0, most, shape).astype(np.int64)


def ints(*v):
    return np.array(v, dtype=np.int64)


def swish(x, alpha=1.0):
    return x * jax.nn.sigmoid(alpha * x)


UNARY = {
    "Relu": (jax.nn.relu, {}, (0,)),
    "LeakyRelu": (lambda x: jnp.where(x > 0, x, 0.1 * x), {"alpha": 0.1}, (0,)),
    "ThresholdedRelu": (lambda x: jnp.where(x > 0.7, x, 0), {"alpha": 0.7}, (0.7,)),
    "Elu": (lambda x: jax.nn.elu(x, 1.3), {"alpha": 1.3}, (0,)),
    "Celu": (lambda x: jax.nn.celu(x, 1.3), {"alpha": 1.3}, (0,)),
    "Selu": (lambda x: jnp.where(x > 0, 1.0507009873554805 * x, 1.7580993408473766 * jnp.expm1(x)), {}, (0,)),
    "Sigmoid": (jax.nn.sigmoid, {}, ()),
    "HardSigmoid": (lambda x: jnp.clip(0.3 * x + 0.4, 0, 1), {"alpha": 0.3, "beta": 0.4}, (2.0, -4 / 3)),
    "HardSwish": (lambda x: x * jnp.clip(x / 6 + 0.5, 0, 1), {}, (-3, 3)),
    "Tanh": (jnp.tanh, {}, ()),
    "Gelu": (lambda x: jax.nn.gelu(x, approximate=False), {}, ()),
    "Gelu tanh": (lambda x: jax.nn.gelu(x, approximate=True), {"approximate": "tanh"}, ()),
    "Erf": (lax.erf, {}, ()),
    "Softplus": (jax.nn.softplus, {}, ()),
    "Softsign": (jax.nn.soft_sign, {}, ()),
    "Swish": (lambda x: swish(x, 1.5), {"alpha": 1.5}, ()),
    "Mish": (lambda x: x * jnp.tanh(jax.nn.softplus(x)), {}, ()),
    "Shrink": (lambda x: jnp.where(x < -0.5, x + 0.2, jnp.where(x > 0.5, x - 0.2, 0)), {"lambd": 0.5, "bias": 0.2}, (-0.5, 0.5)),
    "Exp": (jnp.exp, {}, ()),
    "Abs": (jnp.abs, {}, (0,)),
    "Neg": (jnp.negative, {}, ()),
    "Sin": (jnp.sin, {}, ()),
    "Cos": (jnp.cos, {}, ()),
    "Atan": (jnp.arctan, {}, ()),
    "Sinh": (jnp.sinh, {}, ()),
    "Cosh": (jnp.cosh, {}, ()),
    "Asinh": (jnp.arcsinh, {}, ()),
    "Identity": (lambda x: x, {}, ()),
}
BOUNDED = {
    "Log": (jnp.log, 0.1, 4),
    "Sqrt": (jnp.sqrt, 0.1, 4),
    "Reciprocal": (lambda x: 1 / x, 0.3, 3),
    "Tan": (jnp.tan, -1.2, 1.2),
    "Asin": (jnp.arcsin, -0.9, 0.9),
    "Acos": (jnp.arccos, -0.9, 0.9),
    "Acosh": (jnp.arccosh, 1.2, 4),
    "Atanh": (jnp.arctanh, -0.9, 0.9),
}
REDUCE = {
    "ReduceSum": jnp.sum,
    "ReduceMean": jnp.mean,
    "ReduceMax": jnp.max,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceL1": lambda x, axis, keepdims: jnp.abs(x).sum(axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: jnp.sqrt((x * x).sum(axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: (x * x).sum(axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: jnp.log(x.sum(axis, keepdims=keepdims)),
    "ReduceLogSumExp": lambda x, axis, keepdims: jax.nn.logsumexp(x, axis, keepdims=keepdims),
}
BINARY = {
    "Add": jnp.add,
    "Sub": jnp.subtract,
    "Mul": jnp.multiply,
    "Div": jnp.divide,
    "Min": jnp.minimum,
    "Max": jnp.maximum,
    "Sum": jnp.add,
    "Mean": lambda x, y: (x + y) / 2,
}


def unary(r):
    for name, (fn, attrs, kinks) in UNARY.items():
        op = name.split()[0]
        yield Case(op, fn, [r.away(*r.shape(3, most=19), of=kinks)], attrs, opset=24 if op == "Swish" else 20)
    for op, (fn, low, high) in BOUNDED.items():
        yield Case(op, fn, [r.f(*r.shape(2, most=19), low=low, high=high)])
    yield Case("Clip", lambda x, lo, hi: jnp.clip(x, -0.6, 0.8), [r.away(5, 7, of=(-0.6, 0.8)), None, None])
    yield Case("Cast", lambda x: x, [r.f(4, 5)], {"to": TensorProto.FLOAT})
    yield Case("CumSum", lambda x, axis: jnp.cumsum(x, 1), [r.f(3, 6, 2), np.array(1)])
    yield Case("CumSum", lambda x, axis: jnp.flip(jnp.cumsum(jnp.flip(x, 0), 0), 0) - x, [r.f(5, 4), np.array(0)],
               {"exclusive": 1, "reverse": 1})


def clip_case(r):
    """Bounds are settings, not parameters: they are constants of the model."""
    lo, hi = np.float32(-0.6), np.float32(0.8)
    case = Case("Clip", lambda x: jnp.clip(x, lo, hi), [r.away(5, 7, of=(-0.6, 0.8))])
    plain = case.model

    def model():
        nodes, initializers, outs = plain()
        for node in nodes:
            if node.op_type == "Clip":
                node.input.extend(["lo", "hi"])
        return nodes, initializers + [numpy_helper.from_array(np.array(lo), "lo"), numpy_helper.from_array(np.array(hi), "hi")], outs

    case.model = model
    return case


def binary(r):
    for op, fn in BINARY.items():
        for a, b in [((4, 3, 5), (4, 3, 5)), ((4, 1, 5), (3, 1)), ((5,), (2, 3, 5)), ((3, 4), (1,))]:
            y = r.f(*b, low=0.5, high=2) if op == "Div" else r.f(*b)
            yield Case(op, fn, [r.f(*a), y])
    yield Case("Pow", jnp.power, [r.f(4, 5, low=0.3, high=2), r.f(5, low=-2, high=2)])
    yield Case("PRelu", lambda x, s: jnp.where(x > 0, x, s * x), [r.away(2, 3, 4), r.f(3, 1)])
    mask = r.g.random((3, 1, 5)) < 0.5
    yield Case("Where", jnp.where, [mask, r.f(4, 5), r.f(3, 4, 1)])


def reductions(r):
    for op, fn in REDUCE.items():
        low, high = (0.3, 2) if op in ("ReduceLogSum", "ReduceProd") else (-2, 2)
        for axes, keep in [((1,), 1), ((0, 2), 0), ((-1,), 0), ((0,), 1), (None, 0)]:
            x = r.f(4, 3, 6, low=low, high=high)
            inputs = [x] if axes is None else [x, ints(*axes)]
            yield Case(op, lambda x, a=None, fn=fn, axes=axes, keep=keep: fn(x, axis=axes, keepdims=bool(keep)), inputs,
                       {"keepdims": keep})


def pad_modes(r):
    pads = ints(0, 1, 2, 0, 3, 1)
    widths = [(0, 0), (1, 3), (2, 1)]
    yield Case("Pad", lambda x, p: jnp.pad(x, widths), [r.f(2, 4, 5), pads])
    for mode, numpy_mode in [("reflect", "reflect"), ("edge", "edge"), ("wrap", "wrap")]:
        yield Case("Pad", lambda x, p, m=numpy_mode: jnp.pad(x, widths, mode=m), [r.f(2, 4, 5), pads], {"mode": mode})
    yield Case("Pad", lambda x, p: jnp.pad(x[:, 1:], [(0, 0), (0, 2)]), [r.f(3, 4), ints(0, -1, 0, 2)])


def shapes(r):
    yield Case("Reshape", lambda x, s: x.reshape(2, 12, 5), [r.f(2, 3, 4, 5), ints(0, -1, 5)])
    yield Case("Flatten", lambda x: x.reshape(6, 20), [r.f(2, 3, 4, 5)], {"axis": 2})
    yield Case("Squeeze", lambda x, a: x.reshape(3, 4), [r.f(3, 1, 4, 1), ints(1, -1)])
    yield Case("Unsqueeze", lambda x, a: x.reshape(1, 3, 4, 1), [r.f(3, 4), ints(0, -1)])
    for perm in [(1, 0, 2), (2, 1, 0), (0, 2, 1), (2, 0, 1)]:
        yield Case("Transpose", lambda x, p=perm: x.transpose(p), [r.f(*r.shape(3, 2, 40))], {"perm": perm})
    yield Case("Transpose", lambda x: x.transpose(0, 2, 1, 3), [r.f(2, 5, 3, 8)], {"perm": [0, 2, 1, 3]})
    for axis in (0, 1, -1):
        def concat(x, y, z, a=axis):
            return jnp.concatenate([x, y, z], a)
        sizes = [[2, 3, 4] for _ in range(3)]
        for k, s in enumerate(sizes):
            s[axis] += k
        yield Case("Concat", concat, [r.f(*s) for s in sizes], {"axis": axis})
    yield Case("Split", lambda x, s: tuple(jnp.split(x, [1, 4], 1)), [r.f(3, 6), ints(1, 3, 2)], {"axis": 1}, outputs=3)
    yield Case("Split", lambda x: tuple(jnp.split(x, [3], 0)), [r.f(5, 2)], {"num_outputs": 2}, outputs=2)
    yield Case("Slice", lambda x, s, e, a: x[1:, :-1], [r.f(4, 5, 2), ints(1, 0), ints(9, -1), ints(0, 1)])
    yield Case("Slice", lambda x, s, e, a, t: x[::2, ::-2], [r.f(5, 7), ints(0, -1), ints(9, -99), ints(0, 1), ints(2, -2)])
    yield from pad_modes(r)
    yield Case("Expand", lambda x, s: jnp.broadcast_to(x, (2, 3, 4, 5)), [r.f(3, 1, 5), ints(2, 1, 4, 1)])
    yield Case("Tile", lambda x, t: jnp.tile(x, (2, 1, 3)), [r.f(2, 3, 4), ints(2, 1, 3)])
    yield Case("Trilu", lambda x: jnp.triu(x), [r.f(2, 4, 5)])
    yield Case("Trilu", lambda x, k: jnp.tril(x, -1), [r.f(5, 4), np.array(-1)], {"upper": 0})
    yield Case("DepthToSpace", depth_to_space_dcr, [r.f(2, 12, 2, 3)], {"blocksize": 2, "mode": "DCR"})
    yield Case("DepthToSpace", depth_to_space_crd, [r.f(2, 12, 2, 3)], {"blocksize": 2, "mode": "CRD"})
    yield Case("SpaceToDepth", space_to_depth, [r.f(2, 3, 4, 6)], {"blocksize": 2})


def depth_to_space_dcr(x):
    return x.reshape(2, 2, 2, 3, 2, 3).transpose(0, 3, 4, 1, 5, 2).reshape(2, 3, 4, 6)


def depth_to_space_crd(x):
    return x.reshape(2, 3, 2, 2, 2, 3).transpose(0, 1, 4, 2, 5, 3).reshape(2, 3, 4, 6)


def space_to_depth(x):
    return x.reshape(2, 3, 2, 2, 3, 2).transpose(0, 3, 5, 1, 2, 4).reshape(2, 12, 2, 3)


def top_k(x, k):
    values, _ = lax.top_k(x, 3)
    return values


class TopK(Case):
    """Its second output is where the values were: no float, no gradient."""

    def model(self):
        nodes, initializers, outs = super().model()
        for node in nodes:
            if node.op_type == "TopK":
                node.output.append("where")
        return nodes, initializers, outs


def indices(r):
    for axis in (0, 1):
        yield Case("Gather", lambda x, i, a=axis: jnp.take(x, i, axis=a), [r.f(6, 5, 3), r.i(5, 2, 4)], {"axis": axis})
    yield Case("Gather", lambda x, i: jnp.take(x, jnp.array([5, 0]), axis=0), [r.f(6, 5), ints(-1, 0)])
    yield Case("GatherElements", lambda x, i: jnp.take_along_axis(x, i, 1), [r.f(4, 5), r.i(5, 4, 7)], {"axis": 1})
    i = r.i(3, 6, 2)
    yield Case("GatherND", lambda x, i: x[i[:, 0], i[:, 1]], [r.f(3, 4, 5), i])
    once = np.argsort(r.g.random((3, 5)), axis=1)[:, :2].astype(np.int64)
    rows = np.arange(3)[:, None]
    yield Case("ScatterElements", lambda x, i, u: x.at[rows, i].set(u), [r.f(3, 5), once, r.f(3, 2)], {"axis": 1})
    yield Case("ScatterElements", lambda x, i, u: x.at[rows, i].add(u), [r.f(3, 5), r.i(5, 3, 4), r.f(3, 4)],
               {"axis": 1, "reduction": "add"})
    yield Case("ScatterND", lambda x, i, u: x.at[i[:, 0]].set(u), [r.f(5, 3), ints([3], [1]), r.f(2, 3)])
    yield Case("ScatterND", lambda x, i, u: x.at[i[:, 0]].add(u), [r.f(5, 3), ints([3], [1], [3]), r.f(3, 3)], {"reduction": "add"})
    yield TopK("TopK", top_k, [r.f(4, 7), ints(3)])


def products(r):
    for a, b in [((5, 7), (7, 3)), ((2, 3, 5, 7), (2, 3, 7, 4)), ((2, 3, 5, 7), (7, 4)), ((7,), (7, 3)), ((5, 7), (7,)),
                 ((3, 1, 4, 6), (2, 6, 5)), ((33, 130), (130, 70))]:
        yield Case("MatMul", jnp.matmul, [r.f(*a), r.f(*b)])
    for ta in (0, 1):
        for tb in (0, 1):
            a, b = r.f(*((6, 4) if ta else (4, 6))), r.f(*((5, 6) if tb else (6, 5)))

            def gemm(a, b, c, ta=ta, tb=tb):
                return 0.5 * (a.T if ta else a) @ (b.T if tb else b) + 2.0 * c

            yield Case("Gemm", gemm, [a, b, r.f(5)], {"transA": ta, "transB": tb, "alpha": 0.5, "beta": 2.0})


def convolution(x, w, b, stride, pads, dilation=(1, 1), groups=1):
    y = lax.conv_general_dilated(x, w, stride, pads, rhs_dilation=dilation, feature_group_count=groups)
    return y + b.reshape(1, -1, 1, 1)


def pool_mean(x, include_pad):
    window, stride, pads = (1, 1, 3, 3), (1, 1, 2, 2), [(0, 0), (0, 0), (1, 1), (1, 1)]
    total = lax.reduce_window(x, 0.0, lax.add, window, stride, pads)
    count = 9 if include_pad else lax.reduce_window(jnp.ones_like(x), 0.0, lax.add, window, stride, pads)
    return total / count


def transposed_convolution(x, w, b):
    y = lax.conv_general_dilated(x, jnp.flip(w, (2, 3)).transpose(1, 0, 2, 3), (1, 1), [(1, 2), (1, 2)], lhs_dilation=(2, 2))
    return y + b.reshape(1, -1, 1, 1)


def upsampled(x):
    return jnp.repeat(jnp.repeat(x, 2, 2), 2, 3)


def bilinear(x):
    return jax.image.resize(x, (2, 3, 8, 10), "linear", antialias=False)


def images(r):
    for stride, pad, dilation, groups, cin, cout, k in [
        ((1, 1), 1, (1, 1), 1, 3, 5, 3), ((2, 2), 1, (1, 1), 1, 4, 6, 3), ((1, 2), 2, (2, 1), 1, 2, 3, 3),
        ((1, 1), 0, (1, 1), 1, 5, 7, 1), ((1, 1), 1, (1, 1), 2, 4, 6, 3), ((2, 2), 1, (1, 1), 6, 6, 6, 3),
    ]:
        fn = functools.partial(convolution, stride=stride, pads=[(pad, pad)] * 2, dilation=dilation, groups=groups)
        yield Case("Conv", fn, [r.f(2, cin, 9, 8), r.f(cout, cin // groups, k, k), r.f(cout)],
                   {"strides": stride, "pads": [pad] * 4, "dilations": dilation, "group": groups})
    yield Case("ConvTranspose", transposed_convolution, [r.f(2, 3, 4, 5), r.f(3, 4, 3, 3), r.f(4)],
               {"strides": [2, 2], "pads": [1, 1, 0, 0]})
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    yield Case("MaxPool", lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), [(0, 0), (0, 0), (1, 1), (1, 1)]),
               [r.f(2, 3, 7, 8)], window)
    for include in (0, 1):
        yield Case("AveragePool", functools.partial(pool_mean, include_pad=include), [r.f(2, 3, 7, 8)],
                   {**window, "count_include_pad": include})
    yield Case("GlobalAveragePool", lambda x: x.mean((2, 3), keepdims=True), [r.f(2, 3, 4, 5)])
    yield Case("GlobalMaxPool", lambda x: x.max((2, 3), keepdims=True), [r.f(2, 3, 4, 5)])


class Sized(Case):
    """Resize: its sizes are an input that is no parameter."""

    def model(self):
        nodes, initializers, outs = super().model()
        for node in nodes:
            if node.op_type == "Resize":
                del node.input[1:]
                node.input.extend(["", "", "sizes"])
        return nodes, initializers + [numpy_helper.from_array(ints(2, 3, 8, 10), "sizes")], outs


def resizes(r):
    yield Sized("Resize", upsampled, [r.f(2, 3, 4, 5)],
                {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"})
    yield Sized("Resize", bilinear, [r.f(2, 3, 4, 5)], {"mode": "linear", "coordinate_transformation_mode": "half_pixel"})


def layer_norm(x, s, b, axes=(-1,), eps=1e-5):
    m = x.mean(axes, keepdims=True)
    v = ((x - m) ** 2).mean(axes, keepdims=True)
    return (x - m) / jnp.sqrt(v + eps) * s + b


def group_norm(x, s, b, groups):
    n, c = x.shape[:2]
    y = x.reshape(n, groups, -1)
    y = (y - y.mean(-1, keepdims=True)) / jnp.sqrt(y.var(-1, keepdims=True) + 1e-5)
    return y.reshape(x.shape) * s.reshape(1, c, 1, 1) + b.reshape(1, c, 1, 1)


def rms_norm(x, s):
    return x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * s


def batch_norm(x, s, b, m=None, v=None):
    axes = (0, *range(2, x.ndim))
    shape = (1, -1, *([1] * (x.ndim - 2)))
    mean, var = x.mean(axes), x.var(axes)
    return (x - mean.reshape(shape)) / jnp.sqrt(var.reshape(shape) + 1e-5) * s.reshape(shape) + b.reshape(shape)


class Trained(Case):
    """BatchNormalization while it learns: two more outputs, the running statistics."""

    def model(self):
        nodes, initializers, outs = super().model()
        for node in nodes:
            if node.op_type == "BatchNormalization":
                node.output.extend(["mean", "variance"])
                del node.input[3:]
                node.input.extend(["p3", "p4"])
        return [n for n in nodes if n.output[0] not in ("x3", "x4")], initializers, outs


def attention(q, k, v, causal):
    s = jnp.einsum("bhqd,bhkd->bhqk", q, k) / np.sqrt(q.shape[-1])
    if causal:
        s = jnp.where(np.tril(np.ones(s.shape[-2:], dtype=bool)), s, -jnp.inf)
    return jnp.einsum("bhqk,bhkd->bhqd", jax.nn.softmax(s, -1), v)


def norms(r):
    for axis in (-1, 1):
        yield Case("Softmax", lambda x, a=axis: jax.nn.softmax(x, a), [r.f(4, 5, 6)], {"axis": axis})
        yield Case("LogSoftmax", lambda x, a=axis: jax.nn.log_softmax(x, a), [r.f(4, 5, 6)], {"axis": axis})
    yield Case("LayerNormalization", layer_norm, [r.f(4, 5, 33), r.f(33), r.f(33)], {"axis": -1})
    yield Case("LayerNormalization", functools.partial(layer_norm, axes=(1, 2)), [r.f(4, 5, 6), r.f(5, 6), r.f(5, 6)], {"axis": 1})
    yield Case("RMSNormalization", rms_norm, [r.f(4, 5, 33), r.f(33)], opset=23)
    yield Case("GroupNormalization", functools.partial(group_norm, groups=2), [r.f(3, 4, 3, 5), r.f(4), r.f(4)],
               {"num_groups": 2, "epsilon": 1e-5}, opset=21)
    yield Case("InstanceNormalization", functools.partial(group_norm, groups=4), [r.f(3, 4, 3, 5), r.f(4), r.f(4)], {"epsilon": 1e-5})
    yield Trained("BatchNormalization", batch_norm, [r.f(6, 3, 4, 5), r.f(3), r.f(3), np.zeros(3, np.float32), np.ones(3, np.float32)],
                  {"training_mode": 1, "epsilon": 1e-5}, opset=15)
    for causal in (0, 1):
        yield Case("Attention", functools.partial(attention, causal=causal), [r.f(2, 3, 7, 8), r.f(2, 3, 7, 8), r.f(2, 3, 7, 8)],
                   {"is_causal": causal}, opset=23)
    yield Case("Dropout", lambda x: x, [r.f(4, 5)])


def rotated(x, cos, sin):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    c, s = cos[:, None], sin[:, None]
    return jnp.concatenate([a * c - b * s, a * s + b * c], -1)


def rotary(r):
    angle = r.f(2, 5, 4)
    case = Case("RotaryEmbedding", lambda x: rotated(x, np.cos(angle), np.sin(angle)), [r.f(2, 3, 5, 8)], opset=23)
    plain = case.model

    def model():
        nodes, initializers, outs = plain()
        nodes.insert(0, helper.make_node("Constant", [], ["cos"], value=numpy_helper.from_array(np.cos(angle))))
        nodes.insert(0, helper.make_node("Constant", [], ["sin"], value=numpy_helper.from_array(np.sin(angle))))
        for node in nodes:
            if node.op_type == "RotaryEmbedding":
                node.input.extend(["cos", "sin"])
        return nodes, initializers, outs

    case.model = model
    yield case


def cross_entropy(x, t, w=None, reduction="mean", ignore=None):
    logs = jax.nn.log_softmax(x, 1)
    return nll(logs, t, w, reduction, ignore)


def nll(logs, t, w=None, reduction="mean", ignore=None):
    picked = -jnp.take_along_axis(logs, jnp.where(t < 0, 0, t)[:, None], 1)[:, 0]
    weight = jnp.ones(t.shape) if w is None else jnp.asarray(w)[jnp.where(t < 0, 0, t)]
    if ignore is not None:
        weight = jnp.where(t == ignore, 0, weight)
    picked = picked * weight
    return picked if reduction == "none" else picked.sum() if reduction == "sum" else picked.sum() / weight.sum()


def losses(r):
    for reduction in ("mean", "sum", "none"):
        yield Case("SoftmaxCrossEntropyLoss", functools.partial(cross_entropy, reduction=reduction), [r.f(6, 5), r.i(5, 6)],
                   {"reduction": reduction})
        yield Case("NegativeLogLikelihoodLoss", functools.partial(nll, reduction=reduction), [r.f(6, 5, 3), r.i(5, 6, 3)],
                   {"reduction": reduction})
    t = r.i(5, 8)
    t[2] = 3
    yield Case("SoftmaxCrossEntropyLoss", functools.partial(cross_entropy, ignore=3), [r.f(8, 5), t], {"ignore_index": 3})


def sigmoid_gates(x, w, b):
    return jnp.split(x @ w.T + b, 4, -1)


def lstm(x, w, r, b, h=None, c=None, reverse=False):
    """ONNX: gates i, o, f, c. x: [T, B, C]."""
    hidden = r.shape[-1]
    wb, rb = b[:4 * hidden], b[4 * hidden:]

    def step(carry, xt):
        h, c = carry
        i, o, f, g = jnp.split(xt @ w.T + wb + h @ r.T + rb, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((x.shape[1], hidden))
    (h, c), y = lax.scan(step, (zero if h is None else h, zero if c is None else c), x, reverse=reverse)
    return y, h, c


def gru(x, w, r, b, linear_before_reset=1, reverse=False):
    """ONNX: gates z, r, h."""
    hidden = r.shape[-1]
    wz, wr, wh = jnp.split(w, 3)
    rz, rr, rh = jnp.split(r, 3)
    bz, br, bh, cz, cr, ch = jnp.split(b, 6)

    def step(h, xt):
        z = jax.nn.sigmoid(xt @ wz.T + h @ rz.T + bz + cz)
        q = jax.nn.sigmoid(xt @ wr.T + h @ rr.T + br + cr)
        n = xt @ wh.T + bh + q * (h @ rh.T + ch) if linear_before_reset else xt @ wh.T + (q * h) @ rh.T + ch + bh
        h = (1 - z) * jnp.tanh(n) + z * h
        return h, h

    h, y = lax.scan(step, jnp.zeros((x.shape[1], hidden)), x, reverse=reverse)
    return y, h


def recurrent(r):
    t, n, c, h = 5, 4, 3, 6

    def two_ways(x, w, rr, b):
        y0, h0, c0 = lstm(x, w[0], rr[0], b[0])
        y1, h1, c1 = lstm(x, w[1], rr[1], b[1], reverse=True)
        return jnp.stack([y0, y1], 1), jnp.stack([h0, h1]), jnp.stack([c0, c1])

    def one_way(x, w, rr, b):
        y, h, c = lstm(x, w[0], rr[0], b[0])
        return y[:, None], h[None], c[None]

    def gated(x, w, rr, b, linear=1):
        y, h = gru(x, w[0], rr[0], b[0], linear)
        return y[:, None], h[None]

    yield Case("LSTM", one_way, [r.f(t, n, c), r.f(1, 4 * h, c), r.f(1, 4 * h, h), r.f(1, 8 * h)], {"hidden_size": h}, outputs=3)
    yield Case("LSTM", two_ways, [r.f(t, n, c), r.f(2, 4 * h, c), r.f(2, 4 * h, h), r.f(2, 8 * h)],
               {"hidden_size": h, "direction": "bidirectional"}, outputs=3)
    for linear in (0, 1):
        yield Case("GRU", functools.partial(gated, linear=linear), [r.f(t, n, c), r.f(1, 3 * h, c), r.f(1, 3 * h, h), r.f(1, 6 * h)],
                   {"hidden_size": h, "linear_before_reset": linear}, outputs=2)


# ---- losses of our own, which no file can name: the tool puts them on what a model gives ----


def weighed_mean(loss, rows=None):
    """loss: a row each, then what else; each row counts as much as its weight says."""
    if rows is None:
        return loss.mean()
    share = jnp.broadcast_to(rows.reshape(-1, *([1] * (loss.ndim - 1))), loss.shape)
    return (loss * share).sum() / share.sum()


def class_loss(x, t, classes=None, rows=None, smoothing=0.0, ignore=-100):
    """As PyTorch's cross_entropy over the last axis."""
    logs, w = jax.nn.log_softmax(x, -1), jnp.ones(x.shape[-1]) if classes is None else classes
    y = jnp.where(t == ignore, 0, t)
    one = -jnp.take_along_axis(logs, y[..., None], -1)[..., 0] * w[y]
    loss = (1 - smoothing) * one - smoothing * (logs * w).mean(-1)
    share = jnp.where(t == ignore, 0, 1.0) * (1 if rows is None else rows.reshape(-1, *([1] * (t.ndim - 1))))
    return (loss * share).sum() / (share * w[y]).sum()


def sigmoid_loss(x, t, positive=None, rows=None, smoothing=0.0):
    t, w = t * (1 - smoothing) + smoothing / 2, 1 if positive is None else positive
    return weighed_mean(-t * jax.nn.log_sigmoid(x) * w - (1 - t) * jax.nn.log_sigmoid(-x), rows)


def difference_loss(of):
    return lambda x, t, columns=None, rows=None: weighed_mean(of(x - t) * (1 if columns is None else columns), rows)


def huber(e, delta=0.7):
    return jnp.where(jnp.abs(e) <= delta, e * e / 2, delta * (jnp.abs(e) - delta / 2))


def ranking_loss(x, relevance, groups, hinge=False, margin=1.0):
    gap = x[:, None] - x[None, :]
    pairs = (relevance[:, None] > relevance[None, :]) & (groups[:, None] == groups[None, :])
    loss = jnp.maximum(0, margin - gap) if hinge else jax.nn.softplus(-gap)
    return (loss * pairs).sum() / pairs.sum()


def distances(x):
    same = jnp.eye(len(x))  # a root has no gradient at 0
    return jnp.sqrt(((x[:, None] - x[None, :]) ** 2).sum(-1) + same) * (1 - same)


def triplet_loss(x, labels, at, margin=0.5):
    """Which row is the negative of a pair is found `at` these points; the gradient is that of the distances alone."""
    d, triplets = np.asarray(distances(at.astype(np.float64))), []
    for i in range(len(labels)):
        others = [n for n in range(len(labels)) if labels[n] != labels[i]]
        for j in range(len(labels)):
            if j == i or labels[j] != labels[i] or not others:
                continue
            farther = [n for n in others if d[i, n] > d[i, j]]
            triplets.append((i, j, min(farther, key=lambda n: d[i, n]) if farther else max(others, key=lambda n: d[i, n])))
    i, j, n = np.array(triplets).T
    now = distances(x)
    return jnp.maximum(0, now[i, j] - now[i, n] + margin).mean()


def own_cases(r):
    rows, classes, time, width = 9, 5, 4, 3
    x, t, w, s = r.f(rows, classes), r.i(classes, rows), r.f(classes, low=0.5, high=2), r.f(rows, low=0.1, high=3)
    ignored = t.copy()
    ignored[[1, 5]] = -100
    yield "SoftmaxCrossEntropy x t", class_loss, [x, t]
    yield "SoftmaxCrossEntropy x t c", class_loss, [x, ignored, w]
    yield "SoftmaxCrossEntropy x t c s label_smoothing=0.1", functools.partial(class_loss, smoothing=0.1), [x, ignored, w, s]
    yield "SoftmaxCrossEntropy x t - s", class_loss, [r.f(rows, time, classes), r.i(classes, rows, time), None, s]
    u = r.f(rows, width, low=0, high=1)
    for name, of in (("MeanSquaredError", difference_loss(jnp.square)), ("MeanAbsoluteError", difference_loss(jnp.abs)),
                     ("HuberLoss", difference_loss(huber)), ("SigmoidCrossEntropy", sigmoid_loss)):
        more = " delta=0.7" if name == "HuberLoss" else ""
        x, c = 2 * r.f(rows, width), r.f(width, low=0.5, high=2)
        yield f"{name} x t{more}", of, [x, u]
        yield f"{name} x t c{more}", of, [x, u, c]
        yield f"{name} x t c s{more}", of, [x, u, c, s]
        yield f"{name} x t - s{more}", of, [x, u, None, s]
    yield "SigmoidCrossEntropy x t label_smoothing=0.2", functools.partial(sigmoid_loss, smoothing=0.2), [x, u]
    relevance, groups = r.i(4, 24).astype(np.float32), np.sort(r.i(3, 24))
    yield "PairwiseRankingLoss x t c", ranking_loss, [r.f(24), relevance, groups]
    yield "PairwiseRankingLoss x t c hinge=1 margin=0.5", functools.partial(ranking_loss, hinge=True, margin=0.5), [r.f(24), relevance, groups]
    points = r.f(14, 6)
    yield "TripletLoss x t margin=0.5", functools.partial(triplet_loss, at=points), [points, r.i(3, 14)]


def check_own(text, fn, inputs):
    x, rest = inputs[0], inputs[1:]
    names = [("t", "c", "s")[i] for i, array in enumerate(rest) if array is not None]
    given = [array for array in rest if array is not None]
    nodes = [helper.make_node("Mul", ["p", "one"], ["x"])]
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(g.dtype), ["rows", *g.shape[1:]] if n == "t" else g.shape)
             for n, g in zip(names, given)]
    infos.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, []))
    model = model_of(nodes, infos, ["x"], [numpy_helper.from_array(x, "p")])
    wide = [g.astype(np.float64) if is_float(g) else g for g in rest if g is not None]
    every = iter(wide)
    args = [None if array is None else next(every) for array in rest]
    loss, gradient = jax.value_and_grad(lambda v: fn(v, *args))(jnp.asarray(x, dtype=jnp.float64))
    got, _, gradients = engine().gradients(model, [*given, np.float32(1)], text)
    assert abs(got - float(loss)) <= 2e-5 * max(1, abs(float(loss))), text
    close(gradients["p"], gradient, text, 1e-4)


OWN_CASES = list(own_cases(Random("own losses")))


@pytest.mark.parametrize("case", range(len(OWN_CASES)), ids=[case[0].replace(" ", "-") for case in OWN_CASES])
def test_own_loss(case):
    check_own(*OWN_CASES[case])


def test_each_own_loss_has_a_case():
    """Ops of our own that have a gradient, and are no gradients or parts of others, are losses."""
    losses = {op["name"] for op in engine().ops() if op["domain"] == "ai.dhow" and op["grad"]
              and op["name"].endswith(("Loss", "Error", "CrossEntropy"))}
    assert losses and losses <= {case[0].split()[0] for case in OWN_CASES}


# Gradients that are nothing: 0 nearly everywhere.
FLAT = {"Sign", "Floor", "Ceil", "Round"}
# Said by other means: CastLike is Cast, and Mod's gradient is the identity of its first input.
ELSEWHERE = {"CastLike", "Mod", "RandomUniformLike"}


@functools.cache
def all_cases():
    found = {}
    for make in (unary, binary, reductions, shapes, indices, products, images, resizes, norms, rotary, losses, recurrent):
        for case in make(Random(make.__name__)):
            if case.op != "Clip":
                found.setdefault(case.op, []).append(case)
    found["Clip"] = [clip_case(Random("clip"))]
    return found


def differentiable():
    return sorted(op["name"] for op in engine().ops() if op["domain"] == "" and op["grad"])


@pytest.mark.parametrize("op", differentiable())
def test_op(op):
    if op in FLAT | ELSEWHERE:
        pytest.skip("its gradient is 0 nearly everywhere, or another op's")
    assert op in all_cases(), f"{op} has a gradient and no case here"
    for case in all_cases()[op]:
        case.check(Random("weights " + op).g)
