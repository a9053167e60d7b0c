# SPDX-License-Identifier: Apache-2.0
"""Tensors of every type over REST, as JSON and as bytes: a model that gives back what it took."""

import json
import struct

import numpy as np
import pytest
from onnx import TensorProto, helper

from conftest import eventually
from test_faults import deploy, upload

TYPES = {  # the protocol's name: ONNX's, and the bytes and the JSON of two elements
    "FP32": (TensorProto.FLOAT, np.array([0.1, -1e-40], "<f4")), "FP64": (TensorProto.DOUBLE, np.array([1 / 3, 1e300], "<f8")),
    "FP16": (TensorProto.FLOAT16, np.array([0.5, -2], "<f2")), "BF16": (TensorProto.BFLOAT16, np.array([0x3F80, 0xC000], "<u2")),
    "BOOL": (TensorProto.BOOL, np.array([True, False])),
    **{f"{u}INT{b}": (getattr(TensorProto, f"{u}INT{b}"), np.array([np.iinfo(f"{u}int{b}".lower()).min, 77], f"{u}int{b}".lower()))
       for u in ("", "U") for b in (8, 16, 32, 64)},
}


@pytest.fixture(scope="module")
def echo(daemon):
    """The function asks the model that gives back its input of a type."""
    ready = set()

    def ask(type_, number, head, raw=b"", headers=()):
        name = f"echo-{type_.lower()}"
        if name not in ready:
            infos = [helper.make_tensor_value_info(n, number, ["N"]) for n in "xy"]
            graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "echo", infos[:1], infos[1:])
            model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
            deploy(daemon, upload(daemon, model, name).json()["version"], name)
            eventually(lambda: daemon.http("GET", f"/v2/models/{name}/ready").status_code == 200, 15, what=name)
            ready.add(name)
        text = json.dumps(head).encode()
        length = {"Inference-Header-Content-Length": str(len(text))} if raw else {}
        return daemon.http("POST", f"/v2/models/{name}/infer", data=text + raw, headers={**length, **dict(headers)})

    return ask


def head(type_, n, data=None, size=None, binary=False):
    x = {"name": "x", "datatype": type_, "shape": [n]}
    x.update({"data": data} if size is None else {"parameters": {"binary_data_size": size}})
    return {"inputs": [x], "parameters": {"binary_data_output": binary}}


def raw_of(reply):
    assert reply.status_code == 200, reply.text
    n = int(reply.headers["Inference-Header-Content-Length"])
    assert json.loads(reply.content[:n])["outputs"][0]["parameters"]["binary_data_size"] == len(reply.content) - n
    return reply.content[n:]


@pytest.mark.parametrize("type_", TYPES)
def test_what_goes_in_comes_out_bit_for_bit(echo, type_):
    number, values = TYPES[type_]
    raw = values.tobytes()
    assert raw_of(echo(type_, number, head(type_, 2, size=len(raw), binary=True), raw)) == raw
    asked = echo(type_, number, head(type_, 2, size=len(raw)), raw)
    sent = echo(type_, number, head(type_, 2, data=values.tolist(), binary=True))
    if type_ in ("FP16", "BF16"):
        assert asked.status_code == 400 and f"sending {type_} data via JSON is not supported" in asked.json()["error"]
        assert sent.status_code == 400 and f"receiving {type_} data via JSON is not supported" in sent.json()["error"]
        return
    assert raw_of(sent) == raw
    assert np.array(asked.json()["outputs"][0]["data"], values.dtype).tobytes() == raw


def test_texts_go_both_ways(echo):
    texts = ["", "plain", "quote \" and \\ and \n", "é😀"]
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in texts)
    assert raw_of(echo("BYTES", TensorProto.STRING, head("BYTES", 4, size=len(raw), binary=True), raw)) == raw
    assert raw_of(echo("BYTES", TensorProto.STRING, head("BYTES", 4, data=texts, binary=True))) == raw
    assert echo("BYTES", TensorProto.STRING, head("BYTES", 4, size=len(raw)), raw).json()["outputs"][0]["data"] == texts


def test_a_text_alone_is_a_body(echo, daemon):
    echo("BYTES", TensorProto.STRING, head("BYTES", 1, data=["x"]))
    reply = daemon.http("POST", "/v2/models/echo-bytes/infer", data=b"a text", headers={"Inference-Header-Content-Length": "0"})
    assert raw_of(reply) == struct.pack("<I", 6) + b"a text"
