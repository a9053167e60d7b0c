# SPDX-License-Identifier: Apache-2.0
"""Models to measure with, the same ones every time: models.py FOLDER writes mlp.onnx (16-64-64-1), ten.onnx
(10-64-64-1), wide.onnx (64-1024-1024-8) and cnn.onnx (96×96×3, depthwise and pointwise convolutions as in MobileNet, 10 classes)."""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

random = np.random.default_rng(20)


class Graph:
    """A chain of nodes, each with the weights it brings."""

    def __init__(self, x):
        self.x, self.nodes, self.weights = x, [], []

    def weight(self, *shape, fan_in):
        return self.constant((random.standard_normal(shape) * (2 / fan_in) ** 0.5).astype(np.float32))

    def constant(self, value):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def then(self, op, *inputs, to=None, **more):
        to = to or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.x, *inputs], [to], **more))
        self.x = to

    def write(self, place, x, y):
        def value(name, *shape):
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])
        graph = helper.make_graph(self.nodes, place.stem, [value(*x)], [value(*y)], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        save(model, place)


def mlp(place, *widths):
    g = Graph("x")
    for layer, (a, b) in enumerate(zip(widths, widths[1:])):
        last = layer == len(widths) - 2
        g.then("Gemm", g.weight(a, b, fan_in=a), g.constant(np.zeros(b)), to="y" if last else None)
        if not last:
            g.then("Relu")
    g.write(place, ("x", widths[0]), ("y", widths[-1]))


def cnn(place):
    g = Graph("image")

    def conv(channels_in, channels, size, stride, groups):
        per_group = channels_in // groups
        g.then("Conv", g.weight(channels, per_group, size, size, fan_in=per_group * size * size),
               g.constant(np.zeros(channels)), kernel_shape=[size, size], strides=[stride, stride],
               pads=[size // 2] * 4, group=groups)
        g.then("Clip", zero, six)

    zero, six = g.constant(0), g.constant(6)
    conv(3, 16, 3, 2, 1)
    channels = 16
    for wanted, stride in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        conv(channels, channels, 3, stride, channels)
        conv(channels, wanted, 1, 1, 1)
        channels = wanted
    g.then("GlobalAveragePool")
    g.then("Flatten")
    g.then("Gemm", g.weight(channels, 10, fan_in=channels), g.constant(np.zeros(10)), to="logits")
    g.write(place, ("image", 3, 96, 96), ("logits", 10))


folder = Path(sys.argv[1])
mlp(folder / "mlp.onnx", 16, 64, 64, 1)
mlp(folder / "ten.onnx", 10, 64, 64, 1)
mlp(folder / "wide.onnx", 64, 1024, 1024, 8)
cnn(folder / "cnn.onnx")
