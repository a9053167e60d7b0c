# SPDX-License-Identifier: Apache-2.0
"""Other people's clients, unchanged: tritonclient over HTTP (blocking, with futures, asyncio) and gRPC, bare grpcio, curl. The
same tests run against a real Triton by ORACLE=triton (`make test-peers`): what they ask for is its behaviour, not our idea of it."""

import asyncio
import json
import queue
import struct
import subprocess
import threading

import grpc
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_aio
from conftest import eventually
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from serving import ORACLE, Dhow, Triton, linear, same, slow, sum_and_difference
from tritonclient.utils import InferenceServerException

MODEL, W, B = linear()
X = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
Y = X @ W + B
DTYPES = {"BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
          "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64}
EXTENSIONS = {"classification", "sequence", "model_repository", "schedule_policy", "model_configuration",
              "binary_tensor_data", "parameters", "statistics", "trace", "logging"}
dhow_only = pytest.mark.skipif(bool(ORACLE), reason="says something about dhow alone")


def close(got, wanted, tolerance=1e-6):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=tolerance)


@pytest.fixture(scope="module")
def server(request, tmp_path_factory):
    if ORACLE:
        one = Triton(tmp_path_factory.mktemp("triton") / "t")
    else:
        one = Dhow(request.getfixturevalue("daemon"))
    one.deploy("linear", MODEL, batch=64)
    one.deploy("pair", sum_and_difference())
    one.deploy("text", same("BYTES"))
    yield one
    one.stop()


class Client:
    """tritonclient's HTTP and gRPC clients alike; what they return is a dict."""

    def __init__(self, server, how):
        self.server, self.how = server, how
        self.of = triton_grpc if how == "grpc" else triton_http
        self.client = self.of.InferenceServerClient(server.grpc if how == "grpc" else server.rest)

    def __getattr__(self, call):
        more = {"as_json": True} if self.how == "grpc" and call.startswith(("get_", "update_")) else {}

        def asked(*args, **named):
            return getattr(self.client, call)(*args, **more, headers=self.server.headers, **named)
        return asked

    def input(self, name, kind, value, binary=True):
        one = self.of.InferInput(name, list(value.shape), kind)
        return one.set_data_from_numpy(value) if self.how == "grpc" else one.set_data_from_numpy(value, binary_data=binary)

    def output(self, name, binary=True, **more):
        return self.of.InferRequestedOutput(name, **more, **({} if self.how == "grpc" else {"binary_data": binary}))

    def linear(self, x=X, binary=True, outputs=None, **more):
        return self.infer("linear", [self.input("x", "FP32", x, binary)], outputs=outputs, **more)


@pytest.fixture(params=["http", "grpc"])
def client(request, server):
    one = Client(server, request.param)
    yield one
    one.client.close()


def refused(call, *args, **more):
    """What a call is refused with: (status, message)."""
    with pytest.raises(InferenceServerException) as caught:
        call(*args, **more)
    return str(caught.value.status()), caught.value.message()


# ---- what is there ----

def test_a_running_server_is_live_and_ready(client):
    assert client.is_server_live() and client.is_server_ready()


def test_the_server_names_its_extensions(client):
    told = client.get_server_metadata()
    assert told["name"] and told["version"]
    assert EXTENSIONS <= {name.partition("(")[0] for name in told["extensions"]}


def test_a_deployed_model_is_ready_and_an_unknown_one_is_not(client):
    assert client.is_model_ready("linear") and client.is_model_ready("linear", "1")
    assert not client.is_model_ready("nobody") and not client.is_model_ready("linear", "99")


def test_metadata_names_inputs_and_outputs(client):
    told = client.get_model_metadata("linear")
    assert told["name"] == "linear" and told["versions"] == ["1"] and told["platform"] != ""
    sides = [(t["name"], t["datatype"], [int(d) for d in t["shape"]]) for t in (*told["inputs"], *told["outputs"])]
    assert sides == [("x", "FP32", [-1, 4]), ("y", "FP32", [-1, 3])]


