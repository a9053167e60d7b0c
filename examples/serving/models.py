#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Three small models for docs/guides/serving-at-scale.md, as ONNX files: models.py FOLDER. Wants the Python package onnx;
`make setup` leaves one in .deps/venv.

price   a network of 8 features, 256 hidden units, one number a row
band    turns that number into a class of three
meter   adds what it is given to what it was given before: a state"""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def model(nodes, inputs, outputs, weights):
    """Every tensor is float rows; inputs and outputs are {name: columns}."""
    def rows(side):
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", n]) for name, n in side.items()]
    made = helper.make_graph([helper.make_node(op, ins, outs, **more) for op, ins, outs, more in nodes], "g", rows(inputs),
                             rows(outputs), [numpy_helper.from_array(np.float32(w), name) for name, w in weights.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def price():
    random = np.random.default_rng(1)
    return model([("Gemm", ["x", "w0", "b0"], ["h"], {}), ("Relu", ["h"], ["r"], {}), ("Gemm", ["r", "w1", "b1"], ["price"], {})],
                 {"x": 8}, {"price": 1},
                 {"w0": random.standard_normal((8, 256)) / 3, "b0": np.zeros(256), "w1": random.standard_normal((256, 1)) / 16,
                  "b1": [5]})


def band():
    return model([("Gemm", ["price", "w", "b"], ["z"], {}), ("Softmax", ["z"], ["band"], {"axis": 1})],
                 {"price": 1}, {"band": 3}, {"w": [[-1, 0, 1]], "b": [5, 1, -5]})


def meter():
    return model([("Add", ["used", "before"], ["total"], {}), ("Identity", ["total"], ["after"], {})],
                 {"used": 1, "before": 1}, {"total": 1, "after": 1}, {})


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in (price, band, meter):
        (folder / f"{make.__name__}.onnx").write_bytes(make().SerializeToString())
