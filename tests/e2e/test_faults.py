# SPDX-License-Identifier: Apache-2.0
"""When things go wrong: one clear error that names the thing, and the daemon goes on."""

import json
import os
import socket
import subprocess
import time

import duckdb
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import flights
from conftest import AIRPORTS, eventually

PATH = "/api/v1/projects/default/pipelines/x"
INFER = "/v2/models/any/infer"


@pytest.fixture(autouse=True)
def goes_on(request):
    """After each test the module's daemon still answers, and is the same process."""
    if "daemon" not in request.fixturenames:
        yield
        return
    one = request.getfixturevalue("daemon")
    pid = one.pid
    yield
    assert one.alive() and one.pid == pid
    assert one.http("GET", "/healthz", token=None).status_code == 200
    assert one.put("Pipeline", "alive", {"steps": [{"name": "s", "uses": "command"}]}).ok


def send(daemon, method, path, body, **headers):
    return daemon.http(method, path, data=body, headers={"Content-Type": "application/json", **headers})


# ---- bodies ----

@pytest.mark.parametrize("body", [
    b"", b"{", b"[1,2", b'{"a":}', b"nul", b"{'a': 1}", b'{"a": 1,}', b"\xff\xfe{}", b'{"a": "\xc3\x28"}', b'{"a": 1e400}',
    b'{"a": 01}', b'{"a": "\\ud800"}', b'{"a": "tab\there"}', b'{"a":1}{"b":2}', b"\xef\xbb\xbf{}", b"\x00",
], ids=repr)
@pytest.mark.parametrize("method, path", [("PUT", PATH), ("POST", "/api/v1/tokens"), ("POST", INFER),
                                          ("POST", "/api/v1/projects/default/datasets/any/push")])
def test_a_malformed_body_is_refused(daemon, method, path, body):
    reply = send(daemon, method, path, body)
    assert reply.status_code in (400, 404), reply.text
    answer = reply.json()
    assert (answer.get("detail") or answer.get("error"))


@pytest.mark.parametrize("opening, closing", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("method, path", [("PUT", PATH), ("POST", "/api/v1/tokens"), ("POST", INFER)])
def test_deep_json_is_refused(daemon, method, path, opening, closing):
    for depth in (100_000, 200_000):
        body = opening * depth + b"1" + closing * depth
        reply = send(daemon, method, path, body)
        assert reply.status_code in (400, 404, 413), reply.status_code
        assert len(reply.content) < 2000


def test_deep_json_inside_a_field_is_refused(daemon):
    body = b'{"apiVersion":"dhow/v1","kind":"Pipeline","metadata":{"name":"x"},"spec":{"steps":[{"name":"s","uses":"command","with":' \
        + b"[" * 100_000 + b"]" * 100_000 + b"}]}}"
    reply = send(daemon, "PUT", PATH, body)
    assert reply.status_code == 413 and "nested" in reply.json()["detail"], reply.text
    yaml = "kind: Pipeline\nmetadata: {name: x}\nspec: " + "[" * 50_000 + "]" * 50_000
    told = daemon.cli("apply", "-f", "-", input=yaml)
    assert told.code == 2 and told.err.startswith("error: ")


def test_a_yaml_bomb_is_refused(daemon):
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9))
    began = time.monotonic()
    told = daemon.cli("apply", "-f", "-", input=bomb)
    assert told.code == 2 and time.monotonic() - began < 5


def test_a_huge_body_is_refused(daemon):
    before = daemon.rss_mb()
    for path in (PATH, INFER):
        reply = send(daemon, "PUT" if path == PATH else "POST", path, b'{"a":"' + b"x" * (70 << 20) + b'"}')
        assert reply.status_code == 413
    assert daemon.rss_mb() - before < 200
    body = json.dumps({"apiVersion": "dhow/v1", "kind": "Pipeline", "metadata": {"name": "x"},
                       "spec": {"doc": "y" * 3_000_000, "steps": [{"name": "s", "uses": "command"}]}})
    assert send(daemon, "PUT", PATH, body).status_code in (200, 201, 400, 413)