def test_configuration_is_in_tritons_form(client):
    told = client.get_model_config("linear")
    told = told.get("config", told)  # gRPC wraps it
    assert told["name"] == "linear" and int(told["max_batch_size"]) >= 1
    assert [(i["name"], i["data_type"], [int(d) for d in i["dims"]]) for i in told["input"]] == [("x", "TYPE_FP32", [4])]
    assert [(o["name"], o["data_type"], [int(d) for d in o["dims"]]) for o in told["output"]] == [("y", "TYPE_FP32", [3])]


def test_statistics_count_rows_and_executions(client):
    def counts():
        told = client.get_inference_statistics("linear")["model_stats"][0]
        return int(told.get("inference_count", 0)), int(told.get("execution_count", 0)), \
            int(told["inference_stats"]["success"].get("count", 0))
    before = counts()
    for _ in range(3):
        client.linear()
    wanted = tuple(then + more for then, more in zip(before, (3 * len(X), 3, 3)))
    eventually(lambda: counts() == wanted, what=f"{wanted} after {before}")  # Triton answers first and counts then


@dhow_only  # Triton's Python backend counts it as a success
def test_a_failed_request_is_counted_apart(client):
    def failed():
        told = client.get_inference_statistics("pair")["model_stats"][0]["inference_stats"]
        return int(told["success"].get("count", 0)), int(told["fail"].get("count", 0))
    good, bad = failed()
    a, b = np.array([1, 2], np.int32), np.array([1, 2, 3], np.int32)
    refused(client.infer, "pair", [client.input("a", "INT32", a), client.input("b", "INT32", b)])
    assert failed() == (good, bad + 1)


# ---- predictions ----

@pytest.mark.parametrize("rows", [1, 2, 33])
def test_numbers_are_the_models_own(client, rows):
    x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
    y = client.linear(x).as_numpy("y")
    assert y.dtype == np.float32 and y.shape == (rows, 3)
    close(y, x @ W + B)


@pytest.mark.parametrize("out", [True, False], ids=["to-binary", "to-json"])
@pytest.mark.parametrize("into", [True, False], ids=["binary", "json"])
def test_binary_and_json_can_be_mixed(server, into, out):
    http = Client(server, "http")
    y = http.linear(binary=into, outputs=[http.output("y", binary=out)]).as_numpy("y")
    close(y, Y)


def test_the_id_comes_back(client):
    told = client.linear(request_id="my-7").get_response()
    assert (told["id"] if client.how == "http" else told.id) == "my-7"


def test_a_version_can_be_named(client):
    close(client.linear(model_version="1").as_numpy("y"), Y)


def test_requested_outputs_alone_come_back(client):
    a, b = np.array([5, -7], np.int32), np.array([1, 2], np.int32)
    inputs = [client.input("a", "INT32", a), client.input("b", "INT32", b)]
    both = client.infer("pair", inputs)
    assert both.as_numpy("sum").tolist() == [6, -5] and both.as_numpy("difference").tolist() == [4, -9]
    one = client.infer("pair", inputs, outputs=[client.output("difference")])
    assert one.as_numpy("difference").tolist() == [4, -9] and one.as_numpy("sum") is None


def test_inputs_may_come_in_any_order(client):
    a, b = np.array([5], np.int32), np.array([1], np.int32)
    got = client.infer("pair", [client.input("b", "INT32", b), client.input("a", "INT32", a)])
    assert got.as_numpy("difference").tolist() == [4]


def extremes(kind):
    dtype = DTYPES[kind]
    if kind == "BOOL":
        return np.array([[True, False], [False, True]])
    info = np.finfo(dtype) if kind.startswith("FP") else np.iinfo(dtype)
    return np.array([[info.min, info.max], [0, 1]], dtype)


@pytest.mark.parametrize("kind", DTYPES)
def test_each_datatype_comes_back_as_it_was(server, client, kind):
    if not client.is_model_ready(f"same-{kind.lower()}"):
        server.deploy(f"same-{kind.lower()}", same(kind))
    x = extremes(kind)
    ways = [True] if client.how == "grpc" or kind == "FP16" else [True, False]
    for binary in ways:
        y = client.infer(f"same-{kind.lower()}", [client.input("x", kind, x, binary)],
                         outputs=[client.output("y", binary=binary)]).as_numpy("y")
        assert y.dtype == x.dtype and y.tolist() == x.tolist()


