# SPDX-License-Identifier: Apache-2.0
"""Tensors of every type over REST, as JSON and as bytes: a model that gives back what it took."""

import json
import socket
import struct

import numpy as np
import pytest
from onnx import TensorProto, helper

from conftest import eventually
from serving import model_of
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


# ---- bodies that come again on one connection: what is known of them changes no answer ----

def kept(daemon, path, bodies, **headers):
    """All bodies over one connection with one head but for the length: (status, answer) each."""
    host, port = daemon.url.removeprefix("http://").split(":")
    answers = []
    with socket.create_connection((host, int(port)), 10) as s:
        file = s.makefile("rb")
        for body in bodies:
            head = {"Host": f"{host}:{port}", "Authorization": f"Bearer {daemon.token}", "Content-Length": len(body), **headers}
            s.sendall(f"POST {path} HTTP/1.1\r\n".encode() + b"".join(f"{k}: {v}\r\n".encode() for k, v in head.items()) +
                      b"\r\n" + body)
            status = int(file.readline().split()[1])
            got = {k.lower(): v.strip() for k, _, v in (line.decode().partition(":") for line in iter(file.readline, b"\r\n"))}
            answers.append((status, file.read(int(got["content-length"])), got.get("inference-header-content-length")))
    return answers


def test_a_body_like_the_last_one_is_not_taken_for_it(daemon):
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    daemon.deploy_onnx("differ", model_of(nodes, {"a": ("FP32", ["N"]), "b": ("FP32", ["N"])}, {"y": ("FP32", ["N"])}))

    def body(a, b, n=2, extra="", name="b", tail=""):
        return (f'{{"inputs": [{{"name": "a", "shape": [{n}], "datatype": "FP32", "data": {a}}},'
                f'{{"name": "{name}", "shape": [{n}], "datatype": "FP32", "data": {b}}}]{extra}}}{tail}').encode()

    bodies = [body("[1,2]", "[3,5]")] * 4 + [
        body("[9,8]", "[7,6]"), body("[ 9 , 8]", "[[7,6]]"), body("[9,8,7]", "[7,6]"), body("[9,8]", "[7]"), body("[9,8]", "[7,x]"),
        body("[1,2]", "[3,5]", extra=',"id":"z"'), body("[1,2]", "[3,5]", name="c"), body("[1,2]", "[3,5]", tail="}"),
        body("[1,2]", "[3,5]", tail=" "), body("[1,2,3]", "[3,5,7]", n=3), body("[1,2]", "[3,5]", extra=',"id":"y"'), b"{}", b"",
        body("[1,2]", "[3,5]")[:-1], body('[1,2],"data":[1,2]', "[3,5]"), body("[1,2]", "[3,5]")]
    path = "/v2/models/differ/infer"
    alone = [daemon.http("POST", path, data=one) for one in bodies]
    assert {a.status_code for a in alone} == {200, 400} and alone[4].json()["outputs"][0]["data"] == [2, 2]
    for (status, text, _), one in zip(kept(daemon, path, bodies * 3), alone * 3):
        assert (status, json.loads(text)) == (one.status_code, one.json())


def test_binary_heads_come_again(daemon):
    nodes = [helper.make_node("Sub", ["a", "b"], ["y"])]
    daemon.deploy_onnx("differ2", model_of(nodes, {"a": ("FP32", ["N"]), "b": ("FP32", ["N"])}, {"y": ("FP32", ["N"])}))
    inputs = [{"name": name, "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": 8}} for name in "ab"]
    text = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    mixed = json.dumps({"inputs": [{**inputs[0]}, {"name": "b", "shape": [2], "datatype": "FP32", "data": [1, 1]}]}).encode()

    def ask(head, raws):
        return kept(daemon, "/v2/models/differ2/infer", [head + raw for raw in raws],
                    **{"Inference-Header-Content-Length": len(head)})

    whole = ask(text, [np.array([k, 2 * k, 1, 3], "<f4").tobytes() for k in range(6)])
    assert [np.frombuffer(g[int(n):], "<f4").tolist() for _, g, n in whole] == [[k - 1, 2 * k - 3] for k in range(6)]
    cut = ask(text, [bytes(n) for n in (16, 16, 16, 15, 17, 0, 16)])
    assert [status for status, _, _ in cut] == [200, 200, 200, 400, 400, 400, 200]
    half = ask(mixed, [np.array([k, 7], "<f4").tobytes() for k in range(5)])
    assert [json.loads(g)["outputs"][0]["data"] for _, g, _ in half] == [[k - 1, 6] for k in range(5)]


def test_recent_traces_are_read(daemon):
    daemon.deploy_onnx("traced", model_of([helper.make_node("Identity", ["x"], ["y"])], {"x": ("FP32", ["N"])}, {"y": ("FP32", ["N"])}))
    trace = "0af7651916cd43dd8448eb211c80319c"
    body = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}
    for sampled in "01":
        reply = daemon.http("POST", "/v2/models/traced/infer", json=body, headers={"traceparent": f"00-{trace}-b7ad6b7169203331-0{sampled}"})
        assert reply.status_code == 200
    told = [t for t in daemon.http("GET", "/v2/trace/recent").json() if t["trace"] == trace]
    assert len(told) == 1 and told[0]["deployment"] == "traced" and told[0]["parent"] == "b7ad6b7169203331"
    assert 0 <= told[0]["ready"] <= told[0]["started"] <= told[0]["ran"] <= told[0]["ended"]
    daemon.project("elsewhere")
    elsewhere = daemon.make_token(["admin"], project="elsewhere")["token"]
    assert daemon.http("GET", "/v2/trace/recent", token=elsewhere).json() == []  # others see theirs