def exchange(daemon, *parts, wait=0.0):
    """Raw bytes to the daemon; what comes back."""
    host, port = daemon.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as s:
        s.settimeout(10)
        for part in parts:
            try:
                s.sendall(part)
            except OSError:         # it hung up already
                break
            time.sleep(wait)
        out = b""
        try:
            while chunk := s.recv(65536):
                out += chunk
                if b"\r\n\r\n" in out and b"Connection: close" not in parts[0]:
                    break
        except OSError:
            pass
    return out


@pytest.mark.parametrize("name, request_bytes", [
    ("no HTTP", b"hello\r\n\r\n"),
    ("two lengths", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    ("length and chunks", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("negative length", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n"),
    ("absurd length", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000000\r\n\r\nx"),
    ("bad chunk", b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
    ("many headers", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(2000)) + b"\r\n"),
    ("long header", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 300_000 + b"\r\n\r\n"),
    ("long path", b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("NUL in header", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"),
    ("no host", b"GET /healthz HTTP/1.1\r\n\r\n"),
])
def test_bad_http_is_refused(daemon, name, request_bytes):
    reply = exchange(daemon, request_bytes)
    assert not reply or reply.split(b" ")[1][:1] == b"4", (name, reply[:100])


def test_a_slow_client_holds_nobody_up(daemon):
    host, port = daemon.url.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port))) for _ in range(100)]
    for s in slow:
        s.sendall(b"POST /v2/models/any/infer HTTP/1.1\r\nHost: localhost\r\nContent-Le")
    began = time.monotonic()
    for _ in range(20):
        assert daemon.http("GET", "/api/v1/whoami").status_code == 200
    assert time.monotonic() - began < 2
    for s in slow:
        s.close()


# ---- data ----

def dataset(daemon, name, file, form="parquet", query=None, **spec):
    daemon.put("Source", name, {"path": file, "format": form})
    made = daemon.put("Dataset", name, {"sources": [name], "query": query or f"SELECT id, moment, value FROM {name}",
                                        "id": "id", "eventTime": "moment", **spec})
    assert made.ok, made.text
    assert daemon.put("Job", f"ingest-{name}", {"type": "ingest", "with": {"dataset": name}, "timeout": "60s"}).ok
    return daemon.wait_over("jobs", f"ingest-{name}")["status"]


def good_parquet(path, rows=50_000):
    duckdb.connect().execute(f"""copy (select i as id, timestamp '2001-01-01' + to_seconds(i) as moment, (i * 7919) % 1000 / 8 as value
                                 from range({rows}) t(i)) to '{path}' (format parquet)""")
    return path


def test_a_good_file_is_taken(daemon):
    good_parquet(daemon.sources / "good.parquet")
    status = dataset(daemon, "good", "good.parquet")
    assert status["phase"] == "succeeded" and json.loads(status["result"] if isinstance(status["result"], str) else
                                                          json.dumps(status["result"]))["version"] == "good.1"


def no_version(daemon, name):
    return not [v for v in daemon.get("datasetversions")["items"] if v["spec"]["of"] == f"Dataset/{name}"]


@pytest.mark.parametrize("name, damage", [
    ("truncated", lambda b: b[: len(b) // 2]),
    ("headless", lambda b: b"XXXX" + b[4:-4] + b"XXXX"),
    ("empty", lambda b: b""),
    ("words", lambda b: b"This is no Parquet file.\n" * 100),
    ("footless", lambda b: b[:-200] + os.urandom(192) + b[-8:]),
    ("rotten", lambda b: b[:1000] + os.urandom(len(b) // 3) + b[1000 + len(b) // 3:]),
])
def test_a_damaged_file_is_named(daemon, name, damage):
    whole = good_parquet(daemon.sources / f"{name}-whole.parquet").read_bytes()
    (daemon.sources / f"{name}.parquet").write_bytes(damage(whole))
    status = dataset(daemon, name, f"{name}.parquet")
    assert status["phase"] == "failed", status
    assert f"{name}.parquet" in status["reason"], status["reason"]
    assert status.get("attempts") == 1, "nothing is gained by another try"
    assert no_version(daemon, name)


def test_a_wrong_column_type_is_named(daemon):
    duckdb.connect().execute(f"""copy (select i as id, timestamp '2001-01-01' + to_seconds(i) as moment, 'many' as value
                                 from range(10) t(i)) to '{daemon.sources}/typed.parquet' (format parquet)""")
    status = dataset(daemon, "typed", "typed.parquet", expect=[{"rule": "schema", "columns": {"value": "DOUBLE"}}])
    assert status["phase"] == "failed"
    assert "value" in status["reason"] and "VARCHAR" in status["reason"] and "DOUBLE" in status["reason"], status["reason"]
    assert no_version(daemon, "typed")


def test_a_query_that_does_not_fit_the_types_names_file_and_column(daemon):
    duckdb.connect().execute(f"""copy (select i as id, timestamp '2001-01-01' + to_seconds(i) as moment, 'many' as value
                                 from range(10) t(i)) to '{daemon.sources}/added.parquet' (format parquet)""")
    status = dataset(daemon, "added", "added.parquet", query="SELECT id, moment, CAST(value AS DOUBLE) + 1 AS value FROM added")
    assert status["phase"] == "failed"
    assert "added.parquet" in status["reason"] and "value" in status["reason"] and "VARCHAR" in status["reason"]


def test_a_column_that_is_not_there_is_named(daemon):
    good_parquet(daemon.sources / "lacking.parquet", 10)
    status = dataset(daemon, "lacking", "lacking.parquet", query="SELECT id, moment, worth FROM lacking")
    assert status["phase"] == "failed" and "worth" in status["reason"]


def test_a_missing_file_is_named(daemon):
    status = dataset(daemon, "gone", "gone.parquet")
    assert status["phase"] == "failed" and "gone.parquet" in status["reason"]


@pytest.mark.parametrize("path", ["../secret.parquet", "/etc/passwd", "a/../../x", "..", "a//b", ""])
def test_a_source_stays_in_its_folder(daemon, path):
    reply = daemon.put("Source", "escape", {"path": path, "format": "csv"})
    assert reply.status_code == 400 and "path" in reply.text, path


def test_a_link_out_of_the_folder_is_refused(daemon, tmp_path):
    outside = good_parquet(tmp_path / "outside.parquet", 10)
    (daemon.sources / "link.parquet").symlink_to(outside)
    status = dataset(daemon, "link", "link.parquet")
    assert status["phase"] == "failed" and "link" in status["reason"]


@pytest.mark.parametrize("query", [
    "SELECT * FROM read_csv('/etc/passwd')", "COPY q TO '/tmp/x'", "SELECT 1; SELECT 2", "ATTACH '/tmp/x.db'",
    "SELECT id, moment, value FROM read_parquet('{}/data/meta.db')", "INSTALL httpfs", "SELECT getenv('HOME') AS id",
    "SELECT * FROM '/etc/hostname'", "PRAGMA version", "SELECT * FROM glob('/*')"])
def test_a_query_reads_its_sources_only(daemon, query):
    """SQL of an editor runs on the machine's files: only its own sources may be among them."""
    good_parquet(daemon.sources / "q.parquet", 10)
    daemon.put("Source", "q", {"path": "q.parquet", "format": "parquet"})
    name = f"q{abs(hash(query)) % 10**8}"
    made = daemon.put("Dataset", name, {"sources": ["q"], "query": query.replace("{}", str(daemon.folder)), "id": "id",
                                        "eventTime": "moment"})
    if made.status_code == 400:
        return
    assert daemon.put("Job", f"ingest-{name}", {"type": "ingest", "with": {"dataset": name}, "timeout": "60s"}).ok
    assert daemon.wait_over("jobs", f"ingest-{name}")["status"]["phase"] == "failed"
    assert no_version(daemon, name)


def test_a_broken_rule_stops_the_batch_and_says_which(daemon):
    good_parquet(daemon.sources / "ruled.parquet", 1000)
    status = dataset(daemon, "ruled", "ruled.parquet", expect=[
        {"rule": "range", "column": "value", "max": 100, "name": "not_too_much"}, {"rule": "notNull", "columnNames": ["id"]}])
    assert status["phase"] == "failed" and "not_too_much" in status["reason"]
    assert "notNull" not in status["reason"]
    assert no_version(daemon, "ruled")


def test_a_rule_about_a_column_that_is_not_there(daemon):
    good_parquet(daemon.sources / "misruled.parquet", 10)
    status = dataset(daemon, "misruled", "misruled.parquet", expect=[{"rule": "range", "column": "vaule", "max": 1}])
    assert status["phase"] == "failed" and "vaule" in status["reason"]


# ---- libraries ----

def test_without_duckdb_an_ingest_says_what_to_do(fresh):
    one = fresh(env={"DHOW_DUCKDB_LIB": "/nowhere/libduckdb.so"})
    good_parquet(one.sources / "x.parquet", 10)
    status = dataset(one, "x", "x.parquet")
    assert status["phase"] == "failed" and "/nowhere/libduckdb.so" in status["reason"]
    assert "DHOW_DUCKDB_LIB" in one.ok("logs", "ingest-x").out
    assert one.http("GET", "/healthz").status_code == 200


def small_model(op="Sigmoid", shape=("N", 3), name="x", **more):
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3, 1], np.array([0.5, -1, 2], dtype=np.float32).tolist())
    graph = helper.make_graph([helper.make_node("MatMul", [name, "w"], ["s"]), helper.make_node(op, ["s"], ["y"], **more)],
                              "small", [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def upload(daemon, model, name="foreign"):
    data = model if isinstance(model, bytes) else model.SerializeToString()
    daemon.put("Model", name, {})
    return daemon.http("POST", daemon.path("models", name, "upload"), data=data,
                       headers={"Content-Type": "application/octet-stream"})


def deploy(daemon, version, name):
    """Lets it through a gate, then serves it."""
    daemon.ok("apply", "-f", "-", input=flights.pipeline(f"pass-{name}", ("gate", "gate", {
        "model": name, "version": version, "metrics": {"auc": 0.9}, "bounds": [{"metric": "auc", "min": 0.5}]})))
    daemon.ok("run", f"pass-{name}")
    assert daemon.put("Deployment", name, {"model": name, "version": version}).ok


def test_without_onnx_runtime_a_deployment_says_so(fresh):
    one = fresh(env={"DHOW_ORT_LIB": "/nowhere/libonnxruntime.so"})
    version = upload(one, small_model()).json()["version"]
    deploy(one, version, "foreign")
    told = eventually(lambda: (s := one.get("deployments", "foreign").get("status", {})) and
                      s.get("phase") == "failed" and s, 15, what="a failed deployment")
    assert "/nowhere/libonnxruntime.so" in json.dumps(told)
    reply = one.http("POST", "/v2/models/foreign/infer", json={"inputs": []})
    assert reply.status_code == 503 and one.http("GET", "/healthz").status_code == 200


def test_without_xgboost_a_training_says_so(trained):
    """The library is looked for by the job, so the job is told another place."""
    one = trained
    name = f"blind-{int(time.time())}"
    reply = one.put("Job", name, {"type": "train", "env": {"DHOW_XGBOOST_LIB": "/nowhere/libxgboost.so"},
                                  "with": {"rows": "late_rows.1", "holdout": "14d", "model": {"trees": {"rounds": 2}}}})
    assert reply.ok, reply.text
    status = one.wait_over("jobs", name)["status"]
    assert status["phase"] == "failed" and "/nowhere/libxgboost.so" in status["reason"], status


# ---- models ----

def test_a_good_model_is_taken_and_served(daemon):
    reply = upload(daemon, small_model())
    assert reply.status_code == 201, reply.text
    deploy(daemon, reply.json()["version"], "foreign")
    eventually(lambda: daemon.http("GET", "/v2/models/foreign/ready").status_code == 200, 15, what="the deployment")
    x = [[1, 2, 3], [0, 0, 0]]
    answer = daemon.http("POST", "/v2/models/foreign/infer",
                         json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 3], "data": x}]}).json()
    wanted = 1 / (1 + np.exp(-(np.array(x) @ np.array([0.5, -1, 2]))))
    assert np.allclose(answer["outputs"][0]["data"], wanted, atol=1e-6)


def external(location):
    model = small_model()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return model


def foreign_domain():
    model = small_model()
    model.graph.node[1].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))
    return model