@dhow_only
def test_bfloat16_comes_back_as_it_was(server, client):
    if not client.is_model_ready("same-bf16"):
        server.deploy("same-bf16", same("BF16"))
    x = np.array([[1.5, -2], [3e38, 0]], ml_dtypes.bfloat16)
    y = client.infer("same-bf16", [client.input("x", "BF16", x)]).as_numpy("y")
    assert np.asarray(y, np.float32).tolist() == x.astype(np.float32).tolist()


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_texts_come_back_as_they_were(client, binary):
    x = np.array([["", "a"], ["Grüße, 世界", 'quote " and \\ and \n'], ["x" * 1000, "\U0001f600"]], dtype=object)
    y = client.infer("text", [client.input("x", "BYTES", x, binary)], outputs=[client.output("y", binary=binary)]).as_numpy("y")
    assert [[v if isinstance(v, str) else v.decode() for v in row] for row in y] == x.tolist()


def test_classification_gives_the_greatest_values_and_their_places(client):
    labels = client.linear(outputs=[client.output("y", class_count=2)]).as_numpy("y")
    assert labels.shape == (len(X), 2)
    for row, texts in zip(Y, labels):
        places = np.argsort(-row)[:2]
        for place, text in zip(places, texts):
            value, index = text.decode().split(":")[:2]
            assert int(index) == place and float(value) == pytest.approx(float(row[place]), abs=1e-5)


def test_priority_timeout_and_other_parameters_are_taken(client):
    y = client.linear(priority=1, timeout=10_000_000, parameters={"note": "x", "number": 3, "flag": True}).as_numpy("y")
    close(y, Y)


def test_sequence_parameters_are_taken(client):
    """A model without sequence batching answers each request by itself."""
    for start, end in ((True, False), (False, False), (False, True)):
        y = client.linear(sequence_id=42, sequence_start=start, sequence_end=end).as_numpy("y")
        close(y, Y)


# ---- refusals ----

def test_an_unknown_model_is_refused(client):
    status, told = refused(client.infer, "nobody", [client.input("x", "FP32", X)])
    assert "nobody" in told
    assert status in ("400", "404", "StatusCode.NOT_FOUND")


def test_an_unknown_version_is_refused(client):
    status, told = refused(client.linear, model_version="77")
    assert "linear" in told and status in ("400", "404", "StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT")


def test_another_name_shape_or_datatype_is_refused(client):
    wrong = [("nothing", "FP32", X), ("x", "FP32", X[:, :3]), ("x", "FP32", X.reshape(-1)), ("x", "FP64", X.astype(np.float64))]
    for name, kind, value in wrong:
        status, told = refused(client.infer, "linear", [client.input(name, kind, value)])
        assert told and status in ("400", "StatusCode.INVALID_ARGUMENT"), (name, kind, status, told)


def test_a_missing_input_and_an_unknown_output_are_refused(client):
    a = np.array([5], np.int32)
    status, told = refused(client.infer, "pair", [client.input("a", "INT32", a)])
    assert status in ("400", "StatusCode.INVALID_ARGUMENT"), told
    status, told = refused(client.linear, outputs=[client.output("nothing")])
    assert "nothing" in told and status in ("400", "StatusCode.INVALID_ARGUMENT")


ONE, A = np.ones((1, 4), np.float32), np.array([5], np.int32)
WORDS = {
    "model": ("nobody", [("x", "FP32", ONE)], {}, "Request for unknown model: 'nobody' is not found"),
    "version": ("linear", [("x", "FP32", ONE)], {"model_version": "77"},
                "Request for unknown model: 'linear' version 77 is not found"),
    "input": ("linear", [("z", "FP32", ONE)], {}, "unexpected inference input 'z' for model 'linear'"),
    "none": ("linear", [], {}, "expected 1 inputs but got 0 inputs for model 'linear'. Got input(s) [], but missing required "
             "input(s) ['x']. Please provide all required input(s)."),
    "few": ("pair", [("a", "INT32", A)], {}, "expected 2 inputs but got 1 inputs for model 'pair'. Got input(s) ['a'], but "
            "missing required input(s) ['b']."),
    "many": ("linear", [("x", "FP32", ONE), ("z", "FP32", ONE)], {}, "expected 1 inputs but got 2 inputs for model 'linear'."),
    "other": ("pair", [("a", "INT32", A), ("c", "INT32", A)], {}, "unexpected inference input 'c' for model 'pair'"),
    "datatype": ("linear", [("x", "INT32", ONE.astype(np.int32))], {},
                 "inference input 'x' data-type is 'INT32', but model 'linear' expects 'FP32'"),
    "size": ("linear", [("x", "FP32", ONE[:, :3])], {}, "unexpected shape for input 'x' for model 'linear'. Expected [-1,4], got [1,3]."),
    "rank": ("linear", [("x", "FP32", ONE[0])], {}, "unexpected shape for input 'x' for model 'linear'. Expected [-1,4], got [4]."),
    "output": ("linear", [("x", "FP32", ONE)], {"outputs": ["nothing"]}, "unexpected inference output 'nothing' for model 'linear'"),
}


