# SPDX-License-Identifier: Apache-2.0
"""ONNX's own backend node tests, for every op of the engine's table, on the engine's executor. They come from the onnx
package (its generators, not files); an op that is new in the table is tested without a line here."""

import functools
import re
import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from engine_tool import Engine, EngineError

# Cases that the engine refuses, and why. One that passes although it is listed fails the test.
SKIPS = [
    (r"FLOAT8|FLOAT4|INT4|INT2|UINT4|UINT2|_e8m0_", "elements narrower than a byte, and 8-bit floats, are not trained"),
    (r"resize.*(cubic|crop_and_resize|antialias)", "Resize is nearest or linear, without a window or antialiasing"),
    (r"resize_downsample_scales_linear_align_corners", "ONNX counts by the size before rounding; ONNX Runtime does not, either"),
    (r"maxpool_2d_uint8", "pools are of floats"),
    (r"training_dropout(_default|_mask|_default_mask)?$|bernoulli.*expanded", "random numbers differ from numpy's"),
    (r"range_(b?float16)", "Range counts in float, double and whole numbers"),
    (r"_sequence|_opt$|_optional|string|strings", "sequences, optionals and text are not tensors of numbers"),
]
# Chains in halves are rounded between their ops in both, not always to the same side: two steps of the type.
ROUNDING = {"float16": 2 * 2.0**-10, "bfloat16": 2 * 2.0**-7}
# Ops of the table that ONNX has no case of, or none that consists of known ops.
WITHOUT_CASES = {"RandomUniformLike"}


@functools.cache
def engine():
    return Engine()


@functools.cache
def table():
    return {op["name"] for op in engine().ops() if op["domain"] == ""}


@functools.cache
def cases():
    """By op: the cases whose nodes are all in the table; a model of several nodes counts for its name's op."""
    from onnx.backend.test.case.node import collect_testcases

    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            ops = [node.op_type for node in case.model.graph.node]
            if ops and set(ops) <= table() and not case.model.functions:
                found.setdefault(ops[0] if len(ops) == 1 else "several", []).append(case)
    return found


def frozen(model, inputs, keep):
    """The model with all inputs but `keep` as initialisers: the engine plans memory, so sizes must not come from data."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    names = [value.name for value in model.graph.input]
    for name, array in zip(names[keep:], inputs[keep:]):
        fixed.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    del fixed.graph.input[keep:]
    return fixed, inputs[:keep]


def arrays(values):
    return [numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in values]


def run(case, inputs):
    try:
        return engine().run(case.model, inputs)
    except EngineError as e:
        if "depends on the data" not in e.text:
            raise
    only_sizes = {"ConstantOfShape", "Range"} & {node.op_type for node in case.model.graph.node}
    return engine().run(*frozen(case.model, inputs, 0 if only_sizes else 1))


def compare(case, got, want):
    want, kind = np.asarray(want), got.dtype.name
    assert got.dtype == want.dtype and got.shape == want.shape, f"{got.dtype}{got.shape}, not {want.dtype}{want.shape}"
    if got.dtype.kind not in "biu":
        got, want = got.astype(np.float64), want.astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=max(case.rtol, ROUNDING.get(kind, 0)), atol=case.atol)


def outcome(case):
    """None, or what went wrong."""
    try:
        for inputs, outputs in case.data_sets:
            for got, want in zip(run(case, arrays(inputs)), arrays(outputs)):
                compare(case, got, want)
    except Exception as e:  # a crash of the tool, too, is this case's failure and nobody else's
        return f"{type(e).__name__}: {' '.join(str(e).split())[:300]}"
    return None


def reason(name):
    return next((why for pattern, why in SKIPS if re.search(pattern, name)), None)


def check(cases_of_op):
    wrong, passed, skipped = [], 0, {}
    for case in cases_of_op:
        failed, why = outcome(case), reason(case.name)
        if why and failed:
            skipped.setdefault(why, []).append(case.name)
        elif why:
            wrong.append(f"{case.name}: is in the list of what is not supported, and passes")
        elif failed:
            wrong.append(f"{case.name}: {failed}")
        else:
            passed += 1
    for why, names in skipped.items():
        print(f"skipped, {why}: {', '.join(names)}")
    print(f"{passed} passed")
    assert not wrong, "\n".join(wrong)
    return passed


@pytest.mark.parametrize("op", sorted(table()) + ["several"])
def test_cases_of(op):
    if op in WITHOUT_CASES:
        assert op not in cases(), "it has cases now"
        pytest.skip("ONNX has no node test of it")
    assert check(cases().get(op, [])) > 0