def absurd(dims):
    model = small_model()
    model.graph.initializer[0].ClearField("dims")
    model.graph.initializer[0].dims.extend(dims)
    return model


def hidden_in_a_subgraph():
    inner = helper.make_graph([helper.make_node("Identity", ["e"], ["o"])], "inner", [],
                              [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
                              [external("../secret.bin").graph.initializer[0]])
    inner.initializer[0].name = "e"
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


HOSTILE = {
    "external data": (external("../secret.bin"), "external"),
    "external data by an absolute path": (external("/etc/passwd"), "external"),
    "external data inside a branch": (hidden_in_a_subgraph(), "external"),
    "an unknown domain": (foreign_domain(), "com.evil"),
    "more bytes claimed than there are": (absurd([1 << 20, 1 << 20]), "w"),
    "a product that overflows": (absurd([1 << 40, 1 << 40]), "w"),
    "a negative size": (absurd([-3, -1]), "w"),
    "random bytes": (os.urandom(10_000), ""),
    "half a model": (small_model().SerializeToString()[:-40], ""),
    "words": (b"This is no ONNX model. " * 50, ""),
    "a length that overflows": (b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", ""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_model_is_refused(daemon, name):
    model, word = HOSTILE[name]
    before = len(daemon.get("modelversions")["items"])
    reply = upload(daemon, model)
    assert reply.status_code in (400, 413), f"{name}: {reply.status_code} {reply.text}"
    assert word in reply.json()["detail"], reply.json()
    assert len(daemon.get("modelversions")["items"]) == before


def test_an_empty_upload_and_a_wrong_type_are_refused(daemon):
    assert upload(daemon, b"").status_code == 400
    assert daemon.http("POST", daemon.path("models", "foreign", "upload"), json={}).status_code == 415
    assert daemon.http("POST", daemon.path("models", "never-made", "upload"), data=small_model().SerializeToString(),
                       headers={"Content-Type": "application/octet-stream"}).status_code == 404


def test_a_model_that_asks_for_a_terabyte_fails_its_request_only(daemon):
    """ConstantOfShape [2^20, 2^20] is a small file."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [1 << 20, 1 << 20])
    graph = helper.make_graph([helper.make_node("ConstantOfShape", ["shape"], ["big"]),
                               helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
                               helper.make_node("Add", ["x", "sum"], ["y"])], "big",
                              [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=9)
    reply = upload(daemon, model, "greedy")
    if reply.status_code != 201:
        return
    deploy(daemon, reply.json()["version"], "greedy")
    time.sleep(1)
    reply = daemon.http("POST", "/v2/models/greedy/infer",
                        json={"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1]}]})
    assert reply.status_code >= 400, reply.text


SIGMOID = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}


@pytest.mark.parametrize("change", [
    {"shape": [1, 4]}, {"shape": [2, 3]}, {"shape": [-1, 3]}, {"shape": [1 << 62, 16]}, {"shape": [0, 3]}, {"shape": [1] * 1000},
    {"shape": [1.5, 2]}, {"shape": "1,3"}, {"shape": []}, {"datatype": "FP31"}, {"datatype": "INT64"}, {"datatype": "BYTES"},
    {"data": [1, 2]}, {"data": [1, 2, 3, 4]}, {"data": [1, 2, "3"]}, {"data": [1, 2, {}]}, {"data": [1, 2, 1e39]}, {"data": None},
    {"data": "AAAA"}, {"name": "nobody"}, {"name": "x" * 5000}, {"name": "x\0y"},
], ids=lambda c: json.dumps(c)[:40])
def test_a_wrong_tensor_is_400(daemon, change):
    if daemon.http("GET", "/v2/models/foreign/ready").status_code != 200:
        test_a_good_model_is_taken_and_served(daemon)
    reply = daemon.http("POST", "/v2/models/foreign/infer", json={"inputs": [{**SIGMOID, **change}]})
    assert reply.status_code in ((200, 400) if change == {"shape": [0, 3]} else (400,)), f"{reply.status_code} {reply.text[:200]}"
    assert set(reply.json()) == {"error"} and len(reply.text) < 1000


def test_wrong_inference_requests_are_400(daemon):
    if daemon.http("GET", "/v2/models/foreign/ready").status_code != 200:
        test_a_good_model_is_taken_and_served(daemon)
    for body in ({}, [], {"inputs": []}, {"inputs": {}}, {"inputs": [SIGMOID, SIGMOID]}, {"inputs": [SIGMOID], "outputs": [{"name": "z"}]},
                 {"inputs": [SIGMOID], "outputs": [{"name": "y"}] * 100_000}, {"inputs": [SIGMOID], "parameters": 3},
                 {"inputs": [SIGMOID], "entities": {}}, {"inputs": [SIGMOID], "id": 5}, {"entities": {"a": [1]}},
                 {"inputs": [SIGMOID], "ids": ["a", "b"]}):
        reply = daemon.http("POST", "/v2/models/foreign/infer", json=body)
        assert reply.status_code in (400, 413, 503), f"{str(body)[:80]}: {reply.status_code} {reply.text[:200]}"
        assert set(reply.json()) == {"error"}
    for name in ("..", "%2e%2e%2fetc", "%00", "a" * 4000, "FOREIGN"):
        reply = daemon.http("POST", f"/v2/models/{name}/infer", json={"inputs": [SIGMOID]})
        assert reply.status_code in (400, 404, 405, 414), name


# ---- the disk ----

@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_is_one_clear_error_and_no_loss(fresh, small_disk):
    one = fresh.unstarted()
    one.data = small_disk / "data"
    one.start()
    written = []

    def read(name):
        return one.get("pipelines", name)["spec"]["steps"][0]["with"]["text"]

    def write(number):
        text = os.urandom(8192).hex()
        reply = one.put("Pipeline", f"p{number:05}", {"steps": [{"name": "s", "uses": "command", "with": {"text": text}}]})
        if reply.ok:
            written.append((f"p{number:05}", text))
        return reply

    refused = None
    for i in range(6000):
        reply = write(i)
        if not reply.ok:
            refused = reply
            break
    assert refused is not None, "the disk never was full"
    assert refused.status_code == 507 and refused.json()["code"] == "FULL", refused.text
    assert one.http("GET", "/healthz", token=None).status_code == 200
    assert read(written[0][0]) == written[0][1], "reading goes on"
    subprocess.run(["mount", "-o", "remount,size=160m", str(small_disk)], check=True)
    eventually(lambda: write(9000).ok, 10, 0.2, "a write after there was room again")
    one.kill()
    one.start()
    for name, text in written[:: max(1, len(written) // 200)] + written[-5:]:
        assert read(name) == text
    assert one.http("GET", "/api/v1/audit/verify").json()["ok"]
    one.stop()


def test_a_job_on_a_full_disk_fails_and_says_so(fresh, small_disk):
    one = fresh.unstarted()
    one.data = small_disk / "data"
    one.start()
    good_parquet(one.sources / "large.parquet", 6_000_000)
    status = dataset(one, "large", "large.parquet", query="SELECT id, moment, hash(id) AS value, hash(id + 1) AS v2, hash(id+2) AS v3 FROM large")
    assert status["phase"] == "failed", status
    assert "space" in status["reason"].lower() or "disk" in status["reason"].lower(), status["reason"]
    assert no_version(one, "large")
    assert one.http("GET", "/healthz", token=None).status_code == 200
    used = subprocess.run(["du", "-sm", str(small_disk)], capture_output=True, text=True).stdout.split()[0]
    assert int(used) < 45, f"{used} MB are left over from a job that failed"
    one.stop()


def test_a_damaged_file_in_the_store_is_found_and_never_used(fresh):
    one = fresh()
    version = upload(one, small_model()).json()["version"]
    made = one.get("modelversions", version)
    path = flights.blob(one, made["spec"]["onnx"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    told = one.cli("doctor", "--data", str(one.data))
    assert told.code == 1 and f"first: {made['spec']['onnx']}" in told.out, told
    deploy(one, version, "foreign")
    status = eventually(lambda: (s := one.get("deployments", "foreign").get("status", {})).get("phase") == "failed" and s, 15,
                        what="a failed deployment")
    assert "damaged" in status["message"], status
    assert one.http("GET", "/healthz", token=None).status_code == 200


def test_a_wrong_token_everywhere(daemon):
    for method, path in (("GET", "/api/v1/whoami"), ("PUT", PATH), ("POST", INFER), ("GET", "/metrics")):
        reply = daemon.http(method, path, token="dhow_000000000000_" + "A" * 43)
        assert reply.status_code == 401
    assert AIRPORTS.exists()