@pytest.mark.parametrize("case", WORDS)
def test_what_is_wrong_is_said_in_tritons_words(client, case):
    """Clients and dashboards look for these sentences; a real Triton is asked the same by `make test-peers`."""
    model, inputs, more, words = WORDS[case]
    more = {**more, "outputs": [client.output(name) for name in more["outputs"]]} if "outputs" in more else more
    status, told = refused(client.infer, model, [client.input(*one) for one in inputs], **more)
    assert words in told, (status, told)


def test_after_refusals_the_connection_goes_on(client):
    for _ in range(3):
        refused(client.linear, X[:, :2])
        close(client.linear().as_numpy("y"), Y)


# ---- the repository ----

def test_the_index_names_models_that_are_ready(client):
    told = client.get_model_repository_index()
    told = told.get("models", []) if isinstance(told, dict) else told
    assert {("linear", "READY"), ("pair", "READY")} <= {(m["name"], m.get("state")) for m in told}


def test_a_model_can_be_unloaded_and_loaded_again(server, client):
    name = f"coming-{client.how}"
    server.deploy(name, MODEL, batch=64)

    def asked():
        return client.infer(name, [client.input("x", "FP32", X)]).as_numpy("y")
    close(asked(), Y)
    client.unload_model(name)
    for _ in range(200):
        if not client.is_model_ready(name):
            break
    assert not client.is_model_ready(name)
    refused(asked)
    client.load_model(name)
    assert client.is_model_ready(name)
    close(asked(), Y)


def test_an_unknown_model_cannot_be_loaded(client):
    status, told = refused(client.load_model, "nobody")
    assert "nobody" in told
    assert status in (("500", "StatusCode.INTERNAL") if ORACLE else ("404", "StatusCode.NOT_FOUND"))


# ---- trace and log settings ----

def test_trace_settings_can_be_read(client):
    told = client.get_trace_settings()
    told = told.get("settings", told)
    assert {"trace_level", "trace_rate", "trace_count", "log_frequency"} <= set(told)


def test_trace_settings_can_be_changed_and_taken_back(client):
    """The server's, and a model's own: a number set there, the rest as the server has it; None is the server's again."""
    def rate(told):
        told = told.get("settings", told)
        return int(told["trace_rate"]["value"][0] if client.how == "grpc" else told["trace_rate"])
    before = rate(client.get_trace_settings())
    assert rate(client.update_trace_settings(settings={"trace_rate": "500", "trace_count": "9"})) == 500
    assert rate(client.get_trace_settings(model_name="linear")) == 500
    assert rate(client.update_trace_settings(model_name="linear", settings={"trace_rate": "7"})) == 7
    assert rate(client.get_trace_settings(model_name="linear")) == 7 and rate(client.get_trace_settings()) == 500
    assert rate(client.update_trace_settings(model_name="linear", settings={"trace_rate": None})) == 500
    assert rate(client.update_trace_settings(settings={"trace_rate": None, "trace_count": None})) == before
    close(client.linear().as_numpy("y"), Y)


def test_log_settings_can_be_read_and_changed(client):
    told = client.get_log_settings()
    told = told.get("settings", told)
    assert {"log_info", "log_warning", "log_error", "log_verbose_level", "log_format"} <= set(told)
    client.update_log_settings({"log_verbose_level": 0})


def test_nobody_chooses_a_file_of_the_server(client):
    refused(client.update_log_settings, {"log_file": "/tmp/never"})
    refused(client.update_trace_settings, settings={"trace_file": "/tmp/never"})


# ---- HTTP alone ----

@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "json"])
def test_bodies_may_be_compressed(server, algorithm, binary):
    http = Client(server, "http")
    x = np.tile(X, (12, 1))
    y = http.linear(x, binary, [http.output("y", binary)], request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm).as_numpy("y")
    close(y, x @ W + B)


def test_futures_over_many_connections(server):
    with triton_http.InferenceServerClient(server.rest, concurrency=8) as client:
        def one(i):
            x = triton_http.InferInput("x", [1, 4], "FP32")
            x.set_data_from_numpy(np.full((1, 4), i, np.float32))
            return client.async_infer("linear", [x], headers=server.headers)
        for i, future in enumerate([one(i) for i in range(64)]):
            close(future.get_result().as_numpy("y")[0], np.full(4, i) @ W + B, 1e-4)


def test_asyncio(server):
    async def work():
        async with triton_aio.InferenceServerClient(server.rest) as client:
            async def one(i):
                x = triton_http.InferInput("x", [1, 4], "FP32")
                x.set_data_from_numpy(np.full((1, 4), i, np.float32))
                answer = await client.infer("linear", [x], headers=server.headers)
                return answer.as_numpy("y")[0]
            assert await client.is_server_ready(headers=server.headers)
            return await asyncio.gather(*(one(i) for i in range(32)))
    for i, y in enumerate(asyncio.run(work())):
        close(y, np.full(4, i) @ W + B, 1e-4)


# ---- curl: the forms that people type ----

def curl(server, path, *args, data=None):
    """(status, content type, body)."""
    command = ["curl", "-sS", "--max-time", "20", "-w", "%{stderr}%{http_code} %{content_type}", f"http://{server.rest}{path}"]
    for name, value in server.headers.items():
        command += ["-H", f"{name}: {value}"]
    done = subprocess.run([*command, *args], input=data, capture_output=True)
    assert done.returncode == 0, done.stderr
    status, _, kind = done.stderr.decode().partition(" ")
    return int(status), kind, done.stdout


@pytest.mark.parametrize("data", [X.tolist(), X.ravel().tolist()], ids=["nested", "flat"])
@pytest.mark.parametrize("path", ["/v2/models/linear/infer", "/v2/models/linear/versions/1/infer"])
def test_curl_json(server, path, data):
    body = json.dumps({"id": "c", "inputs": [{"name": "x", "shape": [5, 4], "datatype": "FP32", "data": data}]})
    status, kind, told = curl(server, path, "-d", body)
    told = json.loads(told)
    assert status == 200 and kind == "application/json", told
    assert (told["model_name"], told["model_version"], told["id"]) == ("linear", "1", "c")
    assert told["outputs"][0]["shape"] == [5, 3]
    close(told["outputs"][0]["data"], Y.ravel())


def test_curl_binary(server):
    head = json.dumps({"inputs": [{"name": "x", "shape": [5, 4], "datatype": "FP32",
                                   "parameters": {"binary_data_size": X.nbytes}}],
                       "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    status, kind, told = curl(server, "/v2/models/linear/infer", "-H", f"Inference-Header-Content-Length: {len(head)}",
                              "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", data=head + X.tobytes())
    assert status == 200 and kind == "application/octet-stream", told
    close(np.frombuffer(told[-Y.nbytes:], np.float32), Y.ravel())
    assert json.loads(told[:-Y.nbytes])["outputs"][0]["parameters"]["binary_data_size"] == Y.nbytes


def test_curl_one_raw_tensor(server):
    """Without any JSON: the body is the one input of one row, the answer is binary."""
    status, kind, told = curl(server, "/v2/models/linear/infer", "-H", "Inference-Header-Content-Length: 0",
                              "-H", "Content-Type: application/octet-stream", "--data-binary", "@-", data=X[:1].tobytes())
    assert status == 200 and kind == "application/octet-stream", told
    close(np.frombuffer(told[-12:], np.float32), Y[0])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"inputs":3}', b'{"inputs":[{"name":"x"}]}',
                                  b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3]}]}',
                                  b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,"4"]}]}',
                                  b'{"inputs":[{"name":"x","shape":[-1,4],"datatype":"FP32","data":[1,2,3,4]}]}'], ids=repr)
def test_curl_a_refusal_is_an_error_in_json(server, body):
    status, _, told = curl(server, "/v2/models/linear/infer", "--data-binary", "@-", data=body)
    assert status in (400, 500) if ORACLE else status == 400, told
    assert set(json.loads(told)) == {"error"}


@pytest.mark.parametrize("length", ["-5", "12x", "99999999999999999999", "100000"])
def test_curl_a_wrong_header_length_is_refused(server, length):
    status, _, told = curl(server, "/v2/models/linear/infer", "-H", f"Inference-Header-Content-Length: {length}",
                           "--data-binary", "@-", data=b'{"inputs":[]}' + X.tobytes())
    assert status in (400, 500) if ORACLE else status == 400, told
    assert json.loads(told)["error"]


# ---- gRPC alone ----

@pytest.fixture
def wire(server):
    """A bare channel and its metadata."""
    with grpc.insecure_channel(server.grpc) as channel:
        yield channel, tuple(server.headers.items())


def stream(server, requests, **more):
    """Sends requests, (model, id), over one stream: for each the answer or the error, in the order they came."""
    client = Client(server, "grpc")
    came = queue.Queue()
    client.client.start_stream(lambda result, error: came.put((result, error)), headers=server.headers)
    for model, name in requests:
        client.client.async_stream_infer(model, [client.input("x", "FP32", X)], request_id=name, **more)
    got = [came.get(timeout=20) for _ in requests]
    client.client.stop_stream()
    client.client.close()
    return got


def test_a_stream_answers_each_request(server):
    names = [f"r{i}" for i in range(20)]
    got = stream(server, [("linear", name) for name in names])
    assert all(error is None for _, error in got)
    assert sorted(result.get_response().id for result, _ in got) == sorted(names)
    for result, _ in got:
        close(result.as_numpy("y"), Y)


def test_an_error_in_a_stream_does_not_end_it(server):
    got = stream(server, [("linear", "a"), ("nobody", "b"), ("linear", "c")])
    assert sum(error is not None for _, error in got) == 1
    assert "nobody" in next(str(error) for _, error in got if error)
    assert {result.get_response().id for result, _ in got if result} == {"a", "c"}


def test_a_stream_tells_which_response_is_the_last(server):
    (result, error), = stream(server, [("linear", "a")], enable_empty_final_response=True)
    assert error is None and result.get_response().parameters["triton_final_response"].bool_param


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_messages_may_be_compressed(server, algorithm):
    client = Client(server, "grpc")
    x = np.tile(X, (12, 1))
    close(client.linear(x, compression_algorithm=algorithm).as_numpy("y"), x @ W + B)


def test_a_deadline_ends_a_call(server):
    server.deploy("slow-late", slow())
    client = Client(server, "grpc")
    x = np.ones((200, 256), np.float32)
    status, _ = refused(client.infer, "slow-late", [client.input("x", "FP32", x)], client_timeout=0.05)
    assert status == "StatusCode.DEADLINE_EXCEEDED"
    assert client.is_server_live()


def test_a_call_can_be_cancelled(server):
    server.deploy("slow-cancelled", slow())
    client, told, over = Client(server, "grpc"), [], threading.Event()

    def ended(result, error):
        told.append((result, error))
        over.set()
    x = np.ones((200, 256), np.float32)
    call = client.client.async_infer("slow-cancelled", [client.input("x", "FP32", x)], ended, headers=server.headers)
    call.cancel()
    assert over.wait(20)
    assert told[0][0] is None and str(told[0][1].status()) == "StatusCode.CANCELLED"
    close(client.linear().as_numpy("y"), Y)


def test_many_calls_share_a_connection(server):
    client, answers = Client(server, "grpc"), queue.Queue()
    for i in range(100):
        x = client.input("x", "FP32", np.full((1, 4), i, np.float32))
        client.client.async_infer("linear", [x], lambda result, error: answers.put((result, error)), request_id=str(i),
                                  headers=server.headers)
    for _ in range(100):
        result, error = answers.get(timeout=20)
        assert error is None
        close(result.as_numpy("y")[0], np.full(4, int(result.get_response().id)) @ W + B, 1e-4)


def infer_message(**more):
    of = triton_grpc.service_pb2
    request = of.ModelInferRequest(model_name="linear", id="w", **more)
    request.inputs.add(name="x", datatype="FP32", shape=[5, 4])
    return request


def asked(wire, request):
    channel, metadata = wire
    return triton_grpc.service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, metadata=metadata, timeout=20)


def test_typed_contents_are_as_good_as_raw_ones(wire):
    request = infer_message()
    request.inputs[0].contents.fp32_contents.extend(X.ravel().tolist())
    told = asked(wire, request)
    close(np.frombuffer(told.raw_output_contents[0], np.float32), Y.ravel())


def test_raw_and_typed_contents_together_are_refused(wire):
    request = infer_message(raw_input_contents=[X.tobytes()])
    request.inputs[0].contents.fp32_contents.extend(X.ravel().tolist())
    with pytest.raises(grpc.RpcError) as caught:
        asked(wire, request)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_raw_contents_of_another_size_are_refused(wire):
    more = [] if ORACLE else [[X.tobytes(), X.tobytes()]]  # Triton does not look at what is left over
    for raw in ([X.tobytes()[:-4]], [X.tobytes() + b"\0\0\0\0"], *more):
        with pytest.raises(grpc.RpcError) as caught:
            asked(wire, infer_message(raw_input_contents=raw))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_a_message_that_is_no_protobuf_is_refused(wire):
    channel, metadata = wire
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", lambda x: x, lambda x: x)
    for body in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x2a\x05x"):
        with pytest.raises(grpc.RpcError) as caught:
            call(body, metadata=metadata, timeout=20)
        assert caught.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)


def test_an_unknown_method_is_unimplemented(wire):
    channel, metadata = wire
    for path in ("/inference.GRPCInferenceService/Nothing", "/nothing.Service/Nothing"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(path, lambda x: x, lambda x: x)(b"", metadata=metadata, timeout=20)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_the_health_service_answers_probes(wire):
    """grpc.health.v1: field 1 of the answer is 1, serving. It asks for no token, as kubelets have none."""
    channel, _ = wire
    check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda x: x, lambda x: x)
    assert check(b"", timeout=20) == b"\x08\x01"


@dhow_only
def test_reflection_names_the_services(wire):
    channel, metadata = wire
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked_for = [reflection_pb2.ServerReflectionRequest(list_services=""),
                 reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService")]
    services, file = stub.ServerReflectionInfo(iter(asked_for), metadata=metadata, timeout=20)
    names = {service.name for service in services.list_services_response.service}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= names
    assert b"ModelInfer" in file.file_descriptor_response.file_descriptor_proto[0]


@dhow_only
def test_without_a_token_nobody_is_answered(server):
    x = triton_http.InferInput("x", [5, 4], "FP32")
    x.set_data_from_numpy(X)
    assert refused(triton_http.InferenceServerClient(server.rest).infer, "linear", [x])[0] == "401"
    x = triton_grpc.InferInput("x", [5, 4], "FP32")
    x.set_data_from_numpy(X)
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert refused(client.infer, "linear", [x])[0] == "StatusCode.UNAUTHENTICATED"
        assert refused(client.infer, "linear", [x], headers={"authorization": "Bearer nobody"})[0] == "StatusCode.UNAUTHENTICATED"


@dhow_only
def test_who_may_predict_may_not_unload(server, client):
    """A token for predictions alone has no right to change what is loaded."""
    client.server = Dhow(server.daemon, server.daemon.make_token(["consumer"], name=f"asks-{client.how}")["token"])
    close(client.linear().as_numpy("y"), Y)
    assert refused(client.unload_model, "linear")[0] in ("403", "StatusCode.PERMISSION_DENIED")


def test_a_torn_message_does_not_hurt_others(server):
    """A gRPC frame that promises more than comes."""
    torn = b"\0" + struct.pack(">I", 1000) + b"x"
    subprocess.run(["curl", "-s", "--max-time", "5", "--http2-prior-knowledge", "-H", "content-type: application/grpc",
                    "-H", "te: trailers", "--data-binary", "@-", f"http://{server.grpc}/inference.GRPCInferenceService/ModelInfer"], input=torn,
                   capture_output=True)
    close(Client(server, "grpc").linear().as_numpy("y"), Y)
